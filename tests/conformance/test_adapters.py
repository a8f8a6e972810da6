"""Which adapters and cells a run takes, and which it refuses."""

import importlib.util
from types import SimpleNamespace

import numpy as np
import pytest

from jaxsnn.commands.reports.conformance_report import conformance_page
from jaxsnn.conformance import adapter_of, run
from jaxsnn.conformance.comparison import FrameworkError
from jaxsnn.conformance.reproduction import reproduction
from jaxsnn.errors import UsageError
from tests.conformance.faulty import Simulator
from tests.helpers.packages import installed


def test_a_name_without_a_cell_is_refused():
    with pytest.raises(UsageError, match="LIFF"):
        run(Simulator(), only="import/LIFF/")


@pytest.mark.parametrize(
    "name", ["snntorc", "nowhere:ADAPTER", "tests.conformance.faulty:Simulator"]
)
def test_what_is_no_adapter_is_refused(name):
    with pytest.raises(UsageError):
        adapter_of(name)


@pytest.mark.parametrize("file", ["tinysim.py", "tinysim/__init__.py", "other.py"])
def test_a_framework_refuses_by_raise_in_a_package_or_a_single_module(file, tmp_path):
    path = tmp_path / file
    path.parent.mkdir(exist_ok=True)
    path.write_text("def load():\n    raise ValueError('no such node')\n")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    with pytest.raises(ValueError, match="node") as caught:
        module.load()
    adapter = SimpleNamespace(distribution="tinysim")
    answer = FrameworkError.of(caught.value, "import", adapter).answer
    assert answer.verdict == ("crash" if file == "other.py" else "refused")


def test_an_adapter_frees_memory_between_cells_and_after_each_reduced_failure():
    calls = []
    adapter = Simulator(read=lambda graph: 1 / 0)
    adapter.release = lambda: calls.append("release")  # pyright: ignore[reportAttributeAccessIssue]
    report = run(adapter, roles=("import",), only="import/LIF/")
    assert len(report.outcomes) >= 10
    assert report.failures
    assert len(calls) == len(report.outcomes) // 10 + len(report.failures)


@pytest.mark.parametrize(("requirement", "noted"), [("nir<=1.0.4", True), ("nir<2", False)])
def test_a_release_of_nir_that_the_framework_excludes_is_noted(
    requirement, noted, tmp_path, monkeypatch, capsys
):
    """The requirement of an extra counts, too."""
    installed(tmp_path, "oldframework", requires=[f'{requirement}; extra == "nir"'])
    monkeypatch.syspath_prepend(tmp_path)
    adapter = Simulator(read=lambda graph: 1 / 0, distribution="oldframework")
    report = run(adapter, only="import/LIF/uniform/one layer")
    assert [note.code for note in report.notes] == ["unsupported-release"] * noted
    (failure,) = report.failures
    assert (requirement in reproduction(adapter, report, failure)["issue.md"]) == noted
    page = conformance_page(SimpleNamespace(failures=None, report="r.html"), report)  # pyright: ignore
    assert ("nir&lt;=1.0.4" in page) == noted


def test_a_module_that_takes_its_state_gets_it():
    torch = pytest.importorskip("torch")
    from jaxsnn.conformance.torch_modules import run_stateful

    class Sum(torch.nn.Module):
        def forward(self, x, state=None):
            total = x if state is None else state + x
            return total, total

    y = run_stateful(Sum(), np.ones((3, 1, 1), np.float32))
    assert y.ravel().tolist() == [1, 2, 3]
