"""Execution of a PyTorch module, step by step."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from jaxsnn.errors import ConversionError, listing
from jaxsnn.nir.torch.leaves import membranes_of
from jaxsnn.nir.torch.module_pass import (
    error_refusal,
    fed_back,
    leaves_of,
    rewind,
    unchanged,
    uncompiled,
)
from jaxsnn.nir.torch.module_trace import record_passes, signature_of
from jaxsnn.nir.torch.recording import tensors_of
from jaxsnn.nir.torch.trace_outcome import ModuleTrace
from jaxsnn.wording import Text


def run_module(
    module: Any, frames: np.ndarray, seen: ModuleTrace, like: Any
) -> dict[str, list[np.ndarray]]:
    """Run the module itself for some steps of input, from its initial state.

    Args:
        module: Module to run; its states are restored afterwards.
        frames: (time, batch, *shape).
        seen: Trace of the module.
        like: Tensor with the dtype and device of its input.

    Returns:
        Outputs of each leaf by name, each (time, batch, *shape): its spikes, then its membranes if
        they are known in each step; and under "" the tensors that the module returned, in order.
    """
    import torch

    output_arrays: dict[str, list[np.ndarray]] = {}
    leaves, inner = dict(leaves_of(module)), _inner(module, seen)
    layer_names = [*(call.name for call in seen.calls), *inner]
    layer_outputs: dict[str, list[Any]] = {name: [] for name in layer_names}
    membranes: dict[str, list[Any]] = {name: [] for name in layer_names}

    def output_hook(name: str) -> Any:
        def hook(leaf: Any, arguments: Any, result: Any) -> None:
            parts = result if isinstance(result, tuple) else (result,)
            layer_outputs[name].append(parts[0].clone())  # forward may change it in place
            held = membranes_of(leaf, parts[-1])
            membranes[name] += [
                tensor.clone() for tensor in held if tensor.shape == parts[0].shape
            ][:1]

        return hook

    hooks = [
        leaf.register_forward_hook(output_hook(name))
        for name, leaf in (leaves | inner).items()
        if name in layer_outputs
    ]
    kind = like.dtype if like.dtype.is_floating_point else torch.float32
    try:
        with torch.inference_mode(False), torch.no_grad(), unchanged(module), uncompiled(module):
            x = torch.tensor(
                frames, dtype=kind, device=like.device
            )  # forward may change it in place
            rewind(leaves.values())
            returned = [
                [_array(tensor) for tensor in tensors_of(step_result)]
                for step_result in _stepped(module, x, seen.state)
            ]
            output_arrays = {
                name: [_array(tensor) for tensor in values]
                for name, values in layer_outputs.items()
            }
            inside = {
                name: [_array(tensor) for tensor in values] for name, values in membranes.items()
            }
    finally:
        for hook in hooks:
            hook.remove()
    steps = len(frames)
    # What is zeros of another shape at first is compared by what it does.
    complete = {
        name: [np.stack(arrays) for arrays in (values, inside[name]) if len(arrays) == steps]
        for name, values in output_arrays.items()
        if len(values) == steps and len({array.shape for array in values}) == 1
    }
    return {"": _over_time(module, returned)} | complete


def run_recorded(
    module: Any, sample: Any, seen: ModuleTrace
) -> tuple[np.ndarray, dict[str, list[np.ndarray]]]:
    """Run a module that goes through time itself.

    Returns:
        Input of the graph, (time, batch, *shape), and outputs as in `run_module`; those under "" are
        the outputs of the graph.

    Raises:
        ConversionError: Forward runs other operations for this sample.
    """
    steps = seen.passes
    assert steps is not None
    passes = record_passes(module, sample, seen.arguments, seen.state, copies=True)
    operations = passes.recorder.operations
    signature = signature_of(operations)
    if signature != steps.signature:
        pairs = zip(operations, signature, steps.signature, strict=False)
        line = next((op.line for op, now, before in pairs if now != before), "")
        raise ConversionError(
            Text(
                "forward of {module} calls different operations for another input{line}",
                module=type(module).__name__,
                line=Text(" ({line})", line=line) if line else Text(""),
            ),
            fix="remove branches of forward that depend on values of tensors",
        )

    def array(places: tuple[tuple[int, int], ...]) -> np.ndarray:
        values = [
            passes.samples[0] if index < 0 else operations[index].outputs[path]
            for index, path in places
        ]
        arrays = [_array(value.numbers) for value in values]
        return np.stack(arrays) if seen.leading == 1 else arrays[0]

    layers = {name: [array(row) for row in rows] for name, rows in steps.layers.items()}
    return np.asarray(array(steps.input), np.float32), {
        "": [array(places) for places in steps.outputs]
    } | layers


def _inner(module: Any, seen: ModuleTrace) -> dict[str, Any]:
    """Return the neurons of modules that `jaxsnn.to_torch` created, by name."""
    makers = {**dict(leaves_of(module)), "": module}
    return {
        f"{name}.{layer}" if name else layer: makers[name].get_submodule(layer)
        for name, layers in seen.inner.items()
        for layer in layers
    }


def _over_time(module: Any, returned: list[list[np.ndarray]]) -> list[np.ndarray]:
    """Stack the tensors that a module returned in each step, to (time, *shape) each.

    Raises:
        ConversionError: The number or the shapes of the tensors differ between steps.
    """
    kind = type(module).__name__
    counts = {len(tensors) for tensors in returned}
    if len(counts) != 1:
        raise ConversionError(
            Text(
                "forward of {module} returns different numbers of tensors in different "
                "time steps: {counts}",
                module=kind,
                counts=listing(sorted(counts)),
            ),
            fix="return the same number of tensors in each time step",
        )
    columns = list(zip(*returned, strict=True))
    for place, column in enumerate(columns, start=1):
        shapes = {array.shape for array in column}
        if len(shapes) > 1:
            raise ConversionError(
                Text(
                    "tensor {index} that forward of {module} returns has different "
                    "shapes in different time steps: {shapes}",
                    index=place,
                    module=kind,
                    shapes=listing(sorted(map(str, shapes))),
                ),
                fix=(
                    "return the tensor of one time step, and collect the time steps "
                    "outside of forward"
                ),
            )
    return [np.stack(column) for column in columns]


def _stepped(module: Any, x: Any, state: tuple[Any, ...]) -> Iterator[Any]:
    """Yield the result of a module in each step, and pass returned states to the next step.

    Raises:
        ConversionError: The module fails with these states.
    """
    for step, frame in enumerate(x):
        try:
            result = module(frame, *state)
        except Exception as error:
            if not state:
                raise error_refusal(module, error, Text("in step {step}", step=step)) from error
            raise ConversionError(
                Text(
                    "forward of {module} fails in step {step} with the state that it "
                    "returned in the previous step ({error_type}: {reason})",
                    module=type(module).__name__,
                    step=step,
                    error_type=type(error).__name__,
                    reason=str(error),
                ),
                fix="return (output, state), with a state that forward accepts",
            ) from error
        yield result
        state = fed_back(module, result)


def _array(tensor: Any) -> np.ndarray:
    return np.array(tensor.detach().cpu().numpy() if hasattr(tensor, "detach") else tensor)
