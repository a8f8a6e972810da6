"""What long lists of arrivals take instead, lanes picked out and one pass backwards, against what
short ones take.
"""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export
from jax.extend.core import jaxprs_in_params

from jaxsnn.event.adjoint import layer_adjoint
from jaxsnn.event.adjoint.layer_adjoint import layer_spikes
from jaxsnn.event.dynamics.cubalif import CubaLIFBox, CubaLIFDelta
from jaxsnn.event.dynamics.integrate_and_fire import IFBox, IFDelta
from jaxsnn.event.dynamics.lif import LIFDelta
from jaxsnn.event.forward import simulate_layer
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
    monkeypatch.setattr(simulate_layer, "_MANY_ARRIVALS", 10**6)
    monkeypatch.setattr(layer_adjoint, "_MANY_ARRIVALS", 10**6)
    expected, gradients = outcome(spec, arguments, cotangent)
    jax.clear_caches()
    monkeypatch.setattr(simulate_layer, "_MANY_ARRIVALS", 1)
    monkeypatch.setattr(simulate_layer, "_MANY_LANES", 1)
    monkeypatch.setattr(simulate_layer, "_LONG_BLOCK", 5)
    monkeypatch.setattr(layer_adjoint, "_MANY_ARRIVALS", 1)
    spikes, others = outcome(spec, arguments, cotangent)
    assert int(expected.count.sum()) > 60
    np.testing.assert_array_equal(spikes.count, expected.count)
    np.testing.assert_allclose(spikes.time, expected.time, rtol=0, atol=1e-12)
    np.testing.assert_allclose(spikes.slope, expected.slope, rtol=1e-9)
    for mine, theirs in zip(jax.tree.leaves(others), jax.tree.leaves(gradients), strict=True):
        size = float(np.abs(theirs).max()) or 1.0
        np.testing.assert_allclose(mine, theirs, rtol=1e-9, atol=1e-10 * size)
    jax.clear_caches()


# ---- what is assumed, and what is asked for

GUESSES = {
    "short lists": (CubaLIFDelta(tau_shape=TauShape.DOUBLE, uniform=True), {}, False),
    "long lists": (CubaLIFDelta(tau_shape=TauShape.DOUBLE, uniform=True), {}, True),
    "one spike": (
        CubaLIFDelta(tau_shape=TauShape.DOUBLE, uniform=True),
        {"once": True, "max_spikes": 1},
        False,
    ),
    "refractory": (CubaLIFDelta(uniform=True), {"refractory": 0.3}, False),
    "lif": (LIFDelta(spike_area=0.25, uniform=True), {}, False),
}


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", GUESSES)
def test_one_program_is_right_whether_a_guess_holds_or_not(name, monkeypatch):
    neuron, options, long = GUESSES[name]
    options = {"max_spikes": 40} | options
    if long:
        monkeypatch.setattr(simulate_layer, "_MANY_ARRIVALS", 1)
        monkeypatch.setattr(simulate_layer, "_MANY_LANES", 1)
        monkeypatch.setattr(layer_adjoint, "_MANY_ARRIVALS", 1)
    jax.clear_caches()
    weight, lanes, times, rows = given(neuron, 40, seed=5)
    field = neuron.flow_fields[0]
    taus = getattr(lanes, field)
    other = replace(lanes, **{field: taus * jnp.linspace(0.7, 1.4, len(taus))})
    cotangent = np.random.default_rng(9).normal(size=(SAMPLES, 40, options["max_spikes"]))
    guess, plain = (
        LayerSpec(neuron=each, **options) for each in (neuron.guessed(), neuron.unassuming())
    )
    assert (bool(guess.neuron.holds(lanes)), bool(guess.neuron.holds(other))) == (True, False)
    counts, firsts = [], []
    for own in (lanes, other):
        spikes, gradients = outcome(guess, (weight, own, times, rows), cotangent)
        expected, others = outcome(plain, (weight, own, times, rows), cotangent)
        counts.append(int(expected.count.sum()))
        firsts.append(np.asarray(expected.time[..., 0]))
        np.testing.assert_array_equal(spikes.count, expected.count)
        np.testing.assert_allclose(spikes.time, expected.time, rtol=0, atol=1e-12)
        for mine, theirs in zip(jax.tree.leaves(gradients), jax.tree.leaves(others), strict=True):
            np.testing.assert_allclose(mine, theirs, rtol=1e-8, atol=1e-8)
    assert min(counts) > 30
    assert (firsts[0] != firsts[1]).sum() > 20
    jax.clear_caches()


def number_of_equations(spec, arguments, argnums):
    """Of the program of a gradient, those of programs inside it included."""
    weight, lanes, times, rows = arguments

    def total(weight, lanes, times):
        spikes = layer_spikes(spec, weight, lanes, times, rows, jnp.float32(T_END))
        return jnp.sum(jnp.where(jnp.isfinite(spikes.time), spikes.time, 0.0))

    program = jax.make_jaxpr(jax.grad(total, argnums=argnums))(weight, lanes, times)

    def equations(jaxpr):
        inner = jaxprs_in_params
        return len(jaxpr.eqns) + sum(
            equations(each) for own in jaxpr.eqns for each in inner(own.params)
        )

    return equations(program.jaxpr)


@pytest.mark.parametrize("long", [False, True])
def test_what_nobody_asks_for_is_not_in_the_program(long, monkeypatch):
    monkeypatch.setattr(layer_adjoint, "_MANY_ARRIVALS", 1 if long else 10**6)
    neuron, _ = CASES["double"]
    spec = LayerSpec(neuron=neuron, max_spikes=2)
    arguments = jax.tree.map(
        lambda array: array.astype("float32") if array.dtype == "float64" else array,
        given(neuron, 40, seed=0),
    )
    weights, times, lanes = (
        number_of_equations(spec, arguments, n) for n in ((0,), (0, 2), (0, 1))
    )
    assert weights < times < lanes
    assert weights < 0.75 * lanes


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", ["double", "lif, delta, subtract"])
@pytest.mark.parametrize("long", [False, True])
def test_a_gradient_does_not_depend_on_what_else_is_asked_for(name, long, monkeypatch):
    monkeypatch.setattr(layer_adjoint, "_MANY_ARRIVALS", 1 if long else 10**6)
    neuron, options = CASES[name]
    spec = LayerSpec(neuron=neuron, max_spikes=40, **options)
    weight, lanes, times, rows = given(neuron, 40, seed=0)

    def total(weight, lanes, times):
        spikes = layer_spikes(spec, weight, lanes, times, rows, jnp.float64(T_END))
        return jnp.sum(jnp.where(jnp.isfinite(spikes.time), spikes.time, 0.0))

    jax.clear_caches()
    every = jax.jit(jax.grad(total, argnums=(0, 1, 2)))(weight, lanes, times)
    for number in range(3):
        alone = jax.jit(jax.grad(total, argnums=number))(weight, lanes, times)
        for mine, theirs in zip(
            jax.tree.leaves(alone), jax.tree.leaves(every[number]), strict=True
        ):
            np.testing.assert_allclose(mine, theirs, rtol=1e-9, atol=1e-12)
    assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves((every[0], every[2])))
    jax.clear_caches()


# ---- batches of any size


@pytest.mark.usefixtures("x64")
def test_gradients_are_exported_for_batches_of_any_size():
    neuron = CubaLIFDelta(tau_shape=TauShape.DOUBLE, uniform=True)
    weight, lanes, times, rows = given(neuron, 40, seed=4)
    spec = LayerSpec(neuron=neuron, max_spikes=12)

    def gradients(weight, times, rows):
        def total(weight, times):
            spikes = layer_spikes(spec, weight, lanes, times, rows, jnp.float64(T_END))
            return jnp.sum(jnp.where(jnp.isfinite(spikes.time), spikes.time, 0.0))

        return jax.grad(total, (0, 1))(weight, times)

    (batch,) = export.symbolic_shape("batch")
    shapes = (jax.ShapeDtypeStruct((batch, ARRIVALS), x.dtype) for x in (times, rows))
    shape = jax.ShapeDtypeStruct(weight.shape, weight.dtype)
    exported = export.export(jax.jit(gradients))(shape, *shapes)
    for found, expected in zip(
        exported.call(weight, times, rows), gradients(weight, times, rows), strict=True
    ):
        np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-11 * abs(expected).max())
