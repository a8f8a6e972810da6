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
from jaxsnn.event.forward.group import GroupSpec
from jaxsnn.event.forward.layer import LayerSpec
from jaxsnn.network.structure import TauShape
from tests.event.cases import population
from tests.oracles import cubalif_series, recurrent_populations

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
    """A group: its populations, and (source, target, delay) of its edges; delay is "none", "one" or
    "each".
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


def other(kind, size, **options):
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
            other(LIFBox, 4),
        ),
        edges=((0, 1, "none"), (1, 2, "each"), (2, 0, "one"), (0, 0, "none")),
        feedback=0.5,
    ),
    "membranes": Case(
        parts=(other(LIFBox, 4, gain=1.5), other(IFBox, 4)),
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
            other(LIFDelta, 5, gain=1.6),
            other(IFDelta, 4, refractory=0.1),
            cuba(TauShape.ANY, 3),
        ),
        edges=((0, 1, "none"), (1, 0, "one"), (0, 0, "each"), (1, 2, "none"), (2, 0, "none")),
        feedback=0.4,
    ),
    "jumps refractory": Case(
        parts=(other(LIFDelta, 5, gain=1.8, refractory=0.17), other(LIFBox, 3, refractory=0.1)),
        edges=((0, 0, "none"), (0, 1, "one"), (1, 0, "each")),
    ),
}


#: Seeds under which neurons fire, but not without end.
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
                3  # above the threshold: the neuron fires at time 0, whatever its numbers are exactly
            )
        parameters.append(p | {"current": rng.normal(0.1, 0.2, part.size), "start": start})
        outside.append((weight, times))
    between = []
    for source, target, delay in case.edges:
        sizes = case.parts[source].size, case.parts[target].size
        weight = case.feedback * rng.normal(0.2, 1.0, sizes) / AREA
        shape = {"none": None, "one": (), "each": (sizes[0],)}[delay]
        between.append(
            (weight, None if shape is None else np.asarray(rng.uniform(0.1, 0.9, shape)))
        )
    return jax.tree.map(
        jnp.asarray, {"parameters": parameters, "outside": outside, "between": between}
    ), rows


def spec_of(name, *, free=False, max_spikes=60, **changes):
    """The static description; `free` assumes nothing of time constants."""
    case = CASES[name]
    layers, edges = [], []
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
    for source, target, _ in case.edges:
        edges += [(source, target)] * (2 if case.parts[target].neuron.width else 1)
    return GroupSpec(layers=tuple(layers), edges=tuple(edges), max_events=case.max_events)


def run(spec, case, numbers, rows, t_end=T_END, group: Any = group_spikes):
    """The engine's spikes, differentiable in the numbers; `group`: the way that is differentiable
    as it should be.
    """
    arrivals, feedback, lanes, factors = [], [], [], []
    for layer, p, (weight, times), row in zip(
        spec.layers, numbers["parameters"], numbers["outside"], rows, strict=True
    ):
        neuron = layer.neuron
        own = neuron.lanes(p, p["current"])
        lanes.append(replace(own, v_start=own.v_start + p["start"]))
        factors.append(neuron.arrival_factor(p))
        weight = weight * factors[-1]
        if neuron.width:
            row = jnp.concatenate([row, row + len(weight)], axis=1)
            times = jnp.concatenate([times, times + neuron.width], axis=1)
            weight = jnp.concatenate([weight, -weight])
        arrivals.append((weight, times, row))
    for (_, target, _), (weight, delay) in zip(case.edges, numbers["between"], strict=True):
        weight, width = weight * factors[target], spec.layers[target].neuron.width
        feedback.append((weight, delay))
        if width:
            feedback.append((-weight, jnp.asarray(width) if delay is None else delay + width))
    return group(spec, tuple(arrivals), tuple(feedback), tuple(lanes), t_end)


def _jump(neuron, p):
    """What a spike of weight 1 adds, and to what: of NIR's equations."""
    if isinstance(neuron, CubaLIFBox):
        return p["w_in"] * AREA / WIDTH / p["tau_syn"], "e"
    if isinstance(neuron, CubaLIFDelta):
        return p["w_in"] * AREA / p["tau_syn"], "i"
    if isinstance(neuron, LIFDelta):
        return p["r"] * AREA / p["tau"], "v"
    if isinstance(neuron, IFDelta):
        return p["r"] * AREA, "v"
    return np.full_like(p["r"], AREA / WIDTH), "i"


def _ode(neuron, p):
    """NIR's equations as `cubalif_series.Lanes`."""
    if isinstance(neuron, CubaLIFDelta):
        return cubalif_series.cuba(p, p["current"], p["v_reset"] + p["start"])
    zero = np.zeros_like(p["r"])
    tau = p.get("tau", 1.0)
    return cubalif_series.Lanes(
        a=zero - 1 / tau if "tau" in p else zero,
        b=p["r"] / tau,
        c=(p.get("v_leak", 0.0) + p["r"] * p["current"]) / tau,
        d=zero,
        e=zero,
        threshold=p["v_threshold"],
        reset=p["v_reset"],
        v=p["start"],
        i=zero,
    )


def expected(name, numbers, rows, t_end=T_END):
    """The reference's spikes: of each population (samples, neurons, slots), padded with inf."""
    case = CASES[name]
    numbers = jax.tree.map(np.asarray, numbers)
    populations, jumps = [], []
    for part, p in zip(case.parts, numbers["parameters"], strict=True):
        jump, moved = _jump(part.neuron, p)
        jumps.append(jump)
        populations.append(
            recurrent_populations.Population(
                lanes=_ode(part.neuron, p), moved=moved, refractory=part.refractory, once=part.once
            )
        )
    edges = []
    for (source, target, _), (weight, delay) in zip(case.edges, numbers["between"], strict=True):
        for sign, width in _edges_of_a_spike(case.parts[target].neuron):
            delays = (
                None
                if delay is None and not width
                else np.asarray(width if delay is None else delay + width)
            )
            edges.append(
                recurrent_populations.Edge(
                    source=source, target=target, jumps=sign * weight * jumps[target], delays=delays
                )
            )
    found = []
    for sample in range(SAMPLES):
        arrivals = []
        for number, (part, (weight, times), row) in enumerate(
            zip(case.parts, numbers["outside"], rows, strict=True)
        ):
            for sign, width in _edges_of_a_spike(part.neuron):
                for time, r in zip(times[sample], row[sample], strict=True):
                    if np.isfinite(time):
                        arrivals.append((time + width, number, sign * weight[r] * jumps[number]))
        found.append(recurrent_populations.spikes(populations, edges, arrivals, t_end))
    return [_padded([sample[number] for sample in found]) for number in range(len(case.parts))]


def _edges_of_a_spike(neuron):
    return ((1, 0.0), (-1, neuron.width)) if neuron.width else ((1, 0.0),)


def _padded(samples):
    slots = max(len(times) for neurons in samples for times in neurons)
    out = np.full((len(samples), len(samples[0]), slots + 1), np.inf)
    for sample, neurons in enumerate(samples):
        for neuron, times in enumerate(neurons):
            out[sample, neuron, : len(times)] = times
    return out
