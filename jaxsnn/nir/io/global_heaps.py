"""Global heaps of HDF5 files, which contain texts of variable length, checked before HDF5 reads them.

HDF5 2.0 computes for half a minute, for each heap, where it reaches free space of size 0. Sizes that exceed
the heap overflow, and may lead there.

Source: HDF5 File Format Specification 3.0, section II.A, "Disk Format: Level 0A - Format Signature and
Superblock", and section III.E, "Disk Format: Level 1E - Global Heap".
"""

from __future__ import annotations

import mmap
import struct
from io import BufferedReader

from jaxsnn.errors import FileError
from jaxsnn.files.opening import size_of
from jaxsnn.wording import Text

#: Smallest size of a superblock, and size up to which files are checked, bytes: sets of events are larger,
#: and are opened for each batch. Above it, only the limit of time protects.
_SUPERBLOCK, _LARGEST_CHECKED = 48, 2**26
#: Signature of a superblock, and smallest size of a user block before it.
_FORMAT, _SMALLEST_USER_BLOCK = b"\x89HDF\r\n\x1a\n", 512
#: Signature and version of a heap. Three reserved bytes, which HDF5 ignores, and its size follow.
_SIGNATURE, _HEADER = b"GCOL\x01", struct.Struct("<5s3xQ")
#: Index, number of references, reserved bytes, and size of an object in a heap.
_OBJECT = struct.Struct("<HHIQ")


def refuse_broken_heaps(file: BufferedReader, path: str) -> None:
    """Refuse an HDF5 file with a global heap whose free space is smaller than its own header, or with an
    entry that exceeds its heap.

    Files of more than 64 MiB, and those with sizes of other than 8 bytes, are not checked. The time is
    proportional to the size of the file: objects of a heap are not searched for other heaps.

    Args:
        file: the open file.
        path: path of the file, for messages.

    Raises:
        FileError: the file has such a heap.
    """
    if not _SUPERBLOCK <= size_of(file) <= _LARGEST_CHECKED:
        return
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        base = _base_address(content)
        if base is None or not _has_sizes_of_8_bytes(content, base):
            return
        start = content.find(_SIGNATURE, base)
        while start >= 0:
            start = content.find(_SIGNATURE, _end_of_objects(content, start, path))


def _base_address(content: mmap.mmap) -> int | None:
    """Return the position of the superblock, where HDF5 looks for it: at the start of the file or, after
    a user block, at byte 512, 1024, 2048, ...; None: it is in none of these places.
    """
    position = 0
    while position + _SUPERBLOCK <= len(content):
        if content[position : position + len(_FORMAT)] == _FORMAT:
            return position
        position = max(2 * position, _SMALLEST_USER_BLOCK)
    return None


def _has_sizes_of_8_bytes(content: mmap.mmap, base: int) -> bool:
    """Return whether the superblock at `base` states that sizes have 8 bytes."""
    is_old = content[base + 8] < 2  # versions 0 and 1 of the superblock
    return content[base + (14 if is_old else 10)] == 8


def _end_of_objects(content: mmap.mmap, start: int, path: str) -> int:
    """Return the position after the objects of the heap that begins at `start`."""
    position = start + _HEADER.size
    if position > len(content):
        return len(content)
    end = start + _HEADER.unpack_from(content, start)[1]
    while position + _OBJECT.size <= min(end, len(content)):
        index, _, _, size = _OBJECT.unpack_from(content, position)
        # The size of the free space, with index 0, includes this header. HDF5 goes on after it.
        if size > end - position or (index == 0 and size < _OBJECT.size):
            raise FileError(
                Text(
                    "{path} is damaged: an entry of a global heap has {size} bytes, at byte {position}",
                    path=path,
                    size=size,
                    position=position,
                ),
                fix="download or export it again",
            )
        position += size if index == 0 else _OBJECT.size + -(-size // 8) * 8
    return min(position, len(content))
