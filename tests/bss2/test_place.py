"""All placers: legal shapes on living circuits, always where there is plenty of room.

The tests over `PLACERS` hold for any placer, registered ones too (see test_custom_placer.py).
"""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxsnn.bss2.chip import HICANN_X, NOTHING_DEAD, SMALL, Dead
from jaxsnn.bss2.search.place import PLACERS
from jaxsnn.bss2.search.task import task_of, usable_parts
from tests.bss2.recipes import dense_net, recurrent_net, thinned
from tests.oracles.wasteful_placer import has_room

#: Number of circuits of each neuron -> maximum number of neurons that fit on the chip.
MOST = {1: 512, 2: 256, 3: 170, 4: 128, 5: 102, 6: 84, 7: 72, 8: 64, 9: 56, 128: 4, 256: 2}
#: Placers that leave no gaps.
TIGHT = ["first-fit", "spread", "by-connectivity", "annealed"]


def place(name, counts, dead=NOTHING_DEAD, chip=HICANN_X, seed=0):
    neurons = np.arange(2, 2 + len(counts))
    task = task_of(dense_net(2, len(counts)), usable_parts(chip, dead), "fixed", neurons)
    return PLACERS[name](task, np.array(counts), np.random.default_rng(seed))


def contiguous(circuits):
    reached, rest = {circuits[0]}, set(circuits[1:])
    while near := {
        circuit
        for circuit in rest
        for row, column in reached
        if abs(circuit[0] - row) + abs(circuit[1] - column) == 1
    }:
        reached, rest = reached | near, rest - near
    return not rest


def assert_legal(placement, counts, dead=NOTHING_DEAD, chip=HICANN_X):
    placed = [circuit for circuits in placement.circuits for circuit in circuits]
    assert len(set(placed)) == len(placed)
    assert not set(placed) & set(dead.circuits)
    assert all(0 <= row < 2 and 0 <= column < chip.columns for row, column in placed)
    assert [len(circuits) for circuits in placement.circuits] == list(counts)
    for circuits in placement.circuits:
        assert contiguous(circuits)
        assert len({chip.half_of(column) for _, column in circuits}) == 1


@pytest.mark.parametrize("name", TIGHT)
@pytest.mark.parametrize("count", MOST)
def test_the_chip_is_filled_to_the_last_neuron(name, count):
    counts = [count] * MOST[count]
    assert_legal(place(name, counts), counts)
    assert place(name, [*counts, count]) is None


def some_dead(seed, count):
    """So many dead circuits or one or two less, anywhere."""
    rng = np.random.default_rng(seed)
    rows, columns = rng.integers(2, size=count), rng.integers(HICANN_X.columns, size=count)
    return Dead(circuits=tuple(sorted(set(zip(rows.tolist(), columns.tolist(), strict=True)))))


@pytest.mark.parametrize("name", PLACERS)
@given(
    counts=st.lists(st.integers(1, 12), min_size=1, max_size=70),
    seed=st.integers(0, 1000),
    dead=st.sampled_from([0, 1, 4, 20, 60]),
)
def test_any_sizes_and_dead_circuits(name, counts, seed, dead):
    dead = some_dead(seed, dead)
    placement = place(name, counts, dead)
    if has_room(counts, dead.circuits, HICANN_X.columns, HICANN_X.halves):
        assert placement is not None
    if placement is not None:
        assert_legal(placement, counts, dead)


@pytest.mark.parametrize("name", PLACERS)
@pytest.mark.parametrize("dead", [0, 1, 20])
@pytest.mark.parametrize("counts", [[1] * 200, [2] * 100, [3, 1, 12] * 12, [20, 1, 7, 2] * 6])
def test_neurons_are_placed_where_there_is_room(name, counts, dead):
    dead = some_dead(0, dead)
    assert has_room(counts, dead.circuits, HICANN_X.columns, HICANN_X.halves)
    assert_legal(place(name, counts, dead), counts, dead)


@pytest.mark.parametrize("name", PLACERS)
def test_the_same_seed_gives_the_same_placement_and_leaves_the_task_as_it_is(name):
    net = recurrent_net(3, 30)
    task = task_of(net, usable_parts(HICANN_X, some_dead(0, 20)), "fixed", np.arange(3, 33))
    counts = np.array([1, 2, 5] * 10)
    before = task.parts.circuits.copy(), counts.copy()
    first, again = (PLACERS[name](task, counts, np.random.default_rng(7)) for _ in range(2))
    assert first.circuits == again.circuits
    np.testing.assert_array_equal(task.parts.circuits, before[0])
    np.testing.assert_array_equal(counts, before[1])


@pytest.mark.parametrize("name", PLACERS)
def test_the_small_chip(name):
    assert_legal(place(name, [1, 2, 1], chip=SMALL), [1, 2, 1], chip=SMALL)
    assert place(name, [1, 2, 2], chip=SMALL) is None


def test_spreading_evens_out_the_buses():
    placement = place("spread", [1] * 120)
    assert np.bincount(placement.buses).tolist() == [30] * 4
    assert np.bincount(place("first-fit", [1] * 120).buses).tolist() == [64, 56]


@pytest.mark.parametrize(
    ("placer", "most"), [("by-connectivity", 8), ("annealed", 8), ("first-fit", 16)]
)
def test_placing_by_connectivity_evens_out_what_neurons_hear(placer, most):
    """Neuron i hears only those with the same i % 4: they must not share a bus."""
    full = recurrent_net(1, 128)
    net = thinned(full, (full.pre >= 1) & ((full.pre - full.post) % 4 == 0))
    task = task_of(net, usable_parts(HICANN_X, NOTHING_DEAD), "fixed", np.arange(1, 129))
    placement = PLACERS[placer](task, np.ones(128, int), np.random.default_rng(0))
    heard = np.zeros((4, 128), int)
    np.add.at(heard, (placement.buses[net.pre - 1], net.post - 1), 1)
    assert heard.max() == most
