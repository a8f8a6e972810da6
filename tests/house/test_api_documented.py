"""Every public name is in docs/api.md, whose examples run and print what it says."""

import doctest
import re
from pathlib import Path

import jaxsnn

PAGE = Path(__file__).parents[2] / "docs" / "api.md"


def test_every_public_name_has_its_line():
    rows = [line.split("|")[1] for line in PAGE.read_text().splitlines() if line.startswith("| `")]
    described = {name for row in rows for name in re.findall(r"`(\w+)", row)}
    assert described == set(jaxsnn.__all__) - {"__version__"}


def test_every_public_name_has_a_docstring():
    for name in jaxsnn.__all__:
        assert name == "__version__" or (getattr(jaxsnn, name).__doc__ or "").strip(), name


def test_the_examples_print_what_the_page_says():
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.S)
    source = "\n".join(block for block in blocks if block.startswith(">>>"))
    test = doctest.DocTestParser().get_doctest(source, {}, "api.md", str(PAGE), 0)
    assert len(test.examples) > 15
    assert doctest.DocTestRunner().run(test).failed == 0
