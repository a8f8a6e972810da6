"""Files of data sets, broken at random: idx files, gzipped or not, PNG files, sounds and utterances."""

import gzip
import os
import struct
import zlib

import numpy as np

from jaxsnn.files.sounds import read_sound
from jaxsnn.nir.io.spike_trains import read_spike_labels
from jaxsnn.simulation.stored_events import RecordingFiles, SpikeTrainFile, StoredEvents
from jaxsnn.train.data.images import read_images
from jaxsnn.train.data.utterances import cochleagram, read_ts
from tests.fuzz.mutated_files import mutated_bytes, mutated_fields
from tests.helpers.event_files import (
    aedat2_bytes,
    aedat3_bytes,
    bin_bytes,
    packet,
    write_heidelberg,
)

#: Sizes that a header may state.
_SIZES = (0, 1, 2, 3, 4, 9, 255, 256, 2**15, 2**16 - 1, 2**20, 2**27, 2**31 - 1, 2**31, 2**32 - 1)


class Images:
    """Idx files of images, of labels, or of both."""

    end = ""

    def __init__(self, folder):
        self.folder = folder / "images"
        self.folder.mkdir()
        rng = np.random.default_rng(0)
        self.images = _idx((4, 5, 6), rng.integers(0, 256, 120, np.uint8).tobytes())
        self.labels = _idx((4,), bytes([3, 1, 4, 1]))

    def image(self, rng):
        """The images and the labels, one after the other, behind the size of the former."""
        images, labels = self.images, self.labels
        if rng.integers(3):
            images = self.pack(rng, _mutated_idx(rng, images))
        else:
            images = self.pack(None, images)
        labels = (
            self.pack(rng, _mutated_idx(rng, labels))
            if rng.integers(3) == 0
            else self.pack(None, labels)
        )
        return struct.pack("<I", len(images)) + images + labels

    def pack(self, rng, data):
        """The bytes of a file."""
        return data

    def journey(self, path, rng):
        content = path.read_bytes()
        size = 4 + struct.unpack("<I", content[:4])[0]
        for name, part in (("images-idx3", content[4:size]), ("labels-idx1", content[size:])):
            (self.folder / f"train-{name}-ubyte{self.end}").write_bytes(part)
        yield "read"
        images, labels = read_images(self.folder, "train")
        yield "compare"
        assert len(images) == len(labels)
        assert images.dtype == np.uint8
        assert int(images.sum()) >= 0  # a memory-mapped file is read here


class Gzipped(Images):
    """The same, gzipped: the file inside or the gzip stream is broken, or expands a lot."""

    end = ".gz"

    def pack(self, rng, data):
        if rng is None:
            return gzip.compress(data, mtime=0)
        kind = int(rng.integers(6))
        if kind == 0:
            data += bytes(int(rng.choice([1, 2**10, 2**20, 2**26])))
        packed = gzip.compress(data, 9 if len(data) < 2**20 else 1, mtime=0)
        if kind == 1:
            return mutated_bytes(rng, packed)
        if kind == 2:
            return mutated_fields(rng, packed, _GZIP, "<")
        if kind == 3:
            return packed + gzip.compress(bytes(int(rng.choice([0, 1, 100]))), mtime=0)
        if kind == 4:
            return packed + bytes(int(rng.choice([1, 8, 1000])))
        return packed


#: (offset, size) of the fields of a gzip header, and of its end.
_GZIP = ((0, 2), (2, 1), (3, 1), (4, 4), (8, 1), (9, 1), (-8, 4), (-4, 4))


def _idx(shape, data, kind=8):
    return bytes([0, 0, kind, len(shape)]) + struct.pack(f">{len(shape)}I", *shape) + data


def _mutated_idx(rng, data):
    kind, axes = int(rng.integers(5)), data[3]
    if kind == 0:
        return mutated_bytes(rng, data)
    if kind == 1:  # numbers of another type, with as many bytes as they need
        code, dtype = _NUMBERS[int(rng.integers(len(_NUMBERS)))]
        shape = struct.unpack(f">{axes}I", data[4 : 4 + 4 * axes])
        values = rng.choice([0.0, 1.0, -1.0, 9.0, 10.0, 1e9, np.nan, np.inf], int(np.prod(shape)))
        with np.errstate(all="ignore"):
            return _idx(shape, values.astype(dtype).tobytes(), code)
    fields = [(2, 1), (3, 1), *((4 + 4 * axis, 4) for axis in range(axes))]
    return mutated_fields(rng, data, fields, ">")


_NUMBERS = ((8, ">u1"), (9, ">i1"), (11, ">i2"), (12, ">i4"), (13, ">f4"), (14, ">f8"))


class Pictures:
    """A folder of PNG files, one of which is broken: its chunks, their lengths and checksums, the
    header, the compressed rows, or its bytes.
    """

    def __init__(self, folder):
        self.folder = folder / "pictures"
        for label in ("0", "1"):
            (self.folder / "train" / label).mkdir(parents=True)
        (self.folder / "train" / "1" / "1.png").write_bytes(_png(_grey(6, 5)))

    def image(self, rng):
        chunks = _grey(6, 5) if rng.integers(3) else _colour(rng)
        if rng.integers(5) == 0:
            return mutated_bytes(rng, _png(chunks))
        for _ in range(int(rng.choice([1, 1, 2]))):
            chunks = _mutated_chunks(rng, chunks)
        return _png(chunks)

    def journey(self, path, rng):
        os.replace(path, self.folder / "train" / "0" / "0.png")
        yield "read"
        images, labels = read_images(self.folder, "train")
        yield "compare"
        assert images.shape == (2, 5, 6)
        assert labels.tolist() == [0, 1]


def _chunk(kind, data):
    return (kind, data, len(data), zlib.crc32(kind + data))


def _png(chunks):
    parts = (
        struct.pack(">I", size % 2**32) + kind + data + struct.pack(">I", check)
        for kind, data, size, check in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def _grey(width, height, bits=8, colour=0, interlaced=0, channels=1):
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, interlaced)
    rows = b"".join(b"\0" + bytes(-(-width * channels * bits // 8)) for _ in range(height))
    return [_chunk(b"IHDR", header), _chunk(b"IDAT", zlib.compress(rows)), _chunk(b"IEND", b"")]


def _colour(rng):
    """An image of another type than grey with 8 bits."""
    colour, channels = ((0, 1), (2, 3), (3, 1), (4, 2), (6, 4))[int(rng.integers(5))]
    bits = int(rng.choice([1, 2, 4, 8, 16]))
    chunks = _grey(6, 5, bits, colour, int(rng.integers(2)), channels)
    if colour == 3:
        chunks.insert(1, _chunk(b"PLTE", bytes(3 * int(rng.choice([1, 2, 256])))))
    return chunks


_KINDS = (
    b"IHDR",
    b"IDAT",
    b"IEND",
    b"PLTE",
    b"tRNS",
    b"gAMA",
    b"zTXt",
    b"iTXt",
    b"iCCP",
    b"tEXt",
    b"acTL",
    b"fcTL",
    b"fdAT",
    b"eXIf",
    b"ABCD",
)


def _mutated_chunks(rng, chunks):
    chunks, kind = list(chunks), int(rng.integers(9))
    if not chunks:
        return chunks
    place = int(rng.integers(len(chunks)))
    name, data, size, check = chunks[place]
    if kind == 0:
        del chunks[place]
    elif kind == 1:
        chunks.insert(int(rng.integers(len(chunks) + 1)), chunks[place])
    elif kind == 2:
        chunks[place] = (name, data, int(rng.choice(_SIZES)), check)
    elif kind == 3:
        chunks[place] = (name, data, size, int(rng.integers(2**32)))
    elif kind == 4:
        chunks[place] = _chunk(_KINDS[int(rng.integers(len(_KINDS)))], data)
    elif kind == 5 and data:
        chunks[place] = _chunk(name, mutated_bytes(rng, data))
    elif kind == 6:
        text = b"Comment\0\0" + _zeros(rng)
        chunks.insert(1, _chunk((b"zTXt", b"iTXt", b"iCCP", b"eXIf")[int(rng.integers(4))], text))
    elif kind == 7:
        rows = (
            bytes(rng.integers(0, 6, int(rng.integers(40)), np.uint8)) if rng.integers(2) else None
        )
        chunks = [
            _chunk(b"IDAT", _zeros(rng) if rows is None else zlib.compress(rows))
            if entry[0] == b"IDAT"
            else entry
            for entry in chunks
        ]
    elif chunks[0][0] == b"IHDR" and len(chunks[0][1]) == 13:
        fields = ((0, 4), (4, 4), (8, 1), (9, 1), (10, 1), (11, 1), (12, 1))
        chunks[0] = _chunk(b"IHDR", mutated_fields(rng, chunks[0][1], fields, ">"))
    return chunks


def _zeros(rng):
    """Compressed zeros, up to 64 MiB of them."""
    return zlib.compress(
        bytes(int(rng.choice([0, 1, 30, 2**16, 2**22, 2**26], p=[0.2, 0.2, 0.2, 0.2, 0.15, 0.05]))),
        1,
    )


class Sounds:
    """Sounds: the fields of their chunks, their sizes, their samples, or their bytes."""

    def __init__(self, folder):
        wave = np.sin(np.arange(900) / 5)
        kinds = (
            (1, 8, "u1", 100),
            (1, 16, "<i2", 9000),
            (1, 32, "<i4", 2**30),
            (3, 32, "<f4", 1),
            (3, 64, "<f8", 1),
        )
        self.sounds = [
            _wav(kind, bits, (wave * scale + (128 if dtype == "u1" else 0)).astype(dtype).tobytes())
            for kind, bits, dtype, scale in kinds
        ]
        self.path = folder / "mutated.wav"

    def image(self, rng):
        data, kind = self.sounds[int(rng.integers(len(self.sounds)))], int(rng.integers(6))
        if kind == 0:
            return mutated_bytes(rng, data)
        if kind == 1:
            place, size = 44 + 4 * int(rng.integers((len(data) - 52) // 4)), int(rng.choice([4, 8]))
            odd = rng.choice([np.nan, np.inf, -np.inf, 1e308, -1.0, 5e-324])
            with np.errstate(all="ignore"):
                value = np.array(odd).astype("<f4" if size == 4 else "<f8").tobytes()
            return data[:place] + value + data[place + size :]
        if kind == 2:
            piece = data[36:] if rng.integers(2) else data[12:36]
            return data[:12] + piece * int(rng.integers(3)) + data[12:]
        return mutated_fields(rng, data, _WAV, "<")

    def journey(self, path, rng):
        os.replace(path, self.path)
        yield "read"
        sound = read_sound(self.path, 1.2)
        yield "loudness"
        loudness = cochleagram(sound.samples, sound.rate)
        assert np.nanmin(loudness, initial=0.0) >= 0.0
        assert np.nanmax(loudness, initial=0.0) <= 1.0
        frames = np.isfinite(loudness).all(axis=1)
        assert frames.any(), "no frame has a loudness"


#: (offset, size) of the fields of a WAV file, from the size of the file to that of the samples.
_WAV = (
    (0, 4),
    (4, 4),
    (8, 4),
    (12, 4),
    (16, 4),
    (20, 2),
    (22, 2),
    (24, 4),
    (28, 4),
    (32, 2),
    (34, 2),
    (36, 4),
    (40, 4),
)


def _wav(kind, bits, data, rate=8000):
    described = struct.pack(
        "<4sIHHIIHH", b"fmt ", 16, kind, 1, rate, rate * bits // 8, bits // 8, bits
    )
    body = b"WAVE" + described + b"data" + struct.pack("<I", len(data)) + data
    return b"RIFF" + struct.pack("<I", len(body)) + body


class Utterances:
    """.ts files whose numbers, separators and lines are replaced by odd ones."""

    def __init__(self, folder):
        rng = np.random.default_rng(0)
        lines = [
            ":".join(
                ",".join(f"{value:.3f}" for value in rng.normal(size=frames)) for _ in range(12)
            )
            + f":{speaker}"
            for speaker, frames in ((1, 3), (2, 7), (9, 29), (4, 1))
        ]
        self.lines = ["@problemName JapaneseVowels", "@classLabel true 1 2 3", "@data", *lines]

    def image(self, rng):
        lines = list(self.lines)
        if rng.integers(6) == 0:
            return mutated_bytes(rng, "\n".join(lines).encode())
        for _ in range(int(rng.choice([1, 1, 2]))):
            place, kind = int(rng.integers(len(lines))), int(rng.integers(6))
            if kind == 0:
                del lines[place]
            elif kind == 1:
                lines.insert(place, lines[int(rng.integers(len(lines)))])
            elif kind == 2:
                separator = ":,\n @"[int(rng.integers(5))]
                parts = lines[place].split(":" if rng.integers(2) else ",")
                lines[place] = separator.join(parts)
            else:
                words = lines[place].replace(":", ",").split(",")
                word = words[int(rng.integers(len(words)))]
                odd = _ODD_NUMBERS[int(rng.integers(len(_ODD_NUMBERS)))]
                lines[place] = lines[place].replace(word, odd, 1) if word else odd
            if not lines:
                break
        return "\n".join(lines).encode(errors="surrogatepass")

    def journey(self, path, rng):
        yield "read"
        values, labels = read_ts(path)
        yield "compare"
        assert values.shape[1:] == (29, 12)
        assert ((labels >= 0) & (labels < 9)).all()
        assert np.isfinite(values[:, 0]).all()
        assert not np.isinf(values).any()


_ODD_NUMBERS = (
    *(
        "nan",
        "inf",
        "-inf",
        "1e999",
        "1e308",
        "",
        " ",
        "0x10",
        "1_0",
        "-1",
        "0",
        "10",
        "1.5",
        "９",
        "x" * 300,
    ),
    *("9" * 400, "9" * 5000, "\x1b[2J", "\0", "1,2", ":", "1:2", "\u2028", "\x85", "1e-400"),
)


class CameraFiles:
    """Recordings of event cameras: their bytes, or the fields of the packets of AEDAT 3.1."""

    def __init__(self, folder):
        rng = np.random.default_rng(0)
        events = np.stack([np.arange(40) * 50, *rng.integers(0, 34, (2, 40)), np.arange(40) % 2])
        rows = [tuple(map(int, event)) for event in events.T]
        self.contents = {
            ".bin": bin_bytes(rows),
            "-2.aedat": aedat2_bytes(rows),
            "-3.aedat": aedat3_bytes(packet(rows[:20]), packet([], 2, 4, 0), packet(rows[20:])),
        }
        self.paths = {ending: folder / f"mutated{ending}" for ending in self.contents}
        self.ending = ".bin"

    def image(self, rng):
        self.ending = str(rng.choice(list(self.contents)))
        data = self.contents[self.ending]
        if self.ending != "-3.aedat" or rng.integers(2):
            return mutated_bytes(rng, data)
        start = data.index(b"#!END-HEADER\r\n") + len(b"#!END-HEADER\r\n")
        fields = [(0, 2), (2, 2), *((place, 4) for place in range(4, 36, 4))]
        return data[:start] + mutated_fields(rng, data[start:], fields, "<")

    def journey(self, path, rng):
        os.replace(path, self.paths[self.ending])
        yield "read"
        recording = RecordingFiles(
            name="mutated", paths=(self.paths[self.ending],), size=(128, 128, 2)
        )
        events = StoredEvents(recording, 128 * 128 * 2)
        yield "load"
        time = np.asarray(events.load(np.array([0])).time)
        assert (np.diff(time[np.isfinite(time)]) >= 0).all()


class SpikeTrains:
    """HDF5 files of spike trains, of which bytes are replaced."""

    def __init__(self, folder):
        path = folder / "spikes.h5"
        rows = [[0.1 * number, 0.9] for number in range(6)]
        write_heidelberg(path, rows, [[1, 699]] * 6, np.arange(6) % 2, ("a", "b"))
        self.content = path.read_bytes()

    def image(self, rng):
        return mutated_bytes(rng, self.content)

    def journey(self, path, rng):
        yield "labels"
        table = read_spike_labels(path)
        assert table.samples < 100
        yield "read"
        events = StoredEvents(SpikeTrainFile(name=str(path), samples=table.samples), 700)
        yield "load"
        index = np.asarray(events.load(np.arange(len(events))).index)
        assert ((index >= 0) & (index <= 700)).all()


#: Kinds of files by their names in `file_journeys`.
KINDS = {
    "camera": CameraFiles,
    "spikes": SpikeTrains,
    "idx": Images,
    "gzip": Gzipped,
    "png": Pictures,
    "wav": Sounds,
    "ts": Utterances,
}
