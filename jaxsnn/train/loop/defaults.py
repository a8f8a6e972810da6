"""What a network is trained for where nobody says it: which population answers, by which loss, on
what time scale.
"""

from __future__ import annotations

import numpy as np

from jaxsnn.errors import UsageError, listing, suggestion
from jaxsnn.network.network import Network
from jaxsnn.train.losses.losses import LOSSES, Loss

#: Without other instructions inputs arrive within 2 tau_syn of the start, and a sample lasts 6.5
#: tau_syn.
INPUT_SPAN, SAMPLE_SPAN = 2.0, 6.5


def read_population(network: Network) -> str:
    """The population whose spikes are the network's answer: the only one that feeds the only
    Output.

    Raises:
        UsageError: there are several, or it does not fire.
    """
    sources = [source for feeding in network.outputs.values() for source in feeding]
    if len(sources) != 1:
        raise UsageError(
            f"{len(sources)} nodes ({listing(sources)}) feed the outputs of the network: training reads one, name its "
            "population in the loss"
        )
    return sources[0]


def make_loss(
    name: str, network: Network, t_end: float | None = None, *, span: float | None = None
) -> Loss:
    """A loss of `LOSSES` for a network: times in units of tau_syn (of LI and LIF: tau) of the
    population that is read.

    Args:
        t_end: seconds, end of a sample, when silent neurons count as firing; default `span`.
        span: that in units of the time constant; default 6.5.

    Raises:
        UsageError: there is no such loss, or it does not fit what the population does.
    """
    if name not in LOSSES:
        raise UsageError(f"there is no loss '{name}': {suggestion(name, LOSSES)}")
    population, kind = read_population(network), LOSSES[name]
    refuse_unfit(network, population, kind.reads, name)
    tau = reference_tau(network, population)
    fires = {"fires": network.populations[population].fires} if kind.reads == "either" else {}
    return kind(
        population=population,
        tau=tau,
        t_max=(span or SAMPLE_SPAN) * tau if t_end is None else t_end,
        **fires,
    )


def refuse_unfit(network: Network, population: str, reads: str, name: str) -> None:
    """Refuse a loss of spikes for a readout, or one of voltages for neurons that fire.

    Raises:
        UsageError: says which losses fit.
    """
    _refuse_unknown(network, population)
    fires = network.populations[population].fires
    if reads in ("first spikes", "spikes") and not fires:
        firing = [name for name, own in network.populations.items() if own.fires]
        raise UsageError(
            f"'{population}' is no population that fires: loss {name} reads spikes: take max, integral or exp-sum, or "
            f"read another population ({listing(firing)})"
        )
    if reads == "voltages" and fires:
        raise UsageError(
            f"population '{population}' fires, and loss {name} reads the voltage of a readout: take ttfs, mse, count "
            f"or exp-sum, or say --readout {population}"
        )


def _refuse_unknown(network: Network, population: str) -> None:
    if population in network.populations:
        return
    if any(wire.name == population and wire.kind == "Threshold" for wire in network.wires):
        raise UsageError(
            f"'{population}' is a Threshold, and losses read populations of neurons: let one feed the Output, or name "
            f"it in the loss: there are {listing(network.populations)}"
        )
    raise UsageError(
        f"'{population}' is no population: {suggestion(population, network.populations)}"
    )


def reference_tau(network: Network, population: str) -> float:
    """Median tau_syn of a population, of neurons without a synaptic current their median tau,
    seconds.

    Raises:
        UsageError: there is no such population, or it has no time constant.
    """
    _refuse_unknown(network, population)
    parameters = network.parameters[population]
    name = next((name for name in ("tau_syn", "tau") if name in parameters), None)
    if name is None:
        raise UsageError(
            f"population '{population}' has no time constant: give a loss with its tau, and t_end"
        )
    # through text, so that float32 does not leave 6.399999838322401 ms of 6.4 ms
    return float(f"{np.median(np.asarray(parameters[name])):.6g}")
