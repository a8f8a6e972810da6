"""Writers of event files, independent of the readers in `jaxsnn`."""

import struct

import h5py
import numpy as np


def write_heidelberg(path, times, units, labels, keys=(), dtype=np.float16):
    """Write an HDF5 file with the layout of the Spiking Heidelberg Digits."""
    with h5py.File(path, "w") as file:
        for name, rows, kind in (("times", times, dtype), ("units", units, np.uint16)):
            dataset = file.create_dataset(
                f"spikes/{name}", (len(rows),), dtype=h5py.vlen_dtype(kind)
            )
            for number, row in enumerate(rows):
                dataset[number] = np.asarray(row, kind)
        if labels is not None:
            file["labels"] = np.asarray(labels)
        if keys:
            file["extra/keys"] = np.array(keys, "S20")


def bin_bytes(events):
    """The bytes of (t, x, y, p) in the format of N-MNIST."""
    return b"".join(bytes([x, y]) + struct.pack(">I", p << 23 | t)[1:] for t, x, y, p in events)


def aedat2_bytes(events, header=b"#!AER-DAT2.0\r\n# AEChip: DVS128\r\n", end=b""):
    """The bytes of (t, x, y, p) of a DVS128; x and y from the upper left corner, p = 1 for brighter."""
    entries = [
        struct.pack(">II", (127 - y) << 8 | (127 - x) << 1 | (1 - p), t % 2**32)
        for t, x, y, p in events
    ]
    return header + b"".join(entries) + end


def packet(events, kind=1, size=8, number=None, overflow=0, valid=1):
    """A packet of AEDAT 3.1."""
    number = len(events) if number is None else number
    head = struct.pack("<hhiiiiii", kind, 1, size, 4, overflow, number, number, number)
    body = [struct.pack("<Ii", x << 17 | y << 2 | p << 1 | valid, t) for t, x, y, p in events]
    return head + b"".join(body)


AEDAT3_HEADER = b"#!AER-DAT3.1\r\n#Format: RAW\r\n#Source 1: DVS128\r\n#!END-HEADER\r\n"


def aedat3_bytes(*packets, header=AEDAT3_HEADER):
    """The bytes of a file of AEDAT 3.1."""
    return header + b"".join(packets)


def aedat4_bytes(*packets, streams=((0, "EVTS"),), size=(34, 34)):
    """The bytes of a file of AEDAT 4.0 without compression, as the flatbuffers and the description in XML
    that the format consists of.

    Args:
        packets: number of a stream and its events (t, x, y, p), for each packet.
        streams: number and type identifier of each stream.
        size: columns and rows.
    """
    import flatbuffers

    axes = "".join(
        f'<attr key="size{axis}">{count}</attr>' for axis, count in zip("XY", size, strict=True)
    )
    nodes = "".join(
        f'<node name="{number}"><attr key="typeIdentifier">{kind}</attr>'
        f'<node name="info">{axes}</node></node>'
        for number, kind in streams
    )
    builder = flatbuffers.Builder(0)
    description = builder.CreateString(f'<dv><node name="outInfo">{nodes}</node></dv>')
    builder.StartObject(3)
    builder.PrependInt64Slot(1, -1, 0)  # no table of packets
    builder.PrependUOffsetTRelativeSlot(2, description, 0)
    builder.FinishSizePrefixed(builder.EndObject(), b"IOHE")
    content = b"#!AER-DAT4.0\r\n" + bytes(builder.Output())
    for number, events in packets:
        body = _aedat4_packet(flatbuffers.Builder(0), events)
        content += struct.pack("<ii", number, len(body)) + body
    return content


def _aedat4_packet(builder, events):
    builder.StartVector(16, len(events), 8)
    for t, x, y, p in reversed(events):
        builder.Prep(8, 16)
        builder.Pad(3)
        builder.PrependBool(bool(p))
        builder.PrependInt16(y)
        builder.PrependInt16(x)
        builder.PrependInt64(t)
    elements = builder.EndVector()
    builder.StartObject(1)
    builder.PrependUOffsetTRelativeSlot(0, elements, 0)
    builder.FinishSizePrefixed(builder.EndObject(), b"EVTS")
    return bytes(builder.Output())
