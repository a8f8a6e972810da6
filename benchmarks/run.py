"""Times this library and its peers on the same work, interleaved, in one run.

    make bench                            # installs the peers, each into an environment of its own; writes the document
    make bench-quick                      # work of real size alone, in minutes; writes its part of the document
    python benchmarks/run.py --report benchmarks/results/FILE.json     # the document once more

Before 5-N-3 is timed, every library's spikes and gradients are compared with a float64 reference;
of work of real size the two backends are compared with each other. Progress goes to stderr,
everything measured to benchmarks/results/, the tables to docs/performance.md.
"""

import argparse
import importlib.metadata
import json
import os
import platform
import re
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import reference
import small_work
import stepped
import workloads
from protocol import MOST_COMPILE_SECONDS, MOST_SECONDS, RESOLUTIONS, Unavailable, Worker, row_name
from records import PARAMETERS, STEPS, Convolution, Layers
from report import OURS, PEERS, document

HERE = Path(__file__).parent
RESULTS, ENVIRONMENTS, DOCUMENT = (
    HERE / "results",
    HERE.parent / ".venv-peers",
    HERE.parent / "docs/performance.md",
)


def _peer(environment: str, script: str, *options: str) -> list[Path | str]:
    return [ENVIRONMENTS / environment / "bin" / "python", HERE / script, *options]


LIBRARIES: dict[str, list[Path | str]] = {
    "native": [sys.executable, HERE / "ours.py", "native"],
    "xla": [sys.executable, HERE / "ours.py", "xla"],
    "loops": [sys.executable, HERE / "loops.py"],
    "jaxsnn-eventprop": _peer("jaxsnn", "peer_jaxsnn.py", "eventprop"),
    "jaxsnn-analytical": _peer("jaxsnn", "peer_jaxsnn.py", "analytical"),
    "eventax-euler": _peer("eventax", "peer_eventax.py", "Euler"),
    "eventax-tsit5": _peer("eventax", "peer_eventax.py", "Tsit5"),
    "exact-event-adjoint": _peer("exact-event-adjoint", "peer_exact_event_adjoint.py"),
    "snntorch": _peer("torch", "peer_torch.py", "snntorch"),
    "norse": _peer("torch", "peer_torch.py", "norse"),
    "spyx": _peer("spyx", "peer_spyx.py"),
}
_EXCEPT_EVENTAX = tuple(name for name in LIBRARIES if not name.startswith("eventax"))
_QUADRATIC = ("jaxsnn", "eventax", "exact")  # every neuron is looked at for every event
_RECURRENT = (*OURS, "loops", "jaxsnn-eventprop", "spyx", "snntorch", "norse")
#: Who runs work of real size, and what the quick part asks of whom.
_OF_LAYERS = (*OURS, *stepped.SCHEMES)
_QUICKLY = {"spyx": ("one", row_name(STEPS), row_name(RESOLUTIONS[1]))}
_QUICKLY_ELSE = ("one", row_name(STEPS))
#: Reasons not to run that are the harness's limits, and no faults.
_BUDGETED = re.compile(r"takes more than|holds \d+ GB|over \d+ s")
#: JAX's compilation cache, for a second process.
_COMPILED = RESULTS / "compiled"
#: Kinds of cases whose memory is looked at in a second process, too.
_MEMORY_FROM_CACHE = ("feed-forward", "recurrent", "spikes", "convolution")
#: How far a result may be off: spikes in units of tau_syn or in numbers, gradients relative to
#: their norm. Peers that approximate are timed, and their errors shown; one that is further off
#: does other work.
MOST_WRONG = {"native": (1e-2, 0.1), "xla": (1e-2, 0.1), "loops": (1e-2, 0.1)}
MOST_WRONG_PEER = (0.5, 0.7)
#: A convolution in steps has about 1,000 spikes in each: in float32 one that only just reaches the
#: threshold may move.
MOST_WRONG_CONVOLUTION = (5.0, 1e-3)
#: The two backends on work of real size, in float32: the share of neurons with another number of spikes,
#: and the gradient's relative error. In float64 both agree to 1e-8 in every row.
MOST_APART = (0.01, 0.2)


@dataclass(frozen=True, kw_only=True)
class Case:
    """Something to measure: `size` orders the cases of a kind, from small to large."""

    name: str
    kind: str
    size: int
    make: Callable[[], Any]
    libraries: tuple[str, ...] = tuple(LIBRARIES)
    rows: Mapping[str, tuple[str, ...]] | None = None  # that are measured, of some libraries


@dataclass(kw_only=True)
class Measured:
    """What came of a case; by library, and by row where there are rows."""

    name: str
    kind: str
    size: int
    spikes_per_neuron: float = 0.0
    titles: dict[str, str] = field(default_factory=dict)
    seconds: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    processor: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    fired: dict[str, dict[str, float]] = field(default_factory=dict)
    first: dict[str, dict[str, float]] = field(default_factory=dict)
    errors: dict[str, tuple[float, float]] = field(default_factory=dict)
    memory: dict[str, int] = field(default_factory=dict)
    memory_of_weights: dict[str, int] = field(default_factory=dict)
    memory_from_cache: dict[str, int] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)


def layer_cases() -> list[Case]:
    """Work of real size."""
    return [
        Case(
            name=name,
            kind="layers",
            size=number,
            make=lambda row=row: workloads.work(row),
            libraries=_OF_LAYERS,
        )
        for number, (name, row) in enumerate(workloads.ROWS.items(), 1)
    ]


def growth_cases() -> list[Case]:
    """The same with more and more events, neurons and samples."""
    return [
        Case(
            name=f"{kind.removeprefix('growth with ')}: {size:,}",
            kind=kind,
            size=size,
            make=lambda row=row: workloads.work(row),
            libraries=OURS,
        )
        for kind, rows in workloads.GROWTH.items()
        for size, row in rows.items()
    ]


def small_cases() -> list[Case]:
    """5-N-3 and single convolutions, what takes longest last."""
    kinds: list[tuple[str, tuple[int, ...], str, Callable[[int], Any], tuple[str, ...]]] = [
        ("feed-forward", (120, 500, 1000, 4000), "5-{}-3", small_work.feed_forward, (*LIBRARIES,)),
        ("recurrent", (120, 500, 1000), "recurrent {}", small_work.recurrent, _RECURRENT),
        (
            "spikes",
            (1, 4, 16),
            "{} spikes per neuron",
            lambda n: small_work.several_spikes(120, n),
            _EXCEPT_EVENTAX,
        ),
        (
            "convolution",
            (8,),
            "convolution, batch {}",
            lambda n: small_work.convolution(4000, batch=n),
            (*OURS, *stepped.SCHEMES),
        ),
        (
            "events",
            (1000, 2000, 4000, 8000),
            "convolution, {} events",
            small_work.convolution,
            OURS,
        ),
        (
            "taps",
            (3, 5, 7, 9),
            "convolution with {} taps in each direction",
            lambda n: small_work.convolution(4000, taps=n),
            OURS,
        ),
        (
            "batch",
            (16, 64, 256, 1024),
            "5-120-3, batch {}",
            lambda n: small_work.feed_forward(120, batch=n),
            OURS,
        ),
    ]
    found = [
        Case(
            name=title.format(n),
            kind=kind,
            size=n * n if kind == "taps" else n,
            make=lambda n=n, make=make: make(n),
            libraries=libraries,
        )
        for kind, sizes, title, make, libraries in kinds
        for n in sizes
    ]
    return sorted(
        found,
        key=lambda case: (case.kind, case.size) in (("feed-forward", 4000), ("recurrent", 1000)),
    )


def expected(work: Any, library: str, memo: dict[str, Any]) -> Mapping[str, np.ndarray]:
    """What a library's results are compared with."""
    key = library if library in stepped.SCHEMES else "exact"
    if key not in memo:
        if key != "exact":
            memo[key] = stepped.results(work, library)
        elif isinstance(work, Convolution):
            memo[key] = reference.convolution_results(work)
        else:
            small = work.hidden <= 120 and not work.recurrent
            memo[key] = reference.network_results(work, parameters=PARAMETERS if small else ())
    return memo[key]


def errors(got: Mapping[str, np.ndarray], wanted: Mapping[str, np.ndarray]) -> tuple[float, float]:
    """Largest difference of spikes, and largest relative error of the norm of a gradient."""
    spikes, gradients = 0.0, 0.0
    for name, value in wanted.items():
        if name in ("output_times", "output_counts", "counts", "summed_times"):
            spikes = max(spikes, float(np.abs(got[name] - value).max()))
        elif name in got:
            gradients = max(
                gradients, float(np.linalg.norm(got[name] - value) / np.linalg.norm(value))
            )
    return spikes, gradients


def apart(got: Mapping[str, np.ndarray], wanted: Mapping[str, np.ndarray]) -> tuple[float, float]:
    """The share of neurons that have another number of spikes, and the largest relative error of a
    gradient. The hundredth of its entries that are furthest off is left out: a spike that only just
    reaches the threshold has any slope in float32, and with it the weights of its neuron any gradient.
    """
    differ, gradients = 0.0, 0.0
    for name, value in wanted.items():
        if name == "counts":
            differ = float((got[name] != value).mean())
        elif name != "fired":
            off = np.sort(np.abs(got[name] - value), axis=None)
            off = np.linalg.norm(off[: len(off) - len(off) // 100])
            gradients = max(gradients, float(off / np.linalg.norm(value)))
    return differ, gradients


def launch(library: str, *, compiled: Path | None = None) -> Worker:
    """A worker; `compiled` as of `Worker`.

    Raises:
        Unavailable: the library is not installed.
    """
    python = Path(LIBRARIES[library][0])
    if not python.exists():
        raise Unavailable(f"not installed: {python} is missing")
    return Worker(LIBRARIES[library], RESULTS / f"{library}.log", compiled)


def start(
    case: Case, library: str, worker: Worker, work: Any, measured: Measured, memo: dict[str, Any]
) -> None:
    """Have a worker compile its rows, and look whether its results are right.

    Raises:
        Unavailable: why there is none.
    """
    loaded = worker.ask(do="load", work=str(RESULTS / "work.npz"))
    measured.titles[library] = loaded["library"]
    first = measured.first.setdefault(library, {})
    rows, both = loaded["rows"], row_name(STEPS)
    layers = isinstance(work, Layers)
    if layers:  # forward + backward is what a process that trains runs, and nothing before it
        rows = sorted(rows, key=both.__ne__)
    for row in rows:
        if case.rows and row not in case.rows.get(library, _QUICKLY_ELSE):
            continue
        if row == "all":
            measured.memory_of_weights[library] = worker.ask(do="memory")["bytes"]
        answer = worker.ask(do="first", row=row, limit=MOST_COMPILE_SECONDS)
        first[row] = answer["seconds"]
        if row == both or not layers:
            # before results are looked at, which nobody does in training
            measured.memory[library] = worker.ask(do="memory")["bytes"]
    worker.ask(do="results", file=str(RESULTS / f"{library}.npz"))
    with np.load(RESULTS / f"{library}.npz") as arrays:
        results = dict(arrays)
    if layers:
        check_layers(library, results, measured, memo)
        return
    wrong = errors(results, expected(work, library, memo))
    measured.errors[library] = wrong
    of_peers = MOST_WRONG_CONVOLUTION if isinstance(work, Convolution) else MOST_WRONG_PEER
    refuse_wrong(wrong, MOST_WRONG.get(library, of_peers))


def check_layers(
    library: str, results: dict[str, np.ndarray], measured: Measured, memo: dict[str, Any]
) -> None:
    """Of work of real size: how often neurons fire, and whether the two backends agree.

    Raises:
        Unavailable: they do not.
    """
    if library not in OURS:
        measured.fired[library] = {name: float(value) for name, value in results.items()}
        return
    measured.spikes_per_neuron = float(results["fired"])
    measured.fired[library] = {"weights": float(results["fired"])}
    measured.errors[library] = apart(results, memo.setdefault("backend", results))
    refuse_wrong(measured.errors[library], MOST_APART)


def refuse_wrong(wrong: tuple[float, float], allowed: tuple[float, float]) -> None:
    """Raises: Unavailable, where something is further off than it may be."""
    for found, most in zip(wrong, allowed, strict=True):
        if not found <= most:
            raise Unavailable(f"wrong: off by {found:.2g}, more than {most:g}")


def measure(
    case: Case, given_up: dict[tuple[str, str], str], *, rounds: int, seconds: float
) -> Measured:
    """Everything about one case. Libraries take turns, row by row."""
    work = case.make()
    work.save(RESULTS / "work.npz")
    shutil.rmtree(_COMPILED, ignore_errors=True)
    # writing programs down takes time and memory: where nobody looks for them nobody does
    compiled = _COMPILED if case.kind in _MEMORY_FROM_CACHE else None
    measured = Measured(
        name=case.name,
        kind=case.kind,
        size=case.size,
        spikes_per_neuron=getattr(work, "spikes_per_neuron", 0.0),
    )
    workers: dict[str, Worker] = {}
    memo: dict[str, Any] = {}
    for library in case.libraries:
        try:
            if (case.kind, library) in given_up:
                raise Unavailable(given_up[case.kind, library])
            # all import their packages at the same time
            workers[library] = launch(library, compiled=compiled)
        except Unavailable as reason:
            measured.reasons[library] = str(reason)
    for library in list(workers):
        try:
            start(case, library, workers[library], work, measured, memo)
        except Unavailable as reason:
            workers.pop(library).stop()
            measured.reasons[library] = str(reason)
        log(f"    {library}: {measured.reasons.get(library) or measured.errors.get(library, '')}")
    rows = dict.fromkeys(row for library in workers for row in measured.first[library])
    for turn in range(rounds):
        for row in rows:
            for library in [name for name in workers if row in measured.first[name]]:
                take_turn(workers, library, row, measured, turn, seconds)
    for library, worker in workers.items():
        worker.stop()
        if library in (*OURS, *PEERS["JAX"]) and case.kind in _MEMORY_FROM_CACHE:
            with suppress(Unavailable):
                measured.memory_from_cache[library] = memory_from_cache(library)
    return measured


def memory_from_cache(library: str) -> int:
    """Peak memory of a second process, which finds what the first has compiled; of the rows that
    all libraries have.

    Raises:
        Unavailable: it takes too long.
    """
    worker = launch(library, compiled=_COMPILED)
    try:
        for row in worker.ask(do="load", work=str(RESULTS / "work.npz"))["rows"]:
            if row != "all":
                worker.ask(do="first", row=row, limit=MOST_COMPILE_SECONDS)
        return worker.ask(do="memory")["bytes"]
    finally:
        worker.stop()


def take_turn(workers, library, row, measured, turn, seconds) -> None:
    """One turn of a library with a row; slow rows have one or two turns."""
    found = measured.seconds.setdefault(row, {}).setdefault(library, [])
    if turn and sum(found) > (10 * seconds if turn < 2 else 20 * seconds):
        return
    try:
        answer = workers[library].ask(do="time", row=row, seconds=seconds)
        found += answer["seconds"]
        used = measured.processor.setdefault(row, {}).setdefault(library, [])
        used += answer["processor"]
    except Unavailable as reason:
        measured.reasons[library] = str(reason)
        del workers[library]
        del measured.seconds[row][library]


def predict(
    case: Case, measured: Measured, larger: list[Case], given_up: dict[tuple[str, str], str]
) -> None:
    """Give libraries up for larger cases: those over a limit, and those that will be.

    A library that looks at every neuron for every event takes at least four times as long for twice
    the size.
    """
    for library, reason in measured.reasons.items():
        if "takes more" in reason or "holds" in reason:
            given_up.setdefault((case.kind, library), f"at {case.name} it {reason}")
    size = next((other.size for other in larger if other.kind == case.kind), case.size)
    growth = (size / case.size) ** 2
    for library in measured.titles:
        slowest = max(
            (min(of_row[library]) for of_row in measured.seconds.values() if of_row.get(library)),
            default=0,
        )
        if library.split("-")[0] in _QUADRATIC and growth * slowest > MOST_SECONDS:
            given_up[case.kind, library] = (
                f"over {MOST_SECONDS:.0f} s, from {slowest:.1f} s at {case.name}"
            )


def log(text: str) -> None:
    """Progress."""
    print(text, file=sys.stderr, flush=True)


def machine() -> dict[str, Any]:
    """Where and when it was measured."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next(
        (line.split(":")[1].strip() for line in lines if line.startswith("model name")),
        platform.processor(),
    )
    names = ("jax", "numpy")
    return {
        "processor": model,
        "cores": os.cpu_count(),
        "system": platform.system(),
        "python": platform.python_version(),
        "versions": {name: importlib.metadata.version(name) for name in names},
        "date": time.strftime("%Y-%m-%d"),
        "load": [round(os.getloadavg()[1], 1)],
    }


def main() -> None:
    """Measure, write down, write the document."""
    parser = argparse.ArgumentParser(description="Time this library and its peers.")
    parser.add_argument(
        "--quick",
        action="store_true",
        help="work of real size alone; the rest of the document stays",
    )
    parser.add_argument("--only", help="kinds or names of cases, with semicolons; no document")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each library")
    parser.add_argument("--seconds", type=float, default=0.25, help="at least, for one turn")
    parser.add_argument("--resume", type=Path, help="go on with an earlier run that was cut off")
    parser.add_argument(
        "--report", type=Path, help="write the document from what an earlier run has measured"
    )
    arguments = parser.parse_args()
    if arguments.report:
        measured = json.loads(arguments.report.read_text())
        DOCUMENT.write_text(document(measured, DOCUMENT.read_text()))
        return
    RESULTS.mkdir(exist_ok=True)
    chosen = [*layer_cases(), *growth_cases(), *small_cases()]
    if arguments.quick:
        chosen = [replace(case, rows=_QUICKLY) for case in layer_cases()]
    if arguments.only:
        wanted = arguments.only.split("; ")
        chosen = [case for case in chosen if case.kind in wanted or case.name in wanted]
    found, given_up, data = [], {}, {"machine": machine()}
    file, began = RESULTS / time.strftime("run-%Y%m%d-%H%M%S.json"), time.monotonic()
    if arguments.resume:
        data = json.loads(arguments.resume.read_text())
        found = data.pop("cases")
        data.pop("minutes", None)
    for number, case in enumerate(chosen):
        log(f"{time.monotonic() - began:.0f} s, load {os.getloadavg()[0]:.1f}: {case.name}")
        done = next(
            (each for each in found if (each["kind"], each["size"]) == (case.kind, case.size)), None
        )
        measured = (
            Measured(**done)
            if done
            else measure(case, given_up, rounds=arguments.rounds, seconds=arguments.seconds)
        )
        if case.kind != "layers":  # whose rows are different work, and not the same in sizes
            predict(case, measured, chosen[number + 1 :], given_up)
        if not done:
            found.append(asdict(measured))
            data["machine"]["load"].append(round(os.getloadavg()[0], 1))
            file.write_text(json.dumps({**data, "cases": found}))
    data = {**data, "cases": found}
    if not arguments.resume:
        data["minutes"] = (time.monotonic() - began) / 60
    file.write_text(json.dumps(data))
    log(f"written: {file}")
    page = document(data, DOCUMENT.read_text())
    if arguments.only:
        print(page)
    else:
        DOCUMENT.write_text(page)
    failed = [
        f"{case['name']}, {library}: {reason}"
        for case in found
        for library, reason in case["reasons"].items()
        if library in OURS and not _BUDGETED.search(reason)
    ]
    if failed:
        sys.exit("\n".join(["this library fails at", *failed]))


if __name__ == "__main__":
    main()
