# %% [markdown]
# # Convert a network to Norse and back
#
# `convert` rewrites a network from snnTorch for Norse's importer. This example reads the result back
# and simulates both: their spike trains are the same. If Norse could not express the network, the
# conversion would be refused.

# %%
from importlib.resources import files

import numpy as np

import jaxsnn
from jaxsnn import plot

source = files("jaxsnn") / "commands" / "demo" / "snntorch_yinyang.nir"
graph = jaxsnn.read(str(source), dialect="snntorch", reset="zero", reset_delay=True)

# %% [markdown]
# Norse measures time in seconds with a default step of 1 ms, and its importer has its own reset. The
# conversion lists its changes and its losses.

# %%
converted = jaxsnn.convert(graph, to="norse")
for change in converted.changes[:4]:
    print(change.as_text())
print("losses:", converted.losses or "none")
print("load it with:", converted.load_with)

# %%
jaxsnn.write("norse_round_trip.nir", converted.graph, force=True)
norse_graph = jaxsnn.read("norse_round_trip.nir", dialect="norse==importer", dt=graph.dialect.dt)
print("read back as", norse_graph.dialect.name)

# %% [markdown]
# Both graphs are simulated in time steps on the same input. The spike trains are the same; where the
# list of changes says so, they are shifted by some steps.

# %%
x = (np.random.default_rng(0).random((80, 4, 5)) < 0.1).astype(np.float32)
engine = jaxsnn.TimeStepped()
for version in (graph, norse_graph):
    network = jaxsnn.lower(version, dtype=np.float32)
    output = np.asarray(jaxsnn.simulate(network, x, engine=engine).output())
    print(f"{version.dialect.name}: {int(output.sum())} output spikes")
plot.graph(norse_graph).save("norse_round_trip.png", force=True)
