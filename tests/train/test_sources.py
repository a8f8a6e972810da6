"""Encoders, and data of other libraries."""

from functools import partial

import numpy as np
import pytest

from jaxsnn.errors import UsageError
from jaxsnn.nir import build
from jaxsnn.nir.io.recorded_data import event_data
from jaxsnn.train import (
    Delta,
    PopulationCode,
    Rate,
    data_of_nir,
    evaluate,
    events_of_arrays,
    fit,
)
from jaxsnn.train.data.datasets import stratified
from jaxsnn.train.data.images import distorted, with_inverted
from jaxsnn.train.data.utterances import _stretched, japanese_vowels_splits
from tests.helpers.refusals import assert_refused


def test_rates_are_those_of_the_values_and_the_seed_fixes_the_spikes():
    encode = Rate(highest=1000.0, duration=1.0, seed=3)
    values = np.tile([[0.0, 0.25, 1.0]], (20, 1))
    events = encode(values)
    counts = [np.sum(np.asarray(events.index) == channel) / 20 for channel in range(3)]
    assert counts[0] == 0
    assert counts[1:] == pytest.approx([250, 1000], rel=0.05)
    assert (np.diff(np.where(np.isfinite(events.time), events.time, 2.0), axis=1) >= 0).all()
    np.testing.assert_array_equal(encode(values).time, events.time)


def test_level_crossings_rebuild_the_signal_within_a_step():
    signal = np.cumsum(np.random.default_rng(0).normal(size=(2, 40, 3)), axis=1)
    events = Delta(step=0.25, frame=0.01)(signal)
    frames = np.arange(40) * 0.01 + 1e-9
    for sample, channel in np.ndindex(2, 3):
        up, down = (
            np.searchsorted(
                np.sort(events.time[sample][events.index[sample] == 2 * channel + direction]),
                frames,
                side="right",
            )
            for direction in (0, 1)
        )
        rebuilt = signal[sample, 0, channel] + 0.25 * (up - down)
        assert np.abs(rebuilt - signal[sample, :, channel]).max() < 0.25 + 1e-6


def test_the_nearest_centres_fire_the_later_the_farther():
    events = PopulationCode(centres=(-1.0, 0.0, 1.0), frame=0.1, nearest=2)(
        np.array([[[0.2, np.nan], [-5.0, 0.0]]])
    )
    spikes = sorted(
        zip(np.round(events.time[0], 6).tolist(), events.index[0].tolist(), strict=True)
    )
    assert spikes == [(0.02, 1), (0.08, 2), (0.1, 4), (0.2, 0), (0.2, 1), (0.2, 3)]


def camera(rows):
    return np.array(rows, dtype=[("x", "i2"), ("y", "i2"), ("p", bool), ("t", "i8")])


FIRST, SECOND = camera([(3, 1, 1, 500), (0, 0, 0, 200)]), camera([(2, 0, 1, 100)])
COCHLEA = np.array([(5, 1, 7)], dtype=[("x", int), ("p", int), ("t", int)])


def test_arrays_of_a_camera_become_events():
    events = events_of_arrays([FIRST, SECOND], (4, 2, 2), time_unit="1us")
    np.testing.assert_allclose(events.time, [[2e-4, 5e-4], [1e-4, np.inf]])
    assert events.index.tolist() == [[0, 15], [10, 16]]
    assert events_of_arrays([COCHLEA], (8, 1, 2), time_unit="1ms").index.tolist() == [[13]]


@pytest.mark.parametrize(
    ("samples", "sizes", "options", "message"),
    [
        (
            [FIRST],
            (2, 2, 2),
            {},
            "sample 0 has an event with x = 3: pass a larger sensor_size: x ranges from 0 to 1",
        ),
        ([FIRST, SECOND], (4, 2, 2), {"max_events": 1}, "2 events, more than max_events = 1"),
        ([COCHLEA], (8, 2, 2), {}, "no field 'y', but its sensor_size is 2"),
    ],
)
def test_arrays_of_another_sensor_are_refused(samples, sizes, options, message):
    assert_refused(lambda: events_of_arrays(samples, sizes, **options), UsageError, message)


def test_nir_s_own_data_become_samples():
    events = events_of_arrays([camera([(1, 0, 0, 300)]), camera([(0, 0, 0, 100)])], (2, 1, 1))
    data = data_of_nir(event_data(events, size=2, t_max=1.0), [1, 0])
    assert data.x.index.tolist() == [[1], [0]]
    assert data.classes == ("0", "1")
    assert data.channels == 2


@pytest.mark.parametrize("labels", [[1.7], ["1"], [np.nan], [2**32], [-1], [0, 1], [[0]]])
def test_labels_of_nir_s_data_are_whole_numbers_one_a_sample(labels):
    events = events_of_arrays([camera([(1, 0, 0, 300)])], (2, 1, 1))
    assert_refused(
        lambda: data_of_nir(event_data(events, size=2, t_max=1.0), labels), UsageError, "label"
    )


@pytest.mark.parametrize("size", [2, 4])
@pytest.mark.parametrize(
    "run", [partial(fit, epochs=1, progress=None), evaluate], ids=["fit", "evaluate"]
)
def test_nir_s_events_of_another_number_of_neurons_are_not_trained_on(run, size):
    neurons = build.cubalif(tau_mem="20ms", tau_syn="10ms")
    graph = build.sequential(build.input(3), build.linear(weight=np.ones((2, 3))), neurons)
    events = events_of_arrays([camera([(1, 0, 0, 300)])] * 40, (2, 1, 1))
    data = data_of_nir(event_data(events, size=size, t_max=1.0), np.arange(40) % 2)
    message = f"events of {size} channels, and input 'input' has 3"
    assert_refused(lambda: run(graph, data), UsageError, message)


def test_strata_keep_the_share_of_each_class():
    labels = np.repeat([0, 1, 2], [100, 50, 10])
    part, rest = stratified(labels, 0.2, seed=1)
    assert np.bincount(labels[part]).tolist() == [20, 10, 2]
    assert sorted([*part, *rest]) == list(range(160))
    np.testing.assert_array_equal(part, stratified(labels, 0.2, seed=1)[0])


def test_images_are_two_sets_of_channels_and_distorted_a_little():
    image = np.zeros((1, 8, 8))
    image[0, 2:6, 3:5] = 1.0
    values = with_inverted(image)
    assert np.isnan(values[0, 0])
    assert values[0, 8 * 3 + 3] == 0.0
    assert values[0, 64 + 8 * 3 + 3] == 1.0
    many = distorted(np.repeat(image, 200, axis=0), seed=0)
    assert np.abs(many.sum(axis=(1, 2)) - 8).max() < 3
    for along in (np.arange(8)[:, None], np.arange(8)):
        middle = (many * along).sum(axis=(1, 2)) / many.sum(axis=(1, 2))
        assert np.abs(middle - 3.5).max() < 0.8
        assert abs(middle.mean() - 3.5) < 0.1
        assert middle.std() > 0.1


def test_a_stretched_utterance_begins_and_ends_as_before():
    utterance = np.full((29, 2), np.nan)
    utterance[:12] = np.stack([np.arange(12.0), np.sin(np.arange(12))], axis=1)
    for factor, frames in ((1.0, 12), (1.25, 15), (0.8, 10), (9.0, 29), (0.01, 5)):
        stretched = _stretched(utterance, factor)
        assert np.isfinite(stretched).all(axis=1).tolist() == [True] * frames + [False] * (
            29 - frames
        )
        np.testing.assert_allclose(stretched[[0, frames - 1]], utterance[[0, 11]])
        np.testing.assert_allclose(np.diff(stretched[:frames, 0]), 11 / (frames - 1))


def write_ts(path, lines):
    path.write_text("@problemName JapaneseVowels\n@data\n" + "\n".join(lines) + "\n")


def test_utterances_are_read_and_standardised(tmp_path):
    rng = np.random.default_rng(0)

    def line(frames, label):
        channels = rng.normal(2.0, 3.0, (12, frames))
        return ":".join([*(",".join(f"{v:.4f}" for v in channel) for channel in channels), label])

    for part in ("TRAIN", "TEST"):
        lines = [line(int(rng.integers(7, 30)), str(n % 9 + 1)) for n in range(45)]
        write_ts(tmp_path / f"JapaneseVowels_{part}.ts", lines)
    splits = japanese_vowels_splits(folder=tmp_path, copies=2)
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (72, 9, 45)
    assert splits.train.classes == tuple("123456789")
    original, copy = splits.train.x[:36, 0], splits.train.x[36:, 0]
    assert 0.7 < np.corrcoef(original.ravel(), copy.ravel())[0, 1] < 0.99
    assert np.array_equal(splits.train.y[:36], splits.train.y[36:])
    assert abs(np.nanmean(splits.validation.x)) < 0.2
    events = splits.encoder(0.01)(splits.train.x)
    assert events.time.max(where=np.isfinite(events.time), initial=0.0) <= 29 * 0.0025
