"""From a graph to a network and back: units, the strength of a spike, and which bits of a file
change.
"""

import dataclasses
from functools import partial

import h5py
import jax
import jax.numpy as jnp
import nir
import numpy as np
import pytest

import jaxsnn
from jaxsnn import EventDriven, Events, lower, read, simulate, update_graph, write
from jaxsnn.errors import DialectError, LoweringError, SimulationError, UsageError
from jaxsnn.event.dynamics.kinds import neuron_of
from jaxsnn.network.structure import TauShape
from jaxsnn.nir import build, initializers
from tests.helpers.command_line import DEMO_NET
from tests.helpers.refusals import assert_refused

SNN = {"dialect": "snntorch", "reset": "zero"}
LITERAL = {"dialect": "nir", "time_unit": "s"}
MS = {"dialect": "hxtorch", "time_unit": "ms"}
ONE_SPIKE = Events(time=jnp.array([0.001]), index=jnp.array([0]))


NEURON = {
    "tau_mem": 0.02,
    "tau_syn": 0.01,
    "v_threshold": 1.0,
    "v_leak": 0.0,
    "v_reset": 0.0,
    "r": 1.0,
    "w_in": 1.0,
}


def layer(*, size=2, bias=None, **changes):
    """An input, a Linear (or Affine) node and a CubaLIF population, "2"; other options are those of
    the dialect.
    """
    numbers = {name: changes.pop(name, value) for name, value in NEURON.items()}
    matrix = build.linear if bias is None else partial(build.affine, bias=bias)
    layers = matrix(size, weight=initializers.normal(6.0, 2.0)), build.cubalif(size, **numbers)
    return build.sequential(build.input(3), *layers, seed=0, **changes)


def changed(network, node, **values):
    """The network with other numbers at one node."""
    parameters = {name: dict(arrays) for name, arrays in network.parameters.items()}
    parameters[node] |= {name: jnp.asarray(value, network.dtype) for name, value in values.items()}
    return network.with_parameters(parameters)


def bits(graph):
    """Every parameter of a graph: dtype, shape, bytes."""
    return {
        (name, key): (value.dtype, value.shape, value.tobytes())
        for name, node in graph.nodes.items()
        for key, value in node.parameters.items()
        if isinstance(value, np.ndarray)
    }


# From graphs to networks


def test_a_network_has_the_graphs_numbers_in_the_order_of_its_signals():
    thresholds = [1.0, 1.1, 1.2, 1.3]
    graph = build.sequential(
        build.input(5),
        build.affine(4, bias=0.5),
        build.scale([1.0, 2.0, 3.0, 4.0]),
        build.cubalif(tau_mem="20ms", tau_syn="10ms", v_threshold=thresholds),
        build.linear(3, weight=initializers.normal(0.0, 1.0)),
        build.cubali(tau_mem="5ms", tau_syn="3ms"),
        seed=1,
    )
    network = lower(graph)
    assert [(wire.name, wire.kind, wire.sources, wire.size) for wire in network.wires] == [
        ("input", "input", (), 5),
        ("1", "Affine", ("input",), 4),
        ("2", "Scale", ("1",), 4),
        ("3", "neuron", ("2",), 4),
        ("4", "Linear", ("3",), 3),
        ("5", "neuron", ("4",), 3),
        ("output", "output", ("5",), 3),
    ]
    assert network.dtype == jnp.float32
    parameters = network.parameters
    np.testing.assert_array_equal(parameters["1"]["bias"], np.full(4, 0.5))
    np.testing.assert_array_equal(parameters["2"]["scale"], [1, 2, 3, 4])
    np.testing.assert_allclose(parameters["3"]["tau_mem"], 0.02)
    np.testing.assert_allclose(parameters["3"]["v_threshold"], thresholds)
    weight = graph.nodes["4"].weight.astype("float32")
    np.testing.assert_array_equal(parameters["4"]["weight"], weight)
    facts = {name: (p.tau_shape, p.uniform, p.fires) for name, p in network.populations.items()}
    assert facts == {"3": (TauShape.DOUBLE, True, True), "5": (TauShape.APART, True, False)}
    assert dict(network.outputs) == {"output": ("5",)}
    free = lower(graph, free_time_constants=True).populations["3"]
    assert (free.tau_shape, free.uniform) == (TauShape.ANY, False)


def test_time_constants_that_last_are_static_where_they_are_traced():
    network, traced = lower(layer()), []

    def trace(network):
        moved = changed(network, "2", v_threshold=[2.0, 2.0])
        slower = changed(network, "2", tau_mem=2 * network.parameters["2"]["tau_mem"])
        traced.append([variant.with_known_facts() for variant in (network, moved, slower)])
        return jnp.zeros(())

    lasting = network.with_lasting_time_constants()
    jax.jit(trace)(network)
    jax.jit(trace)(lasting)
    assert [[static for _, static in variants] for variants in traced] == [
        [set(), set(), set()],
        [{"2"}, {"2"}, set()],
    ]
    moved, slower = (variant.populations["2"] for variant, _ in traced[1][1:])
    assert (moved.tau_shape, moved.uniform) == (TauShape.DOUBLE, True)
    assert (slower.tau_shape, slower.uniform) == (TauShape.ANY, False)
    assert not lasting.with_free_time_constants().populations["2"].taus_last
    slower = changed(lasting, "2", tau_mem=[0.02, 0.03]).populations["2"]
    assert (slower.taus_last, slower.uniform) == (False, False)


@pytest.mark.usefixtures("x64")
def test_the_dtype_is_jaxs_own_or_the_one_that_is_asked_for():
    assert lower(layer()).dtype == jnp.float64
    network = lower(layer(), dtype="float32")
    assert {array.dtype for array in jax.tree.leaves(network.parameters)} == {jnp.dtype("float32")}


def test_a_dialect_decides_how_strong_a_spike_is():
    """snnTorch writes r = tau_mem/dt and w_in = tau_syn/dt: a spike of weight w moves r I by r w,
    and I by w. Read literally, the network fires far more.
    """
    inputs = Events(time=jnp.linspace(0, 0.01, 5), index=jnp.arange(5))
    engine, counts = EventDriven(max_spikes=64), []
    tau_mem = lower(read(DEMO_NET, **SNN)).parameters["lif1"]["tau_mem"]
    for options, strength in ((SNN, 1.0), (LITERAL, 1e4)):
        network = lower(read(DEMO_NET, **options))
        assert set(network.populations) == {"lif1", "lif2"}
        for name, population in network.populations.items():
            p = network.parameters[name]
            factor = neuron_of(population).arrival_factor(p)
            np.testing.assert_allclose(factor / p["r"], strength, rtol=1e-6)
        np.testing.assert_array_equal(network.parameters["lif1"]["tau_mem"], tau_mem)
        solution = simulate(network, inputs, 0.02, engine=engine, throw=False)
        counts.append(int(solution.spikes["lif1"].count.sum()))
    assert 0 < counts[0] < 1000 < counts[1] / 10


def test_a_bias_is_added_once_a_step_or_all_the_time():
    """In snnTorch a bias b is one more spike of weight b in every step; the steady current is that
    of these spikes.
    """
    dt, tau_mem, tau_syn, bias = 1e-4, 0.02, 0.01, 0.01
    gains = {"r": tau_mem / dt, "w_in": tau_syn / dt, "tau_mem": tau_mem, "tau_syn": tau_syn}
    for options, v_inf, rtol in (
        # i = sum of bias alpha^n, alpha = 1 - dt/tau_syn; v the same of i, beta = 1 - dt/tau_mem
        (SNN | gains, bias * (tau_syn / dt) * (tau_mem / dt), 1e-5),
        ({}, bias, 1e-6),  # tau_syn I' = -I + b
    ):
        network = lower(layer(bias=bias, **options))
        neuron, parameters = neuron_of(network.populations["2"]), network.parameters
        computed = neuron.v_inf(parameters["2"], parameters["1"]["bias"])
        np.testing.assert_allclose(computed, v_inf, rtol=rtol)


@pytest.mark.usefixtures("x64")
def test_milliseconds_and_seconds_are_the_same_network():
    weight = np.array([[9.0, -1.0, 4.0], [2.0, 7.0, 5.0]])
    inputs = Events(time=jnp.array([0.001, 0.004, 0.009]), index=jnp.arange(3))
    networks = []
    for unit, scale, dialect in (("ms", 1.0, "hxtorch"), ("s", 0.001, "jaxsnn")):
        taus = np.array([[13.0, 7.0], [5.0, 7.0]]) * scale
        layers = build.linear(weight=weight), build.cubalif(tau_mem=taus[0], tau_syn=taus[1])
        graph = build.sequential(build.input(3), *layers, dialect=dialect, time_unit=unit)
        networks.append(lower(graph))
    parameters = [network.parameters for network in networks]
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-15), *parameters)
    times = [simulate(network, inputs, 0.05).spikes["2"].time for network in networks]
    assert np.isfinite(times[0]).sum() > 2
    np.testing.assert_allclose(*times, rtol=1e-12)


def narrow(dtype):
    """A layer whose weights and time constants, in steps of 100 ns, have a dtype that holds them
    exactly.
    """
    layers = (
        build.linear(weight=[[0.75, 0.5], [1.25, -0.5]]),
        build.cubalif(tau_mem=[200, 100], tau_syn=100),
    )
    graph = build.sequential(build.input(2), *layers, dialect="jaxsnn", time_unit="step", dt=1e-7)
    return graph.with_nodes(
        graph.nodes[name].replace(
            **{key: np.asarray(value, dtype) for key, value in graph.nodes[name].parameters.items()}
        )
        for name in ("1", "2")
    )


@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_half_precision_is_the_same_network(dtype):
    networks = lower(narrow(dtype)), lower(narrow("float32"))
    parameters = [network.parameters for network in networks]
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-7), *parameters)


def test_changed_half_precision_becomes_single_and_what_did_not_change_stays():
    graph = narrow("float16")
    network = lower(graph)
    assert update_graph(graph, network).nodes["1"] is graph.nodes["1"]
    weight = np.array(network.parameters["1"]["weight"])
    weight[0, 0] = 0.7501
    after = update_graph(graph, changed(network, "1", weight=weight)).nodes
    assert after["1"].weight.dtype == np.float32
    np.testing.assert_array_equal(after["1"].weight, weight)
    assert after["2"].tau_mem.dtype == np.float16


# From networks to graphs


@pytest.fixture
def odd_file(tmp_path):
    """A file with scalars, a whole number as threshold, float32 beside float64, in ms, without w_in
    and v_reset.
    """
    ones = {
        name: np.ones(3)
        for name in ("tau_mem", "tau_syn", "r", "v_leak", "v_threshold", "v_reset", "w_in")
    }
    nodes = {
        "input": nir.Input({"input": np.array([2])}),
        "w": nir.Affine(
            np.array([[9.1, 1 / 3], [2.0, 3.0], [8.7, 1.0]]), np.array([0.1, 0.2, 0.3], "float32")
        ),
        "n": nir.CubaLIF(**ones),
        "output": nir.Output({"output": np.array([3])}),
    }
    path = tmp_path / "odd.nir"
    nir.write(path, nir.NIRGraph(nodes=nodes, edges=[("input", "w"), ("w", "n"), ("n", "output")]))
    with h5py.File(path, "r+") as file:
        neuron = file["node/nodes/n"]
        assert isinstance(neuron, h5py.Group)
        for name in ones:
            del neuron[name]
        neuron["tau_mem"], neuron["tau_syn"] = np.array([20.0, 20.0, 12.3456789]), np.float32(10.0)
        neuron["r"], neuron["v_leak"], neuron["v_threshold"] = 1.0, 0.0, 1
    return path


def test_a_network_that_did_not_change_changes_no_bit(odd_file):
    for graph in (read(DEMO_NET, dialect="snntorch"), read(odd_file, **MS), layer()):
        again = update_graph(graph, lower(graph))
        assert bits(again) == bits(graph)
        assert all(again.nodes[name] is graph.nodes[name] for name in graph.nodes)


def test_what_changes_is_written_in_the_files_unit_dtype_and_shape(odd_file):
    graph = read(odd_file, **MS)
    network = lower(graph)
    assert network.dtype == jnp.float32
    weight = np.array(network.parameters["w"]["weight"])
    tau_mem = np.array(network.parameters["n"]["tau_mem"])
    weight[1, 0], tau_mem[0] = 2.5, 0.0175
    neurons = {"tau_mem": tau_mem, "tau_syn": np.full(3, 0.008), "v_threshold": [1.5, 1.0, 1.0]}
    network = changed(changed(network, "w", weight=weight), "n", **neurons)
    before, after = graph.nodes, update_graph(graph, network).nodes
    # Unchanged entries keep all their bits, even if float32 cannot represent them.
    expected = np.array(before["w"].weight)
    expected[1, 0] = 2.5
    assert after["w"].weight.dtype == after["n"].tau_mem.dtype == np.float64
    np.testing.assert_array_equal(after["w"].weight, expected)
    np.testing.assert_array_equal(after["n"].tau_mem[1:], before["n"].tau_mem[1:])
    np.testing.assert_allclose(after["n"].tau_mem[0], 17.5, rtol=1e-6)
    # A scalar stays a scalar if possible; an integer becomes a float.
    assert (after["n"].tau_syn.shape, after["n"].tau_syn.dtype) == ((), np.float32)
    np.testing.assert_allclose(after["n"].tau_syn, 8.0, rtol=1e-6)
    np.testing.assert_array_equal(after["n"].v_threshold, [1.5, 1.0, 1.0])
    # Parameters that the file lacks are added only if they change; unchanged ones stay.
    assert after["n"].v_reset is after["n"].w_in is None
    assert all(getattr(after["n"], key) is getattr(before["n"], key) for key in ("r", "v_leak"))
    assert after["w"].bias is before["w"].bias
    raised = update_graph(graph, changed(lower(graph), "n", v_reset=[-0.5, 0.0, 0.0])).nodes["n"]
    np.testing.assert_array_equal(raised.v_reset, [-0.5, 0.0, 0.0])
    assert raised.w_in is None


@pytest.mark.parametrize(
    ("make", "options", "fixed"),
    [
        # These determine dt.
        (lambda: read(DEMO_NET, **SNN), SNN, ("tau_mem", "tau_syn", "r", "w_in")),
        (lambda: layer(size=9), {}, ()),
        (lambda: layer(size=9, tau_mem=20.0, tau_syn=10.0, **MS), MS, ("r", "w_in")),  # always 1
    ],
    ids=["snntorch", "own", "milliseconds"],
)
def test_a_trained_file_fires_the_same_spikes_when_it_is_read_again(make, options, fixed, tmp_path):
    graph, rng = make(), np.random.default_rng(0)
    network = lower(graph)

    def perturbed(path, array):
        factors = rng.uniform(0.9, 1.1, array.shape).astype("float32")
        return array if path[-1].key in fixed else array * factors

    trained = jax.tree_util.tree_map_with_path(perturbed, network.parameters)
    network = network.with_parameters(trained)
    write(tmp_path / "trained.nir", update_graph(graph, network))
    reread = lower(read(tmp_path / "trained.nir", **options))
    inputs = Events(time=jnp.linspace(0, 0.01, 10), index=jnp.arange(10) % network.inputs["input"])
    engine = EventDriven(max_spikes=256)
    spikes, same = (simulate(n, inputs, 0.05, engine=engine).spikes for n in (network, reread))
    for name in spikes:
        assert np.isfinite(spikes[name].time).any()
        np.testing.assert_array_equal(spikes[name].time, same[name].time)


@pytest.mark.usefixtures("x64")
def test_delays_of_synapses_become_nodes_that_play_the_same(tmp_path):
    rng = np.random.default_rng(0)
    weights = rng.normal(1, 0.8, (7, 5)), rng.normal(1, 0.8, (3, 7))
    layers = [build.input(5)]
    for weight in weights:
        layers += [build.linear(weight=weight), build.cubalif(tau_mem=2.0, tau_syn=1.0)]
    graph = build.sequential(*layers)
    network = lower(graph)
    for name, weight in zip(("1", "3"), weights, strict=True):
        network = jaxsnn.with_synaptic_delays(network, name, rng.uniform(0, 1, weight.shape))
    write(tmp_path / "late.nir", update_graph(graph, network))
    reread = lower(read(tmp_path / "late.nir"))
    times, index = rng.uniform(0, 2, (4, 6)), rng.integers(0, 5, (4, 6))
    inputs = Events(time=jnp.asarray(times), index=jnp.asarray(index, jnp.int32))
    expected = simulate(network, inputs, 6.0).spikes
    spikes = simulate(reread, inputs, 6.0, engine=EventDriven(max_spikes="auto")).spikes
    for name in expected:
        assert expected[name].count.sum() > 10
        np.testing.assert_allclose(spikes[name].time, expected[name].time, rtol=1e-12)
    undelayed = simulate(lower(graph), inputs, 6.0).spikes["2"].time
    assert not np.allclose(expected["2"].time, undelayed)
    halved = reread.with_parameters(
        {**reread.parameters, "1_copies": {"weight": reread.parameters["1_copies"]["weight"] / 2}}
    )
    assert_refused(lambda: simulate(halved, inputs, 6.0), SimulationError, "NaN")  # it is wiring


@pytest.mark.parametrize("delay", [0.3, np.array([0.1, 0.4])], ids=["one", "of sources"])
@pytest.mark.parametrize("name", ["w", "back"])
def test_delays_of_sources_in_a_loop_are_run_again_from_their_graph(name, delay):
    nodes = {
        "in": build.input(2),
        "w": build.linear(weight=[[9.0, 3.0], [7.2, 5.0]]),
        "n": build.cubalif(tau_mem=2.0, tau_syn=1.0),
        "back": build.linear(weight=[[0.0, 2.0], [-1.0, 0.5]]),
        "out": build.output(),
    }
    graph = build.network(nodes, [("in", "w", "n", "out"), ("n", "back", "n")], seed=0)
    network = jaxsnn.with_synaptic_delays(lower(graph), name, delay)
    inputs = Events(time=jnp.array([[0.0, 0.2, 2.0]]), index=jnp.array([[0, 1, 0]]))
    networks = lower(graph), network, lower(update_graph(graph, network))
    plain, expected, again = (simulate(n, inputs, 5.0).spikes["n"] for n in networks)
    assert expected.count.sum() > 5
    assert not np.array_equal(plain.time, expected.time)
    np.testing.assert_allclose(again.time, expected.time, rtol=1e-5)


# Refusals


def analog():
    nodes = {
        "in": build.input(2),
        "w": build.linear(2),
        "li": build.li(tau=1.0),
        "on": build.linear(2),
        "n": build.cubalif(tau_mem=1.0, tau_syn=1.0),
        "out": build.output(),
    }
    return build.network(nodes, [("in", "w", "li", "on", "n", "out")], seed=0)


SUBTRACTS = {"reset": "subtract", "v_threshold": [1.0, -1.0]}
ALMOST = [0.0, 1 - 1e-9]


@pytest.mark.parametrize(
    ("make", "node", "message"),
    [
        (analog, "li", r"\(LI\) drives node 'n' \(CubaLIF\)"),
        (
            lambda: layer(tau_mem=[np.inf, 0.02]),
            "2",
            r"\(CubaLIF\): tau_mem of neuron 0 is infinite, .* engine=TimeStepped\(\)",
        ),
        (
            lambda: layer(v_reset=[0.0, 1.5]),
            "2",
            r"\(CubaLIF\): neuron 1 resets to 1.5, which is not below its v_threshold 1, .*: lower v_reset",
        ),
        (lambda: layer(**SUBTRACTS), "2", "neuron 1 resets to 0, which is not below .* -1"),
        # float32 rounds it to the threshold: the neuron would fire without end, whatever arrives.
        (
            lambda: layer(v_reset=ALMOST),
            "2",
            r"\(CubaLIF\): rounded to float32, v_reset of neuron 1 is 1, which is not below v_threshold, 1: "
            "decrease v_reset, increase v_threshold, or simulate in float64",
        ),
        (lambda: layer(dialect="snntorch", r=200.0, w_in=100.0), "2", "needs reset, .* reset="),
        (lambda: layer(spike_kernel="box"), "2", "needs dt, .* pass dt="),
        (
            lambda: layer(reset="none"),
            "2",
            """has reset 'none': .*: pass readout="2" if the node is""",
        ),
        (lambda: layer(dialect="hxtorch"), "2", "needs the unit of time: pass time_unit="),
        (lambda: layer(dialect="norse", bias=0.1), "2", "needs the dt .*: pass dt_export="),
    ],
    ids=["analog", "tau", "v_reset", "subtract", "float32", "reset", "box", "none", "unit", "dt"],
)
def test_what_the_event_engine_cannot_run_is_refused_by_name(make, node, message):
    run = lambda: simulate(lower(make(), dtype="float32"), ONE_SPIKE, 1.0)  # noqa: E731
    assert_refused(run, LoweringError, f"node '{node}'.*{message}", node=node)


def with_levels(network, node, **levels):
    """The network with other v_reset or v_threshold of a population."""
    parameters = dict(network.parameters)
    parameters[node] = parameters[node] | {
        key: np.full_like(np.asarray(parameters[node][key]), value) for key, value in levels.items()
    }
    return network.with_parameters(parameters)


@pytest.mark.parametrize("loop", [False, True])
@pytest.mark.parametrize("levels", [{"v_reset": 1.0}, {"v_reset": 1.2}, {"v_threshold": -0.1}])
def test_other_parameters_with_a_reset_above_the_threshold_are_refused(levels, loop):
    """With a refractory period layers and loops would fire at different times, without a problem."""
    nodes = {
        "in": build.input(1),
        "w": build.linear(weight=[[3.0]]),
        "n": build.lif(1, tau="20ms", v_reset=0.0),
        "back": build.linear(weight=[[0.0]]),
        "out": build.output(),
    }
    edges = [("in", "w"), ("w", "n"), ("n", "out"), *([("n", "back"), ("back", "n")] * loop)]
    if not loop:
        del nodes["back"]
    network = lower(build.network(nodes, edges))
    engine = EventDriven(refractory=2e-3)
    refused = with_levels(network, "n", **levels)
    assert_refused(
        lambda: simulate(refused, ONE_SPIKE, 1.0, engine=engine),
        LoweringError,
        "node 'n' .LIF.: v_reset of neuron 0 is .*, which is not below v_threshold",
        node="n",
    )
    mended = with_levels(refused, "n", v_reset=-0.5, v_threshold=1.0)
    assert mended.populations == network.populations
    spikes = simulate(mended, ONE_SPIKE, 1.0, engine=engine).spikes["n"].time
    assert np.isfinite(np.asarray(spikes)).sum() == 1


def test_traced_levels_are_not_checked():
    network = lower(layer())

    def count(v_reset):
        parameters = dict(network.parameters)
        parameters["2"] = parameters["2"] | {"v_reset": v_reset}
        changed = network.with_parameters(parameters)
        assert changed.populations == network.populations
        return v_reset.sum()

    jax.jit(count)(jnp.asarray(network.parameters["2"]["v_reset"]))


def test_a_reset_that_float32_rounds_onto_the_threshold_is_none_in_float64():
    graph = layer(v_reset=ALMOST)
    assert [problem.code for problem in jaxsnn.check(graph, "event").problems] == ["bad-parameter"]
    with jax.enable_x64(True):
        assert "v_reset" not in dict(lower(graph, dtype="float64").populations["2"].obstacles)
    # A reset that subtracts does not use v_reset.
    subtracted = layer(v_reset=ALMOST, reset="subtract")
    simulate(lower(subtracted, dtype="float32"), ONE_SPIKE, 1.0)


def with_a_sum():
    """A network with a node of a type that the event engine does not have."""
    network = lower(layer())
    wires = [
        dataclasses.replace(wire, kind="Sum", operator=None) if wire.name == "1" else wire
        for wire in network.wires
    ]
    return jaxsnn.Network(
        parameters=network.parameters, wires=wires, populations=network.populations
    )


def of_snntorch():
    neurons = build.lif(tau=2e-3, r=20.0)
    layers = [build.linear(1), neurons, build.linear(1), neurons, build.linear(3), neurons]
    return build.sequential(build.input(1), *layers, seed=0, dialect="snntorch", reset="zero")


def updated(graph, node, **values):
    """Write numbers of one node back into a graph."""
    return update_graph(graph, changed(lower(graph), node, **values))


def delayed(name, delay):
    return jaxsnn.with_synaptic_delays(lower(layer()), name, delay)


SPYX = {"dialect": "spyx", "dt": 1e-4}


def of_spyx():
    layers = build.linear(1), build.lif(tau=1e-3, r=0.9)
    return build.sequential(build.input(1), *layers, seed=0, time_unit="s", **SPYX)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: lower(build.sequential(build.input(2), build.linear(2), seed=0)),
            LoweringError,
            "the graph has no neurons: add at least one",
        ),
        (
            lambda: lower(layer().with_dialect(jaxsnn.nir.Dialect())),
            DialectError,
            "simulation needs the dialect of the file",
        ),
        (
            lambda: simulate(with_a_sum(), ONE_SPIKE, 1.0),
            LoweringError,
            r"the event engine does not support node '1' \(Sum\): replace it by .*, Conv2d, ",
        ),
        # Values that cannot be written back.
        (
            lambda: updated(layer(), "2", v_leak=[np.nan, 0.0]),
            LoweringError,
            r"node '2' \(CubaLIF\): v_leak is nan after training",
        ),
        (
            lambda: updated(layer(r=0.995, **SPYX), "2", r=[0.5, 0.5]),
            LoweringError,
            r"node '2' .*: r cannot be trained in the dialect spyx",
        ),
        (
            lambda: updated(of_spyx(), "2", v_leak=[0.3]),
            LoweringError,
            "v_leak cannot be trained in the dialect spyx",
        ),
        (
            lambda: updated(of_spyx(), "2", v_leak=[0.3], r=[0.95], tau=[2e-3]),
            LoweringError,
            "v_leak cannot be trained in the dialect spyx",
        ),
        (
            lambda: updated(of_snntorch(), "6", tau=4e-3 * np.ones(3)),
            LoweringError,
            r"node '6' has tau = 0\.004 and r = 20",
        ),
        (
            lambda: update_graph(layer(), lower(layer(size=4))),
            LoweringError,
            r"node '1' has parameters .*\(2, 3\).* in the graph and .*\(4, 3\)",
        ),
        (
            lambda: update_graph(layer(), lower(analog())),
            LoweringError,
            r"node '1' has parameters .* in the graph and {} in the network",
        ),
        # Delays are non-negative times of synapses.
        (lambda: delayed("1", -1e-3), UsageError, "a delay is -0.001 s"),
        (lambda: delayed("1", np.nan), UsageError, "nan s"),
        (lambda: delayed("1", [np.inf, 0]), UsageError, "inf s"),
        (
            lambda: delayed("2", 0.1),
            LoweringError,
            "node '2' has type neuron, but only Linear and Affine nodes have synapses: Available: 1",
        ),
    ],
)
def test_networks_and_numbers_that_do_not_fit_are_refused(call, error, message):
    assert_refused(call, error, message)


def test_numbers_for_all_become_one_for_each_alike(tmp_path):
    """A threshold that is no longer the same for all neurons is written with their axes, and the
    other parameters like it: nir refuses a node whose parameters differ in shape."""
    window = {"stride": [1, 1], "padding": [1, 1], "dilation": [1, 1], "groups": 1}
    kernel = np.random.default_rng(0).normal(0.3, 0.2, (2, 1, 3, 3)).astype(np.float32)
    bias, size = np.zeros(2, np.float32), [4, 4]
    scalars = {"tau": 10e-3, "r": 1.0, "v_threshold": 1.0, "v_leak": 0.0}
    scalars = {name: np.float32(value) for name, value in scalars.items()}
    graph = build.sequential(
        build.input((1, 4, 4)),
        build.node("Conv2d", weight=kernel, bias=bias, input_shape=size, **window),
        build.node("LIF", **scalars),
    )
    graph = graph.with_nodes([graph.nodes["2"].replace(**scalars)])
    assert {np.shape(value) for value in graph.nodes["2"].parameters.values()} == {()}
    thresholds = np.linspace(1, 2, 32, dtype=np.float32)
    after = updated(graph, "2", v_threshold=thresholds)
    node = after.nodes["2"]
    assert {np.shape(value) for value in node.parameters.values()} == {(2, 4, 4)}
    np.testing.assert_array_equal(node.v_threshold, thresholds.reshape(2, 4, 4))
    np.testing.assert_array_equal(node.tau, np.full((2, 4, 4), scalars["tau"]))
    write(tmp_path / "after.nir", after)
    assert nir.read(tmp_path / "after.nir").nodes["2"].tau.shape == (2, 4, 4)
    reread = lower(read(tmp_path / "after.nir")).parameters["2"]
    np.testing.assert_array_equal(reread["v_threshold"], thresholds)
