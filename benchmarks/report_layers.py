"""Write the part of docs/performance.md on networks of real size."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from protocol import RESOLUTIONS, row_name
from records import STEPS
from workloads import GROWTH, ROWS

Case = Mapping[str, Any]

BEGIN, END = "<!-- begin: work of real size -->", "<!-- end: work of real size -->"
BACKENDS, PEERS = ("native", "xla"), ("spyx", "snntorch", "norse")
ONE_THREAD = "one thread"
COARSE, FINE = row_name(STEPS), row_name(RESOLUTIONS[1])
_CONVOLUTIONS = ("convolutions, 4,000 events, batch 8", "convolutions, 4,000 events, batch 32")
#: Row -> how many times faster than Spyx in 100 steps the native backend is meant to be.
AHEAD_OF_SPYX = {
    "784-350-10, 150 events": 18.0,
    "784-350-10, 784 events": 7.0,
    "784-400-400-10, 150 events": 13.0,
    "700-256-20, 8,000 events": 0.9,
    "700-1024-20, 8,000 events": 0.65,
    "700-256-20, recurrent": 0.9,
    "700-1024-20, recurrent": 0.7,
    "100-500-20, Poisson, recurrent at 10 %": 0.55,
    "100-1000-20, Poisson, recurrent at 10 %": 0.7,
}
AHEAD_IN_250_STEPS = 1.5
#: The same of all peers in 100 steps.
AHEAD_OF_ALL: dict[str, float] = dict(zip(_CONVOLUTIONS, (3.5, 2.0), strict=True))
RATIOS = ("700-256-20, 8,000 events", "700-256-20, 8,000 events, ratio 4")
MAX_FIRST_CALL, MAX_MEGABYTES = 8.0, {"native": 150, "xla": 500}


class Target(NamedTuple):
    """A figure that a release is meant to reach.

    Attributes:
        description: network, computation and peer.
        required: the limit, as text.
        measured: the result, as text.
        met: None if it was not run.
    """

    description: str
    required: str
    measured: str
    met: bool | None


def targets_text(targets: list[Target]) -> str:
    """Return how many targets are met, and a table of the others."""
    count = sum(target.met is True for target in targets)
    lines = [
        f"{count} of {len(targets)} targets are met{'.' if count == len(targets) else '. Not met:'}"
    ]
    if count < len(targets):
        lines += ["", "| target | required | measured |", "|---|---|---|"]
        lines += [f"| {' | '.join(target[:3])} |" for target in targets if not target.met]
    return "\n".join(lines)


def section(data: Mapping[str, Any]) -> str:
    """Return the tables and targets, between the comments that mark their place."""
    cases = [case for case in data["cases"] if case["kind"] == "layers"]
    machine, load = data["machine"], data["machine"]["load"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    parts = [
        BEGIN,
        f"""## Networks of real size

`make bench-quick` wrote these tables on {machine["date"]}: {machine["processor"]},
{machine["cores"]} cores, CPU only, Python {machine["python"]}, {versions}; load average {min(load)} to {max(load)}.

{_summary(cases)}

- A row gives the layers, the input events of a sample and, in brackets, the batch. Networks and events are random,
  from seeds (`benchmarks/workloads.py`).
- *ratio 4*: tau_mem = 4 tau_syn; elsewhere 2. *recurrent*: all hidden neurons are connected to each other, or 10 %
  of the pairs. *convolutions*: 2 x 34 x 34 pixels, 8 channels of 5 x 5, a pool of 2 x 2, 16 channels of 3 x 3.
- Milliseconds are for one batch: the smallest wall-clock time, and in brackets the smallest processor time of all
  cores, which depends less on other load.
- *native* and *xla* are the backends of this library. Both are exact, and their results are compared before timing.
- The other libraries use time steps and surrogate gradients. Their neurons fire as often as the time steps allow: see
  the table of spikes. *250 steps* in the first table is about those that were run with so many: see the second.""",
        _table("Forward + backward, ms", cases, _time_columns(), _milliseconds),
        _table("Spikes per neuron of the first layer", cases, _time_columns(), _fired),
        _table("One sample, forward only, ms", cases, _columns(("one",)), _milliseconds),
        _table("First call, s", cases, _columns((COARSE,)), _first),
        _table(
            "Peak memory above the imports, MB, forward + backward alone",
            cases,
            _columns((COARSE,)),
            _megabytes,
        ),
        _growth(data["cases"]),
        "### Targets for networks of real size",
        targets_text(targets(cases)),
        _left_out(cases),
        END,
    ]
    return "\n\n".join(part for part in parts if part)


def _summary(cases: list[Case]) -> str:
    """Return how many times faster the native backend is than the fastest time-stepped library."""
    lines = [
        f"| Times faster than the fastest time-stepped library: network (batch) | spikes per neuron | {STEPS} steps "
        f"| {RESOLUTIONS[1]} steps | one sample, forward, {STEPS} steps |",
        "|---|--:|--:|--:|--:|",
    ]
    for case in cases:
        cells = [_work(case), _fired(case, "native", COARSE)]
        for row in (COARSE, FINE, "one"):
            ours = "native", "one" if row == "one" else COARSE
            ratios = [_times(case, (peer, row), ours) for peer in PEERS]
            measured = [ratio[0] for ratio in ratios if ratio]
            cells.append(f"{min(measured):.3g}" if measured else "")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def with_section(page: str, text: str) -> str:
    """Return a page with this section in place of the one that it has, or after its first line."""
    if BEGIN in page:
        before, rest = page.split(BEGIN)
        return before + text + rest.split(END)[1]
    title, rest = page.split("\n", 1)
    return f"{title}\n\n{text}\n{rest}"


def _columns(rows: tuple[str, ...]) -> list[tuple[str, str]]:
    return [(library, row) for library in (*BACKENDS, *PEERS) for row in rows]


def _time_columns() -> list[tuple[str, str]]:
    finer = [(peer, row_name(steps)) for peer in PEERS for steps in RESOLUTIONS]
    return [*((backend, COARSE) for backend in BACKENDS), *finer]


def _title(cases: list[Case], library: str, row: str) -> str:
    title = next((case["titles"][library] for case in cases if library in case["titles"]), library)
    if library in BACKENDS:
        return library
    steps = next((str(n) for n in RESOLUTIONS if row_name(n) == row), str(STEPS))
    return f"{title}, {steps} steps"


def _table(head: str, cases: list[Case], columns: list[tuple[str, str]], cell: Any) -> str:
    """Return a table with a row for each case, without empty columns."""
    shown = {column: [cell(case, *column) for case in cases] for column in columns}
    shown = {column: cells for column, cells in shown.items() if any(cells)}
    titles = [f"{head}: network (batch)", *(_title(cases, *column) for column in shown)]
    lines = ["| " + " | ".join(titles) + " |", "|---|" + "--:|" * len(shown)]
    for number, case in enumerate(cases):
        cells = [_work(case), *(cells[number] for cells in shown.values())]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _work(case: Case) -> str:
    name, batch = case["name"], ROWS[case["name"]].batch
    return name if name.endswith(f"batch {batch}") else f"{name} ({batch})"


def _least(case: Case, library: str, row: str, clock: str = "seconds") -> float | None:
    seconds = case[clock].get(row, {}).get(library)
    return min(seconds) if seconds else None


def _number(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _milliseconds(case: Case, library: str, row: str) -> str:
    wall, processor = (_least(case, library, row, clock) for clock in ("seconds", "processor"))
    return f"{_number(1000 * wall)} ({_number(1000 * processor)})" if wall and processor else ""


def _fired(case: Case, library: str, row: str) -> str:
    spikes = case["fired"].get(library, {}).get(row)
    return "" if spikes is None else f"{spikes:.3g}"


def _first(case: Case, library: str, row: str) -> str:
    seconds = case["first"].get(library, {}).get(row)
    return "" if seconds is None else f"{seconds:.1f}"


def _megabytes(case: Case, library: str, row: str) -> str:
    memory = case["memory"].get(library)
    return f"{memory / 2**20:.0f}" if memory else ""


# ---- targets


def targets(cases: list[Case]) -> list[Target]:
    """Return all targets of networks of real size with what was measured."""
    by_name = {case["name"]: case for case in cases}
    return [*_peer_targets(by_name), *_ratio_targets(by_name), *_start_targets(cases)]


def _times(case: Case, slow: tuple[str, str], fast: tuple[str, str]) -> tuple[float, float] | None:
    """Return how many times longer `slow` takes than `fast`, in wall-clock and in processor time."""
    ratios = []
    for clock in ("seconds", "processor"):
        numerator, denominator = _least(case, *slow, clock), _least(case, *fast, clock)
        if not numerator or not denominator:
            return None
        ratios.append(numerator / denominator)
    return ratios[0], ratios[1]


def _ratio_shown(ratio: tuple[float, float]) -> str:
    return f"{ratio[0]:.3g} ({ratio[1]:.3g})"


def _peer_targets(cases: Mapping[str, Case]) -> Iterator[Target]:
    """Compare the native backend with other libraries."""
    native = "native", COARSE
    for row, steps in ((COARSE, STEPS), (FINE, RESOLUTIONS[1])):
        for name, minimum in AHEAD_OF_SPYX.items():
            minimum = minimum if row == COARSE else AHEAD_IN_250_STEPS
            ratio = name in cases and _times(cases[name], ("spyx", row), native)
            if ratio:
                description = f"{name}: native, faster than Spyx in {steps} steps"
                yield _at_least(description, minimum, ratio)
    for name, case in cases.items():
        for row, minimum in ((COARSE, AHEAD_OF_ALL.get(name)), ("one", 1.0)):
            ratios = [_times(case, (peer, row), ("native", row)) for peer in PEERS]
            measured = [ratio for ratio in ratios if ratio]
            if measured and minimum:
                part = "one sample forward, " if row == "one" else ""
                description = f"{name}: {part}native, faster than the fastest peer in {STEPS} steps"
                yield _at_least(description, minimum, min(measured))


def _at_least(description: str, minimum: float, ratio: tuple[float, float]) -> Target:
    return Target(description, f"{minimum:g} x", _ratio_shown(ratio), ratio[0] >= minimum)


def _ratio_targets(cases: Mapping[str, Case]) -> Iterator[Target]:
    """Compare the native backend at two ratios of the time constants."""
    if all(name in cases for name in RATIOS):
        pairs = [
            [_least(cases[name], "native", COARSE, clock) for name in RATIOS]
            for clock in ("seconds", "processor")
        ]
        if all(two and four for two, four in pairs):
            ratio = tuple(four / two for two, four in pairs)  # pyright: ignore[reportOperatorIssue]
            description = f"{RATIOS[1]}: native, time divided by that of ratio 2"
            yield Target(description, "at most 2", _ratio_shown(ratio), ratio[0] <= 2)  # pyright: ignore[reportArgumentType]


def _start_targets(cases: list[Case]) -> Iterator[Target]:
    """Look for the slowest first call and the largest memory of each backend."""
    for backend in BACKENDS:
        calls = {
            case["name"]: max(case["first"][backend].values())
            for case in cases
            if case["first"].get(backend)
        }
        if calls:
            name = max(calls, key=calls.__getitem__)
            yield Target(
                f"{backend}: first call, the slowest row",
                f"below {MAX_FIRST_CALL:g} s",
                f"{calls[name]:.1f} s, {name}",
                calls[name] < MAX_FIRST_CALL,
            )
        memory = {
            case["name"]: case["memory"][backend] / 2**20
            for case in cases
            if backend in case["memory"] and ROWS[case["name"]].batch <= 32
        }
        if memory:
            name = max(memory, key=memory.__getitem__)
            yield Target(
                f"{backend}: peak memory, the largest row of batch 32 or less",
                f"below {MAX_MEGABYTES[backend]} MB",
                f"{memory[name]:.0f} MB, {name}",
                memory[name] < MAX_MEGABYTES[backend],
            )


def _growth(cases: list[Case]) -> str:
    """Return times of growing networks, with a thread for each processor and with one thread."""
    lines = []
    for case in (case for case in cases if case["kind"] in GROWTH):
        cells = [
            _milliseconds(case, backend, row)
            for row in (COARSE, ONE_THREAD)
            for backend in BACKENDS
        ]
        lines.append(f"| {case['name']} | " + " | ".join(cells) + " |")
    if not lines:
        return ""
    titles = [*BACKENDS, *(f"{backend}, one thread" for backend in BACKENDS)]
    head = "| 700-256-20, forward + backward, ms | " + " | ".join(titles) + " |"
    return "\n".join([head, "|---|" + "--:|" * len(titles), *lines])


def _left_out(cases: list[Case]) -> str:
    """Return which rows were not run, and why."""
    reasons = [
        f"{case['name']}, {case['titles'].get(name, name)}: {reason}"
        for case in cases
        for name, reason in case["reasons"].items()
    ]
    return "Not run: " + "; ".join(reasons) + "." if reasons else ""
