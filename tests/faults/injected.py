"""Faults injected into every command that writes: at each call that opens, writes, flushes or names a
file, errors of the disk (EIO, ENOSPC), an interrupt, and a stop of the machine.

    python -m tests.faults.injected [--write docs/reliability.md]

A stop is what lies in the folder at that moment: a process that is killed there leaves just that. A
file counts as torn where it is neither what was there nor what the whole command writes, as lost
where nothing is left of it; files that belong together count as torn where some are new and others
not, in a stop where the one that counts is new and another is not.
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
from jaxsnn.commands import demo_command
from jaxsnn.commands.cli import main as command_line
from jaxsnn.nir import build, write
from jaxsnn.nir.initializers import normal
from jaxsnn.train.loop import checkpoint
from jaxsnn.train.loop.checkpoint import unsealed

BEGIN, END = "<!-- faults -->", "<!-- end of faults -->"
_OLD = b"what was there before\n"
KINDS = {
    "EIO": lambda: OSError(errno.EIO, "Input/output error"),
    "ENOSPC": lambda: OSError(errno.ENOSPC, "No space left on device"),
    "interrupt": KeyboardInterrupt,
}


class Points:
    """Counts the calls that change the disk, and fails at one of them, or looks at each."""

    def __init__(self, fail_at=0, error=None, look: Callable[[], None] | None = None):
        self.count, self.fail_at, self.error, self.look = 0, fail_at, error, look

    def at(self) -> None:
        self.count += 1
        if self.look is not None:
            self.look()
        if self.count == self.fail_at:
            assert self.error is not None
            raise self.error()

    @contextlib.contextmanager
    def active(self):
        points, before = (
            self,
            {name: getattr(os, name) for name in ("fsync", "link", "replace", "rename")},
        )

        class File:
            """Half of what is written arrives before the point."""

            def __init__(self, file):
                self.file = file

            def __getattr__(self, name):
                return getattr(self.file, name)

            def __enter__(self):
                return self

            def __exit__(self, *_):
                self.file.close()

            def write(self, data):
                self.file.write(data[: len(data) // 2])
                self.file.flush()
                points.at()
                return self.file.write(data[len(data) // 2 :])

        def opened(*arguments, **keywords):
            points.at()
            return File(builtins.open(*arguments, **keywords))

        def before_it(name):
            def call(*arguments, **keywords):
                points.at()
                return before[name](*arguments, **keywords)

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
        every=3,
    ),
    "run": Subject(
        argv=("run", "net.nir", "--input", "x.npz", "-o", "OUT.npz", "--t-end", "20ms"),
        files=("OUT.npz",),
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
    ),
    "fidelity": Subject(
        argv=("fidelity", "net.nir", "--input", "steps.npz", "--report", "OUT.html", *_NORSE),
        files=("OUT.html",),
    ),
    "map --report": Subject(
        argv=("map", "net.nir", "-o", "OUT.json", "--report", "OUT.html"),
        files=("OUT.json", "OUT.html"),
        together=False,
    ),
    "tune": Subject(
        argv=("tune", "train.nir", *_TRAINED, *_NORSE),
        files=("OUT.nir",),
    ),
    "train": Subject(
        argv=("train", "train.nir", *_TRAINED),
        files=("OUT.history.json", "OUT.nir"),
        checkpoint="OUT.checkpoint",
        every=3,
    ),
    "train --report": Subject(
        argv=("train", "train.nir", *_TRAINED, "--report", "OUT.html"),
        files=("OUT.history.json", "OUT.nir", "OUT.html"),
        checkpoint="OUT.checkpoint",
        every=9,
        together=False,
    ),
    "demo": Subject(
        argv=("demo", "-o", "OUT", "--epochs", "1", "--report", "OUT.html"),
        files=("OUT.html",),
        folder="OUT",
        timed=("OUT/report.json", "OUT.html"),
        every=24,
        together=False,
    ),
}
QUICK = ("convert", "draw", "map", "deploy")


def _quiet(argv):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = command_line([*argv, "-q"])
    return code, err.getvalue()


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
        if content and name in subject.timed and content.rstrip().endswith((b"}", b"</html>")):
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
    left_behind: list[str] = dataclasses.field(default_factory=list)


def _judge(subject, contents, force, new, count, fault):
    """Count what is torn or lost among files that should be all old or all new."""
    old = [_OLD if force else None] * len(contents)
    for name, content, before, after in zip(subject.files, contents, old, new, strict=True):
        if force and content is None:
            count.lost.append(f"{fault}: {name}")
        elif content not in (before, after):
            count.torn.append(f"{fault}: {name}")
    if not subject.together:
        return
    if contents not in (old, new) and not fault.startswith("stop"):
        count.torn.append(f"{fault}: some are new")
    if contents[-1] == new[-1] and contents != new:
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

        points = Points(look=look)
        with points.active():
            assert _quiet(argv)[0] == 0
        count.points += points.count
        for number, folder in enumerate(looks, 1):
            fault = f"stop {number}"
            _judge(subject, _state(subject, folder), force, new, count, fault)
            _judge_checkpoint(subject, folder, count, fault)
            count.faults["stop"] = count.faults.get("stop", 0) + 1
            shutil.rmtree(folder)
        for kind, error in KINDS.items():
            for number in range(1, points.count + 1, subject.every):
                _reset(subject, force)
                with Points(number, error).active():
                    code, err = _quiet(argv)
                fault = f"{kind} {number} force={force}"
                count.faults[kind] = count.faults.get(kind, 0) + 1
                _judge(subject, _state(subject), force, new, count, fault)
                _judge_checkpoint(subject, Path.cwd(), count, fault)
                # A failed flush of the folder is not reported as an error: the file exists.
                done = _state(subject) == new
                assert done if code == 0 else code == 2, (fault, code, err)
                assert "unexpected" not in err, (fault, err)
                assert err.count("\n") <= 1, err
                hidden_files = [str(path) for path in Path.cwd().rglob(".*")]
                count.left_behind += [f"{fault}: {path}" for path in hidden_files]
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
                sys.stderr.write(f"{name}: {sum(counts[name].faults.values())} faults\n")
        finally:
            os.chdir(before)
    return counts


def table(counts):
    """The counts as a table of Markdown."""
    kinds = [*KINDS, "stop"]
    lines = [
        f"| command | points | {' | '.join(kinds)} | faults | torn | lost | left behind |",
        "|---" * (len(kinds) + 6) + "|",
    ]
    total = [0] * 4
    for name, count in counts.items():
        numbers = [
            sum(count.faults.values()),
            len(count.torn),
            len(count.lost),
            len(count.left_behind),
        ]
        total = [subtotal + number for subtotal, number in zip(total, numbers, strict=True)]
        cells = [count.points, *(count.faults[kind] for kind in kinds), *numbers]
        lines.append(f"| `{name}` | {' | '.join(map(str, cells))} |")
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
