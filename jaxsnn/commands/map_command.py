"""`jaxsnn map`: a network placed and routed on BrainScaleS-2, or a mapping checked. It loads no JAX."""

from __future__ import annotations

import argparse
from typing import Any

from jaxsnn.commands.arguments import (
    add_command,
    add_file,
    add_notes,
    add_output,
    add_quantization,
    print_outcome,
    quantization_of,
    read_graph,
    time_of,
)
from jaxsnn.errors import UsageError


def add(commands: Any) -> None:
    """The parser."""
    text = "place and route on BrainScaleS-2, or check a mapping"
    parser = add_command(commands, "map", run, text)
    add_file(parser)
    add_output(parser, "M.json", "the mapping to write")
    parser.add_argument(
        "--verify", metavar="M.json", help="check this mapping instead of making one"
    )
    parser.add_argument(
        "--signs",
        default="fixed",
        help="fixed: as they are (default); free: training may flip them",
    )
    parser.add_argument("--svg", metavar="F.svg", help="draw the mapping")
    parser.add_argument("--seed", type=int, default=0, help="of the search (default 0)")
    parser.add_argument(
        "--runs",
        type=int,
        metavar="N",
        help="at most so many runs (default: as few as can be found)",
    )
    parser.add_argument(
        "--time-limit", metavar="TIME", default="60s", help="start no attempt later (default 60s)"
    )
    add_quantization(parser)


def run(arguments: argparse.Namespace) -> int:
    """The work; exit code 1 where there is no mapping, or something is wrong with it."""
    if (arguments.verify is None) == (arguments.output is None):
        raise UsageError(
            "map writes a mapping with -o M.json, or checks one with --verify M.json",
            fix="give one of them",
        )
    time_limit = time_of(arguments.time_limit)
    graph = read_graph(arguments)
    from jaxsnn.bss2.map_file import map_file, read_mapping, scales_of, verify_mapping

    common = {"svg": arguments.svg, "force": arguments.force}
    if arguments.verify is not None:
        mapping = read_mapping(arguments.verify)
        options = quantization_of(arguments, scales_of(mapping, graph))
        outcome = verify_mapping(graph, mapping, options=options, **common)
    else:
        outcome = map_file(
            graph,
            arguments.output,
            signs=arguments.signs,
            seed=arguments.seed,
            max_runs=arguments.runs,
            time_limit=time_limit or 0.0,
            options=quantization_of(arguments),
            **common,
        )
    add_notes(arguments, outcome.quantized.notes)
    print_outcome(arguments, outcome)
    return 0 if outcome.ok else 1
