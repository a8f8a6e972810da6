"""Data that stay on the disk, and are encoded a piece at a time."""

import os
from dataclasses import replace

import numpy as np
import pytest

from jaxsnn import Events
from jaxsnn.errors import FileError, UsageError
from jaxsnn.train import Latency, Rate, fit
from jaxsnn.train.data.batches import Batch, Streamed
from jaxsnn.train.data.datasets import Data, Rows, select_samples
from jaxsnn.train.data.labelled_files import load_splits
from tests.helpers.refusals import assert_refused
from tests.helpers.small_task import DATA, small_net

PARTS = ("train", "validation", "test")


@pytest.fixture
def as_users_compile(auto_is_native, monkeypatch):
    """Kernels, and programs around them that round as those of users do."""
    monkeypatch.delenv("XLA_FLAGS", raising=False)


@pytest.fixture
def folder(tmp_path):
    """The small task, its bias as a fifth value, as .npy files."""
    for part in PARTS:
        data = getattr(DATA, part)
        np.save(tmp_path / f"x_{part}.npy", np.pad(data.x, [(0, 0), (0, 1)]))
        np.save(tmp_path / f"y_{part}.npy", data.y)
    return tmp_path


@pytest.fixture
def splits(folder):
    return load_splits(folder)[0]


def run(data, **options):
    encoder = Latency(t_min=0.0, t_max=0.02, first="small", least=None)
    defaults = {"epochs": 2, "learning_rate": 0.05, "progress": None, "encoder": encoder}
    return fit(small_net(), data, **defaults | options)


def test_a_folder_of_arrays_stays_on_the_disk(folder):
    splits, notes = load_splits(folder)
    assert isinstance(splits.train.x, np.memmap)
    assert notes == ()
    for name in ("x_validation.npy", "y_validation.npy"):
        (folder / name).unlink()
    splits, _ = load_splits(folder)
    assert isinstance(splits.validation.x, Rows)
    assert splits.train.x.shape == (234, 5)
    assert np.array_equal(np.asarray(splits.train.x), splits.train.x[np.arange(234)])


def npz_archive(path):
    with path.open("wb") as file:
        np.savez(file, x=np.zeros(3))


def no_array(path):
    path.write_bytes(b"nothing")


def python_objects(path):
    np.save(path, np.array([{}], object), allow_pickle=True)


@pytest.mark.parametrize("write", [no_array, npz_archive, python_objects, os.mkfifo])
def test_a_npy_file_is_read_as_such_whatever_is_in_it(write, folder):
    (folder / "x_test.npy").unlink()
    write(folder / "x_test.npy")
    message = (
        r"x_test\.npy is not an array of numbers" if write is no_array else r"x_test\.npy is not"
    )
    assert_refused(lambda: load_splits(folder), FileError, message)


@pytest.mark.usefixtures("as_users_compile")
def test_streamed_data_give_the_same_run_bit_for_bit(splits):
    direct, *streamed = (run(splits, stream=at_once) for at_once in (None, 64, 100, 250))
    for trained in streamed:
        assert trained.history == direct.history
        assert trained.test_accuracy == direct.test_accuracy
        weights = [graph.nodes["1"].weight for graph in (direct.graph, trained.graph)]
        assert np.array_equal(*weights)


def test_an_encoder_that_draws_for_all_samples_together_cannot_be_streamed(splits):
    """A sample would have other spikes in each epoch, and other ones than without `stream`."""
    rate = Rate(highest=100.0, duration=0.05)
    message = r"depend on the other samples of the call, which change with stream=64: leave stream"
    assert_refused(lambda: run(splits, encoder=rate, stream=64), UsageError, message)


@pytest.mark.usefixtures("as_users_compile")
def test_augmentation_draws_the_same_numbers(splits):
    direct, streamed = (run(splits, stream=stream, dropout=0.2) for stream in (None, 64))
    assert streamed.history == direct.history


def test_no_more_samples_are_encoded_at_once(splits, monkeypatch):
    sizes, original = [], Latency.__call__

    def encode(self, values):
        sizes.append(len(values))
        return original(self, values)

    monkeypatch.setattr(Latency, "__call__", encode)
    run(splits, stream=128)
    assert max(sizes) == 256  # a batch of the evaluation
    assert 128 in sizes


def test_events_that_come_too_late_are_counted_in_what_is_read_first(splits):
    def as_events(data):
        time = np.where(np.asarray(data.x) > 0.5, 0.05, 0.01)
        index = np.broadcast_to(np.arange(5), time.shape)
        return replace(data, x=Events(time=time, index=index))

    parts = {name: as_events(getattr(splits, name)) for name in PARTS}
    late = int((parts["train"].x.time[:50] == 0.05).sum())
    options = {"stream": 50, "epochs": 1, "t_end": 0.04, "encoder": None}
    notes = run(replace(splits, **parts), **options).notes
    message = f"train, its first 50 samples: {late} of 250 events are at or after t_end = 40 ms"
    assert late > 0
    assert any(note.startswith(message) for note in notes)


def test_a_checkpoint_of_other_data_is_refused(splits, tmp_path):
    settings = {"stream": 64, "checkpoint": tmp_path / "run"}
    run(splits, **settings)
    assert run(splits, **settings, resume=True).history[-1].epoch == 2
    darker = replace(splits, train=replace(splits.train, x=np.asarray(splits.train.x) * 0.9))
    assert_refused(lambda: run(darker, **settings, resume=True), UsageError, "other data")


def test_slots_of_events_are_a_power_of_two():
    data = Data(x=np.eye(6), y=np.zeros(6, np.int32), classes=("a",))

    def encode(part):
        events = Events(time=np.asarray(part.x), index=np.tile(np.arange(6), (len(part), 1)))
        return Batch(inputs=events, labels=part.y)

    streamed = Streamed(data=data, encode=encode, at_once=2, channels=6)
    inputs = streamed.take(np.array([4, 1])).inputs
    assert inputs.time.shape == (2, 8)
    assert np.array_equal(inputs.time[:, :6], np.eye(6)[[4, 1]])
    assert np.isinf(inputs.time[:, 6:]).all()
    assert (inputs.index[:, 6:] == 6).all()


def test_some_of_some_rows():
    x = np.arange(12.0).reshape(6, 2).view(np.memmap)
    data = Data(x=x, y=np.arange(6, dtype=np.int32), classes=tuple("abcdef"))
    some = select_samples(select_samples(data, np.array([5, 3, 1])), np.array([2, 0]))
    assert np.array_equal(np.asarray(some.x), x[[1, 5]])
    assert some.y.tolist() == [1, 5]
