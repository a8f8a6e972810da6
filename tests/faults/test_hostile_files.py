"""Files that come by mail: nothing is read from elsewhere, no code is loaded, nothing grows without
bound; each is refused in one line.
"""

import os
import subprocess
import sys

import h5py
import numpy as np
import pytest

from jaxsnn.errors import FileError, UsageError
from jaxsnn.nir.io.files import Dataset, Group, load, save

_SECRET = np.arange(8.0)


def nir_file(path):
    """An open file with the nodes that a NIR file has, and a Linear to which a weight is added."""
    file = h5py.File(path, "w")
    file["version"] = "1.0"
    node = file.create_group("node")
    node["type"] = "NIRGraph"
    linear = node.create_group("nodes/linear")
    linear["type"] = "Linear"
    return file, linear


def external(path, linear):
    secret = path.with_name("secret.bin")
    secret.write_bytes(_SECRET.tobytes())
    linear.create_dataset(
        "weight", shape=(2, 4), dtype="f8", external=[(str(secret), 0, secret.stat().st_size)]
    )
    return "weight has its numbers elsewhere"


def virtual(path, linear):
    with h5py.File(path.with_name("secret.h5"), "w") as other:
        other["numbers"] = _SECRET.reshape(2, 4)
    layout = h5py.VirtualLayout(shape=(2, 4), dtype="f8")
    layout[:] = h5py.VirtualSource(str(path.with_name("secret.h5")), "numbers", shape=(2, 4))
    linear.create_virtual_dataset("weight", layout)
    return "weight has its numbers elsewhere"


def virtual_onto_itself(path, linear):
    layout = h5py.VirtualLayout(shape=(2, 4), dtype="f8")
    layout[:] = h5py.VirtualSource(".", linear.name + "/weight", shape=(2, 4))
    linear.create_virtual_dataset("weight", layout)
    return "weight has its numbers elsewhere"


def unknown_filter(path, linear):
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    properties.set_chunk((2, 4))
    # optional, so that it can be made without the plug-in
    properties.set_filter(32015, h5py.h5z.FLAG_OPTIONAL, ())
    space = h5py.h5s.create_simple((2, 4))
    h5py.h5d.create(linear.id, b"weight", h5py.h5t.IEEE_F64LE, space, properties)
    return "weight is compressed by filter 32015"


def declared_enormous(path, linear):
    linear.create_dataset("weight", shape=(10**5, 10**6), dtype="f8", chunks=(1, 1000))
    return "weight of 800000000000 bytes its arrays have more than 2147483648 bytes"


def bomb(path, linear):
    shape = (2**15, 2**14)
    linear.create_dataset(
        "weight", shape=shape, dtype="f8", chunks=(2**8, 2**14), compression="gzip", fillvalue=1.0
    )
    linear.create_dataset(
        "bias", shape=shape, dtype="f8", chunks=(2**8, 2**14), compression="gzip", fillvalue=1.0
    )
    return "its arrays have more than 2147483648 bytes"


def many_names(path, linear):
    linear["weight"] = np.zeros(1000)
    for number in range(1000):
        linear[f"again{number}"] = linear["weight"]
    return "is there under another name, too"


def doubled_groups(path, linear):
    inner = linear.create_group("g0")
    for _ in range(1, 28):
        group = inner.create_group("left")
        inner["right"] = group
        inner = group
    return "is there under another name, too"


MAKERS = [
    external,
    virtual,
    virtual_onto_itself,
    unknown_filter,
    declared_enormous,
    bomb,
    many_names,
    doubled_groups,
]


@pytest.mark.parametrize("make", MAKERS)
def test_a_hostile_file_is_refused_in_one_line(make, tmp_path):
    path = tmp_path / "mail.nir"
    file, linear = nir_file(path)
    with file:
        expected = make(path, linear)
    with pytest.raises(FileError) as caught:
        load(path)
    message = str(caught.value)
    assert expected in message
    assert str(path) in message
    assert "\n" not in message


@pytest.mark.parametrize("storage", [{}, {"compression": "gzip"}, {"compression": "lzf"}])
def test_what_h5py_decodes_by_itself_is_read(storage, tmp_path):
    path = tmp_path / "fine.nir"
    file, linear = nir_file(path)
    with file:
        linear.create_dataset("weight", data=_SECRET.reshape(2, 4), **storage)
        if storage:
            linear.create_dataset(
                "bias", data=_SECRET, shuffle=True, fletcher32=True, chunks=(4,), **storage
            )
    weight = load(path)["node"]["nodes"]["linear"]["weight"]
    np.testing.assert_array_equal(weight.value, _SECRET.reshape(2, 4))


def test_the_budget_can_be_said(tmp_path, monkeypatch):
    path = tmp_path / "fine.nir"
    file, linear = nir_file(path)
    with file:
        linear["weight"] = _SECRET
    monkeypatch.setenv("JAXSNN_MAX_BYTES", "60")
    with pytest.raises(
        FileError, match="weight of 64 bytes its arrays have more than 60 bytes: pass max_bytes=72"
    ):
        load(path)
    monkeypatch.setenv("JAXSNN_MAX_BYTES", "many")
    with pytest.raises(UsageError, match="JAXSNN_MAX_BYTES is 'many'"):
        load(path)
    monkeypatch.setenv("JAXSNN_MAX_BYTES", "10000")
    assert load(path)["node"]


def test_a_text_that_is_not_utf8_is_not_written(tmp_path):
    text = np.array(["a\udca0"], dtype=object)
    odd = Dataset(value=text, dtype=h5py.string_dtype())
    with pytest.raises(FileError, match=r"a\.nir was not written: a text in it is not UTF-8"):
        save(tmp_path / "a.nir", Group({"node": Group({"note": odd})}))
    assert not (tmp_path / "a.nir").exists()


def test_a_pipe_is_no_file_and_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.nir")
    with pytest.raises(FileError, match="is no regular file"):
        load(tmp_path / "pipe.nir")


def test_no_folder_is_searched_for_filters(tmp_path):
    """HDF5 loads libraries from HDF5_PLUGIN_PATH unless that is switched off before it starts."""
    code = "import os, jaxsnn.nir.io.files; print(os.environ['HDF5_PLUGIN_PRELOAD'])"
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert found.stdout.strip() == "::"
