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
