"""Files that are broken at random, read and taken as far as commands take them: NIR files are checked,
drawn, lowered, converted, mapped, written and read again. Each journey ends, or is refused in one line.

    python -m tests.fuzz.file_journeys --files 2000 [--kind nir] [--first 0] [--workers 2] [--write PAGE]

`--write` replaces the rows of these kinds in the table of a page, docs/reliability.md.

Kinds are NIR files, and those of `other_files`, `data_sets` and `recorded_files`: `others` are all of the
latter, with as many files each.

What is neither is printed with the number of its file and makes the exit code 1; so does a file that takes
too long, more memory than documented, or ends its process. Files whose bytes were changed are read by a
process of their own, as the command line reads them.
"""

import argparse
import collections
import json
import os
import resource
import select
import signal
import sys
import tempfile
import time
import traceback
import warnings
from contextlib import suppress
from pathlib import Path

import numpy as np

from jaxsnn.bss2.search.portfolio import place_and_route
from jaxsnn.bss2.search.quantize import quantize
from jaxsnn.compatibility.checks import check, check_file, purposes
from jaxsnn.errors import FileError, JaxsnnError
from jaxsnn.nir import describe, limit_reading, parse
from jaxsnn.nir.convert.pipeline import convert
from jaxsnn.nir.frameworks.registry import frameworks, writable
from jaxsnn.nir.graphs.export import nir_bytes
from jaxsnn.nir.io.files import _image, load
from jaxsnn.nir.io.reading import read_nir
from jaxsnn.nir.model.description import as_text
from jaxsnn.plot.graph_drawing import dot, mermaid, svg
from tests.fuzz import data_sets, other_files, recorded_files
from tests.fuzz.mutated_files import image_of_number, templates
from tests.helpers.memory import PeakMemory
from tests.helpers.zoo import unpacked

#: Kinds of files beside NIR's, by their names.
KINDS = other_files.KINDS | data_sets.KINDS | recorded_files.KINDS
#: Maximum computing time of a journey in seconds, and maximum bytes of its arrays.
_LONGEST, _LARGEST = 20.0, 2**24
#: Maximum bytes of memory: those of the arrays, and what docs/reliability.md allows besides.
_MEMORY = _LARGEST + 2**29
#: Bytes of address space that a worker may still reserve: beyond them it gets a MemoryError.
_SPACE = 2**32
#: Seconds of computing after which a worker is stopped, and of waiting.
_STOPPED_AFTER, _WAITING = 60.0, 600.0


def _options(rng):
    """What is said of a file, mostly nothing."""
    options = {"dialect": str(rng.choice(["auto"] * 24 + ["nir"] * 8 + list(frameworks())))}
    if rng.integers(2):
        options |= {
            "dt": "1ms",
            "reset": str(rng.choice(["zero", "subtract"])),
            "reset_delay": bool(rng.integers(2)),
        }
    return options


def journey(path, rng):
    """The stages that one file reaches; what is refused raises a JaxsnnError."""
    yield "read"
    document, options = read_nir(path), _options(rng)
    purpose = str(rng.choice(purposes()))
    yield "check"
    check_file(path, purpose, **options) if rng.integers(4) == 0 else None
    yield "parse"
    graph = parse(document, **options)
    yield "describe"
    as_text(graph)
    json.dumps(describe(graph), allow_nan=False)
    yield "draw"
    [svg, dot, mermaid][int(rng.integers(3))](graph)
    yield "check for"
    check(graph, purpose)
    yield "write"
    path.write_bytes(nir_bytes(path, graph))
    load(path)
    yield from _further(path, graph, rng)


def _further(path, graph, rng):
    """The stages that refuse much: each is one way, so that all are taken."""
    stage_number = int(rng.integers(8))
    if stage_number == 0:
        from jaxsnn.network.lowering.lower import lower

        yield "lower"
        lower(graph)
    elif stage_number == 1:
        yield "quantize"
        netlist = quantize(graph).netlist
        yield "map"
        place_and_route(netlist, time_limit=0.2, max_runs=2)
    else:
        yield "convert"
        converted = convert(
            graph, to=str(rng.choice(writable())), approximate=bool(rng.integers(2))
        )
        yield "write converted"
        path.write_bytes(nir_bytes(path, converted.graph))
        yield "read again"
        parse(load(path))


class NirFiles:
    """NIR files; those whose bytes were changed are read by a process of their own."""

    def __init__(self, folder):
        self.documents = templates(unpacked(folder).values())
        self.images = [_image(document) for document in self.documents]

    def file(self, number):
        """The bytes of a file, and the seconds that reading it may take."""
        data, by_bytes = image_of_number(number, self.documents, self.images)
        return data, 1.0 if by_bytes else None

    def journey(self, path, rng):
        """The stages that it reaches."""
        return journey(path, rng)


class OtherFiles:
    """Files of another kind."""

    def __init__(self, kind, folder):
        self.kind = KINDS[kind](folder)

    def file(self, number):
        """As of `NirFiles`."""
        return self.kind.image(np.random.default_rng(number)), None

    def journey(self, path, rng):
        """The stages that it reaches."""
        return self.kind.journey(path, rng)


def outcome(number, files, path):
    """How the journey of one file ended: "refused", "arrived", "contained" or "unexpected", where,
    and what there is to say.
    """
    data, read_timeout = files.file(number)
    path.write_bytes(data)
    rng, stage = np.random.default_rng([number, 1]), "read"
    start, memory = sum(os.times()[:4]), PeakMemory()
    try:
        with (
            limit_reading(max_bytes=_LARGEST, read_timeout=read_timeout),
            warnings.catch_warnings(),
            np.errstate(all="ignore"),
        ):
            warnings.simplefilter("ignore")
            for stage in files.journey(path, rng):  # noqa: B007
                pass
        ending = "arrived", stage, ""
    except JaxsnnError as error:
        text = str(error)
        wrong = "\n" in text or "please report" in text or not text.strip()
        ending = ("unexpected" if wrong else "refused"), stage, text
        if isinstance(error, FileError) and ("crashed" in text or "not read within" in text):
            ending = "contained", stage, text
    except Exception as error:
        ending = "unexpected", stage, f"{type(error).__name__}: {error} ({_place(error)})"
    took = sum(os.times()[:4]) - start
    if took > _LONGEST:
        ending = "unexpected", stage, f"took {took:.1f} s"
    elif memory.size > _MEMORY:
        ending = "unexpected", stage, f"took {memory.size / 2**20:.0f} MiB"
    return ending


def _place(error):
    """Where in our files it was raised."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if "jaxsnn" in frame.filename] or frames
    return f"{Path(ours[-1].filename).name}:{ours[-1].lineno} in {ours[-1].name}"


def path_in(folder, kind):
    """The path of the broken file."""
    return folder / ("mutated.npz" if kind in ("checkpoint", "arrays", "result") else "mutated")


# -- workers


class Worker:
    """A forked process that takes some files, one after the other, and says so in lines of JSON.

    Attributes:
        numbers: numbers of the files that it has not ended yet; the first is the current one.
        source: end of the pipe from which its lines are read.
    """

    def __init__(self, kind, numbers):
        self.kind, self.numbers, self._rest = kind, list(numbers), b""
        self.source, target = os.pipe()
        self._started = time.monotonic()
        self._computed = 0.0
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore"
            )  # about threads of JAX, which the new process does not use
            self._process = os.fork()
        if self._process == 0:
            status = 1
            try:
                os.close(self.source)
                os.setpgid(0, 0)
                _work(kind, self.numbers, target)
                status = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(status)
        os.close(target)

    def endings(self):
        """The endings of files since the last call, (number, ended, stage, text); waits for one if
        the pipe is not ready. None: the process ended.
        """
        part = os.read(self.source, 2**16)
        if not part:
            return None
        *lines, self._rest = (self._rest + part).split(b"\n")
        endings = [tuple(json.loads(line)) for line in lines]
        del self.numbers[: len(endings)]
        if endings:
            self._started, self._computed = time.monotonic(), self._computing()
        return endings

    def is_late(self):
        """Whether the current file takes so long that nothing more is expected of it."""
        waited = time.monotonic() - self._started
        return waited > _WAITING or self._computing() - self._computed > _STOPPED_AFTER

    def end(self):
        """Stop the process; return how it ended."""
        with suppress(ProcessLookupError):
            os.killpg(self._process, signal.SIGKILL)
        os.close(self.source)
        return os.waitstatus_to_exitcode(os.waitpid(self._process, 0)[1])

    def _computing(self):
        """Seconds of processor time of the process; 0 where the system does not tell."""
        with suppress(OSError, IndexError):
            fields = Path(f"/proc/{self._process}/stat").read_text().rpartition(")")[2].split()
            return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")
        return 0.0


def _work(kind, numbers, target):
    """Take files in a process of their own; write (number, ended, stage, text) of each to a pipe."""
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as name:
        folder = Path(name)
        files = NirFiles(folder) if kind == "nir" else OtherFiles(kind, folder)
        with suppress(OSError, ValueError):
            pages = int(Path("/proc/self/statm").read_text().split()[0])
            limit = pages * resource.getpagesize() + _SPACE
            resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        for number in numbers:
            ending = outcome(number, files, path_in(folder, kind))
            os.write(target, json.dumps((number, *ending)).encode() + b"\n")


def endings(kind, numbers, workers, deadline):
    """Yield (number, ended, stage, text) of each file.

    Args:
        numbers: numbers of the files.
        workers: number of processes.
        deadline: time.monotonic() at which the rest is left out.
    """
    running = [Worker(kind, numbers[place::workers]) for place in range(workers)]
    running = [worker if worker.numbers else worker.end() for worker in running]
    running = [worker for worker in running if isinstance(worker, Worker)]
    while running and time.monotonic() < deadline:
        ready, _, _ = select.select([worker.source for worker in running], [], [], 1.0)
        for worker in list(running):
            arrived = worker.endings() if worker.source in ready else []
            yield from arrived or ()
            if arrived is not None and not worker.is_late():
                continue
            reason = "took too long" if arrived is not None else "ended its process"
            exit_code = worker.end()
            running.remove(worker)
            if worker.numbers:  # another process takes the files after the one that ended this
                yield worker.numbers[0], "unexpected", "any", f"{reason} ({exit_code})"
                if worker.numbers[1:]:
                    running.append(Worker(kind, worker.numbers[1:]))
    for worker in running:
        worker.end()


def main(argv=None):
    """Journeys of many files, counted."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=2000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=float("inf"))
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--kind", choices=("nir", "others", *KINDS), default="nir")
    parser.add_argument("--write", type=Path)
    arguments = parser.parse_args(argv)
    kinds = list(KINDS) if arguments.kind == "others" else [arguments.kind]
    counts = {}
    for place, kind in enumerate(kinds):
        size = len(range(place, arguments.files, len(kinds)))
        numbers = range(arguments.first, arguments.first + size)
        deadline = time.monotonic() + arguments.seconds / len(kinds)
        counts[kind] = _counted(kind, numbers, arguments.workers, deadline)
    if arguments.write is not None:
        page = arguments.write.read_text()
        arguments.write.write_text(with_rows(page, counts, time.strftime("%Y-%m-%d")))
    return 1 if any(unexpected for _, unexpected in counts.values()) else 0


def _counted(kind, numbers, workers, deadline):
    """Print how the files of a kind ended; return how many there were, and of how many the ending was
    not expected.
    """
    counts, findings = collections.Counter(), {}
    start, computing = time.monotonic(), _computing()
    for number, ended, stage, text in endings(kind, numbers, workers, deadline):
        counts[f"{ended} at {stage}"] += 1
        if ended == "unexpected":
            findings.setdefault(text.rpartition("(")[2] or text, (number, stage, text))
    took, files, computing = time.monotonic() - start, counts.total(), _computing() - computing
    unexpected = sum(count for ended, count in counts.items() if ended.startswith("unexpected"))
    lines = [f"{kind} {number}, {stage}: {text}" for number, stage, text in findings.values()]
    lines += [f"{ended}: {count}" for ended, count in sorted(counts.items())]
    lines.append(
        f"{kind}: {files} files, {unexpected} unexpected, {files / took:.1f} files per second, "
        f"{computing:.1f} s of computing"
    )
    sys.stdout.write("\n".join(lines) + "\n")
    sys.stdout.flush()
    return files, unexpected


def _computing():
    """Seconds of processor time of all processes that have ended."""
    return sum(os.times()[2:4])


#: Comments around the table of a page.
BEGIN, END = "<!-- fuzz -->", "<!-- end of fuzz -->"


def with_rows(page, counts, date):
    """A page whose table has new rows for some kinds.

    Args:
        counts: kind -> number of files, and of those that ended as not expected.
    """
    start, end = page.index(BEGIN) + len(BEGIN), page.index(END)
    head, line, *rows = page[start:end].strip().splitlines()
    by_kind = {row.split("|")[1].strip(): row for row in rows}
    for kind, (files, unexpected) in counts.items():
        by_kind[kind] = f"| {kind} | {files:,} | {date} | {unexpected} |"
    table = "\n".join([head, line, *by_kind.values()])
    return f"{page[:start]}\n\n{table}\n\n{page[end:]}"


if __name__ == "__main__":
    sys.exit(main())
