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


def scales_of(graph):
    network = lower(graph)
    trained = find_trainables(network, ("weight", "bias"), longest_delay=1.0).constraints
    return step_scales(network, trained, T_END)


def wanted_bumps(bumping, solution, labels, read):
    counts = {name: spikes.count for name, spikes in solution.spikes.items()}
    cases = bumping.cases(counts, labels, read)
    return bumping.wanted({name: jnp.mean(case, axis=0) for name, case in cases.items()}, read)


def neurons(**changes):
    return build.cubalif(**({"tau_mem": 0.02, "tau_syn": 0.01} | changes))


def test_the_kick_is_the_jump_of_the_drive_over_the_threshold():
    """Dialect nir: a spike of weight w makes r I jump by r w_in w / tau_syn."""
    graph = build.sequential(
        build.input(2),
        build.affine(1, weight=np.ones((1, 2)), bias=0.5),
        neurons(r=3.0, w_in=0.5, v_threshold=2.0, v_reset=-1.0),
        dialect="nir",
        time_unit="s",
    )
    scales = scales_of(graph)["1"]
    assert scales["weight"] == pytest.approx(np.full((1, 1), 3.0 / (3.0 * 0.5 / 0.01)))
    assert scales["bias"] == pytest.approx(np.full(1, 3.0 / (3.0 * 0.5)))


def test_a_voltage_that_is_sent_on_counts_by_what_it_does_behind():
    """Dialect nir: a spike moves the LI by r / tau, of which the Linear makes three times as much
    drive of the LIF.
    """
    graph = build.sequential(
        build.input(1),
        build.affine(1, weight=np.ones((1, 1)), bias=0.5),
        build.li(tau=0.01, r=2.0),
        build.linear(weight=np.full((1, 1), -3.0)),
        build.lif(tau=0.02, r=0.5, v_threshold=1.0, v_reset=-1.0),
        dialect="nir",
        time_unit="s",
    )
    scales = scales_of(graph)
    assert scales["3"]["weight"] == pytest.approx(np.full((1, 1), 2.0 / 0.5))
    assert scales["1"]["weight"] == pytest.approx(np.full((1, 1), 2.0 / 0.5 / 3.0 / (2.0 / 0.01)))
    assert scales["1"]["bias"] == pytest.approx(np.full(1, 2.0 / 0.5 / 3.0 / 2.0))


def test_a_step_in_kicks_moves_the_voltage_by_as_much_in_every_dialect():
    """A readout: its largest voltage after one spike, per kick, depends on the time constants
    alone.
    """
    peaks = []
    for dialect, options, gain in (
        ("jaxsnn", {}, {}),
        ("nir", {"time_unit": "s"}, {}),
        ("snntorch", {"reset": "zero"}, {"r": 0.02 / 1e-4, "w_in": 0.01 / 1e-4}),
    ):
        weights, layer = (
            build.linear(weight=np.ones((1, 1))),
            build.cubalif(tau_mem=0.02, tau_syn=0.01, **gain),
        )
        graph = build.sequential(
            build.input(1), weights, layer, dialect=dialect, readout="2", **options
        )
        scale = float(scales_of(graph)["1"]["weight"][0, 0])
        graph = graph.with_nodes([graph.nodes["1"].replace(weight=np.full((1, 1), scale))])
        event = Events(time=jnp.zeros((1, 1)), index=jnp.zeros((1, 1), jnp.int32))
        peaks.append(float(jnp.max(simulate(lower(graph), event, T_END).voltages["2"])))
    assert peaks == pytest.approx([0.25] * 3, rel=1e-3)  # k = x - x^2 at x = 1/2


def test_scales_follow_the_neuron_of_each_row_and_pass_scale_nodes():
    graph = build.sequential(
        build.input(2),
        build.linear(weight=np.ones((2, 2))),
        build.scale([4.0, -0.5]),
        neurons(v_threshold=[1.0, 3.0]),
    )
    assert scales_of(graph)["1"]["weight"][:, 0] == pytest.approx([1 / 4, 3 / 0.5])


def test_behind_further_linear_nodes_the_largest_kick_counts():
    second = np.array([[1.0, -5.0], [2.0, 0.5]])
    graph = build.sequential(
        build.input(2), build.linear(weight=np.ones((2, 2))), build.linear(weight=second), neurons()
    )
    scales = scales_of(graph)
    assert scales["1"]["weight"][:, 0] == pytest.approx([1 / 2, 1 / 5])
    assert scales["2"]["weight"][:, 0] == pytest.approx([1, 1])


def test_weights_that_reach_nothing_are_not_moved():
    graph = build.network(
        {
            "input": build.input(1),
            "used": build.linear(weight=np.ones((1, 1))),
            "neurons": neurons(),
            "after": build.linear(weight=np.ones((1, 1))),
            "output": build.output(),
        },
        [("input", "used", "neurons", "after", "output")],
    )
    assert scales_of(graph)["after"]["weight"].tolist() == [[0.0]]


def test_integrate_and_fire_has_a_lift_too():
    """IF: a bias of 1 lets V rise by r t_end during a sample, there is no voltage at rest."""
    graph = build.sequential(
        build.input(1),
        build.affine(1, weight=np.ones((1, 1)), bias=0.1),
        build.integrate_and_fire(r=8.0),
        dialect="nir",
        time_unit="s",
        spike_kernel="box",
        dt=1e-3,
    )
    assert scales_of(graph)["1"]["bias"] == pytest.approx([1 / (8.0 * T_END)])


def test_bumps_find_the_weights_through_scale_with_their_sign():
    graph = build.sequential(
        build.input(2),
        build.linear(weight=np.zeros((2, 2))),
        build.scale([1.0, -2.0]),
        neurons(),
        build.linear(weight=np.zeros((1, 2))),
        neurons(),
    )
    network = lower(graph)
    feeding = feeding_weights(network)
    assert feeding == (("3", (("1", (1.0, -1.0)),)), ("5", (("4", None),)))

    silent = Events(time=jnp.full((4, 1), jnp.inf), index=jnp.zeros((4, 1), jnp.int32))
    solution = simulate(network, silent, T_END)
    bumping = WeightBumping(label=2.0, hidden=0.5)
    wanted = wanted_bumps(bumping, solution, jnp.zeros(4, jnp.int32), "5")
    assert wanted["3"].tolist() == [0.5, 0.5]
    assert wanted["5"].tolist() == [2.0]
    gradient = bumped(
        {name: {"weight": jnp.zeros((n, 2))} for name, n in (("1", 2), ("4", 1))}, wanted, feeding
    )
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
    wanted = {"3": jnp.array([0.0, 0.5]), "6": jnp.array([2.0])}
    ways = {"1": {"weight": jnp.zeros((2, 1, 2, 2))}, "5": {"weight": jnp.zeros((1, 8))}}
    raised = bumped(ways, wanted, feeding)
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
    wanted = wanted_bumps(WeightBumping(label=1.0), solution, jnp.array(labels), "2")
    assert wanted["2"].tolist() == [0.0, bump]
