"""The README's code runs from anywhere, and prints what the README says; its numbers are made."""

import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

import readme_numbers  # noqa: E402

TEXT = (ROOT / "README.md").read_text()


@pytest.mark.slow
@pytest.mark.interop
def test_the_quickstart_runs_and_prints_what_it_says(tmp_path, monkeypatch, capsys):
    blocks = re.findall(r"```python\n(.*?)```", TEXT, re.S)
    assert len(blocks) == 2
    monkeypatch.chdir(tmp_path)
    exec(compile("\n".join(blocks), "README.md", "exec"), {})
    verified, accuracy, names = capsys.readouterr().out.splitlines()
    assert verified == "True"
    assert float(accuracy.removesuffix("%")) > 90
    assert f"# {names}" in TEXT
    assert (tmp_path / "trained.nir").exists()


def test_the_quickstart_is_short_and_names_the_four_steps():
    block = re.findall(r"```python\n(.*?)```", TEXT, re.S)[0]
    for step in ("from_torch(", "verify(", "fit(", "write("):
        assert f"jaxsnn.{step}" in block
    lines = [line for line in block.splitlines() if line and not line.startswith("import")]
    assert len(lines) <= 15


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
    from jaxsnn.commands.cli import main

    assert main(["demo", "-o", str(tmp_path / "demo")]) == 0
    printed = capsys.readouterr().out
    shown = "\n".join(readme_numbers.demo_lines(printed))
    first, *lines = part("demo").splitlines()[1:-1]
    assert first == "$ make demo"
    assert masked("\n".join(lines)) == masked(shown)
    found, said = (re.findall(r"^test accuracy ([\d.]+)%", one, re.M) for one in (printed, TEXT))
    assert float(found[0]) == pytest.approx(float(said[0]), abs=1.0)


def test_what_is_left_out_of_the_demo_is_marked():
    printed = "1  read  a\n  more\n  test accuracy: 1\n2  simulate  b\n  c\n  d\n"
    assert list(readme_numbers.demo_lines(printed)) == [
        "1  read  a",
        "...",
        "  test accuracy: 1",
        "2  simulate  b",
        "...",
    ]


def test_the_number_of_tests_is_about_right(request):
    """Where `make test` runs; a part of the suite says nothing."""
    (said,) = re.findall(r"some ([\d,]+) tests", TEXT)
    said = [
        int(said.replace(",", "")),
        *map(int, re.findall(r"^(\d+) passed", part("tests"), re.M)),
    ]
    collected = len(request.session.items)
    whole = request.config.getoption("markexpr") == "not last_digits and not slow"
    assert min(said) > 1000
    assert not whole or collected < 6000 or max(abs(collected - one) for one in said) < 700
