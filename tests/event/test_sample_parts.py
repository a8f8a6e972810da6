"""Samples that are simulated part by part, against all of them at once."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsnn import EventDriven, Events, lower, simulate
from jaxsnn.event.adjoint.layer_adjoint import layer_spikes
from jaxsnn.event.dynamics.cubalif import CubaLIFDelta
from jaxsnn.event.forward import sample_parts
from jaxsnn.event.forward.layer import LayerSpec
from jaxsnn.event.forward.sample_parts import in_parts
from jaxsnn.nir import build
from tests.event.test_native import work
from tests.helpers.transformed import CUBA, T_END


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("samples", [5, 4, 1])
def test_parts_of_a_batch_are_the_whole(samples, monkeypatch):
    _, (weight, lanes, time, row, t_end), weights = work(ratio=2, positions=3, neurons=4)
    time, row = time[: 3 * samples], row[: 3 * samples]
    spec = LayerSpec(neuron=CubaLIFDelta(), max_spikes=8)
    calls = []

    def way(*given):
        calls.append(given[2].shape)
        return layer_spikes(spec, *given)

    def total(by_parts, weight, lanes, time):
        spikes = by_parts(weight, lanes, time, row, t_end)
        fired = jnp.isfinite(spikes.time)
        return jnp.sum(jnp.where(fired, spikes.time * weights[: 3 * samples], 0.0)), spikes

    def outcome(by_parts):
        found = jax.value_and_grad(total, (1, 2, 3), has_aux=True)
        return jax.jit(found, static_argnums=0)(by_parts, weight, lanes, time)

    expected = outcome(way)
    monkeypatch.setattr(sample_parts, "_TOGETHER", 2 * 3 * 4)  # two samples, if that divides them
    found = outcome(in_parts(way, positions=3))
    assert calls[-1][0] == (3 if samples == 1 else 6)
    assert int(expected[0][1].count.sum()) > 10 * samples
    for mine, theirs in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        size = np.abs(np.where(np.isfinite(theirs), theirs, 0)).max()
        np.testing.assert_allclose(mine, theirs, rtol=1e-12, atol=1e-12 * size)


def test_a_gradient_by_times_alone_goes_back_through_parts_of_a_batch(monkeypatch):
    """Slopes at spikes are left out of it, which `lax.scan` cannot be told by a zero of all parts."""
    rng, options = np.random.default_rng(2), {"stride": 1, "dilation": 1, "groups": 1, "padding": 0}
    kernel = build.node(
        "Conv2d", weight=rng.normal(2.0, 0.5, (3, 1, 2, 2)), bias=np.zeros(3), **options
    )
    network = lower(build.sequential(build.input((1, 2, 3)), kernel, build.cubalif(**CUBA)))
    time = jnp.asarray(np.sort(rng.uniform(0, T_END / 2, (2, 20)), axis=1), jnp.float32)
    events = Events(time=time, index=jnp.asarray(rng.integers(0, 6, time.shape), jnp.int32))

    def total(weight, slots):
        engine = EventDriven(max_spikes=slots, backend="xla")
        parameters = {**network.parameters, "1": {**network.parameters["1"], "weight": weight}}
        own = simulate(network.with_parameters(parameters), events, T_END, engine=engine)
        times = own.spikes["2"].time
        return jnp.sum(jnp.where(jnp.isfinite(times), times, 0.0)) / T_END

    expected = jax.grad(total)(network.parameters["1"]["weight"], 20)
    monkeypatch.setattr(sample_parts, "_TOGETHER", 6)  # one sample
    found = jax.grad(total)(network.parameters["1"]["weight"], 21)  # another program
    assert np.abs(expected).max() > 0.1
    np.testing.assert_allclose(found, expected, rtol=1e-4)
