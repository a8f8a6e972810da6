"""Output files: refused before the work where they would overwrite something, then written whole or
not at all.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from jaxsnn.errors import FileError, UsageError

Name = str | os.PathLike[str]


def refuse_unwritable(path: str | os.PathLike[str], force: bool = False) -> Path:
    """The path, if a file can be written there.

    Raises:
        FileError: it exists and `force` is not set, or is a folder, or its folder does not exist.
    """
    path = Path(path)
    if path.is_dir():
        raise FileError(f"{path} is a directory", fix="name a file in it")
    if path.exists() and not force:
        raise FileError(f"{path} exists", fix="choose another name or pass force=True")
    if not path.parent.is_dir():
        raise FileError(
            f"{path} cannot be written, the folder {path.parent} does not exist",
            fix="create it first",
        )
    return path


def refuse_shared(sources: Iterable[Name], outputs: Mapping[str, Name]) -> None:
    """Not even with `force` does a command write over what it reads, or over what it has just
    written.

    Args:
        sources: what is read; those that are no file, such as the name of a task, do not count.
        outputs: what will be written, by what asks for it: an option, mostly.

    Raises:
        UsageError: an output that is a source, or another output.
    """
    read, written = [source for source in sources if os.path.exists(source)], list(outputs.items())
    for number, (asks, path) in enumerate(written):
        if any(_same(path, source) for source in read):
            raise UsageError(
                f"{path} is what the command reads, {asks} would overwrite it",
                fix="choose another name",
            )
        for other, earlier in written[:number]:
            if _same(path, earlier):
                raise UsageError(
                    f"{path} is written by {other} and by {asks}",
                    fix="choose another name for one of them",
                )


def _same(one: Name, other: Name) -> bool:
    """Whether two paths are one file, or will be."""
    try:
        return os.path.samefile(one, other)
    except OSError:
        return os.path.realpath(one) == os.path.realpath(other)


def write_whole(
    path: str | os.PathLike[str], write: Callable[[Path], Any], force: bool = False
) -> None:
    """Let `write` write to a temporary name in the same folder, then rename it.

    Raises:
        FileError: as `refuse_unwritable`, or the folder cannot be written.
    """
    path = refuse_unwritable(path, force)
    try:
        # a folder, so that `write` may choose how it opens the file, and the file gets the usual
        # permissions
        with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as folder:
            temporary = Path(folder) / path.name
            write(temporary)
            os.replace(temporary, path)
    except OSError as error:
        raise FileError(f"{path} cannot be written ({error.strerror or error})") from error


def write_json(path: str | os.PathLike[str], content: Any, force: bool = False) -> None:
    """Write JSON: the same bytes for the same content."""
    text = as_json(content) + "\n"
    write_whole(path, lambda temporary: temporary.write_text(text, encoding="utf-8"), force)


def as_json(content: Any) -> str:
    """JSON with the keys in their order; not-a-number is an error."""
    return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)


def write_arrays(path: str | os.PathLike[str], arrays: Mapping[str, Any], force: bool) -> None:
    """Arrays as an .npz file, whole or not at all, under exactly this name.

    Raises:
        FileError: it exists and `force` is false, or it cannot be written.
    """
    import numpy as np

    def save(temporary: Path) -> None:
        with open(temporary, "wb") as file:
            np.savez(file, **arrays)

    write_whole(Path(path), save, force)
