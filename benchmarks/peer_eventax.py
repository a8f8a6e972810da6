"""Worker: eventax, EventProp-like gradients through the steps of an ODE solver.

python peer_eventax.py Euler | Tsit5
"""

import sys
from importlib.metadata import version

import diffrax
import equinox
import jax
import jax.numpy as jnp
import numpy as np
from eventax.evnn import EvNN
from eventax.neuron_models import LIF
from protocol import Unavailable, serve
from records import INPUTS, OUTPUTS, Work

STEP = 0.04  # of the solver, in units of tau_syn
ONE_SPIKE = -1000.0  # a reset potential from which no neuron comes back within the trial


def network(work: Work) -> EvNN:
    """One population of hidden and output neurons, whose weight matrix has the network's blocks."""
    hidden, cells = work.hidden, work.hidden + OUTPUTS
    weights, mask = np.zeros((2, cells + INPUTS, cells))
    weights[cells:, :hidden], mask[cells:, :hidden] = work.hidden_weights, 1
    weights[:hidden, hidden:], mask[:hidden, hidden:] = work.output_weights, 1
    if work.recurrent:
        weights[:hidden, :hidden], mask[:hidden, :hidden] = work.recurrent_weights, 1
    is_output = np.arange(cells) >= hidden
    resets = np.where(is_output | work.once, ONE_SPIKE, 0.0)
    made = EvNN(
        neuron_model=LIF,
        n_neurons=cells,
        max_solver_time=work.t_end,
        in_size=INPUTS,
        key=jax.random.PRNGKey(0),
        wmask=jnp.asarray(mask),
        output_neurons=jnp.asarray(is_output),
        input_neurons=jnp.asarray(~is_output),
        max_event_steps=2 * (INPUTS + work.hidden_events + OUTPUTS),
        solver_stepsize=STEP,
        solver=getattr(diffrax, sys.argv[1])(),
        thresh=work.v_threshold,
        tsyn=work.tau_syn,
        tmem=work.tau_mem,
        vreset=jnp.asarray(resets, jnp.float32),
        init_weights=0.0,
        init_bias=0.0,
    )
    return equinox.tree_at(
        lambda net: net.neuron_model.weights, made, jnp.asarray(weights, jnp.float32)
    )


def build(work: Work):
    if not isinstance(work, Work):
        raise Unavailable("has no convolution on events")
    net, times = network(work), jnp.asarray(work.input_times, jnp.float32)[..., None]
    hidden, cells = work.hidden, work.hidden + OUTPUTS

    def output_times(weights, times):
        changed = equinox.tree_at(lambda net: net.neuron_model.weights, net, weights)
        return jax.vmap(changed.ttfs)(times)

    forward = jax.jit(output_times)
    gradient = jax.jit(jax.value_and_grad(lambda *args: output_times(*args).sum()))
    weights = net.neuron_model.weights

    def results():
        found = gradient(weights, times)[1]
        blocks = {
            "hidden_weights": found[cells:, :hidden],
            "output_weights": found[:hidden, hidden:],
        }
        if work.recurrent:
            blocks["recurrent_weights"] = found[:hidden, :hidden]
        return {"output_times": forward(weights, times), **blocks}

    rows = {
        "forward": lambda: jax.block_until_ready(forward(weights, times)),
        "weights": lambda: jax.block_until_ready(gradient(weights, times)),
    }
    return rows, results


if __name__ == "__main__":
    serve(lambda: f"eventax {version('eventax')} {sys.argv[1]}", build)
