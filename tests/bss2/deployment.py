"""A folder that `deploy` wrote, run in the stack of tests/bss2/stack, and what it recorded."""

import importlib
import json
import sys

import numpy as np

from jaxsnn.bss2.deploy import deploy
from jaxsnn.units import parse_time
from tests.bss2.stack import Stack

SCRIPTS = (
    "common",
    "routing",
    "run_results",
    "run_hxtorch",
    "chip_modules",
    "calibrate",
    "measure_slope",
)


class Deployment:
    """A deployed network and its stack.

    Attributes:
        quantized, mapping: what was deployed.
        net: network.json.
        stack: with the strength of synaptic inputs that the network asks for.
    """

    def __init__(self, folder, monkeypatch, quantized, mapping, records=False):
        self.folder, self.monkeypatch = folder, monkeypatch
        self.quantized, self.mapping = quantized, mapping
        self.done = deploy(mapping, quantized, folder, force=True)
        self.net = json.loads((folder / "network.json").read_text())
        slope = 0.0 if quantized.slope is None else quantized.slope / parse_time("1us")
        self.stack = Stack(slope, records)
        for name, module in self.stack.modules.items():
            monkeypatch.setitem(sys.modules, name, module)
        monkeypatch.syspath_prepend(str(folder))

    def script(self, name):
        """A script of the folder, alone with its neighbours."""
        for script_name in SCRIPTS:
            self.monkeypatch.delitem(sys.modules, script_name, raising=False)
        importlib.invalidate_caches()
        return importlib.import_module(name)

    def run_once(self):
        """Send the first run, without events."""
        run, trains = self.script("run_hxtorch"), self.script("common").Trains(1)
        (calibration,) = self.script("calibrate").calibrated(self.net)
        self.stack.modules["hxtorch"].init_hardware()
        run.run_once(self.net, self.net["runs"][0], trains, 1e-5, str(calibration))

    def run(self, events, duration, *arguments, force=True):
        """Run all runs: events is input name -> (time, index) arrays in seconds of the network."""
        arrays = {}
        for name, (time, index) in events.items():
            arrays |= {f"{name}.time": time, f"{name}.index": index}
        np.savez(self.folder / "x.npz", **arrays)
        paths = ["--input", str(self.folder / "x.npz"), "--output", str(self.folder / "y.npz")]
        argv = ["run", *paths, "--duration", str(duration), *["--force"] * force, *arguments]
        self.monkeypatch.setattr(sys, "argv", argv)
        self.script("run_hxtorch").main()
        return np.load(self.folder / "y.npz")


def trains(time, index, size):
    """By sample and neuron, rising times."""
    return [
        [np.sort(times[(neurons == n) & np.isfinite(times)]) for n in range(size)]
        for times, neurons in zip(time, index, strict=True)
    ]


def random_events(net, samples, most, duration, seed=0):
    """Each input channel up to `most` times, at random; (time, index) by input."""
    random = np.random.default_rng(seed)
    events = {}
    for part in net["populations"]:
        if part["external"] and part["name"] != net["bias_source"]:
            time = random.uniform(0, duration, (samples, part["size"] * most))
            time[random.random(time.shape) < 0.3] = np.inf
            index = np.tile(np.arange(part["size"]), most)
            events[part["name"]] = time, np.broadcast_to(index, time.shape)
    return events
