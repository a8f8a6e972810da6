"""The grid engine beside the frameworks themselves: random networks, every kind of neuron and
reset; gradients.
"""

import itertools

import jax
import jax.numpy as jnp
import nir
import numpy as np
import pytest

from jaxsnn import (
    ArcTan,
    FastSigmoid,
    Sigmoid,
    StraightThrough,
    TimeStepped,
    lower,
    simulate,
    verify,
)
from jaxsnn.grid.stepped_solution import approximations
from jaxsnn.nir import parse, read
from tests.helpers.random_spikes import random_raster

pytestmark = [pytest.mark.interop, pytest.mark.usefixtures("one_torch_thread")]
STEPS, BATCH = 60, 12


def spikes(seed, channels=5):
    return random_raster(seed, (STEPS, BATCH, channels))


def snntorch_net(kind, seed, **options):
    """Two layers of one kind of neuron, with vectors of random decays and thresholds as its
    exporter wants them.
    """
    import snntorch as snn
    import torch

    torch.manual_seed(seed)

    def layer(size):
        vectors = {"beta": torch.rand(size) * 0.3 + 0.6, "threshold": torch.rand(size) * 0.3 + 0.4}
        if "Synaptic" in kind:
            vectors["alpha"] = torch.rand(size) * 0.4 + 0.3
        if kind.startswith("R"):
            vectors |= {"linear_features": size, "all_to_all": True}
        return getattr(snn, kind)(**vectors, **options)

    net = torch.nn.ModuleList([torch.nn.Linear(5, 20), layer(20), torch.nn.Linear(20, 4), layer(4)])
    with torch.no_grad():
        net[2].weight *= 3
    return net


def snntorch_play(net, x):
    """Output spikes, and the last layer's membranes."""
    import torch

    sizes, state, out, membranes = (20, 4), {}, [], []
    for frame in torch.as_tensor(x):
        signal = frame
        for number, size in enumerate(sizes):
            neuron = net[2 * number + 1]
            sends_state = type(neuron).__name__.startswith("R")
            states = sends_state + hasattr(neuron, "alpha") + 1
            before = state.get(number) or (torch.zeros(len(frame), size),) * states
            after = neuron(net[2 * number](signal), *before)
            signal, state[number] = after[0], after if sends_state else after[1:]
        out.append(signal)
        membranes.append(state[1][-1])
    return torch.stack(out), torch.stack(membranes)


def snntorch_graph(net, **options):
    """The network as snnTorch's exporter writes it, by hand for those that it cannot trace one
    after the other.
    """

    def numbers(tensor):
        return tensor.detach().numpy().copy()

    def affine(linear):
        return nir.Affine(numbers(linear.weight), numbers(linear.bias))

    nodes, edges, last = {"input": nir.Input(np.array([5]))}, [], "input"
    for number in (0, 1):
        linear, neuron = net[2 * number], net[2 * number + 1]
        w, n, r = f"w{number}", f"n{number}", f"r{number}"
        beta, threshold, dt = numbers(neuron.beta), numbers(neuron.threshold), np.float32(1e-4)
        zero, tau = np.zeros_like(beta), dt / (1 - beta)
        common = {"r": tau / dt, "v_threshold": threshold, "v_leak": zero, "v_reset": zero}
        if hasattr(neuron, "alpha"):
            tau_syn = dt / (1 - numbers(neuron.alpha))
            node = nir.CubaLIF(tau_mem=tau, tau_syn=tau_syn, w_in=tau_syn / dt, **common)
        else:
            node = nir.LIF(tau=tau, **common)
        nodes |= {w: affine(linear), n: node}
        edges += [(last, w), (w, n)]
        if hasattr(neuron, "recurrent"):
            nodes[r] = affine(neuron.recurrent)
            edges += [(n, r), (r, n)]
        last = n
    nodes["output"] = nir.Output(np.array([4]))
    return parse(nir.NIRGraph(nodes, [*edges, (last, "output")]), dialect="snntorch", **options)


KINDS = ("Leaky", "Synaptic", "RLeaky", "RSynaptic")


def assert_fires(graph, x, y, active=10):
    verification = verify(graph, x, y)
    assert verification.first_difference is None
    assert verification.active >= active
    return verification


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("reset", ["zero", "subtract", "none"])
@pytest.mark.parametrize("delay", [True, False])
def test_snntorch_fires_the_same(kind, reset, delay):
    net = snntorch_net(kind, seed=3, reset_mechanism=reset, reset_delay=delay)
    x = spikes(seed=KINDS.index(kind))
    y, _ = snntorch_play(net, x)
    graph = snntorch_graph(net, reset=reset, reset_delay=delay)
    verification = assert_fires(graph, x, y.detach().numpy(), active=20)
    assert verification.spikes_expected < 0.99 * STEPS * BATCH * 4
    # snnTorch's RSynaptic always resets one step late, and the notes report this.
    assert len(approximations(lower(graph))) == 2 * (kind == "RSynaptic" and not delay)


FAST_SIGMOID = (FastSigmoid(slope=25.0), "fast_sigmoid", {"slope": 25})
SURROGATES = (
    FAST_SIGMOID,
    (FastSigmoid(slope=7.0), "fast_sigmoid", {"slope": 7}),
    (ArcTan(alpha=2.0), "atan", {"alpha": 2.0}),
    # snnTorch's derivative is NaN where slope |V - v_threshold| is above 88.
    (Sigmoid(slope=1.0), "sigmoid", {"slope": 1}),
    (StraightThrough(), "straight_through_estimator", {}),
)


def assert_same_slope(slope, tensor):
    """Compare a gradient with that of a torch parameter."""
    expected = tensor.grad.numpy()
    largest = np.abs(expected).max()
    assert largest > 0
    np.testing.assert_allclose(slope, expected, rtol=1e-3, atol=1e-4 * largest)


@pytest.mark.parametrize(
    ("surrogate", "kind", "reset", "delay"),
    [
        *((surrogate, "Leaky", "zero", True) for surrogate in SURROGATES),
        *((surrogate, "RSynaptic", "subtract", True) for surrogate in SURROGATES),
        *itertools.product([FAST_SIGMOID], KINDS[:3], ("zero", "subtract"), (True, False)),
    ],
)
def test_snntorch_gives_the_same_gradient(surrogate, kind, reset, delay):
    """Gradients of a loss of spikes and membranes by weights, biases, thresholds and decays, of
    torch and of jaxsnn.
    """
    import torch
    from snntorch import surrogate as surrogates

    ours, name, options = surrogate
    learnt = {"learn_beta": True, "learn_threshold": True}
    learnt |= {"learn_alpha": True} if "Synaptic" in kind else {}
    options = learnt | {"spike_grad": getattr(surrogates, name)(**options)}
    net = snntorch_net(kind, seed=5, reset_mechanism=reset, reset_delay=delay, **options)
    x = spikes(seed=11)
    weights = np.random.default_rng(1).normal(size=(2, STEPS, BATCH, 4)).astype(np.float32)
    y, v = snntorch_play(net, x)
    (torch.as_tensor(weights[0]) * y + torch.as_tensor(weights[1]) * v).sum().backward()
    network = lower(snntorch_graph(net, reset=reset, reset_delay=delay))
    engine = TimeStepped(surrogate=ours, record=("n1",))

    def loss(parameters):
        solution = simulate(network.with_parameters(parameters), x, engine=engine, throw=False)
        return jnp.sum(weights[0] * solution.output() + weights[1] * solution.voltages["n1"])

    slopes = jax.grad(loss)(network.parameters)
    for number in (0, 1):
        linear, neuron = net[2 * number], net[2 * number + 1]
        layers = {"w": linear} | ({"r": neuron.recurrent} if kind.startswith("R") else {})
        for prefix, layer in layers.items():
            assert_same_slope(slopes[f"{prefix}{number}"]["weight"], layer.weight)
            assert_same_slope(slopes[f"{prefix}{number}"]["bias"], layer.bias)
        slope, parameters = slopes[f"n{number}"], network.parameters[f"n{number}"]
        assert_same_slope(slope["v_threshold"], neuron.threshold)
        assert_same_slope(slope["r"] * parameters["r"] ** 2, neuron.beta)  # beta = 1 - 1/r
        if "Synaptic" in kind:
            assert_same_slope(slope["w_in"] * parameters["w_in"] ** 2, neuron.alpha)


NORSE = {
    "LIFBoxCell": ("lif_box", "LIFBoxParameters"),
    "LIFCell": ("lif", "LIFParameters"),
    "IAFCell": ("iaf", "IAFParameters"),
}


def norse_net(cell):
    import norse.torch as norse
    import torch

    torch.manual_seed(2)
    module, parameters = NORSE[cell]

    def layer(size):
        numbers = {"v_th": torch.rand(size) * 0.2 + 0.2}
        if cell != "IAFCell":
            numbers["tau_mem_inv"] = 1 / (torch.rand(size) * 0.02 + 0.005)
            numbers["v_leak"] = torch.rand(size) * 0.1 - 0.05
        if cell == "LIFCell":
            numbers["tau_syn_inv"] = 1 / (torch.rand(size) * 0.01 + 0.003)
        record = getattr(getattr(norse.functional, module), parameters)(**numbers)
        return getattr(getattr(norse.module, module), cell)(record)

    linear = scaled_linear((5, 20, 4), (4, 8))
    return norse.SequentialState(linear[0], layer(20), linear[1], layer(4))


def scaled_linear(sizes, gains):
    """Two Linear layers, whose initial weights are multiplied by a gain."""
    import torch

    layers = [torch.nn.Linear(*pair) for pair in itertools.pairwise(sizes)]
    with torch.no_grad():
        for layer, gain in zip(layers, gains, strict=True):
            layer.weight *= gain
    return layers


@pytest.mark.parametrize("cell", NORSE)
def test_norse_fires_the_same(cell, tmp_path):
    import torch
    from norse.torch.utils import export_nir as export

    net, x = norse_net(cell), spikes(seed=4)
    nir.write(tmp_path / "a.nir", export.to_nir(net, torch.zeros(1, 5)))
    state, out = None, []
    with torch.no_grad():
        for frame in torch.as_tensor(x):
            y, state = net(frame, state)
            out.append(y.numpy())
    graph = read(tmp_path / "a.nir", dialect="norse", dt=1e-3, dt_export=1e-3)
    assert_fires(graph, x, np.stack(out))


def test_norse_gives_the_same_gradient():
    """Resets are part of Norse's gradient; its "super" is a fast sigmoid of slope 1, whatever its
    alpha.
    """
    import torch
    from norse.torch.utils import export_nir as export

    net, x = norse_net("LIFBoxCell"), spikes(seed=4)
    exported = export.to_nir(net, torch.zeros(1, 5))
    network = lower(parse(exported, dialect="norse", dt=1e-3, dt_export=1e-3))
    weights = np.random.default_rng(1).normal(size=(STEPS, BATCH, 4)).astype(np.float32)
    state, total = None, 0.0
    for frame, factor in zip(torch.as_tensor(x), torch.as_tensor(weights), strict=True):
        y, state = net(frame, state)
        total = total + (factor * y).sum()
    total.backward()
    engine = TimeStepped(surrogate=FastSigmoid(slope=1.0))

    def loss(parameters):
        changed = network.with_parameters(parameters)
        return jnp.sum(weights * simulate(changed, x, engine=engine, throw=False).output())

    slopes = jax.grad(loss)(network.parameters)
    layers = [part for part in net.modules() if hasattr(part, "bias")]
    for name, layer in zip(("0", "2"), layers, strict=True):
        assert_same_slope(slopes[name]["weight"], layer.weight)
        assert_same_slope(slopes[name]["bias"], layer.bias)


#: CUBALIFNode leaks to 0, wherever it resets; LIFNode leaks to v_reset.
CUBA_OPTIONS = {"c_decay": 0.4, "v_decay": 0.2, "v_threshold": 0.9}


@pytest.mark.parametrize(
    ("seed", "gains", "kind", "options", "reading"),
    [
        *(
            (
                6,
                (2, 4),
                "LIFNode",
                [{"tau": tau, "decay_input": decay, "v_reset": v_reset, "v_threshold": 0.5}
                 for tau in (3.0, 2.0)],
                {"dt": 1e-4},
            )
            for decay in (True, False)
            for v_reset in (0.0, 0.2)
        ),
        *(
            (7, (3, 6), "CUBALIFNode", 2 * [CUBA_OPTIONS | {"v_reset": v_reset}], {})
            for v_reset in (0.0, -0.3)
        ),
    ],
)  # fmt: skip
def test_spikingjelly_fires_the_same(seed, gains, kind, options, reading, tmp_path):
    import torch
    from spikingjelly.activation_based import functional, neuron
    from spikingjelly.activation_based import nir_exchange as exchange

    torch.manual_seed(seed)
    linear = scaled_linear((5, 20, 4), gains)
    neurons = [getattr(neuron, kind)(**numbers) for numbers in options]
    net = torch.nn.Sequential(linear[0], neurons[0], linear[1], neurons[1])
    nir.write(tmp_path / "a.nir", exchange.export_to_nir(net, torch.zeros(1, 5), dt=1e-4))
    functional.reset_net(net)
    x = spikes(seed=8)
    with torch.no_grad():
        y = np.stack([net(frame).numpy() for frame in torch.as_tensor(x)])
    assert_fires(read(tmp_path / "a.nir", dialect="spikingjelly", **reading), x, y)
