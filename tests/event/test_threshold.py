"""NIR's Threshold behind a readout, as a level and as events."""

import dataclasses
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsnn.errors import LoweringError, SimulationError, UsageError
from jaxsnn.event import Event, Events
from jaxsnn.network import Network, Population, TauShape, Wire
from jaxsnn.simulate import simulate
from tests.event import levels_reference as reference
from tests.event.cases import ratios
from tests.event.differences import ENOUGH, relative_errors

INPUTS, ARRIVALS, SAMPLES, NEURONS, T_END = 3, 14, 2, 6, 7.0
AREA, WIDTH = 0.5, 0.35
CASES = [("CubaLI", shape, kernel) for kernel in ("delta", "box") for shape in TauShape]
CASES += [(kind, TauShape.ANY, kernel) for kind in ("LI", "I") for kernel in ("delta", "box")]
DOUBLE, HALF, EQUAL, _, ANY, *_, ANY_BOX, LI_DELTA, LI_BOX, I_DELTA, I_BOX = CASES

pytestmark = pytest.mark.usefixtures("x64")


def mostly_slow(quick):
    """All cases, only some of them in the quick suite."""
    return [pytest.param(case, marks=() if case in quick else pytest.mark.slow, id=names(case)) for case in CASES]


def names(case):
    kind, shape, kernel = case
    return f"{kind}-{shape.name}-{kernel}"


def readout_parameters(kind, shape, rng, size):
    p = {"r": rng.uniform(0.5, 1.5, size), "v_leak": rng.normal(0, 0.3, size)}
    if kind == "LI":
        return p | {"tau": rng.uniform(0.3, 1.0, size)}
    if kind == "I":
        return {"r": p["r"]}
    tau_syn = rng.uniform(0.2, 0.5, size)
    tau_mem = np.clip(ratios(shape, rng, size), 0.2, 5.0) * tau_syn
    return p | {"tau_mem": tau_mem, "tau_syn": tau_syn, "w_in": rng.uniform(0.5, 1.5, size)}


def drawn(case, *, seed=0, behind=()):
    """Input -> Affine -> readout -> Scale (some factors negative) -> Threshold, and the wires `behind`."""
    kind, shape, kernel = case
    rng = np.random.default_rng([CASES.index(case), seed])
    parameters = {
        "affine": {"weight": rng.normal(0.0, 2.0, (NEURONS, INPUTS)), "bias": rng.normal(0.0, 0.1, NEURONS)},
        "readout": readout_parameters(kind, shape, rng, NEURONS),
        "scale": {"scale": rng.uniform(0.5, 2.0, NEURONS) * np.array([1, 1, 1, -1, -1, 1])},
        "threshold": {"threshold": rng.normal(0.0, 0.3, NEURONS)},
    }
    wires = [Wire(name="input", kind="input", sources=(), shape=(INPUTS,))]
    for name, node_kind in (
        ("affine", "Affine"),
        ("readout", "neuron"),
        ("scale", "Scale"),
        ("threshold", "Threshold"),
    ):
        wires.append(Wire(name=name, kind=node_kind, sources=(wires[-1].name,), shape=(NEURONS,)))
    rules = {"spike_area": AREA, "spike_kernel": kernel, "dt": WIDTH}
    populations = {"readout": Population(name="readout", kind=kind, size=NEURONS, tau_shape=shape, **rules)}
    for wire, own, population in behind:
        wires.append(wire)
        parameters |= {wire.name: own} if own else {}
        populations |= {wire.name: population} if population else {}
    net = Network(parameters=jax.tree.map(jnp.asarray, parameters), wires=wires, populations=populations)
    times = rng.uniform(0, 6, (SAMPLES, ARRIVALS))
    times[:, 2], times[0, 0] = np.inf, 0.0
    return net, Events(time=jnp.asarray(times), index=jnp.asarray(rng.integers(0, INPUTS, (SAMPLES, ARRIVALS))))


def numbers(net, name, neuron):
    return {key: float(value[neuron]) for key, value in net.parameters[name].items()}


def arriving(events, weight, sample, neuron):
    used = np.isfinite(events.time[sample])
    return np.asarray(events.time[sample])[used], weight[neuron, np.asarray(events.index[sample])[used]]


def expected(net, events, sample, neuron):
    """(rises, falls) of one channel of the Threshold."""
    p = SimpleNamespace(**{name: net.parameters[name] for name in net.parameters})
    population = net.populations["readout"]
    one = reference.node(population.kind, numbers(net, "readout", neuron), current=float(p.affine["bias"][neuron]))
    times, weights = arriving(events, np.asarray(p.affine["weight"]), sample, neuron)
    width = WIDTH if population.spike_kernel == "box" else 0.0
    added = reference.changes(one, times, weights, area=AREA, width=width)
    gain, threshold = float(p.scale["scale"][neuron]), float(p.threshold["threshold"][neuron])
    return reference.crossings(one, added, T_END, gain=gain, threshold=threshold)


def finite(times):
    return np.asarray(times)[np.isfinite(times)]


@pytest.mark.parametrize("case", mostly_slow([DOUBLE, EQUAL, ANY, ANY_BOX, LI_DELTA, LI_BOX, I_BOX]))
def test_levels_agree_with_the_reference(case):
    net, events = drawn(case)
    solution = simulate(net, events, T_END)
    level, seen = solution.levels["threshold"], 0
    for sample in range(SAMPLES):
        for neuron in range(NEURONS):
            rises, falls = expected(net, events, sample, neuron)
            assert level.count[sample, neuron] == len(rises)
            np.testing.assert_allclose(finite(level.rise[sample, neuron]), rises, rtol=0, atol=1e-9)
            np.testing.assert_allclose(finite(level.fall[sample, neuron]), falls, rtol=0, atol=1e-9)
            seen += len(rises) + len(falls)
    assert seen >= 12
    assert solution.spikes == {}
    assert (np.asarray(level.rise) == 0).any()  # one begins high


@pytest.mark.parametrize("case", [EQUAL, LI_DELTA], ids=names)
def test_events_are_the_rises_that_come_later_than_the_start(case):
    net, events = drawn(case)
    level = simulate(net, events, T_END).levels["threshold"]
    solution = simulate(net, events, T_END, engine=Event(threshold="event"))
    spikes, began_high = solution.spikes["threshold"], net.parameters["threshold"]["threshold"] < 0
    assert solution.levels == {}
    np.testing.assert_array_equal(spikes.count, np.asarray(level.count) - began_high)
    for sample, neuron in np.ndindex(SAMPLES, NEURONS):
        rises = finite(level.rise[sample, neuron])[int(began_high[neuron]) :]
        np.testing.assert_array_equal(finite(spikes.time[sample, neuron]), rises)
    slope = np.asarray(spikes.slope)[np.isfinite(spikes.time)]
    assert (slope > 0).all()
    assert np.isinf(slope).any() == (case[2] == "delta" and case[0] != "CubaLI")
    assert "fires once where its input comes to the threshold from below" in solution.notes[0]


def level_loss(tree, index, factors, engine):
    """A weighted sum of all rises and falls, and which there are."""
    net, times = tree
    solution = simulate(net, Events(time=times, index=index), T_END, engine=engine, throw=False)
    level, total = solution.levels["threshold"], 0.0
    for name, own in (("rise", level.rise), ("fall", level.fall)):
        total += jnp.sum(jnp.where(jnp.isfinite(own), own, 0.0) * factors[name])
    return total, (level.count, jnp.isfinite(level.fall))


def factors_of(seed, room):
    rng = np.random.default_rng(seed)
    return {name: jnp.asarray(rng.normal(size=(SAMPLES, NEURONS, room))) for name in ("rise", "fall")}


@pytest.mark.parametrize("case", mostly_slow([ANY, ANY_BOX, LI_DELTA]))
def test_gradients_agree_with_central_differences(case):
    engine = Event(max_spikes=5)
    net, events = drawn(case, seed=1)
    net = net.with_free_time_constants()
    given = events.index, factors_of(3, 5)

    def loss(tree, index, factors):
        return level_loss(tree, index, factors, engine)

    tree = (net, jnp.where(jnp.isfinite(events.time), events.time + 0.01, jnp.inf))
    (_, counts), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(tree, *given)
    assert counts[0].sum() > 10
    errors = relative_errors(gradient, loss, tree, *given)
    known = errors[~np.isnan(errors)]
    assert len(known) > 0.8 * len(errors)
    assert known.max() < ENOUGH
    assert all(
        np.any(np.asarray(own))
        for node in ("readout", "scale", "threshold", "affine")
        for own in gradient[0].parameters[node].values()
    )
