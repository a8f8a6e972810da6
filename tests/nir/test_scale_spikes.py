"""What w_in and r mean in files of this library: `scale_spikes`.

They scale spikes, as in NIR's equations. Earlier releases applied them to currents alone, and wrote
files whose tag does not have the option.
"""

import json

import h5py
import numpy as np
import pytest

from jaxsnn import EventDriven, Events, TimeStepped, lower, simulate
from jaxsnn.compatibility.checks import check
from jaxsnn.errors import DialectError, LoweringError
from jaxsnn.network.lowering.lower import update_graph
from jaxsnn.nir import build, read, write
from jaxsnn.nir.convert.pipeline import convert
from jaxsnn.nir.graphs.export import document_of_graph
from jaxsnn.nir.graphs.parse import parse
from tests.helpers.refusals import assert_refused

CURRENT = {"tau_mem": 20e-3, "tau_syn": 10e-3}
#: Layer, gain of its spikes.
LAYERS = {
    "CubaLIF": (build.cubalif, CURRENT, "w_in"),
    "LIF": (build.lif, {"tau": 20e-3}, "r"),
    "IF": (build.integrate_and_fire, {}, "r"),
}
EVENTS = Events(time=np.arange(20)[None] * 2e-3, index=np.zeros((1, 20), int))


def built(kind, gain=1.0, weight=0.43, **said):
    make, numbers, name = LAYERS[kind]
    layers = build.linear(weight=np.full((1, 1), weight)), make(**numbers, **{name: gain})
    return build.sequential(build.input(1), *layers, **said)


def count(graph):
    engine = EventDriven(max_spikes=128)
    return int(np.asarray(simulate(lower(graph), EVENTS, 50e-3, engine=engine).count("2"))[0, 0])


def written(graph, path, *, tag=True):
    """A file of a graph as earlier releases wrote it; without a tag, as one that was read without."""
    write(path, graph)
    with h5py.File(path, "a") as file:
        metadata = file["node/metadata"]
        told = json.loads(metadata["jaxsnn"][()])
        del metadata["jaxsnn"], told["scale_spikes"]
        if tag:
            metadata["jaxsnn"] = json.dumps(told)
    return path


@pytest.mark.parametrize("kind", LAYERS)
def test_gains_are_those_of_the_equations_and_stay_so_in_a_file(kind, tmp_path):
    graph = built(kind, 3.0)
    write(tmp_path / "new.nir", graph)
    again = read(tmp_path / "new.nir")
    assert again.dialect.option("scale_spikes") is True
    assert count(again) == count(graph) == count(built(kind, weight=3 * 0.43))
    assert count(graph) > count(built(kind)) > 0
    assert not check(graph, "event").problems


@pytest.mark.parametrize("tag", [True, False], ids=["tagged", "untagged"])
@pytest.mark.parametrize("kind", LAYERS)
def test_a_file_of_earlier_releases_must_say_how_it_is_meant(kind, tag, tmp_path):
    path = written(built(kind, 3.0), tmp_path / "old.nir", tag=tag)
    said = {} if tag else {"dialect": "jaxsnn", "time_unit": "s"}
    undecided = read(path, **said)
    assert_refused(lambda: count(undecided), LoweringError, "scale_spikes=False", node="2")
    for purpose in ("event", "grid", *(["jaxsnn"] if kind == "CubaLIF" else [])):
        problems = check(undecided, purpose).problems
        assert any("scale_spikes" in (problem.fix or "") for problem in problems), purpose
    assert count(read(path, scale_spikes=False, **said)) == count(built(kind))
    assert count(read(path, scale_spikes=True, **said)) == count(built(kind, 3.0))
    if kind == "CubaLIF":
        assert_refused(lambda: convert(undecided, to="jaxsnn"), DialectError, "scale_spikes=False")


def test_what_was_said_of_a_file_is_in_what_is_written_of_it(tmp_path):
    said = read(written(built("CubaLIF", 3.0), tmp_path / "old.nir"), scale_spikes=False)
    write(tmp_path / "again.nir", said)
    again = read(tmp_path / "again.nir")
    assert again.dialect.option("scale_spikes") is False
    assert count(again) == count(built("CubaLIF"))
    (note,) = simulate(again, EVENTS, 50e-3).notes
    assert "node '2'" in note
    assert "w_in" in note


@pytest.mark.parametrize("tag", [True, False], ids=["tagged", "untagged"])
def test_a_file_whose_gains_are_1_says_nothing_and_keeps_its_bits(tag, tmp_path):
    path = written(built("CubaLIF"), tmp_path / "old.nir", tag=tag)
    said = {} if tag else {"dialect": "jaxsnn", "time_unit": "s"}
    graph = read(path, **said)
    assert count(graph) == count(built("CubaLIF"))
    write(tmp_path / "again.nir", graph)
    with h5py.File(path) as old, h5py.File(tmp_path / "again.nir") as new:
        pairs = [(file["node/metadata"].get("jaxsnn"),) for file in (old, new)]
        assert pairs[0][0] is pairs[1][0] or pairs[0][0][()] == pairs[1][0][()]


def test_a_gain_that_was_trained_in_an_old_file_is_read_again_as_it_was_trained(tmp_path):
    graph = read(written(built("CubaLIF"), tmp_path / "old.nir"))
    network = lower(graph)
    parameters = {**network.parameters}
    parameters["2"] = {**parameters["2"], "w_in": 3 * parameters["2"]["w_in"]}
    trained = update_graph(graph, network.with_parameters(parameters))
    write(tmp_path / "trained.nir", trained)
    assert count(read(tmp_path / "trained.nir")) == count(trained) == count(built("CubaLIF", 3.0))
    assert count(parse(document_of_graph(trained))) == count(trained)


@pytest.mark.parametrize("scales", [True, False])
def test_the_importer_that_reads_no_gains_is_given_weights(scales, tmp_path):
    """The library of the Electronic Vision(s) group ignores w_in and r."""
    path = written(built("CubaLIF", 3.0), tmp_path / "old.nir")
    graph = read(path, scale_spikes=scales)
    report = check(graph, "jaxsnn")
    assert not report.ok
    assert {problem.node for problem in report.problems} == {"2"}
    converted = convert(graph, to="jaxsnn").graph
    node = converted.nodes["2"]
    assert np.all(node.w_in == 1)
    assert np.all(node.r == 1)
    assert converted.nodes["1"].weight == pytest.approx(0.43 * (3.0 if scales else 1.0))
    assert count(converted) == count(graph)
    assert check(converted, "jaxsnn").ok


@pytest.mark.parametrize("target", ["snntorch", "norse", "spikingjelly"])
@pytest.mark.parametrize("kind", ["CubaLIF", "LIF"])
def test_gains_scale_what_is_converted(kind, target):
    """A gain of 3 is converted to what three times the weights are converted to."""

    def fired(graph):
        network = lower(convert(graph, to=target, dt=1e-4, approximate=True).graph)
        x = np.zeros((500, 1, 1), np.float32)
        x[::20] = 1.0
        (name,) = network.populations
        solution = simulate(network, x, engine=TimeStepped(record=(name,)))
        return np.asarray(solution.spikes[name])

    found = fired(built(kind, 3.0))
    np.testing.assert_array_equal(found, fired(built(kind, weight=3 * 0.43)))
    assert found.sum() > fired(built(kind)).sum() > 0
