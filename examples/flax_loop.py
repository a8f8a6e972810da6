# %% [markdown]
# # Train a spiking network inside a Flax NNX module
#
# A dense layer of Flax turns the four inputs of the Yin-Yang task into spike times, and a spiking
# network classifies them. Both are trained together: the gradients of spike times with respect to
# input times are exact. `pip install flax` installs what this example needs.

# %%
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx  # pyright: ignore[reportMissingImports]

import jaxsnn.train
from jaxsnn import plot
from jaxsnn.nir import build
from jaxsnn.nir.initializers import normal

SAMPLES = (2000, 500, 500)  # of training, validation and test
HIDDEN = 30
EPOCHS = 20
BATCH = 100
TAU = 5e-3  # seconds, of the synaptic current
T_END = 40e-3  # seconds

neurons = build.cubalif(tau_mem="10ms", tau_syn="5ms")
graph = build.sequential(
    build.input(8),
    build.linear(HIDDEN, weight=normal(1.0, 0.5)),
    neurons,
    build.linear(3, weight=normal(0.4, 0.3)),
    neurons,
    seed=0,
)
data = jaxsnn.train.yinyang_splits(sizes=SAMPLES)
engine = jaxsnn.EventDriven(max_spikes=8, min_slope=0.04)
loss = jaxsnn.train.FirstSpike(population="4", tau=TAU, t_max=T_END, temperature=0.1)

# %% [markdown]
# `unconstrain` returns the trained numbers of the network, a pytree, and the function that returns the
# network for them. The pytree is an `nnx.Param` of the module.

# %%
raw, network_of = jaxsnn.train.unconstrain(graph, ("weight", "tau_mem"))


class Classifier(nnx.Module):
    """A dense layer whose outputs are spike times between 0 and 4 TAU, and a spiking network."""

    def __init__(self, rngs):
        self.encoder = nnx.Linear(4, 8, rngs=rngs)
        self.raw = nnx.Param(raw)

    def __call__(self, values):
        time = 4 * TAU * jax.nn.sigmoid(self.encoder(values))
        index = jnp.broadcast_to(jnp.arange(8), time.shape)
        events = jaxsnn.Events(time=time, index=index)
        network = network_of(self.raw.get_value())
        return jaxsnn.simulate(network, events, T_END, engine=engine, throw=False)


# %% [markdown]
# From here on it is a loop as the documentation of Flax shows it.

# %%
model = Classifier(nnx.Rngs(0))
optimiser = nnx.Optimizer(model, optax.adam(0.01), wrt=nnx.Param)


@nnx.jit
def step(model, optimiser, values, labels):
    def mean_loss(model):
        solution = model(values)
        return loss(solution, labels).mean(), solution.result

    (value, result), gradient = nnx.value_and_grad(mean_loss, has_aux=True)(model)
    optimiser.update(model, gradient)
    return value, result


@nnx.jit
def accuracy(model, values, labels):
    solution = model(values)
    return jnp.mean(loss.predict(solution) == labels), solution.result


rng = np.random.default_rng(0)
for epoch in range(EPOCHS):
    losses = []
    for chosen in rng.permutation(len(data.train)).reshape(-1, BATCH):
        value, result = step(model, optimiser, data.train.x[chosen], data.train.y[chosen])
        assert result == jaxsnn.Result.SUCCESS  # with throw=False, no error is raised
        losses.append(float(value))
    print(f"epoch {epoch}: loss {np.mean(losses):.3f}")
fraction, result = accuracy(model, data.test.x, data.test.y)
assert result == jaxsnn.Result.SUCCESS
print(f"test accuracy {float(fraction):.1%}")

# %% [markdown]
# `update_graph` writes the trained parameters back. The file contains the spiking network; the dense
# layer is part of the Flax model.

# %%
trained = jaxsnn.update_graph(graph, network_of(model.raw.get_value()))
jaxsnn.write("flax_loop.nir", trained, force=True)
solution = model(data.test.x[:1])
plot.raster(solution).save("flax_loop.png", force=True)
