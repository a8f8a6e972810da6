"""The suite against a framework that is right under some convention, and against single faults."""

import json
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from jaxsnn.conformance import Convention, run
from jaxsnn.conformance.report import as_dict, as_junit
from jaxsnn.nir import export
from tests.conformance.faulty import Simulator, with_parameters

FEW = "one layer"


def verdicts(adapter, **options):
    """Verdict and answer of each cell by its name."""
    report = run(adapter, reduce=False, **options)
    assert report.outcomes
    return {outcome.cell.name: outcome.answer for outcome in report.outcomes}


@pytest.mark.parametrize(
    "convention",
    [
        Convention(),
        Convention(decay="exact", spike="jump"),
        Convention(reset="subtract", reset_time="after input", current="old"),
        Convention(reset="subtract", output="next step", start="v_leak"),
    ],
    ids=str,
)
def test_a_framework_that_follows_a_convention_has_no_faults(convention):
    answers = verdicts(Simulator(convention=convention), only=FEW)
    assert {answer.verdict for answer in answers.values()} == {"pass"}
    for answer in answers.values():
        # A simpler convention may explain the same outputs of a small network.
        if answer.convention is not None:
            assert len(answer.convention.differences) <= len(convention.differences)


def leaking(decay):
    """Importers that read an IF as a LIF with a decay per step."""

    def read(graph):
        from jaxsnn.nir.model.nodes import IF, LIF

        changed = {
            name: LIF(
                name=name,
                tau=np.asarray(1e-3 / (1 - decay)) * np.ones_like(node.value("r")),
                r=node.value("r") * 1e-3 / (1 - decay),
                v_leak=np.zeros_like(node.value("r")),
                v_threshold=node.value("v_threshold"),
                v_reset=node.value("v_reset"),
            )
            for name, node in graph.nodes.items()
            if isinstance(node, IF)
        }
        import dataclasses

        return dataclasses.replace(graph, nodes={**graph.nodes, **changed})

    return read


FAULTS = {
    # snntorch 416 and 452: IF is imported as a neuron that leaks, or that forgets everything.
    "leak": ({"read": leaking(0.9)}, "import/IF", "wrong"),
    "no memory": ({"read": leaking(0.0)}, "import/IF", "wrong"),
    # norse 411: time constants are multiplied by dt when they are exported.
    "tau dt": (
        {"write": lambda graph: export(with_parameters(graph, "LIF", tau=lambda tau: tau * 1e-3))},
        "export/LIF/uniform/one layer",
        "wrong",
    ),
    # snntorch 334: parameters of a single neuron, whatever the size of the population.
    "scalars": (
        {
            "write": lambda graph: export(
                with_parameters(
                    graph,
                    "LIF",
                    **dict.fromkeys(
                        ("tau", "r", "v_leak", "v_threshold", "v_reset"), lambda value: value[:1]
                    ),
                )
            )
        },
        "export/LIF/uniform/one layer",
        "wrong",
    ),
    # spyx 40: gains are ignored.
    "r ignored": (
        {"read": lambda graph: with_parameters(graph, "LIF", r=np.ones_like)},
        "import/LIF/r = 0.7",
        "wrong",
    ),
    "bias": (
        {"read": lambda graph: with_parameters(graph, "Affine", bias=np.zeros_like)},
        "import/LIF/uniform/one layer/tau = 10 dt",
        "wrong",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_single_faults(fault):
    options, only, verdict = FAULTS[fault]
    assert {answer.verdict for answer in verdicts(Simulator(), only=only).values()} == {"pass"}
    answers = verdicts(Simulator(**options), only=only)
    assert verdict in {answer.verdict for answer in answers.values()}


def test_an_ignored_parameter_is_named():
    adapter = Simulator(read=lambda graph: with_parameters(graph, "CubaLIF", w_in=np.ones_like))
    (answer,) = verdicts(adapter, only="import/CubaLIF/uniform/one layer/tau = 10 dt").values()
    assert answer.verdict == "wrong"
    assert "w_in = 1" in answer.reason


def test_errors_of_the_framework():
    def refuse(graph):
        raise NotImplementedError("no such node")

    only = "import/LIF/uniform/one layer/tau = 10 dt"
    (answer,) = verdicts(Simulator(read=refuse), only=only).values()
    assert (answer.verdict, answer.reason) == (
        "refused",
        "import: NotImplementedError: no such node",
    )
    (answer,) = verdicts(Simulator(read=lambda graph: graph.nothing), only=only).values()
    assert answer.verdict == "crash"
    (answer,) = verdicts(
        Simulator(write=lambda graph: None), only="export/IF/per neuron/one layer"
    ).values()
    assert answer.verdict == "wrong"
    (answer,) = verdicts(Simulator(), only="export/IF/per neuron/skip").values()
    assert answer.verdict == "not applicable"


def test_an_importer_that_depends_on_the_order_of_edges():
    """It takes the first edge that leaves a node, and misses the loop in one order."""

    def read(graph):
        edges = dict(reversed(graph.edges))
        loops = [name for name in graph.nodes if name.endswith("recurrent")]
        lost = any(name not in edges.values() for name in loops)
        return with_parameters(graph, "Linear", weight=np.zeros_like) if lost else graph

    (answer,) = verdicts(Simulator(read=read), only="import/LIF/uniform/recurrent/tau").values()
    assert answer.verdict == "wrong"
    assert answer.reason.startswith("in one of two orders of the edges")


def test_an_importer_that_does_not_return(monkeypatch):
    def read(graph):
        while True:
            pass

    monkeypatch.setattr("jaxsnn.conformance.checking.TIME_LIMIT", 0.2)
    only = "import/LIF/uniform/one layer/tau = 10 dt"
    (answer,) = verdicts(Simulator(read=read), only=only).values()
    assert (answer.verdict, answer.reason) == (
        "crash",
        "import: TimeoutError: no result after 0.2 s of processor time",
    )


def test_an_exporter_that_writes_an_empty_node():
    def write(graph):
        written = export(graph)
        written.nodes["0"] = None
        return written

    only = "export/LIF/uniform/one layer/zero/tau = 10 dt"
    (answer,) = verdicts(Simulator(write=write), only=only).values()
    assert answer.verdict == "wrong"
    assert "NoneType" in answer.reason


def test_reports_have_a_line_for_each_cell():
    adapter = Simulator(read=lambda graph: with_parameters(graph, "LIF", r=np.ones_like))
    report = run(adapter, only="LIF/r =")
    content = json.loads(json.dumps(as_dict(report)))
    assert content["counts"]["wrong"] == 1
    assert not content["ok"]
    junit = ElementTree.fromstring(as_junit(report))
    assert int(junit.get("tests")) == len(content["cells"]) == len(junit.findall("testcase"))
    assert len(junit.findall("testcase/failure")) == int(junit.get("failures")) == 1
