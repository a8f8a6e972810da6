"""Spyx's importer runs files with decays of 0 and 1 in one population as we read them."""

import numpy as np
import pytest

from jaxsnn.nir import read
from tests.helpers.mixed_decays import MIXED_DECAYS, mixed_decays
from tests.helpers.random_spikes import random_raster
from tests.interop.players import import_and_play, needs_spyx, run_in_steps

pytestmark = pytest.mark.interop


@pytest.mark.parametrize("case", MIXED_DECAYS)
def test_spyx_runs_what_we_read(case, tmp_path):
    needs_spyx()
    path = tmp_path / "made.nir"
    x = random_raster(1, (60, 8, 4), 0.5).astype(np.float32)
    _, theirs = import_and_play(mixed_decays(case), "spyx", x, path, approximate=True)
    assert theirs.any(axis=(0, 1)).all()
    for dialect in ("auto", "spyx"):
        np.testing.assert_array_equal(run_in_steps(read(path, dialect=dialect), x), theirs)
