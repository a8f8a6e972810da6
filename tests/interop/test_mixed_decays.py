"""Spyx's importer runs files with decays of 0 and 1 in one population as we read them."""

import numpy as np
import pytest

from jaxsnn import TimeStepped, lower, simulate
from jaxsnn.nir import read, write
from jaxsnn.nir.convert.pipeline import convert
from tests.helpers.mixed_decays import MIXED_DECAYS, mixed_decays
from tests.helpers.random_spikes import random_raster
from tests.interop.players import needs_spyx, play

pytestmark = pytest.mark.interop


@pytest.mark.parametrize("case", MIXED_DECAYS)
def test_spyx_runs_what_we_read(case, tmp_path):
    needs_spyx()
    path = tmp_path / "made.nir"
    made = convert(mixed_decays(case), to="spyx", approximate=True, path=str(path))
    write(path, made.graph)
    x = random_raster(1, (60, 8, 4), 0.5).astype(np.float32)
    theirs = play(made.load_with, "spyx", x)
    assert theirs.any(axis=(0, 1)).all()
    for dialect in ("auto", "spyx"):
        again = lower(read(path, dialect=dialect), dtype=np.float32)
        ours = simulate(again, x, engine=TimeStepped()).output()
        np.testing.assert_array_equal(np.asarray(ours), theirs)
