# %% [markdown]
# # Add a neuron model
#
# A neuron model that NIR does not have is one class. It defines how the state evolves between
# spikes, and the effect of an input spike and of an output spike. The model of this example adapts:
# each output spike lowers the synaptic current by `step`.
#
#     tau_syn I' = -I,   tau_mem V' = -V + I,   input spike:  I = I + W,
#     V > v_threshold:  V = 0,  I = I - step

# %%
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxsnn
from jaxsnn import NeuronModel, NodeTraits, plot
from jaxsnn.event.dynamics import crossing
from jaxsnn.event.dynamics.decaying_modes import DecayingModes
from jaxsnn.network.structure import TauShape
from jaxsnn.nir import Parameter, build


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class AdaptingConstants:
    """Parameters of each neuron that the equations use."""

    threshold: Any
    v_reset: Any
    v_start: Any
    j_start: Any
    step: Any
    tau_mem: Any
    tau_syn: Any


@dataclass(frozen=True, kw_only=True)
class Adapting(DecayingModes):
    """State (v, j): v' = (j - v) / tau_mem, j' = -j / tau_syn."""

    drops = False  # a spike does more than lower V from the same height
    flow_fields = ("tau_mem", "tau_syn")
    voltages = ("threshold", "v_reset", "v_start", "j_start", "step")

    def constants(self, parameters, current):
        zero = jnp.zeros_like(parameters["v_threshold"])
        return AdaptingConstants(
            threshold=parameters["v_threshold"],
            v_reset=zero,
            v_start=zero,
            j_start=zero,
            step=parameters["step"],
            tau_mem=parameters["tau_mem"],
            tau_syn=parameters["tau_syn"],
        )

    def height(self, parameters):
        return parameters["v_threshold"]  # V falls to 0

    def v_inf(self, parameters, current):
        return jnp.zeros_like(parameters["v_threshold"])

    def arrival_factor(self, parameters):
        return jnp.ones_like(parameters["tau_syn"])

    def begin(self, constants):
        return constants.v_start, constants.j_start

    def decay_rates(self, constants):
        return 1 / constants.tau_mem, 1 / constants.tau_syn

    def decay(self, constants, t):
        # From v = 0, j = 1 the membrane potential is tau_syn / (tau_mem - tau_syn) (e^(-t / tau_mem) -
        # e^(-t / tau_syn)). That is undefined at equal time constants and loses digits near them;
        # `crossing.decay` is accurate for all time constants.
        return crossing.decay(TauShape.ANY, constants.tau_mem, constants.tau_syn, t)

    def flow(self, decay, state):
        mem, syn, between = decay
        v, j = state
        return v * mem + j * between, j * syn

    def rate(self, constants, state):
        v, j = state
        return (j - v) / constants.tau_mem, -j / constants.tau_syn

    def arrive(self, state, weight):
        return state[0], state[1] + weight

    def excess(self, constants, state):
        return state[0] - constants.threshold

    def reset(self, constants, state):
        return jnp.zeros_like(state[0]) + constants.v_reset, state[1] - constants.step


# %% [markdown]
# The node type declares the parameters of a node in a file, the model the dynamics of its neurons.

# %%
times = [
    Parameter(name=name, per="element", time=1, positive=True) for name in ("tau_mem", "tau_syn")
]
voltages = [Parameter(name=name, per="element") for name in ("v_threshold", "step")]
traits = NodeTraits(
    type="Adapting",
    doc="A current-based leaky neuron whose current drops at each spike.",
    parameters=(*times, *voltages),
    state=True,
    fires=True,
    current_based=True,
    elementwise=True,
)
jaxsnn.register_node(traits)
model = NeuronModel(
    kind="Adapting",
    fires=True,
    dynamics=lambda population: Adapting(uniform=population.uniform),
)
jaxsnn.register_neuron(model)

# %% [markdown]
# Two neurons, of which only the second adapts. The event engine simulates them with exact
# gradients.

# %%
neurons = build.node("Adapting", 2, tau_mem=20e-3, tau_syn=10e-3, v_threshold=1.0, step=[0.0, 0.5])
graph = build.sequential(build.input(1), build.linear(weight=np.full((2, 1), 0.8)), neurons)
events = jaxsnn.Events(time=jnp.arange(20)[None] * 2e-3, index=jnp.zeros((1, 20), int))
network = jaxsnn.lower(graph)
solution = jaxsnn.simulate(network, events, 50e-3)
print("spikes:", np.asarray(solution.count("2")))
plot.raster(solution, inputs={"input": events}).save("custom_neuron.png", force=True)


# %%
def sum_of_first_spikes(parameters):
    run = jaxsnn.simulate(network.with_parameters(parameters), events, 50e-3)
    return run.first_spike("2").sum()


gradient = jax.grad(sum_of_first_spikes)(network.parameters)
print("derivative of the first spike times by v_threshold:", gradient["2"]["v_threshold"])
