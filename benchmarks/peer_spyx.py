"""Worker: Spyx, in steps, surrogate gradients."""

from importlib.metadata import version

import jax
import jax.numpy as jnp
import numpy as np
import spyx.nn
from flax import nnx
from protocol import rows_by_steps, serve
from records import Convolution, Layers, Stage, Work


def matrices(work: Work | Layers, rngs: nnx.Rngs, factor: float, options: dict) -> list:
    """Linear layers and current-based neurons."""
    modules = []
    for number, stage in enumerate(work.stages):
        matrix = getattr(work, stage.name)
        linear = nnx.Linear(*matrix.shape, use_bias=False, rngs=rngs)
        linear.kernel[...] = jnp.asarray(factor * matrix, jnp.float32)
        loops = number == 0 and work.recurrent
        kind = spyx.nn.RCuBaLIF if loops else spyx.nn.CuBaLIF
        neurons = kind((matrix.shape[1],), **options)
        if loops:
            matrix = getattr(work, work.feedback)
            neurons.recurrent_w[...] = jnp.asarray(factor * matrix, jnp.float32)
        modules += [linear, neurons]
    return modules


def kernels(work: Convolution | Layers, rngs: nnx.Rngs, factor: float, options: dict) -> list:
    """Convolutions and current-based neurons, all along one axis: the library's state of neurons
    has no more.
    """
    modules, side = [], work.shape[-1]
    for stage in work.stages:
        kernel = getattr(work, stage.name)
        channels, before, *taps = kernel.shape
        side = (side // stage.pool + 2 * stage.padding - taps[0]) // stage.stride + 1
        padding = ((stage.padding,) * 2,) * 2
        given = {"strides": stage.stride, "padding": padding, "use_bias": False, "rngs": rngs}
        module = nnx.Conv(before, channels, tuple(taps), **given)
        module.kernel[...] = jnp.asarray(factor * kernel.transpose(2, 3, 1, 0), jnp.float32)
        modules += [module, spyx.nn.CuBaLIF((channels * side**2,), **options)]
    return modules


def pooled(x: jax.Array, pool: int) -> jax.Array:
    """Windows of (..., side, side, channels), added up."""
    *lead, side, _, channels = x.shape
    apart = x.reshape(*lead, side // pool, pool, side // pool, pool, channels)
    return apart.sum(axis=(-4, -2))


def convolved(modules: list, stages: tuple[Stage, ...], x: jax.Array) -> jax.Array:
    """Spikes of all steps: of each kernel all frames at once, which takes half the time."""
    for number, stage in enumerate(stages):
        current = modules[2 * number](pooled(x, stage.pool))
        neurons = spyx.nn.Sequential(modules[2 * number + 1])
        x = spyx.nn.run(neurons, current.reshape(*current.shape[:2], -1))[0].reshape(current.shape)
    return x.reshape(*x.shape[:2], -1)


class Model:
    """The work in some number of steps."""

    def __init__(self, work: Work | Convolution | Layers) -> None:
        self.work, rngs, factor = work, nnx.Rngs(0), work.dt / work.tau_mem
        alpha, beta = (float(np.exp(-work.dt / tau)) for tau in (work.tau_syn, work.tau_mem))
        options = {"alpha": alpha, "beta": beta, "threshold": work.v_threshold, "rngs": rngs}
        self.convolves = len(work.shape) > 1
        modules = (kernels if self.convolves else matrices)(work, rngs, factor, options)
        graph, self.state = nnx.split(spyx.nn.Sequential(*modules))
        raster = work.raster()  # channels last
        self.x = jnp.asarray(np.moveaxis(raster, 2, -1) if self.convolves else raster)

        def total(state, x):
            spikes = self.spikes(nnx.merge(graph, state).layers, x)
            return spikes.sum(), spikes.sum(axis=(1, 2))

        def fired(state, x):
            # as much of it as has the first population
            first = nnx.merge(graph, state).layers[:2]
            return self.spikes(first, x).sum(axis=0).mean()

        self.compiled = jax.jit(total)
        self.gradient = jax.jit(jax.value_and_grad(total, has_aux=True))
        self.first = jax.jit(fired)

    def spikes(self, modules: list, x: jax.Array) -> jax.Array:
        """Of the last of some layers, (steps, batch, neurons)."""
        if self.convolves:
            return convolved(modules, self.work.stages[: len(modules) // 2], x)
        return spyx.nn.run(spyx.nn.Sequential(*modules), x)[0]

    def forward(self):
        return jax.block_until_ready(self.compiled(self.state, self.x))

    def both(self):
        return jax.block_until_ready(self.gradient(self.state, self.x))

    def fired(self) -> float:
        """Spikes of a neuron of the first population, on average."""
        return float(self.first(self.state, self.x))

    def results(self):
        """Spikes of the outputs in each step, and gradients."""
        (_, counts), found = self.both()
        layers, weights = found["layers"], {}
        for number, stage in enumerate(self.work.stages):
            kernel = layers[2 * number]["kernel"][...]
            weights[stage.name] = kernel.transpose(3, 2, 0, 1) if self.convolves else kernel
        if self.work.recurrent:
            weights[self.work.feedback] = layers[1]["recurrent_w"][...]
        return {"output_counts": counts, **weights}


def build(work: Work | Convolution | Layers):
    if isinstance(work, Layers):
        return rows_by_steps(work, Model)
    model = Model(work)
    return {"forward": model.forward, "weights": model.both}, model.results


if __name__ == "__main__":
    serve(lambda: f"Spyx {version('spyx')}", build)
