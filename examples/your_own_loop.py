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

import jaxsnn.train
from jaxsnn import plot
from jaxsnn.nir import build

TARGET = 12e-3  # seconds
T_END = 40e-3
STEPS = 200  # of the optimiser
LEARNING_RATE = 0.02

graph = build.sequential(
    build.input(3),
    build.linear(weight=np.array([[3.0, 2.0, 2.4]])),
    build.cubalif(tau_mem="20ms", tau_syn="10ms"),
)
events = jaxsnn.Events(time=jnp.array([[0.0, 2e-3, 5e-3]]), index=jnp.array([[0, 1, 2]]))

# %% [markdown]
# `unconstrain` returns the numbers that the optimiser changes, and a function that returns the network for
# them. Time constants are trained in log space: a step of 0.01 changes them by 1 %, and they stay
# positive. Plain steps would be of 0.01 seconds. Parameters that are not named stay constant.

# %%
raw, network_of = jaxsnn.train.unconstrain(graph, ("weight", "tau_mem"))

# %% [markdown]
# The loss is a function of the solution. The error is in milliseconds, so that the loss is of order 1.


# %%
def loss(raw):
    solution = jaxsnn.simulate(network_of(raw), events, T_END, throw=False)
    return ((solution.first_spike("2")[0, 0] - TARGET) / 1e-3) ** 2


optimiser = optax.adam(LEARNING_RATE)
state = optimiser.init(raw)


@jax.jit
def step(raw, state):
    squared_error, gradient = jax.value_and_grad(loss)(raw)
    updates, state = optimiser.update(gradient, state)
    return optax.apply_updates(raw, updates), state, squared_error


for number in range(STEPS):
    raw, state, squared_error = step(raw, state)
    if number % 50 == 0:
        print(f"step {number}: squared error {squared_error:.4f} ms^2")

# %% [markdown]
# `throw=False` is needed inside `jit` and `grad`, where the engine cannot raise an error. The run after
# training raises it.

# %%
trained = network_of(raw)
solution = jaxsnn.simulate(trained, events, T_END)
print(f"first spike at {1e3 * float(solution.first_spike('2')[0, 0]):.3f} ms")
print(f"tau_mem {1e3 * float(trained.parameters['2']['tau_mem'][0]):.2f} ms")
jaxsnn.write("your_own_loop.nir", jaxsnn.update_graph(graph, trained), force=True)
voltages = plot.voltage(solution, "2", network=trained, inputs=events)
voltages.save("your_own_loop.png", force=True)
