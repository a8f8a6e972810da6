"""A framework from outside works wherever those of this package do; nothing in it is touched."""

import json
import sys
from functools import partial
from pathlib import Path

import jax
import numpy as np
import pytest

from jaxsnn import TimeStepped, check, lower, simulate, update_graph, verify
from jaxsnn.errors import ConversionError, DialectError, LoweringError, UsageError
from jaxsnn.nir import build, describe, export, parse, read, tagged, write
from jaxsnn.nir.convert.pipeline import convert
from jaxsnn.nir.dialects.inference import resolve
from jaxsnn.nir.frameworks import framework_of, register_framework, unregister_framework
from jaxsnn.nir.frameworks.registry import frameworks, writable
from tests.helpers import packages
from tests.helpers.command_line import finished
from tests.helpers.random_spikes import random_raster
from tests.helpers.refusals import assert_refused
from tests.nir import tustin
from tests.nir.conversions import played
from tests.oracles import tustin_simulator

TOLD = {"tick": "1ms", "scaled": True, "dt": "1ms"}


@pytest.fixture(autouse=True)
def registered():
    """The framework, for one test."""
    register_framework(tustin.FRAMEWORK)
    yield
    if "tustin" in frameworks():
        unregister_framework("tustin")


@pytest.fixture
def simulator(monkeypatch):
    """Its own simulator, as an installed module."""
    monkeypatch.setitem(sys.modules, "tustin_simulator", tustin_simulator)
    return tustin_simulator


def file_of(tmp_path, **others):
    """A file of two layers, without a tag; time constants in ticks."""
    rng = np.random.default_rng(3)
    tau = rng.uniform(4, 20, 12)
    numbers = {"r": 2.0, "v_threshold": rng.uniform(0.05, 0.1, 12), "v_reset": -0.01} | others
    layers = [
        build.affine(12, weight=rng.normal(0.3, 0.6, (12, 5)), bias=0.01),
        build.lif(tau=tau, **numbers),
        build.linear(12, weight=rng.normal(0.2, 0.6, (12, 12))),
        build.lif(tau=tau, **numbers),
    ]
    # `export` leaves out no number; the tag is taken off.
    graph = export(build.sequential(build.input(5), *layers, dialect="nir"))
    graph.metadata = {}
    path = tmp_path / "tustin.nir"
    write(path, parse(graph, dialect="nir"), force=True)
    return path


def spikes(seed=0):
    return random_raster(seed, (80, 6, 5))


def own(simulator, path, x, **options):
    """What the framework itself fires."""
    import nir

    return simulator.run(nir.read(path), x, 1e-3, tick=1e-3, **options)


# Reading


def test_its_files_are_recognised_by_its_own_evidence(tmp_path):
    dialect = read(file_of(tmp_path)).dialect
    assert (dialect.name, dialect.decided_by) == ("tustin", "inference")
    assert "r = 2 at all neurons, as only Tustin writes" in dialect.why
    assert "say tick=" in dialect.why
    assert "say scaled=" in dialect.why
    told = read(file_of(tmp_path), **TOLD).dialect
    assert told.own == {"tick": 1e-3, "scaled": True}
    assert told.seconds == 1e-3


def test_what_contradicts_it_is_refused(tmp_path):
    path = file_of(tmp_path, r=1.0)
    assert read(path).dialect.name is None
    assert "tustin" not in read(path).dialect.choices
    expected = {"says": "r = 2, but node '2' has 1", "node": "2", "code": "contradiction"}
    assert_refused(lambda: read(path, dialect="tustin"), DialectError, **expected)


def test_its_options_belong_to_it(tmp_path):
    path = file_of(tmp_path)
    for call, says in (
        (lambda: read(path, dialect="nir", scaled=True), "the dialect tustin, not for nir"),
        (lambda: read(path, scaled="maybe"), r'scaled="maybe" .* true, false'),
        (lambda: resolve(read(path), scald=True), "'scald': did you mean 'scaled'"),
        (lambda: read(path, dialect="tustin==3"), "tustin 3: known are 2"),
    ):
        assert_refused(call, UsageError, says)
    by_node = read(path, **{**TOLD, "scaled": ["true", "4:false"]}).dialect
    assert (by_node.option("scaled", "2"), by_node.option("scaled", "4")) == (True, False)
    assert read(path, dialect="tustin==2.1", **TOLD).dialect.version == "2.1"
    unregister_framework("tustin")
    unknown = lambda: read(path, dialect="nir", scaled=True)  # noqa: E731
    assert_refused(unknown, UsageError, "unknown option 'scaled'")


def test_a_tag_keeps_its_options(tmp_path):
    graph = read(file_of(tmp_path), **{**TOLD, "scaled": ["true", "4:false"]})
    write(tmp_path / "tagged.nir", tagged(graph))
    again = read(tmp_path / "tagged.nir").dialect
    assert again.decided_by == "metadata"
    assert again.own == describe(graph)["dialect"]["own"] == graph.dialect.own
    assert again.option("scaled", "4") is False


# Simulating


@pytest.mark.parametrize("scaled", [True, False])
def test_the_time_stepped_engine_fires_its_spikes(scaled, tmp_path, simulator):
    path, x = file_of(tmp_path), spikes()
    graph = read(path, **{**TOLD, "scaled": scaled})
    network = lower(graph, dtype=np.float32)
    y = own(simulator, path, x, scaled=scaled)
    assert 0.02 < y.mean() < 0.9
    np.testing.assert_array_equal(simulate(network, x, engine=TimeStepped()).output(), y)
    assert verify(graph, x, y).ok


@pytest.mark.parametrize(
    ("options", "says", "fix"),
    [
        ({"tick": "1ms"}, "scaled", "say scaled="),
        ({"scaled": True}, "the length of a tick of Tustin's clock", "say tick="),
    ],
)
def test_what_is_not_said_stands_in_the_way_by_name(options, says, fix, tmp_path):
    graph = read(file_of(tmp_path), dt="1ms", **options)
    run = lambda: simulate(lower(graph), spikes(), engine=TimeStepped())  # noqa: E731
    assert_refused(run, LoweringError, says, node="2", fix=fix)


def test_gradients_pass_its_own_decay(tmp_path):
    graph = read(file_of(tmp_path), **TOLD)
    network, x = lower(graph), spikes()

    def loss(tau):
        parameters = {**network.parameters, "2": {**network.parameters["2"], "tau": tau}}
        changed = network.with_parameters(parameters)
        return (simulate(changed, x, engine=TimeStepped()).output() ** 2).sum()

    slope = jax.grad(loss)(network.parameters["2"]["tau"])
    assert np.isfinite(slope).all()
    assert np.abs(slope).max() > 0


def test_a_trained_network_goes_back_into_its_file(tmp_path):
    graph = read(file_of(tmp_path), **TOLD)
    network = lower(graph)
    values = {name: dict(own) for name, own in network.parameters.items()}
    values["2"]["tau"] = values["2"]["tau"] * 2
    again = update_graph(graph, network.with_parameters(values))
    np.testing.assert_allclose(
        again.nodes["2"].value("tau"), 2 * np.asarray(graph.nodes["2"].value("tau")), rtol=1e-6
    )


# Converting


@pytest.mark.parametrize("target", ["norse", "snntorch", "spikingjelly"])
def test_it_converts_to_others(target, tmp_path, simulator):
    path, x = file_of(tmp_path, v_reset=0.0), spikes(1)
    made, y = convert(read(path, **TOLD), to=target), own(simulator, path, x)
    assert 0.02 < y.mean() < 0.9
    np.testing.assert_array_equal(played(made.graph, x), y)


def test_others_convert_to_it_and_its_line_loads_them(tmp_path, simulator):
    neurons = {"tau": 2e-3, "r": 20.0, "v_threshold": 0.8}
    graph = build.sequential(
        build.input(5),
        build.affine(12, bias=0.05),
        build.lif(**neurons),
        build.linear(4),
        build.lif(**neurons),
        seed=5,
        dialect="snntorch",
        reset="zero",
        reset_delay=False,
    )
    path, x = str(tmp_path / "converted.nir"), spikes(2)
    made = convert(graph, to="tustin", path=path)
    write(path, made.graph)
    assert made.written_for == "Tustin 2"
    assert made.load_with.endswith("  # Tustin 2")
    names = {"x": x}
    exec(f"{made.load_with}\n{made.run_with}", names)
    y = played(graph, x)
    assert 0.02 < y.mean() < 0.9
    np.testing.assert_array_equal(names["y"], y)
    np.testing.assert_array_equal(played(made.graph, x), y)
    assert (made.graph.dialect.name, made.graph.dialect.own) == (
        "tustin",
        {"tick": 1.0, "scaled": True},
    )
    (rounding,) = made.notes  # of biases that are multiples of 0.001
    assert rounding.startswith("node '2': float32 rounds its weights")


def test_what_it_cannot_do_is_refused_by_its_writer():
    graph = build.sequential(
        build.input(2),
        build.linear(3),
        build.lif(tau=1e-3, r=10.0),
        seed=0,
        dialect="snntorch",
        reset="subtract",
        reset_delay=True,
    )
    for to, error, says in (
        ("tustin", ConversionError, "node '2': it does not reset to a value"),
        ("tustin==9", UsageError, "tustin 9: known are 2"),
    ):
        assert_refused(lambda to=to: convert(graph, to=to), error, says)
    assert "tustin" in writable()


def test_check_asks_its_importer(tmp_path):
    graph = read(file_of(tmp_path), **TOLD)
    assert check(graph, "grid").ok
    report = check(graph, "tustin")
    # Ticks are written as seconds.
    assert [problem.code for problem in report.problems] == ["needs-conversion"] * 2
    again = convert(graph, to="tustin").graph
    assert check(again, "tustin==2").ok
    pooled = build.sequential(build.input(2), build.scale(np.ones(2)), seed=0, dialect="snntorch")
    codes = [problem.code for problem in check(pooled, "tustin").problems]
    assert "unmapped-node" in codes


def test_its_layers_are_traced():
    import torch

    from jaxsnn import from_torch

    class Cell(torch.nn.Module):
        tau, scaled, dt, v = 0.01, True, 1e-3, 0.0

        def start(self):
            self.v = 0.0

        def forward(self, x):
            k = 1 / (1 + self.dt / self.tau)
            v = k * self.v + (1 - k) * x
            spikes = (v > 1).to(x.dtype)
            self.v = (1 - spikes) * v
            return spikes

    Cell.__module__ = "tustin_layers.cells"
    graph = from_torch(torch.nn.Sequential(torch.nn.Linear(5, 3), Cell()), torch.zeros(1, 5))
    assert graph.dialect.name == "tustin"
    assert (graph.dialect.dt, graph.dialect.own["tick"]) == (1e-3, 1.0)
    assert graph.dialect.option("scaled", "1") is True


# Registering


def test_unregistering_forgets_what_was_registered_alone():
    unregister_framework("tustin")
    assert_refused(lambda: framework_of("tustin"), UsageError, "no framework 'tustin'")
    assert_refused(lambda: unregister_framework("norse"), UsageError, "no framework 'norse' was")


# By the commands, from an installed distribution


@pytest.fixture
def installed(tmp_path):
    """A distribution with an entry point, and a way to call the command with it."""
    site = packages.installed(
        tmp_path / "site",
        "tustin",
        version="2.3",
        files={
            "tustin_plugin.py": Path(tustin.__file__).read_text(),
            "tustin_simulator.py": Path(tustin_simulator.__file__).read_text(),
        },
        frameworks={"tustin": "tustin_plugin:FRAMEWORK"},
    )
    return partial(finished, site=site)


def test_the_commands_know_it(tmp_path, installed, simulator):
    path, x = file_of(tmp_path), spikes()
    shown = json.loads(installed("info", path, "--json").stdout)["dialect"]
    assert (shown["name"], shown["decided_by"]) == ("tustin", "inference")
    told = ["--tick", "1ms", "--scaled", "true", "--dt", "1ms"]

    # What is missing is asked for in the words of the command line.
    missing = installed("check", path, "--for", "grid", "--dt", "1ms", "--json", code=1)
    fixes = [problem["fix"] for problem in json.loads(missing.stdout)["problems"]]
    assert sorted(fixes) == ["say --scaled"] * 2 + ["say --tick"] * 2
    assert installed("check", path, "--for", "grid", *told).stdout.startswith("grid: fine")

    np.savez(tmp_path / "r.npz", x=x, y=own(simulator, path, x))
    found = installed("verify", path, "--recording", tmp_path / "r.npz", *told, "--json")
    assert json.loads(found.stdout)["identical_fraction"] == 1
    output = tmp_path / "converted.nir"
    made = json.loads(
        installed("convert", path, output, "--to", "tustin==2", *told, "--json").stdout
    )
    assert made["written_for"] == "Tustin 2"
    (rounding,) = made["notes"]  # of biases that are multiples of 0.001
    assert rounding.startswith("node '2': float32 rounds its weights")
    names = {"x": x}
    exec(f"{made['load_with']}\n{made['run_with']}", names)
    np.testing.assert_array_equal(names["y"], own(simulator, path, x))
    installed("check", output, "--for", "tustin", "--tick", "1s", "--scaled", "1", code=2)
    told = ["--tick", "1s", "--scaled", "true", "--dt", "1ms"]
    assert installed("check", output, "--for", "tustin", *told).stdout.startswith("tustin: fine")


def test_help_and_doctor_name_it(installed):
    text = " ".join(installed("convert", "--help").stdout.split())
    for part in ("snn_mlir, tustin;", "--tick TIME", "Tustin: length of a tick", "--scaled BOOL"):
        assert part in text
    assert "tustin" in installed("check", "--help").stdout
    known = json.loads(installed("doctor", "--json").stdout)["frameworks"]["tustin"]
    assert known == {"installed": "2.3", "importers": ["2"], "written_for": "2"}


def test_an_entry_point_that_fails_is_named(tmp_path, installed):
    broken = {"broken": "nothing_there:IT"}
    packages.installed(tmp_path / "site", "broken", frameworks=broken)
    done = installed("info", "x.nir", code=2)
    assert done.stderr.count("\n") == 1
    assert "the entry point 'broken' of the group jaxsnn.frameworks" in done.stderr
    assert "No module named 'nothing_there'" in done.stderr
