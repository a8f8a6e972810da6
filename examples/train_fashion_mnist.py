# %% [markdown]
# # Fashion-MNIST
#
# 28 x 28 grey values become one spike each, bright pixels first. The four files of the data set
# (`train-images-idx3-ubyte.gz` and so on) are looked for in the folder that is named on the command
# line; with `--smoke` 300 made-up images take their place, which show that it runs, and no more.

# %%
import gzip
import sys
from pathlib import Path

import numpy as np

import jaxsnn
from jaxsnn import plot
from jaxsnn.nir import build
from jaxsnn.nir.initializers import normal
from jaxsnn.train import Latency, splits_of_arrays

SMOKE = "--smoke" in sys.argv


def images_and_labels(folder: Path, part: str) -> tuple[np.ndarray, np.ndarray]:
    """Grey values from 0 to 1 (samples, 784), and labels, of the files of one part."""
    files = [folder / f"{part}-{name}-ubyte.gz" for name in ("images-idx3", "labels-idx1")]
    read = [np.frombuffer(gzip.decompress(file.read_bytes()), np.uint8) for file in files]
    return read[0][16:].reshape(-1, 784) / 255, read[1][8:].astype(int)


if SMOKE:
    rng = np.random.default_rng(0)
    y = np.arange(300) % 10
    x = rng.random((10, 784))[y] * rng.random((300, 784))
else:
    x, y = images_and_labels(Path(sys.argv[1]), "train")

# %% [markdown]
# A fifth of the images is kept for the test and for the choice of the epoch. Weights are small: a
# neuron hears 784 pixels.

# %%
data = splits_of_arrays(x, y, test=0.15, validation=0.15, name="Fashion-MNIST")
hidden = 16 if SMOKE else 200
neurons = build.cubalif(tau_mem="20ms", tau_syn="10ms")
graph = build.sequential(
    build.input(784),
    build.linear(hidden, weight=normal(0.02, 0.03)),
    neurons,
    build.linear(10, weight=normal(2.0 / hidden, 4.0 / hidden)),
    neurons,
    seed=0,
)
encoder = Latency(t_min=0.0, t_max=20e-3, first="large")
trained = jaxsnn.fit(graph, data, encoder=encoder, epochs=1 if SMOKE else 20)
print(f"test accuracy {trained.test_accuracy:.1%}")
plot.weights(trained.graph, graph).save("train_fashion_mnist.png", force=True)
