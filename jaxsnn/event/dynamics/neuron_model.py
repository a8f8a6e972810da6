"""Interface of a neuron model of the event engine.

A model is a frozen, hashable record. It turns the parameters of a population into `constants`, the
arrays that its equations need, with one entry for each neuron. It defines how the state of a neuron
flows between events, how an arrival and a spike change it, and when it crosses the threshold.
Everything else, forward and backward, feed-forward and recurrent, is written once for all models:

- The state is a tuple of arrays; its first entry is the membrane voltage V, shifted by a constant
  if that makes the flow linear.
- Between events the state x follows x' = A x, so that the flow over a time is a linear map.
- An arrival of weight w adds w e to the state, with e constant.
- A spike occurs where `excess`, an affine function of the state, rises to zero.
- A spike assigns V, and may add a constant to each other entry (`reset`).

The gradients are those of EventProp (Wunderlich & Pehle, Scientific Reports 11, 12829, 2021) for
this class of models. They need the derivatives of the flow with respect to the constants named in
`flow_fields`; JAX computes them unless the model defines them in closed form (`decay_by`).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar, Self, TypeVar

import jax
import jax.numpy as jnp
from jax import lax

from jaxsnn.errors import LoweringError
from jaxsnn.event.event_arrays import Decay, NeuronConstants, Numbers, Parameters, State
from jaxsnn.network.array_types import Array, Bool, Float
from jaxsnn.options import ENGINE
from jaxsnn.wording import Text


@dataclass(frozen=True, kw_only=True)
class Neuron:
    """Neuron model. A subclass implements constants, begin, decay, flow, arrive, excess, rate,
    reset, crosses and solve.

    Attributes:
        uniform: whether all neurons of the population have the same `flow_fields`, so that one
            decay is valid for all. One sample of 700-256-20 with 8,000 events takes 1.7 times as
            long without.
        certain: the assumptions of the model (`uniform`, closed forms) hold for the numbers of the
            run. If not, they are guesses, which are checked at run time: see `specialise`. Without
            guesses the forward pass of 5-120-3 takes three times as long.
        width: duration of a rectangular pulse, seconds; 0 if spikes are deltas.
    """

    #: Whether an arrival changes V itself, so that a spike can occur exactly at the time of an
    #: arrival.
    jumps: ClassVar[bool] = False
    #: Whether every spike subtracts the same constant from the state (`drop`). False: V may differ
    #: between spikes when it is assigned, or other entries change.
    drops: ClassVar[bool] = True
    #: Index of the entry of the state that a box raises by its weight while it is open; None: no
    #: boxes.
    level: ClassVar[int | None] = None
    #: Fields of the constants that the flow depends on.
    flow_fields: ClassVar[tuple[str, ...]] = ()
    #: Fields of the constants in the unit of V.
    voltages: ClassVar[tuple[str, ...]] = ()

    uniform: bool = False
    certain: bool = True
    width: float = 0.0

    @property
    def keeps_overshoot(self) -> bool:
        """Return whether a spike subtracts a constant from V however far above the threshold it is,
        so that a neuron may fire several times at once.
        """
        return False

    # ---- parameters

    def constants(
        self, parameters: Parameters, current: Float[Array, "neurons"] | None
    ) -> NeuronConstants:
        """Return the constants of the equations, such as rates and the threshold: a pytree record
        of arrays (neurons,).

        Args:
            parameters: parameters of the population, by name.
            current: constant input current (a bias), or None.
        """
        # Models for earlier versions define this method under its former name.
        if (lanes := getattr(self, "lanes", None)) is None:
            raise NotImplementedError
        message = "Neuron.lanes is deprecated: define Neuron.constants instead"
        warnings.warn(message, DeprecationWarning, stacklevel=2)
        return lanes(parameters, current)

    def v_inf(self, parameters: Parameters, current: Float[Array, "neurons"] | None) -> Numbers:
        """Return the voltage that V is measured from, (neurons,)."""
        raise NotImplementedError

    def rest(self, parameters: Parameters, current: Float[Array, "neurons"] | None) -> State:
        """Return the state that the model's state is measured from, under a constant input: here
        only V differs from 0.
        """
        v_inf = self.v_inf(parameters, current)
        others = self.begin(self.constants(parameters, current))[1:]
        return v_inf, *map(jnp.zeros_like, others)

    def arrival_factor(self, parameters: Parameters) -> Numbers:
        """Return the weight (`arrive`) of an arriving spike of weight 1, (neurons,)."""
        raise NotImplementedError

    def current_factor(self, parameters: Parameters) -> Numbers:
        """Return the rise of the level that an open rectangular pulse raises, under a constant
        current of 1, (neurons,).
        """
        raise NotImplementedError

    def kick(self, parameters: Parameters) -> Numbers:
        """Return the scale of the effect of an arriving spike of weight 1 on V, (neurons,)."""
        return self.arrival_factor(parameters)

    def lift(
        self, parameters: Parameters, current: Float[Array, "neurons"], t_end: float
    ) -> Numbers:
        """Return the displacement of V by a constant current in the long run, (neurons,): that of
        its rest.
        """
        del t_end  # used by neurons that do not leak
        return self.v_inf(parameters, current) - self.v_inf(parameters, None)

    def height(self, parameters: Parameters) -> Numbers:
        """Return v_threshold - v_reset, (neurons,)."""
        return parameters["v_threshold"] - parameters["v_reset"]

    def in_units(
        self, constants: NeuronConstants, unit: Float[Array, "neurons"]
    ) -> NeuronConstants:
        """Return the constants with voltages in units of (neurons,) volts."""
        return replace(
            constants, **{name: getattr(constants, name) / unit for name in self.voltages}
        )

    # ---- the state and its flow

    def begin(self, constants: NeuronConstants) -> State:
        """Return the state at time 0."""
        raise NotImplementedError

    def decay(self, constants: NeuronConstants, t: Numbers) -> Decay:
        """Return the coefficients of the flow over t >= 0 seconds (inf allowed)."""
        raise NotImplementedError

    def flow(self, decay: Decay, state: State) -> State:
        """Return the state after the time that `decay` belongs to; linear in the state, affine in
        the coefficients.
        """
        raise NotImplementedError

    def rate(self, constants: NeuronConstants, state: State) -> State:
        """Return the time derivative of the state between events, linear in the state."""
        raise NotImplementedError

    def arrive(self, state: State, weight: Numbers | float) -> State:
        """Return the state after an arrival."""
        raise NotImplementedError

    def excess(self, constants: NeuronConstants, state: State) -> Numbers:
        """Return V - threshold, or an equivalent: the neuron fires where it rises to 0."""
        raise NotImplementedError

    def above(self, constants: NeuronConstants, state: State) -> Bool[Array, "..."]:
        """Return whether the neuron fires immediately, because an arrival or the initial state has put
        V at or above the threshold, no matter how V would continue.
        """
        return self.excess(constants, state) >= 0

    def reset(self, constants: NeuronConstants, state: State) -> State:
        """Return the state after a spike."""
        return self.clamp(constants, state)

    def clamp(self, constants: NeuronConstants, state: State) -> State:
        """Return the state with V at v_reset, as in a refractory period."""
        return constants.v_reset + jnp.zeros_like(state[0]), *state[1:]

    def lifted(self, constants: NeuronConstants, state: State) -> State:
        """Return the state with V raised to where the neuron fires, if rounding left it below."""
        missing = jnp.maximum(-self.excess(constants, state), 0.0)
        v = state[0] + missing
        # Rounding of the sum may leave V below by its last digit: add four times the remaining gap.
        still = jnp.maximum(-self.excess(constants, (v, *state[1:])), 0.0)
        return v + 4 * still, *state[1:]

    def drop(self, constants: NeuronConstants) -> State:
        """Return the part of the state that a spike subtracts, if `drops`: V falls from the
        threshold to v_reset.
        """
        height = constants.threshold - constants.v_reset
        return height, *(jnp.zeros_like(height) for _ in self.begin(constants)[1:])

    # ---- crossings

    def crosses(
        self, constants: NeuronConstants, state: State, end: State, duration: Numbers
    ) -> Bool[Array, "..."]:
        """Return whether the excess, below 0 now, rises to 0 in an interval from one state to
        another.

        Args:
            duration: length of the interval, seconds.
        """
        raise NotImplementedError

    def solve(
        self,
        constants: NeuronConstants,
        state: State,
        duration: Numbers,
        crossing: Bool[Array, "..."],
    ) -> Numbers:
        """Return the time to the first crossing, for the elements in which `crossing` says that
        there is one within `duration`.
        """
        raise NotImplementedError

    def bound(self, constants: NeuronConstants, state: State) -> Numbers | None:
        """Return a lower bound on the crossing time that is cheap to compute; None if there is
        none.
        """
        del constants, state
        return None

    def crossing_order(self, constants: NeuronConstants, state: State) -> Numbers | None:
        """Return numbers from 0 (never) to 1 (now) that rank the crossings of all neurons, if the
        model can compute them without solving for each (see `wait_of`); else None.
        """
        del constants, state
        return None

    def wait_of(self, constants: NeuronConstants, order: Numbers) -> Numbers:
        """Return the time to a crossing from its number in `crossing_order`, for any neuron."""
        raise NotImplementedError

    def slope(self, constants: NeuronConstants, state: State) -> Numbers:
        """Return the time derivative of the excess."""
        excess = partial(self.excess, constants)
        return jax.jvp(excess, (state,), (self.rate(constants, state),))[1]

    def slope_scale(self, constants: NeuronConstants) -> Numbers:
        """Return a typical slope, neither flat nor steep: `min_slope` is a fraction of it."""
        return (constants.threshold - constants.v_reset) * self.leak(constants)

    def leak(self, constants: NeuronConstants) -> Numbers:
        """Return the rate at which V decays, per second; 0 if it does not."""
        # minus the entry of A that maps V to V', where x' = A x
        return -self.rate(constants, self._only_v(constants))[0]

    def _only_v(self, constants: NeuronConstants) -> State:
        """Return the state with V = 1 and all else 0."""
        begin = self.begin(constants)
        return jnp.ones_like(begin[0]), *(jnp.zeros_like(part) for part in begin[1:])

    # ---- readouts: required only of models that are used as readouts

    def turns(self, constants: NeuronConstants, state: State, after: State) -> Bool[Array, "..."]:
        """Return whether V has an extremum inside an interval from one state to another (one at
        most).
        """
        raise self._lacks("the extrema of V")

    def extremum(self, constants: NeuronConstants, state: State) -> tuple[Numbers, Numbers]:
        """Return the time and value of the extremum of V after a state; time 0 if there is none."""
        raise self._lacks("the extrema of V")

    def integrals(self, constants: NeuronConstants, t: Numbers, rate: Numbers | float) -> Decay:
        """Return the integrals of the flow's coefficients times e^(-rate t) over [0, t]."""
        raise self._lacks("integrals of V")

    def _lacks(self, quantity: str) -> LoweringError:
        return LoweringError(
            Text(
                "neuron model {type} does not define {quantity}",
                type=type(self).__name__,
                quantity=quantity,
            ),
            fix=Text("simulate with {engine}", engine=ENGINE.set_to("grid")),
        )

    # ---- derivatives

    def decay_by(self, constants: NeuronConstants, t: Numbers) -> tuple[Decay, dict[str, Decay]]:
        """Return the coefficients over t, and their derivatives with respect to each of
        `flow_fields`.
        """
        general = self.general()
        coefficients = general.decay(constants, t)
        by_field = {}
        for name in self.flow_fields:
            value = getattr(constants, name)

            def moved(value: Numbers, name: str = name) -> Decay:
                return general.decay(replace(constants, **{name: value}), t)

            # Neurons are independent: a tangent of ones gives the derivative of each neuron.
            by_field[name] = jax.jvp(moved, (value,), (jnp.ones_like(value),))[1]
        return coefficients, by_field

    def flow_back(self, decay: Decay, costate: State) -> State:
        """Apply the transposed flow: return the costates before the time that `decay` belongs
        to.
        """
        # The flow is linear in the state, so that its derivative is the same at all states.
        still = jax.tree.map(jnp.zeros_like, costate)
        return jax.vjp(partial(self.flow, decay), still)[1](costate)[0]

    # ---- assumptions on the constants

    def general(self) -> Self:
        """Return the model without closed forms that tie some of the constants together."""
        return self

    def guessed(self) -> Self:
        """Return the model with its assumptions marked as uncertain, as they were derived from
        other numbers than those of the run.
        """
        return replace(self, certain=not self.uniform)

    def generic(self) -> Self:
        """Return the model without any assumption on numbers, which is correct for all."""
        return replace(self, uniform=False, certain=True)

    def assumption_holds(self, constants: NeuronConstants) -> Bool[Array, ""]:
        """Return whether the model's assumptions hold for these constants."""
        del constants
        return jnp.asarray(True)


Result = TypeVar("Result")


def specialise(
    neurons: Sequence[Neuron],
    constants: Sequence[NeuronConstants],
    function: Callable[[list[Neuron]], Result],
) -> Result:
    """Apply a function to some models: unchanged if their assumptions hold for the constants, else
    without assumptions. The choice is made at run time if the numbers are traced.
    """
    unsure = [n for n, neuron in enumerate(neurons) if not neuron.certain]
    if not unsure:
        return function(list(neurons))
    sure = [replace(neuron, certain=True) for neuron in neurons]
    plain = [neuron if neuron.certain else neuron.generic() for neuron in neurons]
    holds = jnp.asarray(True)
    for number in unsure:
        holds &= neurons[number].assumption_holds(constants[number])
    # Both branches are compiled, so that traced time constants, which training changes, can run at
    # the speed of known ones.
    return lax.cond(holds, lambda: function(sure), lambda: function(plain))
