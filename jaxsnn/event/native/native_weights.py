"""Transposition of large weights from NIR's (outputs, inputs) to the rows of the engine by a kernel:
XLA's loop on a CPU reads them column by column, which may take longer than simulating a sample.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import numpy as np

from jaxsnn.event.event_options import EventOptions
from jaxsnn.event.native.native_build import kernel, thread_count
from jaxsnn.event.native.native_limits import calls_kernels
from jaxsnn.network.array_types import Float
from jaxsnn.network.meshes import match_device_axes
from jaxsnn.network.network import Network
from jaxsnn.network.promotion import usual_promotion
from jaxsnn.network.structure import carriers

_LARGE = 2**16  # minimum number of entries
_WIDE = 32  # minimum rows and columns; entries of a column are then far apart in memory
_KINDS = ("Linear", "Affine")

Matrix = Float[Any, "rows columns"]
Transposed = Float[Any, "columns rows"]


def with_transposed_weights(network: Network, samples: Any, options: EventOptions) -> Network:
    """Return the network with its large matrices stored transposed, so that transposing them again
    costs nothing.

    Args:
        samples: size of the batch.
    """
    if options.forward_mode or not calls_kernels(network.dtype.name, samples, options):
        return network
    parameters = dict(network.parameters)
    for wire in network.wires:
        weight = parameters.get(wire.name, {}).get("weight")
        if wire.kind in _KINDS and weight is not None and _is_large(weight):
            # The engine transposes the weight again: XLA cancels the two transpositions.
            transposed: Any = _transpose(options.threads, match_device_axes(weight))
            parameters[wire.name] = {**parameters[wire.name], "weight": transposed.T}
    return network.with_parameters(parameters)


def own_matrix(network: Network, population: str) -> str | None:
    """Return the Linear or Affine node through which a population feeds back into itself, if it is
    the only node between and the only feedback path; else None.
    """
    by_name = {wire.name: wire for wire in network.wires}
    carrying = carriers(network.wires, [population])
    routes = [by_name[name] for name in by_name[population].sources if name in carrying]
    if len(routes) != 1:  # the weights of several paths would have to be added
        return None
    (wire,) = routes
    alone = wire.sources == (population,) and wire.kind in _KINDS
    plain = wire.detail is None and "delay" not in network.parameters.get(wire.name, {})
    return wire.name if alone and plain else None


def _is_large(weight: Matrix) -> bool:
    return weight.size >= _LARGE and min(weight.shape) >= _WIDE


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _transpose(threads: int | None, matrix: Matrix) -> Transposed:
    return transpose_by_kernel(threads, matrix)


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def transpose_by_kernel(threads: int | None, matrix: Matrix) -> Transposed:
    result = jax.ShapeDtypeStruct(matrix.shape[::-1], matrix.dtype)
    call = kernel("jaxsnn_transpose", (result,))
    return match_device_axes(call(matrix, threads=np.int64(thread_count(threads)))[0], matrix)


@transpose_by_kernel.defjvp
@usual_promotion
def _(
    threads: int | None, primals: tuple[Any], tangents: tuple[Any]
) -> tuple[Transposed, Transposed]:
    """Return the transposed matrix, and its tangents by XLA."""
    return transpose_by_kernel(threads, *primals), tangents[0].T


def _forward(threads: int | None, matrix: Matrix) -> tuple[Transposed, None]:
    return transpose_by_kernel(threads, matrix), None


def _backward(threads: int | None, _: None, cotangent: Transposed) -> tuple[Matrix]:
    return (transpose_by_kernel(threads, cotangent),)


_transpose.defvjp(usual_promotion(_forward), usual_promotion(_backward))
