"""Synapses of a recurrent group as lists, for groups with sparse weights: nothing is stored for
pairs of neurons without a synapse.

The rows are, in this order:

    arrivals from outside   one row for each channel of each path
    delayed feedback        one row for each presynaptic neuron of a path with delays of its sources,
                            or one for each synapse of a path with separate delays
    other feedback          one row for each neuron of the group, if there is any

A row is a list of synapses: postsynaptic neurons (static) and weights (differentiable).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from jaxsnn.errors import LoweringError
from jaxsnn.event.event_arrays import Rows, Times
from jaxsnn.event.projections.arrivals import Path, Train
from jaxsnn.linear_map import order_of_pairs
from jaxsnn.network.array_types import Array, Float, Int
from jaxsnn.network.operators import delayed_by_source
from jaxsnn.wording import Text


class PopulationPaths(NamedTuple):
    """Paths to one population of a group.

    Attributes:
        name: name of the population.
        size: number of neurons.
        first: number of its first neuron among all neurons of the group.
        scale: effect of a weight of 1 on each neuron.
        paths: (source, operator) pairs.
        steps_late: source population of the group -> additional delay of its spikes, seconds.
    """

    name: str
    size: int
    first: int
    scale: Float[Array, "neurons"]
    paths: Sequence[Path]
    steps_late: Mapping[str, float]


@dataclass(kw_only=True)
class _Rows:
    """Rows of one kind, being collected.

    Attributes:
        row, target, weight: an entry for each synapse, in parts.
        count: number of rows.
        delay, sender: an entry for each row with a delay, in parts.
    """

    row: list[np.ndarray] = field(default_factory=list)
    target: list[np.ndarray] = field(default_factory=list)
    weight: list[Any] = field(default_factory=list)
    count: int = 0
    delay: list[Any] = field(default_factory=list)
    sender: list[np.ndarray] = field(default_factory=list)


class GroupSynapses(NamedTuple):
    """Synapses of a group; the first five fields are those of `SynapseLists` and its weights.

    Attributes:
        begin, target, senders, immediate: see `SynapseLists`.
        weight: (synapses,).
        delay: (delayed rows,) seconds.
        time, row: arrivals from outside, (batch, arrivals).
    """

    begin: Int[np.ndarray, "rows"]
    target: Int[np.ndarray, "synapses"]
    senders: Int[np.ndarray, "delayed"]
    immediate: bool
    weight: Float[Array, "synapses"]
    delay: Float[Array, "delayed"]
    time: Times
    row: Rows


def has_sparse_weights(paths: Sequence[Path]) -> bool:
    """Return whether some paths pass through sparse weights."""
    return any(operator.is_sparse for _, operator in paths)


def group_synapses(
    populations: Sequence[PopulationPaths],
    trains: Mapping[str, Train],
    batch: int,
    dtype: DTypeLike,
) -> GroupSynapses:
    """Return the synapses of a group as lists.

    Args:
        trains: events of the sources outside the group.
        batch: number of samples.

    Raises:
        LoweringError: delays that differ between the synapses of an input, or events with values.
    """
    first_of = {population.name: population.first for population in populations}
    neurons = sum(population.size for population in populations)
    outside, delayed, immediate = _Rows(), _Rows(), _Rows(count=neurons)
    times, rows = [], []
    rows_of: dict[str, int] = {}  # source outside the group -> its first row, without delays
    for population in populations:
        for source, path in population.paths:
            operator = delayed_by_source(path)
            pre, post, weight, row_delay = operator.synapses(dtype)
            weight = weight * jnp.broadcast_to(population.scale, population.size)[post]
            post = post + population.first
            late = population.steps_late.get(source, 0.0)
            if source not in first_of:
                _refuse_unsupported_input(population.name, source, trains[source], row_delay)
                if source in rows_of and operator.delay is None:
                    # One row for each channel, with the synapses of all populations.
                    kind, row, count = outside, pre + rows_of[source] - outside.count, 0
                else:
                    time, channel = trains[source].time, trains[source].channel
                    if operator.delay is None:
                        rows_of[source] = outside.count
                    else:
                        time = time + operator.delay.at[channel].get(mode="clip")
                    times.append(time)
                    arriving = channel + outside.count if outside.count else channel
                    rows.append(jnp.broadcast_to(arriving, time.shape))
                    kind, row, count = outside, pre, operator.inward
            elif row_delay is not None:
                kind, row, count = delayed, np.arange(len(pre)), len(pre)
                source_delay = 0.0 if operator.delay is None else operator.delay[pre]
                delayed.delay.append(row_delay + source_delay + late)
                delayed.sender.append(pre + first_of[source])
            elif operator.delay is not None or late:
                kind, row, count = delayed, pre, operator.inward
                source_delay = 0.0 if operator.delay is None else operator.delay
                delayed.delay.append(jnp.broadcast_to(source_delay + late, (operator.inward,)))
                delayed.sender.append(np.arange(operator.inward) + first_of[source])
            else:
                # All feedback without a delay shares the row of its presynaptic neuron.
                kind, row, count = immediate, pre + first_of[source], 0
            kind.row.append(row + (0 if kind is immediate else kind.count))
            kind.target.append(post)
            kind.weight.append(weight)
            kind.count += count
    kinds = [kind for kind in (outside, delayed, immediate) if kind is not immediate or kind.row]
    before = np.cumsum([0, *(kind.count for kind in kinds)])
    row = _concatenated(
        [part + first for kind, first in zip(kinds, before, strict=False) for part in kind.row]
    )
    target = _concatenated([part for kind in kinds for part in kind.target])
    order = order_of_pairs(row, target)
    weight = jnp.concatenate(
        [jnp.zeros(0, dtype), *(part for kind in kinds for part in kind.weight)]
    )
    if not np.array_equal(order, np.arange(len(order))):
        weight = weight[order]
    return GroupSynapses(
        begin=np.concatenate([[0], np.cumsum(np.bincount(row, minlength=before[-1]))]).astype(
            np.int32
        ),
        target=target[order].astype(np.int32),
        senders=_concatenated(delayed.sender).astype(np.int32),
        immediate=bool(immediate.row),
        weight=weight,
        delay=jnp.concatenate([jnp.zeros(0, dtype), *delayed.delay]),
        time=_joined(times, jnp.zeros((batch, 0), dtype)),
        row=_joined(rows, jnp.zeros((batch, 0), jnp.int32)),
    )


def _joined(parts: Sequence[Any], nothing: Any) -> Any:
    """Concatenate arrays (batch, ...); a single array is not copied, as XLA would."""
    return parts[0] if len(parts) == 1 else jnp.concatenate([nothing, *parts], axis=1)


def _concatenated(parts: Sequence[np.ndarray]) -> np.ndarray:
    return np.concatenate([np.zeros(0, int), *parts])


def _refuse_unsupported_input(name: str, source: str, train: Train, row_delay: Any) -> None:
    """Refuse what lists of synapses cannot express."""
    if row_delay is None and train.value is None:
        return
    reason = "delays that differ between synapses" if train.value is None else "events with values"
    raise LoweringError(
        Text(
            "node '{node}' is part of a cycle with sparse weights, and its input from '{source}' has "
            "{reason}",
            node=name,
            source=source,
            reason=reason,
        ),
        fix="use jaxsnn.nir.build.with_dense_weights(graph), or put neurons between the input and the "
        "cycle",
        node=name,
    )
