# %% [markdown]
# # Delays are trained like weights
#
# Each synapse of the first layer gets a delay of its own. In continuous time a delay moves an
# arrival, and its gradient is as exact as that of a weight.

# %%
import sys

import jaxsnn
from jaxsnn import plot
from jaxsnn.nir import build
from jaxsnn.nir.initializers import normal
from jaxsnn.train import Bounded, Free, yinyang_splits

SMOKE = "--smoke" in sys.argv
data = yinyang_splits(sizes=(192, 96, 96)) if SMOKE else yinyang_splits()

neurons = build.cubalif(tau_mem="20ms", tau_syn="10ms")
graph = build.sequential(
    build.input(5),
    build.linear(10 if SMOKE else 30, weight=normal(1.2, 0.6)),
    neurons,
    build.linear(3, weight=normal(0.4, 0.4)),
    neurons,
    seed=0,
)

# %% [markdown]
# Delays start at 2 ms and stay between 0 and tau_syn.

# %%
trained = jaxsnn.fit(
    graph,
    data,
    synaptic_delays={"1": 2e-3},
    trainable={"weight": Free(), "delay": Bounded(low=0.0, high=10e-3)},
    epochs=2 if SMOKE else 100,
    learning_rate=0.03,
)
print(f"test accuracy {trained.test_accuracy:.1%}")
plot.learning_curve(trained, title="weights and delays").save("train_delays.png", force=True)
