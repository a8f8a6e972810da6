"""Tuning of a network of another framework in continuous time: accuracy against spikes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

from jaxsnn.errors import UsageError
from jaxsnn.grid.time_stepped import TimeStepped
from jaxsnn.keywords import with_underscores
from jaxsnn.network.lowering.lower import lower
from jaxsnn.nir.model.graph import Graph
from jaxsnn.options import DT
from jaxsnn.simulation.neurobench import NeuroBench, OperationCounter
from jaxsnn.simulation.retry import FIRE_LESS
from jaxsnn.summary import summarised
from jaxsnn.train.data.labelled_files import with_data
from jaxsnn.train.fitting import TrainingStopped, fit_prepared, prepare
from jaxsnn.train.loop.evaluation import Measured, measure
from jaxsnn.train.loop.history import Fit
from jaxsnn.train.loop.train_plan import TrainPlan, make_plan
from jaxsnn.train.losses.regularizers import SpikeBudget
from jaxsnn.train.options import OPTIONS, TrainOptions, check_options, engine_kind
from jaxsnn.wording import Text

#: Strength of the penalty on a sample with twice the spikes of its budget.
_STRENGTH = 2.0


@dataclass(frozen=True, kw_only=True)
class TuningPoint:
    """One measured point of the tuning curve.

    Attributes:
        name: name of the point.
        budget: largest number of spikes per sample; None: no limit.
        test: results on the test samples.
        validation: results on the validation samples.
        graph: the network.
    """

    name: str
    test: Measured
    validation: Measured
    graph: Graph
    budget: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return the point as a dict for JSON."""
        return {
            "name": self.name,
            "budget": self.budget,
            "accuracy": self.test.accuracy,
            "validation_accuracy": self.validation.accuracy,
            "spikes_per_sample": self.test.spikes_per_sample,
            "spikes": self.test.spikes,
            "neurobench": None if self.test.neurobench is None else self.test.neurobench.as_dict(),
        }


@summarised
@dataclass(frozen=True, kw_only=True)
class Tuned:
    """Result of tuning.

    Attributes:
        steps: the network in the time steps of the source framework; in continuous time; then tuned,
            for each budget, or without a budget if none is specified.
        chosen: tuned point with the fewest spikes among those with at least the validation accuracy
            of the network in these time steps; if there are none, that with the highest validation accuracy.
        notes: notes for the user.
    """

    steps: tuple[TuningPoint, ...]
    chosen: TuningPoint
    notes: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return the result as a dict for JSON."""
        return {
            "schema": 1,
            "source": self.steps[0].as_dict(),
            "continuous": self.steps[1].as_dict(),
            "tuned": [step.as_dict() for step in self.steps[2:]],
            "chosen": self.chosen.name,
            "notes": list(self.notes),
        }

    def as_text(self) -> str:
        """Return the result as a table."""
        width = max(28, *(len(step.name) for step in self.steps))
        rows = [
            f"{step.name:{width}} {step.test.accuracy:8.2%} {step.test.spikes_per_sample:18.1f}"
            f" {_operations(step.test.neurobench):>21}"
            for step in self.steps
        ]
        heading = f"{'':{width}} accuracy  spikes per sample  operations per sample"
        return "\n".join([heading, *rows, f"chosen: {self.chosen.name}"])


def _operations(metrics: NeuroBench | None) -> str:
    """Return the number of effective synaptic operations per sample, for a table."""
    return "" if metrics is None else f"{metrics.operations:.1f}"


def tune(graph: Graph, options: TrainOptions, budgets: Sequence[float] = ()) -> Tuned:
    """Measure a network in the time steps of its source framework and in continuous time, train it in
    continuous time, and measure it again.

    Training for a budget starts from the network of the next larger budget. If a run fails, its best
    epoch is used, and a note says so.

    Args:
        graph: graph whose dialect has time steps.
        options: as in `fit`, with data; the engine must be the event engine.
        budgets: largest numbers of spikes per sample of all neurons; training penalises more spikes
            by `SpikeBudget`. As in the tuned file, outputs of a first-spike loss continue to fire,
            unless `engine_options` let them stop during training.

    `callbacks` of the options see the run of each budget, from epoch 0; one that returns True stops that
    run only.

    Raises:
        TrainingStopped: a callback failed; `fit` contains the best epoch of the run, and `tuned` the
            result so far, including this run.
        UsageError: an invalid budget, a source framework without time steps, or options that do not
            match the network.
    """
    for budget in budgets:
        if not 0 < budget < math.inf:
            raise UsageError(
                Text("a budget is {value:g} spikes per sample", value=budget),
                fix="pass a finite number above 0",
            )
        if [f"{number:g}" for number in budgets].count(f"{budget:g}") > 1:
            raise UsageError(
                Text("the budget of {value:g} spikes is listed twice", value=budget),
                fix="pass each budget once",
            )
    check_options(options)
    if graph.dialect.dt is None:
        raise UsageError(
            "the time step of the source framework is not specified",
            fix=Text("pass {dt}", dt=DT.keyword),
        )
    if (kind := engine_kind(options.engine)) != "event":
        fix = "leave the engine out, or pass EventDriven(...)"
        message = Text("the engine is {engine}, and tuning requires the event engine", engine=kind)
        raise UsageError(message, fix=fix)
    # These change the initial weights, or would share one checkpoint folder between runs.
    for name in ("calibrate", "synaptic_delays", "checkpoint", "resume"):
        if getattr(options, name):
            raise UsageError(
                Text(
                    "{option} is {value}, and tuning does not support it",
                    option=OPTIONS[name],
                    value=getattr(options, name),
                ),
                fix="leave it out: tuning starts from the weights of the file, without checkpoints",
            )
    options, notes = with_data(graph, options)
    # Record all spikes, unless the options specify otherwise.
    if options.engine in (None, "event"):
        fields = with_underscores(options.engine_options or {}, "engine_options")
        fields = {"first_spike_only": ()} | fields
        options = replace(options, engine="event", engine_options=fields)
    plan = make_plan(lower(graph), options)
    source = _measured(graph, plan, "in time steps of the source framework", engine=TimeStepped())
    steps = [source, _measured(graph, plan, "in continuous time")]
    current, all_notes = graph, [*notes, *plan.notes]
    for budget in sorted(budgets, reverse=True) or (None,):
        terms = () if budget is None else (SpikeBudget(most=budget, strength=_STRENGTH),)
        run_options = replace(options, regularisers=(*options.regularisers, *terms))
        name = "tuned" if budget is None else f"tuned, {budget:g} spikes per sample"
        done, stopped = _trained(current, run_options, name)
        current, all_notes = done.graph, [*all_notes, *done.notes]
        step = replace(_measured(current, plan, name), budget=budget)
        if budget is not None and step.test.spikes_per_sample > budget:
            all_notes.append(
                Text(
                    "{step}: the network fires {actual:.4g} spikes per sample, more than the budget",
                    step=name,
                    actual=step.test.spikes_per_sample,
                )
            )
        steps.append(step)
        if stopped is not None:
            break
    for step in steps:
        if step.test.neurobench is not None:
            all_notes += step.test.neurobench.notes
    chosen = _chosen(steps[2:], source.validation.accuracy)
    if chosen.validation.accuracy < source.validation.accuracy:
        all_notes.append(
            Text(
                "no tuned network reaches the validation accuracy of the original network, {expected:.2%}: the best, "
                "'{step}', has {actual:.2%}",
                expected=source.validation.accuracy,
                step=chosen.name,
                actual=chosen.validation.accuracy,
            )
        )
    tuned = Tuned(steps=tuple(steps), chosen=chosen, notes=tuple(dict.fromkeys(all_notes)))
    if stopped is not None:
        problem = stopped.problem
        fix = Text(
            "{fix}; the attribute tuned of this error has the networks so far", fix=problem.fix
        )
        raise TrainingStopped(
            problem.message, stopped.fit, fix=fix, code=problem.code, tuned=tuned
        ) from stopped.__cause__
    return tuned


def _trained(graph: Graph, options: TrainOptions, name: str) -> tuple[Fit, TrainingStopped | None]:
    """Return a run's result, and the error if a callback failed; of a run that failed, the result is its
    best epoch.
    """
    try:
        # Tuning is for continuous time, and starts from the weights of the file as they are.
        options = replace(options, skip_step_accuracy=True, neurobench=False)
        return fit_prepared(replace(prepare(graph, options), may_calibrate=False)), None
    except TrainingStopped as stopped:
        reached = stopped.fit
        note = Text(
            "'{step}' is epoch {epoch}, the best epoch of a run that failed: ",
            step=name,
            epoch=reached.best_epoch,
        )
        failed_callback = stopped.problem.code == "callback"
        note += stopped.problem.message if failed_callback else stopped.problem.text
        reached = replace(reached, notes=(*reached.notes, note))
        return reached, stopped if failed_callback else None


def _measured(graph: Graph, plan: TrainPlan, name: str, engine: Any = None) -> TuningPoint:
    """Measure a point of the curve: with all spikes of the graph, even where neurons stop after the
    first in training.
    """
    data = cast(Any, plan.options.data)
    measure_options = {"loss": plan.loss, "encoder": plan.encoder, "t_end": plan.t_end}
    runner = engine or replace(cast(Any, plan.engine), first_spike_only=False)
    counter = OperationCounter.of(graph)
    test, validation = (
        measure(
            graph, part, engine=runner, advice=FIRE_LESS, counter=part_counter, **measure_options
        )
        for part, part_counter in ((data.test, counter), (data.validation, None))
    )
    return TuningPoint(name=name, test=test, validation=validation, graph=graph)


def _chosen(tuned: Sequence[TuningPoint], least_accuracy: float) -> TuningPoint:
    """Return the point that `Tuned.chosen` describes."""
    fine = [step for step in tuned if step.validation.accuracy >= least_accuracy]
    if fine:
        return min(fine, key=lambda step: step.validation.spikes_per_sample)
    return max(
        tuned, key=lambda step: (step.validation.accuracy, -step.validation.spikes_per_sample)
    )
