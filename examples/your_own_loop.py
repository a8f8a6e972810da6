# %% [markdown]
# # Write your own loss and training loop
#
# `fit` is a loop around `jax.grad`, and you can write your own. The parameters of a network are a
# pytree, and its spike times are differentiable. In this example a neuron learns to fire at a target
# time.

# %%
import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxsnn
from jaxsnn import plot
from jaxsnn.nir import build

TARGET = 12e-3  # seconds
T_END = 40e-3
STEPS = 200  # of the optimiser

graph = build.sequential(
    build.input(3),
    build.linear(weight=np.array([[3.0, 2.0, 2.4]])),
    build.cubalif(tau_mem="20ms", tau_syn="10ms"),
)
network = jaxsnn.lower(graph)
events = jaxsnn.Events(time=jnp.array([[0.0, 2e-3, 5e-3]]), index=jnp.array([[0, 1, 2]]))

# %% [markdown]
# The loss is a function of the solution. `with_parameters` returns the network with other parameters.
# The error is in milliseconds, so that the loss is of order 1.


# %%
def loss(parameters):
    solution = jaxsnn.simulate(network.with_parameters(parameters), events, T_END, throw=False)
    return ((solution.first_spike("2")[0, 0] - TARGET) / 1e-3) ** 2


optimiser = optax.adam(0.02)
parameters = network.parameters
state = optimiser.init(parameters)


# %% [markdown]
# All parameters have gradients: weights, time constants and thresholds. This loop trains the weights
# only.


# %%
@jax.jit
def step(parameters, state):
    squared_error, gradients = jax.value_and_grad(loss)(parameters)
    gradients = jax.tree_util.tree_map_with_path(
        lambda path, gradient: gradient if path[-1].key == "weight" else 0.0 * gradient, gradients
    )
    updates, state = optimiser.update(gradients, state)
    return optax.apply_updates(parameters, updates), state, squared_error


for number in range(STEPS):
    parameters, state, squared_error = step(parameters, state)
    if number % 50 == 0:
        print(f"step {number}: squared error {squared_error:.4f} ms^2")

# %%
trained = network.with_parameters(parameters)
solution = jaxsnn.simulate(trained, events, T_END)
print(f"first spike at {1e3 * float(solution.first_spike('2')[0, 0]):.3f} ms")
jaxsnn.write("your_own_loop.nir", jaxsnn.update_graph(graph, trained), force=True)
voltages = plot.voltage(solution, "2", network=trained, inputs=events)
voltages.save("your_own_loop.png", force=True)
