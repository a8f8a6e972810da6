# %% [markdown]
# # Train on several devices
#
# `devices=2` distributes the samples of each batch over two devices. A CPU counts as one device
# unless it is divided before JAX computes anything; `fit` does this if it is called first. To train
# on several machines, pass `coordinator`, `processes` and `process` as well.

# %%
import jaxsnn
from jaxsnn import plot
from jaxsnn.nir import build
from jaxsnn.nir.initializers import normal
from jaxsnn.train import yinyang_splits

SAMPLES = (5000, 1000, 1000)  # training, validation, test
EPOCHS = 20

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
data = yinyang_splits(sizes=SAMPLES)

# %% [markdown]
# All devices add up the gradients in the same order, so their weights agree bit for bit. Training on
# one device differs only in the order of a sum.

# %%
trained = jaxsnn.fit(graph, data, devices=2, epochs=EPOCHS, learning_rate=0.05)
print(f"test accuracy {trained.test_accuracy:.1%}")
plot.learning_curve(trained, title="two devices").save("distributed.png", force=True)
