"""Training on static values as currents, in both engines, and on what a file or NIR data hold."""

import nir
import numpy as np
import pytest

from jaxsnn.errors import UsageError
from jaxsnn.network.spikes import Events
from jaxsnn.network.valued_inputs import Currents, GradedEvents
from jaxsnn.nir import build
from jaxsnn.nir.initializers import normal
from jaxsnn.nir.io.recorded_data import event_data
from jaxsnn.train import Dropout, Jitter, fit
from jaxsnn.train.data.labelled_files import data_of_nir
from tests.helpers.refusals import assert_refused

RNG = np.random.default_rng(0)
X = RNG.uniform(0, 1, (40, 4))
Y = (X[:, 0] + X[:, 1] > X[:, 2] + X[:, 3]).astype(int)


def net():
    neurons = build.cubalif(tau_mem="20ms", tau_syn="10ms")
    return build.sequential(
        build.input(4),
        build.linear(5, weight=normal(1.2, 0.4)),
        neurons,
        build.linear(2, weight=normal(12.0, 2.0)),
        neurons,
        seed=0,
        dialect="nir",
        time_unit="s",
        spike_area="1ms",
    )


@pytest.mark.slow
@pytest.mark.parametrize(("engine", "loss"), [("event", "ttfs"), ("grid", "count")])
def test_currents_are_learnt_from(engine, loss):
    options = {"epochs": 1, "batch_size": 8, "learning_rate": 0.002, "progress": None}
    trained = fit(net(), (X, Y), engine=engine, loss=loss, encoder="current", t_end=0.03, **options)
    assert any("each value is encoded as a constant current" in note for note in trained.notes)
    learnt = trained.history[1]
    assert np.isfinite(learnt.train_loss)
    assert learnt.gradient > 0


def test_encoders_by_name_are_refused_where_they_do_not_exist_or_nothing_is_to_be_encoded():
    assert_refused(
        lambda: fit(net(), (X, Y), encoder="curent"),
        UsageError,
        r"encoder is 'curent'.*did you mean 'current'",
    )
    assert_refused(
        lambda: fit(net(), (Currents.constant(X), Y), encoder="current"),
        UsageError,
        "the data are already events or currents",
    )
    assert_refused(
        lambda: fit(net(), (X, Y), engine="grid", loss="count", surrogate="atam"),
        UsageError,
        r"surrogate is 'atam'.*'atan'",
    )
    assert_refused(
        lambda: fit(net(), (X, Y), surrogate="atan"),
        UsageError,
        r'surrogate="atan" requires engine="grid"',
    )


def test_dropout_of_currents_leaves_out_channels_and_jitter_is_for_spikes():
    import jax

    sample = Currents(time=np.zeros(2), value=np.ones((2, 200)))
    amplitudes = np.asarray(Dropout(probability=0.3)(jax.random.key(0), sample).value)
    assert (amplitudes[0] == amplitudes[1]).all()
    assert 100 < amplitudes[0].sum() < 180
    assert_refused(
        lambda: Jitter(deviation=1e-3)(jax.random.key(0), sample),
        UsageError,
        "jitter requires events",
    )
    graded = GradedEvents(time=np.zeros(200), index=np.zeros(200, int), value=np.arange(200.0))
    lost = Dropout(probability=0.3)(jax.random.key(0), graded)
    assert np.array_equal(lost.value, graded.value)
    assert 20 < np.isinf(lost.time).sum() < 100


def test_nir_data_with_values_are_graded_events_or_currents():
    time, index = np.array([[1e-3, 2e-3]]), np.array([[0, 1]])
    events = event_data(Events(time=time, index=index), 2, 5e-3, values=np.array([[2.0, 0.5]]))
    graded = data_of_nir(events, [0]).x
    assert isinstance(graded, GradedEvents)
    assert graded.value.tolist() == [[2.0, 0.5]]
    steps = nir.TimeGriddedData(np.full((1, 5, 2), 0.5), 1e-3)
    held = data_of_nir(steps, [0]).x
    assert isinstance(held, Currents)
    assert held.value[:, 0].tolist() == [[0.5, 0.5]]
    assert isinstance(data_of_nir(nir.TimeGriddedData(np.ones((1, 5, 2)), 1e-3), [0]).x, Events)
