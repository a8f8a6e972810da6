"""Numbers of a PyTorch module that are the same in each step: its parameters, the buffers of the user's
own modules, and what forward computes of them alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from jaxsnn.errors import ConversionError
from jaxsnn.nir.torch.leaves import of_library
from jaxsnn.nir.torch.torch_functions import is_parameter
from jaxsnn.wording import Text


class FixedNumbers:
    """The tensors of a module that are the same in each step, as far as is known."""

    def __init__(self, module: Any) -> None:
        self._module = module
        self.parameters = list(module.parameters())
        # Tensors that live keep their ids.
        self._alive: list[Any] = []
        #: Of each, torch's count of its changes.
        self._changes: dict[int, int] = {}
        self.add([*self.parameters, *_own_buffers(module).values()])

    def add(self, tensors: Iterable[Any]) -> None:
        """Note some more, as they are now."""
        for tensor in tensors:
            self._alive.append(tensor)
            self._changes[id(tensor)] = _version(tensor)

    def has(self, value: Any) -> bool:
        """Return whether a value is one of these numbers, unmodified. Parameters that are
        initialised only now count as well.
        """
        if not hasattr(value, "is_inference"):
            return False
        now = _version(value)
        return self._changes.get(id(value), now if is_parameter(value) else None) == now

    @contextmanager
    def through_a_step(self) -> Iterator[None]:
        """Run one step, and drop numbers that the step computes and keeps, and buffers that it
        modifies or replaces: they may differ from step to step.
        """
        before, buffers = dict(self._changes), _own_buffers(self._module)
        copies = copies_of(buffers.items())
        yield
        now = _own_buffers(self._module)
        others = {
            id(buffer)
            for name, buffer in buffers.items()
            if now.get(name) is not buffer or _is_changed(buffer, *copies[name])
        }
        self._changes = {place: count for place, count in before.items() if place not in others}


def _own_buffers(module: Any) -> dict[str, Any]:
    """Return the buffers of the user's own modules, by name."""
    parts = [(name, part) for name, part in module.named_modules() if not of_library(part)]
    return {
        f"{place}.{name}": buffer
        for place, part in parts
        for name, buffer in part.named_buffers("", False)
    }


def copies_of(tensors: Iterable[tuple[str, Any]]) -> dict[str, tuple[int, Any]]:
    """Name -> torch's count of the changes of a tensor in place, and a copy of it; without those of
    lazy layers, which begin to be.
    """
    from torch.nn.parameter import is_lazy

    initialised = ((name, tensor) for name, tensor in tensors if not is_lazy(tensor))
    return {name: (_version(tensor), tensor.detach().clone()) for name, tensor in initialised}


def _is_changed(tensor: Any, version: int, before: Any) -> bool:
    """Return whether the in-place version counter of a tensor or its values have changed (`.data`
    changes only the values).
    """
    import torch

    if _version(tensor) != version or tensor.shape != before.shape:
        return True
    return not torch.allclose(tensor, before, rtol=0, atol=0, equal_nan=True)


def refuse_learning(before: Mapping[str, tuple[int, Any]], module: Any) -> None:
    """Refuse a forward that changes parameters, as rules of plasticity do.

    Args:
        before: The parameters, as `copies_of` has them.

    Raises:
        ConversionError: Names one.
    """
    after = dict(module.named_parameters())
    for name in before:
        if name not in after or _is_changed(after[name], *before[name]):
            raise ConversionError(
                Text(
                    "forward changes the parameter '{parameter}' in each step, and a graph has "
                    "constant parameters",
                    parameter=name,
                ),
                fix="change it outside of forward",
            )


def _version(tensor: Any) -> int:
    """Return torch's in-place version counter of a tensor; 0 for tensors that have none."""
    import torch

    uncounted = torch.nn.parameter.is_lazy(tensor) or tensor.is_inference()
    return 0 if uncounted else tensor._version
