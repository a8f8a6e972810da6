"""Nodes without a state, on arrays with any leading axes (time, batch)."""

import math

import jax.numpy as jnp
from jax import lax

from jaxsnn.grid.surrogate import spike

POOLS = ("SumPool2d", "AvgPool2d")
CONVOLUTIONS = ("Conv1d", "Conv2d")
#: Nodes whose output for a sum of inputs is the sum of their outputs, biases aside.
LINEAR = ("Linear", "Affine", "Scale", "Flatten", *CONVOLUTIONS, *POOLS)


def apply_linear(wire, parameters, inward, x):
    """A linear node without its bias.

    Args:
        wire: the node.
        parameters: NIR's names -> arrays.
        inward: shape of its input, without leading axes.
        x: (..., *inward).

    Returns:
        (..., *wire.shape).
    """
    lead = x.shape[: x.ndim - len(inward)]
    if wire.kind in ("Linear", "Affine"):
        # One product of matrices: that of arrays with more axes is slower in the gradient.
        y = x.reshape(math.prod(lead), *inward) @ parameters["weight"].T
        return y.reshape(*lead, *wire.shape)
    if wire.kind == "Scale":
        return x * parameters["scale"].reshape(wire.shape)
    if wire.kind == "Flatten":
        if wire.detail is not None:
            x = x.transpose(*range(len(lead)), *(len(lead) + axis for axis in wire.detail))
        return x.reshape(*lead, *wire.shape)
    images = x.reshape(math.prod(lead), *inward)
    if wire.kind in POOLS:
        y = _pool(wire.detail, images, mean=wire.kind == "AvgPool2d")
    else:
        y = _convolution(wire.detail, images, parameters["weight"])
    return y.reshape(*lead, *wire.shape)


def bias_of(wire, parameters):
    """The bias of a linear node in the shape of its output, or None."""
    if "bias" not in parameters:
        return None
    return parameters["bias"].reshape(-1, *(1,) * (len(wire.shape) - 1))


def _convolution(window, x, weight):
    spatial = "HW"[-len(window.kernel) :]
    layout = (f"NC{spatial}", f"OI{spatial}", f"NC{spatial}")
    return lax.conv_general_dilated(
        x,
        weight,
        window_strides=window.stride,
        padding=window.padding,
        rhs_dilation=window.dilation,
        dimension_numbers=layout,
        feature_group_count=window.groups,
    )


def _pool(window, x, *, mean):
    """Sum or mean over windows; cells of the padding count as zeros in both."""
    around = ((0, 0), (0, 0))
    total = lax.reduce_window(
        x, 0.0, lax.add, (1, 1, *window.kernel), (1, 1, *window.stride), (*around, *window.padding)
    )
    return total / math.prod(window.kernel) if mean else total


def above(parameters, shape, x, surrogate):
    """NIR's Threshold: 1 where x > threshold, else 0; backward the surrogate."""
    return spike(x - parameters["threshold"].reshape(shape), surrogate, False)


def delayed(steps, x):
    """x (time, ..., *shape) later by `steps`, one number or one for each element of the shape;
    zeros come first.
    """
    if len(steps) == 1:
        shift = min(steps[0], len(x))
        return jnp.concatenate([jnp.zeros_like(x[:shift]), x[: len(x) - shift]])
    flat = x.reshape(*x.shape[:2], -1)
    source = jnp.arange(len(x))[:, None, None] - jnp.asarray(steps)
    taken = jnp.take_along_axis(flat, jnp.maximum(source, 0), axis=0)
    return jnp.where(source < 0, 0, taken).reshape(x.shape)
