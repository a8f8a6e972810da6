"""`fit` with default options: the engine and the loss follow from the network and the data."""

import numpy as np
import pytest

from jaxsnn import Events, Note
from jaxsnn.errors import UsageError
from jaxsnn.nir import build
from jaxsnn.nir.initializers import normal
from jaxsnn.train import TrainingStopped, evaluate, fit
from tests.helpers.refusals import assert_refused
from tests.helpers.small_task import small_net

DT = 1e-3
ONCE = {"epochs": 1, "progress": None, "batch_size": 16}
SNNTORCH = {"dialect": "snntorch", "reset": "subtract", "reset_delay": True, "dt": DT}
SPIKINGJELLY = {"dialect": "spikingjelly", "reset": "zero", "dt": DT}


def net(neurons=None, middle=(), shape=(5,), **more):
    """Two layers of neurons with weights, in steps."""
    neurons = build.lif(tau=DT / 0.2, r=1 / 0.2) if neurons is None else neurons
    first, second = (build.linear(size, weight=normal(0.4, 0.5)) for size in (12, 3))
    layers = [build.input(shape), *middle, first, neurons, second, neurons]
    return build.sequential(*layers, seed=1, **(SNNTORCH | more))


def pooled():
    """The largest spike of windows: a Threshold, which the event engine does not run."""
    middle = (
        build.lif(tau=DT / 0.2, r=1 / 0.2),
        build.node("SumPool2d", kernel_size=2, stride=2, padding=0),
        build.node("Threshold", threshold=0.5),
        build.node("Flatten", start_dim=0, end_dim=-1),
    )
    return net(middle=middle, shape=(1, 6, 6))


def in_steps(shape=(5,), samples=48):
    """Values between 0 and 1, (samples, time, *shape)."""
    rng = np.random.default_rng(0)
    return rng.random((samples, 10, *shape)).astype(np.float32), np.arange(samples) % 3


def codes(trained):
    return [note.code for note in trained.notes if isinstance(note, Note)]


@pytest.mark.parametrize(
    ("make", "loss"),
    [
        (net, "count"),
        (lambda: net(readout=["4"]), "max"),
        (lambda: net(build.integrate_and_fire(r=1 / DT), **SPIKINGJELLY), "count"),
    ],
)
def test_arrays_in_time_steps_are_trained_in_time_steps(make, loss):
    graph, data = make(), in_steps()
    trained = fit(graph, data, **ONCE)
    assert trained.settings["engine"]["name"] == "TimeStepped"
    assert trained.settings["loss"]["name"] == loss
    assert trained.settings["t_end"] == pytest.approx(10 * DT)
    assert codes(trained)[:2] == ["default-engine", "default-loss"]
    named = fit(graph, data, **ONCE, engine="grid", loss=loss)
    assert named.history == trained.history
    assert not {"default-engine", "default-loss"} & {*codes(named)}
    assert 0 <= evaluate(trained.graph, data) <= 1


def test_a_network_that_the_event_engine_does_not_run_is_trained_in_time_steps():
    rng = np.random.default_rng(0)
    events = Events.of_steps(rng.random((20, 48, 36)) < 0.5, dt=DT)
    trained = fit(pooled(), (events, np.arange(48) % 3), **ONCE)
    assert trained.settings["engine"]["name"] == "TimeStepped"
    (note,) = [note for note in trained.notes if getattr(note, "code", "") == "default-engine"]
    assert "Threshold" in note


def test_events_and_static_values_are_trained_event_by_event():
    rng = np.random.default_rng(0)
    events = Events.of_steps(rng.random((20, 48, 5)) < 0.3, dt=DT)
    for graph, x in ((net(), events), (small_net(), rng.random((48, 5)))):
        trained = fit(graph, (x, np.arange(48) % 3), **ONCE, skip_step_accuracy=True)
        assert trained.settings["engine"]["name"] == "EventDriven"
        assert "default-engine" not in codes(trained)


def test_options_of_the_engine_that_is_not_chosen_are_refused():
    trained = fit(net(), in_steps(), **ONCE, surrogate="atan:3")
    assert trained.settings["engine"]["name"] == "TimeStepped"
    assert_refused(
        lambda: fit(net(), in_steps(), **ONCE, engine_options={"min_slope": 0.1}),
        UsageError,
        'engine_options requires engine="event" or "loop", and the engine is grid',
    )
    events = Events.of_steps(np.ones((20, 48, 5)), dt=DT), np.arange(48) % 3
    assert_refused(
        lambda: fit(net(), events, **ONCE, surrogate="atan:3"),
        UsageError,
        "the engine is event",
    )


def test_ten_time_steps_stand_for_a_missing_time_constant():
    events = Events.of_steps(np.ones((20, 48, 5)), dt=DT), np.arange(48) % 3
    trained = fit(net(build.integrate_and_fire(r=1 / DT), **SPIKINGJELLY), events, **ONCE)
    assert trained.settings["loss"]["tau"] == pytest.approx(10 * DT)
    code = "replaced-time-constant"
    [note] = [note for note in trained.notes if getattr(note, "code", "") == code]
    assert note.facts["population"] == "4"
    trained = fit(net(), events, **ONCE)
    assert all(getattr(note, "code", "") != code for note in trained.notes)


def test_advice_for_silent_outputs_in_time_steps_does_not_name_calibration():
    graph, (x, y) = net(), in_steps()
    with pytest.raises(TrainingStopped) as caught:
        fit(graph, (x * 0, y), **ONCE)
    assert "use larger input weights, or lower" in str(caught.value)
