"""Event data in the formats of the field."""

import warnings
from dataclasses import replace

import h5py
import numpy as np
import pytest

import jaxsnn
from jaxsnn.errors import ApproximationWarning, FileError, JaxsnnError, UsageError, warn_of
from jaxsnn.files.event_files import read_camera_file
from jaxsnn.files.read_limits import limit_reading
from jaxsnn.nir import build
from jaxsnn.nir.initializers import normal
from jaxsnn.nir.io.spike_trains import read_spike_trains
from jaxsnn.simulation.stored_events import ragged_of_file
from jaxsnn.train import data_of_recordings, events_of_arrays, save_events
from jaxsnn.train.data.batches import Streamed
from jaxsnn.train.data.datasets import select_samples
from jaxsnn.train.data.labelled_files import load_splits
from tests.helpers.event_files import (
    AEDAT3_HEADER,
    aedat2_bytes,
    aedat3_bytes,
    bin_bytes,
    packet,
    write_heidelberg,
)

#: Four events (t in microseconds, x, y, p), and their channels on a sensor of 34 x 34 pixels.
EVENTS = [(10, 0, 0, 0), (20, 33, 0, 1), (2**22, 5, 7, 1), (2**22, 5, 7, 1)]
CHANNELS = [0, 34 * 34 + 33, 34 * 34 + 7 * 34 + 5, 34 * 34 + 7 * 34 + 5]
SMALL = np.dtype([("t", "i8"), ("x", "i2"), ("y", "i2"), ("p", "i1")])


def stored(data):
    """Times and channels of the samples, without unused slots."""
    time, index = np.asarray(data.x.time), np.asarray(data.x.index)
    used = np.isfinite(time)
    assert (index[~used] == data.channels).all()
    return [time[row, used[row]].tolist() for row in range(len(time))], [
        index[row, used[row]].tolist() for row in range(len(time))
    ]


@pytest.fixture
def heidelberg(tmp_path):
    """SHD with ten training samples and two test samples."""
    rng = np.random.default_rng(0)
    for part, samples in (("train", 10), ("test", 2)):
        times = [np.sort(rng.random(number % 4)) for number in range(1, samples + 1)]
        units = [rng.integers(0, 700, len(row)) for row in times]
        labels = np.arange(samples) % 2
        write_heidelberg(tmp_path / f"shd_{part}.h5", times, units, labels, ("null", "eins"))
    return tmp_path


def test_heidelberg_digits_keep_times_units_labels_and_names(tmp_path):
    times = [[0.25, 0.5], [], [1.0, 1.2]]
    write_heidelberg(
        tmp_path / "shd_train.h5", times, [[699, 0], [], [3, 3]], [0, 1, 1], ("a", "b")
    )
    write_heidelberg(tmp_path / "shd_test.h5", [[0.1]], [[1]], [1], ("a", "b"))
    splits, notes = load_splits(f"shd:{tmp_path}")
    assert splits.train.classes == ("a", "b")
    assert (len(splits.train), len(splits.validation), splits.train.channels) == (2, 1, 700)
    time, index = stored(splits.test)
    assert time == [[float(np.float16(0.1))]]  # widened, not rounded
    assert index == [[1]]
    assert [note.code for note in notes if hasattr(note, "code")] == ["no-events"]
    counts, widened, units = read_spike_trains(tmp_path / "shd_train.h5", np.array([2, 0]))
    assert counts.tolist() == [2, 2]
    assert widened.tolist() == [1.0, float(np.float16(1.2)), 0.25, 0.5]
    assert widened.dtype == np.float64
    assert units.tolist() == [3, 3, 699, 0]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_wider_times_are_read_exactly(dtype, tmp_path):
    write_heidelberg(tmp_path / "a.h5", [[0.1]], [[1]], None, dtype=dtype)
    assert read_spike_trains(tmp_path / "a.h5", np.array([0]))[1].tolist() == [float(dtype(0.1))]


def test_ssc_has_validation_samples_of_its_own(tmp_path):
    for part, labels in (("train", [0, 1, 0]), ("valid", [1]), ("test", [0])):
        rows = [[0.1]] * len(labels)
        write_heidelberg(tmp_path / f"ssc_{part}.h5", rows, [[2]] * len(labels), labels)
    splits, notes = load_splits(f"ssc:{tmp_path}")
    assert [len(part) for part in (splits.train, splits.validation, splits.test)] == [3, 1, 1]
    assert notes == ()


def text_times(file):
    del file["spikes/times"]
    file["spikes/times"] = np.array(["a"] * 10, "S1")


def external_link(file):
    del file["spikes/times"]
    file["spikes/times"] = h5py.ExternalLink("other.h5", "/spikes/times")


def virtual_labels(file):
    del file["labels"]
    layout = h5py.VirtualLayout((10,), "i8")
    layout[:] = h5py.VirtualSource("other.h5", "labels", (10,))
    file.create_virtual_dataset("labels", layout)


def set_entry(name, values):
    def change(file):
        dataset = file[name]
        dataset[3] = np.asarray(values, h5py.check_vlen_dtype(dataset.dtype) or dataset.dtype)

    return change


def delete(name):
    def change(file):
        del file[name]

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (set_entry("spikes/times", [0.1, 0.2]), "sample 3 has 2 times and 0 units"),
        (set_entry("spikes/units", [1]), "sample 3 has 0 times and 1 units"),
        (set_entry("labels", 7), "sample 3 has the label 7"),
        (set_entry("labels", -1), "sample 3 has the label -1"),
        (delete("labels"), "labels is missing"),
        (delete("spikes/units"), "/spikes/units is missing"),
        (delete("spikes"), "no group 'spikes'"),
        (text_times, "/spikes/times is"),
        (external_link, "is not a dataset of this file"),
        (virtual_labels, "outside of the file"),
    ],
)
def test_damaged_heidelberg_files_are_refused(change, words, heidelberg):
    with h5py.File(heidelberg / "shd_train.h5", "a") as file:
        change(file)
    with pytest.raises(JaxsnnError, match=words):
        load_splits(f"shd:{heidelberg}")


@pytest.mark.parametrize(
    ("times", "units", "words"),
    [
        ([[np.nan]], [[0]], "event 0 of sample 0 has the time nan"),
        ([[0.1, -1.0]], [[0, 0]], "event 1 of sample 0 has the time -1"),
        ([[0.1]], [[700]], "has the channel 700"),
    ],
)
def test_spikes_that_cannot_be_are_refused(times, units, words, tmp_path):
    for part in ("train", "test"):
        write_heidelberg(tmp_path / f"shd_{part}.h5", times, units, [0])
    with pytest.raises(UsageError, match=words):
        load_splits(f"shd:{tmp_path}")


def test_the_limit_of_bytes_holds_for_ragged_files(tmp_path):
    write_heidelberg(tmp_path / "a.h5", [np.zeros(10_000)], [np.zeros(10_000)], [0])
    with limit_reading(max_bytes=100_000), pytest.raises(FileError, match="exceed the limit"):
        read_spike_trains(tmp_path / "a.h5", np.array([0]))


def test_events_of_n_mnist(tmp_path):
    for part in ("Train", "Test"):
        for label in ("0", "10", "2"):
            (tmp_path / part / label).mkdir(parents=True)
            for number in range(2):
                (tmp_path / part / label / f"{number}.bin").write_bytes(bin_bytes(EVENTS))
    splits, _ = load_splits(f"nmnist:{tmp_path}")
    assert splits.test.classes == ("0", "2", "10")
    assert splits.test.y.tolist() == [0, 0, 1, 1, 2, 2]
    assert splits.test.shape == (2, 34, 34)
    time, index = stored(splits.test)
    assert index[0] == CHANNELS  # duplicates remain
    np.testing.assert_allclose(time[0], [1e-5, 2e-5, 4.194304, 4.194304])


def test_overflows_of_the_clock_of_n_mnist_are_counted(tmp_path):
    path = tmp_path / "a.bin"
    path.write_bytes(bin_bytes([(5, 1, 1, 0), (0, 0, 240, 0), (7, 1, 1, 0)]))
    assert read_camera_file(path).events["t"].tolist() == [5, 8192 + 7]


def test_aedat_2_has_its_origin_in_the_upper_left_corner(tmp_path):
    path, events = tmp_path / "a.aedat", [(2**32 - 10, 0, 0, 1), (5, 127, 3, 0)]
    special = b"\0\0\x80\0\0\0\0\x07"
    path.write_bytes(aedat2_bytes(events, end=special))
    recording = read_camera_file(path)
    assert recording.events[["x", "y", "p"]].tolist() == [(0, 0, 1), (127, 3, 0)]
    assert recording.events["t"].tolist() == [0, 15]  # the clock overflows in between
    assert (recording.size, recording.dropped) == ((128, 128), 1)


def test_aedat_3_skips_what_is_no_event_and_counts_it(tmp_path):
    path, events = tmp_path / "a.aedat", [(100, 1, 2, 1), (300, 127, 0, 0)]
    others = packet([], kind=2, size=4, number=0), packet([(150, 9, 9, 0)], valid=0)
    later = packet([(50, 0, 0, 1)], overflow=1)
    path.write_bytes(aedat3_bytes(packet(events), *others, later))
    recording = read_camera_file(path)
    assert recording.events.tolist() == [(0, 1, 2, 1), (200, 127, 0, 0), (2**31 - 50, 0, 0, 1)]
    assert (recording.size, recording.dropped) == ((128, 128), 2)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.bin", b""),
        ("a.bin", b"1234"),
        ("a.aedat", b"no header"),
        ("a.aedat", b"#!AER-DAT1.0\r\n" + bytes(6)),
        ("a.aedat", aedat2_bytes([])),
        ("a.aedat", aedat2_bytes([(1, 1, 1, 1)], end=b"123")),
        ("a.aedat", aedat2_bytes([], end=b"\0\1\0\0\0\0\0\0")),
        ("a.aedat", aedat2_bytes([(1, 1, 1, 1)], header=b"#!AER-DAT2.0\r\n# AEChip: Davis\r\n")),
        ("a.aedat", AEDAT3_HEADER.replace(b"RAW", b"PNG")),
        ("a.aedat", AEDAT3_HEADER.replace(b"#!END-HEADER\r\n", b"")),
        ("a.aedat", aedat3_bytes(packet([(1, 1, 1, 1)])[:-1])),
        ("a.aedat", aedat3_bytes(packet([], number=-1))),
        ("a.aedat", aedat3_bytes(packet([], number=2**31 - 1))),
        ("a.aedat", aedat3_bytes(packet([(1, 1, 1, 1)], size=4, number=2))),
        ("a.txt", b""),
    ],
)
def test_damaged_recordings_of_cameras_are_refused(name, content, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(FileError, match=name.replace(".", r"\.")):
        read_camera_file(tmp_path / name)


def gestures(folder, packets=((0, 1), (100, 2), (200, 3))):
    """A folder of gestures whose file has packets with the first time and the column `packets`."""
    packets = [
        packet([(t, x, 0, 1) for t in range(start, start + 100, 10)]) for start, x in packets
    ]
    (folder / "user01.aedat").write_bytes(aedat3_bytes(*packets))
    table = "class,startTime_usec,endTime_usec\n1,50,150\n11,195,300\n"
    (folder / "user01_labels.csv").write_text(table)
    for part in ("train", "test"):
        (folder / f"trials_to_{part}.txt").write_text("user01.aedat\n")


def test_gestures_are_the_windows_of_their_table(tmp_path):
    gestures(tmp_path)
    splits, _ = load_splits(f"dvsgesture:{tmp_path}")
    time, index = stored(splits.test)
    assert splits.test.y.tolist() == [0, 10]
    assert len(splits.test.classes) == 11
    np.testing.assert_allclose(time[0], np.arange(0, 100, 10) * 1e-6)
    plane = 128 * 128
    assert index[0] == [plane + 1] * 5 + [plane + 2] * 5
    np.testing.assert_allclose(time[1], np.arange(5, 105, 10) * 1e-6)


@pytest.mark.parametrize(
    ("packets", "sorts"),
    [
        (((200, 3), (0, 1), (100, 2)), False),  # each window is sorted
        (((0, 1), (200, 3), (100, 2)), False),
        (((100, 2), (200, 3), (0, 1)), True),
    ],
)
def test_packets_that_are_not_in_the_order_of_time_lose_no_events(packets, sorts, tmp_path):
    for folder in ("sorted", "unsorted"):
        (tmp_path / folder).mkdir()
    gestures(tmp_path / "sorted")
    gestures(tmp_path / "unsorted", packets)
    expected, _ = load_splits(f"dvsgesture:{tmp_path / 'sorted'}")
    splits, notes = load_splits(f"dvsgesture:{tmp_path / 'unsorted'}")
    assert stored(splits.test) == stored(expected.test)
    codes = [getattr(note, "code", "") for note in notes]
    assert ("sorted-events" in codes) == sorts


@pytest.mark.parametrize("line", ["1,2", "0,1,2", "1,5,5", "x,1,2", "12,1,2"])
def test_damaged_tables_of_gestures_are_refused(line, tmp_path):
    gestures(tmp_path)
    (tmp_path / "user01_labels.csv").write_text(f"class,start,end\n{line}\n")
    with pytest.raises(JaxsnnError):
        load_splits(f"dvsgesture:{tmp_path}")


def recordings(samples=20):
    """Recordings of a camera of 3 x 2 pixels, whose label is the column of all events."""
    rng = np.random.default_rng(0)
    pairs = []
    for number in range(samples):
        events = np.zeros(6 + number % 3, SMALL)
        events["t"] = np.sort(rng.integers(0, 9000, len(events)))
        events["x"] = number % 3
        events["y"], events["p"] = rng.integers(0, 2, (2, len(events)))
        pairs.append((events, number % 3))
    return pairs


def small_net():
    neurons = build.cubalif(tau_mem="20ms", tau_syn="10ms")
    layers = [build.linear(3, weight=normal(1.5, 0.8)), neurons]
    return build.sequential(
        build.input((2, 2, 3)), build.node("Flatten", start_dim=0, end_dim=-1), *layers, seed=0
    )


def test_saved_events_are_those_of_the_sequence(tmp_path):
    pairs = recordings()
    arrays, labels = zip(*pairs, strict=True)
    save_events(tmp_path / "own.npz", arrays, labels, sensor_size=(3, 2, 2), time_unit="1us")
    data = data_of_recordings(pairs, (3, 2, 2), time_unit="1us")
    splits, _ = load_splits(f"events:{tmp_path / 'own.npz'}")
    time, index = stored(data)
    assert index[4] == [(p * 2 + y) * 3 + x for _, x, y, p in pairs[4][0].tolist()]
    assert np.allclose(time[4], pairs[4][0]["t"] * 1e-6)
    parts = [stored(part) for part in (splits.train, splits.validation, splits.test)]
    assert sorted(row for part in parts for row in part[1]) == sorted(index)
    assert sorted(row for part in parts for row in part[0]) == sorted(time)
    assert data.shape == splits.train.shape == (2, 2, 3)


def test_folders_of_labels_train_and_equal_the_single_file(tmp_path):
    for number, (events, label) in enumerate(recordings()):
        part = "test" if number % 4 == 0 else "train"
        folder = tmp_path / part / f"column{label}"
        folder.mkdir(parents=True, exist_ok=True)
        np.savez(
            folder / f"{number:02}.npz",
            **{axis: events[axis] for axis in "txyp"},
            sensor_size=(3, 2, 2),
            time_unit="1us",
        )
    splits, _ = load_splits(f"events:{tmp_path}")
    assert splits.test.classes == ("column0", "column1", "column2")
    assert len(splits.test) == 5
    trained = jaxsnn.fit(small_net(), f"events:{tmp_path}", epochs=2, progress=None)
    assert len(trained.history) == 3


def test_events_in_files_are_streamed_and_give_the_same_run(tmp_path):
    data = data_of_recordings(recordings(30), (3, 2, 2), time_unit="1us")
    events = [(sample, label) for sample, label in recordings(30)]
    in_memory = replace(
        data, x=jaxsnn.Events(time=np.asarray(data.x.time), index=np.asarray(data.x.index))
    )
    assert len(events) == len(data)
    options = {"epochs": 2, "batch_size": 4, "progress": None}
    direct, streamed = (
        jaxsnn.fit(small_net(), part, **options, stream=stream)
        for part, stream in ((in_memory, None), (data, 4))
    )
    for first, second in zip(direct.history, streamed.history, strict=True):
        assert first.train_loss == pytest.approx(second.train_loss, rel=1e-5)


def test_only_the_samples_in_question_are_read():
    reads = []

    class Counted(list):
        def __getitem__(self, index):
            reads.append(index)
            return super().__getitem__(index)

    data = data_of_recordings(Counted(recordings()), (3, 2, 2), time_unit="1us")
    reads.clear()
    some = select_samples(data, np.array([7, 3, 5]))
    assert (len(some), some.x.time.stored.slots, reads) == (3, 8, [])
    streamed = Streamed(data=some, encode=lambda part: part, at_once=2, channels=12)
    assert streamed.digest() != ""
    assert reads == []
    rows = select_samples(some, np.array([2, 0]))
    np.asarray(rows.x.time), np.asarray(rows.x.index)
    assert reads == [5, 7]


def of_sequence(recording, unit, folder):
    del folder
    return stored(data_of_recordings([(recording, 0)], (3, 2, 2), time_unit=unit))[0][0]


def of_arrays(recording, unit, folder):
    del folder
    return events_of_arrays([recording], (3, 2, 2), time_unit=unit).time[0].tolist()


def of_file(recording, unit, folder):
    columns = {axis: recording[axis] for axis in "txyp"}
    declared = {} if unit is None else {"time_unit": unit}
    np.savez(folder / "a.npz", **columns, sensor_size=(3, 2, 2), **declared)
    sample, _, notes = ragged_of_file(folder / "a.npz", None)
    warn_of(notes)
    return sample.time.tolist()


@pytest.mark.parametrize("read", [of_sequence, of_arrays, of_file])
def test_units_are_explicit_or_reported(read, tmp_path):
    recording = np.array([(2000, 0, 0, 0), (5000, 1, 0, 0)], SMALL)
    with pytest.warns(ApproximationWarning, match="used as microseconds") as caught:
        assert read(recording, None, tmp_path) == pytest.approx([2e-3, 5e-3])
    assert len(caught) == 1
    floats = recording.astype([("t", "f8"), *SMALL.descr[1:]])
    with pytest.raises(UsageError, match="without a unit"):
        read(floats, None, tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read(floats, "1ms", tmp_path) == pytest.approx([2.0, 5.0])
        assert read(recording, "1us", tmp_path) == pytest.approx([2e-3, 5e-3])


def test_generators_of_recordings_are_read_once():
    expected = data_of_recordings(recordings(), (3, 2, 2), time_unit="1us")
    data = data_of_recordings(iter(recordings()), (3, 2, 2), time_unit="1us")
    assert stored(data) == stored(expected)
    assert data.y.tolist() == expected.y.tolist()
    with pytest.raises(UsageError, match="of type int"):
        data_of_recordings(3, (3, 2, 2), time_unit="1us")  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("samples", "labels", "words"),
    [
        (2, [0, -1], "label of sample 1 is -1"),
        (2, [0], "that of labels 1"),
        (2, [0, 0.5], "labels are"),
        (0, None, "no recordings"),
        (0, [], "no recordings"),
    ],
)
def test_events_that_cannot_be_read_again_are_not_saved(samples, labels, words, tmp_path):
    arrays = [recording for recording, _ in recordings(samples)]
    path = tmp_path / "own.npz"
    with pytest.raises(UsageError, match=words):
        save_events(path, iter(arrays), labels, sensor_size=(3, 2, 2), time_unit="1us")
    assert not path.exists()


def test_unsorted_events_are_sorted_and_reported():
    events = np.array([(30, 0, 0, 0), (10, 1, 0, 0)], SMALL)
    with pytest.warns(ApproximationWarning, match="not in the order of time, and are sorted: 1"):
        data = data_of_recordings([(events, 0)], (3, 2, 2), time_unit="1us")
    assert stored(data)[1] == [[1, 0]]
    with pytest.warns(ApproximationWarning, match="not in the order of time, and are sorted: 1"):
        arrays = events_of_arrays([events, events[:1]], (3, 2, 2), time_unit="1us")
    assert arrays.index.tolist() == [[1, 0], [0, 12]]


ARRAYS = {
    "t": np.array([1, 2, 3]),
    "x": np.array([0, 1, 2]),
    "y": np.array([0, 1, 0]),
    "p": np.array([0, 1, 0]),
    "offsets": np.array([0, 1, 3]),
    "labels": np.array([0, 1]),
    "sensor_size": np.array([3, 2, 2]),
    "time_unit": np.array("1us"),
}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"t": None}, "needs the array 't'"),
        ({"unit": ARRAYS["x"]}, "either 'x' or 'unit'"),
        ({"x": np.array([0, 1])}, "'x' is"),
        ({"x": np.array([0, 1, 3])}, "x = 3"),
        ({"p": np.array([0, 2, 0])}, "p = 2"),
        ({"y": None}, "no array 'y'"),
        ({"t": np.array([1.0, np.nan, 3.0])}, "the time nan"),
        ({"t": np.array([1, -2, 3])}, "the time -2e-06"),
        ({"offsets": np.array([0, 1, 2])}, "does not divide 3 events"),
        ({"offsets": np.array([0, 4, 3])}, "does not divide 3 events"),
        ({"offsets": np.array([0.0, 3.0])}, "does not divide 3 events"),
        ({"labels": np.array([0])}, "that of labels 1"),
        ({"labels": np.array([0, -1])}, "label -1"),
        ({"labels": None}, "no array 'labels'"),
        ({"sensor_size": None}, "size of its sensor"),
        ({"sensor_size": np.array([3, 2])}, "sensor_size is"),
        ({"time_unit": np.array("1 week")}, "unknown unit"),
        ({"time_unit": np.array(1)}, "'time_unit' is"),
    ],
)
def test_inconsistent_arrays_of_events_are_refused(changes, words, tmp_path):
    arrays = {key: array for key, array in (ARRAYS | changes).items() if array is not None}
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(JaxsnnError, match=words):
        load_splits(f"events:{tmp_path / 'a.npz'}")


def test_a_sensor_with_other_axes_than_the_input_is_refused():
    data = data_of_recordings(recordings(), (3, 2, 2), time_unit="1us")
    neurons = build.cubalif(tau_mem="20ms", tau_syn="10ms")
    layers = [
        build.node("Flatten", start_dim=0, end_dim=-1),
        build.linear(3, weight=normal(1.5, 0.8)),
        neurons,
    ]
    other = build.sequential(build.input((3, 2, 2)), *layers, seed=0)
    with pytest.raises(UsageError, match="shape"):
        jaxsnn.fit(other, data, epochs=1, progress=None)


def test_a_small_file_with_many_samples_is_refused(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for name, kind in (("times", "f2"), ("units", "u2")):
            shape, dtype = (2**20,), h5py.vlen_dtype(kind)
            file.create_dataset(f"spikes/{name}", shape, dtype=dtype, chunks=(1024,))
    with pytest.raises(FileError, match="1048576 samples"):
        read_spike_trains(tmp_path / "a.h5", np.array([0]))
