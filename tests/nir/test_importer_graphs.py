"""Small networks as each importer gets them: as they are, with nodes added, or not at all; the step of
the file, and the steps by which spikes come later.
"""

import numpy as np
import pytest

from jaxsnn.errors import ConversionError, UsageError
from jaxsnn.nir import build
from jaxsnn.nir.convert.pipeline import convert
from jaxsnn.nir.frameworks.registry import writable


def leaky(scale):
    return build.lif(tau=1e-3 * scale, r=10.0 * scale)


def of_rockpool(scale):
    share = 1e-3 / (1e-2 * scale)
    return build.cubalif(tau_mem=1e-2 * scale, tau_syn=5e-3, r=1 / (share * np.exp(share)))


#: Neuron with scaled time constants, and a dialect whose target runs it as it is.
SUBTRACTS = leaky, {"dialect": "snntorch", "reset": "subtract", "reset_delay": True}
TO_ZERO = leaky, {"dialect": "snntorch", "reset": "zero", "reset_delay": False}
EXACT = (lambda scale: build.cubalif(tau_mem=2e-2 * scale, tau_syn=1e-2)), {"dialect": "jaxsnn"}
SOURCES = {
    **dict.fromkeys(("snntorch", "spyx"), SUBTRACTS),
    **dict.fromkeys(("norse", "spikingjelly", "snn_mlir"), TO_ZERO),
    "sinabs": (
        (lambda scale: build.lif(tau=5.0 * scale)),
        {"dialect": "sinabs", "norm_input": False},
    ),
    "rockpool": (of_rockpool, {"dialect": "rockpool"}),
    **dict.fromkeys(("jaxsnn", "hxtorch"), EXACT),
}
CHAINS = {
    "chain": ["input a n output"],
    "two": ["input a n b m output"],
    "sum": ["input a n b m output", "n m"],
    "fork": ["input a n output", "input b n"],
    "loop": ["input a n output", "n b n"],
    "long loop": ["input a n b m output", "m c n"],
    "late bias": ["input a n biased m output"],
    "uneven": ["input a uneven output"],
    "another step": ["input a n output"],
    "no step": ["input a fires output"],
}
SUMS, EDGE, LATER = "does not add them", "follows only one", "cannot be run"


def written_for(net, target):
    """Number of nodes, types, step in us and steps of delay; or why not."""
    neuron, options = SOURCES[target]
    weight = np.array([[0.3, 0.1], [0.2, 0.4]])
    nodes = {"input": build.input(2), "output": build.output(2), "n": neuron(1.0), "m": neuron(1.0)}
    nodes |= {name: build.linear(weight=weight) for name in "abc"}
    nodes |= {
        "biased": build.affine(weight=weight, bias=0.1),
        "uneven": neuron(np.array([1.0, 2.0])),
    }
    nodes["fires"] = build.integrate_and_fire()
    chains = [tuple(chain.split()) for chain in CHAINS[net]]
    used = {name for chain in chains for name in chain}
    if net == "no step":
        options = {"dialect": "sinabs"}
    try:
        graph = build.network(
            {name: nodes[name] for name in nodes if name in used}, chains, **options
        )
        conversion = convert(graph, to=target, **({"dt": "2ms"} if net == "another step" else {}))
    except (ConversionError, UsageError) as error:
        return str(error)
    kinds = sorted({node.type for node in conversion.graph.nodes.values()} - {"Input", "Output"})
    dt = conversion.graph.dialect.dt
    step = "" if dt is None else f" {1e6 * dt:.0f} us"
    return f"{len(conversion.graph.nodes)} {' '.join(kinds)}{step}" + "".join(
        f" +{late}" for late in conversion.shift.values() if late
    )


EXPECTED = {
    "snntorch": [
        *(
            "4 LIF Linear 100 us",
            "6 LIF Linear 100 us",
            "6 LIF Linear 100 us",
            "5 LIF Linear 100 us",
        ),
        *("6 LIF Linear 100 us", "7 LIF Linear 100 us", "6 Affine LIF Linear 100 us"),
        *("4 LIF Linear 100 us", "only dt = 100 us, not 2 ms", "4 LIF Linear 100 us"),
    ],
    "norse": [
        *("4 LIF Linear 100 us", "6 LIF Linear 100 us", "8 Affine LIF Linear 100 us"),
        *("6 LIF Linear 100 us", "5 LIF Linear 100 us", "7 LIF Linear 100 us"),
        *("6 Affine LIF Linear 100 us", "4 LIF Linear 100 us", "4 LIF Linear 2000 us"),
        "4 CubaLIF Linear 1000 us",
    ],
    "sinabs": [
        *("4 Affine LIF 1000 us", "6 Affine LIF 1000 us", SUMS, SUMS, LATER, LATER),
        *("6 Affine LIF 1000 us", "4 Affine LIF 1000 us", "4 Affine LIF 2000 us"),
        "4 Affine LIF 1000 us",
    ],
    "rockpool": [
        *("4 CubaLIF Linear 1000 us", "6 CubaLIF Linear 1000 us", SUMS, SUMS, LATER, LATER),
        *("6 Affine CubaLIF Linear 1000 us", "4 CubaLIF Linear 1000 us"),
        *("4 CubaLIF Linear 2000 us", "4 CubaLIF Linear 1000 us"),
    ],
    "spyx": [
        *("4 LIF Linear 100 us +1", "6 LIF Linear 100 us +2", SUMS, EDGE, "7 LIF Linear 100 us +1"),
        *("does not consist of one population", "6 Affine LIF 100 us +2"),
        *("4 LIF Linear 100 us +1", "4 LIF Linear 2000 us +1", "4 IF Linear 1000000 us +1"),
    ],
    "spikingjelly": [
        *(
            "4 LIF Linear 100 us",
            "6 LIF Linear 100 us",
            "6 LIF Linear 100 us",
            "5 LIF Linear 100 us",
        ),
        *("5 LIF Linear 100 us", "7 LIF Linear 100 us", "6 Affine LIF Linear 100 us"),
        *("9 Affine LIF Linear 100 us", "4 LIF Linear 2000 us", "4 IF Linear 100 us"),
    ],
    "jaxsnn": [
        *("4 CubaLIF Linear", "6 CubaLIF Linear", "7 CubaLIF Linear", "5 CubaLIF Linear"),
        *("5 CubaLIF Linear", "7 CubaLIF Linear", "has biases up to", "differ in tau_mem"),
        *("4 CubaLIF Linear", "has no synaptic current"),
    ],
    "hxtorch": [
        *("4 CubaLIF Linear", "6 CubaLIF Linear", "sums b, m_weights, and the importer does not"),
        *("sums a, b, and the importer does not", *["before that layer has run"] * 2),
        *("has biases up to", "differ in tau_mem", "4 CubaLIF Linear"),
        "has no synaptic current",
    ],
    "snn_mlir": [
        *("4 LIF Linear 100 us", "6 LIF Linear 100 us", SUMS, EDGE, LATER, LATER),
        *(
            "6 Affine LIF Linear 100 us",
            "differ in the membrane time constant",
            "4 LIF Linear 2000 us",
        ),
        "its reset subtracts v_threshold",
    ],
}


@pytest.mark.parametrize("target", writable())
def test_importers_get_what_they_take(target):
    for net, expected in zip(CHAINS, EXPECTED[target], strict=True):
        assert expected in written_for(net, target), net
