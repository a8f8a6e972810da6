"""Walks through a mapping in a few loops: what each spike of each source does to each neuron.

Slow, and independent of the checker: imports nothing of jaxsnn and follows the description of the
chip alone. Where it and the checker share a mistake of reading that, nothing helps.
"""

from collections import defaultdict

EXC, INH, BOTH = 1, 2, 3


def effects(mapping, run):
    """(source, neuron) -> [exciting weight, inhibiting weight] of one run; both named (population,
    index).
    """
    chip, weights = mapping.chip, defaultdict(lambda: [0, 0])
    label_mask, select_mask = 2**chip.label_bits - 1, 2**chip.row_select_bits - 1
    at = {
        circuit: (neuron.population, neuron.index)
        for neuron in run.neurons
        for circuit in neuron.circuits
    }
    for sender, entry, address in sent(mapping, run):
        for node_in, node_out, mask, target in run.crossbar.tolist():
            if node_in != entry or address & mask != target or node_out >= 2 * chip.buses:
                continue
            hemisphere, bus = divmod(node_out, chip.buses)
            for side, row, column, label, weight in run.synapses.tolist():
                driver = row // 2
                if (
                    side != hemisphere
                    or driver % chip.buses != bus
                    or label != address & label_mask
                ):
                    continue
                compare = int(run.compare_masks[side, driver])
                if (
                    address >> chip.label_bits & select_mask
                ) & compare != driver // chip.buses & compare:
                    continue
                if (side, column) not in at:
                    continue
                mode = int(run.row_modes[side, row])
                effect = weights[sender, at[side, column]]
                effect[0] += weight if mode in (EXC, BOTH) else 0
                effect[1] += weight if mode in (INH, BOTH) else 0
    return {pair: effect for pair, effect in weights.items() if effect != [0, 0]}


def sent(mapping, run):
    """Sender, crossbar input and address inside the chip of every kind of event."""
    chip = mapping.chip
    width = chip.columns // (chip.halves * chip.buses)
    inner = chip.label_bits + chip.row_select_bits + chip.filter_bits
    for sender in run.neurons:
        output = sender.circuits[sender.head][1] // width
        bits = (chip.halves * chip.buses - 1).bit_length()
        yield (
            (sender.population, sender.index),
            output,
            output << (chip.label_bits + chip.row_select_bits - bits) | sender.address,
        )
    for sender in run.sources:
        for event in sender.events:
            yield (
                (sender.population, sender.index),
                chip.halves * chip.buses + (event >> inner),
                event & (2**inner - 1),
            )


def expected_effects(mapping, net, run):
    """The same of the net, for the synapses onto the run's neurons."""
    here = {(neuron.population, neuron.index) for neuron in run.neurons}

    def named(index):
        population = int(net.owner[index])
        return population, index - int(net.offsets[population])

    weights = {}
    for pre, post, weight in zip(
        net.pre.tolist(), net.post.tolist(), net.weight.tolist(), strict=True
    ):
        if named(post) in here:
            weights[named(pre), named(post)] = [max(weight, 0), max(-weight, 0)]
    return weights


def is_right(mapping, net):
    """Whether every run does what the net says."""
    return all(effects(mapping, run) == expected_effects(mapping, net, run) for run in mapping.runs)
