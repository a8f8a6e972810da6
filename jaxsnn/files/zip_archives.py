"""The members of a ZIP archive, as NumPy writes them: stored or deflated, in one file.

Python's `zipfile` allocates a record of several hundred bytes for each member before the caller knows
how many there are, and accepts archives that overlap, repeat names or follow other data. This parser
refuses all of these.

Source: APPNOTE.TXT 6.3.10, PKWARE, 2022.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import IO

from jaxsnn.files.bounded_streams import DEFLATE, BoundedStream
from jaxsnn.files.read_limits import ByteBudget

#: Maximum number of members, and maximum size of the table of members in bytes.
_MOST_MEMBERS, _LARGEST_TABLE = 2**16, 2**24
#: Records: member of the table, member, end of the table, its locator and itself with 64 bits.
_ENTRY, _LOCAL = struct.Struct("<4s6H3L5H2L"), struct.Struct("<4s5H3L2H")
_END, _LOCATOR, _END64 = (
    struct.Struct("<4s4H2LH"),
    struct.Struct("<4sLQL"),
    struct.Struct("<4sQ2H2L4Q"),
)
#: Bit of the flags of an encrypted member, and of a name in UTF-8.
_ENCRYPTED, _UTF8 = 0x1, 0x800
#: Values that are too large for 16 or 32 bits, and the field with 64 bits that replaces them.
_MORE16, _MORE32, _FIELD64 = 0xFFFF, 0xFFFFFFFF, 1


@dataclass(frozen=True, kw_only=True)
class Member:
    """One file of an archive.

    Attributes:
        name: Name in the archive.
        start: First byte of the data in the archive.
        stored_size: Bytes of the data in the archive.
        size: Bytes of the decoded data, according to the archive.
        checksum: CRC-32 of the decoded data, according to the archive.
        is_deflated: Whether the data are compressed.
    """

    name: str
    start: int
    stored_size: int
    size: int
    checksum: int
    is_deflated: bool

    def stream(self, file: IO[bytes], budget: ByteBudget) -> BoundedStream:
        """Return the decoded data."""
        wbits = DEFLATE if self.is_deflated else None
        return BoundedStream(file, self.start, self.stored_size, wbits, budget)


def members_of(file: IO[bytes], size: int) -> list[Member]:
    """Return the members of an archive in the order of its table.

    Args:
        file: Open file.
        size: Size of the file in bytes.

    Raises:
        ValueError: The file is not a ZIP archive, or an unusual or damaged one.
    """
    count, table_size, table_start = _table_of(file, size)
    if count > _MOST_MEMBERS or table_size > _LARGEST_TABLE:
        raise ValueError(f"it has {count} members, more than {_MOST_MEMBERS}, or very long names")
    file.seek(table_start)
    table = file.read(table_size)
    members: list[Member] = []
    place = 0
    for _ in range(count):
        member, place = _member(file, table, place, table_start)
        members.append(member)
    if place != len(table):
        raise ValueError("its table of members is damaged")
    names: set[str] = set()
    for member in members:
        if member.name in names:
            raise ValueError(f"it has two members with the same name, '{member.name}'")
        names.add(member.name)
    return members


def _table_of(file: IO[bytes], size: int) -> tuple[int, int, int]:
    """Return the number of members, and size and first byte of the table of members."""
    beginning = max(size - _END.size - _MORE16, 0)
    file.seek(beginning)
    tail = file.read(_END.size + _MORE16)
    place = tail.rfind(b"PK\5\6")
    while place >= 0:  # a comment, which ends the file, can contain the same bytes
        if len(tail) >= place + _END.size:
            end = _END.unpack_from(tail, place)
            if place + _END.size + end[-1] == len(tail):
                break
        place = tail.rfind(b"PK\5\6", 0, place)
    else:
        raise ValueError("File is not a zip file")
    _, disk, table_disk, _, count, table_size, table_start, _ = end
    end_of_table = beginning + place
    if _MORE16 in (count, disk) or _MORE32 in (table_size, table_start):
        locator_start = end_of_table - _LOCATOR.size
        signature, disk, end64_start, disks = _unpack(_LOCATOR, file, locator_start)
        if signature != b"PK\6\7" or disks != 1 or end64_start + _END64.size != locator_start:
            raise ValueError("its end with 64 bits is damaged")
        end64 = _unpack(_END64, file, end64_start)
        signature, _, _, _, disk, table_disk, _, count, table_size, table_start = end64
        end_of_table = end64_start
        if signature != b"PK\6\6":
            raise ValueError("its end with 64 bits is damaged")
    if disk or table_disk:
        raise ValueError("it is a part of an archive of several files")
    if table_start + table_size != end_of_table:
        raise ValueError(
            "its table of members is not where its end says: bytes are missing or added"
        )
    return count, table_size, table_start


def _unpack(record: struct.Struct, file: IO[bytes], start: int) -> tuple:
    file.seek(max(start, 0))
    content = file.read(record.size)
    if start < 0 or len(content) < record.size:
        raise ValueError("it is truncated")
    return record.unpack(content)


def _member(file: IO[bytes], table: bytes, place: int, table_start: int) -> tuple[Member, int]:
    """Return a member and the place of the next one in the table."""
    if place + _ENTRY.size > len(table):
        raise ValueError("its table of members is damaged")
    entry = _ENTRY.unpack_from(table, place)
    signature, _, _, flags, method, _, _, checksum, stored_size, size = entry[:10]
    name_size, extra_size, comment_size, disk, _, _, start = entry[10:]
    name_start = place + _ENTRY.size
    extra_start = name_start + name_size
    end = extra_start + extra_size + comment_size
    if signature != b"PK\1\2" or end > len(table):
        raise ValueError("its table of members is damaged")
    name = table[name_start:extra_start].decode("utf-8" if flags & _UTF8 else "cp437")
    sizes64 = _sizes64(table[extra_start : extra_start + extra_size])
    # The field has only those values that do not fit into 32 bits, in this order.
    size, stored_size, start = (
        sizes64.pop(0) if value == _MORE32 and sizes64 else value
        for value in (size, stored_size, start)
    )
    if flags & _ENCRYPTED or method not in (0, 8) or disk:
        raise ValueError(f"'{name}' is encrypted, or compressed with method {method}")
    local = _unpack(_LOCAL, file, start)
    local_name = file.read(local[-2])
    data_start = start + _LOCAL.size + local[-2] + local[-1]
    is_same = local[0] == b"PK\3\4" and local_name == table[name_start:extra_start]
    if not is_same or data_start + stored_size > table_start:
        raise ValueError(f"'{name}' is truncated or damaged")
    if method == 0 and size != stored_size:
        raise ValueError(f"the sizes of '{name}' are {size} and {stored_size} bytes")
    member = Member(
        name=name,
        start=data_start,
        stored_size=stored_size,
        size=size,
        checksum=checksum,
        is_deflated=method == 8,
    )
    return member, end


def _sizes64(extra: bytes) -> list[int]:
    """Return the values of the field with 64 bits."""
    while len(extra) >= 4:
        kind, size = struct.unpack_from("<2H", extra)
        if kind == _FIELD64:
            content = extra[4 : 4 + size - size % 8]
            return [int.from_bytes(content[n : n + 8], "little") for n in range(0, len(content), 8)]
        extra = extra[4 + size :]
    return []
