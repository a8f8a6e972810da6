"""Boxes and arrows with matplotlib: graphs as PNG and PDF."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jaxsnn.plot.picture import new_figure, picture_of

_PIXELS_PER_INCH = 96
_LINE = "#555555"


@dataclass(frozen=True, kw_only=True)
class Block:
    """A box of a picture: where (pixels from the left and top), its colour (hex), and its text."""

    left: float
    top: float
    width: float
    height: float
    fill: str
    lines: tuple[str, ...] = ()
    rounded: bool = False
    dashed: bool = False


@dataclass(frozen=True, kw_only=True)
class Arrow:
    """A curve of Bezier pieces: its corners (x, y), pixels, the first of which is the start."""

    corners: tuple[tuple[float, float], ...]


def boxes_picture(
    blocks: Sequence[Block], arrows: Sequence[Arrow], size: tuple[float, float], kind: str
) -> bytes:
    """PNG or PDF of blocks and arrows on a page of `size` pixels."""
    width, height = size
    figure = new_figure(width / _PIXELS_PER_INCH, height / _PIXELS_PER_INCH)
    from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
    from matplotlib.path import Path

    figure.set_layout_engine(None)
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(height, 0))
    axes.set_axis_off()
    points = 72 / _PIXELS_PER_INCH
    for arrow in arrows:
        codes = [Path.MOVETO, *_codes(len(arrow.corners) - 1, Path)]
        drawn = FancyArrowPatch(
            path=Path(arrow.corners, codes),
            arrowstyle="-|>,head_width=2.5,head_length=5",
            color=_LINE,
            linewidth=points,
        )
        axes.add_patch(drawn)
    for block in blocks:
        radius = block.height / 2 if block.rounded else 4
        drawn = FancyBboxPatch(
            (block.left, block.top),
            block.width,
            block.height,
            boxstyle=f"round,pad=0,rounding_size={radius}",
            facecolor="none" if block.dashed else block.fill,
            edgecolor=_LINE,
            linestyle="--" if block.dashed else "-",
            linewidth=points,
        )
        axes.add_patch(drawn)
        _write_lines(axes, block, points)
    return picture_of(figure, "").render(kind)


def _codes(corners: int, path: Any) -> list[int]:
    """A curve takes three corners; what is left over after whole curves is a straight line."""
    if corners == 7:  # a way back: curve, line, curve
        return [path.CURVE4] * 3 + [path.LINETO] + [path.CURVE4] * 3
    return [path.CURVE4] * corners


def _write_lines(axes: Any, block: Block, points: float) -> None:
    for number, line in enumerate(block.lines):
        place = block.left + block.width / 2, block.top + 6 + 8 + 17 * number
        bold = "bold" if number == 0 and not block.dashed else "normal"
        axes.text(
            *place,
            line,
            ha="center",
            va="center",
            family="monospace",
            fontsize=12 * points * 0.94,
            fontweight=bold,
        )
