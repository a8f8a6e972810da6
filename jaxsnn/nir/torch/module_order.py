"""Order of a tensor's elements after functions of torch that only move them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

#: Functions that change only the axes of a tensor, not the order of its elements.
RESHAPE = (
    "flatten",
    "reshape",
    "view",
    "unflatten",
    "squeeze",
    "unsqueeze",
    "view_as",
    "reshape_as",
)
#: Functions that reorder the axes of a tensor.
MOVE_AXES = (
    *("permute", "transpose", "movedim", "moveaxis", "swapaxes", "swapdims", "t", "T", "mT"),
)
#: Functions that reorder or select elements of a tensor.
MOVE = (
    *MOVE_AXES,
    *("flip", "fliplr", "roll", "narrow", "select", "unbind", "index_select", "__getitem__"),
)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Order:
    """Elements of a layer's output that a tensor holds, and their arrangement.

    Attributes:
        places: Flat indices into the layer's output, in the shape of the tensor without its batch axis.
        shape: Shape of the layer's output.
    """

    places: np.ndarray
    shape: tuple[int, ...]

    @property
    def unchanged(self) -> bool:
        """Whether the tensor has all elements of the layer's output in the same arrangement."""
        return self.places.shape == self.shape and np.array_equal(
            self.places, first_order(self.shape)
        )


def first_order(shape: tuple[int, ...]) -> np.ndarray:
    """Return the flat indices of a shape's elements, in that shape."""
    return np.arange(math.prod(shape)).reshape(shape)


def orders(
    func: Callable[..., Any],
    name: str,
    before: Order,
    batch: int,
    rest: tuple[Any, ...],
    kwargs: Mapping[str, Any],
) -> Iterator[Order | None]:
    """Yield the order of each tensor that a function returns for one tensor; None if samples
    are mixed.

    Args:
        func, name: A function of `RESHAPE` or `MOVE`, and its name.
        before: Order of the input of the function.
        batch: Length of the batch axis.
        rest, kwargs: Further arguments of the function.
    """
    import torch

    # Arguments of reshapes contain the batch size, so it must stay. For other functions the batch
    # gets one more sample: with a batch of one, a function that mixes samples would go unnoticed.
    samples = batch if name in RESHAPE else batch + 1
    shape = before.places.shape
    size = math.prod(shape)
    tensor = torch.arange(samples * size).reshape(samples, *shape)
    try:
        result = func(tensor, *rest, **kwargs)
    except (IndexError, RuntimeError):  # arguments that fit only the original batch size
        yield None
        return
    for part in result if isinstance(result, tuple | list) else (result,):
        places = part.numpy()
        if places.shape[:1] != (samples,):
            yield None
            continue
        rows = places.reshape(samples, -1) - size * np.arange(samples)[:, None]
        if np.any(rows != rows[0]) or np.any((rows < 0) | (rows >= size)):
            yield None
            continue
        part_places = before.places.reshape(-1)[rows[0]].reshape(places.shape[1:])
        yield Order(places=part_places, shape=before.shape)
