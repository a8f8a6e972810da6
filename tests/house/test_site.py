"""The site: every public name, option and command is on it. Its blocks: `test_blocks.py`."""

import argparse
import re
import sys
from pathlib import Path

import jaxsnn
from jaxsnn import plot, train
from jaxsnn.nir.convert.pipeline import PASSES
from jaxsnn.nir.model.nodes import node_types
from jaxsnn.train.options import OPTIONS
from tests.commands.test_cli import commands

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
sys.path.insert(0, str(DOCS))

import site_pages  # noqa: E402


def test_every_public_name_is_in_the_reference():
    public = {f"jaxsnn.{name}" for name in jaxsnn.__all__} - {"jaxsnn.__version__"}
    public |= {f"jaxsnn.train.{name}" for name in train.__all__}
    public |= {f"jaxsnn.plot.{name}" for name in plot.__all__}
    public |= {f"jaxsnn.nir.build.{name}" for name in ("cubalif", "sequential", "network", "node")}
    assert public <= set(re.findall(r"^### ([\w.]+)$", site_pages.reference_page(), re.M))


def test_every_command_and_option_is_on_its_pages():
    page, options = site_pages.commands_page(), site_pages.options_page()
    for name, command in commands().items():
        section = page.partition(f"## jaxsnn {name}\n")[2].partition("\n## ")[0]
        for action in command._actions:
            flags = action.option_strings
            assert [flag for flag in flags if f"`{flag}`" not in section] == [], name
            if flags and action.help != argparse.SUPPRESS and action.dest != "help":
                assert any(f"| `{flag}` |" in options for flag in flags), (name, flags)


def test_every_option_of_training_and_every_node_is_on_its_page():
    options, nodes = site_pages.options_page(), site_pages.nodes_page()
    assert [name for name in OPTIONS if f"| `{name}` |" not in options] == []
    assert [name for name in node_types() if f"| `{name}` |" not in nodes] == []


def test_every_pass_is_on_its_page_in_its_order():
    page = site_pages.passes_page()
    headings = [line for line in page.splitlines() if line.startswith("## ")]
    assert headings == [f"## {number}. {step.name}" for number, step in enumerate(PASSES, 1)]
    conditions = [condition for step in PASSES for condition in (*step.requires, *step.ensures)]
    statements = [site_pages.plain(condition.statement) for condition in conditions]
    assert [statement for statement in statements if statement not in page] == []


def test_a_docstring_becomes_markdown():
    def example():
        """Does *it* to `x`.

        Args:
            x: what <goes> in.

        >>> example()
        1
        """

    markdown = site_pages.described(example)
    assert r"Does \*it\* to `x`." in markdown
    assert r"- `x`: what \<goes\> in." in markdown
    assert "```pycon\n>>> example()\n1\n```" in markdown


def test_every_page_is_in_the_contents():
    index = (DOCS / "index.md").read_text()
    pages = {path.stem for path in DOCS.glob("*.md")} - {"index"}
    assert pages <= set(re.findall(r"^([\w/]+)$", index, re.M))


def test_the_gallery_shows_the_first_picture_of_each_example(tmp_path, monkeypatch):
    def pictures(name, folder):
        return [folder / f"{name}.png", folder / f"{name}_more.png"]

    monkeypatch.setattr(site_pages, "run_example", pictures)
    monkeypatch.setenv("JAXSNN_DOCS_EXAMPLES", "run")
    page = site_pages.gallery_page(tmp_path)
    picture = "![train_delays: what it draws](gallery/train_delays.png)"
    line = f"- [{picture}](gallery/train_delays.md)<br>[](gallery/train_delays.md)"
    assert line in page.splitlines()
    assert (tmp_path / "train_delays.md").read_text().count("](train_delays") == 2


def test_cells_of_an_example_are_prose_and_code():
    cells = site_pages.cells_of("# %% [markdown]\n# # T\n#\n# a\n\n# %%\nx = 1\n")
    assert cells == [("markdown", "# T\n\na"), ("python", "x = 1")]
