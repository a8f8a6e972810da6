"""Limits of BrainScaleS-2 (HICANN-X) that hold for every placement."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from jaxsnn.bss2.chip import HICANN_X, PARAMETERS
from jaxsnn.bss2.search.chip_dynamics import Dynamics
from jaxsnn.capabilities import Capabilities, Feature, Limit, Occurrence, at_node
from jaxsnn.network import features
from jaxsnn.network.features import StaticNetwork
from jaxsnn.nir.model import features as graph_features
from jaxsnn.nir.model.graph import Graph
from jaxsnn.nir.model.passes import sizes
from jaxsnn.options import APPROXIMATE, BIAS, MIN_V_MEM, READOUT, RESET
from jaxsnn.units import format_time

#: Types of neurons that a circuit can implement.
NEURONS = ("CubaLIF", "CubaLI", "LIF", "LI")

# -- graphs


def _time_constants(graph: Graph) -> Iterator[tuple[str, str, str, np.ndarray]]:
    """Yield node, parameter, the parameter's name on the chip, and the values."""
    for name, node in graph.nodes.items():
        for key in ("tau_mem", "tau_syn") if node.type in NEURONS else ():
            parameter = "tau" if key == "tau_mem" and not node.traits.current_based else key
            if parameter in node.names:
                yield name, parameter, key, np.ravel(node.value(parameter)).astype(float)


def _reach(key: str) -> tuple[float, float]:
    """Return the shortest and the longest time constant that the calibration supports, in seconds
    of the chip.
    """
    reach = PARAMETERS[key]
    return reach.least or reach.low, reach.most or reach.high


def _ratio(key: str) -> float:
    """Return the factor by which the longest and the shortest time constant may differ."""
    low, high = _reach(key)
    return high / low


def _distant_time_constants(graph: Graph) -> Iterator[Occurrence]:
    # The factors from the file's time to the chip's that the calibration allows.
    least, most = 0.0, math.inf
    slowest = fastest = ""
    for name, parameter, key, taus in _time_constants(graph):
        if not np.isfinite(taus).all():
            continue
        low, high = _reach(key)
        if low / taus.min() > least:
            least, fastest = low / taus.min(), f"{parameter} {taus.min():g} of '{name}'"
        if high / taus.max() < most:
            most, slowest = high / taus.max(), f"{parameter} {taus.max():g} of '{name}'"
    if least > most:
        yield Occurrence(fastest=fastest, slowest=slowest)


def _large_loops(graph: Graph) -> Iterator[Occurrence]:
    counts = sizes(graph)
    for component in graph.recurrent_components():
        needed = sum(counts.get(name) or 0 for name in component)
        if needed > HICANN_X.circuits:
            nodes = ", ".join(f"'{name}'" for name in component if name in counts)
            excess = needed - HICANN_X.circuits
            yield Occurrence(component[0], nodes=nodes, needed=needed, excess=excess)


INFINITE_TIME_CONSTANT = Feature[Graph](
    description="An infinite time constant",
    occurrences=lambda graph: (
        Occurrence(name, kind=graph.nodes[name].type, parameter=parameter)
        for name, parameter, _, taus in _time_constants(graph)
        if not np.isfinite(taus).all()
    ),
)
DISTANT_TIME_CONSTANTS = Feature(
    description="Time constants that no speedup brings into the range of the calibration",
    occurrences=_distant_time_constants,
)
LARGE_LOOP = Feature(
    description=f"More than {HICANN_X.circuits} recurrently connected neurons",
    occurrences=_large_loops,
)
SEVERAL_RUNS = Feature[Graph](
    description=f"More than {HICANN_X.circuits} neurons",
    occurrences=lambda graph: (
        Occurrence(needed=needed, runs=math.ceil(needed / HICANN_X.circuits))
        for needed in [sum(count or 0 for count in sizes(graph).values())]
        if needed > HICANN_X.circuits
    ),
)


def _no_circuit(
    feature: graph_features.GraphFeature,
    why: str,
    fix: str = "use CubaLIF, CubaLI, Linear, Affine, convolutions and pools",
) -> Limit[Graph]:
    return Limit(
        feature=feature,
        code="unsupported-node",
        reason="node '{node}' ({kind}) is not supported: " + why,
        fix=fix,
    )


CHIP = Capabilities[Graph](
    title="BrainScaleS-2",
    limits=(
        _no_circuit(
            graph_features.NEURON_WITHOUT_LEAK,
            "its membrane does not leak; every circuit of the chip leaks",
        ),
        _no_circuit(graph_features.other_neurons(NEURONS), "the chip has no neurons of that type"),
        _no_circuit(graph_features.DELAY, "the chip does not delay spikes"),
        _no_circuit(graph_features.DELAYS_OF_SYNAPSES, "the chip does not delay spikes"),
        _no_circuit(
            graph_features.NONLINEAR_NODE,
            "the chip has no node of that type",
            "use sum or average pools instead of max pools, and neurons instead of other functions",
        ),
        Limit(
            feature=graph_features.NEURON_WITHOUT_CURRENT,
            unless=(graph_features.NEURON_WITHOUT_LEAK, graph_features.other_neurons(NEURONS)),
            code="approximated",
            reason="node '{node}' ({kind}) has no tau_syn; the chip's synaptic current always decays, "
            "so that the node is mapped with a short tau_syn",
            fix="train with CubaLIF or CubaLI, which have the synaptic current of the chip",
            severity="warning",
        ),
        Limit(
            feature=graph_features.UNKNOWN_SIZE,
            code="unknown-size",
            reason="the file does not specify the number of neurons of node '{node}'",
            fix="write its parameters as arrays of the layer's shape",
        ),
        Limit(
            feature=INFINITE_TIME_CONSTANT,
            code="no-leak",
            reason="node '{node}' ({kind}) has an infinite {parameter}; every circuit of the chip leaks",
            fix="use a finite time constant",
        ),
        Limit(
            feature=DISTANT_TIME_CONSTANTS,
            code="time-constants",
            reason="the time constants are too far apart for the chip: {fastest} and {slowest}",
            fix=f"bring them closer together: all tau_mem within a factor of {_ratio('tau_mem'):g}, and"
            f" all tau_syn within a factor of {_ratio('tau_syn'):g}",
        ),
        Limit(
            feature=LARGE_LOOP,
            code="too-large",
            reason="the recurrently connected neurons ({nodes}) need {needed} circuits; the chip has"
            f" {HICANN_X.circuits} ({{excess}} too many)",
            fix="reduce their number; recurrently connected neurons must be in the same run",
        ),
        Limit(
            feature=SEVERAL_RUNS,
            code="several-runs",
            reason="the network needs at least {needed} circuits; the chip has"
            f" {HICANN_X.circuits}",
            fix="the mapper splits it into {runs} or more runs",
            severity="warning",
        ),
    ),
)

# -- lowered networks


@dataclass(frozen=True, kw_only=True, eq=False)
class PlacedNetwork(StaticNetwork):
    """Populations with the dynamics that circuits must have.

    Attributes:
        dynamics: Required dynamics of each population.
    """

    dynamics: Mapping[str, Dynamics]


NO_NEURONS = Feature[StaticNetwork](
    description="A graph without neurons",
    occurrences=lambda network: (
        [] if any(wire.kind == "neuron" for wire in network.wires) else [Occurrence()]
    ),
)
BAD_GAIN = Feature[PlacedNetwork](
    description="A gain that is not positive",
    occurrences=lambda network: (
        Occurrence(name, kind=demands.population.kind, neuron=neuron, slope=demands.slope[neuron])
        for name, demands in network.dynamics.items()
        for neuron in np.flatnonzero(demands.slope <= 0)[:1].tolist()
    ),
)
BIASED_NEURONS = Feature[PlacedNetwork](
    description="A bias",
    occurrences=lambda network: (
        Occurrence(name, kind=demands.population.kind, biased=biased, neurons=demands.drive.size)
        for name, demands in network.dynamics.items()
        if (biased := int(np.count_nonzero(demands.drive)))
    ),
)
_RESET_SETTINGS = {"zero": at_node(RESET, "zero"), "readout": READOUT.set_to}

SYNAPSES = Capabilities[StaticNetwork](
    title="connections on BrainScaleS-2",
    limits=(
        Limit(
            feature=features.READOUT_AS_SOURCE,
            code="analog-source",
            reason="node '{node}' ({kind}) never fires and feeds node '{target}'; synapses of the chip"
            " transmit only spikes",
            fix="connect it to an Output only",
        ),
        Limit(
            feature=features.OUTPUT_OF_OTHER_NODE,
            code="no-population",
            reason="Output '{node}' records node '{source}' ({kind}); the chip records only neurons",
            fix="connect the Output to neurons, and compute the nodes after them from recorded spikes",
        ),
        Limit(
            feature=NO_NEURONS,
            code="no-neurons",
            reason="the graph has no neurons; only neurons are placed on the chip",
            fix="add neurons",
        ),
    ),
)

CIRCUITS = Capabilities[PlacedNetwork](
    title="circuits of BrainScaleS-2",
    limits=(
        Limit(
            feature=features.RESET_BY_SUBTRACTION,
            code="reset",
            reason="node '{node}' ({kind}) subtracts its threshold at a reset; circuits of the chip "
            "reset to v_reset",
            fix="pass {zero} or {approximate} to map it with a reset to v_reset, or {readout} if it is a leaky readout",
            options=_RESET_SETTINGS | {"approximate": APPROXIMATE.set_to(True)},
        ),
        Limit(
            feature=features.NO_RESET,
            code="reset",
            reason="node '{node}' ({kind}) fires and never resets; circuits of the chip reset to v_reset",
            fix="pass {zero} to map it with a reset to v_reset, or {readout} if it is a leaky readout",
            options=_RESET_SETTINGS,
        ),
        Limit(
            feature=features.RESETTING_READOUT,
            code="reset",
            reason="node '{node}' ({kind}) is a readout that resets ({reset}); readouts on the chip do "
            "not reset",
            fix="pass {no_reset} if it is a leaky readout",
            options={"no_reset": at_node(RESET, "none")},
        ),
        Limit(
            feature=features.FLOOR,
            unless=(features.RESETTING_READOUT,),
            code="floor",
            reason="node '{node}' ({kind}) has a lower bound of the membrane potential, {floor:g}; "
            "circuits of the chip have none",
            fix="pass {no_bound} to map it without a bound",
            options={"no_bound": at_node(MIN_V_MEM, "none")},
        ),
        Limit(
            feature=BAD_GAIN,
            code="bad-gain",
            reason="node '{node}' ({kind}): with its r and w_in, a spike of weight 1 changes dV/dt of "
            "neuron {neuron} by {slope:g}; only positive gains can be folded into weights",
            fix="use positive r and w_in, and put the sign into the weights",
        ),
        Limit(
            feature=BIASED_NEURONS,
            code="bias",
            reason="node '{node}' ({kind}) has biases ({biased} of {neurons} neurons), and it is not "
            "specified how the chip implements them",
            fix="pass {leak} to shift leak potentials (recommended: exact up to rounding, no input "
            f"channel; from {PARAMETERS['v_leak'].low:g} to {PARAMETERS['v_leak'].high:g} CADC LSB), "
            "or {source} to replace them by regular spikes (an input channel; weights up to "
            f"{HICANN_X.weight_max} LSB, periods from {format_time(HICANN_X.clock_period)})",
            options={"leak": BIAS.set_to("leak"), "source": BIAS.set_to("source")},
        ),
    ),
)
