"""Images from idx files and PNG folders, which the tests write."""

import gzip
import struct

import numpy as np
import pytest
from PIL import Image

from jaxsnn.errors import FileError, UsageError
from jaxsnn.train.data.image_files import read_idx, read_images
from jaxsnn.train.data.images import _bright, fashion_mnist_splits, mnist_splits
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
        (b"PK\x03\x04", "is no idx file"),
        (b"", "is no idx file"),
        (idx(IMAGES["train"])[:-1], "holds 1151 bytes of numbers, and says that they are 1152"),
        (idx(IMAGES["train"])[:9], "bytes of numbers, and says"),
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


def test_images_and_labels_must_fit(tmp_path):
    write_idx(tmp_path)
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx(LABELS["train"][1:]))
    with pytest.raises(FileError, match=r"\(48, 6, 4\), its labels have shape \(47,\)"):
        read_images(tmp_path, "train")


def test_png_files_of_several_sizes_are_refused(tmp_path):
    write_pngs(tmp_path)
    Image.fromarray(IMAGES["train"][0, :5]).save(tmp_path / "train" / "0" / "99.png")
    with pytest.raises(FileError, match=r"99\.png is not of the size \(6, 4\)"):
        read_images(tmp_path, "train")


def test_a_folder_that_is_no_label_is_refused(tmp_path):
    write_pngs(tmp_path)
    (tmp_path / "train" / "__MACOSX").mkdir()  # what an archive leaves
    assert read_images(tmp_path, "train") is not None
    (tmp_path / "train" / "cats").mkdir()
    with pytest.raises(FileError, match="'cats' is no label"):
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
    with pytest.raises(FileError, match=r"holds no train images of fashion-mnist.*zalandoresearch"):
        fashion_mnist_splits(folder=tmp_path)
    write_idx(tmp_path)
    splits, _ = load_splits("mnist", folder=str(tmp_path), side=4)
    assert splits.train.x.shape == (44, 4, 4)
