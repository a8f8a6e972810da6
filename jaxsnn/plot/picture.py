"""Common parts of all pictures: colours, time axes, display and files."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jaxsnn.errors import UsageError, listing
from jaxsnn.output import write_atomically
from jaxsnn.units import SECONDS
from jaxsnn.wording import Text

#: Colours that are distinguishable for colour-blind readers (Okabe and Ito, 2008).
BLUE, ORANGE, GREEN, VERMILION = "#0072B2", "#E69F00", "#009E73", "#D55E00"
SKY, PURPLE, YELLOW, BLACK = "#56B4E9", "#CC79A7", "#F0E442", "#000000"
GREY, LIGHT = "#777777", "#dddddd"
#: Colours of lines and populations, in this order.
CYCLE = (BLUE, ORANGE, GREEN, VERMILION, PURPLE, SKY, BLACK)

#: File formats of pictures.
FORMATS = ("png", "svg", "pdf")
#: Smallest factor by which a page may scale a vector picture.
_LEAST_SCALE = 0.7
#: Distances between panels in the axes of a user, between columns and between rows: fractions of
#: the axes.
_GAP_X, _GAP_Y = 0.2, 0.1
#: Pixels per inch of PNG.
_RESOLUTION = 150


@dataclass(frozen=True, kw_only=True, repr=False)
class Picture:
    """Drawn picture. A notebook shows it as the last line of a cell.

    Attributes:
        alt: Description of the picture in one sentence, for readers who cannot see it.
        render: Function that returns the bytes of a format, one of `FORMATS`.
        vector: Whether the picture is displayed as SVG; otherwise as PNG, which is smaller if there
            are many elements.
    """

    alt: str
    render: Callable[[str], bytes]
    vector: bool = False

    def save(self, path: str | Path, force: bool = False) -> Picture:
        """Write the picture in the format of the file's ending: .png, .svg or .pdf.

        Returns:
            The picture, so that a notebook shows it if this is the last line of a cell.

        Raises:
            UsageError: The ending is not supported for this picture.
            FileError: The file exists and `force` is false, or it cannot be written.
        """
        write_atomically(path, self.render(format_of(path)), force)
        return self

    def as_html(self) -> str:
        """Return the picture as an HTML element that needs no other file."""
        if self.vector:
            text = self.render("svg").decode("utf-8")
            text = text[text.index("<svg") :]
            # Scroll wide pictures sideways instead of shrinking their text until it is unreadable.
            width = re.search(r'^<svg[^>]* width="([\d.]+)', text)
            least = f' style="min-width:{_LEAST_SCALE * float(width[1]):.0f}px"' if width else ""
            shown = text.replace("<svg", f"<svg{least}", 1)
            label = f'role="img" aria-label="{_quoted(self.alt)}"'
            return f'<div class="picture" {label} style="overflow-x:auto">{shown}</div>'
        data = base64.b64encode(self.render("png")).decode("ascii")
        return f'<img alt="{_quoted(self.alt)}" src="data:image/png;base64,{data}">'

    def _repr_html_(self) -> str:
        return self.as_html()

    def __repr__(self) -> str:
        return f"Picture({self.alt})"


def _quoted(text: str) -> str:
    """Return text escaped for an attribute of HTML."""
    from html import escape

    return escape(text, quote=True)


def format_of(path: str | Path) -> str:
    """Return the picture format of a file's ending.

    Raises:
        UsageError: The ending is not a supported format.
    """
    ending = Path(path).suffix
    if ending.removeprefix(".").lower() not in FORMATS:
        endings = listing(f".{name}" for name in FORMATS)
        raise UsageError(
            Text(
                "'{path}': the ending '{ending}' is not a supported picture format",
                path=path,
                ending=ending,
            ),
            fix=f"pass a file name that ends in one of {endings}",
        )
    return ending.removeprefix(".").lower()


def refuse_undrawable(path: str | Path) -> None:
    """Refuse a picture that cannot be written, before it is computed.

    Raises:
        UsageError: the ending is not that of a supported format, or matplotlib is not installed.
    """
    format_of(path)
    _figures()


def _figures() -> tuple[Any, Any, Any]:
    """Return the canvas, figure and layout classes of matplotlib.

    Raises:
        UsageError: it is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
        from matplotlib.layout_engine import ConstrainedLayoutEngine
    except ImportError as error:
        raise UsageError(
            "pictures need matplotlib, which is not installed",
            fix="pip install matplotlib",
        ) from error
    return FigureCanvasAgg, Figure, ConstrainedLayoutEngine


def new_figure(width: float, height: float) -> Any:
    """Return a new figure that is attached to no window and not to pyplot; sizes in inches.

    Raises:
        UsageError: matplotlib is not installed.
    """
    canvas, figure_class, layout_engine = _figures()
    # Padding in inches, so that the labels of axes do not touch the next axes.
    layout = layout_engine(w_pad=0.1)
    figure = figure_class(figsize=(width, height), dpi=_RESOLUTION, layout=layout)
    canvas(figure)
    return figure


class Canvas:
    """Place of a picture: a new figure, or axes of the user.

    Args:
        ax: Axes of matplotlib to draw on; a picture of several panels divides their area. None: a
            new figure.
        width, height: Size of a new figure in inches.
        layout: Whether matplotlib arranges the parts of a new figure.

    Raises:
        UsageError: matplotlib is not installed, or `ax` is not axes.
    """

    def __init__(self, ax: Any, width: float, height: float, *, layout: bool = True):
        if ax is None:
            self.figure = new_figure(width, height)
            if not layout:
                self.figure.set_layout_engine(None)
        elif hasattr(ax, "inset_axes"):
            self.figure = ax.figure.figure  # of a subfigure: the figure that contains it
        else:
            raise UsageError(
                Text("ax is an object of type {type}, not axes", type=type(ax).__name__),
                fix="pass axes of matplotlib, as plt.subplots returns them",
            )
        self._ax = ax

    def panels(
        self,
        rows: int = 1,
        columns: int = 1,
        *,
        heights: Sequence[float] | None = None,
        widths: Sequence[float] | None = None,
        sharex: bool = False,
        sharey: bool = False,
    ) -> Any:
        """Return the axes of the panels, (rows, columns).

        Args:
            heights, widths: Relative sizes of rows and columns; default: equal.
            sharex, sharey: Whether the panels of a column share a time axis, and those of a row the
                vertical axis.
        """
        if self._ax is None:
            return self.figure.subplots(
                rows,
                columns,
                squeeze=False,
                sharex="col" if sharex else False,
                sharey="row" if sharey else False,
                height_ratios=heights,
                width_ratios=widths,
            )
        if (rows, columns) == (1, 1):
            return np.array([[self._ax]])
        self._ax.set_axis_off()
        lefts, panel_widths = _divided(widths or [1.0] * columns, _GAP_X)
        tops, panel_heights = _divided(heights or [1.0] * rows, _GAP_Y)
        panels = np.empty((rows, columns), object)
        for row in range(rows):
            for column in range(columns):
                bottom = 1 - tops[row] - panel_heights[row]
                bounds = (lefts[column], bottom, panel_widths[column], panel_heights[row])
                panels[row, column] = panel = self._ax.inset_axes(bounds)
                if sharex and row:
                    panel.sharex(panels[0, column])
                if sharey and column:
                    panel.sharey(panels[row, 0])
                    panel.tick_params(labelleft=False)
                if sharex and row < rows - 1:
                    panel.tick_params(labelbottom=False)
        return panels

    def set_title(self, text: str, **style: Any) -> None:
        """Set the title of the picture."""
        if self._ax is None:
            self.figure.suptitle(text, **style)
        elif text:
            style.pop("x", None)
            self._ax.set_title(text, loc=style.pop("ha", "center"), **style)

    def add_legend(self, axes: Any, loc: str, **style: Any) -> None:
        """Add a legend of the lines of some axes: outside of the panels, or in axes of the user."""
        handles, labels = axes.get_legend_handles_labels()
        if handles and self._ax is None:
            self.figure.legend(handles, labels, loc=f"outside {loc}", **style)
        elif handles:
            axes.legend(handles, labels, **style)

    def picture(self, alt: str) -> Picture:
        """Return the picture: the figure, with all else that the user has drawn on it."""
        return picture_of(self.figure, alt)


def _divided(sizes: Sequence[float], gap: float) -> tuple[list[float], list[float]]:
    """Return begins and lengths of parts of the interval from 0 to 1, with gaps between them."""
    gap = min(gap, 0.5 / len(sizes))
    unit = (1 - gap * (len(sizes) - 1)) / sum(sizes)
    lengths = [unit * size for size in sizes]
    begins = [sum(lengths[:n]) + n * gap for n in range(len(sizes))]
    return begins, lengths


def picture_of(figure: Any, alt: str) -> Picture:
    """Return the picture of a matplotlib figure; its bytes are reproducible."""

    def render(kind: str) -> bytes:
        from matplotlib import rc_context

        # Reproducible bytes: no date, and fixed names of parts.
        metadata = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(kind)
        drawn = io.BytesIO()
        with rc_context({"svg.hashsalt": "jaxsnn"}):
            figure.savefig(drawn, format=kind, metadata=metadata)
        return drawn.getvalue()

    return Picture(alt=alt, render=render)


def time_unit(t_end: float) -> tuple[str, float]:
    """Return the unit of the time axis of a run of `t_end` seconds, and the unit in seconds."""
    for unit in ("s", "ms", "us"):
        if t_end > 2 * SECONDS[unit] or unit == "us":
            return {"us": "µs"}.get(unit, unit), SECONDS[unit]
    raise AssertionError("the loop ends at us")


def quiet(axes: Any, axis: str = "both") -> None:
    """Draw thin grid lines behind the data, and hide the top and right sides of the box."""
    axes.grid(True, axis=axis, color=LIGHT, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
