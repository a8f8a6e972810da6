"""The adapter of docs/conformance.md runs from the command line as the page says."""

import re
import subprocess
import sys

from tests.helpers.pages import blocks_of, pages


def test_the_adapter_of_the_page_runs_in_its_folder_with_the_counts_of_the_page(tmp_path):
    blocks = [block for block in blocks_of("conformance") if block.section == "Write an adapter"]
    (tmp_path / "my_adapter.py").write_text(blocks[0].code)
    program, *words = blocks[1].code.split()
    assert program == "python"
    result = subprocess.run(
        [sys.executable, *words], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    text = pages()["conformance"].read_text()
    (counts,) = re.findall(r"(\d+), (\d+) and (\d+) cells pass", text)
    assert tuple(re.findall(r"(\d+) pass", result.stdout)) == counts
    assert set(re.findall(r"\d+ ([a-z ]+?)(?:,|$)", result.stdout, re.M)) == {
        *("pass", "refused", "not applicable"),
    }
