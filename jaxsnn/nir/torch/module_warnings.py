"""Warn of parts of a PyTorch module that its graph omits or copies."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from jaxsnn.errors import ConversionError, Problem, listing
from jaxsnn.nir.torch.module_draft import ModuleDraft, parameters_of
from jaxsnn.nir.torch.recording import in_line
from jaxsnn.nir.torch.trace_outcome import ModuleTrace
from jaxsnn.options import TRAINABLE
from jaxsnn.wording import Text


def warnings_of(
    seen: ModuleTrace, draft: ModuleDraft, refusals: Sequence[ConversionError] = ()
) -> Iterator[Problem]:
    """Yield warnings and notes on everything that the graph of a module omits or copies. `refusals` are those
    of graphs with an earlier input.
    """
    yield from _left_out(seen)
    yield from _outside(seen, refusals)
    yield from _counting(seen)
    yield from _reading(seen)
    yield from _reset(seen)
    yield from _shared_numbers(seen, draft)
    yield from _fixed_weights(draft)


def _left_out(seen: ModuleTrace) -> Iterator[Problem]:
    """Warn of tensors that the module returns and the graph leaves out."""
    for description in seen.left_out:
        yield Problem(
            code="left-out",
            severity="warning",
            message=Text(
                "the graph omits a value that the module returns besides its output: {description}",
                description=description,
            ),
            fix=(
                "compute it from the outputs of the graph, or let forward return outputs of layers"
            ),
        )


def _outside(seen: ModuleTrace, refusals: Sequence[ConversionError]) -> Iterator[Problem]:
    """Report operations of forward before the input of the graph and after its outputs: a warning if layers
    with parameters are among them, else a note. Give the reason why the graph does not contain these layers.
    """
    steps = seen.passes
    if not steps.before + steps.after:
        return
    parts = [
        Text("{operations} {position}", operations=listing(operations, limit=12), position=position)
        for operations, position in (
            (steps.before, "before its input"),
            (steps.after, "after its outputs"),
        )
        if operations
    ]
    message = Text(
        "the graph is one time step of forward, and omits these operations of forward: {parts}",
        parts=listing(parts),
    )
    if steps.weights_before and refusals:
        reason = Text(". It does not begin earlier: {reason}", reason=refusals[0].problem.message)
        message = message + reason
    elif steps.weights_before and steps.sequences_before:
        reason = Text(
            ". It does not begin earlier: forward computes {operations} for all time steps at once",
            operations=listing(steps.sequences_before, limit=12),
        )
        message = message + reason
    if steps.omission:
        message = message + Text(". It does not end later: {reason}", reason=steps.omission)
    has_weights = bool(steps.weights_before or steps.weights_after)
    yield Problem(
        code="outside-graph",
        severity="warning" if has_weights else "note",
        message=message,
        fix="run them separately, for example by encode and decode of jaxsnn.split_module",
    )


def _counting(seen: ModuleTrace) -> Iterator[Problem]:
    """Warn of attributes of the module that change in each time step: later steps may depend on them."""
    for name in seen.counters:
        yield Problem(
            code="counts-steps",
            severity="warning",
            message=Text(
                "forward changes '{name}' of the module in each time step, and effects "
                "of this on later time steps are not in the graph",
                name=name,
            ),
            fix=(
                "let forward compute the same in each time step, or call jaxsnn.verify "
                "with as many time steps as you run"
            ),
        )


def _reading(seen: ModuleTrace) -> Iterator[Problem]:
    """Warn of Python values of the sample, such as those that select a branch of forward."""
    for function, line in seen.reads:
        yield Problem(
            code="python-values",
            severity="warning",
            message=Text(
                "forward converts a tensor to Python values, by {function}{line}, and the graph "
                "contains only what forward computes with the values for the sample",
                function=function,
                line=in_line(line),
            ),
            fix="compute with tensors only, or make sure that other inputs take the same branches",
        )


def _reset(seen: ModuleTrace) -> Iterator[Problem]:
    """Warn of neurons that `forward` resets before each call."""
    if layers := [call.name for call in seen.calls if call.reset_each_call]:
        yield Problem(
            node=layers[0],
            code="states-reset",
            severity="warning",
            message=Text(
                "forward resets the states of {layers} before each call, so that these neurons "
                "keep nothing from one time step to the next",
                layers=listing(f"'{name}'" for name in layers),
            ),
            fix="if they should keep their states, reset them outside of forward, or before its "
            "loop over time",
        )


def _shared_numbers(seen: ModuleTrace, draft: ModuleDraft) -> Iterator[Problem]:
    """Warn of parameters that are copied to several nodes."""
    nodes: dict[int, list[str]] = {}
    for call in seen.calls:
        for node in tuple(draft.parts[call.name].values())[:1]:
            for parameter in parameters_of(call):
                nodes.setdefault(parameter.data_ptr(), []).append(node)
    for node_names in dict.fromkeys(
        tuple(node_names) for node_names in nodes.values() if len(node_names) > 1
    ):
        shown = listing(f"'{name}'" for name in node_names)
        yield Problem(
            node=node_names[0],
            code="shared-parameters",
            severity="warning",
            message=Text(
                "nodes {layers} of the graph have copies of parameters that are shared "
                "in the module",
                layers=shown,
            ),
            fix=(
                "train the module instead of the graph, since training makes the copies "
                "in the graph different"
            ),
        )


def _fixed_weights(draft: ModuleDraft) -> Iterator[Problem]:
    """Warn of weights that are not parameters of the module, such as those of torch.cat."""
    if constant := draft.constant_nodes():
        yield Problem(
            node=constant[0],
            code="fixed-weights",
            severity="warning",
            message=Text(
                "the weights of nodes {nodes} are not weights of a layer of the module: fit trains them only if "
                "{trainable} names these nodes, and load_into refuses a graph in which they have changed",
                nodes=listing(f"'{name}'" for name in constant),
                trainable=TRAINABLE,
            ),
            fix=Text("do not name them in {trainable}", trainable=TRAINABLE),
        )
