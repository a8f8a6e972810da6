"""The lock, the bill of materials and the oldest versions agree with pyproject.toml and with each other."""

import json
import re
import zipfile

import pytest
from packaging.requirements import Requirement

from tests.supply.versions import (
    BILL,
    LOCK,
    NAME,
    ROOT,
    Installed,
    bill,
    licences,
    lock_text,
    locked,
    lowest,
    normal,
    project,
    record_hash,
    refuse_changed,
    requirements,
    version,
    wheel_hash,
)


@pytest.fixture(scope="module")
def content():
    return json.loads(BILL.read_text())


@pytest.fixture(scope="module")
def components(content):
    return {entry["name"]: entry for entry in content["components"]}


def test_every_dependency_is_locked_in_an_allowed_version():
    for requirement in requirements()[""]:
        assert requirement.specifier.contains(locked()[normal(requirement.name)]), requirement
    assert all(re.fullmatch(r"[\w.+!]+", number) for number in locked().values())


def test_the_lock_is_sorted_and_has_each_name_once():
    assert lock_text(dict(sorted(locked().items()))) == LOCK.read_text()


def test_the_oldest_versions_are_pins_that_are_allowed():
    allowed = {requirement.name: requirement.specifier for requirement in requirements()[""]}
    pins = dict(text.split("==") for text in lowest())
    assert pins.keys() == allowed.keys()
    assert all(allowed[name].contains(number) for name, number in pins.items())


def test_every_upper_bound_has_its_reason_and_none_is_a_pin():
    lines = (ROOT / "pyproject.toml").read_text().splitlines()
    bounded = [
        number for number, line in enumerate(lines) if re.search(r'"[\w.-]+>=[\d.]+,<', line)
    ]
    assert len(bounded) >= 5
    assert all(lines[number - 1].lstrip().startswith("# ") for number in bounded)
    texts = [
        text
        for part in (project()["dependencies"], *project()["optional-dependencies"].values())
        for text in part
    ]
    operators = {specifier.operator for text in texts for specifier in Requirement(text).specifier}
    assert operators <= {">=", "<"}


# -- the bill of materials


def test_the_bill_describes_this_version(content):
    root = content["metadata"]["component"]
    assert content["bomFormat"] == "CycloneDX"
    assert (root["name"], root["version"]) == (NAME, version())
    assert root["licenses"] == [{"expression": project()["license"]}]
    extras = {entry["name"] for entry in root["components"]}
    assert extras == {f"{NAME}[{extra}]" for extra in project()["optional-dependencies"]}


def test_every_component_has_a_version_a_hash_and_a_licence(components):
    for name, entry in components.items():
        assert entry["purl"] == entry["bom-ref"] == f"pkg:pypi/{name}@{entry['version']}"
        assert [re.fullmatch("[0-9a-f]{64}", item["content"]) for item in entry["hashes"]] != [None]
        assert entry["licenses"], name
        assert all(item.get("expression") or item["license"] for item in entry["licenses"]), name
    hashes = [entry["hashes"][0]["content"] for entry in components.values()]
    assert len(set(hashes)) == len(hashes)


def test_the_required_components_are_those_of_the_lock(components):
    required = {
        name: entry["version"] for name, entry in components.items() if entry["scope"] == "required"
    }
    assert required == locked()


def test_the_extras_are_in_the_bill_and_say_what_needs_them(content, components):
    properties = content["metadata"]["component"]["properties"]
    missing = {item["value"] for item in properties if item["name"] == "jaxsnn:not-installed"}
    assert missing <= {"coverage"}, "run make sbom, which installs all extras"
    for extra, needed in requirements().items():
        for requirement in needed:
            name = normal(requirement.name)
            if not extra or name in {NAME, *missing}:
                continue
            marks = {
                item["value"]
                for item in components[name]["properties"]
                if item["name"] == "jaxsnn:extra"
            }
            assert extra in marks, (extra, name)
            assert requirement.specifier.contains(components[name]["version"].split("+")[0])


def test_the_graph_names_components_alone_and_reaches_all_of_them(content):
    root = content["metadata"]["component"]
    refs = {entry["bom-ref"] for entry in content["components"]}
    edges = {entry["ref"]: entry["dependsOn"] for entry in content["dependencies"]}
    extras = [entry["bom-ref"] for entry in root["components"]]
    assert edges.keys() == refs | {root["bom-ref"], *extras}
    waiting, reached = [root["bom-ref"], *extras], set()
    while waiting:
        ref = waiting.pop()
        if ref not in reached:
            reached.add(ref)
            waiting += edges[ref]
    assert reached == edges.keys()
    direct = {normal(requirement.name) for requirement in requirements()[""]}
    assert {ref.removeprefix("pkg:pypi/").split("@")[0] for ref in edges[root["bom-ref"]]} == direct
    numpy, h5py = (
        next(ref for ref in refs if ref.startswith(f"pkg:pypi/{name}@"))
        for name in ("numpy", "h5py")
    )
    assert numpy in edges[h5py]


class Distribution:
    """What the bill reads of a distribution."""

    class Metadata(dict):
        def get_all(self, name):
            return self.get(name)

    def __init__(self, name, **metadata):
        self.version = "1.0"
        self.metadata = self.Metadata(
            {"Name": name} | {key.replace("_", "-"): value for key, value in metadata.items()}
        )


def test_equal_environments_have_equal_bills_and_others_another_number():
    def bill_of(licence):
        entries = {"numpy": Distribution("numpy", License_Expression=licence)}
        direct = {extra: {"numpy"} for extra in requirements()}
        return bill(Installed(entries, {"numpy": set()}, direct, set()), {"numpy": "0" * 64})

    assert bill_of("MIT") == bill_of("MIT")
    assert bill_of("MIT")["serialNumber"] != bill_of("ISC")["serialNumber"]
    with pytest.raises(ValueError, match="states no licence"):
        bill_of("")


def test_licences_are_those_that_the_metadata_state():
    def stated(**metadata):
        return licences(Distribution("x", **metadata).metadata)

    assert stated(License_Expression="MIT OR ISC") == [{"expression": "MIT OR ISC"}]
    both = ["License :: OSI Approved :: MIT License", "License :: Public Domain"]
    assert stated(Classifier=both, License="x") == [
        {"license": {"id": "MIT"}},
        {"license": {"name": "Public Domain"}},
    ]
    assert stated(License="Apache 2.0") == [{"license": {"name": "Apache 2.0"}}]
    assert stated(License="  GNU LESSER GENERAL PUBLIC LICENSE\n  Version 3") == [
        {"license": {"name": "GNU LESSER GENERAL PUBLIC LICENSE"}}
    ]
    assert stated() == []


# -- hashes

DIGEST = "sha256=LPJNul-wow4m6DsqxbninhsWHlwfp0JecwQzYpOLmCQ"  # of b"hello"
IN_WHEEL = (
    f"x/b.py,{DIGEST},5\nx/a.py,{DIGEST},5\nx-1.data/scripts/x,{DIGEST},5\nx-1.dist-info/RECORD,,\n"
)
INSTALLED = (
    f"../../bin/x,{DIGEST},9\nx/a.py,{DIGEST},5\nx/__pycache__/a.cpython-311.pyc,,\nx/b.py,{DIGEST},5\n"
    f"x-1.dist-info/INSTALLER,{DIGEST},4\nx-1.dist-info/RECORD,,\n"
)


def test_a_wheel_has_the_hash_of_its_installation(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.whl", "w") as archive:
        archive.writestr("x-1.dist-info/RECORD", IN_WHEEL)
    assert wheel_hash(tmp_path / "x.whl") == record_hash(INSTALLED)
    assert record_hash(INSTALLED.replace("LPJN", "LPJM", 1)) == record_hash(INSTALLED)  # a script
    assert record_hash(INSTALLED.replace("a.py,sha256=LPJN", "a.py,sha256=LPJM")) != record_hash(
        INSTALLED
    )


def test_files_that_were_changed_since_they_were_installed_are_noticed(tmp_path):
    (tmp_path / "x").mkdir()
    for name in ("a.py", "b.py"):
        (tmp_path / "x" / name).write_bytes(b"hello")
    refuse_changed(INSTALLED, tmp_path)
    (tmp_path / "x" / "b.py").write_bytes(b"hallo")
    with pytest.raises(ValueError, match=r"b\.py differs"):
        refuse_changed(INSTALLED, tmp_path)
