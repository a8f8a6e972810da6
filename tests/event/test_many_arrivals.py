"""What long lists of arrivals take instead, lanes picked out and one pass backwards, against what
short ones take.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsnn.event.adjoint import layer_adjoint
from jaxsnn.event.adjoint.layer_adjoint import layer_spikes
from jaxsnn.event.dynamics.cubalif import CubaLIFBox, CubaLIFDelta
from jaxsnn.event.dynamics.integrate_and_fire import IFBox, IFDelta
from jaxsnn.event.dynamics.lif import LIFDelta
from jaxsnn.event.forward import layer
from jaxsnn.event.forward.layer import LayerSpec
from jaxsnn.network.structure import TauShape
from tests.event.cases import population

ROWS, ARRIVALS, SAMPLES, T_END = 5, 70, 3, 8.0
CASES = {
    "double": (CubaLIFDelta(tau_shape=TauShape.DOUBLE, uniform=True), {}),
    "any": (CubaLIFDelta(), {}),
    "few neurons": (CubaLIFDelta(uniform=True), {"neurons": 3}),
    "subtract": (CubaLIFDelta(reset_kind="subtract"), {}),
    "refractory": (CubaLIFDelta(), {"refractory": 0.3}),
    "too few slots": (CubaLIFDelta(), {"max_spikes": 2}),
    "box": (CubaLIFBox(width=0.25, spike_area=0.25), {}),
    "if, box": (IFBox(width=0.25, spike_area=0.25), {}),
    "if, delta": (IFDelta(spike_area=0.25), {}),
    "lif, delta, subtract": (LIFDelta(spike_area=0.25, reset_kind="subtract"), {}),
    "lif, delta, ramps": (LIFDelta(spike_area=0.25), {"jump_width": 0.1}),
}


#: The others take other branches of the same code.
QUICK = ("double",)


def few_or_slow(name):
    return name if name in QUICK else pytest.param(name, marks=pytest.mark.slow)


def given(neuron, neurons, seed):
    """Lanes, weights, times and rows of a population, with several arrivals at one time."""
    rng = np.random.default_rng(seed)
    shape = getattr(neuron, "tau_shape", TauShape.ANY)
    p = population(shape, rng, neurons, uniform=neuron.uniform)
    p["tau"] = p["tau_mem"]  # LIF's name for it
    weight = rng.normal(0.5, 1.0, (ROWS, neurons)) * np.asarray(neuron.arrival_factor(p))
    times = np.round(rng.uniform(0, 9, (SAMPLES, ARRIVALS)), 1)
    times[1, 40:] = np.inf  # another length
    rows = rng.integers(0, ROWS, times.shape).astype("int32")
    if neuron.width:
        times = np.concatenate([times, times + neuron.width], axis=1)
        rows = np.concatenate([rows, rows + ROWS], axis=1)
        weight = np.concatenate([weight, -weight])
    lanes = neuron.lanes(p, np.asarray(rng.normal(0.2, 0.4, neurons)))
    return jnp.asarray(weight), lanes, jnp.asarray(times), jnp.asarray(rows)


def outcome(spec, arguments, cotangent):
    """Spikes, and all gradients of a weighted sum of their times."""
    weight, lanes, times, rows = arguments

    def total(weight, lanes, times):
        spikes = layer_spikes(spec, weight, lanes, times, rows, jnp.float64(T_END))
        fired = jnp.isfinite(spikes.time)
        # a cotangent of unused slots must not count
        return jnp.sum(jnp.where(fired, spikes.time * cotangent, 0.0)), spikes

    by_all = jax.value_and_grad(total, argnums=(0, 1, 2), has_aux=True)
    (_, spikes), gradients = jax.jit(by_all)(weight, lanes, times)
    return spikes, gradients


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", [few_or_slow(name) for name in CASES])
def test_long_lists_give_the_same(name, monkeypatch):
    neuron, options = CASES[name]
    options = {"max_spikes": 40, "neurons": 40} | options
    neurons = options.pop("neurons")
    spec = LayerSpec(neuron=neuron, **options)
    arguments = given(neuron, neurons, seed=list(CASES).index(name))
    cotangent = np.random.default_rng(9).normal(size=(SAMPLES, neurons, spec.max_spikes))
    monkeypatch.setattr(layer, "_MANY_ARRIVALS", 10**6)
    monkeypatch.setattr(layer_adjoint, "_MANY_ARRIVALS", 10**6)
    expected, gradients = outcome(spec, arguments, cotangent)
    jax.clear_caches()
    monkeypatch.setattr(layer, "_MANY_ARRIVALS", 1)
    monkeypatch.setattr(layer, "_MANY_LANES", 1)
    monkeypatch.setattr(layer, "_LONG_BLOCK", 5)
    monkeypatch.setattr(layer_adjoint, "_MANY_ARRIVALS", 1)
    found, others = outcome(spec, arguments, cotangent)
    jax.clear_caches()
    assert int(expected.count.sum()) > 60
    np.testing.assert_array_equal(found.count, expected.count)
    np.testing.assert_allclose(found.time, expected.time, rtol=0, atol=1e-12)
    np.testing.assert_allclose(found.slope, expected.slope, rtol=1e-9)
    for mine, theirs in zip(jax.tree.leaves(others), jax.tree.leaves(gradients), strict=True):
        size = float(np.abs(theirs).max()) or 1.0
        np.testing.assert_allclose(mine, theirs, rtol=1e-9, atol=1e-10 * size)
