"""What Spyx writes otherwise than it means it, and how its chains are made: on small graphs."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from jaxsnn import TimeStepped, lower, simulate
from jaxsnn.errors import ConversionError, DialectError
from jaxsnn.nir import build, read, write
from jaxsnn.nir.convert.pipeline import convert
from jaxsnn.nir.frameworks import spyx
from jaxsnn.nir.model.node import LIKE_XLA
from jaxsnn.nir.model.nodes import Affine, Input, Linear
from tests.helpers.mixed_decays import MIXED_DECAYS, mixed_decays
from tests.helpers.random_spikes import random_raster
from tests.helpers.refusals import assert_refused


def made(kind: Any) -> Any:
    return kind.__new__(kind)


def neuron(state=True) -> Any:
    return SimpleNamespace(traits=SimpleNamespace(state=state))


IN, W, LIF = "r/input", "r/w", "r/lif"
LOOP = [(IN, W), (W, LIF), (LIF, W), (LIF, "r/output")]


def graph(edges=LOOP, **changes: Any) -> Any:
    nodes = {IN: made(Input), W: made(Linear), LIF: neuron(), "r/output": neuron(state=False)}
    nodes |= {"input": made(Input), "other": neuron()}
    names = {"start": IN, "weights": W, "neuron": LIF}
    nodes |= {names[key]: value for key, value in changes.items()}
    return SimpleNamespace(nodes=nodes, written_edges=tuple(edges))


@pytest.mark.parametrize("weights", [Linear, Affine])
def test_the_input_of_a_recurrent_layer_goes_straight_to_its_neuron(weights):
    ((moved, change),) = spyx._rewired(graph(weights=made(weights)))
    assert moved == ((IN, W), (IN, LIF))
    assert change.node == W
    assert change.what == "edge r/input -> r/w is read as r/input -> r/lif"


@pytest.mark.parametrize(
    "other",
    [
        graph([("input", W), *LOOP[1:]]),
        graph(start=neuron()),
        graph(weights=neuron()),
        graph([*LOOP, (W, "other")]),
        graph([*LOOP, ("other", LIF)]),
        graph([LOOP[0], LOOP[1], LOOP[3]]),
        graph(neuron=neuron(state=False)),
    ],
)
def test_other_graphs_stay_as_they_are_written(other):
    assert not [*spyx._rewired(other)]


def window(kind, padding, stride=1) -> Any:
    values: dict[str, Any] = {"padding": padding, "stride": stride}
    return SimpleNamespace(
        name="n",
        type=kind,
        names=tuple(values),
        value=values.get,
        read_as=lambda **changes: changes,
    )


@pytest.mark.parametrize(
    ("kind", "padding", "stride", "known"),
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
def test_which_paddings_are_those_of_xla(kind, padding, stride, known):
    plain: Any = SimpleNamespace(name="w", type="Linear", names=("weight",))
    nodes = {"w": plain, "n": window(kind, padding, stride)}
    found = list(spyx._padded_like_xla(SimpleNamespace(nodes=nodes)))  # pyright: ignore
    assert len(found) == (known is not None)
    for meant, change in found:
        assert meant == {"padding": LIKE_XLA}
        assert change.node == "n"
        assert f"padding {known}" in change.what


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
    nodes: Any = {str(n): SimpleNamespace(name=f"n{n}", type=kind) for n, kind in enumerate(kinds)}
    found = spyx._without_threshold(nodes, None)  # pyright: ignore
    assert (found is not None) is without
    if found is not None:
        assert found[0] == "n0"
        assert "and 'n0' has none" in found[1]


@pytest.mark.parametrize("kind", ["LIF", "CubaLIF", "IF"])
def test_decays_that_spyx_learnt(kind):
    """beta is r, and a step lasts tau (1 - r): 1 ms; alpha is 1 - dt/tau_syn."""
    r, tau_syn = np.array([0.75, 0.9, 1.25]), np.array([4e-3, 2e-3, -1e-3])
    tau = 1e-3 / (1 - r)
    values = {"tau": tau, "tau_mem": tau, "tau_syn": tau_syn, "r": r, "w_in": np.ones(3)}
    names = ("tau", "r") if kind == "LIF" else ("tau_mem", "tau_syn", "r", "w_in")
    from jaxsnn.nir import build

    node: Any = SimpleNamespace(name="n", type=kind, names=names, value=values.get)
    layers = build.linear(3), build.lif(tau=1e-3 / 0.25, r=0.75)
    said = {"seed": 0, "dialect": "spyx", "reset": "subtract", "reset_delay": True, "dt": 1e-3}
    whole = build.sequential(build.input(2), *layers, time_unit="s", **said)
    found = list(spyx._learnt(node, whole))
    symbols = {"LIF": ["beta"], "CubaLIF": ["beta", "alpha"], "IF": []}[kind]
    assert [one.symbol for one in found] == symbols
    for one in found:
        np.testing.assert_allclose(one.step, 1e-3, rtol=1e-9)
        expected = r if one.symbol == "beta" else 1 - 1e-3 / tau_syn
        np.testing.assert_allclose(one.decay, expected)
        assert one.gains == (0.0, 1.0)
        taus = {"beta": "tau" if kind == "LIF" else "tau_mem", "alpha": "tau_syn"}
        assert (one.tau, one.gain) == (taus[one.symbol], "r" if one.symbol == "beta" else "")


# ---- biases behind neurons, as weights from one that fires in each step


def convolved(entry, x):
    """(outputs, height, width) of (inputs, height, width), padded and with strides."""
    weight, (down, right), (high, wide) = entry["weight"], entry["stride"], entry["padding"]
    padded = np.pad(x, ((0, 0), (high, high), (wide, wide)))
    rows, columns = weight.shape[2:]
    size = (padded.shape[1] - rows) // down + 1, (padded.shape[2] - columns) // right + 1
    out = np.empty((len(weight), *size))
    for i, j in np.ndindex(size):
        part = padded[:, i * down : i * down + rows, j * right : j * right + columns]
        out[:, i, j] = np.einsum("oirc,irc->o", weight, part)
    return out + entry["bias"][:, None, None]


def entry_of(kind, rng, inputs) -> Any:
    if kind == "Conv2d":
        more = {"stride": np.array([2, 1]), "padding": np.array([1, 1]), "dilation": 1, "groups": 1}
        shape = (3, inputs, 2, 3)
        more["input_shape"] = np.array([5, 4])
    else:
        shape, more = (3, inputs), {}
    bias = {} if kind == "Linear" else {"bias": rng.normal(size=3)}
    return {"type": kind, "weight": rng.normal(size=shape), **bias, **more}


@pytest.mark.parametrize("wanted", [None, 1.5])
@pytest.mark.parametrize("amplitude", [None, 0.7])
@pytest.mark.parametrize(
    ("kind", "space"),
    [("Affine", None), ("Linear", None), ("Affine", (2, 5)), ("Linear", (2, 5)), ("Conv2d", None)],
)
def test_a_constant_input_stands_for_the_bias(kind, space, amplitude, wanted):
    """Of a Flatten before it the order is height, width, channel, of three channels and one more."""
    rng, channels = np.random.default_rng(1), 3
    inputs = channels * int(np.prod(space or (1,)))
    entry = entry_of(kind, rng, inputs)
    found = spyx._widened("n", entry, amplitude, wanted, space)
    x = rng.normal(size=(inputs, 5, 4) if kind == "Conv2d" else inputs)
    more = x
    if amplitude is not None:
        if space:
            last = np.full((*space, 1), amplitude)
            more = np.concatenate([x.reshape(*space, channels), last], axis=-1).ravel()
        else:
            more = np.concatenate([x, np.full((1, *x.shape[1:]), amplitude)])
        assert not np.any(found["bias"])
    if kind == "Conv2d":
        before, after = convolved(entry, x), convolved(found, more)
    else:
        before = entry["weight"] @ x + entry.get("bias", 0)
        after = found["weight"] @ more + found["bias"]
    expected = before
    if wanted is not None:
        expected = np.concatenate([before, np.full((1, *before.shape[1:]), wanted)])
    np.testing.assert_allclose(after, expected, rtol=1e-12)
    assert found["type"] == ("Conv2d" if kind == "Conv2d" else "Affine")


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
        ({"stride": (1, 1), "padding": (1, 0)}, True),  # rows 0 to 5 of outputs, of 5
        ({"stride": (1, 1), "padding": (0, 2)}, True),
        ({"stride": (1, 1), "padding": (0, 1)}, False),
        ({"stride": (2, 1), "padding": (1, 0)}, False),
    ],
)
def test_outputs_beyond_the_last_input(changes, beyond):
    assert spyx._outgrows("n", frame(**changes)) is beyond


def test_the_kernel_must_hold_the_bias():
    assert_refused(
        lambda: spyx._widened("n", frame(padding=(2, 0)), 1.0, None, None),
        ConversionError,
        "'n' pads by more than its kernel",
    )
    assert_refused(
        lambda: spyx._widened("n", frame(stride=(1, 1), padding=(1, 0)), 1.0, None, None),
        ConversionError,
        "'n' pads so far that a constant input does not",
    )
    kept = spyx._widened("n", frame(stride=(1, 1), padding=(1, 0)), None, None, None)
    assert kept["weight"].shape == (1, 2, 2, 3)


@pytest.mark.parametrize("kind", ["LIF", "IF", "CubaLIF"])
def test_a_neuron_that_fires_in_each_step(kind):
    """As the others of its layer are written: it keeps half of its membrane, an IF all of it."""
    names = ("tau", "tau_mem", "tau_syn", "r", "w_in", "v_leak", "v_threshold", "v_reset")
    entry = {"type": kind} | {name: np.full((2, 3), 7.0) for name in names}
    found = spyx._with_constant_neuron(entry, 0.25)
    wanted = dict(zip(names, (0.5, 0.5, 0.25, 0.5, 1, 0, 1, 0), strict=True))
    wanted["r"] = 1 if kind == "IF" else 0.5
    for name, value in wanted.items():
        assert found[name].shape == (3, 3)
        np.testing.assert_array_equal(found[name][:2], 7)
        np.testing.assert_array_equal(found[name][2], value, err_msg=name)
    assert found["type"] == kind


# ---- neurons without a leak beside others, of which dt = tau (1 - r) is 0


@pytest.mark.parametrize("case", MIXED_DECAYS)
@pytest.mark.parametrize("dialect", ["auto", "spyx"])
def test_what_is_written_for_spyx_is_read_again(case, dialect, tmp_path):
    graph = mixed_decays(case)
    made = convert(graph, to="spyx", approximate=True)
    assert not made.losses or case.startswith("CubaLIF 0")
    write(tmp_path / "made.nir", made.graph)
    again = read(tmp_path / "made.nir", dialect=dialect)
    assert again.dialect.name == "spyx"
    assert again.dialect.dt == pytest.approx(1e-4)
    x = random_raster(1, (60, 8, 4), 0.5).astype(np.float32)
    source, meant, ours = (
        np.asarray(simulate(lower(each), x, engine=TimeStepped()).output())
        for each in (graph, made.graph, again)
    )
    assert meant.any(axis=(0, 1)).all()
    np.testing.assert_array_equal(ours, meant)
    if not made.losses:
        np.testing.assert_array_equal(ours[1:], source[:-1])  # Spyx's spikes leave a step late


@pytest.mark.parametrize("kind", ["LIF", "CubaLIF"])
def test_dt_is_that_of_the_neurons_with_a_leak(kind):
    """r is beta. Where 1 - dt/tau rounds to 1, r = 1 says nothing of dt; else it contradicts it."""

    def read_as_spyx(tau, r):
        if kind == "LIF":
            neurons = build.lif(3, tau=tau, r=r)
        else:
            neurons = build.cubalif(3, tau_mem=tau, tau_syn=3e-4, r=r)
        return build.sequential(build.input(3), neurons, dialect="spyx").dialect.dt

    for long in (1e8, 1e4, np.inf):
        assert read_as_spyx([1e-4, 2e-4, long], [0.0, 0.5, 1.0]) == pytest.approx(1e-4)
        assert read_as_spyx([long, long, 4e-4], [1.0, 1.0, 0.75]) == pytest.approx(1e-4)
    for broken in ([1e-4, 2e-4, 1.0], [1e-4, 2e-4, 1e-4]):
        with pytest.raises(DialectError, match="dt = 0"):
            read_as_spyx(broken, [0.0, 0.5, 1.0])
    # r = 1 at all neurons is what others write
    for others in ([1e-2, 2e-2, 3e-2], [10.0, 10.0, 10.0], [5e3, 5e3, 5e3]):
        with pytest.raises(DialectError, match="dt = 0"):
            read_as_spyx(others, 1.0)
