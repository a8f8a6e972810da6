"""The earliest of many events, found by a kernel: as NumPy sorts them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxsnn.event.native.native_places import native_places

pytestmark = pytest.mark.usefixtures("native_kernels")

#: Sizes around those at which the sorting method changes.
SIZES = (1, 64, 65, 191, 192, 4097)


def clumps(rng, size):
    """Most times so near to each other that 15 bits of their range do not tell them apart."""
    time = rng.choice([0.3, 0.7], size) * (1 + rng.integers(0, 40, size) * 2.0**-22)
    time[rng.integers(size)] = 1e3
    return time


TIMES = {
    "spread": lambda rng, size: rng.uniform(0, 1, size),
    "equal": lambda rng, size: np.full(size, 0.25),
    "few different": lambda rng, size: rng.choice([0.0, -0.0, 0.5, 1.0, np.inf], size),
    "clumps": clumps,
    "tiny": lambda rng, size: rng.integers(0, 50, size) * 1e-45,
    "huge": lambda rng, size: rng.choice([-3e38, -1.0, 0.0, 3e38], size),
    "signs": lambda rng, size: rng.normal(size=size),
    "falling": lambda rng, size: -np.sort(rng.uniform(0, 1, size)),
}


def check(time, room, dtype):
    with jax.enable_x64(dtype == "float64"):
        time = np.asarray(time, dtype)
        places = native_places(jnp.asarray(time), room, 2)
        # XLA's threads treat subnormal numbers as 0.
        normal = np.where(np.abs(time) < np.finfo(dtype).tiny, 0, time)
        expected = np.argsort(normal, axis=1, kind="stable")[:, :room]
        np.testing.assert_array_equal(places, expected)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kind", TIMES)
def test_the_earliest_are_those_of_all_in_order(kind, dtype):
    rng = np.random.default_rng(0)
    for size in SIZES:
        time = np.stack([TIMES[kind](rng, size) for _ in range(3)])
        check(time, size if size < 65 else size // 2, dtype)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    sizes=st.integers(1, 200),
    digits=st.integers(0, 9),
    exponent=st.integers(-40, 30),
)
def test_any_few_times_are_put_in_order(seed, sizes, digits, exponent):
    rng = np.random.default_rng(seed)
    time = np.round(rng.exponential(1.0, (2, sizes)) ** 3, digits) * 10.0**exponent
    check(np.where(rng.random(time.shape) < 0.1, np.inf, time), sizes, "float32")
