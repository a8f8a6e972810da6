"""Dead parts, runs, signs, and the net itself."""

import dataclasses

import numpy as np

from jaxsnn.bss2.chip import Dead
from jaxsnn.bss2.netlist import Netlist, NetPopulation, netlist
from tests.bss2.corruptions.common import corruption, pick, some_run, with_run


def with_dead(mapping, **parts):
    return dataclasses.replace(mapping, dead=Dead(**parts))


@corruption
def dead_circuit(mapping, net, random):
    _, run = some_run(mapping, random)
    return with_dead(mapping, circuits=(pick(random, pick(random, run.neurons).circuits),)), net


@corruption
def dead_row(mapping, net, random):
    _, run = some_run(mapping, random)
    return with_dead(
        mapping, rows=(tuple(run.synapses[int(random.integers(len(run.synapses))), :2].tolist()),)
    ), net


@corruption
def dead_driver(mapping, net, random):
    _, run = some_run(mapping, random)
    side, row = run.synapses[int(random.integers(len(run.synapses))), :2].tolist()
    return with_dead(mapping, drivers=((side, row // 2),)), net


@corruption
def dead_part_that_does_not_exist(mapping, net, random):
    return with_dead(mapping, rows=((0, mapping.chip.rows),)), net


@corruption
def run_missing(mapping, net, random):
    number, _ = some_run(mapping, random)
    return dataclasses.replace(
        mapping, runs=mapping.runs[:number] + mapping.runs[number + 1 :]
    ), net


@corruption
def runs_swapped(mapping, net, random):
    if len(mapping.runs) < 2 or mapping.runs[1].sources[0].from_run is None:
        return None
    return dataclasses.replace(
        mapping, runs=(mapping.runs[1], mapping.runs[0], *mapping.runs[2:])
    ), net


@corruption
def run_twice(mapping, net, random):
    return dataclasses.replace(mapping, runs=(*mapping.runs, mapping.runs[-1])), net


@corruption
def neuron_in_another_run(mapping, net, random):
    if len(mapping.runs) < 2:
        return None
    neurons = list(mapping.runs[0].neurons)
    moved = neurons.pop(int(random.integers(len(neurons))))
    changed = with_run(mapping, 0, neurons=tuple(neurons))
    return with_run(changed, 1, neurons=(*mapping.runs[1].neurons, moved)), net


@corruption
def recurrent_part_torn_apart(mapping, net, random):
    parts = net.recurrent_components()
    if not parts or len(parts[0]) < 2 or len(mapping.runs) > 1:
        return None
    run = mapping.runs[0]
    half = len(run.neurons) // 2
    first, second = (
        dataclasses.replace(run, neurons=part) for part in (run.neurons[:half], run.neurons[half:])
    )
    return dataclasses.replace(mapping, runs=(first, second)), net


@corruption
def signs_said_to_be_free(mapping, net, random):
    """The other row of a driver gets the sign of the one that has synapses."""
    if mapping.signs != "free":
        return None
    number, run = some_run(mapping, random)
    side, row = run.synapses[int(random.integers(len(run.synapses))), :2].tolist()
    modes = run.row_modes.copy()
    modes[side, row ^ 1] = modes[side, row]
    return with_run(mapping, number, row_modes=modes), net


@corruption
def signs_of_no_kind(mapping, net, random):
    return dataclasses.replace(mapping, signs="any"), net


def changed_net(mapping, net, populations=None, pre=None, post=None, weight=None):
    changed: Netlist = netlist(
        net.populations if populations is None else populations,
        net.pre if pre is None else pre,
        net.post if post is None else post,
        net.weight if weight is None else weight,
    )
    return dataclasses.replace(mapping, fingerprint=changed.fingerprint()), changed


@corruption
def net_with_another_weight(mapping, net, random):
    weight = net.weight.copy()
    place = int(random.integers(len(weight)))
    weight[place] += 1 if weight[place] != -1 else 2
    return changed_net(mapping, net, weight=weight)


@corruption
def net_with_another_sign(mapping, net, random):
    weight = net.weight.copy()
    weight[int(random.integers(len(weight)))] *= -1
    return changed_net(mapping, net, weight=weight)


@corruption
def net_with_one_connection_less(mapping, net, random):
    place = int(random.integers(len(net.weight)))
    less = [np.delete(part, place) for part in (net.pre, net.post, net.weight)]
    return changed_net(mapping, net, None, *less)


@corruption
def net_with_one_connection_more(mapping, net, random):
    internal = np.flatnonzero(~net.external)
    known = set(zip(net.pre.tolist(), net.post.tolist(), strict=True))
    for _ in range(100):
        pre, post = int(random.integers(net.size)), int(pick(random, internal))
        if (pre, post) not in known:
            more = [
                np.append(part, one)
                for part, one in ((net.pre, pre), (net.post, post), (net.weight, 7))
            ]
            return changed_net(mapping, net, None, *more)
    return None


@corruption
def net_with_a_population_of_another_name(mapping, net, random):
    first, *others = net.populations
    return changed_net(
        mapping, net, populations=(dataclasses.replace(first, name="other"), *others)
    )


@corruption
def net_with_one_more_neuron(mapping, net, random):
    *others, last = net.populations
    return changed_net(
        mapping, net, populations=(*others, dataclasses.replace(last, size=last.size + 1))
    )


@corruption
def net_with_one_more_population(mapping, net, random):
    return changed_net(
        mapping,
        net,
        populations=(*net.populations, NetPopulation(name="more", size=1, external=False)),
    )


@corruption
def populations_of_both_with_one_more_neuron(mapping, net, random):
    """The mapping knows of the neuron, and places it nowhere."""
    *others, last = net.populations
    spoiled, changed = changed_net(
        mapping, net, populations=(*others, dataclasses.replace(last, size=last.size + 1))
    )
    *known, placed = mapping.populations
    more = (*known, dataclasses.replace(placed, size=placed.size + 1))
    return dataclasses.replace(spoiled, populations=more), changed


@corruption
def fingerprint_of_another_net(mapping, net, random):
    return dataclasses.replace(mapping, fingerprint=mapping.fingerprint[::-1]), net


@corruption
def run_without_neurons(mapping, net, random):
    empty = dataclasses.replace(
        mapping.runs[-1], neurons=(), sources=(), synapses=np.zeros((0, 5), np.int32)
    )
    return dataclasses.replace(mapping, runs=(*mapping.runs, empty)), net


@corruption
def output_not_recorded(mapping, net, random):
    asked = np.flatnonzero(net.outputs)
    if not asked.size:
        return None
    index = int(pick(random, asked))
    number = int(net.owner[index])
    named = number, index - int(net.offsets[number])
    for place, run in enumerate(mapping.runs):
        if any((one.population, one.index) == named for one in run.neurons):
            neurons = tuple(
                dataclasses.replace(
                    one, recorded=one.recorded and (one.population, one.index) != named
                )
                for one in run.neurons
            )
            return with_run(mapping, place, neurons=neurons), net
    return None


@corruption
def scales_that_lack_a_population(mapping, net, random):
    names = [part.name for part in net.populations if not part.external]
    names.remove(pick(random, names))
    return dataclasses.replace(mapping, scales=dict.fromkeys(names, 1.0)), net


@corruption
def scale_of_a_population_that_the_net_has_not(mapping, net, random):
    names = [part.name for part in net.populations if not part.external]
    return dataclasses.replace(mapping, scales=dict.fromkeys([*names, "other"], 1.0)), net


@corruption
def scales_of_another_mapping(mapping, net, random):
    names = [part.name for part in net.populations if not part.external]
    return dataclasses.replace(mapping, scales=dict.fromkeys(names, 2.0)), net
