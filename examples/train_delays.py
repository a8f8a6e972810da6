# %% [markdown]
# # Train delays and weights
#
# Each synapse of the first layer has a delay, which is trained together with the weights. In
# continuous time a delay shifts a spike, so its gradient is as exact as that of a weight.

# %%
import jaxsnn
from jaxsnn import plot
from jaxsnn.nir import build
from jaxsnn.nir.initializers import normal
from jaxsnn.train import Bounded, Free, yinyang_splits

SAMPLES = (5000, 1000, 1000)  # training, validation, test
HIDDEN = 30
EPOCHS = 100

# %%
neurons = build.cubalif(tau_mem="20ms", tau_syn="10ms")
graph = build.sequential(
    build.input(5),
    build.linear(HIDDEN, weight=normal(1.2, 0.6)),
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
    yinyang_splits(sizes=SAMPLES),
    synaptic_delays={"1": 2e-3},
    trainable={"weight": Free(), "delay": Bounded(low=0.0, high=10e-3)},
    epochs=EPOCHS,
    learning_rate=0.03,
)
print(f"test accuracy {trained.test_accuracy:.1%}")
plot.learning_curve(trained, title="weights and delays").save("train_delays.png", force=True)
