"""The native backend against XLA's: the same spikes and gradients, whatever the number of threads; what
it does not cover falls back or is refused, and what goes wrong is an error.
"""

import os
import subprocess
import sys
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsnn import EventDriven, Events, lower, simulate
from jaxsnn.errors import UsageError
from jaxsnn.event.adjoint.layer_adjoint import layer_spikes
from jaxsnn.event.adjoint.wanted import Wanted
from jaxsnn.event.dynamics.cubalif import CubaLIFDelta
from jaxsnn.event.dynamics.integrate_and_fire import IFBox, IFDelta
from jaxsnn.event.dynamics.lif import LIFBox, LIFDelta
from jaxsnn.event.dynamics.two_variables import Lanes
from jaxsnn.event.forward.layer import LayerSpec
from jaxsnn.event.native import native_layer
from jaxsnn.event.native.native_build import target_name
from jaxsnn.event.native.native_layer import native_layer_spikes
from jaxsnn.network.results import Result
from jaxsnn.network.structure import TauShape
from jaxsnn.nir import build

pytestmark = pytest.mark.usefixtures("native_kernels")

SHAPES = {2: TauShape.DOUBLE, 0.5: TauShape.HALF, 1: TauShape.EQUAL}
TAU = 1e-2
#: Of a box, seconds.
WIDTH = 7e-3


def lanes_of(rng, shape, ratio, own, above, dtype):
    size = shape[-1]
    spread = rng.uniform(0.7, 1.4, (2, size)) if own else np.ones((2, size))
    starts = rng.uniform(-0.2, 0.3, size) + above * (rng.random(size) < 0.3)
    values = {
        "threshold": rng.uniform(0.5, 1.0, size),
        "v_reset": rng.uniform(-0.3, 0.2, size),
        "v_start": starts,
        "j_start": rng.uniform(-0.2, 0.3, size),
        "tau_mem": ratio * TAU * spread[0],
        "tau_syn": TAU * spread[1],
    }
    return Lanes(
        **{name: jnp.asarray(np.broadcast_to(v, shape), dtype) for name, v in values.items()}
    )


def work(
    ratio,
    own=False,
    refractory=0.0,
    subtract=False,
    once=False,
    above=False,
    neurons=21,
    positions=1,
    dtype=jnp.float64,
    kind=CubaLIFDelta,
    driven=False,
    equality=False,
    arrivals=40,
    strength=0.4,
):
    """A spec, its arguments, and what spikes are weighed by: five samples, unused slots among them.

    Args:
        strength: mean weight. With few strong arrivals many neurons fire in the same interval.
        driven: the neurons fire without arrivals, too: the threshold is below rest.
    """
    rng = np.random.default_rng(neurons + positions)
    shape = (neurons,) if positions == 1 else (positions, neurons)
    batch, rows = 5 * positions, 12
    time = rng.uniform(0, 0.1, (batch, arrivals))
    time[rng.random(time.shape) < 0.1] = np.inf
    lanes = lanes_of(rng, shape, ratio, own, above, dtype)
    if kind is not CubaLIFDelta:
        # much arrives at the same time; j is what drives an IF
        time = np.round(time, 3)
        drive = 30.0 if issubclass(kind, IFBox) and driven else 0.0
        lanes = replace(lanes, j_start=drive * jnp.ones_like(lanes.j_start))
        if driven and issubclass(kind, LIFBox):
            below = {"threshold": lanes.threshold - 1.2, "v_reset": lanes.v_reset - 1.2}
            lanes = replace(lanes, **below, v_start=lanes.v_start - 1.2)
    weight = rng.normal(strength, 0.6, (rows, neurons))
    row = rng.integers(0, rows, time.shape)
    if kind in (LIFBox, IFBox):  # a box opens, and with the negative weight closes
        weight = weight * (1.0 if kind is LIFBox else 60.0)
        weight, row = np.concatenate([weight, -weight]), np.concatenate([row, row + rows], axis=1)
        time = np.concatenate([time, time + WIDTH], axis=1)
    model = kind(
        fires_at_equality=equality,
        tau_shape=TauShape.ANY if own else SHAPES.get(ratio, TauShape.ANY),
        uniform=not own,
        reset_kind="subtract" if subtract else "zero",
    )
    spec = LayerSpec(
        neuron=model,
        max_spikes=1 if once else 8,
        once=once,
        min_slope=2**-20,
        refractory=refractory,
    )
    given = (
        jnp.asarray(weight, dtype),
        lanes,
        jnp.asarray(time, dtype),
        jnp.asarray(row, jnp.int32),
        jnp.asarray(0.09, dtype),
    )
    return spec, given, jnp.asarray(rng.normal(size=(batch, neurons, spec.max_spikes)), dtype)


def spikes_and_gradients(function, given, weights):
    """Spikes, and gradients of the weighed times by weight, lanes and arrival times."""
    weight, lanes, time, row, t_end = given

    def loss(weight, lanes, time):
        found = function(weight, lanes, time, row, t_end)
        slopes = jnp.clip(jax.lax.stop_gradient(found.slope), 0, 50)
        times = jnp.where(jnp.isfinite(found.time), found.time, 0.0)
        return jnp.sum(weights * slopes * times), found

    (_, found), gradient = jax.jit(jax.value_and_grad(loss, (0, 1, 2), has_aux=True))(
        weight, lanes, time
    )
    return found, gradient


CROWD = {"ratio": 2, "neurons": 70, "arrivals": 5, "strength": 2.0}
CASES = {
    "double": {"ratio": 2},
    "half": {"ratio": 0.5},
    "equal": {"ratio": 1, "neurons": 3},
    "nearly equal": {"ratio": 1.001},
    "any": {"ratio": 3.7, "neurons": 70},
    "own": {"ratio": 1.3, "own": True},
    "once": {"ratio": 2, "once": True},
    "refractory": {"ratio": 1.3, "own": True, "refractory": 5e-3},
    "subtract": {"ratio": 2, "subtract": True},
    "starts above": {"ratio": 2, "above": True},
    "subtract, above": {"ratio": 2, "above": True, "subtract": True},
    "held, above": {"ratio": 2, "above": True, "refractory": 3e-3},
    "positions": {"ratio": 2, "positions": 3, "neurons": 4},
    "crowd": {**CROWD},
    "crowd of few": {**CROWD, "neurons": 11},
    "crowd, once": {**CROWD, "once": True},
    "crowd, half": {**CROWD, "ratio": 0.5},
    "crowd, subtract, above": {**CROWD, "subtract": True, "above": True},
    "crowd, any": {**CROWD, "ratio": 3.7},
    "crowd, above": {**CROWD, "above": True, "neurons": 33},
    "crowd, refractory": {**CROWD, "refractory": 5e-3},
    "LIF": {"ratio": 2, "kind": LIFDelta},
    "LIF, own": {"ratio": 1.3, "own": True, "kind": LIFDelta, "neurons": 5},
    "LIF, driven": {"ratio": 2, "kind": LIFDelta, "driven": True, "own": True},
    "LIF, refractory": {"ratio": 2, "kind": LIFDelta, "refractory": 5e-3},
    "LIF, held, driven": {"ratio": 2, "kind": LIFDelta, "driven": True, "refractory": 3e-3},
    "LIF, subtract": {"ratio": 2, "kind": LIFDelta, "subtract": True},
    "LIF, starts above": {"ratio": 2, "kind": LIFDelta, "above": True, "equality": True},
    "LIF, subtract, above": {"ratio": 2, "kind": LIFDelta, "above": True, "subtract": True},
    "LIF, once": {"ratio": 2, "kind": LIFDelta, "once": True},
    "LIF, positions": {"ratio": 2, "kind": LIFDelta, "positions": 3, "neurons": 4},
    "IF": {"ratio": 1, "kind": IFDelta},
    "IF, driven": {"ratio": 1, "kind": IFDelta, "driven": True},
    "IF, driven, held": {"ratio": 1, "kind": IFDelta, "driven": True, "refractory": 3e-3},
    "IF, driven, subtract": {"ratio": 1, "kind": IFDelta, "driven": True, "subtract": True},
    "LIF, boxes, own": {"ratio": 1.3, "own": True, "kind": LIFBox, "neurons": 5},
    "LIF, boxes": {"ratio": 2, "kind": LIFBox, "neurons": 70},
    "LIF, boxes, subtract, above": {"ratio": 2, "kind": LIFBox, "above": True, "subtract": True},
    "LIF, boxes, driven": {"ratio": 2, "kind": LIFBox, "driven": True, "own": True},
    "LIF, boxes, held": {"ratio": 2, "kind": LIFBox, "driven": True, "refractory": 3e-3},
    "LIF, boxes, once": {"ratio": 2, "kind": LIFBox, "once": True},
    "IF, boxes": {"ratio": 1, "kind": IFBox},
    "IF, boxes, positions": {"ratio": 1, "kind": IFBox, "positions": 3, "neurons": 4},
    "IF, boxes, driven": {"ratio": 1, "kind": IFBox, "driven": True, "own": True},
    "IF, boxes, held": {"ratio": 1, "kind": IFBox, "driven": True, "refractory": 3e-3},
}


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=[pytest.mark.slow] * (number % 2)) for number, n in enumerate(CASES)],
)
def test_both_backends_agree(name, x64):
    spec, given, weights = work(**CASES[name])
    expected, wanted = spikes_and_gradients(
        lambda *given: layer_spikes(spec, *given), given, weights
    )
    found, gradient = spikes_and_gradients(
        lambda *given: native_layer_spikes(spec, 2, *given), given, weights
    )
    assert int(expected.count.sum()) > 20
    np.testing.assert_array_equal(found.count, expected.count)
    np.testing.assert_allclose(found.time, expected.time, atol=1e-11 * TAU)
    np.testing.assert_allclose(found.slope, expected.slope, rtol=1e-8)
    if spec.neuron.jumps:
        assert jnp.isinf(expected.slope).sum() > 10
    for ours, theirs in zip(jax.tree.leaves(gradient), jax.tree.leaves(wanted), strict=True):
        scale = np.abs(theirs).max()
        np.testing.assert_allclose(ours, theirs, atol=1e-10 * scale)


@pytest.mark.parametrize("name", [name for name in CASES if name.startswith("crowd")])
def test_gradients_of_weights_alone_are_those_of_everything(name, x64):
    """Where no parameter's is asked for, neurons are settled several at a time."""
    spec, given, weights = work(**CASES[name])

    def way(*given):
        return native_layer_spikes(spec, 2, *given)

    def alone(weight, time):
        return way(weight, given[1], time, *given[3:])

    found, gradient = spikes_and_gradients(
        lambda weight, lanes, time, row, t_end: alone(weight, time), given, weights
    )
    expected, wanted = spikes_and_gradients(way, given, weights)
    np.testing.assert_array_equal(found.time, expected.time)
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(gradient[1]))
    for ours, theirs in ((gradient[0], wanted[0]), (gradient[2], wanted[2])):
        np.testing.assert_allclose(ours, theirs, atol=1e-12 * np.abs(theirs).max())


@pytest.mark.slow
def test_second_derivatives_of_lif_are_those_of_xla(x64):
    spec, (weight, *rest), weights = work(**CASES["LIF, driven"], neurons=3)
    found = []
    for way in (layer_spikes, lambda spec, *given: native_layer_spikes(spec, 1, *given)):

        def loss(weight, way=way):
            time = way(spec, weight, *rest).time
            return jnp.sum(weights * jnp.where(jnp.isfinite(time), time, 0.0) ** 2)

        found.append(jax.jit(lambda w, f=loss: jax.jvp(jax.grad(f), (w,), (w,))[1])(weight))
    assert jnp.abs(found[0]).max() > 0
    np.testing.assert_allclose(found[1], found[0], atol=1e-9 * jnp.abs(found[0]).max())


def test_what_lies_behind_the_arrivals_is_not_read(x64):
    """There kernels leave rows and slots as they are, which may be those of others."""
    spec, (weight, lanes, *events, t_end), weights = work(2, neurons=3)
    simulated = native_layer._simulated(spec, 1, weight, lanes, *events, t_end)
    arrivals = simulated.arrivals
    behind = jnp.arange(40) >= arrivals.used[:, None]
    assert behind.any()
    found = []
    for row, slot in ((12, 40), (0, 0)):
        row, slot = jnp.where(behind, row, arrivals.row), jnp.where(behind, slot, arrivals.slot)
        kept = simulated._replace(arrivals=arrivals._replace(row=row, slot=slot))

        def gradients(weight, kept=kept):
            return native_layer._gradients(spec, 1, Wanted(), weight, lanes, t_end, kept, weights)

        found.append(jax.jvp(gradients, (weight,), (weight,)))
    assert jnp.abs(found[0][1][2]).max() > 0
    jax.tree.map(np.testing.assert_array_equal, *found)


@pytest.mark.parametrize("name", ["double", "any", "held, above"])
def test_the_number_of_threads_changes_no_bit(name):
    spec, given, weights = work(**CASES[name], dtype=jnp.float32)
    one, two, many = (
        jax.tree.leaves(
            spikes_and_gradients(
                lambda *given, n=n: native_layer_spikes(spec, n, *given), given, weights
            )
        )
        for n in (1, 2, 7)
    )
    for a, b, c in zip(one, two, many, strict=True):
        np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(a, c)


def test_float32_is_as_exact_as_xla(x64):
    """Against float64, which neither of them is."""
    spec, given, weights = work(2)
    true, _ = spikes_and_gradients(lambda *given: layer_spikes(spec, *given), given, weights)
    spec, given, weights = work(2, dtype=jnp.float32)
    errors = []
    for way in (layer_spikes, lambda spec, *given: native_layer_spikes(spec, 1, *given)):
        found, _ = spikes_and_gradients(lambda *given, way=way: way(spec, *given), given, weights)
        np.testing.assert_array_equal(found.count, true.count)
        both = np.isfinite(found.time)
        errors.append(np.abs(np.asarray(found.time)[both] - np.asarray(true.time)[both]))
    assert errors[1].max() < 2 * errors[0].max()
    assert np.median(errors[1]) < 1e-6 * TAU


def test_nothing_arrives_and_nobody_is_there():
    spec, given, _ = work(2, dtype=jnp.float32)
    weight, lanes, time, row, t_end = given
    quiet = replace_starts(lanes)
    for size in (0, 3):
        none = native_layer_spikes(
            spec, 2, weight, quiet, time[:, :size] + jnp.inf, row[:, :size], t_end
        )
        assert not none.count.any()
        assert not jnp.isfinite(none.time).any()
    empty = jax.tree.map(lambda array: array[:0], lanes)
    nobody = native_layer_spikes(spec, 2, weight[:, :0], empty, time, row, t_end)
    assert nobody.time.shape == (5, 0, 8)
    nothing = native_layer_spikes(spec, 2, weight, lanes, time[:0], row[:0], t_end)
    assert nothing.time.shape == (0, 21, 8)


def replace_starts(lanes):
    still = jnp.zeros_like(lanes.v_start)
    return Lanes(**{**vars(lanes), "v_start": still, "j_start": still})


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e30])
def test_numbers_that_are_none_do_not_hang(value):
    spec, given, weights = work(2, dtype=jnp.float32)
    weight, lanes, time, row, t_end = given
    for wrong in (
        (weight.at[0].set(value), lanes, time),
        (weight, Lanes(**{**vars(lanes), "tau_syn": lanes.tau_syn.at[0].set(value)}), time),
        (weight, lanes, time.at[:, 0].set(value)),
    ):
        found, _ = spikes_and_gradients(
            lambda *given: native_layer_spikes(spec, 2, *given), (*wrong, row, t_end), weights
        )
        assert found.count.shape == (5, 21)


def test_rows_beyond_the_table_weigh_nothing():
    spec, given, weights = work(2, dtype=jnp.float32)
    weight, lanes, time, row, t_end = given
    beyond = row.at[:, ::2].set(jnp.where(row[:, ::2] % 2, 2**30, -5))
    dropped = jnp.where(beyond == row, time, jnp.inf)
    one, two = (
        spikes_and_gradients(
            lambda *given: native_layer_spikes(spec, 2, *given),
            (weight, lanes, *rest, t_end),
            weights,
        )
        for rest in ((time, beyond), (dropped, row))
    )
    np.testing.assert_allclose(one[0].time, two[0].time, rtol=1e-4)
    np.testing.assert_allclose(one[1][0], two[1][0], atol=1e-3 * np.abs(two[1][0]).max())


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


# ---- the engine's choice


def network(neurons):
    layers = build.input(3), build.linear(weight=np.ones((2, 3))), neurons
    return lower(build.sequential(*layers))


def events():
    time = jnp.asarray(np.linspace(0, 20e-3, 12).reshape(2, 6), jnp.float32)
    return Events(time=time, index=jnp.asarray(np.arange(12).reshape(2, 6) % 3, jnp.int32))


def test_native_refuses_what_it_does_not_cover():
    net = network(build.lif(tau="10ms"))
    engine = EventDriven(backend="native", jump_width=1e-3)
    with pytest.raises(UsageError, match="'2' is not covered by the native backend: jump_width"):
        simulate(net, events(), 30e-3, engine=engine)
    assert simulate(net, events(), 30e-3, engine=replace(engine, backend="auto")).result == 0
    assert simulate(net, events(), 30e-3, engine=EventDriven(backend="native")).result == 0


@pytest.mark.parametrize("options", [{"backend": "gpu"}, {"threads": 0}])
def test_options_that_make_no_sense_are_refused(options):
    with pytest.raises(UsageError, match=next(iter(options))):
        simulate(
            network(build.cubalif(tau_mem="10ms", tau_syn="5ms")),
            events(),
            30e-3,
            engine=EventDriven(**options),
        )


def lowered(**options):
    net = network(build.cubalif(tau_mem="10ms", tau_syn="5ms"))
    engine = EventDriven(**options)
    run = jax.jit(lambda events: simulate(net, events, 30e-3, engine=engine, throw=False).result)
    return run.lower(events()).as_text()


def test_auto_is_native_where_it_can(monkeypatch):
    monkeypatch.delenv("JAXSNN_BACKEND", raising=False)
    assert "jaxsnn_layer_forward" in lowered()
    assert "jaxsnn_layer_forward" not in lowered(backend="xla")
    assert "jaxsnn_layer_forward" not in lowered(forward_mode=True)


def test_without_a_compiler_xla_runs(run_python, tmp_path):
    code = """
from jaxsnn.commands.doctor_command import diagnose
from jaxsnn.event.native.native_build import native_library
from tests.event.test_native import lowered
print(native_library())
print(diagnose().backends["native"])
print("jaxsnn_layer" in lowered())
"""
    empty = {"PATH": str(tmp_path), "CXX": "", "JAXSNN_CACHE_DIR": str(tmp_path)}
    reason, doctor, native = run_python(code, **empty).stdout.splitlines()
    assert "there=False" in reason
    assert "no C++ compiler" in doctor
    assert native == "False"


def test_a_compiler_that_fails_is_reported(run_python, tmp_path):
    fails = tmp_path / "fails"
    fails.write_text("#!/bin/sh\necho 'x.cc: error: no such luck' >&2\nexit 1\n")
    fails.chmod(0o755)
    code = "from jaxsnn.event.native.native_build import native_library\nprint(native_library().reason)"
    found = run_python(code, CXX=str(fails), JAXSNN_CACHE_DIR=str(tmp_path)).stdout
    assert "did not build it" in found
    assert os.listdir(tmp_path) == ["fails"]


@pytest.mark.skipif(os.name == "nt", reason="nothing locks there")
def test_of_several_processes_one_builds(tmp_path):
    """The compiler of the test leaves no library, which the processes then say."""
    compiler, calls = tmp_path / "compiler", tmp_path / "calls"
    lines = '[ "$1" = --version ] && exit', f"echo x >> {calls}", "sleep 1", 'touch "${@: -1}"'
    compiler.write_text("#!/bin/bash\n" + "\n".join(lines) + "\n")
    compiler.chmod(0o755)
    code = f"from jaxsnn.event.native.native_build import _built\nprint(_built('{compiler}', 'float32').exists())"
    given = os.environ | {"JAXSNN_CACHE_DIR": str(tmp_path / "cache")}
    running = [
        subprocess.Popen([sys.executable, "-c", code], env=given, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    assert [process.communicate()[0].strip() for process in running] == ["True", "True"]
    assert calls.read_text().split() == ["x"]
    assert [name for name in os.listdir(tmp_path / "cache") if name.endswith(".lock")] == []


# ---- feedback, and convolutions


def in_network(graph, events, weights, **options):
    """Spikes of the last population and gradients by all parameters and input times."""
    net = lower(graph)
    last = list(net.populations)[-1]
    given, dtype = net.parameters, jnp.asarray(events.time).dtype

    def value(parameters, time):
        found = simulate(
            net.with_parameters(parameters),
            Events(time=time, index=events.index),
            40e-3,
            engine=EventDriven(max_spikes=12, max_arrivals=400, **options),
        )
        spikes = found.spikes[last]
        times = jnp.where(jnp.isfinite(spikes.time), spikes.time, 0.0)
        slopes = jax.lax.stop_gradient(jnp.clip(spikes.slope, 0, 50))
        return jnp.sum(weights(times.shape, dtype) * slopes * times), (spikes, found.result)

    (_, (spikes, result)), gradient = jax.jit(jax.value_and_grad(value, (0, 1), has_aux=True))(
        given, events.time
    )
    assert result == Result.SUCCESS
    return spikes, gradient


def some_weights(shape, dtype):
    return jnp.asarray(np.random.default_rng(3).normal(size=shape), dtype)


def current_based():
    return build.cubalif(tau_mem="10ms", tau_syn="5ms")


#: Options of a graph whose spikes are boxes, which are short beside what is between them.
BOXES = {"spike_kernel": "box", "dialect": "nir", "time_unit": "s", "dt": 1e-3}


def recurrent_graph(*, share=1.0, neurons=current_based, **options):
    """A loop, in which a share of the connections is there."""
    rng = np.random.default_rng(5)
    there = np.random.default_rng(7).random((19, 19)) < share
    nodes = {
        "input": build.input(4),
        "in": build.linear(weight=rng.normal(0.9, 0.3, (19, 4))),
        "loop": neurons(),
        "back": build.linear(weight=there * rng.normal(0, 0.25, (19, 19))),
        "out": build.linear(weight=rng.normal(0.3, 0.1, (2, 19))),
        "last": neurons(),
        "output": build.output(),
    }
    chain = ("input", "in", "loop", "out", "last", "output")
    return build.network(nodes, [chain, ("loop", "back", "loop")], **options)


def recurrent_boxes():
    return recurrent_graph(neurons=partial(build.lif, tau="10ms", r=3.5e-3), **BOXES)


def recurrent_integrators():
    return recurrent_graph(
        share=0.3, neurons=partial(build.integrate_and_fire, v_threshold=3.0), **BOXES
    )


def convolution_boxes():
    return convolution_graph(neurons=partial(build.lif, tau="10ms", r=4.5e-3), **BOXES)


def convolution_graph(*, neurons=current_based, **options):
    rng = np.random.default_rng(6)
    plain = {"stride": 1, "dilation": 1, "groups": 1}
    kernel, other = rng.normal(0.5, 0.4, (3, 2, 3, 3)), rng.normal(0.12, 0.1, (4, 3, 2, 2))
    return build.sequential(
        build.input((2, 8, 8)),
        build.node("Conv2d", weight=kernel, bias=np.full(3, 0.1), padding=1, **plain),
        neurons(),
        build.node("SumPool2d", kernel_size=2, stride=2, padding=0),
        build.node("Conv2d", weight=other, bias=np.zeros(4), padding=0, **plain),
        neurons(),
        **options,
    )


@pytest.mark.parametrize(
    "make",
    [
        recurrent_graph,
        recurrent_boxes,
        pytest.param(recurrent_integrators, marks=pytest.mark.slow),
        pytest.param(convolution_graph, marks=pytest.mark.slow),
        convolution_boxes,
    ],
)
def test_whole_networks_agree(make, x64):
    rng = np.random.default_rng(4)
    loops = make.__name__.startswith("recurrent")
    channels, count = (4, 12) if loops else (128, 150)
    time = np.sort(rng.uniform(0, 25e-3, (3, count)))
    events = Events(
        time=jnp.asarray(time), index=jnp.asarray(rng.integers(0, channels, time.shape), jnp.int32)
    )
    expected, wanted = in_network(make(), events, some_weights, backend="xla")
    found, gradient = in_network(make(), events, some_weights, backend="native", threads=2)
    again = in_network(make(), events, some_weights, backend="native", threads=1)
    assert int(expected.count.sum()) > 6
    np.testing.assert_array_equal(found.count, expected.count)
    np.testing.assert_allclose(found.time, expected.time, atol=1e-11 * TAU)
    for ours, theirs in zip(jax.tree.leaves(gradient), jax.tree.leaves(wanted), strict=True):
        scale = np.abs(theirs).max() + 1e-12
        np.testing.assert_allclose(ours, theirs, atol=1e-9 * scale)
    for one, two in zip(jax.tree.leaves(again), jax.tree.leaves((found, gradient)), strict=True):
        np.testing.assert_array_equal(one, two)


def test_convolutions_of_many_samples_are_those_of_few(x64):
    """From 8 samples on each has its lists made and gone through by one thread."""
    rng = np.random.default_rng(8)
    time = jnp.asarray(np.sort(rng.uniform(0, 25e-3, (9, 150))))
    index = jnp.asarray(rng.integers(0, 128, time.shape), jnp.int32)

    def found(samples, **options):
        def weights(shape, dtype):
            return some_weights((9, *shape[1:]), dtype)[samples]

        events = Events(time=time[samples], index=index[samples])
        return in_network(convolution_graph(), events, weights, backend="native", **options)

    whole = spikes, (by_parameters, by_time) = found(slice(None), threads=2)
    assert int(spikes.count.sum()) > 50
    jax.tree.map(np.testing.assert_array_equal, found(slice(None), threads=1), whole)
    few, gradients = zip(*(found(slice(n, n + 3)) for n in (0, 3, 6)), strict=True)
    joined = jax.tree.map(lambda *parts: np.concatenate(parts), *few)
    jax.tree.map(np.testing.assert_array_equal, spikes, joined)
    by_some = jax.tree.map(lambda *parts: sum(parts), *(own for own, _ in gradients))
    jax.tree.map(assert_close, by_parameters, by_some)
    assert_close(by_time, np.concatenate([own for _, own in gradients]))


@pytest.mark.parametrize("directly", [False, True], ids=["behind alone", "and the loss"])
@pytest.mark.parametrize("samples", [3, 9])
def test_first_spikes_have_the_gradients_of_all(samples, directly, x64):
    """A convolution behind takes the first spikes, and not all slots; the loss may take all of them."""
    rng, net = np.random.default_rng(8), lower(convolution_graph())
    first, last = net.populations
    time = jnp.asarray(np.sort(rng.uniform(0, 25e-3, (samples, 150))))
    events = Events(time=time, index=jnp.asarray(rng.integers(0, 128, time.shape), jnp.int32))

    def found(backend, room):
        options = {"max_spikes": 12, "max_arrivals": 400, "backend": backend}
        engine = EventDriven(max_events={first: room}, **options)

        def value(parameters, time):
            given = net.with_parameters(parameters), Events(time=time, index=events.index)
            spikes = simulate(*given, 40e-3, engine=engine).spikes
            seen = [spikes[last].time, *([spikes[first].time] if directly else [])]
            weighted = [
                some_weights(x.shape, x.dtype) * jnp.where(jnp.isfinite(x), x, 0) for x in seen
            ]
            return sum(jnp.sum(own) for own in weighted), spikes[first].count

        return jax.jit(jax.value_and_grad(value, (0, 1), has_aux=True))(net.parameters, time)

    slots = 12 * net.populations[first].size
    (_, count), gradient = found("native", slots // 2)
    assert 100 < int(count.sum(axis=1).max()) <= slots // 2
    for backend, room, atol in (("native", slots, 1e-12), ("xla", slots // 2, 1e-9)):
        for ours, theirs in zip(
            *map(jax.tree.leaves, (gradient, found(backend, room)[1])), strict=True
        ):
            np.testing.assert_allclose(ours, theirs, atol=atol * (np.abs(theirs).max() + 1e-12))


def assert_close(found, expected):
    np.testing.assert_allclose(found, expected, atol=1e-12 * (np.abs(expected).max() + 1e-12))


@pytest.mark.parametrize("share", [1.0, 0.12])
def test_a_loop_agrees_by_its_weights_alone(share, x64):
    """Few connections are gone through one by one, and zeros among weights have gradients, too."""
    rng, net = np.random.default_rng(4), lower(recurrent_graph(share=share))
    zeros = np.asarray(net.parameters["back"]["weight"] == 0).sum(axis=0)
    assert (zeros.max() > 19 * 5 // 6) == (share < 1)
    time = jnp.asarray(np.sort(rng.uniform(0, 25e-3, (3, 12))))
    events = Events(time=time, index=jnp.asarray(rng.integers(0, 4, time.shape), jnp.int32))

    def found(backend, threads=1):
        def value(weight):
            given = {**net.parameters, "back": {**net.parameters["back"], "weight": weight}}
            engine = EventDriven(max_spikes=12, backend=backend, threads=threads)
            solution = simulate(net.with_parameters(given), events, 40e-3, engine=engine)
            times = solution.spikes["last"].time
            return jnp.where(jnp.isfinite(times), times, 0.0).sum(), solution.spikes["loop"].time

        return jax.jit(jax.value_and_grad(value, has_aux=True))(net.parameters["back"]["weight"])

    (_, expected), wanted = found("xla")
    (_, times), gradient = found("native")
    np.testing.assert_allclose(times, expected, atol=1e-11 * TAU)
    scale = np.abs(wanted).max()
    assert np.count_nonzero(wanted) > 100
    np.testing.assert_allclose(gradient, wanted, atol=1e-9 * scale)
    np.testing.assert_array_equal(found("native", 2)[1], gradient)


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
    found = simulate(lower(graph), events, 1e7, engine=EventDriven(backend="native"))
    assert found.spikes["loop"].count.sum() == 0


def test_too_few_events_of_a_loop_end_the_run():
    rng = np.random.default_rng(4)
    time = jnp.asarray(np.sort(rng.uniform(0, 25e-3, (2, 12))), jnp.float32)
    events = Events(time=time, index=jnp.asarray(rng.integers(0, 4, time.shape), jnp.int32))
    net = lower(recurrent_graph())
    for backend in ("native", "xla"):
        engine = EventDriven(max_spikes=12, max_events={"loop": 3}, backend=backend)
        found = simulate(net, events, 40e-3, engine=engine, throw=False)
        assert found.result == Result.BUDGET_EXHAUSTED


@pytest.mark.parametrize("ratio", [2, 0.5, 3])
@pytest.mark.parametrize("whole", [True, False], ids=["to the maximum", "before it"])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_whoever_just_reaches_the_threshold_in_an_interval_fires(ratio, whole, dtype, x64):
    # many at once, which are sorted out in vectors: by the highest that v comes to
    mem, syn, neurons = ratio * TAU, TAU, 70
    peak = np.log(mem / syn) / (1 / syn - 1 / mem)
    end = 10 * TAU if whole else 0.8 * peak
    start = np.linspace(0.5, 3.0, neurons)
    at = min(peak, end)
    highest = start * syn / (mem - syn) * (np.exp(-at / mem) - np.exp(-at / syn))
    off = (1e-4 if dtype == jnp.float32 else 1e-10) * np.where(np.arange(neurons) % 3, -1, 1)
    fill = lambda value: jnp.full(neurons, value, dtype)  # noqa: E731
    lanes = Lanes(
        threshold=jnp.asarray(highest * (1 + off), dtype),
        v_reset=fill(0.0),
        v_start=fill(0.0),
        j_start=jnp.asarray(start, dtype),
        tau_mem=fill(mem),
        tau_syn=fill(syn),
    )
    model = CubaLIFDelta(tau_shape=SHAPES.get(ratio, TauShape.ANY), uniform=True)
    spec = LayerSpec(neuron=model, max_spikes=1, once=True, min_slope=2**-20)
    nothing = jnp.full((1, 1), jnp.inf, dtype), jnp.zeros((1, 1), jnp.int32)
    spikes = native_layer_spikes(
        spec, 1, jnp.zeros((1, neurons), dtype), lanes, *nothing, jnp.asarray(end, dtype)
    )
    assert np.array_equal(spikes.count[0] > 0, off < 0)
