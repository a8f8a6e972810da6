"""Losses in time steps: means over time of membranes, values of nodes without neurons, and sums."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsnn import Note, TimeStepped, lower, simulate
from jaxsnn.errors import UsageError
from jaxsnn.nir import build
from jaxsnn.nir.initializers import normal
from jaxsnn.train import MeanOverTime, evaluate, fit
from tests.helpers.refusals import assert_refused

DT, STEPS = 1e-3, 10
ONCE = {"epochs": 1, "progress": None, "batch_size": 16}
SNNTORCH = {"dialect": "snntorch", "reset": "subtract", "reset_delay": True, "dt": DT}


def leaky(beta=0.8):
    """snnTorch's Leaky."""
    return build.lif(tau=DT / (1 - beta), r=1 / (1 - beta))


def test_the_mean_over_time_steps_is_that_of_the_recursion(x64):
    """V = beta V + w x without a reset; the gradient of the loss against central differences."""
    weight = np.array([[0.4, -0.2], [0.1, 0.3], [0.2, 0.5]])
    layers = (build.input(2), build.linear(3, weight=weight), leaky(beta=0.8))
    graph = build.sequential(*layers, readout=["2"], **SNNTORCH)
    network = lower(graph, dtype=np.float64)
    x = np.random.default_rng(0).uniform(0, 1, (6, 4, 2))
    v, steps = np.zeros((4, 3)), []
    for frame in x:
        v = 0.8 * v + frame @ weight.T
        steps.append(v)
    expected = np.mean(steps, axis=0)
    solution = simulate(network, x, engine=TimeStepped())
    np.testing.assert_allclose(solution.mean("2"), expected, rtol=1e-6)
    loss, labels = MeanOverTime(population="2", tau=DT, t_max=6 * DT), jnp.array([0, 1, 2, 0])
    assert loss.predict(solution).tolist() == expected.argmax(axis=1).tolist()

    def total(weight):
        moved = network.with_parameters({**network.parameters, "1": {"weight": weight}})
        run = simulate(moved, x, engine=TimeStepped(), throw=False)
        return jnp.sum(loss(run, labels))

    gradient, step = jax.jit(jax.grad(total))(jnp.asarray(weight)), 1e-6
    value = jax.jit(total)
    for place in np.ndindex(weight.shape):
        above, below = (value(jnp.asarray(weight).at[place].add(move)) for move in (step, -step))
        assert gradient[place] == pytest.approx(float(above - below) / (2 * step), rel=1e-6)


# -- the node that a loss reads by default


def network_of(*outputs, classes=3):
    """Return a network with an Output for each of some nodes; a tuple of nodes feeds one Output together.

    The nodes are the neurons "a", which feed the neurons "b", and the Linears "few", with a channel for each
    class, and "many", both of the spikes of "b".
    """
    sizes = {"a": 12, "b": 4, "few": classes, "many": 6}
    layers = {"to a": build.linear(12, weight=normal(0.4, 0.5)), "a": leaky()}
    layers |= {"to b": build.linear(4, weight=normal(0.4, 0.5)), "b": leaky()}
    heads = {name: build.linear(sizes[name], weight=normal(0.3, 0.5)) for name in ("few", "many")}
    nodes = {"in": build.input(5), **layers}
    paths = [("in", *layers)]
    for sources in outputs:
        sources = (sources,) if isinstance(sources, str) else sources
        output = f"out {' '.join(sources)}"
        for name in sources:
            if name in heads:
                nodes[name] = heads[name]
                paths.append(("b", name))
            paths.append((name, output))
        nodes[output] = build.output(sizes[sources[0]])
    return build.network(nodes, paths, seed=1, **SNNTORCH)


def samples(*shape, classes=3):
    """Values between 0 and 1, (samples, *shape), and labels."""
    x = np.random.default_rng(0).uniform(0, 1, (40, *shape)).astype(np.float32)
    return x, np.arange(40) % classes


def notes_of(trained):
    """Return the notes of a run by their codes."""
    return {note.code: note for note in trained.notes if isinstance(note, Note)}


@pytest.mark.parametrize("shape", [(5,), (STEPS, 5)], ids=["values", "time steps"])
def test_values_are_read_by_their_mean_over_time(shape):
    graph, (x, labels) = network_of("few"), samples(*shape)
    trained = fit(graph, (x, labels), **ONCE)
    loss = trained.settings["loss"]
    assert (loss["name"], loss["population"]) == ("mean", "few")
    assert trained.settings["engine"]["name"] == "TimeStepped"
    notes = notes_of(trained)
    assert "'few' outputs values, not spikes" in notes["default-loss"]
    assert ("reads 'few' (Linear)" in notes["default-engine"]) == (shape == (5,))
    assert loss["tau"] == pytest.approx(DT / 0.2)  # time constant of the preceding neurons
    accuracy = evaluate(trained.graph, (x, labels))
    if shape != (5,):
        run = simulate(lower(trained.graph), np.moveaxis(x, 1, 0), engine=TimeStepped())
        answers = np.asarray(run.output()).mean(axis=0).argmax(axis=1)
        assert accuracy == pytest.approx(np.mean(answers == labels))


def test_gradients_of_values_reach_all_weights():
    network, (x, labels) = lower(network_of("few")), samples(STEPS, 5)
    loss = MeanOverTime(population="few", tau=DT, t_max=STEPS * DT)

    def total(parameters):
        run = simulate(
            network.with_parameters(parameters),
            np.moveaxis(x, 1, 0),
            engine=TimeStepped(),
            throw=False,
        )
        return jnp.mean(loss(run, jnp.asarray(labels)))

    gradient = jax.jit(jax.grad(total))(network.parameters)
    for name in ("to a", "to b", "few"):
        assert np.abs(gradient[name]["weight"]).max() > 0


@pytest.mark.parametrize(
    ("outputs", "options", "loss_node", "loss", "reason"),
    [
        (("b",), {}, "b", "count", None),
        (("a", "b"), {}, "b", "count", "the last output"),
        (("b", "few"), {}, "few", "mean", "the last output"),
        (("many", "few"), {}, "few", "mean", "a channel for each of the 3 classes"),
        (("a", "b"), {"loss_options": {"population": "a"}}, "a", "count", None),
        (("few", "many"), {"loss": "integral"}, "few", "integral", "a channel for each"),
    ],
)
def test_one_of_several_outputs_is_read(outputs, options, loss_node, loss, reason):
    trained = fit(network_of(*outputs), samples(STEPS, 5), **ONCE, **options)
    settings, note = trained.settings["loss"], notes_of(trained).get("default-output")
    assert (settings["population"], settings["name"]) == (loss_node, loss)
    assert (note is None) == (reason is None)
    if note is not None:
        assert reason in note
        assert f"the loss reads '{loss_node}'" in note


def test_the_output_that_is_read_has_a_channel_for_each_class():
    trained = fit(network_of("few", "many"), samples(STEPS, 5, classes=5), **ONCE)
    assert trained.settings["loss"]["population"] == "many"
    assert_refused(
        lambda: fit(network_of("few"), samples(STEPS, 5, classes=5), **ONCE),
        UsageError,
        "5 classes, and node 'few' has 3 channels",
    )


def test_spikes_of_two_populations_in_one_output_are_counted_together():
    nodes = {"in": build.input(5), "out": build.output(3)}
    for name in ("a", "b"):
        nodes |= {f"to {name}": build.linear(3, weight=normal(0.5, 0.5)), name: leaky()}
    paths = [("in", "to a", "a", "out"), ("in", "to b", "b", "out")]
    graph = build.network(nodes, paths, seed=1, **SNNTORCH)
    for shape in ((5,), (STEPS, 5)):
        trained = fit(graph, samples(*shape), **ONCE)
        loss, engine = (trained.settings[key] for key in ("loss", "engine"))
        assert (loss["name"], loss["population"], engine["name"]) == ("count", "out", "TimeStepped")
    x = np.moveaxis(samples(STEPS, 5)[0], 1, 0)
    run = simulate(lower(graph), x, engine=TimeStepped(record=True))
    counts = np.asarray(run.count("a")) + np.asarray(run.count("b"))
    assert counts.max() > 2
    np.testing.assert_array_equal(run.count("out"), counts)


@pytest.mark.parametrize(
    ("outputs", "options", "message", "fix"),
    [
        (
            ("few",),
            {"engine": "event"},
            r"'few' \(Linear\) is not a population",
            "engine=TimeStepped()",
        ),
        (("few",), {"loss": "count"}, "'few' is not a spiking population", '"max", "mean"'),
        (("b",), {"loss": "mean"}, "'b' is spiking, and loss mean reads the voltage", ""),
        (("b",), {"loss_options": {"population": "to b"}}, r"'to b' \(Linear\) is not", ""),
        (("b",), {"loss_options": {"population": "c"}}, "'c' is not a population", "a, b"),
    ],
)
def test_nodes_that_a_loss_cannot_read_are_refused(outputs, options, message, fix):
    data = samples(5) if options.get("engine") == "event" else samples(STEPS, 5)
    assert_refused(
        lambda: fit(network_of(*outputs), data, **ONCE, **options), UsageError, message, fix=fix
    )


def test_images_without_time_are_encoded_for_the_time_stepped_engine():
    """Values in the shape of the input have no axis of time, however many axes that shape has."""
    kernel = np.random.default_rng(0).normal(0.3, 0.3, (2, 1, 3, 3))
    settings = {"stride": 1, "padding": 0, "dilation": 1, "groups": 1, "bias": np.zeros(2)}
    layers = (
        build.input((1, 6, 6)),
        build.node("Conv2d", weight=kernel, **settings),
        build.node("MaxPool2d", kernel_size=2, stride=2, padding=0),
        build.node("Flatten", start_dim=0, end_dim=-1),
        build.linear(3, weight=normal(0.3, 0.5)),
        leaky(),
    )
    graph, data = build.sequential(*layers, seed=0, **SNNTORCH), samples(1, 6, 6)
    trained = fit(graph, data, **ONCE)
    notes = notes_of(trained)
    assert trained.settings["engine"]["name"] == "TimeStepped"
    assert "MaxPool2d" in notes["default-engine"]
    assert any("encoded as one spike each" in note for note in trained.notes)
    assert 0 <= evaluate(trained.graph, data) <= 1
    in_steps = fit(graph, samples(STEPS, 1, 6, 6), **ONCE)
    assert "an axis of time steps" in notes_of(in_steps)["default-engine"]
    assert_refused(
        lambda: fit(graph, samples(1, 5, 6), **ONCE),
        UsageError,
        "requires .samples, time, 1, 6, 6.",
    )
