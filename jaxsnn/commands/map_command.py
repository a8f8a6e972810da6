"""`jaxsnn map`: a network placed and routed on BrainScaleS-2, or a mapping verified.

It loads no JAX.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping as Mapped
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxsnn.commands.arguments import (
    add_command,
    add_file,
    add_notes,
    output_options,
    print_outcome,
    quantization_of,
    read_graph,
    refuse_report,
    time_of,
    write_report,
)
from jaxsnn.commands.remarks import line_of
from jaxsnn.commands.reports.report_page import facts, folded, page, paragraph, summary, table
from jaxsnn.commands.reports.report_parts import (
    chip_section,
    dialect_section,
    input_section,
    limitations_section,
    rounding_table,
)
from jaxsnn.errors import Problem, UsageError
from jaxsnn.options import (
    APPROXIMATE,
    INPUT,
    MAX_RUNS,
    QUANTIZE_OPTIONS,
    REPORT,
    SEED,
    SIGNS,
    TIME_LIMIT,
)
from jaxsnn.units import format_time
from jaxsnn.wording import Option, Text

if TYPE_CHECKING:
    from jaxsnn.bss2.mapping import Mapping
    from jaxsnn.bss2.search.feasibility import Certificate
    from jaxsnn.bss2.search.portfolio import Attempts
    from jaxsnn.bss2.search.quantize import Quantized, QuantizeOptions
    from jaxsnn.nir import Graph
    from jaxsnn.simulation.reset_comparison import ResetComparison


@dataclass(frozen=True, kw_only=True)
class MapOutcome:
    """Outcome of `jaxsnn map`.

    Attributes:
        stop_reason: "fits", "impossible", "gave up", or "verified" for a mapping that was only
            checked.
        mapping: the mapping; None if there is none.
        quantized: the net that was mapped.
        violations: violations in the mapping.
        certificate: proof that the net, or fewer runs, cannot be mapped.
        problem: the reason why there is no mapping.
        files: written files, by kind.
        resets: spikes that change because neurons do not subtract v_threshold on the chip; None
            where there are no such neurons, or no data.
        attempts: attempts of the search, by strategy; none if a mapping was only checked.
    """

    stop_reason: str
    mapping: Mapping | None
    quantized: Quantized
    violations: tuple[Problem, ...]
    certificate: Certificate | None
    files: dict[str, str]
    problem: Problem | None = None
    resets: ResetComparison | None = None
    attempts: tuple[Attempts, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether there is a mapping without violations."""
        return self.mapping is not None and not self.violations

    @property
    def why(self) -> str:
        """Reason why there is no valid mapping, in one line in the words of the command line."""
        if self.violations:
            count = len(self.violations)
            return f"{count} violation{'s' * (count > 1)}"
        return "" if self.problem is None else self.problem.as_text()

    def as_dict(self) -> dict[str, Any]:
        """Return a JSON-compatible dict."""
        from jaxsnn.bss2.target_cells import targets_of
        from jaxsnn.bss2.usage import used

        mapping = self.mapping
        return {
            "schema": 1,
            "fits": self.ok,
            "runs": None if mapping is None else len(mapping.runs),
            "signs": None if mapping is None else mapping.signs,
            "stop_reason": self.stop_reason,
            "why": self.why,
            "certificate": None if self.certificate is None else self.certificate.as_dict(),
            "attempts": [attempts.as_dict() for attempts in self.attempts],
            "used": {} if mapping is None or self.violations else used(mapping),
            "between_chips": [] if mapping is None or self.violations else _links(mapping),
            "events": [] if mapping is None or self.violations else _events(mapping),
            "methods": [] if mapping is None else [run.method for run in mapping.runs],
            "violations": [
                violation.as_dict() | {"where": violation.node} for violation in self.violations
            ],
            "quantization": {name: node.as_dict() for name, node in self.quantized.nodes.items()},
            "resets": None if self.resets is None else self.resets.as_dict(),
            "slope": self.quantized.slope,
            "measured": None if self.quantized.measured is None else vars(self.quantized.measured),
            "calibration": {
                name: targets_of(population)
                for name, population in self.quantized.populations.items()
            },
            **self.files,
        }

    def as_text(self) -> str:
        """Return human-readable text."""
        from jaxsnn.bss2.check import located

        mapping = self.mapping
        tried = [f"{'tried':24}{attempts}" for attempts in self.attempts]
        if mapping is None:
            return "\n".join([f"{self.stop_reason}: {self.why}", *tried])
        lines = [line_of(f"violation: {located(violation)}") for violation in self.violations]
        runs = len(mapping.runs)
        lines.append(f"{'runs':24}{runs}, signs {mapping.signs}")
        lines += [f"  run {number}: {run.summary}" for number, run in enumerate(mapping.runs)]
        if runs > 1 and not self.violations:
            most = max((link["neurons"] for link in _links(mapping)), default=0)
            lines.append(
                f"{'or in one pass':24}{runs} chips with {len(_links(mapping))} links, "
                f"at most {most} neurons per link"
            )
        lines += [] if self.violations else _usage_lines(mapping)
        for name, node in self.quantized.nodes.items():
            scale = "none" if node.scale is None else f"{node.scale:.4g} LSB"
            height = node.threshold_error
            rounded = "" if height is None else f", threshold rounded by {height:.1%}"
            lines.append(
                f"weights of {name:13}scale {scale}, {node.saturated} saturated, "
                f"{node.zeroed} of {node.connections} rounded to 0, "
                f"rms error {node.rms_error:.3g}{rounded}"
            )
        if self.resets is not None:
            lines.append(self.resets.as_text())
        elif self.quantized.approximated_resets:
            lines.append(f"{'resets':24}changed; pass --input to count the spikes that change")
        lines += _calibration_lines(self.quantized)
        lines += tried
        lines.append(f"{'checked':24}{len(self.violations)} violations")
        lines += [f"{kind:24}{path}" for kind, path in self.files.items()]
        return "\n".join(lines)


def _calibration_lines(quantized: Quantized) -> list[str]:
    """Return the calibration targets of the chip: potentials in CADC LSB, times in microseconds."""
    from jaxsnn.bss2.target_cells import slope_cells, target_cells

    lines = []
    for name, population in quantized.populations.items():
        leak, reset, threshold, tau_mem, tau_syn, refractory = target_cells(population)
        fires = f", reset {reset}, threshold {threshold}" if population.fires else ""
        held = format_time(population.refractory_time * quantized.speedup)
        held = f", refractory {refractory} us ({held} of the network)" if population.fires else ""
        lines.append(
            f"calibrate {name:14}leak {leak}{fires} CADC LSB, tau_mem {tau_mem} us, "
            f"tau_syn {tau_syn} us{held}"
        )
    if (slope := slope_cells(quantized)) is not None:
        advice = " (pass --slope with the measured value)" if quantized.measured is None else ""
        lines.append(f"{slope[0]:24}{slope[1]}{advice}")
    return lines


def _usage_lines(mapping: Mapping) -> list[str]:
    """Return lines that state how much of the chip a mapping uses."""
    from jaxsnn.bss2.usage import used

    lines = [
        f"{name:24}{usage['used']} of {usage['available']}" for name, usage in used(mapping).items()
    ]
    most = max((max(run.values()) for run in _events(mapping)), default=0)
    busy = format_time(most * mapping.chip.clock_period)
    return [
        *lines,
        f"{'busiest bus or link':24}{most} events, {busy}, if all neurons and inputs spike once",
    ]


def _links(mapping: Mapping) -> list[dict[str, int]]:
    """Return the numbers of neurons whose spikes pass between chips if each run had a chip."""
    from jaxsnn.bss2.traffic import between_chips

    return [
        {"from": first, "to": second, "neurons": neurons}
        for (first, second), neurons in between_chips(mapping).items()
    ]


def _events(mapping: Mapping) -> list[dict[str, int]]:
    from jaxsnn.bss2.usage import events_per_spike

    return [events_per_spike(run, mapping.chip) for run in mapping.runs]


_VERIFY = Option(
    name="verify",
    help="check this mapping instead of searching for one",
    metavar="M.json",
    file="file",
)
_INPUT = INPUT.but(
    help="x (time, batch, channels): count the spikes that --approximate changes on these data"
)
_SVG = Option(name="svg", help="draw the floorplan of the mapping", metavar="F.svg", file="file")
_PLACERS = Option(
    name="placers",
    flag="placer",
    other_flags=("--placers",),
    help="placer to try (default: a selection); may be repeated",
    metavar="NAME",
    repeated=True,
)
_ROUTERS = Option(
    name="routers",
    flag="router",
    other_flags=("--routers",),
    help="router to try (default: a selection); may be repeated",
    metavar="NAME",
    repeated=True,
)


def add(commands: Any) -> None:
    """Add the parser."""
    parser = add_command(
        commands,
        "map",
        run,
        "place and route a network on BrainScaleS-2, or check a mapping",
        *output_options("M.json", "file for the mapping"),
        _VERIFY,
        SIGNS,
        _SVG,
        SEED.but(help="random seed of the search (default 0)"),
        MAX_RUNS,
        TIME_LIMIT,
        _PLACERS,
        _ROUTERS,
        *QUANTIZE_OPTIONS,
        _INPUT,
        REPORT,
    )
    add_file(parser)


def run(arguments: argparse.Namespace) -> int:
    """Run the command; exit code 1 if there is no mapping, or if it has violations."""
    if (arguments.verify is None) == (arguments.output is None):
        raise UsageError(
            "map needs either -o M.json, to write a mapping, or --verify M.json, to check one",
            fix="pass one of the two",
        )
    refuse_report(arguments)
    if arguments.svg is not None and not arguments.svg.lower().endswith(".svg"):
        raise UsageError(
            Text("a floorplan is an .svg file, not '{path}'", path=arguments.svg),
            fix="pass a file name that ends in .svg",
        )
    if arguments.input is not None and not arguments.approximate:
        raise UsageError(
            Text("{option} has no effect here", option=_INPUT),
            fix=Text("remove the option, or add {option}", option=APPROXIMATE.set_to(True)),
        )
    time_limit = time_of(arguments.time_limit)
    graph = read_graph(arguments)
    from jaxsnn.bss2.mapping_files import read_mapping
    from jaxsnn.bss2.search.measured_slopes import strength_notes
    from jaxsnn.bss2.search.portfolio import Portfolio
    from jaxsnn.bss2.search.quantize import QuantizeOptions

    common = {"svg": arguments.svg, "force": arguments.force}
    if arguments.verify is not None:
        for option in (SIGNS, SEED, MAX_RUNS, TIME_LIMIT, _PLACERS, _ROUTERS):
            if getattr(arguments, option.name) != option.default:
                message = Text(
                    "{option} has no effect with {verify}, which checks a mapping and does not search "
                    "for one",
                    option=option,
                    verify=_VERIFY,
                )
                raise UsageError(message, fix=Text("remove {option}", option=option))
        mapping = read_mapping(arguments.verify)
        outcome = verify_mapping(graph, mapping, options=quantization_of(arguments), **common)
    else:
        outcome = place_and_route_file(
            graph,
            arguments.output,
            signs=arguments.signs,
            seed=arguments.seed,
            max_runs=arguments.max_runs,
            time_limit=time_limit or 0.0,
            portfolio=Portfolio(placers=arguments.placers, routers=arguments.routers),
            options=QuantizeOptions(**quantization_of(arguments)),
            **common,
        )
    if arguments.input is not None:
        from jaxsnn.simulation.reset_comparison import compare_resets

        resets = compare_resets(graph, arguments.input)
        add_notes(arguments, resets.notes)
        outcome = replace(outcome, resets=resets)
    write_report(arguments, map_report, graph, outcome)
    add_notes(arguments, outcome.quantized.notes)
    add_notes(arguments, strength_notes(outcome.quantized.slope, outcome.quantized.measured))
    print_outcome(arguments, outcome)
    return 0 if outcome.ok else 1


def place_and_route_file(
    graph: Graph,
    output: str | os.PathLike[str],
    *,
    svg: str | None = None,
    force: bool = False,
    options: QuantizeOptions | None = None,
    **search: Any,
) -> MapOutcome:
    """Quantise, place, route and verify a graph; write the mapping and, if requested, a picture of
    it.

    Args:
        graph: graph with its dialect.
        output: the JSON file.
        svg: a picture of the mapping.
        force: overwrite files that exist.
        options: options of `quantize`.
        search: keyword arguments of `place_and_route`.

    Raises:
        MappingError: a node that the chip cannot run.
        FileError: a file exists, or cannot be written.
        UsageError: an option with an invalid value.
    """
    from jaxsnn.bss2.check import check
    from jaxsnn.bss2.mapping import to_json
    from jaxsnn.bss2.search.portfolio import place_and_route
    from jaxsnn.bss2.search.quantize import quantize
    from jaxsnn.output import refuse_unwritable, write_together

    output = refuse_unwritable(output, force)
    if svg is not None:
        refuse_unwritable(svg, force)
    quantized = quantize(graph, options)
    search_result = place_and_route(quantized.netlist, **search)
    violations: tuple[Problem, ...] = ()
    files = {}
    if search_result.mapping is not None:
        violations = check(search_result.mapping, quantized.netlist)
    if search_result.mapping is not None and not violations:
        pictures = _drawn(search_result.mapping, svg)
        write_together({**pictures, output: to_json(search_result.mapping)}, force)
        files = {"output": os.fspath(output)} | ({} if svg is None else {"svg": svg})
    return MapOutcome(
        stop_reason=search_result.stop_reason,
        mapping=search_result.mapping,
        quantized=quantized,
        violations=violations,
        certificate=search_result.certificate,
        files=files,
        problem=search_result.problem,
        attempts=search_result.attempts,
    )


def verify_mapping(
    graph: Graph,
    mapping: Mapping,
    *,
    svg: str | None = None,
    force: bool = False,
    options: Mapped[str, Any] | None = None,
) -> MapOutcome:
    """Check a mapping against a graph, quantised with the options of the mapping.

    Args:
        options: see `jaxsnn.bss2.mapping_files.quantize_as_mapped`.

    Raises:
        UsageError: an option has another value in the mapping.
        FileError: the picture exists, or cannot be written.
        MappingError: the graph has a node that the chip cannot run.
    """
    from jaxsnn.bss2.check import check
    from jaxsnn.bss2.mapping_files import quantize_as_mapped
    from jaxsnn.output import refuse_unwritable, write_together

    if svg is not None:
        refuse_unwritable(svg, force)
    quantized = quantize_as_mapped(graph, mapping, **(options or {}))
    violations = check(mapping, quantized.netlist)
    pictures = {} if violations else _drawn(mapping, svg)
    write_together(pictures, force)
    return MapOutcome(
        stop_reason="verified",
        mapping=mapping,
        quantized=quantized,
        violations=violations,
        certificate=None,
        files={} if violations or svg is None else {"svg": svg},
    )


def _drawn(mapping: Mapping, svg: str | None) -> dict[str, str]:
    """Return the picture by its path; empty if no path is specified."""
    if svg is None:
        return {}
    from jaxsnn.bss2.floorplan import floorplan

    return {svg: floorplan(mapping)}


def _attempts_table(attempts: tuple[Attempts, ...]) -> str:
    """Return what the search tried as an HTML table."""
    headings = (
        "runs",
        "signs",
        "strategy",
        "seed",
        "attempts",
        "routed",
        "without room",
        "seconds",
    )
    rows = [
        (
            *(entry.runs, entry.signs, entry.strategy, entry.seed, entry.count, entry.successes),
            "-" if entry.overflow is None else entry.overflow,
            f"{entry.seconds:.3g}",
        )
        for entry in attempts
    ]
    return table(headings, rows)


def map_report(arguments: argparse.Namespace, graph: Graph, outcome: MapOutcome) -> str:
    """Return the page on the placement of the network on the chip, or on the reason why there is
    none.
    """
    from jaxsnn.bss2.search.measured_slopes import strength_notes
    from jaxsnn.bss2.usage import used

    mapping, quantized = outcome.mapping, outcome.quantized
    runs = None if mapping is None else len(mapping.runs)
    results = facts(
        {
            "result": outcome.stop_reason,
            "runs": runs,
            "signs of synapses": None if mapping is None else mapping.signs,
            "violations": None if mapping is None else len(outcome.violations),
            **outcome.files,
        }
    )
    if outcome.why:
        results += paragraph(outcome.why)
    if outcome.violations:
        rows = [(violation.node, violation.as_text()) for violation in outcome.violations]
        results += table(("location", "violation"), rows)
    if outcome.attempts:
        results += folded("Attempts of the search", _attempts_table(outcome.attempts))
    errors = [node.relative_error for node in quantized.nodes.values()]
    key_figures: dict[str, Any] = {"runs": runs}
    chip: dict[str, str] = {}
    if mapping is not None and outcome.ok:
        key_figures |= {
            name: f"{usage['used']} of {usage['available']}"
            for name, usage in used(mapping).items()
            if name in ("circuits", "synapses")
        }
        chip = {"Chip": chip_section(mapping, quantized)}
    else:
        results += rounding_table(quantized)
    key_figures["rms rounding error of weights, largest population"] = (
        f"{max(errors, default=0.0):.2%}"
    )
    if outcome.ok:
        result = f"The network fits on the chip in {runs} run{'s' * (runs != 1)}: 0 violations"
    elif outcome.violations:
        result = f"The mapping has {outcome.why}"
    else:
        result = f"There is no mapping: {outcome.stop_reason}"
    sections = {
        "Input": input_section(arguments, graph, arguments.file),
        "Dialect": dialect_section(graph),
        "Results": results,
        **chip,
        "Limitations": limitations_section(
            (*quantized.notes, *strength_notes(quantized.slope, quantized.measured)), graph
        ),
    }
    title = f"map: {Path(arguments.file).name}"
    return page(title, summary(result, key_figures, outcome.ok), sections)
