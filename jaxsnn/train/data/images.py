"""MNIST and Fashion-MNIST: 60,000 and 10,000 images of 28 x 28 pixels in ten classes."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np

from jaxsnn.errors import FileError, UsageError
from jaxsnn.nir.initializers import Seed, seed_words
from jaxsnn.options import DATA_FOLDER
from jaxsnn.train.data.datasets import Data, Splits, stratified, taken
from jaxsnn.train.data.image_files import read_images
from jaxsnn.wording import Text

_BRIGHTEST = 255
#: Part of the training images that is held out for validation: 5,000 of 60,000.
_VALIDATION = 1 / 12
#: Where Debian's package has Fashion-MNIST.
_FASHION = "/usr/share/datasets/fashion-mnist"
_GARMENTS = (
    *("T-shirt", "trouser", "pullover", "dress", "coat"),
    *("sandal", "shirt", "sneaker", "bag", "ankle boot"),
)


def mnist_splits(
    seed: Seed = 0, *, folder: str | os.PathLike[str] | None = None, side: int | None = None
) -> Splits:
    """MNIST (LeCun, Cortes and Burges, 1998) with its own test set; pixels from 0 to 1.

    Args:
        seed: chooses the training images that are held out for validation, a twelfth of each class: a
            whole number or a `jax.random` key.
        folder: of its idx files, plain or gzipped, or of PNG files in folders `train/LABEL` and
            `test/LABEL`.
        side: make the images side x side pixels, by the mean of the area that each covers.

    Raises:
        FileError: there is no MNIST in the folder.
        UsageError: no folder.
    """
    where = "the idx files, or the PNG folders of github.com/rasbt/mnist-pngs"
    return _splits("mnist", tuple("0123456789"), seed, _named(folder, "mnist", where), where, side)


def fashion_mnist_splits(
    seed: Seed = 0, *, folder: str | os.PathLike[str] | None = None, side: int | None = None
) -> Splits:
    """Fashion-MNIST (Xiao, Rasul and Vollgraf, 2017) with its own test set; as `mnist_splits`, but
    that the folder is by default that of Debian's package `dataset-fashion-mnist`.
    """
    where = "Debian's dataset-fashion-mnist, or github.com/zalandoresearch/fashion-mnist"
    if folder is None and os.path.isdir(_FASHION):
        folder = _FASHION
    return _splits(
        "fashion-mnist", _GARMENTS, seed, _named(folder, "fashion-mnist", where), where, side
    )


def _named(folder: str | os.PathLike[str] | None, name: str, where: str) -> str:
    if folder is None:
        raise UsageError(
            f"{name} needs a folder with its files",
            fix=Text(
                "get {files}, and name the folder, {data_folder}",
                files=where,
                data_folder=DATA_FOLDER.set_to("DIR"),
            ),
        )
    return os.fspath(folder)


def _splits(
    name: str, classes: Sequence[str], seed: Seed, folder: str, where: str, side: int | None
) -> Splits:
    parts = {}
    for part in ("train", "test"):
        found = read_images(folder, part)
        if found is None:
            raise FileError(f"{folder} holds no {part} images of {name}", fix=f"get {where}")
        images, labels = found
        parts[part] = Data(x=_bright(images, side), y=labels, classes=tuple(classes))
    held, kept = stratified(parts["train"].y, _VALIDATION, [*seed_words(seed), 0])
    train = parts["train"]
    return Splits(
        name=name, train=taken(train, kept), validation=taken(train, held), test=parts["test"]
    )


def _bright(images: np.ndarray, side: int | None) -> np.ndarray:
    """Brightness from 0 to 1, (samples, rows, columns) float32."""
    bright = images.astype(np.float32) / np.float32(_BRIGHTEST)
    if side is None:
        return bright
    if not 1 <= side <= min(bright.shape[1:]):
        raise UsageError(
            f"side is {side}, and the images are {bright.shape[1]} x {bright.shape[2]}",
            fix="give a smaller side",
        )
    rows, columns = (_areas(size, side) for size in bright.shape[1:])
    means = np.einsum("ir,nrc,jc->nij", rows, bright, columns, optimize=True)
    return np.minimum(means, 1)  # rounding can lift the mean of white pixels above 1


def _areas(size: int, side: int) -> np.ndarray:
    """What each of `size` pixels gives to each of `side` larger ones, (side, size) float32; rows add
    up to 1.

    >>> _areas(3, 2).tolist()
    [[0.6666666865348816, 0.3333333432674408, 0.0], [0.0, 0.3333333432674408, 0.6666666865348816]]
    """
    edges = np.linspace(0, size, side + 1)
    begin, end = (
        np.maximum.outer(edges[:-1], np.arange(size)),
        np.minimum.outer(edges[1:], np.arange(1, size + 1)),
    )
    return (np.maximum(end - begin, 0) * side / size).astype(np.float32)
