"""A fuzz of the event engine against a plain reference.

    python -m tests.fuzz.event_engine --seeds 0:1000
    python -m tests.fuzz.event_engine --seeds 0:160 --gradients
    JAXSNN_BACKEND=xla python -m tests.fuzz.event_engine --seeds 0:400 --float32

A seed is a network. One line for each that disagrees, and a summary; exit status 1 where a
difference is not explained.
"""

from __future__ import annotations

import argparse
import collections
import sys
from dataclasses import dataclass, field

import jax
import networkx
import numpy as np

from jaxsnn.errors import LoweringError
from tests.fuzz import engine_runs, gradients, nir_reading, random_networks, single_precision
from tests.oracles import continuous_time

GROUP = 8
ENTRIES = 40
GRADIENT_TOLERANCE = 1e-5
TOLERANCE = 1e-9
MOST_ATTEMPTS = 6
READ_AT = np.array([0.31, 0.77, 1.9, 3.3, 4.9]) / 5.0


@dataclass(frozen=True, kw_only=True)
class Difference:
    """The first thing in which a network disagrees."""

    seed: int
    description: str
    engine: float
    reference: float
    label: str

    def line(self) -> str:
        numbers = f"engine {self.engine!r}, reference {self.reference!r}"
        return f"seed {self.seed}: {self.description}: {numbers}: {self.label}"


@dataclass(kw_only=True)
class Summary:
    """What was compared."""

    networks: int = 0
    spikes: int = 0
    silent: int = 0
    endless: int = 0
    worst: float = 0.0
    worst_voltage: float = 0.0
    lost: int = 0
    extra: int = 0
    entries: int = 0
    worst_entry: float = 0.0
    skipped: collections.Counter = field(default_factory=collections.Counter)
    words: collections.Counter = field(default_factory=collections.Counter)
    labels: collections.Counter = field(default_factory=collections.Counter)

    def add(self, summary):
        """Take over what another has counted."""
        for name, value in vars(summary).items():
            total = getattr(self, name)
            larger = name.startswith("worst")
            setattr(self, name, max(total, value) if larger else total + value)

    def lines(self):
        """The end of the report."""
        yield f"networks by what is in them: {dict(sorted(self.words.items()))}"
        yield (
            f"{self.networks} networks ({self.endless} seeds had none that ends), {self.spikes} spikes "
            f"compared, worst spike-time difference {self.worst:.2g} tau, worst voltage difference "
            f"{self.worst_voltage:.2g}"
        )
        yield f"{self.lost} spikes lost in float32, {self.extra} extra, consequences included"
        yield (
            f"{self.entries} gradient entries, worst error {self.worst_entry:.2g}, skipped "
            f"{dict(self.skipped)}"
        )
        yield f"samples or entries that differ, by class: {dict(self.labels)}"


# -- reference


def reference(drawn, sample, sample_times=()):
    """The outcome of the reference for one sample."""
    populations, synapses = nir_reading.read(
        drawn.nodes, drawn.structure.edges, drawn.structure.meaning
    )
    return continuous_time.simulate(
        populations,
        synapses,
        drawn.events(sample),
        drawn.t_end,
        sample_times,
        most_spikes=engine_runs.MAX_SPIKES,
    )


def references(drawn):
    """All samples; the end is moved to before a neuron fires too often."""
    samples = range(random_networks.SAMPLES)
    outcomes = [reference(drawn, sample) for sample in samples]
    stopped = min(outcome.stopped for outcome in outcomes)
    if stopped < np.inf:
        drawn = random_networks.with_end(drawn, stopped * (1 - 1e-3) - 1e-6)
    outcomes = [reference(drawn, sample, drawn.t_end * READ_AT) for sample in samples]
    return drawn, outcomes


def drawn_of(structure, seed, summary):
    """A network that fires, and not without end; None if there is none."""
    candidate = None
    for attempt in range(MOST_ATTEMPTS):
        drawn = random_networks.numbers_of(structure, seed, attempt)
        try:
            drawn, outcomes = references(drawn)
        except continuous_time.EndlessError:
            continue
        if drawn.t_end < 0.2:
            continue
        candidate = drawn, outcomes
        counts = [
            sum(map(len, trains)) for outcome in outcomes for trains in outcome.spikes.values()
        ]
        if min(counts, default=0) > 0:
            return candidate
    if candidate is None:
        summary.endless += 1
    return candidate


# -- comparison


def shortest_tau(drawn):
    taus = [v.min() for n in drawn.nodes.values() for k, v in n.numbers.items() if k[:3] == "tau"]
    return float(min(taus, default=1.0))


def first_difference(drawn, outcomes, solution, summary, tolerance=TOLERANCE):
    """(time, what, engine's number, reference's) where they first disagree, by sample; or None."""
    scale, first = shortest_tau(drawn), {}
    for sample, outcome in enumerate(outcomes):
        for name, neurons in outcome.spikes.items():
            times = np.asarray(solution.spikes[name].time[sample])
            counts = np.asarray(solution.spikes[name].count[sample])
            for neuron, expected in enumerate(neurons):
                here = times[neuron][np.isfinite(times[neuron])]
                limit = 1 if name in drawn.structure.meaning.once else None
                summary.spikes += len(expected)
                shared = min(len(here), len(expected))
                gaps = np.abs(here[:shared] - np.array(expected[:shared])) / scale
                wrong = np.flatnonzero(gaps > tolerance)
                summary.worst = max(summary.worst, float(gaps[gaps <= tolerance].max(initial=0)))
                place = f"sample {sample}, {name}[{neuron}]"
                if wrong.size:
                    n = int(wrong[0])
                    add(
                        first,
                        sample,
                        min(here[n], expected[n]),
                        f"{place} spike {n}",
                        here[n],
                        expected[n],
                    )
                elif len(here) != len(expected) or (
                    limit is None and counts[neuron] != len(expected)
                ):
                    rest = [*here[shared:], *expected[shared:], drawn.t_end]
                    description = f"{place} count (from {rest[0]:.9g})"
                    add(first, sample, rest[0], description, int(counts[neuron]), len(expected))
        if sample not in first:
            compare_voltages(first, sample, outcome, solution, summary, drawn.t_end * READ_AT)
    return first


def add(first, sample, time, description, here, expected):
    if sample not in first or time < first[sample][0]:
        first[sample] = (float(time), description, float(here), float(expected))


def compare_voltages(first, sample, outcome, solution, summary, sample_times):
    for name, voltages in solution.voltages.items():
        here, expected = np.asarray(voltages[sample]), outcome.samples[name]
        here = here.reshape(expected.shape) if here.shape == expected.shape else here.T
        gap = np.abs(here - expected) / np.maximum(1, np.abs(expected))
        if gap.max() > TOLERANCE:
            place = np.unravel_index(gap.argmax(), gap.shape)
            description = f"sample {sample}, V of {name} at sample time {place}"
            add(first, sample, sample_times[place[0]], description, here[place], expected[place])
        else:
            summary.worst_voltage = max(summary.worst_voltage, float(gap.max()))


# -- explanations


def explanation(drawn, outcome, time, population):
    """Return why rounding may decide otherwise, by a check.

    Args:
        outcome: of the reference, for one sample.
        time: when engine and reference differ first.
        population: which differs; "" for none.
    """
    tau = shortest_tau(drawn)
    for close in outcome.close:
        if abs(close.time - time) < 1e-4 * tau:
            return f"explained: {close.kind} {close.place} {close.margin:.2g}"
    # A neuron whose V is exactly at threshold after a spike fires again at that time. Whether this
    # spike precedes the reset of a downstream neuron is also a tie, which shows later.
    wires = networkx.DiGraph(drawn.structure.edges)
    ends = [spike for train in outcome.spikes.get(population, ()) for spike in train]
    for close in outcome.close:
        source = close.place.split("[")[0]
        if close.kind != "edge" or close.time > time or source not in wires:
            continue
        is_behind = population in networkx.descendants(wires, source)
        if is_behind and any(abs(spike - close.time) < 1e-4 * tau for spike in ends):
            return f"explained: {close.kind} {close.place} {close.margin:.2g}, and its order"
    if population in wires and spikes_are_rounded(wires, outcome, time, population):
        return f"explained: presynaptic neurons fire together at {time!r}, which is rounded"
    return "UNEXPLAINED"


def spikes_are_rounded(wires, outcome, time, population):
    """Return whether presynaptic neurons fire together at a time that floats round.

    The reference computes the same time for neurons with equal numbers. The engine may round their
    times differently, so that a postsynaptic neuron receives the spikes one after the other. Times that
    are multiples of 2**-30 are exact in both, and there the engine must agree.
    """
    if float(time) * 2.0**30 % 1 == 0:
        return False
    sources = networkx.ancestors(wires, population)
    trains = [train for name in sources for train in outcome.spikes.get(name, ())]
    spike_count = sum(abs(spike - time) <= 1e-12 * time for train in trains for spike in train)
    return spike_count > 1


# -- run


def run_group(group, seeds, summary, arguments):
    """The seeds of one structure."""
    # Differences and float32 need networks without exact ties.
    smooth = arguments.float32 or arguments.gradients
    structure = random_networks.structure_of(group, smooth=smooth)
    compiled = pair = None
    for seed in seeds:
        candidate = drawn_of(structure, seed, summary)
        if candidate is None:
            continue
        drawn, outcomes = candidate
        summary.networks += 1
        summary.words.update(structure.words)
        if arguments.float32:
            pair = pair or single_precision.Pair(drawn)
            yield from strange_spikes(seed, pair, drawn, summary)
            continue
        compiled = compiled or engine_runs.Group(drawn)
        solution = compiled.run(drawn, drawn.t_end * READ_AT)
        wrong = list(differences(seed, drawn, outcomes, solution, summary))
        yield from wrong
        if arguments.gradients and not wrong:
            yield from wrong_gradients(seed, drawn, outcomes, compiled, solution, summary)


def differences(seed, drawn, outcomes, solution, summary):
    if solution.problem is not None and solution.problem.code != "budget":
        yield Difference(
            seed=seed,
            description=f"no result: {solution.message}",
            engine=0,
            reference=0,
            label="UNEXPLAINED",
        )
        return
    first = first_difference(drawn, outcomes, solution, summary)
    for sample, (when, description, here, expected) in first.items():
        population = description.split(", ", 1)[-1].split("[")[0]
        label = explanation(drawn, outcomes[sample], when, population)
        yield Difference(
            seed=seed, description=description, engine=here, reference=expected, label=label
        )


def strange_spikes(seed, pair, drawn, summary):
    """Samples in which float32 loses a spike or has one more."""
    tau = shortest_tau(drawn)
    for description, when, label in single_precision.differences(seed, pair, drawn, tau, summary):
        yield Difference(
            seed=seed, description=description, engine=when, reference=when, label=label
        )


# -- gradients


def wrong_gradients(seed, drawn, outcomes, compiled, solution, summary):
    """Entries of the engine's gradient that differences in the reference do not confirm."""
    if any(int(count) for count in solution.clipped_slopes.values()):
        summary.skipped["clipped slopes"] += 1
        return
    rng = np.random.default_rng([seed, 5])
    functional = gradients.Functional(drawn, outcomes, rng)
    by_parameter, by_time = compiled.gradient(drawn, functional.weights)
    every = gradients.entries_of(drawn)
    for number in rng.permutation(len(every))[:ENTRIES]:
        entry = every[number]
        gradient = (
            by_time[entry.node] if entry.key == "time" else by_parameter[entry.node][entry.key]
        )
        here = float(np.asarray(gradient)[entry.place])
        expected, error, why = confirmed(functional, entry, here)
        if why:
            summary.skipped[why] += 1
            continue
        summary.entries += 1
        if error > GRADIENT_TOLERANCE:
            yield Difference(
                seed=seed,
                description=f"gradient by {entry}",
                engine=here,
                reference=expected,
                label="UNEXPLAINED (gradient)",
            )
        else:
            summary.worst_entry = max(summary.worst_entry, error)


def confirmed(functional, entry, here):
    """(the reference's derivative, the error, why there is none), with smaller steps where these
    differ: a kink may lie within a step.
    """
    for share in (1.0, 1 / 30, 1 / 1000):
        expected, why = functional.slope(entry, share)
        error = abs(here - expected) / max(abs(expected), abs(here), gradients.SMALL)
        if not why and error <= GRADIENT_TOLERANCE:
            break
    return expected, error, why


def group_result(group, seeds, arguments):
    """(lines, summary) of one structure."""
    summary, lines = Summary(), []
    try:
        for difference in run_group(group, seeds, summary, arguments):
            lines.append(difference.line())
            summary.labels[difference.label.split(":")[0].split(" (")[0]] += 1
    except LoweringError as error:
        lines.append(f"group {group} is refused: {error}")
        summary.labels["refused"] += 1
    jax.clear_caches()
    return lines, summary


def main(argv=None) -> int:
    """Run the fuzz; 1 where something is not explained."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", default="0:80", help="A:B, from A to B - 1")
    parser.add_argument("--gradients", action="store_true")
    parser.add_argument("--float32", action="store_true")
    arguments, summary = parser.parse_args(argv), Summary()
    jax.config.update("jax_enable_x64", True)
    low, high = map(int, arguments.seeds.split(":"))
    for group in range(low // GROUP, -(-high // GROUP)):
        seeds = range(max(low, group * GROUP), min(high, group * GROUP + GROUP))
        lines, counted = group_result(group, seeds, arguments)
        summary.add(counted)
        sys.stdout.write("".join(f"{line}\n" for line in lines))
        sys.stdout.flush()
    sys.stdout.write("".join(f"{line}\n" for line in summary.lines()))
    return int(any(label.startswith("UN") for label in summary.labels))


if __name__ == "__main__":
    sys.exit(main())
