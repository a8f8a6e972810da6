"""Files that nobody should read as a network, each with what is said of it.

    python -m tests.faults.hostile_corpus FOLDER

writes them all. Those of `FILES` are a sound net that was edited through HDF5, those of `BYTES` one
whose bytes were; `READ` are read, and a note says what is odd.
"""

import sys
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np

from jaxsnn.nir import build, write

NODES = "node/nodes"
LINEAR, LIF, INPUT, OUTPUT = (f"{NODES}/{name}" for name in ("1", "2", "input", "output"))


def sound(path):
    """Input 3, Linear 3 to 4, LIF 4, Output 4."""
    net = [build.input(3), build.linear(weight=np.ones((4, 3))), build.lif(4, tau="10ms")]
    write(path, build.sequential(*net), force=True)
    return path


def put(name, value, **options) -> Callable[[h5py.File], None]:
    """Replace an entry."""

    def edit(file):
        if name in file:
            del file[name]
        file.create_dataset(name, data=value, **options)

    return edit


def drop(name):
    def edit(file):
        del file[name]

    return edit


def typed(name, make, shape=(4,)):
    """An entry of a type of HDF5's that h5py does not write."""

    def edit(file):
        del file[name]
        group, _, last = name.rpartition("/")
        space = h5py.h5s.create_simple(shape) if shape else h5py.h5s.create(h5py.h5s.SCALAR)
        h5py.h5d.create(file[group].id, last.encode(), make(), space)

    return edit


def integer_type(bits):
    def make():
        kind = (h5py.h5t.STD_I32LE if bits < 32 else h5py.h5t.STD_I64LE).copy()
        kind.set_size(bits // 8)
        kind.set_precision(bits)
        return kind

    return make


def opaque():
    kind = h5py.h5t.create(h5py.h5t.OPAQUE, 5)
    kind.set_tag(b"x")
    return kind


def edges(*pairs):
    return put("node/edges", np.array(pairs, dtype=object), dtype=h5py.string_dtype())


def of_type(kind, **parameters):
    """The Linear becomes another node."""

    def edit(file):
        del file[LINEAR]
        file[f"{LINEAR}/type"] = kind
        for name, value in parameters.items():
            file[f"{LINEAR}/{name}"] = value

    return edit


def linked(make):
    def edit(file):
        del file[f"{LINEAR}/weight"]
        make(file)

    return edit


def soft(file):
    file[f"{LINEAR}/weight"] = h5py.SoftLink("/node/nodes/2/tau")


def dangling(file):
    file[f"{LINEAR}/weight"] = h5py.SoftLink("/nowhere")


def outward(file):
    file[f"{LINEAR}/weight"] = h5py.ExternalLink("/etc/passwd", "/")


def hard(file):
    file[f"{LINEAR}/weight"] = np.ones((4, 3))
    file[f"{LINEAR}/bias"] = file[f"{LINEAR}/weight"]


def cycle(file):
    file["node/metadata/self"] = file["node"]


def deep(file):
    group = file["node"].create_group("deep")
    for _ in range(40):
        group = group.create_group("deeper")


def named_type(file):
    file[f"{LINEAR}/weight"] = np.dtype("f8")


def external(file):
    file[LINEAR].create_dataset(
        "weight", shape=(4, 3), dtype="f8", external=[("/etc/passwd", 0, 96)]
    )


def virtual(source):
    def make(file):
        layout = h5py.VirtualLayout(shape=(4, 3), dtype="f8")
        layout[:] = h5py.VirtualSource(source, f"/{LINEAR}/weight", shape=(4, 3))
        file[LINEAR].create_virtual_dataset("weight", layout)

    return make


def doubled(file):
    """Groups of two names each: as many paths as 2 to the number of groups."""
    group = file[LINEAR].create_group("g0")
    for _ in range(1, 28):
        inner = group.create_group("left")
        group["right"] = inner
        group = inner


def plugin(number):
    def make(file):
        properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        properties.set_chunk((4, 3))
        properties.set_filter(number, h5py.h5z.FLAG_OPTIONAL, ())
        space = h5py.h5s.create_simple((4, 3))
        h5py.h5d.create(file[LINEAR].id, b"weight", h5py.h5t.IEEE_F64LE, space, properties)

    return make


def enormous(file):
    file[LINEAR].create_dataset("weight", shape=(10**6, 10**6), dtype="f8", chunks=(1, 1000))


def bomb(file):
    file[LINEAR].create_dataset(
        "weight",
        shape=(2**17, 2**12),
        dtype="f8",
        chunks=(64, 2**12),
        compression="gzip",
        fillvalue=1.0,
    )


def reference(file):
    file[f"{LIF}/ref"] = file["node"].ref


def ragged(file):
    file[LIF].create_dataset("ragged", (2,), dtype=h5py.vlen_dtype("f8"))


def renamed(name):
    def edit(file):
        file[NODES].move("2", name)

    return edit


def nested_without_ports(file):
    del file[LINEAR]
    for name in ("a", "b"):
        file[f"{LINEAR}/nodes/{name}/type"] = "Input"
        file[f"{LINEAR}/nodes/{name}/shape"] = np.array([3])
    file[f"{LINEAR}/type"] = "NIRGraph"
    file[f"{LINEAR}/edges"] = np.zeros((0, 2))


CONV = {"stride": 1, "padding": 0, "dilation": 1, "groups": 1, "bias": np.zeros(2)}
NUMBERS = {"nan": np.nan, "infinite": np.inf, "minus infinite": -np.inf}

#: name -> (edit of a valid file, words of the refusal)
FILES = {
    "no node": (drop("node"), "it has no group 'node'"),
    "node a number": (put("node", 3), "it has no group 'node'"),
    "no nodes": (drop(NODES), "has no group 'nodes'"),
    "nodes a number": (put(NODES, 3.0), "has no group 'nodes'"),
    "no edges": (drop("node/edges"), "has no dataset 'edges'"),
    "edges a group": (
        lambda f: (drop("node/edges")(f), f.create_group("node/edges")),
        "has no dataset 'edges'",
    ),
    "edges flat": (put("node/edges", [b"input", b"1"]), "'edges' of the graph has the shape (2,)"),
    "edges of three": (put("node/edges", [[b"a", b"b", b"c"]]), "has the shape (1, 3)"),
    "edges of numbers": (put("node/edges", [[0, 1], [1, 2]]), "edge 0 -> 1 is dangling"),
    "edge to a line break": (edges(("input", "1"), ("1", "\n x")), r"edge 1 -> \n x is dangling"),
    "edge to nowhere": (edges(("input", "1"), ("1", "x")), "edge 1 -> x is dangling"),
    "edge into an input": (edges(("input", "1"), ("1", "2"), ("2", "input")), "but it is an Input"),
    "edge out of an output": (
        edges(("input", "1"), ("1", "2"), ("2", "output"), ("output", "1")),
        "but it is an Output",
    ),
    "no type": (drop(f"{LINEAR}/type"), "node '1' has no type"),
    "type a number": (put(f"{LINEAR}/type", 3), "node '1' has no type"),
    "type a list": (put(f"{LINEAR}/type", [b"Linear"]), "node '1' has no type"),
    "type unknown": (
        put(f"{LINEAR}/type", "Lineal"),
        "has the type Lineal, which is not supported",
    ),
    "type empty": (put(f"{LINEAR}/type", ""), "which is not supported"),
    "type not UTF-8": (put(f"{LINEAR}/type", np.array(b"LI\xe4", "S3")), "which is not supported"),
    "type a surrogate": (put(f"{LINEAR}/type", b"\xed\xa0\x80"), "which is not supported"),
    "type a time": (
        typed(f"{LINEAR}/type", lambda: h5py.h5t.UNIX_D32LE, ()),
        "a type that NumPy does not support",
    ),
    "type opaque": (typed(f"{LINEAR}/type", opaque, ()), "damaged or truncated"),
    "type that steers": (put(f"{LINEAR}/type", "a\x1b[2Jb"), "which is not supported"),
    "node a number ": (put(LINEAR, 3), "node '1' has no type"),
    "name that steers": (renamed("a\x1b[2J"), "is not valid text"),
    "name of two lines": (renamed("a\nb"), "is not valid text"),
    "name that turns": (renamed("a\u202eb"), "is not valid text"),
    "name a surrogate": (renamed(b"a\xed\xa0\x80"), "is not valid text"),
    "weight of 24 bits": (
        typed(f"{LINEAR}/weight", integer_type(24), (4, 3)),
        "a type that NumPy does not support",
    ),
    "weight of 128 bits": (
        typed(f"{LINEAR}/weight", integer_type(128), (4, 3)),
        "a type that NumPy does not support",
    ),
    "weight of times": (
        typed(f"{LINEAR}/weight", lambda: h5py.h5t.UNIX_D32LE, (4, 3)),
        "a type that NumPy does not support",
    ),
    "weight opaque": (typed(f"{LINEAR}/weight", opaque, (4, 3)), "damaged or truncated"),
    "weight complex": (
        put(f"{LINEAR}/weight", np.ones((4, 3), complex)),
        "'weight' has the type complex128, and must be numbers",
    ),
    "weight of pairs": (
        put(f"{LINEAR}/weight", np.ones(4, [("a", "f4"), ("b", "f4")])),
        "must be numbers",
    ),
    "weight of texts": (put(f"{LINEAR}/weight", [b"1", b"2"]), "must be numbers"),
    "weight a text": (put(f"{LINEAR}/weight", "many"), "has weight = 'many'"),
    "weight empty": (
        put(f"{LINEAR}/weight", h5py.Empty("f8")),
        "'weight' is not a dataset with a value",
    ),
    "weight a group": (
        linked(lambda f: f.create_group(f"{LINEAR}/weight")),
        "'weight' is not a dataset with a value",
    ),
    "weight gone": (drop(f"{LINEAR}/weight"), "has no weight"),
    "weight one number": (put(f"{LINEAR}/weight", 1.0), "node '1' (Linear)"),
    "weight flat": (put(f"{LINEAR}/weight", np.ones(12)), "node '1' (Linear)"),
    "weight of nothing": (put(f"{LINEAR}/weight", np.ones((0, 3))), "(0,)"),
    "weight turned": (put(f"{LINEAR}/weight", np.ones((3, 4))), "expects (4,)"),
    "weight deep": (put(f"{LINEAR}/weight", np.ones((2, 2, 4, 3))), "expects"),
    **{
        f"weight {name}": (put(f"{LINEAR}/weight", np.full((4, 3), value)), "weight that are")
        for name, value in NUMBERS.items()
    },
    **{
        f"tau {value}": (put(f"{LIF}/tau", np.full(4, value)), "tau that are")
        for value in (0.0, -1.0, np.nan)
    },
    "tau of three": (put(f"{LIF}/tau", np.ones(3)), "has tau of shape (3,) and"),
    "tau zero and of three": (put(f"{LIF}/tau", np.zeros(3)), "tau that are not positive"),
    "tau of texts": (put(f"{LIF}/tau", "10ms"), "has tau = '10ms'"),
    "r nan": (put(f"{LIF}/r", np.full(4, np.nan)), "values of r that are not finite"),
    "threshold gone": (drop(f"{LIF}/v_threshold"), "has no v_threshold"),
    "shape half": (put(f"{INPUT}/shape", [5.5]), "has shape = 5.5"),
    "shape negative": (put(f"{INPUT}/shape", [-3]), "has shape = -3"),
    "shape nan": (put(f"{INPUT}/shape", [np.nan]), "has shape = nan"),
    "shape a text": (put(f"{INPUT}/shape", "three"), "has shape = 'three'"),
    "shape wrong": (
        put(f"{INPUT}/shape", [7]),
        "has the shape (7,), but node '1' (Linear) expects (3,)",
    ),
    "shape enormous": (put(f"{INPUT}/shape", [2**62]), "has the shape"),
    "flatten from two axes": (
        of_type("Flatten", start_dim=[0, 1], end_dim=-1, input_type=[3]),
        "start_dim of shape (2,)",
    ),
    "flatten from a half": (
        of_type("Flatten", start_dim=0.5, end_dim=-1, input_type=[3]),
        "start_dim = 0.5",
    ),
    "flatten outside": (
        of_type("Flatten", start_dim=9, end_dim=12, input_type=[3]),
        "node '1' (Flatten)",
    ),
    "conv without stride": (
        of_type("Conv1d", weight=np.ones((2, 1, 2)), bias=np.zeros(2)),
        "has no stride",
    ),
    "conv with stride 0": (
        of_type("Conv1d", weight=np.ones((2, 1, 2)), **CONV | {"stride": 0}),
        "has stride = 0",
    ),
    "conv with half a stride": (
        of_type("Conv1d", weight=np.ones((2, 1, 2)), **CONV | {"stride": 1.5}),
        "has stride = 1.5",
    ),
    "conv of 0 groups": (
        of_type("Conv1d", weight=np.ones((2, 1, 2)), **CONV | {"groups": 0}),
        "has groups = 0",
    ),
    "conv padded by a name": (
        of_type("Conv1d", weight=np.ones((2, 1, 2)), **CONV | {"padding": "much"}),
        "padding",
    ),
    "conv flat": (of_type("Conv2d", weight=np.ones(4), **CONV), "node '1' (Conv2d)"),
    "pool of a negative kernel": (
        of_type("SumPool2d", kernel_size=-2, stride=1, padding=0),
        "has kernel_size = -2",
    ),
    "delay negative": (of_type("Delay", delay=np.full(3, -1.0)), "delay"),
    "nested without nodes": (of_type("NIRGraph"), "nested graph '1' has no group 'nodes'"),
    "nested without ports": (nested_without_ports, "nested graph '1'"),
    "soft link": (linked(soft), "is a link, which is not allowed"),
    "soft link to nowhere": (linked(dangling), "is a link, which is not allowed"),
    "link into another file": (linked(outward), "is a link, which is not allowed"),
    "two names": (linked(hard), "are links to the same object"),
    "groups of two names each": (doubled, "are links to the same object"),
    "a cycle of groups": (cycle, "are links to the same object"),
    "groups too deep": (deep, "groups are nested more than 32 levels deep"),
    "a named type": (linked(named_type), "is neither a group nor a dataset"),
    "numbers in another file": (linked(external), "stores its data outside of the file"),
    "numbers in another HDF5 file": (
        linked(virtual("else.h5")),
        "stores its data outside of the file",
    ),
    "numbers that are their own source": (
        linked(virtual(".")),
        "stores its data outside of the file",
    ),
    "filter of a plug-in": (linked(plugin(32015)), "is compressed with filter 32015"),
    "filter for scale and offset": (linked(plugin(6)), "is compressed with filter 6"),
    "enormous": (linked(enormous), "its arrays exceed"),
    "bomb": (linked(bomb), "its arrays exceed"),
    "a reference": (reference, "contains references"),
    "arrays of variable length": (ragged, "contains references or arrays of variable length"),
}


def patched(place, value, size=8):
    """Bytes at an offset from a signature are replaced; b"" is the beginning of the file."""
    word, offset = place

    def edit(data):
        start = (data.find(word) if word else 0) + offset
        assert start >= offset, word
        changed = bytearray(data)
        changed[start : start + size] = (
            value.to_bytes(size, "little") if isinstance(value, int) else value
        )
        return bytes(changed)

    return edit


def free_space(size):
    """The free space of the heap of texts gets another size: 0 makes libhdf5 loop."""

    def edit(data):
        place = data.find(b"GCOL") + 16
        while int.from_bytes(data[place : place + 2], "little"):
            place += 16 + -(-int.from_bytes(data[place + 8 : place + 16], "little") // 8) * 8
        return data[: place + 8] + size.to_bytes(8, "little") + data[place + 16 :]

    return edit


#: name -> (edit of the bytes of a valid file, words of the refusal); read by a separate process
BYTES = {
    "nothing": (lambda data: b"", "is not an HDF5 file (0 bytes)"),
    "text": (lambda data: b"hello", "is not an HDF5 file (5 bytes)"),
    "a signature": (lambda data: data[:8], "is damaged or truncated"),
    "half": (lambda data: data[: len(data) // 2], "is damaged or truncated"),
    "all but a byte": (lambda data: data[:-1], "is damaged or truncated"),
    "zeros after the signature": (
        lambda data: data[:8] + bytes(len(data) - 8),
        "is damaged or truncated",
    ),
    "signature broken": (patched((b"", 1), b"X", 1), "is not an HDF5 file"),
    "version of the superblock": (patched((b"", 8), 200, 1), "is damaged or truncated"),
    "size of addresses": (patched((b"", 13), 3, 1), "is damaged or truncated"),
    "root elsewhere": (patched((b"", 64), 2**40), "is damaged or truncated"),
    "end of file": (patched((b"", 40), 2**50), "is damaged or truncated"),
    "tree of another kind": (patched((b"TREE", 4), 9, 1), "is damaged or truncated"),
    "tree of too many": (patched((b"TREE", 6), 60000, 2), "is damaged or truncated"),
    "tree without a name": (patched((b"TREE", 0), b"EERT", 4), "is damaged or truncated"),
    "symbols of too many": (patched((b"SNOD", 6), 60000, 2), "is damaged or truncated"),
    "symbols elsewhere": (patched((b"SNOD", 16), 2**60), "is damaged or truncated"),
    "names elsewhere": (patched((b"HEAP", 24), 2**60), "is damaged or truncated"),
    "heap too large": (patched((b"GCOL", 8), 2**40), "an entry of a global heap"),
    "heap of no size": (patched((b"GCOL", 8), 0), "is damaged or truncated"),
    "a text of more than there is": (patched((b"GCOL", 24), 2**40), "an entry of a global heap"),
    "free space of no size": (free_space(0), "an entry of a global heap"),
    "free space too small": (free_space(8), "an entry of a global heap"),
    "a text of no index": (patched((b"GCOL", 16), bytes(16), 16), "an entry of a global heap"),
}

#: name -> (edit of a valid file, code of the warning)
READ = {
    "version 999": (put("version", "999"), "unknown-version"),
    "version a number": (put("version", 1.0), "unknown-version"),
    "version no text": (put("version", b"\xff\xfe"), "unknown-version"),
    "weight 2^63 - 1": (put(f"{LINEAR}/weight", np.full((4, 3), 2**63 - 1)), "suspicious"),
    "weight 2^64 - 1": (put(f"{LINEAR}/weight", np.full((4, 3), 2**64 - 1, "u8")), "suspicious"),
    "reset at the threshold": (put(f"{LIF}/v_reset", np.ones(4)), "suspicious"),
}


def write_corpus_file(name, path):
    """One file of the corpus."""
    sound(path)
    if name in BYTES:
        path.write_bytes(BYTES[name][0](path.read_bytes()))
        return path
    with h5py.File(path, "a") as file:
        (FILES | READ)[name][0](file)
    return path


def main(folder):
    """All files, with their names as they can be."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    for name in FILES | BYTES | READ:
        write_corpus_file(name, Path(folder) / f"{name.replace(' ', '_').replace('^', '')}.nir")


if __name__ == "__main__":
    main(sys.argv[1])
