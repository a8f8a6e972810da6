"""What `jaxsnn train` does."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from jaxsnn.errors import UsageError, suggestion
from jaxsnn.lower import lower
from jaxsnn.nir import Graph, write
from jaxsnn.output import write_json
from jaxsnn.train.augment import Dropout
from jaxsnn.train.checkpoint import remove_checkpoint
from jaxsnn.train.constraints import Bounded, Free, Positive
from jaxsnn.train.defaults import make_loss
from jaxsnn.train.files import load_splits
from jaxsnn.train.fit import TrainingStopped, fit
from jaxsnn.train.history import Fit
from jaxsnn.train.parallel import is_first, join_processes, partners
from jaxsnn.train.silence import Push
from jaxsnn.units import parse_time


@dataclass(frozen=True, kw_only=True)
class TrainOutcome:
    """What `jaxsnn train` did.

    Attributes:
        fit: the training run.
        test_samples: number of samples that the test accuracy is measured on.
        output, history, checkpoint: paths of the files and the folder that were written.
        notes: what the user should know.
    """

    fit: Fit
    test_samples: int
    output: str
    history: str
    checkpoint: str
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
            "checkpoint": self.checkpoint,
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
    output: str | os.PathLike[str],
    settings: Mapping[str, Any],
    *,
    force: bool = False,
    resume: bool = False,
    progress: Callable[[str], None] | None = None,
) -> TrainOutcome | None:
    """Train a graph on a named task or an .npz file, write the trained file and its history (OUT.history.json).

    Checkpoints go to the folder OUT.checkpoint. Where training stops early, the best epoch so far is written, and the
    error says so. Of several processes only the first writes; the others get None.

    Args:
        settings: by the names of `jaxsnn.train_command.OPTIONS`.
        resume: go on from the checkpoints, if there are any.

    Raises:
        JaxsnnError: data that do not fit, files that exist, or a training run that stops.
    """
    several = settings["processes"] > 1
    if several:
        if settings["coordinator"] is None:
            raise UsageError(
                f"{settings['processes']} processes need --coordinator HOST:PORT, the address of process 0"
            )
        join_processes(settings["coordinator"], settings["processes"], settings["process"])
    trained_path, history = Path(output), Path(output).with_suffix(".history.json")
    checkpoint = Path(output).with_suffix(".checkpoint")
    if force and not resume and is_first():
        remove_checkpoint(checkpoint)
    splits, notes = load_splits(
        settings["data"], settings["seed"], folder=settings["data-folder"], copies=settings["copies"]
    )

    def save(trained: Fit) -> None:
        if is_first():
            write(trained_path, trained.graph, force)
            write_json(history, trained.as_dict(), force)

    try:
        with partners(checkpoint if several else None):
            chosen = fit_settings(graph, settings)
            trained = fit(graph, splits, checkpoint=checkpoint, resume=resume, progress=progress, **chosen)
    except TrainingStopped as error:
        save(error.fit)
        reached = error.fit.history[error.fit.best_epoch]
        raise TrainingStopped(
            f"{error}; epoch {reached.epoch} (validation {reached.validation_accuracy:.2%}) is written to {output}",
            error.fit,
        ) from error
    save(trained)
    if not is_first():
        return None
    if settings["plot"] is not None:
        _draw(settings["plot"], trained, splits.name, force)
    return TrainOutcome(
        fit=trained,
        test_samples=len(splits.test),
        output=os.fspath(output),
        history=str(history),
        checkpoint=str(checkpoint),
        notes=(*notes, *trained.notes),
    )


def fit_settings(graph: Graph, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Keyword arguments of `jaxsnn.train.fit`.

    Raises:
        UsageError: a table of the configuration that makes no sense.
    """
    loss: Any = settings["loss"]
    if "loss-options" in settings:
        network = lower(graph)
        loss = make_loss(loss, network, settings["t-end"])
        loss = _replaced(loss, settings["loss-options"], "loss-options")
    chosen = {name: settings[name] for name in ("epochs", "schedule", "optimiser", "seed", "engine", "averaging")}
    chosen |= {name: settings[name] for name in ("clip", "patience", "devices")}
    return chosen | {
        "loss": loss,
        "batch_size": settings["batch-size"],
        "learning_rate": settings["lr"],
        "t_end": settings["t-end"],
        "on_failure": settings["on-failure"],
        "trainable": _trainable(settings),
        "push": _replaced(Push(), settings["push"], "push") if "push" in settings else None,
        "augment": Dropout(probability=settings["dropout"]) if settings["dropout"] else None,
    }


_KINDS = {"free": Free, "positive": Positive, "bounded": Bounded}


def _trainable(settings: Mapping[str, Any]) -> Any:
    if "trainable" not in settings:
        return tuple(name.strip() for name in settings["train"].split(",") if name.strip())
    constraints = {}
    for name, table in settings["trainable"].items():
        fields = dict(table)
        kind = fields.pop("kind", "free")
        if kind not in _KINDS:
            raise UsageError(f"trainable.{name}: there is no kind '{kind}': {suggestion(kind, _KINDS)}")
        for bound in ("low", "high"):  # of times, with a unit; another parameter's name stays text
            if isinstance(fields.get(bound), str) and fields[bound][:1].isdigit():
                fields[bound] = parse_time(fields[bound])
        try:
            constraints[name] = _KINDS[kind](**fields)
        except TypeError as error:
            raise UsageError(f"trainable.{name}: {error}: see jaxsnn.train.{_KINDS[kind].__name__}") from error
    return constraints


def _replaced(record: Any, table: Mapping[str, Any], where: str) -> Any:
    known = [field.name for field in fields(record)]
    for name in table:
        if name not in known:
            raise UsageError(f"{where}: there is no '{name}': {suggestion(name, known)}")
    return replace(record, **table)


def _draw(path: str, trained: Fit, name: str, force: bool) -> None:
    from jaxsnn.plot import learning_curve

    learning_curve(
        path,
        trained.history,
        best_epoch=trained.best_epoch,
        test_accuracy=trained.test_accuracy,
        title=f"{name}: loss and error by epoch",
        force=force,
    )
