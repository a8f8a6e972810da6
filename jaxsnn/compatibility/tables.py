"""The tables of capabilities, for the documentation and for tests that all of them must pass."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

from jaxsnn.bss2.capabilities import CHIP, CIRCUITS, SYNAPSES
from jaxsnn.capabilities import Capabilities, Limit, Row
from jaxsnn.event.capabilities import KERNELS, SIMULATION
from jaxsnn.grid.capabilities import APPROXIMATIONS, GRID
from jaxsnn.nir.convert.importers import capabilities_of
from jaxsnn.nir.convert.target import Target
from jaxsnn.nir.frameworks.registry import framework_of, with_importers
from jaxsnn.nir.model.nodes import TYPES
from jaxsnn.wording import Option, Reference, Text

#: Simulator -> its tables: the engines, the native kernels of the event engine, the chip.
TABLES: Mapping[str, tuple[Capabilities[Any], ...]] = MappingProxyType(
    {
        "event": (SIMULATION,),
        "kernels": (KERNELS,),
        "grid": (GRID, APPROXIMATIONS),
        "bss2": (CHIP, SYNAPSES, CIRCUITS),
    }
)
_CELLS = {"error": "no", "warning": "approximate", "note": "slower"}
#: A field of a template, such as "{floor:g}"; not the dictionary of a setting, `{"NODE": 0}`.
_FIELD = re.compile(r"\{(\w+)[^}]*\}")


def importer_tables() -> dict[str, Capabilities[Any]]:
    """Return the table of each importer's newest release, by framework."""
    tables = {}
    for name in with_importers():
        framework = framework_of(name)
        target = Target(title=framework.title, importer=framework.importers[0], framework=framework)
        tables[name] = capabilities_of(target, repairs=True)
    return tables


def rows_of(simulator: str) -> Iterator[Row[Any]]:
    """Yield the rows of a simulator's tables."""
    for table in TABLES[simulator]:
        yield from table.limits


def features_table() -> str:
    """Return Markdown: the simulators that do not support each feature."""
    cells: dict[str, dict[str, str]] = {}
    for simulator in TABLES:
        limited = {row.description for row in rows_of(simulator)}
        for row in rows_of(simulator):
            cell = _CELLS[row.severity] if isinstance(row, Limit) else "no"
            # What another row of the simulator limits is no exception.
            exceptions = [
                feature.description
                for feature in (row.unless if isinstance(row, Limit) else ())
                if feature.description not in limited
            ]
            if exceptions:
                cell += f", except: {' or '.join(exceptions)}"
            cells.setdefault(row.description, {})[simulator] = cell
    lines = [f"| feature | {' | '.join(TABLES)} |", "|---" * (len(TABLES) + 1) + "|"]
    for description, by_simulator in cells.items():
        entries = " | ".join(by_simulator.get(simulator, "") for simulator in TABLES)
        lines.append(f"| {description} | {entries} |")
    return "\n".join(lines)


def limits_table(simulator: str) -> str:
    """Return Markdown: the limits of a simulator, with code, message and advice."""
    lines = ["| feature | code | message | advice |", "|---|---|---|---|"]
    for row in rows_of(simulator):
        code, reason, fix = "", "(depends on the node)", ""
        if isinstance(row, Limit):
            code, reason, fix = f"`{row.code}`", _template(row.reason), _template(_advice(row))
        lines.append(f"| {row.description} | {code} | {reason} | {fix} |")
    return "\n".join(lines)


def _advice(limit: Limit[Any]) -> str:
    """Return the advice of a limit in the words of Python, its facts left as fields."""
    facts = {name: f"{{{name}}}" for name in _FIELD.findall(limit.fix)}
    options = {
        name: advice if isinstance(advice, Option | Reference | str) else advice("NODE")
        for name, advice in limit.options.items()
    }
    return str(Text(limit.fix, **facts | options))


def _template(text: str) -> str:
    """Return a template with its fields in italics."""
    return _FIELD.sub(r"*\1*", text).replace("|", "\\|")


def importers_table() -> str:
    """Return Markdown: unsupported features of the importers' newest releases, except those that
    are defined by code.
    """
    lines = [
        "| importer | node types without support | parameters that are ignored | not supported |",
        "|---|---|---|---|",
    ]
    for name in with_importers():
        framework = framework_of(name)
        importer = framework.importers[0]
        types = [f"`{kind}`" for kind in TYPES if not importer.reads_type(kind)]
        ignored = [
            f"`{parameter}` of `{kind}` ({value:g} is used)"
            for kind, (parameter, value) in importer.ignores.items()
        ]
        missing = {
            "scalar parameters for all neurons": "scalars" in importer.lacks,
            "several time constants in one node": importer.uniform,
            "branches (only chains of nodes are supported)": "forks" not in importer.wiring,
            "sums of several inputs": "sums" not in importer.wiring,
            "loops": "loops" not in importer.wiring,
            "dilated convolutions": "dilation" in importer.lacks,
            "padded pools": "pool padding" in importer.lacks,
            "time steps of another length": "dt" in importer.reads,
            "several spikes per time step": not importer.bursts and not importer.continuous,
        }
        unsupported_features = [feature for feature, applies in missing.items() if applies]
        cells = (", ".join(entries) for entries in (types, ignored, unsupported_features))
        lines.append(f"| {framework.title} {importer.version} | {' | '.join(cells)} |")
    return "\n".join(lines)
