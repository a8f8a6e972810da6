"""Every example runs, shortened by its constants, and draws its picture; so do the notebooks."""

import json
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from jaxsnn.network import neuron_models
from jaxsnn.nir.frameworks.registry import frameworks, unregister_framework
from jaxsnn.nir.model import nodes

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "docs"))

from example_runs import EXAMPLES, EXTRAS, NOTEBOOKS, cells_of, run_cells, with_constants  # noqa: E402
from site_pages import pictures_of  # noqa: E402

from tests.helpers import loggers  # noqa: E402

SAMPLES = (256, 128, 128)
#: Constants of each example with which it runs within seconds.
SHORT = {
    "encoders": {},
    "snntorch_to_event": {"STEPS": 30, "SAMPLES": 2},
    "norse_round_trip": {},
    "train_yinyang": {"SAMPLES": SAMPLES, "HIDDEN": 20, "EPOCHS": 3},
    "train_fashion_mnist": {"FOLDER": "images", "HIDDEN": 16, "EPOCHS": 1},
    "train_delays": {"SAMPLES": (192, 96, 96), "HIDDEN": 10, "EPOCHS": 2},
    "fine_tune_imported": {"SAMPLES": SAMPLES, "EPOCHS": 1},
    "recurrent_poisson": {"NEURONS": 20, "T_END": 0.05},
    "microcircuit": {"SCALE": 0.01, "T_END": 0.15},
    "your_own_loop": {"STEPS": 3},
    "equinox_loop": {"SAMPLES": (100, 20, 20), "HIDDEN": 10, "EPOCHS": 1},
    "flax_loop": {"SAMPLES": (100, 20, 20), "HIDDEN": 10, "EPOCHS": 1},
    "log_training": {"SAMPLES": SAMPLES, "HIDDEN": 20, "EPOCHS": 1},
    "map_to_brainscales2": {},
    "in_the_loop": {"SAMPLES": (64, 64, 64), "HIDDEN": 20, "EPOCHS": 1, "EPOCHS_ON_CHIP": 1},
    "custom_framework": {},
    "custom_neuron": {},
    "distributed": {"SAMPLES": SAMPLES, "EPOCHS": 1},
}
QUICK = (
    *("encoders", "map_to_brainscales2", "custom_framework"),
    *("your_own_loop", "equinox_loop", "flax_loop"),
)
#: Packages that examples need and that may be missing.
NEEDED = {"equinox_loop": "equinox", "flax_loop": "flax"}
#: JAX chooses the devices of a process once.
OWN_PROCESS = ("distributed",)


@pytest.fixture
def registries(monkeypatch):
    """Restore the registries to which some examples add a node, a neuron model or a framework."""
    for module in (neuron_models, nodes):
        monkeypatch.setattr(module, "_REGISTERED", {})
    yield
    if "implicit" in frameworks():
        unregister_framework("implicit")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working directory with images in the format of Fashion-MNIST."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "images").mkdir()
    rng = np.random.default_rng(0)
    for part, count in (("train", 300), ("t10k", 60)):
        labels = np.arange(count, dtype=np.uint8) % 10
        images = rng.integers(0, 256, (count, 28, 28), np.uint8)
        for kind, array in (("images", images), ("labels", labels)):
            path = tmp_path / "images" / f"{part}-{kind}-idx{array.ndim}-ubyte"
            header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">i4").tobytes()
            path.write_bytes(header + array.tobytes())
    return tmp_path


def with_marks(name):
    slow = [] if name in QUICK else [pytest.mark.slow]
    interop = [pytest.mark.interop] if "interop" in EXTRAS.get(name, "") else []
    return pytest.param(name, marks=[*slow, *interop])


def source_of(name):
    return (EXAMPLES / f"{name}.py").read_text()


def notebook_cells(name):
    """Return the cells of a notebook: kind and text, and the outputs of each."""
    content = json.loads((NOTEBOOKS / f"{name}.ipynb").read_text())
    kinds = {"code": "python", "markdown": "markdown"}
    cells = [(kinds[cell["cell_type"]], "".join(cell["source"])) for cell in content["cells"]]
    return cells, [cell.get("outputs", []) for cell in content["cells"]]


def shortened(text, constants):
    """Return the text of a cell with other values of the constants that it sets."""
    present = [name for name in constants if f"\n{name} = " in text]
    return with_constants(text, {name: constants[name] for name in present})


def pictures_in(folder, name):
    return [path.name for path in sorted(folder.glob(f"{name}*.*g"))]


@pytest.mark.parametrize("name", list(map(with_marks, SHORT)))
def test_an_example_runs_and_draws_the_pictures_of_the_site(name, folder, registries, monkeypatch):
    if name in NEEDED:
        pytest.importorskip(NEEDED[name])
    loggers.install(monkeypatch)
    script = folder / f"{name}.py"
    script.write_text(with_constants(source_of(name), SHORT[name]))
    if name in OWN_PROCESS:
        subprocess.run([sys.executable, script], check=True, timeout=600, cwd=folder)
    else:
        runpy.run_path(str(script), run_name="__main__")
    assert pictures_in(folder, name) == [path.name for path in pictures_of(name)]


@pytest.mark.parametrize("name", list(map(with_marks, EXTRAS)))
def test_a_notebook_runs_and_shows_its_pictures(name, folder, registries):
    cells, stored = notebook_cells(name)
    outputs = list(run_cells([(kind, shortened(text, SHORT[name])) for kind, text in cells[1:]]))
    kinds = [[output["output_type"] for output in cell] for cell in outputs]
    assert kinds == [[output["output_type"] for output in cell] for cell in stored[1:]]
    assert any("text/html" in output.get("data", {}) for cell in stored for output in cell)


@pytest.mark.parametrize("name", EXTRAS)
def test_a_notebook_installs_the_package_and_has_the_code_of_its_example(name):
    cells, _ = notebook_cells(name)
    assert cells[0] == ("python", f'%pip install -q "jaxsnn-nir[{EXTRAS[name]}]"')
    assert cells[1:] == cells_of(source_of(name))


def test_notebooks_have_the_format_of_jupyter():
    assert {path.stem for path in NOTEBOOKS.glob("*.ipynb")} == set(EXTRAS)
    for path in NOTEBOOKS.glob("*.ipynb"):
        content = json.loads(path.read_text())
        assert (content["nbformat"], content["nbformat_minor"]) == (4, 5)
        assert content["metadata"]["kernelspec"]["name"] == "python3"
        identifiers = [cell["id"] for cell in content["cells"]]
        assert len(set(identifiers)) == len(identifiers)
        required = {"cell_type", "id", "metadata", "source"}
        for cell in content["cells"]:
            is_code = cell["cell_type"] == "code"
            assert set(cell) == required | ({"execution_count", "outputs"} if is_code else set())


def test_every_example_begins_with_prose_and_has_a_picture():
    scripts = {path.stem for path in EXAMPLES.glob("*.py")} - {"export_snntorch"}
    assert scripts == set(SHORT)
    for name in SHORT:
        lines = source_of(name).splitlines()
        assert lines[0] == "# %% [markdown]", name
        assert lines[1].startswith("# # "), name
        assert lines.count("# %%") >= 2, name
        assert pictures_of(name), name
        assert not any(example != name and example.startswith(name) for example in SHORT), name


def test_only_constants_of_an_example_are_replaced():
    assert with_constants("A = 1\nb = A\n", {"A": (2, 3)}) == "A = (2, 3)\nb = A\n"
    for source in ("b = 1\n", "A = 1\nA = 2\n", "if x:\n    A = 1\n"):
        with pytest.raises(ValueError, match="sets A"):
            with_constants(source, {"A": 2})


def test_cells_of_an_example_are_prose_and_code():
    cells = cells_of("# %% [markdown]\n# # T\n#\n# a\n\n# %%\nx = 1\n")
    assert cells == [("markdown", "# T\n\na"), ("python", "x = 1")]


def test_outputs_of_a_cell_are_those_of_a_notebook(capsys):
    cells = [("markdown", "# T"), ("python", "print('a')\n1 + 1"), ("python", "x = None")]
    prose, outputs, nothing = run_cells(cells)
    assert (prose, nothing) == ([], [])
    assert outputs[0] == {"output_type": "stream", "name": "stdout", "text": ["a\n"]}
    assert outputs[1]["data"] == {"text/plain": ["2"]}
    assert capsys.readouterr().out == "a\n"
