"""Membrane potentials over time, with the threshold and the spikes."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from jaxsnn.errors import UsageError, suggestion
from jaxsnn.keywords import suggests_keywords
from jaxsnn.plot.picture import (
    BLACK,
    CYCLE,
    GREY,
    Canvas,
    Picture,
    quiet,
    time_unit,
)
from jaxsnn.wording import Text


@dataclass(frozen=True, kw_only=True)
class VoltageTrace:
    """Membrane potential of one neuron: `time` (points,) seconds, `v` (points,), `spikes` (spikes,)
    seconds, and its threshold, None if it has none or it is unknown.
    """

    time: np.ndarray
    v: np.ndarray
    spikes: np.ndarray
    threshold: float | None


@suggests_keywords
def voltage(
    solution: Any,
    population: str,
    *,
    network: Any = None,
    inputs: Any = None,
    neurons: Sequence[int] = (0, 1, 2),
    sample: int = 0,
    points: int = 800,
    title: str = "",
    ax: Any = None,
) -> Picture:
    """Draw V(t) of some neurons of a population, a row for each, with its spikes and its threshold.

    A time-stepped run must have recorded the voltages, with `TimeStepped(record=True)`. In
    continuous time, the voltages of readouts are those at the sample times, and the voltages of
    spiking neurons are computed again from the inputs, exactly, at `points` times and on both sides
    of each spike.

    Args:
        solution: Result of `jaxsnn.simulate`.
        population: Name of the population.
        network: The simulated network, or its Graph; if specified, the threshold is drawn.
        inputs: Inputs of the run; required for spiking neurons in continuous time.
        neurons: Indices of the neurons; indices that do not exist are ignored.
        sample: Index of the sample.
        points: Number of times.
        ax: Axes of matplotlib to draw on; default: a new figure.

    Raises:
        UsageError: matplotlib is missing, or the voltages are not available.
    """
    from jaxsnn.simulation.simulate import lowered

    network = None if network is None else lowered(network)
    traces = traces_of(solution, population, network, inputs, sample=sample, points=points)
    shown = [number for number in neurons if number < len(traces)]
    if not shown:
        raise UsageError(
            Text(
                "population '{node}' has {count} neurons, and none has an index of {neurons}",
                node=population,
                count=len(traces),
                neurons=tuple(neurons),
            ),
            fix="pass other indices",
            node=population,
        )
    end = max(float(trace.time[-1]) for trace in traces)
    unit, size = time_unit(end)
    canvas = Canvas(ax, 6.8, 0.7 + 1.5 * len(shown))
    every = canvas.panels(len(shown), sharex=True)[:, 0]
    for row, (number, axes) in enumerate(zip(shown, every, strict=True)):
        _draw_trace(axes, traces[number], CYCLE[row % len(CYCLE)], size)
        axes.set_ylabel(f"neuron {number}\nV", fontsize=9)
    every[-1].set(xlabel=f"time, {unit}", xlim=(0, end / size))
    canvas.add_legend(every[0], "upper right", fontsize=8, ncols=2)
    heading = title or f"membrane potential V of {population}, sample {sample} (unit of the file)"
    canvas.set_title(heading, fontsize=10, x=0.02, ha="left")
    return canvas.picture(
        f"V(t) of {len(shown)} neuron{'s' * (len(shown) != 1)} of '{population}', sample {sample}",
    )


def _draw_trace(axes: Any, trace: VoltageTrace, colour: str, unit: float) -> None:
    axes.plot(trace.time / unit, trace.v, color=colour, linewidth=1.2)
    if trace.threshold is not None:
        axes.axhline(trace.threshold, color=GREY, linestyle="--", linewidth=1, label="v_threshold")
    low, high = _range(trace)
    height = high - low
    axes.set_ylim(low - 0.06 * height, high + 0.28 * height)
    top = np.full(len(trace.spikes), high + 0.16 * height)
    axes.plot(trace.spikes / unit, top, "v", color=BLACK, markersize=4, label="spike")
    quiet(axes)


def _range(trace: VoltageTrace) -> tuple[float, float]:
    """Return the minimum and maximum of a trace and its threshold, never equal."""
    marks = [float(trace.v.min()), float(trace.v.max())]
    marks += [] if trace.threshold is None else [trace.threshold]
    low, high = min(marks), max(marks)
    return (low, high) if high > low else (low, low + 1.0)


# -- sources of voltages


def traces_of(
    solution: Any, population: str, network: Any, inputs: Any, *, sample: int, points: int
) -> list[VoltageTrace]:
    """Return the membrane potentials of every neuron of a population."""
    threshold = _threshold(network, population)
    sampled = getattr(solution, "sample_times", None)
    spikes = _spike_times(solution, population, sample)
    if sampled is None and population in solution.voltages:
        v = np.asarray(solution.voltages[population])
        v = v.reshape(*v.shape[:2], -1)[:, sample]
        # The time of step k is k dt, as for spikes.
        time = np.arange(len(v)) * (getattr(solution, "dt", None) or 1.0)
    elif sampled is not None and population in solution.voltages:
        time, v = np.asarray(sampled), np.asarray(solution.voltages[population])[sample]
    elif sampled is not None and population in solution.spikes:
        time, v = streamed(solution, population, network, inputs, sample=sample, points=points)
    else:
        raise UsageError(
            Text("the membrane potential of population '{node}' was not recorded", node=population),
            fix=f"simulate with TimeStepped(record=True); {suggestion(population, solution.voltages)}",
            node=population,
        )
    limits = np.broadcast_to(np.nan if threshold is None else threshold, v.shape[1:])
    return [
        VoltageTrace(
            time=time,
            v=v[:, number],
            spikes=spikes[number] if number < len(spikes) else np.empty(0),
            threshold=None if np.isnan(limits[number]) else float(limits[number]),
        )
        for number in range(v.shape[1])
    ]


def _threshold(network: Any, population: str) -> np.ndarray | None:
    """Return v_threshold of each neuron; None if it is unknown."""
    if network is None:
        return None
    parameters = network.parameters.get(population, {})
    return (
        np.ravel(np.asarray(parameters["v_threshold"], float))
        if "v_threshold" in parameters
        else None
    )


def _spike_times(solution: Any, population: str, sample: int) -> list[np.ndarray]:
    """Return the spike times of each neuron, seconds."""
    if population not in solution.spikes:
        return []
    events = solution.events(population)
    time, index = (np.atleast_2d(array)[sample] for array in (events.time, events.index))
    size = int(np.shape(solution.count(population))[-1])
    used = np.isfinite(time)
    return [time[used & (index == number)] for number in range(size)]


def streamed(
    solution: Any, population: str, network: Any, inputs: Any, *, sample: int, points: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return times (points,) and V (points, neurons) of neurons that fire in continuous time, from
    another simulation of one sample that is evaluated between events.

    Raises:
        UsageError: The network or the inputs are missing, or the inputs are not only spikes.
    """
    from jaxsnn.event.streaming import stream

    if network is None or inputs is None:
        raise UsageError(
            Text(
                "the network and its inputs are needed to compute the membrane potential of '{node}' "
                "in continuous time",
                node=population,
            ),
            fix="pass network= and inputs=",
            node=population,
        )
    named = inputs if isinstance(inputs, Mapping) else dict.fromkeys(network.inputs, inputs)
    flow = stream(network)
    of_sample = {}
    for name, events in named.items():
        parts = {
            field.name: getattr(events, field.name)
            for field in dataclasses.fields(cast(Any, events))
        }
        parts = {key: np.atleast_2d(array) for key, array in parts.items()}
        rows = {key: array[min(sample, len(array) - 1)] for key, array in parts.items()}
        of_sample[name] = type(events)(**rows)
    flow.push(of_sample, until=0.0)
    end = float(solution.t_end)
    spikes = np.concatenate([np.empty(0), *_spike_times(solution, population, sample)])
    # Also sample some float32 spacings before and after each spike, by which backends may differ.
    beside = 8 * np.spacing(spikes.astype(np.float32)).astype(float)
    sides = spikes - beside, spikes + beside
    times = np.unique(np.concatenate([np.linspace(0.0, end, points), *sides]))
    times = times[(times >= 0) & (times <= end)]
    values = []
    for time in times:
        flow.push(until=float(time))
        values.append(flow.voltage(population))
    return times, np.array(values)
