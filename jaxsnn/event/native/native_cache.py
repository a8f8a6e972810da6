"""Cache folder of compiled libraries: each is stored completely or not at all, and built by one
process at a time."""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

#: Third word of a record, after length and hash: the library was built again because the previous
#: one could not be loaded.
_AGAIN = "again"
#: Seconds after which leftovers of other builds are removed.
_LONG_AGO = 24 * 3600


def cache_folder() -> Path:
    """Return the folder of the libraries: JAXSNN_CACHE_DIR, or a folder in the user's cache.

    Raises:
        OSError, RuntimeError: the folder cannot be determined.
    """
    if folder := os.environ.get("JAXSNN_CACHE_DIR"):
        # An absolute path: dlopen searches the system's folders for a name without a slash.
        return Path(folder).expanduser().resolve()
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return (Path(home) / "jaxsnn").resolve()


def is_intact(path: Path) -> bool:
    """Return whether a library has the recorded length and hash: loading a damaged one may crash
    the process.
    """
    try:
        return _words(path)[:2] == _sum(path)
    except (OSError, ValueError):
        return False


def was_built_again(path: Path) -> bool:
    """Return whether a library was rebuilt because its predecessor could not be loaded."""
    return is_intact(path) and _words(path)[2:] == [_AGAIN]


def keep(built: Path, path: Path, *, again: bool) -> None:
    """Move a library to its final path, flush it to disk, and record its length and hash beside it.

    Args:
        built: path of the new library, on the same disk.
        again: the library is a rebuild, see `was_built_again`.

    Raises:
        OSError: the library cannot be moved, or its record cannot be written.
    """
    record = built.with_suffix(".sum")
    record.write_text(" ".join([*_sum(built), *([_AGAIN] if again else [])]) + "\n")
    for file in (built, record):
        with file.open("rb+") as opened:
            os.fsync(opened.fileno())
    os.replace(built, path)
    os.replace(record, _record(path))


@contextmanager
def locked_build(path: Path) -> Iterator[bool]:
    """Wait for the lock of this library's build, hold it, and yield True; yield False where file
    locks are not supported.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        yield False
        return
    name = path.with_suffix(".lock")
    while True:
        with name.open("w") as lock:
            locked = False
            with suppress(OSError):  # the file system does not support locks
                fcntl.flock(lock, fcntl.LOCK_EX)
                locked = True
            if locked and not _is_there(lock, name):  # the previous holder removed the file
                continue
            try:
                yield locked
            finally:
                name.unlink(missing_ok=True)
                if locked:  # a process forked in the meantime would keep the lock
                    fcntl.flock(lock, fcntl.LOCK_UN)
            return


def remove_leftovers(path: Path) -> None:
    """Remove leftovers of interrupted builds of a library, while `locked_build` locks it; leftovers of
    other libraries are removed after a day.
    """
    now = time.time()
    for leftover in path.parent.iterdir():
        with suppress(OSError):
            if not leftover.is_dir() or leftover.is_symlink():
                continue
            others = leftover.name.startswith(("tmp", "native-"))
            entries = (
                os.listdir(leftover)
                if others and now - leftover.stat().st_mtime > _LONG_AGO
                else []
            )
            old = bool(entries) and all(name.startswith("native-") for name in entries)
            if old or leftover.name.startswith(f"{path.stem}-"):
                shutil.rmtree(leftover)


def _record(path: Path) -> Path:
    return path.with_suffix(".sum")


def _words(path: Path) -> list[str]:
    """Return the fields of a library's record."""
    return _record(path).read_text().split()


def _sum(path: Path) -> list[str]:
    """Return the length and the hash of a file."""
    content = path.read_bytes()
    return [str(len(content)), hashlib.sha256(content).hexdigest()]


def _is_there(lock: IO[str], name: Path) -> bool:
    """Return whether an open file is still the one at its path."""
    try:
        return os.path.samestat(os.fstat(lock.fileno()), name.stat())
    except FileNotFoundError:
        return False
