"""Faults injected into every command that writes: at each call that changes the disk (opens, writes,
flushes, closes, names or removes a file, or makes or removes a folder), errors of the disk (EIO,
ENOSPC), a disk that fails from then on, an interrupt, and a stop of the machine.

    python -m tests.faults.injected [--write docs/reliability.md]

A stop is what lies in the folder at that moment: a process that is killed there leaves just that. A
file counts as torn where it is neither what was there nor what the whole command writes, as lost
where nothing is left of it; files that belong together count as torn where some are new and others
not, in a stop where the one that counts is new and another is not. Temporary files that remain are
reported where a warning names them, else left behind.

Of a command whose files are complete the exit code has to be 0, unless it was interrupted; of
another the first failure has to be in its message, not one of the clean-up.
"""

import argparse
import builtins
import contextlib
import dataclasses
import errno
import functools
import io
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import numpy as np

from jaxsnn import output
from jaxsnn.commands import arguments as command_arguments
from jaxsnn.commands import demo_command
from jaxsnn.commands.cli import main as command_line
from jaxsnn.nir import build, write
from jaxsnn.nir.initializers import normal
from jaxsnn.train.loop import checkpoint
from jaxsnn.train.loop.checkpoint import unsealed

BEGIN, END = "<!-- faults -->", "<!-- end of faults -->"
_OLD = b"what was there before\n"
FAILING = "failing disk"
KINDS = {
    "EIO": lambda number: OSError(errno.EIO, f"Input/output error {number}"),
    "ENOSPC": lambda number: OSError(errno.ENOSPC, f"No space left on device {number}"),
    FAILING: lambda number: OSError(errno.EIO, f"Input/output error {number}"),
    "interrupt": lambda number: KeyboardInterrupt(),
}
#: Functions of `os` that change the disk, or close what was opened for that.
CALLS = (
    *("open", "close", "fsync", "link", "replace", "rename", "unlink", "mkdir", "rmdir", "chmod"),
)
#: Last bytes of whole files of JSON, HTML and JUnit XML.
_ENDS = (b"}", b"</html>", b"</testsuite>")
#: Modules through which the package calls them.
_BETWEEN = ("pathlib", "shutil", "tempfile", "contextlib", "functools")
_CLEAN_UP = ("unlink", "rmdir")
#: Parts of the package that read, use pipes or build kernels, which have tests of their own.
_NO_DISK = ("jaxsnn.files.", "jaxsnn.event.native.", "jaxsnn.train.loop.parallel")


def _is_of_the_package():
    """Whether a function of the package that writes has made the call."""
    frame = sys._getframe(2)
    while (name := frame.f_globals.get("__name__", "")) in _BETWEEN:
        frame = frame.f_back
    return name.startswith("jaxsnn.") and not name.startswith(_NO_DISK)


class Points:
    """Counts the calls that change the disk, and fails at one of them, or looks at each; with `lasting`
    all later ones fail, too.
    """

    def __init__(
        self, fail_at=0, error=None, look: Callable[[], None] | None = None, lasting=False
    ):
        self.count, self.fail_at, self.error, self.look = 0, fail_at, error, look
        self.lasting, self.process = lasting, os.getpid()
        self.failing_calls: list[str] = []

    def at(self, name: str) -> None:
        if os.getpid() != self.process:  # in a process that only reads
            return
        self.count += 1
        if self.look is not None:
            self.look()
        if self.count == self.fail_at or (self.lasting and self.count > self.fail_at):
            assert self.error is not None
            self.failing_calls.append(name)
            raise self.error(self.count)

    @contextlib.contextmanager
    def active(self):
        points, before = self, {name: getattr(os, name) for name in CALLS}

        class File:
            """Half of what is written arrives before the point."""

            def __init__(self, file):
                self.file = file

            def __getattr__(self, name):
                return getattr(self.file, name)

            def write(self, data):
                self.file.write(data[: len(data) // 2])
                self.file.flush()
                points.at("write")
                return self.file.write(data[len(data) // 2 :])

            def close(self):
                """The file is closed also where that fails."""
                self.file.close()
                points.at("close")

        def opened(*arguments, **keywords):
            points.at("open")
            return File(builtins.open(*arguments, **keywords))

        def before_it(name):
            def call(*arguments, **keywords):
                if not _is_of_the_package():
                    return before[name](*arguments, **keywords)
                if name != "close":
                    points.at(name)
                    return before[name](*arguments, **keywords)
                before[name](*arguments, **keywords)
                return points.at(name)

            return call

        for module in (output, checkpoint):
            module.open = opened  # pyright: ignore[reportAttributeAccessIssue]
        for name in before:
            setattr(os, name, before_it(name))
        try:
            yield
        finally:
            for name, function in before.items():
                setattr(os, name, function)
            for module in (output, checkpoint):
                del module.open


@dataclasses.dataclass(frozen=True, kw_only=True)
class Subject:
    """A command that writes.

    Attributes:
        argv: its arguments.
        files: what it writes, the one that counts last.
        folder: of more files, which are found by running it; "" for none.
        checkpoint: the folder of checkpoints; "" for none.
        every: of the points only each so many-th fails; stops are looked at in all.
        together: the files appear together; else each is whole or not there by itself.
        timed: files that say how long something took, so that two runs write other bytes: one that
            ends as it should is whole.
    """

    argv: tuple[str, ...]
    files: tuple[str, ...]
    folder: str = ""
    checkpoint: str = ""
    every: int = 1
    together: bool = True
    timed: tuple[str, ...] = ()


def _prepare(folder):
    """What the commands read."""
    neurons = build.cubalif(tau_mem=10e-3, tau_syn=5e-3)
    layers = [
        build.linear(4, weight=normal(1.0, 0.5)),
        neurons,
        build.linear(2, weight=normal(0.5, 0.5)),
        neurons,
    ]
    write(folder / "net.nir", build.sequential(build.input(2), *layers, seed=0))
    layers[0], layers[2] = (
        build.linear(size, weight=normal(mean, 0.5)) for size, mean in ((6, 4.0), (2, 2.0))
    )
    write(folder / "train.nir", build.sequential(build.input(2), *layers, seed=0))
    times = np.array([[1e-3, 2e-3], [3e-3, 4e-3]])
    np.savez(folder / "x.npz", **{"input.time": times, "input.index": np.array([[0, 1], [1, 0]])})
    rng = np.random.default_rng(0)
    data = {f"x_{part}": rng.random((size, 2)) for part, size in (("train", 40), ("test", 8))}
    labels = {f"y_{part}": np.arange(size) % 2 for part, size in (("train", 40), ("test", 8))}
    np.savez(folder / "data.npz", **data, **labels)
    assert _quiet(["map", "net.nir", "-o", "made.json"])[0] == 0
    x = (rng.random((6, 2, 2)) < 0.4).astype(float)
    np.savez(folder / "steps.npz", x=x)
    stepped = ["run", "net.nir", "--input", "steps.npz", "-o", "y.npz", "--engine", "grid", *_NORSE]
    assert _quiet(stepped)[0] == 0
    with np.load(folder / "y.npz") as y:
        np.savez(folder / "recorded.npz", **{"input.x": x}, **y)


#: Options with which the network is simulated in time steps.
_NORSE = ("--dialect", "norse", "--dt", "1ms", "--dt-export", "1ms")
_TRAINED = ("--data", "data.npz", "-o", "OUT.nir", "--epochs", "1", "--batch-size", "16")
SUBJECTS = {
    "convert": Subject(
        argv=("convert", "net.nir", "OUT.nir", "--to", "norse", "--to-dt", "1ms", "--approximate"),
        files=("OUT.nir",),
    ),
    "draw": Subject(argv=("draw", "net.nir", "-o", "OUT.svg"), files=("OUT.svg",)),
    "map": Subject(
        argv=("map", "net.nir", "-o", "OUT.json", "--svg", "OUT.svg"), files=("OUT.svg", "OUT.json")
    ),
    "deploy": Subject(
        argv=("deploy", "net.nir", "made.json", "-o", "OUT"),
        files=(),
        folder="OUT",
        every=9,
    ),
    "run": Subject(
        argv=("run", "net.nir", "--input", "x.npz", "-o", "OUT.npz", "--t-end", "20ms"),
        files=("OUT.npz",),
        every=2,
    ),
    "emulate": Subject(
        argv=(
            "emulate",
            "net.nir",
            "made.json",
            "--input",
            "x.npz",
            "-o",
            "OUT.npz",
            "--t-end",
            "20ms",
            "--ideal",
        ),
        files=("OUT.npz",),
        every=2,
    ),
    "chip inputs": Subject(
        argv=("chip", "inputs", "net.nir", "--data", "data.npz", "-o", "OUT.npz"),
        files=("OUT.npz",),
    ),
    "plot": Subject(
        argv=("plot", "net.nir", "-o", "OUT.svg", "--kind", "weights"), files=("OUT.svg",)
    ),
    "verify": Subject(
        argv=("verify", "net.nir", "--recording", "recorded.npz", "--report", "OUT.html", *_NORSE),
        files=("OUT.html",),
        every=2,
    ),
    "fidelity": Subject(
        argv=("fidelity", "net.nir", "--input", "steps.npz", "--report", "OUT.html", *_NORSE),
        files=("OUT.html",),
        every=2,
    ),
    "map --report": Subject(
        argv=("map", "net.nir", "-o", "OUT.json", "--report", "OUT.html"),
        files=("OUT.json", "OUT.html"),
        together=False,
        timed=("OUT.html",),
        every=2,
    ),
    "tune": Subject(
        argv=("tune", "train.nir", *_TRAINED, *_NORSE),
        files=("OUT.nir",),
        every=4,
    ),
    "train": Subject(
        argv=("train", "train.nir", *_TRAINED),
        files=("OUT.history.json", "OUT.nir"),
        checkpoint="OUT.checkpoint",
        every=12,
    ),
    "train --report": Subject(
        argv=("train", "train.nir", *_TRAINED, "--report", "OUT.html"),
        files=("OUT.history.json", "OUT.nir", "OUT.html"),
        checkpoint="OUT.checkpoint",
        every=36,
        together=False,
    ),
    "conformance": Subject(
        argv=(
            *("conformance", "tests.conformance.faulty:CONFORMING", "--report", "OUT.html"),
            *("--only", "export/LIF/per neuron/one layer", "--junit", "OUT.xml"),
        ),
        files=("OUT.xml", "OUT.html"),
        together=False,
        timed=("OUT.xml", "OUT.html"),
        every=2,
    ),
    "demo": Subject(
        argv=("demo", "-o", "OUT", "--epochs", "1", "--report", "OUT.html"),
        files=("OUT.html",),
        folder="OUT",
        timed=("OUT/report.json", "OUT.html"),
        every=60,
        together=False,
    ),
}
QUICK = ("convert", "draw", "map", "deploy")


def _quiet(argv):
    code, err, _ = _outcome(argv)
    return code, err


def _outcome(argv):
    """Exit code, text on stderr, and the notes, which quiet commands do not print."""
    out, err, notes = io.StringIO(), io.StringIO(), []
    add_notes = command_arguments.add_notes

    def spy(arguments, remarks):
        remarks = [*remarks]
        notes.extend(map(str, remarks))
        add_notes(arguments, remarks)

    with (
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        mock.patch.object(command_arguments, "add_notes", spy),
    ):
        code = command_line([*argv, "-q"])
    return code, err.getvalue(), "\n".join(notes)


def _reset(subject, force):
    """The folder as it is before the command."""
    for path in Path.cwd().glob("*OUT*"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    for path in Path.cwd().glob(".*"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    if force:
        for name in subject.files:
            Path(name).parent.mkdir(exist_ok=True)
            Path(name).write_bytes(_OLD)


def _state(subject, folder=None):
    """The bytes of each file, None where there is none."""
    contents = []
    for name in subject.files:
        path = Path(folder or ".") / name
        content = path.read_bytes() if path.exists() else None
        if content and name in subject.timed and content.rstrip().endswith(_ENDS):
            content = b"whole"
        contents.append(content)
    return contents


@dataclasses.dataclass(kw_only=True)
class Count:
    """What was injected into one command, and what came of it."""

    points: int = 0
    faults: dict[str, int] = dataclasses.field(default_factory=dict)
    torn: list[str] = dataclasses.field(default_factory=list)
    lost: list[str] = dataclasses.field(default_factory=list)
    reported: list[str] = dataclasses.field(default_factory=list)
    left_behind: list[str] = dataclasses.field(default_factory=list)


def _judge(subject, contents, force, new, count, fault, notes=""):
    """Count what is torn or lost among files that should be all old or all new; on a disk that fails
    from then on nothing can be restored, which a note has to say of each file.
    """
    old = [_OLD if force else None] * len(contents)
    for name, content, before, after in zip(subject.files, contents, old, new, strict=True):
        if force and content is None:
            count.lost.append(f"{fault}: {name}")
        elif content not in (before, after):
            count.torn.append(f"{fault}: {name}")
    if not subject.together:
        return
    if contents not in (old, new) and not fault.startswith("stop"):
        changed = [
            name
            for name, content, before in zip(subject.files, contents, old, strict=True)
            if content != before
        ]
        is_reported = all(f"{name} has its new content" in notes for name in changed)
        if fault.startswith(FAILING) and is_reported:
            count.reported += [f"{fault}: {name}" for name in changed]
        else:
            count.torn.append(f"{fault}: some are new")
    elif contents[-1] == new[-1] and contents != new:
        count.torn.append(f"{fault}: the one that counts came first")


def _judge_checkpoint(subject, folder, count, fault):
    """A folder of checkpoints is empty, or one of its generations is whole."""
    if not subject.checkpoint:
        return
    there = [
        path
        for name in ("last.npz", "before.npz")
        if (path := folder / subject.checkpoint / name).exists()
    ]
    for path in there:
        try:
            unsealed(path)
        except Exception as error:
            count.torn.append(f"{fault}: {error}")


def _inject(subject, argv, kind, number, force, new, count):
    """One fault, at one of the points."""
    error = KINDS[kind]
    points = Points(number, error, lasting=kind == FAILING)
    with points.active():
        code, err, notes = _outcome(argv)
    fault = f"{kind} {number} force={force}"
    count.faults[kind] = count.faults.get(kind, 0) + 1
    _judge(subject, _state(subject), force, new, count, fault, notes)
    _judge_checkpoint(subject, Path.cwd(), count, fault)
    done = _state(subject) == new
    assert code == (0 if done else 2) or (kind == "interrupt" and code == 2), (fault, code, err)
    if code == 2 and kind == "interrupt":
        assert "interrupted" in err, (fault, err)
    elif code == 2:
        # Flushing a folder and hard links may fail without consequences. Thus, on a disk that fails
        # from then on, the error may be that of a later call, but not one of the clean-up.
        calls = enumerate(points.failing_calls)
        reasons = [error(number + later).strerror for later, call in calls if call not in _CLEAN_UP]
        assert any(f"({reason})" in err for reason in reasons), (fault, err, calls)
    assert "unexpected" not in err, (fault, err)
    assert err.count("\n") <= 1, err
    for path in Path.cwd().rglob(".*"):
        is_reported = str(path.relative_to(Path.cwd())) in notes
        remaining = count.reported if is_reported else count.left_behind
        remaining.append(f"{fault}: {path}")


def injected(name):
    """All faults of one command, with nothing there before and with old files and force."""
    subject, count = SUBJECTS[name], Count()
    if subject.folder:
        _reset(subject, force=False)
        assert _quiet(subject.argv)[0] == 0
        file_names = sorted(path.name for path in Path(subject.folder).iterdir())
        ordered = sorted(file_names, key=lambda file_name: (file_name == "network.json", file_name))
        files = tuple(f"{subject.folder}/{file_name}" for file_name in ordered)
        subject = dataclasses.replace(subject, files=(*files, *subject.files))
    for force in (False, True):
        argv = [*subject.argv, *(["--force"] if force else [])]
        _reset(subject, force)
        code, err = _quiet(argv)
        assert code == 0, err
        new = _state(subject)
        _reset(subject, force)
        looks = []

        def look(looks=looks):
            folder = Path(tempfile.mkdtemp())
            shutil.copytree(".", folder, dirs_exist_ok=True)
            looks.append(folder)

        looked = Points(look=look)
        with looked.active():
            outcome = _quiet(argv)
        assert outcome[0] == 0, outcome
        count.points += looked.count
        for number, folder in enumerate(looks, 1):
            fault = f"stop {number}"
            _judge(subject, _state(subject, folder), force, new, count, fault)
            _judge_checkpoint(subject, folder, count, fault)
            count.faults["stop"] = count.faults.get("stop", 0) + 1
            shutil.rmtree(folder)
        for kind in KINDS:
            for number in range(1, looked.count + 1, subject.every):
                _reset(subject, force)
                _inject(subject, argv, kind, number, force, new, count)
    return count


def all_injected(commands=tuple(SUBJECTS)):
    """Counts by command."""
    counts, before = {}, Path.cwd()
    demo = functools.partial(demo_command.demo, sizes=(200, 64, 64))
    with (
        tempfile.TemporaryDirectory() as folder,
        mock.patch.object(demo_command, "demo", demo),  # with fewer points, for speed
    ):
        os.chdir(folder)
        try:
            _prepare(Path(folder))
            for name in commands:
                counts[name] = injected(name)
                sys.stderr.write(f"{_row(name, counts[name])}\n")
        finally:
            os.chdir(before)
    return counts


def _numbers(count):
    """The last columns of the table."""
    lists = (count.torn, count.lost, count.reported, count.left_behind)
    return [sum(count.faults.values()), *map(len, lists)]


def _row(name, count):
    """A row of the table."""
    cells = [count.points, *(count.faults[kind] for kind in (*KINDS, "stop")), *_numbers(count)]
    return f"| `{name}` | {' | '.join(map(str, cells))} |"


def table(counts):
    """The counts as a table of Markdown."""
    kinds = [*KINDS, "stop"]
    lines = [
        f"| command | points | {' | '.join(kinds)} | faults | torn | lost | reported | left behind |",
        "|---" * (len(kinds) + 7) + "|",
    ]
    lines += [_row(name, count) for name, count in counts.items()]
    total = [sum(column) for column in zip(*map(_numbers, counts.values()), strict=True)]
    lines.append(f"| all | {' | ' * len(kinds)} | {' | '.join(map(str, total))} |")
    return "\n".join(lines)


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", type=Path)
    parser.add_argument("--only", nargs="*", default=list(SUBJECTS))
    arguments = parser.parse_args(argv)
    counts = all_injected(arguments.only)
    text = table(counts)
    sys.stdout.write(text + "\n")
    for name, count in counts.items():
        for damage in (*count.torn, *count.lost, *count.left_behind):
            sys.stdout.write(f"{name}: {damage}\n")
    if arguments.write is not None:
        page = arguments.write.read_text()
        start, end = page.index(BEGIN) + len(BEGIN), page.index(END)
        arguments.write.write_text(f"{page[:start]}\n\n{text}\n\n{page[end:]}")


if __name__ == "__main__":
    main()
