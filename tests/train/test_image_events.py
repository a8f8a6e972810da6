"""Changes of images that are given as events."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsnn import Events
from jaxsnn.errors import UsageError
from jaxsnn.network.valued_inputs import Currents
from jaxsnn.nir import build
from jaxsnn.train import ChannelShift, Compose, Dropout, Jitter, Stretch, Warp, fit
from jaxsnn.train.data.augment import _between, augmentation_of
from tests.helpers.refusals import assert_refused

KEY = jax.random.key(0)
SHAPE = (2, 5, 7)
#: One event for each pixel, one of a bias channel after them, and one unused slot.
EVERY = Events(
    time=jnp.append(jnp.linspace(0.0, 1.0, 71), jnp.inf),
    index=jnp.arange(72, dtype=jnp.int32),
)


def places(events):
    """Event -> (plane, row, column) of those that are there."""
    there = np.isfinite(events.time[:70])
    return {n: np.unravel_index(events.index[n], SHAPE) for n in np.flatnonzero(there)}


def warped(seed=0, events=EVERY, shape=SHAPE, **options):
    """Events as `Warp` changes them."""
    return Warp(shape=shape, **options)(jax.random.key(seed), events)


def assert_equal(first, second, slots=slice(None)):
    assert np.array_equal(first.index[slots], second.index[slots])
    assert np.array_equal(first.time[slots], second.time[slots])


def test_nothing_is_changed_where_nothing_is_asked_for():
    assert_equal(warped(), EVERY)


def test_a_shift_moves_all_events_alike_and_loses_those_that_leave():
    moves, before = set(), places(EVERY)
    for seed in range(8):
        events = warped(seed, shift=2.0)
        after = places(events)
        ((plane, down, right),) = {
            tuple(np.subtract(place, before[n]).tolist()) for n, place in after.items()
        }
        assert plane == 0
        assert len(after) == 2 * (5 - abs(down)) * (7 - abs(right))
        assert_equal(events, EVERY, slice(70, None))
        moves.add((down, right))
    assert len(moves) > 3


def test_a_mirror_turns_all_of_an_image_left_for_right_as_often_as_it_is_to():
    before = places(EVERY)
    mirror = {n: (plane, row, 6 - column) for n, (plane, row, column) in before.items()}
    images = [warped(seed, mirror=0.5) for seed in range(16)]
    assert all(places(image) in (before, mirror) for image in images)
    assert 3 < sum(places(image) == mirror for image in images) < 13
    for image in images:
        assert np.array_equal(image.index[70:], EVERY.index[70:])
    assert places(warped(mirror=1.0)) == mirror


def test_turning_and_scaling_leave_the_middle_where_it_is():
    middle = 2 * 7 + 3
    turned = [np.asarray(warped(seed, rotation=90.0, scale=0.3).index) for seed in range(6)]
    assert [index[middle] for index in turned] == [middle] * 6
    assert len({tuple(index.tolist()) for index in turned}) == 6


def still(size):
    """An event at each pixel."""
    return Events(time=jnp.zeros(size), index=jnp.arange(size, dtype=jnp.int32))


def test_a_quarter_turn_turns():
    turned = {
        tuple(np.asarray(warped(seed, still(9), (3, 3), rotation=90.0).index).tolist())
        for seed in range(200)
    }
    assert turned & {(2, 5, 8, 1, 4, 7, 0, 3, 6), (6, 3, 0, 7, 4, 1, 8, 5, 2)}


def test_between_its_points_a_field_is_linear():
    def linear(row, column):
        return np.stack([1 + 2 * row - 3 * column, 4 - row], axis=-1)

    place = np.random.default_rng(0).uniform(0, 3, (50, 2))
    values = _between(jnp.asarray(linear(*np.mgrid[:4, :4])), jnp.asarray(place))
    np.testing.assert_allclose(values, linear(*place.T), atol=1e-5)


def test_bending_moves_neighbours_alike_and_others_otherwise():
    shape = (28, 28)
    bent = warped(0, still(784), shape, distortion=2.0)
    stays = np.isfinite(bent.time).reshape(shape)
    before, after = (
        np.unravel_index(np.asarray(events.index), shape) for events in (still(784), bent)
    )
    step = (np.stack(after) - np.stack(before)).reshape(2, *shape)
    neighbours = np.abs(np.diff(step, axis=2))[:, stays[:, 1:] & stays[:, :-1]]
    assert neighbours.max() <= 2
    assert np.ptp(step[:, stays], axis=1).min() >= 2


def test_other_keys_change_otherwise_and_the_same_key_the_same():
    first, again, second = (warped(seed, shift=1.0, distortion=0.5).index for seed in (0, 0, 1))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, second)


def test_a_chain_draws_other_numbers_for_each_step():
    events = Events(time=jnp.full(4000, 0.5), index=jnp.zeros(4000, jnp.int32))
    half = Dropout(probability=0.5)
    both = Compose(steps=(half, half))(KEY, events)
    assert abs(np.mean(np.isfinite(both.time)) - 0.25) < 0.03


@pytest.mark.parametrize(
    ("table", "shape", "steps"),
    [
        (
            {"shift": 1, "distortion": 0.5, "jitter": "0.2ms", "dropout": 0.1},
            (28, 28),
            (
                Warp(shape=(28, 28), shift=1.0, distortion=0.5),
                Jitter(deviation=0.2e-3),
                Dropout(probability=0.1),
            ),
        ),
        ({"shape": [4, 4], "rotation": 5}, (), (Warp(shape=(4, 4), rotation=5.0),)),
        *(
            (
                {"stretch": 0.2, name: [1, 14, 336]},
                (120, 24),
                (ChannelShift(most=1, group=14, channels=336), Stretch(extent=0.2)),
            )
            for name in ("channel-shift", "channel_shift")
        ),
    ],
)
def test_a_table_says_how_images_and_sounds_are_changed(table, shape, steps):
    assert augmentation_of(table, shape).steps == steps


@pytest.mark.parametrize(
    ("table", "shape", "message"),
    [
        ({"shfit": 1}, (28, 28), "augment has no change 'shfit': did you mean 'shift'"),
        ({"shift": "far"}, (28, 28), "pass a number"),
        ({"shift": -1}, (28, 28), "shift is -1"),
        ({"mirror": 1.5}, (28, 28), "mirror is 1.5.*pass a probability from 0 to 1"),
        ({"rotation": 5}, (784,), r"the shape of the images is \(784,\)"),
        ({"stretch": -1}, (28, 28), "stretch is -1"),
        ({"channel-shift": [1, 14]}, (28, 28), "channel_shift is .1, 14."),
        (
            {"channel-shift": [1, 14, 335]},
            (28, 28),
            "335 channels by up to 1 groups of 14 channels",
        ),
        ({"channel-shift": 1}, (28, 28), "pass a list of integers"),
    ],
)
def test_tables_that_make_no_sense_are_refused(table, shape, message):
    assert_refused(lambda: augmentation_of(table, shape), UsageError, message)


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (Stretch(extent=0.1), "stretch"),
        (ChannelShift(most=1, group=1, channels=2), "channel_shift"),
    ],
)
def test_currents_are_no_events(change, name):
    currents = Currents.constant(jnp.ones((1, 2)))
    message = f"^{name} requires events, and the inputs are arrays or currents"
    assert_refused(lambda: change(KEY, currents), UsageError, message)


def test_values_per_step_cannot_be_warped():
    message = "^Warp requires events or currents, and the inputs are arrays"
    warp = Warp(shape=(1, 2), shift=1.0)
    assert_refused(lambda: warp(KEY, jnp.ones((3, 1, 2))), UsageError, message)


def test_shifted_and_mirrored_currents_are_those_of_the_shifted_and_mirrored_image():
    # Two pieces of two planes of 5 x 7 pixels, and two channels of a bias after them.
    value = jax.random.uniform(jax.random.key(5), (2, 72), minval=0.5)
    planes = np.asarray(value[:, :70]).reshape(2, *SHAPE)
    padded = np.pad(planes, ((0, 0), (0, 0), (2, 2), (2, 2)))
    candidates = {
        (flip, down, right): moved[..., ::-1] if flip else moved
        for flip in (False, True)
        for down in range(5)
        for right in range(5)
        for moved in [padded[..., down : down + 5, right : right + 7]]
    }
    seen = set()
    for seed in range(12):
        warp = Warp(shape=SHAPE, shift=2.0, mirror=0.5)
        changed = warp(jax.random.key(seed), Currents(time=jnp.array([0.0, 0.1]), value=value))
        assert np.array_equal(changed.time, jnp.array([0.0, 0.1]))
        assert np.array_equal(changed.value[:, 70:], value[:, 70:])
        images = np.asarray(changed.value[:, :70]).reshape(planes.shape)
        (change,) = [key for key, image in candidates.items() if np.array_equal(image, images)]
        seen.add(change)
    assert {flip for flip, _, _ in seen} == {False, True}
    assert len(seen) > 6


@pytest.mark.parametrize("shape", [(70,), SHAPE])
def test_currents_without_a_change_stay_as_they_are_in_any_shape(shape):
    value = jnp.arange(70.0).reshape(1, *shape)
    changed = Warp(shape=SHAPE)(KEY, Currents.constant(value))
    assert np.array_equal(changed.value, Currents.constant(value).value)
    assert changed.lasting


def test_rotated_and_enlarged_currents_have_no_gaps():
    value = jnp.ones((1, 28 * 28))
    for seed in range(5):
        warp = Warp(shape=(28, 28), rotation=20.0, scale=0.2)
        image = warp(jax.random.key(seed), Currents.constant(value)).value.reshape(28, 28)
        assert np.all(np.asarray(image)[9:19, 9:19] == 1)


def test_a_stretched_sample_keeps_its_shape_and_stretches_vary():
    time, stretch = jnp.array([0.1, 0.3, jnp.inf]), Stretch(extent=0.2)
    events = Events(time=time, index=jnp.array([0, 1, 2]))
    times = np.stack([stretch(jax.random.key(seed), events).time for seed in range(50)])
    factors = times[:, :1] / 0.1
    np.testing.assert_allclose(times, factors * np.asarray(time), rtol=1e-6)
    # The distribution is symmetric in the logarithm.
    assert -0.2 <= np.log(factors).min() < -0.12
    assert 0.12 < np.log(factors).max() <= 0.2


def test_a_sample_moves_by_whole_groups_and_loses_what_leaves():
    # One slot for each channel of four groups of three, one of a bias, and one unused.
    events = Events(time=jnp.arange(14.0).at[13].set(jnp.inf), index=jnp.arange(14))
    shift, steps = ChannelShift(most=1, group=3, channels=12), set()
    for seed in range(20):
        moved = shift(jax.random.key(seed), events)
        assert (moved.time[12:].tolist(), moved.index[12:].tolist()) == ([12, np.inf], [12, 13])
        stays = np.isfinite(moved.time[:12])
        index = np.asarray(moved.index)[:12][stays]
        (step,) = set((index - np.arange(12)[stays]).tolist())
        assert len(index) == 12 - abs(step)
        assert 0 <= index.min() <= index.max() < 12
        steps.add(step)
    assert steps == {-3, 0, 3}


IMAGES = np.full((8, 4, 4), 0.5), np.arange(8) % 2


@pytest.mark.parametrize(
    ("inputs", "options", "message"),
    [
        (
            80,
            {"encoder": "population"},
            "the encoder PopulationCode has several channels per value",
        ),
        (32, {"encoder": "delta"}, "Delta has several channels"),
        (32, {"encoder": "levels", "augment": Warp(shape=(4, 4), shift=1.0)}, "LevelCrossing has"),
        (16, {"augment": {"rotation": 3, "shape": [28, 28]}}, r"784 channels \(shape is .* has 16"),
        (16, {"augment": {"channel-shift": [1, 4, 20]}}, r"20 channels \(channels is 20\), .* 16"),
    ],
)
def test_training_refuses_to_move_what_are_no_pixels_of_the_samples(inputs, options, message):
    neurons = build.cubalif(tau_mem="20ms", tau_syn="10ms")
    graph = build.sequential(build.input(inputs), build.linear(2), neurons, seed=0)
    assert_refused(
        lambda: fit(graph, IMAGES, **{"augment": {"shift": 1}} | options, progress=None),
        UsageError,
        message,
    )
