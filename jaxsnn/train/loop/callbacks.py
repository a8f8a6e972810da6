"""The protocol of callbacks: functions of the user that `fit` calls after each epoch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from jaxsnn.keywords import suggests_keywords
from jaxsnn.nir.model.graph import Graph
from jaxsnn.summary import summarised
from jaxsnn.train.loop.history import EpochRecord

#: Statistics of `EpochRecord` that `EpochReport.as_dict` contains.
_STATISTICS = (
    "train_loss",
    "train_accuracy",
    "validation_loss",
    "validation_accuracy",
    "undecided",
    "clipped",
    "gradient",
)


@suggests_keywords
@summarised
@dataclass(frozen=True, kw_only=True)
class EpochReport:
    """Report on an epoch: the argument of the callbacks of `jaxsnn.fit`.

    Attributes:
        record: statistics of the epoch; epoch 0 is before training.
        epochs: number of epochs of the run.
        best_epoch: best epoch so far, whose weights `fit` returns if no later epoch is better.
        learning_rate: learning rate of the last step of the epoch, already reduced after a failure;
            None before training, and with an optax optimiser, which has its own.
        seconds: wall time of the epoch.
        graph: function that returns the graph with the weights of this epoch: those that were evaluated,
            which is the moving average if there is one. They are copied from the device when it is called.
    """

    record: EpochRecord
    epochs: int
    best_epoch: int
    learning_rate: float | None
    seconds: float = field(compare=False)
    graph: Callable[[], Graph] = field(repr=False, compare=False)

    @property
    def epoch(self) -> int:
        """Number of the epoch; 0 is before training."""
        return self.record.epoch

    @property
    def is_best(self) -> bool:
        """Whether this is the best epoch so far."""
        return self.epoch == self.best_epoch

    def as_dict(self) -> dict[str, float]:
        """Return the numbers of the epoch by name, for a logger.

        These are the fractions, losses and accuracies of `EpochRecord`, the norm of the gradient,
        `learning_rate` unless it is None, `seconds`, and for each population `spikes/NODE` and
        `silent/NODE`.
        """
        numbers: dict[str, float] = {name: getattr(self.record, name) for name in _STATISTICS}
        numbers |= {f"spikes/{name}": count for name, count in self.record.spikes.items()}
        numbers |= {f"silent/{name}": fraction for name, fraction in self.record.silent.items()}
        if self.learning_rate is not None:
            numbers["learning_rate"] = self.learning_rate
        return numbers | {"seconds": self.seconds}
