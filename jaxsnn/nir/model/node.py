"""The record of a node, and the traits of its type, which all parts of the library read.

`NodeTraits` describes one type of node: its parameters, shapes, and what it computes. The types of NIR
are in `jaxsnn.nir.model.nodes`; `register_node` there adds others from outside. A type without traits is
refused everywhere.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, Self

import numpy as np

from jaxsnn.errors import UnsupportedNodeError, UsageError, suggestion
from jaxsnn.keywords import suggests_keywords
from jaxsnn.linear_map import Window
from jaxsnn.wording import Text

Shape = tuple[int, ...]
Look = Literal["port", "neuron", "linear"]
#: A function, or its location "module:name", so that a record need not import the function's
#: dependencies.
Reference = Callable[..., Any] | str


class Fault(NamedTuple):
    """Something that is wrong with a node.

    Attributes:
        code: Code of the problem, for scripts.
        what: Description that follows the name of the node: "has a weight of shape (3,)".
        fix: Advice.
    """

    code: str
    what: str
    fix: str


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """One parameter of a type of node.

    Attributes:
        name: Name in files.
        per: Kind of parameter. "element": one value per element of the node's shape, or a scalar for
            all. "feature": one value per entry of the first output axis, or a scalar. "array": an
            array with its own shape, such as a weight matrix. These three are parameters of a lowered
            network and can be trained. "setting": a property such as a stride or a shape, which stays
            in the graph.
        optional: Whether a file may lack the parameter.
        default: Value if the parameter is missing; None: no value.
        time: Power of the unit of time: 1 for a time constant or a delay, -1 for a rate.
        positive: Whether values must be greater than 0.
        least: Smallest allowed value; None: no limit.
        tied_to: Names of time constants; if one of them is infinite, the parameter may be infinite,
            too.
        single: Whether the parameter is a scalar for the node.
        per_axis: Whether the parameter has one value per spatial axis, or a scalar for all.
        texts: Texts that are allowed in place of numbers.
        whole: Whether values must be integers.
        declares_shape: Whether the parameter repeats the shape of the input of the node.
    """

    name: str
    per: Literal["element", "feature", "array", "setting"] = "array"
    optional: bool = False
    default: float | None = None
    time: int = 0
    positive: bool = False
    least: float | None = None
    tied_to: tuple[str, ...] = ()
    single: bool = False
    per_axis: bool = False
    texts: tuple[str, ...] = ()
    whole: bool = False
    declares_shape: bool = False

    @property
    def is_time_constant(self) -> bool:
        """Whether it is a positive time. It may be infinite: then nothing decays."""
        return self.time == 1 and self.positive

    @property
    def may_be_scalar(self) -> bool:
        """Whether a single number is valid in any array shape: exporters write () and (1,)."""
        return self.single or self.per_axis

    @property
    def may_be_infinite(self) -> bool:
        """Whether infinity is valid, possibly only together with another parameter."""
        return self.is_time_constant or bool(self.tied_to)


@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """Context of a node in lowering, besides its record.

    Attributes:
        inward, outward: Shapes of input and output of the node.
        dialect: Dialect of the graph; its module imports this module.
        parameters: Lowered parameters by name, times in seconds.
    """

    inward: Shape
    outward: Shape
    dialect: Any
    parameters: Mapping[str, np.ndarray]


@suggests_keywords
@dataclass(frozen=True, kw_only=True)
class NodeTraits:
    """Properties of one type of node.

    Functions take the node's record (`node.value("stride")` is a parameter). All but `apply` use only
    NumPy. Properties that a type lacks are None.

    Attributes:
        type: Name of the type in files.
        doc: Description of the type in one sentence.
        parameters: Parameters in the order of the format.
        port: Whether data enter or leave the graph at the node.
        state: Whether the node has a state: it is a population of neurons.
        fires: Whether a node with a state emits spikes.
        current_based: Whether spikes drive a synaptic current of a node with a state.
        linear: Whether the output is a linear function of the input and a bias, without a state.
        delays: Whether the node delays its input.
        elementwise: Whether the output, and the parameters per "element", have the shape of the
            input.
        bias: Name of the parameter that is added to the output.
        axes: Number of input axes without batch and time; None: any, or determined by the
            parameters.
        own_shape: Function of the node that returns the input shape determined by its parameters,
            or None. For an elementwise type it is the shape of its parameters.
        transfer: Function of the node and its input shape that returns its output shape; None if
            the input shape is not supported, or the output shape is unknown. Required except for
            ports and elementwise types.
        window: Function of the node that returns the `Window` that it slides over the axes after
            the first.
        synapses: Function of the node and its input shape (or None) that returns its number of
            connections, or None.
        problems: Function of the node that yields `Fault`s of its parameters that `Parameter`
            cannot express.
        misfits: Function of the node and its input shape that yields `Fault`s for such an input.
        detail: Function of the node and its `Surroundings` that returns the further arguments of
            `apply`, hashable.
        apply: For a type without state: (parameters, detail, x) -> y, without the bias of a linear
            type. x is a JAX array (samples, *inward), y (samples, *outward); parameters are arrays by
            name, those per element in one row (elements,). It may be a text "module:name". Both
            engines use the function of a linear type, and the mapping to the chip uses it with NumPy
            arrays if there are no `entries`; only the time-stepped engine uses that of a nonlinear
            type.
        entries: For a linear type: (parameters, detail, inward) -> (source, target, value): its
            connections one by one. Channels of input and output are counted in C order, in NumPy
            int arrays (entries,) that depend on shapes alone; the values (entries,) are of the
            kind of the parameters, NumPy or JAX. None: engines find them by applying it.
        look: Style in drawings; None: that of a neuron if the node has a state, else that of a
            linear node.
        extension: package that defines a type which NIR does not have, as files mark it; "" for NIR's
            types and registered ones.
    """

    type: str
    doc: str = ""
    parameters: tuple[Parameter, ...] = ()
    port: bool = False
    state: bool = False
    fires: bool = False
    current_based: bool = False
    linear: bool = False
    delays: bool = False
    elementwise: bool = False
    bias: str | None = None
    axes: int | None = None
    own_shape: Callable[[Node], Shape | None] | None = None
    transfer: Callable[[Node, Shape], Shape | None] | None = None
    window: Callable[[Node], Window] | None = None
    synapses: Callable[[Node, Shape | None], int | None] | None = None
    problems: Callable[[Node], Iterable[Fault]] | None = None
    misfits: Callable[[Node, Shape], Iterable[Fault]] | None = None
    detail: Callable[[Node, Surroundings], Hashable] | None = None
    apply: Reference | None = None
    entries: Callable[..., tuple[np.ndarray, np.ndarray, Any]] | None = None
    look: Look | None = None
    extension: str = ""

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the parameters."""
        return tuple(parameter.name for parameter in self.parameters)

    @property
    def drawn_as(self) -> Look:
        """Style of the node in drawings."""
        if self.look is not None:
            return self.look
        return "port" if self.port else "neuron" if self.state else "linear"

    @property
    def keeps_shape(self) -> bool:
        """Whether the output always has the shape of the input."""
        return self.port or self.elementwise

    @property
    def time_constants(self) -> tuple[str, ...]:
        """Names of the time constants."""
        return tuple(parameter.name for parameter in self.parameters if parameter.is_time_constant)

    def parameter(self, name: str) -> Parameter | None:
        """Return a parameter by its name; None if the type has no such parameter."""
        return next((parameter for parameter in self.parameters if parameter.name == name), None)

    def time_power(self, name: str) -> int:
        """Return the power of the unit of time in a parameter."""
        parameter = self.parameter(name)
        return 0 if parameter is None else parameter.time

    def input_shape(self, node: Node) -> Shape | None:
        """Return the shape that a node's parameters fix for its input; None if they do not."""
        if self.own_shape is not None:
            return self.own_shape(node)
        shapes = self.element_shapes(node).values() if self.elementwise else ()
        return next(iter(shapes), None)

    def element_shapes(self, node: Node) -> dict[str, Shape]:
        """Return the shapes of the parameters per element that are not single numbers."""
        values = {
            parameter.name: node.parameters[parameter.name]
            for parameter in self.parameters
            if parameter.per == "element" and parameter.name in node.parameters
        }
        return {name: np.shape(value) for name, value in values.items() if np.size(value) != 1}

    def output_shape(self, node: Node, shape: Shape) -> Shape | None:
        """Return the shape of a node's output for an input shape; None if the node does not accept
        it.

        Raises:
            UnsupportedNodeError: The traits do not specify it.
        """
        if self.transfer is not None:
            return self.transfer(node, shape)
        if self.keeps_shape:
            return shape
        raise UnsupportedNodeError(
            Text(
                "the traits of node '{node}' ({type}) do not specify the shape of its output",
                node=node.name,
                type=self.type,
            ),
            fix="pass transfer= or elementwise=True to NodeTraits",
            node=node.name,
        )


def ints(value: Any) -> Shape:
    """Return the integers of an array of any shape as a flat tuple."""
    return tuple(int(entry) for entry in np.ravel(value))


#: Padding of convolutions and pools whose framework pads like XLA's SAME; see `Window.like_xla`.
LIKE_XLA = "SAME"


Value = np.ndarray | str
EMPTY: Mapping[str, Any] = MappingProxyType({})


def nothing() -> Mapping[str, Any]:
    """Return the empty, read-only mapping, for dataclass fields."""
    return EMPTY


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class ReadAs:
    """Parameter that the dialect interprets differently from the value in the file.

    Attributes:
        file: Value in the file.
        meant: Value in the record.
    """

    file: Value
    meant: Value


class _NoTraits:
    """Placeholder for the traits of a class without traits; reading it raises an error."""

    def __get__(self, node: Node | None, cls: type[Node]) -> NodeTraits:
        subject = (
            Text("the node type {type}", type=cls.__name__)
            if node is None
            else Text("node '{node}' ({type})", node=node.name, type=cls.__name__)
        )
        raise UnsupportedNodeError(
            Text("{subject} has no traits, so it cannot be interpreted", subject=subject),
            fix="register the type with jaxsnn.register_node",
            node="" if node is None else node.name,
        )


#: Key in the metadata of a node whose weights are constants of a PyTorch module, such as the zeros that
#: a transposed convolution inserts. `fit` trains them only if they are named.
CONSTANT_KEY = "constant_weights"


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Node:
    """Base class of all nodes.

    Attributes:
        name: Name of the node in the graph; "/" joins the names of nested graphs.
        metadata: Metadata of the node, nested as in the file.
        origin: Name of the corresponding node in the user's file; None for a node that was added by
            a repair.
        extra: Entries in the file that NIR does not define, kept for export.
        written: Values in the file of parameters that the dialect interprets differently, by name.
            See `read_as`.
    """

    name: str
    metadata: Mapping[str, Any] = dataclasses.field(default_factory=nothing)
    origin: str | None = None
    extra: Mapping[str, Any] = dataclasses.field(default_factory=nothing)
    written: Mapping[str, ReadAs] = dataclasses.field(default_factory=nothing)

    if TYPE_CHECKING:
        #: Properties of the type.
        traits: ClassVar[NodeTraits]
    #: Parameters in NIR's order, and NIR's defaults for those that a file may omit.
    names: ClassVar[tuple[str, ...]] = ()
    defaults: ClassVar[Mapping[str, Any]] = EMPTY

    def __init_subclass__(cls) -> None:
        traits = cls.__dict__.get("traits")
        if traits is not None:
            optional = [parameter for parameter in traits.parameters if parameter.optional]
            cls.names = traits.names
            cls.defaults = MappingProxyType(
                {
                    parameter.name: None
                    if parameter.default is None
                    else np.array(parameter.default)
                    for parameter in optional
                }
            )

    @property
    def type(self) -> str:
        """NIR's name of the primitive."""
        return type(self).__name__

    @property
    def parameters(self) -> dict[str, Value]:
        """The parameters that the file has, in NIR's order."""
        return {name: value for name in self.names if (value := getattr(self, name)) is not None}

    def value(self, parameter: str) -> Any:
        """Return a parameter, or NIR's default if the file has none (w_in is 1, v_reset is 0).

        Raises:
            UsageError: The node has no such parameter.

        >>> from jaxsnn.nir.model.nodes import CubaLIF
        >>> CubaLIF(name="a", tau_syn=np.array(0.005)).value("w_in")
        array(1.)
        """
        if parameter not in self.names:
            raise UsageError(
                Text(
                    "node '{node}' ({type}) has no parameter '{parameter}'",
                    node=self.name,
                    type=self.type,
                    parameter=parameter,
                ),
                fix=suggestion(parameter, self.names),
                node=self.name,
            )
        value = getattr(self, parameter)
        return self.defaults.get(parameter) if value is None else value

    def numbers(self, parameter: str) -> np.ndarray:
        """Return `value` for calculations: float16 as float32 and integers as float64, which can
        represent the results.

        >>> from jaxsnn.nir.model.nodes import Linear
        >>> Linear(name="a", weight=np.ones((1, 1), "float16")).numbers("weight").dtype
        dtype('float32')
        """
        value = np.asarray(self.value(parameter))
        wide = np.promote_types(value.dtype, np.float32) if value.dtype.kind == "f" else np.float64
        return value.astype(wide, copy=False)

    def replace(self, **changes: Any) -> Self:
        """Return a copy with other values; numbers become read-only arrays."""
        frozen = {
            key: freeze(value) if key in self.names else value for key, value in changes.items()
        }
        return dataclasses.replace(self, **frozen)

    def read_as(self, **meant: Any) -> Self:
        """Return a copy with values other than the file's; export writes the file's values, as long
        as these are not changed.
        """
        changed = self.replace(**meant)
        written = {
            name: ReadAs(file=getattr(self, name), meant=getattr(changed, name)) for name in meant
        }
        return dataclasses.replace(changed, written=MappingProxyType({**self.written, **written}))

    def in_file(self) -> Self:
        """Return a copy with the values of the file where they were interpreted differently; values
        that have been changed since are kept.
        """
        if not self.written:
            return self
        values = {
            name: freeze(_restored(getattr(self, name), read_as))
            for name, read_as in self.written.items()
        }
        return dataclasses.replace(self, written=EMPTY, **values)


def _restored(value: Any, read_as: ReadAs) -> Any:
    """Return the file's value in place of a value, element by element; changed elements stay."""
    if isinstance(value, str) or isinstance(read_as.meant, str):
        return read_as.file if value is read_as.meant or value == read_as.meant else value
    if np.shape(value) != np.shape(read_as.meant):
        return value
    same = np.asarray(value) == read_as.meant
    return read_as.file if np.all(same) else np.where(same, read_as.file, value)


def freeze(value: Any) -> Any:
    """Return a read-only copy as an array (text and None are returned as they are); the caller's
    array is neither modified nor kept.
    """
    if value is None or isinstance(value, str):
        return value
    array = np.array(value)
    array.setflags(write=False)
    return array


# Placeholder for classes without traits, assigned here so that `dataclass` adds no field for it.
Node.traits = _NoTraits()  # pyright: ignore[reportAttributeAccessIssue]
