"""from_torch and load_into: neurons that no exporter takes, and membranes in attributes."""

import h5py
import numpy as np
import pytest
import snntorch
import torch

from jaxsnn import TimeStepped, from_torch, load_into, read, simulate, split_module, verify, write
from tests.interop import nets
from tests.interop.modules import assert_loads, assert_no_graph, leaky, round_trip, type_counts

pytestmark = pytest.mark.interop
HIDDEN = {"init_hidden": True}


def linear(inputs, outputs):
    layer = torch.nn.Linear(inputs, outputs)
    torch.nn.init.uniform_(layer.weight, -0.5, 0.8)
    return layer


def sequence(*layers):
    return torch.nn.Sequential(linear(5, 6), *layers)


def played(net, x):
    """What a module gives in each step, from its start on; of a tuple the last, a membrane."""
    for layer in net.modules():
        if hasattr(layer, "reset_mem"):
            layer.reset_mem()
        elif hasattr(layer, "step_mode"):
            layer.reset()
    with torch.no_grad():
        outputs = [net(frame) for frame in torch.as_tensor(x)]
    return np.stack([(y[-1] if isinstance(y, tuple) else y).numpy() for y in outputs])


def played_by_norse(net, x):
    with torch.no_grad():
        return net(torch.as_tensor(x))[0].numpy()


def there_and_back(make, path, seed=1):
    """The graph does what a module does, in a file too, and makes another module do it."""
    torch.manual_seed(seed)
    net, target = make(), make()
    x = nets.spikes(seed, steps=40, batch=4)
    graph, y = from_torch(net, torch.zeros(1, 5)), played(net, x)
    assert np.mean(y != 0) > 0.02
    assert np.ptp(y, axis=0).mean() > 0.1
    write(path, graph)
    assert verify(graph, x, y).ok
    assert verify(read(path), x, y).ok
    assert not np.allclose(played(target, x), y)
    load_into(target, graph)
    np.testing.assert_allclose(played(target, x), y, rtol=1e-5, atol=1e-6)
    return graph


@pytest.mark.parametrize("reset", ["subtract", "zero", "none"])
@pytest.mark.parametrize("numbers", [{"beta": 0.8}, {"R": 5.1, "C": 0.005, "time_step": 5e-3}])
def test_lapicque(reset, numbers, tmp_path):
    def make():
        options = {"init_hidden": True, "threshold": float(torch.rand(()) / 4 + 0.1)}
        first = snntorch.Lapicque(beta=float(torch.rand(()) / 2 + 0.4), **options)
        options |= {"reset_mechanism": reset, "output": reset == "none"}
        return sequence(first, linear(6, 3), snntorch.Lapicque(**numbers, **options))

    there_and_back(make, tmp_path / "net.nir")


@pytest.mark.parametrize("delay", [True, False])
@pytest.mark.parametrize("reset", ["subtract", "zero"])
def test_spikes_that_are_not_one_are_followed_by_a_scale(reset, delay, tmp_path):
    def make():
        factor = torch.rand(6) + 0.5
        options = {"beta": 0.8, "reset_mechanism": reset, "reset_delay": delay}
        first = leaky(graded_spikes_factor=factor, **options)
        return sequence(first, linear(6, 3), leaky(graded_spikes_factor=2.0, **options))

    graph = there_and_back(make, tmp_path / "net.nir")
    assert graph.nodes["1.graded"].type == "Scale"


def test_spikes_of_sizes_in_64_bits_are_loaded(tmp_path):
    """The module has them in 32 bits, in which 2.1 is another number."""
    path, x = tmp_path / "net.nir", nets.spikes(1, steps=40, batch=4)
    first, second = (sequence(leaky(beta=0.8, graded_spikes_factor=size)) for size in (2.1, 1.3))
    write(path, from_torch(first, torch.zeros(1, 5)))
    with h5py.File(path, "r+") as file:
        node = next(value for key, value in file["node/nodes"].items() if "graded" in key)
        del node["scale"]
        node["scale"] = np.full(6, 2.1)
    assert_loads(second, path, x, played(first, x), played)
    assert second[1].graded_spikes_factor == first[1].graded_spikes_factor


def test_a_neuron_that_is_to_learn_how_large_its_spikes_are_learns_it_from_a_file(tmp_path):
    options = {"beta": 0.8, "learn_graded_spikes_factor": True}
    trained, target = (
        sequence(leaky(graded_spikes_factor=size, **options), linear(6, 3), leaky())
        for size in (2.5, 1.0)
    )
    path, x = tmp_path / "net.nir", nets.spikes(1, steps=40, batch=4)
    write(path, from_torch(trained, torch.zeros(1, 5)))
    assert_loads(target, path, x, played(trained, x), played)
    assert float(target[1].graded_spikes_factor) == 2.5


class Wrong(snntorch.Leaky):
    """A neuron that does something else, though its spikes are of another size."""

    def forward(self, x):
        return super().forward(x * 1.5)


Wrong.__name__, Wrong.__module__ = "Leaky", "snntorch.wrong"


class MembraneOfAnAttribute(torch.nn.Module):
    def __init__(self, hidden, readout, name):
        super().__init__()
        self.fc1, self.hidden, self.fc2, self.readout = linear(5, 6), hidden, linear(6, 2), readout
        self.name = name

    def forward(self, x):
        self.readout(self.fc2(self.hidden(self.fc1(x))))
        return getattr(self.readout, self.name)


def jelly(kind, **options):
    from spikingjelly.activation_based import neuron

    return getattr(neuron, kind)(**options)


INF = float("inf")
READOUTS = {
    "IFNode": {},
    "LIFNode": {"tau": 3.0},
    "ParametricLIFNode": {"init_tau": 3.0},
    "CUBALIFNode": {"c_decay": 0.5, "v_decay": 0.7},
}


@pytest.mark.parametrize(("kind", "decays"), READOUTS.items())
def test_a_threshold_that_is_never_reached_makes_a_readout(kind, decays, tmp_path):
    def make():
        readout = jelly(kind, v_threshold=INF, **decays)
        return MembraneOfAnAttribute(jelly("LIFNode", v_threshold=0.4), readout, "v")

    there_and_back(make, tmp_path / "net.nir")


@pytest.mark.parametrize("reset", ["none", "subtract", "zero"])
def test_a_membrane_is_read_from_an_attribute_of_snntorch(reset, tmp_path):
    def make():
        options = {"threshold": float(torch.rand(()) / 4 + 0.3), "reset_mechanism": reset}
        return MembraneOfAnAttribute(leaky(), leaky(beta=0.8, **options), "mem")

    there_and_back(make, tmp_path / "net.nir")


RECURRENT = {"linear_features": 6, "init_hidden": True, "output": True}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: sequence(snntorch.Lapicque(beta=0.3, **HIDDEN)),
         r"'1' \(Lapicque\) multiplies its membrane potential by 1 - time_step/\(R C\) = -0.203973"),
        (lambda: sequence(Wrong(beta=0.8, graded_spikes_factor=2.0, **HIDDEN)),
         "differs from the module: '1', step"),
        (lambda: MembraneOfAnAttribute(jelly("LIFNode"), jelly("IFNode", v_threshold=INF, v_reset=None), "v"),
         r"'readout' \(IFNode\) has v_threshold inf and v_re"),
        (lambda: sequence(snntorch.RLeaky(beta=0.9, reset_mechanism="none", **RECURRENT)),
         r"'1' \(RLeaky\) emits spikes and never resets"),
        (lambda: sequence(jelly("IFNode", v_threshold=INF)), r"'1' \(IFNode\) emits spikes and never resets"),
    ],
)  # fmt: skip
def test_neurons_that_no_graph_can_hold_are_refused(make, message):
    torch.manual_seed(0)
    assert_no_graph(make(), (5,), message)


def test_a_readout_through_time_gives_the_membranes_that_it_stores():
    from spikingjelly.activation_based import functional

    torch.manual_seed(2)
    readout = jelly("LIFNode", v_threshold=INF, store_v_seq=True)
    net = MembraneOfAnAttribute(jelly("LIFNode", v_threshold=0.4), readout, "v_seq")
    functional.set_step_mode(net, "m")
    graph, x = from_torch(net, torch.zeros(3, 1, 5)), nets.spikes(2, steps=40, batch=4)
    y = net(torch.as_tensor(x)).detach().numpy()
    assert np.ptp(y, axis=0).mean() > 0.1
    assert verify(graph, x, y).ok


class JellyNet(torch.nn.Module):
    """Spiking neurons, others behind them, and what `result` makes of both."""

    def __init__(self, hidden, last, result=lambda net, y: y, mode="m"):
        from spikingjelly.activation_based import functional, layer

        super().__init__()
        self.result = result
        self.fc1, self.hidden = layer.Linear(5, 6), hidden
        self.fc2, self.last = layer.Linear(6, 2), last
        for weighted in (self.fc1, self.fc2):
            torch.nn.init.uniform_(weighted.weight, -0.5, 0.8)
        functional.set_step_mode(self, mode)

    def forward(self, x):
        from spikingjelly.activation_based import functional

        functional.reset_net(self)
        step_modes = {getattr(part, "step_mode", "m") for part in self.modules()}
        frames = [x] if step_modes == {"m"} else x
        outputs = [self.last(self.fc2(self.hidden(self.fc1(frame)))) for frame in frames]
        return self.result(self, outputs[0] if frames is not x else torch.stack(outputs))


def steps_of(seed, steps=30):
    return torch.as_tensor(nets.spikes(seed, steps=steps, batch=4))


def assert_computes(net, x):
    """Assert that encoder, graph and decoder give what forward of a module gives.

    Returns:
        the graph, and what the module gives.
    """
    parts = split_module(net, x)
    y = parts.decode(simulate(parts.graph, parts.encode(x), engine=TimeStepped()).y, x)
    with torch.no_grad():
        expected = net(x)
    expected = expected if isinstance(expected, list | tuple) else [expected]
    for ours, theirs in zip(y, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)
    assert np.ptp(torch.stack(list(expected)).numpy()) > 0.1
    return parts.graph, expected


@pytest.mark.parametrize("decode", [None, "max-mem", "max-abs-mem", "mean-mem", "last_mem"])
@pytest.mark.parametrize("decays", [{"tau": 3.0}, None])
def test_readouts_of_spikingjelly_leave_what_they_decode_to_the_decoder(decode, decays):
    def make(seed, tau):
        torch.manual_seed(seed)
        kind = "NonSpikingIFNode" if decays is None else "NonSpikingLIFNode"
        readout = jelly(kind, decode=decode, **({} if decays is None else {"tau": tau}))
        return JellyNet(jelly("LIFNode", v_threshold=0.4), readout)

    net, target, x = make(1, 3.0), make(2, 5.0), steps_of(1)
    graph, expected = assert_computes(net, x)
    assert graph.dialect.nodes["last"]["readout"]
    load_into(target, graph, sample=x)
    for ours, theirs in zip(assert_computes(target, x)[1], expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


def test_a_readout_of_spikingjelly_feeds_a_layer():
    torch.manual_seed(3)
    net = JellyNet(jelly("NonSpikingLIFNode", tau=3.0), jelly("IFNode", v_threshold=0.4))
    stack = torch.stack
    net.hidden.register_forward_hook(lambda module, args, y: stack(y))
    assert_computes(net, steps_of(3))


SIMPLE = {
    "decays its input": ("SimpleLIFNode", {"tau": 2.0, "decay_input": True}),
    "adds its input": ("SimpleLIFNode", {"tau": 3.0, "decay_input": False}),
    "integrates": ("SimpleIFNode", {}),
    "subtracts": ("SimpleIFNode", {"v_reset": None}),
}


@pytest.mark.parametrize("mode", ["s", "m"])
@pytest.mark.parametrize(("kind", "options"), SIMPLE.values(), ids=SIMPLE)
def test_simple_neurons_of_spikingjelly(kind, options, mode):
    def make(seed, threshold):
        torch.manual_seed(seed)
        tau = {"tau": threshold + options["tau"] - 0.4} if "tau" in options else {}
        hidden, last = (jelly(kind, v_threshold=threshold, **options | tau) for _ in range(2))
        return JellyNet(hidden, last, mode=mode)

    net, target, x = make(1, 0.4), make(2, 0.7), steps_of(1)
    graph, (expected,) = assert_computes(net, x)
    assert 0.02 < expected.mean() < 0.98
    load_into(target, graph, sample=x)
    np.testing.assert_array_equal(assert_computes(target, x)[1][0], expected)


@pytest.mark.parametrize("kind", ["OTTTLIFNode", "SLTTLIFNode"])
def test_neurons_for_online_training_are_lif_neurons_in_evaluation(kind, tmp_path):
    from spikingjelly.activation_based.model.spiking_vggws_ottt import Scale

    def make():
        first = jelly(kind, v_threshold=float(torch.rand(()) / 4 + 0.2))
        layers = Scale(0.5 + float(torch.rand(()))), linear(6, 3), jelly(kind, v_threshold=0.4)
        return sequence(first, *layers).eval()

    there_and_back(make, tmp_path / "net.nir")


def test_a_neuron_that_returns_its_trace_in_training_is_refused_as_in_training():
    assert_no_graph(
        sequence(jelly("OTTTLIFNode")), (5,), r"'1' \(OTTTLIFNode\) is in training mode"
    )


def test_a_simple_neuron_that_does_not_start_at_its_reset_is_refused():
    last = jelly("SimpleLIFNode", tau=2.0, decay_input=True, v_reset=-0.5)
    net = JellyNet(jelly("IFNode"), last)
    assert_no_graph(net, (5,), "'last'.* starts at a membrane potential of 0", time=(4,))


def own_neuron():
    """A neuron that a user derives from SpikingJelly's, and that gives its membrane."""
    from spikingjelly.activation_based import neuron

    class Potential(neuron.SimpleLIFNode):
        def single_step_forward(self, x):
            self.neuronal_charge(x)
            return self.v

    return Potential(tau=2.0, decay_input=True)


def synapse_filter():
    from spikingjelly.activation_based import layer

    return layer.SynapseFilter(tau=4.0)


@pytest.mark.parametrize("mode", ["s", "m"])
@pytest.mark.parametrize(
    ("make", "kind", "fix"),
    [(own_neuron, "Potential", "use one of IFNode"),
     (synapse_filter, "SynapseFilter", "the decay of a SynapseFilter depends on its input")],
)  # fmt: skip
def test_a_neuron_without_a_node_is_not_left_to_the_decoder(make, kind, fix, mode):
    net = JellyNet(jelly("IFNode"), make(), mode=mode)
    assert_no_graph(net, (5,), f"'last' is a {kind}, which is not supp.*{fix}", time=(4,))


@pytest.mark.parametrize("threshold", [0.5, INF])
@pytest.mark.parametrize(("kind", "decays"), READOUTS.items())
def test_a_membrane_after_the_last_time_step_is_read(kind, decays, threshold):
    torch.manual_seed(2)
    last = jelly(kind, v_threshold=threshold, **decays)
    net = JellyNet(jelly("LIFNode", v_threshold=0.4), last, lambda net, y: net.last.v)
    graph, _ = assert_computes(net, steps_of(2))
    assert graph.dialect.nodes["last"]["readout"]


@pytest.mark.parametrize("mode", ["s", "m"])
def test_a_membrane_beside_spikes_is_reported(mode):
    torch.manual_seed(2)
    neurons = [jelly("SimpleLIFNode", tau=2.0, decay_input=True, v_threshold=0.4) for _ in range(2)]
    net = JellyNet(*neurons, lambda net, y: (y, net.last.v), mode=mode)
    (problem,) = from_torch(net, steps_of(2)).warnings
    assert problem.code == "left-out"
    assert "tensor 2, of shape (4, 2), a state of 'last'" in problem.message


@pytest.mark.parametrize("reset", ["subtract", "zero"])
@pytest.mark.parametrize(("kind", "decays"), [("RLeaky", {}), ("RSynaptic", {"alpha": 0.8})])
def test_channels_that_feed_themselves_by_a_convolution(kind, decays, reset):
    def make(seed):
        torch.manual_seed(seed)
        first = torch.nn.Conv2d(1, 3, 2)
        torch.nn.init.uniform_(first.weight, -0.5, 0.8)
        options = {"conv2d_channels": 3, "kernel_size": 3, "reset_mechanism": reset}
        neuron = getattr(snntorch, kind)(beta=0.8, init_hidden=True, **decays, **options)
        return torch.nn.Sequential(first, neuron)

    graph, *_ = round_trip(make, (1, 5, 5), seed=3, play=played)
    assert graph.nodes["1.w_rec"].type == "Conv2d"


def test_another_reset_value_is_where_a_loaded_neuron_starts(tmp_path):
    def make():
        return sequence(jelly("IFNode", v_reset=-3 * float(torch.rand(()))))

    there_and_back(make, tmp_path / "net.nir")
    torch.manual_seed(1)
    first, second = make(), make()
    notes = load_into(second, from_torch(first, torch.zeros(1, 5))).notes
    assert "omits 1.v_reset, which" in notes[0]
    # The module starts at v_reset immediately, without functional.reset_net.
    x = torch.as_tensor(nets.spikes(1, steps=40, batch=4))
    assert all(torch.equal(first(frame), second(frame)) for frame in x)


@pytest.mark.parametrize("straight", [True, False])
def test_norms_that_norse_lifts_are_weights(straight):
    """Straight behind lifted weights, whose bias they leave where it is, and behind neurons."""
    import norse.torch as norse

    def make(seed):
        torch.manual_seed(seed)
        neuron = norse.LIF(p=norse.LIFParameters(v_th=torch.tensor(0.2)))
        norm = torch.nn.BatchNorm1d(6)
        torch.nn.init.uniform_(norm.running_var, 0.1, 1.0)
        torch.nn.init.uniform_(norm.bias, 0.0, 0.3)
        inner = (norse.Lift(norm), neuron) if straight else (neuron, norse.Lift(norm))
        first, second = norse.Lift(linear(5, 6)), norse.Lift(linear(6, 3))
        return norse.SequentialState(first, *inner, second, norse.LI()).eval()

    first, second, x = make(1), make(2), nets.spikes(2, steps=40, batch=4)
    graph, y = from_torch(first, torch.zeros(2, 1, 5)), played_by_norse(first, x)
    assert type_counts(graph)["Affine"] == 2 + (not straight)
    assert np.ptp(y, axis=0).mean() > 0.01
    load_into(second, graph)
    np.testing.assert_allclose(played_by_norse(second, x), y, rtol=1e-4, atol=1e-6)


def test_weights_and_pools_that_norse_lifts_keep_their_numbers():
    """Norms behind weights that are parametrized, and behind pools, which have none to set."""
    import norse.torch as norse

    def make(seed):
        torch.manual_seed(seed)
        weighted = torch.nn.utils.parametrizations.weight_norm(torch.nn.Conv1d(2, 3, 3))
        norms = torch.nn.BatchNorm1d(3), torch.nn.BatchNorm1d(3)
        for norm in norms:
            torch.nn.init.uniform_(norm.running_var, 0.05, 0.5)
        layers = weighted, norms[0], None, torch.nn.AvgPool1d(2), norms[1], None
        p = norse.LIFParameters(v_th=torch.tensor(0.1))
        lifted = (norse.LIF(p=p) if layer is None else norse.Lift(layer) for layer in layers)
        return norse.SequentialState(*lifted).eval()

    sample = torch.zeros(2, 1, 2, 10)
    round_trip(make, (2, 10), seed=2, play=played_by_norse, sample=sample, batch=4)


def test_a_norm_that_takes_the_batch_for_channels_is_not_in_the_graph():
    import norse.torch as norse

    net = norse.SequentialState(linear(5, 6), torch.nn.BatchNorm1d(1), norse.LIF()).eval()
    (warning,) = from_torch(net, torch.zeros(2, 1, 5)).warnings
    assert (warning.code, warning.severity) == ("outside-graph", "warning")


def test_a_parametric_neuron_has_a_time_constant_for_each(tmp_path):
    def make():
        node = jelly("ParametricLIFNode", v_threshold=0.4, decay_input=False)
        node.w = torch.nn.Parameter(torch.randn(6))
        return sequence(node)

    there_and_back(make, tmp_path / "net.nir")
