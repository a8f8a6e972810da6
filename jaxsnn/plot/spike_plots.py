"""Spikes of a run: rasters, and how many there are over time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from jaxsnn.errors import UsageError
from jaxsnn.options import T_END
from jaxsnn.plot.picture import (
    BLACK,
    BLUE,
    CYCLE,
    GREEN,
    VERMILION,
    Picture,
    new_figure,
    picture_of,
    quiet,
    time_unit,
)
from jaxsnn.units import refuse_no_time


@dataclass(frozen=True, kw_only=True)
class SpikeTrain:
    """Spikes of one population in one sample: `time` (spikes,) in seconds, `index` (spikes,);
    `size` neurons, or of an input `channels`.
    """

    time: np.ndarray
    index: np.ndarray
    size: int
    rows: str = "neurons"


#: More marks than this are an image within an SVG or PDF.
_MANY = 4000

#: Population -> its spikes in one sample.
Trains = Mapping[str, SpikeTrain]


def raster(
    run: Any,
    *,
    inputs: Any = None,
    samples: Sequence[int] = (0,),
    captions: Sequence[str] | None = None,
    labels: Mapping[str, Sequence[str]] | None = None,
    circled: str | None = None,
    t_end: float | None = None,
    title: str = "",
) -> Picture:
    """Spikes of samples side by side, a row for each population, on one time axis.

    Args:
        run: a `jaxsnn.Solution`; or for each sample a mapping from the population's name to its
            `SpikeTrain`, in order from the input on.
        inputs: what went in, shown in the first rows: Events or an array (time, batch, *shape);
            or a mapping from the Input node's name to these.
        samples: which samples of a `Solution`.
        captions: above each sample.
        labels: population -> name of each of its neurons.
        circled: the population whose first spike is circled.
        t_end: seconds, the end of the time axis; default: a little after the last spike.
        title: above all.

    Raises:
        UsageError: matplotlib is missing, nothing was recorded, or `t_end` is no time after 0.
    """
    if t_end is not None:
        refuse_no_time(t_end, T_END)
    drawn = run if isinstance(run, list | tuple) else [trains_of(run, n, inputs) for n in samples]
    if not drawn or not drawn[0]:
        raise UsageError("no spikes were recorded", fix="simulate with TimeStepped(record=True)")
    if captions is None:
        many = len(drawn) > 1
        captions = [f"sample {number}" if many else "" for number in samples]
    last = max((latest(trains) for trains in drawn), default=0.0)
    unit, size = time_unit(t_end or last)
    end = (t_end or 1.05 * last or size) / size
    names = list(drawn[0])
    heights = [max(1.0, min(drawn[0][name].size, 60) / 12) for name in names]
    figure = new_figure(max(3.1 * len(drawn), 5.0) + 1.2, 0.75 * sum(heights) + 1.6)
    axes_of = figure.subplots(
        len(names),
        len(drawn),
        sharex=True,
        sharey="row",
        squeeze=False,
        gridspec_kw={"height_ratios": heights},
    )
    for column, trains in enumerate(drawn):
        for row, name in enumerate(names):
            axes = axes_of[row][column]
            draw_train(axes, trains[name], _colour(trains[name], row == len(names) - 1), size)
            axes.set(ylim=(trains[name].size - 0.5, -0.5), xlim=(-0.01 * end, end))
            if name == circled:
                _circle_first(axes, trains[name], size)
            if column == 0:
                _name_rows(axes, name, trains[name], (labels or {}).get(name))
        axes_of[0][column].set_title(captions[column], fontsize=9)
        axes_of[-1][column].set_xlabel(f"time, {unit}")
    figure.suptitle(title, fontsize=11)
    seen = {name: sum(_until(one[name], t_end) for one in drawn) for name in names}
    counts = ", ".join(f"{count} of '{name}'" for name, count in seen.items())
    many = f"{len(drawn)} sample{'s' * (len(drawn) != 1)}"
    return picture_of(figure, f"raster of {many}, spikes: {counts}")


def _until(train: SpikeTrain, t_end: float | None) -> int:
    """How many spikes there are up to an end, if there is one."""
    return int(np.sum(train.time <= (t_end or np.inf)))


def _colour(train: SpikeTrain, last: bool) -> str:
    """Inputs are green, the last population is vermilion, others are blue."""
    if train.rows == "channels":
        return GREEN
    return VERMILION if last else BLUE


def _name_rows(axes: Any, name: str, train: SpikeTrain, labels: Sequence[str] | None) -> None:
    size = train.size
    axes.set_ylabel(f"{name}\n{size} {train.rows}" if size > 1 else name, fontsize=9)
    if labels is not None:
        axes.set_yticks(range(size), labels=labels, fontsize=8)
    else:
        axes.set_yticks([0, size - 1] if size > 1 else [0])


def _circle_first(axes: Any, train: SpikeTrain, unit: float) -> None:
    if not train.time.size:
        return
    first = int(np.argmin(train.time))
    place = train.time[first] / unit, train.index[first]
    axes.plot(*place, "o", markersize=11, markerfacecolor="none", markeredgecolor=BLACK)


def draw_train(axes: Any, train: SpikeTrain, colour: str, unit: float) -> None:
    """Each spike as a short line at its neuron, longer where there is room."""
    half = 0.35 if train.size <= 12 else 0.45
    times = train.time / unit
    marks = axes.vlines(times, train.index - half, train.index + half, color=colour, linewidth=1.6)
    marks.set_rasterized(train.time.size > _MANY)  # an SVG of so many marks is slow to show
    quiet(axes, "x")


def histogram(run: Any, *, bins: int = 50, t_end: float | None = None, title: str = "") -> Picture:
    """When the neurons of each population fire: their mean rate over time, over all samples.

    Args:
        run: a `jaxsnn.Solution`; or for each sample a mapping from the population's name to its
            `SpikeTrain`.
        bins: number of intervals.
        t_end: seconds, the end of the last one; default: the last spike.

    Raises:
        UsageError: matplotlib is missing, nothing was recorded, or `t_end` is no time after 0.
    """
    if t_end is not None:
        refuse_no_time(t_end, T_END)
    drawn = run if isinstance(run, list | tuple) else all_trains_of(run)
    if not drawn or not drawn[0]:
        raise UsageError("no spikes were recorded", fix="simulate with TimeStepped(record=True)")
    end = t_end or max(latest(trains) for trains in drawn)
    unit, size = time_unit(end)
    edges = np.linspace(0.0, end or size, bins + 1)
    width = float(edges[1])
    names = list(drawn[0])
    peaks: list[str] = []
    figure = new_figure(6.4, 0.6 + 1.5 * len(names))
    for row, axes in enumerate(figure.subplots(len(names), 1, sharex=True, squeeze=False)[:, 0]):
        name = names[row]
        times = np.concatenate([trains[name].time for trains in drawn])
        counts, _ = np.histogram(times, edges)
        rate = counts / (len(drawn) * drawn[0][name].size * width)
        peaks.append(f"'{name}' up to {rate.max():.3g} Hz")
        colour = CYCLE[row % len(CYCLE)]
        axes.stairs(rate, edges / size, fill=True, color=colour, alpha=0.35)
        axes.stairs(rate, edges / size, color=colour, linewidth=1.4)
        axes.set_ylabel(f"{name}\nrate, Hz", fontsize=9)
        axes.set(xlim=(0, edges[-1] / size), ylim=(0, None))
        quiet(axes)
    axes.set_xlabel(f"time, {unit} (bins of {width / size:.3g} {unit})")
    many = f"{len(drawn)} sample{'s' * (len(drawn) != 1)}"
    figure.suptitle(title or f"spikes per neuron and second, {many}", fontsize=11)
    return picture_of(figure, f"spike-time histogram of {many}: {', '.join(peaks)}")


# ---- what a run recorded


def latest(trains: Trains) -> float:
    """The last spike of all populations, seconds; 0 where there is none."""
    return max((float(train.time.max(initial=0.0)) for train in trains.values()), default=0.0)


def recorded_names(solution: Any) -> list[str]:
    """The populations of a solution whose spikes are there: recorded, or sent to an Output."""
    if solution.spikes:
        return list(solution.spikes)
    spiking = getattr(solution, "spiking", ())
    return [sources[0] for name, sources in solution.outputs.items() if name in spiking]


def trains_of(solution: Any, sample: int, inputs: Any = None) -> dict[str, SpikeTrain]:
    """Inputs and populations of one sample.

    Raises:
        UsageError: there is no such sample, or an input of another kind.
    """
    found = input_trains(inputs, sample, getattr(solution, "dt", None))
    for name in recorded_names(solution):
        counts = np.asarray(solution.count(name))
        if not -len(counts) <= sample < len(counts):
            raise UsageError(
                f"there is no sample {sample}, the run has {len(counts)}",
                fix=f"take one from 0 to {len(counts) - 1}",
            )
        found[name] = one_train(solution.events(name), sample, counts.shape[-1])
    return found


def all_trains_of(solution: Any) -> list[dict[str, SpikeTrain]]:
    """The populations of every sample."""
    names = recorded_names(solution)
    events = {name: solution.events(name) for name in names}
    sizes = {name: np.shape(solution.count(name))[-1] for name in names}
    batch = len(np.atleast_2d(events[names[0]].time)) if names else 0
    return [
        {name: one_train(events[name], sample, sizes[name]) for name in names}
        for sample in range(batch)
    ]


def one_train(events: Any, sample: int, size: int) -> SpikeTrain:
    """The spikes of one sample of Events (batch, events), unused slots left out."""
    time, index = (np.atleast_2d(array)[sample] for array in (events.time, events.index))
    used = np.isfinite(time)
    return SpikeTrain(time=time[used], index=index[used], size=size)


def drawable(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """The inputs that are spikes, and no currents."""
    return {
        name: given
        for name, given in inputs.items()
        if hasattr(given, "index") or (not hasattr(given, "time") and np.ndim(given) >= 3)
    }


def input_trains(inputs: Any, sample: int, dt: float | None) -> dict[str, SpikeTrain]:
    """The spikes of what went in; a raster needs the length of a step, seconds."""
    if inputs is None:
        return {}
    named = inputs if isinstance(inputs, Mapping) else {"input": inputs}
    found = {}
    for name, given in named.items():
        if hasattr(given, "index"):
            index = np.asarray(given.index)
            used = np.isfinite(np.asarray(given.time))
            # an unused slot holds the number of channels
            size = int(index.max(initial=0)) + int(used.all())
            row = min(sample, len(np.atleast_2d(index)) - 1)
            train = one_train(given, row, max(size, 1))
            found[name] = replace(train, rows="channels")
        elif np.ndim(given) >= 3 and dt is not None:
            steps = np.asarray(given)[:, sample].reshape(len(given), -1)
            when, channel = np.nonzero(steps)
            found[name] = SpikeTrain(
                time=when * dt, index=channel, size=steps.shape[1], rows="channels"
            )
        else:
            raise UsageError(
                f"input '{name}' cannot be drawn as spikes",
                fix="pass jaxsnn.Events, or an array (time, batch, channels) of a time-stepped run",
                node=name,
            )
    return found
