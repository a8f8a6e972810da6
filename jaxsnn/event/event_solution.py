"""Solution of the event engine: spikes, voltages, and how the run ended."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import Tracer

from jaxsnn.errors import Note, Problem, UsageError, listing, suggestion
from jaxsnn.event.event_options import EventOptions
from jaxsnn.event.event_record import (
    Budgets,
    EventRecord,
    shortage_text,
    shortages,
)
from jaxsnn.event.forward.functionals import by_neuron, integral, maximum
from jaxsnn.event.forward.layer import LayerSpikes
from jaxsnn.event.forward.readout import Drive
from jaxsnn.event.solution_notes import numbers_noted, total
from jaxsnn.network.array_types import Array, Bool, Float, Int
from jaxsnn.network.bad_numbers import out_of_bounds
from jaxsnn.network.cycles import Cycle, groups
from jaxsnn.network.inputs import late_events, out_of_range
from jaxsnn.network.meshes import by_compiler, first_axis
from jaxsnn.network.network import ENABLE_X64, Network, entries
from jaxsnn.network.on_processor import on_processor, to_jax
from jaxsnn.network.promotion import usual_promotion
from jaxsnn.network.reductions import any_in, any_of, numbers_of
from jaxsnn.network.results import Result, first_of, refuse_no_tau, refuse_several
from jaxsnn.network.spikes import Events, flatten_spikes
from jaxsnn.network.valued_inputs import Input
from jaxsnn.options import MAX_SPIKES, T_END
from jaxsnn.units import format_time
from jaxsnn.wording import Text


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True, repr=False)
class EventSolution:
    """Solution of the event engine. A pytree; everything is by NIR node name.

    Attributes:
        spikes: population -> `LayerSpikes` with `time` and `slope` (batch, neurons, spikes),
            `count` (batch, neurons).
        voltages: readout -> membrane voltage (batch, samples, neurons).
        sample_times: (samples,) seconds, where the readouts were sampled.
        result: outcome of the run, a `Result` as int32 scalar.
        clipped_slopes: population -> number of spikes so close to tangency that a gradient is
            clipped.
        degenerate_spikes: population -> number of spikes exactly at the time of an arrival that
            moved V (LIF and IF under delta spikes): their times do not depend on any weight, so that
            their exact gradient is zero.
        budgets: option of `EventDriven` -> population -> required and available slots; if one is
            exhausted, the numbers of the populations that follow it are lower bounds.
        t_end: end of the simulation, seconds.
        late: input -> number of events at or after t_end, which are ignored.
        lost: population -> number of spikes of each sample, (batch,), that a device in the loop
            fired and did not record.
        approximations: deviations from NIR's equations, a sentence each.
        heights: population that fires -> v_threshold - v_reset, (neurons,) volts.
        drives: population -> its inputs, without its resets, for `maximum` and `integral`.
        feeding: pairs of an Output node and the names of the populations that feed it.
        shortest_tau: shortest time constant of all populations, seconds; inf if there is none.
        shortest_box: shortest rectangular pulse that arrives at a population, seconds; inf if there
            is none.
        one_per_step: pairs of a population and the length of a time step, seconds, where the
            framework that wrote the file fires at most one spike in a step.
        unused: options that have no effect and Outputs that are not computed, a sentence each.
        min_slope, jump_width: see `EventDriven`.
        culprit: the number that ended the run as NOT_FINITE, if `simulate` located it.
    """

    spikes: dict[str, LayerSpikes]
    voltages: dict[str, Float[Array, "batch samples neurons"]]
    sample_times: Float[Array, "samples"]
    result: Int[Array, ""]
    clipped_slopes: dict[str, Int[Array, ""]]
    degenerate_spikes: dict[str, Int[Array, ""]]
    budgets: Budgets
    t_end: Float[Array, ""]
    drives: dict[str, Drive]
    late: dict[str, Int[Array, ""]]
    heights: dict[str, Float[Array, "neurons"]]
    # known before the run, and not leaves of the pytree
    feeding: tuple[tuple[str, tuple[str, ...]], ...] = field(metadata={"static": True})
    approximations: tuple[str, ...] = field(metadata={"static": True})
    lost: dict[str, Int[Array, "batch"]] = field(default_factory=dict)
    shortest_tau: Float[Array, ""] | None = None
    shortest_box: float = field(default=math.inf, metadata={"static": True})
    one_per_step: tuple[tuple[str, float], ...] = field(default=(), metadata={"static": True})
    unused: tuple[str, ...] = field(default=(), metadata={"static": True})
    min_slope: float | None = field(default=None, metadata={"static": True})
    jump_width: float | None = field(default=None, metadata={"static": True})
    culprit: Problem | None = field(default=None, metadata={"static": True})

    # ---- results

    @property
    def outputs(self) -> dict[str, tuple[str, ...]]:
        """Names of the populations that feed each Output node."""
        return dict(self.feeding)

    def events(self, name: str) -> Events:
        """Return the spikes of a population, sorted by time: (batch, neurons * spikes), padded with
        inf and the size.

        Spikes at exactly equal times come in the order of their neurons.
        """
        refuse_several(self.result)
        return flatten_spikes(self._of(name).time)

    @property
    def counts(self) -> dict[str, Int[Array, "batch neurons"]]:
        """Spikes of each neuron of each spiking population; without a gradient."""
        return {name: spikes.count for name, spikes in self.spikes.items()}

    @property
    def spikes_recorded(self) -> Int[Array, ""]:
        """Number of spikes that are recorded."""
        numbers = [jnp.sum(jnp.isfinite(spikes.time)) for spikes in self.spikes.values()]
        return sum(numbers, jnp.int32(0))

    def first_spike(self, name: str) -> Float[Array, "batch neurons"]:
        """Return the first spike time of each neuron, seconds; inf if it is silent."""
        times = self._of(name).time
        if on_processor(times):
            return to_jax(np.asarray(times)[..., 0])
        return times[..., 0]

    @usual_promotion
    def count(self, name: str) -> Float[Array, "batch neurons"]:
        """Return the number of spikes of each neuron.

        It has no exact gradient: the cotangent of each spike is that of a small jump of V, dcount/dV
        = 1 / (v_threshold - v_reset) at its time (as for the costates of Nowotny et al.,
        arXiv:2212.01232).
        """
        spikes = self._of(name)
        if on_processor(spikes):
            return to_jax(np.asarray(spikes.count, spikes.time.dtype))
        # `moved` is 0, with the derivative dV at each spike: dcount = dV / (v_threshold - v_reset)
        height = lax.stop_gradient(self.heights[name])[..., None, :, None]
        return spikes.count + jnp.sum(moved(spikes) / height, axis=-1)

    @usual_promotion
    def spike_sum(self, name: str, tau: float) -> Float[Array, "batch neurons"]:
        """Return the sum of e^(-t / tau) over the recorded spikes of each neuron; tau in seconds,
        positive.
        """
        refuse_no_tau(tau)
        # e^(-inf) = 0: unused slots add nothing
        return jnp.sum(jnp.exp(-self._of(name).time / tau), axis=-1)

    @usual_promotion
    def maximum(self, name: str) -> Float[Array, "batch neurons"]:
        """Return the largest membrane voltage of each neuron of a readout from 0 to t_end, exact.

        Simultaneous arrivals act together. For a population that fires, the result is the maximum
        without resets: exact for neurons that stay silent.
        """
        drive = self._drive(name)
        functional = partial(by_neuron, maximum)
        return by_compiler(functional, drive, self.t_end, samples=drive.time, axis_of=first_axis)

    @usual_promotion
    def mean(self, name: str) -> Float[Array, "batch neurons"]:
        """Return the exact mean over time, from 0 to t_end, of a readout's voltage; errors as in `integral`."""
        return self.integral(name) / self.t_end

    @usual_promotion
    def integral(self, name: str, tau: float | None = None) -> Float[Array, "batch neurons"]:
        """Return the integral of a readout's V(t) e^(-t / tau) from 0 to t_end, exact, volts times
        seconds.

        Args:
            tau: seconds, positive; None: the integral of V itself.

        Raises:
            UsageError: the population does not exist or fires, or tau is not positive.
        """
        refuse_no_tau(tau)
        if name in self.heights:
            raise UsageError(
                Text(
                    "the voltage integral of '{population}' is not available, because the "
                    "population fires and resets",
                    population=name,
                ),
                fix="pass the name of a readout, or use spike_sum",
                node=name,
            )
        drive = self._drive(name)
        arguments = partial(by_neuron, integral), drive, self.t_end, tau
        return by_compiler(*arguments, samples=drive.time, axis_of=first_axis)

    def _refuse_fewer_bits(self) -> None:
        """Refuse to evaluate a float64 solution with 32-bit numbers."""
        wide = jnp.result_type(float)
        if jnp.result_type(self.t_end) == np.float64 != wide:
            raise UsageError(
                Text("this solution is float64, and JAX computes in {dtype}", dtype=wide),
                fix=ENABLE_X64.format("evaluate it inside of jax.enable_x64(True)"),
            )

    def _drive(self, name: str) -> Drive:
        refuse_several(self.result)
        self._refuse_fewer_bits()
        if name in self.heights and name not in self.drives:
            raise UsageError(
                Text(
                    "the voltages of spiking population '{population}' are not available: it is "
                    "recurrent, or receives its input through a convolution, a pool or synapses "
                    "with individual delays",
                    population=name,
                ),
                fix="pass the name of a readout, or of a population whose only input is a Linear "
                "or Affine",
                node=name,
            )
        if name not in self.drives:
            raise UsageError(
                Text("'{population}' is not a population", population=name),
                fix=suggestion(name, self.drives),
                node=name,
            )
        return self.drives[name]

    def _of(self, name: str) -> LayerSpikes:
        self._refuse_fewer_bits()
        if name not in self.spikes:
            raise UsageError(
                Text("'{population}' is not a spiking population", population=name),
                fix=suggestion(name, self.spikes),
                node=name,
            )
        return self.spikes[name]

    # ---- outcome of the run

    @property
    def spikes_needed(self) -> dict[str, Int[Array, ""]]:
        """Largest number of spikes of a neuron in each population; only a lower bound for
        populations that receive spikes from one with an exhausted budget.
        """
        return {name: budget.needed for name, budget in self.budgets["max_spikes"].items()}

    def shortages(self) -> dict[str, dict[str, int]]:
        """Return the lower bound of each exhausted budget: option of `EventDriven` -> population ->
        number (outside jit only).
        """
        refuse_several(self.result)
        return shortages(self.budgets)

    @property
    def notes(self) -> tuple[str, ...]:
        """Approximations, options without effect, and notes on the results: omitted events,
        exhausted budgets, spikes whose gradient is clipped or zero, coarse times; a sentence each.
        Notes on the results are available outside jit only.
        """
        static_notes = (*self.approximations, *self.unused)
        # Inside jit the results have no concrete numbers.
        if isinstance(self.result, Tracer):
            return static_notes
        return *static_notes, *numbers_noted(self)

    @property
    def problem(self) -> Problem | None:
        """Reason for a failed run, with the numbers and a fix; None if the run succeeded (outside
        jit only).
        """
        refuse_several(self.result)
        match Result(int(self.result)):
            case Result.SUCCESS:
                return None
            case Result.BUDGET_EXHAUSTED:
                return self._exhausted()
            case Result.INVALID_INPUT:
                return self._invalid()
        return self._not_finite()

    @property
    def message(self) -> str:
        """Description of the result, with the numbers and a fix (outside jit only)."""
        return "success" if (problem := self.problem) is None else str(problem)

    def _invalid(self) -> Problem:
        end = float(self.t_end)
        if not is_end(np.asarray(self.t_end)):
            return Problem(
                code="invalid-input",
                message=Text("{t_end} is {end:g} s", t_end=T_END, end=end),
                fix="pass a positive, finite time in seconds",
            )
        return Problem(
            code="invalid-input",
            message=Text(
                "an event of {inputs} has a negative time, or a channel that the input does not "
                "have",
                inputs=listing(self.late),
            ),
            fix="check the times and channels of the inputs",
        )

    def _not_finite(self) -> Problem:
        if self.culprit is not None:
            return self.culprit
        # NaN spreads to postsynaptic populations: several may show it, but only one is the cause.
        shown = [name for name, spikes in self.spikes.items() if jnp.isnan(spikes.time).any()]
        shown += [name for name, v in self.voltages.items() if not jnp.isfinite(v).all()]
        location = (
            Text(" (first visible at {populations})", populations=listing(shown))
            if shown
            else Text("")
        )
        return Problem(
            node=shown[0] if len(shown) == 1 else "",
            code="not-finite",
            message=Text(
                "the run contains an invalid value{location}. Possible causes: a parameter or a "
                "product of parameters, a spike time or a voltage is NaN or infinite; a time "
                "constant is not positive; a delay is negative; r w_in of neurons behind a "
                "convolution or pool is not positive; a Linear that copies channels no longer has "
                "weights 0 and 1; or a registered neuron model returns NaN",
                location=location,
            ),
            fix="check the parameters, the inputs, and the formulas of registered neuron models",
        )

    def _exhausted(self) -> Problem:
        # Report one at a time: counts of populations after an exhausted budget are lower bounds.
        option, short = next(iter(shortages(self.budgets).items()))
        name = next(iter(short))
        most = max(short.values())
        return Problem(
            node=name,
            code="budget",
            message=f"spike budget exhausted: {shortage_text(self.budgets, option, name)}",
            facts={"budget": option, "needed": most},
            fix=f'pass {option}={most} or more, or {option}="auto"'
            if option != MAX_SPIKES.name
            else Text(
                "pass {budget} or more, or {growing}",
                budget=MAX_SPIKES.set_to(most),
                growing=MAX_SPIKES.set_to("auto"),
            ),
        )

    def _repr_html_(self) -> str | None:
        """Return the raster of the first sample for a notebook."""
        if isinstance(self.result, Tracer):
            return None
        from jaxsnn.notebook import html_of

        return html_of(self, text=repr(self))

    def __repr__(self) -> str:
        if isinstance(self.result, Tracer):
            return f"EventSolution({', '.join(self.spikes)}; traced)"
        if shape := self.result.shape:
            return f"EventSolution({', '.join(self.spikes)}; of several runs, {shape})"
        ended = f"{Result(int(self.result)).name}, {format_time(float(self.t_end))}"
        counts = [f"{name} {total(spikes.count)}" for name, spikes in self.spikes.items()]
        lines = [f"EventSolution({ended}", f"  spikes: {listing(counts, 6)}"]
        if self.voltages:
            shapes = [f"{name} {voltage.shape}" for name, voltage in self.voltages.items()]
            lines.append(f"  voltages: {listing(shapes, 6)}")
        if self.notes:
            lines.append(f"  notes: {len(self.notes)}")
        return "\n".join(lines) + ")"


def samples_axis(path: tuple[Any, ...], array: Any) -> int | None:
    """Return the batch axis of an array of a solution; None if it has none."""
    of_solution = path[0].name
    if of_solution in ("spikes", "voltages"):
        return 0
    # of `Drive`: rows that all samples share have a single axis
    arrivals = of_solution == "drives" and getattr(path[-1], "name", "") in ("time", "row")
    return 0 if arrivals and array.ndim == 2 else None


def moved(spikes: LayerSpikes) -> Float[Array, "batch neurons spikes"]:
    """Return 0 for each spike, with the derivative of V at it: the rise of V, in volts, if the
    spike came earlier.
    """
    # dV = -V' dt at a fixed spike; where V jumped, V' is infinite and the spike does not move.
    moves = jnp.isfinite(spikes.time) & jnp.isfinite(spikes.slope)
    time = jnp.where(moves, spikes.time, 0.0)
    slope = lax.stop_gradient(jnp.where(moves, spikes.slope, 0.0))
    return -slope * (time - lax.stop_gradient(time))


def is_end(t_end: Any) -> Any:
    """Return whether a simulation can end at a time, seconds: it is a normal, finite number after 0.

    False for NaN and for subnormal numbers, which XLA flushes to 0.
    """
    return (t_end >= np.finfo(t_end.dtype).tiny) & (t_end < np.inf)


def nan_without_end(solution: EventSolution) -> EventSolution:
    """Return the solution, with its times, voltages and counts invalidated if its `t_end` is
    invalid.

    Times and voltages become NaN and counts -1. For runs with a traced `t_end`: eagerly the end is
    refused, but inside `jax.jit` nothing can be raised, and `result` is easy to overlook.
    """
    valid = is_end(solution.t_end)

    def marked(leaf: Any) -> Any:
        if jnp.issubdtype(leaf.dtype, jnp.floating):
            # a product, so that gradients become NaN, too: those of `where` would be 0
            return leaf * jnp.where(valid, 1.0, jnp.nan).astype(leaf.dtype)
        return jnp.where(valid, leaf, -1)

    fields = ("spikes", "voltages", "drives")
    parts = {name: getattr(solution, name) for name in fields}
    return replace(solution, **jax.tree.map(marked, parts))


def conclude(
    network: Network,
    trains: Mapping[str, Input],
    t_end: Float[Array, ""],
    sample_times: Float[Array, "samples"],
    record: EventRecord,
    options: EventOptions,
) -> EventSolution:
    """Return the solution of a run.

    Args:
        trains: Input node -> its events or currents, with time (batch, events).
        t_end: seconds.
        sample_times: seconds.
        record: results of the run.
    """
    outside = [out_of_range(trains[name], size) for name, size in network.inputs.items()]
    # The first condition that holds is the result: an invalid input explains the others.
    conditions = [
        (any_of(outside) | ~is_end(t_end), Result.INVALID_INPUT),
        (_is_broken(network, trains, record), Result.NOT_FINITE),
        (_is_exhausted(network, record, options), Result.BUDGET_EXHAUSTED),
    ]
    return EventSolution(
        spikes=record.spikes,
        voltages=record.voltages,
        sample_times=sample_times,
        result=first_of(conditions),
        clipped_slopes=record.clipped,
        degenerate_spikes=record.degenerate,
        budgets=record.budgets,
        t_end=t_end,
        drives=record.drives,
        heights=record.heights,
        late={name: late_events(events, t_end) for name, events in trains.items()},
        feeding=tuple(network.outputs.items()),
        approximations=event_approximations(network),
        shortest_tau=jnp.min(entries(time_constants(network)), initial=jnp.inf),
        shortest_box=_shortest_box(network),
        one_per_step=_one_per_step(network),
        min_slope=options.min_slope,
        jump_width=options.jump_width,
    )


def time_constants(network: Network) -> list[Array]:
    """Return the time constants of all populations, seconds."""
    parameters = [network.parameters[name] for name in network.populations]
    return [
        value
        for population_parameters in parameters
        for key, value in population_parameters.items()
        if key.startswith("tau")
    ]


def _one_per_step(network: Network) -> tuple[tuple[str, float], ...]:
    """Return `EventSolution.one_per_step`; a source that solves equations has no steps."""
    return tuple(
        (name, population.dt)
        for name, population in network.populations.items()
        if population.fires
        and population.spikes_per_step == "one"
        and population.membrane != "exact"
        and population.dt is not None
    )


def _shortest_box(network: Network) -> float:
    """Return the shortest rectangular pulse that arrives at a population, seconds; inf if there is
    none.
    """
    populations = network.populations.values()
    boxes = (population.dt for population in populations if population.spike_kernel == "box")
    return min((width for width in boxes if width), default=math.inf)


def _is_broken(
    network: Network, trains: Mapping[str, Input], record: EventRecord
) -> Bool[Array, ""]:
    """Return whether some number is not finite or out of bounds."""
    # A time may be inf, which is an unused slot, and all else must be finite.
    times = [*record.times.values(), *(events.time for events in trains.values())]
    numbers = record.numbers, record.voltages, network.parameters
    return any_in(
        jnp.isnan(numbers_of(times)),
        ~jnp.isfinite(numbers_of(numbers)),
        *out_of_bounds(network),
    )


def _is_exhausted(network: Network, record: EventRecord, options: EventOptions) -> Bool[Array, ""]:
    """Return whether some budget was too small; neurons that stop after one spike exhaust none."""
    # these populations record only the first spikes: later ones are omitted on purpose
    stop = {name for name in network.populations if options.stops(name)}
    return any_of(
        [
            budget.needed > budget.room
            for option, population_budgets in record.budgets.items()
            for name, budget in population_budgets.items()
            if not (option == "max_spikes" and name in stop)
        ]
    )


def event_approximations(network: Network) -> tuple[str, ...]:
    """Return the differences between the simulation and the source framework, a sentence each."""
    notes: list[str] = [
        Note(remark, kind="approximated", code="ignored-by-source")
        for wire in network.wires
        for remark in wire.remarks
    ]
    assumed = [text for population in network.populations.values() for text in population.assumed]
    notes += [Note(text, kind="assumed") for text in dict.fromkeys(assumed)]
    # Only cycles have connections to earlier populations.
    cycles = [part for part in groups(network.wires) if isinstance(part, Cycle)]
    for name in (name for cycle in cycles for name in cycle.order):
        population = network.populations[name]
        if population.recurrent_delay and population.dt:
            late = population.recurrent_delay * population.dt
            # frameworks compute a step from the recurrent spikes of the previous step
            notes.append(
                Text(
                    "node '{node}': its recurrent spikes, to itself or to earlier populations, "
                    "arrive {delay:g} s later, as in the source framework",
                    node=name,
                    delay=late,
                )
            )
    return tuple(notes)
