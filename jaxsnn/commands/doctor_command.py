"""`jaxsnn doctor`: versions, devices and extras."""

from __future__ import annotations

import argparse
import importlib.metadata
import platform
from dataclasses import asdict, dataclass
from typing import Any

from jaxsnn import __version__
from jaxsnn.commands.arguments import add_command, print_outcome

_CORE = ("jax", "jaxlib", "numpy", "optax", "networkx", "nir", "h5py")
#: Extra -> distributions that it brings.
_EXTRAS = {
    "plot": ("matplotlib",),
    "torch": ("torch", "nirtorch"),
    "interop": ("snntorch", "norse", "spikingjelly"),
}


@dataclass(frozen=True, kw_only=True)
class DoctorOutcome:
    """What `jaxsnn doctor` shows.

    Attributes:
        versions: distribution -> version, None where it is missing.
        devices: what JAX computes on.
        extras: extra -> whether all its distributions are there.
    """

    versions: dict[str, str | None]
    devices: tuple[str, ...]
    extras: dict[str, bool]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"schema": 1, **asdict(self), "devices": list(self.devices)}

    def as_text(self) -> str:
        """For people."""
        lines = [f"{name:12s} {version or 'missing'}" for name, version in self.versions.items()]
        lines.append(f"{'devices':12s} {', '.join(self.devices)}")
        for extra, there in self.extras.items():
            state = "installed" if there else f"missing: pip install 'jaxsnn-nir[{extra}]'"
            lines.append(f"{extra:12s} {state}")
        return "\n".join(lines)


def add(commands: Any) -> None:
    """The parser."""
    add_command(commands, "doctor", run, "show versions, devices and extras")


def run(arguments: argparse.Namespace) -> int:
    """The work; exit code 0."""
    print_outcome(arguments, diagnose())
    return 0


def diagnose() -> DoctorOutcome:
    """Look at what is installed."""
    import jax

    versions = {"jaxsnn-nir": __version__, "python": platform.python_version()}
    found = {
        name: _version(name)
        for name in (*_CORE, *(name for extra in _EXTRAS.values() for name in extra))
    }
    return DoctorOutcome(
        versions=versions | found,
        devices=tuple(
            f"{device.platform} {device.id} ({device.device_kind})" for device in jax.devices()
        ),
        extras={
            extra: all(found[name] is not None for name in names)
            for extra, names in _EXTRAS.items()
        },
    )


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
