"""Evidence in the numbers of a file for the framework that wrote it.

A framework that can be recognised computes r from the time constant by a formula of its own, with
the same dt for all neurons. A single pair (time constant, r) always yields some dt, so it proves
nothing by itself: the evidence counts only if distinct pairs agree on dt, or if dt is a round number
although time constant and r are not.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping

import numpy as np

from jaxsnn.nir.model.dialect import Estimate, Evidence
from jaxsnn.nir.model.node import Node

#: Relative error that float32 arithmetic of an exporter may leave in dt.
TOLERANCE = 1e-5
#: Ratio dt/tau up to which the decay may be 1 in float32.
_ROUNDS_TO_ONE = 2.0**-24


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Tie:
    """One pair (time constant, gain) of one node: (tau_mem, r), (tau, r) or (tau_syn, w_in),
    flattened.
    """

    node: str
    names: tuple[str, str]
    tau: np.ndarray
    gain: np.ndarray


def ties(nodes: Mapping[str, Node], evidence: Evidence | None = None) -> Iterator[Tie]:
    """Yield the pairs of a time constant and a gain that may determine the dt of a framework;
    without evidence, those of all neurons with a time constant.
    """
    for name, node in nodes.items():
        if not node.traits.state or (evidence is not None and node.type in evidence.silent):
            continue
        current_based = node.traits.current_based
        if not current_based and "tau" not in node.names:
            if evidence is not None and evidence.r_is_rate and "r" in node.names:
                rate = np.asarray(node.value("r"), float).ravel()
                yield Tie(node=name, names=("1", "r"), tau=np.ones_like(rate), gain=rate)
            continue
        pairs = [("tau_mem", "r"), ("tau_syn", "w_in")] if current_based else [("tau", "r")]
        if evidence is not None and not (evidence.dt_from and evidence.dt_from.synapses):
            pairs = pairs[:1]
        pairs = [pair for pair in pairs if set(pair) <= set(node.names)]
        for parameter_names in pairs:
            tau, gain = np.broadcast_arrays(
                *(np.asarray(node.value(key), float).ravel() for key in parameter_names)
            )
            if evidence is not None and evidence.r_of_one_is_silent and not current_based:
                tau, gain = tau[gain != 1], gain[gain != 1]
            yield Tie(node=name, names=parameter_names, tau=tau, gain=gain)


def estimate(nodes: Mapping[str, Node], evidence: Evidence) -> Estimate:
    """Estimate dt by the relation of a framework between dt and the parameters.

    Neurons without a leak contain no information: those with infinite tau or r, and those whose
    decay 1 - dt/tau rounds to 1 in float32, for which `dt_from` may be 0.
    """
    rule = evidence.dt_from
    dt_ties = [] if rule is None else list(ties(nodes, evidence))
    taus = np.concatenate([tie.tau for tie in dt_ties] or [np.zeros(0)])
    gains = np.concatenate([tie.gain for tie in dt_ties] or [np.zeros(0)])
    owners = [tie for tie in dt_ties for _ in range(tie.tau.size)]
    finite = np.flatnonzero(np.isfinite(taus) & np.isfinite(gains))
    if finite.size == 0 or rule is None:
        return Estimate()
    taus, gains = taus[finite], gains[finite]
    with np.errstate(all="ignore"):
        values = rule.of(taus, gains)
    positive = values[np.isfinite(values) & (values > 0)]
    # If dt follows from no neuron, assume that it is at most 1, a step or a second.
    longest = float(np.median(positive)) if positive.size else 1.0
    silent = (values == 0) & (longest <= _ROUNDS_TO_ONE * taus)
    if silent.all():
        return Estimate()
    finite, taus, gains, values = (array[~silent] for array in (finite, taus, gains, values))
    if not np.all(np.isfinite(values) & (values > 0)):
        bad = int(np.flatnonzero(~(np.isfinite(values) & (values > 0)))[0])
        owner = owners[finite[bad]]
        return Estimate(
            node=owner.node, pair=_pair(owner, taus[bad], gains[bad]), farthest=float(values[bad])
        )
    dt = float(np.median(values))
    far = int(np.argmax(np.abs(values - dt)))
    agrees = bool(abs(values[far] - dt) <= TOLERANCE * dt)
    # Pairs that differ only by rounding are not distinct.
    distinct = len({(f"{tau:.3e}", f"{gain:.3e}") for tau, gain in zip(taus, gains, strict=True)})
    computed = not all(_is_short(value, 3, 0) for value in np.concatenate([taus, gains]))
    proven = agrees and (distinct > 1 or (computed and _is_short(dt, 2, TOLERANCE)))
    owner = owners[finite[far]]
    return Estimate(
        dt=dt,
        agrees=agrees,
        proven=proven and bool(np.any(gains != 1)),
        node=owner.node,
        pair=_pair(owner, taus[far], gains[far]),
        farthest=float(values[far]),
    )


def _pair(tie: Tie, tau: float, gain: float) -> str:
    return " and ".join(
        f"{name} = {value:g}"
        for name, value in zip(tie.names, (tau, gain), strict=True)
        if name != "1"
    )


def _is_short(value: float, digits: int, tolerance: float) -> bool:
    """Return whether a number has few digits, in float64 or float32, as if a person had written
    it.
    """
    if not np.isfinite(value):
        return True
    short = float(f"{value:.{digits - 1}e}")
    return bool(abs(short - value) <= tolerance * abs(value) or float(np.float32(short)) == value)
