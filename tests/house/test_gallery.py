"""Every example runs with --smoke, and leaves the picture that the gallery shows."""

import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from jaxsnn.network import neuron_models
from jaxsnn.nir.frameworks.registry import frameworks, unregister_framework
from jaxsnn.nir.model import nodes

FOLDER = Path(__file__).parents[2] / "examples"
NAMES = (
    "encoders",
    "snntorch_to_event",
    "norse_round_trip",
    "train_yinyang",
    "train_fashion_mnist",
    "train_delays",
    "fine_tune_imported",
    "recurrent_poisson",
    "your_own_loop",
    "map_to_brainscales2",
    "in_the_loop",
    "custom_framework",
    "custom_neuron",
    "distributed",
)
QUICK = ("encoders", "map_to_brainscales2", "custom_framework")
ALONE = ("distributed",)  # what JAX computes on is chosen before it computes anything
FROM_TORCH = ("snntorch_to_event",)


@pytest.fixture
def registers(monkeypatch):
    """Registers of their own, for what an example adds."""
    for register in (neuron_models, nodes):
        monkeypatch.setattr(register, "_REGISTERED", {})
    yield
    if "implicit" in frameworks():
        unregister_framework("implicit")


def marked(name):
    slow = [] if name in QUICK else [pytest.mark.slow]
    return pytest.param(name, marks=[*slow, *([pytest.mark.interop] * (name in FROM_TORCH))])


@pytest.mark.parametrize("name", [marked(name) for name in NAMES])
def test_an_example_runs_and_draws(name, tmp_path, monkeypatch, registers):
    monkeypatch.chdir(tmp_path)
    script = FOLDER / f"{name}.py"
    if name in ALONE:
        command = [sys.executable, script, "--smoke"]
        subprocess.run(command, check=True, timeout=600, cwd=tmp_path)
    else:
        monkeypatch.setattr(sys, "argv", [str(script), "--smoke"])
        runpy.run_path(str(script), run_name="__main__")
    pictures = list(tmp_path.glob(f"{name}.*g"))
    assert [path.suffix for path in pictures] in ([".png"], [".svg"])


def test_every_example_is_here_and_begins_with_prose():
    scripts = {path.stem for path in FOLDER.glob("*.py")} - {"export_snntorch"}
    assert scripts == set(NAMES)
    for name in NAMES:
        lines = (FOLDER / f"{name}.py").read_text().splitlines()
        assert lines[0] == "# %% [markdown]", name
        assert lines[1].startswith("# # "), name
        assert lines.count("# %%") >= 2, name
