"""Loops over time: one population, or all nodes of a cycle."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxsnn.grid.parts import Parts, total
from jaxsnn.grid.step_input import StepInput, SteppingModel
from jaxsnn.network.array_types import Array, Bool, Float
from jaxsnn.network.cycles import Cycle
from jaxsnn.network.meshes import match_device_axes
from jaxsnn.network.promotion import usual_promotion
from jaxsnn.network.structure import Wire


@dataclass(frozen=True, kw_only=True)
class OverTime:
    """Settings that all loops of a run share.

    Attributes:
        lead: numbers of time steps and samples.
        recorded: populations whose membrane potentials are recorded.
    """

    lead: tuple[int, int]
    recorded: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class LoopOutcome:
    """Results of a loop, by node.

    Attributes:
        signals: node -> its output, over all steps.
        voltages: recorded membranes.
        finite: whether V is finite at the end.
    """

    signals: dict[str, StepInput]
    voltages: dict[str, Float[Array, "time batch *shape"]]
    finite: dict[str, Bool[Array, ""]]


#: Result of a loop over a population: the last state, and for each step the membranes that are
#: compared with the threshold, and those after a reset.
Membranes = tuple[Any, Float[Array, "time batch *shape"], Float[Array, "time batch *shape"] | None]


def run_population(
    parts: Parts, wire: Wire, signals: dict[str, StepInput], over_time: OverTime
) -> LoopOutcome:
    """Simulate a population that is not part of a cycle."""
    neuron = parts.neurons[wire.name]
    entering = total([signals[source] for source in wire.sources])
    if entering.only is None:
        nothing = jnp.zeros((*over_time.lead, *wire.shape), parts.network.dtype)
        entering = StepInput(level=nothing)

    start = neuron.start(over_time.lead[1])
    recorded = wire.name in over_time.recorded
    # the carry, and all gradients, must vary over the mesh axes of all inputs
    outcome: Any = _membranes(recorded, *match_device_axes((neuron, start, entering)))
    end, tested, membrane = outcome
    sent = parts.emitted(neuron.leaving(tested), spikes=neuron.population.fires)
    return LoopOutcome(
        signals={wire.name: sent},
        voltages={} if membrane is None else {wire.name: membrane},
        finite={wire.name: jnp.all(jnp.isfinite(end.v))},
    )


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _membranes(recorded: bool, neuron: SteppingModel, start: Any, entering: StepInput) -> Membranes:
    """Return the last state, and for each step the tested membranes and, if recorded, those after a
    reset.

    For the gradient the loop keeps only the tested membranes, and a step recomputes the rest that
    it needs.
    """
    return _looped(recorded, neuron, start, entering)


def _looped(
    recorded: bool,
    neuron: SteppingModel,
    start: Any,
    entering: StepInput,
    tested_before: Float[Array, "time batch *shape"] | None = None,
) -> Membranes:
    """Run the loop of `_membranes`.

    Args:
        tested_before: membranes that an earlier run of the same loop compared with the threshold.
    """

    def step(state: Any, step_inputs: tuple[StepInput, Any]) -> tuple[Any, tuple[Any, Any]]:
        state, tested, membrane = neuron.step(state, *step_inputs)
        return state, (tested, membrane if recorded else None)

    end, (tested, membrane) = _scan(step, start, (entering, tested_before), None)
    return end, tested, membrane


#: Residuals of a loop for the gradient: its arguments, and the membranes that were compared with
#: the threshold.
Kept = tuple[SteppingModel, Any, StepInput, Float[Array, "time batch *shape"]]


def _forward(
    recorded: bool, neuron: SteppingModel, start: Any, entering: StepInput
) -> tuple[Membranes, Kept]:
    outcome = _looped(recorded, neuron, start, entering)
    return outcome, (neuron, start, entering, outcome[1])


def _backward(recorded: bool, residuals: Kept, gradients: Membranes) -> tuple[Any, Any, Any]:
    neuron, start, entering, tested = residuals
    _, pull = jax.vjp(
        lambda *primals: _looped(recorded, *primals, tested_before=tested), neuron, start, entering
    )
    return pull(gradients)


_membranes.defvjp(usual_promotion(_forward), usual_promotion(_backward))


def _scan(
    step: Callable[[Any, Any], tuple[Any, Any]], start: Any, entering: Any, steps: int | None
) -> tuple[Any, Any]:
    """Run `lax.scan` that saves states and matrix products for the gradient, and recomputes the
    rest of a step.

    That is faster than reading it from memory.
    """
    again = jax.checkpoint(step, prevent_cse=False, policy=jax.checkpoint_policies.dots_saveable)
    return lax.scan(again, match_device_axes(start, entering), entering, length=steps)


def run_cycle(
    parts: Parts, cycle: Cycle, signals: dict[str, StepInput], over_time: OverTime
) -> LoopOutcome:
    """Simulate all nodes of a cycle.

    A spike reaches neurons that are later in the order in the same step, and the others one step
    later.
    """
    inside = tuple(wire.name for wire in cycle.wires)
    # Inputs from outside of the cycle are known for all steps.
    entering = {
        wire.name: total([signals[source] for source in wire.sources if source not in inside])
        for wire in cycle.wires
    }
    needed = {
        source for wire in parts.network.wires if wire.name not in inside for source in wire.sources
    }
    leaving = tuple(name for name in inside if name in needed or name in over_time.recorded)
    loop: Loop = (LoopInTurn if cycle.in_turn else Loop)(parts=parts, cycle=cycle)

    def step(
        carry: LoopState, drives: dict[str, StepInput]
    ) -> tuple[LoopState, tuple[dict[str, StepInput], dict[str, Float[Array, "batch *shape"]]]]:
        carry, sent_by, membranes = loop.step(carry, drives)
        seen = {name: membranes[name] for name in cycle.order if name in over_time.recorded}
        return carry, ({name: sent_by(name) for name in leaving}, seen)

    start = loop.start(over_time.lead[1])
    start = match_device_axes(start, parts.network)
    end, (outcome, voltages) = _scan(step, start, entering, over_time.lead[0])
    return LoopOutcome(
        signals=outcome,
        voltages=voltages,
        finite={name: jnp.all(jnp.isfinite(end.states[name].v)) for name in cycle.order},
    )


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class LoopState:
    """State that a cycle carries from step to step, by node.

    Attributes:
        states: neuron -> its state.
        last: neuron -> its latest output.
        waiting: Delay -> its queue, (longest delay, batch, *shape), oldest first.
    """

    states: dict[str, Any]
    last: dict[str, StepInput]
    waiting: dict[str, StepInput]


@dataclass(frozen=True, kw_only=True)
class Loop:
    """Simulator of a cycle, one step at a time."""

    parts: Parts
    cycle: Cycle

    def start(self, batch: int) -> LoopState:
        """Return the state before the first step: no output yet, and empty delays."""
        parts, dtype = self.parts, self.parts.network.dtype
        states = {name: parts.neurons[name].start(batch) for name in self.cycle.order}
        last = {}
        for name, state in states.items():
            fires = parts.neurons[name].population.fires
            last[name] = parts.emitted(jnp.zeros_like(state.v) if fires else state.v, spikes=fires)
        waiting = {}
        for wire in self.cycle.wires:
            if wire.kind == "Delay":
                empty = jnp.zeros((max(parts.delays[wire.name]), batch, *wire.shape), dtype)
                spikes = empty if parts.continuous else None
                waiting[wire.name] = StepInput(spikes=spikes, level=empty)
        return LoopState(states=states, last=last, waiting=waiting)

    def step(
        self, carry: LoopState, entering: dict[str, StepInput]
    ) -> tuple[LoopState, Callable[[str], StepInput], dict[str, Float[Array, "batch *shape"]]]:
        """Simulate one step.

        Args:
            entering: node -> its input from outside of the cycle.

        Returns:
            The next carry, a function that returns the output of a node at the end of the step, and
            the membranes by neuron.
        """
        parts, wires = self.parts, {wire.name: wire for wire in self.cycle.wires}
        now = self._known_at_start(carry)

        def leaving(name: str) -> StepInput:
            """Return the current output of a node, given the neurons that have stepped so far."""
            wire = wires[name]
            if wire.kind == "neuron":
                return now[name] if name in now else carry.last[name]
            if wire.kind == "Delay":
                steps = parts.delays[name]
                return jax.tree.map(lambda x: arriving(steps, x), carry.waiting[name])
            return parts.through(wire, gathered(name))

        def gathered(name: str) -> StepInput:
            """Return the input of a node."""
            inside = [leaving(source) for source in wires[name].sources if source in wires]
            return total([entering[name], *inside])

        states, membranes = {}, {}
        for name in self.cycle.order:
            neuron = parts.neurons[name]
            state, tested, membrane = neuron.step(carry.states[name], gathered(name))
            states[name], membranes[name] = state, membrane
            # Later neurons receive the output of this step, earlier ones that of the previous step.
            now[name] = parts.emitted(neuron.leaving(tested), spikes=neuron.population.fires)
        waiting = {name: _queued(queue, gathered(name)) for name, queue in carry.waiting.items()}
        return LoopState(states=states, last=now, waiting=waiting), leaving, membranes

    def _known_at_start(self, carry: LoopState) -> dict[str, StepInput]:
        """Return the spikes of neurons whose spikes depend on the membrane before the step, by
        neuron.
        """
        early_spikes = {}
        for name in self.cycle.order:
            neuron = self.parts.neurons[name]
            if neuron.population.fires and neuron.population.spikes_from == "before":
                spikes = neuron.fire(carry.states[name].v)
                early_spikes[name] = self.parts.emitted(spikes, spikes=True)
        return early_spikes


class LoopInTurn(Loop):
    """Simulator of a cycle whose nodes run one after the other, including those without a neuron.

    `LoopState.last` holds the outputs of all nodes that another node receives one step late; before
    the first step these are zero.
    """

    def start(self, batch: int) -> LoopState:
        """Return the state before the first step."""
        dtype = self.parts.network.dtype
        states = {name: self.parts.neurons[name].start(batch) for name in self.cycle.order}
        late = {source for wire in self.cycle.wires for source in wire.late}
        last = {
            wire.name: StepInput(level=jnp.zeros((batch, *wire.shape), dtype))
            for wire in self.cycle.wires
            if wire.name in late
        }
        return LoopState(states=states, last=last, waiting={})

    def step(
        self, carry: LoopState, entering: dict[str, StepInput]
    ) -> tuple[LoopState, Callable[[str], StepInput], dict[str, Float[Array, "batch *shape"]]]:
        """Simulate one step; see `Loop.step`."""
        parts = self.parts
        now: dict[str, StepInput] = {}
        states, membranes = {}, {}
        for wire in self.cycle.wires:
            inside = [source for source in wire.sources if source in carry.last or source in now]
            recurrent_inputs = [
                carry.last[name] if name in wire.late else now[name] for name in inside
            ]
            arriving = total([entering[wire.name], *recurrent_inputs])
            if wire.kind != "neuron":
                now[wire.name] = parts.through(wire, arriving)
                continue
            neuron = parts.neurons[wire.name]
            state, tested, membrane = neuron.step(carry.states[wire.name], arriving)
            states[wire.name], membranes[wire.name] = state, membrane
            now[wire.name] = parts.emitted(neuron.leaving(tested), spikes=neuron.population.fires)
        last = {name: now[name] for name in carry.last}
        return LoopState(states=states, last=last, waiting={}), now.__getitem__, membranes


def _queued(queue: StepInput, new: StepInput) -> StepInput:
    """Return the queue of a Delay after a step, oldest first."""

    def shifted(
        old: Float[Array, "queue batch *shape"], entering: Float[Array, "batch *shape"] | None
    ) -> Float[Array, "queue batch *shape"]:
        latest = jnp.zeros_like(old[:1]) if entering is None else entering[None]
        return jnp.concatenate([old[1:], latest])

    assert queue.level is not None
    return StepInput(
        spikes=None if queue.spikes is None else shifted(queue.spikes, new.spikes),
        level=shifted(queue.level, new.level),
    )


def arriving(
    steps: tuple[int, ...], queue: Float[Array, "queue batch *shape"]
) -> Float[Array, "batch *shape"]:
    """Return the output of a Delay, from its queue, oldest first; the queue is as long as the
    longest delay.
    """
    if len(steps) == 1:
        return queue[0]
    flat = queue.reshape(*queue.shape[:2], -1)  # (queue, batch, elements)
    # An input of k steps ago is k places from the end.
    place = len(queue) - jnp.asarray(steps)
    return jnp.take_along_axis(flat, place[None, None, :], axis=0)[0].reshape(queue.shape[1:])
