"""Networks for the tests of JAX's transformations, and those transformations that take two devices.

`python -m tests.helpers.transformed` runs the latter and prints what came out, as JSON.
"""

import json
import sys
from functools import cache
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jaxsnn import EventDriven, Events, TimeStepped, lower, simulate
from jaxsnn.nir import build
from tests.extending_page import code_of

PAGE = Path(__file__).parents[2] / "docs" / "guide_devices.md"
SECTIONS_OF_DEVICES = ("Samples on several devices", "A mesh with explicit axes")
SAMPLES, EVENTS, CHANNELS, T_END = 4, 6, 4, 30e-3
CUBA = {"tau_mem": "10ms", "tau_syn": "5ms"}


def matrix(seed, outputs, inputs, mean, deviation):
    drawn = np.random.default_rng(seed).normal(mean, deviation, (outputs, inputs))
    return build.linear(weight=drawn / np.sqrt(inputs))


def input_arrays(samples=SAMPLES):
    """Times (samples, events) and channels of the input events."""
    rng = np.random.default_rng(7)
    time = rng.uniform(0, 0.6 * T_END, (samples, EVENTS)).astype("float32")
    return jnp.asarray(time), jnp.asarray(rng.integers(0, CHANNELS, time.shape, "int32"))


def line_graph():
    """One small population that fires."""
    neurons = build.cubalif(**CUBA)
    return build.sequential(build.input(CHANNELS), matrix(0, 3, CHANNELS, 3, 1), neurons)


@cache
def line():
    """It, lowered: to arrays, also where what asks first is traced."""
    with jax.ensure_compile_time_eval():
        return lower(line_graph())


def boxes():
    """One small population under box spikes: arrays with the batch last."""
    layers = build.input(CHANNELS), matrix(1, 5, CHANNELS, 1.2, 0.5), build.lif(tau="10ms")
    return lower(build.sequential(*layers, spike_kernel="box", dt=1e-3, reset="zero"))


@cache
def recurrent_network():
    """A population with the batch first, a recurrent one and a readout."""
    neurons = build.cubalif(**CUBA)
    nodes = {
        "input": build.input(CHANNELS),
        "in": matrix(3, 34, CHANNELS, 2.4, 0.7),
        "wide": neurons,
        "down": matrix(4, 4, 34, 0.8, 0.3),
        "loop": neurons,
        "back": matrix(5, 4, 4, 0, 0.5),
        "out": matrix(6, 2, 4, 1, 1),
        "readout": build.cubali(**CUBA),
        "output": build.output(),
    }
    chains = [
        ("input", "in", "wide", "down", "loop", "out", "readout", "output"),
        ("loop", "back", "loop"),
    ]
    return lower(build.network(nodes, chains))


def first_spikes(network, time, index, backend="auto"):
    """Mean of the first spike times, as a fraction of the whole time."""
    events, engine = Events(time=time, index=index), EventDriven(max_spikes=4, backend=backend)
    solution = simulate(network, events, T_END, engine=engine, throw=False)
    return jnp.mean(jnp.minimum(solution.first_spike("2"), T_END)) / T_END


def of_boxes(network, time, index):
    """Differentiated by all parameters: nothing is known of the time constants."""
    return first_spikes(network, time, index)


def weights_of(network):
    """The weights of a network, by node: its time constants stay numbers that are known."""
    return {
        name: parameters["weight"]
        for name, parameters in network.parameters.items()
        if "weight" in parameters
    }


def with_weights(network, weights):
    parameters = {name: {"weight": weight} for name, weight in weights.items()}
    return network.with_parameters(network.parameters | parameters)


def of_line(weights, time, index):
    return first_spikes(with_weights(line(), weights), time, index)


def of_line_by_xla(weights, time, index):
    """The same, with nothing in it that is not XLA's."""
    return first_spikes(with_weights(line(), weights), time, index, "xla")


def readings(weights, time, index):
    """A number from the spikes of a recurrent population and each functional of a readout."""
    network = with_weights(recurrent_network(), weights)
    events, engine = Events(time=time, index=index), EventDriven(max_spikes=4)
    times = jnp.linspace(0, T_END, 5)
    solution = simulate(network, events, T_END, engine=engine, sample_times=times, throw=False)
    voltage = jnp.mean(solution.maximum("readout") + solution.integral("readout") / T_END)
    spikes = jnp.mean(jnp.minimum(solution.first_spike("loop"), T_END)) / T_END
    return voltage + jnp.mean(solution.voltages["readout"] ** 2) + spikes


def stepped(network, time, index):
    """A number from a time-stepped run of the same network."""
    engine = TimeStepped(dt=1e-3, record=("loop",))
    solution = simulate(network, Events(time=time, index=index), T_END, engine=engine, throw=False)
    return jnp.mean(solution.output() ** 2) + jnp.mean(solution.count("loop")) + solution.result


#: Name -> function that returns parameters, and function of parameters, times and channels.
CASES = {
    "boxes": (boxes, of_boxes),
    "whole": (lambda: weights_of(recurrent_network()), readings),
    "stepped": (recurrent_network, stepped),
}


def with_gradient(function):
    """The value and its gradient by parameters and times."""
    return jax.value_and_grad(function, (0, 1))


def numbers(tree):
    """The value and all gradients in one row each."""
    return [np.ravel(leaf).tolist() for leaf in jax.tree.leaves(tree)]


# -- on two devices


def shared_out(function, network, time, index):
    """In `shard_map` with its check, the samples on two devices."""
    mesh = Mesh(np.array(jax.devices()[:2]), ("samples",))
    over = PartitionSpec("samples")

    def mean(network, time, index):
        return jax.lax.pmean(function(network, time, index), "samples")

    specs = PartitionSpec(), over, over
    mapped = jax.shard_map(mean, mesh=mesh, in_specs=specs, out_specs=PartitionSpec())
    return jax.jit(with_gradient(mapped))(network, time, index)


def laid_out(function, network, time, index, kind):
    """On a mesh whose axis is of some kind, the samples over two devices."""
    mesh = jax.make_mesh((2,), ("samples",), axis_types=(kind,))
    network = jax.device_put(network, NamedSharding(mesh, PartitionSpec()))
    time, index = jax.device_put((time, index), NamedSharding(mesh, PartitionSpec("samples")))
    return jax.jit(with_gradient(function))(network, time, index)


def by_pmap(function, network, time, index):
    """In `pmap`, the gradient within it."""
    parts = [array.reshape(2, -1, EVENTS) for array in (time, index)]
    value, gradients = jax.pmap(with_gradient(function), in_axes=(None, 0, 0))(network, *parts)
    by_network, by_time = gradients
    mean = jax.tree.map(lambda array: jnp.mean(array, axis=0), (value, by_network))
    return *mean, by_time.reshape(time.shape) / 2


def run_page(sections):
    """Run the code of some sections of docs/guide_devices.md, behind that of the first."""
    namespace = {"__name__": "page_on_devices"}
    for section in ("A network", *sections):
        exec(compile(code_of(section, page=PAGE), f"{PAGE.name}: {section}", "exec"), namespace)


def main():
    outcomes = {}
    for name, (make, function) in CASES.items():
        network = make()
        outcomes[f"shard_map {name}"] = shared_out(function, network, *input_arrays())
        outcomes[f"explicit {name}"] = laid_out(
            function, network, *input_arrays(), AxisType.Explicit
        )
    run_page(SECTIONS_OF_DEVICES)
    outcomes["auto line"] = laid_out(of_line, weights_of(line()), *input_arrays(), AxisType.Auto)
    outcomes["pmap line"] = by_pmap(of_line, weights_of(line()), *input_arrays())
    sys.stdout.write(json.dumps({name: numbers(tree) for name, tree in outcomes.items()}))


if __name__ == "__main__":
    main()
