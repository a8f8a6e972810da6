# %% [markdown]
# # Train on Fashion-MNIST
#
# The images are reduced to 14 x 14 pixels. Each pixel is one spike, the brighter the earlier. The
# example reads the four files of the data set, `train-images-idx3-ubyte.gz` and so on, from
# `FOLDER`. Debian's package `dataset-fashion-mnist` installs them there.

# %%
import jaxsnn
from jaxsnn import plot
from jaxsnn.nir import build
from jaxsnn.nir.initializers import normal
from jaxsnn.train import Latency, fashion_mnist_splits

FOLDER = "/usr/share/datasets/fashion-mnist"
SIDE = 14  # pixels
HIDDEN = 100
EPOCHS = 10

# %% [markdown]
# Weights are small because a neuron receives spikes of up to 196 pixels. The output population is a
# leaky readout: the neuron with the highest membrane potential is the answer.

# %%
graph = build.sequential(
    build.input(SIDE**2),
    build.linear(HIDDEN, weight=normal(0.06, 0.15)),
    build.cubalif(tau_mem="20ms", tau_syn="10ms"),
    build.linear(10, weight=normal(0.0, 0.1)),
    build.cubali(tau_mem="20ms", tau_syn="10ms"),
    seed=0,
)

# %% [markdown]
# Pixels darker than a fifth do not spike. Each neuron fires at most once, which makes training fast.
# A twelfth of the training images is the validation set, which chooses the best epoch.

# %%
data = fashion_mnist_splits(folder=FOLDER, side=SIDE)
trained = jaxsnn.fit(
    graph,
    data,
    encoder=Latency(t_min=0.0, t_max=20e-3, first="large", least=0.2),
    engine=jaxsnn.EventDriven(max_spikes=1, first_spike_only=True),
    epochs=EPOCHS,
    batch_size=128,
    learning_rate=0.003,
)
print(f"test accuracy {trained.test_accuracy:.1%}")
plot.learning_curve(trained, title="Fashion-MNIST").save("train_fashion_mnist.png", force=True)
