"""The last step: pictures of the chip, of the training run, and of the trained network's spikes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from jaxsnn import plot
from jaxsnn.bss2.floorplan import floorplan
from jaxsnn.bss2.mapping import Mapping
from jaxsnn.commands.arguments import line_of
from jaxsnn.commands.demo.demo_steps import DemoRun
from jaxsnn.errors import UsageError
from jaxsnn.network.spikes import Events
from jaxsnn.output import write_whole
from jaxsnn.train import Data, Fit


def draw_step(
    folder: Path, found: tuple[Fit, DemoRun], mapping: Mapping, data: Data, force: bool
) -> tuple[tuple[str, ...], list[str], dict[str, Any]]:
    """The pictures' names; the chip's is always among them, the others need matplotlib."""
    names = ("floorplan.svg", "learning_curve.png", "raster.png")
    text = floorplan(mapping)
    write_whole(folder / names[0], text, force)
    lines = [f"{names[0]}: neurons, synapse arrays and crossbar of the chip, and how full they are"]
    trained, after = found
    try:
        plot.learning_curve(
            folder / names[1],
            trained.history,
            best_epoch=trained.best_epoch,
            test_accuracy=trained.test_accuracy,
            title="Yin-Yang, trained on exact spike times",
            force=force,
        )
        _draw_raster(folder / names[2], after, data, force)
    except UsageError as error:
        why = line_of(error.problem)
        facts = {"pictures": list(names[:1]), "left_out": why}
        return names[:1], [*lines, f"left out: {why}"], facts
    lines.append(
        f"{names[1]}: errors and loss by epoch; {names[2]}: what goes in, what fires, who is first"
    )
    return names, lines, {"pictures": list(names)}


def _draw_raster(path: Path, ran: DemoRun, data: Data, force: bool) -> None:
    """One point of each class: what goes in, what the hidden layer does, who is first at the
    output.
    """
    (entry, events), *_ = ran.inputs.items()
    samples = []
    for label, kind in enumerate(data.classes):
        sample = int(np.flatnonzero(data.y == label)[0])
        trains = {entry: _one_train(events, sample, ran.network.inputs[entry])}
        for name in ran.solution.spikes:
            size = ran.network.populations[name].size
            trains[name] = _one_train(ran.solution.events(name), sample, size)
        x, y = data.x[sample, :2]
        samples.append((f"a point of '{kind}': x = {x:.2f}, y = {y:.2f}", trains))
    last = list(ran.solution.spikes)[-1]
    latest = max(
        float(train.time.max(initial=0.0)) for _, trains in samples for train in trains.values()
    )
    plot.raster(
        path,
        samples,
        t_end=min(1.05 * latest, ran.t_end),
        title="The trained network on three test points: the first spike of the last row (circled) is its answer",
        labels={entry: ("x", "y", "1-x", "1-y", "bias"), last: data.classes},
        circled=last,
        force=force,
    )


def _one_train(events: Events, sample: int, size: int) -> plot.SpikeTrain:
    time, index = np.asarray(events.time)[sample], np.asarray(events.index)[sample]
    used = np.isfinite(time)
    return plot.SpikeTrain(time=time[used], index=index[used], size=size)
