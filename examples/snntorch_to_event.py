# %% [markdown]
# # From an snnTorch module to exact spike times
#
# An snnTorch module runs in time steps. This example reads the module, checks the graph against it,
# and simulates it in continuous time. It needs the extra `interop`.

# %%
import numpy as np
import snntorch
import torch

import jaxsnn
from jaxsnn import plot

STEPS = 200
SAMPLES = 16

torch.manual_seed(0)
linear = torch.nn.Linear(5, 20, bias=False)
net = torch.nn.Sequential(
    linear,
    snntorch.Leaky(beta=0.9, reset_mechanism="zero", init_hidden=True),
)
with torch.no_grad():
    linear.weight.abs_()  # all synapses excite, so that the neurons fire

# %% [markdown]
# `from_torch` runs the module and its graph on the same sample and refuses any difference. The graph's
# dialect holds the reset and its delay, which snnTorch's own exporter omits.

# %%
graph = jaxsnn.from_torch(net, torch.zeros(1, 5))
print(graph)
dialect = graph.dialect.at("1")
print(f"reset {dialect.reset}, delayed by a step: {dialect.reset_delay}")

# %% [markdown]
# `fidelity` simulates the same input spikes in the time steps of snnTorch and in continuous time. How
# similar both are depends on the network and on its input.

# %%
x = (np.random.default_rng(0).random((STEPS, SAMPLES, 5)) < 0.2).astype(np.float32)
comparison = jaxsnn.fidelity(graph, {"x": x})
print(comparison.as_text())
plot.fidelity(comparison).save("snntorch_to_event.png", force=True)
