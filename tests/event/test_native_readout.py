"""V of neurons that do not fire, by the native backend: as XLA finds it, with all gradients."""

from dataclasses import replace

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
from tests.event.test_native import TAU, lanes_of

pytestmark = pytest.mark.usefixtures("native_kernels")

BATCH, ARRIVALS, ROWS = 3, 25, 7


def readout(model, own=False, neurons=5, dtype=jnp.float64):
    """A drive and sample times, one of them that of an arrival, and out of order."""
    rng = np.random.default_rng(neurons)
    time = rng.uniform(0, 0.05, (BATCH, ARRIVALS))
    time[rng.random(time.shape) < 0.1] = np.inf
    time[:, 3] = 0.02
    lanes = lanes_of(rng, (neurons,), 1.7, own, False, dtype)
    drive = Drive(
        neuron=model(),
        lanes=lanes,
        v_inf=jnp.asarray(rng.normal(size=neurons), dtype),
        weight=jnp.asarray(rng.normal(size=(ROWS, neurons)), dtype),
        time=jnp.asarray(time, dtype),
        row=jnp.asarray(rng.integers(0, ROWS, time.shape), jnp.int32),
    )
    return drive, jnp.asarray([0.04, 0.02, 0.0, 0.011], dtype)


def weighed(way, drive, cotangent):
    """A function of what moves V, which is a float, and V."""

    def value(weight, lanes, time, samples):
        v = way(replace(drive, weight=weight, lanes=lanes, time=time), samples)
        return jnp.sum(v**2 * cotangent), v

    return value


def arguments(drive, samples):
    return drive.weight, drive.lanes, drive.time, samples


def cotangent_of(drive, samples):
    shape = BATCH, len(samples), drive.weight.shape[1]
    return jnp.asarray(np.random.default_rng(1).normal(size=shape), drive.weight.dtype)


def native(drive, samples, threads=2):
    return native_membrane(drive, threads, samples)


CASES = [(CubaLIFDelta, False), (CubaLIFDelta, True), (LIFDelta, False), (LIFDelta, True)]
CASES += [(IFDelta, False), (LIFBox, True), (IFBox, False)]


@pytest.mark.parametrize(("model", "own"), CASES)
def test_both_backends_agree(model, own, x64):
    drive, samples = readout(model, own, neurons=5 if own else 21)
    if model is not CubaLIFDelta:  # what arrives moves V, and j is the bias
        drive = replace(drive, lanes=replace(drive.lanes, tau_syn=jnp.ones_like(drive.v_inf)))
    cotangent = cotangent_of(drive, samples)
    found, expected = (
        jax.jit(jax.value_and_grad(weighed(way, drive, cotangent), argnums, has_aux=True))(
            *arguments(drive, samples)
        )
        for argnums in [(0, 1, 2)]
        for way in (native, membrane)
    )
    np.testing.assert_allclose(found[0][1], expected[0][1], atol=1e-12)
    for ours, theirs in zip(*map(jax.tree.leaves, (found[1], expected[1])), strict=True):
        ours, theirs = (
            np.where(np.isfinite(drive.time), each, 0) if each.shape == drive.time.shape else each
            for each in (ours, theirs)
        )
        np.testing.assert_allclose(ours, theirs, atol=1e-11 * (np.abs(theirs).max() + 1e-3))


@pytest.mark.parametrize("model", [CubaLIFDelta, LIFDelta])
def test_gradients_are_finite_differences(model, x64):
    drive, samples = readout(model, own=True)
    value = jax.jit(weighed(native, drive, cotangent_of(drive, samples)))
    given = arguments(drive, samples)[:3]
    gradient = jax.grad(lambda *given: value(*given, samples)[0], (0, 1, 2))(*given)
    rng = np.random.default_rng(2)
    for number, scale in ((0, 1.0), (1, TAU), (2, TAU)):
        direction = jax.tree.map(
            lambda x, scale=scale: jnp.asarray(rng.normal(size=x.shape) * scale), given[number]
        )
        if number == 2:  # the arrival at the time of a sample stays there
            direction = direction.at[:, 3].set(0.0)
        ends = []
        for step in (1e-6, -1e-6):
            moved = jax.tree.map(lambda x, d, step=step: x + step * d, given[number], direction)
            ends.append(value(*(*given[:number], moved, *given[number + 1 :]), samples)[0])
        along = sum(
            float(jnp.sum(jnp.where(jnp.isfinite(d * g), d * g, 0.0)))
            for d, g in zip(*map(jax.tree.leaves, (direction, gradient[number])), strict=True)
        )
        assert along == pytest.approx(float(ends[0] - ends[1]) / 2e-6, rel=1e-6)


@pytest.mark.slow
def test_derivatives_that_the_kernels_do_not_have_are_those_of_xla(x64):
    """By the times of samples, and second ones."""
    drive, samples = readout(CubaLIFDelta)
    cotangent, found = cotangent_of(drive, samples), []
    for way in (native, membrane):
        value = weighed(way, drive, cotangent)
        weight, *others = arguments(drive, samples)

        def of_weight(weight, value=value, others=others):
            return value(weight, *others)[0]

        by_sample = jax.grad(lambda *given: value(*given)[0], 3)(weight, *others)  # noqa: B023
        curved = jax.jvp(jax.grad(of_weight), (weight,), (jnp.sin(weight),))[1]
        found.append((by_sample, curved))
    for ours, theirs in zip(*found, strict=True):
        assert jnp.abs(theirs).max() > 0
        np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-9)


def test_the_number_of_threads_changes_no_bit():
    drive, samples = readout(CubaLIFDelta, neurons=40, dtype=jnp.float32)
    cotangent = cotangent_of(drive, samples)
    one, many = (
        jax.value_and_grad(
            weighed(lambda *given, n=n: native(*given, n), drive, cotangent),
            (0, 1, 2),
            has_aux=True,
        )(*arguments(drive, samples))
        for n in (1, 7)
    )
    for a, b in zip(*map(jax.tree.leaves, (one, many)), strict=True):
        np.testing.assert_array_equal(a, b)


def test_nothing_arrives_and_nobody_is_there():
    drive, samples = readout(CubaLIFDelta, dtype=jnp.float32)
    nothing = replace(drive, time=drive.time[:, :0], row=drive.row[:, :0])
    np.testing.assert_allclose(native(nothing, samples), membrane(nothing, samples), rtol=1e-5)
    nobody = replace(
        drive,
        weight=drive.weight[:, :0],
        lanes=jax.tree.map(lambda x: x[:0], drive.lanes),
        v_inf=drive.v_inf[:0],
    )
    assert native(nobody, samples).shape == (BATCH, 4, 0)


# ---- in a network: a native hidden layer, and a readout


def with_readout(last):
    rng = np.random.default_rng(0)
    hidden = build.cubalif(tau_mem="10ms", tau_syn="5ms")
    matrices = rng.normal(0.6, 0.3, (8, 3)), rng.normal(size=(2, 8))
    first, second = (build.linear(weight=weight) for weight in matrices)
    return lower(build.sequential(build.input(3), first, hidden, second, last))


def loss_and_text(net, **options):
    name, time = list(net.populations)[-1], jnp.linspace(0, 20e-3, 24).reshape(2, 12)
    index = jnp.asarray(np.arange(24).reshape(2, 12) % 3, jnp.int32)

    def loss(parameters, time):
        found = simulate(
            net.with_parameters(parameters),
            Events(time=time, index=index),
            30e-3,
            engine=EventDriven(**options),
            sample_times=np.linspace(1e-3, 30e-3, 7),
            throw=False,
        )
        return jnp.sum(found.voltages[name] ** 2), found.spikes

    both = jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True))
    text = both.lower(net.parameters, time).as_text()
    return both(net.parameters, time), text


READOUTS = {
    "cubali": lambda: build.cubali(tau_mem="10ms", tau_syn="5ms"),
    "li": lambda: build.li(tau="10ms"),
}


@pytest.mark.parametrize("kind", READOUTS)
def test_a_network_with_a_readout_is_native(kind, x64):
    net = with_readout(READOUTS[kind]())
    expected, _ = loss_and_text(net, backend="xla")
    found, text = loss_and_text(net, backend="native")
    assert "jaxsnn_layer_backward" in text
    assert "jaxsnn_readout_backward" in text
    assert sum(int(spikes.count.sum()) for spikes in expected[0][1].values()) > 4
    for ours, theirs in zip(*map(jax.tree.leaves, (found, expected)), strict=True):
        finite = np.where(np.isfinite(theirs), np.abs(theirs), 0.0)
        np.testing.assert_allclose(ours, theirs, atol=1e-9 * (finite.max() + 1e-12))
