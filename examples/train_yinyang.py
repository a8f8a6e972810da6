# %% [markdown]
# # Trained from nothing: Yin-Yang
#
# Points of a picture, two coordinates each, are told by their colour: yin, yang, or dot. Each
# coordinate is one spike, and whoever fires first at the output is the answer.

# %%
import sys

import jaxsnn
from jaxsnn import plot
from jaxsnn.nir import build
from jaxsnn.nir.initializers import normal
from jaxsnn.train import yinyang_splits

SMOKE = "--smoke" in sys.argv
data = yinyang_splits(sizes=(256, 128, 128)) if SMOKE else yinyang_splits()

# %% [markdown]
# Weights are drawn so that a hidden neuron fires for most points: neurons that never fire have no
# gradient to learn from.

# %%
neurons = build.cubalif(tau_mem="20ms", tau_syn="10ms")
graph = build.sequential(
    build.input(5),
    build.linear(20 if SMOKE else 120, weight=normal(1.0, 0.6)),
    neurons,
    build.linear(3, weight=normal(0.3, 0.3)),
    neurons,
    seed=0,
)

# %% [markdown]
# The gradient of a spike time is exact (EventProp): no surrogate, no time step. The epoch that
# validates best is kept, and the test part is looked at once.

# %%
trained = jaxsnn.fit(graph, data, epochs=3 if SMOKE else 50, learning_rate=0.03)
print(f"test accuracy {trained.test_accuracy:.1%}")
plot.learning_curve(trained, title="Yin-Yang").save("train_yinyang.png", force=True)

# %%
jaxsnn.write("train_yinyang.nir", trained.graph, force=True)
