"""Floorplans, which are SVG, drawn with matplotlib: for PNG, PDF and the axes of a user."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from io import BytesIO
from typing import Any
from xml.etree.ElementTree import Element, fromstring

_HREF = "data:image/png;base64,"
_ALIGNMENTS = {"start": "left", "middle": "center", "end": "right"}
#: Size of matplotlib's default font, whose letters are wider than those of browsers.
_NARROWER = 0.88
#: One step of a path of `jaxsnn.bss2.floorplan`: move to a corner, or draw a side.
_PATH_STEP = re.compile(r"([Mhvz])(-?[\d.]*) ?(-?[\d.]*)")


def svg_size(text: str) -> tuple[float, float]:
    """Return width and height of an SVG document in pixels."""
    root = fromstring(text)
    return float(root.attrib["width"]), float(root.attrib["height"])


def draw_svg(axes: Any, text: str, points_per_pixel: float) -> None:
    """Draw rectangles, circles, paths, images and texts of an SVG document of this library.

    Args:
        axes: Axes of matplotlib, whose limits become the pixels of the document.
        text: SVG document from `jaxsnn.bss2.floorplan`, not from another source.
        points_per_pixel: Size of texts and lines.
    """
    width, height = svg_size(text)
    axes.set(xlim=(0, width), ylim=(height, 0), aspect="equal")
    axes.set_axis_off()
    for number, (element, x, y, fill) in enumerate(_elements(fromstring(text), 0.0, 0.0, "black")):
        draw = _DRAWN_BY.get(element.tag.rpartition("}")[2])
        if draw is not None:
            draw(axes, element, (x, y), fill, points_per_pixel, number)


def _elements(
    group: Element, x: float, y: float, fill: str
) -> Iterator[tuple[Any, float, float, str]]:
    """Yield the elements of a group with the origin of their coordinates and their colour."""
    for element in group:
        element_fill = element.get("fill", fill)
        if element.tag.endswith("}g"):
            moved = re.fullmatch(r"translate\((\S+) (\S+)\)", element.get("transform", ""))
            dx, dy = map(float, moved.groups()) if moved else (0.0, 0.0)
            yield from _elements(element, x + dx, y + dy, element_fill)
        else:
            yield element, x, y, element_fill


def _style(element: Element, fill: str, scale: float, number: int) -> dict[str, Any]:
    """Return the style of a patch."""
    stroke = element.get("stroke", "none")
    width = float(element.get("stroke-width", "1")) * scale if stroke != "none" else 0.0
    return {"facecolor": fill, "edgecolor": stroke, "linewidth": width, "zorder": number}


def _number(element: Element, name: str) -> float:
    return float(element.get(name, "0"))


def _draw_box(axes: Any, element: Element, origin: Any, fill: str, scale: float, n: int) -> None:
    from matplotlib.patches import Rectangle

    corner = origin[0] + _number(element, "x"), origin[1] + _number(element, "y")
    size = _number(element, "width"), _number(element, "height")
    axes.add_patch(Rectangle(corner, *size, **_style(element, fill, scale, n)))


def _draw_circle(axes: Any, element: Element, origin: Any, fill: str, scale: float, n: int) -> None:
    from matplotlib.patches import Circle

    centre = origin[0] + _number(element, "cx"), origin[1] + _number(element, "cy")
    axes.add_patch(Circle(centre, _number(element, "r"), **_style(element, fill, scale, n)))


def _draw_path(axes: Any, element: Element, origin: Any, fill: str, scale: float, n: int) -> None:
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path

    corners: list[tuple[float, float]] = []
    codes: list[Any] = []
    x = y = 0.0
    for step, first, second in _PATH_STEP.findall(element.attrib["d"]):
        if step == "M":
            x, y = origin[0] + float(first), origin[1] + float(second)
        elif step == "h":
            x += float(first)
        elif step == "v":
            y += float(first)
        corners.append((x, y))
        codes.append({"M": Path.MOVETO, "z": Path.CLOSEPOLY}.get(step, Path.LINETO))
    axes.add_patch(PathPatch(Path(corners, codes), **_style(element, fill, scale, n)))


def _draw_image(axes: Any, element: Element, origin: Any, fill: str, scale: float, n: int) -> None:
    from matplotlib.image import imread

    image = imread(BytesIO(base64.b64decode(element.attrib["href"].removeprefix(_HREF))))
    x, y = origin[0] + _number(element, "x"), origin[1] + _number(element, "y")
    extent = (x, x + _number(element, "width"), y + _number(element, "height"), y)
    axes.imshow(image, extent=extent, interpolation="nearest", aspect="auto", zorder=n)


def _draw_text(axes: Any, element: Element, origin: Any, fill: str, scale: float, n: int) -> None:
    axes.text(
        origin[0] + _number(element, "x"),
        origin[1] + _number(element, "y"),
        element.text,
        fontsize=_number(element, "font-size") * scale * _NARROWER,
        color=fill,
        ha=_ALIGNMENTS[element.get("text-anchor", "start")],
        va="baseline",
        zorder=n,
    )


_DRAWN_BY = {
    "rect": _draw_box,
    "circle": _draw_circle,
    "path": _draw_path,
    "image": _draw_image,
    "text": _draw_text,
}
