"""The plain reference in continuous time, against closed forms."""

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
    known = ("tau_mem", "tau_syn", "tau", "r", "w_in", "v_leak", "v_threshold", "v_reset")
    given = {"r": 1.0, "v_threshold": 1.0, "v_reset": 0.0}
    if kind.startswith("Cuba"):
        given |= {"tau_mem": 1.0, "tau_syn": 1.0, "w_in": 1.0, "v_leak": 0.0}
    elif "L" in kind:
        given |= {"tau": 1.0, "v_leak": 0.0}
    given |= {key: options.pop(key) for key in known if key in options}
    parameters = {key: np.broadcast_to(value, (size,)) for key, value in arrays(**given).items()}
    return Neurons(kind=kind, parameters=parameters, area=area, **options)


def fed(neurons, events, t_end=10.0, weight=((1.0,),), sample_times=(), **options):
    """One population that an input feeds."""
    synapses = [Synapses(source="in", target="n", weight=np.asarray(weight, float))]
    return simulate({"n": neurons}, synapses, {"in": events}, t_end, sample_times, **options)


def times(outcome, neuron=0, name="n"):
    return outcome.spikes[name][neuron]


# ---- by its own flow


def test_a_leaky_neuron_under_a_bias_is_periodic():
    found = times(fed(population("LIF", tau=0.7, bias=np.array([1.5]), v_reset=-0.2), []))
    first, period = 0.7 * math.log(1.5 / 0.5), 0.7 * math.log(1.7 / 0.5)
    assert len(found) == 1 + int((10 - first) / period)
    np.testing.assert_allclose(found, first + period * np.arange(len(found)), rtol=1e-13)


def test_an_integrator_under_a_bias_counts():
    found = times(fed(population("IF", r=2.0, bias=np.array([0.25])), []))
    np.testing.assert_allclose(found, [2.0, 4.0, 6.0, 8.0, 10.0])


@pytest.mark.parametrize("tau_syn", [0.5, 1.0, 2.0, 1 + 1e-12, 1 - 1e-5, 0.9])
def test_the_flow_follows_the_equation(tau_syn):
    neuron = one(tau_syn=tau_syn, drive=0.3)
    v, i, step = 0.4, 2.0, 1e-4
    for _ in range(20000):  # Heun's method
        a, b = rates(neuron, v, i)
        c, d = rates(neuron, v + step * a, i + step * b)
        v, i = v + step * (a + c) / 2, i + step * (b + d) / 2
    np.testing.assert_allclose(neuron.flowed(0.4, 2.0, 2.0), (v, i), rtol=1e-8)


def one(**changes):
    given = {"r": 1.3, "w_in": 0.8, "v_leak": 0.1, "v_threshold": 1.0, "v_reset": 0.0}
    given |= {"tau_mem": 1.0, "tau_syn": 0.5} | changes
    return Neuron(name="n", leaks=True, has_current=True, fires=True, **given)  # pyright: ignore[reportArgumentType]


def rates(neuron, v, i):
    rise = (-i + neuron.w_in * neuron.drive) / neuron.tau_syn
    return (neuron.v_leak - v + neuron.r * i) / neuron.tau_mem, rise


def test_the_extremum_is_where_the_slope_is_zero():
    rng, found = np.random.default_rng(0), 0
    for _ in range(300):
        ratio = rng.choice([0.5, 1.0, 2.0, 1 + 1e-12, 1 - 1e-7, rng.uniform(0.2, 5)])
        neuron = one(tau_syn=rng.uniform(0.5, 1.5), drive=rng.normal(0, 0.3))
        neuron.tau_mem = neuron.tau_syn * ratio
        v, i = rng.normal(0, 1, 2)
        turn = neuron.turning(v, i)
        slopes = [neuron.slope(*neuron.flowed(v, i, t)) for t in np.linspace(0, 8, 400)]
        changes = np.sign(slopes[0]) != np.sign(slopes[-1])
        assert (turn < 8) == changes
        if changes:
            found += 1
            assert abs(neuron.slope(*neuron.flowed(v, i, turn))) < 1e-12
    assert found > 50


def test_a_tangent_is_decided_to_the_last_digits_and_written_down():
    """With equal time constants V has its peak w / e at t = 1."""
    for excess, spikes in ((1e-12, 1), (-1e-12, 0), (1e-3, 1), (-1e-3, 0)):
        outcome = fed(population("CubaLIF"), [(0.5, 0)], weight=[[math.e * (1 + excess)]])
        assert len(times(outcome)) == spikes
        assert [close.what for close in outcome.close] == ["tangent"] * (abs(excess) < 1e-9)
        if outcome.close:
            assert abs(outcome.close[0].time - 1.5) < 1e-12


def test_a_current_that_decays_half_as_fast_gives_the_root_of_a_quadratic():
    """tau_mem = 2, tau_syn = 1: V = w (x - x^2), x = e^(-t/2), w = 6."""
    found = times(fed(population("CubaLIF", tau_mem=2.0, v_reset=-9.0), [(0.0, 0)], weight=[[6.0]]))
    x = (1 + math.sqrt(1 - 4 / 6)) / 2
    np.testing.assert_allclose(found, [-2 * math.log(x)], rtol=1e-14)


# ---- arrivals


def test_a_delta_spike_jumps_by_its_area():
    for kind, factor in (("LIF", 1.5 * 0.3 / 0.5), ("IF", 1.5 * 0.3)):
        numbers: dict[str, Any] = {"tau": 0.5} if kind == "LIF" else {}
        for weight, spikes in ((1 / factor + 1e-6, 1), (1 / factor - 1e-6, 0)):
            own = population(kind, r=1.5, area=0.3, **numbers)
            assert len(times(fed(own, [(1.0, 0)], weight=[[weight]]))) == spikes


@pytest.mark.parametrize("width", [0.0, 0.4])
@pytest.mark.parametrize(
    ("kind", "numbers", "gain"),
    [
        ("LIF", {"r": 1.5, "tau": 1e6, "v_threshold": 9.0}, 1.5),
        ("CubaLI", {"w_in": 0.6, "tau_syn": 1e6, "tau_mem": 1e-3}, 0.6),
    ],
)
def test_a_spike_whose_area_is_a_time_constant_jumps_by_its_gain(kind, numbers, gain, width):
    own = population(kind, area="tau", width=width, **numbers)
    outcome = fed(own, [(1.0, 0)], weight=[[2.0]], sample_times=[3.0])
    np.testing.assert_allclose(outcome.samples["n"][0, 0], 2.0 * gain, rtol=1e-4)


def test_a_box_lasts_for_its_width_and_leaves_its_area():
    own = population("IF", area=1.0, width=0.4, v_threshold=0.5)
    outcome = fed(own, [(1.0, 0)], weight=[[0.75]], sample_times=[0.9, 1.1, 5.0])
    np.testing.assert_allclose(times(outcome), [1.0 + 0.4 * 0.5 / 0.75])
    np.testing.assert_allclose(outcome.samples["n"][:, 0], [0, 0.75 / 4, 0.25], atol=1e-15)


def test_without_an_area_a_box_moves_v_or_i_by_the_weight():
    for kind in ("LIF", "IF", "CubaLIF"):
        numbers: dict[str, Any] = (
            {"r": 1.7} if kind != "CubaLIF" else {"r": 1.7, "w_in": 0.6, "tau_syn": 1e6}
        )
        numbers |= {"tau": 1e6} if kind == "LIF" else {"tau_mem": 1e-3} if "C" in kind else {}
        own = population(kind, width=0.4, v_threshold=9.0, **numbers)
        outcome = fed(own, [(1.0, 0)], weight=[[2.0]], sample_times=[3.0])
        wanted = 2.0 * (1.7 if kind == "CubaLIF" else 1.0)
        np.testing.assert_allclose(outcome.samples["n"][0, 0], wanted, rtol=1e-4)


def test_an_integrator_meets_its_threshold_with_whole_numbers():
    events = [(1.0, 0), (2.0, 0), (3.0, 0)]
    for inclusive, wanted in ((False, [3.0]), (True, [2.0])):
        own = population("IF", v_threshold=2.0, inclusive=inclusive)
        assert times(fed(own, events)) == wanted


def test_subtraction_keeps_the_overshoot_and_fires_as_often_as_it_fits():
    for inclusive in (False, True):
        own = population("IF", v_threshold=2.0, subtract=True, inclusive=inclusive)
        found = times(fed(own, [(1.0, 0), (2.0, 1)], weight=[[5.1, 1.0]]))
        assert found == [1.0, 1.0, 2.0]
    for inclusive, wanted in ((False, [1.0]), (True, [1.0, 1.0])):
        own = population("IF", v_threshold=2.0, subtract=True, inclusive=inclusive)
        assert times(fed(own, [(1.0, 0)], weight=[[4.0]])) == wanted
        assert times(fed(own, [(1.0, 0), (1.5, 0)], 1.4, weight=[[4.0]])) == wanted


def test_what_arrives_at_one_time_is_summed_before_any_neuron_fires():
    own = population("LIF", v_threshold=1.0)
    both = [(1.0, 0), (1.0, 1)]
    for weight, spikes in (
        ([[1.5, -1.0]], 0),
        ([[-1.0, 1.5]], 0),
        ([[0.6, 0.6]], 1),
        ([[3, 3]], 1),
    ):
        outcome = fed(own, both, weight=weight)
        assert len(times(outcome)) == spikes
        assert outcome.summed == [1.0]
    outcome = fed(own, both, weight=[[0.6, 0.6]], sample_times=[1.0 + 1e-9])
    assert abs(outcome.samples["n"][0, 0]) < 1e-8  # nothing is left of the second


def network_of(order, seed=3):
    """Neurons that meet thresholds exactly, numbered in some order."""
    rng = np.random.default_rng(seed)
    thresholds = rng.choice([1.0, 2.0], 5)
    weight = rng.choice([-1.0, 0, 1, 2], (5, 2))
    back = rng.choice([-1.0, 0, 0, 1], (5, 5)) * (1 - np.eye(5))
    own = population("IF", 5, v_threshold=thresholds[order], subtract=True)
    synapses = [
        Synapses(source="in", target="n", weight=weight[order]),
        Synapses(source="n", target="n", weight=back[order][:, order], delay=0.0),
    ]
    events = [(0.25 * n, int(rng.integers(2))) for n in (1, 1, 2, 3, 3, 4, 5, 6, 6)]
    return simulate({"n": own}, synapses, {"in": events}, 3.0)


def test_the_order_of_neurons_does_not_matter():
    straight = network_of(np.arange(5)).spikes["n"]
    assert sum(map(len, straight)) > 5
    for seed in range(5):
        order = np.random.default_rng(seed).permutation(5)
        assert network_of(order).spikes["n"] == [straight[n] for n in order]


def test_a_spike_without_a_delay_acts_in_the_next_round():
    """Both fire at first; each would keep the other silent if it came before."""
    own = population("IF", 2)
    synapses = [
        Synapses(source="in", target="n", weight=np.array([[2.0], [2.0]])),
        Synapses(source="n", target="n", weight=np.array([[0.0, -5.0], [-5.0, 0.0]])),
    ]
    outcome = simulate({"n": own}, synapses, {"in": [(1.0, 0), (2.0, 0)]}, 5.0)
    assert outcome.spikes["n"] == [[1.0], [1.0]]


def test_a_loop_that_feeds_itself_without_end_is_refused():
    own = population("IF")
    synapses = [Synapses(source=name, target="n", weight=np.array([[2.0]])) for name in ("in", "n")]
    with pytest.raises(EndlessError, match=r"rounds at 1\.0 s"):
        simulate({"n": own}, synapses, {"in": [(1.0, 0)]}, 5.0)
    outcome = simulate({"n": own}, synapses, {"in": [(1.0, 0)]}, 5.0, most_spikes=10)
    assert (len(outcome.spikes["n"][0]), outcome.stopped) == (10, 1.0)


def test_delays_belong_to_synapses():
    own = population("IF", 2)
    synapses = [
        Synapses(
            source="in", target="n", weight=np.full((2, 1), 2.0), delay=np.array([[0.5], [1.25]])
        )
    ]
    outcome = simulate({"n": own}, synapses, {"in": [(1.0, 0)]}, 5.0)
    assert outcome.spikes["n"] == [[1.5], [2.25]]
    assert simulate({"n": own}, synapses, {"in": [(1.0, 0)]}, 2.25).spikes["n"] == [[1.5], []]


def test_in_a_refractory_time_arrivals_are_lost_and_currents_go_on():
    events = [(1.0, 0), (1.2, 0), (1.5, 0), (1.8, 0), (1.9, 0)]
    own = population("IF", refractory=0.5, v_threshold=1.5)
    assert times(fed(own, events, weight=[[1.0]])) == [1.2, 1.9]  # that at 1.5 is lost
    long = population("CubaLIF", refractory=1.0, tau_syn=1.3)
    found = fed(long, [(0.0, 0)], weight=[[9.0]])
    first, current = times(found)[0], 9.0 * math.exp(-(times(found)[0] + 1.0) / 1.3)
    neuron = Neuron(
        name="", leaks=True, has_current=True, fires=True, tau_mem=1.0, tau_syn=1.3,
        r=1.0, w_in=1.0, v_leak=0.0, v_threshold=1.0, v_reset=0.0,
    )  # fmt: skip
    wait, _ = neuron.wait(0.0, current, 5.0)
    np.testing.assert_allclose(times(found)[1], first + 1.0 + wait, rtol=1e-13)


def test_neurons_that_stop_after_one_spike_and_readouts():
    bias = np.array([2.0])
    assert len(times(fed(population("LIF", bias=bias, once=True), []))) == 1
    outcome = fed(population("LIF", bias=bias, readout=True), [], sample_times=[1.0])
    assert outcome.spikes == {}
    np.testing.assert_allclose(outcome.samples["n"], 2 * (1 - math.exp(-1.0)))


def test_slopes_at_spikes():
    outcome = fed(population("IF", bias=np.array([0.4])), [(1.0, 0)], t_end=4.0)
    assert outcome.slopes["n"][0][0] == math.inf
    np.testing.assert_allclose(outcome.slopes["n"][0][1:], 0.4)


def test_events_at_nearly_one_time_are_written_down():
    outcome = fed(population("IF"), [(1.0, 0), (1.0 + 1e-13, 0)])
    assert [close.what for close in outcome.close] == ["together"]
    assert continuous_time.TOGETHER > 1e-13


@pytest.mark.parametrize("kind", ["LIF", "CubaLIF"])
@pytest.mark.parametrize("arrives", [False, True])
def test_v_above_its_threshold_at_0_fires_there_unless_what_arrives_takes_it_down(kind, arrives):
    own = population(kind, v_threshold=-0.5, v_reset=-1.0)
    events = [(0.0, 0)] if arrives else []
    found = times(fed(own, events, 0.5, weight=((-2.0,),)))
    assert found == ([] if arrives and kind == "LIF" else [0.0])


@pytest.mark.parametrize("event", [1.0 - 1e-15, 2.0])
def test_what_happens_at_nearly_the_end_is_written_down(event):
    own = population("IF", bias=np.array([1.0 + 1e-15]) if event > 1 else 0.0)
    assert [one.what for one in fed(own, [(event, 0)], 1.0).close].count("end") == 1
    assert not fed(own, [(event, 0)], 0.9).close
