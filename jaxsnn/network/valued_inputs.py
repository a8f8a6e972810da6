"""Inputs with values: piecewise constant currents, and spikes with individual sizes."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import Tracer
from jax.typing import ArrayLike

from jaxsnn.errors import UsageError, as_number, shown
from jaxsnn.keywords import suggests_keywords
from jaxsnn.network.array_types import Array, Bool, Float, Int
from jaxsnn.network.spikes import Events, refuse_masked
from jaxsnn.options import DT
from jaxsnn.summary import summarised
from jaxsnn.wording import Text


@suggests_keywords
@summarised
@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class Currents:
    """Piecewise constant signal of each channel.

    Frameworks represent an input whose values are not spikes in this way: a value in each step,
    held until the next one. Before the first piece it is 0; the last one lasts to the end of the
    run. `held` creates them from a value for each step, `constant` from one for the whole run.

    Attributes:
        time: (..., pieces) start of each piece in seconds, ascending; inf in unused slots.
        value: (..., pieces, channels) value of each channel in the piece, or (..., pieces, *shape
            of the input).
        lasting: there is one piece, which begins at 0 for all values, as from `constant`; an input
            that feeds only neurons is then simulated as a bias of each sample.
        dt: length of the steps passed to `held`, seconds; else None. A run adds a note if the
            network has steps of another length.

    >>> currents = Currents.constant([[0.5, 2.0]])
    >>> currents.time.tolist(), currents.value.tolist()
    ([[0.0]], [[[0.5, 2.0]]])
    """

    time: Float[Array, "*batch pieces"]
    value: Float[Array, "*batch pieces ..."]
    lasting: bool = field(default=False, metadata={"static": True})
    dt: float | None = field(default=None, metadata={"static": True})

    if TYPE_CHECKING:

        def __init__(
            self,
            *,
            time: ArrayLike,
            value: ArrayLike,
            lasting: bool = False,
            dt: float | None = None,
        ) -> None: ...

    @classmethod
    def constant(cls, value: Any) -> Currents:
        """Return currents that are constant from time 0 to the end of the run.

        First derivatives with respect to the time at which the currents begin are supported, second
        derivatives are not.

        Args:
            value: (batch, *shape), such as static images, with the axes in the order of the input
                node.
        """
        refuse_no_array(value, "value")
        currents = value if isinstance(value, Tracer | jax.Array) else np.asarray(value, float)
        kind = jnp if isinstance(currents, Tracer | jax.Array) else np
        time = kind.zeros((len(currents), 1), currents.dtype)
        return cls(time=time, value=currents[:, None], lasting=True)

    @classmethod
    def held(cls, x: Any, dt: float) -> Currents:
        """Return currents with a value in each step, held until the next step, and 0 after the
        last one.

        Steps in which no channel of any sample changes do not start a new piece: a constant signal
        costs one arrival, however long it is. (In a traced array every step is a piece.)

        Args:
            x: (time, batch, *shape).
            dt: length of a step, seconds.

        >>> currents = Currents.held(np.ones((100, 1, 3)), dt=1e-3)
        >>> currents.time.tolist(), currents.value.shape
        ([[0.0, 0.1]], (1, 2, 3))
        """
        if not isinstance(dt, Tracer) and not 0 < as_number(dt) < math.inf:
            raise UsageError(
                Text("{option} is {dt}", option=DT, dt=shown(dt)),
                fix="pass a positive time step in seconds",
            )
        refuse_no_array(x, "x")
        traced = isinstance(x, Tracer)
        step_values = x if traced or isinstance(x, jax.Array) else np.asarray(x, float)
        kind = jnp if isinstance(step_values, Tracer | jax.Array) else np
        if step_values.ndim < 2:
            raise UsageError(
                Text("x has shape {shape}", shape=step_values.shape),
                fix="pass an array of shape (time, batch, channels)",
            )
        steps, batch = step_values.shape[:2]
        new = np.ones(steps, bool)
        if not traced:
            numbers = np.asarray(step_values)
            new[1:] = (numbers[1:] != numbers[:-1]).any(axis=tuple(range(1, numbers.ndim)))
        begins = np.flatnonzero(new)
        pieces = kind.concatenate(
            [step_values[begins], kind.zeros((1, *step_values.shape[1:]), step_values.dtype)]
        )
        # As in `dense_to_events`, step k begins at k dt; the final zeros begin at `steps` times dt.
        time = np.append(begins, steps) * dt
        return cls(
            time=kind.asarray(np.broadcast_to(time, (batch, len(time)))),
            value=kind.moveaxis(pieces, 0, 1),  # pyright: ignore[reportArgumentType]
            dt=None if isinstance(dt, Tracer) else float(dt),
        )


def refuse_no_array(
    values: Any,
    description: str,
    *,
    shorter: str = "pad shorter rows with zeros",
    numbers: str = "pass numbers",
    node: str = "",
) -> None:
    """Refuse an array, list or number that does not hold real numbers, or is masked.

    Args:
        description: name of the value in messages.
        shorter, numbers: advice for rows of different lengths, and for values that are not numbers.
        node: name of the input, if known.

    Raises:
        UsageError: the value contains text, dates, objects, complex numbers or numbers of extended
            precision, which JAX does not have, rows of different lengths, or a mask, which would be
            ignored.
    """
    is_array = isinstance(values, Tracer | jax.Array)
    if not is_array:
        refuse_masked(values, description, node)
    try:
        kind = values.dtype if is_array else np.asarray(values).dtype
    except TypeError:  # a list of traced numbers
        return
    except ValueError:
        message = Text("{description} has rows of different lengths", description=description)
        raise UsageError(message, fix=shorter, node=node) from None
    if kind.kind in "SUOcMm" or kind.itemsize > 8:
        raise UsageError(
            Text("{description} has values of type {type}", description=description, type=kind),
            fix=numbers,
            node=node,
        )


@suggests_keywords
@summarised
@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class GradedEvents:
    """Spikes that each have a size: one of value 2 has the effect of two simultaneous spikes. NIR's
    ValuedEventData.

    Attributes:
        time: (..., events) seconds; inf in unused slots.
        index: (..., events) int32, the channel; arbitrary in unused slots.
        value: (..., events) the size, negative too.
    """

    time: Float[Array, "*batch events"]
    index: Int[Array, "*batch events"]
    value: Float[Array, "*batch events"]

    if TYPE_CHECKING:

        def __init__(self, *, time: ArrayLike, index: ArrayLike, value: ArrayLike) -> None: ...


#: Inputs of the event engine.
Input = Events | Currents | GradedEvents


def as_lasting(currents: Currents, t_end: Any) -> Currents:
    """Return currents marked as lasting if they begin at time 0 and are constant until the end, else
    unchanged. Their arrays must be in the memory of the processor.

    >>> held = Currents.held(np.ones((100, 1, 3)), dt=1e-3)
    >>> as_lasting(held, 0.1).lasting, as_lasting(held, 0.2).lasting
    (True, False)
    """
    time = np.asarray(currents.time)
    # pieces from the end on have no effect, but those that are not 0 must be reported as late
    behind = (time[..., 1:] >= np.asarray(t_end)) & ~np.asarray(currents.value)[..., 1:, :].any(-1)
    if time[..., :1].any() or not behind.all():
        return currents
    return Currents(time=currents.time[..., :1], value=currents.value[..., :1, :], lasting=True)


def late_pieces(currents: Currents, t_end: Float[Array, ""]) -> Int[Array, ""]:
    """Return the number of pieces that begin at or after the end of the run, without those of
    zeros.
    """
    some = jnp.any(currents.value != 0, axis=-1)
    return jnp.sum(jnp.isfinite(currents.time) & (currents.time >= t_end) & some)


def out_of_order(currents: Currents) -> Bool[Array, ""]:
    """Return whether a piece begins before time 0, or before the previous one."""
    time = currents.time
    return jnp.any(time < 0) | jnp.any(time[..., 1:] < time[..., :-1])


def changes(values: Float[Array, "batch pieces neurons"]) -> Float[Array, "batch pieces neurons"]:
    """Return the difference of each piece from the one before it, the first from 0; differentiable.

    The changes add up exactly to the value of the piece, in any order and with any others in
    between, so that a 0 is exactly 0 again. To that end values are rounded, if there are several,
    to a multiple of the last digit of the largest one of their neuron and sample, for which all
    differences are exact.
    """
    if values.shape[1] == 1:
        return values
    digits = np.finfo(values.dtype).nmant + 1
    largest = jnp.max(abs(values), axis=1, keepdims=True)
    # largest < 2^exponent, differences < 2^(exponent + 1) = 2^digits quanta
    quantum = jnp.ldexp(jnp.ones_like(largest), jnp.frexp(largest)[1] + 1 - digits)
    rounded = lax.stop_gradient(jnp.rint(values / quantum) * quantum)
    # The value is exactly the rounded number, the derivative that of the unrounded number.
    exact = rounded + (values - lax.stop_gradient(values))
    before = jnp.pad(exact[:, :-1], ((0, 0), (1, 0), (0, 0)))
    return exact - before
