"""Worker: this library, its event engine.

python ours.py native | xla
"""

import sys
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from protocol import Unavailable, serve
from records import AREA, INPUTS, PARAMETERS, Convolution, Layers, Stage, Work

import jaxsnn
from jaxsnn.event.event_driven import EventDriven
from jaxsnn.network.network import Network, with_tau_facts
from jaxsnn.network.results import Result
from jaxsnn.network.spikes import Events
from jaxsnn.network.structure import Population, Wire
from jaxsnn.nir.model.passes import Window

BACKEND = sys.argv[1] if sys.argv[0].endswith("ours.py") else "auto"


def neurons(name: str, size: int, work) -> tuple[Population, dict[str, jax.Array]]:
    """A population whose neurons all have the work's parameters, and those."""
    values = {**{parameter: getattr(work, parameter) for parameter in PARAMETERS}, "v_reset": 0.0}
    parameters = {key: jnp.full(size, value, jnp.float32) for key, value in values.items()}
    return with_tau_facts(
        Population(name=name, kind="CubaLIF", size=size, spike_area=AREA), parameters
    ), parameters


def layer(number: int) -> str:
    """The name of a population, counted from 0."""
    return f"layer{number + 1}"


def network(work: Work | Convolution | Layers) -> Network:
    """The work as a network that could also have come from a file."""
    populations, parameters = {}, {}
    wires, before = [Wire(name="input", kind="input", sources=(), shape=work.shape)], "input"
    for number, stage in enumerate(work.stages):
        weight, name = getattr(work, stage.name), layer(number)
        if weight.ndim == 4:
            before = convolved(wires, before, stage, weight.shape)
            zeros = jnp.zeros(len(weight))
            parameters[stage.name] = {"weight": jnp.asarray(weight, jnp.float32), "bias": zeros}
        else:
            before = dense(wires, parameters, stage.name, weight, before)
        shape, sources = wires[-1].shape, [before]
        populations[name], parameters[name] = neurons(name, int(np.prod(shape)), work)
        if number == 0 and work.recurrent:
            back = getattr(work, work.feedback)
            sources.append(dense(wires, parameters, work.feedback, back, name))
        wires.append(Wire(name=name, kind="neuron", sources=tuple(sources), shape=shape))
        before = name
    return Network(parameters=parameters, wires=wires, populations=populations)


def dense(wires: list[Wire], parameters: dict, name: str, weight: np.ndarray, before: str) -> str:
    """Adds weights (inputs, neurons)."""
    parameters[name] = {"weight": jnp.asarray(weight.T, jnp.float32)}
    wires.append(Wire(name=name, kind="Linear", sources=(before,), shape=(weight.shape[1],)))
    return name


def convolved(wires: list[Wire], before: str, stage: Stage, kernel: tuple[int, ...]) -> str:
    """Adds a convolution, and a pool before it where there is one."""
    channels, side = wires[-1].shape[0], wires[-1].shape[-1]
    if stage.pool > 1:
        side //= stage.pool
        shape, detail = (channels, side, side), window(stage.pool, stride=stage.pool)
        pool = Wire(name="pool", kind="SumPool2d", sources=(before,), shape=shape, detail=detail)
        wires.append(pool)
        before = pool.name
    side = (side + 2 * stage.padding - kernel[-1]) // stage.stride + 1
    shape, detail = (kernel[0], side, side), window(kernel[-1], stage.stride, stage.padding)
    sources = (before,)
    wires.append(Wire(name=stage.name, kind="Conv2d", sources=sources, shape=shape, detail=detail))
    return stage.name


def window(taps: int, stride: int = 1, padding: int = 0) -> Window:
    """The same in both directions."""
    both = lambda value: (value, value)  # noqa: E731
    return Window(
        kernel=both(taps),
        stride=both(stride),
        dilation=both(1),
        padding=both(both(padding)),
        groups=1,
    )


def engine(work: Work | Convolution | Layers, threads: int | None = None) -> EventDriven:
    """Budgets just large enough, as its users would set them after a first run."""
    options: dict[str, Any] = {"backend": BACKEND, "threads": threads}
    if isinstance(work, Convolution):
        return EventDriven(max_spikes=work.max_spikes, max_arrivals=work.max_arrivals, **options)
    if isinstance(work, Layers):
        return EventDriven(**budgets(work), **options)
    if work.once:
        return EventDriven(first_spike_only=True, **options)
    events = {layer(0): work.hidden_events + INPUTS} if work.recurrent else None
    return EventDriven(
        first_spike_only=(layer(1),),
        max_spikes={layer(0): work.max_spikes},
        max_events=events,
        **options,
    )


def budgets(work: Layers) -> dict[str, Any]:
    """Of work of real size."""
    room = {layer(0): work.room} if work.room else None
    hidden = [layer(number) for number in range(len(work.stages))]
    if work.convolves:
        arrivals = dict(zip(hidden, work.max_arrivals, strict=True))
        slots = dict.fromkeys(hidden, work.max_spikes)
        return {"max_spikes": slots, "max_events": room, "max_arrivals": arrivals}
    last = hidden.pop()
    return {
        "max_spikes": dict.fromkeys(hidden, work.max_spikes),
        "max_events": room,
        "first_spike_only": True if work.once else (last,),
    }


def totals(net: Network, names: list[str], value):
    """Compiled: the value; its gradients by weights, and by everything and the input times."""

    def of_weights(weights, net, *inputs):
        # weights alone: a bias that nobody else has is no part of the work
        changed = {name: {**net.parameters[name], **own} for name, own in weights.items()}
        return value(net.with_parameters({**net.parameters, **changed}), *inputs)

    forward = jax.jit(value)
    by_weights = jax.jit(jax.value_and_grad(of_weights, has_aux=True))
    by_everything = jax.jit(jax.value_and_grad(value, argnums=(0, 1), has_aux=True))
    return (
        forward,
        partial(by_weights, {name: {"weight": net.parameters[name]["weight"]} for name in names}),
        by_everything,
    )


def succeeded(result) -> None:
    """Raises: Unavailable, where the run did not succeed."""
    if result != Result.SUCCESS:
        raise Unavailable(f"the run ended with {Result(int(result)).name}")


def build(work: Work | Convolution | Layers):
    makers = {"Work": build_network, "Convolution": build_convolution, "Layers": build_layers}
    return makers[type(work).__name__](work)


def build_network(work: Work):
    net, times = network(work), jnp.asarray(work.input_times, jnp.float32)
    index = jnp.broadcast_to(jnp.arange(INPUTS, dtype=jnp.int32), times.shape)
    names = [name for name in net.parameters if name.endswith("weights")]

    def total(net, times, index):
        solution = jaxsnn.simulate(
            net, Events(time=times, index=index), work.t_end, engine=engine(work)
        )
        found = solution.first_spike(layer(1))
        return found.sum(), (found, solution.result)

    forward, by_weights, by_everything = totals(net, names, total)
    given = net, times, index

    def results():
        ((_, (found, result)), (of_network, of_times)) = by_everything(*given)
        succeeded(result)
        gradient, of_weights = of_network.parameters, by_weights(*given)[1]
        for name in names:
            expected, got = (np.asarray(each[name]["weight"]) for each in (gradient, of_weights))
            if not np.linalg.norm(got - expected) < 1e-3 * np.linalg.norm(expected):
                raise Unavailable(f"the two gradients of {name} differ")
        return {
            "output_times": found,
            **{name: gradient[name]["weight"].T for name in names},
            "input_times": of_times,
            **{
                name: sum(gradient[layer(number)][name].sum() for number in range(2))
                for name in PARAMETERS
            },
        }

    rows = {
        "forward": lambda: jax.block_until_ready(forward(*given)),
        "weights": lambda: jax.block_until_ready(by_weights(*given)),
        "all": lambda: jax.block_until_ready(by_everything(*given)),
    }
    return rows, results


def build_convolution(work: Convolution):
    net = network(work).with_lasting_time_constants()
    events, options = events_of(work), engine(work)

    def total(net, events):
        solution = jaxsnn.simulate(net, events, work.t_end, engine=options)
        spikes = solution.spikes[layer(0)]
        times = jnp.where(jnp.isfinite(spikes.time), spikes.time, 0.0)
        weighted = (jax.lax.stop_gradient(spikes.slope) * times).sum()
        return weighted, (times.sum(axis=2), spikes.count, solution.result)

    forward, by_weights, _ = totals(net, ["kernel"], total)

    def results():
        (_, (summed, count, result)), gradient = by_weights(net, events)
        succeeded(result)
        return {"summed_times": summed, "counts": count, "kernel": gradient["kernel"]["weight"]}

    rows = {
        "forward": lambda: jax.block_until_ready(forward(net, events)),
        "weights": lambda: jax.block_until_ready(by_weights(net, events)),
    }
    return rows, results


def build_layers(work: Layers):
    """Of work of real size: one sample forward, and a batch, with one thread for each processor and
    with one alone.
    """
    net = network(work).with_lasting_time_constants()  # as `fit` does where they are not trained
    names = [stage.name for stage in work.stages]
    names += [work.feedback] if work.recurrent else []
    last = layer(len(work.stages) - 1)

    def total(options, net, events):
        solution = jaxsnn.simulate(net, events, work.t_end, engine=options, throw=False)
        spikes = solution.spikes[last]
        if work.convolves:
            times = jnp.where(jnp.isfinite(spikes.time), spikes.time, 0.0)
            slopes = jax.lax.stop_gradient(jnp.clip(spikes.slope, 0, 100))
            value = (slopes * times).sum()
        else:
            first = solution.first_spike(last)
            value = jnp.where(jnp.isfinite(first), first, work.t_end).sum()
        return value, (solution.spikes[layer(0)].count, solution.result)

    forward, by_weights, _ = totals(net, names, partial(total, engine(work)))
    by_one_thread = totals(net, names, partial(total, engine(work, threads=1)))[1]
    batch, alone = events_of(work), events_of(work.alone())

    def results():
        (_, (count, result)), gradient = by_weights(net, batch)
        succeeded(result)
        gradients = {name: np.asarray(gradient[name]["weight"]) for name in names}
        return {"counts": np.asarray(count), "fired": float(count.mean()), **gradients}

    return {
        "one": lambda: jax.block_until_ready(forward(net, alone)),
        "weights": lambda: jax.block_until_ready(by_weights(net, batch)),
        "one thread": lambda: jax.block_until_ready(by_one_thread(net, batch)),
    }, results


def events_of(work: Convolution | Layers) -> Events:
    """What comes in."""
    return Events(
        time=jnp.asarray(work.input_times, jnp.float32),
        index=jnp.asarray(work.input_channels, jnp.int32),
    )


if __name__ == "__main__":
    serve(lambda: f"jaxsnn-nir {jaxsnn.__version__}, {BACKEND}", build)
