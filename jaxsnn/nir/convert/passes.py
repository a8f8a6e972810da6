"""Passes of a conversion: what each requires and guarantees, and the state that they edit.

`jaxsnn.nir.convert.pipeline.PASSES` lists them in their order.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property

from jaxsnn.errors import ConversionError
from jaxsnn.nir.convert.target import Target
from jaxsnn.nir.dialects.resolve import resolve_neurons
from jaxsnn.nir.frameworks.framework import Importer
from jaxsnn.nir.frameworks.neuron_writing import Setting
from jaxsnn.nir.frameworks.registry import framework_of
from jaxsnn.nir.frameworks.source_flow import Flow
from jaxsnn.nir.frameworks.source_rule import NeuronRule
from jaxsnn.nir.frameworks.source_step import Step
from jaxsnn.nir.model.draft import NEURON_TYPES, Draft
from jaxsnn.nir.model.graph import Graph
from jaxsnn.options import APPROXIMATE
from jaxsnn.wording import Text

#: Environment variable; if it is 1, conversions check the requirements and guarantees of each pass,
#: as in tests.
CHECK_VARIABLE = "JAXSNN_CHECK_PASSES"


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConversionRequest:
    """User's request of a conversion; see `jaxsnn.nir.convert.pipeline.convert`.

    Attributes:
        dense: Whether convolutions and pools are written as matrices, and all nodes with one axis.
    """

    target: Target
    approximate: bool = False
    dt: float | None = None
    path: str = "model.nir"
    input_range: tuple[float, float] = (0.0, 1.0)
    dense: bool = False

    @property
    def importer(self) -> Importer:
        """Importer of the target."""
        return self.target.importer

    def maps(self, node_type: str) -> bool:
        """Return whether the importer supports nodes of a type."""
        return node_type in (self.importer.nodes or ())


@dataclasses.dataclass(kw_only=True, eq=False)
class Conversion:
    """State of a conversion. Passes edit it in place.

    Attributes:
        request: The user's request.
        source: The graph to convert, read with its dialect.
        draft: The graph while it is rewritten.
        draft_names: Name of the node in the draft, by its name in the source graph.
        steps: One time step of each population, by its name in the draft; for importers that step.
        flows: The equations of each population, for importers that solve equations.
        max_spikes: Largest number of spikes of a neuron per time step, by population, where it
            exceeds the limit of the importer.
        dt: The step of the target in seconds; 0 for equations.
        shift: Number of time steps by which the target emits spikes later than the source
            framework, by Output.
        setting: Settings of all written neurons; None before they are written.
        graph: The result; None until it is built.
    """

    request: ConversionRequest
    source: Graph
    draft: Draft
    draft_names: dict[str, str]
    steps: dict[str, Step] = dataclasses.field(default_factory=dict)
    flows: dict[str, Flow] = dataclasses.field(default_factory=dict)
    max_spikes: dict[str, int] = dataclasses.field(default_factory=dict)
    dt: float = 0.0
    shift: dict[str, int] = dataclasses.field(default_factory=dict)
    setting: Setting | None = None
    graph: Graph | None = None

    @cached_property
    def rules(self) -> dict[str, NeuronRule]:
        """Resolved rules of the neurons of the source graph, by name.

        Raises:
            DialectError: The dialect of the source is not known.
        """
        return resolve_neurons(self.source)

    @property
    def target(self) -> Target:
        """Target that the graph is written for."""
        return self.request.target

    @property
    def importer(self) -> Importer:
        """Importer of the target."""
        return self.request.target.importer

    @property
    def title(self) -> str:
        """Name of the target's framework in prose."""
        return self.request.target.title

    @property
    def source_title(self) -> str:
        """Name of the source's framework in prose."""
        return framework_of(self.source.dialect.name or "").title

    def give_up(self, node: str, reason: str, nearest: str) -> None:
        """Note the loss of an approximation; refuse it unless approximations are allowed.

        Args:
            node: Name of the node in the draft.
            reason: Feature that the target does not support.
            nearest: Approximation that is used instead.

        Raises:
            ConversionError: Approximations are not allowed.
        """
        if not self.request.approximate:
            raise ConversionError(
                Text("node '{node}': ", node=node) + reason,
                fix=Text(
                    "change the network, or pass {approximate} to approximate ({nearest})",
                    approximate=APPROXIMATE.set_to(True),
                    nearest=nearest,
                ),
                node=node,
            )
        self.draft.losses.append(Text("{node}: ", node=node) + reason + "; " + nearest)


@dataclasses.dataclass(frozen=True)
class Condition:
    """Condition on a conversion before or after a pass.

    Attributes:
        statement: The condition as a sentence: "no node has the type Scale".
        holds: Function that returns whether the condition holds.
    """

    statement: str
    holds: Callable[[Conversion], bool]


def always(request: ConversionRequest) -> bool:
    """Return True: every conversion needs the pass."""
    return True


@dataclasses.dataclass(frozen=True)
class ConversionPass:
    """Pass that edits a conversion.

    Attributes:
        function: Function that edits the state; its name is that of the pass, and the first
            sentence of its docstring is the description.
        requires: Conditions that must hold before the pass.
        ensures: Conditions that hold after the pass.
        when: Function that returns whether a conversion needs the pass.
    """

    function: Callable[[Conversion], None]
    requires: tuple[Condition, ...] = ()
    ensures: tuple[Condition, ...] = ()
    when: Callable[[ConversionRequest], bool] = always

    @property
    def name(self) -> str:
        """Name of the pass, a verb and an object: "set_initial_state"."""
        return self.function.__name__

    @property
    def description(self) -> str:
        """First sentence of the function's docstring."""
        paragraph = (self.function.__doc__ or "").partition("\n\n")[0]
        return " ".join(paragraph.split())


def passes_checked() -> bool:
    """Return whether conversions check the conditions of their passes."""
    return os.environ.get(CHECK_VARIABLE) == "1"


def run_passes(passes: Iterable[ConversionPass], conversion: Conversion, *, check: bool) -> None:
    """Run the passes that a conversion needs, in their order.

    Args:
        passes: All passes.
        conversion: Edited in place.
        check: Check what each pass requires before it, and what it guarantees after it.

    Raises:
        ConversionError: The importer cannot express the network.
        AssertionError: A condition does not hold: a defect of this library.
    """
    for conversion_pass in passes:
        if not conversion_pass.when(conversion.request):
            continue
        if check:
            _check(conversion_pass.requires, conversion, f"{conversion_pass.name} requires")
        conversion_pass.function(conversion)
        if check:
            # EDGES_JOIN_NODES must hold after every pass, so passes do not list it.
            _check(
                (EDGES_JOIN_NODES, *conversion_pass.ensures),
                conversion,
                f"{conversion_pass.name} ensures",
            )


def _check(conditions: Sequence[Condition], conversion: Conversion, subject: str) -> None:
    for condition in conditions:
        if not condition.holds(conversion):
            raise AssertionError(f"{subject}: {condition.statement}, which does not hold")


def without(node_type: str) -> Condition:
    """Return the condition that no node has a type."""
    return Condition(
        f"no node has the type {node_type}",
        lambda conversion: not conversion.draft.of_type(node_type),
    )


STEPS_RESOLVED = Condition(
    "the time step of every population is resolved",
    lambda conversion: set(conversion.steps) == set(conversion.draft.of_type(*NEURON_TYPES)),
)
FLOWS_RESOLVED = Condition(
    "the equations of every population are resolved",
    lambda conversion: set(conversion.flows) == set(conversion.draft.of_type(*NEURON_TYPES)),
)
EDGES_JOIN_NODES = Condition(
    "every edge connects two nodes, and no edge occurs twice",
    lambda conversion: (
        {name for edge in conversion.draft.edges for name in edge} <= {*conversion.draft.nodes}
        and len(set(conversion.draft.edges)) == len(conversion.draft.edges)
    ),
)
SHAPES_KNOWN = Condition(
    "every node has a shape",
    lambda conversion: {*conversion.draft.nodes} <= {*conversion.draft.shapes},
)
