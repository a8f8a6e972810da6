"""`fit`: train a Graph, get a trained Graph."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Unpack

import numpy as np

from jaxsnn.bss2.emulate import ChipInTheLoop
from jaxsnn.errors import JaxsnnError, Note, UsageError, shown, warn_of
from jaxsnn.event.event_driven import EventDriven
from jaxsnn.network.lowering.lower import lower
from jaxsnn.network.network import Network, with_synaptic_delays
from jaxsnn.network.promotion import usual_promotion
from jaxsnn.nir.model.graph import Graph, refuse_no_graph
from jaxsnn.options import ENGINE
from jaxsnn.train.data.batches import first_pieces
from jaxsnn.train.data.datasets import Data, Splits
from jaxsnn.train.data.labelled_files import with_data
from jaxsnn.train.fit_keywords import FitKeywords
from jaxsnn.train.loop.chip_training import late_input_notes, on_emulated_chip, saturated_notes
from jaxsnn.train.loop.constraints import as_constraints
from jaxsnn.train.loop.defaults import default_engine
from jaxsnn.train.loop.evaluation import calibrated
from jaxsnn.train.loop.history import Fit, TrainingStopped
from jaxsnn.train.loop.in_the_loop import InTheLoop
from jaxsnn.train.loop.parallel import join, make_devices
from jaxsnn.train.loop.train_plan import are_rasters, loss_notes, loss_of, make_plan, node_of_loss
from jaxsnn.train.loop.training_run import TrainingRun
from jaxsnn.train.options import OPTIONS, TrainOptions, check_options, options_with
from jaxsnn.units import parse_time
from jaxsnn.wording import Text

__all__ = ["TrainingStopped", "fit"]


def fit(
    graph: Graph,
    data: Splits | Data | tuple[Any, Any] | str | None = None,
    *,
    options: TrainOptions | None = None,
    **fields: Unpack[FitKeywords],
) -> Fit:
    """Train a graph, and return it with the parameters of the epoch with the highest validation
    accuracy.

    On the event engine gradients are exact. Hidden neurons have their full dynamics, so that the
    trained graph behaves the same in every simulator; a population that only a first-spike loss
    reads, and that feeds nothing else, stops after its first spike to save time. The same arguments
    give the same result, bit for bit, also if a run is killed and resumed.

    Without `t_end` a sample lasts until all events of the data have arrived. The weights of a
    time-stepped framework are also evaluated in its time steps (`Fit.accuracy_in_steps`). Notes on
    everything that was dropped, truncated, approximated or assumed are in `notes`, and are issued as an
    `ApproximationWarning`.

    Args:
        graph: graph with its dialect.
        data: `Splits`, such as `jaxsnn.train.yinyang_splits()`; or (x, y), values from 0 to 1
            (samples, ...) or Events (samples, events), and labels (samples,), of which a fifth is
            held out for the test and a fifth of the rest for validation, at random
            (`jaxsnn.train.splits_of_arrays` with other fractions); or an argument of
            `jaxsnn train --data`.
        options: record of options.
        fields: single options by name, `epochs=20, learning_rate=0.05`; they override those of
            `options`. `TrainOptions` has the list.

    Raises:
        UsageError: options or data that do not match the network, or a checkpoint of another run.
        TrainingStopped: the run failed; its `fit` contains the best epoch so far.
        SimulationError: neurons that exceed any spike budget, or another process that ended.

    >>> from jaxsnn.nir import build
    >>> from jaxsnn.nir.initializers import normal
    >>> from jaxsnn.train import yinyang_splits
    >>> hidden, output = (build.cubalif(tau_mem="20ms", tau_syn="10ms") for _ in range(2))
    >>> first = build.linear(20, weight=normal(1.0, 0.6))
    >>> second = build.linear(3, weight=normal(0.3, 0.3))
    >>> graph = build.sequential(build.input(5), first, hidden, second, output, seed=0)
    >>> data = yinyang_splits(sizes=(256, 128, 128))
    >>> trained = fit(graph, data, epochs=10, learning_rate=0.05, progress=None)
    >>> trained.test_accuracy > 0.5
    True
    """
    refuse_no_graph(graph)
    chosen = options_with(options, fields)
    if data is not None:
        chosen = replace(chosen, data=data)
    trained = fit_prepared(prepare(graph, chosen))
    warn_of(trained.notes)
    return trained


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """Graph and options of a training run.

    Attributes:
        graph: graph with the initial weights, which are calibrated if requested.
        options: options with `Splits` as data, and an emulated chip as engine for "loop".
        notes: notes on default choices.
        may_calibrate: whether advice may suggest to calibrate the initial weights.
    """

    graph: Graph
    options: TrainOptions
    notes: tuple[str, ...]
    may_calibrate: bool = True


def prepare(graph: Graph, options: TrainOptions) -> Prepared:
    """Prepare a run before the network is built: first the data, then the initial weights, then the
    chip, whose scales depend on these weights. Errors as in `fit`.
    """
    check_options(options)
    for name, option in OPTIONS.items():
        if option.command_only and getattr(options, name) is not None:
            raise UsageError(
                Text("{option} is supported on the command line only", option=name),
                fix="plot with jaxsnn.plot.learning_curve",
            )
    join(options)
    make_devices(options)
    chosen, notes = with_data(graph, options)
    if chosen.coordinator is not None and chosen.processes == 1:
        notes = (
            *notes,
            Text(
                "{coordinator} has no effect, because the number of processes is 1: pass {processes} to train "
                "with other processes",
                coordinator=OPTIONS["coordinator"],
                processes=OPTIONS["processes"].set_to("N"),
            ),
        )
    if chosen.engine is None:
        chosen, more = _with_engine(graph, chosen)
        notes = (*notes, *more)
    if chosen.calibrate is not None:
        graph, more = _calibrated(graph, chosen)
        notes = (*notes, *more)
    if chosen.engine == "loop":
        notes = (*notes, *loss_notes(lower(graph), chosen))
        chosen = on_emulated_chip(graph, chosen)
    # Calibration runs the event engine, which does not accept arrays in time steps.
    may_calibrate = (
        options.calibrate is None
        and not _has_chip(options)
        and not are_rasters(_network(graph, chosen), chosen)
    )
    return Prepared(graph=graph, options=chosen, notes=notes, may_calibrate=may_calibrate)


@usual_promotion
def fit_prepared(prepared: Prepared) -> Fit:
    """Train a prepared graph. Returns and errors as in `fit`."""
    graph, chosen = prepared.graph, prepared.options
    if chosen.resume and chosen.checkpoint is None:
        raise UsageError(
            "the checkpoint to resume from is not specified",
            fix=Text("pass {checkpoint}", checkpoint=OPTIONS["checkpoint"].keyword),
        )
    network = _network(graph, chosen)
    plan = make_plan(network, chosen)
    plan = replace(plan, notes=(*prepared.notes, *plan.notes))
    run = TrainingRun(
        graph,
        network,
        plan,
        chosen.progress or (lambda line: None),
        may_calibrate=prepared.may_calibrate,
    )
    run.notes += late_input_notes(plan.engine, network, first_pieces(run.splits), plan.t_end)

    def noted(done: Fit) -> Fit:
        return replace(done, notes=(*done.notes, *saturated_notes(plan.engine, done.graph)))

    try:
        done = run.all()
    except TrainingStopped as stopped:
        stopped.fit = noted(stopped.fit)
        raise
    if chosen.neurobench:
        try:
            metrics = run.neurobench(done)
        except JaxsnnError as error:  # the trained network is not lost
            text = Text("the metrics of NeuroBench could not be computed: {reason}", reason=error)
            done = replace(done, notes=(*done.notes, Note(text, code="no-metrics")))
        else:
            done = replace(done, neurobench=metrics, notes=(*done.notes, *metrics.notes))
    return noted(done)


def _has_chip(options: TrainOptions) -> bool:
    """Return whether the engine is a chip with scales that depend on the initial weights."""
    engine = options.engine
    return isinstance(engine, InTheLoop) and isinstance(engine.device, ChipInTheLoop)


def _with_engine(graph: Graph, options: TrainOptions) -> tuple[TrainOptions, tuple[str, ...]]:
    """Return the options with the default engine, and a note if that is the time-stepped engine.

    Raises:
        UsageError: an option is for another engine.
    """
    splits: Any = options.data
    encoder = options.encoder or splits.encoder
    network = _network(graph, options)
    loss_node = node_of_loss(network, options)
    name, reason = default_engine(network, splits.train.x, encoder, loss_node=loss_node)
    options = replace(options, engine=name)
    check_options(options)
    if reason is None:
        return options, ()
    text = Text(
        "the time-stepped engine trains the network: {reason} ({engine} selects another)",
        reason=reason,
        engine=ENGINE.keyword,
    )
    return options, (Note(text, code="default-engine"),)


def _calibrated(graph: Graph, options: TrainOptions) -> tuple[Graph, tuple[str, ...]]:
    """Return the graph with weights for which a fraction of the neurons fires, and notes on it."""
    settings: Any = options
    if _has_chip(options):
        raise UsageError(
            Text(
                "{option} is {calibrate:g}, which changes the weights, and the chip of the engine was made "
                "for the former weights",
                option=OPTIONS["calibrate"],
                calibrate=settings.calibrate,
            ),
            fix=Text(
                "pass {engine}, or on_chip(...) of the graph that jaxsnn.train.calibrated returns",
                engine=ENGINE.set_to("loop"),
            ),
        )
    engine, network = None, _network(graph, options)
    loss = loss_of(network, options)
    end = loss.t_max if settings.t_end is None else settings.t_end
    if options.engine != "loop":
        planned_engine = make_plan(network, options).engine
        engine = planned_engine if isinstance(planned_engine, EventDriven) else None
    changed = calibrated(
        graph,
        settings.data,
        fraction=settings.calibrate,
        encoder=settings.encoder,
        encoder_options=settings.encoder_options,
        t_end=end,
        engine=engine,
        population=loss.population,
    )
    notes = []
    if engine is None:
        notes.append(
            "the calibration simulated the network in continuous time, but another engine trains it"
        )
    if options.synaptic_delays:
        notes.append(
            "the calibration simulated the network without synaptic_delays, but it is trained with delays"
        )
    return changed, tuple(notes)


def _network(graph: Graph, options: TrainOptions) -> Network:
    """Return the network to train, with the time constants and delays that training needs."""
    trainable = as_constraints(options.trainable)
    frees = any(name.rpartition(".")[2].startswith("tau") for name in trainable)
    network = lower(graph, free_time_constants=frees)
    for node, delay in (options.synaptic_delays or {}).items():
        delays = _delays_in_seconds(node, delay)
        # One number for each synapse, so that they are trained separately.
        if delays.ndim == 0:
            weight = network.parameters.get(node, {}).get("weight", 0.0)
            delays = np.full(np.shape(weight), delays)
        network = with_synaptic_delays(network, node, delays)
    network = network.with_fixed_gains()  # `trainable` cannot name NIR's gains
    return network if frees else network.with_lasting_time_constants()


def _delays_in_seconds(node: str, delay: Any) -> np.ndarray:
    """Return delays as numbers.

    Raises:
        UsageError: the delays are not numbers, or negative.
    """
    wrong: Any = delay
    try:
        seconds = np.asarray(parse_time(delay) if isinstance(delay, str) else delay, float)
        broken = ~(np.isfinite(seconds) & (seconds >= 0))
        is_truth = any(isinstance(entry, bool) for entry in np.asarray(delay, object).flat)
        if not broken.any() and not is_truth:
            return seconds
        wrong = seconds[broken][0] if broken.any() else delay
    except (TypeError, ValueError, OverflowError):
        pass
    raise UsageError(
        Text("node '{node}': delay is {value}", node=node, value=shown(wrong)),
        fix="pass seconds, or a time such as 2ms, of at least 0",
        node=node,
    )
