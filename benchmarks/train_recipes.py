"""The training runs of examples/recipes, seed by seed, and their table in docs/results.md.

    python benchmarks/train_recipes.py examples/recipes/mnist-784-350-10.toml --data-folder MNIST --seeds 5
    python benchmarks/train_recipes.py examples/recipes/mnist-225-246-10-often.toml --data-folder MNIST \\
        --keep often{seed}.nir
    python benchmarks/train_recipes.py examples/recipes/mnist-225-246-10-chip.toml --data-folder MNIST \\
        --base often{seed}.nir
    python benchmarks/train_recipes.py examples/recipes/fsdd-336-32-10-adaptive.toml \\
        --data wav:RECORDINGS --neurons benchmarks/adaptive_lif.py
    python benchmarks/train_recipes.py --write

Seeds are 0, 1, ...; each draws the weights, the training samples that are held out for validation,
and the order; in the loop also the chip. A recipe without a network goes on with `--base`. The
validation samples choose the epoch, the test samples are looked at once. Each run is a line of
benchmarks/recipes.jsonl; a recipe that was changed since begins anew. `--write` makes the table of
them.
"""

import argparse
import hashlib
import json
import os
import resource
import runpy
import statistics
import sys
import time
import tomllib
from pathlib import Path
from typing import Any

from jaxsnn.commands.train_command import read_config
from jaxsnn.console import to_stderr
from jaxsnn.nir import read, write
from jaxsnn.nir.layer_tables import graph_of_table
from jaxsnn.train import TrainOptions, fit

#: Of the validation samples, %: when a run comes there is noted.
TARGET = 97.5
ROOT = Path(__file__).parents[1]
RUNS, PAGE = Path(__file__).with_name("recipes.jsonl"), ROOT / "docs" / "results.md"
BEGIN, END = "<!-- recipes: written by benchmarks/train_recipes.py -->", "<!-- end of recipes -->"


def digest(recipe: Path) -> str:
    """What a recipe says, as a hash."""
    said = json.dumps(tomllib.loads(recipe.read_text()), sort_keys=True)
    return hashlib.sha256(said.encode()).hexdigest()[:12]


def run(
    recipe: Path,
    seed: int,
    data: dict[str, Any],
    base: str | None = None,
    output: str | None = None,
    threads: int | None = None,
) -> dict[str, Any]:
    """One seed.

    Args:
        data: options that the recipe does not have.
        base: the network to begin with, where the recipe has none.
        output: where the trained network goes.
        threads: of the native kernels, which the results do not depend on.
    """
    options = read_config(str(recipe))
    if options.get("engine") == "loop":
        options["chip_seed"] = seed
    elif threads is not None:
        options["engine_options"] = {**(options.get("engine_options") or {}), "threads": threads}
    written = tomllib.loads(recipe.read_text())
    if not base and "network" not in written:
        sys.exit(f"{recipe}: there is no [network] in it: name the network to go on with by --base")
    graph = read(base) if base else graph_of_table(written["network"], seed)
    said = digest(recipe)  # now: it may be changed while it runs
    load, start = os.getloadavg()[0], time.perf_counter()
    processor = time.process_time()
    reached: list[float] = []

    def watch(line: str) -> None:
        to_stderr(f"{recipe.stem}, seed {seed}: {line}")
        if "  validation " in line and not reached:
            accuracy = float(line.split("validation")[1].split("%")[0])
            reached.extend([time.perf_counter() - start] if accuracy >= TARGET else [])

    given = TrainOptions(**options | data | {"seed": seed, "progress": watch})
    trained = fit(graph, options=given)
    if output:
        write(output, trained.graph, force=True)
    best = trained.history[trained.best_epoch]
    return {
        "recipe": recipe.stem,
        "digest": said,
        "seed": seed,
        "test": trained.test_accuracy,
        "validation": best.validation_accuracy,
        "best_epoch": best.epoch,
        "epochs": len(trained.history) - 1,
        "minutes": round((time.perf_counter() - start) / 60, 2),
        "cpu_minutes": round((time.process_time() - processor) / 60, 2),
        "minutes_to_target": round(reached[0] / 60, 2) if reached else None,
        "epoch_seconds": round(statistics.median(trained.seconds[1:]), 2),
        "spikes": {name: round(count, 2) for name, count in best.spikes.items()},
        "megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "load": [round(load, 1), round(os.getloadavg()[0], 1)],
        "notes": list(trained.notes),
    }


def current() -> dict[str, list[dict[str, Any]]]:
    """Recipe -> its runs, without those of a recipe that was changed; of one seed the last."""
    found: dict[str, dict[int, dict[str, Any]]] = {}
    for line in RUNS.read_text().splitlines() if RUNS.exists() else ():
        entry = json.loads(line)
        recipe = ROOT / "examples" / "recipes" / f"{entry['recipe']}.toml"
        if recipe.exists() and digest(recipe) == entry["digest"]:
            found.setdefault(entry["recipe"], {})[entry["seed"]] = entry
    return {name: [own[seed] for seed in sorted(own)] for name, own in sorted(found.items())}


def table() -> str:
    """The runs as a table of Markdown."""
    rows = [
        "| recipe | test, by seed | mean | epochs | minutes each"
        f" | minutes to {TARGET} % validated | spikes of a neuron | MB | processor minutes | load |",
        "|" + 10 * "---|",
    ]
    for name, runs in current().items():
        tests = [100 * own["test"] for own in runs]
        spread = f" +- {statistics.stdev(tests):.2f}" if len(tests) > 1 else ""
        spikes = ", ".join(f"{key}: {count}" for key, count in runs[0]["spikes"].items())
        loads = [load for own in runs for load in own["load"]]
        cells = [
            f"`{name}`",
            ", ".join(f"{value:.2f}" for value in tests),
            f"**{statistics.mean(tests):.2f}{spread} %**",
            f"{runs[0]['epochs']}",
            ", ".join(f"{own['minutes']:.1f}" for own in runs),
            ", ".join(_minutes(own["minutes_to_target"]) for own in runs),
            spikes,
            f"{max(own['megabytes'] for own in runs)}",
            ", ".join(_minutes(own.get("cpu_minutes")) for own in runs),
            f"{min(loads):.0f} to {max(loads):.0f}",
        ]
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def _minutes(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(description="Train by recipes.")
    parser.add_argument("recipes", nargs="*", type=Path)
    parser.add_argument("--data-folder")
    parser.add_argument("--data")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--threads", type=int, help="of the native kernels; by default all")
    parser.add_argument("--keep", help="where the trained network goes; {seed} is the seed")
    parser.add_argument("--base", help="the network to begin with; {seed} is the seed")
    parser.add_argument("--neurons", help="a file that registers the neurons of a recipe")
    parser.add_argument("--write", action="store_true", help="write the table into docs/results.md")
    arguments = parser.parse_args()
    named = {"data": arguments.data, "data_folder": arguments.data_folder}
    data = {name: value for name, value in named.items() if value is not None}
    if arguments.neurons:
        runpy.run_path(arguments.neurons)
    for recipe in arguments.recipes:
        for seed in range(arguments.first, arguments.first + arguments.seeds):
            base, output = (
                name and name.format(seed=seed) for name in (arguments.base, arguments.keep)
            )
            entry = run(recipe, seed, data, base, output, arguments.threads)
            with RUNS.open("a") as file:
                file.write(json.dumps(entry) + "\n")
            print(json.dumps(entry), flush=True)
    if arguments.write:
        before, rest = PAGE.read_text().split(BEGIN)
        PAGE.write_text(f"{before}{BEGIN}\n{table()}\n{END}{rest.split(END)[1]}")


if __name__ == "__main__":
    main()
