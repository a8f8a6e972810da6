"""Sorting by time: one row after the other, and many rows at once by a network."""

import logging
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxsnn.event.forward.few_neurons import _FEW_RUNS, _numbers_of_first
from jaxsnn.network import sorting
from jaxsnn.network.lookups import gather_along, of_columns, transpose
from jaxsnn.network.sorting import (
    first_times,
    fullest,
    places_in,
    places_in_columns,
    sorted_columns,
    sorted_rows,
    sorted_times,
)

LEAST = sorting._LEAST_ROWS  # pyright: ignore[reportPrivateUsage]


def some_times(rng, rows, numbers, bits=32):
    """Times of which many are equal, unused slots among them."""
    time = rng.choice([0.0, -0.0, 1e-40, 1e-30, 0.5, 1.0, 3.0, np.inf], (rows, numbers)).astype(
        f"float{bits}"
    )
    spread = rng.random((rows, numbers)) < 0.5
    return np.where(spread, rng.random((rows, numbers)).astype(time.dtype), time)


def check(time):
    expected = np.argsort(time, axis=1, kind="stable")
    values, positions = sorted_times(jnp.asarray(time))
    np.testing.assert_array_equal(positions, expected)
    np.testing.assert_array_equal(values, np.take_along_axis(time, expected, 1))
    transposed = sorted_columns(jnp.asarray(time))
    np.testing.assert_array_equal(transposed[0].T, values)
    np.testing.assert_array_equal(transposed[1].T, positions)


@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize("rows", [1, LEAST - 1, LEAST, 70])
@pytest.mark.parametrize("numbers", [1, 50, 64])
def test_sorting_is_stable_and_puts_unused_slots_last(bits, rows, numbers):
    with jax.enable_x64(bits == 64):
        check(some_times(np.random.default_rng(0), rows, numbers, bits))


@settings(max_examples=8)
@given(numbers=st.integers(1, 400), seed=st.integers(0, 99))
def test_the_network_sorts_any_number_of_times(numbers, seed):
    check(some_times(np.random.default_rng(seed), LEAST, numbers))


@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize("count", [1, 20, 79, 80, 500])
def test_the_first_of_many_times_are_those_of_all_in_order(bits, count):
    with jax.enable_x64(bits == 64):
        time = some_times(np.random.default_rng(count), 5, 320, bits)
        expected = np.argsort(time, axis=1, kind="stable")[:, :count]
        np.testing.assert_array_equal(first_times(jnp.asarray(time), count), expected)


@pytest.mark.parametrize("shape", [(1, 9), (1, 2**16), (2, 2**15), (3, 2**15), (0, 7)])
def test_rows_are_sorted_side_by_side(shape):
    rows = np.random.default_rng(1).integers(-50, 50, shape).astype("int32")
    np.testing.assert_array_equal(jax.jit(sorted_rows)(rows), np.sort(rows, axis=1))


def test_the_network_is_compiled_as_one_also_where_nothing_else_is(caplog):
    time = jnp.asarray(some_times(np.random.default_rng(0), LEAST, 177))
    jax.clear_caches()  # forget programs of earlier tests
    with caplog.at_level(logging.WARNING), jax.log_compiles():
        sorted_times(time)
    programs = [
        record
        for record in caplog.records
        if record.getMessage().startswith("Finished XLA compilation")
    ]
    assert 1 <= len(programs) <= 4


def test_many_rows_are_sorted_by_the_network():
    def compiled(rows, numbers):
        return jax.jit(sorted_times).lower(jnp.zeros((rows, numbers))).as_text()

    assert "sort" not in compiled(LEAST, 64).replace("sorted", "").replace("sorting", "")
    assert "stablehlo.sort" in compiled(LEAST - 1, 64)
    assert "stablehlo.sort" in compiled(LEAST, 4)
    assert "stablehlo.sort" in compiled(LEAST, 70)  # the network would need 128


def test_leading_axes_are_rows():
    time = some_times(np.random.default_rng(0), 40, 30).reshape(4, 10, 30)
    values, positions = sorted_times(jnp.asarray(time))
    np.testing.assert_array_equal(values, np.sort(time, axis=-1))
    np.testing.assert_array_equal(np.take_along_axis(time, np.asarray(positions), -1), values)


@pytest.mark.parametrize("shape", [(0,), (3, 0), (40, 0), (2, 3, 0), (7,)])
def test_there_may_be_no_times_and_no_other_axes(shape):
    values, positions = sorted_times(jnp.zeros(shape))
    assert values.shape == positions.shape == shape


@pytest.mark.parametrize("right", [False, True])
@pytest.mark.parametrize("numbers", [0, 1, 2, 3, 4, 7, 8, 9, 100, 128])
def test_places_are_those_of_a_search(x64, numbers, right):
    generator = np.random.default_rng(numbers)
    rising = np.sort(generator.integers(0, 40, (3, numbers)), axis=1)
    rising = np.where(rising > 30, np.inf, rising)
    numbers_to_place = np.array([*np.arange(-1, 42), -np.inf, np.inf, 3.5]).reshape(2, -1)
    places = jax.vmap(partial(places_in, right=right), in_axes=(0, None))(rising, numbers_to_place)
    assert places.dtype == np.int32
    for row_places, row in zip(places, rising, strict=True):
        expected = np.searchsorted(row, numbers_to_place, side="right" if right else "left")
        np.testing.assert_array_equal(row_places, expected)


@pytest.mark.parametrize("numbers", [0, 1, 2, 3, 8, 9, 100])
def test_places_and_values_are_those_of_each_column(x64, numbers):
    generator = np.random.default_rng(numbers)
    rising = np.sort(generator.integers(0, 40, (numbers, 3)), axis=0).astype(float)
    numbers_to_place = generator.integers(-1, 42, (5, 3, 4)).astype(float)
    places = places_in_columns(jnp.asarray(rising), jnp.asarray(numbers_to_place))
    for column in range(3):
        expected = np.searchsorted(rising[:, column], numbers_to_place[:, column])
        np.testing.assert_array_equal(places[:, column], expected)
        if numbers:
            number = np.minimum(places, numbers - 1)
            values = of_columns(jnp.asarray(rising), jnp.asarray(number))
            np.testing.assert_array_equal(values[:, column], rising[number[:, column], column])


@pytest.mark.parametrize("shape", [(3, 5), (1, 4), (0, 3), (3, 0)])
@pytest.mark.parametrize("dtype", [bool, np.int32, np.float32])
def test_a_turned_matrix_is_the_transposed_one(shape, dtype):
    matrix = np.random.default_rng(0).normal(size=shape).astype(dtype)
    result = transpose(jnp.asarray(matrix))
    assert result.dtype == dtype
    np.testing.assert_array_equal(result, matrix.T)


def test_the_fullest_column_says_how_many_there_are():
    columns = np.full((4, 3), np.inf)
    assert fullest(jnp.asarray(columns)) == 0
    columns[:3, 1], columns[:1, 2] = (1.0, 2.0, 2.0), 0.0
    assert fullest(jnp.asarray(columns)) == 3
    assert fullest(jnp.zeros((4, 3))) == 4


@pytest.mark.parametrize("lanes", [40, 300, _FEW_RUNS * 128, _FEW_RUNS * 128 + 200])
@pytest.mark.parametrize("fraction", [0.0, 0.05, 0.9])
def test_the_first_lanes_of_which_something_holds_are_found(lanes, fraction):
    which = np.random.default_rng(lanes).random(lanes) < fraction
    expected = np.append(np.flatnonzero(which), np.full(32, lanes))[:32]
    np.testing.assert_array_equal(_numbers_of_first(jnp.asarray(which), 32), expected)


def test_rows_are_read_with_one_index_for_each_entry():
    """With two, XLA stores both: 5 times the memory of the indices in the gradient, not 2."""

    def total(values, places):
        return jnp.sum(gather_along(values, places, 1) ** 2)

    values, places = jnp.ones((32, 1000), jnp.float32), jnp.zeros((32, 5000), jnp.int32)
    program = jax.jit(jax.grad(total)).lower(values, places).compile()
    assert program.memory_analysis().temp_size_in_bytes < 3 * places.nbytes
