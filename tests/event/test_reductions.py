"""Reductions: what they say of infinite numbers and of NaN, wherever these stand."""

import re

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsnn import EventDriven, Events, lower, simulate
from jaxsnn.network.reductions import (
    any_in,
    any_of,
    any_of_each,
    count_over_last,
    greatest,
    numbers_of,
    over_first,
    over_last,
)
from jaxsnn.nir import build
from tests.helpers.transformed import CUBA, T_END

SHAPES = [(), (3,), (40,), (2, 3), (64, 70), (3, 4, 5)]


@pytest.mark.parametrize("shape", SHAPES)
def test_each_condition_has_an_answer_of_its_own(shape):
    none, everywhere = jnp.zeros(shape, bool), jnp.ones(shape, bool)
    once = none.ravel().at[-1].set(True).reshape(shape)
    assert [bool(answer) for answer in any_of_each(none, once, everywhere, none)] == [
        False,
        True,
        True,
        False,
    ]
    assert [bool(any_in(condition)) for condition in (none, once, everywhere)] == [
        False,
        True,
        True,
    ]


def test_conditions_of_different_shapes_have_one_answer():
    conditions = [jnp.zeros(shape, bool) for shape in (*SHAPES, (0,))]
    assert not any_in(*conditions)
    for number, condition in enumerate(conditions[:-1]):
        changed = condition.ravel().at[0].set(True).reshape(condition.shape)
        assert any_in(*conditions[:number], changed, *conditions[number + 1 :])


def test_any_of_nothing_is_false():
    assert not any_of([])
    assert not any_in()
    assert any_of([jnp.asarray(False), jnp.asarray(True)])


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_one_number_that_is_not_finite_is_found_in_any_place(shape, value):
    rng = np.random.default_rng(0)
    for place in {0, int(np.prod(shape)) // 2, int(np.prod(shape)) - 1}:
        array = rng.normal(size=shape).astype("float32").ravel()
        array[place] = value
        numbers = numbers_of({"a": jnp.ones(4), "b": jnp.asarray(array.reshape(shape))})
        assert not jnp.all(jnp.isfinite(numbers))
        assert bool(jnp.any(jnp.isnan(numbers))) == np.isnan(value)


@pytest.mark.parametrize("shape", SHAPES)
def test_numbers_however_large_are_finite(shape):
    largest = jnp.full(shape, jnp.finfo(jnp.float32).max)
    assert jnp.all(jnp.isfinite(numbers_of([largest, -largest])))


def test_no_arrays_have_no_numbers():
    assert numbers_of([]).size == 0
    assert numbers_of([jnp.zeros((4, 0))]).shape == (4,)


def test_reductions_sum_over_the_first_and_last_axis():
    array = np.random.default_rng(0).normal(size=(3, 4, 5)).astype("float32")
    np.testing.assert_allclose(over_first(jnp.asarray(array)), array.sum(0), rtol=1e-5)
    np.testing.assert_allclose(over_last(jnp.asarray(array), 2.0), 2 * array.sum(-1), rtol=1e-5)


@pytest.mark.parametrize("shape", [shape for shape in SHAPES if shape])
@pytest.mark.parametrize("dtype", [np.int8, np.int32])
def test_whole_numbers_are_counted_and_compared(shape, dtype):
    numbers = np.random.default_rng(0).integers(-100, 0, size=shape).astype(dtype)
    for array in (numbers, -numbers):
        result = greatest(jnp.asarray(array))
        assert result == array.max()
        assert result.dtype == dtype
    counts = (numbers % 3).astype(np.int32)
    result = count_over_last(jnp.asarray(counts))
    np.testing.assert_array_equal(result, counts.sum(-1))
    assert result.dtype == np.int32
    assert greatest(jnp.zeros((3, 0), jnp.int32)) == np.iinfo(np.int32).min
    np.testing.assert_array_equal(count_over_last(jnp.zeros((3, 0), jnp.int32)), np.zeros(3))


def test_an_axis_whose_length_is_not_known_yet_is_reduced():
    (length,) = jax.export.symbolic_shape("length")
    spec = jax.ShapeDtypeStruct((2, length), jnp.int32)
    both = jax.jit(lambda numbers: (greatest(numbers), count_over_last(numbers)))
    largest, counted = jax.export.export(both)(spec).call(jnp.asarray([[1, 5, 2], [3, 0, 4]]))
    assert largest == 5
    np.testing.assert_array_equal(counted, [8, 7])


def test_the_xla_engine_reduces_no_array_alone_to_one_number():
    """XLA's CPU compiler makes several kernels of each such reduction, in every layer."""
    options = {"stride": 1, "dilation": 1, "groups": 1, "padding": 0}
    kernel = build.node("Conv2d", weight=np.ones((3, 1, 2, 2)), bias=np.zeros(3), **options)
    layers = build.cubalif(**CUBA), build.node("Flatten", start_dim=0, end_dim=-1)
    dense = build.linear(4, weight=np.ones((4, 270))), build.cubalif(**CUBA)
    network = lower(build.sequential(build.input((1, 10, 11)), kernel, *layers, *dense))
    time = jnp.linspace(0, T_END / 2, 2 * 80).reshape(2, 80)
    events = Events(time=time, index=jnp.zeros(time.shape, jnp.int32))
    engine = EventDriven(max_spikes=4, backend="xla")

    def total(parameters):
        solution = simulate(network.with_parameters(parameters), events, T_END, engine=engine)
        times = list(solution.spikes.values())[-1].time.reshape(-1)
        return jnp.where(jnp.isfinite(times), times, 0.0) @ jnp.ones(times.shape)

    text = jax.jit(jax.grad(total)).lower(network.parameters).as_text()
    reductions = re.findall(r"stablehlo\.reduce\((.*)", text)
    assert len(reductions) > 10
    alone = [reduction for reduction in reductions if ", (" not in reduction.split("applies")[0]]
    assert [reduction for reduction in alone if re.search(r"-> tensor<[a-z]\w*>$", reduction)] == []
    assert "reduce_window" not in text
