"""Recordings in NIR's data format: what is written is what nir reads, and nothing is lost in
silence.
"""

from types import SimpleNamespace

import h5py
import nir
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxsnn.errors import FileError, GraphError, UsageError
from jaxsnn.nir.io.recorded_data import (
    bin_events,
    event_data,
    graph_data,
    gridded_data,
    observations,
    read_data,
    to_array,
    write_data,
)
from jaxsnn.simulation.recordings import to_events
from tests.helpers.refusals import assert_refused

DT = 1e-4
INF = np.inf


def events_of(raster):
    """Spikes of a raster (time, batch, neurons) of counts."""
    return to_events(gridded_data(raster, DT))


rasters = st.tuples(
    st.integers(1, 30), st.integers(1, 3), st.integers(1, 4), st.integers(0, 2**31)
).map(lambda drawn: np.random.default_rng(drawn[3]).random(drawn[:3]) < 0.3)


@given(rasters)
def test_spikes_survive_all_formats(raster):
    gridded = gridded_data(raster, DT, spikes=True)
    np.testing.assert_array_equal(to_array(gridded), raster)
    events = to_events(gridded)
    data = event_data(events, size=raster.shape[2], t_max=len(raster) * DT)
    again = to_events(data)
    np.testing.assert_array_equal(again.time, events.time)
    np.testing.assert_array_equal(again.index, events.index)
    binned = bin_events(data, DT)
    np.testing.assert_array_equal(binned.array, raster)
    assert (binned.moved, binned.merged, binned.farthest) == (0, 0, 0.0)


@given(rasters)
def test_single_precision_does_not_move_a_spike(raster):
    events = events_of(raster)
    single = SimpleNamespace(time=np.asarray(events.time, np.float32), index=events.index)
    data = event_data(single, size=raster.shape[2], t_max=len(raster) * DT)
    np.testing.assert_array_equal(bin_events(data, DT).array, raster)


@given(rasters)
def test_nir_agrees_where_its_rounding_lets_it(raster):
    ours = to_events(gridded_data(raster, DT, spikes=True))
    theirs = gridded_data(raster, DT, spikes=True).to_event(n_events=max(int(raster.sum()), 1))
    mine = event_data(ours, size=raster.shape[2], t_max=len(raster) * DT)
    used = mine.idx.shape[1]
    np.testing.assert_array_equal(theirs.idx[:, :used], mine.idx)
    np.testing.assert_allclose(theirs.time[:, :used], mine.time)
    assert (theirs.idx[:, used:] == -1).all()


def events_at(*times, idx=None, t_max=0.3):
    """A recording of spikes of one neuron, or of others."""
    idx = np.zeros((1, len(times)), int) if idx is None else np.array([idx])
    return nir.EventData(idx=idx, time=np.array([times]), n_neurons=idx.max() + 1, t_max=t_max)


def test_the_last_step_is_not_lost_to_rounding():
    assert int(0.3 / 0.1) == 2  # so nir drops the third step
    assert bin_events(events_at(0.2), 0.1).array[:, 0, 0].tolist() == [0, 0, 1]


def test_unused_slots_in_both_conventions():
    events = SimpleNamespace(time=[[0.5, 0.1, INF], [INF] * 3], index=[[1, 0, 2], [2, 2, 2]])
    data = event_data(events, size=2, t_max=1.0)
    assert data.idx.tolist() == [[1, 0, -1], [-1, -1, -1]]
    back = to_events(data)
    assert np.asarray(back.time).tolist() == [[0.1, 0.5, INF], [INF] * 3]
    assert np.asarray(back.index).tolist() == [[0, 1, 2], [2, 2, 2]]


def test_counts_become_simultaneous_events_and_are_counted_back():
    counts = np.array([0, 2, 1]).reshape(3, 1, 1)
    events = events_of(counts)
    assert np.asarray(events.time)[0].tolist() == [DT, DT, 2 * DT]
    binned = bin_events(event_data(events, size=1, t_max=3 * DT), DT)
    assert binned.array[:, 0, 0].tolist() == [0, 2, 1]
    assert binned.merged == 1
    says = r"entries with other values: 1, the first is 2 in time step 1 of sample 0"
    assert_refused(lambda: gridded_data(binned.array, DT, spikes=True), UsageError, says)


def test_times_between_steps_are_refused_or_counted():
    data = events_at(0.1, 0.25, 0.29)
    says = r"events that are not at a multiple of 0.1 s: 2 of 3, the first at 0.25 s"
    assert_refused(lambda: bin_events(data, 0.1), UsageError, says)
    binned = bin_events(data, 0.1, move=True)
    assert binned.array[:, 0, 0].tolist() == [0, 1, 2]
    assert (binned.moved, binned.merged) == (2, 1)
    assert binned.farthest == pytest.approx(0.09)


def test_values_are_added_up_or_refused():
    idx, time = np.array([[0, 0, 1]]), np.array([[0.1, 0.1, 0.2]])
    value = np.array([[0.5, 2.0, 1.0]], np.float32)
    data = nir.ValuedEventData(idx=idx, time=time, value=value, n_neurons=2, t_max=0.3)
    assert bin_events(data, 0.1).array[:, 0].tolist() == [[0, 0], [2.5, 0], [0, 1]]
    says = r"which spikes do not have: 2 of 3, the first is 0.5"
    assert_refused(lambda: to_events(data), UsageError, says)
    events = SimpleNamespace(time=time, index=idx)
    ones = event_data(events, 2, 0.3, values=np.ones((1, 3)))
    assert isinstance(ones, nir.ValuedEventData)
    assert np.asarray(to_events(ones).index).tolist() == idx.tolist()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"time": [[0.4, INF]]}, "from 0 s to t_max = 0.3 s: 1, the first at 0.4 s"),
        ({"time": [[-0.1, INF]]}, "events outside the recording"),
        ({"time": [[np.nan, INF]]}, "slot .* has idx 0 and time nan"),
        ({"idx": [[0, 0]]}, r"slot \(0, 1\) has idx 0 and time inf"),
        ({"idx": [[-1, -1]]}, r"slot \(0, 0\) has idx -1 and time 0.1"),
        ({"idx": [[2, -1]]}, "has the neuron index 2, outside 0 to 1"),
        ({"idx": [[-2, -1]]}, "has the neuron index -2"),
        ({"idx": [[0.0, -1.0]]}, "must be integers"),
        ({"t_max": np.nan}, "t_max is nan s"),
        ({"t_max": INF}, "t_max is inf s"),
        ({"t_max": -1.0}, "t_max is -1 s"),
        ({"value": [[1j, 0]]}, "complex128"),
        ({"value": [["1", ""]]}, "<U1"),
    ],
)
def test_broken_events_are_refused(changes, says, tmp_path):
    fields = {"idx": [[0, -1]], "time": [[0.1, INF]], "t_max": 0.3} | changes
    cls = nir.ValuedEventData if "value" in changes else nir.EventData
    data = cls(**{key: np.array(value)[()] for key, value in fields.items()}, n_neurons=2)
    for use in (
        lambda: to_events(data),
        lambda: bin_events(data, 0.1),
        lambda: write(tmp_path, {"a": {"spikes": data}}),
    ):
        assert_refused(use, UsageError, says)
    assert not list(tmp_path.iterdir())


def write(folder, recordings):
    """Write recordings by node; the path."""
    write_data(folder / "data.nir", graph_data(recordings))
    return folder / "data.nir"


def recording_of(*nodes):
    return graph_data({name: nested()["input"] for name in nodes})


REFUSED = {
    "an event at the very end": (lambda: bin_events(events_at(0.3), 0.1), "after the last of 3 time steps"),
    **{
        f"steps of {dt}": (lambda dt=dt: bin_events(events_at(0.1), dt), "pass a positive value")
        for dt in (0.0, -1.0, INF, np.nan)
    },
    "no steps": (lambda: gridded_data(np.zeros((1, 1, 1)), 0.0), "must be positive"),
    "half a step": (
        lambda: bin_events(events_at(0.2, t_max=0.35), 0.1), "0.35 s, which is not an integer number of time steps: 3.5"
    ),
    "membranes": (
        lambda: to_events(gridded_data(np.full((2, 1, 1), 0.5), DT)), "does not contain spikes"
    ),
    "a node in a node": (lambda: recording_of("a", "a/b"), "because 'a' is a node"),
    "a node around a node": (lambda: recording_of("a/b", "a"), "use names that differ"),
    "a node without a name": (lambda: recording_of("a//b"), "are not empty"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_recordings_that_make_no_sense_are_refused(case):
    assert_refused(REFUSED[case][0], UsageError, REFUSED[case][1])


def test_a_name_that_no_file_can_hold_is_not_written(tmp_path):
    data = nir.NIRNodeData(observables=nested()["input"])
    document = nir.NIRGraphData(nodes={"a/b": data})
    assert_refused(
        lambda: write_data(tmp_path / "a.nir", document), GraphError, "is not allowed in a file"
    )


def set_attribute(name, value):
    return lambda spikes: spikes.attrs.__setitem__(name, value)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda spikes: spikes.attrs.__delitem__("dt"), "dt"),
        (lambda spikes: spikes.create_dataset("delay", data=np.ones(3)), "contains 'delay'"),
        (set_attribute("dynamic_before_transition", True), "dynamic_before_transition = True"),
        (set_attribute("dimension_order", ["time", "batch", "neuron"]), "dimension_order = "),
        (set_attribute("time_shift", 0.5), "time_shift = 0.5"),
        (set_attribute("dynamic_before_transition", False), None),
    ],
)
def test_what_a_later_format_may_mean_is_refused(change, says, tmp_path):
    spikes = nir.TimeGriddedData(np.ones((1, 2, 3), bool), DT)
    path = write(tmp_path, {"lif": {"spikes": spikes}})
    with h5py.File(path, "a") as file:
        change(file["nodes/lif/observables/spikes"])
    if says is None:
        assert_equal(observations(read_data(path))["lif"]["spikes"], spikes)
    else:
        assert_refused(lambda: read_data(path), FileError, says)


def test_a_graph_is_no_recording(zoo):
    path = zoo["norse_v_li"]
    assert_refused(lambda: read_data(path), FileError, "has no NIRGraphData")


def test_shapes_are_restored():
    array = np.arange(2 * 3 * 4 * 5.0).reshape(2, 3, 4, 5)
    data = gridded_data(array, DT)
    assert data.data.shape == (3, 2, 20)
    np.testing.assert_array_equal(to_array(data, (4, 5)), array)
    says = r"20 neurons, but the shape \(3, 5\) has 15"
    assert_refused(lambda: to_array(data, (3, 5)), UsageError, says)


def nested():
    """Recordings of all kinds, two levels deep."""
    events = events_at(0.1, INF, idx=[1, -1])
    valued = nir.ValuedEventData(**vars(events), value=np.array([[2.0, 0.0]]))
    none = nir.EventData(idx=np.zeros((2, 0), int), time=np.zeros((2, 0)), n_neurons=2, t_max=0.3)
    return {
        "input": {"spikes": events},
        "layer/lif": {
            "spikes": gridded_data(np.eye(3)[:, None], DT, spikes=True),
            "voltages": valued,
        },
        "layer/inner/li": {
            "voltages": gridded_data(np.ones((3, 1, 2), np.float32), DT),
            "spikes": none,
        },
    }


def assert_equal(data, expected):
    """Compare type, numbers and dtypes."""
    assert type(data) is type(expected)
    assert vars(data).keys() == vars(expected).keys()
    for key, value in vars(expected).items():
        strict = isinstance(value, np.ndarray)
        np.testing.assert_array_equal(vars(data)[key], value, strict=strict)


@pytest.mark.parametrize("writer", [write_data, nir.write_data])
@pytest.mark.parametrize("reader", [read_data, nir.read_data])
def test_files_are_what_nir_writes_and_reads(writer, reader, tmp_path):
    # nir cannot write nested nodes.
    expected = nested() if writer is write_data else {"input": nested()["input"]}
    writer(tmp_path / "data.nir", graph_data(expected))
    recordings = observations(reader(tmp_path / "data.nir"))
    kinds = {name: sorted(entry) for name, entry in expected.items()}
    assert {name: list(entry) for name, entry in recordings.items()} == kinds
    for name, observables in expected.items():
        for key, value in observables.items():
            assert_equal(recordings[name][key], value)


def test_the_same_recordings_give_the_same_bytes(tmp_path):
    first = write(tmp_path, nested()).read_bytes()
    assert_refused(lambda: write(tmp_path, nested()), FileError, "exists")
    write_data(tmp_path / "data.nir", graph_data(dict(reversed(nested().items()))), force=True)
    assert (tmp_path / "data.nir").read_bytes() == first
