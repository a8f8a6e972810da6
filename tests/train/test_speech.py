"""Recordings, which the tests write, through the cochlea."""

import os

import numpy as np
import pytest
from scipy.io import wavfile

from jaxsnn.errors import FileError, UsageError
from jaxsnn.train.data.labelled_files import load_splits
from jaxsnn.train.data.utterances import BANDS, cochleagram, mel_filters, read_wav

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
    splits, _ = load_splits(f"wav:{folder}", seed=0)
    assert splits.train.classes == ("one", "two")
    assert len(splits.test) == 4
    assert len(splits.train) + len(splits.validation) == 8
    assert np.bincount(splits.test.y).tolist() == [2, 2]


def test_what_is_left_out_is_said(folder):
    assert load_splits(f"wav:{folder}", seed=0)[1] == ()
    record(folder, "two_anna_b_9.wav", tone(300.0, seconds=2.0))
    record(folder, "noise.wav", tone(300.0))
    named, long = load_splits(f"wav:{folder}", seed=0)[1]
    assert named.startswith("1 of 14 recordings are named otherwise")
    assert long == "1 of 14 recordings are longer than 1.22 s, and their rest is left out"


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
    loudness = cochleagram(both, RATE).max(
        axis=1, where=~np.isnan(cochleagram(both, RATE)), initial=0
    )
    assert loudness[5] - loudness[45] == pytest.approx(2 / 6, abs=0.01)


def test_silence_and_the_shortest_sound_are_no_errors():
    assert np.nanmax(cochleagram(np.zeros(1000), RATE)) == 0
    assert np.isfinite(cochleagram(np.ones(3), RATE)[0]).all()


def test_channels_of_a_sound_are_averaged(tmp_path):
    stereo = np.stack([np.full(100, 0.5), np.zeros(100)], axis=1).astype(np.float32)
    wavfile.write(tmp_path / "a_b_0.wav", RATE, stereo)
    sound, rate = read_wav(tmp_path / "a_b_0.wav")
    assert rate == RATE
    assert np.allclose(sound, 0.25)


def test_sounds_of_8_bits_are_those_of_16(tmp_path):
    folder, sound = tmp_path, tone(500.0)
    wavfile.write(folder / "a_b_0.wav", RATE, np.rint(127 * sound + 128).astype(np.uint8))
    assert np.allclose(read_wav(folder / "a_b_0.wav")[0] / 127, sound, atol=0.5 / 127)


def test_who_has_no_recordings_is_told_where_to_get_them(tmp_path, folder):
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(FileError, match=r"no files WORD_SPEAKER_NUMBER.*free-spoken-digit-dataset"):
        load_splits(f"wav:{empty}")
    with pytest.raises(FileError, match="nowhere is no folder: get github"):
        load_splits(f"wav:{tmp_path / 'nowhere'}")
    record(empty, "one_anna_7.wav", tone(300.0))
    with pytest.raises(UsageError, match="0 of 1 recordings have a number under 5"):
        load_splits(f"wav:{empty}")
    (folder / "one_anna_b_0.wav").write_bytes(b"RIFF")
    with pytest.raises(FileError, match="cannot be read as sound"):
        load_splits(f"wav:{folder}")
    (folder / "one_anna_b_0.wav").unlink()
    os.mkfifo(folder / "one_anna_b_0.wav")
    with pytest.raises(FileError, match="not a regular file"):
        load_splits(f"wav:{folder}")
