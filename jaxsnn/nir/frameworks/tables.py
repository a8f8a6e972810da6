"""What is known of all frameworks as a table of Markdown, for docs/interop.md."""

from __future__ import annotations

from jaxsnn.nir.frameworks.framework import Framework, Importer
from jaxsnn.nir.frameworks.registry import frameworks


def frameworks_table() -> str:
    """One row for each framework: its dialect and importer by version, and what else to know."""
    rows = [
        "| framework | dialect | its importer | takes | gradient of a spike | to know |",
        "|---|---|---|---|---|---|",
    ]
    for framework in frameworks().values():
        cells = (
            framework.title,
            ", ".join(_dialects(framework)),
            "; ".join(_importer(importer) for importer in framework.importers) or "none is known",
            _takes(framework),
            framework.surrogate or "none",
            framework.note,
        )
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def _dialects(framework: Framework) -> list[str]:
    """What `dialect=` takes: the name is the first version."""
    first, *others = framework.dialects
    named = f"`{framework.name}`" + (f" ({first.version})" if first.version else "")
    named += "" if first.ran else ", known from its source, not run"
    return [named, *(f"`{framework.name}=={version.version}`" for version in others)]


def _importer(importer: Importer) -> str:
    does = "converted for" if importer.write is not None else "checked only"
    caveat = "" if importer.ran else ", known from its source, not run"
    return f"{importer.version}: {does}{caveat}"


def _takes(framework: Framework) -> str:
    """The types that its first importer takes, without Input and Output."""
    if not framework.importers:
        return ""
    kinds = framework.importers[0].nodes
    if kinds is None:
        return "all"
    return ", ".join(kind for kind in kinds if kind not in ("Input", "Output"))
