"""Some files of each kind that are broken at random: `make fuzz` takes many."""

import os
import signal

import pytest

from tests.fuzz import file_journeys
from tests.fuzz.file_journeys import (
    BEGIN,
    END,
    KINDS,
    OtherFiles,
    endings,
    outcome,
    path_in,
    with_rows,
)


@pytest.mark.parametrize("kind", KINDS)
def test_files_that_are_broken_at_random_are_read_or_refused(kind, tmp_path):
    files = OtherFiles(kind, tmp_path)
    path = path_in(tmp_path, kind)
    outcomes = [outcome(number, files, path) for number in range(40)]
    assert [ending for ending in outcomes if ending[0] == "unexpected"] == []
    assert {ended for ended, _, _ in outcomes} == {"arrived", "refused"}


class Journeys:
    """A kind of files whose second journey in a process is a defect."""

    def __init__(self, folder):
        self.count = 0

    def image(self, rng):
        return b""

    def journey(self, path, rng):
        yield "read"
        self.count += 1
        if self.count == 2:
            self.defect()

    def defect(self):
        raise KeyError("defect")


class Crash(Journeys):
    def defect(self):
        os.kill(os.getpid(), signal.SIGKILL)


class Endless(Journeys):
    def defect(self):
        while True:
            pass


class Large(Journeys):
    def defect(self):
        assert len(b"1" * (64 * 2**20)) == 64 * 2**20


@pytest.mark.parametrize("kind", [Crash, Endless])
def test_workers_go_on_after_a_crash_and_after_an_endless_file(kind, monkeypatch):
    monkeypatch.setitem(KINDS, "defect", kind)
    monkeypatch.setattr(file_journeys, "_STOPPED_AFTER", 0.5)
    outcomes = {number: ended for number, ended, *_ in endings("defect", range(7), 2, float("inf"))}
    # A worker takes 0, 2, 4 and 6, and another one the others; after each defect a new one goes on.
    expected = dict.fromkeys((0, 1, 4, 5), "arrived") | dict.fromkeys((2, 3, 6), "unexpected")
    assert outcomes == expected


def test_errors_and_memory_beyond_the_documented_limit_are_unexpected(monkeypatch, tmp_path):
    def second(kind):
        monkeypatch.setitem(KINDS, "defect", kind)
        files = OtherFiles("defect", tmp_path)
        assert outcome(0, files, tmp_path / "x")[0] == "arrived"
        return outcome(1, files, tmp_path / "x")

    ended, _, text = second(Journeys)
    assert ended == "unexpected"
    assert "KeyError" in text
    assert second(Large)[0] == "arrived"
    monkeypatch.setattr(file_journeys, "_MEMORY", 32 * 2**20)
    assert second(Large)[0] == "unexpected"


def test_rows_of_a_table_are_replaced_and_added():
    head = "| kind | files | date | unexpected |\n|---|---|---|---|"
    page = f"a\n{BEGIN}\n\n{head}\n| nir | 4 | 2026-01-01 | 1 |\n| idx | 5 | 2026-01-01 | 0 |\n\n{END}\nb"
    rows = "| nir | 4 | 2026-01-01 | 1 |\n| idx | 50,000 | 2026-12-02 | 0 |\n| png | 7 | 2026-12-02 | 2 |"
    expected = f"a\n{BEGIN}\n\n{head}\n{rows}\n\n{END}\nb"
    assert with_rows(page, {"idx": (50_000, 0), "png": (7, 2)}, "2026-12-02") == expected
