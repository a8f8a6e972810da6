"""Utterances: JapaneseVowels and spoken words.

JapaneseVowels (Kudo, Toyama and Shimbo, 1999) has nine speakers, 12 channels, and 7 to 29 frames per
utterance. The data are part of the package `aeon`: it must be installed, or its folder
`datasets/data/JapaneseVowels` specified. Spoken words come from .wav files, through a cochlea of mel
filters (extra `data`).
"""

from __future__ import annotations

import os
import re
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from jaxsnn.errors import FileError, Note, UsageError
from jaxsnn.files.opening import read_text
from jaxsnn.files.read_limits import ByteBudget
from jaxsnn.files.sounds import read_sound
from jaxsnn.keywords import suggests_keywords
from jaxsnn.nir.initializers import Seed, generator_of, seed_words
from jaxsnn.options import DATA_FOLDER
from jaxsnn.train.data.datasets import Data, Splits, select_samples, stratified
from jaxsnn.train.data.encoders import LevelCrossing, PopulationCode
from jaxsnn.wording import Text

#: Length of the longest utterance, frames.
FRAMES = 29
#: Labels of the speakers, number of channels, and bytes of an utterance in double precision.
_SPEAKERS, _CHANNELS = tuple("123456789"), 12
_BYTES = FRAMES * _CHANNELS * 8
#: Length of a frame of a signal in tau, and centres of the population code for values of
#: JapaneseVowels.
_FRAME, _CENTRES = 0.25, (-1.5, -0.9, -0.3, 0.3, 0.9, 1.5)
_VALIDATION = 0.2
#: Standard deviations of the noise of standardised values: of each value, and common to all values
#: of a channel.
_NOISE, _CHANNEL_NOISE = 0.5, 0.25
#: Maximum change of the length of a copy, as a power of e, and minimum number of its frames.
_STRETCH, _FEWEST_FRAMES = 0.25, 5


@suggests_keywords
def japanese_vowels_splits(
    seed: Seed = 0,
    *,
    folder: str | os.PathLike[str] | None = None,
    copies: int = 1,
    held_out: float = _VALIDATION,
) -> Splits:
    """Return JapaneseVowels with its official test set; values standardised by the training set,
    NaN after an utterance's end.

    In each frame the nearest of six centres of each channel fires (`jaxsnn.train.PopulationCode`):
    72 channels.

    Args:
        seed: random seed of the training utterances that are held out for validation, and of the
            noise of the copies: an integer or a `jax.random` key.
        folder: folder of JapaneseVowels_TRAIN.ts and JapaneseVowels_TEST.ts; None: that of the
            installed `aeon`.
        copies: number of copies of each training utterance, all but the first with noise and
            stretched in time.
        held_out: fraction of the training utterances of each speaker that is held out.

    Raises:
        UsageError: no folder is specified, and aeon is not installed.
        FileError: the files do not exist, or have another format.
    """
    if folder is None:
        aeon = find_spec("aeon")  # without importing it
        if aeon is None or not aeon.submodule_search_locations:
            raise UsageError(
                "JapaneseVowels requires the data of aeon, which is not installed",
                fix=Text(
                    "pip install aeon, or pass {data_folder}",
                    data_folder=DATA_FOLDER.set_to("DIR"),
                ),
            )
        package = Path(next(iter(aeon.submodule_search_locations)))
        folder = package / "datasets" / "data" / "JapaneseVowels"
    (values, labels), (test_values, test_labels) = (
        read_ts(Path(folder) / f"JapaneseVowels_{part}.ts") for part in ("TRAIN", "TEST")
    )
    mean, deviation = np.nanmean(values, axis=(0, 1)), np.nanstd(values, axis=(0, 1))
    classes = _SPEAKERS
    everything = Data(x=(values - mean) / deviation, y=labels, classes=classes)
    validation, train = stratified(labels, held_out, [*seed_words(seed), 0])
    training = select_samples(everything, train)
    if copies > 1:
        generator = generator_of([*seed_words(seed), 1])
        x = np.repeat(training.x, copies - 1, axis=0)
        x = (
            x
            + _NOISE * generator.normal(size=x.shape)
            + _CHANNEL_NOISE * generator.normal(size=(len(x), 1, x.shape[2]))
        )
        generator = generator_of([*seed_words(seed), 9])
        longer = np.exp(generator.uniform(-_STRETCH, _STRETCH, len(x)))
        x = np.stack([_stretched(*pair) for pair in zip(x, longer, strict=True)])
        y = np.concatenate([training.y, np.repeat(training.y, copies - 1)])
        training = Data(x=np.concatenate([training.x, x]), y=y, classes=classes)
    return Splits(
        name="japanese-vowels",
        train=training,
        validation=select_samples(everything, validation),
        test=Data(x=(test_values - mean) / deviation, y=test_labels, classes=classes),
        encoder=lambda tau: PopulationCode(centres=_CENTRES, frame=_FRAME * tau),
        span=_FRAME * FRAMES + 2.0,
    )


def _stretched(utterance: np.ndarray, factor: float) -> np.ndarray:
    """Return an utterance (29, channels) stretched in time by a factor, with linear interpolation and
    at most 29 frames.
    """
    length = int(np.isfinite(utterance[:, 0]).sum())
    frames = int(np.clip(round(length * factor), _FEWEST_FRAMES, FRAMES))
    stretched, at = np.full_like(utterance, np.nan), np.linspace(0, length - 1, frames)
    for channel in range(utterance.shape[1]):
        stretched[:frames, channel] = np.interp(at, np.arange(length), utterance[:length, channel])
    return stretched


def read_ts(path: str | os.PathLike[str]) -> tuple[np.ndarray, np.ndarray]:
    """Read values (samples, 29, 12), NaN after the end of an utterance, and labels (samples,) from
    0, of a .ts file.

    Raises:
        FileError: the file cannot be read, or a line is not an utterance.
    """
    budget = ByteBudget(path)
    lines = read_text(path, "a .ts file").splitlines()
    values, labels = [], []
    data = next(
        (number for number, line in enumerate(lines) if line.strip().lower() == "@data"), len(lines)
    )
    # The utterances, and their copy in one array.
    budget.take("its utterances", 2 * _BYTES * max(len(lines) - data - 1, 0))
    for number, line in enumerate(lines[data + 1 :], data + 2):
        budget.refuse_late()
        *channels, label = line.split(":", _CHANNELS + 1)
        frames = max((channel.count(",") + 1 for channel in channels), default=0)
        if len(channels) != _CHANNELS or frames > FRAMES:
            raise FileError(
                Text(
                    "{path}, line {line}: {count} channels of up to {frames} frames",
                    path=path,
                    line=number,
                    count=len(channels),
                    frames=frames,
                ),
                fix=f"write {_CHANNELS} channels of up to {FRAMES} frames",
            )
        try:
            signals = np.array(
                [[float(value) for value in channel.split(",")] for channel in channels]
            )
        except ValueError as error:
            raise FileError(
                Text(
                    "{path}, line {line}: {reason}", path=path, line=number, reason=str(error)[:100]
                ),
                fix="write channels of numbers, followed by a label",
            ) from error
        if label.strip() not in _SPEAKERS:
            raise FileError(
                Text(
                    "{path}, line {line}: the label is '{label}'",
                    path=path,
                    line=number,
                    label=label[:40],
                ),
                fix=f"write the number of a speaker, from {_SPEAKERS[0]} to {_SPEAKERS[-1]}",
            )
        labels.append(_SPEAKERS.index(label.strip()))
        if (wrong := ~(np.abs(signals) <= np.finfo(np.float32).max)).any():
            channel, frame = (int(axis) for axis in np.argwhere(wrong)[0])
            raise FileError(
                Text(
                    "{path}, line {line}: channel {channel} has {value} in frame {frame}",
                    path=path,
                    line=number,
                    channel=channel,
                    value=signals[channel, frame],
                    frame=frame,
                ),
                fix="write finite numbers",
            )
        values.append(
            np.pad(signals.T, ((0, FRAMES - signals.shape[1]), (0, 0)), constant_values=np.nan)
        )
    if not values:
        raise FileError(
            Text("{path} contains no data", path=path), fix="pass a .ts file with a line @data"
        )
    return np.stack(values), np.asarray(labels, np.int32)


#: Length of a frame, and distance of two frames, seconds.
_WINDOW, _HOP = 0.032, 0.010
#: Number of filters, and their lowest and highest frequencies, Hz.
BANDS = 24
_LOWEST, _HIGHEST = 60.0, 3800.0
#: Powers of ten below the loudest band of a recording that count as silence.
_RANGE = 6.0
#: Maximum number of frames of a recording, 1.2 seconds; the rest is omitted.
_MOST_FRAMES = 120
#: Loudness, from 0 to 1, at which each neuron of a band spikes.
_LEVELS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
#: Number of recordings of each speaker and word for the test: the first, from 0 on.
_TESTED = 5
_HELD_OUT_WORDS = 0.1
_NAME = re.compile(r"(?P<word>[^_]+)_(?P<speaker>.+)_(?P<number>\d+)\.wav")


def spoken_splits(
    seed: Seed = 0, *, folder: str | os.PathLike[str], held_out: float = _HELD_OUT_WORDS
) -> tuple[Splits, tuple[str, ...]]:
    """Return recordings `WORD_SPEAKER_NUMBER.wav`, named as in the Free Spoken Digit Dataset, with
    the official split of that data set: numbers 0 to 4 are for the test.

    The loudness of each of 24 mel bands, in frames 10 ms apart, is a signal from 0 (a millionth of
    the loudest frame's power, or less) to 1; NaN after the end. Signals are encoded by level crossing
    (`jaxsnn.train.LevelCrossing`), in frames of a quarter of tau.

    Args:
        seed: random seed of the training recordings that are held out for validation: an integer
            or a `jax.random` key.
        folder: folder of the files.
        held_out: fraction of the training recordings of each word that is held out.

    Returns:
        The recordings, and notes on what was left out.

    Raises:
        FileError: no such files, or a file that cannot be read.
        UsageError: there are no recordings for training or the test.
    """
    file_names = sorted(path.name for path in Path(folder).glob("*.wav"))
    recordings = [entry for name in file_names if (entry := _NAME.fullmatch(name))]
    if not recordings:
        reason = (
            "contains no files WORD_SPEAKER_NUMBER.wav"
            if Path(folder).is_dir()
            else "is not a folder"
        )
        raise FileError(
            Text("{path} {reason}", path=folder, reason=reason),
            fix="download github.com/Jakobovski/free-spoken-digit-dataset, and pass its folder of "
            "recordings",
        )
    words = sorted({entry["word"] for entry in recordings})
    labels = np.asarray([words.index(entry["word"]) for entry in recordings], np.int32)
    tested = np.asarray([int(entry["number"]) < _TESTED for entry in recordings])
    if tested.all() or not tested.any():
        raise UsageError(
            Text(
                "{path}: recordings with a number below {limit}, which are for the test: {count} of "
                "{recordings}",
                path=folder,
                count=tested.sum(),
                recordings=len(recordings),
                limit=_TESTED,
            ),
            fix="number recordings for the test from 0 to 4, and for training from 5",
        )
    longest = _WINDOW + (_MOST_FRAMES - 1) * _HOP
    budget = ByteBudget(folder)
    budget.take("the loudness of its recordings", len(recordings) * _MOST_FRAMES * BANDS * 4)
    x = np.empty((len(recordings), _MOST_FRAMES, BANDS), np.float32)
    cut = 0
    for number, entry in enumerate(recordings):
        budget.refuse_late()
        sound = read_sound(Path(folder) / entry.string, duration=2 * longest)
        x[number] = cochleagram(sound.samples, sound.rate)
        cut += sound.count > longest * sound.rate
    left_out = {
        "are not named WORD_SPEAKER_NUMBER.wav and are left out": len(file_names) - len(recordings),
        Text("are longer than {duration:.2f} s and are cut", duration=longest): cut,
    }
    notes = [
        Note(
            Text(
                "recordings that {reason}: {count} of {recordings}",
                count=n,
                recordings=len(file_names),
                reason=reason,
            ),
            kind="dropped",
            code="left-out",
        )
        for reason, n in left_out.items()
        if n
    ]
    everything = Data(x=x, y=labels, classes=tuple(words))
    rest = select_samples(everything, np.flatnonzero(np.logical_not(tested)))
    validation_index, train_index = stratified(rest.y, held_out, [*seed_words(seed), 0])
    splits = Splits(
        name="wav",
        train=select_samples(rest, train_index),
        validation=select_samples(rest, validation_index),
        test=select_samples(everything, np.flatnonzero(tested)),
        encoder=lambda tau: LevelCrossing(levels=_LEVELS, frame=_FRAME * tau),
        span=_FRAME * _MOST_FRAMES + 2.0,
    )
    return splits, tuple(notes)


def cochleagram(sound: np.ndarray, rate: int) -> np.ndarray:
    """Return the loudness of mel bands, (120 frames, 24 bands) float32, from 0 to 1; NaN after the
    end.

    The power spectrum of a frame (Hann window of 32 ms) is summed with triangular weights, which are
    evenly spaced on the mel scale; the loudness is the logarithm of the sums, scaled to 1 for the
    loudest frame and band.

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
    padded_loudness = np.full((_MOST_FRAMES, BANDS), np.nan, np.float32)
    padded_loudness[: len(bands)] = np.clip(loudness, 0.0, 1.0)
    return padded_loudness


def mel_filters(bins: int, rate: int) -> np.ndarray:
    """Return triangles over the bins of a spectrum, (24, bins), each 1 in its middle and 0 at the
    middles of its neighbours.

    Source: m = 2595 log10(1 + f / 700), O'Shaughnessy, "Speech communication", 1987.
    """
    lowest, highest = (2595 * np.log10(1 + f / 700) for f in (_LOWEST, _HIGHEST))
    mel = np.linspace(lowest, highest, BANDS + 2)
    edges = 700 * (10 ** (mel / 2595) - 1)
    frequency = np.linspace(0, rate / 2, bins)
    low, middle, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    rising, falling = (frequency - low) / (middle - low), (high - frequency) / (high - middle)
    return np.maximum(np.minimum(rising, falling), 0.0)
