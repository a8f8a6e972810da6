"""The README's code runs from anywhere, and prints what the README says; its numbers are made."""

import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

import readme_numbers  # noqa: E402

from jaxsnn.commands.cli import main  # noqa: E402

TEXT = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", TEXT, re.S)


@pytest.mark.slow
@pytest.mark.interop
def test_the_quickstart_runs_and_prints_what_it_says(tmp_path, monkeypatch, capsys):
    assert len(BLOCKS) == 2
    monkeypatch.chdir(tmp_path)
    exec(compile("\n".join(BLOCKS), "README.md", "exec"), {})
    verified, accuracy, nodes = capsys.readouterr().out.splitlines()
    assert verified == "True"
    assert float(accuracy.removesuffix("%")) > 90
    assert f"# {nodes}" in TEXT
    assert (tmp_path / "trained.nir").exists()


def test_the_quickstart_is_short_and_names_the_four_steps():
    for step in ("from_torch(", "verify(", "fit(", "write("):
        assert f"jaxsnn.{step}" in BLOCKS[0]
    _, module, steps = BLOCKS[0].split("\n\n\n")
    assert len(module.splitlines()) <= 20
    assert len([line for line in steps.splitlines() if line]) <= 8


def part(name):
    return TEXT.split(f"<!-- begin {name} -->\n")[1].split(f"\n<!-- end {name} -->")[0]


def test_the_numbers_of_the_speed_are_those_of_the_measured_page():
    page = readme_numbers.PERFORMANCE.read_text()
    for name, table in (("work", readme_numbers.work_table), ("speed", readme_numbers.speed_table)):
        assert part(name) == table(page), "run benchmarks/readme_numbers.py --write"
    assert part("work").count("\n") > 10


def test_the_frameworks_that_files_are_converted_for_are_those_of_the_register():
    assert readme_numbers.feature_row() in TEXT, "run benchmarks/readme_numbers.py --write"
    assert "snnTorch, Norse" in readme_numbers.converted_for()


def masked(text):
    """Lines without their numbers, and without the time that a step took."""
    return re.sub(r"[\d.]+(e[-+]?\d+)?", "N", text).splitlines()


@pytest.mark.slow
def test_the_demo_prints_what_is_shown(tmp_path, capsys):
    assert main(["demo", "-o", str(tmp_path / "demo")]) == 0
    output = capsys.readouterr().out
    command, *lines = part("demo").splitlines()[1:-1]
    assert command == "$ make demo"
    assert masked("\n".join(lines)) == masked("\n".join(readme_numbers.demo_lines(output)))
    accuracy, written = (
        float(re.findall(r"^test accuracy ([\d.]+)%", text, re.M)[0]) for text in (output, TEXT)
    )
    assert accuracy == pytest.approx(written, abs=1.0)


def test_what_is_left_out_of_the_demo_is_marked():
    output = "1  read  a\n  more\n  test accuracy: 1\n10 simulate  b\n  c\n  d\n"
    lines = ["1  read  a", "...", "  test accuracy: 1", "10 simulate  b", "..."]
    assert list(readme_numbers.demo_lines(output)) == lines


def test_the_number_of_tests_is_about_right(request):
    """Where `make test` runs; a part of the suite says nothing."""
    (rounded,) = re.findall(r"some ([\d,]+) tests", TEXT)
    passed = re.findall(r"^(\d+) passed", part("tests"), re.M)
    counts = [int(count.replace(",", "")) for count in (rounded, *passed)]
    assert min(counts) > 1000
    collected = len(request.session.items)
    complete = request.config.getoption("markexpr") == "not last_digits and not slow and not long"
    if complete and collected >= 6000:
        assert max(abs(collected - count) for count in counts) < 700
