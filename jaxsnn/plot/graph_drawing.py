"""A picture of a graph: SVG, PNG or PDF, or text for Graphviz (DOT) and Mermaid.

Signals run from left to right; what runs back, a recurrent connection, is an arc below. Nested
graphs are frames.
"""

from __future__ import annotations

import collections
import dataclasses
import os
from collections.abc import Callable, Mapping
from html import escape
from pathlib import Path
from typing import Any

from jaxsnn.errors import UsageError, listing, printable
from jaxsnn.nir.model.graph import Graph
from jaxsnn.nir.model.node import Node
from jaxsnn.nir.model.passes import Shape, shapes, synapses
from jaxsnn.output import refuse_unwritable, write_whole

CHARACTER, LINE, MARGIN = 7.2, 17, 12  # pixels of a monospaced 12 px font
GAP_X, GAP_Y, FRAME = 56, 26, 12
COLOURS = {"port": "#e8e8e8", "linear": "#d6e6f5", "neuron": "#fbdcc0"}
OPEN_END = "?"

#: Of the curve of an edge: (x, y), pixels.
Corners = tuple[tuple[float, float], ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Box:
    """One node as it is drawn: what stands in it, and where (left, top, width, height)."""

    name: str
    kind: str
    lines: tuple[str, ...]
    left: float = 0.0
    top: float = 0.0
    width: float = 0.0
    height: float = 0.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Drawing:
    """What `draw` wrote: the path, and how many nodes and edges are in the picture."""

    output: str
    nodes: int
    edges: int

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        return {"schema": 1, **dataclasses.asdict(self)}

    def as_text(self) -> str:
        """For people."""
        return f"{self.output}: {self.nodes} nodes, {self.edges} edges"


def draw(graph: Graph, path: str | os.PathLike[str], *, force: bool = False) -> Drawing:
    """Write a picture of a graph; the file's ending says which: .svg, .png, .pdf, .dot or .mmd
    (Mermaid).

    Raises:
        UsageError: another ending; or .png or .pdf without matplotlib.
        FileError: the file exists and `force` is false, or cannot be written.
    """
    ending = Path(path).suffix.lower()
    if ending not in FORMATS:
        raise UsageError(
            f"'{path}' ends in '{ending}', which is not a format of pictures of graphs",
            fix=f"name a file that ends in one of {listing(FORMATS)}",
        )
    refuse_unwritable(path, force)
    drawn = FORMATS[ending](graph)
    write_whole(path, printable(drawn) if isinstance(drawn, str) else drawn, force)
    return Drawing(output=os.fspath(path), nodes=len(graph.nodes), edges=len(graph.edges))


def _boxes(graph: Graph) -> dict[str, Box]:
    """The nodes, with what a reader wants to see of each."""
    found, counts = shapes(graph), synapses(graph)
    boxes = {}
    for name, node in graph.nodes.items():
        local = name.rsplit("/", 1)[-1]
        lines = (local, _summary(node, found[name], counts.get(name)))
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
    """Type and size, such as '120 CubaLIF' or 'Linear 5 to 120, 600 synapses'."""
    entering, leaving = (OPEN_END if part is None else "x".join(map(str, part)) for part in shape)
    if node.traits.drawn_as != "linear":
        return f"{leaving} {node.type}"
    text = (
        f"{node.type} {entering} to {leaving}" if entering != leaving else f"{node.type} {leaving}"
    )
    return text if synapse_count is None else f"{text}, {synapse_count} synapses"


def _ranks(graph: Graph) -> dict[str, int]:
    """Column of each node: one more than the furthest column it hears from, edges that run back
    left out.
    """
    place = {name: number for number, name in enumerate(_flow(graph))}
    ranks: dict[str, int] = {}
    for name in place:
        before = [
            ranks[source] for source in graph.predecessors(name) if place[source] < place[name]
        ]
        ranks[name] = max(before, default=-1) + 1
    return ranks


def _flow(graph: Graph) -> list[str]:
    """All nodes, sources before targets; a cycle is entered where the rest of the graph enters it."""
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
    """Boxes with coordinates: columns by rank; within a column in the order of their sources,
    recurrent ones last."""
    boxes, ranks = _boxes(graph), _ranks(graph)
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
    left, row = GAP_X / 2, dict.fromkeys(boxes, 0.0)
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
            boxes[name] = dataclasses.replace(box, left=left + (width - box.width) / 2, top=top)
            row[name] = top + box.height / 2
            top += box.height + nested
        left += width + GAP_X
    return boxes


def _frame(name: str) -> str:
    """Path of the nested graph that a node belongs to."""
    return name.rpartition("/")[0]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Page:
    """A laid out graph: its boxes, frames of nested graphs, and for each edge the corners of its
    curve; `size` in pixels.
    """

    boxes: Mapping[str, Box]
    frames: tuple[tuple[str, Box], ...]
    curves: tuple[Corners, ...]
    size: tuple[float, float]


def _page(graph: Graph) -> Page:
    """Where everything is."""
    boxes = _placed(graph)
    bottom = max((box.top + box.height for box in boxes.values()), default=0.0)
    curves, arcs = [], 0
    for source, target in graph.edges:
        back = boxes[target].left <= boxes[source].left
        arcs += back
        below = bottom + arcs * 12 + FRAME if back else None
        curves.append(_corners(boxes[source], boxes[target], below))
    width = max((box.left + box.width for box in boxes.values()), default=0.0) + GAP_X / 2
    height = bottom + GAP_Y + arcs * 12 + (FRAME if arcs else 0)
    paths = [path for path in sorted(graph.subgraphs) if path]
    frames = [(path, _frame_box(path, boxes)) for path in paths if _inside(path, boxes)]
    return Page(boxes=boxes, frames=tuple(frames), curves=tuple(curves), size=(width, height))


def _inside(path: str, boxes: Mapping[str, Box]) -> list[Box]:
    """The boxes of a nested graph."""
    return [box for name, box in boxes.items() if name.startswith(path + "/")]


def _frame_box(path: str, boxes: Mapping[str, Box]) -> Box:
    """The frame around a nested graph."""
    inside = _inside(path, boxes)
    space = FRAME + 4 * (max(box.name.count("/") for box in inside) - path.count("/") - 1)
    left, top = min(box.left for box in inside) - space, min(box.top for box in inside) - space - 6
    right = max(box.left + box.width for box in inside) + space
    bottom = max(box.top + box.height for box in inside) + space
    return Box(
        name=path,
        kind="frame",
        lines=(path,),
        left=left,
        top=top,
        width=right - left,
        height=bottom - top,
    )


def _corners(source: Box, target: Box, below: float | None) -> Corners:
    """The curve of an edge: four corners; eight for one that runs back `below` the boxes."""
    x1, y1 = source.left + source.width, source.top + source.height / 2
    x2, y2 = target.left, target.top + target.height / 2
    if below is None:
        reach = max((x2 - x1) / 2, 20)
        return (x1, y1), (x1 + reach, y1), (x2 - reach, y2), (x2, y2)
    down = (x1, y1), (x1 + 26, y1), (x1 + 26, below), (x1, below)
    up = (x2, below), (x2 - 26, below), (x2 - 26, y2), (x2, y2)
    return (*down, *up)


def svg(graph: Graph) -> str:
    """The picture as a standalone SVG document."""
    page = _page(graph)
    width, height = page.size
    arrow = '<marker id="arrow" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}" '
            f'viewBox="0 0 {width:.0f} {height:.0f}" font-family="monospace" font-size="12">',
            f'<defs>{arrow}<path d="M0 0L8 4L0 8z" fill="#555"/></marker></defs>',
            f'<rect width="{width:.0f}" height="{height:.0f}" fill="white"/>',
            *(_svg_frame(path, frame) for path, frame in page.frames),
            *(_svg_edge(corners) for corners in page.curves),
            *(_svg_box(box) for box in page.boxes.values()),
            "</svg>\n",
        ]
    )


def _svg_frame(path: str, frame: Box) -> str:
    return (
        f'<rect x="{frame.left:.1f}" y="{frame.top:.1f}" width="{frame.width:.1f}" '
        f'height="{frame.height:.1f}" rx="8" fill="none" stroke="#999" stroke-dasharray="4 3"/>'
        f'<text x="{frame.left + 6:.1f}" y="{frame.top + 11:.1f}" font-size="10" fill="#666">'
        f"{escape(path)}</text>"
    )


def _svg_edge(corners: Corners) -> str:
    said = [f"{x:.1f} {y:.1f}" for x, y in corners]
    path = f"M{said[0]}C{' '.join(said[1:4])}"
    if len(said) > 4:
        path += f"L{said[4]}C{' '.join(said[5:])}"
    return f'<path d="{path}" fill="none" stroke="#555" marker-end="url(#arrow)"/>'


def _drawn(graph: Graph, kind: str) -> bytes:
    """PNG or PDF."""
    from jaxsnn.plot.box_plots import Arrow, Block, boxes_picture

    page = _page(graph)

    def block(box: Box, **how: Any) -> Block:
        return Block(left=box.left, top=box.top, width=box.width, height=box.height, **how)

    frames = [block(frame, fill="#ffffff", dashed=True) for _, frame in page.frames]
    boxes = [
        block(
            box,
            fill=COLOURS[box.kind],
            lines=tuple(printable(line) for line in box.lines),
            rounded=box.kind == "port",
        )
        for box in page.boxes.values()
    ]
    arrows = [Arrow(corners=corners) for corners in page.curves]
    return boxes_picture([*frames, *boxes], arrows, page.size, kind)


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
    """The graph for Graphviz."""
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
    """The graph for Mermaid, which Markdown pages of code hosts show as a picture."""
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
