"""Every fault that the suite reports in a framework is a fault of the framework.

Each cause of `root_causes.py` is shown three times: by a calculation with one neuron or layer, which
does not use jaxsnn; by its line in the framework; and by its cell, which passes as soon as the
causes are corrected, and fails if this one is not.
"""

import importlib
import importlib.metadata
import inspect

import pytest

from jaxsnn.conformance import adapter_of, run
from jaxsnn.conformance.cells import cells
from jaxsnn.conformance.suite import run_cell
from tests.conformance.root_causes import ROOT_CAUSES, correct_all


def installed_version(framework):
    """The installed version of a framework; None without it."""
    try:
        return importlib.metadata.version(framework)
    except importlib.metadata.PackageNotFoundError:
        return None


#: Frameworks and versions; versions other than the installed one are not tests here.
VERSIONS = [
    (framework, version)
    for framework, version in ROOT_CAUSES
    if installed_version(framework) in (version, None)
]
CAUSES = [
    pytest.param(framework, version, name, id=f"{framework} {version}: {name}")
    for framework, version in VERSIONS
    for name in ROOT_CAUSES[framework, version]
]


def cause_of(framework, version, name):
    """The cause; skips without the framework."""
    pytest.importorskip(framework)
    return ROOT_CAUSES[framework, version][name]


def verdict_of(framework, name):
    (cell,) = (cell for cell in cells(adapter_of(framework).resets) if cell.name == name)
    return run_cell(adapter_of(framework), cell).answer.verdict


@pytest.mark.parametrize(("framework", "version", "name"), CAUSES)
def test_a_short_calculation_shows_the_fault(framework, version, name, monkeypatch):
    cause = cause_of(framework, version, name)
    actual, right = cause.evidence()
    assert actual != right
    cause.correct(monkeypatch)
    actual, right = cause.evidence()
    assert actual == right


@pytest.mark.parametrize(("framework", "version", "name"), CAUSES)
def test_the_statement_is_where_it_is_said_to_be(framework, version, name):
    cause = cause_of(framework, version, name)
    module, _, path = cause.location.partition(":")
    function = importlib.import_module(module)
    for part in path.split("."):
        function = getattr(function, part)
    lines, first = inspect.getsourcelines(function)
    assert first <= cause.line < first + len(lines)


@pytest.mark.parametrize(("framework", "version", "name"), CAUSES)
def test_a_cell_fails_because_of_it(framework, version, name, monkeypatch):
    cause = cause_of(framework, version, name)
    assert verdict_of(framework, cause.cell) in ("wrong", "crash")
    with monkeypatch.context() as patch:
        correct_all(framework, patch)
        assert verdict_of(framework, cause.cell) == "pass"
    with monkeypatch.context() as patch:
        correct_all(framework, patch, but=name)
        assert verdict_of(framework, cause.cell) != "pass"


@pytest.mark.slow
@pytest.mark.parametrize(("framework", "version"), VERSIONS)
def test_without_its_causes_no_cell_of_a_framework_fails(framework, version, monkeypatch):
    cause_of(framework, version, next(iter(ROOT_CAUSES[framework, version])))
    correct_all(framework, monkeypatch)
    report = run(adapter_of(framework), reduce=False)
    assert report.counts["pass"] > 100
    assert report.ok
