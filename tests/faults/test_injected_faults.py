"""No fault of the disk, no interrupt and no stop tears a file or loses one."""

from pathlib import Path

import pytest

from tests.faults.injected import BEGIN, END, QUICK, SUBJECTS, all_injected

PAGE = Path(__file__).parents[2] / "docs" / "reliability.md"


def refuse_damage(counts):
    for name, count in counts.items():
        assert (name, count.torn, count.lost, count.left_behind) == (name, [], [], [])


@pytest.mark.slow
def test_pictures_and_conversions_are_never_torn():
    counts = all_injected(QUICK[:2])
    refuse_damage(counts)
    assert all(sum(count.faults.values()) >= 40 for count in counts.values())


@pytest.mark.slow
def test_no_command_tears_or_loses_a_file_and_the_page_counts_the_faults():
    counts = all_injected()
    refuse_damage(counts)
    assert sum(sum(count.faults.values()) for count in counts.values()) >= 300
    written = PAGE.read_text().partition(BEGIN)[2].partition(END)[0]
    for name, count in counts.items():
        # The number of writes of a training depends on which epoch is the best.
        assert f"| `{name}` |" in written
        if not name.startswith("train"):
            assert f"| `{name}` | {count.points} |" in written, (
                "write it: see tests/faults/injected.py"
            )


def test_every_command_that_writes_is_among_them():
    from tests.commands.test_cli import commands

    writing = {
        name
        for name, parser in commands().items()
        if any("--force" in action.option_strings for action in parser._actions)
    }
    assert {name.split()[0] for name in SUBJECTS} == writing
