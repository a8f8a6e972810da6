"""Names of the operations of forward outside of its graph, for reports."""

from __future__ import annotations

from collections.abc import Iterable

from jaxsnn.nir.torch.folding import PARTS
from jaxsnn.nir.torch.recording import Operation, TensorValue, index_along

#: Functions that stack time steps.
STACKING = ("stack", "__setitem__")


def operation_names(
    operations: Iterable[Operation], stacking: tuple[str, ...] = STACKING
) -> tuple[str, ...]:
    """Return the names of functions and layers in order, without duplicates and without functions that
    split or stack time steps.
    """
    ordered = sorted(operations, key=lambda operation: operation.index)
    labels = [op.name for op in ordered if op.name not in (*PARTS, *stacking)]
    return tuple(dict.fromkeys(name.strip("_") for name in labels))


def with_indexing(labels: tuple[str, ...], is_partial: bool) -> tuple[str, ...]:
    """Append "indexing" to names of operations if forward uses only a part of the time steps."""
    return (*labels, "indexing") if is_partial else labels


def is_part(operation: Operation, places: list[TensorValue]) -> bool:
    """Return whether an operation outside of the time steps takes a part of a tensor, which is not a time step
    of the input.
    """
    is_source = any(place.source is operation for place in places)
    return takes_part(operation) and not operation.step and not is_source


def takes_part(operation: Operation) -> bool:
    """Return whether an operation takes a part of a tensor, or reorders it; x[None] does not."""
    if operation.name != "__getitem__":
        return operation.name in PARTS
    index = operation.args[1]
    entries = index if isinstance(index, tuple) else (index,)
    is_view = all(e is None or e is Ellipsis or isinstance(e, int | slice) for e in entries)
    tensor, result = operation.values[0].tensor, operation.outputs[0].tensor
    return not (is_view and result.numel() == tensor.numel())


def skips_steps(places: list[TensorValue]) -> bool:
    """Return whether forward does not read all steps of a tensor in order, but for example backwards."""
    indices, lengths = [], set()
    for place in places:
        source = place.source
        if source is None or source.name not in PARTS or source.is_split:
            return False
        tensor = source.values[0].tensor
        if source.name in ("__getitem__", "select"):
            index_of_axis = {axis: index_along(source, axis) for axis in range(tensor.ndim)}
            axis = next((a for a, index in index_of_axis.items() if index is not None), None)
            if axis is None:
                return False
            indices.append(index_of_axis[axis])
            lengths.add(tensor.shape[axis])
        else:
            indices.append(place.path)
            lengths.add(len(source.outputs))
    return any(indices != list(range(length)) for length in lengths)
