"""load_into: a file's numbers in a module of the user's own, which then fires what the graph does."""

import re

import nir
import numpy as np
import pytest
import torch

from jaxsnn import convert, from_torch, load_into, verify, write
from jaxsnn.errors import ConversionError, DialectError, UsageError
from jaxsnn.nir import build, export
from tests.helpers.refusals import assert_refused
from tests.interop import nets
from tests.interop.modules import body, leaky, round_trip

pytestmark = pytest.mark.interop
PLAYERS = {
    "snntorch": nets.snntorch_play,
    "norse": nets.stateful_play,
    "spikingjelly": nets.spikingjelly_play,
}
MAKERS = {
    "snntorch": nets.snntorch_net,
    "norse": nets.norse_net,
    "spikingjelly": nets.spikingjelly_net,
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


def trained(graph):
    """The graph with other weights, thresholds and time constants, as training leaves it."""
    rng = np.random.default_rng(0)
    changed = []
    for node in graph.nodes.values():
        keys = [key for key in ("weight", "bias", "v_threshold") if key in node.parameters]
        # SpikingJelly's layers have one number for all neurons.
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
    net, second_module = (MAKERS[framework](kind, seed) for seed in (1, 2))
    graph = trained(from_torch(net, torch.zeros(1, *shape)))
    path = tmp_path / "trained.nir"
    write(path, graph)
    first = next(second_module.parameters())
    report = load_into(second_module, path)
    assert next(second_module.parameters()) is first
    assert set(report.nodes) == set(graph.nodes)
    x = nets.spikes(3, shape, steps=60, batch=4)
    y = PLAYERS[framework](second_module, x)
    assert 0 < y.mean() < 1
    assert verify(graph, x, y).ok
    assert not verify(graph, x, PLAYERS[framework](net, x)).ok


def test_options_say_what_a_file_leaves_open(tmp_path):
    graph, net, path = source(), Named(), tmp_path / "theirs.nir"
    theirs = export(graph)
    theirs.metadata = {}  # as snnTorch's exporter writes it, without a dialect
    nir.write(path, theirs)
    message = "which the file does not contain: pass reset="
    assert_refused(lambda: load_into(net, path, dialect="snntorch"), DialectError, message)
    report = load_into(net, path, dialect="snntorch", reset="subtract", reset_delay=True)
    assert report.nodes["first"] == "0"
    message = "whose dialect is already decided: reset would be ignored"
    assert_refused(lambda: load_into(net, graph, reset="subtract"), UsageError, message)


class Named(torch.nn.Module):
    """As a Sequential of the same layers, with names."""

    def __init__(self, hidden=4, **options):
        super().__init__()
        self.first, self.second = torch.nn.Linear(5, hidden), torch.nn.Linear(hidden, 2)
        self.hidden, self.out = leaky(**options), leaky(threshold=0.7)

    def forward(self, x):
        return self.out(self.second(self.hidden(self.first(x))))


def other_thresholds_and_no_bias():
    net = Named(threshold=torch.ones(3))
    net.hidden.threshold = torch.ones(4) * 2
    net.second = torch.nn.Linear(4, 2, bias=False)
    return net


def source(**options):
    torch.manual_seed(4)
    net = torch.nn.Sequential(
        torch.nn.Linear(5, 4), leaky(**options), torch.nn.Linear(4, 2), leaky(beta=0.8)
    )
    return from_torch(net, torch.zeros(1, 5))


def test_nodes_of_other_names_are_found_by_their_wires():
    graph, net = source(), Named()
    report = load_into(net, graph)
    assert report.nodes["first"] == "0"
    assert report.nodes["out"] == "3"
    assert float(net.out.beta) == pytest.approx(0.8)
    assert float(net.out.threshold) == 1.0
    np.testing.assert_array_equal(net.second.weight.detach().numpy(), graph.nodes["2"].weight)


@pytest.mark.parametrize(
    ("graph", "net", "message"),
    [
        (source(), Named(hidden=3), r"'first' .* shape \(3, 5\) in the module, and .* '0' have the shape \(4, 5\)"),
        (source(), torch.nn.Sequential(torch.nn.Linear(5, 4), leaky()), "structures of module and file differ"),
        (source(reset_mechanism="zero"), Named(), "reset is subtract later in the module and value in"),
        (
            source(beta=torch.tensor([0.5, 0.6, 0.7, 0.9])),
            Named(),
            r"beta has the shape \(\) in the module, and node '1' has values from 0.5 to 0.9",
        ),
        (
            source(threshold=torch.tensor([0.5, 0.6, 0.7, 0.9])),
            other_thresholds_and_no_bias(),
            "bias is 0 in the module and",
        ),
    ],
)  # fmt: skip
def test_what_does_not_fit_leaves_the_module_as_it_was(graph, net, message):
    before = {name: value.clone() for name, value in net.state_dict().items()}
    assert_refused(lambda: load_into(net, graph), ConversionError, message)
    after = net.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(value, after[name]) for name, value in before.items())


def diagonal_snntorch(seed):
    """A leaky readout behind neurons that each feed themselves."""
    import snntorch

    torch.manual_seed(seed)
    weights = torch.rand(4)
    return torch.nn.Sequential(
        torch.nn.Linear(5, 4),
        snntorch.RLeaky(beta=torch.rand(4), V=weights, all_to_all=False, init_hidden=True),
        torch.nn.Linear(4, 2),
        leaky(beta=torch.rand(2), reset_mechanism="none", output=True),
    )


def play_membranes(net, x):
    return np.stack([net(frame)[1].detach().numpy() for frame in torch.as_tensor(x)])


def lifted_norse(seed):
    """A recurrent layer and a leaky readout, which run through time themselves."""
    import norse.torch as norse
    from norse.torch.module.lif import LIFRecurrent

    torch.manual_seed(seed)
    hidden = LIFRecurrent(5, 6, p=norse.LIFParameters(v_th=torch.tensor(0.1 * seed)))
    layers = norse.Lift(torch.nn.Linear(6, 2)), norse.Lift(norse.LICell())
    return norse.SequentialState(hidden, *layers)


def play_lifted(net, x):
    with torch.no_grad():
        ((y, _), _) = net(torch.as_tensor(x))
    return y.numpy()


@pytest.mark.parametrize(
    ("make", "play", "time"),
    [(diagonal_snntorch, play_membranes, ()), (lifted_norse, play_lifted, (3,))],
)
def test_numbers_of_loops_and_readouts_go_into_a_module(make, play, time):
    first, second = make(1), make(2)
    graph = from_torch(first, torch.zeros(*time, 1, 5))
    load_into(second, graph)
    x = nets.spikes(3, steps=30, batch=3)
    assert verify(graph, x, play(second, x)).ok


def test_loading_does_not_change_the_defaults_of_norse():
    from norse.torch import LIFParameters

    first, second = lifted_norse(1), lifted_norse(2)
    load_into(second, from_torch(first, torch.zeros(3, 1, 5)))
    assert float(LIFParameters().v_th) == 1.0


def test_batch_normalisation_does_nothing_afterwards():
    def make(seed):
        return body(
            torch.nn.Conv2d(1, 2, 3, bias=False), torch.nn.BatchNorm2d(2), leaky(), torch.nn.Flatten(),
            torch.nn.Linear(32, 3), torch.nn.BatchNorm1d(3), leaky(), seed=seed,
        )  # fmt: skip

    *_, report = round_trip(make, (1, 6, 6), seed=3)
    assert [note.partition(" ")[0] for note in report.notes] == ["'1'", "'5'"]


@pytest.mark.parametrize("framework", ["norse", "spikingjelly", "snntorch"])
def test_numbers_that_no_state_dict_holds_are_named(framework):
    """Norse and SpikingJelly keep time constants and thresholds beside torch's parameters."""
    kind = {"norse": "cuba", "spikingjelly": "lif", "snntorch": "leaky"}[framework]
    net, second_module = (MAKERS[framework](kind, 1) for _ in range(2))
    graph = from_torch(net, torch.zeros(1, 5))
    assert load_into(second_module, graph).notes == ()
    weights = [node.replace(weight=2 * node.value("weight")) for node in graph.nodes.values()
               if "weight" in node.names]  # fmt: skip
    assert load_into(second_module, graph.with_nodes(weights)).notes == ()
    node = graph.nodes[graph.neurons[0]]
    lowered = graph.with_nodes([node.replace(v_threshold=0.6 * node.value("v_threshold"))])
    notes = load_into(second_module, lowered).notes
    net.load_state_dict(second_module.state_dict())
    x = nets.spikes(3, steps=60, batch=4)
    assert verify(lowered, x, PLAYERS[framework](net, x)).ok == (notes == ())
    if framework == "snntorch":
        assert notes == ()
        return
    name = {"norse": r"1\.p\.v_th", "spikingjelly": r"1\.v_threshold"}[framework]
    assert re.match(
        rf"state_dict\(\) of the module omits '?{name}'?, .* load the file again", notes[0]
    )


def test_a_file_of_another_framework_is_converted_first():
    layers = (build.input(5), build.affine(4), build.lif(tau=1e-2))
    graph = build.sequential(*layers, seed=0, dialect="norse", dt=1e-3, dt_export=1.0)
    options = {"reset_mechanism": "zero", "reset_delay": False}
    net = torch.nn.Sequential(torch.nn.Linear(5, 4), leaky(**options))
    message = "'1' cannot implement node '2': gain is 1 in the module and 0.1 in the file"
    assert_refused(lambda: load_into(net, graph), ConversionError, message)
    converted = convert(graph, to="snntorch").graph
    load_into(net, converted)
    assert float(net[1].beta) == pytest.approx(0.9)
    weight = np.asarray(converted.nodes["1"].weight)
    np.testing.assert_allclose(net[0].weight.detach(), weight, rtol=1e-6)
