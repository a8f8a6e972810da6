"""Populations that voltages drive: LI, linear nodes, LIF. Nothing here loads JAX.

Under delta spikes the voltage of a LI obeys the equation of a synaptic current, tau V' = V_inf - V
with a jump at each spike, so that the LIF or LI behind it is a CubaLIF or CubaLI with tau_syn = tau
of the LI; behind a I, whose voltage keeps what spikes leave, tau_syn is infinite. The event engine
simulates such a pair as one population.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxsnn.errors import Problem, listing
from jaxsnn.network.structure import (
    Chain,
    Population,
    TauShape,
    Wire,
    carried,
    find_tau_shape,
)
from jaxsnn.options import ENGINE, SPIKE_KERNEL, THRESHOLD
from jaxsnn.units import format_time
from jaxsnn.wording import Text

if TYPE_CHECKING:
    from jaxsnn.network.array_types import Array, Float

    #: NIR's names of time constants, or nodes -> time constants of neurons, seconds.
    Taus = Mapping[str, Float[Array | np.ndarray, "*neurons"]]

_CODE = "analog-signal"
_STEPPED = Text("simulate with {engine}", engine=ENGINE.set_to("grid"))


def voltages_into(
    wires: Sequence[Wire], populations: Mapping[str, Population]
) -> dict[str, tuple[str, ...]]:
    """For each node the populations that never fire whose voltages enter it, directly or through
    linear nodes.
    """
    silent = [
        wire.name for wire in wires if wire.name in populations and not populations[wire.name].fires
    ]
    return carried(wires, silent)


def with_chains(
    wires: Sequence[Wire], populations: Mapping[str, Population]
) -> dict[str, Population]:
    """The populations, those with a `Chain` that the event engine can drive by voltages, their time
    constants aside.
    """
    entering = voltages_into(wires, populations)
    found = {}
    for name, population in populations.items():
        chain = None
        if entering[name] and next(_limits_at(name, wires, populations, entering), None) is None:
            chain = Chain(sources=entering[name], kind=_type(populations[entering[name][0]]))
        found[name] = replace(population, chain=chain)
    return found


def with_known_taus(population: Population, own: Taus, driving: Taus) -> Population:
    """The population with `tau_shape`, `uniform` and `chain.taus` as its numbers have them.

    Args:
        own: its time constants by NIR name.
        driving: tau of each LI whose voltage drives it.
    """
    taus = {key: np.asarray(value).reshape(-1) for key, value in own.items()}
    if population.chain is not None and driving:
        shared = np.concatenate([np.asarray(tau).reshape(-1) for tau in driving.values()])
        differ = bool((shared != shared[0]).any())
        extremes = (float(shared.min()), float(shared.max())) if differ else None
        population = replace(population, chain=replace(population.chain, taus=extremes))
        # tau of the LI is the tau_syn of what they drive.
        taus = {"tau_mem": taus["tau"], "tau_syn": shared}
    uniform = all(bool((tau == tau[0]).all()) for tau in taus.values())
    if not {"tau_mem", "tau_syn"} <= taus.keys():
        return replace(population, uniform=uniform)
    tau_mem, tau_syn = taus["tau_mem"], taus["tau_syn"]
    if population.chain is not None:  # one for all neurons
        tau_syn = tau_syn[:1]
    return replace(population, tau_shape=find_tau_shape(tau_mem, tau_syn), uniform=uniform)


def still_holds(assumed: Population, found: Population) -> bool:
    """Whether what is assumed of the time constants of a population is true of what was found."""
    if assumed.uniform and not found.uniform:
        return False
    chains = assumed.chain, found.chain
    if chains[0] is not None and chains[1] is not None and chains[0].taus != chains[1].taus:
        return False
    return assumed.tau_shape in (TauShape.ANY, found.tau_shape)


def with_unknown_taus(population: Population) -> Population:
    """The population, nothing assumed of its time constants but that those of a chain are one."""
    chain = None if population.chain is None else replace(population.chain, taus=None)
    return replace(population, tau_shape=TauShape.ANY, uniform=False, taus_last=False, chain=chain)


def driving_taus(
    population: Population, parameters: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """tau of each LI whose voltage drives a population, by node."""
    if population.chain is None or population.chain.kind != "LI":
        return {}
    return {name: parameters[name]["tau"] for name in population.chain.sources}


def chain_limits(
    wires: Sequence[Wire], populations: Mapping[str, Population], leveled: Collection[str] = ()
) -> Iterator[Problem]:
    """Why the event engine cannot simulate voltages that are sent on, in the order of the nodes;
    Thresholds aside.

    Args:
        leveled: populations at which levels arrive.
    """
    entering = voltages_into(wires, populations)
    for wire in wires:
        sources = entering[wire.name]
        recorded = wire.kind == "output" and set(sources) <= set(wire.sources)
        if not sources or recorded or wire.kind == "Threshold":
            continue
        if wire.name in populations:
            yield from _limits_at(wire.name, wires, populations, entering)
            yield from _level_limits(populations[wire.name], sources, populations, leveled)
            yield from _tau_limits(populations[wire.name])
        elif wire.kind == "Delay":
            yield _limit(
                wire.name,
                f"node '{wire.name}' (Delay) delays the voltage of"
                f" {_described(sources, populations)}",
                "put the Delay before that, or " + _STEPPED,
            )
        elif wire.kind == "output":
            sources = tuple(name for name in sources if name not in wire.sources)
            yield _limit(
                sources[0],
                f"node {_described(sources[:1], populations)} sends its voltage through other nodes"
                f" to Output '{wire.name}'",
                _STEPPED + ", the event engine records voltages of neurons only",
            )
        elif not wire.linear:
            yield _limit(
                sources[0],
                f"node {_described(sources[:1], populations)} sends its voltage on to"
                f" '{wire.name}' ({wire.kind})",
                _STEPPED + ", the event engine sends voltages on to LIF and LI only",
            )


def _limits_at(
    name: str,
    wires: Sequence[Wire],
    populations: Mapping[str, Population],
    entering: Mapping[str, tuple[str, ...]],
) -> Iterator[Problem]:
    """Why the event engine cannot drive a population by the voltages that enter it, whatever the
    numbers.
    """
    target, sources = populations[name], entering[name]
    for source in sources:
        yield from _source_limits(populations[source], target, wires, populations, entering)
    if _type(target) != "LI":
        why = "does not leak" if _type(target) == "I" else "has a synaptic current of its own"
        yield _limit(
            sources[0],
            f"node {_described(sources[:1], populations)} sends its voltage on to '{name}'"
            f" ({target.kind}), which {why}",
            _STEPPED + ", the event engine sends voltages on to LIF and LI only",
        )
    spikes = carried(wires, _spiking(wires, populations))[name]
    if spikes:
        yield _limit(
            name,
            f"node '{name}' ({target.kind}) takes what {listing(spikes)} sends and the voltage of "
            f"{_described(sources, populations)}",
            "drive it by one of the two, or " + _STEPPED,
        )
    kinds = [_type(populations[source]) for source in sources]
    if "LI" in kinds and "I" in kinds:
        leaky, steady = sources[kinds.index("LI")], sources[kinds.index("I")]
        yield _limit(
            name,
            f"node '{name}' ({target.kind}) takes the voltages of '{leaky}', which leaks, and of"
            f" '{steady}', which does not",
            _STEPPED + ", the event engine takes one time constant for all of them",
        )


def _source_limits(
    source: Population,
    target: Population,
    wires: Sequence[Wire],
    populations: Mapping[str, Population],
    entering: Mapping[str, tuple[str, ...]],
) -> Iterator[Problem]:
    """Why the voltage of one population cannot drive another."""
    name = source.name
    where = f"node '{name}' ({source.kind})"
    if _type(source) not in ("LI", "I"):
        known = _type(source) == "CubaLI"
        why = "which makes three time constants of two" if known else "and how it runs is not known"
        yield _limit(
            name,
            f"{where} sends its voltage on to '{target.name}' ({target.kind}), {why}",
            _STEPPED + ", the event engine sends on voltages of LI and I only",
        )
    if entering[name]:
        yield _limit(
            name,
            f"{where} takes the voltage of {_described(entering[name], populations)} and sends its"
            f" own on to '{target.name}' ({target.kind})",
            "put spiking neurons in between, or " + _STEPPED,
        )
    if source.spike_kernel != "delta" and _type(source) in ("LI", "I"):
        yield _limit(
            name,
            f"{where} takes spikes as boxes and sends its voltage on to '{target.name}'"
            f" ({target.kind})",
            Text(
                "pass {spike_kernel}, or {stepped}",
                spike_kernel=SPIKE_KERNEL.set_to("delta"),
                stepped=_STEPPED,
            ),
        )
    if _feeds(target.name, name, wires):
        yield _limit(
            name,
            f"{where} sends its voltage round a cycle through '{target.name}' ({target.kind})",
            "break the cycle, or " + _STEPPED,
        )
    biases = carried(wires, (wire.name for wire in wires if wire.biased))[name]
    if _type(source) == "I" and biases:
        yield _limit(
            name,
            f"{where} integrates the bias of {listing(biases)} without end and sends its voltage on"
            f" to '{target.name}' ({target.kind})",
            "take the bias away (a Linear has none), or " + _STEPPED,
        )


def _level_limits(
    target: Population,
    sources: Sequence[str],
    populations: Mapping[str, Population],
    leveled: Collection[str],
) -> Iterator[Problem]:
    for name in sources:
        if name in leveled:
            yield _limit(
                name,
                f"node '{name}' ({populations[name].kind}) takes the level of a Threshold and sends"
                f" its voltage on to '{target.name}' ({target.kind})",
                Text(
                    "pass {threshold}, or {stepped}",
                    threshold=THRESHOLD.set_to("event"),
                    stepped=_STEPPED,
                ),
            )


def _tau_limits(target: Population) -> Iterator[Problem]:
    chain = target.chain
    if chain is not None and chain.taus is not None:
        yield _limit(
            target.name,
            f"node '{target.name}' ({target.kind}) takes the voltage of {listing(chain.sources)},"
            f" whose tau runs from {format_time(chain.taus[0])} to {format_time(chain.taus[1])}",
            "make these equal, or " + _STEPPED,
        )


def _feeds(name: str, other: str, wires: Sequence[Wire]) -> bool:
    """Whether a node reaches another along the edges."""
    reached, edge = {name}, {name}
    while edge:
        edge = {wire.name for wire in wires if not edge.isdisjoint(wire.sources)} - reached
        reached |= edge
    return other in reached


def _spiking(wires: Sequence[Wire], populations: Mapping[str, Population]) -> Iterator[str]:
    for wire in wires:
        fires = wire.name in populations and populations[wire.name].fires
        if fires or wire.kind in ("input", "Threshold"):
            yield wire.name


def _type(population: Population) -> str:
    """NIR's type without the claim to fire."""
    return population.kind.removesuffix("F")


def _described(names: Sequence[str], populations: Mapping[str, Population]) -> str:
    return ", ".join(f"'{name}' ({populations[name].kind})" for name in names)


def _limit(node: str, message: str, fix: str) -> Problem:
    return Problem(node=node, code=_CODE, message=message, fix=fix)
