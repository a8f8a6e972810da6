"""The workflow that docs/conformance.md offers to other projects: its command runs, and its results are
uploaded.
"""

import fnmatch
import re
import shlex
import xml.etree.ElementTree as ElementTree

import pytest

from jaxsnn.commands.cli import main
from tests.helpers.pages import ROOT

WORKFLOW = (ROOT / "docs" / "conformance_workflow.yml").read_text()
SIMULATOR = """
from tests.conformance.faulty import Simulator, with_parameters

ADAPTER = Simulator()
FAULTY = Simulator(read=lambda graph: with_parameters(graph, "LIF", r=lambda r: 2 * r))
"""


def command(framework):
    """The arguments of jaxsnn in the workflow, for a framework and a few cells."""
    (line,) = re.findall(r"^ +- run: python -m jaxsnn (.*)$", WORKFLOW, re.M)
    words = [framework if word == "$FRAMEWORK" else word for word in shlex.split(line)]
    assert framework in words
    return [*words, "--only", "import/LIF/r = "]


def faults_of(arguments, folder, monkeypatch):
    """Exit code of the command, and the faults of its cells; the files are those to be uploaded."""
    monkeypatch.chdir(folder)
    code = main(arguments)
    (pattern,) = re.findall(r"^ +path: (.*)$", WORKFLOW, re.M)
    uploaded = {path.name for path in folder.iterdir() if fnmatch.fnmatch(path.name, pattern)}
    assert uploaded == {"conformance.xml", "conformance.html"}
    cases = ElementTree.parse(folder / "conformance.xml").findall("testcase")
    faults = {
        case.attrib["name"].split("/")[2]: [part.tag for part in case if part.tag != "system-out"]
        for case in cases
    }
    return code, faults


@pytest.fixture
def simulator(tmp_path, monkeypatch):
    """Name of a module with two adapters."""
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "workflow_simulator.py").write_text(SIMULATOR)
    monkeypatch.syspath_prepend(tmp_path / "modules")
    return "workflow_simulator"


def test_the_job_passes_if_all_cells_do_and_fails_if_one_is_wrong(simulator, tmp_path, monkeypatch):
    for adapter, code, tags in (("ADAPTER", 0, []), ("FAULTY", 1, ["failure"])):
        folder = tmp_path / adapter
        folder.mkdir()
        arguments = command(f"{simulator}:{adapter}")
        faults = {"r = 1": tags, "r = 0.7": tags}
        assert faults_of(arguments, folder, monkeypatch) == (code, faults)


@pytest.mark.interop
def test_it_runs_the_framework_that_it_names(tmp_path, monkeypatch):
    (framework,) = re.findall(r"^ +FRAMEWORK: (\w+)$", WORKFLOW, re.M)
    pytest.importorskip(framework)
    code, faults = faults_of(command(framework), tmp_path, monkeypatch)
    assert (code, faults) == (0, {"r = 1": [], "r = 0.7": []})


def test_the_order_of_edges_is_that_of_every_other_run():
    assert re.search(r'^      PYTHONHASHSEED: "0"$', WORKFLOW, re.M)
