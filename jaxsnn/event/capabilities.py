"""Limits of the event engine and its native kernels. Nothing here loads JAX."""

from __future__ import annotations

from dataclasses import replace

from jaxsnn.capabilities import Capabilities, Limit, at_node
from jaxsnn.errors import listing
from jaxsnn.network import features
from jaxsnn.network.features import Need, StaticNetwork, decided
from jaxsnn.network.structure import OPERATORS, Population
from jaxsnn.options import ENGINE, MIN_V_MEM, READOUT, RESET, SPIKE_KERNEL

_GRID = {"grid": ENGINE.set_to("grid")}


def _needs_dt(network: StaticNetwork, population: Population) -> bool:
    """Return whether the length of a step matters in continuous time: as the duration of a box, of a
    current that is specified per step, or of a recurrent delay of one step.
    """
    lasting = network.biased | network.with_currents
    return (
        population.spike_kernel == "box"
        or (population.bias == "step" and network.receives(population.name, lasting))
        or (population.recurrent_delay > 0 and population.name in network.in_cycles)
    )


EVENT = Capabilities[StaticNetwork](
    title="event engine",
    limits=(
        features.INSTANT_CYCLE,
        Limit(
            feature=features.REMEMBERING_LOOP,
            code="instant-cycle",
            reason="nodes {nodes} form a cycle without a neuron, in which signals advance once "
            "per time step; the event engine has no time steps",
            fix="simulate with {grid}",
            options=_GRID,
        ),
        Limit(
            feature=features.JOINED_LOOP,
            code="instant-cycle",
            reason="nodes {nodes} add up signals of several neurons of their cycle, and the sum "
            "depends on the order in which the importer evaluates a time step; the event engine "
            "has no time steps",
            fix="connect each pair of neurons by separate weights, or simulate with {grid}",
            options=_GRID,
        ),
        Limit(
            feature=features.MAX_POOL,
            code="unsupported-node",
            reason="the event engine does not support node '{node}' (Threshold)",
            fix="replace max pooling by AvgPool2d, or simulate with {grid}",
            options=_GRID,
        ),
        Limit(
            feature=features.THRESHOLD,
            unless=(features.MAX_POOL,),
            code="unsupported-node",
            reason="the event engine does not support node '{node}' (Threshold)",
            fix="simulate with {grid}",
            options=_GRID,
        ),
        *(
            Limit(
                feature=feature,
                code="unsupported-node",
                reason="node '{node}' has the type {kind}, which the event engine does not simulate",
                fix="simulate with {grid}",
                options=_GRID,
            )
            for feature in (features.NONLINEAR_FUNCTION, features.STEPPED_NEURON)
        ),
        Limit(
            feature=features.OTHER_NODE,
            code="unsupported-node",
            reason="the event engine does not support node '{node}' ({kind})",
            fix=f"replace it by neurons, or by linear nodes such as {listing(OPERATORS)}",
        ),
        Limit(
            feature=features.LATE_BIAS,
            code="late-bias",
            reason="node '{node}' (Delay) also delays the bias of {sources}, so that the bias "
            "would start only after the delay",
            fix="move the bias behind the Delay, or simulate with {grid}",
            options=_GRID,
        ),
        features.UNKNOWN_NEURON_MODEL,
        decided(
            Need(
                fields=(
                    *("seconds", "spike_area", "initial"),
                    *("tau", "tau_mem", "tau_syn", "spike_kernel"),
                )
            ),
            Need(fields=("reset", "v_reset"), when=lambda _, population: population.fires),
            Need(fields=("dt",), when=_needs_dt),
        ),
        Limit(
            feature=features.RESETTING_READOUT,
            code="resetting-readout",
            reason="node '{node}' ({kind}) is a readout that resets ({reset}); the event engine "
            "supports only readouts without a reset",
            fix="simulate with {grid}, or pass {no_reset}",
            options=_GRID | {"no_reset": at_node(RESET, "none")},
        ),
        Limit(
            feature=features.FLOOR,
            code="floor",
            reason="node '{node}' ({kind}) has a lower bound of the membrane potential, "
            "{floor:g}, which is applied in each time step; the event engine has no time steps",
            fix="simulate with {grid}, or pass {no_bound}",
            options=_GRID | {"no_bound": at_node(MIN_V_MEM, "none")},
        ),
        Limit(
            feature=features.NO_RESET,
            code="no-reset",
            reason="node '{node}' ({kind}) fires and has reset 'none': above the threshold it "
            "would fire infinitely often",
            fix="pass {readout} if the node is a leaky readout, or another reset",
            options={"readout": READOUT.set_to},
        ),
        Limit(
            feature=features.VOLTAGE_TO_OUTPUT,
            code="analog-signal",
            reason="the membrane potential of node '{node}' ({kind}) reaches Output '{target}' "
            "through other nodes; the event engine records only membrane potentials of neurons",
            fix="simulate with {grid}",
            options=_GRID,
        ),
        Limit(
            feature=features.VOLTAGE_TO_NODE,
            code="analog-signal",
            reason="the membrane potential of node '{node}' ({kind}) drives node '{target}' "
            "({target_kind}); the event engine transmits only spikes",
            fix="put spiking neurons in between, or simulate with {grid}",
            options=_GRID,
        ),
        Limit(
            feature=features.CURRENT_AND_DELTAS,
            code="current-and-deltas",
            reason="node '{node}' ({kind}) receives an input current from '{current}' and delta "
            "spikes from '{spikes}', which the event engine does not combine",
            fix="pass {box} for rectangular pulses, or simulate with {grid}",
            options=_GRID | {"box": at_node(SPIKE_KERNEL, "box")},
        ),
    ),
)

_OUTPUT_SOURCE = Limit(
    feature=features.MIXED_SOURCES,
    code="output-source",
    reason="output '{node}' is fed by {sources}; an output records either spikes or the membrane "
    "potential of one readout",
    fix="connect only spiking populations, or one readout, to it; jaxsnn.simulate returns the "
    "results of every population",
)

#: Requirements of Outputs, in addition to those of `EVENT`.
OUTPUTS = Capabilities[StaticNetwork](title="Outputs of the event engine", limits=(_OUTPUT_SOURCE,))
#: Requirements of a complete simulation.
SIMULATION = replace(EVENT, limits=(*EVENT.limits, _OUTPUT_SOURCE))


def _slow(feature: features.NetworkFeature, why: str) -> Limit[StaticNetwork]:
    return Limit(
        feature=feature,
        code="by-xla",
        reason="{nodes}: simulated by XLA, which is slower than the native kernels, because " + why,
        severity="note",
    )


#: Requirements of the native kernels; XLA simulates all other networks, on a CPU, too.
KERNELS = Capabilities[StaticNetwork](
    title="native kernels",
    limits=(
        Limit(
            feature=features.FOREIGN_MODEL,
            code="by-xla",
            reason="{nodes}: the neuron model is not a NIR type; the native kernels simulate it if "
            "its equations are linear or it is an IntegratedNeuron, and it receives no "
            "convolution; else XLA does, which is slower, but no IntegratedNeuron",
            severity="note",
        ),
        Limit(
            feature=features.FOREIGN_MODEL_IN_CYCLE,
            code="by-xla",
            reason="{nodes}: a neuron model of the cycle is not a NIR type; XLA simulates it, which "
            "is slower than the native kernels, but no IntegratedNeuron",
            severity="note",
        ),
        _slow(features.BOXES_INTO_CURRENTS, "rectangular pulses drive a decaying synaptic current"),
        _slow(
            features.JUMPS_IN_CYCLE, "spikes within a cycle act directly on the membrane potential"
        ),
        _slow(
            features.MIXED_KERNELS_IN_CYCLE,
            "some neurons of a cycle use rectangular pulses and others delta spikes",
        ),
        _slow(features.MIXED_RESETS_IN_CYCLE, "the neurons of a cycle have different reset rules"),
    ),
)
