"""Membrane voltages of leaky readouts, and their gradients."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsnn import TimeStepped, lower, with_synaptic_delays
from jaxsnn.errors import UsageError
from jaxsnn.event.event_driven import EventDriven
from jaxsnn.network.network import Network
from jaxsnn.network.spikes import Events
from jaxsnn.network.structure import Population, TauShape, Wire
from jaxsnn.network.valued_inputs import GradedEvents
from jaxsnn.nir import build
from jaxsnn.simulation.simulate import simulate
from tests.event.agreement import assert_trees_close
from tests.event.cases import SHAPES, population
from tests.event.differences import ENOUGH, relative_errors
from tests.helpers.random_spikes import random_events
from tests.helpers.refusals import assert_refused
from tests.oracles import two_exponential_flow
from tests.oracles.continuous_time import simulate_population

INPUTS, ARRIVALS, SAMPLES, NEURONS, T_END = 4, 8, 2, 5, 6.0
UNUSED = [(0, 2), (1, 2)]

pytestmark = pytest.mark.usefixtures("x64")


def without_spikes(p):
    return {name: values for name, values in p.items() if name not in ("v_threshold", "v_reset")}


def drawn(shape, *, seed=0, **rules):
    """An input, an Affine node and a readout; arrivals with an unused slot; times to look at, in no
    order.
    """
    rng = np.random.default_rng([SHAPES.index(shape), seed])
    p = without_spikes(population(shape, rng, NEURONS))
    affine = {
        "weight": rng.normal(0.5, 1.0, (NEURONS, INPUTS)),
        "bias": rng.normal(0.3, 0.5, NEURONS),
    }
    wires = [
        Wire(name="input", kind="input", sources=(), shape=(INPUTS,)),
        Wire(name="affine", kind="Affine", sources=("input",), shape=(NEURONS,)),
        Wire(name="readout", kind="neuron", sources=("affine",), shape=(NEURONS,)),
    ]
    readout = Population(name="readout", kind="CubaLI", size=NEURONS, tau_shape=shape, **rules)
    parameters = jax.tree.map(jnp.asarray, {"affine": affine, "readout": p})
    net = Network(parameters=parameters, wires=wires, populations={"readout": readout})
    times, index = random_events(rng, (SAMPLES, ARRIVALS), INPUTS, 5.0, unused=UNUSED)
    return net, Events(time=times, index=index), rng.uniform(0, T_END, 9)


def expected(net, events, samples, *, area, initial="zero"):
    """The oracle's voltages, (SAMPLES, samples, NEURONS)."""
    p, affine = (jax.tree.map(np.asarray, net.parameters[node]) for node in ("readout", "affine"))
    start = {"zero": 0.0, "v_leak": p["v_leak"]}[initial]
    options = {"bias": affine["bias"], "v_start": start, "area": area}
    arrivals = affine["weight"].T, events.time, events.index
    outcomes = simulate_population(p, *arrivals, T_END, np.sort(samples), **options)
    places = np.argsort(np.argsort(samples))
    return np.array([outcome.samples["n"][places] for outcome in outcomes])


@pytest.mark.last_digits
@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
def test_voltages_agree_with_the_oracle(shape):
    area, initial = (None, "v_leak") if shape is TauShape.ANY else (0.7, "zero")
    net, events, samples = drawn(shape, spike_area=area, initial=initial)
    # Also sample at the start, at an arrival, and at the end.
    samples = np.concatenate([samples, [0.0, events.time[0, 0], T_END]])
    voltages = simulate(net, events, T_END, sample_times=samples).voltages["readout"]
    exact = expected(net, events, samples, area=area, initial=initial)
    assert voltages.shape == (SAMPLES, len(samples), NEURONS)
    np.testing.assert_allclose(voltages, exact, rtol=0, atol=1e-12)


def test_readouts_are_sampled_evenly_by_default_and_not_at_all_on_request():
    net, events, _ = drawn(TauShape.DOUBLE, spike_area=0.7)
    solution, times = simulate(net, events, T_END), np.linspace(0, T_END, 101)
    np.testing.assert_allclose(solution.sample_times, times, atol=1e-15)
    exact = expected(net, events, times[::20], area=0.7)
    np.testing.assert_allclose(solution.voltages["readout"][:, ::20], exact, rtol=0, atol=1e-12)
    unsampled = simulate(net, events, T_END, sample_times=[])
    assert unsampled.voltages["readout"].shape == (SAMPLES, 0, NEURONS)


def test_single_precision_stays_close():
    net, events, samples = drawn(TauShape.EQUAL, spike_area=0.7)
    exact = simulate(net, events, T_END, sample_times=samples).voltages["readout"]
    with jax.enable_x64(False):
        parameters = jax.tree.map(lambda x: jnp.asarray(x, "float32"), net.parameters)
        rounded = net.with_parameters(parameters)
        rough = simulate(rounded, events, T_END, sample_times=samples).voltages["readout"]
    assert rough.dtype == jnp.float32
    np.testing.assert_allclose(np.asarray(rough), np.asarray(exact), rtol=0, atol=3e-6)


def two_readouts(seed):
    """An input, spiking neurons, and two readouts of them, a CubaLI and a CubaLIF declared as one;
    times and channels of events, and weights of the voltages.
    """
    rng = np.random.default_rng(seed)
    wires = [Wire(name="input", kind="input", sources=(), shape=(INPUTS,))]
    parameters, populations = {}, {}
    declared = {"kind": "CubaLIF", "readout": True, "initial": "v_leak"}
    for name, source, size, shape, rules in [
        ("hidden", "input", 4, TauShape.EQUAL, {"kind": "CubaLIF"}),
        ("leaky", "hidden", 3, TauShape.DOUBLE, {"kind": "CubaLI"}),
        ("declared", "hidden", 2, TauShape.APART, declared),
    ]:
        p, linear = population(shape, rng, size), f"to {name}"
        parameters[name] = without_spikes(p) if name == "leaky" else p
        weight = rng.normal(2.0, 1.5, (size, INPUTS if source == "input" else 4))
        parameters[linear] = {"weight": weight, "bias": rng.normal(0.2, 0.2, size)}
        wires.append(Wire(name=linear, kind="Affine", sources=(source,), shape=(size,)))
        wires.append(Wire(name=name, kind="neuron", sources=(linear,), shape=(size,)))
        rules = {"name": name, "size": size, "tau_shape": shape, "spike_area": 0.7} | rules
        populations[name] = Population(**rules)
    parameters = jax.tree.map(jnp.asarray, parameters)
    net = Network(parameters=parameters, wires=wires, populations=populations)
    times = rng.uniform(0, 4, (SAMPLES, ARRIVALS))
    times[:, 2] = np.inf
    shapes = {"leaky": (SAMPLES, 6, 3), "declared": (SAMPLES, 6, 2)}
    weights = {name: jnp.asarray(rng.normal(size=shape)) for name, shape in shapes.items()}
    index = jnp.asarray(rng.integers(0, INPUTS, times.shape))
    return net, jnp.asarray(times), index, weights


def loss_and_counts(numbers, index, weights, sample_times):
    net, times = numbers
    engine, events = EventDriven(max_spikes=24), Events(time=times, index=index)
    solution = simulate(net, events, T_END, engine=engine, sample_times=sample_times, throw=False)
    total = sum(jnp.sum(voltage**2 * weights[name]) for name, voltage in solution.voltages.items())
    return total, solution.spikes["hidden"].count


def test_gradients_agree_with_central_differences():
    sample_times = jnp.asarray(np.random.default_rng(0).uniform(0, T_END, 6))
    gradient_of, spikes = jax.jit(jax.grad(loss_and_counts, has_aux=True)), 0
    for seed in range(5):
        net, times, index, weights = two_readouts(seed)
        gradient, counts = gradient_of((net, times), index, weights, sample_times)
        free = net.with_free_time_constants(), times
        error = relative_errors(gradient, loss_and_counts, free, index, weights, sample_times)
        spikes += int(counts.sum())
        assert np.isfinite(error).mean() > 0.99
        assert np.nanmax(error) < ENOUGH
    assert spikes > 30


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_gradients_at_nearly_equal_time_constants(dtype):
    """The derivatives by both time constants are those of the kernel, which loses no digits."""
    net, events, _ = drawn(TauShape.EQUAL, spike_area=None)
    tau_syn = np.linspace(0.5, 1.5, NEURONS).astype(dtype)
    taus = np.stack([tau_syn * (1 + np.array([1e-3, 1e-6, -1e-6, 1e-9, 0.0], dtype)), tau_syn])
    with jax.enable_x64(dtype == "float64"):
        parameters = jax.tree.map(lambda x: jnp.asarray(x, dtype), net.parameters)
        parameters["affine"]["bias"] = parameters["readout"]["v_leak"] = jnp.zeros(NEURONS, dtype)
        time = jnp.asarray(events.time[:1, :1], dtype)
        event = Events(time=time, index=jnp.asarray(events.index[:1, :1]))
        end = jnp.asarray([float(events.time[0, 0]) + 1.7], dtype)

        def voltage(taus):
            readout = parameters["readout"] | {"tau_mem": taus[0], "tau_syn": taus[1]}
            changed = net.with_parameters(parameters | {"readout": readout})
            solution = simulate(changed, event, 8.0, sample_times=end, throw=False)
            return jnp.sum(solution.voltages["readout"])

        gradient = np.asarray(jax.grad(voltage)(jnp.asarray(taus)))
        wait = np.asarray(end - time[0])
    jump = parameters["affine"]["weight"][:, events.index[0, 0]] * parameters["readout"]["r"]
    pairs = taus.astype(float).T
    kernel = np.array([two_exponential_flow.decay(*pair, float(wait[0]))[3:] for pair in pairs]).T
    atol = 1e-12 if dtype == "float64" else 2e-6
    np.testing.assert_allclose(gradient, np.asarray(jump) * kernel, rtol=0, atol=atol)


@pytest.mark.parametrize("order", [(0, 1, 2), (1, 0, 2)])
@pytest.mark.parametrize("neuron", [build.li(1, tau=2.0), build.integrator(1)], ids=["LI", "I"])
def test_arrivals_at_one_time_act_together_also_on_the_maximum(neuron, order):
    """V is never at 2: +2 and -2 come at once, in whatever order they stand, and then a small one."""
    linear = build.linear(1, weight=np.array([[2.0, -2.0, 0.5]]))
    network = lower(build.sequential(build.input(3), linear, neuron, spike_kernel="delta"))
    events = Events(time=jnp.array([1.0, 1.0, 3.0]), index=jnp.array(order))
    np.testing.assert_allclose(simulate(network, events, 4.0).maximum("2"), [[0.5]], rtol=1e-6)


def equal_readouts(dtype=np.float64, tau_mem=2.0, tau_syn=0.7, kernel="delta"):
    """Two readouts with the same numbers."""
    if kernel == "box":
        neuron = build.li(2, tau=tau_mem)
    else:
        neuron = build.cubali(2, tau_mem=tau_mem, tau_syn=tau_syn)
    layers = build.input(1), build.linear(2, weight=np.ones((2, 1))), neuron
    return lower(build.sequential(*layers, spike_kernel=kernel, dt=0.1), dtype=dtype)


def events_at(*times):
    return Events(time=jnp.array([times]), index=jnp.zeros((1, len(times)), jnp.int32))


@pytest.mark.last_digits
@pytest.mark.parametrize("kernel", ["delta", "box"])
@pytest.mark.parametrize("tau_mem", [pytest.param(1.0, marks=pytest.mark.slow), 1e4])
def test_integrals_keep_their_digits_where_the_membrane_hardly_leaks(kernel, tau_mem):
    def value_and_gradient(dtype):
        with jax.enable_x64(dtype == np.float64):
            net, events = equal_readouts(dtype, tau_mem, kernel=kernel), events_at(0.2, 1.1, 1.7)

            def integral(times):
                moved = Events(time=times, index=events.index)
                return simulate(net, moved, 4.0, throw=False).integral("2")[0, 0]

            value, by_time = jax.jit(jax.value_and_grad(integral))(events.time.astype(dtype))
            return np.float64([value, *by_time[0]])

    exact, rough = map(value_and_gradient, (np.float64, np.float32))
    # The effect of a pulse is the difference of two steps 0.1 apart, each ten times as large.
    np.testing.assert_allclose(rough, exact, rtol=1e-5 if kernel == "delta" else 1e-4)
    if kernel == "delta":  # compare with a quadrature
        net, times = equal_readouts(tau_mem=tau_mem), np.linspace(0, 4, 40001)
        solution = simulate(net, events_at(0.2, 1.1, 1.7), 4.0, sample_times=times)
        area = np.trapezoid(solution.voltages["2"][0, :, 0], times)
        np.testing.assert_allclose(exact[0], area, rtol=1e-6)


def test_the_end_itself_is_a_sample_time_however_it_was_rounded():
    with jax.enable_x64(False):
        net, times = equal_readouts(np.float32), jnp.linspace(0, 0.1, 3)
        assert float(times[-1]) > 0.1
        solution = simulate(net, events_at(0.03), np.float64(0.1), sample_times=times)
        assert solution.voltages["2"].shape == (1, 3, 2)


def test_an_integral_with_a_weight_that_grows_is_refused():
    solution = simulate(equal_readouts(), events_at(0.3), 4.0)
    assert_refused(lambda: solution.integral("2", 0.0), UsageError, "tau is 0", fix="positive tau")


@pytest.mark.parametrize("engine", [EventDriven(), TimeStepped(dt=1e-3)], ids=["event", "steps"])
@pytest.mark.parametrize("tau", [-1.0, 0.0, "5ms", np.nan])
def test_a_sum_over_spikes_with_a_weight_that_grows_is_refused(engine, tau):
    weight, neurons = build.linear(weight=[[9.0]]), build.cubalif(tau_mem="10ms", tau_syn="5ms")
    graph = build.sequential(build.input(1), weight, neurons)
    solution = simulate(graph, Events(time=[[0.0]], index=[[0]]), 0.03, engine=engine)
    assert_refused(lambda: solution.spike_sum("2", tau), UsageError, "tau is ", fix="positive tau")


@pytest.mark.parametrize("second", [jax.hessian, lambda f: jax.jacrev(jax.grad(f))])
@pytest.mark.parametrize("functional", ["maximum", "integral"])
def test_second_derivatives_are_exact_or_refused(functional, second):
    net, events = equal_readouts(), events_at(0.3, 0.9)

    def value(tau):
        parameters = {**net.parameters, "2": {**net.parameters["2"], "tau_mem": tau}}
        return getattr(
            simulate(with_traced(net, parameters), events, 6.0, throw=False), functional
        )("2")[0, 0]

    tau = jnp.array([2.0, 2.0])
    gradient, curvature = jax.jit(jax.grad(value)), jax.jit(second(value))
    assert gradient(tau)[0] != 0
    if functional == "maximum":
        assert_refused(lambda: curvature(tau), UsageError, "second derivatives of a maximum")
        return
    # Traced time constants carry no assumptions, so nothing has to be refused.
    steps = 1e-5 * jnp.eye(2)
    differences = [(gradient(tau + step) - gradient(tau - step)) / 2e-5 for step in steps]
    np.testing.assert_allclose(curvature(tau), jnp.stack(differences), atol=1e-8)


@pytest.mark.parametrize(
    ("times", "message"),
    [
        ([-1.0, 2.0], r"1 of 2, the first at -1 s: .* 0 to t_end \(4 s\)"),
        ([8.0], "the first at 8 s"),
        ([np.nan], "the first at nan s"),
        (1.0, r"shape \(\), and must be one-dimensional: pass an array of shape"),
    ],
)
def test_sample_times_outside_of_the_simulation_are_refused(times, message):
    net, events = equal_readouts(), events_at(0.3, 6.0)
    run = partial(simulate, net, events, 4.0, sample_times=times)
    assert_refused(run, UsageError, message)


def readout_with_lists(kind, rng):
    """A readout whose neurons have lists of arrivals of their own, behind parameters to train."""
    readout = build.cubali(tau_mem=rng.uniform(1.0, 2.0), tau_syn=0.7, v_leak=0.3)
    if kind == "delays":
        layers = build.input(INPUTS), build.linear(3), readout, build.output()
        network = lower(build.sequential(*layers, seed=4))
        return with_synaptic_delays(network, "1", rng.uniform(0.1, 1.0, (3, INPUTS)))
    weight, bias = rng.normal(0.5, 1.0, (2, 1, 2, 1)), rng.normal(0.1, 0.3, 2)
    plain = {"stride": 1, "padding": 0, "dilation": 1, "groups": 1}
    convolution = build.node("Conv2d", weight=weight, bias=bias, **plain)
    return lower(build.sequential(build.input((1, 2, 2)), convolution, readout, build.output()))


def with_traced(network, parameters):
    """The network with parameters of which nothing more is known than of its own."""
    return Network(parameters=parameters, wires=network.wires, populations=network.populations)


@pytest.mark.parametrize("kind", ["delays", "convolution"])
def test_functionals_of_neurons_that_have_lists_of_arrivals_of_their_own(kind):
    rng = np.random.default_rng(3)
    network = readout_with_lists(kind, rng)
    times, index = random_events(rng, (SAMPLES, ARRIVALS), INPUTS, 5.0, unused=UNUSED)
    events, fine = Events(time=times, index=index), np.linspace(0, T_END, 20_001)
    solution = simulate(network, events, T_END, sample_times=fine)
    trace = np.asarray(solution.voltages["2"])
    # V has kinks at the arrivals, where the error of the quadrature is quadratic in the step.
    np.testing.assert_allclose(solution.maximum("2"), trace.max(1), atol=1e-3)
    area = np.trapezoid(trace * np.exp(-fine / 1.5)[:, None], fine, axis=1)
    np.testing.assert_allclose(solution.integral("2", 1.5), area, atol=1e-3)

    def reading(parameters, network=network):
        solution = simulate(with_traced(network, parameters), events, T_END, throw=False)
        return jnp.sum(solution.maximum("2") ** 2) + jnp.sum(solution.integral("2", 1.5)), ()

    gradient = jax.grad(reading, has_aux=True)(network.parameters)[0]
    assert np.nanmax(relative_errors(gradient, reading, network.parameters)) < ENOUGH
    # The same if all neurons share what is computed from their time constants.
    shared = partial(reading, network=network.with_lasting_time_constants())
    shared_gradient = jax.grad(shared, has_aux=True)(network.parameters)[0]
    assert_trees_close(gradient, shared_gradient, rtol=1e-9, absolute=1e-9)


def test_memory_of_an_integral_grows_with_the_batch_and_not_with_its_square():
    """Each of the graded events has a row of weights of its own."""
    rng = np.random.default_rng(5)
    network = readout_with_lists("convolution", rng).with_lasting_time_constants()

    def bytes_of(batch):
        times, index = random_events(rng, (batch, 20), INPUTS, 5.0)
        events = GradedEvents(time=times, index=index, value=np.ones_like(times))

        def integral(parameters):
            solution = simulate(with_traced(network, parameters), events, T_END, throw=False)
            return jnp.sum(solution.integral("2"))

        program = jax.jit(jax.grad(integral)).lower(network.parameters).compile()
        return program.memory_analysis().temp_size_in_bytes

    assert bytes_of(128) < 9 * bytes_of(32)  # quadratic growth would be 16-fold
