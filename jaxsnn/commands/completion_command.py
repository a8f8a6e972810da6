"""`jaxsnn completion`: what a shell needs to complete commands, options and files."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import Any

from jaxsnn.commands.arguments import Parser, add_command, print_outcome
from jaxsnn.errors import UsageError, suggestion


@dataclass(frozen=True, kw_only=True)
class CompletionOutcome:
    """A script for a shell."""

    shell: str
    script: str

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"schema": 1, "shell": self.shell, "script": self.script}

    def as_text(self) -> str:
        """The script alone, to be sourced."""
        return self.script


def add(commands: Any) -> None:
    """The parser."""
    parser = add_command(commands, "completion", run, "print what a shell needs to complete words")
    parser.add_argument("shell", metavar="SHELL", help=", ".join(SHELLS))
    # the commands are known when all have been added
    parser.set_defaults(commands=commands)


def run(arguments: argparse.Namespace) -> int:
    """The work; exit code 0."""
    if arguments.shell not in SHELLS:
        raise UsageError(
            f"there is no completion for '{arguments.shell}'",
            fix=suggestion(arguments.shell, SHELLS),
        )
    known = words_of(arguments.commands)
    script = SHELLS[arguments.shell](known)
    print_outcome(arguments, CompletionOutcome(shell=arguments.shell, script=script))
    return 0


def words_of(commands: Any) -> dict[str, list[str]]:
    """Command -> what can be completed in it: options, and commands of its own."""
    found = {}
    for name, parser in commands.choices.items():
        if isinstance(parser, Parser):
            parser.complete()
        # what the help leaves out is refused
        offered = [action for action in parser._actions if action.help != argparse.SUPPRESS]
        flags = [flag for action in offered for flag in action.option_strings]
        own = [action for action in parser._actions if isinstance(action.choices, dict)]
        found[name] = [*flags, *(choice for action in own for choice in action.choices or ())]
    return found


def _bash(known: dict[str, list[str]]) -> str:
    cases = "\n".join(f'    {name}) words="{" ".join(words)}" ;;' for name, words in known.items())
    return f"""_jaxsnn() {{
  local word="${{COMP_WORDS[COMP_CWORD]}}" words="{" ".join(known)}"
  [ "$COMP_CWORD" -gt 1 ] && case "${{COMP_WORDS[1]}}" in
{cases}
  esac
  COMPREPLY=($(compgen -W "$words" -- "$word"))
}}
complete -o default -F _jaxsnn jaxsnn"""


def _zsh(known: dict[str, list[str]]) -> str:
    return f"autoload -U +X bashcompinit && bashcompinit\n{_bash(known)}"


def _fish(known: dict[str, list[str]]) -> str:
    lines = [f'complete -c jaxsnn -n __fish_use_subcommand -a "{" ".join(known)}"']
    for name, words in known.items():
        within = f"-n '__fish_seen_subcommand_from {name}'"
        lines += [
            f"complete -c jaxsnn {within} -l {word.removeprefix('--')}"
            for word in words
            if word.startswith("--")
        ]
    return "\n".join(lines)


SHELLS = {"bash": _bash, "zsh": _zsh, "fish": _fish}
