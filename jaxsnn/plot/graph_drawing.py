"""A picture of a graph: SVG, PNG or PDF, or text for Graphviz (DOT) and Mermaid.

Signals run from left to right; recurrent connections, which run back, are arcs below.
Nested graphs are frames.
"""

from __future__ import annotations

import collections
import dataclasses
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from jaxsnn.errors import UsageError, listing, printable, refuse_type
from jaxsnn.keywords import suggests_keywords
from jaxsnn.nir.model.graph import Graph, refuse_no_graph
from jaxsnn.nir.model.node import Node
from jaxsnn.nir.model.passes import Shape, shapes, synapses
from jaxsnn.output import refuse_unwritable, write_atomically
from jaxsnn.plot.picture import Canvas, Picture, picture_of
from jaxsnn.plot.svg_drawing import draw_svg, svg_size
from jaxsnn.wording import Text

CHARACTER, LINE, MARGIN = 7.2, 17, 12  # pixels of a monospaced 12 px font
GAP_X, GAP_Y, FRAME = 56, 26, 12
_PIXELS_PER_INCH, _LINE = 96, "#555555"
COLOURS = {"port": "#e8e8e8", "linear": "#d6e6f5", "neuron": "#fbdcc0"}
OPEN_END = "?"

#: Corners of the curve of an edge: (x, y), pixels.
Corners = tuple[tuple[float, float], ...]


@dataclass(frozen=True, kw_only=True)
class Box:
    """Drawn node: its lines of text and its rectangle (left, top, width, height)."""

    name: str
    kind: str
    lines: tuple[str, ...]
    left: float = 0.0
    top: float = 0.0
    width: float = 0.0
    height: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """Outcome of `draw`: the path, and the numbers of nodes and edges in the picture."""

    output: str
    nodes: int
    edges: int

    def as_dict(self) -> dict[str, object]:
        """Return a JSON-compatible dict."""
        return {"schema": 1, **dataclasses.asdict(self)}

    def as_text(self) -> str:
        """Return human-readable text."""
        return f"{self.output}: {self.nodes} nodes, {self.edges} edges"


def draw(graph: Graph, path: str | os.PathLike[str], *, force: bool = False) -> Drawing:
    """Write a picture of a graph in the format of the file's ending: .svg, .png, .pdf, .dot or .mmd
    (Mermaid).

    Raises:
        UsageError: another ending; or .png or .pdf without matplotlib.
        FileError: the file exists and `force` is false, or cannot be written.
    """
    ending = Path(path).suffix.lower()
    if ending not in FORMATS:
        raise UsageError(
            Text(
                "'{path}': the ending '{ending}' is not a supported format of a graph picture",
                path=path,
                ending=ending,
            ),
            fix=f"pass a file name that ends in one of {listing(FORMATS)}",
        )
    refuse_unwritable(path, force)
    drawn = FORMATS[ending](graph)
    write_atomically(path, printable(drawn) if isinstance(drawn, str) else drawn, force)
    return Drawing(output=os.fspath(path), nodes=len(graph.nodes), edges=len(graph.edges))


def _boxes(graph: Graph) -> dict[str, Box]:
    """Return a box for each node, with its name, type and size."""
    node_shapes, counts = shapes(graph), synapses(graph)
    boxes = {}
    for name, node in graph.nodes.items():
        local = name.rsplit("/", 1)[-1]
        lines = (local, _summary(node, node_shapes[name], counts.get(name)))
        widest = max(len(line) for line in lines)
        boxes[name] = Box(
            name=name,
            kind=node.traits.drawn_as,
            lines=lines,
            width=widest * CHARACTER + 2 * MARGIN,
            height=len(lines) * LINE + MARGIN,
        )
    return boxes


def _summary(
    node: Node, shape: tuple[Shape | None, Shape | None], synapse_count: int | None
) -> str:
    """Return type and size of a node, such as '120 CubaLIF' or 'Linear 5 to 120, 600 synapses'."""
    entering, leaving = (OPEN_END if part is None else "x".join(map(str, part)) for part in shape)
    if node.traits.drawn_as != "linear":
        return f"{leaving} {node.type}"
    text = (
        f"{node.type} {entering} to {leaving}" if entering != leaving else f"{node.type} {leaving}"
    )
    return text if synapse_count is None else f"{text}, {synapse_count} synapses"


def _flow(graph: Graph) -> list[str]:
    """Return all nodes, sources before targets; a cycle starts where the rest of the graph enters
    it.
    """
    cycles = [(part, frozenset(part)) for part in graph.recurrent_components()]
    cyclic = {name: both for both in cycles for name in both[0]}
    order: dict[str, None] = {}
    for name in graph.order():
        if name in order:
            continue
        part, inside = cyclic.get(name, ((name,), frozenset((name,))))
        entries = [
            member
            for member in part
            if any(source not in inside for source in graph.predecessors(member))
        ]
        waiting = collections.deque(entries or [part[0]])
        while waiting:
            member = waiting.popleft()
            if member in order:
                continue
            order[member] = None
            waiting.extend(target for target in graph.successors(member) if target in inside)
    return list(order)


def _placed(graph: Graph) -> dict[str, Box]:
    """Return boxes with coordinates: columns by rank; within a column in the order of their
    sources, recurrent ones last.
    """
    boxes, place = _boxes(graph), {name: number for number, name in enumerate(_flow(graph))}
    # Column of a node: one more than the maximum of its sources, feedback edges aside.
    ranks: dict[str, int] = {}
    for name in place:
        before = [
            ranks[source] for source in graph.predecessors(name) if place[source] < place[name]
        ]
        ranks[name] = max(before, default=-1) + 1
    columns: list[list[str]] = [[] for _ in range(max(ranks.values(), default=-1) + 1)]
    for name, rank in ranks.items():
        columns[rank].append(name)
    nested = (
        GAP_Y + FRAME * max(path.count("/") + 1 for path in graph.subgraphs)
        if len(graph.subgraphs) > 1
        else GAP_Y
    )
    tallest = max(
        (sum(boxes[name].height + nested for name in column) for column in columns), default=0.0
    )
    column_left, row = GAP_X / 2, dict.fromkeys(boxes, 0.0)
    for column in columns:

        def source_row(name: str) -> float:
            heard = [
                row[source] for source in graph.predecessors(name) if ranks[source] < ranks[name]
            ]
            return sum(heard) / len(heard) if heard else row[name]

        def returns(name: str) -> bool:
            return any(ranks[target] <= ranks[name] for target in graph.successors(name))

        column.sort(key=lambda name: (_frame(name), returns(name), source_row(name)))
        width = max(boxes[name].width for name in column)
        top = (
            GAP_Y + (tallest - sum(boxes[name].height + nested for name in column)) / 2 + nested / 2
        )
        for name in column:
            box = boxes[name]
            boxes[name] = dataclasses.replace(
                box, left=column_left + (width - box.width) / 2, top=top
            )
            row[name] = top + box.height / 2
            top += box.height + nested
        column_left += width + GAP_X
    return boxes


def _frame(name: str) -> str:
    """Return the path of the nested graph that a node belongs to."""
    return name.rpartition("/")[0]


@dataclass(frozen=True, kw_only=True)
class Page:
    """Layout of a graph: its boxes, frames of nested graphs, and the corners of each edge's curve,
    four, or eight if it runs back; `size` in pixels.
    """

    boxes: Mapping[str, Box]
    frames: tuple[Box, ...]
    curves: tuple[Corners, ...]
    size: tuple[float, float]


def _page(graph: Graph) -> Page:
    """Lay out a graph."""
    boxes = _placed(graph)
    bottom = max((box.top + box.height for box in boxes.values()), default=0.0)
    curves, arcs = [], 0
    for edge in graph.edges:
        source, target = (boxes[name] for name in edge)
        x1, y1 = source.left + source.width, source.top + source.height / 2
        x2, y2 = target.left, target.top + target.height / 2
        if target.left > source.left:
            reach = max((x2 - x1) / 2, 20)
            curves.append(((x1, y1), (x1 + reach, y1), (x2 - reach, y2), (x2, y2)))
            continue
        arcs += 1  # feedback edges run below the boxes
        below = bottom + arcs * 12 + FRAME
        down = (x1, y1), (x1 + 26, y1), (x1 + 26, below), (x1, below)
        up = (x2, below), (x2 - 26, below), (x2 - 26, y2), (x2, y2)
        curves.append((*down, *up))
    width = max((box.left + box.width for box in boxes.values()), default=0.0) + GAP_X / 2
    height = bottom + GAP_Y + arcs * 12 + (FRAME if arcs else 0)
    frames = []
    for path in filter(None, sorted(graph.subgraphs)):
        inside = [box for name, box in boxes.items() if name.startswith(path + "/")]
        if not inside:
            continue
        space = FRAME + 4 * (max(box.name.count("/") for box in inside) - path.count("/") - 1)
        frame_left, top = (
            min(box.left for box in inside) - space,
            min(box.top for box in inside) - space - 6,
        )
        frame = Box(
            name=path,
            kind="frame",
            lines=(path,),
            left=frame_left,
            top=top,
            width=max(box.left + box.width for box in inside) + space - frame_left,
            height=max(box.top + box.height for box in inside) + space - top,
        )
        frames.append(frame)
    return Page(boxes=boxes, frames=tuple(frames), curves=tuple(curves), size=(width, height))


def svg(graph: Graph) -> str:
    """Return the picture as a standalone SVG document."""
    page = _page(graph)
    width, height = page.size
    arrow = '<marker id="arrow" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}" '
        f'viewBox="0 0 {width:.0f} {height:.0f}" font-family="monospace" font-size="12">',
        f'<defs>{arrow}<path d="M0 0L8 4L0 8z" fill="#555"/></marker></defs>',
        f'<rect width="{width:.0f}" height="{height:.0f}" fill="white"/>',
    ]
    for frame in page.frames:
        lines.append(
            f'<rect x="{frame.left:.1f}" y="{frame.top:.1f}" width="{frame.width:.1f}" '
            f'height="{frame.height:.1f}" rx="8" fill="none" stroke="#999" stroke-dasharray="4 3"/>'
            f'<text x="{frame.left + 6:.1f}" y="{frame.top + 11:.1f}" font-size="10" fill="#666">'
            f"{escape(frame.name)}</text>"
        )
    for corners in page.curves:
        points = [f"{x:.1f} {y:.1f}" for x, y in corners]
        path = f"M{points[0]}C{' '.join(points[1:4])}"
        if len(points) > 4:
            path += f"L{points[4]}C{' '.join(points[5:])}"
        lines.append(f'<path d="{path}" fill="none" stroke="#555" marker-end="url(#arrow)"/>')
    lines += [_svg_box(box) for box in page.boxes.values()]
    return "\n".join([*lines, "</svg>\n"])


def _drawn(graph: Graph, kind: str) -> bytes:
    """Draw PNG or PDF with matplotlib."""
    page = _page(graph)
    figure, axes, points = _page_axes(page.size)
    _draw_page(axes, page, points)
    return picture_of(figure, "").render(kind)


def _page_axes(size: tuple[float, float], ax: Any = None) -> tuple[Any, Any, float]:
    """Return figure, axes and points per pixel for a drawing of a size in pixels."""
    width, height = (pixels / _PIXELS_PER_INCH for pixels in size)
    canvas = Canvas(ax, width, height, layout=False)
    if ax is None:
        return canvas.figure, canvas.figure.add_axes((0, 0, 1, 1)), 72 / _PIXELS_PER_INCH
    box = ax.get_window_extent()
    inches = box.width / canvas.figure.dpi, box.height / canvas.figure.dpi
    shrunk = min(inches[0] / width, inches[1] / height)
    return canvas.figure, ax, 72 * shrunk / _PIXELS_PER_INCH


def _draw_page(axes: Any, page: Page, points: float) -> None:
    """Draw a page on axes of matplotlib; `points` is the number of points per pixel."""
    from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
    from matplotlib.path import Path as Curve

    width, height = page.size
    axes.set(xlim=(0, width), ylim=(height, 0), aspect="equal")
    axes.set_axis_off()
    for corners in page.curves:
        codes = [Curve.MOVETO, *[Curve.CURVE4] * (len(corners) - 1)]
        if len(corners) == 8:  # a feedback edge: curve, line, curve
            codes[4] = Curve.LINETO
        drawn = FancyArrowPatch(
            path=Curve(corners, codes),
            arrowstyle="-|>,head_width=2.5,head_length=5",
            color=_LINE,
            linewidth=points,
        )
        axes.add_patch(drawn)
    for box in (*page.frames, *page.boxes.values()):
        is_frame = box.kind == "frame"
        radius = box.height / 2 if box.kind == "port" else 4
        drawn = FancyBboxPatch(
            (box.left, box.top),
            box.width,
            box.height,
            boxstyle=f"round,pad=0,rounding_size={radius}",
            facecolor="none" if is_frame else COLOURS[box.kind],
            edgecolor=_LINE,
            linestyle="--" if is_frame else "-",
            linewidth=points,
        )
        axes.add_patch(drawn)
        for number, line in enumerate(() if is_frame else box.lines):
            axes.text(
                box.left + box.width / 2,
                box.top + 6 + 8 + 17 * number,
                printable(line),
                ha="center",
                va="center",
                family="monospace",
                fontsize=12 * points * 0.94,
                fontweight="normal" if number else "bold",
            )


def _svg_box(box: Box) -> str:
    radius = box.height / 2 if box.kind == "port" else 4
    middle = box.left + box.width / 2
    bold = ' font-weight="bold"'
    lines = [
        f'<text x="{middle:.1f}" y="{box.top + MARGIN / 2 + 12 + number * LINE:.1f}" text-anchor="middle"'
        f"{bold if number == 0 else ''}>{escape(line)}</text>"
        for number, line in enumerate(box.lines)
    ]
    place = (
        f'x="{box.left:.1f}" y="{box.top:.1f}" width="{box.width:.1f}" height="{box.height:.1f}"'
    )
    style = f'rx="{radius:.0f}" fill="{COLOURS[box.kind]}" stroke="#555"'
    return f"<rect {place} {style}/>" + "".join(lines)


def dot(graph: Graph) -> str:
    """Return the graph in the language of Graphviz."""
    boxes = _boxes(graph)

    def quoted(text: str) -> str:
        return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'

    def node(box: Box, indent: str) -> str:
        label = quoted("\n".join(box.lines)).replace("\n", "\\n")
        return f"{indent}{quoted(box.name)} [label={label}, fillcolor={quoted(COLOURS[box.kind])}];"

    def level(path: str, indent: str) -> list[str]:
        lines = [node(box, indent) for name, box in boxes.items() if _frame(name) == path]
        for number, child in enumerate(sorted(graph.subgraphs)):
            if child and _frame(child) == path:
                lines.append(f"{indent}subgraph cluster_{number} {{")
                lines.append(f"{indent}  label={quoted(child)};")
                lines += level(child, indent + "  ")
                lines.append(f"{indent}}}")
        return lines

    edges = [f"  {quoted(source)} -> {quoted(target)};" for source, target in graph.edges]
    head = [
        "digraph {",
        "  rankdir=LR;",
        '  node [shape=box, style="rounded,filled", fontname=monospace];',
    ]
    return "\n".join([*head, *level("", "  "), *edges, "}\n"])


def mermaid(graph: Graph) -> str:
    """Return the graph in the language of Mermaid, which Markdown pages of code hosts show as a
    picture.
    """
    boxes = _boxes(graph)
    number = {name: f"n{count}" for count, name in enumerate(boxes)}

    def label(box: Box) -> str:
        text = "<br/>".join(escape(line).replace("#", "#35;") for line in box.lines)
        opening, closing = ("([", "])") if box.kind == "port" else ("[", "]")
        return f'{number[box.name]}{opening}"{text}"{closing}:::{box.kind}'

    def level(path: str, indent: str) -> list[str]:
        lines = [indent + label(box) for name, box in boxes.items() if _frame(name) == path]
        for count, child in enumerate(sorted(graph.subgraphs)):
            if child and _frame(child) == path:
                lines.append(f'{indent}subgraph g{count}["{escape(child)}"]')
                lines += level(child, indent + "  ")
                lines.append(f"{indent}end")
        return lines

    edges = [f"  {number[source]} --> {number[target]}" for source, target in graph.edges]
    classes = [f"  classDef {kind} fill:{colour},stroke:#555" for kind, colour in COLOURS.items()]
    return "\n".join(["flowchart LR", *level("", "  "), *edges, *classes]) + "\n"


FORMATS: dict[str, Callable[[Graph], str | bytes]] = {
    ".svg": svg,
    ".png": lambda graph: _drawn(graph, "png"),
    ".pdf": lambda graph: _drawn(graph, "pdf"),
    ".dot": dot,
    ".mmd": mermaid,
}


@suggests_keywords
def graph(graph: Any, *, ax: Any = None) -> Picture:
    """Draw the nodes of a `jaxsnn.Graph` and their edges, from left to right.

    Args:
        ax: Axes of matplotlib to draw on; default: a separate picture.

    Raises:
        UsageError: An object that is not a graph, or `ax` that is not axes.
    """
    refuse_no_graph(graph)
    alt = f"graph of {len(graph.nodes)} nodes and {len(graph.edges)} edges"
    if ax is not None:
        page = _page(graph)
        figure, axes, points = _page_axes(page.size, ax)
        _draw_page(axes, page, points)
        return picture_of(figure, alt)

    def render(kind: str) -> bytes:
        drawn = FORMATS[f".{kind}"](graph)
        return drawn.encode("utf-8") if isinstance(drawn, str) else drawn

    return Picture(alt=alt, render=render, vector=True)


@suggests_keywords
def floorplan(mapping: Any, *, ax: Any = None) -> Picture:
    """Draw the positions of neurons and synapses on the chip and its usage.

    In a notebook and as SVG, a neuron shows its name under the mouse.

    Args:
        mapping: Mapping, or the result of `place_and_route`.
        ax: Axes of matplotlib to draw on; default: a separate picture.

    Raises:
        UsageError: An object of another type.
        MappingError: The search found no mapping.
    """
    from jaxsnn.bss2.floorplan import floorplan as drawn
    from jaxsnn.bss2.mapping import Mapping as ChipMapping
    from jaxsnn.bss2.search.portfolio import Outcome

    if isinstance(mapping, Outcome):
        mapping = mapping.required_mapping
    refuse_type(mapping, ChipMapping, fix="pass the mapping that jaxsnn.place_and_route returns")

    runs = len(mapping.runs)
    alt = f"floorplan of {runs} run{'s' * (runs != 1)} on {mapping.chip.name}"
    document = drawn(mapping)

    def draw_on(ax: Any = None) -> Any:
        figure, axes, points = _page_axes(svg_size(document), ax)
        draw_svg(axes, document, points)
        return figure

    def render(kind: str) -> bytes:
        return (
            document.encode("utf-8") if kind == "svg" else picture_of(draw_on(), alt).render(kind)
        )

    if ax is not None:
        return picture_of(draw_on(ax), alt)
    return Picture(alt=alt, render=render, vector=True)
