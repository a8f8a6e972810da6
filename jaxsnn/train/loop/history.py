"""The record of a training run, finished or stopped: its epochs, and its options as JSON, which
checkpoints compare.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from enum import Enum
from pathlib import PurePath
from typing import Any

import numpy as np

from jaxsnn.errors import Problem, SimulationError
from jaxsnn.nir.initializers import seed_words
from jaxsnn.nir.model.graph import Graph
from jaxsnn.simulation.neurobench import NeuroBench
from jaxsnn.summary import summarised
from jaxsnn.train.loop.epoch import Summary
from jaxsnn.wording import Text


@summarised
@dataclass(frozen=True, kw_only=True)
class EpochRecord:
    """Statistics of one epoch; epoch 0 is before training.

    Attributes:
        epoch: number of the epoch.
        train_loss, train_accuracy: means over the training samples, each before its training step.
        validation_loss, validation_accuracy: means over the validation samples after the epoch.
        undecided: fraction of validation samples in which no neuron of the output population fires.
        silent: population -> mean fraction of its neurons that stay silent in a validation sample.
        spikes: population -> mean number of spikes of a neuron in a validation sample.
        clipped: fraction of the epoch's spikes whose gradient was clipped, because they were too
            close to tangency.
        max_spikes: spike budget of each neuron; 0 if there is no budget.
        gradient: largest norm of a batch's gradient in the epoch, in loss per step of 1.
        factor: factor of all step sizes of the epoch, below 1 after a failure.
    """

    epoch: int
    train_loss: float
    train_accuracy: float
    validation_loss: float
    validation_accuracy: float
    undecided: float
    silent: dict[str, float]
    spikes: dict[str, float]
    clipped: float
    max_spikes: int
    gradient: float = 0.0
    factor: float = 1.0


@summarised
@dataclass(frozen=True, kw_only=True)
class Fit:
    """Result of a training run. Only `seconds` depends on the clock.

    Attributes:
        graph: the graph with the weights of the best epoch.
        history: one `EpochRecord` for each epoch, and one for epoch 0.
        best_epoch: epoch with the highest validation accuracy; of several, the one with the lowest
            loss.
        test_accuracy: accuracy on the test samples, evaluated once, with the weights of the best
            epoch.
        settings: all settings of the run, as `TrainPlan.as_dict` returns them.
        notes: notes for the user, one sentence each.
        seconds: wall time of each entry of the history.
        accuracy_in_steps: accuracy of the same weights on the test samples in the time steps of the
            source framework; None if the framework is not time-stepped, with `skip_step_accuracy`, or
            if the time-stepped engine cannot run the graph.
        neurobench: metrics of NeuroBench of the same weights on the test samples, with the option
            `neurobench`; else None.
    """

    graph: Graph
    history: tuple[EpochRecord, ...]
    best_epoch: int
    test_accuracy: float
    settings: dict[str, Any]
    notes: tuple[str, ...]
    seconds: tuple[float, ...] = field(compare=False)
    accuracy_in_steps: float | None = None
    neurobench: NeuroBench | None = None

    def _repr_html_(self) -> str | None:
        """Return the learning curve as HTML, for a notebook."""
        from jaxsnn.notebook import html_of

        reached = f"test accuracy {self.test_accuracy:.2%}, best epoch {self.best_epoch}"
        if self.accuracy_in_steps is not None:
            reached += f", in the time steps of the source framework {self.accuracy_in_steps:.2%}"
        return html_of(self, text="\n".join([reached, *self.notes]))

    def as_dict(self) -> dict[str, Any]:
        """Return the result as a dict for JSON; without durations, so that runs on one machine give
        equal bytes.
        """
        return {
            "test_accuracy": self.test_accuracy,
            "accuracy_in_steps": self.accuracy_in_steps,
            "neurobench": None if self.neurobench is None else self.neurobench.as_dict(),
            "best_epoch": self.best_epoch,
            "settings": self.settings,
            "notes": list(self.notes),
            "epochs": [asdict(record) for record in self.history],
        }


class TrainingStopped(SimulationError):
    """Error of a training run that could not continue.

    Attributes:
        fit: result of the run so far, with the weights of the best epoch.
        tuned: the `Tuned` so far if `tune` trained, including this run; otherwise None.
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
        tuned: Any = None,
    ) -> None:
        super().__init__(message, fix=fix, node=node, code=code, facts=facts)
        self.fit = reached
        self.tuned = tuned

    def __reduce__(self) -> Any:
        return _restored, (self.problem, self.fit, self.tuned)


def _restored(problem: Problem, reached: Fit, tuned: Any) -> TrainingStopped:
    return TrainingStopped(
        problem.message,
        reached,
        fix=problem.fix,
        node=problem.node,
        code=problem.code,
        facts=problem.facts,
        tuned=tuned,
    )


def epoch_record(
    epoch: int, train: Summary, validation: Summary, *, max_spikes: int, factor: float
) -> EpochRecord:
    """Return the record of an epoch from the summaries of its two passes."""
    return EpochRecord(
        epoch=epoch,
        train_loss=mean(train.loss, train),
        train_accuracy=mean(train.correct, train),
        validation_loss=mean(validation.loss, validation),
        validation_accuracy=mean(validation.correct, validation),
        undecided=mean(validation.undecided, validation),
        silent={name: mean(count, validation) for name, count in validation.silent.items()},
        spikes={name: mean(count, validation) for name, count in validation.spikes.items()},
        clipped=float(train.clipped) / max(float(train.recorded), 1.0),
        max_spikes=max_spikes,
        gradient=float(train.gradient),
        factor=factor,
    )


def mean(total: Any, summary: Summary) -> float:
    """Return a sum of a summary, divided by the number of samples."""
    return float(np.asarray(total)) / int(summary.samples)


def merit(record: EpochRecord, excess: float = 0.0) -> tuple[float, float, float]:
    """Return the ranking key of an epoch, which the best epoch maximises: the smallest excess of
    spikes over a budget, if any; then validation accuracy; then the lower loss.
    """
    return -excess, record.validation_accuracy, -record.validation_loss


def ending_notes(
    history: Sequence[EpochRecord], best: EpochRecord, population: str, *, collapsed: float
) -> list[str]:
    """Return a sentence on each goal that a completed run did not reach.

    Args:
        history: one record for each epoch, and one for epoch 0.
        best: record of the epoch whose weights are returned.
        population: output population.
        collapsed: fraction of the best validation accuracy; an epoch below it is reported.
    """
    notes, trained = [], history[1:]
    if trained and best.epoch == 0:
        notes.append(
            "no epoch has a better validation result than the initial weights, which are returned"
        )
    silent = _trailing(record.undecided == 1.0 for record in trained)
    least = collapsed * best.validation_accuracy
    low = _trailing(record.validation_accuracy < least for record in trained)
    if silent:
        notes.append(
            Text(
                "{epochs_text} no neuron of '{population}' fired in any validation sample",
                epochs_text=_last(silent),
                population=population,
            )
        )
    elif low:
        notes.append(
            Text(
                "{epochs_text} the validation accuracy was below {fraction:.0%} of the best: the best is "
                "{best:.1%}, the last {actual:.1%}",
                epochs_text=_last(low),
                fraction=collapsed,
                best=best.validation_accuracy,
                actual=trained[-1].validation_accuracy,
            )
        )
    return notes


def _trailing(flags: Iterable[bool]) -> int:
    """Return the number of consecutive true flags at the end."""
    number = 0
    for flag in flags:
        number = number + 1 if flag else 0
    return number


def _last(epochs: int) -> str:
    return (
        "in the last epoch" if epochs == 1 else Text("in the last {epochs} epochs", epochs=epochs)
    )


def progress_line(
    record: EpochRecord,
    epochs: int,
    seconds: float,
    remaining: float | None = None,
    samples: int | None = None,
) -> str:
    """Return the line of progress of an epoch.

    Args:
        remaining: estimated remaining time in seconds.
        samples: number of training samples of the epoch.
    """
    fire = ", ".join(f"{name} {1 - fraction:.1%}" for name, fraction in record.silent.items())
    line = (
        f"epoch {record.epoch:{len(str(epochs))}}/{epochs}  loss {record.train_loss:.4f}  "
        f"accuracy {record.train_accuracy:7.2%}  validation {record.validation_accuracy:7.2%}  "
        f"fire {fire}  {seconds:.2f} s"
    )
    speed = "" if not samples else f"  {samples / max(seconds, 1e-9):.0f} samples/s"
    if remaining is None:
        return line + speed
    minutes, rest = divmod(round(remaining), 60)
    hours, minutes = divmod(minutes, 60)
    clock = f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
    return f"{line}{speed}  {clock} left"


#: Maximum number of entries of an array that is recorded in full; others are recorded by a hash.
_MOST_ENTRIES = 64


def as_recorded(record: Any) -> Any:
    """Return an object of the user for JSON, with non-finite numbers as text."""

    def finite(value: Any) -> Any:
        if isinstance(value, float) and not math.isfinite(value):
            return str(value)
        if isinstance(value, dict):
            return {name: finite(item) for name, item in value.items()}
        return [finite(item) for item in value] if isinstance(value, list) else value

    return finite(for_json(record))


def for_json(value: Any) -> Any:
    """Return a value in the types of JSON: records and functions with their name."""
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, complex | bytes | Enum | PurePath):
        return repr(value)
    if isinstance(value, set | frozenset):
        return sorted(map(repr, value))
    if isinstance(value, Mapping):
        return {str(name): for_json(item) for name, item in value.items()}
    if isinstance(value, tuple | list):
        return [for_json(item) for item in value]
    if hasattr(value, "dtype"):  # an array or a random key
        return of_seed(value) if str(value.dtype).startswith("key<") else _of_array(value)
    return {"name": type_name(value), **of_record(value)}


def _of_array(value: Any) -> Any:
    array = np.asarray(value)
    if array.size <= _MOST_ENTRIES and array.dtype.kind in "biuf":
        return array.tolist()
    digest = hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()
    return {"shape": list(array.shape), "type": str(array.dtype), "sha256": digest}


def of_record(record: Any) -> dict[str, Any]:
    """Return the fields of a dataclass; an empty dict for any other object."""
    if not is_dataclass(record) or isinstance(record, type):
        return {}
    return {field.name: for_json(getattr(record, field.name)) for field in fields(record)}


def of_seed(seed: Any) -> Any:
    """Return a seed as a number, or the numbers of a key."""
    words = seed_words(seed)
    return words[0] if len(words) == 1 else list(words)


def type_name(choice: Any) -> str:
    """Return the name of a function or class; of another object the name of its class."""
    return getattr(choice, "__name__", type(choice).__name__)
