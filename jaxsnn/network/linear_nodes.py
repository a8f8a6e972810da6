"""Computation of linear nodes on arrays, without bias and delay: NIR's node types and registered
ones.

A function of a node takes (parameters, detail, x): NIR's names -> arrays, the node's `Wire.detail`,
and x of shape (samples, *inward); it returns (samples, *outward), flat or not. The caller adds
biases.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import DTypeLike

from jaxsnn.errors import LoweringError
from jaxsnn.linear_map import SparsePattern
from jaxsnn.network.array_types import Array, Float
from jaxsnn.network.structure import Entries, Wire
from jaxsnn.options import ENGINE
from jaxsnn.wording import Text

#: Maximum number of entries of a map whose weights cannot be shared between positions.
LARGEST = 2**27

#: NIR's names of the parameters of one node -> arrays, each of the shape that NIR gives it.
Arrays = Mapping[str, Any]


def applied(
    wire: Wire, inward: tuple[int, ...], parameters: Arrays, x: Float[Array, "*lead *inward"]
) -> Float[Array, "*lead *outward"]:
    """Return the output of a stateless node for an array; for a linear node, without its bias.

    Args:
        wire: the node.
        inward: shape of its input, without leading axes.
        parameters: NIR's names -> arrays.

    Raises:
        LoweringError: the node has no function.
    """
    lead = x.shape[: x.ndim - len(inward)]
    # With one leading axis the gradient of a matrix product is faster.
    joined = x.reshape(math.prod(lead), *inward)
    return wire.apply(parameters, joined).reshape(*lead, *wire.shape)


# -- NIR's node types


def matrix_product(
    parameters: Arrays, detail: Any, x: Float[Array, "samples inputs"]
) -> Float[Array, "samples outputs"]:
    """Apply Linear or Affine: x times weight (outputs, inputs)."""
    return x @ parameters["weight"].T


def sparse_product(
    parameters: Arrays, detail: SparsePattern, x: Float[Array, "samples inputs"]
) -> Float[Array, "samples outputs"]:
    """Apply SparseLinear: the sum over its synapses of weight times x."""
    sent = x[:, detail.source] * parameters["weight"]
    return jnp.zeros((len(x), detail.shape[0]), sent.dtype).at[:, detail.target].add(sent)


def scaled(
    parameters: Arrays, detail: Any, x: Float[Array, "samples *shape"]
) -> Float[Array, "samples *shape"]:
    """Apply Scale: x times scale (elements,), element by element."""
    return x * parameters["scale"].reshape(x.shape[1:])


def flattened(
    parameters: Arrays, detail: tuple[int, ...] | None, x: Float[Array, "samples *inward"]
) -> Float[Array, "samples *outward"]:
    """Apply Flatten: the axes in the order `detail`; None: in their own order."""
    return x if detail is None else x.transpose(0, *(1 + axis for axis in detail))


def convolved(
    parameters: Arrays, detail: Any, x: Float[Array, "samples inputs *pixels"]
) -> Float[Array, "samples outputs *pixels"]:
    """Apply Conv1d or Conv2d: `detail` is the window, the weight (outputs, inputs of a group,
    *taps).
    """
    spatial = "HW"[-len(detail.kernel) :]
    layout = (f"NC{spatial}", f"OI{spatial}", f"NC{spatial}")
    return lax.conv_general_dilated(
        x,
        parameters["weight"],
        window_strides=detail.stride,
        padding=detail.padding,
        rhs_dilation=detail.dilation,
        dimension_numbers=layout,
        feature_group_count=detail.groups,
    )


def summed(
    parameters: Arrays, detail: Any, x: Float[Array, "samples channels *pixels"]
) -> Float[Array, "samples channels *pixels"]:
    """Apply SumPool2d: sums over windows; cells of the padding count as zeros."""
    around = ((0, 0), (0, 0), *detail.padding)
    return lax.reduce_window(
        x, 0.0, lax.add, (1, 1, *detail.kernel), (1, 1, *detail.stride), around
    )


def averaged(
    parameters: Arrays, detail: Any, x: Float[Array, "samples channels *pixels"]
) -> Float[Array, "samples channels *pixels"]:
    """Apply AvgPool2d: means over windows; cells of the padding count as zeros."""
    return summed(parameters, detail, x) / math.prod(detail.kernel)


# -- registered node types, which are checked before use


def check_operator(wire: Wire, inward: tuple[int, ...], parameters: Arrays) -> None:
    """Refuse an operator that contradicts its traits: its shape differs, or a linear node has a
    constant term, a nonlinearity, or missing or additional connections.

    Args:
        parameters: NIR's names -> NumPy arrays.

    Raises:
        LoweringError: the operator contradicts its traits; the message contains the difference.
    """
    rng = np.random.default_rng(0)
    numbers = {name: jnp.asarray(value, float) for name, value in parameters.items()}
    x = jnp.asarray(rng.normal(size=(2, *inward)))
    try:
        y = wire.apply(numbers, x)
    except Exception as error:  # a registered function may raise any exception
        raise _wrong(
            wire,
            Text("fails for an input of shape {shape}: {reason}", shape=x.shape, reason=str(error)),
        ) from error
    expected = (2, *wire.shape)
    if jnp.size(y) != math.prod(expected):
        got = tuple(jnp.shape(y))
        raise _wrong(
            wire,
            Text(
                "returns shape {actual} for an input of shape {shape}, but its traits specify "
                "{expected}",
                actual=got,
                shape=x.shape,
                expected=expected,
            ),
        )
    if wire.linear is None:
        return
    y = np.asarray(y).reshape(2, -1)
    none = np.asarray(wire.apply(numbers, jnp.zeros_like(x)))
    if none.any():
        raise _wrong(
            wire,
            Text("returns {value:g} for an input of zeros", value=none[none != 0][0]),
            "declare the constant as its bias",
        )
    scale = np.abs(y).max(initial=0.0) + np.finfo(y.dtype).tiny
    both = np.asarray(wire.apply(numbers, x.sum(axis=0, keepdims=True) * 2)).reshape(-1)
    if not np.allclose(both, 2 * y.sum(axis=0), atol=_TOLERANCE * scale, rtol=0):
        raise _wrong(
            wire,
            "is not linear: the output for a sum of inputs differs from the sum of the outputs",
            "set linear=False",
        )
    if wire.linear is not None and wire.linear.entries is not None:
        source, target, value = wire.linear.entries(numbers, wire.detail, inward)
        sent = x.reshape(2, -1)[:, source] * jnp.asarray(value)
        again = jnp.zeros_like(y).at[:, target].add(sent)
        if not np.allclose(again, y, atol=_TOLERANCE * scale, rtol=0):
            raise _wrong(wire, "has entries= whose weighted sum differs from the result of apply=")


#: Relative tolerance between two ways to compute a sum in float32.
_TOLERANCE = 1e-4


def _wrong(
    wire: Wire, defect: str, fix: str = "correct the traits of the node type"
) -> LoweringError:
    message = Text(
        "node '{node}' ({type}): its operator {defect}",
        node=wire.name,
        type=wire.kind,
        defect=defect,
    )
    return LoweringError(message, fix=fix, node=wire.name)


def entries_of(
    wire: Wire, inward: tuple[int, ...], parameters: Arrays, dtype: DTypeLike
) -> Entries:
    """Return the connections of a linear node, one by one.

    Returns:
        (source, target, value): NumPy int arrays (entries,), and a differentiable JAX array
        (entries,).

    Raises:
        LoweringError: the node does not define its connections, and its matrix would be too large.
    """
    assert wire.linear is not None
    if wire.linear.entries is not None:
        source, target, value = wire.linear.entries(parameters, wire.detail, inward)
        return source, target, jnp.asarray(value, dtype)
    size = math.prod(inward)
    refuse_large(wire, size * wire.size)
    shapes = tuple(sorted((name, jnp.shape(value)) for name, value in parameters.items()))
    source, target = _pattern(wire, inward, shapes)
    unit_inputs = jnp.eye(size, dtype=dtype).reshape(size, *inward)
    matrix = applied(wire, inward, parameters, unit_inputs).reshape(size, wire.size)
    return source, target, matrix[source, target]


@lru_cache(maxsize=256)
def _pattern(
    wire: Wire, inward: tuple[int, ...], shapes: tuple[tuple[str, tuple[int, ...]], ...]
) -> tuple[np.ndarray, np.ndarray]:
    """Return the pairs of inputs and outputs that are connected for some values of the parameters.

    A NaN at one input reaches all connected outputs, also through weights of zero.
    """
    size = math.prod(inward)
    with jax.ensure_compile_time_eval(), jax.debug_nans(False):
        numbers = {name: jnp.ones(shape) for name, shape in shapes}
        marked = jnp.where(jnp.eye(size, dtype=bool), jnp.nan, 0.0).reshape(size, *inward)
        met = np.isnan(np.asarray(wire.apply(numbers, marked))).reshape(size, wire.size)
    source, target = np.nonzero(met)
    return source, target


def refuse_large(wire: Wire, numbers: int) -> None:
    """Refuse to store too many numbers for one node.

    Raises:
        LoweringError: more than `LARGEST`.
    """
    if numbers > LARGEST:
        raise LoweringError(
            Text(
                "node '{node}' ({type}): combined with the linear nodes before it, it needs "
                "{count} weights, the limit is {limit}",
                node=wire.name,
                type=wire.kind,
                count=numbers,
                limit=LARGEST,
            ),
            fix=Text(
                "put spiking neurons in between, or simulate with {engine}",
                engine=ENGINE.set_to("grid"),
            ),
            node=wire.name,
        )
