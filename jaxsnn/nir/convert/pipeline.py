"""A graph rewritten so that another simulator's own importer fires the source's spikes, or a
refusal that says why.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from math import prod
from typing import Any

import numpy as np

from jaxsnn.errors import ConversionError, Problem, UsageError, as_number
from jaxsnn.nir.convert.bounds import begun, settled, sums_may_meet
from jaxsnn.nir.convert.composed import composed
from jaxsnn.nir.convert.continuous import flow_of, in_running_order, plain_names, straightened
from jaxsnn.nir.convert.delays import delays_as_weights
from jaxsnn.nir.convert.geometry import (
    padded_apart,
    reorder_flattened,
    scales_as_weights,
    undilated,
)
from jaxsnn.nir.convert.integrators import apart, integrated
from jaxsnn.nir.convert.matrices import as_matrices, can_be_matrices
from jaxsnn.nir.convert.spike_levels import spread
from jaxsnn.nir.convert.starts import started
from jaxsnn.nir.convert.subtraction import subtracting
from jaxsnn.nir.convert.target import Target, target_of
from jaxsnn.nir.convert.thresholds import thresholds_as_neurons
from jaxsnn.nir.convert.topology import (
    check_loops,
    check_order,
    check_wiring,
    depths,
    forward_order,
    join_outputs,
    refuse_for,
    rewire,
    shift_of,
    without_title,
)
from jaxsnn.nir.convert.uniform import alike
from jaxsnn.nir.dialects.gains import assumptions, require
from jaxsnn.nir.dialects.inference import TAG, with_kernels
from jaxsnn.nir.dialects.resolve import is_continuous, refuse_firing_at_rest, step_of
from jaxsnn.nir.frameworks.framework import Importer
from jaxsnn.nir.frameworks.neuron_writing import Setting, has_few_digits
from jaxsnn.nir.frameworks.registry import dialect_of, framework_of
from jaxsnn.nir.frameworks.source_flow import Flow
from jaxsnn.nir.frameworks.source_step import Step
from jaxsnn.nir.graphs.export import tagged, types_refused
from jaxsnn.nir.graphs.parse import parse
from jaxsnn.nir.io.documents import NIR_VERSION, group_of
from jaxsnn.nir.model.changes import Change
from jaxsnn.nir.model.dialect import Dialect
from jaxsnn.nir.model.draft import (
    NEURON_TYPES,
    POOLS,
    Draft,
    as_node,
    dense_groups,
    draft_of,
    linear_as_affine,
    loops_of,
    plain_flatten,
    scale_inputs,
    swap_pools,
)
from jaxsnn.nir.model.graph import Graph, refuse_no_graph
from jaxsnn.nir.model.node import nothing
from jaxsnn.nir.model.passes import shapes, window
from jaxsnn.options import APPROXIMATE, INPUT_RANGE
from jaxsnn.units import format_time, parse_time
from jaxsnn.wording import Text


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Converted:
    """A graph for another simulator.

    Attributes:
        graph: To be written with `jaxsnn.nir.write`; its dialect is the target's, and in its metadata,
            so that this library reads the file again as the target runs it.
        load_with: A line of Python that loads the file there.
        run_with: Lines of Python that run what was loaded, on inputs x whose axes they name; "" if
            nothing is known.
        written_for: The importer that it was written for: "snnTorch 1.0".
        changes: What was changed: node, what, why.
        losses: What an approximation loses; empty without `approximate`.
        shift: Steps by which the target's spikes leave later than the source's, by output; negative
            is earlier.
        names: Name in `graph` of each node of the source that is still there; of a node that was
            added, by its name in `changes`.
        notes: What else must be known: another version of the target is installed, or nobody has
            run the importer that it was written for.
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

    Both simulate the same number of steps. Where the target's step lasts another time, time
    constants are written so that a step decays alike.

    Args:
        graph: Read with its dialect; reset, dt and what else its steps depend on must be known.
        to: A framework whose importer can be written for, such as norse, snntorch, spikingjelly or
            spyx (`jaxsnn.nir.frameworks.registry.writable` lists them), with a version if need be:
            "snntorch==1.0", "snntorch==main". Without one, for the version that is installed; else
            for the newest that is released.
        approximate: Where the target cannot do what the source does, do the nearest thing and list
            it in `losses`.
        dt: Step of the target, seconds or text with a unit. Without it: the source's, else the
            target's own default. Continuous time (dialects nir, jaxsnn, hxtorch) is cut into such
            steps.
        path: Name of the file in `load_with`.
        input_range: Lowest and highest value that an input channel carries in a step: 0 and 1 for
            spikes. How many spikes a neuron can fire in a step depends on it.

    Raises:
        ConversionError: Something that the importer cannot express; the message names the node and
            the reason.
        DialectError: Something that the conversion needs is unknown; the fix names the option.
        UsageError: An unknown target, a version of it of which nothing is known, or an
            `input_range` whose first value is above its second.
    """
    refuse_no_graph(graph)
    target = target_of(to)
    require(graph.dialect, ["name"], "conversion")
    asked = None if dt is None else parse_time(dt)
    low, high = map(as_number, input_range)
    if not low <= high:  # also where one of them is NaN
        raise UsageError(
            Text(
                "{input_range} is {low:g} to {high:g}", input_range=INPUT_RANGE, low=low, high=high
            ),
            fix="pass the lowest value, then the highest",
        )
    if target.importer.continuous:
        return _continued(graph, target, approximate, path)
    graph, continuous = _with_steps(graph, asked)
    if continuous and not approximate:
        length = format_time(graph.dialect.dt or 0)
        raise ConversionError(
            f"the dialect {graph.dialect.name} has continuous time, "
            f"and {target.title} is time-stepped",
            fix=Text(
                "convert with {approximate} to cut time into steps of {length}",
                approximate=APPROXIMATE.set_to(True),
                length=length,
            ),
        )
    wish = _Wish(
        target=target, approximate=approximate, dt=asked, path=path, input_range=input_range
    )
    return _tried(graph, wish, continuous)


def _giving_up(draft: Draft, *, approximate: bool) -> Callable[[str, str, str], None]:
    """What is called with node, reason and what is done instead: it raises, or notes the loss."""

    def give_up(node: str, reason: str, nearest: str) -> None:
        if not approximate:
            fix = Text(
                "change the network, or convert with {approximate} ({nearest})",
                approximate=APPROXIMATE.set_to(True),
                nearest=nearest,
            )
            raise ConversionError(f"node '{node}': {reason}", fix=fix, node=node)
        draft.losses.append(f"{node}: {reason}; {nearest}")

    return give_up


def _continued(graph: Graph, target: Target, approximate: bool, path: str) -> Converted:
    """The equations of a graph for an importer that solves them."""
    draft, names = draft_of(graph)
    if can_be_matrices(draft):
        as_matrices(draft)
    scales_as_weights(draft, f"{target.title}'s importer does not map it")
    give_up = _giving_up(draft, approximate=approximate)
    refused: list[Problem] = []
    flows: dict[str, Flow] = {}
    for name in (name for name in graph.neurons if name in names):
        try:
            shape = draft.shapes[names[name]][1]
            flow = flow_of(graph, name, shape, give_up)
            flows[names[name]] = dataclasses.replace(flow, name=names[name])
        except ConversionError as error:
            refused.append(error.problem)
    refuse_for(target, refused)
    straightened(draft, target)
    setting = Setting(dt=graph.dialect.dt or 0.0, own=None, give_up=give_up)
    _write_neurons(draft, target, flows, setting, refused)
    refuse_for(target, refused)
    if target.importer.torch_names:
        plain_names(draft, target.title)
    in_running_order(draft)
    return _converted(graph, target, draft, names, setting, path, {})


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Wish:
    """What was asked for; see `convert`."""

    target: Target
    approximate: bool
    dt: float | None
    path: str
    input_range: tuple[float, float]


def _tried(graph: Graph, wish: _Wish, continuous: bool) -> Converted:
    """The graph with its axes; where that is refused, with convolutions as matrices."""
    draft, names = draft_of(graph)
    try:
        return _rewritten(graph, wish, draft, names, continuous)
    except ConversionError as error:
        problems, cause = _in_the_file(error, names), error
    draft, names = draft_of(graph)
    if can_be_matrices(draft):
        try:
            if draft.channels_last:
                reorder_flattened(draft, False, "others than its framework are channels first")
                draft.channels_last = False
            as_matrices(draft)
            made = _rewritten(graph, wish, draft, names, continuous)
            return dataclasses.replace(made, notes=(*made.notes, *_joined_axes(graph)))
        except ConversionError as error:
            problems = _both(problems, _in_the_file(error, names), wish.target)
    refused = ConversionError.of(problems[0])
    refused.others = tuple(problems[1:])
    raise refused from cause


def _both(first: list[Problem], second: list[Problem], target: Target) -> list[Problem]:
    """The problems of a graph with its axes; what stands in the way of matrices is told beside the
    first of them, if it is none of them.
    """
    one, other = first[0], second[0]
    message = without_title(other.message, target)
    if message in (without_title(each.message, target) for each in first):
        return first
    one = dataclasses.replace(
        one,
        message=one.message + "; with matrices instead, " + message,
        fix=one.fix + "; or " + other.fix,
    )
    return [one, *first[1:], *second]


def _joined_axes(graph: Graph) -> list[str]:
    """What must be said of outputs that had several axes, and of which matrices give one."""
    given = {name: shapes(graph)[name][0] or () for name in graph.outputs}
    return [
        f"output '{name}' has the shape {(prod(shape),)} instead of {shape}: reshape what it gives"
        for name, shape in given.items()
        if len(shape) > 1
    ]


def _in_the_file(error: ConversionError, names: Mapping[str, str]) -> list[Problem]:
    """The problems of nodes of the draft as those of nodes of the user's file.

    Args:
        error: Of a draft.
        names: Of the draft by name in the file; those of nested nodes differ.
    """
    given = {written: name for name, written in names.items() if name != written}

    def told(problem: Problem) -> Problem:
        if problem.node not in given:
            return problem
        name = given[problem.node]
        message = problem.message + f" ('{problem.node}' is '{name}' in the file)"
        return dataclasses.replace(problem, node=name, message=message)

    return [told(problem) for problem in (error.problem, *error.others)]


def _rewritten(
    graph: Graph, wish: _Wish, draft: Draft, names: dict[str, str], continuous: bool
) -> Converted:
    """The draft rewritten for a target; see `convert`."""
    refused: list[Problem] = []
    give_up = _giving_up(draft, approximate=wish.approximate)
    if continuous:
        length = format_time(graph.dialect.dt or 0)
        draft.losses.append(f"continuous time is cut into steps of {length}")
    target, importer = wish.target, wish.target.importer
    steps = _steps(graph, draft, names, refused, give_up, importer)
    refuse_for(target, refused)
    check_loops(draft, target)
    # Where layers take a step, a neuron in place of a Threshold would take one more, and one that
    # fires several spikes in a step would give more than 1.
    if "Threshold" not in (importer.nodes or ()) and not (
        importer.bursts or any(step.late for step in steps.values())
    ):
        steps |= thresholds_as_neurons(draft, steps)
    most = dict.fromkeys(steps, 1)
    if importer.subtracts or wish.approximate:
        order = forward_order(draft)
        steps, most = settled(draft, steps, order, importer, give_up, wish.input_range)
    seconds = _target_dt(graph, target, wish.dt, draft)
    join_outputs(draft, target)
    _map_linear_nodes(draft, graph, names, target)
    if not importer.membranes:
        steps = integrated(draft, steps, give_up)
    check_wiring(draft, target)
    title = framework_of(graph.dialect.name or "").title
    shift = shift_of(draft, target, steps, title)
    if any(later < 0 for later in shift.values()):
        steps = begun(draft, steps, depths(draft, title), give_up)
    if importer.apart is not None:
        why = f"{target.title}'s importer has no such neuron with a current"
        steps = apart(draft, steps, importer.apart, why)
    steps = spread(draft, steps, most, subtracts=importer.subtraction or ())
    if importer.composes:
        steps = composed(draft, steps, importer.composes, target.title)
    _common_edits(draft, target, title)
    if importer.starts_at_reset:
        steps = started(draft, steps)
    if importer.subtraction is not None:
        steps = subtracting(draft, steps, importer.subtraction)
    if importer.uniform:
        steps = alike(draft, steps, target.title, loops=importer.by_name)
    own = None if importer.setting is None else importer.setting(list(steps.values()))
    setting = Setting(dt=seconds, own=own, give_up=give_up)
    _write_neurons(draft, target, steps, setting, refused)
    refuse_for(target, refused)
    rewire(draft, target, steps, seconds)
    setting = setting.renamed(draft.renamed)
    made = _converted(graph, target, draft, names, setting, wish.path, shift)
    check_order(draft, made.graph, target)
    return made


def _map_linear_nodes(draft: Draft, graph: Graph, names: Mapping[str, str], target: Target) -> None:
    """Write Scale, Linear and Delay as weights that the importer maps, where it does not map them."""
    importer, taken = target.importer, target.importer.nodes or ()
    why = f"{target.title}'s importer does not map"
    if "Scale" not in taken:
        scales_as_weights(draft, f"{why} it")
    if "Linear" not in taken:
        linear_as_affine(draft, f"{why} Linear")
    if "Delay" not in taken:
        feeds_back = importer.feeds_back and not importer.chain
        delays_as_weights(draft, graph, names, feeds_back=feeds_back)


def _converted(
    source: Graph,
    target: Target,
    draft: Draft,
    names: Mapping[str, str],
    setting: Setting,
    path: str,
    shift: dict[str, int],
) -> Converted:
    """What was written, and how to use it; `names` are those of the draft by name in the source."""
    assert target.importer.load is not None
    graph, load = _graph_of(draft, source, target, setting), target.importer.load(path, setting)
    notes = []
    if f"nir.read({path!r})" in load and (refused := types_refused(graph)):
        load = load.replace(f"nir.read({path!r})", f"nir.read({path!r}, type_check=False)")
        notes.append(f"nir.read needs type_check=False, for it infers other shapes: {refused}")
    return Converted(
        graph=graph,
        load_with=f"{load}  # {target.label}",
        run_with=target.importer.run,
        written_for=target.label,
        changes=tuple(draft.changes),
        losses=tuple(draft.losses),
        shift=shift,
        names=_written_names(draft, names, graph),
        notes=(*target.notes(), *_assumed(source), *draft.notes, *notes),
    )


def _written_names(draft: Draft, names: Mapping[str, str], made: Graph) -> dict[str, str]:
    """Return `Converted.names` for a draft and the graph that was made of it."""
    before = {new: old for old, new in draft.renamed.items()}
    drafted = {before.get(name, name): name for name in made.nodes}
    kept = {name: drafted[short] for name, short in names.items() if short in drafted}
    added = {short: name for short, name in drafted.items() if short not in names.values()}
    return added | kept


def _assumed(graph: Graph) -> tuple[str, ...]:
    """What nobody has said of the source and is assumed, a sentence each."""
    found = [
        text for name in graph.neurons for text in assumptions(graph.dialect, graph.nodes[name])
    ]
    return tuple(dict.fromkeys(found))


def _with_steps(graph: Graph, dt: float | None) -> tuple[Graph, bool]:
    """The graph, with a step where it has continuous time, and whether it has."""
    dialect = graph.dialect
    continuous = any(is_continuous(dialect, graph.nodes[name]) for name in graph.neurons)
    if not continuous:
        return graph, False
    if dt is not None and dialect.dt is None:
        dialect = dataclasses.replace(dialect, dt=dt)
    require(dialect, ["dt", "seconds"], "conversion from continuous time")
    return dataclasses.replace(graph, dialect=dialect), True


def _steps(
    graph: Graph,
    draft: Draft,
    names: dict[str, str],
    refused: list[Problem],
    give_up: Callable[[str, str, str], None],
    importer: Importer,
) -> dict[str, Step]:
    """The step of each population by its new name."""
    readouts = importer.membranes or (importer.feeds_back and not importer.chain)
    looped = {name for part in graph.recurrent_components() for name in part}
    found = {}
    for name in graph.neurons:
        if name not in names:
            continue
        try:
            shape = draft.shapes[names[name]][1]
            step = step_of(graph, name, shape, name in looped, readouts=readouts)
            refuse_firing_at_rest(step)
            floors = importer.floors is not None and importer.floors(step)
            if step.floor is not None and not floors:
                reason = f"its membrane never falls below {step.floor:g}, and this importer has no such bound"
                give_up(names[name], reason, "the membrane has no lower bound")
            found[names[name]] = dataclasses.replace(step, name=names[name])
        except ConversionError as error:
            refused.append(error.problem)
    return found


def _target_dt(graph: Graph, target: Target, asked: float | None, draft: Draft) -> float:
    """The step of the target in seconds; says so where it is not the source's."""
    source, importer = graph.dialect.dt, target.importer
    if importer.fixed_dt and asked not in (None, importer.dt):
        raise UsageError(
            f"{target.title}'s importer steps by {format_time(importer.dt)} "
            f"and cannot be told {format_time(asked or 0)}",
            fix="leave the step of the target out",
        )
    seconds = importer.dt if importer.fixed_dt else asked or source or importer.dt
    if source is None:
        draft.changed(
            "",
            f"a step is written as {format_time(seconds)}",
            "the source says no length of its steps",
        )
    elif abs(seconds - source) > 1e-9 * source:
        what = (
            f"time constants are written {seconds / source:g} times as long, "
            f"for steps of {format_time(seconds)}"
        )
        why = (
            f"the source steps by {format_time(source)}; "
            "the same number of steps gives the same spikes"
        )
        draft.changed("", what, why)
    return seconds


def _common_edits(draft: Draft, target: Target, source: str) -> None:
    """What does not depend on the neurons: channel order, groups, pools, Flatten; `source` is the
    title of the source's framework.
    """
    if draft.channels_last != target.channels_last:
        title = source if draft.channels_last else target.title
        why = f"{title} is channels last, others channels first"
        reorder_flattened(draft, target.channels_last, why)
    dense_groups(draft, f"{target.title}'s importer takes one group")
    if not target.importer.dilates:
        undilated(draft, f"{target.title}'s importer ignores dilation")
    pool = target.importer.pool
    if pool is not None:
        _note_rounded_averages(draft, pool, target.title)
        swap_pools(draft, pool, f"{target.title}'s importer takes {pool} only")
    if not target.importer.pads_pools:
        padded_apart(draft, f"{target.title}'s importer does not take the padding of a pool")
    plain_flatten(draft)


def _note_rounded_averages(draft: Draft, kind: str, title: str) -> None:
    """Note where an average is written as a sum, or the other way round, and float32 rounds their ratio."""
    import networkx

    for name in draft.of_type(*POOLS):
        area = float(np.prod(window(as_node(name, draft.nodes[name])).kernel))
        if draft.nodes[name]["type"] == kind or has_few_digits(np.array(1 / area)):
            continue
        # Edges up to the next neurons: what these fire comes of sums of its own.
        wires = [edge for edge in draft.edges if draft.nodes[edge[0]]["type"] not in NEURON_TYPES]
        behind = networkx.descendants(networkx.DiGraph(wires), name)
        for neuron in draft.of_type(*NEURON_TYPES):
            level = np.asarray(draft.nodes[neuron].get("v_threshold", np.inf))
            if neuron in behind and sums_may_meet(draft, neuron, level):
                draft.notes.append(
                    f"node '{neuron}': float32 rounds the average of {area:g} cells of '{name}', which is written "
                    f"as {kind}; where a sum of its weights meets v_threshold, {title} may fire and the source "
                    "not, or the other way round"
                )


def _write_neurons(
    draft: Draft,
    target: Target,
    steps: Mapping[str, Step | Flow],
    setting: Setting,
    refused: list[Problem],
) -> None:
    # Before anything is scaled: a writer may ask for the ties of other neurons.
    setting.ties.update(
        name
        for name, step in steps.items()
        if isinstance(step, Step) and sums_may_meet(draft, name, step.v_threshold)
    )
    for name, step in steps.items():
        try:
            assert target.importer.write is not None
            written = target.importer.write(step, setting)
            setting.said[name] = {**written.says, **written.means}
            rounding = written.rounding
            if not np.all(has_few_digits(written.factor)):
                scale = _span(written.factor)
                rounding = f"float32 rounds its weights, which are multiplied by {scale}"
            if name in setting.ties and rounding:
                draft.notes.append(
                    f"node '{name}': {rounding}; where a sum of its weights meets v_threshold, "
                    f"{target.title} may fire and the source not, or the other way round"
                )
            scale_inputs(draft, name, written.factor, written.offset, step.bias_ratio)
        except ConversionError as error:
            refused.append(error.problem)
            continue
        old = draft.nodes[name]
        entry = dict(written.entry) | ({"metadata": old["metadata"]} if "metadata" in old else {})
        draft.nodes[name] = entry
        what = _difference(old, entry, written.factor, written.offset)
        if what:
            draft.changed(name, what, written.why + f"{_comparison(step, target)}")
        reads = target.importer.reads
        told = [f"{key} {said}" for key, said in written.says.items() if reads.get(key) != said]
        if told:
            what = f"the line that loads the file sets {', '.join(told)}"
            draft.changed(name, what, f"no file holds it, {target.title}'s importer takes another")


def _comparison(step: Step | Flow, target: Target) -> str:
    """Return why the threshold is moved by its last bit, where it is: who fires at it."""
    if isinstance(step, Flow) or target.framework is None:
        return ""
    fires = target.framework.dialects[0].threshold
    if step.at_equality == (fires == ">="):
        return ""
    source = ">=" if step.at_equality else ">"
    return f"; {target.title} fires at v {fires} v_threshold, the source at v {source} v_threshold"


def _difference(
    old: dict[str, Any], new: dict[str, Any], factor: np.ndarray, offset: np.ndarray
) -> str:
    """What changed at a neuron, in words."""
    parts = []
    if old["type"] != new["type"]:
        parts.append(f"{old['type']} is written as {new['type']}")
    for key, value in new.items():
        if key in ("type", "metadata"):
            continue
        before = old.get(key)
        like = before is None or np.size(before) in (1, np.size(value))
        if (
            before is None
            or not like
            or not np.allclose(np.asarray(before, float), value, rtol=1e-9, atol=0)
        ):
            parts.append(f"{key} {_span(value) if before is None else _becomes(before, value)}")
    if not np.all(factor == 1):
        parts.append(f"its input weights are multiplied by {_span(factor)}")
    if np.any(offset):
        parts.append(f"{_span(offset)} is added to its bias")
    return ", ".join(parts)


def _becomes(old: Any, new: Any) -> str:
    """With as many digits as tell the two apart."""
    said = ((_span(old, digits), _span(new, digits)) for digits in (6, 9, 17))
    within = (_span(old), "other numbers in between")
    before, after = next((pair for pair in said if pair[0] != pair[1]), within)
    return f"{before} becomes {after}"


def _span(value: Any, digits: int = 6) -> str:
    array = np.asarray(value, float)
    low, high = float(array.min()), float(array.max())
    alike = np.isclose(low, high, rtol=1e-7, atol=0)
    return f"{low:.{digits}g}" if alike else f"{low:.{digits}g} to {high:.{digits}g}"


def _graph_of(draft: Draft, source: Graph, target: Target, setting: Setting) -> Graph:
    """The draft as a graph in the target's dialect."""
    metadata = {key: value for key, value in source.metadata.items() if key != TAG}
    tree: dict[str, Any] = {"type": "NIRGraph", "nodes": draft.nodes, "edges": draft.edges}
    if metadata:
        tree["metadata"] = metadata
    made = parse(group_of(tree, NIR_VERSION), dialect=_dialect(draft, target, setting))
    return made if made.dialect.name is None else tagged(with_kernels(made))


def _dialect(draft: Draft, target: Target, setting: Setting) -> Dialect:
    """How to read what was written; undecided where the importer reads a type otherwise than files
    of its own framework mean it.
    """
    assert target.framework is not None
    why = f"Written for {target.title}'s importer."
    misread = [kind for kind in target.importer.misread if draft.of_type(kind)]
    if misread:
        types = " and ".join(misread)
        them = "it" if len(misread) == 1 else "them"
        why = f"{why} It reads {types} otherwise than files of {target.title} mean {them}."
        return Dialect(why=why, dt=setting.dt)
    fields: dict[str, Any] = dict(target.importer.reads)
    common = {field.name for field in dataclasses.fields(Dialect)}
    own = {name: fields.pop(name) for name in list(fields) if name not in common}
    known: dict[str, Any] = {"time_unit": "s", "own": own, **fields}
    common, nodes = _common(setting.said)
    known |= common
    # Files of the framework may mean another rule by a neuron that feeds itself.
    for name in {name for part in loops_of(draft) for name in part}:
        rule = target.framework.dialects[0].rules.get(draft.nodes[name]["type"])
        if rule is not None and rule.recurrent_reset_delay is not None:
            nodes.setdefault(name, {}).setdefault("reset_delay", known["reset_delay"])
    return dialect_of(
        target.framework.name,
        dt=setting.dt or None,  # equations have none
        decided_by="argument",
        why=why,
        nodes=nodes,
        **known,
    )


def _common(
    said: Mapping[str, Mapping[str, Any]],
) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """What was said of all neurons alike, and what of single ones."""
    keys = {key for fields in said.values() for key in fields}
    shared = {key for key in keys if key in Dialect.__dataclass_fields__}
    alike = {key for key in shared if len({fields.get(key) for fields in said.values()}) == 1}
    common = {key: next(iter(said.values()))[key] for key in sorted(alike)}
    nodes = {
        name: {key: value for key, value in fields.items() if key not in alike}
        for name, fields in said.items()
    }
    return common, {name: fields for name, fields in nodes.items() if fields}
