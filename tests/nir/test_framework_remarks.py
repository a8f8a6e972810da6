"""What single readers ask of numbers, say of them and refuse: of Lava, Nengo, SpiNNaker2, Norse,
hxtorch and jaxsnn, and of learnt decays that are clamped.
"""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from jaxsnn.errors import ConversionError
from jaxsnn.nir import build
from jaxsnn.nir.frameworks import clamps, hxtorch, jaxsnn, lava, norse
from jaxsnn.nir.frameworks.source_flow import Flow
from tests.helpers.refusals import assert_refused
from tests.nir.importer_steps import refused

SETTING: Any = SimpleNamespace(give_up=refused, dt=1e-3)
NOBODY: Any = None


def node(kind="CubaLIF", state=True, **values: Any) -> Any:
    return SimpleNamespace(
        name="n",
        type=kind,
        names=tuple(values),
        value=values.get,
        traits=SimpleNamespace(state=state),
    )


# -- continuous time


def flow(**changes: Any) -> Flow:
    """Two neurons whose thresholds lie 1.2 and 0.6 above where they start."""
    numbers: dict[str, Any] = {
        **{"tau_mem": 0.02, "tau_syn": 0.01, "jump": [0.7, 1.9]},
        **{"v_leak": [0.8, 0.3], "v_threshold": [1.7, 1.0], "v_reset": [0.2, 0.25]},
        **{"v_start": [0.5, 0.4], "bias_ratio": 1.0},
    }
    arrays = {
        name: np.broadcast_to(value, (2,)).astype(float)
        for name, value in (numbers | changes).items()
        if name != "spikes"
    }
    spikes = changes.get("spikes", True)
    return Flow(name="n", type="CubaLIF", shape=(2,), spikes=spikes, **arrays)


def settled(**changes: Any) -> Flow:
    """Levels that are the same once membranes are counted from their start: 0.6, 1.2 and -0.3."""
    levels = {"v_start": [0.5, 0.4], "v_leak": [1.1, 0.7], "v_threshold": [1.7, 1.0]}
    return flow(**({"v_reset": [0.2, 0.25], **levels} | changes))


def test_membranes_in_continuous_time_start_at_0_and_have_one_threshold():
    written = jaxsnn._write(settled(), SETTING)
    scale = np.array([1, 1.2 / 0.6])
    expected = {"v_leak": 0.6, "v_threshold": 1.2, "v_reset": -0.3, "r": 1, "w_in": 1}
    expected |= {"tau_mem": 20, "tau_syn": 10}
    for name, value in expected.items():
        np.testing.assert_allclose(written.entry[name], [value] * 2, err_msg=name)
    assert written.entry.keys() == {"type", *expected}
    np.testing.assert_allclose(written.factor, scale * [0.7, 1.9])
    np.testing.assert_array_equal(written.offset, 0)


def test_a_membrane_that_is_given_is_written_for_hxtorch_alone():
    readout = flow(spikes=False, v_leak=0.0, v_start=0.0)
    assert_refused(
        lambda: jaxsnn._write(readout, SETTING),
        ConversionError,
        "outputs its membrane potential, and jaxsnn's importer",
    )
    written = hxtorch._write(readout, SETTING)
    assert written.entry["type"] == "CubaLI"
    assert "v_threshold" not in written.entry
    np.testing.assert_allclose(written.factor, [0.7, 1.9])
    assert hxtorch._write(settled(v_leak=[0.5, 0.4]), SETTING).entry["type"] == "CubaLIF"
    moved = flow(spikes=False, v_leak=0.3, v_start=0.3)
    assert_refused(
        lambda: hxtorch._write(moved, SETTING),
        ConversionError,
        r"its membrane potential starts at 0\.3, in the importer at 0",
    )


def test_hxtorch_starts_at_v_leak():
    elsewhere = settled(v_leak=[0.5, 0.7])
    assert_refused(
        lambda: hxtorch._write(elsewhere, SETTING),
        ConversionError,
        r"starts at 0\.4, in hxtorch at v_leak = 0\.7",
    )
    near = settled(v_leak=[0.5 + 2**-33, 0.5 + 2**-33], v_start=0.5, v_threshold=1.7, v_reset=0.2)
    assert hxtorch._write(near, SETTING).entry["type"] == "CubaLIF"
    limit = settled(v_leak=1e-9, v_start=0.0, v_threshold=1.2, v_reset=-0.3)
    assert hxtorch._write(limit, SETTING).entry["type"] == "CubaLIF"
    assert_refused(
        lambda: hxtorch._write(settled(v_leak=[0.5 + 1e-08, 0.4]), SETTING),
        ConversionError,
        r"starts at 0\.5",
    )


# -- Lava


READ: dict[str, Any] = {"tau_mem": 1.0, "tau_syn": 2.0, "v_threshold": 3.0, "v_leak": 0.0}


@pytest.mark.parametrize(
    ("neuron", "codes"),
    [
        (node("Linear", state=False), []),
        (node("IF"), ["rounded"]),
        (node(**READ), ["rounded"]),
        (node(**READ | {"tau_mem": np.array([1.0, 1, 2])}), ["rounded", "differs"]),
        (
            node(**READ | {"tau_syn": [2.0, 1], "v_leak": [0.0, 0.5]}),
            ["rounded", "differs", "unread"],
        ),
    ],
)
def test_what_lavas_reader_remarks(neuron, codes):
    problems = list(lava._remarks(neuron, NOBODY))
    assert [problem.code for problem in problems] == codes
    for problem in problems:
        if problem.code == "differs":
            assert "for all neurons, not 1 to 2" in problem.message
        if problem.code == "unread":
            assert "v_leak = 0, not 0.5" in problem.message


def graph(*nodes, edges=()) -> Any:
    named = {f"{member.type} {number}": member for number, member in enumerate(nodes)}
    for name, member in named.items():
        member.name = name
    neurons = [name for name, member in named.items() if member.traits.state]
    return SimpleNamespace(nodes=named, neurons=neurons, edges=edges)


def test_how_far_lavas_rounding_takes_a_membrane():
    """A current off by one quantum w_in times, itself rounded once, r times."""
    ones = node(r=[4.0, 10.0], w_in=[8.0, 2.0]), node("LIF"), node(r=np.inf, w_in=2.0)
    (first, bounded), (_, unbounded) = lava._whole_states(graph(*ones))
    assert first is ones[0]
    assert f"between spikes: up to {9 * 10 / 4096:.2g}" in bounded.what
    assert "between spikes: increasing with every time step" in unbounded.what


# -- Norse, and decays that are clamped


def test_what_norses_importer_ignores():
    """Resets to 0, and r of LIF; of CubaLIF it takes r."""
    layers = (
        build.lif(tau=5.0, r=[1.0, 3.0], v_reset=[-0.5, 0.0]),
        build.lif(tau=5.0),
        build.integrate_and_fire(r=2.0, v_reset=-0.25),
        build.cubalif(tau_mem=5.0, tau_syn=2.0, r=3.0, v_reset=-0.75),
    )
    weighted = [part for layer in layers for part in (build.linear(2), layer)]
    options = {"dialect": "nir", "time_unit": "s", "seed": 0}
    read = build.sequential(build.input(2), *weighted, **options)
    changes = {change.node: (node_read, change) for node_read, change in norse._ignored(read)}
    first, third, fourth = sorted(changes)
    assert changes[first][1].what.startswith("v_reset = -0.5 is read as 0, r = 3 is read as 1")
    assert changes[third][1].what == "v_reset = -0.25 is read as 0"
    assert changes[fourth][1].what == "v_reset = -0.75 is read as 0"
    node_read = changes[first][0]
    np.testing.assert_array_equal(node_read.value("r"), [1, 1])
    np.testing.assert_array_equal(node_read.value("v_reset"), [0, 0])
    np.testing.assert_array_equal(changes[fourth][0].value("r"), 3)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64])
def test_learnt_decays_are_clamped_to_what_they_mean(dtype):
    """Below 0: one step; above 1: never. Where numbers of files round, by up to 1e-6, they stay."""
    decay = np.array([-0.5, -1e-6, 0.5, 1 + 1e-6, 1.5, -2e-6, 1 + 2e-6, np.nan])
    tau, gain = np.arange(1, 9).astype(dtype), np.arange(11, 19).astype(dtype)
    messages: list[str] = []
    learnt = clamps.Learnt(
        symbol="beta", decay=decay, tau="tau", step=np.full(8, 0.25), gain="r", gains=(0.75, 9.5)
    )
    clamped = clamps._clamped(node(tau=tau, r=gain), learnt, messages)
    inf = np.inf
    np.testing.assert_array_equal(clamped["tau"], [0.25, 2, 3, 4, inf, 0.25, inf, 8])
    np.testing.assert_array_equal(clamped["r"], [0.75, 12, 13, 14, 9.5, 0.75, 9.5, 18])
    written_dtype = dtype if dtype != np.int64 else np.float64
    assert {value.dtype for value in clamped.values()} == {np.dtype(written_dtype)}
    below, above = messages
    assert below.startswith(
        "neurons whose beta is below 0 and is read as 0: 2 of 8 (neuron 0: -0.5"
    )
    assert above.startswith("neurons whose beta is above 1 and is read as 1: 2 of 8 (neuron 4: 1.5")
    assert "tau = 5" in above
    within = clamps.Learnt(symbol="b", decay=decay[1:4], tau="tau", step=np.ones(3))
    assert clamps._clamped(node(tau=tau), within, messages) == {}
    assert len(messages) == 2
