"""The grid engine on files: what `jaxsnn run --engine grid` and `jaxsnn verify` do."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxsnn.errors import UsageError, listing
from jaxsnn.grid.stepped_solution import GridSolution
from jaxsnn.grid.time_stepped import Grid
from jaxsnn.network.lowering.lower import lower
from jaxsnn.network.results import Result
from jaxsnn.nir.graph import Graph
from jaxsnn.output import write_whole
from jaxsnn.simulation.recordings import Recording, inputs_of, load_arrays, load_recording
from jaxsnn.simulation.runs import RunOutcome, save_arrays
from jaxsnn.simulation.simulate import simulate
from jaxsnn.simulation.verification import Verification, compare


def run_on_grid(
    graph: Graph,
    source: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    t_end: float | None = None,
    force: bool = False,
) -> RunOutcome:
    """Play a graph step by step on the inputs of an .npz file, write what leaves it as "NODE.y"
    (time, batch, *shape).

    Args:
        source: see `jaxsnn.simulation.recordings.load_recording`; events need `t_end`.
        t_end: seconds; default: the end of the steps, where inputs are given by steps.

    Raises:
        JaxsnnError: inputs that do not fit, a dialect that is not known well enough, or a run that
            fails.
    """
    network = lower(graph, dtype=np.float32)
    inputs = inputs_of(load_arrays(source), network)
    if t_end is None and all(hasattr(given, "time") for given in inputs.values()):
        raise UsageError(
            f"{source} holds events, and does not say when a sample ends: say t_end (--t-end)"
        )
    solution = simulate(network, inputs, t_end, engine=Grid(record=True))
    leaving = {f"{name}.y": np.asarray(y) for name, y in solution.y.items()}
    write_whole(output, lambda temporary: save_arrays(temporary, leaving), force)
    counts = {name: np.asarray(spikes).sum(axis=0) for name, spikes in solution.spikes.items()}
    steps, samples = next(iter(solution.voltages.values())).shape[:2]
    return RunOutcome(
        result=Result(int(solution.result)).name.lower(),
        spikes={name: round(float(count.sum())) for name, count in counts.items()},
        spikes_needed={name: round(float(count.max())) for name, count in counts.items()},
        samples=samples,
        t_end=None if solution.dt is None else steps * solution.dt,
        steps=steps,
        notes=notes_of(solution),
        output=os.fspath(output),
        arrays={name: array.shape for name, array in leaving.items()},
    )


def notes_of(solution: GridSolution) -> tuple[str, ...]:
    """What a run on the grid played otherwise than it was said, with the events that it moved or
    left out.
    """
    found = list(solution.notes)
    for name, count in solution.rounded.items():
        found += [
            f"input '{name}': {int(count)} events lay between steps and were moved to the nearest"
        ] * bool(count)
    for name, count in solution.late.items():
        found += [
            f"input '{name}': {int(count)} events lie behind the last step and were left out"
        ] * bool(count)
    return tuple(found)


@dataclass(frozen=True, kw_only=True)
class VerifyOutcome:
    """What `jaxsnn verify` found: the comparison, and what was read or played otherwise than it was
    said.
    """

    found: Verification
    notes: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Every train is identical, and membranes are within the tolerance."""
        return self.found.ok

    def as_dict(self) -> dict[str, Any]:
        """For JSON; an infinite error is text."""
        content = {"schema": 1, **self.found.as_dict(), "notes": list(self.notes)}
        error = self.found.relative_rmse
        return content | (
            {"relative_rmse": str(error)} if error is not None and not math.isfinite(error) else {}
        )

    def as_text(self) -> str:
        """For people."""
        found = self.found
        lines = []
        if found.trains:
            lines.append(
                f"{found.identical} of {found.trains} spike trains are identical, {found.identical_active} of "
                f"{found.active} that have a spike; {found.spikes_got} spikes for {found.spikes_expected}"
            )
        if found.relative_rmse is not None:
            lines.append(f"membranes differ by {found.relative_rmse:.2g} of their size")
        first = found.first_difference
        if first is not None:
            lines.append(
                f"first difference: node '{first.node}', neuron {first.neuron}, sample {first.batch}, "
                f"step {first.step}: {first.expected:g} was recorded, {first.got:g} played"
            )
        return "\n".join([*lines, "verified" if found.ok else "not verified"])


def verify_file(graph: Graph, source: str | os.PathLike[str]) -> VerifyOutcome:
    """Play the input of a recording, and compare with its output.

    Args:
        graph: read with its dialect.
        source: an .npz file or one of NIR data; see `jaxsnn.simulation.recordings.load_recording`.

    Raises:
        JaxsnnError: a recording that does not fit or lacks an output, or a dialect that is not
            known well enough.
    """
    network = lower(graph, dtype=np.float32)
    recording = load_recording(source, network, graph.dialect.dt)
    _refuse_incomplete(source, recording, network.outputs)
    solution = simulate(network, recording.x, engine=Grid())
    return VerifyOutcome(
        found=compare(solution, recording.y), notes=(*recording.notes, *notes_of(solution))
    )


def _refuse_incomplete(
    source: str | os.PathLike[str], recording: Recording, outputs: Iterable[str]
) -> None:
    for name, given in recording.x.items():
        if hasattr(given, "time"):
            raise UsageError(
                f"{source} holds events for input '{name}': a recording has an array for each step"
            )
    if not recording.y:
        raise UsageError(
            f"{source} has no output to compare with: save it as 'y', or as 'NODE.y' for each Output"
        )
    missing = [name for name in outputs if name not in recording.y]
    if missing:
        raise UsageError(
            f"{source} has no recording of output {listing(missing)}: save each as 'NODE.y'"
        )
