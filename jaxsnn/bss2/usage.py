"""Resources that a mapping uses, and the number of events on its buses and links."""

from __future__ import annotations

import numpy as np

from jaxsnn.bss2.chip import DISABLED, HEMISPHERES, ROWS_PER_DRIVER, Chip
from jaxsnn.bss2.mapping import Mapping, Run
from jaxsnn.bss2.search.task import ChipParts, usable_parts
from jaxsnn.bss2.traffic import bus_names, nodes_behind, sent_events


def used(mapping: Mapping) -> dict[str, dict[str, int]]:
    """Return the used and the available amount of each resource, in the run that uses most of it;
    dead parts are not available.
    """
    parts = usable_parts(mapping.chip, mapping.dead)
    available = {
        "circuits": int(parts.circuits.sum()),
        "synapse drivers": int(parts.rows.reshape(-1, ROWS_PER_DRIVER).any(axis=1).sum()),
        "synapse rows": int(parts.rows.sum()),
        "synapses": int(parts.rows.sum()) * mapping.chip.columns,
    }
    runs = [_used(run) for run in mapping.runs]
    resources = {
        name: {"used": max((run[name] for run in runs), default=0), "available": number}
        for name, number in available.items()
    }
    return resources | _fullest_bus(mapping, parts)


def _used(run: Run) -> dict[str, int]:
    active = run.row_modes != DISABLED
    return {
        "circuits": sum(len(neuron.circuits) for neuron in run.neurons),
        "synapse drivers": int(active.reshape(-1, ROWS_PER_DRIVER).any(axis=1).sum()),
        "synapse rows": int(active.sum()),
        "synapses": len(run.synapses),
    }


def _fullest_bus(mapping: Mapping, parts: ChipParts) -> dict[str, dict[str, int]]:
    """Return the used and available rows of the bus with the fewest free rows, in any run."""
    chip = mapping.chip
    by_bus = (HEMISPHERES, chip.drivers_per_bus, chip.buses, ROWS_PER_DRIVER)
    available = parts.rows.reshape(by_bus).sum(axis=(1, 3))
    best: tuple[int, str, dict[str, int]] | None = None
    for run in mapping.runs:
        used_rows = (run.row_modes != DISABLED).reshape(by_bus).sum(axis=(1, 3))
        free_rows = available - used_rows
        side, bus = (int(place) for place in np.unravel_index(free_rows.argmin(), free_rows.shape))
        counts = {"used": int(used_rows[side, bus]), "available": int(available[side, bus])}
        if best is None or free_rows.min() < best[0]:
            best = (
                int(free_rows.min()),
                f"rows of bus {bus} {'top' if side == 0 else 'bottom'}",
                counts,
            )
    return {} if best is None else {best[1]: best[2]}


def events_per_spike(run: Run, chip: Chip) -> dict[str, int]:
    """Return the events that each bus and link carries while every neuron and every source of a run
    spikes once.

    A bus or link moves one event in each clock period, so this takes at least as many clock periods.
    """
    labels = bus_names(chip)
    carried = dict.fromkeys(labels[:-1], 0)  # without the last, which is the sum over the links
    nodes = nodes_behind(run)
    for entry, address, link, _ in sent_events(chip, run, lambda population, index: None):
        if link is not None:
            carried[f"link {link} from the host"] += 1
        for output, mask, target in nodes.get(entry, ()):
            carried[labels[output]] += address & mask == target
    return carried
