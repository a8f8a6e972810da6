"""What single numbers in the descriptions of frameworks decide."""

import dataclasses
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from jaxsnn.errors import ConversionError, DialectError
from jaxsnn.nir import build, parse
from jaxsnn.nir.convert.pipeline import convert
from jaxsnn.nir.dialects.inference import infer
from jaxsnn.nir.frameworks import norse
from jaxsnn.nir.frameworks.registry import frameworks
from jaxsnn.nir.frameworks.snntorch import _is_single_precision
from tests.helpers.refusals import assert_refused
from tests.nir import importer_steps
from tests.nir.conversions import played
from tests.nir.importer_steps import setting


def test_norse_is_refused_a_current_that_starts_elsewhere():
    layers = build.linear(2), build.cubalif(tau_mem=10e-3, tau_syn=5e-3, v_leak=0.1)
    options = {"dialect": "norse", "dt": 1e-3, "dt_export": 1.0}
    graph = build.sequential(build.input(3), *layers, seed=0, **options)
    assert convert(graph, to="norse").losses == ()
    zero = dataclasses.replace(graph, dialect=dataclasses.replace(graph.dialect, initial="zero"))
    says = r"'2'.*Norse starts its synaptic current at v_leak"
    assert_refused(lambda: convert(zero, to="norse"), ConversionError, says)


@pytest.mark.parametrize(
    ("betas", "single"),
    [
        ([np.float32(0.9)], True),
        ([0.9], False),
        ([np.float32(0.1)], True),
        ([0.1], False),
        ([0.5, 4095 / 4096], False),  # the same in both precisions
        ([0.5, 8191 / 8192], True),
        ([np.float32(0.9), 0.9], False),
    ],
)
def test_snntorch_is_known_by_betas_in_single_precision(betas, single):
    nodes = decaying(betas)
    assert _is_single_precision(nodes) is single
    # With one tau for all neurons, only the loop next to them shows that snnTorch wrote the file.
    alone = {"1.lif": nodes["1.lif"]}
    assert _is_single_precision(alone) is (single and len(betas) > 1)


def decaying(betas):
    """Recurrent neurons of snnTorch, by name."""
    r = 1 / (1 - np.asarray(betas, float))
    layers = build.linear(len(betas)), build.lif(tau=r * 1e-4, r=r)
    nodes = build.sequential(build.input(1), *layers, seed=0, dialect="snntorch").nodes
    return {"1.lif": nodes["2"], "1.w_rec": nodes["1"]}


@pytest.mark.parametrize("init_tau", [1.5, 2.7, 3.48])
def test_a_tau_that_spikingjelly_learnt_is_not_of_snntorch(init_tau):
    # tau = 1/sigmoid(w) with w in float32, so 1/r is a float32 number there, too.
    w = -np.log(init_tau - 1)
    tau = np.full(4, 1 / float(np.float32(1 / (1 + np.exp(-w)))))
    neurons = build.lif(tau=tau * 1e-4, r=tau)
    layers = build.input(3), build.linear(4), neurons
    name, why = infer(build.sequential(*layers, seed=0, dialect="nir"))
    assert name is None
    assert "snntorch" in why
    assert "spikingjelly" in why


@pytest.mark.parametrize(
    ("floor", "neuron", "accepted"),
    [
        (-1.0, build.integrate_and_fire(), True),
        (-2.0, build.integrate_and_fire(v_threshold=2.0), True),
        (-1.0, build.integrate_and_fire(v_threshold=[1.0, 2.0]), False),
        (-0.5, build.integrate_and_fire(), False),
        (-1.0, build.lif(tau=5.0), False),
    ],
)
def test_sinabs_bounds_its_iaf_by_minus_their_threshold(floor, neuron, accepted):
    layers, options = (build.linear(2), neuron), {"min_v_mem": floor, "norm_input": False}
    graph = build.sequential(build.input(2), *layers, seed=0, dialect="sinabs", **options)
    if accepted:
        assert convert(graph, to="sinabs").losses == ()
    else:
        assert_refused(lambda: convert(graph, to="sinabs"), ConversionError, "'2'")


def step(**changes):
    """A membrane that loses a tenth in each step and subtracts 1 after a spike."""
    numbers = {"gain": 1.0, "synapse_gain": 1.0, "v_threshold": 1.0, "synapse_decay": 0.0}
    kind = {"decay": 0.9, "reset": "subtract", "current_based": True, "shape": (1,)}
    return importer_steps.step(**numbers | kind | changes)


@pytest.mark.parametrize(
    ("steps", "message", "fix"),
    [
        (
            [step(several=True), step(reset="subtract later")],
            "Norse supports one reset_method for all nodes",
            "use the same reset for all of them",
        ),
        (
            [step(reset="value", several=True)],
            "node 'n' resets to a value after several spikes in one time step",
            'use reset="subtract"',
        ),
        (
            [step(reset="value"), step()],
            "node 'n' resets to a value, but other nodes subtract v_threshold",
            "use the same reset for all of them",
        ),
        (
            [step(reset="subtract later", decay=0.0)],
            "node 'n' decays to 0 in one time step",
            "use a different reset",
        ),
        (
            [step(synapse_decay=1.0)],
            "node 'n' has a synaptic current that never decays",
            "use a finite tau_syn",
        ),
        (
            [step(i_start=1.0)],
            "node 'n' starts with a synaptic current that Norse's v_leak cannot produce",
            "remove the biases",
        ),
    ],
    ids=lambda value: "" if isinstance(value, list) else None,
)
def test_norse_is_refused_what_its_neurons_do_not_do(steps, message, fix):
    write = lambda: norse._write(steps[0], setting(norse._reset_method(steps)))  # noqa: E731
    assert_refused(write, ConversionError, message, fix=fix)


@pytest.mark.parametrize(
    ("resets", "several", "method"),
    [
        (["value", "skip"], False, "value"),
        (["value", "subtract"], False, "subtract"),
        (["value", "subtract later"], False, "unit"),
        (["subtract"], True, "floor"),
    ],
)
def test_norse_takes_the_reset_method_that_all_nodes_need(resets, several, method):
    steps = [step(reset=reset, several=several) for reset in resets]
    assert norse._reset_method(steps) == method


def test_a_subtracting_leaky_neuron_is_refused_for_norse():
    layers, options = (build.linear(2), build.lif(tau=5e-3)), {"reset": "subtract", "dt": 1e-4}
    graph = build.sequential(build.input(2), *layers, seed=0, dialect="norse", **options)
    says = r"'2' \(LIF\) resets to zero in Norse's importer"
    assert_refused(lambda: list(norse._ignored(graph)), DialectError, says)


def test_norse_writes_a_current_so_large_that_v_leak_starts_it():
    """I starts at v_leak, less what holds V where it starts: 0.3 - 0.5 * 0.4 / 2 = 0.2."""
    step: Any = SimpleNamespace(
        name="n",
        i_start=np.array([0.3, 0.0]),
        v_start=np.array([0.5, 0.5]),
        gain=np.array([2.0, 2]),
    )
    start, rest, share = np.array([0.6, 0.6]), np.array([0.4, 0.4]), np.array([0.5, 1.0])
    np.testing.assert_allclose(norse._large(step, start, rest, share), [3.0, 1.0])
    none: Any = SimpleNamespace(i_start=np.zeros(2))
    large = norse._large(none, start * [1, 0], rest, np.array([0.5, 0.5]))
    np.testing.assert_array_equal(large, [norse._LARGE_CURRENT, 1.0])
    assert_refused(
        lambda: norse._large(step, 0 * start, rest, share),
        ConversionError,
        "'n' starts with a synaptic current that Norse's v_leak",
    )


TIES = {
    f"{name} {conventions.version}".strip(): conventions.evidence.dt_from
    for name, framework in frameworks().items()
    for conventions in framework.dialects
    if conventions.evidence.dt_from is not None and conventions.evidence.dt_from.gain is not None
}


@pytest.mark.parametrize("name", TIES)
def test_what_a_time_constant_makes_of_r_tells_the_step(name):
    """The gain that follows a time constant is the one from which the step is read."""
    tie, dt = TIES[name], 1e-3
    tau = np.geomspace(1.5, 1e3, 50) * dt
    np.testing.assert_allclose(tie.of(tau, tie.gain(tau, dt, np)), dt, rtol=1e-9)


@pytest.mark.parametrize("name", ["snntorch", "sinabs", "rockpool", "spyx"])
def test_a_leak_that_a_framework_does_not_have_contradicts_it(name):
    layers = build.linear(1), build.lif(tau=10e-3, r=1.0, v_leak=3.0)
    make = partial(build.sequential, build.input(1), *layers, seed=0, dialect=name, dt="1ms")
    says = f"{name} writes v_leak = 0, but node '2' has 3"
    assert_refused(lambda: make(reset="zero"), DialectError, says)


@pytest.mark.parametrize("norm_input", [False, True])
def test_norm_input_scales_what_arrives_at_a_leaky_readout_of_sinabs(norm_input):
    """What Sinabs writes of an ExpLeak: tau in steps, r 1."""
    layers = build.linear(weight=[[2.0]]), build.li(1, tau=5.0, r=1.0)
    document = build.sequential(build.input(1), *layers).source
    options = {"norm_input": norm_input, "dt": "1ms", "time_unit": "step"}
    x, decay = np.eye(3)[:, :1, None], np.exp(-1 / 5.0)
    first = 2.0 * (1 - decay) if norm_input else 2.0
    y = played(parse(document, dialect="sinabs", **options), x)
    np.testing.assert_allclose(y.ravel()[:2], [first, first * decay], rtol=1e-5)
