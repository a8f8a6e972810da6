"""Both backends of the event engine on a few random networks; by hand on many, see `backends`."""

import pytest

from tests.fuzz import backends, event_engine


@pytest.mark.slow
@pytest.mark.parametrize("first", [0, 32, 40, 128])
@pytest.mark.usefixtures("x64", "native_kernels")
def test_both_backends_agree(first):
    done = backends.Compared()
    assert list(backends.compare(range(first, first + 2), done)) == []
    assert done.spikes > 10


@pytest.mark.slow
@pytest.mark.usefixtures("x64", "native_kernels")
def test_backends_part_at_ties_alone(monkeypatch):
    """V of an integrator comes to its threshold at the very time at which a box ends."""
    done = backends.Compared()
    assert list(backends.compare(range(24, 25), done)) == []
    assert (done.networks, done.tied) == (1, 1)
    monkeypatch.setattr(event_engine, "explanation", lambda *_: "UNEXPLAINED")
    (line, *_) = backends.compare(range(24, 25), backends.Compared())
    assert line.startswith("seed 24: times of n3")
