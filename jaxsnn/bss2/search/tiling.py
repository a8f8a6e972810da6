"""Tiles the chip: circuits side by side for neurons of given sizes.

Legal shapes are decided here; which neuron gets which tile, a placer decides.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from jaxsnn.bss2.chip import HEMISPHERES, Circuit
from jaxsnn.bss2.search.task import ChipParts


def tile(parts: ChipParts, counts: Sequence[int]) -> list[tuple[Circuit, ...]] | None:
    """Tiles of legal shape for neurons of so many circuits, in order, from the left; None where
    they do not fit.

    A tile is contiguous, stays in one half, and is as even over both hemispheres as the tiles
    before it allow.
    """
    chip, free = parts.chip, parts.circuits.copy()
    tiles: list[tuple[Circuit, ...]] = []
    regions = [
        (half * chip.half_columns, (half + 1) * chip.half_columns) for half in range(chip.halves)
    ]
    starts = [[first, first] for first, _ in regions]
    half = 0
    for count in counts:
        found = None
        while found is None and half < chip.halves:
            found = _take(free, count, starts[half], regions[half])
            half += found is None
        if found is None:
            # a gap that was left
            gaps = (_take(free, count, [first, first], (first, end)) for first, end in regions)
            found = next((gap for gap in gaps if gap is not None), None)
        if found is None:
            return None
        tiles.append(found)
    return tiles


def tile_evenly(parts: ChipParts, counts: Sequence[int]) -> list[tuple[Circuit, ...]] | None:
    """Tiles dealt to the event outputs in turn, each with all its columns on one output; None where
    they do not fit.
    """
    chip, free = parts.chip, parts.circuits.copy()
    width = chip.output_columns
    regions = [(output * width, (output + 1) * width) for output in range(chip.outputs)]
    starts = [[first, first] for first, _ in regions]
    tiles: list[tuple[Circuit, ...]] = []
    turn = 0
    for count in counts:
        for step in range(chip.outputs):
            output = (turn + step) % chip.outputs
            found = _take(free, count, starts[output], regions[output])
            if found is not None:
                tiles.append(found)
                turn = output + 1
                break
        else:
            return None
    return tiles


def _take(
    free: np.ndarray, count: int, start: list[int], region: tuple[int, int]
) -> tuple[Circuit, ...] | None:
    """A tile in a region, which is then no longer free; `start`, where tiles may begin in each row,
    moves on.
    """
    found = _single(free, region) if count == 1 else _block(free, count, start, region[1])
    for row, column in found or ():
        free[row, column] = False
        if count > 1:
            start[row] = max(start[row], column + 1)
    return found


def _single(free: np.ndarray, region: tuple[int, int]) -> tuple[Circuit, ...] | None:
    """The leftmost free circuit of a region."""
    columns, rows = np.nonzero(free[:, slice(*region)].T)
    return ((int(rows[0]), region[0] + int(columns[0])),) if len(rows) else None


def _block(
    free: np.ndarray, count: int, start: Sequence[int], end: int
) -> tuple[Circuit, ...] | None:
    """The tile of `count` circuits that ends leftmost, at or right of `start` in each row."""
    best: tuple[tuple[int, int, int], tuple[Circuit, ...]] | None = None
    for top in sorted(range(count + 1), key=lambda top: (abs(2 * top - count), -top)):
        bottom = count - top
        if best is not None and min(top, bottom) < count // 2 - 1:
            break
        columns = _overlapping(free, (top, bottom), start, end)
        if columns is None:
            continue
        ends = columns[0] + top if top else start[0], columns[1] + bottom if bottom else start[1]
        rank = (max(ends), abs(2 * top - count), abs(ends[0] - ends[1]))
        if best is None or rank < best[0]:
            circuits = [(0, columns[0] + k) for k in range(top)] + [
                (1, columns[1] + k) for k in range(bottom)
            ]
            best = rank, tuple(circuits)
    return None if best is None else best[1]


def _overlapping(
    free: np.ndarray, lengths: Sequence[int], start: Sequence[int], end: int
) -> tuple[int, int] | None:
    """First columns of two stretches of free circuits, one in each row, that share a column (if
    both are there).
    """
    at = [start[0], start[1]]
    while True:
        for row in range(HEMISPHERES):
            if lengths[row]:
                found = _stretch(free[row], lengths[row], at[row], end)
                if found is None:
                    return None
                at[row] = found
        if not all(lengths):
            return at[0], at[1]
        if at[0] + lengths[0] <= at[1]:
            at[0] = at[1] - lengths[0] + 1
        elif at[1] + lengths[1] <= at[0]:
            at[1] = at[0] - lengths[1] + 1
        else:
            return at[0], at[1]


def _stretch(free: np.ndarray, length: int, start: int, end: int) -> int | None:
    """The first column at or right of `start` from which `length` circuits are free."""
    column = start
    while column + length <= end:
        taken = np.flatnonzero(~free[column : column + length])
        if not len(taken):
            return column
        column += int(taken[-1]) + 1
    return None
