"""Node types that NIR does not have and that users of PyTorch need: extensions of this package.

A file marks each of them (`EXTENSION_KEY` in the node's metadata). The time-stepped engine runs them;
continuous time, the chip and the importers of other simulators do not have them, except for
SparseLinear: both engines run it.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from functools import partial
from types import MappingProxyType

import numpy as np

from jaxsnn.linear_map import SparsePattern, sparse_entries
from jaxsnn.nir.model import node_shapes
from jaxsnn.nir.model.node import Fault, Node, NodeTraits, Parameter, Shape, Surroundings
from jaxsnn.wording import Text

#: Key and value in the metadata of a node whose type is an extension; the value is the package that
#: defines it.
EXTENSION_KEY, PACKAGE = "extension", "jaxsnn"

_HOME = "jaxsnn.network.value_nodes"
_element = partial(Parameter, per="element")
_tau = partial(Parameter, per="element", time=1, positive=True)
_setting = partial(Parameter, per="setting", whole=True)


def _layer_norm_problems(node: Node) -> Iterator[Fault]:
    """Yield a fault for a bias whose shape differs from that of the weight."""
    weight, bias = (np.shape(node.value(key)) for key in ("weight", "bias"))
    if weight != bias:
        yield Fault(
            "bias-shape",
            Text(
                "has a weight of shape {weight_shape} and a bias of shape {shape}",
                weight_shape=weight,
                shape=bias,
            ),
            "give both the shape of the normalised axes",
        )


def _layer_norm_misfits(node: Node, shape: Shape) -> Iterator[Fault]:
    """Yield a fault if the last axes of the input are not the normalised ones."""
    normalised = np.shape(node.value("weight"))
    if shape[len(shape) - len(normalised) :] != normalised:
        yield Fault(
            "shape-mismatch",
            Text(
                "normalises axes of shape {expected}, but its input has the shape {shape}",
                expected=normalised,
                shape=shape,
            ),
            "give its weight and bias the shape of the last axes of its input",
        )


def _layer_norm_detail(node: Node, around: Surroundings) -> tuple[int, float]:
    """Return the number of normalised axes, and epsilon."""
    del around
    return np.ndim(node.value("weight")), float(np.ravel(node.value("epsilon"))[0])


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class MaxPool2d(Node):
    """Maximum over windows of the last two axes."""

    kernel_size: np.ndarray | None = None
    stride: np.ndarray | None = None
    padding: np.ndarray | None = None
    traits = NodeTraits(
        type="MaxPool2d",
        extension=PACKAGE,
        parameters=(
            _setting(name="kernel_size", least=1, per_axis=True),
            _setting(name="stride", least=1, per_axis=True),
            _setting(name="padding", least=0, per_axis=True),
        ),
        axes=3,
        transfer=node_shapes.pool_output,
        window=node_shapes.pool_window,
        problems=node_shapes.window_problems,
        detail=node_shapes.window_detail,
        apply=f"{_HOME}:largest",
    )


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class MaxPool1d(Node):
    """Maximum over windows of the last axis."""

    kernel_size: np.ndarray | None = None
    stride: np.ndarray | None = None
    padding: np.ndarray | None = None
    traits = dataclasses.replace(
        MaxPool2d.traits, type="MaxPool1d", axes=None, transfer=node_shapes.last_axis_output
    )


def _new_shape(node: Node, around: Surroundings | None = None) -> Shape:
    return tuple(np.ravel(node.value("shape")).tolist())


def _reshaped(node: Node, shape: Shape) -> Shape | None:
    new_shape = _new_shape(node)
    return new_shape if math.prod(new_shape) == math.prod(shape) else None


def _reshape_misfits(node: Node, shape: Shape) -> Iterator[Fault]:
    """Yield a fault if the input has another number of elements."""
    if _reshaped(node, shape) is None:
        yield Fault(
            "shape-mismatch",
            Text(
                "reshapes its input to {expected}, but an input of shape {shape} has another number of elements",
                expected=_new_shape(node),
                shape=shape,
            ),
            "use shapes with the same number of elements",
        )


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Reshape(Node):
    """Elements of the input, in their order, in another shape."""

    shape: np.ndarray | None = None
    traits = NodeTraits(
        type="Reshape",
        extension=PACKAGE,
        parameters=(_setting(name="shape", least=1),),
        transfer=_reshaped,
        misfits=_reshape_misfits,
        detail=_new_shape,
        apply=f"{_HOME}:reshaped",
    )


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class ReLU(Node):
    """y = max(x, 0)."""

    traits = NodeTraits(
        type="ReLU", extension=PACKAGE, elementwise=True, apply=f"{_HOME}:rectified"
    )


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class LayerNorm(Node):
    """y = weight (x - mean) / sqrt(variance + epsilon) + bias, with mean and variance over the last
    axes, those of weight and bias.
    """

    weight: np.ndarray | None = None
    bias: np.ndarray | None = None
    epsilon: np.ndarray | None = None
    traits = NodeTraits(
        type="LayerNorm",
        extension=PACKAGE,
        parameters=(
            Parameter(name="weight"),
            Parameter(name="bias"),
            Parameter(name="epsilon", per="setting", least=0, single=True),
        ),
        elementwise=True,
        problems=_layer_norm_problems,
        misfits=_layer_norm_misfits,
        detail=_layer_norm_detail,
        apply=f"{_HOME}:normalised",
    )


def _alpha_problems(node: Node) -> Iterator[Fault]:
    """Yield a fault for decays that give no difference of exponentials."""
    alpha, beta = (np.asarray(node.value(key), float) for key in ("alpha", "beta"))
    if alpha.size not in (1, beta.size) and beta.size != 1:
        return
    with np.errstate(divide="ignore", invalid="ignore"):
        height = np.log(alpha.ravel()) / (np.log(beta.ravel()) - np.log(alpha.ravel())) + 1
    if not np.isfinite(height).all():
        place = int(np.argmin(np.isfinite(height)))
        yield Fault(
            "bad-parameter",
            Text(
                "has alpha {alpha:g} and beta {beta:g}",
                alpha=np.broadcast_to(alpha.ravel(), height.shape)[place],
                beta=np.broadcast_to(beta.ravel(), height.shape)[place],
            ),
            "give it two different decays between 0 and 1",
        )


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Alpha(Node):
    """snnTorch's neuron whose response to a spike is a difference of two exponentials: E = alpha E +
    X, H = beta H - X, V = (log(alpha) / (log(beta) - log(alpha)) + 1) (E + H) in each time step;
    spike where V > v_threshold.
    """

    alpha: np.ndarray | None = None
    beta: np.ndarray | None = None
    v_threshold: np.ndarray | None = None
    traits = NodeTraits(
        type="Alpha",
        extension=PACKAGE,
        state=True,
        fires=True,
        elementwise=True,
        parameters=(
            _element(name="alpha", least=0),
            _element(name="beta", least=0),
            _element(name="v_threshold"),
        ),
        problems=_alpha_problems,
    )


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class LIFRefrac(Node):
    """Norse's CubaLIF whose membrane is constant for `refractory_steps` time steps after a spike."""

    tau_syn: np.ndarray | None = None
    tau_mem: np.ndarray | None = None
    v_leak: np.ndarray | None = None
    v_threshold: np.ndarray | None = None
    v_reset: np.ndarray | None = None
    refractory_steps: np.ndarray | None = None
    traits = NodeTraits(
        type="LIFRefrac",
        extension=PACKAGE,
        state=True,
        fires=True,
        current_based=True,
        elementwise=True,
        parameters=(
            _tau(name="tau_syn"),
            _tau(name="tau_mem"),
            _element(name="v_leak"),
            _element(name="v_threshold"),
            _element(name="v_reset"),
            _element(name="refractory_steps", least=0),
        ),
    )


def _sparse_size(node: Node) -> Shape:
    return tuple(np.ravel(node.value("shape")).tolist())


def _sparse_problems(node: Node) -> Iterator[Fault]:
    """Yield faults of the lists of synapses."""
    size, count = _sparse_size(node), np.size(node.value("weight"))
    if len(size) != 2:
        yield Fault(
            "weight-shape",
            Text("has {count} sizes", count=len(size)),
            "its shape must be (outputs, inputs)",
        )
        return
    for key, channels in zip(("target", "source"), size, strict=True):
        index = np.asarray(node.value(key))
        if index.shape != (count,):
            yield Fault(
                "weight-shape",
                Text(
                    "has {count} weights and {parameter} of shape {shape}",
                    count=count,
                    parameter=key,
                    shape=index.shape,
                ),
                "list one source and one target for each weight",
            )
        elif count and (index.min() < 0 or index.max() >= channels):
            outside = index.min() if index.min() < 0 else index.max()
            yield Fault(
                "weight-shape",
                Text(
                    "has {parameter} {index}, but {channels} channels",
                    parameter=key,
                    index=outside,
                    channels=channels,
                ),
                f"number channels from 0 to {channels - 1}",
            )
    delay = node.value("delay")
    if delay is not None and np.shape(delay) != (count,):
        yield Fault(
            "weight-shape",
            Text(
                "has {count} weights and delays of shape {shape}",
                count=count,
                shape=np.shape(delay),
            ),
            "list one delay for each weight",
        )


def _sparse_detail(node: Node, around: Surroundings) -> SparsePattern:
    """Return the synapses without their weights."""
    del around
    source, target = (np.asarray(node.value(key), np.int32) for key in ("source", "target"))
    return SparsePattern(shape=_sparse_size(node), source=source, target=target)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class SparseLinear(Node):
    """y = W x for a sparse W: a list of synapses, each with a source, a target, a weight and
    possibly a delay.
    """

    shape: np.ndarray | None = None
    source: np.ndarray | None = None
    target: np.ndarray | None = None
    weight: np.ndarray | None = None
    delay: np.ndarray | None = None
    traits = NodeTraits(
        type="SparseLinear",
        extension=PACKAGE,
        parameters=(
            _setting(name="shape", least=1),
            _setting(name="source", least=0),
            _setting(name="target", least=0),
            Parameter(name="weight"),
            Parameter(name="delay", time=1, least=0, optional=True),
        ),
        linear=True,
        own_shape=lambda node: _sparse_size(node)[1:],
        transfer=lambda node, shape: _sparse_size(node)[:1],
        synapses=lambda node, shape: int(np.size(node.value("weight"))),
        problems=_sparse_problems,
        detail=_sparse_detail,
        apply="jaxsnn.network.linear_nodes:sparse_product",
        entries=sparse_entries,
    )


#: The extensions by name.
EXTENSIONS: Mapping[str, type[Node]] = MappingProxyType(
    {
        cls.__name__: cls
        for cls in (
            MaxPool1d,
            MaxPool2d,
            Reshape,
            ReLU,
            LayerNorm,
            Alpha,
            LIFRefrac,
            SparseLinear,
        )
    }
)
#: Advice for each extension: the closest network that NIR can express.
ALTERNATIVES: Mapping[str, str] = MappingProxyType(
    {
        "MaxPool1d": "pool the spikes after the neurons instead of the values before them, or use AvgPool1d",
        "Reshape": "pass the input in the new shape, or join its axes with Flatten",
        "MaxPool2d": "pool the spikes after the neurons instead of the values before them, or use AvgPool2d",
        "ReLU": "remove it, or put spiking neurons in its place",
        "LayerNorm": "remove it, or use BatchNorm, which from_torch merges into the weights",
        "Alpha": "use CubaLIF neurons, which have one synaptic current",
        "SparseLinear": "make it dense with jaxsnn.nir.build.with_dense_weights(graph)",
        "LIFRefrac": "use CubaLIF neurons, which have no refractory period",
    }
)
