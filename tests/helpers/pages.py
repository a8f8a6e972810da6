"""The pages for people, README.md and docs/*.md, as blocks of code, commands and text."""

import doctest
import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
FENCE = re.compile(r"(?:^<!-- not run: ([^\n]+) -->\n)?^```([^\n]*)\n(.*?)^```$", re.S | re.M)


@dataclass(frozen=True, kw_only=True)
class Block:
    """A block between fences: where, in which language, and why it does not run, if it does not."""

    page: str
    section: str
    language: str
    code: str
    not_run: str | None

    @property
    def where(self) -> str:
        """Page and section."""
        return f"{self.page}: {self.section}"


def pages() -> dict[str, Path]:
    """Name -> file, of all that are written by hand."""
    return {path.stem: path for path in (ROOT / "README.md", *sorted(ROOT.glob("docs/*.md")))}


def blocks_of(page: str) -> list[Block]:
    """The blocks of a page in their order."""
    text = pages()[page].read_text()
    blocks = []
    for match in FENCE.finditer(text):
        above = re.sub(r"^```.*?^```$", "", text[: match.start()], flags=re.S | re.M)
        section = re.findall(r"^#+ (.*)$", above, re.M)[-1]
        why, language, code = match.groups()
        blocks.append(Block(page=page, section=section, language=language, code=code, not_run=why))
    return blocks


def commands_of(block: Block) -> list[str]:
    """The command lines of a block: all lines of `sh`, those behind a prompt of `console`; a line
    that ends in a backslash goes on in the next.
    """
    if block.language == "sh":
        lines = block.code.replace("\\\n", " ").splitlines()
        return [line.partition(" #")[0].strip() for line in lines]
    return re.findall(r"^\w*\$ (.*)$", block.code, re.M)


def run_python(block: Block, namespace: dict) -> None:
    """Run a block in a namespace; of a dialogue what it prints must be what the page says."""
    if not block.code.startswith(">>>"):
        exec(compile(block.code, block.where, "exec"), namespace)
        return
    test = doctest.DocTestParser().get_doctest(block.code, namespace, block.where, block.page, 0)
    report: list[str] = []
    failed = doctest.DocTestRunner().run(test, out=report.append, clear_globs=False).failed
    namespace.update(test.globs)
    assert failed == 0, "".join(report)
