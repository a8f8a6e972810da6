# %% [markdown]
# # Train with a chip in the loop
#
# The chip runs the network, and the gradient is exact at the spike times that it recorded. Here the
# chip is emulated, with deviations as large as those of a real chip. To use your own device, write a
# class with the method `forward`.

# %%
import jaxsnn
from jaxsnn import plot
from jaxsnn.nir import build
from jaxsnn.nir.initializers import normal
from jaxsnn.train import on_chip, yinyang_splits

SAMPLES = (5000, 1000, 1000)  # training, validation, test
HIDDEN = 120
EPOCHS = 100
EPOCHS_ON_CHIP = 20

# %%
neurons = build.cubalif(tau_mem="12ms", tau_syn="6ms")
graph = build.sequential(
    build.input(5),
    build.linear(HIDDEN, weight=normal(1.2, 0.6)),
    neurons,
    build.linear(3, weight=normal(36 / HIDDEN, 0.3)),
    neurons,
    seed=0,
)

# %% [markdown]
# The network is first trained without the chip, with noise on weights and thresholds that makes it
# robust against the deviations. The `temperature` of the loss, in tau_syn, is above the
# noise of spike times on the chip.

# %%
data = yinyang_splits(sizes=SAMPLES)
options = {"loss": "ttfs", "loss_options": {"temperature": 0.15}, "ema_decay": 0.99}
noise = {"weight": 0.07, "v_threshold": 0.05}
robust = jaxsnn.fit(graph, data, noise=noise, epochs=EPOCHS, learning_rate=0.03, **options)
print(f"test accuracy without the chip {robust.test_accuracy:.1%}")

# %% [markdown]
# Then it is trained in the loop. The scale between weights and the integers of the chip is fixed
# before; `headroom` is the factor by which weights may grow. Epoch 0 of the curve is the accuracy on
# the chip before training in the loop.

# %%
engine = on_chip(robust.graph, "ttfs", chip=jaxsnn.EmulatedChip(seed=0), headroom=1.3)
trained = jaxsnn.fit(
    robust.graph, data, engine=engine, epochs=EPOCHS_ON_CHIP, learning_rate=0.005, **options
)
print(f"test accuracy on the chip {trained.test_accuracy:.1%}")
plot.learning_curve(trained, title="on an emulated chip").save("in_the_loop.png", force=True)
