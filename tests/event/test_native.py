"""The native backend against XLA's: the same spikes and gradients, whatever the number of threads; what
it does not cover falls back or is refused, and what goes wrong is an error.
"""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsnn import EventDriven, Events, lower, simulate
from jaxsnn.errors import UsageError
from jaxsnn.event.adjoint.required_gradients import RequiredGradients
from jaxsnn.event.dynamics.cubalif import CubaLIFDelta
from jaxsnn.event.dynamics.two_variables import Constants
from jaxsnn.event.forward.layer import LayerSpec
from jaxsnn.event.native import native_layer
from jaxsnn.event.native.native_build import target_name
from jaxsnn.network.results import Result
from jaxsnn.network.structure import TauShape
from jaxsnn.nir import build
from tests.event.agreement import assert_trees_close, assert_trees_equal, finite_times
from tests.event.layer_cases import (
    CASES,
    SHAPES,
    TAU,
    by_kernels,
    by_xla,
    layer_case,
    spikes_and_gradients,
)
from tests.helpers.refusals import assert_refused

pytestmark = pytest.mark.usefixtures("native_kernels")


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=[pytest.mark.slow] * (number % 2)) for number, n in enumerate(CASES)],
)
def test_both_backends_agree(name, x64):
    spec, *case = layer_case(**CASES[name])
    expected, expected_gradient = spikes_and_gradients(by_xla(spec), *case)
    spikes, gradient = spikes_and_gradients(by_kernels(spec), *case)
    assert int(expected.count.sum()) > 20
    np.testing.assert_array_equal(spikes.count, expected.count)
    np.testing.assert_allclose(spikes.time, expected.time, atol=1e-11 * TAU)
    np.testing.assert_allclose(spikes.slope, expected.slope, rtol=1e-8)
    if spec.neuron.jumps:
        assert jnp.isinf(expected.slope).sum() > 10
    assert_trees_close(gradient, expected_gradient, atol=1e-10)


@pytest.mark.parametrize("name", [name for name in CASES if name.startswith("crowd")])
def test_gradients_of_weights_alone_are_those_of_everything(name, x64):
    """Without gradients by parameters, the kernel takes several neurons at a time."""
    spec, arguments, spike_weights = layer_case(**CASES[name])
    run, (_, constant_lanes, *_) = by_kernels(spec), arguments

    def run_with_constant_lanes(weight, lanes, *events):
        return run(weight, constant_lanes, *events)

    spikes, gradient = spikes_and_gradients(run_with_constant_lanes, arguments, spike_weights)
    expected, expected_gradient = spikes_and_gradients(run, arguments, spike_weights)
    np.testing.assert_array_equal(spikes.time, expected.time)
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(gradient[1]))
    assert_trees_close(gradient[::2], expected_gradient[::2], atol=1e-12)


@pytest.mark.slow
def test_second_derivatives_of_lif_are_those_of_xla(x64):
    spec, (weight, *rest), spike_weights = layer_case(**CASES["LIF, driven"], neurons=3)
    curvatures = []
    for run in (by_xla(spec), by_kernels(spec, 1)):

        def loss(weight, run=run):
            return jnp.sum(spike_weights * finite_times(run(weight, *rest).time) ** 2)

        curvatures.append(jax.jit(lambda w, f=loss: jax.jvp(jax.grad(f), (w,), (w,))[1])(weight))
    assert jnp.abs(curvatures[0]).max() > 0
    assert_trees_close(curvatures[1], curvatures[0], atol=1e-9)


def test_slots_behind_the_last_arrival_are_not_read(x64):
    """The kernels leave their rows and slots as they are, which may be those of others."""
    spec, (weight, lanes, *events, t_end), spike_weights = layer_case(neurons=3)
    simulated = native_layer._simulated(spec, 1, weight, lanes, *events, t_end)
    arrivals = simulated.arrivals
    behind = jnp.arange(40) >= arrivals.used[:, None]
    assert behind.any()
    results = []
    for row, slot in ((12, 40), (0, 0)):
        row, slot = jnp.where(behind, row, arrivals.row), jnp.where(behind, slot, arrivals.slot)
        changed = simulated._replace(arrivals=arrivals._replace(row=row, slot=slot))

        def gradients(weight, changed=changed):
            arguments = spec, 1, RequiredGradients(), weight, lanes, t_end, changed, spike_weights
            return native_layer._gradients(*arguments)

        results.append(jax.jvp(gradients, (weight,), (weight,)))
    assert jnp.abs(results[0][1][2]).max() > 0
    assert_trees_equal(*results)


@pytest.mark.parametrize("name", ["double", "any", "held, above"])
def test_the_number_of_threads_changes_no_bit(name):
    spec, *case = layer_case(**CASES[name], dtype=jnp.float32)
    single, *several = (spikes_and_gradients(by_kernels(spec, n), *case) for n in (1, 2, 7))
    for result in several:
        assert_trees_equal(result, single)


def test_float32_is_as_exact_as_xla(x64):
    """Against float64, which neither of them is."""
    spec, *case = layer_case()
    exact, _ = spikes_and_gradients(by_xla(spec), *case)
    spec, *case = layer_case(dtype=jnp.float32)
    errors = []
    for run in (by_xla(spec), by_kernels(spec, 1)):
        spikes, _ = spikes_and_gradients(run, *case)
        np.testing.assert_array_equal(spikes.count, exact.count)
        fired = np.isfinite(spikes.time)
        errors.append(np.abs(np.asarray(spikes.time)[fired] - np.asarray(exact.time)[fired]))
    assert errors[1].max() < 2 * errors[0].max()
    assert np.median(errors[1]) < 1e-6 * TAU


def test_layers_without_arrivals_neurons_or_samples():
    spec, (weight, lanes, time, row, t_end), _ = layer_case(dtype=jnp.float32)
    run, zero = by_kernels(spec), jnp.zeros_like(lanes.v_start)
    still = replace(lanes, v_start=zero, j_start=zero)
    for size in (0, 3):
        silent = run(weight, still, time[:, :size] + jnp.inf, row[:, :size], t_end)
        assert not silent.count.any()
        assert not jnp.isfinite(silent.time).any()
    no_lanes = jax.tree.map(lambda array: array[:0], lanes)
    assert run(weight[:, :0], no_lanes, time, row, t_end).time.shape == (5, 0, 8)
    assert run(weight, lanes, time[:0], row[:0], t_end).time.shape == (0, 21, 8)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e30])
def test_numbers_that_are_none_do_not_hang(value):
    spec, (weight, lanes, time, *rest), spike_weights = layer_case(dtype=jnp.float32)
    for changed in (
        (weight.at[0].set(value), lanes, time),
        (weight, replace(lanes, tau_syn=lanes.tau_syn.at[0].set(value)), time),
        (weight, lanes, time.at[:, 0].set(value)),
    ):
        spikes, _ = spikes_and_gradients(by_kernels(spec), (*changed, *rest), spike_weights)
        assert spikes.count.shape == (5, 21)


def test_rows_beyond_the_table_weigh_nothing():
    spec, (weight, lanes, time, row, t_end), spike_weights = layer_case(dtype=jnp.float32)
    beyond = row.at[:, ::2].set(jnp.where(row[:, ::2] % 2, 2**30, -5))
    unused = jnp.where(beyond == row, time, jnp.inf)
    (spikes, gradient), (expected, expected_gradient) = (
        spikes_and_gradients(by_kernels(spec), (weight, lanes, *events, t_end), spike_weights)
        for events in ((time, beyond), (unused, row))
    )
    np.testing.assert_allclose(spikes.time, expected.time, rtol=1e-4)
    assert_trees_close(gradient[0], expected_gradient[0], atol=1e-3)


def test_a_wrong_shape_is_an_error():
    name = target_name("jaxsnn_layer_forward", "float32")
    call = jax.ffi.ffi_call(name, [jax.ShapeDtypeStruct((2, 3), jnp.float32)] * 9)
    with pytest.raises(Exception, match="jaxsnn native engine: weight is not"):
        call(
            *[jnp.zeros(3, jnp.float32)] * 5,
            max_spikes=np.int64(1),
            counted=np.int64(1),
            once=False,
            subtract=False,
            refractory=np.float64(0),
            jumps=False,
            strict=False,
            threads=np.int64(1),
        )


@pytest.mark.parametrize("ratio", [2, 0.5, 3])
@pytest.mark.parametrize("past_peak", [True, False], ids=["to the maximum", "before it"])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_a_neuron_that_just_reaches_the_threshold_in_an_interval_fires(
    ratio, past_peak, dtype, x64
):
    """Many at once, which are sorted out in vectors, by the highest V within the interval."""
    mem, syn, neurons = ratio * TAU, TAU, 70
    peak = np.log(mem / syn) / (1 / syn - 1 / mem)
    end = 10 * TAU if past_peak else 0.8 * peak
    start, top = np.linspace(0.5, 3.0, neurons), min(peak, end)
    highest = start * syn / (mem - syn) * (np.exp(-top / mem) - np.exp(-top / syn))
    margin = (1e-4 if dtype == jnp.float32 else 1e-10) * np.where(np.arange(neurons) % 3, -1, 1)
    zero = jnp.zeros(neurons, dtype)
    lanes = Constants(
        threshold=jnp.asarray(highest * (1 + margin), dtype),
        v_reset=zero,
        v_start=zero,
        j_start=jnp.asarray(start, dtype),
        tau_mem=zero + dtype(mem),
        tau_syn=zero + dtype(syn),
    )
    model = CubaLIFDelta(tau_shape=SHAPES.get(ratio, TauShape.ANY), uniform=True)
    spec = LayerSpec(neuron=model, max_spikes=1, once=True, min_slope=2**-20)
    no_arrivals = jnp.full((1, 1), jnp.inf, dtype), jnp.zeros((1, 1), jnp.int32)
    spikes = by_kernels(spec, 1)(zero[None], lanes, *no_arrivals, jnp.asarray(end, dtype))
    np.testing.assert_array_equal(spikes.count[0] > 0, margin < 0)


@pytest.mark.parametrize("ratio", [2, 3])
def test_spikes_are_counted_up_to_the_limit(ratio, x64):
    """Neurons that fire at time 0 and then periodically, two of them more often than is counted."""
    drive, t_end = np.array([5.0, 50.0, 60.0]), 50e-3
    neurons = build.cubalif(3, tau_mem=TAU, tau_syn=TAU / ratio, v_leak=drive)
    layers = build.input(1), build.linear(weight=np.zeros((3, 1))), neurons
    net = lower(build.sequential(*layers, dialect="hxtorch", time_unit="s", reset="zero"))
    fired = 1 + np.floor(t_end / (TAU * np.log(drive / (drive - 1))))
    limit = LayerSpec(neuron=CubaLIFDelta(), max_spikes=1).counted
    assert fired[0] < limit < fired[1]
    engine = EventDriven(max_spikes=1, backend="native")
    silent = Events(time=np.zeros((1, 0)), index=np.zeros((1, 0), int))
    spikes = simulate(net, silent, t_end, engine=engine, throw=False).spikes["2"]
    np.testing.assert_array_equal(spikes.count, [np.minimum(fired, limit)])


# -- choice of the engine


def current_based():
    return build.cubalif(tau_mem="10ms", tau_syn="5ms")


def network(neurons):
    layers = build.input(3), build.linear(weight=np.ones((2, 3))), neurons
    return lower(build.sequential(*layers))


def some_events():
    time = jnp.asarray(np.linspace(0, 20e-3, 12).reshape(2, 6), jnp.float32)
    return Events(time=time, index=jnp.asarray(np.arange(12).reshape(2, 6) % 3, jnp.int32))


def test_native_refuses_what_it_does_not_cover():
    net = network(build.lif(tau="10ms"))

    def run(**options):
        return simulate(net, some_events(), 30e-3, engine=EventDriven(**options))

    refused = partial(run, backend="native", jump_width=1e-3)
    assert_refused(
        refused,
        UsageError,
        "the native backend does not support population '2': the kernels do not support jump_width",
    )
    assert run(backend="auto", jump_width=1e-3).result == 0
    assert run(backend="native").result == 0


@pytest.mark.parametrize("options", [{"backend": "gpu"}, {"threads": 0}])
def test_options_that_make_no_sense_are_refused(options):
    net, engine = network(current_based()), EventDriven(**options)
    run = partial(simulate, net, some_events(), 30e-3, engine=engine)
    assert_refused(run, UsageError, next(iter(options)))


def program_text(**options):
    net, engine = network(current_based()), EventDriven(**options)
    run = jax.jit(lambda events: simulate(net, events, 30e-3, engine=engine, throw=False).result)
    return run.lower(some_events()).as_text()


def test_auto_is_native_where_it_can(monkeypatch):
    monkeypatch.delenv("JAXSNN_BACKEND", raising=False)
    assert "jaxsnn_layer_forward" in program_text()
    assert "jaxsnn_layer_forward" not in program_text(backend="xla")
    assert "jaxsnn_layer_forward" not in program_text(forward_mode=True)


def test_without_a_compiler_xla_runs(run_python, tmp_path):
    code = """
from jaxsnn.commands.doctor_command import diagnose
from jaxsnn.event.native.native_build import native_library
from tests.event.test_native import program_text
print(native_library())
print(diagnose().backends["native"])
print("jaxsnn_layer" in program_text())
"""
    empty = {"PATH": str(tmp_path), "CXX": "", "JAXSNN_CACHE_DIR": str(tmp_path)}
    reason, doctor, is_native = run_python(code, **empty).stdout.splitlines()
    assert "there=False" in reason
    assert "no C++ compiler" in doctor
    assert is_native == "False"


# -- feedback and convolutions

T_END = 40e-3


def drawn_events(seed, samples, count, channels):
    rng = np.random.default_rng(seed)
    time = np.sort(rng.uniform(0, 25e-3, (samples, count)))
    index = rng.integers(0, channels, time.shape)
    return Events(time=jnp.asarray(time), index=jnp.asarray(index, jnp.int32))


def engine_of(**options):
    return EventDriven(**{"max_spikes": 12, "max_arrivals": 400} | options)


def normal_weights(shape, dtype):
    return jnp.asarray(np.random.default_rng(3).normal(size=shape), dtype)


def spikes_and_network_gradients(graph, events, weights=normal_weights, **options):
    """Spikes of the last population and gradients by all parameters and input times."""
    net = lower(graph)
    last = list(net.populations)[-1]

    def loss(parameters, time):
        solution = simulate(
            net.with_parameters(parameters),
            Events(time=time, index=events.index),
            T_END,
            engine=engine_of(**options),
        )
        spikes = solution.spikes[last]
        slopes = jax.lax.stop_gradient(jnp.clip(spikes.slope, 0, 50))
        times = finite_times(spikes.time)
        total = jnp.sum(weights(times.shape, times.dtype) * slopes * times)
        return total, (spikes, solution.result)

    both = jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True))
    (_, (spikes, result)), gradient = both(net.parameters, events.time)
    assert result == Result.SUCCESS
    return spikes, gradient


#: Options of a graph with rectangular pulses that are short compared with the gaps between them.
BOXES = {"spike_kernel": "box", "dialect": "nir", "time_unit": "s", "dt": 1e-3}


def recurrent_graph(*, share=1.0, neurons=current_based, **options):
    """A loop, in which a share of the connections is there."""
    rng = np.random.default_rng(5)
    connected = np.random.default_rng(7).random((19, 19)) < share
    nodes = {
        "input": build.input(4),
        "in": build.linear(weight=rng.normal(0.9, 0.3, (19, 4))),
        "loop": neurons(),
        "back": build.linear(weight=connected * rng.normal(0, 0.25, (19, 19))),
        "out": build.linear(weight=rng.normal(0.3, 0.1, (2, 19))),
        "last": neurons(),
        "output": build.output(),
    }
    chain = ("input", "in", "loop", "out", "last", "output")
    return build.network(nodes, [chain, ("loop", "back", "loop")], **options)


def convolution_graph(*, neurons=current_based, **options):
    rng = np.random.default_rng(6)
    plain = {"stride": 1, "dilation": 1, "groups": 1}
    first, second = rng.normal(0.5, 0.4, (3, 2, 3, 3)), rng.normal(0.12, 0.1, (4, 3, 2, 2))
    return build.sequential(
        build.input((2, 8, 8)),
        build.node("Conv2d", weight=first, bias=np.full(3, 0.1), padding=1, **plain),
        neurons(),
        build.node("SumPool2d", kernel_size=2, stride=2, padding=0),
        build.node("Conv2d", weight=second, bias=np.zeros(4), padding=0, **plain),
        neurons(),
        **options,
    )


def lif(r):
    return partial(build.lif, tau="10ms", r=r)


INTEGRATORS = partial(build.integrate_and_fire, v_threshold=3.0)
#: Name -> function that builds the graph, number of events of a sample, number of channels.
GRAPHS = {
    "loop": (recurrent_graph, 12, 4),
    "loop, boxes": (partial(recurrent_graph, neurons=lif(3.5e-3), **BOXES), 12, 4),
    "loop, integrators": (partial(recurrent_graph, share=0.3, neurons=INTEGRATORS, **BOXES), 12, 4),
    "convolution": (convolution_graph, 150, 128),
    "convolution, boxes": (partial(convolution_graph, neurons=lif(4.5e-3), **BOXES), 150, 128),
}
SLOW = ("loop, integrators", "convolution")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW)) for name in GRAPHS]
)
def test_whole_networks_agree(name, x64):
    make, count, channels = GRAPHS[name]
    run = partial(spikes_and_network_gradients, make(), drawn_events(4, 3, count, channels))
    expected, expected_gradient = run(backend="xla")
    spikes, gradient = run(backend="native", threads=2)
    assert int(expected.count.sum()) > 6
    np.testing.assert_array_equal(spikes.count, expected.count)
    np.testing.assert_allclose(spikes.time, expected.time, atol=1e-11 * TAU)
    assert_trees_close(gradient, expected_gradient, atol=1e-9, relative_to=1e-12)
    assert_trees_equal(run(backend="native", threads=1), (spikes, gradient))


@pytest.mark.parametrize(
    ("make", "refractory"),
    [
        (convolution_graph, 0.0),
        (convolution_graph, 3e-3),
        (partial(convolution_graph, neurons=lif(1.0)), 0.0),
    ],
    ids=["currents", "refractory", "jumps"],
)
def test_convolutions_of_many_samples_are_those_of_few(make, refractory, x64):
    """From 8 samples on, the lists of a sample are made and gone through by one thread."""
    events = drawn_events(8, 9, 150, 128)

    def run(samples, **options):
        def weights(shape, dtype):
            return normal_weights((9, *shape[1:]), dtype)[samples]

        part = Events(time=events.time[samples], index=events.index[samples])
        options |= {"backend": "native", "refractory": refractory, "max_spikes": 48}
        return spikes_and_network_gradients(make(), part, weights, **options)

    spikes, (by_parameters, by_time) = together = run(slice(None), threads=2)
    assert int(spikes.count.sum()) > 50
    assert_trees_equal(run(slice(None), threads=1), together)
    parts, gradients = zip(*(run(slice(n, n + 3)) for n in (0, 3, 6)), strict=True)
    assert_trees_equal(spikes, jax.tree.map(lambda *arrays: np.concatenate(arrays), *parts))
    sums = jax.tree.map(lambda *arrays: sum(arrays), *(gradient[0] for gradient in gradients))
    assert_trees_close(by_parameters, sums, atol=1e-12, relative_to=1e-12)
    times = np.concatenate([gradient[1] for gradient in gradients])
    assert_trees_close(by_time, times, atol=1e-12, relative_to=1e-12)


@pytest.mark.parametrize("directly", [False, True], ids=["behind alone", "and the loss"])
@pytest.mark.parametrize("samples", [3, 9])
def test_first_spikes_have_the_gradients_of_all(samples, directly, x64):
    """A convolution behind takes the first spikes, and not all slots; the loss may take all of them."""
    net, events = lower(convolution_graph()), drawn_events(8, samples, 150, 128)
    first, last = net.populations

    def run(backend, room):
        engine = engine_of(max_events={first: room}, backend=backend)

        def loss(parameters, time):
            train = Events(time=time, index=events.index)
            spikes = simulate(net.with_parameters(parameters), train, T_END, engine=engine).spikes
            total = sum(
                jnp.sum(normal_weights(times.shape, times.dtype) * finite_times(times))
                for times in [spikes[last].time, *([spikes[first].time] if directly else [])]
            )
            return total, spikes[first].count

        both = jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True))
        (_, count), gradient = both(net.parameters, events.time)
        return count, gradient

    slots = 12 * net.populations[first].size
    count, gradient = run("native", slots // 2)
    assert 100 < int(count.sum(axis=1).max()) <= slots // 2
    for backend, room, atol in (("native", slots, 1e-12), ("xla", slots // 2, 1e-9)):
        assert_trees_close(gradient, run(backend, room)[1], atol=atol, relative_to=1e-12)


@pytest.mark.parametrize("share", [1.0, 0.12])
def test_a_loop_agrees_by_its_weights_alone(share, x64):
    """Few connections are gone through one by one, and zeros among weights have gradients, too."""
    net, events = lower(recurrent_graph(share=share)), drawn_events(4, 3, 12, 4)
    own_weight = net.parameters["back"]["weight"]
    zeros = np.asarray(own_weight == 0).sum(axis=0)
    assert (zeros.max() > 19 * 5 // 6) == (share < 1)

    def run(backend, threads=1):
        engine = EventDriven(max_spikes=12, backend=backend, threads=threads)

        def loss(weight):
            changed = net.with_parameters({**net.parameters, "back": {"weight": weight}})
            spikes = simulate(changed, events, T_END, engine=engine).spikes
            return finite_times(spikes["last"].time).sum(), spikes["loop"].time

        (_, times), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(own_weight)
        return times, gradient

    expected, expected_gradient = run("xla")
    times, gradient = run("native")
    np.testing.assert_allclose(times, expected, atol=1e-11 * TAU)
    assert np.count_nonzero(expected_gradient) > 100
    assert_trees_close(gradient, expected_gradient, atol=1e-9)
    np.testing.assert_array_equal(run("native", 2)[1], gradient)


@pytest.mark.parametrize("neurons", [8, 64], ids=["dense", "sparse"])
def test_closed_boxes_leave_nothing_behind_in_a_loop(neurons):
    """Boxes that end when others begin: integrators that have not fired at 1 s hear nothing more."""
    width, weight = 2.0**-10, np.zeros((neurons, 3))
    weight[:8] = np.random.default_rng(0).uniform(0.1, 0.6, (8, 3))
    nodes = {
        "input": build.input(3),
        "in": build.linear(weight=weight),
        "loop": build.integrate_and_fire(v_threshold=2.0),
        "back": build.linear(weight=np.zeros((neurons, neurons))),
        "output": build.output(),
    }
    chains = [("input", "in", "loop", "output"), ("loop", "back", "loop")]
    graph = build.network(nodes, chains, **BOXES | {"dt": width})
    events = Events(time=[[1.0, 1.0 + width, 1.0 + 2 * width]], index=[[2, 1, 0]])
    solution = simulate(lower(graph), events, 1e7, engine=EventDriven(backend="native"))
    assert solution.spikes["loop"].count.sum() == 0


@pytest.mark.parametrize("looped", [False, True])
def test_closed_boxes_leave_no_rounding_of_larger_ones(looped):
    """Large boxes that compensate each other round small ones, after which nothing may stay."""
    neurons, width, large = 16, 2.0**-10, 2.0**20
    small = np.random.default_rng(0).uniform(1e-3, 1e-2, (neurons, 3))
    weight = np.concatenate([np.full((neurons, 1), -large), small, np.full((neurons, 1), large)], 1)
    nodes = {
        "input": build.input(5),
        "in": build.linear(weight=weight),
        "n": build.integrate_and_fire(v_threshold=2.0),
        "back": build.linear(weight=np.zeros((neurons, neurons))),
        "output": build.output(),
    }
    chains = [("input", "in", "n", "output"), *([("n", "back", "n")] if looped else [])]
    used = {name: node for name, node in nodes.items() if looped or name != "back"}
    net = lower(build.network(used, chains, **BOXES | {"dt": width}))
    # The positive large box opens when the negative one closes.
    time = width * np.array([[1.0, 1.25, 1.5, 1.75, 2.0]])
    train = Events(time=time, index=np.arange(5)[None])
    solution = simulate(net, train, 1e12, engine=EventDriven(backend="native"))
    assert solution.spikes["n"].count.sum() == 0


@pytest.mark.parametrize("backend", ["native", "xla"])
def test_too_few_events_of_a_loop_end_the_run(backend):
    net, engine = lower(recurrent_graph()), engine_of(max_events={"loop": 3}, backend=backend)
    solution = simulate(net, drawn_events(4, 2, 12, 4), T_END, engine=engine, throw=False)
    assert solution.result == Result.BUDGET_EXHAUSTED
