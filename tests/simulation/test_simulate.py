"""One verb and one record: what is refused, what is reported, and what comes out."""

import json
import re
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxsnn
from jaxsnn import EventDriven, Events, Network, Result, TimeStepped, lower, simulate
from jaxsnn.errors import SimulationError, UsageError
from jaxsnn.network.structure import TauShape
from jaxsnn.nir import build
from jaxsnn.simulation.fidelity import compared
from tests.helpers.refusals import assert_refused

T_END = 0.05


def graph(**parameters):
    """Two inputs that meet in "n", a leaky readout "r" behind it; "n" fires a few times."""
    neuron = {"tau_mem": 0.02, "tau_syn": 0.01} | parameters
    nodes = {
        "a": build.input(2),
        "b": build.input(1),
        "wa": build.linear(weight=np.array([[6.0, 2.0], [3.0, 9.0]])),
        "wb": build.linear(weight=np.array([[4.0], [1.0]])),
        "n": build.cubalif(2, **neuron),
        "wr": build.linear(weight=np.array([[1.0, -0.5]])),
        "r": build.cubali(1, tau_mem=0.02, tau_syn=0.01),
        "spikes": build.output(2),
        "voltage": build.output(1),
    }
    chains = [("a", "wa", "n", "wr", "r", "voltage"), ("b", "wb", "n", "spikes")]
    return build.network(nodes, chains)


@pytest.fixture(scope="module")
def network():
    return lower(graph())


def inputs(batch=2):
    a = Events(
        time=jnp.tile(jnp.array([0.001, 0.004, 0.012]), (batch, 1)),
        index=jnp.tile(jnp.array([0, 1, 0]), (batch, 1)),
    )
    b = Events(time=jnp.linspace(0.002, 0.02, batch)[:, None], index=jnp.zeros((batch, 1), int))
    return {"a": a, "b": b}


def changed(network, node, **values):
    """The parameters with other numbers at one node."""
    arrays = {name: jnp.asarray(value) for name, value in values.items()}
    return network.parameters | {node: network.parameters[node] | arrays}


def replaced(network, parameters):
    """The network with other numbers behind its back."""
    return Network(parameters=parameters, wires=network.wires, populations=network.populations)


# Results


def test_a_solution_has_everything_by_name(network):
    solution = simulate(network, inputs(), T_END)
    assert solution.result == Result.SUCCESS
    assert solution.message == "success"
    assert (list(solution.spikes), list(solution.voltages)) == (["n"], ["r"])
    assert solution.spikes["n"].time.shape == (2, 2, 16)
    assert solution.voltages["r"].shape == (2, 101, 1)
    assert dict(solution.outputs) == {"spikes": ("n",), "voltage": ("r",)}
    assert solution.spikes_needed["n"] == solution.spikes["n"].count.max() > 1
    assert solution.clipped_slopes["n"] == 0
    np.testing.assert_array_equal(solution.first_spike("n"), solution.spikes["n"].time[..., 0])


def test_events_are_the_spikes_in_order(network):
    solution = simulate(network, inputs(), T_END)
    events, spikes = solution.events("n"), np.asarray(solution.spikes["n"].time)
    assert events.time.shape == events.index.shape == (2, 32)
    for sample in range(2):
        pairs = sorted(
            (time, neuron)
            for neuron, times in enumerate(spikes[sample])
            for time in times
            if time < np.inf
        )
        used = len(pairs)
        np.testing.assert_array_equal(events.time[sample, :used], [time for time, _ in pairs])
        np.testing.assert_array_equal(events.index[sample, :used], [neuron for _, neuron in pairs])
        assert np.isinf(events.time[sample, used:]).all()
        assert (events.index[sample, used:] == 2).all()
        assert events.count[sample] == used
    assert_refused(
        lambda: solution.events("m"), UsageError, "'m' is not a spiking population: Available: n"
    )


def test_one_sample_needs_no_batch_axis(network):
    batch = simulate(network, inputs(), T_END)
    first = {
        name: Events(time=train.time[0], index=train.index[0]) for name, train in inputs().items()
    }
    alone = simulate(network, first, T_END)
    assert alone.spikes["n"].time.shape == (1, 2, 16)
    np.testing.assert_allclose(alone.spikes["n"].time[0], batch.spikes["n"].time[0], rtol=1e-6)


def test_a_solution_is_a_pytree_that_passes_through_jit(network):
    plain = simulate(network, inputs(), T_END)
    inside = jax.jit(lambda inputs: simulate(network, inputs, T_END))(inputs())
    assert jax.tree.structure(inside) == jax.tree.structure(plain)
    # If the network itself is traced, its time constants are unknown.
    traced = jax.jit(lambda network, inputs: simulate(network, inputs, T_END))(network, inputs())
    for jitted in (inside, traced):
        assert (jitted.outputs, jitted.message) == (plain.outputs, "success")
        assert jitted.drives.keys() == plain.drives.keys()
        # Traced inputs have only the slots that they are given, and so fewer arrivals.
        jitted_leaves, plain_leaves = (
            jax.tree.leaves(replace(solution, drives={})) for solution in (jitted, plain)
        )
        for a, b in zip(jitted_leaves, plain_leaves, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-6)
    doubled = jax.tree.map(lambda leaf: leaf * 2, plain)
    np.testing.assert_array_equal(doubled.spikes["n"].count, plain.spikes["n"].count * 2)


def test_only_first_spikes_of_named_populations(network):
    every = simulate(network, inputs(), T_END)
    first = simulate(network, inputs(), T_END, engine=EventDriven(first_spike_only=("n",)))
    assert first.spikes["n"].time.shape == (2, 2, 1)
    np.testing.assert_allclose(first.spikes["n"].time, every.spikes["n"].time[..., :1], rtol=1e-6)
    assert not np.allclose(first.voltages["r"], every.voltages["r"])


# Refusals


def events(time, index):
    return Events(time=np.array(time), index=np.array(index))


def of_a(train):
    return {**inputs(), "a": train}


@pytest.mark.parametrize(
    ("trains", "message"),
    [
        (events([0.1], [0]), r"the network has 2 inputs \(a, b\): pass a mapping from input names"),
        ({"a": events([0.1], [0])}, "input 'b' has no data"),
        ({**inputs(), "c": events([0.1], [0])}, "the network has no input 'c': .*Available: a, b"),
        (of_a(np.zeros((2, 3))), "input 'a' has type ndarray: pass jaxsnn.Events"),
        (of_a(events([[0.1, 0.2]], [0])), r"input 'a': time has shape \(1, 2\), and index has shape \(1,\)"),
        (of_a(events(np.zeros((1, 1, 1)), np.zeros((1, 1, 1), int))),
         r"pass both with the same shape, \(events,\) or \(batch, ev"),
        (of_a(events(np.zeros((0, 2)), np.zeros((0, 2), int))), "input 'a' has no samples"),
        (of_a(events([[-0.1], [0.1]], [[0], [0]])), "input 'a' has an event at time -0.1 s"),
        (of_a(events([[np.nan], [0.1]], [[0], [0]])), "input 'a' has an event at time nan s"),
        (of_a(Events(time=np.array([[0.1], [1e39]]), index=np.zeros((2, 1), int))),
         r"input 'a' has an event at time 1e\+39 s \(sample 1, slot 0\)"),
        (of_a(Events(time=np.array([[0.1], [1e-300]]), index=np.zeros((2, 1), int))),
         r"input 'a' has an event at time 1e-300 s \(sample 1, slot 0\)"),
        (of_a(Events(time=np.full((2, 1), 0.1, np.longdouble), index=np.zeros((2, 1), int))),
         "input 'a': time has values of type float128"),
        (of_a(events([[0.1], [0.1]], [[0], [2]])),
         r"2 channels \(0 to 1\), but an event has channel 2"),
        (of_a(events([[0.1], [0.1]], [[0], [-1]])), "an event has channel -1"),
        (of_a(inputs(3)["a"]), r"different batch sizes {'a': 3, 'b': 2}"),
    ],
    ids=range(15),
)  # fmt: skip
def test_inputs_that_do_not_fit_are_refused(network, trains, message):
    assert_refused(lambda: simulate(network, trains, T_END), UsageError, message)


def test_unused_slots_may_name_any_channel(network):
    a = inputs()["a"]
    padded = Events(
        time=jnp.pad(a.time, ((0, 0), (1, 2)), constant_values=jnp.inf),
        index=jnp.pad(a.index, ((0, 0), (1, 2)), constant_values=-1),
    )
    times, expected = (
        simulate(network, trains, T_END).spikes["n"].time for trains in (of_a(padded), inputs())
    )
    np.testing.assert_allclose(times, expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda network: simulate(network, inputs(), "30ms"),
            "t_end is '30ms' s: pass a positive, finite time in seconds",
        ),
        (lambda network: simulate(network, inputs(), np.ones(2)), "t_end is array"),
        (
            lambda network: simulate(network, inputs(), "30ms", engine=TimeStepped(dt=1e-3)),
            "t_end is '30ms' s: pass a positive, finite time in seconds",
        ),
        (
            lambda network: simulate(network, inputs(), T_END, engine=TimeStepped(dt="1ms")),
            "dt = '1ms' s: pass a positive dt in seconds",
        ),
        (
            lambda network: simulate(network, inputs(), T_END, engine=EventDriven),
            r"engine is the class EventDriven, not an instance: pass an instance, EventDriven\(\)",
        ),
        (
            lambda network: simulate(network, of_a(Events(time=["1ms"], index=[0])), T_END),
            "time has values of type <U3: pass numbers; times are in seconds",
        ),
        (
            lambda network: simulate(
                network, of_a(Events(time=[[0.0], []], index=[[0], []])), T_END
            ),
            "time has rows of different lengths: pad shorter rows",
        ),
        (
            lambda network: jaxsnn.stream("net.nir"),
            r"type Network, not str: pass jaxsnn.lower",
        ),
        (
            lambda network: jaxsnn.write("n.nir", network),
            "an object of type Network is not a Graph: pass the graph",
        ),
        (
            lambda network: jaxsnn.write(None, graph()),
            "a NoneType is not a path: pass the path first",
        ),
        (
            lambda network: jaxsnn.read(None),
            "a NoneType is not a path: pass the path of a NIR file",
        ),
        (
            lambda network: jaxsnn.read(graph()),
            "a Graph is not a path: pass the path of a NIR file",
        ),
        (
            lambda network: jaxsnn.from_torch(graph(), np.ones((1, 2))),
            "an object of type Graph is not a torch.nn.Module: pass the module; jaxsnn.to_torch converts",
        ),
        (
            lambda network: jaxsnn.load_into(graph(), graph()),
            "an object of type Graph is not a torch.nn.Module: pass the module",
        ),
        (
            lambda network: jaxsnn.check_mapping(graph(), graph()),
            r"type Mapping, not Graph: pass jaxsnn.place_and_route\(net\).mapping",
        ),
        (
            lambda network: jaxsnn.simulate(
                network,
                {"a": np.full((5, 1, 2), "1"), "b": np.ones((5, 1, 1))},
                engine=jaxsnn.TimeStepped(dt=1e-3),
            ),
            "input 'a' has values of type <U1: pass numbers",
        ),
        (
            lambda network: jaxsnn.simulate(
                network,
                {"a": np.ones((2, 1, 2)), "b": [[[1]], [[]]]},
                engine=jaxsnn.TimeStepped(dt=1e-3),
            ),
            "input 'b' has rows of different lengths: pad shorter rows",
        ),
        (
            lambda network: jaxsnn.Currents.held([[["a"]]], 1e-3),
            "x has values of type <U1: pass numbers",
        ),
        (
            lambda network: jaxsnn.check("n.nir", "event"),
            "an object of type str is not a Graph: read it first",
        ),
        (lambda network: jaxsnn.quantize(network), "an object of type Network is not a Graph"),
        (
            lambda network: jaxsnn.convert(network, to="norse"),
            "an object of type Network is not a Graph",
        ),
        (lambda network: jaxsnn.lower(network), "an object of type Network is not a Graph"),
        (
            lambda network: jaxsnn.update_graph(network, graph()),
            "an object of type Network is not a Graph",
        ),
        (lambda network: jaxsnn.place_and_route(graph()), r"pass jaxsnn.quantize\(graph\).netlist"),
        (lambda network: jaxsnn.fidelity(graph(), np.ones((5, 1, 2))), 'pass {"x": array}'),
        (
            lambda network: jaxsnn.lower(graph(), dtype="float16"),
            "networks support only float32 and float64",
        ),
        (lambda network: jaxsnn.lower(graph(), dtype="single precision"), "float32 and float64"),
        (lambda network: jaxsnn.Currents.held(np.ones((5, 1, 2)), 0), "dt is 0: pass a positive"),
        (lambda network: jaxsnn.Currents.held(np.ones((5, 1, 2)), "1ms"), "dt is '1ms': pass"),
        (
            lambda network: jaxsnn.with_synaptic_delays(network, "wa", np.ones((3, 3))),
            r"delay has shape \(3, 3\), but its weight has shape \(2, 2\): pass one delay",
        ),
        (
            lambda network: jaxsnn.with_synaptic_delays(network, "wa", "1ms"),
            "delay is '1ms': pass a delay in seconds",
        ),
        (lambda network: build.input(2.5), "a size is 2.5: pass integers of at least 1"),
        (lambda network: build.input((2, 0)), r"a size is \(2, 0\): pass integers"),
    ],
)
def test_something_else_than_is_wanted_is_refused_in_words(network, call, message):
    """Text for a number, a class for its object, a network for a graph: no error of NumPy's."""
    assert_refused(lambda: call(network), UsageError, message)


def test_a_size_may_be_a_number_of_numpy():
    assert build.input(np.prod((2, 3))).size == (6,)


def test_a_graph_that_is_written_to_a_graph_is_told_the_order():
    message = r"pass the path first: write\(path, graph\)"
    assert_refused(lambda: jaxsnn.write(graph(), "net.nir"), UsageError, message)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_spikes": 1.5}, "max_spikes is 1.5 for 'n': pass an integer of at least 1"),
        ({"max_spikes": np.inf}, "max_spikes is inf for 'n': pass an integer of at least 1"),
        ({"max_spikes": 0}, "max_spikes is 0 for 'n': pass an integer of at least 1"),
        ({"threads": 1.5}, "threads is 1.5: pass an integer of at least 1"),
        ({"max_spikes": "many"}, "max_spikes is 'many' for 'n': pass an integer of at least 1"),
        ({"refractory": "2ms"}, "refractory is '2ms' for 'n': pass a value of at least 0"),
        ({"min_slope": "small"}, "min_slope is 'small': pass a value of at least 0"),
        ({"forward_mode": "no"}, "forward_mode is 'no': pass True or False"),
        ({"threads": "all"}, "threads is 'all': pass an integer of at least 1"),
        ({"first_spike_only": ("m",)},
         "first_spike_only contains 'm', which is not a spiking population: .*Available: n"),
        ({"first_spike_only": ("r",)},
         "first_spike_only contains 'r', which is not a spiking population"),
        *(({"first_spike_only": only}, re.escape(f"first_spike_only is {only!r}: pass True, False, or"))
          for only in ("n", 1, None, [2])),
        ({"first_spike_only": {"n": True}}, r"first_spike_only is \(\('n', True\),\): pass True, False"),
        *(({option: several}, re.escape(f"{option} is {several!r}"))
          for option in ("max_spikes", "max_events", "refractory")
          for several in ([4], (4,), np.array([4, 5]), ("n",))),
        *(({option: {3: 4, "n": 4}}, f"{option} contains 3, which is not a population")
          for option in ("max_spikes", "max_events", "refractory")),
    ],
)  # fmt: skip
def test_options_that_make_no_sense_are_refused(network, options, message):
    engine = EventDriven(**options)
    assert_refused(lambda: simulate(network, inputs(), T_END, engine=engine), UsageError, message)


def test_the_end_is_needed_for_events(network):
    assert_refused(lambda: simulate(network, inputs()), UsageError, "t_end is missing")


@pytest.mark.parametrize("array", [np.array, jnp.array])
def test_options_may_be_arrays_of_one_number(network, array):
    arrays = {"max_spikes": {"n": array(20.0)}, "min_slope": array(0.25), "refractory": array(0.5)}
    plain = {"max_spikes": {"n": 20}, "min_slope": 0.25, "refractory": 0.5}
    solution, expected = (
        simulate(network, inputs(), T_END, engine=EventDriven(**options))
        for options in (arrays, plain)
    )
    assert jax.tree.structure(solution) == jax.tree.structure(expected)  # includes min_slope
    assert jnp.array_equal(solution.spikes["n"].time, expected.spikes["n"].time)


@pytest.mark.parametrize("array", [np.array, jnp.array])
def test_options_in_time_steps_may_be_arrays_and_lists(array):
    neurons = build.lif(1, tau="10ms")
    network = lower(build.sequential(build.input(1), neurons, spike_kernel="delta"))
    steps = 20 * np.ones((5, 1, 1), np.float32)
    solution, expected = (
        simulate(network, steps, engine=TimeStepped(dt=dt, record=record))
        for dt, record in ((array(1e-3), ["1"]), (float(array(1e-3)), ("1",)))
    )
    assert jnp.array_equal(solution.output(), expected.output())
    assert jnp.array_equal(solution.count("1"), expected.count("1"))


# Notes


def test_events_behind_the_end_are_counted(network):
    late = {
        name: Events(time=train.time.at[0, 0].set(T_END), index=train.index)
        for name, train in inputs().items()
    }
    counts = simulate(network, late, T_END).late
    assert {name: int(count) for name, count in counts.items()} == dict.fromkeys(late, 1)
    assert not any(simulate(network, inputs(), T_END).late.values())


def test_an_exhausted_budget_says_how_many_spikes_it_takes(network):
    needed = int(simulate(network, inputs(), T_END).spikes_needed["n"])
    assert needed > 1
    message = rf"a neuron of 'n' fires {needed} spikes, and the budget is 1 .*: pass max_spikes={needed} or more"
    short = partial(simulate, network, t_end=T_END, engine=EventDriven(max_spikes=1))
    assert_refused(lambda: short(inputs()), SimulationError, message)
    for solution in (short(inputs(), throw=False), jax.jit(short)(inputs())):
        assert solution.result == Result.BUDGET_EXHAUSTED


def test_without_an_engine_there_is_room_for_all_spikes():
    """Outside of jit, where the result can be seen; a gradient is that with the room given."""
    neurons = build.cubalif(tau_mem="10ms", tau_syn="5ms")
    network = lower(build.sequential(build.input(1), build.linear(weight=[[9.0]]), neurons))
    events = Events(time=np.arange(40)[None] * 1e-3, index=np.zeros((1, 40), int))

    def last_spike(parameters, engine=None):
        solution = simulate(network.with_parameters(parameters), events, 50e-3, engine=engine)
        times = solution.spikes["2"].time
        return jnp.where(jnp.isfinite(times), times, 0.0).max()

    enough = EventDriven(max_spikes=400)
    solution = simulate(network, events, 50e-3, engine=enough)
    for throw in (True, False):
        automatic = simulate(network, events, 50e-3, throw=throw)
        assert automatic.result == Result.SUCCESS
        assert automatic.counts["2"] == solution.counts["2"] > 16
    assert jax.jit(lambda: simulate(network, events, 50e-3))().result == Result.BUDGET_EXHAUSTED
    for engine in (None, EventDriven(max_spikes="auto")):
        slopes = jax.grad(partial(last_spike, engine=engine))(network.parameters)
        exact = jax.grad(partial(last_spike, engine=enough))(network.parameters)
        assert slopes["1"]["weight"] == exact["1"]["weight"] != 0


@pytest.mark.parametrize(
    ("node", "name", "value"),
    [
        ("wa", "weight", np.nan),
        ("wr", "weight", np.inf),
        ("n", "v_threshold", np.nan),
        ("n", "tau_mem", np.nan),
    ],
)
def test_numbers_that_are_none_are_reported(network, node, name, value):
    array = np.array(network.parameters[node][name])
    array.flat[0] = value
    run = partial(
        simulate, network.with_parameters(changed(network, node, **{name: array})), inputs(), T_END
    )
    message = rf"'{node}': {name}\[0.*\] is {value:g}"
    assert_refused(run, SimulationError, message, node=node, code="not-finite")
    assert run(throw=False).result == Result.NOT_FINITE


@pytest.mark.parametrize(
    ("neuron", "more"),
    [
        (build.cubalif, {"tau_mem": 0.02, "tau_syn": 0.01}),
        (build.lif, {"tau": 0.02}),
        (build.integrate_and_fire, {}),
    ],
)
@pytest.mark.parametrize("kernel", ["delta", "box"])
@pytest.mark.parametrize("only", [False, True])
def test_finite_parameters_whose_product_is_infinite_are_reported(neuron, more, kernel, only):
    events = Events(time=jnp.array([0.01]), index=jnp.array([0]))
    for weight, bias in ((3e38, 0.0), (1.0, 3e38), (1.0, -3e38)):
        linear = build.affine(weight=np.array([[weight]]), bias=np.array([bias]))
        layers = build.input(1), linear, neuron(1, r=100.0, **more)
        large = lower(
            build.sequential(*layers, dialect="nir", time_unit="s", spike_kernel=kernel, dt=1e-3)
        )
        solution = simulate(
            large, events, T_END, engine=EventDriven(first_spike_only=only), throw=False
        )
        assert solution.result == Result.NOT_FINITE


@jax.jit
def result_inside(network, events, t_end):
    return simulate(network, events, t_end).result


@pytest.mark.parametrize(
    ("time", "index", "t_end", "result"),
    [
        (-0.1, 0, T_END, Result.INVALID_INPUT),
        (0.1, 2, T_END, Result.INVALID_INPUT),
        (0.1, -1, T_END, Result.INVALID_INPUT),
        (0.1, 1, -T_END, Result.INVALID_INPUT),
        (np.nan, 0, T_END, Result.NOT_FINITE),
        (np.inf, 7, T_END, Result.SUCCESS),
    ],
)
def test_inside_jit_inputs_are_checked_too(network, time, index, t_end, result):
    events = {**inputs(), "a": Events(time=jnp.full((2, 3), time), index=jnp.full((2, 3), index))}
    assert result_inside(network, events, t_end) == result


@pytest.mark.parametrize(
    "taus",
    [
        {"tau_mem": [0.021, 0.02]},  # the ratio is no longer 2
        {"tau_mem": [0.02, 0.03], "tau_syn": [0.01, 0.015]},  # the neurons are no longer equal
        {"tau_mem": [0.01, 0.01]},  # equal to tau_syn
    ],
)
def test_time_constants_may_change_behind_the_networks_back(network, x64, taus):
    """The network was lowered for tau_mem = 2 tau_syn in all neurons, and solves a quadratic."""
    network = lower(graph(), dtype=float)
    assert network.populations["n"].tau_shape is TauShape.DOUBLE
    parameters = changed(network, "n", **taus)
    stale = replaced(network, parameters)
    right = simulate(
        replaced(lower(graph(), dtype=float, free_time_constants=True), parameters), inputs(), T_END
    )
    assert right.spikes["n"].count.sum() > 5
    inside = jax.jit(lambda network: simulate(network, inputs(), T_END))(stale)
    for solution in (simulate(stale, inputs(), T_END), inside):
        np.testing.assert_allclose(
            solution.spikes["n"].time, right.spikes["n"].time, rtol=1e-12, atol=1e-15
        )
        np.testing.assert_allclose(solution.voltages["r"], right.voltages["r"], rtol=1e-9)


@pytest.mark.parametrize("jit", [False, True])
def test_optax_moves_the_parameters_of_a_network_also_where_time_constants_part(x64, jit):
    """Steps on all leaves of a network, taus of each neuron among them, against the same steps where
    nothing is assumed of them.
    """

    def trained(network):
        def loss(network):
            times = simulate(network, inputs(), T_END).spikes["n"].time
            return jnp.sum(jnp.where(jnp.isfinite(times), (times - 0.02) ** 2, 0.0))

        optimiser = optax.sgd(1e-3)
        memory = optimiser.init(network)

        def step(network, memory):
            value, gradient = jax.value_and_grad(loss)(network)
            updates, memory = optimiser.update(gradient, memory)
            return optax.apply_updates(network, updates), memory, value

        step = jax.jit(step) if jit else step
        for _ in range(3):
            network, memory, value = step(network, memory)
        return network, simulate(network, inputs(), T_END).spikes["n"].time, value

    network, times, value = trained(lower(graph(), dtype=float))
    moved = np.asarray(network.parameters["n"]["tau_mem"]) / network.parameters["n"]["tau_syn"]
    assert abs(moved - 2).max() > 1e-6
    free, free_times, free_value = trained(lower(graph(), dtype=float, free_time_constants=True))
    assert float(value) == pytest.approx(float(free_value), rel=1e-9)
    np.testing.assert_allclose(times, free_times, rtol=1e-9)
    for ours, theirs in zip(jax.tree.leaves(network), jax.tree.leaves(free), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-12)


def test_parameters_that_are_the_very_arrays_of_before_keep_what_is_known(network):
    other_weights = network.with_parameters(changed(network, "wa", weight=np.ones((2, 2))))
    assert other_weights.populations == network.populations
    looked_up = network.with_parameters(changed(network, "n", tau_mem=[0.01, 0.01]))
    assert (looked_up.populations["n"].tau_shape, looked_up.populations["n"].uniform) == (
        TauShape.EQUAL,
        True,
    )
    mixed = network.with_parameters(
        changed(network, "n", tau_mem=[0.02, 0.01], tau_syn=[0.01, 0.005])
    )
    assert (mixed.populations["n"].tau_shape, mixed.populations["n"].uniform) == (
        TauShape.DOUBLE,
        False,
    )


def test_a_network_is_a_pytree_of_its_parameters(network):
    leaves, structure = jax.tree.flatten(network)
    assert len(leaves) == sum(map(len, network.parameters.values()))
    again = jax.tree.unflatten(structure, leaves)
    assert again.parameters == network.parameters
    assert (again.wires, again.populations) == (network.wires, network.populations)
    paths = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(network)]
    assert ".parameters['n']['tau_mem']" in paths


CODE = """
import hashlib
import jax.numpy as jnp, numpy as np
from jaxsnn import EventDriven, Events, lower, simulate
from jaxsnn.nir import build, initializers

nodes = {name: build.input(3) for name in ("left", "right", "middle")}
nodes |= {f"to {name}": build.linear(12, weight=initializers.normal(4.0, 3.0)) for name in nodes}
nodes |= {"n": build.cubalif(tau_mem="20ms", tau_syn="7ms"), "w": build.linear(3)}
nodes |= {"m": build.cubalif(tau_mem="10ms", tau_syn="5ms"), "out": build.output()}
chains = [(name, f"to {name}", "n") for name in ("left", "right", "middle")]
chains += [("n", "w", "m", "out"), ("left", "m")]
graph = build.network(nodes, chains, seed=0)
rng = np.random.default_rng(0)
inputs = {
    name: Events(time=jnp.asarray(rng.uniform(0, 0.03, (4, 6))), index=jnp.asarray(rng.integers(0, 3, (4, 6))))
    for name in ("middle", "left", "right")
}
solution = simulate(lower(graph), inputs, 0.05, engine=EventDriven(max_spikes=64))
assert all(int(spikes.count.sum()) > 10 for spikes in solution.spikes.values())
for name, spikes in solution.spikes.items():
    print(name, hashlib.sha256(np.asarray(spikes.time).tobytes()).hexdigest())
"""


def test_hash_seeds_change_no_bit(run_python):
    outputs = [run_python(CODE, PYTHONHASHSEED=seed).stdout for seed in ("0", "1")]
    assert outputs[0] == outputs[1]
    assert len(outputs[0].splitlines()) == 2


@pytest.mark.parametrize("kind", [tuple, list, set, np.array])
def test_names_may_be_in_any_collection(kind):
    engine = EventDriven(first_spike_only=kind(["2"]))
    assert engine.hashable() == EventDriven(first_spike_only=("2",)).hashable()


@pytest.mark.parametrize("kind", [bool, np.bool_, np.array, jnp.array])
@pytest.mark.parametrize("only", [False, True])
def test_truths_of_numpy_are_truths(network, kind, only):
    engine = EventDriven(first_spike_only=kind(only), max_spikes=np.int64(32))
    counts = simulate(network, inputs(), T_END, engine=engine).count("n")
    assert (int(counts.max()) == 1) == only
    assert engine.with_room({"max_spikes": {"n": 40}}).max_spikes == 40
    content = json.loads(json.dumps(engine.as_dict()))
    assert (content["first_spike_only"], content["max_spikes"]) == (only, 32)


def test_spikes_in_steps_become_events():
    raster = np.random.default_rng(0).integers(0, 3, (5, 2, 2, 2))
    trains = Events.of_steps(raster, dt=1e-3)
    for sample, step in np.ndindex(2, 5):
        in_step = np.isclose(trains.time[sample], step * 1e-3)
        counts = np.bincount(np.asarray(trains.index)[sample][in_step], minlength=4)
        np.testing.assert_array_equal(counts, raster[step, sample].reshape(-1))


@pytest.mark.parametrize(
    ("x", "dt", "message"),
    [
        (np.zeros((5, 2)), 1e-3, r"shape \(5, 2\)"),
        (np.full((5, 1, 1), 0.5), 1e-3, "only integers of at least 0"),
        (np.ones((5, 1, 1)), 0.0, "dt is 0"),
        (np.ones((5, 1, 1)), "1ms", "dt is '1ms'"),
    ],
)
def test_arrays_that_are_no_spikes_in_steps_are_refused(x, dt, message):
    assert_refused(lambda: Events.of_steps(x, dt), UsageError, message)


@pytest.mark.parametrize("dt", [1e-3, 1e-4, 2e-3])
def test_spikes_at_steps_are_one_in_each(dt):
    """A time at k dt is of step k, on whichever side float32 has it."""
    times = (np.arange(200) * dt).astype(np.float32)[None, None]
    comparison = compared(times, np.array([[200.0]]), dt)
    assert (comparison.event, comparison.multi_spike_steps) == (200, 0)
    twice = np.sort(np.concatenate([times, times + np.float32(0.4 * dt)], axis=2), axis=2)
    assert compared(twice, np.array([[400.0]]), dt).multi_spike_steps == 200
