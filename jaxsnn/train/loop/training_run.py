"""The state of one training run, and what is done with it epoch by epoch."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, ParamSpec, TypeVar, cast

import jax
import numpy as np

from jaxsnn.errors import JaxsnnError, Note, Problem, SimulationError, UsageError, first_line
from jaxsnn.event.event_options import BUDGETS, EventOptions
from jaxsnn.network.bad_numbers import bad_number
from jaxsnn.network.lowering.lower import update_graph
from jaxsnn.network.network import Network
from jaxsnn.network.results import Result
from jaxsnn.nir.initializers import Seed, seed_words
from jaxsnn.nir.model.graph import Graph
from jaxsnn.options import ENGINE, T_END
from jaxsnn.simulation.retry import FIRE_LESS, TooManySpikes, with_enough_room
from jaxsnn.simulation.solution import Engine
from jaxsnn.train.data.batches import (
    Batch,
    Streamed,
    encoded,
    evaluation_parts,
    first_pieces,
    identities,
    late_notes,
    ordered_batches,
    pieces,
    shuffled_batches,
    split_of,
)
from jaxsnn.train.data.datasets import Splits
from jaxsnn.train.loop.checkpoint import Checkpoint, Folder, fingerprint
from jaxsnn.train.loop.constraints import (
    find_trainables,
    raw_is_particular,
    to_raw,
    to_values,
    with_trained,
)
from jaxsnn.train.loop.epoch import (
    Pace,
    Setup,
    Summary,
    TrainingProgram,
    TrainState,
    begin,
    merged,
    of_one_run,
    run_epoch,
    run_evaluation,
)
from jaxsnn.train.loop.evaluation import accuracy_in_steps
from jaxsnn.train.loop.history import (
    EpochRecord,
    Fit,
    ending_notes,
    epoch_record,
    mean,
    merit,
    progress_line,
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
from jaxsnn.train.loop.parallel import is_first, make_mesh, on_all, on_first, on_host
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

Arguments = ParamSpec("Arguments")
Returned = TypeVar("Returned")

_EVALUATION_BATCH = 256
_LARGEST_BUDGET = 1024
# So long every output may stay silent, or the error rate high, before that is a failure: weight
# bumping takes a while.
_FAILING_STEPS = 200
#: What may help a network that does not fire, where a run has not begun with it.
_CALIBRATION = Text(" ({calibrate} does it first)", calibrate=OPTIONS["calibrate"].set_to(0.5))
# Of the best validation accuracy: below that a run has collapsed.
_COLLAPSED = 0.6
#: Of the numbers that all samples have on their way, in all epochs: in shorter runs compiling quickly
#: saves more than it costs.
_SHORT = 2**27
# After a failure steps are this fraction of what they were, so often at most.
_SMALLER, _MOST_FAILURES = 1 / 3, 3
#: Accuracies further apart than this are noted, with room for rounding.
_ONE_POINT = 0.01 * (1 + 1e-9)
#: A gradient of this norm, in loss per step of 1, explodes: no loss changes by as much within a
#: millionth of a kick.
EXPLODES = 1e7


class TrainingStopped(SimulationError):
    """Training that could not go on.

    Attributes:
        fit: what was reached, with the best epoch so far.
    """

    def __init__(
        self,
        message: str,
        reached: Fit,
        *,
        fix: str = "",
        node: str = "",
        code: str = "",
        facts: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message, fix=fix, node=node, code=code, facts=facts)
        self.fit = reached

    def __reduce__(self) -> Any:
        return _restored, (self.problem, self.fit)


def _restored(problem: Problem, reached: Fit) -> TrainingStopped:
    return TrainingStopped(
        problem.message,
        reached,
        fix=problem.fix,
        node=problem.node,
        code=problem.code,
        facts=problem.facts,
    )


class TrainingRun:
    """One training run."""

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
        self.channels = sum(network.inputs.values())
        for name in split_names:
            encode = partial(encoded, network=network, what=f"{data.name}, {name}", **encoding)
            self.splits[name] = split_of(getattr(data, name), encode, options.stream, self.channels)
        trainable = cast(Any, options.trainable)
        trainables = find_trainables(network, trainable, longest_delay=plan.loss.tau)
        raw = to_raw(network, trainables.constraints)
        refuse_decay(options.optimiser, options.weight_decay, raw, network)
        mesh = make_mesh(options.devices)
        self.scales = on_all(step_scales(network, trainables.constraints, plan.t_end), mesh)
        self.network = on_all(self.network, mesh)
        in_memory = {name: batch for name, batch in self.splits.items() if isinstance(batch, Batch)}
        self.slots = max((batch.slots for batch in in_memory.values()), default=0)
        self.late = late_notes(first_pieces(self.splits), plan.t_end)
        self.splits |= on_all(in_memory, mesh)
        noise = cast(Noise | None, options.noise)
        self.notes = [*plan.notes, *self.late, *trainables.notes, *noise_notes(network, noise)]
        self.batch_size = self._fitted_batch(len(data.train), 1 if mesh is None else mesh.size)
        batches = len(data.train) // self.batch_size
        self.rates = learning_rates(
            options.schedule, options.learning_rate, options.epochs, batches
        )
        self.setup = Setup(
            loss=plan.loss,
            engine=plan.engine.prepared(),
            t_end=plan.t_end,
            trained=trainables.constraints,
            feeding=feeding_weights(network),
            channels=channels_of(network),
            optimiser=cast(Any, optimiser_of(options.optimiser, options.weight_decay)),
            complete=not isinstance(options.optimiser, str),
            options=options.compiled_only(),
            mesh=mesh,
            own=of_one_run(plan.loss, options.regularisers, options.augment, options.noise),
        )
        self.notes += optimiser_notes(options.optimiser, raw)
        self.state = on_all(begin(self.setup, raw, self.scales), mesh)
        self.short = self._compiles_quickly(options.epochs)
        self.quick: dict[Any, bool] = {}
        self.history: list[EpochRecord] = []
        self.seconds: list[float] = []
        self.best: tuple[EpochRecord, TrainState] | None = None
        self.factor, self.failures, self.failing_epochs = 1.0, 0, 0
        self.went_back: list[str] = []
        self.folder: Folder | None = None

    def _compiles_quickly(self, epochs: int) -> bool:
        """Return whether a run of so many epochs is too short to optimise its programs."""
        sizes = [population.size for population in self.network.populations.values()]
        samples = len(cast(Splits, self.options.data).train)
        short = epochs * samples * (self.channels + sum(sizes)) < _SHORT
        return short and self.setup.mesh is None and jax.default_backend() == "cpu"

    def _fitted_batch(self, samples: int, devices: int) -> int:
        """The batch size that divides over the devices, and notes on what is dropped."""
        size = min(self.options.batch_size, samples)
        if size != self.options.batch_size:
            self.notes.append(
                f"batches are of {size} samples, not {self.options.batch_size}: there are no more"
            )
        if devices > samples:
            raise UsageError(
                Text(
                    "{option} is {devices}, and there are {samples} samples to train on",
                    option=OPTIONS["devices"],
                    devices=devices,
                    samples=samples,
                ),
                fix=f"take at most {samples}",
            )
        shared = max(size // devices, 1) * devices
        if shared != size:
            self.notes.append(
                f"batches are of {shared} samples, not {size}: {devices} devices share them evenly"
            )
        if samples % shared:
            self.notes.append(
                f"{samples % shared} of {samples} training samples, others each time, are dropped"
                " in each epoch: an incomplete batch"
            )
        return shared

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
        """Return a hash of what a run depends on and what its settings do not say.

        Args:
            rates: learning rate of each step, (epochs, batches).
        """
        # what raw numbers of these stand for is not in the settings
        particular = raw_is_particular(self.network, self.setup.trained)
        raw = on_host(self.state.raw, self.setup.mesh)
        parts = list(optimiser_identity(self.options.optimiser, raw))
        parts += [rates] if callable(self.options.schedule) else []
        parts += [np.frombuffer(repr(self.setup.trained).encode(), np.uint8)] if particular else []
        return fingerprint(identities(self.splits), self.network.parameters, parts)

    def _extended(self, path: Path, epochs: int, done: int) -> str:
        """Return the fingerprint that this run would have with another number of epochs.

        Args:
            path: of the checkpoint of such a run.
            epochs: how many that run was asked for.
            done: how many of them are done.

        Raises:
            UsageError: this run has fewer epochs than are done, or other learning rates in these.
        """
        schedule, now = self.options.schedule, self.options.epochs
        if now < done:
            raise UsageError(
                f"{path} was made with epochs = {epochs}, now it is {now}, and {done} epochs are"
                " done",
                fix=Text(
                    "pass {epochs} or more, or choose another folder",
                    epochs=OPTIONS["epochs"].set_to(done),
                ),
            )
        rates = learning_rates(schedule, self.options.learning_rate, epochs, self.rates.shape[1])
        if isinstance(schedule, str) and not np.array_equal(rates[:done], self.rates[:done]):
            raise UsageError(
                f"{path} was made with epochs = {epochs}, now it is {now}, and the learning rates of"
                f" schedule '{schedule}' depend on that number",
                fix=Text(
                    "resume with {option}, or begin a run of {now} epochs in another folder (runs "
                    "with {schedule} can be extended)",
                    option=OPTIONS["epochs"].set_to(epochs),
                    now=now,
                    schedule=OPTIONS["schedule"].set_to("constant"),
                ),
            )
        if self._compiles_quickly(epochs) != self.short:
            self.notes.append(
                f"the first {done} epochs are those of a run of {epochs} epochs: its programs were"
                " compiled with other optimisations, so that the last digits of results may differ"
                f" from those of a run of {now} epochs from the start"
            )
        return self._fingerprint(rates)

    def _epochs(self) -> Fit:
        """What there is to do."""
        if not self.history:
            try:
                self._before_training()
            except Exception:
                if self.folder is not None:
                    self.folder.tidy()
                raise
        for epoch in range(len(self.history), self.options.epochs + 1):
            assert self.best is not None
            waited, patience = epoch - 1 - self.best[0].epoch, self.options.patience
            if patience is not None and waited >= patience:
                self.notes.append(
                    f"stopped after epoch {epoch - 1}: {waited} epochs without a better validation"
                )
                break
            self._train_epoch(epoch)
        return self.result()

    def _before_training(self) -> None:
        """Entry 0 of the history."""
        start = time.perf_counter()
        train = self._evaluate(self.splits["train"])
        if int(train.result) == Result.NOT_FINITE:
            problem = self._bad_number(self.state)
            raise SimulationError(
                f"a loss or a spike time is not a number before training{_in_brackets(problem)}",
                fix="look at the inputs and weights" if problem is None else problem.fix,
                node="" if problem is None else problem.node,
            )
        self._record(
            0,
            train,
            self._evaluate(self.splits["validation"], loud=True),
            time.perf_counter() - start,
        )
        self._save()

    def _train_epoch(self, epoch: int) -> None:
        """One pass over the training samples; after a failure from the best epoch on, with smaller
        steps.
        """
        start = time.perf_counter()
        while True:
            before, hint = self.state, ""
            try:
                self.state, train = self._pass(epoch)
                norm = float(train.gradient)
                if int(train.result) == Result.NOT_FINITE:
                    cause = _in_brackets(self._bad_number(self.state))
                    failure = (
                        f"epoch {epoch} met a loss or a spike time that is not a number{cause}"
                    )
                elif not norm <= EXPLODES:
                    failure = (
                        f"the gradient explodes in epoch {epoch}, its norm is {norm:.3g}, more than"
                        f" {EXPLODES:.0e}"
                    )
                else:
                    validation = self._evaluate(self.splits["validation"], loud=True)
                    if int(validation.result) != Result.NOT_FINITE:
                        break
                    cause = _in_brackets(self._bad_number(self.state))
                    failure = f"after epoch {epoch} a loss or a spike time is not a number{cause}"
            except TooManySpikes as error:
                failure, hint = f"in epoch {epoch} " + error.problem.message, error.fix
            self.state = before
            self._back_or_stop(failure, hint)
        self._record(epoch, train, validation, time.perf_counter() - start)
        # Before it is saved: a run that goes on from here must know of it.
        self._check_collapse(epoch, train, validation)
        self._save()

    def _pass(self, epoch: int) -> tuple[TrainState, Summary]:
        """An epoch's steps, repeated with a larger budget where neurons fire more often."""
        order = shuffled_batches(
            len(self.splits["train"].labels),
            self.batch_size,
            [*seed_words(self.options.seed), epoch],
        )
        pace = Pace(
            rates=np.asarray(self.rates[epoch - 1], self.network.dtype),
            factor=np.asarray(self.factor, self.network.dtype),
            key=key_of((*seed_words(self.options.seed), epoch)),
            first=np.int32(0),
        )

        def attempt(setup: Setup) -> tuple[TrainState, Summary]:
            state, summaries = self.state, []
            fixed = setup, self.network, self.scales, self.plan.weight_bumping
            for samples, places, first in pieces(self.splits["train"], order):
                piece_pace = pace._replace(
                    rates=pace.rates[first : first + len(places)], first=np.int32(first)
                )
                arguments = *fixed, state, samples, places, piece_pace
                state, summary = self._compiled(run_epoch, *arguments)(*arguments)
                summaries.append(on_host(summary, setup.mesh))
            return state, merged(summaries)

        return self._with_enough_room(attempt, f"epoch {epoch}")

    def _compiled(
        self,
        program: TrainingProgram[Arguments, Returned],
        *arguments: Arguments.args,
        **named: Arguments.kwargs,
    ) -> Callable[Arguments, Returned]:
        """A program, compiled quickly where the run is short and native kernels do the work: once
        for the whole run.
        """
        if program not in self.quick:
            self.quick[program] = self.short and program.has_kernels(*arguments, **named)
        return program.quick if self.quick[program] else program.optimised

    def _bad_number(self, state: TrainState) -> Problem | None:
        """The first parameter of a state that makes no sense."""
        trained = with_trained(self.network, self.setup.trained, state.raw)
        return bad_number(trained, finite=self.setup.engine.exact)

    def _back_or_stop(self, failure: str, hint: str = "") -> None:
        """Go back to the best epoch with smaller steps, if that is wanted and makes sense.

        Args:
            failure: what went wrong.
            hint: what to do about it, beside lowering the learning rate.
        """
        assert self.best is not None
        record, state = self.best
        hopeless = record.undecided == 1.0
        if self.options.on_failure == "stop" or hopeless or self.failures == _MOST_FAILURES:
            so_far = "" if self.failures == 0 else f" (steps are {self.factor:.2g} of it by now)"
            raise TrainingStopped(failure, self.result(), fix=self._advice(hint) + so_far)
        self.failures += 1
        self.factor *= _SMALLER
        self.failing_epochs = 0
        # its average validated best, and the raw numbers behind it may have failed already
        averaged = state.average is not None
        if averaged:
            state = on_all(begin(self.setup, state.best, self.scales), self.setup.mesh)
        self.state = state
        note = (
            failure
            + f": back to epoch {record.epoch}, steps are {self.factor:.2g} of what they were"
        )
        self.went_back.append(note)
        self.notes.append(note)
        self.say(note)

    def _evaluate(self, data: Batch | Streamed, *, loud: bool = False) -> Summary:
        """A pass without training over a split, repeated with a larger budget where neurons fire
        more often.

        Args:
            loud: under the noise of training, where there is some: as many samples as a step has
                meet the same, and in each epoch they meet it again.
        """
        in_memory = data if isinstance(data, Batch) else None
        placed = self.network, self.state.best, in_memory
        (network, best, samples), mesh = on_first(placed, self.setup.mesh)
        loud = loud and self.options.noise is not None
        size = min(self.batch_size, _EVALUATION_BATCH) if loud else _EVALUATION_BATCH
        size = size if mesh is None else -(-size // mesh.size) * mesh.size
        parts = list(zip(*ordered_batches(len(data.labels), size), strict=True))
        split = data if samples is None else samples

        def attempt(setup: Setup) -> tuple[None, Summary]:
            here = replace(setup, mesh=mesh)
            # One launch at a time, on one device too: the next epoch runs on all of them.
            batches = evaluation_parts(split, parts, self.slots, self.channels)
            summaries = []
            for number, part in enumerate(batches):
                key = jax.random.key(number) if loud else None
                arguments = here, network, best, *part, key
                summary = self._compiled(run_evaluation, *arguments)(*arguments)
                summaries.append(on_host(summary, setup.mesh))
            return None, merged(summaries)

        return self._with_enough_room(attempt, "the evaluation")[1]

    def _with_enough_room(
        self, attempt: Callable[[Setup], tuple[Returned, Summary]], phase: str
    ) -> tuple[Returned, Summary]:
        """What an attempt comes to, repeated with larger budgets, which are kept: training makes
        neurons fire more often.

        Args:
            phase: what is repeated.
        """
        outcome: list[Any] = []

        def run(engine: Engine) -> Summary:
            returned, summary = attempt(replace(self.setup, engine=engine))
            outcome[:] = [returned]
            return summary

        engine, summary = with_enough_room(
            self.setup.engine,
            run,
            limit=_LARGEST_BUDGET,
            advice=FIRE_LESS,
            grown=room_for_training,
            say=lambda line: self.say(f"{phase}: {line}"),
        )
        self.setup = replace(self.setup, engine=engine)
        return outcome[0], summary

    def _record(self, epoch: int, train: Summary, validation: Summary, seconds: float) -> None:
        engine = self.setup.engine
        max_spikes = 0  # recorded of each neuron, of the population that has most
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
        # what is left takes as long as the median epoch so far, without the first, which compiles
        to_do, remaining = self.options.epochs - len(self.history) + 1, None
        if len(self.seconds) > 2 and to_do:
            remaining = float(np.median(self.seconds[2:])) * to_do
        samples = int(train.samples) if epoch else None
        self.say(progress_line(record, self.options.epochs, seconds, remaining, samples))

    def _save(self) -> None:
        """Replace the checkpoint, if there is a folder for it."""
        if self.folder is None or not is_first():
            return
        assert self.best is not None
        engine = self.setup.engine
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
        """What the best epoch has most of."""
        sizes = {name: population.size for name, population in self.network.populations.items()}
        spikes = sum(count * sizes.get(name, 0) for name, count in record.spikes.items())
        budgets = [term for term in self.options.regularisers if isinstance(term, SpikeBudget)]
        return merit(record, sum(term.excess(spikes) for term in budgets))

    def _check_collapse(self, epoch: int, train: Summary, validation: Summary) -> None:
        """A failure where for several epochs no output has fired, or answers are hardly better than
        none.
        """
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
            hint = "enlarge its input weights"
            hint += _CALIBRATION if self.may_calibrate else ""
            if self.late:
                hint = Text(
                    "give times before {t_end} ({late}), or {hint}",
                    t_end=T_END,
                    late=self.late[0],
                    hint=hint,
                )
            failure = (
                f"no neuron of '{self.plan.loss.population}' fires in any sample since"
                f" {self.failing_epochs} epochs, at epoch {epoch}"
            )
        else:
            failure = (
                f"the run has collapsed: the validation accuracy fell from {best:.1%} to {now:.1%}"
                f" and has been that low for {self.failing_epochs} epochs, at epoch {epoch}"
            )
        if last:
            raise TrainingStopped(failure, self.result(), fix=self._advice(hint))
        self._back_or_stop(failure, hint)

    def _advice(self, hint: str) -> str:
        lower = f"lower the learning rate from {self.options.learning_rate:g}"
        return hint + f", or {lower}" if hint else lower

    def _best_arrays(self) -> dict[str, np.ndarray]:
        assert self.best is not None
        network, best = on_host((self.network, self.best[1].best), self.setup.mesh)
        values = to_values(network, self.setup.trained, best)
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
            # JSON has lists for pairs of a population and its budget, which must be hashable
            budgets = {
                name: tuple(map(tuple, value)) if isinstance(value, list) else value
                for name, value in checkpoint.budgets.items()
            }
            engine: Any = self.setup.engine
            self.setup = replace(self.setup, engine=replace(engine, **budgets))
        for note in () if self.folder is None else self.folder.notes:
            self.notes.append(note)
            self.say(note)
        self.say(f"going on after epoch {checkpoint.history[-1].epoch}")

    def result(self) -> Fit:
        """The run so far, with the test split looked at."""
        assert self.best is not None
        record, self.state = self.best
        test = self._evaluate(self.splits["test"])
        notes = list(self.notes)
        clipped = max(record.clipped for record in self.history)
        if clipped:
            notes.append(
                f"up to {clipped:.2g} of an epoch's spikes were so close to tangency that their"
                " gradient was clipped"
            )
        if lost := int(test.lost):
            text = (
                f"{lost} spikes of the {int(test.samples)} test samples were fired and not recorded:"
                " the queues of a chip overflow where many neurons fire at once"
            )
            notes.append(Note(text, kind="dropped", code="lost-spikes"))
        population = self.plan.loss.population
        notes += ending_notes(self.history, record, population, collapsed=_COLLAPSED)
        network, best = on_host((self.network, self.state.best), self.setup.mesh)
        trained = update_graph(self.graph, with_trained(network, self.setup.trained, best))
        test_accuracy = mean(test.correct, test)
        accuracy_in_steps = self._accuracy_in_steps(trained, test_accuracy, notes)
        return Fit(
            graph=trained,
            history=tuple(self.history),
            best_epoch=record.epoch,
            test_accuracy=test_accuracy,
            accuracy_in_steps=accuracy_in_steps,
            settings=self.plan.as_dict(),
            notes=tuple(notes),
            seconds=tuple(self.seconds),
        )

    def _accuracy_in_steps(
        self, trained: Graph, test_accuracy: float, notes: list[str]
    ) -> float | None:
        """Evaluate the test samples in the time steps of the source, where it has some, and add to the
        notes where the accuracies differ.
        """
        network = self.network
        if not any(population.steps_through_time for population in network.populations.values()):
            return None
        if self.setup.engine.kind == "grid":
            return test_accuracy
        if self.options.skip_step_accuracy:
            return None
        split = self.splits["test"]
        split = on_first(split, self.setup.mesh)[0] if isinstance(split, Batch) else split
        samples = len(split.labels)

        def parts(size: int) -> Any:
            order = zip(*ordered_batches(samples, size), strict=True)
            return evaluation_parts(split, order, self.slots, self.channels)

        framework = trained.dialect.name
        try:
            accuracy_in_own_steps, by_count = accuracy_in_steps(
                trained, parts, samples, loss=self.plan.loss, t_end=self.plan.t_end
            )
        except (JaxsnnError, jax.errors.JaxRuntimeError, MemoryError) as error:
            notes.append(
                Note(
                    f"the accuracy in the time steps of {framework} is unknown: {first_line(error)}",
                    kind="approximated",
                    code="accuracy-in-steps",
                )
            )
            return None
        readings = {"": accuracy_in_own_steps, ", read by spike counts": by_count}
        for reading, accuracy in readings.items():
            if accuracy is not None and abs(accuracy - test_accuracy) > _ONE_POINT:
                notes.append(
                    Note(
                        Text(
                            "in the time steps of {framework} the trained weights answer {accuracy:.1%} of "
                            "the test samples{reading}, here {test_accuracy:.1%}: train with {engine} for "
                            "use there, or with a loss of what is read there",
                            framework=framework,
                            accuracy=accuracy,
                            reading=reading,
                            test_accuracy=test_accuracy,
                            engine=ENGINE.set_to("grid"),
                        ),
                        kind="approximated",
                        code="accuracy-in-steps",
                    )
                )
        return accuracy_in_own_steps


def _in_brackets(problem: Problem | None) -> str:
    """Return what is wrong with a number, as the end of a message."""
    return "" if problem is None else " (" + problem.message + ")"


def key_of(seed: Seed) -> jax.Array:
    """Return the `jax.random` key of a whole number, or one that depends on all numbers of a key."""
    words = seed_words(seed)
    if max(words) < 2**32:
        # Eager, each of its operations would be compiled.
        return _key_of_words(np.asarray(words, np.uint32))
    return _folded(words)


def _folded(words: Any) -> jax.Array:
    """Return the key of some whole numbers, one after the other."""
    key = jax.random.key(words[0])
    for word in words[1:]:
        key = jax.random.fold_in(key, word)
    return key


_key_of_words = jax.jit(_folded)


def room_for_training(needed: int) -> int:
    """A budget that leaves room for training to make neurons fire more often."""
    return max(needed + 2, needed * 3 // 2)
