"""Graphs that are converted, and what tells that a conversion did not change them."""

from typing import Any

import numpy as np

from jaxsnn import TimeStepped, lower, simulate
from jaxsnn.nir import build
from tests.helpers.lif_chains import two_layers

#: Resets of snnTorch's Leaky and Synaptic.
SUBTRACTS: dict[str, Any] = {"dialect": "snntorch", "reset": "subtract", "reset_delay": True}
TO_ZERO: dict[str, Any] = {"dialect": "snntorch", "reset": "zero", "reset_delay": False}
#: Norse with steps of 1 ms, and Sinabs.
NORSE: dict[str, Any] = {"dialect": "norse", "dt": "1ms", "dt_export": 1.0}
SINABS: dict[str, Any] = {"dialect": "sinabs", "dt": "1ms", "norm_input": False}
FLAT = build.node("Flatten", start_dim=0, end_dim=-1)


def played(graph, x):
    """Return what a graph gives for x in time steps, in float32."""
    return np.asarray(simulate(lower(graph, dtype=np.float32), x, engine=TimeStepped()).output())


def assert_same(graph, conversion, x, *, shift=0, low=0.02, high=0.9):
    """Fail unless the conversion gives what an active source gives, so many steps later."""
    y, converted = played(graph, x), played(conversion.graph, x)
    y, converted = y.reshape(*y.shape[:2], -1), converted.reshape(*converted.shape[:2], -1)
    assert low < y.mean() < high
    np.testing.assert_array_equal(converted[shift:], y[: len(y) - shift])


def network(framework, reset="zero"):
    """Two layers of 8 and 4 neurons behind 5 inputs, as a framework writes them."""
    return two_layers(framework, reset, inputs=5, sizes=(8, 4), seed=1)


def leaky(tau: Any = 1e-3, r: Any = 10.0):
    """snnTorch's Leaky of beta 0.9 in steps of 0.1 ms."""
    return build.lif(tau=tau, r=r)


def image(*layers, seed=2, **options):
    """A network of 2 channels of 8 x 8 in the dialect of snnTorch."""
    return build.sequential(build.input((2, 8, 8)), *layers, seed=seed, **(SUBTRACTS | options))


def convolution(seed, outputs, inputs, size=3, bias=0.0, **options):
    """A Conv2d with random weights, by default of 3 x 3 with a padding of 1."""
    settings = {"stride": [1, 1], "padding": [1, 1], "dilation": [1, 1], "groups": 1} | options
    weight = np.random.default_rng(seed).normal(0.1, 0.4, (outputs, inputs, size, size))
    bias = np.full(outputs, bias, np.float32)
    return build.node("Conv2d", weight=weight.astype(np.float32), bias=bias, **settings)
