"""Hostile folders of images: idx files, gzipped idx files and PNG files."""

import functools
import gzip
import os
import struct
import zlib

import numpy as np

from tests.faults.hostile_files.case import Corpus, gzip_bomb, zlib_bomb

CORPUS = Corpus()
IMAGES, LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"


def idx(shape, data, kind=8, axes=None) -> bytes:
    """An idx file; `axes` is the number of axes that the header specifies."""
    header = bytes([0, 0, kind, len(shape) if axes is None else axes])
    return header + b"".join(struct.pack(">I", size) for size in shape) + data


PIXELS, NUMBERS = idx((4, 3, 3), bytes(36)), idx((4,), bytes([0, 1, 2, 3]))


def add_idx(name, *words, images=PIXELS, labels=NUMBERS, end="", **options):
    """A folder of hostile training images or labels, and of a sound test; a function writes what is no
    regular file.
    """

    def write(folder):
        folder.mkdir()
        (folder / "t10k-images-idx3-ubyte").write_bytes(PIXELS)
        (folder / "t10k-labels-idx1-ubyte").write_bytes(NUMBERS)
        for file_name, content in ((IMAGES + end, images), (LABELS + end, labels)):
            place = folder / file_name
            content(place) if callable(content) else place.write_bytes(content)

    CORPUS.add(f"idx: {name}", write, *words, reader="images", path="images", **options)


for keep in (0, 1, 3, 4, 7, 8, 12, 15):
    add_idx(f"images of {keep} bytes", IMAGES, images=PIXELS[:keep])
for keep in (0, 3, 5, 7):
    add_idx(f"labels of {keep} bytes", LABELS, labels=NUMBERS[:keep])
for keep in (16, 17, 51):
    add_idx(f"header and {keep - 16} pixels", IMAGES, "36", images=PIXELS[:keep])
add_idx("a byte too many", IMAGES, "37", images=PIXELS + b"\0")
add_idx("magic", IMAGES, images=b"\1" + PIXELS[1:])
add_idx("magic in the wrong order", IMAGES, images=PIXELS[:4][::-1] + PIXELS[4:])
add_idx(
    "sizes in the wrong order",
    IMAGES,
    images=b"\0\0\x08\x03" + struct.pack("<III", 4, 3, 3) + bytes(36),
)
for kind in (0, 7, 10, 15, 255):
    add_idx(f"type {kind}", IMAGES, images=idx((4, 3, 3), bytes(36), kind))
add_idx("type of larger numbers", IMAGES, images=idx((4, 3, 3), bytes(144), 12))
add_idx("signed bytes", IMAGES, images=idx((4, 3, 3), bytes(36), 9))
add_idx("numbers NaN", IMAGES, images=idx((4, 3, 3), np.full(36, np.nan, ">f4").tobytes(), 13))
add_idx("labels NaN", "labels", labels=idx((4,), np.full(4, np.nan, ">f8").tobytes(), 14))
add_idx("labels of halves", "labels", labels=idx((4,), np.full(4, 0.5, ">f4").tobytes(), 13))
add_idx("labels negative", "-1", labels=idx((4,), b"\xff" * 4, 9))
add_idx("labels 255", "255", labels=idx((4,), b"\xff" * 4))
add_idx("labels 2^31 - 1", "2147483647", labels=idx((4,), b"\x7f\xff\xff\xff" * 4, 12))
add_idx("labels of two axes", LABELS + "|" + IMAGES, labels=idx((2, 2), bytes(4)))
add_idx("three labels of four images", "4", "3", labels=idx((3,), bytes(3)))
add_idx("no axes", IMAGES, images=idx((), b""))
add_idx("two axes", IMAGES, images=idx((4, 9), bytes(36)))
add_idx("four axes", IMAGES, images=idx((4, 3, 3, 1), bytes(36)))
add_idx("255 axes", IMAGES, images=idx((1,) * 255, b"\0"))
add_idx("255 axes without sizes", IMAGES, images=idx((4,), bytes(4), axes=255))
add_idx("no images", "train", images=idx((0, 3, 3), b""), labels=idx((0,), b""))
add_idx("images without pixels", IMAGES, images=idx((4, 0, 3), b""))
add_idx("sizes 2^32 - 1", IMAGES, images=idx((2**32 - 1,) * 3, bytes(36)))
add_idx("sizes whose product is 0 modulo 2^64", IMAGES, images=idx((2**31, 2**31, 4), b""))
for name, place in {
    "a pipe": os.mkfifo,
    "a link to a device": lambda place: place.symlink_to("/dev/zero"),
    "a folder": lambda place: place.mkdir(),
}.items():
    add_idx(f"images are {name}", IMAGES, images=place)
    add_idx(f"labels are {name}", LABELS, labels=place)

# -- gzip

PACKED, PACKED_NUMBERS = gzip.compress(PIXELS, mtime=0), gzip.compress(NUMBERS, mtime=0)


def add_gzip(name, *words, images=PACKED, labels=PACKED_NUMBERS, **options):
    add_idx(f"gz, {name}", *words, images=images, labels=labels, end=".gz", **options)


for keep in (
    0,
    1,
    2,
    3,
    5,
    9,
    10,
    14,
    len(PACKED) - 9,
    len(PACKED) - 8,
    len(PACKED) - 4,
    len(PACKED) - 1,
):
    add_gzip(f"{keep} bytes", IMAGES, images=PACKED[:keep])
add_gzip("plain", IMAGES, images=PIXELS)
add_gzip("method 7", IMAGES, images=PACKED[:2] + b"\7" + PACKED[3:])
add_gzip("reserved flags", IMAGES, images=PACKED[:3] + b"\xe0" + PACKED[4:])
add_gzip("name without an end", IMAGES, images=PACKED[:3] + b"\x08" + PACKED[4:10] + b"a" * 5000)
add_gzip(
    "extra field beyond the file",
    IMAGES,
    images=PACKED[:3] + b"\x04" + PACKED[4:10] + b"\xff\xff" + bytes(20),
)
add_gzip("checksum", IMAGES, images=PACKED[:-8] + bytes(4) + PACKED[-4:])
add_gzip("size at the end", IMAGES, images=PACKED[:-4] + b"\7\0\0\0")
add_gzip("bytes after the end", IMAGES, images=PACKED + b"hello")
add_gzip("a second member", IMAGES, images=PACKED + gzip.compress(b"hello"))
add_gzip("packed twice", IMAGES, images=gzip.compress(PACKED))
add_gzip("invalid blocks", IMAGES, images=PACKED[:10] + b"\xff" * 40)
add_gzip("pixels missing", IMAGES, images=gzip.compress(PIXELS[:-1]))
add_gzip("header truncated", IMAGES, images=gzip.compress(PIXELS[:9]))
add_gzip("1,000 empty members", IMAGES, images=gzip.compress(b"") * 1000)


def _bomb(header, mebibytes):
    return lambda place: place.write_bytes(gzip_bomb(mebibytes, header))


_LARGE = idx((2**20, 32, 32), b"")
add_gzip("1 GiB, as the header says", "1073741824 bytes", images=_bomb(_LARGE, 1024))
add_gzip("2 GiB, without an idx header", IMAGES, images=_bomb(b"", 2048))
add_gzip("1 GiB after four images", IMAGES, images=_bomb(idx((4, 3, 3), b""), 1024))
add_gzip("1 GiB after four labels", LABELS, labels=_bomb(idx((4,), b""), 1024))
add_gzip(
    "header says 64 GiB",
    "68719476736 bytes",
    images=gzip.compress(idx((2**20, 256, 256), bytes(100))),
)
add_gzip(
    "header says 4 GiB within 2 GiB",
    "4294967296 bytes",
    images=_bomb(idx((2**20, 64, 64), b""), 600),
)
add_gzip(
    "name of 1 GiB",
    IMAGES,
    images=lambda place: _sparse(place, PACKED[:3] + b"\x08" + PACKED[4:10] + b"a"),
)


def _sparse(place, start, size=2**30):
    """A file of zeros after a start, which takes no room on the disk."""
    place.write_bytes(start)
    os.truncate(place, size)


add_idx("1 GiB of zeros", IMAGES, images=lambda place: _sparse(place, b"\0"))
add_idx("1 GiB after four images", IMAGES, images=lambda place: _sparse(place, PIXELS))

# -- PNG


def chunk(kind: bytes, data: bytes, length=None, checksum=None) -> bytes:
    """A chunk whose length and checksum may lie."""
    length = len(data) if length is None else length
    checksum = zlib.crc32(kind + data) if checksum is None else checksum
    return struct.pack(">I", length) + kind + data + struct.pack(">I", checksum)


SIGNATURE = b"\x89PNG\r\n\x1a\n"


def header(width=3, height=3, bits=8, colour=0, method=0, filters=0, interlaced=0) -> bytes:
    return chunk(
        b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, method, filters, interlaced)
    )


ROWS = chunk(b"IDAT", zlib.compress(bytes(12)))
END = chunk(b"IEND", b"")
PNG = SIGNATURE + header() + ROWS + END


def add_png(name, content, *words, label="0", file="mail.png", companions=True, **options):
    """A folder of a hostile training image among sound ones, and of a sound test."""

    def write(folder):
        labelled = folder / "train" / label
        labelled.mkdir(parents=True)
        place = labelled / file
        content(place) if callable(content) else place.write_bytes(content)
        if companions:
            for part in ("train", "test"):
                (folder / part / "1").mkdir(parents=True, exist_ok=True)
                (folder / part / "1" / "1.png").write_bytes(PNG)

    CORPUS.add(
        f"png: {name}", write, *(words or ("mail",)), reader="images", path="images", **options
    )


for keep in (0, 4, 8, 12, 20, 32, 33, 40, 45, len(PNG) - 14):
    add_png(f"{keep} bytes", PNG[:keep])
add_png("signature", b"\x88" + PNG[1:])
add_png("JPEG", b"\xff\xd8\xff\xe0\0\x10JFIF\0" + bytes(50))
add_png("GIF", b"GIF89a\3\0\3\0\0\0\0;")
add_png("PostScript", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 3 3\n(touch x) run\n")
add_png("a pipe", os.mkfifo)
add_png("a link to a device", lambda place: place.symlink_to("/dev/zero"))
add_png("a folder", lambda place: place.mkdir())
add_png("1 GiB", lambda place: _sparse(place, PNG))
for name, options in {
    "0 pixels wide": {"width": 0},
    "0 pixels high": {"height": 0},
    "2^31 pixels wide": {"width": 2**31},
    "2^32 - 1 squared": {"width": 2**32 - 1, "height": 2**32 - 1},
    "65,535 squared": {"width": 65535, "height": 65535},
    "13,000 squared": {"width": 13_000, "height": 13_000},
    "3 bits": {"bits": 3},
    "16 bits": {"bits": 16},
    "colour type 1": {"colour": 1},
    "colour type 7": {"colour": 7},
    "palette of 16 bits": {"colour": 3, "bits": 16},
    "palette missing": {"colour": 3},
    "compression method 1": {"method": 1},
    "interlace method 9": {"interlaced": 9},
    "interlaced rows that are missing": {"interlaced": 1, "width": 9, "height": 9},
    "rows of colour missing": {"colour": 2},
    "rows missing": {"height": 9},
}.items():
    add_png(name, SIGNATURE + header(**options) + ROWS + END)
add_png("header of 12 bytes", SIGNATURE + chunk(b"IHDR", header()[8:20]) + ROWS + END)
add_png("header missing", SIGNATURE + ROWS + END)
add_png("header twice, of other sizes", SIGNATURE + header() + header(width=9) + ROWS + END)
add_png("checksum of the header", SIGNATURE + header()[:-4] + bytes(4) + ROWS + END)
add_png("checksum of the rows", SIGNATURE + header() + ROWS[:-4] + bytes(4) + END)
add_png("rows gone", SIGNATURE + header() + END)
add_png("no deflate in the rows", SIGNATURE + header() + chunk(b"IDAT", b"\xff" * 40) + END)
add_png("filter 9", SIGNATURE + header() + chunk(b"IDAT", zlib.compress(b"\x09" * 12)) + END)
add_png("chunk of 2^31 - 1 bytes", SIGNATURE + header() + chunk(b"IDAT", b"x", length=2**31 - 1))
add_png(
    "chunk of 2^32 - 1 bytes",
    SIGNATURE + header() + chunk(b"tEXt", b"x", length=2**32 - 1) + ROWS + END,
)
add_png("unknown critical chunk", SIGNATURE + header() + chunk(b"ABCD", b"x") + ROWS + END)


def _with(kind, start, mebibytes):
    """An image with a chunk that is a bomb."""
    return lambda place: place.write_bytes(
        SIGNATURE + header() + chunk(kind, start + zlib_bomb(mebibytes)) + ROWS + END
    )


@functools.cache
def _rows_bomb():
    return SIGNATURE + header() + chunk(b"IDAT", zlib_bomb(1024))


add_png("1 GiB of rows, without an end", lambda place: place.write_bytes(_rows_bomb()))
add_png(
    "rows of 13,000 squared that are there",
    lambda place: place.write_bytes(
        SIGNATURE + header(13_000, 13_000) + chunk(b"IDAT", zlib_bomb(162)) + END
    ),
)
add_png("label that is no number", PNG, "cat", label="cat")
add_png("label of 5,000 digits", PNG, "9{20}", label="9" * 200)
add_png("label 10^12", PNG, "1000000000000", label=str(10**12))
add_png("label 10", PNG, "10", label="10")
add_png(
    "image of another shape", SIGNATURE + header(4) + chunk(b"IDAT", zlib.compress(bytes(15))) + END
)
add_png("no images", lambda place: None, "train|images", companions=False)
add_png("folder that is a link to itself", lambda place: place.symlink_to("."))
