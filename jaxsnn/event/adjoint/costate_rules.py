"""The rules by which costates go back through a spike and through time: see `layer_adjoint`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.interpreters.partial_eval import dce_jaxpr
from jax.typing import DTypeLike

from jaxsnn.errors import UsageError
from jaxsnn.event.dynamics.neuron_model import Neuron
from jaxsnn.event.event_arrays import (
    Decay,
    NeuronConstants,
    Numbers,
    OfNeurons,
    State,
    WhichNeurons,
)
from jaxsnn.event.forward.layer import LayerSpec
from jaxsnn.network.array_types import Array, Bool, Float
from jaxsnn.wording import Text

#: Arrays of spikes, slots first.
Slots = Float[Array, "spikes batch neurons"]
#: Constant that the flow depends on -> derivative of a state or costate with respect to it.
ByField = dict[str, State]


def slope_floor(spec: LayerSpec, constants: NeuronConstants) -> Numbers:
    """Return the smallest slope that a gradient is divided by, in the shape of the constants."""
    return spec.min_slope * spec.neuron.slope_scale(constants)


def starts_above(neuron: Neuron, constants: NeuronConstants) -> Bool[Array, "..."]:
    """Return whether a neuron starts above its threshold: it then fires at time 0, whatever its
    exact parameters.
    """
    return neuron.above(constants, neuron.begin(constants))


def start_of(spec: LayerSpec, constants: NeuronConstants) -> State:
    """Return the initial state before the first spike; the reset state for neurons that start above
    the threshold and whose spikes subtract a constant.
    """
    neuron = spec.neuron
    begin = neuron.begin(constants)
    if spec.assigns or neuron.keeps_overshoot:
        return begin
    # A neuron that starts above its threshold begins as if reset: its spike subtracts nothing.
    above = neuron.above(constants, begin)
    pairs = zip(neuron.reset(constants, begin), begin, strict=True)
    return tuple(jnp.where(above, reset, started) for reset, started in pairs)


def left_by_spike(spec: LayerSpec, constants: NeuronConstants) -> State:
    """Return the state that a spike adds to zero: v_reset and its increments elsewhere, if it
    assigns V; else the negative of the part that it subtracts.
    """
    if not spec.assigns:
        return tuple(-part for part in spec.neuron.drop(constants))
    still = jax.tree.map(jnp.zeros_like, spec.neuron.begin(constants))
    if spec.neuron.keeps_overshoot:  # only with a refractory period, in which V is held
        return spec.neuron.clamp(constants, still)
    return spec.neuron.reset(constants, still)


class SpikeSlot(NamedTuple):
    """Spike slot of the backward scan, arrays (batch, neurons); or all, slots first."""

    time: Float[Array, "*spikes batch neurons"]
    #: divisor of the spike's costate; inf: the state does not move the time
    slope: Float[Array, "*spikes batch neurons"]
    slope_after: Float[Array, "*spikes batch neurons"]  # V' when V is released from v_reset
    cotangent: Float[Array, "*spikes batch neurons"]  # E, dL/dt of the spike
    fired: Bool[Array, "*spikes batch neurons"]


class Costate(NamedTuple):
    """Costate P and its derivatives with respect to the fields of the flow, states of arrays
    (batch, neurons).
    """

    p: State
    by: ByField


class Passed(NamedTuple):
    """Results of the scan for each spike; or for all, slots first."""

    before: Costate  # just before the spike
    after: Costate  # just after it
    free: Costate  # when V is released from v_reset, with the entry of V
    lam: Float[Array, "*spikes batch neurons"]  # lam_s, the factor of dg/dx in the costate
    #: numerator of -lam, which belongs to the causing arrival if there is one
    drive: Float[Array, "*spikes batch neurons"]


class AtSpike(NamedTuple):
    """Costate just before the next spike, and the time of that spike."""

    costate: Costate
    time: OfNeurons
    fired: WhichNeurons  # whether there is a next spike


def _depends(function: Callable[..., Any], *arguments: Numbers) -> bool:
    """Return whether the result of a function depends on one of its arguments, by its operations."""
    jaxpr = jax.make_jaxpr(function)(*arguments).jaxpr
    _, used = dce_jaxpr(jaxpr, [True] * len(jaxpr.outvars))
    return any(used)


class Backward:
    """Backward scan over the spikes of a population; constants broadcast to (batch, neurons).

    Args:
        by_fields: whether the costate's derivatives with respect to the constants of the flow are
            computed, too.
    """

    def __init__(self, spec: LayerSpec, constants: NeuronConstants, by_fields: bool = True) -> None:
        self.spec = spec
        self.neuron = spec.neuron
        self.by_fields = by_fields
        self.constants = constants
        begin = self.neuron.begin(constants)
        self.still = jax.tree.map(jnp.zeros_like, begin)

        def total(state: State) -> Float[Array, ""]:
            return jnp.sum(self.neuron.excess(constants, state))

        #: dg/dx, constant as g is affine
        self.along = jax.grad(total)(self.still)
        if spec.assigns:
            self._refuse_unknown_jumps()
        #: state just after a spike if it was zero before: see `left_by_spike`
        self.left = left_by_spike(spec, constants)

    def arrived(self) -> tuple[State, State]:
        """Return the increments of the state and of its rate by an arrival of weight 1."""
        unit = self.neuron.arrive(self.still, jnp.ones_like(self.still[0]))
        return unit, self.neuron.rate(self.constants, unit)

    def _refuse_unknown_jumps(self) -> None:
        """Refuse models in which V drives other variables, if the jump of V at a spike is not that from
        the threshold to v_reset.

        Raises:
            UsageError: the threshold depends on other variables, arrivals move V, or there is a
                refractory period.
        """
        v, *others = self.still

        def rates(v: Numbers) -> tuple[Numbers, ...]:
            return self.neuron.rate(self.constants, (v, *others))[1:]

        def threshold(*others: Numbers) -> Numbers:
            return self.neuron.excess(self.constants, (v, *others))

        varies = _depends(threshold, *others)
        causes = {
            "the threshold depends on others": varies,
            "an arrival moves V across the threshold": self.neuron.jumps,
            "a refractory period holds V": bool(self.spec.refractory),
        }
        if any(causes.values()) and _depends(rates, v):
            raise UsageError(
                Text(
                    "gradients of the neuron model {model} are not available: V drives other variables, "
                    "and {cause}",
                    model=type(self.neuron).__name__,
                    cause=next(cause for cause, applies in causes.items() if applies),
                ),
                fix="train it with TimeStepped",
            )

    def rate_jump(self) -> State:
        """Return the jump of the rates of all variables but V, 0 for V, at a spike that assigns V: it
        is that of the variables with an increment, and of those that V drives.
        """
        v_before = -self.neuron.excess(self.constants, self.still)
        jump = self.left[0] - v_before, *self.left[1:]
        return without_v(self.neuron.rate(self.constants, jump))

    def flow_back(self, costate: Costate, time: Numbers) -> Costate:
        """Return the costate a time earlier."""
        if not self.by_fields:
            decay = self.neuron.decay(self.constants, time)
            return Costate(p=self.neuron.flow_back(decay, costate.p), by={})
        decay, decay_by = self.neuron.decay_by(self.constants, time)
        # P = F^T P' gives dP/dtau = F^T dP'/dtau + (dF/dtau)^T P'.
        by = {}
        for name, change in decay_by.items():
            carried = self.neuron.flow_back(decay, costate.by[name])
            by[name] = plus(carried, self._moved(costate.p, decay, change))
        return Costate(p=self.neuron.flow_back(decay, costate.p), by=by)

    def _moved(self, p: State, decay: Decay, change: Decay) -> State:
        """Return the change of the earlier costate by a change of the flow's coefficients."""
        flow_back = partial(self.neuron.flow_back, costate=p)
        return jax.jvp(flow_back, (decay,), (change,))[1]

    def start(self, shape: tuple[int, ...], dtype: DTypeLike) -> AtSpike:
        """Return zero costates: after the last spike nothing contributes."""
        zero = tuple(jnp.zeros(shape, dtype) for _ in self.along)
        by = dict.fromkeys(self.neuron.flow_fields if self.by_fields else (), zero)
        costate = Costate(p=zero, by=by)
        return AtSpike(costate=costate, time=zero[0], fired=jnp.zeros(shape, bool))

    def step(self, carry: AtSpike, spike: SpikeSlot) -> tuple[AtSpike, Passed]:
        """Propagate the costate backwards in time to just before the previous spike; an empty slot
        changes nothing.
        """
        let_go = spike.time + self.spec.refractory
        gap = jnp.where(carry.fired, carry.time - let_go, 0.0)
        free = self.flow_back(carry.costate, jnp.maximum(gap, 0.0))
        through = self._assigned if self.spec.assigns else self._lowered
        passed = through(free, spike)
        earlier = AtSpike(costate=passed.before, time=spike.time, fired=spike.fired)
        return earlier, passed

    def _lowered(self, q: Costate, spike: SpikeSlot) -> Passed:
        """Go back through a spike that subtracts a constant from the state."""
        # If a spike is later by dt, the part h that it subtracts flows for a shorter time, which
        # changes the state by A h dt.
        fall = self.neuron.rate(self.constants, self.neuron.drop(self.constants))
        drive = jnp.where(spike.fired, spike.cotangent, 0.0) + dot(q.p, fall)
        lam = jnp.where(spike.fired, -drive / spike.slope, 0.0)
        before = q._replace(p=plus(q.p, times_each(self.along, lam)))
        return Passed(before=before, after=q, free=q, lam=lam, drive=drive)

    def _assigned(self, q: Costate, spike: SpikeSlot) -> Passed:
        """Go back through a spike that assigns V, and the refractory period after it."""
        # V is assigned: V before the spike has no effect.
        after = without_v_of_costate(q)
        if self.spec.refractory:
            held = self.flow_back(after, jnp.asarray(self.spec.refractory, q.p[0].dtype))
            after = without_v_of_costate(held)
        added = self.rate_jump()
        later = q.p[0] * spike.slope_after + dot(after.p, added)
        drive = jnp.where(spike.fired, spike.cotangent - later, 0.0)
        lam = jnp.where(spike.fired, -drive / spike.slope, 0.0)
        before = after._replace(p=plus(after.p, times_each(self.along, lam)))
        return Passed(before=before, after=after, free=q, lam=lam, drive=drive)


def plus(state: State, addend: State) -> State:
    """Return the sum of two states."""
    return tuple(a + b for a, b in zip(state, addend, strict=True))


def times_each(state: State, factor: Numbers) -> State:
    """Return a state times a number for each neuron."""
    return tuple(part * factor for part in state)


def dot(state: State, costate: State) -> Numbers:
    """Return the scalar product of each neuron's states."""
    return sum(a * b for a, b in zip(state, costate, strict=True))  # pyright: ignore


def without_v(state: State) -> State:
    """Return a state with 0 for V."""
    return jnp.zeros_like(state[0]), *state[1:]


def without_v_of_costate(costate: Costate) -> Costate:
    by = {name: without_v(state) for name, state in costate.by.items()}
    return Costate(p=without_v(costate.p), by=by)
