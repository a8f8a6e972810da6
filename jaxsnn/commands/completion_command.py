"""`jaxsnn completion`: the script with which a shell completes commands, options and files."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import Any

from jaxsnn.commands.arguments import OPTION, Parser, add_command, print_outcome
from jaxsnn.errors import UsageError, suggestion
from jaxsnn.wording import Text

#: Shells that the completion is tested for.
SHELLS = ("bash", "zsh", "fish")


@dataclass(frozen=True, kw_only=True)
class CompletionOutcome:
    """Completion script for a shell."""

    shell: str
    script: str

    def as_dict(self) -> dict[str, Any]:
        """Return a JSON-compatible dict."""
        return {"schema": 1, "shell": self.shell, "script": self.script}

    def as_text(self) -> str:
        """Return only the script, to be sourced."""
        return self.script


def add(commands: Any) -> None:
    """Add the parser."""
    parser = add_command(commands, "completion", run, "print the completion script for a shell")
    parser.add_argument("shell", metavar="SHELL", help=", ".join(SHELLS))


def run(arguments: argparse.Namespace) -> int:
    """Print the script."""
    if arguments.shell not in SHELLS:
        raise UsageError(
            Text("there is no completion for '{shell}'", shell=arguments.shell),
            fix=suggestion(arguments.shell, SHELLS),
        )
    import shtab

    from jaxsnn.commands.cli import build_parser

    parser = build_parser()
    for command in parser.commands.values():
        _describe_values(command)
    script = shtab.complete(parser, arguments.shell)
    print_outcome(arguments, CompletionOutcome(shell=arguments.shell, script=script))
    return 0


def _describe_values(parser: Parser) -> None:
    """Tell shtab which arguments are files or folders."""
    import shtab

    parser.complete()
    kinds = {"file": shtab.FILE, "folder": shtab.DIRECTORY}
    for action in parser._actions:
        option = getattr(action, OPTION, None)
        is_named = bool(action.option_strings)
        kind = option.file if option is not None else "" if is_named or action.choices else "file"
        if kind:
            setattr(action, "complete", kinds[kind])  # noqa: B010
