# %% [markdown]
# # Fine-tune a file from another framework
#
# This example reads a file that snnTorch's exporter wrote, trains the network in continuous time and
# writes it back. The written file has new weights; everything else is unchanged bit for bit.

# %%
from importlib.resources import files

import jaxsnn
from jaxsnn import plot
from jaxsnn.train import yinyang_splits

SAMPLES = (5000, 1000, 1000)  # training, validation, test
EPOCHS = 20
source = str(files("jaxsnn") / "commands" / "demo" / "snntorch_yinyang.nir")

# %% [markdown]
# A NIR file does not specify how and when a neuron is reset, so you specify it. The graph keeps the
# dialect and the reasons for it.

# %%
graph = jaxsnn.read(source, dialect="snntorch", reset="zero", reset_delay=True)
print(graph.dialect.why)

# %%
trained = jaxsnn.fit(graph, yinyang_splits(sizes=SAMPLES), loss="ttfs", epochs=EPOCHS)
print(f"test accuracy {trained.test_accuracy:.1%}")
print(f"the same weights in snnTorch's time steps {trained.accuracy_in_steps:.1%}")

# %%
jaxsnn.write("fine_tune_imported.nir", trained.graph, force=True)
plot.weights(trained.graph, graph).save("fine_tune_imported.png", force=True)
