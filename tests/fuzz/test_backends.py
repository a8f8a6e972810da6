"""Both backends of the event engine on a few random networks; by hand on many, see `backends`."""

import pytest

from jaxsnn.event.native.native_build import native_library
from tests.fuzz import backends


@pytest.mark.slow
@pytest.mark.parametrize("first", [0, 32, 40, 128])
def test_both_backends_agree(first, x64):
    if not (library := native_library("float64")).there:
        pytest.skip(library.reason)
    done = backends.Compared()
    assert list(backends.compare(range(first, first + 2), done)) == []
    assert done.spikes > 10
