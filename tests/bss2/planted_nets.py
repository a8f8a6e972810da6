"""Nets that fit into one run by construction: neurons, sources and rows of a full chip are chosen
first, and the net is then read off.

All drivers compare the same low bits of the row select, so that they form groups; even rows are
excitatory, odd rows inhibitory, and every source reaches both hemispheres.
"""

from dataclasses import dataclass

import numpy as np

from jaxsnn.bss2.chip import HEMISPHERES, HICANN_X, NOTHING_DEAD
from jaxsnn.bss2.netlist import Netlist, NetPopulation, netlist
from jaxsnn.bss2.search.bins import EVERYWHERE, Assignment, bins_of
from jaxsnn.bss2.search.place import Placement
from jaxsnn.bss2.search.task import Task, task_of, usable_parts


@dataclass(frozen=True, kw_only=True)
class PlantedNet:
    """A net, and the placement and the assignment of sources from which it was read off."""

    net: Netlist
    groups: int
    placement: Placement
    assignment: Assignment

    @property
    def task(self) -> Task:
        neurons = np.flatnonzero(~self.net.external)
        return task_of(self.net, usable_parts(HICANN_X, NOTHING_DEAD), "fixed", neurons)


def planted_net(
    seed: int,
    *,
    inputs: int = 0,
    neurons: int = 400,
    fan_in: int = 208,
    groups: int = 2,
    recurrent: bool = True,
    even: bool = False,
) -> PlantedNet:
    """Return a net of single-circuit neurons that are fed by inputs and, if recurrent, by each
    other.

    Args:
        seed: Random seed of circuits, bins, connections and weights.
        inputs: Number of input channels.
        neurons: Number of neurons.
        fan_in: Number of synapses of each neuron, at most 256.
        groups: Number of groups of drivers per bus.
        recurrent: Whether neurons are sources.
        even: Each neuron uses the same number of rows of all bins and signs; otherwise random rows.
    """
    chip, rng = HICANN_X, np.random.default_rng(seed)
    bins = bins_of(usable_parts(chip, NOTHING_DEAD), "fixed", groups)
    number_of_bins = chip.buses * groups
    slots = int(bins.sizes()[0, 0]) // 2  # of each sign
    while True:
        places = rng.permutation(chip.circuits)[:neurons]
        buses = np.array([chip.bus_of(int(place) % chip.columns) for place in places])
        neuron_bins = buses * groups + rng.integers(groups, size=neurons)
        input_bins = rng.permutation(np.arange(inputs) % number_of_bins)
        source_bins = np.concatenate([input_bins, neuron_bins] if recurrent else [input_bins])
        if np.bincount(source_bins, minlength=number_of_bins).max() <= chip.labels:
            break
    members = [np.flatnonzero(source_bins == number) for number in range(number_of_bins)]
    pre, post, sign = [], [], []
    for neuron in range(neurons):
        rows = np.full(2 * number_of_bins, fan_in // (2 * number_of_bins))
        if not even:
            rows = np.bincount(
                rng.permutation(2 * number_of_bins * slots)[:fan_in] // slots,
                minlength=2 * number_of_bins,
            )
        for sources, (excites, inhibits) in zip(members, rows.reshape(-1, 2), strict=True):
            pre.append(rng.permutation(sources)[: excites + inhibits])
            post.append(np.full(len(pre[-1]), inputs + neuron))
            sign.append(np.where(np.arange(len(pre[-1])) < excites, 1, -1))
    weight = np.concatenate(sign) * rng.integers(1, 64, len(np.concatenate(sign)))
    populations = [
        NetPopulation(name="inputs", size=inputs, external=True),
        NetPopulation(name="neurons", size=neurons, external=False),
    ]
    net = netlist(populations[not inputs :], np.concatenate(pre), np.concatenate(post), weight)
    return PlantedNet(
        net=net,
        groups=groups,
        placement=Placement(
            chip=chip,
            circuits=tuple((divmod(int(place), chip.columns),) for place in places),
        ),
        assignment=Assignment(
            bins=source_bins,
            modes=np.full(len(source_bins), EVERYWHERE),
            split=np.full((HEMISPHERES, 2, number_of_bins), slots),
            overflow=0,
        ),
    )
