"""Display of this library's records in notebooks.

The functions that draw are loaded by name, so that records need not import `jaxsnn.plot`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from importlib import import_module
from typing import Any

from jaxsnn.errors import UsageError, printable

#: Type of a record -> module and function that draw it.
_DRAWN_BY = {
    "Graph": ("jaxsnn.plot.graph_drawing", "graph"),
    "Mapping": ("jaxsnn.plot.graph_drawing", "floorplan"),
    "EventSolution": ("jaxsnn.plot.spike_plots", "raster"),
    "SteppedSolution": ("jaxsnn.plot.spike_plots", "raster"),
    "Fit": ("jaxsnn.plot.training_plots", "learning_curve"),
}


def html_of(record: Any, *, text: str = "", rows: Iterable[Sequence[Any]] = ()) -> str | None:
    """Return a record as HTML: its picture, then a text and a table.

    Args:
        record: record of a kind that can be drawn.
        text: lines below the picture.
        rows: rows of a table below the text; the first row contains the headings.

    Returns:
        HTML, or None if nothing can be drawn (matplotlib is missing, or nothing was recorded), so that the
        notebook shows the `repr`.
    """
    module, name = _DRAWN_BY[type(record).__name__]
    try:
        picture = getattr(import_module(module), name)(record).as_html()
    except UsageError:
        return None
    description = f"<pre>{escape(printable(text))}</pre>" if text else ""
    return f"{picture}{description}{_table(rows)}"


def _table(rows: Iterable[Sequence[Any]]) -> str:
    table_cells = [[escape(printable(str(cell))) for cell in row] for row in rows]
    if not table_cells:
        return ""
    head = "".join(f"<th>{cell}</th>" for cell in table_cells[0])
    body = "".join(
        f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in table_cells[1:]
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
