"""Each way that a gradient takes, of layers and of groups, against differences along a few directions:
value and gradient are compiled once for all points.
"""

from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsnn.event.adjoint import layer_adjoint
from jaxsnn.event.adjoint.layer_adjoint import layer_spikes
from jaxsnn.event.adjoint.recorded_spikes import recorded_spikes
from jaxsnn.event.adjoint.tangents import layer_spikes_forward
from jaxsnn.event.dynamics.cubalif import CubaLIFBox, CubaLIFDelta
from jaxsnn.event.dynamics.integrate_and_fire import IFDelta
from jaxsnn.event.dynamics.lif import LIFBox, LIFDelta
from jaxsnn.event.dynamics.two_variables import Constants
from jaxsnn.event.forward.layer import LayerSpec, LayerSpikes
from jaxsnn.network.structure import TauShape
from tests.event import recurrent_cases
from tests.event.agreement import (
    assert_trees_close,
    assert_trees_equal,
    finite_times,
    sorted_finite,
)

ROWS, ARRIVALS, SAMPLES, T_END = 4, 10, 2, 6.0
quickly = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})

pytestmark = [pytest.mark.slow, pytest.mark.mutants, pytest.mark.usefixtures("x64")]

#: Neuron model, options of its layer, number of neurons, scale of the weights, constant drive of V.
CASES = {
    "current": (CubaLIFDelta(), {}, 4, 3.0, 0.1),
    "current, one slot": (CubaLIFDelta(), {"max_spikes": 1}, 4, 3.0, 0.1),
    "current, first spikes": (CubaLIFDelta(), {"max_spikes": 1, "once": True}, 33, 3.0, 0.1),
    "current, few slots": (CubaLIFDelta(), {"max_spikes": 3}, 33, 3.0, 0.1),
    "current, held": (CubaLIFDelta(), {"refractory": 0.3}, 4, 4.0, 0.1),
    "boxes, held": (CubaLIFBox(width=0.4), {"refractory": 0.2}, 33, 5.0, 0.1),
    "membrane": (LIFDelta(), {}, 4, 0.5, 1.6),
    "membrane, held": (LIFDelta(), {"refractory": 0.3}, 4, 0.5, 1.6),
    "membrane, subtract": (LIFDelta(reset_kind="subtract"), {}, 4, 0.5, 1.6),
    "membrane, subtract, held": (LIFDelta(reset_kind="subtract"), {"refractory": 0.3}, 4, 0.5, 1.6),
    "integrator, subtract": (IFDelta(reset_kind="subtract"), {}, 4, 0.5, 0.9),
    "membrane under boxes": (LIFBox(width=0.4), {}, 4, 6.0, 0.5),
    "current, two slots": (CubaLIFDelta(), {"max_spikes": 2}, 4, 3.0, 0.1),
}


def drawn(name, positions=1, shared=False):
    """(spec, weight, lanes, time, row); the last two neurons start above their thresholds."""
    neuron, options, neurons, scale, drive = CASES[name]
    rng = np.random.default_rng(list(CASES).index(name))
    shape = neurons if positions == 1 else (positions, neurons)
    rest = 0.0 if isinstance(neuron, IFDelta) else drive
    values = {
        "threshold": rng.uniform(0.9, 1.1, shape) - rest,
        "v_reset": rng.uniform(-0.3, 0.0, shape) - rest,
        "v_start": rng.uniform(-0.2, 0.2, shape) - rest,
        "j_start": rng.uniform(-0.2, 0.2, shape) if neuron.drops else np.zeros(shape),
        "tau_mem": rng.uniform(1.5, 2.5, shape),
        "tau_syn": rng.uniform(0.7, 1.1, shape),
    }
    if isinstance(neuron, IFDelta):
        values["j_start"] = np.full(shape, drive)
    values["v_start"][..., -1] = values["threshold"][..., -1] + 0.2
    weight = rng.normal(0.4, 0.6, (ROWS, neurons)) * scale
    time = rng.uniform(0, 5, (SAMPLES * positions, ARRIVALS))
    time[0, 3] = np.inf
    row = rng.integers(0, ROWS, ARRIVALS if shared else time.shape)
    lanes = Constants(**{key: jnp.asarray(value) for key, value in values.items()})
    spec = LayerSpec(**({"neuron": neuron, "max_spikes": 8} | options))
    return spec, jnp.asarray(weight), lanes, jnp.asarray(time), jnp.asarray(row, jnp.int32)


def spikes_of(spec, weight, lanes, time, row) -> LayerSpikes:
    if spec.neuron.width:
        time = jnp.concatenate([time, time + spec.neuron.width], axis=1)
        row = jnp.concatenate([row, row + ROWS], axis=-1)
        weight = jnp.concatenate([weight, -weight])
    return layer_spikes(spec, weight, lanes, time, row, T_END)


def weights_of(shape):
    return jnp.asarray(np.random.default_rng(5).normal(size=shape))


def loss_of(spec, row, shape):
    """A weighted sum of spike times as a function of (weight, lanes, time); counts, and at which spikes
    arrivals made them.
    """
    readout = weights_of(shape)

    def loss(tree):
        weight, lanes, time = tree
        spikes = spikes_of(spec, weight, lanes, time, row)
        total = jnp.sum(finite_times(spikes.time) * readout)
        return total, (spikes.count, jnp.isinf(spikes.slope))

    return loss


def assert_slopes_agree(function, tree, directions=2):
    """Differences along directions within one array at a time; `function` maps a tree to (value,
    counts). An array that nothing depends on has the gradient 0.
    """
    both = quickly(jax.value_and_grad(function, has_aux=True))
    (_, counts), gradient = both(tree)
    leaves, structure = jax.tree.flatten(tree)
    rng, compared = np.random.default_rng(1), 0
    for number, (leaf, slope) in enumerate(zip(leaves, jax.tree.leaves(gradient), strict=True)):
        for _ in range(directions):
            direction = np.where(np.isfinite(leaf), rng.normal(size=leaf.shape), 0.0)

            def at(h, number=number, leaf=leaf, direction=direction):
                moved = [*leaves[:number], leaf + h * direction, *leaves[number + 1 :]]
                (value, others), _ = both(jax.tree.unflatten(structure, moved))
                same = all(map(np.array_equal, jax.tree.leaves(others), jax.tree.leaves(counts)))
                return float(value) if same else np.nan

            parts = np.asarray(slope) * direction
            errors = []
            # Smaller steps if spikes are nearly tangential, or appear or vanish.
            for h in (1e-4, 1e-5, 1e-6):
                before, low, high, behind = (at(factor * h) for factor in (-2, -1, 1, 2))
                difference = (8 * (high - low) - (behind - before)) / (12 * h)
                errors.append(abs(parts.sum() - difference) / (abs(parts).sum() + 1e-3))
                if errors[-1] < 2e-6:
                    break
            if np.isfinite(errors).any():
                assert np.nanmin(errors) < 2e-6, (number, errors)
                compared += 1
    assert compared > 0.8 * directions * len(leaves)
    return gradient, counts


@pytest.mark.parametrize("name", CASES)
def test_gradients_of_layers(name):
    spec, weight, lanes, time, row = drawn(name, shared=name == "current, few slots")
    loss = loss_of(spec, row, (SAMPLES, weight.shape[1], spec.max_spikes))
    _, (count, _) = assert_slopes_agree(loss, (weight, lanes, time))
    assert count.sum() > 1.5 * count.size or spec.once


@pytest.mark.parametrize(
    ("name", "in_order"),
    [("current", False), ("current", True), ("current, one slot", False)],
)
def test_gradients_by_a_pass_over_the_arrivals(name, in_order, monkeypatch):
    """And of neurons at several positions."""
    monkeypatch.setattr(layer_adjoint, "_MANY_ARRIVALS", 1)
    spec, weight, lanes, time, row = drawn(name, positions=3)
    if in_order:
        spec, time = replace(spec, in_order=True), jnp.sort(time, axis=1)
    loss = loss_of(spec, row, (len(time), weight.shape[1], spec.max_spikes))
    assert_slopes_agree(loss, (weight, lanes, time))


#: Assumptions about time constants, actual ratio tau_mem / tau_syn, and number of different values.
ASSUMED = {
    "alike": (CubaLIFDelta(uniform=True), 1.7, 1),
    "twice": (CubaLIFDelta(tau_shape=TauShape.DOUBLE), 2.0, 3),
    "a guess that is wrong": (CubaLIFDelta(tau_shape=TauShape.DOUBLE, certain=False), 1.7, 3),
}


@partial(quickly, static_argnums=(0, 1))
@partial(jax.grad, argnums=(2, 3, 4))
def summed(spec, by_arrivals, weight, lanes, time, row, readout):
    del by_arrivals  # it only selects the compiled program
    return jnp.sum(finite_times(spikes_of(spec, weight, lanes, time, row).time) * readout)


@pytest.mark.parametrize("by_arrivals", [False, True])
@pytest.mark.parametrize("name", ASSUMED)
def test_assumptions_about_time_constants_change_no_gradient(name, by_arrivals, monkeypatch):
    """Of more neurons than are taken up at once, most of which fire behind one arrival."""
    monkeypatch.setattr(layer_adjoint, "_MANY_ARRIVALS", 1 if by_arrivals else 1000)
    neuron, ratio, sizes = ASSUMED[name]
    rng, neurons = np.random.default_rng(3), 45
    syn = np.linspace(0.7, 1.1, sizes)[np.arange(neurons) % sizes]
    values = {"threshold": rng.uniform(0.9, 1.1, neurons), "v_start": np.zeros(neurons)}
    values |= {"v_reset": rng.uniform(-0.3, 0, neurons), "j_start": np.zeros(neurons)}
    values |= {"tau_syn": syn, "tau_mem": ratio * syn}
    lanes = Constants(**{key: jnp.asarray(value) for key, value in values.items()})
    weight = jnp.asarray(rng.normal(3.0, 1.0, (ROWS, neurons)))
    time = jnp.asarray([[0.5, 2.0, 2.5, np.inf], [0.1, 3.0, 0.4, 1.0], [1.0, 0.2, 4.0, 5.0]])
    row = jnp.asarray(rng.integers(0, ROWS, time.shape), jnp.int32)
    readout = jnp.asarray(rng.normal(size=(len(time), neurons, 4)))
    numbers = by_arrivals, weight, lanes, time, row, readout
    specs = (LayerSpec(neuron=model, max_spikes=4) for model in (neuron, CubaLIFDelta()))
    assuming, expected = (jax.tree.leaves(summed(spec, *numbers)) for spec in specs)
    for slope, plain_slope in zip(assuming, expected, strict=True):
        assert np.any(np.isfinite(plain_slope) & (plain_slope != 0)) or not np.any(slope)
    assert_trees_close(assuming, expected, rtol=1e-8, absolute=1e-10)


@pytest.mark.parametrize("name", ["jumps refractory", "loop", "jumps", "refractory"])
def test_gradients_of_groups(name):
    numbers, rows = recurrent_cases.drawn(name, recurrent_cases.SEEDS[name][0])
    case = recurrent_cases.CASES[name]
    rows, spec = [jnp.asarray(row) for row in rows], recurrent_cases.spec_of(name, free=True)
    rng = np.random.default_rng(7)
    readout = [rng.normal(size=(recurrent_cases.SAMPLES, part.size, 60)) for part in case.parts]

    def loss(numbers):
        spikes = recurrent_cases.run(spec, case, numbers, rows).spikes
        value = sum(
            jnp.sum(finite_times(train.time) * weights)
            for train, weights in zip(spikes, readout, strict=True)
        )
        return value, [train.count for train in spikes]

    _, counts = assert_slopes_agree(loss, numbers, directions=1)
    assert sum(int(count.sum()) for count in counts) > 10


def test_recorded_spikes_have_the_gradient_of_their_own_simulation():
    spec, weight, lanes, time, row = drawn("current")
    lanes = replace(lanes, v_start=lanes.v_start.at[-1].set(0.0))
    readout = weights_of((SAMPLES, 4, spec.max_spikes))
    ours: Any = layer_spikes(spec, weight, lanes, time, row, T_END)

    def loss(weight, lanes, time, recorded: Any):
        if recorded:
            spikes: Any = recorded_spikes(spec, weight, lanes, time, row, ours.time, ours.count)
        else:
            spikes = layer_spikes(spec, weight, lanes, time, row, T_END)
        return jnp.sum(finite_times(spikes.time) * readout), spikes

    both = quickly(jax.grad(loss, (0, 1, 2), has_aux=True), static_argnums=3)
    (gradient, again), (expected, spikes) = (
        both(weight, lanes, time, recorded) for recorded in (True, False)
    )
    assert ours.count.sum() > 10
    np.testing.assert_array_equal(again.time, ours.time)
    np.testing.assert_allclose(again.slope, spikes.slope, rtol=1e-9)
    assert_trees_close(gradient, expected, rtol=1e-8, absolute=1e-10)


def test_gradients_of_groups_do_not_depend_on_what_comes_later():
    """Whatever ends a simulation: its last step may be a spike that counts."""
    name = "double uniform"
    numbers, rows = recurrent_cases.drawn(name, recurrent_cases.SEEDS[name][0])
    case = recurrent_cases.CASES[name]
    rows, spec = [jnp.asarray(row) for row in rows], recurrent_cases.spec_of(name)
    rng = np.random.default_rng(7)

    @quickly
    @partial(jax.grad, has_aux=True)
    def both(numbers, t_end, cut, readout):
        spikes = recurrent_cases.run(spec, case, numbers, rows, t_end).spikes
        total = sum(
            jnp.sum(jnp.where(train.time <= cut, finite_times(train.time), 0.0) * weights)
            for train, weights in zip(spikes, readout, strict=True)
        )
        return total, [train.time for train in spikes]

    end, none = recurrent_cases.T_END, [np.zeros(())] * len(case.parts)
    _, trains = both(numbers, end, end, none)
    readout = [rng.normal(size=time.shape) for time in trains]
    times = sorted_finite(np.concatenate([np.ravel(time) for time in trains]))
    assert len(times) > 10
    for cut in times[3:][::3] + 1e-9:
        short, long = (both(numbers, t_end, cut, readout)[0] for t_end in (cut, end))
        assert_trees_close(short, long, rtol=1e-9, absolute=1e-12)


def test_forward_mode_gives_the_same_spikes():
    spec, *arguments = drawn("current, few slots")
    expected, spikes = (
        quickly(partial(layer_function, spec), static_argnums=4)(*arguments, T_END)
        for layer_function in (layer_spikes, layer_spikes_forward)
    )
    assert_trees_equal(spikes, expected)
    assert np.isfinite(spikes.time).any()
