"""Images with labels from files: idx, plain or gzipped, and folders of PNG files."""

from __future__ import annotations

import gzip
import math
import os
import zlib
from pathlib import Path

import numpy as np

from jaxsnn.errors import FileError, UsageError
from jaxsnn.nir.io.read_limits import ByteBudget
from jaxsnn.output import refuse_unreadable

#: Third byte of an idx file -> type of its numbers, which are big-endian.
_IDX_TYPES = {8: ">u1", 9: ">i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}
#: What files and folders of a part are called.
_PARTS = {"train": ("train", "training"), "test": ("t10k", "test", "testing")}

Labelled = tuple[np.ndarray, np.ndarray]


def read_images(folder: str | os.PathLike[str], part: str) -> Labelled | None:
    """The images of a part, (samples, rows, columns) uint8, and their labels, (samples,) int32.

    Either two idx files, `train-images-idx3-ubyte` and `train-labels-idx1-ubyte` (of the test part
    `t10k-...`), which may end with .gz; or a folder for each label, `train/0/*.png` and so on (of the
    test part `test/...`), in the order of the files' names.

    Args:
        part: "train" or "test".

    Returns:
        None where there are neither.

    Raises:
        FileError: files that are broken, or that do not fit each other.
        UsageError: PNG files, and pillow is not installed.
    """
    for name in _PARTS[part]:
        found = [_idx_file(Path(folder), name, kind) for kind in ("images", "labels")]
        images, labels = found
        if images is not None and labels is not None:
            return _fitting(read_idx(images), read_idx(labels), os.fspath(images))
        if (Path(folder) / name).is_dir():
            return _of_pngs(Path(folder) / name)
    return None


def _idx_file(folder: Path, part: str, kind: str) -> Path | None:
    """The file of images or labels, by the names that are in use."""
    axes = {"images": 3, "labels": 1}[kind]
    names = [f"{part}-{kind}{mark}idx{axes}-ubyte{end}" for mark in "-." for end in ("", ".gz")]
    return next((folder / name for name in names if (folder / name).is_file()), None)


def read_idx(path: str | os.PathLike[str]) -> np.ndarray:
    """The array of an idx file: memory-mapped, or read whole where the name ends with .gz.

    Raises:
        FileError: it cannot be read, is not idx, or is not as long as it says.
    """
    name, zipped = os.fspath(path), os.fspath(path).endswith(".gz")
    try:
        with gzip.open(name) if zipped else open(name, "rb") as file:
            start = file.read(4)
            kind = _IDX_TYPES.get(start[2]) if len(start) == 4 and start[:2] == b"\0\0" else None
            if kind is None:
                raise FileError(
                    f"{name} begins with {start!r}, and is no idx file",
                    fix="name the folder of idx files or of PNG files",
                )
            header = file.read(4 * start[3])
            shape = tuple(int.from_bytes(header[n : n + 4]) for n in range(0, len(header), 4))
            begins = 4 + 4 * start[3]
            expected_size = math.prod(shape) * np.dtype(kind).itemsize
            if zipped:  # at most one byte more than the header announces: it may expand without end
                ByteBudget(name).take("its numbers", expected_size)
                there = len(content := file.read(expected_size + 1))
            else:
                there = os.path.getsize(name) - begins
    except (OSError, EOFError, zlib.error) as error:
        raise FileError(f"{name} cannot be read ({error})") from error
    if len(header) < 4 * start[3] or there != expected_size:
        raise FileError(
            f"{name} holds {'more' if there > expected_size and zipped else there} bytes of numbers, and"
            f" says that they are {expected_size}",
            fix="get the file again",
        )
    if zipped:
        return np.frombuffer(content, kind).reshape(shape)
    return np.memmap(name, kind, "r", begins, shape)


def _fitting(images: np.ndarray, labels: np.ndarray, name: str) -> Labelled:
    """Images and labels that fit each other."""
    if images.ndim != 3 or images.dtype != np.uint8 or labels.shape != images.shape[:1]:
        raise FileError(
            f"{name} holds {images.dtype} of shape {images.shape}, its labels have shape"
            f" {labels.shape}",
            fix="give images (samples, rows, columns) of bytes, and a label for each",
        )
    return images, labels.astype(np.int32)


def _of_pngs(folder: Path) -> Labelled:
    """The images of a folder with a folder for each label."""
    labels = [each for each in folder.iterdir() if each.is_dir() and each.name[0] not in "._"]
    odd = next((each for each in labels if not (each.name.isascii() and each.name.isdigit())), None)
    if odd is not None:
        raise FileError(
            f"{odd} is a folder of images, and '{odd.name}' is no label",
            fix="name each folder by its label, 0, 1, ...",
        )
    files = [(image, int(label.name)) for label in labels for image in label.glob("*.png")]
    if not files:
        raise FileError(f"{folder} has no files LABEL/*.png", fix="name the folder above it")
    files.sort(key=lambda entry: (len(entry[0].name), entry[0].name))
    images = [_png(path) for path, _ in files]
    odd = next((n for n, image in enumerate(images) if image.shape != images[0].shape), None)
    if odd is not None:
        raise FileError(
            f"{files[odd][0]} is not of the size {images[0].shape} of {files[0][0]}",
            fix="bring all images to one size",
        )
    return np.stack(images), np.asarray([label for _, label in files], np.int32)


def _png(path: Path) -> np.ndarray:
    """Read a grey image, (rows, columns) uint8, as PNG whatever its content looks like.

    Other formats are not tried: Pillow's decoder of PostScript starts Ghostscript, which runs what is
    in the file.

    Raises:
        FileError: the file is not a PNG image of at most 8 bits a pixel.
    """
    try:
        from PIL import Image
    except ImportError as error:
        raise UsageError(f"{path} needs pillow to be read", fix="pip install pillow") from error
    refuse_unreadable(path, "a PNG file")
    try:
        with Image.open(path, formats=("PNG",)) as image:
            if image.mode.startswith("I"):
                raise FileError(
                    f"{path} has 16 bits a pixel, and images are read with 8",
                    fix="convert it to 8 bits a pixel",
                )
            return np.asarray(image.convert("L"))
    # Pillow's errors of broken and of oversized files have no common class.
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise FileError(
            f"{path} cannot be read as a PNG image ({error})",
            fix="get it again, or convert it to PNG",
        ) from error
