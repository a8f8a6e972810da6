"""Slopes of V at spikes, whose derivative is not implemented: it is NaN instead of zero."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_derivatives import SymbolicZero

from jaxsnn.event.adjoint.required_gradients import values_of
from jaxsnn.event.event_arrays import OfSpikes
from jaxsnn.event.forward.layer import LayerSpikes
from jaxsnn.network.promotion import usual_promotion


def without_slopes(spikes: LayerSpikes, *, forward_mode: bool) -> LayerSpikes:
    """Return the same spikes; derivatives through their slopes become NaN.

    Args:
        forward_mode: whether the spikes are differentiated in forward mode.
    """
    rule = _forwards if forward_mode else _backwards
    # stop_gradient, because `lax.scan` mistakes a zero cotangent that the rule returns for all its
    # steps for the cotangent of a single step
    time, slope = rule(spikes.time, lax.stop_gradient(spikes.slope))
    return replace(spikes, time=time, slope=slope)


@jax.custom_vjp
def _backwards(time: OfSpikes, slope: OfSpikes) -> tuple[OfSpikes, OfSpikes]:
    return time, slope


def _kept(*arguments: Any) -> tuple[Any, tuple[()]]:
    return values_of(arguments), ()


def _back(residuals: tuple[()], cotangent: tuple[Any, Any]) -> tuple[Any, None]:
    """Return the cotangent of the times, NaN where the cotangent of the slopes is not zero: a loop
    also passes on zeros for unused results.
    """
    del residuals
    by_time, by_slope = cotangent
    if isinstance(by_slope, SymbolicZero):
        return by_time, None
    unknown = _unknown_where(by_slope)
    return (unknown if isinstance(by_time, SymbolicZero) else by_time + unknown), None


_backwards.defvjp(usual_promotion(_kept), usual_promotion(_back), symbolic_zeros=True)


@jax.custom_jvp
def _forwards(time: OfSpikes, slope: OfSpikes) -> tuple[OfSpikes, OfSpikes]:
    return time, slope


@_forwards.defjvp
@usual_promotion
def _(primals: tuple[Any, Any], tangents: tuple[Any, Any]) -> tuple[Any, Any]:
    return primals, (tangents[0], _unknown_where(tangents[0]))


def _unknown_where(moves: OfSpikes) -> OfSpikes:
    return jnp.where(moves != 0, jnp.nan, jnp.zeros_like(moves))
