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
from jaxsnn.nir.io.files import Group, load, save

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
        node.create_dataset("grows", data=np.ones(4), maxshape=(None,), chunks=(2,))
        node.create_dataset("null", data=h5py.Empty("f4"))
        node["packed"].attrs["unit"] = "mV"
    return path


def test_everything_survives(curious, entries, tmp_path):
    save(tmp_path / "again.nir", load(curious))
    assert entries(tmp_path / "again.nir") == entries(curious)


def test_the_same_document_gives_the_same_bytes(curious, tmp_path):
    for name in ("a", "b"):
        save(tmp_path / name, load(curious))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def no_file(path):
    return "no such file"


def folder(path):
    path.mkdir()
    return "is a directory"


def text(path):
    path.write_text("not a network")
    return "is not an HDF5 file"


def empty(path):
    path.touch()
    return "is not an HDF5 file"


def other_hdf5(path):
    with h5py.File(path, "w") as file:
        file["weights"] = np.ones(3)
    return "HDF5 but not NIR, it has no group 'node', only weights"


def cut_short(path):
    with h5py.File(path, "w") as file:
        file["node/weights"] = np.ones(3000)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    return "damaged or cut short"


def cut_to_the_signature(path):
    path.write_bytes(b"\x89HDF\r\n\x1a\n")
    return "damaged or cut short"


def soft_link(path):
    with h5py.File(path, "w") as file:
        file["node/weights"] = np.ones(3)
        file["node/alias"] = h5py.SoftLink("/node/weights")
    return "is a link to elsewhere"


def contains_itself(path):
    with h5py.File(path, "w") as file:
        node = file.create_group("node")
        node["inner"] = node
    return "/node/inner is there under another name, too"


@pytest.mark.parametrize(
    "make",
    [
        no_file,
        folder,
        text,
        empty,
        other_hdf5,
        cut_short,
        cut_to_the_signature,
        soft_link,
        contains_itself,
    ],
)
def test_what_is_no_nir_file_is_refused_in_one_line(make, tmp_path):
    path = tmp_path / "bad.nir"
    expected = make(path)
    with pytest.raises(FileError) as caught:
        read(path)
    message = str(caught.value)
    assert expected in message
    assert str(path) in message
    assert "\n" not in message
    assert caught.value.exit_code == 2


def test_an_output_that_exists_is_kept(zoo, tmp_path):
    graph = read(zoo["norse_v_li"])
    target = tmp_path / "precious.nir"
    target.write_text("precious")
    with pytest.raises(FileError, match=r"exists: choose another name or pass force=True$"):
        write(target, graph)
    assert target.read_text() == "precious"
    write(target, graph, force=True)
    assert read(target).order() == graph.order()


@pytest.mark.parametrize("name", ["fc/1", "", "."])
def test_a_name_that_hdf5_takes_for_a_path_is_refused(name, tmp_path):
    with pytest.raises(FileError, match="is a name that a file cannot hold: rename it"):
        save(tmp_path / "a.nir", Group({"node": Group({name: Group()})}))
    assert not (tmp_path / "a.nir").exists()


def test_a_failure_leaves_neither_file_nor_rest(zoo, tmp_path):
    broken = Group({"node": Group({"deep": object()})})
    with pytest.raises(AttributeError):
        save(tmp_path / "out.nir", broken)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(FileError, match="does not exist: create it first"):
        write(tmp_path / "missing" / "out.nir", read(zoo["norse_v_li"]))
    with pytest.raises(FileError, match="is a directory"):
        write(tmp_path, read(zoo["norse_v_li"]))


def test_a_new_file_has_usual_permissions(zoo, tmp_path):
    write(tmp_path / "out.nir", read(zoo["norse_v_li"]))
    mask = os.umask(0)
    os.umask(mask)
    assert stat.S_IMODE((tmp_path / "out.nir").stat().st_mode) == 0o666 & ~mask


def test_reading_does_not_touch_the_file(zoo):
    before = zoo["norse_v_li"].stat()
    read(zoo["norse_v_li"])
    assert zoo["norse_v_li"].stat().st_mtime_ns == before.st_mtime_ns
