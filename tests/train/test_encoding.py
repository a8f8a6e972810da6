"""Values to spikes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxsnn.errors import UsageError
from jaxsnn.train import Current, Latency


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8), st.floats(0, 0.01), st.floats(0.02, 0.1))
def test_times_are_linear_in_the_values(values, t_min, t_max):
    for first, shares in (("small", values), ("large", [1 - value for value in values])):
        events = Latency(t_min=t_min, t_max=t_max, first=first)([values])
        wanted = [[t_min + share * (t_max - t_min) for share in shares]]
        assert np.allclose(events.time, wanted, rtol=1e-12)
        assert np.array_equal(events.index, [list(range(len(values)))])


def test_what_is_bright_comes_first_unless_told_otherwise():
    """As in the field: the brightest pixel fires at the start."""
    events = Latency(t_min=0.0, t_max=1.0)([[0.0, 0.25, 1.0]])
    assert events.time.tolist() == [[1.0, 0.75, 0.0]]
    with pytest.raises(UsageError, match='first="large" or first="small"'):
        Latency(t_min=0.0, t_max=1.0, first="bright")([[0.5]])


def test_a_current_is_the_value_all_the_time():
    currents = Current(scale=2.0, bias=True)(np.array([[[0.5], [-1.0]]]))
    assert currents.time.tolist() == [[0.0]]
    assert currents.value.tolist() == [[[1.0, -2.0, 2.0]]]
    with pytest.raises(UsageError, match="sample 0, channel 1 has the value nan"):
        Current()([[0.5, np.nan]])


def test_the_bias_channel_comes_last_and_spikes_first():
    events = Latency(t_min=0.001, t_max=0.01, bias=True)(np.full((2, 3), 0.5))
    assert np.array_equal(events.time[:, 3], [0.001, 0.001])
    assert np.array_equal(events.index, np.tile(np.arange(4), (2, 1)))


def test_other_axes_become_channels():
    values = np.linspace(0, 1, 12).reshape(1, 3, 4)
    events = Latency(t_min=0.0, t_max=1.0, first="small")(values)
    assert np.allclose(events.time, [np.linspace(0, 1, 12)])


def test_not_a_number_is_no_spike():
    events = Latency(t_min=0.0, t_max=1.0)([[0.5, np.nan]])
    assert events.time[0, 1] == np.inf
    assert events.index[0, 1] == 2


def test_values_outside_are_refused_by_name():
    with pytest.raises(UsageError, match=r"sample 1, channel 0 has the value 1\.5"):
        Latency(t_min=0.0, t_max=1.0)([[0.5], [1.5]])
    with pytest.raises(UsageError, match=r"\(samples, channels\)"):
        Latency(t_min=0.0, t_max=1.0)([0.5])
