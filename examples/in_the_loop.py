# %% [markdown]
# # In the loop with a chip
#
# The chip fires, and the gradient is exact at the times that it recorded. Here the chip is an
# emulated one, with deviations as large as those of a real chip; a device of your own takes its
# place with one method, `forward`.

# %%
import sys

import jaxsnn
from jaxsnn import plot
from jaxsnn.nir import build
from jaxsnn.nir.initializers import normal
from jaxsnn.train import on_chip, yinyang_splits

SMOKE = "--smoke" in sys.argv
data = yinyang_splits(sizes=(64, 64, 64)) if SMOKE else yinyang_splits()
neurons = build.cubalif(tau_mem="12ms", tau_syn="6ms")
graph = build.sequential(
    build.input(5),
    build.linear(20 if SMOKE else 120, weight=normal(1.2, 0.6)),
    neurons,
    build.linear(3, weight=normal(0.8 if SMOKE else 0.3, 0.3)),
    neurons,
    seed=0,
)

# %% [markdown]
# Scales are fixed with the first weights; `headroom` says how much they may grow.

# %%
engine = on_chip(graph, chip=jaxsnn.EmulatedChip(seed=0), headroom={"2": 1.25, "4": 4.0})
trained = jaxsnn.fit(graph, data, engine=engine, epochs=1 if SMOKE else 30)
print(f"on the chip: {trained.test_accuracy:.1%}")
plot.learning_curve(trained, title="on an emulated chip").save("in_the_loop.png", force=True)
