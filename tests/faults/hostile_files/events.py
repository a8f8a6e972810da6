"""Hostile recordings of events: HDF5 files of spike trains, AEDAT, N-MNIST's .bin and ragged .npz."""

import os

import h5py
import numpy as np

from tests.faults.hostile_files.case import Corpus, arrays_file
from tests.helpers.event_files import (
    AEDAT3_HEADER,
    aedat2_bytes,
    aedat3_bytes,
    bin_bytes,
    packet,
    write_heidelberg,
)

CORPUS = Corpus()
EVENTS = [(10, 1, 2, 1), (20, 3, 4, 0)]


def add_camera(name, ending, content, *words):
    """A folder of labels with one hostile file among sound ones."""

    def write(folder):
        for label in ("0", "1"):
            for part in ("train", "test"):
                (folder / part / label).mkdir(parents=True)
                for number in range(2):
                    (folder / part / label / f"{number}.bin").write_bytes(bin_bytes(EVENTS))
        place = folder / "train" / "1" / f"mail{ending}"
        content(place) if callable(content) else place.write_bytes(content)

    CORPUS.add(
        f"events{ending}: {name}",
        write,
        *(words or ("mail",)),
        reader="camera events",
        path="recordings",
    )


def zeros(size):
    """A sparse file of zeros."""

    def write(place):
        place.touch()
        os.truncate(place, size)

    return write


def header_then_zeros(header, size):
    def write(place):
        place.write_bytes(header)
        os.truncate(place, size)

    return write


for size in (0, 1, 4, 6):
    add_camera(f"{size} bytes", ".bin", bytes(size))
add_camera("a pixel outside", ".bin", bin_bytes([(1, 34, 0, 0)]), "mail", "x = 34")
add_camera("1 GiB of zeros", ".bin", zeros(5 * 2**28), "mail", "limit")
for ending in (".bin", ".aedat", ".aedat4"):
    add_camera("a pipe", ending, os.mkfifo)
    add_camera("a link to a device", ending, lambda place: place.symlink_to("/dev/zero"))
    add_camera("a folder", ending, lambda place: place.mkdir())
add_camera("empty", ".aedat", b"")
add_camera("version 4", ".aedat", b"#!AER-DAT4.0\r\n" + bytes(64))
add_camera("header without an end", ".aedat", b"#!AER-DAT3.1\r\n#" + b"x" * 10**7)
add_camera(
    "1 GiB of AEDAT 2",
    ".aedat",
    header_then_zeros(b"#!AER-DAT2.0\r\n", 2**30 + 14),
    "mail",
    "limit",
)
add_camera("1 GiB of zeros in AEDAT 3", ".aedat", header_then_zeros(AEDAT3_HEADER, 2**30), "mail")
add_camera("address of 32 bits", ".aedat", aedat2_bytes([], end=b"\x7f" * 8))
for number in (-1, 2**28, 2**31 - 1):
    add_camera(f"packet of {number} events", ".aedat", aedat3_bytes(packet([], number=number)))
for size in (-8, 0, 4, 2**31 - 1):
    add_camera(
        f"events of {size} bytes", ".aedat", aedat3_bytes(packet(EVENTS, size=size), bytes(3))
    )
add_camera("clock before its start", ".aedat", aedat3_bytes(packet(EVENTS, overflow=-1)))
add_camera("half a packet", ".aedat", aedat3_bytes(packet(EVENTS))[:-5])
add_camera("column 30,000", ".aedat", aedat3_bytes(packet([(1, 30_000, 0, 1)])), "mail")
for name, content in (
    ("empty", b""),
    ("AEDAT 3 inside", aedat3_bytes(packet(EVENTS))),
    ("header of 4 GiB", b"#!AER-DAT4.0\r\n" + b"\xff" * 4 + bytes(64)),
    ("header without offsets", b"#!AER-DAT4.0\r\n\x40\0\0\0" + b"\x7f" * 64),
    ("packet of 4 GiB", b"#!AER-DAT4.0\r\n" + bytes(64) + b"\xff" * 8),
):
    add_camera(name, ".aedat4", content)


def add_heidelberg(name, change, *words):
    """A folder of SHD whose training samples are hostile."""

    def write(folder):
        folder.mkdir()
        for part in ("train", "test"):
            rows = [[0.1, 0.2]] * 6
            write_heidelberg(folder / f"shd_{part}.h5", rows, [[1, 2]] * 6, [0, 1] * 3)
        place = folder / "shd_train.h5"
        if isinstance(change, bytes):
            place.write_bytes(change)
            return
        with h5py.File(place, "a") as file:
            change(file)

    words = words or ("shd_train",)
    CORPUS.add(f"shd: {name}", write, *words, reader="spike trains", path="shd")


def replaced(name, **options):
    def change(file):
        del file[name]
        file.create_dataset(name, **options)

    return change


def linked(link):
    def change(file):
        del file["spikes/times"]
        file["spikes/times"] = link

    return change


def one_long_row(file):
    file["spikes/times"][0] = np.zeros(2**22, np.float16)
    file["spikes/units"][0] = np.zeros(2**22, np.uint16)


def external_data(file):
    del file["labels"]
    file.create_dataset("labels", (6,), "i1", external=[("/etc/passwd", 0, 6)])


add_heidelberg("no HDF5", b"hello")
add_heidelberg("zero bytes", bytes(4096))
add_heidelberg("times that are text", replaced("spikes/times", data=np.array(["a"] * 6, "S1")))
add_heidelberg(
    "times of 2^40 samples",
    replaced("spikes/times", shape=(2**40,), dtype=h5py.vlen_dtype("f2"), chunks=(1024,)),
)
add_heidelberg(
    "labels of 2^40 samples", replaced("labels", shape=(2**40,), dtype="i1", chunks=(1024,))
)
add_heidelberg("labels that are NaN", replaced("labels", data=np.full(6, np.nan)))
add_heidelberg(
    "a million keys",
    lambda file: file.create_dataset("extra/keys", (10**6,), "S10", chunks=(1024,)),
)
add_heidelberg("a soft link", linked(h5py.SoftLink("/labels")))
add_heidelberg("an external link", linked(h5py.ExternalLink("/etc/passwd", "/x")))
add_heidelberg("data of another file", external_data)
add_heidelberg("a row of 4 million events", one_long_row, "limit")


def add_npz(name, *words, **changes):
    arrays = {
        "t": np.arange(6),
        "x": np.arange(6) % 4,
        "offsets": np.arange(7),
        "labels": np.arange(6) % 2,
        "sensor_size": np.array([4, 1, 1]),
    }
    content = arrays_file(**(arrays | changes))
    CORPUS.add(f"events npz: {name}", content, *words, reader="ragged events", path="events.npz")


add_npz("offsets beyond the events", "offsets", offsets=np.array([0, 2**62]))
add_npz("offsets that fall", "offsets", offsets=np.array([0, 5, 3, 6, 6, 6, 6]))
add_npz("sensor of 2^62 pixels", "sensor_size", sensor_size=np.array([2**31, 2**31, 1]))
add_npz("sensor of no pixels", "sensor_size", sensor_size=np.array([0, 1, 1]))
add_npz("times before 0", "time", t=np.arange(6) - 1)
add_npz("labels of 2^40", "label", labels=np.full(6, 2**40))
add_npz("unit that is no time", "unit", time_unit=np.array("\x1b[2J"))
add_npz("columns between pixels", "x = 0.5", x=np.full(6, 0.5))
