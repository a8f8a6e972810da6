"""Recordings and events whose times, neurons, shapes or sizes no simulation writes: each is one message
with the file, the array, the place and the numbers, and takes little memory.
"""

import tracemalloc
from contextlib import contextmanager

import h5py
import nir
import numpy as np
import pytest

from jaxsnn.commands.plot_command import saved_trains
from jaxsnn.commands.run_command import run_in_steps
from jaxsnn.errors import FileError, JaxsnnError, UsageError
from jaxsnn.files.read_limits import limit_reading
from jaxsnn.grid.rasters import _steps
from jaxsnn.network.inputs import checked_events
from jaxsnn.network.lowering.lower import lower
from jaxsnn.network.spikes import Events
from jaxsnn.nir import build
from jaxsnn.nir.io.data_files import read_data
from jaxsnn.nir.io.recorded_data import bin_events
from jaxsnn.train.data.utterances import read_ts
from jaxsnn.train.loop.recorded_chip import read_recording
from tests.helpers.refusals import assert_refused

NAN, INF = np.nan, np.inf
TIME = np.array([[1e-3, 2e-3], [3e-3, INF]])
INDEX = np.array([[0, 1], [1, 2]])


@contextmanager
def little_memory(limit=2**24):
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < limit
    finally:
        tracemalloc.stop()


def set_at(array, place, value, dtype=None):
    changed = np.array(array, dtype)
    changed[place] = value
    return changed


#: Times and neurons of 'out', and parts of the message.
SPIKES = {
    "a time of NaN": (set_at(TIME, (0, 1), NAN), INDEX, ("out.time", "nan", "(0, 1)")),
    "a negative time": (set_at(TIME, (1, 0), -1e-3), INDEX, ("out.time", "-0.001", "(1, 0)")),
    "minus infinity": (set_at(TIME, (0, 0), -INF), INDEX, ("out.time", "-inf", "(0, 0)")),
    "a negative neuron": (TIME, set_at(INDEX, (1, 0), -5), ("out.index", "-5", "(1, 0)")),
    "a neuron of 10**12": (TIME, set_at(INDEX, (0, 0), 10**12), ("out.index", "1e+12", "(0, 0)")),
    "padding of 10**12": (TIME, set_at(INDEX, (1, 1), 10**12), ("out.index", "1e+12", "(1, 1)")),
    "the largest uint64": (TIME, np.full((2, 2), 2**64 - 1, np.uint64), ("out.index", "(0, 0)")),
    "the smallest int64": (TIME, np.full((2, 2), -(2**63)), ("out.index", "(0, 0)")),
    "half neurons": (TIME, INDEX + 0.5, ("out.index", "float64")),
    "neurons of NaN": (TIME, INDEX * NAN, ("out.index", "float64")),
    "neurons of bool": (TIME, INDEX > 0, ("out.index", "bool")),
    "times of text": (TIME.astype(str), INDEX, ("out.time", "<U")),
    "complex times": (TIME + 0j, INDEX, ("out.time", "complex128")),
    "times of bool": (TIME > 0, INDEX, ("out.time", "bool")),
    "dates": (np.zeros((2, 2), "M8[s]"), INDEX, ("M8[s]",)),
    "records": (np.zeros((2, 2), [("a", "f4")]), INDEX, ("f4",)),
    "objects": (TIME.astype(object), INDEX, ("out.time", "Python objects")),
    "fewer events": (TIME, INDEX[:, :1], ("out.time", "(2, 2)", "(2, 1)")),
    "fewer samples": (TIME, INDEX[:1], ("out.time", "(2, 2)", "(1, 2)")),
    "an axis more": (TIME[None], INDEX[None], ("out.time", "(1, 2, 2)")),
    "no axis": (TIME[0, 0], INDEX[0, 0], ("out.time", "()")),
}


@pytest.mark.parametrize("kind", SPIKES)
def test_saved_spikes_that_no_run_writes_are_refused(kind, tmp_path):
    time, index, words = SPIKES[kind]
    np.savez(tmp_path / "a.npz", **{"out.time": time, "out.index": index})
    with little_memory():
        problem = assert_refused(lambda: saved_trains(tmp_path / "a.npz"), FileError, r"a\.npz")
    for word in words:
        assert word in problem.message


def test_saved_spikes_without_neurons_or_of_other_samples_are_refused(tmp_path):
    np.savez(tmp_path / "a.npz", **{"out.time": TIME})
    assert_refused(lambda: saved_trains(tmp_path / "a.npz"), FileError, "'out.index'")
    more = {"b.time": TIME[:1], "b.index": INDEX[:1]}
    np.savez(tmp_path / "a.npz", **{"a.time": TIME, "a.index": INDEX}, **more)
    problem = assert_refused(lambda: saved_trains(tmp_path / "a.npz"), FileError, r"'b\.time'")
    assert (problem.facts["samples"], problem.facts["actual"]) == (2, 1)


def test_saved_spikes_are_read(tmp_path):
    np.savez(tmp_path / "a.npz", **{"out.time": TIME[:, ::-1], "out.index": INDEX[:, ::-1]})
    first, second = saved_trains(tmp_path / "a.npz")
    np.testing.assert_array_equal(first["out"].time, [2e-3, 1e-3])
    np.testing.assert_array_equal(second["out"].index, [1])
    assert first["out"].size == 2


# -- events that are simulated


@pytest.mark.parametrize("place", [(0, 0), (1, 0)])
def test_a_channel_of_nan_is_refused_with_its_place(place):
    index = set_at(INDEX, place, NAN, float)
    events = Events(time=TIME, index=index)
    problem = assert_refused(
        lambda: checked_events("in", events, 2, np.float32), UsageError, "channel nan"
    )
    assert f"sample {place[0]}, slot {place[1]}" in problem.message


def test_an_unused_slot_may_have_a_channel_of_nan():
    events = Events(time=TIME, index=set_at(INDEX, (1, 1), NAN, float))
    assert np.asarray(checked_events("in", events, 2, np.float32).index).tolist()[0] == [0, 1]


@pytest.mark.parametrize(("t_end", "dt"), [(1e300, 1e-3), (0.02, 1e-12), (1.0, 1e-300)])
def test_more_time_steps_than_can_be_counted_are_refused(t_end, dt):
    problem = assert_refused(lambda: _steps(t_end, dt), UsageError, "time steps")
    assert problem.facts["limit"] == 2**31 - 1


def norse_net():
    neurons = build.lif(2, tau="10ms")
    layers = [build.input(2), build.linear(weight=np.eye(2)), neurons]
    return build.sequential(*layers, dialect="norse", dt="1ms")


@pytest.mark.parametrize("t_end", [1e5, 1e300])
def test_events_that_fill_too_many_time_steps_are_refused(t_end, tmp_path):
    np.savez(tmp_path / "x.npz", time=TIME, index=INDEX)
    graph = norse_net()
    with little_memory(), limit_reading(max_bytes=2**24):
        assert_refused(
            lambda: run_in_steps(graph, tmp_path / "x.npz", tmp_path / "o.npz", t_end=t_end),
            UsageError,
            "time steps",
        )
    assert not (tmp_path / "o.npz").exists()


# -- recordings of a chip


@pytest.mark.parametrize("dtype", [np.int8, np.uint64, np.int64, np.uint8])
def test_a_chip_may_record_neurons_in_any_type_of_integer(dtype, tmp_path):
    network = lower(norse_net())
    (name,) = network.populations
    np.savez(tmp_path / "r.npz", **{f"{name}.time": TIME, f"{name}.index": INDEX.astype(dtype)})
    sent = {"input": (TIME, INDEX)}
    times = read_recording(tmp_path / "r.npz", sent, network).times[name]
    assert times.tolist() == [[[1e-3], [2e-3]], [[INF], [3e-3]]]


# -- NIR data


def write_observable(path, arrays, attributes, kind="EventData"):
    with h5py.File(path, "w") as file:
        file.attrs["__type__"] = "NIRGraphData"
        node = file.create_group("nodes/input")
        node.attrs["__type__"] = "NIRNodeData"
        observable = node.create_group("observables/spikes")
        observable.attrs["__type__"] = kind
        for name, value in attributes.items():
            observable.attrs[name] = value
        for name, value in arrays.items():
            observable[name] = value
    return path


EVENTS = {"idx": INDEX - 3 * (INDEX == 2), "time": TIME}
SIZES = {"n_neurons": 2, "t_max": 0.01}
#: Arrays and attributes of an observable that differ, and a part of the message.
DATA = {
    "n_neurons infinite": ({}, {"n_neurons": INF}, "n_neurons"),
    "n_neurons NaN": ({}, {"n_neurons": NAN}, "n_neurons"),
    "n_neurons half": ({}, {"n_neurons": 2.5}, "2.5"),
    "n_neurons negative": ({}, {"n_neurons": -1}, "-1"),
    "n_neurons of 10**12": ({}, {"n_neurons": 10**12}, "1e+12"),
    "n_neurons a list": ({}, {"n_neurons": [2, 3]}, "n_neurons"),
    "n_neurons empty": ({}, {"n_neurons": np.zeros(0)}, "n_neurons"),
    "n_neurons text": ({}, {"n_neurons": "two"}, "n_neurons"),
    "t_max text": ({}, {"t_max": "late"}, "t_max"),
    "t_max complex": ({}, {"t_max": 1j}, "t_max"),
    "no time": ({"time": None}, {}, "'spikes' has no 'time'"),
    "no idx": ({"idx": None}, {}, "'spikes' has no 'idx'"),
    "fewer times": ({"time": TIME[:, :1]}, {}, "shape"),
}


@pytest.mark.parametrize("kind", DATA)
def test_broken_nir_data_are_refused(kind, tmp_path):
    arrays, attributes, words = DATA[kind]
    arrays = {name: value for name, value in (EVENTS | arrays).items() if value is not None}
    path = write_observable(tmp_path / "d.nir", arrays, SIZES | attributes)
    problem = assert_refused(lambda: read_data(path), FileError, r"d\.nir")
    assert words in problem.message


def test_sound_nir_data_are_read(tmp_path):
    data = read_data(write_observable(tmp_path / "d.nir", EVENTS, SIZES))
    assert data.nodes["input"].observables["spikes"].n_neurons == 2


@pytest.mark.parametrize(
    ("t_max", "neurons", "dt"), [(1e300, 2, 1e-3), (0.01, 2**31 - 1, 1e-3), (0.01, 2, 1e-300)]
)
def test_events_are_not_sorted_into_more_steps_than_memory_holds(t_max, neurons, dt):
    data = nir.EventData(
        idx=np.array([[0]]), time=np.array([[0.0]]), n_neurons=neurons, t_max=t_max
    )
    with little_memory(2**20):
        problem = assert_refused(lambda: bin_events(data, dt), UsageError, "limit")
    assert problem.facts["limit"] == 2**31


# -- utterances

LINE = ":".join([",".join(["0.5"] * 10)] * 12)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (f"{LINE}:0", "label is '0'"),
        (f"{LINE}:-5", "label is '-5'"),
        (f"{LINE}:10", "label is '10'"),
        (f"{LINE}:1{'0' * 30}", "label"),
        (f"{LINE}:{'9' * 5000}", "label"),
        (f"{LINE}:1.5", "label is '1.5'"),
        (f"{LINE}:٣", "label"),
        (f"{LINE}:", "label is ''"),
        (LINE.replace("0.5", "nan", 1) + ":1", "channel 0 has nan in frame 0"),
        (LINE.replace("0.5", "1e999", 3) + ":1", "channel 0 has inf"),
        (LINE.replace("0.5", "-1e39", 1) + ":1", "-1e+39"),
        ("x" * 100_000 + f":{LINE}:1", "channels"),
        (f"{LINE},1:1", "line 3"),
        ("1", "0 channels"),
    ],
    ids=range(14),
)
def test_a_line_that_is_no_utterance_is_refused(line, words, tmp_path):
    (tmp_path / "a.ts").write_text(f"@data\n{LINE}:9\n{line}\n")
    problem = assert_refused(lambda: read_ts(tmp_path / "a.ts"), FileError, r"a\.ts, line 3")
    assert words in problem.message
    assert len(problem.message) < 400


def test_many_short_utterances_are_refused_before_they_fill_the_memory(tmp_path):
    """An utterance of 26 bytes needs 2,784 in memory."""
    (tmp_path / "a.ts").write_text("@data\n" + (":".join("1" * 12) + ":1\n") * 20_000)
    with limit_reading(max_bytes=2**24), little_memory():
        assert_refused(lambda: read_ts(tmp_path / "a.ts"), JaxsnnError, r"a\.ts.*its utterances")
    (tmp_path / "a.ts").write_text("@data\n" + (":".join("1" * 12) + ":2\n") * 3)
    values, labels = read_ts(tmp_path / "a.ts")
    assert (values.shape, labels.tolist()) == ((3, 29, 12), [1, 1, 1])
