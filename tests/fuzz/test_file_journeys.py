"""Some files of each kind that are broken at random: `make fuzz` takes many."""

import pytest

from tests.fuzz.file_journeys import KINDS, OtherFiles, outcome


@pytest.mark.parametrize("kind", KINDS)
def test_files_that_are_broken_at_random_are_read_or_refused(kind, tmp_path):
    files = OtherFiles(kind, tmp_path)
    path = tmp_path / ("mutated.npz" if kind in ("checkpoint", "arrays") else "mutated")
    outcomes = [outcome(number, files, path) for number in range(40)]
    assert [ending for ending in outcomes if ending[0] == "unexpected"] == []
    assert {ended for ended, _, _ in outcomes} == {"arrived", "refused"}
