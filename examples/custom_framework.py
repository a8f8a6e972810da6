# %% [markdown]
# # Add a framework
#
# jaxsnn describes a framework by one record: how a membrane decays in a time step, how it resets,
# and how the files of the framework are recognised. Once registered, these files are read, checked
# and simulated like those of the built-in frameworks.

# %%
import numpy as np

import jaxsnn
from jaxsnn import plot
from jaxsnn.nir import build
from jaxsnn.nir.frameworks import Conventions, Decay, Evidence, Rule


def implicit_euler(parameters, dt, xp):
    """Decay of one step of the implicit Euler method; xp is NumPy or jax.numpy."""
    return 1 / (1 + dt / parameters["tau"])


def recognise(nodes):
    """Return the reason why a file is of this framework, or an empty text."""
    neurons = [node for node in nodes.values() if node.type == "LIF"]
    has_mark = neurons and all((node.value("r") == 2).all() for node in neurons)
    return "r = 2 at all neurons, as only Implicit writes" if has_mark else ""


# %%
rule = Rule(
    arrival="jump",
    kernel="box",
    membrane="leak",
    membrane_decay=Decay(text="1/(1+dt/tau)", factor=implicit_euler),
)
conventions = Conventions(
    name="implicit",
    rules={"LIF": rule},
    evidence=Evidence(recognises=recognise),
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
# The reader now recognises a file of this framework by its parameters.

# %%
layers = build.input(2), build.linear(weight=np.ones((3, 2))), build.lif(tau=10e-3, r=2.0)
document = jaxsnn.export(build.sequential(*layers, dialect="nir"))
document.metadata = {}
graph = jaxsnn.parse(document, dt=1e-3)
print(graph.dialect.name, "-", graph.dialect.why)

# %%
x = (np.random.default_rng(0).random((40, 1, 2)) < 0.3).astype(np.float32)
network = jaxsnn.lower(graph, dtype=np.float32)
solution = jaxsnn.simulate(network, x, engine=jaxsnn.TimeStepped(record=True))
voltages = plot.voltage(solution, graph.neurons[0], network=network)
voltages.save("custom_framework.png", force=True)
