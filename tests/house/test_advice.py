"""Whatever is refused says what to do, in the words of Python: only the commands speak of flags."""

import ast
from pathlib import Path

import pytest

import jaxsnn
from tests.nir.test_problems import FLAG, raised, texts

PACKAGE = Path(jaxsnn.__file__).parent
ROOMS = ("network", "grid", "simulation")
ALONE = ("output", "plot", "units", "event/limits", "event/threshold_feeds")
FILES = sorted(
    [PACKAGE / f"{name}.py" for name in ALONE]
    + [path for room in ROOMS for path in (PACKAGE / room).rglob("*.py")]
)
COMMANDS = sorted((PACKAGE / "commands").rglob("*.py"))
#: Where there is nothing to do that the message does not say.
WITHOUT_FIX = ("no such file", "cannot be written (", "cannot be made (", "cannot be read (")


def name_of(path):
    return path.relative_to(PACKAGE).as_posix()


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_no_text_speaks_of_flags(path):
    found = [(line, text) for line, text in texts(ast.parse(path.read_text())) if FLAG.search(text)]
    assert found == []


@pytest.mark.parametrize("path", [*FILES, *COMMANDS], ids=name_of)
def test_every_refusal_says_what_to_do(path):
    source = path.read_text()
    for call in raised(ast.parse(source)):
        text = ast.get_source_segment(source, call)
        given = {keyword.arg for keyword in call.keywords}
        assert "fix" in given or any(known in text for known in WITHOUT_FIX), text
