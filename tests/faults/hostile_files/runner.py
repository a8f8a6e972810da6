"""Reads hostile files in processes of their own, with the time and the memory that each took.

A server imports the package once, and forks a process for each file. It stops a process that exceeds
its bounds, so that a defect harms neither the machine nor the other tests.

    python -m tests.faults.hostile_files.runner [NAME ...]

reads the files whose names contain NAME, all by default, and prints what is wrong.
"""

import contextlib
import io
import json
import os
import pkgutil
import re
import resource
import select
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path

from jaxsnn.commands import cli
from jaxsnn.errors import JaxsnnError
from tests.faults.hostile_files.case import BESIDES, SECONDS, HostileFile, write_companions
from tests.faults.hostile_files.readers import COMMANDS, FUNCTIONS

_KIBIBYTE, _MEBIBYTE = 2**10, 2**20
#: Bytes beyond its bound at which a process is stopped.
_STOPPED_AT = 2**28
#: Seconds between two looks at a process.
_POLL = 0.05


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came of reading a file.

    Attributes:
        exit_code: exit code of the command, or of the error class; None if the process ended by itself
            or was stopped.
        code: code of the error.
        text: the error as it is printed.
        unexpected: error that is not the package's, or how the process ended; "" if there is none.
        seconds: processor time, including that of reading processes.
        idle: seconds in which nothing was computed, as in waiting for a pipe.
        size: bytes of memory beyond those at the start, including those of reading processes.
    """

    exit_code: int | None = None
    code: str = ""
    text: str = ""
    unexpected: str = ""
    seconds: float = 0.0
    idle: float = 0.0
    size: int = 0

    def defects(self, hostile: HostileFile) -> list[str]:
        """What is wrong with the outcome: empty if the file was refused as it should be."""
        if self.unexpected:
            return [self.unexpected]
        if not self.text:
            return [f"not refused (exit code {self.exit_code})"]
        defects = []
        expected = (1, 2) if hostile.exit_code < 0 else (hostile.exit_code,)
        if self.exit_code not in expected or self.code in ("unexpected", "memory"):
            defects.append(f"exit code {self.exit_code}, code '{self.code}'")
        if "\n" in self.text:
            defects.append("more than one line")
        defects += [
            f"no {word!r}"
            for word in hostile.words
            if not re.search(word, self.text, re.IGNORECASE)
        ]
        bound = hostile.max_bytes + BESIDES
        if self.size > bound:
            defects.append(
                f"{self.size / _MEBIBYTE:.0f} MiB, more than {bound / _MEBIBYTE:.0f} MiB"
            )
        if max(self.seconds, self.idle) > SECONDS:
            defects.append(f"{self.seconds:.1f} s of computing, {self.idle:.1f} s of waiting")
        return [*defects, self.text] if defects else []


class ReadingServer:
    """A process that reads hostile files; a context.

    Args:
        folder: folder for the files that commands read beside a hostile one.
    """

    def __init__(self, folder: Path):
        write_companions(folder)
        self._process = subprocess.Popen(
            [sys.executable, "-c", f"from {__spec__.name} import serve; serve()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        self.companions = folder

    def __enter__(self):
        return self

    def __exit__(self, *_):
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(60)

    def outcome(self, hostile: HostileFile, folder: Path) -> Outcome:
        """Write a hostile file into an empty folder, and read it."""
        hostile.write(folder / hostile.path)
        request = {
            "reader": hostile.reader,
            "path": hostile.path,
            "folder": str(folder),
            "companions": str(self.companions),
            "max_bytes": hostile.max_bytes,
        }
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return Outcome(**json.loads(self._process.stdout.readline()))


# -- the server


def _import_all():
    """Import what readers import when they are used, so that forked processes need not."""
    import jaxsnn

    for module in pkgutil.walk_packages(jaxsnn.__path__, "jaxsnn."):
        if (
            ".scripts" not in module.name
            and "torch" not in module.name
            and "__main__" not in module.name
        ):
            import_module(module.name)
    for name in (
        "matplotlib.backends.backend_svg",
        "matplotlib.figure",
        "PIL.PngImagePlugin",
    ):
        with contextlib.suppress(ImportError):
            import_module(name)


def serve():
    """Answer requests, a line of JSON each, until the input ends."""
    _import_all()
    # Nothing of what imports print may come between the answers, nor what forked processes print.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    for line in sys.stdin:
        answers.write(json.dumps(asdict(_forked(json.loads(line)))) + "\n")
        answers.flush()


def _forked(request) -> Outcome:
    """The outcome of a request in a process of its own."""
    source, target = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(source)
            os.setpgid(0, 0)
            with os.fdopen(target, "w") as answer:
                answer.write(json.dumps(asdict(_read(request))))
        finally:
            os._exit(0)
    os.close(target)
    bound = request["max_bytes"] + BESIDES + _STOPPED_AT
    base, content, reason, idle = _memory(os.getpid()), b"", "", 0.0
    while not reason:
        ready, _, _ = select.select([source], [], [], _POLL)
        if ready:
            part = os.read(source, 2**16)
            content += part
            if not part:
                break
            continue
        processes = (child, *_children(child))
        # On a busy machine a process may wait for its turn: only sleep counts.
        idle += 0.0 if any(_state(process) == "R" for process in processes) else _POLL
        computing = sum(map(_computing, processes))
        size = sum(max(_memory(process) - base, 0) for process in processes)
        if size > bound:
            reason = f"stopped at more than {bound / _MEBIBYTE:.0f} MiB"
        elif max(idle, computing) > SECONDS + 1:
            reason = f"stopped after {computing:.0f} s of computing and {idle:.0f} s of waiting"
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)
    os.close(source)
    _, status, _ = os.wait4(child, 0)
    if reason or not content:
        ending = os.waitstatus_to_exitcode(status)
        return Outcome(unexpected=reason or f"the process ended ({ending})", idle=idle)
    return Outcome(**json.loads(content) | {"idle": idle})


def _memory(process: int) -> int:
    """Resident bytes of a process; 0 where that is not known."""
    with contextlib.suppress(OSError, IndexError, ValueError):
        return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * resource.getpagesize()
    return 0


def _stat(process: int) -> list[str]:
    """Fields of /proc/PID/stat from the state on."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return []


def _state(process: int) -> str:
    return next(iter(_stat(process)), "")


def _computing(process: int) -> float:
    """Seconds of processor time."""
    return sum(map(int, _stat(process)[11:13])) / os.sysconf("SC_CLK_TCK")


def _children(process: int) -> list[int]:
    with contextlib.suppress(OSError):
        return [
            int(text)
            for text in Path(f"/proc/{process}/task/{process}/children").read_text().split()
        ]
    return []


def _peak(who: int) -> int:
    return resource.getrusage(who).ru_maxrss * _KIBIBYTE


def _read(request) -> Outcome:
    """Read a file in this process, and return what came of it."""
    os.chdir(request["folder"])
    os.environ["JAXSNN_MAX_BYTES"] = str(request["max_bytes"])
    for number in (0, 1, 2):
        os.dup2(os.open(os.devnull, os.O_RDWR), number)
    base = _peak(resource.RUSAGE_SELF)
    facts = {}
    try:
        facts = _facts(request)
    except JaxsnnError as error:
        facts = {"exit_code": error.exit_code, "code": error.problem.code, "text": str(error)}
    except BaseException as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        text = f"{type(error).__name__}: {str(error)[:300]}"
        facts = {"unexpected": f"{text} ({Path(place.filename).name}:{place.lineno})"}
    children = _peak(resource.RUSAGE_CHILDREN)
    size = _peak(resource.RUSAGE_SELF) - base + max(children - base, 0)
    return Outcome(**facts, size=size, seconds=sum(os.times()[:4]))


def _facts(request):
    if request["reader"] in FUNCTIONS:
        FUNCTIONS[request["reader"]](request["path"])
        return {}
    companions = request["companions"]
    argv = [
        word.format(file=request["path"], companions=companions)
        for word in COMMANDS[request["reader"]].split()
    ]
    stdout, stderr = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr):
        exit_code = cli.main([*argv, "--json", "--read-timeout", "15s"])
    document = json.loads(stdout.getvalue() or "{}")
    if "error" in document:
        text = stderr.getvalue().rstrip("\n").partition("jaxsnn: error: ")[2]
        return {"exit_code": exit_code, "code": document["error"]["code"], "text": text}
    problems = document.get("problems") or document.get("violations")
    problems = problems or [{"code": "", "message": ""}]
    return {"exit_code": exit_code, "code": problems[0]["code"], "text": problems[0]["message"]}


def main(selected_names):
    """Read files of the corpus, and print those that are not refused as they should be."""
    from tests.faults.hostile_files.corpus import CORPUS

    chosen = [
        hostile
        for hostile in CORPUS.values()
        if not selected_names or any(name in hostile.name for name in selected_names)
    ]
    failing, start = 0, time.monotonic()
    largest, slowest, computing = 0, 0.0, 0.0
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "companions").mkdir()
        with ReadingServer(Path(folder) / "companions") as server:
            for number, hostile in enumerate(chosen):
                place = Path(folder) / str(number)
                place.mkdir()
                outcome = server.outcome(hostile, place)
                defects = outcome.defects(hostile)
                failing += bool(defects)
                largest, slowest = (
                    max(largest, outcome.size),
                    max(slowest, outcome.seconds, outcome.idle),
                )
                computing += outcome.seconds
                if defects:
                    sys.stdout.write(
                        f"{hostile.name!r} by {hostile.reader}: {'; '.join(defects)}\n"
                    )
                    sys.stdout.flush()
    sys.stdout.write(
        f"files: {len(chosen)}, failing: {failing}, in {time.monotonic() - start:.0f} s; "
        f"at most {largest / _MEBIBYTE:.0f} MiB and {slowest:.1f} s, {computing:.0f} s of computing\n"
    )
    return 1 if failing else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
