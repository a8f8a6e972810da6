"""Simulation of layers with a list of arrivals for each position, a few samples at a time.

The state of all neurons of a convolution, for a whole batch, does not fit into the processor's cache:
all samples at once take a quarter longer than one after the other, and more memory. The temporary
arrays of two convolutions (4,000 events, batch 8), forward and backward, take 117 MB in parts, and
272 MB at once.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

from jaxsnn.event.event_arrays import NeuronConstants, Rows, Seconds, Times, Weights
from jaxsnn.event.forward.layer import LayerSpikes

#: Maximum number of neurons of all samples that are simulated together, unless a single sample has
#: more.
_TOGETHER = 4096

#: Function from weight, constants, time, row and t_end to spikes, such as
#: `layer_adjoint.layer_spikes`.
OfArrivals = Callable[[Weights, NeuronConstants, Times, Rows, Seconds], LayerSpikes]


def in_parts(simulate: OfArrivals, positions: int) -> OfArrivals:
    """Return a function that simulates arrivals one part of the batch after the other.

    Args:
        positions: number of lists of each sample; the lists of a sample are adjacent.
    """

    def by_parts(
        weight: Weights, constants: NeuronConstants, time: Times, row: Rows, t_end: Seconds
    ) -> LayerSpikes:
        rows = time.shape[0]
        # the number of rows may be symbolic (`jax.export`)
        if not isinstance(rows, int) or row.ndim == 1:
            return simulate(weight, constants, time, row, t_end)
        samples, most = rows // positions, max(_TOGETHER // (positions * weight.shape[1]), 1)
        parts = -(-samples // most)
        if parts <= 1:
            return simulate(weight, constants, time, row, t_end)
        together = positions * -(-samples // parts)
        more = ((0, parts * together - rows), (0, 0))  # pad with samples without arrivals
        times = jnp.pad(time, more, constant_values=jnp.inf)

        def of_part(part: tuple[Times, Rows]) -> LayerSpikes:
            return simulate(weight, constants, *part, t_end)

        chunks = (array.reshape(parts, together, -1) for array in (times, jnp.pad(row, more)))
        spikes = lax.map(of_part, tuple(chunks))
        return jax.tree.map(lambda x: x.reshape(parts * together, *x.shape[2:])[:rows], spikes)

    return by_parts
