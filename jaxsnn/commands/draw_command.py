"""`jaxsnn draw`: the graph of a NIR file as a picture. It loads no JAX.

Its outcome is what `jaxsnn.plot.graph_drawing.draw` returns.
"""

from __future__ import annotations

import argparse
from typing import Any

from jaxsnn.commands.arguments import add_command, add_file, add_output, print_outcome, read_graph


def add(commands: Any) -> None:
    """The parser."""
    parser = add_command(commands, "draw", run, "draw the graph of a NIR file")
    add_file(parser)
    add_output(parser, "PICTURE", "a .svg, .png, .pdf, .dot or .mmd (Mermaid) file", required=True)


def run(arguments: argparse.Namespace) -> int:
    """The work; exit code 0."""
    from jaxsnn.plot.graph_drawing import draw

    outcome = draw(read_graph(arguments), arguments.output, force=arguments.force)
    print_outcome(arguments, outcome)
    return 0
