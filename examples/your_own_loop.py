# %% [markdown]
# # Your own loss and your own loop
#
# `fit` is a loop around `jax.grad`, and you can write another. A network is a pytree of parameters;
# its spike times are differentiable numbers. Here one neuron learns to fire at a time that is given.

# %%
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxsnn
from jaxsnn import plot
from jaxsnn.nir import build

SMOKE = "--smoke" in sys.argv
TARGET, T_END = 12e-3, 40e-3  # seconds

graph = build.sequential(
    build.input(3),
    build.linear(weight=np.array([[3.0, 2.0, 2.4]])),
    build.cubalif(tau_mem="20ms", tau_syn="10ms"),
)
network = jaxsnn.lower(graph)
events = jaxsnn.Events(time=jnp.array([[0.0, 2e-3, 5e-3]]), index=jnp.array([[0, 1, 2]]))

# %% [markdown]
# The loss is written in terms of the solution. `with_parameters` puts other numbers into the same
# network; in units of milliseconds the squared error has a size that an optimiser likes.


# %%
def loss(parameters):
    solution = jaxsnn.simulate(network.with_parameters(parameters), events, T_END, throw=False)
    return ((solution.first_spike("2")[0, 0] - TARGET) / 1e-3) ** 2


optimiser = optax.adam(0.02)
parameters = network.parameters
state = optimiser.init(parameters)


# %% [markdown]
# Everything has a gradient: weights, time constants, thresholds. Only the weights are to move here.


# %%
@jax.jit
def step(parameters, state):
    value, slopes = jax.value_and_grad(loss)(parameters)
    wanted = jax.tree_util.tree_map_with_path(
        lambda path, slope: slope if path[-1].key == "weight" else 0.0 * slope, slopes
    )
    updates, state = optimiser.update(wanted, state)
    return optax.apply_updates(parameters, updates), state, value


for number in range(3 if SMOKE else 200):
    parameters, state, value = step(parameters, state)
    if number % 50 == 0:
        print(f"step {number}: squared error {value:.4f} ms^2")

# %%
trained = network.with_parameters(parameters)
solution = jaxsnn.simulate(trained, events, T_END)
print(f"first spike at {1e3 * float(solution.first_spike('2')[0, 0]):.3f} ms")
picture = plot.voltage(solution, "2", network=trained, inputs=events)
picture.save("your_own_loop.png", force=True)
jaxsnn.write("your_own_loop.nir", jaxsnn.update_graph(graph, trained), force=True)
