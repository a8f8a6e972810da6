"""Hostile .npz and .npy files: inputs of a run, labelled data, recordings and results."""

import io
import os
import pickle
import struct
import zipfile

import numpy as np

from tests.faults.hostile_files.case import (
    Corpus,
    archive,
    arrays_file,
    deflated_zeros,
    described,
    npy,
    npy_header,
    zip_member,
)

CORPUS = Corpus()
TIME, INDEX = np.full((3, 2), 1e-3), np.array([[0, 1]] * 3)


def add(name, content, *words, reader="run", path="mail.npz", **options):
    CORPUS.add(f"npz: {name}", content, *words, reader=reader, path=path, **options)


def add_archive(name, content, *words, **options):
    """Add a file that is refused before its arrays are used."""
    add(name, content, *words, reader="arrays", **options)


def add_steps(name, content, *words):
    """Add inputs in time steps, whose length the command specifies."""
    add(name, content, *words, reader="run in steps")


def sound() -> bytes:
    """Inputs that `jaxsnn run` accepts."""
    return arrays_file(time=TIME, index=INDEX)


class _Opens:
    """An object whose unpickling would write a file."""

    def __reduce__(self):
        return os.system, ("touch unpickled",)


# -- containers

for number, keep in enumerate((0.02, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)):
    add_archive(f"truncated, {number + 1}", sound()[: int(keep * len(sound()))])
for cut in (1, 12, 20, 22):
    add_archive(f"{cut} bytes short", sound()[:-cut])
add_archive("text", b"hello")
add_archive("magic of an archive alone", b"PK\3\4")
add("end of an archive alone", b"PK\5\6" + bytes(18))
add_archive("a single array", npy(TIME), "without a name")
add_archive("a tar archive", b"time.npy".ljust(257, b"\0") + b"ustar" + bytes(800))
add_archive("an HDF5 file", b"\x89HDF\r\n\x1a\n" + bytes(100))
add_archive("a pickle", pickle.dumps({"time": TIME}))
add_archive("checksum of a member", zip_member(b"time.npy", npy(TIME), checksum=7))
add_archive("encrypted", zip_member(b"time.npy", npy(TIME), flags=1))
add_archive("compressed with method 99", zip_member(b"time.npy", npy(TIME), method=99))
add_archive(
    "compressed with bzip2",
    archive(("time.npy", npy(TIME)), ("index.npy", b"no"), compression=zipfile.ZIP_BZIP2),
)
add_archive(
    "compressed with lzma, no array",
    archive(("time.npy", b"\x93NUMPY"), compression=zipfile.ZIP_LZMA),
)
add_archive("deflate that is none", zip_member(b"time.npy", b"\xff" * 200, method=8, size=4000))
add_archive("member larger than the archive", zip_member(b"time.npy", npy(TIME), packed_size=2**31))
add_archive("member beyond the archive", zip_member(b"time.npy", npy(TIME), offset=2**31 - 5))
add_archive("names that differ", zip_member(b"time.npy", npy(TIME), local_name=b"size.npy"))
add_archive("directory beyond the file", sound()[:-6] + struct.pack("<I", 2**31) + sound()[-2:])
add_archive(
    "twice the same name",
    archive(("time.npy", npy(TIME)), ("time.npy", npy(TIME + 1)), ("index.npy", npy(INDEX))),
    "time",
)
add(
    "path to a parent folder",
    archive(("../time.npy", npy(TIME)), ("index.npy", npy(INDEX))),
    r"\.\./time",
)
add("absolute path", archive(("/etc/time.npy", npy(TIME)), ("index.npy", npy(INDEX))), "/etc/time")
add("path of Windows", archive(("C:\\time.npy", npy(TIME)), ("index.npy", npy(INDEX))), r"time")
add("name with a zero byte", zip_member(b"time.npy\0x", npy(TIME)))
add("name that steers a terminal", archive(("\x1b[2J.npy", npy(TIME))), r"\\(x|u00)1b")
add("name of two lines", archive(("a\nb.npy", npy(TIME))))
add("name of 60,000 letters", archive(("a" * 60_000 + ".npy", npy(TIME))))
add(
    "member without an array",
    archive(("time.npy", npy(TIME)), ("index.npy", npy(INDEX)), ("notes.txt", b"hello")),
    "notes",
)
add_archive(
    "empty member", archive(("time.npy", b""), ("index.npy", npy(INDEX))), "time|empty|magic|EOF"
)
add("folder as a member", archive(("time/", b""), ("index.npy", npy(INDEX))))
add_archive("archive in an archive", archive(("time.npy", sound())))
add("no members", archive())


def _many_members(path):
    member_names = (f"a{number}.npy" for number in range(70_000))
    path.write_bytes(archive(*((name, npy(0)) for name in member_names)))


add_archive("70,000 members", _many_members)


# -- bombs


def _bomb(header: bytes, mebibytes: int, **options) -> bytes:
    """A member that is a header of an array and many zeros, deflated."""
    stored = b"\x00" + struct.pack("<HH", len(header), len(header) ^ 0xFFFF) + header
    data = stored + deflated_zeros(mebibytes) + b"\x01\x00\x00\xff\xff"
    size = options.pop("size", len(header) + mebibytes * 2**20)
    return zip_member(b"time.npy", data, method=8, size=size, **options)


_GIBIBYTE = npy_header(described(f"({2**27},)"))
_SMALL = npy_header(described("(4,)"))
add_archive(
    "array of 1 GiB in 1 MB",
    lambda path: path.write_bytes(_bomb(_GIBIBYTE, 1024)),
    "16777216 bytes",
)
add_archive(
    "1 GiB after an array of four numbers", lambda path: path.write_bytes(_bomb(_SMALL, 1024))
)
add_archive(
    "1 GiB in a member whose size says 160",
    lambda path: path.write_bytes(_bomb(_SMALL, 1024, size=160)),
)
add_archive(
    "1 GiB of header",
    lambda path: path.write_bytes(_bomb(npy_header("", version=(2, 0), length=2**30), 1024)),
)
add_archive(
    "200 entries for the same 1 MiB",
    lambda path: path.write_bytes(
        zip_member(b"a.npy", npy_header(described(f"({2**17},)"), bytes(2**20)), count=200)
    ),
    "'a",
)


# -- headers of arrays

for shape in ("(-1,)", "(3, -1)", "(-2, -3)", f"(-{2**62},)"):
    add_archive(
        f"negative shape {shape}",
        archive(("time.npy", npy_header(described(shape), bytes(800)))),
        "time",
    )
for shape in (
    f"({2**70},)",
    f"({2**40},)",
    f"({2**32}, {2**32})",
    "(1000000000, 300)",
    f"({2**62}, 4, 4)",
):
    add_archive(
        f"shape {shape}", archive(("time.npy", npy_header(described(shape), bytes(800)))), "time"
    )
for shape in (
    "(1.5,)",
    "('a',)",
    "(None,)",
    "5",
    "[3]",
    "(True, 2)",
    "((3,),)",
    "{}",
    f"({'1, ' * 70})",
):
    add_archive(
        f"shape is {shape[:20]}", archive(("time.npy", npy_header(described(shape), bytes(800))))
    )
for name, text in {
    "a call": "__import__('os').system('touch unpickled')",
    "a list": "[1, 2]",
    "empty": "",
    "unclosed": "{'descr': '<f8'",
    "of zero bytes": "\0" * 64,
    "without a shape": "{'descr': '<f8', 'fortran_order': False}",
    "with another key": "{'descr': '<f8', 'fortran_order': False, 'shape': (3,), 'x': 1}",
    "with a number as order": described("(6,)", order="7"),
    "of 5,000 brackets": "(" * 5000 + ")" * 5000,
    "of 9,000 minus signs": "{'shape': (" + "-" * 9000 + "3,)}",
    "of 60,000 letters": "{'descr': '" + "a" * 60_000 + "', 'fortran_order': False, 'shape': (3,)}",
    "with a number of 9,000 digits": described("(" + "9" * 9000 + ",)"),
}.items():
    add_archive(f"header {name}", archive(("time.npy", npy_header(text, bytes(48)))))
add_archive(
    "header longer than the member",
    archive(("time.npy", npy_header(described("(6,)"), length=60_000))),
)
add_archive(
    "header of 4 GB",
    archive(("time.npy", npy_header(described("(6,)"), bytes(48), (2, 0), 2**32 - 1))),
)
add_archive(
    "header of 1 MB",
    archive(("time.npy", npy_header(described("(6,)").ljust(2**20), bytes(48), (2, 0)))),
)
add_archive("version 9", archive(("time.npy", b"\x93NUMPY\x09\x09" + npy(TIME)[8:])))
add_archive("magic of an array", archive(("time.npy", b"\x94NUMPY" + npy(TIME)[6:])))
for length in (3, 6, 8, 9, 40, 127, 135):
    add_archive(
        f"array of {length} bytes",
        archive(("time.npy", npy(TIME)[:length]), ("index.npy", npy(INDEX))),
    )
add_archive(
    "array with 8 bytes more",
    archive(("time.npy", npy(TIME) + bytes(8)), ("index.npy", npy(INDEX))),
    "time",
)

# -- types of arrays

add_archive(
    "object that runs a program",
    archive(
        ("time.npy", npy(np.array([_Opens()], object), allow_pickle=True)),
        ("index.npy", npy(INDEX)),
    ),
    "time",
    "object",
)
add_archive(
    "objects",
    archive(
        ("time.npy", npy(np.array([None, 1], object), allow_pickle=True)), ("index.npy", npy(INDEX))
    ),
    "time",
    "object",
)
for name, array in {
    "complex numbers": TIME + 1j,
    "texts": np.array([["1ms", "2ms"]] * 3),
    "bytes": np.array([[b"1", b"2"]] * 3),
    "dates": np.array([["2026-01-01", "NaT"]] * 3, "M8[D]"),
    "durations": np.array([[1, 2]] * 3, "m8[s]"),
    "records": np.zeros((3, 2), [("a", "f8"), ("b", "O")][:1]),
    "void": np.zeros((3, 2), "V8"),
}.items():
    add(f"times that are {name}", arrays_file(time=array, index=INDEX), "time")
for descr in (
    "'|O'",
    "'|V16'",
    "'<U1000000000'",
    "'|S0'",
    "('<f8', (1073741824,))",
    "[('a', '<f8', (1073741824,))]",
    "'<f3'",
    "7",
    "None",
    "'x' * 9",
):
    add_archive(
        f"type {descr}", archive(("time.npy", npy_header(described("(3, 2)", descr), bytes(48))))
    )

# -- inputs of a run

BAD = {"NaN": np.nan, "-inf": -np.inf, "negative": -1e-3}
for name, value in BAD.items():
    add(
        f"time {name}",
        arrays_file(time=np.array([[1e-3, value]]), index=np.array([[0, 1]])),
        "input",
    )
for name, value in {"4": 4, "negative": -2, "10^12": 10**12, "2^63 - 1": 2**63 - 1}.items():
    add(
        f"index {name}",
        arrays_file(time=np.array([[1e-3, 2e-3]]), index=np.array([[0, value]])),
        "input",
    )
for name, array in {
    "half": np.array([[0.5, 1.0]] * 3),
    "NaN": np.array([[np.nan, 1.0]] * 3),
    "complex": INDEX + 1j,
    "text": np.array([["0", "1"]] * 3),
    "of another shape": INDEX[:, :1],
    "of other samples": INDEX[:2],
    "of three axes": INDEX[..., None],
    "alone": None,
}.items():
    arrays = {"time": TIME} if array is None else {"time": TIME, "index": array}
    add(f"index {name}", arrays_file(**arrays), "index|input")
add("values NaN", arrays_file(time=TIME, index=INDEX, value=np.full((3, 2), np.nan)), "input")
add("values infinite", arrays_file(time=TIME, index=INDEX, value=np.full((3, 2), np.inf)), "input")
add("values of another shape", arrays_file(time=TIME, index=INDEX, value=np.ones(3)), "input")
add_steps("steps NaN", arrays_file(x=np.full((5, 1, 4), np.nan)), "input")
add_steps("steps infinite", arrays_file(x=np.full((5, 1, 4), np.inf)), "input")
add_steps("steps of five channels", arrays_file(x=np.zeros((5, 1, 5))), "5")
add_steps("steps of no axis", arrays_file(x=np.float64(3.0)), "input|x")
add_steps("steps of texts", arrays_file(x=np.full((5, 1, 4), "a")), "input|x")
add_steps("steps complex", arrays_file(x=np.zeros((5, 1, 4), complex)), "input|x")
add_steps("steps and events", arrays_file(x=np.zeros((5, 1, 4)), time=TIME, index=INDEX), "twice")
add("no inputs", arrays_file(a=TIME), "input")
add("inputs of another node", arrays_file(other__time=TIME, other__index=INDEX), "other|input")
add("no samples", arrays_file(time=TIME[:0], index=INDEX[:0]), "input")

# -- recordings of `jaxsnn verify`

X, Y = np.zeros((5, 1, 4)), np.zeros((5, 1, 2))
for name, arrays in {
    "outputs missing": {"x": X},
    "outputs NaN": {"x": X, "y": np.full(Y.shape, np.nan)},
    "outputs of 1e300": {"x": X, "y": np.full(Y.shape, 1e300)},
    "outputs infinite": {"x": X, "y": np.full(Y.shape, -np.inf)},
    "outputs of extended precision": {"x": X, "y": Y.astype(np.longdouble)},
    "outputs of three neurons": {"x": X, "y": np.zeros((5, 1, 3))},
    "outputs of other samples": {"x": X, "y": np.zeros((5, 2, 2))},
    "outputs of other steps": {"x": X, "y": np.zeros((4, 1, 2))},
    "outputs of texts": {"x": X, "y": np.full(Y.shape, "a")},
    "outputs complex": {"x": X, "y": Y + 1j},
    "outputs of another node": {"x": X, "other__y": Y},
    "inputs missing": {"y": Y},
    "inputs NaN": {"x": np.full(X.shape, np.nan), "y": Y},
    "inputs infinite": {"x": np.full(X.shape, np.inf), "y": Y},
    "inputs of dates": {"x": np.zeros(X.shape, "M8[s]"), "y": Y},
    "events": {"time": TIME, "index": INDEX, "y": Y},
    "no steps": {"x": X[:0], "y": Y[:0]},
}.items():
    add(f"recording, {name}", arrays_file(**arrays), reader="verify")
add("recording that is no archive", b"hello", reader="verify")
add(
    "recording of negative shape",
    archive(("x.npy", npy_header(described("(-1, 4)"), bytes(320)))),
    "x",
    reader="verify",
)
add("recording truncated", arrays_file(x=X, y=Y)[:-30], reader="verify")

# -- inputs of an emulated chip, and times and channels that other number types do not hold


def altered(array, value, dtype=None):
    """An array with another first number."""
    result = array.astype(dtype or array.dtype)
    result[0, 0] = value
    return result


for name, (arrays, *words) in {
    "time NaN": ({"time": altered(TIME, np.nan)}, "nan"),
    "time negative": ({"time": altered(TIME, -1e-3)}, "-0.001"),
    "time -inf": ({"time": altered(TIME, -np.inf)}, "-inf"),
    "time 1e39": ({"time": altered(TIME, 1e39)}, r"1e\+39"),
    "time 1e300": ({"time": altered(TIME, 1e300)}, r"1e\+300"),
    "time of extended precision": ({"time": TIME.astype(np.longdouble)}, "time"),
    "times complex": ({"time": TIME.astype(complex)}, "complex"),
    "times of texts": ({"time": np.full(TIME.shape, "a")}, "time"),
    "times of dates": ({"time": np.zeros(TIME.shape, "M8[s]")}, "time"),
    "channel 4": ({"index": altered(INDEX, 4)}, "channel 4"),
    "channel -1": ({"index": altered(INDEX, -1)}, "channel -1"),
    "channel 2^32": ({"index": altered(INDEX, 2**32)}, "4294967296"),
    "channel 2^64 - 1": ({"index": altered(INDEX, 2**64 - 1, np.uint64)}, str(2**64 - 1)),
    "channels of halves": ({"index": INDEX + 0.5}, "0.5"),
    "other shapes": ({"index": INDEX[:2]}, r"\(2, 2\)"),
    "three axes": ({"time": TIME[None], "index": INDEX[None]}, r"\(1, 3, 2\)"),
    "no samples": ({"time": TIME[:0], "index": INDEX[:0]}, "no samples"),
    "values": ({"value": TIME}, "GradedEvents"),
    "another node": ({"inptu.time": TIME}, "inptu"),
}.items():
    content = arrays_file(**({"time": TIME, "index": INDEX} | arrays))
    add(f"emulated, {name}", content, *words, reader="emulate")
for name in ("time 1e39", "time 1e300"):
    content = arrays_file(time=altered(TIME, float(name.split()[1])), index=INDEX)
    add(name, content, r"1e\+", reader="run")
add("emulated, no archive", b"hello", reader="emulate")
add("emulated, truncated", sound()[:-30], reader="emulate")

# -- what a chip recorded

SPIKES, NEURON = np.array([[2e-3, np.inf]] * 3), np.array([[0, 2]] * 3)


def result(**changes):
    """Spikes of the last population, as `jaxsnn compare` reads them."""
    return arrays_file(**{"4__time": SPIKES, "4__index": NEURON} | changes)


for name, arrays in {
    "time NaN": {"4__time": np.array([[np.nan, np.inf]] * 3)},
    "time negative": {"4__time": np.array([[-1e-3, np.inf]] * 3)},
    "time -inf": {"4__time": np.array([[-np.inf, np.inf]] * 3)},
    "time complex": {"4__time": SPIKES + 0j},
    "time of texts": {"4__time": np.full((3, 2), "1ms")},
    "index 2": {"4__index": np.array([[2, 2]] * 3)},
    "index negative": {"4__index": np.array([[-1, 2]] * 3)},
    "index 10^12": {"4__index": np.array([[10**12, 2]] * 3)},
    "index half": {"4__index": np.array([[0.5, 2]] * 3)},
    "index of another shape": {"4__index": NEURON[:, :1]},
    "padding of another population": {"4__index": np.array([[0, 6]] * 3)},
    "other samples": {"4__time": SPIKES[:2], "4__index": NEURON[:2]},
    "three axes": {"4__time": SPIKES[..., None], "4__index": NEURON[..., None]},
    "duration NaN": {"t_end": np.float64(np.nan)},
    "duration negative": {"t_end": np.float64(-1.0)},
    "duration of text": {"t_end": np.array("soon")},
    "duration of two": {"t_end": np.ones(2)},
    "fingerprints of numbers": {"fingerprint__inputs": np.ones(3)},
    "fingerprints of other samples": {"fingerprint__inputs": np.array(["a"] * 2)},
    "fingerprints of other inputs": {"fingerprint__inputs": np.array(["a"] * 3)},
}.items():
    add(f"chip, {name}", result(**arrays), reader="compare", path="OUT.npz")
add("chip, no populations", arrays_file(a=SPIKES), reader="compare", path="OUT.npz")
add("chip, no index", arrays_file(**{"4__time": SPIKES}), "4", reader="compare", path="OUT.npz")
add("chip, truncated", result()[:-30], reader="compare", path="OUT.npz")
add(
    "chip, objects",
    archive(("4.time.npy", npy(np.array([None], object), allow_pickle=True))),
    "4.time",
    reader="compare",
    path="OUT.npz",
)

for name, arrays in {
    "time NaN": {"a__time": np.array([[np.nan]]), "a__index": np.array([[0]])},
    "time negative": {"a__time": np.array([[-1.0]]), "a__index": np.array([[0]])},
    "time of texts": {"a__time": np.array([["1ms"]]), "a__index": np.array([[0]])},
    "time complex": {"a__time": np.array([[1j]]), "a__index": np.array([[0]])},
    "index negative": {"a__time": np.array([[1.0]]), "a__index": np.array([[-1]])},
    "index 10^12": {"a__time": np.array([[1.0]]), "a__index": np.array([[10**12]])},
    "index NaN": {"a__time": np.array([[1.0]]), "a__index": np.array([[np.nan]])},
    "index missing": {"a__time": np.array([[1.0]])},
    "other shapes": {"a__time": np.ones((2, 3)), "a__index": np.zeros((3, 2), int)},
    "three axes": {"a__time": np.ones((2, 3, 1)), "a__index": np.zeros((2, 3, 1), int)},
    "other samples": {
        "a__time": np.ones((2, 3)),
        "a__index": np.zeros((2, 3), int),
        "b__time": np.ones((1, 3)),
        "b__index": np.zeros((1, 3), int),
    },
    "no spikes": {"a": np.ones(3)},
}.items():
    add(f"picture, {name}", arrays_file(**arrays), reader="plot", path="OUT.npz")

# -- labelled data

GOOD = {
    "x_train": np.zeros((6, 4)),
    "y_train": np.arange(6) % 2,
    "x_test": np.zeros((2, 4)),
    "y_test": np.arange(2),
}
EVENTS = {
    f"{kind}_{part}": array[:size]
    for part, size in (("train", 6), ("test", 2))
    for kind, array in (
        ("time", np.full((6, 3), 1e-3)),
        ("index", np.zeros((6, 3), int)),
        ("y", np.arange(6) % 2),
    )
}
_LABELLED = {
    "labels missing": ({"y_train": None}, "y_train"),
    "test labels missing": ({"y_test": None}, "y_test"),
    "samples missing": ({"x_test": None}, "x_test"),
    "label negative": ({"y_train": np.array([0, 1, 0, 1, 0, -1])}, "y_train", "-1"),
    "label 10^12": ({"y_train": np.array([0, 1, 0, 1, 0, 10**12])}, "y_train", "1000000000000"),
    "label 2^31": ({"y_train": np.array([0, 1, 0, 1, 0, 2**31])}, "y_train"),
    "labels NaN": ({"y_train": np.full(6, np.nan)}, "label|y_train"),
    "labels of halves": ({"y_train": np.full(6, 0.5)}, "label|y_train"),
    "labels of texts": ({"y_train": np.array(["a"] * 6)}, "label|y_train"),
    "labels of two axes": ({"y_train": np.zeros((6, 1), int)}, "label|y_train|shape"),
    "one label": ({"y_train": np.int64(0)}, "label|y_train|shape"),
    "five labels of six": ({"y_train": np.zeros(5, int)}, "5", "6"),
    "no training samples": ({"x_train": np.zeros((0, 4)), "y_train": np.zeros(0, int)}, "train"),
    "no test samples": ({"x_test": np.zeros((0, 4)), "y_test": np.zeros(0, int)}, "test"),
    "NaN": ({"x_train": np.full((6, 4), np.nan)}, "x_train", "NaN"),
    "infinite": ({"x_train": np.full((6, 4), np.inf)}, "train"),
    "complex": ({"x_train": np.zeros((6, 4), complex)}, "x_train", "complex"),
    "texts": ({"x_train": np.full((6, 4), "a")}, "x_train"),
    "one number": ({"x_train": np.float64(1.0)}, "x_train"),
    "two kinds": (
        {"time_train": np.zeros((6, 1)), "index_train": np.zeros((6, 1), int)},
        "x_train",
        "time_train|index_train",
    ),
    "other channels in the test": ({"x_test": np.zeros((2, 5))}, "4|5"),
}
for name, (changes, *words) in _LABELLED.items():
    arrays = {key: array for key, array in (GOOD | changes).items() if array is not None}
    reader = "train" if "channels" in name else "labelled"  # those of the network decide
    add(f"labelled, {name}", arrays_file(**arrays), *words, reader=reader)
for name, (changes, *words) in {
    "time NaN": ({"time_train": np.full((6, 3), np.nan)}, "time_train"),
    "time negative": ({"time_train": np.full((6, 3), -1.0)}, "train"),
    "time complex": ({"time_train": np.full((6, 3), 1j)}, "time_train"),
    "index of texts": ({"index_train": np.full((6, 3), "a")}, "index_train"),
    "index of another shape": ({"index_train": np.zeros((6, 2), int)}, "index_train"),
    "index negative": ({"index_train": np.full((6, 3), -1)}, "train"),
    "index NaN": ({"index_train": np.full((6, 3), np.nan)}, "train"),
    "index 10^12": ({"index_train": np.full((6, 3), 10**12)}, "train"),
    "index missing": ({"index_train": None}, "index_train"),
    "value NaN": (
        {"value_train": np.full((6, 3), np.nan), "value_test": np.zeros((2, 3))},
        "value_train",
    ),
    "value infinite": (
        {"value_train": np.full((6, 3), np.inf), "value_test": np.zeros((2, 3))},
        "train",
    ),
    "value in one part": ({"value_train": np.ones((6, 3))}, "value_train", "value_test"),
}.items():
    arrays = {key: array for key, array in (EVENTS | changes).items() if array is not None}
    # Times, channels and sizes of events are judged where they are simulated.
    if words == ["train"]:
        add(f"labelled events, {name}", arrays_file(**arrays), reader="train", exit_code=-1)
    else:
        add(f"labelled events, {name}", arrays_file(**arrays), *words, reader="labelled")
add(
    "labelled for training, NaN",
    arrays_file(**GOOD | {"x_train": np.full((6, 4), np.nan)}),
    "x_train",
    reader="train",
)
add(
    "labelled for training, negative shape",
    archive(("x_train.npy", npy_header(described("(-6, 4)"), bytes(192)))),
    "x_train",
    reader="train",
)

# -- folders of .npy files


def add_folder(name, changes, *words):
    def write(folder):
        folder.mkdir()
        contents = {key: npy(array) for key, array in GOOD.items()} | changes
        for key, content in contents.items():
            place = folder / f"{key}.npy"
            content(place) if callable(content) else place.write_bytes(content)

    CORPUS.add(f"npy: {name}", write, *words, reader="labelled", path="folder")


def _npz():
    written = io.BytesIO()
    np.savez(written, x=np.zeros(3))
    return written.getvalue()


add_folder("empty", {"x_train": b""}, "x_train")
add_folder("magic alone", {"x_train": b"\x93NUMPY"}, "x_train")
add_folder("header truncated", {"x_train": npy(GOOD["x_train"])[:60]}, "x_train")
add_folder("numbers truncated", {"x_train": npy(GOOD["x_train"])[:-8]}, "x_train")
add_folder("numbers left over", {"x_train": npy(GOOD["x_train"]) + bytes(8)}, "x_train")
add_folder("an archive", {"x_train": _npz()}, "x_train")
add_folder("text", {"x_train": b"hello"}, "x_train")
add_folder("objects", {"x_train": npy(np.array([_Opens()], object), allow_pickle=True)}, "x_train")
add_folder("records", {"x_train": npy(np.zeros(6, [("a", "f8")]))}, "x_train")
add_folder("negative shape", {"x_train": npy_header(described("(-6, 4)"), bytes(192))}, "x_train")
add_folder("shape 2^70", {"x_train": npy_header(described(f"({2**70},)"), bytes(192))}, "x_train")
add_folder("shape 2^40", {"x_train": npy_header(described(f"({2**40},)"), bytes(192))}, "x_train")
add_folder(
    "a call in the header", {"x_train": npy_header("__import__('os')", bytes(192))}, "x_train"
)
add_folder(
    "5,000 brackets in the header", {"x_train": npy_header("(" * 5000, bytes(192))}, "x_train"
)
add_folder("header of 4 GB", {"x_train": npy_header("", bytes(192), (2, 0), 2**32 - 1)}, "x_train")
add_folder("a pipe", {"x_train": os.mkfifo}, "x_train")
add_folder(
    "a link to a device", {"x_train": lambda place: place.symlink_to("/dev/zero")}, "x_train"
)
add_folder("a folder", {"x_train": lambda place: place.mkdir()}, "x_train")
add_folder("a link to nowhere", {"x_train": lambda place: place.symlink_to("nowhere")}, "x_train")
add_folder("NaN", {"x_train": npy(np.full((6, 4), np.nan))}, "x_train", "NaN")
add_folder("labels that are missing", {"y_train": npy(np.zeros(5, int))}, "5", "6")
add_folder("labels negative", {"y_train": npy(np.full(6, -1))}, "y_train", "-1")
