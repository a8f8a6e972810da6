"""What Spyx writes otherwise than it means it, and how its chains are made: on small graphs."""

from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from jaxsnn.errors import ConversionError, DialectError
from jaxsnn.nir import build, read, write
from jaxsnn.nir.convert.pipeline import convert
from jaxsnn.nir.frameworks import spyx
from jaxsnn.nir.model.node import LIKE_XLA
from jaxsnn.nir.model.nodes import Affine, Input, Linear
from tests.helpers.mixed_decays import MIXED_DECAYS, mixed_decays
from tests.helpers.random_spikes import random_raster
from tests.helpers.refusals import assert_refused
from tests.nir.conversions import played
from tests.oracles.linear_nodes import convolution


def record(kind: Any) -> Any:
    return kind.__new__(kind)


def neuron(state=True) -> Any:
    return SimpleNamespace(traits=SimpleNamespace(state=state))


IN, W, LIF = "r/input", "r/w", "r/lif"
LOOP = [(IN, W), (W, LIF), (LIF, W), (LIF, "r/output")]


def graph(edges=LOOP, **changes: Any) -> Any:
    nodes = {IN: record(Input), W: record(Linear), LIF: neuron(), "r/output": neuron(state=False)}
    nodes |= {"input": record(Input), "other": neuron(), **changes}
    return SimpleNamespace(nodes=nodes, written_edges=tuple(edges))


@pytest.mark.parametrize("weights", [Linear, Affine])
def test_the_input_of_a_recurrent_layer_goes_straight_to_its_neuron(weights):
    ((moved, change),) = spyx._rewired(graph(**{W: record(weights)}))
    assert moved == ((IN, W), (IN, LIF))
    assert (change.node, change.what) == (W, "edge r/input -> r/w is read as r/input -> r/lif")


@pytest.mark.parametrize(
    "as_written",
    [
        graph([("input", W), *LOOP[1:]]),
        graph(**{IN: neuron()}),
        graph(**{W: neuron()}),
        graph([*LOOP, (W, "other")]),
        graph([*LOOP, ("other", LIF)]),
        graph([LOOP[0], LOOP[1], LOOP[3]]),
        graph(**{LIF: neuron(state=False)}),
    ],
)
def test_other_graphs_stay_as_they_are_written(as_written):
    assert not [*spyx._rewired(as_written)]


def node(name, kind, **values: Any) -> Any:
    read_as = lambda **changes: changes  # noqa: E731
    return SimpleNamespace(
        name=name, type=kind, names=tuple(values), value=values.get, read_as=read_as
    )


@pytest.mark.parametrize(
    ("kind", "padding", "stride", "written"),
    [
        ("SumPool2d", [0, 0], 2, None),
        ("SumPool2d", [0, 1], 2, r"(0, 1)"),
        ("SumPool2d", 1, 2, ""),
        ("Conv2d", "same", 1, None),
        ("Conv2d", "same", (1, 2), "'same'"),
        ("Conv2d", "valid", 2, None),
        ("Conv2d", (1, 1), 2, None),
        ("AvgPool2d", [1, 1], 2, None),
        ("Conv1d", "same", 2, None),
    ],
)
def test_which_paddings_are_those_of_xla(kind, padding, stride, written):
    window = node("n", kind, padding=padding, stride=stride)
    nodes: Any = SimpleNamespace(nodes={"w": node("w", "Linear", weight=1), "n": window})
    padded = list(spyx._padded_like_xla(nodes))
    assert [(settings, change.node) for settings, change in padded] == (
        [] if written is None else [({"padding": LIKE_XLA}, "n")]
    )
    assert all(f"padding {written}" in change.what for _, change in padded)


@pytest.mark.parametrize(
    ("kinds", "without"),
    [
        (["LI", "Threshold"], False),
        (["LI", "LI", "Threshold"], True),
        (["LI"], True),
        (["LIF"], False),
        (["Threshold"], False),
    ],
)
def test_spyx_writes_no_membrane_without_a_threshold(kinds, without):
    nodes: Any = {f"n{number}": node(f"n{number}", kind) for number, kind in enumerate(kinds)}
    refusal = spyx._without_threshold(nodes, None)  # pyright: ignore
    assert (refusal is not None) is without
    if refusal is not None:
        assert refusal[0] == "n0"
        assert "and node 'n0' has none" in refusal[1]


@pytest.mark.parametrize(
    ("kind", "membrane", "symbols"),
    [("LIF", "tau", ["beta"]), ("CubaLIF", "tau_mem", ["beta", "alpha"]), ("IF", "tau", [])],
)
def test_decays_that_spyx_learnt(kind, membrane, symbols):
    """beta is r, and a step lasts tau (1 - r): 1 ms; alpha is 1 - dt/tau_syn."""
    r, tau_syn = np.array([0.75, 0.9, 1.25]), np.array([4e-3, 2e-3, -1e-3])
    values = {membrane: 1e-3 / (1 - r), "r": r}
    if kind == "CubaLIF":
        values |= {"tau_syn": tau_syn, "w_in": np.ones(3)}
    layers = build.linear(3), build.lif(tau=1e-3 / 0.25, r=0.75)
    options = {"dialect": "spyx", "reset": "subtract", "reset_delay": True, "dt": 1e-3}
    network = build.sequential(build.input(2), *layers, seed=0, time_unit="s", **options)
    learnt = {decay.symbol: decay for decay in spyx._learnt(node("n", kind, **values), network)}
    assert list(learnt) == symbols
    expected = {"beta": (r, membrane, "r"), "alpha": (1 - 1e-3 / tau_syn, "tau_syn", "")}
    for symbol, decay in learnt.items():
        factor, tau, gain = expected[symbol]
        np.testing.assert_allclose(decay.step, 1e-3, rtol=1e-9)
        np.testing.assert_allclose(decay.decay, factor)
        assert (decay.gains, decay.tau, decay.gain) == ((0.0, 1.0), tau, gain)


# -- biases after neurons, as weights from a neuron that fires in each step


def entry_of(kind, rng, inputs) -> Any:
    if kind == "Conv2d":
        weight, window = rng.normal(size=(3, inputs, 2, 3)), {"stride": [2, 1], "padding": [1, 1]}
        window |= {"dilation": 1, "groups": 1, "input_shape": [5, 4]}
        window = {name: np.array(value) for name, value in window.items()}
    else:
        weight, window = rng.normal(size=(3, inputs)), {}
    bias = {} if kind == "Linear" else {"bias": rng.normal(size=3)}
    return {"type": kind, "weight": weight, **bias, **window}


def applied(entry, x):
    if entry["type"] != "Conv2d":
        return entry["weight"] @ x + entry.get("bias", 0)
    window = entry["stride"], entry["padding"], (1, 1), 1
    return convolution(x, entry["weight"], entry["bias"], *window)


@pytest.mark.parametrize("constant", [None, 1.5])
@pytest.mark.parametrize("amplitude", [None, 0.7])
@pytest.mark.parametrize(
    ("kind", "space"),
    [("Affine", None), ("Linear", None), ("Affine", (2, 5)), ("Linear", (2, 5)), ("Conv2d", None)],
)
def test_a_constant_input_stands_for_the_bias(kind, space, amplitude, constant):
    """Of a Flatten before it the order is height, width, channel, of three channels and one more."""
    rng, channels = np.random.default_rng(1), 3
    inputs = channels * int(np.prod(space or (1,)))
    entry = entry_of(kind, rng, inputs)
    widened = spyx._widened("n", entry, amplitude, constant, space)
    x = rng.normal(size=(inputs, 5, 4) if kind == "Conv2d" else inputs)
    widened_x, expected = x, applied(entry, x)
    if amplitude is not None:
        # Append the constant as the last channel of each pixel.
        pixels = x.reshape(*space, channels) if space else np.moveaxis(x, 0, -1)
        last = np.full((*pixels.shape[:-1], 1), amplitude)
        pixels = np.concatenate([pixels, last], axis=-1)
        widened_x = pixels.ravel() if space else np.moveaxis(pixels, -1, 0)
        assert not np.any(widened["bias"])
    if constant is not None:
        expected = np.concatenate([expected, np.full((1, *expected.shape[1:]), constant)])
    np.testing.assert_allclose(applied(widened, widened_x), expected, rtol=1e-12)
    assert widened["type"] == ("Conv2d" if kind == "Conv2d" else "Affine")


def frame(**changes: Any) -> dict[str, Any]:
    values: dict[str, Any] = {
        **{"type": "Conv2d", "weight": np.ones((1, 2, 2, 3)), "bias": np.ones(1)},
        **{"stride": (2, 1), "padding": (0, 0), "dilation": 1, "groups": 1, "input_shape": (5, 4)},
    }
    return {
        key: value if isinstance(value, str) else np.asarray(value)
        for key, value in (values | changes).items()
    }


@pytest.mark.parametrize(
    ("changes", "beyond"),
    [
        ({}, False),
        ({"padding": (1, 1)}, False),
        ({"stride": (1, 1), "padding": (1, 0)}, True),  # outputs reach row 5, beyond the input
        ({"stride": (1, 1), "padding": (0, 2)}, True),
        ({"stride": (1, 1), "padding": (0, 1)}, False),
        ({"stride": (2, 1), "padding": (1, 0)}, False),
    ],
)
def test_outputs_beyond_the_last_input(changes, beyond):
    assert spyx._outgrows("n", frame(**changes)) is beyond


FAR = {"stride": (1, 1), "padding": (1, 0)}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"padding": (2, 0)}, "'n' pads by more than its kernel"),
        (FAR, "'n' has so much padding that a constant input"),
    ],
)
def test_the_kernel_must_hold_the_bias(changes, says):
    widen = partial(spyx._widened, "n", frame(**changes), 1.0, None, None)
    assert_refused(widen, ConversionError, says)


def test_a_kernel_without_a_bias_to_hold_stays_as_large():
    assert spyx._widened("n", frame(**FAR), None, None, None)["weight"].shape == (1, 2, 2, 3)


@pytest.mark.parametrize("kind", ["LIF", "IF", "CubaLIF"])
def test_a_neuron_that_fires_in_each_step(kind):
    """As the others of its layer are written: it keeps half of its membrane, an IF all of it."""
    expected = {"tau": 0.5, "tau_mem": 0.5, "tau_syn": 0.25, "r": 1 if kind == "IF" else 0.5}
    expected |= {"w_in": 1, "v_leak": 0, "v_threshold": 1, "v_reset": 0}
    entry = {"type": kind} | {name: np.full((2, 3), 7.0) for name in expected}
    widened = spyx._with_constant_neuron(entry, 0.25)
    for name, value in expected.items():
        rows = np.repeat([[7.0], [7.0], [value]], 3, axis=1)
        np.testing.assert_array_equal(widened[name], rows, err_msg=name)
    assert widened["type"] == kind


# -- neurons without a leak next to others, for which dt = tau (1 - r) is 0


@pytest.mark.parametrize("case", MIXED_DECAYS)
@pytest.mark.parametrize("dialect", ["auto", "spyx"])
def test_what_is_written_for_spyx_is_read_again(case, dialect, tmp_path):
    graph = mixed_decays(case)
    conversion = convert(graph, to="spyx", approximate=True)
    assert not conversion.losses or case.startswith("CubaLIF 0")
    write(tmp_path / "written.nir", conversion.graph)
    reread = read(tmp_path / "written.nir", dialect=dialect)
    assert reread.dialect.name == "spyx"
    assert reread.dialect.dt == pytest.approx(1e-4)
    x = random_raster(1, (60, 8, 4), 0.5)
    source, converted, again = (played(net, x) for net in (graph, conversion.graph, reread))
    assert converted.any(axis=(0, 1)).all()
    np.testing.assert_array_equal(again, converted)
    if not conversion.losses:  # Spyx emits spikes one step late
        np.testing.assert_array_equal(again[1:], source[:-1])


@pytest.mark.parametrize("kind", ["LIF", "CubaLIF"])
def test_dt_is_that_of_the_neurons_with_a_leak(kind):
    """r is beta. Where 1 - dt/tau rounds to 1, r = 1 says nothing of dt; else it contradicts it."""

    def dt_of(tau, r):
        neurons = build.lif(3, tau=tau, r=r)
        if kind == "CubaLIF":
            neurons = build.cubalif(3, tau_mem=tau, tau_syn=3e-4, r=r)
        return build.sequential(build.input(3), neurons, dialect="spyx").dialect.dt

    for leakless in (1e8, 1e4, np.inf):
        assert dt_of([1e-4, 2e-4, leakless], [0.0, 0.5, 1.0]) == pytest.approx(1e-4)
        assert dt_of([leakless, leakless, 4e-4], [1.0, 1.0, 0.75]) == pytest.approx(1e-4)
    for tau, r in (
        ([1e-4, 2e-4, 1.0], [0.0, 0.5, 1.0]),
        ([1e-4, 2e-4, 1e-4], [0.0, 0.5, 1.0]),
        # r = 1 for all neurons is what other frameworks write.
        ([1e-2, 2e-2, 3e-2], 1.0),
        ([10.0, 10.0, 10.0], 1.0),
        ([5e3, 5e3, 5e3], 1.0),
    ):
        assert_refused(partial(dt_of, tau, r), DialectError, "dt = 0")
