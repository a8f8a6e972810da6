"""Compare masks of drivers, modes of rows, and the crossbar."""

import numpy as np

from tests.bss2.corruptions.common import CORRUPTIONS, corruption, pick, some_run, with_run


def on_settings(change):
    """Changes compare masks or row modes of one run; `change(masks, modes, side, driver, mapping,
    run, random)`.
    """

    def corrupt(mapping, net, random):
        number, run = some_run(mapping, random)
        masks, modes = run.compare_masks.copy(), run.row_modes.copy()
        side, row = run.synapses[int(random.integers(len(run.synapses))), :2].tolist()
        changed = change(masks, modes, side, row, mapping, run, random)
        if changed is False:
            return None
        return with_run(mapping, number, compare_masks=masks, row_modes=modes), net

    CORRUPTIONS[change.__name__] = corrupt
    return change


def selects(mapping, run):
    """Row selects that the run's events have."""
    chip = mapping.chip
    events = [event for one in run.sources for event in one.events]
    events += [chip.neuron_event(one.circuits[one.head][1], one.address) for one in run.neurons]
    return [chip.row_select_of(event) for event in events]


def rejecting(mapping, run, masks, side, row, mask):
    """Whether a driver under a mask accepts no event of the run at all."""
    index = mapping.chip.driver_index(row // 2)
    return all((select ^ index) & mask for select in selects(mapping, run))


@on_settings
def mask_that_rejects(masks, modes, side, row, mapping, run, random):
    choices = [m for m in range(32) if rejecting(mapping, run, masks, side, row, m)]
    if not choices:
        return False
    masks[side, row // 2] = pick(random, choices)
    return None


@on_settings
def masks_of_all_drivers_full(masks, modes, side, row, mapping, run, random):
    """Each driver then accepts its own row select only."""
    full = (1 << mapping.chip.row_select_bits) - 1
    masks[:] = full
    drivers = np.unique(run.synapses[:, [0, 1]] // [1, 2], axis=0)
    closed = [
        rejecting(mapping, run, masks, side, 2 * driver, full) for side, driver in drivers.tolist()
    ]
    return None if any(closed) else False


@on_settings
def mask_beyond_the_largest(masks, modes, side, row, mapping, run, random):
    masks[side, row // 2] = 32
    return None


@on_settings
def mask_negative(masks, modes, side, row, mapping, run, random):
    masks[side, row // 2] = -1
    return None


@on_settings
def row_disabled(masks, modes, side, row, mapping, run, random):
    modes[side, row] = 0
    return None


@on_settings
def row_of_the_other_sign(masks, modes, side, row, mapping, run, random):
    modes[side, row] = 3 - modes[side, row]
    return None


@on_settings
def row_of_both_signs(masks, modes, side, row, mapping, run, random):
    modes[side, row] = 3
    return None


@on_settings
def rows_of_a_driver_swapped(masks, modes, side, row, mapping, run, random):
    if modes[side, row] == modes[side, row ^ 1]:
        return False
    modes[side, [row, row ^ 1]] = modes[side, [row ^ 1, row]]
    return None


@on_settings
def mode_that_does_not_exist(masks, modes, side, row, mapping, run, random):
    modes[side, row] = 4
    return None


@on_settings
def all_signs_of_a_hemisphere(masks, modes, side, row, mapping, run, random):
    modes[side] = np.where(np.isin(modes[side], (1, 2)), 3 - modes[side], modes[side])
    return None


@on_settings
def modes_one_row_off(masks, modes, side, row, mapping, run, random):
    rolled = np.roll(modes, 1, axis=1)
    if rolled[side, row] == modes[side, row]:
        return False
    modes[:] = rolled
    return None


@corruption
def modes_of_another_shape(mapping, net, random):
    number, run = some_run(mapping, random)
    return with_run(mapping, number, row_modes=run.row_modes[:, :-2]), net


def on_crossbar(change):
    """Changes the crossbar of one run; `change(table, mapping, run, random)`."""

    def corrupt(mapping, net, random):
        number, run = some_run(mapping, random)
        table = run.crossbar.copy()
        changed = change(table, mapping, run, random)
        return None if changed is None else (with_run(mapping, number, crossbar=changed), net)

    CORRUPTIONS[change.__name__] = corrupt
    return change


def node_of(table, entry, output):
    return int(np.flatnonzero((table[:, 0] == entry) & (table[:, 1] == output))[0])


def used_nodes(mapping, run, of_neurons):
    """Nodes by which some event reaches a synapse that listens to its label."""
    chip, found = mapping.chip, []
    inner = (1 << chip.event_bits) - 1
    events = [
        (chip.link_input(chip.link_of(event)), event & inner)
        for one in run.sources
        for event in one.events
    ]
    if of_neurons:
        heads = [(one, one.circuits[one.head][1]) for one in run.neurons]
        events = [
            (chip.output_of(column), chip.neuron_event(column, one.address))
            for one, column in heads
        ]
    listens = {
        (side, row // 2 % chip.buses, label) for side, row, _, label, _ in run.synapses.tolist()
    }
    for number, (entry, output, mask, target) in enumerate(run.crossbar.tolist()):
        side, bus = divmod(output, chip.buses)
        for at, address in events:
            if (
                at == entry
                and address & mask == target
                and (side, bus, address & (chip.labels - 1)) in listens
            ):
                found.append(number)
                break
    return found


@on_crossbar
def node_of_the_host_closed(table, mapping, run, random):
    node = pick(random, used_nodes(mapping, run, of_neurons=False))
    if node is None:
        return None
    table[node, 2:] = 0, 1
    return table


@on_crossbar
def node_of_neurons_closed(table, mapping, run, random):
    node = pick(random, used_nodes(mapping, run, of_neurons=True))
    if node is None:
        return None
    table[node, 2:] = 0, 1
    return table


@on_crossbar
def filter_turned_round(table, mapping, run, random):
    node = pick(random, used_nodes(mapping, run, of_neurons=False))
    if node is None or table[node, 2] == 0:
        return None
    table[node, 3] ^= table[node, 2]
    return table


@on_crossbar
def filter_on_one_more_bit(table, mapping, run, random):
    """The highest bit, in the sense that nothing of the host has."""
    node = pick(random, used_nodes(mapping, run, of_neurons=True))
    if node is None:
        return None
    table[node, 2:] = 1 << 13, 1 << 13
    return table


@on_crossbar
def filter_beyond_the_bits(table, mapping, run, random):
    table[int(random.integers(len(table))), 2] = 1 << mapping.chip.event_bits
    return table


@on_crossbar
def nodes_swapped(table, mapping, run, random):
    first, second = random.choice(len(table), 2, replace=False)
    table[[first, second]] = table[[second, first]]
    return table


@on_crossbar
def node_at_an_output_that_it_has_not(table, mapping, run, random):
    table[int(random.integers(24)), 1] += 1
    return table


@on_crossbar
def node_left_out(table, mapping, run, random):
    return np.delete(table, int(random.integers(len(table))), axis=0)


@on_crossbar
def every_node_closed(table, mapping, run, random):
    table[:, 2:] = 0, 1
    return table


@on_crossbar
def recorded_neurons_closed_to_the_host(table, mapping, run, random):
    chip = mapping.chip
    heads = [one.circuits[one.head][1] for one in run.neurons if one.recorded]
    if not heads:
        return None
    output = chip.output_of(pick(random, heads))
    table[node_of(table, output, chip.link_output(output % chip.buses)), 2:] = 0, 1
    return table


@on_crossbar
def hemispheres_of_a_link_swapped(table, mapping, run, random):
    chip = mapping.chip
    nodes = used_nodes(mapping, run, of_neurons=False)
    if not nodes:
        return None
    entry = int(table[pick(random, nodes), 0])
    first, second = (
        node_of(table, entry, side * chip.buses + entry - chip.outputs) for side in (0, 1)
    )
    if np.array_equal(table[first, 2:], table[second, 2:]):
        return None
    table[[first, second], 2:] = table[[second, first], 2:]
    return table
