# %% [markdown]
# # A recurrent network under Poisson input
#
# Neurons that feed each other, a fifth of which inhibit, driven by random spikes. Event by event
# there is no step that orders what happens at one time: causes come before effects.

# %%
import sys

import jax.numpy as jnp
import numpy as np

import jaxsnn
from jaxsnn import plot
from jaxsnn.nir import build

SMOKE = "--smoke" in sys.argv
SIZE, T_END, RATE = (20, 0.05, 60.0) if SMOKE else (100, 0.3, 80.0)
rng = np.random.default_rng(0)

# %% [markdown]
# One in ten pairs is connected. A network is named nodes and chains of them; a chain that returns
# closes the loop.

# %%
connected = rng.random((SIZE, SIZE)) < 0.1
signs = np.where(np.arange(SIZE) < 0.8 * SIZE, 1.0, -4.0)
graph = build.network(
    {
        "input": build.input(SIZE),
        "drive": build.linear(weight=np.eye(SIZE) * 2.5),
        "neurons": build.cubalif(SIZE, tau_mem="20ms", tau_syn="5ms"),
        "synapses": build.linear(weight=0.5 * connected * signs),
        "output": build.output(),
    },
    [("input", "drive", "neurons", "output"), ("neurons", "synapses", "neurons")],
)

# %% [markdown]
# Poisson trains: for each channel a number of spikes, each at any time. Unused slots hold `inf` and
# the number of channels.

# %%
count = rng.poisson(RATE * T_END, SIZE)
time = np.sort(rng.uniform(0, T_END, count.sum()))
channel = rng.permutation(np.repeat(np.arange(SIZE), count))
events = jaxsnn.Events(time=jnp.asarray(time[None]), index=jnp.asarray(channel[None]))
solution = jaxsnn.simulate(graph, events, T_END)
print(solution)
plot.raster(solution, inputs={"input": events}).save("recurrent_poisson.png", force=True)
plot.histogram(solution, bins=30).save("recurrent_poisson_rate.png", force=True)
