"""Networks of the corpus on the chip: from_torch, fit, quantize, and a mapping or a refusal with its reason."""

import functools

import numpy as np
import pytest

from jaxsnn import check_mapping, compare_resets, from_torch, place_and_route, quantize
from jaxsnn.errors import MappingError
from jaxsnn.train import fit
from tests.helpers.refusals import assert_refused
from tests.interop.modules.corpus import CORPUS

pytestmark = pytest.mark.interop
SOURCE = {"bias": "source"}
NEAREST = SOURCE | {"approximate": True}
#: Networks, and the options with which they are mapped.
MAPPED = [
    ("snntorch-StaticImage", NEAREST),
    ("snntorch-StaticImage", SOURCE | {"reset": "zero"}),
    ("snntorch-Unbound", NEAREST | {"reset": {"lif2": "none"}}),
    ("snntorch-ManySynaptic", NEAREST),
    ("snntorch-Recurrent", NEAREST),
    ("snntorch-Residual", NEAREST),
    ("snntorch-Decoder", NEAREST),
    ("snntorch-WithParameter", {"approximate": True}),
    ("snntorch-Subclassed", SOURCE),
    ("norse-VoltageDecoder", {}),
    ("norse-SequentialLoop", SOURCE),
    ("spikingjelly-CountedSpikes", {}),
    ("spikingjelly-Blocks", SOURCE),
]
POOLS = "use sum or average pools instead of max pools"
#: Networks, options, and patterns of the refusal and of its fix.
REFUSED = [
    ("snntorch-StaticImage", {}, "subtracts its threshold at a reset", "approximate=True"),
    ("snntorch-StaticImage", {"approximate": True}, r"has biases \(6 of 6", 'bias="source"'),
    ("snntorch-Unbound", NEAREST, "'lif2' .* is a readout that resets", 'reset={"lif2": "none"}'),
    ("snntorch-LinearHead", NEAREST, r"records node 'head' \(Affine\)", "from recorded spikes"),
    ("snntorch-SequentialMaxPool", NEAREST, r"'net.1' \(MaxPool2d\) is not supported", POOLS),
    ("norse-ConvolutionalStates", NEAREST, r"'max_pool2d' \(Threshold\) is not", POOLS),
    ("snntorch-AlphaNeurons", NEAREST, r"'lif1' \(Alpha\) is not supported", "use CubaLIF"),
    ("norse-Refractory", NEAREST, r"'lif1' \(LIFRefrac\) is not supported", "use CubaLIF"),
    ("spikingjelly-OneStepNet", NEAREST, r"'sn1' \(IF\) .* does not leak", "use CubaLIF"),
]


@functools.cache
def graph_of(name):
    """The graph of a network of the corpus."""
    entry = next(entry for entry in CORPUS if entry.name == name)
    return from_torch(entry.module, entry.sample)


def input_shape(graph):
    return tuple(np.ravel(graph.nodes[graph.inputs[0]].value("shape")).tolist())


def assert_mapped(graph, options):
    """Assert that the mapping of a graph has no violation; return the quantised graph."""
    quantized = quantize(graph, **options)
    outcome = place_and_route(quantized.netlist)
    assert outcome.stop_reason == "fits"
    assert check_mapping(outcome.mapping, quantized.netlist) == ()
    return quantized


@pytest.mark.parametrize(("name", "options"), MAPPED)
def test_a_module_is_mapped(name, options):
    graph = graph_of(name)
    quantized = assert_mapped(graph, options)
    changed = quantized.approximated_resets
    assert bool(changed) == options.get("approximate", False)
    if changed:
        x = np.random.default_rng(0).uniform(0, 1, (12, 2, *input_shape(graph)))
        compared = compare_resets(graph, {"x": x.astype(np.float32)}).populations
        assert {*changed} <= {*compared}


@pytest.mark.slow
@pytest.mark.parametrize(("name", "options"), MAPPED)
def test_a_trained_module_is_mapped(name, options):
    graph, rng = graph_of(name), np.random.default_rng(0)
    data = rng.uniform(0, 1, (20, *input_shape(graph))), rng.integers(0, 2, 20)
    assert_mapped(fit(graph, data, epochs=1, progress=None).graph, options)


@pytest.mark.parametrize(("name", "options", "message", "fix"), REFUSED)
def test_a_refusal_of_a_module_names_the_node_and_the_fix(name, options, message, fix):
    assert_refused(lambda: quantize(graph_of(name), **options), MappingError, message, fix=fix)
