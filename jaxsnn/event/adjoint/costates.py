"""Backward pass over a recurrent group's log: costates from the last step to the first, and the
gradients that they yield.

`recurrent_adjoint` explains the pass and its arrays; the rules at spikes and arrivals are those of
`layer_adjoint`. Each step undoes, in this order, the flow to the next step, the arrivals of the
step, and its spike. (In the forward pass a spike acts before it arrives.)
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxsnn.event.adjoint.costate_rules import (
    Backward,
    Costate,
    dot,
    plus,
    slope_floor,
    starts_above,
    times_each,
    without_v,
)
from jaxsnn.event.compensated import Pair, between
from jaxsnn.event.event_arrays import (
    NeuronConstants,
    NumberOfSamples,
    OfNeurons,
    OfSamples,
    OfSteps,
    State,
    WhichNeurons,
    WhichSamples,
)
from jaxsnn.event.forward.agenda import pick
from jaxsnn.event.forward.group import GroupSpec, Layout, Log, Table, arriving, line_of
from jaxsnn.network.array_types import Array, Int
from jaxsnn.network.lookups import entries_at, gather_along
from jaxsnn.network.meshes import match_device_axes
from jaxsnn.network.reductions import over_last


class ConstantCotangents(NamedTuple):
    """Gradient accumulators of a population's constants."""

    lam: OfNeurons  # of the excess at spikes
    left: State  # of the state that a spike adds to zero (`Backward.left`)
    fields: dict[str, OfNeurons]  # of the fields of the flow


class PopulationCostate(NamedTuple):
    """Carry of the pass for one population."""

    costate: Costate  # of the neurons' state
    constant_cotangents: ConstantCotangents  # of the constants, except through x(0)
    table: Table  # gradient of the population's table of weights
    #: (steps + 1, batch) dL/dt passed on to arrivals that moved V across the threshold
    passed: OfSteps | None


class Carry(NamedTuple):
    """Carry of the pass."""

    later: Pair  # time of the next step, (batch,)
    populations: tuple[PopulationCostate, ...]
    #: (steps + 1, batch) dL/dt passed on to spikes by their delayed feedback
    passed: OfSteps | None
    by_time: tuple[OfSteps, ...]  # for each population, dL/dt of the arrival of each step


class Pass:
    """Backward pass over the log."""

    def __init__(
        self,
        spec: GroupSpec,
        plan: Layout,
        table: tuple[Table, ...],
        constants: Sequence[NeuronConstants],
        log: Log,
    ) -> None:
        self.layers, self.constants = spec.layers, constants
        self.plan, self.table, self.log = plan, table, log
        # The log's last row is unused: its index stands for "no step".
        self.none, self.batch = log.time.shape[0] - 1, log.time.shape[1]
        self.samples = jnp.arange(self.batch)
        self.numbers = range(len(spec.layers))
        self.rules = [
            Backward(layer, layer_constants)
            for layer, layer_constants in zip(spec.layers, constants, strict=True)
        ]

    def run(
        self,
        steps: Int[Array, ""],
        drive: OfSteps,
        fixed_length: bool = False,
    ) -> Carry:
        """Return the carry at time 0.

        Args:
            steps: number of steps in the log.
            drive: (steps, batch) dL/dt of the spike of each step.
            fixed_length: loop over the whole log, so that the pass itself can be differentiated
                with respect to `drive`.
        """

        def step(count: Int[Array, ""], carry: Carry) -> Carry:
            return self._step(steps - 1 - count, drive, carry)

        def step_if_used(count: Int[Array, ""], carry: Carry) -> Carry:
            return lax.cond(count < steps, partial(step, count), lambda carry: carry, carry)

        number = jnp.maximum(steps - 1, 0)
        last = Pair(self.log.time[number], self.log.time_low[number])
        zero = jnp.zeros_like(self.log.time)
        carry = Carry(
            later=last,
            populations=tuple(self._begin(number) for number in self.numbers),
            passed=zero if self.plan.channels else None,
            by_time=tuple(zero[:-1] for _ in self.numbers),
        )
        carry = match_device_axes(carry, self.constants, self.table, self.log, drive)
        if fixed_length:
            carry = lax.fori_loop(0, self.none, step_if_used, carry)
        else:
            carry = lax.fori_loop(0, steps, step, carry)
        populations = tuple(
            self._flow_back(n, p, carry.later.high) for n, p in enumerate(carry.populations)
        )
        return carry._replace(populations=populations)

    def _begin(self, number: int) -> PopulationCostate:
        table, rules = self.table[number], self.rules[number]
        shape = (self.batch, table.rows.shape[1])
        costate = rules.start(shape, table.rows.dtype).costate
        zero = costate.p[0]
        fields = dict.fromkeys(rules.neuron.flow_fields, zero)
        return PopulationCostate(
            costate=costate,
            constant_cotangents=ConstantCotangents(lam=zero, left=costate.p, fields=fields),
            table=jax.tree.map(jnp.zeros_like, table),
            passed=jnp.zeros_like(self.log.time) if rules.neuron.jumps else None,
        )

    def _step(self, number: Int[Array, ""], drive: OfSteps, carry: Carry) -> Carry:
        """Go back through one step, and through the time between it and the next."""
        log = jax.tree.map(
            lambda rows: lax.dynamic_index_in_dim(rows, number, keepdims=False), self.log
        )
        now = Pair(log.time, log.time_low)
        populations, by_time = [], []
        # In the forward pass a spike acts before the arrivals of its step, so that the backward
        # pass undoes the arrivals of all populations first.
        for n, population in enumerate(carry.populations):
            population = self._flow_back(n, population, between(now, carry.later))
            population, d_time = self._arrive_back(n, population, log.row[n])
            # A step without a spike is an arrival. If it moved V of a neuron that fired in a later
            # step, that step has passed dL/dt on to it.
            if population.passed is not None:
                silent = log.spike >= sum(self.plan.sizes)
                d_time += jnp.where(silent, population.passed[number], 0.0)
            populations.append(population)
            by_time.append(d_time)
        # Feedback without a delay arrives in the step of its spike.
        total = drive[number] + sum(by_time)
        for part in (carry, *populations):
            if part.passed is not None:
                total += part.passed[number]
        passed = carry.passed
        for n, population in enumerate(populations):
            # A delayed arrival moves with its spike, in an earlier step.
            if passed is not None and log.origin is not None:
                passed = passed.at[log.origin[n], self.samples].add(by_time[n])
            populations[n] = self._fire_back(n, population, log, total)
            if passed is not None and n in log.released:
                populations[n], d_time = self._release_back(n, populations[n], log)
                passed = passed.at[log.released[n], self.samples].add(d_time)
        rows = tuple(
            lax.dynamic_update_index_in_dim(every, of_step, number, 0)
            for every, of_step in zip(carry.by_time, by_time, strict=True)
        )
        return Carry(later=now, populations=tuple(populations), passed=passed, by_time=rows)

    def _flow_back(
        self, number: int, population: PopulationCostate, time: OfSamples
    ) -> PopulationCostate:
        """Return a population's costates a time earlier."""
        rules = self.rules[number]
        # If all neurons have the same time constants, the flow of one neuron is valid for all.
        if rules.neuron.uniform:
            rules = Backward(
                self.layers[number], jax.tree.map(lambda array: array[:1], self.constants[number])
            )
        return population._replace(costate=rules.flow_back(population.costate, time[:, None]))

    def _arrive_back(
        self, number: int, population: PopulationCostate, row: NumberOfSamples
    ) -> tuple[PopulationCostate, OfSamples]:
        """Return a population before the arrival of a row of its table, and dL/dt of that arrival.

        An arrival adds W e to the state, which leaves P unchanged; dL/dW = P . e. If it arrives later
        by dt, the flow A acts on W e for a time that is shorter by dt: dL/dt = -P . A e W.
        """
        weights = arriving(self.plan, number, self.table[number], row)
        unit, moved = self.rules[number].arrived()  # e, A e
        costate, accumulators = population.costate, population.constant_cotangents
        by_weight = dot(unit, costate.p)
        d_time = -over_last(weights * dot(moved, costate.p))
        fields = {
            name: accumulators.fields[name] + weights * dot(unit, by)
            for name, by in costate.by.items()
        }
        return population._replace(
            constant_cotangents=accumulators._replace(fields=fields),
            table=self._with_arrival(number, population.table, row, by_weight),
        ), d_time

    def _with_arrival(
        self, number: int, table: Table, row: NumberOfSamples, by_weight: OfNeurons
    ) -> Table:
        """Return the gradient of a population's table with that of the weights of one arrival added."""
        # In samples with the arrival of a line, the row of zeros gets the numbers.
        of_row = jnp.minimum(row, self.plan.nothing[number])
        lines = []
        for (channel, fan_out), by_line in zip(
            self.plan.fan_outs(number), table.lines, strict=True
        ):
            line, here = line_of(channel, fan_out, row)
            targets = entries_at(jnp.asarray(fan_out.by_line), line)
            by_target = jnp.where(here[:, None], gather_along(by_weight, targets, 1), 0.0)
            lines.append(by_line.at[line].add(by_target, mode="promise_in_bounds"))
        rows = table.rows.at[of_row].add(by_weight, mode="promise_in_bounds")
        return Table(rows=rows, lines=tuple(lines))

    def _fire_back(
        self, number: int, population: PopulationCostate, log: Log, drive: OfSamples
    ) -> PopulationCostate:
        """Return the costates of a population just before a step, in which one of its neurons may
        fire.
        """
        rules, size = self.rules[number], self.plan.sizes[number]
        neuron = log.spike - self.plan.first(number)
        mine = (neuron >= 0) & (neuron < size)
        at = jnp.clip(neuron, 0, size - 1)
        this = _at(neuron, population)
        slope = self._slope(number, log, mine, at)
        costate = population.costate
        # lam = -dL/dt / g'(t), the two rules at the top of `layer_adjoint`.
        if rules.spec.assigns:
            later = self._later(number, costate, log, mine, at)
            lam = jnp.where(mine, -(drive - later) / slope, 0.0)
            total = drive - later
            population = self._leave(number, population, this, costate)
            # V after the spike is v_reset, independent of V before: the costate of V becomes 0.
            v_costates = jax.tree.map(
                partial(_without, this), (costate.p[0], _first_of(costate.by))
            )
            costate = _with_first(costate, *v_costates)
        else:
            fall = rules.neuron.rate(
                self.constants[number], rules.neuron.drop(self.constants[number])
            )
            total = drive + pick(dot(costate.p, fall), at)
            lam = jnp.where(mine, -total / slope, 0.0)
            # A neuron that starts above its threshold begins at v_reset (`start_of`): its spike at
            # time 0 subtracts nothing.
            above = starts_above(rules.neuron, self.constants[number]) & (log.time == 0)[:, None]
            if rules.neuron.keeps_overshoot:
                above = jnp.zeros_like(above)
            population = self._leave(number, population, this & ~above, costate)
        lam = jnp.where(this, lam[:, None], 0.0)
        costate = costate._replace(p=plus(costate.p, times_each(rules.along, lam)))
        accumulators = population.constant_cotangents._replace(
            lam=population.constant_cotangents.lam + lam
        )
        passed = population.passed
        # A spike that an arrival causes by moving V occurs at the time of the arrival, which gets
        # its dL/dt. All other spikes add 0 to the unused last row.
        if passed is not None:
            jumped = mine & (log.cause < self.none)
            cause = jnp.where(jumped, log.cause, self.none)
            passed = passed.at[cause, self.samples].add(jnp.where(jumped, total, 0.0))
        return population._replace(costate=costate, constant_cotangents=accumulators, passed=passed)

    def _slope(self, number: int, log: Log, mine: WhichSamples, at: NumberOfSamples) -> OfSamples:
        """Return the slope that the gradient is divided by at the spike of a step."""
        layer, constants = self.layers[number], self.constants[number]
        slope = log.slope
        if layer.neuron.jumps and layer.jump_width is not None:
            # the surrogate: V's jump as a ramp of length jump_width
            ramp = jnp.isinf(slope) & (log.jump > 0)
            slope = jnp.where(ramp, log.jump / layer.jump_width, slope)
        slope = jnp.maximum(jnp.where(mine, slope, 1.0), slope_floor(layer, constants)[at])
        # inf: a neuron that starts above its threshold fires at time 0, whatever its parameters
        at_start = (log.time == 0) & starts_above(layer.neuron, constants)[at]
        return jnp.where(at_start, jnp.inf, slope)

    def _later(
        self, number: int, costate: Costate, log: Log, mine: WhichSamples, at: NumberOfSamples
    ) -> OfSamples:
        """Return minus the derivative of the loss with respect to the time of a spike through the
        states after it, if the spike assigns V.

        If the spike comes dt later, V is v_reset for dt longer and lacks the change V' dt; the
        constants that the spike adds to the other entries begin to decay later.
        """
        rules = self.rules[number]
        slope_after = jnp.where(mine & jnp.isfinite(log.slope_after), log.slope_after, 0.0)
        added = rules.rate_jump()
        elsewhere = pick(dot(without_v(costate.p), added) + jnp.zeros_like(costate.p[0]), at)
        return pick(costate.p[0], at) * slope_after + elsewhere

    def _leave(
        self,
        number: int,
        population: PopulationCostate,
        this: WhichNeurons,
        costate: Costate,
    ) -> PopulationCostate:
        """Return a population with the gradient of the state after spikes of some neurons added."""
        accumulators, state_after = population.constant_cotangents, self.rules[number].left
        chosen = partial(jax.tree.map, lambda array: jnp.where(this, array, 0.0))
        chosen_p, chosen_by = chosen((costate.p, costate.by))
        fields = {
            name: accumulators.fields[name] + dot(state_after, by) for name, by in chosen_by.items()
        }
        return population._replace(
            constant_cotangents=accumulators._replace(
                left=plus(accumulators.left, chosen_p), fields=fields
            )
        )

    def _release_back(
        self, number: int, population: PopulationCostate, log: Log
    ) -> tuple[PopulationCostate, OfSamples]:
        """Return a population before the end of a neuron's refractory period, and dL/dt of that
        end.

        V is held at v_reset until then: its costate counts for the gradient of v_reset, and is 0
        before.
        """
        size = self.plan.sizes[number]
        spike = self.log.spike[log.released[number], self.samples]
        neuron = spike - self.plan.first(number)
        ends = (log.released[number] < self.none) & (neuron >= 0) & (neuron < size)
        costate = population.costate
        after = pick(costate.p[0], jnp.clip(neuron, 0, size - 1))
        counts = ends & jnp.isfinite(log.slope_after)
        d_time = -after * jnp.where(counts, log.slope_after, 0.0)
        this = _at(jnp.where(ends, neuron, size), population)
        only_v = _with_first(
            jax.tree.map(jnp.zeros_like, costate), costate.p[0], _first_of(costate.by)
        )
        population = self._leave(number, population, this, only_v)
        v_costates = jax.tree.map(partial(_without, this), (costate.p[0], _first_of(costate.by)))
        return population._replace(costate=_with_first(costate, *v_costates)), d_time


def _at(neuron: NumberOfSamples, population: PopulationCostate) -> WhichNeurons:
    """Return a mask of each sample's neuron, (batch, neurons)."""
    shape = population.costate.p[0].shape
    return lax.broadcasted_iota(jnp.int32, shape, 1) == neuron[:, None]


def _without(this: WhichNeurons, array: OfNeurons) -> OfNeurons:
    return jnp.where(this, 0.0, array)


def _first_of(by: dict[str, State]) -> dict[str, OfNeurons]:
    """Return the entries of V."""
    return {name: state[0] for name, state in by.items()}


def _with_first(costate: Costate, p: OfNeurons, by: dict[str, OfNeurons]) -> Costate:
    """Return a costate with other entries for V."""
    others = {name: (by[name], *state[1:]) for name, state in costate.by.items()}
    return Costate(p=(p, *costate.p[1:]), by=others)
