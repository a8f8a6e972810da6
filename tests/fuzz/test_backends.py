"""Both backends of the event engine on a few random networks; by hand on many, see `backends`."""

import pytest

from tests.fuzz import backends


@pytest.mark.slow
@pytest.mark.parametrize("first", [0, 32, 40, 128])
@pytest.mark.usefixtures("x64", "native_kernels")
def test_both_backends_agree(first):
    done = backends.Compared()
    assert list(backends.compare(range(first, first + 2), done)) == []
    assert done.spikes > 10
