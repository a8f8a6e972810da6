"""The records that describe a framework: `Framework` and its parts.

A framework writes NIR files (its conventions, by version), reads them (its importers, by version),
and may have layers that `from_torch` accepts. To add a framework, write one file with one
`Framework`, and register it with `jaxsnn.nir.frameworks.registry.register_framework`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from jaxsnn.keywords import suggests_keywords
from jaxsnn.nir.model.draft import POOLS
from jaxsnn.nir.model.node import nothing
from jaxsnn.nir.model.nodes import TYPES

if TYPE_CHECKING:
    from jaxsnn.errors import Problem
    from jaxsnn.nir.frameworks.neuron_writing import Setting, Written
    from jaxsnn.nir.frameworks.source_step import Step
    from jaxsnn.nir.frameworks.torch_layers import Call, Exported, Setter
    from jaxsnn.nir.model.changes import Edge
    from jaxsnn.nir.model.dialect import Dialect
    from jaxsnn.nir.model.draft import Draft
    from jaxsnn.nir.model.node import Node

from jaxsnn.nir.model.dialect import Conventions, FrameworkOption, Release

#: Extended support of an importer for a step; see `Importer.does`.
Doing = Literal["any height", "floor", "no current", "several nodes"]

#: Method `forward` of a layer, or another function of tensors.
Forward = Callable[..., Any]


# Importers


def does_nothing_more(step: Step) -> Iterable[Doing]:
    """Return no extended support: the importer runs only steps with bounded membrane potentials, with
    or without a synaptic current.
    """
    return ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Importer(Release):
    """One version of a framework's own importer of NIR files.

    With `write` and `load`, `jaxsnn.nir.convert.pipeline` writes for it; without, it is known by its rules
    alone, and a file can only be checked.

    Attributes:
        nodes: Supported node types, including Input and Output; None: all types of NIR.
        ignores: Ignored parameter and the value that the importer assumes for it, by node type.
        lacks: Features that the importer ignores or fails on: "dilation" of convolutions, "pool
            padding", "scalars" (scalar parameters for all neurons).
        torch_names: Whether nodes are registered as modules of PyTorch, so that some names are not
            available.
        counts_batch: Axis from which the axes of a Flatten are counted: True: the batch axis;
            False: the axis after it; None: all axes are joined, whatever the Flatten specifies.
        reads: Values that the importer assumes for unspecified properties, as fields of `Dialect`.
        misread: Types that the importer interprets differently from files of its framework: a file
            with them has no dialect.
        remarks: Function of a node and the dialect that yields warnings on parameters that are
            interpreted differently.
        write: Function that writes one neuron.
        load: Function of the path and the `Setting` that returns the line of Python that loads a
            file into `net`.
        run: Lines of Python that run all time steps of the loaded module on x; a comment specifies
            the axes.
        setting: Function that computes a value for all neurons of a file from their steps; `write`
            and `load` find it in `Setting.importer_setting`.
        wire: Function that gives a draft the nodes, edges and names that the importer needs.
            Arguments: the draft, the edges from weights to neuron of its loops, whether layers
            delay spikes by one time step here and not in the source framework, and dt.
        dt: Default time step of the importer in seconds; with `dt` in `reads`, the only one. None:
            the importer solves the equations, and `write` receives a
            `jaxsnn.nir.frameworks.source_flow.Flow`.
        wiring: Supported connections besides a chain of nodes: "forks" (several targets of a node),
            "sums" (several inputs of a node, except recurrent ones), "loops".
        order: Run order of nodes, if the file must match it: "depth first" from the Input, by their
            "names", or by the "edges" as listed.
        starts_at_reset: Whether membrane potentials start at v_reset and currents at 0. For other
            initial states, IF neurons with feedback are added, which the importer must support.
        uniform: Whether a node has one time constant for all neurons.
        subtracts: Supported subtractions of v_threshold: "at once", "later" (in the next time step,
            after the decay), "unless above" (at once; a membrane potential that was above threshold
            before counts as already reset), "several" (as often per time step as the membrane
            potential reaches multiples of v_threshold). Without "several", spikes of a neuron are
            shared by copies; other subtractions are written as one of these with weights of each
            neuron to itself.
        bursts: Whether neurons fire several spikes per time step if their membrane potential
            reaches multiples of v_threshold.
        does: Function that returns how neurons support a time step of the source framework: "any
            height" (unchanged, for any membrane potential), "floor" (with its lower bound of the
            membrane potential), "no current" (only without its synaptic current), "several nodes"
            (its reset only by several nodes in a loop).
    """

    # Which files the importer reads.
    nodes: tuple[str, ...] | None = None
    ignores: Mapping[str, tuple[str, float]] = dataclasses.field(default_factory=nothing)
    lacks: tuple[Literal["dilation", "pool padding", "scalars"], ...] = ()
    torch_names: bool = True
    counts_batch: bool | None = True
    reads: Mapping[str, Any] = dataclasses.field(default_factory=nothing)
    misread: tuple[str, ...] = ()
    remarks: Callable[[Node, Dialect], Iterator[Problem]] | None = None

    # How files are written for the importer.
    write: Callable[[Any, Setting], Written] | None = None
    load: Callable[[str, Setting], str] | None = None
    run: str = ""
    setting: Callable[[Sequence[Step]], Any] | None = None
    wire: Callable[[Draft, list[Edge], bool, float], None] | None = None
    dt: float | None = 1.0

    # How the importer runs nodes.
    wiring: tuple[Literal["forks", "sums", "loops"], ...] = ("forks", "sums", "loops")
    order: Literal["", "depth first", "names", "edges"] = ""
    starts_at_reset: bool = False
    uniform: bool = False
    subtracts: tuple[Literal["at once", "later", "unless above", "several"], ...] = ()
    bursts: bool = False
    does: Callable[[Step], Iterable[Doing]] = does_nothing_more

    @property
    def continuous(self) -> bool:
        """Whether the importer solves the equations."""
        return self.dt is None

    @property
    def pool(self) -> str | None:
        """Type of pool that the importer accepts, if it accepts only one; else None."""
        pools = [kind for kind in self.nodes or () if kind in POOLS]
        return pools[0] if len(pools) == 1 else None

    def reads_type(self, kind: str) -> bool:
        """Return whether the importer accepts nodes of a type; types outside of NIR only if `nodes`
        lists them.
        """
        readable_types = TYPES if self.nodes is None else self.nodes
        return kind in readable_types


# Frameworks


@suggests_keywords
@dataclasses.dataclass(frozen=True, kw_only=True)
class Framework:
    """Description of one framework: its dialects, importers and layers.

    Attributes:
        name: Name in `dialect=` and on the command line.
        title: Name in prose.
        dialects: Conventions of the files that the framework writes, by version; the first is the
            default.
        importers: Importers by version, the newest release first; empty if there is none.
        distribution: Name of the Python package, "" if there is none.
        extra: Extra of this library that installs the framework.
        package: Top-level module of the framework, for `leaves`.
        leaves: Layers for `jaxsnn.from_torch`: class name -> function that exports one call; for a
            layer that applies another layer in each time step, the attribute with the inner layer.
        setters: Functions that set the parameters of layers from a file, for `jaxsnn.load_into`, by
            class name.
        in_time: Function that returns whether a layer receives (time, batch, *shape) and runs
            through time itself; None: no layer does.
        split_forward: Function of a layer and its forward that splits a call in two: a forward that
            returns one output per time step in one tensor, and keeps the membranes of all time steps
            if the layer can, and a function of this tensor that returns the layer's result (None: the tensor itself).
        rewind: Method of layers that resets their states; "" for layers without states.
        resettable: Names of the neuron classes that can be exported if `forward` resets them before each call.
        membranes: Attributes of layers, or of their states, that contain the membrane potentials after a call;
            "lif.v" is an attribute of an attribute.
        leaf_options: Options of `jaxsnn.nir.read` for graphs of these layers.
        surrogate: Default surrogate gradient of the neurons, in words.
        note: Note for the documentation: one or a few sentences.
    """

    name: str
    title: str
    dialects: tuple[Conventions, ...]
    importers: tuple[Importer, ...] = ()
    distribution: str = ""
    extra: str = ""
    package: str = ""
    leaves: Mapping[str, Callable[[Call], Exported] | str] = dataclasses.field(
        default_factory=nothing
    )
    setters: Mapping[str, Setter] = dataclasses.field(default_factory=nothing)
    in_time: Callable[[Any], bool] | None = None
    split_forward: Callable[[Any, Forward], tuple[Forward, Forward | None]] | None = None
    rewind: str = ""
    resettable: tuple[str, ...] = ()
    membranes: tuple[str, ...] = ()
    leaf_options: Mapping[str, Any] = dataclasses.field(default_factory=nothing)
    surrogate: str = ""
    note: str = ""

    @property
    def options(self) -> tuple[FrameworkOption, ...]:
        """Framework options of all versions, each once."""
        options_by_name = {
            option.name: option for version in self.dialects for option in version.options
        }
        return tuple(options_by_name.values())

    @property
    def writable(self) -> bool:
        """Whether a graph can be converted for the framework."""
        return any(importer.write is not None for importer in self.importers)
