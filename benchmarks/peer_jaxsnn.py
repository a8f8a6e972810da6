"""Worker: the library jaxsnn of the Electronic Vision(s) group, its event engine with EventProp or
through autodiff.

python peer_jaxsnn.py eventprop | analytical
"""

import sys
from importlib.metadata import version

import jax
import jax.numpy as jnp
from jaxsnn.event.loss import first_spike
from jaxsnn.event.modules import LIF, Linear, Source
from jaxsnn.event.modules.lif.lif import LIFParameters
from jaxsnn.event.topology import Topology
from jaxsnn.event.types import Spike
from protocol import Unavailable, serve
from records import INPUTS, OUTPUTS, Work

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


def network(work: Work, method: str):
    """The library's apply function and its parameters; budgets of events just large enough."""

    def neuron(once):
        reset = ONE_SPIKE if once else 0.0
        return LIFParameters(
            v_reset=reset, v_th=work.v_threshold, tau_syn=work.tau_syn, tau_mem=work.tau_mem
        )

    events = work.hidden_events
    topology = Topology(t_max=work.t_end, backprop_method=method)
    nodes = {
        "input": Source(INPUTS),
        "hidden": LIF(
            work.hidden, INPUTS + (2 if work.recurrent else 1) * events, neuron(work.once)
        ),
        "output": LIF(OUTPUTS, events + OUTPUTS, neuron(True)),
        "hidden_weights": Linear(pre_weights=jnp.asarray(work.hidden_weights)),
        "output_weights": Linear(pre_weights=jnp.asarray(work.output_weights)),
    }
    wires = [
        ("input", "hidden_weights"),
        ("hidden_weights", "hidden"),
        ("hidden", "output_weights"),
        ("output_weights", "output"),
    ]
    if work.recurrent:
        nodes["recurrent_weights"] = Linear(pre_weights=jnp.asarray(work.recurrent_weights))
        wires += [("hidden", "recurrent_weights"), ("recurrent_weights", "hidden")]
    topology.add(nodes)
    topology.connect(wires)
    init, apply = topology.done()
    return apply, init(jax.random.PRNGKey(0))


def build(work: Work):
    method = sys.argv[1]
    if not isinstance(work, Work):
        raise Unavailable("has no convolution on events")
    apply, parameters = network(work, method)
    inputs = {"input": spikes(jnp.asarray(work.input_times, jnp.float32))}

    def output_times(parameters, inputs):
        events = apply(inputs, parameters)
        return jax.vmap(first_spike, in_axes=(0, None))(events["output"], OUTPUTS)

    forward = jax.jit(output_times)
    gradient = jax.jit(jax.value_and_grad(lambda *args: output_times(*args).sum()))

    def results():
        weights = gradient(parameters, inputs)[1]
        names = [name for name in weights if name.endswith("weights")]
        return {
            "output_times": forward(parameters, inputs),
            **{name: weights[name] for name in names},
        }

    rows = {
        "forward": lambda: jax.block_until_ready(forward(parameters, inputs)),
        "weights": lambda: jax.block_until_ready(gradient(parameters, inputs)),
    }
    return rows, results


if __name__ == "__main__":
    serve(lambda: f"jaxsnn {version('jaxsnn')} {sys.argv[1]}", build)
