"""Mappings made by hand, so that the checker is tested without any placer or router."""

import itertools

import numpy as np

from jaxsnn.bss2.chip import EXCITATORY, HICANN_X, INHIBITORY, NOTHING_DEAD, Chip, crossbar_nodes
from jaxsnn.bss2.mapping import Mapping, PlacedNeuron, PlacedPopulation, Run, Source
from jaxsnn.bss2.netlist import Netlist, NetPopulation, netlist


def population_list(*parts: tuple[str, int]) -> list[NetPopulation]:
    """Populations of (name, size), the first one of inputs."""
    return [
        NetPopulation(name=name, size=size, external=number == 0)
        for number, (name, size) in enumerate(parts)
    ]


def signed(random: np.random.Generator, size: int, largest: int = 63) -> np.ndarray:
    """Weights from 1 to the largest, or their negatives."""
    return random.integers(1, largest + 1, size) * random.choice([-1, 1], size)


def dense_net(*sizes: int, seed: int = 0, population_names: tuple[str, ...] = ()) -> Netlist:
    """A feed-forward net whose weights are all between 1 and 63, or their negatives."""
    population_names = population_names or (
        "in",
        *(f"layer{number}" for number in range(1, len(sizes))),
    )
    starts = np.cumsum([0, *sizes])
    layers = [np.arange(*ends) for ends in itertools.pairwise(starts)]
    pre, post = np.concatenate(
        [np.reshape(np.meshgrid(*ends), (2, -1)) for ends in itertools.pairwise(layers)], axis=1
    )
    weight = signed(np.random.default_rng(seed), pre.size)
    return netlist(population_list(*zip(population_names, sizes, strict=True)), pre, post, weight)


def populations_of(net: Netlist) -> tuple[PlacedPopulation, ...]:
    return tuple(
        PlacedPopulation(name=part.name, size=part.size, external=part.external)
        for part in net.populations
    )


def crossbar(chip: Chip, neuron_filter) -> np.ndarray:
    """Filters of all nodes: link j goes to bus j, bit 13 says "not top", bit 12 "not bottom"; the
    rest as told.

    `neuron_filter(event output, crossbar output)` is (mask, target) of a node behind neurons.
    """
    top, bottom = 1 << (chip.event_bits - 1), 1 << (chip.event_bits - 2)
    table = []
    for entry, output in crossbar_nodes(chip):
        hemisphere, bus = divmod(output, chip.buses)
        if entry < chip.outputs:
            rule = neuron_filter(entry, output)
        elif entry == chip.outputs + bus and hemisphere < 2:
            rule = (top, bottom)[hemisphere], 0
        else:
            rule = 0, 1  # drop
        table.append((entry, output, *rule))
    return np.array(table, np.int32)


def stage(
    chip: Chip, net: Netlist, neurons: range, sources: dict[int, int | None], groups: int = 1
) -> Run:
    """One run by the recipe for full chips: neuron number j is on both circuits of column j.

    The compare masks split each bus into 1, 2 or 4 groups of sources; inside a group all its
    drivers hear every source, and synapses select by label. Neurons in the left half send to bottom
    buses, those in the right half to top buses, with labels 0 to 31; the host's events have labels
    32 to 63.

    Args:
        chip: HICANN_X.
        net: the net.
        neurons: global indices of the neurons of the run.
        sources: global index of each source from the host -> the run that recorded it, None for an
            input channel.
        groups: of a bus.
    """
    top, bottom = 1 << (chip.event_bits - 1), 1 << (chip.event_bits - 2)

    def neuron_filter(entry, output):
        side = 1 if entry < chip.buses else 0
        return (0, 0) if output // chip.buses in (side, 2) else (0, 1)

    def name_of(index):
        population = int(net.owner[index])
        return {"population": population, "index": index - int(net.offsets[population])}

    heard = {}  # global index of a source -> hemisphere, bus, group, label
    placed, sent = [], []
    for column, index in enumerate(neurons):
        group, label = column // 4 % groups, column % 32
        heard[index] = (0 if column >= 128 else 1, chip.bus_of(column), group, label)
        address = group << chip.label_bits | label
        circuits = ((0, column), (1, column))
        placed.append(
            PlacedNeuron(
                **name_of(index), circuits=circuits, head=0, address=address, recorded=True
            )
        )
    for number, (index, origin) in enumerate(sorted(sources.items())):
        hemisphere, bus, group = number % 2, number // 2 % 4, number // 8 % groups
        label = 32 + number // (8 * groups)
        heard[index] = (hemisphere, bus, group, label)
        address = (bottom, top)[hemisphere] | group << chip.label_bits | label
        events = (bus << chip.event_bits | address,)
        sent.append(Source(**name_of(index), from_run=origin, events=events))
    return Run(
        method="by hand",
        neurons=tuple(placed),
        sources=tuple(sent),
        compare_masks=np.full((2, chip.drivers), groups - 1, np.int32),
        # even rows excite, odd rows inhibit
        row_modes=np.tile(np.array([EXCITATORY, INHIBITORY], np.int8), (2, chip.drivers)),
        synapses=fill(chip, net, neurons, heard, groups),
        crossbar=crossbar(chip, neuron_filter),
    )


def fill(
    chip: Chip, net: Netlist, neurons: range, heard: dict[int, tuple[int, ...]], groups: int
) -> np.ndarray:
    """Each synapse, or each part of a weight beyond 63, takes the next free driver of its source's
    group.
    """
    free = np.zeros((2, chip.buses, groups, chip.columns), int)
    rows = []
    for pre, post, weight in zip(
        net.pre.tolist(), net.post.tolist(), net.weight.tolist(), strict=True
    ):
        if post not in neurons:
            continue
        hemisphere, bus, group, label = heard[pre]
        column = neurons.index(post)
        for begin in range(0, abs(weight), 63):
            driver = chip.driver_at(bus, int(free[hemisphere, bus, group, column]) * groups + group)
            free[hemisphere, bus, group, column] += 1
            part = min(abs(weight) - begin, 63)
            rows.append((hemisphere, 2 * driver + (weight < 0), column, label, part))
    assert free.max() <= chip.drivers_per_bus // groups
    return np.array(sorted(rows), np.int32).reshape(-1, 5)


def mapping_of(net: Netlist, *runs: Run, signs: str = "free") -> Mapping:
    return Mapping(
        chip=HICANN_X,
        dead=NOTHING_DEAD,
        signs=signs,
        seed=0,
        fingerprint=net.fingerprint(quantization=net.quantization),
        populations=populations_of(net),
        runs=runs,
        quantization=net.quantization,
    )


def one_run_mapping(net: Netlist, groups: int = 1, signs: str = "free") -> Mapping:
    """All neurons at once; the inputs are the first population."""
    first = int(net.offsets[1])
    sources = dict.fromkeys(range(first))
    run = stage(HICANN_X, net, range(first, net.size), sources, groups)
    return mapping_of(net, run, signs=signs)


def layer_by_layer_mapping(net: Netlist, groups: int = 1, signs: str = "free") -> Mapping:
    """One run for each layer, fed with what the run before recorded."""
    layers = [range(*ends) for ends in itertools.pairwise(net.offsets.tolist())]
    runs = [
        stage(HICANN_X, net, neurons, dict.fromkeys(before, number - 1 if number else None), groups)
        for number, (before, neurons) in enumerate(itertools.pairwise(layers))
    ]
    return mapping_of(net, *runs, signs=signs)


def recurrent_net(inputs: int, neurons: int, seed: int = 0, largest: int = 63) -> Netlist:
    """Inputs to all neurons, and all neurons to all others."""
    pre, post = np.meshgrid(np.arange(inputs + neurons), inputs + np.arange(neurons))
    pre, post = pre.ravel(), post.ravel()
    weight, others = signed(np.random.default_rng(seed), pre.size, largest), pre != post
    parts = population_list(("in", inputs), ("loop", neurons))
    return netlist(parts, pre[others], post[others], weight[others])


def thinned(full: Netlist, chosen: np.ndarray) -> Netlist:
    """A net with some of another one's synapses."""
    return netlist(full.populations, full.pre[chosen], full.post[chosen], full.weight[chosen])
