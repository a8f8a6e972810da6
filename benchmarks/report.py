"""The tables of a run as a document."""

import math
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from report_layers import BEGIN, END, section, with_section

Case = Mapping[str, Any]

NOTES = Path(__file__).parent / "notes.md"
#: (peer, its row, our row, kind of case) -> size of the case -> how many times faster this library
#: is meant to be.
MARKS: dict[tuple[str, str, str, str], dict[int, float]] = {
    ("jaxsnn-eventprop", "weights", "weights", "feed-forward"): {120: 50, 500: 100, 1000: 180},
    ("jaxsnn-eventprop", "weights", "all", "feed-forward"): {120: 30, 500: 60, 1000: 100},
    ("snntorch", "weights", "weights", "feed-forward"): {120: 50, 500: 50},
    ("norse", "weights", "weights", "feed-forward"): {120: 60, 500: 30, 1000: 20},
    ("spyx", "weights", "weights", "feed-forward"): {120: 5, 500: 10, 1000: 15},
    ("eventax-tsit5", "weights", "weights", "feed-forward"): {120: 1000},
    ("jaxsnn-eventprop", "weights", "weights", "recurrent"): {120: 28, 500: 100},
    ("jaxsnn-eventprop", "weights", "all", "recurrent"): {120: 15, 500: 60},
}
MOST_OF_NATIVE = 2.0
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
    "recurrent": "Recurrent, 5-N-3, batch 64, every hidden neuron feeds back to every other",
    "convolution": "Convolution 2 x 34 x 34, 16 channels, 5 x 5, stride 2, 4,000 events",
    "events": "Convolution, growth with the input events at a fixed number of spikes per neuron",
    "taps": "Convolution, growth with the taps of the kernel, 4,000 events, fixed number of spikes per neuron",
    "batch": "Feed-forward 5-120-3, growth with the batch",
}
GROWTH = ("feed-forward", "spikes", "recurrent", "events", "taps", "batch")


def document(data: Mapping[str, Any], page: str) -> str:
    """docs/performance.md after a run: what that did not measure stays as it is on the page."""
    kinds = {case["kind"] for case in data["cases"]}
    if not kinds.isdisjoint(TITLES):
        kept = BEGIN + page.split(BEGIN)[1].split(END)[0] + END if BEGIN in page else ""
        page = with_section(f"# Performance\n\n{_of_small_work(data)}", kept)
    return with_section(page, section(data)) if "layers" in kinds else page


def _of_small_work(data: Mapping[str, Any]) -> str:
    """What stands below the work of real size."""
    cases = data["cases"]
    parts = [_preface(data), _marks(cases)]
    for kind, title in TITLES.items():
        of_kind = [case for case in cases if case["kind"] == kind]
        if of_kind:
            parts.append(f"## {title}\n\n" + "\n\n".join(_table(case) for case in of_kind))
    parts.append(_growth(cases))
    if NOTES.exists():
        parts.append(NOTES.read_text().strip())
    return "\n\n".join(parts) + "\n"


def _preface(data: Mapping[str, Any]) -> str:
    machine = data["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    load = machine["load"]
    minutes = f", in {data['minutes']:.0f} minutes" if "minutes" in data else ", in parts"
    return f"""## Small work

Written by `make bench` on {machine["date"]}{minutes}: {machine["processor"]}, {machine["cores"]} cores, CPU only,
{machine["system"]}, Python {machine["python"]}, {versions}.
Load average during the run: {min(load)} to {max(load)}. Only ratios carry over to another machine.

Every library gets the same network and the same batch, in a process of its own, and takes turns with the others. Before
it is timed its spikes and gradients are compared with a float64 reference in plain NumPy; libraries that step, with a
float64 model of their own scheme. Times are milliseconds for one batch, median (minimum). *Error*: largest difference
of a spike time in tau_syn (of libraries that step: of the number of output spikes in a step), and largest relative
error of a gradient. *Memory*: peak of the process, compiling and checking included, less what importing took (in
brackets: without the row *all*, which peers do not have; after a slash, where measured: of forward and weights in a
second process, which finds the programs in JAX's compilation cache). *First call*: seconds of the first call of the
slowest row, for libraries that compile.

A library is not run where a row takes over 60 s, compiling over 90 s, or where it holds over 12 GB. Libraries that
have no gradient by all parameters are compared by their gradient of weights. torch runs with as many threads as are
fastest. The native limit is plain loops in C, float32, one thread, without vector instructions; it has the gradients of
weights and input times, and needs tau_mem = 2 tau_syn."""


def _median(case: Case, row: str, library: str) -> float | None:
    found = case["seconds"].get(row, {}).get(library)
    return statistics.median(found) if found else None


def _ratio(case: Case, peer: str, peer_row: str, row: str) -> tuple[float, float] | None:
    """How many times faster this library is: by medians, by minima."""
    theirs = case["seconds"].get(peer_row, {}).get(peer)
    ours = case["seconds"].get(row, {}).get("native")
    if not theirs or not ours:
        return None
    return statistics.median(theirs) / statistics.median(ours), min(theirs) / min(ours)


def _found(cases: list[Case], kind: str, size: int) -> Case | None:
    return next((case for case in cases if (case["kind"], case["size"]) == (kind, size)), None)


def _marks(cases: list[Case]) -> str:
    lines = ["## Marks", "", "| what | mark | measured (minima) | |", "|---|---|---|---|"]
    for (peer, peer_row, row, kind), sizes in MARKS.items():
        for size, least in sizes.items():
            case = _found(cases, kind, size)
            if case is None:
                continue
            title = case["titles"].get(peer, peer)
            ratio = _ratio(case, peer, peer_row, row)
            what = f"{case['name']}, {LABELS[row]}, faster than {title}"
            shown = (
                f"{ratio[0]:.3g} ({ratio[1]:.3g})"
                if ratio
                else f"not run: {case['reasons'].get(peer, '')}"
            )
            verdict = "" if ratio is None else "met" if ratio[0] >= least else "**missed**"
            lines.append(f"| {what} | {least:g} x | {shown} | {verdict} |")
    return "\n".join(lines + _native_marks(cases) + _memory_marks(cases) + _growth_marks(cases))


def _native_marks(cases: list[Case]) -> list[str]:
    lines = []
    for case in cases:
        for row in ("forward", "weights"):
            ratio = _ratio(case, "loops", row, row)
            if ratio:
                found = 1 / ratio[0]
                verdict = "met" if found <= MOST_OF_NATIVE else "**missed**"
                what = f"{case['name']}, {LABELS[row]}, time in times of the native loop"
                lines.append(
                    f"| {what} | at most {MOST_OF_NATIVE:g} | {found:.2g} ({1 / ratio[1]:.2g}) | {verdict} |"
                )
    return lines


def _memory_marks(cases: list[Case]) -> list[str]:
    lines = []
    for kind, libraries in PEERS.items():
        lines += _below(cases, "memory", libraries, "peak memory", f"below every {kind} peer")
    return lines + _below(
        cases,
        "memory_from_cache",
        PEERS["JAX"],
        "peak memory, programs from a cache",
        "below every JAX peer",
    )


def _below(
    cases: list[Case], field: str, libraries: tuple[str, ...], what: str, mark: str
) -> list[str]:
    lines = []
    for case in cases:
        found = case.get(field, {})
        peers = {name: count for name, count in found.items() if name in libraries}
        if peers and "native" in found:
            least = min(peers, key=peers.__getitem__)
            ours = (
                case.get("memory_of_weights", {}).get("native", found["native"])
                if field == "memory"
                else found["native"]
            )
            verdict = "met" if ours < peers[least] else "**missed**"
            shown = f"{_megabytes(ours)} MB; {case['titles'][least]} {_megabytes(peers[least])} MB"
            lines.append(f"| {case['name']}, {what} | {mark} | {shown} | {verdict} |")
    return lines


def _growth_marks(cases: list[Case]) -> list[str]:
    lines = []
    for kind, what in (
        ("spikes", "spikes per neuron"),
        ("events", "input events"),
        ("taps", "taps"),
    ):
        for row in ("forward", "weights"):
            exponent = _exponent(cases, kind, row, "native")
            if exponent is not None:
                verdict = "met" if exponent <= 1.05 else "**missed**"
                lines.append(
                    f"| growth with {what}, {LABELS[row]}, exponent | at most 1 | {exponent:.2f} | {verdict} |"
                )
    return lines


def _megabytes(count: float) -> str:
    return f"{count / 2**20:.0f}"


def _memory(case: Case, library: str) -> str:
    """Of all its rows; of forward and weights alone, which all libraries have, where it has more;
    from a cache.
    """
    found, fewer = (
        case["memory"].get(library, math.nan),
        case.get("memory_of_weights", {}).get(library),
    )
    cached = case.get("memory_from_cache", {}).get(library)
    return "".join(
        [
            _megabytes(found),
            f" ({_megabytes(fewer)})" if fewer else "",
            f" / {_megabytes(cached)}" if cached else "",
        ]
    )


def _cell(case: Case, row: str, library: str) -> str:
    found = case["seconds"].get(row, {}).get(library)
    if not found:
        return ""
    shown = [1000 * value for value in (statistics.median(found), min(found))]
    return "{} ({})".format(
        *(f"{value:.0f}" if value >= 100 else f"{value:.3g}" for value in shown)
    )


def _table(case: Case) -> str:
    """One case: a line for each library."""
    head = [
        "",
        "forward",
        "weights",
        "all",
        "ratio, weights",
        "error: spikes",
        "gradients",
        "memory, MB",
        "first call, s",
    ]
    lines = [f"**{case['name']}**, {case['spikes_per_neuron']:.3g} spikes per neuron", ""]
    lines += ["| " + " | ".join(head) + " |", "|---|" + "--:|" * (len(head) - 1)]
    compiles = lambda name: name in OURS or name.startswith(("jaxsnn", "eventax", "spyx"))  # noqa: E731
    for library, title in case["titles"].items():
        if library in case["reasons"] and library not in case["errors"]:
            continue
        ratio = _ratio(case, library, "weights", "weights")
        spikes, gradients = case["errors"][library]
        cells = [_cell(case, row, library) for row in LABELS]
        cells.append("" if ratio is None or library == "native" else f"{ratio[0]:.3g}")
        cells += [f"{spikes:.1e}", f"{gradients:.1e}", _memory(case, library)]
        first = max(case["first"][library].values()) if compiles(library) else None
        cells.append("" if first is None else f"{first:.1f}")
        lines.append(f"| {title} | " + " | ".join(cells) + " |")
    reasons = [
        f"{case['titles'].get(name, name)}: {reason}" for name, reason in case["reasons"].items()
    ]
    return "\n".join(lines + (["", "Not run: " + "; ".join(reasons) + "."] if reasons else []))


def _exponent(cases: list[Case], kind: str, row: str, library: str) -> float | None:
    """Slope of log(median) over log(size), by least squares."""
    points = []
    for case in cases:
        median = _median(case, row, library)
        if case["kind"] == kind and median is not None:
            points.append((math.log(case["size"]), math.log(median)))
    if len(points) < 2:
        return None
    return statistics.linear_regression(*zip(*points, strict=True)).slope


def _growth(cases: list[Case]) -> str:
    """Fitted exponents of all curves."""
    lines = [
        "## Growth",
        "",
        "Time grows with the size to the power of (least squares on logarithms of medians):",
        "",
    ]
    lines += ["| | sizes | library | forward | weights | all |", "|---|---|---|--:|--:|--:|"]
    for kind in GROWTH:
        of_kind = [case for case in cases if case["kind"] == kind]
        names: dict[str, str] = {}
        for case in of_kind:
            names |= case["titles"]
        for library, title in names.items():
            exponents = [_exponent(cases, kind, row, library) for row in LABELS]
            sizes = [
                str(case["size"])
                for case in of_kind
                if _median(case, "forward", library) is not None
            ]
            if any(found is not None for found in exponents):
                shown = ["" if found is None else f"{found:.2f}" for found in exponents]
                lines.append(
                    f"| {kind} | {', '.join(sizes)} | {title} | " + " | ".join(shown) + " |"
                )
    return "\n".join(lines)
