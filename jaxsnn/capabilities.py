"""Capabilities as data: what an engine, the chip or an importer does not support is a table of limits,
and one function, `unsupported`, compares a network with a table.

A `Feature` yields its occurrences in a network, such as readouts that reset; a `Limit` states that a
simulator does not support them, why, and what to do instead. Several tables may limit the same
feature.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain
from types import MappingProxyType
from typing import Any, Generic, Protocol, TypeVar

from jaxsnn.errors import Problem, Severity
from jaxsnn.wording import Option, Reference, Text

#: Advice: an option, an option with a value, a text, or a function that returns the option and
#: value for a node.
Advice = Option | Reference | Text | Callable[[str], Reference]


class Checked(Protocol):
    """Interface of an object that can be checked against a table: a graph, or a lowered network."""

    @property
    def nodes(self) -> Mapping[str, Any]:
        """Nodes by name, in order."""
        ...


N = TypeVar("N", bound=Checked)
N_contra = TypeVar("N_contra", bound=Checked, contravariant=True)


class Occurrence:
    """Place where a network has a feature.

    Args:
        node: NIR name of the node; "" for the network as a whole.
        facts: numbers and names that describe it, for the reason of a `Limit`.
    """

    def __init__(self, node: str = "", **facts: Any) -> None:
        self.node = node
        self.facts: Mapping[str, Any] = facts


@dataclass(frozen=True, kw_only=True, eq=False)
class Feature(Generic[N_contra]):
    """Feature that networks may have and simulators may not support.

    Attributes:
        description: a noun phrase, for the documentation: "A readout that resets".
        occurrences: yields the occurrences in a network.
    """

    description: str
    occurrences: Callable[[N_contra], Iterable[Occurrence]]


class Row(Protocol[N_contra]):
    """Row of a table: a `Limit`, or a check that computes its problems in another way.

    Attributes:
        description: a noun phrase for the documentation.
    """

    @property
    def description(self) -> str:
        """Description of the row, a noun phrase for the documentation."""
        ...

    def problems(self, network: N_contra, /) -> Iterable[Problem]:
        """Yield the problems of a network."""
        ...


@dataclass(frozen=True, kw_only=True)
class Limit(Generic[N_contra]):
    """Limit of a simulator: a feature that it does not support.

    Attributes:
        feature: the feature.
        code: code of the problem, a key of `jaxsnn.problem_codes.CODES`.
        reason: message of the problem: a template with the occurrence's facts and its `node`.
        fix: advice: a template with the same fields, and `options`.
        options: the options that `fix` names.
        severity: severity of the problem: "warning" for a feature that is approximated, "note" for
            a slow one.
        unless: features of a node for which the limit does not hold, or which another row reports.
    """

    feature: Feature[N_contra]
    code: str
    reason: str
    fix: str = ""
    options: Mapping[str, Advice] = field(default_factory=lambda: MappingProxyType({}))
    severity: Severity = "error"
    unless: tuple[Feature[N_contra], ...] = ()

    @property
    def description(self) -> str:
        """Description of the feature."""
        return self.feature.description

    def problems(self, network: N_contra) -> Iterator[Problem]:
        """Yield a problem for each occurrence of the feature."""
        exempt = {
            occurrence.node
            for feature in self.unless
            for occurrence in feature.occurrences(network)
        }
        for occurrence in self.feature.occurrences(network):
            if occurrence.node in exempt:
                continue
            facts = {"node": occurrence.node, **occurrence.facts}
            options = {
                name: advice
                if isinstance(advice, Option | Reference | str)
                else advice(occurrence.node)
                for name, advice in self.options.items()
            }
            yield Problem(
                node=occurrence.node,
                code=self.code,
                message=Text(self.reason, **facts),
                fix=Text(self.fix, **facts | options),
                severity=self.severity,
            )


@dataclass(frozen=True, kw_only=True)
class Requirement(Generic[N_contra]):
    """Requirement that every network must meet, and whose problems another module describes.

    Attributes:
        description: a noun phrase for the documentation.
        problems: yields the problems of a network.
    """

    description: str
    problems: Callable[[N_contra], Iterable[Problem]]


@dataclass(frozen=True, kw_only=True)
class Capabilities(Generic[N_contra]):
    """Capabilities of a simulator, stated by its limits.

    Attributes:
        title: name of the simulator, for the documentation.
        limits: limits of the simulator, in the order in which the problems of a node are listed.
    """

    title: str
    limits: tuple[Row[N_contra], ...]


def at_node(option: Option, value: Any) -> Callable[[str], Reference]:
    """Return the function that returns an option's setting for one node."""
    return lambda node: option.set_to(value, node=node)


def unsupported(network: N, capabilities: Capabilities[N]) -> list[Problem]:
    """List the features of a network that a simulator does not support.

    Args:
        network: A graph, or a lowered network.
        capabilities: The table of the simulator.

    Returns:
        Problems in the order of the nodes, at each node in the order of the table; last those of the
        network as a whole.

    >>> from types import SimpleNamespace
    >>> odd = Feature(
    ...     description="A node with an odd number of neurons",
    ...     occurrences=lambda net: (Occurrence(n, size=s) for n, s in net.nodes.items() if s % 2),
    ... )
    >>> reason, fix = "node '{node}' has {size} neurons, an odd number", "add a neuron to '{node}'"
    >>> limit = Limit(feature=odd, code="cannot-lower", reason=reason, fix=fix)
    >>> pairs = Capabilities(title="an engine for pairs", limits=(limit,))
    >>> [problem] = unsupported(SimpleNamespace(nodes={"a": 2, "b": 3}), pairs)
    >>> print(problem)
    node 'b' has 3 neurons, an odd number: add a neuron to 'b'
    >>> problem.facts["size"]
    3
    """
    problems = list(chain.from_iterable(row.problems(network) for row in capabilities.limits))
    place = {name: number for number, name in enumerate(network.nodes)}
    return sorted(problems, key=lambda problem: place.get(problem.node, len(place)))
