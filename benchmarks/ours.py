"""Worker: this library, its event engine."""

import jax
import jax.numpy as jnp
import numpy as np
from protocol import serve
from workload import AREA, INPUTS, OUTPUTS, PARAMETERS, Work

import jaxsnn
from jaxsnn.event import Event, Events
from jaxsnn.network import Network, Population, Wire, with_tau_facts
from jaxsnn.simulate import Result

ENGINE = Event(first_spike_only=True)


def network(work: Work) -> Network:
    """The work as a network that could also have come from a file."""
    hidden = work.hidden_weights.shape[1]
    sizes = {"hidden": hidden, "output": OUTPUTS}
    parameters = {
        "hidden_weights": {"weight": jnp.asarray(work.hidden_weights.T, jnp.float32)},
        "output_weights": {"weight": jnp.asarray(work.output_weights.T, jnp.float32)},
    }
    populations = {}
    for name, size in sizes.items():
        values = {**{parameter: getattr(work, parameter) for parameter in PARAMETERS}, "v_reset": 0.0}
        parameters[name] = {key: jnp.full(size, value, jnp.float32) for key, value in values.items()}
        population = Population(name=name, kind="CubaLIF", size=size, spike_area=AREA)
        populations[name] = with_tau_facts(population, parameters[name])
    wires = [
        Wire(name="input", kind="input", sources=(), shape=(INPUTS,)),
        Wire(name="hidden_weights", kind="Linear", sources=("input",), shape=(hidden,)),
        Wire(name="hidden", kind="neuron", sources=("hidden_weights",), shape=(hidden,)),
        Wire(name="output_weights", kind="Linear", sources=("hidden",), shape=(OUTPUTS,)),
        Wire(name="output", kind="neuron", sources=("output_weights",), shape=(OUTPUTS,)),
    ]
    return Network(parameters=parameters, wires=wires, populations=populations)


def build(work: Work):
    net = network(work)
    times = jnp.asarray(work.input_times, jnp.float32)
    index = jnp.broadcast_to(jnp.arange(INPUTS, dtype=jnp.int32), times.shape)
    events = Events(time=times, index=index)

    def output_times(net, events):
        solution = jaxsnn.simulate(net, events, work.t_end, engine=ENGINE)
        return solution.first_spike("output"), solution.result

    def total(net, events):
        times, result = output_times(net, events)
        return times.sum(), result

    def total_of_weights(weights, net, events):
        parameters = {**net.parameters, **weights}
        return total(net.with_parameters(parameters), events)

    def total_of_everything(net, times, index):
        return total(net, Events(time=times, index=index))

    forward = jax.jit(output_times)
    by_weights = jax.jit(jax.value_and_grad(total_of_weights, has_aux=True))
    by_everything = jax.jit(jax.value_and_grad(total_of_everything, argnums=(0, 1), has_aux=True))
    weights = {name: net.parameters[name] for name in ("hidden_weights", "output_weights")}

    def results():
        found, result = forward(net, events)
        if result != Result.SUCCESS:
            raise RuntimeError(f"the run ended with {Result(int(result)).name}")
        _, (of_network, of_times) = by_everything(net, times, index)
        gradient = of_network.parameters
        of_weights = by_weights(weights, net, events)[1]
        for name in weights:
            np.testing.assert_allclose(of_weights[name]["weight"], gradient[name]["weight"], rtol=1e-3, atol=1e-4)
        return {
            "output_times": found,
            "hidden_weights": gradient["hidden_weights"]["weight"].T,
            "output_weights": gradient["output_weights"]["weight"].T,
            "input_times": of_times,
            **{name: gradient["hidden"][name].sum() + gradient["output"][name].sum() for name in PARAMETERS},
        }

    rows = {
        "forward": lambda: jax.block_until_ready(forward(net, events)),
        "weights": lambda: jax.block_until_ready(by_weights(weights, net, events)),
        "all": lambda: jax.block_until_ready(by_everything(net, times, index)),
    }
    return rows, results


if __name__ == "__main__":
    serve(f"jaxsnn-nir {jaxsnn.__version__}", build)
