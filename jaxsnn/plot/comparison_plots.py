"""Two runs beside each other: continuous time and steps, a recording and a simulation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxsnn.errors import UsageError
from jaxsnn.plot.picture import (
    BLACK,
    BLUE,
    GREY,
    ORANGE,
    VERMILION,
    Picture,
    new_figure,
    picture_of,
    quiet,
)


def fidelity(found: Any, *, title: str = "") -> Picture:
    """Spikes of each population in continuous time and in steps, and how alike the counts are.

    Args:
        found: what `jaxsnn.fidelity` gave.

    Raises:
        UsageError: matplotlib is missing, or no population fires.
    """
    if not found.populations:
        raise UsageError("no population fires", fix="compare a network with spiking populations")
    names = list(found.populations)
    figure = new_figure(6.8, 1.5 + 0.75 * len(names))
    axes = figure.subplots()
    places = np.arange(len(names))
    kinds = (("event", "continuous time", BLUE), ("grid", "steps of the source", ORANGE))
    for number, (field, label, colour) in enumerate(kinds):
        counts = [getattr(found.populations[name], field) for name in names]
        bars = axes.barh(places + 0.38 * (number - 0.5), counts, 0.34, color=colour, label=label)
        axes.bar_label(bars, [f" {count}" for count in counts], fontsize=8)
    cosines = [found.populations[name].count_cosine for name in names]
    said = ["undefined" if cosine is None else f"{cosine:.4f}" for cosine in cosines]
    rows = [f"{name}\ncosine {one}" for name, one in zip(names, said, strict=True)]
    axes.set_yticks(places, labels=rows, fontsize=9)
    axes.invert_yaxis()
    axes.margins(x=0.14)
    axes.set_xlabel("spikes, all samples and neurons together")
    figure.legend(fontsize=8, loc="outside lower center", ncols=2)
    quiet(axes, "x")
    figure.suptitle(title or "cosine: similarity of the spike counts of all neurons", fontsize=10)
    return picture_of(
        figure, f"spikes in continuous time and in steps of {', '.join(map(repr, names))}"
    )


def first_difference(
    found: Any, solution: Any, recording: Any, *, around: int = 20, title: str = ""
) -> Picture:
    """The neuron that first differs from a recording, some steps before and behind.

    Args:
        found: what `jaxsnn.verify` gave; its `first_difference` is looked at.
        solution: the time-stepped run.
        recording: what came out of the source, (time, batch, *shape); or a mapping from the Output
            node's name.
        around: how many steps before and behind.

    Raises:
        UsageError: matplotlib is missing, or nothing differs.
    """
    first = found.first_difference
    if first is None:
        raise UsageError("nothing differs from the recording", fix="draw a raster instead")
    expected = recording[first.node] if isinstance(recording, Mapping) else recording
    expected, got = (
        np.asarray(array)[:, first.batch].reshape(len(array), -1)[:, first.neuron]
        for array in (expected, solution.y[first.node])
    )
    begin, end = max(first.step - around, 0), min(first.step + around + 1, len(expected))
    steps = np.arange(begin, end)
    spikes = first.node in solution.spiking
    figure = new_figure(7.2, 2.8)
    axes = figure.subplots()
    axes.axvspan(first.step - 0.5, first.step + 0.5, color=ORANGE, alpha=0.3, linewidth=0)
    drawn = _draw_trains if spikes else _draw_membranes
    drawn(axes, steps, expected[begin:end], got[begin:end])
    axes.set(xlim=(begin - 0.7, end - 0.3))
    axes.set_xlabel(f"step, {begin} to {end - 1} of {len(expected)}")
    axes.xaxis.get_major_locator().set_params(integer=True)
    quiet(axes, "x" if spikes else "both")
    where = f"node {first.node}, neuron {first.neuron}, sample {first.batch}, step {first.step}"
    said = f"{where}: {first.expected:g} was recorded, {first.got:g} simulated"
    figure.suptitle(title or said, fontsize=10)
    return picture_of(figure, f"first difference, {said}")


def _draw_trains(axes: Any, steps: np.ndarray, expected: np.ndarray, got: np.ndarray) -> None:
    """Two rows of spikes; those that only one row has stand out."""
    for row, own, other, colour in ((1, expected, got, GREY), (0, got, expected, BLUE)):
        for marked, shade in ((own == other, colour), (own != other, VERMILION)):
            when = steps[(own != 0) & marked]
            axes.vlines(when, row - 0.32, row + 0.32, color=shade, linewidth=3)
    axes.set_yticks([1, 0], labels=["recorded", "simulated"])
    axes.set_ylim(-0.6, 2.1)  # room for the legend
    axes.plot([], [], color=VERMILION, linewidth=3, label="in one of the two only")
    axes.legend(fontsize=8, loc="upper left")


def _draw_membranes(axes: Any, steps: np.ndarray, expected: np.ndarray, got: np.ndarray) -> None:
    axes.plot(steps, expected, color=BLACK, linewidth=1.4, label="recorded")
    axes.plot(steps, got, color=BLUE, linewidth=1.4, linestyle="--", label="simulated")
    axes.set_ylabel("V, as in the file")
    axes.legend(fontsize=8)
