"""Options for what a NIR file leaves open: their text, their values, and the nodes for which they
are set.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping
from typing import Any

from jaxsnn.errors import UsageError, listing, suggestion
from jaxsnn.nir.dialects.dialect_names import CHOICES, DIALECTS, PER_NODE
from jaxsnn.nir.frameworks.registry import (
    conventions_of,
    file_options,
    framework_options,
    split_version,
)
from jaxsnn.nir.model.graph import Graph
from jaxsnn.nir.model.node import Node, nothing
from jaxsnn.options import DIALECT
from jaxsnn.units import parse_time
from jaxsnn.wording import Text


@dataclasses.dataclass(frozen=True, kw_only=True)
class DialectOptions:
    """Parsed options, those for all nodes and those by node.

    A missing entry means not specified.
    """

    dialect: str = "auto"
    version: str = ""
    fields: Mapping[str, Any] = dataclasses.field(default_factory=nothing)
    nodes: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=nothing)

    @property
    def label(self) -> str:
        """Name of the dialect with its version, as in options."""
        return f"{self.dialect}=={self.version}" if self.version else self.dialect


def parse_options(nodes: Mapping[str, Node], dialect: str | None, **options: Any) -> DialectOptions:
    """Check options against the graph's nodes and turn text into values.

    Args:
        nodes: The graph's records by name.
        dialect: A key of `DIALECTS`, optionally with a version ("norse==main"), or "auto".
        options: Fields of `Dialect` and options of frameworks; None means not specified. Those of
            `PER_NODE`, and boolean options of frameworks, may be a value, "NODE:VALUE", a mapping
            from node to value, or a list of these.

    Raises:
        UsageError: An unknown dialect, version, value or node, or a value that is specified twice.
    """
    if dialect is not None and not isinstance(dialect, str):
        raise UsageError(
            Text("{option} is not the name of a dialect", option=DIALECT.set_to(dialect)),
            fix=f"pass one of {listing(['auto', *DIALECTS])}",
        )
    name, version = split_version(dialect or "auto")
    if name != "auto" and name not in DIALECTS:
        raise UsageError(
            Text("unknown dialect '{dialect}'", dialect=name),
            fix=suggestion(name, ["auto", *DIALECTS]),
        )
    if name != "auto":
        conventions_of(name, version)  # raises an error for an unknown version
    fields: dict[str, Any] = {}
    by_node: dict[str, dict[str, Any]] = {}
    framework_specific = framework_options()
    times = (
        "dt",
        *(option.name for option in framework_specific.values() if option.kind == "time"),
    )
    # `readout` comes last: it turns off the reset of a node unless another option has set it.
    for option, value in sorted(options.items(), key=lambda item: item[0] == "readout"):
        option_names = ("dt", "readout", *CHOICES, *framework_specific)
        if option not in option_names:
            raise UsageError(
                Text("unknown option '{option}'", option=option),
                fix=suggestion(option, ("dialect", *option_names)),
            )
        if value is None:
            continue
        if option in times:
            fields[option] = parse_time(value)
        elif option in PER_NODE or option in framework_specific:
            _per_node(option, value, nodes, fields, by_node)
        else:
            fields[option] = _choice(option, value)
    ordered = {name: by_node[name] for name in nodes if name in by_node}
    return DialectOptions(dialect=name, version=version, fields=fields, nodes=ordered)


def with_options(graph: Graph, **options: Any) -> Graph:
    """Return a graph with other decisions for its neurons; None changes nothing.

    Args:
        graph: Read with its dialect, or from a module.
        options: `readout` and the options in `PER_NODE`, as in `jaxsnn.read`. A value for all nodes
            replaces that of the dialect and those of single nodes, except readouts.

    Raises:
        UsageError: An unknown value or node, or a value that is set twice.
    """
    parsed = parse_options(graph.nodes, None, **options)
    if not parsed.fields and not parsed.nodes:
        return graph
    dialect = graph.dialect
    by_node = {}
    for name in graph.nodes:
        before = dialect.nodes.get(name, {})
        replaced = () if before.get("readout") else tuple(parsed.fields)
        common = {key: value for key, value in before.items() if key not in replaced}
        by_node[name] = common | dict(parsed.nodes.get(name, {}))
    nodes = {name: node_options for name, node_options in by_node.items() if node_options}
    return graph.with_dialect(dataclasses.replace(dialect, nodes=nodes, **parsed.fields))


def _value(option: str, value: Any) -> Any:
    """Return the parsed value of an option that may differ by node."""
    framework_option = framework_options().get(option)
    if framework_option is not None and framework_option.kind == "number":
        return _number(option, value)
    return _choice(option, value, framework_option.choices if framework_option is not None else ())


def _number(option: str, value: Any) -> float | str:
    """Return an option's value as a number, or "none"."""
    text = str(value).lower()
    if text == "none":
        return text
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        message = Text("{option} is not a number", option=file_options()[option].set_to(str(value)))
        raise UsageError(message, fix="pass a number, or none")
    return number


def _choice(option: str, value: Any, framework_choices: tuple[str, ...] = ()) -> Any:
    text = str(value).lower()
    choices = CHOICES.get(option, framework_choices or ("true", "false"))
    if text not in choices:
        message = Text(
            "{option} is not a valid value", option=file_options()[option].set_to(str(value))
        )
        raise UsageError(message, fix=f"pass one of {', '.join(choices)}")
    return {"true": True, "false": False}.get(text, text)


def _per_node(
    option: str,
    value: Any,
    nodes: Mapping[str, Node],
    fields: dict[str, Any],
    by_node: dict[str, dict[str, Any]],
) -> None:
    for node, text in _pairs(option, value):
        if node is None:
            if fields.get(option, text) != text:
                raise UsageError(
                    Text(
                        "{option} is specified twice for all nodes, as '{first}' and '{second}'",
                        option=file_options()[option],
                        first=fields[option],
                        second=text,
                    ),
                    fix=Text(
                        "pass the value of a single node as {option}",
                        option=file_options()[option].set_to(text, node="NODE"),
                    ),
                )
            fields[option] = _value(option, text)
            continue
        _check_node(option, node, nodes)
        if option == "readout" and not _value(option, text):
            continue
        node_fields = by_node.setdefault(node, {})
        if option == "readout":
            node_fields["readout"] = True
            node_fields.setdefault("reset", "none")
        else:
            value = _value(option, text)
            if node_fields.get(option, value) != value:
                raise UsageError(
                    Text(
                        "{option} of node '{node}' is specified twice, as '{first}' and '{second}'",
                        option=file_options()[option],
                        node=node,
                        first=node_fields[option],
                        second=value,
                    ),
                    fix="specify it once",
                    node=node,
                )
            node_fields[option] = value


def _pairs(option: str, value: Any) -> Iterable[tuple[str | None, Any]]:
    """Return pairs (node, value) of an option; node is None for a value for all nodes."""
    if isinstance(value, Mapping):
        return list(value.items())
    parts = value if isinstance(value, list | tuple) else [value]
    if option == "readout":
        return [(str(part), True) for part in parts]
    split = []
    for part in parts:
        node, colon, text = part.rpartition(":") if isinstance(part, str) else ("", "", part)
        split.append((node, text) if colon else (None, part))
    return split


def _check_node(option: str, name: str, nodes: Mapping[str, Node]) -> None:
    neurons = [node_name for node_name, node in nodes.items() if node.traits.state]
    if name not in neurons:
        raise UsageError(
            Text(
                "{option} refers to node '{node}', which is not a neuron of the graph",
                option=file_options()[option],
                node=name,
            ),
            fix=suggestion(name, neurons),
        )
    if option == "readout" and not nodes[name].traits.fires:
        raise UsageError(
            Text(
                "{option} refers to node '{node}' ({type}), which never spikes",
                option=file_options()[option],
                node=name,
                type=nodes[name].type,
            ),
            fix="remove the option for this node",
            node=name,
        )
