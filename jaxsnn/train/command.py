"""What `jaxsnn train` does."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxsnn.nir import Graph, write
from jaxsnn.output import write_json
from jaxsnn.train.files import load_splits
from jaxsnn.train.fit import TrainingStopped, fit
from jaxsnn.train.history import Fit


@dataclass(frozen=True, kw_only=True)
class TrainOutcome:
    """What `jaxsnn train` did.

    Attributes:
        fit: the training run.
        test_samples: number of samples that the test accuracy is measured on.
        output, history: paths of the files that were written.
        notes: what the user should know.
    """

    fit: Fit
    test_samples: int
    output: str
    history: str
    notes: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "schema": 1,
            "test_accuracy": self.fit.test_accuracy,
            "best_epoch": self.fit.best_epoch,
            "history": self.history,
            "seconds": round(sum(self.fit.seconds), 3),
            "output": self.output,
            "notes": list(self.notes),
        }

    def as_text(self) -> str:
        """For people."""
        record = self.fit.history[self.fit.best_epoch]
        epochs = len(self.fit.history) - 1
        return "\n".join(
            [
                f"test accuracy  {self.fit.test_accuracy:.2%} of {self.test_samples} samples",
                f"best epoch     {record.epoch} of {epochs}, validation {record.validation_accuracy:.2%}",
                f"trained file   {self.output}",
                f"history        {self.history}",
            ]
        )


def train_file(
    graph: Graph,
    data: str,
    output: str | os.PathLike[str],
    *,
    force: bool = False,
    seed: int = 0,
    t_end: float | None = None,
    progress: Callable[[str], None] | None = None,
    **settings: Any,
) -> TrainOutcome:
    """Train a graph on a named task or an .npz file, write the trained file and its history (OUT.history.json).

    Where training stops early, the best epoch so far is written, and the error says so.

    Args:
        data: see `jaxsnn.train.files.load_splits`.
        settings: others of `jaxsnn.train.fit`.

    Raises:
        JaxsnnError: data that do not fit, files that exist, or a training run that stops.
    """
    history = Path(output).with_suffix(".history.json")
    splits, notes = load_splits(data, seed)

    def save(trained: Fit) -> None:
        write(output, trained.graph, force)
        write_json(history, trained.as_dict(), force)

    try:
        trained = fit(graph, splits, seed=seed, t_end=t_end, progress=progress, **settings)
    except TrainingStopped as error:
        save(error.fit)
        reached = error.fit.history[error.fit.best_epoch]
        raise TrainingStopped(
            f"{error}; epoch {reached.epoch} (validation {reached.validation_accuracy:.2%}) is written to {output}",
            error.fit,
        ) from error
    save(trained)
    return TrainOutcome(
        fit=trained,
        test_samples=len(splits.test),
        output=os.fspath(output),
        history=str(history),
        notes=(*notes, *trained.notes),
    )
