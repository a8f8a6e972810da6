"""Faults that readers of NIR and event-based simulators are known for, each with a test that we do
not share it.

Every scenario has spikes, and how many is part of the test: their times are those of an oracle, and
without what the fault forgets, or confuses, they would be others.
"""

import json
import re
from itertools import pairwise

import jax
import jax.numpy as jnp
import nir
import numpy as np
import pytest

import jaxsnn
from jaxsnn.errors import JaxsnnError, SimulationError
from jaxsnn.nir import build
from tests.event.differences import ENOUGH, relative_errors
from tests.helpers.refusals import assert_refused
from tests.oracles import continuous_time

TAU, T_END = 5e-3, 0.1
NEURON = {
    "tau_mem": 2 * TAU,
    "tau_syn": TAU,
    "r": 1.0,
    "w_in": 1.0,
    "v_leak": 0.0,
    "v_threshold": 1.0,
    "v_reset": 0.0,
}
#: Times and channels of input spikes.
ONE = [1e-3], [0]
BURST = [1e-3, 2e-3, 3e-3], [0, 0, 0]


def spikes_of(graph, times, channels, name, **options):
    """Spike times of each neuron of a population."""
    options = {"engine": jaxsnn.EventDriven(max_spikes=64)} | options
    inputs = jaxsnn.Events(time=jnp.array(times), index=jnp.array(channels))
    solution = jaxsnn.simulate(jaxsnn.lower(graph), inputs, T_END, **options)
    return used(solution.spikes[name].time[0])


def used(rows):
    return [np.asarray(times)[np.isfinite(times)] for times in rows]


def one_layer(weight, **parameters):
    """An input, a linear node, and a population "2"."""
    return build.sequential(
        build.input(np.shape(weight)[1]),
        build.linear(len(weight), weight=np.array(weight)),
        build.cubalif(**({"tau_mem": 2 * TAU, "tau_syn": TAU} | parameters)),
    )


def expected(weight, times, channels, *, area=None, **parameters):
    """Spike times of each neuron by the oracle."""
    weight = np.array(weight)
    p = {name: np.full(len(weight), 0.0) + value for name, value in (NEURON | parameters).items()}
    arrivals = weight.T, [times], [channels]
    (outcome,) = continuous_time.simulate_population(p, *arrivals, T_END, area=area)
    return [np.array(train) for train in outcome.spikes["n"]]


def assert_same(spikes, expected):
    assert [len(times) for times in spikes] == [len(times) for times in expected]
    for ours, theirs in zip(spikes, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5)


def assert_differ(first, second):
    assert len(first) != len(second) or not np.allclose(first, second, rtol=1e-3)


# Order, and feedback without a delay: in separate processes, which may not terminate

#: Weight and time of each source.
SOURCES = {
    "d": (6.0, 0.001),
    "b": (9.0, 0.02),
    "e": (20.0, 0.04),
    "a": (5.0, 0.06),
    "c": (14.0, 0.08),
}
BACK = np.array([[0.0, 3.0], [-3.0, 0.0]])


def several_sources():
    """What a population fires that several inputs drive, each through a Linear of its own."""
    layers = {name: build.linear(1, weight=np.array([[w]])) for name, (w, _) in SOURCES.items()}
    layers |= {f"in_{name}": build.input(1) for name in SOURCES}
    layers |= {"sum": build.cubalif(tau_mem=2 * TAU, tau_syn=TAU), "out": build.output()}
    chains = [[f"in_{name}", name, "sum"] for name in SOURCES]
    inputs = {
        f"in_{name}": jaxsnn.Events(time=jnp.array([time]), index=jnp.array([0]))
        for name, (_, time) in SOURCES.items()
    }
    network = jaxsnn.lower(build.network(layers, [*chains, ["sum", "out"]]))
    engine = jaxsnn.EventDriven(max_spikes=64)
    return used(jaxsnn.simulate(network, inputs, T_END, engine=engine).spikes["sum"].time[0])


def two_that_feed_each_other(back):
    """The second neuron excites the first one, which inhibits it."""
    nodes = {
        "input": build.input(1),
        "w": build.linear(2, weight=np.full((2, 1), 9.0)),
        "n": build.cubalif(tau_mem=2 * TAU, tau_syn=TAU),
        "output": build.output(),
    }
    chains = [["input", "w", "n", "output"]]
    if back == "delay of zero":
        nodes["none"] = build.node("Delay", delay=np.zeros(2))
    if back != "nothing":
        nodes["back"] = build.linear(2, weight=BACK)
        chains.append(["n", *(["none"] if "none" in nodes else []), "back", "n"])
    return spikes_of(build.network(nodes, chains), *BURST, "n")


RUN = """
import json
from tests.simulation.test_known_faults import several_sources, two_that_feed_each_other
found = {"sources": several_sources()}
for back in ("nothing", "no delay", "delay of zero"):
    found[back] = two_that_feed_each_other(back)
print(json.dumps({name: [times.tolist() for times in each] for name, each in found.items()}))
"""


@pytest.fixture(scope="module", params=["0", "1"])
def ran(request, run_python):
    """Spikes of a fresh interpreter, of one hash seed."""
    return json.loads(run_python(RUN, PYTHONHASHSEED=request.param).stdout)


def test_weights_are_paired_with_their_sources_whatever_the_hash_seed(ran):
    weights, times = zip(*SOURCES.values(), strict=True)
    expected_times = expected([weights], times, range(len(times)))
    assert_same(ran["sources"], expected_times)
    # Each source causes spikes, and its weight determines how many.
    (counts,) = (np.histogram(fired, [*times, T_END])[0] for fired in expected_times)
    assert counts.tolist() == [1, 3, 9, 2, 6]


def test_recurrence_without_a_delay_does_not_lock(ran):
    """Elsewhere a recurrent group waits for its smallest delay, for ever where that is zero."""
    alone = expected(np.full((2, 1), 9.0), *BURST)
    assert_same(ran["nothing"], alone)
    p = {name: np.full(2, value) for name, value in NEURON.items()}
    neurons = continuous_time.Neurons(kind="CubaLIF", parameters=p, area=None)
    into = continuous_time.Synapses(source="in", target="n", weight=np.full((2, 1), 9.0))
    back = continuous_time.Synapses(source="n", target="n", weight=BACK)
    events = {"in": [(time, 0) for time in BURST[0]]}
    coupled = continuous_time.simulate({"n": neurons}, [into, back], events, T_END).spikes["n"]
    assert [len(times) for times in alone] == [11, 11]
    assert [len(times) for times in coupled] == [16, 3]
    for delay in ("no delay", "delay of zero"):
        assert_same(ran[delay], coupled)


# Budgets


def test_an_exhausted_budget_is_no_silence():
    graph, expected_times = one_layer([[60.0]]), expected([[60.0]], *BURST)
    assert len(expected_times[0]) == 87
    message = r"the budget is 2 for each neuron: pass max_spikes=\d+ or more"
    with pytest.raises(SimulationError, match=message) as caught:
        spikes_of(graph, *BURST, "2", engine=jaxsnn.EventDriven(max_spikes=2))
    room = int(re.search(r"max_spikes=(\d+)", str(caught.value))[1])
    assert_same(
        spikes_of(graph, *BURST, "2", engine=jaxsnn.EventDriven(max_spikes=room)), expected_times
    )
    assert_same(
        spikes_of(graph, *BURST, "2", engine=jaxsnn.EventDriven(max_spikes="auto")), expected_times
    )


# Parameters


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("tau_mem", [8e-3, 20e-3]),
        ("tau_syn", [4e-3, 9e-3]),
        ("v_threshold", [1.0, 1.5]),
        ("v_leak", [0.0, 0.5]),
        ("v_reset", [0.0, -1.0]),
        ("r", [1.0, 1.6]),
    ],
)
def test_parameters_count_neuron_by_neuron(name, values):
    """Taking element [0] of each parameter would make the two neurons equal."""
    weight, parameters = [[9.0], [9.0]], {name: np.array(values)}
    spikes = expected(weight, *BURST, **parameters)
    assert min(len(times) for times in spikes) > 1
    assert_differ(*spikes)
    assert_same(spikes_of(one_layer(weight, **parameters), *BURST, "2"), spikes)


#: Weight of one spike of area 1.
STRONG = 0.012


def literal(tmp_path, **changes):
    """Spikes of each neuron of a CubaLIF of a file whose equations are those of NIR."""
    size = max(np.size(value) for value in changes.values())
    parameters = {name: np.full(size, 0.0) + value for name, value in (NEURON | changes).items()}
    nodes = {
        "input": nir.Input({"input": np.array([1])}),
        "w": nir.Linear(np.full((size, 1), STRONG)),
        "n": nir.CubaLIF(**parameters),
        "output": nir.Output({"output": np.array([size])}),
    }
    path = tmp_path / "one.nir"
    nir.write(path, nir.NIRGraph(nodes=nodes, edges=list(pairwise(nodes))))
    spikes = spikes_of(jaxsnn.read(path, dialect="nir", time_unit="s"), *ONE, "n")
    return spikes, expected(np.full((size, 1), STRONG), *ONE, area=1.0, **changes)


def test_r_and_w_in_scale_the_input(tmp_path):
    """Without them no neuron fires."""
    r, w_in = np.array([1.0, 1.0, 2.0, 4.0, 1.0]), np.array([1.0, 2.0, 1.0, 1.0, 3.0])
    got, expected_times = literal(tmp_path, r=r, w_in=w_in)
    assert_same(got, expected_times)
    assert [len(times) for times in expected_times] == [0, 1, 1, 3, 2]
    np.testing.assert_allclose(got[1], got[2], rtol=1e-5)
    assert got[4][0] < got[1][0] - 1e-4


@pytest.mark.parametrize("tau_mem", [TAU, 2 * TAU, 0.7 * TAU])
def test_v_leak_counts_at_every_ratio_of_the_time_constants(tmp_path, tau_mem):
    got, expected_times = literal(
        tmp_path, v_leak=np.array([0.0, 0.5]), r=2.0, w_in=1.5, tau_mem=tau_mem
    )
    assert_same(got, expected_times)
    assert min(len(times) for times in expected_times) > 0
    assert_differ(*expected_times)


def test_any_ratio_of_the_time_constants_is_exact():
    """Elsewhere a ratio other than 1 and 2 is refused, or off by a good part of tau."""
    for ratio in (0.3, 0.5, 1.0, 1.01, 2.0, 5.0):
        expected_times = expected([[9.0]], *BURST, tau_mem=ratio * TAU)
        assert len(expected_times[0]) > 3
        graph, engine = one_layer([[9.0]], tau_mem=ratio * TAU), jaxsnn.EventDriven(max_spikes=96)
        assert_same(spikes_of(graph, *BURST, "2", engine=engine), expected_times)


# Gradients


def two_populations():
    """Time constants of which one is twice the other, and equal ones; both leak to other voltages
    than 0 and reset to others. In seconds.
    """
    parameters = {
        "tau_syn": 1.0,
        "v_leak": [0.3, -0.2],
        "v_reset": [0.1, -0.1],
        "v_threshold": [1.0, 0.8],
    }
    nodes = {"input": build.input(1), "double": build.cubalif(2, tau_mem=2.0, **parameters)}
    nodes |= {"equal": build.cubalif(2, tau_mem=1.0, **parameters)}
    nodes |= {f"to {name}": build.linear(weight=np.array([[6.0], [8.0]])) for name in TWICE}
    nodes |= {f"from {name}": build.output(2) for name in TWICE}
    chains = [["input", f"to {name}", name, f"from {name}"] for name in TWICE]
    return jaxsnn.lower(build.network(nodes, chains), dtype=float)


TWICE = ("double", "equal")


@pytest.mark.usefixtures("x64")
def test_gradients_are_right_where_v_leak_is_not_zero():
    """Elsewhere they were wrong by a factor of 300, and never compared with differences."""
    network = two_populations()
    weights = np.random.default_rng(0).uniform(0.5, 1.5, (2, 2, 64))

    def value(tree):
        net, time = tree
        inputs = jaxsnn.Events(time=time, index=jnp.zeros(3, int))
        engine = jaxsnn.EventDriven(max_spikes=64)
        spikes = jaxsnn.simulate(net, inputs, 20.0, engine=engine, throw=False).spikes
        times = [spikes[name].time[0] for name in TWICE]
        total = sum(
            jnp.sum(jnp.where(jnp.isfinite(spike_times), spike_times * weight, 0.0))
            for spike_times, weight in zip(times, weights, strict=True)
        )
        return total, [spikes[name].count[0] for name in TWICE]

    tree = network, jnp.array([0.2, 0.4, 0.6])
    gradient, counts = jax.jit(jax.grad(value, has_aux=True))(tree)
    assert np.array(counts).tolist() == [[8, 11], [17, 23]]
    for name in TWICE:
        for parameter in ("tau_mem", "tau_syn", "v_leak", "v_threshold", "v_reset", "r"):
            assert np.abs(gradient[0].parameters[name][parameter]).min() > 0.1
    free = network.with_free_time_constants(), tree[1]
    errors = relative_errors(gradient, value, free)
    assert np.isfinite(errors).all()
    assert errors.max() < ENOUGH


# Files


def test_two_outputs_keep_their_edges(tmp_path):
    layers = {"input": build.input(1), "out_a": build.output(), "out_b": build.output()}
    layers |= {"wa": build.linear(weight=np.array([[9.0]])), "wb": build.linear(weight=[[20.0]])}
    layers |= {name: build.cubalif(tau_mem=2 * TAU, tau_syn=TAU) for name in ("a", "b")}
    graph = build.network(layers, [["input", "wa", "a", "out_a"], ["input", "wb", "b", "out_b"]])
    jaxsnn.write(tmp_path / "two.nir", graph)
    assert sorted(nir.read(tmp_path / "two.nir").edges) == sorted(graph.edges)
    network = jaxsnn.lower(jaxsnn.read(tmp_path / "two.nir"))
    assert dict(network.outputs) == {"out_a": ("a",), "out_b": ("b",)}
    inputs = jaxsnn.Events(time=jnp.array(BURST[0]), index=jnp.array(BURST[1]))
    engine = jaxsnn.EventDriven(max_spikes=64)
    solution = jaxsnn.simulate(network, inputs, T_END, engine=engine)
    assert dict(solution.outputs) == dict(network.outputs)
    for name, weight, count in (("a", 9.0, 11), ("b", 20.0, 28)):
        expected_times = expected([[weight]], *BURST)
        assert len(expected_times[0]) == count
        assert_same(used(solution.spikes[name].time[0]), expected_times)


def test_missing_ports_are_assumed_aloud_and_not_written(tmp_path):
    """nir.read adds them in silence, so that a broken export looks valid, and writes them."""
    lif = {
        "tau": np.full(1, 0.01),
        "r": np.ones(1),
        "v_leak": np.zeros(1),
        "v_threshold": np.ones(1),
    }
    nodes = {"w": nir.Linear(np.full((1, 1), 0.011)), "n": nir.LIF(**lif)}
    nir.write(tmp_path / "a.nir", nir.NIRGraph(nodes=nodes, edges=[("w", "n")], type_check=False))
    graph = jaxsnn.read(tmp_path / "a.nir", dialect="nir", time_unit="s")
    assert [finding.node for finding in graph.repairs] == ["input_w", "output_n"]
    # each input spike moves V by 1.1
    assert_same(spikes_of(graph, *BURST, "n"), [np.array(BURST[0])])
    jaxsnn.write(tmp_path / "b.nir", graph)
    assert sorted(nir.read(tmp_path / "b.nir", type_check=False).nodes) == ["n", "w"]


# Errors

REFUSED = {
    "a time constant": (lambda: one_layer([[1.0]], tau_mem=-1.0), r"'2'.*tau_mem"),
    "a channel": (
        lambda: spikes_of(one_layer([[1.0] * 5]), [1e-3], [7], "2"),
        r"5 channels|channel 7",
    ),
    "a shape": (
        lambda: build.sequential(
            build.input(3), build.linear(weight=np.ones((2, 4))), build.li(tau=1.0)
        ),
        r"'1': weight of shape \(2, 4\)",
    ),
    "a node": (lambda: build.network({"n": build.li(1, tau=1.0)}, [["n", "m"]]), "'m'"),
    "an option": (
        lambda: spikes_of(one_layer([[1.0]]), *ONE, "2", engine=jaxsnn.EventDriven(max_spikes=0)),
        r"max_spikes is 0 for '2': pass an integer of at least 1",
    ),
    "a file": (lambda: jaxsnn.read("nothing.nir"), r"nothing\.nir: no such file"),
}


@pytest.mark.parametrize(("call", "message"), REFUSED.values(), ids=REFUSED)
def test_errors_say_what_is_wrong(call, message):
    """No bare assertion: each says what, where and what to do."""
    fix = None if "no such file" in message else ""
    assert_refused(call, JaxsnnError, message, fix=fix)
