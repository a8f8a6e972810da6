"""The records of which the knowledge of a framework is made: `Framework` and its parts.

A framework writes NIR files (its conventions, by version), reads them (its importers, by version),
and may have layers that `from_torch` takes. Whoever adds one writes one file with one `Framework`,
and registers it: `jaxsnn.nir.frameworks.registry.register_framework`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

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

from jaxsnn.nir.model.dialect import Conventions, FrameworkOption

# What it reads


@dataclasses.dataclass(frozen=True, kw_only=True)
class Importer:
    """One version of a framework's own importer of NIR files.

    With `write` and `load`, `jaxsnn.nir.convert.pipeline` writes for it; without, it is known by its rules
    alone, and a file can only be checked.

    Attributes:
        version: "1.0" (with all that begins so, 1.0.3), or "main": what is not released.
        after: Of an unreleased version: the last release before it. Any later release is read as
            this one.
        ran: What is said of it was run; False: it is known by its source.
        nodes: Types that it takes, Input and Output included; None: all of NIR.
        ignores: Parameters that it does not read, by type, with the value that it takes for them.
        scalars: It takes parameters that are one number for all neurons.
        torch_names: It registers nodes as modules of PyTorch, so that some names are taken.
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
        dt: The step that it assumes where it cannot be told another, seconds.
        fixed_dt: It cannot be told another.
        pool: The kind of pool that it takes.
        pads_pools: It pads pools as the file says.
        dilates: It takes the dilation of convolutions.
        counts_batch: True: the axes of a Flatten are counted from that of batch; False: from the
            one behind it; None: it joins all axes, whatever the Flatten says.
        chain: It runs one chain of nodes only.
        sums: It adds several inputs to a node, recurrent ones aside.
        depth_first: It runs nodes depth first, so that sources must be made to run before what sums
            them.
        longer_loops: It fails on loops of two nodes, and runs longer ones.
        starts_at_reset: Its membranes start where they reset, its currents at 0. Where the source
            starts elsewhere, IF neurons that feed themselves are added, so it must have them.
        uniform: It takes one time constant for all neurons of a node.
        subtracts: Its neurons can subtract their threshold, so that copies can share several spikes
            in a step.
        subtraction: When its neurons can subtract their threshold, if nothing else differs: "at once",
            "later" (in the next step, after decaying), "unless above" (at once, but a membrane that
            was above threshold before counts as reset already); other subtractions are written as
            the first of these and weights from the neurons to themselves.
        apart: Steps with a current that it can do only without one.
        composes: Resets of `jaxsnn.nir.frameworks.source_step` that several of its nodes can do together, because
            it runs loops through many.
        by_name: It runs nodes in the order of their names.
        edges_in_order: It follows the edges in the order of the file, so that sources must be first.
        does: Steps that its neurons do as they are, however high their membranes reach.
        continuous: It solves the equations: `write` takes a `jaxsnn.nir.frameworks.source_flow.Flow`.
        bursts: Its neurons fire as many spikes in a step as thresholds fit into their membranes.
        floors: Steps whose lower bound of the membrane its neurons have; None: of none.
        feeds_back: It runs loops.
        membranes: It has neurons that give their membranes.
        reads: What it makes of what a file does not say, as fields of `Dialect`.
        misread: Types that it reads otherwise than files of its framework mean them: a file with
            them is in no dialect.
    """

    version: str
    after: str = ""
    ran: bool = True
    nodes: tuple[str, ...] | None = None
    ignores: Mapping[str, tuple[str, float]] = dataclasses.field(default_factory=nothing)
    scalars: bool = True
    torch_names: bool = True
    remarks: Callable[[Node, Dialect], Iterator[Problem]] | None = None
    write: Callable[[Any, Setting], Written] | None = None
    load: Callable[[str, Setting], str] | None = None
    run: str = ""
    setting: Callable[[Sequence[Step]], Any] | None = None
    wire: Callable[[Draft, list[Edge], bool, float], None] | None = None
    dt: float = 1.0
    fixed_dt: bool = False
    pool: str | None = None
    pads_pools: bool = True
    dilates: bool = True
    counts_batch: bool | None = True
    chain: bool = False
    sums: bool = True
    depth_first: bool = False
    longer_loops: bool = False
    starts_at_reset: bool = False
    uniform: bool = False
    subtracts: bool = False
    subtraction: tuple[Literal["at once", "later", "unless above"], ...] | None = None
    apart: Callable[[Step], bool] | None = None
    composes: tuple[Literal["subtract unless above", "skip"], ...] = ()
    by_name: bool = False
    edges_in_order: bool = False
    does: Callable[[Step], bool] | None = None
    continuous: bool = False
    bursts: bool = False
    floors: Callable[[Step], bool] | None = None
    feeds_back: bool = True
    membranes: bool = False
    reads: Mapping[str, Any] = dataclasses.field(default_factory=nothing)
    misread: tuple[str, ...] = ()

    @property
    def released(self) -> bool:
        """There is a release that has it."""
        return not self.after

    def reads_type(self, kind: str) -> bool:
        """Whether it takes nodes of a type; one that NIR does not have only if `nodes` has it."""
        readable_types = TYPES if self.nodes is None else self.nodes
        return kind in readable_types


# All of it


@dataclasses.dataclass(frozen=True, kw_only=True)
class Framework:
    """All that is known of one framework.

    Attributes:
        name: As in `dialect=` and on the command line.
        title: As people write it.
        dialects: The conventions of the files that it writes, by version; the first is the one that
            is meant where no version is said.
        importers: Its importers by version, the newest release first; empty where nothing is known
            of one.
        distribution: Name under which it is installed, "" if it is not a Python package.
        extra: The extra of this library that installs it.
        package: Its top-level module, for `leaves`.
        leaves: Its layers for `jaxsnn.from_torch`: name of a class -> what exports one call.
        setters: What puts the numbers of a file into its layers, for `jaxsnn.load_into`: name of a
            class -> function.
        wrappers: Its layers that apply another layer in each time step: name of a class -> the attribute
            that holds that layer.
        in_time: layer -> whether it takes (time, batch, *shape) and runs through time itself; None:
            none does.
        rewind: Method of its layers that puts their states to the start; "" where they keep none.
        membranes: Attributes of its layers that are their membranes after a call.
        leaf_options: Options of `jaxsnn.nir.read` for graphs of these layers.
        surrogate: The derivative of a spike that its neurons have by default, in words.
        note: What must be known beside the numbers, for the documentation: one sentence.
    """

    name: str
    title: str
    dialects: tuple[Conventions, ...]
    importers: tuple[Importer, ...] = ()
    distribution: str = ""
    extra: str = ""
    package: str = ""
    leaves: Mapping[str, Callable[[Call], Exported]] = dataclasses.field(default_factory=nothing)
    setters: Mapping[str, Setter] = dataclasses.field(default_factory=nothing)
    wrappers: Mapping[str, str] = dataclasses.field(default_factory=nothing)
    in_time: Callable[[Any], bool] | None = None
    rewind: str = ""
    membranes: tuple[str, ...] = ()
    leaf_options: Mapping[str, Any] = dataclasses.field(default_factory=nothing)
    surrogate: str = ""
    note: str = ""

    @property
    def options(self) -> tuple[FrameworkOption, ...]:
        """The own options of all versions, each once."""
        options_by_name = {
            option.name: option for version in self.dialects for option in version.options
        }
        return tuple(options_by_name.values())

    @property
    def writable(self) -> bool:
        """Whether a graph can be converted for it."""
        return any(importer.write is not None for importer in self.importers)
