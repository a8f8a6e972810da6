"""The coefficients with which conversion and export describe neurons, against the engines: one time step
of `step_of` and the time-stepped engine, the equations of `flow_of` and a closed form.
"""

from typing import Any

import numpy as np
import pytest

from jaxsnn import TimeStepped, lower, simulate
from jaxsnn.errors import ConversionError
from jaxsnn.nir import build
from jaxsnn.nir.dialects.resolve import resolve_neurons
from jaxsnn.nir.dialects.steps import flow_of, refuse_firing_at_rest, step_of
from tests.helpers.refusals import assert_refused

SIZE, STEPS, BIAS = 3, 40, np.array([0.3, 0.1, 0.2])
LEVELS: dict[str, Any] = {"v_threshold": [0.41, 0.33, 0.47], "v_reset": [-0.1, 0.05, 0.1]}
TAUS = np.array([4e-3, 6e-3, 9e-3])
SNNTORCH: dict[str, Any] = {"dialect": "snntorch", "dt": "1ms"}
NORSE: dict[str, Any] = {"dialect": "norse", "dt": "1ms", "dt_export": 1.0}
JELLY: dict[str, Any] = {"dialect": "spikingjelly", "dt": "1ms"}
SPYX: dict[str, Any] = {"dialect": "spyx", "dt": "1ms", "time_unit": "s"}
ROCKPOOL: dict[str, Any] = {"dialect": "rockpool", "dt": "1ms"}
NIR: dict[str, Any] = {"dialect": "nir", "dt": "1ms", "time_unit": "s", "spike_area": "1ms"}


def resets(*kinds):
    return [{"reset": kind, "reset_delay": delay} for kind, delay in kinds]


ALL = resets(("zero", False), ("zero", True), ("subtract", False), ("subtract", True))
LEAKY = build.lif(tau=TAUS, r=TAUS / 1e-3, v_threshold=LEVELS["v_threshold"])
SYNAPTIC = {"tau_mem": TAUS, "tau_syn": TAUS / 2, "w_in": TAUS / 2e-3, "r": TAUS / 1e-3}
#: Neurons in their dialect, with the resets that they may have.
CASES = {
    "snnTorch Leaky": (LEAKY, SNNTORCH, ALL),
    "snnTorch Synaptic": (
        build.cubalif(v_threshold=[2.0, 3.0, 4.0], **SYNAPTIC), SNNTORCH, ALL
    ),
    "Norse LIF": (
        build.lif(tau=TAUS, v_leak=[0.3, -0.2, 0.1], v_threshold=0.5), NORSE, ALL[:1] + ALL[2:3]
    ),
    "Norse CubaLIF": (
        build.cubalif(
            tau_mem=TAUS, tau_syn=TAUS / 2, r=[1.5, 0.7, 2.0], w_in=[2.0, 3.0, 1.5],
            v_leak=[0.2, -0.1, 0.05], v_threshold=0.5,
        ),
        {"dialect": "norse==importer", "dt": "1ms"},
        ALL[:1] + ALL[2:3],
    ),
    "SpikingJelly LIF": (
        build.lif(tau=TAUS, r=1.0, v_leak=LEVELS["v_reset"], **LEVELS), JELLY, ALL[:1] + ALL[2:3]
    ),
    "SpikingJelly LIF, undecayed input": (
        build.lif(tau=TAUS, r=TAUS / 1e-3, v_leak=LEVELS["v_reset"], **LEVELS), JELLY, ALL[:1]
    ),
    "SpikingJelly IF": (build.integrate_and_fire(r=1e3, **LEVELS), JELLY, ALL[:1] + ALL[2:3]),
    "Spyx LIF": (
        build.lif(tau=TAUS, r=1 - 1e-3 / TAUS, v_threshold=1.0), SPYX,
        resets(("subtract", True)),
    ),
    "Spyx CubaLIF": (
        build.cubalif(
            tau_mem=TAUS, tau_syn=TAUS / 2, r=1 - 1e-3 / TAUS, w_in=1.0, v_threshold=2.0
        ),
        SPYX,
        resets(("subtract", True)),
    ),
    "Rockpool": (
        # dt = tau_mem W(1/r), where W is Lambert's function
        build.cubalif(
            tau_mem=6e-3, tau_syn=TAUS / 2, r=6 * np.exp(-1 / 6), w_in=1.0, v_threshold=1.9
        ),
        ROCKPOOL,
        resets(("subtract", False)),
    ),
    "a readout that starts at its leak": (
        build.li(tau=TAUS, v_leak=[0.3, -0.2, 0.1]), NORSE, [{}]
    ),
    "NIR LIF": (
        build.lif(tau=TAUS, r=[2.0, 3.0, 1.5], v_leak=[0.2, -0.1, 0.05], v_threshold=0.45), NIR,
        [{"reset": "zero"}, {"reset": "subtract"}],
    ),
    "NIR IF": (build.integrate_and_fire(r=[200.0, 300.0, 150.0]), NIR, [{"reset": "zero"}]),
    "NIR LIF in ms": (
        build.lif(
            tau=1e3 * TAUS, r=[2.0, 3.0, 1.5], v_leak=[0.2, -0.1, 0.05], v_threshold=0.45
        ),
        NIR | {"time_unit": "ms", "dt": "2ms"},
        [{"reset": "zero"}],
    ),
    "NIR readout": (build.li(tau=TAUS, r=[2.0, 3.0, 1.5], v_leak=[0.2, -0.1, 0.05]), NIR, [{}]),
}  # fmt: skip


def network(neurons, options):
    layers = build.affine(weight=np.diag([0.93, 0.61, 0.74]), bias=BIAS), neurons
    return build.sequential(build.input(SIZE), *layers, **options)


def membranes(step, x):
    """Return the membranes before and after the resets of each step, as `Step` describes it."""
    v, i, fired = step.v_start, step.i_start, np.zeros(SIZE, bool)
    before, after = [], []
    for arriving in x:
        if step.current_based:
            i = step.synapse_decay * i + step.synapse_gain * arriving
        above = v > step.v_threshold
        u = step.decay * v + step.gain * (i if step.current_based else arriving) + step.drive
        if step.reset == "subtract later":
            u = u - fired * step.v_threshold
        if step.reset == "skip":
            u = np.where(fired, step.v_reset, u)
        tested = u - above * step.v_threshold if step.reset == "subtract unless above" else u
        fired = tested >= step.v_threshold if step.at_equality else tested > step.v_threshold
        v = np.where(fired, step.v_reset, u) if step.reset == "value" else u
        if step.several:
            v = u - np.maximum(np.floor(u / step.v_threshold), 0) * step.v_threshold
        elif step.reset in ("subtract", "subtract unless above"):
            v = u - fired * step.v_threshold
        before.append(u)
        after.append(v)
    return np.array(before), np.array(after)


@pytest.mark.parametrize(
    ("case", "reset"),
    [(name, n) for name, (_, _, kinds) in CASES.items() for n in range(len(kinds))],
)
def test_a_step_is_that_of_the_time_stepped_engine(case, reset):
    neurons, options, kinds = CASES[case]
    graph = network(neurons, options | kinds[reset])
    rule = resolve_neurons(graph)["2"]
    step = step_of(rule, (SIZE,), readouts=True)
    spikes = (np.random.default_rng(1).random((STEPS, SIZE)) < 0.5).astype(np.float32)
    weight = np.diag(np.asarray(graph.nodes["1"].value("weight")))
    before, after = membranes(step, spikes * weight + BIAS * step.bias_ratio)
    engine = TimeStepped(record=True)
    solution = simulate(lower(graph, dtype=np.float32), spikes[:, None], engine=engine)
    voltages = np.asarray(solution.voltages["2"])[:, 0]
    expected = before if rule.reset_delay else after
    np.testing.assert_allclose(voltages, expected, rtol=2e-5, atol=2e-5)
    assert step.reset == "none" or np.any(before > step.v_threshold, axis=0).sum() > 1


def in_ms(neurons, dialect="nir", **options):
    graph = network(neurons, {"dialect": dialect, "time_unit": "ms", "reset": "zero"} | options)
    return resolve_neurons(graph)["2"]


GAINS: dict[str, Any] = {"r": np.array([2.0, 3.0, 1.5]), "w_in": np.array([0.5, 2.0, 4.0])}
IN_MS: dict[str, Any] = {"tau_mem": np.array([4.0, 6.0, 9.0]), "tau_syn": np.array([2.0, 3.0, 5.0])}


@pytest.mark.parametrize(
    ("dialect", "options", "jump"),
    [
        # A spike of weight 1 is a current w_in of an area of 1 ms, or of 2 ms.
        ("nir", {}, GAINS["r"] * GAINS["w_in"] * 1.0 / IN_MS["tau_syn"]),
        ("nir", {"spike_area": "2ms"}, GAINS["r"] * GAINS["w_in"] * 2.0 / IN_MS["tau_syn"]),
        ("nir", {"dt": "0.5ms"}, GAINS["r"] * GAINS["w_in"] * 1.0 / IN_MS["tau_syn"]),
        ("jaxsnn", {}, GAINS["r"] * GAINS["w_in"]),
        ("jaxsnn", {"scale_spikes": False}, GAINS["r"]),
        ("jaxsnn", {"scale_spikes": {"2": False}}, GAINS["r"]),
    ],
)
def test_equations_are_in_seconds_and_a_spike_has_its_area(dialect, options, jump):
    """tau_syn I' = -I + w_in S, where S has the area of the spike, and R I drives V."""
    rule = in_ms(build.cubalif(**IN_MS, **GAINS), dialect, **options)
    flow = flow_of(rule, (SIZE,), lambda node, reason, nearest: None)
    np.testing.assert_allclose(flow.jump, jump)
    for name, milliseconds in IN_MS.items():
        np.testing.assert_allclose(getattr(flow, name), 1e-3 * milliseconds)


@pytest.mark.parametrize(
    ("dialect", "options", "jump"),
    [
        ("nir", {"spike_area": "2ms"}, GAINS["r"] * GAINS["w_in"] * 2.0 / IN_MS["tau_syn"]),
        ("jaxsnn", {}, GAINS["r"] * GAINS["w_in"]),
        ("jaxsnn", {"scale_spikes": False}, GAINS["r"]),
    ],
)
def test_a_step_of_a_current_based_neuron_solves_its_equations(dialect, options, jump):
    """V at the end of a step after a spike at its beginning, and the current of a constant input."""
    rule = in_ms(build.cubalif(**IN_MS, **GAINS), dialect, dt="1ms", **options)
    step, (mem, syn), dt = step_of(rule, (SIZE,)), IN_MS.values(), 1.0
    after = np.exp(-dt / mem) - np.exp(-dt / syn)
    np.testing.assert_allclose(step.gain * step.synapse_gain, jump * syn / (mem - syn) * after)
    np.testing.assert_allclose(step.decay, np.exp(-dt / mem))
    i = np.zeros(SIZE)
    for _ in range(200):
        i = step.synapse_decay * i + step.synapse_gain * step.bias_ratio
    np.testing.assert_allclose(i, GAINS["w_in"])


def test_equal_time_constants_are_the_limit_of_different_ones():
    mem = IN_MS["tau_mem"]
    same, near = (
        step_of(in_ms(build.cubalif(tau_mem=mem, tau_syn=syn, **GAINS), dt="1ms"), (SIZE,))
        for syn in (mem, mem * (1 + 1e-5))
    )
    np.testing.assert_allclose(same.gain, near.gain, rtol=1e-4)
    np.testing.assert_allclose(same.gain, GAINS["r"] / mem * np.exp(-1 / mem))


@pytest.mark.parametrize("level", ["v_reset", "v_start"])
def test_a_level_at_the_threshold_is_refused_as_firing_without_input(level):
    levels = {"v_reset": 1.0} if level == "v_reset" else {"v_leak": 1.0}
    options = NORSE if level == "v_start" else SNNTORCH
    r = 1.0 if level == "v_start" else TAUS / 1e-3
    graph = network(build.lif(tau=TAUS, r=r, v_threshold=1.0, **levels), options | ALL[0])
    rule = resolve_neurons(graph)["2"]
    assert_refused(
        lambda: refuse_firing_at_rest(rule), ConversionError, "not below its v_threshold"
    )
