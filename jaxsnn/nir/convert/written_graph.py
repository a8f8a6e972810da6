"""The written graph: the step of the target, the parameters of its neurons, and the graph in its dialect."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxsnn.errors import ConversionError, UsageError
from jaxsnn.nir.convert.bounds import rounded_summand, sums_may_meet
from jaxsnn.nir.convert.passes import Condition, Conversion
from jaxsnn.nir.convert.target import Target
from jaxsnn.nir.convert.topology import refuse_for
from jaxsnn.nir.dialects.inference import TAG, with_kernels
from jaxsnn.nir.dialects.resolve import resolve_neuron
from jaxsnn.nir.frameworks.neuron_writing import Setting, has_few_digits
from jaxsnn.nir.frameworks.registry import dialect_of
from jaxsnn.nir.frameworks.source_flow import Flow
from jaxsnn.nir.frameworks.source_step import Step
from jaxsnn.nir.graphs.export import tagged
from jaxsnn.nir.graphs.parse import parse
from jaxsnn.nir.io.documents import NIR_VERSION, group_of
from jaxsnn.nir.model.dialect import Dialect
from jaxsnn.nir.model.draft import NEURON_TYPES, Draft, as_node, loops_of, scale_inputs
from jaxsnn.units import format_time
from jaxsnn.wording import Shown, Text


def choose_dt(conversion: Conversion) -> None:
    """Choose the time step of the target, and report if it is not that of the source framework.

    Raises:
        UsageError: The importer does not support the requested time step.
    """
    draft, importer = conversion.draft, conversion.importer
    source_dt, requested_dt = conversion.source.dialect.dt, conversion.request.dt
    assert importer.dt is not None
    is_fixed = "dt" in importer.reads
    if is_fixed and requested_dt not in (None, importer.dt):
        raise UsageError(
            Text(
                "{framework}'s importer supports only dt = {expected}, not {actual}",
                framework=conversion.title,
                expected=format_time(importer.dt),
                actual=format_time(requested_dt or 0),
            ),
            facts={"expected": importer.dt, "actual": requested_dt},
            fix="do not specify the time step of the target",
        )
    dt = importer.dt if is_fixed else requested_dt or source_dt or importer.dt
    conversion.dt = dt
    if source_dt is None:
        draft.changed(
            "",
            Text("a time step is written as {dt}", dt=format_time(dt)),
            "the source framework does not specify the length of its time steps",
        )
    elif abs(dt - source_dt) > 1e-9 * source_dt:
        draft.changed(
            "",
            Text(
                "time constants are multiplied by {factor:g}, for time steps of {dt}",
                factor=dt / source_dt,
                dt=format_time(dt),
            ),
            Text(
                "the time step of the source framework is {source_dt}; the same number of time steps "
                "produces the same spikes",
                source_dt=format_time(source_dt),
            ),
        )


def write_neurons(conversion: Conversion) -> None:
    """Write type and parameters of each neuron for the importer, and scale its inputs.

    Raises:
        ConversionError: Neurons that the importer does not support, all in one exception.
    """
    draft, target, importer = conversion.draft, conversion.target, conversion.importer
    steps = conversion.steps
    shared = None if importer.setting is None else importer.setting(list(steps.values()))
    setting = Setting(dt=conversion.dt, importer_setting=shared, give_up=conversion.give_up)
    conversion.setting = setting
    # Find possible ties before any input is scaled; a writer may need those of other neurons.
    setting.ties.update(
        name for name, step in steps.items() if sums_may_meet(draft, name, step.v_threshold)
    )
    summands = {name: rounded_summand(draft, name) for name in setting.ties}
    problems = []
    populations: dict[str, Step | Flow] = {**steps, **conversion.flows}
    for name, population in populations.items():
        try:
            assert importer.write is not None
            written = importer.write(population, setting)
            setting.dialect_fields[name] = {**written.says, **written.means}
            scale_inputs(draft, name, written.factor, written.offset, population.bias_ratio)
        except ConversionError as error:
            problems.append(error.problem)
            continue
        old = draft.nodes[name]
        entry = dict(written.entry) | ({"metadata": old["metadata"]} if "metadata" in old else {})
        draft.nodes[name] = entry
        difference = _describe_difference(old, entry, written.factor, written.offset)
        rounding = written.rounding
        if not np.all(has_few_digits(written.factor)):
            factors = _format_range(written.factor)
            rounding = Text(
                "float32 rounds its weights, which are multiplied by {factors}", factors=factors
            )
        elif difference and not rounding and summands.get(name):
            rounding = Text(
                "float32 rounds its weights or biases, such as {value:g}, and {framework} adds and "
                "multiplies in a different order than the source framework",
                value=summands[name],
                framework=target.title,
            )
        if name in setting.ties and rounding:
            draft.notes.append(
                Text(
                    "node '{node}': {rounding}; where a sum of its weights equals v_threshold, only one "
                    "of {framework} and the source framework may fire",
                    node=name,
                    rounding=rounding,
                    framework=target.title,
                )
            )
        if difference:
            why = written.why + _describe_comparison(population, target)
            draft.changed(name, difference, why)
        settings = [
            f"{key} {value}"
            for key, value in written.says.items()
            if importer.reads.get(key) != value
        ]
        if settings:
            draft.changed(
                name,
                Text(
                    "the line of Python that loads the file sets {settings}",
                    settings=", ".join(settings),
                ),
                Text(
                    "NIR files cannot contain this setting, and {target}'s importer has a different "
                    "default",
                    target=target.title,
                ),
            )
    refuse_for(target, problems)


def build_graph(conversion: Conversion) -> None:
    """Build the graph in the target's dialect."""
    draft, source = conversion.draft, conversion.source
    assert conversion.setting is not None
    conversion.setting = conversion.setting.renamed(draft.renamed)
    metadata = {key: value for key, value in source.metadata.items() if key != TAG}
    tree: dict[str, Any] = {"type": "NIRGraph", "nodes": draft.nodes, "edges": draft.edges}
    if metadata:
        tree["metadata"] = metadata
    dialect = _dialect(draft, conversion.target, conversion.setting)
    graph = parse(group_of(tree, NIR_VERSION), dialect=dialect)
    conversion.graph = graph if graph.dialect.name is None else tagged(with_kernels(graph))


def _describe_comparison(step: Step | Flow, target: Target) -> str:
    """Return the reason for moving a threshold by its last bit: which framework fires at V = v_threshold."""
    if isinstance(step, Flow) or target.framework is None:
        return ""
    fires = target.framework.dialects[0].threshold
    if step.at_equality == (fires == ">="):
        return ""
    source = ">=" if step.at_equality else ">"
    return (
        f"; {target.title} fires at v {fires} v_threshold, the source framework at v {source} "
        "v_threshold"
    )


def _describe_difference(
    old: dict[str, Any], new: dict[str, Any], factor: np.ndarray, offset: np.ndarray
) -> str:
    """Describe the changes of a neuron."""
    parts: list[str] = []
    if old["type"] != new["type"]:
        parts.append(Text("{before} is written as {after}", before=old["type"], after=new["type"]))
    for key, value in new.items():
        if key in ("type", "metadata"):
            continue
        before = old.get(key)
        if before is None or not _are_close(before, value):
            numbers = _format_range(value) if before is None else _describe_change(before, value)
            parts.append(Text(key + " {numbers}", numbers=numbers))
    if not np.all(factor == 1):
        factors = _format_range(factor)
        parts.append(Text("its input weights are multiplied by {factors}", factors=factors))
    if np.any(offset):
        parts.append(Text("{offset} is added to its bias", offset=_format_range(offset)))
    return Text.joined(", ", parts)


def _are_close(old: Any, new: Any) -> bool:
    """Return whether a parameter has the same numbers, one for all neurons or one for each; also where
    each neuron is written as several.
    """
    before, after = np.asarray(old, float), np.asarray(new, float)
    if before.size not in (1, after.size):
        is_uniform = np.all(before == before.flat[0])
        before = before.ravel()[:1] if is_uniform else np.full(1, np.nan)
    return np.allclose(before, after, rtol=1e-9, atol=0)


def _describe_change(old: Any, new: Any) -> str:
    """Describe the change of a number, with enough digits to distinguish the two values."""
    texts = ((_format_range(old, digits), _format_range(new, digits)) for digits in (6, 9, 17))
    same_range = (_format_range(old), "other values in the same range")
    before, after = next((pair for pair in texts if pair[0] != pair[1]), same_range)
    return Text("{before} becomes {after}", before=before, after=after)


def _format_range(value: Any, digits: int = 6) -> str:
    array = np.asarray(value, float)
    low, high = float(array.min()), float(array.max())
    if np.isclose(low, high, rtol=1e-7, atol=0):
        return Shown(f"{low:.{digits}g}", low)
    spec = f":.{digits}g"
    return Text("{minimum" + spec + "} to {maximum" + spec + "}", minimum=low, maximum=high)


def _dialect(draft: Draft, target: Target, setting: Setting) -> Dialect:
    """Return the dialect of the written file; undecided if the importer interprets a type
    differently from files of its own framework.
    """
    assert target.framework is not None
    why = f"Written for {target.title}'s importer."
    misread = [kind for kind in target.importer.misread if draft.of_type(kind)]
    if misread:
        types = " and ".join(misread)
        why = (
            f"{why} The importer interprets {types} differently from files that {target.title} "
            "writes."
        )
        return Dialect(why=why, dt=setting.dt)
    # Importers that solve the equations have no time step.
    fields: dict[str, Any] = {**target.importer.reads, "dt": setting.dt or None}
    common_names = {field.name for field in dataclasses.fields(Dialect)}
    framework_options = {
        name: fields.pop(name) for name in list(fields) if name not in common_names
    }
    shared, nodes = _split_shared(setting.dialect_fields)
    options: dict[str, Any] = {
        "time_unit": "s",
        "framework_options": framework_options,
        **fields,
        **shared,
    }
    dialect = dialect_of(
        target.framework.name,
        decided_by="argument",
        why=why,
        nodes=nodes,
        **options,
    )
    # The framework may reset recurrent neurons differently, unless their node declares the reset.
    for name in (name for part in loops_of(draft) for name in part):
        if draft.nodes[name]["type"] in NEURON_TYPES:
            rule = resolve_neuron(as_node(name, draft.nodes[name]), dialect, is_recurrent=True)
            if rule.resets and rule.reset_delay != dialect.at(name).reset_delay:
                nodes.setdefault(name, {}).setdefault("reset_delay", options["reset_delay"])
    return dataclasses.replace(dialect, nodes=nodes)


def _split_shared(
    declared: Mapping[str, Mapping[str, Any]],
) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Return the options that all neurons share, and those of single neurons by name."""
    keys = {key for fields in declared.values() for key in fields}
    equal = {
        key
        for key in keys & {*Dialect.__dataclass_fields__}
        if len({fields.get(key) for fields in declared.values()}) == 1
    }
    shared = {key: next(iter(declared.values()))[key] for key in sorted(equal)}
    nodes = {
        name: {key: value for key, value in fields.items() if key not in equal}
        for name, fields in declared.items()
    }
    return shared, {name: fields for name, fields in nodes.items() if fields}


POPULATIONS_RESOLVED = Condition(
    "the time step or the equations of every population are resolved",
    lambda conversion: (
        {*conversion.steps, *conversion.flows} == {*conversion.draft.of_type(*NEURON_TYPES)}
    ),
)
NEURONS_WRITTEN = Condition(
    "every population has been written",
    lambda conversion: (
        conversion.setting is not None
        and {*conversion.setting.dialect_fields} == {*conversion.steps, *conversion.flows}
    ),
)
NODES_MAPPED = Condition(
    "every node has a type that the importer supports",
    lambda conversion: all(
        # A framework may nest a layer's nodes.
        entry["type"] == "NIRGraph" or conversion.request.maps(entry["type"])
        for entry in conversion.draft.nodes.values()
    ),
)
STEP_CHOSEN = Condition(
    "the time step of the target is chosen", lambda conversion: conversion.dt > 0
)
GRAPH_BUILT = Condition(
    "the graph is built in the dialect of the target",
    lambda conversion: conversion.graph is not None,
)
