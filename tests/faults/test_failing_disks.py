"""What is there stays as it was when a write fails, wherever it fails, and when someone else is
faster.
"""

import contextlib
import errno
import json
import os
import stat
import subprocess
import sys
import threading
import warnings
from pathlib import Path

import numpy as np
import pytest

from jaxsnn import EnvironmentWarning, output
from jaxsnn.errors import FileError
from jaxsnn.nir import build, read, write
from jaxsnn.output import write_arrays, write_atomically, write_folder, write_json, write_together
from tests.helpers.command_line import DEMO_NET, ROOT
from tests.helpers.refusals import assert_refused


def graph(scale=1.0):
    weight = scale * np.ones((40, 30))
    return build.sequential(build.input(30), build.linear(weight=weight), build.lif(40, tau="10ms"))


opened = open
WRITERS = {
    "nir": lambda path, scale: write(path, graph(scale), force=True),
    "json": lambda path, scale: write_json(path, {"scale": [scale] * 3000}, force=True),
    "npz": lambda path, scale: write_arrays(path, {"x": scale * np.ones(3000)}, force=True),
}


def leftovers(folder):
    return sorted(name for name in os.listdir(folder) if name.startswith("."))


def failing(error):
    """A function of the system that fails."""

    def fail(*_, **__):
        raise OSError(error, os.strerror(error))

    return fail


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO])
@pytest.mark.parametrize("place", ["open", "write", "fsync", "replace"])
def test_a_failing_write_leaves_what_was_there(kind, error, place, tmp_path, monkeypatch):
    path, fail = tmp_path / "kept", failing(error)
    WRITERS[kind](path, 1.0)
    before = path.read_bytes()

    class Failing:
        """A file whose writes fail after the first thousand bytes."""

        def __init__(self, file):
            self.file = file

        def close(self):
            """Fail again: the first failure is the one to report."""
            self.file.close()
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))

        def write(self, data):
            self.file.write(data[:1000])
            fail()

    if place == "open":
        monkeypatch.setattr(output, "open", fail, raising=False)
    elif place == "write":
        monkeypatch.setattr(output, "open", lambda *args: Failing(opened(*args)), raising=False)
    else:
        monkeypatch.setattr(os, place, fail)
    message = rf"kept cannot be written \({os.strerror(error)}\) and is unchanged"
    assert_refused(lambda: WRITERS[kind](path, 2.0), FileError, message)
    monkeypatch.undo()
    assert path.read_bytes() == before
    assert leftovers(tmp_path) == []
    WRITERS[kind](path, 2.0)
    assert path.read_bytes() != before


FULL_DISK = """
import resource, sys
from pathlib import Path
from jaxsnn.errors import FileError
from tests.faults.test_failing_disks import WRITERS, leftovers

folder, failed = Path(sys.argv[1]), 0
for what, writer in WRITERS.items():
    path = folder / what
    writer(path, 1.0)
    before = path.read_bytes()
    for size in range(0, len(before), max(len(before) // 40, 1)):
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
        try:
            writer(path, 2.0)
        except FileError:
            failed += 1
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
        assert path.read_bytes() == before, (what, size)
        assert not leftovers(folder), (what, size)
print(failed)
"""


def test_a_disk_that_is_full_at_any_byte_leaves_what_was_there(tmp_path):
    """The system itself refuses to write more: a hundred places in files of each kind."""
    process = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    assert int(process.stdout) > 100


def test_numbers_that_hdf5_lost_are_found_before_the_file_has_its_name(tmp_path, monkeypatch):
    from jaxsnn.nir.io import files

    path = tmp_path / "kept.nir"
    write(path, graph(1.0))
    before = path.read_bytes()
    image = files._image

    def zeros(document):
        weight = document["node"]["nodes"]["1"]["weight"]
        lost = files.Dataset(value=0 * weight.value, dtype=weight.dtype)
        nodes = {**document["node"]["nodes"]}
        nodes["1"] = files.Group({**nodes["1"], "weight": lost}, nodes["1"].attributes)
        node = files.Group({**document["node"], "nodes": files.Group(nodes)})
        return image(files.Group({**document, "node": node}))

    monkeypatch.setattr(files, "_image", zeros)
    assert_refused(lambda: write(path, graph(2.0), force=True), FileError, "was not written")
    assert path.read_bytes() == before


def test_of_several_at_once_one_writes_and_the_others_are_refused(tmp_path):
    path, won, start = tmp_path / "one.json", [], threading.Barrier(8)

    def try_it(number):
        start.wait()
        with contextlib.suppress(FileError):
            write_json(path, {"number": number})
            won.append(number)

    threads = [threading.Thread(target=try_it, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert f'"number": {won[0]}' in path.read_text()
    assert leftovers(tmp_path) == []


def test_without_hard_links_the_name_is_still_taken_once(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "link", failing(errno.EPERM))
    path = tmp_path / "new"
    write_atomically(path, "1")
    assert_refused(lambda: write_atomically(path, "2"), FileError, "exists")
    assert path.read_text() == "1"


def test_a_link_that_leads_nowhere_is_something_that_exists(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    assert_refused(lambda: write_atomically(tmp_path / "link", "new"), FileError, "exists")
    assert not (tmp_path / "nowhere").exists()


def test_a_replaced_file_keeps_its_permissions_and_the_links_to_it(tmp_path):
    write_atomically(tmp_path / "file", "old")
    os.chmod(tmp_path / "file", 0o640)
    (tmp_path / "link").symlink_to(tmp_path / "file")
    write_atomically(tmp_path / "link", "new", force=True)
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "file").read_text() == "new"
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o640


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("first", [0, 1, 2])
@pytest.mark.parametrize("place", ["write", "name"])
def test_files_that_belong_together_appear_together_or_not(
    force, first, place, tmp_path, monkeypatch
):
    """All writes from the first that fails on fail."""
    file_names = ["a.svg", "b.json", "c.nir"]
    new = {tmp_path / name: "new" for name in file_names}
    if force:
        write_together(dict.fromkeys(new, "old"))
    calls, method = [], output._write_through if place == "write" else output._put

    def fail_from_first(*arguments):
        calls.append(arguments)
        (method if len(calls) <= first else failing(errno.EIO))(*arguments)

    monkeypatch.setattr(output, method.__name__, fail_from_first)
    assert_refused(lambda: write_together(new, force), FileError, file_names[first])
    monkeypatch.undo()
    texts = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert texts == (dict.fromkeys(file_names, "old") if force else {})
    write_together(new, force)
    assert {path: path.read_text() for path in tmp_path.iterdir()} == new


def test_a_file_that_came_meanwhile_stays_and_takes_the_others_back(tmp_path, monkeypatch):
    put = output._put

    def late(temporary, target, force):
        if target.name == "b":
            target.write_text("another's")
        put(temporary, target, force)

    monkeypatch.setattr(output, "_put", late)
    new = {tmp_path / name: "new" for name in "abc"}
    assert_refused(lambda: write_together(new), FileError, "b exists")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"b": "another's"}


def test_the_file_that_counts_is_named_last(tmp_path, monkeypatch):
    put, named = output._put, []
    monkeypatch.setattr(output, "_put", lambda *args: (named.append(args[1].name), put(*args)))
    write_together({tmp_path / name: "new" for name in "cab"})
    assert named == ["c", "a", "b"]


def test_bytes_are_on_the_disk_before_they_have_a_name(tmp_path, monkeypatch):
    order = []

    def spy(name, function):
        def call(*args, **kw):
            order.append(name)
            return function(*args, **kw)

        monkeypatch.setattr(os, name, call)

    for name in ("fsync", "link", "replace"):
        spy(name, getattr(os, name))
    write_atomically(tmp_path / "a", "1")
    assert order == ["fsync", "link", "fsync"]  # the file, its name, the folder
    order.clear()
    write_atomically(tmp_path / "a", "2", force=True)
    assert order == ["fsync", "replace", "fsync"]


def test_a_new_folder_appears_with_all_of_its_files(tmp_path, monkeypatch):
    folder, new = tmp_path / "folder", {"a": "1", "b": "2"}
    monkeypatch.setattr(os, "rename", failing(errno.EIO))
    assert_refused(lambda: write_folder(folder, new), FileError, "cannot be created")
    assert os.listdir(tmp_path) == []
    monkeypatch.undo()
    write_folder(folder, new)
    assert_refused(lambda: write_folder(folder, {"a": "3", "c": "4"}), FileError, "a exists")
    assert {path.name: path.read_text() for path in folder.iterdir()} == new
    write_folder(folder, {"a": "3"}, force=True)
    assert (folder / "a").read_text() == "3"
    assert_refused(
        lambda: write_folder(folder / "a", {"b": "1"}), FileError, "exists and is not a folder"
    )


def test_what_a_killed_process_left_is_removed_and_what_others_write_is_not(tmp_path):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    old, young = f".a.{gone.pid}.0000", f".a.{gone.pid}.1111"
    mine, other_target = f".a.{os.getpid()}.2222", f".b.{gone.pid}.3333"
    for name in (old, young, mine, other_target, ".a.notes"):
        (tmp_path / name).write_text("half")
        if name != young:
            os.utime(tmp_path / name, (0, 0))
    write_atomically(tmp_path / "a", "whole")
    assert sorted(os.listdir(tmp_path)) == sorted(["a", young, mine, other_target, ".a.notes"])


def test_of_four_conversions_at_once_one_succeeds(tmp_path):
    argv = [sys.executable, "-m", "jaxsnn.commands.cli", "convert", str(DEMO_NET), "out.nir"]
    argv += ["--from", "snntorch", "--reset", "zero", "--reset-delay", "true", "--to", "norse"]
    options = {"cwd": tmp_path, "env": os.environ | {"PYTHONPATH": str(ROOT)}, "text": True}
    running = [subprocess.Popen(argv, stderr=subprocess.PIPE, **options) for _ in range(4)]
    errors = [process.communicate(timeout=300)[1] for process in running]
    assert sorted(process.returncode for process in running) == [0, 2, 2, 2], errors
    message = "out.nir exists: choose another name or pass --force"
    assert sum(message in text for text in errors) == 3
    assert os.listdir(tmp_path) == ["out.nir"]


def test_devices_and_pipes_are_not_written_over(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    message = "is not a regular file"
    assert_refused(lambda: write_atomically(pipe, "new", force=True), FileError, message)


def test_a_file_that_was_written_reads_as_what_was_meant(tmp_path):
    write(tmp_path / "a.nir", graph(3.0))
    assert (np.asarray(read(tmp_path / "a.nir").nodes["1"].weight) == 3).all()


def failing_for(condition, error=errno.EIO, times=None):
    """A patch of a function of `os` that fails where a condition on its arguments holds."""

    def patched(function):
        calls = []

        def call(*arguments, **options):
            if condition(*arguments, **options) and (times is None or len(calls) < times):
                calls.append(arguments)
                raise (
                    error
                    if isinstance(error, BaseException)
                    else OSError(error, os.strerror(error))
                )
            return function(*arguments, **options)

        return call

    return patched


def is_hidden(path, *_, **__):
    return os.path.basename(path).startswith(".")


def patch_os(monkeypatch, name, condition, error=errno.EIO, times=None):
    monkeypatch.setattr(os, name, failing_for(condition, error, times)(getattr(os, name)))


def test_a_temporary_file_that_cannot_be_removed_is_a_warning(tmp_path, monkeypatch):
    patch_os(monkeypatch, "unlink", is_hidden)
    with pytest.warns(EnvironmentWarning) as caught:
        write_atomically(tmp_path / "file", "new")
    assert (tmp_path / "file").read_text() == "new"
    assert caught[0].filename == __file__
    (leftover,) = leftovers(tmp_path)
    assert str(tmp_path / leftover) in str(caught[0].message)
    assert os.strerror(errno.EIO) in str(caught[0].message)


def test_copies_that_cannot_be_removed_are_listed_in_one_warning(tmp_path, monkeypatch):
    new = {tmp_path / name: "new" for name in "abc"}
    write_together(dict.fromkeys(new, "old"))
    patch_os(monkeypatch, "unlink", is_hidden)
    with pytest.warns(EnvironmentWarning) as caught:
        write_together(new, force=True)
    assert {path: path.read_text() for path in new} == new
    assert len(caught) == 1
    assert len(leftovers(tmp_path)) == 3
    assert all(str(tmp_path / name) in str(caught[0].message) for name in leftovers(tmp_path))


def test_a_failing_clean_up_does_not_replace_the_error(tmp_path, monkeypatch, recwarn):
    """Even if warnings are errors."""
    monkeypatch.setattr(os, "fsync", failing(errno.ENOSPC))
    patch_os(monkeypatch, "unlink", is_hidden)
    for action in ("always", "error"):
        warnings.simplefilter(action, EnvironmentWarning)
        message = os.strerror(errno.ENOSPC)
        assert_refused(lambda: write_atomically(tmp_path / "file", "new"), FileError, message)
    assert not (tmp_path / "file").exists()
    assert len(leftovers(tmp_path)) == 2
    issued = [str(warning.message) for warning in recwarn.list]
    assert len(issued) == 1
    assert sum(str(tmp_path / name) in issued[0] for name in leftovers(tmp_path)) == 1


@pytest.mark.parametrize("force", [False, True])
def test_a_folder_that_cannot_be_closed_is_no_error(force, tmp_path, monkeypatch):
    def is_folder(handle):
        return stat.S_ISDIR(os.fstat(handle).st_mode)

    (tmp_path / "file").write_text("old") if force else None
    patch_os(monkeypatch, "close", is_folder)
    write_atomically(tmp_path / "file", "new", force=force)
    assert (tmp_path / "file").read_text() == "new"


def test_a_file_that_cannot_be_closed_is_not_renamed(tmp_path, monkeypatch):
    """Some file systems report only then that the disk is full."""

    class Failing:
        def __init__(self, file):
            self.file = file

        def __getattr__(self, name):
            return getattr(self.file, name)

        def close(self):
            self.file.close()
            raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    (tmp_path / "file").write_text("old")
    monkeypatch.setattr(output, "open", lambda *args: Failing(opened(*args)), raising=False)
    assert_refused(
        lambda: write_atomically(tmp_path / "file", "new", force=True),
        FileError,
        os.strerror(errno.EDQUOT),
    )
    assert (tmp_path / "file").read_text() == "old"
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize("error", [errno.EIO, KeyboardInterrupt()])
def test_without_hard_links_no_empty_file_remains(error, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "link", failing(errno.EPERM))
    patch_os(monkeypatch, "replace", lambda *_: True, error)
    with pytest.raises((FileError, KeyboardInterrupt)):
        write_atomically(tmp_path / "new", "1")
    assert os.listdir(tmp_path) == []


def test_a_rollback_that_fails_keeps_the_previous_content(tmp_path, monkeypatch):
    file_names = ["a", "b", "c"]
    new = {tmp_path / name: "new" for name in file_names}
    write_together(dict.fromkeys(new, "old"))

    def fails(source, target):
        """The last file cannot be named, nor the first restored."""
        text = Path(source).read_text()
        return (os.path.basename(target), text) in (("c", "new"), ("a", "old"))

    patch_os(monkeypatch, "replace", fails)
    with pytest.warns(EnvironmentWarning) as caught:
        assert_refused(lambda: write_together(new, force=True), FileError, "c cannot be written")
    assert [path.read_text() for path in new] == ["new", "old", "old"]
    (previous,) = leftovers(tmp_path)
    assert (tmp_path / previous).read_text() == "old"
    (message,) = [str(warning.message) for warning in caught]
    assert str(tmp_path / "a") in message
    assert str(tmp_path / previous) in message


@pytest.mark.parametrize("force", [False, True])
def test_an_interrupt_of_the_clean_up_waits_for_its_end(force, tmp_path, monkeypatch):
    new = {tmp_path / name: "new" for name in "abc"}
    if force:
        write_together(dict.fromkeys(new, "old"))
    patch_os(monkeypatch, "unlink", is_hidden, KeyboardInterrupt(), times=1)
    with pytest.raises(KeyboardInterrupt):
        write_together(new, force)
    assert leftovers(tmp_path) == []
    assert {path: path.read_text() for path in new} == new


def test_a_folder_of_temporary_files_that_remains_is_reported(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "rename", failing(errno.EIO))
    monkeypatch.setattr(os, "rmdir", failing(errno.EROFS))
    with pytest.warns(EnvironmentWarning) as caught:
        assert_refused(
            lambda: write_folder(tmp_path / "folder", {"a": "1"}),
            FileError,
            os.strerror(errno.EIO),
        )
    (leftover,) = leftovers(tmp_path)
    assert str(tmp_path / leftover) in str(caught[0].message)


def test_commands_print_what_remains_as_a_note_and_succeed(tmp_path, monkeypatch, capsys):
    from jaxsnn.commands.cli import main

    write(tmp_path / "net.nir", graph())
    patch_os(monkeypatch, "unlink", is_hidden)
    argv = ["draw", str(tmp_path / "net.nir"), "-o", str(tmp_path / "out.svg"), "--json"]
    assert main(argv) == 0
    captured = capsys.readouterr()
    (leftover,) = leftovers(tmp_path)
    (note,) = [text for text in json.loads(captured.out)["notes"] if leftover in text]
    assert captured.err.splitlines().count(f"jaxsnn: note: {note}") == 1
    assert "<svg" in (tmp_path / "out.svg").read_text()


CHILD = """
import os, sys
from jaxsnn.nir import read

parent, close = os.getpid(), os.close


def failing_in_the_child(handle):
    if os.getpid() != parent:
        raise OSError(5, "Input/output error")
    close(handle)


os.close = failing_in_the_child
print(len(read(sys.argv[1], read_timeout=60.0).nodes))
"""


def test_a_process_that_reads_never_continues_as_its_parent(tmp_path):
    """Not even if it cannot close what it inherited."""
    write(tmp_path / "net.nir", graph())
    process = subprocess.run(
        [sys.executable, "-c", CHILD, str(tmp_path / "net.nir")],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert (process.returncode, process.stdout) == (0, "4\n"), process.stderr
