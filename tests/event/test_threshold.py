"""NIR's Threshold behind a readout, as a level and as events."""

import dataclasses
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsnn.errors import SimulationError, UsageError
from jaxsnn.event.event_driven import EventDriven
from jaxsnn.network.network import Network
from jaxsnn.network.signals import signals
from jaxsnn.network.spikes import Events
from jaxsnn.network.structure import Population, TauShape, Wire
from jaxsnn.simulation.simulate import simulate
from tests.event.cases import ratios
from tests.event.differences import ENOUGH, relative_errors
from tests.helpers.random_spikes import random_events
from tests.oracles import threshold_levels

INPUTS, ARRIVALS, SAMPLES, NEURONS, T_END = 3, 14, 2, 6, 7.0
AREA, WIDTH = 0.5, 0.35
CASES = [("CubaLI", shape, kernel) for kernel in ("delta", "box") for shape in TauShape]
CASES += [(kind, TauShape.ANY, kernel) for kind in ("LI", "I") for kernel in ("delta", "box")]
DOUBLE, HALF, EQUAL, _, ANY, *_, ANY_BOX, LI_DELTA, LI_BOX, I_DELTA, I_BOX = CASES

pytestmark = pytest.mark.usefixtures("x64")


def mostly_slow(quick):
    """All cases, only some of them in the quick suite."""
    return [
        pytest.param(case, marks=() if case in quick else pytest.mark.slow, id=names(case))
        for case in CASES
    ]


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
    """Input -> Affine -> readout -> Scale (some factors negative) -> Threshold, and the wires
    `behind`.
    """
    kind, shape, kernel = case
    rng = np.random.default_rng([CASES.index(case), seed])
    parameters = {
        "affine": {
            "weight": rng.normal(0.0, 2.0, (NEURONS, INPUTS)),
            "bias": rng.normal(0.0, 0.1, NEURONS),
        },
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
    populations = {
        "readout": Population(name="readout", kind=kind, size=NEURONS, tau_shape=shape, **rules)
    }
    for wire, own, population in behind:
        wires.append(wire)
        parameters |= {wire.name: own} if own else {}
        populations |= {wire.name: population} if population else {}
    net = Network(
        parameters=jax.tree.map(jnp.asarray, parameters), wires=wires, populations=populations
    )
    shape = (SAMPLES, ARRIVALS)
    times, index = random_events(rng, shape, INPUTS, 6.0, unused=[(0, 2), (1, 2)])
    times[0, 0] = 0.0
    return net, Events(time=jnp.asarray(times), index=jnp.asarray(index))


def numbers(net, name, neuron):
    return {key: float(value[neuron]) for key, value in net.parameters[name].items()}


def arriving(events, weight, sample, neuron):
    used = np.isfinite(events.time[sample])
    return np.asarray(events.time[sample])[used], weight[
        neuron, np.asarray(events.index[sample])[used]
    ]


def expected(net, events, sample, neuron):
    """(rises, falls) of one channel of the Threshold."""
    p = SimpleNamespace(**{name: net.parameters[name] for name in net.parameters})
    population = net.populations["readout"]
    one = threshold_levels.node(
        population.kind, numbers(net, "readout", neuron), current=float(p.affine["bias"][neuron])
    )
    times, weights = arriving(events, np.asarray(p.affine["weight"]), sample, neuron)
    width = WIDTH if population.spike_kernel == "box" else 0.0
    added = threshold_levels.changes(one, times, weights, area=AREA, width=width)
    gain, threshold = float(p.scale["scale"][neuron]), float(p.threshold["threshold"][neuron])
    return threshold_levels.crossings(one, added, T_END, gain=gain, threshold=threshold)


def finite(times):
    return np.asarray(times)[np.isfinite(times)]


@pytest.mark.parametrize("case", mostly_slow([EQUAL, ANY_BOX, LI_DELTA]))
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


@pytest.mark.parametrize("case", [pytest.param(EQUAL, marks=pytest.mark.slow), LI_DELTA], ids=names)
def test_events_are_the_rises_that_come_later_than_the_start(case):
    net, events = drawn(case)
    level = simulate(net, events, T_END).levels["threshold"]
    solution = simulate(net, events, T_END, engine=EventDriven(threshold="event"))
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
    return {
        name: jnp.asarray(rng.normal(size=(SAMPLES, NEURONS, room))) for name in ("rise", "fall")
    }


@pytest.mark.parametrize("case", mostly_slow([ANY_BOX]))
def test_gradients_agree_with_central_differences(case):
    engine = EventDriven(max_spikes=5)
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


@pytest.mark.slow
def test_a_closed_form_for_the_crossing_leaves_the_gradient_alone():
    net, events = drawn(DOUBLE, seed=1)
    engine, factors = EventDriven(max_spikes=5), factors_of(3, 5)
    gradient = jax.jit(jax.grad(level_loss, has_aux=True), static_argnums=3)
    gradients = [
        gradient((each, events.time), events.index, factors, engine)[0][0].parameters
        for each in (net, net.with_free_time_constants())
    ]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-10), *gradients)


# What it feeds.

TARGETS = {
    "LIF": {"tau": 0.8, "r": 1.3, "v_leak": 0.1, "v_threshold": 0.9, "v_reset": -0.2},
    "IF": {"r": 0.7, "v_threshold": 1.1, "v_reset": 0.0},
    "CubaLIF": {
        "tau_mem": 0.9,
        "tau_syn": 0.4,
        "r": 1.2,
        "w_in": 0.8,
        "v_leak": 0.0,
        "v_threshold": 0.7,
        "v_reset": 0.1,
    },
}
TWO = 2  # neurons of each target


def targets(kinds, rng, *, sources=("threshold",), **rules):
    """A Linear from each source to each target, the last one through a Delay, and the targets."""
    found = []
    for kind in kinds:
        sizes = {"threshold": NEURONS, "input": INPUTS}
        for source in sources:
            weight = rng.normal(1.5, 1.0, (TWO, sizes[source]))
            wire = Wire(name=f"{source} to {kind}", kind="Linear", sources=(source,), shape=(TWO,))
            found.append((wire, {"weight": weight}, None))
        late = Wire(
            name=f"late {kind}", kind="Delay", sources=(f"threshold to {kind}",), shape=(TWO,)
        )
        found.append((late, {"delay": np.array([0.0, 0.4])}, None))
        p = {name: np.full(TWO, value) for name, value in TARGETS[kind].items()}
        if "input" in sources:  # a second way for the same spikes
            found.append(
                (
                    Wire(name=f"later {kind}", kind="Delay", sources=("input",), shape=(INPUTS,)),
                    {"delay": np.array([0.1, 0.5, 0.7])},
                    None,
                )
            )
            found.append(
                (
                    Wire(
                        name=f"later to {kind}",
                        kind="Linear",
                        sources=(f"later {kind}",),
                        shape=(TWO,),
                    ),
                    {"weight": rng.normal(0.5, 0.5, (TWO, INPUTS))},
                    None,
                )
            )
        last = (
            late.name,
            *(
                f"{source} to {kind}"
                for source in (*sources[1:], *["later"] * ("input" in sources))
            ),
        )
        population = Population(name=kind, kind=kind, size=TWO, **rules)
        found.append((Wire(name=kind, kind="neuron", sources=last, shape=(TWO,)), p, population))
    return found


def spikes_expected(net, events, kind, sample, neuron, area=None):
    """Spikes of a target's neuron: steps of current from the Threshold, and boxes of spikes, if
    they have an area.
    """
    weight, delay = (
        net.parameters[name][key]
        for name, key in ((f"threshold to {kind}", "weight"), (f"late {kind}", "delay"))
    )
    p = numbers(net, kind, neuron)
    one, added = threshold_levels.node(kind, p), []
    for channel in range(NEURONS):
        rises, falls = (times + delay[neuron] for times in expected(net, events, sample, channel))
        step = float(weight[neuron, channel])
        added += threshold_levels.currents(rises, step + 0 * rises) + threshold_levels.currents(
            falls, -step + 0 * falls
        )
    if area is not None:
        for way in ("input", "later"):
            times, weights = arriving(
                events, np.asarray(net.parameters[f"{way} to {kind}"]["weight"]), sample, neuron
            )
            if way == "later":
                channel = np.asarray(events.index[sample])[np.isfinite(events.time[sample])]
                times = times + np.asarray(net.parameters[f"later {kind}"]["delay"])[channel]
            added += threshold_levels.changes(one, times, weights, area=area, width=WIDTH)
    return threshold_levels.crossings(
        one, added, T_END, threshold=p["v_threshold"], reset=p["v_reset"]
    )[0]


@pytest.mark.slow
@pytest.mark.parametrize("kernel", ["delta", "box"])
def test_neurons_that_a_level_drives_agree_with_the_reference(kernel):
    rules = {"spike_area": AREA, "spike_kernel": kernel, "dt": WIDTH}
    net, events = drawn(ANY, seed=2, behind=targets(TARGETS, np.random.default_rng(1), **rules))
    solution, seen = simulate(net, events, T_END, engine=EventDriven(max_spikes=64)), 0
    for kind in TARGETS:
        for sample, neuron in np.ndindex(SAMPLES, TWO):
            wanted = spikes_expected(net, events, kind, sample, neuron)
            np.testing.assert_allclose(
                finite(solution.spikes[kind].time[sample, neuron]), wanted, rtol=0, atol=1e-9
            )
            seen += len(wanted)
    assert seen > 40
    assert not any(solution.degenerate_spikes.values())


@pytest.mark.slow
@pytest.mark.parametrize("area", [AREA, None])
def test_levels_and_box_spikes_add_up(area):
    rules = {"spike_area": area, "spike_kernel": "box", "dt": WIDTH}
    behind = targets(
        ["LIF", "CubaLIF"], np.random.default_rng(5), sources=("threshold", "input"), **rules
    )
    net, events = drawn(ANY, seed=2, behind=behind)
    solution = simulate(net, events, T_END, engine=EventDriven(max_spikes=64))
    lif, cuba = TARGETS["LIF"], TARGETS["CubaLIF"]
    areas = {
        "LIF": area or lif["tau"] / lif["r"],
        "CubaLIF": area or cuba["tau_syn"] / cuba["w_in"],
    }
    for kind, own in areas.items():
        for sample, neuron in np.ndindex(SAMPLES, TWO):
            wanted = spikes_expected(net, events, kind, sample, neuron, own)
            assert len(wanted) > 0
            np.testing.assert_allclose(
                finite(solution.spikes[kind].time[sample, neuron]), wanted, rtol=0, atol=1e-9
            )


@pytest.mark.slow
def test_neurons_that_events_drive_see_input_spikes_at_these_times():
    kinds = ("CubaLIF",)
    net, events = drawn(
        ANY, seed=2, behind=targets(kinds, np.random.default_rng(3), spike_area=0.3)
    )
    found = simulate(net, events, T_END, engine=EventDriven(threshold="event"))
    names_behind = ("threshold to CubaLIF", "late CubaLIF", "CubaLIF")
    wires = [Wire(name="threshold", kind="input", sources=(), shape=(NEURONS,))]
    wires += [wire for wire in net.wires if wire.name in names_behind]
    alone = Network(
        parameters={name: net.parameters[name] for name in names_behind},
        wires=wires,
        populations={"CubaLIF": net.populations["CubaLIF"]},
    )
    wanted = simulate(alone, found.events("threshold"), T_END)
    assert int(wanted.spikes["CubaLIF"].count.sum()) > 5
    np.testing.assert_allclose(
        found.spikes["CubaLIF"].time, wanted.spikes["CubaLIF"].time, rtol=1e-14
    )


@pytest.mark.parametrize(
    "rules",
    [
        {"spike_area": AREA},
        pytest.param({"spike_area": AREA, "bias": "step", "dt": 0.1}, marks=pytest.mark.slow),
        pytest.param({"bias": "step", "dt": 0.1, "spike_kernel": "box"}, marks=pytest.mark.slow),
        pytest.param({"spike_kernel": "box", "dt": 0.1}, marks=pytest.mark.slow),
    ],
    ids=["current", "step", "step without area", "current without area"],
)
def test_a_level_that_never_falls_is_a_bias(rules):
    rng = np.random.default_rng(0)
    weight = rng.uniform(1.5, 3.0, (TWO, 1))
    solutions = []
    for leveled in (True, False):
        parameters, populations = {}, {}
        wires = [Wire(name="input", kind="input", sources=(), shape=(1,))]
        if leveled:
            wires.append(Wire(name="readout", kind="neuron", sources=("input",), shape=(1,)))
            wires.append(Wire(name="threshold", kind="Threshold", sources=("readout",), shape=(1,)))
            parameters |= {"readout": {"tau": np.ones(1), "r": np.ones(1), "v_leak": np.zeros(1)}}
            parameters |= {"threshold": {"threshold": -np.ones(1)}}
            populations["readout"] = Population(name="readout", kind="LI", size=1, spike_area=1.0)
        for kind, p in TARGETS.items():
            on = ("threshold",) if leveled else ("input",)
            wires.append(
                Wire(
                    name=f"to {kind}",
                    kind="Linear" if leveled else "Affine",
                    sources=on,
                    shape=(TWO,),
                )
            )
            own = {"weight": weight} if leveled else {"weight": 0 * weight, "bias": weight[:, 0]}
            parameters |= {
                f"to {kind}": own,
                kind: {name: np.full(TWO, value) for name, value in p.items()},
            }
            sources = (f"to {kind}",)
            if rules.get("spike_kernel") == "box":  # and it feeds itself
                parameters[f"back {kind}"] = {"weight": np.array([[0.0, -0.4], [0.5, 0.0]])}
                sources += (f"back {kind}",)
                wires.append(
                    Wire(name=f"back {kind}", kind="Linear", sources=(kind,), shape=(TWO,))
                )
            wires.append(Wire(name=kind, kind="neuron", sources=sources, shape=(TWO,)))
            populations[kind] = Population(name=kind, kind=kind, size=TWO, **rules)
        net = Network(
            parameters=jax.tree.map(jnp.asarray, parameters), wires=wires, populations=populations
        )
        silence = Events(time=np.array([[np.inf]]), index=np.array([[1]]))
        solutions.append(simulate(net, silence, 3.0, engine=EventDriven(max_spikes=256)))
    for kind in TARGETS:
        assert int(solutions[1].spikes[kind].count.min()) > 2
        times = [each.spikes[kind].time for each in solutions]
        np.testing.assert_allclose(*times, rtol=1e-12)


# Behind a convolution, and before one.


def convolutional(level_kernel):
    """Input (2, 6) -> Conv1d -> LI (2, 4) -> Threshold -> Conv1d -> LIF (3, 3); some of the
    voltages fall to rise.
    """
    rng = np.random.default_rng(4)
    Window = dataclasses.make_dataclass(
        "Window", ["kernel", "stride", "dilation", "padding", "groups"], frozen=True
    )
    windows = [Window((taps,), (1,), (1,), ((0, 0),), 1) for taps in (3, 2)]
    lif = {"tau": 0.8, "r": 1.3, "v_leak": 0.1, "v_threshold": 0.9, "v_reset": -0.2}
    parameters = {
        "first": {"weight": rng.normal(0.2, 2.0, (2, 2, 3)), "bias": rng.normal(0, 0.1, 2)},
        "li": {
            "tau": rng.uniform(0.3, 1.0, 8),
            "r": rng.uniform(0.5, 1.5, 8),
            "v_leak": rng.normal(0, 0.1, 8),
        },
        "scale": {"scale": rng.uniform(0.5, 1.5, 8) * np.array([1, -1, 1, 1, 1, -1, 1, 1])},
        "threshold": {"threshold": rng.normal(0.1, 0.2, 8)},
        "second": {"weight": rng.normal(1.0, 1.0, (3, 2, 2)), "bias": rng.normal(0, 0.1, 3)},
        "lif": {name: np.full(9, value) for name, value in lif.items()},
    }
    chain = [
        ("input", "input", (2, 6), None),
        ("first", "Conv1d", (2, 4), windows[0]),
        ("li", "neuron", (2, 4), None),
        ("scale", "Scale", (2, 4), None),
        ("threshold", "Threshold", (2, 4), None),
        ("second", "Conv1d", (3, 3), windows[1]),
        ("lif", "neuron", (3, 3), None),
        ("output", "output", (3, 3), None),
    ]
    wires, before = [], ()
    for name, kind, shape, detail in chain:
        wires.append(Wire(name=name, kind=kind, sources=before, shape=shape, detail=detail))
        before = (name,)
    populations = {
        "li": Population(
            name="li", kind="LI", size=8, spike_area=0.5, spike_kernel=level_kernel, dt=0.3
        ),
        "lif": Population(name="lif", kind="LIF", size=9, spike_area=0.5),
    }
    net = Network(
        parameters=jax.tree.map(jnp.asarray, parameters), wires=wires, populations=populations
    )
    times, index = random_events(rng, (2, 25), 12, 5.0)
    return net, Events(time=jnp.asarray(times), index=jnp.asarray(index))


def dense(net):
    """The same network with matrices in place of convolutions, and everything flat."""
    arriving, parameters, wires = signals(net), dict(net.parameters), []
    for wire in net.wires:
        wire = dataclasses.replace(wire, shape=(wire.size,))
        if wire.kind == "Conv1d":
            behind = next(other.name for other in net.wires if wire.name in other.sources)
            ((_, matrix),) = arriving[behind].matrices(net.dtype).items()
            parameters[wire.name] = {"weight": matrix.T, "bias": arriving[behind].constant}
            wire = dataclasses.replace(wire, kind="Affine", detail=None)
        wires.append(wire)
    return Network(parameters=parameters, wires=wires, populations=net.populations)


@pytest.mark.parametrize("reading", ["level", pytest.param("event", marks=pytest.mark.slow)])
def test_convolutions_on_both_sides_are_as_good_as_matrices(reading):
    net, events = convolutional("delta" if reading == "event" else "box")
    engine = EventDriven(threshold=reading, max_spikes=64)
    found, wanted = (simulate(each, events, 6.0, engine=engine) for each in (net, dense(net)))
    if reading == "level":
        assert int(wanted.levels["threshold"].count.sum()) > 10
        close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-12)  # noqa: E731
        jax.tree.map(close, found.levels["threshold"], wanted.levels["threshold"])
    assert int(wanted.spikes["lif"].count.sum()) > 10
    np.testing.assert_allclose(found.spikes["lif"].time, wanted.spikes["lif"].time, rtol=1e-10)


# Gradients through what a level drives, forward mode, and what JAX does with all that.


def spike_loss(tree, index, engine):
    net, times = tree
    solution = simulate(net, Events(time=times, index=index), T_END, engine=engine, throw=False)
    total = sum(
        jnp.sum(jnp.where(jnp.isfinite(own.time), own.time, 0.0) ** 2)
        for own in solution.spikes.values()
    )
    return total, [own.count for own in solution.spikes.values()]


@pytest.mark.slow
def test_gradients_through_what_a_level_drives():
    behind = targets(["LIF"], np.random.default_rng(1), spike_area=AREA)
    net, events = drawn(ANY, seed=2, behind=behind)
    engine = EventDriven(max_spikes=24)
    # differences on both sides: a delay of 0 has none, what comes before time 0 is no input
    late = {"delay": net.parameters["late LIF"]["delay"] + 0.01}
    net = net.with_parameters({**net.parameters, "late LIF": late})
    tree = (
        net.with_free_time_constants(),
        jnp.where(jnp.isfinite(events.time), events.time + 0.01, jnp.inf),
    )

    def loss(tree, index):
        return spike_loss(tree, index, engine)

    (_, counts), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(tree, events.index)
    assert int(counts[0].sum()) > 5
    errors = relative_errors(gradient, loss, tree, events.index)
    known = errors[~np.isnan(errors)]
    assert len(known) > 0.8 * len(errors)
    assert known.max() < ENOUGH
    forward = EventDriven(max_spikes=24, forward_mode=True)
    rng = np.random.default_rng(0)
    direction = jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape)), tree)
    by_forward = jax.jvp(
        lambda tree: spike_loss(tree, events.index, forward)[0], (tree,), (direction,)
    )[1]
    by_reverse = sum(
        jnp.sum(a * b) for a, b in zip(*map(jax.tree.leaves, (gradient, direction)), strict=True)
    )
    np.testing.assert_allclose(by_forward, by_reverse, rtol=1e-9)


def test_jit_vmap_grad_and_jvp_compose():
    net, events = drawn(LI_DELTA, seed=1)
    factors, engine = factors_of(0, 5), EventDriven(max_spikes=5)
    shifts = jnp.asarray([-0.05, 0.0, 0.1])

    def shifted(shift):
        moved = {
            **net.parameters,
            "threshold": {"threshold": net.parameters["threshold"]["threshold"] + shift},
        }
        return level_loss((net.with_parameters(moved), events.time), events.index, factors, engine)[
            0
        ]

    one = jax.jit(jax.value_and_grad(shifted))
    values, gradients = jax.jit(jax.vmap(jax.value_and_grad(shifted)))(shifts)
    assert len(set(np.asarray(values).tolist())) == 3
    np.testing.assert_allclose(values, [one(shift)[0] for shift in shifts], rtol=1e-12)
    np.testing.assert_allclose(gradients, [one(shift)[1] for shift in shifts], rtol=1e-12)
    tangents = jax.jit(jax.vmap(lambda shift: jax.jvp(shifted, (shift,), (1.0,))[1]))(shifts)
    np.testing.assert_allclose(tangents, gradients, rtol=1e-12)


def lone(kind="LI", *, weight=1.0, threshold=0.5, factor=1.0, **rules):
    """One input, one readout with time constants 1, one Threshold."""
    one = np.ones(1)
    p = {
        "LI": {"tau": one, "r": one, "v_leak": 0 * one},
        "CubaLI": {"tau_mem": one, "tau_syn": one / 2},
    }[kind]
    p |= {"r": one, "v_leak": 0 * one} | ({"w_in": one} if kind == "CubaLI" else {})
    parameters = {
        "weight": {"weight": weight * one[None]},
        "readout": p,
        "threshold": {"threshold": threshold * one},
    }
    parameters |= {"scale": {"scale": factor * one}}
    wires = [Wire(name="input", kind="input", sources=(), shape=(1,))]
    for name, node_kind in (
        ("weight", "Linear"),
        ("readout", "neuron"),
        ("scale", "Scale"),
        ("threshold", "Threshold"),
    ):
        wires.append(Wire(name=name, kind=node_kind, sources=(wires[-1].name,), shape=(1,)))
    shape = TauShape.DOUBLE if kind == "CubaLI" else TauShape.ANY
    readout = Population(
        name="readout", kind=kind, size=1, tau_shape=shape, spike_area=1.0, **rules
    )
    return Network(
        parameters=jax.tree.map(jnp.asarray, parameters),
        wires=wires,
        populations={"readout": readout},
    )


def at(*times):
    return Events(time=jnp.asarray([times], float), index=jnp.zeros((1, len(times)), jnp.int32))


@pytest.mark.parametrize(("width", "by_weight"), [(None, 0.0), (0.2, -0.2)])
def test_a_jump_comes_when_its_arrival_comes(width, by_weight):
    """V jumps from 0 to 1 over the threshold 0.5, and flows below it ln 2 later."""
    net, engine = lone(), EventDriven(jump_width=width, max_spikes=2)

    def level(net, times):
        return simulate(
            net, Events(time=times, index=at(0.3).index), 3.0, engine=engine, throw=False
        ).levels["threshold"]

    rise, fall = (getattr(level(net, at(0.3).time), name)[0, 0] for name in ("rise", "fall"))
    np.testing.assert_allclose(rise, [0.3, np.inf])
    np.testing.assert_allclose(fall, [0.3 + np.log(2), np.inf])
    solution = simulate(net, at(0.3), 3.0, engine=engine)
    assert int(solution.degenerate_spikes["threshold"]) == 1
    assert int(solution.clipped_slopes["threshold"]) == 0
    (by_net, by_time), falls = (
        jax.grad(lambda *x, n=name: getattr(level(*x), n)[0, 0, 0], (0, 1))(net, at(0.3).time)
        for name in ("rise", "fall")
    )
    # a ramp of the given length to V = 1 at whose end the threshold is: dt = -width dV / 1, and V
    # moves back with t
    np.testing.assert_allclose(by_net.parameters["weight"]["weight"], [[by_weight]], atol=1e-12)
    np.testing.assert_allclose(by_time, [[1.0 + by_weight]], atol=1e-12)
    np.testing.assert_allclose(falls[0].parameters["weight"]["weight"], [[1.0]], rtol=1e-12)
    np.testing.assert_allclose(falls[1], [[1.0]], rtol=1e-12)


@pytest.mark.parametrize("weights", [(0.999, 0.001), (0.001, 0.999), (1.0, 0.0), (1.1, -0.1)])
def test_the_surrogate_takes_the_whole_jump_of_what_arrives_at_one_time(weights):
    net = lone()
    inputs = Wire(name="input", kind="input", sources=(), shape=(2,))
    parameters = {**net.parameters, "weight": {"weight": jnp.array([weights])}}
    net = Network(
        parameters=parameters, wires=[inputs, *net.wires[1:]], populations=net.populations
    )
    events = Events(time=jnp.array([[0.3, 0.3]]), index=jnp.array([[0, 1]]))

    def rise(weight):
        moved = net.with_parameters({**net.parameters, "weight": {"weight": weight}})
        solution = simulate(
            moved, events, 3.0, engine=EventDriven(jump_width=0.2, max_spikes=2), throw=False
        )
        return solution.levels["threshold"].rise[0, 0, 0]

    np.testing.assert_allclose(jax.grad(rise)(jnp.array([weights])), [[-0.2, -0.2]], rtol=1e-12)


@pytest.mark.parametrize("kind", ["LI", "CubaLI"])
def test_gradients_are_numbers_also_long_after_the_start(kind):
    """In float32 e^95 is none: what is unused must not look back from the time 0 on arrivals that
    come late.
    """
    with jax.enable_x64(False):
        net, times = lone(kind, weight=4.0), jnp.array([[2.0, 95.0]], jnp.float32)

        def fall(net, times):
            solution = simulate(net, Events(time=times, index=at(0, 0).index), 100.0, throw=False)
            return solution.levels["threshold"].fall[0, 0, 0]

        by_net, by_time = jax.grad(fall, (0, 1))(net, times)
    np.testing.assert_allclose(by_time, [[1.0, 0.0]], rtol=1e-5)
    assert np.isfinite(by_net.parameters["weight"]["weight"]).all()


def test_crossings_near_tangency_are_clipped_and_counted():
    """V = 2 (e^-t - e^-2t) of one spike has its maximum 1/2 at ln 2, where it just passes the
    threshold.
    """
    net = lone("CubaLI", threshold=0.5 - 1e-10)
    plain, clipped = (
        simulate(net, at(0.0), 3.0, engine=EventDriven(min_slope=least)) for least in (2**-20, 0.04)
    )
    assert int(plain.clipped_slopes["threshold"]) == 0
    assert int(clipped.clipped_slopes["threshold"]) == 2

    def time(net, name, least):
        found = simulate(
            net, at(0.0), 3.0, engine=EventDriven(min_slope=least), throw=False
        ).levels["threshold"]
        return getattr(found, name)[0, 0, 0]

    for name, sign in (("rise", 1), ("fall", -1)):
        by = jax.grad(time)(net, name, 0.04).parameters["threshold"]["threshold"][0]
        np.testing.assert_allclose(by, sign / (0.04 * 0.5), rtol=1e-6)


def test_a_threshold_at_rest_is_not_passed_at_rest():
    net = lone("CubaLI", threshold=0.0)
    level = simulate(net, at(0.4), 5.0, engine=EventDriven(max_spikes=2)).levels["threshold"]
    np.testing.assert_allclose(level.rise[0, 0], [0.4, np.inf])
    assert np.isinf(level.fall).all()
    mirrored = simulate(lone(factor=0.0, threshold=-1.0), at(0.4), 5.0).levels["threshold"]
    assert (
        int(mirrored.count[0, 0]),
        float(mirrored.rise[0, 0, 0]),
        float(mirrored.fall[0, 0, 0]),
    ) == (1, 0.0, np.inf)


def test_a_flatten_that_joins_axes_in_another_order_is_followed():
    rng, shape, order = np.random.default_rng(0), (2, 3), np.arange(6).reshape(2, 3).T.reshape(-1)
    own = {
        "tau": rng.uniform(0.3, 1.0, 6),
        "r": rng.uniform(0.5, 1.5, 6),
        "v_leak": rng.normal(0, 0.1, 6),
    }
    first, last = (rng.uniform(0.5, 1.5, 6) * np.array([1, -1, 1, 1, -1, 1]) for _ in range(2))
    parameters = {
        "weight": {"weight": rng.normal(0, 2.0, (6, 2))},
        "readout": own,
        "first": {"scale": first},
    }
    parameters |= {"last": {"scale": last}, "threshold": {"threshold": rng.normal(0, 0.2, 6)}}
    chain = [("input", "input", (2,)), ("weight", "Linear", (6,)), ("readout", "neuron", shape)]
    chain += [
        ("first", "Scale", shape),
        ("flat", "Flatten", (6,)),
        ("last", "Scale", (6,)),
        ("threshold", "Threshold", (6,)),
    ]
    wires, before = [], ()
    for name, kind, size in chain:
        detail = (1, 0) if kind == "Flatten" else None
        wires.append(Wire(name=name, kind=kind, sources=before, shape=size, detail=detail))
        before = (name,)
    populations = {"readout": Population(name="readout", kind="LI", size=6, spike_area=0.5)}
    net = Network(
        parameters=jax.tree.map(jnp.asarray, parameters), wires=wires, populations=populations
    )
    moved = {
        "weight": {"weight": parameters["weight"]["weight"][order]},
        "first": {"scale": first[order]},
    }
    moved |= {"readout": {name: values[order] for name, values in own.items()}}
    straight = [dataclasses.replace(wire, detail=None, shape=(wire.size,)) for wire in wires]
    same = Network(
        parameters={**net.parameters, **jax.tree.map(jnp.asarray, moved)},
        wires=straight,
        populations=populations,
    )
    events = Events(time=rng.uniform(0, 5, (1, 20)), index=rng.integers(0, 2, (1, 20)))
    found, wanted = (simulate(each, events, 6.0).levels["threshold"] for each in (net, same))
    assert int(wanted.count.sum()) > 5
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12), found, wanted)


# Budgets.


def test_more_rises_than_are_recorded_end_the_run_with_their_number():
    net, events = drawn(LI_BOX)
    whole = simulate(net, events, T_END)
    most = int(whole.levels["threshold"].count.max())
    assert most > 2
    message = (
        f"Threshold 'threshold' takes {most} rises, it records 1: pass max_spikes={most} or more"
    )
    for only in (False, True):  # a Threshold does not stop after its first rise
        with pytest.raises(SimulationError, match=message):
            simulate(net, events, T_END, engine=EventDriven(max_spikes=1, first_spike_only=only))
    short = simulate(
        net, events, T_END, engine=EventDriven(max_spikes={"threshold": 1}), throw=False
    )
    np.testing.assert_array_equal(
        short.levels["threshold"].rise[..., 0], whole.levels["threshold"].rise[..., 0]
    )
    np.testing.assert_array_equal(
        short.levels["threshold"].fall[..., 0], whole.levels["threshold"].fall[..., 0]
    )
    again = simulate(net, events, T_END, engine=EventDriven(max_spikes="auto", max_events="auto"))
    np.testing.assert_array_equal(again.levels["threshold"].count, whole.levels["threshold"].count)
    with pytest.raises(
        SimulationError,
        match=r"takes \d+ rises and falls in one sample, others see 3 of them: pass max_events=",
    ):
        simulate(net, events, T_END, engine=EventDriven(max_events=3))


def test_options_that_make_no_sense():
    net, events = drawn(ANY)
    with pytest.raises(
        UsageError,
        match=r"threshold is 'edge', which is not a way to simulate a Threshold: .*level, event",
    ):
        simulate(net, events, T_END, engine=EventDriven(threshold="edge"))
    with pytest.raises(UsageError, match=r"jump_width is -0.1: give at least 0"):
        simulate(net, events, T_END, engine=EventDriven(jump_width=-0.1))
    with pytest.raises(
        UsageError,
        match="max_spikes names 'treshold', which is not a population: did you mean 'threshold'",
    ):
        simulate(net, events, T_END, engine=EventDriven(max_spikes={"treshold": 2}))
    with pytest.raises(
        UsageError,
        match="Threshold 'threshold' was simulated as a level, which has no spikes: look at levels",
    ):
        simulate(net, events, T_END).events("threshold")
