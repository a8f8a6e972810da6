"""The end of a sample: no event of the data is left out, unless the user says when samples end."""

import warnings

import numpy as np
import pytest

from jaxsnn import ApproximationWarning, Currents, Events, GradedEvents, Note
from jaxsnn.train import (
    Data,
    FirstSpike,
    Latency,
    PopulationCode,
    Splits,
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


@pytest.mark.parametrize("kind", [Events, GradedEvents])
def test_no_event_is_dropped(kind):
    found = fit(small_net(), late_data(kind=kind), **ONCE)
    assert found.settings["t_end"] == pytest.approx(0.15)  # ceil(10 + 4.5) tau
    assert found.settings["loss"]["t_max"] == found.settings["t_end"]
    assert late(found.notes) == []


def test_the_last_event_may_be_in_any_part():
    x, y = late_data(0.05)
    early = splits_of_arrays(x, y)
    x, y = late_data(0.2)
    splits = Splits(
        name="own",
        train=early.train,
        validation=early.validation,
        test=Data(x=x, y=y, classes=early.test.classes),
    )
    found = fit(small_net(), splits, **ONCE)
    assert found.settings["t_end"] == pytest.approx(0.25)
    assert late(found.notes) == []


def test_what_an_explicit_end_drops_is_counted_and_warned_of():
    data = late_data()
    with pytest.warns(ApproximationWarning) as caught:
        found = fit(small_net(), data, t_end=0.09, **ONCE)
    assert len(caught) == 1
    assert caught[0].filename == __file__
    assert found.settings["t_end"] == 0.09
    parts = {note.partition(":")[0]: note for note in late(found.notes)}
    assert list(parts) == ["train", "validation", "test"]
    assert all(note.kind == "dropped" for note in parts.values())
    time = np.asarray(splits_of_arrays(*data, seed=0).test.x.time)
    assert f"{(time >= 0.09).sum()} of {time.size} events" in parts["test"]


def test_the_end_of_a_loss_that_is_given_counts():
    loss = FirstSpike(population="4", tau=TAU, t_max=0.065)
    found = fit(small_net(), late_data(), loss=loss, **ONCE)
    assert found.settings["t_end"] == 0.065
    assert len(late(found.notes)) == 3
    found = fit(small_net(), late_data(), loss_options={"t_max": 0.07}, **ONCE)
    assert found.settings["t_end"] == 0.07


def of_frames(frames):
    return np.zeros((3, frames, 2))


@pytest.mark.parametrize(
    ("x", "encoder", "end"),
    [
        (late_data(0.0649)[0], None, 6.5),
        (late_data(0.065)[0], None, 11.0),
        (late_data(0.1)[0], None, 15.0),
        (np.zeros((3, 4)), Latency(t_min=0.0, t_max=0.02), 6.5),
        (np.zeros((3, 4)), Latency(t_min=0.0, t_max=0.08), 13.0),
        (np.zeros((3, 4)), Latency(t_min=0.0, t_max=0.02, clock=(0.09,)), 14.0),
        (of_frames(40), PopulationCode(centres=(0.0, 1.0), frame=2.5e-3), 15.0),
        (np.zeros((3, 4)), lambda values: late_data(0.1, len(values))[0], 15.0),
        (np.zeros((3, 100, 4)), None, 6.5),  # arrays in steps, which end by themselves
        (Currents.held(np.ones((100, 3, 4)), dt=1e-3), None, 15.0),  # 0 from 100 ms on
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
    x, y = late_data()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        evaluate(small_net(), (x, y))
    with pytest.warns(ApproximationWarning, match="data: 40 of 160 events"):
        evaluate(small_net(), (x, y), t_end=0.1)
