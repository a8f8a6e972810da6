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
from tests.event.cases import population
from tests.event.differences import ENOUGH, relative_errors
from tests.helpers.random_spikes import random_events

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
    # the last layer sees the input too
    "newton": (
        (TauShape.APART, 5, {"spike_area": None, "initial": "v_reset", "bias": "step", "dt": 0.9}),
        (TauShape.ANY, 9, {"spike_area": 0.7, "bias": "step", "dt": 0.9, "reset": "subtract"}),
    ),
    "small": ((TauShape.DOUBLE, 2, {"spike_area": 0.7, "initial": "v_leak"}),),
}
#: Seeds under which the neurons fire, and within the budget.
SEEDS = {"closed forms": (2, 4, 7, 12, 14), "newton": (4, 5, 6, 8, 10, 26, 32, 35)}


def largest_kick(p):
    """How far V moves at most, of what r I jumps by; (neurons,)."""
    ratio = np.where(abs(p["tau_mem"] - p["tau_syn"]) < 1e-3, 1.001, p["tau_mem"] / p["tau_syn"])
    return ratio ** (ratio / (1 - ratio))


def network(name, rng):
    """Layers behind Affine nodes, with some spikes a neuron."""
    wires = [Wire(name="input", kind="input", sources=(), shape=(INPUTS,))]
    parameters, populations, before, expected = {}, {}, INPUTS, ARRIVALS
    for number, (shape, size, rules) in enumerate(NETS[name]):
        p, layer, before_layer = population(shape, rng, size), f"layer {number}", [f"to {number}"]
        p["v_reset"] = p["v_reset"] - 0.3
        if (
            name == "closed forms" and number == 0
        ):  # fires at time 0, whatever its numbers are exactly
            p["v_leak"][2] = p["v_threshold"][2] + 0.1
        kick = largest_kick(p)[:, None]
        wires.append(
            Wire(name=f"to {number}", kind="Affine", sources=(wires[-1].name,), shape=(size,))
        )
        weight = rng.normal(3.2 / expected, 1.1 / expected**0.5, (size, before)) / kick
        parameters[f"to {number}"] = {"weight": weight, "bias": rng.normal(0.1, 0.2, size)}
        if name == "newton" and number == 1:
            wires.append(Wire(name="skip", kind="Affine", sources=("input",), shape=(size,)))
            parameters["skip"] = {
                "weight": rng.normal(0.1, 0.1, (size, INPUTS)) / kick,
                "bias": np.zeros(size),
            }
            before_layer.append("skip")
        wires.append(Wire(name=layer, kind="neuron", sources=tuple(before_layer), shape=(size,)))
        parameters[layer] = p
        populations[layer] = Population(
            name=layer, kind="CubaLIF", size=size, tau_shape=shape, **rules
        )
        before, expected = size, 2 * size
    return Network(
        parameters=jax.tree.map(jnp.asarray, parameters), wires=wires, populations=populations
    )


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
        name: jnp.asarray(rng.normal(size=(SAMPLES, each.size, ENGINE.max_spikes)))
        for name, each in net.populations.items()
    }
    return net, jnp.asarray(times), index, readout


def with_numbers(net, **changes):
    """A network with other arrays of layer 0 and the node before it, by the name of the parameter."""
    parameters = {node: dict(arrays) for node, arrays in net.parameters.items()}
    for name, value in changes.items():
        node = "to 0" if name in ("weight", "bias") else "layer 0"
        parameters[node][name] = jnp.broadcast_to(
            jnp.asarray(value, float), parameters[node][name].shape
        )
    return Network(parameters=parameters, wires=net.wires, populations=net.populations)


def loss(numbers, index, readout, engine=ENGINE):
    """A weighted sum of the squares of all spike times of all layers; the solution."""
    net, times = numbers
    solution = simulate(net, Events(time=times, index=index), T_END, engine=engine, throw=False)
    total = 0.0
    for name, spikes in solution.spikes.items():
        fired = jnp.isfinite(spikes.time)
        squares = jnp.where(fired, jnp.where(fired, spikes.time, 0.0) ** 2, 0.0)
        total += jnp.sum(squares * readout[name][..., : squares.shape[-1]])
    return total, solution


def loss_and_counts(numbers, index, readout):
    value, solution = loss(numbers, index, readout)
    return value, [spikes.count for spikes in solution.spikes.values()]


gradient_of = jax.jit(jax.grad(loss, has_aux=True), static_argnums=3)


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
    assert compared > 0.99 * entries  # the others: a spike comes or goes within the smallest step


def test_slopes_near_tangency_are_clipped_and_counted():
    net, times, index, readout = drawn("small", 0)
    peak = 0.25 * 4 * 0.7  # of V after one spike of weight 4
    net = with_numbers(
        net,
        tau_mem=2, tau_syn=1, r=1, w_in=1, v_leak=0, v_reset=0, bias=0, weight=4, v_threshold=[peak * (1 - 1e-8), 0.5],
    )  # fmt: skip
    times = jnp.where(jnp.arange(ARRIVALS) == 0, 0.5, times + jnp.inf)
    exact, free = gradient_of((net, times), index, readout, ENGINE)
    rough, clipped = gradient_of(
        (net, times), index, readout, EventDriven(max_spikes=16, min_slope=0.01)
    )
    assert (
        free.spikes["layer 0"].count.tolist()
        == clipped.spikes["layer 0"].count.tolist()
        == [[1, 1], [1, 1]]
    )
    assert free.clipped_slopes["layer 0"] == 0
    assert clipped.clipped_slopes["layer 0"] == SAMPLES
    slope, floor = float(free.spikes["layer 0"].slope[0, 0, 0]), 0.01 * peak / 2
    assert 1e-5 < slope < 1e-4
    for node, arrays in exact[0].parameters.items():
        for name, array in arrays.items():
            got, wanted = np.asarray(rough[0].parameters[node][name]), np.asarray(array)
            np.testing.assert_allclose(got[0], wanted[0] * slope / floor, rtol=1e-6, err_msg=name)
            np.testing.assert_allclose(got[1], wanted[1], rtol=1e-12, err_msg=name)


def test_the_gradient_of_first_spikes_is_that_of_the_first_of_all():
    net, times, index, readout = drawn("small", 10)
    first, solution = gradient_of((net, times), index, readout, EventDriven(first_spike_only=True))
    assert (solution.spikes["layer 0"].count == 1).all()
    alone = {name: array.at[..., 1:].set(0.0) for name, array in readout.items()}
    every, solution = gradient_of((net, times), index, alone, ENGINE)
    assert (solution.spikes["layer 0"].count > 1).any()
    for got, wanted in zip(jax.tree.leaves(first), jax.tree.leaves(every), strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-12, atol=1e-14)


def test_gradients_compose_with_vmap_over_networks_and_inputs():
    drawings = [drawn("small", seed) for seed in (0, 8, 14)]
    nets, times, index, readout = (
        jax.tree.map(lambda *x: jnp.stack(x), *each) for each in zip(*drawings, strict=True)
    )
    one_by_one = [
        gradient_of((net, times), index, readout, ENGINE)[0]
        for net, times, index, readout in drawings
    ]
    together = jax.jit(jax.vmap(lambda *numbers: jax.grad(loss, has_aux=True)(*numbers)[0]))
    got = together((nets, times), index, readout)
    assert any(np.any(leaf) for leaf in jax.tree.leaves(one_by_one))
    for number, wanted in enumerate(one_by_one):
        for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(wanted), strict=True):
            np.testing.assert_allclose(a[number], b, rtol=1e-11, atol=1e-13)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["newton", pytest.param("closed forms", marks=pytest.mark.slow)])
def test_forward_mode_agrees_with_reverse_mode(name):
    net, times, index, readout = drawn(name, SEEDS[name][0])
    rng = np.random.default_rng(0)
    direction = jax.tree.map(lambda array: jnp.asarray(rng.normal(size=array.shape)), (net, times))
    reverse, _ = gradient_of((net, times), index, readout, ENGINE)
    wanted = sum(
        jnp.sum(a * b)
        for a, b in zip(jax.tree.leaves(reverse), jax.tree.leaves(direction), strict=True)
    )
    engine = EventDriven(max_spikes=16, forward_mode=True)

    def directional(numbers, direction):
        return jax.jvp(
            lambda numbers: loss(numbers, index, readout, engine)[0], (numbers,), (direction,)
        )[1]

    got = jax.jit(directional)((net, times), direction)
    assert abs(wanted) > 0.1
    np.testing.assert_allclose(got, wanted, rtol=1e-9)


@pytest.mark.slow
def test_second_derivatives_of_spike_times_agree_with_differences():
    """By jax.hessian, forward over reverse: by weights, time constants and input times."""
    net, times, index, readout = drawn("newton", SEEDS["newton"][0])
    rng = np.random.default_rng(1)
    direction = jax.tree.map(lambda array: jnp.asarray(rng.normal(size=array.shape)), (net, times))

    @jax.jit
    def gradient(shift):
        moved = jax.tree.map(lambda array, by: array + shift * by, (net, times), direction)
        return jax.grad(lambda numbers: loss(numbers, index, readout)[0])(moved)

    found = jax.jit(jax.jacfwd(gradient))(0.0)
    step = 1e-6
    wanted = jax.tree.map(lambda a, b: (a - b) / (2 * step), gradient(step), gradient(-step))
    largest = max(float(abs(leaf).max()) for leaf in jax.tree.leaves(wanted))
    assert float(abs(found[1]).max()) > 1e-3 * largest  # by input times, too
    for got, expected in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5 * largest)


def test_reverse_mode_twice_is_refused_by_jax_as_the_docs_say():
    neurons = build.cubalif(tau_mem="10ms", tau_syn="5ms")
    net = lower(build.sequential(build.input(1), build.linear(weight=[[9.0]]), neurons))

    def spike(time):
        given = Events(time=time, index=jnp.zeros((1, 1), int))
        solution = simulate(net, given, 30e-3, engine=EventDriven(max_spikes=4), throw=False)
        return solution.events("2").time[0, 0]

    with pytest.raises(ValueError, match=r"does not work for lax\.while_loop"):
        jax.grad(lambda time: jax.grad(spike)(time).sum())(jnp.full((1, 1), 1e-3))


def test_second_derivatives_by_equal_time_constants_are_those_of_the_closed_form():
    """V = 6 t e^-t at tau_mem = tau_syn = 1; by mpmath, 60 digits."""
    graph = build.sequential(
        build.input(1), build.linear(weight=[[6.0]]), build.cubalif(1, tau_mem=1.0, tau_syn=1.0)
    )
    network = lower(graph)
    event = Events(time=jnp.zeros((1, 1)), index=jnp.zeros((1, 1), int))

    def first(taus):
        own = {**network.parameters["2"], "tau_mem": taus[:1], "tau_syn": taus[1:]}
        moved = network.with_parameters({**network.parameters, "2": own})
        return simulate(moved, event, 3.0, throw=False).first_spike("2")[0, 0]

    found = jax.hessian(first)(jnp.ones(2))
    by_either = 0.06266543297927504
    wanted = by_either * np.array([[1.0, -1.0], [-1.0, 1.0]])
    np.testing.assert_allclose(found, wanted, rtol=1e-10)


@pytest.mark.parametrize("of", ["loop", "convolution"])
def test_second_derivatives_that_kernels_have_not_are_refused_in_a_sentence(of, auto_is_native):
    nodes = {
        "input": build.input(4),
        "w": build.linear(weight=6 * np.ones((2, 4))),
        "n": build.cubalif(2, tau_mem=1.0, tau_syn=0.4),
        "back": build.linear(weight=[[0.0, -0.5], [0.4, 0.0]]),
        "output": build.output(),
    }
    graph = build.network(nodes, [("input", "w", "n", "output"), ("n", "back", "n")])
    if of == "convolution":
        window = build.node(
            "Conv2d",
            input_shape=np.array([2, 2]),
            weight=np.full((1, 1, 1, 1), 6.0),
            bias=np.zeros(1),
            stride=1,
            padding=0,
            dilation=1,
            groups=1,
        )
        neurons = build.cubalif(tau_mem=1.0, tau_syn=0.4)
        graph = build.sequential(build.input((1, 2, 2)), window, neurons)
    network = lower(graph)
    name, place = ("back", "n") if of == "loop" else ("1", "2")
    event = Events(time=jnp.zeros((1, 2)), index=jnp.arange(2)[None])

    def total(weight, backend):
        own = {**network.parameters[name], "weight": weight}
        moved = network.with_parameters({**network.parameters, name: own})
        engine = EventDriven(max_spikes=4, backend=backend)
        times = simulate(moved, event, 3.0, engine=engine, throw=False).spikes[place].time
        return jnp.sum(jnp.where(jnp.isfinite(times), times, 0.0))

    weight = network.parameters[name]["weight"]
    with pytest.raises(UsageError, match="second derivative through a loop or a convolution"):
        jax.hessian(total)(weight, "auto")
    hessian = jax.hessian(total)(weight, "xla").reshape(weight.size, weight.size)
    step = 1e-6 * jnp.eye(weight.size).reshape(-1, *weight.shape)
    slopes = [jax.grad(total)(weight + sign * step[-2], "auto") for sign in (1, -1)]
    np.testing.assert_allclose(
        hessian[-2], np.ravel(slopes[0] - slopes[1]) / 2e-6, rtol=1e-5, atol=1e-8
    )
