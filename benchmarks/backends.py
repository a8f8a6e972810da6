"""The two backends of the event engine side by side, on work of the sizes that people train.

    python benchmarks/backends.py [--repeats 5] [--only NAME]

Each row is one network: milliseconds per batch for forward + backward by the weights, the smallest of
some interleaved runs of both backends in one process, and how many spikes each hidden neuron fired.
"""

import argparse
import time
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

import jaxsnn
from jaxsnn.event.event_driven import EventDriven
from jaxsnn.network.network import Network, with_tau_facts
from jaxsnn.network.results import Result
from jaxsnn.network.spikes import Events
from jaxsnn.network.structure import Population, Wire

TAU_SYN, T_END = 10e-3, 1.0
BACKENDS = ("xla", "native")


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


def measure(row: Row, repeats: int) -> dict[str, float]:
    """The smallest times, in milliseconds, first calls in seconds, and what was found."""
    net, events = network(row, tuned(row)), inputs(row)
    found, outcome = {}, {}
    steps = {backend: step(row, net, backend) for backend in BACKENDS}
    for backend, run in steps.items():
        start = time.perf_counter()
        outcome[backend] = jax.block_until_ready(run(events))
        found[f"{backend} first"] = time.perf_counter() - start
    best = dict.fromkeys(BACKENDS, np.inf)
    for _ in range(repeats):
        for backend, run in steps.items():
            start = time.perf_counter()
            jax.block_until_ready(run(events))
            best[backend] = min(best[backend], 1000 * (time.perf_counter() - start))
    ((_, (counts, result)), gradient) = outcome["native"]
    ((_, (other, _)), expected) = outcome["xla"]
    assert result == Result.SUCCESS, Result(int(result)).name
    pairs = zip(jax.tree.leaves(gradient), jax.tree.leaves(expected), strict=True)
    errors = [float(jnp.linalg.norm(a - b) / jnp.linalg.norm(b)) for a, b in pairs]
    return {
        **best,
        **found,
        "spikes": float(counts.mean()),
        "counts that differ": int((counts != other).sum()),
        "gradient": max(errors),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--only", default="")
    chosen = parser.parse_args()
    for name, row in ROWS.items():
        if chosen.only in name:
            numbers = measure(row, chosen.repeats)
            print(f"{name} ({row.batch}): " + ", ".join(f"{k} {v:.3g}" for k, v in numbers.items()))


if __name__ == "__main__":
    main()
