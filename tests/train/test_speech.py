"""Recordings, which the tests write, through the cochlea."""

import os
import shutil

import numpy as np
import pytest
from scipy.io import wavfile

from jaxsnn.errors import FileError, UsageError
from jaxsnn.files.sounds import read_sound
from jaxsnn.train.data.labelled_files import load_splits
from jaxsnn.train.data.utterances import BANDS, cochleagram, mel_filters
from tests.helpers.refusals import assert_refused

RATE = 8000


def tone(frequency, seconds=0.3, loudness=0.5):
    return loudness * np.sin(2 * np.pi * frequency * np.arange(int(seconds * RATE)) / RATE)


def record(folder, name, sound):
    wavfile.write(folder / name, RATE, (32767 * sound).astype(np.int16))


@pytest.fixture
def folder(tmp_path):
    for word, frequency in (("one", 300.0), ("two", 2000.0)):
        for number in (0, 4, 5, 6, 7, 8):
            record(tmp_path, f"{word}_anna_b_{number}.wav", tone(frequency * (1 + number / 100)))
    return tmp_path


def test_numbers_0_to_4_are_for_the_test(folder):
    splits, notes = load_splits(f"wav:{folder}", seed=0)
    assert splits.train.classes == ("one", "two")
    assert len(splits.train) + len(splits.validation) == 8
    assert np.bincount(splits.test.y).tolist() == [2, 2]
    assert notes == ()


def test_what_is_left_out_is_noted(folder):
    record(folder, "two_anna_b_9.wav", tone(300.0, seconds=2.0))
    record(folder, "noise.wav", tone(300.0))
    named, long = load_splits(f"wav:{folder}", seed=0)[1]
    assert (
        named == "recordings that are not named WORD_SPEAKER_NUMBER.wav and are left out: 1 of 14"
    )
    assert long == "recordings that are longer than 1.22 s and are cut: 1 of 14"


def test_a_tone_is_loudest_in_the_band_around_it():
    middles = np.argmax(mel_filters(2049, RATE), axis=1) * RATE / 2 / 2048
    for band in (3, 10, 20):
        loudness = cochleagram(tone(middles[band]), RATE)
        assert np.nanargmax(loudness[5]) == band
        assert loudness[5, band] == pytest.approx(1.0, abs=0.01)


def test_loudness_is_relative_and_over_at_the_end_of_the_sound():
    loud, soft = (cochleagram(tone(500.0, loudness=level), RATE) for level in (0.9, 0.09))
    assert np.allclose(loud, soft, equal_nan=True, atol=1e-6)
    frames = np.isfinite(loud[:, 0]).sum()
    assert frames == (int(0.3 * RATE) - 256) // 80 + 1
    assert loud.shape == (120, BANDS)


def test_a_tenth_of_the_amplitude_is_a_hundredth_of_the_power():
    both = np.concatenate([tone(500.0), tone(500.0, loudness=0.05)])
    loudness = np.nan_to_num(cochleagram(both, RATE)).max(axis=1)
    assert loudness[5] - loudness[45] == pytest.approx(2 / 6, abs=0.01)


def test_silence_and_the_shortest_sound_are_no_errors():
    assert np.nanmax(cochleagram(np.zeros(1000), RATE)) == 0
    assert np.isfinite(cochleagram(np.ones(3), RATE)[0]).all()


@pytest.mark.parametrize(
    ("samples", "scale", "expected", "tolerance"),
    [
        (np.stack([np.full(100, 0.5), np.zeros(100)], axis=1).astype(np.float32), 1, 0.25, 0),
        (np.rint(127 * tone(500.0) + 128).astype(np.uint8), 127, tone(500.0), 0.5 / 127),
    ],
    ids=["stereo, which is averaged", "8 bits"],
)
def test_sounds_are_read_as_numbers_around_0(samples, scale, expected, tolerance, tmp_path):
    wavfile.write(tmp_path / "a_b_0.wav", RATE, samples)
    sound = read_sound(tmp_path / "a_b_0.wav")
    assert (sound.rate, sound.count) == (RATE, len(samples))
    np.testing.assert_allclose(
        sound.samples / scale, np.broadcast_to(expected, len(samples)), atol=tolerance + 1e-8
    )


def replaced_by_a_pipe(path):
    path.unlink()
    os.mkfifo(path)


#: Change of a folder of recordings, the exception, and a pattern of its message.
REFUSED = {
    "no files": (shutil.rmtree, FileError, "is not a folder: download github"),
    "other names": (
        lambda folder: [path.rename(folder / path.stem) for path in folder.iterdir()],
        FileError,
        r"no files WORD_SPEAKER_NUMBER.*free-spoken-digit-dataset",
    ),
    "none for the test": (
        lambda folder: [path.unlink() for path in folder.iterdir() if "7" not in path.name],
        UsageError,
        "recordings with a number below 5, which are for the test: 0 of 2",
    ),
    "a damaged file": (
        lambda folder: (folder / "one_anna_b_0.wav").write_bytes(b"RIFF"),
        FileError,
        "one_anna_b_0.wav cannot be read as sound",
    ),
    "a pipe": (
        lambda folder: replaced_by_a_pipe(folder / "one_anna_b_0.wav"),
        FileError,
        "one_anna_b_0.wav is not a regular file",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_recordings_that_cannot_be_read_are_refused(case, folder):
    change, error, message = REFUSED[case]
    change(folder)
    assert_refused(lambda: load_splits(f"wav:{folder}"), error, message)
