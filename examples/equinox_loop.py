# %% [markdown]
# # Train a spiking network inside an Equinox module
#
# A dense layer of Equinox turns the four inputs of the Yin-Yang task into spike times, and a spiking
# network classifies them. Both are trained together: the gradients of spike times with respect to
# input times are exact. `pip install equinox` installs what this example needs.

# %%
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax

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
# `unconstrain` returns the trained numbers of the network, a pytree that is a field of the module like
# any other, and the function that returns the network for them. That function is static: it
# contains nothing that is trained.


# %%
class Classifier(eqx.Module):
    """A dense layer whose outputs are spike times between 0 and 4 TAU, and a spiking network."""

    encoder: eqx.nn.Linear
    raw: dict
    network_of: Callable = eqx.field(static=True)

    def __call__(self, values):
        time = 4 * TAU * jax.nn.sigmoid(jax.vmap(self.encoder)(values))
        index = jnp.broadcast_to(jnp.arange(8), time.shape)
        events = jaxsnn.Events(time=time, index=index)
        return jaxsnn.simulate(self.network_of(self.raw), events, T_END, engine=engine, throw=False)


raw, network_of = jaxsnn.train.unconstrain(graph, ("weight", "tau_mem"))
model = Classifier(eqx.nn.Linear(4, 8, key=jax.random.key(0)), raw, network_of)

# %% [markdown]
# From here on it is a loop as the documentation of Equinox shows it.

# %%
optimiser = optax.adam(0.01)
state = optimiser.init(eqx.filter(model, eqx.is_inexact_array))


@eqx.filter_value_and_grad(has_aux=True)
def mean_loss(model, values, labels):
    solution = model(values)
    return loss(solution, labels).mean(), solution.result


@eqx.filter_jit
def step(model, state, values, labels):
    (value, result), gradient = mean_loss(model, values, labels)
    updates, state = optimiser.update(gradient, state)
    return eqx.apply_updates(model, updates), state, value, result


@eqx.filter_jit
def accuracy(model, values, labels):
    solution = model(values)
    return jnp.mean(loss.predict(solution) == labels), solution.result


rng = np.random.default_rng(0)
for epoch in range(EPOCHS):
    losses = []
    for chosen in rng.permutation(len(data.train)).reshape(-1, BATCH):
        x, y = data.train.x[chosen], data.train.y[chosen]
        model, state, value, result = step(model, state, x, y)
        assert result == jaxsnn.Result.SUCCESS  # with throw=False, no error is raised
        losses.append(float(value))
    print(f"epoch {epoch}: loss {np.mean(losses):.3f}")
fraction, result = accuracy(model, data.test.x, data.test.y)
assert result == jaxsnn.Result.SUCCESS
print(f"test accuracy {float(fraction):.1%}")

# %% [markdown]
# `update_graph` writes the trained parameters back. The file contains the spiking network; the dense
# layer is part of the Equinox model.

# %%
trained = jaxsnn.update_graph(graph, network_of(model.raw))
jaxsnn.write("equinox_loop.nir", trained, force=True)
solution = model(data.test.x[:1])
plot.raster(solution).save("equinox_loop.png", force=True)
