# %% [markdown]
# # Fine-tuning a file from another framework
#
# The file came from snnTorch's exporter. It is read, trained in continuous time, and written back:
# the same file with new weights, all else bit for bit as it was.

# %%
import sys
from importlib.resources import files

import jaxsnn
from jaxsnn import plot
from jaxsnn.train import yinyang_splits

SMOKE = "--smoke" in sys.argv
source = str(files("jaxsnn") / "commands" / "demo" / "snntorch_yinyang.nir")

# %% [markdown]
# A NIR file does not say how a neuron is reset, so it has to be said. What was decided, and why,
# stays with the graph.

# %%
graph = jaxsnn.read(source, dialect="snntorch", reset="zero")
print(graph.dialect.why)

# %%
data = yinyang_splits(sizes=(256, 128, 128)) if SMOKE else yinyang_splits()
trained = jaxsnn.fit(graph, data, loss="ttfs", epochs=1 if SMOKE else 20)
print(f"test accuracy {trained.test_accuracy:.1%}")
for note in trained.notes:
    print("note:", note)

# %%
jaxsnn.write("fine_tune_imported.nir", trained.graph, force=True)
plot.weights(trained.graph, graph).save("fine_tune_imported.png", force=True)
