"""The population of a NIR neuron, from the rule that its source follows."""

from __future__ import annotations

from jaxsnn.network.structure import Population, TiedGain
from jaxsnn.nir.frameworks.source_rule import NeuronRule


def population_of(rule: NeuronRule, size: int) -> Population:
    """Return the population of a NIR neuron; a property that the dialect leaves open has a default
    value, and is listed among its obstacles.

    Args:
        rule: the source framework's rule for the neurons.
        size: number of neurons.

    Raises:
        DialectError: the dialect never writes such a node.
    """
    rule.require("type")
    spike = rule.spike
    return Population(
        name=rule.node.name,
        kind=rule.node.type,
        size=size,
        readout=rule.readout,
        resetting=rule.resetting,
        spike_area=None if spike is None else spike.seconds,
        scales_jumps=spike is not None and spike.kind == "scaled jump",
        spike_kernel=rule.spike_kernel or "delta",
        dt=rule.dt,
        bias=rule.constant_input,
        resistance=rule.resistance,
        initial=rule.initial or "zero",
        reset=rule.reset or "zero",
        reset_size=rule.reset_size,
        membrane=rule.membrane,
        synapse=rule.synapse,
        membrane_decay=rule.membrane_decay,
        synapse_decay=rule.synapse_decay,
        threshold=rule.threshold,
        spikes_per_step=rule.spikes_per_step,
        floor=rule.floor,
        spikes_from=rule.spikes_from,
        reset_delay=bool(rule.reset_delay),
        resets_at_start=rule.resets_at_start,
        detaches_resets=rule.detaches_resets,
        resets_first=rule.resets_first,
        recurrent_delay=rule.recurrent_delay,
        counts_steps=rule.counts_steps,
        surrogate=rule.surrogate,
        obstacles=tuple(rule.problems.items()),
        remarks=rule.remarks,
        assumed=rule.assumed,
        ties=tuple(
            TiedGain(tau=tau, gain=gain, step=rule.step_length, dt=dt)
            for (tau, gain), dt in rule.tied_gains.items()
        ),
        leaks_to_zero=rule.leaks_to_zero,
    )
