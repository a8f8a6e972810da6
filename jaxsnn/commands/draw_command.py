"""`jaxsnn draw`: the graph of a NIR file as a picture. It loads no JAX.

Its outcome is the result of `jaxsnn.plot.graph_drawing.draw`.
"""

from __future__ import annotations

import argparse
from typing import Any

from jaxsnn.commands.arguments import (
    add_command,
    add_file,
    output_options,
    print_outcome,
    read_graph,
)


def add(commands: Any) -> None:
    """Add the parser."""
    picture = "file to write: .svg, .png, .pdf, .dot or .mmd (Mermaid)"
    output = output_options("PICTURE", picture, required=True)
    add_file(add_command(commands, "draw", run, "draw the graph of a NIR file", *output))


def run(arguments: argparse.Namespace) -> int:
    """Run the command; exit code 0."""
    from jaxsnn.plot.graph_drawing import draw

    outcome = draw(read_graph(arguments), arguments.output, force=arguments.force)
    print_outcome(arguments, outcome)
    return 0
