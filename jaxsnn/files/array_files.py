"""NumPy's files: .npy with one array and .npz with several, of numbers and texts.

The headers are parsed here, because those of NumPy are evaluated and trusted by it: negative shapes
let an array escape the limit of bytes, and a member of an archive can be larger than its header says.

Source: numpy/lib/format.py, versions 1.0 to 3.0.
"""

from __future__ import annotations

import ast
import math
import os
import re
import zlib
from collections import Counter
from dataclasses import dataclass
from typing import IO

import numpy as np

from jaxsnn.errors import FileError, first_line
from jaxsnn.files.bounded_streams import BoundedStream
from jaxsnn.files.opening import open_input, size_of
from jaxsnn.files.read_limits import ByteBudget
from jaxsnn.files.zip_archives import Member, members_of
from jaxsnn.wording import Text

_MAGIC = b"\x93NUMPY"
#: Maximum length of a header in bytes, without its first bytes, and maximum number of axes.
_LONGEST_HEADER, _MOST_AXES = 2**16, 32
#: Booleans, integers, floats, complex numbers, and texts of fixed length.
_DTYPE = re.compile(r"\|b1|[<>|=]?[iuf](1|2|4|8)|[<>|=]?c(8|16)|[<>|=]?[SU][0-9]{1,9}")
#: Largest code of a character.
_LARGEST_CHARACTER = 0x10FFFF


class _ObjectsError(ValueError):
    """Error for an array of Python objects."""


@dataclass(frozen=True, kw_only=True)
class ArrayHeader:
    """Header of an array.

    Attributes:
        shape: Shape of the array.
        dtype: Type of its numbers.
        is_fortran_ordered: Whether the first axis varies fastest.
        size: Bytes of the header.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    is_fortran_ordered: bool
    size: int

    @property
    def nbytes(self) -> int:
        """Bytes of the numbers."""
        return math.prod(self.shape) * self.dtype.itemsize


def load_arrays(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Load all arrays of an .npz file.

    Raises:
        FileError: The file does not exist, is not an .npz file of plain arrays, or exceeds a limit
            (`jaxsnn.files.read_limits`).
    """
    with open_input(path, "an .npz file") as file:
        return arrays_of(file, size_of(file), ByteBudget(path))


def arrays_of(file: IO[bytes], size: int, budget: ByteBudget) -> dict[str, np.ndarray]:
    """Load all arrays of an open .npz file.

    Args:
        file: Open file.
        size: Size of the file in bytes.
        budget: Bytes that the arrays may have, and the path for messages.

    Raises:
        FileError: The file is not an .npz file of plain arrays, or exceeds a limit.
    """
    path = budget.path
    start = file.read(len(_MAGIC))
    if not start.startswith(b"PK"):
        defect = (
            "contains a single array without a name"
            if start == _MAGIC
            else "is not an .npz file of arrays"
        )
        raise FileError(
            Text("{path} {defect}", path=path, defect=defect),
            fix="save named arrays with numpy.savez",
        )
    name = ""
    try:
        members = members_of(file, size)
        array_names = [member.name.removesuffix(".npy") for member in members]
        ((frequent, count),) = Counter(array_names).most_common(1) or [("", 0)]
        if count > 1:
            raise ValueError(f"it has two arrays with the same name '{frequent}'")
        headers = []
        for name, member in zip(array_names, members, strict=True):
            header = _member_header(member, member.stream(file, budget))
            # At least a byte for each element, so that their number is limited, too.
            budget.take(f"'{name}'", max(header.nbytes, math.prod(header.shape)))
            headers.append(header)
        arrays = {}
        for name, member, header in zip(array_names, members, headers, strict=True):
            arrays[name] = _member_array(member, header, member.stream(file, budget))
        return arrays
    except _ObjectsError as error:
        raise FileError(
            Text("{path}: array '{array}' contains Python objects", path=path, array=name),
            fix="save numbers",
        ) from error
    except (ValueError, OSError, zlib.error) as error:
        reason = first_line(error)
        if name:
            reason = Text("array '{array}': {error}", array=name, error=reason)
        raise FileError(
            Text("{path} is not an .npz file of arrays ({reason})", path=path, reason=reason),
            fix=(
                "save it again with numpy.savez, and each field of a structured array as an array of "
                "numbers"
            ),
        ) from error


def map_array(path: str | os.PathLike[str]) -> np.ndarray:
    """Return the array of a .npy file, memory-mapped and read-only.

    Raises:
        FileError: The file cannot be read, or does not contain exactly one array of numbers.
    """
    try:
        with open_input(path, "a .npy file") as file:
            size = size_of(file)
            header = parse_header(file.read(_LONGEST_HEADER + 12), size)
            if header.nbytes == 0:
                return np.zeros(header.shape, header.dtype)
            order = "F" if header.is_fortran_ordered else "C"
            return np.memmap(file, header.dtype, "r", header.size, header.shape, order)  # pyright: ignore[reportArgumentType]
    except (OSError, ValueError) as error:
        raise FileError(
            Text("{path} is not an array of numbers ({error})", path=path, error=first_line(error)),
            fix="save the array with numpy.save",
        ) from error


def parse_header(content: bytes, size: int) -> ArrayHeader:
    """Return the header of an array.

    Args:
        content: First bytes of the file.
        size: Bytes of header and array together.

    Raises:
        ValueError: The header is invalid, or does not fit the size.
    """
    version = content[len(_MAGIC) : len(_MAGIC) + 2]
    if not content.startswith(_MAGIC) or version not in (b"\1\0", b"\2\0", b"\3\0"):
        raise ValueError("it does not begin as an array of NumPy")
    start = 10 if version == b"\1\0" else 12
    end = start + int.from_bytes(content[len(_MAGIC) + 2 : start], "little")
    if end - start > _LONGEST_HEADER:
        raise ValueError(f"a header has {end - start} bytes, more than {_LONGEST_HEADER}")
    if len(content) < end:
        raise ValueError("a header is truncated")
    text = content[start:end].decode("utf-8" if version == b"\3\0" else "latin1")
    try:
        fields = ast.literal_eval(text.strip())
    except (SyntaxError, ValueError, MemoryError, RecursionError) as error:
        raise ValueError("a header is damaged") from error
    if not isinstance(fields, dict) or fields.keys() != {"descr", "fortran_order", "shape"}:
        raise ValueError("a header is damaged")
    shape, order = fields["shape"], fields["fortran_order"]
    is_shape = isinstance(shape, tuple) and all(
        type(count) is int and count >= 0 for count in shape
    )
    if not is_shape or len(shape) > _MOST_AXES or type(order) is not bool:
        raise ValueError(f"a shape or an order is invalid: {str(shape)[:80]}, {str(order)[:80]}")
    header = ArrayHeader(
        shape=shape, dtype=_dtype_of(fields["descr"]), is_fortran_ordered=order, size=end
    )
    if header.size + header.nbytes != size:
        raise ValueError(
            f"a header specifies {header.nbytes} bytes for the array, and there are {size - end}"
        )
    if math.prod(max(count, 1) for count in shape) >= 2**62:
        raise ValueError(f"the shape {str(shape)[:80]} is too large")
    return header


def _dtype_of(description: object) -> np.dtype:
    if isinstance(description, str) and re.fullmatch(r"[<>|=]?O[0-9]*", description):
        raise _ObjectsError("an array contains Python objects")
    if not isinstance(description, str) or not _DTYPE.fullmatch(description):
        raise ValueError(f"an array has the type {str(description)[:80]}, which is not supported")
    try:
        return np.dtype(description)
    except TypeError as error:  # such as floats of 128 bits, which not every system has
        raise ValueError(f"this system has no numbers of type {description}") from error


def _member_header(member: Member, stream: BoundedStream) -> ArrayHeader:
    content = stream.read(min(member.size, _LONGEST_HEADER + 12))
    return parse_header(content, member.size)


def _member_array(member: Member, header: ArrayHeader, stream: BoundedStream) -> np.ndarray:
    """Return the array of a member, whose size and checksum are verified."""
    array = np.empty(math.prod(header.shape), header.dtype)
    stream.read(header.size)
    count = stream.read_into(array.view(np.uint8).data) if array.nbytes else 0
    if count != array.nbytes or not stream.ends():
        raise ValueError(f"'{member.name}' does not have the {member.size} bytes that it should")
    if stream.checksum != member.checksum:
        raise ValueError(f"'{member.name}' does not match its checksum")
    _refuse_invalid(member.name, array)
    if header.is_fortran_ordered:
        return array.reshape(header.shape[::-1]).T
    return array.reshape(header.shape)


def _refuse_invalid(name: str, array: np.ndarray) -> None:
    """Refuse bytes that are neither true nor false, and characters that do not exist."""
    if array.dtype.kind == "b" and array.view(np.uint8).max(initial=0) > 1:
        raise ValueError(f"'{name}' has booleans other than 0 and 1")
    if array.dtype.kind == "U" and array.nbytes:
        codes = array.view(np.dtype(np.uint32).newbyteorder(array.dtype.byteorder))
        if codes.max(initial=0) > _LARGEST_CHARACTER:
            raise ValueError(f"'{name}' has characters that do not exist")
