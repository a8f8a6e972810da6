"""Solution of a time-stepped run, and its approximations."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jaxsnn.capabilities import unsupported
from jaxsnn.errors import Note, Problem, UsageError, suggestion
from jaxsnn.grid.capabilities import APPROXIMATIONS
from jaxsnn.network.array_types import Array, Bool, Float, Int
from jaxsnn.network.features import StaticNetwork
from jaxsnn.network.network import Network
from jaxsnn.network.promotion import usual_promotion
from jaxsnn.network.results import Result, refuse_no_tau, refuse_several
from jaxsnn.network.spikes import Events, dense_to_events
from jaxsnn.units import format_time


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True, repr=False)
class SteppedSolution:
    """Result of a time-stepped run. A pytree; everything is by NIR node name, arrays are (time,
    batch, *shape).

    Attributes:
        y: Output node -> its input: spikes (integers), or the membranes of readouts.
        spikes: recorded population that fires -> spikes.
        voltages: recorded population -> membranes at the end of each step, after a reset.
        result: status of the run, a `Result` as int32 scalar.
        finite: population -> whether its membranes were finite at the end.
        rounded: Input node with events -> number of events that were moved to the nearest step.
        late: Input node with events -> number of events that came after the last step and were
            ignored.
        dt: length of a step, seconds; None where it is unknown and nothing needs it.
        feeding: pairs of an Output node and the names of the nodes that feed it.
        spiking: Output nodes that receive spikes alone.
        approximations: approximations, and specified options that are not followed, a sentence
            each.
        shortest_tau: the shortest time constant of the populations whose steps depend on dt,
            seconds; inf where there is none.
        culprit: the number that ended the run as NOT_FINITE, if `simulate` located it.
    """

    y: dict[str, Float[Array, "time batch *shape"]]
    spikes: dict[str, Float[Array, "time batch *shape"]]
    voltages: dict[str, Float[Array, "time batch *shape"]]
    result: Int[Array, ""]
    finite: dict[str, Bool[Array, ""]]
    rounded: dict[str, Int[Array, ""]]
    late: dict[str, Int[Array, ""]]
    dt: float | None = field(metadata={"static": True})
    feeding: tuple[tuple[str, tuple[str, ...]], ...] = field(metadata={"static": True})
    spiking: tuple[str, ...] = field(metadata={"static": True})
    approximations: tuple[str, ...] = field(metadata={"static": True})
    shortest_tau: Float[Array, ""] | None = None
    culprit: Problem | None = field(default=None, metadata={"static": True})

    # ---- results; gradients are those of the surrogate

    @property
    def outputs(self) -> dict[str, tuple[str, ...]]:
        """Names of the nodes that feed each Output node."""
        return dict(self.feeding)

    def output(self, name: str | None = None) -> Float[Array, "time batch *shape"]:
        """Return the input of an Output node; without a name, that of the only Output."""
        if name is None and len(self.y) == 1:
            return next(iter(self.y.values()))
        if name not in self.y:
            message = (
                "the network has several outputs"
                if name is None
                else f"'{name}' is not an Output node"
            )
            raise UsageError(message, fix=suggestion(name or "", self.y), node=name or "")
        return self.y[name]

    def events(self, name: str) -> Events:
        """Return the spikes of a population, sorted by time (outside jit only): (batch, events),
        padded with inf and the size. A spike of step k has the time k dt.
        """
        refuse_several(self.result)
        if self.dt is None:
            raise UsageError(
                "the length of a time step is not specified",
                fix="pass TimeStepped(dt=1e-3), for example",
            )
        return dense_to_events(np.asarray(self._spikes_of(name)), self.dt)

    @property
    def counts(self) -> dict[str, Float[Array, "batch neurons"]]:
        """Spike counts of each neuron, by recorded population that fires."""
        return {name: self.count(name) for name in self.spikes}

    @property
    def spikes_recorded(self) -> Float[Array, ""]:
        """Number of spikes of the recorded populations."""
        return sum((jnp.sum(count) for count in self.counts.values()), jnp.zeros(()))

    def first_spike(self, name: str) -> Float[Array, "batch neurons"]:
        """Return the time of the first step with a spike of each neuron, seconds; inf if there is
        none.

        It has no gradient.
        """
        fires = self._spikes_of(name) > 0
        first = jnp.argmax(fires, axis=-3) * (self.dt or 1.0)
        return jnp.where(jnp.any(fires, axis=-3), first, jnp.inf)

    def count(self, name: str) -> Float[Array, "batch neurons"]:
        """Return the number of spikes of each neuron."""
        return jnp.sum(self._spikes_of(name), axis=-3)

    @usual_promotion
    def spike_sum(self, name: str, tau: float) -> Float[Array, "batch neurons"]:
        """Return the sum of e^(-t / tau) over the spikes of each neuron; tau in seconds,
        positive.
        """
        refuse_no_tau(tau)
        spikes = self._spikes_of(name)
        return jnp.sum(spikes * jnp.exp(-self._times(spikes) / tau), axis=-3)

    @usual_promotion
    def maximum(self, name: str) -> Float[Array, "batch neurons"]:
        """Return the largest membrane potential of each neuron at the end of a step."""
        return jnp.max(self._voltages_of(name), axis=-3)

    @usual_promotion
    def mean(self, name: str) -> Float[Array, "batch neurons"]:
        """Return the mean over time of the membrane potential of each neuron, at the ends of the time
        steps; of a node without neurons, the mean of its values.
        """
        return jnp.mean(self._voltages_of(name), axis=-3)

    @usual_promotion
    def integral(self, name: str, tau: float | None = None) -> Float[Array, "batch neurons"]:
        """Return the sum over steps of V(t) e^(-t / tau) dt of each neuron; tau None: of V dt."""
        refuse_no_tau(tau)
        v = self._voltages_of(name)
        weights = jnp.ones_like(v) if tau is None else jnp.exp(-self._times(v) / tau)
        return jnp.sum(v * weights, axis=-3) * (self.dt or 1.0)

    def _spikes_of(self, name: str) -> Float[Array, "time batch neurons"]:
        """Return the spikes of a population that fires."""
        return self._recorded(name, self.spikes, spikes=True)

    def _voltages_of(self, name: str) -> Float[Array, "time batch neurons"]:
        """Return the membranes of a readout, or of a recorded population."""
        return self._recorded(name, self.voltages, spikes=False)

    def _recorded(
        self, name: str, among: dict[str, Float[Array, "time batch *shape"]], *, spikes: bool
    ) -> Float[Array, "time batch neurons"]:
        alone = [output for output, sources in self.feeding if sources == (name,)]
        # a node that is not a population, such as a Threshold or a pool, has a single output
        sent = [
            self.y[output]
            for output in alone
            if name not in self.finite or (output in self.spiking) == spikes
        ]
        if name in self.y:
            sent = [self.y[name]]
        if name in among:
            sent = [among[name]]
        if sent:
            # if `jax.vmap` has combined several runs, time is not the first axis
            leading = jnp.ndim(self.result) + 2
            return sent[0].reshape(*sent[0].shape[:leading], -1)
        if spikes and (alone or name in self.voltages):
            raise UsageError(
                f"'{name}' transmits its membrane potential and has no spikes",
                fix="use voltages, maximum or integral",
                node=name,
            )
        recordable = [*self.voltages, *(sources[0] for _, sources in self.feeding)]
        fires = alone or name in self.spikes
        raise UsageError(
            f"the voltages of '{name}' are not recorded"
            if fires
            else f"neither spikes nor voltages of '{name}' are recorded",
            fix=f'pass TimeStepped(record=("{name}",))'
            + ("" if fires else f", or {suggestion(name, recordable)}"),
            node=name,
        )

    def _times(self, y: Float[Array, "time batch neurons"]) -> Float[Array, "time 1 1"]:
        return jnp.arange(y.shape[-3], dtype=y.dtype)[:, None, None] * (self.dt or 1.0)

    # ---- outcome of the run

    @property
    def notes(self) -> tuple[str, ...]:
        """Notes on approximations, a step that is too long for the network, and events that were
        moved or left out, a sentence each (all but the first outside jit only).
        """
        if isinstance(self.result, Tracer):
            return self.approximations
        moved = [
            Note(
                f"input '{name}': events between time steps that are moved to the nearest step: "
                f"{number}",
                kind="approximated",
                code="moved-events",
            )
            for name, count in self.rounded.items()
            if (number := int(np.sum(count)))
        ]
        late = [
            Note(
                f"input '{name}': events after the last time step that are ignored: {number} "
                "(times are in seconds)",
                kind="dropped",
                code="late-events",
            )
            for name, count in self.late.items()
            if (number := int(np.sum(count)))
        ]
        return *self.approximations, *self._coarse(), *moved, *late

    def _coarse(self) -> Iterator[str]:
        """Yield a note if a step is longer than the shortest time constant, as if milliseconds were
        meant.
        """
        if self.shortest_tau is None or self.dt is None or isinstance(self.shortest_tau, Tracer):
            return
        shortest = float(np.min(np.asarray(self.shortest_tau)))
        if shortest < self.dt:
            yield Note(
                f"the time step, {format_time(self.dt)}, is longer than the shortest time "
                f"constant, {format_time(shortest)} (times are in seconds)",
                kind="assumed",
                code="times-in-seconds",
            )

    @property
    def budgets(self) -> dict[str, dict[str, object]]:
        """Empty budgets: every step has room for every spike."""
        return {}

    @property
    def clipped_slopes(self) -> dict[str, jax.Array]:
        """Empty counts: a surrogate has no slope to be clipped."""
        return {}

    @property
    def problem(self) -> Problem | None:
        """Problem that ended the run, with advice; None if the run succeeded (outside jit only)."""
        refuse_several(self.result)
        if int(self.result) == Result.SUCCESS:
            return None
        if int(self.result) == Result.INVALID_INPUT:
            return Problem(
                code="invalid-input",
                message="an event has a negative time, or a channel that the input does not have",
                fix="check the times and channels of the inputs",
            )
        if self.culprit is not None:
            return self.culprit
        name = next((name for name, finite in self.finite.items() if not finite), None)
        quantity = (
            "an input or a parameter" if name is None else f"the membrane potential of '{name}'"
        )
        return Problem(
            node=name or "",
            code="not-finite",
            message=f"{quantity} is NaN or infinite",
            fix="check parameters and inputs for NaN",
        )

    @property
    def message(self) -> str:
        """Result in words, with advice (outside jit only)."""
        return "success" if (problem := self.problem) is None else str(problem)

    def _repr_html_(self) -> str | None:
        """Return the raster of the first sample for a notebook."""
        if isinstance(self.result, Tracer):
            return None
        from jaxsnn.notebook import html_of

        return html_of(self, text=repr(self))

    def __repr__(self) -> str:
        if isinstance(self.result, Tracer):
            return f"SteppedSolution({', '.join(self.y)}; traced)"
        if shape := self.result.shape:
            return f"SteppedSolution({', '.join(self.y)}; of several runs, {shape})"
        length = "steps" if self.dt is None else f"steps of {format_time(self.dt)}"
        steps, batch = next(iter(self.y.values())).shape[:2]
        ended = Result(int(self.result)).name
        lines = [f"SteppedSolution({ended}, {steps} {length}, {batch} samples"]
        lines += [f"  {name}: {output.shape}" for name, output in list(self.y.items())[:6]]
        lines += [f"  notes: {len(self.notes)}"] if self.notes else []
        return "\n".join(lines) + ")"


def stepped_samples_axis(path: tuple[Any, ...], array: Any) -> int | None:
    """Return the batch axis of an array of a solution; None if it has none."""
    del array
    return 1 if path[0].name in ("y", "spikes", "voltages") else None


def spiking_outputs(network: Network) -> tuple[str, ...]:
    """Return the names of the Output nodes that are fed by populations, all of which fire."""
    populations = network.populations
    return tuple(
        name
        for name, sources in network.outputs.items()
        if sources
        and all(source in populations and populations[source].fires for source in sources)
    )


#: Relative difference up to which two numbers differ only by the rounding of float32.
_ROUNDING = 2**-14


def untied(network: Network) -> Iterator[str]:
    """Yield a note for each gain or time constant that no longer matches the other, although the
    source framework uses only one of the two. Traced parameters are skipped.
    """
    for name, population in network.populations.items():
        for tie in population.ties:
            tau, gain = (network.parameters[name][key] for key in (tie.tau, tie.gain))
            if isinstance(tau, Tracer) or isinstance(gain, Tracer):
                continue
            tau, gain = np.asarray(tau, float).ravel(), np.asarray(gain, float).ravel()
            finite = np.isfinite(tau) & np.isfinite(gain)
            tied_gain = tie.step.gain(np.where(finite, tau, 1.0), tie.dt, np)
            apart = np.flatnonzero(
                finite & (np.abs(tied_gain - gain) > _ROUNDING * np.maximum(np.abs(tied_gain), 1))
            )
            if apart.size:
                place = int(apart[0])
                yield Note(
                    f"node '{name}': {tie.tau} and {tie.gain} of neuron {place} are "
                    f"{tau[place]:g} s and {gain[place]:g}, which do not match a time step of "
                    f"{format_time(tie.dt)}. The source framework uses only one of the two: "
                    "change both together",
                    kind="approximated",
                    code="untied-gain",
                )


def approximations(network: Network) -> tuple[str, ...]:
    """Return the approximations and the specified options that are not followed, a sentence
    each.
    """
    notes: list[str] = [
        Note(remark, kind="approximated", code="ignored-by-source")
        for wire in network.wires
        for remark in wire.remarks
    ]
    for population in network.populations.values():
        notes += [Note(text, kind="approximated") for text in population.remarks]
        notes += [Note(text, kind="assumed") for text in population.assumed]
    notes += [
        Note(problem.message, kind="approximated")
        for problem in unsupported(StaticNetwork.of(network), APPROXIMATIONS)
    ]
    return tuple(dict.fromkeys(notes))
