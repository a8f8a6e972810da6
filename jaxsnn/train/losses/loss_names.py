"""Losses by name: those of this library, those that `register_loss` adds, and those of installed
packages.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib.metadata import EntryPoint, entry_points
from types import MappingProxyType
from typing import Any, TypeVar, get_args

from jaxsnn.errors import UsageError, suggestion
from jaxsnn.train.losses.losses import (
    ExponentialSum,
    FirstSpike,
    Integral,
    Loss,
    MaxOverTime,
    Reads,
    SpikeCount,
    SpikeTimes,
)

#: Entry points of this group are losses: `its-name = "package.module:Class"`.
GROUP = "jaxsnn.losses"

_LOSSES: dict[str, Any] = {
    "ttfs": FirstSpike,
    "mse": SpikeTimes,
    "max": MaxOverTime,
    "count": SpikeCount,
    "integral": Integral,
    "exp-sum": ExponentialSum,
}

#: Losses by the name that `fit` and the command line know them by, as far as they are loaded.
LOSSES: Mapping[str, Any] = MappingProxyType(_LOSSES)

LossClass = TypeVar("LossClass", bound=type)


def register_loss(cls: LossClass, name: str | None = None) -> LossClass:
    """Make a loss known by name: to `fit(..., loss="its-name")`, and to `jaxsnn train --loss`
    where the module that calls this is imported.

    The command imports what the entry point group `jaxsnn.losses` names: in the pyproject.toml of
    a package `[project.entry-points."jaxsnn.losses"]` with `its-name = "package.module:Class"`,
    where the class needs no registration.

    Args:
        cls: a class as `Loss` describes it; `fit` makes it with `population`, `tau` and `t_max`
            as keyword arguments.
        name: None: the `name` of the class.

    Returns:
        The class, so that this is a decorator.

    Raises:
        UsageError: a class that lacks something, or a name that another loss has.

    >>> @register_loss
    ... class Earliest(FirstSpike):
    ...     name = "earliest"
    >>> LOSSES["earliest"] is Earliest
    True
    >>> del _LOSSES["earliest"]
    """
    chosen = name or getattr(cls, "name", None)
    if not isinstance(chosen, str) or not chosen:
        raise UsageError(
            f"loss {cls.__name__} has no name", fix='set name = "its-name" in the class'
        )
    _refuse_incomplete(cls, chosen)
    known = _LOSSES.get(chosen, cls)
    if known is not cls and (known.__module__, known.__qualname__) != (
        cls.__module__,
        cls.__qualname__,
    ):
        raise UsageError(
            f"the loss '{chosen}' is {known.__module__}.{known.__qualname__} already",
            fix="choose another name",
        )
    _LOSSES[chosen] = cls
    return cls


def _refuse_incomplete(cls: type, name: str) -> None:
    """Refuse a class that `fit` could not use."""
    kinds = get_args(Reads)
    reads = getattr(cls, "reads", None)
    if reads not in kinds:
        raise UsageError(
            f"loss '{name}' ({cls.__name__}) reads {reads!r}",
            fix=f"set reads to one of {', '.join(map(repr, kinds))}",
        )
    for method in ("__call__", "predict"):
        if not any(method in vars(base) for base in cls.__mro__):
            raise UsageError(
                f"loss '{name}' ({cls.__name__}) has no method {method}",
                fix="write it, as jaxsnn.train.Loss describes it",
            )


def loss_class(name: str) -> Any:
    """The class of a name; that of an entry point is loaded.

    Raises:
        UsageError: there is none, or it cannot be loaded.
    """
    if name not in _LOSSES:
        found = next((entry for entry in _installed() if entry.name == name), None)
        if found is None:
            raise UsageError(f"there is no loss '{name}'", fix=suggestion(name, loss_names()))
        register_loss(_loaded(found), name)
    return _LOSSES[name]


def loss_names() -> tuple[str, ...]:
    """Names of all losses, those of installed packages too, which are not loaded for it."""
    return tuple(dict.fromkeys([*_LOSSES, *(entry.name for entry in _installed())]))


def name_of(loss: Loss) -> str:
    """The name of a loss in `LOSSES`, or of its type."""
    return next((name for name, kind in LOSSES.items() if type(loss) is kind), type(loss).__name__)


def _installed() -> Iterable[EntryPoint]:
    return entry_points(group=GROUP)


def _loaded(entry: EntryPoint) -> Any:
    try:
        return entry.load()
    except (ImportError, AttributeError) as error:
        message = f"the loss '{entry.name}' cannot be loaded from {entry.value}: {error}"
        raise UsageError(message, fix="install its package again, or take another loss") from error
