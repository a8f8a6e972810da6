"""Events in the order of time.

float32 times and the positions that they come from are packed into one integer: sorting a single
operand is several times faster than an argsort on the CPU, and the order of non-negative floats is
that of their bits.

XLA's sort on the CPU sorts one row after the other and spends most of its time on mispredicted
branches. For a batch of many rows a sorting network is used, which compares the same two columns in
all rows at once, without any branch: Batcher's bitonic sorter (Proc. AFIPS Spring Joint Computer
Conf. 32, 307, 1968), with the second half of each merge read backwards, so that the smaller number
always goes to the lower index.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.custom_derivatives import zero_from_primal

from jaxsnn.network.array_types import Array, Bool, Float, Int, Num
from jaxsnn.network.lookups import gather_along, of_columns
from jaxsnn.network.meshes import match_device_axes
from jaxsnn.network.promotion import usual_promotion
from jaxsnn.network.reductions import greatest

# Minimum number of rows, and numbers of elements of a row, for which the sorting network is faster
# than XLA's sort.
_LEAST_ROWS = 32
_NUMBERS = range(20, 513)
#: Ratio of all numbers to the requested ones above which `lax.top_k` is faster than sorting.
_FEW = 4
#: Bits of float32 numbers.
_FIRST_NORMAL, _TWICE_IS_INFINITE = 0x00800000, 0x7F000000
#: Number of elements from which on two threads are faster.
_MANY = 2**15
_MOST_PADDED = 1.5  # largest ratio of the padded size, a power of two, to the actual size


def sorted_times(
    time: Float[Array, "*batch numbers"],
) -> tuple[Float[Array, "*batch numbers"], Int[Array, "*batch numbers"]]:
    """Return non-negative times in ascending order along the last axis, and the positions (int32)
    that they come from.

    Equal times keep the lower position first.
    """
    if time.ndim != 2:
        flat = time.reshape(math.prod(time.shape[:-1]), time.shape[-1])
        times, positions = sorted_times(flat)
        return times.reshape(time.shape), positions.reshape(time.shape)
    times, positions = sorted_columns(time)
    return times.T, positions.T


def first_times(time: Float[Array, "batch numbers"], count: int) -> Int[Array, "batch count"]:
    """Return the positions (int32) of the smallest times of each row, in ascending order; all, if
    there are fewer. Equal times keep the lower position first.
    """
    if time.shape[1] > _FEW * count and time.dtype == jnp.float32:
        # Processors may treat subnormal numbers as 0. Adding 1 to the exponent makes all numbers
        # normal and keeps their order. Times above 1e38 s become inf, like unused slots.
        later = jnp.minimum(_bits(time), _TWICE_IS_INFINITE) + _FIRST_NORMAL
        return lax.top_k(-lax.bitcast_convert_type(later, jnp.float32), count)[1]
    return sorted_times(time)[1][:, :count]


@jax.custom_jvp
@jax.jit  # outside of a compiled function each step of the network would be compiled separately
def sorted_columns(
    time: Float[Array, "rows numbers"],
) -> tuple[Float[Array, "numbers rows"], Int[Array, "numbers rows"]]:
    """Return the results of `sorted_times`, both transposed: (numbers, rows)."""
    if time.dtype != jnp.float32:
        positions = lax.broadcasted_iota(jnp.int32, time.shape, 1)
        pair = lax.sort((time, positions), dimension=1, is_stable=True, num_keys=1)
        return pair[0].T, pair[1].T
    bits = _bits(time)
    with jax.enable_x64(True):
        # One integer: the bits of a time in the upper half, its position in the lower half. No two
        # integers are equal.
        packed = (bits.astype(jnp.int64) << 32) | lax.broadcasted_iota(jnp.int64, time.shape, 1)
        packed = _sorted_columns(packed)
        positions = (packed & 0xFFFFFFFF).astype(jnp.int32)
        return lax.bitcast_convert_type((packed >> 32).astype(jnp.int32), jnp.float32), positions


@sorted_columns.defjvp
@usual_promotion
def _(
    primals: tuple[Float[Array, "rows numbers"]], tangents: tuple[Float[Array, "rows numbers"]]
) -> tuple[tuple[Array, Array], tuple[Array, Any]]:
    """Differentiate the sorted times: the tangents are sorted with the times, and positions have
    none.
    """
    times, positions = sorted_columns(*primals)
    moved = gather_along(tangents[0].T, positions, axis=0)
    return (times, positions), (moved, zero_from_primal(positions))


def sorted_rows(rows: Int[Array, "rows numbers"]) -> Int[Array, "rows numbers"]:
    """Return each row in ascending order."""
    count = rows.shape[0]
    # XLA's CPU compiler sorts one row after the other: sort two halves of the rows in parallel.
    if isinstance(count, int) and count > 1 and rows.size >= _MANY:
        halves = rows[: count // 2], rows[count // 2 :]
        return jnp.concatenate([lax.sort(half, dimension=1, is_stable=False) for half in halves])
    return lax.sort(rows, dimension=1, is_stable=False)


def _bits(time: Float[Array, "..."]) -> Int[Array, "..."]:
    """Return integers in the order of non-negative float32 times."""
    bits = lax.bitcast_convert_type(time, jnp.int32)
    return jnp.where(bits == jnp.iinfo(jnp.int32).min, 0, bits)  # -0.0 is 0.0


def fullest(columns: Float[Array, "numbers columns"]) -> Int[Array, ""]:
    """Return the largest number of times in a column; columns are in ascending order with inf in
    unused slots.
    """
    used = jnp.isfinite(columns)
    return greatest(jnp.where(used, lax.broadcasted_iota(jnp.int32, used.shape, 0) + 1, 0))


def places_in(
    rising: Num[Array, "numbers"], queries: Num[Array, "*queries"], *, right: bool = False
) -> Int[Array, "*queries"]:
    """Return the number of sorted numbers that are below each query, or with `right`, at most the
    query; like `jnp.searchsorted`, whose loop compiles to four times as many kernels.

    The algorithm is a bisection by halves of a power of two: its carry is one array.
    """

    def passes(place: Int[Array, "*queries"]) -> Bool[Array, "*queries"]:
        passed = rising[place]
        return passed <= queries if right else passed < queries

    return _places(
        len(rising), match_device_axes(jnp.zeros(queries.shape, jnp.int32), rising, queries), passes
    )


def places_in_columns(
    rising: Num[Array, "numbers columns"], queries: Num[Array, "first columns last"]
) -> Int[Array, "first columns last"]:
    """Return the results of `places_in` in the column of each query."""
    start = match_device_axes(jnp.zeros(queries.shape, jnp.int32), rising, queries)
    return _places(len(rising), start, lambda place: of_columns(rising, place) < queries)


def _places(
    numbers: int,
    start: Int[Array, "*queries"],
    passes: Callable[[Int[Array, "*queries"]], Bool[Array, "*queries"]],
) -> Int[Array, "*queries"]:
    """Return the number of sorted numbers up to the last one at which a condition holds.

    Args:
        start: zeros.
    """
    if not numbers:
        return start
    power = 1 << numbers.bit_length()

    def ahead(step: Int[Array, ""], place: Int[Array, "*queries"]) -> Int[Array, "*queries"]:
        further = place + (jnp.int32(power >> 1) >> step.astype(jnp.int32))
        condition_holds = passes(jnp.minimum(further, numbers) - 1)
        return jnp.where((further <= numbers) & condition_holds, further, place)

    return lax.fori_loop(0, power.bit_length() - 1, ahead, start)


def _sorted_columns(packed: Int[Array, "rows numbers"]) -> Int[Array, "numbers rows"]:
    """Return each row in ascending order, transposed, with the faster algorithm."""
    rows, numbers = packed.shape

    def by_xla(packed: Int[Array, "rows numbers"]) -> Int[Array, "numbers rows"]:
        return sorted_rows(packed).T

    # A symbolic number of rows (`jax.export`) may be large.
    few = isinstance(rows, int) and rows < _LEAST_ROWS
    if few or numbers not in _NUMBERS or _power(numbers) > _MOST_PADDED * numbers:
        return by_xla(packed)
    return lax.platform_dependent(packed, cpu=_by_network, default=by_xla)


def _power(numbers: int) -> int:
    """Return the smallest power of two that is at least a number."""
    return 1 << (numbers - 1).bit_length()


def _by_network(packed: Int[Array, "rows numbers"]) -> Int[Array, "numbers rows"]:
    """Return each row in ascending order, transposed, by Batcher's sorting network."""
    numbers = packed.shape[1]
    size = _power(numbers)
    # Pad with the largest integer, which stays at the end.
    most = np.iinfo(packed.dtype).max
    x = jnp.pad(packed.T, ((0, size - numbers), (0, 0)), constant_values=most)
    # Sorted runs of 1, 2, 4, ... numbers become runs of twice as many.
    for merged in range(1, size.bit_length()):
        distance, backwards = 1 << (merged - 1), True
        while distance:
            two = distance > 1
            x, backwards = _merge(x, distance, backwards, two), False
            distance >>= 2 if two else 1
    return x[:numbers]


def _merge(
    x: Int[Array, "size rows"], distance: int, backwards: bool, two: bool
) -> Int[Array, "size rows"]:
    """Run one or two steps of a merge: numbers are compared over a distance, and then over half of
    it.

    Two at once take less time, as each number is read and written once.

    Args:
        distance: a power of two.
        backwards: the second half of each pair of runs is read backwards: the first step of a
            merge.
        two: two steps.
    """
    # Blocks of twice the distance. Each number of the first half is compared with one of the second
    # half: low and high are (size / (2 distance), distance, rows).
    low, high = jnp.moveaxis(x.reshape(-1, 2, distance, x.shape[1]), 1, 0)
    low, high = _in_order(low, high[:, ::-1] if backwards else high)
    if two:
        lows, highs = _in_order(*_halves(low)), _in_order(*_halves(high))
    else:
        lows, highs = (low,), (high,)
    if backwards:
        highs = [part[:, ::-1] for part in highs]
    return jnp.stack([*lows, *highs], axis=1).reshape(x.shape)


#: Numbers in blocks, and a pair of such arrays.
_Blocks = Int[Array, "blocks distance rows"]
_Pair = tuple[_Blocks, _Blocks]


def _halves(x: _Blocks) -> _Pair:
    return x[:, : x.shape[1] // 2], x[:, x.shape[1] // 2 :]


def _in_order(a: _Blocks, b: _Blocks) -> _Pair:
    return jnp.minimum(a, b), jnp.maximum(a, b)
