"""Labels, weights and places of synapses."""

import numpy as np

from tests.bss2.corruptions.common import CORRUPTIONS, pick, some_run, with_run


def on_synapses(change):
    """A corruption that changes the table of synapses of one run; `change(table, place, mapping,
    run, random)`.
    """

    def corrupt(mapping, net, random):
        number, run = some_run(mapping, random)
        table = run.synapses.copy()
        changed = change(table, int(random.integers(len(table))), mapping, run, random)
        return None if changed is None else (with_run(mapping, number, synapses=changed), net)

    CORRUPTIONS[change.__name__] = corrupt
    return change


@on_synapses
def synapse_label_of_another_source(table, place, mapping, run, random):
    other = pick(random, np.unique(table[table[:, 3] != table[place, 3], 3]))
    if other is None:
        return None
    table[place, 3] = other
    return table


@on_synapses
def synapse_label_bit(table, place, mapping, run, random):
    table[place, 3] ^= 1 << int(random.integers(mapping.chip.label_bits))
    return table


@on_synapses
def synapse_labels_swapped(table, place, mapping, run, random):
    fits = np.flatnonzero((table[:, 2] == table[place, 2]) & (table[:, 3] != table[place, 3]))
    other = pick(random, fits[table[fits, 4] != table[place, 4]])
    if other is None:
        return None
    table[[place, other], 3] = table[[other, place], 3]
    return table


@on_synapses
def label_beyond_the_last(table, place, mapping, run, random):
    table[place, 3] = mapping.chip.labels
    return table


@on_synapses
def labels_of_a_row_shifted(table, place, mapping, run, random):
    row = np.all(table[:, :2] == table[place, :2], axis=1)
    table[row, 3] = (table[row, 3] + 1) % mapping.chip.labels
    return table


@on_synapses
def weight_one_off(table, place, mapping, run, random):
    table[place, 4] += 1 if table[place, 4] < 63 else -1
    return table


@on_synapses
def weight_another(table, place, mapping, run, random):
    table[place, 4] = 1 + (table[place, 4] + int(random.integers(61))) % 63
    return table


@on_synapses
def weight_zero(table, place, mapping, run, random):
    table[place, 4] = 0
    return table


@on_synapses
def weight_beyond_the_largest(table, place, mapping, run, random):
    table[place, 4] = 64
    return table


@on_synapses
def weight_negative(table, place, mapping, run, random):
    table[place, 4] *= -1
    return table


@on_synapses
def weights_swapped(table, place, mapping, run, random):
    other = pick(random, np.flatnonzero(table[:, 4] != table[place, 4]))
    if other is None:
        return None
    table[[place, other], 4] = table[[other, place], 4]
    return table


@on_synapses
def synapse_removed(table, place, mapping, run, random):
    return np.delete(table, place, axis=0)


@on_synapses
def row_of_synapses_removed(table, place, mapping, run, random):
    return table[~np.all(table[:, :2] == table[place, :2], axis=1)]


@on_synapses
def column_of_synapses_removed(table, place, mapping, run, random):
    return table[(table[:, 0] != table[place, 0]) | (table[:, 2] != table[place, 2])]


@on_synapses
def synapse_twice(table, place, mapping, run, random):
    return np.insert(table, place, table[place], axis=0)


@on_synapses
def synapse_copied_to_the_other_sign(table, place, mapping, run, random):
    copy = table[place] ^ [0, 1, 0, 0, 0]
    taken = np.all(table[:, :3] == copy[:3], axis=1).any()
    return None if taken else np.insert(table, 0, copy, axis=0)


@on_synapses
def synapse_moved_to_the_other_sign(table, place, mapping, run, random):
    table[place, 1] ^= 1
    return table


@on_synapses
def synapse_moved_to_another_bus(table, place, mapping, run, random):
    table[place, 1] ^= 2 * int(random.integers(1, mapping.chip.buses))
    return table


@on_synapses
def synapse_moved_to_the_next_column(table, place, mapping, run, random):
    table[place, 2] = (table[place, 2] + 1) % mapping.chip.columns
    return table


@on_synapses
def synapse_moved_to_the_other_hemisphere(table, place, mapping, run, random):
    table[place, 0] ^= 1
    return table


@on_synapses
def synapse_moved_beyond_the_rows(table, place, mapping, run, random):
    table[place, 1] = mapping.chip.rows
    return table


@on_synapses
def synapse_moved_beyond_the_columns(table, place, mapping, run, random):
    table[place, 2] = mapping.chip.columns
    return table


@on_synapses
def columns_swapped(table, place, mapping, run, random):
    columns = np.unique(table[:, 2])
    first, second = table[place, 2], pick(random, columns[columns != table[place, 2]])
    if second is None:
        return None
    table[:, 2] = np.where(
        table[:, 2] == first, second, np.where(table[:, 2] == second, first, table[:, 2])
    )
    return table


@on_synapses
def synapse_on_a_circuit_of_no_neuron(table, place, mapping, run, random):
    placed = {circuit for one in run.neurons for circuit in one.circuits}
    free = [c for c in range(mapping.chip.columns) if (int(table[place, 0]), c) not in placed]
    if not free:
        return None
    copy = table[place].copy()
    copy[2] = pick(random, free)
    return np.insert(table, place, copy, axis=0)


@on_synapses
def synapse_that_nothing_reaches(table, place, mapping, run, random):
    reached = {event & (mapping.chip.labels - 1) for one in run.sources for event in one.events}
    reached |= {one.address & (mapping.chip.labels - 1) for one in run.neurons}
    unused = [label for label in range(mapping.chip.labels) if label not in reached]
    side, column = table[place, [0, 2]].tolist()
    taken = table[(table[:, 0] == side) & (table[:, 2] == column), 1]
    free = [row for row in range(mapping.chip.rows) if row not in taken]
    if not unused or not free:
        return None
    return np.insert(table, 0, [side, pick(random, free), column, pick(random, unused), 5], axis=0)


@on_synapses
def table_of_another_shape(table, place, mapping, run, random):
    return table[:, :4]


@on_synapses
def weights_scaled(table, place, mapping, run, random):
    table[:, 4] = np.where(table[:, 4] > 1, table[:, 4] // 2, 2)
    return table
