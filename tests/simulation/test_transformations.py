"""What JAX makes of a simulation: transformations of it, several devices, a file to be shipped."""

import json
import os
import re
import subprocess
import sys
from importlib.util import find_spec

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

from jaxsnn import EventDriven, Events, TimeStepped, lower, simulate
from jaxsnn.errors import UsageError
from jaxsnn.network.results import Result
from tests.helpers.transformed import (
    CASES,
    CHANNELS,
    EVENTS,
    PAGE,
    SAMPLES,
    SECTIONS_OF_DEVICES,
    T_END,
    boxes,
    given,
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
    del child  # which has begun
    found = {}

    def of(name):
        if name not in found:
            make, function = (CASES | {"line": (lambda: weights_of(line()), of_line)})[name]
            found[name] = numbers(jax.jit(with_gradient(function))(make(), *given()))
            assert any(np.any(row) for row in found[name][1:])
        return found[name]

    return of


def assert_alike(found, wanted):
    """Up to the order of sums."""
    assert len(found) == len(wanted)
    for ours, theirs in zip(found, wanted, strict=True):
        scale = np.abs(theirs).max(initial=0)
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=2e-5 * scale + 1e-9)


# ---- on one device


def test_vmap_over_parameters(alone):
    weights = weights_of(line())
    several = jax.tree.map(lambda array: jnp.stack([array, 1.1 * array]), weights)
    both = jax.jit(jax.vmap(with_gradient(of_line), (0, None, None)))(several, *given())
    assert_alike(numbers(jax.tree.map(lambda array: array[0], both)), alone("line"))
    assert both[0][1] < both[0][0]  # stronger weights, earlier spikes


def test_counts_of_several_runs_have_the_gradients_of_each():
    time, index = given()

    def counted(weights, outside):
        def one(factor):
            network = with_weights(line(), {"1": factor * weights})
            events, engine = Events(time=time, index=index), EventDriven(max_spikes=8)
            solution = simulate(network, events, T_END, engine=engine, throw=False)
            return solution if outside else solution.count("2")

        found = jax.vmap(one)(jnp.array([1.0, 1.1]))
        return jnp.sum(found.count("2") if outside else found)

    gradient = jax.jit(jax.grad(counted), static_argnums=1)
    inside, outside = (gradient(weights_of(line())["1"], own) for own in (False, True))
    assert inside.any()
    np.testing.assert_allclose(outside, inside, rtol=1e-6)


def test_grad_agrees_with_a_difference(alone):
    weights, (time, index) = weights_of(line()), given()
    value = jax.jit(of_line)
    gradient = np.reshape(alone("line")[-1], time.shape)
    sample, event = np.unravel_index(np.abs(gradient).argmax(), time.shape)
    step = jnp.zeros_like(time).at[sample, event].set(2e-5)
    difference = value(weights, time + step, index) - value(weights, time - step, index)
    assert difference / 4e-5 == pytest.approx(gradient[sample, event], rel=1e-2)


def test_scan_and_checkpoint(alone):
    """Batches one after the other, the run in the gradient again."""
    weights, (time, index) = weights_of(line()), given()
    parts = time.reshape(2, -1, EVENTS), index.reshape(2, -1, EVENTS)
    again = jax.checkpoint(of_line)

    def mean(weights, time, index):
        def step(total, part):
            return total + again(weights, *part), None

        return jax.lax.scan(step, 0.0, (time, index))[0] / 2

    value, (by_weights, by_time) = jax.jit(with_gradient(mean))(weights, *parts)
    found = value, (by_weights, by_time.reshape(time.shape))
    assert_alike(numbers(found), alone("line"))


def test_debug_nans(alone):
    with jax.debug_nans(True):
        found = jax.jit(with_gradient(of_line))(weights_of(line()), *given())
    assert_alike(numbers(found), alone("line"))


@pytest.mark.parametrize(
    ("name", "types"), [("line", "strict"), ("whole", "strict"), ("stepped", "standard")]
)
def test_rules_of_promotion_are_the_program_s_own(name, types, alone):
    """What the engines and their rules of derivatives compute is not bound by them."""
    make, function = (CASES | {"line": (lambda: weights_of(line()), of_line_by_xla)})[name]
    with jax.numpy_rank_promotion("raise"), jax.numpy_dtype_promotion(types):
        found = with_gradient(jax.jit(function))(make(), *given())
    assert_alike(numbers(found), alone(name))


def shapes_of(tree):
    return jax.tree.map(lambda array: jax.ShapeDtypeStruct(array.shape, array.dtype), tree)


def shipped(exported, vjp_order=0):
    """What comes out of the file, where the package is there that JAX writes files with."""
    if find_spec("flatbuffers") is None:
        return exported
    return export.deserialize(exported.serialize(vjp_order=vjp_order))


def test_export_with_a_gradient(alone):
    arguments = weights_of(line()), *given()
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
    # Files hold lists and dicts, and no classes.
    leaves, tree = jax.tree.flatten(parameters)

    def flat(leaves, time, index):
        found = with_gradient(function)(jax.tree.unflatten(tree, leaves), time, index)
        return jax.tree.leaves(found)

    exported = shipped(export.export(jax.jit(flat))(shapes_of(leaves), time, index))
    assert_alike(numbers(exported.call(leaves, *given())), alone(name))
    if name == "boxes":
        many = [jnp.concatenate([array] * 9) for array in given()]
        assert_alike(numbers(exported.call(leaves, *many))[:-1], alone(name)[:-1])


# ---- the page of the documentation; what it does on several devices runs in the child


@pytest.mark.slow
def test_the_page_runs():
    sections = re.findall("^## (.*)", PAGE.read_text(), re.M)
    rest = [name for name in sections[1:] if name not in SECTIONS_OF_DEVICES]
    assert sections[0] == "A network"
    assert len(rest) == len(sections) - 3
    if find_spec("flatbuffers") is None:
        rest.remove("To a file")
    run_page(rest)


# ---- on two devices


@pytest.mark.parametrize("how", WITH_DEVICES)
@pytest.mark.parametrize("name", CASES)
def test_two_devices_give_the_result_of_one(on_two_devices, alone, how, name):
    assert_alike(on_two_devices[f"{how} {name}"], alone(name))


@pytest.mark.parametrize("how", ["pmap", "auto"])
def test_two_devices_without_types_give_the_result_of_one(on_two_devices, alone, how):
    assert_alike(on_two_devices[f"{how} line"], alone("line"))


# ---- 64 bits


@pytest.mark.parametrize("engine", [None, TimeStepped(dt=1e-3)])
def test_a_network_of_64_bits_is_refused_where_jax_computes_with_32(engine):
    with jax.enable_x64(True):
        network = boxes()
    time, index = given()
    message = (
        "node '1': weight is float64, and JAX computes in float32: call "
        r'jax.config.update\("jax_enable_x64", True\) at the start, or lower the network with '
        'dtype="float32"'
    )
    with pytest.raises(UsageError, match=message):
        simulate(network, Events(time=time, index=index), T_END, engine=engine)


@pytest.mark.parametrize("look", ["first_spike", "count", "events", "maximum"])
def test_a_solution_of_64_bits_is_refused_where_jax_computes_with_32(look):
    with jax.enable_x64(True):
        solution = simulate(lower(line_graph()), Events(time=[[0.01]], index=[[0]]), T_END)
    name = next(iter(solution.spikes))
    message = "this solution is float64, and JAX computes in float32: call .* jax.enable_x64"
    with pytest.raises(UsageError, match=message):
        getattr(solution, look)(name)
    with jax.enable_x64(True):
        found = jax.tree.leaves(getattr(solution, look)(name))
    assert found[0].dtype == np.float64


def test_float64_is_refused_by_lower_where_jax_computes_with_32():
    from jaxsnn.nir import build

    graph = build.sequential(build.input(CHANNELS), build.li(tau="10ms"))
    with pytest.raises(UsageError, match="dtype is float64, and JAX computes in float32: call"):
        lower(graph, dtype="float64")
    with jax.enable_x64(True):
        assert lower(graph, dtype="float64").dtype == np.float64
    assert lower(graph, dtype=float).dtype == np.float32


def test_numpy_arrays_of_64_bits_are_taken_over(recwarn):
    network, (time, index) = boxes(), given()
    wide = jax.tree.map(lambda array: np.asarray(array, float), network)
    assert wide.dtype == np.float32
    found = simulate(wide, Events(time=time, index=index), T_END, throw=False)
    assert found.spikes["2"].time.dtype == np.float32
    assert not [str(each.message) for each in recwarn]


# ---- what is traced has no numbers, and still no meaning of its own


def simulated(network=None, **given_):
    """A run of `line` with something else in the place of an argument."""
    time, index = given()
    events = Events(time=given_.pop("time", time), index=given_.pop("index", index))
    network = line() if network is None else network
    return simulate(network, events, given_.pop("t_end", T_END), throw=False, **given_)


@pytest.mark.parametrize("channel", [1.5, np.nan, np.inf, -1e-3, 2.0**33])
def test_channels_that_are_none_are_seen_in_traced_code(channel):
    index = jnp.full((SAMPLES, EVENTS), 1.0)
    run = jax.jit(lambda index: simulated(index=index).result)
    assert run(index) == Result.SUCCESS
    assert run(index.at[1, 2].set(channel)) == Result.INVALID_INPUT
    unused = jax.jit(lambda time, index: simulated(time=time, index=index).result)
    assert unused(given()[0].at[1, 2].set(jnp.inf), index.at[1, 2].set(channel)) == Result.SUCCESS


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("t_end", np.full(2, T_END), r"t_end has shape \(2,\): pass one number, or jax.vmap"),
        (
            "sample_times",
            np.zeros((2, 1)),
            r"sample_times have 2 axes, shape \(2, 1\), and must have 1",
        ),
        ("sample_times", 0.0, r"sample_times have 0 axes, shape \(\), and must have 1"),
        ("time", np.zeros((4, 6), complex), "input 'input': time holds complex64: give numbers"),
    ],
)
def test_what_is_traced_is_refused_by_its_shape_and_type(name, value, message):
    with pytest.raises(UsageError, match=message):
        jax.jit(lambda value: simulated(**{name: value}).result)(value)


OTHER_NUMBERS = {
    "half": (lambda x: x.astype("float16"), "node '2': r is float16, and parameters of neurons"),
    "whole": (lambda x: x.astype(int), "node '2': r is int32, and parameters of neurons"),
    "short": (lambda x: x.astype("bfloat16"), "node '2': r is bfloat16, and parameters of neurons"),
    "lists": (lambda x: x.tolist(), "node '1': weight is a list: give an array"),
    "nothing": (lambda x: None, "node '1': weight is a NoneType: give an array"),
    "stacked": (lambda x: jnp.stack([x] * 2), r"node '1': weight has shape \(2, 3, 4\): give it"),
    "cut": (lambda x: x[:2], r"node '1': weight has shape \(2, 4\): give it the shape \(3, 4\)"),
}


@pytest.mark.parametrize("name", OTHER_NUMBERS)
@pytest.mark.parametrize("engine", [None, TimeStepped(dt=1e-3)])
def test_parameters_of_other_types_and_shapes_are_refused(name, engine):
    changed, message = OTHER_NUMBERS[name]
    with pytest.raises(UsageError, match=message):
        simulated(jax.tree.map(changed, line()), engine=engine)


@pytest.mark.parametrize("kind", ["bfloat16", "float16", "int32"])
@pytest.mark.parametrize("backend", ["auto", "xla"])
def test_weights_of_another_type_do_what_they_do_as_float32(kind, backend):
    weight, engine = line().parameters["1"]["weight"].astype(kind), EventDriven(backend=backend)
    found, expected = (
        simulated(with_weights(line(), {"1": own}), engine=engine).spikes["2"].time
        for own in (weight, weight.astype("float32"))
    )
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("backend", ["auto", "xla"])
def test_a_network_of_two_types_is_simulated_in_the_wider_one(backend, x64):
    network, engine = lower(line_graph()), EventDriven(backend=backend)
    short = {"1": network.parameters["1"]["weight"].astype("float32")}
    mixed, wide = with_weights(network, short), {"1": short["1"].astype("float64")}
    found, expected = (
        simulated(own, engine=engine).spikes["2"].time
        for own in (mixed, with_weights(network, wide))
    )
    assert mixed.dtype == found.dtype == np.float64
    np.testing.assert_array_equal(found, expected)
    whole = {key: np.ones(3, int) for key in network.parameters["2"]}
    message = r"node '2': \w+ is int64, and parameters of neurons are float32 or float64"
    with pytest.raises(UsageError, match=message):
        network.with_parameters({**network.parameters, "2": whole})


# ---- slopes of V at spikes have no derivative


def of_slopes(weights, time, index, forward_mode=False, scale=1.0):
    engine = EventDriven(max_spikes=4, forward_mode=forward_mode)
    network = with_weights(line(), weights)
    found = simulate(network, Events(time=time, index=index), T_END, engine=engine, throw=False)
    own = found.spikes["2"]
    return scale * jnp.sum(jnp.where(jnp.isfinite(own.time), own.slope, 0.0)) + found.result


def test_a_gradient_by_slopes_is_not_zero_but_nan():
    weights, arrays = weights_of(line()), given()
    assert np.isnan(jax.grad(of_slopes)(weights, *arrays)["1"]).any()
    assert not np.any(jax.grad(of_slopes)(weights, *arrays, scale=0.0)["1"])
    _, tangent = jax.jvp(lambda w: of_slopes(w, *arrays, forward_mode=True), *[(weights,)] * 2)
    assert np.isnan(tangent)


def test_slopes_that_a_loop_hands_on_change_no_gradient(alone):
    """`scan` gives zeros for the gradient of all that it hands on."""
    weights, (time, index) = weights_of(line()), given()

    def mean(weights, time, index):
        def step(_, part):
            network = with_weights(line(), weights)
            events, engine = Events(time=part[0], index=part[1]), EventDriven(max_spikes=4)
            return None, simulate(network, events, T_END, engine=engine, throw=False).spikes["2"]

        parts = time.reshape(2, -1, EVENTS), index.reshape(2, -1, EVENTS)
        spikes = jax.lax.scan(step, None, parts)[1]
        return jnp.mean(jnp.minimum(spikes.time[..., 0], T_END)) / T_END

    assert_alike(numbers(with_gradient(mean)(weights, time, index)), alone("line"))


def test_a_solution_of_several_runs_is_looked_at_one_by_one():
    several = jax.tree.map(lambda x: jnp.stack([x, 1.1 * x]), line())
    found = jax.vmap(simulated)(several)
    assert repr(found) == "EventSolution(2; of several runs, (2,))"
    message = r"of several runs, \(2,\), combined by jax.vmap: look at it inside"
    for look in (lambda: found.message, lambda: found.events("2"), lambda: found.maximum("2")):
        with pytest.raises(UsageError, match=message):
            look()
    first = jax.tree.map(lambda x: x[0], found)
    assert first.message == "success"
    # XLA rounds the last digits of float32 otherwise inside vmap
    np.testing.assert_allclose(first.events("2").time, simulated().events("2").time, rtol=1e-6)


STEPPED = {
    "count": lambda found: found.count("2"),
    "counts": lambda found: found.counts["2"],
    "first_spike": lambda found: found.first_spike("2"),
    "spike_sum": lambda found: found.spike_sum("2", 5e-3),
    "maximum": lambda found: found.maximum("2"),
    "integral": lambda found: found.integral("2", 5e-3),
}


@pytest.mark.parametrize("look", STEPPED.values(), ids=STEPPED)
@pytest.mark.parametrize("runs", [(2,), (2, 3)], ids=["runs", "grid"])
def test_steps_of_several_runs_are_looked_at_as_each(look, runs):
    """Time is not their first axis."""

    def run(factor):
        weight = factor * line().parameters["1"]["weight"]
        engine = TimeStepped(dt=1e-3, record=True)
        return simulated(with_weights(line(), {"1": weight}), engine=engine)

    def of_each(function):
        for _ in runs:
            function = jax.vmap(function)
        return function

    factors = jnp.linspace(1, 3, int(np.prod(runs))).reshape(runs)
    expected = of_each(lambda factor: look(run(factor)))(factors)
    assert expected.shape == (*runs, SAMPLES, 3)
    np.testing.assert_array_equal(look(of_each(run)(factors)), expected)


def test_steps_of_several_runs_are_refused_where_one_is_meant():
    several = jax.tree.map(lambda x: jnp.stack([x, 1.1 * x]), line())
    found = jax.vmap(lambda network: simulated(network, engine=TimeStepped(dt=1e-3)))(several)
    assert repr(found) == "SteppedSolution(output; of several runs, (2,))"
    message = r"of several runs, \(2,\), combined by jax.vmap: look at it inside"
    for look in (lambda: found.message, lambda: found.events("2")):
        with pytest.raises(UsageError, match=message):
            look()
    first = jax.tree.map(lambda x: x[0], found)
    alone = simulated(engine=TimeStepped(dt=1e-3))
    np.testing.assert_array_equal(first.events("2").time, alone.events("2").time)
