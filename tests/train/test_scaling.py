"""Steps of the optimiser in kicks and lifts, and which weights are bumped."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxsnn.network.lowering.lower import lower
from jaxsnn.network.spikes import Events
from jaxsnn.nir import build
from jaxsnn.simulation.simulate import simulate
from jaxsnn.train.loop.constraints import find_trainables
from jaxsnn.train.loop.optimisers import step_scales
from jaxsnn.train.losses.regularizers import (
    WeightBumping,
    bumped,
    by_channel,
    channels_of,
    feeding_weights,
)

T_END = 0.05


CUBA = {"tau_mem": 0.02, "tau_syn": 0.01}


def neurons():
    return build.cubalif(**CUBA)


NIR = {"dialect": "nir", "time_unit": "s"}


def ones(rows, columns, bias=None):
    """Weights of 1."""
    weight = np.ones((rows, columns))
    return build.linear(weight=weight) if bias is None else build.affine(weight=weight, bias=bias)


def scales_of(graph):
    network = lower(graph)
    trained, _ = find_trainables(network, ("weight", "bias"), longest_delay=1.0)
    return step_scales(network, trained, T_END)


def wanted_bumps(bumping, solution, labels, read):
    counts = {name: spikes.count for name, spikes in solution.spikes.items()}
    cases = bumping.cases(counts, labels, read)
    return bumping.wanted({name: jnp.mean(case, axis=0) for name, case in cases.items()}, read)


@pytest.mark.parametrize(
    ("layers", "settings", "expected"),
    [
        # Dialect nir: a spike of weight w makes r I jump by r w_in w / tau_syn.
        (
            (
                build.input(2),
                ones(1, 2, 0.5),
                build.cubalif(**CUBA, r=3.0, w_in=0.5, v_threshold=2.0, v_reset=-1.0),
            ),
            NIR,
            {"1": {"weight": [[3.0 / (3.0 * 0.5 / 0.01)]], "bias": [3.0 / (3.0 * 0.5)]}},
        ),
        # Dialect nir: a spike moves V of the LI by r / tau, which the Linear multiplies by three as
        # drive of the LIF.
        (
            (
                build.input(1),
                ones(1, 1, 0.5),
                build.li(tau=0.01, r=2.0),
                build.linear(weight=np.full((1, 1), -3.0)),
                build.lif(tau=0.02, r=0.5, v_threshold=1.0, v_reset=-1.0),
            ),
            NIR,
            {
                "1": {"weight": [[4.0 / 3.0 / (2.0 / 0.01)]], "bias": [4.0 / 3.0 / 2.0]},
                "3": {"weight": [[4.0]]},
            },
        ),
        # Scales are those of the neuron of each row, also through Scale nodes.
        (
            (
                build.input(2),
                ones(2, 2),
                build.scale([4.0, -0.5]),
                build.cubalif(**CUBA, v_threshold=[1.0, 3.0]),
            ),
            {},
            {"1": {"weight": [[1 / 4], [3 / 0.5]]}},
        ),
        # Through further Linear nodes, the largest kick counts.
        (
            (
                build.input(2),
                ones(2, 2),
                build.linear(weight=np.array([[1.0, -5.0], [2.0, 0.5]])),
                build.cubalif(**CUBA),
            ),
            {},
            {"1": {"weight": [[1 / 2], [1 / 5]]}, "2": {"weight": [[1.0], [1.0]]}},
        ),
        # IF: a bias of 1 raises V by r t_end during a sample; there is no rest.
        (
            (build.input(1), ones(1, 1, 0.1), build.integrate_and_fire(r=8.0)),
            NIR | {"spike_kernel": "box", "dt": 1e-3},
            {"1": {"bias": [1 / (8.0 * T_END)]}},
        ),
    ],
    ids=["kick and lift", "a voltage that is sent on", "rows", "further Linear nodes", "IF"],
)
def test_steps_are_in_kicks_and_lifts(layers, settings, expected):
    scales = scales_of(build.sequential(*layers, **settings))
    for node, parameters in expected.items():
        for name, values in parameters.items():
            scale = scales[node][name][:, :1] if name == "weight" else scales[node][name]
            np.testing.assert_allclose(scale, values, rtol=1e-6)


@pytest.mark.parametrize(
    ("dialect", "options", "gain"),
    [
        ("jaxsnn", {}, {}),
        ("nir", {"time_unit": "s"}, {}),
        ("snntorch", {"reset": "zero"}, {"r": 0.02 / 1e-4, "w_in": 0.01 / 1e-4}),
    ],
)
def test_a_step_in_kicks_moves_the_voltage_by_as_much_in_every_dialect(dialect, options, gain):
    """A readout: its largest voltage after one spike, per kick, depends on the time constants
    alone.
    """
    layers = ones(1, 1), build.cubalif(**CUBA, **gain)
    settings = {"dialect": dialect, "readout": "2", **options}
    graph = build.sequential(build.input(1), *layers, **settings)
    kick = np.full((1, 1), float(scales_of(graph)["1"]["weight"][0, 0]))
    network = lower(graph.with_nodes([graph.nodes["1"].replace(weight=kick)]))
    event = Events(time=jnp.zeros((1, 1)), index=jnp.zeros((1, 1), jnp.int32))
    peak = float(jnp.max(simulate(network, event, T_END).voltages["2"]))
    assert peak == pytest.approx(0.25, rel=1e-3)  # k = x - x^2 at x = 1/2


def test_weights_that_reach_nothing_are_not_moved():
    nodes = {"input": build.input(1), "used": ones(1, 1), "neurons": neurons()}
    nodes |= {"after": ones(1, 1), "output": build.output()}
    graph = build.network(nodes, [("input", "used", "neurons", "after", "output")])
    assert scales_of(graph)["after"]["weight"].tolist() == [[0.0]]


def test_bumps_find_the_weights_through_scale_with_their_sign():
    first, second = (build.linear(weight=np.zeros(shape)) for shape in ((2, 2), (1, 2)))
    layers = first, build.scale([1.0, -2.0]), neurons(), second, neurons()
    network = lower(build.sequential(build.input(2), *layers))
    feeding = feeding_weights(network)
    assert feeding == (("3", (("1", (1.0, -1.0)),)), ("5", (("4", None),)))
    silent = Events(time=jnp.full((4, 1), jnp.inf), index=jnp.zeros((4, 1), jnp.int32))
    solution = simulate(network, silent, T_END)
    bumps = wanted_bumps(
        WeightBumping(label=2.0, hidden=0.5), solution, jnp.zeros(4, jnp.int32), "5"
    )
    assert {name: bump.tolist() for name, bump in bumps.items()} == {"3": [0.5, 0.5], "5": [2.0]}
    weights = {name: {"weight": jnp.zeros((rows, 2))} for name, rows in (("1", 2), ("4", 1))}
    gradient = bumped(weights, bumps, feeding)
    assert gradient["1"]["weight"].tolist() == [[-0.5, -0.5], [0.5, 0.5]]
    assert gradient["4"]["weight"].tolist() == [[-2.0, -2.0]]


def convolved(scale):
    """Two channels of 2 x 2 neurons behind a Scale, and an output."""
    kernel = {"stride": 1, "padding": 0, "dilation": 1, "groups": 1, "bias": np.zeros(2)}
    return lower(
        build.sequential(
            build.input((1, 3, 3)),
            build.node("Conv2d", weight=np.zeros((2, 1, 2, 2)), **kernel),
            build.scale(scale),
            neurons(),
            build.node("Flatten", start_dim=0, end_dim=-1),
            build.linear(weight=np.zeros((1, 8))),
            neurons(),
        )
    )


def test_channels_of_a_convolution_are_bumped_as_one():
    network = convolved(np.array([1.0, -2.0])[:, None, None] * np.ones((2, 2, 2)))
    feeding = feeding_weights(network)
    assert feeding == (("3", (("1", (1.0, -1.0)),)), ("6", (("5", None),)))
    assert channels_of(network) == (("3", 2),)
    bumps = {"3": jnp.array([0.0, 0.5]), "6": jnp.array([2.0])}
    ways = {"1": {"weight": jnp.zeros((2, 1, 2, 2))}, "5": {"weight": jnp.zeros((1, 8))}}
    raised = bumped(ways, bumps, feeding)
    assert raised["1"]["weight"].reshape(2, -1).tolist() == [[0.0] * 4, [0.5] * 4]


def test_a_channel_that_a_scale_turns_in_part_is_not_bumped():
    scale = np.ones((2, 2, 2))
    scale[0, 0, 0] = -1.0
    assert feeding_weights(convolved(scale)) == (("3", ()), ("6", (("5", None),)))


@pytest.mark.parametrize(("fraction", "bump"), [(0.2, [0.0, 0.5]), (0.6, [0.5, 0.5])])
def test_a_channel_fires_as_often_as_its_neurons_do_on_average(fraction, bump):
    """Half of the neurons of the first channel fire, and none of the second."""
    counts = jnp.array([[1, 1, 0, 0, 0, 0, 0, 0]])
    case = WeightBumping.cases({"3": counts}, jnp.array([0]), "6")["3"]
    fractions = by_channel({"3": jnp.mean(case, axis=0)}, (("3", 2),), "6")
    bumping = WeightBumping(hidden=0.5, hidden_fraction=fraction)
    assert bumping.wanted(fractions, "6")["3"].tolist() == bump


@pytest.mark.parametrize(("labels", "bump"), [([0, 1, 0, 0], 0.5), ([1, 1, 1, 0], 1.0)])
def test_only_the_silent_neuron_of_the_label_is_bumped_for_its_part_of_the_batch(labels, bump):
    """Neuron 0 fires, neuron 1 never: half of two labels' samples would be its share."""
    graph = build.sequential(
        build.input(1), build.linear(weight=np.array([[20.0], [0.0]])), neurons()
    )
    event = Events(time=jnp.zeros((4, 1)), index=jnp.zeros((4, 1), jnp.int32))
    solution = simulate(lower(graph), event, T_END)
    assert (np.asarray(solution.spikes["2"].count) > 0).tolist() == [[True, False]] * 4
    bumps = wanted_bumps(WeightBumping(label=1.0), solution, jnp.array(labels), "2")
    assert bumps["2"].tolist() == [0.0, bump]
