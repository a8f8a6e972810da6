"""Pictures: learning curves and rasters.

matplotlib is imported inside functions; its global state is not used.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jaxsnn.errors import UsageError
from jaxsnn.output import write_whole
from jaxsnn.units import SECONDS

# Colours that stay apart for colour-blind readers (Okabe and Ito).
_BLUE, _ORANGE, _GREEN, _RED, _GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#777777"


def _figure(width: float, height: float) -> Any:
    """A figure that no window and no pyplot knows."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UsageError(
            "pictures need matplotlib, which is not installed",
            fix="pip install 'jaxsnn-nir[plot]'",
        ) from error
    figure = Figure(figsize=(width, height), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _save(figure: Any, path: str | Path, force: bool) -> None:
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png")
    write_whole(path, drawn.getvalue(), force)


def learning_curve(
    path: str | Path,
    history: Sequence[Any],
    *,
    best_epoch: int,
    test_accuracy: float,
    title: str,
    force: bool = False,
) -> None:
    """Loss and error rate of a training run by epoch, as PNG.

    Args:
        history: records with epoch, train_loss, validation_loss, train_accuracy,
            validation_accuracy.
        best_epoch: the epoch that is marked.
        test_accuracy: fraction, drawn as a line.
    """
    figure = _figure(8.0, 4.0)
    errors, losses = figure.subplots(1, 2)
    epochs = [record.epoch for record in history]
    for axes, name in ((errors, "accuracy"), (losses, "loss")):
        for part, colour in (("train", _GREY), ("validation", _BLUE)):
            values = np.array([getattr(record, f"{part}_{name}") for record in history])
            values = 100 * (1 - values) if name == "accuracy" else values
            axes.plot(
                epochs,
                values,
                color=colour,
                label="training" if part == "train" else part,
                linewidth=1.4,
            )
        axes.axvline(
            best_epoch,
            color=_ORANGE,
            linewidth=1,
            linestyle="--",
            label=f"best epoch: {best_epoch}",
        )
        axes.set(xlabel="epoch", yscale="log", xlim=(0, max(epochs[-1], 1)))
        axes.grid(True, which="both", alpha=0.25, linewidth=0.5)
    test_error = 100 * (1 - test_accuracy)
    if test_error > 0:
        label = f"test, evaluated once: {test_error:.2f} %"
        errors.axhline(test_error, color=_RED, linewidth=1, linestyle=":", label=label)
    errors.set(ylabel="error rate, %")
    errors.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    errors.yaxis.set_minor_formatter(
        lambda value, _: f"{value:g}" if f"{value:.0e}"[0] in "25" else ""
    )
    losses.set(ylabel="loss")
    errors.legend(fontsize=8)
    losses.legend(fontsize=8)
    figure.suptitle(title, fontsize=11)
    _save(figure, path, force)


@dataclass(frozen=True, kw_only=True)
class SpikeTrain:
    """Spikes of one population in one sample: `time` (spikes,) in seconds, `index` (spikes,);
    `size` neurons.
    """

    time: np.ndarray
    index: np.ndarray
    size: int


def raster(
    path: str | Path,
    samples: Sequence[tuple[str, Mapping[str, SpikeTrain]]],
    *,
    t_end: float,
    title: str,
    labels: Mapping[str, Sequence[str]] | None = None,
    circled: str | None = None,
    force: bool = False,
) -> None:
    """Spikes of several samples side by side, one row for each population, on one time axis; as
    PNG.

    Args:
        samples: caption, and population -> `SpikeTrain`, the same populations in each, in order
            from the input on.
        t_end: seconds.
        labels: population -> name of each of its neurons.
        circled: the population whose first spike is circled.
    """
    labels = labels or {}
    names = list(samples[0][1])
    sizes = [samples[0][1][name].size for name in names]
    heights = [max(1.0, min(size, 60) / 12) for size in sizes]
    figure = _figure(3.1 * len(samples) + 1.2, 0.75 * sum(heights) + 1.6)
    grid = figure.subplots(
        len(names),
        len(samples),
        sharex=True,
        sharey="row",
        squeeze=False,
        gridspec_kw={"height_ratios": heights},
    )
    for column, (caption, trains) in enumerate(samples):
        for row, name in enumerate(names):
            axes, train = grid[row][column], trains[name]
            _draw_train(
                axes, train, (_GREEN, _BLUE, _RED)[min(row, 1) if row < len(names) - 1 else 2]
            )
            named = name in labels
            if name == circled and train.time.size:
                first = int(np.argmin(train.time))
                place = (train.time[first] / SECONDS["ms"], train.index[first])
                axes.plot(
                    *place, "o", markersize=11, markerfacecolor="none", markeredgecolor="black"
                )
            if column == 0:
                axes.set_ylabel(
                    f"{name}\n{train.size} neurons" if row else f"{name}\n{train.size} channels",
                    fontsize=9,
                )
                axes.set_yticks(range(train.size) if named else [0, train.size - 1])
                if named:
                    axes.set_yticklabels(labels[name], fontsize=8)
            axes.set_ylim(train.size - 0.5, -0.5)
            axes.set_xlim(-0.01 * t_end / SECONDS["ms"], t_end / SECONDS["ms"])
        grid[0][column].set_title(caption, fontsize=9)
        grid[-1][column].set_xlabel("time, ms")
    figure.suptitle(title, fontsize=11)
    _save(figure, path, force)


def _draw_train(axes: Any, train: SpikeTrain, colour: str) -> None:
    """Each spike as a short line at its neuron, longer where there is room."""
    length = 0.7 if train.size <= 12 else 0.9
    times = train.time / SECONDS["ms"]
    axes.vlines(
        times, train.index - length / 2, train.index + length / 2, color=colour, linewidth=1.6
    )
    axes.grid(True, axis="x", alpha=0.25, linewidth=0.5)
