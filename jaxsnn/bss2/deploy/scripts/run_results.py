"""Recordings of single runs, from which an interrupted execution continues. It needs NumPy only."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
from common import Trains, write_arrays


class RunResults:
    """Files with the recordings of runs, one for each run that ended, from which an interrupted
    execution continues.

    Args:
        output: path of OUT.npz; the file of run N is OUT.npz.runN.
        net: content of network.json.
        trains: inputs, to which the recordings of all runs are added.
        duration: duration of a sample, seconds of the network.
    """

    def __init__(self, output: str, net: dict[str, Any], trains: Trains, duration: float) -> None:
        self.output, self.net, self.trains = Path(output), net, trains
        inputs = () if trains.fingerprints is None else trains.fingerprints.tolist()
        self.key = {
            "network.json": _digest(json.dumps(net, sort_keys=True).encode()),
            "--input": _digest(" ".join(inputs).encode()),
            "--duration": repr(float(duration)),
            "recordings of earlier runs": "",
        }

    def path(self, number: int) -> Path:
        """Return the path of the file of a run."""
        return Path(f"{self.output}.run{number}")

    def start(self, force: bool) -> None:
        """Exit if OUT.npz exists, unless `force`, which also removes the files of all runs."""
        if force:
            self.remove()
        elif self.output.exists():
            raise SystemExit(f"{self.output} exists: pass --force to overwrite it")

    def load(self, number: int, calibration: str) -> bool:
        """Add the recordings of a run that ended earlier; False if there is none.

        Exits if they are of another network, other inputs, or another calibration.
        """
        path, key = self.path(number), self._key(calibration)
        if not path.exists():
            return False
        with np.load(path) as arrays:
            actual = json.loads(str(arrays["key"]))
            differing = [name for name, value in key.items() if actual.get(name) != value]
            if differing:
                raise SystemExit(
                    f"{path} belongs to different {differing[0]}: choose another --output, or pass"
                    " --force to discard it"
                )
            neurons = [tuple(neuron) for neuron in arrays["neurons"].tolist()]
            times = {neuron: [[] for _ in range(self.trains.samples)] for neuron in neurons}
            events = (arrays[name].tolist() for name in ("neuron", "sample", "time"))
            for neuron, sample, time in zip(*events, strict=True):
                times[neurons[neuron]][sample].append(time)
            for neuron, neuron_times in times.items():
                self.trains.add(neuron, neuron_times)
            readouts = arrays["readouts"].tolist()
            for neuron, trace in zip(readouts, arrays["membranes"], strict=True):
                self.trains.traces[tuple(neuron)] = trace
        self._count(path)
        return True

    def save(self, number: int, run: dict[str, Any], calibration: str) -> None:
        """Write the recordings of a run that ended."""
        members = [
            (group["population"], index) for group in run["groups"] for index in group["indices"]
        ]
        neurons = [neuron for neuron in members if neuron in self.trains.times]
        readouts = [neuron for neuron in members if neuron in self.trains.traces]
        events = [
            (place, sample, time)
            for place, neuron in enumerate(neurons)
            for sample, times in enumerate(self.trains.times[neuron])
            for time in times
        ]
        place, sample, time = zip(*events, strict=True) if events else ((), (), ())
        arrays = {
            "key": np.array(json.dumps(self._key(calibration))),
            "neurons": np.array(neurons, int).reshape(-1, 2),
            "neuron": np.array(place, int),
            "sample": np.array(sample, int),
            "time": np.array(time, float),
            "readouts": np.array(readouts, int).reshape(-1, 2),
            "membranes": np.array([self.trains.traces[neuron] for neuron in readouts], float),
        }
        write_arrays(self.path(number), arrays)
        self._count(self.path(number))

    def remove(self) -> None:
        """Remove the files of all runs."""
        for number in range(len(self.net["runs"])):
            self.path(number).unlink(missing_ok=True)

    def _key(self, calibration: str) -> dict[str, str]:
        return {**self.key, "--calibration": _digest(Path(calibration).read_bytes())}

    def _count(self, path: Path) -> None:
        """Make the keys of later runs depend on the recordings of this one, which they replay."""
        earlier = self.key["recordings of earlier runs"].encode()
        self.key["recordings of earlier runs"] = _digest(earlier + path.read_bytes())


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]
