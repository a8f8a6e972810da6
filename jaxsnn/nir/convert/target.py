"""Whom a graph is written for: one version of one framework's importer."""

from __future__ import annotations

import dataclasses

from jaxsnn.errors import UsageError, suggestion
from jaxsnn.nir.frameworks.framework import Framework, Importer
from jaxsnn.nir.frameworks.registry import (
    chosen_importer,
    covers,
    framework_of,
    importer_of,
    installed_importer,
    installed_version,
    later_release,
    split_version,
    with_importers,
    writable,
)
from jaxsnn.nir.model.loops import Order
from jaxsnn.options import TO
from jaxsnn.wording import Text


@dataclasses.dataclass(frozen=True, kw_only=True)
class Target:
    """One version of an importer.

    Attributes:
        title: Of the framework, as people write it.
        importer: What is known of it.
        framework: Whose importer it is; None for one that belongs to no framework.
        asked: The version that was asked for, "" if none was.
    """

    title: str
    importer: Importer
    framework: Framework | None = None
    asked: str = ""

    @property
    def label(self) -> str:
        """Framework and version, for people: "snnTorch 1.0"."""
        return f"{self.title} {self.importer.version}".strip()

    @property
    def late(self) -> bool:
        """Each of its layers takes a step."""
        return self.framework is not None and self.framework.dialects[0].spikes_from == "before"

    @property
    def channels_last(self) -> bool:
        """Its Flatten joins height, width and channel, in this order."""
        return self.framework is not None and self.framework.dialects[0].channels_last

    @property
    def runs_loops(self) -> Order | None:
        """How its importer orders nodes; None: it runs no loops but of a neuron and its weights."""
        if self.framework is None:
            return None
        dialects = self.framework.dialects
        version = self.importer.version
        conventions = next(
            (dialect for dialect in dialects if dialect.version == version), dialects[0]
        )
        return conventions.runs_loops

    def notes(self) -> tuple[str, ...]:
        """What its version is worth here: another one was asked for or is installed, or nobody ran
        this one.
        """
        later = later_release(self.title, self.importer, self.asked)
        found = [later] if later else []
        installed = None if self.framework is None else installed_version(self.framework.name)
        if installed is not None and not covers(self.importer.version, installed):
            found.append(self._other_version(installed))
        if not self.importer.ran:
            found.append(f"what {self.label} reads is known from its source, and was not run")
        return tuple(found)

    def _other_version(self, installed: str) -> str:
        assert self.framework is not None
        text = f"written for {self.label}, installed is {installed}"
        known = installed_importer(self.framework.name)
        if known is None:
            return f"{text}, of which nothing is known here"
        if known == self.importer:
            return f"{text}, a release after {known.after}, which is taken for it"
        setting = TO.set_to(f"{self.framework.name}=={known.version}")
        return Text("{text}: say {setting} for that one", text=text, setting=setting)


def target_of(text: str) -> Target:
    """Whom to write for.

    Args:
        text: A framework, with a version if need be: "snntorch", "snntorch==1.0",
            "snntorch==main". Without one, the version that is installed is meant; else the newest
            that is released.

    Raises:
        UsageError: Nothing is written for such a framework, or nothing is known of that version.
    """
    name, version = split_version(text)
    if name not in writable():
        raise UsageError(f"there is no conversion to '{name}'", fix=suggestion(name, writable()))
    target = _target(name, version)
    if target.importer.write is None:
        raise UsageError(f"there is no conversion to {target.label}", fix="leave the version out")
    return target


def importer_target(text: str) -> Target:
    """Whose importer to ask, likewise; also one that nothing is written for.

    Raises:
        UsageError: Nothing is known of such an importer.
    """
    name, version = split_version(text)
    known = with_importers()
    if name not in known:
        raise UsageError(f"nothing is known of an importer '{name}'", fix=suggestion(name, known))
    return _target(name, version)


def _target(name: str, version: str) -> Target:
    framework = framework_of(name)
    importer = importer_of(name, version) if version else chosen_importer(name)
    return Target(title=framework.title, importer=importer, framework=framework, asked=version)
