"""Placers and routers by name: those of this library, those registered, and those of installed
packages.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Generic, TypeVar

from jaxsnn.errors import UsageError, suggestion
from jaxsnn.wording import Text

Function = TypeVar("Function", bound=Callable[..., Any])


class Registry(Mapping[str, Function], Generic[Function]):
    """Functions of one kind by name; a mapping in the order built-in, registered, installed.

    Args:
        kind: Kind of the functions, for messages, such as "placer".
        group: Group of the entry points of installed packages, such as "jaxsnn.placers".
        built_in: Functions of this library, by name.
    """

    def __init__(self, kind: str, group: str, built_in: Mapping[str, Function]) -> None:
        self.kind, self.group = kind, group
        self._builtin, self._registered = dict(built_in), dict[str, Function]()

    def register(self, name: str, function: Function) -> None:
        """Add a function.

        Raises:
            UsageError: the name is empty or already used by another function, or the function is not
            callable.
        """
        if not name:
            raise UsageError(
                Text("the name of the {kind} is empty", kind=self.kind),
                fix="register it under a name",
            )
        if not callable(function):
            kind = type(function).__name__
            raise UsageError(
                Text(
                    "{kind} '{name}' is not callable (type: {type})",
                    kind=self.kind,
                    name=name,
                    type=kind,
                ),
                fix="register a function",
            )
        if self._all_strategies().get(name, function) is not function:
            raise UsageError(
                Text(
                    "the name '{name}' is already used by another {kind}", kind=self.kind, name=name
                ),
                fix="register it under another name",
            )
        if name not in self._builtin:
            self._registered[name] = function

    def named(self, requested: Iterable[str]) -> tuple[str, ...]:
        """Return the names (or the one name), after checking that each is registered.

        Raises:
            UsageError: A name is unknown, no name is specified, or an installed package uses a
                name that is already in use.
        """
        chosen = (requested,) if isinstance(requested, str) else tuple(requested)
        if not chosen:
            raise UsageError(
                Text("no {kind} is specified", kind=self.kind),
                fix=f"pass a name. {suggestion('', self)}",
            )
        every = list(self)
        for name in chosen:
            if name not in every:
                raise UsageError(
                    Text("there is no {kind} '{name}'", kind=self.kind, name=name),
                    fix=suggestion(name, every),
                )
        return chosen

    def __getitem__(self, name: str) -> Function:
        functions = self._all_strategies()
        return functions[name] if name in functions else self._loaded(self._installed()[name])

    def __contains__(self, name: object) -> bool:
        return name in self._all_strategies() or name in self._installed()

    def __iter__(self) -> Iterator[str]:
        yield from self._all_strategies()
        yield from self._installed()

    def __len__(self) -> int:
        return len(self._all_strategies()) + len(self._installed())

    def _all_strategies(self) -> dict[str, Function]:
        return self._builtin | self._registered

    def _installed(self) -> dict[str, EntryPoint]:
        """Return the entry points of installed packages, by name.

        Raises:
            UsageError: two functions have one name.
        """
        entry_points_by_name: dict[str, EntryPoint] = {}
        for point in sorted(entry_points(group=self.group)):
            if (
                point.name in self._all_strategies()
                or entry_points_by_name.get(point.name, point) != point
            ):
                raise UsageError(
                    Text(
                        "the name '{name}' is used by more than one {kind}, among them {value}",
                        kind=self.kind,
                        name=point.name,
                        value=point.value,
                    ),
                    fix="rename the entry point, or uninstall the package that has it",
                )
            entry_points_by_name[point.name] = point
        return entry_points_by_name

    def _loaded(self, point: EntryPoint) -> Function:
        try:
            return point.load()
        except (ImportError, AttributeError) as error:
            raise UsageError(
                Text(
                    "{kind} '{name}' cannot be loaded from {value} ({error})",
                    kind=self.kind,
                    name=point.name,
                    value=point.value,
                    error=error,
                ),
                fix="install the package again, or pass another name",
            ) from error
