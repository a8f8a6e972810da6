"""What encoders make of values: the values beside the spikes or currents that go in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from jaxsnn.errors import UsageError
from jaxsnn.plot.picture import (
    BLUE,
    CYCLE,
    GREEN,
    Picture,
    new_figure,
    picture_of,
    quiet,
    time_unit,
)
from jaxsnn.plot.spike_plots import SpikeTrain, draw_train, input_trains


def encodings(
    encoded: Mapping[str, tuple[Any, Callable[[Any], Any]]], *, title: str = ""
) -> Picture:
    """One sample and what encoders make of it, a row for each: the values to the left, the spikes
    of the input channels, or their currents, to the right.

    Args:
        encoded: by name the values of one sample, (channels,), or (time, channels) of a signal, and
            the encoder, as `fit(encoder=...)` takes it: it is called with (1, ...) values.

    Raises:
        UsageError: matplotlib is missing, nothing is to be encoded, or the encoder refuses it.
    """
    if not encoded:
        raise UsageError("there is no encoder to draw", fix="give {name: (values, encoder)}")
    made = {name: encoder(np.asarray(values)[None]) for name, (values, encoder) in encoded.items()}
    end = max(_last(inputs) for inputs in made.values())
    unit, size = time_unit(end)
    figure = new_figure(6.8, 0.7 + 1.35 * len(made))
    every = figure.subplots(len(made), 2, squeeze=False, width_ratios=[1, 2])
    counts = {}
    for (before, after), (name, inputs) in zip(every, made.items(), strict=True):
        _draw_values(before, np.asarray(encoded[name][0]))
        before.set_ylabel(name, fontsize=9)
        train = None if hasattr(inputs, "value") else input_trains(inputs, 0, None)["input"]
        counts[name] = _draw_inputs(after, inputs, train, size, end)
        after.set(xlim=(-0.03 * end / size, 1.06 * end / size))
    every[0][0].set_title("values of one sample", fontsize=9)
    every[0][1].set_title("what goes in", fontsize=9)
    every[-1][1].set_xlabel(f"time, {unit}")
    figure.suptitle(title, fontsize=11)
    said = ", ".join(f"{name} {count}" for name, count in counts.items())
    return picture_of(figure, f"what encoders make of one sample: {said}")


def _last(inputs: Any) -> float:
    """The last time at which something happens, seconds."""
    time = np.asarray(inputs.time)
    return float(time[np.isfinite(time)].max(initial=0.0))


def _draw_values(axes: Any, values: np.ndarray) -> None:
    """Bars of channels; lines of signals over their frames."""
    if values.ndim == 1:
        axes.barh(np.arange(len(values)), values, color=GREEN, height=0.7)
        axes.set_yticks([0, len(values) - 1] if len(values) > 1 else [0])
    else:
        flat = values.reshape(len(values), -1)
        for channel, signal in enumerate(flat.T):
            axes.plot(signal, ".-", color=CYCLE[channel % len(CYCLE)], linewidth=1.2, markersize=3)
    quiet(axes, "x")


def _draw_inputs(axes: Any, inputs: Any, train: SpikeTrain | None, unit: float, end: float) -> str:
    """Spikes as lines at their channels, currents as bars as thick as they are large; how many."""
    if train is not None:
        draw_train(axes, train, BLUE, unit)
        axes.set_ylim(-0.6, train.size - 0.4)
        axes.set_yticks([0, train.size - 1] if train.size > 1 else [0])
        axes.set_ylabel("channel", fontsize=8)
        return f"{train.time.size} spikes of {train.size} channels"
    time, values = np.asarray(inputs.time)[0], np.asarray(inputs.value)[0]
    largest = float(np.abs(values).max(initial=0.0)) or 1.0
    for piece, row in enumerate(values):
        begin = time[piece] / unit
        width = (time[piece + 1] if piece + 1 < len(time) else 1.05 * end) / unit - begin
        axes.barh(np.arange(len(row)), width, 0.8 * np.abs(row) / largest, begin, color=BLUE)
    axes.set_yticks([0, values.shape[1] - 1] if values.shape[1] > 1 else [0])
    axes.set_ylabel("channel", fontsize=8)
    quiet(axes, "x")
    return f"{len(values)} currents of {values.shape[1]} channels"
