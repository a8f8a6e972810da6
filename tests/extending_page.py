"""The code of pages about extensions, which the tests of extensions run; and of other pages."""

import re
from pathlib import Path

DOCS = Path(__file__).parents[1] / "docs"
#: Section -> page of the documentation.
PAGES = {
    "A neuron model": "guide_neuron",
    "A neuron model with nonlinear equations": "guide_neuron",
    "A node type": "guide_neuron",
    "A loss": "guide_loss",
    "An encoder, a constraint, a regulariser": "guide_loss",
    "A framework": "extending",
    "A placer or a router": "extending",
}


def code_of(*sections: str, page: Path | None = None) -> str:
    """Return the Python of sections, all blocks in one but those that are not run."""
    texts = []
    for section in sections:
        text = (page or DOCS / f"{PAGES[section]}.md").read_text()
        text = text.partition(f"\n## {section}\n")[2].partition("\n## ")[0]
        texts += re.findall(r"(?<!-->\n)```python\n(.*?)```", text, re.S)
    return "\n\n".join(texts)


def defined_by(*sections: str) -> dict:
    """Return what the code of sections defines, by name."""
    module = f"page_{sections[0].replace(' ', '_').lower()}"
    namespace: dict = {"__name__": module}
    exec(compile(code_of(*sections), sections[0], "exec"), namespace)
    return namespace
