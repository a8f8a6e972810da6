"""Layers whose positions have lists of arrivals of their own, a few samples at a time.

A batch of a convolution has so many neurons that their state falls out of the cache of a processor
between one arrival and the next: all samples at once take a quarter longer than one after the
other, and the memory of all of them.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
from jax import lax

from jaxsnn.event.event_arrays import NeuronLanes, Rows, Seconds, Times, Weights
from jaxsnn.event.forward.layer import LayerSpikes

#: So many neurons of all samples together are simulated at a time, or those of one sample.
_TOGETHER = 4096

#: Spikes of weight, lanes, time, row and t_end, as `layer_adjoint.layer_spikes` gives them.
OfArrivals = Callable[[Weights, NeuronLanes, Times, Rows, Seconds], LayerSpikes]


def in_parts(way: OfArrivals, positions: int) -> OfArrivals:
    """A way to simulate arrivals, a part of the batch after the other.

    Args:
        positions: lists of each sample, which come one after the other.
    """

    def by_parts(
        weight: Weights, lanes: NeuronLanes, time: Times, row: Rows, t_end: Seconds
    ) -> LayerSpikes:
        rows = time.shape[0]
        # how many there are may not be known yet (`jax.export`)
        together = rows
        if isinstance(rows, int) and row.ndim == 2:
            together = positions * _divisor(
                rows // positions, _TOGETHER // (positions * weight.shape[1])
            )
        if together == rows:
            return way(weight, lanes, time, row, t_end)

        def of_part(part: tuple[Times, Rows]) -> LayerSpikes:
            return way(weight, lanes, *part, t_end)

        times, numbers = (array.reshape(-1, together, array.shape[1]) for array in (time, row))
        spikes = lax.map(of_part, (times, numbers))
        return jax.tree.map(lambda array: array.reshape(rows, *array.shape[2:]), spikes)

    return by_parts


def _divisor(number: int, most: int) -> int:
    """The largest divisor of a number that is not above another; 1, where that is below."""
    return max((n for n in range(1, min(most, number) + 1) if number % n == 0), default=1)
