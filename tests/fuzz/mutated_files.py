"""NIR files that are broken at random, each reproducible by its number: entries of a document are
dropped, swapped and replaced by what does not belong there, or bytes are changed where HDF5 keeps
its structure.
"""

import numpy as np

from jaxsnn.nir import build
from jaxsnn.nir.io.files import Dataset, Empty, Group, _image, load, text_dataset

#: Numbers that are difficult for arithmetic.
_NUMBERS = (
    *(0.0, -0.0, 1.0, -1.0, 0.5, 5.5, 1e-300, 5e-324, 1e30, 1e308, -1e308, np.nan, np.inf, -np.inf),
    *(2.0**31, 2.0**53 + 2, 1e-9, 1 + 1e-9, 999.0),
)
_WHOLE = (0, 1, -1, 2, 3, 127, -128, 2**15, 2**31 - 1, 2**31, 2**53 + 1, 2**63 - 1, -(2**63))
_DTYPES = [
    "f2",
    "f4",
    "f8",
    ">f4",
    ">f8",
    "i1",
    "i2",
    "i4",
    "i8",
    "u1",
    "u2",
    "u8",
    "?",
    "c8",
    "S3",
]
_TEXTS = (
    "",
    "NIRGraph",
    "LIF",
    "Lif",
    "same",
    "valid",
    "\x1b[2J",
    "a" * 300,
    "ä\ud800",
    "0",
    "{",
    "\0",
)
_TYPES = (
    *(
        "Affine",
        "AvgPool2d",
        "Conv1d",
        "Conv2d",
        "CubaLI",
        "CubaLIF",
        "Delay",
        "Flatten",
        "I",
        "IF",
    ),
    *(
        "Input",
        "LI",
        "LIF",
        "Linear",
        "NIRGraph",
        "Output",
        "Scale",
        "SumPool2d",
        "Threshold",
        "Sum",
    ),
)
#: Words with which HDF5 begins its structures.
_SIGNATURES = (b"TREE", b"SNOD", b"HEAP", b"GCOL", b"OHDR", b"OCHK", b"FRHP", b"BTHD", b"\x89HDF")


def templates(zoo):
    """Documents to begin with: small real files, and a net of each kind of node.

    Args:
        zoo: paths of real files.
    """
    small = sorted(zoo, key=lambda path: path.stat().st_size)[:3]
    return [*map(load, small), *(graph.source for graph in _built())]


def _built():
    rng = np.random.default_rng(0)
    window = {"stride": 1, "padding": 0, "dilation": 1, "groups": 1, "bias": np.zeros(2)}
    kernels = rng.normal(size=(2, 1, 2, 2))
    conv = build.node("Conv2d", weight=kernels, input_shape=np.array([4, 4]), **window)
    flat = build.node("Flatten", start_dim=0, end_dim=-1)
    yield build.sequential(build.input((1, 4, 4)), conv, flat, build.lif(tau="10ms"))
    weight = rng.normal(size=(3, 2))
    for neuron in (build.lif, build.li, build.cubalif, build.cubali):
        taus = (
            {"tau_mem": "20ms", "tau_syn": "5ms"}
            if neuron.__name__.startswith("cuba")
            else {"tau": "9ms"}
        )
        layers = [build.linear(weight=weight), neuron(3, **taus)]
        yield build.sequential(build.input(2), *layers, build.node("Delay", delay=np.full(3, 1e-3)))
    yield build.sequential(
        build.input(2), build.affine(weight=weight, bias=np.ones(3)), build.integrate_and_fire(3)
    )


# -- documents


def _places(group, path=()):
    """Paths of all entries of a document, below its root."""
    paths = []
    for name, entry in group.items():
        paths.append((*path, name))
        if isinstance(entry, Group):
            paths += _places(entry, (*path, name))
    return paths


def _at(document, path):
    for name in path:
        document = document[name]
    return document


def _copied(entry):
    if isinstance(entry, Group):
        return Group({name: _copied(child) for name, child in entry.items()}, entry.attributes)
    return entry


def odd_value(rng, entry=None):
    """A dataset that is mostly wrong where it stands."""
    kind = rng.integers(8)
    if kind == 0:
        return text_dataset(str(rng.choice(_TEXTS[:-2])))
    if kind == 1:
        dtype = np.dtype(str(rng.choice(_DTYPES[:-2])))
        return Dataset(value=Empty(dtype), dtype=dtype)
    if kind == 2:
        value = np.array(rng.choice(_WHOLE, size=_shape(rng)), np.int64)
    elif kind == 3:
        value = np.array(rng.choice(_NUMBERS, size=_shape(rng)))
    elif kind == 4 and entry is not None and isinstance(entry.value, np.ndarray):
        value = _one_changed(rng, entry.value)
    elif kind == 5 and entry is not None and isinstance(entry.value, np.ndarray):
        value = _reshaped(rng, entry.value)
    elif kind == 6:
        return text_dataset([["a", "b"]] * int(rng.integers(1, 4)))
    else:
        with np.errstate(all="ignore"):
            value = np.array(rng.choice(_NUMBERS, size=_shape(rng))).astype(
                str(rng.choice(_DTYPES))
            )
    return Dataset(value=np.asarray(value), dtype=np.asarray(value).dtype)


def _shape(rng):
    return tuple(int(size) for size in rng.integers(0, 4, int(rng.integers(0, 4))))


def _one_changed(rng, value):
    if value.size == 0 or value.dtype.kind not in "fiu":
        return np.asarray(value, copy=True) if value.dtype != object else np.zeros(3)
    changed = np.array(value)
    odd = rng.choice(_NUMBERS) if value.dtype.kind == "f" else rng.choice(_WHOLE)
    with np.errstate(all="ignore"):
        changed.reshape(-1)[int(rng.integers(value.size))] = np.asarray(odd).astype(value.dtype)
    return changed


def _reshaped(rng, value):
    if value.dtype == object:
        return np.ones(2)
    ways = (
        value.T,
        value.reshape(-1),
        value[None],
        value[..., None],
        value[:0] if value.ndim else value,
    )
    return ways[int(rng.integers(len(ways)))]


def mutated_document(rng, document):
    """A document with some entries dropped, renamed, swapped or replaced."""
    document = _copied(document)
    for _ in range(int(rng.choice([1, 1, 1, 2, 3]))):
        places = _places(document)
        path = places[int(rng.integers(len(places)))]
        parent, name = _at(document, path[:-1]), path[-1]
        entry, kind = parent[name], int(rng.integers(10))
        if name == "type" and kind < 6:
            parent[name] = text_dataset(str(rng.choice(_TYPES)))
        elif name == "edges" and kind < 7:
            parent[name] = _other_edges(rng, entry)
        elif kind == 0:
            del parent[name]
        elif kind == 1:
            parent[str(rng.choice(["x", "weight", "nodes", "0", " ", "a.b", "\u202e"]))] = (
                parent.pop(name)
            )
        elif kind == 2:
            source_path = places[int(rng.integers(len(places)))]
            parent[name] = (
                _copied(_at(document, source_path)) if source_path[: len(path)] != path else entry
            )
        elif kind == 3 and isinstance(entry, Group):
            parent[name] = odd_value(rng)
        elif kind == 3:
            parent[name] = Group({"a": entry})
        elif kind == 4 and isinstance(entry, Group):
            parent[name] = _wrapped(entry)
        elif isinstance(entry, Dataset):
            parent[name] = odd_value(rng, entry)
        else:
            entry[str(rng.choice(["tau", "weight", "bias", "start_dim", "metadata", "shape"]))] = (
                odd_value(rng)
            )
    return document


def _other_edges(rng, entry):
    if (
        not isinstance(entry, Dataset)
        or not isinstance(entry.value, np.ndarray)
        or entry.value.ndim != 2
    ):
        return odd_value(rng)
    pairs = [[_said(end) for end in pair] for pair in entry.value]
    node_names = sorted({name for pair in pairs for name in pair}) or ["a"]
    for _ in range(int(rng.integers(1, 4))):
        kind = int(rng.integers(4))
        if kind == 0 and pairs:
            pairs.pop(int(rng.integers(len(pairs))))
        elif kind == 1:
            pairs.append([str(rng.choice(node_names)), str(rng.choice(node_names))])
        elif kind == 2:
            pairs.append([str(rng.choice(node_names)), "nowhere"])
        elif pairs:
            pairs[int(rng.integers(len(pairs)))].reverse()
    return text_dataset(pairs) if pairs else Dataset(value=np.zeros(0), dtype=np.dtype(float))


def _said(end):
    return end.decode(errors="replace") if isinstance(end, bytes) else str(end)


def _wrapped(entry):
    """A node, or a graph, inside a graph of its own."""
    inside = text_dataset([["input", "a"], ["a", "output"]])
    return Group({"type": text_dataset("NIRGraph"), "nodes": Group({"a": entry}), "edges": inside})


# -- bytes


def mutated_bytes(rng, image):
    """An image with bytes changed, most of them near what HDF5 finds its way by."""
    data = bytearray(image)
    for _ in range(int(rng.choice([1, 1, 1, 2, 4]))):
        if len(data) < 8:
            break
        kind, place = int(rng.integers(6)), _place(rng, data)
        if kind == 0:
            data[place] ^= 1 << int(rng.integers(8))
        elif kind == 1:
            data[place] = int(rng.integers(256))
        elif kind == 2:
            addresses = (0, 8, 96, len(data), len(data) - 1, 2**32, 2**63, 2**64 - 1)
            address = (
                addresses[int(rng.integers(8))] if rng.integers(2) else int(rng.integers(len(data)))
            )
            data[place : place + 8] = address.to_bytes(8, "little")
        elif kind == 3:
            size = int(rng.choice([2, 8, 64, 512]))
            data[place : place + size] = bytes(size)
        elif kind == 4:
            source, size = int(rng.integers(len(data))), int(rng.choice([8, 16, 40, 256]))
            data[place : place + size] = data[source : source + size]
        else:
            del data[int(rng.integers(1, len(data))) :]
    return bytes(data)


def _place(rng, data):
    if rng.integers(4):
        word = _SIGNATURES[int(rng.integers(len(_SIGNATURES)))]
        start = data.find(word, int(rng.integers(len(data))))
        start = data.find(word) if start < 0 else start
        if start >= 0:
            return min(start + int(rng.integers(4, 120)), len(data) - 1)
    return int(rng.integers(len(data)))


def image_of_number(number, documents, images):
    """The bytes of the file of a number, and whether its bytes were changed: libhdf5 may crash or
    loop on it.
    """
    rng = np.random.default_rng(number)
    which = int(rng.integers(len(documents)))
    if rng.integers(3) == 0:
        return mutated_bytes(rng, images[which]), True
    for _ in range(20):
        try:
            return _image(mutated_document(rng, documents[which])), False
        except (ValueError, TypeError, OSError, RuntimeError, UnicodeError, KeyError):
            continue  # h5py itself cannot write that
    return mutated_bytes(rng, images[which]), True


def mutated_fields(rng, image, fields, order):
    """An image with one of its header's integers replaced, or that ends within or behind one.

    Args:
        fields: (offset, size) of each; negative offsets are from the end.
        order: byte order of the integers, "<" or ">".
    """
    data = bytearray(image)
    for _ in range(int(rng.choice([1, 1, 2]))):
        offset, size = fields[int(rng.integers(len(fields)))]
        offset += len(data) if offset < 0 else 0
        kind, largest = int(rng.integers(6)), 2 ** (8 * size)
        if kind == 0:
            del data[offset + int(rng.integers(size + 1)) :]
            break
        byte_order = "little" if order == "<" else "big"
        value = int.from_bytes(data[offset : offset + size], byte_order)
        if kind == 1:
            value += int(rng.choice([-2, -1, 1, 2, 256]))
        elif kind == 2:
            value *= int(rng.choice([0, 2, 3, 256, 65536]))
        elif kind == 3:
            value = int.from_bytes(data[offset : offset + size][::-1], byte_order)
        else:
            odd = (0, 1, 2, 3, 255, 2**15, 2**16 - 1, 2**24, 2**31 - 1, 2**31, 2**32 - 1)
            value = odd[int(rng.integers(len(odd)))]
        data[offset : offset + size] = (value % largest).to_bytes(size, byte_order)
    return bytes(data)
