"""What w_in and r mean in files of this library: `scale_spikes`.

They scale spikes, as in NIR's equations. Earlier releases applied them to currents alone, and wrote
files whose tag does not have the option.
"""

import json

import h5py
import numpy as np
import pytest

from jaxsnn import EventDriven, Events, lower, simulate
from jaxsnn.compatibility.checks import check
from jaxsnn.errors import DialectError, LoweringError
from jaxsnn.network.lowering.lower import update_graph
from jaxsnn.nir import build, read, write
from jaxsnn.nir.convert.pipeline import convert
from jaxsnn.nir.graphs.export import document_of_graph
from jaxsnn.nir.graphs.parse import parse
from tests.helpers.refusals import assert_refused
from tests.nir.conversions import played

CURRENT = {"tau_mem": 20e-3, "tau_syn": 10e-3}
#: Layer, its parameters, and the gain of its spikes.
LAYERS = {
    "CubaLIF": (build.cubalif, CURRENT, "w_in"),
    "LIF": (build.lif, {"tau": 20e-3}, "r"),
    "IF": (build.integrate_and_fire, {}, "r"),
}
EVENTS = Events(time=np.arange(20)[None] * 2e-3, index=np.zeros((1, 20), int))


def built(kind, gain=1.0, weight=0.43, **options):
    make, numbers, name = LAYERS[kind]
    layers = build.linear(weight=np.full((1, 1), weight)), make(**numbers, **{name: gain})
    return build.sequential(build.input(1), *layers, **options)


def count(graph):
    engine = EventDriven(max_spikes=128)
    return int(np.asarray(simulate(lower(graph), EVENTS, 50e-3, engine=engine).count("2"))[0, 0])


def written(graph, path, *, tag=True):
    """A file of a graph as earlier releases wrote it; without a tag, as one that was read without.

    Gives the path, and the options that say what is not in the file.
    """
    write(path, graph)
    with h5py.File(path, "a") as file:
        metadata = file["node/metadata"]
        dialect = json.loads(metadata["jaxsnn"][()])
        del metadata["jaxsnn"], dialect["scale_spikes"]
        if tag:
            metadata["jaxsnn"] = json.dumps(dialect)
    return path, {} if tag else {"dialect": "jaxsnn", "time_unit": "s"}


@pytest.fixture(params=[True, False], ids=["tagged", "untagged"])
def old_file(request, tmp_path):
    """`old_file(graph)`: a file of an earlier release, and what to say of it."""
    return lambda graph: written(graph, tmp_path / "old.nir", tag=request.param)


@pytest.fixture
def tagged_file(tmp_path):
    """`tagged_file(gain)`: a tagged file of an earlier release."""
    return lambda gain: written(built("CubaLIF", gain), tmp_path / "old.nir")[0]


@pytest.mark.parametrize("kind", LAYERS)
def test_gains_are_those_of_the_equations_and_stay_so_in_a_file(kind, tmp_path):
    graph = built(kind, 3.0)
    write(tmp_path / "new.nir", graph)
    reread = read(tmp_path / "new.nir")
    assert reread.dialect.option("scale_spikes") is True
    assert count(reread) == count(graph) == count(built(kind, weight=3 * 0.43))
    assert count(graph) > count(built(kind)) > 0
    assert not check(graph, "event").problems


@pytest.mark.parametrize("kind", LAYERS)
def test_a_file_of_earlier_releases_must_say_how_it_is_meant(kind, old_file):
    path, options = old_file(built(kind, 3.0))
    undecided = read(path, **options)
    assert_refused(lambda: count(undecided), LoweringError, "scale_spikes=False", node="2")
    for purpose in ("event", "grid", *(["jaxsnn"] if kind == "CubaLIF" else [])):
        problems = check(undecided, purpose).problems
        assert any("scale_spikes" in (problem.fix or "") for problem in problems), purpose
    for scales, gain in ((False, 1.0), (True, 3.0)):
        assert count(read(path, scale_spikes=scales, **options)) == count(built(kind, gain))
    if kind == "CubaLIF":
        assert_refused(lambda: convert(undecided, to="jaxsnn"), DialectError, "scale_spikes=False")


def test_an_option_of_a_file_is_in_what_is_written_of_it(tmp_path, tagged_file):
    write(tmp_path / "again.nir", read(tagged_file(3.0), scale_spikes=False))
    reread = read(tmp_path / "again.nir")
    assert reread.dialect.option("scale_spikes") is False
    assert count(reread) == count(built("CubaLIF"))
    (note,) = simulate(reread, EVENTS, 50e-3).notes
    assert "node '2'" in note
    assert "w_in" in note


def test_a_file_whose_gains_are_1_says_nothing_and_keeps_its_bits(old_file, tmp_path):
    path, options = old_file(built("CubaLIF"))
    graph = read(path, **options)
    assert count(graph) == count(built("CubaLIF"))
    write(tmp_path / "again.nir", graph)
    tags = []
    for name in (path, tmp_path / "again.nir"):
        with h5py.File(name) as file:
            tag = file["node/metadata"].get("jaxsnn")
            tags.append(tag if tag is None else tag[()])
    assert tags[0] == tags[1]


def test_a_gain_that_was_trained_in_an_old_file_is_read_again_as_it_was_trained(
    tmp_path, tagged_file
):
    graph = read(tagged_file(1.0))
    network = lower(graph)
    gain = {"w_in": 3 * network.parameters["2"]["w_in"]}
    parameters = {**network.parameters, "2": {**network.parameters["2"], **gain}}
    trained = update_graph(graph, network.with_parameters(parameters))
    write(tmp_path / "trained.nir", trained)
    assert count(read(tmp_path / "trained.nir")) == count(trained) == count(built("CubaLIF", 3.0))
    assert count(parse(document_of_graph(trained))) == count(trained)


@pytest.mark.parametrize(("scales", "gain"), [(True, 3.0), (False, 1.0)])
def test_the_importer_that_reads_no_gains_is_given_weights(scales, gain, tagged_file):
    """The library of the Electronic Vision(s) group ignores w_in and r."""
    graph = read(tagged_file(3.0), scale_spikes=scales)
    assert {problem.node for problem in check(graph, "jaxsnn").problems} == {"2"}
    converted = convert(graph, to="jaxsnn").graph
    node = converted.nodes["2"]
    assert np.all(node.w_in == 1)
    assert np.all(node.r == 1)
    assert converted.nodes["1"].weight == pytest.approx(0.43 * gain)
    assert count(converted) == count(graph)
    assert check(converted, "jaxsnn").ok


@pytest.mark.parametrize("target", ["snntorch", "norse", "spikingjelly"])
@pytest.mark.parametrize("kind", ["CubaLIF", "LIF"])
def test_gains_scale_what_is_converted(kind, target):
    """A gain of 3 is converted to what three times the weights are converted to."""
    x = np.zeros((500, 1, 1), np.float32)
    x[::20] = 1.0

    def fired(graph):
        return played(convert(graph, to=target, dt=1e-4, approximate=True).graph, x)

    spikes = fired(built(kind, 3.0))
    np.testing.assert_array_equal(spikes, fired(built(kind, weight=3 * 0.43)))
    assert spikes.sum() > fired(built(kind)).sum() > 0
