"""The end of a sample: no event of the data is left out, unless the user says when samples end."""

import dataclasses
import warnings

import numpy as np
import pytest

from jaxsnn import (
    ApproximationWarning,
    Currents,
    Events,
    GradedEvents,
    Note,
)
from jaxsnn.errors import SimulationError, UsageError
from jaxsnn.train import (
    Data,
    FirstSpike,
    Latency,
    PopulationCode,
    evaluate,
    fit,
    splits_of_arrays,
    yinyang_splits,
)
from jaxsnn.train.loop.defaults import default_end
from tests.helpers.small_task import small_net

TAU = 0.01
ONCE = {"epochs": 1, "progress": None}


def late_data(last=0.1, samples=40, kind=Events):
    """Four events in a sample, the last of all at `last`, in the test part or not."""
    rng = np.random.default_rng(0)
    time = np.sort(rng.uniform(0, last, (samples, 4)), axis=1)
    time[:, -1] = last
    index = rng.integers(0, 5, time.shape)
    more = {"value": np.ones(time.shape)} if kind is GradedEvents else {}
    return kind(time=time, index=index, **more), np.arange(samples) % 3


def late(notes):
    return [note for note in notes if isinstance(note, Note) and note.code == "late-events"]


def ends_of(trained):
    """The end of samples, that of the loss, and notes of late events."""
    settings = trained.settings
    return settings["t_end"], settings["loss"]["t_max"], len(late(trained.notes))


@pytest.mark.parametrize(
    ("kind", "options", "end", "notes"),
    [
        (Events, {}, 0.15, 0),  # ceil(10 + 4.5) tau
        (GradedEvents, {}, 0.15, 0),
        # An explicit end of the loss takes precedence.
        (Events, {"loss": FirstSpike(population="4", tau=TAU, t_max=0.065)}, 0.065, 3),
        (Events, {"loss_options": {"t_max": 0.07}}, 0.07, 3),
    ],
)
def test_no_event_is_dropped_before_the_end_that_a_loss_names(kind, options, end, notes):
    trained = fit(small_net(), late_data(kind=kind), **ONCE, **options)
    assert ends_of(trained) == (pytest.approx(end), pytest.approx(end), notes)


def test_the_last_event_may_be_in_any_part():
    early, (x, y) = splits_of_arrays(*late_data(0.05)), late_data(0.2)
    test = Data(x=x, y=y, classes=early.test.classes)
    trained = fit(small_net(), dataclasses.replace(early, test=test), **ONCE)
    assert ends_of(trained) == (pytest.approx(0.25), pytest.approx(0.25), 0)


def test_what_an_explicit_end_drops_is_counted_and_warned_of():
    data = late_data()
    with pytest.warns(ApproximationWarning) as caught:
        trained = fit(small_net(), data, t_end=0.09, **ONCE)
    assert [warning.filename for warning in caught] == [__file__]
    assert trained.settings["t_end"] == 0.09
    parts = {note.partition(":")[0]: note for note in late(trained.notes)}
    assert list(parts) == ["train", "validation", "test"]
    assert all(note.kind == "dropped" for note in parts.values())
    time = np.asarray(splits_of_arrays(*data, seed=0).test.x.time)
    assert f"{(time >= 0.09).sum()} of {time.size} events" in parts["test"]


@pytest.mark.parametrize(
    ("x", "encoder", "end"),
    [
        (late_data(0.0649)[0], None, 6.5),
        (late_data(0.065)[0], None, 11.0),
        (late_data(0.1)[0], None, 15.0),
        (np.zeros((3, 4)), Latency(t_min=0.0, t_max=0.02), 6.5),
        (np.zeros((3, 4)), Latency(t_min=0.0, t_max=0.08), 13.0),
        (np.zeros((3, 4)), Latency(t_min=0.0, t_max=0.02, clock=(0.09,)), 14.0),
        (np.zeros((3, 40, 2)), PopulationCode(centres=(0.0, 1.0), frame=2.5e-3), 15.0),
        (np.zeros((3, 4)), lambda values: late_data(0.1, len(values))[0], 15.0),
        (np.zeros((3, 100, 4)), None, 6.5),  # arrays in steps have their own end
        (Currents.held(np.ones((100, 3, 4)), dt=1e-3), None, 15.0),  # 0 after 100 ms
        (Currents(time=[[0.0, 0.1]], value=np.ones((1, 2, 4))), None, 15.0),
        (Events(time=np.full((3, 4), np.inf), index=np.zeros((3, 4), int)), None, 6.5),
    ],
)
def test_the_end_follows_the_last_event(x, encoder, end):
    data = Data(x=x, y=np.zeros(3, np.int32), classes=("a",))
    assert default_end([data], TAU, encoder) == pytest.approx(end * TAU)


def test_a_task_that_knows_its_length_keeps_it():
    data = Data(x=late_data(0.05)[0], y=np.zeros(40, np.int32), classes=("a",))
    assert default_end([data], TAU, None, span=9.0) == pytest.approx(0.09)


def test_the_usual_task_ends_as_before():
    data = yinyang_splits(0, (64, 32, 32))
    assert fit(small_net(), data, **ONCE).settings["t_end"] == pytest.approx(0.065)


def test_evaluation_drops_nothing_either():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        evaluate(small_net(), late_data())
    with pytest.warns(ApproximationWarning, match="data: 40 of 160 events"):
        evaluate(small_net(), late_data(), t_end=0.1)


# -- times in milliseconds that are passed as seconds


def test_samples_of_thousands_of_time_constants_name_the_unit():
    times = np.sort(np.random.default_rng(0).uniform(0, 60, (30, 5)))
    events = Events(time=times, index=np.tile(np.arange(5), (30, 1)))
    data, graph = (events, np.arange(30) % 3), small_net()
    with warnings.catch_warnings(record=True) as issued:
        warnings.simplefilter("always")
        assert evaluate(graph, data) == 0
    (warning,) = issued
    assert len(str(warning.message).splitlines()) == 2  # the duration, and silent outputs
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(SimulationError, match="samples last"):
            fit(graph, data, **ONCE)
        trained = fit(graph, "yinyang", t_end=65.0, **ONCE)
    assert "times-in-seconds" in [getattr(note, "code", "") for note in trained.notes]


@pytest.mark.parametrize("data", ["yinyang", yinyang_splits(sizes=(30, 30, 30))], ids=type)
def test_evaluate_advises_on_names_and_splits(data):
    with pytest.raises(UsageError, match=r"\.test"):
        evaluate(small_net(), data)
