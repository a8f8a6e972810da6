"""What reading may take is limited: time, memory and bytes, wherever a command reads."""

import errno
import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
import zipfile
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np
import pytest

from jaxsnn.errors import FileError, UsageError
from jaxsnn.files.array_files import load_arrays
from jaxsnn.files.read_limits import ByteBudget, ReadLimits, read_limits
from jaxsnn.files.read_process import ReadProcess
from jaxsnn.nir import build, limit_reading, read, write
from jaxsnn.nir.io.files import load, save
from jaxsnn.nir.io.reading import read_nir, receive, send
from tests.helpers.command_line import ROOT, assert_cli_refused
from tests.helpers.hdf5_entries import entries_of
from tests.helpers.refusals import assert_refused


def small(path):
    net = [build.input(3), build.linear(weight=np.ones((4, 3))), build.lif(4, tau="10ms")]
    write(path, build.sequential(*net))
    return path


@pytest.fixture
def small_file(tmp_path):
    return small(tmp_path / "a.nir")


@pytest.fixture
def looping_file(tmp_path):
    """A file on which libhdf5 loops: the free space of its heap of texts is of size 0. It is too large
    for `refuse_broken_heaps`.
    """
    path = tmp_path / "loops.nir"
    data = bytearray(small(path).read_bytes())
    heap = data.find(b"GCOL")
    place = heap + 16
    while (number := int.from_bytes(data[place : place + 2], "little")) != 0:
        size = int.from_bytes(data[place + 8 : place + 16], "little")
        place += 16 + -(-size // 8) * 8
    assert number == 0
    data[place + 8 : place + 16] = bytes(8)
    path.write_bytes(data)
    os.truncate(path, 2**26 + 1)
    return path


def test_a_file_on_which_hdf5_loops_is_given_up(looping_file, capsys):
    message = (
        "loops.nir was not read within 0.3 s: if you trust the file, pass a longer --read-timeout"
    )
    argv = ["info", looping_file, "--read-timeout", "300ms"]
    assert_cli_refused(capsys, *argv, code=2, says=message)


def test_python_has_the_limits_of_the_command_line(small_file, monkeypatch):
    """Only an infinite time limit reads in this process."""
    forks, fork = [], os.fork
    monkeypatch.setattr(os, "fork", lambda: forks.append(1) or fork())
    assert read_limits() == ReadLimits(max_bytes=2**31, timeout=60.0)
    read(small_file)
    assert len(forks) == 1
    read(small_file, read_timeout=float("inf"))
    with limit_reading(read_timeout=float("inf")):
        read(small_file)
    assert len(forks) == 1


def test_python_can_change_the_time_limit(looping_file):
    assert_refused(
        lambda: read(looping_file, read_timeout=0.2), FileError, r"not read within 0\.2 s"
    )


#: Background jobs ignore Ctrl-C, and so do their children.
LISTENING = "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
INFO = LISTENING + "from jaxsnn.commands.cli import main; sys.exit(main(sys.argv[1:]))"


def test_ctrl_c_ends_it(looping_file):
    forks = (
        "import os\n"
        "os.register_at_fork(after_in_child=lambda: os.write(1, b'%d\\n' % os.getpid()))\n"
    )
    running = subprocess.Popen(
        [sys.executable, "-c", forks + INFO, "info", str(looping_file)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        process_group=0,
    )
    assert running.stdout is not None
    child = int(running.stdout.readline())
    os.killpg(running.pid, signal.SIGINT)
    _, error = running.communicate(timeout=30)
    assert (running.returncode, error) == (2, "jaxsnn: error: interrupted\n")
    state = Path(f"/proc/{child}/stat")
    assert not state.exists() or state.read_text().split()[2] == "Z"  # a zombie


def test_ctrl_c_while_the_child_begins_is_not_lost():
    script = """
import os
from jaxsnn.files.read_limits import ReadLimits
from jaxsnn.files.read_process import ReadProcess

os.register_at_fork(after_in_parent=lambda: os.kill(os.getpid(), signal.SIGINT))
try:
    with ReadProcess("x", lambda out: signal.pause(), ReadLimits(max_bytes=1, timeout=20)) as child:
        child.read(1)
except KeyboardInterrupt:
    print("interrupted")
try:
    os.waitpid(-1, os.WNOHANG)
except ChildProcessError:
    print("no child is left")
"""
    command = [sys.executable, "-c", LISTENING + script]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (done.stdout.split("\n"), done.stderr) == (["interrupted", "no child is left", ""], "")


def test_ctrl_c_that_comes_to_the_child_alone_is_no_crash(tmp_path):
    def work(out):
        os.kill(os.getpid(), signal.SIGINT)

    limits = ReadLimits(max_bytes=1, timeout=60)
    with ReadProcess(tmp_path, work, limits) as child, pytest.raises(KeyboardInterrupt):
        child.read(1)


def test_the_child_is_gone_when_its_parent_stops_early(tmp_path):
    with ReadProcess(
        tmp_path, lambda out: time.sleep(60), ReadLimits(max_bytes=1, timeout=60)
    ) as child:
        number = child._pid
    with pytest.raises(ProcessLookupError):
        os.kill(number, 0)


@pytest.mark.parametrize(
    ("work", "message"),
    [
        (
            lambda out: os.kill(os.getpid(), signal.SIGSEGV),
            r"HDF5 crashed while reading it \(SIGSEGV\)",
        ),
        (lambda out: os.kill(os.getpid(), signal.SIGKILL), "reading process was killed"),
        (lambda out: signal.raise_signal(signal.SIGXCPU), "was not read within 60 s"),
        (lambda out: None, "reading process was killed"),
    ],
)
def test_how_a_child_ended_is_said(work, message, tmp_path):
    limits = ReadLimits(max_bytes=1, timeout=60)
    with (
        ReadProcess(tmp_path / "a.nir", work, limits) as child,
        pytest.raises(FileError, match=message) as caught,
    ):
        child.read(1)
    assert caught.value.fix
    assert "a.nir" in str(caught.value)


def test_the_system_limits_the_memory_of_the_child(tmp_path):
    def work(out):
        try:
            np.ones(2**30 // 8)
        except MemoryError:
            out.write(b"refused")

    with ReadProcess(tmp_path, work, ReadLimits(max_bytes=2**20, timeout=60)) as child:
        assert child.read(7) == b"refused"


def test_text_that_many_share_does_not_grow_without_bound(tmp_path):
    """A hundred thousand pointers to one text of a megabyte: 1.6 MB on the disk, 100 GB decoded."""
    path = small(tmp_path / "many.nir")
    with h5py.File(path, "a") as file:
        file["node/text"] = np.array([b"x" * 2**20] + [b""] * 99_999, dtype=object)
        offset = file["node/text"].id.get_offset()
    data = bytearray(path.read_bytes())
    data[offset : offset + 16 * 100_000] = bytes(data[offset : offset + 16]) * 100_000
    path.write_bytes(data)
    assert_refused(
        lambda: read(path, read_timeout=60.0, max_bytes=2**21),
        FileError,
        r"needs more memory .* limit, 2097152 bytes",
        fix="max_bytes",
    )


# -- documents arrive unchanged


def as_sent(document):
    pipe = io.BytesIO()
    send(document, pipe)
    pipe.seek(0)

    class Child:
        read = staticmethod(pipe.read)

        @staticmethod
        def read_into(room):
            assert pipe.readinto(room) == len(room)

    return receive(Child, "a.nir")


def assert_handed_over(path, folder):
    """Fail unless a document is what its file holds after it went through a pipe."""
    document = as_sent(load(path))
    save(folder / "again.nir", document, force=True)
    assert entries_of(folder / "again.nir") == entries_of(path)
    with limit_reading(read_timeout=60.0):
        save(folder / "again.nir", read_nir(path), force=True)
    assert entries_of(folder / "again.nir") == entries_of(path)


def test_every_kind_of_entry_is_handed_over_as_it_is(tmp_path):
    path = small(tmp_path / "kinds.nir")
    with h5py.File(path, "a") as file:
        group = file.create_group("node/more")
        for kind in ("f2", ">f4", "<f8", "i1", ">u8", "?", "c8", "S5", "f16"):
            group[f"one {kind}"] = np.ones((2, 3), kind)
            group.attrs[f"of {kind}"] = np.ones(2, kind)
        group["empty"] = h5py.Empty("f4")
        group["none"] = np.zeros((0, 3))
        group["utf"] = np.array(["ä", "", "ccc"], dtype=h5py.string_dtype())
        group["fixed"] = np.array([b"ab"], dtype=h5py.string_dtype("utf-8", 4))
        group["number"] = 3.0
        group["enum"] = np.array([1], dtype=h5py.enum_dtype({"A": 1, "B": 2}, "i2"))
        group["pair"] = np.ones(2, [("a", "f4"), ("b", "i8", (2,))])
        group.create_dataset(
            "chunks",
            data=np.arange(12.0).reshape(3, 4),
            chunks=(2, 2),
            maxshape=(None, 4),
            compression="gzip",
            compression_opts=7,
            shuffle=True,
            fletcher32=True,
        )
        group.attrs["text"] = "ö"
        group.attrs["empty"] = h5py.Empty("i4")
        group["fixed"].attrs["note"] = ["a", "b"]
    assert_handed_over(path, tmp_path)


def test_real_files_are_handed_over_as_they_are(zoo, tmp_path):
    for path in list(zoo.values())[::10]:
        assert_handed_over(path, tmp_path)


# -- limits of bytes


@pytest.mark.parametrize("command", ["info", "draw -o g.dot", "map -o m.json", "check --for event"])
@pytest.mark.parametrize(
    ("limit", "message"),
    [
        (
            "100",
            "(96 bytes) its arrays exceed the limit of 100 bytes: if you trust the file, pass --max-bytes 160 or more",
        ),
        ("-3", "--max-bytes -3 is not a valid limit: pass a positive number"),
    ],
)
def test_every_command_takes_the_limits(command, limit, message, small_file, capsys, monkeypatch):
    monkeypatch.chdir(small_file.parent)
    name, *options = command.split()
    assert_cli_refused(capsys, name, small_file, *options, "--max-bytes", limit, says=message)


def test_the_bytes_that_are_needed_are_named(small_file):
    needed = 100
    for _ in range(20):  # each attempt reports one more array
        try:
            read(small_file, max_bytes=needed)
            break
        except FileError as error:
            before, needed = needed, int(error.fix.split("max_bytes=")[1].split()[0])
            assert needed > before
    assert read(small_file, max_bytes=needed)
    assert needed > 100


def test_the_environment_limits_the_bytes(tmp_path, monkeypatch):
    with h5py.File(tmp_path / "a.nir", "w") as file:
        file["node/weight"] = np.arange(8.0)
    monkeypatch.setenv("JAXSNN_MAX_BYTES", "60")
    says = r"weight \(64 bytes\) its arrays exceed the limit of 60 bytes"
    assert_refused(lambda: load(tmp_path / "a.nir"), FileError, says, fix="max_bytes=64")
    monkeypatch.setenv("JAXSNN_MAX_BYTES", "many")
    assert_refused(lambda: load(tmp_path / "a.nir"), UsageError, "JAXSNN_MAX_BYTES is 'many'")
    monkeypatch.setenv("JAXSNN_MAX_BYTES", "10000")
    assert load(tmp_path / "a.nir")["node"]


def test_no_folder_is_searched_for_filters(run_python):
    """HDF5 loads libraries from HDF5_PLUGIN_PATH unless that is switched off before it starts."""
    code = "import os, jaxsnn.nir.io.files; print(os.environ['HDF5_PLUGIN_PRELOAD'])"
    assert run_python(code).stdout.strip() == "::"


def test_limits_end_with_their_block():
    before = read_limits()
    with limit_reading(max_bytes=10, read_timeout=2.0):
        assert read_limits() == ReadLimits(max_bytes=10, timeout=2.0)
        with limit_reading(max_bytes=20):
            assert read_limits() == ReadLimits(max_bytes=20, timeout=2.0)
    assert read_limits() == before


def enormous(path, shape=(10**9, 300)):
    """An .npz of a few bytes whose header says more."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "<f8", "fortran_order": False, "shape": shape}
    )
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.npy", header.getvalue())
    return path


def test_arrays_that_their_header_makes_enormous_are_refused_before_they_have_room(tmp_path):
    path = enormous(tmp_path / "x.npz")
    message = r"array 'x': a header specifies 2400000000000 bytes for the array, and there are 0"
    assert_refused(lambda: load_arrays(path), FileError, message)


def test_a_limit_is_for_all_arrays_of_a_file(tmp_path):
    path = tmp_path / "y.npz"
    np.savez(path, a=np.ones(100), b=np.ones(100))
    with limit_reading(max_bytes=1000):
        assert_refused(lambda: load_arrays(path), FileError, r"with 'b' \(800 bytes\)")
    with limit_reading(max_bytes=1600):
        assert set(load_arrays(path)) == {"a", "b"}


@pytest.mark.parametrize("shape", [(-1,), (2**70,), (1.5,), ("a",)])
def test_shapes_that_are_none_are_refused(shape, tmp_path):
    path = enormous(tmp_path / "x.npz", shape)
    assert_refused(lambda: load_arrays(path), FileError)


NO_ARRAYS = r"is not an .npz file of arrays \(.+\): save it again"


# -- invalid files


@pytest.mark.parametrize("keep", [4, 60, 130, 340])
def test_an_array_that_ends_too_early_is_refused(keep, tmp_path):
    written, path = io.BytesIO(), tmp_path / "x.npz"
    np.save(written, np.arange(30.0))
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.npy", written.getvalue()[:keep])
    assert_refused(lambda: load_arrays(path), FileError, NO_ARRAYS)


def test_a_file_from_whose_middle_bytes_were_cut_is_refused(tmp_path):
    """`zipfile` meets the end of the file, and says nothing at all."""
    path, cut = tmp_path / "x.npz", 20000
    np.savez(path, x=np.arange(3000.0))
    data = bytearray(path.read_bytes())
    place, begin = data.index(b"PK\5\6") + 16, data.index(b"PK\1\2")
    data[place : place + 4] = (begin - cut).to_bytes(4, "little")
    path.write_bytes(data[: begin - cut] + data[begin:])
    assert_refused(lambda: load_arrays(path), FileError, NO_ARRAYS)


@pytest.mark.parametrize(
    "argv",
    [
        "info PIPE",
        "train NET --config PIPE -o out.nir --data yinyang",
        "run NET --input PIPE -o out.npz --t-end 1ms",
        "map NET --verify PIPE",
        "map NET -o m.json --slope PIPE.json",
        "verify NET --recording PIPE",
        "check PIPE --for event",
    ],
)
def test_pipes_are_not_waited_for(argv, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("PIPE", "PIPE.json"):
        os.mkfifo(tmp_path / name)
    small(tmp_path / "NET")
    assert_cli_refused(capsys, *argv.split(), says="is not a regular file")


def test_a_budget_counts_all_together():
    budget = ByteBudget("a", 10)
    budget.take("x", 6)
    assert_refused(
        lambda: budget.take("y", 5),
        FileError,
        r"with y \(5 bytes\) its arrays exceed the limit of 10 bytes",
    )


def test_reading_works_beside_other_threads(small_file, monkeypatch):
    graphs, alone, fork = [], threading.Lock(), os.fork

    def watched_fork():  # like that of filelock 4.3
        if not alone.acquire(blocking=False):
            raise RuntimeError("another thread forks")
        time.sleep(0.05)
        child = fork()
        alone.release()
        return child

    monkeypatch.setattr(os, "fork", watched_fork)
    threads = [
        threading.Thread(target=lambda: graphs.append(read(small_file, read_timeout=60.0)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(graphs) == 4
    assert json.dumps(graphs[0].order())


def test_without_a_process_the_file_is_refused_and_nothing_stays_open(small_file, monkeypatch):
    def no_fork():
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    before = len(os.listdir("/dev/fd"))
    monkeypatch.setattr(os, "fork", no_fork)
    message = r"the reading process cannot be started \(Resource temporarily"
    assert_refused(lambda: read(small_file, read_timeout=5.0), FileError, message)
    assert len(os.listdir("/dev/fd")) == before


def test_a_handler_that_comes_at_a_fork_may_read(small_file, monkeypatch):
    graphs, signals, fork = [], [], os.fork

    def interrupted_fork():
        if not signals:
            signals.append(signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)
        return fork()

    monkeypatch.setattr(os, "fork", interrupted_fork)
    before = signal.signal(
        signal.SIGINT, lambda *_: graphs.append(read(small_file, read_timeout=5.0))
    )
    try:
        read(small_file, read_timeout=5.0)
    finally:
        signal.signal(signal.SIGINT, before)
    assert len(graphs) == 1


@contextmanager
def another_in_its_fork(path, monkeypatch):
    """A thread that reads stands in the midst of its fork."""
    fork, begun, go_on = os.fork, threading.Event(), threading.Event()

    def slow_fork():
        begun.set()
        go_on.wait(10.0)
        return fork()

    reader = threading.Thread(target=lambda: read(path, read_timeout=20.0))
    with monkeypatch.context() as patched:
        patched.setattr(os, "fork", slow_fork)
        reader.start()
        begun.wait(10.0)
    yield
    go_on.set()
    reader.join()


def test_a_child_forked_while_another_thread_forks_may_read(small_file, monkeypatch):
    with another_in_its_fork(small_file, monkeypatch):
        child = os.fork()
        if child == 0:
            status = 1
            try:
                read(small_file, read_timeout=5.0)
                status = 0
            finally:
                os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_who_waits_for_the_turn_to_fork_waits_no_longer_than_the_limit(small_file, monkeypatch):
    with (
        another_in_its_fork(small_file, monkeypatch),
        pytest.raises(FileError, match=r"was not read within 0\.1 s"),
    ):
        read(small_file, read_timeout=0.1)


@pytest.mark.parametrize(
    ("limits", "shown"),
    [
        ({"max_bytes": "1 GiB"}, 'max_bytes="1 GiB"'),
        ({"read_timeout": "soon"}, 'read_timeout="soon"'),
        ({"read_timeout": 0}, "read_timeout=0"),
        ({"read_timeout": float("nan")}, "read_timeout=nan"),
        ({"max_bytes": float("inf")}, "max_bytes=inf"),
    ],
)
def test_limits_that_limit_nothing_are_refused(limits, shown):
    assert_refused(limit_reading(**limits).__enter__, UsageError, f"{shown} is not a valid limit")
