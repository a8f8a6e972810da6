"""Events: order, padding, gradients through sorting, rasters."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsnn.network.spikes import dense_to_events, flatten_spikes, sort_events


def test_equal_times_come_in_the_order_of_the_neurons():
    times = jnp.array([[[2.0, 3.0], [1.0, 3.0], [1.0, jnp.inf]]])  # one sample, three neurons
    events = flatten_spikes(times)
    np.testing.assert_array_equal(events.time[0], [1, 1, 2, 3, 3, np.inf])
    np.testing.assert_array_equal(events.index[0], [1, 2, 0, 0, 1, 3])
    assert events.count == 5


def test_gradients_pass_through_sorting():
    weights = jnp.array([1.0, 10.0, 100.0])
    gradient = jax.grad(lambda time: jnp.sum(sort_events(time, jnp.arange(3))[0] * weights))(
        jnp.array([3.0, 1.0, 2.0])
    )
    np.testing.assert_array_equal(gradient, [100.0, 1.0, 10.0])


def test_a_raster_becomes_events_and_counts_repeat():
    raster = np.zeros((4, 2, 3))
    raster[1, 0, 2] = 1
    raster[3, 0, 0] = 2
    raster[0, 1, 1] = 1
    events = dense_to_events(raster, 0.5)
    np.testing.assert_array_equal(events.time, [[0.5, 1.5, 1.5], [0.0, np.inf, np.inf]])
    np.testing.assert_array_equal(events.index, [[2, 0, 0], [1, 3, 3]])


@pytest.mark.parametrize("value", [0.5, -1])
def test_a_raster_of_something_else_is_refused(value):
    with pytest.raises(ValueError, match="integers of at least 0"):
        dense_to_events(np.full((2, 1, 1), value), 1.0)
