"""The time-stepped engine: simulates a network as the framework that wrote it does, step by step.

Outside of cycles, nodes are computed one after the other: a matrix product or convolution for all
steps at once, and a loop over time for each population. A cycle is one loop over time for all of its
nodes.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from jaxsnn.errors import UsageError, shown, suggestion
from jaxsnn.grid.linear import delayed
from jaxsnn.grid.over_time import OverTime, run_cycle, run_population
from jaxsnn.grid.parts import Parts, take_apart, total
from jaxsnn.grid.rasters import Rasters, rasters, rounded_end
from jaxsnn.grid.step_input import StepInput
from jaxsnn.grid.stepped_solution import (
    SteppedSolution,
    approximations,
    spiking_outputs,
    stepped_samples_axis,
    untied,
)
from jaxsnn.grid.surrogate import Surrogate, as_surrogate
from jaxsnn.grid.timing import needs_dt, step_length
from jaxsnn.keywords import suggests_keywords
from jaxsnn.network.array_types import Array, Bool, Float
from jaxsnn.network.bad_numbers import out_of_bounds
from jaxsnn.network.cycles import Cycle, groups
from jaxsnn.network.delay_notes import long_delay_notes
from jaxsnn.network.inputs import other_step_notes
from jaxsnn.network.meshes import by_compiler
from jaxsnn.network.network import Network, check_precision, entries
from jaxsnn.network.reductions import any_in, any_of
from jaxsnn.network.results import Result, first_of
from jaxsnn.network.static_options import hashable
from jaxsnn.network.structure import Wire


@suggests_keywords
@dataclass(frozen=True, kw_only=True)
class TimeStepped:
    """Engine that simulates in steps of equal length, as the framework that wrote the file does.

    It is differentiable in the parameters and the input, through a surrogate.

    Attributes:
        dt: length of a step, seconds. None: that of the framework that wrote the file. Specify it
            only if the file does not contain it; a different step than that of the file is
            rejected.
        surrogate: the derivative of a spike: `FastSigmoid`, `ArcTan`, `Sigmoid`,
            `StraightThrough`, or a name such as "atan" or "fast-sigmoid:10". None: the default of
            the framework that wrote the file (snnTorch ArcTan(alpha=2), Norse
            FastSigmoid(slope=1), Spyx FastSigmoid(slope=25), SpikingJelly Sigmoid(slope=4)), or
            FastSigmoid(slope=25) for other frameworks.
        detach_reset: whether gradients ignore resets. None: the default of the framework. snnTorch
            ignores resets that act at the beginning of a step; Norse, SpikingJelly and Spyx ignore
            none.
        record: names of the populations whose spikes and membranes are recorded in every step;
            True: all.
    """

    dt: float | None = None
    surrogate: Surrogate | str | None = None
    detach_reset: bool | None = None
    record: bool | tuple[str, ...] = ()

    #: Name in configuration files and on the command line.
    kind: ClassVar[str] = "grid"
    #: Whether gradients are exact, not those of a surrogate.
    exact: ClassVar[bool] = False
    #: Whether inputs may also be arrays (time, batch, *shape).
    takes_rasters: ClassVar[bool] = True

    def records(self, name: str) -> bool:
        """Return whether a population is recorded."""
        return self.record if isinstance(self.record, bool) else name in self.record

    def run(
        self,
        network: Network,
        inputs: Any,
        t_end: float | None = None,
        sample_times: Any = None,
    ) -> SteppedSolution:
        """Simulate a batch. A failed run raises no error: check `result`.

        Args:
            inputs, t_end: see `jaxsnn.simulate`.
            sample_times: not supported; a readout has one value in each time step.

        Raises:
            UsageError: inputs or options that do not fit the network.
            LoweringError: the engine does not support the network, or some information is missing.
        """
        if sample_times is not None and np.size(sample_times):
            raise UsageError(
                "the time-stepped engine does not support sample_times: a readout has one value "
                "in each time step",
                fix="omit sample_times",
            )
        self.check(network)
        check_precision(network)
        engine = self.hashable()
        dt = step_length(network, engine.dt)
        input_rasters = rasters(network, inputs, t_end=t_end, dt=dt)
        solution = _run(engine, network, input_rasters)
        steps = len(next(iter(input_rasters.x.values())))
        notes = (
            *solution.approximations,
            *(() if dt is None else long_delay_notes(network, steps * dt)),
            *untied(network),
            *rounded_end(t_end, dt),
            *other_step_notes(network, inputs),
        )
        return replace(solution, approximations=notes)

    def check(self, network: Network) -> None:
        """Refuse options that are invalid for a network.

        Raises:
            UsageError: an option is invalid; the message names it.
        """
        if not isinstance(self.record, bool | tuple | list | set | frozenset):
            name = self.record if isinstance(self.record, str) else "NODE"
            raise UsageError(
                f"record is {self.record!r}", fix=f'pass a tuple of names, ("{name}",)'
            )
        for name in () if isinstance(self.record, bool) else self.record:
            if name not in network.populations:
                raise UsageError(
                    f"record contains '{name}', which is not a population",
                    fix=suggestion(name, network.populations),
                    node=name,
                )
        if not isinstance(self.detach_reset, bool | np.bool_ | None):
            raise UsageError(
                f"detach_reset is {shown(self.detach_reset)}", fix="pass True, False or None"
            )

    def hashable(self) -> TimeStepped:
        """Return the same options as a static argument."""
        return replace(
            self,
            dt=hashable(self.dt),
            surrogate=as_surrogate(self.surrogate),
            record=hashable(self.record),
        )

    @property
    def grows(self) -> bool:
        """Whether budgets grow: False, as there are none."""
        return False

    def is_auto(self, option: str, population: str) -> bool:
        """Return False: there are no budgets that grow."""
        del option, population
        return False

    def with_room(self, needed: Any) -> TimeStepped:
        """Return the engine unchanged: it has no budgets."""
        del needed
        return self

    def as_dict(self) -> dict[str, Any]:
        """Return the options by name, for JSON."""
        only = {} if isinstance(self.record, bool) else {"record": list(self.record)}
        return asdict(self) | only

    def prepared(self) -> TimeStepped:
        """Return the engine for training: hashable, with all populations recorded."""
        return replace(self.hashable(), record=True)


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class SteppedRecord:
    """Arrays of a run, by NIR node name; (time, batch, *shape).

    Attributes:
        y: Output node -> its input.
        spikes: recorded population that fires -> spikes.
        voltages: recorded population -> membranes at the end of each step, after a reset.
        finite: population -> whether its membranes were finite at the end, scalar bool.
    """

    y: dict[str, Float[Array, "time batch *shape"]] = field(default_factory=dict)
    spikes: dict[str, Float[Array, "time batch *shape"]] = field(default_factory=dict)
    voltages: dict[str, Float[Array, "time batch *shape"]] = field(default_factory=dict)
    finite: dict[str, Bool[Array, ""]] = field(default_factory=dict)


@partial(jax.jit, static_argnums=0)
def _run(engine: TimeStepped, network: Network, input_rasters: Rasters) -> SteppedSolution:
    samples = next(iter(input_rasters.x.values()))
    stepped = partial(_stepped, engine)
    return by_compiler(
        stepped, network, input_rasters, samples=samples, axis=1, axis_of=stepped_samples_axis
    )


def _stepped(engine: TimeStepped, network: Network, input_rasters: Rasters) -> SteppedSolution:
    record = simulate_steps(network, input_rasters.x, engine, input_rasters.currents)
    not_a_number = jnp.any(jnp.isnan(entries(network.parameters)))  # inf means no leak
    broken = any_of(
        [~finite for finite in record.finite.values()]
        + [~jnp.all(jnp.isfinite(y)) for y in record.y.values()]
        + [not_a_number, any_in(*out_of_bounds(network))]
    )
    return SteppedSolution(
        y=record.y,
        spikes=record.spikes,
        voltages=record.voltages,
        result=first_of(
            [(input_rasters.invalid, Result.INVALID_INPUT), (broken, Result.NOT_FINITE)]
        ),
        finite=record.finite,
        rounded=input_rasters.rounded,
        late=input_rasters.late,
        dt=step_length(network, engine.dt),
        feeding=tuple(network.outputs.items()),
        spiking=spiking_outputs(network),
        approximations=approximations(network),
        shortest_tau=_shortest_tau(network),
    )


def _shortest_tau(network: Network) -> Float[Array, ""]:
    """Return the shortest time constant of the populations whose steps depend on dt, seconds."""
    taus = [
        value
        for name, population in network.populations.items()
        if needs_dt(population) and not population.counts_steps
        for key, value in network.parameters[name].items()
        if key.startswith("tau")
    ]
    return jnp.min(entries(taus), initial=jnp.inf)


def simulate_steps(
    network: Network,
    inputs: dict[str, Float[Array, "time batch *shape"]],
    engine: TimeStepped,
    currents: tuple[str, ...] = (),
) -> SteppedRecord:
    """Simulate a batch.

    Args:
        inputs: Input node -> (time, batch, *shape), in the network's dtype.
        currents: inputs that are currents, if the network is in continuous time (NIR's equations).

    Raises:
        LoweringError: a required property is unknown, or a node is not supported.
        UsageError: `engine.dt` contradicts the network.
    """
    parts = take_apart(
        network,
        dt=engine.dt,
        surrogate=as_surrogate(engine.surrogate),
        detach_reset=engine.detach_reset,
    )
    recorded = tuple(name for name in parts.neurons if engine.records(name))
    steps, batch = next(iter(inputs.values())).shape[:2]
    over_time = OverTime(lead=(steps, batch), recorded=recorded)
    record = SteppedRecord()
    signals: dict[str, StepInput] = {}
    for group in groups(network.wires):
        if isinstance(group, Cycle):
            outcome = run_cycle(parts, group, signals, over_time)
        elif group.kind == "neuron":
            outcome = run_population(parts, group, signals, over_time)
        else:
            spikes = group.name not in currents
            signals[group.name] = _through(parts, group, signals, inputs, spikes=spikes)
            continue
        signals |= outcome.signals
        record.voltages.update(outcome.voltages)
        record.finite.update(outcome.finite)
    for wire in network.wires:
        if wire.kind == "output":
            record.y[wire.name] = signals[wire.name].only
    for name in recorded:
        if parts.neurons[name].population.fires:
            record.spikes[name] = signals[name].only
    return record


def _through(
    parts: Parts,
    wire: Wire,
    signals: dict[str, StepInput],
    inputs: dict[str, Float[Array, "time batch *shape"]],
    *,
    spikes: bool,
) -> StepInput:
    """Return a signal over all steps after a node that is not a neuron.

    Args:
        spikes: whether an input sends spikes, not a current.
    """
    if wire.kind == "input":
        return parts.emitted(inputs[wire.name], spikes=spikes)
    entering = total([signals[source] for source in wire.sources])
    if wire.kind == "output":
        return entering
    if wire.kind == "Delay":
        steps = parts.delays[wire.name]
        return jax.tree.map(lambda x: delayed(steps, x), entering)
    return parts.through(wire, entering)
