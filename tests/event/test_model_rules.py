"""What models of neurons say of themselves in closed form, against the rules that hold for all, and
against their own flow.
"""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsnn.errors import LoweringError
from jaxsnn.event.dynamics.cubalif import CubaLIFBox, CubaLIFDelta
from jaxsnn.event.dynamics.integrate_and_fire import IFBox, IFDelta
from jaxsnn.event.dynamics.lif import LIFBox, LIFDelta
from jaxsnn.event.dynamics.neuron_model import Neuron
from jaxsnn.event.dynamics.two_variables import Constants

MODELS = {
    "CubaLIF": CubaLIFDelta(),
    "CubaLIF, boxes": CubaLIFBox(width=0.3),
    "LIF": LIFDelta(),
    "LIF, boxes": LIFBox(width=0.3),
    "IF": IFDelta(),
    "IF, boxes": IFBox(width=0.3),
}
#: State that an arrival changes: v, j, or the height of the current pulses.
MOVED = {"LIF": 0, "IF": 0, "CubaLIF, boxes": 2}
NEURONS = 5

pytestmark = pytest.mark.usefixtures("x64")
models = pytest.mark.parametrize("name", MODELS)


def close(actual, expected):
    for array, reference in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(
            array, np.broadcast_to(reference, np.shape(array)), rtol=2e-9, atol=1e-12
        )


def drawn(name, seed=0):
    """(model, lanes, a state, times)."""
    rng = np.random.default_rng(seed)
    limits = {"threshold": (0.5, 1.5), "v_reset": (-0.5, 0.2), "v_start": (-0.3, 0.3)}
    limits |= {"j_start": (0.0, 1.0), "tau_mem": (0.6, 2.0), "tau_syn": (0.3, 1.5)}
    lanes = Constants(
        **{key: jnp.asarray(rng.uniform(*ends, NEURONS)) for key, ends in limits.items()}
    )
    still = MODELS[name].begin(lanes)
    state = tuple(jnp.asarray(rng.normal(size=NEURONS)) for _ in still)
    return MODELS[name], lanes, state, jnp.asarray(rng.uniform(0.1, 2.0, NEURONS))


@models
def test_coefficients_change_with_the_time_constants_as_their_flow_does(name):
    neuron, lanes, _, t = drawn(name)
    closed_form, by_rule = neuron.decay_by(lanes, t), Neuron.decay_by(neuron, lanes, t)
    assert closed_form[1].keys() == by_rule[1].keys()
    close(closed_form, by_rule)


@models
def test_the_rate_is_that_of_the_flow_and_the_way_back_its_transpose(name):
    neuron, lanes, state, t = drawn(name)

    def after(t):
        return neuron.flow(neuron.decay(lanes, t), state)

    end, rate = jax.jvp(after, (t,), (jnp.ones_like(t),))
    close(neuron.rate(lanes, end), rate)
    decay = neuron.decay(lanes, t)
    close(neuron.flow(decay, end), after(2 * t))
    close(neuron.flow_back(decay, state), Neuron.flow_back(neuron, decay, state))


@models
def test_leak_slope_and_drop_are_those_of_the_state(name):
    neuron, lanes, state, _ = drawn(name)
    close(neuron.leak(lanes), Neuron.leak(neuron, lanes))
    at = (lanes.threshold, *state[1:])
    close(neuron.slope(lanes, at), Neuron.slope(neuron, lanes, at))
    close(neuron.slope_scale(lanes), (lanes.threshold - lanes.v_reset) * neuron.leak(lanes))
    after = neuron.reset(lanes, at)
    close(
        neuron.drop(lanes), tuple(before - behind for before, behind in zip(at, after, strict=True))
    )
    below = (lanes.threshold - 1e-9, *state[1:])
    close(Neuron.lifted(neuron, lanes, below), neuron.lifted(lanes, below))
    assert (neuron.excess(lanes, Neuron.lifted(neuron, lanes, state)) >= 0).all()


@models
def test_neurons_above_their_threshold_fire_at_once(name):
    """Those that an arrival or the start puts above the threshold; at it all but membranes that
    deltas move, and these where equality is enough.
    """
    neuron, lanes, state, _ = drawn(name)
    moved = name in ("LIF", "IF") and neuron.jumps
    for excess, fires in ((0.25, True), (-0.25, False), (0.0, not moved)):
        at = (lanes.threshold + excess, *state[1:])
        assert np.all(np.asarray(neuron.above(lanes, at)) == fires), excess
        assert np.all(np.asarray(Neuron.above(neuron, lanes, at)) == (excess >= 0))
        lenient = replace(neuron, fires_at_equality=True)
        assert np.all(np.asarray(lenient.above(lanes, at)) == (excess >= 0))
        assert neuron.lifted(lanes, at)[0] == pytest.approx(np.maximum(at[0], lanes.threshold))


@models
def test_an_overshoot_is_kept_by_those_that_subtract(name):
    neuron, lanes, state, _ = drawn(name)
    above = (lanes.threshold + 0.25, *state[1:])
    assert not neuron.keeps_overshoot
    close(neuron.reset(lanes, above)[0], lanes.v_reset)
    subtracts = replace(neuron, reset_kind="subtract")
    assert subtracts.keeps_overshoot
    close(subtracts.reset(lanes, above)[0], lanes.v_reset + 0.25)


@models
def test_an_arrival_moves_one_part_of_the_state(name):
    neuron, _, state, t = drawn(name)
    moved = [after - before for after, before in zip(neuron.arrive(state, t), state, strict=True)]
    for place, by in enumerate(moved):
        close(by, t if place == MOVED.get(name, 1) else 0 * t)


@pytest.mark.parametrize("name", ["CubaLIF, boxes", "LIF, boxes", "IF, boxes", "LIF"])
def test_no_crossing_comes_before_its_bound(name):
    neuron, lanes, still, _ = drawn(name)
    rng = np.random.default_rng(1)
    v, *others = rng.uniform(0, 0.4, (len(still), 20, NEURONS))
    state = tuple(
        map(jnp.asarray, (v, *(component + 3 * rng.random((20, 1)) for component in others)))
    )
    long = jnp.full((20, NEURONS), 5.0)
    end = neuron.flow(neuron.decay(lanes, long), state)
    crosses = neuron.crosses(lanes, state, end, long)
    wait = neuron.solve(lanes, state, long, crosses)
    excess = neuron.excess(lanes, neuron.flow(neuron.decay(lanes, wait), state))
    np.testing.assert_allclose(np.where(crosses, excess, 0.0), 0.0, atol=1e-9)
    bound = neuron.bound(lanes, state)
    assert (np.where(crosses, bound - wait, -1.0) <= 1e-12).all()
    assert np.where(crosses, bound / wait, 0.0).max() > 0.3  # the bound is not trivial


def test_a_model_without_extrema_and_integrals_is_refused_as_a_readout():
    class Silent(CubaLIFDelta):
        turns, extremum, integrals = Neuron.turns, Neuron.extremum, Neuron.integrals

    _, lanes, state, t = drawn("CubaLIF")
    for call, description in (
        (lambda: Silent().turns(lanes, state, state), "the extrema of V"),
        (lambda: Silent().extremum(lanes, state), "the extrema of V"),
        (lambda: Silent().integrals(lanes, t, 0.0), "integrals of V"),
    ):
        with pytest.raises(
            LoweringError, match=f"neuron model Silent does not define {description}"
        ):
            call()
