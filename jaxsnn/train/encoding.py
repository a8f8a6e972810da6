"""Values to spikes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxsnn.errors import UsageError
from jaxsnn.event.events import Events


@dataclass(frozen=True, kw_only=True)
class Latency:
    """Each value from 0 to 1 is one spike of its channel: at t_min + value (t_max - t_min), so 0 comes first.

    Attributes:
        t_min, t_max: seconds.
        bias: a channel is added after the others; it spikes at t_min in every sample.

    >>> encode = Latency(t_min=0.0, t_max=0.01, bias=True)
    >>> events = encode(np.array([[0.5, 1.0]]))
    >>> events.time.tolist(), events.index.tolist()
    ([[0.005, 0.01, 0.0]], [[0, 1, 2]])
    """

    t_min: float
    t_max: float
    bias: bool = False

    def __call__(self, values: Any) -> Events:
        """Events (samples, channels) of values (samples, ...), their other axes flattened; NaN is no spike.

        Raises:
            UsageError: a value outside 0 to 1, or nothing to encode.
        """
        values = np.asarray(values, float)
        if values.ndim < 2:
            raise UsageError(f"values of shape {values.shape}: the encoder takes (samples, channels)")
        values = values.reshape(len(values), -1)
        outside = (values < 0) | (values > 1)
        if outside.any():
            sample, channel = (int(place) for place in np.argwhere(outside)[0])
            raise UsageError(
                f"sample {sample}, channel {channel} has the value {values[sample, channel]:g}: latency encoding takes "
                "values from 0 to 1, scale the data"
            )
        time = self.t_min + values * (self.t_max - self.t_min)
        if self.bias:
            time = np.concatenate([time, np.full((len(time), 1), self.t_min)], axis=1)
        used = np.isfinite(time)
        channels = time.shape[1]
        index = np.where(used, np.arange(channels, dtype=np.int32), np.int32(channels))
        return Events(time=np.where(used, time, np.inf), index=index)  # pyright: ignore[reportArgumentType]
