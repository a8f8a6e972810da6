"""The 8x8 digits that scikit-learn ships: 1,797 images of ten classes (extra `data`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxsnn.errors import UsageError
from jaxsnn.network.spikes import Events
from jaxsnn.nir.initializers import Seed, generator_of, seed_words
from jaxsnn.train.data.datasets import Data, Splits, stratified, taken
from jaxsnn.train.data.encoders import Latency

_SIDE, _BRIGHTEST = 8, 16.0
_TEST, _VALIDATION = 0.2, 0.1
#: An image is over after so many time constants.
_INPUT_SPAN = 1.5


def digits_splits(seed: Seed = 0, *, copies: int = 1) -> Splits:
    """The digits, stratified: a fifth for the test, a tenth of the rest for validation.

    Values are brightness, (images, 64), from 0 to 1. The task's own encoder is `DarkAndBright`,
    with a last channel that spikes at the start.

    Args:
        seed: chooses the samples of each part, and draws the copies: a whole number or a
            `jax.random` key.
        copies: how many there are of each training image, all but the first shifted by up to half a
            pixel, turned by up to 10 degrees and scaled by up to 10 %.

    Raises:
        UsageError: scikit-learn is not installed.
    """
    images, labels = _load()
    words = seed_words(seed)
    test, rest = stratified(labels, _TEST, [*words, 0])
    validation, train = stratified(labels[rest], _VALIDATION, [*words, 1])
    everything = Data(x=images.reshape(len(images), -1), y=labels, classes=tuple("0123456789"))
    kept = rest[train]
    training = taken(everything, kept)
    if copies > 1:
        moved = distorted(np.repeat(images[kept], copies - 1, axis=0), [*words, 2])
        x = np.concatenate([training.x, moved.reshape(len(moved), -1)])
        training = Data(
            x=x,
            y=np.concatenate([training.y, np.repeat(training.y, copies - 1)]),
            classes=everything.classes,
        )
    return Splits(
        name="digits",
        train=training,
        validation=taken(everything, rest[validation]),
        test=taken(everything, test),
        encoder=lambda tau: DarkAndBright(
            t_min=0.0, t_max=_INPUT_SPAN * tau, bias=True, first="small"
        ),
    )


@dataclass(frozen=True, kw_only=True)
class DarkAndBright(Latency):
    """Latency of an image and of the inverted one, in 64 channels each.

    A pixel of brightness p (0 to 1) is a spike at 1 - p of the time for inputs, a dark one (p <
    1/32) none; in the inverted image all spike, at p.
    """

    def __call__(self, values: Any) -> Events:
        """Events of brightness (images, 64)."""
        return super().__call__(with_inverted(values))

    def channels(self, values: Any) -> int:
        """How many channels it makes of images (images, 64)."""
        return super().channels(with_inverted(values))


def with_inverted(images: Any) -> np.ndarray:
    """Values for a latency encoder, (images, 128), of brightness (images, 64): NaN where there is
    no spike.
    """
    bright = np.asarray(images).reshape(len(images), -1)
    return np.concatenate([np.where(bright < 1 / 32, np.nan, 1 - bright), bright], axis=1)


def distorted(images: np.ndarray, seed: Seed) -> np.ndarray:
    """Images (images, 8, 8) shifted, turned and scaled at random, bilinear, dark outside."""
    generator = generator_of(seed)
    count = len(images)
    shift = generator.uniform(-0.5, 0.5, (count, 2, 1, 1))
    angle = np.deg2rad(generator.uniform(-10.0, 10.0, (count, 1, 1)))
    scale = generator.uniform(0.9, 1.1, (count, 1, 1))
    middle = (_SIDE - 1) / 2
    y, x = np.mgrid[:_SIDE, :_SIDE] - middle
    from_y = (np.cos(angle) * y - np.sin(angle) * x) / scale + middle + shift[:, 0]
    from_x = (np.sin(angle) * y + np.cos(angle) * x) / scale + middle + shift[:, 1]
    padded = np.pad(images, ((0, 0), (2, 2), (2, 2)))
    from_y, from_x = (np.clip(place + 2, 0.0, _SIDE + 2.999) for place in (from_y, from_x))
    row, column = from_y.astype(int), from_x.astype(int)
    down, right = from_y - row, from_x - column
    image = np.arange(count)[:, None, None]
    upper = padded[image, row, column] * (1 - right) + padded[image, row, column + 1] * right
    lower = (
        padded[image, row + 1, column] * (1 - right) + padded[image, row + 1, column + 1] * right
    )
    return upper * (1 - down) + lower * down


def _load() -> tuple[np.ndarray, np.ndarray]:
    try:
        from sklearn.datasets import load_digits  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise UsageError("the digits need scikit-learn", fix="pip install scikit-learn") from error
    images, labels = load_digits(return_X_y=True)
    return images.reshape(-1, _SIDE, _SIDE) / _BRIGHTEST, labels.astype(np.int32)
