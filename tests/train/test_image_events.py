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

KEY = jax.random.key(0)
SHAPE = (2, 5, 7)
#: One event for each pixel, one of a bias channel behind them, one slot that is not used.
EVERY = Events(
    time=jnp.append(jnp.linspace(0.0, 1.0, 71), jnp.inf),
    index=jnp.arange(72, dtype=jnp.int32),
)


def places(events):
    """Event -> (plane, row, column) of those that are there."""
    there = np.isfinite(events.time[:70])
    return {n: np.unravel_index(events.index[n], SHAPE) for n in np.flatnonzero(there)}


def test_nothing_is_changed_where_nothing_is_asked_for():
    events = Warp(shape=SHAPE)(KEY, EVERY)
    assert np.array_equal(events.index, EVERY.index)
    assert np.array_equal(events.time, EVERY.time)


def test_a_shift_moves_all_events_alike_and_loses_those_that_leave():
    moves = set()
    for seed in range(8):
        events = Warp(shape=SHAPE, shift=2.0)(jax.random.key(seed), EVERY)
        found, before = places(events), places(EVERY)
        step = {tuple(np.subtract(found[n], before[n]).tolist()) for n in found}
        (plane, down, right) = step.pop()
        assert step == set()
        assert plane == 0
        assert len(found) == 2 * (5 - abs(down)) * (7 - abs(right))
        assert np.array_equal(events.time[70:], EVERY.time[70:])
        assert np.array_equal(events.index[70:], EVERY.index[70:])
        moves.add((down, right))
    assert len(moves) > 3


def test_a_mirror_turns_all_of_an_image_left_for_right_as_often_as_it_is_to():
    before, mirrored = places(EVERY), 0
    for seed in range(16):
        events = Warp(shape=SHAPE, mirror=0.5)(jax.random.key(seed), EVERY)
        found = places(events)
        if found == before:
            continue
        mirrored += 1
        assert found == {n: (plane, row, 6 - column) for n, (plane, row, column) in before.items()}
        assert np.array_equal(events.index[70:], EVERY.index[70:])
    assert 3 < mirrored < 13
    assert places(Warp(shape=SHAPE, mirror=1.0)(KEY, EVERY)) != before


def test_turning_and_scaling_leave_the_middle_where_it_is():
    middle = 2 * 7 + 3
    seen = set()
    for seed in range(6):
        events = Warp(shape=SHAPE, turn=90.0, scale=0.3)(jax.random.key(seed), EVERY)
        assert int(events.index[middle]) == middle
        seen.add(tuple(np.asarray(events.index).tolist()))
    assert len(seen) == 6


def test_a_quarter_turn_turns():
    warp = Warp(shape=(3, 3), turn=90.0)
    corners = Events(time=jnp.zeros(9), index=jnp.arange(9, dtype=jnp.int32))
    turned = {
        tuple(np.asarray(warp(jax.random.key(seed), corners).index).tolist()) for seed in range(200)
    }
    assert (2, 5, 8, 1, 4, 7, 0, 3, 6) in turned or (6, 3, 0, 7, 4, 1, 8, 5, 2) in turned


def test_between_its_points_a_field_is_linear():
    row, column = np.mgrid[:4, :4]
    field = np.stack([1 + 2 * row - 3 * column, 4 - row], axis=-1)
    place = np.random.default_rng(0).uniform(0, 3, (50, 2))
    wanted = np.stack([1 + 2 * place[:, 0] - 3 * place[:, 1], 4 - place[:, 0]], axis=-1)
    found = _between(jnp.asarray(field), jnp.asarray(place))
    np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_bending_moves_neighbours_alike_and_others_otherwise():
    shape = (28, 28)
    events = Events(time=jnp.zeros(784), index=jnp.arange(784, dtype=jnp.int32))
    moved = Warp(shape=shape, bend=2.0)(KEY, events)
    there = np.isfinite(moved.time)
    index = np.asarray(moved.index)
    step = np.stack(np.unravel_index(index, shape)) - np.stack(
        np.unravel_index(np.arange(784), shape)
    )
    neighbours = np.abs(np.diff(step.reshape(2, *shape), axis=2))[
        :, there.reshape(shape)[:, 1:] & there.reshape(shape)[:, :-1]
    ]
    assert neighbours.max() <= 2
    assert np.ptp(step[:, there], axis=1).min() >= 2


def test_other_keys_change_otherwise_and_the_same_key_the_same():
    warp = Warp(shape=SHAPE, shift=1.0, bend=0.5)
    one, again, other = (warp(key, EVERY).index for key in (KEY, KEY, jax.random.key(1)))
    assert np.array_equal(one, again)
    assert not np.array_equal(one, other)


def test_a_chain_draws_other_numbers_for_each_step():
    events = Events(time=jnp.full(4000, 0.5), index=jnp.zeros(4000, jnp.int32))
    half = Dropout(probability=0.5)
    both = Compose(steps=(half, half))(KEY, events)
    assert abs(np.mean(np.isfinite(both.time)) - 0.25) < 0.03


def test_a_table_says_what_is_changed():
    table = {"shift": 1, "bend": 0.5, "jitter": "0.2ms", "dropout": 0.1}
    chain = augmentation_of(table, (28, 28))
    warp = Warp(shape=(28, 28), shift=1.0, bend=0.5)
    assert chain.steps == (warp, Jitter(deviation=0.2e-3), Dropout(probability=0.1))
    assert augmentation_of({"shape": [4, 4], "turn": 5}, ()).steps == (
        Warp(shape=(4, 4), turn=5.0),
    )


@pytest.mark.parametrize(
    ("table", "shape", "message"),
    [
        ({"shfit": 1}, (28, 28), "there is no 'shfit'.*shift"),
        ({"shift": "far"}, (28, 28), "give a number"),
        ({"shift": -1}, (28, 28), "shift is -1"),
        ({"mirror": 1.5}, (28, 28), "mirror is 1.5.*give a probability from 0 to 1"),
        ({"turn": 5}, (784,), r"images have the shape \(784,\)"),
        ({"stretch": -1}, (28, 28), "stretch is -1"),
        ({"channel-shift": [1, 14]}, (28, 28), "channel_shift is .1, 14."),
        ({"channel-shift": [1, 14, 335]}, (28, 28), "335 channels by up to 1 groups of 14"),
        ({"channel-shift": 1}, (28, 28), "a list of whole numbers"),
    ],
)
def test_tables_that_make_no_sense_are_refused(table, shape, message):
    with pytest.raises(UsageError, match=message):
        augmentation_of(table, shape)


def test_currents_are_no_events():
    shift = ChannelShift(most=1, group=1, channels=2)
    for change in (Warp(shape=(1, 2), shift=1.0), Stretch(extent=0.1), shift):
        with pytest.raises(UsageError, match="the input is values"):
            change(KEY, Currents.constant(jnp.ones((1, 2))))


def test_a_stretched_sample_keeps_its_shape_and_stretches_vary():
    events = Events(time=jnp.array([0.1, 0.3, jnp.inf]), index=jnp.array([0, 1, 2]))
    factors = []
    for seed in range(50):
        time = np.asarray(Stretch(extent=0.2)(jax.random.key(seed), events).time)
        factors.append(time[0] / 0.1)
        np.testing.assert_allclose(time, factors[-1] * np.array([0.1, 0.3, np.inf]), rtol=1e-6)
    # as much longer as shorter, the middle of the logarithms at 0
    assert -0.2 <= np.log(factors).min() < -0.12
    assert 0.12 < np.log(factors).max() <= 0.2


def test_a_sample_moves_by_whole_groups_and_loses_what_leaves():
    # a slot for each of four groups of three channels, one of a bias, one that is unused
    clock = jnp.arange(14.0)
    whole = Events(time=clock.at[13].set(jnp.inf), index=jnp.arange(14))
    events = Events(time=whole.time[:12], index=whole.index[:12])
    shift = ChannelShift(most=1, group=3, channels=12)
    seen = set()
    for seed in range(20):
        moved = shift(jax.random.key(seed), whole)
        assert (moved.time[12:].tolist(), moved.index[12:].tolist()) == ([12, np.inf], [12, 13])
        moved = Events(time=moved.time[:12], index=moved.index[:12])
        there = np.isfinite(moved.time)
        step = set((moved.index - events.index)[there].tolist())
        assert len(step) == 1
        seen |= step
        assert there.sum() == 12 - abs(min(step))
        assert ((moved.index[there] >= 0) & (moved.index[there] < 12)).all()
    assert seen == {-3, 0, 3}


def test_a_table_says_how_sounds_are_changed():
    for name in ("channel-shift", "channel_shift"):
        chain = augmentation_of({"stretch": 0.2, name: [1, 14, 336]}, (120, 24))
        shift = ChannelShift(most=1, group=14, channels=336)
        assert chain.steps == (shift, Stretch(extent=0.2))


IMAGES = np.full((8, 4, 4), 0.5), np.arange(8) % 2


@pytest.mark.parametrize(
    ("inputs", "said", "message"),
    [
        (80, {"encoder": "population"}, "PopulationCode has several channels for each value"),
        (32, {"encoder": "delta"}, "Delta has several channels"),
        (32, {"encoder": "levels", "augment": Warp(shape=(4, 4), shift=1.0)}, "LevelCrossing has"),
        (16, {"augment": {"turn": 3, "shape": [28, 28]}}, r"784 channels \(shape .* has 16"),
        (16, {"augment": {"channel-shift": [1, 4, 20]}}, r"20 channels \(channels 20\), .* 16"),
    ],
)
def test_training_refuses_to_move_what_are_no_pixels_of_the_samples(inputs, said, message):
    neurons = build.cubalif(tau_mem="20ms", tau_syn="10ms")
    graph = build.sequential(build.input(inputs), build.linear(2), neurons, seed=0)
    with pytest.raises(UsageError, match=message):
        fit(graph, IMAGES, **{"augment": {"shift": 1}} | said, progress=None)
