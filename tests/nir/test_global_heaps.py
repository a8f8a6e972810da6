"""Global heaps of HDF5 files, which HDF5 would search for half a minute."""

import struct

import h5py
import pytest

from jaxsnn.errors import FileError
from jaxsnn.nir.io import global_heaps
from jaxsnn.nir.io.reading import read_hdf5

OBJECT = struct.Struct("<HHIQ")


def texts(path, **options):
    """Write a file whose root has three texts of variable length as attributes, in one heap."""
    with h5py.File(path, "w", **options) as content:
        for name in "abc":
            content.attrs[name] = name * 20
    return path


@pytest.fixture
def file(tmp_path):
    """A file of `texts`."""
    return texts(tmp_path / "texts.h5")


def emptied(path, text):
    """Replace the header of the object with a text, and the text, by zeros."""
    content = bytearray(path.read_bytes())
    start = content.index(text) - OBJECT.size
    assert OBJECT.unpack_from(content, start)[3] == len(text)
    content[start : start + OBJECT.size + len(text)] = bytes(OBJECT.size + len(text))
    path.write_bytes(content)
    return start


@pytest.mark.parametrize("text", [b"a" * 20, b"b" * 20], ids=["first", "second"])
def test_free_space_without_its_header_is_refused_at_once(file, text):
    position = emptied(file, text)
    with pytest.raises(FileError, match=str(position)):
        read_hdf5(file, "a recording")


@pytest.mark.parametrize("libver", ["earliest", "latest"])
@pytest.mark.parametrize("size", [512, 1024, 8192])
@pytest.mark.parametrize("fill", [b"\0", b"\x08", b"GCOL\x01\0\0\0"], ids=["0", "8", "heap"])
def test_heaps_after_a_user_block_are_checked(fill, size, libver, tmp_path):
    """What a user block contains is neither a superblock nor a heap."""
    file = texts(tmp_path / "texts.h5", userblock_size=size, libver=libver)
    content = bytearray(file.read_bytes())
    content[:size] = fill * (size // len(fill))
    file.write_bytes(content)
    assert len(read_hdf5(file, "a recording").attributes) == 3
    position = emptied(file, b"b" * 20)
    with pytest.raises(FileError, match=str(position)):
        read_hdf5(file, "a recording")


def free_space(content):
    """Return the position of the free space of the heap, which extends to its end."""
    start = content.index(b"GCOL")
    end = start + int.from_bytes(content[start + 8 : start + 16], "little")
    position = start + 16
    while (entry := OBJECT.unpack_from(content, position))[0]:
        position += OBJECT.size + -(-entry[3] // 8) * 8
    assert position + entry[3] == end
    return position


def test_entries_after_the_free_space_are_checked(file):
    content = bytearray(file.read_bytes())
    position = free_space(content)
    size = OBJECT.unpack_from(content, position)[3] - 32
    content[position : position + OBJECT.size] = OBJECT.pack(0, 0, 0, size)
    content[position + size : position + size + 32] = bytes(32)
    file.write_bytes(content)
    with pytest.raises(FileError, match=str(position + size)):
        read_hdf5(file, "a recording")


@pytest.mark.parametrize("size", [2**64 - 1, 2**64 - 16, 2**64 - 24, 4096])
@pytest.mark.parametrize("index", [0, 1])
def test_entries_beyond_the_heap_are_refused(size, index, file):
    content = bytearray(file.read_bytes())
    position = free_space(content)
    content[position : position + OBJECT.size] = OBJECT.pack(index, 0, 0, size)
    file.write_bytes(content)
    with pytest.raises(FileError, match=str(position)):
        read_hdf5(file, "a recording")


def test_reserved_bytes_do_not_hide_a_heap(file):
    position = emptied(file, b"a" * 20)
    file.write_bytes(file.read_bytes().replace(b"GCOL\x01\0\0\0", b"GCOL\x01\0\0\x3a"))
    with pytest.raises(FileError, match=str(position)):
        read_hdf5(file, "a recording")


@pytest.mark.parametrize("size", [5, 8, 15, 16, 31])
def test_heaps_at_the_end_of_a_file_are_left_to_hdf5(size, file):
    content = file.read_bytes()
    file.write_bytes(content[: content.index(b"GCOL") + size])
    with file.open("rb") as opened:
        global_heaps.refuse_broken_heaps(opened, str(file))


def test_intact_heaps_are_read(file):
    attributes = read_hdf5(file, "a recording").attributes
    assert {name: text.value for name, text in attributes.items()} == {
        name: name * 20 for name in "abc"
    }


def test_all_heaps_are_checked(tmp_path):
    path = tmp_path / "many.h5"
    with h5py.File(path, "w") as content:
        for number in range(300):
            content.create_group(str(number)).attrs["text"] = f"{number:040}"
    assert path.read_bytes().count(b"GCOL") > 3
    emptied(path, f"{299:040}".encode())
    with path.open("rb") as file, pytest.raises(FileError):
        global_heaps.refuse_broken_heaps(file, str(path))


@pytest.mark.parametrize("size", [0, 8, 16, 47])
def test_files_that_end_within_the_superblock_are_left_to_hdf5(file, size):
    file.write_bytes(file.read_bytes()[:size])
    with file.open("rb") as opened:
        global_heaps.refuse_broken_heaps(opened, str(file))
