"""Commands on what a NIR file means: check, draw, convert, map, deploy, verify,
fidelity. The first five load no JAX."""

from __future__ import annotations

import argparse
from typing import Any

from jaxsnn.commands.arguments import (
    add_command,
    add_file,
    add_note,
    add_output,
    add_threshold,
    dialect_options,
    note_findings,
    print_outcome,
    read_graph,
    time_of,
)
from jaxsnn.errors import UsageError


def add_draw(commands: Any) -> None:
    """The command `draw`."""
    parser = add_command(commands, "draw", _draw, "draw the graph of a NIR file")
    add_file(parser)
    add_output(parser, "PICTURE", "a .svg, .dot or .mmd (Mermaid) file", required=True)


def _draw(arguments: argparse.Namespace) -> int:
    from jaxsnn.nir.drawing import draw

    print_outcome(arguments, draw(read_graph(arguments), arguments.output, force=arguments.force))
    return 0


def add_check(commands: Any) -> None:
    """The command `check`."""
    parser = add_command(
        commands, "check", _check, "list all problems of a NIR file for one purpose; nothing runs"
    )
    add_file(parser)
    parser.add_argument(
        "--for",
        dest="purpose",
        metavar="PURPOSE",
        required=True,
        help="event, grid, bss2, norse, snntorch, spikingjelly, sinabs, rockpool or spyx",
    )
    add_threshold(parser)


def _check(arguments: argparse.Namespace) -> int:
    from jaxsnn.simulation.checks import check_file

    options = dialect_options(arguments)
    report, graph = check_file(
        arguments.file, arguments.purpose, threshold=arguments.threshold, **options
    )
    if graph is not None:
        note_findings(arguments, graph.repairs)
    print_outcome(arguments, report)
    return 0 if report.ok else 1


def add_convert(commands: Any) -> None:
    """The command `convert`."""
    parser = add_command(
        commands, "convert", _convert, "rewrite a NIR file for another simulator's own importer"
    )
    add_file(parser, dialect_flags=("--from", "--dialect"))
    parser.add_argument("output", metavar="OUT", help="the file to write")
    parser.add_argument("--force", action="store_true", help="overwrite OUT")
    parser.add_argument(
        "--to", metavar="NAME", required=True, help="norse, snntorch, spikingjelly or spyx"
    )
    parser.add_argument(
        "--to-dt", metavar="TIME", help="step of the target; default: the source's, else its own"
    )
    parser.add_argument(
        "--approximate", action="store_true", help="do the nearest thing, and say what that loses"
    )


def _convert(arguments: argparse.Namespace) -> int:
    from jaxsnn.nir.convert.convert_file import convert_file
    from jaxsnn.output import refuse_unwritable

    output = refuse_unwritable(arguments.output, arguments.force)
    outcome = convert_file(
        read_graph(arguments),
        output,
        to=arguments.to,
        dt=time_of(arguments.to_dt),
        approximate=arguments.approximate,
        force=arguments.force,
    )
    for loss in outcome.losses:
        add_note(arguments, f"lost: {loss}")
    print_outcome(arguments, outcome)
    return 0


def add_verify(commands: Any) -> None:
    """The command `verify`."""
    parser = add_command(
        commands, "verify", _verify, "play a recorded input and compare with the recorded output"
    )
    add_file(parser)
    parser.add_argument(
        "--recording",
        metavar="R.npz",
        required=True,
        help="x and y (time, batch, ...), or NIR data",
    )


def _verify(arguments: argparse.Namespace) -> int:
    graph = read_graph(arguments)
    from jaxsnn.simulation.stepped_runs import verify_file

    outcome = verify_file(graph, arguments.recording)
    for note in outcome.notes:
        add_note(arguments, note)
    print_outcome(arguments, outcome)
    return 0 if outcome.ok else 1


def add_fidelity(commands: Any) -> None:
    """The command `fidelity`."""
    parser = add_command(
        commands, "fidelity", _fidelity, "compare continuous time with steps on your own data"
    )
    add_file(parser)
    parser.add_argument("--input", metavar="X.npz", required=True, help="x (time, batch, channels)")
    add_threshold(parser)


def _fidelity(arguments: argparse.Namespace) -> int:
    graph = read_graph(arguments)
    from jaxsnn.simulation.fidelity import fidelity_of_file

    outcome = fidelity_of_file(graph, arguments.input, arguments.threshold)
    for note in outcome.notes:
        add_note(arguments, note)
    print_outcome(arguments, outcome)
    return 0


def add_map(commands: Any) -> None:
    """The command `map`."""
    parser = add_command(
        commands, "map", _map, "place and route on BrainScaleS-2, or check a mapping"
    )
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
    for kind in ("placer", "router"):
        parser.add_argument(
            f"--{kind}",
            metavar="NAME",
            action="append",
            help=f"try only this {kind}; may be repeated (default: those that have proven best)",
        )
    _add_quantization(parser)


def _add_quantization(parser: argparse.ArgumentParser) -> None:
    """How a network is brought onto the chip; a mapping is checked and deployed with what it was
    made with.
    """
    parser.add_argument(
        "--scale",
        help="max (default), percentile or least-error: of whole weights; not needed where M.json has its scales",
    )
    parser.add_argument(
        "--percentile", type=float, default=99.0, metavar="P", help="for that scale (default 99)"
    )
    parser.add_argument(
        "--synapses-per-weight",
        type=int,
        default=1,
        metavar="N",
        help="that may add up (default 1)",
    )
    parser.add_argument(
        "--speedup", type=float, metavar="F", help="of the chip (default 1000, or the nearest)"
    )
    parser.add_argument(
        "--bias",
        default="refuse",
        help="refuse (default); source: regular spikes stand in for biases",
    )


def _quantization(arguments: argparse.Namespace, scales: Any = None) -> Any:
    from jaxsnn.bss2.search.quantize import QuantizeOptions

    names = ("percentile", "synapses_per_weight", "speedup", "bias")
    return QuantizeOptions(
        scale=arguments.scale or scales or "max",
        **{name: getattr(arguments, name) for name in names},
    )


def _map(arguments: argparse.Namespace) -> int:
    if (arguments.verify is None) == (arguments.output is None):
        raise UsageError(
            "map writes a mapping with -o M.json, or checks one with --verify M.json: give one of them"
        )
    time_limit = time_of(arguments.time_limit)
    graph = read_graph(arguments)
    from jaxsnn.bss2.map_file import map_file, read_mapping, scales_of, verify_mapping
    from jaxsnn.bss2.search.portfolio import Portfolio

    common = {"svg": arguments.svg, "force": arguments.force}
    if arguments.verify is not None:
        mapping = read_mapping(arguments.verify)
        options = _quantization(arguments, scales_of(mapping, graph))
        outcome = verify_mapping(graph, mapping, options=options, **common)
    else:
        outcome = map_file(
            graph,
            arguments.output,
            signs=arguments.signs,
            seed=arguments.seed,
            max_runs=arguments.runs,
            time_limit=time_limit or 0.0,
            portfolio=Portfolio(placers=arguments.placer, routers=arguments.router),
            options=_quantization(arguments),
            **common,
        )
    note_findings(arguments, outcome.quantized.notes)
    print_outcome(arguments, outcome)
    return 0 if outcome.ok else 1


def add_deploy(commands: Any) -> None:
    """The command `deploy`."""
    parser = add_command(
        commands, "deploy", _deploy, "write a mapping as scripts for the software of BrainScaleS-2"
    )
    add_file(parser)
    parser.add_argument("mapping", metavar="M.json", help="a mapping of FILE, made by map")
    add_output(parser, "DIR", "folder for the scripts", required=True)
    _add_quantization(parser)


def _deploy(arguments: argparse.Namespace) -> int:
    from jaxsnn.bss2.deploy import deploy, deployed
    from jaxsnn.bss2.map_file import read_mapping, scales_of
    from jaxsnn.bss2.search.quantize import quantize
    from jaxsnn.output import refuse_shared

    written = deployed(arguments.output)
    refuse_shared(
        (arguments.file, arguments.mapping), {f"{path.name} in -o": path for path in written}
    )
    graph = read_graph(arguments)
    mapping = read_mapping(arguments.mapping)
    quantized = quantize(graph, _quantization(arguments, scales_of(mapping, graph)))
    outcome = deploy(mapping, quantized, arguments.output, force=arguments.force)
    note_findings(arguments, quantized.notes)
    for note in outcome.notes:
        add_note(arguments, note)
    print_outcome(arguments, outcome)
    return 0
