"""After a long wait V and I are zero in floating point: what lies before that is still found,
however late the end.
"""

from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest

from jaxsnn import EventDriven, Events, lower, simulate
from jaxsnn.network.network import Network
from jaxsnn.nir import build
from tests.helpers.thinning import thinned

ENDS = (0.06, 0.15, 0.3, 2.0, 20.0)  # seconds; time constants are some milliseconds
ONE_SPIKE = Events(time=jnp.array([1e-3]), index=jnp.array([0]))


def network_of(neurons, *more, weight=4.0):
    return lower(
        build.sequential(
            build.input(1), build.linear(1, weight=np.array([[weight]])), neurons, *more
        )
    )


def boxed(network):
    populations = {
        name: replace(population, spike_kernel="box", dt=5e-4, obstacles=())
        for name, population in network.populations.items()
    }
    return Network(parameters=network.parameters, wires=network.wires, populations=populations)


@pytest.mark.parametrize(
    ("taus", "kernel"),
    thinned(2, [(2, 1), (1, 2), (1, 1), (1, 1.3), (5, 1), (1, 7)], ["delta", "box"]),
)
def test_no_spike_is_lost(taus, kernel):
    tau_mem, tau_syn = taus
    network = network_of(
        build.cubalif(tau_mem=tau_mem * 1e-3, tau_syn=tau_syn * 1e-3, v_threshold=0.2)
    )
    network = boxed(network) if kernel == "box" else network
    for variant in (network, network.with_free_time_constants()):
        counts = [
            int(
                simulate(variant, ONE_SPIKE, end, engine=EventDriven(max_spikes=200))
                .spikes["2"]
                .count.sum()
            )
            for end in ENDS
        ]
        assert counts[0] > 0
        assert counts == counts[:1] * len(ENDS)


def test_no_maximum_is_lost():
    network = network_of(build.cubali(tau_mem=2e-3, tau_syn=1e-3))
    highest = [float(simulate(network, ONE_SPIKE, end).maximum("2")[0, 0]) for end in ENDS]
    np.testing.assert_allclose(highest, 1.0, rtol=1e-5)


@pytest.mark.parametrize(
    ("taus", "kernel"),
    [
        *thinned(2, [(1.3, 1), (1, 2)], ["delta", "box"]),
        *(
            pytest.param(taus, kernel, marks=pytest.mark.slow)
            for taus in ((2, 1), (3, 1))
            for kernel in ("delta", "box")
        ),
    ],
)
def test_no_spike_and_no_maximum_is_made_up(taus, kernel):
    """V far below rest, and a current that would make a neuron fire but has gone before V is back."""
    tau_mem, tau_syn = taus
    weight = np.array([[-8.0, 2.0]])
    values = {"tau_mem": tau_mem * 1e-3, "tau_syn": tau_syn * 1e-3}
    events = Events(time=jnp.array([0.0, 2e-3]), index=jnp.array([0, 1]))
    for kind in (build.cubalif(v_threshold=0.2, **values), build.cubali(**values)):
        network = lower(build.sequential(build.input(2), build.linear(1, weight=weight), kind))
        network = boxed(network) if kernel == "box" else network
        for variant in (network, network.with_free_time_constants()):
            solutions = [
                simulate(variant, events, end, engine=EventDriven(max_spikes=200)) for end in ENDS
            ]
            if "2" in solutions[0].spikes:
                counts = [int(solution.spikes["2"].count.sum()) for solution in solutions]
                assert counts == counts[:1] * len(ENDS)
            highest = [float(solution.maximum("2")[0, 0]) for solution in solutions]
            np.testing.assert_allclose(highest, highest[0], rtol=1e-5, atol=1e-9)
