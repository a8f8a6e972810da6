"""Images from idx files and PNG folders, which the tests write."""

import contextlib
import gzip
import io
import os
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


def test_plain_idx_files_stay_on_the_disk(tmp_path):
    write_idx(tmp_path)
    assert isinstance(read_idx(tmp_path / "train-images-idx3-ubyte"), np.memmap)


def test_numbers_of_idx_files_are_big_endian(tmp_path):
    wanted = np.array([[1, 256], [70000, -2]], ">i4")
    (tmp_path / "numbers").write_bytes(
        bytes([0, 0, 12, 2]) + struct.pack(">2I", 2, 2) + wanted.tobytes()
    )
    assert read_idx(tmp_path / "numbers").tolist() == wanted.tolist()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"PK\x03\x04", "is not an idx file"),
        (b"", "is not an idx file"),
        (idx(IMAGES["train"])[:-1], "has 1151 bytes of numbers, and its header specifies 1152"),
        (idx(IMAGES["train"])[:9], "bytes of numbers, and its header"),
    ],
)
@pytest.mark.parametrize("zipped", [False, True])
def test_broken_idx_files_are_refused(content, message, zipped, tmp_path):
    path = tmp_path / ("images.gz" if zipped else "images")
    path.write_bytes(gzip.compress(content) if zipped else content)
    with pytest.raises(FileError, match=message):
        read_idx(path)


def test_a_broken_gz_file_is_refused(tmp_path):
    (tmp_path / "images.gz").write_bytes(gzip.compress(idx(IMAGES["train"]))[:100])
    with pytest.raises(FileError, match="cannot be read"):
        read_idx(tmp_path / "images.gz")


def test_a_gz_file_is_not_expanded_beyond_what_its_header_says(tmp_path):
    small, long = idx(np.zeros((1, 2, 2), np.uint8)), bytes(2**26)
    (tmp_path / "images.gz").write_bytes(gzip.compress(small + long, 1))
    tracemalloc.start()
    with pytest.raises(FileError, match=r"images\.gz has more bytes of numbers"):
        read_idx(tmp_path / "images.gz")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < len(long) / 8
    (tmp_path / "images.gz").write_bytes(gzip.compress(bytes([0, 0, 8, 3]) + b"\xff" * 12))
    with pytest.raises(FileError, match="max_bytes"):
        read_idx(tmp_path / "images.gz")


def test_images_and_labels_must_fit(tmp_path):
    write_idx(tmp_path)
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx(LABELS["train"][1:]))
    with pytest.raises(FileError, match=r"\(48, 6, 4\), its labels have shape \(47,\)"):
        read_images(tmp_path, "train")


def test_png_files_of_several_sizes_are_refused(tmp_path):
    write_pngs(tmp_path)
    Image.fromarray(IMAGES["train"][0, :5]).save(tmp_path / "train" / "0" / "99.png")
    with pytest.raises(FileError, match=r"99\.png differs in size from .*, which is \(6, 4\)"):
        read_images(tmp_path, "train")


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


@pytest.mark.parametrize("content", [EPS, b"\xc5\xd0\xd3\xc6" + bytes(26) + EPS, b"\n" + EPS])
def test_postscript_in_a_png_file_starts_no_program(content, ghostscript, tmp_path):
    write_pngs(tmp_path)
    (tmp_path / "train" / "0" / "0.png").write_bytes(content)
    with pytest.raises(FileError, match=r"0\.png"):
        read_images(tmp_path, "train")
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
def test_no_decoder_but_that_of_png_reads_a_png_file(kind, content, tmp_path, monkeypatch):
    write_pngs(tmp_path)
    opened = []
    for name, (factory, accept) in list(Image.OPEN.items()):

        def spy(*arguments, name=name, factory=factory):
            opened.append(name)
            return factory(*arguments)

        monkeypatch.setitem(Image.OPEN, name, (spy, accept))
    (tmp_path / "train" / "1" / "9999.png").write_bytes(content)
    with pytest.raises(FileError, match=r"9999\.png"):
        read_images(tmp_path, "train")
    assert set(opened) <= {"PNG"}


def png(header=b"", *chunks):
    """The bytes of a PNG file of these chunks behind its header."""

    def chunk(kind, data):
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    content = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)
    return content + b"".join(chunk(*each) for each in chunks) + chunk(b"IEND", b"")


HEADER = struct.pack(">2I5B", 4, 6, 8, 0, 0, 0, 0)


@pytest.mark.parametrize(
    "content",
    {
        "more pixels than memory": png(struct.pack(">2I5B", 2**20, 2**20, 8, 0, 0, 0, 0)),
        "no pixels": png(HEADER),
        "no zlib": png(HEADER, (b"IDAT", b"no pixels")),
        "short header": png(HEADER[:5]),
        "unknown depth": png(struct.pack(">2I5B", 4, 6, 3, 0, 0, 0, 0)),
        "text of any size": png(HEADER, (b"zTXt", b"a\0\0" + zlib.compress(bytes(2**22)))),
        "16 bits": png(
            struct.pack(">2I5B", 4, 6, 16, 0, 0, 0, 0),
            (b"IDAT", zlib.compress((b"\0" + 4 * b"\1\2") * 6)),
        ),
        "empty": b"",
        "cut": png(HEADER)[:20],
    }.items(),
    ids=lambda entry: entry[0],
)
def test_a_png_file_that_cannot_be_decoded_is_refused(content, tmp_path):
    write_pngs(tmp_path)
    (tmp_path / "train" / "0" / "0.png").write_bytes(content[1])
    with pytest.raises(FileError, match=r"0\.png"):
        read_images(tmp_path, "train")


def test_a_pipe_that_is_named_as_a_png_file_is_refused(tmp_path):
    write_pngs(tmp_path)
    (tmp_path / "train" / "0" / "0.png").unlink()
    os.mkfifo(tmp_path / "train" / "0" / "0.png")
    with pytest.raises(FileError, match=r"0\.png is not a regular file"):
        read_images(tmp_path, "train")


def test_a_folder_that_is_no_label_is_refused(tmp_path):
    write_pngs(tmp_path)
    (tmp_path / "train" / "__MACOSX").mkdir()  # what an archive leaves
    assert read_images(tmp_path, "train") is not None
    (tmp_path / "train" / "cats").mkdir()
    with pytest.raises(FileError, match="'cats' is not a label"):
        read_images(tmp_path, "train")


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
    halved = mnist_splits(folder=tmp_path, side=2).test.x
    wanted = IMAGES["test"].reshape(20, 2, 3, 2, 2).mean(axis=(2, 4)) / 255
    assert np.allclose(halved, wanted, atol=1e-6)
    thirds = mnist_splits(folder=tmp_path, side=3).test.x
    assert np.allclose(thirds.mean(axis=(1, 2)), IMAGES["test"].mean(axis=(1, 2)) / 255, atol=1e-6)
    with pytest.raises(UsageError, match="side is 5, and the images are 6 x 4"):
        mnist_splits(folder=tmp_path, side=5)


def test_a_white_image_of_any_size_is_not_brighter_than_white():
    white = np.full((1, 28, 28), 255, np.uint8)
    for side in range(1, 29):
        values = _bright(white, side)
        assert values.max() <= 1
        assert values.min() > 1 - 1e-6


def test_who_has_no_data_is_told_where_to_get_them(tmp_path):
    with pytest.raises(UsageError, match=r"mnist needs a folder .*rasbt/mnist-pngs"):
        load_splits("mnist")
    with pytest.raises(FileError, match=r"has no train images of fashion-mnist.*zalandoresearch"):
        fashion_mnist_splits(folder=tmp_path)
    write_idx(tmp_path)
    splits, _ = load_splits("mnist", folder=str(tmp_path), side=4)
    assert splits.train.x.shape == (44, 4, 4)
