"""The nodes of a NIR graph as frozen records, one class for each primitive of NIR 1.0.8.

A record keeps each parameter exactly as the file has it: a scalar stays 0-d, a dtype stays. A
parameter that the file lacks is None. `value` gives what NIR means by a missing one.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar, Self

import numpy as np

from jaxsnn.errors import UsageError, suggestion

Value = np.ndarray | str
EMPTY: Mapping[str, Any] = MappingProxyType({})


def nothing() -> Mapping[str, Any]:
    """The empty, read-only mapping, for dataclass fields."""
    return EMPTY


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Node:
    """What all nodes have.

    Attributes:
        name: The node's name in the graph; "/" joins the names of nested graphs.
        metadata: The node's own metadata, nested, as in the file.
        origin: Name of the node in the user's file that this one comes from; None for a node that a
            repair added.
        extra: Entries in the file that NIR does not define, kept for export.
    """

    name: str
    metadata: Mapping[str, Any] = dataclasses.field(default_factory=nothing)
    origin: str | None = None
    extra: Mapping[str, Any] = dataclasses.field(default_factory=nothing)

    #: Parameters in NIR's order, and what NIR takes for those that a file may lack.
    names: ClassVar[tuple[str, ...]] = ()
    defaults: ClassVar[Mapping[str, Any]] = EMPTY

    @property
    def type(self) -> str:
        """NIR's name of the primitive."""
        return type(self).__name__

    @property
    def parameters(self) -> dict[str, Value]:
        """The parameters that the file has, in NIR's order."""
        return {name: value for name in self.names if (value := getattr(self, name)) is not None}

    def value(self, parameter: str) -> Any:
        """A parameter, or NIR's default where the file has none (w_in is 1, v_reset is 0).

        Raises:
            UsageError: The node has no such parameter.

        >>> CubaLIF(name="a", tau_syn=np.array(0.005)).value("w_in")
        array(1.)
        """
        if parameter not in self.names:
            raise UsageError(
                f"node '{self.name}' ({self.type}) has no parameter '{parameter}'",
                fix=suggestion(parameter, self.names),
                node=self.name,
            )
        value = getattr(self, parameter)
        return self.defaults.get(parameter) if value is None else value

    def numbers(self, parameter: str) -> np.ndarray:
        """`value` to calculate with: float16 as float32 and whole numbers as float64, which can
        hold the results.

        >>> Linear(name="a", weight=np.ones((1, 1), "float16")).numbers("weight").dtype
        dtype('float32')
        """
        value = np.asarray(self.value(parameter))
        wide = np.promote_types(value.dtype, np.float32) if value.dtype.kind == "f" else np.float64
        return value.astype(wide, copy=False)

    def replace(self, **changes: Any) -> Self:
        """A copy with other values; numbers become read-only arrays."""
        frozen = {
            key: freeze(value) if key in self.names else value for key, value in changes.items()
        }
        return dataclasses.replace(self, **frozen)


def freeze(value: Any) -> Any:
    """A read-only array (text and None stay): the caller's own array is never made read-only nor
    kept.
    """
    if value is None or isinstance(value, str):
        return value
    array = np.array(value)
    array.setflags(write=False)
    return array


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Input(Node):
    """Where data enters. Inside a nested graph: a relay that passes on what arrives."""

    shape: np.ndarray | None = None
    names = ("shape",)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Output(Node):
    """Where data leaves. Inside a nested graph: a relay that passes on what arrives."""

    shape: np.ndarray | None = None
    names = ("shape",)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Linear(Node):
    """y = W x; weight has the shape (..., outputs, inputs)."""

    weight: np.ndarray | None = None
    names = ("weight",)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Affine(Node):
    """y = W x + b; the bias is added once in each step of time (in continuous time: a constant
    current).
    """

    weight: np.ndarray | None = None
    bias: np.ndarray | None = None
    names = ("weight", "bias")


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Scale(Node):
    """y = s x, element by element."""

    scale: np.ndarray | None = None
    names = ("scale",)


_CONVOLUTION = ("input_shape", "weight", "stride", "padding", "dilation", "groups", "bias")


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Conv1d(Node):
    """Convolution in one dimension; weight is (out channels, in channels / groups, width)."""

    input_shape: np.ndarray | None = None
    weight: np.ndarray | None = None
    stride: np.ndarray | None = None
    padding: np.ndarray | str | None = None
    dilation: np.ndarray | None = None
    groups: np.ndarray | None = None
    bias: np.ndarray | None = None
    names = _CONVOLUTION
    defaults = MappingProxyType({"input_shape": None})


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Conv2d(Node):
    """Convolution in two dimensions; weight is (out channels, in channels / groups, height, width)."""

    input_shape: np.ndarray | None = None
    weight: np.ndarray | None = None
    stride: np.ndarray | None = None
    padding: np.ndarray | str | None = None
    dilation: np.ndarray | None = None
    groups: np.ndarray | None = None
    bias: np.ndarray | None = None
    names = _CONVOLUTION
    defaults = MappingProxyType({"input_shape": None})


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class SumPool2d(Node):
    """Sum over windows of the last two axes."""

    kernel_size: np.ndarray | None = None
    stride: np.ndarray | None = None
    padding: np.ndarray | None = None
    names = ("kernel_size", "stride", "padding")


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class AvgPool2d(Node):
    """Mean over windows of the last two axes."""

    kernel_size: np.ndarray | None = None
    stride: np.ndarray | None = None
    padding: np.ndarray | None = None
    names = ("kernel_size", "stride", "padding")


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Flatten(Node):
    """Joins the axes from start_dim to end_dim (both included) into one."""

    input_type: np.ndarray | None = None
    start_dim: np.ndarray | None = None
    end_dim: np.ndarray | None = None
    names = ("input_type", "start_dim", "end_dim")
    defaults = MappingProxyType(
        {"input_type": None, "start_dim": np.array(1), "end_dim": np.array(-1)}
    )


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Delay(Node):
    """y(t) = x(t - delay)."""

    delay: np.ndarray | None = None
    names = ("delay",)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Threshold(Node):
    """y = 1 where x > threshold, else 0."""

    threshold: np.ndarray | None = None
    names = ("threshold",)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class CubaLIF(Node):
    """tau_syn I' = -I + w_in S; tau_mem V' = v_leak - V + r I; spike where V > v_threshold, then V
    = v_reset.
    """

    tau_syn: np.ndarray | None = None
    tau_mem: np.ndarray | None = None
    r: np.ndarray | None = None
    v_leak: np.ndarray | None = None
    v_threshold: np.ndarray | None = None
    v_reset: np.ndarray | None = None
    w_in: np.ndarray | None = None
    names = ("tau_syn", "tau_mem", "r", "v_leak", "v_threshold", "v_reset", "w_in")
    defaults = MappingProxyType({"v_reset": np.array(0.0), "w_in": np.array(1.0)})


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class CubaLI(Node):
    """tau_syn I' = -I + w_in S; tau_mem V' = v_leak - V + r I."""

    tau_syn: np.ndarray | None = None
    tau_mem: np.ndarray | None = None
    r: np.ndarray | None = None
    v_leak: np.ndarray | None = None
    w_in: np.ndarray | None = None
    names = ("tau_syn", "tau_mem", "r", "v_leak", "w_in")
    defaults = MappingProxyType({"w_in": np.array(1.0)})


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class LIF(Node):
    """tau V' = v_leak - V + r S; spike where V > v_threshold, then V = v_reset."""

    tau: np.ndarray | None = None
    r: np.ndarray | None = None
    v_leak: np.ndarray | None = None
    v_threshold: np.ndarray | None = None
    v_reset: np.ndarray | None = None
    names = ("tau", "r", "v_leak", "v_threshold", "v_reset")
    defaults = MappingProxyType({"v_reset": np.array(0.0)})


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class LI(Node):
    """tau V' = v_leak - V + r S."""

    tau: np.ndarray | None = None
    r: np.ndarray | None = None
    v_leak: np.ndarray | None = None
    names = ("tau", "r", "v_leak")


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class IF(Node):
    """V' = r S; spike where V > v_threshold, then V = v_reset."""

    r: np.ndarray | None = None
    v_threshold: np.ndarray | None = None
    v_reset: np.ndarray | None = None
    names = ("r", "v_threshold", "v_reset")
    defaults = MappingProxyType({"v_reset": np.array(0.0)})


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class I(Node):  # noqa: E742 - NIR's own name
    """V' = r S."""

    r: np.ndarray | None = None
    names = ("r",)


#: Every node type that is supported, by NIR's name.
TYPES: Mapping[str, type[Node]] = MappingProxyType(
    {
        cls.__name__: cls
        for cls in (
            Input,
            Output,
            Linear,
            Affine,
            Scale,
            Conv1d,
            Conv2d,
            SumPool2d,
            AvgPool2d,
            Flatten,
            Delay,
            Threshold,
            CubaLIF,
            CubaLI,
            LIF,
            LI,
            IF,
            I,
        )
    }
)

#: Nodes with a state of their own: the populations.
NEURONS = (CubaLIF, CubaLI, LIF, LI, IF, I)
SPIKING = (CubaLIF, LIF, IF)
CURRENT_BASED = (CubaLIF, CubaLI)
