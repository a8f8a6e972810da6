"""Verification that a file is read as it was meant: the source's own input gives its own output."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxsnn.errors import UsageError, suggestion, warn_of
from jaxsnn.grid.stepped_solution import SteppedSolution
from jaxsnn.grid.time_stepped import TimeStepped
from jaxsnn.network.lowering.lower import lower
from jaxsnn.network.network import Network
from jaxsnn.nir.model.graph import Graph
from jaxsnn.simulation.simulate import simulate

#: Membranes agree where the root mean square of the difference is this fraction of that of the
#: recording, or less.
MEMBRANE_TOLERANCE = 1e-4
#: A neuron whose membrane is smaller than this part of the largest of its population is compared with
#: that part.
_LEAST_SHARE = 2.0**-10


@dataclass(frozen=True, kw_only=True)
class Difference:
    """The first step in which something differs: the lowest sample, then the lowest neuron of that
    step.

    Attributes:
        node: the Output.
        neuron: place in the flattened shape of the output.
        batch, step: sample and step.
        expected, got: the recording's number and ours.
    """

    node: str
    neuron: int
    batch: int
    step: int
    expected: float
    got: float


@dataclass(frozen=True, kw_only=True)
class Verification:
    """A recording against a simulation. A train is all that one neuron sends in one sample.

    Attributes:
        trains: spike trains compared.
        active: those with a spike in the recording.
        identical: those that are equal in every step.
        identical_active: those that are both.
        relative_rmse: of membranes, each neuron's by its own size, the largest of all; None where no
            output is a membrane.
        spikes_expected, spikes_got: numbers of spikes.
        first_difference: the first in time, or None. Membranes count if they are not within the
            tolerance all in all.
    """

    trains: int
    active: int
    identical: int
    identical_active: int
    relative_rmse: float | None
    spikes_expected: int
    spikes_got: int
    first_difference: Difference | None

    @property
    def identical_fraction(self) -> float | None:
        """Of all trains; None where there are none."""
        return self.identical / self.trains if self.trains else None

    @property
    def identical_active_fraction(self) -> float | None:
        """Of the active trains; None where there are none."""
        return self.identical_active / self.active if self.active else None

    @property
    def ok(self) -> bool:
        """Every train is identical, and membranes are within the tolerance."""
        close = self.relative_rmse is None or self.relative_rmse <= MEMBRANE_TOLERANCE
        return self.identical == self.trains and close

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "ok": self.ok,
            **dataclasses.asdict(self),
            "identical_fraction": self.identical_fraction,
            "identical_active_fraction": self.identical_active_fraction,
        }


def verify(
    source: Graph | Network, x: Any, y: Any, *, engine: TimeStepped | None = None
) -> Verification:
    """Simulate the source's input and compare with the source's output, in float32.

    Args:
        source: a graph that was read with its dialect, or a network.
        x: what went in, (time, batch, *shape); for several inputs a mapping from the Input node's
            name.
        y: what came out, likewise: spikes of spiking populations, membranes of readouts. Outputs
            that a mapping leaves out are not compared.
        engine: options of the time-stepped engine.

    Raises:
        UsageError: a recording that does not fit the network.
        DialectError, LoweringError: something that the file does not say is needed.
        SimulationError: a membrane became NaN or infinite.
    """
    network = source if isinstance(source, Network) else lower(source, dtype=np.float32)
    solution = simulate(network, x, engine=engine or TimeStepped())
    warn_of(solution.notes)
    return compare(solution, y)


def compare(solution: SteppedSolution, y: Any) -> Verification:
    """A time-stepped run against a recording of its outputs; see `verify`."""
    recorded = _by_output(solution, y)
    expected = {
        name: _fitted(name, array, solution.y[name].shape) for name, array in recorded.items()
    }
    got = {name: np.asarray(solution.y[name]) for name in expected}
    counts = np.zeros(4, int)
    spikes_expected = spikes_got = 0
    errors: list[float] = []
    differences: list[Difference | None] = []
    for name in expected:
        if name in solution.spiking:
            counts += _trains(expected[name], got[name])
            spikes_expected += round(float(expected[name].sum()))
            spikes_got += round(float(got[name].sum()))
            differences.append(_first(name, expected[name], got[name], 0.0))
        else:
            scale = _scales(expected[name])
            errors.append(_relative(_rms(got[name] - expected[name]), scale))
            if errors[-1] > MEMBRANE_TOLERANCE:
                differences.append(
                    _first(name, expected[name], got[name], MEMBRANE_TOLERANCE * scale)
                )
    found = [difference for difference in differences if difference is not None]
    trains, active, identical, identical_active = (int(count) for count in counts)
    return Verification(
        trains=trains,
        active=active,
        identical=identical,
        identical_active=identical_active,
        relative_rmse=max(errors) if errors else None,
        spikes_expected=spikes_expected,
        spikes_got=spikes_got,
        first_difference=min(found, key=lambda difference: difference.step) if found else None,
    )


def _by_output(solution: SteppedSolution, y: Any) -> dict[str, Any]:
    if isinstance(y, Mapping):
        for name in y:
            if name not in solution.y:
                raise UsageError(
                    f"the network has no output '{name}'",
                    fix=suggestion(name, solution.y),
                    node=name,
                )
        if not y:
            raise UsageError(
                "no output is given to compare with", fix=f"pass some of {', '.join(solution.y)}"
            )
        return dict(y)
    if len(solution.y) != 1:
        raise UsageError(
            f"the network has {len(solution.y)} outputs ({', '.join(solution.y)})",
            fix="pass a mapping from their names",
        )
    return {next(iter(solution.y)): y}


def _fitted(name: str, array: Any, shape: tuple[int, ...]) -> np.ndarray:
    found = np.asarray(array, float)
    if found.shape != shape:
        raise UsageError(
            f"output '{name}': the recording has shape {found.shape}, the simulation gives {shape}",
            fix="record as many steps and samples of the output as of the input, (time, batch, ...)",
            node=name,
        )
    if not (finite := np.isfinite(found)).all():
        place = tuple(int(index) for index in np.argwhere(~finite)[0])
        raise UsageError(
            f"output '{name}': the recording has {found[place]} at {place}",
            fix="record finite numbers",
            node=name,
        )
    return found


def _trains(expected: np.ndarray, got: np.ndarray) -> np.ndarray:
    """Numbers of trains, of active, of identical, and of identical active ones."""
    same, active = (expected == got).all(axis=0), (expected != 0).any(axis=0)
    return np.array([same.size, active.sum(), same.sum(), (same & active).sum()])


def _rms(array: np.ndarray) -> np.ndarray:
    """Of each neuron, (*shape) of (time, batch, *shape)."""
    return np.sqrt(np.mean(np.square(array), axis=(0, 1)))


def _scales(array: np.ndarray) -> np.ndarray:
    """What errors of each neuron are relative to: its own size; of one that hardly moves, a part of
    the largest of its population, for it may be a difference of large numbers.
    """
    own = _rms(array)
    return np.maximum(own, _LEAST_SHARE * own.max(initial=0.0))


def _relative(errors: np.ndarray, scales: np.ndarray) -> float:
    """The largest of all neurons."""
    with np.errstate(divide="ignore", invalid="ignore"):
        found = np.where(errors == 0, 0.0, errors / scales)
    return float(found.max(initial=0.0))


def _first(
    name: str, expected: np.ndarray, got: np.ndarray, tolerance: float | np.ndarray
) -> Difference | None:
    """The first place where two recordings (time, batch, *shape) are further apart than a
    tolerance, one for all or (*shape).
    """
    steps, batch = expected.shape[:2]
    apart = ~(np.abs(expected - got) <= tolerance)
    if not apart.any():
        return None
    step, sample, neuron = (int(place) for place in np.argwhere(apart.reshape(steps, batch, -1))[0])
    pair = (
        float(array.reshape(steps, batch, -1)[step, sample, neuron]) for array in (expected, got)
    )
    wanted, found = pair
    return Difference(node=name, neuron=neuron, batch=sample, step=step, expected=wanted, got=found)
