"""Selection of the earliest spikes out of many by a kernel."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from jaxsnn.event.event_arrays import Times
from jaxsnn.event.native.native_build import kernel, thread_count
from jaxsnn.network.array_types import Array, Int
from jaxsnn.network.meshes import match_device_axes


def native_places(time: Times, room: int, threads: int | None) -> Int[Array, "batch room"]:
    """Return the slots of the earliest events of each sample in order; unused ones come last.

    Args:
        time: seconds, inf in unused slots.
        room: number of events to return, at most the number of slots.
        threads: see `native_layer_spikes`.
    """
    result = jax.ShapeDtypeStruct((time.shape[0], room), jnp.int32)
    call = kernel("jaxsnn_earliest", (result,), time.dtype.name)
    return match_device_axes(call(time, threads=np.int64(thread_count(threads)))[0], time)
