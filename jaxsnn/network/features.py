"""Features of lowered networks that an engine, the native kernels or the chip may not support.

Only this module detects them; `jaxsnn.event.capabilities`, `jaxsnn.grid.capabilities` and
`jaxsnn.bss2.capabilities` state which of them are not supported. Nothing here loads JAX.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

from jaxsnn.capabilities import Feature, Limit, Occurrence, Requirement
from jaxsnn.errors import LoweringError, Problem, listing
from jaxsnn.network.cycles import Cycle, groups
from jaxsnn.network.neuron_models import (
    NIR_KINDS,
    STEPPED_KINDS,
    is_registered,
    model_of,
    neuron_kinds,
)
from jaxsnn.network.structure import Population, Wire, carried, carriers
from jaxsnn.wording import Text

if TYPE_CHECKING:
    from jaxsnn.network.network import Network


@dataclass(frozen=True, kw_only=True, eq=False)
class StaticNetwork:
    """Static part of a network, with derived properties.

    Attributes:
        wires: nodes in execution order, those of a cycle one after the other.
        populations: populations by name; neurons whose dialect is undecided are missing.
        currents: inputs that are currents, not spikes.
        dt: length of a time step that the engine sets, seconds; None: the network's own.
    """

    wires: Sequence[Wire]
    populations: Mapping[str, Population]
    currents: Collection[str] = ()
    dt: float | None = None

    @classmethod
    def of(
        cls, network: Network, *, currents: Collection[str] = (), dt: float | None = None
    ) -> StaticNetwork:
        """Return the static part of a network."""
        wires, populations = network.wires, network.populations
        return StaticNetwork(wires=wires, populations=populations, currents=currents, dt=dt)

    @property
    def nodes(self) -> Mapping[str, Wire]:
        """Nodes by name."""
        return self._nodes

    @cached_property
    def _nodes(self) -> dict[str, Wire]:
        return {wire.name: wire for wire in self.wires}

    @property
    def neurons(self) -> Iterator[Population]:
        """Populations in execution order."""
        return (self.populations[name] for name in self.nodes if name in self.populations)

    @property
    def is_complete(self) -> bool:
        """Whether all neurons have a population."""
        return all(wire.name in self.populations for wire in self.wires if wire.kind == "neuron")

    @cached_property
    def _cycles(self) -> tuple[Cycle, ...] | Problem:
        try:
            return tuple(part for part in groups(self.wires) if isinstance(part, Cycle))
        except LoweringError as error:
            return error.problem

    @property
    def cycles(self) -> tuple[Cycle, ...]:
        """Cycles of the network; empty if one of them has no delay, see `INSTANT_CYCLE`."""
        return () if isinstance(self._cycles, Problem) else self._cycles

    @property
    def instant_cycles(self) -> tuple[Problem, ...]:
        """Problem of a cycle without a delay, as a tuple that is empty if there is none."""
        return (self._cycles,) if isinstance(self._cycles, Problem) else ()

    @cached_property
    def in_cycles(self) -> frozenset[str]:
        """Names of the nodes that are part of a cycle."""
        return frozenset(wire.name for cycle in self.cycles for wire in cycle.wires)

    @cached_property
    def biased(self) -> set[str]:
        """Names of the linear nodes whose output contains a constant because of biases."""
        return carriers(self.wires, [wire.name for wire in self.wires if wire.biased])

    @cached_property
    def with_currents(self) -> set[str]:
        """Names of the inputs that are currents, and of the linear nodes that pass them on."""
        return carriers(self.wires, self.currents)

    @cached_property
    def with_spikes(self) -> set[str]:
        """Names of the spiking populations and inputs, and of the linear nodes that pass spikes
        on.
        """
        firing = [name for name, population in self.populations.items() if population.fires]
        inputs = [
            wire.name
            for wire in self.wires
            if wire.kind == "input" and wire.name not in self.currents
        ]
        return carriers(self.wires, [*firing, *inputs])

    @cached_property
    def with_levels(self) -> set[str]:
        """Names of the nodes that send potentials, biases or the output of a Threshold or another
        nonlinear node, and of the linear nodes that pass them on.
        """
        levels = {
            wire.name
            for wire in self.wires
            if wire.biased or wire.function or wire.kind == "Threshold"
        }
        return carriers(self.wires, [*self.readouts, *levels])

    @cached_property
    def readouts(self) -> tuple[str, ...]:
        """Names of the populations that do not fire."""
        return tuple(name for name, population in self.populations.items() if not population.fires)

    @cached_property
    def readouts_into(self) -> dict[str, tuple[str, ...]]:
        """Readouts whose potentials enter each node, directly or through linear nodes."""
        return carried(self.wires, self.readouts)

    @property
    def is_continuous(self) -> bool:
        """Whether a population is in continuous time."""
        return any(population.membrane == "exact" for population in self.populations.values())

    def receives(self, name: str, senders: Collection[str]) -> bool:
        """Return whether some nodes feed a node directly."""
        return not set(senders).isdisjoint(self.nodes[name].sources)


#: A feature of a lowered network.
NetworkFeature = Feature[StaticNetwork]


def _of(population: Population, **facts: object) -> Occurrence:
    return Occurrence(population.name, kind=population.kind, **facts)


def _populations(description: str, condition: Callable[[Population], bool]) -> NetworkFeature:
    """Return the feature of populations for which a condition holds."""

    def occurrences(network: StaticNetwork) -> Iterator[Occurrence]:
        for population in network.neurons:
            if condition(population):
                yield _of(population, reset=population.reset, floor=population.floor)

    return Feature(description=description, occurrences=occurrences)


# -- node types


THRESHOLD = NetworkFeature(
    description="A Threshold",
    occurrences=lambda network: (
        Occurrence(wire.name)
        for wire in network.wires
        if wire.kind == "Threshold" and not wire.linear
    ),
)
#: MaxPool2d of spikes, which is read as a sum that is compared with a threshold.
MAX_POOL = NetworkFeature(
    description="A Threshold behind a SumPool2d, such as MaxPool2d of spikes",
    occurrences=lambda network: (
        occurrence
        for occurrence in THRESHOLD.occurrences(network)
        if any(
            network.nodes[source].kind == "SumPool2d"
            for source in network.nodes[occurrence.node].sources
        )
    ),
)
#: Kinds of nodes that have neither an operator nor a function.
_WITHOUT_FUNCTION = ("input", "output", "neuron", "Threshold")
NONLINEAR_FUNCTION = NetworkFeature(
    description="A nonlinear function of values, such as MaxPool2d, ReLU or LayerNorm",
    occurrences=lambda network: (
        Occurrence(wire.name, kind=wire.kind) for wire in network.wires if wire.function
    ),
)
OTHER_NODE = NetworkFeature(
    description="A node of a registered type that has no state and no function",
    occurrences=lambda network: (
        Occurrence(wire.name, kind=wire.kind)
        for wire in network.wires
        if not (wire.linear or wire.function) and wire.kind not in _WITHOUT_FUNCTION
    ),
)
UNFED_NODE = NetworkFeature(
    description="A node without state and without input",
    occurrences=lambda network: (
        Occurrence(wire.name, kind=wire.kind)
        for wire in network.wires
        if not wire.sources and wire.kind not in ("input", "neuron")
    ),
)
UNKNOWN_NEURON_MODEL = Limit(
    feature=_populations(
        "A neuron type without a neuron model",
        lambda population: population.kind not in neuron_kinds(),
    ),
    code="unsupported-node",
    reason="node '{node}' ({kind}) has a type without a neuron model",
    fix="register a neuron model (jaxsnn.register_neuron), or replace the node",
)
STEPPED_NEURON = _populations(
    "A neuron type that is defined in time steps only, such as Alpha or LIFRefrac",
    lambda population: population.kind in STEPPED_KINDS,
)
NIR_NEURON = _populations("A neuron of a NIR type", lambda population: population.kind in NIR_KINDS)

# -- behaviour of neurons

RESETTING_READOUT = _populations("A readout that resets", lambda population: population.resetting)
FLOOR = _populations(
    "A lower bound of the membrane potential", lambda population: population.floor is not None
)
NO_RESET = _populations(
    "A spiking neuron without a reset",
    lambda population: population.fires and population.reset == "none",
)
RESET_BY_SUBTRACTION = _populations(
    "A spiking neuron that subtracts its threshold at a reset",
    lambda population: population.fires and population.reset == "subtract",
)
LATE_RESET = _populations(
    "A reset one time step late, of a neuron in continuous time",
    lambda population: (
        population.resets and population.membrane == "exact" and population.reset_delay
    ),
)

# -- cycles


def _remembers(cycle: Cycle) -> bool:
    """Return whether a node without state receives the output of another such node of the cycle one
    time step late.
    """
    stateless = {wire.name for wire in cycle.wires if wire.kind != "neuron"}
    return any(stateless.issuperset({*wire.late, wire.name}) for wire in cycle.wires if wire.late)


def _at_cycle(cycle: Cycle) -> Occurrence:
    return Occurrence(cycle.wires[0].name, nodes=listing(wire.name for wire in cycle.wires))


REMEMBERING_LOOP = NetworkFeature(
    description="A cycle in which nodes without state pass signals on to the next time step",
    occurrences=lambda network: (
        _at_cycle(cycle) for cycle in network.cycles if cycle.in_turn and _remembers(cycle)
    ),
)
JOINED_LOOP = NetworkFeature(
    description="A cycle in which a linear node adds up signals of several neurons in the same time step",
    occurrences=lambda network: (
        _at_cycle(cycle) for cycle in network.cycles if cycle.in_turn and not _remembers(cycle)
    ),
)
INSTANT_CYCLE = Requirement[StaticNetwork](
    description="A cycle without a neuron or a Delay",
    problems=lambda network: network.instant_cycles,
)


READOUT_IN_CYCLE = NetworkFeature(
    description="A spiking neuron of a cycle that is declared as a readout",
    occurrences=lambda network: (
        _of(population)
        for population in network.neurons
        if population.name in network.in_cycles
        and not population.fires
        and population.kind in (*NIR_KINDS, *STEPPED_KINDS)
        and model_of(population.kind).fires
    ),
)


def _immediate_feedback(network: StaticNetwork) -> Iterator[Occurrence]:
    for cycle in network.cycles if network.is_complete else ():
        for place, name in enumerate(cycle.order):
            population = network.populations[name]
            immediate = population.recurrent_delay == 0 and population.spikes_from == "after"
            if immediate and not _reached_at_once(cycle, name).isdisjoint(cycle.order[: place + 1]):
                yield _of(population)


def _reached_at_once(cycle: Cycle, name: str) -> set[str]:
    """Return the neurons of a cycle that a neuron reaches without a Delay or another neuron on the
    path.
    """
    ends, passed, reached = set[str](), set[str](), {name}
    while reached:
        passed |= reached
        behind = [wire for wire in cycle.wires if not reached.isdisjoint(wire.sources)]
        ends |= {wire.name for wire in behind if wire.kind == "neuron"}
        reached = {wire.name for wire in behind if wire.kind not in ("neuron", "Delay")} - passed
    return ends


IMMEDIATE_FEEDBACK = Feature(
    description="A cycle in which spikes of a neuron reach the neuron itself without a delay",
    occurrences=_immediate_feedback,
)

#: A constant that passes a Delay, and so starts only after the delay.
LATE_BIAS = NetworkFeature(
    description="A bias before a Delay",
    occurrences=lambda network: (
        Occurrence(
            wire.name, sources=listing(name for name in wire.sources if name in network.biased)
        )
        for wire in network.wires
        if wire.kind == "Delay" and network.receives(wire.name, network.biased)
    ),
)

# -- signals


VOLTAGE_TO_OUTPUT = NetworkFeature(
    description="A membrane potential that reaches an Output through other nodes",
    occurrences=lambda network: (
        _of(network.populations[source], target=wire.name)
        for wire in network.wires
        if wire.kind == "output"
        for source in network.readouts_into[wire.name]
        if source not in wire.sources  # the Output records the potential of a direct source
    ),
)


def _target_kind(network: StaticNetwork, wire: Wire) -> str:
    return network.populations[wire.name].kind if wire.name in network.populations else wire.kind


VOLTAGE_TO_NODE = NetworkFeature(
    description="A membrane potential that drives another node, directly or through linear nodes",
    occurrences=lambda network: (
        _of(
            network.populations[source],
            target=wire.name,
            target_kind=_target_kind(network, wire),
        )
        for wire in network.wires
        if not (wire.linear or wire.function) and wire.kind not in ("Threshold", "output")
        for source in network.readouts_into[wire.name]
    ),
)
HELD_VOLTAGE = NetworkFeature(
    description="A membrane potential in continuous time that another node receives",
    occurrences=lambda network: (
        _of(population)
        for population in (network.neurons if network.is_complete else ())
        if population.membrane == "exact"
        and not population.fires
        and any(population.name in wire.sources and wire.kind != "output" for wire in network.wires)
    ),
)
READOUT_AS_SOURCE = NetworkFeature(
    description="A readout that drives a node other than an Output",
    occurrences=lambda network: (
        _of(network.populations[source], target=wire.name)
        for wire in network.wires
        if wire.kind != "output"
        for source in wire.sources
        if source in network.readouts
    ),
)
OUTPUT_OF_OTHER_NODE = NetworkFeature(
    description="An Output whose source is not a neuron",
    occurrences=lambda network: (
        Occurrence(wire.name, source=source, kind=_node_type(network.nodes[source]))
        for wire in network.wires
        if wire.kind == "output"
        for source in wire.sources
        if source not in network.populations
    ),
)


def _node_type(wire: Wire) -> str:
    """Return the NIR type of a node that is not a neuron."""
    return wire.kind.capitalize() if wire.kind in ("input", "output") else wire.kind


def _currents_and_deltas(network: StaticNetwork) -> Iterator[Occurrence]:
    for population in network.neurons:
        if population.spike_kernel != "delta":
            continue
        sources = network.nodes[population.name].sources
        # One linear node can carry both: then both sources are this node.
        current = next((source for source in sources if source in network.with_currents), None)
        spikes = next((source for source in sources if source in network.with_spikes), None)
        if current is not None and spikes is not None:
            yield _of(population, current=current, spikes=spikes)


def _mixed_sources(network: StaticNetwork) -> Iterator[Occurrence]:
    for wire in network.wires:
        if wire.kind != "output" or not set(network.readouts_into[wire.name]) <= set(wire.sources):
            continue
        kinds = [network.nodes[name].kind for name in wire.sources]
        # An Output records the potential of a single readout, or spikes if all sources fire.
        fires = [
            kind == "Threshold" or (kind == "neuron" and name not in network.readouts)
            for name, kind in zip(wire.sources, kinds, strict=True)
        ]
        if kinds != ["neuron"] and not (fires and all(fires)):
            yield Occurrence(wire.name, sources=listing(wire.sources))


CURRENT_AND_DELTAS = NetworkFeature(
    description="A neuron that receives an input current and delta spikes",
    occurrences=_currents_and_deltas,
)
MIXED_SOURCES = NetworkFeature(
    description="An Output whose source is a weight or an Input, or whose sources do not all spike",
    occurrences=_mixed_sources,
)
SPIKES_AT_THRESHOLD = NetworkFeature(
    description="A Threshold or another nonlinear node that receives spikes, in a network in continuous time",
    occurrences=lambda network: (
        Occurrence(wire.name, kind=wire.kind)
        for wire in (network.wires if network.is_continuous else ())
        if (wire.function or wire.kind == "Threshold")
        and network.receives(wire.name, network.with_spikes)
    ),
)
MIXED_OUTPUT = NetworkFeature(
    description="An Output that receives spikes and a current, in a network in continuous time",
    occurrences=lambda network: (
        Occurrence(wire.name)
        for wire in (network.wires if network.is_continuous else ())
        if wire.kind == "output"
        and network.receives(wire.name, network.with_spikes)
        and network.receives(wire.name, network.with_levels)
    ),
)

# -- features without native kernels


def _kernel_gaps(network: StaticNetwork) -> dict[str, list[str]]:
    """Return the spiking populations that the native kernels do not simulate, or only if the
    equations of their model are linear, by reason.

    A cycle is simulated as a whole: the first reason of any of its populations applies to all.
    """
    gaps: dict[str, list[str]] = {}
    cycle_of = {name: cycle.order for cycle in network.cycles for name in cycle.order}
    for population in network.populations.values():
        simulated_together = [
            network.populations[name]
            for name in cycle_of.get(population.name, (population.name,))
            if name in network.populations
        ]
        gap = next(filter(None, map(_population_gap, simulated_together)), None)
        if gap is None and population.name in cycle_of:
            gap = _cycle_gap(simulated_together)
        elif gap == "model" and population.name not in cycle_of:
            gap = "model outside cycles"
        if population.fires and gap:
            gaps.setdefault(gap, []).append(population.name)
    return gaps


def _population_gap(population: Population) -> str | None:
    if is_registered(population.kind):
        return "model"
    if population.kind == "CubaLIF" and population.spike_kernel == "box":
        return "boxes"
    return None


def _cycle_gap(populations: Sequence[Population]) -> str | None:
    boxes = {population.name for population in populations if population.spike_kernel == "box"}
    if any(
        population.kind in ("LIF", "IF") and population.name not in boxes
        for population in populations
    ):
        return "jumps"
    if 0 < len(boxes) < len(populations):
        return "mixed boxes"
    if len({population.reset for population in populations}) > 1:
        return "mixed resets"
    return None


def _beyond_kernels(description: str, gap: str) -> NetworkFeature:
    """Return a feature that the kernels do not support, with one occurrence for all populations
    that have it.
    """

    def occurrences(network: StaticNetwork) -> Iterator[Occurrence]:
        names = _kernel_gaps(network).get(gap)
        if names:
            yield Occurrence(names[0] if len(names) == 1 else "", nodes=listing(names))

    return Feature(description=description, occurrences=occurrences)


FOREIGN_MODEL = _beyond_kernels("A registered neuron model", "model outside cycles")
FOREIGN_MODEL_IN_CYCLE = _beyond_kernels("A cycle with a registered neuron model", "model")
BOXES_INTO_CURRENTS = _beyond_kernels("Rectangular pulses into a CubaLIF", "boxes")
JUMPS_IN_CYCLE = _beyond_kernels("A cycle in which delta spikes reach LIF or IF neurons", "jumps")
MIXED_KERNELS_IN_CYCLE = _beyond_kernels(
    "A cycle with rectangular pulses for some neurons and delta spikes for others", "mixed boxes"
)
MIXED_RESETS_IN_CYCLE = _beyond_kernels(
    "A cycle whose neurons have different reset rules", "mixed resets"
)

# -- properties that the dialect must decide


@dataclass(frozen=True, kw_only=True)
class Need:
    """Requirement of a simulator: properties of a population that must be decided.

    Attributes:
        fields: fields and parameters, as in `Population.obstacles`.
        when: whether a population of a network needs them.
    """

    fields: tuple[str, ...]
    when: Callable[[StaticNetwork, Population], bool] = lambda network, population: True


def decided(*needs: Need, available: str = "") -> Requirement[StaticNetwork]:
    """Return the requirement that all properties of populations that a simulator needs are decided and
    valid.

    Args:
        needs: Requirements of the simulator.
        available: End of an advice that recommends this simulator; it is removed from the advice.
    """

    def problems(network: StaticNetwork) -> Iterator[Problem]:
        for population in network.neurons:
            fields = {
                name for need in needs if need.when(network, population) for name in need.fields
            }
            for problem in undecided_fields(population, fields):
                fix = Text.joined("", (problem.fix,))
                yield replace(problem, fix=fix.without(available)) if available else problem

    return Requirement(
        description="A neuron property that the dialect does not specify, or that is invalid",
        problems=problems,
    )


def undecided_fields(population: Population, fields: Collection[str]) -> Iterator[Problem]:
    """Yield the problems of some fields of a population, one for each remedy.

    Args:
        fields: As in `Population.obstacles`.
    """
    remedies: set[str] = set()
    undecided = {field for field, _ in population.obstacles} & {*fields}
    # The remedy of a missing reset names both options.
    covered = {"reset_delay"} if {"reset", "reset_delay"} <= undecided else set()
    for field, problem in population.obstacles:
        remedy = problem.fix or problem.message
        if field in undecided - covered and remedy not in remedies:
            remedies.add(remedy)
            yield problem
