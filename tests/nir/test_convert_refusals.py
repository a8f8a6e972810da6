"""What an importer cannot express is refused, with the node and the way out: a row for each refusal."""

import dataclasses

import numpy as np
import pytest

from jaxsnn import TimeStepped, lower, simulate
from jaxsnn.errors import ConversionError, DialectError, JaxsnnError, UsageError
from jaxsnn.nir import build, read
from jaxsnn.nir.convert.pipeline import convert
from jaxsnn.nir.dialects.inference import resolve
from jaxsnn.nir.initializers import normal
from tests.helpers.refusals import assert_refused
from tests.nir.conversions import (
    FLAT,
    NORSE,
    SINABS,
    SUBTRACTS,
    TO_ZERO,
    convolution,
    image,
    leaky,
    network,
)

CURRENT = {"tau_mem": 0.02, "tau_syn": 0.01}


def chain(*layers, inputs=3, **options):
    return build.sequential(build.input(inputs), *layers, **({"seed": 0} | options))


def wired(chains, options, **layers):
    """Named layers between an Input of 3 and an Output."""
    layers |= {"in": build.input(3), "out": build.output()}
    used = {name for chain in chains for name in chain}
    nodes = {name: layer for name, layer in layers.items() if name in used}
    return build.network(nodes, chains, seed=0, **options)


def snntorch(**options):
    neurons = build.linear(4), leaky(), build.linear(4), leaky()
    return chain(*neurons, **(TO_ZERO | options))


def two_heads():
    heads = {"fa": build.affine(4), "fb": build.affine(2), "la": leaky(), "lb": leaky()}
    return wired([("in", "fa", "la", "out"), ("in", "fb", "lb", "out")], TO_ZERO, **heads)


def looped(options=TO_ZERO, neuron=None):
    layers = {"w": build.linear(4), "a": neuron or leaky(), "back": build.linear(4)}
    return wired([("in", "w", "a", "out"), ("a", "back", "a")], options, **layers)


def summed(options=TO_ZERO, neuron=None):
    layers = {"w": build.linear(4), "a": neuron or leaky(), "v": build.linear(4)}
    return wired([("in", "w", "a", "out"), ("in", "v", "a")], options, **layers)


def readout_in_a_loop():
    layers = {"w": build.linear(2), "li": build.li(tau=1e-3), "lif": build.lif(tau=1e-3)}
    chains = [("in", "w", "li", "lif", "out"), ("lif", "back", "li")]
    return wired(chains, NORSE | {"reset": "zero"}, back=build.linear(2), **layers)


def resetting_readout():
    graph = chain(build.linear(2), leaky(), **SUBTRACTS | {"readout": "2"})
    both = {"2": {"readout": True, "reset": "subtract"}}
    return dataclasses.replace(graph, dialect=dataclasses.replace(graph.dialect, nodes=both))


def negative(**signs):
    """Negative gains make negative weights positive."""
    numbers = {"tau_mem": 2e-3, "tau_syn": 2e-3, "v_threshold": 1.0, "v_reset": 0.0, "v_leak": 0.0}
    entry = {name: np.array([value]) for name, value in (numbers | signs).items()}
    layers = build.node("Linear", weight=np.array([[-6.0, -6.0]])), build.node("CubaLIF", **entry)
    options = {"dialect": "norse==importer", "dt": "1ms", "reset": "subtract"}
    return chain(*layers, inputs=2, **options)


def alternating():
    """A current that changes its sign in each step, which the time-stepped engine runs."""
    neuron = build.cubalif(4, tau_mem=10e-6, tau_syn=1e-3 / 1500, w_in=1.0, r=1.0)
    return chain(build.linear(4), neuron, dialect="norse", dt=1e-3, dt_export=1e-3)


def exact(*layers, **options):
    """Layers that solve the equations, as the library of the Electronic Vision(s) group writes them."""
    return chain(*layers, **({"dialect": "jaxsnn"} | options))


def exact_loop(chains):
    layers = {name: build.linear(4) for name in ("w", "v", "back")}
    layers |= {name: build.cubalif(**CURRENT) for name in ("a", "b")}
    return wired(chains, {"dialect": "jaxsnn"}, **layers)


def equations(**options):
    """Two layers in continuous time, with something else than what their file would say."""
    layers = [part for _ in range(2) for part in (build.linear(4), build.cubalif(**CURRENT))]
    plain = chain(*layers, dialect="nir", time_unit="s", spike_kernel="delta")
    return plain.with_dialect(resolve(plain, "nir", time_unit="s", **options))


def delayed(delay, **options):
    layers = build.linear(4), build.node("Delay", delay=delay), build.lif(tau=4e-3, r=1.0)
    return chain(*layers, inputs=4, **NORSE | options)


def pixels(delay):
    kernels = [convolution(seed, 2, 2) for seed in (0, 1)]
    late = build.node("Delay", delay=np.full((2, 8, 8), delay))
    return image(kernels[0], late, kernels[1], leaky(), FLAT)


OF_SINABS, BURSTING = (
    build.lif(tau=10.0, r=1.0),
    build.cubalif(tau_mem=0.01, tau_syn=0.01, r=10 * np.exp(-0.1)),
)
READOUT = build.li(tau=20.0, r=1.0), build.lif(tau=10.0)
THREE, FIVE = (
    ("snntorch", "norse", "spikingjelly"),
    ("snntorch", "norse", "spikingjelly", "sinabs", "snn_mlir"),
)
EXACT, LOSSY = ("jaxsnn", "hxtorch"), "approximate=True"
#: Graph, importers, pattern of the message, and its fix.
REFUSED = {
    "heads of different sizes": (
        two_heads, ("norse",), r"'la' of shape \(4,\) and 'lb' of shape \(2,\)", "use a separate Output"
    ),
    "a reset to a value": (snntorch, ("spyx",), "node '2'.*resets to a value", LOSSY),
    "a readout": (
        lambda: snntorch(readout="4"), ("spyx",), r"node '4' \(leaky readout", "by a spiking neuron"
    ),
    "spikes of neurons that never reset": (
        lambda: snntorch(reset="none"), FIVE, "node '2' never resets", ""
    ),
    "a membrane of a neuron that resets": (
        resetting_readout, ("snntorch",), "node '2' outputs its membrane potential and resets", ""
    ),
    "a current that changes its sign": (
        alternating, ("snntorch", "spikingjelly", "sinabs"), r"decays by the factor -0\.5 per time step", ""
    ),
    "a readout in a loop": (readout_in_a_loop, ("snntorch",), "form a loop", ""),
    "several spikes of a membrane": (
        lambda: chain(build.linear(1, weight=[[4.0]]), *READOUT, inputs=1, **SINABS),
        THREE, "several spikes per time step", "",
    ),
    "a Threshold of bursts": (
        lambda: chain(
            build.linear(3), BURSTING, build.node("Threshold", threshold=0.5),
            dialect="rockpool", dt="1ms",
        ),
        ("rockpool",), r"node '3' \(Threshold\)", "",
    ),
    "half a step": (lambda: delayed(5e-4), ("norse",), r"'2' .* 0\.0005 s, .* time steps: 0\.5", ""),
    "too many steps": (
        lambda: delayed(1e300), ("norse",), r"4 channels .* 1e\+303 time steps, .* limit is 8388608", ""
    ),
    "a delay": (lambda: delayed(1e-3), ("spyx",), r"does not support node '2' \(Delay\)", ""),
    "half steps of pixels": (
        lambda: pixels(5e-5), ("norse",),
        r"node '2' \(Delay\).* with matrices instead of .* '2' .* time steps: 0\.5", "choose a dt",
    ),
    "delays of pixels": (lambda: pixels(5e-5), ("spyx",), r"^(?!.*matrices).*node '2' \(Delay\)", ""),
    # Sinabs, Rockpool, snn-mlir: chains of whole layers.
    "membranes put to a value": (
        lambda: network("snntorch", "zero"), ("rockpool",), "membrane potential to a value", LOSSY
    ),
    "subtraction one step later": (
        lambda: network("snntorch", "subtract"), ("rockpool",), "one time step later", LOSSY
    ),
    "subtraction later": (
        lambda: network("snntorch", "subtract"), ("sinabs",), r"\(subtract later\)", LOSSY
    ),
    "one spike at most": (
        lambda: network("spikingjelly", "subtract"), ("rockpool",), "one spike .* can reach", LOSSY
    ),
    "a loop": (
        lambda: looped(SINABS, OF_SINABS), ("sinabs", "rockpool"), "the loop through", "supports loops"
    ),
    "a sum": (lambda: summed(SINABS, OF_SINABS), ("sinabs", "rockpool"), "does not add them", ""),
    "a membrane": (
        lambda: chain(build.linear(4), OF_SINABS, build.linear(2), build.li(tau=5.0), **SINABS),
        ("rockpool",), "the importer has no such neuron", "",
    ),
    "a negative w_in": (
        lambda: negative(r=1.0, w_in=-1.0), ("rockpool",), r"can reach 6\.\d", ""
    ),
    "a negative r": (lambda: negative(r=-1.0, w_in=1.0), ("rockpool",), r"can reach 6\.\d", ""),
    "a loop for snn-mlir": (looped, ("snn_mlir",), "loop|feeds", ""),
    "subtraction for snn-mlir": (lambda: snntorch(reset="subtract"), ("snn_mlir",), "subtracts", ""),
    "several time constants for snn-mlir": (
        lambda: chain(
            build.linear(2), leaky(np.array([1e-3, 2e-3]), np.array([10.0, 20.0])), **TO_ZERO
        ),
        ("snn_mlir",), "node '2': its neurons differ in the membrane time constant", "",
    ),
    # Importers that solve the equations.
    "a bias": (
        lambda: exact(build.affine(4, bias=0.1), build.cubalif(**CURRENT)),
        EXACT, r"node '1' has biases up to 0\.1", "add an input channel",
    ),
    "no current": (
        lambda: exact(build.linear(4), build.lif(tau=0.02)), EXACT,
        r"node '2' \(LIF\) has no synaptic current", "use CubaLIF",
    ),
    **{
        f"{key} that differs": (
            lambda key=key: exact(
                build.linear(2), build.cubalif(**CURRENT | {key: np.array([0.02, 0.01])})
            ),
            ("jaxsnn",), f"its neurons differ in {key}", "",
        )
        for key in ("v_leak", "v_reset", "tau_syn")
    },
    "different time constants": (
        lambda: exact(build.linear(2), build.cubalif(tau_mem=np.array([0.02, 0.01]), tau_syn=0.01)),
        EXACT, r"differ in tau_mem \(10 to 20\)", "split the layer",
    ),
    "weights at the end": (
        lambda: exact(build.linear(2), build.cubalif(**CURRENT), build.linear(2)),
        EXACT, "must receive one population", "connect it to one population",
    ),
    "other ratios of time constants": (
        lambda: exact(build.linear(4), build.cubalif(tau_mem=15e-3, tau_syn=10e-3)),
        ("jaxsnn",), "tau_mem is 15 ms and tau_syn 10 ms", "",
    ),
    "a readout of currents": (
        lambda: exact(
            build.linear(4), build.cubalif(**CURRENT), build.linear(2), build.cubali(**CURRENT)
        ),
        ("jaxsnn",), "supports only CubaLIF", "convert for hxtorch",
    ),
    "a start elsewhere than at the leak": (
        lambda: exact(build.linear(4), build.cubalif(**CURRENT, v_leak=0.3)),
        ("hxtorch",), r"in hxtorch at v_leak = 0\.3", "",
    ),
    "a layer that hears itself": (
        lambda: exact_loop([("in", "w", "a", "out"), ("a", "back", "a")]),
        ("hxtorch",), "the loop through", "",
    ),
    "a sum of layers": (
        lambda: exact_loop([("in", "w", "a", "v", "b", "out"), ("in", "back", "b")]),
        ("hxtorch",), "sums", "",
    ),
    "time steps": (
        lambda: exact(build.linear(4), build.cubalif(tau_mem=1e-3, tau_syn=5e-4, r=10.0, w_in=5.0), **TO_ZERO),
        ("jaxsnn",), "is time-stepped", "",
    ),
    "spikes that last": (
        lambda: equations(spike_area="1ms"), EXACT, "a rectangular pulse in the source framework", ""
    ),
    "neurons that never reset": (
        lambda: equations(spike_kernel="delta", reset="none"), EXACT, "never resets", ""
    ),
    "a membrane that resets": (
        lambda: equations(spike_kernel="delta", readout="4", reset="4:zero"),
        EXACT, "outputs its membrane potential and resets", "",
    ),
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "target"), [(name, to) for name, (_, targets, *_) in REFUSED.items() for to in targets]
)
def test_what_an_importer_cannot_express_is_refused(name, target):
    make, _, says, fix = REFUSED[name]
    graph = make()
    assert_refused(lambda: convert(graph, to=target), ConversionError, says, fix=fix)
    if fix == LOSSY:
        losses = convert(graph, to=target, approximate=True).losses
        assert losses


def test_losses_name_all_nodes_that_lose():
    losses = convert(snntorch(), to="spyx", approximate=True).losses
    assert len(losses) >= 2
    assert {loss[0] for loss in losses} <= set("24")


def test_the_engine_runs_a_current_that_changes_its_sign():
    steps = simulate(lower(alternating()), np.full((60, 2, 3), 300.0), engine=TimeStepped())
    assert int(np.asarray(steps.output()).sum()) > 0


UNDECIDED = chain(build.linear(4), build.lif(tau=5e-3), dialect="norse")
CONTINUOUS = chain(build.linear(4, weight=normal(1.0, 0.5)), build.cubalif(**CURRENT))


@pytest.mark.parametrize(
    ("make", "options", "error", "says"),
    [
        (lambda: snntorch(reset=None), {"to": "norse"}, DialectError, "node '2': .* needs reset"),
        (lambda: UNDECIDED, {"to": "snntorch"}, DialectError, "needs dt"),
        (lambda: UNDECIDED, {"to": "nors"}, UsageError, "did you mean 'norse'"),
        (lambda: UNDECIDED, {"to": "nir"}, UsageError, "no conversion to 'nir'"),
        (lambda: CONTINUOUS, {"to": "norse", "approximate": True}, DialectError, "needs dt"),
        (lambda: CONTINUOUS, {"to": "norse", "dt": "100us"}, ConversionError, "continuous time"),
        (snntorch, {"to": "snntorch", "dt": "1ms"}, UsageError, "supports only dt = 100 us"),
    ],
)
def test_what_is_not_known_is_asked_for(make, options, error, says):
    assert_refused(lambda: convert(make(), **options), error, says)


@pytest.mark.parametrize(
    ("make", "options", "facts"),
    [
        (
            lambda: summed(SINABS, build.lif(tau=5.0)),
            {"to": "sinabs"},
            {"framework": "Sinabs", "node": "a", "sources": "v, w"},
        ),
        (looped, {"to": "sinabs"}, {"framework": "Sinabs", "nodes": "a, back"}),
        (
            lambda: snntorch(readout="4"),
            {"to": "spyx"},
            {"framework": "Spyx", "node": "4"},
        ),
        (
            snntorch,
            {"to": "snntorch==1.0", "dt": "1ms"},
            {"framework": "snnTorch", "expected": 1e-4, "actual": 1e-3},
        ),
        (snntorch, {"to": "nors"}, {"framework": "nors"}),
        (lambda: snntorch(reset=None), {"to": "norse"}, {"field": "reset", "dialect": "snntorch"}),
        (
            lambda: CONTINUOUS,
            {"to": "norse", "dt": "100us"},
            {"framework": "Norse", "dialect": "jaxsnn"},
        ),
    ],
)
def test_refusals_hold_their_numbers_and_names(make, options, facts):
    with pytest.raises(JaxsnnError) as caught:
        convert(make(), **options)
    refused = caught.value.problem.as_dict()["facts"]
    assert {name: refused.get(name) for name in facts} == facts


def test_two_outputs_are_refused(zoo):
    graph = read(zoo["jaxsnn_b_cubalif_2out"], dialect="jaxsnn", time_unit="ms")
    says = r"one Input node, .* 2 .input, input_output_h.*: .*and 1 more problem\)"
    options = {"to": "norse", "dt": "100us", "approximate": True}
    assert_refused(lambda: convert(graph, **options), ConversionError, says)
