"""Folders of failures: the scripts show the faults of installed frameworks without this package."""

import os
import subprocess
import sys

import pytest

from jaxsnn.conformance import adapter_of, run
from jaxsnn.conformance.reproduction import draw_trains, write_failures
from jaxsnn.errors import FileError
from tests.conformance.faulty import Simulator


def exit_code(folder, **replacements):
    """Exit code of a script in a folder, with replaced text, and what it prints."""
    script = (folder / "reproduce.py").read_text(encoding="utf-8")
    assert "jaxsnn" not in script
    for old, new in replacements.values():
        assert old in script
        script = script.replace(old, new)
    path = folder / "changed.py"
    path.write_text(script, encoding="utf-8")
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    completed = subprocess.run(
        [sys.executable, path], capture_output=True, text=True, env=environment, check=False
    )
    return completed.returncode, completed.stdout


def folder_of(tmp_path, framework, only):
    """Folder of the first failure in some cells."""
    pytest.importorskip(framework)
    adapter = adapter_of(framework)
    report = run(adapter, only=only)
    return write_failures(report, adapter, tmp_path / "failures")[0]


def test_a_wrong_import(tmp_path):
    """snnTorch ignores v_reset; a corrected importer is accepted."""
    folder = folder_of(tmp_path, "snntorch", "import/LIF/v_reset")
    code, printed = exit_code(folder)
    assert code == 1
    assert "expected:\nsample 0, neuron 0: " in printed
    right = ("actual = run(module, x)", "actual = accepted[0]")
    assert exit_code(folder, right=right)[0] == 0
    issue = (folder / "issue.md").read_text(encoding="utf-8")
    assert issue.startswith("# NIR import of LIF ignores v_reset\n")
    assert "v = v_reset" in issue
    assert (folder / "reproduce.py").read_text(encoding="utf-8").rstrip() in issue


def test_a_crash_of_an_import(tmp_path):
    """snnTorch cannot import what it does not export: recurrent layers without a nested graph."""
    folder = folder_of(tmp_path, "snntorch", "import/LIF/uniform/recurrent")
    assert exit_code(folder)[0] == 1
    right = ("import_from_nir(graph)", "import_from_nir")
    other = ("actual = run(module, x)", "actual = x")
    assert exit_code(folder, right=right, other=other)[0] == 0


def test_a_failing_export(tmp_path):
    """snnTorch's exporter does not give a single threshold the shape of the population."""
    folder = folder_of(tmp_path, "snntorch", "export/LIF/number/one neuron")
    assert not (folder / "network.nir").exists()
    assert exit_code(folder)[0] == 1
    right = ("graph = export(module, network)", "sys.exit(0)")
    assert exit_code(folder, right=right)[0] == 0


def test_existing_files_are_kept(tmp_path):
    adapter = Simulator()
    report = run(adapter, only="import/LI/")
    (tmp_path / "mine.txt").touch()
    with pytest.raises(FileError):
        write_failures(report, adapter, tmp_path)
    assert write_failures(report, adapter, tmp_path, force=True) == []
    assert (tmp_path / "mine.txt").exists()


def test_trains_as_text():
    import numpy as np

    spikes = np.array([[[0, 1]], [[1, 0]]])
    assert draw_trains(spikes) == "sample 0, neuron 0: .|\nsample 0, neuron 1: |."
    assert draw_trains(np.array([[[0.5]], [[0.25]]])) == "sample 0, neuron 0: 0.5 0.25"
