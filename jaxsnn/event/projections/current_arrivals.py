"""Currents from outside: one arrival of all channels together at each change.

A piecewise constant current is a level, like that of an open rectangular pulse: an arrival changes it
by a step. The product of the values and a matrix or a convolution is computed beforehand, so that all
channels that change at one time are one arrival with individual weights. Gradients with respect to
the values and the weights of the network are those of this product; the engine computes those with
respect to the weights of the arrivals.

A current that is constant during the run needs no arrival: it is a bias of each sample.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike

from jaxsnn.errors import LoweringError
from jaxsnn.event.event_arrays import Numbers, Rows, Times, Weights
from jaxsnn.event.projections.arrivals import Arrivals
from jaxsnn.network.array_types import Array, Float
from jaxsnn.network.operators import Operator, Path
from jaxsnn.network.valued_inputs import Currents, changes
from jaxsnn.options import ENGINE
from jaxsnn.wording import Text

#: Maximum number of products of a convolution that are computed at once.
_MOST_PRODUCTS = 2**22


def by_source(
    paths: Sequence[Path], currents: Mapping[str, Currents], target: str
) -> dict[str, list[Operator]]:
    """Map each input that is a current to the operators on its paths to a population.

    Args:
        target: the population, for messages.

    Raises:
        LoweringError: a path contains a delay.
    """
    by_input: dict[str, list[Operator]] = {}
    for source, operator in paths:
        if source not in currents:
            continue
        if operator.delay is not None or operator.row_delay is not None:
            raise LoweringError(
                Text(
                    "node '{node}' receives the current of input '{input}' through a delay; the "
                    "event engine delays only spikes",
                    node=target,
                    input=source,
                ),
                fix=Text(
                    "shift the times of the input current instead, or simulate with {engine}",
                    engine=ENGINE.set_to("grid"),
                ),
                node=target,
            )
        by_input.setdefault(source, []).append(operator)
    return by_input


def current_arrivals(
    operators: Sequence[Operator],
    currents: Currents,
    factor: Numbers,
    arrivals: Arrivals,
    dtype: DTypeLike,
) -> tuple[Weights, Times, Rows]:
    """Return the arrivals of one input's currents at a population: weights, times and rows, as the
    scans take them.

    Args:
        operators: all operators between the input and the population.
        factor: effect of a current of 1 at the population, (neurons,) or one number.
        arrivals: the other arrivals, which define the positions.
    """
    value = sum(applied(operator, currents.value, dtype) for operator in operators) * factor
    batch, pieces, neurons = value.shape
    if arrivals.order is not None:
        value = value[..., jnp.argsort(jnp.asarray(arrivals.order))]
    # (batch, pieces, columns * positions) -> (batch * positions, pieces, columns)
    columns, positions = neurons // arrivals.positions, arrivals.positions
    value = jnp.moveaxis(value.reshape(batch, pieces, columns, positions), 3, 1)
    weight = changes(value.reshape(batch * positions, pieces, columns))
    row = jnp.arange(batch * positions * pieces, dtype=jnp.int32)
    return (
        weight.reshape(-1, columns),
        jnp.repeat(currents.time, positions, axis=0),
        row.reshape(batch * positions, pieces),
    )


def lasting_current(
    paths: Sequence[Path], currents: Mapping[str, Currents], target: str, dtype: DTypeLike
) -> tuple[Float[Array, "batch neurons"], Float[Array, "batch neurons"]]:
    """Return the drive of a population by inputs whose currents last for the whole run, and the
    integral of the drive over the time before the currents begin. The integral is 0, as they begin
    at 0, but its derivatives with respect to their times are not.

    A current that begins at another time becomes NaN, as no error can be raised in `jax.jit`.

    Args:
        paths, target: see `by_source`.
        currents: input -> currents that last for the whole run.
    """
    contributions, missed = [], []
    for source, operators in by_source(paths, currents, target).items():
        time = currents[source].time
        value = jnp.where((time == 0)[..., None], currents[source].value, jnp.nan)
        for operator in operators:
            contributions.append(applied(operator, value, dtype)[:, 0])
            missed.append(time * contributions[-1])
    return sum(contributions[1:], contributions[0]), sum(missed[1:], missed[0])


def applied(
    operator: Operator, values: Float[Array, "batch pieces channels"], dtype: DTypeLike
) -> Float[Array, "batch pieces neurons"]:
    """Return values of the source's channels after an operator; zeros give exactly 0."""
    if operator.is_identity:
        return values
    if operator.source is None:
        currents = jnp.matmul(values, operator.weight, precision=lax.Precision.HIGHEST)
        return currents if operator.order is None else currents[..., operator.order]
    # A convolution stores the product of each pair: to limit memory, take some samples at a time.
    at_once = max(_MOST_PRODUCTS // max(len(operator.source) * operator.columns, 1), 1)
    batch, pieces, channels = values.shape
    flat = values.reshape(batch * pieces, channels)
    currents = lax.map(lambda piece: operator.apply(piece, dtype), flat, batch_size=at_once)
    return currents.reshape(batch, pieces, -1)


def joined(parts: Sequence[tuple[Weights, Times, Rows]]) -> tuple[Weights, Times, Rows]:
    """Concatenate several unsorted lists of arrivals and their tables."""
    rows, offset = [], 0
    for weight, time, row in parts:
        rows.append(jnp.broadcast_to(row, time.shape) + offset)
        offset += weight.shape[0]
    weights, times, _ = zip(*parts, strict=True)
    return (
        jnp.concatenate(weights),
        jnp.concatenate(times, axis=1),
        jnp.concatenate(rows, axis=1).astype(jnp.int32),
    )
