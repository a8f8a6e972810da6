"""Currents and graded events as inputs: against a slow reference, against biases and spikes that are
the same thing, and their gradients.
"""

import itertools
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsnn.errors import LoweringError, UsageError
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
from tests.event.differences import ENOUGH, relative_errors
from tests.event.draft import Draft
from tests.oracles import continuous_time

T_END, SAMPLES, STEP, WIDTH = 5.0, 2, 0.6, 0.25
EVERY = EventDriven(max_spikes=64)

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
    """A current input "x" and box spikes "s" into a population, which may feed itself; that, and "x"
    once more, into a readout.
    """
    rng = np.random.default_rng(seed)
    hidden, out = 4, 2
    weights = {
        "wx": rng.normal(0.7, 1.0, (hidden, 3)),
        "ws": rng.normal(0.4, 1.0, (hidden, 2)),
        "wr": rng.normal(0.1, 0.4, (hidden, hidden)),
        "wo": rng.normal(0.5, 1.0, (out, hidden)),
        "wd": rng.normal(0.0, 1.0, (out, 3)),
    }
    feeding = ["wx", "ws"] + ["wr"] * recurrent
    wires = [
        wire("x", "input", (), 3),
        wire("s", "input", (), 2),
        wire("wx", "Linear", ("x",), hidden),
        wire("ws", "Linear", ("s",), hidden),
        *([wire("wr", "Linear", ("h",), hidden)] if recurrent else []),
        wire("h", "neuron", feeding, hidden),
        wire("wo", "Linear", ("h",), out),
        wire("wd", "Linear", ("x",), out),
        wire("o", "neuron", ("wo", "wd"), out),
        wire("output", "output", ("o",), out),
    ]
    rules = {"spike_area": 0.3, "spike_kernel": "box", "dt": WIDTH}
    populations = {
        "h": Population(name="h", kind=kind, size=hidden, **rules),
        "o": Population(name="o", kind=readout, size=out, **rules),
    }
    used = {name for one in wires for name in (one.name, *one.sources)}
    parameters = {name: {"weight": value} for name, value in weights.items() if name in used}
    parameters |= {"h": neurons(rng, kind, hidden), "o": neurons(rng, readout, out)}
    network = Network(
        parameters=jax.tree.map(jnp.asarray, parameters), wires=wires, populations=populations
    )
    x = rng.uniform(-1.0, 2.5, (6, SAMPLES, 3))
    x[4] = 0.0
    currents = Currents.held(x, STEP)
    time = np.sort(rng.uniform(0, 4.0, (SAMPLES, 5)), axis=1)
    events = Events(time=jnp.asarray(time), index=jnp.asarray(rng.integers(0, 2, time.shape)))
    return network, {"x": jax.tree.map(jnp.asarray, currents), "s": events}


CASES = [
    ("LIF", "CubaLI", False),
    ("CubaLIF", "LI", True),
    *(
        pytest.param(*case, marks=pytest.mark.slow)
        for case in [("CubaLIF", "CubaLI", False), ("IF", "I", False), ("LIF", "LI", True)]
    ),
]


def expected(network, inputs, sample, sample_times):
    populations = {
        name: continuous_time.Neurons(
            kind=own.kind,
            parameters={key: np.asarray(value) for key, value in network.parameters[name].items()},
            area=own.spike_area,
            width=own.dt,
        )
        for name, own in network.populations.items()
    }
    synapses = [
        continuous_time.Synapses(
            source=network_wire.sources[0],
            target="o" if network_wire.name in ("wo", "wd") else "h",
            weight=np.asarray(network.parameters[network_wire.name]["weight"]),
        )
        for network_wire in network.wires
        if network_wire.kind == "Linear"
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


@pytest.mark.parametrize(("kind", "readout", "recurrent"), CASES)
def test_spikes_and_voltages_agree_with_the_oracle(kind, readout, recurrent):
    network, inputs = mixed_network(kind, readout, recurrent)
    times = np.linspace(0.01, T_END - 0.01, 23)
    solution = simulate(network, inputs, T_END, sample_times=times, engine=EVERY)
    for sample in range(SAMPLES):
        wanted = expected(network, inputs, sample, times)
        for neuron, own in enumerate(wanted.spikes["h"]):
            got = np.asarray(solution.spikes["h"].time[sample, neuron])
            np.testing.assert_allclose(got[np.isfinite(got)], own, atol=1e-9)
        np.testing.assert_allclose(
            np.asarray(solution.voltages["o"][sample]), wanted.samples["o"], atol=1e-9
        )
    assert int(solution.count("h").sum()) > 10


@pytest.mark.parametrize(
    ("kind", "readout", "recurrent"),
    [CASES[0], pytest.param(*CASES[1], marks=pytest.mark.slow), *CASES[2:]],
)
def test_gradients_by_values_times_and_parameters_agree_with_differences(kind, readout, recurrent):
    network, inputs = mixed_network(kind, readout, recurrent)
    rng = np.random.default_rng(7)
    weights = rng.normal(size=(SAMPLES, 4, 64)), rng.normal(size=(SAMPLES, 5, 2))
    times = np.linspace(0.5, T_END, 5)

    def loss(tree):
        parameters, currents = tree
        solution = simulate(
            network.with_parameters(parameters),
            {"x": currents, "s": inputs["s"]},
            T_END,
            sample_times=times,
            engine=EVERY,
            throw=False,
        )
        spikes = solution.spikes["h"]
        fired = jnp.isfinite(spikes.time)
        squares = jnp.where(fired, jnp.where(fired, spikes.time, 0.0) ** 2, 0.0)
        total = jnp.sum(squares * weights[0]) + jnp.sum(solution.voltages["o"] * weights[1])
        return total, (spikes.count, solution.result)

    tree = network.parameters, inputs["x"]
    gradient, (_, result) = jax.jit(jax.grad(loss, has_aux=True))(tree)
    assert result == Result.SUCCESS
    # A piece at time 0 cannot come earlier, and the time of the last one is none of a change.
    errors = relative_errors(gradient, loss, tree)
    known = errors[~np.isnan(errors)]
    assert len(known) > 0.8 * len(errors)
    assert (known < ENOUGH).all(), known.max()
    assert float(abs(gradient[1].value).max()) > 0.1


# ---- the level of a current


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_changes_add_up_to_the_values_to_the_last_digit(dtype):
    rng = np.random.default_rng(0)
    values = (rng.normal(size=(2, 40, 5)) * 10.0 ** rng.integers(-3, 3, (2, 1, 5))).astype(dtype)
    values[:, ::7] = 0
    moved = np.asarray(changes(jnp.asarray(values)))
    level = np.zeros_like(values[:, 0])
    for step in range(40):
        level = (level + moved[:, step]).astype(dtype)
        np.testing.assert_allclose(
            level, values[:, step], rtol=0, atol=2 * np.finfo(dtype).eps * abs(values).max()
        )
        if step % 7 == 0:
            assert (level == 0).all()
    slope = jax.jacrev(lambda x: changes(x))(jnp.asarray(values[:1, :3, :1]))
    np.testing.assert_array_equal(
        slope[0, :, 0, 0, :, 0], [[1, 0, 0], [-1, 1, 0], [0, -1, 1]], strict=False
    )


def one_population(kind, size=2, weight=None, inputs=3, affine=(), **rules):
    """An input, a Linear or Affine, a population."""
    rng = np.random.default_rng(5)
    weight = rng.uniform(0.8, 2.5, (size, inputs)) if weight is None else weight
    linear = {"weight": jnp.asarray(weight)}
    linear |= {"bias": jnp.asarray(affine)} if len(affine) else {}
    wires = [
        wire("in", "input", (), inputs),
        wire("w", "Affine" if len(affine) else "Linear", ("in",), size),
        wire("n", "neuron", ("w",), size),
        wire("out", "output", ("n",), size),
    ]
    parameters = {"w": linear, "n": jax.tree.map(jnp.asarray, neurons(rng, kind, size))}
    given = {"spike_area": 1.0, **rules}
    population = Population(name="n", kind=kind, size=size, **given)
    return Network(parameters=parameters, wires=wires, populations={"n": population})


def test_nothing_is_left_of_a_current_that_has_ended():
    """An integrator keeps for ever what is left, and here nothing is."""
    network = one_population("I")
    x = np.random.default_rng(1).normal(size=(50, 1, 3))
    times = np.array([0.51, 0.6, 50.0, 1e6])
    single = network.with_parameters(
        jax.tree.map(lambda array: array.astype(jnp.float32), network.parameters)
    )
    for each in (network, single):
        solution = simulate(each, Currents.held(x, 0.01), 2e6, sample_times=times)
        after = np.asarray(solution.voltages["n"][0])
        assert (after == after[0]).all()


@pytest.mark.parametrize(
    ("kind", "step"),
    [
        ("LIF", True),
        ("CubaLIF", True),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in [("LIF", False), ("CubaLIF", False), ("IF", True)]
        ),
    ],
)
def test_a_constant_current_is_a_bias(kind, step):
    """Also where the framework adds a bias once in each step, like a spike of another area."""
    rules = {"dt": 0.1, "bias": "step", "spike_area": 0.17} if step else {}
    plain = one_population(kind, **rules)
    x = np.array([[0.7, -0.2, 1.9]])
    bias = np.asarray(plain.parameters["w"]["weight"]) @ x[0]
    biased = one_population(kind, affine=bias, **rules)
    nothing = Events(time=jnp.full((1, 1), jnp.inf), index=jnp.zeros((1, 1), int))
    got = simulate(plain, Currents.constant(x), T_END, engine=EVERY).spikes["n"]
    wanted = simulate(biased, nothing, T_END, engine=EVERY).spikes["n"]
    np.testing.assert_allclose(got.time, wanted.time, rtol=1e-12)
    assert int(got.count.sum()) > 2


FAST = [("CubaLIF", "delta", "native"), ("LIF", "box", "native"), ("IF", "delta", "xla")]
KINDS, KERNELS = ("CubaLIF", "LIF", "IF"), ("delta", "box")


@pytest.mark.parametrize(
    ("kind", "kernel", "backend"),
    [
        pytest.param(*case, marks=() if case in FAST else pytest.mark.slow)
        for case in itertools.product(KINDS, KERNELS, ("native", "xla"))
    ],
)
def test_a_lasting_current_does_what_a_piece_of_a_current_does(kind, kernel, backend, request):
    """It is simulated as a bias of each sample; spikes, gradients and maxima are those of arrivals."""
    if backend == "native":
        request.getfixturevalue("native_kernels")
    rules = {"spike_kernel": kernel, "dt": 0.1}
    network = one_population(kind, size=4, affine=np.full(4, 0.1), **rules)
    lasting = Currents.constant(np.array([[0.7, -0.2, 1.9], [0.1, 1.4, 0.6], [-0.5, 0.3, 0.2]]))
    assert lasting.lasting
    weights = np.random.default_rng(5).normal(size=(3, 4, 64))

    def loss(tree, engine):
        parameters, given = tree
        solution = simulate(network.with_parameters(parameters), given, T_END, engine=engine)
        spikes = solution.spikes["n"]
        times = jnp.where(jnp.isfinite(spikes.time), spikes.time, 0.0)
        return jnp.sum(times**2 * weights), (spikes.time, solution.maximum("n"))

    found = {}
    for name, given, engine in [
        ("lasting", lasting, replace(EVERY, backend=backend)),
        ("a piece", replace(lasting, lasting=False), replace(EVERY, backend="xla")),
    ]:
        tree = network.parameters, jax.tree.map(jnp.asarray, given)
        gradient, told = jax.grad(loss, has_aux=True)(tree, engine)
        found[name] = jax.tree.leaves((gradient, told))
    for got, wanted in zip(*found.values(), strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-8, atol=1e-9)
    assert np.isfinite(found["lasting"][-2]).sum() > 5
    assert abs(found["lasting"][-4]).max() > 0.1  # by the time at which they begin


def test_a_lasting_current_that_begins_later_is_none():
    network = one_population("CubaLIF")
    late = replace(Currents.constant(np.ones((1, 3))), time=np.full((1, 1), 0.5))
    plain = replace(late, lasting=False)
    got, wanted = (simulate(network, given, T_END, engine=EVERY) for given in (late, plain))
    np.testing.assert_array_equal(got.spikes["n"].time, wanted.spikes["n"].time)
    assert int(wanted.count("n").sum()) > 0
    traced = jax.jit(
        lambda given: simulate(network, given, T_END, engine=EVERY, throw=False).result
    )
    assert int(traced(late)) == Result.NOT_FINITE


def test_a_current_held_to_the_end_is_a_lasting_one():
    network, x = one_population("CubaLIF"), np.array([[[0.7, 0.2, 1.9]]])
    held = Currents.held(np.repeat(x, 50, axis=0), T_END / 50)
    single = Currents(time=jnp.zeros((1, 1)), value=jnp.asarray(x[0, None]))
    # Traced, nobody knows how long it lasts.
    traced = jax.jit(lambda given: simulate(network, given, T_END, engine=EVERY).spikes["n"].time)
    for given, end in [(held, T_END), (held, T_END * 1.5), (single, T_END)]:
        assert as_lasting(given, end).lasting == (end == T_END)
        got = simulate(network, given, T_END, engine=EVERY).spikes["n"].time
        np.testing.assert_allclose(got, traced(given), rtol=1e-12)
    later = replace(single, time=jnp.full((1, 1), 0.1))
    assert not as_lasting(later, T_END).lasting
    # what comes behind the end is noted, if it is not 0
    twice = Currents(time=jnp.array([[0.0, 9.0]]), value=jnp.ones((1, 2, 3)))
    assert not as_lasting(twice, T_END).lasting


def test_a_constant_signal_is_one_arrival_however_many_steps_it_lasts():
    currents = Currents.held(np.ones((1000, 2, 3)), 1e-3)
    assert currents.time.tolist() == [[0.0, 1.0]] * 2
    assert (currents.value[:, 0] == 1).all()
    assert (currents.value[:, 1] == 0).all()
    traced = jax.eval_shape(lambda x: Currents.held(x, 1e-3), jnp.ones((7, 2, 3)))
    assert traced.value.shape == (2, 8, 3)


def test_boxes_next_to_each_other_are_a_current():
    network = one_population("CubaLIF", spike_area=0.1, spike_kernel="box", dt=0.1)
    raster = np.zeros((30, 1, 3))
    raster[3:17, 0, 0] = 1
    raster[8:25, 0, 2] = 1
    step, _, channel = np.nonzero(raster)
    spikes = Events(time=jnp.asarray(step * 0.1)[None], index=jnp.asarray(channel)[None])
    boxes = simulate(network, spikes, T_END, engine=EVERY).spikes["n"]
    held = simulate(network, Currents.held(raster, 0.1), T_END, engine=EVERY).spikes["n"]
    np.testing.assert_allclose(held.time, boxes.time, atol=1e-12)
    assert int(held.count.sum()) > 2


def conv_draft():
    draft = Draft(3, (2, 5, 6))
    draft.window("conv", "Conv2d", "in", (4, 3, 6), kernel=(3, 3), padding=((0, 0), (1, 1)))
    draft.fire("n", "conv", (4, 3, 6), spike_area=0.5, spike_kernel="box", dt=0.2)
    draft.add("out", "output", "n", (4, 3, 6))
    return draft.network()


def as_dense(network, inward):
    """The same network with a matrix for the convolution."""
    from jaxsnn.network.signals import signals

    ((_, operator),) = signals(network)["n"].paths
    constant = signals(network)["n"].constant
    wires = [
        replace(network.wires[0], shape=(inward,)),
        wire("conv", "Affine", ("in",), operator.size),
        *(replace(one, shape=(operator.size,)) for one in network.wires[2:]),
    ]
    matrix = {"weight": operator.dense(network.dtype).T, "bias": constant}
    return Network(
        parameters={**network.parameters, "conv": matrix},
        wires=wires,
        populations=network.populations,
    )


@pytest.mark.slow
def test_a_convolution_of_currents_and_graded_events_is_that_of_its_matrix():
    network = conv_draft()
    dense = as_dense(network, 60)
    rng = np.random.default_rng(2)
    time = jnp.asarray(np.sort(rng.uniform(0, 3, (2, 9)), axis=1)).at[1, -2:].set(jnp.inf)
    index = jnp.asarray(rng.integers(0, 60, (2, 9)))
    graded = GradedEvents(time=time, index=index, value=jnp.asarray(rng.normal(2, 1, (2, 9))))
    currents = Currents.held(rng.normal(0.2, 0.5, (4, 2, 2, 5, 6)), 0.7)
    engine = EventDriven(max_spikes=32, max_arrivals=400)
    for given in (currents, graded):
        flat = (
            replace(given, value=given.value.reshape(*given.time.shape, 60))
            if isinstance(given, Currents)
            else given
        )
        got = simulate(network, given, T_END, engine=engine).spikes["n"]
        wanted = simulate(dense, flat, T_END, engine=engine).spikes["n"]
        np.testing.assert_allclose(got.time, wanted.time, atol=1e-10)
        assert int(got.count.sum()) > 20


# ---- graded events


@pytest.mark.parametrize(
    ("kind", "kernel"), [("CubaLIF", "delta"), pytest.param("LIF", "box", marks=pytest.mark.slow)]
)
def test_an_event_of_a_size_is_an_event_through_a_weight_that_much_larger(kind, kernel):
    rng = np.random.default_rng(4)
    sizes = rng.uniform(0.3, 2.5, 8)
    weight = rng.normal(0.5, 1.0, (2, 3))
    index = rng.integers(0, 3, 8)
    rules = {"spike_area": 0.4, "spike_kernel": kernel, "dt": 0.1}
    network = one_population(kind, weight=weight, **rules)
    # each event has a channel of its own, and the size in its weight
    apart = one_population(kind, weight=weight[:, index] * sizes, inputs=8, **rules)
    time = jnp.asarray(np.sort(rng.uniform(0, 2.5, (1, 8))))
    graded = GradedEvents(time=time, index=jnp.asarray(index)[None], value=jnp.asarray(sizes)[None])
    got = simulate(network, graded, T_END, engine=EVERY).spikes["n"]
    plain = Events(time=time, index=jnp.arange(8)[None])
    wanted = simulate(apart, plain, T_END, engine=EVERY).spikes["n"]
    np.testing.assert_allclose(got.time, wanted.time, atol=1e-12)
    assert int(got.count.sum()) > 1


@pytest.mark.parametrize("pool", [False, True])
@pytest.mark.parametrize("backend", ["xla", "native"])
def test_events_reach_the_positions_of_a_convolution_with_their_own_sizes(
    backend, pool, native_kernels
):
    shape = (1, 2, 4)
    window = (
        build.node("SumPool2d", kernel_size=2, stride=2, padding=0)
        if pool
        else build.node(
            "Conv2d",
            input_shape=np.array([2, 4]),
            weight=np.array([[[[2.0, 0.5], [1.0, 3.0]]]]),
            bias=np.zeros(1),
            stride=1,
            padding=0,
            dilation=1,
            groups=1,
        )
    )
    neurons = build.cubalif(tau_mem=1.0, tau_syn=0.5)
    graph = build.sequential(build.input(shape), window, neurons, dialect="jaxsnn", time_unit="s")
    network = lower(graph)
    # each event by itself, of size 1, through weights that are so much larger
    time, index = np.array([[0.1, 0.5, 0.9, 1.2]]), np.array([[0, 1, 2, 7]])
    value = np.array([[1.5, 6.0, -1.0, 4.0]])
    ((_, operator),) = signals(network)["2"].paths
    matrix = np.asarray(operator.dense(network.dtype))
    wide = build.linear(weight=(matrix[index[0]] * value[0][:, None]).T)
    size = matrix.shape[1]
    neurons = build.cubalif(size, tau_mem=1.0, tau_syn=0.5)
    apart = build.sequential(build.input(4), wide, neurons, dialect="jaxsnn", time_unit="s")
    engine = EventDriven(max_spikes=16, backend=backend)
    own = Events(time=time, index=np.arange(4)[None])
    wanted = simulate(apart, own, T_END, engine=EventDriven(max_spikes=16, backend="xla"))

    def times(value):
        graded = GradedEvents(time=jnp.asarray(time), index=jnp.asarray(index), value=value)
        return simulate(network, graded, T_END, engine=engine, throw=False).spikes["2"].time

    found = times(jnp.asarray(value))
    assert np.isfinite(wanted.spikes["2"].time).any()
    np.testing.assert_allclose(found, wanted.spikes["2"].time, rtol=1e-12)
    loss = lambda value: jnp.sum(jnp.where(jnp.isfinite(found), times(value), 0.0))  # noqa: E731
    gradient, step = jax.grad(loss)(jnp.asarray(value)), 1e-6
    differences = [
        (loss(value + step * one) - loss(value - step * one)) / (2 * step)
        for one in np.eye(4)[:, None]
    ]
    np.testing.assert_allclose(np.ravel(gradient), differences, rtol=1e-6, atol=1e-8)


def test_gradients_by_the_sizes_of_events_agree_with_differences():
    network = one_population("CubaLIF", spike_area=0.8)
    rng = np.random.default_rng(4)
    time = jnp.asarray(np.sort(rng.uniform(0, 2.5, (2, 8)), axis=1))
    index = jnp.asarray(rng.integers(0, 3, (2, 8)))
    weights = jnp.asarray(rng.normal(size=(2, 2, 64)))

    def loss(tree):
        parameters, value, time = tree
        events = GradedEvents(time=time, index=index, value=value)
        found = simulate(
            network.with_parameters(parameters), events, T_END, engine=EVERY, throw=False
        ).spikes["n"]
        fired = jnp.isfinite(found.time)
        return jnp.sum(jnp.where(fired, found.time * weights, 0.0)), found.count

    tree = network.parameters, jnp.asarray(rng.uniform(0.5, 2.5, (2, 8))), time
    gradient, counts = jax.jit(jax.grad(loss, has_aux=True))(tree)
    assert int(counts.sum()) > 4
    errors = relative_errors(gradient, loss, tree)
    assert np.nanmax(errors) < ENOUGH
    assert np.isnan(errors).mean() < 0.2


# ---- what is refused, and what is noted


def test_what_a_current_cannot_be():
    network = one_population("LIF")

    def refused(currents, error=UsageError):
        with pytest.raises(error) as caught:
            simulate(network, currents, T_END)
        return str(caught.value)

    ones = np.ones((1, 2, 3))
    assert "3 channels, and the currents have 4" in refused(Currents.constant(np.ones((1, 4))))
    assert "time has shape (1, 3)" in refused(Currents(time=np.zeros((1, 3)), value=ones))
    assert "before the previous one" in refused(Currents(time=np.array([[1.0, 0.5]]), value=ones))
    assert "time -1 s" in refused(Currents(time=np.array([[-1.0, 0.5]]), value=ones))
    nan = ones.copy()
    nan[0, 1, 2] = np.nan
    assert "the value nan (sample 0, slot 1)" in refused(
        Currents(time=np.array([[0.0, 0.5]]), value=nan)
    )
    sized = GradedEvents(time=np.zeros((1, 2)), index=np.zeros((1, 2), int), value=np.ones(3))
    assert "value has shape (3,)" in refused(sized)


def test_a_current_and_delta_spikes_at_one_neuron_are_refused_by_name():
    network, inputs = mixed_network("CubaLIF", "LI", False)
    h = replace(network.populations["h"], spike_kernel="delta")
    network = Network(
        parameters=network.parameters,
        wires=network.wires,
        populations={**network.populations, "h": h},
    )
    with pytest.raises(LoweringError, match=r"'h' .* current of an input from 'wx'.*'ws'.*box"):
        simulate(network, inputs, T_END)


def test_a_current_through_delays_is_refused():
    wires = [
        wire("in", "input", (), 2),
        replace(wire("late", "Delay", ("in",), 2), detail=(0.1, 0.2)),
        wire("n", "neuron", ("late",), 2),
        wire("out", "output", ("n",), 2),
    ]
    rng = np.random.default_rng(0)
    network = Network(
        parameters={
            "late": {"delay": jnp.array([0.1, 0.2])},
            "n": jax.tree.map(jnp.asarray, neurons(rng, "LIF", 2)),
        },
        wires=wires,
        populations={"n": Population(name="n", kind="LIF", size=2, spike_area=1.0)},
    )
    with pytest.raises(
        LoweringError, match="'n' receives the current of input 'in' through delays"
    ):
        simulate(network, Currents.constant(np.ones((1, 2))), T_END)


def test_pieces_behind_the_end_are_noted_but_those_of_zeros():
    network = one_population("LIF")
    currents = Currents(
        time=np.array([[0.0, 5.0, 6.0]]), value=np.array([[[0.1] * 3, [1.0] * 3, [0.0] * 3]])
    )
    solution = simulate(network, currents, T_END)
    assert int(solution.late["in"]) == 1
    assert any("input 'in': 1" in note for note in solution.notes)


def test_currents_in_jit_that_go_back_in_time_end_the_run():
    network = one_population("LIF")

    def run(time):
        return simulate(network, Currents(time=time, value=jnp.ones((1, 2, 3))), T_END).result

    assert jax.jit(run)(jnp.array([[0.0, 1.0]])) == Result.SUCCESS
    assert jax.jit(run)(jnp.array([[1.0, 0.5]])) == Result.INVALID_INPUT
