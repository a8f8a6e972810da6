"""Recurrent groups for tests: drawn at random, run by the engine and by the reference."""

from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxsnn.event.adjoint.recurrent_adjoint import group_spikes
from jaxsnn.event.dynamics.cubalif import CubaLIFBox, CubaLIFDelta
from jaxsnn.event.dynamics.integrate_and_fire import IFBox, IFDelta
from jaxsnn.event.dynamics.lif import LIFBox, LIFDelta
from jaxsnn.event.forward.group import FanOut, GroupSpec
from jaxsnn.event.forward.layer import LayerSpec
from jaxsnn.network.structure import TauShape
from tests.event.agreement import padded
from tests.event.cases import population
from tests.oracles import continuous_time
from tests.oracles.continuous_time import Neurons, Synapses

AREA, WIDTH, T_END = 0.7, 0.37, 4.0
SAMPLES, ARRIVALS = 2, 5


@dataclass(frozen=True, kw_only=True)
class Part:
    """One population of a group; gain: scale of the weights from outside."""

    neuron: Any
    size: int
    gain: float = 1.0
    refractory: float = 0.0
    once: bool = False


@dataclass(frozen=True, kw_only=True)
class Case:
    """A group: its populations, and (source, target, delay) of its edges; delay is "none", "one",
    "each" (of each neuron of the source) or "synapses" (of each synapse).
    """

    parts: tuple[Part, ...]
    edges: tuple[tuple[int, int, str], ...]
    feedback: float = 0.7
    max_events: int = 300


def cuba(shape, size, box=False, **options):
    """A current-based population."""
    kind = CubaLIFBox if box else CubaLIFDelta
    uniform = options.pop("uniform", False)
    neuron = kind(
        tau_shape=shape,
        uniform=uniform,
        spike_area=AREA,
        width=WIDTH if box else 0.0,
        initial="v_reset",
    )
    return Part(neuron=neuron, size=size, **options)


def without_current(kind, size, **options):
    """A population of neurons without a synaptic current."""
    return Part(
        neuron=kind(spike_area=AREA, width=WIDTH if kind in (LIFBox, IFBox) else 0.0),
        size=size,
        **options,
    )


CASES = {
    "double uniform": Case(
        parts=(cuba(TauShape.DOUBLE, 9, uniform=True),), edges=((0, 0, "none"),)
    ),
    "double": Case(parts=(cuba(TauShape.DOUBLE, 7),), edges=((0, 0, "one"), (0, 0, "none"))),
    "half": Case(parts=(cuba(TauShape.HALF, 6),), edges=((0, 0, "each"),), feedback=0.3),
    "equal": Case(
        parts=(cuba(TauShape.EQUAL, 6, once=True),), edges=((0, 0, "none"), (0, 0, "each"))
    ),
    "apart": Case(
        parts=(cuba(TauShape.APART, 6, uniform=True, gain=2.0),),
        edges=((0, 0, "none"),),
        feedback=0.1,
    ),
    "loop": Case(
        parts=(cuba(TauShape.ANY, 5), cuba(TauShape.DOUBLE, 8, uniform=True)),
        edges=((0, 1, "none"), (1, 0, "each"), (1, 1, "none"), (0, 1, "one")),
    ),
    "boxes": Case(
        parts=(
            cuba(TauShape.DOUBLE, 5, box=True, uniform=True),
            cuba(TauShape.ANY, 4, box=True),
            without_current(LIFBox, 4),
        ),
        edges=((0, 1, "none"), (1, 2, "each"), (2, 0, "one"), (0, 0, "none")),
        feedback=0.5,
    ),
    "membranes": Case(
        parts=(without_current(LIFBox, 4, gain=1.5), without_current(IFBox, 4)),
        edges=((0, 1, "none"), (1, 0, "none"), (0, 0, "one"), (1, 1, "each")),
        feedback=0.2,
    ),
    "refractory": Case(
        parts=(
            cuba(TauShape.ANY, 5, refractory=0.23, gain=1.3),
            cuba(TauShape.DOUBLE, 4, uniform=True, refractory=0.1),
        ),
        edges=((0, 1, "none"), (1, 0, "one"), (0, 0, "none")),
    ),
    "jumps": Case(
        parts=(
            without_current(LIFDelta, 5, gain=1.6),
            without_current(IFDelta, 4, refractory=0.1),
            cuba(TauShape.ANY, 3),
        ),
        edges=((0, 1, "none"), (1, 0, "one"), (0, 0, "each"), (1, 2, "none"), (2, 0, "none")),
        feedback=0.4,
    ),
    "jumps refractory": Case(
        parts=(
            without_current(LIFDelta, 5, gain=1.8, refractory=0.17),
            without_current(LIFBox, 3, refractory=0.1),
        ),
        edges=((0, 0, "none"), (0, 1, "one"), (1, 0, "each")),
    ),
    "synapses": Case(
        parts=(cuba(TauShape.ANY, 5, refractory=0.1), cuba(TauShape.DOUBLE, 3, uniform=True)),
        edges=((0, 0, "synapses"), (0, 1, "each"), (1, 0, "synapses"), (1, 1, "none")),
    ),
    "synapses of boxes": Case(
        parts=(without_current(LIFBox, 4, gain=1.5), without_current(IFBox, 1)),
        edges=((0, 0, "synapses"), (0, 1, "synapses"), (1, 0, "synapses")),
        feedback=0.2,
    ),
    "synapses of jumps": Case(
        parts=(without_current(LIFDelta, 5, gain=1.6), cuba(TauShape.ANY, 3)),
        edges=((0, 0, "synapses"), (0, 1, "none"), (1, 0, "synapses")),
        feedback=0.4,
    ),
}


#: Seeds with which neurons fire, but not endlessly.
SEEDS = {
    "double uniform": (4, 5),
    "double": (3, 4),
    "half": (2, 6),
    "equal": (0, 7),
    "apart": (2, 0),
    "loop": (6, 3),
    "boxes": (3,),
    "membranes": (7, 3),
    "refractory": (3, 4),
    "jumps": (2, 6),
    "jumps refractory": (5, 7),
    "synapses": (0, 1),
    # With seed 0 the order of events changes within the smallest step of the differences.
    "synapses of boxes": (1, 2),
    "synapses of jumps": (0, 1),
}


def drawn(name, seed=0):
    """The numbers of a case: a pytree of float64 arrays, and the rows of the arrivals from outside."""
    case = CASES[name]
    rng = np.random.default_rng([list(CASES).index(name), seed])
    parameters, outside, rows = [], [], []
    for part in case.parts:
        cuba_like = isinstance(part.neuron, CubaLIFDelta)
        p = population(part.neuron.tau_shape, rng, part.size, uniform=part.neuron.uniform)
        if not cuba_like:
            tau = p.pop("tau_mem")
            p = {key: value for key, value in p.items() if key not in ("tau_syn", "w_in")}
            if isinstance(part.neuron, IFBox):
                p.pop("v_leak")
            else:
                p["tau"] = tau
        times = rng.uniform(0, 0.8 * T_END, (SAMPLES, ARRIVALS))
        times[0, 2] = np.inf
        rows.append(rng.integers(0, 3, (SAMPLES, ARRIVALS)).astype("int32"))
        weight = part.gain * rng.normal(1.3, 1.0, (3, part.size)) / AREA
        start = rng.normal(0, 0.1, part.size)
        if name == "apart":
            start[0] += (
                3  # above the threshold: it fires at time 0, even if its numbers vary slightly
            )
        parameters.append(p | {"current": rng.normal(0.1, 0.2, part.size), "start": start})
        outside.append((weight, times))
    between = []
    for source, target, delay in case.edges:
        sizes = case.parts[source].size, case.parts[target].size
        weight = case.feedback * rng.normal(0.2, 1.0, sizes) / AREA
        shape = {"none": None, "one": (), "each": (sizes[0],), "synapses": sizes}[delay]
        between.append(
            (weight, None if shape is None else np.asarray(rng.uniform(0.1, 0.9, shape)))
        )
    return jax.tree.map(
        jnp.asarray, {"parameters": parameters, "outside": outside, "between": between}
    ), rows


def spec_of(name, *, free=False, max_spikes=60, **changes):
    """The static description; `free` assumes nothing of time constants."""
    case = CASES[name]
    layers, edges, fan_outs = [], [], []
    for part in case.parts:
        neuron = (
            replace(part.neuron, tau_shape=TauShape.ANY, uniform=False) if free else part.neuron
        )
        layers.append(
            LayerSpec(
                neuron=neuron,
                max_spikes=1 if part.once else max_spikes,
                once=part.once,
                refractory=part.refractory,
                **changes,
            )
        )
    for source, target, delay in case.edges:
        for _ in range(2 if case.parts[target].neuron.width else 1):
            if delay == "synapses":
                sizes = case.parts[source].size, case.parts[target].size
                targets = np.broadcast_to(np.arange(sizes[1])[:, None], (*sizes, 1))
                fan_outs.append((len(edges), FanOut(targets=targets)))
            edges.append((source, target))
    return GroupSpec(
        layers=tuple(layers),
        edges=tuple(edges),
        max_events=case.max_events,
        fan_outs=tuple(fan_outs),
    )


def run(spec, case, numbers, rows, t_end=T_END, group: Any = group_spikes):
    """The engine's spikes, differentiable in the numbers; `group`: the way that is differentiable
    as it should be.
    """
    arrivals, feedback, lanes, factors = [], [], [], []
    for layer, p, (weight, times), row in zip(
        spec.layers, numbers["parameters"], numbers["outside"], rows, strict=True
    ):
        neuron = layer.neuron
        lanes.append(neuron.constants(p, p["current"]))
        lanes[-1] = replace(lanes[-1], v_start=lanes[-1].v_start + p["start"])
        factors.append(neuron.arrival_factor(p))
        weight = weight * factors[-1]
        if neuron.width:
            row = jnp.concatenate([row, row + len(weight)], axis=1)
            times = jnp.concatenate([times, times + neuron.width], axis=1)
            weight = jnp.concatenate([weight, -weight])
        arrivals.append((weight, times, row))
    for (_, target, _), (weight, delay) in zip(case.edges, numbers["between"], strict=True):
        weight, width = weight * factors[target], spec.layers[target].neuron.width
        if delay is not None and delay.ndim == 2:
            weight = weight[:, :, None]  # a line to each target
        feedback.append((weight, delay))
        if width:
            feedback.append((-weight, jnp.asarray(width) if delay is None else delay + width))
    return group(spec, tuple(arrivals), tuple(feedback), tuple(lanes), t_end)


def reference(name, numbers, rows):
    """The reference's spikes: of each population (samples, neurons, slots), padded with inf."""
    case, numbers = CASES[name], jax.tree.map(np.asarray, numbers)
    populations, synapses = {}, []
    for number, (part, values) in enumerate(zip(case.parts, numbers["parameters"], strict=True)):
        p, has_current = dict(values), isinstance(part.neuron, CubaLIFDelta)
        bias, start = p.pop("current"), p.pop("start")
        populations[str(number)] = Neurons(
            kind="CubaLIF" if has_current else "LIF" if "tau" in p else "IF",
            parameters=p,
            area=AREA,
            width=part.neuron.width,
            bias=bias,
            refractory=part.refractory,
            once=part.once,
            v_start=start + p["v_reset"] if has_current else start,
        )
        weight, _ = numbers["outside"][number]
        synapses.append(Synapses(source=f"in {number}", target=str(number), weight=weight.T))
    for (source, target, _), (weight, delay) in zip(case.edges, numbers["between"], strict=True):
        ends, delay = (
            {"source": str(source), "target": str(target)},
            0.0 if delay is None else delay.T,
        )
        synapses.append(Synapses(**ends, weight=weight.T, delay=delay))
    samples = []
    for sample in range(SAMPLES):
        inputs = {
            f"in {number}": list(zip(times[sample].tolist(), row[sample].tolist(), strict=True))
            for number, ((_, times), row) in enumerate(zip(numbers["outside"], rows, strict=True))
        }
        samples.append(continuous_time.simulate(populations, synapses, inputs, T_END).spikes)
    return [padded([spikes[name] for spikes in samples]) for name in populations]
