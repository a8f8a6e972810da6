"""Limits and approximations of the time-stepped engine. Nothing here loads JAX."""

from __future__ import annotations

from collections.abc import Iterator

from jaxsnn.capabilities import Capabilities, Feature, Limit, Occurrence, Requirement, at_node
from jaxsnn.errors import LoweringError, Problem, listing
from jaxsnn.grid.timing import delay_steps, known_dt, needs_dt, step_in_units
from jaxsnn.network import features
from jaxsnn.network.features import Need, StaticNetwork, decided
from jaxsnn.network.structure import OPERATORS, Population, Wire
from jaxsnn.options import DIALECT, ENGINE, READOUT, RESET, RESET_DELAY
from jaxsnn.wording import Text

#: End of an advice that recommends this engine.
_HERE = Text(", or simulate with {engine}", engine=ENGINE.set_to("grid"))


def _counts_seconds(network: StaticNetwork, population: Population) -> bool:
    return needs_dt(population) and not population.counts_steps


def _delays(network: StaticNetwork) -> Iterator[tuple[Wire, tuple[int, ...] | Problem]]:
    """Yield each Delay with its delays in steps, or with the problem of delays that are not an
    integer number of steps.
    """
    step = step_in_units(network.populations, known_dt(network.populations, network.dt))
    for wire in network.wires:
        if wire.kind == "Delay" and wire.detail is not None:
            try:
                yield wire, delay_steps(wire, step)
            except LoweringError as error:
                yield wire, error.problem


ZERO_DELAY_IN_CYCLE = Feature[StaticNetwork](
    description="A Delay of zero steps in a cycle",
    occurrences=lambda network: (
        Occurrence(wire.name)
        for wire, steps in _delays(network)
        if wire.name in network.in_cycles and not isinstance(steps, Problem) and min(steps) < 1
    ),
)

GRID = Capabilities[StaticNetwork](
    title="time-stepped engine",
    limits=(
        Limit(
            feature=features.OTHER_NODE,
            code="unsupported-node",
            reason="the time-stepped engine does not support node '{node}' ({kind})",
            fix=f"replace it by neurons, or by nodes such as {listing((*OPERATORS, 'Threshold'))}",
        ),
        Limit(
            feature=features.UNFED_NODE,
            code="not-fed",
            reason="node '{node}' ({kind}) has no input",
            fix="connect an input to it, or remove it",
        ),
        features.UNKNOWN_NEURON_MODEL,
        decided(
            Need(fields=("initial", "own_option", "r")),
            Need(fields=("seconds",), when=_counts_seconds),
            Need(
                fields=("dt",),
                when=lambda network, population: (
                    network.dt is None and _counts_seconds(network, population)
                ),
            ),
            Need(
                fields=("spike_area", "spike_kernel", "tau", "tau_mem", "tau_syn"),
                when=lambda _, population: population.membrane == "exact",
            ),
            Need(fields=("reset", "reset_delay"), when=lambda _, population: population.resets),
            available=_HERE,
        ),
        Limit(
            feature=features.RESETTING_READOUT,
            unless=(features.NIR_NEURON,),
            code="resetting-readout",
            reason="node '{node}' ({kind}) is a readout that resets ({reset}), which registered "
            "neuron models do not support",
            fix="pass {no_reset}",
            options={"no_reset": at_node(RESET, "none")},
        ),
        Limit(
            feature=features.LATE_RESET,
            code="reset-delay",
            reason="node '{node}' ({kind}) resets one time step after its spike, which is not "
            "supported for equations in continuous time",
            fix="pass {at_once}",
            options={"at_once": at_node(RESET_DELAY, False)},
        ),
        features.INSTANT_CYCLE,
        Limit(
            feature=features.READOUT_IN_CYCLE,
            code="readout-in-cycle",
            reason="node '{node}' ({kind}) is declared as a readout, but its spikes drive other "
            "neurons of a cycle",
            fix="do not pass {readout}, and record its spikes",
            options={"readout": READOUT.set_to},
        ),
        Requirement(
            description="A Delay that is not an integer number of time steps",
            problems=lambda network: (
                steps for _, steps in _delays(network) if isinstance(steps, Problem)
            ),
        ),
        Limit(
            feature=ZERO_DELAY_IN_CYCLE,
            code="delay",
            reason="node '{node}' (Delay) is part of a cycle and delays by 0 time steps; the "
            "minimum is 1",
            fix="increase its delay, or choose a smaller dt",
        ),
        Limit(
            feature=features.SPIKES_AT_THRESHOLD,
            code="spikes-at-threshold",
            reason="node '{node}' ({kind}) receives spikes, which have no amplitude in "
            "continuous time",
            fix="insert a leaky integrator (LI or CubaLI) before it, or pass another {dialect}",
            options={"dialect": DIALECT.keyword},
        ),
        Limit(
            feature=features.MIXED_OUTPUT,
            code="mixed-output",
            reason="node '{node}' (Output) receives spikes and a current, which cannot be added "
            "in continuous time",
            fix="connect the spikes and the current to separate Outputs",
        ),
    ),
)

#: Approximations of time steps in a network that the engine runs.
APPROXIMATIONS = Capabilities[StaticNetwork](
    title="time steps",
    limits=(
        Limit(
            feature=features.IMMEDIATE_FEEDBACK,
            unless=(features.HELD_VOLTAGE,),
            code="approximated",
            reason="node '{node}': its recurrent spikes arrive one time step later, although the "
            "network specifies no delay",
            severity="warning",
        ),
        Limit(
            feature=features.HELD_VOLTAGE,
            code="approximated",
            reason="node '{node}': its membrane potential drives other nodes as a current that is "
            "constant during each time step",
            severity="warning",
        ),
    ),
)
