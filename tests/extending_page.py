"""The code of docs/extending.md, which the tests of what comes from outside run; and of other pages."""

import re
from pathlib import Path

PAGE = Path(__file__).parents[1] / "docs" / "extending.md"


def code_of(section: str, page: Path = PAGE) -> str:
    """The Python of a section, all blocks in one but those that are not run."""
    text = page.read_text().partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    return "\n\n".join(re.findall(r"(?<!-->\n)```python\n(.*?)```", text, re.S))


def made_by(section: str) -> dict:
    """What the code of a section defines."""
    names: dict = {"__name__": f"extending_{section.replace(' ', '_').lower()}"}
    exec(compile(code_of(section), str(PAGE), "exec"), names)
    return names
