"""Chains LI -> linear nodes -> LIF, which the event engine plays as current-based neurons."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxsnn
from jaxsnn import EventDriven, Events, TimeStepped, lower, simulate, with_synaptic_delays
from jaxsnn.compatibility.checks import check
from jaxsnn.errors import LoweringError
from jaxsnn.event.replay import replay
from jaxsnn.network.network import Network
from jaxsnn.network.results import Result
from jaxsnn.network.signals import signals
from jaxsnn.network.structure import Population, TauShape
from jaxsnn.network.voltage_chains import with_chains
from jaxsnn.nir import build
from jaxsnn.train import Positive, yinyang_splits
from tests.event.differences import ENOUGH, relative_errors
from tests.event.draft import Draft
from tests.helpers.random_spikes import random_events
from tests.oracles.voltage_chains import Chain, Sender

INPUTS, INNER, OUTER, SAMPLES, T_END = 3, 4, 5, 2, 4.0

#: tau of the LIF, that of the LI being 1.
RATIOS = {
    "equal": (1.0, TauShape.EQUAL),
    "double": (2.0, TauShape.DOUBLE),
    "half": (0.5, TauShape.HALF),
    "nearly equal": (1.001, TauShape.ANY),
    "apart": (3.7, TauShape.APART),
    "far apart": (0.11, TauShape.APART),
    "each its own": (np.array([0.3, 0.999, 1.0, 2.0, 6.0]), TauShape.ANY),
}


def quick(function):
    """Compiled fast, run slowly."""
    return jax.jit(function, compiler_options={"xla_backend_optimization_level": 0})


def played(graph, inputs, *, samples=(0.0,), t_end=T_END, throw=True, **options):
    """A graph or network on the event engine."""
    network = graph if isinstance(graph, Network) else lower(graph)
    engine = EventDriven(**{"max_spikes": 200} | options)

    def run(network, inputs, samples):
        return simulate(network, inputs, t_end, engine=engine, sample_times=samples, throw=False)

    inputs = Events(time=jnp.asarray(inputs.time), index=jnp.asarray(inputs.index, jnp.int32))
    solution = quick(run)(network, inputs, jnp.asarray(samples))
    if throw:
        assert int(solution.result) == Result.SUCCESS, solution.message
    return solution


def numbers(seed):
    """Parameters of all nodes of a chain, by node: names -> arrays."""
    rng = np.random.default_rng(seed)
    return {
        "w": {"weight": rng.normal(0.8, 0.7, (INNER, INPUTS)), "bias": rng.normal(0.1, 0.2, INNER)},
        "li": {
            "tau": np.ones(INNER),
            "r": rng.uniform(0.5, 1.5, INNER),
            "v_leak": rng.normal(0.0, 0.2, INNER),
        },
        "on": {"weight": rng.normal(0.7, 0.8, (OUTER, INNER)), "bias": rng.normal(0.2, 0.2, OUTER)},
        "h": {
            "tau": np.ones(OUTER),
            "r": rng.uniform(0.5, 1.5, OUTER),
            "v_leak": rng.normal(0.0, 0.2, OUTER),
            "v_threshold": rng.uniform(1.0, 1.3, OUTER),
            "v_reset": rng.normal(-0.1, 0.1, OUTER),
        },
    }


def chained(p, *, fires=True, dialect="nir", **options):
    target = p["h"] if fires else {key: p["h"][key] for key in ("tau", "r", "v_leak")}
    nodes = {
        "in": build.input(INPUTS),
        "w": build.affine(**p["w"]),
        "li": build.li(INNER, **p["li"]),
        "on": build.affine(**p["on"]),
        "h": (build.lif if fires else build.li)(OUTER, **target),
        "seen": build.output(INNER),
        "out": build.output(OUTER),
    }
    if dialect == "nir":
        options.setdefault("time_unit", "s")
    return build.network(
        nodes, [("in", "w", "li", "on", "h", "out"), ("li", "seen")], dialect=dialect, **options
    )


def events(seed, count=6):
    rng = np.random.default_rng([seed, 1])
    times, index = random_events(rng, (SAMPLES, count), INPUTS, T_END - 1, unused=[(1, 2)])
    return Events(time=times, index=index)


def oracle(p, *, area=1.0, fires=True, initial="zero", refractory=0.0):
    """`area` None: V jumps by r times the weight."""
    kick = p["li"]["r"] * (1.0 if area is None else area / p["li"]["tau"])
    start = {"zero": (0.0, 0.0), "v_leak": (p["li"]["v_leak"], p["h"]["v_leak"])}[initial]
    sender = Sender(
        jumps=p["w"]["weight"].T * kick,
        matrix=p["on"]["weight"],
        r=p["li"]["r"],
        tau=p["li"]["tau"],
        v_leak=p["li"]["v_leak"],
        current=p["w"]["bias"],
        start=start[0],
    )
    target = p["h"] if fires else {key: p["h"][key] for key in ("tau", "r", "v_leak")}
    return Chain(
        senders=[sender],
        target=target,
        current=p["on"]["bias"],
        start=start[1],
        refractory=refractory,
    )


def assert_spikes(solution, wanted, inputs, name="h", least=10):
    total = 0
    for sample in range(SAMPLES):
        spikes, _ = wanted.run(
            np.asarray(inputs.time[sample]), np.asarray(inputs.index[sample]), T_END
        )
        for neuron, times in enumerate(spikes):
            got = np.asarray(solution.spikes[name].time[sample, neuron])
            assert solution.spikes[name].count[sample, neuron] == len(times)
            np.testing.assert_allclose(got[np.isfinite(got)], times, rtol=0, atol=1e-9)
            total += len(times)
    assert total > least


def with_ratio(ratio, seed=0):
    p = numbers(seed)
    p["h"]["tau"] = np.broadcast_to(RATIOS[ratio][0], OUTER).astype(float)
    return p


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    "ratio",
    [
        pytest.param(name, marks=pytest.mark.slow if "apart" in name or "nearly" in name else ())
        for name in RATIOS
    ],
)
def test_spike_times_are_those_of_the_ode(ratio):
    p, inputs = with_ratio(ratio), events(0)
    network = lower(chained(p))
    assert network.populations["h"].tau_shape is RATIOS[ratio][1]
    assert_spikes(played(network, inputs), oracle(p), inputs)


@pytest.mark.usefixtures("x64")
def test_refractory_times_initial_voltages_and_jumps_by_the_weight():
    p, inputs = with_ratio("double", seed=1), events(1)
    for options, wanted in (
        ({"initial": "v_leak"}, {"initial": "v_leak"}),
        ({"dialect": "jaxsnn"}, {"area": None}),
        ({"time_unit": "s"}, {"refractory": 0.2}),
    ):
        solution = played(chained(p, **options), inputs, refractory=wanted.get("refractory", 0.0))
        assert_spikes(solution, oracle(p, **wanted), inputs)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("ratio", ["equal", "double", "each its own"])
def test_voltages_of_both_populations_are_those_of_the_ode(ratio):
    p, inputs = with_ratio(ratio), events(2)
    samples = np.sort(np.random.default_rng(0).uniform(0, T_END, 9))
    solution = played(chained(p, fires=False), inputs, samples=samples)
    for sample in range(SAMPLES):
        _, v = oracle(p, fires=False).run(
            inputs.time[sample], inputs.index[sample], T_END, samples=tuple(samples)
        )
        np.testing.assert_allclose(
            solution.voltages["li"][sample], v[:, :INNER], rtol=0, atol=1e-10
        )
        np.testing.assert_allclose(solution.voltages["h"][sample], v[:, INNER:], rtol=0, atol=1e-10)
    if ratio != "each its own":
        return
    dense = jnp.linspace(0, T_END, 4001)
    fine = played(chained(p, fires=False), inputs, samples=dense)
    reads = quick(
        lambda solution: {
            name: (solution.maximum(name), solution.integral(name)) for name in ("li", "h")
        }
    )
    for name, (maximum, integral) in reads(fine).items():
        v = np.asarray(fine.voltages[name])
        np.testing.assert_allclose(maximum, v.max(axis=1), rtol=0, atol=5e-3)
        np.testing.assert_allclose(integral, np.trapezoid(v, dense, axis=1), rtol=0, atol=1e-3)


@pytest.mark.usefixtures("x64")
def test_the_same_network_made_of_cubalif_by_hand():
    p, inputs = with_ratio("half", seed=3), events(3)
    p["on"]["bias"] = np.zeros(OUTER)  # a CubaLIF filters a bias too
    own, li, on = p["h"], p["li"], p["on"]["weight"]
    cuba = {"tau_mem": own["tau"], "tau_syn": np.ones(OUTER)} | {
        key: own[key] for key in own if key != "tau"
    }
    first = build.affine(
        weight=on @ (li["r"][:, None] * p["w"]["weight"]),
        bias=on @ (li["v_leak"] + li["r"] * p["w"]["bias"]),
    )
    by_hand = build.sequential(
        build.input(INPUTS), first, build.cubalif(OUTER, **cuba), dialect="nir", time_unit="s"
    )
    got, wanted = (played(graph, inputs) for graph in (chained(p), by_hand))
    assert wanted.spikes["2"].count.sum() > 8
    np.testing.assert_array_equal(got.spikes["h"].count, wanted.spikes["2"].count)
    np.testing.assert_allclose(got.spikes["h"].time, wanted.spikes["2"].time, rtol=1e-12)


@pytest.mark.usefixtures("x64")
def test_several_li_of_one_tau_add_up_also_past_scale_and_flatten():
    p, q, inputs = with_ratio("half", seed=4), numbers(5), events(4)
    factor = np.random.default_rng(6).uniform(-0.5, 1.5, OUTER)
    nodes = {
        "in": build.input(INPUTS),
        "w": build.affine(**p["w"]),
        "li": build.li(INNER, **p["li"]),
        "on": build.affine(**p["on"]),
        "v": build.linear(weight=q["on"]["weight"][:, :INPUTS]),
        "other": build.li(OUTER, tau=1.0, r=q["h"]["r"], v_leak=q["h"]["v_leak"]),
        "scale": build.scale(factor),
        "h": build.lif(OUTER, **p["h"]),
        "out": build.output(OUTER),
    }
    chains = [
        ("in", "w", "li", "on", "h", "out"),
        ("in", "v", "other", "scale", "h"),
        ("other", "h"),
    ]
    graph = build.network(nodes, chains, dialect="nir", time_unit="s")
    wanted = oracle(p)
    wanted.senders.append(
        Sender(
            jumps=q["on"]["weight"][:, :INPUTS].T * q["h"]["r"],
            matrix=np.diag(factor + 1),
            r=q["h"]["r"],
            tau=np.ones(OUTER),
            v_leak=q["h"]["v_leak"],
        )
    )
    wanted.__post_init__()
    assert_spikes(played(graph, inputs), wanted, inputs)


def integrated(p, **options):
    nodes = {
        "in": build.input(INPUTS),
        "w": build.linear(weight=p["w"]["weight"]),
        "i": build.integrator(INNER, r=p["li"]["r"]),
        "on": build.affine(**p["on"]),
        "h": build.lif(OUTER, **p["h"]),
        "out": build.output(OUTER),
    }
    return build.network(
        nodes, [("in", "w", "i", "on", "h", "out")], dialect="nir", time_unit="s", **options
    )


@pytest.mark.usefixtures("x64")
def test_an_integrator_is_a_current_that_stays():
    p, inputs = with_ratio("each its own", seed=7), events(7)
    sender = Sender(
        jumps=p["w"]["weight"].T * p["li"]["r"], matrix=p["on"]["weight"], r=p["li"]["r"]
    )
    wanted = Chain(senders=[sender], target=p["h"], current=p["on"]["bias"])
    assert_spikes(played(integrated(p), inputs), wanted, inputs)


# Gradients

SPIKES = 40


def tree_of(network, inputs):
    """All that a gradient is taken by; tau of the LI is one number."""
    parameters = {name: dict(own) for name, own in network.parameters.items()}
    if "li" in parameters:
        parameters["li"]["tau"] = parameters["li"]["tau"][0]
    return parameters, jnp.asarray(inputs.time)


def loss(tree, network, index, weights, refractory, forward_mode=False):
    """A weighted sum of spike times, and how often neurons fire."""
    parameters, time = tree
    if "li" in parameters:
        tau = jnp.broadcast_to(parameters["li"]["tau"], parameters["li"]["r"].shape)
        parameters = {**parameters, "li": {**parameters["li"], "tau": tau}}
    moved = Network(parameters=parameters, wires=network.wires, populations=network.populations)
    engine = EventDriven(max_spikes=SPIKES, refractory=refractory, forward_mode=forward_mode)
    spikes = simulate(
        moved, Events(time=time, index=index), T_END, engine=engine, throw=False
    ).spikes["h"]
    return jnp.sum(jnp.where(jnp.isfinite(spikes.time), weights * spikes.time, 0.0)), spikes.count


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("ratio", "refractory"),
    [("double", 0.0), ("each its own", 0.1)]
    + [pytest.param(ratio, 0.1, marks=pytest.mark.slow) for ratio in RATIOS]
    + [
        pytest.param(ratio, 0.0, marks=pytest.mark.slow)
        for ratio in ("equal", "nearly equal", "apart", "each its own")
    ],
)
def test_gradients_by_everything_agree_with_central_differences(ratio, refractory):
    p, inputs = with_ratio(ratio, seed=8), events(8)
    network = lower(chained(p))
    agree(network, network.with_free_time_constants(), inputs, refractory)


@pytest.mark.usefixtures("x64")
def test_gradients_behind_an_integrator_agree_with_central_differences():
    network = lower(integrated(with_ratio("each its own", seed=7)))
    agree(network, network, events(7), 0.0)


def agree(network, free, inputs, refractory):
    index = jnp.asarray(inputs.index, jnp.int32)
    weights = jnp.asarray(np.random.default_rng(5).normal(size=(SAMPLES, OUTER, SPIKES)))
    tree = tree_of(network, inputs)
    (_, count), gradient = quick(
        jax.value_and_grad(
            lambda tree: loss(tree, network, index, weights, refractory), has_aux=True
        )
    )(tree)
    assert SPIKES >= count.max() > 1
    unused = np.isinf(inputs.time)
    gradient = (gradient[0], jnp.where(unused, 0.0, gradient[1]))
    finite = (tree[0], jnp.where(unused, 2 * T_END, tree[1]))
    errors = relative_errors(
        gradient, lambda tree: loss(tree, free, index, weights, refractory), finite
    )
    assert np.isfinite(errors).mean() > 0.9
    assert np.nanmax(errors) < ENOUGH


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("refractory", [0.0, 0.2])
def test_forward_mode_agrees_with_reverse_mode(refractory):
    network, inputs = lower(chained(with_ratio("double", seed=8))), events(8)
    index, weights = (
        jnp.asarray(inputs.index, jnp.int32),
        jnp.asarray(np.random.default_rng(5).normal(size=(2, 5, 40))),
    )
    tree = tree_of(network, inputs)
    rng = np.random.default_rng(6)
    direction = jax.tree.map(lambda array: jnp.asarray(rng.normal(size=array.shape)), tree)

    @quick
    def both(tree, direction):
        gradient = jax.grad(lambda tree: loss(tree, network, index, weights, refractory)[0])(tree)
        forward = jax.jvp(
            lambda tree: loss(tree, network, index, weights, refractory, forward_mode=True)[0],
            (tree,),
            (direction,),
        )
        return forward[1], sum(map(jnp.vdot, jax.tree.leaves(gradient), jax.tree.leaves(direction)))

    forward, reverse = both(tree, direction)
    assert abs(reverse) > 1e-2
    np.testing.assert_allclose(forward, reverse, rtol=1e-9)


@pytest.mark.usefixtures("x64")
def test_the_gradient_by_one_tau_is_spread_over_its_neurons_and_recorded_spikes_have_the_same():
    p, inputs = with_ratio("double", seed=8), events(8)
    network = lower(chained(p))
    engine = EventDriven(max_spikes=24)
    end = jnp.asarray(T_END)
    solution = played(network, inputs, max_spikes=24)
    times, counts = solution.spikes["h"].time, solution.spikes["h"].count
    given = {
        "in": Events(time=jnp.asarray(inputs.time), index=jnp.asarray(inputs.index, jnp.int32))
    }

    def total(parameters, way):
        moved = network.with_parameters(parameters)
        if way == "recorded":
            spikes = replay(moved, given, end, jnp.zeros(1), engine, {"h": (times, counts)}).spikes[
                "h"
            ]
        else:
            spikes = simulate(moved, inputs, T_END, engine=engine, throw=False).spikes["h"]
        return jnp.sum(jnp.where(jnp.isfinite(spikes.time), jnp.sin(spikes.time), 0.0))

    grads = quick(
        lambda parameters: [jax.grad(total)(parameters, way) for way in ("exact", "recorded")]
    )
    exact, recorded = grads(network.parameters)
    tau = np.asarray(exact["li"]["tau"])
    assert (tau == tau[0]).all()
    assert tau[0] != 0
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-12), exact, recorded
    )


# Other engines, convolutions


@pytest.mark.usefixtures("x64")
def test_the_grid_comes_closer_with_smaller_steps():
    p, inputs = with_ratio("double", seed=10), events(10)
    inputs = Events(time=np.round(inputs.time / 0.02) * 0.02, index=inputs.index)  # on every grid
    graph, samples = chained(p, fires=False, dt=0.02), 0.02 * np.arange(round(T_END / 0.02))
    exact = np.asarray(played(graph, inputs, samples=samples).voltages["h"])
    errors = []
    for dt in (0.02, 0.005):
        network = lower(chained(p, fires=False, dt=dt))
        on_grid = simulate(network, inputs, T_END, engine=TimeStepped(record=True)).voltages["h"]
        errors.append(
            np.max(abs(np.moveaxis(np.asarray(on_grid), 1, 0)[:, :: round(0.02 / dt)] - exact))
        )
    assert errors[0] < 0.1
    assert errors[1] < errors[0] / 3
    graph = chained(p, dt=0.002)
    fired = np.asarray(
        simulate(lower(graph), inputs, T_END, engine=TimeStepped(record=True)).spikes["h"]
    )
    exact = played(graph, inputs).spikes["h"]
    np.testing.assert_array_equal(fired.sum(axis=0), exact.count)
    for sample, neuron in np.ndindex(SAMPLES, OUTER):
        times = exact.time[sample, neuron]
        np.testing.assert_allclose(
            0.002 * np.flatnonzero(fired[:, sample, neuron]),
            times[np.isfinite(times)],
            rtol=0,
            atol=0.02,
        )


#: What frameworks write for tau = 1 of the LI and 2 of the LIF, steps of dt: options, r, tau, and
#: what weights of the first and the second linear node are multiplied with so that they do the same
#: at any dt.
WRITTEN = {
    "norse": (
        {"dt_export": 0.001},
        lambda tau, dt: 1.0,
        lambda tau, dt: 0.001 * tau,
        lambda dt: (1 / dt, 1.0),
    ),
    "sinabs": (
        {"norm_input": False},
        lambda tau, dt: 1.0,
        lambda tau, dt: tau / dt,
        lambda dt: (1.0, dt / 2),
    ),
    "rockpool": (
        {},
        lambda tau, dt: tau / dt * np.exp(-dt / tau),
        lambda tau, dt: tau,
        lambda dt: (1.0, dt / 2),
    ),
}


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    "dialect", ["norse", "sinabs", pytest.param("rockpool", marks=pytest.mark.slow)]
)
def test_a_voltage_is_as_strong_as_in_the_steps_of_the_framework(dialect):
    p, inputs = numbers(14), events(14)
    inputs = Events(time=np.round(inputs.time / 0.02) * 0.02, index=inputs.index)
    options, r, tau, gains = WRITTEN[dialect]
    errors = []
    for dt in (0.02, 0.005):
        first, second = gains(dt)
        nodes = {
            "in": build.input(INPUTS),
            "w": build.linear(weight=first * p["w"]["weight"]),
            "li": build.li(
                INNER,
                tau=tau(1.0, dt),
                r=r(1.0, dt),
                v_leak=p["li"]["v_leak"] * (dialect == "norse"),
            ),
            "on": build.affine(weight=second * p["on"]["weight"], bias=second * p["on"]["bias"]),
            "h": build.li(
                OUTER,
                tau=tau(2.0, dt),
                r=r(2.0, dt),
                v_leak=p["h"]["v_leak"] * (dialect == "norse"),
            ),
            "out": build.output(OUTER),
        }
        options = {**options, "dt": dt, "spike_kernel": "delta", "dialect": dialect}
        network = lower(build.network(nodes, [tuple(nodes)], **options))
        steps = np.arange(1, round(T_END / dt) + 1)
        found = simulate(network, inputs, T_END, engine=TimeStepped(record=True)).voltages["h"]
        exact = played(network, inputs, samples=(steps - 1e-6) * dt, t_end=2 * T_END).voltages["h"]
        assert np.max(abs(exact)) > 0.3
        errors.append(np.max(abs(np.moveaxis(np.asarray(found), 1, 0) - np.asarray(exact))))
    assert errors[0] < 0.1
    assert errors[1] < errors[0] / 3


@pytest.mark.usefixtures("x64")
def test_convolutions_and_pools_before_and_behind():
    draft = Draft(11, (2, 5, 6))
    draft.window("conv", "Conv2d", "in", (3, 4, 5), kernel=(2, 2))
    inner, outer = 3 * 4 * 5, 2 * 2 * 2
    li = {
        "tau": np.ones(inner),
        "r": draft.rng.uniform(0.5, 1.5, inner),
        "v_leak": draft.rng.normal(0, 0.1, inner),
    }
    draft.add("li", "neuron", "conv", (3, 4, 5), **li)
    draft.populations["li"] = Population(name="li", kind="LI", size=inner, spike_area=1.0)
    draft.window("mean", "AvgPool2d", "li", (3, 2, 4), kernel=(2, 2), stride=(2, 1))
    draft.window("conv 2", "Conv2d", "mean", (2, 2, 2), kernel=(1, 3), scale=0.6)
    lif = {
        "tau": np.full(outer, 2.0),
        "r": draft.rng.uniform(0.5, 1.5, outer),
        "v_leak": np.full(outer, 0.1),
    }
    lif |= {"v_threshold": np.ones(outer), "v_reset": np.full(outer, -0.1)}
    draft.add("h", "neuron", "conv 2", (2, 2, 2), **lif)
    draft.populations["h"] = Population(name="h", kind="LIF", size=outer, spike_area=1.0)
    draft.populations = with_chains(draft.wires, draft.populations)
    network = draft.network()
    times, index = draft.rng.uniform(0, 3, (SAMPLES, 6)), draft.rng.integers(0, 60, (SAMPLES, 6))
    solution = played(network, Events(time=times, index=index), max_spikes=64)
    first, second = signals(network)["li"], signals(network)["h"]
    sender = Sender(
        jumps=np.asarray(first.matrices(network.dtype)["in"]) * li["r"],
        matrix=np.asarray(second.matrices(network.dtype)["li"]).T,
        current=np.asarray(first.constant),
        **li,
    )
    wanted = Chain(senders=[sender], target=lif, current=np.asarray(second.constant))
    assert_spikes(solution, wanted, Events(time=times, index=index), least=20)


# Files, training


def test_a_file_is_read_trained_written_and_read_again(tmp_path):
    rng = np.random.default_rng(12)
    layers = [
        build.linear(weight=rng.normal(2.0, 1.0, (12, 5))),
        build.li(tau="10ms"),
        build.linear(3),
    ]
    graph = build.sequential(build.input(5), *layers, build.lif(tau="20ms"), seed=0)
    jaxsnn.write(tmp_path / "chain.nir", graph)
    graph = jaxsnn.read(tmp_path / "chain.nir")
    assert check(graph, "event").ok
    trainable = {
        "weight": jaxsnn.train.Free(),
        "tau": Positive(shared=True),
        "v_threshold": Positive(low="v_reset"),
    }
    data = yinyang_splits(sizes=(96, 32, 32))
    options = {"batch_size": 32, "learning_rate": 0.02, "seed": 0, "progress": None}
    fitted = jaxsnn.fit(
        graph, data, epochs=2, trainable=trainable, engine=EventDriven(max_spikes=16), **options
    )
    losses = [row.train_loss for row in fitted.history]
    assert losses[-1] < losses[0]
    assert not [note for note in fitted.notes if "zero" in note]  # its spikes are no jumps
    jaxsnn.write(tmp_path / "trained.nir", fitted.graph)
    again = jaxsnn.read(tmp_path / "trained.nir")
    for node, key in (
        ("1", "weight"),
        ("2", "tau"),
        ("3", "weight"),
        ("4", "tau"),
        ("4", "v_threshold"),
    ):
        assert not np.array_equal(again.nodes[node].value(key), graph.nodes[node].value(key)), (
            node,
            key,
        )
    inputs = Events(time=np.full((1, 5), 0.001), index=np.arange(5)[None])
    one, other = (played(each, inputs, t_end=0.1) for each in (fitted.graph, again))
    np.testing.assert_array_equal(one.spikes["4"].time, other.spikes["4"].time)


def test_time_constants_that_part_are_reported():
    graph = chained(with_ratio("double"))
    network = lower(graph, free_time_constants=True)
    own = network.parameters["li"]
    parameters = {**network.parameters, "li": {**own, "tau": own["tau"].at[1].set(1.25)}}
    moved = Network(parameters=parameters, wires=network.wires, populations=network.populations)
    refused = r"node 'h' .* whose tau runs from 1 s to 1.25 s: "
    with pytest.raises(LoweringError, match=refused):
        simulate(moved, events(0), T_END, sample_times=[0.0])
    inside = jax.jit(lambda moved: simulate(moved, events(0), T_END, sample_times=[0.0]))(moved)
    assert int(inside.result) == Result.TIME_CONSTANTS_DIFFER
    message = r"node 'h' takes voltages of LI whose tau runs from 1 s to 1.25 s, .*: train it with .*shared=True"
    assert re.match(message, inside.message)
    with pytest.raises(LoweringError, match=refused):
        simulate(network.with_parameters(parameters), events(0), T_END)
    slower = {**network.parameters, "li": {**own, "tau": 2 * own["tau"]}}
    network = lower(graph)
    assert network.with_parameters(slower).populations["h"].tau_shape is TauShape.EQUAL
    moved = Network(parameters=slower, wires=network.wires, populations=network.populations)
    right = network.with_parameters(slower)
    np.testing.assert_allclose(
        *(played(each, events(0)).spikes["h"].time for each in (moved, right)), rtol=1e-6
    )


# Refusals

TWO = {"in": build.input(2), "w": build.linear(2), "a": build.li(tau=0.01), "b": build.li(tau=0.02)}
TWO |= {"x": build.linear(2), "y": build.linear(2), "h": build.lif(tau=0.02), "out": build.output()}
ONCE = [("in", "w", "a", "x", "h", "out")]


def refused(*, chains=ONCE, options=(), **changed):
    nodes = {
        name: layer
        for name, layer in (TWO | changed).items()
        if any(name in chain for chain in chains)
    }
    return build.network(nodes, chains, seed=0, dialect="nir", time_unit="s", **dict(options))


STEPPED = "simulate with engine=TimeStepped()"
ONE_TAU = f"make these equal, or {STEPPED}"
ONE_OF_TWO = f"drive it by one of the two, or {STEPPED}"
ONLY_LEAKY = f"{STEPPED}, the event engine sends voltages on to LIF and LI only"
REFUSED = {
    "two taus": (
        {"chains": [*ONCE, ("w", "b", "y", "h")]},
        "node 'h' (LIF) takes the voltage of a, b, whose tau runs from 10 ms to 20 ms",
        ONE_TAU,
    ),
    "two taus in one": (
        {"a": build.li(tau=[0.01, 0.02])},
        "node 'h' (LIF) takes the voltage of a, whose tau runs from 10 ms to 20 ms",
        ONE_TAU,
    ),
    "LI and I": (
        {"chains": [*ONCE, ("w", "b", "y", "h")], "b": build.integrator()},
        "node 'h' (LIF) takes the voltages of 'a', which leaks, and of 'b', which does not",
        f"{STEPPED}, the event engine takes one time constant for all of them",
    ),
    "spikes too": (
        {"chains": [*ONCE, ("in", "y", "h")]},
        "node 'h' (LIF) takes what in sends and the voltage of 'a' (LI)",
        ONE_OF_TWO,
    ),
    "its own spikes": (
        {"chains": [*ONCE, ("h", "y", "h")]},
        "node 'h' (LIF) takes what h sends and the voltage of 'a' (LI)",
        ONE_OF_TWO,
    ),
    "CubaLI": (
        {"a": build.cubali(tau_mem=0.02, tau_syn=0.01)},
        "node 'a' (CubaLI) sends its voltage on to 'h' (LIF), which makes three time constants of "
        "two",
        f"{STEPPED}, the event engine sends on voltages of LI and I only",
    ),
    "CubaLIF": (
        {"h": build.cubalif(tau_mem=0.02, tau_syn=0.01)},
        "node 'a' (LI) sends its voltage on to 'h' (CubaLIF), which has a synaptic current of its "
        "own",
        ONLY_LEAKY,
    ),
    "IF": (
        {"h": build.integrate_and_fire()},
        "node 'a' (LI) sends its voltage on to 'h' (IF), which does not leak",
        ONLY_LEAKY,
    ),
    "longe": (
        {"chains": [("in", "w", "a", "x", "b", "y", "h", "out")]},
        "node 'b' (LI) takes the voltage of 'a' (LI) and sends its own on to 'h' (LIF)",
        f"put spiking neurons in between, or {STEPPED}",
    ),
    "cycle": (
        {"chains": [*ONCE, ("h", "y", "a")]},
        "node 'a' (LI) sends its voltage round a cycle through 'h' (LIF)",
        f"break the cycle, or {STEPPED}",
    ),
    "boxes": (
        {"options": {"dt": 1e-3, "spike_kernel": "box"}},
        "node 'a' (LI) takes spikes as boxes and sends its voltage on to 'h' (LIF)",
        f'pass spike_kernel="delta", or {STEPPED}',
    ),
    "Delay": (
        {"x": build.Layer(type="Delay", parameters={"delay": 0.001})},
        "node 'x' (Delay) delays the voltage of 'a' (LI)",
        f"put the Delay before that, or {STEPPED}",
    ),
    "biased I": (
        {"a": build.integrator(), "w": build.affine(2, bias=0.1)},
        "node 'a' (I) integrates the bias of w without end and sends its voltage on to 'h' (LIF)",
        f"take the bias away (a Linear has none), or {STEPPED}",
    ),
    "Output": (
        {"chains": [("in", "w", "a", "x", "out")]},
        "node 'a' (LI) sends its voltage through other nodes to Output 'out'",
        f"{STEPPED}, the event engine records voltages of neurons only",
    ),
}


@pytest.mark.parametrize(("changes", "message", "fix"), REFUSED.values(), ids=REFUSED)
def test_other_voltages_that_are_sent_on_are_refused_by_name(changes, message, fix):
    graph = refused(**changes)
    with pytest.raises(LoweringError) as refusal:
        simulate(lower(graph), Events(time=np.zeros((1, 1)), index=np.zeros((1, 1), int)), 0.1)
    assert str(refusal.value) == f"{message}: {fix}"
    assert message.startswith(f"node '{refusal.value.node}' ")
    (problem,) = check(graph, "event").problems
    assert (problem.code, problem.message, problem.fix) == ("analog-signal", message, fix)


def test_delays_of_synapses_behind_a_voltage_are_refused():
    """They would have to delay what the voltage is at rest and at time 0 as well."""
    nodes = {
        "in": build.input(1),
        "a": build.li(tau=8e-3, v_leak=0.3),
        "on": build.linear(1, weight=np.array([[3.0]])),
        "h": build.lif(tau=10e-3, v_threshold=0.6),
        "out": build.output(),
    }
    graph = build.network(
        nodes, [("in", "a", "on", "h", "out")], seed=0, dialect="jaxsnn", spike_kernel="delta"
    )
    network = with_synaptic_delays(lower(graph), "on", 4e-3)
    events = Events(time=jnp.array([50e-3]), index=jnp.array([0]))
    with pytest.raises(
        LoweringError,
        match=r"node 'on' has synapses with delays and takes the voltage of a, .*: put",
    ):
        simulate(network, events, 0.1)
