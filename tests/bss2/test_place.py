"""All placers: legal shapes on living circuits, or nothing where they cannot fit."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxsnn.bss2.chip import HICANN_X, NOTHING_DEAD, SMALL, Dead
from jaxsnn.bss2.search.place import PLACERS
from jaxsnn.bss2.search.task import task_of, usable_parts
from tests.bss2.recipes import dense_net, recurrent_net

#: Neurons of so many circuits that the chip has room for.
MOST = {1: 512, 2: 256, 3: 170, 4: 128, 5: 102, 6: 84, 7: 72, 8: 64, 9: 56, 128: 4, 256: 2}
OURS = [name for name in PLACERS if name != "vendor"]


def place(name, counts, dead=NOTHING_DEAD, chip=HICANN_X, seed=0):
    net = dense_net(2, len(counts))
    task = task_of(net, usable_parts(chip, dead), "fixed", np.arange(2, 2 + len(counts)))
    return PLACERS[name](task, np.array(counts), np.random.default_rng(seed))


def contiguous(circuits):
    reached, rest = {circuits[0]}, set(circuits[1:])
    while near := {
        one
        for one in rest
        for row, column in reached
        if abs(one[0] - row) + abs(one[1] - column) == 1
    }:
        reached, rest = reached | near, rest - near
    return not rest


def assert_legal(placement, counts, dead=NOTHING_DEAD, chip=HICANN_X):
    taken = [circuit for circuits in placement.circuits for circuit in circuits]
    assert len(set(taken)) == len(taken)
    assert not set(taken) & set(dead.circuits)
    assert [len(circuits) for circuits in placement.circuits] == list(counts)
    for circuits in placement.circuits:
        assert contiguous(circuits)
        assert len({chip.half_of(column) for _, column in circuits}) == 1
        assert all(0 <= row < 2 and 0 <= column < chip.columns for row, column in circuits)


@pytest.mark.parametrize("name", OURS)
@pytest.mark.parametrize("count", MOST)
def test_the_chip_is_filled_to_the_last_neuron(name, count):
    counts = [count] * MOST[count]
    assert_legal(place(name, counts), counts)
    assert place(name, [*counts, count]) is None


@pytest.mark.parametrize("name", PLACERS)
@given(data=st.data())
def test_any_sizes_and_dead_circuits(name, data):
    counts = data.draw(st.lists(st.integers(1, 12), min_size=1, max_size=40))
    circuits = st.tuples(st.integers(0, 1), st.integers(0, 255))
    dead = Dead(circuits=tuple(sorted(data.draw(st.sets(circuits, max_size=60)))))
    placement = place(name, counts, dead)
    if placement is not None:
        assert_legal(placement, counts, dead)
    else:
        assert sum(counts) > 150 or dead.circuits


@pytest.mark.parametrize("name", OURS)
def test_the_small_chip(name):
    assert_legal(place(name, [1, 2, 1], chip=SMALL), [1, 2, 1], chip=SMALL)
    assert place(name, [1, 2, 2], chip=SMALL) is None


def test_spreading_evens_out_the_buses():
    placement = place("spread", [1] * 120)
    assert np.bincount(placement.buses).tolist() == [30] * 4
    assert np.bincount(place("first-fit", [1] * 120).buses).tolist() == [64, 56]


@pytest.mark.parametrize("name", ["by-connectivity", "annealed"])
def test_placing_by_connectivity_evens_out_what_neurons_hear(name):
    """Neuron i hears only those with the same i % 4: they must not share a bus."""
    full = recurrent_net(1, 128)
    kept = (full.pre >= 1) & ((full.pre - full.post) % 4 == 0)
    net = type(full)(
        populations=full.populations,
        pre=full.pre[kept],
        post=full.post[kept],
        weight=full.weight[kept],
    )
    task = task_of(net, usable_parts(HICANN_X, NOTHING_DEAD), "fixed", np.arange(1, 129))

    def worst(placer):
        placement = PLACERS[placer](task, np.ones(128, int), np.random.default_rng(0))
        heard = np.zeros((4, 128), int)
        np.add.at(heard, (placement.buses[net.pre - 1], net.post - 1), 1)
        return heard.max()

    assert worst(name) == 8
    assert worst("first-fit") == 16
