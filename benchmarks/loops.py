"""Worker: plain loops in C, float32, one thread, no vector instructions: the limit to come near.

The compiler is `cc`, or what CC names; the library is built at every start into a temporary
directory.
"""

import ctypes
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np
from protocol import Unavailable, serve
from records import INPUTS, OUTPUTS, Work

FLAGS = (
    "-O3",
    "-march=native",
    "-fno-math-errno",
    "-fno-tree-vectorize",
    "-fno-tree-slp-vectorize",
)
EVENT = np.dtype([("x", np.float32), ("time", np.float32), ("row", np.int32), ("slot", np.int32)])


def compiled() -> ctypes.CDLL:
    """The library.

    Raises:
        Unavailable: there is no compiler.
    """
    compiler = os.environ.get("CC", "cc")
    if shutil.which(compiler) is None:
        raise Unavailable(f"no C compiler: '{compiler}' is not there")
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "loops.so"
        source = Path(__file__).with_suffix(".c")
        subprocess.run(
            [compiler, *FLAGS, "-shared", "-fPIC", source, "-o", library, "-lm"], check=True
        )
        return ctypes.CDLL(str(library))


def _call(function, *arguments) -> None:
    """Arrays as pointers, numbers as C ints."""
    function(
        *(
            ctypes.c_void_p(a.ctypes.data) if isinstance(a, np.ndarray) else ctypes.c_int(a)
            for a in arguments
        )
    )


class _Layer:
    """A population without feedback, and its buffers."""

    def __init__(self, library, cell, weights, rows, batch, spikes):
        self.library, self.cell, self.rows, self.spikes = library, cell, rows, spikes
        self.weights = np.ascontiguousarray(weights.T, np.float32)
        self.neurons, self.inputs = self.weights.shape
        self.batch, self.count = batch, len(rows)
        self.events = np.zeros((batch, self.count + 1), EVENT)
        self.used = np.zeros(batch, np.int32)
        self.times, self.slopes = np.empty((2, batch, self.neurons, spikes), np.float32)
        self.by_weight = np.empty_like(self.weights)
        self.by_time = np.empty((batch, self.count), np.float32)

    def forward(self, time):
        shape = self.batch, self.count
        _call(
            self.library.sort_arrivals, *shape, time, self.rows, self.cell, self.events, self.used
        )
        size = self.inputs, self.neurons, self.spikes
        given = self.events, self.used, *size, self.weights, self.cell
        _call(self.library.layer_forward, *shape, *given, self.times, self.slopes)
        return self.times

    def backward(self, cotangent):
        given = (
            self.events,
            self.used,
            self.inputs,
            self.neurons,
            self.spikes,
            self.weights,
            self.cell,
        )
        found = self.times, self.slopes, cotangent, self.by_weight, self.by_time
        _call(self.library.layer_backward, self.batch, self.count, *given, *found)
        return self.by_time


class _Recurrent:
    """A population with feedback, and its buffers."""

    def __init__(self, library, cell, work):
        self.library, self.cell, self.neurons = library, cell, work.hidden
        both = np.concatenate([work.hidden_weights, work.recurrent_weights])
        self.weights, self.batch = np.ascontiguousarray(both, np.float32), len(work.input_times)
        self.room, self.rows = INPUTS + work.hidden_events, np.arange(INPUTS, dtype=np.int32)
        self.events, self.used = (
            np.zeros((self.batch, INPUTS + 1), EVENT),
            np.zeros(self.batch, np.int32),
        )
        self.log, self.slopes = (
            np.zeros((self.batch, self.room), EVENT),
            np.ones((self.batch, self.room), np.float32),
        )
        self.logged = np.zeros(self.batch, np.int32)
        self.by_weight = np.empty_like(self.weights)
        self.by_time = np.empty((self.batch, INPUTS), np.float32)

    def forward(self, time):
        _call(
            self.library.sort_arrivals,
            self.batch,
            INPUTS,
            time,
            self.rows,
            self.cell,
            self.events,
            self.used,
        )
        given = self.events, self.used, INPUTS, self.neurons, self.room, self.weights, self.cell
        _call(
            self.library.recurrent_forward,
            self.batch,
            INPUTS,
            *given,
            self.log,
            self.slopes,
            self.logged,
        )
        spikes = (np.arange(self.room) < self.logged[:, None]) & (self.log["row"] >= INPUTS)
        return np.where(spikes, self.log["time"], np.float32(np.inf))

    def backward(self, cotangent):
        given = INPUTS, self.neurons, self.room, self.weights, self.cell
        found = self.log, self.slopes, self.logged, cotangent, self.by_weight, self.by_time
        _call(self.library.recurrent_backward, self.batch, INPUTS, *given, *found)
        return self.by_time


class _Readout:
    """The outputs behind a recurrent population: arrivals in order, each sample with rows of its
    own.
    """

    def __init__(self, library, cell, work, hidden):
        room = hidden.room
        self.layers = [
            _Layer(library, cell, work.output_weights, np.zeros(room, np.int32), 1, 1)
            for _ in work.input_times
        ]
        self.hidden, self.by_time = hidden, np.empty((len(self.layers), room), np.float32)

    def forward(self, time):
        rows = np.maximum(self.hidden.log["row"] - INPUTS, 0)
        for layer, of_sample, row in zip(self.layers, time, rows, strict=True):
            layer.rows = row
            layer.forward(of_sample)
        return np.concatenate([layer.times for layer in self.layers])

    def backward(self, cotangent):
        for sample, layer in enumerate(self.layers):
            self.by_time[sample] = layer.backward(cotangent[sample : sample + 1])[0]
        self.by_weight = np.sum([layer.by_weight for layer in self.layers], axis=0)
        return self.by_time


def build(work: Work):
    library = compiled()
    gain = work.r * work.w_in / (work.tau_mem - work.tau_syn)
    cell = np.array([gain, work.v_threshold, work.tau_mem, work.t_end], np.float32)
    batch, times = len(work.input_times), np.ascontiguousarray(work.input_times, np.float32)
    if work.recurrent:
        hidden = _Recurrent(library, cell, work)
        output = _Readout(library, cell, work, hidden)
    else:
        inputs, spikes = np.arange(INPUTS, dtype=np.int32), work.max_spikes
        hidden = _Layer(library, cell, work.hidden_weights, inputs, batch, spikes)
        rows = np.repeat(np.arange(work.hidden, dtype=np.int32), spikes)
        output = _Layer(library, cell, work.output_weights, rows, batch, 1)
    ones = np.ones((batch, OUTPUTS, 1), np.float32)

    def forward():
        return output.forward(hidden.forward(times))

    def both():
        forward()
        hidden.backward(output.backward(ones))

    def results():
        both()
        found = hidden.by_weight if work.recurrent else hidden.by_weight.T
        parts = {"hidden_weights": found[:INPUTS], "recurrent_weights": found[INPUTS:]}
        return {
            "output_times": forward()[..., 0],
            "output_weights": output.by_weight.T,
            "input_times": hidden.by_time,
            **(parts if work.recurrent else {"hidden_weights": found}),
        }

    return {"forward": forward, "weights": both}, results


if __name__ == "__main__":
    serve(
        lambda: f"C, {os.environ.get('CC', 'cc')} {' '.join(FLAGS[:2])}, scalar, one thread", build
    )
