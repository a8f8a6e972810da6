"""LIF and IF neurons under box spikes: the published reference, an oracle, and their gradients."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from scipy.optimize import brentq

from jaxsnn.event.event_driven import EventDriven
from jaxsnn.network.network import Network
from jaxsnn.network.results import Result
from jaxsnn.network.spikes import Events
from jaxsnn.network.structure import Population, Wire
from jaxsnn.simulation.simulate import simulate

STEP = 1e-4
INPUT_STEPS = [
    60,
    220,
    270,
    310,
    320,
    350,
    370,
    400,
    410,
    430,
    440,
    450,
    460,
    470,
    480,
    490,
    500,
    510,
    520,
    530,
    670,
]
INPUT_STEPS += [680, 690, 700, 710, 720, 730, 740, 750, 760, 770, 780, 840, 850]


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
    """The LIF reference of the NIR paper (Pedersen et al., Nature Communications 15, 2024): steps
    460 510 710 760.
    """
    lif = {
        name: jnp.array([value])
        for name, value in {"tau": 2.5e-3, "r": 1.0, "v_leak": 0.0, "v_reset": 0.0}.items()
    }
    population = Population(
        name="lif", kind="LIF", size=1, spike_area=STEP, spike_kernel="box", dt=STEP, uniform=True
    )
    network = wired([population], {"lif": lif | {"v_threshold": jnp.array([0.1])}}, 1)
    time = jnp.array(INPUT_STEPS) * STEP
    solution = simulate(network, Events(time=time, index=jnp.zeros(len(time), int)), 1000 * STEP)
    spikes = np.asarray(solution.spikes["lif"].time[0, 0])
    np.testing.assert_allclose(
        spikes[np.isfinite(spikes)] / STEP, [460.84, 510.90, 710.92, 760.91], atol=5e-3
    )


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
    times = jnp.asarray(rng.uniform(0, 5, (2, 6)))
    index = jnp.asarray(rng.integers(0, 4, (2, 6)))
    readout = {
        "a": jnp.asarray(rng.normal(size=(2, hidden, 96))),
        "b": jnp.asarray(rng.normal(size=(2, 3, 96))),
    }
    return wired(populations, parameters, 4), times, index, readout


def oracle(network, times, index, name, neuron, t_end):
    """Spike times of one hidden neuron, segment by segment between the edges of the boxes, by
    bracketing the root.
    """
    p = {key: float(value[neuron]) for key, value in network.parameters[name].items()}
    linear, population = network.parameters[f"to {name}"], network.populations[name]
    weight, bias = np.asarray(linear["weight"])[neuron], float(linear["bias"][neuron])
    tau, leak, width = p.get("tau"), p.get("v_leak", 0.0), population.dt
    height = (
        (tau or 1.0) / width
        if population.spike_area is None
        else p["r"] * population.spike_area / width
    )
    constant = {"current": p["r"], "step": height}[population.bias] * bias
    edges = np.unique(np.concatenate([[0.0], times, times + width, [t_end]]))
    v, now, spikes = p["v_reset"], 0.0, []
    for start, end in itertools.pairwise(edges[edges <= t_end]):
        middle = (start + end) / 2
        drive = constant + height * weight[index[(times < middle) & (middle < times + width)]].sum()

        def voltage(t, v, drive=drive):
            return (
                v + drive * t
                if tau is None
                else leak + drive + (v - leak - drive) * np.exp(-t / tau)
            )

        now = start
        while voltage(end - now, v) > p["v_threshold"]:
            wait = brentq(
                lambda t, v=v: voltage(t, v) - p["v_threshold"], 0.0, end - now, xtol=1e-15
            )
            now += wait
            spikes.append(now)
            v = p["v_reset"]
        v = voltage(end - now, v)
    return spikes


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("kind", "area", "seed"), CASES)
def test_spikes_agree_with_the_oracle(kind, area, seed):
    network, times, index, _ = random_network(kind, area, seed)
    solution = simulate(
        network, Events(time=times, index=index), 6.0, engine=EventDriven(max_spikes=96)
    )
    for sample, neuron in itertools.product(range(2), range(4)):
        expected = oracle(
            network, np.asarray(times[sample]), np.asarray(index[sample]), "a", neuron, 6.0
        )
        got = np.asarray(solution.spikes["a"].time[sample, neuron])
        np.testing.assert_allclose(got[np.isfinite(got)], expected, atol=1e-9)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("kind", "area", "seed"),
    [*CASES[::2], *(pytest.param(*case, marks=pytest.mark.slow) for case in CASES[1::2])],
)
def test_gradients_agree_with_central_differences(kind, area, seed):
    network, times, index, readout = random_network(kind, area, seed)
    flat, unravel = ravel_pytree((network.parameters, times))

    def loss(vector):
        parameters, times = unravel(vector)
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

    (_, (counts, result)), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(flat)
    assert result == Result.SUCCESS
    assert all(count.mean() > 0.5 for count in counts)
    step = 1e-6
    many = jax.jit(jax.vmap(loss))
    (above, (more, _)), (below, (less, _)) = (
        many(flat + step * jnp.eye(flat.size)),
        many(flat - step * jnp.eye(flat.size)),
    )
    same = np.all(
        [(a == b).reshape(flat.size, -1).all(axis=1) for a, b in zip(more, less, strict=True)],
        axis=0,
    )
    assert (
        same.mean() > 0.95
    )  # elsewhere a spike appears within the step, and there is no derivative
    expected = (above - below) / (2 * step)
    scale = np.maximum(abs(expected), 1e-3 * abs(gradient).max())
    np.testing.assert_array_less((abs(expected - gradient) / scale)[same], 1e-5)
