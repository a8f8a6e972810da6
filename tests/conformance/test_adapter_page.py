"""The adapter of docs/conformance.md runs from the command line as the page says."""

import json
import subprocess
import sys

from jaxsnn.conformance.cells import ROLES
from tests.helpers.pages import blocks_of


def test_the_adapter_of_the_page_runs_in_its_folder_and_has_no_faults(tmp_path):
    blocks = [block for block in blocks_of("conformance") if block.section == "Write an adapter"]
    (tmp_path / "my_adapter.py").write_text(blocks[0].code)
    program, *words = blocks[1].code.split()
    assert program == "python"
    command = [sys.executable, *words, "--json"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    verdicts = {role: set() for role in ROLES}
    for cell in json.loads(result.stdout)["cells"]:
        verdicts[cell["role"]].add(cell["verdict"])
    assert verdicts == {
        "export": {"pass", "not applicable"},
        "import": {"pass", "refused"},
        "round trip": {"pass", "not applicable"},
    }
