"""Loops over time: one population, or all nodes of a cycle."""

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxsnn.grid.parts import Parts, total
from jaxsnn.grid.step_input import StepInput
from jaxsnn.network.cycles import Cycle
from jaxsnn.network.structure import Wire


@dataclass(frozen=True, kw_only=True)
class OverTime:
    """What all loops of a run share.

    Attributes:
        lead: numbers of steps and of samples.
        recorded: populations whose membranes are kept.
    """

    lead: tuple[int, ...]
    recorded: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class LoopOutcome:
    """What a loop leaves, by node: signals and recorded membranes (time, batch, *shape); whether V
    is finite.
    """

    signals: dict[str, StepInput]
    voltages: dict[str, jax.Array]
    finite: dict[str, jax.Array]


def run_population(
    parts: Parts, wire: Wire, signals: dict[str, StepInput], over_time: OverTime
) -> LoopOutcome:
    """A population that no cycle goes through."""
    neuron = parts.neurons[wire.name]
    entering = total([signals[source] for source in wire.sources])
    if entering.only is None:
        entering = StepInput(level=jnp.zeros((*over_time.lead, *wire.shape), parts.network.dtype))

    start = neuron.start(over_time.lead[1])
    outcome: Any = _membranes(wire.name in over_time.recorded, neuron, start, entering)
    end, tested, membrane = outcome
    return LoopOutcome(
        signals={wire.name: parts.emitted(neuron.leaving(tested), spikes=neuron.population.fires)},
        voltages={} if membrane is None else {wire.name: membrane},
        finite={wire.name: jnp.all(jnp.isfinite(end.v))},
    )


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _membranes(recorded, neuron, start, entering):
    """The last state, and for each step the membranes that are tested and, if recorded, those after
    a reset.

    Of the loop the gradient keeps the tested membranes alone, and of a step it computes again what
    it needs.
    """
    return _looped(recorded, neuron, start, entering)


def _looped(recorded, neuron, start, entering, known=None):
    def step(state, given):
        state, tested, membrane = neuron.step(state, *given)
        return state, (tested, membrane if recorded else None)

    end, (tested, membrane) = _scan(step, start, (entering, known), None)
    return end, tested, membrane


def _forward(recorded, neuron, start, entering):
    outcome = _looped(recorded, neuron, start, entering)
    return outcome, (neuron, start, entering, outcome[1])


def _backward(recorded, kept, gradients):
    neuron, start, entering, tested = kept
    _, pull = jax.vjp(
        lambda *given: _looped(recorded, *given, known=tested), neuron, start, entering
    )
    return pull(gradients)


_membranes.defvjp(_forward, _backward)


def _scan(step, start, entering, steps):
    """`lax.scan` that keeps states and products of matrices for the gradient, and computes the rest
    of a step again.

    That is faster than reading it from memory.
    """
    again = jax.checkpoint(step, prevent_cse=False, policy=jax.checkpoint_policies.dots_saveable)
    return lax.scan(again, start, entering, length=steps)


def run_cycle(
    parts: Parts, cycle: Cycle, signals: dict[str, StepInput], over_time: OverTime
) -> LoopOutcome:
    """All nodes of a cycle.

    A spike reaches the neurons behind in the same step, the others one step later.
    """
    inside = tuple(wire.name for wire in cycle.wires)
    entering = {
        wire.name: total([signals[source] for source in wire.sources if source not in inside])
        for wire in cycle.wires
    }
    needed = {
        source for wire in parts.network.wires if wire.name not in inside for source in wire.sources
    }
    leaving = tuple(name for name in inside if name in needed or name in over_time.recorded)
    loop = Loop(parts=parts, cycle=cycle)

    def step(carry, drives):
        carry, moment, membranes = loop.step(carry, drives)
        seen = {name: membranes[name] for name in cycle.order if name in over_time.recorded}
        return carry, ({name: moment(name) for name in leaving}, seen)

    start = loop.start(over_time.lead[1])
    end, (outcome, voltages) = _scan(step, start, entering, over_time.lead[0])
    return LoopOutcome(
        signals=outcome,
        voltages=voltages,
        finite={name: jnp.all(jnp.isfinite(end["states"][name].v)) for name in cycle.order},
    )


@dataclass(frozen=True, kw_only=True)
class Loop:
    """One step of a cycle.

    What it carries: the neurons' states, what left them last, and what is in its delays.
    """

    parts: Parts
    cycle: Cycle

    def start(self, batch: int) -> dict[str, Any]:
        """Before the first step nothing has left, and the delays are empty."""
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
                waiting[wire.name] = StepInput(
                    spikes=empty if parts.continuous else None, level=empty
                )
        return {"states": states, "last": last, "waiting": waiting}

    def step(self, carry, entering):
        """The next carry, a function from a node to what leaves it at the end of the step, and the
        membranes.
        """
        parts, wires = self.parts, {wire.name: wire for wire in self.cycle.wires}
        # Spikes of the membrane before the step are known from its beginning.
        now = {
            name: parts.emitted(neuron.fire(carry["states"][name].v), spikes=True)
            for name, neuron in ((name, parts.neurons[name]) for name in self.cycle.order)
            if neuron.population.fires and neuron.population.spikes_from == "before"
        }

        def leaving(name):
            wire = wires[name]
            if wire.kind == "neuron":
                return now[name] if name in now else carry["last"][name]
            if wire.kind == "Delay":
                return jax.tree.map(
                    lambda x: arriving(parts.delays[name], x), carry["waiting"][name]
                )
            return parts.through(wire, gathered(name))

        def gathered(name):
            return total(
                [
                    entering[name],
                    *(leaving(source) for source in wires[name].sources if source in wires),
                ]
            )

        states, membranes = {}, {}
        for name in self.cycle.order:
            neuron = parts.neurons[name]
            states[name], tested, membranes[name] = neuron.step(
                carry["states"][name], gathered(name)
            )
            now[name] = parts.emitted(neuron.leaving(tested), spikes=neuron.population.fires)
        waiting = {name: _queued(queue, gathered(name)) for name, queue in carry["waiting"].items()}
        return {"states": states, "last": now, "waiting": waiting}, leaving, membranes


def _queued(queue: StepInput, new: StepInput) -> StepInput:
    """What waits in a Delay after a step, oldest first."""

    def shifted(old, entering):
        latest = jnp.zeros_like(old[:1]) if entering is None else entering[None]
        return jnp.concatenate([old[1:], latest])

    return StepInput(
        spikes=None if queue.spikes is None else shifted(queue.spikes, new.spikes),
        level=shifted(queue.level, new.level),
    )


def arriving(steps: tuple[int, ...], queue: jax.Array) -> jax.Array:
    """What leaves a Delay, (batch, *shape), of what waits in it, (longest delay, batch, *shape)."""
    if len(steps) == 1:
        return queue[0]
    flat = queue.reshape(*queue.shape[:2], -1)
    place = len(queue) - jnp.asarray(steps)
    return jnp.take_along_axis(flat, place[None, None, :], axis=0)[0].reshape(queue.shape[1:])
