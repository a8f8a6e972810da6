"""The emulated chip beside DelGrad's recordings: how late output spikes are, and how many are missing.

    python benchmarks/bss2_recordings.py FOLDER [--seeds N] [--write]

FOLDER is experiment_pretrained/yin_yang_hxpynn_W/epoch_300 of the repository JulianGoeltz/fastAndDeep:
a network 20-30-3 without delays, trained in the loop of the chip W66F3, with its 1,000 test inputs and
the output spikes that the chip recorded. Prints the table of docs/results.md; `--write` puts it there.
"""

from __future__ import annotations

import argparse
import itertools
import zipfile
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from jaxsnn.bss2.emulate import SPREADS, EmulatedChip, Emulator
from jaxsnn.bss2.search.portfolio import place_and_route
from jaxsnn.bss2.search.quantize import QuantizeOptions, quantize
from jaxsnn.network.spikes import Events
from jaxsnn.nir import Graph, build

TAU, THRESHOLD, SCALE = 6e-3, 2.6, 30.0
T_END = 5 * TAU
PAGE = Path(__file__).parents[1] / "docs" / "results.md"
BEGIN, END = "<!-- begin recordings -->\n", "<!-- end recordings -->"
SIZES = (20, 30, 3)
MAD_TO_SIGMA = 1.4826

#: Standard deviation, MAD sigma, mean, and the fraction missing.
Row = tuple[float, float, float, float]


def weights(folder: Path) -> list[np.ndarray]:
    """(inputs, outputs) of each layer."""
    archive = zipfile.ZipFile(folder / "yin_yang_network.pt")
    found = []
    for before, size in itertools.pairwise(SIZES):
        for name in archive.namelist():
            if "/data/" in name and name.rsplit("/", 1)[1].isdigit():
                raw = archive.read(name)
                if len(raw) == 8 * before * size:
                    found.append(np.frombuffer(raw, np.float64).reshape(before, size))
    return found


def network(layers: list[np.ndarray]) -> Graph:
    """Times of the file are 1000 times those of the chip."""
    nodes = [build.input(SIZES[0])]
    for weight in layers:
        neurons = build.cubalif(tau_mem=TAU, tau_syn=TAU, v_threshold=THRESHOLD)
        nodes += [build.linear(weight=weight.T), neurons]
    return build.sequential(*nodes)


def row(first: np.ndarray, ideal: np.ndarray) -> Row:
    """Standard deviation, MAD sigma and mean of recorded minus ideal times in tau, and the fraction
    of output neurons that are silent.
    """
    both = np.isfinite(first) & np.isfinite(ideal)
    late = (first[both] - ideal[both]) / TAU
    sigma = MAD_TO_SIGMA * np.median(np.abs(late - np.median(late)))
    return float(late.std()), float(sigma), float(late.mean()), float(np.isinf(first).mean())


def with_table(page: str, table: str) -> str:
    """The page with another table between its marks."""
    before, rest = page.split(BEGIN)
    return before + BEGIN + table + "\n" + END + rest.split(END)[1]


def table_of(measured: Row, emulated: dict[str, list[Row]]) -> str:
    """The recordings, and median, lowest and highest of the emulated chips of each spread."""
    lines = ["| | std | MAD sigma | mean | missing |", "|---|---|---|---|---|"]
    lines += [f"| recorded, chip W66F3 | {_cells(measured)} |"]
    for name, rows in emulated.items():
        of = f"emulated, `{name}`, median of {len(rows)}"
        for what, function in ((of, np.median), ("lowest", np.min), ("highest", np.max)):
            lines += [f"| {what} | {_cells(function(rows, axis=0))} |"]
    return "\n".join(lines)


def main() -> None:
    """Print the table, or write it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, default=16)
    parser.add_argument("--write", action="store_true", help="into docs/results.md")
    options = parser.parse_args()
    time = np.load(options.folder / "yin_yang_test_inputs.npy") * TAU
    recorded = np.load(options.folder / "yin_yang_test_spiketimes.npy") * TAU
    events = Events(
        time=jnp.asarray(time), index=jnp.broadcast_to(jnp.arange(SIZES[0]), time.shape)
    )
    graph = network(weights(options.folder))
    quantized = quantize(graph, QuantizeOptions(scale={"2": SCALE, "4": SCALE}))
    mapping = place_and_route(quantized.netlist).mapping

    def first(chip: EmulatedChip) -> np.ndarray:
        return Emulator(quantized, mapping, chip=chip).run(events, T_END).first_spike("4")

    ideal = first(EmulatedChip(ideal=True))
    emulated = {
        name: [
            row(first(EmulatedChip(seed=seed, spread=spread)), ideal)
            for seed in range(options.seeds)
        ]
        for name, spread in reversed(list(SPREADS.items()))
    }
    table = table_of(row(recorded, ideal), emulated)
    print(table)
    if options.write:
        PAGE.write_text(with_table(PAGE.read_text(), table))


def _cells(values: Row | np.ndarray) -> str:
    std, sigma, mean, missing = values
    return f"{std:.3f} | {sigma:.3f} | {mean:+.3f} | {missing:.1%}"


if __name__ == "__main__":
    main()
