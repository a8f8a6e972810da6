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
from tests.event.differences import ENOUGH, relative_errors
from tests.helpers.random_spikes import random_events
from tests.oracles import box_driven_membranes, nir_paper_lif
from tests.oracles.nir_paper_lif import STEP

#: NIR type, spike area (None: V jumps by the weight), seed; the seed also picks how a bias enters.
CASES = [("LIF", 0.3, 0), ("LIF", None, 1), ("IF", 0.3, 1), ("IF", None, 0)]


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
    spikes = np.asarray(solution.spikes["lif"].time[0, 0])
    fired = spikes[np.isfinite(spikes)] / STEP
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
    rules: dict = {
        "kind": kind,
        "spike_area": area,
        "spike_kernel": "box",
        "dt": 0.37,
        "initial": "v_reset",
    }
    rules["bias"] = "step" if seed else "current"
    populations = [
        Population(name="a", size=hidden, **rules),
        Population(name="b", size=3, **rules),
    ]
    times, index = map(jnp.asarray, random_events(rng, (2, 6), 4, 5.0))
    readout = {
        "a": jnp.asarray(rng.normal(size=(2, hidden, 96))),
        "b": jnp.asarray(rng.normal(size=(2, 3, 96))),
    }
    return wired(populations, parameters, 4), times, index, readout


def expected(network, times, index, name, neuron, t_end):
    """The oracle's spike times of one hidden neuron."""
    p = {key: float(value[neuron]) for key, value in network.parameters[name].items()}
    linear, population = network.parameters[f"to {name}"], network.populations[name]
    weight, bias = np.asarray(linear["weight"])[neuron], float(linear["bias"][neuron])
    width = population.dt
    if population.spike_area is None:  # a spike of weight w moves V by w
        height = p.get("tau", 1.0) / width
    else:
        height = p["r"] * population.spike_area / width
    constant = {"current": p["r"], "step": height}[population.bias] * bias
    return box_driven_membranes.spikes(
        p, times, height * weight[index], width, t_end, constant=constant
    )


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("kind", "area", "seed"), CASES)
def test_spikes_agree_with_the_oracle(kind, area, seed):
    network, times, index, _ = random_network(kind, area, seed)
    solution = simulate(
        network, Events(time=times, index=index), 6.0, engine=EventDriven(max_spikes=96)
    )
    for sample, neuron in itertools.product(range(2), range(4)):
        given = np.asarray(times[sample]), np.asarray(index[sample])
        wanted = expected(network, *given, "a", neuron, 6.0)
        got = np.asarray(solution.spikes["a"].time[sample, neuron])
        np.testing.assert_allclose(got[np.isfinite(got)], wanted, atol=1e-9)


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
        events = Events(time=times, index=index)
        engine = EventDriven(max_spikes=96)
        solution = simulate(
            network.with_parameters(parameters), events, 6.0, engine=engine, throw=False
        )
        total = 0.0
        for name, spikes in solution.spikes.items():
            finite = jnp.isfinite(spikes.time)
            total += jnp.sum(
                jnp.where(finite, jnp.where(finite, spikes.time, 0.0) ** 2, 0.0) * readout[name]
            )
        return total, (tuple(spikes.count for spikes in solution.spikes.values()), solution.result)

    tree = (network.parameters, times)
    gradient, (counts, result) = jax.jit(jax.grad(loss, has_aux=True))(tree)
    assert result == Result.SUCCESS
    assert all(count.mean() > 0.5 for count in counts)
    error = relative_errors(gradient, loss, tree)
    assert np.isfinite(error).mean() > 0.95  # elsewhere a spike appears within the step
    assert np.nanmax(error) < ENOUGH
