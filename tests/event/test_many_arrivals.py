"""Long lists of arrivals, for which lanes are picked out and gradients take one pass backwards, against
the code for short lists.
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
from tests.event.agreement import assert_trees_close, finite_times
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


def drawn(neuron, neurons, seed):
    """Constants, weights, times and rows of a population, with several arrivals at one time."""
    rng = np.random.default_rng(seed)
    shape = getattr(neuron, "tau_shape", TauShape.ANY)
    p = population(shape, rng, neurons, uniform=neuron.uniform)
    p["tau"] = p["tau_mem"]  # name of the parameter in LIF
    weight = rng.normal(0.5, 1.0, (ROWS, neurons)) * np.asarray(neuron.arrival_factor(p))
    times = np.round(rng.uniform(0, 9, (SAMPLES, ARRIVALS)), 1)
    times[1, 40:] = np.inf  # samples differ in length
    rows = rng.integers(0, ROWS, times.shape).astype("int32")
    if neuron.width:
        times = np.concatenate([times, times + neuron.width], axis=1)
        rows = np.concatenate([rows, rows + ROWS], axis=1)
        weight = np.concatenate([weight, -weight])
    lanes = neuron.constants(p, np.asarray(rng.normal(0.2, 0.4, neurons)))
    return jnp.asarray(weight), lanes, jnp.asarray(times), jnp.asarray(rows)


def loss_of(spec, rows, cotangent=1.0, t_end=T_END):
    """A weighted sum of spike times as a function of weight, lanes and times of arrivals; the spikes.
    A cotangent of unused slots must not count.
    """

    def loss(weight, lanes, times):
        spikes = layer_spikes(spec, weight, lanes, times, rows, jnp.asarray(t_end, times.dtype))
        return jnp.sum(finite_times(spikes.time) * cotangent), spikes

    return loss


def spikes_and_gradients(spec, case, cotangent):
    *variables, rows = case
    both = jax.value_and_grad(loss_of(spec, rows, cotangent), (0, 1, 2), has_aux=True)
    (_, spikes), gradients = jax.jit(both)(*variables)
    return spikes, gradients


@pytest.fixture
def limits(monkeypatch):
    """`limits(n, ...)`: from how many arrivals and lanes on lists are long, with nothing compiled
    before.
    """

    def change(arrivals, lanes=simulate_layer._MANY_NEURONS, block=simulate_layer._LONG_BLOCK):
        monkeypatch.setattr(simulate_layer, "_MANY_ARRIVALS", arrivals)
        monkeypatch.setattr(simulate_layer, "_MANY_NEURONS", lanes)
        monkeypatch.setattr(simulate_layer, "_LONG_BLOCK", block)
        monkeypatch.setattr(layer_adjoint, "_MANY_ARRIVALS", arrivals)
        jax.clear_caches()

    yield change
    jax.clear_caches()


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    "name",
    # The other cases cover other branches of the same code.
    [pytest.param(name, marks=[pytest.mark.slow] * (name != "double")) for name in CASES],
)
def test_long_lists_give_the_same(name, limits):
    neuron, options = CASES[name]
    options = {"max_spikes": 40, "neurons": 40} | options
    neurons = options.pop("neurons")
    spec = LayerSpec(neuron=neuron, **options)
    case = drawn(neuron, neurons, seed=list(CASES).index(name))
    cotangent = np.random.default_rng(9).normal(size=(SAMPLES, neurons, spec.max_spikes))
    limits(10**6)
    expected, expected_gradients = spikes_and_gradients(spec, case, cotangent)
    limits(1, lanes=1, block=5)
    spikes, gradients = spikes_and_gradients(spec, case, cotangent)
    assert int(expected.count.sum()) > 60
    np.testing.assert_array_equal(spikes.count, expected.count)
    np.testing.assert_allclose(spikes.time, expected.time, rtol=0, atol=1e-12)
    np.testing.assert_allclose(spikes.slope, expected.slope, rtol=1e-9)
    assert_trees_close(gradients, expected_gradients, rtol=1e-9, atol=1e-10)


# -- guesses of time constants, and gradients by some of the numbers

UNIFORM_DOUBLE = CubaLIFDelta(tau_shape=TauShape.DOUBLE, uniform=True)
#: Name -> neuron, options of the layer, and whether its lists are long.
GUESSES = {
    "short lists": (UNIFORM_DOUBLE, {}, False),
    "long lists": (UNIFORM_DOUBLE, {}, True),
    "one spike": (UNIFORM_DOUBLE, {"once": True, "max_spikes": 1}, False),
    "refractory": (CubaLIFDelta(uniform=True), {"refractory": 0.3}, False),
    "lif": (LIFDelta(spike_area=0.25, uniform=True), {}, False),
}


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", GUESSES)
def test_one_program_is_right_whether_a_guess_holds_or_not(name, limits):
    neuron, options, long = GUESSES[name]
    options = {"max_spikes": 40} | options
    if long:
        limits(1, lanes=1)
    weight, lanes, *events = drawn(neuron, 40, seed=5)
    field = neuron.flow_fields[0]
    taus = getattr(lanes, field)
    spread = replace(lanes, **{field: taus * jnp.linspace(0.7, 1.4, len(taus))})
    cotangent = np.random.default_rng(9).normal(size=(SAMPLES, 40, options["max_spikes"]))
    guess, plain = (
        LayerSpec(neuron=model, **options) for model in (neuron.guessed(), neuron.generic())
    )
    first_times = []
    for case, holds in ((lanes, True), (spread, False)):
        assert bool(guess.neuron.assumption_holds(case)) is holds
        spikes, gradients = spikes_and_gradients(guess, (weight, case, *events), cotangent)
        expected, expected_gradients = spikes_and_gradients(
            plain, (weight, case, *events), cotangent
        )
        assert int(expected.count.sum()) > 30
        np.testing.assert_array_equal(spikes.count, expected.count)
        np.testing.assert_allclose(spikes.time, expected.time, rtol=0, atol=1e-12)
        assert_trees_close(gradients, expected_gradients, rtol=1e-8, absolute=1e-8)
        first_times.append(np.asarray(expected.time[..., 0]))
    assert (first_times[0] != first_times[1]).sum() > 20


def count_equations(jaxpr):
    """Equations of a program, those of programs inside it included."""
    inner = [program for equation in jaxpr.eqns for program in jaxprs_in_params(equation.params)]
    return len(jaxpr.eqns) + sum(map(count_equations, inner))


@pytest.mark.parametrize("arrivals", [1, 10**6], ids=["long lists", "short lists"])
def test_gradients_that_are_not_requested_are_not_in_the_program(arrivals, monkeypatch):
    monkeypatch.setattr(layer_adjoint, "_MANY_ARRIVALS", arrivals)
    spec = LayerSpec(neuron=UNIFORM_DOUBLE, max_spikes=2)
    *variables, rows = jax.tree.map(
        lambda array: array.astype("float32") if array.dtype == "float64" else array,
        drawn(UNIFORM_DOUBLE, 40, seed=0),
    )
    weights, times, lanes = (
        count_equations(
            jax.make_jaxpr(jax.grad(loss_of(spec, rows), argnums, has_aux=True))(*variables).jaxpr
        )
        for argnums in ((0,), (0, 2), (0, 1))
    )
    assert weights < times < lanes
    assert weights < 0.75 * lanes


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", ["double", "lif, delta, subtract"])
@pytest.mark.parametrize("arrivals", [1, 10**6], ids=["long lists", "short lists"])
def test_a_gradient_does_not_depend_on_those_beside_it(name, arrivals, monkeypatch):
    monkeypatch.setattr(layer_adjoint, "_MANY_ARRIVALS", arrivals)
    neuron, options = CASES[name]
    spec = LayerSpec(neuron=neuron, max_spikes=40, **options)
    *variables, rows = drawn(neuron, 40, seed=0)
    jax.clear_caches()
    gradient = lambda by: jax.jit(jax.grad(loss_of(spec, rows), by, has_aux=True))(*variables)[0]  # noqa: E731
    together = gradient((0, 1, 2))
    for number in range(3):
        assert_trees_close(gradient(number), together[number], rtol=1e-9, absolute=1e-12)
    assert all(np.abs(leaf).max() > 0 for leaf in (together[0], together[2]))
    jax.clear_caches()


# -- batches of any size


@pytest.mark.usefixtures("x64")
def test_gradients_are_exported_for_batches_of_any_size():
    weight, lanes, times, rows = drawn(UNIFORM_DOUBLE, 40, seed=4)
    spec = LayerSpec(neuron=UNIFORM_DOUBLE, max_spikes=12)

    def gradients(weight, times, rows):
        return jax.grad(loss_of(spec, rows), (0, 2), has_aux=True)(weight, lanes, times)[0]

    (batch,) = export.symbolic_shape("batch")
    shapes = (jax.ShapeDtypeStruct((batch, ARRIVALS), x.dtype) for x in (times, rows))
    shape = jax.ShapeDtypeStruct(weight.shape, weight.dtype)
    exported = export.export(jax.jit(gradients))(shape, *shapes).call(weight, times, rows)
    assert_trees_close(exported, gradients(weight, times, rows), rtol=1e-9, atol=1e-11)
