"""PNG images, decoded by Pillow in a separate process: one for all images of a folder."""

from __future__ import annotations

import math
import os
import struct
import zlib
from collections.abc import Iterator, Sequence
from io import BufferedWriter, BytesIO
from typing import Any

import numpy as np

from jaxsnn.errors import FileError, JaxsnnError, UsageError, first_line
from jaxsnn.files.opening import read_bytes
from jaxsnn.files.read_limits import ByteBudget, ReadLimits
from jaxsnn.files.read_process import (
    ReadProcess,
    process_limits,
    receive_header,
    reporting_errors,
    send_header,
)
from jaxsnn.wording import Text

Name = str | os.PathLike[str]

_SIGNATURE, _CHUNK, _HEADER = b"\x89PNG\r\n\x1a\n", struct.Struct(">I4s"), struct.Struct(">2I5B")
#: Type of the colours of a palette.
_PALETTE = 3
#: Bit of the first letter of the kind of a chunk that a reader may ignore.
_ANCILLARY = 0x20
#: Bytes per pixel that Pillow needs at most for an image and its conversion to grey.
_PIXEL_SIZE = 5


def read_pngs(paths: Sequence[Name], budget: ByteBudget) -> np.ndarray:
    """Read images of the same shape, (images, rows, columns) uint8; colours become grey.

    Args:
        paths: paths of the files, at least one.
        budget: bytes that the images may have, and the time limit, which is that of all images
            together.

    Raises:
        FileError: a file is not a PNG image of at most 8 bits per pixel and colour, the shapes
            differ, or a limit is exceeded.
        UsageError: Pillow is not installed.
    """
    try:
        from PIL import Image as pillow
    except ImportError as error:
        raise UsageError(
            Text("reading {path} requires pillow, which is not installed", path=paths[0]),
            fix="pip install pillow",
        ) from error
    pillow.preinit()  # once, and not in each process that reads
    limits = process_limits()
    if limits is None:
        source = (_decoded(pillow, path) for path in paths)
    else:
        source = _decoded_apart(pillow, paths, budget, limits)
    images = np.empty((0, 0, 0), np.uint8)
    for number, image in enumerate(source):
        budget.refuse_late()
        if number == 0:
            budget.take("its images", len(paths) * image.size)
            images = np.empty((len(paths), *image.shape), np.uint8)
        if image.shape != images.shape[1:]:
            raise FileError(
                Text(
                    "the shape of {path} is {actual}, and that of {reference} is {expected}",
                    path=paths[number],
                    actual=image.shape,
                    reference=paths[0],
                    expected=images.shape[1:],
                ),
                fix="resize all images to the same shape",
            )
        images[number] = image
    return images


def _decoded_apart(
    pillow: Any, paths: Sequence[Name], budget: ByteBudget, limits: ReadLimits
) -> Iterator[np.ndarray]:
    """Yield the images in turn, decoded in another process."""

    def work(out: BufferedWriter) -> None:
        for path in paths:
            with reporting_errors(out, path):
                image = _decoded(pillow, path)
            send_header(out, {"shape": image.shape})
            out.write(image.tobytes())

    with ReadProcess(budget.path, work, limits, decoder="Pillow") as child:
        for path in paths:
            shape = receive_header(child, path)["shape"]
            yield np.frombuffer(child.read(math.prod(shape)), np.uint8).reshape(shape)


def _decoded(pillow: Any, path: Name) -> np.ndarray:
    """Return a grey image, (rows, columns) uint8, read as PNG, whatever its content looks like.

    Other formats are not tried: Pillow's decoder of PostScript starts Ghostscript, which runs what is
    in the file.

    Raises:
        FileError: the file is not a PNG image of at most 8 bits per pixel and colour.
    """
    try:
        with (
            BytesIO(_checked(read_bytes(path, "a PNG file"))) as content,
            pillow.open(content, formats=("PNG",)) as image,
        ):
            if image.mode.startswith("I"):
                raise FileError(
                    Text(
                        "{path} has 16 bits per pixel, and only 8 bits are supported",
                        path=path,
                    ),
                    fix="convert the image to 8 bits per pixel",
                )
            ByteBudget(path).take("its pixels", _PIXEL_SIZE * image.width * image.height)
            return np.asarray(image.convert("L"))
    except (JaxsnnError, MemoryError):
        raise
    except Exception as error:  # Pillow's errors of damaged files have no common class
        raise FileError(
            Text(
                "{path} cannot be read as a PNG image ({reason})",
                path=path,
                reason=first_line(error),
            ),
            fix="download the image again, or convert it to PNG",
        ) from error


def _checked(content: bytes) -> bytes:
    """Return the content of a PNG file whose chunks are complete and in order. Pillow ignores wrong
    checksums of the rows, missing ends and unknown chunks, and guesses a palette that is missing.

    Raises:
        ValueError: the file is damaged, or no PNG file.

    Source: Portable Network Graphics (PNG) Specification, third edition, W3C, 2025, section 5.
    """
    kinds: list[bytes] = []
    place = len(_SIGNATURE)
    if not content.startswith(_SIGNATURE):
        raise ValueError("it does not begin as a PNG file")
    while kinds[-1:] != [b"IEND"]:
        if len(content) < place + _CHUNK.size:
            raise ValueError("it is truncated")
        size, kind = _CHUNK.unpack_from(content, place)
        end = place + _CHUNK.size + size
        if len(content) < end + 4:
            raise ValueError(f"it is truncated in the chunk {kind!r}")
        if content[end : end + 4] != zlib.crc32(content[place + 4 : end]).to_bytes(4):
            raise ValueError(f"the chunk {kind!r} does not match its checksum")
        if not kind[0] & _ANCILLARY and kind not in (b"IHDR", b"PLTE", b"IDAT", b"IEND"):
            raise ValueError(f"the chunk {kind!r} is unknown")
        if (kind == b"IHDR") != (not kinds) or (not kinds and size != _HEADER.size):
            raise ValueError("it does not begin with a single header")
        kinds.append(kind)
        place = end + 4
    if len(content) != place:
        raise ValueError(f"it has {len(content) - place} bytes after its end")
    header = content[len(_SIGNATURE) + _CHUNK.size :]
    _, _, _, colour, compression, filtering, _ = _HEADER.unpack_from(header)
    if compression or filtering:
        raise ValueError(f"its compression is {compression} and its filter {filtering}, not 0")
    if colour == _PALETTE and b"PLTE" not in kinds:
        raise ValueError("it has no palette")
    return content
