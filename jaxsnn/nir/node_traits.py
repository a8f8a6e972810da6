"""What is known of a type of node: one frozen record, which every room of the house asks.

The types of NIR stand in `jaxsnn.nir.nodes`, each with its traits; `jaxsnn.nir.nodes.register_node`
adds others from outside. A type without traits is refused everywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from jaxsnn.errors import UnsupportedNodeError

if TYPE_CHECKING:
    from jaxsnn.nir.dialects import Dialect
    from jaxsnn.nir.node_shapes import Window
    from jaxsnn.nir.nodes import Node

Shape = tuple[int, ...]
Look = Literal["port", "neuron", "linear"]
#: A function, or where it is, "module:name": so a record needs not load what the function needs.
Reference = Callable[..., Any] | str


class Fault(NamedTuple):
    """Something that is wrong with a node.

    Attributes:
        code: what kind of problem, for scripts.
        what: what is wrong, to follow the node's name: "has a weight of shape (3,)".
        fix: what to do about it.
    """

    code: str
    what: str
    fix: str


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """One parameter of a type of node.

    Attributes:
        name: as the file has it.
        per: "element": one number for each element of the node's shape; a single number holds for
            all. "feature": likewise for each entry of the first axis of its output. "array": an
            array whose shape is its own (a weight matrix). These three are the parameters of a
            lowered network, and can be trained. "setting": what only says how the node is made (a
            stride, a shape); it stays in the graph.
        optional: a file may lack it.
        default: what a missing one means; None: nothing.
        time: power of the unit of time in it: 1 for a time constant or a delay, -1 for a rate.
        positive: it must be greater than 0.
        least: the smallest number that it may be; None: any.
        tied_to: names of time constants; where one of them is infinite, it may be infinite too.
        single: it is one number for the whole node.
        per_axis: it has one number for each axis of space, or one that holds for all.
        texts: texts that it may be in place of numbers.
        whole: it holds whole numbers.
        declares_shape: it repeats the shape of what reaches the node.
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
        """A positive time, which may be infinite: then nothing decays."""
        return self.time == 1 and self.positive

    @property
    def may_be_scalar(self) -> bool:
        """One number means the same whatever the shape of its array: exporters write () and (1,)."""
        return self.single or self.per_axis

    @property
    def may_be_infinite(self) -> bool:
        """Infinity makes sense, if only together with another parameter."""
        return self.is_time_constant or bool(self.tied_to)


@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """What lowering knows of a node besides its record.

    Attributes:
        inward, outward: shapes of what reaches it and of what leaves it.
        dialect: what the file does not say.
        parameters: its lowered parameters by name, times in seconds.
    """

    inward: Shape
    outward: Shape
    dialect: Dialect
    parameters: Mapping[str, np.ndarray]


@dataclass(frozen=True, kw_only=True)
class NodeTraits:
    """One type of node.

    Functions take the node's record (`node.value("stride")` is a parameter) and use NumPy alone,
    but for `apply`. What a type does not have is None.

    Attributes:
        type: its name in files.
        doc: what it computes, in a sentence.
        parameters: in the order of its format.
        port: data enter or leave the graph there.
        state: it has a state: it is a population of neurons.
        fires: of one with a state: it emits spikes.
        current_based: of one with a state: spikes drive a synaptic current of its own.
        linear: its output is a linear function of its input and a bias, without a state.
        delays: it takes time.
        elementwise: its output has the shape of its input, and so have its parameters "per"
            element.
        bias: the parameter that is added to the output.
        axes: number of axes that it takes, without batch and time; None: any, or what its
            parameters fix.
        own_shape: node -> the shape that its parameters fix for its input, or None. Of an
            elementwise type that is the shape of its parameters.
        transfer: (node, shape of its input) -> shape of its output; None if it cannot take that, or
            the output cannot be known. Needed by all but ports and elementwise types.
        window: node -> the `Window` that it slides over the axes behind the first.
        synapses: (node, shape of its input or None) -> number of its connections, or None.
        problems: node -> `Fault`s of its parameters that `Parameter` cannot state.
        misfits: (node, shape of its input) -> `Fault`s of the node for such an input.
        detail: (node, `Surroundings`) -> what `apply` needs beyond the parameters, hashable.
        apply: of a linear type: (parameters, detail, x) -> y, the bias left out. x is a JAX array
            (samples, *inward), y (samples, *outward); parameters are arrays by name, those per
            element in one row (elements,). It may be a text "module:name". Both engines use it,
            and the chip does with NumPy arrays where there are no `entries`.
        entries: of a linear type: (parameters, detail, inward) -> (source, target, value): its
            connections one by one. Channels of input and output are counted in C order, in NumPy
            int arrays (entries,) that depend on shapes alone; the values (entries,) are of the
            kind of the parameters, NumPy or JAX. None: engines find them by applying it.
        look: how it is drawn; None: as a neuron if it has a state, else as a linear node.
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

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the parameters."""
        return tuple(parameter.name for parameter in self.parameters)

    @property
    def drawn_as(self) -> Look:
        """How it is drawn."""
        if self.look is not None:
            return self.look
        return "port" if self.port else "neuron" if self.state else "linear"

    @property
    def keeps_shape(self) -> bool:
        """What leaves it has the shape of what reaches it, whatever that is."""
        return self.port or self.elementwise

    @property
    def time_constants(self) -> tuple[str, ...]:
        """Names of the time constants."""
        return tuple(each.name for each in self.parameters if each.is_time_constant)

    def parameter(self, name: str) -> Parameter | None:
        """A parameter by its name."""
        return next((each for each in self.parameters if each.name == name), None)

    def time_power(self, name: str) -> int:
        """Power of the unit of time in a parameter."""
        found = self.parameter(name)
        return 0 if found is None else found.time

    def input_shape(self, node: Node) -> Shape | None:
        """The shape that a node's parameters fix for its input; None where they do not."""
        if self.own_shape is not None:
            return self.own_shape(node)
        shapes = self.element_shapes(node).values() if self.elementwise else ()
        return next(iter(shapes), None)

    def element_shapes(self, node: Node) -> dict[str, Shape]:
        """Shapes of the parameters per element that are not single numbers."""
        values = {
            each.name: node.parameters[each.name]
            for each in self.parameters
            if each.per == "element" and each.name in node.parameters
        }
        return {name: np.shape(value) for name, value in values.items() if np.size(value) != 1}

    def output_shape(self, node: Node, shape: Shape) -> Shape | None:
        """The shape of a node's output for an input of a given shape; None if the node cannot take
        it.

        Raises:
            UnsupportedNodeError: the traits do not tell.
        """
        if self.transfer is not None:
            return self.transfer(node, shape)
        if self.keeps_shape:
            return shape
        raise UnsupportedNodeError(
            f"node '{node.name}' is a {self.type}, "
            "whose traits do not tell the shape of its output",
            fix="give them transfer=, or say elementwise=True",
            node=node.name,
        )
