"""Crossings of a flow of several real rates, against dense samples and against roots that are known."""

from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsnn.event.dynamics.decaying_modes import DecayingModes

pytestmark = pytest.mark.usefixtures("x64")


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Lanes:
    threshold: jax.Array


class Case(NamedTuple):
    state: tuple
    lanes: Lanes
    duration: jax.Array


@dataclass(frozen=True, kw_only=True)
class Modes(DecayingModes):
    """V is a sum of parts that decay with rates of their own."""

    rates: tuple = (0.5, 1.5, 4.0)

    def decay_rates(self, lanes):
        return tuple(jnp.full_like(lanes.threshold, rate) for rate in self.rates)

    def decay(self, lanes, t):
        return tuple(jnp.exp(-rate * t) for rate in self.decay_rates(lanes))

    def flow(self, decay, state):
        return tuple(factor * part for factor, part in zip(decay, state, strict=True))

    def rate(self, lanes, state):
        return tuple(-r * part for r, part in zip(self.decay_rates(lanes), state, strict=True))

    def excess(self, lanes, state):
        return sum(state) - lanes.threshold


def excess_at(case, t):
    parts = zip(Modes().rates, case.state, strict=True)
    return sum(np.asarray(part) * np.exp(-rate * t) for rate, part in parts) - np.asarray(
        case.lanes.threshold
    )


def drawn(count=1500):
    """States below their thresholds, of either sign, over short and long intervals."""
    rng = np.random.default_rng(0)
    state = rng.normal(size=(3, count)) * 10 ** rng.uniform(-1, 1, (3, count))
    threshold = state.sum(0) + 10 ** rng.uniform(-3, 0, count)
    duration = rng.choice([0.05, 0.5, 3.0, 20.0], count)
    return Case(
        tuple(map(jnp.asarray, state)), Lanes(jnp.asarray(threshold)), jnp.asarray(duration)
    )


@partial(jax.jit, static_argnums=0)
def crossing(model, lanes, state, duration):
    """Whether V crosses, and when."""
    end = model.flow(model.decay(lanes, duration), state)
    crosses = model.crosses(lanes, state, end, duration)
    return crosses, model.solve(lanes, state, duration, crosses)


def test_first_crossings_are_found():
    case = drawn()
    crosses, time = map(np.asarray, crossing(Modes(), case.lanes, case.state, case.duration))
    t = np.asarray(case.duration) * np.linspace(0, 1, 4001)[:, None]
    sampled = excess_at(case, t)
    highest = sampled.max(axis=0)
    clear = abs(highest) > 1e-4  # more than sampling may miss
    np.testing.assert_array_equal(crosses[clear], highest[clear] > 0)
    before_end = sampled[-1] < 0
    assert (crosses & before_end).sum() > 20  # it falls below again by the end
    assert (crosses & ~before_end).sum() > 300
    assert not time[~crosses].any()
    both = crosses & clear
    np.testing.assert_allclose(excess_at(case, time)[both], 0.0, atol=1e-12)
    first = t[np.argmax(sampled > 0, axis=0), np.arange(len(highest))]
    width = np.asarray(case.duration) / 4000
    assert ((time <= first) & (time >= first - 1.001 * width))[both].all()


def test_a_maximum_just_above_the_threshold_counts():
    """3 x - 2 x^3 with x = e^(-t) has its maximum sqrt(2) at x = 1 / sqrt(2)."""
    model, ones = Modes(rates=(1.0, 3.0)), jnp.ones(3)
    top = np.sqrt(2.0)
    lanes = Lanes(jnp.asarray([top - 1e-12, top + 1e-12, 1.2]))
    state = 3 * ones, -2 * ones
    x_end = 0.6
    duration = -jnp.log(x_end) * ones
    crosses, time = crossing(model, lanes, state, duration)
    assert crosses.tolist() == [True, False, True]
    np.testing.assert_allclose(time[0], 0.5 * np.log(2.0), atol=2e-6)
    x = np.exp(-float(time[2]))
    np.testing.assert_allclose(3 * x - 2 * x**3, 1.2, rtol=1e-13)
    assert time[2] < time[0]


def test_equal_rates_are_powers_of_time():
    """Two parts of one rate: V = (a + b t) e^(-t), which a model may write as it likes."""

    class Alike(Modes):
        def decay(self, lanes, t):
            return jnp.exp(-t), t * jnp.exp(-t)

        def flow(self, decay, state):
            return decay[0] * state[0] + decay[1] * state[1], decay[0] * state[1]

        def rate(self, lanes, state):
            return state[1] - state[0], -state[1]

        def excess(self, lanes, state):
            return state[0] - lanes.threshold

    model = Alike(rates=(1.0, 1.0))
    threshold = jnp.asarray([np.exp(-1.0) - 1e-3, np.exp(-1.0) + 1e-3])
    lanes, state = Lanes(threshold), (jnp.zeros(2), jnp.ones(2))
    duration = jnp.full(2, 30.0)
    crosses, times = crossing(model, lanes, state, duration)
    assert crosses.tolist() == [True, False]
    time = float(times[0])
    np.testing.assert_allclose(time * np.exp(-time), threshold[0], rtol=1e-13)
    assert time < 1


def test_defaults_of_a_model():
    """It assumes nothing, knows no bound, and reads its leak and slopes off its rate."""
    plain, alike = Modes(), Modes(uniform=True)
    assert (plain.jumps, plain.drops, plain.uniform, plain.certain) == (False, True, False, True)
    assert plain.width == 0.0
    assert plain.guessed().certain is True
    assert alike.guessed().certain is False
    for model in (plain, alike, alike.guessed()):
        assert model.generic() == plain
        assert model.general() is model
    lanes, state = Lanes(jnp.asarray([0.3, 0.5])), tuple(jnp.asarray([[1.0, 2], [3, 5], [0, 1]]))
    assert bool(plain.assumption_holds(lanes))
    assert plain.bound(lanes, state) is None
    assert plain.crossing_order(lanes, state) is None
    excess = np.asarray(plain.excess(lanes, state))
    np.testing.assert_allclose(excess, [3.7, 7.5])
    np.testing.assert_allclose(plain.slope(lanes, state), [-5.0, -12.5])
    lower = tuple(part - 4 for part in state)
    np.testing.assert_array_equal(plain.above(lanes, state), [True, True])
    np.testing.assert_array_equal(plain.above(lanes, lower), [False, False])
    barely = (0.3 + 0.0 * state[0], 0 * state[0], 0 * state[0])
    np.testing.assert_array_equal(plain.above(Lanes(barely[0]), barely), [True, True])


def test_an_end_at_the_threshold_counts():
    model, lanes, state = Modes(rates=(1.0,)), Lanes(jnp.zeros(2)), (jnp.asarray([-1.0, 0.0]),)
    zero = (jnp.asarray([-0.5, 0.0]),)
    assert model.crosses(lanes, state, zero, jnp.ones(2)).tolist() == [False, True]
