"""Another installed distribution with a package `jaxsnn` is reported."""

import json
import sys

import pytest

import jaxsnn
from jaxsnn.commands.cli import main
from jaxsnn.other_distributions import mixed_files_advice, other_distributions


@pytest.fixture
def vendor_library(tmp_path, monkeypatch):
    """Metadata of an installed distribution that has a file `jaxsnn/__init__.py`."""
    metadata = tmp_path / "jaxsnn-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: jaxsnn\nVersion: 1.0\n")
    (metadata / "RECORD").write_text("jaxsnn/__init__.py,,\njaxsnn/base.py,,\n")
    monkeypatch.syspath_prepend(str(tmp_path))


def test_nothing_is_reported_for_this_distribution_only():
    assert other_distributions() == ()
    assert mixed_files_advice() == ""


def test_doctor_names_the_other_distribution(vendor_library, capsys):
    assert other_distributions() == ("jaxsnn",)
    assert main(["doctor", "--json"]) == 0
    conflict = json.loads(capsys.readouterr().out)["conflict"]
    assert "pip uninstall jaxsnn jaxsnn-nir" in conflict


@pytest.mark.parametrize("conflicting", [False, True])
def test_a_failed_import_names_the_other_distribution(conflicting, request, monkeypatch):
    if conflicting:
        request.getfixturevalue("vendor_library")
    monkeypatch.setitem(jaxsnn._HOME, "stream", "jaxsnn.event.missing")
    monkeypatch.delitem(vars(jaxsnn), "stream", raising=False)
    with pytest.raises(ModuleNotFoundError if not conflicting else ImportError) as error:
        _ = jaxsnn.stream
    assert error.value.name == "jaxsnn.event.missing"
    assert ("pip uninstall" in str(error.value)) == conflicting
    assert "jaxsnn.event.missing" not in sys.modules
