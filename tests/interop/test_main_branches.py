"""What is written for main branches fires the source's spikes in what their sources say."""

import numpy as np
import pytest
import torch

from jaxsnn import TimeStepped, from_torch, lower, simulate
from jaxsnn.nir.convert.pipeline import convert
from tests.helpers.thinning import thinned
from tests.interop import nets
from tests.interop.players import run_in_steps
from tests.oracles import main_branch_importers

pytestmark = pytest.mark.interop
MAIN = ("snntorch==main", "norse==main")


@pytest.fixture(autouse=True)
def importers(monkeypatch):
    """The importers of the main branches in place of those that are installed."""
    monkeypatch.setattr(
        "snntorch.import_nir.import_from_nir", main_branch_importers.snntorch_import
    )
    monkeypatch.setattr("norse.torch.from_nir", main_branch_importers.norse_import)


@pytest.mark.parametrize("target", MAIN)
@pytest.mark.parametrize("kind", ["leaky", "synaptic", "rleaky", "conv"])
def test_snntorch_reset_to_zero_at_once(kind, target, converts):
    graph, x, y = nets.snntorch_case(kind, reset_mechanism="zero", reset_delay=False)
    conversion = converts(graph, target, x, y)
    assert conversion.written_for.endswith(" main")
    assert conversion.load_with.endswith(f"  # {conversion.written_for}")
    assert any("based on its source code" in note for note in conversion.notes)
    assert any(
        "written for" in note and "the installed version is" in note for note in conversion.notes
    )


@pytest.mark.parametrize("kind", ["leaky", "synaptic", "rleaky", "rsynaptic", "conv"])
def test_snntorch_subtraction_to_norse(kind, converts):
    graph, x, y = nets.snntorch_case(kind)
    assert "reset_method" in converts(graph, "norse==main", x, y).load_with


@pytest.mark.parametrize(
    ("kind", "target"),
    thinned(2, ["lif", "cuba", "lif_v_leak", "cuba_v_leak", "if", "conv"], MAIN),
)
def test_norse_networks_load_in_main_branches(kind, target, converts):
    graph, x, y = nets.norse_case(kind)
    converts(graph, target, x, y)


def test_snntorch_can_be_told_another_step(converts):
    """Norse steps by 1 ms, and main's importer takes that; 1.0 steps by 100 us."""
    graph, x, y = nets.norse_case("cuba")
    assert ", dt=0.001)" in converts(graph, "snntorch==main", x, y).load_with
    released = convert(graph, to="snntorch==1.0")
    assert "dt=" not in released.load_with
    assert any("multiplied by 0.1" in change.what for change in released.changes)


def test_cubalif_has_a_w_in_of_1_for_main_and_of_tau_over_dt_for_1_0():
    graph, _, _ = nets.snntorch_case("synaptic", reset_mechanism="zero", reset_delay=False)
    for version, w_in in (("main", 1.0), ("1.0", None)):
        conversion = convert(graph, to=f"snntorch=={version}")
        for node in (conversion.graph.nodes[name] for name in conversion.graph.neurons):
            tau, actual_w_in = np.asarray(node.value("tau_syn")), np.asarray(node.value("w_in"))
            np.testing.assert_allclose(actual_w_in, tau / 1e-4 if w_in is None else w_in)
            np.testing.assert_allclose(node.value("r"), np.asarray(node.value("tau_mem")) / 1e-4)
        # Both exporters write w_in = tau_syn/dt, so a file with w_in = 1 has no dialect.
        assert conversion.graph.dialect.name == (None if version == "main" else "snntorch")


def test_if_subtracts_in_main_even_where_it_stays_above_its_threshold(converts):
    """Leaky(beta=1) with snnTorch's own immediate reset."""
    import snntorch

    torch.manual_seed(0)
    layer = torch.nn.Linear(5, 20)
    neuron = snntorch.Leaky(beta=1.0, threshold=0.7, init_hidden=True, reset_delay=False)
    net = torch.nn.Sequential(layer, neuron)
    with torch.no_grad():
        layer.weight.copy_(torch.rand(20, 5) * 0.6 - 0.05)
        layer.bias.fill_(-0.2)
    x = nets.spikes(3)
    graph, y = from_torch(net, torch.zeros(1, 5)), nets.snntorch_play(net, x)
    for approximate in (False, True):
        conversion = convert(graph, to="snntorch==main", approximate=approximate)
        assert conversion.graph.nodes[conversion.graph.neurons[0]].type == "IF"
        assert conversion.losses == ()
    converts(graph, "snntorch==main", x, y)
    assert float(np.asarray(stepped_membrane(graph, x)).max()) > 2 * 0.7
    # Version 1.0 interprets IF differently: Leaky is used, and the load line sets its reset.
    conversion = convert(graph, to="snntorch==1.0")
    assert conversion.graph.nodes[conversion.graph.neurons[0]].type == "LIF"
    assert "'reset_delay', False" in conversion.load_with


def stepped_membrane(graph, x):
    """Membranes of the one population."""
    solution = simulate(lower(graph, dtype=np.float32), x, engine=TimeStepped(record=True))
    return next(iter(solution.voltages.values())) + 0.7 * next(iter(solution.spikes.values()))


@pytest.mark.parametrize("target", MAIN)
def test_sums_need_no_thread_in_what_nirtorch_runs(target, converts):
    graph, x = nets.joined_graph(("l1", "output"), ("l2", "loop", "l2")), nets.spikes(2)
    changes = converts(graph, target, x, run_in_steps(graph, x)).changes
    assert not any("weight 0" in change.what for change in changes)
