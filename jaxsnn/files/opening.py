"""The only place where a file of unknown origin is opened for reading."""

from __future__ import annotations

import errno
import os
import stat
from io import BufferedReader
from pathlib import Path

from jaxsnn.errors import FileError
from jaxsnn.files.read_limits import ByteBudget
from jaxsnn.output import refuse_link
from jaxsnn.wording import Text

Name = str | os.PathLike[str]

#: A pipe without a writer does not block, a terminal does not become that of this process, and
#: programs that are started do not inherit the file.
_FLAGS = (
    os.O_RDONLY
    | getattr(os, "O_NONBLOCK", 0)
    | getattr(os, "O_NOCTTY", 0)
    | getattr(os, "O_CLOEXEC", 0)
    | getattr(os, "O_BINARY", 0)
)


def refuse_unreadable(path: Name, kind: str) -> Path:
    """Return the path if it names a regular file; pipes and devices, which may never end, are
    refused.

    Args:
        path: path of the file.
        kind: expected kind of file, for messages: "a NIR file".

    Raises:
        FileError: the file does not exist, or is not a regular file.
    """
    path = Path(path)
    try:
        mode = path.stat().st_mode
    except ValueError as error:  # the path contains a zero byte
        raise FileError(
            Text("not a valid file name: {path!r}", path=os.fspath(path)),
            fix=f"pass the path of {kind}",
        ) from error
    except OSError as error:
        raise _unreadable(path, error) from error
    _refuse_special(path, mode, kind)
    return path


def open_input(path: Name, kind: str, *, follow_links: bool = True) -> BufferedReader:
    """Open a regular file for reading.

    What is checked is the open file, so that the path cannot be replaced by a pipe or a device between
    the check and the opening.

    Args:
        path: path of the file.
        kind: expected kind of file, for messages: "a NIR file".
        follow_links: whether the path may be a symbolic link.

    Raises:
        FileError: the file does not exist, is not a regular file, or cannot be opened.
    """
    # First without opening it: opening a device can have effects, such as rewinding a tape.
    checked_path = refuse_unreadable(path, kind)
    if not follow_links:
        refuse_link(path)
    try:
        handle = os.open(path, _FLAGS | (0 if follow_links else getattr(os, "O_NOFOLLOW", 0)))
    except OSError as error:
        raise _unreadable(checked_path, error) from error
    try:
        _refuse_special(checked_path, os.fstat(handle).st_mode, kind)
    except BaseException:
        os.close(handle)
        raise
    return os.fdopen(handle, "rb")


def size_of(file: BufferedReader) -> int:
    """Return the size of an open file in bytes."""
    return os.fstat(file.fileno()).st_size


def name_of_open(file: BufferedReader, path: Name) -> str:
    """Return a name under which a library that opens files itself gets this open file, whatever is at
    its path by now; the path, where the system has no such names.
    """
    name = f"/dev/fd/{file.fileno()}"
    return name if os.path.exists(name) else os.fspath(path)


def read_bytes(
    path: Name, kind: str, *, budget: ByteBudget | None = None, follow_links: bool = True
) -> bytes:
    """Return the content of a file, whose size is checked before anything is read.

    Args:
        path: path of the file.
        kind: expected kind of file, for messages: "a mapping".
        budget: bytes that may be read; None: the current limit, for this file alone.
        follow_links: whether the path may be a symbolic link.

    Raises:
        FileError: the path is not a regular file, or the file exceeds the limit or cannot be read.
    """
    with open_input(path, kind, follow_links=follow_links) as file:
        size = size_of(file)
        (budget or ByteBudget(path)).take("its content", size)
        try:
            return file.read(size)
        except OSError as error:
            raise _unreadable(Path(path), error) from error


def read_text(path: Name, kind: str, *, follow_links: bool = True) -> str:
    """Return the text of a UTF-8 file; lines end with a line feed, as in Python's text files.

    Args:
        path: path of the file.
        kind: expected kind of file, for messages: "a mapping".
        follow_links: whether the path may be a symbolic link.

    Raises:
        FileError: the path is not a regular file, or the file is not text, exceeds the limit or
            cannot be read.
    """
    try:
        text = read_bytes(path, kind, follow_links=follow_links).decode("utf-8")
    except UnicodeDecodeError as error:
        raise FileError(
            Text("{path} is not text, so it cannot be {kind}", path=path, kind=kind),
            fix=f"pass {kind}",
        ) from error
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _unreadable(path: Path, error: OSError) -> FileError:
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return FileError(Text("{path}: no such file", path=path))
    return FileError(
        Text("{path} cannot be read ({reason})", path=path, reason=error.strerror or str(error))
    )


def _refuse_special(path: Path, mode: int, kind: str) -> None:
    """Refuse the mode of anything but a regular file."""
    if stat.S_ISDIR(mode):
        raise FileError(Text("{path} is a directory", path=path), fix=f"pass the path of {kind}")
    if not stat.S_ISREG(mode):
        raise FileError(
            Text("{path} is not a regular file", path=path), fix=f"pass the path of {kind}"
        )
