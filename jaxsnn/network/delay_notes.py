"""Notes on delays that exceed the duration of a run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from jax.core import Tracer

from jaxsnn.errors import Note
from jaxsnn.network.network import Network
from jaxsnn.units import format_time
from jaxsnn.wording import Text


def long_delay_notes(network: Network, t_end: Any) -> Iterator[str]:
    """Yield a note on each node with delays that are not shorter than the run, so that no spike arrives.

    Args:
        t_end: seconds; if it or a delay is traced there is no note.
    """
    if isinstance(t_end, Tracer):
        return
    for wire in network.wires:
        if wire.kind not in ("Delay", "Linear", "Affine", "SparseLinear"):
            continue
        delay = network.parameters.get(wire.name, {}).get("delay")
        if delay is None or isinstance(delay, Tracer):
            continue
        delays = np.asarray(delay)
        end = np.asarray(t_end, delays.dtype).max()  # rounded like the delays
        if count := int((delays >= end).sum()):
            yield Note(
                Text(
                    "node '{node}': delays that are not shorter than the run ({t_end}), so that no spike "
                    "arrives: {count} of {size}, up to {delay}",
                    node=wire.name,
                    t_end=format_time(float(end)),
                    count=count,
                    size=delays.size,
                    delay=format_time(float(delays.max())),
                ),
                kind="dropped",
                code="long-delay",
            )
