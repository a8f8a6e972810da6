"""Target of a conversion: one version of one framework's importer."""

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
    """Importer of a specified version as the target of a conversion.

    Attributes:
        title: Name of the framework in prose.
        importer: Properties of the importer.
        framework: The framework of the importer; None if it belongs to no framework.
        requested_version: The version that the user requests, "" for none.
    """

    title: str
    importer: Importer
    framework: Framework | None = None
    requested_version: str = ""

    @property
    def label(self) -> str:
        """Framework and version, for people: "snnTorch 1.0"."""
        return f"{self.title} {self.importer.version}".strip()

    @property
    def late(self) -> bool:
        """Whether each layer of the target delays spikes by one step."""
        return self.framework is not None and self.framework.dialects[0].spikes_from == "before"

    @property
    def channels_last(self) -> bool:
        """Whether the target's Flatten joins height, width and channel, in this order."""
        return self.framework is not None and self.framework.dialects[0].channels_last

    @property
    def runs_loops(self) -> Order | None:
        """Order in which the importer runs nodes; None if it supports only loops of a population and
        its weights.
        """
        if self.framework is None:
            return None
        dialects = self.framework.dialects
        version = self.importer.version
        conventions = next(
            (dialect for dialect in dialects if dialect.version == version), dialects[0]
        )
        return conventions.runs_loops

    def notes(self) -> tuple[str, ...]:
        """Return notes on the version: another one is requested or installed, or this one was not
        run.
        """
        later = later_release(self.title, self.importer, self.requested_version)
        notes = [later] if later else []
        installed = None if self.framework is None else installed_version(self.framework.name)
        if installed is not None and not covers(self.importer.version, installed):
            notes.append(self._other_version(installed))
        if not self.importer.ran:
            notes.append(
                Text(
                    "support for {importer} is based on its source code; it was not tested by running it",
                    importer=self.label,
                )
            )
        return tuple(notes)

    def _other_version(self, installed: str) -> str:
        assert self.framework is not None
        text = Text(
            "written for {importer}, but the installed version is {installed}",
            importer=self.label,
            installed=installed,
        )
        importer = installed_importer(self.framework.name)
        if importer is None:
            return Text("{text}, which this library does not know", text=text)
        if importer == self.importer:
            return Text(
                "{text}, a release after {after} that is treated like {after}",
                text=text,
                after=importer.after,
            )
        setting = TO.set_to(f"{self.framework.name}=={importer.version}")
        return Text("{text}; for that version pass {setting}", text=text, setting=setting)


def target_of(text: str) -> Target:
    """Return the target of a conversion.

    Args:
        text: Framework, optionally with a version: "snntorch", "snntorch==1.0", "snntorch==main".
            Default: the installed version, or the newest release if none is installed.

    Raises:
        UsageError: There is no conversion to this framework or to this version.
    """
    name, version = split_version(text)
    if name not in writable():
        raise UsageError(
            Text("there is no conversion to '{framework}'", framework=name),
            fix=suggestion(name, writable()),
        )
    target = _target(name, version)
    if target.importer.write is None:
        raise UsageError(
            Text("there is no conversion to {importer}", importer=target.label),
            fix="remove the version",
        )
    return target


def importer_target(text: str) -> Target:
    """Return a target with a known importer, including importers for which no files can be written.

    Raises:
        UsageError: There is no such importer.
    """
    name, version = split_version(text)
    frameworks = with_importers()
    if name not in frameworks:
        raise UsageError(
            Text("there is no importer '{importer}'", importer=name),
            fix=suggestion(name, frameworks),
        )
    return _target(name, version)


def _target(name: str, version: str) -> Target:
    framework = framework_of(name)
    importer = importer_of(name, version) if version else chosen_importer(name)
    return Target(
        title=framework.title, importer=importer, framework=framework, requested_version=version
    )
