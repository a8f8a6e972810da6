"""Documents: nothing lost, nothing added, nothing half written; what is no NIR file is refused in
one line.
"""

import os
import stat

import h5py
import numpy as np
import pytest

from jaxsnn.errors import FileError
from jaxsnn.nir import read, write
from jaxsnn.nir.io.files import Dataset, Group, load, save
from tests.helpers.refusals import assert_refused

CURIOUS = {
    "big-endian": np.arange(3, dtype=">f4"),
    "half": np.arange(3, dtype="float16"),
    "boolean": np.array([True, False]),
    "scalar": np.float32(0.1),
    "int8": np.int8(-3),
    "bytes": np.array([b"ab", b"c"]),
    "empty": np.zeros((0, 2)),
    "complex": np.array([1 + 2j]),
}


@pytest.fixture
def curious(tmp_path):
    """A file with everything that HDF5 offers and NIR does not use."""
    path = tmp_path / "curious.nir"
    with h5py.File(path, "w") as file:
        file.attrs["origin"] = "somewhere"
        file.create_dataset("version", data="1.0.8", dtype=h5py.string_dtype())
        node = file.create_group("node")
        node.attrs["count"] = np.int16(4)
        for name, value in CURIOUS.items():
            node.create_dataset(name, data=value)
        node.create_dataset("ascii", data="text", dtype=h5py.string_dtype("ascii"))
        node.create_dataset("fixed", data=b"text", dtype="S7")
        node.create_dataset(
            "packed", data=np.ones((40, 30)), compression="gzip", compression_opts=9, shuffle=True
        )
        node.create_dataset(
            "checked", data=np.arange(8.0), chunks=(4,), compression="lzf", fletcher32=True
        )
        node.create_dataset("grows", data=np.ones(4), maxshape=(None,), chunks=(2,))
        node.create_dataset("null", data=h5py.Empty("f4"))
        node["packed"].attrs["unit"] = "mV"
    return path


def test_everything_survives(curious, entries, tmp_path):
    before = curious.read_bytes()
    save(tmp_path / "again.nir", load(curious))
    assert curious.read_bytes() == before
    assert entries(tmp_path / "again.nir") == entries(curious)


def test_the_same_document_gives_the_same_bytes(curious, tmp_path):
    for name in ("a", "b"):
        save(tmp_path / name, load(curious))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_what_is_no_file_is_refused(tmp_path):
    """Files that are broken are in tests/faults/hostile_corpus.py."""
    says, path = "a.nir: no such file", tmp_path / "a.nir"
    assert_refused(lambda: read(path), FileError, says, fix=None)
    assert_refused(lambda: read(tmp_path), FileError, f"{tmp_path} is a directory")


def test_an_output_that_exists_is_kept(zoo, tmp_path):
    graph = read(zoo["norse_v_li"])
    target = tmp_path / "precious.nir"
    target.write_text("precious")
    assert_refused(lambda: write(target, graph), FileError, "exists", fix="force=True")
    assert target.read_text() == "precious"
    write(target, graph, force=True)
    assert read(target).order() == graph.order()


ODD_TEXT = Dataset(value=np.array(["a\udca0"], dtype=object), dtype=h5py.string_dtype())


@pytest.mark.parametrize(
    ("inside", "says"),
    [
        ({"fc/1": Group()}, "is not allowed in a file"),
        ({"": Group()}, "is not allowed in a file"),
        ({".": Group()}, "is not allowed in a file"),
        ({"note": ODD_TEXT}, r"a\.nir was not written: .* not UTF-8"),
    ],
)
def test_what_no_file_can_hold_is_not_written(inside, says, tmp_path):
    for document in (Group({"node": Group(inside)}), Group(inside)):
        assert_refused(
            lambda document=document: save(tmp_path / "a.nir", document), FileError, says
        )
    assert list(tmp_path.iterdir()) == []


def test_a_failure_leaves_neither_file_nor_rest(zoo, tmp_path):
    broken = Group({"node": Group({"deep": object()})})
    with pytest.raises(AttributeError):
        save(tmp_path / "out.nir", broken)
    assert list(tmp_path.iterdir()) == []
    graph = read(zoo["norse_v_li"])
    for path, says in ((tmp_path / "missing" / "a.nir", "does not exist"), (tmp_path, "directory")):
        assert_refused(lambda path=path: write(path, graph), FileError, says)


def test_a_new_file_has_usual_permissions(zoo, tmp_path):
    write(tmp_path / "out.nir", read(zoo["norse_v_li"]))
    mask = os.umask(0)
    os.umask(mask)
    assert stat.S_IMODE((tmp_path / "out.nir").stat().st_mode) == 0o666 & ~mask
