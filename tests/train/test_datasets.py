"""The Yin-Yang task, and labelled data from files."""

from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from jaxsnn import Events
from jaxsnn.errors import FileError, UsageError
from jaxsnn.nir import build
from jaxsnn.nir.initializers import normal
from jaxsnn.train import TrainingStopped, TrainOptions, fit, splits_of_arrays
from jaxsnn.train.data.batches import Batch, late_notes
from jaxsnn.train.data.datasets import (
    Data,
    as_splits,
    check_data,
    yinyang,
    yinyang_region,
    yinyang_splits,
)
from jaxsnn.train.data.labelled_files import load_splits


def test_classes_are_balanced_and_labels_are_the_regions():
    data = yinyang(1000, seed=3)
    assert np.bincount(data.y).tolist() == [334, 333, 333]
    assert np.array_equal(yinyang_region(data.x[:, :2]), data.y)
    assert data.y.dtype == np.int32


def test_the_mirrored_values_follow():
    data = yinyang(50, seed=0)
    assert np.array_equal(data.x[:, 2:], 1 - data.x[:, :2])
    assert data.x.min() >= 0
    assert data.x.max() <= 1


def test_geometry():
    # centre of the dots; left half disc is yin, right one yang; upper half yin, lower half yang;
    # outside
    points = [
        (0.25, 0.5),
        (0.75, 0.5),
        (0.25, 0.35),
        (0.75, 0.65),
        (0.5, 0.9),
        (0.5, 0.1),
        (0.02, 0.02),
    ]
    assert yinyang_region(np.array(points)).tolist() == [2, 2, 0, 1, 0, 1, -1]


def test_turning_the_figure_by_half_a_turn_swaps_yin_and_yang():
    points = np.random.default_rng(0).uniform(0, 1, (2000, 2))
    turned = yinyang_region(1 - points)
    swapped = np.array([1, 0, 2, -1])[yinyang_region(points)]
    assert np.array_equal(turned, swapped)


def test_a_seed_gives_the_same_points_and_another_seed_others():
    assert np.array_equal(yinyang(100, 5).x, yinyang(100, 5).x)
    assert not np.array_equal(yinyang(100, 5).x, yinyang(100, 6).x)


def test_splits_have_the_sizes_of_the_paper_and_no_common_points():
    splits = yinyang_splits()
    assert [len(part) for part in (splits.train, splits.validation, splits.test)] == [
        5000,
        1000,
        1000,
    ]
    assert splits.bias
    points = np.concatenate([splits.train.x, splits.validation.x, splits.test.x])
    assert len(np.unique(points, axis=0)) == 7000


def test_the_region_of_each_class_is_filled_evenly():
    """The area of a dot is known: the density of points inside it must be the same in each."""
    points = yinyang(6000, seed=1)
    dots = points.x[points.y == 2][:, 0]
    assert abs(np.mean(dots < 0.5) - 0.5) < 0.03


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (np.zeros((3, 2)), [0, 1], "3 samples and 2 labels"),
        (np.zeros((0, 2)), [], "no samples"),
        (np.zeros((2, 2)), [0, 2], "the label of sample 1 is 2, labels run from 0 to 1"),
        (np.zeros((2, 2)), [0.9, 0.2], "labels are float64"),
        (np.zeros((2, 2)), [np.nan, 0.0], "labels are float64"),
        (np.zeros((2, 2)), [[0], [1]], r"of shape \(2, 1\)"),
    ],
)
def test_data_that_do_not_fit_are_refused(x, y, message):
    labels = np.array(y, None if y else int)
    with pytest.raises(UsageError, match=message):
        check_data(Data(x=x, y=labels, classes=("a", "b")), "mine")


def test_labels_that_are_whole_may_be_floats():
    x, y = np.random.default_rng(0).random((20, 3)), np.arange(20) % 2
    floats, whole = splits_of_arrays(x, y.astype(float)).train, splits_of_arrays(x, y).train
    np.testing.assert_array_equal(floats.y, whole.y)
    assert floats.y.dtype == np.int32
    check_data(Data(x=x, y=y.astype(float), classes=("0", "1")), "mine")


@pytest.fixture
def arrays():
    generator = np.random.default_rng(0)
    return {
        "x_train": generator.random((10, 4)),
        "y_train": np.arange(10) % 3,
        "x_test": generator.random((4, 4)),
        "y_test": np.arange(4) % 3,
    }


def test_npz_holds_out_a_part_for_validation_and_says_so(arrays, tmp_path):
    np.savez(tmp_path / "data.npz", **arrays)
    splits, notes = load_splits(tmp_path / "data.npz", seed=1)
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (8, 2, 4)
    assert splits.train.classes == ("0", "1", "2")
    together = np.concatenate([splits.train.x, splits.validation.x])
    assert sorted(map(tuple, together)) == sorted(map(tuple, arrays["x_train"]))
    assert "2 of 10" in notes[0]


def test_npz_takes_its_own_validation_samples(arrays, tmp_path):
    np.savez(
        tmp_path / "data.npz",
        **arrays,
        x_validation=arrays["x_test"],
        y_validation=arrays["y_test"],
    )
    splits, notes = load_splits(tmp_path / "data.npz")
    assert (len(splits.train), len(splits.validation)) == (10, 4)
    assert notes == ()


def test_npz_takes_events(arrays, tmp_path):
    for part, samples in (("train", 10), ("test", 4)):
        del arrays[f"x_{part}"]
        arrays[f"time_{part}"] = np.full((samples, 3), 0.001)
        arrays[f"index_{part}"] = np.zeros((samples, 3), np.int32)
    np.savez(tmp_path / "data.npz", **arrays)
    splits, _ = load_splits(tmp_path / "data.npz")
    assert splits.train.x.time.shape == (8, 3)


@pytest.mark.parametrize("dtype", [float, np.float32, bool])
def test_whole_labels_of_other_types_are_taken(arrays, tmp_path, dtype):
    labels = {key: value % 2 for key, value in arrays.items() if key.startswith("y_")}
    others = {key: value.astype(dtype) for key, value in labels.items()}
    np.savez(tmp_path / "others.npz", **{**arrays, **others})
    np.savez(tmp_path / "whole.npz", **{**arrays, **labels})
    found, expected = (load_splits(tmp_path / f"{name}.npz")[0] for name in ("others", "whole"))
    assert found.train.classes == expected.train.classes
    assert np.array_equal(found.train.y, expected.train.y)
    assert found.train.y.dtype == np.int32


def events_of(arrays, **changes):
    """The same parts as events, some arrays replaced."""
    parts = {"train": 10, "test": 4}
    labels = {f"y_{part}": arrays[f"y_{part}"] for part in parts}
    times = {f"time_{part}": np.full((samples, 3), 0.001) for part, samples in parts.items()}
    channels = {
        f"index_{part}": np.zeros((samples, 3), np.int32) for part, samples in parts.items()
    }
    return {**labels, **times, **channels, **changes}


#: Arrays of a file that is refused, the exception, and what it says.
REFUSED_ARRAYS = {
    "no labels of the test": (
        lambda arrays: {name: array for name, array in arrays.items() if name != "y_test"},
        (FileError, "no array 'y_test'"),
    ),
    **{
        f"a label {label}": (
            lambda arrays, label=label: {**arrays, "y_train": np.append(np.zeros(9), label)},
            (UsageError, "labels are float64"),
        )
        for label in (0.5, np.nan, np.inf)
    },
    "values and events": (
        lambda arrays: {**events_of(arrays), **arrays},
        (UsageError, "both x_train and time_train"),
    ),
    "events of one part have sizes": (
        lambda arrays: events_of(arrays, value_train=np.full((10, 3), 2.0)),
        (UsageError, "value_train, but no value_test"),
    ),
    **{
        f"channels {index.dtype} {index.shape}": (
            lambda arrays, index=index: events_of(arrays, index_train=index),
            (
                UsageError,
                r"time_train has shape \(10, 3\), index_train is .*: give numbers for both",
            ),
        )
        for index in (np.zeros((9, 3), int), np.zeros((10, 2), int), np.full((10, 3), "0"))
    },
    # times of one axis would be one sample, for all labels
    "events of one sample": (
        lambda arrays: events_of(
            arrays, time_train=np.full(10, 0.001), index_train=np.zeros(10, int)
        ),
        (UsageError, r"train: events have times of shape \(10,\): give \(samples, events\)"),
    ),
    "no labels for validation": (
        lambda arrays: {**arrays, "x_validation": arrays["x_test"]},
        (FileError, "no array 'y_validation'"),
    ),
    "no samples for validation": (
        lambda arrays: {**arrays, "y_validation": arrays["y_test"]},
        (FileError, "no array 'x_validation'"),
    ),
    "text": (
        lambda arrays: {**arrays, "x_train": arrays["x_train"].astype(str)},
        (UsageError, r"x_train is <U\d+ of shape \(10, 4\): give numbers"),
    ),
}


@pytest.mark.parametrize("case", REFUSED_ARRAYS)
def test_files_of_other_arrays_are_refused(case, arrays, tmp_path):
    changed, (error, message) = REFUSED_ARRAYS[case]
    np.savez(tmp_path / "data.npz", **changed(arrays))
    with pytest.raises(error, match=message):
        load_splits(tmp_path / "data.npz", outputs=3)


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("nothing.npz", FileError, "no such file"),
        ("text.npz", FileError, r"not an \.npz file"),
        (
            "digit",
            UsageError,
            r"no task 'digit', and no \.npz file of that name: did you mean 'digits'",
        ),
    ],
)
def test_files_and_names_that_do_not_exist_are_refused(name, error, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("text.npz").write_text("no zip")
    with pytest.raises(error, match=message):
        load_splits(name)


@pytest.mark.parametrize(("samples", "labels"), [(7, 10), (10, 7), (0, 10), (10, 0)])
@pytest.mark.parametrize("part", ["train", "validation", "test"])
def test_each_sample_of_each_part_needs_a_label(samples, labels, part, arrays, tmp_path):
    y, message = np.arange(labels) % 3, f"data.npz, {part}: {samples} samples and {labels} labels"
    np.savez(
        tmp_path / "data.npz", **{**arrays, f"x_{part}": np.full((samples, 4), 0.5), f"y_{part}": y}
    )
    with pytest.raises(UsageError, match=message):
        load_splits(tmp_path / "data.npz")
    # times and channels may be indexed beyond their end: JAX takes the last
    changes = {
        f"time_{part}": np.zeros((samples, 3)),
        f"index_{part}": np.zeros((samples, 3), int),
        f"y_{part}": y,
    }
    np.savez(tmp_path / "data.npz", **events_of(arrays, **changes))
    with pytest.raises(UsageError, match=message):
        load_splits(tmp_path / "data.npz")


def test_nan_in_arrays_is_refused_as_in_files():
    x = np.full((20, 2), 0.5)
    x[3, 1] = np.nan
    with pytest.raises(UsageError, match="samples have 1 NaN among their 40 values: fill them in"):
        as_splits((x, np.arange(20) % 2))


@pytest.mark.parametrize("part", ["train", "validation", "test"])
def test_nan_is_refused_and_inf_is_no_event(part, arrays, tmp_path):
    arrays |= {f"{key}_validation": arrays[f"{key}_test"] for key in "xy"}
    holes = arrays[f"x_{part}"].copy()
    holes[1:3, 2] = np.nan
    np.savez(tmp_path / "data.npz", **{**arrays, f"x_{part}": holes})
    with pytest.raises(
        UsageError, match=f"x_{part} has 2 NaN among its {holes.size} values: fill them in"
    ):
        load_splits(tmp_path / "data.npz")
    times = np.full((len(holes), 3), np.inf)
    events = events_of(
        arrays, **{f"time_{part}": times, f"index_{part}": np.zeros(times.shape, int)}
    )
    events[f"y_{part}"] = arrays[f"y_{part}"]
    np.savez(tmp_path / "data.npz", **events)
    load_splits(tmp_path / "data.npz")
    times[0, 0] = np.nan
    np.savez(tmp_path / "data.npz", **events)
    with pytest.raises(
        UsageError, match=f"time_{part} has 1 NaN .*: inf means that there is no event"
    ):
        load_splits(tmp_path / "data.npz")


@pytest.mark.parametrize("label", [-1, 3, 10**7, 2**32, 2**63 + 1])
def test_labels_that_no_output_has_are_refused_before_classes_are_named(
    label, arrays, tmp_path, monkeypatch
):
    monkeypatch.setattr("jaxsnn.train.data.labelled_files.map", pytest.fail, raising=False)
    labels = np.array([0, label], np.int64 if label < 0 else np.uint64)
    np.savez(tmp_path / "data.npz", **{**arrays, "x_test": arrays["x_test"][:2], "y_test": labels})
    with pytest.raises(UsageError, match=f"y_test has the label {label},"):
        load_splits(tmp_path / "data.npz", outputs=3)
    if label > 3:
        with pytest.raises(UsageError, match="labels run from 0 to 65535"):
            load_splits(tmp_path / "data.npz")


# Arrays, as they are


def blobs(samples=120, classes=3):
    """Of each class one channel spikes early, the others late."""
    generator = np.random.default_rng(0)
    y = generator.permutation(np.arange(samples) % classes)
    x = 0.8 + 0.15 * generator.random((samples, 5))
    x[np.arange(samples), y] -= 0.8
    return x, y


def test_arrays_are_split_by_class_and_no_sample_twice():
    x, y = blobs()
    splits = splits_of_arrays(x, y)
    parts = (splits.train, splits.validation, splits.test)
    assert [len(part) for part in parts] == [78, 18, 24]
    for part in parts:
        assert set(np.bincount(part.y)) == {len(part) // 3}
    together = np.concatenate([part.x for part in parts])
    assert sorted(map(tuple, together)) == sorted(map(tuple, x))
    assert splits.train.classes == ("0", "1", "2")
    assert not splits.bias
    other = splits_of_arrays(x, y, test=0.5, validation=0.1, seed=1, classes="abc", name="blobs")
    assert [len(part) for part in (other.train, other.validation, other.test)] == [54, 6, 60]
    assert (other.name, other.test.classes) == ("blobs", ("a", "b", "c"))


def small_readout():
    neurons = build.cubalif(tau_mem="20ms", tau_syn="10ms")
    weights = (normal(1.2, 0.6), normal(0.3, 0.3))
    layers = [build.linear(n, weight=own) for n, own in zip((12, 3), weights, strict=True)]
    return build.sequential(build.input(5), layers[0], neurons, layers[1], neurons, seed=0)


def test_fit_takes_arrays_and_says_how_it_split_them():
    x, y = blobs()
    settings = {"epochs": 40, "learning_rate": 0.05, "batch_size": 16, "progress": None}
    trained = fit(small_readout(), (x, y), **settings)
    assert trained.test_accuracy > 0.9
    assert trained.notes[0] == (
        "of 120 samples, chosen by the seed, 78 are for training, 18 for validation and 24 for"
        " the test"
    )
    again = fit(small_readout(), splits_of_arrays(x, y), **settings)
    assert again.history == trained.history
    assert again.test_accuracy == trained.test_accuracy
    # lists, Data, and arrays of JAX are the same
    data = Data(x=x, y=y.astype(np.int32), classes=("0", "1", "2"))
    for same in ([x, y.tolist()], data, (jnp.asarray(x), jnp.asarray(y))):
        assert fit(small_readout(), same, **{**settings, "epochs": 1}).notes[0] == trained.notes[0]


def test_fit_takes_events_and_labels():
    x, y = blobs()
    index = np.broadcast_to(np.arange(5), x.shape).astype(np.int32)
    # large values come first
    events = Events(time=jnp.asarray(0.02 * (1 - x)), index=jnp.asarray(index))
    settings = {"epochs": 1, "batch_size": 16, "progress": None}
    one = fit(small_readout(), (events, y), **settings)
    other = fit(small_readout(), (x, y), **settings)
    assert one.settings["encoder"] is None
    assert one.history[0].train_loss == pytest.approx(other.history[0].train_loss, rel=1e-4)


def test_fit_takes_the_name_of_a_task():
    neurons = build.cubalif(tau_mem="20ms", tau_syn="10ms")
    layer = build.linear(3, weight=normal(1.0, 0.3))
    graph = build.sequential(build.input(5), layer, neurons, seed=0)
    options = TrainOptions(epochs=1, batch_size=1000, progress=None)
    named = fit(graph, "yinyang", options=options)
    assert named.history == fit(graph, yinyang_splits(), options=options).history


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (np.zeros((4, 5)), r"data are ndarray of shape \(4, 5\): add the labels: \(x, y\)"),
        ({"x": 1, "y": 2}, r"data are of the type dict: pass \(data\['x'\], data\['y'\]\)"),
        ([(np.zeros(5), 0)] * 7, r"data are a list of 7 elements: pass \(x, y\) of arrays"),
        ((1, 2, 3, 4), "data are a tuple of 4 elements: make Splits"),
        (3, r"data are of the type int: pass \(x, y\): samples"),
        (None, r"the training data are missing: pass data="),
        ((np.zeros((4, 5)), np.zeros(3, int)), "data: 4 samples and 3 labels"),
        ((np.zeros((4, 5)), np.eye(4)), r"labels are float64 of shape \(4, 4\): .*argmax"),
        ((np.zeros(4), np.zeros(4, int)), r"samples are float64 of shape \(4,\): give numbers"),
        ((np.full((4, 5), "a"), np.zeros(4, int)), "samples are <U1 of shape"),
        ((np.zeros((4, 5)), np.array([0, 1, 2, -1])), "the label of sample 3 is -1"),
        (
            (np.zeros((4, 5)), np.array([0, 1, 2, 10**9])),
            "the largest label is 1000000000, labels run",
        ),
        ((np.zeros((3, 5)), np.arange(3)), "3 samples of 3 classes, which leaves none for the pa"),
        ("nothing", r"there is no task 'nothing', and no \.npz file of that name"),
    ],
)
def test_of_other_data_it_says_how_to_make_them(data, message):
    with pytest.raises(UsageError, match=message):
        fit(small_readout(), data, epochs=1, progress=None)


MILLISECONDS = Events(time=np.tile([5.0, 0.0], (40, 1)), index=np.tile([0, 1], (40, 1)))


def test_events_that_come_too_late_are_counted():
    labels = jnp.zeros(40, jnp.int32)
    unused = Events(time=np.full((40, 2), np.inf), index=np.zeros((40, 2), int))
    parts = {"train": Batch(MILLISECONDS, labels), "test": Batch(unused, labels)}
    assert late_notes(parts, 0.04) == [
        "train: 40 of 80 events come at or after t_end = 40 ms and are left out (times are in seconds)"
    ]
    assert late_notes(parts, 5.1) == []


@pytest.mark.slow
def test_a_run_that_is_silent_for_late_events_says_so():
    graph = build.sequential(
        build.input(2),
        build.linear(3, weight=normal(0.2, 0.0)),
        build.cubalif(tau_mem="20ms", tau_syn="10ms"),
        seed=0,
    )
    with pytest.raises(TrainingStopped, match=r"give times before t_end \(train: .* or enlarge"):
        fit(graph, (MILLISECONDS, np.arange(40) % 3), epochs=1, t_end=0.04, progress=None)


def test_which_values_spike_first_is_kept_in_each_part():
    splits, _ = as_splits(yinyang(40, seed=0))
    parts = splits.train, splits.validation, splits.test
    assert [part.first for part in parts] == ["small"] * 3
