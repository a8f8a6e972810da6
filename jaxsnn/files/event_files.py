"""Recordings of event cameras: the .bin files of N-MNIST, and AEDAT 2.0 and 3.1, parsed with limits in
this process, and AEDAT 4.0, decoded by the package aedat in a separate process.

Sources: Orchard et al., "Converting static image datasets to spiking neuromorphic datasets using
saccades", Frontiers in Neuroscience 9 (2015) 437, and the description of its files; "AEDAT file
formats", docs.inivation.com; the class DVS128 of jAER, which wrote the files of AEDAT 2.0.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from io import BufferedReader, BufferedWriter
from pathlib import Path
from typing import Any

import numpy as np

from jaxsnn.errors import FileError, JaxsnnError, UsageError, first_line
from jaxsnn.files.opening import open_input, refuse_unreadable, size_of
from jaxsnn.files.read_limits import ByteBudget
from jaxsnn.files.read_process import (
    ReadProcess,
    process_limits,
    receive_header,
    reporting_errors,
    send_header,
)
from jaxsnn.wording import Text

Name = str | os.PathLike[str]

#: An event: time in microseconds, column from the left, row from the top, and 1 for brighter.
EVENT = np.dtype([("t", np.int64), ("x", np.int32), ("y", np.int32), ("p", np.int32)])
#: Endings of the names of files that `read_camera_file` reads.
CAMERA_ENDINGS = (".bin", ".aedat", ".aedat4")

#: Bytes of an event of N-MNIST; row number of an event that stands for an overflow of the clock, and
#: by how many microseconds the clock is then behind.
_BIN_EVENT, _OVERFLOW_ROW, _OVERFLOW = 5, 240, 2**13
#: Side of a DVS128 in pixels.
_DVS128 = 128
#: Maximum size of the header of an AEDAT file: jAER writes all its settings into it.
_LONGEST_HEADER = 2**22
#: Header of a packet of AEDAT 3.1, and its type of polarity events.
_PACKET = np.dtype(
    [
        ("type", "<i2"),
        ("source", "<i2"),
        ("event_size", "<i4"),
        ("time_offset", "<i4"),
        ("overflow", "<i4"),
        ("capacity", "<i4"),
        ("number", "<i4"),
        ("valid", "<i4"),
    ]
)
_POLARITY, _POLARITY_EVENT = 1, np.dtype([("data", "<u4"), ("t", "<i4")])
#: Name of a camera in AEDAT 3.1 (its first characters) -> columns and rows.
_CAMERAS = {
    "DVS128": (128, 128),
    "DAVIS128": (128, 128),
    "DAVIS240": (240, 180),
    "DAVIS346": (346, 260),
    "DAVIS640": (640, 480),
}


@dataclass(frozen=True, kw_only=True)
class CameraRecording:
    """Recording of an event camera.

    Attributes:
        events: array (events,) of `EVENT`, in the order of the file.
        size: columns and rows of the camera; None: the file does not specify them.
        dropped: number of entries that are not valid events of pixels, such as synchronisation signals.
    """

    events: np.ndarray
    size: tuple[int, int] | None
    dropped: int = 0


@dataclass(frozen=True, kw_only=True)
class PacketIndex:
    """Positions of the packets of events in a file of AEDAT 3.1.

    Attributes:
        start: first byte of the events of each packet.
        number: number of its events.
        overflow: number of overflows of the clock of 31 bits before it.
        earliest: time of its first event in microseconds, or of that of a later packet if it is earlier.
        latest: time of its last event in microseconds, or of that of an earlier packet if it is later.
        size: columns and rows of the camera; None: unknown.
        skipped: number of packets of other data.
    """

    start: np.ndarray
    number: np.ndarray
    overflow: np.ndarray
    earliest: np.ndarray
    latest: np.ndarray
    size: tuple[int, int] | None
    skipped: int


def read_camera_file(path: Name) -> CameraRecording:
    """Read all events of a file; the ending of its name determines the format.

    Times of .bin files are those of the file; times of AEDAT files start with the first event.

    Raises:
        FileError: the file cannot be read, has another format, or exceeds a limit.
        UsageError: an .aedat4 file, and the package aedat is not installed.
    """
    if Path(path).suffix == ".bin":
        return _read_bin(path)
    if Path(path).suffix == ".aedat4":
        return _read_aedat4(path)
    if Path(path).suffix != ".aedat":
        raise FileError(
            Text("{path} is not a recording of an event camera", path=path),
            fix=f"pass a file whose name ends with {' or '.join(CAMERA_ENDINGS)}",
        )
    budget = ByteBudget(path)
    with open_input(path, "an .aedat file") as file:
        version, lines, start = _header(file, path)
        if version == "2.0":
            return _read_aedat2(file, lines, start, budget)
        if version == "3.1":
            index = _packets(file, lines, start, budget)
            recording = _read_packets(file, index, budget)
            recording.events["t"] = _from_first(recording.events["t"])
            return recording
    raise FileError(
        Text("{path} has version {version} of AEDAT", path=path, version=version),
        fix="convert it to AEDAT 3.1 with DV",
    )


def packets_of(path: Name) -> PacketIndex:
    """Return the positions of the packets of a file of AEDAT 3.1, of which `read_window` reads some.

    Raises:
        FileError: the file cannot be read, has another format, or exceeds a limit.
    """
    with open_input(path, "an .aedat file") as file:
        version, lines, start = _header(file, path)
        if version != "3.1":
            raise FileError(
                Text("{path} has version {version} of AEDAT, not 3.1", path=path, version=version),
                fix="pass the files of DVS128 Gesture",
            )
        return _packets(file, lines, start, ByteBudget(path))


def read_window(path: Name, index: PacketIndex, begin: int, end: int) -> CameraRecording:
    """Read the events of a part of a file of AEDAT 3.1, at times from `begin` (included) to `end`
    (excluded), microseconds. Their times start with `begin`.

    Raises:
        FileError: the file cannot be read, or exceeds a limit.
    """
    # All packets before the first end before the window, and all from the last on start after it.
    # Both times rise even if packets are not in the order of time.
    first = int(np.searchsorted(index.latest, begin))
    last = int(np.searchsorted(index.earliest, end))
    part = PacketIndex(
        start=index.start[first:last],
        number=index.number[first:last],
        overflow=index.overflow[first:last],
        earliest=index.earliest[first:last],
        latest=index.latest[first:last],
        size=index.size,
        skipped=0,
    )
    with open_input(path, "an .aedat file") as file:
        recording = _read_packets(file, part, ByteBudget(path))
    t = recording.events["t"]
    events = recording.events[(t >= begin) & (t < end)]
    events["t"] -= begin
    return CameraRecording(events=events, size=recording.size, dropped=recording.dropped)


def _read_bin(path: Name) -> CameraRecording:
    """Read a file of N-MNIST: five bytes for each event, x, y, and a bit of polarity before 23 bits of
    time, most significant byte first.
    """
    budget = ByteBudget(path)
    with open_input(path, "a .bin file") as file:
        size = size_of(file)
        if size == 0 or size % _BIN_EVENT:
            raise FileError(
                Text(
                    "{path} has {size} bytes, and events of N-MNIST have {event} bytes each",
                    path=path,
                    size=size,
                    event=_BIN_EVENT,
                ),
                fix="download it again",
            )
        budget.take("its events", size + size // _BIN_EVENT * EVENT.itemsize)
        content = np.frombuffer(_content(file, path, size), np.uint8).reshape(-1, _BIN_EVENT)
    events = np.empty(len(content), EVENT)
    events["x"], events["y"], events["p"] = content[:, 0], content[:, 1], content[:, 2] >> 7
    wide = content[:, 2:].astype(np.int64)
    events["t"] = (wide[:, 0] & 0x7F) << 16 | wide[:, 1] << 8 | wide[:, 2]
    overflow = content[:, 1] == _OVERFLOW_ROW
    events["t"] += _OVERFLOW * np.cumsum(overflow)
    return CameraRecording(events=events[~overflow], size=None)


def _header(file: BufferedReader, path: Name) -> tuple[str, list[str], int]:
    """Return the version of an AEDAT file, the other lines of its header, and its first byte of data."""
    content = file.read(_LONGEST_HEADER)
    begin = re.match(rb"#!AER-DAT([0-9]\.[0-9])\r?\n", content)
    if begin is None:
        raise FileError(
            Text("{path} does not begin as an AEDAT file", path=path),
            fix="pass an .aedat file with a version in its first line",
        )
    version, place, lines = begin[1].decode(), begin.end(), list[str]()
    while content[place : place + 1] == b"#":
        end = content.find(b"\n", place)
        if end < 0:
            raise FileError(
                Text("{path}: its header does not end", path=path), fix="download it again"
            )
        lines.append(content[place + 1 : end].decode("ascii", "replace").strip())
        place = end + 1
        # After this line the first byte of the data may be a "#", too.
        if lines[-1].lower() in ("!end-header", "end of ascii header"):
            break
    if version == "3.1" and (not lines or lines[-1] != "!END-HEADER"):
        raise FileError(
            Text("{path}: its header has no end", path=path), fix="download or export it again"
        )
    return version, lines, place


def _read_aedat2(
    file: BufferedReader, lines: list[str], start: int, budget: ByteBudget
) -> CameraRecording:
    """Read events of a DVS128: an address and a time in microseconds, 32 bits each, most significant
    byte first. From bit 0 the address has one bit of polarity (0: brighter), seven bits of the column
    from the right, seven bits of the row from the bottom, and a bit that marks other signals.
    """
    path = budget.path
    chips = [line.partition(":")[2].strip() for line in lines if line.startswith("AEChip:")]
    if others := [chip for chip in chips if "DVS128" not in chip]:
        raise FileError(
            Text(
                "{path} is a recording of {chip}, and of AEDAT 2.0 only recordings of DVS128 are "
                "supported",
                path=path,
                chip=others[0][:80],
            ),
            fix="convert it to AEDAT 3.1 with DV",
        )
    size = size_of(file) - start
    if size <= 0 or size % 8:
        raise FileError(
            Text(
                "{path} has {size} bytes after its header, and events have 8 bytes each",
                path=path,
                size=size,
            ),
            fix="download it again",
        )
    budget.take("its events", size + size // 8 * (EVENT.itemsize + 16))
    file.seek(start)
    entries = np.frombuffer(
        _content(file, path, size), np.dtype([("address", ">u4"), ("t", ">u4")])
    )
    address = entries["address"].astype(np.int64)
    if len(wrong := np.flatnonzero(address >= 2**16)):
        raise FileError(
            Text(
                "{path}: event {event} has the address {address:#x}, and those of a DVS128 have 16 "
                "bits",
                path=path,
                event=int(wrong[0]),
                address=int(address[wrong[0]]),
            ),
            fix="pass a recording of a DVS128, or convert it to AEDAT 3.1 with DV",
        )
    is_pixel = address < 2**15
    events = np.empty(int(is_pixel.sum()), EVENT)
    events["x"] = _DVS128 - 1 - (address[is_pixel] >> 1 & 0x7F)
    events["y"] = _DVS128 - 1 - (address[is_pixel] >> 8 & 0x7F)
    events["p"] = 1 - (address[is_pixel] & 1)
    # Differences modulo 2^32: the clock may overflow.
    steps = np.diff(entries["t"].astype(np.uint32), prepend=entries["t"][:1].astype(np.uint32))
    t = np.cumsum(steps.view(np.int32).astype(np.int64))[is_pixel]
    events["t"] = _from_first(t)
    return CameraRecording(
        events=events, size=(_DVS128, _DVS128), dropped=len(entries) - len(events)
    )


def _packets(file: BufferedReader, lines: list[str], start: int, budget: ByteBudget) -> PacketIndex:
    """Return the positions of the packets of an open file of AEDAT 3.1."""
    path = budget.path
    formats = [line.partition(":")[2].strip() for line in lines if line.startswith("Format:")]
    if formats != ["RAW"]:
        raise FileError(
            Text("{path} has the format {format}", path=path, format=", ".join(formats)[:80]),
            fix="export it again with the format RAW",
        )
    sources = [line.partition(":")[2].strip() for line in lines if re.match(r"Source \d+:", line)]
    sizes = {
        size for source in sources for name, size in _CAMERAS.items() if source.startswith(name)
    }
    end, place, skipped = size_of(file), start, 0
    entries: list[tuple[int, int, int, int, int]] = []
    while place < end:
        budget.refuse_late()
        file.seek(place)
        head = file.read(_PACKET.itemsize + _POLARITY_EVENT.itemsize)
        if len(head) < _PACKET.itemsize:
            raise _damaged(path, place, "the header of a packet is truncated")
        packet = np.frombuffer(head, _PACKET, 1)[0]
        size, number = int(packet["event_size"]), int(packet["number"])
        place += _PACKET.itemsize
        if size < 1 or number < 0 or size * number > end - place:
            raise _damaged(
                path,
                place,
                Text(
                    "a packet of {number} events of {size} bytes does not fit into the file",
                    number=number,
                    size=size,
                ),
            )
        if packet["type"] != _POLARITY:
            skipped += 1
        elif number:
            if size != _POLARITY_EVENT.itemsize or packet["overflow"] < 0:
                raise _damaged(
                    path,
                    place,
                    Text(
                        "events of pixels have {size} bytes, and their clock has overflowed {count} "
                        "times",
                        size=size,
                        count=int(packet["overflow"]),
                    ),
                )
            first = np.frombuffer(head, _POLARITY_EVENT, 1, _PACKET.itemsize)[0]
            file.seek(place + size * (number - 1))
            last = np.frombuffer(_content(file, path, size), _POLARITY_EVENT)[0]
            budget.take("the positions of its packets", 128)
            overflow = int(packet["overflow"])
            times = [(overflow << 31) + int(event["t"]) for event in (first, last)]
            entries.append((place, number, overflow, times[0], times[1]))
        place += size * number
    table = np.array(entries, np.int64).reshape(-1, 5)
    return PacketIndex(
        start=table[:, 0],
        number=table[:, 1],
        overflow=table[:, 2],
        earliest=np.minimum.accumulate(table[::-1, 3])[::-1],
        latest=np.maximum.accumulate(table[:, 4]),
        size=sizes.pop() if len(sizes) == 1 else None,
        skipped=skipped,
    )


def _read_packets(file: BufferedReader, index: PacketIndex, budget: ByteBudget) -> CameraRecording:
    """Read the events of some packets. From bit 0 their data have a bit of validity, one of polarity,
    15 bits of the row from the top, and 15 bits of the column from the left.
    """
    total = int(index.number.sum())
    budget.take("its events", total * (EVENT.itemsize + 24))
    events, is_valid, place = np.empty(total, EVENT), np.empty(total, bool), 0
    for start, number, overflow in zip(index.start, index.number, index.overflow, strict=True):
        budget.refuse_late()
        file.seek(start)
        content = _content(file, budget.path, int(number) * _POLARITY_EVENT.itemsize)
        packet = np.frombuffer(content, _POLARITY_EVENT)
        part = slice(place, place + number)
        data = packet["data"]
        events["x"][part], events["y"][part] = data >> 17, data >> 2 & 0x7FFF
        events["p"][part], is_valid[part] = data >> 1 & 1, data & 1
        events["t"][part] = packet["t"].astype(np.int64) + (int(overflow) << 31)
        place += int(number)
    return CameraRecording(
        events=events[is_valid],
        size=index.size,
        dropped=int(total - is_valid.sum()) + index.skipped,
    )


def _read_aedat4(path: Name) -> CameraRecording:
    """Read a file of AEDAT 4.0 in a separate process."""
    refuse_unreadable(path, "an .aedat4 file")
    try:
        import aedat  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise UsageError(
            Text("reading {path} requires aedat, which is not installed", path=path),
            fix="pip install jaxsnn-nir[events]",
        ) from error
    limits = process_limits()
    if limits is None:
        return _decode_aedat4(aedat, path)

    def work(out: BufferedWriter) -> None:
        with reporting_errors(out, path):
            recording = _decode_aedat4(aedat, path)
        counts = {"number": len(recording.events), "dropped": recording.dropped}
        send_header(out, {"size": recording.size, **counts})
        out.write(recording.events.tobytes())

    with ReadProcess(path, work, limits, decoder="aedat") as child:
        header = receive_header(child, path)
        content = child.read(header["number"] * EVENT.itemsize)
    columns, rows = header["size"]
    return CameraRecording(
        events=np.frombuffer(content, EVENT), size=(columns, rows), dropped=header["dropped"]
    )


def _decode_aedat4(aedat: Any, path: Name) -> CameraRecording:
    """Decode the only stream of events of a file; packets of other streams are counted.

    Args:
        aedat: the package.
    """
    budget, dropped, parts = ByteBudget(path), 0, list[np.ndarray]()
    try:
        decoder = aedat.Decoder(os.fspath(path))
        streams = decoder.id_to_stream()
        cameras = [number for number, stream in streams.items() if stream["type"] == "events"]
        if len(cameras) != 1:
            raise FileError(
                Text("{path} has {count} streams of events", path=path, count=len(cameras)),
                fix="export it again with one stream of events",
            )
        for packet in decoder:
            budget.refuse_late()
            if packet["stream_id"] != cameras[0]:
                dropped += 1
                continue
            decoded = packet["events"]
            # The events of the packet, of the list of packets, and of the result.
            budget.take("its events", len(decoded) * (2 * EVENT.itemsize + decoded.itemsize))
            part = np.empty(len(decoded), EVENT)
            for axis, field in (("t", "t"), ("x", "x"), ("y", "y"), ("p", "on")):
                part[axis] = decoded[field]
            parts.append(part)
    except (JaxsnnError, MemoryError, KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # a panic of Rust is not an Exception
        raise FileError(
            Text(
                "{path} cannot be read as AEDAT 4.0 ({reason})",
                path=path,
                reason=first_line(error),
            ),
            fix="download it again, or export it again with DV",
        ) from error
    events = np.concatenate([np.empty(0, EVENT), *parts])
    if (events["t"] < 0).any():
        raise FileError(
            Text("{path} has an event before time 0", path=path), fix="export it again with DV"
        )
    events["t"] = _from_first(events["t"])
    size = streams[cameras[0]]
    return CameraRecording(events=events, size=(size["width"], size["height"]), dropped=dropped)


def _from_first(t: np.ndarray) -> np.ndarray:
    """Return times from the first event on."""
    return t - t.min() if len(t) else t


def _content(file: BufferedReader, path: Name, size: int) -> bytes:
    content = file.read(size)
    if len(content) != size:
        raise FileError(
            Text("{path} was shortened while it was read", path=path), fix="read it again"
        )
    return content


def _damaged(path: Name, place: int, reason: str) -> FileError:
    return FileError(
        Text("{path} is damaged at byte {place}: {reason}", path=path, place=place, reason=reason),
        fix="download it again",
    )
