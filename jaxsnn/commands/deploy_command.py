"""`jaxsnn deploy`: a mapping as scripts for the software of BrainScaleS-2. It loads no JAX.

Its outcome is the result of `jaxsnn.bss2.deploy.deploy`.
"""

from __future__ import annotations

import argparse
from typing import Any

from jaxsnn.commands.arguments import (
    add_command,
    add_file,
    add_notes,
    output_options,
    print_outcome,
    quantization_of,
    read_graph,
)
from jaxsnn.options import OPTIONS_OF_MAPPING


def add(commands: Any) -> None:
    """Add the parser."""
    text = "write scripts that run a mapping with the BrainScaleS-2 software"
    output = output_options("DIR", "folder for the scripts", required=True, file="folder")
    parser = add_command(commands, "deploy", run, text, *output, *OPTIONS_OF_MAPPING)
    add_file(parser)
    parser.add_argument("mapping", metavar="M.json", help="mapping of FILE, written by jaxsnn map")


def run(arguments: argparse.Namespace) -> int:
    """Run the command; exit code 0."""
    from jaxsnn.bss2.deploy import deploy, deployed
    from jaxsnn.bss2.mapping_files import quantize_as_mapped, read_mapping
    from jaxsnn.output import refuse_shared, refuse_unwritable_folder

    written = {f"{path.name} in the folder of -o": path for path in deployed(arguments.output)}
    read = arguments.file, arguments.mapping, arguments.slope
    refuse_shared(filter(None, read), written)
    file_names = [path.name for path in written.values()]
    refuse_unwritable_folder(arguments.output, file_names, arguments.force)
    graph = read_graph(arguments)
    mapping = read_mapping(arguments.mapping)
    quantized = quantize_as_mapped(graph, mapping, **quantization_of(arguments))
    outcome = deploy(mapping, quantized, arguments.output, force=arguments.force)
    add_notes(arguments, quantized.notes)
    add_notes(arguments, outcome.notes)
    print_outcome(arguments, outcome)
    return 0
