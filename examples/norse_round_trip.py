# %% [markdown]
# # To Norse and back
#
# A network that snnTorch exported is rewritten for Norse, in Norse's own terms, read again, and
# both files are simulated. Their spikes are the same, or the conversion would have refused.

# %%
from importlib.resources import files

import numpy as np

import jaxsnn
from jaxsnn import plot

source = files("jaxsnn") / "commands" / "demo" / "snntorch_yinyang.nir"
graph = jaxsnn.read(str(source), dialect="snntorch", reset="zero", reset_delay=True)

# %% [markdown]
# Norse counts time in seconds with a step of 1 ms, and its importer resets in its own way. What was
# changed for it is listed, and so is what was lost.

# %%
made = jaxsnn.convert(graph, to="norse")
for change in made.changes[:4]:
    print(change.as_text())
print("losses:", made.losses or "none")
print("in Norse:", made.load_with)

# %%
jaxsnn.write("norse_round_trip.nir", made.graph, force=True)
again = jaxsnn.read("norse_round_trip.nir", dialect="norse==importer", dt=graph.dialect.dt)
print("read back as", again.dialect.name)

# %% [markdown]
# Both simulated in steps, on the same input: a train is all that one neuron sends in one sample.
# Nothing was lost, so each train is the same, though it may come some steps later: the changes say so.

# %%
x = (np.random.default_rng(0).random((80, 4, 5)) < 0.1).astype(np.float32)
engine = jaxsnn.TimeStepped()
outputs = [
    np.asarray(jaxsnn.simulate(jaxsnn.lower(one, dtype=np.float32), x, engine=engine).output())
    for one in (graph, again)
]
print("spikes:", [int(y.sum()) for y in outputs])
plot.graph(again).save("norse_round_trip.png", force=True)
