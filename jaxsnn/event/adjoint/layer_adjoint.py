"""Exact gradients of a feed-forward population's spike times.

The backward pass receives dL/dt of each recorded spike and returns the gradients with respect to
the weights, to the constants of the neurons and to the arrival times. It has two parts.
`_spikes_back` goes from the last spike of each neuron to its first and carries the costate P, the
derivative of the loss with respect to the neuron's state. Then each arrival needs only P at the time
of the arrival: P at the neuron's next spike, flowed back to the arrival (`arrivals_back`,
`arrival_tiles`):

    neuron         a-----a--s-----a--a----s--->  time       a: arrival, s: spike
    spikes back             P <---------- P                 one scan over the spike slots
    arrivals       P <-- P <-         P <-P                 dL/dw of an arrival is e . P

The arrays and their axes:

    spike times, slopes, dL/dt    (batch, neurons, spikes)  in the scan (spikes, batch, neurons)
    costate P                     (batch, neurons)          one array for each entry of the state
    weight                        (rows, neurons)
    arrival times, rows           (batch, arrivals)

Derivation. A spike occurs at the time t_s at which the excess g (V - threshold) of the neuron rises
to zero. For a change dp of any quantity that it depends on, the implicit function theorem gives

    dt_s = -dg(t_s)/dp dp / g'(t_s),

so that dL = sum_s lam_s dg(t_s) with a number lam_s for each spike. The costate P(t) is the
derivative of sum_s lam_s g(t_s), at fixed times, with respect to the state at t. Backwards in time
it flows by the transposed flow, P(t) = F(t' - t)^T P(t'). At a spike, with q the costate just after
it and E_s = dL/dt_s,

    assigned V:   lam_s = -(E_s - q_v V'_after + ...) / g'(t_s),   P = (0, q_rest) + lam_s dg/dx,
    V lowered:    lam_s = -(E_s + q . A h) / g'(t_s),              P = q + lam_s dg/dx,

where h is the part of the state that each spike subtracts (x' = A x between events) and "..." the
effect of constants that a spike adds to other entries. This is EventProp (Wunderlich & Pehle,
Scientific Reports 11, 12829, 2021) with the flow of the adjoint in closed form: no trajectory is
stored or integrated backwards.

During a refractory period V stays at v_reset: its costate is 0 there, and V' at the end of the
period is used. Where an arrival moves V itself across the threshold, the spike occurs at the time
of that arrival, whatever the weights: lam_s = 0, and the numerator is added to the gradient with
respect to the arrival's time. With a `jump_width` the jump is treated as a ramp of that length,
whose slope is jump / width.

The derivatives of P by the constants of the flow (time constants) are carried along with P.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_derivatives import SymbolicZero

from jaxsnn.event.adjoint.arrival_tiles import tiles_back
from jaxsnn.event.adjoint.arrivals_back import ByArrivals, arrivals_back
from jaxsnn.event.adjoint.costate_rules import (
    Backward,
    Costate,
    Passed,
    Slots,
    SpikeSlot,
    dot,
    left_by_spike,
    plus,
    slope_floor,
    start_of,
    starts_above,
    without_v,
)
from jaxsnn.event.adjoint.required_gradients import (
    GradientFlags,
    RequiredGradients,
    is_perturbed,
    values_of,
)
from jaxsnn.event.dynamics.neuron_model import Neuron, specialise
from jaxsnn.event.event_arrays import (
    NeuronConstants,
    Numbers,
    OfSpikes,
    Rows,
    Seconds,
    State,
    Times,
    Weights,
)
from jaxsnn.event.forward.layer import (
    Causes,
    LayerSpec,
    LayerSpikes,
    broadcast_constants,
    gathered,
)
from jaxsnn.event.forward.simulate_layer import simulate_layer
from jaxsnn.network.array_types import Array, Bool, Float, Int, Num
from jaxsnn.network.lookups import transpose
from jaxsnn.network.meshes import match_device_axes
from jaxsnn.network.promotion import usual_promotion

#: Number of arrivals from which on the gradient processes them one after the other.
_MANY_ARRIVALS = 64


class Residuals(NamedTuple):
    """Residuals of the backward pass: the arguments of `layer_spikes`, and its results.

    `gradient_flags`: the gradients that are required; None: all.
    """

    weight: Weights
    constants: NeuronConstants
    time: Times
    row: Rows
    times: OfSpikes  # of the spikes
    slopes: OfSpikes
    causes: Causes | None
    gradient_flags: GradientFlags | None = None

    @property
    def required(self) -> RequiredGradients:
        """Gradients that are required besides the gradient with respect to the weights."""
        return (
            RequiredGradients()
            if self.gradient_flags is None
            else RequiredGradients.by(self.gradient_flags)
        )


#: Gradients with respect to weight, constants, time, row and t_end; None if not requested.
Gradients = tuple[Weights, Any, Any, None, None]


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def layer_spikes(
    spec: LayerSpec,
    weight: Weights,
    constants: NeuronConstants,
    time: Times,
    row: Rows,
    t_end: Seconds,
) -> LayerSpikes:
    """Return the spikes of one population, differentiable in weight, every field of `constants` and
    the arrival times.

    Args:
        weight: (rows, neurons), weights of an arrival of each row.
        constants: constants of the neurons, (neurons,) or (positions, neurons).
        time: (batch, arrivals) in any order, seconds; inf where unused. With positions, batch
            counts the positions of each sample, which come one after the other.
        row: (arrivals,) or (batch, arrivals) int32 in [0, rows); arbitrary where unused.
        t_end: end of the simulation, seconds; spikes do not depend on it, so its gradient is zero.

    Only `LayerSpikes.time` carries a gradient. Slopes below `spec.min_slope` are divided by as if
    they were that large (`clipped_slopes` counts them).
    """
    return simulate_layer(spec, weight, constants, time, row, t_end)[0]


def _forward(spec: LayerSpec, *arguments: Any) -> tuple[LayerSpikes, Residuals]:
    """Return the spikes and the residuals of the backward pass. Each argument carries whether it is
    perturbed.
    """
    weight, constants, time, row, t_end = values_of(arguments)
    spikes, causes = simulate_layer(spec, weight, constants, time, row, t_end)
    return spikes, Residuals(
        weight,
        constants,
        time,
        row,
        spikes.time,
        spikes.slope,
        causes,
        gradient_flags=RequiredGradients(
            constants=is_perturbed(arguments[1]), time=is_perturbed(arguments[2])
        ).gradient_flags,
    )


def _backward(spec: LayerSpec, residuals: Residuals, cotangent: LayerSpikes) -> Gradients:
    drive: Any = cotangent.time
    if isinstance(drive, SymbolicZero):
        drive = jnp.zeros(drive.shape, residuals.weight.dtype)
    return layer_backward(spec, residuals, replace(cotangent, time=drive))


def clipped_slopes(
    spec: LayerSpec, constants: NeuronConstants, spikes: LayerSpikes
) -> Int[Array, ""]:
    """Return the number of recorded spikes whose slope lies below the floor."""
    wide = jax.tree.map(
        lambda x: x[..., None], broadcast_constants(constants, spikes.time.shape[0])
    )
    slot = jnp.arange(spikes.time.shape[-1])
    return jnp.sum(is_clipped(spec, wide, spikes.time, spikes.slope, slot))


def is_clipped(
    spec: LayerSpec,
    constants: NeuronConstants,
    time: Float[Array, "..."],
    slope: Float[Array, "..."],
    slot: Int[Array, "..."],
) -> Bool[Array, "..."]:
    """Return for each spike whether its slope lies below the floor; all arrays broadcast."""
    low = (slope < slope_floor(spec, constants)) & jnp.isfinite(time)
    # the spike of a neuron that starts above its threshold has no gradient to clip
    return low & ~(starts_above(spec.neuron, constants) & (slot == 0))


# ---- pass from the last spike to the first


def _spikes_back(
    spec: LayerSpec,
    constants: NeuronConstants,
    times: Slots,
    slopes: Slots,
    cotangent: Slots,
    causes: Causes | None,
    by_fields: bool,
) -> tuple[Passed, Costate]:
    """Return the results of the scan for each spike (arrays (spikes, batch, neurons)), and the
    costate at time 0.
    """
    fired = jnp.isfinite(times)
    # The slope of a spike that an arrival caused is inf: lam = 0. With a width it is that of a
    # ramp.
    if causes is not None and spec.jump_width is not None:
        jumped = jnp.isinf(slopes) & (causes.jump > 0)
        slopes = jnp.where(jumped, causes.jump / spec.jump_width, slopes)
    slopes = jnp.maximum(slopes, slope_floor(spec, constants))
    # A neuron that starts above its threshold fires at time 0, whatever its exact state: lam = 0.
    at_start = starts_above(spec.neuron, constants) & (times[0] == 0)
    first = jnp.where(at_start, jnp.inf, slopes[0])
    spikes = SpikeSlot(
        time=jnp.where(fired, times, 0.0),
        slope=slopes.at[0].set(first),
        slope_after=jnp.zeros_like(times) if causes is None else causes.slope_after,
        cotangent=cotangent,
        fired=fired,
    )
    backward = Backward(spec, constants, by_fields)
    start = match_device_axes(backward.start(times.shape[1:], times.dtype), spikes, constants)
    if len(times) == 1:  # a scan of one step would be compiled as a loop
        carry, passed = backward.step(start, jax.tree.map(lambda array: array[0], spikes))
        passed = jax.tree.map(lambda array: array[None], passed)
    else:
        carry, passed = lax.scan(backward.step, start, spikes, reverse=True)
    return passed, backward.flow_back(carry.costate, jnp.where(carry.fired, carry.time, 0.0))


def _own_gradient(
    spec: LayerSpec, constants: NeuronConstants, passed: Passed, begin: Costate
) -> NeuronConstants:
    """Return the part of the gradient with respect to the constants that needs no arrivals,
    (batch, neurons).
    """
    neuron = spec.neuron
    total = partial(jax.tree.map, partial(jnp.sum, axis=0))
    # The state after a spike is multiplied by the costate after it; v_reset by that of V at the
    # release of V.
    if spec.assigns:
        after = _with_v(passed.after, passed.free)
    elif neuron.keeps_overshoot:
        after = passed.after
    else:  # the first spike of a neuron that starts above its threshold subtracts nothing
        above = starts_above(neuron, constants)
        counts = jnp.ones_like(passed.lam).at[0].set(jnp.where(above, 0.0, 1.0))
        after = jax.tree.map(lambda array: array * counts, passed.after)
    after = total(after)
    still = jax.tree.map(jnp.zeros_like, neuron.begin(constants))
    wide = jax.tree.map(lambda array: jnp.broadcast_to(array, passed.lam.shape[1:]), constants)
    # The constants enter through the excess at spikes, ...
    gradient = pulled(lambda constants: neuron.excess(constants, still), wide, total(passed.lam))
    # ... through the states from which the flow begins, at time 0 and after spikes, and, for the
    # fields of the flow, through the flow itself.
    beginnings = ((partial(start_of, spec), begin), (partial(left_by_spike, spec), after))
    for function, costate in beginnings:
        gradient = jax.tree.map(jnp.add, gradient, pulled(function, wide, costate.p))
        state = function(constants)
        for name in neuron.flow_fields:
            moved = getattr(gradient, name) + dot(state, costate.by[name])
            gradient = replace(gradient, **{name: moved})
    return gradient


def _with_v(costate: Costate, v_costate: Costate) -> Costate:
    """Return a costate with V's entry of another."""
    by = {name: (v_costate.by[name][0], *state[1:]) for name, state in costate.by.items()}
    return Costate(p=(v_costate.p[0], *costate.p[1:]), by=by)


def pulled(
    function: Callable[[NeuronConstants], State | Numbers],
    constants: NeuronConstants,
    cotangent: State | Numbers,
) -> NeuronConstants:
    """Return the gradient of a function of the constants, in the shape of the constants.

    Args:
        cotangent: cotangent of the result, or a tree that broadcasts to it.
    """
    shape = jax.tree.leaves(constants)[0].shape
    primal_out, pull = jax.vjp(function, constants)

    def fitted(value: Numbers, cotangent_leaf: Numbers) -> Numbers:
        return jnp.broadcast_to(cotangent_leaf, shape).astype(value.dtype)

    return pull(jax.tree.map(fitted, primal_out, cotangent))[0]


# ---- the gradient


def layer_backward(
    spec: LayerSpec, residuals: Residuals, cotangent: LayerSpikes, transposable: bool = False
) -> Gradients:
    """Compute the gradients of `layer_spikes` with respect to its arguments.

    Args:
        transposable: whether JAX must be able to transpose the result as a linear function of the
            cotangent.
    """

    gradients = _gradients(spec, residuals, cotangent, transposable)
    d_weight, d_constants, d_time = match_device_axes(gradients)
    return d_weight, d_constants, d_time, None, None


def _goes_by_arrivals(spec: LayerSpec, residuals: Residuals) -> bool:
    """Return whether the pass over the arrivals supports the neurons, and is faster than tiles of
    the samples since there are many arrivals.
    """
    batch, arrivals = residuals.time.shape  # `batch` may be symbolic (`jax.export`)
    covered = not (spec.neuron.jumps or spec.refractory)
    return covered and isinstance(batch, int) and arrivals >= _MANY_ARRIVALS


def _gradients(
    assumed: LayerSpec, residuals: Residuals, cotangent: LayerSpikes, transposable: bool
) -> tuple[Weights, NeuronConstants | None, Times | None]:
    """Compute the gradients with respect to weight, constants and arrival times; None where they
    are not required.

    Args:
        assumed: description of the population, whose model's assumptions may not hold.
    """
    constants, needs_grad = residuals.constants, residuals.required
    spec = assumed  # valid for all constants: only the pass over arrivals is compiled twice
    if not assumed.neuron.certain:
        spec = replace(assumed, neuron=assumed.neuron.generic())
    # (batch, neurons, spikes) -> (spikes, batch, neurons), as the scan takes them
    times, slopes, causes = jax.tree.map(
        _spikes_first, (residuals.times, residuals.slopes, residuals.causes)
    )
    wide = broadcast_constants(constants, residuals.time.shape[0])
    if spec.assigns:
        causes = _with_slope_after(spec, residuals, wide, times, causes)
    # JAX transposes moveaxis to moveaxis, but the look-ups of `_spikes_first` to a scatter
    drive = jnp.moveaxis(cotangent.time, -1, 0) if transposable else _spikes_first(cotangent.time)
    passed, begin = _spikes_back(spec, wide, times, slopes, drive, causes, needs_grad.constants)
    arrivals = residuals.time, residuals.row
    if _goes_by_arrivals(spec, residuals) and not transposable:
        d_weight, d_fields, d_time = arrivals_back(
            assumed, residuals.weight, constants, arrivals, times, passed.before, needs_grad
        )
    else:

        def through(neurons: list[Neuron]) -> ByArrivals:
            specialised = replace(assumed, neuron=neurons[0])
            return tiles_back(
                specialised, residuals.weight, wide, arrivals, times, causes, passed, needs_grad
            )

        d_weight, d_fields, d_time = specialise([assumed.neuron], [constants], through)
    if spec.neuron.jumps and causes is not None and d_time is not None:
        d_time = _passed_on(d_time, times, causes, passed)
    if not needs_grad.constants:
        return d_weight, None, d_time
    d_constants = _own_gradient(spec, wide, passed, begin)
    d_constants = replace(
        d_constants, **{name: getattr(d_constants, name) + by for name, by in d_fields.items()}
    )
    return d_weight, gathered(d_constants, constants), d_time


def _spikes_first(array: Num[Array, "batch neurons spikes"]) -> Num[Array, "spikes batch neurons"]:
    batch, neurons, spikes = array.shape  # no -1 in reshape: arrays may be empty
    return transpose(array.reshape(batch * neurons, spikes)).reshape(spikes, batch, neurons)


def _passed_on(d_time: Times, times: Slots, causes: Causes, passed: Passed) -> Times:
    """Add the cotangents of spikes that coincide with an arrival."""
    batch, arrivals = d_time.shape
    jumped = jnp.isfinite(times) & (causes.cause >= 0)
    # (spikes, batch, neurons) -> (batch, spikes * neurons); slot `arrivals` does not exist: dropped
    slot = jnp.moveaxis(jnp.where(jumped, causes.cause, arrivals), 1, 0).reshape(batch, -1)
    drive = jnp.moveaxis(jnp.where(jumped, passed.drive, 0.0), 1, 0).reshape(batch, -1)
    return d_time.at[jnp.arange(batch)[:, None], slot].add(drive, mode="drop")


def slopes_after(spec: LayerSpec, residuals: Residuals) -> OfSpikes:
    """Return V' at the end of the refractory period after each spike."""
    wide = broadcast_constants(residuals.constants, residuals.time.shape[0])
    times = jnp.moveaxis(residuals.times, -1, 0)
    return jnp.moveaxis(_with_slope_after(spec, residuals, wide, times, None).slope_after, 0, -1)


def _with_slope_after(
    spec: LayerSpec,
    residuals: Residuals,
    wide: NeuronConstants,
    times: Slots,
    causes: Causes | None,
) -> Causes:
    """Return the causes with V' at the release of V after each spike, where the simulation did not
    record it: after a refractory period, and for spikes that were recorded elsewhere.
    """
    if causes is not None and not spec.refractory:
        return causes
    neuron = spec.neuron
    weight = jnp.pad(residuals.weight, ((0, 1), (0, 0)))  # a last row of zeros for unused slots
    rows = jnp.broadcast_to(residuals.row, residuals.time.shape)
    rows = jnp.where(jnp.isfinite(residuals.time), rows, len(residuals.weight))
    batch = residuals.time.shape[0]
    constants = jax.tree.map(lambda x: jnp.broadcast_to(x, (batch, x.shape[1])), wide)
    samples = _Seen(residuals.time, rows, jnp.moveaxis(times, 1, 0), constants)
    slopes = lax.map(partial(_slopes_after, neuron, weight, spec.refractory), samples)
    slopes = jnp.moveaxis(slopes, 0, 1)
    if causes is None:
        none = jnp.full(times.shape, -1, jnp.int32)
        return Causes(cause=none, jump=jnp.zeros_like(times), slope_after=slopes)
    return causes._replace(slope_after=slopes)


class _Seen(NamedTuple):
    """Inputs that V depends on in one sample; of a batch, with a leading axis of samples."""

    arrival: Float[Array, "*batch arrivals"]
    row: Int[Array, "*batch arrivals"]
    times: Float[Array, "*batch spikes neurons"]
    constants: NeuronConstants


def _slopes_after(
    neuron: Neuron, weight: Float[Array, "slots neurons"], refractory: float, seen: _Seen
) -> Float[Array, "spikes neurons"]:
    """Return V' at the release of V after each spike of a sample.

    The state at that time is the sum of the contributions of the initial state, the arrivals and
    the spikes, as all entries except V, which is v_reset, follow a linear flow.
    """
    arrival, constants = seen.arrival, seen.constants
    fired = jnp.isfinite(seen.times)
    spikes = jnp.where(fired, seen.times, 0.0)
    still = jax.tree.map(jnp.zeros_like, neuron.begin(constants))
    added = without_v(neuron.reset(constants, still))

    def after(gap: Numbers, state: State) -> State:
        return neuron.flow(neuron.decay(constants, gap), state)

    def slope_at(free: Float[Array, "neurons"]) -> Float[Array, "neurons"]:
        """Return V' of each neuron that is released at a time."""
        state = after(free, neuron.begin(constants))
        came = jnp.isfinite(arrival)[:, None] & (free >= arrival[:, None])
        gap = jnp.where(came, free - arrival[:, None], 0.0)
        moved = after(gap, neuron.arrive(still, weight[seen.row]))
        spiked = fired & (free >= spikes)
        kicked = after(jnp.where(spiked, free - spikes, 0.0), added)
        # first axis of `parts`: arrivals, or spikes
        for counts, parts in ((came, moved), (spiked, kicked)):
            sums = (jnp.sum(jnp.where(counts, part, 0.0), axis=0) for part in parts)
            state = plus(state, tuple(sums))
        return neuron.rate(constants, neuron.clamp(constants, state))[0]

    return lax.map(slope_at, spikes + refractory)


layer_spikes.defvjp(usual_promotion(_forward), usual_promotion(_backward), symbolic_zeros=True)
