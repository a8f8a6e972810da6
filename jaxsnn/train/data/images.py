"""Images with labels: MNIST and Fashion-MNIST from idx or PNG files, and the 8x8 digits that
scikit-learn ships (extra `data`).
"""

from __future__ import annotations

import math
import os
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jaxsnn.errors import FileError, UsageError
from jaxsnn.files.bounded_streams import GZIP, BoundedStream
from jaxsnn.files.opening import open_input, size_of
from jaxsnn.files.png_images import read_pngs
from jaxsnn.files.read_limits import ByteBudget
from jaxsnn.keywords import suggests_keywords
from jaxsnn.network.spikes import Events
from jaxsnn.nir.initializers import Seed, generator_of, seed_words
from jaxsnn.options import DATA_FOLDER
from jaxsnn.train.data.datasets import (
    MOST_CLASSES,
    Data,
    Splits,
    check_data,
    select_samples,
    stratified,
)
from jaxsnn.train.data.encoders import Latency
from jaxsnn.train.options import OPTIONS
from jaxsnn.wording import Text

#: Fraction of the training images that is held out for validation: 5,000 of 60,000.
_HELD_OUT = 1 / 12
#: Folder of Fashion-MNIST in Debian's package.
_FASHION = "/usr/share/datasets/fashion-mnist"
_GARMENTS = (
    *("T-shirt", "trouser", "pullover", "dress", "coat"),
    *("sandal", "shirt", "sneaker", "bag", "ankle boot"),
)


@suggests_keywords
def mnist_splits(
    seed: Seed = 0, *, folder: str | os.PathLike[str] | None = None, side: int | None = None
) -> Splits:
    """Return MNIST (LeCun, Cortes and Burges, 1998) with its test set; pixels from 0 to 1.

    Args:
        seed: random seed of the training images that are held out for validation, a twelfth of each
            class: an integer or a `jax.random` key.
        folder: folder of the idx files, plain or gzipped, or of PNG files in folders `train/LABEL`
            and `test/LABEL`.
        side: side of the resized images in pixels, each the mean of the area that it covers; None:
            images are not resized.

    Raises:
        FileError: the folder does not contain MNIST.
        UsageError: no folder is specified.
    """
    source = "the idx files, or the PNG folders of github.com/rasbt/mnist-pngs"
    return _splits(
        "mnist", tuple("0123456789"), seed, _named(folder, "mnist", source), source, side
    )


@suggests_keywords
def fashion_mnist_splits(
    seed: Seed = 0, *, folder: str | os.PathLike[str] | None = None, side: int | None = None
) -> Splits:
    """Return Fashion-MNIST (Xiao, Rasul and Vollgraf, 2017) with its test set; arguments as in
    `mnist_splits`, except that the folder is by default that of Debian's package
    `dataset-fashion-mnist`.
    """
    source = "Debian's dataset-fashion-mnist, or github.com/zalandoresearch/fashion-mnist"
    if folder is None and os.path.isdir(_FASHION):
        folder = _FASHION
    return _splits(
        "fashion-mnist", _GARMENTS, seed, _named(folder, "fashion-mnist", source), source, side
    )


def _named(folder: str | os.PathLike[str] | None, name: str, source: str) -> str:
    if folder is None:
        raise UsageError(
            Text("the folder of {data} is not specified", data=name),
            fix=Text(
                "download {files}, and pass {data_folder}",
                files=source,
                data_folder=DATA_FOLDER.set_to("DIR"),
            ),
        )
    return os.fspath(folder)


def _splits(
    name: str, classes: Sequence[str], seed: Seed, folder: str, source: str, side: int | None
) -> Splits:
    parts = {}
    budget = ByteBudget(folder)
    for part in ("train", "test"):
        labelled = read_images(folder, part, budget)
        if labelled is None:
            raise FileError(
                Text(
                    "{path} contains no {part} images of {data}", path=folder, part=part, data=name
                ),
                fix=f"download {source}",
            )
        images, labels = labelled
        budget.take(f"the brightness of the {part} images", 4 * images.size)
        parts[part] = Data(x=_bright(images, side), y=labels, classes=tuple(classes))
        check_data(parts[part], f"{folder}, {part}")
    validation_index, train_index = stratified(parts["train"].y, _HELD_OUT, [*seed_words(seed), 0])
    train = parts["train"]
    return Splits(
        name=name,
        train=select_samples(train, train_index),
        validation=select_samples(train, validation_index),
        test=parts["test"],
    )


def _bright(images: np.ndarray, side: int | None) -> np.ndarray:
    """Return the brightness from 0 to 1, (samples, rows, columns) float32."""
    bright = images.astype(np.float32)
    bright /= np.float32(255)
    if side is None:
        return bright
    if not 1 <= side <= min(bright.shape[1:]):
        raise UsageError(
            Text(
                "{option} is {side}, and the images have {rows} x {columns} pixels",
                option=OPTIONS["side"],
                side=side,
                rows=bright.shape[1],
                columns=bright.shape[2],
            ),
            fix="pass at most the smaller side of the images",
        )
    rows, columns = (_areas(size, side) for size in bright.shape[1:])
    means = np.einsum("ir,nrc,jc->nij", rows, bright, columns, optimize=True)
    return np.minimum(means, 1)  # rounding can lift the mean of white pixels above 1


def _areas(size: int, side: int) -> np.ndarray:
    """Return the share of each of `size` pixels in each of `side` larger ones, (side, size)
    float32; rows add up to 1.

    >>> _areas(3, 2).tolist()
    [[0.6666666865348816, 0.3333333432674408, 0.0], [0.0, 0.3333333432674408, 0.6666666865348816]]
    """
    edges = np.linspace(0, size, side + 1)
    begin, end = (
        np.maximum.outer(edges[:-1], np.arange(size)),
        np.minimum.outer(edges[1:], np.arange(1, size + 1)),
    )
    return (np.maximum(end - begin, 0) * side / size).astype(np.float32)


#: Third byte of an idx file -> type of its numbers, which are big-endian.
_IDX_TYPES = {8: ">u1", 9: ">i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}
#: Maximum number of axes of an idx file, that of NumPy.
_MOST_AXES = 32
#: Parts of the data -> prefixes of their files and folders.
_PARTS = {"train": ("train", "training"), "test": ("t10k", "test", "testing")}

Labelled = tuple[np.ndarray, np.ndarray]


def read_images(
    folder: str | os.PathLike[str], part: str, budget: ByteBudget | None = None
) -> Labelled | None:
    """Read the images of a part, (samples, rows, columns) uint8, and their labels, (samples,)
    int32.

    Either two idx files, `train-images-idx3-ubyte` and `train-labels-idx1-ubyte` (of the test part
    `t10k-...`), which may end with .gz; or a folder for each label, `train/0/*.png` and so on (of the
    test part `test/...`), in the order of the files' names.

    Args:
        part: "train" or "test".
        budget: bytes that the arrays may have, and time; None: the current limits.

    Returns:
        None if the folder has neither.

    Raises:
        FileError: files that are broken or inconsistent.
        UsageError: PNG files, if pillow is not installed.
    """
    budget = ByteBudget(folder) if budget is None else budget
    for name in _PARTS[part]:
        files = [_idx_file(Path(folder), name, kind) for kind in ("images", "labels")]
        if None not in files:
            images, labels = (read_idx(file, budget) for file in files if file is not None)
            fits = images.ndim == 3 and images.dtype == np.uint8 and labels.dtype.kind in "iu"
            fits = fits and 0 not in images.shape[1:]
            if not fits or labels.shape != images.shape[:1]:
                raise FileError(
                    Text(
                        "{path} contains {dtype} of shape {shape}, and the labels are {labels_dtype} of "
                        "shape {labels_shape}",
                        path=files[0],
                        dtype=images.dtype,
                        shape=images.shape,
                        labels_dtype=labels.dtype,
                        labels_shape=labels.shape,
                    ),
                    fix="use bytes (samples, rows, columns), and one integer per image as its label",
                )
            budget.take("its labels", 4 * labels.size)
            return images, labels.astype(np.int32)
        if (Path(folder) / name).is_dir():
            return _of_pngs(Path(folder) / name, budget)
    return None


def _idx_file(folder: Path, part: str, kind: str) -> Path | None:
    """Return the path of the file of images or labels, under any of the usual names; None where
    there is none.
    """
    axes = {"images": 3, "labels": 1}[kind]
    file_names = [
        f"{part}-{kind}{mark}idx{axes}-ubyte{end}" for mark in "-." for end in ("", ".gz")
    ]
    # A pipe or a dangling link is there, too: opening it tells what is wrong.
    return next((folder / name for name in file_names if os.path.lexists(folder / name)), None)


def read_idx(path: str | os.PathLike[str], budget: ByteBudget | None = None) -> np.ndarray:
    """Return the array of an idx file: memory-mapped, or read into memory where the name ends with
    .gz.

    Args:
        path: path of the file.
        budget: bytes that an array in memory may have, and time; None: the current limits.

    Raises:
        FileError: the file cannot be read, is not an idx file, or does not have the length that its
            header specifies.
    """
    name, zipped = os.fspath(path), os.fspath(path).endswith(".gz")
    budget = ByteBudget(path) if budget is None else budget
    try:
        with open_input(path, "an idx file") as file:
            size = size_of(file)
            stream = BoundedStream(file, 0, size, GZIP if zipped else None, budget)
            start = stream.read(4)
            kind = _IDX_TYPES.get(start[2]) if len(start) == 4 and start[:2] == b"\0\0" else None
            if kind is None:
                raise FileError(
                    Text(
                        "{path} is not an idx file: it begins with {start!r}",
                        path=name,
                        start=start,
                    ),
                    fix="pass a folder of idx files or of PNG files",
                )
            header = stream.read(4 * start[3])
            begins = 4 + 4 * start[3]
            if len(header) < begins - 4:
                raise _inconsistent(
                    "the header of {path} is incomplete: it has {actual} of {expected} bytes",
                    name,
                    4 + len(header),
                    begins,
                )
            shape = tuple(int.from_bytes(header[n : n + 4]) for n in range(0, len(header), 4))
            expected_size = math.prod(shape) * np.dtype(kind).itemsize
            if zipped:
                budget.take("its numbers", expected_size)
            if len(shape) > _MOST_AXES or math.prod(max(count, 1) for count in shape) >= 2**62:
                raise _inconsistent(
                    "{path} has {actual} axes, or too many numbers; images have {expected} axes",
                    name,
                    len(shape),
                    3,
                )
            wrong_size = "{path} has {actual} bytes of data, and its header specifies {expected}"
            if not zipped:
                if size - begins != expected_size:
                    raise _inconsistent(wrong_size, name, size - begins, expected_size)
                if expected_size == 0:
                    return np.zeros(shape, kind)
                return np.memmap(file, kind, "r", begins, shape)  # pyright: ignore[reportArgumentType]
            array = np.empty(math.prod(shape), kind)
            actual_size = stream.read_into(array.view(np.uint8).data) if array.size else 0
            if actual_size != expected_size:
                raise _inconsistent(wrong_size, name, actual_size, expected_size)
            if not stream.ends():
                raise _inconsistent(
                    "{path} has more data than the {expected} bytes that its header specifies",
                    name,
                    expected_size + 1,
                    expected_size,
                )
            return array.reshape(shape)
    except (OSError, zlib.error) as error:
        raise FileError(
            Text("{path} cannot be read ({reason})", path=name, reason=str(error))
        ) from error


def _inconsistent(template: str, path: str, actual: int, expected: int) -> FileError:
    return FileError(
        Text(template, path=path, actual=actual, expected=expected), fix="download the file again"
    )


def _of_pngs(folder: Path, budget: ByteBudget) -> Labelled:
    """Read the images of a folder with a folder for each label."""
    labels = [path for path in folder.iterdir() if path.is_dir() and path.name[0] not in "._"]
    odd = next((path for path in labels if not _is_label(path.name)), None)
    if odd is not None:
        raise FileError(
            Text(
                "the folder {path} contains images, and its name '{label}' is not a label",
                path=odd,
                label=odd.name,
            ),
            fix="name each folder by its label, 0, 1, ...",
        )
    files = [(image, int(label.name)) for label in labels for image in label.glob("*.png")]
    if not files:
        raise FileError(
            Text("{path} contains no files LABEL/*.png", path=folder),
            fix="pass the folder that contains train/LABEL/*.png and test/LABEL/*.png",
        )
    files.sort(key=lambda entry: (len(entry[0].name), entry[0].name))
    images = read_pngs([path for path, _ in files], budget)
    return images, np.asarray([label for _, label in files], np.int32)


def _is_label(name: str) -> bool:
    return name.isascii() and name.isdigit() and int(name) < MOST_CLASSES


#: Pixels along a side of a digit of scikit-learn, and their largest value.
_SIDE, _BRIGHTEST = 8, 16.0
#: Fraction of its images for the test, and of the rest for validation.
_TEST, _VALIDATION = 0.2, 0.1
#: Time of the last input of a digit, in time constants.
_INPUT_SPAN = 1.5


@suggests_keywords
def digits_splits(seed: Seed = 0, *, copies: int = 1) -> Splits:
    """Return the digits, stratified: a fifth for the test, a tenth of the rest for validation.

    Values are brightness, (images, 64), from 0 to 1. The encoder of the task is `DarkAndBright`,
    with a last channel that spikes at the start.

    Args:
        seed: random seed of the split and of the copies: an integer or a `jax.random` key.
        copies: number of copies of each training image, all but the first shifted by up to half a
            pixel, rotated by up to 10 degrees and scaled by up to 10 %.

    Raises:
        UsageError: scikit-learn is not installed.
    """
    images, labels = _load()
    words = seed_words(seed)
    test, rest = stratified(labels, _TEST, [*words, 0])
    validation, train = stratified(labels[rest], _VALIDATION, [*words, 1])
    everything = Data(x=images.reshape(len(images), -1), y=labels, classes=tuple("0123456789"))
    train_index = rest[train]
    training = select_samples(everything, train_index)
    if copies > 1:
        moved = distorted(np.repeat(images[train_index], copies - 1, axis=0), [*words, 2])
        x = np.concatenate([training.x, moved.reshape(len(moved), -1)])
        training = Data(
            x=x,
            y=np.concatenate([training.y, np.repeat(training.y, copies - 1)]),
            classes=everything.classes,
        )
    return Splits(
        name="digits",
        train=training,
        validation=select_samples(everything, rest[validation]),
        test=select_samples(everything, test),
        encoder=lambda tau: DarkAndBright(
            t_min=0.0, t_max=_INPUT_SPAN * tau, bias=True, first="small"
        ),
    )


@dataclass(frozen=True, kw_only=True)
class DarkAndBright(Latency):
    """Latency encoder of an image and of the inverted image, in 64 channels each.

    A pixel of brightness p (0 to 1) spikes at the fraction 1 - p of the time for inputs, and a dark
    pixel (p < 1/32) not at all; in the inverted image all pixels spike, at the fraction p.
    """

    def __call__(self, values: Any) -> Events:
        """Return the events of images, whose brightness values have the shape (images, 64)."""
        return super().__call__(with_inverted(values))

    def channels(self, values: Any) -> int:
        """Return the number of channels for images (images, 64)."""
        return super().channels(with_inverted(values))


def with_inverted(images: Any) -> np.ndarray:
    """Return values for a latency encoder, (images, 128), of brightness (images, 64): NaN where
    there is no spike.
    """
    bright = np.asarray(images).reshape(len(images), -1)
    return np.concatenate([np.where(bright < 1 / 32, np.nan, 1 - bright), bright], axis=1)


def distorted(images: np.ndarray, seed: Seed) -> np.ndarray:
    """Shift, rotate and scale images (images, 8, 8) at random, with bilinear interpolation; pixels
    outside an image are dark.
    """
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
        raise UsageError(
            "the digits require scikit-learn, which is not installed",
            fix="pip install scikit-learn",
        ) from error
    images, labels = load_digits(return_X_y=True)
    return images.reshape(-1, _SIDE, _SIDE) / _BRIGHTEST, labels.astype(np.int32)
