import re
import shlex

import pytest

from jaxsnn.commands.cli import COMMANDS, build_parser, main
from jaxsnn.commands.example_calls import EXAMPLES


def test_without_arguments_the_help_lists_all_commands(capsys):
    assert main([]) == 0
    shown = capsys.readouterr()
    assert shown.err == ""
    assert [name for name in COMMANDS if not re.search(rf"\n    {name}\s", shown.out)] == []


def test_every_command_has_examples():
    assert set(EXAMPLES) == set(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_shows_examples_that_parse(command, capsys):
    with pytest.raises(SystemExit):
        main([command, "--help"])
    shown = capsys.readouterr().out
    for _, arguments in EXAMPLES[command]:
        line = f"{command} {arguments}".rstrip()
        assert f"jaxsnn {line}\n" in shown
        assert build_parser(command).parse_args(shlex.split(line)).run
