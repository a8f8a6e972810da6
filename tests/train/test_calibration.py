"""First weights that let a given fraction of the neurons fire, as they will fire in training."""

import numpy as np
import pytest

import jaxsnn
from jaxsnn.errors import UsageError
from jaxsnn.nir import build
from jaxsnn.nir.initializers import normal
from jaxsnn.train import TrainOptions, calibrated, fit, splits_of_arrays, yinyang_splits
from jaxsnn.train.data.encoders import Current
from jaxsnn.train.fitting import prepare
from tests.helpers.refusals import assert_refused

DATA = yinyang_splits(sizes=(128, 64, 64))
END, FRACTION = 0.12, 0.6


NEURONS = build.cubalif(tau_mem="20ms", tau_syn="10ms")


def three_layers():
    hidden, readout = (
        build.linear(size, weight=normal(mean, 0.1)) for size, mean in ((30, 0.2), (3, 0.3))
    )
    layers = hidden, NEURONS, hidden, NEURONS, readout, NEURONS
    return build.sequential(build.input(5), *layers, seed=0)


def assert_fractions(graph, inputs, engine, tolerance):
    """Fail unless the calibrated fraction of neurons fires in each population."""
    counts = engine.run(jaxsnn.lower(graph), inputs, END).counts.values()
    fired = [float(np.mean(np.asarray(count) > 0)) for count in counts]
    assert fired == pytest.approx(len(fired) * [FRACTION], abs=tolerance)


@pytest.mark.parametrize("once", [False, True])
def test_as_many_fire_as_training_will_see(once):
    # With currents, neurons fire repeatedly; if they stop after their first spike, the second layer
    # receives far fewer spikes.
    engine = jaxsnn.EventDriven(max_spikes=64, first_spike_only=once)
    options = {"encoder": "current", "encoder_options": {"bias": True}, "t_end": END}
    graph = calibrated(three_layers(), DATA, fraction=FRACTION, engine=engine, **options)
    assert_fractions(graph, Current(bias=True)(DATA.train.x), engine, 0.02)


def test_convolutions_are_calibrated_too():
    kernel = {"stride": 1, "padding": 0, "dilation": 1, "groups": 1, "bias": np.zeros(4)}
    weight = np.random.default_rng(0).normal(0.2, 0.1, (4, 1, 3, 3))
    graph = build.sequential(
        build.input((1, 8, 8)),
        build.node("Conv2d", weight=weight, **kernel),
        NEURONS,
        build.node("Flatten", start_dim=0, end_dim=-1),
        build.linear(10, weight=normal(0.3, 0.1)),
        NEURONS,
        seed=0,
    )
    images = np.random.default_rng(1).random((64, 1, 8, 8))
    data = splits_of_arrays(images, np.arange(64) % 10)
    engine = jaxsnn.EventDriven(max_spikes=64)
    options = {"fraction": FRACTION, "t_end": END, "encoder": "current", "engine": engine}
    graph = calibrated(graph, data, **options)
    assert_fractions(graph, Current()(data.train.x), engine, 0.05)


def fitted(**options):
    """Train three layers that are calibrated for one epoch."""
    settings = {"calibrate": FRACTION, "t_end": END, "epochs": 1, "progress": None}
    return fit(three_layers(), DATA, **settings, **options)


def test_fit_calibrates_for_its_own_engine():
    engine_options = {"max_spikes": 1, "first_spike_only": True}
    trained = fitted(encoder="current", batch_size=32, engine_options=engine_options)
    silent = list(trained.history[0].silent.values())
    assert silent == pytest.approx(len(silent) * [1 - FRACTION], abs=0.1)
    assert len(silent) >= 2


@pytest.mark.parametrize(
    ("engine", "message"),
    [
        (
            jaxsnn.EventDriven(max_spikes=[4]),
            r"max_spikes is \[4\] for '\d': pass an integer of at least 1",
        ),
        (
            jaxsnn.TimeStepped(dt=1e-3),
            r"the engine is TimeStepped\(.*requires the event engine: pass",
        ),
        ("event", "the engine is 'event', and calibration requires the event engine"),
    ],
)
def test_an_engine_that_makes_no_sense_is_refused(engine, message):
    assert_refused(
        lambda: calibrated(three_layers(), DATA, fraction=FRACTION, engine=engine, t_end=END),
        UsageError,
        message,
    )


def test_another_engine_that_trains_is_noted():
    trained = fitted(loss="count", engine=jaxsnn.TimeStepped(dt=2e-3))
    assert any("another engine trains it" in note for note in trained.notes)


def test_a_chip_takes_its_scale_from_the_weights_that_it_gets(monkeypatch):
    class Seen(Exception):
        pass

    def see(graph, options):
        raise Seen(graph)

    monkeypatch.setattr("jaxsnn.train.fitting.on_emulated_chip", see)
    with pytest.raises(Seen) as seen:
        fitted(engine="loop")
    expected = calibrated(three_layers(), DATA, fraction=FRACTION, t_end=END)
    for node in ("1", "3", "5"):
        weight, expected_weight = (
            graph.nodes[node].weight for graph in (seen.value.args[0], expected)
        )
        np.testing.assert_array_equal(weight, expected_weight)


def test_calibration_counts_to_the_end_of_a_sample_and_notes_omitted_delays(monkeypatch):
    ends = []

    def record(graph, data, **options):
        ends.append(options["t_end"])
        return graph

    monkeypatch.setattr("jaxsnn.train.fitting.calibrated", record)
    settings = {"data": DATA, "calibrate": FRACTION, "synaptic_delays": {"1": 1e-3}}
    settings |= {"loss_options": {"t_max": 0.025}}
    for options in ({}, {"t_end": 0.02}):
        notes = prepare(three_layers(), TrainOptions(**settings, **options)).notes
        assert any("without synaptic_delays" in note for note in notes)
    assert ends == [0.025, 0.02]


def test_events_after_the_end_of_a_sample_cause_a_warning():  # in the 42 training samples
    rng = np.random.default_rng(0)
    time = rng.uniform(0, END, (64, 5)).astype(np.float32)
    time[:, -1] = 1.5 * END
    events = jaxsnn.Events(time=time, index=np.tile(np.arange(5), (64, 1)))
    with pytest.warns(jaxsnn.ApproximationWarning, match="42 of 210 events are"):
        calibrated(three_layers(), (events, np.arange(64) % 3), t_end=END)


@pytest.mark.parametrize(
    "run",
    [
        calibrated,
        lambda graph, data: fit(
            graph, data, calibrate=FRACTION, engine=jaxsnn.TimeStepped(dt=1e-3), progress=None
        ),
    ],
    ids=["calibrated", "fit"],
)
def test_arrays_in_time_steps_are_refused_with_the_reason(run):
    data = (np.zeros((30, 7, 5)), np.arange(30) % 3)
    assert_refused(
        lambda: run(three_layers(), data),
        UsageError,
        "calibration runs the event engine",
        fix=r"Events.of_steps(x, dt)",
    )
