"""The register of frameworks: those of this package, one file each, and those from outside.

A framework from outside is registered by one call, or by an entry point of the group
`jaxsnn.frameworks` of an installed distribution, which names a `Framework`. It then works wherever
those of this package do: reading, inference, simulation, verification, check, conversion, commands.

The files of this package, like external ones, are loaded by name when the first framework is
requested. They import modules such as `jaxsnn.nir.convert.pipeline`, which use this register, so that
the register must not import them when it is loaded itself.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import re
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from types import MappingProxyType
from typing import Any, TypeVar

from jaxsnn.errors import UsageError, listing, suggestion
from jaxsnn.keywords import suggests_keywords
from jaxsnn.nir.frameworks.framework import Framework, Importer
from jaxsnn.nir.model.dialect import Conventions, Dialect, FrameworkOption
from jaxsnn.options import DT, FILE_OPTIONS
from jaxsnn.wording import Option, Text

#: Group of entry points with which distributions add frameworks.
ENTRY_POINTS = "jaxsnn.frameworks"
#: Framework modules of this folder, in the order in which they are listed everywhere.
_BUILTIN = (
    "nir",
    "snntorch",
    "norse",
    "sinabs",
    "rockpool",
    "spyx",
    "spikingjelly",
    "jaxsnn",
    "hxtorch",
    "snn_mlir",
    "lava",
    "nengo",
    "spinnaker2",
)
#: Names of the options that all dialects have.
COMMON_OPTIONS = tuple(option.name for option in FILE_OPTIONS)
_registered: dict[str, Framework] = {}
Known = TypeVar("Known", Conventions, Importer)


# Frameworks


def frameworks() -> Mapping[str, Framework]:
    """Return all frameworks by name: those of this package, then external ones."""
    _load_entry_points()
    return MappingProxyType(_all_frameworks())


def _all_frameworks() -> dict[str, Framework]:
    return {**_builtin_frameworks(), **_registered}


def framework_of(name: str) -> Framework:
    """Return the framework of a name.

    Raises:
        UsageError: There is no such framework.
    """
    registered = frameworks()
    if name not in registered:
        raise UsageError(
            Text("there is no framework '{framework}'", framework=name),
            fix=suggestion(name, registered),
        )
    return registered[name]


@suggests_keywords
def register_framework(framework: Framework) -> None:
    """Register an external framework globally; registering it again changes nothing.

    Raises:
        UsageError: A different framework has this name, or the framework is inconsistent.
    """
    if _all_frameworks().get(framework.name, framework) != framework:
        raise UsageError(
            Text("the framework '{framework}' is already registered", framework=framework.name),
            fix="use a different name, or call unregister_framework first",
        )
    _refuse_contradictions(framework)
    _registered[framework.name] = framework


def unregister_framework(name: str) -> None:
    """Remove an external framework, so that a changed one can be registered.

    Raises:
        UsageError: There is no external framework of this name.
    """
    if name not in _registered:
        raise UsageError(
            Text("no framework '{framework}' has been registered", framework=name),
            fix=suggestion(name, _registered),
        )
    del _registered[name]


@cache
def _builtin_frameworks() -> Mapping[str, Framework]:
    builtin_frameworks = (
        importlib.import_module(f"{__package__}.{name}").FRAMEWORK for name in _BUILTIN
    )
    return MappingProxyType({framework.name: framework for framework in builtin_frameworks})


@cache
def _load_entry_points() -> None:
    for entry in importlib.metadata.entry_points(group=ENTRY_POINTS):
        try:
            plug_in = entry.load()
        except Exception as error:
            raise UsageError(
                Text(
                    "the entry point '{entry}' of the group {group} ({value}) cannot be loaded "
                    "({error}: {reason})",
                    entry=entry.name,
                    group=ENTRY_POINTS,
                    value=entry.value,
                    error=type(error).__name__,
                    reason=error,
                ),
                fix="update or uninstall the package that declares it",
            ) from error
        if not isinstance(plug_in, Framework):
            raise UsageError(
                Text(
                    "the entry point '{entry}' of the group {group} ({value}) has the type {actual}, not "
                    "Framework",
                    entry=entry.name,
                    group=ENTRY_POINTS,
                    value=entry.value,
                    actual=type(plug_in).__name__,
                ),
                fix="let it refer to a jaxsnn.nir.frameworks.Framework",
            )
        register_framework(plug_in)


def _refuse_contradictions(framework: Framework) -> None:
    """Raise UsageError if the parts of a framework are inconsistent."""

    def refuse(description: str, fix: str) -> None:
        raise UsageError(
            Text("the framework '{framework}' ", framework=framework.name) + description,
            fix=fix,
        )

    if not re.fullmatch(r"[a-z][a-z0-9_]*", framework.name) or framework.name == "auto":
        refuse("has a name that cannot be an option", "use lower-case letters, digits and _")
    if not framework.dialects:
        refuse("has no conventions", "add a Conventions to `dialects`")
    for conventions in framework.dialects:
        if conventions.name != framework.name:
            refuse(
                Text("has conventions named '{actual}'", actual=conventions.name),
                "use the name of the framework for both",
            )
        for kind, rule in conventions.rules.items():
            bool_options = [option.name for option in conventions.options if option.kind == "bool"]
            if rule.option and (rule.option not in bool_options or rule.without is None):
                refuse(
                    Text(
                        "has a rule for {type} that depends on the option '{option}'",
                        type=kind,
                        option=rule.option,
                    ),
                    "add the option to `options` as a bool, and add `without` to the rule",
                )
    for parts in (framework.dialects, framework.importers):
        versions = [part.version for part in parts]
        if len(set(versions)) < len(versions):
            refuse(
                Text("has the same version twice ({versions})", versions=listing(versions)),
                "list each version once",
            )
    for importer in framework.importers:
        if (importer.write is None) != (importer.load is None):
            refuse(
                Text(
                    "has an importer {version} with only one of `write` and `load`",
                    version=importer.version,
                ),
                "add both, so that graphs can be converted for it, or remove both",
            )
        if importer.write is not None and importer.nodes is None:
            refuse(
                Text(
                    "has an importer {version} with `write`, but without `nodes`",
                    version=importer.version,
                ),
                "list the NIR types that it supports in `nodes`",
            )
    for option in framework.options:
        if option.name in COMMON_OPTIONS:
            refuse(
                Text("has an option '{option}', which all dialects have", option=option.name),
                "rename it",
            )
        namesake = _options(_all_frameworks()).get(option.name)
        if namesake is not None and namesake.kind != option.kind:
            refuse(
                Text(
                    "has an option '{option}' of kind {actual}; another framework has it with kind "
                    "{expected}",
                    option=option.name,
                    actual=option.kind,
                    expected=namesake.kind,
                ),
                "rename it",
            )


# Options, dialects and importers


def framework_options() -> dict[str, FrameworkOption]:
    """Return the options that belong to single frameworks, by name."""
    return _options(frameworks())


def _options(frameworks_by_name: Mapping[str, Framework]) -> dict[str, FrameworkOption]:
    return {
        option.name: option
        for framework in frameworks_by_name.values()
        for option in framework.options
    }


def file_options() -> dict[str, Option]:
    """Return the options for reading a file, by name: those of all frameworks, and those of single
    frameworks.
    """
    options: dict[str, Option] = {}
    for option in FILE_OPTIONS:
        options[option.name] = option
        options |= framework_options() if option is DT else {}
    return options


def owners(option: str) -> list[str]:
    """Return the names of the frameworks that have a framework option of this name."""
    return [
        name
        for name, framework in frameworks().items()
        if option in (framework_option.name for framework_option in framework.options)
    ]


def split_version(text: str) -> tuple[str, str]:
    """Return name and version of "name==version"; the version is "" if there is none.

    >>> split_version("snntorch==1.0"), split_version("norse")
    (('snntorch', '1.0'), ('norse', ''))
    """
    name, _, version = text.partition("==")
    return name.strip(), version.strip()


def conventions_of(name: str, version: str | None = None) -> Conventions:
    """Return the conventions of a framework's files.

    Args:
        name: Name of the framework.
        version: Version as in `Conventions.version`, or a more detailed one ("1.1.0" for "1.1"), or a
            later release; None or "": the default version.

    Raises:
        UsageError: The framework or its version is unknown.
    """
    dialect_versions = framework_of(name).dialects
    if not version:
        return dialect_versions[0]
    for_version = _of_version(dialect_versions, version)
    if for_version is None:
        raise _unknown_version(
            name, version, [conventions.version for conventions in dialect_versions]
        )
    return for_version


def dialect_of(name: str, version: str | None = None, **fields: Any) -> Dialect:
    """Return the dialect of a framework with the specified fields; all other fields are undecided.

    Args:
        name: Name of the framework.
        version: Version as in `conventions_of`.
        **fields: Fields of `Dialect`.

    Raises:
        UsageError: The framework or its version is unknown.

    >>> dialect_of("snntorch", reset="zero").conventions.threshold
    '>'
    """
    conventions = conventions_of(name, version)
    return Dialect(name=name, version=version or None, conventions=conventions, **fields)


def build_options(dialect: str) -> Mapping[str, Any]:
    """Return the options with which this library itself builds graphs in a dialect."""
    framework = frameworks().get(split_version(dialect)[0])
    return {} if framework is None else framework.dialects[0].build_options


def importer_of(name: str, version: str) -> Importer:
    """Return the importer of a framework's version: a number, or "main".

    Raises:
        UsageError: The version is unknown.
    """
    importers = framework_of(name).importers
    for_version = _of_version(importers, version)
    if for_version is None:
        raise _unknown_version(name, version, [importer.version for importer in importers])
    return for_version


def chosen_importer(name: str) -> Importer:
    """Return the importer of the installed version; else of the newest release."""
    importers = framework_of(name).importers
    installed = installed_importer(name)
    if installed is not None:
        return installed
    return next((importer for importer in importers if importer.released), importers[0])


def installed_importer(name: str) -> Importer | None:
    """Return the importer of the installed version; None if that is unknown."""
    version = installed_version(name)
    return None if version is None else _of_version(framework_of(name).importers, version)


def _of_version(releases: Sequence[Known], version: str) -> Known | None:
    """Return the entry of a version; for releases after the known ones, the entry of the version
    that follows them.
    """
    for release in releases:
        if covers(release.version, version):
            return release
    for release in releases:
        if release.after and _number(version) > _number(release.after):
            return release
    return None


def later_release(title: str, release: Known, version: str | None) -> str:
    """Return a note if a known version stands in for a later release; else "".

    >>> later_release("Norse", conventions_of("norse", "99"), "99")
    'Norse 99 is unknown and treated like main, which comes after 1.1'
    """
    if not version or not release.after or covers(release.version, version):
        return ""
    return Text(
        "{framework} {version} is unknown and treated like {known}, which comes after {after}",
        framework=title,
        version=version,
        known=release.version,
        after=release.after,
    )


def _unknown_version(name: str, version: str, version_names: list[str]) -> UsageError:
    versions = [text for text in version_names if text]
    fix = f"known versions: {listing(versions)}" if versions else "remove the version"
    return UsageError(
        Text("{framework} {version} is unknown", framework=name, version=version), fix=fix
    )


def covers(known_version: str, version: str) -> bool:
    """Return whether the entry of a known version applies to another one: "1.0" to "1.0" and
    "1.0.3".

    >>> covers("1.0", "1.0.3"), covers("1.0", "1.01"), covers("1.0", "main")
    (True, False, False)
    """
    return bool(known_version) and (
        version == known_version or version.startswith(f"{known_version}.")
    )


def _number(version: str) -> tuple[int, ...]:
    """Return the leading numbers of a version, for comparisons."""
    match = re.match(r"\d+(\.\d+)*", version)
    return tuple(map(int, match.group().split("."))) if match else ()


def installed_version(name: str) -> str | None:
    """Return the installed version of a framework, or None. The framework is not imported."""
    distribution = framework_of(name).distribution
    if not distribution:
        return None
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def with_importers(
    accepts: Callable[[Framework], bool] = lambda framework: True,
) -> tuple[str, ...]:
    """Return the names of the frameworks whose importers are known, in order."""
    return tuple(
        name
        for name, framework in frameworks().items()
        if framework.importers and accepts(framework)
    )


def writable() -> tuple[str, ...]:
    """Return the names of the frameworks for which a graph can be converted."""
    return with_importers(lambda framework: framework.writable)
