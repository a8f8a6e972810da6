"""Names that are no regular files, for each reader: pipes, devices, sockets, folders, links."""

import os
import socket
import zlib

from tests.faults.hostile_files.case import Corpus

CORPUS = Corpus()
#: Readers of one file each -> the ending of its name.
READERS = {
    "info": ".nir",
    "check": ".nir",
    "convert": ".nir",
    "run": ".npz",
    "verify": ".npz",
    "emulate": ".npz",
    "fidelity": ".npz",
    "compare": ".npz",
    "plot": ".npz",
    "plot history": ".json",
    "map": ".json",
    "deploy": ".json",
    "slopes": ".json",
    "config": ".toml",
    "train": ".npz",
    "stream": ".stream",
    "arrays": ".npz",
    "network": ".nir",
}


def _socket(place):
    """A socket; the paths of sockets are short, so it is created beside its final place."""
    before = os.getcwd()
    os.chdir(place.parent)
    try:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(place.name)
    finally:
        os.chdir(before)


def _chain(place):
    """A link to a link to a pipe."""
    os.mkfifo(place.with_name("pipe"))
    place.with_name("link").symlink_to("pipe")
    place.symlink_to("link")


KINDS = {
    "a pipe": os.mkfifo,
    "a link to a link to a pipe": _chain,
    "a link to /dev/zero": lambda place: place.symlink_to("/dev/zero"),
    "a link to /dev/null": lambda place: place.symlink_to("/dev/null"),
    "a socket": _socket,
    "a folder": lambda place: place.mkdir(),
    "a link to itself": lambda place: place.symlink_to(place.name),
    "a link to nowhere": lambda place: place.symlink_to("nowhere"),
    "missing": lambda place: None,
}
_FEW = ("a pipe", "a link to /dev/zero", "a folder")
for reader, ending in READERS.items():
    for kind, write in KINDS.items():
        # A folder of .npy files is a valid source of data, so that an empty one lacks arrays.
        if kind in _FEW or zlib.crc32(f"{reader}{kind}".encode()) % 2 == 0:
            CORPUS.add(
                f"special: {reader}, {kind}",
                write,
                reader=reader,
                path=f"mail{ending}",
                exit_code=-1,
            )
    CORPUS.add(
        f"special: {reader}, name of two lines",
        b"hello",
        r"mail\\n",
        reader=reader,
        path=f"mail\n{ending}",
        exit_code=-1,
    )
    if ending != ".toml":  # an empty configuration lacks the data, and is valid TOML
        CORPUS.add(
            f"special: {reader}, empty", b"", reader=reader, path=f"mail{ending}", exit_code=-1
        )
