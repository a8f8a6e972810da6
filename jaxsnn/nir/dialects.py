"""What a NIR file does not say: dt, unit of time, how a spike enters, reset, initial state.

Each framework writes one format with its own meaning: `jaxsnn.nir.frameworks` has one file for each.
`DIALECTS` are the conventions of all of them; a `Dialect` is what was decided for one graph.
`jaxsnn.nir.inference.resolve` decides.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, Literal

from jaxsnn.errors import in_flags
from jaxsnn.nir.frameworks.framework import (
    UNIT_SECONDS,
    Conventions,
    Initial,
    Kernel,
    Reset,
    TimeUnit,
)
from jaxsnn.nir.frameworks.registry import conventions_of, frameworks
from jaxsnn.nir.nodes import nothing

#: The values that an option may take.
CHOICES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "time_unit": ("s", "ms", "step"),
        "reset": ("zero", "subtract", "none"),
        "reset_delay": ("true", "false"),
        "spike_kernel": ("delta", "box"),
        "initial": ("zero", "v_leak", "v_reset"),
    }
)
#: How `Dialect.why` says that the unit of time is unknown.
NO_UNIT = "The unit of time is not in the file: say time_unit=."
#: The options of all dialects that may differ from node to node; own options may, too.
PER_NODE = ("reset", "reset_delay", "spike_kernel", "initial", "readout")


class _Dialects(Mapping[str, Conventions]):
    """The conventions of each framework by name, in the version that is meant where none is said."""

    def __getitem__(self, name: str) -> Conventions:
        return frameworks()[name].dialects[0]

    def __iter__(self) -> Iterator[str]:
        return iter(frameworks())

    def __len__(self) -> int:
        return len(frameworks())


#: The conventions of each dialect by name: a view of the register of frameworks.
DIALECTS: Mapping[str, Conventions] = _Dialects()


@dataclasses.dataclass(frozen=True, kw_only=True)
class NodeDialect:
    """The fields of a dialect that hold for one node; None is unknown."""

    name: str | None
    reset: Reset | None
    reset_delay: bool | None
    norm_input: bool | None
    spike_kernel: Kernel | None
    initial: Initial | None
    readout: bool
    own: Mapping[str, Any] = dataclasses.field(default_factory=nothing)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Dialect:
    """What was decided about one graph. None is unknown; `why` says so.

    Attributes:
        name: A key of `DIALECTS`, or None while undecided.
        version: Of the framework that wrote the file, where it was said: "main".
        dt: Length of a step of the source, seconds.
        dt_export: Norse only: the dt that its exporter was given; time constants in the file are
            true ones times this.
        time_unit: Unit of the file's time constants.
        spike_kernel: "delta", or "box" of width dt; None also where nodes differ, see `nodes`.
        reset: "zero" (V becomes v_reset), "subtract" (V loses v_threshold) or "none".
        reset_delay: True: the reset acts one step later.
        norm_input: Sinabs only: the input is scaled by 1 - exp(-1/tau).
        initial: Membrane at the start.
        decided_by: Where the name comes from.
        why: What was decided and why, with the numbers.
        nodes: Fields that differ for a node, by name; "readout" marks a spiking node that is a
            leaky readout.
        choices: While undecided: the dialects that the numbers allow.
        own: Own options of the framework, by name; dt_export and norm_input are fields.
    """

    name: str | None = None
    version: str | None = None
    dt: float | None = None
    dt_export: float | None = None
    time_unit: TimeUnit | None = None
    spike_kernel: Kernel | None = None
    reset: Reset | None = None
    reset_delay: bool | None = None
    norm_input: bool | None = None
    initial: Initial | None = None
    decided_by: Literal["argument", "metadata", "inference", "undecided"] = "undecided"
    why: str = ""
    nodes: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=nothing)
    choices: tuple[str, ...] = ()
    own: Mapping[str, Any] = dataclasses.field(default_factory=nothing)

    @property
    def conventions(self) -> Conventions | None:
        """The conventions of the framework; None while undecided."""
        return None if self.name is None else conventions_of(self.name, self.version)

    @property
    def fix(self) -> str:
        """What to say while the name is undecided; "" once it is decided."""
        if self.name is not None:
            return ""
        choices = f", one of {', '.join(self.choices)}" if self.choices else ""
        return f"say dialect={choices}"

    @property
    def unit_fix(self) -> str:
        """What to say while the unit of time is unknown, and what was decided."""
        rest = " ".join(self.why.replace(NO_UNIT, "").split())
        return f"say time_unit= ({rest})" if rest else "say time_unit="

    @property
    def undecided(self) -> str:
        """Words for messages: the dialect of the file, and in brackets why nobody knows it."""
        why = self.why.rstrip(" .")
        return f"the dialect of the file ({why})" if why else "the dialect of the file"

    @property
    def seconds(self) -> float | None:
        """Seconds in one unit of the file's time constants (Norse: its dt_export included); None if
        unknown.
        """
        conventions = self.conventions
        if conventions is not None and conventions.seconds is not None:
            return conventions.seconds(self)
        return self.dt if self.time_unit == "step" else UNIT_SECONDS.get(self.time_unit or "")

    def at(self, node: str) -> NodeDialect:
        """The fields for one node: what was said for it, else what holds for all.

        >>> dialect = Dialect(name="snntorch", reset="zero", nodes={"3": {"readout": True, "reset": "none"}})
        >>> dialect.at("1").reset, dialect.at("3").reset
        ('zero', 'none')
        """
        said = self.nodes.get(node, {})
        common = {
            field.name: said.get(field.name, getattr(self, field.name))
            for field in dataclasses.fields(NodeDialect)
            if field.name not in ("name", "readout", "own")
        }
        own = {name: value for name, value in said.items() if name not in (*common, "readout")}
        return NodeDialect(
            name=self.name,
            readout=said.get("readout", False),
            own={**self.own, **own},
            **common,
        )

    def option(self, field: str, node: str | None = None) -> Any:
        """What is known of a field or an own option; None if nothing is.

        Args:
            field: Also one that cannot differ from node to node.
            node: Ask for one node.
        """
        records = (self,) if node is None else (self.at(node), self)
        for record in records:
            if hasattr(record, field):
                return getattr(record, field)
            if field in record.own:
                return record.own[field]
        return None

    def as_dict(self) -> dict[str, Any]:
        """For JSON, in the words of the command line."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return fields | {
            "why": in_flags(self.why),
            "fix": in_flags(self.fix),
            "nodes": {name: dict(own) for name, own in self.nodes.items()},
            "choices": list(self.choices),
            "own": dict(self.own),
        }
