"""Comparison of spikes and of trees of arrays, such as gradients."""

import jax
import jax.numpy as jnp
import numpy as np


def finite_times(times):
    """Spike times with 0 in unused slots, from which no gradient comes."""
    return jnp.where(jnp.isfinite(times), times, 0.0)


def sorted_finite(times):
    """All used times in order, as a flat array."""
    times = np.sort(np.asarray(times), axis=None)
    return times[np.isfinite(times)]


def padded(samples):
    """Spike times of samples and neurons as an array (samples, neurons, slots), padded with inf."""
    slots = 1 + max(len(times) for neurons in samples for times in neurons)
    array = np.full((len(samples), len(samples[0]), slots), np.inf)
    for place in np.ndindex(array.shape[:2]):
        times = samples[place[0]][place[1]]
        array[place][: len(times)] = times
    return array


def assert_same_spikes(spikes, expected, accuracy=1e-9):
    """Compare spikes with expected times; slots that only one of both has must be unused.

    Args:
        spikes: LayerSpikes, or an array of times.
        expected: an array of times, inf where unused.
    """
    times, expected = np.asarray(getattr(spikes, "time", spikes)), np.asarray(expected)
    if hasattr(spikes, "count"):  # including spikes that were cut off
        np.testing.assert_array_equal(spikes.count, np.isfinite(expected).sum(-1))
    slots = min(times.shape[-1], expected.shape[-1])
    if not hasattr(spikes, "count"):
        assert not np.isfinite(times[..., slots:]).any()
        assert not np.isfinite(expected[..., slots:]).any()
    np.testing.assert_allclose(times[..., :slots], expected[..., :slots], rtol=0, atol=accuracy)


def assert_trees_equal(actual, expected):
    """Compare all arrays of two trees bit for bit."""
    for array, reference in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        np.testing.assert_array_equal(array, reference)


def assert_trees_close(actual, expected, *, atol=0.0, rtol=1e-7, relative_to=0.0, absolute=0.0):
    """Compare all arrays of two trees.

    Args:
        atol: absolute tolerance in units of the largest finite magnitude of each expected array.
        rtol: relative tolerance of each number.
        relative_to: least magnitude that `atol` refers to.
        absolute: absolute tolerance, added to the other.
    """
    for array, reference in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        reference = np.asarray(reference)
        largest = np.abs(np.where(np.isfinite(reference), reference, 0.0)).max(initial=relative_to)
        tolerance = atol * float(largest) + absolute
        np.testing.assert_allclose(array, reference, rtol=rtol, atol=tolerance)
