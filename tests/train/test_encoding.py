"""Values to spikes."""

import tracemalloc
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxsnn import Events
from jaxsnn.errors import UsageError
from jaxsnn.nir import build
from jaxsnn.train import (
    Current,
    Delta,
    FirstSpike,
    InTheLoop,
    Latency,
    LevelCrossing,
    PopulationCode,
    Rate,
    TrainOptions,
    yinyang,
    yinyang_splits,
)
from jaxsnn.train.data.named_encoders import named_encoder
from jaxsnn.train.options import ENCODERS
from tests.helpers.refusals import assert_refused


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8), st.floats(0, 0.01), st.floats(0.02, 0.1))
def test_times_are_linear_in_the_values(values, t_min, t_max):
    for first, shares in (("small", values), ("large", [1 - value for value in values])):
        events = Latency(t_min=t_min, t_max=t_max, first=first)([values])
        expected = [[t_min + share * (t_max - t_min) for share in shares]]
        assert np.allclose(events.time, expected, rtol=1e-12)
        assert np.array_equal(events.index, [list(range(len(values)))])


UNIT = {"t_min": 0.0, "t_max": 1.0}
SHORT = {"t_min": 0.001, "t_max": 0.01, "bias": True}
DARK = np.array([[0.0, 0.1, 0.5, 1.0], [0.2, 0.0, 0.0, 0.0]], np.float32)
NO_SPIKE = np.inf
#: Encoder, values, expected times and channels.
ENCODED = {
    # As usual, the brightest pixel spikes at the start.
    "the bright first": (Latency(**UNIT), [[0.0, 0.25, 1.0]], [[1.0, 0.75, 0.0]], [[0, 1, 2]]),
    "a bias, last in order and first in time": (
        Latency(**SHORT),
        np.full((2, 3), 0.5),
        [[0.0055, 0.0055, 0.0055, 0.001]] * 2,
        [[0, 1, 2, 3]] * 2,
    ),
    "axes as channels": (
        Latency(**UNIT, first="small"),
        np.linspace(0, 1, 12).reshape(1, 3, 4),
        [np.linspace(0, 1, 12)],
        [np.arange(12)],
    ),
    "nan": (Latency(**UNIT), [[0.5, np.nan]], [[0.5, NO_SPIKE]], [[0, 2]]),
    "dark pixels, which take no room": (
        Latency(**UNIT, least=0.1),
        DARK,
        [[0.0, 0.5], [0.8, NO_SPIKE]],
        [[3, 2], [0, 4]],
    ),
    "dark pixels and a bias": (
        Latency(**UNIT, least=0.1, bias=True),
        DARK,
        [[0.0, 0.0, 0.5], [0.0, 0.8, NO_SPIKE]],
        [[3, 4, 2], [4, 0, 5]],
    ),
    "a clock, last in order and in every sample": (
        Latency(**SHORT, least=0.5, clock=(0.0, 0.02)),
        [[0.2, 1.0], [0.1, 0.3]],
        [[0.0, 0.001, 0.001, 0.02], [0.0, 0.001, 0.02, NO_SPIKE]],
        [[3, 1, 2, 4], [3, 2, 4, 5]],
    ),
}


@pytest.mark.parametrize("case", ENCODED)
def test_latency(case):
    encoder, values, times, index = ENCODED[case]
    events = encoder(np.asarray(values))
    np.testing.assert_allclose(events.time, times, rtol=1e-6)
    np.testing.assert_array_equal(events.index, index)
    assert events.time.dtype == np.asarray(values).dtype


@pytest.mark.parametrize("transform", [jax.jit, jax.vmap], ids=["jit", "vmap"])
@pytest.mark.parametrize(
    ("encode", "shape"),
    [
        (Latency(t_min=0.0, t_max=0.01), (3, 4)),
        (Rate(highest=100.0, duration=0.1), (3, 4)),
        (Current(), (3, 4)),
        (PopulationCode(centres=(0.0, 1.0), frame=1e-3), (3, 4)),
        (LevelCrossing(levels=(0.5,), frame=1e-3), (3, 5, 4)),
        (Delta(step=0.1, frame=1e-3), (3, 5, 4)),
        (partial(Events.of_steps, dt=1e-3), (5, 3, 4)),
    ],
    ids=lambda parameter: type(parameter).__name__,
)
def test_traced_values_are_refused_in_one_line(encode, shape, transform):
    values = np.ones((2, *shape))
    assert_refused(lambda: transform(encode)(values), UsageError, r"traced by jax\.jit")


def test_a_current_is_the_value_all_the_time():
    currents = Current(scale=2.0, bias=True)(np.array([[[0.5], [-1.0]]]))
    assert currents.time.tolist() == [[0.0]]
    assert currents.value.tolist() == [[[1.0, -2.0, 2.0]]]


LEVELS = LevelCrossing(levels=(0.25, 0.5), frame=0.01)


@pytest.mark.parametrize(
    "encode",
    [
        Latency(t_min=0.0, t_max=1.0, least=0.4),
        LEVELS,
        Rate(highest=50.0, duration=0.1),
        PopulationCode(centres=(0.0, 0.5, 1.0), frame=0.01, nearest=2),
    ],
    ids=lambda encode: type(encode).__name__,
)
def test_many_samples_are_encoded_as_one_by_one(monkeypatch, encode):
    values = np.random.default_rng(0).random((7, 5)) * np.arange(7)[:, None] / 6
    together = encode(values)
    for numbers in (1, 35):  # sample by sample, and several together
        monkeypatch.setattr("jaxsnn.train.data.encoders._AT_ONCE", numbers)
        parts = encode(values)
        assert np.array_equal(together.time, parts.time)
        assert np.array_equal(together.index, parts.index)


@pytest.mark.parametrize("encode", [LEVELS, PopulationCode(centres=(0.0, 0.5, 1.0), frame=0.01)])
def test_what_encoding_takes_does_not_grow_with_the_samples(monkeypatch, encode):
    values = np.random.default_rng(0).random((400, 20, 10))
    monkeypatch.setattr("jaxsnn.train.data.encoders._AT_ONCE", 20_000)
    tracemalloc.start()
    events = encode(values)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # The events, those of the parts besides the whole, and the memory of one part.
    assert peak < 3 * (events.time.nbytes + events.index.nbytes) + 20_000 * 8 * 16


@given(st.lists(st.floats(0, 1), min_size=2, max_size=6))
def test_levels_are_crossed_where_the_signal_is_at_them(signal):
    events = LEVELS(np.array(signal)[None, :, None])
    fires = np.isfinite(events.time[0])
    times, channels = events.time[0][fires], events.index[0][fires]
    later = times > 0
    values = np.interp(times[later] / 0.01, np.arange(len(signal)), signal)
    assert np.allclose(values, np.array(LEVELS.levels)[channels[later] % 2], atol=1e-6)
    for number, level in enumerate(LEVELS.levels):
        above = np.concatenate([[False], np.array(signal) >= level])
        crossings = np.sum(above[1:] & ~above[:-1]), np.sum(above[:-1] & ~above[1:])
        assert (np.sum(channels == number), np.sum(channels == 2 + number)) == crossings


@pytest.mark.parametrize("encode", [LEVELS, Delta(step=0.5, frame=0.01)])
def test_signals_without_time_have_no_spikes(encode):
    assert np.isinf(encode(np.zeros((2, 0, 3))).time).all()


@pytest.mark.parametrize("encode", [LEVELS, Delta(step=0.5, frame=0.01)])
def test_a_signal_ends_at_its_first_nan(encode):
    signals = np.array([[0.0, 0.6, np.nan, 0.0, 3.0, 0.0], [np.nan, 0.0, 3.0, 0.0, 3.0, 0.0]])
    encoded = encode(signals[:, :, None])
    until = encode(signals[:1, :2, None])
    assert np.isfinite(until.time).any()
    np.testing.assert_array_equal(encoded.time[0][np.isfinite(encoded.time[0])], until.time[0])
    assert np.isinf(encoded.time[1]).all()


def test_levels_of_two_signals_have_channels_of_their_own_and_not_a_number_ends_them():
    events = LEVELS(np.array([[[0.3, 0.0], [0.0, 0.6], [np.nan, np.nan], [1.0, 0.0]]]))
    assert sorted(events.index[0][np.isfinite(events.time[0])].tolist()) == [0, 2, 4, 5]


@pytest.mark.parametrize("name", ENCODERS)
def test_every_name_makes_an_encoder_that_encodes(name):
    data = yinyang(6, seed=0)
    encoder, description = named_encoder(data, 0.01, name)
    events = encoder(data.x[:, :, None] if name == "delta" else data.x)
    assert len(events.time) == 6
    assert np.isfinite(events.time).any()
    assert description


def test_a_named_encoder_has_options():
    data = yinyang(6, seed=0)
    options = {"t_max": "15ms", "least": 0.2}
    encoder, description = named_encoder(data, 0.01, "latency", options=options)
    assert encoder == Latency(t_min=0.0, t_max=0.015, least=0.2)
    assert "15 ms" in description
    assert "up to 0.2 without a spike" in description
    levels, _ = named_encoder(data, 0.01, "levels", options={"levels": [0.1, 0.2]})
    assert levels == LevelCrossing(levels=(0.1, 0.2), frame=0.0025)


def test_channels_of_a_clock_and_of_a_bias_count():
    assert Latency(**SHORT, clock=(0.0, 0.02)).channels(np.zeros((3, 2))) == 5


def test_what_is_measured_off_the_chip_is_encoded_and_refractory_as_in_training(monkeypatch):
    from jaxsnn.train.loop import chip_training

    seen = []
    monkeypatch.setattr(
        chip_training,
        "evaluate",
        lambda *_, encoder, engine, **__: seen.append((encoder, engine.refractory)),
    )
    nodes = {"in": build.input(5), "w": build.linear(weight=np.ones((3, 5)))}
    nodes |= {"out": build.cubalif(tau_mem=0.02, tau_syn=0.01), "end": build.output(3)}
    graph = build.network(nodes, [("in", "w", "out", "end")])
    options = TrainOptions(
        data=yinyang_splits(),
        loss=FirstSpike(population="out", tau=0.01, t_max=0.06),
        encoder_options={"t_max": "15ms"},
        engine=InTheLoop(device=SimpleNamespace(refractory=2e-3)),
    )
    chip_training.off_chip_accuracy(graph, options)
    by_name = {"encoder": "latency", "encoder_options": None}
    chip_training.off_chip_accuracy(graph, replace(options, **by_name))
    small = Latency(t_min=0.0, t_max=0.015, bias=True, first="small")
    assert seen == [(small, 2e-3), (replace(small, t_max=0.02, first="large"), 2e-3)]
