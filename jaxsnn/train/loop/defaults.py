"""Defaults of training that follow from the network: the node that is read, loss, time scale, engine."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from jaxsnn.capabilities import unsupported
from jaxsnn.errors import Note, UsageError, listing, suggestion
from jaxsnn.event.capabilities import EVENT
from jaxsnn.event.event_driven import EventDriven
from jaxsnn.grid.capabilities import GRID
from jaxsnn.grid.stepped_solution import spiking_outputs
from jaxsnn.grid.time_stepped import TimeStepped
from jaxsnn.grid.timing import step_length
from jaxsnn.network.features import StaticNetwork
from jaxsnn.network.inputs import shape_of_input
from jaxsnn.network.network import Network
from jaxsnn.options import ENGINE, READOUT, T_END
from jaxsnn.simulation.solution import Engine
from jaxsnn.train.data.datasets import Data, Rows
from jaxsnn.train.data.encoders import Encoder
from jaxsnn.train.losses.losses import Loss, loss_class
from jaxsnn.train.option_values import replace_fields
from jaxsnn.train.options import OPTIONS, engine_kind
from jaxsnn.wording import Text

#: Default length of a sample, and default time after the last event, in tau_syn.
SAMPLE_SPAN, _AFTER_LAST = 6.5, 4.5
#: Maximum number of samples from the disk in memory at once.
_AT_ONCE = 4096
#: Smallest slope dV/dt that a gradient is divided by, in (v_threshold - v_reset) / tau_mem.
MIN_SLOPE = 0.04
# Initial budget of recorded spikes per neuron; a population that needs more gets more.
_FIRST_BUDGET = 4


def output_node(network: Network, classes: int | None = None) -> str:
    """Return the name of the node that a loss reads by default.

    This is the node that feeds the Output, or the Output itself if several nodes feed it. If there are
    several Outputs, it is the last, which feeds no other output. If several outputs feed no other, it is
    the smallest output with a channel for each class.

    Args:
        classes: number of classes of the data; None: unknown.

    Raises:
        UsageError: several outputs feed no other output, and the number of classes is unknown.
    """
    last = _last_outputs(network)
    if len(last) == 1:
        return last[0]
    if classes is not None:
        sizes = {wire.name: wire.size for wire in network.wires}
        return min(last, key=lambda name: (sizes[name] < classes, sizes[name]))
    raise UsageError(
        Text(
            "{count} nodes ({nodes}) feed outputs of the network, and training uses one output "
            "population",
            count=len(last),
            nodes=listing(last),
        ),
        fix=f'specify it: population = "{last[0]}" in [loss-options] of a configuration file; in '
        "Python by loss_options, or by a loss object",
    )


def output_note(network: Network, classes: int) -> Note | None:
    """Return a note on the output that a loss reads by default; None if there is only one."""
    readable = _outputs(network)
    if len(readable) == 1:
        return None
    name, last = output_node(network, classes), _last_outputs(network)
    text = Text(
        "the loss reads '{node}', {reason} (outputs: {nodes}; population in loss_options, or in "
        "[loss-options] of a configuration file, selects another)",
        node=name,
        reason=Text("the last output")
        if len(last) == 1
        else Text(
            "the smallest output with a channel for each of the {classes} classes", classes=classes
        ),
        nodes=listing(readable),
    )
    return Note(text, code="default-output")


def _outputs(network: Network) -> list[str]:
    """Return the nodes that a loss can read by default: for each Output the node that feeds it, or the
    Output itself if several nodes feed it.
    """
    outputs = network.outputs.items()
    candidates = (sources[0] if len(sources) == 1 else output for output, sources in outputs)
    return list(dict.fromkeys(candidates))


def _last_outputs(network: Network) -> list[str]:
    """Return the outputs that feed no other output, except outputs in a cycle with themselves."""
    candidates = _outputs(network)
    upstream = {name: _upstream(network, name) for name in candidates}
    return [
        name
        for name in candidates
        if not any(
            name in upstream[later] and later not in upstream[name]
            for later in candidates
            if later != name
        )
    ]


def _upstream(network: Network, name: str) -> set[str]:
    """Return the nodes whose signals reach a node, directly or through others."""
    sources = {wire.name: wire.sources for wire in network.wires}
    reached: set[str] = set()
    pending = [name]
    while pending:
        new = set(sources.get(pending.pop(), ())) - reached
        reached |= new
        pending += new
    return reached


def sends_spikes(network: Network, name: str) -> bool:
    """Return whether a node that a loss reads sends spikes: a population that fires, or an Output
    that only such populations feed.
    """
    if name in network.populations:
        return network.populations[name].fires
    return name in spiking_outputs(network)


def default_loss(network: Network, name: str, *, in_steps: bool) -> str:
    """Return the name of the default loss.

    Args:
        name: node that the loss reads.
        in_steps: whether the network is trained in time steps, where spike times have no gradient.

    Returns:
        "max" for the membranes of a readout, "mean" for the values of other nodes. For spiking neurons
        "count" if training or their framework is time-stepped, because readouts of these frameworks
        count spikes; else "ttfs".

    Raises:
        UsageError: a loss cannot read the node.
    """
    refuse_unreadable(network, name, in_steps=in_steps)
    if not sends_spikes(network, name):
        return "max" if name in network.populations else "mean"
    in_steps = in_steps or network.populations[name].steps_through_time
    return "count" if in_steps else "ttfs"


def default_engine(
    network: Network, x: Any, encoder: Encoder | str | None = None, *, loss_node: str
) -> tuple[str, Text | None]:
    """Return the name of the default engine, and why it is not the event engine.

    Args:
        x: samples of the data.
        encoder: encoder of the options or of the task; None: values in time steps are used
            unchanged.
        loss_node: node that the loss reads.

    Returns:
        "grid" for arrays (samples, time, *shape of the input), for networks that only the
        time-stepped engine supports, and for outputs that only this engine records; else "event". If
        the network lacks a convention that the event engine needs, that engine is still the default;
        its error names the convention.
    """
    if encoder is None and is_in_steps(network, x):
        return "grid", Text("the data are arrays with an axis of time steps")
    static = StaticNetwork.of(network)
    problems = [item for item in unsupported(static, EVENT) if item.severity == "error"]
    if any(problem.code == "not-said" for problem in problems):
        return "event", None
    if any(problem.severity == "error" for problem in unsupported(static, GRID)):
        return "event", None
    if problems:
        return "grid", Text("{reason}", reason=problems[0].message)
    if loss_node not in network.populations and is_recorded_in_steps(network, loss_node):
        return "grid", Text(
            "the loss reads '{node}' ({type}), and the event engine records only populations",
            node=loss_node,
            type=_types(network)[loss_node],
        )
    return "event", None


def is_in_steps(network: Network, x: Any) -> bool:
    """Return whether samples are arrays (samples, time, *shape) for the only input of a network."""
    if hasattr(x, "time") or len(network.inputs) != 1:
        return False
    (name,) = network.inputs
    shape, axes = shape_of_input(network, name), np.shape(x)[1:]
    return axes[1:] == shape and axes[0] > 1


def are_signals(network: Network, x: Any) -> bool:
    """Return whether samples are arrays with an axis of time. Arrays in the shape of the only input have
    none; for all other arrays with more than two axes it is the second axis.
    """
    if hasattr(x, "time") or np.ndim(x) <= 2:
        return False
    shapes = [shape_of_input(network, name) for name in network.inputs]
    return shapes != [np.shape(x)[1:]]


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
    if isinstance(x.time, Rows) and x.time.stored is not None:
        return float(x.time.stored.last[x.time.index].max(initial=0.0))
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
    population: str | None = None,
    options: Mapping[str, Any] | None = None,
    in_steps: bool = False,
    rasters: bool = False,
) -> Loss:
    """Return the loss of a name for a network: times in units of tau_syn (of LI and LIF: tau) of
    the population that is read.

    Args:
        name: name in `LOSSES`, or of an entry point (`jaxsnn.train.register_loss`).
        t_end: end of a sample in seconds, which counts as the spike time of silent neurons; default
            6.5 times the time constant.
        population: node that the loss reads; None: the default.
        options: further fields of the loss.
        in_steps: whether the network is trained in time steps.
        rasters: whether the data are arrays in time steps.

    Raises:
        UsageError: an unknown loss, or one that does not suit the population.
    """
    kind = loss_class(name)
    population = output_node(network) if population is None else population
    refuse_unfit(network, population, kind.reads, name, in_steps=in_steps)
    tau = reference_tau(network, population, in_steps=rasters)
    fires = {"fires": sends_spikes(network, population)} if kind.reads == "either" else {}
    end = SAMPLE_SPAN * tau if t_end is None else t_end
    loss = kind(population=population, tau=tau, t_max=end, **fires)
    return replace_fields(loss, options, "loss_options") if options else loss


def refuse_unfit(
    network: Network, population: str, reads: str, name: str, *, in_steps: bool = False
) -> None:
    """Refuse a loss of spikes for a readout or for values, or one of voltages for neurons that fire.

    Raises:
        UsageError: the loss does not suit the population; the advice lists losses that do.
    """
    refuse_unreadable(network, population, in_steps=in_steps)
    fires = sends_spikes(network, population)
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


def is_recorded_in_steps(network: Network, name: str) -> bool:
    """Return whether the time-stepped engine records a node: a population, an Output, or a node that
    alone feeds an Output.
    """
    outputs = network.outputs
    return name in network.populations or name in outputs or (name,) in outputs.values()


def refuse_unreadable(network: Network, name: str, *, in_steps: bool = False) -> None:
    """Refuse a node that a loss cannot read.

    Args:
        in_steps: whether the network runs in time steps, where a loss can also read nodes that are not
            populations.

    Raises:
        UsageError: the node does not exist, or is not recorded.
    """
    if name in network.populations or (in_steps and is_recorded_in_steps(network, name)):
        return
    types = _types(network)
    if types.get(name, "Input") == "Input":
        raise UsageError(
            Text("'{population}' is not a population", population=name),
            fix=suggestion(name, network.populations),
            node=name,
        )
    engine_advice = Text("pass {engine}, ", engine=ENGINE.set_to("grid"))
    raise UsageError(
        Text(
            "'{node}' ({type}) is not a population of neurons, which a loss requires",
            node=name,
            type=types[name],
        ),
        fix=Text(
            "{engine_advice}connect a population to the Output, or specify one in the loss; available: "
            "{populations}",
            populations=listing(network.populations),
            engine_advice=engine_advice if is_recorded_in_steps(network, name) else Text(""),
        ),
        node=name,
    )


def _types(network: Network) -> dict[str, str]:
    """Return the NIR type of each node; that of neurons is their model."""
    kinds = {wire.name: wire.kind for wire in network.wires}
    kinds |= {name: population.kind for name, population in network.populations.items()}
    return {
        name: kind.capitalize() if kind in ("input", "output") else kind
        for name, kind in kinds.items()
    }


def refuse_second_encoder(encoder: Encoder | str | None, data: Data) -> None:
    """Refuse an encoder by name for data that are already events or currents."""
    if isinstance(encoder, str) and hasattr(data.x, "time"):
        message = Text(
            "{option} is {encoder!r}, and the data are already events or currents",
            option=OPTIONS["encoder"],
            encoder=encoder,
        )
        raise UsageError(message, fix="leave it out")


#: Number of time steps that replaces the time constant of neurons without one.
_STEPS_OF_IF = 10


def time_constant(network: Network, name: str) -> float | None:
    """Return the median time constant of a population in seconds; None if it has none.

    This is tau_syn, or tau of neurons without a synaptic current. For other nodes it is the median of the
    nearest populations that feed them.
    """
    taus = [
        np.ravel(np.asarray(parameters[key]))
        for population in _nearest_populations(network, name)
        for parameters in [network.parameters[population]]
        for key in ("tau_syn", "tau")
        if key in parameters and not (key == "tau" and "tau_syn" in parameters)
    ]
    if not taus:
        return None
    # Format and parse, so that float32 does not turn 6.4 ms into 6.399999838322401 ms.
    return float(f"{np.median(np.concatenate(taus)):.6g}")


def _nearest_populations(network: Network, name: str) -> list[str]:
    """Return the nearest populations that feed a node, directly or through nodes without neurons, in the
    order of the network; for a population, only this population.
    """
    sources = {wire.name: wire.sources for wire in network.wires}
    reached, pending = {name}, [name]
    while pending:
        node = pending.pop()
        if node not in network.populations:
            new = set(sources.get(node, ())) - reached
            reached |= new
            pending += new
    return [population for population in network.populations if population in reached]


def reference_tau(network: Network, name: str, *, in_steps: bool = False) -> float:
    """Return the unit of time of a loss in seconds: the time constant of the node that it reads.

    Neurons without a time constant, such as IF, have a unit of ten time steps, if their framework is
    time-stepped or the data are in time steps.

    Args:
        name: node that the loss reads.
        in_steps: whether the data are in time steps.

    Raises:
        UsageError: the node does not exist, or has no time constant.
    """
    refuse_unreadable(network, name, in_steps=True)
    tau = time_constant(network, name)
    if tau is not None:
        return tau
    nearest = [
        network.populations[population] for population in _nearest_populations(network, name)
    ]
    if in_steps or any(neurons.steps_through_time for neurons in nearest):
        steps = (neurons.dt for neurons in nearest if neurons.dt is not None)
        step = next(steps, None) or step_length(network, None)
        if step is not None:
            return _STEPS_OF_IF * step
    raise UsageError(
        Text("node '{population}' has no time constant", population=name),
        fix=Text("pass a loss object with a tau, and {t_end}", t_end=T_END),
        node=name,
    )


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
    engine_kind(engine)  # raises an error for anything else than an engine
    return engine


def feeds_others(network: Network, population: str) -> bool:
    """Return whether a population feeds any node other than an Output."""
    return any(population in wire.sources and wire.kind != "output" for wire in network.wires)
