"""The pass over a recurrent group's log from the last step to the first: costates, and what they
leave on the way.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxsnn.event.adjoint.layer_adjoint import slope_floor
from jaxsnn.event.forward.agenda import pick
from jaxsnn.network.reductions import over_last


class Own(NamedTuple):
    """dL of a population's parameters, (batch, neurons), but for the initial state."""

    threshold: jax.Array
    v_reset: jax.Array
    tau_mem: jax.Array
    tau_syn: jax.Array


class PopulationCostate(NamedTuple):
    """What the pass carries of a population; arrays (batch, neurons) but for the last two.

    costate: of the neurons' state; by_tau_mem, by_tau_syn: its derivatives. own: dL of the
    parameters. table: dL of what can arrive, like the population's table. passed: (steps + 1,
    batch) dL/dt passed on to arrivals that moved V across the threshold.
    """

    costate: Any
    by_tau_mem: Any
    by_tau_syn: Any
    own: Own
    table: jax.Array
    passed: jax.Array | None


class Carry(NamedTuple):
    """Carry of the pass.

    later: (batch,) time of the step after. passed: (steps + 1, batch) dL/dt passed on to spikes by
    what they sent with a delay. by_time: of each population, (steps, batch) dL/dt of what arrived.
    """

    later: jax.Array
    populations: tuple[PopulationCostate, ...]
    passed: Any
    by_time: tuple[jax.Array, ...]


class Pass:
    """The steps of the pass over the log."""

    def __init__(self, spec, plan, table, lanes, log):
        self.layers, self.plan, self.table, self.lanes, self.log = (
            spec.layers,
            plan,
            table,
            lanes,
            log,
        )
        self.none, self.batch = log.time.shape[0] - 1, log.time.shape[1]
        self.samples = jnp.arange(self.batch)
        self.numbers = range(len(spec.layers))

    def run(self, steps, drive, fixed_length=False):
        """The carry at time 0.

        Args:
            steps: how many steps of the log were taken.
            drive: (steps, batch) dL/dt of the spike of each step.
            fixed_length: loop over the whole log, so that the pass itself can be differentiated by
                `drive`.
        """

        def step(count, carry):
            return self._step(steps - 1 - count, drive, carry)

        def step_if_taken(count, carry):
            return lax.cond(count < steps, partial(step, count), lambda carry: carry, carry)

        last = self.log.time[jnp.maximum(steps - 1, 0)]
        zero = jnp.zeros_like(self.log.time)
        start = Carry(
            later=last,
            populations=tuple(self._begin(number) for number in self.numbers),
            passed=zero if self.plan.channels else None,
            by_time=tuple(zero[:-1] for _ in self.numbers),
        )
        carry = (
            lax.fori_loop(0, self.none, step_if_taken, start)
            if fixed_length
            else lax.fori_loop(0, steps, step, start)
        )
        populations = tuple(
            self._flow_back(n, p, carry.later) for n, p in enumerate(carry.populations)
        )
        return carry._replace(populations=populations)

    def _begin(self, number):
        layer, table, lanes = self.layers[number], self.table[number], self.lanes[number]
        zero = jnp.zeros((self.batch, table.shape[1]), table.dtype)
        state = tuple(zero for _ in layer.neuron.begin(lanes))
        return PopulationCostate(
            costate=state,
            by_tau_mem=state,
            by_tau_syn=state,
            own=Own(zero, zero, zero, zero),
            table=jnp.zeros_like(table),
            passed=jnp.zeros_like(self.log.time) if layer.neuron.jumps else None,
        )

    def _step(self, number, drive, carry):
        """Back through one step, and through the time between it and the next."""
        log = jax.tree.map(
            lambda rows: lax.dynamic_index_in_dim(rows, number, keepdims=False), self.log
        )
        populations, by_time = [], []
        for n, population in enumerate(carry.populations):
            population = self._flow_back(n, population, carry.later - log.time)
            population, d_time = self._arrive_back(n, population, log.row[n])
            if population.passed is not None:
                d_time += jnp.where(
                    log.spike < sum(self.plan.sizes), 0.0, population.passed[number]
                )
            populations.append(population)
            by_time.append(d_time)
        drive = drive[number] + sum(by_time)
        for part in (carry, *populations):
            if part.passed is not None:
                drive += part.passed[number]
        passed = carry.passed
        for n, population in enumerate(populations):
            if log.origin is not None:
                passed = passed.at[log.origin[n], self.samples].add(by_time[n])
            populations[n] = self._fire_back(n, population, log, drive)
            if n in log.released:
                populations[n], d_time = self._release_back(n, populations[n], log)
                passed = passed.at[log.released[n], self.samples].add(d_time)
        rows = tuple(
            lax.dynamic_update_index_in_dim(all_, one, number, 0)
            for all_, one in zip(carry.by_time, by_time, strict=True)
        )
        return Carry(later=log.time, populations=tuple(populations), passed=passed, by_time=rows)

    def _flow_back(self, number, population, time):
        """A population's costates a time (batch,) earlier."""
        neuron, lanes = self.layers[number].neuron, self.lanes[number]
        if neuron.uniform:
            lanes = jax.tree.map(lambda array: array[:1], lanes)
        time = time[:, None]
        em, es, k, k_by_tau_mem, k_by_tau_syn = neuron.decay_derivatives(lanes, time)
        em_by_tau_mem = time * em * neuron.leak(lanes) ** 2
        es_by_tau_syn = time * es * neuron.synaptic_leak(lanes) ** 2
        zero = jax.tree.map(jnp.zeros_like, population.costate)

        def back(em, es, k, costate):
            return jax.vjp(partial(neuron.flow, (em, es, k)), zero)[1](costate)[0]

        costate, by_tau_mem = jax.jvp(
            lambda em, k, costate: back(em, es, k, costate),
            (em, k, population.costate),
            (em_by_tau_mem, k_by_tau_mem, population.by_tau_mem),
        )
        by_tau_syn = jax.jvp(
            lambda es, k, costate: back(em, es, k, costate),
            (es, k, population.costate),
            (es_by_tau_syn, k_by_tau_syn, population.by_tau_syn),
        )[1]
        return population._replace(costate=costate, by_tau_mem=by_tau_mem, by_tau_syn=by_tau_syn)

    def _arrive_back(self, number, population, row):
        """A population before what arrived with a row of its table, and dL/dt of that."""
        neuron, lanes = self.layers[number].neuron, self.lanes[number]
        weights = self.table[number].at[row].get(mode="promise_in_bounds")
        zero = jax.tree.map(jnp.zeros_like, population.costate)
        moved, arrive_back = jax.vjp(partial(neuron.arrive, zero), weights)
        (by_weight,) = arrive_back(population.costate)
        (by_tau_mem,), (by_tau_syn,) = (
            arrive_back(population.by_tau_mem),
            arrive_back(population.by_tau_syn),
        )
        rate = neuron.rate(lanes, moved)
        d_time = -over_last(sum(p * r for p, r in zip(population.costate, rate, strict=True)))
        own = population.own._replace(
            tau_mem=population.own.tau_mem + weights * by_tau_mem,
            tau_syn=population.own.tau_syn + weights * by_tau_syn,
        )
        table = population.table.at[row].add(by_weight, mode="promise_in_bounds")
        return population._replace(own=own, table=table), d_time

    def _fire_back(self, number, population, log, drive):
        """A population before the spike of a step, if it is its own."""
        layer, lanes, size = self.layers[number], self.lanes[number], self.plan.sizes[number]
        neuron = log.spike - self.plan.first(number)
        mine = (neuron >= 0) & (neuron < size)
        at = jnp.clip(neuron, 0, size - 1)
        this = _at(neuron, population)
        floor = slope_floor(layer, lanes)[at]
        slope = log.slope
        if layer.neuron.jumps and layer.jump_width is not None:
            slope = jnp.where(jnp.isinf(slope) & (log.jump > 0), log.jump / layer.jump_width, slope)
        slope = jnp.maximum(jnp.where(mine, slope, 1.0), floor)
        slope = jnp.where((log.time == 0) & (lanes.v_start >= lanes.threshold)[at], jnp.inf, slope)
        if layer.forgets:
            slope_after = log.slope_after
        else:
            slope_after = (
                log.slope + ((lanes.threshold - lanes.v_reset) * layer.neuron.leak(lanes))[at]
            )
        slope_after = jnp.where(mine & jnp.isfinite(slope_after), slope_after, 0.0)
        total = drive - pick(population.costate[0], at) * slope_after
        before = -total / slope
        population = self._assign_back(number, population, this)
        own = population.own._replace(
            threshold=population.own.threshold - jnp.where(this, before[:, None], 0.0)
        )
        costate = (jnp.where(this, before[:, None], population.costate[0]), *population.costate[1:])
        passed = population.passed
        if passed is not None:
            jumped = mine & (log.cause < self.none)
            passed = passed.at[jnp.where(jumped, log.cause, self.none), self.samples].add(
                jnp.where(jumped, total, 0.0)
            )
        return population._replace(own=own, costate=costate, passed=passed)

    def _assign_back(self, number, population, this):
        """A population before V of a neuron of each sample became v_reset, whatever it was."""
        own, v_reset = population.own, self.lanes[number].v_reset
        v, by_tau_mem, by_tau_syn = (
            population.costate[0],
            population.by_tau_mem[0],
            population.by_tau_syn[0],
        )
        own = own._replace(
            v_reset=own.v_reset + jnp.where(this, v, 0.0),
            tau_mem=own.tau_mem + jnp.where(this, by_tau_mem * v_reset, 0.0),
            tau_syn=own.tau_syn + jnp.where(this, by_tau_syn * v_reset, 0.0),
        )

        def without(part):
            return (jnp.where(this, 0.0, part[0]), *part[1:])

        return population._replace(
            costate=without(population.costate),
            by_tau_mem=without(population.by_tau_mem),
            by_tau_syn=without(population.by_tau_syn),
            own=own,
        )

    def _release_back(self, number, population, log):
        """A population before V of a neuron was let go, and dL/dt of that."""
        size = self.plan.sizes[number]
        neuron = self.log.spike[log.released[number], self.samples] - self.plan.first(number)
        ends = (log.released[number] < self.none) & (neuron >= 0) & (neuron < size)
        after = pick(population.costate[0], jnp.clip(neuron, 0, size - 1))
        d_time = -after * jnp.where(ends & jnp.isfinite(log.slope_after), log.slope_after, 0.0)
        return self._assign_back(
            number, population, _at(jnp.where(ends, neuron, size), population)
        ), d_time


def _at(neuron, population):
    """Where each sample's neuron is, (batch, neurons)."""
    return lax.broadcasted_iota(jnp.int32, population.costate[0].shape, 1) == neuron[:, None]
