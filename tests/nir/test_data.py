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


def test_the_last_step_is_not_lost_to_rounding():
    data = nir.EventData(idx=np.array([[0]]), time=np.array([[0.2]]), n_neurons=1, t_max=0.3)
    assert int(0.3 / 0.1) == 2  # so nir has no third step
    assert bin_events(data, 0.1).array[:, 0, 0].tolist() == [0, 0, 1]


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
    with pytest.raises(
        UsageError, match=r"1 entries are neither 0 nor 1, the first 2 in step 1 of sample 0"
    ):
        gridded_data(binned.array, DT, spikes=True)


def test_times_between_steps_are_refused_or_counted():
    data = nir.EventData(
        idx=np.array([[0, 0, 0]]), time=np.array([[0.1, 0.25, 0.29]]), n_neurons=1, t_max=0.3
    )
    with pytest.raises(
        UsageError, match=r"2 of 3 events are not at a multiple of 0.1 s, the first at 0.25 s"
    ):
        bin_events(data, 0.1)
    binned = bin_events(data, 0.1, move=True)
    assert binned.array[:, 0, 0].tolist() == [0, 1, 2]
    assert (binned.moved, binned.merged) == (2, 1)
    assert binned.farthest == pytest.approx(0.09)


def test_values_are_added_up_or_refused():
    data = nir.ValuedEventData(
        idx=np.array([[0, 0, 1]]),
        time=np.array([[0.1, 0.1, 0.2]]),
        value=np.array([[0.5, 2.0, 1.0]], np.float32),
        n_neurons=2,
        t_max=0.3,
    )
    assert bin_events(data, 0.1).array[:, 0].tolist() == [[0, 0], [2.5, 0], [0, 1]]
    with pytest.raises(UsageError, match=r"2 of 3 events carry values other than 1, the first 0.5"):
        to_events(data)
    ones = event_data(
        SimpleNamespace(time=data.time, index=data.idx), 2, 0.3, values=np.ones((1, 3))
    )
    assert isinstance(ones, nir.ValuedEventData)
    assert np.asarray(to_events(ones).index).tolist() == [[0, 0, 1]]


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        (
            {"time": np.array([[0.4, INF]])},
            "outside the recording, from 0 s to t_max = 0.3 s, the first at 0.4 s",
        ),
        ({"time": np.array([[-0.1, INF]])}, "outside the recording"),
        ({"time": np.array([[np.nan, INF]])}, "slot .* has idx 0 and time nan"),
        ({"idx": np.array([[0, 0]])}, r"slot \(0, 1\) has idx 0 and time inf"),
        ({"idx": np.array([[-1, -1]])}, r"slot \(0, 0\) has idx -1 and time 0.1"),
        ({"idx": np.array([[2, -1]])}, "names neuron 2, there are 2"),
        ({"idx": np.array([[-2, -1]])}, "names neuron -2"),
        ({"idx": np.array([[0.0, -1.0]])}, "must be whole numbers"),
        ({"t_max": np.nan}, "t_max is nan s: it must be the end"),
        ({"t_max": INF}, "t_max is inf s: it must be the end"),
        ({"t_max": -1.0}, "t_max is -1 s: it must be the end"),
        ({"value": np.array([[1j, 0]])}, "values are complex128: they must be real"),
        ({"value": np.array([["1", ""]])}, "values are <U1: they must be real"),
    ],
)
def test_broken_events_are_refused(changes, match, tmp_path):
    good = {"idx": np.array([[0, -1]]), "time": np.array([[0.1, INF]]), "t_max": 0.3}
    cls = nir.ValuedEventData if "value" in changes else nir.EventData
    data = cls(**{**good, **changes}, n_neurons=2)
    for use in (
        to_events,
        lambda data: bin_events(data, 0.1),
        lambda data: write(tmp_path, {"a": {"spikes": data}}),
    ):
        with pytest.raises(UsageError, match=match):
            use(data)
    assert not list(tmp_path.iterdir())


def write(folder, recordings):
    """Write recordings by node; the path."""
    write_data(folder / "data.nir", graph_data(recordings))
    return folder / "data.nir"


def test_an_event_at_the_very_end_lies_in_no_step():
    data = nir.EventData(idx=np.array([[0]]), time=np.array([[0.3]]), n_neurons=1, t_max=0.3)
    with pytest.raises(
        UsageError, match=r"1 events lie in no step, the first at 0.3 s, where 3 steps of 0.1 s end"
    ):
        bin_events(data, 0.1)


@pytest.mark.parametrize("dt", [0.0, -1.0, INF, np.nan])
def test_a_step_has_a_length(dt):
    data = nir.EventData(idx=np.array([[0]]), time=np.array([[0.1]]), n_neurons=1, t_max=0.3)
    with pytest.raises(UsageError, match="must be positive"):
        bin_events(data, dt)
    with pytest.raises(UsageError, match="must be positive"):
        gridded_data(np.zeros((1, 1, 1)), dt)


def test_steps_must_fill_the_recording():
    data = nir.EventData(idx=np.array([[0]]), time=np.array([[0.2]]), n_neurons=1, t_max=0.35)
    with pytest.raises(UsageError, match=r"end at 0.35 s, which is 3.5 steps of 0.1 s"):
        bin_events(data, 0.1)


def test_membranes_are_no_spikes():
    membrane = gridded_data(np.full((2, 1, 1), 0.5), DT)
    with pytest.raises(UsageError, match="is not a recording of spikes"):
        to_events(membrane)


def test_shapes_are_restored():
    array = np.arange(2 * 3 * 4 * 5.0).reshape(2, 3, 4, 5)
    data = gridded_data(array, DT)
    assert data.data.shape == (3, 2, 20)
    np.testing.assert_array_equal(to_array(data, (4, 5)), array)
    with pytest.raises(UsageError, match=r"20 neurons, the shape \(3, 5\) has 15"):
        to_array(data, (3, 5))


def nested():
    """Recordings of all kinds, two levels deep."""
    events = nir.EventData(
        idx=np.array([[1, -1]]), time=np.array([[0.1, INF]]), n_neurons=2, t_max=0.3
    )
    valued = nir.ValuedEventData(
        idx=events.idx, time=events.time, value=np.array([[2.0, 0.0]]), n_neurons=2, t_max=0.3
    )
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


def same(one, other):
    """Both are equal in type, numbers and dtypes."""
    assert type(one) is type(other)
    assert vars(one).keys() == vars(other).keys()
    for key, value in vars(one).items():
        np.testing.assert_array_equal(value, vars(other)[key], strict=isinstance(value, np.ndarray))


def test_files_are_what_nir_reads(tmp_path):
    path = write(tmp_path, nested())
    for reader in (read_data, nir.read_data):
        found = observations(reader(path))
        assert {name: list(entry) for name, entry in found.items()} == {
            "input": ["spikes"],
            "layer/inner/li": ["spikes", "voltages"],
            "layer/lif": ["spikes", "voltages"],
        }
        for name, observables in nested().items():
            for key, value in observables.items():
                same(found[name][key], value)


def test_files_of_nir_are_read(tmp_path):
    flat = {"input": nested()["input"]}
    nir.write_data(tmp_path / "theirs.nir", graph_data(flat))
    same(
        observations(read_data(tmp_path / "theirs.nir"))["input"]["spikes"], flat["input"]["spikes"]
    )


def test_the_same_recordings_give_the_same_bytes(tmp_path):
    first = write(tmp_path, nested()).read_bytes()
    with pytest.raises(FileError, match="exists"):
        write(tmp_path, nested())
    write_data(tmp_path / "data.nir", graph_data(dict(reversed(nested().items()))), force=True)
    assert (tmp_path / "data.nir").read_bytes() == first


def test_a_graph_is_no_recording(zoo):
    with pytest.raises(FileError, match="holds no NIRGraphData"):
        read_data(next(iter(zoo.values())))


def test_names_that_clash_or_cannot_be_written(tmp_path):
    spikes = nested()["input"]
    with pytest.raises(UsageError, match="'a' in 'a/b' is a node"):
        graph_data({"a": spikes, "a/b": spikes})
    with pytest.raises(UsageError, match="must differ"):
        graph_data({"a/b": spikes, "a": spikes})
    with pytest.raises(UsageError, match="must not be empty"):
        graph_data({"a//b": spikes})
    with pytest.raises(GraphError, match="cannot hold"):
        write_data(
            tmp_path / "x.nir", nir.NIRGraphData(nodes={"a/b": nir.NIRNodeData(observables=spikes)})
        )


def test_a_file_with_a_missing_part_is_broken(tmp_path):
    import h5py

    path = write(tmp_path, nested())
    with h5py.File(path, "a") as file:
        del file["nodes/input/observables/spikes"].attrs["t_max"]
    with pytest.raises(FileError, match="t_max"):
        read_data(path)


@pytest.mark.parametrize(
    ("name", "value", "refused"),
    [
        ("dynamic_before_transition", True, "dynamic_before_transition = True"),
        ("dynamic_before_transition", False, None),
        ("dimension_order", ["time", "batch", "neuron"], "dimension_order = "),
        ("time_shift", 0.5, "time_shift = 0.5"),
    ],
)
def test_what_a_later_format_may_mean_is_refused(name, value, refused, tmp_path):
    spikes = nir.TimeGriddedData(np.ones((1, 2, 3), bool), DT)
    write_data(tmp_path / "x.h5", graph_data({"lif": {"spikes": spikes}}))
    with h5py.File(tmp_path / "x.h5", "a") as file:
        file["nodes/lif/observables/spikes"].attrs[name] = value
    if refused is None:
        found = observations(read_data(tmp_path / "x.h5"))["lif"]["spikes"]
        assert isinstance(found, nir.TimeGriddedData)
        np.testing.assert_array_equal(found.data, spikes.data)
        return
    with pytest.raises(FileError, match=refused):
        read_data(tmp_path / "x.h5")


def test_a_dataset_that_the_format_does_not_have_is_refused(tmp_path):
    spikes = nir.TimeGriddedData(np.ones((1, 2, 3), bool), DT)
    write_data(tmp_path / "x.h5", graph_data({"lif": {"spikes": spikes}}))
    with h5py.File(tmp_path / "x.h5", "a") as file:
        file["nodes/lif/observables/spikes/delay"] = np.ones(3)
    with pytest.raises(FileError, match="holds 'delay'"):
        read_data(tmp_path / "x.h5")
