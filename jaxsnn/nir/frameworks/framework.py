"""The records of which the knowledge of a framework is made: `Framework` and its parts.

A framework writes NIR files (its conventions, by version), reads them (its importers, by version),
and may have layers that `from_torch` takes. Whoever adds one writes one file with one `Framework`,
and registers it: `jaxsnn.nir.frameworks.registry.register_framework`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

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

#: How neurons of an importer do a step, see `Importer.does`.
Doing = Literal["any height", "floor", "no current", "several nodes"]

# What it reads


def does_nothing_more(step: Step) -> Iterable[Doing]:
    """Return that an importer does steps whose membranes are bounded, with their current."""
    return ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Importer(Release):
    """One version of a framework's own importer of NIR files.

    With `write` and `load`, `jaxsnn.nir.convert.pipeline` writes for it; without, it is known by its rules
    alone, and a file can only be checked.

    Attributes:
        nodes: Types that it takes, Input and Output included; None: all of NIR.
        ignores: Parameters that it does not read, by type, with the value that it takes for them.
        lacks: What it ignores, or fails on: "dilation" of convolutions, "pool padding", "scalars"
            (parameters that are one number for all neurons).
        torch_names: It registers nodes as modules of PyTorch, so that some names are taken.
        counts_batch: True: the axes of a Flatten are counted from that of batch; False: from the
            one behind it; None: it joins all axes, whatever the Flatten says.
        reads: Values that it assumes for unspecified properties, as fields of `Dialect`.
        misread: Types that it reads otherwise than files of its framework mean them: a file with
            them is in no dialect.
        remarks: Warnings of what is read, but not as it was written: called with a node and the
            dialect.
        write: Writes one neuron.
        load: The line of Python that loads a file: called with its path and the `Setting`. It
            defines `net`.
        run: The lines that run all steps of what was loaded, on x; a comment says its axes.
        setting: What holds for all neurons of a file, from their steps; for `write` and `load` in
            `Setting.own`.
        wire: Gives a draft the nodes, edges and names that it needs: called with the draft, the
            edges from weights to neuron of its loops, whether layers take a step here and took none
            in the source, and dt.
        dt: The step that it assumes where the line that loads a file sets none, seconds; with `dt` in
            `reads`, the only one. None: it solves the equations, and `write` takes a
            `jaxsnn.nir.frameworks.source_flow.Flow`.
        wiring: What it runs beside a chain of nodes: "forks" (several targets of a node), "sums"
            (several sources, recurrent ones aside), "loops".
        order: In which it runs nodes, where the file must follow it: "depth first" from the Input,
            by their "names", or by the "edges" as listed.
        starts_at_reset: Its membranes start where they reset, its currents at 0. Where the source
            starts elsewhere, IF neurons that feed themselves are added, so it must have them.
        uniform: It takes one time constant for all neurons of a node.
        subtracts: How its neurons can subtract their threshold: "at once", "later" (in the next step,
            after decaying), "unless above" (at once, but a membrane that was above threshold before
            counts as reset already); "several": as often in a step as it fits into the membrane.
            Without "several", copies of a neuron share its spikes, and another subtraction is written
            as one of these and weights from the neurons to themselves.
        bursts: Its neurons fire as many spikes in a step as thresholds fit into their membranes.
        does: How its neurons do a step of the source, as some of these: "any height" (as it is,
            however high membranes reach), "floor" (with its lower bound of the membrane), "no current"
            (only without its synaptic current), "several nodes" (its reset only by several nodes
            together, which a loop joins).
    """

    # What it reads.
    nodes: tuple[str, ...] | None = None
    ignores: Mapping[str, tuple[str, float]] = dataclasses.field(default_factory=nothing)
    lacks: tuple[Literal["dilation", "pool padding", "scalars"], ...] = ()
    torch_names: bool = True
    counts_batch: bool | None = True
    reads: Mapping[str, Any] = dataclasses.field(default_factory=nothing)
    misread: tuple[str, ...] = ()
    remarks: Callable[[Node, Dialect], Iterator[Problem]] | None = None

    # How files are written for it.
    write: Callable[[Any, Setting], Written] | None = None
    load: Callable[[str, Setting], str] | None = None
    run: str = ""
    setting: Callable[[Sequence[Step]], Any] | None = None
    wire: Callable[[Draft, list[Edge], bool, float], None] | None = None
    dt: float | None = 1.0

    # How it runs them.
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


# All of it


@dataclasses.dataclass(frozen=True, kw_only=True)
class Framework:
    """Description of one framework: its dialects, importers and layers.

    Attributes:
        name: Name in `dialect=` and on the command line.
        title: Name in prose.
        dialects: The conventions of the files that it writes, by version; the first is the one that
            is meant where no version is said.
        importers: Its importers by version, the newest release first; empty where nothing is known
            of one.
        distribution: Name under which it is installed, "" if it is not a Python package.
        extra: The extra of this library that installs it.
        package: Its top-level module, for `leaves`.
        leaves: Its layers for `jaxsnn.from_torch`: name of a class -> what exports one call; of one that
            applies another layer in each time step, the attribute that holds that layer.
        setters: Functions that set the parameters of its layers from a file, for
            `jaxsnn.load_into`, by name of the class.
        in_time: layer -> whether it takes (time, batch, *shape) and runs through time itself; None:
            none does.
        rewind: Method of its layers that puts their states to the start; "" where they keep none.
        membranes: Attributes of its layers, or of their states, that are their membranes after a call;
            "lif.v" is an attribute of an attribute.
        leaf_options: Options of `jaxsnn.nir.read` for graphs of these layers.
        surrogate: The derivative of a spike that its neurons have by default, in words.
        note: Further note for the documentation: one sentence.
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
    rewind: str = ""
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
