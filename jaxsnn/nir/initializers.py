"""Initial weights: the usual distributions, each a function of (random source, shape).

A random source is a NumPy generator, an integer or a `jax.random` key; the last two make a
generator that begins anew at each call. The same holds for everything that takes a seed.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from jaxsnn.errors import UsageError, as_integer
from jaxsnn.keywords import suggests_keywords
from jaxsnn.wording import Option, Text

__all__ = [
    "constant",
    "fans",
    "generator_of",
    "kaiming_normal",
    "kaiming_uniform",
    "normal",
    "seed_words",
    "uniform",
    "xavier_normal",
    "xavier_uniform",
]

#: An integer of at least 0, a `jax.random` key of either kind, or a sequence of integers.
Seed = Any

#: Function that returns an array of a shape, drawn from a random source.
Initializer = Callable[[Any, tuple[int, ...]], np.ndarray]


@suggests_keywords
def seed_words(seed: Seed, option: Option | str = "seed") -> tuple[int, ...]:
    """Return the integers that represent a seed: itself, or the data of a key.

    This does not import JAX: a caller that passes a key has already imported it.

    Args:
        seed: an integer of at least 0; a key of `jax.random.key` or `jax.random.PRNGKey`,
            not a batch of keys; or a sequence of integers.
        option: name of the seed in messages.

    Raises:
        UsageError: anything else.

    >>> seed_words(3), seed_words(np.array([0, 7], np.uint32))
    ((3,), (0, 7))
    """
    if isinstance(seed, Sequence) and not isinstance(seed, str):
        return tuple(word for part in seed for word in seed_words(part, option))
    if getattr(seed, "ndim", 0) == 0 and hasattr(seed, "__index__"):
        number = as_integer(seed)
        if number is not None and number >= 0:
            return (number,)
    words = _key_data(seed)
    if words is None:
        fix = "pass an integer of at least 0, or one key of jax.random"
        shown = " ".join(repr(seed).split())
        raise UsageError(Text("{option} is {shown}", option=option, shown=shown), fix=fix)
    return words


def _key_data(seed: Any) -> tuple[int, ...] | None:
    """Return the integers of a key, old (an array of uint32) or new (whose dtype is `key<...>`);
    None for other values.
    """
    if str(getattr(seed, "dtype", "")).startswith("key<"):
        seed = sys.modules["jax"].random.key_data(seed)
    if getattr(seed, "dtype", None) != np.uint32 or np.ndim(seed) != 1:
        return None
    return tuple(int(word) for word in np.asarray(seed))


@suggests_keywords
def generator_of(source: np.random.Generator | Seed) -> np.random.Generator:
    """Return the generator itself, or a new one for a seed: that of `np.random.default_rng` for an
    integer.

    >>> generator_of(3).random() == np.random.default_rng(3).random()
    True
    """
    if isinstance(source, np.random.Generator):
        return source
    return np.random.default_rng(seed_words(source))


@suggests_keywords
def constant(value: float) -> Initializer:
    """Return an initialiser with the same value everywhere."""
    return lambda source, shape: np.full(shape, float(value))


@suggests_keywords
def normal(mean: float = 0.0, std: float = 1.0) -> Initializer:
    """Normal distribution.

    >>> bool((normal()(0, (2, 5)) == normal()(np.random.default_rng(0), (2, 5))).all())
    True
    >>> normal(3.0, 1.6)(np.random.default_rng(0), (2, 5)).shape
    (2, 5)
    """
    return lambda source, shape: generator_of(source).normal(mean, std, shape)


@suggests_keywords
def uniform(low: float = 0.0, high: float = 1.0) -> Initializer:
    """Uniform distribution in [low, high)."""
    return lambda source, shape: generator_of(source).uniform(low, high, shape)


@suggests_keywords
def kaiming_normal(gain: float = math.sqrt(2.0)) -> Initializer:
    """Return a normal initialiser of variance gain^2 / inputs (He et al., 2015,
    arXiv:1502.01852).
    """
    return lambda source, shape: generator_of(source).normal(
        0.0, gain / math.sqrt(fans(shape)[0]), shape
    )


@suggests_keywords
def kaiming_uniform(gain: float = math.sqrt(2.0)) -> Initializer:
    """Return a uniform initialiser of variance gain^2 / inputs (He et al., 2015,
    arXiv:1502.01852).
    """
    return lambda source, shape: _symmetric(source, gain * math.sqrt(3.0 / fans(shape)[0]), shape)


@suggests_keywords
def xavier_normal(gain: float = 1.0) -> Initializer:
    """Return a normal initialiser of variance 2 gain^2 / (inputs + outputs) (Glorot and Bengio,
    2010).
    """
    return lambda source, shape: generator_of(source).normal(
        0.0, gain * math.sqrt(2.0 / sum(fans(shape))), shape
    )


@suggests_keywords
def xavier_uniform(gain: float = 1.0) -> Initializer:
    """Return a uniform initialiser of variance 2 gain^2 / (inputs + outputs) (Glorot and Bengio,
    2010).
    """
    return lambda source, shape: _symmetric(source, gain * math.sqrt(6.0 / sum(fans(shape))), shape)


def _symmetric(source: Any, bound: float, shape: tuple[int, ...]) -> np.ndarray:
    return generator_of(source).uniform(-bound, bound, shape)


@suggests_keywords
def fans(shape: tuple[int, ...]) -> tuple[int, int]:
    """Inputs and outputs of one unit for a weight of shape (outputs, inputs, *kernel).

    >>> fans((4, 3, 5, 5))
    (75, 100)
    """
    kernel = math.prod(shape[2:])
    return shape[1] * kernel, shape[0] * kernel


def __dir__() -> list[str]:
    return __all__
