"""The tables of frameworks in the documentation are those of the register; its example works."""

from pathlib import Path

import pytest

from jaxsnn.commands.cli import build_parser
from jaxsnn.nir.frameworks.tables import frameworks_table

DOCS = Path(__file__).parents[2] / "docs"


def helps(command):
    """Option -> its help."""
    parser = build_parser()._subparsers._group_actions[0].choices[command]
    parser.complete()
    return {option: action.help for action in parser._actions for option in action.option_strings}


def test_the_page_on_interoperability_has_the_table():
    page = (DOCS / "interop.md").read_text()
    assert frameworks_table() in page, (
        "replace the table in docs/interop.md by what this prints: python -c "
        '"from jaxsnn.nir.frameworks.tables import frameworks_table; print(frameworks_table())"'
    )


@pytest.mark.parametrize(("command", "option"), [("convert", "--to"), ("check", "--for")])
def test_the_page_on_the_command_line_lists_frameworks(command, option):
    row = f"`{option}` | {helps(command)[option]} |"
    assert row in (DOCS / "cli.md").read_text(), f"docs/cli.md needs the row {row}"


def test_the_page_on_the_command_line_has_all_options_of_dialects():
    page, help_texts = (DOCS / "cli.md").read_text(), helps("info")
    general_options = (
        "--json",
        "-q",
        "--quiet",
        "-v",
        "--verbose",
        "--debug",
        "-h",
        "--help",
        "--read-timeout",
        "--max-bytes",
    )
    rows = [
        f"| `{option}` | {text} |"
        for option, text in help_texts.items()
        if option not in general_options
    ]
    table = "\n".join(["| option | effect |", "|---|---|", *rows])
    assert table in page, f"docs/cli.md needs the table\n{table}"
