"""Times this library and its peers on the same work, interleaved, in one run.

    make bench                                # installs the peers, each into its own environment
    python benchmarks/run.py --sizes 120      # once they are installed

Before anything is timed, every library's spike times and gradients are compared with a float64
brute-force reference. The table goes to stdout, everything measured to benchmarks/results/.
"""

import argparse
import json
import platform
import statistics
import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from protocol import Worker
from workload import BATCH, INPUTS, OUTPUTS, Reference, feed_forward, reference

HERE = Path(__file__).parent
RESULTS = HERE / "results"
PEER_ENVIRONMENTS = HERE.parent / ".venv-peers"

WORKERS = {
    "ours": (Path(sys.executable), HERE / "ours.py"),
    "jaxsnn": (PEER_ENVIRONMENTS / "jaxsnn" / "bin" / "python", HERE / "peer_jaxsnn.py"),
}
ROWS = {
    "forward": "forward",
    "weights": "forward + backward, weights",
    "all": "forward + backward, all parameters",
}
# A library without a row is compared by its row that comes nearest.
NEAREST_ROW = {"all": "weights"}
MOST_WRONG = {"spike times": 1e-2, "gradients": 5e-2}


def errors(results: Mapping[str, np.ndarray], expected: Reference) -> dict[str, float]:
    """How far a library's results are from the reference.

    "spike times": the largest difference, in units of tau_syn. "gradients": the largest relative
    error of a gradient's norm.
    """
    wanted: dict[str, np.ndarray | float] = {
        **{name: getattr(expected, name) for name in ("hidden_weights", "output_weights", "input_times")},
        **expected.parameters,
    }
    relative = {
        name: float(np.linalg.norm(results[name] - value) / np.linalg.norm(value))
        for name, value in wanted.items()
        if name in results
    }
    times = float(np.abs(results["output_times"] - expected.output_times).max())
    return {"spike times": times, "gradients": max(relative.values())}


def refuse_wrong_results(wrong: Mapping[str, Mapping[str, float]]) -> None:
    """Timing a library that computes something else would say nothing."""
    for library, figures in wrong.items():
        for what, error in figures.items():
            if not error <= MOST_WRONG[what]:
                sys.exit(
                    f"{library}: the {what} differ from the reference by {error:.2g}, "
                    f"more than {MOST_WRONG[what]:.2g}: not timed"
                )


def interleave(
    workers: Mapping[str, Worker], rows: Mapping[str, list[str]], *, rounds: int, seconds: float
) -> dict[str, dict[str, list[float]]]:
    """Times every row of every library, a turn each per round: {row: {library: [seconds]}}."""
    figures = {row: {name: [] for name in workers if row in rows[name]} for row in ROWS}
    for _ in range(rounds):
        for row, of_row in figures.items():
            for name, measured in of_row.items():
                measured += workers[name].ask(do="time", row=row, seconds=seconds)["seconds"]
    return figures


def measure(hidden: int, *, rounds: int, seconds: float) -> dict[str, Any]:
    """Everything about one size of network."""
    work = feed_forward(hidden)
    expected = reference(work, parameters=hidden == 120)
    file = RESULTS / f"work-{hidden}.npz"
    work.save(file)
    with ExitStack() as stack:
        workers = {
            name: stack.enter_context(Worker(python, script, RESULTS / f"{name}.log"))
            for name, (python, script) in WORKERS.items()
        }
        loaded = {name: worker.ask(do="load", work=str(file)) for name, worker in workers.items()}
        wrong = {}
        for name, worker in workers.items():
            answer = RESULTS / f"{name}-{hidden}.npz"
            worker.ask(do="results", file=str(answer))
            with np.load(answer) as arrays:
                wrong[name] = errors(dict(arrays), expected)
        refuse_wrong_results(wrong)
        rows = {name: answer["rows"] for name, answer in loaded.items()}
        figures = interleave(workers, rows, rounds=rounds, seconds=seconds)
    return {
        "hidden": hidden,
        "libraries": {name: answer["library"] for name, answer in loaded.items()},
        "errors": wrong,
        "seconds": figures,
    }


def milliseconds(seconds: list[float]) -> str:
    return f"{1e3 * statistics.median(seconds):.3g} ({1e3 * min(seconds):.3g})"


def table(results: list[dict[str, Any]]) -> str:
    """The timings as Markdown: median (minimum) in milliseconds, and the ratios of both."""
    ours, *peers = results[0]["libraries"]
    names = results[0]["libraries"]
    lines = [
        f"Feed-forward {INPUTS}-N-{OUTPUTS}, batch {BATCH}, one spike per neuron; milliseconds "
        "per batch, median (minimum).",
        "",
        f"| N | | {' | '.join(names.values())} | ratio |",
        f"|---|---|{'---|' * len(names)}---|",
    ]
    for result in results:
        for row, label in ROWS.items():
            figures = result["seconds"][row]
            cells = [milliseconds(figures[ours])]
            for peer in peers:
                nearest = row if peer in figures else NEAREST_ROW[row]
                theirs = result["seconds"][nearest][peer]
                note = "" if nearest == row else f" [{nearest} only]"
                cells.append(milliseconds(theirs) + note)
                medians = statistics.median(theirs) / statistics.median(figures[ours])
                minima = min(theirs) / min(figures[ours])
                cells.append(f"{medians:.0f} ({minima:.0f})")
            lines.append(f"| {result['hidden']} | {label} | {' | '.join(cells)} |")
    lines += ["", "Largest error against the float64 reference:", ""]
    lines += ["| N | library | spike times, tau_syn | gradients, relative |", "|---|---|---|---|"]
    for result in results:
        for name, wrong in result["errors"].items():
            shown = f"{wrong['spike times']:.1e} | {wrong['gradients']:.1e}"
            lines.append(f"| {result['hidden']} | {names[name]} | {shown} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description="Time this library and its peers.")
    parser.add_argument("--sizes", default="120,500,1000", help="hidden neurons, with commas")
    parser.add_argument("--rounds", type=int, default=7, help="turns of each library")
    parser.add_argument("--seconds", type=float, default=0.3, help="at least, for one turn")
    arguments = parser.parse_args()

    RESULTS.mkdir(exist_ok=True)
    results = []
    for hidden in map(int, arguments.sizes.split(",")):
        print(f"5-{hidden}-3", file=sys.stderr, flush=True)
        results.append(measure(hidden, rounds=arguments.rounds, seconds=arguments.seconds))
    print(table(results))
    file = RESULTS / time.strftime("feed-forward-%Y%m%d-%H%M%S.json")
    machine = {"platform": platform.platform(), "processor": platform.processor()}
    file.write_text(json.dumps({"machine": machine, "results": results}, indent=1))
    print(f"written: {file}", file=sys.stderr)


if __name__ == "__main__":
    main()
