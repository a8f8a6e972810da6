"""Neuron models whose equations are not linear, which the native kernels integrate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, NoReturn

import jax
import jax.numpy as jnp

from jaxsnn.errors import LoweringError
from jaxsnn.event.dynamics.neuron_model import Neuron
from jaxsnn.event.event_arrays import Decay, NeuronConstants, Numbers, Parameters, State
from jaxsnn.network.array_types import Array, Bool, Float
from jaxsnn.wording import Text


@dataclass(frozen=True, kw_only=True)
class IntegratedNeuron(Neuron):
    """Neuron model whose equations may be nonlinear, such as the quadratic and the exponential
    integrate-and-fire neuron.

    The state x, a tuple of which the first entry is V, follows x' = `rate` between events. A spike
    occurs where `excess` rises to 0, at a finite V, and `reset` returns the state after it.

    A subclass implements constants, arrival_factor, begin, rate, excess, reset and arrive, in
    elementwise operations of JAX; rate and excess without comparisons of the state. It needs no
    flow, as there is no closed form of it: the native kernels translate the methods to C++ and
    integrate the equations by Taylor series, with an error below 1e-13 of the state in each step
    (1e-10 with float32 networks). They are compiled at the first use of a model, which needs a C++
    compiler. Gradients are those of EventProp, with the costate integrated backwards in the same
    way.

    Only the native kernels of the event engine run such a model, without convolutions, cycles and
    refractory periods. An arrival must not move the excess itself, and one of weight 0 must not
    change the state. What is not supported is refused.
    """

    #: Spikes set V, and may change all other entries.
    drops: ClassVar[bool] = False

    def v_inf(self, parameters: Parameters, current: Float[Array, "neurons"] | None) -> Numbers:
        """Return 0: V is not relative to a rest."""
        del current
        return jnp.zeros_like(next(iter(parameters.values())))

    def leak(self, constants: NeuronConstants) -> Numbers:
        """Return the rate at which a small change of V decays in the initial state, per second."""
        begin = self.begin(constants)

        def v_rate(v: Numbers) -> Numbers:
            return self.rate(constants, (v, *begin[1:]))[0]

        return jnp.abs(jax.jvp(v_rate, (begin[0],), (jnp.ones_like(begin[0]),))[1])

    def slope_scale(self, constants: NeuronConstants) -> Numbers:
        """Return a typical slope: the distance from the threshold in the initial state, times the
        leak.
        """
        distance = jnp.abs(self.excess(constants, self.begin(constants)))
        return distance * self.leak(constants)

    def decay(self, constants: NeuronConstants, t: Numbers) -> Decay:
        """Refuse: the flow has no closed form."""
        del constants, t
        self._refuse()

    def flow(self, decay: Decay, state: State) -> State:
        """Refuse: the flow has no closed form."""
        del decay, state
        self._refuse()

    def crosses(
        self, constants: NeuronConstants, state: State, end: State, duration: Numbers
    ) -> Bool[Array, "..."]:
        """Refuse: only the native kernels search for crossings."""
        del constants, state, end, duration
        self._refuse()

    def solve(
        self, constants: NeuronConstants, state: State, duration: Numbers, crossing: Any
    ) -> Numbers:
        """Refuse: only the native kernels search for crossings."""
        del constants, state, duration, crossing
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise LoweringError(
            Text(
                "only the native kernels of the event engine integrate the equations of the neuron "
                "model {type}",
                type=type(self).__name__,
            ),
            fix="simulate with EventDriven(backend='native'), without cycles and convolutions",
        )
