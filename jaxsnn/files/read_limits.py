"""Limits of reading a file: bytes of memory, and time."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from jaxsnn.errors import FileError, UsageError, as_number
from jaxsnn.options import MAX_BYTES, READ_TIMEOUT
from jaxsnn.wording import Text

#: Environment variable with the maximum number of bytes of all decoded arrays of a file, and its
#: default.
LIMIT_VARIABLE, DEFAULT_MAX_BYTES = "JAXSNN_MAX_BYTES", 2**31
#: Default time limit for reading a file, seconds.
DEFAULT_TIMEOUT = 60.0


@dataclass(frozen=True, kw_only=True)
class ReadLimits:
    """Limits of reading one file.

    Attributes:
        max_bytes: Limit for the decoded arrays in bytes.
        timeout: Seconds after which reading ends with an error; None: no limit, and no separate
            process.
    """

    max_bytes: int
    timeout: float | None = DEFAULT_TIMEOUT


_current: ContextVar[ReadLimits | None] = ContextVar("read_limits", default=None)


def read_limits() -> ReadLimits:
    """Return the current limits.

    Raises:
        UsageError: The environment variable is not a number.
    """
    return _current.get() or ReadLimits(max_bytes=_limit_of_environment())


def _limit_of_environment() -> int:
    limit_text = os.environ.get(LIMIT_VARIABLE, "")
    if limit_text and not (limit_text.isascii() and limit_text.isdigit()):
        raise UsageError(
            Text(
                "{variable} is '{value}', which is not a number of bytes",
                variable=LIMIT_VARIABLE,
                value=limit_text,
            ),
            fix="set it to a number of bytes",
        )
    return int(limit_text or DEFAULT_MAX_BYTES)


@contextmanager
def limit_reading(
    *, max_bytes: int | None = None, read_timeout: float | None = None
) -> Iterator[None]:
    """Set limits for all files that are read in this context; None leaves a limit unchanged.

    Args:
        max_bytes: Limit for the decoded arrays of a file in bytes; by default 2 GiB.
        read_timeout: Time limit for reading a file, or the files of a data set, in seconds; by
            default 60. Infinity: no limit, and HDF5 and PNG are decoded in this process instead of
            in a separate one.

    Raises:
        UsageError: A limit is not positive.
    """
    before = read_limits()
    for option, value in ((MAX_BYTES, max_bytes), (READ_TIMEOUT, read_timeout)):
        if value is None or (option is READ_TIMEOUT and value == math.inf):
            continue
        if not 0 < as_number(value) < math.inf:
            message = Text("{option} is not a valid limit", option=option.set_to(value))
            raise UsageError(message, fix="pass a positive number")
    # Clip to values that the operating system accepts; anything larger is no limit in practice.
    bytes_at_most = before.max_bytes if max_bytes is None else max_bytes
    seconds = before.timeout if read_timeout is None else read_timeout
    token = _current.set(
        ReadLimits(
            max_bytes=min(bytes_at_most, 2**60),
            timeout=None if seconds in (None, math.inf) else min(seconds, 1e8),
        )
    )
    try:
        yield
    finally:
        _current.reset(token)


class ByteBudget:
    """The bytes that the arrays of a file, or of the files of a data set, may still have, and the time
    that reading may still take.

    Args:
        path: Path of the file, for messages.
        max_bytes: Limit in bytes; None: the current limit.
    """

    def __init__(self, path: str | os.PathLike[str], max_bytes: int | None = None):
        limits = read_limits()
        self.path = os.fspath(path)
        self.max_bytes = limits.max_bytes if max_bytes is None else max_bytes
        self.taken = 0
        self._timeout = limits.timeout
        self._start = time.monotonic()

    def take(self, name: str, size: int) -> None:
        """Count an array before it is decoded.

        Raises:
            FileError: The arrays together exceed the limit.
        """
        self.taken += size
        if self.taken > self.max_bytes:
            raise FileError(
                Text(
                    "{path}: with {object} ({size} bytes) its arrays exceed the limit of {limit} bytes",
                    path=self.path,
                    object=name,
                    size=size,
                    limit=self.max_bytes,
                ),
                fix=Text(
                    "if you trust the file, pass {max_bytes} or more, or set {variable}",
                    max_bytes=MAX_BYTES.set_to(self.taken),
                    variable=LIMIT_VARIABLE,
                ),
            )

    def refuse_late(self) -> None:
        """Check the time; decoders call this at least once per mebibyte and per file.

        Raises:
            FileError: Reading takes longer than the time limit.
        """
        if self._timeout is not None and time.monotonic() > self._start + self._timeout:
            raise too_late(self.path, self._timeout)


def too_late(path: str | os.PathLike[str], timeout: float) -> FileError:
    """Return the error for a file that was not read within the time limit."""
    return FileError(
        Text("{path} was not read within {limit:g} s", path=os.fspath(path), limit=timeout),
        fix=Text(
            "if you trust the file, pass a longer {read_timeout}, or export it again",
            read_timeout=READ_TIMEOUT.set_to(600),
        ),
    )


def out_of_memory(path: str | os.PathLike[str]) -> FileError:
    """Return the error for a file that does not fit into memory."""
    allowed = read_limits().max_bytes
    return FileError(
        Text(
            "decoding {path} needs more memory than is available or than the limit, {limit} "
            "bytes for arrays",
            path=os.fspath(path),
            limit=allowed,
        ),
        fix=Text(
            "pass {max_bytes} if you trust the file, or export it again",
            max_bytes=MAX_BYTES.set_to(2 * allowed),
        ),
    )
