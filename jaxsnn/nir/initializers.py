"""Initial weights: the distributions of the field, each a function of (random generator, shape)."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

Initializer = Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]


def constant(value: float) -> Initializer:
    """The same value everywhere."""
    return lambda rng, shape: np.full(shape, float(value))


def normal(mean: float = 0.0, std: float = 1.0) -> Initializer:
    """Normal distribution.

    >>> normal(3.0, 1.6)(np.random.default_rng(0), (2, 5)).shape
    (2, 5)
    """
    return lambda rng, shape: rng.normal(mean, std, shape)


def uniform(low: float = 0.0, high: float = 1.0) -> Initializer:
    """Uniform distribution in [low, high)."""
    return lambda rng, shape: rng.uniform(low, high, shape)


def kaiming_normal(gain: float = math.sqrt(2.0)) -> Initializer:
    """Normal, variance gain^2 / inputs (He et al., 2015, arXiv:1502.01852)."""
    return lambda rng, shape: rng.normal(0.0, gain / math.sqrt(fans(shape)[0]), shape)


def kaiming_uniform(gain: float = math.sqrt(2.0)) -> Initializer:
    """Uniform, variance gain^2 / inputs (He et al., 2015, arXiv:1502.01852)."""
    return lambda rng, shape: _symmetric(rng, gain * math.sqrt(3.0 / fans(shape)[0]), shape)


def xavier_normal(gain: float = 1.0) -> Initializer:
    """Normal, variance 2 gain^2 / (inputs + outputs) (Glorot and Bengio, 2010)."""
    return lambda rng, shape: rng.normal(0.0, gain * math.sqrt(2.0 / sum(fans(shape))), shape)


def xavier_uniform(gain: float = 1.0) -> Initializer:
    """Uniform, variance 2 gain^2 / (inputs + outputs) (Glorot and Bengio, 2010)."""
    return lambda rng, shape: _symmetric(rng, gain * math.sqrt(6.0 / sum(fans(shape))), shape)


def _symmetric(rng: np.random.Generator, bound: float, shape: tuple[int, ...]) -> np.ndarray:
    return rng.uniform(-bound, bound, shape)


def fans(shape: tuple[int, ...]) -> tuple[int, int]:
    """Inputs and outputs of one unit for a weight of shape (outputs, inputs, *kernel).

    >>> fans((4, 3, 5, 5))
    (75, 100)
    """
    kernel = math.prod(shape[2:])
    return shape[1] * kernel, shape[0] * kernel
