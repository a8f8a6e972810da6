"""Limits of reading a file: bytes of memory, and time where a separate process reads it."""

from __future__ import annotations

import os
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


@dataclass(frozen=True, kw_only=True)
class ReadLimits:
    """Limits of reading one file.

    Attributes:
        max_bytes: Limit for the decoded arrays in bytes.
        timeout: Seconds after which the separate process that reads HDF5 is killed; None: HDF5 is
            read in this process without a limit.
    """

    max_bytes: int
    timeout: float | None = None


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
        max_bytes: Limit for the decoded arrays of a file in bytes.
        read_timeout: Seconds after which the separate process that reads HDF5 is killed.

    Raises:
        UsageError: A limit is not positive.
    """
    before = read_limits()
    for option, value in ((MAX_BYTES, max_bytes), (READ_TIMEOUT, read_timeout)):
        if value is not None and not 0 < as_number(value) < float("inf"):
            message = Text("{option} is not a valid limit", option=option.set_to(value))
            raise UsageError(message, fix="pass a positive number")
    # Clip to values that the operating system accepts; anything larger is no limit in practice.
    bytes_at_most = before.max_bytes if max_bytes is None else max_bytes
    seconds = before.timeout if read_timeout is None else read_timeout
    token = _current.set(
        ReadLimits(
            max_bytes=min(bytes_at_most, 2**60),
            timeout=None if seconds is None else min(seconds, 1e8),
        )
    )
    try:
        yield
    finally:
        _current.reset(token)


class ByteBudget:
    """The bytes that the arrays of a file may still have; `path` is for messages."""

    def __init__(self, path: str | os.PathLike[str], max_bytes: int | None = None):
        self.path = os.fspath(path)
        self.max_bytes = read_limits().max_bytes if max_bytes is None else max_bytes
        self.taken = 0

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
