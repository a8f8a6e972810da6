"""Deciding the dialect of a graph: by the user's options, then by this library's tag, then by the
numbers of the file.

Nothing is guessed: undecided fields of the `Dialect` are None, and `why` states the reason.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxsnn.errors import DialectError, JaxsnnError, Problem, UsageError, listing
from jaxsnn.files.structured_text import parse_json
from jaxsnn.nir.dialects.dialect_names import PER_NODE
from jaxsnn.nir.dialects.dialect_options import DialectOptions, parse_options
from jaxsnn.nir.frameworks.evidence import TOLERANCE, estimate, ties
from jaxsnn.nir.frameworks.registry import (
    conventions_of,
    framework_of,
    framework_options,
    frameworks,
    later_release,
    owners,
    split_version,
)
from jaxsnn.nir.model.dialect import NO_UNIT, UNIT_SECONDS, Conventions, Dialect, FrameworkOption
from jaxsnn.nir.model.graph import Graph
from jaxsnn.nir.model.node import Node
from jaxsnn.options import DIALECT, DT, RESET, RESET_DELAY, SPIKE_KERNEL, TIME_UNIT
from jaxsnn.units import format_time
from jaxsnn.wording import Text

#: Name of this library's entry in a graph's metadata.
TAG = "jaxsnn"
#: Fields of `Dialect` that the entry contains, in this order.
_TAGGED = (
    *("name", "version", "dt", "dt_export", "time_unit"),
    *("reset", "reset_delay", "norm_input", "spike_kernel", "initial"),
)
#: Code of a problem: the options and the numbers of the file contradict each other.
CONTRADICTION = "contradiction"


def resolve(graph: Graph, dialect: str | None = "auto", **options: Any) -> Dialect:
    """Decide how to read a graph.

    The tag that this library writes into the metadata is used if `dialect` is "auto" or the dialect
    of the tag. Specified options take precedence over the tag, and `why` lists the differences. If
    another dialect is specified, the tag is ignored.

    Args:
        graph: The graph as read from the file.
        dialect: A key of `DIALECTS`, optionally with a version ("norse==main"), or "auto": the tag
            that this library writes, or inference from the parameters if there is no tag.
        options: Other fields of `Dialect`: dt (seconds or text with a unit), time_unit, reset,
            reset_delay, spike_kernel, initial, readout, and options of frameworks: dt_export,
            norm_input, ... All except dt, dt_export and time_unit may differ by node:
            "NODE:VALUE".

    Raises:
        UsageError: An option has an unknown value or refers to an unknown node.
        DialectError: An option or the dialect contradicts the parameters of the file.
    """
    user_options = parse_options(graph.nodes, dialect, **options)
    tag, ignored = read_tag(graph)
    if tag is not None and (user_options.dialect == "auto" or _agrees(tag, user_options)):
        conventions = conventions_of(tag.dialect, tag.version)
        merged, differs = _merged(graph, tag, user_options)
        by, source_sentence = (
            "argument",
            f"{user_options.label} was specified; the metadata of the file agree.",
        )
        if user_options.dialect == "auto":
            by, source_sentence = (
                "metadata",
                f"The metadata of the file specify the dialect {tag.label}.",
            )
        elif user_options.label != tag.label:
            source_sentence = (
                f"{user_options.label} was specified; the metadata of the file specify {tag.label}."
            )
        return _decided(graph, conventions, merged, by, " ".join((source_sentence, *differs)))
    if user_options.dialect != "auto":
        conventions = conventions_of(user_options.dialect, user_options.version)
        refuse_contradiction(graph, conventions)
        reason = (
            f"{describe_tag(tag)}; {user_options.label} was specified."
            if tag is not None
            else (f"{user_options.label} was specified. {ignored}".rstrip())
        )
        return _decided(graph, conventions, user_options, "argument", reason)
    label, why = infer(graph)
    if label is not None:
        name, version = split_version(label)
        user_options = dataclasses.replace(user_options, version=version)
        return _decided(
            graph, conventions_of(name, version), user_options, "inference", ignored + why
        )
    choices = possible(graph) if graph.neurons else ()
    fields, framework_fields = _split(user_options.fields)
    return Dialect(
        **fields,
        framework_options=framework_fields,
        nodes=user_options.nodes,
        why=ignored + why,
        choices=choices,
    )


def _split(fields: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the fields of `Dialect`, and the remaining framework options."""
    common = {field.name for field in dataclasses.fields(Dialect)}
    common_fields = {name: value for name, value in fields.items() if name in common}
    return common_fields, {name: value for name, value in fields.items() if name not in common}


def _decided(
    graph: Graph, conventions: Conventions, explicit: DialectOptions, decided_by: Any, why: str
) -> Dialect:
    """Fill the fields of a decided dialect, and record the reason for each."""
    fields = dict(explicit.fields)
    reasons = [why]
    title = framework_of(conventions.name).title
    if later := later_release(title, conventions, explicit.version):
        reasons.append(f"{later[0].upper()}{later[1:]}.")
    if not conventions.ran:
        reasons.append(
            f"The rules of {conventions.name} are based on its source code; they were not tested "
            "by running it."
        )
    _refuse_foreign(conventions, explicit)
    _decide_time_unit(graph, conventions, fields, reasons)
    _decide_dt(graph, conventions, fields, reasons)
    nodes = {name: dict(node_options) for name, node_options in explicit.nodes.items()}
    for field in ("reset", "reset_delay", "initial"):
        default = getattr(conventions, field)
        if field not in fields and default is not None:
            fields[field] = default
            if field == "reset":
                reasons.append(
                    f"Reset {default} is the default of {conventions.name}; files never contain it."
                )
    _decide_area(fields, nodes, reasons)
    _decide_kernel(graph, conventions, fields, nodes)
    _decide_initial(graph, conventions, explicit, nodes)
    _decide_framework_options(graph, conventions, fields, reasons)
    if conventions.reset is None and "reset" not in fields:
        reasons.append(
            Text(
                "The reset is not in the file: pass {reset} and {reset_delay}.",
                reset=RESET.keyword,
                reset_delay=RESET_DELAY.keyword,
            )
        )
    common_fields, framework_fields = _split(fields)
    return Dialect(
        name=conventions.name,
        version=explicit.version or None,
        conventions=conventions,
        decided_by=decided_by,
        why=Text.joined(" ", reasons),
        nodes={name: nodes[name] for name in graph.nodes if name in nodes},
        framework_options=framework_fields,
        **common_fields,
    )


def _decide_initial(
    graph: Graph,
    conventions: Conventions,
    explicit: DialectOptions,
    nodes: dict[str, dict[str, Any]],
) -> None:
    """Set the initial membrane of neurons without v_leak, if the others start at v_leak."""
    if "initial" in explicit.fields or conventions.initial != "v_leak":
        return
    for name, node in graph.nodes.items():
        if (
            node.traits.state
            and conventions.rule(node.type) is not None
            and "v_leak" not in node.names
        ):
            nodes.setdefault(name, {}).setdefault("initial", "v_reset")


def _decide_framework_options(
    graph: Graph, conventions: Conventions, fields: dict[str, Any], reasons: list[str]
) -> None:
    """Set unspecified framework options to their defaults, and note the reasons."""
    for option in conventions.options:
        if option.name in fields:
            continue
        value, reason = _fallback(graph, option)
        if value is not None:
            fields[option.name] = value
        elif option.fallback is None:
            reason = option.remark
        if reason:
            reasons.append(reason)


def _fallback(graph: Graph, option: FrameworkOption) -> tuple[Any, str]:
    """Return the default value of an unspecified framework option for a graph, and the reason; None
    if it must be specified.
    """
    value, reason = option.fallback or (None, "")
    return (value(graph) if callable(value) else value), reason


def _refuse_foreign(conventions: Conventions, explicit: DialectOptions) -> None:
    """Refuse options of other frameworks, which would be ignored."""
    option_names = [option.name for option in conventions.options]
    for name, option in framework_options().items():
        by_node = any(name in node_options for node_options in explicit.nodes.values())
        if name not in option_names and (name in explicit.fields or by_node):
            raise UsageError(
                Text(
                    "{option} is an option of the dialect {owners}, not of {dialect}",
                    option=option,
                    owners=" and ".join(owners(name)),
                    dialect=conventions.name,
                ),
                fix="remove the option",
            )


def _decide_time_unit(
    graph: Graph, conventions: Conventions, fields: dict[str, Any], reasons: list[str]
) -> None:
    name, explicit_unit = conventions.name, fields.get("time_unit")
    if conventions.time_unit not in (None, "from dt"):
        if explicit_unit not in (None, conventions.time_unit):
            raise DialectError(
                Text(
                    "{option} contradicts the dialect {name}, which writes times in '{time_unit}'",
                    option=TIME_UNIT.set_to(explicit_unit),
                    name=name,
                    time_unit=conventions.time_unit,
                ),
                fix=Text(
                    "remove the option, or pass a different {dialect}", dialect=DIALECT.keyword
                ),
                code=CONTRADICTION,
            )
        fields["time_unit"] = conventions.time_unit
    elif conventions.time_unit == "from dt" and explicit_unit is None:
        dt_estimate = estimate(graph.nodes, conventions.evidence)
        if dt_estimate.dt is not None:
            fields["time_unit"] = "step" if abs(dt_estimate.dt - 1) <= TOLERANCE else "s"
            formula = conventions.evidence.dt_from
            reasons.append(
                f"{formula} is {dt_estimate.dt:g}, "
                f"so time constants are in '{fields['time_unit']}'."
            )
    if fields.get("time_unit") is None:
        reasons.append(NO_UNIT + _unit_hint(graph))


def _unit_hint(graph: Graph) -> str:
    tie_taus = [tie.tau for tie in ties(graph.nodes)]
    taus = np.concatenate(tie_taus or [np.zeros(0)])
    taus = taus[np.isfinite(taus)]
    if taus.size == 0:
        return ""
    guess = "ms or time steps" if np.median(taus) >= 0.5 else "s"
    return f" Its time constants, {taus.min():g} to {taus.max():g}, are probably in {guess}."


def _decide_dt(
    graph: Graph, conventions: Conventions, fields: dict[str, Any], reasons: list[str]
) -> None:
    """Compute dt from the parameters if the dialect determines it; a specified dt must agree."""
    dt_estimate = estimate(graph.nodes, conventions.evidence)
    unit = UNIT_SECONDS.get(fields.get("time_unit") or "")
    if dt_estimate.dt is None:
        return
    formula = conventions.evidence.dt_from
    if fields.get("time_unit") == "step":
        if abs(dt_estimate.dt - 1) > TOLERANCE:
            raise DialectError(
                Text(
                    "{time_unit} contradicts the file: node '{node}' has dt = {formula} = {dt:g}, and dt "
                    "is 1 in files that count time in steps",
                    time_unit=TIME_UNIT.set_to("step"),
                    node=dt_estimate.node,
                    formula=formula,
                    dt=dt_estimate.dt,
                ),
                fix=Text(
                    "pass {seconds} or {milliseconds}",
                    seconds=TIME_UNIT.set_to("s"),
                    milliseconds=TIME_UNIT.set_to("ms"),
                ),
                node=dt_estimate.node,
                code=CONTRADICTION,
            )
        return
    if unit is None:
        return
    seconds = dt_estimate.dt * unit
    explicit_dt = fields.get("dt")
    if explicit_dt is not None and abs(explicit_dt - seconds) > 10 * TOLERANCE * seconds:
        raise DialectError(
            Text(
                "{dt} ({explicit}) contradicts the file: node '{node}' has {pair}, so dt = {formula} "
                "= {seconds}",
                dt=DT.set_to(explicit_dt),
                explicit=format_time(explicit_dt),
                node=dt_estimate.node,
                pair=dt_estimate.pair,
                formula=formula,
                seconds=format_time(seconds),
            ),
            fix=Text(
                "remove {dt}, or pass a different {dialect}", dt=DT.keyword, dialect=DIALECT.keyword
            ),
            node=dt_estimate.node,
            code=CONTRADICTION,
        )
    if (
        explicit_dt is None
        and conventions.dt is not None
        and abs(seconds - conventions.dt) > 10 * TOLERANCE * conventions.dt
    ):
        raise DialectError(
            Text(
                "the dialect {dialect} always writes dt = {expected}, but node '{node}' has {pair}, "
                "so dt = {formula} = {actual}",
                dialect=conventions.name,
                expected=format_time(conventions.dt),
                node=dt_estimate.node,
                pair=dt_estimate.pair,
                formula=formula,
                actual=format_time(seconds),
            ),
            facts={"expected": conventions.dt, "actual": seconds},
            fix=Text(
                "pass {dt} if this is correct, or pass a different {dialect}",
                dt=DT.set_to(seconds),
                dialect=DIALECT.keyword,
            ),
            node=dt_estimate.node,
            code=CONTRADICTION,
        )
    if explicit_dt is None:
        # If float32 rounding explains the difference, the exporter's dt had two digits.
        short = float(f"{seconds:.1e}")
        fields["dt"] = short if abs(short - seconds) <= TOLERANCE * seconds else seconds
        reasons.append(
            Text(
                "{dt} is {fields}, computed as {formula} from all neurons.",
                dt=DT,
                fields=format_time(fields["dt"]),
                formula=formula,
            )
        )


def _decide_area(
    fields: dict[str, Any], nodes: dict[str, dict[str, Any]], reasons: list[str]
) -> None:
    """Read a spike of specified area as a rectangular pulse, unless a delta is specified."""
    if "spike_area" not in fields:
        return
    area = fields["spike_area"]
    kernel_is_explicit = "spike_kernel" in fields or any(
        "spike_kernel" in node_options for node_options in nodes.values()
    )
    if kernel_is_explicit:
        return
    fields["spike_kernel"] = "box"
    lasts = fields.setdefault("dt", area)
    reasons.append(
        Text(
            "A spike of weight 1 has the area {area:g} s. It is simulated as a current of "
            "{current:g} for {lasts:g} s; pass {spike_kernel} for a delta of the same area.",
            area=area,
            current=area / lasts,
            lasts=lasts,
            spike_kernel=SPIKE_KERNEL.set_to("delta"),
        )
    )


def _decide_kernel(
    graph: Graph, conventions: Conventions, fields: dict[str, Any], nodes: dict[str, dict[str, Any]]
) -> None:
    """Set the continuous reading of a spike: one for all neurons, or one for each if their types
    differ.
    """
    if "spike_kernel" in fields:
        return
    by_node = {
        name: rule.kernel
        for name, node in graph.nodes.items()
        if node.traits.state and (rule := conventions.rule(node.type)) is not None
    }
    kernels = sorted(set(by_node.values()))
    if len(kernels) == 1:
        fields["spike_kernel"] = kernels[0]
        return
    for name, kernel in by_node.items():
        nodes.setdefault(name, {}).setdefault("spike_kernel", kernel)


def with_kernels(graph: Graph) -> Graph:
    """Return a graph whose decided dialect specifies the spike kernel; where it is missing, that of
    the neuron's type is used.
    """
    dialect = graph.dialect
    if dialect.conventions is None or dialect.spike_kernel is not None:
        return graph
    fields: dict[str, Any] = {}
    nodes = {name: dict(node_options) for name, node_options in dialect.nodes.items()}
    _decide_kernel(graph, dialect.conventions, fields, nodes)
    nodes = {name: nodes[name] for name in graph.nodes if name in nodes}
    return graph.with_dialect(dataclasses.replace(dialect, nodes=nodes, **fields))


def contradiction(graph: Graph, conventions: Conventions) -> Problem | None:
    """Return the reason why a graph cannot have been written in a dialect, as a problem; None if
    its parameters allow the dialect.
    """
    name = conventions.name
    for node in (node for node in graph.nodes.values() if node.traits.state):
        reason = _refuting_parameter(node, conventions)
        if reason is not None:
            return Problem(node=node.name, code=CONTRADICTION, message=reason)
    dt_estimate = estimate(graph.nodes, conventions.evidence)
    if dt_estimate.node and not dt_estimate.agrees:
        does = "requires" if conventions.reads_only else "writes"
        reason = Text(
            "{dialect} "
            + does
            + " one dt = {formula}, but node '{node}' has {pair}, so dt = {dt:g}",
            dialect=name,
            formula=conventions.evidence.dt_from,
            node=dt_estimate.node,
            pair=dt_estimate.pair,
            dt=dt_estimate.farthest,
        )
        if dt_estimate.dt is not None:
            reason += Text(", and other neurons give {expected:g}", expected=dt_estimate.dt)
        return Problem(node=dt_estimate.node, code=CONTRADICTION, message=reason)
    refutes = conventions.evidence.refutes
    refutation = None if refutes is None else refutes(graph.nodes, dt_estimate)
    if refutation is None:
        return None
    return Problem(node=refutation[0], code=CONTRADICTION, message=refutation[1])


def _refuting_parameter(node: Node, conventions: Conventions) -> str | None:
    """Return a sentence on a type or parameter of a neuron that the framework does not write;
    None if there is none.
    """
    rule = conventions.rule(node.type)
    if rule is None:
        never = "does not support" if conventions.reads_only else "never writes"
        return Text(
            "node '{node}' is of type {type}, which {dialect} " + never,
            node=node.name,
            type=node.type,
            dialect=conventions.name,
        )
    does = "requires" if conventions.reads_only else "writes"
    for parameter in rule.ones:
        value = np.asarray(node.value(parameter), float)
        if np.any(value != 1):
            odd_value = value[value != 1].ravel()[0]
            return Text(
                "{dialect} " + does + " {parameter} = 1, but node '{node}' has {value:g}",
                dialect=conventions.name,
                parameter=parameter,
                node=node.name,
                value=odd_value,
            )
    # A framework that only reads files ignores v_leak, so any value is consistent with it.
    if rule.leaks_to_zero and not conventions.reads_only and "v_leak" in node.names:
        leak = np.asarray(node.value("v_leak"), float)
        if np.any(leak):
            odd_value = leak[leak != 0].ravel()[0]
            return Text(
                "{dialect} writes v_leak = 0, but node '{node}' has {value:g}",
                dialect=conventions.name,
                node=node.name,
                value=odd_value,
            )
    return None


def refuse_contradiction(graph: Graph, conventions: Conventions) -> None:
    """Refuse a specified dialect that the numbers of a graph contradict."""
    problem = contradiction(graph, conventions)
    if problem is not None:
        others = [name for name in possible(graph) if name != conventions.name]
        raise DialectError(
            Text("the dialect {dialect} contradicts the file: ", dialect=conventions.name)
            + problem.message,
            fix=_few_digits(graph)
            or Text(
                "pass a different {dialect} (the parameters allow {others})",
                dialect=DIALECT.keyword,
                others=listing(others),
            ),
            node=problem.node,
            code=problem.code,
        )


def possible(graph: Graph) -> tuple[str, ...]:
    """Return the dialects that the numbers of a graph allow."""
    return tuple(_allowed(graph))


def _allowed(graph: Graph) -> dict[str, Conventions]:
    """Return the conventions that the parameters of a graph allow, by their value of `dialect=`:
    the first version of each framework.
    """
    allowed = {}
    for name, framework in frameworks().items():
        for number, conventions in enumerate(framework.dialects):
            if conventions.reads_only:
                continue
            if contradiction(graph, conventions) is None and _dt_is_theirs(graph, conventions):
                allowed[name if number == 0 else f"{name}=={conventions.version}"] = conventions
                break
    return allowed


def _dt_is_theirs(graph: Graph, conventions: Conventions) -> bool:
    if conventions.dt is None:
        return True
    dt_estimate = estimate(graph.nodes, conventions.evidence)
    return (
        dt_estimate.dt is None
        or abs(dt_estimate.dt - conventions.dt) <= 10 * TOLERANCE * conventions.dt
    )


def infer(graph: Graph) -> tuple[str | None, str]:
    """Return the dialect that follows from the parameters, and a sentence with the reason; None
    and the reason if there is none.
    """
    if not graph.neurons:
        return None, "The graph has no neurons, so the dialect cannot be inferred."
    allowed = _allowed(graph)
    proven = {
        label: why for label, conventions in allowed.items() if (why := _proof(graph, conventions))
    }
    if len(proven) == 1:
        ((label, why),) = proven.items()
        confirms = allowed[label].evidence.confirms
        if confirms is None or confirms(graph.nodes):
            return label, why
    few = _few_digits(graph)
    return None, (
        f"The parameters do not determine the dialect ({_gains(graph)}): they allow "
        f"{listing(allowed)}{few and f'; {few}'}."
    )


def _few_digits(graph: Graph) -> str:
    """Return advice for neurons with 16-bit numbers, which are too coarse to recognise dt; "" if
    there are none.
    """
    for name in graph.neurons:
        for value in map(np.asarray, map(graph.nodes[name].value, graph.nodes[name].names)):
            if value.dtype.kind == "f" and value.itemsize < 4:
                return Text(
                    "export the network in float32 (net.float()): the parameters of node '{node}' are "
                    "{dtype}, which has 3 digits, too few to infer dt",
                    node=name,
                    dtype=value.dtype,
                )
    return ""


def _proof(graph: Graph, conventions: Conventions) -> str:
    """Return a sentence on the evidence that a framework wrote the graph; "" if there is none."""
    evidence = conventions.evidence
    if evidence.recognises is not None and (seen := evidence.recognises(graph.nodes)):
        return f"Inferred from the parameters: {seen}."
    if not evidence.proves:
        return ""
    dt_estimate = estimate(graph.nodes, evidence)
    if not dt_estimate.proven:
        return ""
    return (
        f"Inferred from the parameters: dt = {evidence.dt_from} is {dt_estimate.dt:g} for all "
        f"neurons, which only {conventions.name} writes."
    )


def _gains(graph: Graph) -> str:
    neurons = [node for node in graph.nodes.values() if node.traits.state and "r" in node.names]
    values = np.concatenate([np.ravel(node.value("r")) for node in neurons] or [np.zeros(0)])
    if values.size == 0:
        return "no neuron has a parameter r"
    values = values.astype(float)
    if values.min() == values.max():
        return f"r = {values[0]:g} for all neurons"
    return f"r from {values.min():g} to {values.max():g}"


def read_tag(graph: Graph) -> tuple[DialectOptions | None, str]:
    """Return this library's tag in the metadata as options, or None; and a sentence if the tag is
    ignored.
    """
    text = graph.metadata.get(TAG)
    if text is None:
        return None, ""
    try:
        tag = dict(parse_json(str(text)))
        nodes = {
            name: dict(node_options) for name, node_options in dict(tag.pop("nodes", {})).items()
        }
        node_field_names = (*PER_NODE, *framework_options())
        if unknown := [
            field
            for node_options in nodes.values()
            for field in node_options
            if field not in node_field_names
        ]:
            raise ValueError(f"unknown option '{unknown[0]}' of a node")
        # Every value passes the same checks as an option of the user.
        per_node = {
            field: {
                name: node_options[field]
                for name, node_options in nodes.items()
                if field in node_options
            }
            for field in node_field_names
        }
        by_node = parse_options(
            graph.nodes,
            "auto",
            **{
                field: values_by_node
                for field, values_by_node in per_node.items()
                if values_by_node
            },
        ).nodes
        name, version = tag.pop("name"), tag.pop("version", "")
        options = parse_options(graph.nodes, f"{name}=={version}" if version else name, **tag)
        tag_options = dataclasses.replace(options, nodes=by_node)
        conventions = conventions_of(tag_options.dialect, tag_options.version)
        refuse_contradiction(graph, conventions)
        _decided(graph, conventions, tag_options, "metadata", "")
    except (
        JaxsnnError,
        ValueError,
        TypeError,
        KeyError,
        AttributeError,
        RecursionError,
    ) as error:
        reason = error.problem.message if isinstance(error, JaxsnnError) else str(error)
        return None, f"The entry '{TAG}' of its metadata is ignored: " + reason + ". "
    return tag_options, ""


def other_tag(graph: Graph) -> str:
    """Return a description of the tag of a graph that is read in a different dialect; "" if the
    dialects agree or there is no tag.
    """
    dialect = graph.dialect
    if dialect.name is None:
        return ""
    tag, _ = read_tag(graph)
    if tag is None or conventions_of(tag.dialect, tag.version) is dialect.conventions:
        return ""
    return describe_tag(tag)


def contradicts_tag(graph: Graph) -> bool:
    """Return whether a graph was read differently from the tag in its metadata."""
    if graph.dialect.name is None or read_tag(graph)[0] is None:
        return False
    tag, current_tag = (
        parse_json(text) for text in (str(graph.metadata[TAG]), tag_text(graph.dialect))
    )
    if any(current_tag.get(key) != value for key, value in tag.items()):
        return True
    # The numbers decide options that the tag omits, and may have changed since.
    conventions = graph.dialect.conventions
    assert conventions is not None
    return any(
        option.name not in tag and current_tag.get(option.name) != _fallback(graph, option)[0]
        for option in conventions.options
        if option.fallback is not None
    )


def describe_tag(tag: DialectOptions) -> str:
    """Return a description of a tag's dialect, unit and reset, without a full stop."""
    words = {"time_unit": "time unit", "reset": "reset"}
    more = [f"{word} {tag.fields[name]}" for name, word in words.items() if name in tag.fields]
    return f"Its metadata specify {', '.join((f'dialect {tag.label}', *more))}"


def _agrees(tag: DialectOptions, user_options: DialectOptions) -> bool:
    """Return whether the specified dialect is the tag's; without a version, if the tag's version
    has the specified options.
    """
    theirs = conventions_of(tag.dialect, tag.version)
    if tag.dialect != user_options.dialect:
        return False
    if (
        user_options.version
        and conventions_of(user_options.dialect, user_options.version) is not theirs
    ):
        return False
    tag_option_names = {option.name for option in theirs.options}
    user_fields = {
        name for options in (user_options.fields, *user_options.nodes.values()) for name in options
    }
    return user_fields & set(framework_options()) <= tag_option_names


def _merged(
    graph: Graph, tag: DialectOptions, user_options: DialectOptions
) -> tuple[DialectOptions, list[str]]:
    """Merge specified options with the tag, over which they take precedence, and return a sentence
    for each difference.

    A value specified for all nodes overrides the tag's value for one node, except that readouts
    do not reset.
    """
    fields = dict(tag.fields)
    differs = [
        _differs(field, fields[field], value)
        for field, value in user_options.fields.items()
        if field in fields and fields[field] != value
    ]
    _drop_what_followed(graph, fields, tag, user_options)
    nodes: dict[str, dict[str, Any]] = {}
    for name, tagged in tag.nodes.items():
        node_options = nodes[name] = dict(tagged)
        for field, value in tagged.items():
            if field not in user_options.fields or (field == "reset" and tagged.get("readout")):
                continue
            del node_options[field]
            if value != user_options.fields[field] and field not in user_options.nodes.get(
                name, {}
            ):
                differs.append(_differs(f"{field} of '{name}'", value, user_options.fields[field]))
    for name, node_options in user_options.nodes.items():
        tagged_values = {**tag.fields, **tag.nodes.get(name, {})}
        for field, value in node_options.items():
            if field in tagged_values and tagged_values[field] != value:
                differs.append(_differs(f"{field} of '{name}'", tagged_values[field], value))
        nodes.setdefault(name, {}).update(node_options)
    nodes = {name: node_options for name, node_options in nodes.items() if node_options}
    return dataclasses.replace(tag, fields={**fields, **user_options.fields}, nodes=nodes), differs


def _drop_what_followed(
    graph: Graph, fields: dict[str, Any], tag: DialectOptions, user_options: DialectOptions
) -> None:
    """Remove from a tag the fields that depend on the time unit or spike area, if a different one
    is specified.
    """
    unit, area = (user_options.fields.get(name) for name in ("time_unit", "spike_area"))
    evidence = conventions_of(tag.dialect, tag.version).evidence
    if unit not in (None, fields.get("time_unit")) and estimate(graph.nodes, evidence).dt:
        fields.pop("dt", None)
    if area not in (None, fields.get("spike_area")):
        fields.pop("spike_kernel", None)


def _differs(field_label: str, tagged: Any, user_value: Any) -> str:
    return (
        f"Its metadata specify {field_label.replace('_', ' ')} {tagged}; {user_value} was "
        "specified."
    )


def tag_text(dialect: Dialect) -> str:
    """Return the tag for the metadata: JSON with the known fields."""
    tag = {key: getattr(dialect, key) for key in _TAGGED if getattr(dialect, key) is not None}
    tag |= {key: value for key, value in dialect.framework_options.items() if value is not None}
    if dialect.nodes:
        tag["nodes"] = {name: dict(node_options) for name, node_options in dialect.nodes.items()}
    return json.dumps(tag)
