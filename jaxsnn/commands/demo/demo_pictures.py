"""The last step: pictures of the chip, of the training run, and of the trained network's spikes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from jaxsnn import plot
from jaxsnn.bss2.floorplan import floorplan
from jaxsnn.bss2.mapping import Mapping
from jaxsnn.commands.demo.demo_steps import DemoRun
from jaxsnn.commands.remarks import line_of
from jaxsnn.errors import UsageError
from jaxsnn.output import write_atomically
from jaxsnn.train import Data, Fit


def draw_step(
    folder: Path, fit_and_run: tuple[Fit, DemoRun], mapping: Mapping, data: Data, force: bool
) -> tuple[tuple[str, ...], list[str], dict[str, Any]]:
    """Draw the pictures and return their file names; the floor plan is always among them, the
    others need matplotlib.
    """
    file_names = ("floorplan.svg", "learning_curve.png", "raster.png")
    text = floorplan(mapping)
    write_atomically(folder / file_names[0], text, force)
    lines = [
        f"{file_names[0]}: neurons, synapse arrays and crossbar of the chip, and their utilisation"
    ]
    trained, after = fit_and_run
    try:
        title = "Yin-Yang, trained on exact spike times"
        plot.learning_curve(trained, title=title).save(folder / file_names[1], force)
        raster_of(after, data).save(folder / file_names[2], force)
    except UsageError as error:
        why = line_of(error.problem)
        facts = {"pictures": list(file_names[:1]), "left_out": why}
        return file_names[:1], [*lines, f"pictures that were not drawn: {why}"], facts
    lines.append(
        f"{file_names[1]}: error and loss by epoch; {file_names[2]}: input, hidden and first output spikes"
    )
    return file_names, lines, {"pictures": list(file_names)}


def raster_of(ran: DemoRun, data: Data) -> plot.Picture:
    """Draw one point of each class: input spikes, hidden spikes, and the first output spikes."""
    (entry,) = ran.inputs
    last = list(ran.solution.spikes)[-1]
    shown = [int(np.flatnonzero(data.y == label)[0]) for label in range(len(data.classes))]
    captions = [
        f"a point of '{kind}': x = {data.x[sample, 0]:.2f}, y = {data.x[sample, 1]:.2f}"
        for sample, kind in zip(shown, data.classes, strict=True)
    ]
    return plot.raster(
        ran.solution,
        inputs=ran.inputs,
        samples=shown,
        captions=captions,
        title="The trained network on three test points: the first output spike (circled) "
        "determines the class",
        labels={entry: ("x", "y", "1-x", "1-y", "bias"), last: data.classes},
        circled=last,
    )
