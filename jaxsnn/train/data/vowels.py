"""JapaneseVowels: nine speakers, 12 channels, 7 to 29 frames (Kudo, Toyama and Shimbo, 1999).

The data are in the wheel of `aeon`: either that is installed, or its folder
`datasets/data/JapaneseVowels` is named.
"""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from jaxsnn.errors import FileError, UsageError
from jaxsnn.nir.initializers import Seed, generator_of, seed_words
from jaxsnn.nir.io.read_limits import read_text
from jaxsnn.options import DATA_FOLDER
from jaxsnn.train.data.datasets import Data, Splits, stratified, taken
from jaxsnn.train.data.encoders import PopulationCode
from jaxsnn.wording import Text

#: Longest utterance, frames.
FRAMES = 29
_FRAME, _CENTRES = 0.25, (-1.5, -0.9, -0.3, 0.3, 0.9, 1.5)
_VALIDATION = 0.2
#: Of standardised values: what is added to each value, and to all values of a channel.
_NOISE, _CHANNEL_NOISE = 0.5, 0.25
#: A copy lasts up to e^0.25 times as long as the utterance, or as short, but not under so many
#: frames.
_STRETCH, _FEWEST_FRAMES = 0.25, 5


def japanese_vowels_splits(
    seed: Seed = 0,
    *,
    folder: str | os.PathLike[str] | None = None,
    copies: int = 1,
    held_out: float = _VALIDATION,
) -> Splits:
    """JapaneseVowels with its official test set; values standardised by the training set, NaN after
    an utterance's end.

    In each frame the nearest of six centres of each channel fires (`jaxsnn.train.PopulationCode`):
    72 channels.

    Args:
        seed: chooses the training utterances that are held out for validation, and draws the noise
            of the copies: a whole number or a `jax.random` key.
        folder: of JapaneseVowels_TRAIN.ts and JapaneseVowels_TEST.ts; None: that of the installed
            `aeon`.
        copies: of each training utterance, all but the first with noise, and stretched in time.
        held_out: fraction of the training utterances of each speaker.

    Raises:
        UsageError: no folder is given, and aeon is not installed.
        FileError: the files are not there, or are of another format.
    """
    place = _folder() if folder is None else Path(folder)
    (values, labels), (test_values, test_labels) = (
        read_ts(place / f"JapaneseVowels_{part}.ts") for part in ("TRAIN", "TEST")
    )
    mean, deviation = np.nanmean(values, axis=(0, 1)), np.nanstd(values, axis=(0, 1))
    classes = tuple(str(speaker) for speaker in range(1, 10))
    everything = Data(x=(values - mean) / deviation, y=labels, classes=classes)
    validation, train = stratified(labels, held_out, [*seed_words(seed), 0])
    training = taken(everything, train)
    if copies > 1:
        generator = generator_of([*seed_words(seed), 1])
        x = np.repeat(training.x, copies - 1, axis=0)
        x = (
            x
            + _NOISE * generator.normal(size=x.shape)
            + _CHANNEL_NOISE * generator.normal(size=(len(x), 1, x.shape[2]))
        )
        x = np.stack(
            [
                _stretched(utterance, factor)
                for utterance, factor in zip(x, _factors(len(x), seed), strict=True)
            ]
        )
        y = np.concatenate([training.y, np.repeat(training.y, copies - 1)])
        training = Data(x=np.concatenate([training.x, x]), y=y, classes=classes)
    return Splits(
        name="japanese-vowels",
        train=training,
        validation=taken(everything, validation),
        test=Data(x=(test_values - mean) / deviation, y=test_labels, classes=classes),
        encoder=lambda tau: PopulationCode(centres=_CENTRES, frame=_FRAME * tau),
        span=_FRAME * FRAMES + 2.0,
    )


def _factors(count: int, seed: Seed) -> np.ndarray:
    """How much longer each of some copies is."""
    generator = generator_of([*seed_words(seed), 9])
    return np.exp(generator.uniform(-_STRETCH, _STRETCH, count))


def _stretched(utterance: np.ndarray, factor: float) -> np.ndarray:
    """An utterance (29, channels) that lasts longer by a factor, as far as there are frames;
    interpolated linearly.
    """
    length = int(np.isfinite(utterance[:, 0]).sum())
    frames = int(np.clip(round(length * factor), _FEWEST_FRAMES, FRAMES))
    found, at = np.full_like(utterance, np.nan), np.linspace(0, length - 1, frames)
    for channel in range(utterance.shape[1]):
        found[:frames, channel] = np.interp(at, np.arange(length), utterance[:length, channel])
    return found


def read_ts(path: str | os.PathLike[str]) -> tuple[np.ndarray, np.ndarray]:
    """Values (samples, 29, 12), NaN where an utterance is over, and labels (samples,) from 0, of a
    .ts file.

    Raises:
        FileError: it cannot be read, or a line is no utterance.
    """
    lines = read_text(path, "a .ts file").splitlines()
    values, labels = [], []
    data = next(
        (number for number, line in enumerate(lines) if line.strip().lower() == "@data"), len(lines)
    )
    for number, line in enumerate(lines[data + 1 :], data + 2):
        *channels, label = line.split(":")
        try:
            signals = np.array(
                [[float(value) for value in channel.split(",")] for channel in channels]
            )
            labels.append(int(label) - 1)
        except ValueError as error:
            raise FileError(
                f"{path}, line {number}: {error}",
                fix="write channels of numbers, then a label",
            ) from error
        if signals.shape[0] != 12 or signals.shape[1] > FRAMES:
            raise FileError(
                f"{path}, line {number}: {signals.shape} values",
                fix=f"write 12 channels of up to {FRAMES} frames",
            )
        values.append(
            np.pad(signals.T, ((0, FRAMES - signals.shape[1]), (0, 0)), constant_values=np.nan)
        )
    if not values:
        raise FileError(f"{path} holds no data", fix="name a .ts file with a line @data")
    return np.stack(values), np.asarray(labels, np.int32)


def _folder() -> Path:
    """The data of the installed aeon, which is not imported."""
    found = find_spec("aeon")
    if found is None or not found.submodule_search_locations:
        raise UsageError(
            "JapaneseVowels needs the data of aeon",
            fix=Text(
                "pip install aeon, or name their folder, {data_folder}",
                data_folder=DATA_FOLDER.set_to("DIR"),
            ),
        )
    return (
        Path(next(iter(found.submodule_search_locations))) / "datasets" / "data" / "JapaneseVowels"
    )
