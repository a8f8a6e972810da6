"""Steps of the demo: the trained network placed and routed on BrainScaleS-2, proven, and drawn.

No chip is needed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jaxsnn.bss2.check import check, located
from jaxsnn.bss2.mapping import Mapping, to_json
from jaxsnn.bss2.mapping_files import read_mapping
from jaxsnn.bss2.search.portfolio import place_and_route
from jaxsnn.bss2.search.quantize import Quantized, quantize
from jaxsnn.bss2.usage import used
from jaxsnn.commands.demo.demo_steps import DIALECT_OPTIONS
from jaxsnn.commands.remarks import line_of
from jaxsnn.errors import MappingError
from jaxsnn.nir import read
from jaxsnn.options import SEED
from jaxsnn.output import write_atomically
from jaxsnn.wording import Text

_SHOWN = ("circuits", "synapse drivers", "synapses")


def map_step(
    exported: Path, written: Path, force: bool
) -> tuple[Quantized, list[str], dict[str, Any]]:
    """Quantise, place and route the exported file, and write the mapping."""
    quantized = quantize(read(exported, **DIALECT_OPTIONS))
    search_result = place_and_route(quantized.netlist)
    if search_result.mapping is None:
        raise MappingError(
            Text("no mapping for the trained network ({reason})", reason=search_result.why),
            fix=Text("pass another {seed}", seed=SEED.keyword),
        )
    text, resources = to_json(search_result.mapping), used(search_result.mapping)
    write_atomically(written, text, force)
    runs = len(search_result.mapping.runs)
    usage_texts = [
        f"{resources[name]['used']} of {resources[name]['available']} {name}" for name in _SHOWN
    ]
    errors = [f"{name} {report.relative_error:.1%}" for name, report in quantized.nodes.items()]
    notes = [line_of(note) for note in quantized.notes]
    lines = [
        f"{exported.name} placed and routed on BrainScaleS-2, in {runs} run{'s' * (runs > 1)}: "
        f"{', '.join(usage_texts)}",
        f"weights have 6 bits and a sign; rms error, relative to the rms of the weights: {', '.join(errors)}",
        *(f"note: {note}" for note in notes),
    ]
    facts = {"file": str(written), "runs": runs, "used": resources, "notes": notes}
    return quantized, lines, facts


def prove_step(quantized: Quantized, written: Path) -> tuple[Mapping, list[str], dict[str, Any]]:
    """Read the written mapping back and check it."""
    mapping = read_mapping(written)
    violations = check(mapping, quantized.netlist)
    if violations:
        raise MappingError(
            Text(
                "violations in {path}: {count}, the first: {reason}",
                path=written.name,
                count=len(violations),
                reason=located(violations[0]),
            ),
            fix="map the network again",
            node=violations[0].node,
        )
    synapses = len(quantized.netlist.weight)
    lines = [
        f"read {written.name} back and sent every event through crossbar, buses, drivers, rows and labels:",
        f"exactly the {synapses} synapses of the network respond, with the correct signs and weights: 0 violations",
    ]
    return mapping, lines, {"violations": 0, "synapses": synapses}
