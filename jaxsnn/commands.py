"""Commands on a NIR file beside training: draw."""

from __future__ import annotations

import argparse
from typing import Any

from jaxsnn.arguments import add_command, add_file, add_output, print_outcome, read_graph


def add_draw(commands: Any) -> None:
    """The command `draw`."""
    parser = add_command(commands, "draw", _draw, "draw the graph of a NIR file")
    add_file(parser)
    add_output(parser, "PICTURE", "a .svg, .dot or .mmd (Mermaid) file", required=True)


def _draw(arguments: argparse.Namespace) -> int:
    from jaxsnn.nir.draw import draw

    print_outcome(arguments, draw(read_graph(arguments), arguments.output, force=arguments.force))
    return 0
