"""The chip's numbers, and what contradicts them."""

import dataclasses

import pytest

from jaxsnn.bss2.chip import (
    CHIPS,
    HICANN_X,
    SMALL,
    ChipError,
    Dead,
    check_dead,
    crossbar_nodes,
    driver_of,
    self_check,
)
from tests.helpers.refusals import assert_refused


@pytest.mark.parametrize("name", CHIPS)
def test_chips_agree_with_themselves(name):
    self_check(CHIPS[name])


@pytest.mark.parametrize(
    ("change", "facts"),
    [
        ({"columns": 250}, {"columns": 250, "outputs": 8}),
        ({"buses": 3}, {"parameter": "buses", "value": 3}),
        ({"label_bits": 0}, {"parameter": "label_bits", "value": 0}),
        ({"weight_max": 0}, {"parameter": "weight_max", "value": 0}),
        ({"row_select_bits": 4}, {"row_select_bits": 4, "drivers_per_bus": 32, "outputs": 8}),
        ({"columns": 2048}, {"circuits": 512, "addresses": 256}),
    ],
)
def test_sizes_that_contradict_each_other_are_refused(change, facts):
    changed = dataclasses.replace(HICANN_X, **change)
    problem = assert_refused(lambda: self_check(changed), ChipError)
    assert problem.facts == {"chip": "HICANN-X"} | facts


def test_nodes_of_the_crossbar():
    nodes = crossbar_nodes(HICANN_X)
    by_input = [[end for start, end in nodes if start == number] for number in range(20)]
    assert len(nodes) == 76
    assert by_input[5] == [1, 5, 9]
    assert by_input[10] == [0, 1, 2, 3, 4, 5, 6, 7, 10]
    assert by_input[18] == [6, 10]
    assert [len(ends) for ends in by_input] == [3] * 8 + [9] * 4 + [2] * 8


def test_coordinates_of_the_full_chip():
    chip = HICANN_X
    assert [chip.driver_at(bus, index) for bus, index in ((0, 0), (3, 0), (1, 31))] == [0, 3, 125]
    assert all(
        chip.driver_at(chip.driver_bus(d), chip.driver_index(d)) == d for d in range(chip.drivers)
    )
    assert (driver_of(0), driver_of(255), chip.rows_per_bus) == (0, 127, 64)
    assert [chip.output_of(column) for column in (0, 31, 32, 255)] == [0, 0, 1, 7]
    assert [chip.bus_of(column) for column in (0, 127, 128, 255)] == [0, 3, 0, 3]
    # the vendor's layout: row select of a neuron's event is block << 4 | bus << 2 | its two highest
    # address bits
    event = chip.neuron_event(column=170, address=0b11_000101)
    assert (chip.row_select_of(event), chip.label_of(event)) == (1 << 4 | 1 << 2 | 3, 5)
    assert event < 1 << 11
    assert chip.link_of(3 << 14 | 7) == 3


def test_dead_parts():
    dead = Dead(drivers=((1, 127),), rows=((0, 3),))
    check_dead(HICANN_X, dead)
    assert dead.unusable_rows() == {(1, 254), (1, 255), (0, 3)}
    beyond = Dead(circuits=((0, 2),))
    says, fix = r"dead circuit \(0, 2\) .* 'small'", "a circuit from 0 to 1"
    assert_refused(lambda: check_dead(SMALL, beyond), ChipError, says, code="bad-chip", fix=fix)
