"""load_into: a file's numbers in a module of the user's own, which then fires what the graph does."""

import re

import nir
import numpy as np
import pytest
import torch

from jaxsnn import convert, from_torch, load_into, verify, write
from jaxsnn.errors import ConversionError, DialectError, UsageError
from jaxsnn.nir import build, export
from tests.interop import nets

pytestmark = pytest.mark.interop
PLAYERS = {
    "snntorch": nets.snntorch_play,
    "norse": nets.stateful_play,
    "spikingjelly": nets.spikingjelly_play,
}
CASES = [
    *(("snntorch", kind) for kind in ("synaptic", "rleaky", "conv")),
    *(("norse", kind) for kind in ("lif_v_leak", "cuba_v_leak")),
    *(("spikingjelly", kind) for kind in ("lif", "lif_v_reset", "cuba")),
]
CASES += [
    pytest.param(*case, marks=pytest.mark.slow)
    for case in (("snntorch", "leaky"), ("norse", "if"), ("norse", "conv"), ("spikingjelly", "if"))
]


def made(framework, kind, seed):
    return getattr(nets, f"{framework}_net")(kind, seed)


def trained(graph):
    """The graph with other weights, thresholds and time constants, as training leaves it."""
    rng = np.random.default_rng(0)
    changed = []
    for node in graph.nodes.values():
        keys = [key for key in ("weight", "bias", "v_threshold") if key in node.parameters]
        # Its layers have one number for all neurons.
        alike = graph.dialect.name == "spikingjelly" and node.traits.state
        draw = {
            key: rng.uniform(1.0, 1.3, () if alike else np.shape(node.value(key))) for key in keys
        }
        numbers = {key: (node.value(key) * draw[key]).astype(np.float32) for key in keys}
        if numbers:
            changed.append(node.replace(**numbers))
    return graph.with_nodes(changed)


@pytest.mark.parametrize(("framework", "kind"), CASES)
def test_a_trained_graph_goes_back_into_a_module(framework, kind, tmp_path):
    shape = (1, 8, 8) if kind == "conv" else (5,)
    net = made(framework, kind, 1)
    graph = trained(from_torch(net, torch.zeros(1, *shape)))
    path = tmp_path / "trained.nir"
    write(path, graph)
    other = made(framework, kind, 2)
    first = next(other.parameters())
    found = load_into(other, path)
    assert next(other.parameters()) is first
    assert set(found.nodes) == set(graph.nodes)
    x = nets.spikes(3, shape, steps=60, batch=4)
    y = PLAYERS[framework](other, x)
    assert 0 < y.mean() < 1
    assert verify(graph, x, y).ok
    assert not verify(graph, x, PLAYERS[framework](net, x)).ok


def test_what_a_file_leaves_open_is_said(tmp_path):
    graph = source()
    net, path = Named(), tmp_path / "theirs.nir"
    theirs = export(graph)
    theirs.metadata = {}  # as snnTorch's exporter writes it
    nir.write(path, theirs)
    with pytest.raises(DialectError, match="which the file does not say: say reset="):
        load_into(net, path, dialect="snntorch")
    found = load_into(net, path, dialect="snntorch", reset="subtract", reset_delay=True)
    assert found.nodes["first"] == "0"
    with pytest.raises(UsageError, match="a graph has its dialect, so reset would be ignored"):
        load_into(net, graph, reset="subtract")


def leaky(**options):
    import snntorch

    return snntorch.Leaky(**{"beta": 0.9, "init_hidden": True} | options)


class Named(torch.nn.Module):
    """As a Sequential of the same layers, with names."""

    def __init__(self, hidden=4, **options):
        super().__init__()
        self.first, self.second = torch.nn.Linear(5, hidden), torch.nn.Linear(hidden, 2)
        self.hidden, self.out = leaky(**options), leaky(threshold=0.7)

    def forward(self, x):
        return self.out(self.second(self.hidden(self.first(x))))


def source(**options):
    torch.manual_seed(4)
    net = torch.nn.Sequential(
        torch.nn.Linear(5, 4), leaky(**options), torch.nn.Linear(4, 2), leaky(beta=0.8)
    )
    return from_torch(net, torch.zeros(1, 5))


def test_nodes_of_other_names_are_found_by_their_wires():
    graph, net = source(), Named()
    found = load_into(net, graph)
    assert found.nodes["first"] == "0"
    assert found.nodes["out"] == "3"
    assert float(net.out.beta) == pytest.approx(0.8)
    assert float(net.out.threshold) == 1.0
    np.testing.assert_array_equal(net.second.weight.detach().numpy(), graph.nodes["2"].weight)


@pytest.mark.parametrize(
    ("graph", "net", "message"),
    [
        (source(), Named(hidden=3), r"'first' has weights of the shape \(3, 5\) in the module, and node '0' \(4, 5\)"),
        (source(), torch.nn.Sequential(torch.nn.Linear(5, 4), leaky()), "structures of module and file differ"),
        (source(reset_mechanism="zero"), Named(), "reset of a step is subtract later in the module and value in"),
        (
            source(beta=torch.tensor([0.5, 0.6, 0.7, 0.9])),
            Named(),
            r"beta has the shape \(\) in the module, and node '1' has numbers from 0.5 to 0.9",
        ),
        (
            source(threshold=torch.tensor([0.5, 0.6, 0.7, 0.9])),
            Named(threshold=torch.ones(3)),
            None,
        ),
    ],
)  # fmt: skip
def test_what_does_not_fit_leaves_the_module_as_it_was(graph, net, message):
    before = {name: value.clone() for name, value in net.state_dict().items()}
    if message is None:
        net.hidden.threshold = torch.ones(4) * 2
        net.second = torch.nn.Linear(4, 2, bias=False)
        before = {name: value.clone() for name, value in net.state_dict().items()}
        message = "bias of a step is 0 in the module and"
    with pytest.raises(ConversionError, match=message):
        load_into(net, graph)
    after = net.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(value, after[name]) for name, value in before.items())


def test_a_leaky_readout_and_weights_from_neuron_to_itself():
    import snntorch

    def net(seed):
        torch.manual_seed(seed)
        own = torch.rand(4)
        return torch.nn.Sequential(
            torch.nn.Linear(5, 4),
            snntorch.RLeaky(beta=torch.rand(4), V=own, all_to_all=False, init_hidden=True),
            torch.nn.Linear(4, 2),
            leaky(beta=torch.rand(2), reset_mechanism="none", output=True),
        )

    first, second = net(1), net(2)
    graph = from_torch(first, torch.zeros(1, 5))
    load_into(second, graph)
    x = nets.spikes(3, steps=30, batch=3)
    y = np.stack([second(frame)[1].detach().numpy() for frame in torch.as_tensor(x)])
    assert verify(graph, x, y).ok


def test_batch_normalisation_does_nothing_afterwards():
    def net(seed):
        torch.manual_seed(seed)
        found = torch.nn.Sequential(
            torch.nn.Conv2d(1, 2, 3, bias=False), torch.nn.BatchNorm2d(2), leaky(), torch.nn.Flatten(),
            torch.nn.Linear(32, 3), torch.nn.BatchNorm1d(3), leaky(),
        )  # fmt: skip
        for norm in (found[1], found[5]):
            torch.nn.init.uniform_(norm.running_var, 0.01, 0.1)
            torch.nn.init.uniform_(norm.bias, 0.0, 0.3)
        return found.eval()

    first, second = net(1), net(2)
    graph = from_torch(first, torch.zeros(1, 1, 6, 6))
    found = load_into(second, graph)
    assert [note.partition(" ")[0] for note in found.notes] == ["'1'", "'5'"]
    x = nets.spikes(3, (1, 6, 6), steps=40, batch=3)
    y = nets.snntorch_play(second, x)
    assert 0.02 < y.mean() < 0.98
    assert verify(graph, x, y).ok


def test_norse_lifted_and_recurrent_cells():
    from norse.torch import LICell, LIFParameters, Lift, SequentialState
    from norse.torch.module.lif import LIFRecurrent

    def net(seed):
        torch.manual_seed(seed)
        threshold = torch.tensor(0.1 * seed)
        return SequentialState(
            LIFRecurrent(5, 6, p=LIFParameters(v_th=threshold)), Lift(torch.nn.Linear(6, 2)),
            Lift(LICell()),
        )  # fmt: skip

    first, second = net(1), net(2)
    graph = from_torch(first, torch.zeros(3, 1, 5))
    load_into(second, graph)
    x = nets.spikes(3, steps=30, batch=3)
    with torch.no_grad():
        ((y, _), _) = second(torch.as_tensor(x))
    assert verify(graph, x, y.numpy()).ok
    assert float(LIFParameters().v_th) == 1.0


@pytest.mark.parametrize("framework", ["norse", "spikingjelly", "snntorch"])
def test_numbers_that_no_state_dict_holds_are_named(framework):
    """Norse and SpikingJelly keep time constants and thresholds beside torch's parameters."""
    kind = {"norse": "cuba", "spikingjelly": "lif", "snntorch": "leaky"}[framework]
    net, other = made(framework, kind, 1), made(framework, kind, 1)
    graph = from_torch(net, torch.zeros(1, 5))
    assert load_into(other, graph).notes == ()
    weights = [node.replace(weight=2 * node.value("weight")) for node in graph.nodes.values()
               if "weight" in node.names]  # fmt: skip
    assert load_into(other, graph.with_nodes(weights)).notes == ()
    first = graph.neurons[0]
    node = graph.nodes[first]
    lowered = graph.with_nodes([node.replace(v_threshold=0.6 * node.value("v_threshold"))])
    notes = load_into(other, lowered).notes
    net.load_state_dict(other.state_dict())
    x = nets.spikes(3, steps=60, batch=4)
    assert verify(lowered, x, PLAYERS[framework](net, x)).ok == (notes == ())
    if framework == "snntorch":
        assert notes == ()
        return
    name = {"norse": r"1\.p\.v_th", "spikingjelly": r"1\.v_threshold"}[framework]
    assert re.match(
        rf"state_dict\(\) of the module leaves out '?{name}'?, .* load the file again", notes[0]
    )


def test_a_file_of_another_framework_is_converted_first():
    layers = (build.input(5), build.affine(4), build.lif(tau=1e-2))
    graph = build.sequential(*layers, seed=0, dialect="norse", dt=1e-3, dt_export=1.0)
    options = {"reset_mechanism": "zero", "reset_delay": False}
    net = torch.nn.Sequential(torch.nn.Linear(5, 4), leaky(**options))
    message = "'1' cannot implement node '2': gain of a step is 1 in the module and 0.1 in the file"
    with pytest.raises(ConversionError, match=message):
        load_into(net, graph)
    made = convert(graph, to="snntorch").graph
    load_into(net, made)
    assert float(net[1].beta) == pytest.approx(0.9)
    np.testing.assert_allclose(
        net[0].weight.detach(), np.asarray(made.nodes["1"].weight), rtol=1e-6
    )
