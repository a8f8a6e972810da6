"""from_torch and load_into: neurons that no exporter takes, and membranes in attributes."""

import numpy as np
import pytest
import torch

from jaxsnn import from_torch, load_into, read, verify, write
from jaxsnn.errors import ConversionError
from tests.interop import nets

pytestmark = pytest.mark.interop


def linear(inputs, outputs):
    layer = torch.nn.Linear(inputs, outputs)
    torch.nn.init.uniform_(layer.weight, -0.5, 0.8)
    return layer


def leaky():
    import snntorch

    return snntorch.Leaky(beta=0.9, init_hidden=True)


def played(net, x):
    """What a module gives in each step, from its start on; of a tuple the last, a membrane."""
    for layer in net.modules():
        if hasattr(layer, "reset_mem"):
            layer.reset_mem()
        elif hasattr(layer, "step_mode"):
            layer.reset()
    with torch.no_grad():
        found = [net(frame) for frame in torch.as_tensor(x)]
    return np.stack([(y[-1] if isinstance(y, tuple) else y).numpy() for y in found])


def there_and_back(make, path, seed=1):
    """The graph does what a module does, in a file too, and makes another module do it."""
    torch.manual_seed(seed)
    net, other = make(), make()
    x = nets.spikes(seed, steps=40, batch=4)
    graph, y = from_torch(net, torch.zeros(1, 5)), played(net, x)
    assert np.mean(y != 0) > 0.02
    assert np.ptp(y, axis=0).mean() > 0.1
    write(path, graph)
    for each in (graph, read(path)):
        assert verify(each, x, y).ok
    assert not np.allclose(played(other, x), y)
    load_into(other, graph)
    np.testing.assert_allclose(played(other, x), y, rtol=1e-5, atol=1e-6)
    return graph


@pytest.mark.parametrize("reset", ["subtract", "zero", "none"])
@pytest.mark.parametrize("numbers", [{"beta": 0.8}, {"R": 5.1, "C": 0.005, "time_step": 5e-3}])
def test_lapicque(reset, numbers, tmp_path):
    import snntorch

    def net():
        options = {"init_hidden": True, "threshold": float(torch.rand(()) / 4 + 0.1)}
        first = snntorch.Lapicque(beta=float(torch.rand(()) / 2 + 0.4), **options)
        last = snntorch.Lapicque(
            **numbers, reset_mechanism=reset, output=reset == "none", **options
        )
        return torch.nn.Sequential(linear(5, 6), first, linear(6, 3), last)

    there_and_back(net, tmp_path / "net.nir")


def test_a_lapicque_that_changes_its_sign_in_a_step_is_refused():
    import snntorch

    net = torch.nn.Sequential(linear(5, 3), snntorch.Lapicque(beta=0.3, init_hidden=True))
    with pytest.raises(ConversionError, match=r"'1' \(Lapicque\) keeps -0.203973 of its membrane"):
        from_torch(net, torch.zeros(1, 5))


@pytest.mark.parametrize("delay", [True, False])
@pytest.mark.parametrize("reset", ["subtract", "zero"])
def test_spikes_that_are_not_one_are_followed_by_a_scale(reset, delay, tmp_path):
    import snntorch

    def net():
        factor = torch.rand(6) + 0.5
        options = {"init_hidden": True, "reset_mechanism": reset, "reset_delay": delay}
        first = snntorch.Leaky(beta=0.8, graded_spikes_factor=factor, **options)
        last = snntorch.Leaky(beta=0.8, graded_spikes_factor=2.0, **options)
        return torch.nn.Sequential(linear(5, 6), first, linear(6, 3), last)

    graph = there_and_back(net, tmp_path / "net.nir")
    assert graph.nodes["1.graded"].type == "Scale"


def test_spikes_of_sizes_in_64_bits_are_loaded(tmp_path):
    """The module has them in 32 bits, in which 2.1 is another number."""
    import h5py
    import snntorch

    path, neuron = tmp_path / "net.nir", {"beta": 0.8, "init_hidden": True}
    first, second = (
        torch.nn.Sequential(linear(5, 6), snntorch.Leaky(**neuron, graded_spikes_factor=size))
        for size in (2.1, 1.3)
    )
    write(path, from_torch(first, torch.zeros(1, 5)))
    with h5py.File(path, "r+") as file:
        node = next(value for key, value in file["node/nodes"].items() if "graded" in key)
        del node["scale"]
        node["scale"] = np.full(6, 2.1)
    load_into(second, path)
    assert second[1].graded_spikes_factor == first[1].graded_spikes_factor
    x = nets.spikes(1, steps=40, batch=4)
    assert np.array_equal(played(second, x), played(first, x))


def test_a_neuron_that_is_to_learn_how_large_its_spikes_are_learns_it_from_a_file(tmp_path):
    import snntorch

    def net(size):
        options = {"init_hidden": True, "learn_graded_spikes_factor": True}
        hidden = snntorch.Leaky(beta=0.8, graded_spikes_factor=size, **options)
        return torch.nn.Sequential(linear(5, 6), hidden, linear(6, 3), leaky())

    learnt, anew = net(2.5), net(1.0)
    write(tmp_path / "net.nir", from_torch(learnt, torch.zeros(1, 5)))
    load_into(anew, tmp_path / "net.nir")
    assert float(anew[1].graded_spikes_factor) == 2.5
    x = nets.spikes(1, steps=40, batch=4)
    assert np.array_equal(played(anew, x), played(learnt, x))


def test_spikes_that_are_not_one_are_compared():
    """A neuron that does something else is found, though its spikes are of another size."""
    import snntorch

    class Wrong(snntorch.Leaky):
        def forward(self, x):
            return super().forward(x * 1.5)

    Wrong.__name__, Wrong.__module__ = "Leaky", "snntorch.wrong"
    net = torch.nn.Sequential(
        linear(5, 6), Wrong(beta=0.8, init_hidden=True, graded_spikes_factor=2.0)
    )
    with pytest.raises(ConversionError, match="differs from the module: '1', step"):
        from_torch(net, torch.zeros(1, 5))


class MembraneOfAnAttribute(torch.nn.Module):
    def __init__(self, hidden, readout, name):
        super().__init__()
        self.fc1, self.hidden, self.fc2, self.readout = linear(5, 6), hidden, linear(6, 2), readout
        self.name = name

    def forward(self, x):
        self.readout(self.fc2(self.hidden(self.fc1(x))))
        return getattr(self.readout, self.name)


@pytest.mark.parametrize("kind", ["IFNode", "LIFNode", "CUBALIFNode", "ParametricLIFNode"])
def test_a_threshold_that_is_never_reached_makes_a_readout(kind, tmp_path):
    from spikingjelly.activation_based import neuron

    def net():
        tau = {} if kind == "IFNode" else {"init_tau": 3.0} if kind[0] == "P" else {"tau": 3.0}
        tau = {"c_decay": 0.5, "v_decay": 0.7} if kind[0] == "C" else tau
        readout = getattr(neuron, kind)(v_threshold=float("inf"), **tau)
        return MembraneOfAnAttribute(neuron.LIFNode(v_threshold=0.4), readout, "v")

    there_and_back(net, tmp_path / "net.nir")


def test_a_threshold_of_inf_that_would_be_subtracted_is_refused():
    from spikingjelly.activation_based import neuron

    readout = neuron.IFNode(v_threshold=float("inf"), v_reset=None)
    net = MembraneOfAnAttribute(neuron.LIFNode(), readout, "v")
    with pytest.raises(ConversionError, match=r"'readout' \(IFNode\) has v_threshold inf and v_re"):
        from_torch(net, torch.zeros(1, 5))


def test_a_readout_through_time_gives_the_membranes_that_it_stores():
    from spikingjelly.activation_based import functional, neuron

    torch.manual_seed(2)
    readout = neuron.LIFNode(v_threshold=float("inf"), store_v_seq=True)
    net = MembraneOfAnAttribute(neuron.LIFNode(v_threshold=0.4), readout, "v_seq")
    functional.set_step_mode(net, "m")
    graph, x = from_torch(net, torch.zeros(3, 1, 5)), nets.spikes(2, steps=40, batch=4)
    y = net(torch.as_tensor(x)).detach().numpy()
    assert np.ptp(y, axis=0).mean() > 0.1
    assert verify(graph, x, y).ok


@pytest.mark.parametrize("reset", ["subtract", "zero"])
@pytest.mark.parametrize("kind", ["RLeaky", "RSynaptic"])
def test_channels_that_feed_themselves_by_a_convolution(kind, reset):
    import snntorch

    def net(seed):
        torch.manual_seed(seed)
        first, decays = torch.nn.Conv2d(1, 3, 2), {"alpha": 0.8} if kind == "RSynaptic" else {}
        torch.nn.init.uniform_(first.weight, -0.5, 0.8)
        options = {"conv2d_channels": 3, "kernel_size": 3, "reset_mechanism": reset}
        neuron = getattr(snntorch, kind)(beta=0.8, init_hidden=True, **decays, **options)
        return torch.nn.Sequential(first, neuron)

    learnt, other, x = net(1), net(2), nets.spikes(3, (1, 5, 5), steps=40, batch=3)
    graph, y = from_torch(learnt, torch.zeros(1, 1, 5, 5)), played(learnt, x)
    assert 0.02 < y.mean() < 0.9
    assert graph.nodes["1.w_rec"].type == "Conv2d"
    assert verify(graph, x, y).ok
    assert not np.array_equal(played(other, x), y)
    load_into(other, graph)
    assert np.array_equal(played(other, x), y)


def test_another_reset_value_is_where_a_loaded_neuron_starts(tmp_path):
    from spikingjelly.activation_based import neuron

    def net():
        return torch.nn.Sequential(linear(5, 6), neuron.IFNode(v_reset=-3 * float(torch.rand(()))))

    there_and_back(net, tmp_path / "net.nir")
    torch.manual_seed(1)
    first, second = net(), net()
    notes = load_into(second, from_torch(first, torch.zeros(1, 5))).notes
    assert "leaves out 1.v_reset, which" in notes[0]
    # it starts there at once, without functional.reset_net
    x = torch.as_tensor(nets.spikes(1, steps=40, batch=4))
    assert all(torch.equal(first(frame), second(frame)) for frame in x)


@pytest.mark.parametrize("reset", ["none", "subtract", "zero"])
def test_a_membrane_is_read_from_an_attribute_of_snntorch(reset, tmp_path):
    import snntorch

    def net():
        options = {"threshold": float(torch.rand(()) / 4 + 0.3), "reset_mechanism": reset}
        readout = snntorch.Leaky(beta=0.8, init_hidden=True, **options)
        return MembraneOfAnAttribute(leaky(), readout, "mem")

    there_and_back(net, tmp_path / "net.nir")


@pytest.mark.parametrize("framework", ["snntorch", "spikingjelly"])
def test_a_neuron_that_never_resets_gives_no_spikes(framework):
    import snntorch
    from spikingjelly.activation_based import neuron

    if framework == "snntorch":  # it takes its own
        options = {"linear_features": 3, "init_hidden": True, "output": True}
        last = snntorch.RLeaky(beta=0.9, reset_mechanism="none", **options)
    else:
        last = neuron.IFNode(v_threshold=float("inf"))
    with pytest.raises(ConversionError, match=r"'1' \((IFNode|RLeaky)\) never resets, and its"):
        from_torch(torch.nn.Sequential(linear(5, 3), last), torch.zeros(1, 5))


@pytest.mark.parametrize("straight", [True, False])
def test_norms_that_norse_lifts_are_weights(straight):
    """Straight behind lifted weights, whose bias they leave where it is, and behind neurons."""
    import norse.torch as norse

    def net(seed):
        torch.manual_seed(seed)
        neuron = norse.LIF(p=norse.LIFParameters(v_th=torch.tensor(0.2)))
        norm = torch.nn.BatchNorm1d(6)
        torch.nn.init.uniform_(norm.running_var, 0.1, 1.0)
        torch.nn.init.uniform_(norm.bias, 0.0, 0.3)
        first, second = norse.Lift(linear(5, 6)), norse.Lift(linear(6, 3))
        lifted = norse.Lift(norm)
        inner = (lifted, neuron) if straight else (neuron, lifted)
        return norse.SequentialState(first, *inner, second, norse.LI()).eval()

    x, found = torch.as_tensor(nets.spikes(2, steps=40, batch=4)), []
    first, second = net(1), net(2)
    graph = from_torch(first, torch.zeros(2, 1, 5))
    assert [node.type for node in graph.nodes.values()].count("Affine") == 2 + (not straight)
    load_into(second, graph)
    with torch.no_grad():
        found = [each(x)[0].numpy() for each in (first, second)]
    assert np.ptp(found[0], axis=0).mean() > 0.01
    np.testing.assert_allclose(found[1], found[0], rtol=1e-4, atol=1e-6)


def test_weights_and_pools_that_norse_lifts_keep_their_numbers():
    """Norms behind weights that are parametrized, and behind pools, which have none to set."""
    import norse.torch as norse

    def net(seed):
        torch.manual_seed(seed)
        weighted = torch.nn.utils.parametrizations.weight_norm(torch.nn.Conv1d(2, 3, 3))
        norms = torch.nn.BatchNorm1d(3), torch.nn.BatchNorm1d(3)
        for norm in norms:
            torch.nn.init.uniform_(norm.running_var, 0.05, 0.5)
        layers = weighted, norms[0], None, torch.nn.AvgPool1d(2), norms[1], None
        p = norse.LIFParameters(v_th=torch.tensor(0.1))
        made = (norse.LIF(p=p) if layer is None else norse.Lift(layer) for layer in layers)
        return norse.SequentialState(*made).eval()

    x, first, second = torch.as_tensor(nets.spikes(2, (2, 10), steps=40, batch=4)), net(1), net(2)
    load_into(second, from_torch(first, torch.zeros(2, 1, 2, 10)))
    with torch.no_grad():
        found = [each(x)[0].numpy() for each in (first, second)]
    assert 0.02 < found[0].mean() < 0.98
    assert np.array_equal(*found)


def test_a_norm_that_takes_the_batch_for_channels_is_refused():
    import norse.torch as norse

    net = norse.SequentialState(linear(5, 6), torch.nn.BatchNorm1d(1), norse.LIF()).eval()
    with pytest.raises(ConversionError, match=r"'1' \(BatchNorm1d\) takes time and batch as two"):
        from_torch(net, torch.zeros(2, 1, 5))


def test_a_parametric_neuron_has_a_time_constant_for_each(tmp_path):
    from spikingjelly.activation_based import neuron

    def net():
        node = neuron.ParametricLIFNode(v_threshold=0.4, decay_input=False)
        node.w = torch.nn.Parameter(torch.randn(6))
        return torch.nn.Sequential(linear(5, 6), node)

    there_and_back(net, tmp_path / "net.nir")
