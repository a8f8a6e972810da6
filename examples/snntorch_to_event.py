# %% [markdown]
# # From an snnTorch module to exact spike times
#
# A module of snnTorch steps through time. Here its graph is taken over, checked against the module
# itself, and simulated without steps. Needs the extra `interop`.

# %%
import sys

import numpy as np
import snntorch
import torch

import jaxsnn
from jaxsnn import plot

SMOKE = "--smoke" in sys.argv
STEPS, SAMPLES = (30, 2) if SMOKE else (200, 16)

torch.manual_seed(0)
linear = torch.nn.Linear(5, 20, bias=False)
net = torch.nn.Sequential(
    linear,
    snntorch.Leaky(beta=0.9, reset_mechanism="zero", init_hidden=True),
)
with torch.no_grad():
    linear.weight.abs_()  # all synapses excite, so that something fires

# %% [markdown]
# `from_torch` runs the module and its graph side by side, and refuses where they differ. What
# snnTorch's own exporter loses, the reset and its delay, is in the graph's dialect.

# %%
graph = jaxsnn.from_torch(net, torch.zeros(1, 5))
print(graph)
own = graph.dialect.at("1")
print(f"reset {own.reset}, a step late: {own.reset_delay}")

# %% [markdown]
# The same spikes go into both engines: steps as snnTorch takes them, and continuous time. How alike
# the two are is a property of the network and of its inputs, so it is measured on them.

# %%
x = (np.random.default_rng(0).random((STEPS, SAMPLES, 5)) < 0.2).astype(np.float32)
found = jaxsnn.fidelity(graph, {"x": x})
print(found.as_text())
plot.fidelity(found).save("snntorch_to_event.png", force=True)
