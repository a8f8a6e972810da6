"""What JAX makes of a simulation: transformations of it, several devices, a file to be shipped."""

import json
import os
import subprocess
import sys
from functools import partial
from importlib.util import find_spec

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

from jaxsnn import EventDriven, Events, TimeStepped, lower, simulate
from jaxsnn.errors import UsageError
from jaxsnn.network.results import Result
from jaxsnn.nir import build
from tests.helpers.pages import blocks_of
from tests.helpers.refusals import assert_refused
from tests.helpers.transformed import (
    CASES,
    CHANNELS,
    EVENTS,
    PAGE,
    SAMPLES,
    SECTIONS_OF_DEVICES,
    T_END,
    boxes,
    input_arrays,
    line,
    line_graph,
    numbers,
    of_line,
    of_line_by_xla,
    run_page,
    weights_of,
    with_gradient,
    with_weights,
)

WITH_DEVICES = ["shard_map", "explicit"]


@pytest.fixture(scope="module")
def child():
    """What needs two devices, in a process of its own that runs beside these tests."""
    flags = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=2"
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.helpers.transformed"],
        env={**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    yield process
    process.kill()


@pytest.fixture(scope="module")
def on_two_devices(child):
    out, err = child.communicate(timeout=300)
    assert child.returncode == 0, err
    return json.loads(out.splitlines()[-1])


@pytest.fixture(scope="module")
def alone(child):
    """Of each case the value and the gradient of `jax.jit`: made when first asked for."""
    del child  # the child has started by now
    outcomes = {}

    def of(name):
        if name not in outcomes:
            make, function = (CASES | {"line": (lambda: weights_of(line()), of_line)})[name]
            outcomes[name] = numbers(jax.jit(with_gradient(function))(make(), *input_arrays()))
            assert any(np.any(row) for row in outcomes[name][1:])
        return outcomes[name]

    return of


def assert_alike(rows, expected):
    """Up to the order of sums."""
    assert len(rows) == len(expected)
    for ours, theirs in zip(rows, expected, strict=True):
        scale = np.abs(theirs).max(initial=0)
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=2e-5 * scale + 1e-9)


# -- on one device


def test_vmap_over_parameters(alone):
    weights = weights_of(line())
    several = jax.tree.map(lambda array: jnp.stack([array, 1.1 * array]), weights)
    both = jax.jit(jax.vmap(with_gradient(of_line), (0, None, None)))(several, *input_arrays())
    assert_alike(numbers(jax.tree.map(lambda array: array[0], both)), alone("line"))
    assert both[0][1] < both[0][0]  # stronger weights give earlier spikes


def test_counts_of_several_runs_have_the_gradients_of_each():
    time, index = input_arrays()

    def counted(weights, outside):
        def run(factor):
            network = with_weights(line(), {"1": factor * weights})
            events, engine = Events(time=time, index=index), EventDriven(max_spikes=8)
            solution = simulate(network, events, T_END, engine=engine, throw=False)
            return solution if outside else solution.count("2")

        counts = jax.vmap(run)(jnp.array([1.0, 1.1]))
        return jnp.sum(counts.count("2") if outside else counts)

    gradient = jax.jit(jax.grad(counted), static_argnums=1)
    inside, outside = (
        gradient(weights_of(line())["1"], from_outside) for from_outside in (False, True)
    )
    assert inside.any()
    np.testing.assert_allclose(outside, inside, rtol=1e-6)


def test_grad_agrees_with_a_difference(alone):
    weights, (time, index) = weights_of(line()), input_arrays()
    value = jax.jit(of_line)
    gradient = np.reshape(alone("line")[-1], time.shape)
    sample, event = np.unravel_index(np.abs(gradient).argmax(), time.shape)
    step = jnp.zeros_like(time).at[sample, event].set(2e-5)
    difference = value(weights, time + step, index) - value(weights, time - step, index)
    assert difference / 4e-5 == pytest.approx(gradient[sample, event], rel=1e-2)


def test_scan_and_checkpoint(alone):
    """Batches one after the other, the run in the gradient again."""
    weights, (time, index) = weights_of(line()), input_arrays()
    parts = time.reshape(2, -1, EVENTS), index.reshape(2, -1, EVENTS)
    again = jax.checkpoint(of_line)

    def mean(weights, time, index):
        def step(total, part):
            return total + again(weights, *part), None

        return jax.lax.scan(step, 0.0, (time, index))[0] / 2

    value, (by_weights, by_time) = jax.jit(with_gradient(mean))(weights, *parts)
    outcome = value, (by_weights, by_time.reshape(time.shape))
    assert_alike(numbers(outcome), alone("line"))


def test_debug_nans(alone):
    with jax.debug_nans(True):
        outcome = jax.jit(with_gradient(of_line))(weights_of(line()), *input_arrays())
    assert_alike(numbers(outcome), alone("line"))


@pytest.mark.parametrize(
    ("name", "types"), [("line", "strict"), ("whole", "strict"), ("stepped", "standard")]
)
def test_rules_of_promotion_are_the_program_s_own(name, types, alone):
    """What the engines and their rules of derivatives compute is not bound by them."""
    make, function = (CASES | {"line": (lambda: weights_of(line()), of_line_by_xla)})[name]
    with jax.numpy_rank_promotion("raise"), jax.numpy_dtype_promotion(types):
        outcome = with_gradient(jax.jit(function))(make(), *input_arrays())
    assert_alike(numbers(outcome), alone(name))


def shapes_of(tree):
    return jax.tree.map(lambda array: jax.ShapeDtypeStruct(array.shape, array.dtype), tree)


def shipped(exported, vjp_order=0):
    """What comes out of the file, where the package is there that JAX writes files with."""
    if find_spec("flatbuffers") is None:
        return exported
    return export.deserialize(exported.serialize(vjp_order=vjp_order))


def test_export_with_a_gradient(alone):
    arguments = weights_of(line()), *input_arrays()
    exported = shipped(export.export(jax.jit(of_line_by_xla))(*shapes_of(arguments)), vjp_order=1)
    value, pull = jax.vjp(exported.call, *arguments)
    by_weights, by_time, _ = pull(jnp.ones(()))
    assert_alike(numbers((value, by_weights, by_time)), alone("line"))


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] * (n in ("whole", "boxes"))) for n in CASES]
)
def test_export_with_a_symbolic_batch(alone, name):
    """One file for batches of all sizes."""
    make, function = CASES[name]
    parameters = make()
    (batch,) = export.symbolic_shape("batch")
    time, index = (
        jax.ShapeDtypeStruct((batch, EVENTS), dtype) for dtype in (jnp.float32, jnp.int32)
    )
    # Files contain lists and dicts, but no classes.
    leaves, tree = jax.tree.flatten(parameters)

    def flat(leaves, time, index):
        outcome = with_gradient(function)(jax.tree.unflatten(tree, leaves), time, index)
        return jax.tree.leaves(outcome)

    exported = shipped(export.export(jax.jit(flat))(shapes_of(leaves), time, index))
    assert_alike(numbers(exported.call(leaves, *input_arrays())), alone(name))
    if name == "boxes":
        many = [jnp.concatenate([array] * 9) for array in input_arrays()]
        assert_alike(numbers(exported.call(leaves, *many))[:-1], alone(name)[:-1])


# -- page of the documentation; its parts for several devices run in the child


@pytest.mark.slow
def test_the_page_runs():
    sections = [block.section for block in blocks_of(PAGE.stem) if block.language == "python"]
    assert {"A network", *SECTIONS_OF_DEVICES} <= {*sections}
    rest = [name for name in dict.fromkeys(sections) if name not in SECTIONS_OF_DEVICES]
    rest.remove("A network")
    if find_spec("flatbuffers") is None:
        rest.remove("Save an exported network in a file")
    run_page(rest)


# -- on two devices


@pytest.mark.parametrize("layout", WITH_DEVICES)
@pytest.mark.parametrize("name", CASES)
def test_two_devices_give_the_result_of_one(on_two_devices, alone, layout, name):
    assert_alike(on_two_devices[f"{layout} {name}"], alone(name))


@pytest.mark.parametrize("layout", ["pmap", "auto"])
def test_two_devices_without_types_give_the_result_of_one(on_two_devices, alone, layout):
    assert_alike(on_two_devices[f"{layout} line"], alone("line"))


# -- 64 bits


@pytest.mark.parametrize("engine", [None, TimeStepped(dt=1e-3)])
def test_a_network_of_64_bits_is_refused_where_jax_computes_with_32(engine):
    with jax.enable_x64(True):
        network = boxes()
    message = (
        "node '1': weight is float64, but JAX computes in float32: call "
        r'jax.config.update\("jax_enable_x64", True\) at the start, or lower the network with '
        'dtype="float32"'
    )
    assert_refused(lambda: simulated(network, engine=engine), UsageError, message)


@pytest.mark.parametrize("look", ["first_spike", "count", "events", "maximum"])
def test_a_solution_of_64_bits_is_refused_where_jax_computes_with_32(look):
    with jax.enable_x64(True):
        solution = simulate(lower(line_graph()), Events(time=[[0.01]], index=[[0]]), T_END)
    read = partial(getattr(solution, look), next(iter(solution.spikes)))
    message = "this solution is float64, and JAX computes in float32: call .* jax.enable_x64"
    assert_refused(read, UsageError, message)
    with jax.enable_x64(True):
        assert jax.tree.leaves(read())[0].dtype == np.float64


def test_float64_is_refused_by_lower_where_jax_computes_with_32():
    graph = build.sequential(build.input(CHANNELS), build.li(tau="10ms"))
    message = "dtype is float64, but JAX computes in float32: call"
    assert_refused(lambda: lower(graph, dtype="float64"), UsageError, message)
    with jax.enable_x64(True):
        assert lower(graph, dtype="float64").dtype == np.float64
    assert lower(graph, dtype=float).dtype == np.float32


def test_numpy_arrays_of_64_bits_are_taken_over(recwarn):
    wide = jax.tree.map(lambda array: np.asarray(array, float), boxes())
    assert wide.dtype == np.float32
    assert simulated(wide).spikes["2"].time.dtype == np.float32
    assert not [str(warning.message) for warning in recwarn]


# -- traced arguments, whose values are unknown


def simulated(network=None, **overrides):
    """A run of `line` with something else in the place of an argument."""
    time, index = input_arrays()
    events = Events(time=overrides.pop("time", time), index=overrides.pop("index", index))
    network = line() if network is None else network
    return simulate(network, events, overrides.pop("t_end", T_END), throw=False, **overrides)


@pytest.mark.parametrize("channel", [1.5, np.nan, np.inf, -1e-3, 2.0**33])
def test_channels_that_are_none_are_seen_in_traced_code(channel):
    index = jnp.full((SAMPLES, EVENTS), 1.0)
    run = jax.jit(lambda index: simulated(index=index).result)
    assert run(index) == Result.SUCCESS
    assert run(index.at[1, 2].set(channel)) == Result.INVALID_INPUT
    unused = jax.jit(lambda time, index: simulated(time=time, index=index).result)
    assert (
        unused(input_arrays()[0].at[1, 2].set(jnp.inf), index.at[1, 2].set(channel))
        == Result.SUCCESS
    )


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("t_end", np.full(2, T_END), r"t_end has shape \(2,\): pass one time, or use jax.vmap"),
        (
            "sample_times",
            np.zeros((2, 1)),
            r"sample_times has 2 axes, shape \(2, 1\), and must be one-dimensional",
        ),
        ("sample_times", 0.0, r"sample_times has 0 axes, shape \(\), and must be one-dimensional"),
        (
            "time",
            np.zeros((4, 6), complex),
            "input 'input': time has values of type complex64: pass numbers",
        ),
    ],
)
def test_what_is_traced_is_refused_by_its_shape_and_type(name, value, message):
    assert_refused(
        lambda: jax.jit(lambda value: simulated(**{name: value}).result)(value), UsageError, message
    )


OTHER_NUMBERS = {
    "half": (lambda x: x.astype("float16"), "node '2': r is float16, but neuron parameters"),
    "whole": (lambda x: x.astype(int), "node '2': r is int32, but neuron parameters"),
    "short": (lambda x: x.astype("bfloat16"), "node '2': r is bfloat16, but neuron parameters"),
    "lists": (lambda x: x.tolist(), "node '1': weight has type list, which is not an array"),
    "nothing": (lambda x: None, "node '1': weight has type NoneType, which is not an array"),
    "stacked": (lambda x: jnp.stack([x] * 2), r"node '1': weight has shape \(2, 3, 4\): use shape"),
    "cut": (lambda x: x[:2], r"node '1': weight has shape \(2, 4\): use shape \(3, 4\)"),
}


@pytest.mark.parametrize(("change", "message"), OTHER_NUMBERS.values(), ids=OTHER_NUMBERS)
@pytest.mark.parametrize("engine", [None, TimeStepped(dt=1e-3)])
def test_parameters_of_other_types_and_shapes_are_refused(change, message, engine):
    network = jax.tree.map(change, line())
    assert_refused(lambda: simulated(network, engine=engine), UsageError, message)


def spike_times(network, backend):
    return simulated(network, engine=EventDriven(backend=backend)).spikes["2"].time


@pytest.mark.parametrize("kind", ["bfloat16", "float16", "int32"])
@pytest.mark.parametrize("backend", ["auto", "xla"])
def test_weights_of_another_type_do_what_they_do_as_float32(kind, backend):
    weight = line().parameters["1"]["weight"].astype(kind)
    times, expected = (
        spike_times(with_weights(line(), {"1": array}), backend)
        for array in (weight, weight.astype("float32"))
    )
    assert times.dtype == np.float32
    np.testing.assert_array_equal(times, expected)


@pytest.mark.parametrize("backend", ["auto", "xla"])
def test_a_network_of_two_types_is_simulated_in_the_wider_one(backend, x64):
    network = lower(line_graph())
    weight = network.parameters["1"]["weight"].astype("float32")
    mixed, wide = (
        with_weights(network, {"1": array}) for array in (weight, weight.astype("float64"))
    )
    times = spike_times(mixed, backend)
    assert mixed.dtype == times.dtype == np.float64
    np.testing.assert_array_equal(times, spike_times(wide, backend))
    integers = {key: np.ones(3, int) for key in network.parameters["2"]}
    parameters = {**network.parameters, "2": integers}
    message = r"node '2': \w+ is int64, but neuron parameters must be float32 or float64"
    assert_refused(lambda: network.with_parameters(parameters), UsageError, message)


# -- slopes of V at spikes have no derivative


def of_slopes(weights, time, index, forward_mode=False, scale=1.0):
    engine = EventDriven(max_spikes=4, forward_mode=forward_mode)
    network, trains = with_weights(line(), weights), Events(time=time, index=index)
    solution = simulate(network, trains, T_END, engine=engine, throw=False)
    time, slope = solution.spikes["2"].time, solution.spikes["2"].slope
    return scale * jnp.sum(jnp.where(jnp.isfinite(time), slope, 0.0)) + solution.result


def test_a_gradient_by_slopes_is_not_zero_but_nan():
    weights, arrays = weights_of(line()), input_arrays()
    assert np.isnan(jax.grad(of_slopes)(weights, *arrays)["1"]).any()
    assert not np.any(jax.grad(of_slopes)(weights, *arrays, scale=0.0)["1"])
    _, tangent = jax.jvp(lambda w: of_slopes(w, *arrays, forward_mode=True), *[(weights,)] * 2)
    assert np.isnan(tangent)


def test_slopes_that_a_loop_hands_on_change_no_gradient(alone):
    """`scan` gives zeros for the gradient of all that it hands on."""
    weights, (time, index) = weights_of(line()), input_arrays()

    def mean(weights, time, index):
        def step(_, part):
            network = with_weights(line(), weights)
            events, engine = Events(time=part[0], index=part[1]), EventDriven(max_spikes=4)
            return None, simulate(network, events, T_END, engine=engine, throw=False).spikes["2"]

        parts = time.reshape(2, -1, EVENTS), index.reshape(2, -1, EVENTS)
        spikes = jax.lax.scan(step, None, parts)[1]
        return jnp.mean(jnp.minimum(spikes.time[..., 0], T_END)) / T_END

    assert_alike(numbers(with_gradient(mean)(weights, time, index)), alone("line"))


@pytest.mark.parametrize(
    ("engine", "shown", "looks", "rtol"),
    [
        # Inside vmap, XLA rounds the last digits of float32 differently.
        (None, "EventSolution(2; of several runs, (2,))", ("message", "events", "maximum"), 1e-6),
        (TimeStepped(dt=1e-3), "SteppedSolution(output; of several runs, (2,))", ("message", "events"), 0),
    ],
)  # fmt: skip
def test_a_solution_of_several_runs_is_looked_at_one_by_one(engine, shown, looks, rtol):
    several = jax.tree.map(lambda x: jnp.stack([x, 1.1 * x]), line())
    solution = jax.vmap(lambda network: simulated(network, engine=engine))(several)
    assert repr(solution) == shown
    readers = {
        "message": lambda: solution.message,
        "events": lambda: solution.events("2"),
        "maximum": lambda: solution.maximum("2"),
    }
    message = r"contains several runs, combined by jax.vmap \(shape \(2,\)\): evaluate it inside"
    for look in looks:
        assert_refused(readers[look], UsageError, message)
    first, alone = jax.tree.map(lambda x: x[0], solution), simulated(engine=engine)
    assert first.message == "success"
    np.testing.assert_allclose(first.events("2").time, alone.events("2").time, rtol=rtol)


#: Functions that read a solution, with its shape for one run.
READERS = {
    "count": lambda solution: solution.count("2"),
    "counts": lambda solution: solution.counts["2"],
    "first_spike": lambda solution: solution.first_spike("2"),
    "spike_sum": lambda solution: solution.spike_sum("2", 5e-3),
    "maximum": lambda solution: solution.maximum("2"),
    "integral": lambda solution: solution.integral("2", 5e-3),
}


@pytest.mark.parametrize("runs", [(2,), (2, 3)], ids=["runs", "grid"])
def test_steps_of_several_runs_are_looked_at_as_each(runs):
    """Time is not their first axis."""

    def run(factor):
        weight = factor * line().parameters["1"]["weight"]
        engine = TimeStepped(dt=1e-3, record=True)
        return simulated(with_weights(line(), {"1": weight}), engine=engine)

    def read(solution):
        return {name: reader(solution) for name, reader in READERS.items()}

    def of_each(function):
        for _ in runs:
            function = jax.vmap(function)
        return function

    factors = jnp.linspace(1, 3, int(np.prod(runs))).reshape(runs)
    expected = of_each(lambda factor: read(run(factor)))(factors)
    values = read(of_each(run)(factors))
    for name in READERS:
        assert expected[name].shape == (*runs, SAMPLES, 3)
        np.testing.assert_array_equal(values[name], expected[name], err_msg=name)
