"""Neuron models of any number of variables whose flow has real rates of decay, with a general method
for their threshold crossings.

Let f be the excess over the threshold. Between events it is a constant plus a sum of terms that
decay with the rates r_1, ..., r_n (terms with equal rates are multiplied by powers of t). With
f_1 = f' and f_(k+1) = f_k' + r_k f_k, each step removes one term: f_n is a single exponential and has
no root. By Rolle's theorem, applied to e^(r_k t) f_k, a root of f_(k+1) lies between any two roots of
f_k. So the roots of f_k are searched between those of f_(k+1), from the last k to the first.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import jax
import jax.numpy as jnp

from jaxsnn.event.dynamics.bracketed_root import Value, bracketed_root
from jaxsnn.event.dynamics.neuron_model import Neuron
from jaxsnn.event.event_arrays import NeuronConstants, Numbers, State
from jaxsnn.network.array_types import Array, Bool

#: A function of the state of some neurons.
Functional = Callable[[State], Numbers]


@dataclass(frozen=True, kw_only=True)
class DecayingModes(Neuron):
    """Neuron model whose threshold crossings follow from the decay rates of its flow.

    A subclass implements `decay_rates` and the methods of `Neuron` except `crosses` and `solve`.
    """

    def decay_rates(self, constants: NeuronConstants) -> tuple[Numbers, ...]:
        """Return the decay rates of the modes of the flow, one for each variable, per second, at
        least 0; some may be equal.
        """
        raise NotImplementedError

    def crosses(
        self, constants: NeuronConstants, state: State, end: State, duration: Numbers
    ) -> Bool[Array, "..."]:
        """Return whether the excess is at least 0 at the end of an interval, or at an extremum
        within.
        """
        is_above = self.excess(constants, end) >= 0
        between = self._turns(constants, state, duration)[1:-1]
        for turn in between:
            extreme = self.excess(constants, self._after(constants, state, turn))
            is_above |= extreme >= 0
        return is_above

    def solve(
        self,
        constants: NeuronConstants,
        state: State,
        duration: Numbers,
        crossing: Bool[Array, "..."],
    ) -> Numbers:
        """Return the time to the first crossing: between the first two extrema of which the latter
        is at or above the threshold.
        """
        turns = self._turns(constants, state, duration)
        low = high = turns[0]
        bracketed = jnp.zeros_like(crossing)
        for before, after in pairwise(turns):
            reached = self.excess(constants, self._after(constants, state, after)) >= 0
            here = ~bracketed & reached
            low = jnp.where(here, before, low)
            high = jnp.where(here, after, high)
            bracketed |= here
        excess = partial(self.excess, constants)
        root = bracketed_root(partial(self._along, excess, constants, state), low, high)
        return jnp.where(crossing, root, 0.0)

    def _turns(self, constants: NeuronConstants, state: State, duration: Numbers) -> list[Numbers]:
        """Return 0, the times at which the excess may have an extremum, and the end of the
        interval, in rising order.
        """
        # f_1, ..., f_n of the module docstring. The end of the interval stands for a root that does
        # not exist, so that the shapes do not depend on the numbers.
        functions = [_derivative(self, constants, partial(self.excess, constants), 0.0)]
        for rate in self.decay_rates(constants)[:-1]:
            functions.append(_derivative(self, constants, functions[-1], rate))
        shape = jnp.broadcast_shapes(jnp.shape(duration), *map(jnp.shape, state))
        end = jnp.broadcast_to(duration, shape)
        points = [jnp.zeros_like(end), end]
        # from f_(n-1) to f_1: f_n has no root
        for function in reversed(functions[:-1]):
            value_at = partial(self._along, function, constants, state)
            roots = [_root_or_end(value_at, low, high) for low, high in pairwise(points)]
            points = [points[0], *roots, end]
        return points

    def _along(
        self, function: Functional, constants: NeuronConstants, state: State, t: Numbers
    ) -> Value:
        """Return a function of the state, and its time derivative, at times after a state."""
        after = self._after(constants, state, t)
        return Value(*jax.jvp(function, (after,), (self.rate(constants, after),)))

    def _after(self, constants: NeuronConstants, state: State, t: Numbers) -> State:
        """Return the state after a time."""
        return self.flow(self.decay(constants, t), state)


def _derivative(
    neuron: Neuron, constants: NeuronConstants, function: Functional, rate: Numbers | float
) -> Functional:
    """Return the function f' + rate f of the state, for a function f."""

    def derivative(state: State) -> Numbers:
        value, slope = jax.jvp(function, (state,), (neuron.rate(constants, state),))
        # A float is rate 0: the first derivative removes the constant of the excess.
        return slope if isinstance(rate, float) else slope + rate * value

    return derivative


def _root_or_end(value_at: Callable[[Numbers], Value], low: Numbers, high: Numbers) -> Numbers:
    """Return the root between two times, or the later time if there is none."""
    changes = (value_at(low).value > 0) != (value_at(high).value > 0)
    # without a change of sign the bracket has no width, so that the search does not wait for it
    root = bracketed_root(value_at, jnp.where(changes, low, high), high)
    return jnp.where(changes, root, high)
