"""The lock, the bill of materials and the oldest versions agree with pyproject.toml."""

import json
import re

from tests.supply.versions import BILL, ROOT, bill, lock_text, locked, lowest, normal, project


def test_every_dependency_is_locked():
    needed = {normal(re.match(r"[\w.-]+", text)[0]) for text in project()["dependencies"]}
    assert needed <= set(locked())
    assert all(re.fullmatch(r"[\w.+!]+", version) for version in locked().values())


def test_locked_versions_are_allowed():
    for text in lowest():
        name, _, least = text.partition("==")
        numbers = [
            [int(part) for part in re.findall(r"\d+", version)[:3]]
            for version in (locked()[normal(name)], least)
        ]
        assert numbers[0] >= numbers[1], text


def test_the_bill_is_that_of_the_lock():
    content = json.loads(BILL.read_text())
    licences = {
        component["name"]: component["licenses"][0]["license"]["name"]
        for component in content["components"]
        if "licenses" in component
    }
    assert content == bill(locked(), licences)
    assert content["bomFormat"] == "CycloneDX"


def test_the_lock_is_sorted_and_has_each_name_once():
    class Found:
        def __init__(self, version):
            self.version = version

    assert (
        lock_text({name: Found(version) for name, version in sorted(locked().items())})
        == (ROOT / "tests" / "supply" / "tested.txt").read_text()
    )


def test_the_oldest_versions_are_pins():
    assert all(re.fullmatch(r"[\w.-]+==[\d.]+", text) for text in lowest())
