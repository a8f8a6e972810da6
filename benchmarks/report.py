"""Write the tables of a run into docs/performance.md."""

import math
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from report_layers import BEGIN, END, Target, section, targets_text, with_section

Case = Mapping[str, Any]

NOTES = Path(__file__).parent / "notes.md"
#: (peer, its row, our row, kind of case) -> size of the case -> how many times faster this library
#: is meant to be.
TARGETS: dict[tuple[str, str, str, str], dict[int, float]] = {
    ("jaxsnn-eventprop", "weights", "weights", "feed-forward"): {120: 50, 500: 100, 1000: 180},
    ("jaxsnn-eventprop", "weights", "all", "feed-forward"): {120: 30, 500: 60, 1000: 100},
    ("snntorch", "weights", "weights", "feed-forward"): {120: 50, 500: 50},
    ("norse", "weights", "weights", "feed-forward"): {120: 60, 500: 30, 1000: 20},
    ("spyx", "weights", "weights", "feed-forward"): {120: 5, 500: 10, 1000: 15},
    ("eventax-tsit5", "weights", "weights", "feed-forward"): {120: 1000},
    ("jaxsnn-eventprop", "weights", "weights", "recurrent"): {120: 28, 500: 100},
    ("jaxsnn-eventprop", "weights", "all", "recurrent"): {120: 15, 500: 60},
}
MAX_TIME_OF_LOOP = 2.0
OURS = ("native", "xla")
PEERS = {
    "JAX": ("jaxsnn-eventprop", "jaxsnn-analytical", "eventax-euler", "eventax-tsit5", "spyx"),
    "torch": ("snntorch", "norse", "exact-event-adjoint"),
}
LABELS = {
    "forward": "forward",
    "weights": "forward + backward, weights",
    "all": "forward + backward, all parameters",
}
TITLES = {
    "feed-forward": "Feed-forward 5-N-3, batch 64, one spike per neuron",
    "spikes": "Several spikes per neuron, 5-120-3, batch 64",
    "recurrent": "Recurrent 5-N-3, batch 64, all hidden neurons connected to each other",
    "convolution": "Convolution 2 x 34 x 34, 16 channels, 5 x 5, stride 2, 4,000 events",
    "events": "Convolution, growth with the number of input events",
    "taps": "Convolution, growth with the size of the kernel, 4,000 events",
    "batch": "Feed-forward 5-120-3, growth with the batch",
}
GROWTH = ("feed-forward", "spikes", "recurrent", "events", "taps", "batch")
#: Kinds whose cases share a table, because only this library runs them.
IN_ONE_TABLE = ("events", "taps", "batch")


def document(data: Mapping[str, Any], page: str) -> str:
    """Return docs/performance.md after a run. The introduction, and tables that the run did not
    measure, stay as they are.
    """
    kinds = {case["kind"] for case in data["cases"]}
    if not kinds.isdisjoint(TITLES):
        introduction, large_networks = "# Performance\n\n", ""
        if BEGIN in page:
            introduction, rest = page.split(BEGIN)
            large_networks = f"{BEGIN}{rest.split(END)[0]}{END}\n\n"
        page = f"{introduction}{large_networks}{_small_networks(data)}"
    return with_section(page, section(data)) if "layers" in kinds else page


def _small_networks(data: Mapping[str, Any]) -> str:
    """Return the part of the page that follows the networks of real size."""
    cases = data["cases"]
    parts = [_preface(data)]
    for kind, title in TITLES.items():
        cases_of_kind = [case for case in cases if case["kind"] == kind]
        if not cases_of_kind:
            continue
        if kind in IN_ONE_TABLE:
            tables = _common_table(cases_of_kind)
        else:
            tables = "\n\n".join(_table(case) for case in cases_of_kind)
        parts.append(f"### {title}\n\n{tables}")
    parts += [_growth(cases), "### Targets", targets_text(targets(cases))]
    if NOTES.exists():
        parts.append(NOTES.read_text().strip())
    return "\n\n".join(parts) + "\n"


def _preface(data: Mapping[str, Any]) -> str:
    machine = data["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    load = machine["load"]
    minutes = f" in {data['minutes']:.0f} minutes" if "minutes" in data else " in parts"
    return f"""## Small networks

`make bench` wrote these tables on {machine["date"]}{minutes}: {machine["processor"]},
{machine["cores"]} cores, CPU only, {machine["system"]}, Python {machine["python"]}, {versions}; load average
{min(load)} to {max(load)}.

- Every library runs the same network and batch in its own process, in turn with the others.
- Before timing, spikes and gradients are compared with a float64 reference in NumPy. For a time-stepped library
  the reference is a float64 model of its scheme.
- A library is left out where a row takes over 60 s, compilation over 90 s, or memory exceeds 12 GB.
- torch uses the number of threads that is fastest.
- *C* is a plain loop in C: float32, one thread, no vector instructions, gradients with respect to weights and input
  times. It requires tau_mem = 2 tau_syn.

The columns are:

- *forward*, *weights*, *all*: milliseconds for one batch, median (minimum), of the forward pass, of the forward and
  backward pass with gradients of the weights, and of the same with gradients of all parameters.
- *ratio, weights*: the time of *weights* divided by that of the native backend.
- *error: spikes*: the largest difference of a spike time in tau_syn; for time-stepped libraries, of the number of
  output spikes in a step. *gradients*: the largest relative error of a gradient.
- *memory*: the peak of the process with compilation and checks, minus the memory after the imports. In brackets:
  without *all*. After a slash: *forward* and *weights* in a second process, which loads the programs from JAX's
  compilation cache.
- *first call*: seconds of the slowest first call, for libraries that compile."""


def _median(case: Case, row: str, library: str) -> float | None:
    seconds = case["seconds"].get(row, {}).get(library)
    return statistics.median(seconds) if seconds else None


def _ratio(case: Case, peer: str, peer_row: str, row: str) -> tuple[float, float] | None:
    """Return how many times faster this library is, by medians and by minima."""
    theirs = case["seconds"].get(peer_row, {}).get(peer)
    ours = case["seconds"].get(row, {}).get("native")
    if not theirs or not ours:
        return None
    return statistics.median(theirs) / statistics.median(ours), min(theirs) / min(ours)


def targets(cases: list[Case]) -> list[Target]:
    """Return all targets of small networks with what was measured."""
    rows = []
    for (peer, peer_row, row, kind), sizes in TARGETS.items():
        for case in cases:
            minimum = sizes.get(case["size"]) if case["kind"] == kind else None
            if minimum is None:
                continue
            title = case["titles"].get(peer, peer)
            ratio = _ratio(case, peer, peer_row, row)
            description = f"{case['name']}, {LABELS[row]}, faster than {title}"
            if ratio is None:
                reason = f"not run: {case['reasons'].get(peer, '')}"
                rows.append(Target(description, f"{minimum:g} x", reason, None))
            else:
                measured = f"{ratio[0]:.3g} ({ratio[1]:.3g})"
                rows.append(Target(description, f"{minimum:g} x", measured, ratio[0] >= minimum))
    return rows + _loop_targets(cases) + _memory_targets(cases) + _growth_targets(cases)


def _loop_targets(cases: list[Case]) -> list[Target]:
    rows = []
    for case in cases:
        for row in ("forward", "weights"):
            ratio = _ratio(case, "loops", row, row)
            if ratio:
                medians, minima = 1 / ratio[0], 1 / ratio[1]
                rows.append(
                    Target(
                        f"{case['name']}, {LABELS[row]}, time divided by that of the C loop",
                        f"at most {MAX_TIME_OF_LOOP:g}",
                        f"{medians:.2g} ({minima:.2g})",
                        medians <= MAX_TIME_OF_LOOP,
                    )
                )
    return rows


def _memory_targets(cases: list[Case]) -> list[Target]:
    rows = []
    for kind, libraries in PEERS.items():
        rows += _below(cases, "memory", libraries, "peak memory", f"below every {kind} peer")
    return rows + _below(
        cases,
        "memory_from_cache",
        PEERS["JAX"],
        "peak memory, programs from a cache",
        "below every JAX peer",
    )


def _below(
    cases: list[Case], field: str, libraries: tuple[str, ...], description: str, target: str
) -> list[Target]:
    rows = []
    for case in cases:
        memory = case.get(field, {})
        peers = {name: count for name, count in memory.items() if name in libraries}
        if peers and "native" in memory:
            smallest = min(peers, key=peers.__getitem__)
            ours = memory["native"]
            if field == "memory":
                ours = case.get("memory_of_weights", {}).get("native", ours)
            measured = f"{_megabytes(ours)} MB; {case['titles'][smallest]} {_megabytes(peers[smallest])} MB"
            rows.append(
                Target(f"{case['name']}, {description}", target, measured, ours < peers[smallest])
            )
    return rows


def _growth_targets(cases: list[Case]) -> list[Target]:
    rows = []
    for kind, variable in (
        ("spikes", "spikes per neuron"),
        ("events", "input events"),
        ("taps", "taps"),
    ):
        for row in ("forward", "weights"):
            exponent = _exponent(cases, kind, row, "native")
            if exponent is not None:
                description = f"growth with {variable}, {LABELS[row]}, exponent"
                rows.append(Target(description, "at most 1", f"{exponent:.2f}", exponent <= 1.05))
    return rows


def _megabytes(count: float) -> str:
    return f"{count / 2**20:.0f}"


def _memory(case: Case, library: str) -> str:
    """Return the peak of all rows; in brackets of forward and weights alone, which all libraries
    have; after a slash with programs from a cache.
    """
    peak = case["memory"].get(library, math.nan)
    peak_of_weights = case.get("memory_of_weights", {}).get(library)
    peak_from_cache = case.get("memory_from_cache", {}).get(library)
    return "".join(
        [
            _megabytes(peak),
            f" ({_megabytes(peak_of_weights)})" if peak_of_weights else "",
            f" / {_megabytes(peak_from_cache)}" if peak_from_cache else "",
        ]
    )


def _milliseconds(case: Case, row: str, library: str) -> str:
    seconds = case["seconds"].get(row, {}).get(library)
    if not seconds:
        return ""
    values = [1000 * value for value in (statistics.median(seconds), min(seconds))]
    return "{} ({})".format(
        *(f"{value:.0f}" if value >= 100 else f"{value:.3g}" for value in values)
    )


COLUMNS = [
    "forward",
    "weights",
    "all",
    "ratio, weights",
    "error: spikes",
    "gradients",
    "memory, MB",
    "first call, s",
]


def _rows(case: Case) -> list[list[str]]:
    """Return a row of cells for each library: its title, then `COLUMNS`."""
    rows = []
    for library, title in case["titles"].items():
        if library in case["reasons"] and library not in case["errors"]:
            continue
        ratio = _ratio(case, library, "weights", "weights")
        spikes, gradients = case["errors"][library]
        cells = [title, *(_milliseconds(case, row, library) for row in LABELS)]
        cells.append("" if ratio is None or library == "native" else f"{ratio[0]:.3g}")
        cells += [f"{spikes:.1e}", f"{gradients:.1e}", _memory(case, library)]
        compiles = library in OURS or library.startswith(("jaxsnn", "eventax", "spyx"))
        cells.append(f"{max(case['first'][library].values()):.1f}" if compiles else "")
        rows.append(cells)
    return rows


def _markdown(titles: list[str], rows: list[list[str]], left_aligned: int) -> str:
    columns = "|" + "---|" * left_aligned + "--:|" * (len(titles) - left_aligned)
    lines = ["| " + " | ".join(titles) + " |", columns]
    return "\n".join([*lines, *("| " + " | ".join(cells) + " |" for cells in rows)])


def _reasons(case: Case) -> list[str]:
    return [
        f"{case['titles'].get(name, name)}: {reason}" for name, reason in case["reasons"].items()
    ]


def _table(case: Case) -> str:
    """Return a table of one case: a row for each library."""
    name = f"**{case['name']}**, {case['spikes_per_neuron']:.3g} spikes per neuron"
    parts = [name, _markdown(["", *COLUMNS], _rows(case), 1)]
    reasons = _reasons(case)
    return "\n\n".join(parts + (["Not run: " + "; ".join(reasons) + "."] if reasons else []))


def _common_table(cases: list[Case]) -> str:
    """Return a table of several cases: a row for each case and library."""
    rows = [
        [case["name"], f"{case['spikes_per_neuron']:.3g}", *cells]
        for case in cases
        for cells in _rows(case)
    ]
    parts = [_markdown(["network", "spikes per neuron", "library", *COLUMNS], rows, 3)]
    reasons = [f"{case['name']}, {reason}" for case in cases for reason in _reasons(case)]
    return "\n\n".join(parts + (["Not run: " + "; ".join(reasons) + "."] if reasons else []))


def _exponent(cases: list[Case], kind: str, row: str, library: str) -> float | None:
    """Return the slope of log(median) over log(size), by least squares."""
    points = []
    for case in cases:
        median = _median(case, row, library)
        if case["kind"] == kind and median is not None:
            points.append((math.log(case["size"]), math.log(median)))
    if len(points) < 2:
        return None
    return statistics.linear_regression(*zip(*points, strict=True)).slope


def _growth(cases: list[Case]) -> str:
    """Return the fitted exponents of all curves."""
    rows = []
    for kind in GROWTH:
        cases_of_kind = [case for case in cases if case["kind"] == kind]
        titles: dict[str, str] = {}
        for case in cases_of_kind:
            titles |= case["titles"]
        for library, title in titles.items():
            exponents = [_exponent(cases, kind, row, library) for row in LABELS]
            sizes = [
                str(case["size"])
                for case in cases_of_kind
                if _median(case, "forward", library) is not None
            ]
            if any(exponent is not None for exponent in exponents):
                cells = ["" if exponent is None else f"{exponent:.2f}" for exponent in exponents]
                rows.append([kind, ", ".join(sizes), title, *cells])
    heading = "### Growth\n\nTime grows with the size to this power (least squares on logarithms of medians):"
    return f"{heading}\n\n{_markdown(['', 'sizes', 'library', *LABELS], rows, 3)}"
