"""The wheel and the sdist: built, and the first tutorial run from the wheel alone."""

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PARTS = (
    "jaxsnn",
    "build_backend",
    "tests",
    "docs",
    "examples",
    "benchmarks",
    "pyproject.toml",
    "README.md",
)
PARTS += ("LICENSE", "CHANGELOG.md", "CITATION.cff", "CONTRIBUTING.md", "Makefile")

#: Script that runs a page of the site in the current folder.
RUN = """
import re, shlex, sys
import jaxsnn
from jaxsnn.commands.cli import main
assert jaxsnn.__file__.startswith(sys.argv[2]), jaxsnn.__file__
names = {}
for language, code in re.findall(r"```(python|sh)\\n(.*?)```", open(sys.argv[1]).read(), re.S):
    if language == "python":
        exec(code, names)
    else:
        for line in code.replace("\\\\\\n", " ").splitlines():
            assert main(shlex.split(line)[1:]) == 0, line
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The folder with both, built from a copy of the source."""
    folder = tmp_path_factory.mktemp("packages")
    source = folder / "source"
    source.mkdir()
    ignored = shutil.ignore_patterns("__pycache__", "_build", "generated", "results")
    for part in PARTS:
        path = ROOT / part
        copy = shutil.copytree if path.is_dir() else shutil.copy
        copy(path, source / part, **({"ignore": ignored} if path.is_dir() else {}))
    subprocess.run([sys.executable, "-m", "venv", folder / "env"], check=True)
    python = folder / "env" / "bin" / "python"
    subprocess.run([python, "-m", "pip", "-q", "install", "hatchling"], check=True)
    subprocess.run(
        [python, "-m", "hatchling", "build", "-d", folder / "dist"], cwd=source, check=True
    )
    return folder


@pytest.mark.slow
def test_wheel_and_sdist_hold_what_they_need(built):
    (wheel,) = (built / "dist").glob("*.whl")
    (sdist,) = (built / "dist").glob("*.tar.gz")
    members = zipfile.ZipFile(wheel).namelist()
    assert "jaxsnn/commands/demo/snntorch_yinyang.nir" in members
    assert "jaxsnn/py.typed" in members
    assert [name for name in members if name.startswith("tests/")] == []
    with tarfile.open(sdist) as archive:
        inside = {name.partition("/")[2] for name in archive.getnames()}
    pages = {"README.md", "CONTRIBUTING.md", "docs/getting_started.md"}
    assert pages | {"LICENSE", "examples/train_yinyang.py"} <= inside


@pytest.mark.slow
def test_getting_started_runs_from_an_empty_folder_with_the_wheel(built):
    (wheel,) = (built / "dist").glob("*.whl")
    site, empty = built / "site", built / "empty"
    empty.mkdir()
    install = [sys.executable, "-m", "pip", "-q", "install", "--no-deps", "--target", site, wheel]
    subprocess.run(install, check=True)
    page = ROOT / "docs" / "getting_started.md"
    done = subprocess.run(
        [sys.executable, "-c", RUN, page, site],
        cwd=empty,
        env=os.environ | {"PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    expected = {
        "curve.png",
        "trained.nir",
        "norse.nir",
        "mapping.json",
        "floorplan.svg",
        "map.html",
    }
    assert expected <= {path.name for path in empty.iterdir()}
