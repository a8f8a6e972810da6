"""NeuroBench metrics of runs in continuous time, against plain loops over events and weights.

Those of time steps are compared with the package itself in tests/interop/test_neurobench.py.
"""

import jax
import numpy as np
import pytest

import jaxsnn
from jaxsnn import Currents, EventDriven, Events, TimeStepped, lower, neurobench, simulate
from jaxsnn.errors import SimulationError, UsageError
from jaxsnn.network.valued_inputs import GradedEvents
from jaxsnn.nir import build
from jaxsnn.simulation.neurobench import OperationCounter, _active_steps
from tests.helpers.command_line import DEMO_NET
from tests.helpers.refusals import assert_refused

T_END, DT = 60e-3, 2e-3


def neurons(size=None):
    return build.cubalif(size, tau_mem="20ms", tau_syn="10ms")


def sparse(seed, shape, zeros=0.4):
    rng = np.random.default_rng(seed)
    return rng.normal(3.0, 1.0, shape) * (rng.random(shape) >= zeros)


def events_of(seed, channels, samples=3, count=12):
    rng = np.random.default_rng(seed)
    time = np.sort(rng.uniform(0, 0.05, (samples, count)), axis=1)
    time[0, -2:] = np.inf, 0.2  # one unused, one after the end
    return Events(time=time, index=rng.integers(0, channels, time.shape))


def recurrent_net():
    nodes = {
        "in": build.input(4),
        "w1": build.linear(weight=sparse(0, (6, 4))),
        "hidden": neurons(),
        "back": build.affine(weight=sparse(1, (6, 6)) * 0.1, bias=np.zeros(6)),
        "w2": build.linear(weight=sparse(2, (3, 6))),
        "last": neurons(),
        "out": build.output(),
    }
    edges = [
        *(("in", "w1"), ("w1", "hidden"), ("hidden", "back"), ("back", "hidden")),
        *(("hidden", "w2"), ("w2", "last"), ("last", "out")),
    ]
    return build.network(nodes, edges)


def spikes_of(solution, name):
    """Yield (sample, neuron, time) of each spike."""
    times = np.asarray(solution.spikes[name].time)
    for sample, neuron, slot in np.argwhere(np.isfinite(times)):
        yield sample, neuron, times[sample, neuron, slot]


def test_events_are_counted_with_the_nonzero_weights_that_they_reach():
    network, events = lower(recurrent_net()), events_of(3, 4)
    solution = simulate(network, events, T_END)
    metrics = neurobench(network, solution, events, dt=DT)
    weights = {
        name: np.asarray(network.parameters[name]["weight"]) for name in ("w1", "back", "w2")
    }
    operations, active = 0, set()
    for sample in range(3):
        for time, channel in zip(events.time[sample], events.index[sample], strict=True):
            if time < T_END:
                operations += sum(weight != 0 for weight in weights["w1"][:, channel])
    for sample, neuron, time in spikes_of(solution, "hidden"):
        operations += sum(weight != 0 for weight in weights["back"][:, neuron])
        operations += sum(weight != 0 for weight in weights["w2"][:, neuron])
        active.add(("hidden", sample, neuron, int(time / DT)))
    for sample, neuron, time in spikes_of(solution, "last"):
        active.add(("last", sample, neuron, int(time / DT)))
    assert len(active) > 20
    assert metrics.effective_acs == pytest.approx(operations / 3, rel=1e-12)
    assert metrics.effective_macs == 0
    assert (metrics.samples, metrics.steps, metrics.notes) == (3, 30, ())
    assert metrics.dense == 30 * (6 * 4 + 6 * 6 + 3 * 6)
    assert metrics.activation_sparsity == pytest.approx(1 - len(active) / (9 * 3 * 30), rel=1e-12)
    zeros = sum((weight == 0).sum() for weight in weights.values())
    assert metrics.connection_sparsity == pytest.approx(zeros / 78, rel=1e-12)
    # 78 weights, 6 biases, and 7 numbers for each of two populations, 4 bytes each
    assert (metrics.weight_bytes, metrics.footprint) == (4 * 84, 4 * (84 + 14))


def test_in_time_steps_a_spike_reaches_earlier_neurons_one_step_later():
    """Of a loop of two populations only the first is fed from outside."""
    weights = {"w1": sparse(7, (5, 2)), "w2": sparse(8, (4, 5)), "back": sparse(9, (5, 4))}
    nodes = {name: build.linear(weight=weight) for name, weight in weights.items()}
    nodes |= {"in": build.input(2), "a": neurons(), "b": neurons(), "out": build.output()}
    edges = ["in w1", "w1 a", "a w2", "w2 b", "b back", "back a", "b out"]
    graph = build.network(nodes, [tuple(edge.split()) for edge in edges])
    x = (np.random.default_rng(0).random((20, 3, 2)) < 0.5).astype(np.float32)
    solution = simulate(graph, x, engine=TimeStepped(record=True, dt=5e-3))
    spikes = {"in": x} | {name: np.asarray(array) for name, array in solution.spikes.items()}
    assert spikes["b"][-1].any()
    sent = {"w1": spikes["in"], "w2": spikes["a"], "back": spikes["b"][:-1]}
    operations = 0
    for name, raster in sent.items():
        for *_, channel in np.argwhere(raster):
            operations += sum(weight != 0 for weight in weights[name][:, channel])
    metrics = neurobench(graph, solution, x)
    assert metrics.effective_acs == pytest.approx(operations / 3, rel=1e-12)
    assert metrics.dense == 20 * (5 * 2 + 4 * 5 + 5 * 4)


def test_without_a_time_step_two_metrics_are_none_with_a_reason():
    network, events = lower(recurrent_net()), events_of(3, 4)
    metrics = neurobench(network, simulate(network, events, T_END), events)
    assert (metrics.dense, metrics.activation_sparsity, metrics.steps) == (None, None, None)
    assert len(metrics.notes) == 1
    assert metrics.as_dict()["synaptic_operations"]["dense"] is None


def test_convolutions_behind_pools_count_taps_inside_the_image():
    kernel = sparse(4, (4, 1, 3, 3))
    graph = build.sequential(
        build.input((2, 8, 8)),
        build.node(
            "AvgPool2d",
            kernel_size=np.array([2, 2]),
            stride=np.array([2, 2]),
            padding=np.array([0, 0]),
        ),
        build.node(
            "Conv2d",
            input_shape=np.array([4, 4]),
            weight=kernel,
            stride=np.array([2, 2]),
            padding=np.array([1, 1]),
            dilation=np.array([1, 1]),
            groups=np.array(2),
            bias=np.zeros(4),
        ),
        neurons(),
    )
    network, events = lower(graph), events_of(5, 2 * 8 * 8)
    metrics = neurobench(network, simulate(network, events, T_END), events, dt=DT)
    operations = 0
    for time, place in zip(events.time.flat, events.index.flat, strict=True):
        if time >= T_END:
            continue
        channel, row, column = np.unravel_index(place, (2, 8, 8))
        for output, tap_row, tap_column in np.ndindex(4, 3, 3):
            # an output pixel o is connected with input pixel 2 o - 1 + tap
            place_of_output = (row // 2 + 1 - tap_row, column // 2 + 1 - tap_column)
            inside = all(pixel % 2 == 0 and 0 <= pixel < 4 for pixel in place_of_output)
            same_group = output // 2 == channel
            operations += inside and same_group and kernel[output, 0, tap_row, tap_column] != 0
    # the mean over four pixels turns each spike into a quarter
    assert operations > 50
    assert (metrics.effective_macs, metrics.effective_acs) == (pytest.approx(operations / 3), 0)
    taps = (
        sum(0 <= 2 * row - 1 + tap < 4 for row in range(2) for tap in range(3)) ** 2
    )  # pairs of an output pixel and a tap inside the image
    assert metrics.dense == 30 * taps * 4
    assert metrics.weight_bytes == 4 * kernel.size  # without the bias of zeros


def test_a_value_of_an_event_makes_it_a_multiplication():
    graph = build.sequential(
        build.input(2), build.linear(weight=[[1.0, 2.0], [3.0, 0.0]]), neurons()
    )
    network = lower(graph)
    graded = GradedEvents(
        time=np.array([[0.0, 0.01, 0.02, 0.03]]),
        index=np.array([[0, 0, 1, 1]]),
        value=np.array([[1.0, 0.5, -1.0, 0.0]]),
    )
    metrics = neurobench(network, simulate(network, graded, T_END), graded)
    assert (metrics.effective_acs, metrics.effective_macs) == (2 + 1, 2)


def test_a_piece_of_a_current_is_one_multiplication_for_each_weight():
    graph = build.sequential(
        build.input(2), build.linear(weight=[[1.0, 2.0], [3.0, 0.0]]), neurons()
    )
    network = lower(graph)
    currents = Currents(time=np.array([[0.0, 0.01]]), value=np.array([[[0.5, 0.0], [0.25, 0.5]]]))
    metrics = neurobench(network, simulate(network, currents, T_END), currents)
    assert (metrics.effective_acs, metrics.effective_macs) == (0, 2 + 2 + 1)


def test_what_a_delay_moves_past_the_end_is_not_counted():
    graph = build.sequential(
        build.input(2),
        build.delay(np.array([5e-3, 50e-3])),
        build.linear(weight=sparse(6, (4, 2), zeros=0)),
        neurons(),
    )
    network = lower(graph)
    events = Events(time=np.array([[0.0, 20e-3, 20e-3]]), index=np.array([[1, 0, 1]]))
    metrics = neurobench(network, simulate(network, events, T_END), events)
    assert metrics.effective_acs == 2 * 4


def test_parameters_of_single_neurons_count_one_by_one():
    layer = build.lif(3, tau=np.array([0.01, 0.02, 0.03]), v_threshold=1.0)
    graph = build.sequential(build.input(2), build.linear(weight=np.ones((3, 2))), layer)
    network = lower(graph)
    events = events_of(0, 2)
    metrics = neurobench(network, simulate(network, events, T_END), events)
    numbers = network.parameters["2"]
    assert metrics.footprint - metrics.weight_bytes == 4 * (3 + len(numbers) - 1)


def test_other_weights_are_reported_as_not_counted():
    graph = build.sequential(
        build.input(2),
        build.scale(np.array([2.0, 3.0])),
        build.linear(weight=np.ones((3, 2))),
        neurons(),
    )
    network, events = lower(graph), events_of(0, 2)
    metrics = neurobench(network, simulate(network, events, T_END), events, dt=DT)
    assert len(metrics.notes) == 1
    assert "'1'" in metrics.notes[0]
    assert (metrics.effective_acs, metrics.effective_macs > 0) == (
        0,
        True,
    )  # spikes of size 2 and 3


def test_operations_do_not_depend_on_the_samples_that_run_together():
    layers = build.linear(weight=sparse(0, (10, 6))), neurons()
    graph = build.sequential(build.input(6), *layers)
    engine = TimeStepped(record=True, dt=5e-3)
    x = (np.random.default_rng(1).random((20, 4, 6)) < 0.3).astype(np.float32)
    x[3, 2] *= 0.5  # one step of one sample
    together, apart = (OperationCounter.of(graph) for _ in range(2))
    together.add(simulate(graph, x, engine=engine), x)
    for number in range(4):
        sample = x[:, number : number + 1]
        apart.add(simulate(graph, sample, engine=engine), sample)
    assert together.metrics() == apart.metrics()
    fan_out = np.count_nonzero(graph.nodes["1"].value("weight"), axis=0)
    assert x[3, 2].any()
    assert together.metrics().effective_macs == (x[3, 2] != 0) @ fan_out / 4
    assert together.metrics().operations == (x != 0).sum(axis=(0, 1)) @ fan_out / 4


def test_refusals():
    network = lower(recurrent_net())
    events = events_of(3, 4)
    solution = simulate(network, events, T_END)
    assert_refused(lambda: neurobench(network, solution, events, dt=-1.0), UsageError, "dt")
    assert_refused(lambda: neurobench(network, solution.spikes, events), UsageError, "dict")
    assert_refused(lambda: neurobench(solution, network, events), UsageError, "EventSolution")
    failed = simulate(network, events, T_END, engine=EventDriven(max_spikes=1), throw=False)
    assert_refused(lambda: neurobench(network, failed, events), SimulationError)

    def traced(time):
        run = simulate(network, Events(time=time, index=events.index), T_END, throw=False)
        return neurobench(network, run, events).effective_acs

    assert_refused(lambda: jax.jit(traced)(events.time), UsageError, "traced")
    fewer = events_of(3, 4, samples=2)
    assert_refused(lambda: neurobench(network, solution, fewer), UsageError, "2.*3")
    graph = jaxsnn.read(DEMO_NET, dialect="snntorch", reset="zero", reset_delay=True)
    x = np.zeros((5, 1, 5))
    unrecorded = simulate(graph, x, engine=TimeStepped())
    assert_refused(lambda: neurobench(graph, unrecorded, x), UsageError, node="lif1")
    recorded = simulate(graph, x, engine=TimeStepped(record=True))
    assert_refused(lambda: neurobench(graph, recorded, np.zeros((5, 2, 5))), UsageError, "2.*1")
    assert_refused(
        lambda: neurobench(graph, recorded, np.zeros((4, 1, 5))), UsageError, "time steps"
    )


def test_times_on_the_grid_are_in_the_step_that_they_begin():
    multiples = np.arange(60) * 1e-3
    assert _active_steps(multiples[None, None], 1e-3, 60) == 60
