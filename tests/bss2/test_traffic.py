"""What buses and links carry at some activity, counted by hand."""

import numpy as np
import pytest

from jaxsnn.bss2.search.portfolio import place_and_route
from jaxsnn.bss2.traffic import answered, between_chips, seconds_per_sample, traffic
from jaxsnn.bss2.usage import events_per_spike
from tests.bss2.recipes import dense_net, layer_by_layer_mapping

SPEEDUP, T_END = 1000.0, 5e-3


def once(net, time=1.5e-3):
    """Every neuron and channel spikes once, in the second microsecond of the chip."""
    return {part.name: np.full((2, part.size, 1), time) for part in net.populations}


def test_one_spike_each_is_what_the_usage_says():
    net = dense_net(20, 12, 5)
    mapping = place_and_route(net).mapping
    (load,) = traffic(mapping, once(net), T_END, SPEEDUP)
    expected = events_per_spike(mapping.runs[0], mapping.chip)
    assert {name: load.events[name] for name in expected} == pytest.approx(expected)
    assert {name: load.peak[name] for name in expected} == expected
    assert load.events["all from the host"] == 20
    assert load.limit == 125
    assert load.replayed == 0
    assert load.peak[load.busiest] == max(load.peak.values())


def test_spikes_at_other_times_do_not_meet():
    net = dense_net(20, 12, 5)
    mapping = place_and_route(net).mapping
    spikes = once(net)
    spikes["in"] = np.linspace(0, 4.9e-3, 20)[None, :, None].repeat(2, axis=0)
    spikes["layer1"][0] = np.inf  # no spikes in one of two samples
    (load,) = traffic(mapping, spikes, T_END, SPEEDUP)
    assert load.peak["all from the host"] == 4  # 20 spikes in 5 windows
    assert load.events["all from the host"] == 20
    to_host = sum(load.events[f"link {link} to the host"] for link in range(4))
    assert to_host == 5 + 12 / 2


def test_later_runs_carry_what_is_replayed():
    net = dense_net(6, 4, 3)
    mapping = layer_by_layer_mapping(net)
    first, second = traffic(mapping, once(net), T_END, SPEEDUP)
    assert (first.replayed, second.replayed) == (0, 4)
    assert second.events["all from the host"] == 4
    assert seconds_per_sample(2, T_END, SPEEDUP, 10e-6) == pytest.approx(2 * (5e-6 + 100e-6))
    assert between_chips(mapping) == {(0, 1): 4}


def test_the_answer_comes_with_the_first_output_spike():
    times = np.full((3, 2, 2), np.inf)
    times[0, 1, 0], times[1, :, 0] = 2e-3, [5e-3, 4e-3]  # no spikes in the third sample
    assert answered(times, SPEEDUP) == pytest.approx(3e-6)
    assert np.isnan(answered(times[2:], SPEEDUP))
