"""Propagation of one run's events through crossbar, buses, drivers, rows, labels and columns to
neurons.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from jaxsnn.bss2.check.legality import head_exists
from jaxsnn.bss2.chip import (
    BOTH,
    DISABLED,
    EXCITATORY,
    HEMISPHERES,
    INHIBITORY,
    ROWS_PER_DRIVER,
    Chip,
)
from jaxsnn.bss2.mapping import Run

if TYPE_CHECKING:
    from jaxsnn.network.array_types import Float, Int

#: Maximum number of responses that are summed at a time, to limit memory even if every synapse
#: responds.
_CHUNK = 1 << 22


@dataclass(frozen=True, kw_only=True, eq=False)
class ChipEvents:
    """Kinds of events of a run, one entry each.

    Attributes:
        sender: global index of the neuron or input channel that sends the event.
        entry: crossbar input at which the event enters.
        address: address of the event inside the chip, without the number of the link.
        recorded: whether it is an event of a neuron that must be recorded.
    """

    sender: np.ndarray
    entry: np.ndarray
    address: np.ndarray
    recorded: np.ndarray


def events_of(chip: Chip, run: Run, neurons: np.ndarray, sources: np.ndarray) -> ChipEvents:
    """Return the events of a run that have an address, those of neurons first.

    Args:
        chip: the chip.
        run: the run.
        neurons, sources: number of each of the run's neurons and sources, for `ChipEvents.sender`;
            -1 for none.
    """
    entries = []
    for neuron, number in zip(run.neurons, neurons.tolist(), strict=True):
        if (
            number >= 0
            and head_exists(chip, neuron)
            and 0 <= neuron.address < 1 << chip.address_bits
        ):
            column = neuron.circuits[neuron.head][1]
            address = chip.neuron_event(column, neuron.address)
            entries.append((number, chip.output_of(column), address, neuron.recorded))
    for source, number in zip(run.sources, sources.tolist(), strict=True):
        for event in source.events if number >= 0 else ():
            if 0 <= event < chip.buses << chip.event_bits:
                address = event % (1 << chip.event_bits)
                entries.append((number, chip.link_input(chip.link_of(event)), address, False))
    table = np.array(entries, np.int64).reshape(-1, 4)
    return ChipEvents(
        sender=table[:, 0],
        entry=table[:, 1],
        address=table[:, 2],
        recorded=table[:, 3] > 0,
    )


def passed(events: ChipEvents, crossbar: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the pairs of an event and a crossbar output through which it leaves.

    Args:
        events: the events.
        crossbar: (nodes, 4): input, output, mask, target.

    Returns:
        Numbers of events and numbers of outputs, (pairs,) each.
    """
    event_numbers, outputs = [], []
    for entry, output, mask, target in crossbar.tolist():
        numbers = np.flatnonzero((events.entry == entry) & (events.address & mask == target))
        event_numbers.append(numbers)
        outputs.append(np.full(numbers.size, output))
    empty = np.zeros(0, np.int64)
    return np.concatenate([*event_numbers, empty]), np.concatenate([*outputs, empty])


@dataclass(frozen=True, kw_only=True, eq=False)
class Responses:
    """Sums of the weights with which the synapses of a run respond.

    Attributes:
        sums: (2, senders, neurons): weight by which a sender's spike excites a neuron, and by which
            it inhibits it.
        idle: (synapses,) bool: no event makes it respond.
    """

    sums: np.ndarray
    idle: np.ndarray


def responses(
    chip: Chip,
    events: ChipEvents,
    arrivals: tuple[np.ndarray, np.ndarray],
    run: Run,
    sender_place: np.ndarray,
    neuron_place: np.ndarray,
    shape: tuple[int, int],
) -> Responses:
    """Compute the responses of all synapses to all events of a run.

    Args:
        chip: the chip.
        events: the events.
        arrivals: pairs of an event and a crossbar output, as `passed` finds them.
        run: the run; all its synapses exist.
        sender_place: (events,) the place of each event's sender in `sums`.
        neuron_place: (hemispheres, columns) the place in `sums` of the neuron at a circuit, -1
            where there is none.
        shape: numbers of senders and of neurons.
    """
    received, first, count = listening(chip, events, arrivals, run)
    senders = sender_place[received]
    hemisphere, row, column, _, weight = run.synapses.T.astype(np.int64)
    mode = run.row_modes[hemisphere, row]
    sums = np.zeros((HEMISPHERES, *shape))
    target = neuron_place[hemisphere, column]
    ends = np.cumsum(count)
    start = 0
    while start < len(ends):
        most = ends[start] - count[start] + _CHUNK
        stop = max(start + 1, int(np.searchsorted(ends, most, side="right")))
        chosen = start + np.flatnonzero((count[start:stop] > 0) & (target[start:stop] >= 0))
        _add(
            sums,
            senders,
            first[chosen],
            count[chosen],
            target[chosen],
            weight[chosen],
            mode[chosen],
        )
        start = stop
    return Responses(sums=sums.astype(np.int64), idle=count == 0)


def listening(
    chip: Chip,
    events: ChipEvents,
    arrivals: tuple[np.ndarray, np.ndarray],
    run: Run,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the events that each synapse responds to.

    Args:
        chip: the chip.
        events: the events.
        arrivals: pairs of an event and a crossbar output, as `passed` finds them.
        run: the run; all its synapses exist.

    Returns:
        Numbers of events; and for each synapse, (synapses,) each, the position of its first event in
        them, and the number of its events.
    """
    keys, numbers = _accepted(chip, events, arrivals, run.compare_masks)
    order = np.argsort(keys, kind="stable")
    keys = keys[order]
    hemisphere, row, _, label, _ = run.synapses.T.astype(np.int64)
    synapse_keys = (hemisphere * chip.drivers + row // ROWS_PER_DRIVER) * chip.labels + label
    first = np.searchsorted(keys, synapse_keys, side="left")
    last = np.searchsorted(keys, synapse_keys, side="right")
    count = np.where(run.row_modes[hemisphere, row] == DISABLED, 0, last - first)
    return numbers[order], first, count


def _accepted(
    chip: Chip,
    events: ChipEvents,
    arrivals: tuple[np.ndarray, np.ndarray],
    compare_masks: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Return two arrays over all pairs of a driver and an event that the driver accepts: the key that
    the synapses of its rows compare (driver and label), and the index of the event.
    """
    number, output = arrivals
    # Outputs that the chip does not have are reported as other violations.
    to_bus = (output >= 0) & (output < HEMISPHERES * chip.buses)
    number, hemisphere, bus = (
        number[to_bus],
        output[to_bus] // chip.buses,
        output[to_bus] % chip.buses,
    )
    index = np.arange(chip.drivers_per_bus)
    drivers = np.array(
        [
            [chip.driver_at(part, number) for number in range(chip.drivers_per_bus)]
            for part in range(chip.buses)
        ]
    )
    driver = drivers[bus]
    address = events.address[number]
    row_select = address >> chip.label_bits & ((1 << chip.row_select_bits) - 1)
    differs = (row_select[:, None] ^ index[None, :]) & compare_masks[hemisphere[:, None], driver]
    which, place = np.nonzero(differs == 0)
    part = hemisphere[which] * chip.drivers + driver[which, place]
    return part * chip.labels + (address[which] & (chip.labels - 1)), number[which]


def _add(
    sums: Float[np.ndarray, "signs senders neurons"],
    senders: Int[np.ndarray, "received"],
    first: Int[np.ndarray, "synapses"],
    count: Int[np.ndarray, "synapses"],
    target: Int[np.ndarray, "synapses"],
    weight: Int[np.ndarray, "synapses"],
    mode: Int[np.ndarray, "synapses"],
) -> None:
    """Add the weights of some synapses to the sums; each responds to `count` senders from `first`
    on.
    """
    inside = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
    place = senders[np.repeat(first, count) + inside] * sums.shape[2] + np.repeat(target, count)
    for sign, modes in ((0, (EXCITATORY, BOTH)), (1, (INHIBITORY, BOTH))):
        amount = np.repeat(np.where(np.isin(mode, modes), weight, 0), count)
        sums[sign] += np.bincount(place, weights=amount, minlength=sums[sign].size).reshape(
            sums.shape[1:]
        )
