"""Files beside NIR's that a command reads, broken at random: mappings, configurations, checkpoints and
arrays. Each kind makes its file by number, and takes it as far as a command does before it runs.
"""

import argparse
import copy
import io
import json
import zipfile

import numpy as np

from jaxsnn.bss2.check import check_mapping
from jaxsnn.bss2.chip import SMALL
from jaxsnn.bss2.deploy import deploy
from jaxsnn.bss2.floorplan import floorplan
from jaxsnn.bss2.mapping import to_json
from jaxsnn.bss2.mapping_files import quantize_as_mapped, read_mapping
from jaxsnn.bss2.search.portfolio import place_and_route
from jaxsnn.bss2.search.quantize import quantize
from jaxsnn.commands import train_command
from jaxsnn.commands.cli import Parser
from jaxsnn.files.array_files import load_arrays
from jaxsnn.network.inputs import checked_inputs
from jaxsnn.network.lowering.lower import lower
from jaxsnn.nir import build
from jaxsnn.nir.initializers import normal
from jaxsnn.simulation.network_arrays import VALUE_KINDS, load_inputs, stepped_inputs
from jaxsnn.simulation.recordings import load_recording
from jaxsnn.train.data.labelled_files import load_splits
from jaxsnn.train.loop.checkpoint import Checkpoint, Folder, sealed, unsealed
from jaxsnn.train.loop.epoch import TrainState
from jaxsnn.train.loop.history import EpochRecord
from tests.fuzz.mutated_files import mutated_bytes

#: Values that replace a value of JSON or TOML.
_ODD = (
    *(None, True, False, 0, 1, -1, 2, 255, 10**6, 2**31, 2**53 + 1, -(2**63), 10**40, 0.5, -0.0),
    *(1e308, float("inf"), float("nan"), "", "auto", "1ms", "-1ms", "x" * 300, "\x1b[2J", "ä\0"),
    *([], {}, [[]], [1, 2], [[1, 2.0]], {"a": 1}, [None], ["a"], [0.1, -1.0], [[2, 0.0, 0.1]]),
)


def net():
    """A network that fits the small chip, and that has something of everything."""
    neurons = build.cubalif(tau_mem="20ms", tau_syn="10ms")
    layers = [build.linear(6, weight=normal(1.0, 0.5)), neurons]
    layers += [build.linear(2, weight=normal(0.5, 0.5)), neurons]
    return build.sequential(build.input(4), *layers, seed=0)


def _places(value, path=()):
    """Paths of all that is in lists and tables."""
    inside = value.items() if isinstance(value, dict) else enumerate(value)
    paths = []
    for key, entry in inside:
        paths.append((*path, key))
        if isinstance(entry, dict | list):
            paths += _places(entry, (*path, key))
    return paths


def mutated_json(rng, content):
    """A copy in which some values are gone, doubled, swapped or replaced by what is odd there."""
    content = json.loads(json.dumps(content))
    for _ in range(int(rng.choice([1, 1, 1, 2, 3]))):
        places = _places(content)
        if not places:
            break
        path = places[int(rng.integers(len(places)))]
        parent = content
        for key in path[:-1]:
            parent = parent[key]
        key, kind = path[-1], int(rng.integers(7))
        if kind == 0:
            del parent[key]
        elif kind == 1 and isinstance(parent, list):
            parent.insert(key, parent[key])
        elif kind == 1:
            parent[f"{key}x"] = parent.pop(key)
        elif kind == 2:
            source_path = places[int(rng.integers(len(places)))]
            value = content
            for step in source_path:
                value = value[step]
            parent[key] = json.loads(json.dumps(value))
        elif kind == 3 and isinstance(parent[key], int | float):
            parent[key] = parent[key] + int(rng.choice([-1, 1, 2, 100]))
        else:
            parent[key] = copy.deepcopy(_ODD[int(rng.integers(len(_ODD)))])
    return content


class Mappings:
    """Mappings onto a chip: read, checked against their network, drawn, deployed."""

    def __init__(self, folder):
        self.folder = folder
        graph = net()
        self.graph, self.made = graph, []
        for chip in ({}, {"chip": SMALL}):
            placement = place_and_route(quantize(graph).netlist, time_limit=5.0, **chip)
            self.made.append(to_json(placement.mapping))
        self.quantized = quantize(graph)

    def image(self, rng):
        text = self.made[int(rng.integers(len(self.made)))]
        if rng.integers(5) == 0:
            return mutated_bytes(rng, text.encode())
        return json.dumps(mutated_json(rng, json.loads(text))).encode()

    def journey(self, path, rng):
        yield "read"
        mapping = read_mapping(path)
        yield "quantise"
        quantize_as_mapped(self.graph, mapping)
        yield "check"
        wrong = check_mapping(mapping, self.quantized.netlist)
        assert all(fault.message for fault in wrong)
        if not wrong:
            yield "draw"
            floorplan(mapping)
        yield "write"
        to_json(mapping)
        if rng.integers(8) == 0:
            yield "deploy"
            deploy(mapping, self.quantized, self.folder / "deployed", force=True)


_CONFIG = {
    "data": "mnist",
    "side": 15,
    "epochs": 12,
    "batch-size": 128,
    "lr": 0.003,
    "ema-decay": 0.998,
    "t-end": "60ms",
    "seed": 1,
    "encoder-options": {"least": 0.2, "t-max": "20ms", "clock": [0, "10ms", "20ms"]},
    "loss-options": {"temperature": 0.1, "late-weight": 0.02},
    "augment": {"shift": 0.4, "rotation": 3, "scale": 0.03, "dropout": 0.02},
    "engine-options": {"max-spikes": 1, "first-spike-only": True, "min-slope": 0.1},
    "network": {
        "input": 5,
        "tau-mem": "20ms",
        "tau-syn": "10ms",
        "layers": [
            {"neurons": 8, "weight": [0.5, 0.1], "feedback": [0.0, 0.1]},
            {"neurons": 3, "weight": [[8, 0.3, 0.1]], "readout": True, "tau-mem": "40ms"},
        ],
    },
}
_IMAGES = {
    "input": [1, 8, 8],
    "tau-mem": "20ms",
    "tau-syn": "10ms",
    "layers": [
        {"channels": 2, "kernel": 3, "stride": 1, "padding": 1, "weight": [0.5, 0.1]},
        {"pool": 2},
        {"neurons": 3, "weight": [0.3, 0.1]},
    ],
}


_SMALL = {"data": "yinyang", "network": _CONFIG["network"]}


def _toml(value):
    """A value as TOML has it; None, which it has not, is text."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(k)} = {_toml(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    if isinstance(value, float) and not np.isfinite(value):
        return str(value)
    return json.dumps("none" if value is None else value)


class Configurations:
    """Configurations of training runs: read, checked, their networks built."""

    def __init__(self, folder):
        self.parser = argparse.ArgumentParser()
        train_command.add(self.parser.add_subparsers(parser_class=Parser))
        self.contents = [_CONFIG, _CONFIG | {"network": _IMAGES}, _SMALL]

    def image(self, rng):
        content = self.contents[int(rng.integers(len(self.contents)))]
        mutate = rng.integers(5) != 0
        content = mutated_json(rng, content) if mutate else content
        lines = [f"{json.dumps(key)} = {_toml(value)}" for key, value in content.items()]
        data = "\n".join(lines).encode(errors="replace")
        return data if mutate else mutated_bytes(rng, data)

    def journey(self, path, rng):
        arguments = self.parser.parse_args(["train", "--config", str(path), "-o", "out.nir"])
        yield "options"
        options = train_command.options_of(arguments)
        yield "network"
        train_command.graph_of(arguments, options)


class Checkpoints:
    """Checkpoints, most of them with a right seal: read, and begun from."""

    def __init__(self, folder):
        self.folder = folder / "checkpoints"
        weights = {"1": np.ones((3, 2), np.float32), "3": np.zeros(3, np.float32)}
        self.state = TrainState(raw=weights, memory=(np.zeros(3, np.float32),), average=None)
        record = {"silent": {"1": 0.5}, "spikes": {"1": 1.0}, "max_spikes": 4}
        metric_names = ("train_loss", "train_accuracy", "validation_loss", "validation_accuracy")
        numbers = dict.fromkeys((*metric_names, "undecided", "clipped"), 0.5)
        history = tuple(EpochRecord(epoch=epoch, **numbers, **record) for epoch in range(3))
        self.settings = {"epochs": 3, "learning_rate": 0.01}
        folder_on_disk = Folder(self.folder, self.settings, "print", alone=True)
        checkpoint = Checkpoint(
            state=self.state,
            best_state=self.state,
            best_epoch=1,
            history=history,
            seconds=(0.1, 0.2, 0.3),
            budgets={"max_spikes": 4},
            factor=1.0,
            failures=0,
            failing_epochs=0,
        )
        folder_on_disk.save(checkpoint, dict)
        folder_on_disk.close()
        self.whole = (self.folder / "last.npz").read_bytes()
        self.header, self.arrays = unsealed(self.folder / "last.npz")

    def image(self, rng):
        if rng.integers(4) == 0:
            return mutated_bytes(rng, self.whole)
        arrays = {f"array{number}": array for number, array in enumerate(self.arrays)}
        if rng.integers(4) == 0:
            name = str(rng.choice(list(arrays)))
            arrays[name] = odd_array(rng, arrays[name])
        return sealed(mutated_json(rng, self.header), arrays)

    def journey(self, path, rng):
        yield "read"
        (self.folder / "last.npz").write_bytes(path.read_bytes())
        folder = Folder(self.folder, self.settings, "print", alone=False)
        restored = folder.begin(resume=True, state=self.state, overwrite=False)
        yield "go on"
        assert restored.history[restored.best_epoch].epoch == restored.best_epoch
        json.dumps([vars(record) for record in restored.history])


def odd_array(rng, array):
    kind = int(rng.integers(9))
    if kind == 0 and array.dtype.kind in "fiub":
        return array.astype(str(rng.choice(["f2", "f8", "i1", "i8", "u8", "?", "c8", "S4", "U4"])))
    if kind == 1:
        return array[..., None]
    if kind == 2:
        return array.reshape(-1)
    if kind == 3:
        return array[:0] if array.ndim else array
    if kind == 4:
        return np.array(array, object)
    if kind == 5:
        return np.zeros(int(rng.integers(3)), [("a", "f4"), ("b", "i2")])
    if kind == 6:
        return np.zeros((*array.shape, 0))
    changed = np.array(array)
    if changed.size and changed.dtype.kind in "fiub":
        odd = rng.choice([np.nan, np.inf, -np.inf, -1, 1e300, 2.0**40, 999, 0.5])
        with np.errstate(all="ignore"):
            place = int(rng.integers(changed.size))
            changed.reshape(-1)[place] = np.asarray(odd).astype(array.dtype)
    return changed


class Arrays:
    """Arrays in .npz files: inputs of a run, recordings, and labelled data."""

    def __init__(self, folder):
        rng = np.random.default_rng(0)
        self.network = lower(net())
        time, index = rng.random((3, 5)) * 1e-2, rng.integers(0, 4, (3, 5))
        parts = (("train", 12), ("test", 4))
        self.contents = [
            {
                "input.x": (rng.random((7, 2, 4)) < 0.3).astype(float),
                "output.y": np.zeros((7, 2, 2)),
            },
            {"input.time": time, "input.index": index},
            {"time": time, "index": index, "value": np.ones((3, 5))},
            {f"x_{name}": rng.random((size, 4)) for name, size in parts}
            | {f"y_{name}": np.arange(size) % 2 for name, size in parts},
            {f"time_{name}": rng.random((size, 5)) * 1e-2 for name, size in parts}
            | {f"index_{name}": rng.integers(0, 4, (size, 5)) for name, size in parts}
            | {f"y_{name}": np.arange(size) % 2 for name, size in parts},
        ]

    def image(self, rng):
        arrays = dict(self.contents[int(rng.integers(len(self.contents)))])
        written = io.BytesIO()
        by_bytes = rng.integers(3) == 0
        if not by_bytes:
            for _ in range(int(rng.choice([1, 1, 2]))):
                name, kind = str(rng.choice(list(arrays))), int(rng.integers(8))
                if kind == 0:
                    del arrays[name]
                elif kind == 1:
                    arrays[str(rng.choice(["x", "input.x", "y_validation", "a.b", "x_test"]))] = (
                        arrays.pop(name)
                    )
                else:
                    arrays[name] = odd_array(rng, arrays[name])
                if not arrays:
                    break
        [np.savez, np.savez_compressed][int(rng.integers(2))](written, **arrays)
        data = written.getvalue()
        return mutated_bytes(rng, data) if by_bytes else oddly_zipped(rng, data)

    def journey(self, path, rng):
        yield "read"
        arrays = load_arrays(path)
        values = str(rng.choice(VALUE_KINDS))
        if any(name.endswith(("_train", "_test", "_validation")) for name in arrays):
            yield "labelled"
            load_splits(path, 0, outputs=2)
            return
        yield "inputs"
        checked_inputs(self.network, load_inputs(path, self.network, 1e-3, values).events)
        yield "steps"
        stepped_inputs(path, self.network, 1e-3, values)
        yield "recording"
        load_recording(path, self.network, 1e-3)


def oddly_zipped(rng, data):
    """Sometimes with a member that is no array, or twice there."""
    if rng.integers(12):
        return data
    written = io.BytesIO(data)
    with zipfile.ZipFile(written, "a") as archive:
        archive.writestr(str(rng.choice(["x.npy", "../x.npy", "readme.txt", "/"])), b"no array")
    return written.getvalue()


#: Kinds of files by their names in `file_journeys`.
KINDS = {
    "mapping": Mappings,
    "config": Configurations,
    "checkpoint": Checkpoints,
    "arrays": Arrays,
}
