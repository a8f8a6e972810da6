"""Checks of a mapping without events: its chip parts exist, work and are used once; its runs are
complete and in order.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

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
from jaxsnn.bss2.mapping import Mapping, PlacedNeuron, Run, Source
from jaxsnn.bss2.netlist import Netlist
from jaxsnn.errors import Problem
from jaxsnn.wording import Text


def array_violations(chip: Chip, run: Run, location: str) -> Iterator[Problem]:
    """Yield arrays of a wrong shape; such a run cannot be checked further."""
    expected = {
        "compare_masks": (HEMISPHERES, chip.drivers),
        "row_modes": (HEMISPHERES, chip.rows),
        "synapses": (len(run.synapses), 5),
        "crossbar": (len(crossbar_nodes(chip)), 4),
    }
    for name, shape in expected.items():
        array = getattr(run, name)
        if array.shape != shape or array.dtype.kind != "i":
            message = Text(
                "{array} has dtype {dtype} and shape {shape}; it must contain integers of shape "
                "{expected}",
                array=name,
                dtype=array.dtype,
                shape=array.shape,
                expected=shape,
            )
            yield Problem(code="bad-shape", node=location, message=message)


def neuron_violations(
    mapping: Mapping, run: Run, neuron_names: dict[int, str], location: str
) -> Iterator[Problem]:
    """Yield problems of a run's neurons: circuits, shapes, heads, addresses; `neuron_names` by position."""
    chip, dead = mapping.chip, frozenset(mapping.dead.circuits)
    owner: dict[Circuit, str] = {}
    addresses: dict[int, str] = {}
    for number, neuron in enumerate(run.neurons):
        name = neuron_names[number]
        here = f"{location}: {name}"
        yield from _shape_violations(chip, neuron, here)
        for circuit in neuron.circuits:
            if circuit in dead:
                yield Problem(
                    code="dead-circuit",
                    node=here,
                    message=Text("circuit {circuit} is dead", circuit=circuit),
                )
            if circuit in owner:
                message = Text(
                    "circuit {circuit} also belongs to {owner}",
                    circuit=circuit,
                    owner=owner[circuit],
                )
                yield Problem(code="overlap", node=here, message=message)
            owner[circuit] = name
        largest = (1 << chip.address_bits) - 1
        if not 0 <= neuron.address <= largest:
            message = Text(
                "its address is {address}; addresses are 0 to {maximum}",
                address=neuron.address,
                maximum=largest,
            )
            yield Problem(code="bad-address", node=here, message=message)
        elif head_exists(chip, neuron):
            event = chip.neuron_event(neuron.circuits[neuron.head][1], neuron.address)
            if event in addresses:
                message = Text(
                    "its events and those of {neuron} have the same address, {address}",
                    address=event,
                    neuron=addresses[event],
                )
                yield Problem(code="same-address", node=here, message=message)
            addresses[event] = name


def head_exists(chip: Chip, neuron: PlacedNeuron) -> bool:
    """Return whether a neuron has a circuit that can fire."""
    return 0 <= neuron.head < len(neuron.circuits) and on_chip(chip, neuron.circuits[neuron.head])


def on_chip(chip: Chip, circuit: Circuit) -> bool:
    """Return whether a circuit exists."""
    return 0 <= circuit[0] < HEMISPHERES and 0 <= circuit[1] < chip.columns


def _shape_violations(chip: Chip, neuron: PlacedNeuron, location: str) -> Iterator[Problem]:
    circuits = neuron.circuits
    if not circuits:
        yield Problem(
            code="no-circuit", node=location, message="it has no circuit; a neuron needs at least 1"
        )
        return
    absent = [circuit for circuit in circuits if not on_chip(chip, circuit)]
    for circuit in absent:
        message = Text(
            "circuit {circuit} does not exist; the chip has 2 rows of {columns} circuits",
            circuit=circuit,
            columns=chip.columns,
        )
        yield Problem(code="no-such-circuit", node=location, message=message)
    if not 0 <= neuron.head < len(circuits):
        message = Text(
            "its head, the circuit that fires, has index {head}, but it has only {circuits} circuits",
            head=neuron.head,
            circuits=len(circuits),
        )
        yield Problem(code="bad-head", node=location, message=message)
    if absent:
        return
    halves = sorted({chip.half_of(column) for _, column in circuits})
    if len(halves) > 1:
        message = Text(
            "its circuits are in {halves} halves of the chip; circuits of different halves "
            "cannot be connected",
            halves=len(halves),
        )
        yield Problem(code="over-border", node=location, message=message)
    reached, waiting = {circuits[0]}, [circuits[0]]
    while waiting:
        row, column = waiting.pop()
        for near in ((1 - row, column), (row, column - 1), (row, column + 1)):
            if near in circuits and near not in reached:
                reached.add(near)
                waiting.append(near)
    if len(reached) < len(set(circuits)):
        message = Text(
            "its {circuits} circuits are not all adjacent: only {connected} are connected",
            connected=len(reached),
            circuits=len(set(circuits)),
        )
        yield Problem(code="not-connected", node=location, message=message)


def event_violations(
    mapping: Mapping, run: Run, source_names: dict[int, str], location: str
) -> Iterator[Problem]:
    """Yield problems of the addresses of events from the host; `source_names` by position among the
    run's sources.
    """
    chip = mapping.chip
    largest = (chip.buses << chip.event_bits) - 1
    sender_of_event: dict[int, str] = {}
    for number, source in enumerate(run.sources):
        here = f"{location}: {source_names[number]}"
        for event in source.events:
            if not 0 <= event <= largest:
                message = Text(
                    "the host sends events with address {address}; addresses are 0 to {maximum}",
                    address=event,
                    maximum=largest,
                )
                yield Problem(code="bad-event", node=here, message=message)
            if event in sender_of_event:
                message = Text(
                    "the host sends its events and those of {neuron} with the same address, {address}",
                    address=event,
                    neuron=sender_of_event[event],
                )
                yield Problem(code="same-event", node=here, message=message)
            sender_of_event[event] = source_names[number]


def setting_violations(chip: Chip, run: Run, location: str) -> Iterator[Problem]:
    """Yield masks and modes that do not exist, and crossbar nodes other than those of the chip."""
    largest = (1 << chip.row_select_bits) - 1
    for hemisphere, driver in np.argwhere(
        (run.compare_masks < 0) | (run.compare_masks > largest)
    ).tolist():
        message = Text(
            "its compare mask is {value}; masks are 0 to {maximum}",
            value=run.compare_masks[hemisphere, driver],
            maximum=largest,
        )
        yield Problem(
            code="bad-mask", node=f"{location}: driver ({hemisphere}, {driver})", message=message
        )
    for hemisphere, row in np.argwhere(
        (run.row_modes < 0) | (run.row_modes >= len(ROW_MODES))
    ).tolist():
        message = Text(
            "its mode is {value}; modes are 0 to {maximum}",
            value=run.row_modes[hemisphere, row],
            maximum=len(ROW_MODES) - 1,
        )
        yield Problem(
            code="bad-mode", node=f"{location}: row ({hemisphere}, {row})", message=message
        )
    largest = (1 << chip.event_bits) - 1
    for (*node, mask, target), exists in zip(
        run.crossbar.tolist(), crossbar_nodes(chip), strict=True
    ):
        here = f"{location}: crossbar node {tuple(node)}"
        if tuple(node) != exists:
            message = Text("it is listed in the place of crossbar node {expected}", expected=exists)
            yield Problem(code="bad-node", node=here, message=message)
        if not (0 <= mask <= largest and 0 <= target <= largest):
            message = Text(
                "its filter has mask {mask} and target {target}; both must be 0 to {maximum}",
                mask=mask,
                target=target,
                maximum=largest,
            )
            yield Problem(code="bad-filter", node=here, message=message)


def existing(chip: Chip, run: Run) -> np.ndarray:
    """Return the mask of the synapses that exist on the chip, (synapses,) bool."""
    limits = (HEMISPHERES, chip.rows, chip.columns, chip.labels)
    return np.all((run.synapses[:, :4] >= 0) & (run.synapses[:, :4] < limits), axis=1)


def synapse_violations(
    mapping: Mapping, run: Run, placed: np.ndarray, location: str
) -> Iterator[Problem]:
    """Yield a problem for each synapse that does not exist, is listed twice, is dead, or lacks a neuron or
    a legal weight.

    Args:
        mapping: the mapping.
        run: the run.
        placed: (hemispheres, columns) bool: a neuron has the circuit.
        location: the run, for messages.
    """
    chip, table = mapping.chip, run.synapses
    exists = existing(chip, run)
    for hemisphere, row, column, label, _ in table[~exists].tolist():
        message = Text(
            "it, or its label {label}, does not exist: each hemisphere has {rows} x {columns} "
            "synapses and {labels} labels",
            label=label,
            rows=chip.rows,
            columns=chip.columns,
            labels=chip.labels,
        )
        yield Problem(
            code="no-such-synapse",
            node=_synapse(location, hemisphere, row, column),
            message=message,
        )
    for hemisphere, row, column, _, weight in table[
        (table[:, 4] < 1) | (table[:, 4] > chip.weight_max)
    ].tolist():
        message = Text(
            "its weight is {weight}; weights are 1 to {maximum}",
            weight=weight,
            maximum=chip.weight_max,
        )
        yield Problem(
            code="bad-weight", node=_synapse(location, hemisphere, row, column), message=message
        )
    table = table[exists]
    place = (table[:, 0] * chip.rows + table[:, 1]) * chip.columns + table[:, 2]
    values, counts = np.unique(place, return_counts=True)
    for value, count in zip(values[counts > 1].tolist(), counts[counts > 1].tolist(), strict=True):
        hemisphere, row, column = np.unravel_index(value, (HEMISPHERES, chip.rows, chip.columns))
        message = Text("it is listed {count} times", count=count)
        yield Problem(
            code="synapse-twice", node=_synapse(location, hemisphere, row, column), message=message
        )
    unusable = np.zeros((HEMISPHERES, chip.rows), bool)
    for hemisphere, row in sorted(mapping.dead.unusable_rows()):
        unusable[hemisphere, row] = True
    for code, bad, message in (
        ("dead-row", unusable[table[:, 0], table[:, 1]], "its row or its driver is dead"),
        (
            "no-neuron",
            ~placed[table[:, 0], table[:, 2]],
            "the circuit of its column belongs to no neuron",
        ),
    ):
        for hemisphere, row, column in table[bad, :3].tolist():
            yield Problem(
                code=code, node=_synapse(location, hemisphere, row, column), message=message
            )
    if mapping.signs == "free":
        yield from _sign_violations(chip, run.row_modes, table, unusable, location)


def _sign_violations(
    chip: Chip, row_modes: np.ndarray, table: np.ndarray, unusable: np.ndarray, location: str
) -> Iterator[Problem]:
    """Yield synapses whose sign could not be flipped by moving their weight to the driver's other
    row.
    """
    hemisphere, row, column = table[:, :3].T
    used = np.zeros((HEMISPHERES, chip.rows, chip.columns), bool)
    used[hemisphere, row, column] = True
    mode, partner_mode = row_modes[hemisphere, row], row_modes[hemisphere, row ^ 1]
    opposite = (mode == EXCITATORY) & (partner_mode == INHIBITORY) | (mode == INHIBITORY) & (
        partner_mode == EXCITATORY
    )
    for code, bad, message in (
        (
            "sign-not-free",
            ~opposite,
            "signs are free, but the driver's other row does not have the opposite sign",
        ),
        (
            "sign-not-free",
            used[hemisphere, row ^ 1, column],
            "signs are free, but the synapse in the driver's other row is in use",
        ),
        (
            "sign-not-free",
            unusable[hemisphere, row ^ 1],
            "signs are free, but the driver's other row is dead",
        ),
    ):
        for place in np.flatnonzero(bad).tolist():
            yield Problem(
                code=code, node=_synapse(location, *table[place, :3].tolist()), message=message
            )


def dead_violations(chip: Chip, dead: Dead) -> Iterator[Problem]:
    """Yield dead parts that do not exist on the chip."""
    kinds = (("circuit", dead.circuits, chip.columns), ("driver", dead.drivers, chip.drivers))
    for kind, parts, size in (*kinds, ("row", dead.rows, chip.rows)):
        for part in parts:
            if not (0 <= part[0] < HEMISPHERES and 0 <= part[1] < size):
                message = Text(
                    "dead {part} {place} does not exist; the chip has {size} in each hemisphere",
                    part=kind,
                    place=part,
                    size=size,
                )
                yield Problem(code="no-such-part", node="mapping", message=message)


def _synapse(location: str, hemisphere: int, row: int, column: int) -> str:
    return f"{location}: synapse ({int(hemisphere)}, {int(row)}, {int(column)})"


# -- runs: each neuron is placed once, and its sources are present and recorded before


@dataclass(frozen=True, kw_only=True, eq=False)
class Members:
    """Global indices of a run's neurons and of its sources, in their order; -1 for those that are
    not in the net.
    """

    neurons: np.ndarray
    sources: np.ndarray


def members(net: Netlist, run: Run) -> Members:
    """Return the members of a run."""

    def index(member: PlacedNeuron | Source) -> int:
        if (
            not 0 <= member.population < len(net.populations)
            or not 0 <= member.index < net.populations[member.population].size
        ):
            return -1
        return int(net.offsets[member.population]) + member.index

    neurons = np.array([index(member) for member in run.neurons], np.int64)
    neurons[net.external[neurons]] = -1  # indices of -1 stay -1
    return Members(
        neurons=neurons, sources=np.array([index(member) for member in run.sources], np.int64)
    )


def order_violations(mapping: Mapping, net: Netlist, runs: Sequence[Members]) -> Iterator[Problem]:
    """Yield neurons that are missing, placed twice, recorded too late, or separated from their
    recurrent component.
    """
    where_placed = np.full(net.size, -1)
    for number, inside in enumerate(runs):
        yield from _unknown(mapping.runs[number], inside, f"run {number}")
        for index in inside.neurons[inside.neurons >= 0].tolist():
            if where_placed[index] >= 0:
                message = Text("it is also placed in run {run}", run=where_placed[index])
                yield Problem(
                    code="placed-twice", node=f"run {number}: {net.neuron(index)}", message=message
                )
            where_placed[index] = number
    for index in np.flatnonzero((where_placed < 0) & ~net.external).tolist():
        message = Text("it is in none of the {runs} runs", runs=len(runs))
        yield Problem(code="not-placed", node=net.neuron(index), message=message)
    for number, run in enumerate(mapping.runs):
        if not run.neurons:
            message = "it has no neurons"
            yield Problem(code="empty-run", node=f"run {number}", message=message)
    for part in net.recurrent_components():
        numbers = np.unique(where_placed[part])
        if len(numbers) > 1:
            message = Text(
                "{neurons} recurrently connected neurons are in {runs} runs; they must be in the "
                "same run",
                neurons=len(part),
                runs=len(numbers),
            )
            yield Problem(code="torn-apart", node=net.neuron(part[0]), message=message)
    recorded = [
        _recorded(run, inside, net.size) for run, inside in zip(mapping.runs, runs, strict=True)
    ]
    seen = np.any([np.zeros(net.size, bool), *recorded], axis=0)
    unrecorded_outputs = net.outputs & (where_placed >= 0) & ~seen
    for index in np.flatnonzero(unrecorded_outputs).tolist():
        message = "it is an output of the network, but the host does not record its spikes"
        location = f"run {where_placed[index]}: {net.neuron(index)}"
        yield Problem(code="not-recorded", node=location, message=message)
    for number, (run, inside) in enumerate(zip(mapping.runs, runs, strict=True)):
        yield from _source_violations(net, run, inside, recorded[:number], f"run {number}")
        yield from _needed(net, inside, f"run {number}")


def _unknown(run: Run, inside: Members, location: str) -> Iterator[Problem]:
    for kind, listed, indices in (
        ("neuron", run.neurons, inside.neurons),
        ("source", run.sources, inside.sources),
    ):
        for number in np.flatnonzero(indices < 0).tolist():
            member = listed[number]
            message = Text(
                "the netlist has no {kind} {index} in population {population}",
                kind=kind,
                index=member.index,
                population=member.population,
            )
            yield Problem(
                code=f"unknown-{kind}", node=f"{location}: {kind} {number}", message=message
            )


def _recorded(run: Run, inside: Members, size: int) -> np.ndarray:
    """Return the mask of the neurons that the run records, (size,) bool."""
    is_recorded = np.zeros(size, bool)
    for neuron, index in zip(run.neurons, inside.neurons.tolist(), strict=True):
        if index >= 0 and neuron.recorded:
            is_recorded[index] = True
    return is_recorded


def _source_violations(
    net: Netlist, run: Run, inside: Members, recorded: Sequence[np.ndarray], location: str
) -> Iterator[Problem]:
    seen = np.zeros(net.size, bool)
    seen[inside.neurons[inside.neurons >= 0]] = True
    for source, index in zip(run.sources, inside.sources.tolist(), strict=True):
        if index < 0:
            continue
        here = f"{location}: {net.neuron(index)}"
        if seen[index]:
            message = "the run receives its spikes twice: it is listed as a source again, or is on the chip"
            yield Problem(code="source-twice", node=here, message=message)
        seen[index] = True
        if net.external[index] and source.from_run is not None:
            message = Text(
                "it is an input, but the mapping replays its spikes from run {run}",
                run=source.from_run,
            )
            yield Problem(code="bad-origin", node=here, message=message)
        elif not net.external[index]:
            origin = source.from_run
            if origin is None or not 0 <= origin < len(recorded):
                message = Text(
                    "its spikes are replayed from run {run}, which is not one of the {runs} earlier runs",
                    run=origin,
                    runs=len(recorded),
                )
                yield Problem(code="bad-origin", node=here, message=message)
            elif not recorded[origin][index]:
                message = Text("run {run} does not record it", run=origin)
                yield Problem(code="bad-origin", node=here, message=message)


def _needed(net: Netlist, inside: Members, location: str) -> Iterator[Problem]:
    """Yield sources that a run's neurons have in the net, and that the run lacks."""
    here, there = np.zeros(net.size, bool), np.zeros(net.size, bool)
    here[inside.neurons[inside.neurons >= 0]] = True
    there[inside.sources[inside.sources >= 0]] = True
    lacking = here[net.post] & ~(here | there)[net.pre]
    sources, counts = np.unique(net.pre[lacking], return_counts=True)
    for index, count in zip(sources.tolist(), counts.tolist(), strict=True):
        message = Text(
            "it feeds {count} neurons of the run, but is neither on the chip nor a source of the "
            "run",
            count=count,
        )
        yield Problem(code="no-source", node=f"{location}: {net.neuron(index)}", message=message)
