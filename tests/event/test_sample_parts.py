"""Samples that are simulated part by part, against all of them at once."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsnn.event.adjoint.layer_adjoint import layer_spikes
from jaxsnn.event.dynamics.cubalif import CubaLIFDelta
from jaxsnn.event.forward import sample_parts
from jaxsnn.event.forward.layer import LayerSpec
from jaxsnn.event.forward.sample_parts import in_parts
from tests.event.test_native import work


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
