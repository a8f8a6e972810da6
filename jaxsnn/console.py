"""Lines on standard output and standard error.

A reader that closes its end of a pipe, as `| head` does, changes neither what a command does nor its
exit code: the rest of the text is discarded.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from jaxsnn.errors import FileError, printable
from jaxsnn.wording import Text


def print_arriving(text: str = "", **options: Any) -> None:
    """Print like `print`, and raise an error if the output cannot be written.

    Raises:
        FileError: the output cannot be written, for instance because the disk is full.
    """
    stream = options.get("file") or sys.stdout
    try:
        print(text, **options)  # noqa: T201
    except BrokenPipeError:
        _discard_output(stream)
    except OSError as error:
        reason = error.strerror or str(error)
        _discard_output(stream)
        message = Text("the output cannot be written ({error})", error=reason)
        raise FileError(
            message, fix="free some space, or redirect the output to another place"
        ) from error


def _discard_output(stream: Any) -> None:
    """Discard the buffered text of a stream, whose output would fail again at exit, and all text that
    follows.
    """
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, stream.fileno())
    os.close(null)


def to_stderr(line: str) -> None:
    """Print a line of progress, a note or an error; a stderr that cannot be written is ignored, because
    nothing could report it.
    """
    try:
        sys.stderr.write(printable(line) + "\n")
        sys.stderr.flush()
    except OSError:
        _discard_output(sys.stderr)


#: Whether `report_progress` prints; commands with --quiet switch it off.
_reports_progress = True


@contextmanager
def progress_reports(enabled: bool) -> Iterator[None]:
    """Switch the lines of `report_progress` on or off while the context lasts."""
    global _reports_progress
    before, _reports_progress = _reports_progress, enabled
    try:
        yield
    finally:
        _reports_progress = before


def report_progress(line: str) -> None:
    """Print a line on stderr about work that delays the caller, unless the command is quiet."""
    if _reports_progress:
        to_stderr(line)


def to_terminal(line: str) -> None:
    """Print a line of progress to a terminal or into a notebook's cell, else do nothing."""
    if "ipykernel" in sys.modules:
        sys.stdout.write(printable(line) + "\n")
        sys.stdout.flush()
    elif sys.stderr.isatty():
        to_stderr(line)
