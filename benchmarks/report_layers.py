"""The part of the document on work of real size: what a run measured, and which marks it meets."""

from collections.abc import Iterator, Mapping
from typing import Any

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
#: Row -> time in times of Spyx's before the XLA engine went in blocks, and how many times less is
#: meant.
XLA_BEFORE = {
    "700-256-20, 8,000 events": (1940 / 28, 6.0),
    "700-1024-20, 8,000 events": (4551 / 70, 6.0),
    _CONVOLUTIONS[0]: (1635 / 303, 3.0),
    _CONVOLUTIONS[1]: (8654 / 1357, 3.0),
}
RATIOS = ("700-256-20, 8,000 events", "700-256-20, 8,000 events, ratio 4")
FIRST_CALL, MOST_MEGABYTES = 8.0, {"native": 150, "xla": 500}


def section(data: Mapping[str, Any]) -> str:
    """Tables and marks, between the lines that tell where they stand."""
    cases = [case for case in data["cases"] if case["kind"] == "layers"]
    machine, load = data["machine"], data["machine"]["load"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    parts = [
        BEGIN,
        f"""## Work of real size

Measured on {machine["date"]}: {machine["processor"]}, {machine["cores"]} cores, CPU only, Python
{machine["python"]}, {versions}; load average {min(load)} to {max(load)}. Only ratios within the run
carry over. Networks and events are random, from seeds (`benchmarks/workloads.py`). Times are
milliseconds for one batch: the smallest by the clock, and in brackets the smallest of all
processors together, which others on the machine move less. Peers step, with surrogate gradients,
and fire as often as their steps let them; both backends are exact, and are compared with each other
before they are timed.""",
        _table("Forward + backward, ms", cases, _time_columns(), _milliseconds),
        _table("Spikes of a neuron of the first layer", cases, _time_columns(), _fired),
        _table("One sample, forward only, ms", cases, _columns(("one",)), _milliseconds),
        _table("First call, s", cases, _columns((COARSE,)), _first),
        _table(
            "Peak memory above the imports, MB, forward + backward alone",
            cases,
            _columns((COARSE,)),
            _megabytes,
        ),
        _marks(cases),
        _growth(data["cases"]),
        _left_out(cases),
        END,
    ]
    return "\n\n".join(part for part in parts if part)


def with_section(page: str, text: str) -> str:
    """A page with this section in place of the one that it has, or behind its first line."""
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
    """A line for each case; columns that nobody has anything for are left out."""
    shown = {column: [cell(case, *column) for case in cases] for column in columns}
    shown = {column: cells for column, cells in shown.items() if any(cells)}
    titles = [f"{head}: work (batch)", *(_title(cases, *column) for column in shown)]
    lines = ["| " + " | ".join(titles) + " |", "|---|" + "--:|" * len(shown)]
    for number, case in enumerate(cases):
        cells = [_work(case), *(cells[number] for cells in shown.values())]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _work(case: Case) -> str:
    name, batch = case["name"], ROWS[case["name"]].batch
    return name if name.endswith(f"batch {batch}") else f"{name} ({batch})"


def _least(case: Case, library: str, row: str, what: str = "seconds") -> float | None:
    found = case[what].get(row, {}).get(library)
    return min(found) if found else None


def _number(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _milliseconds(case: Case, library: str, row: str) -> str:
    clock, used = (_least(case, library, row, what) for what in ("seconds", "processor"))
    return f"{_number(1000 * clock)} ({_number(1000 * used)})" if clock and used else ""


def _fired(case: Case, library: str, row: str) -> str:
    found = case["fired"].get(library, {}).get(row)
    return "" if found is None else f"{found:.3g}"


def _first(case: Case, library: str, row: str) -> str:
    found = case["first"].get(library, {}).get(row)
    return "" if found is None else f"{found:.1f}"


def _megabytes(case: Case, library: str, row: str) -> str:
    found = case["memory"].get(library)
    return f"{found / 2**20:.0f}" if found else ""


# ---- marks


def _marks(cases: list[Case]) -> str:
    by_name = {case["name"]: case for case in cases}
    lines = ["| what | mark | measured, by the clock (of all processors) | |", "|---|---|---|---|"]
    for what, mark, shown, met in (*_ahead(by_name), *_ours(by_name), *_starts(cases)):
        lines.append(f"| {what} | {mark} | {shown} | {'met' if met else '**missed**'} |")
    return "\n".join(lines)


def _times(case: Case, one: tuple[str, str], other: tuple[str, str]) -> tuple[float, float] | None:
    """How many times longer the first takes than the second: by the clock, of all processors."""
    found = []
    for what in ("seconds", "processor"):
        first, second = _least(case, *one, what), _least(case, *other, what)
        if not first or not second:
            return None
        found.append(first / second)
    return found[0], found[1]


def _ratio_shown(ratio: tuple[float, float]) -> str:
    return f"{ratio[0]:.3g} ({ratio[1]:.3g})"


def _ahead(cases: Mapping[str, Case]) -> Iterator[tuple[str, str, str, bool]]:
    """The native backend beside peers."""
    native = "native", COARSE
    for row, steps in ((COARSE, STEPS), (FINE, RESOLUTIONS[1])):
        for name, least in AHEAD_OF_SPYX.items():
            least = least if row == COARSE else AHEAD_IN_250_STEPS
            ratio = name in cases and _times(cases[name], ("spyx", row), native)
            if ratio:
                what = f"{name}: native, faster than Spyx in {steps} steps"
                yield what, f"{least:g} x", _ratio_shown(ratio), ratio[0] >= least
    for name, case in cases.items():
        for row, least in ((COARSE, AHEAD_OF_ALL.get(name)), ("one", 1.0)):
            of_native = "native", row
            ratios = [_times(case, (peer, row), of_native) for peer in PEERS]
            there = [ratio for ratio in ratios if ratio]
            if there and least:
                ratio = min(there)
                part = "one sample forward, " if row == "one" else ""
                what = f"{name}: {part}native, faster than the fastest peer in {STEPS} steps"
                yield what, f"{least:g} x", _ratio_shown(ratio), ratio[0] >= least


def _ours(cases: Mapping[str, Case]) -> Iterator[tuple[str, str, str, bool]]:
    """The backends beside themselves."""
    if all(name in cases for name in RATIOS):
        found = [
            [_least(cases[name], "native", COARSE, what) for name in RATIOS]
            for what in ("seconds", "processor")
        ]
        if all(one and four for one, four in found):
            ratio = tuple(four / one for one, four in found)  # pyright: ignore[reportOperatorIssue]
            what = f"{RATIOS[1]}: native, in times of ratio 2"
            yield what, "at most 2", _ratio_shown(ratio), ratio[0] <= 2  # pyright: ignore[reportArgumentType]
    for name, (before, least) in XLA_BEFORE.items():
        ratio = name in cases and _times(cases[name], ("spyx", COARSE), ("xla", COARSE))
        if ratio:
            ratio = before * ratio[0], before * ratio[1]
            what = f"{name}: xla, faster than before it went in blocks (both in times of Spyx)"
            yield what, f"{least:g} x", _ratio_shown(ratio), ratio[0] >= least


def _starts(cases: list[Case]) -> Iterator[tuple[str, str, str, bool]]:
    """The slowest first call and the largest memory of each backend."""
    for backend in BACKENDS:
        calls = {
            case["name"]: max(case["first"][backend].values())
            for case in cases
            if case["first"].get(backend)
        }
        if calls:
            name = max(calls, key=calls.__getitem__)
            what, shown = f"{backend}: first call, the slowest row", f"{calls[name]:.1f} s, {name}"
            yield what, f"below {FIRST_CALL:g} s", shown, calls[name] < FIRST_CALL
        held = {
            case["name"]: case["memory"][backend] / 2**20
            for case in cases
            if backend in case["memory"] and ROWS[case["name"]].batch <= 32
        }
        if held:
            name, most = max(held, key=held.__getitem__), MOST_MEGABYTES[backend]
            what = f"{backend}: peak memory, the largest row of batch 32 or less"
            yield what, f"below {most} MB", f"{held[name]:.0f} MB, {name}", held[name] < most


def _growth(cases: list[Case]) -> str:
    """How times grow, with a thread for each processor and with one alone."""
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
    """What was not run, and why."""
    found = [
        f"{case['name']}, {case['titles'].get(name, name)}: {reason}"
        for case in cases
        for name, reason in case["reasons"].items()
    ]
    return "Not run: " + "; ".join(found) + "." if found else ""
