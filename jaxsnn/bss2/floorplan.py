"""A picture of a mapping as SVG: for each run the neurons, the synapse arrays, the crossbar, and
the used fraction of each resource.

Synapse rows are drawn in the order of their buses, not of their numbers, so that each bus is one
band.
"""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from html import escape

import numpy as np

from jaxsnn.bss2.check.check_mapping import refuse_undrawable
from jaxsnn.bss2.chip import HEMISPHERES, INHIBITORY, ROWS_PER_DRIVER, Chip, crossbar_nodes
from jaxsnn.bss2.mapping import Mapping, PlacedNeuron, Run
from jaxsnn.errors import printable

MARGIN, LEFT, TITLE, STRIP, GAP = 16, 66, 32, 16, 26
BAR_WIDTH, BAR_HEIGHT, BAR_STEP, DOT = 130, 9, 15, 11
SIDE, NUMBERS = 360, 48
#: Distance between two column numbers at the synapse arrays, in columns.
COLUMN_STEP = 32
#: Colours (red, green, blue): no synapse, defective, four strengths of excitatory synapses, and
#: four of inhibitory ones.
PALETTE = (
    (247, 247, 247),
    (60, 60, 60),
    *((253, 204, 178), (251, 152, 110), (232, 92, 54), (179, 35, 15)),
    *((190, 214, 236), (127, 178, 219), (58, 130, 189), (15, 78, 148)),
)
SIGNS = (("excites", PALETTE[2:6]), ("inhibits", PALETTE[6:10]))
#: Colours of populations, in turn: distinguishable for colour-blind readers (Okabe and Ito; Tol),
#: and not in PALETTE.
POPULATIONS = (
    *("#009E73", "#CC79A7", "#F0E442", "#56B4E9", "#882255", "#999933"),
    *("#44AA99", "#AA4499", "#DDCC77", "#117733", "#332288", "#88CCEE"),
)
#: Factor by which a colour is darkened or lightened when it is used again.
SHADE = 0.6
#: Fraction above which a bar is highlighted.
ALMOST_FULL = 0.95
FULL, BAR = "#D55E00", "#0072B2"
EMPTY, GREY, BLACK = "#f0f0f0", "#8a8a8a", "#3c3c3c"


@dataclass(frozen=True, kw_only=True)
class Frame:
    """Sizes of one run's picture: pixels of a column and of a synapse row, and positions of its
    parts.
    """

    chip: Chip
    column: int
    row: int

    @property
    def width(self) -> int:
        """Width of the synapse arrays."""
        return self.chip.columns * self.column

    @property
    def array(self) -> int:
        """Height of one synapse array."""
        return self.chip.rows * self.row

    @property
    def circuits(self) -> int:
        """Vertical position of the two rows of circuits."""
        return TITLE + self.array + GAP

    @property
    def bottom(self) -> int:
        """Vertical position of the bottom synapse array."""
        return self.circuits + HEMISPHERES * STRIP + GAP

    @property
    def height(self) -> int:
        """Height of a run, including the space below it."""
        bars = (2 + HEMISPHERES * self.chip.buses) * BAR_STEP
        crossbar = DOT * (self.chip.crossbar_inputs + 4)
        return max(self.bottom + self.array, TITLE + bars + GAP + crossbar) + GAP


def floorplan(mapping: Mapping) -> str:
    """Return the picture as a standalone SVG document; point at a neuron for its name.

    Raises:
        MappingError: the mapping names parts that the chip lacks.

    >>> from jaxsnn.bss2.chip import NOTHING_DEAD, SMALL
    >>> fields = {"signs": "fixed", "seed": 0, "fingerprint": "", "populations": (), "runs": ()}
    >>> floorplan(Mapping(chip=SMALL, dead=NOTHING_DEAD, **fields)).splitlines()[0][:38]
    '<svg xmlns="http://www.w3.org/2000/svg'
    """
    refuse_undrawable(mapping)
    chip = mapping.chip
    frame = Frame(chip=chip, column=max(3, 240 // chip.columns), row=max(1, 64 // chip.rows))
    width = 2 * MARGIN + LEFT + frame.width + SIDE
    legend = list(_legend(mapping, width))
    top = MARGIN + 2 * BAR_STEP + 20 * (1 + max((y for y, _ in legend), default=0))
    height = top + len(mapping.runs) * frame.height + MARGIN
    runs = f"{len(mapping.runs)} run{'s' * (len(mapping.runs) != 1)}"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="11">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
        _text(MARGIN, MARGIN + 8, f"{chip.name}, {runs}, signs {mapping.signs}", size=15),
        *(element for _, element in legend),
    ]
    for number, run in enumerate(mapping.runs):
        parts.append(f'<g transform="translate({MARGIN} {top + number * frame.height})">')
        parts += _run(mapping, frame, run, number)
        parts.append("</g>")
    return printable("\n".join([*parts, "</svg>\n"]))


def colour(population: int) -> str:
    """Return the colour of a population, hex. The first twelve populations have the basic colours;
    then darker and lighter shades of these follow in turn, so that sixty colours are distinct.
    """
    turn, place = divmod(population, len(POPULATIONS))
    rgb = bytes.fromhex(POPULATIONS[place][1:])
    if turn == 0:
        return POPULATIONS[place]
    # Odd turns approach black and even turns white, each further than the turn of its kind before.
    share = SHADE ** ((turn + 1) // 2)
    end = 0 if turn % 2 else 255
    red, green, blue = (round(end + share * (part - end)) for part in rgb)
    return _hex((red, green, blue))


def _hex(rgb: tuple[int, int, int]) -> str:
    return f"#{rgb[0]:02x}{rgb[1]:02x}{rgb[2]:02x}"


def _text(
    x: float, y: float, text: str, *, size: int = 11, anchor: str = "start", fill: str = "#222"
) -> str:
    place = f'<text x="{x:g}" y="{y:g}" font-size="{size}" text-anchor="{anchor}" fill="{fill}"'
    return f"{place}>{escape(text)}</text>"


def _box(
    x: float, y: float, width: float, height: float, fill: str, title: str = "", stroke: str = ""
) -> str:
    line = f' stroke="{stroke}" stroke-width="0.6"' if stroke else ""
    place = f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" fill="{fill}"{line}'
    return f"{place}><title>{escape(title)}</title></rect>" if title else f"{place}/>"


def _legend(mapping: Mapping, width: int) -> Iterator[tuple[int, str]]:
    """Yield line and element of each entry: populations, then the meaning of the colours of
    synapses.
    """
    entries: list[tuple[tuple[str, ...], str]] = [
        (
            ("none" if population.external else colour(number),),
            f"{population.name} ({population.size}{' inputs' if population.external else ''})",
        )
        for number, population in enumerate(mapping.populations)
    ]
    weight = np.arange(1, mapping.chip.weight_max + 1)
    shade = _shade(weight, mapping.chip)
    by_shade = [weight[shade == number] for number in range(4)]
    ranges = ", ".join(f"{weights[0]}-{weights[-1]}" for weights in by_shade if weights.size)
    for text, shades in SIGNS:
        fills = tuple(_hex(rgb) for rgb in shades)
        entries.append((fills, f"{text}: weights {ranges}"))
    entries.append(((_hex(PALETTE[1]),), "dead"))
    entries.append(((FULL,), f"utilisation above {ALMOST_FULL:.0%}"))
    x, y = MARGIN, 0
    for fills, text in entries:
        needed = 20 + 12 * len(fills) + round(6.4 * len(text))
        if x > MARGIN and x + needed > width:
            x, y = MARGIN, y + 1
        top = MARGIN + 22 + 20 * y
        boxes = "".join(
            _box(x + 12 * number, top, 12, 12, fill, stroke=GREY)
            for number, fill in enumerate(fills)
        )
        yield y, boxes + _text(x + 12 * len(fills) + 5, top + 10, text)
        x += needed


def _shade(weight: np.ndarray, chip: Chip) -> np.ndarray:
    """Return the one of four shades in which a weight is drawn."""
    return np.clip(4 * (weight - 1) // chip.weight_max, 0, 3)


def _run(mapping: Mapping, frame: Frame, run: Run, number: int) -> Iterator[str]:
    yield _text(0, 12, f"run {number}: {run.summary}", size=13)
    image = synapse_image(mapping, run)
    for hemisphere, top in ((0, TITLE), (1, frame.bottom)):
        data = base64.b64encode(png(image[hemisphere])).decode()
        yield (
            f'<image x="{LEFT}" y="{top}" width="{frame.width}" height="{frame.array}" '
            'preserveAspectRatio="none" style="image-rendering:pixelated" '
            f'href="data:image/png;base64,{data}"/>'
        )
        yield from _bands(frame, hemisphere, top)
        yield from _numbers(frame, top)
    yield from _circuits(mapping, frame, run)
    yield f'<g transform="translate({LEFT + frame.width + NUMBERS} {TITLE})">'
    yield from _bars(mapping, run)
    yield from _crossbar(frame.chip, run)
    yield "</g>"


def synapse_image(mapping: Mapping, run: Run) -> np.ndarray:
    """Return (hemispheres, rows, columns) uint8 indices of `PALETTE`; rows in the order of their
    buses.
    """
    chip = mapping.chip
    image = np.zeros((HEMISPHERES, chip.rows, chip.columns), np.uint8)
    for hemisphere, row in sorted(mapping.dead.unusable_rows()):
        image[hemisphere, row] = 1
    side, row, column, _, weight = run.synapses.T
    inhibits = run.row_modes[side, row] == INHIBITORY
    image[side, row, column] = 2 + 4 * inhibits + _shade(weight, chip)
    return image[:, bus_order(chip)]


def bus_order(chip: Chip) -> np.ndarray:
    """Return the synapse rows, (rows,), bus by bus."""
    bus = np.array([chip.driver_bus(row // ROWS_PER_DRIVER) for row in range(chip.rows)])
    return np.argsort(bus, kind="stable")


def png(image: np.ndarray) -> bytes:
    """Return an image as a PNG file; its pixels (height, width) are indices of `PALETTE`."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    height, width = image.shape
    lines = np.hstack([np.zeros((height, 1), np.uint8), image]).tobytes()
    return b"".join(
        [
            b"\x89PNG\r\n\x1a\n",
            chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)),
            chunk(b"PLTE", bytes(value for rgb in PALETTE for value in rgb)),
            chunk(b"IDAT", zlib.compress(lines, 9)),
            chunk(b"IEND", b""),
        ]
    )


def _bands(frame: Frame, hemisphere: int, top: int) -> Iterator[str]:
    """Yield the names of the buses beside a synapse array, and lines between them."""
    chip = frame.chip
    band = chip.rows_per_bus * frame.row
    for bus in range(chip.buses):
        yield _text(LEFT - 6, top + (bus + 0.5) * band + 4, f"bus {bus}", anchor="end")
        if bus:
            yield _box(LEFT, top + bus * band - 0.5, frame.width, 1, GREY)
    yield _text(0, top + 10, "top" if hemisphere == 0 else "bottom", fill=GREY)
    yield (
        f'<rect x="{LEFT}" y="{top}" width="{frame.width}" height="{frame.array}" fill="none" '
        f'stroke="{GREY}" stroke-width="0.6"/>'
    )


def _numbers(frame: Frame, top: int) -> Iterator[str]:
    """Yield the numbers of columns above a synapse array, and of the first and last row of each bus
    beside it.
    """
    chip = frame.chip
    columns = [*range(0, chip.columns, COLUMN_STEP), chip.columns - 1]
    for column in columns:
        x = LEFT + (column + 0.5) * frame.column
        yield _text(x, top - 3, str(column), size=8, anchor="middle", fill=GREY)
    right = LEFT + frame.width + 4
    order = bus_order(chip)
    for bus in range(chip.buses):
        rows = order[bus * chip.rows_per_bus : (bus + 1) * chip.rows_per_bus]
        begin = top + bus * chip.rows_per_bus * frame.row
        yield _text(right, begin + 8, f"row {rows[0]}", size=8, fill=GREY)
        end = begin + chip.rows_per_bus * frame.row
        yield _text(right, end - 2, f"row {rows[-1]}", size=8, fill=GREY)


def _circuits(mapping: Mapping, frame: Frame, run: Run) -> Iterator[str]:
    """Yield the two rows of circuits, and the event outputs that they share."""
    chip, top = frame.chip, frame.circuits
    for row in range(HEMISPHERES):
        yield _box(LEFT, top + row * STRIP, frame.width, STRIP, EMPTY, stroke=GREY)
    for neuron in run.neurons:
        yield _neuron(mapping, frame, neuron)
    for row, column in mapping.dead.circuits:
        yield _box(
            LEFT + column * frame.column,
            top + row * STRIP,
            frame.column,
            STRIP,
            BLACK,
            f"dead ({row}, {column})",
        )
    output_width = chip.output_columns * frame.column
    for output in range(chip.outputs):
        x = LEFT + output * output_width
        yield _text(
            x + output_width / 2, top - 6, f"output {output}", size=9, anchor="middle", fill=GREY
        )
        if output:
            thick = 2 if output % chip.buses == 0 else 1
            yield _box(
                x - thick / 2,
                top - 4,
                thick,
                HEMISPHERES * STRIP + 8,
                BLACK if thick == 2 else GREY,
            )
    yield _text(LEFT - 6, top + STRIP + 4, "neurons", anchor="end")


def _neuron(mapping: Mapping, frame: Frame, neuron: PlacedNeuron) -> str:
    """Return one path over all circuits of a neuron, with a dot on the circuit that fires."""
    size, top = frame.column, frame.circuits
    places = [(LEFT + column * size, top + row * STRIP) for row, column in neuron.circuits]
    path = "".join(f"M{x} {y}h{size}v{STRIP}h-{size}z" for x, y in places)
    x, y = places[neuron.head]
    name = f"{mapping.populations[neuron.population].name}[{neuron.index}]"
    shape = f"{len(places)} circuit{'s' * (len(places) > 1)}, address {neuron.address}"
    return (
        f'<g fill="{colour(neuron.population)}">'
        f'<path d="{path}" stroke="white" stroke-width="0.4"/>'
        f'<circle cx="{x + size / 2:g}" cy="{y + STRIP / 2:g}" r="1.1" fill="#222"/>'
        f"<title>{escape(f'{name}: {shape}')}</title></g>"
    )


def _bars(mapping: Mapping, run: Run) -> Iterator[str]:
    """Yield bars of the utilisation of the chip: circuits, synapses, and the rows of each bus."""
    for number, (name, used, available) in enumerate(utilisation(mapping, run)):
        y = number * BAR_STEP
        share = min(used / available, 1.0) if available else 0.0
        yield _text(0, y + BAR_HEIGHT, name)
        yield _box(92, y, BAR_WIDTH, BAR_HEIGHT, EMPTY, stroke=GREY)
        yield _box(92, y, BAR_WIDTH * share, BAR_HEIGHT, FULL if share > ALMOST_FULL else BAR)
        yield _text(92 + BAR_WIDTH + 6, y + BAR_HEIGHT, f"{used} of {available}", size=10)


def utilisation(mapping: Mapping, run: Run) -> list[tuple[str, int, int]]:
    """Return (name, number in use, number available) of each resource of a run. A synapse row is in
    use if it has a synapse.
    """
    chip = mapping.chip
    usable = np.ones((HEMISPHERES, chip.rows), bool)
    for place in sorted(mapping.dead.unusable_rows()):
        usable[place] = False
    used = np.zeros((HEMISPHERES, chip.rows), bool)
    used[run.synapses[:, 0], run.synapses[:, 1]] = True
    order = bus_order(chip).reshape(chip.buses, -1)
    circuits = sum(len(neuron.circuits) for neuron in run.neurons)
    resources = [
        ("circuits", circuits, chip.circuits - len(set(mapping.dead.circuits))),
        ("synapses", len(run.synapses), int(usable.sum()) * chip.columns),
    ]
    for hemisphere, side in enumerate(("top", "bottom")):
        for bus in range(chip.buses):
            rows = order[bus]
            counts = int(used[hemisphere, rows].sum()), int(usable[hemisphere, rows].sum())
            resources.append((f"rows {side} {bus}", *counts))
    return resources


def _crossbar(chip: Chip, run: Run) -> Iterator[str]:
    """Yield a dot for each node: full where all events pass, a ring where a filter decides, a point
    where none passes.
    """
    top = (2 + HEMISPHERES * chip.buses) * BAR_STEP + GAP
    yield _text(0, top, "crossbar nodes: disc = passes all events, ring = filters, dot = blocks")
    margin = 92
    groups = ("top", "bottom", "host")
    for group in range(HEMISPHERES + 1):
        x = margin + (group + 0.5) * chip.buses * DOT + group * 6
        yield _text(x, top + DOT + 4, groups[group], size=9, anchor="middle", fill=GREY)
    labels = [f"output {number}" for number in range(chip.outputs)]
    labels += [f"host {number}" for number in range(chip.buses)]
    labels += [f"generator {number}" for number in range(chip.background_generators)]
    for entry, name in enumerate(labels):
        yield _text(
            margin - 8, top + DOT * (entry + 2.4) + 3, name, size=9, anchor="end", fill=GREY
        )
    for (entry, output), (_, _, mask, target) in zip(
        crossbar_nodes(chip), run.crossbar.tolist(), strict=True
    ):
        x = margin + (output + 0.5) * DOT + output // chip.buses * 6
        y = top + DOT * (entry + 2.4)
        closed = target & ~mask
        radius, fill = (1.2, GREY) if closed else (3.6, BAR if mask == 0 else "white")
        line = "" if closed else f' stroke="{BAR}"'
        yield f'<circle cx="{x:g}" cy="{y:g}" r="{radius}" fill="{fill}"{line}/>'
