"""Defaults of training that follow from the network: output population, loss, time scale, engine."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from jaxsnn.capabilities import unsupported
from jaxsnn.errors import UsageError, listing, suggestion
from jaxsnn.event.capabilities import EVENT
from jaxsnn.event.event_driven import EventDriven
from jaxsnn.grid.capabilities import GRID
from jaxsnn.grid.time_stepped import TimeStepped
from jaxsnn.grid.timing import step_length
from jaxsnn.network.features import StaticNetwork
from jaxsnn.network.inputs import shape_of_input
from jaxsnn.network.network import Network
from jaxsnn.options import READOUT, T_END
from jaxsnn.simulation.solution import Engine
from jaxsnn.train.data.datasets import Data
from jaxsnn.train.data.encoders import Encoder
from jaxsnn.train.losses.losses import Loss, loss_class
from jaxsnn.train.option_values import replace_fields
from jaxsnn.train.options import OPTIONS, engine_kind
from jaxsnn.wording import Text

#: Default length of a sample, and default time after the last event, in tau_syn.
SAMPLE_SPAN, _AFTER_LAST = 6.5, 4.5
#: Samples on the disk that are in memory at once.
_AT_ONCE = 4096
#: Smallest slope dV/dt that a gradient is divided by, in (v_threshold - v_reset) / tau_mem.
MIN_SLOPE = 0.04
# Spikes recorded of each neuron to begin with; where that is too few, the population's budget
# grows.
_FIRST_BUDGET = 4


def read_population(network: Network) -> str:
    """Return the output population of a network: the only one that feeds the only Output.

    Raises:
        UsageError: several nodes feed outputs.
    """
    sources = [source for feeding in network.outputs.values() for source in feeding]
    if len(sources) != 1:
        populations = [source for source in sources if source in network.populations]
        raise UsageError(
            Text(
                "{count} nodes ({nodes}) feed outputs of the network, and training uses one output "
                "population",
                count=len(sources),
                nodes=listing(sources),
            ),
            fix=f'specify it: population = "{next(iter(populations), "...")}" in [loss-options] of a'
            " configuration file; in Python by loss_options, or by a loss object",
        )
    return sources[0]


def default_loss(network: Network, population: str, *, in_steps: bool) -> str:
    """Return the name of the default loss.

    Args:
        population: output population.
        in_steps: whether the network is trained in time steps, where spike times have no gradient.

    Returns:
        "max" for a readout. For spiking neurons "count" if training or their framework is time-stepped,
        because readouts of these frameworks count spikes; else "ttfs".
    """
    _refuse_unknown(network, population)
    neurons = network.populations[population]
    if not neurons.fires:
        return "max"
    return "count" if in_steps or neurons.steps_through_time else "ttfs"


def default_engine(
    network: Network, x: Any, encoder: Encoder | str | None = None
) -> tuple[str, Text | None]:
    """Return the name of the default engine, and why it is not the event engine.

    Args:
        x: samples of the data.
        encoder: encoder of the options or of the task; None: values in time steps are used
            unchanged.

    Returns:
        "grid" for arrays (samples, time, *shape of the input), and for networks that only the
        time-stepped engine supports; else "event". If the network lacks a convention that the event
        engine needs, that engine is still the default; its error names the convention.
    """
    if encoder is None and is_in_steps(network, x):
        return "grid", Text("the data are arrays with an axis of time steps")
    static = StaticNetwork.of(network)
    problems = [item for item in unsupported(static, EVENT) if item.severity == "error"]
    if not problems or any(problem.code == "not-said" for problem in problems):
        return "event", None
    if any(problem.severity == "error" for problem in unsupported(static, GRID)):
        return "event", None
    return "grid", Text("{reason}", reason=problems[0].message)


def is_in_steps(network: Network, x: Any) -> bool:
    """Return whether samples are arrays (samples, time, *shape) for the only input of a network."""
    if hasattr(x, "time") or len(network.inputs) != 1:
        return False
    (name,) = network.inputs
    shape, axes = shape_of_input(network, name), np.shape(x)[1:]
    return axes[1:] == shape and axes[0] > 1


def default_end(
    parts: Iterable[Data], tau: float, encoder: Any = None, span: float | None = None
) -> float:
    """Return the default end of a sample: no event of the data is at or after it.

    Args:
        parts: parts of the data.
        tau: time constant of the output population in seconds.
        encoder: encoder of values as events; None: the data are events, or arrays in time steps,
            whose length is that of the sample.
        span: minimum length of a sample in units of tau; default `SAMPLE_SPAN`.

    Returns:
        The end in seconds: the span; if events occur later, 4.5 tau after the last event, rounded up
        to a multiple of tau. The default span also ends 4.5 tau after the default encoding.
    """
    end = (span or SAMPLE_SPAN) * tau
    last = max((_last_event(part.x, encoder) for part in parts), default=0.0)
    return end if last < end else float(np.ceil(last / tau + _AFTER_LAST) * tau)


def _last_event(x: Any, encoder: Any) -> float:
    """Return the time of the last event of some data, or of the last change of a current, in
    seconds; 0 where there are none.
    """
    if not hasattr(x, "time"):
        if encoder is None:
            return 0.0
        if hasattr(encoder, "last"):
            return float(encoder.last(x))
        x = encoder(np.asarray(x))
    last = 0.0
    rows = x.time if hasattr(x.time, "shape") else np.asarray(x.time)
    for first in range(0, len(rows), _AT_ONCE):
        time = np.asarray(rows[np.arange(first, min(first + _AT_ONCE, len(rows)))], float)
        last = max(last, float(time[np.isfinite(time)].max(initial=0.0)))
    return last


def make_loss(
    name: str,
    network: Network,
    t_end: float | None = None,
    *,
    options: Mapping[str, Any] | None = None,
    in_steps: bool = False,
) -> Loss:
    """Return the loss of a name for a network: times in units of tau_syn (of LI and LIF: tau) of
    the population that is read.

    Args:
        name: name in `LOSSES`, or of an entry point (`jaxsnn.train.register_loss`).
        t_end: end of a sample in seconds, which counts as the spike time of silent neurons; default
            6.5 times the time constant.
        options: further fields of the loss; `population` is the output population, if several
            populations feed outputs.
        in_steps: whether the data are arrays in time steps.

    Raises:
        UsageError: an unknown loss, or one that does not suit the population.
    """
    kind = loss_class(name)
    named = (options or {}).get("population")
    population = read_population(network) if named is None else str(named)
    refuse_unfit(network, population, kind.reads, name)
    tau = reference_tau(network, population, in_steps=in_steps)
    fires = {"fires": network.populations[population].fires} if kind.reads == "either" else {}
    end = SAMPLE_SPAN * tau if t_end is None else t_end
    loss = kind(population=population, tau=tau, t_max=end, **fires)
    return replace_fields(loss, options, "loss_options") if options else loss


def refuse_unfit(network: Network, population: str, reads: str, name: str) -> None:
    """Refuse a loss of spikes for a readout, or one of voltages for neurons that fire.

    Raises:
        UsageError: the loss does not suit the population; the advice lists losses that do.
    """
    _refuse_unknown(network, population)
    fires = network.populations[population].fires
    if reads in ("first spikes", "spikes") and not fires:
        firing = [name for name, neurons in network.populations.items() if neurons.fires]
        raise UsageError(
            Text(
                "'{population}' is not a spiking population, and loss {loss} reads spikes",
                population=population,
                loss=name,
            ),
            fix=Text(
                "pass {loss}, or use a spiking output population ({firing})",
                loss=OPTIONS["loss"].set_to("max", "mean", "integral", "exp-sum"),
                firing=listing(firing),
            ),
            node=population,
        )
    if reads == "voltages" and fires:
        raise UsageError(
            Text(
                "population '{population}' is spiking, and loss {loss} reads the voltage of a readout",
                population=population,
                loss=name,
            ),
            fix=Text(
                "pass {loss}, or {readout}",
                loss=OPTIONS["loss"].set_to("ttfs", "mse", "count", "exp-sum"),
                readout=READOUT.set_to(population),
            ),
            node=population,
        )


def _refuse_unknown(network: Network, population: str) -> None:
    if population in network.populations:
        return
    kinds = {wire.name: wire.kind for wire in network.wires}
    if kinds.get(population, "output") not in ("input", "output"):
        raise UsageError(
            Text(
                "'{node}' ({type}) is not a population of neurons, which a loss requires",
                node=population,
                type=kinds[population],
            ),
            fix="connect a population to the Output, or specify one in the loss; available: "
            f"{listing(network.populations)}",
            node=population,
        )
    raise UsageError(
        Text("'{population}' is not a population", population=population),
        fix=suggestion(population, network.populations),
        node=population,
    )


def refuse_second_encoder(encoder: Encoder | str | None, data: Data) -> None:
    """Refuse an encoder by name for data that are already events or currents."""
    if isinstance(encoder, str) and hasattr(data.x, "time"):
        message = Text(
            "{option} is {encoder!r}, and the data are already events or currents",
            option=OPTIONS["encoder"],
            encoder=encoder,
        )
        raise UsageError(message, fix="leave it out")


#: Number of time steps that stand for the time constant of neurons that have none.
_STEPS_OF_IF = 10


def reference_tau(network: Network, population: str, *, in_steps: bool = False) -> float:
    """Return the median tau_syn of a population in seconds; for neurons without a synaptic current
    their median tau. Ten time steps stand for the time constant of neurons without either, such as
    IF, if their framework is time-stepped or the data are in time steps.

    Raises:
        UsageError: the population does not exist, or has no time constant.
    """
    _refuse_unknown(network, population)
    parameters = network.parameters[population]
    name = next((name for name in ("tau_syn", "tau") if name in parameters), None)
    neurons = network.populations[population]
    if name is None and (in_steps or neurons.steps_through_time):
        step = neurons.dt if neurons.dt is not None else step_length(network, None)
        if step is not None:
            return _STEPS_OF_IF * step
    if name is None:
        raise UsageError(
            Text("population '{population}' has no time constant", population=population),
            fix=Text("pass a loss object with a tau, and {t_end}", t_end=T_END),
            node=population,
        )
    # through text, so that float32 does not leave 6.399999838322401 ms of 6.4 ms
    return float(f"{np.median(np.asarray(parameters[name])):.6g}")


def make_engine(engine: Engine | str | None, network: Network, loss: Loss) -> Engine:
    """Return the engine of a name, or the default: a population that only a first-spike loss reads
    stops after it fires.

    Raises:
        UsageError: an unknown engine, or one that needs a device.
    """
    if engine is None or engine == "event":
        alone = loss.reads == "first spikes" and not feeds_others(network, loss.population)
        stops = (loss.population,) if alone else ()
        budgets = {
            name: _FIRST_BUDGET
            for name, population in network.populations.items()
            if population.fires
        }
        return EventDriven(
            max_spikes=budgets, first_spike_only=stops, min_slope=MIN_SLOPE
        ).hashable()
    if engine == "grid":
        return TimeStepped()
    if engine == "loop":
        raise UsageError(
            "the device of the engine in the loop is not specified",
            fix="pass InTheLoop(device=...) or on_chip(graph) as the engine",
        )
    if isinstance(engine, str):
        fix = suggestion(engine, ("event", "grid"))
        raise UsageError(Text("there is no engine '{engine}'", engine=engine), fix=fix)
    engine_kind(engine)  # refuses what is not an engine
    return engine


def feeds_others(network: Network, population: str) -> bool:
    """Return whether a population feeds any node other than an Output."""
    return any(population in wire.sources and wire.kind != "output" for wire in network.wires)
