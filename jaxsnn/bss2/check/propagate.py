"""Where the events of one run go: crossbar, buses, drivers, rows, labels, columns, neurons."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from jaxsnn.bss2.chip import BOTH, DISABLED, EXCITATORY, HEMISPHERES, INHIBITORY, ROWS_PER_DRIVER, Chip

#: Responses that are summed at a time, so that a mapping in which everything responds needs no more memory.
_CHUNK = 1 << 22


@dataclass(frozen=True, kw_only=True, eq=False)
class Events:
    """The kinds of events of a run, one entry each.

    Attributes:
        sender: global index of the neuron or input channel whose spike it is.
        entry: the crossbar input where it enters.
        address: its address inside the chip, without the link's number.
        recorded: it is the event of a neuron that is to be recorded.
        on_chip: a neuron of this run sends it, not the host.
    """

    sender: np.ndarray
    entry: np.ndarray
    address: np.ndarray
    recorded: np.ndarray
    on_chip: np.ndarray


def passed(events: Events, crossbar: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The pairs of an event and a crossbar output that it leaves by.

    Args:
        events: the events.
        crossbar: (nodes, 4): input, output, mask, target.

    Returns:
        Numbers of events and numbers of outputs, (pairs,) each.
    """
    found, outputs = [], []
    for entry, output, mask, target in crossbar.tolist():
        numbers = np.flatnonzero((events.entry == entry) & (events.address & mask == target))
        found.append(numbers)
        outputs.append(np.full(numbers.size, output))
    empty = np.zeros(0, np.int64)
    return np.concatenate([*found, empty]), np.concatenate([*outputs, empty])


@dataclass(frozen=True, kw_only=True, eq=False)
class Responses:
    """What the synapses of a run add up to.

    Attributes:
        sums: (2, senders, neurons): weight by which a sender's spike excites a neuron, and by which it inhibits it.
        idle: (synapses,) bool: no event makes it respond.
    """

    sums: np.ndarray
    idle: np.ndarray


def responses(
    chip: Chip,
    events: Events,
    arrivals: tuple[np.ndarray, np.ndarray],
    compare_masks: np.ndarray,
    row_modes: np.ndarray,
    synapses: np.ndarray,
    sender_place: np.ndarray,
    neuron_place: np.ndarray,
    shape: tuple[int, int],
) -> Responses:
    """Let all events of a run arrive at all synapses.

    Args:
        chip: the chip.
        events: the events.
        arrivals: pairs of an event and a crossbar output, as `passed` finds them.
        compare_masks, row_modes, synapses: as in `jaxsnn.bss2.mapping.Run`.
        sender_place: (events,) the place of each event's sender in `sums`.
        neuron_place: (hemispheres, columns) the place in `sums` of the neuron at a circuit, -1 where there is none.
        shape: numbers of senders and of neurons.
    """
    keys, senders = _accepted(chip, events, arrivals, compare_masks)
    order = np.argsort(keys, kind="stable")
    keys, senders = keys[order], sender_place[senders[order]]
    hemisphere, row, column, label, weight = synapses.T.astype(np.int64)
    wanted = (hemisphere * chip.drivers + row // ROWS_PER_DRIVER) * chip.labels + label
    mode = row_modes[hemisphere, row]
    first = np.searchsorted(keys, wanted, side="left")
    count = np.where(mode == DISABLED, 0, np.searchsorted(keys, wanted, side="right") - first)
    sums = np.zeros((HEMISPHERES, *shape))
    target = neuron_place[hemisphere, column]
    ends = np.cumsum(count)
    start = 0
    while start < len(ends):
        stop = max(start + 1, int(np.searchsorted(ends, (ends[start - 1] if start else 0) + _CHUNK, side="right")))
        chosen = start + np.flatnonzero((count[start:stop] > 0) & (target[start:stop] >= 0))
        _add(sums, senders, first[chosen], count[chosen], target[chosen], weight[chosen], mode[chosen])
        start = stop
    return Responses(sums=sums.astype(np.int64), idle=count == 0)


def _accepted(
    chip: Chip, events: Events, arrivals: tuple[np.ndarray, np.ndarray], compare_masks: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """For each driver and each event that it accepts: what synapses of its rows compare (driver and label), and the
    number of the event."""
    number, output = arrivals
    to_bus = output < HEMISPHERES * chip.buses
    number, hemisphere, bus = number[to_bus], output[to_bus] // chip.buses, output[to_bus] % chip.buses
    index = np.arange(chip.drivers_per_bus)
    drivers = np.array(
        [[chip.driver_at(part, number) for number in range(chip.drivers_per_bus)] for part in range(chip.buses)]
    )
    driver = drivers[bus]
    address = events.address[number]
    row_select = address >> chip.label_bits & ((1 << chip.row_select_bits) - 1)
    differs = (row_select[:, None] ^ index[None, :]) & compare_masks[hemisphere[:, None], driver]
    which, place = np.nonzero(differs == 0)
    part = hemisphere[which] * chip.drivers + driver[which, place]
    return part * chip.labels + (address[which] & (chip.labels - 1)), number[which]


def _add(sums, senders, first, count, target, weight, mode) -> None:
    """Add what some synapses do; each responds to `count` senders from `first` on."""
    inside = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
    place = senders[np.repeat(first, count) + inside] * sums.shape[2] + np.repeat(target, count)
    for sign, modes in ((0, (EXCITATORY, BOTH)), (1, (INHIBITORY, BOTH))):
        amount = np.repeat(np.where(np.isin(mode, modes), weight, 0), count)
        sums[sign] += np.bincount(place, weights=amount, minlength=sums[sign].size).reshape(sums.shape[1:])
