"""Code that the scripts beside this file share: the network, inputs and outputs. It needs NumPy
only.

Inputs and outputs are .npz files with, for each population NAME, `NAME.time` (samples, events) in
seconds of the network's own time, padded with inf, and `NAME.index` (samples, events), the neuron
of each event. The chip runs faster than the network by the factor `speedup` of network.json.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

HERE = Path(__file__).parent
#: Difference between readings of the CADC and their int8 samples.
INT8_OFFSET = 128
#: Distance from the leak potential, in CADC LSB, beyond which a membrane at rest is reported.
REST_TOLERANCE = 20
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
    parser.add_argument(
        "--force",
        action="store_true",
        help="overwrite OUT.npz, and discard the results of an interrupted execution",
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

    Attributes:
        fingerprints: fingerprint of the inputs of each sample; None if unknown.
    """

    def __init__(self, samples: int, fingerprints: np.ndarray | None = None) -> None:
        self.samples, self.fingerprints = samples, fingerprints
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
    raw = {name: (arrays[f"{name}.time"], arrays[f"{name}.index"]) for name in data_names}
    trains = Trains(samples, sample_fingerprints(raw) if raw else None)
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


def sample_fingerprints(inputs: dict[str, tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """Return a fingerprint of the events of each sample, by input name (time, index), (samples,
    events) each. jaxsnn computes the same, and refuses recordings of other inputs.
    """
    arrays = {
        name: (time.astype("<f4"), index.astype("<i8")) for name, (time, index) in inputs.items()
    }
    fingerprints = []
    for sample in range(len(next(iter(arrays.values()))[0])):
        digest = hashlib.sha256()
        for name in sorted(arrays):
            time, index = (array[sample] for array in arrays[name])
            time, index = time[np.isfinite(time)], index[np.isfinite(time)]
            order = np.lexsort((index, time))
            digest.update(name.encode() + b"\0" + time[order].tobytes() + index[order].tobytes())
        fingerprints.append(digest.hexdigest()[:16])
    return np.array(fingerprints, "<U16")


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
    last = float(np.max(time, where=used, initial=0.0))
    if 0 < last <= duration / net["speedup"]:
        sys.stderr.write(
            f"{path}: the last event of '{name}' is at {last:g} s of {duration:g} s: times are seconds of"
            f" the network, {net['speedup']:g} times those of the chip\n"
        )
    late = used & (time >= duration)
    if late.any():
        sys.stderr.write(
            f"{path}: ignored events of '{name}' at or after {duration:g} s: {late.sum()}\n"
        )
    return np.where(late, np.inf, time) / net["speedup"], index


def cadc_readings(values: Any, leak: Any, name: str) -> np.ndarray:
    """Return membranes as readings of the CADC from 0 to 255.

    By its source, the vendor's software stores readings as int8, 128 lower; this was not verified on a
    chip. At the start of a sample membranes rest at the leak potential, which shows whether 128 was
    subtracted.

    Args:
        values: (steps, samples, neurons), as hxtorch returns them.
        leak: leak potential of each neuron, or of all, CADC LSB.
        name: population, for messages.
    """
    values = np.asarray(values, float)
    difference = float(np.nanmedian(values[0] - np.asarray(leak, float)))
    offset = min((0, INT8_OFFSET), key=lambda offset: abs(difference + offset))
    if offset:
        sys.stderr.write(f"'{name}': added {offset} to the samples of the CADC, which are int8\n")
    if abs(difference + offset) > REST_TOLERANCE:
        sys.stderr.write(
            f"'{name}': the membrane starts {difference + offset:+.0f} LSB from its leak: check the"
            " calibration, or the pause between samples\n"
        )
    return values + offset


def write_arrays(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Write an .npz file, whole or not at all, under exactly this name."""
    part = Path(f"{path}.part")
    with part.open("wb") as file:
        np.savez(file, **arrays)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


def write_outputs(path: str, net: dict[str, Any], trains: Trains, duration: float) -> None:
    """Write all recorded spikes, in seconds of the network, and of readouts `NAME.membrane` (steps,
    samples, neurons) and `NAME.sample_time` (steps,), also in seconds of the network; and what
    identifies the recording: `t_end`, `refractory` (seconds of the network), `fingerprint.mapping` and
    `fingerprint.inputs` (samples,).
    """
    arrays = {"t_end": np.array(duration), "fingerprint.mapping": np.array(net["mapping"])}
    refractory_times = [
        population["refractory_time"]
        for population in net["populations"]
        if not population["external"]
    ]
    arrays["refractory"] = np.array(net["speedup"] * max(refractory_times))
    if trains.fingerprints is not None:
        arrays["fingerprint.inputs"] = trains.fingerprints
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
    write_arrays(Path(path), arrays)
