"""Exact gradients of a recurrent group's spike times, by one pass over its log from the last step to the first.

The costate p of a neuron's state is what dL is per change of that state. Between events it flows as the transposed
flow; at a spike s of the neuron, after which V is v_reset whatever it was,

    p_V before = -(E_s - p_V after V' after) / V' before,      E_s = dL/dt_s + sum of dL/dt of what it sends,

and something that arrives with weight W at time t and moves the state by W e adds p e to dL/dW and -p A e W to dL/dt, A
being the generator of the flow. That is EventProp (Wunderlich & Pehle, Scientific Reports 11, 12829, 2021), with the
flow in closed form, for feedback with and without delays. Where an arrival moved V itself across the threshold, the
spike comes when that arrival comes: p_V before = 0, and what E_s - p_V V' after would have done goes to the arrival. No
state is stored or replayed: what depends on the time constants is carried along as p's derivatives by them.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxsnn.event.adjoint import slope_floor
from jaxsnn.event.group import GroupSpec, GroupSpikes, Layout, Log, layout, tables
from jaxsnn.event.neurons import Lanes
from jaxsnn.event.recurrent import in_order, pick, simulate_group


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def group_spikes(spec: GroupSpec, arrivals, feedback, lanes: tuple[Lanes, ...], t_end) -> GroupSpikes:
    """Spikes of a recurrent group, differentiable in weights, delays, arrival times and every field of `lanes`.

    Args:
        arrivals: of each population (weight, time, row), what comes from outside the group: weight (rows, neurons);
            time (batch, arrivals) in any order, seconds, inf where unused; row (arrivals,) or (batch, arrivals) int32.
        feedback: of each edge (weight, delay): weight (source's neurons, target's neurons), None for the identity;
            delay in seconds, at least 0, for all neurons of the source (a scalar) or each, or None for 0.
        lanes: of each population, (neurons,).
        t_end: end of the simulation, seconds; spikes do not depend on it, so its gradient is zero.

    Weights are multiplied by the target's arrival factor. A box spike is two arrivals, and two edges: the weight, and
    its negative later by the width. Only the times carry a gradient. The refractory times are static.
    """
    return simulate_group(spec, arrivals, feedback, lanes, t_end)[0]


class _Residuals(NamedTuple):
    """The arguments, and what came of them."""

    arrivals: Any
    feedback: Any
    lanes: tuple[Lanes, ...]
    log: Log
    steps: jax.Array


def _forward(spec, arrivals, feedback, lanes, t_end):
    spikes, log, steps = simulate_group(spec, arrivals, feedback, lanes, t_end)
    return spikes, _Residuals(arrivals, feedback, lanes, log, steps)


def _backward(spec, residuals, cotangent):
    arrivals, feedback, lanes, log, steps = residuals
    plan = layout(spec, arrivals, feedback)
    external, between = [weight for weight, _, _ in arrivals], [weight for weight, _ in feedback]
    table, pull = jax.vjp(partial(tables, spec, plan), external, between)
    times = [spikes.time for spikes in cotangent.spikes]
    total = _Pass(spec, plan, table, lanes, log).run(steps, _drive(plan, log, times))
    d_external, d_between = pull(tuple(population.table for population in total.populations))
    d_lanes = tuple(
        _lanes_gradient(layer.neuron, each, population)
        for layer, each, population in zip(spec.layers, lanes, total.populations, strict=True)
    )
    d_arrivals = tuple(
        (d_weight, _time_gradient(time, row, external[number].shape[0], log.row[number], total.by_time[number]), None)
        for number, (d_weight, (_, time, row)) in enumerate(zip(d_external, arrivals, strict=True))
    )
    d_feedback = tuple(
        (d_weight, None if delay is None else _delay_gradient(plan, edge, delay, log, total.by_time))
        for edge, (d_weight, (_, delay)) in enumerate(zip(d_between, feedback, strict=True))
    )
    return d_arrivals, d_feedback, d_lanes, None


group_spikes.defvjp(_forward, _backward)


def _drive(plan: Layout, log: Log, cotangents):
    """dL/dt of the spike of each step, (steps, batch)."""
    drive = jnp.zeros_like(log.time[:-1])
    samples = jnp.arange(drive.shape[1])
    for number, cotangent in enumerate(cotangents):
        neuron, slot = log.spike[:-1] - plan.first(number), log.slot[:-1]
        mine = (neuron >= 0) & (neuron < cotangent.shape[1]) & (slot < cotangent.shape[2])
        place = (samples, jnp.where(mine, neuron, 0), jnp.where(mine, slot, 0))
        drive = jnp.where(mine, cotangent[place], drive)
    return drive


def _time_gradient(time, row, rows, arrived, by_time):
    """dL/dt of a population's arrivals from outside, (batch, arrivals), in the slots that they had."""
    position = in_order(time, row)[2]
    outside = arrived[:-1] < rows
    number = jnp.where(outside, jnp.cumsum(outside, axis=0) - 1, time.shape[1])
    samples = jnp.arange(time.shape[0])
    sorted_ = jnp.zeros_like(time).at[samples, number].add(by_time, mode="drop")
    return jnp.zeros_like(time).at[samples[:, None], position].set(sorted_)


def _delay_gradient(plan: Layout, edge, delay, log: Log, by_time):
    """dL/ddelay of one edge, in the shape of its delay."""
    channel = next(channel for channel in plan.channels if channel.edge == edge)
    size = plan.sizes[channel.source]
    neuron = log.row[channel.target][:-1] - channel.row
    neuron = jnp.where(neuron < 0, size, neuron)
    d_delay = jnp.zeros(size, by_time[channel.target].dtype).at[neuron].add(by_time[channel.target], mode="drop")
    return d_delay.reshape(delay.shape) if delay.size == size else d_delay.sum().reshape(delay.shape)


class _Own(NamedTuple):
    """dL of a population's parameters, (batch, neurons), but for the initial state."""

    threshold: jax.Array
    v_reset: jax.Array
    tau_mem: jax.Array
    tau_syn: jax.Array


class _Population(NamedTuple):
    """What the pass carries of a population; arrays (batch, neurons) but for the last two.

    costate: of the neurons' state; by_tau_mem, by_tau_syn: its derivatives. own: dL of the parameters. table: dL of
    what can arrive, like the population's table. passed: (steps + 1, batch) dL/dt passed on to arrivals that moved V
    across the threshold.
    """

    costate: Any
    by_tau_mem: Any
    by_tau_syn: Any
    own: _Own
    table: jax.Array
    passed: jax.Array | None


class _Carry(NamedTuple):
    """Carry of the pass.

    later: (batch,) time of the step after. passed: (steps + 1, batch) dL/dt passed on to spikes by what they sent with
    a delay. by_time: of each population, (steps, batch) dL/dt of what arrived.
    """

    later: jax.Array
    populations: tuple[_Population, ...]
    passed: jax.Array | None
    by_time: tuple[jax.Array, ...]


class _Pass:
    """The steps of the pass over the log."""

    def __init__(self, spec, plan, table, lanes, log):
        self.layers, self.plan, self.table, self.lanes, self.log = spec.layers, plan, table, lanes, log
        self.none, self.batch = log.time.shape[0] - 1, log.time.shape[1]
        self.samples = jnp.arange(self.batch)
        self.numbers = range(len(spec.layers))

    def run(self, steps, drive):
        """The carry at time 0."""

        def step(count, carry):
            return self._step(steps - 1 - count, drive, carry)

        last = self.log.time[jnp.maximum(steps - 1, 0)]
        zero = jnp.zeros_like(self.log.time)
        start = _Carry(
            later=last,
            populations=tuple(self._begin(number) for number in self.numbers),
            passed=zero if self.plan.channels else None,
            by_time=tuple(zero[:-1] for _ in self.numbers),
        )
        carry = lax.fori_loop(0, steps, step, start)
        populations = tuple(self._flow_back(n, p, carry.later) for n, p in enumerate(carry.populations))
        return carry._replace(populations=populations)

    def _begin(self, number):
        layer, table, lanes = self.layers[number], self.table[number], self.lanes[number]
        zero = jnp.zeros((self.batch, table.shape[1]), table.dtype)
        state = tuple(zero for _ in layer.neuron.begin(lanes))
        return _Population(
            costate=state,
            by_tau_mem=state,
            by_tau_syn=state,
            own=_Own(zero, zero, zero, zero),
            table=jnp.zeros_like(table),
            passed=jnp.zeros_like(self.log.time) if layer.neuron.jumps else None,
        )

    def _step(self, number, drive, carry):
        """Back through one step, and through the time between it and the next."""
        log = jax.tree.map(lambda rows: lax.dynamic_index_in_dim(rows, number, keepdims=False), self.log)
        populations, by_time = [], []
        for n, population in enumerate(carry.populations):
            population = self._flow_back(n, population, carry.later - log.time)
            population, d_time = self._arrive_back(n, population, log.row[n])
            if population.passed is not None:
                d_time += jnp.where(log.spike < sum(self.plan.sizes), 0.0, population.passed[number])
            populations.append(population)
            by_time.append(d_time)
        passed = carry.passed
        drive = drive[number] + sum(by_time)
        if passed is not None:
            drive += passed[number]
            for n, d_time in enumerate(by_time):
                if log.origin is not None:
                    passed = passed.at[log.origin[n], self.samples].add(d_time)
        for n, population in enumerate(populations):
            drive_here = drive
            for source in populations:
                if source.passed is not None:
                    drive_here += source.passed[number]
            populations[n] = self._fire_back(n, population, log, drive_here)
            if n in log.released:
                populations[n], d_time = self._release_back(n, populations[n], log)
                passed = passed.at[log.released[n], self.samples].add(d_time)
        rows = tuple(
            lax.dynamic_update_index_in_dim(all_, one, number, 0)
            for all_, one in zip(carry.by_time, by_time, strict=True)
        )
        return _Carry(later=log.time, populations=tuple(populations), passed=passed, by_time=rows)

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
        (by_tau_mem,), (by_tau_syn,) = arrive_back(population.by_tau_mem), arrive_back(population.by_tau_syn)
        rate = neuron.rate(lanes, moved)
        d_time = -sum(jnp.sum(p * r, axis=1) for p, r in zip(population.costate, rate, strict=True))
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
            slope_after = log.slope + ((lanes.threshold - lanes.v_reset) * layer.neuron.leak(lanes))[at]
        after = pick(population.costate[0], at)
        total = drive - jnp.where(mine & (after != 0), after * slope_after, 0.0)
        before = -total / slope
        population = self._assign_back(number, population, this)
        own = population.own._replace(threshold=population.own.threshold - jnp.where(this, before[:, None], 0.0))
        costate = (jnp.where(this, before[:, None], population.costate[0]), *population.costate[1:])
        passed = population.passed
        if passed is not None:
            jumped = mine & (log.cause < self.none)
            passed = passed.at[jnp.where(jumped, log.cause, self.none), self.samples].add(jnp.where(jumped, total, 0.0))
        return population._replace(own=own, costate=costate, passed=passed)

    def _assign_back(self, number, population, this):
        """A population before V of a neuron of each sample became v_reset, whatever it was."""
        own, v_reset = population.own, self.lanes[number].v_reset
        v, by_tau_mem, by_tau_syn = population.costate[0], population.by_tau_mem[0], population.by_tau_syn[0]
        own = own._replace(
            v_reset=own.v_reset + jnp.where(this, v, 0.0),
            tau_mem=own.tau_mem + jnp.where(this, by_tau_mem * v_reset, 0.0),
            tau_syn=own.tau_syn + jnp.where(this, by_tau_syn * v_reset, 0.0),
        )
        without = [
            (jnp.where(this, 0.0, part[0]), *part[1:])
            for part in (population.costate, population.by_tau_mem, population.by_tau_syn)
        ]
        return _Population(*without, own, population.table, population.passed)

    def _release_back(self, number, population, log):
        """A population before V of a neuron was let go, and dL/dt of that."""
        size = self.plan.sizes[number]
        neuron = self.log.spike[log.released[number], self.samples] - self.plan.first(number)
        ends = (log.released[number] < self.none) & (neuron >= 0) & (neuron < size)
        after = pick(population.costate[0], jnp.clip(neuron, 0, size - 1))
        d_time = jnp.where(ends & (after != 0), -after * log.slope_after, 0.0)
        return self._assign_back(number, population, _at(jnp.where(ends, neuron, size), population)), d_time


def _at(neuron, population):
    """Where each sample's neuron is, (batch, neurons)."""
    return lax.broadcasted_iota(jnp.int32, population.costate[0].shape, 1) == neuron[:, None]


def _lanes_gradient(neuron, lanes, population):
    """The gradient by the lanes, from what the pass leaves of a population at time 0."""
    own = jax.tree.map(lambda array: array.sum(axis=0), population.own)
    costate, by_tau_mem, by_tau_syn = jax.tree.map(
        lambda array: array.sum(axis=0), (population.costate, population.by_tau_mem, population.by_tau_syn)
    )
    start, begin_back = jax.vjp(neuron.begin, lanes)
    (d_start,) = begin_back(costate)
    return Lanes(
        threshold=own.threshold,
        v_reset=own.v_reset,
        v_start=d_start.v_start,
        j_start=d_start.j_start,
        tau_mem=own.tau_mem + sum(x * by for x, by in zip(start, by_tau_mem, strict=True)),
        tau_syn=own.tau_syn + sum(x * by for x, by in zip(start, by_tau_syn, strict=True)),
    )
