"""A framework from outside works wherever those of this package do; nothing in it is touched."""

import json
import sys
from functools import partial
from pathlib import Path

import jax
import nir
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
from tests.helpers.command_line import call, finished
from tests.helpers.random_spikes import random_raster
from tests.helpers.refusals import assert_refused
from tests.nir import tustin
from tests.nir.conversions import played
from tests.oracles import tustin_simulator

OPTIONS = {"tick": "1ms", "scaled": True, "dt": "1ms"}


@pytest.fixture(autouse=True)
def registered():
    """The framework, for one test."""
    register_framework(tustin.FRAMEWORK)
    yield
    if "tustin" in frameworks():
        unregister_framework("tustin")


@pytest.fixture
def importable(monkeypatch):
    """Its simulator, as an installed module."""
    monkeypatch.setitem(sys.modules, "tustin_simulator", tustin_simulator)


def file_of(tmp_path, **changes):
    """A file of two layers, without a tag; time constants in ticks."""
    rng = np.random.default_rng(3)
    tau = rng.uniform(4, 20, 12)
    numbers = {"r": 2.0, "v_threshold": rng.uniform(0.05, 0.1, 12), "v_reset": -0.01} | changes
    layers = [
        build.affine(12, weight=rng.normal(0.3, 0.6, (12, 5)), bias=0.01),
        build.lif(tau=tau, **numbers),
        build.linear(12, weight=rng.normal(0.2, 0.6, (12, 12))),
        build.lif(tau=tau, **numbers),
    ]
    # `export` writes all numbers; the tag is removed.
    graph = export(build.sequential(build.input(5), *layers, dialect="nir"))
    graph.metadata = {}
    path = tmp_path / "tustin.nir"
    write(path, parse(graph, dialect="nir"), force=True)
    return path


def spikes(seed=0):
    return random_raster(seed, (80, 6, 5))


def simulated_by_tustin(path, x, **options):
    """Return the spikes of the framework's own simulator."""
    y = tustin_simulator.run(nir.read(path), x, 1e-3, tick=1e-3, **options)
    assert 0.02 < y.mean() < 0.9
    return y


def of_snntorch(*layers, **options):
    return build.sequential(build.input(5), *layers, seed=5, dialect="snntorch", **options)


# Reading


def test_its_files_are_recognised_by_its_own_evidence(tmp_path):
    dialect = read(file_of(tmp_path)).dialect
    assert (dialect.name, dialect.decided_by) == ("tustin", "inference")
    for reason in ("r = 2 at all neurons, as only Tustin writes", "pass tick=", "pass scaled="):
        assert reason in dialect.why
    complete = read(file_of(tmp_path), **OPTIONS).dialect
    assert (complete.framework_options, complete.seconds) == ({"tick": 1e-3, "scaled": True}, 1e-3)


def test_what_contradicts_it_is_refused(tmp_path):
    path = file_of(tmp_path, r=1.0)
    dialect = read(path).dialect
    assert dialect.name is None
    assert "tustin" not in dialect.choices
    expected = {"says": "r = 2, but node '2' has 1", "node": "2", "code": "contradiction"}
    assert_refused(lambda: read(path, dialect="tustin"), DialectError, **expected)


def test_its_options_belong_to_it(tmp_path):
    path = file_of(tmp_path)
    read_as_nir = lambda: read(path, dialect="nir", scaled=True)  # noqa: E731
    for refused, says in (
        (read_as_nir, "the dialect tustin, not of nir"),
        (lambda: read(path, scaled="maybe"), r'scaled="maybe" .* true, false'),
        (lambda: resolve(read(path), scald=True), "'scald': did you mean 'scaled'"),
        (lambda: read(path, dialect="tustin==3"), "tustin 3 is unknown: known versions: 2"),
    ):
        assert_refused(refused, UsageError, says)
    assert read(path, dialect="tustin==2.1", **OPTIONS).dialect.version == "2.1"
    unregister_framework("tustin")
    assert_refused(read_as_nir, UsageError, "unknown option 'scaled'")


def test_a_tag_keeps_its_options(tmp_path):
    graph = read(file_of(tmp_path), **{**OPTIONS, "scaled": ["true", "4:false"]})
    write(tmp_path / "tagged.nir", tagged(graph))
    dialect = read(tmp_path / "tagged.nir").dialect
    assert dialect.decided_by == "metadata"
    assert (
        dialect.framework_options
        == describe(graph)["dialect"]["own"]
        == graph.dialect.framework_options
    )
    assert (dialect.option("scaled", "2"), dialect.option("scaled", "4")) == (True, False)


# Simulating


@pytest.mark.parametrize("scaled", [True, False])
def test_the_time_stepped_engine_fires_its_spikes(scaled, tmp_path):
    path, x = file_of(tmp_path), spikes()
    graph = read(path, **{**OPTIONS, "scaled": scaled})
    y = simulated_by_tustin(path, x, scaled=scaled)
    np.testing.assert_array_equal(played(graph, x), y)
    assert verify(graph, x, y).ok


@pytest.mark.parametrize(
    ("options", "says", "fix"),
    [
        ({"tick": "1ms"}, "scaled", "pass scaled="),
        ({"scaled": True}, "the length of a tick of Tustin's clock", "pass tick="),
    ],
)
def test_what_is_not_said_stands_in_the_way_by_name(options, says, fix, tmp_path):
    graph = read(file_of(tmp_path), dt="1ms", **options)
    assert_refused(lambda: played(graph, spikes()), LoweringError, says, node="2", fix=fix)


def test_files_of_a_custom_framework_are_trained_and_written_back(tmp_path):
    graph = read(file_of(tmp_path), **OPTIONS)
    network = lower(graph)

    def with_tau(tau):
        changed = {**network.parameters["2"], "tau": tau}
        return network.with_parameters({**network.parameters, "2": changed})

    def loss(tau):
        return (simulate(with_tau(tau), spikes(), engine=TimeStepped()).output() ** 2).sum()

    tau = network.parameters["2"]["tau"]
    slope = jax.grad(loss)(tau)
    assert np.isfinite(slope).all()
    assert np.abs(slope).max() > 0
    after = update_graph(graph, with_tau(2 * tau)).nodes["2"]
    expected = 2 * np.asarray(graph.nodes["2"].value("tau"))
    np.testing.assert_allclose(after.value("tau"), expected, rtol=1e-6)


# Converting


@pytest.mark.parametrize("target", ["norse", "snntorch", "spikingjelly"])
def test_files_of_a_custom_framework_convert(target, tmp_path):
    path, x = file_of(tmp_path, v_reset=0.0), spikes(1)
    graph = convert(read(path, **OPTIONS), to=target).graph
    np.testing.assert_array_equal(played(graph, x), simulated_by_tustin(path, x))


def run_lines(load_with, run_with, x):
    """Return the output of the lines that load and run a written file."""
    variables = {"x": x}
    exec(f"{load_with}\n{run_with}", variables)
    return variables["y"]


@pytest.mark.usefixtures("importable")
def test_others_convert_to_it_and_its_line_loads_them(tmp_path):
    neurons = build.lif(tau=2e-3, r=20.0, v_threshold=0.8)
    layers = build.affine(12, bias=0.05), neurons, build.linear(4), neurons
    graph = of_snntorch(*layers, reset="zero", reset_delay=False)
    path, x = str(tmp_path / "converted.nir"), spikes(2)
    conversion = convert(graph, to="tustin", path=path)
    write(path, conversion.graph)
    assert conversion.written_for == "Tustin 2"
    assert conversion.load_with.endswith("  # Tustin 2")
    y = played(graph, x)
    assert 0.02 < y.mean() < 0.9
    loaded = run_lines(conversion.load_with, conversion.run_with, x)
    np.testing.assert_array_equal(loaded, y)
    np.testing.assert_array_equal(played(conversion.graph, x), y)
    dialect = conversion.graph.dialect
    assert (dialect.name, dialect.framework_options) == ("tustin", {"tick": 1.0, "scaled": True})
    (rounding,) = conversion.notes  # biases are multiples of 0.001
    assert rounding.startswith("node '2': float32 rounds its weights")


def test_what_it_cannot_do_is_refused_by_its_writer():
    layers = build.linear(3), build.lif(tau=1e-3, r=10.0)
    graph = of_snntorch(*layers, reset="subtract", reset_delay=True)
    for to, error, says in (
        ("tustin", ConversionError, "node '2': it does not reset to a value"),
        ("tustin==9", UsageError, "tustin 9 is unknown: known versions: 2"),
    ):
        assert_refused(partial(convert, graph, to=to), error, says)
    assert "tustin" in writable()


def test_check_asks_its_importer(tmp_path):
    graph = read(file_of(tmp_path), **OPTIONS)
    assert check(graph, "grid").ok
    # Ticks must be converted to seconds.
    codes = [problem.code for problem in check(graph, "tustin").problems]
    assert codes == ["needs-conversion"] * 2
    assert check(convert(graph, to="tustin").graph, "tustin==2").ok
    scaled = build.sequential(build.input(2), build.scale(np.ones(2)), seed=0, dialect="snntorch")
    assert "unmapped-node" in [problem.code for problem in check(scaled, "tustin").problems]


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
    assert (graph.dialect.dt, graph.dialect.framework_options["tick"]) == (1e-3, 1.0)
    assert graph.dialect.option("scaled", "1") is True


# Registering


def test_unregistering_forgets_what_was_registered_alone():
    unregister_framework("tustin")
    assert_refused(lambda: framework_of("tustin"), UsageError, "no framework 'tustin'")
    assert_refused(
        lambda: unregister_framework("norse"), UsageError, "no framework 'norse' has been"
    )


# On the command line, from an installed distribution


@pytest.fixture
def site(tmp_path):
    """A folder with an installed distribution that has an entry point."""
    return packages.installed(
        tmp_path / "site",
        "tustin",
        version="2.3",
        files={
            "tustin_plugin.py": Path(tustin.__file__).read_text(),
            "tustin_simulator.py": Path(tustin_simulator.__file__).read_text(),
        },
        frameworks={"tustin": "tustin_plugin:FRAMEWORK"},
    )


@pytest.fixture
def command(capsys):
    """`command(*words, code=0)`: stdout of a command in this process."""

    def run(*words, code=0):
        exit_code, out, err = call(capsys, *words)
        assert exit_code == code, err
        return out

    return run


@pytest.mark.usefixtures("importable")
def test_the_commands_take_its_options(tmp_path, command):
    path, x = file_of(tmp_path), spikes()
    y = simulated_by_tustin(path, x)
    options = ["--tick", "1ms", "--scaled", "true", "--dt", "1ms"]

    # Advice on missing options is in the words of the command line.
    missing = command("check", path, "--for", "grid", "--dt", "1ms", "--json", code=1)
    fixes = [problem["fix"] for problem in json.loads(missing)["problems"]]
    assert sorted(fixes) == ["pass --scaled"] * 2 + ["pass --tick"] * 2
    assert command("check", path, "--for", "grid", *options).startswith("grid: fine")

    np.savez(tmp_path / "r.npz", x=x, y=y)
    report = command("verify", path, "--recording", tmp_path / "r.npz", *options, "--json")
    assert json.loads(report)["identical_fraction"] == 1
    output = tmp_path / "converted.nir"
    conversion_report = json.loads(
        command("convert", path, output, "--to", "tustin==2", *options, "--json")
    )
    assert conversion_report["written_for"] == "Tustin 2"
    (rounding,) = conversion_report["notes"]  # biases are multiples of 0.001
    assert rounding.startswith("node '2': float32 rounds its weights")
    np.testing.assert_array_equal(
        run_lines(conversion_report["load_with"], conversion_report["run_with"], x), y
    )
    check_output = ["check", output, "--for", "tustin", "--tick", "1s", "--scaled"]
    command(*check_output, "1", code=2)
    assert command(*check_output, "true", "--dt", "1ms").startswith("tustin: fine")


def test_help_and_doctor_name_an_installed_framework(tmp_path, site):
    dialect = json.loads(finished("info", file_of(tmp_path), "--json", site=site).stdout)["dialect"]
    assert (dialect["name"], dialect["decided_by"]) == ("tustin", "inference")
    text = " ".join(finished("convert", "--help", site=site).stdout.split())
    for part in ("snn_mlir, tustin;", "--tick TIME", "Tustin: length of a tick", "--scaled BOOL"):
        assert part in text
    assert "tustin" in finished("check", "--help", site=site).stdout
    doctor = json.loads(finished("doctor", "--json", site=site).stdout)["frameworks"]["tustin"]
    assert doctor == {"installed": "2.3", "importers": ["2"], "written_for": "2"}


def test_an_entry_point_that_fails_is_named(site):
    packages.installed(site, "broken", frameworks={"broken": "nothing_there:IT"})
    error = finished("info", "x.nir", code=2, site=site).stderr
    assert error.count("\n") == 1
    assert "the entry point 'broken' of the group jaxsnn.frameworks" in error
    assert "No module named 'nothing_there'" in error
