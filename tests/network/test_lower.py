"""From a graph to a network and back: units, the strength of a spike, and which bits of a file
change.
"""

import dataclasses

import h5py
import jax
import jax.numpy as jnp
import nir
import numpy as np
import pytest

import jaxsnn
from jaxsnn import EventDriven, Events, lower, read, simulate, update_graph, write
from jaxsnn.errors import DialectError, LoweringError, UsageError
from jaxsnn.event.dynamics.kinds import neuron_of
from jaxsnn.network.structure import TauShape
from jaxsnn.nir import build, initializers
from tests.helpers.command_line import DEMO_NET

SNN = {"dialect": "snntorch", "reset": "zero"}
MS = {"dialect": "hxtorch", "time_unit": "ms"}
ONE_SPIKE = Events(time=jnp.array([0.001]), index=jnp.array([0]))


def layer(*, size=2, bias=None, **changes):
    """An input, a Linear (or Affine) node and a CubaLIF population, "2"; other options are those of
    the dialect.
    """
    neuron = {
        "tau_mem": 0.02,
        "tau_syn": 0.01,
        "v_threshold": 1.0,
        "v_leak": 0.0,
        "v_reset": 0.0,
        "r": 1.0,
        "w_in": 1.0,
    }
    neurons = build.cubalif(
        size, **{name: changes.pop(name, value) for name, value in neuron.items()}
    )
    weight = initializers.normal(6.0, 2.0)
    matrix = (
        build.linear(size, weight=weight)
        if bias is None
        else build.affine(size, weight=weight, bias=bias)
    )
    return build.sequential(build.input(3), matrix, neurons, seed=0, **changes)


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


# To the network


def test_a_network_has_the_graphs_numbers_in_the_order_of_its_signals():
    graph = build.sequential(
        build.input(5),
        build.affine(4, bias=0.5),
        build.scale([1.0, 2.0, 3.0, 4.0]),
        build.cubalif(tau_mem="20ms", tau_syn="10ms", v_threshold=[1.0, 1.1, 1.2, 1.3]),
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
    np.testing.assert_array_equal(network.parameters["1"]["bias"], np.full(4, 0.5))
    np.testing.assert_array_equal(network.parameters["2"]["scale"], [1, 2, 3, 4])
    np.testing.assert_allclose(network.parameters["3"]["tau_mem"], 0.02)
    np.testing.assert_allclose(network.parameters["3"]["v_threshold"], [1.0, 1.1, 1.2, 1.3])
    np.testing.assert_array_equal(
        network.parameters["4"]["weight"], graph.nodes["4"].weight.astype("float32")
    )
    assert network.populations["3"].tau_shape is TauShape.DOUBLE
    assert network.populations["3"].uniform
    assert network.populations["3"].fires
    assert not network.populations["5"].fires
    assert network.populations["5"].tau_shape is TauShape.APART
    assert dict(network.outputs) == {"output": ("5",)}
    free = lower(graph, free_time_constants=True).populations["3"]
    assert (free.tau_shape, free.uniform) == (TauShape.ANY, False)


def test_time_constants_that_last_are_known_where_they_are_traced():
    network, seen = lower(layer()), []

    def look(network):
        moved = changed(network, "2", v_threshold=[2.0, 2.0])
        slower = changed(network, "2", tau_mem=2 * network.parameters["2"]["tau_mem"])
        seen.append([found.with_known_facts() for found in (network, moved, slower)])
        return jnp.zeros(())

    jax.jit(look)(network)
    jax.jit(look)(network.with_lasting_time_constants())
    nothing, known = frozenset(), frozenset({"2"})
    assert [[found for _, found in each] for each in seen] == [
        [nothing, nothing, nothing],
        [known, known, nothing],
    ]
    _, moved, slower = (found.populations["2"] for found, _ in seen[1])
    assert (moved.tau_shape, moved.uniform) == (TauShape.DOUBLE, True)
    assert (slower.tau_shape, slower.uniform) == (TauShape.ANY, False)
    lasting = network.with_lasting_time_constants()
    assert not lasting.with_free_time_constants().populations["2"].taus_last
    slower = changed(lasting, "2", tau_mem=[0.02, 0.03]).populations["2"]
    assert (slower.taus_last, slower.uniform) == (False, False)


@pytest.mark.usefixtures("x64")
def test_the_dtype_is_jaxs_own_or_the_one_that_is_asked_for():
    assert lower(layer()).dtype == jnp.float64
    network = lower(layer(), dtype="float32")
    assert {array.dtype for array in jax.tree.leaves(network.parameters)} == {jnp.dtype("float32")}


def test_a_dialect_decides_how_hard_a_spike_kicks():
    """snnTorch writes r = tau_mem/dt and w_in = tau_syn/dt: a spike of weight w moves r I by r w,
    and I by w.
    """
    as_meant = read(DEMO_NET, **SNN)
    literally = read(DEMO_NET, dialect="nir", time_unit="s")
    networks = [lower(graph) for graph in (as_meant, literally)]
    kicks = []
    for network in networks:
        factors = {}
        for name, population in network.populations.items():
            p = network.parameters[name]
            factors[name] = np.asarray(neuron_of(population).arrival_factor(p) / p["r"])
        kicks.append(factors)
    assert set(kicks[0]) == {"lif1", "lif2"}
    for name in kicks[0]:
        np.testing.assert_allclose(kicks[0][name], 1.0, rtol=1e-6)
        np.testing.assert_allclose(kicks[1][name], 1e4, rtol=1e-6)
    np.testing.assert_array_equal(
        networks[0].parameters["lif1"]["tau_mem"], networks[1].parameters["lif1"]["tau_mem"]
    )


def test_read_with_the_wrong_dialect_it_fires_far_more():
    inputs = Events(time=jnp.linspace(0, 0.01, 5), index=jnp.arange(5))
    counts = [
        int(
            simulate(
                lower(read(DEMO_NET, **told)),
                inputs,
                0.02,
                engine=EventDriven(max_spikes=64),
                throw=False,
            )
            .spikes["lif1"]
            .count.sum()
        )
        for told in (SNN, {"dialect": "nir", "time_unit": "s"})
    ]
    assert 0 < counts[0] < 1000 < counts[1] / 10


def test_a_bias_is_added_once_a_step_or_all_the_time():
    """In snnTorch a bias b is one more spike of weight b in every step; the steady current is that
    of these spikes.
    """
    dt, tau_mem, tau_syn, bias = 1e-4, 0.02, 0.01, 0.01
    written = {"r": tau_mem / dt, "w_in": tau_syn / dt, "tau_mem": tau_mem, "tau_syn": tau_syn}
    stepped = lower(layer(bias=bias, dialect="snntorch", reset="zero", **written))
    steady = lower(layer(bias=bias))  # tau_syn I' = -I + b
    v_inf = []
    for network in (stepped, steady):
        population, current = network.populations["2"], network.parameters["1"]["bias"]
        v_inf.append(neuron_of(population).v_inf(network.parameters["2"], current))
    # i = sum of bias alpha^n with alpha = 1 - dt/tau_syn, v the same of i with beta = 1 -
    # dt/tau_mem
    np.testing.assert_allclose(v_inf[0], bias * (tau_syn / dt) * (tau_mem / dt), rtol=1e-5)
    np.testing.assert_allclose(v_inf[1], bias, rtol=1e-6)


@pytest.mark.usefixtures("x64")
def test_milliseconds_and_seconds_are_the_same_network():
    weight = np.array([[9.0, -1.0, 4.0], [2.0, 7.0, 5.0]])
    networks = []
    for unit, scale, dialect in (("ms", 1.0, "hxtorch"), ("s", 0.001, "jaxsnn")):
        neurons = build.cubalif(
            tau_mem=np.array([13.0, 7.0]) * scale, tau_syn=np.array([5.0, 7.0]) * scale
        )
        graph = build.sequential(
            build.input(3), build.linear(weight=weight), neurons, dialect=dialect, time_unit=unit
        )
        networks.append(lower(graph))
    for a, b in zip(jax.tree.leaves(networks[0]), jax.tree.leaves(networks[1]), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-15)
    inputs = Events(time=jnp.array([0.001, 0.004, 0.009]), index=jnp.arange(3))
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
    named = [graph.nodes[name] for name in ("1", "2")]
    return graph.with_nodes(
        node.replace(**{key: np.asarray(value, dtype) for key, value in node.parameters.items()})
        for node in named
    )


@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_half_precision_is_the_same_network(dtype):
    found, expected = lower(narrow(dtype)).parameters, lower(narrow("float32")).parameters
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-7)


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


# Back to the graph


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
    weight, tau_mem = (
        np.array(network.parameters["w"]["weight"]),
        np.array(network.parameters["n"]["tau_mem"]),
    )
    weight[1, 0], tau_mem[0] = 2.5, 0.0175
    network = changed(network, "w", weight=weight)
    network = changed(
        network, "n", tau_mem=tau_mem, tau_syn=np.full(3, 0.008), v_threshold=[1.5, 1.0, 1.0]
    )
    before, after = graph.nodes, update_graph(graph, network).nodes
    # an entry that did not change keeps its bits, though single precision cannot hold it
    expected = np.array(before["w"].weight)
    expected[1, 0] = 2.5
    assert after["w"].weight.dtype == np.float64
    np.testing.assert_array_equal(after["w"].weight, expected)
    assert after["n"].tau_mem.dtype == np.float64
    np.testing.assert_array_equal(after["n"].tau_mem[1:], before["n"].tau_mem[1:])
    np.testing.assert_allclose(after["n"].tau_mem[0], 17.5, rtol=1e-6)
    # a scalar stays one where it can; a whole number gives way
    assert (after["n"].tau_syn.shape, after["n"].tau_syn.dtype) == ((), np.float32)
    np.testing.assert_allclose(after["n"].tau_syn, 8.0, rtol=1e-6)
    np.testing.assert_array_equal(after["n"].v_threshold, [1.5, 1.0, 1.0])
    # what the file lacks stays absent; what did not change stays
    assert after["n"].v_reset is None
    assert after["n"].w_in is None
    for name in ("r", "v_leak"):
        assert getattr(after["n"], name) is getattr(before["n"], name)
    assert after["w"].bias is before["w"].bias


def test_a_parameter_that_the_file_lacks_is_written_once_it_changes(odd_file):
    graph = read(odd_file, **MS)
    raised = update_graph(graph, changed(lower(graph), "n", v_reset=[-0.5, 0.0, 0.0]))
    np.testing.assert_array_equal(raised.nodes["n"].v_reset, [-0.5, 0.0, 0.0])
    assert raised.nodes["n"].w_in is None


@pytest.mark.parametrize(
    ("make", "told", "kept"),
    [
        (
            lambda: read(DEMO_NET, **SNN),
            SNN,
            ("tau_mem", "tau_syn", "r", "w_in"),
        ),  # which say what dt is
        (lambda: layer(size=9), {}, ()),
        (lambda: layer(size=9, tau_mem=20.0, tau_syn=10.0, **MS), MS, ("r", "w_in")),  # always 1
    ],
    ids=["snntorch", "own", "milliseconds"],
)
def test_a_trained_file_fires_the_same_spikes_when_it_is_read_again(make, told, kept, tmp_path):
    graph, rng = make(), np.random.default_rng(0)
    network = lower(graph)

    def shaken(path, array):
        return (
            array
            if path[-1].key in kept
            else array * rng.uniform(0.9, 1.1, array.shape).astype("float32")
        )

    network = network.with_parameters(jax.tree_util.tree_map_with_path(shaken, network.parameters))
    write(tmp_path / "trained.nir", update_graph(graph, network))
    again = lower(read(tmp_path / "trained.nir", **told))
    inputs = Events(time=jnp.linspace(0, 0.01, 10), index=jnp.arange(10) % network.inputs["input"])
    solutions = [
        simulate(each, inputs, 0.05, engine=EventDriven(max_spikes=256))
        for each in (network, again)
    ]
    for name, spikes in solutions[0].spikes.items():
        assert np.isfinite(spikes.time).any()
        np.testing.assert_array_equal(spikes.time, solutions[1].spikes[name].time)


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
    again = lower(read(tmp_path / "late.nir"))
    inputs = Events(
        time=jnp.asarray(rng.uniform(0, 2, (4, 6))),
        index=jnp.asarray(rng.integers(0, 5, (4, 6)), jnp.int32),
    )
    expected = simulate(network, inputs, 6.0)
    found = simulate(again, inputs, 6.0, engine=EventDriven(max_spikes="auto"))
    for name, spikes in expected.spikes.items():
        assert spikes.count.sum() > 10
        np.testing.assert_allclose(found.spikes[name].time, spikes.time, rtol=1e-12)
    assert not np.allclose(
        expected.spikes["2"].time, simulate(lower(graph), inputs, 6.0).spikes["2"].time
    )
    halved = {
        **again.parameters,
        "1_copies": {"weight": again.parameters["1_copies"]["weight"] / 2},
    }
    with pytest.raises(jaxsnn.JaxsnnError, match="NaN"):  # it is wiring
        simulate(again.with_parameters(halved), inputs, 6.0)
    with pytest.raises(
        LoweringError,
        match="node '2' is a neuron, and only a Linear or Affine has synapses: There are 1, 3",
    ):
        jaxsnn.with_synaptic_delays(network, "2", 0.1)


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
    again = lower(update_graph(graph, network))
    inputs = Events(time=jnp.array([[0.0, 0.2, 2.0]]), index=jnp.array([[0, 1, 0]]))
    plain, expected, found = (
        simulate(each, inputs, 5.0).spikes["n"] for each in (lower(graph), network, again)
    )
    assert expected.count.sum() > 5
    assert not np.array_equal(plain.time, expected.time)
    np.testing.assert_allclose(found.time, expected.time, rtol=1e-5)


# Refusals


def analog():
    nodes = {
        "in": build.input(2),
        "w": build.linear(2),
        "li": build.li(tau=1.0),
        "on": build.linear(2),
    }
    nodes |= {"n": build.cubalif(tau_mem=1.0, tau_syn=1.0), "out": build.output()}
    return build.network(nodes, [("in", "w", "li", "on", "n", "out")], seed=0)


@pytest.mark.parametrize(
    ("graph", "message"),
    [
        (
            analog,
            r"node 'li' \(LI\) drives node 'n' \(CubaLIF\), .*: put spiking neurons in between, ",
        ),
        (
            lambda: layer(tau_mem=[np.inf, 0.02]),
            r"node '2' \(CubaLIF\): tau_mem of neuron 0 is infinite: .* alpha or beta is 1.*: give a finite time "
            r"constant, or simulate with engine=TimeStepped\(\)",
        ),
        (
            lambda: layer(v_reset=[0.0, 1.5]),
            r"node '2' \(CubaLIF\): neuron 1 resets to 1.5, not below its v_threshold 1, .*"
            r" without a refractory time .*: lower v_reset",
        ),
        (
            lambda: layer(reset="subtract", v_threshold=[1.0, -1.0]),
            r"neuron 1 resets to 0, not below .* -1",
        ),
        (
            lambda: layer(dialect="snntorch", r=200.0, w_in=100.0),
            r"node '2': .* needs reset, which the file does not say: say reset=",
        ),
        (
            lambda: layer(spike_kernel="box"),
            r"node '2': the neuron model needs dt, which the file does not say: say dt=",
        ),
        (
            lambda: layer(reset="none"),
            r"""node '2' \(CubaLIF\) fires and has reset 'none', .*: pass readout="2" if it is""",
        ),
        (
            lambda: layer(dialect="hxtorch"),
            r"node '2': the neuron model needs the unit of time: say time_unit=",
        ),
        (lambda: layer(dialect="norse", bias=0.1), r"node '2': .* needs the dt .*: say dt_export="),
    ],
    ids=["analog", "tau", "v_reset", "subtract", "reset", "box", "none", "unit", "dt"],
)
def test_what_the_event_engine_cannot_run_is_refused_by_name(graph, message):
    network = lower(graph())
    inputs = Events(time=jnp.array([0.1]), index=jnp.array([0]))
    with pytest.raises(LoweringError, match=message) as refusal:
        simulate(network, inputs, 1.0)
    error = refusal.value
    assert f"node '{error.node}'" in error.problem.message
    assert error.fix
    assert "\n" not in str(error)


def test_a_reset_that_float32_rounds_onto_the_threshold_is_refused():
    """The neuron would fire whenever it may, whatever arrives."""
    graph = layer(v_reset=[0.0, 1 - 1e-9])
    message = (
        r"node '2' \(CubaLIF\): as float32 v_reset of neuron 1 is 1, not below its v_threshold 1: "
        r"lower v_reset or raise v_threshold, or simulate in float64"
    )
    with pytest.raises(LoweringError, match=message):
        simulate(lower(graph, dtype="float32"), ONE_SPIKE, 1.0)
    assert [problem.code for problem in jaxsnn.check(graph, "event").problems] == ["bad-parameter"]
    with jax.enable_x64(True):
        assert "v_reset" not in dict(lower(graph, dtype="float64").populations["2"].obstacles)
    # a reset by subtraction does not ask for v_reset
    subtracted = layer(v_reset=[0.0, 1 - 1e-9], reset="subtract")
    simulate(lower(subtracted, dtype="float32"), ONE_SPIKE, 1.0)


def test_node_types_that_the_event_engine_lacks_are_named_with_those_it_has():
    graph = build.sequential(
        build.input(2), build.linear(2), build.cubalif(tau_mem=1.0, tau_syn=1.0), seed=0
    )
    network = lower(graph)
    wires = [
        dataclasses.replace(wire, kind="Sum", operator=None) if wire.name == "1" else wire
        for wire in network.wires
    ]
    other = jaxsnn.Network(
        parameters=network.parameters, wires=wires, populations=network.populations
    )
    with pytest.raises(
        LoweringError,
        match=r"node '1' is a Sum, .*: replace it by neurons, or by linear nodes such as Linear, .*, Conv2d",
    ):
        simulate(other, ONE_SPIKE, 1.0)


def test_graphs_that_are_no_network_are_refused():
    with pytest.raises(LoweringError, match="the graph has no neurons: add some"):
        lower(build.sequential(build.input(2), build.linear(2), seed=0))
    undecided = layer().with_dialect(jaxsnn.nir.Dialect())
    with pytest.raises(DialectError, match="simulation needs the dialect of the file"):
        lower(undecided)


def test_numbers_that_cannot_be_written_are_refused():
    graph = layer()
    network = lower(graph)
    with pytest.raises(LoweringError, match=r"node '2' \(CubaLIF\): v_leak is nan after training"):
        update_graph(graph, changed(network, "2", v_leak=[np.nan, 0.0]))
    spyx = layer(dialect="spyx", r=0.995, dt=1e-4)
    with pytest.raises(
        LoweringError, match=r"node '2' .*: r cannot be trained in the dialect spyx"
    ):
        update_graph(spyx, changed(lower(spyx), "2", r=[0.5, 0.5]))


def test_a_network_of_another_graph_is_refused():
    with pytest.raises(
        LoweringError, match=r"node '1' has parameters .*\(2, 3\).* in the graph and .*\(4, 3\)"
    ):
        update_graph(layer(), lower(layer(size=4)))
    with pytest.raises(
        LoweringError, match=r"node '1' has parameters .* in the graph and {} in the network"
    ):
        update_graph(layer(), lower(analog()))


def test_numbers_for_all_become_one_for_each_alike(tmp_path):
    """A threshold that is no longer the same for all neurons is written with their axes, and the
    other parameters like it: nir refuses a node whose parameters differ in shape."""
    window = {"stride": [1, 1], "padding": [1, 1], "dilation": [1, 1], "groups": 1}
    window |= {"input_shape": [4, 4]}
    kernel = np.random.default_rng(0).normal(0.3, 0.2, (2, 1, 3, 3)).astype(np.float32)
    neurons = {"tau": np.float32(10e-3), "r": np.float32(1.0), "v_threshold": np.float32(1.0)}
    graph = build.sequential(
        build.input((1, 4, 4)),
        build.node("Conv2d", weight=kernel, bias=np.zeros(2, np.float32), **window),
        build.node("LIF", **neurons, v_leak=np.float32(0.0)),
    )
    alone = {name: np.float32(value) for name, value in (neurons | {"v_leak": 0.0}).items()}
    node = graph.nodes["2"]
    graph = graph.with_nodes([node.replace(**alone)])
    assert {np.shape(value) for value in graph.nodes["2"].parameters.values()} == {()}
    network = lower(graph)
    thresholds = np.linspace(1, 2, 32, dtype=np.float32)
    made = update_graph(graph, changed(network, "2", v_threshold=thresholds))
    node = made.nodes["2"]
    assert {np.shape(value) for value in node.parameters.values()} == {(2, 4, 4)}
    np.testing.assert_array_equal(node.v_threshold, thresholds.reshape(2, 4, 4))
    np.testing.assert_array_equal(node.tau, np.full((2, 4, 4), neurons["tau"]))
    write(tmp_path / "made.nir", made)
    assert nir.read(tmp_path / "made.nir").nodes["2"].tau.shape == (2, 4, 4)
    again = lower(read(tmp_path / "made.nir")).parameters["2"]
    np.testing.assert_array_equal(again["v_threshold"], thresholds)


@pytest.mark.parametrize(
    ("delay", "message"),
    [(-1e-3, "a delay is -0.001 s"), (np.nan, "nan s"), ([np.inf, 0], "inf s")],
)
def test_delays_are_times_from_0_on(delay, message):
    network = lower(layer())
    with pytest.raises(UsageError, match=message):
        jaxsnn.with_synaptic_delays(network, "1", delay)


def test_the_node_that_no_longer_fits_the_step_is_named():
    neurons = build.lif(tau=2e-3, r=20.0)
    layers = [build.linear(1), neurons, build.linear(1), neurons, build.linear(3), neurons]
    graph = build.sequential(build.input(1), *layers, seed=0, dialect="snntorch", reset="zero")
    network = lower(graph)
    apart = changed(network, "6", tau=4e-3 * np.ones(3))
    with pytest.raises(LoweringError, match=r"node '6' has tau = 0\.004 and r = 20"):
        update_graph(graph, apart)


@pytest.mark.parametrize("more", [{}, {"r": 0.95, "tau": 2e-3}])
def test_a_leak_that_a_framework_does_not_know_is_not_written(more):
    neurons = build.lif(tau=1e-3, r=0.9)
    told = {"dialect": "spyx", "time_unit": "s", "dt": 1e-4}
    graph = build.sequential(build.input(1), build.linear(1), neurons, seed=0, **told)
    with pytest.raises(LoweringError, match="v_leak cannot be trained in the dialect spyx"):
        update_graph(
            graph, changed(lower(graph), "2", v_leak=[0.3], **{k: [v] for k, v in more.items()})
        )
