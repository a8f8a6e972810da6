"""Worker: the library jaxsnn of the Electronic Vision(s) group, its EventProp engine."""

from importlib.metadata import version

import jax
import jax.numpy as jnp
from jaxsnn.event.loss import first_spike
from jaxsnn.event.modules import LIF, Linear, Source
from jaxsnn.event.modules.lif.lif import LIFParameters
from jaxsnn.event.topology import Topology
from jaxsnn.event.types import Spike
from protocol import serve
from workload import INPUTS, OUTPUTS, Work

ONE_SPIKE = -1000.0  # a reset potential from which no neuron comes back within the trial


def spikes(input_times: jax.Array) -> Spike:
    """Input times (batch x 5) as the library wants its spikes: sorted, with their neurons."""
    order = jnp.argsort(input_times, axis=-1)
    times = jnp.take_along_axis(input_times, order, axis=-1)
    return Spike(
        time=times,
        idx=order,
        current=jnp.zeros_like(times),
        layer_idx=jnp.zeros_like(order),
        internal=jnp.ones_like(order, dtype=bool),
    )


def network(work: Work):
    """The library's apply function and its parameters."""
    hidden = work.hidden_weights.shape[1]
    neuron = LIFParameters(v_reset=ONE_SPIKE, v_th=work.v_threshold, tau_syn=work.tau_syn, tau_mem=work.tau_mem)
    topology = Topology(t_max=work.t_end, backprop_method="eventprop")
    topology.add(
        {
            "input": Source(INPUTS),
            "hidden": LIF(hidden, INPUTS + hidden, neuron),
            "output": LIF(OUTPUTS, hidden + OUTPUTS, neuron),
            "hidden_weights": Linear(pre_weights=jnp.asarray(work.hidden_weights)),
            "output_weights": Linear(pre_weights=jnp.asarray(work.output_weights)),
        }
    )
    topology.connect(
        [
            ("input", "hidden_weights"),
            ("hidden_weights", "hidden"),
            ("hidden", "output_weights"),
            ("output_weights", "output"),
        ]
    )
    init, apply = topology.done()
    return apply, init(jax.random.PRNGKey(0))


def build(work: Work):
    apply, parameters = network(work)
    inputs = {"input": spikes(jnp.asarray(work.input_times, jnp.float32))}

    def output_times(parameters, inputs):
        events = apply(inputs, parameters)
        return jax.vmap(first_spike, in_axes=(0, None))(events["output"], OUTPUTS)

    forward = jax.jit(output_times)
    gradient = jax.jit(jax.value_and_grad(lambda *args: output_times(*args).sum()))

    def results():
        weights = gradient(parameters, inputs)[1]
        return {
            "output_times": forward(parameters, inputs),
            "hidden_weights": weights["hidden_weights"],
            "output_weights": weights["output_weights"],
        }

    rows = {
        "forward": lambda: jax.block_until_ready(forward(parameters, inputs)),
        "weights": lambda: jax.block_until_ready(gradient(parameters, inputs)),
    }
    return rows, results


if __name__ == "__main__":
    serve(f"jaxsnn {version('jaxsnn')} EventProp", build)
