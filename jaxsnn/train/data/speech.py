"""Spoken words from .wav files, through a cochlea of mel filters (extra `data`)."""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np

from jaxsnn.errors import FileError, Note, UsageError
from jaxsnn.nir.initializers import Seed, seed_words
from jaxsnn.output import refuse_unreadable
from jaxsnn.train.data.datasets import Data, Splits, stratified, taken
from jaxsnn.train.data.encoders import LevelCrossing

#: Of a frame, and from one to the next, seconds.
_WINDOW, _HOP = 0.032, 0.010
#: Filters, between these frequencies, Hz.
BANDS = 24
_LOWEST, _HIGHEST = 60.0, 3800.0
#: What is so much weaker than the loudest band of a recording is silence, in powers of ten.
_RANGE = 6.0
#: Frames that a recording may have: 1.2 seconds; the rest is left out.
_MOST_FRAMES = 120
#: Loudness, from 0 to 1, at which a channel spikes; and the length of a frame in tau.
_LEVELS, _FRAME = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9), 0.25
#: Recordings 0 to 4 of each speaker and word are for the test.
_TESTED = 5
_VALIDATION = 0.1
_NAME = re.compile(r"(?P<word>[^_]+)_(?P<speaker>.+)_(?P<number>\d+)\.wav")


def spoken_splits(
    seed: Seed = 0, *, folder: str | os.PathLike[str], held_out: float = _VALIDATION
) -> tuple[Splits, tuple[str, ...]]:
    """Recordings `WORD_SPEAKER_NUMBER.wav`, as the Free Spoken Digit Dataset has them, with its own
    split: numbers 0 to 4 are for the test.

    The loudness of each of 24 mel bands, in frames 10 ms apart, is a signal from 0 (a millionth of
    the loudest frame's power, or less) to 1; NaN after the end. It spikes by level crossing
    (`jaxsnn.train.LevelCrossing`), a frame being a quarter of tau.

    Args:
        seed: chooses the training recordings that are held out for validation: a whole number or a
            `jax.random` key.
        folder: of the files.
        held_out: fraction of the training recordings of each word.

    Returns:
        The recordings, and notes on what was left out.

    Raises:
        FileError: no such files, or one that cannot be read.
        UsageError: scipy is not installed, or nothing is left for training or the test.
    """
    names = sorted(path.name for path in Path(folder).glob("*.wav"))
    found = [entry for name in names if (entry := _NAME.fullmatch(name))]
    if not found:
        what = "has no files WORD_SPEAKER_NUMBER.wav" if Path(folder).is_dir() else "is no folder"
        raise FileError(
            f"{folder} {what}",
            fix="get github.com/Jakobovski/free-spoken-digit-dataset, and name its recordings",
        )
    words = sorted({entry["word"] for entry in found})
    labels = np.asarray([words.index(entry["word"]) for entry in found], np.int32)
    tested = np.asarray([int(entry["number"]) < _TESTED for entry in found])
    if tested.all() or not tested.any():
        raise UsageError(
            f"{folder}: {tested.sum()} of {len(found)} recordings have a number under {_TESTED}",
            fix="number those for the test 0 to 4, the others from 5 on",
        )
    sounds = [read_wav(Path(folder) / entry.string) for entry in found]
    x = np.stack([cochleagram(*sound) for sound in sounds])
    longest = _WINDOW + (_MOST_FRAMES - 1) * _HOP
    left_out = {
        "are named otherwise than WORD_SPEAKER_NUMBER.wav, and are left out": len(names)
        - len(found),
        f"are longer than {longest:.2f} s, and their rest is left out": sum(
            len(sound) > longest * rate for sound, rate in sounds
        ),
    }
    notes = [
        Note(f"{n} of {len(names)} recordings {what}", kind="dropped", code="left-out")
        for what, n in left_out.items()
        if n
    ]
    everything = Data(x=x, y=labels, classes=tuple(words))
    rest = taken(everything, np.flatnonzero(np.logical_not(tested)))
    held, kept = stratified(rest.y, held_out, [*seed_words(seed), 0])
    splits = Splits(
        name="wav",
        train=taken(rest, kept),
        validation=taken(rest, held),
        test=taken(everything, np.flatnonzero(tested)),
        encoder=lambda tau: LevelCrossing(levels=_LEVELS, frame=_FRAME * tau),
        span=_FRAME * _MOST_FRAMES + 2.0,
    )
    return splits, tuple(notes)


def read_wav(path: str | os.PathLike[str]) -> tuple[np.ndarray, int]:
    """The sound of a file, (samples,) float, the mean of its channels; and samples per second."""
    try:
        from scipy.io import wavfile
    except ImportError as error:
        raise UsageError(f"{path} needs scipy to be read", fix="pip install scipy") from error
    refuse_unreadable(path, "a .wav file")
    try:
        rate, sound = wavfile.read(path)
    except Exception as error:  # what a broken file raises is not documented
        raise FileError(
            f"{path} is no sound that can be read ({error})", fix="get it again"
        ) from error
    rest = 128 if sound.dtype == np.uint8 else 0  # samples of 8 bits have no sign
    return np.asarray(sound, float).reshape(len(sound), -1).mean(axis=1) - rest, int(rate)


def cochleagram(sound: np.ndarray, rate: int) -> np.ndarray:
    """The loudness of mel bands, (120 frames, 24 bands) float32, from 0 to 1; NaN after the end.

    The powers of a frame's spectrum (Hann window of 32 ms) are added up by triangles, evenly spaced
    on the mel scale; the loudness is their logarithm, 1 for the loudest frame and band.

    Args:
        sound: (samples,).
        rate: samples per second.
    """
    window, hop = round(_WINDOW * rate), round(_HOP * rate)
    padded = np.pad(sound, (0, max(window - len(sound), 0)))
    frames = np.lib.stride_tricks.sliding_window_view(padded, window)[::hop][:_MOST_FRAMES]
    power = np.abs(np.fft.rfft(frames * np.hanning(window), axis=1)) ** 2
    bands = power @ mel_filters(power.shape[1], rate).T
    loudest = bands.max(initial=0.0)
    with np.errstate(divide="ignore"):
        loudness = 1 + np.log10(bands / loudest) / _RANGE if loudest else np.zeros_like(bands)
    found = np.full((_MOST_FRAMES, BANDS), np.nan, np.float32)
    found[: len(bands)] = np.clip(loudness, 0.0, 1.0)
    return found


def mel_filters(bins: int, rate: int) -> np.ndarray:
    """Triangles over the bins of a spectrum, (24, bins), each 1 in its middle and 0 at those of its
    neighbours.

    Source: m = 2595 log10(1 + f / 700), O'Shaughnessy, "Speech communication", 1987.
    """
    lowest, highest = (2595 * np.log10(1 + f / 700) for f in (_LOWEST, _HIGHEST))
    mel = np.linspace(lowest, highest, BANDS + 2)
    edges = 700 * (10 ** (mel / 2595) - 1)
    frequency = np.linspace(0, rate / 2, bins)
    low, middle, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    rising, falling = (frequency - low) / (middle - low), (high - frequency) / (high - middle)
    return np.maximum(np.minimum(rising, falling), 0.0)
