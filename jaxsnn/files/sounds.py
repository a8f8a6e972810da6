"""Sounds in WAV files, parsed with limits in this process.

Sources: Multimedia Programming Interface and Data Specifications 1.0, IBM and Microsoft, 1991;
Multiple Channel Audio Data and WAVE Files, Microsoft, 2007.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from typing import IO

import numpy as np

from jaxsnn.errors import FileError
from jaxsnn.files.opening import open_input, size_of
from jaxsnn.files.read_limits import ByteBudget
from jaxsnn.wording import Text

#: Limits of samples per second: from the lowest at which a word can be recognised to that of
#: ultrasound. The size of a frame of a spectrum grows with it.
_RATES = (1_000, 1_000_000)
#: Maximum numbers of channels and of chunks, and maximum magnitude of a floating-point sample, whose
#: square must be finite.
_MOST_CHANNELS, _MOST_CHUNKS, _LARGEST_SAMPLE = 64, 4096, 2.0**32
_PCM, _FLOAT, _EXTENSIBLE = 1, 3, 0xFFFE
#: Formats and bits per sample that are supported.
_SUPPORTED = {(_PCM, 8), (_PCM, 16), (_PCM, 24), (_PCM, 32), (_FLOAT, 32), (_FLOAT, 64)}
#: Bytes of the file that are decoded at once.
_PIECE = 2**20


@dataclass(frozen=True, kw_only=True)
class Sound:
    """A sound.

    Attributes:
        samples: Mean of the channels, (samples,) float; integers of 8 bits are shifted to -128 to 127.
        rate: Samples per second.
        count: Number of samples of the file, of which `samples` can be the first.
    """

    samples: np.ndarray
    rate: int
    count: int


@dataclass(frozen=True, kw_only=True)
class _Format:
    kind: int
    channels: int
    rate: int
    bits: int

    @property
    def frame(self) -> int:
        """Bytes of the samples of all channels at one time."""
        return self.channels * self.bits // 8


def read_sound(path: str | os.PathLike[str], duration: float | None = None) -> Sound:
    """Read the first seconds of a WAV file; None: all of it.

    Raises:
        FileError: The file cannot be read, is not a WAV file of a supported format, has samples that
            are not finite, or exceeds a limit.
    """
    budget = ByteBudget(path)
    with open_input(path, "a .wav file") as file:
        try:
            layout, start, size = _chunks(file, size_of(file), budget)
            count = size // layout.frame
            needed = count if duration is None else min(count, int(duration * layout.rate) + 1)
            budget.take("its samples", 8 * needed)
            samples = np.empty(needed)
            file.seek(start)
            step = max(_PIECE // layout.frame, 1)
            for first in range(0, needed, step):
                budget.refuse_late()
                here = samples[first : first + step]
                content = file.read(len(here) * layout.frame)
                here[:] = _decoded(content, layout).mean(axis=1)
                if layout.kind == _FLOAT:
                    _refuse_invalid(content, layout, first)
        except (ValueError, OSError) as error:
            raise FileError(
                Text("{path} cannot be read as sound ({reason})", path=path, reason=str(error)),
                fix="download the file again, or convert it to a WAV file with 16 bits per sample",
            ) from error
    return Sound(samples=samples, rate=layout.rate, count=count)


def _chunks(file: IO[bytes], size: int, budget: ByteBudget) -> tuple[_Format, int, int]:
    """Return the format, and first byte and number of bytes of the samples."""
    begin = file.read(12)
    if len(begin) < 12 or begin[:4] != b"RIFF" or begin[8:] != b"WAVE":
        raise ValueError(f"it begins with {begin!r}, not as a WAV file")
    layout: _Format | None = None
    samples: tuple[int, int] | None = None
    place = 12
    for _ in range(_MOST_CHUNKS):
        budget.refuse_late()
        file.seek(place)
        head = file.read(8)
        if len(head) < 8:
            break
        name, length = head[:4], int.from_bytes(head[4:], "little")
        if length > size - place - 8:
            raise ValueError(
                f"the part {name!r} has {size - place - 8} bytes, and its header says {length}"
            )
        if (name == b"fmt " and layout) or (name == b"data" and samples):
            raise ValueError(f"it has two parts {name!r}")
        if name == b"fmt ":
            layout = _format(file.read(min(length, 40)))
        if name == b"data":
            samples = place + 8, length
        place += 8 + length + length % 2
    else:
        raise ValueError(f"it has more than {_MOST_CHUNKS} parts")
    if layout is None or samples is None:
        raise ValueError("it has no format or no samples")
    if samples[1] == 0 or samples[1] % layout.frame:
        raise ValueError(
            f"it has {samples[1]} bytes of samples, and those of one time have {layout.frame}"
        )
    return layout, *samples


def _format(content: bytes) -> _Format:
    if len(content) < 16:
        raise ValueError("its format is truncated")
    kind, channels, rate, _, frame, bits = struct.unpack_from("<2H2L2H", content)
    if kind == _EXTENSIBLE and len(content) >= 40:
        kind = int.from_bytes(content[24:26], "little")
    if (kind, bits) not in _SUPPORTED:
        raise ValueError(f"format {kind} with {bits} bits per sample is not supported")
    if not _RATES[0] <= rate <= _RATES[1]:
        raise ValueError(f"it has {rate} samples per second, not from {_RATES[0]} to {_RATES[1]}")
    if not 1 <= channels <= _MOST_CHANNELS:
        raise ValueError(f"it has {channels} channels, not from 1 to {_MOST_CHANNELS}")
    layout = _Format(kind=kind, channels=channels, rate=rate, bits=bits)
    if frame != layout.frame:
        raise ValueError(
            f"samples of one time have {frame} bytes, and {channels} channels of {bits} bits need "
            f"{layout.frame}"
        )
    return layout


def _decoded(content: bytes, layout: _Format) -> np.ndarray:
    """Return samples (samples, channels); integers of 24 bits are in the upper bytes of 32."""
    if len(content) % layout.frame:
        raise ValueError("it was shortened while it was read")
    if layout.bits == 24:
        wide = np.zeros((len(content) // 3, 4), np.uint8)
        wide[:, 1:] = np.frombuffer(content, np.uint8).reshape(-1, 3)
        samples = wide.view("<i4")
    else:
        kind = "f" if layout.kind == _FLOAT else "u" if layout.bits == 8 else "i"
        samples = np.frombuffer(content, np.dtype(f"<{kind}{layout.bits // 8}"))
    samples = samples.reshape(-1, layout.channels).astype(float)
    return samples - 128 if layout.bits == 8 else samples


def _refuse_invalid(content: bytes, layout: _Format, first: int) -> None:
    """Refuse samples that are not finite or very large; `first` is the number of the first sample."""
    samples = _decoded(content, layout)
    invalid = np.argwhere(~(np.abs(samples) <= _LARGEST_SAMPLE))
    if len(invalid):
        sample, channel = invalid[0].tolist()
        raise ValueError(
            f"sample {first + sample} of channel {channel} is {samples[sample, channel]:g}"
        )
