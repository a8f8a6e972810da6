"""The versions of what the library needs: the oldest that are allowed, those that tests ran with, and
the bill of materials of the latter.

    python -m tests.supply.versions lowest        pins of the oldest versions, for pip
    python -m tests.supply.versions lock          write tests/supply/tested.txt and sbom.json, of this interpreter
    python -m tests.supply.versions hash A.whl    the hash of a wheel, as the bill of materials has it
"""

import base64
import csv
import hashlib
import json
import re
import sys
import tomllib
import uuid
import zipfile
from dataclasses import dataclass
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

ROOT = Path(__file__).parents[2]
LOCK, BILL = Path(__file__).with_name("tested.txt"), ROOT / "sbom.json"
NAME = "jaxsnn-nir"


def project():
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def version():
    """The version of the library, from its source."""
    text = (ROOT / "jaxsnn" / "version.py").read_text()
    return re.search(r'__version__ = "(.+)"', text)[1]


def normal(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def requirements():
    """Extra -> its requirements; "" for those of every installation."""
    from packaging.requirements import (
        Requirement,
    )  # which the interpreter that makes .venv may lack

    extras = {"": project()["dependencies"], **project()["optional-dependencies"]}
    return {extra: [Requirement(text) for text in texts] for extra, texts in extras.items()}


def lowest():
    """Pins of the oldest versions that pyproject.toml allows."""
    return [
        "==".join(re.match(r"([\w.-]+)>=([\d.]+)", text).groups())
        for text in project()["dependencies"]
    ]


# -- what is installed


@dataclass(frozen=True)
class Installed:
    """What the library needs, in this environment.

    Attributes:
        distributions: name -> distribution.
        needs: name -> names of what it needs itself.
        direct: extra -> names of its requirements; "" for those of every installation.
        missing: names of requirements of extras that are not installed.
    """

    distributions: dict[str, Distribution]
    needs: dict[str, set[str]]
    direct: dict[str, set[str]]
    missing: set[str]

    def closure(self, *extras):
        """Names of all that these extras need; "" for what every installation needs."""
        waiting = [name for extra in extras for name in self.direct[extra]]
        reached: set[str] = set()
        while waiting:
            name = waiting.pop()
            if name in self.distributions and name not in reached:
                reached.add(name)
                waiting += self.needs[name]
        return reached


def _needed(texts, extras):
    """Requirements that apply here, for these extras of the distribution that has them."""
    from packaging.requirements import Requirement

    for text in texts:
        requirement = Requirement(text) if isinstance(text, str) else text
        marker = requirement.marker
        if marker is None or any(marker.evaluate({"extra": extra}) for extra in ("", *extras)):
            yield requirement


def installed():
    """All that the library and its extras need, as far as it is installed."""
    distributions, needs, missing = {}, {}, set()
    direct = {extra: set() for extra in requirements()}
    waiting = []
    for extra, needed in requirements().items():
        for requirement in _needed(needed, ()):
            if normal(requirement.name) == NAME:  # an extra that includes others
                direct[extra] |= {
                    normal(inner.name)
                    for included_extra in requirement.extras
                    for inner in requirements()[included_extra]
                }
            else:
                direct[extra].add(normal(requirement.name))
                waiting.append((normal(requirement.name), tuple(requirement.extras)))
    seen = set()
    while waiting:
        name, extras = entry = waiting.pop()
        if entry in seen:
            continue
        seen.add(entry)
        try:
            distributions[name] = distribution(name)
        except PackageNotFoundError:
            missing.add(name)
            continue
        for requirement in _needed(distributions[name].requires or (), extras):
            needs.setdefault(name, set()).add(normal(requirement.name))
            waiting.append((normal(requirement.name), tuple(requirement.extras)))
    needs = {name: needs.get(name, set()) & distributions.keys() for name in distributions}
    return Installed(distributions, needs, direct, missing)


def record_hash(record):
    """SHA-256 of the lines of a RECORD that have a hash, sorted: those of a wheel are those of its
    installation. Left out are scripts, which have another path in each, and what installers add.

    Args:
        record: text of the RECORD.
    """
    lines = sorted(
        ",".join(row)
        for row in csv.reader(record.splitlines())
        if row and row[1] and not _moved_or_added(row[0])
    )
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _moved_or_added(path):
    added = ("INSTALLER", "REQUESTED", "direct_url.json")
    return (
        path.startswith("..")
        or ".data/" in path
        or path.endswith(".pyc")
        or Path(path).name in added
    )


def wheel_hash(path):
    """The hash of a wheel."""
    with zipfile.ZipFile(path) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/RECORD")]
        return record_hash(archive.read(name).decode())


def refuse_changed(record, folder):
    """Compare installed files with the hashes of a RECORD.

    Raises:
        ValueError: a file is missing or was changed since it was installed.
    """
    for path, expected, *_ in csv.reader(record.splitlines()):
        if not expected or _moved_or_added(path):
            continue
        algorithm, _, digest = expected.partition("=")
        place = Path(folder) / path
        actual = hashlib.new(algorithm, place.read_bytes()).digest() if place.is_file() else b""
        if base64.urlsafe_b64encode(actual).rstrip(b"=").decode() != digest:
            raise ValueError(f"{place} differs from what was installed")


#: Licences by their trove classifier, as SPDX has them; the others are named as the classifier does.
_SPDX = {
    "Apache Software License": "Apache-2.0",
    "MIT License": "MIT",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
}


def licences(metadata):
    """The licences that a distribution states, as entries of CycloneDX: its expression, else its
    classifiers, else its text.
    """
    if expression := metadata.get("License-Expression"):
        return [{"expression": expression}]
    classifiers = [
        text.rpartition(" :: ")[2]
        for text in metadata.get_all("Classifier") or ()
        if text.startswith("License :: ")
    ]
    stated = next(
        (line for line in (metadata.get("License") or "").splitlines() if line.strip()), ""
    )
    if not classifiers and len(stated) <= 40 and re.match(r"\s*[A-Za-z0-9]", stated):
        classifiers = [stated.strip()]
    return [
        {"license": {"id": _SPDX[name]} if name in _SPDX else {"name": name}}
        for name in classifiers
    ]


# -- lock and bill


def lock_text(versions):
    return "".join(f"{name}=={number}\n" for name, number in versions.items())


def locked():
    """Name -> version, of the lock."""
    return dict(line.split("==") for line in LOCK.read_text().splitlines())


def reference(name, number):
    return f"pkg:pypi/{name}@{number}"


def bill(contents: Installed, hashes):
    """A bill of materials in CycloneDX: the same bytes for the same environment.

    Args:
        hashes: name -> `record_hash`.
    """
    numbers = {name: entry.version for name, entry in contents.distributions.items()}
    refs = {name: reference(name, numbers[name]) for name in sorted(numbers)}
    required = contents.closure("")
    extras = {name: [] for name in refs}
    for extra in sorted(contents.direct.keys() - {""}):
        for name in contents.closure(extra):
            extras[name].append(extra)
    components = [
        {
            "type": "library",
            "bom-ref": ref,
            "name": name,
            "version": numbers[name],
            "scope": "required" if name in required else "optional",
            "hashes": [{"alg": "SHA-256", "content": hashes[name]}],
            "licenses": _licences_of(contents.distributions[name]),
            "purl": ref,
            "properties": [
                *({"name": "jaxsnn:extra", "value": extra} for extra in extras[name]),
                *(
                    {"name": "jaxsnn:licence-file", "value": file}
                    for file in contents.distributions[name].metadata.get_all("License-File") or ()
                ),
            ],
        }
        for name, ref in refs.items()
    ]
    root = reference(NAME, version())
    edges = {
        ref: sorted(refs[needed] for needed in contents.needs[name]) for name, ref in refs.items()
    }
    edges[root] = sorted(refs[name] for name in contents.direct[""])
    nested = []
    for extra in sorted(contents.direct.keys() - {""}):
        name = f"{NAME}[{extra}]"
        nested.append(
            {"type": "library", "bom-ref": f"{root}#{extra}", "name": name, "version": version()}
        )
        edges[f"{root}#{extra}"] = sorted(
            refs[entry] for entry in contents.direct[extra] if entry in refs
        )
    seed = hashlib.sha256(json.dumps([components, edges]).encode()).digest()[:16]
    about = {
        "type": "library",
        "bom-ref": root,
        "name": NAME,
        "version": version(),
        "licenses": [{"expression": project()["license"]}],
        "purl": root,
        "properties": [
            {
                "name": "jaxsnn:hash",
                "value": "SHA-256 of the sorted lines of RECORD that have a hash, without scripts: "
                "python -m tests.supply.versions hash A.whl",
            },
            *(
                {"name": "jaxsnn:not-installed", "value": name}
                for name in sorted(contents.missing & set().union(*contents.direct.values()))
            ),
        ],
        "components": nested,
    }
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.UUID(bytes=seed, version=4)}",
        "version": 1,
        "metadata": {"component": about},
        "components": components,
        "dependencies": [{"ref": ref, "dependsOn": edges[ref]} for ref in sorted(edges)],
    }


#: Licences of distributions whose metadata state none, from their licence files.
_UNSTATED = {"aedat": "MIT", "spikingjelly": "Apache-2.0"}


def _licences_of(entry):
    name = normal(entry.metadata["Name"])
    stated = licences(entry.metadata)
    if not stated and name in _UNSTATED:
        stated = [{"license": {"id": _UNSTATED[name]}}]
    if not stated:
        raise ValueError(f"{name} {entry.version} states no licence: add it to _UNSTATED")
    return stated


def main(action, *paths):
    if action == "lowest":
        sys.stdout.write("\n".join(lowest()) + "\n")
        return
    if action == "hash":
        sys.stdout.write("".join(f"{wheel_hash(path)}  {path}\n" for path in paths))
        return
    content, hashes = installed(), {}
    for entry in content.distributions.values():
        _licences_of(entry)  # what is missing is reported before all files are read
    for name, entry in content.distributions.items():
        record = entry.read_text("RECORD")
        refuse_changed(record, entry.locate_file(""))
        hashes[name] = record_hash(record)
    required = {name: content.distributions[name].version for name in sorted(content.closure(""))}
    LOCK.write_text(lock_text(required))
    BILL.write_text(json.dumps(bill(content, hashes), indent=1) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
