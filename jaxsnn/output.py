"""Output files: refused before the work if they would overwrite a file, then written completely or not
at all.
"""

from __future__ import annotations

import errno
import functools
import io
import json
import os
import shutil
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from jaxsnn.errors import FileError, UsageError, printable, warn_of_environment
from jaxsnn.options import FORCE
from jaxsnn.wording import Text

Name = str | os.PathLike[str]


def refuse_unwritable(path: str | os.PathLike[str], force: bool = False) -> Path:
    """Return the path if a file can be written there.

    Raises:
        FileError: the path exists and `force` is not set, or is a folder, or its name is too long, or
            its folder does not exist or is read-only.
    """
    path = Path(path)
    if not path.is_absolute():
        os.getcwd()  # fails if the current folder was deleted
    _refuse_name(path)
    if path.is_dir():
        raise FileError(
            Text("{path} is a directory", path=path), fix="pass the path of a file in it"
        )
    if os.path.lexists(path) and not force:  # also if it is a dangling link
        raise _exists(path)
    if path.exists() and not path.is_file():
        raise FileError(
            Text("{path} is not a regular file", path=path), fix="choose another file name"
        )
    if not path.parent.is_dir():
        raise FileError(
            Text(
                "{path} cannot be written, because the folder {folder} does not exist",
                path=path,
                folder=path.parent,
            ),
            fix="create the folder first",
        )
    # With force, the target of a link is overwritten, so the target's folder must be writable.
    refuse_read_only(path, Path(os.path.realpath(path)).parent if force else path.parent)
    return path


def _refuse_name(path: Path) -> None:
    """Refuse a name that the file system does not have, also for the temporary file beside it.

    Raises:
        FileError: the name contains a zero byte or is too long.
    """
    try:
        path.lstat()
    except ValueError as error:
        raise FileError(
            Text("not a valid file name: {path!r}", path=os.fspath(path)), fix="choose another name"
        ) from error
    except OSError as error:
        _refuse_long_name(path, error)
    if path.name:
        try:
            path.with_name(_temporary_name(path)).lstat()
        except OSError as error:
            _refuse_long_name(path, error)


def _refuse_long_name(path: Path, error: OSError) -> None:
    if error.errno == errno.ENAMETOOLONG:
        raise FileError(
            Text("{path} cannot be written ({error})", path=path, error=error.strerror),
            fix="choose another file name",
        ) from error


def refuse_unwritable_folder(folder: Name, file_names: Iterable[str], force: bool = False) -> None:
    """Refuse a folder in which `write_folder` cannot write the files; folders above it need not exist.

    Args:
        folder: path of the folder.
        file_names: names of the files.
        force: whether files that exist are replaced.

    Raises:
        FileError: the path is no folder, or one of the folders above it is a file or read-only, or a
            file in it cannot be written.
    """
    folder = Path(folder)
    _refuse_name(folder)
    if os.path.lexists(folder):
        _refuse_no_folder(folder)
        for name in file_names:
            refuse_unwritable(folder / name, force)
        return
    above = next(path for path in folder.absolute().parents if os.path.lexists(path))
    _refuse_no_folder(above)
    refuse_read_only(folder, above)
    for name in folder.absolute().relative_to(above).parts:
        _refuse_name(above / name)  # the system checks names only in folders that exist


def _refuse_no_folder(path: Path) -> None:
    if not path.is_dir():
        raise FileError(
            Text("{path} exists and is not a folder", path=path), fix="choose another name"
        )


def refuse_read_only(path: Name, folder: Name) -> None:
    """Refuse a path in a folder that is not writable, as on a read-only file system.

    Files are first written under a temporary name in the folder, so that it is not enough if the file
    itself is writable.

    Raises:
        FileError: the folder is not writable.
    """
    if not os.access(folder, os.W_OK | os.X_OK):
        raise FileError(
            Text(
                "{path} cannot be written, because the folder {folder} is read-only",
                path=path,
                folder=folder,
            ),
            fix="choose a writable folder",
        )


def refuse_link(path: Name) -> None:
    """Refuse a symbolic link.

    Raises:
        FileError: the path is a symbolic link, whatever its target.
    """
    if os.path.islink(path):
        raise FileError(
            Text("{path} is a symbolic link, and files are not written through links", path=path),
            fix="remove the link, or replace it by a copy of the file",
        )


def _exists(path: Path) -> FileError:
    return FileError(
        Text("{path} exists", path=path),
        fix=Text("choose another name or pass {force}", force=FORCE.set_to(True)),
    )


def refuse_shared(sources: Iterable[Name], outputs: Mapping[str, Name]) -> None:
    """Refuse to overwrite a file that the command reads or has just written, even with `force`.

    Args:
        sources: files that are read; other sources, such as the name of a task, are ignored.
        outputs: files that will be written, by the option that requests them.

    Raises:
        UsageError: an output that is a source, or another output.
    """
    read, written = {_file(source) for source in sources} - {None}, list(outputs.items())
    for number, (asks, path) in enumerate(written):
        if _file(path) in read:
            raise UsageError(
                Text(
                    "{path} is read by the command, and {option} would overwrite it",
                    path=path,
                    option=asks,
                ),
                fix="choose another name",
            )
        for earlier_option, earlier in written[:number]:
            if _same(path, earlier):
                raise UsageError(
                    Text(
                        "{path} is written by {first} and by {second}",
                        path=path,
                        first=earlier_option,
                        second=asks,
                    ),
                    fix="choose different names",
                )


def _file(path: Name) -> tuple[int, int] | None:
    """Return the identity of the file at a path, the same for all its names; None if there is
    none.
    """
    try:
        status = os.stat(path)
    except (OSError, ValueError):  # the latter for a zero byte in the path
        return None
    return status.st_dev, status.st_ino


def _same(first: Name, second: Name) -> bool:
    """Return whether two paths are, or will be, the same file."""
    file = _file(first)
    if file is not None:
        return file == _file(second)
    return os.path.realpath(first) == os.path.realpath(second)


def write_atomically(
    path: Name, content: bytes | str, force: bool = False, *, follow_links: bool = True
) -> None:
    """Write a file completely, down to the disk, or not at all. Text is UTF-8.

    An existing file is only replaced with `force`, also if it was created in the meantime, and
    keeps its permissions; if it is a symbolic link, the target of the link is replaced.

    Args:
        follow_links: if false, a link in the place of the file is refused.

    Raises:
        FileError: as in `refuse_unwritable`, or the file cannot be written.
    """
    write_together({path: content}, force, follow_links=follow_links)


def write_together(
    contents: Mapping[Any, bytes | str], force: bool = False, *, follow_links: bool = True
) -> None:
    """Write files that belong together: all, each as `write_atomically` does, or none.

    All are on the disk before the first is renamed; the most important one should be the last in
    the mapping, because it is the missing one if the machine stops between two renames.

    Args:
        follow_links: as in `write_atomically`.

    Raises:
        FileError: as in `write_atomically`; the previous files are restored.
    """
    staged: list[_Staged] = []
    try:
        for path, content in contents.items():
            if not follow_links:
                refuse_link(path)
            staged.append(_Staged(refuse_unwritable(path, force), force, follow_links))
            with _as_file_error(staged[-1].path):
                staged[-1].write(content)
        _name_all(staged)
    finally:
        remove_files([path for file in staged for path in file.temporary_files()])


def write_folder(folder: Name, contents: Mapping[str, bytes | str], force: bool = False) -> None:
    """Write the files of a folder, by name, together: a new folder appears with all of them.

    Text is UTF-8.

    Raises:
        FileError: as in `write_together`, or the folder cannot be created.
    """
    folder = Path(folder)
    if os.path.lexists(folder):
        _refuse_no_folder(folder)
        write_together({folder / name: content for name, content in contents.items()}, force)
        return
    stage = folder.with_name(_temporary_name(folder))
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        stage.mkdir()
        for name, content in contents.items():
            data = content.encode("utf-8") if isinstance(content, str) else content
            _write_through(stage / name, data)
        _onto_the_disk(stage)
        os.rename(stage, folder)
        _onto_the_disk(folder.parent)
    except OSError as error:
        raise FileError(
            Text("{path} cannot be created ({error})", path=folder, error=error.strerror or error),
            fix="choose another folder",
        ) from error
    finally:
        remove_folder(stage)


@contextmanager
def _as_file_error(path: Path) -> Iterator[None]:
    """Convert file system errors inside the context to a `FileError` on a path."""
    try:
        yield
    except FileExistsError as error:
        raise _exists(path) from error
    except OSError as error:
        raise FileError(
            Text(
                "{path} cannot be written ({error}) and is unchanged",
                path=path,
                error=error.strerror or error,
            ),
            fix="free disk space, or choose another file name",
        ) from error


def _temporary_name(path: Path) -> str:
    """Return a unique temporary name beside a path, which `_remove_leftovers` recognises."""
    return f".{path.name}.{os.getpid()}.{os.urandom(4).hex()}"


class _Staged:
    """File that is written under a temporary name and renamed later."""

    def __init__(self, path: Path, force: bool, follow_links: bool):
        self.path, self.force = path, force
        # If links are not followed, renaming replaces a link, even one created since the check.
        self.target = Path(os.path.realpath(path)) if force and follow_links else path
        self.temporary = self.target.with_name(_temporary_name(self.target))
        self.before: Path | None = None
        self.named = False

    def write(self, content: bytes | str) -> None:
        """Write the content under a temporary name."""
        data = content.encode("utf-8") if isinstance(content, str) else content
        _remove_leftovers(self.target)
        _write_through(self.temporary, data)
        if self.force and self.target.exists():
            os.chmod(self.temporary, stat.S_IMODE(self.target.stat().st_mode))

    def keep_before(self) -> None:
        """Keep the existing file under a second name, so that it can be restored if another file
        fails.
        """
        if self.force and self.target.exists():
            self.before = self.target.with_name(_temporary_name(self.target))
            try:
                os.link(self.target, self.before)
            except OSError:  # a file system without hard links
                shutil.copy2(self.target, self.before)

    def name(self) -> None:
        """Rename the temporary file to its final name."""
        _put(self.temporary, self.target, self.force)
        self.named = True
        _onto_the_disk(self.target.parent)

    def take_back(self) -> None:
        """Roll back: restore the previous file, or remove the new one. If that fails, the previous
        file keeps its temporary name, and a warning says so.
        """
        if not self.named:
            return
        try:
            if self.before is None:
                self.target.unlink(missing_ok=True)
            elif self.before.exists():
                os.replace(self.before, self.target)
        except OSError as error:
            rest = "" if self.before is None else f"; its previous content is in {self.before}"
            reason = error.strerror or error
            warn_of_environment(f"{self.target} has its new content ({reason}){rest}")
            self.before = None

    def temporary_files(self) -> list[Path]:
        """Return the temporary file and the copy of the previous file."""
        return [self.temporary] if self.before is None else [self.temporary, self.before]


def _name_all(staged: list[_Staged]) -> None:
    try:
        for file in staged:
            with _as_file_error(file.path):
                if len(staged) > 1:
                    file.keep_before()
                file.name()
    except BaseException:
        if len(staged) > 1:  # a single file needs no rollback
            _finish([file.take_back for file in staged])
        raise


def _finish(actions: Iterable[Callable[[], None]]) -> None:
    """Run the actions of a clean-up to the end: Ctrl-C takes effect after the last one, and the
    action that it interrupted is repeated.
    """
    interrupt: KeyboardInterrupt | None = None
    for action in actions:
        try:
            action()
        except KeyboardInterrupt as error:
            interrupt = error
            action()
    if interrupt is not None:
        raise interrupt


def remove_files(paths: Iterable[Path], kind: str = "temporary files") -> None:
    """Remove files that are no longer needed, if they exist.

    A failure is an `EnvironmentWarning` that lists the files that remain, and no error: the results do
    not depend on them.

    Args:
        kind: kind of the files, for the warning.
    """
    remaining: list[str] = []

    def remove(path: Path) -> None:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            if os.path.lexists(path):
                remaining.append(f"{path} ({error.strerror or error})")

    try:
        _finish([functools.partial(remove, path) for path in paths])
    finally:
        if remaining:
            warn_of_environment(f"{kind} could not be removed: {', '.join(remaining)}")


def remove_folder(folder: Path) -> None:
    """Remove a temporary folder with everything in it, if it exists; a failure is reported as in
    `remove_files`.
    """
    try:
        _finish([functools.partial(shutil.rmtree, folder, ignore_errors=True)])
    finally:
        if os.path.lexists(folder):
            warn_of_environment(f"a temporary folder could not be removed: {folder}")


def close(descriptor: int) -> None:
    """Close a folder, a lock or a pipe. Errors are ignored: no data can be lost."""
    with suppress(OSError):
        os.close(descriptor)


#: Seconds after which unfinished files of a process that no longer runs are removed.
_LEFT_FOR = 60.0


def _remove_leftovers(target: Path) -> None:
    """Remove temporary files that killed processes left next to a file."""
    begin = f".{target.name}."
    with suppress(OSError):
        for name in os.listdir(target.parent):
            number = name.removeprefix(begin).partition(".")[0] if name.startswith(begin) else ""
            if number.isascii() and number.isdigit() and not _is_alive(int(number)):
                leftover = target.with_name(name)
                if time.time() - leftover.stat().st_mtime > _LEFT_FOR:
                    leftover.unlink(missing_ok=True)


def _is_alive(process: int) -> bool:
    """Return whether a process with this number is running on this machine."""
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        pass
    return True


def _write_through(path: Path, data: bytes) -> None:
    """Write a new file and flush all of its bytes to the disk."""
    file = open(path, "xb")  # noqa: SIM115
    try:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    except BaseException:
        with suppress(OSError):  # the first error is the one to report
            file.close()
        raise
    file.close()


def _put(temporary: Path, target: Path, force: bool) -> None:
    """Rename a file to its final name, which may have been taken in the meantime.

    Raises:
        FileExistsError: the name has been taken, and `force` is not set.
    """
    if force:
        os.replace(temporary, target)
        return
    try:
        os.link(temporary, target)  # fails if the name exists
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links
        placeholder = os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
        try:
            close(placeholder)
            os.replace(temporary, target)
        except BaseException:
            remove_files([target], "empty files")
            raise


def _onto_the_disk(folder: Path) -> None:
    """Flush the names in a folder to the disk, if the system supports that."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(handle)
    except OSError:
        # Some systems cannot flush folders; the content of the file is on the disk.
        pass
    finally:
        close(handle)


def write_json(path: str | os.PathLike[str], content: Any, force: bool = False) -> None:
    """Write JSON: the same bytes for the same content."""
    text = as_json(content) + "\n"
    write_atomically(path, text, force)


def as_json(content: Any) -> str:
    """Return JSON with the keys in their order; not-a-number is an error, and terminal control
    characters are escaped.
    """
    return printable(json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False))


def write_arrays(
    path: str | os.PathLike[str],
    arrays: Mapping[str, Any],
    force: bool,
    *,
    follow_links: bool = True,
) -> None:
    """Write arrays as an .npz file, whole or not at all, under exactly this name.

    Args:
        follow_links: as in `write_atomically`.

    Raises:
        FileError: the file exists and `force` is false, or the file cannot be written.
    """
    import numpy as np

    written = io.BytesIO()
    np.savez(written, **arrays)
    write_atomically(path, written.getvalue(), force, follow_links=follow_links)
