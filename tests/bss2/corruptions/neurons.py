"""Places, addresses and names of neurons."""

import dataclasses

from jaxsnn.bss2.mapping import PlacedNeuron
from tests.bss2.corruptions.common import CORRUPTIONS, corruption, feeds, pick, some_run, with_run


def on_neuron(change):
    """Changes one neuron of a run; `change(neuron, mapping, run, random)` gives the neuron, or
    several.
    """

    def corrupt(mapping, net, random):
        number, run = some_run(mapping, random)
        neurons = list(run.neurons)
        place = int(random.integers(len(neurons)))
        changed = change(neurons[place], mapping, run, random)
        if changed is None:
            return None
        neurons[place : place + 1] = (
            [changed] if isinstance(changed, PlacedNeuron) else list(changed)
        )
        return with_run(mapping, number, neurons=tuple(neurons)), net

    CORRUPTIONS[change.__name__] = corrupt
    return change


@on_neuron
def address_of_another_neuron(neuron, mapping, run, random):
    chip = mapping.chip
    output = chip.output_of(neuron.circuits[neuron.head][1])
    near = [
        one
        for one in run.neurons
        if one is not neuron and chip.output_of(one.circuits[one.head][1]) == output
    ]
    other = pick(random, near)
    return None if other is None else dataclasses.replace(neuron, address=other.address)


@on_neuron
def address_beyond_the_last(neuron, mapping, run, random):
    return dataclasses.replace(neuron, address=1 << mapping.chip.address_bits)


@on_neuron
def head_that_it_has_not(neuron, mapping, run, random):
    return dataclasses.replace(neuron, head=len(neuron.circuits))


@on_neuron
def circuit_left_out(neuron, mapping, run, random):
    kept = neuron.circuits[:-1]
    used = {(side, column) for side, _, column, _, _ in run.synapses.tolist()}
    return (
        dataclasses.replace(neuron, circuits=kept, head=0) if neuron.circuits[-1] in used else None
    )


@on_neuron
def no_circuits(neuron, mapping, run, random):
    return dataclasses.replace(neuron, circuits=())


@on_neuron
def circuit_of_another_neuron(neuron, mapping, run, random):
    other = pick(random, [one for one in run.neurons if one is not neuron])
    return (
        None
        if other is None
        else dataclasses.replace(neuron, circuits=(*neuron.circuits, other.circuits[0]))
    )


@on_neuron
def circuit_twice(neuron, mapping, run, random):
    return dataclasses.replace(neuron, circuits=(*neuron.circuits, neuron.circuits[0]))


@on_neuron
def circuit_beyond_the_chip(neuron, mapping, run, random):
    return dataclasses.replace(neuron, circuits=(*neuron.circuits, (0, mapping.chip.columns)))


@on_neuron
def circuit_far_away(neuron, mapping, run, random):
    chip = mapping.chip
    taken = {circuit for one in run.neurons for circuit in one.circuits}
    far = [
        (row, column)
        for row in range(2)
        for column in range(chip.columns)
        if (row, column) not in taken and min(abs(column - own) for _, own in neuron.circuits) > 1
    ]
    return (
        dataclasses.replace(neuron, circuits=(*neuron.circuits, pick(random, far))) if far else None
    )


@on_neuron
def circuits_over_the_border(neuron, mapping, run, random):
    middle = mapping.chip.half_columns
    return dataclasses.replace(neuron, circuits=((0, middle - 1), (0, middle)), head=0)


@on_neuron
def neuron_removed(neuron, mapping, run, random):
    return ()


@on_neuron
def neuron_placed_twice(neuron, mapping, run, random):
    return (neuron, neuron)


@on_neuron
def neuron_that_the_net_has_not(neuron, mapping, run, random):
    return dataclasses.replace(neuron, index=10**6)


@on_neuron
def neuron_of_a_population_of_inputs(neuron, mapping, run, random):
    return dataclasses.replace(neuron, population=0, index=0)


def swap_neurons(mapping, net, random, *fields):
    """Exchange some fields of two neurons of a run whose fan-in differs."""
    number, run = some_run(mapping, random)
    neurons = list(run.neurons)
    if len(neurons) < 2:
        return None
    first, second = (int(place) for place in random.choice(len(neurons), 2, replace=False))
    ways = []
    for place in (first, second):
        here = net.post == net.offsets[neurons[place].population] + neurons[place].index
        ways.append((net.pre[here].tolist(), net.weight[here].tolist()))
    if ways[0] == ways[1]:
        return None
    a, b = (
        {field: getattr(neurons[place], field) for field in fields} for place in (first, second)
    )
    neurons[first], neurons[second] = (
        dataclasses.replace(neurons[first], **b),
        dataclasses.replace(neurons[second], **a),
    )
    return with_run(mapping, number, neurons=tuple(neurons)), net


@corruption
def places_of_two_neurons_swapped(mapping, net, random):
    return swap_neurons(mapping, net, random, "circuits", "head", "address")


@corruption
def names_of_two_neurons_swapped(mapping, net, random):
    return swap_neurons(mapping, net, random, "population", "index")


@corruption
def addresses_of_neurons_that_feed_swapped(mapping, net, random):
    number, run = some_run(mapping, random)
    chip = mapping.chip
    feeding = [place for place, one in enumerate(run.neurons) if feeds(net, one, run)]
    if len(feeding) < 2:
        return None
    first, second = (int(place) for place in random.choice(feeding, 2, replace=False))
    neurons = list(run.neurons)
    if neurons[first].address == neurons[second].address:
        return None
    outputs = [
        chip.output_of(neurons[place].circuits[neurons[place].head][1]) for place in (first, second)
    ]
    if outputs[0] != outputs[1]:
        return None
    neurons[first], neurons[second] = (
        dataclasses.replace(neurons[first], address=neurons[second].address),
        dataclasses.replace(neurons[second], address=neurons[first].address),
    )
    return with_run(mapping, number, neurons=tuple(neurons)), net


@corruption
def replayed_neuron_not_recorded(mapping, net, random):
    replayed = [one for run in mapping.runs for one in run.sources if one.from_run is not None]
    source = pick(random, replayed)
    if source is None:
        return None
    named = (source.population, source.index)
    neurons = tuple(
        dataclasses.replace(one, recorded=one.recorded and (one.population, one.index) != named)
        for one in mapping.runs[source.from_run].neurons
    )
    return with_run(mapping, source.from_run, neurons=neurons), net
