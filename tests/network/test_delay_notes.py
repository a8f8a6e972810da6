"""Notes on delays that are not shorter than the run."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxsnn
from jaxsnn.nir import build, initializers
from jaxsnn.train import TrainingStopped, evaluate, fit

EVENTS = jaxsnn.Events(time=np.array([[0.0, 1e-3]]), index=np.array([[0, 1]]))
ENGINES = {"event": jaxsnn.EventDriven(), "grid": jaxsnn.TimeStepped(dt=1e-3)}


def delayed_net(duration):
    return build.sequential(
        build.input(2),
        build.delay(duration),
        build.linear(3, weight=initializers.constant(3.0)),
        build.cubalif(tau_mem="10ms", tau_syn="5ms"),
        seed=0,
    )


def long_delays(notes):
    return [note for note in notes if getattr(note, "code", "") == "long-delay"]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    ("duration", "count"),
    [("200ms", 2), ("100ms", 2), (np.array([0.2, 0.001]), 1), ("99ms", 0), ("1ms", 0)],
)
def test_delays_that_are_not_shorter_than_the_run_are_noted(engine, duration, count):
    solution = jaxsnn.simulate(delayed_net(duration), EVENTS, 0.1, engine=ENGINES[engine])
    notes = long_delays(solution.notes)
    assert len(notes) == (count > 0)
    for note in notes:
        assert note.kind == "dropped"
        assert "node '1'" in note
        assert "(100 ms)" in note
        assert f"{count} of 2" in note
    if count == 2:
        assert not np.asarray(solution.events("3").time < np.inf).any()


@pytest.mark.filterwarnings("ignore")
def test_long_delays_of_synapses_are_noted():
    graph = delayed_net("1ms")
    network = jaxsnn.with_synaptic_delays(jaxsnn.lower(graph), "2", [0.3, 0.02])
    (note,) = long_delays(jaxsnn.simulate(network, EVENTS, 0.1).notes)
    assert "node '2'" in note
    assert "1 of 2, up to 300 ms" in note


@pytest.mark.filterwarnings("ignore")
def test_differentiated_delays_are_not_inspected():
    network = jaxsnn.lower(delayed_net("200ms"))

    def last_spike(network):
        solution = jaxsnn.simulate(network, EVENTS, 0.1, engine=jaxsnn.EventDriven(max_spikes=4))
        assert not long_delays(solution.notes)
        return jnp.sum(solution.spikes["3"].time, where=solution.spikes["3"].time < jnp.inf)

    jax.grad(last_spike)(network)


@pytest.mark.filterwarnings("ignore")
def test_training_and_evaluation_note_long_delays():
    events = jaxsnn.Events(time=np.tile(EVENTS.time, (30, 1)), index=np.tile(EVENTS.index, (30, 1)))
    data = (events, np.arange(30) % 3)
    with pytest.warns(jaxsnn.ApproximationWarning, match="node '1': delays"):
        evaluate(delayed_net("200ms"), data, t_end=0.05)
    with pytest.raises(TrainingStopped, match=r"correct the times .node '1': delays") as stopped:
        fit(delayed_net("200ms"), data, t_end=0.05, epochs=1, progress=None)
    assert len(long_delays(stopped.value.fit.notes)) == 1
    trained = fit(delayed_net("2ms"), data, t_end=0.05, epochs=1, progress=None)
    assert not long_delays(trained.notes)
