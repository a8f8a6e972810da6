# %% [markdown]
# # Simulate a recurrent network under Poisson input
#
# A fifth of the neurons inhibits, and all are driven by random spikes. The event engine has no time
# step that would decide the order of simultaneous spikes: causes precede effects.

# %%
import jax.numpy as jnp
import numpy as np

import jaxsnn
from jaxsnn import plot
from jaxsnn.nir import build

NEURONS = 100
T_END = 0.3  # seconds
RATE = 80.0  # input spikes per second and channel
rng = np.random.default_rng(0)

# %% [markdown]
# One in ten pairs of neurons is connected. A network consists of named nodes and of chains of nodes;
# a chain that returns to its first node closes the loop.

# %%
connected = rng.random((NEURONS, NEURONS)) < 0.1
signs = np.where(np.arange(NEURONS) < 0.8 * NEURONS, 1.0, -4.0)
graph = build.network(
    {
        "input": build.input(NEURONS),
        "drive": build.linear(weight=np.eye(NEURONS) * 2.5),
        "neurons": build.cubalif(NEURONS, tau_mem="20ms", tau_syn="5ms"),
        "synapses": build.linear(weight=0.5 * connected * signs),
        "output": build.output(),
    },
    [("input", "drive", "neurons", "output"), ("neurons", "synapses", "neurons")],
)

# %% [markdown]
# A Poisson spike train: the number of spikes of each channel, then their times, in any order. Unused
# entries of `Events` are `inf`, with the number of channels as index.

# %%
count = rng.poisson(RATE * T_END, NEURONS)
time = np.sort(rng.uniform(0, T_END, count.sum()))
channel = rng.permutation(np.repeat(np.arange(NEURONS), count))
events = jaxsnn.Events(time=jnp.asarray(time[None]), index=jnp.asarray(channel[None]))
solution = jaxsnn.simulate(graph, events, T_END)
print(solution)

# %%
plot.raster(solution, inputs={"input": events}).save("recurrent_poisson.png", force=True)

# %%
plot.histogram(solution, bins=30).save("recurrent_poisson_rate.png", force=True)
