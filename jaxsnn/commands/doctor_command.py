"""`jaxsnn doctor`: versions, devices, extras, and the frameworks that are known."""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import platform
from dataclasses import asdict, dataclass
from typing import Any

from jaxsnn.commands.arguments import add_command, print_outcome
from jaxsnn.commands.remarks import line_of
from jaxsnn.errors import Problem, first_line
from jaxsnn.version import __version__
from jaxsnn.wording import Text

_CORE = ("jax", "jaxlib", "numpy", "optax", "networkx", "nir", "h5py")
#: Extra -> distributions that it installs. Those of frameworks are in the frameworks' descriptions.
_EXTRAS = {
    "plot": ("matplotlib",),
    "torch": ("torch", "nirtorch"),
    "data": ("pillow", "scikit-learn"),
    "events": ("aedat",),
}
#: Extra -> features that need it.
ENABLES = {
    "plot": "pictures: jaxsnn plot, draw as PNG and PDF, run --plot, pictures in reports",
    "torch": "from_torch, to_torch and load_into (the PyTorch framework must be installed, too)",
    "data": "train --data digits, wav:FOLDER, and images from PNG files",
    "events": "recordings of event cameras in .aedat4 files",
    "interop": "from_torch, to_torch and load_into for modules of snnTorch, Norse and SpikingJelly",
}


@dataclass(frozen=True, kw_only=True)
class DoctorOutcome:
    """Outcome of `jaxsnn doctor`.

    Attributes:
        versions: distribution -> version, None where it is missing.
        devices: devices that JAX computes on.
        extras: extra -> whether all its distributions are installed.
        missing: extra -> its distributions that are not installed.
        backends: backend of the event engine -> whether it is available, and the reason.
        frameworks: name of a framework -> its installed version (None if there is none), the known
            versions of its importer, and the version for which files are written by default.
        enables: extra -> features that need it.
        conflict: other distributions whose files mix with those of this one, and the way out; "" if
            there is none.
    """

    versions: dict[str, str | None]
    devices: tuple[str, ...]
    extras: dict[str, bool]
    missing: dict[str, tuple[str, ...]]
    backends: dict[str, str]
    frameworks: dict[str, dict[str, Any]]
    enables: dict[str, str]
    conflict: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return a JSON-compatible dict."""
        return {"schema": 1, **asdict(self), "devices": list(self.devices)}

    def as_text(self) -> str:
        """Return human-readable text."""
        lines = [f"{name:12s} {version or 'missing'}" for name, version in self.versions.items()]
        if self.conflict:
            lines.append(f"{'conflict':12s} {self.conflict}")
        lines.append(f"{'devices':12s} {', '.join(self.devices)}")
        for extra, there in self.extras.items():
            state = (
                "installed" if there else f"missing: pip install {' '.join(self.missing[extra])}"
            )
            lines.append(f"{extra:12s} {state}; for {self.enables[extra]}")
        lines += [f"{name:12s} {state}" for name, state in self.backends.items()]
        for name, support in self.frameworks.items():
            installed = support["installed"] or "not installed"
            versions = ", ".join(support["importers"]) or "none"
            lines.append(f"{name:12s} {installed}; supported importers: {versions}")
        return "\n".join(lines)


def add(commands: Any) -> None:
    """Add the parser."""
    text = "show versions, devices, optional packages and supported frameworks"
    add_command(commands, "doctor", run, text)


def run(arguments: argparse.Namespace) -> int:
    """Run the command; exit code 0."""
    print_outcome(arguments, diagnose())
    return 0


def diagnose() -> DoctorOutcome:
    """Collect the installed versions, devices, extras and frameworks."""
    from jaxsnn.event.native.native_build import native_library
    from jaxsnn.nir.frameworks.registry import chosen_importer, frameworks, installed_version
    from jaxsnn.other_distributions import mixed_files_advice

    native = native_library()
    without = f"not available, XLA is used instead: {native.reason}: {native.fix}"
    extras = dict(_EXTRAS)
    for framework in frameworks().values():
        if framework.extra:
            extras[framework.extra] = (*extras.get(framework.extra, ()), framework.distribution)
    packages = (*_CORE, *(name for extra in extras.values() for name in extra))
    installed_versions = {name: _version(name) for name in packages}
    missing = {
        extra: tuple(name for name in required if installed_versions[name] is None)
        for extra, required in extras.items()
    }
    versions = {"jaxsnn-nir": __version__, "python": platform.python_version()}
    return DoctorOutcome(
        versions=versions | installed_versions,
        devices=_devices(),
        extras={extra: not absent for extra, absent in missing.items()},
        missing=missing,
        enables={
            extra: ENABLES.get(extra, "frameworks added by other packages") for extra in extras
        },
        backends={
            "native": native.reason if native.there else without,
            "xla": "always there",
        },
        frameworks={
            name: {
                "installed": installed_version(name),
                "importers": [importer.version for importer in framework.importers],
                "written_for": chosen_importer(name).version if framework.importers else None,
            }
            for name, framework in frameworks().items()
            if framework.distribution
        },
        conflict=mixed_files_advice(),
    )


def _devices() -> tuple[str, ...]:
    """Return the devices that JAX computes on, or the reason why it has none."""
    import jax

    if (problem := missing_device()) is not None:
        return (f"none: {line_of(problem)}",)
    return tuple(
        f"{device.platform} {device.id} ({device.device_kind})" for device in jax.devices()
    )


def missing_device() -> Problem | None:
    """Return the problem of the devices that the environment requests from JAX; None if there is
    none.
    """
    import jax

    platforms = os.environ.get("JAX_PLATFORMS")
    if not platforms:
        return None
    try:
        jax.devices()
    except Exception as error:  # including an AssertionError without a message
        why = Text(" ({error})", error=first_line(error)) if str(error) else ""
        return Problem(
            code="usage",
            message=Text(
                "JAX_PLATFORMS is '{platforms}', which JAX cannot use on this machine{error}",
                platforms=platforms,
                error=why,
            ),
            fix="unset it, or install JAX for this device",
        )
    return None


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
