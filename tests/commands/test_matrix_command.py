"""`jaxsnn matrix`: verdicts by node and purpose."""

import json

import pytest

from jaxsnn.commands.cli import main
from jaxsnn.compatibility.checks import purposes
from jaxsnn.compatibility.matrix import Matrix, Verdict, matrix, matrix_of_types
from jaxsnn.nir import build, read, write
from jaxsnn.nir.dialects.inference import resolve
from jaxsnn.nir.model.nodes import TYPES


@pytest.fixture
def network(tmp_path):
    """Neurons that reset to zero, then a Delay, which Sinabs is not given."""
    graph = build.sequential(
        build.input(3),
        build.linear(4),
        build.lif(tau=1e-3, r=10.0),
        build.linear(2),
        build.lif(tau=1e-3, r=10.0),
        build.node("Delay", delay=1e-4),
        seed=0,
        dialect="snntorch",
        reset="zero",
        reset_delay=False,
    )
    write(tmp_path / "a.nir", graph)
    return graph, str(tmp_path / "a.nir")


SAID = ["--dialect", "snntorch", "--reset", "zero", "--reset-delay", "false"]


def test_each_node_has_a_verdict_for_each_purpose(network, capsys):
    _, path = network
    assert main(["matrix", path, *SAID, "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert content["schema"] == 1
    assert [row["node"] for row in content["nodes"]] == ["1", "2", "3", "4", "5"]
    for row in content["nodes"]:
        assert tuple(row["verdicts"]) == purposes()
    assert content["overall"]["grid"] == "exact"
    by_node = {row["node"]: row["verdicts"] for row in content["nodes"]}
    assert by_node["5"]["sinabs"] == "unsupported"
    assert by_node["2"]["sinabs"] == "exact"
    assert by_node["5"]["norse"] == "exact"
    ours = ("5", "sinabs")
    (reason,) = (row for row in content["reasons"] if (row["node"], row["purpose"]) == ours)
    assert "(Delay)" in reason["why"]
    assert reason["fix"]


def test_what_is_lost_is_approximate():
    plain = build.sequential(
        build.input(3),
        build.linear(4),
        build.lif(tau=1e-3, r=10.0),
        seed=0,
        dialect="snntorch",
        reset="zero",
        reset_delay=False,
    )
    table = matrix(plain, ["spyx", "norse"])
    assert table.grade("2", "spyx") == "approximate"
    assert any("resets to a value" in verdict.why for verdict in table.verdicts)
    assert table.grade("1", "spyx") == "exact"
    assert table.overall("norse") == "exact"
    assert "approx" in table.as_text()


def test_exit_code_1_where_a_purpose_that_was_asked_for_is_not_supported(network, capsys):
    _, path = network
    assert main(["matrix", path, *SAID, "--for", "sinabs"]) == 1
    assert "no" in capsys.readouterr().out
    assert main(["matrix", path, *SAID, "--for", "grid"]) == 0


def test_without_a_file_the_types_are_judged():
    table = matrix_of_types(["grid", "snntorch", "spyx"])
    assert set(table.rows) == set(TYPES) - {"Input", "Output"}
    assert table.grade("LI", "snntorch") == "exact"
    assert table.grade("LI", "spyx") == "unsupported"
    assert table.grade("CubaLI", "snntorch") == "exact"
    assert table.grade("I", "snntorch") == "approximate"
    (cut,) = (
        verdict.why
        for verdict in table.verdicts
        if (verdict.node, verdict.purpose) == ("I", "snntorch")
    )
    assert cut == "continuous time is divided into steps of 1 ms"
    assert table.grade("Scale", "snntorch") == "exact"
    assert table.grade("Delay", "snntorch") == "exact"
    assert table.grade("Delay", "spyx") == "unsupported"
    assert {kind for kind in table.rows if table.grade(kind, "grid") != "exact"} == {"I"}
    (cut,) = (verdict.why for verdict in table.verdicts if verdict.purpose == "grid")
    assert "this simulation is time-stepped" in cut  # only the dialect nir has I


def test_time_that_goes_on_otherwise_is_approximate(network):
    stepped, _ = network
    table = matrix(stepped, ["event", "grid", "bss2"])
    assert [table.grade("2", purpose) for purpose in table.purposes] == [
        "approximate",
        "exact",
        "approximate",
    ]
    assert table.grade("1", "event") == "exact"
    assert any("snntorch is time-stepped" in verdict.why for verdict in table.verdicts)
    dialect = resolve(stepped, "nir", time_unit="s", dt=1e-4)
    literal = matrix(stepped.with_dialect(dialect), ["event", "grid"])
    assert [literal.grade("2", purpose) for purpose in literal.purposes] == ["exact", "approximate"]


def test_nothing_is_exact_on_a_chip_but_what_moves_or_scales_spikes():
    table = matrix_of_types(["bss2"])
    exact = {kind for kind in table.rows if table.grade(kind, "bss2") == "exact"}
    assert exact == {"Scale", "SumPool2d", "AvgPool2d", "Flatten"}
    reasons = {verdict.node: verdict.why for verdict in table.verdicts}
    assert reasons["Linear"].endswith("weights are rounded to integers from -63 to 63")
    assert reasons["CubaLI"].startswith("node '")


def test_of_an_undecided_dialect_time_is_unknown(zoo):
    open_ = matrix(read(zoo["sinabs_v_lif"]), ["event", "bss2"])
    for purpose, grade in (("event", "exact"), ("bss2", "approximate")):
        assert (open_.grade("0", purpose), open_.overall(purpose)) == (grade, "unsupported")
    assert open_.grade("1", "event") == "unknown"


def test_types_of_equations_are_judged_in_equations():
    table = matrix_of_types(["event"])
    assert "event: these verdicts are for NIR's equations" in table.as_text()
    assert "notes" in table.as_dict()
    assert not matrix_of_types(["grid"]).notes
    assert {kind for kind in table.rows if table.grade(kind, "event") != "exact"} == {"Threshold"}


def test_types_for_importers_that_burst_and_that_solve_equations():
    table = matrix_of_types(["sinabs", "rockpool", "jaxsnn", "hxtorch"])
    grades = {
        kind: [table.grade(kind, purpose) for purpose in table.purposes]
        for kind in ("CubaLIF", "LIF", "LI", "Delay", "Linear")
    }
    assert grades == {
        "CubaLIF": ["exact", "approximate", "exact", "exact"],
        "LIF": ["exact", "approximate", "unsupported", "unsupported"],
        "LI": ["exact", "unsupported", "unsupported", "unsupported"],
        "Delay": ["unsupported"] * 4,
        "Linear": ["exact"] * 4,
    }


def test_what_a_conversion_did_not_judge_is_unknown():
    neuron = build.lif(tau=1e-3, r=10.0)
    layers = [build.linear(4), neuron, build.affine(2), neuron]
    options = {"dialect": "snntorch", "reset": "zero", "reset_delay": False}
    table = matrix(build.sequential(build.input(3), *layers, seed=0, **options), ["hxtorch"])
    grades = [table.grade(name, "hxtorch") for name in "1234"]
    assert grades == ["exact", "unsupported", "unknown", "unsupported"]
    assert table.as_text().splitlines()[3].split() == ["3", "Affine", "?"]


def test_a_missing_reset_is_reported_once_for_all_nodes_and_purposes():
    graph = build.sequential(
        build.input(3),
        build.linear(4),
        build.lif(tau=1e-3, r=10.0),
        build.linear(2),
        build.lif(tau=1e-3, r=10.0),
        seed=0,
        dialect="snntorch",
    )
    reasons = [line for line in matrix(graph).as_text().splitlines() if "needs reset" in line]
    assert len(reasons) == 1
    assert reasons[0].startswith("event, grid, bss2, snntorch, norse, ")
    assert ", unsupported: nodes '2', '4': " in reasons[0]


def test_reasons_of_different_nodes_are_not_mixed():
    verdicts = [
        Verdict(node=node, purpose=purpose, grade="unsupported", why=f"node '{node}' is odd")
        for node, purpose in (("a", "event"), ("b", "grid"), ("c", "event"), ("c", "grid"))
    ]
    table = Matrix(
        purposes=("event", "grid"), rows=dict.fromkeys("abc", "LIF"), verdicts=tuple(verdicts)
    )
    assert table.as_text().splitlines()[-3:] == [
        "event, grid, unsupported: node 'c' is odd",
        "event, unsupported: node 'a' is odd",
        "grid, unsupported: node 'b' is odd",
    ]
