"""Compressed and plain parts of a file, decoded into memory that the caller has allocated."""

from __future__ import annotations

import zlib
from typing import IO

from jaxsnn.files.read_limits import ByteBudget

#: Bytes that are read and decompressed at once.
_PIECE = 2**20

#: Values of zlib's `wbits`: deflate without a header, as in ZIP, and gzip.
DEFLATE, GZIP = -15, 31


class BoundedStream:
    """Part of a file that is decompressed piece by piece, never further than requested.

    Args:
        file: Open file.
        start: First byte of the part.
        size: Bytes of the part in the file.
        wbits: Kind of compression, `DEFLATE` or `GZIP`; None: not compressed.
        budget: Budget whose time limit applies.
    """

    def __init__(
        self, file: IO[bytes], start: int, size: int, wbits: int | None, budget: ByteBudget
    ):
        self._file, self._position, self._left, self._budget = file, start, size, budget
        self._decompressor = None if wbits is None else zlib.decompressobj(wbits)
        #: CRC-32 of the bytes that were decoded.
        self.checksum = 0

    def read(self, size: int) -> bytes:
        """Return the next bytes, fewer than `size` at the end of the part only.

        Raises:
            zlib.error: The data are damaged.
            FileError: The time limit is exceeded.
        """
        room = bytearray(size)
        return bytes(room[: self.read_into(memoryview(room))])

    def read_into(self, room: memoryview) -> int:
        """Fill a buffer and return the number of bytes; raises the errors of `read`."""
        filled = 0
        while filled < len(room):
            self._budget.refuse_late()
            piece = self._next(min(_PIECE, len(room) - filled))
            if not piece:
                break
            room[filled : filled + len(piece)] = piece
            self.checksum = zlib.crc32(piece, self.checksum)
            filled += len(piece)
        return filled

    def ends(self) -> bool:
        """Return whether the part ends here: nothing follows, and compressed data are complete."""
        if self._next(1):
            return False
        stream = self._decompressor
        return self._left == 0 and (stream is None or (stream.eof and not stream.unused_data))

    def _next(self, limit: int) -> bytes:
        """Return between 1 and `limit` bytes; none at the end."""
        stream = self._decompressor
        if stream is None:
            return self._stored(limit)
        while not stream.eof:
            source = stream.unconsumed_tail or self._stored(_PIECE)
            if piece := stream.decompress(source, limit):
                return piece
            if not source:
                break
        return b""

    def _stored(self, limit: int) -> bytes:
        self._file.seek(self._position)
        piece = self._file.read(min(limit, self._left))
        self._position += len(piece)
        self._left -= len(piece)
        return piece
