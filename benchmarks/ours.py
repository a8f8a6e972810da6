"""Worker: this library, its event engine."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from protocol import Unavailable, serve
from records import AREA, INPUTS, OUTPUTS, PARAMETERS, Convolution, Work

import jaxsnn
from jaxsnn.event.event_driven import EventDriven
from jaxsnn.network.network import Network, with_tau_facts
from jaxsnn.network.results import Result
from jaxsnn.network.spikes import Events
from jaxsnn.network.structure import Population, Wire
from jaxsnn.nir.passes import Window


def neurons(name: str, size: int, work) -> tuple[Population, dict[str, jax.Array]]:
    """A population whose neurons all have the work's parameters, and those."""
    values = {**{parameter: getattr(work, parameter) for parameter in PARAMETERS}, "v_reset": 0.0}
    parameters = {key: jnp.full(size, value, jnp.float32) for key, value in values.items()}
    return with_tau_facts(
        Population(name=name, kind="CubaLIF", size=size, spike_area=AREA), parameters
    ), parameters


def network(work: Work) -> Network:
    """The work as a network that could also have come from a file."""
    populations, parameters = {}, {}
    for name, size in (("hidden", work.hidden), ("output", OUTPUTS)):
        populations[name], parameters[name] = neurons(name, size, work)
    linear = {"hidden_weights": ("input", "hidden"), "output_weights": ("hidden", "output")}
    if work.recurrent:
        linear["recurrent_weights"] = ("hidden", "hidden")
    into: dict[str, list[str]] = {"hidden": [], "output": []}
    wires = {"input": Wire(name="input", kind="input", sources=(), shape=(INPUTS,))}
    for name, (source, target) in linear.items():
        parameters[name] = {"weight": jnp.asarray(getattr(work, name).T, jnp.float32)}
        shape = (populations[target].size,)
        wires[name] = Wire(name=name, kind="Linear", sources=(source,), shape=shape)
        into[target].append(name)
    for name, sources in into.items():
        wires[name] = Wire(
            name=name, kind="neuron", sources=tuple(sources), shape=(populations[name].size,)
        )
    order = ("input", "hidden_weights", "recurrent_weights", "hidden", "output_weights", "output")
    return Network(
        parameters=parameters,
        wires=[wires[name] for name in order if name in wires],
        populations=populations,
    )


def engine(work: Work) -> EventDriven:
    """Budgets just large enough, as its users would set them after a first run."""
    if work.once:
        return EventDriven(first_spike_only=True)
    events = {"hidden": work.hidden_events + INPUTS} if work.recurrent else None
    return EventDriven(
        first_spike_only=("output",), max_spikes={"hidden": work.max_spikes}, max_events=events
    )


def convolution_network(work: Convolution) -> Network:
    """Input, convolution, spiking neurons."""
    channels, taps, out = len(work.kernel), work.kernel.shape[-1], work.out_side
    shape = (channels, out, out)
    population, parameters = neurons("hidden", channels * out * out, work)
    both = lambda value: (value, value)  # noqa: E731
    window = Window(
        kernel=both(taps),
        stride=both(work.stride),
        dilation=both(1),
        padding=both(both(work.padding)),
        groups=1,
    )
    wires = [
        Wire(name="input", kind="input", sources=(), shape=(2, work.side, work.side)),
        Wire(name="kernel", kind="Conv2d", sources=("input",), shape=shape, detail=window),
        Wire(name="hidden", kind="neuron", sources=("kernel",), shape=shape),
    ]
    given = {
        "kernel": {"weight": jnp.asarray(work.kernel, jnp.float32), "bias": jnp.zeros(channels)}
    }
    return Network(
        parameters={**given, "hidden": parameters}, wires=wires, populations={"hidden": population}
    )


def totals(net: Network, names: list[str], value):
    """Compiled: the value; its gradients by weights, and by everything and the input times."""

    def of_weights(weights, net, *inputs):
        return value(net.with_parameters({**net.parameters, **weights}), *inputs)

    forward = jax.jit(value)
    by_weights = jax.jit(jax.value_and_grad(of_weights, has_aux=True))
    by_everything = jax.jit(jax.value_and_grad(value, argnums=(0, 1), has_aux=True))
    return (
        forward,
        partial(by_weights, {name: net.parameters[name] for name in names}),
        by_everything,
    )


def succeeded(result) -> None:
    """Raises: Unavailable, where the run did not succeed."""
    if result != Result.SUCCESS:
        raise Unavailable(f"the run ended with {Result(int(result)).name}")


def build(work: Work | Convolution):
    return build_convolution(work) if isinstance(work, Convolution) else build_network(work)


def build_network(work: Work):
    net, times = network(work), jnp.asarray(work.input_times, jnp.float32)
    index = jnp.broadcast_to(jnp.arange(INPUTS, dtype=jnp.int32), times.shape)
    names = [name for name in net.parameters if name.endswith("weights")]

    def total(net, times, index):
        solution = jaxsnn.simulate(
            net, Events(time=times, index=index), work.t_end, engine=engine(work)
        )
        found = solution.first_spike("output")
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
                name: gradient["hidden"][name].sum() + gradient["output"][name].sum()
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
    net = convolution_network(work)
    events = Events(
        time=jnp.asarray(work.input_times, jnp.float32),
        index=jnp.asarray(work.input_channels, jnp.int32),
    )
    options = EventDriven(max_spikes=work.max_spikes, max_arrivals=work.max_arrivals)

    def total(net, events):
        solution = jaxsnn.simulate(net, events, work.t_end, engine=options)
        spikes = solution.spikes["hidden"]
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


if __name__ == "__main__":
    serve(lambda: f"jaxsnn-nir {jaxsnn.__version__}", build)
