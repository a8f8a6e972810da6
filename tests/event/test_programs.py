"""How many programs are compiled: one for all inputs of about a size, one for all evaluations of a
training run, none for what NumPy does.
"""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsnn import Currents, EventDriven, Events, GradedEvents, lower, simulate
from jaxsnn.event import event_driven
from jaxsnn.network.on_processor import on_processor
from jaxsnn.network.slots import bucket, with_slots
from jaxsnn.network.spikes import flatten_spikes
from jaxsnn.nir import build
from jaxsnn.nir.initializers import normal
from jaxsnn.train import Latency, fit, yinyang_splits
from tests.helpers.programs import compiled
from tests.helpers.small_task import small_net

T_END = 30e-3
ENGINE = EventDriven(max_spikes=64)
RNG = np.random.default_rng(3)


@pytest.fixture(scope="module")
def network():
    neurons = build.cubalif(tau_mem="10ms", tau_syn="5ms")
    return lower(
        build.sequential(build.input(4), build.linear(6, weight=normal(2.0, 2.0)), neurons, seed=1)
    )


def events_of(count, batch=3):
    return Events(
        time=RNG.uniform(0.0, T_END, (batch, count)), index=RNG.integers(0, 4, (batch, count))
    )


def runs_of(programs):
    return [name for name in programs if name == "jit(run_and_conclude)"]


def test_runs_of_about_as_many_events_share_one_program(network):
    with compiled() as programs:
        for count in (17, 32, 20):
            simulate(network, events_of(count), T_END, engine=ENGINE)
    assert runs_of(programs) == ["jit(run_and_conclude)"]
    assert len(programs) == 1, programs
    with compiled() as programs:
        simulate(network, events_of(33), T_END, engine=ENGINE)
    assert runs_of(programs) == ["jit(run_and_conclude)"]


@pytest.mark.parametrize("backend", ["native", pytest.param("xla", marks=pytest.mark.slow)])
def test_unused_slots_change_no_bit(network, backend, request, monkeypatch):
    if backend == "native":
        request.getfixturevalue("native_kernels")
    engine, events = replace(ENGINE, backend=backend), events_of(11)
    padded = simulate(network, events, T_END, engine=engine)
    monkeypatch.setattr(event_driven, "in_buckets", lambda trains, channels: trains)
    exact = simulate(network, events, T_END, engine=engine)
    assert padded.drives["2"].time.shape[1] == 16
    assert exact.drives["2"].time.shape[1] == 11
    assert int(padded.spikes["2"].count.sum()) > 20
    for name in ("time", "count", "slope"):
        with_slots, without = (getattr(solution.spikes["2"], name) for solution in (padded, exact))
        assert np.asarray(with_slots).tobytes() == np.asarray(without).tobytes()


def test_differentiated_events_keep_their_slots(network):
    events, shapes = events_of(11), []

    def first(time):
        train = Events(time=time, index=events.index)
        solution = simulate(network, train, T_END, engine=ENGINE)
        shapes.append(solution.drives["2"].time.shape[1])
        times = solution.first_spike("2")
        return jnp.sum(jnp.where(jnp.isfinite(times), times, 0.0))

    assert np.isfinite(jax.grad(first)(jnp.asarray(events.time))).all()
    assert shapes == [11]


def test_slots_behind_the_last_are_unused():
    times, channels = np.zeros((2, 3)), np.ones((2, 3), np.int32)
    wide = with_slots(GradedEvents(time=times, index=channels, value=times + 2), 4, channels=5)
    assert wide.time[:, 3].tolist() == [np.inf, np.inf]
    assert wide.index[:, 3].tolist() == [5, 5]
    assert wide.value[:, 3].tolist() == [0, 0]
    held = with_slots(Currents(time=times, value=np.ones((2, 3, 7))), 5, channels=7)
    assert held.time.shape == (2, 5)
    assert held.value.shape == (2, 5, 7)
    assert held.value[:, 3:].max() == 0
    assert [bucket(slots) for slots in (0, 1, 2, 3, 16, 17)] == [1, 1, 2, 4, 16, 32]
    # a million or more: multiples of an eighth of the next power of two
    assert [bucket(2**20 + extra) for extra in (0, 1, 2**18, 2**18 + 1)] == [
        *(2**20, 2**20 + 2**18, 2**20 + 2**18, 2**20 + 2**19)
    ]
    assert with_slots(wide, 2, channels=5) is wide


def test_spikes_are_sorted_by_numpy_as_by_xla():
    times = RNG.choice([0.0, -0.0, 1e-3, 2e-3, 3e-3, np.inf], (5, 4, 6)).astype(np.float32)
    with compiled() as programs:
        here = flatten_spikes(times)
    assert programs == []
    traced = jax.jit(flatten_spikes)(times)
    assert np.asarray(here.index).tobytes() == np.asarray(traced.index).tobytes()
    assert np.array_equal(here.time, traced.time)
    assert isinstance(here.time, jax.Array)
    # Concrete arrays in a function that is traced.
    inside = jax.jit(lambda x: (flatten_spikes(times), x))(1.0)[0]
    assert np.array_equal(inside.index, here.index)


def test_numbers_of_a_run_are_read_without_compiling(network):
    solution = simulate(network, events_of(9), T_END, engine=ENGINE)
    with compiled() as programs:
        first, count, events = (getattr(solution, name)("2") for name in READ)
        text = repr(solution)
    assert programs == []
    traced = jax.jit(lambda run: [getattr(run, name)("2") for name in READ])(solution)
    for eager, compiled_value in zip(
        jax.tree.leaves([first, count, events]), jax.tree.leaves(traced), strict=True
    ):
        assert eager.dtype == compiled_value.dtype
        assert np.array_equal(eager, compiled_value)
    assert "SUCCESS" in text


READ = ("first_spike", "count", "events")


def test_only_what_the_processor_holds_is_its_own():
    assert on_processor(np.zeros(2), jnp.zeros(2), 1.0)
    seen = []
    jax.jit(lambda x: seen.append(on_processor({"a": x, "b": np.zeros(2)})) or x)(1.0)
    assert seen == [False]


@pytest.mark.slow
def test_a_training_run_compiles_one_evaluation():
    # Splits of different sizes; the events of the second have more slots.
    splits, encode = yinyang_splits(0, (300, 40, 30)), Latency(t_min=0.0, t_max=20e-3, bias=True)
    encoded = {name: encode(getattr(splits, name).x) for name in ("train", "validation", "test")}
    encoded["validation"] = with_slots(encoded["validation"], 7, channels=5)
    data = {name: replace(getattr(splits, name), x=events) for name, events in encoded.items()}
    splits = replace(splits, **data)
    with compiled() as programs:
        fit(small_net(), splits, epochs=2, progress=None, batch_size=50)
    assert programs.count("jit(run_evaluation)") == 1
    assert programs.count("jit(run_epoch)") == 1
    assert len(programs) <= 6, programs
