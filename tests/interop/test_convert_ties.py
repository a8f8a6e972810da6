"""Sums of weights that meet a threshold exactly, in networks that Norse's importer plays.

Whole and half weights make such sums frequent: the membrane is at its threshold after a reset to 0, or in
the first steps. Sources that fire above it must not fire there, others must.
"""

import numpy as np
import pytest
import torch

from jaxsnn import from_torch
from jaxsnn.nir import build
from jaxsnn.nir.convert.pipeline import convert
from jaxsnn.nir.model.graph import Graph
from tests.interop import nets
from tests.interop.players import compare, import_and_play, run_in_steps, shift_of

pytestmark = pytest.mark.interop
DT = 1e-4
FRAMEWORKS = ("snntorch", "spyx", "spikingjelly")
RESET = {"reset": "subtract", "reset_delay": True}
DIALECTS = {
    "snntorch": {"dialect": "snntorch"},
    "spyx": {"dialect": "spyx", "time_unit": "s", "dt": DT},
    "spikingjelly": {"dialect": "spikingjelly", "dt": DT},
}


def norse_trains(graph: Graph, x: np.ndarray, y: np.ndarray, path) -> tuple[int, int, tuple]:
    """Return the trains that Norse fires as the source does, all trains, and the notes."""
    conversion, spikes = import_and_play(graph, "norse", x, path)
    identical, trains, active = compare(y, spikes, shift_of(conversion))
    assert active >= trains / 4
    return identical, trains, conversion.notes


def leaky(framework: str, beta: float, v_threshold):
    """Neurons as a framework writes them."""
    rest = 1 - float(np.float32(beta))
    r = {"spyx": beta, "spikingjelly": 1 / rest, "snntorch": 1 / rest}[framework]
    return build.lif(tau=DT / rest, r=r, v_threshold=v_threshold)


def drawn_weights(rng: np.random.Generator, kind: str, *shape: int) -> np.ndarray:
    """Return weights of whole numbers, of halves, or of real numbers."""
    if kind == "whole":
        return rng.integers(-2, 4, shape).astype(np.float32)
    if kind == "half":
        return (rng.integers(-3, 5, shape) / 2).astype(np.float32)
    return rng.normal(0.2, 1.0, shape).astype(np.float32)


@pytest.mark.parametrize("reset", ["subtract", "zero"])
@pytest.mark.parametrize("beta", [0.5, 0.75, 0.85, 0.9])
def test_whole_weights_beside_real_recurrent_ones_of_snntorch(beta, reset, tmp_path):
    import snntorch

    for seed in range(3):
        rng = np.random.default_rng(seed)
        torch.manual_seed(seed)
        linear = torch.nn.Linear(5, 16, bias=False)
        with torch.no_grad():
            linear.weight.copy_(torch.tensor(drawn_weights(rng, "whole", 16, 5)))
        neurons = snntorch.RLeaky(
            beta=beta, linear_features=16, reset_mechanism=reset, init_hidden=True
        )
        net = torch.nn.Sequential(linear, neurons)
        x = nets.spikes(seed, batch=4)
        graph = from_torch(net, torch.zeros(1, 5))
        identical, trains, notes = norse_trains(
            graph, x, nets.snntorch_play(net, x), tmp_path / "a.nir"
        )
        assert identical == trains
        # Decays with few binary digits are exact; for others, a note reports the rounding.
        assert any("v_threshold = 1" in note for note in notes) is (beta in (0.85, 0.9))


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize("beta", [0.5, 0.75, 0.85, 0.9])
def test_a_recurrent_layer_behind_a_convolution(beta, framework, tmp_path):
    for seed in range(2):
        rng = np.random.default_rng(seed)
        kernel = {"stride": 2, "padding": 1, "dilation": 1, "groups": 1, "bias": np.zeros(3)}
        weight = drawn_weights(rng, "whole", 3, 1, 3, 3)
        nodes = {
            "input": build.input((1, 6, 6)),
            "conv": build.node("Conv2d", weight=weight, **kernel),
            "first": leaky(framework, beta, 1.0),
            "flat": build.node("Flatten", start_dim=0, end_dim=-1),
            "w": build.linear(weight=drawn_weights(rng, "half", 8, 27)),
            "last": leaky(framework, beta, 1.5),
            "loop": build.linear(weight=drawn_weights(rng, "half", 8, 8)),
            "output": build.output(),
        }
        ways = [("input", "conv", "first", "flat", "w", "last", "output"), ("last", "loop", "last")]
        options = DIALECTS[framework] | (RESET if framework == "snntorch" else {})
        graph = build.network(nodes, ways, **options)
        x = nets.spikes(seed, (1, 6, 6), batch=4)
        identical, trains, _ = norse_trains(graph, x, run_in_steps(graph, x), tmp_path / "a.nir")
        assert identical == trains


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize("kinds", [("whole", "half"), ("whole", "real"), ("half", "half")])
@pytest.mark.parametrize("beta", [0.5, 0.75, 0.85, 0.9])
def test_layers_of_several_thresholds(beta, kinds, framework, tmp_path):
    for seed, (reset, delay) in enumerate([("subtract", True), ("zero", True), ("zero", False)]):
        rng = np.random.default_rng(seed)
        nodes = {
            "input": build.input(5),
            "w": build.affine(weight=drawn_weights(rng, kinds[0], 12, 5), bias=0.25),
            "a": leaky(framework, beta, np.tile([0.5, 1.0, 1.5, 3.0], 3)),
            "v": build.linear(weight=drawn_weights(rng, kinds[1], 8, 12)),
            "b": leaky(framework, beta, 2.0),
            "loop": build.linear(weight=drawn_weights(rng, kinds[0], 8, 8) / 2),
            "output": build.output(),
        }
        ways = [("input", "w", "a", "v", "b", "output"), ("b", "loop", "b")]
        options = {"reset": reset, "reset_delay": delay} if framework == "snntorch" else {}
        graph = build.network(nodes, ways, **DIALECTS[framework], **options)
        x = nets.spikes(seed, batch=4)
        identical, trains, notes = norse_trains(
            graph, x, run_in_steps(graph, x), tmp_path / "a.nir"
        )
        assert identical == trains or any(note.startswith("node 'a'") for note in notes)
        assert identical >= 0.99 * trains


@pytest.mark.parametrize("v_threshold", [1.0, 1.5, 3.0])
def test_several_spikes_in_a_step(v_threshold, tmp_path):
    """A membrane at twice its threshold fires twice, and is at 0 after that."""
    rng = np.random.default_rng(0)
    neurons = build.integrate_and_fire(v_threshold=v_threshold)
    layers = (
        build.linear(weight=drawn_weights(rng, "half", 6, 4)),
        neurons,
        build.linear(weight=drawn_weights(rng, "whole", 4, 6) * v_threshold / 2),
        build.lif(tau=6.0, r=1.0, v_threshold=v_threshold),
    )
    options = {"dialect": "sinabs", "dt": "1ms", "reset": "subtract", "norm_input": False}
    graph = build.sequential(build.input(4), *layers, **options)
    x = nets.spikes(1, (4,), batch=6)
    y = run_in_steps(graph, x)
    assert y.max() > 1, "no neuron fires twice in a step"
    identical, trains, _ = norse_trains(graph, x, y, tmp_path / "a.nir")
    assert identical == trains


def test_it_is_noted_where_biases_of_a_tenth_add_up_to_a_threshold(tmp_path):
    """0.1 added ten times is less than 1 in one order of operations, and more in another."""
    rng = np.random.default_rng(0)
    layers = (
        build.affine(weight=drawn_weights(rng, "whole", 12, 5), bias=np.full(12, 0.1)),
        build.integrate_and_fire(v_threshold=1.0),
    )
    options = {"dialect": "sinabs", "dt": "1ms", "reset": "subtract", "norm_input": False}
    graph = build.sequential(build.input(5), *layers, **options)
    x = nets.spikes(1, (5,), batch=4)
    identical, trains, notes = norse_trains(graph, x, run_in_steps(graph, x), tmp_path / "a.nir")
    assert identical < trains
    assert any("such as 0.1," in note for note in notes)


@pytest.mark.parametrize(("weight", "reset_size"), [(np.pi / 2, "floor"), (1.5, "rounded-floor")])
def test_membranes_are_rounded_to_thresholds_only_where_sums_may_meet_them(weight, reset_size):
    """A slack moves spikes of membranes that come close to a threshold by chance."""
    layers = build.linear(weight=np.full((3, 2), weight)), build.integrate_and_fire(v_threshold=1.0)
    graph = build.sequential(
        build.input(2), *layers, dialect="sinabs", dt="1ms", reset="subtract", norm_input=False
    )
    converted = convert(graph, to="norse", input_range=(0, 1))
    assert converted.graph.dialect.option("reset_size", "2") == reset_size
