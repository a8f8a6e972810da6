"""The site: every public name, option and command is on it. Its blocks: `test_blocks.py`."""

import argparse
import re
import sys
from pathlib import Path

import jaxsnn

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
sys.path.insert(0, str(DOCS))

import site_pages  # noqa: E402


def test_every_public_name_is_in_the_reference():
    page = site_pages.reference_page()
    from jaxsnn import plot, train

    wanted = {f"jaxsnn.{name}" for name in jaxsnn.__all__} - {"jaxsnn.__version__"}
    wanted |= {f"jaxsnn.train.{name}" for name in train.__all__}
    wanted |= {f"jaxsnn.plot.{name}" for name in plot.__all__}
    wanted |= {f"jaxsnn.nir.build.{name}" for name in ("cubalif", "sequential", "network", "node")}
    found = set(re.findall(r"^### ([\w.]+)$", page, re.M))
    assert wanted - found == set()


def test_every_command_and_option_is_on_its_page():
    from tests.commands.test_cli import commands

    page = site_pages.commands_page()
    for name, command in commands().items():
        section = page.partition(f"## jaxsnn {name}\n")[2].partition("\n## ")[0]
        flags = {flag for action in command._actions for flag in action.option_strings}
        assert [flag for flag in flags if f"`{flag}`" not in section] == [], name


def test_every_option_of_training_and_every_node_is_on_its_page():
    from jaxsnn.nir.model.nodes import node_types
    from jaxsnn.train.options import OPTIONS

    options, nodes = site_pages.options_page(), site_pages.nodes_page()
    assert [name for name in OPTIONS if f"| `{name}` |" not in options] == []
    assert [name for name in node_types() if f"| `{name}` |" not in nodes] == []


def test_every_pass_is_on_its_page_in_its_order():
    from jaxsnn.nir.convert.pipeline import PASSES

    page = site_pages.passes_page()
    headings = [line for line in page.splitlines() if line.startswith("## ")]
    assert headings == [
        f"## {number}. {conversion_pass.name}" for number, conversion_pass in enumerate(PASSES, 1)
    ]
    for conversion_pass in PASSES:
        statements = [
            condition.statement
            for condition in (*conversion_pass.requires, *conversion_pass.ensures)
        ]
        assert [text for text in statements if site_pages.plain(text) not in page] == []


def test_every_limit_and_importer_is_on_the_page_of_capabilities():
    from jaxsnn.capabilities import Limit
    from jaxsnn.compatibility.tables import TABLES, importer_tables, rows_of

    page = site_pages.capabilities_page()
    for simulator in TABLES:
        for row in rows_of(simulator):
            code = f"`{row.code}`" if isinstance(row, Limit) else ""
            assert f"| {row.description} | {code} |" in page
    assert [
        table.title for table in importer_tables().values() if f"| {table.title} |" not in page
    ] == []
    assert "{" not in page.replace('{"NODE": ', "")


def test_every_option_of_a_command_is_on_the_page_of_options():
    from tests.commands.test_cli import commands

    page = site_pages.options_page()
    for name, command in commands().items():
        missing = [
            action.option_strings
            for action in command._actions
            if action.option_strings
            and action.help != argparse.SUPPRESS
            and action.dest != "help"
            and not any(f"| `{flag}` |" in page for flag in action.option_strings)
        ]
        assert missing == [], name


def test_a_docstring_becomes_markdown():
    def example():
        """Does *it* to `x`.

        Args:
            x: what <goes> in.

        >>> example()
        1
        """

    made = site_pages.described(example)
    assert r"Does \*it\* to `x`." in made
    assert r"- `x`: what \<goes\> in." in made
    assert "```pycon\n>>> example()\n1\n```" in made


def test_every_page_is_in_the_contents():
    index = (DOCS / "index.md").read_text()
    listed = set(re.findall(r"^([\w/]+)$", index, re.M))
    pages = {path.stem for path in DOCS.glob("*.md")} - {"index"}
    assert pages - listed == set()


def test_the_gallery_shows_the_first_picture_of_each_example(tmp_path, monkeypatch):
    def drawn(name, folder):
        return [folder / f"{name}.png", folder / f"{name}_more.png"]

    monkeypatch.setattr(site_pages, "run_example", drawn)
    monkeypatch.setenv("JAXSNN_DOCS_EXAMPLES", "run")
    page = site_pages.gallery_page(tmp_path)
    picture = "![train_delays: what it draws](gallery/train_delays.png)"
    line = f"- [{picture}](gallery/train_delays.md)<br>[](gallery/train_delays.md)"
    assert line in page.splitlines()
    own = (tmp_path / "train_delays.md").read_text()
    assert own.count("](train_delays") == 2


def test_cells_of_an_example_are_prose_and_code():
    cells = site_pages.cells_of("# %% [markdown]\n# # T\n#\n# a\n\n# %%\nx = 1\n")
    assert cells == [("markdown", "# T\n\na"), ("python", "x = 1")]
