"""What is there stays as it was when a write fails, wherever it fails, and when someone else is
faster.
"""

import contextlib
import errno
import os
import stat
import subprocess
import sys
import threading

import numpy as np
import pytest

from jaxsnn import output
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

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self.file.close()

        def write(self, data):
            self.file.write(data[:1000])
            fail()

    if place == "open":
        monkeypatch.setattr(output, "open", fail, raising=False)
    elif place == "write":
        monkeypatch.setattr(output, "open", lambda *args: Failing(opened(*args)), raising=False)
    else:
        monkeypatch.setattr(os, place, fail)
    message = r"kept cannot be written \(.*\) and is unchanged"
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
