"""What a seed may be."""

from __future__ import annotations

from jaxsnn.errors import UsageError

#: JAX makes a random key of 32 bits of a seed: larger ones would draw what a smaller one draws, or overflow.
LARGEST_SEED = 2**32 - 1


def refuse_seed(seed: int, what: str = "seed") -> None:
    """Refuse what makes no random key.

    Raises:
        UsageError: a seed that is negative, or larger than 32 bits.
    """
    if not 0 <= seed <= LARGEST_SEED:
        raise UsageError(f"{what} is {seed}: give a whole number from 0 to {LARGEST_SEED}")
