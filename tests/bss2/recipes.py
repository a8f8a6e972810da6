"""Mappings made by hand, so that the checker is tested without any placer or router."""

import numpy as np

from jaxsnn.bss2.chip import EXCITATORY, HICANN_X, INHIBITORY, NOTHING_DEAD, Chip, crossbar_nodes
from jaxsnn.bss2.mapping import Mapping, PlacedNeuron, PlacedPopulation, Run, Source
from jaxsnn.bss2.netlist import Netlist, NetPopulation, netlist


def dense_net(*sizes: int, seed: int = 0, names: tuple[str, ...] = ()) -> Netlist:
    """A feed-forward net whose weights are all between 1 and 63, or their negatives."""
    names = names or ("in", *(f"layer{number}" for number in range(1, len(sizes))))
    random = np.random.default_rng(seed)
    starts = np.cumsum([0, *sizes])
    pre, post = [], []
    for layer in range(len(sizes) - 1):
        sources, targets = np.meshgrid(np.arange(sizes[layer]), np.arange(sizes[layer + 1]))
        pre.append(starts[layer] + sources.ravel())
        post.append(starts[layer + 1] + targets.ravel())
    pre, post = np.concatenate(pre), np.concatenate(post)
    weight = random.integers(1, 64, pre.size) * random.choice([-1, 1], pre.size)
    populations = [
        NetPopulation(name=name, size=size, external=number == 0)
        for number, (name, size) in enumerate(zip(names, sizes, strict=True))
    ]
    return netlist(populations, pre, post, weight)


def populations_of(net: Netlist) -> tuple[PlacedPopulation, ...]:
    return tuple(
        PlacedPopulation(name=one.name, size=one.size, external=one.external)
        for one in net.populations
    )


def alternating_modes(chip: Chip) -> np.ndarray:
    """Even rows excite, odd rows inhibit."""
    return np.tile(np.array([EXCITATORY, INHIBITORY], np.int8), (2, chip.drivers))


def crossbar(chip: Chip, neuron_filter) -> np.ndarray:
    """Filters of all nodes: link j goes to bus j, bit 13 says "not top", bit 12 "not bottom"; the
    rest as told.

    `neuron_filter(event output, crossbar output)` is (mask, target) of a node behind neurons.
    """
    top, bottom = 1 << (chip.event_bits - 1), 1 << (chip.event_bits - 2)
    drop = (0, 1)
    table = []
    for entry, output in crossbar_nodes(chip):
        if entry < chip.outputs:
            mask, target = neuron_filter(entry, output)
        elif (
            entry < chip.outputs + chip.buses
            and output % chip.buses == entry - chip.outputs < chip.buses
        ):
            hemisphere = output // chip.buses
            mask, target = ((top, 0), (bottom, 0), drop)[hemisphere]
        else:
            mask, target = drop
        table.append((entry, output, mask, target))
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

    where, placed, sent = (
        {},
        [],
        [],
    )  # where: global index of a source -> hemisphere, bus, group, label
    for column, index in enumerate(neurons):
        group, label = column // 4 % groups, column % 32
        where[index] = (0 if column >= 128 else 1, chip.bus_of(column), group, label)
        population = int(net.owner[index])
        placed.append(
            PlacedNeuron(
                population=population,
                index=index - int(net.offsets[population]),
                circuits=((0, column), (1, column)),
                head=0,
                address=group << chip.label_bits | label,
                recorded=True,
            )
        )
    for number, (index, origin) in enumerate(sorted(sources.items())):
        hemisphere, bus, group = number % 2, number // 2 % 4, number // 8 % groups
        label = 32 + number // (8 * groups)
        where[index] = (hemisphere, bus, group, label)
        population = int(net.owner[index])
        address = (bottom if hemisphere == 0 else top) | group << chip.label_bits | label
        sent.append(
            Source(
                population=population,
                index=index - int(net.offsets[population]),
                from_run=origin,
                events=(bus << chip.event_bits | address,),
            )
        )
    return Run(
        method="by hand",
        neurons=tuple(placed),
        sources=tuple(sent),
        compare_masks=np.full((2, chip.drivers), groups - 1, np.int32),
        row_modes=alternating_modes(chip),
        synapses=fill(chip, net, neurons, where, groups),
        crossbar=crossbar(chip, neuron_filter),
    )


def fill(
    chip: Chip, net: Netlist, neurons: range, where: dict[int, tuple[int, ...]], groups: int
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
        hemisphere, bus, group, label = where[pre]
        column = neurons.index(post)
        left = abs(weight)
        while left > 0:
            driver = chip.driver_at(bus, int(free[hemisphere, bus, group, column]) * groups + group)
            free[hemisphere, bus, group, column] += 1
            rows.append((hemisphere, 2 * driver + (weight < 0), column, label, min(left, 63)))
            left -= 63
    assert free.max() <= chip.drivers_per_bus // groups
    return np.array(sorted(rows), np.int32).reshape(-1, 5)


def mapping_of(net: Netlist, *runs: Run, signs: str = "free") -> Mapping:
    return Mapping(
        chip=HICANN_X,
        dead=NOTHING_DEAD,
        signs=signs,
        seed=0,
        fingerprint=net.fingerprint(),
        populations=populations_of(net),
        runs=runs,
    )


def one_run_mapping(net: Netlist, groups: int = 1, signs: str = "free") -> Mapping:
    """All neurons at once; the inputs are the first population."""
    first = int(net.offsets[1])
    return mapping_of(
        net,
        stage(HICANN_X, net, range(first, net.size), dict.fromkeys(range(first)), groups),
        signs=signs,
    )


def layer_by_layer_mapping(net: Netlist, groups: int = 1, signs: str = "free") -> Mapping:
    """One run for each layer, fed with what the run before recorded."""
    runs = []
    for layer in range(1, len(net.populations)):
        before = range(int(net.offsets[layer - 1]), int(net.offsets[layer]))
        origin = None if layer == 1 else layer - 2
        neurons = range(int(net.offsets[layer]), int(net.offsets[layer + 1]))
        runs.append(stage(HICANN_X, net, neurons, dict.fromkeys(before, origin), groups))
    return mapping_of(net, *runs, signs=signs)


def recurrent_net(inputs: int, neurons: int, seed: int = 0, largest: int = 63) -> Netlist:
    """Inputs to all neurons, and all neurons to all others."""
    random = np.random.default_rng(seed)
    pre, post = np.meshgrid(np.arange(inputs + neurons), inputs + np.arange(neurons))
    pre, post = pre.ravel(), post.ravel()
    kept = pre != post
    weight = random.integers(1, largest + 1, pre.size) * random.choice([-1, 1], pre.size)
    populations = [NetPopulation(name="in", size=inputs, external=True)]
    populations.append(NetPopulation(name="loop", size=neurons, external=False))
    return netlist(populations, pre[kept], post[kept], weight[kept])
