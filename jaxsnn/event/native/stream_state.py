"""The state of a stream as the bytes of a file.

The file consists of a line that identifies the format, the fingerprint of the network, the arrays of
`StreamState` (little endian, 8 bytes per number), and a SHA-256 hash of all this. Nothing is
compressed, so that the size of a file shows how much memory it needs.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from dataclasses import fields

import numpy as np

from jaxsnn.errors import FileError, UsageError
from jaxsnn.event.native.native_stream import (
    StreamPopulation,
    StreamState,
    StreamWiring,
    empty_state,
)
from jaxsnn.files.opening import open_input, size_of
from jaxsnn.files.read_limits import ByteBudget
from jaxsnn.wording import Text

_MAGIC = b"jaxsnn stream 1\n"
_HASH = 32
_SIZES = 4 * 8
#: Names of the records in fingerprints, which must not change: saved files depend on them.
_LABELS = {StreamPopulation: "StreamLanes", StreamWiring: "StreamWiring"}


def fingerprint(
    inputs: Mapping[str, int],
    populations: Iterable[StreamPopulation],
    wirings: Iterable[StreamWiring],
) -> bytes:
    """Return a hash of everything that determines how a stream continues; which populations are
    recorded does not.
    """
    digest = hashlib.sha256(repr(list(inputs.items())).encode())
    for part in (*populations, *wirings):
        digest.update(_LABELS[type(part)].encode())
        for field in fields(part):
            value = getattr(part, field.name)
            if isinstance(value, np.ndarray):
                digest.update(f"{value.dtype.str}{value.shape}".encode())
                digest.update(np.ascontiguousarray(value).tobytes())
            elif field.name != "recorded":
                digest.update(repr(value).encode())
    return digest.digest()


def state_bytes(state: StreamState, network: bytes) -> bytes:
    """Return the content of a checkpoint file; `network` is the fingerprint of the network."""
    arrays = [array.astype(array.dtype.newbyteorder("<")).tobytes() for array in state.arrays]
    content = b"".join([_MAGIC, network, *arrays])
    return content + hashlib.sha256(content).digest()


def read_state(path: str | os.PathLike[str], network: bytes) -> StreamState:
    """Return the state in a file, with its numbers not yet validated; `network` is the fingerprint of
    the network.

    Raises:
        FileError: the file does not exist, contains no state, or is damaged.
        UsageError: the state belongs to another network or to other options.
    """
    head = len(_MAGIC) + _HASH + _SIZES
    try:
        with open_input(path, "a saved stream") as file:
            content = file.read(head)
            if not content.startswith(_MAGIC):
                raise FileError(
                    Text("{path} is not a saved stream", path=path),
                    fix="pass a file that EventStream.save wrote",
                )
            if len(content) < head:
                raise damaged(path)
            if content[len(_MAGIC) : -_SIZES] != network:
                raise UsageError(
                    Text(
                        "{path} was saved by a stream with a different network or different "
                        "options",
                        path=path,
                    ),
                    fix="create the stream with the network and options that were used for saving",
                )
            sizes = np.frombuffer(content[-_SIZES:], "<i8").astype(np.int64)
            numbers, neurons, queue, _ = sizes.tolist()
            # The sizes come from the file. Trust them only if they match its length: arrays of
            # these sizes are allocated below.
            size = head + 8 * (numbers + 2 * neurons + 9 * queue) + _HASH
            is_complete = size_of(file) == size
            if numbers < 2 or neurons < 0 or queue < 0 or not is_complete:
                raise damaged(path)
            # The file as bytes and its arrays.
            ByteBudget(path).take("its state", 2 * size)
            content += file.read(size - head)
    except OSError as error:
        raise FileError(
            Text("{path} cannot be read ({reason})", path=path, reason=error.strerror or str(error))
        ) from error
    if hashlib.sha256(content[:-_HASH]).digest() != content[-_HASH:]:
        raise damaged(path)
    state, place = empty_state(sizes), head
    for array in state.arrays[1:]:
        array_bytes = content[place : place + array.nbytes]
        array[...] = np.frombuffer(array_bytes, array.dtype.newbyteorder("<")).reshape(array.shape)
        place += array.nbytes
    return state


def damaged(path: str | os.PathLike[str]) -> FileError:
    """Return the error for a file whose bytes differ from those that were written."""
    return FileError(Text("{path} is damaged", path=path), fix="save the stream again")
