"""The versions of what the library needs: the oldest that are allowed, those that tests ran with, and
the bill of materials of the latter.

    python -m tests.supply.versions lowest     pins of the oldest versions, for pip
    python -m tests.supply.versions lock       write tests/supply/tested.txt and sbom.json, of this interpreter
"""

import hashlib
import json
import re
import sys
import tomllib
import uuid
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

ROOT = Path(__file__).parents[2]
LOCK, BILL = Path(__file__).with_name("tested.txt"), ROOT / "sbom.json"
_NAME = "jaxsnn-nir"


def project():
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def normal(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def _required(text):
    """The name of a requirement, and its marker."""
    name, _, marker = text.partition(";")
    return normal(re.match(r"[\w.-]+", name.strip())[0]), marker


def lowest():
    """Pins of the oldest versions that pyproject.toml allows."""
    return [text.replace(">=", "==") for text in project()["dependencies"]]


def closure():
    """Name -> distribution of all that the library needs here, what that needs included."""
    distributions, waiting = {}, [_required(text)[0] for text in project()["dependencies"]]
    while waiting:
        name = waiting.pop()
        if name in distributions:
            continue
        try:
            distributions[name] = distribution(name)
        except PackageNotFoundError:
            continue  # only for another system or Python version
        for text in distributions[name].requires or ():
            needed, marker = _required(text)
            if "extra" not in marker:
                waiting.append(needed)
    return dict(sorted(distributions.items()))


def lock_text(distributions):
    return "".join(
        f"{name}=={distribution.version}\n" for name, distribution in distributions.items()
    )


def locked():
    """Name -> version, of the lock."""
    lines = LOCK.read_text().splitlines()
    return dict(line.split("==") for line in lines)


def bill(versions, licences):
    """A bill of materials in CycloneDX: the same bytes for the same versions.

    Args:
        versions: name -> version.
        licences: name -> licence, as the distribution says it; may lack some.
    """
    seed = hashlib.sha256(json.dumps(versions).encode()).digest()[:16]
    components = [
        {
            "type": "library",
            "bom-ref": f"pkg:pypi/{name}@{version}",
            "name": name,
            "version": version,
            "purl": f"pkg:pypi/{name}@{version}",
            **({"licenses": [{"license": {"name": licences[name]}}]} if licences.get(name) else {}),
        }
        for name, version in versions.items()
    ]
    root = {"type": "library", "bom-ref": _NAME, "name": _NAME}
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.UUID(bytes=seed, version=4)}",
        "version": 1,
        "metadata": {"component": root | {"licenses": [{"expression": project()["license"]}]}},
        "components": components,
        "dependencies": [
            {"ref": _NAME, "dependsOn": [component["bom-ref"] for component in components]}
        ],
    }


def _licence(distribution):
    licence = (
        distribution.metadata.get("License-Expression")
        or distribution.metadata.get("License")
        or ""
    )
    return licence.splitlines()[0][:60] if licence.strip() else ""


def main(action):
    if action == "lowest":
        sys.stdout.write("\n".join(lowest()) + "\n")
        return
    distributions = closure()
    LOCK.write_text(lock_text(distributions))
    versions = {name: distribution.version for name, distribution in distributions.items()}
    content = bill(
        versions, {name: _licence(distribution) for name, distribution in distributions.items()}
    )
    BILL.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
