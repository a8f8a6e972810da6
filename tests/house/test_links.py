"""Links of README.md, docs/ and others lead somewhere, without a network: files, anchors, paths."""

import re
import sys

import pytest

from tests.helpers.pages import ROOT, pages

sys.path.insert(0, str(ROOT / "docs"))

import reference_pages

OTHERS = ("CHANGELOG", "CONTRIBUTING", "SECURITY")
FILES = {**pages(), **{name: ROOT / f"{name}.md" for name in OTHERS}}
#: Pages that `site_pages.write_all` writes.
GENERATED = (
    *("reference", "commands", "options", "nodes", "frameworks", "passes"),
    *("capabilities", "messages", "examples"),
)
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
PATH = re.compile(r"`((?:docs|examples|benchmarks|tests|jaxsnn)/[\w./-]+)`")


def bare(text):
    """A page without its blocks and without code in lines, where brackets are no links."""
    return re.sub(r"^```.*?^```$|`[^`\n]+`", "", text, flags=re.S | re.M)


def anchors(text):
    """The anchors of a page's headings, as Sphinx and GitHub make them."""
    headings = re.findall(
        r"^#{1,3} (.*)$", re.sub(r"^```.*?^```$", "", text, flags=re.S | re.M), re.M
    )
    plain = [re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower() for heading in headings]
    return {re.sub(r"[^\w\- ]", "", heading).replace(" ", "-") for heading in plain}


def is_there(path, anchor):
    """Return whether a file or a generated page exists, and has an anchor."""
    inside = path.is_relative_to(ROOT / "docs" / "generated")
    if inside and path.parent.name == "gallery":
        return (ROOT / "examples" / f"{path.stem}.py").exists() and not anchor
    if inside and path.parent.name == "reference":
        topic = reference_pages.TOPICS.get(path.stem)
        return topic is not None and (not anchor or anchor in topic.objects)
    if inside:
        return path.stem in GENERATED and not anchor
    return path.exists() and (not anchor or anchor in anchors(path.read_text()))


def broken(path, text):
    """The links of a page that lead nowhere."""
    for target in LINK.findall(bare(text)):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        aim = (path.parent / file).resolve() if file else path
        if not is_there(aim, anchor):
            yield target


@pytest.mark.parametrize("name", FILES)
def test_every_link_leads_somewhere(name):
    assert list(broken(FILES[name], FILES[name].read_text())) == []


@pytest.mark.parametrize("name", [*pages(), "CONTRIBUTING", "SECURITY"])
def test_every_path_that_is_named_is_there(name):
    named = PATH.findall(re.sub(r"^```.*?^```$", "", FILES[name].read_text(), flags=re.S | re.M))
    assert [path for path in named if not (ROOT / path).exists()] == []


def test_links_of_the_reference_lead_somewhere():
    for name, text in reference_pages.topic_pages().items():
        page = ROOT / "docs" / "generated" / "reference" / f"{name}.md"
        assert list(broken(page, text)) == [], name


def test_broken_ones_are_found():
    page = ROOT / "docs" / "index.md"
    text = "[a](nowhere.md) [](cli.md#no-such) [](#neither) [](generated/gallery/none.md)"
    assert len(list(broken(page, text))) == 4
    fine = "[](cli.md#no-codes) `[x](none.md)` [](generated/nodes.md) [x](https://x.org/none)"
    reference = "generated/reference/training.md"
    assert list(broken(page, f"[]({reference}#jaxsnn.fit) []({reference}#jaxsnn.read)")) == [
        f"{reference}#jaxsnn.read"
    ]
    assert list(broken(page, fine)) == ["cli.md#no-codes"]
    assert anchors("# A `jaxsnn run FILE`: why?\n") == {"a-jaxsnn-run-file-why"}


def test_the_generated_pages_are_those_that_the_site_makes():
    generated = re.findall(
        r'^        "(\w+)": \w+_page\(', (ROOT / "docs" / "site_pages.py").read_text(), re.M
    )
    assert tuple(generated) == GENERATED
