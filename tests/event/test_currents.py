"""Currents and graded events as inputs: against a slow reference, against biases and spikes that are
the same thing, and their gradients.
"""

import itertools
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsnn.errors import LoweringError, Note, UsageError
from jaxsnn.event.event_driven import EventDriven
from jaxsnn.network.lowering.lower import lower
from jaxsnn.network.network import Network
from jaxsnn.network.results import Result
from jaxsnn.network.signals import signals
from jaxsnn.network.spikes import Events
from jaxsnn.network.structure import Population, Wire
from jaxsnn.network.valued_inputs import Currents, GradedEvents, as_lasting, changes
from jaxsnn.nir import build
from jaxsnn.simulation.simulate import simulate
from tests.event.agreement import assert_trees_close, finite_times, sorted_finite
from tests.event.differences import ENOUGH, relative_errors
from tests.event.draft import Draft, with_matrices
from tests.helpers.refusals import assert_refused
from tests.oracles import continuous_time

T_END, SAMPLES, STEP, WIDTH = 5.0, 2, 0.6, 0.25
ENGINE = EventDriven(max_spikes=64)

pytestmark = [pytest.mark.usefixtures("x64")]


def wire(name, kind, sources, size):
    return Wire(name=name, kind=kind, sources=tuple(sources), shape=(size,))


def neurons(rng, kind, size):
    """Parameters with NIR's names; each neuron has its own."""
    p = {"r": rng.uniform(0.6, 1.4, size)}
    if kind not in ("IF", "I"):
        p |= {"v_leak": rng.normal(0, 0.1, size)}
    if kind in ("LIF", "LI"):
        p |= {"tau": rng.uniform(0.5, 2.0, size)}
    if kind.startswith("Cuba"):
        p |= {name: rng.uniform(0.5, 2.0, size) for name in ("tau_mem", "tau_syn", "w_in")}
    if kind.endswith("F"):
        p |= {"v_threshold": rng.uniform(0.8, 1.2, size), "v_reset": rng.normal(-0.2, 0.1, size)}
    return p


def mixed_network(kind, readout, recurrent, seed=0):
    """A current input "x" and box spikes "s" into a population "h", which may feed itself; it, and "x"
    once more, into a readout "o".
    """
    rng = np.random.default_rng(seed)
    hidden, out = 4, 2
    weights = {
        "wx": ("x", rng.normal(0.7, 1.0, (hidden, 3))),
        "ws": ("s", rng.normal(0.4, 1.0, (hidden, 2))),
        "wr": ("h", rng.normal(0.1, 0.4, (hidden, hidden))),
        "wo": ("h", rng.normal(0.5, 1.0, (out, hidden))),
        "wd": ("x", rng.normal(0.0, 1.0, (out, 3))),
    }
    if not recurrent:
        del weights["wr"]
    linear = {
        name: wire(name, "Linear", (source,), len(weight))
        for name, (source, weight) in weights.items()
    }
    into_hidden = [name for name in ("wx", "ws", "wr") if name in weights]
    wires = [
        wire("x", "input", (), 3),
        wire("s", "input", (), 2),
        *(linear[name] for name in into_hidden),
        wire("h", "neuron", into_hidden, hidden),
        linear["wo"],
        linear["wd"],
        wire("o", "neuron", ("wo", "wd"), out),
        wire("output", "output", ("o",), out),
    ]
    rules = {"spike_area": 0.3, "spike_kernel": "box", "dt": WIDTH}
    populations = {
        "h": Population(name="h", kind=kind, size=hidden, **rules),
        "o": Population(name="o", kind=readout, size=out, **rules),
    }
    parameters = {name: {"weight": weight} for name, (_, weight) in weights.items()}
    parameters |= {"h": neurons(rng, kind, hidden), "o": neurons(rng, readout, out)}
    network = Network(
        parameters=jax.tree.map(jnp.asarray, parameters), wires=wires, populations=populations
    )
    x = rng.uniform(-1.0, 2.5, (6, SAMPLES, 3))
    x[4] = 0.0
    time = np.sort(rng.uniform(0, 4.0, (SAMPLES, 5)), axis=1)
    events = Events(time=jnp.asarray(time), index=jnp.asarray(rng.integers(0, 2, time.shape)))
    return network, {"x": jax.tree.map(jnp.asarray, Currents.held(x, STEP)), "s": events}


def slow(*cases):
    return [pytest.param(*case, marks=pytest.mark.slow) for case in cases]


#: Kind of the population, kind of the readout, whether the population feeds itself.
CASES = [("LIF", "CubaLI", False), ("CubaLIF", "LI", True)]
SLOW_CASES = slow(("CubaLIF", "CubaLI", False), ("IF", "I", False), ("LIF", "LI", True))


def reference(network, inputs, sample, sample_times):
    populations = {
        name: continuous_time.Neurons(
            kind=population.kind,
            parameters={key: np.asarray(value) for key, value in network.parameters[name].items()},
            area=population.spike_area,
            width=population.dt,
        )
        for name, population in network.populations.items()
    }
    synapses = [
        continuous_time.Synapses(
            source=linear.sources[0],
            target="o" if linear.name in ("wo", "wd") else "h",
            weight=np.asarray(network.parameters[linear.name]["weight"]),
        )
        for linear in network.wires
        if linear.kind == "Linear"
    ]
    currents, events = inputs["x"], inputs["s"]
    pieces = [
        (float(time), channel, float(value))
        for time, values in zip(currents.time[sample], currents.value[sample], strict=True)
        for channel, value in enumerate(values)
    ]
    spikes = list(zip(events.time[sample].tolist(), events.index[sample].tolist(), strict=True))
    return continuous_time.simulate(
        populations, synapses, {"s": spikes}, T_END, sample_times, currents={"x": pieces}
    )


@pytest.mark.parametrize(("kind", "readout", "recurrent"), [*CASES, *SLOW_CASES])
def test_spikes_and_voltages_agree_with_the_oracle(kind, readout, recurrent):
    network, inputs = mixed_network(kind, readout, recurrent)
    times = np.linspace(0.01, T_END - 0.01, 23)
    solution = simulate(network, inputs, T_END, sample_times=times, engine=ENGINE)
    for sample in range(SAMPLES):
        expected = reference(network, inputs, sample, times)
        for neuron, spikes in enumerate(expected.spikes["h"]):
            simulated = sorted_finite(solution.spikes["h"].time[sample, neuron])
            np.testing.assert_allclose(simulated, spikes, atol=1e-9)
        voltages = np.asarray(solution.voltages["o"][sample])
        np.testing.assert_allclose(voltages, expected.samples["o"], atol=1e-9)
    assert int(solution.count("h").sum()) > 10


@pytest.mark.parametrize(("kind", "readout", "recurrent"), [CASES[0], *slow(CASES[1]), *SLOW_CASES])
def test_gradients_by_values_times_and_parameters_agree_with_differences(kind, readout, recurrent):
    network, inputs = mixed_network(kind, readout, recurrent)
    rng = np.random.default_rng(7)
    spike_weights, voltage_weights = (
        rng.normal(size=(SAMPLES, 4, 64)),
        rng.normal(size=(SAMPLES, 5, 2)),
    )
    sample_times = np.linspace(0.5, T_END, 5)

    def loss(tree):
        parameters, currents = tree
        solution = simulate(
            network.with_parameters(parameters),
            {"x": currents, "s": inputs["s"]},
            T_END,
            sample_times=sample_times,
            engine=ENGINE,
            throw=False,
        )
        spikes = solution.spikes["h"]
        total = jnp.sum(finite_times(spikes.time) ** 2 * spike_weights)
        total += jnp.sum(solution.voltages["o"] * voltage_weights)
        return total, (spikes.count, solution.result)

    tree = network.parameters, inputs["x"]
    gradient, (_, result) = jax.jit(jax.grad(loss, has_aux=True))(tree)
    assert result == Result.SUCCESS
    # No differences: a piece at time 0 cannot come earlier, and the last time is no change.
    errors = relative_errors(gradient, loss, tree)
    assert np.isfinite(errors).mean() > 0.8
    assert np.nanmax(errors) < ENOUGH
    assert float(abs(gradient[1].value).max()) > 0.1


# -- level of a current


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_changes_add_up_to_the_values_to_the_last_digit(dtype):
    rng = np.random.default_rng(0)
    values = (rng.normal(size=(2, 40, 5)) * 10.0 ** rng.integers(-3, 3, (2, 1, 5))).astype(dtype)
    values[:, ::7] = 0
    levels = np.cumsum(np.asarray(changes(jnp.asarray(values))), axis=1, dtype=dtype)
    atol = 2 * np.finfo(dtype).eps * abs(values).max()
    np.testing.assert_allclose(levels, values, rtol=0, atol=atol)
    assert (levels[:, ::7] == 0).all()
    slope = jax.jacrev(changes)(jnp.asarray(values[:1, :3, :1]))
    np.testing.assert_array_equal(slope[0, :, 0, 0, :, 0], [[1, 0, 0], [-1, 1, 0], [0, -1, 1]])


def one_population(kind, size=2, weight=None, inputs=3, constant=None, **rules):
    """An input, a Linear or Affine, a population "n"."""
    rng = np.random.default_rng(5)
    weight = rng.uniform(0.8, 2.5, (size, inputs)) if weight is None else weight
    linear = {"weight": weight} if constant is None else {"weight": weight, "bias": constant}
    wires = [
        wire("in", "input", (), inputs),
        wire("w", "Linear" if constant is None else "Affine", ("in",), size),
        wire("n", "neuron", ("w",), size),
        wire("out", "output", ("n",), size),
    ]
    parameters = jax.tree.map(jnp.asarray, {"w": linear, "n": neurons(rng, kind, size)})
    population = Population(name="n", kind=kind, size=size, **{"spike_area": 1.0} | rules)
    return Network(parameters=parameters, wires=wires, populations={"n": population})


def spikes_of(network, inputs, t_end=T_END, engine=ENGINE):
    return simulate(network, inputs, t_end, engine=engine).spikes["n"]


def test_nothing_is_left_of_a_current_that_has_ended():
    """An integrator keeps for ever what is left, and here nothing is."""
    network = one_population("I")
    x = np.random.default_rng(1).normal(size=(50, 1, 3))
    times = np.array([0.51, 0.6, 50.0, 1e6])
    for dtype in (jnp.float64, jnp.float32):
        parameters = jax.tree.map(
            lambda array, dtype=dtype: array.astype(dtype), network.parameters
        )
        rounded = network.with_parameters(parameters)
        solution = simulate(rounded, Currents.held(x, 0.01), 2e6, sample_times=times)
        after = np.asarray(solution.voltages["n"][0])
        assert (after == after[0]).all()


@pytest.mark.parametrize(
    ("kind", "step"),
    [("LIF", True), ("CubaLIF", True), *slow(("LIF", False), ("CubaLIF", False), ("IF", True))],
)
def test_a_constant_current_is_a_bias(kind, step):
    """Also where the framework adds a bias once in each step, like a spike of another area."""
    rules = {"dt": 0.1, "bias": "step", "spike_area": 0.17} if step else {}
    plain = one_population(kind, **rules)
    x = np.array([[0.7, -0.2, 1.9]])
    biased = one_population(
        kind, constant=np.asarray(plain.parameters["w"]["weight"]) @ x[0], **rules
    )
    nothing = Events(time=jnp.full((1, 1), jnp.inf), index=jnp.zeros((1, 1), int))
    spikes = spikes_of(plain, Currents.constant(x))
    np.testing.assert_allclose(spikes.time, spikes_of(biased, nothing).time, rtol=1e-12)
    assert int(spikes.count.sum()) > 2


FAST = [("CubaLIF", "delta", "native"), ("LIF", "box", "native"), ("IF", "delta", "xla")]
COMBINATIONS = itertools.product(("CubaLIF", "LIF", "IF"), ("delta", "box"), ("native", "xla"))


@pytest.mark.parametrize(
    ("kind", "kernel", "backend"),
    [*FAST, *slow(*(case for case in COMBINATIONS if case not in FAST))],
)
def test_a_lasting_current_does_what_a_piece_of_a_current_does(kind, kernel, backend, request):
    """It is simulated as a bias of each sample; spikes, gradients and maxima are those of arrivals."""
    if backend == "native":
        request.getfixturevalue("native_kernels")
    network = one_population(kind, size=4, constant=np.full(4, 0.1), spike_kernel=kernel, dt=0.1)
    lasting = Currents.constant(np.array([[0.7, -0.2, 1.9], [0.1, 1.4, 0.6], [-0.5, 0.3, 0.2]]))
    assert lasting.lasting
    weights = np.random.default_rng(5).normal(size=(3, 4, 64))

    def loss(tree, engine):
        parameters, currents = tree
        solution = simulate(network.with_parameters(parameters), currents, T_END, engine=engine)
        times = solution.spikes["n"].time
        return jnp.sum(finite_times(times) ** 2 * weights), (times, solution.maximum("n"))

    results = []
    for currents, used_backend in ((lasting, backend), (replace(lasting, lasting=False), "xla")):
        tree = network.parameters, jax.tree.map(jnp.asarray, currents)
        results.append(jax.grad(loss, has_aux=True)(tree, replace(ENGINE, backend=used_backend)))
    assert_trees_close(*map(jax.tree.leaves, results), rtol=1e-8, atol=0.0, absolute=1e-9)
    (_, by_currents), (times, _) = results[0]
    assert np.isfinite(times).sum() > 5
    assert abs(by_currents.time).max() > 0.1


def test_a_lasting_current_that_begins_later_is_none():
    network = one_population("CubaLIF")
    late = replace(Currents.constant(np.ones((1, 3))), time=np.full((1, 1), 0.5))
    expected = spikes_of(network, replace(late, lasting=False))
    np.testing.assert_array_equal(spikes_of(network, late).time, expected.time)
    assert int(expected.count.sum()) > 0
    traced = jax.jit(partial(simulate, network, t_end=T_END, engine=ENGINE, throw=False))
    assert int(traced(late).result) == Result.NOT_FINITE


def test_a_current_held_to_the_end_is_a_lasting_one():
    network, x = one_population("CubaLIF"), np.array([[[0.7, 0.2, 1.9]]])
    held = Currents.held(np.repeat(x, 50, axis=0), T_END / 50)
    single = Currents(time=jnp.zeros((1, 1)), value=jnp.asarray(x[0, None]))
    # If the current is traced, its duration is unknown.
    traced = jax.jit(lambda currents: spikes_of(network, currents).time)
    for currents, end in [(held, T_END), (held, T_END * 1.5), (single, T_END)]:
        assert as_lasting(currents, end).lasting == (end == T_END)
        np.testing.assert_allclose(spikes_of(network, currents).time, traced(currents), rtol=1e-12)
    later = replace(single, time=jnp.full((1, 1), 0.1))
    # Pieces after the end count, unless they are 0.
    twice = Currents(time=jnp.array([[0.0, 9.0]]), value=jnp.ones((1, 2, 3)))
    for currents in (later, twice):
        assert not as_lasting(currents, T_END).lasting


def test_a_constant_signal_is_one_arrival_however_many_steps_it_lasts():
    currents = Currents.held(np.ones((1000, 2, 3)), 1e-3)
    assert currents.time.tolist() == [[0.0, 1.0]] * 2
    assert (currents.value == np.array([1, 0])[:, None]).all()
    traced = jax.eval_shape(lambda x: Currents.held(x, 1e-3), jnp.ones((7, 2, 3)))
    assert traced.value.shape == (2, 8, 3)


def test_boxes_next_to_each_other_are_a_current():
    network = one_population("CubaLIF", spike_area=0.1, spike_kernel="box", dt=0.1)
    raster = np.zeros((30, 1, 3))
    raster[3:17, 0, 0] = 1
    raster[8:25, 0, 2] = 1
    step, _, channel = np.nonzero(raster)
    boxes = Events(time=jnp.asarray(step * 0.1)[None], index=jnp.asarray(channel)[None])
    spikes = spikes_of(network, Currents.held(raster, 0.1))
    np.testing.assert_allclose(spikes.time, spikes_of(network, boxes).time, atol=1e-12)
    assert int(spikes.count.sum()) > 2


@pytest.mark.slow
def test_a_convolution_of_currents_and_graded_events_is_that_of_its_matrix():
    draft, rng = Draft(3, (2, 5, 6)), np.random.default_rng(2)
    draft.window("conv", "Conv2d", "in", (4, 3, 6), kernel=(3, 3), padding=((0, 0), (1, 1)))
    draft.fire("n", "conv", (4, 3, 6), spike_area=0.5, spike_kernel="box", dt=0.2)
    network = draft.network()
    time = jnp.asarray(np.sort(rng.uniform(0, 3, (2, 9)), axis=1)).at[1, -2:].set(jnp.inf)
    index = jnp.asarray(rng.integers(0, 60, (2, 9)))
    graded = GradedEvents(time=time, index=index, value=jnp.asarray(rng.normal(2, 1, (2, 9))))
    currents = Currents.held(rng.normal(0.2, 0.5, (4, 2, 2, 5, 6)), 0.7)
    engine = EventDriven(max_spikes=32, max_arrivals=400)
    for inputs in (currents, graded):
        spikes = spikes_of(network, inputs, engine=engine)
        expected = spikes_of(with_matrices(network), inputs, engine=engine)
        np.testing.assert_allclose(spikes.time, expected.time, atol=1e-10)
        assert int(spikes.count.sum()) > 20


# -- graded events


@pytest.mark.parametrize(("kind", "kernel"), [("CubaLIF", "delta"), *slow(("LIF", "box"))])
def test_an_event_of_a_size_is_an_event_through_a_weight_that_much_larger(kind, kernel):
    rng = np.random.default_rng(4)
    sizes = rng.uniform(0.3, 2.5, 8)
    weight = rng.normal(0.5, 1.0, (2, 3))
    index = rng.integers(0, 3, 8)
    rules = {"spike_area": 0.4, "spike_kernel": kernel, "dt": 0.1}
    network = one_population(kind, weight=weight, **rules)
    # Each event has its own channel, with its size in the weight.
    scaled = one_population(kind, weight=weight[:, index] * sizes, inputs=8, **rules)
    time = jnp.asarray(np.sort(rng.uniform(0, 2.5, (1, 8))))
    graded = GradedEvents(time=time, index=jnp.asarray(index)[None], value=jnp.asarray(sizes)[None])
    spikes = spikes_of(network, graded)
    expected = spikes_of(scaled, Events(time=time, index=jnp.arange(8)[None]))
    np.testing.assert_allclose(spikes.time, expected.time, atol=1e-12)
    assert int(spikes.count.sum()) > 1


WINDOWS = {
    "convolution": build.node(
        "Conv2d",
        input_shape=np.array([2, 4]),
        weight=np.array([[[[2.0, 0.5], [1.0, 3.0]]]]),
        bias=np.zeros(1),
        stride=1,
        padding=0,
        dilation=1,
        groups=1,
    ),
    "pool": build.node("SumPool2d", kernel_size=2, stride=2, padding=0),
}


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("backend", ["xla", "native"])
def test_events_reach_the_positions_of_a_window_with_their_own_sizes(
    backend, window, native_kernels
):
    def lowered(shape, linear):
        layers = build.input(shape), linear, build.cubalif(tau_mem=1.0, tau_syn=0.5)
        return lower(build.sequential(*layers, dialect="jaxsnn", time_unit="s"))

    network = lowered((1, 2, 4), WINDOWS[window])
    time, index = np.array([[0.1, 0.5, 0.9, 1.2]]), np.array([[0, 1, 2, 7]])
    value = np.array([[1.5, 6.0, -1.0, 4.0]])
    # Each event separately, of size 1, through a weight that is multiplied by the size.
    ((_, operator),) = signals(network)["2"].paths
    matrix = np.asarray(operator.dense(network.dtype))[index[0]] * value[0][:, None]
    scaled, plain = (
        lowered(4, build.linear(weight=matrix.T)),
        Events(time=time, index=np.arange(4)[None]),
    )
    engine = EventDriven(max_spikes=16, backend="xla")
    expected = simulate(scaled, plain, T_END, engine=engine).spikes["2"].time
    fired = np.isfinite(expected)
    assert fired.any()

    def times(value):
        graded, chosen = (
            GradedEvents(time=time, index=index, value=value),
            replace(engine, backend=backend),
        )
        solution = simulate(network, graded, T_END, engine=chosen, throw=False)
        return solution.spikes["2"].time.reshape(expected.shape)

    def loss(value):
        return jnp.sum(jnp.where(fired, times(value), 0.0))

    np.testing.assert_allclose(times(value), expected, rtol=1e-12)
    steps = 1e-6 * np.eye(4)[:, None]
    differences = [(loss(value + step) - loss(value - step)) / 2e-6 for step in steps]
    gradient = np.ravel(jax.grad(loss)(value))
    np.testing.assert_allclose(gradient, differences, rtol=1e-6, atol=1e-8)


def test_gradients_by_the_sizes_of_events_agree_with_differences():
    network = one_population("CubaLIF", spike_area=0.8)
    rng = np.random.default_rng(4)
    time = jnp.asarray(np.sort(rng.uniform(0, 2.5, (2, 8)), axis=1))
    index = jnp.asarray(rng.integers(0, 3, (2, 8)))
    weights = jnp.asarray(rng.normal(size=(2, 2, 64)))

    def loss(tree):
        parameters, value, time = tree
        events = GradedEvents(time=time, index=index, value=value)
        changed = network.with_parameters(parameters)
        spikes = simulate(changed, events, T_END, engine=ENGINE, throw=False).spikes["n"]
        return jnp.sum(finite_times(spikes.time) * weights), spikes.count

    tree = network.parameters, jnp.asarray(rng.uniform(0.5, 2.5, (2, 8))), time
    gradient, counts = jax.jit(jax.grad(loss, has_aux=True))(tree)
    assert int(counts.sum()) > 4
    errors = relative_errors(gradient, loss, tree)
    assert np.nanmax(errors) < ENOUGH
    assert np.isnan(errors).mean() < 0.2


# -- refusals and notes

ONES = np.ones((1, 2, 3))
TWO_TIMES = np.array([[0.0, 0.5]])
BAD_INPUTS = [
    (Currents.constant(np.ones((1, 4))), "has 3 channels, but the currents have 4"),
    (Currents(time=np.zeros((1, 3)), value=ONES), r"time has shape \(1, 3\)"),
    (
        Currents(time=TWO_TIMES[:, ::-1], value=ONES),
        r"before the previous one \(sample 0, slot 0\)",
    ),
    (Currents(time=TWO_TIMES - 1, value=ONES), "time -1 s"),
    (
        Currents(time=TWO_TIMES, value=np.where(np.arange(6).reshape(1, 2, 3) == 5, np.nan, 1.0)),
        r"the value nan \(sample 0, slot 1\)",
    ),
    (
        GradedEvents(time=np.zeros((1, 2)), index=np.zeros((1, 2), int), value=np.ones(3)),
        r"value has shape \(3,\)",
    ),
]


@pytest.mark.parametrize(("inputs", "message"), BAD_INPUTS)
def test_inputs_that_make_no_sense_are_refused(inputs, message):
    network = one_population("LIF")
    assert_refused(lambda: simulate(network, inputs, T_END), UsageError, message, node="in")


def test_currents_with_delta_spikes_or_through_delays_are_refused():
    network, inputs = mixed_network("CubaLIF", "LI", False)
    hidden = replace(network.populations["h"], spike_kernel="delta")
    network = Network(
        parameters=network.parameters,
        wires=network.wires,
        populations={**network.populations, "h": hidden},
    )
    run = partial(simulate, network, inputs, T_END)
    assert_refused(run, LoweringError, node="h", code="current-and-deltas", fix="box")
    late = build.node("Delay", delay=np.array([0.1, 0.2]))
    delayed = lower(build.sequential(build.input(2), late, build.lif(2, tau=1.0)))
    run = partial(simulate, delayed, Currents.constant(np.ones((1, 2))), T_END)
    assert_refused(run, LoweringError, "current of input 'input'.* delays", node="2")


def test_pieces_behind_the_end_are_noted_but_those_of_zeros():
    time, value = np.array([[0.0, 5.0, 6.0]]), np.array([[[0.1] * 3, [1.0] * 3, [0.0] * 3]])
    solution = simulate(one_population("LIF"), Currents(time=time, value=value), T_END)
    assert int(solution.late["in"]) == 1
    notes = [note for note in solution.notes if isinstance(note, Note)]
    assert [note.facts for note in notes if note.code == "late-events"] == [
        {"name": "in", "count": 1}
    ]


def test_currents_in_jit_that_go_back_in_time_end_the_run():
    network = one_population("LIF")
    run = jax.jit(partial(simulate, network, t_end=T_END))
    for times, result in (([0.0, 1.0], Result.SUCCESS), ([1.0, 0.5], Result.INVALID_INPUT)):
        assert run(Currents(time=jnp.array([times]), value=jnp.ones((1, 2, 3)))).result == result
