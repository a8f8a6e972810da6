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
    return tuple(PlacedPopulation(name=one.name, size=one.size, external=one.external) for one in net.populations)


def alternating_modes(chip: Chip) -> np.ndarray:
    """Even rows excite, odd rows inhibit."""
    return np.tile(np.array([EXCITATORY, INHIBITORY], np.int8), (2, chip.drivers))


def crossbar(chip: Chip, neuron_filter) -> np.ndarray:
    """Filters of all nodes: link j goes to bus j, bit 13 says "not top", bit 12 "not bottom"; the rest as told.

    `neuron_filter(event output, crossbar output)` is (mask, target) of a node behind neurons.
    """
    top, bottom = 1 << (chip.event_bits - 1), 1 << (chip.event_bits - 2)
    drop = (0, 1)
    table = []
    for entry, output in crossbar_nodes(chip):
        if entry < chip.outputs:
            mask, target = neuron_filter(entry, output)
        elif entry < chip.outputs + chip.buses and output % chip.buses == entry - chip.outputs < chip.buses:
            hemisphere = output // chip.buses
            mask, target = ((top, 0), (bottom, 0), drop)[hemisphere]
        else:
            mask, target = drop
        table.append((entry, output, mask, target))
    return np.array(table, np.int32)


def two_circuit_mapping(net: Netlist, signs: str = "free") -> Mapping:
    """A net of one hidden layer with up to 256 inputs and neurons: neuron j on both circuits of column j.

    Compare masks are 0: all drivers of a bus hear everything on it, and synapses select by label. Neurons in the left
    half send to bottom buses, those in the right half to top buses, with labels 0 to 31; inputs have labels 32 to 63.
    """
    chip = HICANN_X
    inputs, hidden, outputs = (part.size for part in net.populations)
    top, bottom = 1 << (chip.event_bits - 1), 1 << (chip.event_bits - 2)

    def neuron_filter(entry, output):
        side = 1 if entry < chip.buses else 0
        return (0, 0) if output // chip.buses in (side, 2) else (0, 1)

    where = {}  # global index of a source -> hemisphere, bus, label
    neurons, sources = [], []
    for column in range(hidden + outputs):
        population, index = (1, column) if column < hidden else (2, column - hidden)
        where[inputs + column] = (0 if column >= 128 else 1, chip.bus_of(column), column % 32)
        neurons.append(
            PlacedNeuron(
                population=population,
                index=index,
                circuits=((0, column), (1, column)),
                head=0,
                address=column % 32,
                recorded=True,
            )
        )
    for index in range(inputs):
        hemisphere, bus, label = index // 128, index % 4, 32 + (index // 4) % 32
        where[index] = (hemisphere, bus, label)
        event = bus << chip.event_bits | (bottom if hemisphere == 0 else top) | label
        sources.append(Source(population=0, index=index, from_run=None, events=(event,)))
    run = Run(
        method="by hand",
        neurons=tuple(neurons),
        sources=tuple(sources),
        compare_masks=np.zeros((2, chip.drivers), np.int32),
        row_modes=alternating_modes(chip),
        synapses=fill(chip, net, where),
        crossbar=crossbar(chip, neuron_filter),
    )
    return Mapping(
        chip=chip,
        dead=NOTHING_DEAD,
        signs=signs,
        seed=0,
        fingerprint=net.fingerprint(),
        populations=populations_of(net),
        runs=(run,),
    )


def fill(chip: Chip, net: Netlist, where: dict[int, tuple[int, int, int]]) -> np.ndarray:
    """Each synapse takes the next free driver of its source's bus in its target's column."""
    first = int(net.offsets[1])
    free = np.zeros((2, chip.buses, chip.columns), int)
    rows = []
    for pre, post, weight in zip(net.pre.tolist(), net.post.tolist(), net.weight.tolist(), strict=True):
        hemisphere, bus, label = where[pre]
        column = post - first
        driver = chip.driver_at(bus, int(free[hemisphere, bus, column]))
        free[hemisphere, bus, column] += 1
        rows.append((hemisphere, 2 * driver + (weight < 0), column, label, abs(weight)))
    assert free.max() <= chip.drivers_per_bus
    return np.array(sorted(rows), np.int32).reshape(-1, 5)
