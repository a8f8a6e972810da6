"""LIF and IF neurons under box spikes: the published reference, an oracle, and their gradients."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsnn.event.event_driven import EventDriven
from jaxsnn.network.network import Network
from jaxsnn.network.results import Result
from jaxsnn.network.spikes import Events
from jaxsnn.network.structure import Population, Wire
from jaxsnn.simulation.simulate import simulate
from tests.event.agreement import finite_times, sorted_finite
from tests.event.differences import ENOUGH, relative_errors
from tests.fuzz import nir_reading
from tests.helpers.random_spikes import random_events
from tests.oracles import continuous_time, nir_paper_lif
from tests.oracles.nir_paper_lif import STEP

#: NIR type, spike area (None: V jumps by the weight), seed; the seed also picks how a bias enters.
CASES = [("LIF", 0.3, 0), ("LIF", None, 1), ("IF", 0.3, 1), ("IF", None, 0)]


ENGINE = EventDriven(max_spikes=96)


def wired(populations, parameters, inputs):
    """A chain: input, then for each population a linear node if it has parameters, and the
    population.
    """
    wires = [Wire(name="input", kind="input", sources=(), shape=(inputs,))]
    for population in populations:
        before = wires[-1].name
        linear = f"to {population.name}"
        if linear in parameters:
            kind = "Affine" if "bias" in parameters[linear] else "Linear"
            wires.append(Wire(name=linear, kind=kind, sources=(before,), shape=(population.size,)))
            before = linear
        wires.append(
            Wire(name=population.name, kind="neuron", sources=(before,), shape=(population.size,))
        )
    wires.append(
        Wire(name="output", kind="output", sources=(wires[-1].name,), shape=wires[-1].shape)
    )
    return Network(parameters=parameters, wires=wires, populations={p.name: p for p in populations})


@pytest.mark.usefixtures("x64")
def test_lif_spikes_fall_in_the_reference_steps():
    """The LIF of the NIR paper: also where in a step it fires."""
    lif = {name: jnp.array([value]) for name, value in nir_paper_lif.LIF.items()}
    population = Population(
        name="lif", kind="LIF", size=1, spike_area=STEP, spike_kernel="box", dt=STEP, uniform=True
    )
    network = wired([population], {"lif": lif}, 1)
    time = jnp.array(nir_paper_lif.INPUT_STEPS) * STEP
    solution = simulate(
        network, Events(time=time, index=jnp.zeros(len(time), int)), nir_paper_lif.STEPS * STEP
    )
    fired = sorted_finite(solution.spikes["lif"].time) / STEP
    np.testing.assert_array_equal(np.floor(fired), nir_paper_lif.SPIKE_STEPS)
    np.testing.assert_allclose(fired, [460.84, 510.90, 710.92, 760.91], atol=5e-3)


def random_network(kind, area, seed):
    rng = np.random.default_rng(seed)
    hidden = 9 if seed else 4

    def neurons(n):
        values = {"r": rng.uniform(0.8, 1.5, n) * (1 if kind == "LIF" else 0.6)}
        values |= {"v_threshold": rng.uniform(0.8, 1.2, n), "v_reset": rng.normal(-0.2, 0.2, n)}
        if kind == "LIF":
            values |= {"tau": rng.uniform(0.8, 2, n), "v_leak": rng.normal(0, 0.2, n)}
        return {name: jnp.asarray(value) for name, value in values.items()}

    parameters = {
        "to a": {
            "weight": jnp.asarray(rng.normal(1.5, 2.0, (hidden, 4))),
            "bias": jnp.asarray(rng.normal(0.5, 0.3, hidden)),
        },
        "a": neurons(hidden),
        "to b": {"weight": jnp.asarray(rng.normal(0.8, 1.5, (3, hidden)))},
        "b": neurons(3),
    }
    rules = {"spike_kernel": "box", "dt": 0.37, "initial": "v_reset"}
    rules |= {"kind": kind, "spike_area": area, "bias": "step" if seed else "current"}
    populations = [Population(name=n, size=size, **rules) for n, size in (("a", hidden), ("b", 3))]
    times, index = map(jnp.asarray, random_events(rng, (2, 6), 4, 5.0))
    readout = {
        "a": jnp.asarray(rng.normal(size=(2, hidden, 96))),
        "b": jnp.asarray(rng.normal(size=(2, 3, 96))),
    }
    return wired(populations, parameters, 4), times, index, readout


def reference(network, events):
    """The oracle's spikes of each population."""
    nodes, population = {}, network.populations["a"]
    for wire in network.wires[:-1]:
        kind = {"neuron": population.kind, "input": "Input"}.get(wire.kind, wire.kind)
        settings = {"shape": wire.shape} if kind == "Input" else {}
        values = jax.tree.map(np.asarray, network.parameters.get(wire.name, {}))
        nodes[wire.name] = nir_reading.Node(kind=kind, numbers=values, settings=settings)
    meaning = nir_reading.Meaning(
        area={population.kind: population.spike_area},
        dt=population.dt,
        boxes=frozenset(network.populations),
        initial=population.initial,
        steps=population.bias == "step",
    )
    read = nir_reading.read(nodes, list(itertools.pairwise(nodes)), meaning)
    return continuous_time.simulate(*read, {"input": events}, 6.0).spikes


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("kind", "area", "seed"), CASES)
def test_spikes_agree_with_the_oracle(kind, area, seed):
    network, times, index, _ = random_network(kind, area, seed)
    solution = simulate(network, Events(time=times, index=index), 6.0, engine=ENGINE)
    for sample in range(2):
        events = list(zip(times[sample].tolist(), index[sample].tolist(), strict=True))
        for name, expected in reference(network, events).items():
            for neuron, expected_times in enumerate(expected):
                spikes = sorted_finite(solution.spikes[name].time[sample, neuron])
                np.testing.assert_allclose(spikes, expected_times, atol=1e-9)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("kind", "area", "seed"),
    [
        CASES[2],
        *(pytest.param(*case, marks=pytest.mark.slow) for case in CASES if case != CASES[2]),
    ],
)
def test_gradients_agree_with_central_differences(kind, area, seed):
    network, times, index, readout = random_network(kind, area, seed)

    def loss(tree):
        parameters, times = tree
        changed, events = network.with_parameters(parameters), Events(time=times, index=index)
        solution = simulate(changed, events, 6.0, engine=ENGINE, throw=False)
        total = sum(
            jnp.sum(finite_times(spikes.time) ** 2 * readout[name])
            for name, spikes in solution.spikes.items()
        )
        return total, (tuple(spikes.count for spikes in solution.spikes.values()), solution.result)

    tree = (network.parameters, times)
    gradient, (counts, result) = jax.jit(jax.grad(loss, has_aux=True))(tree)
    assert result == Result.SUCCESS
    assert all(count.mean() > 0.5 for count in counts)
    error = relative_errors(gradient, loss, tree)
    assert np.isfinite(error).mean() > 0.95  # otherwise a spike appears within the step
    assert np.nanmax(error) < ENOUGH
