"""The first-spike loss: closed forms, gradients, predictions."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsnn.event.feedforward import LayerSpikes
from jaxsnn.simulate import Result, Solution
from jaxsnn.train import LOSSES, FirstSpike, accuracy

TAU, T_MAX = 0.005, 0.03


def solution(times):
    """A solution whose population 'out' fires at the given times (batch, neurons), and once more later."""
    times = jnp.asarray(times)
    spikes = LayerSpikes(
        time=jnp.stack([times, times + 0.001], axis=-1),
        slope=jnp.ones((*times.shape, 2)),
        count=2 * jnp.isfinite(times).astype(jnp.int32),
    )
    return Solution(
        spikes={"out": spikes},
        voltages={},
        sample_times=jnp.zeros(1),
        result=jnp.int32(Result.SUCCESS),
        clipped_slopes={},
        spikes_needed={},
        shapes_hold={},
        t_end=jnp.asarray(T_MAX),
        drives={},
        max_spikes=2,
        outputs=(),
    )


def loss(**changes):
    return FirstSpike(population="out", tau=TAU, t_max=T_MAX, **changes)


def test_closed_form(x64):
    """Two neurons: L = log(1 + e^((t0 - t1) / (tau sharpness))) + late term, for label 0."""
    t0, t1, sharpness, weight, late = 0.004, 0.0045, 0.2, 0.01, 1.5
    value = loss(sharpness=sharpness, late_weight=weight, late_tau=late)(solution([[t0, t1]]), jnp.array([0]))
    expected = math.log1p(math.exp((t0 - t1) / (TAU * sharpness))) + weight * math.expm1(t0 / TAU / late)
    assert np.allclose(value, [expected], rtol=1e-12)


def test_equal_times_cost_the_logarithm_of_the_number_of_classes(x64):
    value = loss(late_weight=0.0)(solution(jnp.full((2, 3), 0.01)), jnp.array([0, 2]))
    assert np.allclose(value, math.log(3), rtol=1e-12)


def test_a_silent_neuron_counts_at_t_max(x64):
    labels = jnp.array([1])
    silent = loss()(solution([[0.004, jnp.inf]]), labels)
    late = loss()(solution([[0.004, T_MAX]]), labels)
    assert np.isfinite(silent).all()
    assert np.allclose(silent, late, rtol=1e-12)


def test_gradient_by_finite_differences(x64):
    labels = jnp.array([0, 2, 1])
    times = jnp.asarray(np.random.default_rng(0).uniform(0.004, 0.006, (3, 3)))

    def value(times):
        return jnp.mean(loss(sharpness=0.1)(solution(times), labels))

    gradient = jax.grad(value)(times)
    step = 1e-9
    for place in np.ndindex(3, 3):
        difference = (value(times.at[place].add(step)) - value(times.at[place].add(-step))) / (2 * step)
        assert gradient[place] == pytest.approx(float(difference), rel=1e-5, abs=1e-4)


def test_a_silent_neuron_has_no_gradient_and_breaks_no_other(x64):
    def value(times):
        return jnp.sum(loss()(solution(times), jnp.array([1])))

    gradient = jax.grad(value)(jnp.array([[0.004, jnp.inf, 0.0041]]))
    assert np.isfinite(gradient).all()
    assert gradient[0, 1] == 0


def test_the_first_to_fire_is_the_answer_and_none_is_no_answer():
    times = [[3.0, 1.0, 2.0], [jnp.inf, jnp.inf, jnp.inf], [jnp.inf, 5.0, 5.0]]
    predictions = loss().predict(solution(times))
    assert predictions.tolist() == [1, -1, 1]
    assert float(accuracy(predictions, jnp.array([1, 0, 2]))) == pytest.approx(1 / 3)


def test_the_unit_of_time_is_the_one_that_is_given(x64):
    """The same times in units of tau give the same loss."""
    labels = jnp.array([0])
    seconds = loss()(solution([[0.004, 0.0041]]), labels)
    other = FirstSpike(population="out", tau=1.0, t_max=T_MAX / TAU)(solution([[0.8, 0.82]]), labels)
    assert np.allclose(seconds, other, rtol=1e-9)


def test_losses_are_known_by_name():
    assert LOSSES["ttfs"] is FirstSpike
