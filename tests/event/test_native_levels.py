"""Where nobody asks for gradients by time constants the native backend does not compute them, and those by
weights, biases, thresholds and states at the start are the same.
"""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsnn import EventDriven, Events, lower, simulate
from jaxsnn.nir import build
from tests.event.agreement import assert_trees_close

pytestmark = pytest.mark.usefixtures("native_kernels")

TAUS = ("tau_mem", "tau_syn")
RNG = np.random.default_rng(0)


def every_kernel():
    """A convolution, a layer, a recurrent group and a readout, with biases."""

    def neurons():
        return build.cubalif(tau_mem="10ms", tau_syn="4ms")

    nodes = {
        "input": build.input((1, 4, 4)),
        "conv": build.node(
            "Conv2d",
            input_shape=(4, 4),
            weight=RNG.normal(1.5, 0.5, (2, 1, 3, 3)),
            bias=np.array([0.1, -0.2]),
            stride=(1, 1),
            padding=(0, 0),
            dilation=(1, 1),
            groups=1,
        ),
        "a": neurons(),
        "flat": build.node("Flatten", start_dim=0, end_dim=-1, input_type=(2, 2, 2)),
        "to b": build.affine(weight=RNG.normal(1.0, 0.8, (5, 8)), bias=RNG.normal(0, 0.2, 5)),
        "b": neurons(),
        "to c": build.affine(weight=RNG.normal(1.0, 0.8, (4, 5)), bias=RNG.normal(0, 0.2, 4)),
        "c": neurons(),
        "back": build.linear(weight=RNG.normal(0, 0.3, (4, 4))),
        "to d": build.affine(weight=RNG.normal(1.0, 0.8, (3, 4)), bias=RNG.normal(0, 0.2, 3)),
        "d": build.cubali(tau_mem="10ms", tau_syn="4ms"),
        "output": build.output(),
    }
    chain = "input", "conv", "a", "flat", "to b", "b", "to c", "c", "to d", "d", "output"
    return lower(build.network(nodes, [chain, ("c", "back", "c")]))


def test_gradients_by_levels_do_not_depend_on_those_by_time_constants(x64):
    net = every_kernel()
    time = jnp.sort(jnp.asarray(RNG.uniform(0, 20e-3, (3, 24))))
    events = Events(time=time, index=jnp.asarray(RNG.integers(0, 16, (3, 24)), jnp.int32))
    taus, levels = (
        {
            node: {name: value for name, value in values.items() if (name in TAUS) is of_taus}
            for node, values in net.parameters.items()
        }
        for of_taus in (True, False)
    )

    def loss(levels, taus):
        parameters = {node: {**levels[node], **taus[node]} for node in net.parameters}
        solution = simulate(
            net.with_parameters(parameters),
            events,
            30e-3,
            engine=EventDriven(backend="native", max_spikes=8),
            sample_times=np.linspace(1e-3, 30e-3, 7),
            throw=False,
        )
        return jnp.sum(solution.voltages["d"] ** 2), solution.spikes

    of_levels = jax.jit(jax.value_and_grad(loss, has_aux=True)).lower(levels, taus)
    of_all = jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True)).lower(levels, taus)
    for lowered, fields in ((of_levels, "4"), (of_all, "6")):
        # Results of a backward pass: gradients by weight, by lanes, by time.
        results = re.findall(r"@jaxsnn_\w+_backward.*-> \((.*)\)", lowered.as_text())
        assert len(results) == 4
        assert [re.findall(r"tensor<(\d+)x", result)[1] for result in results] == [fields] * 4
    (_, spikes), gradient = of_levels.compile()(levels, taus)
    _, (expected, by_taus) = of_all.compile()(levels, taus)
    assert all(int(values.count.sum()) > 10 for values in spikes.values())
    assert all(jnp.abs(value).max() > 0 for values in by_taus.values() for value in values.values())
    assert_trees_close(gradient, expected, atol=1e-12)
