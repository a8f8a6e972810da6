"""What `jaxsnn train` does."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from jaxsnn.bss2.emulate import EmulatedChip
from jaxsnn.errors import UsageError, suggestion
from jaxsnn.network.lowering.lower import lower
from jaxsnn.nir import Graph, write
from jaxsnn.nir.passes import shapes
from jaxsnn.output import write_json, write_whole
from jaxsnn.train.data.augment import Dropout
from jaxsnn.train.data.datasets import Splits
from jaxsnn.train.data.labelled_files import MOST_CLASSES, load_splits
from jaxsnn.train.fitting import TrainingStopped, fit
from jaxsnn.train.loop.chip_training import (
    HEADROOM,
    OnChip,
    device_of,
    mapped,
    off_chip_accuracy,
    on_chip,
)
from jaxsnn.train.loop.constraints import Bounded, Free, Positive
from jaxsnn.train.loop.defaults import make_loss
from jaxsnn.train.loop.history import Fit
from jaxsnn.train.loop.in_the_loop import InTheLoop
from jaxsnn.train.loop.parallel import is_first, join_processes, partners
from jaxsnn.train.losses.silence import Push
from jaxsnn.units import parse_time


@dataclass(frozen=True, kw_only=True)
class TrainOutcome:
    """What `jaxsnn train` did.

    Attributes:
        fit: the training run.
        test_samples: number of samples that the test accuracy is measured on.
        output, history, checkpoint: paths of the files and the folder that were written.
        notes: what the user should know.
        on_chip: what there is to say of the emulated chip; None on other engines.
    """

    fit: Fit
    test_samples: int
    output: str
    history: str
    checkpoint: str
    notes: tuple[str, ...]
    on_chip: OnChip | None = None

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
            **({} if self.on_chip is None else self.on_chip.as_dict()),
        }

    def as_text(self) -> str:
        """For people."""
        record = self.fit.history[self.fit.best_epoch]
        epochs = len(self.fit.history) - 1
        chip = self.on_chip
        where = "" if chip is None else f", on the emulated chip {chip.seed}"
        lines = [
            f"test accuracy  {self.fit.test_accuracy:.2%} of {self.test_samples} samples{where}",
            f"best epoch     {record.epoch} of {epochs}, validation {record.validation_accuracy:.2%}",
            f"trained file   {self.output}",
            f"history        {self.history}",
        ]
        if chip is not None:
            lines.insert(
                1,
                f"off the chip   {chip.off_chip_accuracy:.2%}: the same weights on the event engine",
            )
            lines.append(f"mapping        {chip.mapping}")
        return "\n".join(lines)


def train_file(
    graph: Graph,
    output: str | os.PathLike[str],
    settings: Mapping[str, Any],
    *,
    force: bool = False,
    resume: bool = False,
    progress: Callable[[str], None] | None = None,
) -> TrainOutcome | None:
    """Train a graph on a named task or an .npz file, write the trained file and its history
    (OUT.history.json).

    Checkpoints go to the folder OUT.checkpoint. Where training stops early, the best epoch so far
    is written, and the error says so. Of several processes only the first writes; the others get
    None.

    Args:
        settings: by the names of `jaxsnn.commands.train_command.OPTIONS`.
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
    files = _Files(trained=Path(output), force=force)
    splits, notes = load_splits(
        settings["data"],
        settings["seed"],
        folder=settings["data-folder"],
        copies=settings["copies"],
        outputs=_outputs(graph),
    )
    chosen = fit_settings(graph, settings, splits.span)
    try:
        with partners(files.checkpoint if several else None):
            to: dict[str, Any] = {
                "checkpoint": files.checkpoint,
                "resume": resume,
                "overwrite": force,
            }
            trained = fit(graph, splits, progress=progress, **to, **chosen)
    except TrainingStopped as error:
        said = "".join(f"; {note}" for note in files.write(error.fit, chosen["engine"]))
        reached = error.fit.history[error.fit.best_epoch]
        where = f"epoch {reached.epoch} (validation {reached.validation_accuracy:.2%}) is written to {output}"
        raise TrainingStopped(f"{error}; {where}{said}", error.fit) from error
    notes += (*trained.notes, *files.write(trained, chosen["engine"]))
    if not is_first():
        return None
    if settings["plot"] is not None:
        _draw(settings["plot"], trained, splits.name, force)
    return TrainOutcome(
        fit=trained,
        test_samples=len(splits.test),
        output=os.fspath(output),
        history=str(files.history),
        checkpoint=str(files.checkpoint),
        notes=notes,
        on_chip=_off_the_chip(trained, splits, chosen, files)
        if settings["engine"] == "loop"
        else None,
    )


def _outputs(graph: Graph) -> int:
    """Size of the widest Output."""
    known = shapes(graph)
    sizes = [math.prod(shape) for name in graph.outputs if (shape := known[name][0]) is not None]
    return max(sizes, default=MOST_CLASSES)


@dataclass(frozen=True, kw_only=True)
class _Files:
    """What a run writes, beside the trained file; `force`: over files that exist."""

    trained: Path
    force: bool

    @property
    def history(self) -> Path:
        return self.trained.with_suffix(".history.json")

    @property
    def mapping(self) -> Path:
        return self.trained.with_suffix(".mapping.json")

    @property
    def checkpoint(self) -> Path:
        return self.trained.with_suffix(".checkpoint")

    def write(self, done: Fit, engine: Any) -> tuple[str, ...]:
        """Write the files, in the first process; notes on what the chip does otherwise, if one was
        in the loop.
        """
        if not is_first():
            return ()
        in_the_loop = isinstance(engine, InTheLoop)
        text, notes = mapped(engine, done.graph) if in_the_loop else ("", ())
        write(self.trained, done.graph, self.force)
        write_json(self.history, done.as_dict(), self.force)
        if in_the_loop:
            write_whole(
                self.mapping, lambda path: path.write_text(text, encoding="utf-8"), self.force
            )
        return notes


#: Of the engine "loop", where nobody says otherwise.
LOOP_DEFAULTS: Mapping[str, Any] = MappingProxyType(
    {"chip-seed": 0, "headroom": HEADROOM, "runs": 1}
)


def _off_the_chip(trained: Fit, data: Splits, chosen: Mapping[str, Any], files: _Files) -> OnChip:
    """What an emulated chip makes the outcome say."""
    accuracy = off_chip_accuracy(trained.graph, data, chosen["loss"], chosen["t_end"])
    return OnChip(
        seed=device_of(chosen["engine"]).chip.seed,
        mapping=str(files.mapping),
        off_chip_accuracy=accuracy,
    )


def fit_settings(graph: Graph, settings: Mapping[str, Any], span: float | None) -> dict[str, Any]:
    """Keyword arguments of `jaxsnn.train.fitting`; `span` is that of the data.

    Raises:
        UsageError: a table of the configuration that makes no sense.
        MappingError: the engine "loop", and a network that the chip cannot run.
    """
    loss: Any = settings["loss"]
    engine: Any = settings["engine"]
    if "loss-options" in settings or engine == "loop":
        loss = make_loss(loss, lower(graph), settings["t-end"], span=span)
        loss = _replaced(loss, settings.get("loss-options", {}), "loss-options")
    if engine == "loop":
        given = {name: settings[name] for name in LOOP_DEFAULTS if settings[name] is not None}
        chosen = {**LOOP_DEFAULTS, **given}
        chip = EmulatedChip(seed=chosen["chip-seed"])
        engine = on_chip(
            graph, loss, chip=chip, headroom=chosen["headroom"], max_runs=chosen["runs"]
        )
    chosen = {
        name: settings[name] for name in ("epochs", "schedule", "optimiser", "seed", "averaging")
    }
    chosen |= {"engine": engine}
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
            raise UsageError(
                f"trainable.{name}: there is no kind '{kind}': {suggestion(kind, _KINDS)}"
            )
        for bound in ("low", "high"):  # of times, with a unit; another parameter's name stays text
            if isinstance(fields.get(bound), str) and fields[bound][:1].isdigit():
                fields[bound] = parse_time(fields[bound])
        try:
            constraints[name] = _KINDS[kind](**fields)
        except TypeError as error:
            raise UsageError(
                f"trainable.{name}: {error}: see jaxsnn.train.{_KINDS[kind].__name__}"
            ) from error
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
