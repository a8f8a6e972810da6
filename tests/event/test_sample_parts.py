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
from tests.event.agreement import assert_trees_close, finite_times
from tests.event.layer_cases import layer_case
from tests.helpers.transformed import CUBA, T_END


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("samples", [5, 4, 1])
def test_samples_in_parts_give_the_spikes_and_gradients_of_all_at_once(samples, monkeypatch):
    _, (weight, lanes, time, row, t_end), spike_weights = layer_case(positions=3, neurons=4)
    time, row = time[: 3 * samples], row[: 3 * samples]
    spec, batches = LayerSpec(neuron=CubaLIFDelta(), max_spikes=8), []

    def run(*arguments):
        batches.append(len(arguments[2]))
        return layer_spikes(spec, *arguments)

    def loss(run, *variables):
        spikes = run(*variables, row, t_end)
        return jnp.sum(finite_times(spikes.time) * spike_weights[: 3 * samples]), spikes

    both = jax.jit(jax.value_and_grad(loss, (1, 2, 3), has_aux=True), static_argnums=0)
    expected = both(run, weight, lanes, time)
    monkeypatch.setattr(sample_parts, "_TOGETHER", 2 * 3 * 4)  # two samples, if that divides them
    result = both(in_parts(run, positions=3), weight, lanes, time)
    assert batches[-1] == (3 if samples == 1 else 6)
    assert int(expected[0][1].count.sum()) > 10 * samples
    assert_trees_close(result, expected, rtol=1e-12, atol=1e-12)


def test_a_gradient_by_times_alone_goes_back_through_parts_of_a_batch(monkeypatch):
    """Slopes at spikes are left out of it, which `lax.scan` cannot be told by a zero of all parts."""
    rng, options = np.random.default_rng(2), {"stride": 1, "dilation": 1, "groups": 1, "padding": 0}
    kernel = build.node(
        "Conv2d", weight=rng.normal(2.0, 0.5, (3, 1, 2, 2)), bias=np.zeros(3), **options
    )
    network = lower(build.sequential(build.input((1, 2, 3)), kernel, build.cubalif(**CUBA)))
    time = jnp.asarray(np.sort(rng.uniform(0, T_END / 2, (2, 20)), axis=1), jnp.float32)
    events = Events(time=time, index=jnp.asarray(rng.integers(0, 6, time.shape), jnp.int32))

    own_weight = network.parameters["1"]["weight"]

    def total(weight, slots):
        engine = EventDriven(max_spikes=slots, backend="xla")
        parameters = {**network.parameters, "1": {**network.parameters["1"], "weight": weight}}
        changed = network.with_parameters(parameters)
        times = simulate(changed, events, T_END, engine=engine).spikes["2"].time
        return jnp.sum(finite_times(times)) / T_END

    expected = jax.grad(total)(own_weight, 20)
    monkeypatch.setattr(sample_parts, "_TOGETHER", 6)  # one sample
    gradient = jax.grad(total)(own_weight, 21)  # another budget: another program
    assert np.abs(expected).max() > 0.1
    np.testing.assert_allclose(gradient, expected, rtol=1e-4)
