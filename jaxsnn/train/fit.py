"""`fit`: train a Graph, get a trained Graph."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import replace

import jax
import jax.numpy as jnp

from jaxsnn.errors import SimulationError
from jaxsnn.event.engine import Event
from jaxsnn.lower import lower, raise_
from jaxsnn.network import Network
from jaxsnn.nir.graph import Graph
from jaxsnn.simulate import Result
from jaxsnn.train.datasets import Splits
from jaxsnn.train.epoch import (
    Batch,
    Setup,
    State,
    Summary,
    begin,
    cosine_rates,
    joined,
    ordered_batches,
    run_epoch,
    run_evaluation,
    shuffled_batches,
    with_trained,
)
from jaxsnn.train.history import EpochRecord, Fit, epoch_record, mean, merit, progress_line
from jaxsnn.train.losses import FirstSpike
from jaxsnn.train.plan import Encoder, Plan, encoded, make_plan
from jaxsnn.train.scaling import step_scales, trainable_parameters
from jaxsnn.train.silence import Push, feeding_weights

_EVALUATION_BATCH = 256
_LARGEST_BUDGET = 1024
# So long every output may stay silent before training gives up: silent neurons are pushed, which takes a while.
_SILENT_EPOCHS, _SILENT_STEPS = 3, 150


class TrainingStopped(SimulationError):
    """Training that could not go on. `fit` holds what was reached, with the best epoch so far."""

    def __init__(self, message: str, fit: Fit):
        super().__init__(message)
        self.fit = fit


def to_stderr(line: str) -> None:
    """Print a line of progress."""
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


def fit(
    graph: Graph,
    data: Splits,
    *,
    loss: FirstSpike | str = "ttfs",
    encoder: Encoder | None = None,
    t_end: float | None = None,
    epochs: int = 50,
    batch_size: int = 64,
    learning_rate: float = 0.01,
    seed: int = 0,
    engine: Event | None = None,
    trainable: tuple[str, ...] = ("weight", "bias"),
    push: Push | None = None,
    progress: Callable[[str], None] | None = to_stderr,
) -> Fit:
    """Train a graph with exact gradients, and return it with the weights of the epoch that validates best.

    Adam with a learning rate that falls to 0 along a cosine. Hidden neurons play their full dynamics, so that the
    trained graph means the same to every simulator; a population that only a first-spike loss reads, and that feeds
    nothing else, stops after its first spike to save time. The same arguments give the same result, bit for bit.

    Args:
        graph: read with a dialect, or built.
        data: `jaxsnn.train.yinyang_splits()`, or your own `Splits`.
        loss: a name in `jaxsnn.train.LOSSES`, or a loss; the name stands for times in units of the tau_syn of the
            population that feeds the Output.
        encoder: makes Events of values; default `Latency` over 2 tau_syn. Not needed where the data are Events.
        t_end: seconds, end of a sample; default 6.5 tau_syn.
        epochs, batch_size, seed: of the run; the seed shuffles.
        learning_rate: step of a weight in units of its kick (`jaxsnn.train.scaling`): the same in every dialect.
        engine: default `Event(max_spikes=4, min_slope=0.04)`. The budget grows where neurons fire more often.
        trainable: NIR names of the parameters that are trained.
        push: remedy for silent neurons.
        progress: takes one line for each epoch; None is quiet.

    Raises:
        UsageError: arguments or data that do not fit the network.
        TrainingStopped: not-a-number, or every output silent; its `fit` holds the best epoch so far.
        SimulationError: neurons that fire more often than any budget.

    >>> from jaxsnn.nir import build
    >>> from jaxsnn.nir.initializers import normal
    >>> from jaxsnn.train import yinyang_splits
    >>> hidden, output = (build.cubalif(tau_mem="20ms", tau_syn="10ms") for _ in range(2))
    >>> first, second = build.linear(20, weight=normal(1.0, 0.6)), build.linear(3, weight=normal(0.3, 0.3))
    >>> graph = build.sequential(build.input(5), first, hidden, second, output, seed=0)
    >>> trained = fit(graph, yinyang_splits(sizes=(256, 128, 128)), epochs=10, learning_rate=0.05, progress=None)
    >>> trained.test_accuracy > 0.5
    True
    """
    network = lower(graph)
    plan = make_plan(
        network,
        data,
        loss=loss,
        encoder=encoder,
        t_end=t_end,
        engine=engine,
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        seed=seed,
        trainable=tuple(trainable),
    )
    run = _Run(graph, network, plan, data, push or Push(), progress or (lambda line: None))
    run.before_training()
    for epoch in range(1, plan.epochs + 1):
        run.train_epoch(epoch)
    return run.result()


class _Run:
    """The state of one training run."""

    def __init__(
        self, graph: Graph, network: Network, plan: Plan, data: Splits, push: Push, say: Callable[[str], None]
    ):
        self.graph, self.network, self.plan, self.say = graph, network, plan, say
        names = ("train", "validation", "test")
        self.splits = {name: encoded(plan, getattr(data, name), network, f"{data.name}, {name}") for name in names}
        trained = trainable_parameters(network, plan.trainable)
        self.scales = step_scales(network, trained, plan.t_end)
        samples = len(data.train)
        self.batch_size = min(plan.batch_size, samples)
        self.notes = list(plan.notes)
        if samples % self.batch_size:
            left = samples % self.batch_size
            self.notes.append(
                f"{left} of {samples} training samples, others each time, sit out each epoch: no full batch"
            )
        self.rates = cosine_rates(plan.learning_rate, plan.epochs, samples // self.batch_size)
        self.push, self.state = push, begin(trained)
        self.setup = Setup(loss=plan.loss, engine=plan.engine, t_end=plan.t_end, feeding=feeding_weights(network))
        self.history: list[EpochRecord] = []
        self.seconds: list[float] = []
        self.best: tuple[EpochRecord, State] | None = None
        self.silent_epochs = 0

    def before_training(self) -> None:
        """Entry 0 of the history."""
        start = time.perf_counter()
        train = self.evaluate(self.splits["train"])
        if int(train.result) == Result.NOT_FINITE:
            raise SimulationError(
                "a loss or a spike time is not a number before training: look at the inputs and weights"
            )
        self._record(0, train, self.evaluate(self.splits["validation"]), time.perf_counter() - start)

    def train_epoch(self, epoch: int) -> None:
        """One pass over the training samples, repeated with a larger budget where neurons fire more often."""
        start = time.perf_counter()
        order = shuffled_batches(len(self.splits["train"].labels), self.batch_size, [self.plan.seed, epoch])
        rates = jnp.asarray(self.rates[epoch - 1], self.network.dtype)
        while True:
            state, train = run_epoch(
                self.setup, self.network, self.scales, self.push, self.state, self.splits["train"], order, rates
            )
            if int(train.result) != Result.BUDGET_EXHAUSTED:
                break
            self._enlarge(train, f"epoch {epoch} is repeated")
        if int(train.result) == Result.NOT_FINITE:
            self._stop(f"epoch {epoch} met a loss or a spike time that is not a number: lower the learning rate")
        self.state = state
        validation = self.evaluate(self.splits["validation"])
        if int(validation.result) == Result.NOT_FINITE:
            self._stop(f"after epoch {epoch} a loss or a spike time is not a number: lower the learning rate")
        self._record(epoch, train, validation, time.perf_counter() - start)
        self._check_silence(epoch, train, validation)

    def evaluate(self, data: Batch) -> Summary:
        """A pass without training over a split, repeated with a larger budget where neurons fire more often."""
        network = with_trained(self.network, self.state.trained)
        parts = list(zip(*ordered_batches(len(data.labels), _EVALUATION_BATCH), strict=True))
        while True:
            summaries = [run_evaluation(self.setup, network, data.take(order), used) for order, used in parts]
            summary = joined(jax.tree.map(lambda *values: jnp.stack(values), *summaries))
            if int(summary.result) != Result.BUDGET_EXHAUSTED:
                return summary
            self._enlarge(summary, "the evaluation is repeated")

    def _enlarge(self, summary: Summary, what: str) -> None:
        population, needed = max(summary.needed.items(), key=lambda item: int(item[1]))
        before, after = self.setup.engine.max_spikes, _with_room(int(needed))
        message = (
            f"a neuron of '{population}' fires {int(needed)} times in a sample, {before} spikes of each are recorded"
        )
        if after > _LARGEST_BUDGET:
            raise SimulationError(f"{message}: lower its input weights, or end samples earlier with t_end")
        self.say(f"{message}: {what} with max_spikes = {after}")
        self.setup = replace(self.setup, engine=replace(self.setup.engine, max_spikes=after))

    def _record(self, epoch: int, train: Summary, validation: Summary, seconds: float) -> None:
        record = epoch_record(epoch, train, validation, self.setup.engine.max_spikes)
        self.history.append(record)
        self.seconds.append(seconds)
        if self.best is None or merit(record) > merit(self.best[0]):
            self.best = (record, self.state)
        self.say(progress_line(record, self.plan.epochs, seconds))

    def _check_silence(self, epoch: int, train: Summary, validation: Summary) -> None:
        """Stop where no output has fired for several epochs, or none has at the end."""
        silent = int(train.undecided) == int(train.samples) and int(validation.undecided) == int(validation.samples)
        self.silent_epochs = self.silent_epochs + 1 if silent else 0
        long = self.silent_epochs >= max(_SILENT_EPOCHS, _SILENT_STEPS / self.rates.shape[1])
        if long or (silent and epoch == self.plan.epochs):
            self._stop(
                f"no neuron of '{self.plan.loss.population}' fires in any sample since {self.silent_epochs} epochs, at "
                f"epoch {epoch}: enlarge its input weights, or lower the learning rate from {self.plan.learning_rate:g}"
            )

    def _stop(self, message: str) -> None:
        raise TrainingStopped(message, self.result())

    def result(self) -> Fit:
        """The run so far, with the test split looked at."""
        assert self.best is not None
        record, self.state = self.best
        test = self.evaluate(self.splits["test"])
        notes = list(self.notes)
        clipped = max(record.clipped for record in self.history)
        if clipped:
            notes.append(
                f"up to {clipped:.2g} of an epoch's spikes were so close to tangency that their gradient was clipped"
            )
        return Fit(
            graph=raise_(self.graph, with_trained(self.network, self.state.trained)),
            history=tuple(self.history),
            best_epoch=record.epoch,
            test_accuracy=mean(test.correct, test),
            settings=self.plan.as_dict(),
            notes=tuple(notes),
            seconds=tuple(self.seconds),
        )


def _with_room(needed: int) -> int:
    """A budget that leaves room for training to make neurons fire more often."""
    return max(needed + 2, needed * 3 // 2)
