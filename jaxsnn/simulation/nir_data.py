"""Recordings in NIR's data format as input of a simulation: `Events`, `GradedEvents` or currents."""

from __future__ import annotations

import numpy as np

from jaxsnn.errors import UsageError
from jaxsnn.network.spikes import Events, dense_to_events
from jaxsnn.network.valued_inputs import GradedEvents
from jaxsnn.nir.io.data_files import Observable, refuse_broken
from jaxsnn.nir.io.recorded_data import EventData, TimeGriddedData, ValuedEventData, to_array


def to_events(data: Observable, *, name: str = "data") -> Events:
    """A recording of spikes as `jaxsnn.Events` (batch, events), sorted by time.

    Of gridded data, step k is at time k dt; a count above 1 becomes as many events at one time.

    Args:
        name: what to call the data in messages.

    Raises:
        UsageError: the data are broken, are not spikes, or carry values other than 1.
    """
    refuse_broken(data, name)
    if isinstance(data, TimeGriddedData):
        try:
            return dense_to_events(to_array(data), data.dt)
        except ValueError as error:
            raise UsageError(
                f"{name} is not a recording of spikes: {error}",
                fix="use to_array, and Currents.held of it",
            ) from error
    used = data.idx >= 0
    if isinstance(data, ValuedEventData) and (other := used & (data.value != 1)).any():
        raise UsageError(
            f"{name}: {int(other.sum())} of {int(used.sum())} events carry values other than 1, "
            f"the first {data.value[other][0]:g}, which spikes do not have",
            fix="use to_graded_events",
        )
    order = np.argsort(data.time, axis=1, kind="stable")
    index = np.where(used, data.idx, data.n_neurons).astype(np.int32)
    time, index = (np.take_along_axis(array, order, axis=1) for array in (data.time, index))
    return Events(time=time, index=index)


def to_graded_events(data: EventData, *, name: str = "data") -> GradedEvents:
    """Events as `jaxsnn.GradedEvents` (batch, events), each with its value; plain ones have 1.

    Args:
        name: what to call the data in messages.

    Raises:
        UsageError: the data are broken.
    """
    refuse_broken(data, name)
    used = data.idx >= 0
    ones = np.ones(data.idx.shape)
    value = np.asarray(data.value, float) if isinstance(data, ValuedEventData) else ones
    index = np.where(used, data.idx, data.n_neurons).astype(np.int32)
    value = np.where(used, value, 0.0)
    return GradedEvents(time=data.time, index=index, value=value)


def to_input(data: Observable, *, name: str = "data") -> Events | GradedEvents | np.ndarray:
    """A recording as what goes into a network: events; graded events, where some carry other values
    than 1; of gridded data an array (time, batch, neurons).

    Args:
        name: what to call the data in messages.

    Raises:
        UsageError: the data are broken.
    """
    refuse_broken(data, name)
    if isinstance(data, TimeGriddedData):
        return to_array(data)
    used = data.idx >= 0
    sized = isinstance(data, ValuedEventData) and bool((data.value[used] != 1).any())
    return to_graded_events(data, name=name) if sized else to_events(data, name=name)
