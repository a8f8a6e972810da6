"""How the harness talks to the libraries that it measures.

Each library runs in a process of its own, with its own packages, and answers one JSON line per
line it is sent:

    {"do": "load", "work": FILE}                 -> {"library": NAME, "rows": [...]}
    {"do": "results", "file": FILE}              -> {}, the arrays are in FILE
    {"do": "time", "row": ROW, "seconds": S}     -> {"seconds": [one figure per repetition]}
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from workload import Work

Row = Callable[[], Any]


def serve(library: str, build: Callable[[Work], tuple[Mapping[str, Row], Row]]) -> None:
    """The loop of a worker.

    `build(work)` returns the rows it can run, each a function that blocks until its result is
    there, and a function that returns the results to compare as a dict of arrays. What the
    library itself prints goes to stderr.
    """
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    rows: Mapping[str, Row] = {}
    results: Row = dict
    for line in sys.stdin:
        command = json.loads(line)
        answer: dict[str, Any] = {}
        if command["do"] == "load":
            rows, results = build(Work.load(Path(command["work"])))
            answer = {"library": library, "rows": list(rows)}
        elif command["do"] == "results":
            np.savez(command["file"], **results())
        elif command["do"] == "time":
            answer = {"seconds": repeat(rows[command["row"]], command["seconds"])}
        print(json.dumps(answer), file=answers, flush=True)


def repeat(row: Row, seconds: float) -> list[float]:
    """Runs a row once untimed, then at least once timed and until the time given is used up."""
    row()
    figures: list[float] = []
    while sum(figures) < seconds:
        start = time.perf_counter()
        row()
        figures.append(time.perf_counter() - start)
    return figures


class Worker:
    """The harness's end of a worker process."""

    def __init__(self, python: Path, script: Path, log: Path) -> None:
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        self.log = log.open("w")
        self.process = subprocess.Popen(
            [python, script],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            env=environment,
            text=True,
        )

    def __enter__(self) -> "Worker":
        return self

    def ask(self, **command: Any) -> dict[str, Any]:
        assert self.process.stdin
        assert self.process.stdout
        print(json.dumps(command), file=self.process.stdin, flush=True)
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"a worker stopped at {command}: see {self.log.name}")
        return json.loads(line)

    def __exit__(self, *_: object) -> None:
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait(timeout=60)
        self.log.close()
