"""Options of a simulation with the event engine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Self

from jaxsnn.errors import UsageError
from jaxsnn.network.static_options import hashable
from jaxsnn.wording import Text

#: A number for all populations, or a number for each of some populations; for a budget also "auto".
PerPopulation = int | float | str | Mapping[str, Any] | tuple[tuple[str, Any], ...] | None
#: Options that limit the numbers of spikes and arrivals.
BUDGETS = ("max_spikes", "max_events", "max_arrivals")
#: Backends of the simulation of populations; see `jaxsnn.EventDriven`.
BACKENDS = ("auto", "native", "xla")


@dataclass(frozen=True, kw_only=True)
class EventOptions:
    """Options of the event engine, documented at `jaxsnn.EventDriven`."""

    max_spikes: PerPopulation = 16
    max_events: PerPopulation = None
    max_arrivals: PerPopulation = None
    first_spike_only: bool | tuple[str, ...] = False
    refractory: PerPopulation = 0.0
    min_slope: float = 2**-20
    jump_width: float | None = None
    forward_mode: bool = False
    backend: str = "auto"
    threads: int | None = None

    def stops(self, population: str) -> bool:
        """Return whether the neurons of a population stop after their first spike."""
        only = self.first_spike_only
        return only if isinstance(only, bool) else population in only

    def of(self, option: str, population: str) -> Any:
        """Return the value of an option for a population; its default, if it is not set or is
        "auto".
        """
        value = getattr(self, option)
        default = EventOptions.__dataclass_fields__[option].default
        if isinstance(value, Mapping | tuple):
            value = by_population(option, value).get(population, default)
        return default if _is_auto(value) else value

    @property
    def grows(self) -> bool:
        """Return whether some budget is "auto"."""
        values = {option: getattr(self.hashable(), option) for option in BUDGETS}
        return any(
            _is_auto(budget)
            for option, value in values.items()
            for budget in (value, *by_population(option, value).values())
        )

    def is_auto(self, option: str, population: str) -> bool:
        """Return whether a budget of a population is "auto"."""
        value = getattr(self, option)
        # `value` is the default of `get`: it may be "auto" for all populations, or a mapping
        # without this population, which is not "auto".
        return _is_auto(by_population(option, value).get(population, value))

    def with_room(self, needed: Mapping[str, Mapping[str, int]]) -> Self:
        """Return the same options with larger budgets: option -> population -> its lower bound."""
        larger: dict[str, Any] = {}
        options = self.hashable()
        for option, population_needs in needed.items():
            now = getattr(options, option)
            if population_needs and isinstance(now, int):  # one number for all populations
                larger[option] = max(now, *population_needs.values())
            elif population_needs:  # "auto", or a mapping, whose other entries are kept
                larger[option] = {**by_population(option, now), **population_needs}
        return replace(options, **larger).hashable()

    def as_dict(self) -> dict[str, Any]:
        """Return the options by name, for JSON."""
        options = self.hashable()
        values = {option.name: getattr(options, option.name) for option in fields(options)}
        by_name = {name: by_population(name, values[name]) for name in (*BUDGETS, "refractory")}
        only = values["first_spike_only"]
        # JSON has no tuples.
        stops = {} if isinstance(only, bool) else {"first_spike_only": list(only)}
        return (
            values
            | {name: per_population for name, per_population in by_name.items() if per_population}
            | stops
        )

    def hashable(self) -> Self:
        """Return the same options as a static argument: mappings and names as sorted tuples, arrays
        of one number as that number.
        """
        values = {option.name: getattr(self, option.name) for option in fields(self)}
        wholes = (*BUDGETS, "threads")
        return replace(
            self,
            **{name: hashable(value, is_count=name in wholes) for name, value in values.items()},
        )


def by_population(option: str, value: Any) -> dict[str, Any]:
    """Return the values of an option that are set for single populations.

    Raises:
        UsageError: a tuple that does not consist of pairs of a name and a value.
    """
    pairs = tuple(value.items()) if isinstance(value, Mapping) else value
    if not isinstance(pairs, tuple):
        return {}
    if not all(isinstance(pair, tuple) and len(pair) == 2 for pair in pairs):
        fix = "pass one value for all populations, or a mapping from population names to values"
        raise UsageError(Text("{parameter} is {value!r}", parameter=option, value=value), fix=fix)
    return dict(pairs)


def _is_auto(value: Any) -> bool:
    """Return whether a budget is "auto"; arrays of several numbers, which are refused elsewhere,
    are not.
    """
    return isinstance(value, str) and value == "auto"
