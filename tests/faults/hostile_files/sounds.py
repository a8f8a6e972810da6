"""Hostile folders of sounds (.wav) and of utterances (.ts)."""

import os
import struct

import numpy as np

from tests.faults.hostile_files.case import Corpus

CORPUS = Corpus()


def chunk(kind: bytes, data: bytes, size=None) -> bytes:
    """A chunk whose size may lie."""
    return kind + struct.pack("<I", len(data) if size is None else size) + data


def described(
    rate=8000, channels=1, bits=16, kind=1, block=None, bytes_per_second=None, more=b""
) -> bytes:
    """The chunk that describes the samples."""
    block = channels * bits // 8 if block is None else block
    bytes_per_second = rate * block if bytes_per_second is None else bytes_per_second
    fields = struct.pack(
        "<HHIIHH", kind, channels, rate % 2**32, bytes_per_second % 2**32, block % 2**16, bits
    )
    return chunk(b"fmt ", fields + more)


def riff(*chunks, size=None, kind=b"RIFF", form=b"WAVE") -> bytes:
    body = form + b"".join(chunks)
    return kind + struct.pack("<I", len(body) if size is None else size) + body


SAMPLES = (1000 * np.sin(np.arange(800) / 5)).astype("<i2").tobytes()
WAV = riff(described(), chunk(b"data", SAMPLES))


def add(name, content, *words, **options):
    """A folder of a hostile sound among sound ones."""

    def write(folder):
        folder.mkdir()
        for number in range(4):
            for word in ("one", "two"):
                (folder / f"{word}_ann_{number * 3}.wav").write_bytes(WAV)
        place = folder / "two_mail_7.wav"
        content(place) if callable(content) else place.write_bytes(content)

    CORPUS.add(
        f"wav: {name}", write, *(words or ("mail",)), reader="sounds", path="sounds", **options
    )


for keep in (0, 4, 8, 12, 16, 20, 24, 35, 36, 40):
    add(f"{keep} bytes", WAV[:keep])
add("a sample and a half", WAV[:47])
add("text", b"hello")
add("FLAC", b"fLaC" + bytes(100))
add("AIFF", b"FORM" + bytes(4) + b"AIFF" + bytes(50))
add("big endian", riff(described(), chunk(b"data", SAMPLES), kind=b"RIFX"))
add("form of a video", riff(described(), chunk(b"data", SAMPLES), form=b"AVI "))
for name, options in {
    "rate 0": {"rate": 0},
    "rate 1": {"rate": 1},
    "rate of 10 MHz": {"rate": 10**7},
    "rate of 200 MHz": {"rate": 2 * 10**8},
    "rate 2^31": {"rate": 2**31},
    "rate 2^32 - 1": {"rate": 2**32 - 1},
    "no channels": {"channels": 0, "block": 2},
    "65,535 channels": {"channels": 65535},
    "no bits": {"bits": 0},
    "7 bits": {"bits": 7, "block": 2},
    "65,535 bits": {"bits": 65535},
    "128 bits": {"bits": 128},
    "block 0": {"block": 0},
    "block of three bytes": {"block": 3},
    "block of 65,535 bytes": {"block": 65535},
    "kind 0": {"kind": 0},
    "ADPCM": {"kind": 2, "bits": 4, "block": 1},
    "A-law": {"kind": 6, "bits": 8},
    "MP3": {"kind": 0x55},
    "extensible without an extension": {"kind": 0xFFFE},
    "float of 16 bits": {"kind": 3, "bits": 16},
    "float of 80 bits": {"kind": 3, "bits": 80},
}.items():
    add(name, riff(described(**options), chunk(b"data", SAMPLES)))
for name, value in {"NaN": np.nan, "infinite": np.inf}.items():
    for dtype, bits in (("<f4", 32), ("<f8", 64)):
        numbers = np.full(800, value, dtype)
        add(
            f"{bits} bits, {name}",
            riff(described(bits=bits, kind=3), chunk(b"data", numbers.tobytes())),
        )
numbers = np.zeros(800, "<f4")
numbers[700] = np.nan
add("one NaN", riff(described(bits=32, kind=3), chunk(b"data", numbers.tobytes())), "mail", "700")
add(
    "samples of 1e308",
    riff(described(bits=64, kind=3), chunk(b"data", np.full(800, 1e308).tobytes())),
)
add("description of 4 bytes", riff(chunk(b"fmt ", bytes(4)), chunk(b"data", SAMPLES)))
add(
    "description of 2^31 bytes",
    riff(chunk(b"fmt ", described()[8:], 2**31), chunk(b"data", SAMPLES)),
)
add("description missing", riff(chunk(b"data", SAMPLES)))
add(
    "two descriptions",
    riff(described(), described(rate=16000, channels=2), chunk(b"data", SAMPLES)),
)
add("samples missing", riff(described()))
add("no samples", riff(described(), chunk(b"data", b"")))
add("samples of 2^31 bytes", riff(described(), chunk(b"data", SAMPLES, 2**31)))
add("samples of 2^32 - 1 bytes", riff(described(), chunk(b"data", SAMPLES, 2**32 - 1)))
add("samples of ten bytes more", riff(described(), chunk(b"data", SAMPLES, len(SAMPLES) + 10)))
add(
    "10,000 empty chunks",
    riff(*[chunk(b"LIST", b"")] * 10_000, described(), chunk(b"data", SAMPLES[:0])),
)
add(
    "chunk beyond the file", riff(chunk(b"LIST", b"x", 2**31), described(), chunk(b"data", SAMPLES))
)
add("a pipe", os.mkfifo)
add("a link to a device", lambda place: place.symlink_to("/dev/zero"))
add("a folder", lambda place: place.mkdir())

# -- .ts files

FRAMES = ",".join(["0.5", "0.25", "-0.5"])
LINE = ":".join([FRAMES] * 12)


def ts(*lines, head="@problemName x\n@data") -> bytes:
    return "\n".join([head, *lines]).encode()


VOWELS = ts(*(f"{LINE}:{speaker}" for speaker in range(1, 10) for _ in range(4)))


def add_ts(name, content, *words, **options):
    def write(folder):
        folder.mkdir()
        (folder / "JapaneseVowels_TEST.ts").write_bytes(VOWELS)
        place = folder / "JapaneseVowels_TRAIN.ts"
        content(place) if callable(content) else place.write_bytes(content)

    words = ("JapaneseVowels_TRAIN.ts", *words)
    CORPUS.add(f"ts: {name}", write, *words, reader="utterances", path="vowels", **options)


add_ts("empty", b"")
add_ts("head alone", ts())
add_ts("no head", VOWELS.split(b"@data\n")[1])
add_ts("bytes that are no text", b"@data\n\xff\xfe\x00")
add_ts("zero bytes", b"@data\n" + bytes(1000))
add_ts("11 channels", ts(f"{':'.join([FRAMES] * 11)}:1"), "line 3", "11")
add_ts("channels of other lengths", ts(f"{':'.join([FRAMES] * 11)}:1,2:1"), "line 3")
add_ts("30 frames", ts(f"{':'.join([','.join(['1'] * 30)] * 12)}:1"), "line 3", "30")
add_ts("empty line in the data", ts(f"{LINE}:1", "", f"{LINE}:2"), "line 4")
for label in ("0", "-1", "10", "1.5", "x", "", "9" * 5000, "1e3", "nan", "１０"):
    add_ts(f"label {label[:20]!r}", ts(f"{LINE}:1", f"{LINE}:{label}"), "line 4")
for value in ("nan", "inf", "-inf", "1e999", "1e308", "x", "", "0x10", "9" * 400):
    line = LINE.replace("0.25", value, 1)
    add_ts(f"value {value[:20]!r}", ts(*[f"{line}:1"] * 4), "line 3")
add_ts("a line of 20 MB", lambda place: place.write_bytes(ts(",".join(["1"] * 10**7))))
add_ts("10^6 channels", lambda place: place.write_bytes(ts(":".join(["1"] * 10**6))), "line 3")
add_ts("no frames", ts(f"{':' * 11}:1"), "line 3")
add_ts("a pipe", os.mkfifo)
add_ts("a link to a device", lambda place: place.symlink_to("/dev/zero"))
add_ts("a folder", lambda place: place.mkdir())


def _zeros(place):
    place.write_bytes(b"@data\n")
    os.truncate(place, 2**30)


add_ts("1 GiB of zeros", _zeros)
