"""Trace of one forward pass of a PyTorch module: which layer takes the output of which.

Layers are watched by hooks (`layer_hooks`); what is computed between them by torch's own functions (sums,
flattens, pools) becomes a layer too where NIR has one, and is refused where it has none
(`between_layers`). Both write into one record (`pass_record`), of which `trace_outcome` makes the trace.
"""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np

from jaxsnn.errors import ConversionError, JaxsnnError, listing
from jaxsnn.nir.torch.between_layers import functions_watched
from jaxsnn.nir.torch.fixed_numbers import copies_of, refuse_learning
from jaxsnn.nir.torch.layer_hooks import OF_BEFORE, LayerHooks
from jaxsnn.nir.torch.leaves import exported
from jaxsnn.nir.torch.module_pass import (
    failed,
    fed_back,
    leading_axes,
    leaves_of,
    not_taken,
    numbers_held,
    refuse_no_time,
    rewind,
    unchanged,
    uncompiled,
)
from jaxsnn.nir.torch.pass_record import Made, PassRecord
from jaxsnn.nir.torch.trace_outcome import ModuleTrace, calls_taken, left_out, outputs_of
from jaxsnn.wording import Text


def trace(module: Any, sample: Any) -> ModuleTrace:
    """Trace one forward pass. If layers take one step each, this is the pass of the second step, in
    which kept state is available. The states of the module are restored afterwards.

    Args:
        module: A torch.nn.Module.
        sample: A tensor (batch, *shape), or (time, batch, *shape) where layers run through time
            themselves.

    Raises:
        ConversionError: A layer that takes what is computed outside of layers, or that is called
            more than once, or that adds a bias from the second step on, or `forward` asks for more
            than the sample, or does not take it.
    """
    required = [
        name
        for name, parameter in inspect.signature(module.forward).parameters.items()
        if parameter.default is parameter.empty
        and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    ]
    if len(required) > 1:
        raise ConversionError(
            Text(
                "forward of {module} needs {arguments}, and receives only a sample",
                module=type(module).__name__,
                arguments=listing(required),
            ),
            fix=f"give {listing(required[1:])} a default, such as None, from which states begin",
        )
    first: ModuleTrace | ConversionError
    try:
        first = _watched(module, sample)
    except ConversionError as refusal:
        if refusal.problem.code != OF_BEFORE:
            raise
        first = refusal
    if leading_axes(module) == 1:
        try:
            later = _watched(module, sample, after_a_step=True)
        except ConversionError as refusal:
            # What fails fails when the module is run, which knows the step.
            if isinstance(first, ModuleTrace) and refusal.__cause__ is None:
                raise
        else:
            _refuse_late_biases(first, later)
            return later
    if isinstance(first, ModuleTrace):
        return first
    raise first


def _refuse_late_biases(first: ModuleTrace | ConversionError, later: ModuleTrace) -> None:
    """Refuse layers with a bias that forward omits in the first step.

    Raises:
        ConversionError: There is such a layer.
    """
    late = set(later.absent)
    if isinstance(first, ModuleTrace):  # else it fed back zeros, and its leaves alone are known
        late |= {call.name for call in later.calls} - {call.name for call in first.calls}
    for call in (call for call in later.calls if call.name in late):
        if any(np.any(entry.get("bias", 0)) for entry in exported(call).nodes.values()):
            raise ConversionError(
                Text(
                    "forward skips '{layer}' in the first step, and a graph adds its bias there, "
                    "too",
                    layer=call.name,
                ),
                fix="begin with zeros that it takes, or give it no bias",
                node=call.name,
            )


def _watched(module: Any, sample: Any, after_a_step: bool = False) -> ModuleTrace:
    """Trace one pass, see `trace`; with `after_a_step` in the second step, where the outputs of
    neurons in the first one are known.
    """
    import torch

    leaves = leaves_of(module)
    leading = leading_axes(module)
    refuse_no_time(leaves, leading, sample)
    record = PassRecord(
        module, leading, tuple(sample.shape[:leading]), [name for name, _ in leaves]
    )
    hooks = LayerHooks(record, leaves)
    with torch.inference_mode(False):  # in which torch counts no changes in place
        sample = sample.clone()  # which forward may change in place
    record.keep(sample, Made(sources=("",), leading=leading))
    state: tuple[Any, ...] = ()
    try:
        with torch.inference_mode(False), torch.no_grad(), unchanged(module), uncompiled(module):
            rewind(leaf for _, leaf in leaves)  # states may be of another size of batch
            if after_a_step:
                # a copy, so that an input that forward keeps is none of this step
                earlier_sample = sample.clone()
                with hooks.in_step_before(), functions_watched(record):
                    state = fed_back(module, module(earlier_sample))
            numbers, before = numbers_held(module), copies_of(module.named_parameters())
            with hooks.in_step(module), functions_watched(record):
                result = module(sample, *state)
            later = numbers_held(module, record.made_ids)  # what is kept of layers is fed back
            if after_a_step:  # in a first one parameters of lazy layers begin to be
                refuse_learning(before, module)
    except JaxsnnError:
        raise
    except RuntimeError as error:  # of layers that do not take its shape or its type
        raise not_taken(module, sample, error) from error
    except Exception as error:
        raise failed(
            module, error, Text("for a sample of shape {shape}", shape=tuple(sample.shape))
        ) from error
    outputs = outputs_of(record, result)
    calls = calls_taken(record, outputs)
    absent = {id(leaf) for _, leaf in leaves} - hooks.begun if after_a_step else set()
    late = {call.name for call in calls if id(call.module) in absent}
    return ModuleTrace(
        calls=calls,
        outputs=outputs,
        leading=leading,
        left_out=tuple(left_out(record, result)),
        absent=frozenset(late | record.earlier),
        counters=tuple(
            name
            for name, value in later.items()
            if name in numbers and not np.array_equal(value, numbers[name], equal_nan=True)
        ),
    )
