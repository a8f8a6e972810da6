"""What one run of a mapping says of the chip's parts: that they exist, are alive, and are used
once.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from jaxsnn.bss2.chip import (
    EXCITATORY,
    HEMISPHERES,
    INHIBITORY,
    ROW_MODES,
    Chip,
    Circuit,
    Dead,
    crossbar_nodes,
)
from jaxsnn.bss2.mapping import Mapping, PlacedNeuron, Run
from jaxsnn.errors import Problem


def array_violations(chip: Chip, run: Run, where: str) -> Iterator[Problem]:
    """Arrays of a wrong shape: nothing else can be said of such a run."""
    expected = {
        "compare_masks": (HEMISPHERES, chip.drivers),
        "row_modes": (HEMISPHERES, chip.rows),
        "synapses": (len(run.synapses), 5),
        "crossbar": (len(crossbar_nodes(chip)), 4),
    }
    for name, shape in expected.items():
        array = getattr(run, name)
        if array.shape != shape or array.dtype.kind != "i":
            message = (
                f"{name} is {array.dtype} of shape {array.shape}, not integers of shape {shape}"
            )
            yield Problem(code="bad-shape", node=where, message=message)


def neuron_violations(
    mapping: Mapping, run: Run, names: dict[int, str], where: str
) -> Iterator[Problem]:
    """Circuits, shapes, heads and addresses of a run's neurons; `names` by position in the run."""
    chip, dead = mapping.chip, frozenset(mapping.dead.circuits)
    owner: dict[Circuit, str] = {}
    addresses: dict[int, str] = {}
    for number, neuron in enumerate(run.neurons):
        name = names[number]
        here = f"{where}: {name}"
        yield from _shape_violations(chip, neuron, here)
        for circuit in neuron.circuits:
            if circuit in dead:
                yield Problem(code="dead-circuit", node=here, message=f"circuit {circuit} is dead")
            if circuit in owner:
                message = f"circuit {circuit} is also one of {owner[circuit]}"
                yield Problem(code="overlap", node=here, message=message)
            owner[circuit] = name
        largest = (1 << chip.address_bits) - 1
        if not 0 <= neuron.address <= largest:
            message = f"its address is {neuron.address}, addresses are 0 to {largest}"
            yield Problem(code="bad-address", node=here, message=message)
        elif head_exists(chip, neuron):
            event = chip.neuron_event(neuron.circuits[neuron.head][1], neuron.address)
            if event in addresses:
                message = f"its events have the address {event} of those of {addresses[event]}"
                yield Problem(code="same-address", node=here, message=message)
            addresses[event] = name


def head_exists(chip: Chip, neuron: PlacedNeuron) -> bool:
    """Whether a neuron has a circuit that can fire."""
    return 0 <= neuron.head < len(neuron.circuits) and on_chip(chip, neuron.circuits[neuron.head])


def on_chip(chip: Chip, circuit: Circuit) -> bool:
    """Whether a circuit exists."""
    return 0 <= circuit[0] < HEMISPHERES and 0 <= circuit[1] < chip.columns


def _shape_violations(chip: Chip, neuron: PlacedNeuron, where: str) -> Iterator[Problem]:
    circuits = neuron.circuits
    if not circuits:
        yield Problem(
            code="no-circuit", node=where, message="it has no circuit, it needs at least 1"
        )
        return
    absent = [circuit for circuit in circuits if not on_chip(chip, circuit)]
    for circuit in absent:
        message = f"circuit {circuit} does not exist, the chip has 2 rows of {chip.columns}"
        yield Problem(code="no-such-circuit", node=where, message=message)
    if not 0 <= neuron.head < len(circuits):
        message = f"its head is circuit number {neuron.head} of {len(circuits)}"
        yield Problem(code="bad-head", node=where, message=message)
    if absent:
        return
    halves = sorted({chip.half_of(column) for _, column in circuits})
    if len(halves) > 1:
        message = (
            f"its circuits are in {len(halves)} halves of the chip, which cannot be connected over "
            "the border"
        )
        yield Problem(code="over-border", node=where, message=message)
    reached, waiting = {circuits[0]}, [circuits[0]]
    while waiting:
        row, column = waiting.pop()
        for near in ((1 - row, column), (row, column - 1), (row, column + 1)):
            if near in circuits and near not in reached:
                reached.add(near)
                waiting.append(near)
    if len(reached) < len(set(circuits)):
        message = f"only {len(reached)} of its {len(set(circuits))} circuits are side by side"
        yield Problem(code="not-connected", node=where, message=message)


def event_violations(
    mapping: Mapping, run: Run, names: dict[int, str], where: str
) -> Iterator[Problem]:
    """Addresses of the events that the host sends; `names` by position among the run's sources."""
    chip = mapping.chip
    largest = (chip.buses << chip.event_bits) - 1
    taken: dict[int, str] = {}
    for number, source in enumerate(run.sources):
        here = f"{where}: {names[number]}"
        for event in source.events:
            if not 0 <= event <= largest:
                message = f"the host sends the event {event}, addresses are 0 to {largest}"
                yield Problem(code="bad-event", node=here, message=message)
            if event in taken:
                message = f"the event {event} is also sent for {taken[event]}"
                yield Problem(code="same-event", node=here, message=message)
            taken[event] = names[number]


def setting_violations(chip: Chip, run: Run, where: str) -> Iterator[Problem]:
    """Masks and modes that do not exist, and crossbar nodes other than those of the chip."""
    largest = (1 << chip.row_select_bits) - 1
    for hemisphere, driver in np.argwhere(
        (run.compare_masks < 0) | (run.compare_masks > largest)
    ).tolist():
        message = (
            f"its compare mask is {run.compare_masks[hemisphere, driver]}, masks are 0 to {largest}"
        )
        yield Problem(
            code="bad-mask", node=f"{where}: driver ({hemisphere}, {driver})", message=message
        )
    for hemisphere, row in np.argwhere(
        (run.row_modes < 0) | (run.row_modes >= len(ROW_MODES))
    ).tolist():
        message = (
            f"its mode is {run.row_modes[hemisphere, row]}, modes are 0 to {len(ROW_MODES) - 1}"
        )
        yield Problem(code="bad-mode", node=f"{where}: row ({hemisphere}, {row})", message=message)
    largest = (1 << chip.event_bits) - 1
    for (*node, mask, target), exists in zip(
        run.crossbar.tolist(), crossbar_nodes(chip), strict=True
    ):
        here = f"{where}: crossbar node {tuple(node)}"
        if tuple(node) != exists:
            message = f"it stands where the chip has the node {exists}"
            yield Problem(code="bad-node", node=here, message=message)
        if not (0 <= mask <= largest and 0 <= target <= largest):
            message = f"its filter is ({mask}, {target}), both are 0 to {largest}"
            yield Problem(code="bad-filter", node=here, message=message)


def existing(chip: Chip, run: Run) -> np.ndarray:
    """(synapses,) bool: synapses that the chip has."""
    limits = (HEMISPHERES, chip.rows, chip.columns, chip.labels)
    return np.all((run.synapses[:, :4] >= 0) & (run.synapses[:, :4] < limits), axis=1)


def synapse_violations(
    mapping: Mapping, run: Run, placed: np.ndarray, where: str
) -> Iterator[Problem]:
    """Synapses that do not exist, come twice, are dead, have no neuron or no legal weight.

    Args:
        mapping: the mapping.
        run: the run.
        placed: (hemispheres, columns) bool: a neuron has the circuit.
        where: the run, for messages.
    """
    chip, table = mapping.chip, run.synapses
    exists = existing(chip, run)
    for hemisphere, row, column, label, _ in table[~exists].tolist():
        message = (
            f"it has label {label}, the chip has {chip.rows} x {chip.columns} synapses in each "
            f"hemisphere, and {chip.labels} labels"
        )
        yield Problem(
            code="no-such-synapse", node=_synapse(where, hemisphere, row, column), message=message
        )
    for hemisphere, row, column, _, weight in table[
        (table[:, 4] < 1) | (table[:, 4] > chip.weight_max)
    ].tolist():
        message = f"its weight is {weight}, weights are 1 to {chip.weight_max}"
        yield Problem(
            code="bad-weight", node=_synapse(where, hemisphere, row, column), message=message
        )
    table = table[exists]
    place = (table[:, 0] * chip.rows + table[:, 1]) * chip.columns + table[:, 2]
    values, counts = np.unique(place, return_counts=True)
    for value, count in zip(values[counts > 1].tolist(), counts[counts > 1].tolist(), strict=True):
        hemisphere, row, column = np.unravel_index(value, (HEMISPHERES, chip.rows, chip.columns))
        message = f"it is listed {count} times"
        yield Problem(
            code="synapse-twice", node=_synapse(where, hemisphere, row, column), message=message
        )
    unusable = np.zeros((HEMISPHERES, chip.rows), bool)
    for hemisphere, row in sorted(mapping.dead.unusable_rows()):
        unusable[hemisphere, row] = True
    for code, bad, message in (
        ("dead-row", unusable[table[:, 0], table[:, 1]], "its row or its driver is dead"),
        ("no-neuron", ~placed[table[:, 0], table[:, 2]], "no neuron has the circuit of its column"),
    ):
        for hemisphere, row, column in table[bad, :3].tolist():
            yield Problem(code=code, node=_synapse(where, hemisphere, row, column), message=message)
    if mapping.signs == "free":
        yield from _sign_violations(chip, run.row_modes, table, unusable, where)


def _sign_violations(
    chip: Chip, row_modes: np.ndarray, table: np.ndarray, unusable: np.ndarray, where: str
) -> Iterator[Problem]:
    """Synapses whose sign could not be flipped by moving their weight to the driver's other row."""
    hemisphere, row, column = table[:, :3].T
    used = np.zeros((HEMISPHERES, chip.rows, chip.columns), bool)
    used[hemisphere, row, column] = True
    mode, other = row_modes[hemisphere, row], row_modes[hemisphere, row ^ 1]
    opposite = (mode == EXCITATORY) & (other == INHIBITORY) | (mode == INHIBITORY) & (
        other == EXCITATORY
    )
    for code, bad, message in (
        (
            "sign-not-free",
            ~opposite,
            "signs are free, and the driver's other row does not have the opposite sign",
        ),
        (
            "sign-not-free",
            used[hemisphere, row ^ 1, column],
            "signs are free, and its partner is a synapse too",
        ),
        (
            "sign-not-free",
            unusable[hemisphere, row ^ 1],
            "signs are free, and the driver's other row is dead",
        ),
    ):
        for place in np.flatnonzero(bad).tolist():
            yield Problem(
                code=code, node=_synapse(where, *table[place, :3].tolist()), message=message
            )


def dead_violations(chip: Chip, dead: Dead) -> Iterator[Problem]:
    """Dead parts that the chip does not have."""
    kinds = (("circuit", dead.circuits, chip.columns), ("driver", dead.drivers, chip.drivers))
    for kind, parts, size in (*kinds, ("row", dead.rows, chip.rows)):
        for part in parts:
            if not (0 <= part[0] < HEMISPHERES and 0 <= part[1] < size):
                message = (
                    f"dead {kind} {part} does not exist, the chip has {size} in each hemisphere"
                )
                yield Problem(code="no-such-part", node="mapping", message=message)


def _synapse(where: str, hemisphere: int, row: int, column: int) -> str:
    return f"{where}: synapse ({int(hemisphere)}, {int(row)}, {int(column)})"
