"""What all hostile files have in common: the description of a file, and the bytes that several formats
need (archives, arrays, bombs of compressed zeros).
"""

import functools
import io
import struct
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from jaxsnn.bss2.mapping import to_json
from jaxsnn.bss2.search.portfolio import place_and_route
from jaxsnn.bss2.search.quantize import quantize
from jaxsnn.nir import build, write
from jaxsnn.nir.initializers import normal

#: Default limit of bytes of a hostile file: small, so that bombs can be small.
MAX_BYTES = 2**24
#: Bytes of memory that reading may take besides the arrays; see docs/reliability.md.
BESIDES = 2**29
#: Longest time of a read in seconds.
SECONDS = 20.0


@dataclass(frozen=True, kw_only=True)
class HostileFile:
    """A file that must be refused.

    Attributes:
        name: description, unique in the corpus.
        reader: name of the command or function that reads it, in `readers.READERS`.
        path: name of the file, or of the folder of a data set.
        write: writes it at a path.
        words: regular expressions, each of which the message matches.
        exit_code: exit code of the command line.
        max_bytes: limit of the bytes of its arrays.
    """

    name: str
    reader: str
    path: str
    write: Callable[[Path], object]
    words: tuple[str, ...] = ()
    exit_code: int = 2
    max_bytes: int = MAX_BYTES


class Corpus(dict[str, HostileFile]):
    """Hostile files by name."""

    def add(
        self,
        name: str,
        content: bytes | Callable[[], bytes] | Callable[[Path], object],
        *words: str,
        reader: str,
        path: str,
        **options,
    ) -> None:
        """Add a file.

        Args:
            content: bytes, or a function that writes the file at a path.
        """
        assert name not in self, name
        writer = (
            (lambda place: place.write_bytes(content)) if isinstance(content, bytes) else content
        )
        self[name] = HostileFile(
            name=name, reader=reader, path=path, write=writer, words=words, **options
        )


# -- network and mapping, to which the files belong


@functools.cache
def network():
    """Input of 4, 6 and 2 neurons: it fits the small chip."""
    neurons = build.cubalif(tau_mem="20ms", tau_syn="10ms")
    layers = [build.linear(6, weight=normal(1.0, 0.5)), neurons]
    layers += [build.linear(2, weight=normal(0.5, 0.5)), neurons]
    return build.sequential(build.input(4), *layers, seed=0)


@functools.cache
def mapping_text() -> str:
    """A valid mapping of the network."""
    return to_json(place_and_route(quantize(network()).netlist, time_limit=5.0).mapping)


def write_companions(folder: Path) -> None:
    """Write the sound files that commands read beside a hostile one."""
    write(folder / "net.nir", network(), force=True)
    (folder / "mapping.json").write_text(mapping_text())
    steps = build.sequential(
        build.input(4),
        build.linear(weight=np.eye(2, 4)),
        build.lif(2, tau="10ms", r=10.0),
        dialect="snntorch",
        reset="zero",
        reset_delay=False,
        dt="1ms",
    )
    write(folder / "steps.nir", steps, force=True)
    np.savez(folder / "inputs.npz", time=np.full((3, 2), 1e-3), index=np.array([[0, 1]] * 3))


# -- arrays and archives


def npy(array, **options) -> bytes:
    """The bytes of an array."""
    written = io.BytesIO()
    np.lib.format.write_array(written, np.asarray(array), **options)
    return written.getvalue()


def npy_header(text: str, data: bytes = b"", version=(1, 0), length: int | None = None) -> bytes:
    """An array whose header is a text.

    Args:
        length: length of the header that the file specifies, if not the actual one.
    """
    header = text.encode("latin1", errors="replace")
    size = struct.pack(
        "<H" if version == (1, 0) else "<I", len(header) if length is None else length
    )
    return b"\x93NUMPY" + bytes(version) + size + header + data


def described(shape, descr="'<f8'", order="False") -> str:
    """The text of a header."""
    return f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}\n"


def archive(*members, compression=zipfile.ZIP_STORED) -> bytes:
    """The bytes of an archive of (name, bytes)."""
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w", compression) as file:
        for name, data in members:
            file.writestr(zipfile.ZipInfo(name), data, compression)
    return written.getvalue()


def arrays_file(**arrays) -> bytes:
    """The bytes of an .npz file; names may contain "__" for ".", as in input__time."""
    members = [(f"{name.replace('__', '.')}.npy", npy(array)) for name, array in arrays.items()]
    return archive(*members)


# -- bombs

_MEBIBYTE = 2**20


@functools.cache
def deflated_zeros(mebibytes: int, value: int = 0) -> bytes:
    """A raw deflate stream of many equal bytes, without its end: pieces that end with a full flush are
    independent of each other, so that one piece is compressed and repeated.
    """
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
    piece = compressor.compress(bytes([value]) * _MEBIBYTE) + compressor.flush(zlib.Z_FULL_FLUSH)
    return piece * mebibytes


_LAST_BLOCK = b"\x01\x00\x00\xff\xff"


def zlib_bomb(mebibytes: int, prefix: bytes = b"") -> bytes:
    """A zlib stream of many zeros after a prefix; its checksum is wrong, which is noticed at its end."""
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
    start = compressor.compress(prefix) + compressor.flush(zlib.Z_FULL_FLUSH)
    return b"\x78\xda" + start + deflated_zeros(mebibytes) + _LAST_BLOCK + bytes(4)


def gzip_bomb(mebibytes: int, prefix: bytes = b"") -> bytes:
    """A gzip file of many zeros after a prefix."""
    checksum = zlib.crc32(prefix)
    zeros = bytes(_MEBIBYTE)
    for _ in range(mebibytes):
        checksum = zlib.crc32(zeros, checksum)
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
    start = compressor.compress(prefix) + compressor.flush(zlib.Z_FULL_FLUSH)
    size = (len(prefix) + mebibytes * _MEBIBYTE) % 2**32
    header = b"\x1f\x8b\x08\x00" + bytes(4) + b"\x02\xff"
    end = struct.pack("<II", checksum, size)
    return header + start + deflated_zeros(mebibytes) + _LAST_BLOCK + end


def zip_member(
    name: bytes,
    data: bytes,
    *,
    method: int = 0,
    size: int | None = None,
    packed_size: int | None = None,
    checksum: int | None = None,
    flags: int = 0,
    count: int = 1,
    local_name: bytes | None = None,
    offset: int = 0,
) -> bytes:
    """An archive of one member whose headers say what the caller wants.

    Args:
        data: bytes as they lie in the archive.
        size, packed_size, checksum: what the headers specify; None: the facts of stored data.
        count: number of entries of the directory, all of which name the same data.
        local_name: name in the header before the data, if it differs from that of the directory.
        offset: added to the offset of the data.
    """
    size = len(data) if size is None else size
    packed_size = len(data) if packed_size is None else packed_size
    checksum = zlib.crc32(data) if checksum is None else checksum
    facts = struct.pack("<HHHHHIII", 20, flags, method, 0, 33, checksum, packed_size, size)
    place_name = name if local_name is None else local_name
    local = b"PK\3\4" + facts + struct.pack("<HH", len(place_name), 0) + place_name + data
    directory = b""
    for _ in range(count):
        directory += b"PK\1\2" + struct.pack("<H", 20) + facts
        directory += struct.pack("<HHHHHII", len(name), 0, 0, 0, 0, 0, offset) + name
    entries = min(count, 0xFFFF)
    end = struct.pack("<HHHHIIH", 0, 0, entries, entries, len(directory), len(local), 0)
    return local + directory + b"PK\5\6" + end
