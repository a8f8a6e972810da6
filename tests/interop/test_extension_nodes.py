"""Node types that NIR does not have: the time-stepped engine computes what the frameworks compute, and
gradients are theirs; files mark the types, and nothing else takes them.
"""

import jax
import jax.numpy as jnp
import nir
import norse.torch as norse
import numpy as np
import pytest
import snntorch as snn
import torch
from snntorch import utils
from torch import nn

from jaxsnn import (
    ApproximationWarning,
    TimeStepped,
    check,
    convert,
    from_torch,
    load_into,
    lower,
    simulate,
    to_torch,
    update_graph,
)
from jaxsnn.errors import ConversionError, GraphError, LoweringError
from jaxsnn.nir import build, read, write
from jaxsnn.nir.frameworks.registry import framework_of, writable
from jaxsnn.nir.graphs.export import export
from jaxsnn.nir.model.extension_nodes import EXTENSIONS
from jaxsnn.train import fit
from tests.helpers.refusals import assert_refused
from tests.interop import nets
from tests.interop.modules import assert_loads, body, leaky
from tests.interop.players import stepped

pytestmark = pytest.mark.interop
INPUTS, HIDDEN, OUTPUTS = 5, 6, 4


@pytest.fixture(autouse=True)
def seeded_layers():
    """Draw the same layers of torch whichever tests ran before."""
    torch.manual_seed(2)


def alpha(reset, alpha=0.9, beta=0.6, **options):
    return snn.Alpha(alpha=alpha, beta=beta, reset_mechanism=reset, init_hidden=True, **options)


def dense(*between, seed=0, out=None):
    """A layer, what is tested, and a layer of Leaky neurons."""
    layers = (nn.Linear(INPUTS, HIDDEN), *between)
    return body(*layers, nn.Linear(HIDDEN, OUTPUTS), out or leaky(), seed=seed)


def image(*between, seed=0):
    """The same of images of 7 x 7."""
    first = (nn.Conv2d(1, 2, 3), *between, nn.Flatten())
    size = nn.Sequential(*first)(torch.zeros(1, 1, 7, 7)).shape[1]
    return body(*first, nn.Linear(size, OUTPUTS), leaky(), seed=seed)


def signal(*between, seed=0):
    """A convolutional network for signals of length 9."""
    first = (nn.Conv1d(1, 2, 3), *between, nn.Flatten())
    size = nn.Sequential(*first)(torch.zeros(1, 1, 9)).shape[1]
    return body(*first, nn.Linear(size, OUTPUTS), leaky(), seed=seed)


def norm(shape, **options):
    """A LayerNorm whose numbers are not the initial ones."""
    layer = nn.LayerNorm(shape, **options)
    for parameter in layer.parameters():
        nn.init.uniform_(parameter, 0.2, 1.2)
    return layer


def plainly_normalised():
    net = dense(norm(HIDDEN), leaky())
    net[1] = nn.LayerNorm(HIDDEN, elementwise_affine=False)
    return net


def different(*, seed=3):
    """Decays and thresholds that differ from neuron to neuron."""
    rng = np.random.default_rng(seed)
    decays = (torch.tensor(rng.uniform(*ends, HIDDEN), dtype=torch.float32) for ends in _ENDS)
    return dict(zip(("alpha", "beta", "threshold"), decays, strict=True))


_ENDS = ((0.8, 0.95), (0.3, 0.7), (0.5, 1.5))

SNNTORCH = {
    "max pool": (lambda: image(nn.MaxPool2d(2), leaky()), (1, 7, 7), ["MaxPool2d"]),
    "max pool, padded": (
        lambda: image(nn.MaxPool2d(3, stride=2, padding=1), leaky()),
        (1, 7, 7),
        ["MaxPool2d"],
    ),
    "max pool of sums": (
        lambda: image(nn.BatchNorm2d(2), nn.MaxPool2d((1, 2)), nn.Dropout2d(0.5), leaky()),
        (1, 7, 7),
        ["MaxPool2d"],
    ),
    "max pool of a signal": (
        lambda: signal(nn.MaxPool1d(3, stride=2, padding=1), leaky(), seed=1),
        (1, 9),
        ["MaxPool1d"],
    ),
    "max pool of features": (
        lambda: body(nn.Linear(INPUTS, HIDDEN), nn.MaxPool1d(2), leaky(), nn.MaxPool1d(2, stride=1),
                     nn.Linear(HIDDEN // 2 - 1, OUTPUTS), leaky(), seed=4),
        (INPUTS,),
        ["MaxPool1d"],
    ),
    "relu": (lambda: dense(nn.ReLU(), leaky()), (INPUTS,), ["ReLU"]),
    "relu of an image": (lambda: image(nn.ReLU(), nn.MaxPool2d(2), leaky()), (1, 7, 7), ["MaxPool2d", "ReLU"]),
    "layer norm": (lambda: dense(norm(HIDDEN), leaky()), (INPUTS,), ["LayerNorm"]),
    "layer norm of pixels": (
        lambda: image(norm((5, 5), eps=1e-2), leaky()),
        (1, 7, 7),
        ["LayerNorm"],
    ),
    "layer norm without numbers": (
        lambda: plainly_normalised(),
        (INPUTS,),
        ["LayerNorm"],
    ),
    "alpha": (lambda: dense(alpha("zero")), (INPUTS,), ["Alpha"]),
    "alpha that subtracts": (lambda: dense(alpha("subtract")), (INPUTS,), ["Alpha"]),
    "alpha of several decays": (
        lambda: dense(alpha("zero", **different())),
        (INPUTS,),
        ["Alpha"],
    ),
    "alpha at the end": (lambda: dense(leaky(), out=alpha("zero")), (INPUTS,), ["Alpha"]),
    "alpha behind an image": (lambda: image(nn.ReLU(), alpha("zero")), (1, 7, 7), ["Alpha", "ReLU"]),
}  # fmt: skip


class Refractory(nn.Module):
    """Cells of Norse that stand still after a spike."""

    def __init__(self, seed=0, rho=2.0, v_leak=0.1, v_reset=-0.1, v_th=0.3):
        super().__init__()
        lif = norse.LIFParameters(
            tau_mem_inv=torch.as_tensor(150.0),
            v_leak=torch.as_tensor(v_leak),
            v_th=torch.as_tensor(v_th),
            v_reset=torch.as_tensor(v_reset),
        )
        p = norse.LIFRefracParameters(lif=lif, rho_reset=torch.as_tensor(rho))
        layers = body(nn.Linear(INPUTS, HIDDEN), nn.Linear(HIDDEN, OUTPUTS), seed=seed)
        self.fc1, self.fc2 = layers
        self.lif1, self.lif2 = norse.LIFRefracCell(p), norse.LIFRefracCell(p)

    def forward(self, x, first=None, second=None):
        z, first = self.lif1(self.fc1(x), first)
        z, second = self.lif2(self.fc2(z), second)
        return z, first, second


def recorded(graph, x, **options):
    engine = TimeStepped(record=True, **options)
    return simulate(lower(graph, dtype=np.float32), x, engine=engine)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("case", SNNTORCH)
def test_spikes_and_membranes_of_snntorch(case, seed):
    make, shape, expected_types = SNNTORCH[case]
    torch.manual_seed(seed)
    net = make()
    x = np.random.default_rng(seed).normal(0.5, 1.0, (40, 3, *shape)).astype(np.float32)
    graph = from_torch(net, torch.zeros(1, *shape))
    types = {node.type for node in graph.nodes.values()}
    assert sorted(types & set(EXTENSIONS)) == expected_types
    ours = recorded(graph, x)
    spikes, membranes = {}, {}
    utils.reset(net)
    for name, layer in net.named_children():
        if isinstance(layer, snn.SpikingNeuron):
            spikes[name], membranes[name] = [], []
    with torch.no_grad():
        for frame in torch.tensor(x):
            signal = frame
            for name, layer in net.named_children():
                signal = layer(signal)
                if name in spikes:
                    spikes[name].append(signal.numpy())
                    membranes[name].append(layer.mem.numpy())
    for name in spikes:
        raster = np.stack(spikes[name])
        assert 0.01 < raster.mean() < 0.95, name
        np.testing.assert_array_equal(np.asarray(ours.spikes[name]), raster)
        np.testing.assert_allclose(
            np.asarray(ours.voltages[name]), np.stack(membranes[name]), rtol=1e-5, atol=1e-5
        )


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("rho", [0.0, 1.0, 2.5, 5.0])
def test_spikes_and_membranes_of_norse(rho, seed):
    net = Refractory(seed, rho=rho)
    x = np.random.default_rng(seed).uniform(0, 2, (40, 3, INPUTS)).astype(np.float32)
    graph = from_torch(net, torch.zeros(1, INPUTS))
    assert graph.nodes["lif1"].type == "LIFRefrac"
    ours = recorded(graph, x)
    states, spikes, membranes = (), [], []
    with torch.no_grad():
        for frame in torch.tensor(x):
            z, *states = net(frame, *states)
            spikes.append(z.numpy())
            membranes.append([state.lif.v.numpy() for state in states])
    raster = np.stack(spikes)
    assert 0.01 < raster.mean() < 0.95
    np.testing.assert_array_equal(np.asarray(ours.spikes["lif2"]), raster)
    for place, name in enumerate(("lif1", "lif2")):
        theirs = np.stack([step[place] for step in membranes])
        np.testing.assert_allclose(np.asarray(ours.voltages[name]), theirs, rtol=1e-5, atol=1e-5)


# -- gradients


def by_weights(graph, x, weights, **options):
    """The derivative of sum(weights * spikes) by the parameters of the graph's nodes."""
    network = lower(graph, dtype=np.float32)

    def total(parameters):
        solution = simulate(
            network.with_parameters(parameters), x, engine=TimeStepped(**options), throw=False
        )
        return jnp.sum(solution.output() * weights)

    return jax.grad(total)(network.parameters)


def assert_gradients(gradients, net, places):
    for layer, key in places:
        theirs = getattr(net.get_submodule(layer), key).grad.numpy()
        ours = np.asarray(gradients[layer][key]).reshape(theirs.shape)
        assert np.abs(theirs).max() > 0
        np.testing.assert_allclose(ours, theirs, rtol=2e-3, atol=2e-3 * np.abs(theirs).max())


@pytest.mark.parametrize(
    ("make", "shape", "places"),
    [
        (lambda: dense(nn.ReLU(), leaky()), (INPUTS,), [("0", "weight"), ("3", "weight")]),
        (
            lambda: dense(norm(HIDDEN), leaky()),
            (INPUTS,),
            [("0", "weight"), ("1", "weight"), ("1", "bias")],
        ),
        (lambda: image(nn.MaxPool2d(2), leaky()), (1, 7, 7), [("0", "weight"), ("0", "bias")]),
        (lambda: dense(alpha("zero")), (INPUTS,), [("0", "weight"), ("2", "bias")]),
        (lambda: dense(alpha("subtract")), (INPUTS,), [("0", "weight"), ("2", "bias")]),
    ],
)
def test_gradients_are_those_of_snntorch(make, shape, places):
    torch.manual_seed(1)
    net = make()
    rng = np.random.default_rng(2)
    x = rng.uniform(0, 1, (15, 2, *shape)).astype(np.float32)
    weights = rng.normal(size=(15, 2, OUTPUTS)).astype(np.float32)
    gradients = by_weights(from_torch(net, torch.zeros(1, *shape)), x, weights)
    utils.reset(net)
    spikes = torch.stack([net(frame) for frame in torch.tensor(x)])
    (spikes * torch.tensor(weights)).sum().backward()
    assert_gradients(gradients, net, places)


def test_gradients_are_those_of_norse():
    net = Refractory(1)
    rng = np.random.default_rng(2)
    x = rng.uniform(0, 2, (15, 2, INPUTS)).astype(np.float32)
    weights = rng.normal(size=(15, 2, OUTPUTS)).astype(np.float32)
    gradients = by_weights(from_torch(net, torch.zeros(1, INPUTS)), x, weights)
    states, spikes = (), []
    for frame in torch.tensor(x):
        z, *states = net(frame, *states)
        spikes.append(z)
    (torch.stack(spikes) * torch.tensor(weights)).sum().backward()
    assert_gradients(gradients, net, [("fc1", "weight"), ("fc2", "weight"), ("fc2", "bias")])


def test_a_gradient_of_values_is_that_of_finite_differences(x64):
    """Without spikes nothing is a surrogate: layers of values into a readout that never resets."""
    layers = (
        build.input(INPUTS),
        build.linear(HIDDEN),
        build.node("LayerNorm", weight=np.linspace(0.5, 1.5, HIDDEN), bias=np.zeros(HIDDEN), epsilon=1e-3),
        build.node("ReLU"),
        build.linear(OUTPUTS),
        build.li(tau=1e-2),
    )  # fmt: skip
    graph = build.sequential(*layers, seed=0, dialect="norse==main", dt="1ms")
    network = lower(graph, dtype=np.float64)
    x = np.random.default_rng(0).uniform(0, 1, (10, 2, INPUTS))

    def total(weight):
        parameters = {**network.parameters, "1": {**network.parameters["1"], "weight": weight}}
        solution = simulate(
            network.with_parameters(parameters), x, engine=TimeStepped(), throw=False
        )
        return jnp.sum(solution.output() ** 2)

    weight = network.parameters["1"]["weight"]
    gradient = np.asarray(jax.grad(total)(weight))
    step = 1e-6
    for place in np.ndindex(*weight.shape):
        moved = np.zeros(weight.shape)
        moved[place] = step
        numeric = (total(weight + moved) - total(weight - moved)) / (2 * step)
        np.testing.assert_allclose(gradient[place], numeric, rtol=1e-5, atol=1e-7)


# -- files, and export to PyTorch


def graphs():
    """A graph of each extension."""
    pools = "max pool", "max pool of features"
    for case in (*pools, "relu", "layer norm", "alpha", "alpha that subtracts"):
        make, shape, _ = SNNTORCH[case]
        torch.manual_seed(0)
        net = make()
        yield from_torch(net, torch.zeros(1, *shape)), shape
    yield from_torch(Refractory(), torch.zeros(1, INPUTS)), (INPUTS,)


def test_files_mark_the_extensions_and_are_read_bit_for_bit(tmp_path):
    for graph, _ in graphs():
        write(tmp_path / "a.nir", graph, force=True)
        again = read(tmp_path / "a.nir")
        write(tmp_path / "b.nir", again, force=True)
        assert (tmp_path / "a.nir").read_bytes() == (tmp_path / "b.nir").read_bytes()
        assert again.dialect.name == graph.dialect.name
        marks = {
            name: str(np.asarray(node.metadata["extension"]))
            for name, node in again.nodes.items()
            if "extension" in node.metadata
        }
        expected = {name for name, node in graph.nodes.items() if node.type in EXTENSIONS}
        assert set(marks) == expected
        assert all("jaxsnn" in mark for mark in marks.values())
        with pytest.raises((AssertionError, KeyError, ValueError)):
            nir.read(tmp_path / "a.nir")


def test_nothing_but_the_time_stepped_engine_takes_them():
    for graph, _ in graphs():
        name, kind = next(
            (name, node.type) for name, node in graph.nodes.items() if node.type in EXTENSIONS
        )
        assert not [p for p in check(graph, "grid").problems if p.severity == "error"]
        problems = {p.node: p for p in check(graph, "event").problems if p.severity == "error"}
        assert problems[name].code == "unsupported-node"
        assert "simulate with engine=TimeStepped()" in problems[name].fix
        problem = next(p for p in check(graph, "bss2").problems if kind in p.message)
        assert (problem.node, problem.severity) == (name, "error")
        with pytest.raises(GraphError, match="which the nir package does not have"):
            export(graph)


@pytest.mark.parametrize(
    ("case", "kind", "alternative"),
    [
        ("max pool", "MaxPool2d", "pool the spikes after the neurons"),
        ("relu", "ReLU", "spiking neurons"),
        ("layer norm", "LayerNorm", "BatchNorm"),
        ("alpha", "Alpha", "CubaLIF"),
        ("refractory", "LIFRefrac", "CubaLIF"),
    ],
)
@pytest.mark.parametrize("target", writable())
def test_every_converter_refuses_extension_nodes_by_name(target, case, kind, alternative):
    make, shape, _ = SNNTORCH.get(case, (Refractory, (INPUTS,), []))
    torch.manual_seed(0)
    graph = from_torch(make(), torch.zeros(1, *shape))
    extensions = [name for name, node in graph.nodes.items() if node.type in EXTENSIONS]
    for approximate in (False, True):
        with pytest.raises(ConversionError) as refusal:
            convert(graph, to=target, approximate=approximate)
        problems = [refusal.value.problem, *refusal.value.others]
        assert [problem.node for problem in problems] == extensions
        for problem in problems:
            assert f"node '{problem.node}' is a {kind}, which is an extension" in problem.message
            assert problem.message.startswith(
                f"{framework_of(target).title} cannot load this graph"
            )
            assert alternative in problem.fix
            assert "jaxsnn.to_torch" in problem.fix


def test_continuous_time_has_no_height_of_spikes():
    neurons = build.cubalif(tau_mem="10ms", tau_syn="5ms")
    layers = (build.input(3), build.node("ReLU"), build.linear(2), neurons)
    graph = build.sequential(*layers, seed=0, dialect="nir", time_unit="s", dt="1ms", reset="zero")
    x = np.ones((5, 1, 3), np.float32)
    engine = TimeStepped()
    assert_refused(
        lambda: simulate(lower(graph), x, engine=engine),
        LoweringError,
        r"\(ReLU\) receives spikes, .* in continuous time",
        node="1",
        code="spikes-at-threshold",
        fix="dialect=",
    )


def test_to_torch_computes_the_same_and_comes_back():
    for graph, shape in graphs():
        x = np.random.default_rng(0).uniform(0, 1.5, (30, 2, *shape)).astype(np.float32)
        module = to_torch(graph)
        ours = np.asarray(recorded(graph, x).output())
        assert ours.any()
        np.testing.assert_array_equal(stepped(module, x).reshape(ours.shape), ours)
        again = from_torch(module, torch.zeros(1, *shape))
        assert {n: v.type for n, v in again.nodes.items()} == {
            n: v.type for n, v in graph.nodes.items()
        }


@pytest.mark.parametrize("case", ["layer norm", "alpha of several decays", "alpha that subtracts"])
def test_numbers_go_back_into_layers_of_snntorch(case):
    make, shape, _ = SNNTORCH[case]
    net = make()
    graph = from_torch(net, torch.zeros(1, *shape))
    node = next(node for node in graph.nodes.values() if node.type in EXTENSIONS)
    changes = {key: node.value(key) * 0.97 for key in node.names if key != "epsilon"}
    changed = graph.with_nodes([node.replace(**changes)])
    x = np.random.default_rng(1).normal(0.5, 1, (40, 3, *shape)).astype(np.float32)
    expected = np.asarray(recorded(changed, x).output())
    assert not np.array_equal(nets.snntorch_play(net, x), expected)
    assert_loads(net, changed, x, expected)


@pytest.mark.parametrize(
    "make", [Refractory, SNNTORCH["alpha"][0], SNNTORCH["layer norm"][0], SNNTORCH["relu"][0]]
)
def test_networks_are_trained_in_time_steps_and_put_back(make):
    net = make()
    graph = from_torch(net, torch.zeros(1, INPUTS))
    rng = np.random.default_rng(0)
    data = (rng.uniform(0, 1, (40, INPUTS)), rng.integers(0, OUTPUTS, 40))
    trained = fit(graph, data, engine="grid", epochs=2, progress=None)
    losses = [epoch.validation_loss for epoch in trained.history]
    assert np.isfinite(losses).all()
    assert len(set(losses)) > 1
    assert load_into(net, trained.graph).numbers


def test_the_step_of_snntorch_is_assumed_where_alpha_alone_fires():
    net = dense(alpha("zero"), out=alpha("zero"))
    with pytest.warns(ApproximationWarning, match="dt = 100 us is assumed"):
        graph = from_torch(net, torch.zeros(1, INPUTS))
    assert graph.dialect.dt == 1e-4
    rng = np.random.default_rng(0)
    data = (rng.uniform(0, 1, (40, INPUTS)), rng.integers(0, OUTPUTS, 40))
    assert fit(graph, data, engine="grid", epochs=1, progress=None).settings["loss"][
        "tau"
    ] == pytest.approx(1e-3)


def test_changed_numbers_of_a_network_go_back_into_the_graph():
    for graph, _ in graphs():
        network = lower(graph)
        for name, node in graph.nodes.items():
            if node.type not in EXTENSIONS or not network.parameters.get(name):
                continue
            changed_values = {
                key: value * 1.5 if key != "beta" else value
                for key, value in network.parameters[name].items()
                if key not in ("alpha",)
            }
            changed = {**network.parameters, name: {**network.parameters[name], **changed_values}}
            after = update_graph(graph, network.with_parameters(changed)).nodes[name]
            for key in changed_values:
                factor = 1.0 if key == "beta" else 1.5
                np.testing.assert_allclose(after.value(key), factor * node.value(key), rtol=1e-6)


# -- transposed convolutions, which NIR can express


TRANSPOSED = {
    "stride": lambda: nn.ConvTranspose2d(2, 3, 3, stride=2),
    "output padding": lambda: nn.ConvTranspose2d(2, 3, 3, stride=2, padding=1, output_padding=1),
    "no stride": lambda: nn.ConvTranspose2d(2, 3, 2, padding=1),
    "dilation": lambda: nn.ConvTranspose2d(2, 4, (2, 3), stride=(1, 2), dilation=(2, 1), bias=False),
    "groups": lambda: nn.ConvTranspose2d(2, 4, 3, stride=3, groups=2),
}  # fmt: skip


@pytest.mark.parametrize("case", TRANSPOSED)
def test_a_transposed_convolution_is_read_converted_and_set(case, tmp_path):
    options = {"reset_mechanism": "zero", "reset_delay": False}

    def make(seed):
        layers = (nn.Conv2d(1, 2, 3), leaky(**options), TRANSPOSED[case](), leaky(**options))
        return body(*layers, seed=seed)

    first, second, shape = make(1), make(2), (1, 5, 6)
    graph = from_torch(first, torch.zeros(1, *shape))
    assert {node.type for node in graph.nodes.values()} == {"Input", "Conv2d", "LIF", "Output"}
    x = (np.random.default_rng(0).random((30, 2, *shape)) < 0.5).astype(np.float32)
    y = nets.snntorch_play(first, x)
    assert 0.02 < y.mean() < 0.98
    ours = np.asarray(recorded(graph, x).output())
    np.testing.assert_array_equal(ours, y)
    assert not np.array_equal(nets.snntorch_play(second, x), y)
    assert_loads(second, graph, x, y)
    converted = convert(graph, to="spikingjelly").graph
    same = np.asarray(recorded(converted, x).output())
    np.testing.assert_array_equal(same.reshape(y.shape), y)


def test_a_transposed_convolution_along_one_axis():
    layers = (
        nn.ConvTranspose1d(1, 2, 3, stride=2),
        leaky(),
        nn.Flatten(),
        nn.Linear(18, 3),
        leaky(),
    )
    net = body(*layers)
    x = (np.random.default_rng(0).random((30, 2, 1, 4)) < 0.5).astype(np.float32)
    graph = from_torch(net, torch.zeros(1, 1, 4))
    np.testing.assert_array_equal(
        np.asarray(recorded(graph, x).output()), nets.snntorch_play(net, x)
    )


def test_a_padding_beyond_the_kernel_is_refused():
    net = body(leaky(), nn.ConvTranspose2d(1, 1, 2, stride=2, padding=2), leaky())
    assert_refused(
        lambda: from_torch(net, torch.zeros(1, 1, 4, 4)),
        ConversionError,
        r"'1' \(ConvTranspose2d\) has a padding of \(2, 2\), beyond its kernel",
    )
