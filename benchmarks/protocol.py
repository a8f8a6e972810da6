"""How the harness talks to the libraries that it measures.

Each library runs in a process of its own, with its own packages, and answers one JSON line per line
it is sent:

    {"do": "load", "work": FILE}                 -> {"library": NAME, "rows": [...]}
    {"do": "first", "row": ROW}                  -> {"seconds": of the first call, which compiles}
    {"do": "results", "file": FILE}              -> {}, the arrays are in FILE
    {"do": "time", "row": ROW, "seconds": S}     -> {"seconds": [one figure per repetition],
                                                     "processor": [of all processors together]}
    {"do": "memory"}                             -> {"bytes": peak of the process, less what importing took}

An answer {"unavailable": REASON} says why a library does not run a piece of work.
"""

import dataclasses
import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from records import STEPS, Layers, load

Row = Callable[[], Any]
#: Numbers of steps on work of real size.
RESOLUTIONS = (STEPS, 250, 1000)
MOST_SECONDS, MOST_COMPILE_SECONDS, MOST_BYTES = 60.0, 90.0, 12 * 2**30


class Unavailable(Exception):
    """A library does not run a piece of work; the message says why."""


def peak_bytes() -> int:
    """Most memory that this process has held."""
    return _bytes("self", "VmHWM")


def _bytes(process: int | str, field: str) -> int:
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return next((int(line.split()[1]) * 2**10 for line in lines if line.startswith(field)), 0)


def serve(
    library: Callable[[], str], build: Callable[[Any], tuple[Mapping[str, Row], Row]]
) -> None:
    """The loop of a worker.

    `build(work)` returns the rows it can run, each a function that blocks until its result is
    there, and a function that returns the results to compare as a dict of arrays. What the library
    itself prints goes to stderr.
    """
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    imported = peak_bytes()
    rows: Mapping[str, Row] = {}
    results: Row = dict
    for line in sys.stdin:
        command = json.loads(line)
        answer: dict[str, Any] = {}
        match command["do"]:
            case "load":
                try:
                    rows, results = build(load(Path(command["work"])))
                    answer = {"library": library(), "rows": list(rows)}
                except Unavailable as reason:
                    answer = {"unavailable": str(reason)}
            case "first":
                start = time.perf_counter()
                rows[command["row"]]()
                answer = {"seconds": time.perf_counter() - start}
            case "results":
                np.savez(command["file"], **results())
            case "time":
                answer = repeat(rows[command["row"]], command["seconds"])
            case "memory":
                answer = {"bytes": peak_bytes() - imported}
        print(json.dumps(answer), file=answers, flush=True)


def repeat(row: Row, seconds: float) -> dict[str, list[float]]:
    """Runs a row at least once, until the time given is used up; once untimed before, if it is a
    quick one. By the clock, and of all processors together, which others on the machine move less.
    """
    figures: dict[str, list[float]] = {"seconds": [], "processor": []}
    warm = False
    while sum(figures["seconds"]) < seconds or not figures["seconds"]:
        start, used = time.perf_counter(), time.process_time()
        row()
        took = time.perf_counter() - start
        if warm or took > seconds:
            figures["seconds"].append(took)
            figures["processor"].append(time.process_time() - used)
        warm = True
    return figures


def rows_by_steps(
    work: Layers, model: Callable[[Layers], Any]
) -> tuple[dict[str, Row], Callable[[], dict[str, float]]]:
    """What a library that steps is timed with on work of real size, and how often it fires.

    Args:
        model: makes of work what has `forward`, `both` and `fired`: spikes of a neuron of the first
            layer. Made when it is first wanted.
    """
    models: dict[str, Any] = {}

    def made(name: str, what: Layers) -> Any:
        if name not in models:
            models[name] = model(what)
        return models[name]

    rows: dict[str, Row] = {"one": lambda: made("one", work.alone()).forward()}
    for steps in RESOLUTIONS:
        name = row_name(steps)
        finer = dataclasses.replace(work, steps=steps)
        rows[name] = lambda name=name, finer=finer: made(name, finer).both()

    def results() -> dict[str, float]:
        return {name: found.fired() for name, found in models.items() if name != "one"}

    return rows, results


def row_name(steps: int) -> str:
    """Of forward + backward by the weights, in some number of steps."""
    return "weights" if steps == STEPS else f"weights {steps}"


class Worker:
    """The harness's end of a worker process."""

    def __init__(self, command: list[Path | str], log: Path, compiled: Path | None) -> None:
        """Start it; `compiled` is the folder of JAX's compilation cache, which takes a first call time
        to write; None: as without any setting there is none.
        """
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        environment["JAX_TRACEBACK_FILTERING"] = "off"  # or JAX's last line is about that
        if compiled is not None:
            environment |= {
                "JAX_COMPILATION_CACHE_DIR": str(compiled),
                "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
                "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
            }
        self.log = log.open("w")
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            env=environment,
            text=True,
        )

    def ask(self, *, limit: float = MOST_SECONDS, **command: Any) -> dict[str, Any]:
        """The answer, within some seconds.

        Raises:
            Unavailable: the work is not for this library, takes too long or too much memory, or the
                process died.
        """
        assert self.process.stdin
        assert self.process.stdout
        print(json.dumps(command), file=self.process.stdin, flush=True)
        deadline = time.monotonic() + limit
        while not select.select([self.process.stdout], [], [], 0.1)[0]:
            held = _bytes(self.process.pid, "VmRSS")
            if held > MOST_BYTES:
                self.stop()
                raise Unavailable(
                    f"holds {held / 2**30:.0f} GB, more than {MOST_BYTES / 2**30:.0f}"
                )
            if time.monotonic() > deadline:
                self.stop()
                raise Unavailable(f"takes more than {limit:.0f} s")
        line = self.process.stdout.readline()
        if not line:
            self.stop()
            raise Unavailable(f"fails: {self._last_words()}")
        answer = json.loads(line)
        if "unavailable" in answer:
            raise Unavailable(answer["unavailable"])
        return answer

    def _last_words(self) -> str:
        lines = Path(self.log.name).read_text().strip().splitlines()
        return lines[-1][:160] if lines else "no reason given"

    def stop(self) -> None:
        """End the process, at once."""
        self.process.kill()
        self.process.wait()
        self.log.close()
