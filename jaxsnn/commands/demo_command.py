"""`jaxsnn demo`: the main job on a file that another framework wrote: read, simulate, train,
export, read back, compare, map.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxsnn.commands.arguments import (
    add_command,
    output_options,
    print_outcome,
    refuse_report,
    write_report,
)
from jaxsnn.commands.demo.demo_log import DemoStep, Steps, step_text
from jaxsnn.commands.reports.report_page import facts, figure, page, summary
from jaxsnn.commands.reports.report_parts import (
    chip_section,
    dialect_section,
    input_section,
    limitations_section,
    training_results,
)
from jaxsnn.console import print_arriving, to_stderr
from jaxsnn.errors import FileError, printable, refuse_seed
from jaxsnn.options import EPOCHS, REPORT, SEED
from jaxsnn.output import refuse_unwritable, write_json
from jaxsnn.wording import Text

if TYPE_CHECKING:
    from jaxsnn.bss2.mapping import Mapping
    from jaxsnn.bss2.search.quantize import Quantized
    from jaxsnn.commands.demo.demo_steps import DemoRun
    from jaxsnn.nir import Graph
    from jaxsnn.train import Data, Fit

#: Files that the demo writes into its folder.
FILES = (
    "trained.nir",
    "history.json",
    "mapping.json",
    "floorplan.svg",
    "learning_curve.png",
    "raster.png",
    "report.json",
)


@dataclass(frozen=True, kw_only=True)
class DemoOutcome:
    """Outcome of `jaxsnn demo`.

    Attributes:
        test_accuracy: fraction.
        steps: in order.
        files: the names of `FILES` that were written -> path.
        parts: content of a report.
    """

    test_accuracy: float
    steps: tuple[DemoStep, ...]
    files: dict[str, str]
    parts: DemoParts = field(repr=False)

    def as_dict(self) -> dict[str, Any]:
        """Return a JSON-compatible dict."""
        steps = [
            {"name": step.name, **step.facts, "seconds": round(step.seconds, 3)}
            for step in self.steps
        ]
        return {
            "schema": 1,
            "test_accuracy": self.test_accuracy,
            "steps": steps,
            "files": dict(self.files),
        }

    def as_text(self) -> str:
        """Return human-readable text to print after the steps."""
        seconds = sum(step.seconds for step in self.steps)
        files = [f"  {path}" for path in self.files.values()]
        return "\n".join([f"test accuracy {self.test_accuracy:.2%}, in {seconds:.0f} s", *files])


@dataclass(frozen=True, kw_only=True)
class DemoParts:
    """Content of a report of the demo: the file and its graph, the test points, the untrained network
    on these points, the training run, the trained network on the same points, and its mapping.
    """

    source: Path
    graph: Graph
    data: Data
    before: DemoRun
    trained: Fit
    after: DemoRun
    quantized: Quantized
    mapping: Mapping


def add(commands: Any) -> None:
    """Add the parser."""
    text = "demonstrate all steps on an included file: read, simulate, train, export, compare, map"
    folder_help = "folder for the results (default jaxsnn-demo)"
    output = output_options("DIR", folder_help, default="jaxsnn-demo", file="folder")
    epochs, seed = EPOCHS.but(help="default 50"), SEED.but(help="default 0")
    add_command(commands, "demo", run, text, *output, epochs, seed, REPORT)


def run(arguments: argparse.Namespace) -> int:
    """Run the command; exit code 0."""

    def show(number: int, step: DemoStep) -> None:
        if not arguments.json:
            print_arriving(printable(step_text(number, step)), flush=True)

    refuse_seed(arguments.seed)
    _prepared(Path(arguments.output), arguments.force)  # the report may be written into this folder
    refuse_report(arguments)
    outcome = demo(
        arguments.output,
        force=arguments.force,
        epochs=arguments.epochs,
        seed=arguments.seed,
        step_done=show,
        progress=None if arguments.quiet else to_stderr,
    )
    write_report(arguments, demo_report, outcome)
    print_outcome(arguments, outcome)
    return 0


def demo(
    folder: str | Path,
    *,
    force: bool = False,
    epochs: int = 50,
    seed: int = 0,
    sizes: Sequence[int] | None = None,
    step_done: Callable[[int, DemoStep], None] | None = None,
    progress: Callable[[str], None] | None = None,
) -> DemoOutcome:
    """Run all steps of the demo and write the results into a folder.

    Args:
        folder: output folder; it is created if it does not exist.
        force: overwrite the files of an earlier run.
        epochs, seed: number of epochs and seed of the training run.
        sizes: numbers of points for training, validation and test; default those of the paper.
        step_done: called with the number and the record of each step as it ends.
        progress: called with one line for each epoch.

    Raises:
        UsageError: the seed is not a valid seed of a random key.
        FileError: a file would be overwritten.
        SimulationError: the file that was read back does not fire the same spikes.
    """
    from jaxsnn.commands.demo import demo_steps as work
    from jaxsnn.commands.demo.demo_mapping import map_step, prove_step
    from jaxsnn.commands.demo.demo_pictures import draw_step
    from jaxsnn.train import yinyang_splits
    from jaxsnn.train.data.datasets import YINYANG_SIZES

    refuse_seed(seed)
    folder = _prepared(Path(folder), force)
    data = yinyang_splits(seed, sizes or YINYANG_SIZES)
    exported = folder / "trained.nir"
    steps = Steps(step_done)

    graph = steps.run("read", work.read_step, work.SOURCE)
    steps.run("kernels", work.kernels_step)
    before = steps.run("simulate", work.simulate_step, graph, data.test)
    steps.run("check", work.check_step, before)
    trained, after = steps.run(
        "train", work.train_step, graph, data, epochs, seed, progress, before
    )
    steps.run("export", work.export_step, trained.graph, work.SOURCE, exported, force)
    steps.run("read back", work.read_back_step, exported, data.test, after)
    quantized = steps.run("map", map_step, exported, folder / "mapping.json", force)
    mapping = steps.run("prove", prove_step, quantized, folder / "mapping.json")
    written = steps.run("draw", draw_step, folder, (trained, after), mapping, data.test, force)

    write_json(folder / "history.json", trained.as_dict(), force)
    file_names = ("trained.nir", "history.json", "mapping.json", *written, "report.json")
    files = {name: str(folder / name) for name in FILES if name in file_names}
    outcome = DemoOutcome(
        test_accuracy=trained.test_accuracy,
        steps=tuple(steps.done),
        files=files,
        parts=DemoParts(
            source=work.SOURCE,
            graph=graph,
            data=data.test,
            before=before,
            trained=trained,
            after=after,
            quantized=quantized,
            mapping=mapping,
        ),
    )
    write_json(folder / "report.json", outcome.as_dict(), force)
    return outcome


def _prepared(folder: Path, force: bool) -> Path:
    """Return the folder, created if it is missing, after checking that all files can be written."""
    try:
        if folder.exists() and not folder.is_dir():
            raise FileError(Text("{path} is a file", path=folder), fix="pass the path of a folder")
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FileError(
            Text("{path} cannot be created ({error})", path=folder, error=error.strerror),
            fix="pass the path of another folder",
        ) from error
    for name in FILES:
        refuse_unwritable(folder / name, force)
    return folder


def demo_report(arguments: argparse.Namespace, outcome: DemoOutcome) -> str:
    """Return the page on the network before and after training, and on the chip."""
    from jaxsnn.bss2.usage import used
    from jaxsnn.commands.demo.demo_pictures import raster_of

    parts = outcome.parts
    step_facts = {step.name: step.facts for step in outcome.steps}
    circuits = used(parts.mapping)["circuits"]
    spikes_per_sample = sum(
        float(spikes.count.sum()) for spikes in parts.after.solution.spikes.values()
    ) / len(parts.data)
    key_figures = {
        "test accuracy before training": f"{parts.before.accuracy:.2%}",
        "test accuracy": f"{outcome.test_accuracy:.2%}",
        "spikes per sample": f"{spikes_per_sample:.1f}",
        "circuits on the chip": f"{circuits['used']} of {circuits['available']}",
        "violations of the mapping": step_facts["prove"]["violations"],
        "seconds": f"{sum(step.seconds for step in outcome.steps):.0f}",
    }
    compared = {
        "test samples": len(parts.data),
        "datasets that training changed": step_facts["export"]["changed"],
        "spikes after reading the trained file back, identical bit for bit": sum(
            step_facts["read back"]["spikes"].values()
        ),
    }
    raster = figure(
        lambda: raster_of(parts.after, parts.data),
        "input spikes, hidden spikes and the first output spike, which is the answer",
    )
    sections = {
        "Input": input_section(arguments, parts.graph, parts.source),
        "Dialect": dialect_section(parts.graph),
        "Results": facts(compared)
        + raster
        + training_results(parts.graph, parts.trained)
        + f"<h3>Files</h3>{facts(outcome.files)}",
        "Chip": chip_section(parts.mapping, parts.quantized),
        "Limitations": limitations_section(
            (*parts.trained.notes, *parts.quantized.notes), parts.graph
        ),
    }
    result = f"Test accuracy {outcome.test_accuracy:.2%}; the trained network fits on BrainScaleS-2"
    return page(
        "demo: a network from snnTorch, trained and mapped",
        summary(result, key_figures, True),
        sections,
    )
