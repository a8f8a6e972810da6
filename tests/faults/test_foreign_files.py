"""Files of other formats than NIR: opened in one place, and refused before they take memory."""

import gzip
import io
import json
import os
import re
import resource
import socket
import struct
import time
import zipfile
import zlib
from pathlib import Path

import h5py
import numpy as np
import pytest

from jaxsnn.errors import FileError, JaxsnnError
from jaxsnn.files.array_files import load_arrays, map_array
from jaxsnn.files.opening import open_input, read_bytes, read_text
from jaxsnn.files.png_images import read_pngs
from jaxsnn.files.read_limits import ByteBudget
from jaxsnn.files.sounds import read_sound
from jaxsnn.nir import limit_reading, read
from jaxsnn.train.data.images import mnist_splits, read_idx, read_images
from jaxsnn.train.data.labelled_files import load_splits
from jaxsnn.train.data.utterances import read_ts, spoken_splits
from tests.helpers.refusals import assert_refused

MEBIBYTE = 2**20


def memory_of(function):
    """Run a function in a child process and return the growth of the largest memory of the child and of
    processes that it starts, in bytes, and its message if it refuses.
    """
    end, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        message = ""
        resident = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
        try:
            function()
        except JaxsnnError as error:
            message = str(error)
        except BaseException as error:
            message = f"unexpected: {error!r}"
        finally:
            most = sum(
                resource.getrusage(who).ru_maxrss * 1024 - resident
                for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
                if resource.getrusage(who).ru_maxrss
            )
            os.write(theirs, json.dumps([most, message]).encode())
            os._exit(0)
    os.close(theirs)
    with os.fdopen(end, "rb") as answer:
        content = answer.read()
    os.waitpid(child, 0)
    return tuple(json.loads(content))


# -- opening


@pytest.fixture(params=["pipe", "socket", "device", "link to a device", "folder"])
def special(request, tmp_path):
    """A path that is not a regular file."""
    path = tmp_path / "special"
    if request.param == "pipe":
        os.mkfifo(path)
    elif request.param == "socket":
        os.chdir(tmp_path)  # names of sockets are short
        socket.socket(socket.AF_UNIX).bind("special")
    elif request.param == "device":
        path = Path("/dev/zero")
    elif request.param == "link to a device":
        path.symlink_to("/dev/zero")
    else:
        path.mkdir()
    return path


READERS = {
    "NIR": read,
    "npz": load_arrays,
    "npy": map_array,
    "idx": read_idx,
    "png": lambda path: read_pngs([path], ByteBudget(path)),
    "wav": read_sound,
    "ts": read_ts,
    "text": lambda path: read_text(path, "a mapping"),
    "bytes": lambda path: read_bytes(path, "a checkpoint"),
}


@pytest.mark.parametrize("format", READERS)
def test_only_regular_files_are_read(format, special, monkeypatch):
    monkeypatch.chdir(special.parent)
    message = "is a directory|is not a regular file"
    assert_refused(lambda: READERS[format](special), FileError, message, fix="pass the path of")


def test_a_file_that_is_replaced_by_a_pipe_after_its_check_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "a"
    path.write_text("x")
    real_open = os.open

    def late_open(name, *arguments, **options):
        path.unlink()
        os.mkfifo(path)
        return real_open(name, *arguments, **options)

    before = len(os.listdir("/dev/fd"))
    monkeypatch.setattr(os, "open", late_open)
    assert_refused(lambda: open_input(path, "a mapping"), FileError, "is not a regular file")
    monkeypatch.undo()
    assert len(os.listdir("/dev/fd")) == before


def test_links_are_followed_only_where_that_is_allowed(tmp_path):
    (tmp_path / "a").write_text("text")
    (tmp_path / "b").symlink_to("a")
    assert read_text(tmp_path / "b", "a mapping") == "text"
    message = "b is a symbolic link"
    assert_refused(
        lambda: read_text(tmp_path / "b", "a mapping", follow_links=False), FileError, message
    )


def test_the_size_of_a_file_is_checked_before_it_is_read(tmp_path):
    with open(tmp_path / "a", "wb") as file:
        file.truncate(2**40)  # without blocks on the disk
    for reader in (lambda path: read_bytes(path, "x"), lambda path: read_text(path, "x"), read_ts):
        memory, message = memory_of(lambda reader=reader: reader(tmp_path / "a"))
        assert "(1099511627776 bytes) its arrays exceed the limit" in message
        assert memory < 64 * MEBIBYTE


# -- NIR


def test_a_compressed_array_is_in_memory_once(tmp_path):
    """The process that decodes the array and the one that receives it share the memory."""
    path, limit = tmp_path / "bomb.nir", 192 * MEBIBYTE
    with h5py.File(path, "w") as file:
        dataset = file.create_dataset(
            "node/nodes/a/weight",
            shape=(limit // 8 - 1024,),
            dtype="f8",
            chunks=(2**17,),
            compression="gzip",
            compression_opts=9,
        )
        for start in range(0, limit // 8 - 1024, 2**22):
            dataset[start : start + 2**22] = 0
    assert path.stat().st_size < 2 * MEBIBYTE
    together = sampled_memory(lambda: read(path, max_bytes=limit))
    assert together < 1.5 * limit  # and not twice, for two processes


def sampled_memory(function):
    """Run a function in a child process; return the largest sum of the resident memory of the child and
    its own children that a sample every 10 ms shows, above that of the start.
    """
    start = resident_memory(os.getpid())
    child = os.fork()
    if child == 0:
        try:
            function()
        except JaxsnnError:
            pass
        finally:
            os._exit(0)
    most = 0
    while os.waitpid(child, os.WNOHANG)[0] == 0:
        grandchildren = Path(f"/proc/{child}/task/{child}/children").read_text().split()
        most = max(most, sum(resident_memory(number) - start for number in (child, *grandchildren)))
        time.sleep(0.01)
    return most


def resident_memory(number):
    try:
        fields = Path(f"/proc/{number}/statm").read_text().split()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return int(fields[1]) * resource.getpagesize()


def test_texts_that_share_their_bytes_are_limited(tmp_path):
    path = tmp_path / "many.nir"
    with h5py.File(path, "w") as file:
        file["node/text"] = np.array([b"x" * MEBIBYTE] + [b""] * 99, dtype=object)
        offset = file["node/text"].id.get_offset()
    data = bytearray(path.read_bytes())
    data[offset : offset + 16 * 100] = bytes(data[offset : offset + 16]) * 100
    path.write_bytes(data)
    message = r"with /node/text its texts exceed the limit of 67108864 bytes"
    assert_refused(lambda: read(path), FileError, message)


# -- arrays


def npy(description="'<f8'", shape="(3,)", content=bytes(24), order="False", version=b"\1\0"):
    header = f"{{'descr': {description}, 'fortran_order': {order}, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY" + version + struct.pack("<H", len(header)) + header + content


def archive(path, members, method=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", method) as file:
        for name, content in members:
            file.writestr(name, content)
    return path


NESTED = "(" + "(" * 5000 + ")" * 5000 + ")"
#: Arguments of `npy`, and a pattern of the reason.
INVALID_ARRAYS = {
    "negative shape": ({"shape": "(-3,)"}, "shape or an order is invalid"),
    "negative shapes": ({"shape": "(-3, -1)"}, "shape or an order is invalid"),
    "shape of fractions": ({"shape": "(1.5,)"}, "shape or an order is invalid"),
    "shape of booleans": ({"shape": "(True,)", "content": bytes(8)}, "shape or an order"),
    "too many axes": ({"shape": str((1,) * 33), "content": bytes(8)}, "shape or an order"),
    "empty and huge": ({"shape": str((0, 2**62)), "content": b""}, "is too large"),
    "order": ({"order": "3"}, "shape or an order is invalid"),
    "fewer bytes": ({"content": bytes(23)}, "24 bytes for the array, and there are 23"),
    "more bytes": ({"content": bytes(25)}, "24 bytes for the array, and there are 25"),
    "structured": ({"description": "[('a', '<f8')]"}, r"type \[\('a', '<f8'\)\]"),
    "void": ({"description": "'|V8'"}, r"type \|V8"),
    "times": ({"description": "'<M8[s]'"}, r"type <M8\[s\]"),
    "bits": ({"description": "'<i3'"}, "type <i3"),
    "nested": ({"shape": NESTED}, "header is damaged"),
    "calls": ({"shape": "print(1)"}, "header is damaged"),
    "version": ({"version": b"\7\0"}, "does not begin as an array"),
}


@pytest.mark.parametrize("case", INVALID_ARRAYS)
def test_invalid_headers_of_arrays_are_refused(case, tmp_path):
    options, reason = INVALID_ARRAYS[case]
    (tmp_path / "x.npy").write_bytes(npy(**options))
    assert_refused(lambda: map_array(tmp_path / "x.npy"), FileError, rf"x\.npy .*{reason}")
    path = archive(tmp_path / "x.npz", [("x.npy", npy(**options))])
    assert_refused(lambda: load_arrays(path), FileError, rf"x\.npz .*{reason}")


def test_long_headers_are_refused(tmp_path):
    content = b"\x93NUMPY\2\0" + struct.pack("<L", 2**20) + b" " * 2**20
    path = archive(tmp_path / "x.npz", [("x.npy", content)])
    assert_refused(lambda: load_arrays(path), FileError, "a header has 1048576 bytes")


def test_objects_are_refused(tmp_path):
    path = archive(tmp_path / "x.npz", [("x.npy", npy(description="'|O'"))])
    assert_refused(lambda: load_arrays(path), FileError, "array 'x' contains Python objects")


@pytest.mark.parametrize(
    ("description", "content", "reason"),
    [("'|b1'", b"\0\1\2", "booleans other"), ("'<U1'", b"\xff" * 12, "characters that do not")],
)
def test_bytes_that_are_no_value_of_the_type_are_refused(description, content, reason, tmp_path):
    path = archive(tmp_path / "x.npz", [("x.npy", npy(description=description, content=content))])
    assert_refused(lambda: load_arrays(path), FileError, reason)


def test_arrays_without_bytes_are_limited_by_their_number(tmp_path):
    content = npy(description="'<U0'", shape=f"({10**12},)", content=b"")
    path = archive(tmp_path / "x.npz", [("x.npy", content)])
    assert_refused(lambda: load_arrays(path), FileError, "exceed the limit")


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_arrays_of_numpy_are_read_with_every_bit(save, tmp_path):
    arrays = {
        "numbers": np.random.default_rng(0).normal(size=(200, 700)),
        "scalar": np.float32(3),
        "none": np.zeros((0, 5)),
        "text": np.array(["ä", "xyz"]),
        "bytes": np.array([b"ab"]),
        "fortran": np.asfortranarray(np.arange(6).reshape(2, 3)),
        "big": np.arange(5, dtype=">i4"),
        "boolean": np.array([True, False]),
        "complex": np.ones(3, complex),
        "half": np.ones(2, np.float16),
    }
    save(tmp_path / "x.npz", **arrays)
    loaded = load_arrays(tmp_path / "x.npz")
    assert list(loaded) == list(arrays)
    for name, array in arrays.items():
        assert (loaded[name].dtype, loaded[name].shape) == (array.dtype, array.shape)
        assert loaded[name].tobytes() == array.tobytes()
        np.save(tmp_path / "x.npy", array)
        assert map_array(tmp_path / "x.npy").tobytes() == array.tobytes()


def test_a_zip_bomb_stays_within_the_memory(tmp_path):
    """A member that is larger than the archive and the header of its array say."""
    path, size = tmp_path / "x.npz", 160 * MEBIBYTE
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file,
        file.open("x.npy", "w") as member,
    ):
        member.write(npy())
        for _ in range(size // MEBIBYTE):
            member.write(bytes(MEBIBYTE))
    memory, message = memory_of(lambda: load_arrays(path))
    assert "24 bytes for the array" in message
    assert memory < 64 * MEBIBYTE
    data = bytearray(path.read_bytes())
    table = data.index(b"PK\1\2")
    data[table + 24 : table + 28] = len(npy()).to_bytes(4, "little")
    path.write_bytes(data)
    memory, message = memory_of(lambda: load_arrays(path))
    assert "does not have the" in message
    assert memory < 64 * MEBIBYTE


def damaged(change):
    """A function that changes the bytes of an archive of two arrays."""
    written = io.BytesIO()
    np.savez_compressed(written, a=np.arange(50), b=np.arange(50.0))
    data = bytearray(written.getvalue())
    change(data)
    return bytes(data)


def renamed(data):
    data[data.rindex(b"b.npy")] = ord("a")
    data[data.index(b"b.npy")] = ord("a")


def changed(place, number, signature=b"PK\1\2"):
    def change(data):
        data[data.index(signature) + place] = number

    return change


#: Change of an archive, and a pattern of the reason.
DAMAGED_ARCHIVES = {
    "equal names": (renamed, "two members with the same name"),
    "encrypted": (changed(8, 1), "is encrypted"),
    "method": (changed(10, 12), "compressed with method 12"),
    "checksum": (changed(16, 7), "does not match its checksum"),
    "other name": (changed(46, 99), "is truncated or damaged"),
    "several disks": (changed(4, 1, b"PK\5\6"), "archive of several files"),
    "fewer members": (changed(10, 1, b"PK\5\6"), "table of members is damaged"),
    "more members": (changed(10, 3, b"PK\5\6"), "table of members is damaged"),
    "beyond the end": (changed(21, 200), "is truncated or damaged"),
    "size of the array": (changed(24, 7), "bytes for the array"),
    "added bytes": (lambda data: data.insert(data.index(b"PK\1\2"), 0), "missing or added"),
}


@pytest.mark.parametrize("case", DAMAGED_ARCHIVES)
def test_damaged_archives_are_refused(case, tmp_path):
    change, reason = DAMAGED_ARCHIVES[case]
    (tmp_path / "x.npz").write_bytes(damaged(change))
    message = rf"x\.npz is not an \.npz file of arrays .*{reason}"
    assert_refused(lambda: load_arrays(tmp_path / "x.npz"), FileError, message)


def test_archives_of_very_many_members_are_refused(tmp_path):
    entry = struct.pack("<4s6H3L5H2L", b"PK\1\2", *([0] * 15), 0)
    table = entry * 70_000
    end = struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, *[70_000] * 2, len(table), 2)
    locator = struct.pack("<4sLQL", b"PK\6\7", 0, 2 + len(table), 1)
    last = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 65535, 65535, 2**32 - 1, 2**32 - 1, 0)
    (tmp_path / "x.npz").write_bytes(b"PK" + table + end + locator + last)
    assert_refused(lambda: load_arrays(tmp_path / "x.npz"), FileError, "it has 70000 members")


def test_an_archive_with_64_bits_is_read(tmp_path):
    path = tmp_path / "x.npz"
    np.savez(path, a=np.arange(3))
    data = path.read_bytes()
    place = data.index(b"PK\5\6")
    _, _, _, count, _, size, start, _ = struct.unpack("<4s4H2LH", data[place:])
    end = struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, count, count, size, start)
    locator = struct.pack("<4sLQL", b"PK\6\7", 0, place, 1)
    last = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 65535, 65535, 2**32 - 1, 2**32 - 1, 0)
    path.write_bytes(data[:place] + end + locator + last)
    assert load_arrays(path)["a"].tolist() == [0, 1, 2]


# -- images


def idx(shape, content=b"", kind=8):
    sizes = b"".join(count.to_bytes(4, "big") for count in shape)
    return bytes([0, 0, kind, len(shape)]) + sizes + content


def test_a_gzip_bomb_stays_within_the_memory(tmp_path):
    """2 MB that expand to 2 GB, of which the header announces all or a part."""
    path, limit = tmp_path / "train-images-idx3-ubyte.gz", 256 * MEBIBYTE
    for announced, reason in (
        (2**31 - 2**20, "exceed the limit"),
        (1000, "more data than the 1000"),
    ):
        with gzip.GzipFile(path, "wb", compresslevel=1) as file:
            file.write(idx((announced,)))
            for _ in range(150):
                file.write(bytes(MEBIBYTE))
        assert path.stat().st_size < 3 * MEBIBYTE
        with limit_reading(max_bytes=limit):
            memory, message = memory_of(lambda: read_idx(path))
        assert reason in message
        assert memory < 64 * MEBIBYTE


def test_what_follows_an_idx_array_is_refused(tmp_path):
    content = gzip.compress(idx((2,), b"ab"))
    (tmp_path / "a.gz").write_bytes(content)
    assert read_idx(tmp_path / "a.gz").tolist() == [97, 98]
    for more in (b"x", content, bytes(8)):
        (tmp_path / "a.gz").write_bytes(content + more)
        assert_refused(lambda: read_idx(tmp_path / "a.gz"), FileError, "more data than the 2 bytes")


@pytest.mark.parametrize("labels", [idx((1,), struct.pack(">f", 1.5), 13), idx((2,), b"ab")])
def test_labels_are_integers_and_as_many_as_images(labels, tmp_path):
    (tmp_path / "train-images-idx3-ubyte").write_bytes(idx((1, 2, 2), bytes(4)))
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(labels)
    assert_refused(lambda: read_images(tmp_path, "train"), FileError, "one integer per image")


def test_labels_of_classes_that_do_not_exist_are_refused(tmp_path):
    for part, label in (("train", b"\7"), ("t10k", b"\12")):
        (tmp_path / f"{part}-images-idx3-ubyte").write_bytes(idx((1, 2, 2), bytes(4)))
        (tmp_path / f"{part}-labels-idx1-ubyte").write_bytes(idx((1,), label))
    message = "the label of sample 0 is 10, and labels range from 0 to 9"
    assert_refused(lambda: mnist_splits(folder=tmp_path), JaxsnnError, message)


def test_the_numbers_of_images_count_as_they_are_in_memory(tmp_path):
    for part in ("train", "t10k"):
        (tmp_path / f"{part}-images-idx3-ubyte").write_bytes(idx((10, 10, 10), bytes(1000)))
        (tmp_path / f"{part}-labels-idx1-ubyte").write_bytes(idx((10,), bytes(10)))
    with limit_reading(max_bytes=2 * 4040):
        assert mnist_splits(folder=tmp_path)
    with limit_reading(max_bytes=2 * 4040 - 1):
        message = r"the brightness of the test images \(4000 bytes\) its arrays exceed"
        assert_refused(lambda: mnist_splits(folder=tmp_path), FileError, message)


def chunk(kind, content):
    body = kind + content
    return len(content).to_bytes(4, "big") + body + zlib.crc32(body).to_bytes(4, "big")


def png(width=2, height=2, content=None, more=b""):
    rows = bytes((width + 1) * height) if content is None else content
    header = struct.pack(">2L5B", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + more
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


def bomb(size):
    compressor = zlib.compressobj(9)
    pieces = [compressor.compress(bytes(MEBIBYTE)) for _ in range(size // MEBIBYTE)]
    return b"".join(pieces) + compressor.flush()


#: Images that need much memory, and a pattern of the message, which is empty where Pillow leaves the
#: text of an image out.
BOMBS = {
    "pixels": (lambda: png(60_000, 60_000, b""), "exceeds limit of"),
    "pixels at the limit of Pillow": (lambda: png(13_000, 13_000, b""), "exceed the limit"),
    "zTXt": (lambda: png(more=chunk(b"zTXt", b"a\0\0" + bomb(2**28))), ""),
    "iTXt": (lambda: png(more=chunk(b"iTXt", b"a\0\1\0\0\0" + bomb(2**28))), ""),
    "iCCP": (lambda: png(more=chunk(b"iCCP", b"a\0\0" + bomb(2**28))), ""),
}


@pytest.mark.parametrize("case", BOMBS)
def test_images_stay_within_the_memory(case, tmp_path):
    make, message = BOMBS[case]
    path, limit = tmp_path / "a.png", 64 * MEBIBYTE
    path.write_bytes(make())
    with limit_reading(max_bytes=limit):
        memory, actual = memory_of(lambda: read_pngs([path], ByteBudget(path)))
    assert memory < limit + 128 * MEBIBYTE  # and not 256 MiB, as the bombs expand to
    assert "unexpected" not in actual
    assert re.search(message, actual)


def test_all_images_of_a_folder_have_one_process_and_one_time_limit(tmp_path, monkeypatch):
    paths = [tmp_path / f"{number}.png" for number in range(40)]
    for number, path in enumerate(paths):
        path.write_bytes(png(content=bytes([0, number, 2, 0, 3, 4])))
    forks, fork = [], os.fork
    monkeypatch.setattr(os, "fork", lambda: forks.append(1) or fork())
    images = read_pngs(paths, ByteBudget(tmp_path))
    assert images.tolist() == [[[number, 2], [3, 4]] for number in range(40)]
    assert len(forks) == 1
    with limit_reading(read_timeout=float("inf")):
        assert read_pngs(paths, ByteBudget(tmp_path)).tolist() == images.tolist()
    assert len(forks) == 1
    with limit_reading(read_timeout=1e-3):
        assert_refused(
            lambda: read_pngs(paths, ByteBudget(tmp_path)), FileError, r"not read within 0\.001 s"
        )


def test_the_images_of_a_folder_count_together(tmp_path):
    paths = [tmp_path / f"{number}.png" for number in range(10)]
    for path in paths:
        path.write_bytes(png(10, 10))
    with limit_reading(max_bytes=1000):
        assert read_pngs(paths, ByteBudget(tmp_path)).shape == (10, 10, 10)
        message = r"its images \(1100 bytes\)"
        assert_refused(
            lambda: read_pngs([*paths, paths[0]], ByteBudget(tmp_path)), FileError, message
        )


def test_a_folder_whose_label_is_too_large_is_refused(tmp_path):
    folder = tmp_path / "train" / "99999999999"
    folder.mkdir(parents=True)
    (folder / "a.png").write_bytes(png())
    assert_refused(lambda: read_images(tmp_path, "train"), FileError, "is not a label")


# -- sounds


def wav(
    content=bytes(200), rate=8000, kind=1, channels=1, bits=16, frame=None, size=None, parts=b""
):
    frame = channels * bits // 8 % 2**16 if frame is None else frame
    layout = struct.pack("<2H2L2H", kind, channels, rate, rate * frame % 2**32, frame, bits)
    size = len(content) if size is None else size
    body = b"WAVEfmt " + struct.pack("<L", 16) + layout + parts
    body += b"data" + struct.pack("<L", size) + content
    return b"RIFF" + struct.pack("<L", len(body)) + body


FLOATS = np.zeros(100, "<f4")


def floats(value, place=70):
    samples = FLOATS.copy()
    samples[place] = value
    return wav(samples.tobytes(), kind=3, bits=32)


#: Sounds, and a pattern of the reason.
INVALID_SOUNDS = {
    "absurd rate": (wav(rate=200_000_000), "200000000 samples per second"),
    "rate 0": (wav(rate=0), "0 samples per second"),
    "low rate": (wav(rate=999), "999 samples per second"),
    "NaN": (floats(np.nan), "sample 70 of channel 0 is nan"),
    "infinity": (floats(-np.inf), "sample 70 of channel 0 is -inf"),
    "very large": (floats(1e30), r"sample 70 of channel 0 is 1e\+30"),
    "no channels": (wav(channels=0), "0 channels"),
    "many channels": (wav(channels=65535), "65535 channels"),
    "bits": (wav(bits=12), "format 1 with 12 bits"),
    "compressed": (wav(kind=85), "format 85 with 16 bits"),
    "frame": (wav(frame=7), "7 bytes, and 1 channels of 16 bits need 2"),
    "half a sample": (wav(bytes(201)), "201 bytes of samples"),
    "no samples": (wav(b""), "0 bytes of samples"),
    "too few samples": (wav(size=2**31), "has 200 bytes, and its header says 2147483648"),
    "two formats": (wav(parts=wav()[12:36]), "two parts b'fmt '"),
    "two sounds": (wav(parts=wav()[36:]), "two parts b'data'"),
    "no format": (wav()[:12] + wav()[36:], "no format or no samples"),
    "no sound": (wav()[:36], "no format or no samples"),
    "many parts": (wav(parts=b"abcd\0\0\0\0" * 5000), "more than 4096 parts"),
    "other order": (b"RIFX" + wav()[4:], "not as a WAV file"),
}


@pytest.mark.parametrize("case", INVALID_SOUNDS)
def test_invalid_sounds_are_refused(case, tmp_path):
    content, reason = INVALID_SOUNDS[case]
    (tmp_path / "a.wav").write_bytes(content)
    message = rf"a\.wav cannot be read as sound .*{reason}"
    memory, actual = memory_of(lambda: read_sound(tmp_path / "a.wav"))
    assert memory < 64 * MEBIBYTE
    assert_refused(lambda: read_sound(tmp_path / "a.wav"), FileError, message)
    assert "cannot be read as sound" in actual


def test_no_sound_is_read_further_than_its_spectrum_needs(tmp_path):
    """The rest of a long recording is left out, and reported."""
    for name in ("a_b_0.wav", "a_b_7.wav", "a_b_8.wav"):
        with open(tmp_path / name, "wb") as file:
            start = wav(b"", size=2**31 - 2**20)
            file.write(start)
            file.truncate(len(start) + 2**31 - 2**20)
    memory, message = memory_of(lambda: spoken_splits(folder=tmp_path))
    assert message == ""
    assert memory < 64 * MEBIBYTE
    _, notes = spoken_splits(folder=tmp_path)
    assert "3 of 3" in notes[0]


def test_integers_of_24_bits_are_read(tmp_path):
    (tmp_path / "a.wav").write_bytes(wav(b"\1\0\0" + b"\xff\xff\xff" + b"\0\0\x80", bits=24))
    assert read_sound(tmp_path / "a.wav").samples.tolist() == [256, -256, -(2**31)]


# -- texts


def ts(channels=12, value="0.5", label="3", frames=2):
    row = ":".join([",".join([value] * frames)] * channels)
    return f"@data\n{row}:{label}\n"


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"value": "nan"}, "line 2: channel 0 has nan in frame 0"),
        ({"value": "1e300"}, r"line 2: channel 0 has 1e\+300 in frame 0"),
        ({"label": "0"}, "line 2: the label is '0'"),
        ({"label": "9" * 5000}, "line 2: the label is '9999"),
        ({"channels": 13}, "line 2: 13 channels of up to 2 frames"),
        ({"frames": 30}, "line 2: 12 channels of up to 30 frames"),
        ({"frames": 2**17}, "line 2: 12 channels of up to 131072 frames"),
    ],
)
def test_invalid_utterances_are_refused(options, reason, tmp_path):
    (tmp_path / "a.ts").write_text(ts(**options))
    assert_refused(lambda: read_ts(tmp_path / "a.ts"), FileError, reason)
    memory, _ = memory_of(lambda: read_ts(tmp_path / "a.ts"))
    assert memory < 32 * MEBIBYTE


# -- time


def test_many_small_files_have_one_time_limit(tmp_path):
    for number in range(200):
        (tmp_path / f"a_b_{number}.wav").write_bytes(wav())
    with limit_reading(read_timeout=1e-3):
        message = r"was not read within 0\.001 s"
        assert_refused(lambda: spoken_splits(folder=tmp_path), FileError, message)


def test_decompression_has_a_time_limit(tmp_path):
    with gzip.GzipFile(tmp_path / "a.gz", "wb", compresslevel=1) as file:
        file.write(idx((50 * MEBIBYTE,)) + bytes(50 * MEBIBYTE))
    with limit_reading(read_timeout=1e-3):
        assert_refused(lambda: read_idx(tmp_path / "a.gz"), FileError, "was not read within")


# -- numbers of data sets


@pytest.mark.parametrize("folder", [False, True], ids=["npz", "folder of npy"])
@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("x_train", np.nan, r"x_train contains 1 NaN among 60 values, the first at \(13, 2\)"),
        (
            "x_test",
            -np.inf,
            r"x_test contains 1 infinities among 60 values, the first at \(13, 2\)",
        ),
    ],
)
def test_numbers_that_are_not_finite_are_refused_with_their_place(
    folder, key, value, message, tmp_path
):
    arrays = {f"x_{part}": np.zeros((20, 3)) for part in ("train", "test")}
    arrays |= {f"y_{part}": np.arange(20) % 2 for part in ("train", "test")}
    arrays[key][13, 2] = value
    source = tmp_path / "data.npz"
    np.savez(source, **arrays)  # pyright: ignore[reportArgumentType]
    if folder:
        source = tmp_path
        for name, array in arrays.items():
            np.save(tmp_path / f"{name}.npy", array)
    assert_refused(lambda: load_splits(source), JaxsnnError, message)


def test_labels_of_a_folder_count(tmp_path):
    for part in ("train", "test"):
        np.save(tmp_path / f"x_{part}.npy", np.zeros((100, 3)))
        np.save(tmp_path / f"y_{part}.npy", np.arange(100) % 2)
    with limit_reading(max_bytes=2 * 12 * 100):
        assert len(load_splits(tmp_path)[0].test) == 100
    with limit_reading(max_bytes=2 * 12 * 100 - 1):
        assert_refused(lambda: load_splits(tmp_path), FileError, "'y_train'")
