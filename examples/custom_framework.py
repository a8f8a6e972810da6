# %% [markdown]
# # A framework that nobody knows yet
#
# What another framework's files mean is one record: how its membranes decay in a step, how it
# resets, by which numbers its files are recognised. Once registered, its files are read, checked
# and simulated like those of the frameworks that are built in.

# %%
import numpy as np

import jaxsnn
from jaxsnn import plot
from jaxsnn.nir import build
from jaxsnn.nir.frameworks import Conventions, Decay, Evidence, Rule


def implicit(parameters, dt, xp):
    """The decay of one step of the implicit Euler method; xp is NumPy or jax.numpy."""
    return 1 / (1 + dt / parameters["tau"])


def recognises(nodes):
    """What a file must have to be ours: the reason in words, or nothing."""
    neurons = [node for node in nodes.values() if node.type == "LIF"]
    known = neurons and all((node.value("r") == 2).all() for node in neurons)
    return "r = 2 at all neurons, as only Implicit writes" if known else ""


# %%
rule = Rule(
    arrival="jump",
    kernel="box",
    membrane="leak",
    membrane_decay=Decay(text="1/(1+dt/tau)", factor=implicit),
)
conventions = Conventions(
    name="implicit",
    rules={"LIF": rule},
    evidence=Evidence(recognises=recognises),
    time_unit="s",
    reset="zero",
    reset_delay=False,
)
jaxsnn.register_framework(
    jaxsnn.Framework(
        name="implicit", title="Implicit", dialects=(conventions,), distribution="implicit"
    )
)

# %% [markdown]
# A file of its own is now recognised by its numbers.

# %%
layers = build.input(2), build.linear(weight=np.ones((3, 2))), build.lif(tau=10e-3, r=2.0)
written = jaxsnn.export(build.sequential(*layers, dialect="nir"))
written.metadata = {}
graph = jaxsnn.parse(written, dt=1e-3)
print(graph.dialect.name, "-", graph.dialect.why)

# %%
x = (np.random.default_rng(0).random((40, 1, 2)) < 0.3).astype(np.float32)
network = jaxsnn.lower(graph, dtype=np.float32)
solution = jaxsnn.simulate(network, x, engine=jaxsnn.TimeStepped(record=True))
picture = plot.voltage(solution, graph.neurons[0], network=network)
picture.save("custom_framework.png", force=True)
