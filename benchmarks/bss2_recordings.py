"""The emulated chip beside DelGrad's recordings: when output spikes come, and how many are missing.

    python benchmarks/bss2_recordings.py FOLDER [--chips N] [--fit] [--held-out] [--write]

FOLDER is experiment_pretrained/yin_yang_hxpynn_W/epoch_300 of the repository JulianGoeltz/fastAndDeep:
a network 20-30-3 without delays, trained in the loop of the chip W66F3, with the spikes that the chip
recorded for 5,000 training and 1,000 test inputs. (The other recordings of that repository are of a
network with delays, which no mapping has.)

Prints the table of docs/bss2.md, of the test inputs, with bootstrap standard errors: of the recording
over its inputs, of the median over the emulated chips. `--write` puts it there. `--fit` fits `Spread`
to the training inputs and prints each step; `Spread()` and `STRENGTH` have the result, rounded.

The chip changed between the recordings of the training and of the test inputs. `--held-out` also
compares within one recording: `folds` splits the training inputs at random into five parts of 1,000;
for each of them, the fit is repeated without its inputs and compared with its recording. This prints
the tables of the held-out inputs in docs/bss2.md.

Fits and tables use different emulated chips. A fit matches medians of the emulated chips:

1. `v_noise` to the noise from trial to trial,
2. `input_gain` and `driver_gain`, which are equal, to the standard deviation,
3. `STRENGTH` to the fraction of missing spikes,
4. `latency` to the mean.

`v_threshold`, 3.5 LSB, is below the public bound of 4.1; all other deviations keep their defaults.

Settings of the recordings, from the repository: weights of 30 LSB for 1, leak and reset at 80 CADC LSB,
threshold at 150, time constants of 6 us, and a refractory period of 20 us, so that neurons fire about
once. The integers on the chip are those of `written`. The strength of the chip's synapses is not
published: `STRENGTH` is relative to the one with which a threshold of 2.6 is 70 LSB above the leak. With
the ideal network alone, the deviation from the recordings is smallest at a strength of 1.08, which
`--fit` prints, too.
"""

from __future__ import annotations

import argparse
import itertools
import math
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from jaxsnn.bss2.emulate import SPREADS, EmulatedChip, Emulator, Spread
from jaxsnn.bss2.emulate.connections import prepared, wired
from jaxsnn.bss2.search.portfolio import place_and_route
from jaxsnn.bss2.search.quantize import QuantizeOptions, quantize
from jaxsnn.network.spikes import Events
from jaxsnn.nir import Graph, build

TAU, THRESHOLD, SCALE = 6e-3, 2.6, 30.0
T_END = 30 * TAU
OPTIONS = QuantizeOptions(
    scale={"2": SCALE, "4": SCALE}, v_leak=80, v_threshold=150, refractory_time=20e-6
)
#: Strength of the recorded chip's synapses, relative to `OPTIONS`; fitted.
STRENGTH = 1.063
PAGE = Path(__file__).parents[1] / "docs" / "bss2.md"
MARKS = "recordings", "held-out recordings", "folds"
SIZES = (20, 30, 3)
MAD_TO_SIGMA = 1.4826
#: Samples of a bootstrap.
RESAMPLES = 1000
#: Seeds of the emulated chips of the table, and of the fit.
SEED, SEED_OF_FIT = 0, 10_000
#: Deviations that are sampled anew in each run.
NOISE = ("v_threshold_trial", "v_noise", "jitter", "latency")
#: The fit takes all inputs for the noise, and every fifth of them for the rest.
STEP = 5
#: Parts of the training inputs, and the seed of the split.
FOLDS, SEED_OF_FOLDS = 5, 0


class Figures(NamedTuple):
    """Deviation of the times of output spikes from the ideal network, in tau.

    Attributes:
        std, mad, mean: Standard deviation, MAD sigma and mean.
        missing: Fraction of output neurons that are silent.
        fixed: Standard deviation without the noise from trial to trial.
        trial: Upper bound on the noise from trial to trial, see `trial_noise`.
    """

    std: float
    mad: float
    mean: float
    missing: float
    fixed: float
    trial: float


@dataclass(frozen=True)
class Recording:
    """Inputs (samples, inputs) and recorded first output spikes (samples, outputs), in tau, and for
    each input the index of the nearest other one, (samples,).
    """

    inputs: np.ndarray
    spikes: np.ndarray
    neighbour: np.ndarray

    @property
    def events(self) -> Events:
        """Inputs in seconds of the file."""
        index = jnp.broadcast_to(jnp.arange(SIZES[0]), self.inputs.shape)
        return Events(time=jnp.asarray(self.inputs * TAU), index=index)

    def part(self, rows: np.ndarray | slice) -> Recording:
        """Return the recording of some of the inputs."""
        return Recording(self.inputs[rows], self.spikes[rows], nearest(self.inputs[rows]))


def recording(folder: Path, part: str) -> Recording:
    """The recording of "train" or "test" inputs."""
    inputs, spikes = (
        np.load(folder / f"yin_yang_{part}_{name}.npy") for name in ("inputs", "spiketimes")
    )
    return Recording(inputs, spikes, nearest(inputs))


def folds(count: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return the indices of the inputs to fit and of those held out, for each part of a random split."""
    parts = np.split(np.random.default_rng(SEED_OF_FOLDS).permutation(count), FOLDS)
    return [(np.setdiff1d(np.arange(count), part), np.sort(part)) for part in parts]


def nearest(points: np.ndarray) -> np.ndarray:
    """The index of the nearest other point of each, (points,)."""
    squares = np.sum(points**2, axis=1)
    result = []
    for rows in np.array_split(np.arange(len(points)), -(-len(points) // 500)):
        distance = squares[rows, None] + squares - 2 * points[rows] @ points.T
        distance[np.arange(len(rows)), rows] = np.inf
        result.append(distance.argmin(axis=1))
    return np.concatenate(result)


def weights(folder: Path) -> list[np.ndarray]:
    """(inputs, outputs) of each layer."""
    archive = zipfile.ZipFile(folder / "yin_yang_network.pt")
    layers = []
    for before, size in itertools.pairwise(SIZES):
        for name in archive.namelist():
            if "/data/" in name and name.rsplit("/", 1)[1].isdigit():
                raw = archive.read(name)
                if len(raw) == 8 * before * size:
                    layers.append(np.frombuffer(raw, np.float64).reshape(before, size))
    return layers


def written(weight: np.ndarray) -> np.ndarray:
    """The integers that were written to the chip: multiples of 1/30, times 30, without the fraction,
    which floating-point arithmetic may leave just below the integer.
    """
    step = 1.0 / SCALE
    return (np.round(weight / step) * step * SCALE).astype(int)


def network(layers: list[np.ndarray]) -> Graph:
    """Times of the file are 1000 times those of the chip."""
    nodes = [build.input(SIZES[0])]
    for weight in layers:
        neurons = build.cubalif(tau_mem=TAU, tau_syn=TAU, v_threshold=THRESHOLD)
        nodes += [build.linear(weight=written(weight).T / SCALE), neurons]
    return build.sequential(*nodes)


def trial_noise(difference: np.ndarray) -> float:
    """An upper bound on the noise of spike times from trial to trial, in tau.

    No input was recorded twice, but inputs lie densely in two dimensions, and deviations that
    belong to the chip are nearly equal for an input and its nearest neighbour. What they differ by is
    mostly the noise of two trials; the bound also contains steps of the deviations between the two.

    Args:
        difference: (samples, neurons) deviation from the ideal network minus the one at the
            nearest other input; NaN where a spike is missing.
    """
    return float(np.nanstd(difference) / np.sqrt(2))


def deviations(first: np.ndarray, ideal: np.ndarray) -> np.ndarray:
    """Return first spikes minus those of the ideal network; NaN where either is missing."""
    both = np.isfinite(first) & np.isfinite(ideal)
    return np.where(both, first, np.nan) - np.where(both, ideal, np.nan)


def figures(
    first: np.ndarray,
    ideal: np.ndarray,
    neighbour: np.ndarray,
    rows: np.ndarray | slice = slice(None),
) -> Figures:
    """Compare first spikes (samples, neurons) with those of the ideal network, both in tau.

    Args:
        first, ideal: Times of first spikes; infinite where a neuron is silent.
        neighbour: (samples,) index of the nearest other input.
        rows: Indices of the samples to compare, which may repeat; all by default.
    """
    late = deviations(first, ideal)
    values = late[rows][np.isfinite(late[rows])]
    std, trial = float(values.std()), trial_noise((late - late[neighbour])[rows])
    return Figures(
        std=std,
        mad=float(MAD_TO_SIGMA * np.median(np.abs(values - np.median(values)))),
        mean=float(values.mean()),
        missing=float(np.isinf(first[rows]).mean()),
        fixed=float(np.sqrt(max(std**2 - trial**2, 0.0))),
        trial=trial,
    )


def standard_errors(statistic: Callable[[np.ndarray], ArrayLike], count: int) -> np.ndarray:
    """Return bootstrap standard errors of figures that `statistic` computes from indices of `count`
    samples or chips.
    """
    random = np.random.default_rng(0)
    resamples = [np.asarray(statistic(random.integers(0, count, count))) for _ in range(RESAMPLES)]
    return np.std(np.stack(resamples), axis=0)


def shift(
    late: np.ndarray, inputs: np.ndarray, reference_late: np.ndarray, reference_inputs: np.ndarray
) -> np.ndarray:
    """Return the mean shift of a recording's spikes against a reference, tau, and its standard error.

    Each input is compared with the nearest input of the reference, so that the result is a change of
    the chip between the recordings rather than of their inputs.

    Args:
        late, reference_late: (samples, neurons) deviations from the ideal network, NaN where a spike
            is missing.
        inputs, reference_inputs: (samples, inputs) times.
    """
    squares = np.sum(reference_inputs**2, axis=1) - 2 * inputs @ reference_inputs.T
    difference = late - reference_late[squares.argmin(axis=1)]
    (error,) = standard_errors(lambda rows: [np.nanmean(difference[rows])], len(difference))
    return np.array([np.nanmean(difference), error])


class Network:
    """The network of the recordings on ideal and on emulated chips."""

    def __init__(self, folder: Path):
        self.quantized = quantize(network(weights(folder)), OPTIONS)
        mapping = place_and_route(self.quantized.netlist).mapping
        assert mapping is not None
        self.mapping = mapping

    def first(self, data: Recording, chips: Sequence[EmulatedChip], strength: float) -> Iterator:
        """First output spikes on each chip, (samples, neurons) in tau. Chips may differ in seed and
        fixed pattern: these are arguments of compiled code, and noise and latency are part of it.
        """
        spread = chips[0].spread
        common = replace(chips[0], spread=Spread(**{name: getattr(spread, name) for name in NOISE}))
        emulator = Emulator(self.quantized, self.mapping, chip=common)
        slope, net = emulator.program.slope * strength, self.quantized.netlist
        for chip in chips:
            program = wired(self.quantized, net, self.mapping, chip, slope)
            program = replace(program, chip=replace(common, seed=chip.seed))
            emulator.program = prepared(program)
            yield emulator.run(data.events, T_END).first_spike("4") / TAU

    def ideal(self, data: Recording, strength: float = 1.0) -> np.ndarray:
        """First output spikes of the ideal network."""
        return next(iter(self.first(data, [EmulatedChip(ideal=True)], strength)))

    def figures(
        self, data: Recording, spread: Spread, seeds: Sequence[int], strength: float = STRENGTH
    ) -> np.ndarray:
        """Figures of several chips, (chips, figures)."""
        chips = [EmulatedChip(seed=seed, spread=spread) for seed in seeds]
        ideal = self.ideal(data)
        every = self.first(data, chips, strength)
        return np.array([figures(first, ideal, data.neighbour) for first in every])


def fit(subject: Network, every: Recording, chips: int) -> tuple[Spread, float]:
    """Return the deviations and the strength that fit a recording; print each step."""
    spread, strength = Spread(), STRENGTH
    some = every.part(slice(None, None, STEP))
    seeds = range(SEED_OF_FIT, SEED_OF_FIT + chips)
    target = figures(every.spikes, subject.ideal(every), every.neighbour)
    print("recorded, inputs to fit", _cells(target))

    def median(data: Recording, count: int = chips) -> Figures:
        rows = subject.figures(data, spread, seeds[:count], strength)
        result = Figures(*np.median(rows, axis=0))
        print(f"strength {strength:.4f}, {spread}", _cells(result), sep="\n  ", flush=True)
        return result

    for candidate in np.arange(1.04, 1.13, 0.02).tolist():
        uniform = figures(every.spikes, subject.ideal(every, candidate), every.neighbour)
        print(f"ideal network with strength {candidate:.2f}: std {uniform.std:.4f}")
    few = max(chips // 8, 1)
    noise = spread.v_noise
    spread = replace(spread, v_noise=0.0, jitter=0.0)
    floor = median(every, few).trial
    spread = replace(spread, v_noise=noise)
    rise = median(every, few).trial ** 2 - floor**2
    spread = replace(spread, v_noise=noise * math.sqrt((target.trial**2 - floor**2) / rise))
    for _ in range(2):
        start = median(some)
        spread = replace(
            spread, input_gain=1.1 * spread.input_gain, driver_gain=1.1 * spread.driver_gain
        )
        wider = median(some)
        spread = replace(
            spread, input_gain=spread.input_gain / 1.1, driver_gain=spread.driver_gain / 1.1
        )
        strength += 0.01
        stronger = median(some)
        strength -= 0.01
        # Newton's method in two variables
        jacobian = [
            [(wider.std - start.std) / 0.1, (stronger.std - start.std) / 0.01],
            [(wider.missing - start.missing) / 0.1, (stronger.missing - start.missing) / 0.01],
        ]
        differences = [target.std - start.std, target.missing - start.missing]
        gain_step, strength_step = np.linalg.solve(jacobian, differences).tolist()
        gain, strength = spread.input_gain * (1 + gain_step), strength + strength_step
        spread = replace(spread, input_gain=gain, driver_gain=gain)
    # a latency of each of the two layers, seconds of the chip
    shortfall = (target.mean - median(some).mean) / (len(SIZES) - 1)
    latency = spread.latency + shortfall * TAU / subject.quantized.speedup
    spread = replace(spread, latency=latency)
    print("fitted:", strength, spread)
    return spread, strength


def with_table(page: str, mark: str, table: str) -> str:
    """The page with another table between its marks."""
    begin, end = f"<!-- begin {mark} -->\n", f"<!-- end {mark} -->"
    before, rest = page.split(begin)
    return before + begin + table + "\n" + end + rest.split(end)[1]


def table_of(recorded: Figures, errors: np.ndarray, emulated: dict[str, np.ndarray]) -> str:
    """Return the table of the recordings with their standard errors, and for each spread the median
    of the emulated chips, its standard errors, its difference from the recording, and the range of
    nine of ten chips.
    """
    lines = [
        "| | std | MAD sigma | mean | missing | fixed pattern | trial noise |",
        "|---|" + 6 * "---|",
        f"| recorded, chip W66F3 | {_cells(recorded)} |",
        f"| standard error (inputs) | {_cells(errors, '')} |",
    ]
    for name, rows in emulated.items():
        median_errors = standard_errors(
            lambda chosen, rows=rows: np.median(rows[chosen], axis=0), len(rows)
        )
        lines += [
            f"| emulated, {name}, median of {len(rows)} | {_cells(np.median(rows, axis=0))} |",
            f"| standard error (chips) | {_cells(median_errors, '')} |",
            f"| emulated minus recorded | {_differences(np.median(rows, axis=0), recorded)} |",
            f"| 5th percentile | {_cells(np.quantile(rows, 0.05, axis=0))} |",
            f"| 95th percentile | {_cells(np.quantile(rows, 0.95, axis=0))} |",
        ]
    return "\n".join(lines)


@dataclass(frozen=True)
class Fold:
    """Held-out inputs, and what fits the others.

    Attributes:
        spread, strength: Fitted without the held-out inputs.
        recorded, errors: Figures of the recording of the held-out inputs, and standard errors.
        emulated: Figures of chips with the fitted deviations on the held-out inputs,
            (chips, figures).
    """

    spread: Spread
    strength: float
    recorded: Figures
    errors: np.ndarray
    emulated: np.ndarray


def held_out(subject: Network, train: Recording, chips: int) -> Iterator[Fold]:
    """Fit the emulator without each part of the training inputs, and compare it on that part."""
    for fitted, rows in folds(len(train.inputs)):
        spread, strength = fit(subject, train.part(fitted), chips)
        data = train.part(rows)
        ideal = subject.ideal(data)
        yield Fold(
            spread=spread,
            strength=strength,
            recorded=figures(data.spikes, ideal, data.neighbour),
            errors=errors_of(data, ideal),
            emulated=subject.figures(data, spread, range(SEED, SEED + chips), strength),
        )


def errors_of(data: Recording, ideal: np.ndarray) -> np.ndarray:
    """Return standard errors of the figures of a recording, over its inputs."""
    return standard_errors(
        lambda rows: figures(data.spikes, ideal, data.neighbour, rows), len(data.inputs)
    )


def table_of_folds(results: Sequence[Fold]) -> str:
    """Return the table of all parts of the training inputs: fitted values, and figures of the
    recording and of the median of the emulated chips.
    """
    lines = [
        "| part | membrane noise, LSB | gains | latency, ns | strength "
        "| std | MAD sigma | mean | missing | fixed pattern | trial noise |",
        "|---|" + 10 * "---|",
    ]
    for number, fold in enumerate(results):
        spread, median = fold.spread, np.median(fold.emulated, axis=0)
        lines += [
            f"| {number}, recorded | | | | | {_cells(fold.recorded)} |",
            f"| {number}, emulated | {spread.v_noise:.2f} | {spread.input_gain:.1%} "
            f"| {spread.latency * 1e9:.0f} | {fold.strength:.3f} | {_cells(median)} |",
        ]
    differences = [np.median(fold.emulated, axis=0) - np.asarray(fold.recorded) for fold in results]
    average = np.mean([fold.recorded for fold in results], axis=0)
    lines.append(
        "| mean difference | | | | "
        f"| {_differences(average + np.mean(differences, axis=0), Figures(*average))} |"
    )
    return "\n".join(lines)


def main() -> None:
    """Print the table, or write it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--chips", type=int, default=512, help="number of emulated chips")
    parser.add_argument(
        "--fit", action="store_true", help="fit Spread to the training inputs first"
    )
    parser.add_argument(
        "--held-out", action="store_true", help="fit and compare within the training recording, too"
    )
    parser.add_argument("--write", action="store_true", help="write the tables into docs/bss2.md")
    options = parser.parse_args()
    subject = Network(options.folder)
    train, data = recording(options.folder, "train"), recording(options.folder, "test")
    if options.fit:
        fit(subject, train, options.chips)
    ideal = subject.ideal(data)
    print(f"ideal: {np.isinf(ideal).mean():.1%} missing")
    later, error = shift(
        deviations(data.spikes, ideal),
        data.inputs,
        deviations(train.spikes, subject.ideal(train)),
        train.inputs,
    )
    print(f"recorded, test minus nearest training input: {later:+.4f}, standard error {error:.4f}")
    emulated = {
        f"`{name}`": subject.figures(data, spread, range(SEED, SEED + options.chips))
        for name, spread in reversed(list(SPREADS.items()))
    }
    recorded = figures(data.spikes, ideal, data.neighbour)
    tables = {MARKS[0]: table_of(recorded, errors_of(data, ideal), emulated)}
    if options.held_out:
        results = list(held_out(subject, train, options.chips))
        first = results[0]
        columns = {"fitted without these inputs": first.emulated}
        tables[MARKS[1]] = table_of(first.recorded, first.errors, columns)
        tables[MARKS[2]] = table_of_folds(results)
    print("\n\n".join(tables.values()))
    if options.write:
        for mark, table in tables.items():
            PAGE.write_text(with_table(PAGE.read_text(), mark, table))


def _cells(values: Figures | np.ndarray, sign: str = "+") -> str:
    std, mad, mean, missing, fixed, trial = values
    return f"{std:.3f} | {mad:.3f} | {mean:{sign}.3f} | {missing:.1%} | {fixed:.3f} | {trial:.3f}"


def _differences(values: np.ndarray, reference: Figures) -> str:
    """Differences in percent of the reference, and of the missing spikes in points."""
    pairs = zip(Figures._fields, values, reference, strict=True)
    return " | ".join(
        f"{100 * (value - recorded):+.1f} points"
        if name == "missing"
        else f"{(value - recorded) / abs(recorded):+.0%}"
        for name, value, recorded in pairs
    )


if __name__ == "__main__":
    main()
