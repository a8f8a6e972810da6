"""Which spike each arrival comes before, and which way gradients go over arrivals."""

from dataclasses import replace
from functools import partial
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsnn.event.adjoint.arrival_tiles import _padded, _Sample, _Tile
from jaxsnn.event.adjoint.arrivals_back import _sorted
from jaxsnn.event.adjoint.costate_rules import (
    Costate,
    left_by_spike,
    slope_floor,
    start_of,
    starts_above,
    without_v_of_costate,
)
from jaxsnn.event.adjoint.costates import _at, _first_of, _with_first, _without
from jaxsnn.event.adjoint.layer_adjoint import _goes_by_arrivals, _passed_on
from jaxsnn.event.adjoint.required_gradients import RequiredGradients
from jaxsnn.event.dynamics.cubalif import CubaLIFDelta
from jaxsnn.event.dynamics.lif import LIFDelta
from jaxsnn.event.dynamics.two_variables import Constants
from jaxsnn.event.forward.layer import LayerSpec
from jaxsnn.network.sorting import places_in_columns

NEURONS = 3
SPEC = LayerSpec(neuron=CubaLIFDelta(), max_spikes=2)
NONE: Any = None


def sample(spikes, cause=None, free=None):
    """Spikes and arrivals at a few times, so that many come at once; some are none."""
    rng = np.random.default_rng(spikes)
    times = np.sort(rng.integers(0, 8, (NEURONS, spikes)), axis=1).T.astype(float)
    times[spikes // 2 :, 1] = np.inf
    arrival = np.array([0.0, 2.0, 3.5, 5.0, 7.0, 9.0])
    return _Sample(jnp.asarray(arrival), NONE, jnp.asarray(times), cause, NONE, free, NONE)


@pytest.mark.parametrize("spikes", [1, 4, 7])
@pytest.mark.parametrize("caused", [False, True])
def test_the_next_spike_of_each_arrival(spikes, caused):
    """One at the time of an arrival lies behind it, unless an arrival made it."""
    case = sample(spikes)
    cause = np.random.default_rng(1).integers(-1, 2, (spikes, NEURONS))
    if caused:
        case = case._replace(cause=jnp.asarray(cause))
    tile = _Tile(SPEC, RequiredGradients())
    expected = np.zeros((len(case.arrival), NEURONS), int)
    for (a, n, s), _ in np.ndenumerate(np.zeros((*expected.shape, spikes))):
        time, arrival = case.times[s, n], case.arrival[a]
        has_cause = caused and cause[s, n] >= 0
        expected[a, n] += bool(time < arrival or (time == arrival and not has_cause))
    np.testing.assert_array_equal(jax.jit(tile.next_spike)(case), expected)


@pytest.mark.parametrize("spikes", [1, 2, 6])
def test_values_of_the_next_spike_are_gathered(spikes):
    rng = np.random.default_rng(0)
    values, number = rng.normal(size=(spikes, NEURONS)), rng.integers(0, spikes + 1, (5, NEURONS))
    tile = _Tile(SPEC, RequiredGradients())
    arguments = jnp.asarray(values, jnp.float32), jnp.asarray(number)
    gathered = jax.jit(lambda values, number: tile.taken(_padded(values), number))(*arguments)
    padded_values = [[*row, 0.0] for row in values.T.astype(np.float32)]
    expected = [[padded_values[n][number[a, n]] for n in range(NEURONS)] for a in range(5)]
    np.testing.assert_array_equal(gathered, np.array(expected, np.float32))


def test_arrivals_in_a_refractory_time_meet_its_end():
    """Of V's own entry nothing is left there; an arrival at its very end comes behind it."""
    spec = replace(SPEC, refractory=0.75)
    tile = _Tile(spec, RequiredGradients())
    times = jnp.asarray([[1.0] * NEURONS, [4.0] * NEURONS])
    free = Costate(p=(times + 10, times + 20), by={"tau": (times + 30, times + 40)})
    state = sample(2, free=free)._replace(
        times=times, arrival=jnp.asarray([0.5, 1.0, 1.5, 1.75, 4.5, 6.0])
    )

    @jax.jit
    def released(state):
        number = tile.next_spike(state)
        here = jnp.full(number.shape, 7.0)
        ahead = Costate(p=(here, here), by={"tau": (here, here)})
        return tile._or_release(state, state.arrival[:, None], number, here, ahead)

    target, costate = released(state)
    np.testing.assert_array_equal(target[:, 0], [7, 1.75, 1.75, 7, 4.75, 7])
    np.testing.assert_array_equal(costate.p[0][:, 0], [7, 0, 0, 7, 0, 7])
    np.testing.assert_array_equal(costate.p[1][:, 0], [7, 21, 21, 7, 24, 7])
    np.testing.assert_array_equal(costate.by["tau"][0][:, 0], [7, 0, 0, 7, 0, 7])
    np.testing.assert_array_equal(costate.by["tau"][1][:, 0], [7, 41, 41, 7, 44, 7])


@pytest.mark.parametrize(
    ("spec", "arrivals", "goes"),
    [
        (SPEC, 63, False),
        (SPEC, 64, True),
        (SPEC, 500, True),
        (replace(SPEC, refractory=0.1), 500, False),
        (replace(SPEC, neuron=LIFDelta()), 500, False),
        (replace(SPEC, neuron=LIFDelta(), refractory=0.1), 500, False),
    ],
)
def test_many_arrivals_are_gone_over_one_after_the_other(spec, arrivals, goes):
    residuals: Any = SimpleNamespace(time=np.zeros((2, arrivals)))
    assert _goes_by_arrivals(spec, residuals) is goes


def test_a_spike_passes_its_gradient_on_to_the_arrival_that_made_it():
    rng = np.random.default_rng(2)
    shape, arrivals = (3, 2, 4), 5
    times = np.where(rng.random(shape) < 0.7, rng.random(shape), np.inf)
    cause, drive = rng.integers(-1, arrivals, shape), rng.normal(size=shape).astype(np.float32)
    d_time = rng.normal(size=(2, arrivals)).astype(np.float32)
    expected = d_time.copy()
    for s, b, n in np.ndindex(shape):
        if np.isfinite(times[s, b, n]) and cause[s, b, n] >= 0:
            expected[b, cause[s, b, n]] += drive[s, b, n]

    @jax.jit
    def passed_on(d_time, times, cause, drive):
        causes: Any = SimpleNamespace(cause=cause)
        return _passed_on(d_time, times, causes, SimpleNamespace(drive=drive))  # pyright: ignore

    by_time = passed_on(d_time, times, cause, drive)
    np.testing.assert_allclose(by_time, expected, rtol=1e-5)


def test_the_arrival_before_each_spike_and_the_order_of_a_list():
    """An arrival at the time of a spike comes behind it."""
    arrivals = np.array([[1.0, 2.0, 2.0, np.inf], [0.5, 3.0, 4.0, 5.0]]).T
    times = np.array([[[0.5, 1.0, 9.0], [0.2, 3.0, 6.0]], [[2.0, 2.5, np.inf], [3.5, 4.5, 5.0]]])
    expected = [[[-1, -1, 2], [-1, 0, 3]], [[0, 2, 3], [1, 2, 2]]]
    places = np.array(jax.jit(places_in_columns)(arrivals, times)) - 1
    finite = np.isfinite(times)
    np.testing.assert_array_equal(places[finite], np.array(expected)[finite])
    key = jnp.asarray(np.random.default_rng(0).integers(0, 7, 60), jnp.int32)
    for most in (6, 2**30):  # in 32 bits, and in 64
        ordered, order = jax.jit(partial(_sorted, most=most))(key)
        np.testing.assert_array_equal(order, np.argsort(key, kind="stable"))
        np.testing.assert_array_equal(ordered, np.sort(key))


def test_the_costates_of_a_model_of_one_variable():
    """Each sample's neuron, and V's own entry."""
    costate = Costate(p=(jnp.ones((2, 3)),), by={"tau": (2 * jnp.ones((2, 3)),)})
    population: Any = SimpleNamespace(costate=costate)
    this = _at(jnp.asarray([2, 3]), population)
    np.testing.assert_array_equal(this, [[False, False, True], [False] * 3])
    assert _first_of(costate.by)["tau"] is costate.by["tau"][0]
    cleared = _with_first(costate, _without(this, costate.p[0]), _first_of(costate.by))
    np.testing.assert_array_equal(cleared.p[0], [[1, 1, 0], [1, 1, 1]])
    assert len(cleared.p) == len(cleared.by["tau"]) == 1
    for part in (without_v_of_costate(costate), without_v_of_costate(cleared)):
        assert not np.any(part.p[0])
        assert not np.any(part.by["tau"][0])


ALWAYS = {"reset_kind": "subtract"}
CURRENT, MEMBRANE = CubaLIFDelta, LIFDelta
#: A spike sets V, or always subtracts the same from it.
MODELS = {
    "current": (LayerSpec(neuron=CURRENT(), max_spikes=1, min_slope=0.25), False),
    "current, held": (LayerSpec(neuron=CURRENT(), max_spikes=1, refractory=0.1), True),
    "current, subtract": (LayerSpec(neuron=CURRENT(**ALWAYS), max_spikes=1), False),
    "membrane": (LayerSpec(neuron=MEMBRANE(), max_spikes=1), True),
    "membrane, subtract": (LayerSpec(neuron=MEMBRANE(**ALWAYS), max_spikes=1), False),
    "subtract, held": (LayerSpec(neuron=MEMBRANE(**ALWAYS), max_spikes=1, refractory=0.1), True),
}


@pytest.mark.parametrize("name", MODELS)
def test_start_states_and_changes_of_state_by_a_spike(name):
    """The second neuron starts above its threshold: one that is lowered from the threshold to
    v_reset begins as if reset, one that keeps its overshoot, or is assigned, where it is.
    """
    spec, assigns = MODELS[name]
    numbers = {"threshold": [1.0, 1.5], "v_reset": [-0.25, -0.5], "v_start": [0.5, 1.75]}
    numbers |= {"j_start": [0.125, 0.25], "tau_mem": [2.0, 4.0], "tau_syn": [1.0, 1.0]}
    lanes = Constants(**{key: jnp.asarray(value) for key, value in numbers.items()})
    assert spec.assigns is assigns
    np.testing.assert_array_equal(starts_above(spec.neuron, lanes), [False, True])
    begins_reset = name == "current"
    start = start_of(spec, lanes)
    np.testing.assert_array_equal(start[0], [0.5, -0.5 if begins_reset else 1.75])
    np.testing.assert_array_equal(start[1], [0.125, 0.25])
    change = left_by_spike(spec, lanes)
    np.testing.assert_array_equal(change[0], [-0.25, -0.5] if assigns else [-1.25, -2.0])
    np.testing.assert_array_equal(change[1], [0, 0])
    floor = slope_floor(spec, lanes)
    np.testing.assert_allclose(floor, spec.min_slope * np.array([1.25 / 2, 2.0 / 4]))
