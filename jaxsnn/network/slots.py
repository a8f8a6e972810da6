"""Number of slots of inputs: powers of two, or eighths of them where there are many, so that runs with
different numbers of events share compiled code.

XLA compiles for each shape. Slots after the last event are unused (time inf) and change nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from jaxsnn.network.on_processor import on_processor
from jaxsnn.network.valued_inputs import Currents, Input


def bucket(slots: int) -> int:
    """Return the smallest power of two that is at least a number of slots; of a million or more, a
    multiple of an eighth of it.
    """
    power = 1 << max(slots - 1, 0).bit_length()
    step = power // 8 if power > 2**20 else power
    return -(-slots // step) * step if slots > 0 else power


def in_buckets(trains: Mapping[str, Input], channels: Mapping[str, int]) -> dict[str, Input]:
    """Return inputs with a `bucket` of slots each, if they are on the processor; others unchanged.

    Args:
        channels: number of channels of each input.
    """
    return {
        name: with_slots(train, bucket(train.time.shape[-1]), channels[name])
        if on_processor(train)
        else train
        for name, train in trains.items()
    }


def with_slots(train: Input, slots: int, channels: int) -> Input:
    """Return an input padded with unused slots to the specified number, in NumPy arrays; unchanged
    if it has as many already.

    Args:
        train: (..., events) or (..., pieces), on the processor.
        channels: number of channels of the input, the index in unused slots.
    """
    more = slots - train.time.shape[-1]
    if more <= 0:
        return train
    if isinstance(train, Currents):
        # The values have the channels as their last axis.
        time, value = _wider(train.time, more, np.inf), _wider(train.value, more, 0.0, 1)
        return replace(train, time=time, value=value, lasting=False)
    unused = {"time": np.inf, "index": channels, "value": 0.0}
    wide = {
        name: _wider(getattr(train, name), more, filling)
        for name, filling in unused.items()
        if hasattr(train, name)
    }
    return replace(train, **wide)


def _wider(array: Any, more: int, filling: float, behind: int = 0) -> Any:
    """Return an array with more slots at the end.

    Args:
        behind: number of axes behind that of the slots.
    """
    pairs = [(0, 0)] * np.ndim(array)
    pairs[-1 - behind] = (0, more)
    return np.pad(np.asarray(array), pairs, constant_values=filling)
