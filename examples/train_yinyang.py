# %% [markdown]
# # Train a network: Yin-Yang
#
# The task is to classify the points of a picture as yin, yang or dot by their two coordinates. Each
# coordinate is one spike. The output neuron that fires first is the answer.

# %%
import jaxsnn
from jaxsnn import plot
from jaxsnn.nir import build
from jaxsnn.nir.initializers import normal
from jaxsnn.train import yinyang_splits

SAMPLES = (5000, 1000, 1000)  # training, validation, test
HIDDEN = 120
EPOCHS = 50

# %% [markdown]
# The initial weights make each hidden neuron fire for most points, because a neuron that never fires
# has no gradient.

# %%
neurons = build.cubalif(tau_mem="20ms", tau_syn="10ms")
graph = build.sequential(
    build.input(5),
    build.linear(HIDDEN, weight=normal(1.0, 0.6)),
    neurons,
    build.linear(3, weight=normal(0.3, 0.3)),
    neurons,
    seed=0,
)

# %% [markdown]
# The gradients of spike times are exact (EventProp): there is no surrogate gradient and no time step.
# `fit` keeps the epoch with the best validation accuracy and evaluates the test samples once.

# %%
trained = jaxsnn.fit(graph, yinyang_splits(sizes=SAMPLES), epochs=EPOCHS, learning_rate=0.03)
print(f"test accuracy {trained.test_accuracy:.1%}")
plot.learning_curve(trained, title="Yin-Yang").save("train_yinyang.png", force=True)

# %%
jaxsnn.write("train_yinyang.nir", trained.graph, force=True)
