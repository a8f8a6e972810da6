"""Gain of a spike: how strongly it drives a neuron under the dialect of a file.

All files share one equation, for example tau_syn I' = -I + w_in S. They differ in S: the area of a
spike.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from jaxsnn.errors import DialectError, listing
from jaxsnn.nir.frameworks.registry import file_options, framework_options
from jaxsnn.nir.frameworks.source_rule import SpikeArea
from jaxsnn.nir.model.dialect import Arrival, Dialect, Rule
from jaxsnn.nir.model.extension_nodes import EXTENSIONS
from jaxsnn.nir.model.node import Node
from jaxsnn.nir.model.nodes import IF, I
from jaxsnn.options import DIALECT, DT
from jaxsnn.wording import Text


def require(dialect: Dialect, fields: Iterable[str], purpose: str, node: str | None = None) -> None:
    """Raise an error if a field of the dialect is unknown.

    Args:
        dialect: The decided dialect.
        fields: Names of fields of `Dialect`; "seconds" is the length of the file's unit of time in s.
        purpose: Subject of the message, such as "the event engine".
        node: Node whose options are checked; None for those of the file.

    Raises:
        DialectError: A field is unknown; the message contains the field and the node, and the fix
            the option that specifies it.
    """
    prefix = "" if node is None else Text("node '{node}': ", node=node)
    for field in fields:
        if dialect.option(field, node) is None:
            missing, fix = _missing(dialect, field)
            if field == "reset" and dialect.option("reset_delay", node) is None:
                # Ask for both options in one message.
                fix += ", and " + _missing(dialect, "reset_delay")[1]
            message = prefix + purpose + " needs " + missing
            facts = {"field": field, "dialect": dialect.name}
            raise DialectError(message, fix=fix, node=node or "", facts=facts)


#: Possible values of a field, for messages.
_VALUES = {
    "reset": " (zero, subtract or none)",
    "reset_delay": " (true: the reset takes effect one time step after the spike; false: in the same step)",
}


def _missing(dialect: Dialect, field: str) -> tuple[str, str]:
    """Return a description of the missing field, and the advice to specify it."""
    if field == "name":
        return dialect.undecided, dialect.fix
    conventions = dialect.conventions
    unit_option = None if conventions is None else conventions.unit_option
    if field == "seconds" and unit_option is not None:
        return _missing(dialect, unit_option.name)
    framework_option = framework_options().get(field)
    if framework_option is not None and framework_option.missing:
        return framework_option.missing, framework_option.advice
    if field == "seconds" and dialect.time_unit == "step":
        return "the length of a time step, the file's unit of time", Text(
            "pass {dt}", dt=DT.keyword
        )
    if field in ("seconds", "time_unit"):
        return "the unit of time", dialect.unit_fix
    values = _VALUES.get(field, "")
    advice = Text("pass {option}{values}", option=file_options()[field].keyword, values=values)
    return f"{field}, which the file does not contain", advice


def required_field(dialect: Dialect, field: str, purpose: str, node: str | None = None) -> Any:
    """Return a field of the dialect; raise an error like `require` if it is unknown."""
    require(dialect, [field], purpose, node)
    return dialect.option(field)


def spike_area(dialect: Dialect, node: Node) -> SpikeArea:
    """Return the effect of a spike on a node under a dialect.

    Raises:
        DialectError: The dialect is undecided, or has no rule for this type of node, or dt is
            unknown.
    """
    kernel = dialect.at(node.name).spike_kernel
    kind = arrival(dialect, node)
    if kind == "scaled jump" and isinstance(node, IF | I):
        # IF and I have no time constant: a spike with an area of one unit of time moves V by r w.
        seconds = required_field(dialect, "seconds", "the strength of a spike", node.name)
        return SpikeArea(kind="fixed", seconds=seconds, kernel=kernel)
    if kind in ("jump", "scaled jump"):
        return SpikeArea(kind=kind, seconds=None, kernel=kernel)
    explicit_area = dialect.option("spike_area", node.name)
    if kind == "unit" and explicit_area is not None:
        return SpikeArea(kind="fixed", seconds=explicit_area, kernel=kernel)
    field = "seconds" if kind == "unit" else "dt"
    seconds = required_field(dialect, field, "the strength of a spike", node.name)
    return SpikeArea(kind="fixed", seconds=seconds, kernel=kernel)


def rule_of(dialect: Dialect, node: Node) -> Rule:
    """Return the dialect's simulation rule for this type of neuron; if it depends on an unspecified
    option, the rule for true.

    Raises:
        DialectError: The dialect is undecided, or its framework never writes this type.
    """
    require(dialect, ["name"], "the neuron model", node.name)
    conventions = dialect.conventions
    assert conventions is not None
    rule = conventions.rule(node.type)
    if rule is None:
        raise DialectError(
            Text(
                "node '{node}' is of type {type}, which {dialect} never writes (it writes {types})",
                node=node.name,
                type=node.type,
                dialect=dialect.name,
                types=listing(kind for kind in conventions.rules if kind not in EXTENSIONS),
            ),
            fix=Text("pass a different {dialect}", dialect=DIALECT.keyword),
            node=node.name,
        )
    if rule.option and dialect.option(rule.option, node.name) is False and rule.without is not None:
        return rule.without
    return rule


def arrival(dialect: Dialect, node: Node) -> Arrival:
    """Return the effect of an arriving spike, see `Rule.arrival`. Needs no dt."""
    rule = rule_of(dialect, node)
    if rule.option:
        require(dialect, [rule.option], "the strength of a spike", node.name)
    return rule.arrival
