"""The README's code runs, and prints what the README says."""

import re
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[2]


def test_the_quickstart_runs_and_prints_what_it_says(tmp_path, monkeypatch, capsys):
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    assert len(blocks) == 2
    code = "\n".join(blocks)
    monkeypatch.chdir(tmp_path)
    exec(
        compile(
            code.replace('"jaxsnn/commands/', f'"{ROOT}/jaxsnn/commands/'), "README.md", "exec"
        ),
        {},
    )
    printed = [
        np.fromstring(line.strip("[]"), sep=" ") for line in capsys.readouterr().out.splitlines()
    ]
    said = [
        np.fromstring(text, sep=" ") for text in re.findall(r"print\(.*\)  # \[+([^\]]*)\]", code)
    ]
    assert len(printed) == len(said) == 2
    for got, expected in zip(printed, said, strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-4)
    assert (tmp_path / "trained.nir").exists()
    assert (tmp_path / "net.nir").exists()
