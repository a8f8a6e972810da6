"""Plots of spikes: rasters, spike counts over time, encoded values, and two runs side by side."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from jaxsnn.errors import UsageError
from jaxsnn.keywords import suggests_keywords
from jaxsnn.options import T_END
from jaxsnn.plot.picture import (
    BLACK,
    BLUE,
    CYCLE,
    GREEN,
    GREY,
    ORANGE,
    VERMILION,
    Canvas,
    Picture,
    quiet,
    time_unit,
)
from jaxsnn.units import refuse_no_time
from jaxsnn.wording import Text


@suggests_keywords
@dataclass(frozen=True, kw_only=True)
class SpikeTrain:
    """Spikes of one population in one sample: `time` (spikes,) in seconds, `index` (spikes,);
    `size` neurons, or for an input `channels`.
    """

    time: np.ndarray
    index: np.ndarray
    size: int
    rows: str = "neurons"


#: Maximum number of spikes that an SVG or PDF draws as vectors; more become an image in it.
_MANY = 4000

#: Population -> its spikes in one sample.
Trains = Mapping[str, SpikeTrain]


@suggests_keywords
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
    ax: Any = None,
) -> Picture:
    """Draw the spikes of samples side by side, a row for each population, on one time axis.

    Args:
        run: A `jaxsnn.Solution` or the result of `jaxsnn.emulate`; or for each sample a mapping
            from populations to their `SpikeTrain`, in order from the input on.
        inputs: Inputs of the run, shown in the first rows: Events or an array (time, batch,
            *shape); or a mapping from Input nodes to these.
        samples: Indices of the samples of a `Solution`.
        captions: Caption of each sample.
        labels: Names of the neurons, by population.
        circled: Population whose first spike is circled.
        t_end: End of the time axis, seconds; default: shortly after the last spike.
        title: Title of the picture.
        ax: Axes of matplotlib to draw on; default: a new figure.

    Raises:
        UsageError: matplotlib is missing, no spikes were recorded, or `t_end` is not positive.
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
    populations = list(drawn[0])
    heights = [max(1.0, min(drawn[0][name].size, 60) / 12) for name in populations]
    canvas = Canvas(ax, max(3.1 * len(drawn), 5.0) + 1.2, 0.75 * sum(heights) + 1.6)
    axes_of = canvas.panels(len(populations), len(drawn), heights=heights, sharex=True, sharey=True)
    for column, trains in enumerate(drawn):
        for row, name in enumerate(populations):
            axes, train = axes_of[row][column], trains[name]
            colour = VERMILION if row == len(populations) - 1 else BLUE
            draw_train(axes, train, GREEN if train.rows == "channels" else colour, size)
            axes.set(ylim=(train.size - 0.5, -0.5), xlim=(-0.01 * end, end))
            if name == circled and train.time.size:
                first = int(np.argmin(train.time))
                place = train.time[first] / size, train.index[first]
                axes.plot(*place, "o", markersize=11, markerfacecolor="none", markeredgecolor=BLACK)
            if column > 0:
                continue
            rows = f"{name}\n{train.size} {train.rows}"
            axes.set_ylabel(rows if train.size > 1 else name, fontsize=9)
            if labels is not None and name in labels:
                axes.set_yticks(range(train.size), labels=labels[name], fontsize=8)
            else:
                axes.set_yticks([0, train.size - 1] if train.size > 1 else [0])
        axes_of[0][column].set_title(captions[column], fontsize=9)
        axes_of[-1][column].set_xlabel(f"time, {unit}")
    canvas.set_title(title, fontsize=11)
    until = np.inf if t_end is None else t_end
    seen = {
        name: sum(int(np.sum(trains[name].time <= until)) for trains in drawn)
        for name in populations
    }
    counts = ", ".join(f"{count} of '{name}'" for name, count in seen.items())
    many = f"{len(drawn)} sample{'s' * (len(drawn) != 1)}"
    return canvas.picture(f"raster of {many}, spikes: {counts}")


def draw_train(axes: Any, train: SpikeTrain, colour: str, unit: float) -> None:
    """Draw each spike as a short line at its neuron, longer if there is room."""
    half = 0.35 if train.size <= 12 else 0.45
    times = train.time / unit
    marks = axes.vlines(times, train.index - half, train.index + half, color=colour, linewidth=1.6)
    marks.set_rasterized(train.time.size > _MANY)  # an SVG of so many marks is slow to show
    quiet(axes, "x")


@suggests_keywords
def histogram(
    run: Any, *, bins: int = 50, t_end: float | None = None, title: str = "", ax: Any = None
) -> Picture:
    """Draw the mean firing rate of each population over time, over all samples.

    Args:
        run: A `jaxsnn.Solution` or the result of `jaxsnn.emulate`; or for each sample a mapping
            from populations to their `SpikeTrain`.
        bins: Number of intervals.
        t_end: End of the last interval, seconds; default: the time of the last spike.
        ax: Axes of matplotlib to draw on; default: a new figure.

    Raises:
        UsageError: matplotlib is missing, no spikes were recorded, or `t_end` is not positive.
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
    populations = list(drawn[0])
    peaks: list[str] = []
    canvas = Canvas(ax, 6.4, 0.6 + 1.5 * len(populations))
    for row, axes in enumerate(canvas.panels(len(populations), sharex=True)[:, 0]):
        name = populations[row]
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
    canvas.set_title(title or f"spikes per neuron and second, {many}", fontsize=11)
    return canvas.picture(f"spike-time histogram of {many}: {', '.join(peaks)}")


# -- recordings of runs


def latest(trains: Trains) -> float:
    """Return the time of the last spike of all populations, seconds; 0 if there is none."""
    return max((float(train.time.max(initial=0.0)) for train in trains.values()), default=0.0)


def recorded_names(solution: Any) -> list[str]:
    """Return the populations of a solution with available spikes: recorded, or sent to an
    Output.
    """
    if solution.spikes:
        return list(solution.spikes)
    spiking = getattr(solution, "spiking", ())
    return [sources[0] for name, sources in solution.outputs.items() if name in spiking]


def _refuse_no_solution(solution: Any) -> None:
    """Refuse an object that has no recorded spikes, such as a graph."""
    if not hasattr(solution, "spikes") or not hasattr(solution, "events"):
        raise UsageError(
            Text("an object of type {type} has no spikes", type=type(solution).__name__),
            fix="pass the result of jaxsnn.simulate or jaxsnn.emulate",
        )


def trains_of(solution: Any, sample: int, inputs: Any = None) -> dict[str, SpikeTrain]:
    """Return the spike trains of inputs and populations of one sample.

    Raises:
        UsageError: there is no such sample, or an input of another kind.
    """
    _refuse_no_solution(solution)
    trains = input_trains(inputs, sample, getattr(solution, "dt", None))
    for name in recorded_names(solution):
        counts = np.asarray(solution.count(name))
        if not -len(counts) <= sample < len(counts):
            raise UsageError(
                Text(
                    "sample {sample} does not exist; the number of samples is {samples}",
                    sample=sample,
                    samples=len(counts),
                ),
                fix=f"pass an index from 0 to {len(counts) - 1}",
            )
        trains[name] = one_train(solution.events(name), sample, counts.shape[-1])
    return trains


def all_trains_of(solution: Any) -> list[dict[str, SpikeTrain]]:
    """Return the spike trains of the populations, for every sample."""
    _refuse_no_solution(solution)
    populations = recorded_names(solution)
    events = {name: solution.events(name) for name in populations}
    sizes = {name: np.shape(solution.count(name))[-1] for name in populations}
    batch = len(np.atleast_2d(events[populations[0]].time)) if populations else 0
    return [
        {name: one_train(events[name], sample, sizes[name]) for name in populations}
        for sample in range(batch)
    ]


def one_train(events: Any, sample: int, size: int) -> SpikeTrain:
    """Return the spikes of one sample of Events (batch, events), without unused slots."""
    time, index = (np.atleast_2d(array)[sample] for array in (events.time, events.index))
    used = np.isfinite(time)
    return SpikeTrain(time=time[used], index=index[used], size=size)


def drawable(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the inputs that are spikes, not currents."""
    return {
        name: input_signal
        for name, input_signal in inputs.items()
        if hasattr(input_signal, "index")
        or (not hasattr(input_signal, "time") and np.ndim(input_signal) >= 3)
    }


def input_trains(inputs: Any, sample: int, dt: float | None) -> dict[str, SpikeTrain]:
    """Return the spike trains of the inputs; a raster needs the length of a step, seconds."""
    if inputs is None:
        return {}
    named = inputs if isinstance(inputs, Mapping) else {"input": inputs}
    trains = {}
    for name, input_signal in named.items():
        if hasattr(input_signal, "index"):
            index = np.asarray(input_signal.index)
            used = np.isfinite(np.asarray(input_signal.time))
            # Unused slots contain the number of channels.
            size = int(index.max(initial=0)) + int(used.all())
            row = min(sample, len(np.atleast_2d(index)) - 1)
            train = one_train(input_signal, row, max(size, 1))
            trains[name] = replace(train, rows="channels")
        elif np.ndim(input_signal) >= 3 and dt is not None:
            steps = np.asarray(input_signal)[:, sample].reshape(len(input_signal), -1)
            when, channel = np.nonzero(steps)
            trains[name] = SpikeTrain(
                time=when * dt, index=channel, size=steps.shape[1], rows="channels"
            )
        else:
            raise UsageError(
                Text("input '{node}' cannot be drawn as spikes", node=name),
                fix="pass jaxsnn.Events, or an array (time, batch, channels) of a time-stepped run",
                node=name,
            )
    return trains


@suggests_keywords
def encodings(
    encoded: Mapping[str, tuple[Any, Callable[[Any], Any]]], *, title: str = "", ax: Any = None
) -> Picture:
    """Draw samples and their encodings, a row for each encoder: the values to the left, the spikes
    of the input channels, or their currents, to the right.

    Args:
        encoded: name -> (values of one sample, encoder). Values are (channels,), or (time, channels)
            of a signal; the encoder is one for `fit(encoder=...)`, called with (1, ...) values.
        ax: Axes of matplotlib to draw on; default: a new figure.

    Raises:
        UsageError: matplotlib is missing, nothing is to be encoded, or the encoder refuses it.
    """
    if not encoded:
        raise UsageError("no encoders are specified", fix="pass {name: (values, encoder)}")
    encoded_inputs = {
        name: encoder(np.asarray(values)[None]) for name, (values, encoder) in encoded.items()
    }
    end = max(_last(inputs) for inputs in encoded_inputs.values())
    unit, size = time_unit(end)
    canvas = Canvas(ax, 6.8, 0.7 + 1.35 * len(encoded_inputs))
    every = canvas.panels(len(encoded_inputs), 2, widths=[1, 2])
    counts = {}
    for (before, after), (name, inputs) in zip(every, encoded_inputs.items(), strict=True):
        _draw_values(before, np.asarray(encoded[name][0]))
        before.set_ylabel(name, fontsize=9)
        train = None if hasattr(inputs, "value") else input_trains(inputs, 0, None)["input"]
        counts[name] = _draw_inputs(after, inputs, train, size, end)
        after.set(xlim=(-0.03 * end / size, 1.06 * end / size))
    every[0][0].set_title("values of one sample", fontsize=9)
    every[0][1].set_title("encoded input", fontsize=9)
    every[-1][1].set_xlabel(f"time, {unit}")
    canvas.set_title(title, fontsize=11)
    counts_text = ", ".join(f"{name} {count}" for name, count in counts.items())
    return canvas.picture(f"one sample, encoded: {counts_text}")


def _last(inputs: Any) -> float:
    """Return the time of the last event or piece, seconds; 0 if there is none."""
    time = np.asarray(inputs.time)
    return float(time[np.isfinite(time)].max(initial=0.0))


def _draw_values(axes: Any, values: np.ndarray) -> None:
    """Draw the values of channels as bars; signals as lines over their frames."""
    if values.ndim == 1:
        axes.barh(np.arange(len(values)), values, color=GREEN, height=0.7)
        axes.set_yticks([0, len(values) - 1] if len(values) > 1 else [0])
    else:
        flat = values.reshape(len(values), -1)
        for channel, signal in enumerate(flat.T):
            axes.plot(signal, ".-", color=CYCLE[channel % len(CYCLE)], linewidth=1.2, markersize=3)
    quiet(axes, "x")


def _draw_inputs(axes: Any, inputs: Any, train: SpikeTrain | None, unit: float, end: float) -> str:
    """Draw spikes as lines at their channels, or currents as bars with a thickness by size; return
    their number as text.
    """
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


@suggests_keywords
def fidelity(comparison: Any, *, title: str = "", ax: Any = None) -> Picture:
    """Draw the spike counts of each population, event-driven and time-stepped, and their
    similarity.

    Args:
        comparison: a result of `jaxsnn.fidelity`.
        ax: Axes of matplotlib to draw on; default: a new figure.

    Raises:
        UsageError: matplotlib is missing, or no population fires.
    """
    if not comparison.populations:
        raise UsageError(
            "the compared network has no spiking populations", fix="compare a network that has some"
        )
    populations = list(comparison.populations)
    canvas = Canvas(ax, 6.8, 1.5 + 0.75 * len(populations))
    axes = canvas.panels()[0, 0]
    places = np.arange(len(populations))
    kinds = (
        ("event", "continuous time", BLUE),
        ("grid", "time-stepped, as in the source framework", ORANGE),
    )
    for number, (field, label, colour) in enumerate(kinds):
        counts = [getattr(comparison.populations[name], field) for name in populations]
        bars = axes.barh(places + 0.38 * (number - 0.5), counts, 0.34, color=colour, label=label)
        axes.bar_label(bars, [f" {count}" for count in counts], fontsize=8)
    cosines = [comparison.populations[name].count_cosine for name in populations]
    cosine_texts = ["undefined" if cosine is None else f"{cosine:.4f}" for cosine in cosines]
    rows = [
        f"{name}\ncosine {cosine_text}"
        for name, cosine_text in zip(populations, cosine_texts, strict=True)
    ]
    axes.set_yticks(places, labels=rows, fontsize=9)
    axes.invert_yaxis()
    axes.margins(x=0.14)
    axes.set_xlabel("number of spikes, summed over samples and neurons")
    canvas.add_legend(axes, "lower center", fontsize=8, ncols=2)
    quiet(axes, "x")
    canvas.set_title(
        title or "spike counts (cosine: their similarity over all neurons)", fontsize=10
    )
    return canvas.picture(
        f"number of spikes, event-driven and time-stepped, of {', '.join(map(repr, populations))}",
    )


@suggests_keywords
def first_difference(
    verification: Any,
    solution: Any,
    recording: Any,
    *,
    around: int = 20,
    title: str = "",
    ax: Any = None,
) -> Picture:
    """Draw the neuron that first differs from a recording, with some steps before and after.

    Args:
        verification: Result of `jaxsnn.verify`; its `first_difference` is drawn.
        solution: Result of the time-stepped run.
        recording: Recorded output of the source framework, (time, batch, *shape); or a mapping from
            Output nodes to such arrays.
        around: Number of time steps before and after.
        ax: Axes of matplotlib to draw on; default: a new figure.

    Raises:
        UsageError: matplotlib is missing, or there is no difference.
    """
    first = verification.first_difference
    if first is None:
        raise UsageError(
            "the simulation does not differ from the recording", fix="draw a raster instead"
        )
    expected = recording[first.node] if isinstance(recording, Mapping) else recording
    expected, got = (
        np.asarray(array)[:, first.batch].reshape(len(array), -1)[:, first.neuron]
        for array in (expected, solution.y[first.node])
    )
    begin, end = max(first.step - around, 0), min(first.step + around + 1, len(expected))
    steps = np.arange(begin, end)
    spikes = first.node in solution.spiking
    canvas = Canvas(ax, 7.2, 2.8)
    axes = canvas.panels()[0, 0]
    axes.axvspan(first.step - 0.5, first.step + 0.5, color=ORANGE, alpha=0.3, linewidth=0)
    drawn = _draw_trains if spikes else _draw_membranes
    drawn(axes, steps, expected[begin:end], got[begin:end])
    axes.set(xlim=(begin - 0.7, end - 0.3))
    axes.set_xlabel(f"time step ({begin} to {end - 1} of {len(expected)})")
    axes.xaxis.get_major_locator().set_params(integer=True)
    quiet(axes, "x" if spikes else "both")
    location = f"node {first.node}, neuron {first.neuron}, sample {first.batch}, step {first.step}"
    difference_text = f"{location}: recorded {first.expected:g}, simulated {first.got:g}"
    canvas.set_title(title or difference_text, fontsize=10)
    return canvas.picture(f"first difference, {difference_text}")


def _draw_trains(axes: Any, steps: np.ndarray, expected: np.ndarray, got: np.ndarray) -> None:
    """Draw two rows of spikes, with the spikes that are only in one row highlighted."""
    for row, row_spikes, compared_spikes, colour in (
        (1, expected, got, GREY),
        (0, got, expected, BLUE),
    ):
        for marked, shade in (
            (row_spikes == compared_spikes, colour),
            (row_spikes != compared_spikes, VERMILION),
        ):
            when = steps[(row_spikes != 0) & marked]
            axes.vlines(when, row - 0.32, row + 0.32, color=shade, linewidth=3)
    axes.set_yticks([1, 0], labels=["recorded", "simulated"])
    axes.set_ylim(-0.6, 2.1)  # room for the legend
    axes.plot([], [], color=VERMILION, linewidth=3, label="in only one of the two")
    axes.legend(fontsize=8, loc="upper left")


def _draw_membranes(axes: Any, steps: np.ndarray, expected: np.ndarray, got: np.ndarray) -> None:
    axes.plot(steps, expected, color=BLACK, linewidth=1.4, label="recorded")
    axes.plot(steps, got, color=BLUE, linewidth=1.4, linestyle="--", label="simulated")
    axes.set_ylabel("V (unit of the file)")
    axes.legend(fontsize=8)
