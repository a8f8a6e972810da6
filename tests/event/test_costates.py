"""The pass over a log against the same rules in loops over samples and neurons, with matrices for
flows: whatever the log says, made up here.
"""

from functools import cache, partial
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.linalg import expm

from jaxsnn.event.adjoint.costates import Pass
from jaxsnn.event.dynamics.cubalif import CubaLIFDelta
from jaxsnn.event.dynamics.lif import LIFDelta
from jaxsnn.event.dynamics.two_variables import Constants
from jaxsnn.event.forward.group import Channel, Layout, Log, Table
from jaxsnn.event.forward.layer import LayerSpec

SIZES, SAMPLES, STEPS, ROWS, KICK = (3, 4), 2, 24, 5, 0.5


class Kicked(CubaLIFDelta):
    """A spike adds to j too."""

    drops = False

    def reset(self, lanes, state):
        v, j = super().reset(lanes, state)
        return v, j + KICK * lanes.threshold


class Alone(LIFDelta):
    """Its state is v alone."""

    def begin(self, lanes):
        return (lanes.v_start,)

    def flow(self, decay, state):
        return (state[0] * decay[0],)

    def rate(self, lanes, state):
        return (-state[0] / lanes.tau_mem,)

    def arrive(self, state, weight):
        return (state[0] + weight,)


FLOOR = {"max_spikes": 9, "min_slope": 0.3}
#: Layers of a group, and whether there are delays.
CASES = {
    "lowered": (
        LayerSpec(neuron=CubaLIFDelta(), **FLOOR),
        LayerSpec(neuron=CubaLIFDelta(uniform=True, reset_kind="subtract"), **FLOOR),
        True,
    ),
    "at once": (LayerSpec(neuron=Kicked(), **FLOOR), LayerSpec(neuron=Alone(), **FLOOR), False),
    "held": (
        LayerSpec(neuron=LIFDelta(), refractory=0.1, jump_width=0.2, **FLOOR),
        LayerSpec(neuron=Kicked(), refractory=0.1, **FLOOR),
        True,
    ),
}


def lanes_of(spec, size, rng):
    """The last neuron starts above its threshold."""
    ranges = {"threshold": (0.8, 1.2), "v_reset": (-0.4, -0.1), "v_start": (-0.2, 0.2)}
    ranges |= {"j_start": (-0.5, 0.5), "tau_mem": (1.5, 2.5), "tau_syn": (0.7, 1.1)}
    values = {name: rng.uniform(*ends, size) for name, ends in ranges.items()}
    values["v_start"][-1] = 1.5
    if spec.neuron.uniform:
        values |= {"tau_mem": np.full(size, 1.9), "tau_syn": np.full(size, 0.8)}
    return Constants(**values)


def drawn(name):
    """(layers, plan, table, lanes, log, drive)"""
    *layers, delayed = CASES[name]
    rng = np.random.default_rng(list(CASES).index(name))
    shape = (STEPS + 1, SAMPLES)
    time = np.sort(rng.uniform(0, 6, shape), axis=0)
    time[0] = 0
    time[STEPS - 1 :] = time[STEPS - 2] + 3000.0  # long after the others
    time[STEPS] = -1e5  # the last row is unused
    spike = rng.integers(0, sum(SIZES) + 1, shape)
    spike[0] = SIZES[0] - 1, sum(SIZES) - 1  # two neurons that start above threshold
    spike[1], time[1, 0] = 1, 0.0
    slope = rng.uniform(0.05, 1.5, shape)
    slope[rng.random(shape) < 0.3] = np.inf
    spike[5], spike[[3, 9]], slope[[5, 9]] = spike[0], 0, 1.0  # these and neuron 0 fire again
    earlier = np.arange(STEPS + 1)[:, None]
    cause, *origin = (
        np.where(rng.random(shape) < 0.6, rng.integers(0, np.maximum(earlier, 1), shape), STEPS)
        for _ in range(3)
    )
    for links in (cause, *origin):
        links[0], links[8] = STEPS, 3
    held = {n: origin[1 - n] for n, layer in enumerate(layers) if layer.refractory}
    after = rng.normal(size=shape)
    after[rng.random(shape) < 0.2] = np.nan
    log = Log(
        time=time,
        time_low=rng.uniform(0, 1e-3, shape),
        spike=spike,
        slot=spike,
        slope=slope,
        row=tuple(rng.integers(0, ROWS + 1, shape) for _ in SIZES),
        origin=tuple(origin) if delayed and not held else None,
        released=held,
        cause=cause,
        jump=np.where(rng.random(shape) < 0.7, rng.uniform(0.1, 0.5, shape), 0.0),
        slope_after=after,
    )
    channels = (Channel(source=0, target=1, edge=0, row=2),) if delayed else ()
    plan = Layout(
        sizes=SIZES, immediate={}, channels=channels, nothing=(ROWS,) * 2, in_rounds=False
    )
    table = [
        rng.normal(size=(ROWS + 1, size)) * (np.arange(ROWS + 1) < ROWS)[:, None] for size in SIZES
    ]
    lanes = [lanes_of(spec, size, rng) for spec, size in zip(layers, SIZES, strict=True)]
    return layers, plan, tuple(table), lanes, log, rng.normal(size=(STEPS, SAMPLES))


class Loops:
    """The pass over one sample. What flows is by time constants that may be moved, with the
    costates along the excess held.
    """

    def __init__(self, name, sample, moved=None, held=None):
        self.layers, self.plan, self.table, self.lanes, log, drive = drawn(name)
        self.log = jax.tree.map(lambda rows: rows[:, sample], log)
        self.drive = drive[:, sample]
        self.moved, self.held = moved or {}, held
        self.p = [np.zeros((size, 2)) for size in SIZES]
        self.lam = [np.zeros(size) for size in SIZES]
        self.left = [np.zeros((size, 2)) for size in SIZES]
        self.fields = [np.zeros(size) for size in SIZES]  # what flowed to what came from the lanes
        self.by_table = [np.zeros_like(table) for table in self.table]
        self.by_time = np.zeros((2, STEPS))
        self.passed = np.zeros(STEPS + 1)  # cotangents of spikes that sent events
        self.caused = np.zeros((2, STEPS + 1))  # cotangents of arrivals that caused spikes
        self.lams = {}
        self.run()

    def rate(self, n, k, moved=False):
        """A of neuron k: x' = A x."""
        tau_mem, tau_syn = (
            getattr(self.lanes[n], name)[k] + (self.moved.get(name, 0.0) if moved else 0.0)
            for name in ("tau_mem", "tau_syn")
        )
        still = self.layers[n].neuron.jumps
        return np.array([[-1 / tau_mem, 1 / tau_mem], [0, 0 if still else -1 / tau_syn]])

    def leaves(self, n, k):
        """What a spike leaves of a state that is zero."""
        lanes, neuron = self.lanes[n], self.layers[n].neuron
        if self.layers[n].assigns:
            kick = KICK * lanes.threshold[k] if isinstance(neuron, Kicked) else 0.0
            return np.array([lanes.v_reset[k], kick])
        return np.array([lanes.v_reset[k] - lanes.threshold[k], 0.0])

    def flow(self, time):
        for n, size in enumerate(SIZES):
            rates = np.stack([self.rate(n, k, moved=True) for k in range(size)])
            self.p[n] = np.einsum("kij,ki->kj", expm(rates * time), self.p[n])

    def run(self):
        log, later = self.log, np.inf
        for step in reversed(range(STEPS)):
            now = log.time[step] + log.time_low[step]
            self.flow(min(later - now, 4000.0))
            later = now
            for n in range(2):
                self.arrive(n, step)
            total = self.drive[step] + self.by_time[:, step].sum()
            total += self.passed[step] + self.caused[:, step].sum()
            for n in range(2):
                if log.origin is not None and self.plan.channels:
                    self.passed[log.origin[n][step]] += self.by_time[n, step]
                k = log.spike[step] - (0, SIZES[0])[n]
                if 0 <= k < SIZES[n]:
                    self.fire(n, k, step, total)
                if n in log.released:
                    self.release(n, step)
        self.flow(log.time[0])

    def arrive(self, n, step):
        row, enters = self.log.row[n][step], 0 if self.layers[n].neuron.jumps else 1
        self.by_table[n][row] += self.p[n][:, enters]
        for k, weight in enumerate(self.table[n][row]):
            self.by_time[n, step] -= weight * (self.p[n][k] @ self.rate(n, k)[:, enters])
            self.fields[n][k] += weight * self.p[n][k, enters]
        if self.log.spike[step] == sum(SIZES):
            self.by_time[n, step] += self.caused[n, step]

    def fire(self, n, k, step, total):
        log, layer, lanes, p = self.log, self.layers[n], self.lanes[n], self.p[n]
        excess = lanes.v_start[k] - lanes.threshold[k]
        at_start = excess > 0 and log.time[step] == 0
        slope = log.slope[step]
        if layer.neuron.jumps and layer.jump_width and np.isinf(slope) and log.jump[step]:
            slope = log.jump[step] / layer.jump_width
        slope = max(slope, 0.3 * (lanes.threshold[k] - lanes.v_reset[k]) / lanes.tau_mem[k])
        reset_change, rate = self.leaves(n, k), self.rate(n, k)
        if layer.assigns:
            rises = np.nan_to_num(log.slope_after[step])
            total = total - p[k, 0] * rises - np.array([0, p[k, 1]]) @ rate @ [0, reset_change[1]]
        else:
            total = total - p[k] @ rate @ reset_change
        if layer.assigns or layer.neuron.keeps_overshoot or not at_start:
            self.left[n][k] += p[k]
            self.fields[n][k] += reset_change @ p[k]
        lam = 0.0 if at_start else -total / slope
        lam = self.lams[step] = lam if self.held is None else self.held[step]
        p[k] = [0.0 if layer.assigns else p[k, 0], p[k, 1]]
        p[k, 0] += lam
        self.lam[n][k] += lam
        if layer.neuron.jumps:
            self.caused[n, log.cause[step]] += total

    def release(self, n, step):
        sent = self.log.released[n][step]
        k = self.log.spike[sent] - (0, SIZES[0])[n]
        if sent < STEPS and 0 <= k < SIZES[n]:
            v = self.p[n][k, 0]
            self.left[n][k, 0] += v
            self.fields[n][k] += v * self.leaves(n, k)[0]
            self.passed[sent] -= v * np.nan_to_num(self.log.slope_after[step])
            self.p[n][k, 0] = 0.0


@cache
def loops(name, sample, field=None, by=0.0):
    """With a time constant moved, or none."""
    if field is None:
        return Loops(name, sample)
    return Loops(name, sample, {field: by}, loops(name, sample).lams)


def assert_as_in_loops(result, name, sample):
    """All that the pass carries of a sample."""
    close = partial(np.testing.assert_allclose, rtol=1e-9, atol=1e-11)
    expected = loops(name, sample)
    close(np.stack(result.by_time)[:, :, sample], expected.by_time)
    if result.passed is not None:
        close(result.passed[:-1, sample], expected.passed[:-1])
    for n, population in enumerate(result.populations):
        entries = len(population.costate.p)
        close(np.stack(population.costate.p, -1)[sample], expected.p[n][:, :entries])
        close(population.constant_cotangents.lam[sample], expected.lam[n])
        close(
            np.stack(population.constant_cotangents.left, -1)[sample], expected.left[n][:, :entries]
        )
        if population.passed is not None:
            close(population.passed[:-1, sample], expected.caused[n, :-1])
        for field, of_lanes in population.constant_cotangents.fields.items():
            low, high = (loops(name, sample, field, by) for by in (-1e-5, 1e-5))
            close = partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)
            close(of_lanes[sample], (high.fields[n] - low.fields[n]) / 2e-5)
            by = np.stack(population.costate.by[field], -1)[sample]
            close(by, (high.p[n] - low.p[n])[:, :entries] / 2e-5)


@pytest.mark.parametrize(
    ("name", "fixed_length"),
    [("lowered", False), ("at once", False), ("at once", True), ("held", False)],
)
def test_costates_go_back_through_a_log(name, fixed_length, x64):
    layers, plan, *arrays, drive = drawn(name)
    group: Any = SimpleNamespace(layers=layers)

    @jax.jit
    def run(table, lanes, log, drive, steps):
        tables = tuple(Table(rows=rows, lines=()) for rows in table)
        return Pass(group, plan, tables, lanes, log).run(steps, drive, fixed_length)

    numbers = jax.tree.map(jnp.asarray, (*arrays, drive))
    result, none = (jax.tree.map(np.asarray, run(*numbers, steps)) for steps in (STEPS, 0))
    assert not any(map(np.any, jax.tree.leaves(none._replace(later=None))))
    for sample in range(SAMPLES):
        assert_as_in_loops(result, name, sample)
    for n, population in enumerate(result.populations):
        total = sum(loops(name, sample).by_table[n] for sample in range(SAMPLES))
        np.testing.assert_allclose(population.table.rows, total, rtol=1e-9, atol=1e-11)
