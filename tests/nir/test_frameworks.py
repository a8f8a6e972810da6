"""What is known of each framework: versions of what it writes and reads, and the register."""

import importlib.metadata
import json

import numpy as np
import pytest

from jaxsnn import TimeStepped, check, lower, simulate
from jaxsnn.errors import UsageError
from jaxsnn.nir import DIALECTS, build, export, parse
from jaxsnn.nir.convert.importers import importer_problems
from jaxsnn.nir.convert.pipeline import convert
from jaxsnn.nir.frameworks.registry import (
    conventions_of,
    covers,
    framework_of,
    frameworks,
    importer_of,
    installed_importer,
    split_version,
)
from tests.helpers.refusals import assert_refused


@pytest.fixture
def versions(monkeypatch):
    """`versions(snntorch="0.9.4")`: these distributions are installed, and no others."""

    def install(**installed):
        def version(name):
            if name not in installed:
                raise importlib.metadata.PackageNotFoundError(name)
            return installed[name]

        monkeypatch.setattr(importlib.metadata, "version", version)

    return install


CUBALIF = build.cubalif(tau_mem=1e-3, tau_syn=5e-4, r=10.0, w_in=5.0)


def leaky(neurons=None):
    options = {"dialect": "snntorch", "reset": "zero", "reset_delay": False}
    neurons = neurons or build.lif(tau=1e-3, r=10.0)
    return build.sequential(build.input(3), build.affine(4), neurons, seed=0, **options)


def untagged(*layers):
    graph = export(build.sequential(build.input(2), *layers, seed=0, dialect="nir"))
    graph.metadata = {}
    return graph


# Registry


def test_each_framework_is_one_file_of_its_name():
    for name, framework in frameworks().items():
        assert framework.name == name
        assert framework == framework_of(name)
        assert framework.title
        assert framework.note.endswith(".")
        for conventions in framework.dialects:
            assert conventions.name == name
            assert conventions == conventions_of(name, conventions.version)
        for importer in framework.importers:
            assert importer == importer_of(name, importer.version)
            assert importer.released or importer.after
    assert list(DIALECTS) == list(frameworks())
    assert len(DIALECTS) == len(frameworks())


def test_versions_cover_what_begins_like_them():
    assert covers("1.0", "1.0.3")
    assert not covers("1.0", "1.01")
    assert not covers("", "1.0")
    assert split_version(" norse == main ") == ("norse", "main")
    assert importer_of("snntorch", "1.0.7").version == "1.0"
    assert conventions_of("norse", "1.2").version == "main"


@pytest.mark.parametrize(
    ("call", "says", "fix"),
    [
        (
            lambda: importer_of("norse", "0.0.7"),
            r"norse 0\.0\.7 is unknown",
            "known versions: 1.1, main",
        ),
        (
            lambda: conventions_of("sinabs", "1"),
            "sinabs 1 is unknown: remove the version",
            "",
        ),
        (
            lambda: convert(leaky(), to="snntorch==0.5"),
            r"snntorch 0\.5 is unknown: known versions: 1\.0",
            "",
        ),
        (lambda: convert(leaky(), to="nir"), "there is no conversion to 'nir'", ""),
        (
            lambda: convert(leaky(), to="snntorch==1.0", dt="1ms"),
            "supports only dt = 100 us, not 1 ms",
            "",
        ),
        (lambda: check(leaky(), "snntorch==0.1"), r"snntorch 0\.1 is unknown", ""),
        (
            lambda: importer_problems(leaky(), "nir"),
            "there is no importer 'nir'",
            "",
        ),
    ],
)
def test_unknown_versions_are_refused(call, says, fix):
    assert_refused(call, UsageError, says, fix=fix)


def test_a_later_release_is_said_to_be_taken_for_what_was_to_come():
    later = "Norse 99 is unknown and treated like main, which comes after 1.1"
    assert convert(leaky(), to="norse==99").notes[0] == later
    why = "norse==99 was specified. Norse 99 is unknown and treated like main, which comes"
    graph = untagged(build.linear(3), build.lif(tau=0.01))
    parsed = parse(graph, dialect="norse==99")
    assert why in parsed.dialect.why
    problems = [(problem.code, problem.message) for problem in parsed.warnings]
    assert problems == [("unknown-release", later)]
    assert later in str(check(parsed, "norse"))
    for version in ("main", "1.1", "1.1.7"):
        assert "treated like" not in "".join(convert(leaky(), to=f"norse=={version}").notes)
        parsed = parse(graph, dialect=f"norse=={version}")
        assert "treated like" not in parsed.dialect.why
        assert not parsed.warnings


# Files that a version writes


def test_files_of_norse_main_are_in_true_seconds():
    graph = untagged(build.linear(3), build.lif(tau=0.01), build.linear(2))
    released = parse(graph, dialect="norse").dialect
    assert (released.version, released.seconds) == (None, None)
    main = parse(graph, dialect="norse==main").dialect
    assert (main.name, main.version, main.dt_export, main.seconds) == ("norse", "main", 1.0, 1.0)
    assert main.why.startswith("norse==main was specified.")
    assert "time_scaling_factor, pass dt_export=" in main.why
    assert parse(graph, dialect="norse==main", dt_export="10ms").dialect.seconds == 100
    assert json.loads(json.dumps(main.as_dict()))["version"] == "main"


def test_iaf_of_norse_main_starts_at_v_reset():
    """1.1 does not write v_reset; main does, and its IAF starts there."""
    weight = np.full((1, 2), 0.5)
    layers = build.linear(weight=weight), build.integrate_and_fire(v_threshold=1.2, v_reset=-1.0)
    graph = parse(untagged(*layers), dialect="norse==main", dt="1ms")
    assert graph.dialect.at("2").initial == "v_reset"
    network = lower(graph, dtype=np.float32)
    solution = simulate(network, np.ones((6, 1, 2)), engine=TimeStepped(record=True))
    # V = -1 + 1 = 0, 1, 2: the neuron fires in the third step, and resets to -1.
    np.testing.assert_array_equal(solution.output().ravel(), [0, 0, 1, 0, 0, 1])
    started_at_zero = parse(untagged(*layers), dialect="norse==main", dt="1ms", initial="2:zero")
    assert started_at_zero.dialect.at("2").initial == "zero"


# Files that a version reads


@pytest.mark.parametrize(
    ("installed", "written_for", "notes"),
    [
        ({}, "snnTorch 1.0", []),
        ({"snntorch": "1.0.0"}, "snnTorch 1.0", []),
        ({"snntorch": "1.0.4"}, "snnTorch 1.0", []),
        (
            {"snntorch": "0.9.4"},
            "snnTorch 1.0",
            [
                "written for snnTorch 1.0, but the installed version is 0.9.4, which this library does not know"
            ],
        ),
        (
            {"snntorch": "1.1.0"},
            "snnTorch main",
            [
                "written for snnTorch main, but the installed version is 1.1.0, a release after 1.0 "
                "that is treated like 1.0",
                "support for snnTorch main is based on its source code; it was not tested by running it",
            ],
        ),
    ],
)
def test_without_a_version_the_installed_one_is_written_for(
    installed, written_for, notes, versions
):
    versions(**installed)
    conversion = convert(leaky(), to="snntorch")
    assert conversion.written_for == written_for
    assert conversion.load_with.endswith(f"  # {written_for}")
    assert list(conversion.notes) == notes


def test_another_version_than_the_installed_one_is_noted(versions):
    versions(snntorch="1.0.0", norse="1.1.0")
    assert convert(leaky(), to="snntorch==main").notes[0] == (
        'written for snnTorch main, but the installed version is 1.0.0; for that version pass to="snntorch==1.0"'
    )
    assert installed_importer("snntorch") == importer_of("snntorch", "1.0")
    assert convert(leaky(), to="norse==1.1.0").notes == ()


def test_the_line_of_each_version(versions):
    versions()
    targets = ("snntorch==1.0", "snntorch==main", "norse==1.1", "norse==main")
    released, main, norse, norse_main = (convert(leaky(CUBALIF), to=to).load_with for to in targets)
    assert released.endswith("import_from_nir(nir.read('model.nir'))  # snnTorch 1.0")
    assert main.endswith("import_from_nir(nir.read('model.nir'), dt=0.0001)  # snnTorch main")
    assert norse.replace("1.1", "main") == norse_main


def test_cubalif_is_written_as_each_version_of_snntorch_reads_it(versions):
    versions()
    graph = leaky(CUBALIF)
    for version, w_in in (("1.0", 5.0), ("main", 1.0)):
        converted = convert(graph, to=f"snntorch=={version}").graph
        np.testing.assert_allclose(converted.nodes["2"].value("w_in"), w_in)
        # The weights are the same: a spike of weight w makes the current jump by w in both.
        weight, expected = (net.nodes["1"].value("weight") for net in (converted, graph))
        np.testing.assert_array_equal(weight, expected)
    assert converted.dialect.name is None
    assert "interprets CubaLIF differently from files that snnTorch writes" in converted.dialect.why


def test_main_can_be_told_another_step(versions):
    versions()
    converted = convert(leaky(), to="snntorch==main", dt="1ms").graph
    np.testing.assert_allclose(converted.nodes["2"].value("tau"), 1e-2)
    assert (converted.dialect.name, converted.dialect.dt) == ("snntorch", 1e-3)


@pytest.mark.parametrize(("version", "threads"), [("1.1", True), ("main", False)])
def test_norse_main_needs_no_thread(version, threads, versions):
    versions()
    nodes = {"input": build.input(3), "output": build.output()}
    nodes |= {name: build.affine(3) for name in ("a", "b")}
    nodes |= {name: build.lif(tau=1e-3, r=10.0) for name in ("hidden", "sum")}
    chains = [("input", "a", "hidden", "b", "sum", "output"), ("a", "sum")]
    options = {"dialect": "snntorch", "reset": "zero", "reset_delay": False}
    graph = build.network(nodes, chains, seed=0, **options)
    changes = convert(graph, to=f"norse=={version}").changes
    assert any("weight 0" in change.what for change in changes) is threads


def test_check_asks_one_version(versions):
    versions()
    graph = leaky(CUBALIF)
    assert check(graph, "snntorch==1.0").ok
    report = check(graph, "snntorch==main")
    (problem,) = report.problems
    assert (problem.code, report.purpose) == ("needs-conversion", "snntorch==main")
    assert problem.fix == 'convert the file with to="snntorch==main"'
