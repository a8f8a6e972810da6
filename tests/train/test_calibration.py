"""First weights that let a given fraction of the neurons fire, as they will fire in training."""

import numpy as np
import pytest

import jaxsnn
from jaxsnn.errors import UsageError
from jaxsnn.nir import build
from jaxsnn.nir.initializers import normal
from jaxsnn.nir.model.nodes import Linear
from jaxsnn.train import TrainOptions, calibrated, fit, splits_of_arrays, yinyang_splits
from jaxsnn.train.data.encoders import Current
from jaxsnn.train.fitting import prepare

DATA = yinyang_splits(sizes=(128, 64, 64))
END, FRACTION = 0.12, 0.6


def three_layers():
    neurons = [build.cubalif(tau_mem="20ms", tau_syn="10ms") for _ in range(3)]
    weights = [build.linear(30, weight=normal(0.2, 0.1)) for _ in range(2)]
    readout = build.linear(3, weight=normal(0.3, 0.1))
    parts = (weights[0], neurons[0], weights[1], neurons[1], readout, neurons[2])
    return build.sequential(build.input(5), *parts, seed=0)


@pytest.mark.parametrize("once", [False, True])
def test_as_many_fire_as_training_will_see(once):
    # driven by currents neurons fire again and again, unless they stop after their first spike:
    # the second layer hears a fraction of what it would
    engine = jaxsnn.EventDriven(max_spikes=64, first_spike_only=once)
    given = {"encoder": "current", "encoder_options": {"bias": True}, "t_end": END}
    graph = calibrated(three_layers(), DATA, fraction=FRACTION, engine=engine, **given)
    currents = Current(bias=True)(DATA.train.x)
    solution = engine.run(jaxsnn.lower(graph), currents, END)
    fired = [float(np.mean(np.asarray(own) > 0)) for own in solution.counts.values()]
    assert fired == pytest.approx(3 * [FRACTION], abs=0.02)


def test_convolutions_are_calibrated_too():
    kernel = {"stride": 1, "padding": 0, "dilation": 1, "groups": 1, "bias": np.zeros(4)}
    drawn = np.random.default_rng(0).normal(0.2, 0.1, (4, 1, 3, 3))
    graph = build.sequential(
        build.input((1, 8, 8)),
        build.node("Conv2d", weight=drawn, **kernel),
        build.cubalif(tau_mem="20ms", tau_syn="10ms"),
        build.node("Flatten", start_dim=0, end_dim=-1),
        build.linear(10, weight=normal(0.3, 0.1)),
        build.cubalif(tau_mem="20ms", tau_syn="10ms"),
        seed=0,
    )
    images = np.random.default_rng(1).random((64, 1, 8, 8))
    data = splits_of_arrays(images, np.arange(64) % 10)
    engine = jaxsnn.EventDriven(max_spikes=64)
    given = {"fraction": FRACTION, "t_end": END, "encoder": "current", "engine": engine}
    changed = calibrated(graph, data, **given)
    solution = engine.run(jaxsnn.lower(changed), Current()(data.train.x), END)
    fired = [float(np.mean(np.asarray(own) > 0)) for own in solution.counts.values()]
    assert fired == pytest.approx(2 * [FRACTION], abs=0.05)


def test_fit_calibrates_for_its_own_engine():
    given = {"t_end": END, "encoder": "current", "batch_size": 32, "epochs": 1, "progress": None}
    options = {"engine_options": {"max_spikes": 1, "first_spike_only": True}}
    found = fit(three_layers(), DATA, calibrate=FRACTION, **options, **given)
    silent = list(found.history[0].silent.values())
    assert silent == pytest.approx(len(silent) * [1 - FRACTION], abs=0.1)
    assert len(silent) >= 2


@pytest.mark.parametrize(
    ("engine", "message"),
    [
        (jaxsnn.EventDriven(max_spikes=[4]), r"max_spikes is \[4\] for '\d': give at least 1"),
        (jaxsnn.TimeStepped(dt=1e-3), r"the engine is TimeStepped\(.*on the event engine: pass"),
        ("event", "the engine is 'event', and weights are calibrated on the event engine"),
    ],
)
def test_an_engine_that_makes_no_sense_is_refused(engine, message):
    with pytest.raises(UsageError, match=message):
        calibrated(three_layers(), DATA, fraction=FRACTION, engine=engine, t_end=END)


def test_another_engine_that_trains_is_told_of():
    given = {"t_end": END, "epochs": 1, "progress": None, "loss": "count"}
    engine = jaxsnn.TimeStepped(dt=2e-3)
    trained = fit(three_layers(), DATA, calibrate=FRACTION, engine=engine, **given)
    assert any("another engine trains them" in note for note in trained.notes)


def test_a_chip_takes_its_scale_from_the_weights_that_it_gets(monkeypatch):
    class Seen(Exception):
        pass

    def seen(graph, options):
        raise Seen(graph)

    monkeypatch.setattr("jaxsnn.train.fitting.on_emulated_chip", seen)
    given = {"t_end": END, "epochs": 1, "progress": None}
    with pytest.raises(Seen) as found:
        fit(three_layers(), DATA, calibrate=FRACTION, engine="loop", **given)
    wanted = calibrated(three_layers(), DATA, fraction=FRACTION, t_end=END)
    weights, got_there = (
        [node.weight for node in graph.nodes.values() if isinstance(node, Linear)]
        for graph in (wanted, found.value.args[0])
    )
    assert len(weights) == 3
    for got, expected in zip(got_there, weights, strict=True):
        np.testing.assert_array_equal(got, expected)


def test_it_counts_until_the_end_of_a_sample_and_says_that_delays_are_left_out(monkeypatch):
    ends = []

    def seen(graph, data, **said):
        ends.append(said["t_end"])
        return graph

    monkeypatch.setattr("jaxsnn.train.fitting.calibrated", seen)
    graph = three_layers()
    first = next(name for name, node in graph.nodes.items() if isinstance(node, Linear))
    given = {"data": DATA, "calibrate": FRACTION, "synaptic_delays": {first: 1e-3}}
    notes = prepare(graph, TrainOptions(**given, loss_options={"t_max": 0.025})).notes
    prepare(graph, TrainOptions(**given, loss_options={"t_max": 0.025}, t_end=0.02))
    assert ends == [0.025, 0.02]
    assert any("without synaptic_delays" in note for note in notes)
