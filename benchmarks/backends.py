"""The two backends of the event engine side by side, on work of the sizes that people train.

    python benchmarks/backends.py [--repeats 5] [--only NAME]

Each row is one network: milliseconds per batch for forward + backward by the weights, the smallest of
some interleaved runs of both backends in one process, by the clock and of all processors together
(which tells more where others use the machine), and how many spikes each hidden neuron fired.
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxsnn
from jaxsnn.event.event_driven import EventDriven
from jaxsnn.network.network import Network, with_tau_facts
from jaxsnn.network.spikes import Events
from jaxsnn.network.structure import Population, Wire
from jaxsnn.nir.passes import Window

TAU_SYN, T_END = 10e-3, 1.0
BACKENDS = ("xla", "native")
#: Events -> ((value, (counts, result)), gradient).
Step = Callable[[Events], Any]


@dataclass(frozen=True, kw_only=True)
class Row:
    """One piece of work.

    Attributes:
        sizes: inputs, hidden layers, outputs.
        events: of the inputs, in each sample.
        batch: samples.
        spikes: about so many of each hidden neuron: its mean weights are looked for.
        slots: `max_spikes` of hidden neurons.
        once: hidden neurons fire once.
        feedback: the fraction of feedback connections of the first hidden layer; 0: none.
        ratio: tau_mem / tau_syn.
    """

    sizes: tuple[int, ...]
    events: int
    batch: int
    spikes: float
    slots: int
    once: bool = False
    feedback: float = 0.0
    ratio: float = 2.0


@dataclass(frozen=True, kw_only=True)
class Convolutions:
    """Events of 2 x 34 x 34 pixels, 8 channels of 5 x 5, a pool, 16 channels of 3 x 3.

    Attributes:
        events, batch, spikes: as of `Row`.
        slots: of each neuron of the two populations.
    """

    events: int
    batch: int
    spikes: tuple[float, float] = (1.5, 1.5)
    slots: tuple[int, int] = (16, 24)


CONVOLUTIONS = {
    "conv 2x34x34, 4000 events, 8": Convolutions(events=4000, batch=8),
    "conv 2x34x34, 4000 events, 32": Convolutions(events=4000, batch=32),
}
ROWS = {
    "784-350-10, 150 events": Row(
        sizes=(784, 350, 10), events=150, batch=128, spikes=0.7, slots=1, once=True
    ),
    "784-350-10, 784 events": Row(
        sizes=(784, 350, 10), events=784, batch=128, spikes=2.0, slots=14
    ),
    "784-400-400-10, 150 events": Row(
        sizes=(784, 400, 400, 10), events=150, batch=128, spikes=0.7, slots=1, once=True
    ),
    "700-256-20, 8000 events": Row(
        sizes=(700, 256, 20), events=8000, batch=32, spikes=14.0, slots=62
    ),
    "700-256-20, 8000 events, ratio 4": Row(
        sizes=(700, 256, 20), events=8000, batch=32, spikes=14.0, slots=62, ratio=4.0
    ),
    "700-256-20, recurrent": Row(
        sizes=(700, 256, 20), events=1000, batch=32, spikes=4.0, slots=24, feedback=1.0
    ),
    "700-1024-20, recurrent": Row(
        sizes=(700, 1024, 20), events=1000, batch=32, spikes=4.0, slots=24, feedback=1.0
    ),
    "100-500-20, Poisson, recurrent at 10 %": Row(
        sizes=(100, 500, 20), events=5000, batch=32, spikes=10.0, slots=40, feedback=0.1
    ),
    "100-1000-20, Poisson, recurrent at 10 %": Row(
        sizes=(100, 1000, 20), events=5000, batch=32, spikes=10.0, slots=40, feedback=0.1
    ),
    "700-1024-20, 8000 events": Row(
        sizes=(700, 1024, 20), events=8000, batch=32, spikes=14.0, slots=62
    ),
}


def neurons(name: str, size: int, ratio: float) -> tuple[Population, dict[str, jax.Array]]:
    """A population of equal neurons, and its parameters."""
    values = {
        "tau_mem": ratio * TAU_SYN,
        "tau_syn": TAU_SYN,
        "r": 1.0,
        "v_leak": 0.0,
        "v_threshold": 1.0,
        "v_reset": 0.0,
        "w_in": 1.0,
    }
    parameters = {key: jnp.full(size, value, jnp.float32) for key, value in values.items()}
    population = Population(name=name, kind="CubaLIF", size=size, spike_area=TAU_SYN)
    return with_tau_facts(population, parameters), parameters


def network(row: Row, scales: tuple[float, ...]) -> Network:
    """The network with weights of a scale for each layer."""
    rng = np.random.default_rng(0)
    populations, parameters = {}, {}
    wires = [Wire(name="input", kind="input", sources=(), shape=(row.sizes[0],))]
    before = "input"
    for number, (size, scale) in enumerate(zip(row.sizes[1:], scales, strict=True), 1):
        name, linear = f"layer{number}", f"weights{number}"
        populations[name], parameters[name] = neurons(name, size, row.ratio)
        drawn = rng.normal(1.0, 0.7, (size, row.sizes[number - 1]))
        parameters[linear] = {"weight": jnp.asarray(scale * drawn, jnp.float32)}
        wires.append(Wire(name=linear, kind="Linear", sources=(before,), shape=(size,)))
        sources = [linear]
        if number == 1 and row.feedback:
            drawn = rng.normal(0.0, 1.0, (size, size)) * (rng.random((size, size)) < row.feedback)
            back = 2 * drawn / np.sqrt(size * row.feedback) / row.spikes
            parameters["feedback"] = {"weight": jnp.asarray(back, jnp.float32)}
            wires.append(Wire(name="feedback", kind="Linear", sources=(name,), shape=(size,)))
            sources.append("feedback")
        wires.append(Wire(name=name, kind="neuron", sources=tuple(sources), shape=(size,)))
        before = name
    return Network(parameters=parameters, wires=wires, populations=populations)


def inputs(row: Row) -> Events:
    """Random events in the order of time."""
    rng = np.random.default_rng(1)
    shape = (row.batch, row.events)
    times = np.sort(rng.uniform(0, 0.9 * T_END, shape), axis=1)
    index = rng.integers(0, row.sizes[0], shape)
    return Events(time=jnp.asarray(times, jnp.float32), index=jnp.asarray(index, jnp.int32))


def engine(row: Row, backend: str) -> EventDriven:
    last = f"layer{len(row.sizes) - 1}"
    hidden = [f"layer{number}" for number in range(1, len(row.sizes) - 1)]
    room = {"layer1": int(2 * row.spikes * row.sizes[1])} if row.feedback else None
    return EventDriven(
        max_spikes=dict.fromkeys(hidden, row.slots),
        max_events=room,
        first_spike_only=True if row.once else (last,),
        backend=backend,
    )


def tuned(row: Row) -> tuple[float, ...]:
    """Weight scales with which hidden neurons fire about as often as wanted, and outputs do."""
    few = Row(**{**vars(row), "batch": 4})
    events, options = inputs(few), engine(few, "auto")
    scales = [0.5] * (len(row.sizes) - 1)
    run = jax.jit(lambda net: jaxsnn.simulate(net, events, T_END, engine=options).spikes)
    for layer in range(len(scales)):
        wanted = row.spikes if layer < len(scales) - 1 else 0.8
        low, high = 1e-5, 1e2
        for _ in range(12):
            scales[layer] = float(np.sqrt(low * high))
            found = run(network(row, tuple(scales)))[f"layer{layer + 1}"].count
            mean = float(np.minimum(found, 1 if layer == len(scales) - 1 else found).mean())
            low, high = (scales[layer], high) if mean < wanted else (low, scales[layer])
    return tuple(scales)


def step(row: Row, net: Network, backend: str):
    """Compiled: the value, spikes, and the gradient by the weights."""
    options, last = engine(row, backend), f"layer{len(row.sizes) - 1}"
    names = [name for name in net.parameters if name.startswith(("weights", "feedback"))]

    def value(weights, events):
        changed = net.with_parameters({**net.parameters, **weights})
        solution = jaxsnn.simulate(changed, events, T_END, engine=options)
        first = solution.first_spike(last)
        counts = solution.spikes["layer1"].count
        return jnp.where(jnp.isfinite(first), first, T_END).sum(), (counts, solution.result)

    compiled = jax.jit(jax.value_and_grad(value, has_aux=True))
    return lambda events: compiled({name: net.parameters[name] for name in names}, events)


# ---- convolutions


def window(taps: int, stride: int = 1, padding: int = 0) -> Window:
    def both(value):
        return value, value

    return Window(
        kernel=both(taps),
        stride=both(stride),
        dilation=both(1),
        padding=both(both(padding)),
        groups=1,
    )


def convolution_network(row: Convolutions, scales: tuple[float, ...]) -> Network:
    """Convolution, neurons, sum pool, convolution, neurons; weights of a scale for each."""
    rng = np.random.default_rng(0)
    populations, parameters = {}, {}
    shapes = {"layer1": (8, 34, 34), "layer2": (16, 15, 15)}
    for name, shape in shapes.items():
        populations[name], parameters[name] = neurons(name, int(np.prod(shape)), 2.0)
    for name, scale, shape in (
        ("weights1", scales[0], (8, 2, 5, 5)),
        ("weights2", scales[1], (16, 8, 3, 3)),
    ):
        drawn = scale * rng.normal(1.0, 0.7, shape)
        parameters[name] = {
            "weight": jnp.asarray(drawn, jnp.float32),
            "bias": jnp.zeros(shape[0], jnp.float32),
        }
    wires = [
        Wire(name="input", kind="input", sources=(), shape=(2, 34, 34)),
        Wire(
            name="weights1",
            kind="Conv2d",
            sources=("input",),
            shape=(8, 34, 34),
            detail=window(5, padding=2),
        ),
        Wire(name="layer1", kind="neuron", sources=("weights1",), shape=(8, 34, 34)),
        Wire(
            name="pool",
            kind="SumPool2d",
            sources=("layer1",),
            shape=(8, 17, 17),
            detail=window(2, stride=2),
        ),
        Wire(
            name="weights2",
            kind="Conv2d",
            sources=("pool",),
            shape=(16, 15, 15),
            detail=window(3),
        ),
        Wire(name="layer2", kind="neuron", sources=("weights2",), shape=(16, 15, 15)),
    ]
    return Network(parameters=parameters, wires=wires, populations=populations)


def convolution_step(row: Convolutions, net: Network, backend: str):
    """As `step`; the loss weighs the times of the last population."""
    options = EventDriven(
        max_spikes=dict(zip(("layer1", "layer2"), row.slots, strict=True)),
        max_events={"layer1": 24000},
        max_arrivals={"layer1": 400, "layer2": 900},
        backend=backend,
    )

    def value(weights, events):
        changed = {
            name: {**own, "weight": weights[name]} if name in weights else own
            for name, own in net.parameters.items()
        }
        solution = jaxsnn.simulate(
            net.with_parameters(changed), events, T_END, engine=options, throw=False
        )
        spikes = solution.spikes["layer2"]
        times = jnp.where(jnp.isfinite(spikes.time), spikes.time, 0.0)
        weighed = jnp.sum(jax.lax.stop_gradient(jnp.clip(spikes.slope, 0, 100)) * times)
        counts = tuple(solution.spikes[name].count for name in ("layer1", "layer2"))
        return weighed, (counts, solution.result)

    weights = {name: net.parameters[name]["weight"] for name in ("weights1", "weights2")}
    compiled = jax.jit(jax.value_and_grad(value, has_aux=True))
    return lambda events: compiled(weights, events)


def convolution_inputs(row: Convolutions) -> Events:
    return inputs(Row(sizes=(2 * 34 * 34,), events=row.events, batch=row.batch, spikes=0, slots=0))


def convolution_tuned(row: Convolutions) -> tuple[float, ...]:
    few = Convolutions(events=row.events, batch=1)
    events, scales = convolution_inputs(few), [1.0, 1.0]
    for layer in range(2):
        low, high = 1e-4, 1e2
        for _ in range(10):
            scales[layer] = float(np.sqrt(low * high))
            net = convolution_network(few, tuple(scales))
            counts = convolution_counts(net, events)[layer]
            mean = float(counts.mean())
            low, high = (scales[layer], high) if mean < row.spikes[layer] else (low, scales[layer])
    return tuple(scales)


@jax.jit
def convolution_counts(net, events):
    options = EventDriven(
        max_spikes=24, max_events={"layer1": 40000}, max_arrivals={"layer1": 400, "layer2": 1500}
    )
    solution = jaxsnn.simulate(net, events, T_END, engine=options, throw=False)
    return tuple(solution.spikes[name].count for name in ("layer1", "layer2"))


def measure(steps: dict[str, Step], events: Events, repeats: int) -> dict[str, float]:
    """The smallest times, in milliseconds, first calls in seconds, and what was found."""
    found: dict[str, float] = {}
    outcome: dict[str, Any] = {}
    for backend, run in steps.items():
        start = time.perf_counter()
        outcome[backend] = jax.block_until_ready(run(events))
        found[f"{backend} first, s"] = time.perf_counter() - start
    wall: dict[str, float] = dict.fromkeys(steps, np.inf)
    processor: dict[str, float] = dict.fromkeys(steps, np.inf)
    for _ in range(repeats):
        for backend, run in steps.items():
            start, used = time.perf_counter(), time.process_time()
            jax.block_until_ready(run(events))
            wall[backend] = min(wall[backend], 1000 * (time.perf_counter() - start))
            processor[backend] = min(processor[backend], 1000 * (time.process_time() - used))
    ((_, (counts, result)), gradient) = outcome["native"]
    ((_, (other, _)), expected) = outcome["xla"]
    pairs = zip(jax.tree.leaves(gradient), jax.tree.leaves(expected), strict=True)
    errors = [float(jnp.linalg.norm(a - b) / jnp.linalg.norm(b)) for a, b in pairs]
    pairs = zip(jax.tree.leaves(counts), jax.tree.leaves(other), strict=True)
    return {
        **{f"{backend}, ms": value for backend, value in wall.items()},
        **{f"{backend}, ms of all processors": value for backend, value in processor.items()},
        **found,
        "spikes": float(jax.tree.leaves(counts)[0].mean()),
        "counts that differ": float(sum(int((a != b).sum()) for a, b in pairs)),
        "gradients differ by": max(errors),
        "result": float(result),
    }


def prepared(row: Row | Convolutions) -> tuple[dict[str, Step], Events]:
    """What is measured, for each backend, and its input."""
    if isinstance(row, Convolutions):
        net = convolution_network(row, convolution_tuned(row))
        steps = {backend: convolution_step(row, net, backend) for backend in BACKENDS}
        return steps, convolution_inputs(row)
    net = network(row, tuned(row))
    return {backend: step(row, net, backend) for backend in BACKENDS}, inputs(row)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--only", default="")
    chosen = parser.parse_args()
    for name, row in {**ROWS, **CONVOLUTIONS}.items():
        if chosen.only in name:
            numbers = measure(*prepared(row), chosen.repeats)
            listed = ", ".join(f"{k} {v:.3g}" for k, v in numbers.items())
            print(f"{name} (batch {row.batch}): {listed}", flush=True)


if __name__ == "__main__":
    main()
