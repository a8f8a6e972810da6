"""Maps a graph from file to file: quantised, placed, routed, verified, drawn."""

from __future__ import annotations

import os
from collections.abc import Mapping as Mapped
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxsnn.bss2.check import check, located
from jaxsnn.bss2.mapping import Mapping, from_json, to_json
from jaxsnn.bss2.search.feasibility import Certificate
from jaxsnn.bss2.search.portfolio import place_and_route
from jaxsnn.bss2.search.quantize import Quantized, QuantizeOptions, quantize
from jaxsnn.bss2.usage import events_per_spike, used
from jaxsnn.errors import FileError, MappingError, Problem
from jaxsnn.nir import Graph
from jaxsnn.output import refuse_unwritable, write_whole
from jaxsnn.units import format_time


@dataclass(frozen=True, kw_only=True)
class MapOutcome:
    """What `jaxsnn map` found.

    Attributes:
        stop_reason: "fits", "impossible", "gave up", or "verified" where a mapping was only
            checked.
        mapping: where there is one.
        quantized: the net that was mapped.
        violations: of the mapping.
        certificate: what forbids the net, or fewer runs.
        problem: what stood in the way, where there is no mapping.
        files: what was written, by kind.
    """

    stop_reason: str
    mapping: Mapping | None
    quantized: Quantized
    violations: tuple[Problem, ...]
    certificate: Certificate | None
    files: dict[str, str]
    problem: Problem | None = None

    @property
    def ok(self) -> bool:
        """There is a mapping, and nothing is wrong with it."""
        return self.mapping is not None and not self.violations

    @property
    def why(self) -> str:
        """Why there is no right mapping, in one line in the words of the command line."""
        if self.violations:
            count = len(self.violations)
            return f"{count} violation{'s' * (count > 1)}"
        return "" if self.problem is None else self.problem.as_text()

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        mapping = self.mapping
        return {
            "schema": 1,
            "fits": self.ok,
            "runs": None if mapping is None else len(mapping.runs),
            "signs": None if mapping is None else mapping.signs,
            "stop_reason": self.stop_reason,
            "why": self.why,
            "certificate": None if self.certificate is None else self.certificate.as_dict(),
            "used": {} if mapping is None or self.violations else used(mapping),
            "events": [] if mapping is None or self.violations else _events(mapping),
            "methods": [] if mapping is None else [run.method for run in mapping.runs],
            "violations": [one.as_dict() | {"where": one.node} for one in self.violations],
            "quantization": {name: node.as_dict() for name, node in self.quantized.nodes.items()},
            **self.files,
        }

    def as_text(self) -> str:
        """For people."""
        mapping = self.mapping
        if mapping is None:
            return f"{self.stop_reason}: {self.why}"
        lines = [f"violation: {located(one)}" for one in self.violations]
        runs = len(mapping.runs)
        lines.append(f"{'runs':24}{runs}, signs {mapping.signs}")
        lines += [f"  run {number}: {_run_text(mapping, number)}" for number in range(runs)]
        if not self.violations:
            lines += [
                f"{name:24}{one['used']} of {one['available']}"
                for name, one in used(mapping).items()
            ]
            events = [max(run.values()) for run in _events(mapping)]
            busy = format_time(max(events, default=0) * mapping.chip.clock_period)
            most = max(events, default=0)
            lines.append(f"{'busiest bus or link':24}{most} events if all spike once, {busy}")
        for name, node in self.quantized.nodes.items():
            scale = "none" if node.scale is None else f"{node.scale:.4g} LSB"
            lines.append(
                f"weights of {name:13}scale {scale}, {node.saturated} saturated, "
                f"rms error {node.rms_error:.3g}"
            )
        lines.append(f"{'checked':24}{len(self.violations)} violations")
        lines += [f"{kind:24}{path}" for kind, path in self.files.items()]
        return "\n".join(lines)


def _run_text(mapping: Mapping, number: int) -> str:
    run = mapping.runs[number]
    circuits = sum(len(one.circuits) for one in run.neurons)
    replayed = sum(one.from_run is not None for one in run.sources)
    return (
        f"{len(run.neurons)} neurons on {circuits} circuits, {len(run.sources) - replayed} inputs, "
        f"{replayed} replayed ({run.method})"
    )


def _events(mapping: Mapping) -> list[dict[str, int]]:
    return [events_per_spike(run, mapping.chip) for run in mapping.runs]


def map_file(
    graph: Graph,
    output: str | os.PathLike[str],
    *,
    svg: str | None = None,
    force: bool = False,
    options: QuantizeOptions | None = None,
    **search: Any,
) -> MapOutcome:
    """Quantise, place, route and verify a graph; write the mapping, and a picture of it.

    Args:
        graph: with its dialect.
        output: the JSON file.
        svg: a picture of the mapping.
        force: overwrite files that exist.
        options: of `quantize`.
        search: keyword arguments of `place_and_route`.

    Raises:
        MappingError: a node that the chip cannot run.
        FileError: a file exists, or cannot be written.
        UsageError: an option that makes no sense.
    """
    output = refuse_unwritable(output, force)
    if svg is not None:
        refuse_unwritable(svg, force)
    quantized = quantize(graph, options)
    found = place_and_route(quantized.netlist, **search)
    violations: tuple[Problem, ...] = ()
    files = {}
    if found.mapping is not None:
        violations = check(found.mapping, quantized.netlist)
    if found.mapping is not None and not violations:
        text = to_json(found.mapping)
        write_whole(output, lambda path: path.write_text(text, encoding="utf-8"), force)
        files = {"output": os.fspath(output)} | _draw(found.mapping, quantized, svg, force)
    return MapOutcome(
        stop_reason=found.stop_reason,
        mapping=found.mapping,
        quantized=quantized,
        violations=violations,
        certificate=found.certificate,
        files=files,
        problem=found.problem,
    )


def verify_mapping(
    graph: Graph,
    mapping: Mapping,
    *,
    svg: str | None = None,
    force: bool = False,
    options: QuantizeOptions | None = None,
) -> MapOutcome:
    """Check a mapping against a graph, quantised with the options that it was made with.

    Raises:
        FileError: the picture exists, or cannot be written.
        MappingError: the graph has a node that the chip cannot run.
    """
    if svg is not None:
        refuse_unwritable(svg, force)
    quantized = quantize(graph, options)
    violations = check(mapping, quantized.netlist)
    return MapOutcome(
        stop_reason="verified",
        mapping=mapping,
        quantized=quantized,
        violations=violations,
        certificate=None,
        files={} if violations else _draw(mapping, quantized, svg, force),
    )


def scales_of(mapping: Mapping, graph: Graph) -> Mapped[str, float] | None:
    """The scales that a mapping carries; None where it has none, or is of other populations, which
    its check says.
    """
    scales = mapping.scales
    return scales if scales is not None and sorted(scales) == sorted(graph.neurons) else None


def read_mapping(path: str | os.PathLike[str]) -> Mapping:
    """The mapping in a file.

    Raises:
        FileError: it cannot be read.
        MappingError: it is no mapping.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise FileError(
            f"{path} cannot be read ({error.strerror or error})", fix="name a mapping of jaxsnn map"
        ) from error
    except UnicodeDecodeError as error:
        raise MappingError(
            f"{path} is not text, so not a mapping", fix="make a mapping with jaxsnn map"
        ) from error
    return from_json(text)


def _draw(mapping: Mapping, quantized: Quantized, svg: str | None, force: bool) -> dict[str, str]:
    if svg is None:
        return {}
    from jaxsnn.bss2.floorplan import floorplan

    text = floorplan(mapping)
    write_whole(svg, lambda path: path.write_text(text, encoding="utf-8"), force)
    return {"svg": svg}
