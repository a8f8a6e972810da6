"""Trace a PyTorch module: find the connections of its layers in one time step.

Forward is recorded (`forward_passes`), and the recording of all time steps is folded into steps (`folding`), of
which the last one is read (`folded_reading`). It does not matter whether forward loops over time, computes one
time step and is called for each of them, or has layers that loop over time themselves (`sequences`).
`step_reader` reads the calls of layers, and `between_layers` the functions of torch between them. Functions for
which NIR has no node are rejected, unless they are called before the first layer or after the last one.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from jaxsnn.errors import ConversionError, UsageError, listing
from jaxsnn.nir.torch.decoding import (
    recompute_results,
    refuse_other_reads,
    replacement_tensors,
)
from jaxsnn.nir.torch.folded_reading import FoldedReading
from jaxsnn.nir.torch.forward_passes import (
    LEAST_CALLS,
    RecordedPasses,
    depending_on,
    record_passes,
)
from jaxsnn.nir.torch.module_pass import initial_states, state_names
from jaxsnn.nir.torch.recording import READS, Operation, in_line
from jaxsnn.nir.torch.trace_outcome import (
    ModuleTrace,
)
from jaxsnn.wording import Text


def traces(
    module: Any, sample: Any, arguments: tuple[Any, ...] = ()
) -> Iterator[ModuleTrace | ConversionError]:
    """Yield the possible traces of a module, the trace with the earliest input of the graph first.

    An input for which there is no trace yields the error. The states of the module are restored.

    Args:
        module: A torch.nn.Module.
        sample: Input of `forward`: a tensor of one step (batch, *shape), or of all steps.
        arguments: Arguments of `forward` after the sample, such as a number of steps.

    Raises:
        ConversionError: The time steps differ, the loop does not depend on the sample, or `forward`
            requires further arguments or does not accept the sample.
    """
    yield from FoldedReading(module, _passes_with_states(module, sample, arguments)).traces()


def trace_of_graph(module: Any, sample: Any, arguments: tuple[Any, ...] = ()) -> ModuleTrace:
    """Return the trace of a module that `jaxsnn.to_torch` created, without its layers."""
    reading = FoldedReading(module, _passes_with_states(module, sample, arguments))
    return reading.of_graph()


def _passes_with_states(module: Any, sample: Any, arguments: tuple[Any, ...]) -> RecordedPasses:
    """Record the passes of a module. Required states are None, or zeros if forward does not accept None.

    Raises:
        ConversionError: As in `record_passes`, or `forward` requires further arguments.
    """
    import torch

    if states := initial_states(module, arguments):
        return record_passes(module, sample, arguments[: -len(states)], states)
    _, required = state_names(module, arguments)
    try:
        return record_passes(module, sample, arguments, (None,) * len(required))
    except ConversionError:
        if not required:
            raise
    try:
        zeros = (torch.zeros(()),) * len(required)
        return record_passes(module, sample, arguments, zeros)
    except ConversionError as refusal:
        raise ConversionError(
            Text(
                "forward of {module} needs {arguments}, and only a sample was passed",
                module=type(module).__name__,
                arguments=listing(required),
            ),
            fix=f"give {listing(required)} a default, such as None for states, or pass a tuple instead of the"
            f" sample: the sample, then {listing(required)}",
        ) from refusal


def run_recorded(
    module: Any, sample: Any, seen: ModuleTrace
) -> tuple[np.ndarray, dict[str, list[np.ndarray]]]:
    """Run a traced module itself, from its initial state.

    Args:
        module: Module to run; its states are restored afterwards.
        sample: As for the trace; for a module that computes one step, all steps, (time, batch, *shape).
        seen: Trace of the module.

    Returns:
        Input of the graph, (time, batch, *shape), and a mapping from each neuron to its spikes and, if they
        were recorded in all steps, its membranes, (time, batch, *shape). The key "" has the outputs of
        the graph, in order.

    Raises:
        ConversionError: Forward runs other operations for this sample.
    """
    import torch

    steps, count = seen.passes, len(sample)
    if steps.stepped and count < LEAST_CALLS:  # too few to compare the steps with each other
        sample = torch.cat([sample, *[sample[-1:]] * (LEAST_CALLS - count)])
    reading = _recorded_again(module, sample, seen)
    x = reading.array(steps.input, "the input")
    layers = {
        name: [reading.array([place], f"'{name}'") for place in places]
        for name, places in steps.layers.items()
    }
    returned = [
        reading.array([place], f"tensor {number} that forward of {type(module).__name__} returns")
        for number, place in enumerate(steps.outputs, start=1)
    ]
    results = {"": returned} | layers
    if steps.stepped:
        x = x[:count]
        results = {name: [array[:count] for array in arrays] for name, arrays in results.items()}
    return np.asarray(x, np.float32), results


def decode(module: Any, sample: Any, seen: ModuleTrace, outputs: list[np.ndarray]) -> list[Any]:
    """Compute the results of forward from outputs of its graph, see `recompute_results`.

    Args:
        module, sample: As for the trace.
        seen: Trace of the module.
        outputs: Outputs of the graph, (time, batch, *shape), in the order of the trace.

    Raises:
        ConversionError: Forward runs different operations for this sample, or converts tensors that
            depend on the outputs to different Python values.
        UsageError: The shape of an output does not fit this sample.
    """
    import torch

    reading = _recorded_again(module, sample, seen)
    replacements: dict[int, Any] = {}
    for place, array in zip(seen.passes.outputs, outputs, strict=True):
        expected = reading.array([place], "an output").shape
        if array.shape != expected:
            raise UsageError(
                Text(
                    "an output of the graph has shape {actual}; forward computes shape {expected} for this "
                    "sample",
                    actual=array.shape,
                    expected=expected,
                ),
                fix="simulate the graph with the input that encode computed for the same sample",
            )
        replacements |= replacement_tensors(array, reading.values([place]))
    refuse_other_reads(reading.operations, replacements)
    results = [recompute_results(returned, replacements) for returned in reading.passes.results]
    if not seen.passes.stepped:
        return results[0]
    return [
        torch.stack(steps)
        if len({getattr(part, "shape", None) for part in steps} - {None}) == 1
        else None
        for steps in map(list, zip(*results, strict=True))
    ]


def _recorded_again(module: Any, sample: Any, seen: ModuleTrace) -> FoldedReading:
    """Record a traced module for another sample.

    Raises:
        ConversionError: Forward runs other operations for this sample.
    """
    steps = seen.passes
    passes = record_passes(
        module, sample, seen.arguments, seen.state, stepped=steps.stepped, copies=True
    )
    try:
        reading = FoldedReading(module, passes)
    except ConversionError as error:
        from_sample = depending_on(passes.operations, [passes.sample])
        for operation in passes.operations:
            if operation.name in READS and any(id(v) in from_sample for v in operation.values):
                raise _python_values_refusal(module, operation) from error
        if not passes.length:
            raise
        problem = error.problem
        message = Text("with {steps} time steps, ", steps=passes.length) + problem.message
        raise ConversionError(message, fix=problem.fix, node=problem.node) from error
    line = reading.differing(steps.signature)
    if line is not None:
        raise ConversionError(
            Text(
                "forward of {module} calls different operations for another input{line}",
                module=type(module).__name__,
                line=in_line(line),
            ),
            fix="remove branches of forward that depend on values of tensors",
        )
    if "indexing" not in steps.before + steps.after and reading.reorders(steps):
        raise ConversionError(
            Text(
                "with {steps} time steps, forward reads or returns them in another order, which the sample does "
                "not show",
                steps=reading.folded.steps,
            ),
            fix="pass a sample with several time steps",
        )
    return reading


def _python_values_refusal(module: Any, operation: Operation) -> ConversionError:
    """Return the refusal of a module whose time steps differ because of Python values of the input."""
    return ConversionError(
        Text(
            "forward of {module} converts a tensor to Python values, by {function}{line}, and computes "
            "differently for other values",
            module=type(module).__name__,
            function=operation.name.strip("_"),
            line=in_line(operation.line),
        ),
        fix="compute with tensors only, such as torch.where instead of a branch",
    )
