"""The nodes of a NIR graph as frozen records: one class for each type, with its traits.

A record keeps each parameter exactly as the file has it: a scalar stays 0-d, a dtype stays. Only a
setting that is a single number (`Parameter.may_be_scalar`) is always 0-d, also where the file has
the shape (1,); export writes the shape of the file. A parameter that the file lacks is None; `value`
returns NIR's default for it. All properties of a type are in its `traits`, which all other modules
use instead of lists of classes. `register_node` adds a type.
"""

from __future__ import annotations

import dataclasses
import keyword
from collections.abc import Mapping
from functools import partial
from importlib.metadata import EntryPoint, entry_points
from types import MappingProxyType

import numpy as np

from jaxsnn import linear_map
from jaxsnn.errors import UnsupportedNodeError, UsageError, listing, suggestion
from jaxsnn.keywords import suggests_keywords
from jaxsnn.nir.model import node_shapes
from jaxsnn.nir.model.extension_nodes import EXTENSIONS
from jaxsnn.nir.model.node import Node, NodeTraits, Parameter, Value
from jaxsnn.wording import Text

#: Entry points under which installed packages register the traits of their types, by type name.
ENTRY_POINTS = "jaxsnn.nodes"


_element = partial(Parameter, per="element")
_setting = partial(Parameter, per="setting", whole=True)
_tau = partial(Parameter, per="element", time=1, positive=True)
_DECLARED_SHAPE = _setting(name="shape", optional=True, least=0, declares_shape=True)
_V_RESET = _element(name="v_reset", optional=True, default=0.0)
_W_IN = _element(name="w_in", optional=True, default=1.0, tied_to=("tau_syn",))
_PADDING = _setting(name="padding", least=0, texts=("same", "valid"), per_axis=True)
_CONVOLUTION = (
    _setting(name="input_shape", optional=True, least=0, per_axis=True),
    Parameter(name="weight"),
    _setting(name="stride", least=1, per_axis=True),
    _PADDING,
    _setting(name="dilation", least=1, per_axis=True),
    _setting(name="groups", least=1, single=True),
    Parameter(name="bias", per="feature"),
)
_POOL = (
    _setting(name="kernel_size", least=1, per_axis=True),
    _setting(name="stride", least=1, per_axis=True),
    _PADDING,
)
_convolution = partial(
    NodeTraits,
    parameters=_CONVOLUTION,
    linear=True,
    bias="bias",
    own_shape=node_shapes.convolution_input,
    transfer=node_shapes.convolution_output,
    window=node_shapes.convolution_window,
    synapses=node_shapes.convolution_synapses,
    problems=node_shapes.convolution_problems,
    misfits=node_shapes.convolution_misfits,
    detail=node_shapes.window_detail,
    apply="jaxsnn.network.linear_nodes:convolved",
    entries=linear_map.convolution_entries,
)
_pool = partial(
    NodeTraits,
    parameters=_POOL,
    linear=True,
    axes=3,
    transfer=node_shapes.pool_output,
    window=node_shapes.pool_window,
    problems=node_shapes.window_problems,
    detail=node_shapes.window_detail,
)
_matrix = partial(
    NodeTraits,
    linear=True,
    own_shape=node_shapes.matrix_input,
    transfer=node_shapes.matrix_output,
    synapses=node_shapes.matrix_synapses,
    problems=node_shapes.matrix_problems,
    detail=node_shapes.matrix_detail,
    apply="jaxsnn.network.linear_nodes:matrix_product",
    entries=linear_map.matrix_entries,
)
_neuron = partial(NodeTraits, state=True, elementwise=True)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Input(Node):
    """Entry point of data. Inside a nested graph: a relay."""

    shape: np.ndarray | None = None
    traits = NodeTraits(type="Input", port=True, parameters=(_DECLARED_SHAPE,))


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Output(Node):
    """Exit point of data. Inside a nested graph: a relay."""

    shape: np.ndarray | None = None
    traits = NodeTraits(type="Output", port=True, parameters=(_DECLARED_SHAPE,))


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Linear(Node):
    """y = W x; weight has the shape (..., outputs, inputs)."""

    weight: np.ndarray | None = None
    traits = _matrix(type="Linear", parameters=(Parameter(name="weight"),))


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Affine(Node):
    """y = W x + b; the bias is added once in each time step (in continuous time: a constant
    current).
    """

    weight: np.ndarray | None = None
    bias: np.ndarray | None = None
    traits = _matrix(
        type="Affine",
        parameters=(Parameter(name="weight"), _element(name="bias")),
        bias="bias",
    )


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Scale(Node):
    """y = s x, element by element."""

    scale: np.ndarray | None = None
    traits = NodeTraits(
        type="Scale",
        parameters=(_element(name="scale"),),
        linear=True,
        elementwise=True,
        apply="jaxsnn.network.linear_nodes:scaled",
        entries=linear_map.scale_entries,
    )


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
    traits = _convolution(type="Conv1d", axes=2)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Conv2d(Node):
    """Convolution in two dimensions; weight is (out channels, in channels / groups, height,
    width).
    """

    input_shape: np.ndarray | None = None
    weight: np.ndarray | None = None
    stride: np.ndarray | None = None
    padding: np.ndarray | str | None = None
    dilation: np.ndarray | None = None
    groups: np.ndarray | None = None
    bias: np.ndarray | None = None
    traits = _convolution(type="Conv2d", axes=3)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class SumPool2d(Node):
    """Sum over windows of the last two axes."""

    kernel_size: np.ndarray | None = None
    stride: np.ndarray | None = None
    padding: np.ndarray | None = None
    traits = _pool(
        type="SumPool2d",
        apply="jaxsnn.network.linear_nodes:summed",
        entries=linear_map.sum_entries,
    )


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class AvgPool2d(Node):
    """Mean over windows of the last two axes."""

    kernel_size: np.ndarray | None = None
    stride: np.ndarray | None = None
    padding: np.ndarray | None = None
    traits = _pool(
        type="AvgPool2d",
        apply="jaxsnn.network.linear_nodes:averaged",
        entries=linear_map.mean_entries,
    )


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Flatten(Node):
    """Joins the axes from start_dim to end_dim (both included) into one."""

    input_type: np.ndarray | None = None
    start_dim: np.ndarray | None = None
    end_dim: np.ndarray | None = None
    traits = NodeTraits(
        type="Flatten",
        parameters=(
            _setting(name="input_type", optional=True, declares_shape=True),
            _setting(name="start_dim", optional=True, default=1, single=True),
            _setting(name="end_dim", optional=True, default=-1, single=True),
        ),
        linear=True,
        transfer=node_shapes.flattened,
        detail=node_shapes.flatten_detail,
        apply="jaxsnn.network.linear_nodes:flattened",
        entries=linear_map.flatten_entries,
    )


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Delay(Node):
    """y(t) = x(t - delay)."""

    delay: np.ndarray | None = None
    traits = NodeTraits(
        type="Delay",
        parameters=(_element(name="delay", time=1, least=0),),
        linear=True,
        delays=True,
        elementwise=True,
        detail=node_shapes.delay_detail,
    )


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Threshold(Node):
    """y = 1 where x > threshold, else 0."""

    threshold: np.ndarray | None = None
    traits = NodeTraits(
        type="Threshold", parameters=(_element(name="threshold"),), elementwise=True
    )


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
    traits = _neuron(
        type="CubaLIF",
        parameters=(
            _tau(name="tau_syn"),
            _tau(name="tau_mem"),
            _element(name="r", tied_to=("tau_mem",)),
            _element(name="v_leak"),
            _element(name="v_threshold"),
            _V_RESET,
            _W_IN,
        ),
        fires=True,
        current_based=True,
    )


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class CubaLI(Node):
    """tau_syn I' = -I + w_in S; tau_mem V' = v_leak - V + r I."""

    tau_syn: np.ndarray | None = None
    tau_mem: np.ndarray | None = None
    r: np.ndarray | None = None
    v_leak: np.ndarray | None = None
    w_in: np.ndarray | None = None
    traits = _neuron(
        type="CubaLI",
        parameters=(
            _tau(name="tau_syn"),
            _tau(name="tau_mem"),
            _element(name="r", tied_to=("tau_mem",)),
            _element(name="v_leak"),
            _W_IN,
        ),
        current_based=True,
    )


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class LIF(Node):
    """tau V' = v_leak - V + r S; spike where V > v_threshold, then V = v_reset."""

    tau: np.ndarray | None = None
    r: np.ndarray | None = None
    v_leak: np.ndarray | None = None
    v_threshold: np.ndarray | None = None
    v_reset: np.ndarray | None = None
    traits = _neuron(
        type="LIF",
        parameters=(
            _tau(name="tau"),
            _element(name="r", tied_to=("tau",)),
            _element(name="v_leak"),
            _element(name="v_threshold"),
            _V_RESET,
        ),
        fires=True,
    )


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class LI(Node):
    """tau V' = v_leak - V + r S."""

    tau: np.ndarray | None = None
    r: np.ndarray | None = None
    v_leak: np.ndarray | None = None
    traits = _neuron(
        type="LI",
        parameters=(
            _tau(name="tau"),
            _element(name="r", tied_to=("tau",)),
            _element(name="v_leak"),
        ),
    )


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class IF(Node):
    """V' = r S; spike where V > v_threshold, then V = v_reset."""

    r: np.ndarray | None = None
    v_threshold: np.ndarray | None = None
    v_reset: np.ndarray | None = None
    traits = _neuron(
        type="IF",
        parameters=(_element(name="r", time=-1), _element(name="v_threshold"), _V_RESET),
        fires=True,
    )


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class I(Node):  # noqa: E742 - NIR's own name
    """V' = r S."""

    r: np.ndarray | None = None
    traits = _neuron(type="I", parameters=(_element(name="r", time=-1),))


#: NIR's own types by name; `class_of` also knows types of other packages.
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

#: NIR's own types with a state, types that fire, and types with a synaptic current; for other nodes
#: use `node.traits`.
NEURONS = tuple(cls for cls in TYPES.values() if cls.traits.state)
SPIKING = tuple(cls for cls in NEURONS if cls.traits.fires)
CURRENT_BASED = tuple(cls for cls in NEURONS if cls.traits.current_based)

_REGISTERED: dict[str, type[Node]] = {}


@suggests_keywords
def register_node(traits: NodeTraits) -> type[Node]:
    """Register a type of node, so that files with it are read, checked, simulated and written.

    Args:
        traits: Properties of the type. A type with a state also needs a neuron model of its name.

    Returns:
        Class of the records of the type, whose fields are the parameters.

    Raises:
        UsageError: A different type has this name, or the traits contradict each other.

    >>> gain = NodeTraits(
    ...     type="Gain",
    ...     parameters=(Parameter(name="gain", per="element"),),
    ...     linear=True,
    ...     elementwise=True,
    ...     apply=lambda parameters, detail, x: x * parameters["gain"],
    ... )
    >>> register_node(gain)(name="a", gain=np.array(2.0)).value("gain")
    array(2.)
    """
    registered = _REGISTERED.get(traits.type)
    if registered is not None and registered.traits == traits:
        return registered
    _refuse_bad_traits(traits)
    fields = [(name, Value | None, dataclasses.field(default=None)) for name in traits.names]
    node_class = dataclasses.make_dataclass(
        traits.type,
        fields,
        bases=(Node,),
        namespace={
            "traits": traits,
            "__doc__": traits.doc or f"{traits.type}.",
            "__module__": __name__,
        },
        frozen=True,
        kw_only=True,
        eq=False,
    )
    _REGISTERED[traits.type] = node_class
    return node_class


def _refuse_bad_traits(traits: NodeTraits) -> None:
    """Raise UsageError if the traits of a registered type are inconsistent."""
    kind, parameter_names = traits.type, traits.names
    reserved = {field.name for field in dataclasses.fields(Node)} | {"type"} | set(vars(Node))
    bad = [
        name
        for name in parameter_names
        if not name.isidentifier() or keyword.iskeyword(name) or name in reserved
    ]
    checks = [
        (not kind.isidentifier(), "is not a valid type name", "use letters and digits"),
        (kind in TYPES or kind == "NIRGraph", "is a type of NIR", "use a different name"),
        (kind in EXTENSIONS, "is an extension of this package", "use a different name"),
        (
            kind in _REGISTERED,
            "is already registered with different traits",
            "use a different name",
        ),
        (
            len(set(parameter_names)) < len(parameter_names),
            Text(
                "has two parameters with the same name ({parameters})",
                parameters=listing(parameter_names),
            ),
            "rename one of them",
        ),
        (
            bool(bad),
            Text("has a parameter with the reserved name {parameter}", parameter=listing(bad)),
            "rename it",
        ),
        (traits.port, "is a port", "remove port: Inputs and Outputs are the only ports"),
        (traits.state and traits.linear, "has both state and linear", "use only one of them"),
        (traits.fires and not traits.state, "has fires without state", "pass state=True"),
        (
            traits.state and not traits.elementwise,
            "has state without elementwise",
            "pass elementwise=True",
        ),
        (traits.linear and traits.apply is None, "is linear, but has no operator", "pass apply="),
        (
            not traits.elementwise and traits.transfer is None,
            "does not specify the shape of its output",
            "pass transfer= or elementwise=True",
        ),
        (
            traits.bias is not None and traits.bias not in parameter_names,
            Text(
                "has no parameter '{parameter}', which is specified as its bias",
                parameter=traits.bias,
            ),
            suggestion(traits.bias or "", parameter_names),
        ),
    ]
    for wrong, description, fix in checks:
        if wrong:
            raise UsageError(
                Text("the node type '{type}' {description}", type=kind, description=description),
                fix=fix,
            )


def class_of(kind: str) -> type[Node]:
    """Return the class of the records of a type, by the type's name in files.

    Raises:
        UnsupportedNodeError: The type is neither a type of NIR nor registered.
        UsageError: An installed package declares the type, but it cannot be loaded.
    """
    if kind in TYPES:
        return TYPES[kind]
    if kind in EXTENSIONS:
        return EXTENSIONS[kind]
    if kind not in _REGISTERED and kind in _installed():
        _load(_installed()[kind])
    if kind not in _REGISTERED:
        raise UnsupportedNodeError(
            Text("the type {type} is not supported", type=kind),
            fix=f"supported types: {listing([*node_types(), 'NIRGraph'], limit=99)}",
        )
    return _REGISTERED[kind]


def node_types() -> tuple[str, ...]:
    """Return the names of all types: NIR's own, extensions of this package, registered ones and
    those of installed packages.
    """
    return tuple(dict.fromkeys((*TYPES, *EXTENSIONS, *_REGISTERED, *_installed())))


def _installed() -> dict[str, EntryPoint]:
    return {point.name: point for point in sorted(entry_points(group=ENTRY_POINTS))}


def _load(point: EntryPoint) -> None:
    """Register the node types of an installed package."""
    try:
        traits = point.load()
    except (ImportError, AttributeError) as error:
        raise UsageError(
            Text(
                "the node type '{type}' cannot be loaded from {path} ({reason})",
                type=point.name,
                path=point.value,
                reason=str(error),
            ),
            fix="reinstall the package",
        ) from error
    if not isinstance(traits, NodeTraits) or traits.type != point.name:
        target = (
            traits.type
            if isinstance(traits, NodeTraits)
            else Text("an object of type {type}", type=type(traits).__name__)
        )
        raise UsageError(
            Text(
                "the entry point '{name}' of {group} refers to {target}",
                name=point.name,
                group=ENTRY_POINTS,
                target=target,
            ),
            fix=Text("refer to NodeTraits of the type {name}", name=point.name),
        )
    register_node(traits)
