"""Images from idx files and PNG folders, which the tests write."""

import contextlib
import gzip
import io
import os
import re
import struct
import sys
import tracemalloc
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image

from jaxsnn.errors import FileError, UsageError
from jaxsnn.train.data.images import (
    _bright,
    fashion_mnist_splits,
    mnist_splits,
    read_idx,
    read_images,
)
from jaxsnn.train.data.labelled_files import load_splits
from tests.helpers.refusals import assert_refused

RNG = np.random.default_rng(0)
IMAGES = {
    "train": RNG.integers(0, 256, (48, 6, 4), np.uint8),
    "test": RNG.integers(0, 256, (20, 6, 4), np.uint8),
}
LABELS = {part: (np.arange(len(images)) % 2).astype(np.uint8) for part, images in IMAGES.items()}
PREFIX = {"train": "train", "test": "t10k"}


def idx(array):
    sizes = struct.pack(f">{array.ndim}I", *array.shape)
    return bytes([0, 0, 8, array.ndim]) + sizes + array.tobytes()


def write_idx(folder, zipped=False):
    for part, prefix in PREFIX.items():
        for kind, array in (("images-idx3", IMAGES[part]), ("labels-idx1", LABELS[part])):
            content, end = idx(array), ".gz" if zipped else ""
            path = folder / f"{prefix}-{kind}-ubyte{end}"
            path.write_bytes(gzip.compress(content) if zipped else content)


def write_pngs(folder):
    for part, images in IMAGES.items():
        for number, (pixels, label) in enumerate(zip(images, LABELS[part], strict=True)):
            home = folder / part / str(label)
            home.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(home / f"{number}.png")


@pytest.mark.parametrize("kind", ["idx", "gz", "png"])
def test_all_files_give_the_same_images(kind, tmp_path):
    write_pngs(tmp_path) if kind == "png" else write_idx(tmp_path, kind == "gz")
    for part in ("train", "test"):
        images, labels = read_images(tmp_path, part)
        assert np.array_equal(images, IMAGES[part])
        assert labels.dtype == np.int32
        assert np.array_equal(labels, LABELS[part])
    if kind == "idx":  # they are memory-mapped
        assert isinstance(read_idx(tmp_path / "train-images-idx3-ubyte"), np.memmap)


def test_numbers_of_idx_files_are_big_endian(tmp_path):
    numbers = np.array([[1, 256], [70000, -2]], ">i4")
    header = bytes([0, 0, 12, 2]) + struct.pack(">2I", 2, 2)
    (tmp_path / "numbers").write_bytes(header + numbers.tobytes())
    assert read_idx(tmp_path / "numbers").tolist() == numbers.tolist()


TRAIN = idx(IMAGES["train"])
#: Suffix of a file, its content, and words of the refusal.
BROKEN_IDX = {
    "zip": ("", b"PK\x03\x04", "is not an idx file"),
    "empty": ("", b"", "is not an idx file"),
    "short": ("", TRAIN[:-1], "has 1151 bytes of data, and its header specifies 1152"),
    "header": ("", TRAIN[:9], "is incomplete: it has 9 of 16 bytes"),
}
BROKEN_IDX |= {
    f"{name} in gz": (".gz", gzip.compress(content), message)
    for name, (_, content, message) in BROKEN_IDX.items()
}
BROKEN_IDX |= {
    "huge sizes": (".gz", gzip.compress(bytes([0, 0, 8, 3]) + b"\xff" * 12), "max_bytes"),
}


@pytest.mark.parametrize("case", BROKEN_IDX)
def test_broken_idx_files_are_refused(case, tmp_path):
    end, content, message = BROKEN_IDX[case]
    (tmp_path / f"images{end}").write_bytes(content)
    assert_refused(lambda: read_idx(tmp_path / f"images{end}"), FileError, message)


def test_a_broken_gz_file_is_refused(tmp_path):
    (tmp_path / "images.gz").write_bytes(gzip.compress(TRAIN)[:100])
    message = r"images\.gz has \d+ bytes of data, and its header specifies 1152"
    assert_refused(lambda: read_idx(tmp_path / "images.gz"), FileError, message)
    (tmp_path / "images.gz").write_bytes(b"no gzip")
    assert_refused(lambda: read_idx(tmp_path / "images.gz"), FileError, "cannot be read", fix=None)


def test_a_gz_file_is_not_expanded_beyond_what_its_header_says(tmp_path):
    path, small, long = tmp_path / "images.gz", idx(np.zeros((1, 2, 2), np.uint8)), bytes(2**26)
    path.write_bytes(gzip.compress(small + long, 1))
    tracemalloc.start()
    assert_refused(
        lambda: read_idx(path),
        FileError,
        r"images\.gz has more data than the 4 bytes that its header specifies",
    )
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < len(long) / 8


def test_images_and_labels_must_fit(tmp_path):
    write_idx(tmp_path)
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx(LABELS["train"][1:]))
    message = r"\(48, 6, 4\), and the labels are uint8 of shape \(47,\)"
    assert_refused(lambda: read_images(tmp_path, "train"), FileError, message)


EPS = b"""%!PS-Adobe-3.0 EPSF-3.0
%%BoundingBox: 0 0 4 6
%%EndComments
(any program) run
showpage
%%EOF
"""


@pytest.fixture
def ghostscript(tmp_path, monkeypatch):
    """A program named `gs` on the path: returns the file that it writes when it is started."""
    from PIL import EpsImagePlugin

    mark = tmp_path / "started"
    program = tmp_path / "bin" / "gs"
    program.parent.mkdir()
    program.write_text(f"#!{sys.executable}\nopen({os.fspath(mark)!r}, 'w').close()\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", os.fspath(program.parent), prepend=os.pathsep)
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)
    return mark


@pytest.fixture
def pngs(tmp_path):
    """A folder of PNG files, and a function: what reading it is refused for, of a file with some
    content.
    """
    write_pngs(tmp_path)

    def refused(path, content, message=""):
        if isinstance(content, bytes):
            (tmp_path / path).write_bytes(content)
        else:
            content(tmp_path / path)
        name = re.escape(path.rpartition("/")[2])
        assert_refused(lambda: read_images(tmp_path, "train"), FileError, f"{name}{message}")

    return refused


@pytest.mark.parametrize("content", [EPS, b"\xc5\xd0\xd3\xc6" + bytes(26) + EPS, b"\n" + EPS])
def test_postscript_in_a_png_file_starts_no_program(content, ghostscript, pngs):
    pngs("train/0/0.png", content)
    assert not ghostscript.exists()


def files_of_other_formats():
    """Format -> a grey image in it, of all formats that Pillow both writes and reads but PNG."""
    Image.init()
    files = {}
    for kind in sorted((Image.SAVE.keys() & Image.OPEN.keys()) - {"PNG"}):
        content = io.BytesIO()
        with warnings.catch_warnings(), contextlib.suppress(OSError, ValueError):
            warnings.simplefilter("ignore")
            Image.fromarray(IMAGES["train"][0]).save(content, kind)
            files[kind] = content.getvalue()
    return files


@pytest.mark.parametrize(("kind", "content"), files_of_other_formats().items())
def test_no_decoder_but_that_of_png_reads_a_png_file(kind, content, pngs, monkeypatch):
    opened = []
    for name, (factory, accept) in list(Image.OPEN.items()):

        def spy(*arguments, name=name, factory=factory):
            opened.append(name)
            return factory(*arguments)

        monkeypatch.setitem(Image.OPEN, name, (spy, accept))
    pngs("train/1/9999.png", content)
    assert set(opened) <= {"PNG"}


def png(header=b"", *chunks):
    """The bytes of a PNG file of these chunks behind its header."""

    def chunk(kind, data):
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    content = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)
    return content + b"".join(chunk(*part) for part in chunks) + chunk(b"IEND", b"")


HEADER = struct.pack(">2I5B", 4, 6, 8, 0, 0, 0, 0)


def replaced_by_a_pipe(path):
    path.unlink()
    os.mkfifo(path)


#: File, its content (or a function that creates it), and the part of the refusal after its name.
BROKEN_PNGS = {
    "more pixels than memory": ("0", png(struct.pack(">2I5B", 2**20, 2**20, 8, 0, 0, 0, 0)), ""),
    "no pixels": ("0", png(HEADER), ""),
    "no zlib": ("0", png(HEADER, (b"IDAT", b"no pixels")), ""),
    "short header": ("0", png(HEADER[:5]), ""),
    "unknown depth": ("0", png(struct.pack(">2I5B", 4, 6, 3, 0, 0, 0, 0)), ""),
    "text of any size": ("0", png(HEADER, (b"zTXt", b"a\0\0" + zlib.compress(bytes(2**22)))), ""),
    "16 bits": (
        "0",
        png(
            struct.pack(">2I5B", 4, 6, 16, 0, 0, 0, 0),
            (b"IDAT", zlib.compress((b"\0" + 4 * b"\1\2") * 6)),
        ),
        "",
    ),
    "empty": ("0", b"", ""),
    "cut": ("0", png(HEADER)[:20], ""),
    "pipe": ("0", replaced_by_a_pipe, " is not a regular file"),
    "another size": (
        "99",
        lambda path: Image.fromarray(IMAGES["train"][0, :5]).save(path),
        r" is \(5, 4\), and that of .*/0\.png is \(6, 4\)",
    ),
}


@pytest.mark.parametrize("case", BROKEN_PNGS)
def test_a_png_file_that_cannot_be_decoded_is_refused(case, pngs):
    number, content, message = BROKEN_PNGS[case]
    pngs(f"train/0/{number}.png", content, message)


def test_a_folder_that_is_no_label_is_refused(tmp_path):
    write_pngs(tmp_path)
    (tmp_path / "train" / "__MACOSX").mkdir()  # left by an archive
    assert read_images(tmp_path, "train") is not None
    (tmp_path / "train" / "cats").mkdir()
    assert_refused(lambda: read_images(tmp_path, "train"), FileError, "'cats' is not a label")


def test_a_twelfth_of_each_class_is_for_validation(tmp_path):
    write_idx(tmp_path)
    splits = mnist_splits(3, folder=tmp_path)
    assert np.bincount(splits.validation.y).tolist() == [2, 2]
    assert len(splits.train) == 44
    assert np.array_equal(splits.test.x, IMAGES["test"].astype(np.float32) / np.float32(255))
    together = np.concatenate([splits.train.x, splits.validation.x])
    assert sorted(map(bytes, together)) == sorted(
        map(bytes, IMAGES["train"].astype(np.float32) / 255)
    )
    assert not np.array_equal(mnist_splits(4, folder=tmp_path).validation.x, splits.validation.x)


def test_smaller_images_are_means_of_areas(tmp_path):
    write_idx(tmp_path)
    halves, thirds = (mnist_splits(folder=tmp_path, side=side).test.x for side in (2, 3))
    means = IMAGES["test"].reshape(20, 2, 3, 2, 2).mean(axis=(2, 4)) / 255
    assert np.allclose(halves, means, atol=1e-6)
    assert np.allclose(thirds.mean(axis=(1, 2)), IMAGES["test"].mean(axis=(1, 2)) / 255, atol=1e-6)
    message = "side is 5, and the images have 6 x 4 pixels"
    assert_refused(lambda: mnist_splits(folder=tmp_path, side=5), UsageError, message)


@pytest.mark.parametrize("side", range(1, 29))
def test_a_white_image_of_any_size_is_not_brighter_than_white(side):
    values = _bright(np.full((1, 28, 28), 255, np.uint8), side)
    assert 1 - 1e-6 < values.min() <= values.max() <= 1


def test_who_has_no_data_is_told_where_to_get_them(tmp_path):
    message = r"the folder of mnist is not specified.*rasbt/mnist-pngs"
    assert_refused(lambda: load_splits("mnist"), UsageError, message)
    message = r"contains no train images of fashion-mnist.*zalandoresearch"
    assert_refused(lambda: fashion_mnist_splits(folder=tmp_path), FileError, message)
    write_idx(tmp_path)
    splits, _ = load_splits("mnist", folder=str(tmp_path), side=4)
    assert splits.train.x.shape == (44, 4, 4)
