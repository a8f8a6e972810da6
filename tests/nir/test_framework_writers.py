"""What is written for an importer does in each step what the source does, and what its importer
cannot do is refused.
"""

import dataclasses
import re
from functools import partial

import numpy as np
import pytest

from jaxsnn.errors import ConversionError
from jaxsnn.nir.frameworks import norse, rockpool, sinabs, snn_mlir, snntorch, spikingjelly, spyx
from tests.helpers.refusals import assert_refused
from tests.nir import importer_steps as steps
from tests.nir.importer_steps import resting, setting, step

#: Writer, computation of its importer, and whether a membrane at threshold spikes there.
WRITERS = {
    "snntorch": (snntorch._write, steps.of_snntorch, False),
    "snntorch main": (snntorch._write_main, steps.of_snntorch_main, False),
    "norse": (norse._write, steps.of_norse, False),
    "rockpool": (rockpool._write, steps.of_rockpool, True),
    "spyx": (spyx._write, steps.of_spyx, False),
    "spikingjelly": (spikingjelly._write, steps.of_spikingjelly, True),
    "sinabs": (sinabs._write, steps.of_sinabs, True),
    "snn_mlir": (snn_mlir._write, steps.of_snn_mlir, False),
}
LEVELS = [0.3, -0.4, 0.5]
CURRENT = {"current_based": True, "synapse_decay": [0.6, 0.5, 0.3]}
ONE_CURRENT = CURRENT | {"synapse_decay": 0.6}
LEAKS = {"decay": [0.8, 0.7, 0.9]}
NEVER = {"decay": 1.0, "drive": 0.0}
DRIVEN = {"drive": [0.1, 0.2, -0.1]}
LATER, FLOORED = {"reset": "subtract later"}, {"reset": "subtract", "several": True}
PLAIN, ABOVE = {"reset": "subtract"}, {"reset": "subtract unless above"}
COPIES = {"level": [1.0, 2, 3], "v_threshold": [0.7, 1.4, 2.1], "decay": 0.8, "gain": 0.6}
BOUND = {"v_threshold": 1.6, "floor": -1.6}
READOUT = {"reset": "none", "v_threshold": np.inf}
#: A current with a start that Norse supports: it decays to the start of the membrane.
STARTED = PLAIN | LEAKS | CURRENT | {"v_start": LEVELS, "i_start": [0.2, 0.3, -0.1]}


def sets(reset, delay=None, fires=None):
    options = {"reset": reset}
    options |= {} if delay is None else {"reset_delay": delay}
    return options | ({} if fires is None else {"spike_fn": fires})


VALUE, SOFT = sets("zero"), sets("subtract")
AT_ONCE, LATE = sets("zero", False), sets("zero", True)
SINGLE, MULTI = sets("subtract", fires="single"), sets("subtract", fires="multi")
ZEROED = sets("zero", fires="single")
#: Framework, written type, options that the file does not contain, step, and Norse's method.
CASES = [
    ("snntorch", "LIF", AT_ONCE, resting(LEVELS, **LEAKS), None),
    ("snntorch", "CubaLIF", AT_ONCE, resting(LEVELS, **LEAKS, **CURRENT), None),
    ("snntorch", "LIF", AT_ONCE, step(**DRIVEN), None),
    ("snntorch", "LIF", sets("subtract", True), step(**LATER, **LEAKS), None),
    ("snntorch", "LIF", sets("subtract", False), step(**ABOVE), None),
    ("snntorch", "CubaLIF", LATE, resting(LEVELS, reset="skip"), None),
    ("snntorch", "CubaLIF", LATE, resting(LEVELS, reset="skip", **CURRENT), None),
    ("snntorch", "LIF", AT_ONCE, resting(LEVELS, **NEVER), None),
    ("snntorch main", "CubaLIF", AT_ONCE, resting(LEVELS, **LEAKS, **CURRENT), None),
    ("snntorch main", "LIF", AT_ONCE, resting(LEVELS, **LEAKS), None),
    ("snntorch main", "IF", sets("subtract", False), step(**NEVER, **ABOVE), None),
    ("norse", "LIF", VALUE, resting(LEVELS, **LEAKS), "value"),
    (
        *("norse", "LIF", VALUE),
        resting(LEVELS, v_start=[0.1, 0.2, -0.3], drive=[0.2, -0.1, 0.3], **LEAKS),
        "value",
    ),
    ("norse", "IF", VALUE, resting(LEVELS, **NEVER), "value"),
    ("norse", "CubaLIF", VALUE, resting(LEVELS, **LEAKS, **CURRENT), "value"),
    ("norse", "CubaLIF", SOFT, step(**PLAIN, **LEAKS), "subtract"),
    ("norse", "CubaLIF", SOFT, step(**PLAIN, **LEAKS, **DRIVEN, v_start=LEVELS), "subtract"),
    ("norse", "CubaLIF", SOFT, step(**STARTED), "subtract"),
    ("norse", "CubaLIF", SOFT | {"reset_size": "1"}, step(**LATER, **LEAKS, **CURRENT), "unit"),
    ("norse", "CubaLIF", SOFT | {"reset_size": "1"}, step(**PLAIN, **LEAKS, **CURRENT), "unit"),
    ("norse", "CubaLIF", SOFT | {"reset_size": "1"}, step(**STARTED), "unit"),
    ("norse", "CubaLIF", SOFT | {"reset_size": "floor"}, step(**FLOORED, **COPIES), "floor"),
    ("rockpool", "CubaLIF", {}, step(**FLOORED, **LEAKS), None),
    ("rockpool", "CubaLIF", {}, step(**PLAIN, **LEAKS, **CURRENT), None),
    ("rockpool", "CubaLIF", {}, step(**PLAIN, **LEAKS, **DRIVEN), None),
    ("rockpool", "CubaLIF", {}, step(**PLAIN, **NEVER), None),
    ("spyx", "LIF", {}, step(**LATER, **LEAKS), None),
    ("spyx", "LIF", {}, step(**LATER, **LEAKS, **DRIVEN), None),
    ("spyx", "IF", {}, step(**LATER, **NEVER), None),
    ("spyx", "IF", {}, step(**PLAIN, **NEVER), None),
    ("spyx", "CubaLIF", {}, step(**PLAIN, **LEAKS, **CURRENT), None),
    ("spyx", "CubaLIF", {}, step(**PLAIN, **LEAKS, **DRIVEN), None),
    ("spikingjelly", "LIF", VALUE, resting(LEVELS), None),
    ("spikingjelly", "LIF", VALUE, resting(0.4, v_threshold=1.9, gain=0.2), None),
    ("spikingjelly", "LIF", VALUE, resting(LEVELS, gain=0.2), None),
    ("spikingjelly", "LIF", VALUE, resting(LEVELS, **DRIVEN), None),
    ("spikingjelly", "IF", VALUE, resting(LEVELS, **NEVER), None),
    ("spikingjelly", "CubaLIF", VALUE, resting(LEVELS, **ONE_CURRENT), None),
    ("spikingjelly", "LIF", SOFT, step(**PLAIN), None),
    ("spikingjelly", "CubaLIF", VALUE, step(decay=0.0), None),
    ("spikingjelly", "CubaLIF", VALUE, step(decay=1e-30), None),
    ("sinabs", "LIF", MULTI, step(**FLOORED, **LEAKS), None),
    ("sinabs", "CubaLIF", SINGLE, step(**PLAIN, **LEAKS, **CURRENT), None),
    ("sinabs", "LIF", ZEROED, resting(LEVELS, **LEAKS), None),
    ("sinabs", "LIF", ZEROED, resting(LEVELS, **DRIVEN), None),
    ("sinabs", "LIF", SINGLE, step(**PLAIN, **NEVER), None),
    ("sinabs", "IF", SINGLE | {"min_v_mem": -1.6}, step(**PLAIN, **NEVER, **BOUND), None),
    ("sinabs", "CubaLI", {}, step(**READOUT, **LEAKS, **CURRENT), None),
    ("sinabs", "LI", {}, step(**READOUT, **LEAKS, **DRIVEN), None),
    ("snn_mlir", "LIF", {}, resting(LEVELS), None),
    ("snn_mlir", "CubaLIF", {}, resting(LEVELS, **ONE_CURRENT), None),
    ("snn_mlir", "IF", {}, resting(LEVELS, **NEVER), None),
    ("snn_mlir", "LIF", {}, resting(LEVELS, **DRIVEN), None),
    ("snn_mlir", "LI", {}, step(**READOUT, **DRIVEN), None),
    ("snn_mlir", "LI", {}, step(**READOUT, **NEVER), None),
    ("snn_mlir", "CubaLI", {}, step(**READOUT, **ONE_CURRENT), None),
]


def named(case):
    name, kind, _, source, method = case
    drive = "current" if source.current_based else "driven" if source.drive.any() else "box"
    return f"{name} {kind} {source.reset} {drive} {method or ''}"


@pytest.mark.parametrize("case", CASES, ids=named)
def test_what_is_written_does_the_same(case):
    name, kind, says, source, method = case
    write, of_entry, at_equality = WRITERS[name]
    source = dataclasses.replace(source, at_equality=at_equality)
    written = write(source, setting(method))
    assert written.entry["type"] == kind
    assert dict(written.says) | dict(written.means) == says
    if kind == "IF" and name == "snntorch main":
        of_entry = steps.of_snntorch
    steps.assert_does_the_same(source, written, of_entry)


@pytest.mark.parametrize(
    ("name", "method"),
    [
        (name, method)
        for name in WRITERS
        for method in ({"norse": ("value", "unit")}.get(name, (None,)))
    ],
)
@pytest.mark.parametrize("current", [False, True])
def test_a_layer_of_one_neuron_and_membranes_at_its_threshold(name, method, current):
    """Where the target counts those the other way, its threshold is the next float32."""
    numbers = {"gain": 0.7, "synapse_gain": 1.7, "v_threshold": 1.5, "shape": (1,)}
    numbers |= {"current_based": True, "synapse_decay": 0.6} if current else {}
    kinds = {"norse": {"unit": PLAIN}.get(method, {}), "spikingjelly": {}, "snn_mlir": {}}
    reset = {} if name.startswith("snntorch") else kinds.get(name, PLAIN)
    write, _, at_equality = WRITERS[name]
    same, opposite = (
        write(step(**numbers, **reset, at_equality=flag), setting(method))
        for flag in (at_equality, not at_equality)
    )
    expected = np.float32([1.5])
    if name == "norse":
        arriving = same.factor * 1.5 / (0.7 * (1.7 if current else 1.0))
        expected = steps.norse_from_rest(same.entry, arriving)
    same, opposite = same.entry["v_threshold"], opposite.entry["v_threshold"]
    np.testing.assert_array_equal(same, expected)
    up = np.float32(np.inf if at_equality else -np.inf)
    np.testing.assert_array_equal(opposite, np.nextafter(expected, up))


@pytest.mark.parametrize("dt", [1e-3, 1e-4, 1e-5, 0.5])
@pytest.mark.parametrize("rate", [1.0, 0.5, 0.25, 0.125, 2.0**-40])
def test_norse_gets_time_constants_of_which_it_makes_rates_without_rounding(rate, dt):
    tau, actual = norse._time_constants(np.array([rate]), dt)
    np.testing.assert_array_equal(actual, rate)
    np.testing.assert_array_equal(
        np.float32(dt) * (np.float32(1) / np.float32(tau)), np.float32(rate)
    )


def test_the_bounded_integrator_of_sinabs_has_its_threshold():
    for at_equality, threshold in ((True, np.float32(1.6)), (False, np.float32(1.6000001))):
        source = step(**PLAIN, **NEVER, **BOUND, at_equality=at_equality)
        np.testing.assert_array_equal(
            sinabs._write(source, setting()).entry["v_threshold"], threshold
        )


SKIP = {"reset": "skip"}
COMPOSED = [ABOVE, ABOVE | ONE_CURRENT, SKIP, FLOORED | ABOVE]
RESETS_TO_0 = [
    *(BOUND, NEVER | BOUND, NEVER | BOUND | PLAIN, NEVER | BOUND | {"floor": -1.5}, NEVER),
    *(NEVER | BOUND | ONE_CURRENT, NEVER | BOUND | {"decay": [1.0, 0.9, 1]}),
]
#: Extended support of an importer, and steps for which it has it.
DOES = [
    (snntorch, "any height", [ABOVE, ABOVE | ONE_CURRENT]),
    (snntorch, "no current", [PLAIN, FLOORED, FLOORED | ABOVE, NEVER | BOUND | PLAIN]),
    (norse, "no current", COMPOSED),
    (norse, "several nodes", COMPOSED),
    (spikingjelly, "no current", [*COMPOSED, LATER, FLOORED]),
    (spikingjelly, "several nodes", COMPOSED),
    (rockpool, "any height", [FLOORED]),
    (sinabs, "any height", [{}, PLAIN, FLOORED, *RESETS_TO_0]),
    (sinabs, "floor", [NEVER | BOUND, NEVER | BOUND | PLAIN]),
]
QUESTIONS = [
    *({}, PLAIN, LATER, ABOVE, FLOORED, FLOORED | ABOVE, {"reset": "skip"}, {"v_reset": -0.5}),
    *(BOUND, NEVER | BOUND, NEVER | BOUND | PLAIN, NEVER | BOUND | {"floor": -1.5}, NEVER),
    *(NEVER | BOUND | ONE_CURRENT, NEVER | BOUND | {"decay": [1.0, 0.9, 1]}, ABOVE | ONE_CURRENT),
]


@pytest.mark.parametrize(
    ("framework", "doing", "expected"),
    DOES,
    ids=[f"{framework.__name__.rpartition('.')[2]} {doing}" for framework, doing, _ in DOES],
)
def test_how_a_neuron_does_a_step(framework, doing, expected):
    """Decided by the reset and by what a membrane is bounded by, of the steps that were asked."""
    listed = {doing for module, doing, _ in DOES if module is framework}
    for changes in QUESTIONS:
        doings = {*framework._does(step(**changes))}
        assert (doing in doings) is (changes in expected), changes
        assert doings <= listed


FLAT = {"shape": (2, 3)}
STARTS = {"v_start": 0.1}
FED = {"i_start": 0.1}
BEFORE = "starts at 0.1, in the importer at 0"
PUSHED = CURRENT | {"drive": [0.1, 0.2, 0.3], "v_threshold": 2.0}
PUSHED_APART = PUSHED | ONE_CURRENT | {"v_threshold": [2.0, 3.0, 4.0]}
PUSH = "has a constant input of 0.3 per time step from v_leak, so it does not rest at v_reset"
CURRENT_STARTS = "its synaptic current does not start at 0"
#: Framework, step, Norse's method, and words of the refusal.
REFUSED = [
    ("snntorch", step(**STARTS), None, BEFORE),
    ("snntorch", step(**PLAIN), None, "its reset subtracts v_threshold, and snnTorch's"),
    ("snntorch", step(**ABOVE, several=True), None, "its reset subtracts v_threshold"),
    ("snntorch", step(**PUSHED), None, PUSH),
    ("snntorch main", step(**PUSHED), None, PUSH),
    ("snntorch", step(**PUSHED_APART), None, PUSH),
    (
        "norse",
        step(reset="skip"),
        "value",
        "its reset sets the membrane potential to 0 at the end of the time step after",
    ),
    (
        "norse",
        step(**ABOVE),
        "subtract",
        "a membrane potential that stays above v_threshold after a reset",
    ),
    ("norse", step(**NEVER, **STARTS), "value", BEFORE),
    ("norse", step(**PUSHED), "value", "Norse starts its synaptic current at v_leak, not at rest"),
    (
        "norse",
        step(**(STARTED | DRIVEN)),
        "subtract",
        "Norse starts its synaptic current at v_leak",
    ),
    (
        "rockpool",
        step(**PLAIN, **FLAT),
        None,
        "Rockpool's layers have one axis, and node 'n' has the shape (2, 3)",
    ),
    ("rockpool", step(), None, "its reset sets the membrane potential to a value"),
    ("rockpool", step(**PLAIN, **STARTS), None, BEFORE),
    ("rockpool", step(**PLAIN, **PUSHED), None, PUSH),
    ("rockpool", step(**PLAIN, **CURRENT, **FED), None, CURRENT_STARTS),
    ("spyx", step(), None, "it resets to a value, and Spyx's importer subtracts"),
    ("spyx", step(reset="skip"), None, "it resets to a value, and Spyx's importer subtracts"),
    ("spyx", step(**ABOVE), None, "it resets with reset_delay false, and Spyx's importer"),
    ("spyx", step(**LATER, **STARTS), None, BEFORE),
    ("spyx", step(**LATER, **CURRENT), None, "it subtracts v_threshold after the decay"),
    (
        "spyx",
        step(**PLAIN, **CURRENT, **FLAT),
        None,
        "Spyx's CuBaLIF, which it needs, supports only one axis",
    ),
    ("spyx", step(**PLAIN, **FLAT), None, "'n' has the shape (2, 3), and Spyx's CuBaLIF"),
    ("spyx", step(**PLAIN, **PUSHED), None, PUSH),
    (
        "spikingjelly",
        step(**LATER, **ONE_CURRENT),
        None,
        "but this node has a synaptic current and is recurrent",
    ),
    ("spikingjelly", step(**LATER, **FLAT), None, "the neurons of a channel differ"),
    ("spikingjelly", step(**ABOVE), None, "its reset subtracts v_threshold and may leave"),
    ("spikingjelly", step(**FLOORED), None, "its reset subtracts v_threshold, and SpikingJelly's"),
    ("spikingjelly", step(**STARTS), None, BEFORE),
    ("spikingjelly", step(**LEAKS), None, "the membrane time constant (0.7 to 0.9)"),
    ("spikingjelly", step(**CURRENT), None, "the synaptic time constant (0.3 to 0.6)"),
    ("spikingjelly", step(**(PUSHED | ONE_CURRENT)), None, PUSH),
    ("spikingjelly", step(**PUSHED_APART), None, PUSH),
    ("sinabs", step(**LATER), None, "Sinabs does not support its reset (subtract later)"),
    ("sinabs", step(reset="skip"), None, "Sinabs does not support its reset (skip)"),
    ("sinabs", step(**ABOVE), None, "Sinabs does not support its reset (subtract unless above)"),
    ("sinabs", step(**PLAIN, **STARTS), None, BEFORE),
    ("sinabs", step(**PLAIN, **FLAT), None, "'n' (LIF) has the shape (2, 3), and Sinabs's"),
    (
        "sinabs",
        step(**PLAIN, **PUSHED),
        None,
        "it has a constant input of 0.3 per time step from v_leak",
    ),
    ("sinabs", step(**PLAIN, **CURRENT, **FED), None, CURRENT_STARTS),
    (
        "snn_mlir",
        step(**FLAT),
        None,
        "snn-mlir's layers have one axis, and node 'n' has the shape (2, 3)",
    ),
    ("snn_mlir", step(**PLAIN), None, "its reset subtracts v_threshold, and snn-mlir's"),
    ("snn_mlir", step(**STARTS), None, BEFORE),
    ("snn_mlir", step(**LEAKS), None, "the membrane time constant (0.7 to 0.9)"),
    ("snn_mlir", step(**CURRENT), None, "the synaptic time constant (0.3 to 0.6)"),
    ("snn_mlir", step(**(PUSHED | ONE_CURRENT)), None, PUSH),
    ("snn_mlir", step(**PUSHED_APART), None, PUSH),
    ("snn_mlir", step(**ONE_CURRENT, **FED), None, CURRENT_STARTS),
]


@pytest.mark.parametrize(
    ("name", "source", "method", "message"),
    REFUSED,
    ids=[f"{case[0]} {case[3]}" for case in REFUSED],
)
def test_what_an_importer_cannot_do_is_refused(name, source, method, message):
    write = partial(WRITERS[name][0], source, setting(method))
    assert_refused(write, ConversionError, re.escape(message))


@pytest.mark.parametrize(
    ("name", "source", "kind"),
    [
        ("snntorch", step(**FLAT), "LIF"),
        ("spyx", step(**LATER, **FLAT), "LIF"),
        ("spyx", step(**PLAIN, **NEVER, **FLAT), "IF"),
        ("spyx", step(**LATER, **CURRENT, **NEVER), "CubaLIF"),
        ("spikingjelly", step(**FLAT), "LIF"),
        ("sinabs", step(**PLAIN, **NEVER, **BOUND, **FLAT), "IF"),
    ],
)
def test_what_an_importer_takes_in_spite_of_its_shape_or_reset(name, source, kind):
    assert WRITERS[name][0](source, setting()).entry["type"] == kind


@pytest.mark.parametrize(
    ("name", "reset", "method", "why"),
    [
        ("norse", PLAIN, "subtract", "with tau_syn = dt it is equivalent to a LIF"),
        ("rockpool", PLAIN, None, "within one time step, it is equivalent to a LIF"),
        (
            "spyx",
            PLAIN,
            None,
            "only Spyx's CuBaLIF subtracts immediately; with tau_syn = dt it is equivalent to a LIF",
        ),
    ],
)
def test_why_a_neuron_without_a_current_is_given_one(name, reset, method, why):
    alone = WRITERS[name][0](step(**reset), setting(method))
    with_current = WRITERS[name][0](step(**reset, **CURRENT), setting(method))
    assert why in alone.why
    assert why not in with_current.why


def test_norse_multiplies_what_arrives_by_powers_of_two():
    """So that float32 rounds no weight; the membrane is scaled instead."""
    for source in (step(**PLAIN), step(**PLAIN, **CURRENT)):
        entry = norse._write(source, setting("subtract")).entry
        for key in ("w_in", "r"):
            np.testing.assert_array_equal(np.frexp(entry[key])[0], 0.5)
        np.testing.assert_allclose(norse._write(source, setting("unit")).entry["v_threshold"], 1)
    for source in (step(), step(decay=1.0)):
        np.testing.assert_array_equal(
            np.frexp(norse._write(source, setting("value")).factor)[0], 0.5
        )


def test_norse_starts_a_current_off_by_less_than_float32_tells():
    """Relative to the threshold of 2: it starts at v_leak, and drives the membrane by its rest."""
    near, far = (step(**CURRENT, v_threshold=2.0, drive=0.4 * drive) for drive in (5e-8, 1.5e-7))
    assert norse._write(near, setting("value")).entry["type"] == "CubaLIF"
    says = "Norse starts its synaptic current at v_leak, not at rest"
    assert_refused(lambda: norse._write(far, setting("value")), ConversionError, says)


@pytest.mark.parametrize(
    ("changes", "is_if"),
    [
        ({}, True),
        ({"decay": [1.0, 0.9, 1.0]}, False),
        ({"v_start": [0.0, 0.1, 0.0]}, False),
        ({"drive": [0.0, 0.1, 0.0]}, False),
        ({"reset": "subtract later"}, False),
        ({"several": True}, False),
        ({"current_based": True}, False),
    ],
)
def test_main_of_snntorch_takes_an_if_that_does_nothing_else(changes, is_if):
    assert snntorch._is_if(step(**(NEVER | ABOVE | changes))) is is_if


def test_what_has_a_small_gain_spikingjelly_divides_by_itself():
    """r = 1 of a LIF whose input decays as its membrane does, tau/dt else; equal levels stay."""
    by_itself = spikingjelly._write(resting(0.4, v_threshold=1.9, gain=0.2), setting())
    np.testing.assert_array_equal(by_itself.entry["r"], 1)
    np.testing.assert_array_equal(by_itself.factor, 1)
    for key, value in (("v_reset", 0.4), ("v_leak", 0.4), ("v_threshold", 1.9)):
        np.testing.assert_allclose(by_itself.entry[key], value)
    for source in (
        resting(0.4, v_threshold=1.9, gain=0.3),
        resting(0.4, v_threshold=1.9, gain=0.2, drive=0.2),
        resting(LEVELS, gain=0.2),
    ):
        written = spikingjelly._write(source, setting())
        np.testing.assert_allclose(written.entry["r"], 5)
    moved = spikingjelly._write(resting(LEVELS, gain=0.2, v_threshold=1.9), setting()).entry
    np.testing.assert_array_equal(moved["v_reset"], 0)
    np.testing.assert_array_equal(moved["v_leak"], 0)
