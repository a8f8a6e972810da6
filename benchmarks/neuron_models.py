"""Neuron models of custom_neurons.py, as a user writes them; registered on import.

The adaptive LIF and the exponential integrate-and-fire neuron are those of docs/guide_neuron.md. All
models are current-based: an arrival raises j.
"""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

import jaxsnn
from jaxsnn.event.dynamics import crossing
from jaxsnn.event.dynamics.decaying_modes import DecayingModes
from jaxsnn.event.dynamics.integrated_neuron import IntegratedNeuron
from jaxsnn.event.dynamics.neuron_model import Neuron
from jaxsnn.network.structure import TauShape
from tests.extending_page import defined_by

LINEAR = defined_by("A neuron model")
NONLINEAR = defined_by("A neuron model with nonlinear equations")


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class Constants:
    """Constants of each neuron; a model has some of them."""

    tau_mem: Any
    tau_syn: Any
    tau_slow: Any = None
    frequency: Any = None
    v_threshold: Any = None
    v_reset: Any = None
    r: Any = None
    v_leak: Any = None
    v_rheobase: Any = None
    sharpness: Any = None
    v_spike: Any = None
    coupling: Any = None
    step: Any = None

    @property
    def threshold(self):
        """v_threshold, under the name that `Neuron` expects."""
        return self.v_threshold


class CurrentBased:
    """Methods that the models below share: the parameters are the constants, and nothing but
    spikes comes in.
    """

    variables = 2

    def constants(self, parameters, current):
        del current
        return Constants(**parameters)

    def v_inf(self, parameters, current):
        del current
        return jnp.zeros_like(parameters["tau_mem"])

    def arrival_factor(self, parameters):
        return 1 / parameters["tau_syn"]

    def begin(self, constants):
        return (jnp.zeros_like(constants.tau_mem),) * self.variables

    def arrive(self, state, weight):
        return state[0], state[1] + weight, *state[2:]

    def excess(self, constants, state):
        return state[0] - constants.v_threshold

    def reset(self, constants, state):
        return jnp.zeros_like(state[0]) + constants.v_reset, *state[1:]


@dataclass(frozen=True, kw_only=True)
class TwoSynapses(CurrentBased, DecayingModes):
    """LIF with a fast and a slow synaptic current, (v, j, k): tau_mem v' = j + k - v."""

    drops = False
    variables = 3
    flow_fields = ("tau_mem", "tau_syn", "tau_slow")
    voltages = ("v_threshold", "v_reset")

    def decay_rates(self, constants):
        return 1 / constants.tau_mem, 1 / constants.tau_syn, 1 / constants.tau_slow

    def decay(self, constants, t):
        fast = crossing.decay(TauShape.ANY, constants.tau_mem, constants.tau_syn, t)
        slow = crossing.decay(TauShape.ANY, constants.tau_mem, constants.tau_slow, t)
        return *fast, *slow[1:]

    def flow(self, decay, state):
        (em, es, k, e_slow, k_slow), (v, j, slow) = decay, state
        return v * em + j * k + slow * k_slow, j * es, slow * e_slow

    def rate(self, constants, state):
        c, (v, j, slow) = constants, state
        return (j + slow - v) / c.tau_mem, -j / c.tau_syn, -slow / c.tau_slow

    def arrive(self, state, weight):
        v, j, slow = state
        return v, j + weight, slow + 0.2 * weight


@dataclass(frozen=True, kw_only=True)
class Resonator(CurrentBased, Neuron):
    """Resonate-and-fire, (v, j, w): (v + i w)' = (-1 / tau_mem + i frequency) (v + i w) + j / tau_mem."""

    drops = False
    variables = 3
    flow_fields = ("tau_mem", "tau_syn", "frequency")
    voltages = ("v_threshold", "v_reset")

    def decay(self, constants, t):
        m, s, frequency = 1 / constants.tau_mem, 1 / constants.tau_syn, constants.frequency
        em, es = jnp.exp(-m * t), jnp.exp(-s * t)
        real, imaginary = em * jnp.cos(frequency * t), em * jnp.sin(frequency * t)
        # j drives v + i w by (e^(l t) - e^(-s t)) / (l + s) with l = -m + i frequency.
        size = (s - m) ** 2 + frequency**2
        by_v = m * ((real - es) * (s - m) + imaginary * frequency) / size
        by_w = m * (imaginary * (s - m) - (real - es) * frequency) / size
        return real, imaginary, by_v, by_w, es

    def flow(self, decay, state):
        (real, imaginary, by_v, by_w, es), (v, j, w) = decay, state
        return v * real - w * imaginary + j * by_v, j * es, v * imaginary + w * real + j * by_w

    def rate(self, constants, state):
        c, (v, j, w) = constants, state
        v_rate = (j - v) / c.tau_mem - c.frequency * w
        return v_rate, -j / c.tau_syn, c.frequency * v - w / c.tau_mem


@dataclass(frozen=True, kw_only=True)
class ThetaQIF(CurrentBased, IntegratedNeuron):
    """Quadratic integrate-and-fire neuron as a phase p that runs from 0 to 1, (p, j), as eventax's
    QIF has it: V = pi tan(pi (p - 1/2)).
    """

    def height(self, parameters):
        return jnp.ones_like(parameters["tau_mem"])

    def begin(self, constants):
        return jnp.full_like(constants.tau_mem, 0.5), jnp.zeros_like(constants.tau_mem)

    def rate(self, constants, state):
        phase, j = state
        c, s = jnp.cos(jnp.pi * phase), jnp.sin(jnp.pi * phase)
        phase_rate = c * (c + s / jnp.pi) + s * s * j / jnp.pi**2
        return phase_rate / constants.tau_mem, -j / constants.tau_syn

    def excess(self, constants, state):
        return state[0] - 1

    def reset(self, constants, state):
        return jnp.zeros_like(state[0]), state[1]


@dataclass(frozen=True, kw_only=True)
class AdEx(CurrentBased, IntegratedNeuron):
    """Adaptive exponential integrate-and-fire neuron, (v, j, a)."""

    variables = 3

    def height(self, parameters):
        return parameters["v_spike"] - parameters["v_reset"]

    def rate(self, constants, state):
        c, (v, j, a) = constants, state
        upstroke = c.sharpness * jnp.exp((v - c.v_rheobase) / c.sharpness)
        v_rate = (c.v_leak - v + upstroke + c.r * j - a) / c.tau_mem
        return v_rate, -j / c.tau_syn, (c.coupling * (v - c.v_leak) - a) / c.tau_slow

    def excess(self, constants, state):
        return state[0] - constants.v_spike

    def reset(self, constants, state):
        v, j, a = super().reset(constants, state)
        return v, j, a + constants.step


for _neuron in (TwoSynapses, Resonator, ThetaQIF, AdEx):
    jaxsnn.register_neuron(
        jaxsnn.NeuronModel(
            kind=_neuron.__name__,
            fires=True,
            dynamics=lambda population, neuron=_neuron: neuron(uniform=population.uniform),
        )
    )
jaxsnn.register_neuron(LINEAR["MODEL"])
jaxsnn.register_neuron(NONLINEAR["EXPONENTIAL_MODEL"])
