"""Parameters and buffers of a PyTorch module that are the same in each time step."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from jaxsnn.errors import ConversionError
from jaxsnn.nir.torch.leaves import of_library
from jaxsnn.nir.torch.recording import version_of
from jaxsnn.wording import Text


def user_buffers(module: Any) -> dict[str, Any]:
    """Return the buffers of the user's own modules, by name."""
    parts = [(name, part) for name, part in module.named_modules() if not of_library(part)]
    return {
        f"{place}.{name}": buffer
        for place, part in parts
        for name, buffer in part.named_buffers("", False)
    }


def fixed_buffers(before: Mapping[str, Any], copies: Mapping[str, Any], module: Any) -> list[Any]:
    """Return the buffers, as `user_buffers` has them, that forward neither changed nor replaced."""
    now = user_buffers(module)
    return [
        buffer
        for name, buffer in before.items()
        if now.get(name) is buffer and not _is_changed(buffer, *copies[name])
    ]


def copies_of(tensors: Iterable[tuple[str, Any]]) -> dict[str, tuple[int, Any]]:
    """Return the in-place version counter and a copy of each tensor, by name, without uninitialised
    parameters of lazy layers.
    """
    from torch.nn.parameter import is_lazy

    initialised = ((name, tensor) for name, tensor in tensors if not is_lazy(tensor))
    return {name: (version_of(tensor), tensor.detach().clone()) for name, tensor in initialised}


def _is_changed(tensor: Any, version: int, before: Any) -> bool:
    """Return whether the in-place version counter of a tensor or its values have changed (`.data`
    changes only the values).
    """
    import torch

    if version_of(tensor) != version or tensor.shape != before.shape:
        return True
    return not torch.allclose(tensor, before, rtol=0, atol=0, equal_nan=True)


def refuse_learning(before: Mapping[str, tuple[int, Any]], module: Any) -> None:
    """Refuse a forward that changes parameters, as plasticity rules do.

    Args:
        before: The parameters, as `copies_of` has them.

    Raises:
        ConversionError: A parameter changes; the message names it.
    """
    after = dict(module.named_parameters())
    for name in before:
        if name not in after or _is_changed(after[name], *before[name]):
            raise ConversionError(
                Text(
                    "forward changes the parameter '{parameter}' in each time step, and "
                    "parameters of a graph are constant",
                    parameter=name,
                ),
                fix="change the parameter outside of forward",
            )
