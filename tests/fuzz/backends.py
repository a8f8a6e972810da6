"""Random networks in both backends of the event engine: the same spikes, voltages and gradients.

    python -m tests.fuzz.backends --seeds 0:300

One line for each network that differs, and a summary; exit status 1 where any does. Networks that part where
the reference notes a tie, which rounding decides, are counted alone.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import jax
import numpy as np

from tests.fuzz import engine_runs, event_engine, random_networks
from tests.oracles.continuous_time import Outcome

TIMES = 1e-11  # of the shortest time constant
GRADIENTS = 1e-8  # of the largest entry


@dataclass(kw_only=True)
class Compared:
    """What was compared."""

    networks: int = 0
    tied: int = 0  # networks that part at a tie
    spikes: int = 0
    time: float = 0.0  # the largest difference, in shortest time constants
    voltage: float = 0.0
    gradient: float = 0.0  # of the largest entry


class _Both:
    """The networks of one structure in both backends; `held`: the refractory time of all neurons."""

    def __init__(self, first: random_networks.Drawn, held: float) -> None:
        self.held = held
        self.groups = [engine_runs.Group(first) for _ in range(2)]
        for group, backend in zip(self.groups, ("xla", "auto"), strict=True):
            group.engine = replace(group.engine, backend=backend, refractory=held)

    def differences(
        self, drawn: random_networks.Drawn, wanted: Sequence[Outcome], done: Compared
    ) -> Iterator[str]:
        """In what the backends differ.

        Args:
            wanted: of each sample, what the reference finds, which knows no refractory time.
        """
        at = drawn.t_end * event_engine.READ_AT
        xla, native = (group.run(drawn, at) for group in self.groups)
        done.networks += 1
        parted = _parted(xla, native, TIMES * event_engine.shortest_tau(drawn))
        if parted and not self.held and all(_is_tie(drawn, wanted[n], parted[n]) for n in parted):
            done.tied += 1
            return
        rng, weights = np.random.default_rng(done.networks), {}
        for name, expected in xla.spikes.items():
            found = native.spikes[name]
            done.spikes += int(expected.count.sum())
            weights[name] = rng.normal(size=expected.time.shape)
            if not np.array_equal(found.count, expected.count):
                yield f"spikes of {name}: {int(found.count.sum())}, {int(expected.count.sum())}"
                return
            apart = _largest(found.time, expected.time) / event_engine.shortest_tau(drawn)
            done.time = max(done.time, apart)
            if apart > TIMES:
                yield f"times of {name}: {apart:.1e} time constants"
        for name, expected in xla.voltages.items():
            apart = _largest(native.voltages[name], expected)
            done.voltage = max(done.voltage, apart)
            if apart > 1e-9 * (1 + _largest(expected, 0.0)):
                yield f"voltages of {name}: {apart:.1e}"
        if any(int(count) for count in xla.clipped_slopes.values()):
            return
        ours, theirs = (group.gradient(drawn, weights) for group in reversed(self.groups))
        scale = max((_largest(leaf, 0.0) for leaf in jax.tree.leaves(theirs)), default=0.0)
        pairs = zip(*map(jax.tree.leaves, (ours, theirs)), strict=True)
        apart = max((_largest(*pair) for pair in pairs), default=0.0) / max(scale, 1e-30)
        done.gradient = max(done.gradient, apart)
        if apart > GRADIENTS:
            yield f"gradients: {apart:.1e} of {scale:.1e}"


def _parted(xla, native, least: float) -> dict[int, float]:
    """When spikes first differ by more than so many seconds, by sample."""
    first: dict[int, float] = {}
    for name, expected in xla.spikes.items():
        one, other = np.asarray(expected.time), np.asarray(native.spikes[name].time)
        with np.errstate(invalid="ignore"):  # inf - inf, where both are unused
            same = (one == other) | (np.abs(one - other) <= least)
        when = np.where(same, np.inf, np.minimum(one, other)).min(axis=(1, 2))
        for sample in np.flatnonzero(np.isfinite(when)):
            first[sample] = min(first.get(sample, np.inf), when[sample])
    return first


def _is_tie(drawn: random_networks.Drawn, wanted: Outcome, time: float) -> bool:
    return event_engine.explanation(drawn, wanted, time).startswith("explained")


def _largest(one, other) -> float:
    one, other = np.broadcast_arrays(np.asarray(one), np.asarray(other))
    differ = one != other  # not where both are inf
    if not differ.any():
        return 0.0
    return float(np.max(np.abs(one[differ] - other[differ])))


def compare(seeds: range, done: Compared) -> Iterator[str]:
    """Lines about the networks in which the backends differ."""
    both, group = None, -1
    for seed in seeds:
        if seed // event_engine.GROUP != group:
            both, group = None, seed // event_engine.GROUP
            jax.clear_caches()
        structure = random_networks.structure_of(group)
        kept = event_engine.drawn_of(structure, seed, event_engine.Summary())
        if kept is None:
            continue
        # NIR has no refractory times: in one structure of three neurons have one nevertheless.
        held = event_engine.shortest_tau(kept[0]) / 4 if group % 3 == 2 else 0.0
        both = both or _Both(kept[0], held)
        for line in both.differences(*kept, done):
            kinds = [node.kind for node in kept[0].nodes.values()]
            yield f"seed {seed}: {line}: {structure.dialect} {kinds}"


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", default="0:300")
    low, high = map(int, parser.parse_args().seeds.split(":"))
    jax.config.update("jax_enable_x64", True)
    done, wrong = Compared(), 0
    for line in compare(range(low, high), done):
        sys.stdout.write(line + "\n")
        sys.stdout.flush()
        wrong += 1
    sys.stdout.write(f"{done}\n")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
