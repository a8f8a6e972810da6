"""Code that the scripts beside this file share: the network, inputs and outputs. It needs NumPy
only.

Inputs and outputs are .npz files with, for each population NAME, `NAME.time` (samples, events) in
seconds of the network's own time, padded with inf, and `NAME.index` (samples, events), the neuron
of each event. The chip runs faster than the network by the factor `speedup` of network.json.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

HERE = Path(__file__).parent
#: Number of a population of network.json, and of a neuron in it.
Neuron = tuple[int, int]
#: Spike times of one neuron, seconds of the chip, one list for each sample.
Times = list[list[float]]


def arguments(text: str) -> argparse.ArgumentParser:
    """Return the argument parser of a script."""
    parser = argparse.ArgumentParser(description=text)
    parser.add_argument(
        "--input",
        metavar="X.npz",
        required=True,
        help="input events: NAME.time and NAME.index for each input",
    )
    parser.add_argument(
        "--output",
        metavar="OUT.npz",
        required=True,
        help="file for the spikes of all recorded populations",
    )
    parser.add_argument(
        "--duration",
        metavar="S",
        type=float,
        required=True,
        help="duration of a sample, in seconds of the network",
    )
    return parser


def network() -> dict[str, Any]:
    """Return the content of network.json, which `jaxsnn deploy` wrote."""
    return json.loads((HERE / "network.json").read_text(encoding="utf-8"))


def missing(package: str, error: ImportError) -> NoReturn:
    """Exit with a message that a package of the vendor's software cannot be imported."""
    raise SystemExit(
        f"{package} cannot be imported ({error}): run this script where the BrainScaleS-2 software"
        " stack is installed, in its container or on EBRAINS"
    )


class Trains:
    """Spike trains in seconds of the chip: (population, index) -> one list of times for each
    sample.
    """

    def __init__(self, samples: int) -> None:
        self.samples = samples
        self.times: dict[Neuron, Times] = {}
        self.traces: dict[Neuron, np.ndarray] = {}

    def add(self, key: Neuron, trains: Times) -> None:
        """Set the trains of a neuron."""
        self.times[key] = trains

    def add_traces(self, population: int, indices: Iterable[int], values: np.ndarray) -> None:
        """Set membranes (steps, samples, neurons) of some neurons of a readout, CADC LSB."""
        for place, index in enumerate(indices):
            self.traces[population, index] = values[:, :, place]

    def of(self, key: Neuron) -> Times:
        """Return the trains of a neuron, empty where none were set."""
        return self.times.get(key, [[] for _ in range(self.samples)])


def read_inputs(path: str, net: dict[str, Any], duration: float) -> Trains:
    """Return the trains of all input channels; the channel that replaces biases fires by itself."""
    arrays = np.load(path)
    external = [
        number for number, population in enumerate(net["populations"]) if population["external"]
    ]
    input_names = [net["populations"][number]["name"] for number in external]
    data_names = [name for name in input_names if name != net["bias_source"]]
    lacking = [
        name for name in data_names if f"{name}.time" not in arrays or f"{name}.index" not in arrays
    ]
    if lacking:
        raise SystemExit(
            f"{path} lacks '{lacking[0]}.time' or '{lacking[0]}.index'; it has"
            f" {', '.join(arrays.files)}"
        )
    events = {name: _events(path, name, arrays, net, duration) for name in data_names}
    if len({len(time) for time, _ in events.values()}) > 1:
        counts = ", ".join(f"{len(time)} of {name}" for name, (time, _) in events.items())
        raise SystemExit(f"{path}: the inputs have different numbers of samples: {counts}")
    samples = len(events[data_names[0]][0]) if data_names else 1
    trains = Trains(samples)
    for number, name in zip(external, input_names, strict=True):
        if name == net["bias_source"]:
            regular = np.arange(0.0, duration / net["speedup"], net["bias_period"]).tolist()
            trains.add((number, 0), [regular] * samples)
            continue
        time, index = events[name]
        for channel in range(net["populations"][number]["size"]):
            is_of_channel = np.isfinite(time) & (index == channel)
            trains.add(
                (number, channel),
                [
                    np.sort(time[sample, is_of_channel[sample]]).tolist()
                    for sample in range(samples)
                ],
            )
    return trains


def _events(
    path: str, name: str, arrays: Any, net: dict[str, Any], duration: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return the event times of an input, seconds of the chip, inf where unused, and its channels:
    (samples, events) each. Events at or after the end are left out, with a message.
    """
    time, index = arrays[f"{name}.time"], arrays[f"{name}.index"]
    size = next(
        population["size"] for population in net["populations"] if population["name"] == name
    )
    if time.ndim != 2 or time.shape != index.shape:
        raise SystemExit(
            f"{path}: '{name}.time' has shape {time.shape} and '{name}.index' has shape {index.shape};"
            " both must be (samples, events)"
        )
    if index.dtype.kind not in "iu":
        raise SystemExit(f"{path}: '{name}.index' has dtype {index.dtype}; integers are required")
    used = time != np.inf
    for wrong, numbers, array_name, must in (
        (~(time >= 0), time, "time", "at least 0 s, or inf"),
        (used & ((index < 0) | (index >= size)), index, "index", f"from 0 to {size - 1}"),
    ):
        if wrong.any():
            place = np.argwhere(wrong)[0].tolist()
            raise SystemExit(
                f"{path}: '{name}.{array_name}' is {numbers[tuple(place)]:g} at {place}; it must be {must}"
            )
    late = used & (time >= duration)
    if late.any():
        sys.stderr.write(
            f"{path}: ignored events of '{name}' at or after {duration:g} s: {late.sum()}\n"
        )
    return np.where(late, np.inf, time) / net["speedup"], index


def write_outputs(path: str, net: dict[str, Any], trains: Trains) -> None:
    """Write all recorded spikes, in seconds of the network, and of readouts `NAME.membrane` (steps,
    samples, neurons) and `NAME.sample_time` (steps,), also in seconds of the network.
    """
    arrays = {}
    for number, population in enumerate(net["populations"]):
        if population["external"]:
            continue
        if (number, 0) in trains.traces:
            traces = [trains.traces[number, neuron] for neuron in range(population["size"])]
            name, membrane = population["name"], np.stack(traces, axis=2)
            arrays[f"{name}.membrane"] = membrane
            arrays[f"{name}.sample_time"] = np.arange(len(membrane)) * net["step"] * net["speedup"]
            continue
        sorted_events = []
        for sample in range(trains.samples):
            events = [
                (time, neuron)
                for neuron in range(population["size"])
                for time in trains.of((number, neuron))[sample]
            ]
            sorted_events.append(sorted(events))
        most = max(map(len, sorted_events))
        time, index = (
            np.full((trains.samples, most), np.inf),
            np.full((trains.samples, most), population["size"]),
        )
        for sample, events in enumerate(sorted_events):
            for place, (when, neuron) in enumerate(events):
                time[sample, place], index[sample, place] = when * net["speedup"], neuron
        arrays[f"{population['name']}.time"], arrays[f"{population['name']}.index"] = time, index
    np.savez(path, **arrays)
