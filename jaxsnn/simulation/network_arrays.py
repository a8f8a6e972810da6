"""Arrays in, arrays out: the inputs of a network from the arrays of an .npz file, and what leaves
it in continuous time as arrays for one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np

from jaxsnn.errors import UsageError, listing
from jaxsnn.event.event_solution import EventSolution
from jaxsnn.network.network import Network
from jaxsnn.network.spikes import Events, dense_to_events, flatten_spikes, sort_events
from jaxsnn.simulation.recordings import inputs_of


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """What goes into a network.

    Attributes:
        events: Input node -> Events (batch, events), seconds.
        t_end: seconds, the end of the steps of dense inputs; None for event arrays.
        sample_times: (steps,) seconds, the steps of dense inputs; None for event arrays.
    """

    events: dict[str, Events]
    t_end: float | None
    sample_times: np.ndarray | None


def network_inputs(arrays: dict[str, np.ndarray], network: Network, dt: float | None) -> Inputs:
    """Inputs of a network from arrays.

    Arrays as in `jaxsnn.simulation.recordings`; step k of a raster "NODE.x", (time, batch, ...), is
    at k dt.

    Args:
        dt: seconds, length of a step; needed for rasters.

    Raises:
        UsageError: arrays that are missing or do not fit.
    """
    events, steps = {}, {}
    for name, given in inputs_of(arrays, network).items():
        if isinstance(given, Events):
            events[name] = given
            continue
        if dt is None:
            raise UsageError(
                f"input '{name}' is given by steps, and the file does not say how long one is",
                fix="say dt=",
                node=name,
            )
        events[name] = _from_raster(name, given, network.inputs[name], dt)
        steps[name] = len(given)
    if not steps:
        return Inputs(events=events, t_end=None, sample_times=None)
    if len(steps) < len(events) or len(set(steps.values())) > 1:
        raise UsageError(
            f"inputs of different lengths, in steps {steps}, of {listing(events)}",
            fix="make them equal",
        )
    count = next(iter(steps.values()))
    return Inputs(
        events=events, t_end=count * (dt or 0.0), sample_times=np.arange(count) * (dt or 0.0)
    )


def _from_raster(name: str, raster: np.ndarray, size: int, dt: float) -> Events:
    if raster.ndim < 3:
        raise UsageError(
            f"input '{name}': x has shape {raster.shape}",
            fix="give it the shape (time, batch, channels)",
            node=name,
        )
    channels = math.prod(raster.shape[2:])
    if channels != size:
        raise UsageError(
            f"input '{name}': x has {channels} channels, the network takes {size}",
            fix=f"give it {size} channels",
            node=name,
        )
    try:
        return dense_to_events(raster, dt)
    except ValueError as error:
        raise UsageError(
            f"input '{name}': {error}", fix="give numbers of spikes", node=name
        ) from error


def output_arrays(network: Network, solution: EventSolution) -> dict[str, np.ndarray]:
    """What leaves a network, by Output node.

    "NODE.time" and "NODE.index" (batch, events), seconds, sorted, unused slots inf and the
    population's size; of a readout "NODE.y" (time, batch, neurons) and "NODE.sample_time" (time,),
    seconds; of a Threshold simulated as a level its rises as "NODE.time" and "NODE.index", and
    "NODE.fall_time" and "NODE.fall_index" likewise.

    Raises:
        UsageError: an Output that is not fed by spiking populations alone, or by one readout or
            level.
    """
    arrays = {}
    for name, sources in network.outputs.items():
        if sources and all(source in solution.spikes for source in sources):
            trains = [solution.events(source) for source in sources]
            merged = sort_events(
                jnp.concatenate([train.time for train in trains], axis=1),
                jnp.concatenate([train.index for train in trains], axis=1),
            )
            arrays[f"{name}.time"], arrays[f"{name}.index"] = _trimmed(*map(np.asarray, merged))
        elif len(sources) == 1 and sources[0] in solution.levels:
            level = solution.levels[sources[0]]
            for prefix, times in (("", level.rise), ("fall_", level.fall)):
                events = flatten_spikes(times)
                time, index = _trimmed(np.asarray(events.time), np.asarray(events.index))
                arrays |= {f"{name}.{prefix}time": time, f"{name}.{prefix}index": index}
        elif len(sources) == 1 and sources[0] in solution.voltages:
            arrays[f"{name}.y"] = np.moveaxis(np.asarray(solution.voltages[sources[0]]), 1, 0)
            arrays[f"{name}.sample_time"] = np.asarray(solution.sample_times)
        else:
            raise UsageError(
                f"output '{name}' is fed by {listing(sources)}",
                fix="feed it by spiking populations alone, or by one readout, or by one Threshold",
                node=name,
            )
    return arrays


def _trimmed(time: np.ndarray, index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Without slots at the end that no sample uses."""
    used = max(int(np.isfinite(time).sum(axis=1).max(initial=0)), 1)
    return time[:, :used], index[:, :used]
