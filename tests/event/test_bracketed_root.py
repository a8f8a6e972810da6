"""The search for a root inside a bracket: to the last digits, within few steps, and what it does
where there is none.
"""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxsnn.event.dynamics import bracketed_root as module
from jaxsnn.event.dynamics.bracketed_root import Value, bracketed_root

pytestmark = pytest.mark.usefixtures("x64")
EPS = np.finfo(float).eps


def roots():
    """From 1e-12 of the bracket's end to nearly at it."""
    rng = np.random.default_rng(0)
    return jnp.asarray([*10.0 ** rng.uniform(-12, -0.01, 200), 0.25, 0.5, 1 - 1e-9])


def line(t, c):
    return t - c, jnp.ones_like(t)


def bends(t, c):
    return -jnp.expm1(-(t - c)), jnp.exp(-(t - c))


def steepens(t, c):
    return jnp.expm1(20 * (t - c)), 20 * jnp.exp(20 * (t - c))


def flat(t, c):
    return (t - c) ** 3, 3 * (t - c) ** 2


def misleads(t, c):
    """Its slope says nothing of where the root is."""
    return jnp.sign(t - c) * (1 + t), -jnp.ones_like(t)


#: Function -> number of steps that suffices for all roots.
FUNCTIONS = {line: 2, bends: 6, steepens: 34, flat: 90, misleads: 57}


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: function.__name__)
@pytest.mark.parametrize("sign", [1.0, -1.0], ids=["rising", "falling"])
def test_roots_are_found_to_the_last_digits_within_few_steps(function, sign, monkeypatch):
    monkeypatch.setattr(module, "_MOST_STEPS", FUNCTIONS[function])
    c = roots()

    def values(t):
        return Value(*(sign * part for part in function(t, c)))

    for options in ({}, {"rising": True}) if sign > 0 else ({},):
        root = bracketed_root(values, 0 * c, 1 + 0 * c, **options)
        assert (abs(root - c) <= 4.5 * EPS * c).all()


def test_a_root_at_an_end_and_none_at_all():
    low, high = jnp.full(4, 0.5), jnp.full(4, 2.0)
    c = jnp.asarray([0.5, 2.0, 0.1, 7.0])
    root = bracketed_root(lambda t: Value(t - c, 1 + 0 * t), low, high)
    np.testing.assert_allclose(root[:2], [0.5, 2.0], rtol=4 * EPS)
    assert ((root >= low) & (root <= high)).all()


def test_the_search_covers_requested_lanes_from_their_starts(monkeypatch):
    c, start = jnp.asarray([0.3, 0.4, 0.6, 0.7]), jnp.asarray([0.25, 0.35, jnp.nan, 1.5])
    requested = jnp.asarray([True, False, True, True])
    zero, ones = jnp.zeros(4), jnp.ones(4)

    def cubes(t):
        return Value(t**3 - c**3, 3 * t**2)

    root = bracketed_root(cubes, zero, ones, start=start, required=requested)
    np.testing.assert_allclose(root[0], 0.3, rtol=4 * EPS)
    np.testing.assert_array_equal(root[1:], start[1:])
    # A start at the root itself does not move, and starts at the ends of the bracket converge.
    for begin in (c, zero, ones):
        np.testing.assert_allclose(bracketed_root(cubes, zero, ones, start=begin), c, rtol=4 * EPS)
    monkeypatch.setattr(module, "_MOST_STEPS", 0)
    low, high = jnp.asarray([0.2, 1.0, 0.0, 1e-3]), jnp.asarray([2.0, 9, 1, 4])
    middle = bracketed_root(cubes, low, high)
    # The first step of a narrow bracket is its middle, of a wide one its geometric mean.
    np.testing.assert_allclose(middle, [1.1, 5.0, 2.0**-33, np.sqrt(4e-3)], rtol=1e-14)
    middle = bracketed_root(cubes, 0.5 * jnp.ones(4), jnp.asarray([7.9, 8.1, 8.6, 20.0]))
    np.testing.assert_allclose(middle, [4.2, *np.sqrt([4.05, 4.3, 10])], rtol=1e-14)


def test_the_search_ends_where_rounding_decides():
    """And takes one Newton step more, if that stays inside."""
    start, c = jnp.asarray([0.31, 0.4]), jnp.asarray([0.3, 0.3])

    def cubes(t):
        return Value(t**3 - c**3, 3 * t**2, 0.02)

    root = bracketed_root(cubes, jnp.zeros(2), jnp.ones(2), start=start)
    for n, steps in enumerate((1, 2)):
        t = float(start[n])
        for step in range(steps):
            assert (abs(t**3 - 0.027) <= 0.02) is (step == steps - 1)
            t -= (t**3 - 0.027) / (3 * t**2)
        np.testing.assert_allclose(root[n], t, rtol=1e-14)


def test_single_precision_stays_single():
    c = jnp.asarray([0.3, 1e-6], jnp.float32)
    root = bracketed_root(lambda t: Value(t - c, 1 + 0 * t), 0 * c, 1 + 0 * c)
    assert root.dtype == jnp.float32
    np.testing.assert_allclose(root, c, rtol=1e-6)
