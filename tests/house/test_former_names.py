"""Names of before still work, and say what they are called now."""

import warnings

import numpy as np
import pytest

import jaxsnn
from jaxsnn import EventDriven, Events, simulate
from jaxsnn.nir import build

FORMER = {
    "Event": "EventDriven",
    "Grid": "TimeStepped",
    "GridSolution": "SteppedSolution",
    "map_net": "place_and_route",
    "raise_": "update_graph",
}


@pytest.mark.parametrize(("old", "new"), FORMER.items())
def test_a_former_name_is_the_new_one(old, new):
    with pytest.warns(DeprecationWarning, match=rf"jaxsnn\.{old} is now jaxsnn\.{new}$"):
        found = getattr(jaxsnn, old)
    assert found is getattr(jaxsnn, new)
    assert old not in dir(jaxsnn)


def test_a_budget_of_simulate_is_one_of_the_engine():
    """A neuron that fires often under a strong input."""
    weight = np.array([[3.0]])
    neurons = build.cubalif(tau_mem=0.02, tau_syn=0.01)
    graph = build.sequential(build.input(1), build.linear(weight=weight), neurons)
    events = Events(time=np.arange(80)[None] * 1e-3, index=np.zeros((1, 80), int))
    message = r"simulate\(max_events=...\) is now engine=EventDriven\(max_events='auto'\)"
    with pytest.warns(DeprecationWarning, match=message):
        found = simulate(graph, events, 0.1, max_events="auto")
    count = int(found.spikes["2"].count[0, 0])
    assert count > 16
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again = simulate(graph, events, 0.1, engine=EventDriven(max_spikes="auto"))
    assert int(again.spikes["2"].count[0, 0]) == count
