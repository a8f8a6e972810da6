"""The README's code runs from anywhere, and prints what the README says."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "README.md").read_text()


@pytest.mark.slow
@pytest.mark.interop
def test_the_quickstart_runs_and_prints_what_it_says(tmp_path, monkeypatch, capsys):
    blocks = re.findall(r"```python\n(.*?)```", TEXT, re.S)
    assert len(blocks) == 2
    monkeypatch.chdir(tmp_path)
    exec(compile("\n".join(blocks), "README.md", "exec"), {})
    verified, accuracy, names = capsys.readouterr().out.splitlines()
    assert verified == "True"
    assert float(accuracy.removesuffix("%")) > 90
    assert f"# {names}" in TEXT
    assert (tmp_path / "trained.nir").exists()


def test_the_quickstart_is_short_and_names_the_four_steps():
    block = re.findall(r"```python\n(.*?)```", TEXT, re.S)[0]
    for step in ("from_torch(", "verify(", "fit(", "write("):
        assert f"jaxsnn.{step}" in block
    lines = [line for line in block.splitlines() if line and not line.startswith("import")]
    assert len(lines) <= 15


def test_every_file_and_page_that_is_named_is_there():
    named = re.findall(r"\]\((?!http)([^)#]+)\)|`((?:docs|examples|benchmarks)/[\w./]*)`", TEXT)
    paths = [ROOT / (one or other) for one, other in named]
    assert len(paths) > 5
    assert [path for path in paths if not path.exists()] == []


def test_the_two_commands_are_there():
    assert "$ make demo" in TEXT
    assert "$ make test" in TEXT
