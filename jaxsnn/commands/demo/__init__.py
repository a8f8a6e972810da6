"""The main job on a file that another framework wrote: read, simulate, train, export, read back,
compare, map.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from jaxsnn.commands.demo.demo_mapping import map_step, prove_step
from jaxsnn.commands.demo.demo_pictures import draw_step
from jaxsnn.commands.demo.demo_report import DemoReport, DemoStep, Steps, step_text
from jaxsnn.commands.demo.demo_steps import (
    SOURCE,
    check_step,
    export_step,
    read_back_step,
    read_step,
    simulate_step,
    train_step,
)
from jaxsnn.errors import FileError, refuse_seed
from jaxsnn.output import refuse_unwritable, write_json
from jaxsnn.train import yinyang_splits
from jaxsnn.train.data.datasets import YINYANG_SIZES

__all__ = ["FILES", "DemoReport", "DemoStep", "demo", "step_text"]

#: What the demo writes into its folder.
FILES = (
    "trained.nir",
    "history.json",
    "mapping.json",
    "floorplan.svg",
    "learning_curve.png",
    "raster.png",
    "report.json",
)


def demo(
    folder: str | Path,
    *,
    force: bool = False,
    epochs: int = 50,
    seed: int = 0,
    sizes: Sequence[int] | None = None,
    step_done: Callable[[int, DemoStep], None] | None = None,
    progress: Callable[[str], None] | None = None,
) -> DemoReport:
    """Run the main job and write what came of it into a folder.

    Args:
        folder: is made if it does not exist.
        force: overwrite the files of an earlier run.
        epochs, seed: of the training run.
        sizes: numbers of points for training, validation and test; default those of the paper.
        step_done: is told each step, with its number, as it ends.
        progress: takes one line for each epoch.

    Raises:
        UsageError: a seed that is none.
        FileError: a file would be overwritten.
        SimulationError: the file that was read back does not fire the same spikes.
    """
    refuse_seed(seed)
    folder = _prepared(Path(folder), force)
    data = yinyang_splits(seed, sizes or YINYANG_SIZES)
    exported = folder / "trained.nir"
    steps = Steps(step_done)

    graph = steps.run("read", read_step, SOURCE)
    before = steps.run("simulate", simulate_step, graph, data.test)
    steps.run("check", check_step, before)
    trained, after = steps.run("train", train_step, graph, data, epochs, seed, progress, before)
    steps.run("export", export_step, trained.graph, SOURCE, exported, force)
    steps.run("read back", read_back_step, exported, data.test, after)
    quantized = steps.run("map", map_step, exported, folder / "mapping.json", force)
    mapping = steps.run("prove", prove_step, quantized, folder / "mapping.json")
    written = steps.run("draw", draw_step, folder, (trained, after), mapping, data.test, force)

    write_json(folder / "history.json", trained.as_dict(), force)
    names = ("trained.nir", "history.json", "mapping.json", *written, "report.json")
    files = {name: str(folder / name) for name in FILES if name in names}
    report = DemoReport(test_accuracy=trained.test_accuracy, steps=tuple(steps.done), files=files)
    write_json(folder / "report.json", report.as_dict(), force)
    return report


def _prepared(folder: Path, force: bool) -> Path:
    """The folder, made if it is missing, with room for all files."""
    if folder.exists() and not folder.is_dir():
        raise FileError(f"{folder} is a file: name a folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FileError(f"{folder} cannot be made: {error.strerror}") from error
    for name in FILES:
        refuse_unwritable(folder / name, force)
    return folder
