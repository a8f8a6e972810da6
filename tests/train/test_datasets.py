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
from jaxsnn.train.data.labelled_files import load_splits, with_data
from tests.helpers.refusals import assert_refused


def test_classes_are_balanced_labels_are_regions_and_mirrored_values_follow():
    data = yinyang(1000, seed=3)
    assert np.bincount(data.y).tolist() == [334, 333, 333]
    assert np.array_equal(yinyang_region(data.x[:, :2]), data.y)
    assert data.y.dtype == np.int32
    assert np.array_equal(data.x[:, 2:], 1 - data.x[:, :2])
    assert 0 <= data.x.min() < data.x.max() <= 1
    assert np.array_equal(yinyang(1000, seed=3).x, data.x)
    assert not np.array_equal(yinyang(1000, seed=4).x, data.x)


def test_geometry():
    # Centres of the dots; left half of the disc is yin, right half yang; upper half yin, lower half
    # yang; outside.
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
    swapped = np.array([1, 0, 2, -1])[yinyang_region(points)]
    assert np.array_equal(yinyang_region(1 - points), swapped)


def parts_of(splits):
    return splits.train, splits.validation, splits.test


def test_splits_have_the_sizes_of_the_paper_and_no_common_points():
    splits = yinyang_splits()
    assert [len(part) for part in parts_of(splits)] == [5000, 1000, 1000]
    assert splits.bias
    points = np.concatenate([part.x for part in parts_of(splits)])
    assert len(np.unique(points, axis=0)) == 7000


def test_the_region_of_each_class_is_filled_evenly():
    """The area of a dot is known: the density of points inside it must be the same in each."""
    points = yinyang(6000, seed=1)
    dots = points.x[points.y == 2][:, 0]
    assert abs(np.mean(dots < 0.5) - 0.5) < 0.03


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (np.zeros((3, 2)), [0, 1], "the number of samples is 3, that of labels 2"),
        (np.zeros((0, 2)), [], "no samples"),
        (np.zeros((2, 2)), [0, 2], "the label of sample 1 is 2, and labels range from 0 to 1"),
        (np.zeros((2, 2)), [0.9, 0.2], "labels are float64"),
        (np.zeros((2, 2)), [np.nan, 0.0], "labels are float64"),
        (np.zeros((2, 2)), [[0], [1]], r"of shape \(2, 1\)"),
    ],
)
def test_data_that_do_not_fit_are_refused(x, y, message):
    labels = np.array(y, None if y else int)
    assert_refused(
        lambda: check_data(Data(x=x, y=labels, classes=("a", "b")), "mine"), UsageError, message
    )


def test_labels_that_are_whole_may_be_floats():
    x, y = np.random.default_rng(0).random((20, 3)), np.arange(20) % 2
    of_floats, of_integers = (splits_of_arrays(x, labels).train for labels in (y.astype(float), y))
    np.testing.assert_array_equal(of_floats.y, of_integers.y)
    assert of_floats.y.dtype == np.int32
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


def load(folder, arrays, **options):
    """The splits of a file of arrays, and what there is to say of them."""
    np.savez(folder / "data.npz", **arrays)
    return load_splits(folder / "data.npz", **options)


def test_npz_holds_out_a_part_for_validation_and_notes_it(arrays, tmp_path):
    splits, notes = load(tmp_path, arrays, seed=1)
    assert [len(part) for part in parts_of(splits)] == [8, 2, 4]
    assert splits.train.classes == ("0", "1", "2")
    together = np.concatenate([splits.train.x, splits.validation.x])
    assert sorted(map(tuple, together)) == sorted(map(tuple, arrays["x_train"]))
    assert "2 of 10" in notes[0]


def test_npz_takes_its_own_validation_samples(arrays, tmp_path):
    validation = {f"{key}_validation": arrays[f"{key}_test"] for key in "xy"}
    splits, notes = load(tmp_path, arrays | validation)
    assert (len(splits.train), len(splits.validation)) == (10, 4)
    assert notes == ()


def test_npz_takes_events(arrays, tmp_path):
    assert load(tmp_path, events_of(arrays))[0].train.x.time.shape == (8, 3)


@pytest.mark.parametrize("dtype", [float, np.float32, bool])
def test_whole_labels_of_other_types_are_taken(arrays, tmp_path, dtype):
    labels = {key: value % 2 for key, value in arrays.items() if key.startswith("y_")}
    converted = {key: value.astype(dtype) for key, value in labels.items()}
    data, expected = (load(tmp_path, arrays | kind)[0].train for kind in (converted, labels))
    assert data.classes == expected.classes
    assert np.array_equal(data.y, expected.y)
    assert data.y.dtype == np.int32


def events_of(arrays, **changes):
    """The same parts as events, some arrays replaced."""
    events = {}
    for part, samples in (("train", 10), ("test", 4)):
        events[f"y_{part}"] = arrays[f"y_{part}"]
        events[f"time_{part}"] = np.full((samples, 3), 0.001)
        events[f"index_{part}"] = np.zeros((samples, 3), np.int32)
    return events | changes


#: Arrays of a file, the exception, and words of the refusal.
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
        (UsageError, "value_train and no value_test"),
    ),
    **{
        f"channels {index.dtype} {index.shape}": (
            lambda arrays, index=index: events_of(arrays, index_train=index),
            (
                UsageError,
                r"time_train has shape \(10, 3\), and index_train is .*: save numbers of shape",
            ),
        )
        for index in (np.zeros((9, 3), int), np.zeros((10, 2), int), np.full((10, 3), "0"))
    },
    # Times with one axis would be a single sample, for all labels.
    "events of one sample": (
        lambda arrays: events_of(
            arrays, time_train=np.full(10, 0.001), index_train=np.zeros(10, int)
        ),
        (
            UsageError,
            r"train: the times of the events have shape \(10,\): pass times of shape \(samples, events\)",
        ),
    ),
    "no labels for validation": (
        lambda arrays: {**arrays, "x_validation": arrays["x_test"]},
        (FileError, "no array 'y_validation'"),
    ),
    "no samples for validation": (
        lambda arrays: {**arrays, "y_validation": arrays["y_test"]},
        (FileError, "neither 'x_validation'"),
    ),
    "text": (
        lambda arrays: {**arrays, "x_train": arrays["x_train"].astype(str)},
        (UsageError, r"x_train is <U\d+ of shape \(10, 4\): save numbers"),
    ),
}


@pytest.mark.parametrize("case", REFUSED_ARRAYS)
def test_files_of_other_arrays_are_refused(case, arrays, tmp_path):
    changed, (error, message) = REFUSED_ARRAYS[case]
    assert_refused(lambda: load(tmp_path, changed(arrays), outputs=3), error, message)


@pytest.mark.parametrize(
    ("name", "error", "message", "fix"),
    [
        ("nothing.npz", FileError, "no such file", None),
        ("text.npz", FileError, r"not an \.npz file", ""),
        (
            "digit",
            UsageError,
            r"'digit' is neither a task nor an \.npz file: did you mean 'digits'",
            "",
        ),
    ],
)
def test_files_and_names_that_do_not_exist_are_refused(
    name, error, message, fix, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    Path("text.npz").write_text("no zip")
    assert_refused(lambda: load_splits(name), error, message, fix=fix)


@pytest.mark.parametrize(("samples", "labels"), [(7, 10), (10, 7), (0, 10), (10, 0)])
@pytest.mark.parametrize("part", ["train", "validation", "test"])
def test_each_sample_of_each_part_needs_a_label(samples, labels, part, arrays, tmp_path):
    """Also of events: times and channels may be indexed beyond their end, JAX takes the last."""
    y, message = (
        np.arange(labels) % 3,
        f"data.npz, {part}: the number of samples is {samples}, that of labels {labels}",
    )
    values = arrays | {f"x_{part}": np.full((samples, 4), 0.5), f"y_{part}": y}
    assert_refused(lambda: load(tmp_path, values), UsageError, message)
    changes = {f"time_{part}": np.zeros((samples, 3)), f"y_{part}": y}
    events = events_of(arrays, **changes, **{f"index_{part}": np.zeros((samples, 3), int)})
    assert_refused(lambda: load(tmp_path, events), UsageError, message)


@pytest.mark.parametrize("part", ["train", "validation", "test"])
def test_nan_is_refused_and_inf_is_no_event(part, arrays, tmp_path):
    arrays |= {f"{key}_validation": arrays[f"{key}_test"] for key in "xy"}
    holes = arrays[f"x_{part}"].copy()
    holes[1:3, 2] = np.nan
    message = f"x_{part} contains 2 NaN among {holes.size} values"
    assert_refused(lambda: load(tmp_path, arrays | {f"x_{part}": holes}), UsageError, message)
    times = np.full((len(holes), 3), np.inf)
    changes = {f"time_{part}": times, f"y_{part}": arrays[f"y_{part}"]}
    events = events_of(arrays, **changes, **{f"index_{part}": np.zeros(times.shape, int)})
    load(tmp_path, events)
    times[0, 0] = np.nan
    message = f"time_{part} contains 1 NaN among {times.size} values, the first at .*: use inf for unused events"
    assert_refused(lambda: load(tmp_path, events), UsageError, message)


@pytest.mark.parametrize("label", [-1, 3, 10**7, 2**32, 2**63 + 1])
def test_labels_that_no_output_has_are_refused_before_classes_are_named(
    label, arrays, tmp_path, monkeypatch
):
    monkeypatch.setattr("jaxsnn.train.data.labelled_files.map", pytest.fail, raising=False)
    labels = np.array([0, label], np.int64 if label < 0 else np.uint64)
    arrays |= {"x_test": arrays["x_test"][:2], "y_test": labels}
    message = f"y_test has the label {label},"
    assert_refused(lambda: load(tmp_path, arrays, outputs=3), UsageError, message)
    if label > 3:
        message = "labels range from 0 to 65535"
        assert_refused(lambda: load(tmp_path, arrays), UsageError, message)


# Arrays


def test_classes_are_numbered_by_default():
    x = np.zeros((3, 2))
    assert Data(x=x, y=np.array([0, 2, 1])).classes == ("0", "1", "2")
    assert Data(x=x, y=np.array([0, 2, 1]), classes=("a", "b", "c")).classes == ("a", "b", "c")
    assert_refused(lambda: Data(x=x, y=np.array([0.5, 1, 2])), UsageError, "labels")


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
    assert [len(part) for part in parts_of(splits)] == [78, 18, 24]
    assert all(set(np.bincount(part.y)) == {len(part) // 3} for part in parts_of(splits))
    together = np.concatenate([part.x for part in parts_of(splits)])
    assert sorted(map(tuple, together)) == sorted(map(tuple, x))
    assert splits.train.classes == ("0", "1", "2")
    assert not splits.bias
    options = {"test": 0.5, "validation": 0.1, "seed": 1, "classes": "abc", "name": "blobs"}
    named = splits_of_arrays(x, y, **options)
    assert [len(part) for part in parts_of(named)] == [54, 6, 60]
    assert (named.name, named.test.classes) == ("blobs", ("a", "b", "c"))


def small_readout():
    neurons = build.cubalif(tau_mem="20ms", tau_syn="10ms")
    layers = build.linear(12, weight=normal(1.2, 0.6)), build.linear(3, weight=normal(0.3, 0.3))
    return build.sequential(build.input(5), layers[0], neurons, layers[1], neurons, seed=0)


def test_fit_takes_arrays_and_notes_how_it_split_them():
    x, y = blobs()
    settings = {"epochs": 40, "learning_rate": 0.05, "batch_size": 16, "progress": None}
    trained = fit(small_readout(), (x, y), **settings)
    assert trained.test_accuracy > 0.9
    assert trained.notes[0] == (
        "the 120 samples are split at random: 78 for training, 18 for validation and 24 for the test"
    )
    # Lists, Data and JAX arrays are split alike; explicit splits give the same run.
    data = Data(x=x, y=y.astype(np.int32), classes=("0", "1", "2"))
    forms = [x, y.tolist()], data, (jnp.asarray(x), jnp.asarray(y)), (x, y), splits_of_arrays(x, y)
    runs = [fit(small_readout(), form, **settings | {"epochs": 1}) for form in forms]
    assert [run.notes[0] for run in runs[:4]] == [trained.notes[0]] * 4
    assert runs[4].history == runs[3].history
    assert runs[4].test_accuracy == runs[3].test_accuracy


def test_fit_takes_events_and_labels():
    x, y = blobs()
    index = np.broadcast_to(np.arange(5), x.shape).astype(np.int32)
    # Large values spike first.
    events = Events(time=jnp.asarray(0.02 * (1 - x)), index=jnp.asarray(index))
    settings = {"epochs": 1, "batch_size": 16, "progress": None}
    of_events, of_values = (fit(small_readout(), (form, y), **settings) for form in (events, x))
    assert of_events.settings["encoder"] is None
    loss = of_values.history[0].train_loss
    assert of_events.history[0].train_loss == pytest.approx(loss, rel=1e-4)


def test_fit_takes_the_name_of_a_task():
    options = TrainOptions(epochs=1, batch_size=1000, progress=None)
    named, split = (
        fit(small_readout(), data, options=options) for data in ("yinyang", yinyang_splits())
    )
    assert named.history == split.history


WITH_NAN = np.full((20, 2), 0.5)
WITH_NAN[3, 1] = np.nan


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([(np.zeros(5), 0)] * 7, r"not a list of 7 elements: pass arrays \(x, y\)"),
        (3, r"not an object of type int: pass \(x, y\): arrays"),
        (None, r"the training data are missing: pass data="),
        (
            (np.zeros((4, 5)), np.zeros(3, int)),
            "data: the number of samples is 4, that of labels 3",
        ),
        ((np.zeros((4, 5)), np.eye(4)), r"labels are float64 of shape \(4, 4\): .*argmax"),
        ((np.zeros(4), np.zeros(4, int)), r"samples are float64 of shape \(4,\): pass numbers"),
        (
            (np.zeros((4, 5)), np.array([0, 1, 2, -1])),
            "the label of sample 3 is -1, and labels range from 0 to 2",
        ),
        ((WITH_NAN, np.arange(20) % 2), "data contains 1 NaN among 40 values"),
        ("nothing", r"'nothing' is neither a task nor an \.npz file"),
    ],
)
def test_of_other_data_it_says_how_to_make_them(data, message):
    assert_refused(lambda: fit(small_readout(), data, epochs=1, progress=None), UsageError, message)


MILLISECONDS = Events(time=np.tile([5.0, 0.0], (40, 1)), index=np.tile([0, 1], (40, 1)))


def test_events_that_come_too_late_are_counted():
    labels = jnp.zeros(40, jnp.int32)
    unused = Events(time=np.full((40, 2), np.inf), index=np.zeros((40, 2), int))
    parts = {"train": Batch(MILLISECONDS, labels), "test": Batch(unused, labels)}
    assert late_notes(parts, 0.04) == [
        "train: 40 of 80 events are at or after t_end = 40 ms and are left out (times are in seconds)"
    ]
    assert late_notes(parts, 5.1) == []


@pytest.mark.slow
def test_a_run_that_is_silent_for_late_events_names_them():
    neurons = build.cubalif(tau_mem="20ms", tau_syn="10ms")
    layer = build.linear(3, weight=normal(0.2, 0.0))
    graph = build.sequential(build.input(2), layer, neurons, seed=0)
    data = MILLISECONDS, np.arange(40) % 3
    assert_refused(
        lambda: fit(graph, data, epochs=1, t_end=0.04, progress=None),
        TrainingStopped,
        r"correct the times \(train: .* or use larger",
    )


@pytest.mark.parametrize(("first", "noted"), [(0, False), (1, True)])
def test_training_data_without_the_label_0_are_noted(first, noted):
    graph = build.sequential(build.input(4), build.linear(3), build.lif(tau="10ms"), seed=0)
    labels = first + np.arange(40) % 2
    _, notes = with_data(graph, TrainOptions(data=(np.zeros((40, 4)), labels)))
    (note,) = [note for note in notes if getattr(note, "code", "") == "no-first-class"] or [None]
    assert (note is not None) == noted
    if noted:
        assert note.kind == "assumed"
        assert "1 to 2" in note


def test_which_values_spike_first_is_kept_in_each_part():
    splits, _ = as_splits(yinyang(40, seed=0))
    assert [part.first for part in parts_of(splits)] == ["small"] * 3
