"""One training run from epoch to epoch: which epoch is the best, when to go back or stop, what to
save. `passes` runs the programs.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np

from jaxsnn.errors import (
    Note,
    Problem,
    SimulationError,
    UsageError,
    first_line,
    listing,
    shown,
)
from jaxsnn.event.event_options import BUDGETS, EventOptions
from jaxsnn.network.bad_numbers import bad_number
from jaxsnn.network.lowering.lower import update_graph
from jaxsnn.network.network import Network
from jaxsnn.network.results import Result
from jaxsnn.nir.graphs.export import tagged
from jaxsnn.nir.initializers import seed_words
from jaxsnn.nir.model.graph import Graph
from jaxsnn.options import TRAINABLE
from jaxsnn.simulation.neurobench import NeuroBench, OperationCounter
from jaxsnn.simulation.retry import FIRE_LESS, TooManySpikes
from jaxsnn.train.data.batches import (
    Batch,
    Streamed,
    encoded,
    even_batch_size,
    first_pieces,
    identities,
    late_sample_notes,
    split_of,
)
from jaxsnn.train.data.datasets import Splits
from jaxsnn.train.loop.callbacks import EpochReport
from jaxsnn.train.loop.checkpoint import Checkpoint, Folder, fingerprint
from jaxsnn.train.loop.constraints import (
    constant_nodes,
    find_trainables,
    raw_is_particular,
    to_raw,
    to_values,
    with_trained,
)
from jaxsnn.train.loop.epoch import (
    Setup,
    Summary,
    TrainState,
    begin,
    of_one_run,
)
from jaxsnn.train.loop.evaluation import (
    duration_text,
    measure_batches,
    time_notes,
    with_all_output_spikes,
)
from jaxsnn.train.loop.history import (
    EpochRecord,
    Fit,
    TrainingStopped,
    ending_notes,
    epoch_record,
    mean,
    merit,
    progress_line,
    type_name,
)
from jaxsnn.train.loop.in_the_loop import device_errors
from jaxsnn.train.loop.optimisers import (
    learning_rates,
    optimiser_identity,
    optimiser_notes,
    optimiser_of,
    refuse_decay,
    step_scales,
)
from jaxsnn.train.loop.parallel import is_first, make_mesh, on_all, on_host
from jaxsnn.train.loop.passes import Passes
from jaxsnn.train.loop.step_accuracy import compare_in_steps
from jaxsnn.train.loop.train_plan import TrainPlan
from jaxsnn.train.losses.regularizers import (
    Noise,
    SpikeBudget,
    channels_of,
    feeding_weights,
    noise_notes,
)
from jaxsnn.train.options import OPTIONS
from jaxsnn.wording import Text

# Number of steps for which all outputs may be silent, or the error rate high, before the run fails:
# weight bumping takes a while.
_FAILING_STEPS = 200
#: Advice for a network that does not fire, if its weights were not calibrated.
_CALIBRATION = Text(", for example with {calibrate}", calibrate=OPTIONS["calibrate"].set_to(0.5))
# Fraction of the best validation accuracy below which a run has collapsed.
_COLLAPSED = 0.6
# Number of samples whose synaptic operations are counted at once.
_OPERATIONS_BATCH = 256
# Fraction of test samples without an output spike above which a note reports them.
_NOTED_SILENT = 0.05
# Factor of the step size after each failure, and maximum number of failures.
_SMALLER, _MOST_FAILURES = 1 / 3, 3
#: Norm of a gradient, in loss per step of 1, that counts as exploding: no loss changes by 10 within
#: a millionth of a kick.
EXPLODES = 1e7


class TrainingRun:
    """State of one training run, and the decisions between its epochs."""

    def __init__(
        self,
        graph: Graph,
        network: Network,
        plan: TrainPlan,
        say: Callable[[str], None],
        *,
        may_calibrate: bool = True,
    ):
        self.graph, self.may_calibrate = graph, may_calibrate
        self.network, self.plan = network, plan
        options = self.options = plan.options
        data = cast(Splits, options.data)
        self.say = say if is_first() else lambda line: None
        split_names = ("train", "validation", "test")
        encoding = {
            "population": plan.loss.population,
            "encoder": plan.encoder,
            "engine": plan.engine,
        }
        self.splits: dict[str, Batch | Streamed] = {}
        channels = sum(network.inputs.values())
        for name in split_names:
            encode = partial(encoded, network=network, data_name=f"{data.name}, {name}", **encoding)
            self.splits[name] = split_of(getattr(data, name), encode, options.stream, channels)
        trainable = cast(Any, options.trainable)
        constant = constant_nodes(graph)
        trained, trained_notes = find_trainables(
            network, trainable, longest_delay=plan.loss.tau, constant_nodes=constant
        )
        if untrained := [name for name in constant if name not in dict(trained)]:
            text = Text(
                "the weights of {nodes} are not trained, because they are not weights of a layer of the "
                "PyTorch module (to train them, name them in {trainable}, as NODE.weight)",
                nodes=listing(f"'{name}'" for name in untrained),
                trainable=TRAINABLE.keyword,
            )
            trained_notes = (*trained_notes, Note(text, code="fixed-weights"))
        raw = to_raw(network, trained)
        refuse_decay(options.optimiser, options.weight_decay, raw, network)
        mesh = make_mesh(options.devices)
        self.scales = on_all(step_scales(network, trained, plan.t_end), mesh)
        self.network = on_all(self.network, mesh)
        self.time_notes = [
            *late_sample_notes(self.splits, plan.t_end),
            *time_notes(network, first_pieces(self.splits), plan.t_end),
        ]
        in_memory = {name: batch for name, batch in self.splits.items() if isinstance(batch, Batch)}
        self.splits |= on_all(in_memory, mesh)
        noise = cast(Noise | None, options.noise)
        self.notes = [*plan.notes, *self.time_notes, *trained_notes, *noise_notes(network, noise)]
        self.batch_size, size_notes = even_batch_size(
            options.batch_size, len(data.train), 1 if mesh is None else mesh.size
        )
        self.notes += size_notes
        batches = len(data.train) // self.batch_size
        self.rates = learning_rates(
            options.schedule, options.learning_rate, options.epochs, batches
        )
        setup = Setup(
            loss=plan.loss,
            engine=plan.engine.prepared(),
            t_end=plan.t_end,
            trained=trained,
            feeding=feeding_weights(network),
            channels=channels_of(network),
            optimiser=cast(Any, optimiser_of(options.optimiser, options.weight_decay)),
            complete=not isinstance(options.optimiser, str),
            options=options.compiled_only(),
            mesh=mesh,
            run_identity=of_one_run(
                plan.loss, options.regularisers, options.augment, options.noise
            ),
        )
        self.passes = Passes(
            setup,
            self.network,
            self.splits,
            self.scales,
            batch_size=self.batch_size,
            epochs=options.epochs,
            say=self.say,
        )
        self.notes += optimiser_notes(options.optimiser, raw)
        self.state = on_all(begin(setup, raw, self.scales), mesh)
        self.history: list[EpochRecord] = []
        self.seconds: list[float] = []
        self.best: tuple[EpochRecord, TrainState] | None = None
        self.factor, self.failures, self.failing_epochs = 1.0, 0, 0
        self.went_back: list[str] = []
        self.folder: Folder | None = None

    def all(self) -> Fit:
        """Run from the beginning, or the checkpoint, to the end."""
        options = self.options
        if options.checkpoint is None:
            with device_errors():
                return self._epochs()
        self.folder = Folder(
            options.checkpoint,
            self.plan.as_dict(),
            self._fingerprint(self.rates),
            alone=is_first(),
        )
        try:
            checkpoint = self.folder.begin(
                resume=options.resume,
                state=self.state,
                overwrite=options.overwrite,
                extend=self._extended,
            )
            if checkpoint is not None:
                self._restore(checkpoint)
            with device_errors():
                return self._epochs()
        finally:
            self.folder.close()

    def _fingerprint(self, rates: np.ndarray) -> str:
        """Return a hash of the data and parameters of a run that its settings do not contain.

        Args:
            rates: learning rate of each step, (epochs, batches).
        """
        # The settings do not determine the meaning of these raw numbers.
        particular = raw_is_particular(self.network, self.passes.setup.trained)
        raw = on_host(self.state.raw, self.passes.setup.mesh)
        parts = list(optimiser_identity(self.options.optimiser, raw))
        parts += [rates] if callable(self.options.schedule) else []
        parts += (
            [np.frombuffer(repr(self.passes.setup.trained).encode(), np.uint8)]
            if particular
            else []
        )
        return fingerprint(identities(self.splits), self.network.parameters, parts)

    def _extended(self, path: Path, epochs: int, done: int) -> str:
        """Return the fingerprint that this run would have with another number of epochs.

        Args:
            path: path of the checkpoint of such a run.
            epochs: number of epochs of that run.
            done: number of its completed epochs.

        Raises:
            UsageError: this run has fewer epochs than are completed, or other learning rates in these.
        """
        schedule, now = self.options.schedule, self.options.epochs
        if now < done:
            raise UsageError(
                Text(
                    "{path} belongs to a run with epochs = {expected}, of which {done} are completed, and this "
                    "run has epochs = {actual}",
                    path=path,
                    expected=epochs,
                    actual=now,
                    done=done,
                ),
                fix=Text(
                    "pass {epochs} or more, or choose another folder",
                    epochs=OPTIONS["epochs"].set_to(done),
                ),
            )
        rates = learning_rates(schedule, self.options.learning_rate, epochs, self.rates.shape[1])
        if isinstance(schedule, str) and not np.array_equal(rates[:done], self.rates[:done]):
            raise UsageError(
                Text(
                    "{path} belongs to a run with epochs = {expected}, this run has epochs = {actual}, and the "
                    "learning rates of schedule '{schedule}' depend on that number",
                    path=path,
                    expected=epochs,
                    actual=now,
                    schedule=schedule,
                ),
                fix=Text(
                    "pass {option}, or start a run of {now} epochs in another folder (runs with {schedule} can "
                    "be extended)",
                    option=OPTIONS["epochs"].set_to(epochs),
                    now=now,
                    schedule=OPTIONS["schedule"].set_to("constant"),
                ),
            )
        if self.passes.is_short(epochs) != self.passes.short:
            self.notes.append(
                Text(
                    "the first {done} epochs are those of a run of {expected} epochs, whose programs were "
                    "compiled with other optimisations: the last digits of results may differ from "
                    "those of an uninterrupted run of {actual} epochs",
                    done=done,
                    expected=epochs,
                    actual=now,
                )
            )
        return self._fingerprint(rates)

    def _epochs(self) -> Fit:
        """Train the remaining epochs, and return the result."""
        stops = False
        if not self.history:
            try:
                report = self._before_training()
            except Exception:
                if self.folder is not None:
                    self.folder.tidy()
                raise
            stops = self._callbacks_stop(report)
        for epoch in range(len(self.history), self.options.epochs + 1):
            if stops:
                break
            assert self.best is not None
            waited, patience = epoch - 1 - self.best[0].epoch, self.options.patience
            if patience is not None and waited >= patience:
                self.notes.append(
                    Text(
                        "training stopped after epoch {epoch} (epochs without a better validation result: "
                        "{count})",
                        epoch=epoch - 1,
                        count=waited,
                    )
                )
                break
            stops = self._callbacks_stop(self._train_epoch(epoch))
        return self.result()

    def _callbacks_stop(self, report: EpochReport) -> bool:
        """Call all callbacks, and return whether one of them stops the run.

        Raises:
            TrainingStopped: a callback failed, or returned neither None nor a boolean.
        """
        stopping = []
        for callback in self.options.callbacks:
            name = type_name(callback)
            try:
                returned = callback(report)
            except Exception as error:
                raise TrainingStopped(
                    Text(
                        "the callback '{callback}' failed after epoch {epoch} ({error})",
                        callback=name,
                        epoch=report.epoch,
                        error=f"{type(error).__name__}: {first_line(error)}",
                    ),
                    self.result(),
                    fix="correct the callback; the attribute fit of this error has the best epoch so far",
                    code="callback",
                ) from error
            if not (returned is None or isinstance(returned, bool | np.bool_)):
                raise TrainingStopped(
                    Text(
                        "the callback '{callback}' returned {value} after epoch {epoch}",
                        callback=name,
                        value=shown(returned),
                        epoch=report.epoch,
                    ),
                    self.result(),
                    fix="return None, or True to stop the run",
                    code="callback",
                )
            if returned:
                stopping.append(f"'{name}'")
        if stopping:
            self.notes.append(
                Text(
                    "training stopped after epoch {epoch}, as requested by {callbacks}",
                    epoch=report.epoch,
                    callbacks=listing(stopping),
                )
            )
        return bool(stopping)

    def _before_training(self) -> EpochReport:
        """Evaluate the weights before training: entry 0 of the history."""
        start = time.perf_counter()
        train, validation = self._evaluate("train"), self._evaluate("validation", loud=True)
        if Result.NOT_FINITE in (int(train.result), int(validation.result)):
            problem = self._bad_number(self.state)
            if problem is not None:
                fix = problem.fix
            else:
                fix = Text(
                    "check the unit of the times ({duration}), and the inputs and weights for invalid values",
                    duration=duration_text(self.network, self.plan.t_end),
                )
            raise SimulationError(
                Text(
                    "a loss or a spike time is NaN before training{cause}",
                    cause=_in_brackets(problem),
                ),
                fix=fix,
                node="" if problem is None else problem.node,
            )
        report = self._record(0, train, validation, time.perf_counter() - start)
        self._save()
        return report

    def _train_epoch(self, epoch: int) -> EpochReport:
        """Train one epoch; after a failure resume from the best epoch, with smaller steps."""
        start = time.perf_counter()
        while True:
            before, hint = self.state, ""
            try:
                self.state, train = self.passes.train(
                    self.state,
                    self.rates[epoch - 1],
                    self.factor,
                    (*seed_words(self.options.seed), epoch),
                    self.plan.weight_bumping,
                )
                norm = float(train.gradient)
                if int(train.result) == Result.NOT_FINITE:
                    cause = _in_brackets(self._bad_number(self.state))
                    failure = Text(
                        "a loss or a spike time is NaN in epoch {epoch}{cause}",
                        epoch=epoch,
                        cause=cause,
                    )
                elif not norm <= EXPLODES:
                    failure = Text(
                        "the gradient explodes in epoch {epoch}: its norm {value:.3g} exceeds "
                        "{limit:.0e}",
                        epoch=epoch,
                        value=norm,
                        limit=EXPLODES,
                    )
                else:
                    validation = self._evaluate("validation", loud=True)
                    if int(validation.result) != Result.NOT_FINITE:
                        break
                    cause = _in_brackets(self._bad_number(self.state))
                    failure = Text(
                        "a loss or a spike time is NaN after epoch {epoch}{cause}",
                        epoch=epoch,
                        cause=cause,
                    )
            except TooManySpikes as error:
                failure, hint = (
                    Text("in epoch {epoch}: ", epoch=epoch) + error.problem.message,
                    error.fix,
                )
            self.state = before
            self._back_or_stop(failure, hint)
        report = self._record(epoch, train, validation, time.perf_counter() - start)
        # Before saving, so that a resumed run continues the count of failing epochs.
        self._check_collapse(epoch, train, validation)
        self._save()
        return report

    def _evaluate(self, split: str, *, loud: bool = False) -> Summary:
        return self.passes.evaluate(self.splits[split], self.state.best, loud=loud)

    def _bad_number(self, state: TrainState) -> Problem | None:
        """Return the problem of the first parameter of a state that is not a valid number."""
        trained = with_trained(self.network, self.passes.setup.trained, state.raw)
        return bad_number(trained, finite=self.passes.setup.engine.exact)

    def _back_or_stop(self, failure: str, hint: str = "") -> None:
        """Restore the best epoch and reduce the steps, or stop the run.

        Args:
            failure: description of the failure.
            hint: advice, in addition to lowering the learning rate.
        """
        assert self.best is not None
        record, state = self.best
        hopeless = record.undecided == 1.0
        if self.options.on_failure == "stop" or hopeless or self.failures == _MOST_FAILURES:
            so_far = (
                ""
                if self.failures == 0
                else Text(" (steps are already multiplied by {factor:.2g})", factor=self.factor)
            )
            raise TrainingStopped(failure, self.result(), fix=self._advice(hint) + so_far)
        self.failures += 1
        self.factor *= _SMALLER
        self.failing_epochs = 0
        # Validation was best for the average; the raw numbers at that time may have failed already.
        averaged = state.average is not None
        if averaged:
            state = on_all(
                begin(self.passes.setup, state.best, self.scales), self.passes.setup.mesh
            )
        self.state = state
        note = failure + Text(
            ": training goes back to epoch {epoch}, with steps multiplied by {factor:.2g}",
            epoch=record.epoch,
            factor=self.factor,
        )
        self.went_back.append(note)
        self.notes.append(note)
        self.say(note)

    def _record(
        self, epoch: int, train: Summary, validation: Summary, seconds: float
    ) -> EpochReport:
        """Add an epoch to the history, and return the report for the callbacks."""
        engine = self.passes.setup.engine
        max_spikes = 0  # recorded spikes per neuron, the maximum over populations
        if (budget := getattr(engine, "max_spikes", None)) is not None:
            event = EventOptions(max_spikes=budget)
            populations = self.network.populations.values()
            firing = [population.name for population in populations if population.fires]
            max_spikes = max((event.of("max_spikes", name) for name in firing), default=0)
        record = epoch_record(epoch, train, validation, max_spikes=max_spikes, factor=self.factor)
        self.history.append(record)
        self.seconds.append(seconds)
        if self.best is None or self._merit(record) > self._merit(self.best[0]):
            self.best = (record, self.state)
        # Estimate the remaining time from the epochs after the first, which includes compilation.
        to_do, remaining = self.options.epochs - len(self.history) + 1, None
        if len(self.seconds) > 2 and to_do:
            remaining = float(np.median(self.seconds[2:])) * to_do
        samples = int(train.samples) if epoch else None
        self.say(progress_line(record, self.options.epochs, seconds, remaining, samples))
        has_rate = epoch > 0 and not self.passes.setup.complete
        state = self.state
        return EpochReport(
            record=record,
            epochs=self.options.epochs,
            best_epoch=self.best[0].epoch,
            learning_rate=self.factor * float(self.rates[epoch - 1, -1]) if has_rate else None,
            seconds=seconds,
            graph=lambda: tagged(self._graph_of(state)),
        )

    def _graph_of(self, state: TrainState) -> Graph:
        """Return the graph with the parameters of a state."""
        network, best = on_host((self.network, state.best), self.passes.setup.mesh)
        return update_graph(self.graph, with_trained(network, self.passes.setup.trained, best))

    def _save(self) -> None:
        """Replace the checkpoint, if there is a folder for it."""
        if self.folder is None or not is_first():
            return
        assert self.best is not None
        engine = self.passes.setup.engine
        checkpoint = Checkpoint(
            state=self.state,
            best_state=self.best[1],
            best_epoch=self.best[0].epoch,
            history=tuple(self.history),
            seconds=tuple(self.seconds),
            budgets={name: getattr(engine, name) for name in BUDGETS if hasattr(engine, name)},
            factor=self.factor,
            failures=self.failures,
            failing_epochs=self.failing_epochs,
            notes=tuple(self.went_back),
        )
        self.folder.save(checkpoint, self._best_arrays)

    def _merit(self, record: EpochRecord) -> tuple[float, float, float]:
        """Return the ranking key of an epoch, which the best epoch maximises."""
        sizes = {name: population.size for name, population in self.network.populations.items()}
        spikes = sum(count * sizes.get(name, 0) for name, count in record.spikes.items())
        budgets = [term for term in self.options.regularisers if isinstance(term, SpikeBudget)]
        return merit(record, sum(term.excess(spikes) for term in budgets))

    def _check_collapse(self, epoch: int, train: Summary, validation: Summary) -> None:
        """Fail where for several epochs no output has fired, or the accuracy has collapsed."""
        assert self.best is not None
        silent = int(train.undecided) == int(train.samples) and int(validation.undecided) == int(
            validation.samples
        )
        best, now = self.best[0].validation_accuracy, self.history[-1].validation_accuracy
        collapsed = now < _COLLAPSED * best
        self.failing_epochs = self.failing_epochs + 1 if silent or collapsed else 0
        long = self.failing_epochs * self.rates.shape[1] >= _FAILING_STEPS
        last = silent and epoch == self.options.epochs
        if not (long or last):
            return
        hint = ""
        if silent:
            hint = "use larger input weights"
            hint += _CALIBRATION if self.may_calibrate else ""
            if self.time_notes:
                hint = Text(
                    "correct the times ({note}), or {hint}",
                    note=self.time_notes[0],
                    hint=hint,
                )
            failure = Text(
                "no neuron of '{population}' fires in any sample at epoch {epoch} (number of such epochs: "
                "{count})",
                population=self.plan.loss.population,
                count=self.failing_epochs,
                epoch=epoch,
            )
        else:
            failure = Text(
                "the validation accuracy has collapsed from {best:.1%} to {actual:.1%} at epoch {epoch} "
                "(number of such epochs: {count})",
                best=best,
                actual=now,
                count=self.failing_epochs,
                epoch=epoch,
            )
        if last:
            raise TrainingStopped(failure, self.result(), fix=self._advice(hint))
        self._back_or_stop(failure, hint)

    def _advice(self, hint: str) -> str:
        lower = Text(
            "lower the learning rate from {learning_rate:g}",
            learning_rate=self.options.learning_rate,
        )
        return Text("{hint}, or {lower}", hint=hint, lower=lower) if hint else lower

    def _best_arrays(self) -> dict[str, np.ndarray]:
        assert self.best is not None
        network, best = on_host((self.network, self.best[1].best), self.passes.setup.mesh)
        values = to_values(network, self.passes.setup.trained, best)
        return {
            f"{node}.{name}": np.asarray(value)
            for node, parameters in values.items()
            for name, value in parameters.items()
        }

    def _restore(self, checkpoint: Checkpoint) -> None:
        self.state = checkpoint.state
        self.history, self.seconds = list(checkpoint.history), list(checkpoint.seconds)
        self.best = (checkpoint.history[checkpoint.best_epoch], checkpoint.best_state)
        self.factor, self.failures, self.failing_epochs = (
            checkpoint.factor,
            checkpoint.failures,
            checkpoint.failing_epochs,
        )
        self.went_back = list(checkpoint.notes)
        self.notes += self.went_back
        if checkpoint.budgets:
            # JSON turns the pairs (population, budget) into lists; budgets must be hashable.
            budgets = {
                name: tuple(map(tuple, value)) if isinstance(value, list) else value
                for name, value in checkpoint.budgets.items()
            }
            engine: Any = self.passes.setup.engine
            self.passes.setup = replace(self.passes.setup, engine=replace(engine, **budgets))
        for note in () if self.folder is None else self.folder.notes:
            self.notes.append(note)
            self.say(note)
        self.say(f"training continues after epoch {checkpoint.history[-1].epoch}")

    def result(self) -> Fit:
        """Return the run so far, with the best epoch evaluated on the test split."""
        assert self.best is not None
        record, self.state = self.best
        test = self._evaluate("test")
        notes = list(self.notes)
        clipped = max(record.clipped for record in self.history)
        if clipped:
            notes.append(
                Text(
                    "the gradient of spikes was clipped, because the membrane potential crossed the threshold "
                    "with almost zero slope: at most a fraction of {fraction:.2g} of the spikes of an "
                    "epoch",
                    fraction=clipped,
                )
            )
        if lost := int(test.lost):
            text = Text(
                "spikes of the {samples} test samples that were not recorded: {count}. The event queues of a "
                "chip overflow if many neurons fire at once",
                count=lost,
                samples=int(test.samples),
            )
            notes.append(Note(text, kind="dropped", code="lost-spikes"))
        population = self.plan.loss.population
        if int(test.undecided) > _NOTED_SILENT * int(test.samples):
            notes.append(
                Text(
                    "no neuron of '{population}' fires in {count} of {samples} test samples, which count "
                    "as wrong. If they should fire, use more epochs, a higher learning rate, or "
                    "weight_bumping",
                    population=population,
                    count=int(test.undecided),
                    samples=int(test.samples),
                )
            )
        notes += ending_notes(self.history, record, population, collapsed=_COLLAPSED)
        trained = self._graph_of(self.state)
        test_accuracy = mean(test.correct, test)
        accuracy_in_steps = self._accuracy_in_steps(trained, test_accuracy, notes)
        return Fit(
            graph=tagged(trained),  # with the reset and the time step of this run
            history=tuple(self.history),
            best_epoch=record.epoch,
            test_accuracy=test_accuracy,
            accuracy_in_steps=accuracy_in_steps,
            settings=self.plan.as_dict(),
            notes=tuple(notes),
            seconds=tuple(self.seconds),
        )

    def neurobench(self, done: Fit) -> NeuroBench:
        """Return the metrics of NeuroBench of the trained graph on the test samples; the accuracy is
        that of the result.
        """
        split, counter = self.splits["test"], OperationCounter.of(done.graph)
        parts = (
            batch.take_here(np.flatnonzero(used))
            for batch, used in self.passes.parts_on_first(split, _OPERATIONS_BATCH)
        )
        engine, notes = with_all_output_spikes(
            self.passes.setup.engine, counter.network, self.plan.loss.population
        )
        measured = measure_batches(
            counter.network,
            parts,
            len(split.labels),
            loss=self.plan.loss,
            engine=engine.prepared(),
            t_end=self.plan.t_end,
            advice=FIRE_LESS,
            counter=counter,
        )
        assert measured.neurobench is not None
        return replace(
            measured.neurobench,
            accuracy=done.test_accuracy,
            notes=(*measured.neurobench.notes, *notes),
        )

    def _accuracy_in_steps(
        self, trained: Graph, test_accuracy: float, notes: list[str]
    ) -> float | None:
        """Evaluate the test samples in the time steps of the source framework, if it has any, and add a
        note if the accuracies differ.
        """
        network = self.network
        if not any(population.steps_through_time for population in network.populations.values()):
            return None
        if self.passes.setup.engine.kind == "grid":
            return test_accuracy
        if self.options.skip_step_accuracy:
            return None
        split = self.splits["test"]
        accuracy, step_notes = compare_in_steps(
            trained,
            partial(self.passes.parts_on_first, split),
            len(split.labels),
            loss=self.plan.loss,
            t_end=self.plan.t_end,
            test_accuracy=test_accuracy,
        )
        notes += step_notes
        return accuracy


def _in_brackets(problem: Problem | None) -> str:
    """Return a problem in brackets, as the end of a message; "" if there is no problem."""
    return Text("") if problem is None else Text(" ({cause})", cause=problem.message)
