"""Write the table of frameworks of the documentation in Markdown."""

from __future__ import annotations

from jaxsnn.nir.frameworks.framework import Framework, Importer
from jaxsnn.nir.frameworks.registry import frameworks


def frameworks_table() -> str:
    """Return a table with the dialects and importers of each framework."""
    rows = [
        "| framework | dialect | conversion for | supported nodes | surrogate gradient | remarks |",
        "|---|---|---|---|---|---|",
    ]
    for framework in frameworks().values():
        cells = (
            framework.title,
            ", ".join(_dialects(framework)),
            ", ".join(_importer(importer) for importer in framework.importers) or "none",
            _takes(framework),
            framework.surrogate or "none",
            framework.note,
        )
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def _dialects(framework: Framework) -> list[str]:
    """Return the names for `dialect=`; the name without a version is the first version."""
    first, *others = framework.dialects
    text = f"`{framework.name}`" + (f" ({first.version})" if first.version else "")
    text += "" if first.ran else " (from source)"
    return [text, *(f"`{framework.name}=={version.version}`" for version in others)]


def _importer(importer: Importer) -> str:
    limits = [] if importer.write is not None else ["check only"]
    limits += [] if importer.ran else ["from source"]
    return importer.version + (f" ({', '.join(limits)})" if limits else "")


def _takes(framework: Framework) -> str:
    """Return the node types that the first importer supports, without Input and Output."""
    if not framework.importers:
        return ""
    kinds = framework.importers[0].nodes
    if kinds is None:
        return "all"
    return ", ".join(kind for kind in kinds if kind not in ("Input", "Output"))
