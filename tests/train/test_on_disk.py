"""Data that stay on the disk, and are encoded a piece at a time."""

import os
from dataclasses import replace

import numpy as np
import pytest

from jaxsnn import Events
from jaxsnn.errors import FileError, UsageError
from jaxsnn.train import Latency, Rate, fit
from jaxsnn.train.data.batches import Streamed
from jaxsnn.train.data.datasets import Data, Rows, taken
from jaxsnn.train.data.labelled_files import load_splits
from tests.helpers.small_task import DATA, small_net


@pytest.fixture
def as_users_compile(auto_is_native, monkeypatch):
    """Kernels, and programs around them that round as those of users do."""
    monkeypatch.delenv("XLA_FLAGS", raising=False)


@pytest.fixture
def folder(tmp_path):
    """The small task, its bias as a fifth value, as .npy files."""
    for part in ("train", "validation", "test"):
        data = getattr(DATA, part)
        x = np.concatenate([data.x, np.zeros((len(data), 1))], axis=1)
        np.save(tmp_path / f"x_{part}.npy", x)
        np.save(tmp_path / f"y_{part}.npy", data.y)
    return tmp_path


def run(data, **options):
    encoder = Latency(t_min=0.0, t_max=0.02, first="small", least=None)
    defaults = {"epochs": 2, "learning_rate": 0.05, "progress": None, "encoder": encoder}
    return fit(small_net(), data, **defaults | options)


def test_a_folder_of_arrays_stays_on_the_disk(folder):
    splits, notes = load_splits(folder)
    assert isinstance(splits.train.x, np.memmap)
    assert notes == ()
    (folder / "x_validation.npy").unlink()
    (folder / "y_validation.npy").unlink()
    splits, _ = load_splits(folder)
    assert isinstance(splits.validation.x, Rows)
    assert splits.train.x.shape == (234, 5)
    assert np.array_equal(np.asarray(splits.train.x), splits.train.x[np.arange(234)])
    (folder / "x_test.npy").write_bytes(b"nothing")
    with pytest.raises(FileError, match="not an array of numbers"):
        load_splits(folder)


def npz_archive(path):
    with path.open("wb") as file:
        np.savez(file, x=np.zeros(3))


def python_objects(path):
    np.save(path, np.array([{}], object), allow_pickle=True)


@pytest.mark.parametrize("write", [npz_archive, python_objects, os.mkfifo])
def test_a_npy_file_is_read_as_such_whatever_is_in_it(write, folder):
    (folder / "x_test.npy").unlink()
    write(folder / "x_test.npy")
    with pytest.raises(FileError, match=r"x_test\.npy is no"):
        load_splits(folder)


@pytest.mark.usefixtures("as_users_compile")
def test_streamed_data_give_the_same_run_bit_for_bit(folder):
    splits = load_splits(folder)[0]
    whole = run(splits)
    for at_once in (64, 100, 250):
        streamed = run(splits, stream=at_once)
        assert streamed.history == whole.history
        assert streamed.test_accuracy == whole.test_accuracy
        weights = [trained.graph.nodes["1"].weight for trained in (whole, streamed)]
        assert np.array_equal(*weights)


def test_an_encoder_that_draws_for_all_samples_together_cannot_be_streamed(folder):
    """A sample would have other spikes in each epoch, and other ones than without `stream`."""
    splits, rate = load_splits(folder)[0], Rate(highest=100.0, duration=0.05)
    with pytest.raises(UsageError, match=r"other spikes of a sample .* stream=64 .*: leave stream"):
        run(splits, encoder=rate, stream=64)


@pytest.mark.usefixtures("as_users_compile")
def test_augmentation_draws_the_same_numbers(folder):
    splits = load_splits(folder)[0]
    whole, streamed = (run(splits, stream=stream, dropout=0.2) for stream in (None, 64))
    assert streamed.history == whole.history


def test_no_more_samples_are_encoded_at_once(folder, monkeypatch):
    seen = []

    def encode(self, values):
        seen.append(len(values))
        return original(self, values)

    original = Latency.__call__
    monkeypatch.setattr(Latency, "__call__", encode)
    run(load_splits(folder)[0], stream=128)
    assert max(seen) == 256  # a batch of the evaluation
    assert 128 in seen


def test_events_that_come_too_late_are_counted_in_what_is_read_first(folder):
    def as_events(data):
        time = np.where(np.asarray(data.x) > 0.5, 0.05, 0.01)
        index = np.broadcast_to(np.arange(5), time.shape)
        return replace(data, x=Events(time=time, index=index))

    splits = load_splits(folder)[0]
    parts = {name: as_events(getattr(splits, name)) for name in ("train", "validation", "test")}
    late = int((parts["train"].x.time[:50] == 0.05).sum())
    options = {"stream": 50, "epochs": 1, "t_end": 0.04, "encoder": None}
    trained = run(replace(splits, **parts), **options)
    said = f"train, its first 50 samples: {late} of 250 events come at or after t_end = 40 ms"
    assert late > 0
    assert any(note.startswith(said) for note in trained.notes)


def test_a_checkpoint_of_other_data_is_refused(folder, tmp_path):
    splits = load_splits(folder)[0]
    kept = {"stream": 64, "checkpoint": tmp_path / "kept"}
    run(splits, **kept)
    again = run(splits, **kept, resume=True)
    assert again.history[-1].epoch == 2
    other = replace(splits, train=replace(splits.train, x=np.asarray(splits.train.x) * 0.9))
    with pytest.raises(UsageError, match="other data"):
        run(other, **kept, resume=True)


def test_slots_of_events_are_a_power_of_two():
    data = Data(x=np.eye(6), y=np.zeros(6, np.int32), classes=("a",))

    def encode(part):
        from jaxsnn.train.data.batches import Batch

        events = Events(time=np.asarray(part.x), index=np.tile(np.arange(6), (len(part), 1)))
        return Batch(inputs=events, labels=part.y)

    batch = Streamed(data=data, encode=encode, at_once=2, channels=6).take(np.array([4, 1]))
    assert batch.inputs.time.shape == (2, 8)
    assert np.array_equal(batch.inputs.time[:, :6], np.eye(6)[[4, 1]])
    assert np.isinf(batch.inputs.time[:, 6:]).all()
    assert (batch.inputs.index[:, 6:] == 6).all()


def test_some_of_some_rows():
    x = np.arange(12.0).reshape(6, 2).view(np.memmap)
    data = Data(x=x, y=np.arange(6, dtype=np.int32), classes=tuple("abcdef"))
    some = taken(taken(data, np.array([5, 3, 1])), np.array([2, 0]))
    assert np.array_equal(np.asarray(some.x), x[[1, 5]])
    assert some.y.tolist() == [1, 5]
