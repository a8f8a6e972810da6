"""Cache folder of compiled libraries: each is stored completely or not at all, and built by one
process at a time.

Loading a library runs its code. A folder is therefore used only if no other user can change it, and a
file in it only if it is a regular file of this user or of root that matches its record.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from jaxsnn.errors import warn_of_environment
from jaxsnn.output import close, remove_files, remove_folder

#: Third word of a record, after length and hash: the library was built again because the previous
#: one could not be loaded.
_AGAIN = "again"
#: Maximum length of a record in bytes.
_LONGEST_RECORD = 200
#: Seconds after which leftovers of other builds are removed.
_LONG_AGO = 24 * 3600
#: Maximum number of symbolic links in a path.
_MOST_LINKS = 40
#: Errors of opening a link, a socket, or a file that this user may not write, as a lock file.
_NO_LOCK_FILE = (errno.ELOOP, errno.ENXIO, errno.EACCES, errno.EPERM)
#: Flags of `os.open` where they exist: links are not followed, pipes and devices do not block.
_SAFELY = sum(
    getattr(os, flag, 0) for flag in ("O_NOFOLLOW", "O_NONBLOCK", "O_CLOEXEC", "O_BINARY")
)


class UntrustedError(OSError):
    """Error for a library, a record or a folder that is not used, with the reason in one line."""


def cache_folder() -> Path:
    """Return the folder of the libraries: JAXSNN_CACHE_DIR, or a folder in the user's cache.

    Raises:
        OSError, RuntimeError: the folder cannot be determined.
    """
    return _configured_folder().resolve()


def _configured_folder() -> Path:
    if folder := os.environ.get("JAXSNN_CACHE_DIR"):
        # An absolute path: dlopen searches the system's folders for a name without a slash.
        return Path(folder).expanduser().absolute()
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home).absolute() / "jaxsnn"


def prepared_folder() -> Path:
    """Return the folder of the libraries, created with its parents for this user only (mode 0700) if
    it does not exist.

    Raises:
        UntrustedError: another user can change the folder.
        OSError, RuntimeError: it cannot be determined or created.
    """
    configured, folder = _configured_folder(), cache_folder()
    for path in reversed((folder, *folder.parents)):
        if not path.is_dir():
            path.mkdir(mode=0o700, exist_ok=True)  # another process may have created it
    refuse_untrusted_folder(configured)
    return folder


def refuse_untrusted_folder(folder: Path) -> None:
    """Refuse a folder that another user can change or replace.

    The folder and its parents, and the links among them, have to belong to this user or to root, and
    must not be writable by others; parents may be if they are sticky, as /tmp is. Folders above
    the home folder are not checked: who controls them controls the account.

    Raises:
        UntrustedError: another user can change the folder or one of its parents.
    """
    if not hasattr(os, "geteuid"):  # Windows
        return
    above_home: set[Path] = set()
    with suppress(RuntimeError):  # there is no home folder
        above_home = set(Path.home().resolve().parents)
    visited = _visited(folder)
    for number, (path, status) in enumerate(visited):
        if path in above_home:
            continue
        _refuse_owner(path, status)
        is_parent = number < len(visited) - 1
        is_sticky = is_parent and status.st_mode & stat.S_ISVTX
        if not stat.S_ISLNK(status.st_mode) and not is_sticky:
            _refuse_writable(path, status)


def refuse_untrusted_parent(folder: Path) -> None:
    """Refuse a new folder in a folder where other users can replace it.

    Raises:
        UntrustedError: the parent is writable by others and not sticky.
    """
    parent = folder.parent
    status = parent.stat()
    if hasattr(os, "geteuid") and not status.st_mode & stat.S_ISVTX:
        _refuse_writable(parent, status)


def _visited(path: Path) -> list[tuple[Path, os.stat_result]]:
    """Return the folders and links that the system visits on the way to a folder, and the folder
    itself at the end.
    """
    current, remaining, links = Path(path.anchor), [*reversed(path.parts[1:])], 0
    visited = [(current, current.stat())]
    while remaining:
        part = remaining.pop()
        following = current.parent if part == ".." else current / part
        status = following.lstat()
        visited.append((following, status))
        if not stat.S_ISLNK(status.st_mode):
            current = following
            continue
        links += 1
        if links > _MOST_LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))
        target = following.readlink()
        parts = target.parts
        if target.is_absolute():
            current, parts = Path(target.anchor), parts[1:]
        remaining += reversed(parts)
    return visited


def _refuse_owner(path: Path, status: os.stat_result) -> None:
    if status.st_uid not in (0, os.geteuid()):
        raise UntrustedError(f"{path} belongs to another user")


def _refuse_writable(path: Path, status: os.stat_result) -> None:
    by_group = status.st_mode & stat.S_IWGRP and not _is_private_group(status.st_gid)
    if by_group or status.st_mode & stat.S_IWOTH:
        raise UntrustedError(f"{path} can be changed by other users")


def _is_private_group(group: int) -> bool:
    """Return whether a group has this user as its only member, as on systems that create a group of
    the same name for each user.
    """
    import grp
    import pwd

    try:
        user, entry = pwd.getpwuid(os.geteuid()), grp.getgrgid(group)
    except KeyError:
        return False
    same_name = entry.gr_name == user.pw_name and group == user.pw_gid
    return same_name and set(entry.gr_mem) <= {user.pw_name}


def open_intact(path: Path) -> int:
    """Return a descriptor of a library that has the recorded length and hash, because loading a
    damaged one may crash the process.

    Raises:
        FileNotFoundError: there is no library.
        OSError: the library or its record is damaged or cannot be trusted.
    """
    descriptor = _open_trusted(path)
    try:
        words = _words(path)
        if words[:2] != _length_and_hash(descriptor, words):
            raise UntrustedError(f"{path} does not match its record")
    except BaseException:
        close(descriptor)
        raise
    return descriptor


def is_intact(path: Path) -> bool:
    """Return whether a library exists and is intact, see `open_intact`."""
    return defect(path) is None


def defect(path: Path) -> str | None:
    """Return why a library cannot be loaded, in one line; "" if there is none, None if it is
    intact.
    """
    try:
        close(open_intact(path))
    except FileNotFoundError:
        return ""
    except OSError as error:
        return str(error)
    return None


def was_built_again(path: Path) -> bool:
    """Return whether a library was rebuilt because its predecessor could not be loaded."""
    try:
        return is_intact(path) and _words(path)[2:] == [_AGAIN]
    except OSError:  # another process replaces it
        return False


def keep(built: Path, path: Path, *, again: bool) -> None:
    """Move a library to its final path, flush it to disk, and record its length and hash beside it.
    Both are writable by this user only, whatever the umask.

    Args:
        built: path of the new library, on the same disk.
        again: the library is a rebuild, see `was_built_again`.

    Raises:
        OSError: the library cannot be moved, or its record cannot be written.
    """
    record = built.with_suffix(".sum")
    content = built.read_bytes()
    words = [str(len(content)), hashlib.sha256(content).hexdigest(), *([_AGAIN] if again else [])]
    record.write_text(" ".join(words) + "\n")
    for file, mode in ((built, 0o700), (record, 0o600)):
        file.chmod(mode)
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
        lock = _open_lock(name)
        locked = False
        try:
            with suppress(OSError):  # the file system does not support locks
                fcntl.flock(lock, fcntl.LOCK_EX)
                locked = True
            if locked and not _is_there(lock, name):  # the previous holder removed the file
                continue
            try:
                yield locked
            finally:
                remove_files([name])
            return
        finally:
            with suppress(OSError):  # a process forked in the meantime would keep the lock
                fcntl.flock(lock, fcntl.LOCK_UN)
            close(lock)


@contextmanager
def build_folder(parent: Path | None, prefix: str) -> Iterator[Path]:
    """Create a folder that only this user can read, and remove it afterwards.

    Args:
        parent: folder in which it is created; None: that of temporary files.
    """
    folder = Path(tempfile.mkdtemp(dir=parent, prefix=prefix))
    try:
        yield folder
    finally:
        remove_folder(folder)


def remove_leftovers(path: Path) -> None:
    """Remove leftovers of interrupted builds of a library, while `locked_build` locks it; leftovers of
    other libraries are removed after a day.
    """
    now, leftovers = time.time(), []
    with suppress(OSError):
        leftovers = [*path.parent.iterdir()]
    for leftover in leftovers:
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


def _open_trusted(path: Path) -> int:
    """Return a descriptor, for reading, of a regular file that no other user can change. The file
    that is checked is the one that is open.

    Raises:
        UntrustedError: it is a link, a pipe or a device, or another user can change it.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | _SAFELY)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise UntrustedError(f"{path} is a symbolic link") from error
        raise
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise UntrustedError(f"{path} is not a regular file")
        if hasattr(os, "geteuid"):
            _refuse_owner(path, status)
            _refuse_writable(path, status)
    except BaseException:
        close(descriptor)
        raise
    return descriptor


def _words(path: Path) -> list[str]:
    """Return the fields of a library's record.

    Raises:
        OSError: there is no record, or it is not text or cannot be trusted.
    """
    record = _record(path)
    try:
        descriptor = _open_trusted(record)
    except FileNotFoundError as error:
        raise UntrustedError(f"{path} has no record") from error
    try:
        return os.read(descriptor, _LONGEST_RECORD).decode().split()
    except ValueError as error:
        raise UntrustedError(f"{record} is damaged") from error
    finally:
        close(descriptor)


def _length_and_hash(descriptor: int, words: list[str]) -> list[str]:
    """Return the length and the hash of an open file, as in a record; a file of another length than
    recorded is not read.
    """
    length = str(os.fstat(descriptor).st_size)
    if words[:1] != [length]:
        return [length]
    with os.fdopen(os.dup(descriptor), "rb") as file:
        return [length, hashlib.file_digest(file, "sha256").hexdigest()]


def _open_lock(name: Path) -> int:
    """Return a descriptor of a lock file, created if it does not exist. Anything else in its place,
    such as a pipe, a link or a file of another user, is removed: no other user can change the folder.
    """
    flags = os.O_RDWR | os.O_CREAT | _SAFELY
    try:
        # It is opened before it is checked: the lock at this path can be another one a moment later.
        lock = os.open(name, flags, 0o600)
        if stat.S_ISREG(os.fstat(lock).st_mode):
            return lock
        close(lock)
    except OSError as error:
        if error.errno not in _NO_LOCK_FILE:
            raise
    with suppress(FileNotFoundError):
        name.unlink()
        warn_of_environment(f"{name} was not a lock file of this user, and was removed")
    return os.open(name, flags, 0o600)


def _is_there(lock: int, name: Path) -> bool:
    """Return whether an open file is still the one at its path."""
    try:
        return os.path.samestat(os.fstat(lock), name.lstat())
    except FileNotFoundError:
        return False
