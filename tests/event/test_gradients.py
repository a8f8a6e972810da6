"""Exact gradients of spike times, against central differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsnn.errors import UsageError
from jaxsnn.event.event_driven import EventDriven
from jaxsnn.network.lowering.lower import lower
from jaxsnn.network.network import Network
from jaxsnn.network.results import Result
from jaxsnn.network.spikes import Events
from jaxsnn.network.structure import Population, TauShape, Wire
from jaxsnn.nir import build
from jaxsnn.simulation.simulate import simulate
from tests.event.agreement import assert_trees_close, finite_times
from tests.event.cases import population
from tests.event.differences import ENOUGH, relative_errors
from tests.helpers.random_spikes import random_events
from tests.helpers.refusals import assert_refused

INPUTS, ARRIVALS, SAMPLES, T_END = 4, 7, 2, 5.0
ENGINE = EventDriven(max_spikes=16)

pytestmark = [pytest.mark.usefixtures("x64"), pytest.mark.last_digits]

#: Layers: shape of the time constants, neurons, how spikes and a bias enter, initial state, reset.
NETS = {
    "closed forms": (
        (TauShape.DOUBLE, 9, {"spike_area": 0.7, "initial": "v_leak"}),
        (TauShape.HALF, 4, {"spike_area": 0.7}),
        (TauShape.EQUAL, 3, {"spike_area": 0.7, "initial": "v_reset"}),
    ),
    # The last layer also receives the input.
    "newton": (
        (TauShape.APART, 5, {"spike_area": None, "initial": "v_reset", "bias": "step", "dt": 0.9}),
        (TauShape.ANY, 9, {"spike_area": 0.7, "bias": "step", "dt": 0.9, "reset": "subtract"}),
    ),
    "small": ((TauShape.DOUBLE, 2, {"spike_area": 0.7, "initial": "v_leak"}),),
}
#: Seeds with which the neurons fire within the budget.
SEEDS = {"closed forms": (2, 4, 7, 12, 14), "newton": (4, 5, 6, 8, 10, 26, 32, 35)}


def largest_kick(p):
    """How far V moves at most, of what r I jumps by; (neurons,)."""
    ratio = np.where(abs(p["tau_mem"] - p["tau_syn"]) < 1e-3, 1.001, p["tau_mem"] / p["tau_syn"])
    return ratio ** (ratio / (1 - ratio))


def network(name, rng):
    """Layers behind Affine nodes, with some spikes a neuron."""
    wires = [Wire(name="input", kind="input", sources=(), shape=(INPUTS,))]
    parameters, populations, inputs, spike_count = {}, {}, INPUTS, ARRIVALS
    for number, (shape, size, rules) in enumerate(NETS[name]):
        p, layer, linear = population(shape, rng, size), f"layer {number}", f"to {number}"
        sources = [linear]
        p["v_reset"] = p["v_reset"] - 0.3
        if name == "closed forms" and number == 0:
            # It fires at time 0, even if its numbers vary slightly.
            p["v_leak"][2] = p["v_threshold"][2] + 0.1
        kick = largest_kick(p)[:, None]
        wires.append(Wire(name=linear, kind="Affine", sources=(wires[-1].name,), shape=(size,)))
        weight = rng.normal(3.2 / spike_count, 1.1 / spike_count**0.5, (size, inputs)) / kick
        parameters[linear] = {"weight": weight, "bias": rng.normal(0.1, 0.2, size)}
        if name == "newton" and number == 1:
            weight = rng.normal(0.1, 0.1, (size, INPUTS)) / kick
            parameters["skip"] = {"weight": weight, "bias": np.zeros(size)}
            wires.append(Wire(name="skip", kind="Affine", sources=("input",), shape=(size,)))
            sources.append("skip")
        wires.append(Wire(name=layer, kind="neuron", sources=tuple(sources), shape=(size,)))
        parameters[layer] = p
        rules = {"kind": "CubaLIF", "size": size, "tau_shape": shape} | rules
        populations[layer] = Population(name=layer, **rules)
        inputs, spike_count = size, 2 * size
    parameters = jax.tree.map(jnp.asarray, parameters)
    return Network(parameters=parameters, wires=wires, populations=populations)


def drawn(name, seed):
    """A network, input times (one slot is unused), their channels, and what the loss weighs spikes
    with.
    """
    rng = np.random.default_rng([list(NETS).index(name), seed])
    net = network(name, rng)
    unused = [(sample, 3) for sample in range(SAMPLES)]
    times, index = random_events(rng, (SAMPLES, ARRIVALS), INPUTS, 5.0, unused=unused)
    index = jnp.asarray(index, jnp.int32)
    readout = {
        name: jnp.asarray(rng.normal(size=(SAMPLES, population.size, ENGINE.max_spikes)))
        for name, population in net.populations.items()
    }
    return net, jnp.asarray(times), index, readout


def with_numbers(net, **changes):
    """A network with other arrays of layer 0 and the node before it, by the name of the parameter."""
    parameters = {node: dict(arrays) for node, arrays in net.parameters.items()}
    for name, value in changes.items():
        layer_arrays = parameters["to 0" if name in ("weight", "bias") else "layer 0"]
        layer_arrays[name] = jnp.broadcast_to(jnp.asarray(value, float), layer_arrays[name].shape)
    return Network(parameters=parameters, wires=net.wires, populations=net.populations)


def loss(numbers, index, readout, engine=ENGINE):
    """A weighted sum of the squares of all spike times of all layers; the solution."""
    net, times = numbers
    solution = simulate(net, Events(time=times, index=index), T_END, engine=engine, throw=False)
    total = sum(
        jnp.sum(finite_times(spikes.time) ** 2 * readout[name][..., : spikes.time.shape[-1]])
        for name, spikes in solution.spikes.items()
    )
    return total, solution


def loss_and_counts(numbers, index, readout):
    value, solution = loss(numbers, index, readout)
    return value, [spikes.count for spikes in solution.spikes.values()]


gradient_of = jax.jit(jax.grad(loss, has_aux=True), static_argnums=3)


def direction_like(tree, seed):
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda array: jnp.asarray(rng.normal(size=array.shape)), tree)


@pytest.mark.parametrize("name", [pytest.param("closed forms", marks=pytest.mark.slow), "newton"])
def test_gradients_agree_with_central_differences(name):
    entries = compared = several = 0
    for seed in SEEDS[name]:
        net, times, index, readout = drawn(name, seed)
        gradient, solution = gradient_of((net, times), index, readout, ENGINE)
        free = net.with_free_time_constants(), times
        assert solution.result == Result.SUCCESS
        error = relative_errors(gradient, loss_and_counts, free, index, readout)
        counts = [np.asarray(spikes.count) for spikes in solution.spikes.values()]
        several += sum(np.count_nonzero(count > 1) for count in counts)
        entries, compared = entries + error.size, compared + np.isfinite(error).sum()
        assert np.nanmax(error) < ENOUGH
        for layer, spikes in solution.spikes.items():
            silent = np.asarray(spikes.count).sum(0) == 0
            for node in (layer, f"to {layer[-1]}"):
                for array in gradient[0].parameters[node].values():
                    assert not np.any(array[silent])
        assert not np.any(gradient[1][:, 3])
    assert several > 50
    assert compared > 900
    assert compared > 0.99 * entries  # otherwise a spike appears or vanishes within the step


def test_slopes_near_tangency_are_clipped_and_counted():
    net, times, index, readout = drawn("small", 0)
    peak = 0.25 * 4 * 0.7  # maximum of V after one spike of weight 4
    taus, zeros = {"tau_mem": 2, "tau_syn": 1}, dict.fromkeys(("v_leak", "v_reset", "bias"), 0)
    thresholds = [peak * (1 - 1e-8), 0.5]
    net = with_numbers(net, r=1, w_in=1, weight=4, v_threshold=thresholds, **taus, **zeros)
    times = jnp.where(jnp.arange(ARRIVALS) == 0, 0.5, times + jnp.inf)
    (exact, free), (rough, clipped) = (
        gradient_of((net, times), index, readout, EventDriven(max_spikes=16, min_slope=floor))
        for floor in (ENGINE.min_slope, 0.01)
    )
    for solution, clipped_count in ((free, 0), (clipped, SAMPLES)):
        assert solution.spikes["layer 0"].count.tolist() == [[1, 1], [1, 1]]
        assert solution.clipped_slopes["layer 0"] == clipped_count
    slope, floor = float(free.spikes["layer 0"].slope[0, 0, 0]), 0.01 * peak / 2
    assert 1e-5 < slope < 1e-4
    for clipped_array, array in zip(*map(jax.tree.leaves, (rough[0], exact[0])), strict=True):
        np.testing.assert_allclose(clipped_array[0], array[0] * slope / floor, rtol=1e-6)
        np.testing.assert_allclose(clipped_array[1], array[1], rtol=1e-12)


def test_the_gradient_of_first_spikes_is_that_of_the_first_of_all():
    net, times, index, readout = drawn("small", 10)
    first, solution = gradient_of((net, times), index, readout, EventDriven(first_spike_only=True))
    assert (solution.spikes["layer 0"].count == 1).all()
    of_first = {name: array.at[..., 1:].set(0.0) for name, array in readout.items()}
    expected, solution = gradient_of((net, times), index, of_first, ENGINE)
    assert (solution.spikes["layer 0"].count > 1).any()
    assert_trees_close(first, expected, rtol=1e-12, absolute=1e-14)


def test_gradients_compose_with_vmap_over_networks_and_inputs():
    drawings = [drawn("small", seed) for seed in (0, 8, 14)]
    net, *arguments = jax.tree.map(lambda *arrays: jnp.stack(arrays), *drawings)
    mapped = jax.jit(jax.vmap(lambda *numbers: jax.grad(loss, has_aux=True)(*numbers)[0]))
    together = mapped((net, arguments[0]), *arguments[1:])
    for number, (net, times, index, readout) in enumerate(drawings):
        expected, _ = gradient_of((net, times), index, readout, ENGINE)
        assert any(np.any(leaf) for leaf in jax.tree.leaves(expected))
        gradient = jax.tree.map(lambda array, number=number: array[number], together)
        assert_trees_close(gradient, expected, rtol=1e-11, absolute=1e-13)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["newton", "closed forms"])
def test_forward_mode_agrees_with_reverse_mode(name):
    net, times, index, readout = drawn(name, SEEDS[name][0])
    direction = direction_like((net, times), 0)
    reverse, _ = gradient_of((net, times), index, readout, ENGINE)
    pairs = zip(*map(jax.tree.leaves, (reverse, direction)), strict=True)
    along = sum(jnp.vdot(*pair) for pair in pairs)
    engine = EventDriven(max_spikes=16, forward_mode=True)

    def directional(numbers, direction):
        value = lambda numbers: loss(numbers, index, readout, engine)[0]  # noqa: E731
        return jax.jvp(value, (numbers,), (direction,))[1]

    assert abs(along) > 0.1
    np.testing.assert_allclose(jax.jit(directional)((net, times), direction), along, rtol=1e-9)


@pytest.mark.slow
def test_second_derivatives_of_spike_times_agree_with_differences():
    """By jax.hessian, forward over reverse: by weights, time constants and input times."""
    net, times, index, readout = drawn("newton", SEEDS["newton"][0])
    direction = direction_like((net, times), 1)

    @jax.jit
    def gradient(shift):
        moved = jax.tree.map(lambda array, by: array + shift * by, (net, times), direction)
        return jax.grad(lambda numbers: loss(numbers, index, readout)[0])(moved)

    second = jax.jit(jax.jacfwd(gradient))(0.0)
    differences = jax.tree.map(lambda a, b: (a - b) / 2e-6, gradient(1e-6), gradient(-1e-6))
    largest = max(float(abs(leaf).max()) for leaf in jax.tree.leaves(differences))
    assert float(abs(second[1]).max()) > 1e-3 * largest  # including derivatives by input times
    assert_trees_close(second, differences, rtol=1e-4, absolute=1e-5 * largest)


def test_reverse_mode_twice_is_refused_by_jax_as_the_docs_say():
    neurons = build.cubalif(tau_mem="10ms", tau_syn="5ms")
    net = lower(build.sequential(build.input(1), build.linear(weight=[[9.0]]), neurons))

    def spike(time):
        events = Events(time=time, index=jnp.zeros((1, 1), int))
        solution = simulate(net, events, 30e-3, engine=EventDriven(max_spikes=4), throw=False)
        return solution.events("2").time[0, 0]

    with pytest.raises(ValueError, match=r"does not work for lax\.while_loop"):
        jax.grad(lambda time: jax.grad(spike)(time).sum())(jnp.full((1, 1), 1e-3))


def test_second_derivatives_by_equal_time_constants_are_those_of_the_closed_form():
    """V = 6 t e^-t at tau_mem = tau_syn = 1; by mpmath, 60 digits."""
    layers = build.linear(weight=[[6.0]]), build.cubalif(1, tau_mem=1.0, tau_syn=1.0)
    network = lower(build.sequential(build.input(1), *layers))
    event = Events(time=jnp.zeros((1, 1)), index=jnp.zeros((1, 1), int))

    def first(taus):
        parameters = {**network.parameters["2"], "tau_mem": taus[:1], "tau_syn": taus[1:]}
        moved = network.with_parameters({**network.parameters, "2": parameters})
        return simulate(moved, event, 3.0, throw=False).first_spike("2")[0, 0]

    expected = 0.06266543297927504 * np.array([[1.0, -1.0], [-1.0, 1.0]])
    np.testing.assert_allclose(jax.hessian(first)(jnp.ones(2)), expected, rtol=1e-10)


def loop_network():
    nodes = {
        "input": build.input(4),
        "w": build.linear(weight=6 * np.ones((2, 4))),
        "n": build.cubalif(2, tau_mem=1.0, tau_syn=0.4),
        "back": build.linear(weight=[[0.0, -0.5], [0.4, 0.0]]),
        "output": build.output(),
    }
    return build.network(nodes, [("input", "w", "n", "output"), ("n", "back", "n")]), "back", "n"


def convolution_network():
    plain = {"stride": 1, "padding": 0, "dilation": 1, "groups": 1, "bias": np.zeros(1)}
    weight, shape = np.full((1, 1, 1, 1), 6.0), np.array([2, 2])
    window = build.node("Conv2d", input_shape=shape, weight=weight, **plain)
    layers = build.input((1, 2, 2)), window, build.cubalif(tau_mem=1.0, tau_syn=0.4)
    return build.sequential(*layers), "1", "2"


@pytest.mark.parametrize("make", [loop_network, convolution_network])
def test_second_derivatives_that_kernels_do_not_have_are_refused(make, auto_is_native):
    graph, linear, place = make()
    network, event = lower(graph), Events(time=jnp.zeros((1, 2)), index=jnp.arange(2)[None])

    def total(weight, backend):
        linear_parameters = {**network.parameters[linear], "weight": weight}
        moved = network.with_parameters({**network.parameters, linear: linear_parameters})
        engine = EventDriven(max_spikes=4, backend=backend)
        solution = simulate(moved, event, 3.0, engine=engine, throw=False)
        return jnp.sum(finite_times(solution.spikes[place].time))

    weight = network.parameters[linear]["weight"]
    message = "second derivatives through a cycle or a convolution"
    assert_refused(lambda: jax.hessian(total)(weight, "auto"), UsageError, message)
    hessian = jax.hessian(total)(weight, "xla").reshape(weight.size, weight.size)
    step = 1e-6 * jnp.eye(weight.size).reshape(-1, *weight.shape)[-2]
    high, low = (jax.grad(total)(weight + by, "auto") for by in (step, -step))
    np.testing.assert_allclose(hessian[-2], np.ravel(high - low) / 2e-6, rtol=1e-5, atol=1e-8)
