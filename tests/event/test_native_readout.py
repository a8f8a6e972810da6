"""V of neurons that do not fire, by the native backend: as XLA finds it, with all gradients."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsnn import EventDriven, Events, lower, simulate
from jaxsnn.event.dynamics.cubalif import CubaLIFDelta
from jaxsnn.event.dynamics.integrate_and_fire import IFBox, IFDelta
from jaxsnn.event.dynamics.lif import LIFBox, LIFDelta
from jaxsnn.event.forward.readout import Drive, membrane
from jaxsnn.event.native.native_readout import native_membrane
from jaxsnn.nir import build
from tests.event.agreement import assert_trees_close, assert_trees_equal, finite_times
from tests.event.layer_cases import TAU, lanes_of

pytestmark = pytest.mark.usefixtures("native_kernels")

BATCH, ARRIVALS, ROWS = 3, 25, 7


def drawn(model, mixed=False, neurons=5, dtype=jnp.float64):
    """A drive and sample times, one of them that of an arrival, and out of order."""
    rng = np.random.default_rng(neurons)
    time = rng.uniform(0, 0.05, (BATCH, ARRIVALS))
    time[rng.random(time.shape) < 0.1] = np.inf
    time[:, 3] = 0.02
    lanes = lanes_of(rng, (neurons,), 1.7, mixed=mixed, dtype=dtype)
    drive = Drive(
        neuron=model(),
        constants=lanes,
        v_inf=jnp.asarray(rng.normal(size=neurons), dtype),
        weight=jnp.asarray(rng.normal(size=(ROWS, neurons)), dtype),
        time=jnp.asarray(time, dtype),
        row=jnp.asarray(rng.integers(0, ROWS, time.shape), jnp.int32),
    )
    return drive, jnp.asarray([0.04, 0.02, 0.0, 0.011], dtype)


def loss_of(read, drive, samples):
    """A weighted sum of squares of V as a function of weight, lanes, times and sample times; and V."""
    shape = BATCH, len(samples), drive.weight.shape[1]
    cotangent = jnp.asarray(np.random.default_rng(1).normal(size=shape), drive.weight.dtype)

    def loss(weight, lanes, time, samples):
        v = read(replace(drive, weight=weight, constants=lanes, time=time), samples)
        return jnp.sum(v**2 * cotangent), v

    return loss


def variables(drive, samples):
    return drive.weight, drive.constants, drive.time, samples


def by_kernels(drive, samples, threads=2):
    return native_membrane(drive, threads, samples)


CASES = [(CubaLIFDelta, False), (CubaLIFDelta, True), (LIFDelta, False), (LIFDelta, True)]
CASES += [(IFDelta, False), (LIFBox, True), (IFBox, False)]


@pytest.mark.parametrize(("model", "mixed"), CASES)
def test_both_backends_agree(model, mixed, x64):
    drive, samples = drawn(model, mixed, neurons=5 if mixed else 21)
    if model is not CubaLIFDelta:  # arrivals change V, and j is the bias
        drive = replace(
            drive, constants=replace(drive.constants, tau_syn=jnp.ones_like(drive.v_inf))
        )
    results = []
    for read in (by_kernels, membrane):
        both = jax.value_and_grad(loss_of(read, drive, samples), (0, 1, 2), has_aux=True)
        (_, v), (*gradient, by_time) = jax.jit(both)(*variables(drive, samples))
        results.append((v, [*gradient, np.where(np.isfinite(drive.time), by_time, 0)]))
    (v, gradient), (expected, expected_gradient) = results
    np.testing.assert_allclose(v, expected, atol=1e-12)
    assert_trees_close(gradient, expected_gradient, atol=1e-11, absolute=1e-14)


@pytest.mark.parametrize("model", [CubaLIFDelta, LIFDelta])
def test_gradients_are_finite_differences(model, x64):
    drive, samples = drawn(model, mixed=True)
    value = jax.jit(lambda *arguments: loss_of(by_kernels, drive, samples)(*arguments, samples)[0])
    numbers = variables(drive, samples)[:3]
    gradient, rng = jax.grad(value, (0, 1, 2))(*numbers), np.random.default_rng(2)
    for number, scale in enumerate((1.0, TAU, TAU)):
        direction = jax.tree.map(
            lambda x, scale=scale: jnp.asarray(rng.normal(size=x.shape) * scale), numbers[number]
        )
        if number == 2:  # an arrival at the time of a sample does not move
            direction = direction.at[:, 3].set(0.0)
        ends = []
        for step in (1e-6, -1e-6):
            moved = jax.tree.map(lambda x, d, step=step: x + step * d, numbers[number], direction)
            ends.append(float(value(*numbers[:number], moved, *numbers[number + 1 :])))
        products = jax.tree.map(jnp.multiply, direction, gradient[number])
        along = sum(float(jnp.sum(finite_times(leaf))) for leaf in jax.tree.leaves(products))
        assert along == pytest.approx((ends[0] - ends[1]) / 2e-6, rel=1e-6)


@pytest.mark.slow
def test_derivatives_that_the_kernels_do_not_have_are_those_of_xla(x64):
    """By the times of samples, and second ones."""
    drive, samples = drawn(CubaLIFDelta)
    weight, *others = variables(drive, samples)
    results = []
    for read in (by_kernels, membrane):
        value = lambda *arguments, read=read: loss_of(read, drive, samples)(*arguments)[0]  # noqa: E731
        of_weight = jax.grad(lambda weight, value=value: value(weight, *others))
        curvature = jax.jvp(of_weight, (weight,), (jnp.sin(weight),))[1]
        results.append((jax.grad(value, 3)(weight, *others), curvature))
    assert all(jnp.abs(expected).max() > 0 for expected in results[1])
    assert_trees_close(*results, rtol=1e-9, absolute=1e-9)


def test_the_number_of_threads_changes_no_bit():
    drive, samples = drawn(CubaLIFDelta, neurons=40, dtype=jnp.float32)
    single, several = (
        jax.value_and_grad(
            loss_of(partial(by_kernels, threads=n), drive, samples), (0, 1, 2), has_aux=True
        )(*variables(drive, samples))
        for n in (1, 7)
    )
    assert_trees_equal(several, single)


def test_readouts_without_arrivals_or_neurons():
    drive, samples = drawn(CubaLIFDelta, dtype=jnp.float32)
    silent = replace(drive, time=drive.time[:, :0], row=drive.row[:, :0])
    np.testing.assert_allclose(by_kernels(silent, samples), membrane(silent, samples), rtol=1e-5)
    lanes, v_inf = jax.tree.map(lambda x: x[:0], (drive.constants, drive.v_inf))
    no_neurons = replace(drive, weight=drive.weight[:, :0], constants=lanes, v_inf=v_inf)
    assert by_kernels(no_neurons, samples).shape == (BATCH, 4, 0)


# -- in a network: a native hidden layer, and a readout


def with_readout(last):
    rng = np.random.default_rng(0)
    hidden = build.cubalif(tau_mem="10ms", tau_syn="5ms")
    matrices = rng.normal(0.6, 0.3, (8, 3)), rng.normal(size=(2, 8))
    first, second = (build.linear(weight=weight) for weight in matrices)
    return lower(build.sequential(build.input(3), first, hidden, second, last))


def loss_and_text(net, **options):
    """The loss with spikes and gradients, and the text of its program."""
    name, time = list(net.populations)[-1], jnp.linspace(0, 20e-3, 24).reshape(2, 12)
    index = jnp.asarray(np.arange(24).reshape(2, 12) % 3, jnp.int32)

    def loss(parameters, time):
        solution = simulate(
            net.with_parameters(parameters),
            Events(time=time, index=index),
            30e-3,
            engine=EventDriven(**options),
            sample_times=np.linspace(1e-3, 30e-3, 7),
            throw=False,
        )
        return jnp.sum(solution.voltages[name] ** 2), solution.spikes

    both = jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True))
    return both(net.parameters, time), both.lower(net.parameters, time).as_text()


READOUTS = {
    "cubali": lambda: build.cubali(tau_mem="10ms", tau_syn="5ms"),
    "li": lambda: build.li(tau="10ms"),
}


@pytest.mark.parametrize("kind", READOUTS)
def test_a_network_with_a_readout_is_native(kind, x64):
    net = with_readout(READOUTS[kind]())
    expected, _ = loss_and_text(net, backend="xla")
    result, text = loss_and_text(net, backend="native")
    assert "jaxsnn_layer_backward" in text
    assert "jaxsnn_readout_backward" in text
    assert sum(int(spikes.count.sum()) for spikes in expected[0][1].values()) > 4
    assert_trees_close(result, expected, atol=1e-9, absolute=1e-21)
