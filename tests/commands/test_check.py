"""All problems of a file at once, for every purpose, and never a traceback."""

import dataclasses
import itertools
import json

import h5py
import nir
import numpy as np
import pytest

from jaxsnn.compatibility.checks import check, check_file, purposes
from jaxsnn.errors import ConversionError, FileError, LoweringError, SimulationError, UsageError
from jaxsnn.grid.time_stepped import TimeStepped
from jaxsnn.network.lowering.lower import lower
from jaxsnn.network.spikes import Events
from jaxsnn.nir import build, parse, read, write
from jaxsnn.nir.convert.pipeline import convert
from jaxsnn.simulation.simulate import simulate
from tests.helpers.refusals import assert_refused
from tests.helpers.zoo import FACTS, options_of

#: Codes of problems that keep an importer from running a file as it is.
CODES = ("needs-conversion", "unmapped-node", "cannot-convert", "needs-load-line")
SIMULATORS = tuple(purpose for purpose in purposes() if purpose not in ("event", "grid", "bss2"))


@pytest.fixture(scope="module")
def undeclared_graphs(zoo):
    """Every file of the zoo, nothing said of it."""
    return {name: read(path) for name, path in zoo.items()}


@pytest.fixture(scope="module")
def zoo_graphs(zoo):
    """Every file of the zoo, with what it does not say."""
    return {
        name: read(path, dialect=FACTS[name]["framework"], **options_of(name))
        for name, path in zoo.items()
    }


def codes(report):
    """The problems of a report, as pairs of node and code."""
    return [(problem.node, problem.code) for problem in report.problems]


TAUS = {"tau_mem": "20ms", "tau_syn": "10ms"}


def network(*nodes):
    """A chain of our own, in seconds."""
    return build.sequential(build.input(2), *nodes, seed=0)


@pytest.mark.parametrize("purpose", purposes())
def test_every_file_of_the_zoo_has_an_answer(purpose, undeclared_graphs, zoo_graphs):
    for graphs in (undeclared_graphs, zoo_graphs):
        for name, graph in graphs.items():
            report = check(graph, purpose)
            assert report.ok == (
                not any(problem.severity == "error" for problem in report.problems)
            ), name
            assert json.loads(json.dumps(report.as_dict()))["for"] == purpose
            for problem in report.problems:
                assert problem.message, name
                assert problem.fix, name
                assert "\n" not in str(problem)
                assert problem.node in ("", *graph.nodes), name
                assert problem.node == "" or problem.node in problem.message, (name, problem)
            assert len(set(report.problems)) == len(report.problems)


def test_what_is_undecided_is_not_fine(undeclared_graphs):
    for name, graph in undeclared_graphs.items():
        if graph.dialect.name is None:
            for purpose in purposes():
                report = check(graph, purpose)
                assert ("", "not-said") in codes(report), (name, purpose)
                assert not report.ok


def test_what_was_recorded_runs_on_the_grid(zoo_graphs):
    for name in (name for name in FACTS if "spikes" in FACTS[name]):
        assert check(zoo_graphs[name], "grid").ok, name


def refusal(graph, engine):
    """What an engine says to a graph; None if it runs."""
    try:
        network = lower(graph)
        wires = [wire for wire in network.wires if wire.kind == "input"]
        if engine == "event":
            silence = {
                wire.name: Events(time=np.full((1, 1), np.inf), index=np.full((1, 1), wire.size))
                for wire in wires
            }
            simulate(network, silence, 1e-3, throw=False)
        else:
            steps = {wire.name: np.zeros((2, 1, *wire.shape)) for wire in wires}
            simulate(network, steps, engine=TimeStepped())
    except LoweringError as error:
        return str(error)
    return None


def first_error(graph, engine):
    """The first error of a check for an engine, which the engine refuses; None if it runs.

    What an Output cannot show stops the command that shows it, and not the engine.
    """
    return next(
        (
            str(problem)
            for problem in check(graph, engine).problems
            if problem.severity == "error" and problem.code != "output-source"
        ),
        None,
    )


@pytest.mark.parametrize(
    "name", ["norse_v_lifbox", "sinabs_v_iaf", "snntorch_c_rleaky_seq", "snntorch_v_conv_sub"]
)
@pytest.mark.parametrize("engine", ["event", "grid"])
def test_an_engine_refuses_what_check_says_first(name, engine, zoo_graphs):
    assert refusal(zoo_graphs[name], engine) == first_error(zoo_graphs[name], engine)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["event", "grid"])
def test_check_and_engines_agree_on_every_file(engine, zoo_graphs, undeclared_graphs):
    """What is refused is refused for the first error of the check, and nothing else is."""
    graphs = [*zoo_graphs.items(), *undeclared_graphs.items()]
    lowered = [(name, graph) for name, graph in graphs if graph.dialect.name is not None]
    assert len(lowered) > len(zoo_graphs)
    for name, graph in lowered:
        assert refusal(graph, engine) == first_error(graph, engine), name


def test_all_problems_at_once(undeclared_graphs):
    report = check(undeclared_graphs["snntorch_v_conv_sub"], "event")
    errors = [problem for problem in report.problems if problem.severity == "error"]
    assert [(problem.node, problem.code) for problem in errors] == [
        (name, "not-said") for name in "147"
    ]


def test_that_equations_of_a_stepped_source_are_solved_is_said(zoo_graphs):
    stepped = zoo_graphs["snntorch_v_leaky_sub"]
    report = check(stepped, "event")
    (note,) = (problem for problem in report.problems if problem.code == "equations")
    assert note.severity == "note"
    assert note.message.startswith("snntorch is time-stepped; here the equations of ")
    assert "event: fine (errors: 0, warnings: 0)" in report.as_text()
    for purpose in ("grid", "norse"):
        assert "equations" not in [code for _, code in codes(check(stepped, purpose))]
    continuous = network(build.linear(3), build.cubalif(**TAUS))
    assert not check(continuous, "event").problems


def test_a_threshold_beyond_the_type_is_no_problem_in_steps_alone():
    neuron = build.cubalif(**TAUS, v_threshold=1e300)
    graph = build.sequential(build.input(2), build.linear(3), neuron, seed=0, dt="1ms")
    assert codes(check(graph, "event")) == [("2", "beyond-type")]
    assert not check(graph, "grid").problems
    assert_refused(
        lambda: simulate(graph, Events(time=[[0.0]], index=[[0]]), 10e-3),
        SimulationError,
        r"v_threshold\[0\] is inf",
    )


def test_a_broken_file_is_listed_whole(tmp_path):
    net = network(build.linear(3), build.cubalif(**TAUS))
    write(tmp_path / "net.nir", net)
    with h5py.File(tmp_path / "net.nir", "r+") as file:
        file["node/nodes/1/weight"][0, 1] = np.nan
        del file["node/nodes/2/tau_mem"]
        file["node/nodes/2/tau_mem"] = np.full(3, -1.0)
        file["node/nodes/2/v_threshold"][2] = np.inf
    report, graph = check_file(tmp_path / "net.nir", "event")
    assert graph is None
    assert codes(report) == [("1", "not-finite"), ("2", "not-positive"), ("2", "not-finite")]
    with h5py.File(tmp_path / "net.nir", "r+") as file:
        for name in ("1", "2"):
            del file[f"node/nodes/{name}/type"]
            file[f"node/nodes/{name}/type"] = "Hodgkin"
    report, _ = check_file(tmp_path / "net.nir", "event")
    assert codes(report) == [("1", "unknown-type"), ("2", "unknown-type")]


def test_a_dangling_edge_and_a_contradiction_are_problems(tmp_path, zoo):
    net = network(build.linear(3), build.li(tau="20ms"))
    write(tmp_path / "net.nir", net)
    report, _ = check_file(tmp_path / "net.nir", "event", dialect="snntorch")
    assert codes(report) == [("2", "contradiction")]
    assert "spyx" not in report.problems[0].message
    with h5py.File(tmp_path / "net.nir", "r+") as file:
        del file["node/edges"]
        file["node/edges"] = [("input", "nowhere")]
    report, _ = check_file(tmp_path / "net.nir", "event")
    assert codes(report) == [("", "broken")]


def test_unknown_purposes_and_files(tmp_path):
    path, graph = tmp_path / "no.nir", network(build.linear(3))
    assert_refused(lambda: check(graph, "evnt"), UsageError, "did you mean 'event'")
    assert_refused(lambda: check_file(path, "event"), FileError, "no such file", fix=None)
    assert_refused(lambda: check_file(path, "gird"), UsageError, "did you mean 'grid'")


@pytest.mark.parametrize("name", ["snntorch_v_leaky_zero", "snntorch_v_syn_zero"])
@pytest.mark.parametrize("kernel", ["delta", "box"])
def test_every_neuron_runs_under_both_spike_kernels(name, kernel, zoo_graphs):
    dialect = dataclasses.replace(zoo_graphs[name].dialect, spike_kernel=kernel, nodes={})
    assert check(zoo_graphs[name].with_dialect(dialect), "event").ok


def test_a_bias_in_steps_needs_their_length(undeclared_graphs):
    cuba = undeclared_graphs["spyx_v_cuba"]
    assert check(cuba, "event").ok
    counted = dataclasses.replace(cuba.dialect, dt=None)
    report = check(cuba.with_dialect(counted), "event")
    biased = [
        name for name in cuba.neurons if cuba.nodes[cuba.predecessors(name)[0]].type == "Affine"
    ]
    assert {problem.node for problem in report.problems if problem.fix == "pass dt="} >= set(biased)


@pytest.mark.parametrize(
    ("sources", "refused"),
    [
        (["w"], ["w"]),
        (["input"], ["input"]),
        (["readout", "other"], ["other, readout"]),
        (["n", "readout"], ["n, readout"]),
        (["n"], []),
        (["n", "m"], []),
        (["readout"], []),
    ],
)
def test_what_leaves_a_network_in_continuous_time_comes_from_neurons(sources, refused):
    nodes = {
        "input": build.input(2),
        "w": build.linear(weight=np.eye(2)),
        "output": build.output(2),
    }
    nodes |= {name: build.cubalif(**TAUS) for name in ("n", "m")}
    nodes |= {name: build.cubali(**TAUS) for name in ("readout", "other")}
    ways = [("input", "w", name) for name in ("n", "m", "readout", "other")]
    graph = build.network(nodes, [*ways, *((name, "output") for name in sources)])
    problems = [
        problem for problem in check(graph, "event").problems if problem.code == "output-source"
    ]
    expected = [{"node": "output", "sources": sources_} for sources_ in refused]
    assert [problem.facts for problem in problems] == expected
    notes = simulate(graph, Events(time=[[1e-3]], index=[[0]]), 20e-3).notes
    noted = [note for note in notes if "not computed" in note]
    messages = [problem.message for problem in problems]
    assert [note.partition(": this Output is not computed")[0] for note in noted] == messages


def test_each_output_has_its_own_reason():
    nodes = {"input": build.input(2), "w": build.linear(weight=np.eye(2))}
    nodes |= {"readout": build.cubali(**TAUS), "sent": build.output(2), "given": build.output(2)}
    graph = build.network(nodes, [("input", "readout", "w", "sent"), ("input", "given")])
    assert sorted(codes(check(graph, "event"))) == [
        ("given", "output-source"),
        ("readout", "analog-signal"),
    ]


def test_limits_of_the_grid():
    two = np.ones(2)
    nodes = {
        "in": nir.Input({"input": np.array([2])}),
        "h": nir.CubaLIF(tau_mem=two, tau_syn=0.5 * two, r=two, v_leak=0 * two, v_threshold=two),
        "edge": nir.Threshold(0.5 * two),
        "li": nir.LI(tau=two, r=two, v_leak=0 * two),
        "late": nir.Delay(0.0015 * two),
        "back": nir.Linear(np.eye(2)),
        "out": nir.Output({"output": np.array([2])}),
    }
    chains = [
        ["in", "h", "edge", "out"],
        ["h", "li", "out"],
        ["h", "out"],
        ["h", "late", "back", "h"],
    ]
    edges = [pair for chain in chains for pair in itertools.pairwise(chain)]
    graph = parse(
        nir.NIRGraph(nodes=nodes, edges=edges, type_check=False),
        dialect="nir",
        time_unit="s",
        dt=1e-3,
    )
    report = check(graph, "grid")
    assert codes(report) == [
        ("out", "suspicious"),  # three nodes feed it
        ("late", "delay"),
        ("edge", "spikes-at-threshold"),
        ("out", "mixed-output"),
    ]
    assert "0.0015 s, which is 1.5 time steps of 0.001 s" in report.problems[1].message
    assert {problem.node for problem in check(graph, "event").problems} == {"edge", "out"}


def test_what_steps_approximate_in_the_equations_is_a_warning():
    graph = build.sequential(
        build.input(2),
        build.li(tau="10ms"),
        build.linear(2),
        build.lif(tau="10ms"),
        seed=0,
        dt=1e-3,
    )
    report = check(graph, "grid")
    assert report.ok
    assert codes(report) == [("1", "approximated")]
    assert "current that is constant during each time step" in report.problems[0].message
    assert codes(check(graph, "event")) == [("1", "analog-signal")]


# Other simulators


@pytest.mark.parametrize(
    ("name", "purpose", "expected"),
    [
        # The importer assumes norm_input = false.
        ("sinabs_v_lif", "sinabs", [("1", "needs-conversion"), ("3", "needs-conversion")]),
        ("sinabs_v_lif_nonorm", "sinabs", []),
        # The importer bounds the membrane of IF by -v_threshold.
        ("sinabs_v_iaf", "sinabs", [("1", "needs-conversion"), ("3", "needs-conversion")]),
        (
            "sinabs_a_lif_scalar__nocomp",
            "sinabs",
            [(name, code) for code in ("scalar", "needs-conversion") for name in ("1", "3")],
        ),
        ("snntorch_v_leaky_zero_nodelay", "snntorch", []),
        (
            "snntorch_v_leaky_zero_nodelay",
            "norse",
            [("1", "needs-conversion"), ("3", "needs-conversion")],
        ),
        (
            "snntorch_v_leaky_sub",
            "snntorch",
            [("1", "needs-load-line"), ("3", "needs-load-line")],
        ),
        ("snntorch_v_li", "spyx", [("", "cannot-convert")]),
        ("spyx_v_lif", "spyx", [("", "needs-load-line")]),  # the importer's default dt is 1 s
        # The importer assumes another time step than the exporter writes.
        (
            "rockpool_b_liftorch",
            "rockpool",
            [("1_LIFTorch", "needs-conversion"), ("3_LIFTorch", "needs-conversion")],
        ),
        (
            "rockpool_a_lifneuron",
            "rockpool",
            [
                (name, code)
                for code in ("unmapped-node", "needs-conversion")
                for name in ("1_LIFNeuronTorch", "3_LIFNeuronTorch")
            ],
        ),
    ],
)
def test_importers(name, purpose, expected, zoo_graphs):
    problems = codes(check(zoo_graphs[name], purpose))
    if expected and expected[0] == ("", "cannot-convert"):
        assert "cannot-convert" in [code for _, code in problems]
    else:
        assert problems == expected


@pytest.mark.parametrize("target", ["norse", "snntorch", "spikingjelly", "spyx"])
@pytest.mark.parametrize(
    "name",
    [
        *("snntorch_v_rleaky_zero", "snntorch_v_leaky_sub_nodelay", "spyx_v_cuba"),
        *("sinabs_v_lif", "norse_v_lifbox_vleak"),
    ],
)
def test_what_was_converted_needs_no_conversion(name, target, zoo_graphs):
    try:
        converted = convert(zoo_graphs[name], to=target).graph
    except ConversionError:
        return
    errors = [
        problem for problem in check(converted, target).problems if problem.severity == "error"
    ]
    # Files contain no reset, and conversions may scale Norse's neurons to a reset of Norse.
    assert {error.code for error in errors} <= {"needs-load-line", "already-converted"}
    assert not {code for _, code in codes(check(converted, "grid"))} & {"ignored", *CODES}


def test_files_of_others_are_no_files_of_sinabs(zoo_graphs):
    report = check(zoo_graphs["snntorch_v_leaky_zero"], "sinabs")
    assert {("1", "needs-load-line"), ("1", "needs-conversion")} <= {*codes(report)}


def test_what_a_conversion_needs_is_said_for_every_node(undeclared_graphs):
    report = check(undeclared_graphs["snntorch_v_leaky_zero"], "norse")
    nodes = [problem.node for problem in report.problems if problem.fix.startswith("pass reset= ")]
    assert nodes == ["1", "3"]


# The chip


def test_the_chip_runs_a_small_network():
    graph = network(build.linear(3), build.cubalif(tau_mem="20us", tau_syn="10us"))
    assert codes(check(graph, "bss2")) == []


def test_what_the_chip_cannot_run(zoo_graphs):
    integrate = check(zoo_graphs["spikingjelly_v_if"], "bss2")
    assert {code for _, code in codes(integrate)} == {"unsupported-node"}
    leaky = check(zoo_graphs["snntorch_v_leaky_zero"], "bss2")
    assert {code for _, code in codes(leaky)} == {"approximated", "bias"}
    assert {problem.code for problem in leaky.problems if problem.severity == "error"} == {"bias"}


def test_time_constants_may_have_any_unit_but_not_any_ratio():
    fine = network(build.linear(3), build.cubalif(tau_mem="2s", tau_syn="1ms"))
    assert check(fine, "bss2").ok
    apart = network(
        build.linear(3),
        build.cubalif(tau_mem="2s", tau_syn="1ms"),
        build.linear(2),
        build.cubalif(tau_mem="20ms", tau_syn="50us"),
    )
    report = check(apart, "bss2")
    assert codes(report) == [("", "time-constants")]
    assert "tau_syn 5e-05 of '4' and tau_mem 2 of '2'" in report.problems[0].message


def test_size_takes_several_runs_and_a_recurrent_part_cannot_be_split():
    neurons = build.cubalif(**TAUS)
    report = check(network(build.linear(600), neurons), "bss2")
    assert report.ok
    assert codes(report) == [("", "several-runs")]
    loop = build.network(
        {
            "in": build.input(2),
            "w": build.linear(600),
            "h": neurons,
            "back": build.linear(600, weight=np.eye(600)),
            "out": build.output(),
        },
        [["in", "w", "h", "out"], ["h", "back", "h"]],
        seed=0,
    )
    report = check(loop, "bss2")
    assert codes(report) == [("back", "too-large"), ("", "several-runs")]
    assert "need 600 circuits; the chip has 512 (88 too many)" in report.problems[0].message
