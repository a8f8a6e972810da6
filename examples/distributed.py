# %% [markdown]
# # Several devices
#
# `devices=2` shares the samples of each batch out over two devices. A CPU shows one device unless it
# is told otherwise before JAX computes anything; `fit` does so where it is the first to ask. Several
# machines take the same call with `coordinator`, `processes` and `process`.

# %%
import sys

import jaxsnn
from jaxsnn import plot
from jaxsnn.nir import build
from jaxsnn.nir.initializers import normal
from jaxsnn.train import yinyang_splits

SMOKE = "--smoke" in sys.argv

# %%
neurons = build.cubalif(tau_mem="20ms", tau_syn="10ms")
graph = build.sequential(
    build.input(5),
    build.linear(20, weight=normal(1.2, 0.6)),
    neurons,
    build.linear(3, weight=normal(0.3, 0.3)),
    neurons,
    seed=0,
)
data = yinyang_splits(sizes=(256, 128, 128)) if SMOKE else yinyang_splits()

# %% [markdown]
# Gradients are added up in the same order everywhere, so that all devices hold the same bits, and
# the result is that of one device but for the order of a sum.

# %%
trained = jaxsnn.fit(graph, data, devices=2, epochs=1 if SMOKE else 20, learning_rate=0.05)
print(f"test accuracy {trained.test_accuracy:.1%}")
plot.learning_curve(trained, title="two devices").save("distributed.png", force=True)
