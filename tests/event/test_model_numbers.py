"""What models of neurons make of a file's parameters, and what they say to readouts: against each
other, and against dense samples of V.
"""

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsnn.event.dynamics.cubalif import CubaLIFBox, CubaLIFDelta
from jaxsnn.event.dynamics.integrate_and_fire import IFBox, IFDelta
from jaxsnn.event.dynamics.kinds import neuron_of
from jaxsnn.event.dynamics.lif import LIFBox, LIFDelta
from jaxsnn.event.dynamics.neuron_model import Neuron
from jaxsnn.event.dynamics.two_variables import Constants, time_under
from jaxsnn.network.structure import Population, TauShape

WIDTH, STEP, AREA = 0.3, 0.05, 0.7
MODELS = {
    "CubaLIF": CubaLIFDelta(),
    "CubaLIF, boxes": CubaLIFBox(width=WIDTH),
    "LIF": LIFDelta(),
    "LIF, boxes": LIFBox(width=WIDTH),
    "IF": IFDelta(),
    "IF, boxes": IFBox(width=WIDTH),
}
NEURONS = 4

pytestmark = pytest.mark.usefixtures("x64")
models = pytest.mark.parametrize("name", MODELS)


def close(actual, expected, rtol=1e-12):
    np.testing.assert_allclose(
        actual, np.broadcast_to(expected, np.shape(actual)), rtol=rtol, atol=0
    )


def parameters(seed=0):
    rng = np.random.default_rng(seed)
    keys = ("r", "w_in", "tau_mem", "tau_syn", "v_leak", "v_threshold", "v_reset")
    p = {name: jnp.asarray(rng.uniform(0.4, 1.6, NEURONS)) for name in keys}
    return p | {"tau": p["tau_mem"]}, jnp.asarray(rng.uniform(0.2, 0.9, NEURONS))


def lanes_and_state(name, rows, shape=TauShape.ANY, seed=0):
    """A model, its lanes, and states (rows, NEURONS)."""
    rng = np.random.default_rng(seed)
    p, _ = parameters(seed)
    ratio = {TauShape.DOUBLE: 2.0, TauShape.HALF: 0.5, TauShape.EQUAL: 1.0}
    ratio = ratio.get(shape, np.array([0.3, 0.7, 1.4, 4.0]))
    model = replace(MODELS[name], tau_shape=shape)
    lanes = model.constants(
        p | {"tau_mem": ratio * p["tau_syn"], "tau": ratio * p["tau_syn"]}, None
    )
    still = model.begin(lanes)
    return model, lanes, tuple(jnp.asarray(rng.normal(size=(rows, NEURONS))) for _ in still)


# -- parameters


def areas_and_steps(test):
    test = pytest.mark.parametrize("step", [None, STEP], ids=["current", "steps"])(test)
    return pytest.mark.parametrize("area", [None, AREA], ids=["jump", "area"])(test)


@pytest.mark.parametrize(
    ("name", "resistance"),
    [
        (name, resistance)
        for name in MODELS
        for resistance in ("file", "tau/dt")
        if resistance == "file" or not name.startswith("IF")  # IF has no tau
    ],
)
@areas_and_steps
def test_a_spike_and_a_current_weigh_what_the_equations_say(name, area, step, resistance):
    p, _ = parameters()
    model = replace(
        MODELS[name], spike_area=area, step=step, resistance=resistance, dt=0.1 * (area or 1)
    )
    tau = p["tau_mem"]
    r = p["r"] if resistance == "file" else tau / (0.1 * (area or 1))
    if name.startswith("CubaLIF"):  # effect of a spike on j, and its duration
        kick, lasts = r if area is None else r * p["w_in"] * AREA / p["tau_syn"], p["tau_syn"]
        of_current = r * p["w_in"]
    else:
        lasts = tau if name.startswith("LIF") else jnp.ones(NEURONS)
        kick = jnp.ones(NEURONS) if area is None else r * AREA / lasts
        of_current = r
    close(model.kick(p), kick)
    boxes = "boxes" in name
    close(model.arrival_factor(p), kick * lasts / WIDTH if boxes else kick)
    # A bias that is added once per step is a train of spikes of weight 1.
    close(model.current_factor(p), of_current if step is None else kick * lasts / STEP)


@models
@pytest.mark.parametrize("step", [None, STEP], ids=["current", "steps"])
def test_a_constant_current_moves_the_rest_or_drives(name, step):
    p, current = parameters()
    model = replace(MODELS[name], step=step)
    lifted = model.current_factor(p) * current
    leaks = not name.startswith("IF")
    close(model.v_inf(p, current) - model.v_inf(p, None), lifted if leaks else 0.0)
    close(model.v_inf(p, None), p["v_leak"] if leaks else 0.0)
    close(model.lift(p, current, 2.5), lifted if leaks else 2.5 * lifted)
    at_start = {"CubaLIF": -lifted, "CubaLIF, boxes": -lifted, "IF": lifted, "IF, boxes": lifted}
    close(model.j_start(p, current), at_start.get(name, 0.0))
    close(model.j_start(p, None), 0.0)


@models
@pytest.mark.parametrize("reset", ["zero", "subtract"])
@pytest.mark.parametrize("initial", ["zero", "v_leak", "v_reset"])
def test_lanes_count_voltages_from_rest(name, reset, initial):
    p, current = parameters()
    model = replace(MODELS[name], reset_kind=reset, initial=initial)
    lanes, rest = model.constants(p, current), model.v_inf(p, current)
    v_reset = 0.0 if reset == "subtract" else p["v_reset"]
    close(lanes.threshold, p["v_threshold"] - rest)
    close(lanes.v_reset, v_reset - rest)
    close(lanes.v_start, {"zero": 0.0, **p}[initial] - rest)
    close(lanes.j_start, model.j_start(p, current))
    close(lanes.tau_mem, 1.0 if name.startswith("IF") else p["tau_mem"])
    close(model.height(p), p["v_threshold"] - v_reset)
    below, *others = model.rest(p, current)
    close(below, rest)
    assert len(others) == len(model.begin(lanes)) - 1
    assert not any(np.any(component) for component in others)
    unit = jnp.arange(1.0, NEURONS + 1)
    scaled = model.in_units(lanes, unit)
    for field in ("threshold", "v_reset", "v_start", "j_start"):
        close(getattr(scaled, field), getattr(lanes, field) / unit)
    close(scaled.tau_mem, lanes.tau_mem)
    close(scaled.tau_syn, lanes.tau_syn)
    # A readout has neither threshold nor reset, and integrators have no tau_syn.
    few = {key: p[key] for key in p if key not in ("v_threshold", "v_reset", "tau_syn")}
    if not name.startswith("CubaLIF"):
        bare = model.constants(few, None)
        close(bare.tau_syn, 1.0)
        close(bare.threshold, -model.v_inf(p, None))
        close(bare.v_reset, -model.v_inf(p, None))


KINDS = {
    ("CubaLIF", "delta"): CubaLIFDelta,
    ("CubaLI", "box"): CubaLIFBox,
    ("LI", "delta"): LIFDelta,
    ("LIF", "box"): LIFBox,
    ("I", "delta"): IFDelta,
    ("IF", "box"): IFBox,
}


@pytest.mark.parametrize(("kind", "kernel"), KINDS, ids=" ".join)
def test_a_population_has_the_model_of_its_kind(kind, kernel):
    population = Population(
        name="a", kind=kind, size=1, spike_kernel=kernel, dt=0.2, spike_area=0.1, bias="step",
        resistance="tau/dt", initial="v_leak", reset="subtract", threshold=">=", uniform=True,
        tau_shape=TauShape.HALF,
    )  # fmt: skip
    model = neuron_of(population)
    assert type(model) is KINDS[kind, kernel]
    assert model == KINDS[kind, kernel](
        tau_shape=TauShape.HALF, uniform=True, width=0.2 if kernel == "box" else 0.0,
        spike_area=0.1, dt=0.2, step=0.2, resistance="tau/dt", initial="v_leak",
        reset_kind="subtract", fires_at_equality=True,
    )  # fmt: skip
    plain: Any = neuron_of(replace(population, bias="current", threshold=">", dt=None))
    assert (plain.step, plain.width, plain.fires_at_equality) == (None, 0.0, False)


# -- assumptions


@pytest.mark.parametrize("shape", TauShape, ids=lambda shape: shape.name)
@pytest.mark.parametrize("uniform", [False, True])
def test_models_can_drop_their_assumptions(shape, uniform):
    assuming = CubaLIFDelta(tau_shape=shape, uniform=uniform)
    guess = assuming.guessed()
    assert guess.certain is (shape is TauShape.ANY and not uniform)
    plain = CubaLIFDelta()
    assert assuming.generic() == guess.generic() == plain
    if not guess.certain:
        assert guess.general() == plain
    assert assuming.general().uniform is uniform
    general_shapes = (TauShape.APART, TauShape.ANY)
    assert assuming.general().tau_shape is (shape if shape in general_shapes else TauShape.ANY)
    lanes = assuming.constants(parameters()[0], None)
    fits = {TauShape.DOUBLE: 2.0, TauShape.HALF: 0.5, TauShape.EQUAL: 1.0}.get(shape, 3.0)
    ones = jnp.ones((2, NEURONS))
    wide = replace(lanes, tau_mem=fits * ones, tau_syn=ones)
    assert bool(assuming.assumption_holds(wide))
    mixed = jnp.asarray([1.0, 1.0, 1.0, 2.0]) * ones
    assert (
        bool(assuming.assumption_holds(replace(wide, tau_mem=fits * mixed, tau_syn=mixed)))
        is not uniform
    )
    odd = replace(wide, tau_mem=wide.tau_mem.at[1, 2].set(1.05))
    assert bool(assuming.assumption_holds(odd)) is (shape is TauShape.ANY and not uniform)


# -- readouts


@models
@pytest.mark.parametrize("rate", [0.0, 0.7])
def test_integrals_are_those_by_quadrature(name, rate):
    model, lanes, _ = lanes_and_state(name, 1)
    nodes, weights = np.polynomial.legendre.leggauss(60)
    for t in (0.0, 1e-6, 0.03, 0.3, 0.9, 1.7, 6.0, 25.0):
        at = t * (nodes[:, None] + 1) / 2
        by = t / 2 * weights[:, None] * np.exp(-rate * at)
        expected = [np.sum(by * np.asarray(part), axis=0) for part in model.decay(lanes, at)]
        integrals = model.integrals(lanes, jnp.full(NEURONS, t), rate)
        np.testing.assert_allclose(np.array(integrals), expected, rtol=1e-9, atol=1e-30)


@pytest.mark.parametrize("gap", [0.0, 0.3])
def test_slopes_of_integrals_are_those_by_differences(gap):
    """Where the time constants are equal, too, and on either side of where one way takes over."""
    t = jnp.asarray([0.05, 0.4, 0.95, 1.05, 1.5, 1.95, 2.05, 3.0, 9.0])
    model, ones = CubaLIFDelta(), jnp.ones(len(t))
    lanes = Constants(
        threshold=ones,
        v_reset=ones,
        v_start=ones,
        j_start=ones,
        tau_mem=(1 + gap) * ones,
        tau_syn=ones,
    )

    def total(tau_mem, tau_syn, t, part):
        moved = replace(lanes, tau_mem=tau_mem, tau_syn=tau_syn)
        return jnp.sum(model.integrals(moved, t, 0.2)[part])

    variables = lanes.tau_mem, lanes.tau_syn, t
    for part in range(3):
        gradient = jax.grad(total, (0, 1, 2))(*variables, part)
        for number, slope in enumerate(gradient):
            low, high = (
                model.integrals(replace(lanes, tau_mem=mem, tau_syn=syn), at, 0.2)[part]
                for h in (-1e-6, 1e-6)
                for mem, syn, at in [[x + h * (n == number) for n, x in enumerate(variables)]]
            )
            np.testing.assert_allclose(slope, (high - low) / 2e-6, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        *(("CubaLIF", shape) for shape in TauShape if shape is not TauShape.ANY),
        *((name, TauShape.ANY) for name in MODELS),
    ],
)
def test_extrema_are_those_of_the_flow(name, shape):
    cuba = name.startswith("CubaLIF")
    model, lanes, state = lanes_and_state(name, 300, shape)
    end = 2.0
    t = jnp.linspace(0.0, end, 801)[:, None, None]
    v = np.asarray(model.flow(model.decay(lanes, t), state)[0])
    last = model.flow(model.decay(lanes, jnp.full(NEURONS, end)), state)
    turns = np.asarray(model.turns(lanes, state, last))
    wait, peak = map(np.asarray, model.extremum(lanes, state))
    if not cuba:
        assert not turns.any()
        assert not wait.any()
        close(peak, state[0])
        return
    signs = np.sign(np.diff(v, axis=0))
    extremum_between = (signs[0] * signs[-1]) < 0
    near_an_end = (abs(wait) < 0.01) | (abs(wait - end) < 0.01)
    assert 100 < extremum_between.sum() < extremum_between.size - 100
    np.testing.assert_array_equal(turns | near_an_end, extremum_between | near_an_end)
    at = model.flow(model.decay(lanes, wait), state)
    np.testing.assert_allclose(
        peak[extremum_between], np.asarray(at[0])[extremum_between], rtol=1e-9, atol=1e-12
    )
    speed = np.asarray(model.rate(lanes, at)[0])
    np.testing.assert_allclose(speed[extremum_between], 0.0, atol=1e-9)


# -- crossings


def test_an_order_of_crossings_is_that_of_their_times():
    rng = np.random.default_rng(3)
    model = CubaLIFDelta(tau_shape=TauShape.DOUBLE, uniform=True)
    ones = jnp.ones((4000, NEURONS))
    lanes = Constants(
        threshold=jnp.asarray(rng.normal(size=ones.shape)), v_reset=-ones, v_start=0 * ones,
        j_start=0 * ones, tau_mem=1.4 * ones, tau_syn=0.7 * ones,
    )  # fmt: skip
    state = tuple(jnp.asarray(scale * rng.normal(size=ones.shape)) for scale in (1.5, 4.0))
    order: Any = model.crossing_order(lanes, state)
    v, threshold = np.asarray(state[0]), np.asarray(lanes.threshold)
    there = v >= threshold
    assert (np.asarray(order)[there] == 1).all()
    long = 60.0 * ones
    end = tuple(0 * ones for _ in state)
    crosses = np.asarray(model.crosses(lanes, state, end, long)) & ~there
    wait = np.asarray(model.solve(lanes, state, long, jnp.asarray(crosses)))
    np.testing.assert_array_equal((np.asarray(order) > 0) & ~there, crosses)
    from_order = np.asarray(model.wait_of(replace(lanes, tau_mem=1.4 * ones[0]), order))
    assert crosses.sum() > 2000
    np.testing.assert_allclose(from_order[crosses], wait[crosses], rtol=1e-9, atol=1e-9)
    assert CubaLIFDelta(tau_shape=TauShape.DOUBLE).crossing_order(lanes, state) is None
    assert CubaLIFDelta(tau_shape=TauShape.HALF, uniform=True).crossing_order(lanes, state) is None


def test_bounds_are_as_late_as_they_may_be():
    v, drive = jnp.asarray([0.0, 0.4, 0.5, 1.0, 2.0]), jnp.asarray([2.0, 3.0, 1.0, 5.0, 0.0])
    times = time_under(v, drive, jnp.ones(5), jnp.full(5, 3.0))
    np.testing.assert_allclose(times, [3 * 1.0 / 2.0, 3 * 0.6 / 2.6, np.inf, 0.0, 0.0])
    lanes = replace(MODELS["IF"].constants(parameters()[0], None), threshold=jnp.ones(5))
    slow = MODELS["IF, boxes"].bound(lanes, (v, jnp.asarray([2.0, -3.0, 0.0, 5.0, 0.0])))
    np.testing.assert_allclose(slow, [0.5, np.inf, np.inf, 0.0, 0.0])
    # Bounds assume that the current stays, or reaches the level to which the pulses drive it.
    for name, (_, j, *u) in (
        ("CubaLIF", (v, drive)), ("CubaLIF", (v, -drive)),
        ("CubaLIF, boxes", (v, drive, 0 * drive)), ("CubaLIF, boxes", (v, -drive, drive)),
    ):  # fmt: skip
        wide = replace(lanes, tau_mem=jnp.full(5, 3.0), threshold=jnp.full(5, 0.6))
        under = time_under(v, jnp.maximum(j, u[0] if u else 0.0), wide.threshold, wide.tau_mem)
        np.testing.assert_array_equal(MODELS[name].bound(wide, (v, j, *u)), under)


@pytest.mark.parametrize("name", ["LIF, boxes", "IF, boxes"])
def test_membranes_at_their_threshold_exactly(name):
    """Crossings under constant drive in general are in test_crossing_solvers.py."""
    model, lanes, (v, j) = lanes_and_state(name, 500)
    lanes, ones = replace(lanes, threshold=jnp.full(NEURONS, 0.3)), jnp.ones(NEURONS)
    below, end = (jnp.minimum(v, 0.3 - 1e-3), 2 * j), (lanes.threshold + 0 * v, 2 * j)
    assert np.asarray(model.crosses(lanes, below, end, jnp.full(v.shape, 1.5))).all()
    if name == "IF, boxes":  # at rest
        assert not model.solve(lanes, (0.3 * ones, 0 * ones), ones, ones > 0).any()


def test_a_model_may_still_name_its_constants_lanes():
    class Former(Neuron):
        def lanes(self, parameters, current):
            return {"threshold": parameters["v_threshold"] - current}

    with pytest.warns(DeprecationWarning, match=r"define Neuron\.constants"):
        constants = Former().constants({"v_threshold": jnp.ones(2)}, 0.25)
    np.testing.assert_array_equal(constants["threshold"], [0.75, 0.75])
