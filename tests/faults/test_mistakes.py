"""The table of mistakes fits the package, and changes of loaded functions are seen by all that hold them."""

import sys

import pytest

from tests.faults.mistakes import FOLDER, ROOT, TESTS, change_functions, mistakes_of


@pytest.mark.parametrize("package", TESTS)
def test_each_text_occurs_once_and_is_changed(package):
    mistakes = mistakes_of(package)
    assert len(mistakes) >= 24
    assert len({mistake.wrong for mistake in mistakes}) == len(mistakes)
    for mistake in mistakes:
        text = (ROOT / mistake.file).read_text()
        before, replaced, after = mistake.parts
        assert text.count(before + replaced + after) == 1, mistake.wrong
        assert mistake.applied(text) != text
        if mistake.file.endswith(".py"):
            compile(mistake.applied(text), mistake.file, "exec")


def test_each_table_belongs_to_a_package():
    assert {path.stem for path in FOLDER.glob("*.toml")} == {*TESTS}
    assert sum(len(mistakes_of(package)) for package in TESTS) >= 120


def test_functions_that_are_held_elsewhere_change(tmp_path, monkeypatch):
    before = "def add(a, b):\n    return a + b\n\nclass Sum:\n    def of(self, a):\n        return add(a, 1)\n"
    path = tmp_path / "summing.py"
    path.write_text(before)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "summing", raising=False)
    import summing

    held, total = summing.add, summing.Sum()
    change_functions(path, before, before.replace("a + b", "a - b").replace("a, 1", "a, 2"))
    assert held(5, 1) == 4
    assert total.of(5) == 3
    with pytest.raises(RuntimeError):
        change_functions(path, before, before + "LIMIT = 3\n")
