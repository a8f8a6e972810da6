"""Both backends of the event engine on a few random networks; by hand on many, see `backends`."""

from types import SimpleNamespace

import numpy as np
import pytest

from tests.fuzz import backends
from tests.oracles.continuous_time import Close


@pytest.mark.slow
@pytest.mark.parametrize("first", [0, 32, 40, 128])
@pytest.mark.usefixtures("x64", "native_kernels")
def test_both_backends_agree(first):
    done = backends.Compared()
    assert list(backends.compare(range(first, first + 2), done)) == []
    assert done.spikes > 10


@pytest.mark.parametrize(
    ("noted", "lines"), [(0.5, []), (0.9, ["times of n: 1.0e-01 time constants"])]
)
def test_backends_part_at_ties_alone(noted, lines):
    """The reference notes where rounding decides; what parts elsewhere is a difference."""

    def ran(*times):
        spikes = SimpleNamespace(time=np.reshape(times, (1, 1, -1)), count=np.full((1, 1), 2))
        return SimpleNamespace(
            run=lambda *_: SimpleNamespace(
                spikes={"n": spikes}, voltages={}, clipped_slopes={"n": 1}
            )
        )

    both = object.__new__(backends._Both)
    both.held, both.groups = 0.0, [ran(0.2, 0.5, np.inf), ran(0.2, 0.6, np.inf)]
    meaning = SimpleNamespace(subtract=frozenset(), inclusive=False)
    structure = SimpleNamespace(meaning=meaning, exact=False, equal=False)
    drawn = SimpleNamespace(t_end=1.0, nodes={}, structure=structure)
    close = Close(time=noted, what="meets", where="n", margin=0.0)
    wanted, done = [SimpleNamespace(close=[close], summed=[])], backends.Compared()
    assert list(both.differences(drawn, wanted, done)) == lines
    assert done.tied == (not lines)
