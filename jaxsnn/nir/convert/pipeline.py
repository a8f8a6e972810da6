"""Conversion of a graph for the importer of another simulator.

`convert` either returns a graph from which the target's importer builds a network that fires the
same spikes as the source, or refuses with the reasons. It works like a compiler: the graph becomes
a mutable draft, a list of passes (`PASSES`) rewrites the draft, and the last passes write a graph
in the target's conventions.

    graph -> draft_of -> draft -> pass -> pass -> ... -> written_graph -> Converted
                                    |
                                    ConversionError: node, reason, and a fix

Passes for time-stepped targets come first. In their order they resolve the time step of each
neuron, replace node types and resets that the importer lacks, choose dt, check the wiring, and
unify what the importer can express only once. Passes for targets in continuous time follow, and the
last ones write neurons, order nodes and edges, and build the graph. Each pass declares when it
runs, what it requires and what it ensures (`ConversionPass`); with JAXSNN_CHECK_PASSES=1 this is
checked.

If a graph is refused because of its axes (convolutions, pools), the conversion runs a second time
with these nodes as matrices. Where both fail, the message contains both reasons.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from math import prod
from typing import Any

from jaxsnn.errors import ConversionError, Problem, UsageError, as_number
from jaxsnn.keywords import suggests_keywords
from jaxsnn.nir.convert import (
    bounds,
    continuous,
    layers,
    memories,
    populations,
    resets,
    run_order,
    topology,
    written_graph,
)
from jaxsnn.nir.convert.passes import (
    FLOWS_RESOLVED,
    SHAPES_KNOWN,
    STEPS_RESOLVED,
    Conversion,
    ConversionPass,
    ConversionRequest,
    passes_checked,
    run_passes,
    without,
)
from jaxsnn.nir.convert.target import Target, target_of
from jaxsnn.nir.dialects.gains import require
from jaxsnn.nir.dialects.resolve import resolve_neurons
from jaxsnn.nir.frameworks.framework import Importer
from jaxsnn.nir.graphs.export import types_refused
from jaxsnn.nir.model.changes import Change
from jaxsnn.nir.model.draft import draft_of
from jaxsnn.nir.model.extension_nodes import ALTERNATIVES, EXTENSIONS
from jaxsnn.nir.model.graph import Graph, refuse_no_graph
from jaxsnn.nir.model.node import nothing
from jaxsnn.nir.model.passes import shapes
from jaxsnn.options import APPROXIMATE, INPUT_RANGE
from jaxsnn.summary import summarised
from jaxsnn.units import format_time, parse_time
from jaxsnn.wording import Text


@summarised
@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Converted:
    """A graph for another simulator.

    Attributes:
        graph: Graph for `jaxsnn.nir.write`. It has the dialect of the target, also in its
            metadata, so that this library reads the file as the target runs it.
        load_with: Line of Python that loads the file in the target framework.
        run_with: Lines of Python that run the loaded module on inputs x; they document the axes of
            x. "" if they are not known.
        written_for: Framework and version of the importer, such as "snnTorch 1.0".
        changes: Changes of the graph, with node, change and reason.
        losses: Losses by approximations; empty without `approximate`.
        shift: Number of time steps by which the target emits spikes later than the source
            framework, by output; negative if earlier.
        names: Name of the node in `graph`, by its name in the source graph; for an added node, by
            its name in `changes`. Removed nodes are missing.
        notes: Further notes, for example that a different version of the target is installed, or
            that the importer was not tested.
    """

    graph: Graph
    load_with: str
    run_with: str
    written_for: str
    changes: tuple[Change, ...]
    losses: tuple[str, ...]
    shift: dict[str, int]
    names: Mapping[str, str] = dataclasses.field(default_factory=nothing)
    notes: tuple[str, ...] = ()


@suggests_keywords
def convert(
    graph: Graph,
    *,
    to: str,
    approximate: bool = False,
    dt: float | str | None = None,
    path: str = "model.nir",
    input_range: tuple[float, float] = (0.0, 1.0),
) -> Converted:
    """Rewrite a graph for another simulator.

    Both simulate the same number of time steps. If their time steps have different lengths, time
    constants are scaled so that the decay per time step is equal.

    Args:
        graph: Graph with its dialect, which must specify dt, reset and all other options that its
            time steps depend on.
        to: Target framework, such as norse, snntorch, spikingjelly or spyx
            (`jaxsnn.nir.frameworks.registry.writable` lists them), optionally with a version:
            "snntorch==1.0", "snntorch==main". Default: the installed version, or the newest release
            if none is installed.
        approximate: Whether to approximate features that the target does not support. `losses`
            lists the approximations.
        dt: Time step of the target, in seconds or as text with a unit. Default: dt of the graph, or
            the default of the target. Continuous time (dialects nir, jaxsnn, hxtorch) is divided
            into such time steps.
        path: File name in `load_with`.
        input_range: Lowest and highest value of an input channel in a time step: 0 and 1 for
            spikes. The largest number of spikes of a neuron per time step depends on it.

    Raises:
        ConversionError: The importer does not support the graph; the message names the node and
            the reason.
        DialectError: The dialect lacks information that the conversion needs; the fix names the
            option.
        UsageError: The target or its version is unknown, or the first value of `input_range` is
            larger than the second.
    """
    refuse_no_graph(graph)
    target = target_of(to)
    _refuse_extensions(graph, target)
    require(graph.dialect, ["name"], "conversion")
    target_dt = None if dt is None else parse_time(dt)
    low, high = map(as_number, input_range)
    if not low <= high:  # also true if one of them is NaN
        raise UsageError(
            Text(
                "{input_range} is {low:g} to {high:g}; the first value must not be larger than the second",
                input_range=INPUT_RANGE,
                low=low,
                high=high,
            ),
            fix="pass the lowest value, then the highest",
        )
    request = ConversionRequest(
        target=target, approximate=approximate, dt=target_dt, path=path, input_range=input_range
    )
    if target.importer.continuous:
        dense = layers.fits_as_matrices(draft_of(graph)[0])
        return _run(graph, dataclasses.replace(request, dense=dense))
    if any(rule.is_continuous for rule in resolve_neurons(graph).values()):
        dialect = graph.dialect
        if target_dt is not None and dialect.dt is None:
            dialect = dataclasses.replace(dialect, dt=target_dt)
        require(dialect, ["dt", "seconds"], "conversion from continuous time")
        graph = dataclasses.replace(graph, dialect=dialect)
        if not approximate:
            length = format_time(dialect.dt or 0)
            raise ConversionError(
                Text(
                    "the dialect {dialect} has continuous time, and {framework} is time-stepped",
                    dialect=dialect.name,
                    framework=target.title,
                ),
                fix=Text(
                    "pass {approximate} to divide time into steps of {length}",
                    approximate=APPROXIMATE.set_to(True),
                    length=length,
                ),
            )
    return _run_with_dense_fallback(graph, request)


def _refuse_extensions(graph: Graph, target: Target) -> None:
    """Refuse nodes of types that NIR does not have, which no target supports. This is the first check
    of a graph.

    Raises:
        ConversionError: The graph has such nodes; the problems of the error name all of them.
    """
    problems = [
        Problem(
            node=name,
            code="cannot-convert",
            message=Text(
                "{target} cannot load this graph: node '{node}' is a {type}, which is an extension of "
                "this package and not a type of NIR",
                target=target.title,
                node=name,
                type=node.type,
            ),
            fix=ALTERNATIVES[node.type]
            if node.type == "Reshape"  # jaxsnn.to_torch does not support it
            else Text(
                "{alternative}; jaxsnn.to_torch runs the graph in PyTorch as it is",
                alternative=ALTERNATIVES[node.type],
            ),
        )
        for name, node in graph.nodes.items()
        if node.type in EXTENSIONS
    ]
    if problems:
        raise _refusal(problems)


def passes_for(request: ConversionRequest) -> list[ConversionPass]:
    """Return the passes that a conversion runs, in their order."""
    return [conversion_pass for conversion_pass in PASSES if conversion_pass.when(request)]


def _run(graph: Graph, request: ConversionRequest) -> Converted:
    """Run the passes on a draft of a graph.

    Raises:
        ConversionError: Its problems refer to nodes of the graph.
    """
    draft, draft_names = draft_of(graph)
    conversion = Conversion(request=request, source=graph, draft=draft, draft_names=draft_names)
    try:
        run_passes(PASSES, conversion, check=passes_checked())
    except ConversionError as error:
        problems = _name_source_nodes([error.problem, *error.others], draft_names)
        raise _refusal(problems) from error
    return _converted(conversion)


def _run_with_dense_fallback(graph: Graph, request: ConversionRequest) -> Converted:
    """Convert a graph; if that fails, convert it with its convolutions written as matrices."""
    try:
        return _run(graph, request)
    except ConversionError as error:
        refusal = error
    if not layers.fits_as_matrices(draft_of(graph)[0]):
        raise refusal
    try:
        converted = _run(graph, dataclasses.replace(request, dense=True))
    except ConversionError as error:
        problems = [refusal.problem, *refusal.others]
        dense_problems = [error.problem, *error.others]
        raise _refusal(_merge_problems(problems, dense_problems, request.target)) from refusal
    return dataclasses.replace(converted, notes=(*converted.notes, *_reshaped_outputs(graph)))


def _refusal(problems: list[Problem]) -> ConversionError:
    """Return the exception for several problems; its message is the first problem's."""
    error = ConversionError.of(problems[0])
    error.others = tuple(problems[1:])
    return error


def _merge_problems(
    problems: list[Problem], dense_problems: list[Problem], target: Target
) -> list[Problem]:
    """Return the problems of a graph, with those of its conversion to matrices if they differ."""
    first, dense_first = problems[0], dense_problems[0]
    message = topology.without_title(dense_first.message, target)
    if message in (topology.without_title(problem.message, target) for problem in problems):
        return problems
    first = dataclasses.replace(
        first,
        message=first.message + "; with matrices instead of convolutions: " + message,
        fix=first.fix + "; or " + dense_first.fix,
    )
    return [first, *problems[1:], *dense_problems]


def _reshaped_outputs(graph: Graph) -> Iterator[str]:
    """Yield a note for each output that has several axes, and one with matrices."""
    for name in graph.outputs:
        shape = shapes(graph)[name][0] or ()
        if len(shape) > 1:
            yield (
                Text(
                    "output '{node}' has the shape {shape} instead of {source_shape}: reshape its values",
                    node=name,
                    shape=(prod(shape),),
                    source_shape=shape,
                )
            )


def _name_source_nodes(problems: list[Problem], draft_names: Mapping[str, str]) -> list[Problem]:
    """Return problems of nodes of a draft as problems of nodes of the source, whose names may
    differ.
    """
    source_names = {draft: source for source, draft in draft_names.items() if source != draft}
    return [
        dataclasses.replace(
            problem,
            node=source_names[problem.node],
            message=problem.message
            + Text(
                " (node '{node}' is '{source}' in the file)",
                node=problem.node,
                source=source_names[problem.node],
            ),
        )
        if problem.node in source_names
        else problem
        for problem in problems
    ]


def _converted(conversion: Conversion) -> Converted:
    """Return the result of all passes, and how to use it."""
    graph, draft, setting = conversion.graph, conversion.draft, conversion.setting
    target, path = conversion.target, conversion.request.path
    assert graph is not None
    assert setting is not None
    assert target.importer.load is not None
    load = target.importer.load(path, setting)
    assumptions = dict.fromkeys(text for rule in conversion.rules.values() for text in rule.assumed)
    notes = [*target.notes(), *assumptions, *draft.notes]
    if f"nir.read({path!r})" in load and (refused := types_refused(graph)):
        load = load.replace(f"nir.read({path!r})", f"nir.read({path!r}, type_check=False)")
        notes.append(
            Text(
                "nir.read needs type_check=False, because it infers different shapes: {reason}",
                reason=refused,
            )
        )
    return Converted(
        graph=graph,
        load_with=f"{load}  # {target.label}",
        run_with=target.importer.run,
        written_for=target.label,
        changes=tuple(draft.changes),
        losses=tuple(draft.losses),
        shift=conversion.shift,
        names=_written_names(conversion, graph),
        notes=tuple(notes),
    )


def _written_names(conversion: Conversion, graph: Graph) -> dict[str, str]:
    """Return `Converted.names`."""
    draft, draft_names = conversion.draft, conversion.draft_names
    old_names = {new: old for old, new in draft.renamed.items()}
    written = {old_names.get(name, name): name for name in graph.nodes}
    from_source = {source: written[name] for source, name in draft_names.items() if name in written}
    added = {name: new for name, new in written.items() if name not in draft_names.values()}
    return added | from_source


# Conditions under which passes run


def _in_steps(request: ConversionRequest) -> bool:
    return not request.importer.continuous


def _in_continuous_time(request: ConversionRequest) -> bool:
    return request.importer.continuous


def _stepped_if(needs: Callable[[Importer], Any]) -> Callable[[ConversionRequest], bool]:
    """Return a condition: time-stepped conversions whose importer fulfils a predicate."""
    return lambda request: _in_steps(request) and bool(needs(request.importer))


def _unless_mapped(node_type: str) -> Callable[[ConversionRequest], bool]:
    return lambda request: _in_steps(request) and not request.maps(node_type)


PASSES: tuple[ConversionPass, ...] = (
    ConversionPass(
        layers.write_as_matrices,
        ensures=(layers.ONE_AXIS,),
        when=lambda request: request.dense,
    ),
    ConversionPass(populations.resolve_steps, ensures=(STEPS_RESOLVED,), when=_in_steps),
    ConversionPass(
        topology.merge_loop_weights,
        ensures=(topology.LOOPS_RUN_ALIKE,),
        when=_in_steps,
    ),
    ConversionPass(
        populations.replace_thresholds,
        requires=(STEPS_RESOLVED,),
        ensures=(populations.NO_THRESHOLDS, STEPS_RESOLVED),
        when=lambda request: _unless_mapped("Threshold")(request) and not request.importer.bursts,
    ),
    ConversionPass(
        bounds.bound_membranes,
        requires=(STEPS_RESOLVED, topology.LOOPS_RUN_ALIKE),
        ensures=(bounds.SEVERAL_SPIKES_BOUNDED,),
        when=lambda request: (
            _in_steps(request) and (bool(request.importer.subtracts) or request.approximate)
        ),
    ),
    ConversionPass(written_graph.choose_dt, ensures=(written_graph.STEP_CHOSEN,), when=_in_steps),
    ConversionPass(
        topology.sum_before_outputs,
        ensures=(topology.OUTPUTS_HAVE_ONE_SOURCE,),
        when=_stepped_if(lambda importer: "sums" in importer.wiring),
    ),
    ConversionPass(
        layers.replace_scales,
        ensures=(without("Scale"),),
        when=lambda request: _in_continuous_time(request) or not request.maps("Scale"),
    ),
    ConversionPass(
        layers.replace_linear, ensures=(without("Linear"),), when=_unless_mapped("Linear")
    ),
    ConversionPass(
        memories.replace_delays,
        ensures=(memories.NO_IDLE_DELAYS,),
        when=_unless_mapped("Delay"),
    ),
    ConversionPass(
        memories.replace_readouts,
        requires=(STEPS_RESOLVED,),
        ensures=(memories.NO_READOUTS, STEPS_RESOLVED),
        when=_unless_mapped("LI"),
    ),
    ConversionPass(topology.check_wiring, ensures=(topology.WIRING_EXPRESSIBLE,), when=_in_steps),
    ConversionPass(
        topology.measure_shift,
        requires=(STEPS_RESOLVED, topology.WIRING_EXPRESSIBLE),
        when=_in_steps,
    ),
    ConversionPass(bounds.apply_early_biases, requires=(STEPS_RESOLVED,), when=_in_steps),
    ConversionPass(
        memories.split_synaptic_currents,
        requires=(STEPS_RESOLVED,),
        ensures=(memories.NO_SEPARABLE_CURRENTS,),
        when=_in_steps,
    ),
    ConversionPass(
        resets.copy_bursting_neurons,
        requires=(STEPS_RESOLVED, bounds.SEVERAL_SPIKES_BOUNDED),
        ensures=(resets.ONE_SPIKE_PER_STEP,),
        when=_stepped_if(lambda importer: importer.subtracts),
    ),
    ConversionPass(
        resets.compose_resets,
        requires=(STEPS_RESOLVED, resets.ONE_SPIKE_PER_STEP),
        ensures=(resets.NO_COMPOSABLE_RESETS, STEPS_RESOLVED),
        when=_in_steps,
    ),
    ConversionPass(layers.set_channel_order, ensures=(layers.CHANNELS_IN_ORDER,), when=_in_steps),
    ConversionPass(layers.join_groups, ensures=(layers.ONE_GROUP,), when=_in_steps),
    ConversionPass(
        layers.fill_dilations,
        ensures=(layers.NO_DILATIONS,),
        when=_stepped_if(lambda importer: "dilation" in importer.lacks),
    ),
    ConversionPass(
        layers.unify_pools,
        requires=(layers.CHANNELS_IN_ORDER,),
        ensures=(layers.POOLS_OF_ONE_TYPE,),
        when=_stepped_if(lambda importer: importer.pool),
    ),
    ConversionPass(
        layers.split_pool_padding,
        ensures=(layers.POOLS_WITHOUT_PADDING,),
        when=_stepped_if(lambda importer: "pool padding" in importer.lacks),
    ),
    ConversionPass(layers.count_axes_from_end, ensures=(layers.AXES_FROM_END,), when=_in_steps),
    ConversionPass(
        populations.set_initial_state,
        requires=(STEPS_RESOLVED, resets.ONE_SPIKE_PER_STEP),
        ensures=(populations.STARTS_AT_RESET, STEPS_RESOLVED),
        when=_stepped_if(lambda importer: importer.starts_at_reset),
    ),
    ConversionPass(
        resets.move_subtractions,
        requires=(STEPS_RESOLVED, resets.ONE_SPIKE_PER_STEP),
        ensures=(resets.NO_MOVABLE_SUBTRACTIONS,),
        when=_stepped_if(
            lambda importer: importer.subtracts and "several" not in importer.subtracts
        ),
    ),
    ConversionPass(
        populations.unify_time_constants,
        requires=(STEPS_RESOLVED, layers.ONE_GROUP),
        ensures=(populations.ONE_TIME_CONSTANT, STEPS_RESOLVED),
        # The spikes of the parts are summed, which importers of plain chains do not support.
        when=_stepped_if(
            lambda importer: importer.uniform and {"forks", "sums"} <= {*importer.wiring}
        ),
    ),
    ConversionPass(continuous.resolve_flows, ensures=(FLOWS_RESOLVED,), when=_in_continuous_time),
    ConversionPass(
        continuous.refuse_unmapped_types,
        requires=(without("Scale"),),
        when=_in_continuous_time,
    ),
    ConversionPass(
        continuous.remove_zero_biases, ensures=(without("Affine"),), when=_in_continuous_time
    ),
    ConversionPass(
        continuous.use_one_matrix,
        requires=(without("Affine"),),
        ensures=(continuous.ONE_SOURCE_PER_MATRIX,),
        when=_in_continuous_time,
    ),
    # The weights that `use_one_matrix` adds are Affine nodes with a bias of 0.
    ConversionPass(
        continuous.remove_zero_biases, ensures=(without("Affine"),), when=_in_continuous_time
    ),
    ConversionPass(
        continuous.check_chain,
        ensures=(continuous.CHAIN_EXPRESSIBLE,),
        when=_in_continuous_time,
    ),
    ConversionPass(
        written_graph.write_neurons,
        requires=(written_graph.POPULATIONS_RESOLVED, SHAPES_KNOWN),
        ensures=(written_graph.NEURONS_WRITTEN,),
    ),
    ConversionPass(
        run_order.order_nodes,
        requires=(
            topology.WIRING_EXPRESSIBLE,
            layers.CHANNELS_IN_ORDER,
            layers.ONE_GROUP,
            written_graph.STEP_CHOSEN,
        ),
        ensures=(run_order.LATE_WEIGHTS_WITHOUT_BIAS, written_graph.NODES_MAPPED),
        when=_in_steps,
    ),
    ConversionPass(
        continuous.remove_dots,
        ensures=(continuous.NO_DOTS,),
        when=lambda request: _in_continuous_time(request) and request.importer.torch_names,
    ),
    ConversionPass(continuous.order_edges, when=_in_continuous_time),
    ConversionPass(
        written_graph.build_graph,
        requires=(written_graph.NODES_MAPPED,),
        ensures=(written_graph.GRAPH_BUILT,),
    ),
    ConversionPass(
        run_order.check_order,
        requires=(written_graph.GRAPH_BUILT,),
        ensures=(run_order.RUNS_AS_SOURCE,),
        when=_in_steps,
    ),
)
