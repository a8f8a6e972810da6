"""Hostile recordings in NIR's data format, and saved streams."""

import hashlib
import os
import struct

import h5py
import numpy as np

from tests.faults.hostile_files.case import Corpus

CORPUS = Corpus()


def sound(path):
    """Events of the input: two in each of three samples."""
    with h5py.File(path, "w") as file:
        file.attrs["__type__"] = "NIRGraphData"
        node = file.create_group("nodes/input")
        node.attrs["__type__"] = "NIRNodeData"
        events = node.create_group("observables/spikes")
        events.attrs.update({"__type__": "EventData", "n_neurons": 4, "t_max": 0.1})
        events["idx"], events["time"] = np.array([[0, 1]] * 3), np.full((3, 2), 1e-3)
    return path


EVENTS = "nodes/input/observables/spikes"


def add(name, edit, *words, **options):
    """A valid file that is edited through HDF5."""

    def write(path):
        with h5py.File(sound(path), "a") as file:
            edit(file)

    CORPUS.add(f"NIR data: {name}", write, *words, reader="run", path="mail.nir", **options)


def put(entry, value, **options):
    def edit(file):
        if f"{EVENTS}/{entry}" in file:
            del file[f"{EVENTS}/{entry}"]
        file[EVENTS].create_dataset(entry, data=value, **options)

    return edit


def attribute(name, value, place=EVENTS):
    def edit(file):
        if value is None:
            del file[place].attrs[name]
        else:
            file[place].attrs[name] = value

    return edit


def gridded(data, dt):
    """Time steps in place of the events."""

    def edit(file):
        del file[EVENTS]
        group = file.create_group(EVENTS)
        group.attrs["__type__"] = "TimeGriddedData"
        if dt is not None:
            group.attrs["dt"] = dt
        group["data"] = data

    return edit


def _drop(place):
    def edit(file):
        del file[place]

    return edit


def unwritten(entry, shape, chunks):
    """Numbers whose chunks are not in the file, so that all have the fill value."""

    def edit(file):
        del file[f"{EVENTS}/{entry}"]
        options = {"dtype": "f8", "chunks": chunks, "compression": "gzip", "fillvalue": 1.0}
        file[EVENTS].create_dataset(entry, shape=shape, **options)

    return edit


STEPS = np.zeros((2, 5, 4))
for name, (edit, *words) in {
    "type missing": (attribute("__type__", None, "/"), "NIRGraphData|type"),
    "type of a graph": (attribute("__type__", "NIRGraph", "/"), "NIRGraph"),
    "type of a node unknown": (attribute("__type__", "Node", "nodes/input"), "input"),
    "type of events unknown": (attribute("__type__", "Spikes"), "spikes"),
    "nodes missing": (_drop("nodes"),),
    "observables missing": (_drop("nodes/input/observables"),),
    "no observables": (_drop(EVENTS), "input"),
    "times missing": (_drop(f"{EVENTS}/time"), "time"),
    "indices missing": (_drop(f"{EVENTS}/idx"), "idx"),
    "time NaN": (put("time", np.array([[1e-3, np.nan]] * 3)), "nan"),
    "time infinite": (put("time", np.array([[1e-3, np.inf]] * 3)), "inf"),
    "time negative": (put("time", np.array([[1e-3, -1.0]] * 3)), "-1"),
    "time after the end": (put("time", np.array([[1e-3, 5.0]] * 3)), "5"),
    "times of texts": (put("time", np.array([[b"a", b"b"]] * 3)), "time"),
    "times complex": (put("time", np.ones((3, 2), complex)), "time"),
    "times of another shape": (put("time", np.ones((3, 3))), "time|shape|idx"),
    "index 4": (put("idx", np.array([[0, 4]] * 3)), "4"),
    "index -2": (put("idx", np.array([[0, -2]] * 3)), "-2"),
    "index 10^12": (put("idx", np.array([[0, 10**12]] * 3)), "1000000000000"),
    "indices of halves": (put("idx", np.full((3, 2), 0.5)), "idx"),
    "indices of one axis": (put("idx", np.zeros(2, int)), "idx|shape"),
    "no samples": (
        lambda file: (put("idx", np.zeros((0, 2), int))(file), put("time", np.zeros((0, 2)))(file)),
        "input|sample",
    ),
    "end NaN": (attribute("t_max", np.nan), "t_max"),
    "end infinite": (attribute("t_max", np.inf), "t_max"),
    "end negative": (attribute("t_max", -1.0), "t_max"),
    "end missing": (attribute("t_max", None), "t_max"),
    "end a text": (attribute("t_max", "soon"), "soon|t_max"),
    "end of two": (attribute("t_max", [1.0, 2.0]), "t_max"),
    "neurons 10^12": (attribute("n_neurons", 10**12), "1000000000000|n_neurons"),
    "neurons -4": (attribute("n_neurons", -4), "-4|n_neurons|idx|index"),
    "neurons 4.5": (attribute("n_neurons", 4.5), "n_neurons"),
    "neurons NaN": (attribute("n_neurons", np.nan), "n_neurons|NaN"),
    "neurons missing": (attribute("n_neurons", None), "n_neurons"),
    "attribute unknown": (attribute("offset", 3.0), "offset"),
    "dataset unknown": (put("more", np.ones(3)), "more"),
    "values NaN": (
        lambda file: (
            attribute("__type__", "ValuedEventData")(file),
            put("value", np.full((3, 2), np.nan))(file),
        ),
        "input",
    ),
    "values of another shape": (
        lambda file: (
            attribute("__type__", "ValuedEventData")(file),
            put("value", np.ones(3))(file),
        ),
        "value|shape",
    ),
    "steps NaN": (gridded(np.full(STEPS.shape, np.nan), 1e-3), "input"),
    "steps of five channels": (gridded(np.zeros((2, 5, 5)), 1e-3), "5"),
    "steps of one axis": (gridded(np.zeros(4), 1e-3), "input|shape"),
    "steps of texts": (gridded(np.full(STEPS.shape, b"a"), 1e-3), "data|input"),
    "dt 0": (gridded(STEPS, 0.0), "dt"),
    "dt negative": (gridded(STEPS, -1e-3), "dt"),
    "dt NaN": (gridded(STEPS, np.nan), "dt"),
    "dt 1e-300": (gridded(np.ones(STEPS.shape), 1e-300), "dt|1e-300"),
    "dt 1e300": (gridded(np.ones(STEPS.shape), 1e300), "dt|1e\\+?300"),
    "dt missing": (gridded(STEPS, None), "dt"),
    "times of 1 TB": (
        unwritten("time", (10**6, 10**5), (1, 1000)),
        "16777216 bytes",
    ),
}.items():
    add(name, edit, *words)


add(
    "times of 1 GiB that are not stored",
    unwritten("time", (2**17, 2**10), (64, 2**10)),
    "16777216 bytes",
)


def _broken(name, change, *words):
    def write(path):
        path.write_bytes(change(sound(path).read_bytes()))

    CORPUS.add(f"NIR data: {name}", write, *words, reader="run", path="mail.nir")


for keep in (8, 9, 96, 500, 1500):
    _broken(f"{keep} bytes", lambda data, keep=keep: data[:keep])
_broken("zeros after the signature", lambda data: data[:8] + bytes(len(data) - 8))
_broken("tree of too many", lambda data: data.replace(b"TREE\0\0", b"TREE\0\xff", 1))

# -- saved streams

MAGIC = b"jaxsnn stream 1\n"


def stream(
    sizes=(2, 0, 0, 0), fingerprint=bytes(32), magic=MAGIC, numbers=None, digest=None
) -> bytes:
    """A saved stream whose parts the caller may change; `numbers` follow the sizes."""
    values, neurons, queue, _ = sizes
    count = values + 2 * neurons + 9 * queue
    body = bytes(8 * count) if numbers is None else numbers
    content = magic + fingerprint + struct.pack("<4q", *sizes) + body
    return content + (hashlib.sha256(content).digest() if digest is None else digest)


def add_stream(name, content, *words, reader="stream"):
    CORPUS.add(f"stream: {name}", content, *words, reader=reader, path="mail.stream")


for keep in (0, 1, 15, 16, 30, 47, 48, 60, 79, 80, 90, 127):
    add_stream(f"{keep} bytes", stream()[:keep])
add_stream("text", b"hello")
add_stream("another version", stream(magic=b"jaxsnn stream 2\n"))
add_stream("another network", stream(fingerprint=b"x" * 32))
add_stream("checksum", stream(digest=bytes(32)))
add_stream("a byte more", stream() + b"\0")
for name, sizes in {
    "2^62 numbers": (2**62, 0, 0, 0),
    "2^61 neurons": (2, 2**61, 0, 0),
    "10^12 entries": (2, 0, 10**12, 0),
    "sizes whose sum wraps": (2, 2**62, 2**62, 0),
    "-2 numbers": (-2, 0, 0, 0),
    "-1 neurons": (4, -1, 0, 0),
    "-1 entries": (11, 0, -1, 0),
    "one number": (1, 0, 0, 0),
}.items():
    add_stream(name, stream(sizes, numbers=bytes(16)))


def _sparse(place):
    place.write_bytes(stream()[:-32])
    os.truncate(place, 2**30)


add_stream("1 GiB of zeros", _sparse)


def _honest(place):
    """Sizes that match a file of 1 GiB, which takes no room on the disk."""
    numbers = (2**30 - 112) // 8
    place.write_bytes(stream((numbers, 0, 0, 0), numbers=b"")[:-32])
    os.truncate(place, 80 + 8 * numbers + 32)


add_stream("1 GiB, as the header says", _honest)
