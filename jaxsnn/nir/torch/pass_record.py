"""Record of a forward pass of a PyTorch module while it runs: the calls of layers, and the origin
of each tensor.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any, Literal

import numpy as np

from jaxsnn.nir.frameworks.torch_layers import Call
from jaxsnn.nir.torch.fixed_numbers import FixedNumbers
from jaxsnn.nir.torch.leaves import unsupported
from jaxsnn.nir.torch.module_order import Order, first_order, orders
from jaxsnn.nir.torch.torch_functions import parts_of
from jaxsnn.wording import Text

Member = Literal["output", "membrane"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Made:
    """Origin of a tensor.

    Attributes:
        sources: Leaves whose outputs it is the sum of; "" is the input of the module.
        member: Part of the leaf's result, such as its membrane.
        leading: Axes before those of its shape: 1 (batch, or time and batch as one), or 2.
        version: In-place version counter of the tensor at its creation.
        order: Where its numbers lie otherwise than in the layer; only a Linear takes such a tensor.
    """

    sources: tuple[str, ...]
    leading: int
    member: Member = "output"
    version: int = 0
    order: Order | None = None


@dataclasses.dataclass(kw_only=True, eq=False)
class SeenTensor:
    """Knowledge about a tensor.

    Attributes:
        tensor: The tensor itself, kept alive so that its id stays unique.
        made: Origin; None if it comes from no layer.
        function: Of a tensor that comes of a layer and is of no layer: the first function of torch
            that made it so, or "".
        lost_in: The library's module that made it so, with its name.
        is_state: A layer keeps it from step to step.
    """

    tensor: Any
    made: Made | None = None
    function: str = ""
    lost_in: tuple[str, Any] | None = None
    is_state: bool = False

    @property
    def unchanged(self) -> Made | None:
        """Origin, if the tensor is the unmodified output of a layer; else None."""
        origin = self.made
        if origin is None or origin.order is not None or origin.version != self.tensor._version:
            return None
        return origin


class PassRecord:
    """Record of a running forward pass.

    Attributes:
        leading: Axes before those of the shape: 1 (batch), or 2 (time, batch).
        axes: Lengths of those axes.
        leaves: Names of the modules that are one node each.
        calls: Calls of layers, by name, in order.
        fixed: Numbers that are the same in each step.
        inside: Nesting depth of running leaves and functions of torch.
        entered: Modules that compute by themselves and run: name, module, and whether what each takes
            is of a layer.
        unseen: What `.data` of a tensor gave, which changes it unseen, with torch's count of its
            changes.
        takes_a_part: A part of the input was taken, such as one step.
        in_step_before: The previous step is running; only copies of its spikes are tracked.
        earlier: Calls of the previous step.
    """

    def __init__(
        self, module: Any, leading: int, axes: tuple[int, ...], leaves: Iterable[str]
    ) -> None:
        self.leading = leading
        self.axes = axes
        self.leaves = frozenset(leaves)
        self.calls: dict[str, Call] = {}
        self.fixed = FixedNumbers(module)
        self.inside = 0
        self.entered: list[tuple[str, Any, bool]] = []
        self.unseen: list[tuple[Any, int]] = []
        self.takes_a_part = False
        self.in_step_before = False
        self.earlier: frozenset[str] = frozenset()
        self._seen: dict[int, SeenTensor] = {}

    def seen(self, tensor: Any) -> SeenTensor:
        """Return the knowledge about a tensor; an empty entry for unknown tensors and other
        values.
        """
        return self._seen.get(id(tensor)) or SeenTensor(tensor=tensor)

    def note(self, tensor: Any) -> SeenTensor:
        """Return the entry of a tensor, to be modified; a new one is stored."""
        return self._seen.setdefault(id(tensor), SeenTensor(tensor=tensor))

    def keep(self, tensor: Any, origin: Made) -> None:
        """Note where a tensor comes from, as it is now."""
        self.note(tensor).made = dataclasses.replace(origin, version=tensor._version)

    def note_states(self, tensors: Iterable[Any]) -> None:
        """Note tensors that layers keep from step to step."""
        for tensor in tensors:
            self.note(tensor).is_state = True

    @property
    def made_ids(self) -> frozenset[int]:
        """Ids of tensors that come from layers."""
        return frozenset(place for place, seen in self._seen.items() if seen.made is not None)

    def is_fixed(self, value: Any) -> bool:
        """Return whether a tensor is the same in each step and comes from no layer."""
        return self.seen(value).made is None and self.fixed.has(value)

    def call(
        self,
        name: str,
        layer: Any,
        origin: Made,
        input_shape: tuple[int, ...],
        shape: tuple[int, ...],
        columns: np.ndarray | None = None,
    ) -> Made:
        """Note a call of a layer with an input and an output of these shapes, and return the origin
        of its output.
        """
        self.calls[name] = Call(
            name=name,
            module=layer,
            sources=origin.sources,
            inward=tuple(input_shape[origin.leading :]),
            outward=tuple(shape[origin.leading :]),
            leading=origin.leading,
            columns=columns,
        )
        return Made(sources=(name,), leading=origin.leading)

    def add(self, name: str, leaf: Any, origin: Made, input_tensor: Any, result: Any) -> None:
        """Note a call of a layer, and its output."""
        self.keep(result, self.call(name, leaf, origin, input_tensor.shape, result.shape))

    def free(self, name: str) -> str:
        """Return an unused name for a call: the name itself, or with a number appended."""
        name = f"{name}_before" if self.in_step_before else name
        used_names = self.leaves | self.calls.keys()
        number, free = 2, name
        while free in used_names:
            number, free = number + 1, f"{name}_{number}"
        return free

    def reorder(
        self, func: Any, name: str, origin: Made, args: Any, kwargs: Mapping[str, Any], result: Any
    ) -> None:
        """Note the result of a function that only moves the elements of a tensor."""
        axes = tuple(args[0].shape[: origin.leading])
        shape = tuple(args[0].shape[origin.leading :])
        before = origin.order or Order(places=first_order(shape), shape=shape)
        part_orders = orders(func, name, before, axes, args[1:], kwargs)
        for part, order in zip(parts_of(result), part_orders, strict=False):
            if order is not None:
                plain = order.unchanged
                self.keep(part, dataclasses.replace(origin, order=None if plain else order))

    def refuse_lost(self, tensor: Any) -> None:
        """Refuse a tensor of no layer in the name of the library's module that computes it.

        Raises:
            ConversionError: There is such a module.
        """
        inner = [(name, part) for name, part, all_unchanged in self.entered if all_unchanged]
        lost_module = self.seen(tensor).lost_in or next(reversed(inner), None)
        if lost_module is not None:
            raise unsupported(*lost_module)

    def said_of(self, tensor: Any) -> str:
        """Return a clause that names the torch function that computed a tensor of no layer, or
        "".
        """
        name = self.seen(tensor).function
        return (
            Text(", by torch's {function}, which is not supported there", function=name)
            if name
            else Text("")
        )
