"""Files that runs and chips write and commands read again, broken at random: recordings in NIR's data
format, spikes of a chip, saved streams, measured slopes and histories of training runs.
"""

import copy
import hashlib
import io
import json
import struct
from dataclasses import fields
from types import SimpleNamespace

import nir
import numpy as np

from jaxsnn.bss2.search.measured_slopes import chosen_slope, read_slopes
from jaxsnn.commands.plot_command import saved_trains
from jaxsnn.errors import SimulationError
from jaxsnn.event.native.native_stream import StreamState
from jaxsnn.event.native.stream_state import state_bytes
from jaxsnn.event.streaming import stream
from jaxsnn.network.inputs import checked_inputs
from jaxsnn.network.lowering.lower import lower
from jaxsnn.network.spikes import Events
from jaxsnn.nir.io.data_files import write_data
from jaxsnn.nir.io.files import Dataset, Group, _image
from jaxsnn.nir.io.reading import read_hdf5
from jaxsnn.simulation.network_arrays import load_inputs
from jaxsnn.simulation.recordings import load_recording
from jaxsnn.train.loop.recorded_chip import (
    INPUTS_ARRAY,
    T_END_ARRAY,
    read_recording,
    sample_fingerprints,
)
from tests.fuzz.mutated_files import mutated_bytes, mutated_document, odd_value
from tests.fuzz.other_files import mutated_json, net, odd_array, oddly_zipped


class Recordings:
    """Recordings in NIR's data format: entries, attributes or bytes are replaced."""

    def __init__(self, folder):
        self.network = lower(net())
        index, time = (
            np.array([[0, 3, -1], [2, 1, 0]]),
            np.array([[1e-3, 2e-3, np.inf], [0.0, 4e-3, 9e-3]]),
        )
        events = {"idx": index, "time": time, "n_neurons": 4, "t_max": 1e-2}
        steps = nir.TimeGriddedData(data=np.ones((2, 10, 4)), dt=1e-3)
        spikes = nir.TimeGriddedData(data=np.zeros((2, 10, 2)), dt=1e-3)
        observables = {
            "events": nir.EventData(**events),
            "values": nir.ValuedEventData(**events, value=np.where(index < 0, 0.0, 0.5)),
            "steps": steps,
        }
        self.documents, self.images = [], []
        for name, data in observables.items():
            nodes = {"input": nir.NIRNodeData(observables={"spikes": data})}
            nodes["output"] = nir.NIRNodeData(observables={"spikes": spikes})
            path = folder / f"{name}.nir"
            write_data(path, nir.NIRGraphData(nodes=nodes))
            self.documents.append(read_hdf5(path, "a recording"))
            self.images.append(path.read_bytes())

    def image(self, rng):
        number = int(rng.integers(len(self.documents)))
        if rng.integers(4) == 0:
            return mutated_bytes(rng, self.images[number])
        for _ in range(20):
            document = self.documents[number]
            try:
                if rng.integers(3):
                    document = mutated_document(rng, document)
                else:
                    document = _other_attributes(rng, document)
                return _image(document)
            except (ValueError, TypeError, OSError, RuntimeError, UnicodeError, KeyError):
                continue  # h5py itself cannot write that
        return mutated_bytes(rng, self.images[number])

    def journey(self, path, rng):
        yield "inputs"
        checked_inputs(self.network, load_inputs(path, self.network, 1e-3).events)
        yield "recording"
        load_recording(path, self.network, 1e-3)


def _other_attributes(rng, document):
    """A copy in which an attribute is gone, renamed or replaced."""
    document = copy.deepcopy(document)
    groups, waiting = [], [document]
    while waiting:
        group = waiting.pop()
        groups += [group] if group.attributes else []
        waiting += [entry for entry in group.values() if isinstance(entry, Group)]
    group = groups[int(rng.integers(len(groups)))]
    name = str(rng.choice(list(group.attributes)))
    kind = int(rng.integers(4))
    if kind == 0:
        del group.attributes[name]
    elif kind == 1:
        group.attributes[f"{name}x"] = group.attributes.pop(name)
    elif kind == 2:
        number = np.array(
            rng.choice([0.0, -1.0, 1e-300, 5e-324, 1e300, 2.0**53, np.nan, np.inf, 0.5, 4.0])
        )
        group.attributes[name] = Dataset(value=number, dtype=number.dtype)
    else:
        group.attributes[name] = odd_value(rng)
    return document


class Results:
    """Spikes that a chip recorded, or that a run wrote: compared with the network, and drawn."""

    def __init__(self, folder):
        self.network = lower(net())
        self.sent = {"input": (np.full((3, 2), 1e-3), np.array([[0, 1]] * 3))}
        self.arrays = {
            "2.time": np.array([[1e-3, 2e-3, np.inf]] * 3),
            "2.index": np.array([[0, 5, 6]] * 3),
            "4.time": np.array([[2e-3, np.inf]] * 3),
            "4.index": np.array([[0, 2]] * 3),
            INPUTS_ARRAY: sample_fingerprints(self.sent),
            T_END_ARRAY: np.float64(0.05),
        }

    def image(self, rng):
        arrays, by_bytes = dict(self.arrays), rng.integers(4) == 0
        for _ in range(0 if by_bytes else int(rng.choice([1, 1, 2]))):
            name, kind = str(rng.choice(list(arrays))), int(rng.integers(8))
            if kind == 0 and len(arrays) > 1:
                del arrays[name]
            elif kind == 1:
                arrays[str(rng.choice(["2.time", "4.index", "9.time", "time", "a.b"]))] = (
                    arrays.pop(name)
                )
            else:
                arrays[name] = odd_array(rng, arrays[name])
        written = io.BytesIO()
        [np.savez, np.savez_compressed][int(rng.integers(2))](written, **arrays)
        data = written.getvalue()
        return mutated_bytes(rng, data) if by_bytes else oddly_zipped(rng, data)

    def journey(self, path, rng):
        if rng.integers(2):
            yield "compare"
            recorded = read_recording(path, self.sent, self.network)
            assert all(times.ndim == 3 for times in recorded.times.values())
        else:
            yield "draw"
            trains = saved_trains(path)
            assert all(
                np.isfinite(train.time).all() for sample in trains for train in sample.values()
            )


class Streams:
    """Saved streams, most of them with a right seal: restored, and continued."""

    def __init__(self, folder):
        self.network = lower(net())
        session = stream(self.network)
        session.push(Events(time=[1e-3, 2e-3, 3e-3], index=[0, 1, 2]), until=4e-3)
        session.push(Events(time=[6e-3, 7e-3], index=[0, 3]), until=5e-3)
        session.save(folder / "sound.stream")
        self.state, self.print = session._native.state(), session._fingerprint()
        self.whole = (folder / "sound.stream").read_bytes()
        self.session = session

    def image(self, rng):
        kind = int(rng.integers(6))
        if kind == 0:
            return mutated_bytes(rng, self.whole)
        arrays = {
            field.name: np.array(getattr(self.state, field.name)) for field in fields(StreamState)
        }
        if kind == 1:  # sizes that do not belong to the numbers
            place = 48 + 8 * int(rng.integers(4))
            size = int(rng.choice([0, 1, -1, 2, 2**31, 2**60, 2**62, -(2**63)]))
            content = self.whole[:place] + struct.pack("<q", size) + self.whole[place + 8 : -32]
            return content + hashlib.sha256(content).digest()
        for _ in range(int(rng.choice([1, 1, 2, 4]))):
            array = arrays[str(rng.choice(list(arrays)))].reshape(-1)
            if array.size:
                array[int(rng.integers(array.size))] = self._odd(rng, array.dtype)
        return state_bytes(StreamState(**arrays), self.print)

    @staticmethod
    def _odd(rng, dtype):
        if dtype.kind == "f":
            return rng.choice(
                [np.nan, np.inf, -np.inf, -1.0, 0.0, 1e308, -1e308, 5e-324, 1e-3, 1e3]
            )
        return int(rng.choice([0, 1, -1, 2, 3, 7, 255, 2**31, 2**40, 2**62, -(2**63)]))

    def journey(self, path, rng):
        yield "restore"
        self.session.restore(path)
        yield "continue"
        try:
            self.session.push(until=self.session.time + 1e-2)
            self.session.voltage("4")
        except SimulationError:  # neurons that fire infinitely often end a stream
            self.session = stream(self.network)
            raise


def _text(rng, content):
    """JSON of a changed document, changed bytes of it, or too deep or too long a part of it."""
    text, kind = json.dumps(content), int(rng.integers(8))
    if kind == 0:
        return mutated_bytes(rng, text.encode())
    if kind == 1:
        piece = str(rng.choice(["[", "{", '{"a":', "[[],", "1", "-", '"', "\\", "1,", "e", " "]))
        place = int(rng.integers(len(text) + 1))
        return (
            text[:place] + piece * int(rng.choice([2, 100, 5000, 10**5])) + text[place:]
        ).encode()
    return json.dumps(mutated_json(rng, content)).encode()


class Slopes:
    """Tables of measured slopes."""

    def __init__(self, folder):
        self.table = [
            {"slope": 0.5, "i_synin_gm": 300, "synapse_dac_bias": 400},
            {"slope": 1.5, "i_synin_gm": 600, "synapse_dac_bias": 800},
            {"slope": 2},
        ]

    def image(self, rng):
        return _text(rng, self.table)

    def journey(self, path, rng):
        yield "read"
        slopes = read_slopes(path)
        yield "choose"
        assert 0 < chosen_slope(slopes, 1.0).slope < float("inf")


class Histories:
    """Histories of training runs, drawn."""

    def __init__(self, folder):
        fields = (
            "train_loss",
            "train_accuracy",
            "validation_loss",
            "validation_accuracy",
            "undecided",
            "clipped",
        )
        more = {"silent": {"2": 0.5}, "spikes": {"2": 1.0}, "max_spikes": 4}
        epochs = [{"epoch": epoch, **dict.fromkeys(fields, 0.5), **more} for epoch in range(3)]
        loss = {"type": "FirstSpike", "temperature": 0.1}
        self.history = {
            "epochs": epochs,
            "best_epoch": 1,
            "test_accuracy": 0.5,
            "settings": {"loss": loss},
            "notes": [],
        }
        self.folder = folder

    def image(self, rng):
        return _text(rng, self.history)

    def journey(self, path, rng):
        from jaxsnn.commands.plot_command import _curve

        yield "draw"
        _curve(SimpleNamespace(file=path))


#: Kinds of files by their names in `file_journeys`.
KINDS = {
    "recording": Recordings,
    "result": Results,
    "stream": Streams,
    "slopes": Slopes,
    "history": Histories,
}
