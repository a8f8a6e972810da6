"""Ways to spoil a right mapping, by name: `CORRUPTIONS`. Each takes a mapping, its net and a random
generator and gives a mapping and a net that do not belong together, or None where there is nothing
to spoil so.
"""

import itertools
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from jaxsnn.bss2.chip import Dead
from jaxsnn.bss2.netlist import NetPopulation, netlist
from jaxsnn.bss2.quantization import Quantization

CORRUPTIONS: dict[str, Callable] = {}
SIDE, ROW, COLUMN, LABEL, WEIGHT = range(5)  # columns of `Run.synapses`
MASK, TARGET = 2, 3  # columns of `Run.crossbar`


class NothingToSpoil(Exception):
    """A mapping has nothing that could be spoiled in some way."""


def require(condition):
    if not condition:
        raise NothingToSpoil


class Case:
    """A mapping to be spoiled, and one of its runs."""

    def __init__(self, mapping, net, random):
        self.mapping, self.net, self.random, self.chip = mapping, net, random, mapping.chip
        self.number = self.draw(len(mapping.runs))
        self.run = mapping.runs[self.number]

    def draw(self, *ends):
        return int(self.random.integers(*ends))

    def pick(self, items):
        require(len(items))
        return items[self.draw(len(items))]

    def two(self, items):
        """Two different items."""
        require(len(items) > 1)
        return self.random.choice(items, 2, replace=False).tolist()

    def with_run(self, number=None, **changes):
        runs = list(self.mapping.runs)
        number = self.number if number is None else number
        runs[number] = replace(runs[number], **changes)
        return self.with_runs(*runs)

    def with_runs(self, *runs):
        return replace(self.mapping, runs=runs), self.net

    def with_net(self, **changes):
        parts = ("populations", "pre", "post", "weight")
        net = netlist(*(changes.get(name, getattr(self.net, name)) for name in parts))
        return replace(self.mapping, fingerprint=net.fingerprint()), net

    def feeds(self, sender):
        """Whether a neuron or source has a target in the run."""
        index = self.net.offsets[sender.population] + sender.index
        here = [self.net.offsets[neuron.population] + neuron.index for neuron in self.run.neurons]
        return bool(np.isin(self.net.post[self.net.pre == index], here).any())

    def output(self, neuron):
        return self.chip.output_of(neuron.circuits[neuron.head][1])

    def events(self, of_neurons):
        """(crossbar input, address) of what the run's neurons, or the host, send."""
        if of_neurons:
            for neuron in self.run.neurons:
                column = neuron.circuits[neuron.head][1]
                yield self.output(neuron), self.chip.neuron_event(column, neuron.address)
        else:
            for event in (event for source in self.run.sources for event in source.events):
                entry = self.chip.link_input(self.chip.link_of(event))
                yield entry, event & ((1 << self.chip.event_bits) - 1)

    def addresses(self):
        return [address for of in (False, True) for _, address in self.events(of)]

    def placed(self):
        """The circuits of the run's neurons."""
        return {circuit for neuron in self.run.neurons for circuit in neuron.circuits}


def table_of(wrap, changes):
    """Enter the changes of a table, each of which `wrap` makes a corruption of."""
    for name, change in changes.items():

        def corrupted(mapping, net, random, change=change):
            try:
                return wrap(Case(mapping, net, random), change)
            except NothingToSpoil:
                return None

        CORRUPTIONS[name] = corrupted


def corruption(function):
    table_of(lambda case, change: change(case), {function.__name__: function})
    return function


def put(table, place, value):
    """Change entries of a table."""
    table[place] = value
    return table


def swapped(table, first, second, columns=slice(None)):
    require(not np.array_equal(table[first, columns], table[second, columns]))
    table[[first, second], columns] = table[[second, first], columns]
    return table


# -- labels, weights and places of synapses


def change_synapses(case, change):
    table = case.run.synapses.copy()
    return case.with_run(synapses=change(case, table, case.draw(len(table))))


def copied_to_the_other_sign(case, table, place):
    copy = table[place] ^ [0, 1, 0, 0, 0]
    require(not np.all(table[:, :LABEL] == copy[:LABEL], axis=1).any())
    return np.insert(table, 0, copy, axis=0)


def on_a_circuit_of_no_neuron(case, table, place):
    placed, side = case.placed(), int(table[place, SIDE])
    free = case.pick([c for c in range(case.chip.columns) if (side, c) not in placed])
    return np.insert(table, place, put(table[place].copy(), COLUMN, free), axis=0)


def that_nothing_reaches(case, table, place):
    sent = [case.chip.label_of(address) for address in case.addresses()]
    unused = np.setdiff1d(range(case.chip.labels), sent)
    side, column = table[place, [SIDE, COLUMN]].tolist()
    filled = table[(table[:, SIDE] == side) & (table[:, COLUMN] == column), ROW]
    row, label = case.pick(np.setdiff1d(range(case.chip.rows), filled)), case.pick(unused)
    return np.insert(table, 0, [side, row, column, label, 5], axis=0)


def columns_swapped(case, table, place):
    first = table[place, COLUMN]
    second = case.pick(np.unique(table[table[:, COLUMN] != first, COLUMN]))
    rows = [table[:, COLUMN] == column for column in (first, second)]
    return put(table, (slice(None), COLUMN), np.select(rows, (second, first), table[:, COLUMN]))


def labels_swapped(case, table, place):
    same_column = table[:, COLUMN] == table[place, COLUMN]
    different = same_column & (table[:, WEIGHT] != table[place, WEIGHT])
    return swapped(table, place, case.pick(np.flatnonzero(different)), LABEL)


def same_row(table, place):
    return np.all(table[:, :COLUMN] == table[place, :COLUMN], axis=1)


def same_circuit(table, place):
    return np.all(table[:, [SIDE, COLUMN]] == table[place, [SIDE, COLUMN]], axis=1)


table_of(
    change_synapses,
    {
        "synapse_label_of_another_source": lambda c, t, p: put(
            t, (p, LABEL), c.pick(np.unique(t[t[:, LABEL] != t[p, LABEL], LABEL]))
        ),
        "synapse_label_bit": lambda c, t, p: put(
            t, (p, LABEL), t[p, LABEL] ^ 1 << c.draw(c.chip.label_bits)
        ),
        "synapse_labels_swapped": labels_swapped,
        "label_beyond_the_last": lambda c, t, p: put(t, (p, LABEL), c.chip.labels),
        "labels_of_a_row_shifted": lambda c, t, p: put(
            t, (row := same_row(t, p), LABEL), (t[row, LABEL] + 1) % c.chip.labels
        ),
        "weight_one_off": lambda c, t, p: put(
            t, (p, WEIGHT), t[p, WEIGHT] + (1 if t[p, WEIGHT] < 63 else -1)
        ),
        "weight_another": lambda c, t, p: put(t, (p, WEIGHT), 1 + (t[p, WEIGHT] + c.draw(61)) % 63),
        "weight_zero": lambda c, t, p: put(t, (p, WEIGHT), 0),
        "weight_beyond_the_largest": lambda c, t, p: put(t, (p, WEIGHT), 64),
        "weight_negative": lambda c, t, p: put(t, (p, WEIGHT), -t[p, WEIGHT]),
        "weights_swapped": lambda c, t, p: swapped(
            t, p, c.pick(np.flatnonzero(t[:, WEIGHT] != t[p, WEIGHT])), WEIGHT
        ),
        "weights_scaled": lambda c, t, p: put(
            t, (slice(None), WEIGHT), np.where(t[:, WEIGHT] > 1, t[:, WEIGHT] // 2, 2)
        ),
        "synapse_removed": lambda c, t, p: np.delete(t, p, axis=0),
        "row_of_synapses_removed": lambda c, t, p: t[~same_row(t, p)],
        "column_of_synapses_removed": lambda c, t, p: t[~same_circuit(t, p)],
        "synapse_twice": lambda c, t, p: np.insert(t, p, t[p], axis=0),
        "synapse_copied_to_the_other_sign": copied_to_the_other_sign,
        "synapse_moved_to_the_other_sign": lambda c, t, p: put(t, (p, ROW), t[p, ROW] ^ 1),
        "synapse_moved_to_another_bus": lambda c, t, p: put(
            t, (p, ROW), t[p, ROW] ^ 2 * c.draw(1, c.chip.buses)
        ),
        "synapse_moved_to_the_next_column": lambda c, t, p: put(
            t, (p, COLUMN), (t[p, COLUMN] + 1) % c.chip.columns
        ),
        "synapse_moved_to_the_other_hemisphere": lambda c, t, p: put(t, (p, SIDE), 1 - t[p, SIDE]),
        "synapse_moved_beyond_the_rows": lambda c, t, p: put(t, (p, ROW), c.chip.rows),
        "synapse_moved_beyond_the_columns": lambda c, t, p: put(t, (p, COLUMN), c.chip.columns),
        "columns_swapped": columns_swapped,
        "synapse_on_a_circuit_of_no_neuron": on_a_circuit_of_no_neuron,
        "synapse_that_nothing_reaches": that_nothing_reaches,
        "table_of_another_shape": lambda c, t, p: t[:, :4],
    },
)


# -- compare masks of drivers, modes of rows


def change_settings(name):
    def wrap(case, change):
        side, row = case.run.synapses[case.draw(len(case.run.synapses)), :COLUMN].tolist()
        return case.with_run(**{name: change(case, getattr(case.run, name).copy(), side, row)})

    return wrap


def rejects(case, row, mask):
    """Whether a row's driver accepts no event of the run at all under a mask."""
    index = case.chip.driver_index(row // 2)
    selects = map(case.chip.row_select_of, case.addresses())
    return all((select ^ index) & mask for select in selects)


def masks_full(case, masks, side, row):
    """Each driver then accepts its own row select only."""
    full = (1 << case.chip.row_select_bits) - 1
    require(any(rejects(case, row, full) for row in np.unique(case.run.synapses[:, ROW])))
    return put(masks, ..., full)


table_of(
    change_settings("compare_masks"),
    {
        "mask_that_rejects": lambda c, masks, side, row: put(
            masks, (side, row // 2), c.pick([m for m in range(32) if rejects(c, row, m)])
        ),
        "masks_of_all_drivers_full": masks_full,
        "mask_beyond_the_largest": lambda c, masks, side, row: put(masks, (side, row // 2), 32),
        "mask_negative": lambda c, masks, side, row: put(masks, (side, row // 2), -1),
    },
)


def modes_one_row_off(case, modes, side, row):
    rolled = np.roll(modes, 1, axis=1)
    require(rolled[side, row] != modes[side, row])
    return rolled


def rows_of_a_driver_swapped(case, modes, side, row):
    require(modes[side, row] != modes[side, row ^ 1])
    return put(modes, (side, [row, row ^ 1]), modes[side, [row ^ 1, row]])


def signs_free(case, modes, side, row):
    """The other row of a driver gets the sign of the one that has synapses."""
    require(case.mapping.signs == "free")
    return put(modes, (side, row ^ 1), modes[side, row])


table_of(
    change_settings("row_modes"),
    {
        "row_disabled": lambda c, modes, side, row: put(modes, (side, row), 0),
        "row_of_the_other_sign": lambda c, modes, side, row: put(
            modes, (side, row), 3 - modes[side, row]
        ),
        "row_of_both_signs": lambda c, modes, side, row: put(modes, (side, row), 3),
        "rows_of_a_driver_swapped": rows_of_a_driver_swapped,
        "mode_that_does_not_exist": lambda c, modes, side, row: put(modes, (side, row), 4),
        "all_signs_of_a_hemisphere": lambda c, modes, side, row: put(
            modes, side, np.where(np.isin(modes[side], (1, 2)), 3 - modes[side], modes[side])
        ),
        "modes_one_row_off": modes_one_row_off,
        "modes_of_another_shape": lambda c, modes, side, row: modes[:, :-2],
        "signs_said_to_be_free": signs_free,
    },
)


# -- crossbar


def change_crossbar(case, change):
    return case.with_run(crossbar=change(case, case.run.crossbar.copy()))


def node_of(table, entry, output):
    return int(np.flatnonzero((table[:, 0] == entry) & (table[:, 1] == output))[0])


def used_node(case, of_neurons):
    """A node by which some event reaches a synapse that listens to its label."""
    chip, events = case.chip, list(case.events(of_neurons))
    listens = {
        (side, row // 2 % chip.buses, label)
        for side, row, _, label, _ in case.run.synapses.tolist()
    }
    return case.pick(
        [
            node
            for node, (entry, output, mask, target) in enumerate(case.run.crossbar.tolist())
            if any(
                at == entry
                and address & mask == target
                and (*divmod(output, chip.buses), chip.label_of(address)) in listens
                for at, address in events
            )
        ]
    )


def filtered(table, node, mask, target):
    return put(table, (node, slice(MASK, None)), (mask, target))


def filter_turned_round(case, table):
    node = used_node(case, of_neurons=False)
    require(table[node, MASK])
    return filtered(table, node, table[node, MASK], table[node, TARGET] ^ table[node, MASK])


def recorded_neurons_closed(case, table):
    output = case.output(case.pick([neuron for neuron in case.run.neurons if neuron.recorded]))
    return filtered(table, node_of(table, output, case.chip.link_output(output % 4)), 0, 1)


def hemispheres_of_a_link_swapped(case, table):
    entry = int(table[used_node(case, of_neurons=False), 0])
    link = entry - case.chip.outputs
    nodes = [node_of(table, entry, case.chip.bus_output(side, link)) for side in (0, 1)]
    return swapped(table, *nodes, slice(MASK, None))


table_of(
    change_crossbar,
    {
        "node_of_the_host_closed": lambda c, t: filtered(t, used_node(c, of_neurons=False), 0, 1),
        "node_of_neurons_closed": lambda c, t: filtered(t, used_node(c, of_neurons=True), 0, 1),
        "filter_turned_round": filter_turned_round,
        # The filter passes only events whose highest bit is 1; no event from the host has this bit.
        "filter_on_one_more_bit": lambda c, t: filtered(
            t, used_node(c, of_neurons=True), 1 << 13, 1 << 13
        ),
        "filter_beyond_the_bits": lambda c, t: put(
            t, (c.draw(len(t)), MASK), 1 << c.chip.event_bits
        ),
        "nodes_swapped": lambda c, t: swapped(t, *c.two(range(len(t)))),
        "node_at_an_output_that_it_has_not": lambda c, t: put(
            t, (node := c.draw(24), 1), t[node, 1] + 1
        ),
        "node_left_out": lambda c, t: np.delete(t, c.draw(len(t)), axis=0),
        "every_node_closed": lambda c, t: put(t, (slice(None), slice(MASK, None)), (0, 1)),
        "recorded_neurons_closed_to_the_host": recorded_neurons_closed,
        "hemispheres_of_a_link_swapped": hemispheres_of_a_link_swapped,
    },
)


# -- events from the host


def replaced(parts, place, changed):
    """The parts with another one, several or none in a place."""
    return (
        *parts[:place],
        *(changed if isinstance(changed, tuple) else [changed]),
        *parts[place + 1 :],
    )


def change_source(case, change):
    sources = case.run.sources
    place = case.pick(
        [p for p, source in enumerate(sources) if source.events and case.feeds(source)]
    )
    return case.with_run(sources=replaced(sources, place, change(case, sources[place])))


def first_event(source, event):
    return replace(source, events=(event, *source.events[1:]))


def row_select_of_no_driver(case, source):
    bits = int(np.bitwise_or.reduce(case.run.compare_masks, axis=None))
    require(bits)
    return first_event(source, source.events[0] ^ (bits & -bits) << case.chip.label_bits)


def to_no_hemisphere(case, source):
    event = source.events[0] | 3 << (case.chip.event_bits - 2)
    require(event != source.events[0])
    return first_event(source, event)


def event_of_another_source_too(case, source):
    second = case.pick(
        [member for member in case.run.sources if member != source and member.events]
    )
    return replace(source, events=(*source.events, second.events[0]))


table_of(
    change_source,
    {
        "event_label_bit": lambda c, s: first_event(
            s, s.events[0] ^ 1 << c.draw(c.chip.label_bits)
        ),
        "event_link": lambda c, s: first_event(
            s, s.events[0] ^ c.draw(1, c.chip.buses) << c.chip.event_bits
        ),
        "event_row_select_of_no_driver": row_select_of_no_driver,
        "event_to_no_hemisphere": to_no_hemisphere,
        "event_beyond_the_links": lambda c, s: first_event(
            s, s.events[0] + (c.chip.buses << c.chip.event_bits)
        ),
        "event_not_sent": lambda c, s: replace(s, events=s.events[1:]),
        "event_sent_twice": lambda c, s: replace(s, events=(*s.events, s.events[0])),
        "event_of_another_source_too": event_of_another_source_too,
        "source_removed": lambda c, s: (),
        "source_listed_twice": lambda c, s: (s, s),
        "source_that_the_net_has_not": lambda c, s: replace(s, index=10**6),
        "source_recorded_in_its_own_run": lambda c, s: replace(s, from_run=c.number),
        "source_with_another_origin": lambda c, s: replace(
            s, from_run=0 if s.from_run is None else None
        ),
    },
)


# -- locations, addresses and names of neurons


def exchange(case, name, chosen, fields, differ=lambda first, second: True):
    """Exchange some fields of two chosen neurons or sources of the run that differ."""
    parts = list(getattr(case.run, name))
    pair = case.two([place for place, part in enumerate(parts) if chosen(part)])
    require(differ(*(parts[place] for place in pair)))
    values = [{field: getattr(parts[place], field) for field in fields} for place in pair]
    for place, swapped_values in zip(pair, values[::-1], strict=True):
        parts[place] = replace(parts[place], **swapped_values)
    return case.with_run(**{name: tuple(parts)})


def change_neuron(case, change):
    neurons = case.run.neurons
    place = case.draw(len(neurons))
    return case.with_run(neurons=replaced(neurons, place, change(case, neurons[place])))


def with_circuit(neuron, circuit):
    return replace(neuron, circuits=(*neuron.circuits, circuit))


def address_of_another_neuron(case, neuron):
    others = [member for member in case.run.neurons if member is not neuron]
    second = case.pick([member for member in others if case.output(member) == case.output(neuron)])
    return replace(neuron, address=second.address)


def circuit_left_out(case, neuron):
    require(list(neuron.circuits[-1]) in case.run.synapses[:, [SIDE, COLUMN]].tolist())
    return replace(neuron, circuits=neuron.circuits[:-1], head=0)


def circuit_far_away(case, neuron):
    placed, near = case.placed(), [column for _, column in neuron.circuits]
    free = [
        (row, column)
        for row in (0, 1)
        for column in range(case.chip.columns)
        if min(abs(column - used) for used in near) > 1 and (row, column) not in placed
    ]
    return with_circuit(neuron, case.pick(free))


table_of(
    change_neuron,
    {
        "address_of_another_neuron": address_of_another_neuron,
        "address_beyond_the_last": lambda c, n: replace(n, address=1 << c.chip.address_bits),
        "head_that_it_has_not": lambda c, n: replace(n, head=len(n.circuits)),
        "circuit_left_out": circuit_left_out,
        "no_circuits": lambda c, n: replace(n, circuits=()),
        "circuit_of_another_neuron": lambda c, n: with_circuit(
            n, c.pick([member.circuits[0] for member in c.run.neurons if member is not n])
        ),
        "circuit_twice": lambda c, n: with_circuit(n, n.circuits[0]),
        "circuit_beyond_the_chip": lambda c, n: with_circuit(n, (0, c.chip.columns)),
        "circuit_far_away": circuit_far_away,
        "circuits_over_the_border": lambda c, n: replace(
            n, circuits=((0, c.chip.half_columns - 1), (0, c.chip.half_columns)), head=0
        ),
        "neuron_removed": lambda c, n: (),
        "neuron_placed_twice": lambda c, n: (n, n),
        "neuron_that_the_net_has_not": lambda c, n: replace(n, index=10**6),
        "neuron_of_a_population_of_inputs": lambda c, n: replace(n, population=0, index=0),
    },
)


def fan_ins_differ(case):
    def ways(neuron):
        here = case.net.post == case.net.offsets[neuron.population] + neuron.index
        return case.net.pre[here].tolist(), case.net.weight[here].tolist()

    return lambda first, second: ways(first) != ways(second)


def same_output(case):
    return lambda first, second: (
        first.address != second.address and case.output(first) == case.output(second)
    )


PLACE, NAME = ["circuits", "head", "address"], ["population", "index"]
table_of(
    lambda case, change: change(case),
    {
        "events_of_two_sources_swapped": lambda c: exchange(
            c, "sources", lambda member: member.events and c.feeds(member), ["events"]
        ),
        "places_of_two_neurons_swapped": lambda c: exchange(
            c, "neurons", lambda member: True, PLACE, fan_ins_differ(c)
        ),
        "names_of_two_neurons_swapped": lambda c: exchange(
            c, "neurons", lambda member: True, NAME, fan_ins_differ(c)
        ),
        "addresses_of_neurons_that_feed_swapped": lambda c: exchange(
            c, "neurons", c.feeds, ["address"], same_output(c)
        ),
    },
)


def unrecorded(case, number, population, index):
    """The mapping with one neuron of a run not recorded."""
    silenced = population, index
    neurons = tuple(
        replace(neuron, recorded=neuron.recorded and (neuron.population, neuron.index) != silenced)
        for neuron in case.mapping.runs[number].neurons
    )
    return case.with_run(number, neurons=neurons)


@corruption
def replayed_neuron_not_recorded(case):
    sources = [source for run in case.mapping.runs for source in run.sources]
    source = case.pick([source for source in sources if source.from_run is not None])
    return unrecorded(case, source.from_run, source.population, source.index)


@corruption
def output_not_recorded(case):
    index = case.pick(np.flatnonzero(case.net.outputs))
    population = int(case.net.owner[index])
    output = population, int(index - case.net.offsets[population])
    runs = [
        number
        for number, run in enumerate(case.mapping.runs)
        if any((neuron.population, neuron.index) == output for neuron in run.neurons)
    ]
    return unrecorded(case, case.pick(runs[:1]), *output)


# -- dead parts, runs and signs

table_of(
    lambda case, dead: (
        replace(
            case.mapping,
            dead=Dead(**dead(case, *case.run.synapses[case.draw(len(case.run.synapses))].tolist())),
        ),
        case.net,
    ),
    {
        "dead_circuit": lambda c, side, row, column, *_: {"circuits": ((side, column),)},
        "dead_row": lambda c, side, row, *_: {"rows": ((side, row),)},
        "dead_driver": lambda c, side, row, *_: {"drivers": ((side, row // 2),)},
        "dead_part_that_does_not_exist": lambda c, *_: {"rows": ((0, c.chip.rows),)},
    },
)


def grown(populations):
    *others, last = populations
    return (*others, replace(last, size=last.size + 1))


NOTHING = {"neurons": (), "sources": (), "synapses": np.zeros((0, 5), np.int32)}
QUANTIZATION = Quantization(
    speedup=500.0, refractory_time=1e-6, bias="refuse", v_leak=80, v_threshold=150, scale="max"
)
MORE = NetPopulation(name="more", size=1, external=False)
table_of(
    lambda case, change: change(case, case.mapping.runs, case.net.populations),
    {
        "run_missing": lambda c, runs, _: c.with_runs(*runs[: c.number], *runs[c.number + 1 :]),
        "run_twice": lambda c, runs, _: c.with_runs(*runs, runs[-1]),
        "run_without_neurons": lambda c, runs, _: c.with_runs(*runs, replace(runs[-1], **NOTHING)),
        "signs_of_no_kind": lambda c, *_: (replace(c.mapping, signs="any"), c.net),
        "fingerprint_of_another_net": lambda c, *_: (
            replace(c.mapping, fingerprint=c.mapping.fingerprint[::-1]),
            c.net,
        ),
        "quantization_of_another_mapping": lambda c, *_: (
            replace(c.mapping, quantization=QUANTIZATION),
            c.net,
        ),
        "net_with_a_population_of_another_name": lambda c, _, parts: c.with_net(
            populations=(replace(parts[0], name="other"), *parts[1:])
        ),
        "net_with_one_more_neuron": lambda c, _, parts: c.with_net(populations=grown(parts)),
        "net_with_one_more_population": lambda c, _, parts: c.with_net(populations=(*parts, MORE)),
    },
)


@corruption
def runs_swapped(case):
    first, *others = case.mapping.runs
    require(others and others[0].sources[0].from_run is not None)
    return case.with_runs(others[0], first, *others[1:])


@corruption
def neuron_in_another_run(case):
    require(len(case.mapping.runs) > 1)
    first, second, *others = case.mapping.runs
    neurons = list(first.neurons)
    moved = neurons.pop(case.draw(len(neurons)))
    return case.with_runs(
        replace(first, neurons=tuple(neurons)),
        replace(second, neurons=(*second.neurons, moved)),
        *others,
    )


@corruption
def recurrent_part_torn_apart(case):
    parts, neurons = case.net.recurrent_components(), case.run.neurons
    require(parts and len(parts[0]) > 1 and len(case.mapping.runs) == 1)
    half = len(neurons) // 2
    return case.with_runs(
        *(replace(case.run, neurons=part) for part in (neurons[:half], neurons[half:]))
    )


# -- changes of the net


@corruption
def net_with_another_weight(case):
    weight, place = case.net.weight.copy(), case.draw(len(case.net.weight))
    return case.with_net(
        weight=put(weight, place, weight[place] + (1 if weight[place] != -1 else 2))
    )


@corruption
def net_with_another_sign(case):
    weight, place = case.net.weight.copy(), case.draw(len(case.net.weight))
    return case.with_net(weight=put(weight, place, -weight[place]))


@corruption
def net_with_one_connection_less(case):
    place = case.draw(len(case.net.weight))
    arrays = ("pre", "post", "weight")
    return case.with_net(**{name: np.delete(getattr(case.net, name), place) for name in arrays})


@corruption
def net_with_one_connection_more(case):
    net = case.net
    pairs = itertools.product(range(net.size), np.flatnonzero(~net.external).tolist())
    connected = set(zip(net.pre.tolist(), net.post.tolist(), strict=True))
    pre, post = case.pick([pair for pair in pairs if pair not in connected])
    values = {"pre": pre, "post": post, "weight": 7}
    return case.with_net(
        **{name: np.append(getattr(net, name), value) for name, value in values.items()}
    )


@corruption
def populations_of_both_with_one_more_neuron(case):
    """The mapping knows of the neuron, and places it nowhere."""
    spoiled, changed = case.with_net(populations=grown(case.net.populations))
    return replace(spoiled, populations=grown(case.mapping.populations)), changed


def change_scales(case, scales):
    populations = [part.name for part in case.net.populations if not part.external]
    return replace(case.mapping, scales=scales(case, populations)), case.net


table_of(
    change_scales,
    {
        "scales_that_lack_a_population": lambda c, populations: dict.fromkeys(
            set(populations) - {c.pick(populations)}, 1.0
        ),
        "scale_of_a_population_that_the_net_has_not": lambda c, populations: dict.fromkeys(
            [*populations, "other"], 1.0
        ),
        "scales_of_another_mapping": lambda c, populations: dict.fromkeys(populations, 2.0),
    },
)
