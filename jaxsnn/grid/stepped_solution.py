"""What a time-stepped run leaves, and what it only approximates."""

from dataclasses import dataclass, field

import jax

from jaxsnn.errors import Problem, UsageError, suggestion
from jaxsnn.network.cycles import Cycle, groups
from jaxsnn.network.network import Network
from jaxsnn.network.results import Result


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class GridSolution:
    """What a time-stepped run left. A pytree; everything is by NIR node name, arrays are (time,
    batch, *shape).

    Attributes:
        y: Output node -> what arrives there: spikes (whole numbers), or the membranes of readouts.
        spikes: recorded population that fires -> spikes.
        voltages: recorded population -> membranes at the end of each step, after a reset.
        result: how the run ended, a `Result` as int32 scalar.
        finite: population -> whether its membranes were finite at the end.
        rounded: Input node that was given as events -> how many were moved to the nearest step.
        late: Input node that was given as events -> how many lie behind the last step and were left
            out.
        dt: length of a step, seconds; None where it is unknown and nothing needs it.
        outputs: Output node -> names of the nodes that feed it.
        spiking: Output nodes that receive spikes alone.
        notes: approximations, and where what was said is not followed, a sentence each.
    """

    y: dict[str, jax.Array]
    spikes: dict[str, jax.Array]
    voltages: dict[str, jax.Array]
    result: jax.Array
    finite: dict[str, jax.Array]
    rounded: dict[str, jax.Array]
    late: dict[str, jax.Array]
    dt: float | None = field(metadata={"static": True})
    outputs: tuple[tuple[str, tuple[str, ...]], ...] = field(metadata={"static": True})
    spiking: tuple[str, ...] = field(metadata={"static": True})
    notes: tuple[str, ...] = field(metadata={"static": True})

    def output(self, name: str | None = None) -> jax.Array:
        """What arrives at an Output node; without a name that of the only one."""
        if name is None and len(self.y) == 1:
            return next(iter(self.y.values()))
        if name not in self.y:
            what = "the network has several outputs" if name is None else f"'{name}' is no Output"
            raise UsageError(what, fix=suggestion(name or "", self.y), node=name or "")
        return self.y[name]

    @property
    def problem(self) -> Problem | None:
        """Why there is no result, and what to do; None if the run succeeded (outside jit only)."""
        if int(self.result) == Result.SUCCESS:
            return None
        if int(self.result) == Result.INVALID_INPUT:
            return Problem(
                code="invalid-input",
                message="an event lies before time 0 or names a channel that the input lacks",
                fix="look at the times and channels of the inputs",
            )
        name = next((name for name, finite in self.finite.items() if not finite), None)
        what = "an input or a parameter" if name is None else f"the membrane of '{name}'"
        return Problem(
            node=name or "",
            code="not-finite",
            message=f"{what} is NaN or infinite",
            fix="look for NaN in parameters and inputs",
        )

    @property
    def message(self) -> str:
        """The result in words, with what to do (outside jit only)."""
        return "success" if (problem := self.problem) is None else str(problem)


def spiking_outputs(network: Network) -> tuple[str, ...]:
    """Names of the Output nodes that populations feed, all of which fire."""
    populations = network.populations
    return tuple(
        name
        for name, sources in network.outputs.items()
        if sources
        and all(source in populations and populations[source].fires for source in sources)
    )


def approximations(network: Network) -> tuple[str, ...]:
    """What is only approximated, and where what was said is not followed; a sentence each."""
    found = [remark for population in network.populations.values() for remark in population.remarks]
    cycles = [group for group in groups(network.wires) if isinstance(group, Cycle)]
    for name in (name for cycle in cycles for name in cycle.order):
        population = network.populations[name]
        if population.recurrent_delay == 0 and population.spikes_from == "after":
            found.append(
                f"node '{name}': what it sends back to itself arrives one step later, the network has no delay there"
            )
    by_name = {wire.name: wire for wire in network.wires}
    for wire in network.wires:
        population = network.populations.get(wire.name)
        targets = [target.name for target in network.wires if wire.name in target.sources]
        onward = any(by_name[target].kind != "output" for target in targets)
        if (
            population is not None
            and population.membrane == "exact"
            and not population.fires
            and onward
        ):
            found.append(
                f"node '{wire.name}': its membrane voltage acts as a constant current over each step on what follows"
            )
    return tuple(found)


def notes_of(solution: GridSolution) -> tuple[str, ...]:
    """The notes of a run, with the events that it moved or left out (outside jit only)."""
    found = list(solution.notes)
    for name, count in solution.rounded.items():
        if count:
            found.append(
                f"input '{name}': {int(count)} events lay between steps and were moved to the nearest"
            )
    for name, count in solution.late.items():
        if count:
            found.append(
                f"input '{name}': {int(count)} events lie behind the last step and were left out"
            )
    return tuple(found)
