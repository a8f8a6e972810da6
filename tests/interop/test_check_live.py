"""`check` against the importers themselves: a file that is fine runs with the source's spikes as it
is, and a file that needs a conversion fails or fires others.
"""

import contextlib
import io

import numpy as np
import pytest

from jaxsnn import TimeStepped, check, simulate
from jaxsnn.compatibility.matrix import matrix
from jaxsnn.nir import build, write
from jaxsnn.nir.convert.pipeline import convert
from tests.helpers.zoo import FACTS, RECORDED
from tests.interop.players import compare, play

TARGETS = ("norse", "snntorch", "spikingjelly")
SNNTORCH = {"dialect": "snntorch", "reset": "zero", "reset_delay": False}
NORSE = {"dialect": "norse==importer", "reset": "zero", "dt": 1e-4}
SPIKINGJELLY = {"dialect": "spikingjelly", "dt": 1e-4}
pytestmark = [pytest.mark.interop, pytest.mark.slow]

DIALECTS = {"norse": NORSE, "snntorch": SNNTORCH, "spikingjelly": SPIKINGJELLY}
#: Multiples of 0.5, whose sums meet a threshold of 1 exactly.
WEIGHT = np.array([[1.0, 0.5, -0.5], [0.5, 1.0, 1.0], [1.0, -0.5, 1.0]], np.float32)
CHAINS = {
    "chain": ["input a n output"],
    "two": ["input a n b m output"],
    "branches": ["input a n output", "input b n"],
    "skip": ["input a n b m output", "n m"],
    "Outputs": ["input a n output", "input b m output"],
    "loop": ["input a n output", "n b n"],
    "long loop": ["input a n b m output", "m c n"],
    "biased loop": ["input a n output", "n biased n"],
    "Threshold": ["input a n b t output"],
    "names": ["input z n a2 m output"],
    "no Output": ["input a n output", "n b m"],
}


def lif(source, **others):
    """A neuron that keeps 0.9 (Norse: half) of its membrane and jumps by (Norse: half) the weight."""
    return build.lif(
        **({"tau": 2e-4, "r": 1.0} if source == "norse" else {"tau": 1e-3, "r": 10.0}), **others
    )


def network(chains, source):
    """A graph of three channels in the dialect of a source."""
    chains = [tuple(chain.split()) for chain in chains]
    nodes = {"input": build.input(3), "output": build.output(3)}
    tau, r = (2e-4, 1.0) if source == "norse" else (1e-3, 10.0)
    nodes |= {name: build.lif(tau=tau, r=r) for name in ("n", "m")}
    nodes |= {name: build.linear(weight=WEIGHT) for name in ("a", "a2", "b", "c", "z")}
    nodes["biased"] = build.affine(weight=WEIGHT, bias=np.array([0.5, 1.5, 0.5], np.float32))
    nodes["t"] = build.node("Threshold", threshold=np.full(3, 0.5, np.float32))
    used = {name for chain in chains for name in chain}
    nodes = {name: node for name, node in nodes.items() if name in used}
    return build.network(nodes, chains, **DIALECTS[source])


def imported(graph, target, x, path):
    """Spikes of a file as it is in the importer, told nothing but the step; None where it fails."""
    with contextlib.redirect_stderr(io.StringIO()):
        write(path, graph)
    dt = graph.dialect.dt
    load = {
        "norse": f"norse.torch.from_nir(nir.read({str(path)!r}), dt={dt!r})",
        "snntorch": f"import_from_nir(nir.read({str(path)!r}))",
        "spikingjelly": f"import_from_nir(nir.read({str(path)!r}), dt={dt!r})",
    }[target]
    module = {
        "norse": "import norse.torch",
        "snntorch": "from snntorch.import_nir import import_from_nir",
        "spikingjelly": "from spikingjelly.activation_based.nir_exchange import import_from_nir",
    }[target]
    try:
        return play(f"import nir; {module}; net = {load}", target, x)
    except Exception:
        return None


def agrees(graph, target, path):
    """Whether the importer fires the spikes of the source, which are not few."""
    nodes = graph.nodes[graph.inputs[0]]
    shape = tuple(int(size) for size in np.ravel(nodes.value("shape")))
    x = (np.random.default_rng(0).random((40, 3, *shape)) < 0.4).astype(np.float32)
    y = np.asarray(simulate(graph, x, engine=TimeStepped()).output())
    got = imported(graph, target, x, path)
    if got is None or got.size != y.size:
        return False
    identical, trains, active = compare(y, got, 0)
    assert active
    return identical == trains


#: Networks that the framework's own importer does not run as they are.
NEEDED = {
    "norse": ("branches", "Outputs", "loop", "long loop", "biased loop", "Threshold", "no Output"),
    "snntorch": ("Outputs", "loop", "biased loop", "Threshold", "no Output"),
    "spikingjelly": ("Outputs", "biased loop", "Threshold", "no Output"),
}


@pytest.mark.parametrize("framework", NEEDED)
@pytest.mark.parametrize("net", CHAINS)
def test_what_is_fine_runs_alike_and_the_rest_does_not(net, framework, tmp_path):
    graph = network(CHAINS[net], framework)
    fine = check(graph, framework).ok
    assert fine == (net not in NEEDED[framework])
    if net != "no Output":  # an importer may run it, depending on the nodes' names
        assert agrees(graph, framework, tmp_path / "a.nir") == fine


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ("snntorch", "spikingjelly"),
        ("spikingjelly", "snntorch"),
        ("norse", "spikingjelly"),
        ("spikingjelly", "norse"),
    ],
)
def test_who_fires_at_equality_alone_needs_a_conversion(source, target, tmp_path):
    """Sums of halves meet the threshold."""
    graph = network(CHAINS["two"], source)
    errors = [problem for problem in check(graph, target).problems if problem.severity == "error"]
    assert {(problem.node, problem.code) for problem in errors} == {
        (name, "needs-conversion") for name in "nm"
    }
    assert not agrees(graph, target, tmp_path / "a.nir")
    converted = convert(graph, to=target).graph
    assert check(converted, target).ok


OWN = tuple(
    name
    for name in RECORDED
    if FACTS[name]["framework"] in ("snntorch", "spikingjelly")
    and FACTS[name].get("reproducible", True)
)


@pytest.mark.parametrize("name", OWN)
def test_a_recorded_file_is_fine_where_its_framework_reads_it_back(name, recorded, tmp_path):
    graph, x, y = recorded(name)
    target = graph.dialect.name
    got = imported(graph, target, x.astype(np.float32), tmp_path / "a.nir")
    alike = got is not None and got.size == y.size and compare(y, got, 0)[:1] == (y[0].size,)
    assert check(graph, target).ok == alike


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("net", CHAINS)
def test_the_matrix_names_the_nodes_that_check_does(net, target):
    graph = network(CHAINS[net], "snntorch")
    refused = {
        problem.node for problem in check(graph, target).problems if problem.severity == "error"
    }
    assert {problem.node for problem in matrix(graph, [target]).verdicts} == refused
