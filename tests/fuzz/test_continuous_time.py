"""What the plain reference in continuous time decides at ties, and what it writes down of them.

Its spikes are those of the event engine: `test_event_engine`.
"""

import math
from typing import Any

import numpy as np
import pytest

from tests.oracles import continuous_time
from tests.oracles.continuous_time import EndlessError, Neuron, Neurons, Synapses, simulate


def arrays(**numbers):
    return {key: np.atleast_1d(np.asarray(value, float)) for key, value in numbers.items()}


def population(kind, size=1, *, area=None, **options: Any):
    """Neurons with a threshold of 1, and the parameters of NIR among the options."""
    nir_keys = ("tau_mem", "tau_syn", "tau", "r", "w_in", "v_leak", "v_threshold", "v_reset")
    nir_values = {"r": 1.0, "v_threshold": 1.0, "v_reset": 0.0}
    if kind.startswith("Cuba"):
        nir_values |= {"tau_mem": 1.0, "tau_syn": 1.0, "w_in": 1.0, "v_leak": 0.0}
    elif "L" in kind:
        nir_values |= {"tau": 1.0, "v_leak": 0.0}
    nir_values |= {key: options.pop(key) for key in nir_keys if key in options}
    parameters = {
        key: np.broadcast_to(value, (size,)) for key, value in arrays(**nir_values).items()
    }
    return Neurons(kind=kind, parameters=parameters, area=area, **options)


def fed(neurons, events, t_end=10.0, weight=((1.0,),), sample_times=(), **options):
    """One population that an input feeds."""
    synapses = [Synapses(source="in", target="n", weight=np.asarray(weight, float))]
    return simulate({"n": neurons}, synapses, {"in": events}, t_end, sample_times, **options)


def times(outcome, neuron=0, name="n"):
    return outcome.spikes[name][neuron]


def test_a_tangent_is_decided_to_the_last_digits_and_written_down():
    """With equal time constants V has its peak w / e at t = 1."""
    for excess, spikes in ((1e-12, 1), (-1e-12, 0), (1e-3, 1), (-1e-3, 0)):
        outcome = fed(population("CubaLIF"), [(0.5, 0)], weight=[[math.e * (1 + excess)]])
        assert len(times(outcome)) == spikes
        assert [close.kind for close in outcome.close] == ["tangent"] * (abs(excess) < 1e-9)
        if outcome.close:
            assert abs(outcome.close[0].time - 1.5) < 1e-12


def test_an_integrator_meets_its_threshold_with_whole_numbers():
    events = [(1.0, 0), (2.0, 0), (3.0, 0)]
    for inclusive, expected_times in ((False, [3.0]), (True, [2.0])):
        neurons = population("IF", v_threshold=2.0, inclusive=inclusive)
        assert times(fed(neurons, events)) == expected_times


def test_subtraction_keeps_the_overshoot_and_fires_as_often_as_it_fits():
    for inclusive in (False, True):
        neurons = population("IF", v_threshold=2.0, subtract=True, inclusive=inclusive)
        spike_times = times(fed(neurons, [(1.0, 0), (2.0, 1)], weight=[[5.1, 1.0]]))
        assert spike_times == [1.0, 1.0, 2.0]
    for inclusive, expected_times in ((False, [1.0]), (True, [1.0, 1.0])):
        neurons = population("IF", v_threshold=2.0, subtract=True, inclusive=inclusive)
        assert times(fed(neurons, [(1.0, 0)], weight=[[4.0]])) == expected_times
        assert times(fed(neurons, [(1.0, 0), (1.5, 0)], 1.4, weight=[[4.0]])) == expected_times


def test_what_arrives_at_one_time_is_summed_before_any_neuron_fires():
    neurons = population("LIF", v_threshold=1.0)
    both = [(1.0, 0), (1.0, 1)]
    for weight, spikes in (
        ([[1.5, -1.0]], 0),
        ([[-1.0, 1.5]], 0),
        ([[0.6, 0.6]], 1),
        ([[3, 3]], 1),
    ):
        outcome = fed(neurons, both, weight=weight)
        assert len(times(outcome)) == spikes
        assert outcome.summed == [1.0]
    outcome = fed(neurons, both, weight=[[0.6, 0.6]], sample_times=[1.0 + 1e-9])
    assert abs(outcome.samples["n"][0, 0]) < 1e-8  # no effect of the second arrival remains


def test_a_spike_without_a_delay_acts_in_the_next_round():
    """Both fire at first; each would keep the other silent if it came before."""
    neurons = population("IF", 2)
    synapses = [
        Synapses(source="in", target="n", weight=np.array([[2.0], [2.0]])),
        Synapses(source="n", target="n", weight=np.array([[0.0, -5.0], [-5.0, 0.0]])),
    ]
    outcome = simulate({"n": neurons}, synapses, {"in": [(1.0, 0), (2.0, 0)]}, 5.0)
    assert outcome.spikes["n"] == [[1.0], [1.0]]


def test_a_loop_that_feeds_itself_without_end_is_refused():
    neurons = population("IF")
    synapses = [Synapses(source=name, target="n", weight=np.array([[2.0]])) for name in ("in", "n")]
    with pytest.raises(EndlessError, match=r"rounds at 1\.0 s"):
        simulate({"n": neurons}, synapses, {"in": [(1.0, 0)]}, 5.0)
    outcome = simulate({"n": neurons}, synapses, {"in": [(1.0, 0)]}, 5.0, most_spikes=10)
    assert (len(outcome.spikes["n"][0]), outcome.stopped) == (10, 1.0)


def test_in_a_refractory_time_arrivals_are_lost_and_currents_go_on():
    events = [(1.0, 0), (1.2, 0), (1.5, 0), (1.8, 0), (1.9, 0)]
    integrators = population("IF", refractory=0.5, v_threshold=1.5)
    assert times(fed(integrators, events, weight=[[1.0]])) == [1.2, 1.9]  # that at 1.5 is lost
    long = population("CubaLIF", refractory=1.0, tau_syn=1.3)
    outcome = fed(long, [(0.0, 0)], weight=[[9.0]])
    first, current = times(outcome)[0], 9.0 * math.exp(-(times(outcome)[0] + 1.0) / 1.3)
    neuron = Neuron(
        name="", leaks=True, has_current=True, fires=True, tau_mem=1.0, tau_syn=1.3,
        r=1.0, w_in=1.0, v_leak=0.0, v_threshold=1.0, v_reset=0.0,
    )  # fmt: skip
    wait, _ = neuron.wait(0.0, current, 5.0)
    np.testing.assert_allclose(times(outcome)[1], first + 1.0 + wait, rtol=1e-13)


def test_events_at_nearly_one_time_are_written_down():
    outcome = fed(population("IF"), [(1.0, 0), (1.0 + 1e-13, 0)])
    assert [close.kind for close in outcome.close] == ["together"]
    assert continuous_time.TOGETHER > 1e-13


@pytest.mark.parametrize("kind", ["LIF", "CubaLIF"])
@pytest.mark.parametrize("arrives", [False, True])
def test_v_above_its_threshold_at_0_fires_there_unless_what_arrives_takes_it_down(kind, arrives):
    neurons = population(kind, v_threshold=-0.5, v_reset=-1.0)
    events = [(0.0, 0)] if arrives else []
    spike_times = times(fed(neurons, events, 0.5, weight=((-2.0,),)))
    assert spike_times == ([] if arrives and kind == "LIF" else [0.0])


@pytest.mark.parametrize("event", [1.0 - 1e-15, 2.0])
def test_what_happens_at_nearly_the_end_is_written_down(event):
    neurons = population("IF", bias=np.array([1.0 + 1e-15]) if event > 1 else 0.0)
    assert [close_call.kind for close_call in fed(neurons, [(event, 0)], 1.0).close].count(
        "end"
    ) == 1
    assert not fed(neurons, [(event, 0)], 0.9).close
