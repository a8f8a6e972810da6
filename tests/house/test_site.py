"""The site documents every public object, option and command. Its blocks: `test_blocks.py`."""

from __future__ import annotations

import argparse
import re
import sys
from importlib import import_module
from pathlib import Path

from jaxsnn.nir.convert.pipeline import PASSES
from jaxsnn.nir.model.nodes import node_types
from jaxsnn.train.options import OPTIONS
from tests.commands.test_cli import commands

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
sys.path.insert(0, str(DOCS))

import reference_pages  # noqa: E402
import site_pages  # noqa: E402


def test_every_public_object_is_on_one_page_of_the_reference():
    documented = [name for topic in reference_pages.TOPICS.values() for name in topic.objects]
    public = {
        f"{module}.{name}"
        for module in reference_pages.REFERENCE
        for name in reference_pages.public_names(import_module(module))
    }
    assert sorted(documented) == sorted(public)


def test_every_public_object_has_an_entry_for_the_index():
    pages = reference_pages.topic_pages()
    contents = reference_pages.reference_page()
    for page, topic in reference_pages.TOPICS.items():
        assert f"\nreference/{page}\n" in contents
        for full_name in topic.objects:
            module, _, name = full_name.rpartition(".")
            entry = rf"^`````\{{py:\w+\}} {name}\b.*\n:module: {re.escape(module)}$"
            assert re.search(entry, pages[page], re.M), full_name
            assert f"<{full_name}>`" in contents


def test_methods_and_properties_of_classes_have_entries():
    page = reference_pages.topic_pages()["simulation"]
    assert "````{py:method} push(events" in page
    assert "````{py:property} waiting" in page
    assert "````{py:method} with_parameters(" in page
    assert page.count("````{py:method} with_room(") == 2  # EventDriven inherits it
    assert "{py:method} progress(" not in reference_pages.topic_pages()["training"]  # a field


def test_every_module_of_the_reference_is_in_the_index_of_modules():
    text = "\n".join(reference_pages.topic_pages().values())
    for module, purpose in reference_pages.REFERENCE.items():
        assert text.count(f"```{{py:module}} {module}\n:synopsis: {purpose}\n") == 1


def test_a_signature_has_types_and_defaults_that_can_be_read():
    def example(graph: Graph | str, *, kind="cosine", progress=print):  # type: ignore  # noqa: F821
        """Train a graph."""

    signature = reference_pages.signature_of("example", example)
    assert signature == "example(graph: Graph | str, *, kind='cosine', progress=print)"
    assert not [
        name
        for topic in reference_pages.TOPICS.values()
        for name in topic.objects
        if re.search(r"<\w+", reference_pages.signature_of(name, reference_pages.resolve(name)))
    ]


def test_every_command_and_option_is_on_its_pages():
    page, options = site_pages.commands_page(), site_pages.options_page()
    for name, command in commands().items():
        section = page.partition(f"## jaxsnn {name}\n")[2].partition("\n## ")[0]
        for action in command._actions:
            flags = action.option_strings
            hidden = action.help == argparse.SUPPRESS
            assert [flag for flag in flags if (f"`{flag}`" in section) == hidden] == [], name
            if flags and not hidden and action.dest != "help":
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


def test_a_docstring_becomes_markdown():
    def example():
        """Does *it* to `x`.

        Args:
            x: what <goes> in.

        >>> example()
        1
        """

    text = reference_pages.described(example)
    assert r"Does \*it\* to `x`." in text
    assert r"- `x`: what \<goes\> in." in text
    assert "```pycon\n>>> example()\n1\n```" in text


def test_every_page_is_in_the_contents():
    index = (DOCS / "index.md").read_text()
    pages = {path.stem for path in DOCS.glob("*.md")} - {"index"}
    assert pages <= set(re.findall(r"^([\w/]+)$", index, re.M))


def test_the_gallery_shows_the_first_picture_of_each_example(tmp_path):
    page = site_pages.gallery_page(tmp_path)
    picture = "![Picture of train_delays](../pictures/train_delays.png)"
    line = f"- [{picture}](gallery/train_delays.md)<br>[](gallery/train_delays.md)"
    assert line in page.splitlines()
    assert page.count("](../pictures/") == page.count(".md)<br>") == len(list(tmp_path.iterdir()))
    example = (tmp_path / "recurrent_poisson.md").read_text()
    assert example.count("](../../pictures/recurrent_poisson") == 2


def test_the_gallery_links_to_notebooks(tmp_path):
    page = site_pages.gallery_page(tmp_path)
    for name in site_pages.EXTRAS:
        path = f"examples/notebooks/{name}.ipynb"
        assert f"<../../{path}>`" in page
        assert f"<../../../{path}>`" in (tmp_path / f"{name}.md").read_text()
        assert (ROOT / path).exists()
