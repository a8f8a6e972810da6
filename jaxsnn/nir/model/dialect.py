"""Records of what NIR files leave open: the conventions of each framework, and the `Dialect` of one
graph.

A framework writes files with conventions of its own: how a spike enters a neuron, what a reset does, in
which unit time constants are. `Conventions` describes them for one version of a framework, with one
`Rule` per type of neuron. A `Dialect` is what was decided for one graph.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, Literal

import numpy as np

from jaxsnn.errors import UsageError
from jaxsnn.nir.model.changes import Change, Edge
from jaxsnn.nir.model.decays import EXACT_MEMBRANE, Decay
from jaxsnn.nir.model.extension_nodes import EXTENSIONS
from jaxsnn.nir.model.node import Node, nothing
from jaxsnn.nir.model.nodes import NEURONS
from jaxsnn.options import DIALECT, TIME_UNIT
from jaxsnn.wording import Option, Text, for_command_line

TimeUnit = Literal["s", "ms", "step"]
Kernel = Literal["delta", "box"]
Reset = Literal["zero", "subtract", "none"]
Initial = Literal["zero", "v_leak", "v_reset"]
Arrival = Literal["fixed", "unit", "jump", "scaled jump"]

#: Seconds in one unit of a file's time; a step lasts dt.
UNIT_SECONDS: Mapping[str, float] = MappingProxyType({"s": 1.0, "ms": 1e-3})

#: Types of neurons that a framework has only if it has a rule for them.
_BUILT_IN = (*(cls.__name__ for cls in NEURONS), *EXTENSIONS)


# What it writes


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rule:
    """Simulation rule of one framework for one type of neuron.

    Attributes:
        arrival: "fixed": a spike of weight w is a current w of area dt, so r and w_in count. "unit": the
            same of area 1 in the file's unit of time (the literal equations).
            "jump": the current (of a neuron without synaptic current: the membrane) jumps by w,
            whatever r and w_in say. "scaled jump": NIR's equations for a spike of area tau_syn
            (LIF and LI: tau; IF and I: one unit of time), so that the current jumps by w_in w, and
            the membrane of a neuron without one by r w.
        kernel: The continuous reading of a spike. The current of CubaLIF jumps in the frameworks
            too: delta. LIF and IF driven by deltas can only cross the threshold when a spike
            arrives: box of width dt.
        membrane_decay, synapse_decay: The factor k (a) of one step, as the framework computes it,
            see `jaxsnn.nir.model.decays`; None where there is no current, or where "exact"
            says it.
        membrane: What one step does to V under the step's input X (of CubaLIF: its current I).
            "exact": the flow of the ODE over dt. "leak": V = k V + X. "average": V = k V + (1 - k)
            X. "euler": V = V + dt/tau (v_leak - V + X). "relax": V = V + (X - (V - v_reset)) dt/tau
            where r = 1, and V = V - (V - v_reset)/r + X elsewhere.
        synapse: What one step does to the current I. "exact": as above. "add last": I = a I + X.
            "add first": I = a (I + X). "decay last": I = I + X drives V, then I = a I. "filter":
            I = I + dt/tau_syn (v_leak - I + w_in X), from v_leak on, and r I drives V.
        resets_first: The kinds of reset that, acting one step late, act before V decays and X is
            added; else after.
        ones: Parameters that the framework always writes as 1.
        option: Name of an own option (true or false) on which the rule depends; "" if on none. The
            rule holds if it is true.
        without: The rule if that option is false.
    """

    arrival: Arrival = "fixed"
    kernel: Kernel = "delta"
    membrane_decay: Decay = EXACT_MEMBRANE
    synapse_decay: Decay | None = None
    membrane: Literal["exact", "leak", "average", "euler", "relax"] = "exact"
    synapse: Literal["exact", "add last", "add first", "decay last", "filter"] = "exact"
    resets_first: tuple[Reset, ...] = ()
    ones: tuple[str, ...] = ()
    option: str = ""
    without: Rule | None = None

    @property
    def leaks_to_zero(self) -> bool:
        """Whether V decays to 0, independent of v_leak."""
        return self.membrane in ("leak", "average")


@dataclasses.dataclass(frozen=True, kw_only=True)
class StepLength:
    """Relation between a framework's dt and the numbers that it writes.

    Attributes:
        text: The formula, for messages: "tau/r".
        of: (time constants, gains) -> dt, element by element: tau or tau_mem and r.
        synapses: The relation holds for tau_syn and w_in too.
        gain: (time constants, dt, array module) -> gains, the inverse, by which the gains follow
            time constants that are trained; the array module is NumPy or jax.numpy. None: they
            cannot be trained.
        tau: (gains, dt) -> time constants, where gains have fewer digits than these.
        above_dt: Time constants must be longer than dt.
    """

    text: str
    of: Callable[[np.ndarray, np.ndarray], np.ndarray] = dataclasses.field(repr=False)
    synapses: bool = False
    gain: Callable[[Any, Any, Any], Any] | None = dataclasses.field(default=None, repr=False)
    tau: Callable[[Any, Any], Any] | None = dataclasses.field(default=None, repr=False)
    above_dt: bool = False

    def __str__(self) -> str:
        return self.text


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evidence:
    """Criteria that recognise a framework's files by their numbers.

    Attributes:
        dt_from: Relation between dt and the numbers.
        r_of_one_is_silent: r = 1 says nothing about dt, because it also writes files in which the
            input decays.
        r_is_rate: r of IF is 1/dt.
        silent: Types of neurons whose numbers say nothing about dt.
        proves: One dt for all neurons, more than a coincidence, proves that it wrote the file.
        confirms: Further condition on the neurons.
        recognises: The nodes by name -> a sentence that says by what a file is recognised, or ""
            where it is not. For a framework that is known by other things than its dt.
        refutes: (nodes by name, what was found of dt) -> why it cannot have written the file, as
            (node, sentence), or None. Asked after types, parameters of 1 and dt.
    """

    dt_from: StepLength | None = None
    r_of_one_is_silent: bool = False
    r_is_rate: bool = False
    silent: tuple[str, ...] = ()
    proves: bool = False
    confirms: Callable[[Mapping[str, Node]], bool] | None = None
    recognises: Callable[[Mapping[str, Node]], str] | None = None
    refutes: Callable[[Mapping[str, Node], Estimate], tuple[str, str] | None] | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class FrameworkOption(Option):
    """Option that the files of one framework leave open, and that no other framework has: a keyword
    of `jaxsnn.nir.read` and an option of each command that reads a file.

    Attributes:
        kind: "time": seconds, or text with a unit. "bool": true or false. "number": a number, or
            "none". "choice": one of `choices`. All but times may differ by node.
        missing: Description for messages that ask for it: "the dt that Norse's exporter was given".
        fix: What to do then, a template in which {option} is the option, {true} and {false} set it; "" for
            "say {option}".
        unsaid: A sentence for `Dialect.why` while nobody has said it, a template as `fix`.
        tries: What `jaxsnn verify` tries where a recording does not verify, likely ones.
        fallback: The value where nobody says another, with a sentence that says why; None: it must be
            said. The value may be a function of the graph, which returns None likewise.
        seconds: Value -> seconds in one unit of the file's time, where the option tells these.
    """

    kind: Literal["time", "bool", "number", "choice"]
    missing: str = ""
    fix: str = ""
    unsaid: str = ""
    tries: tuple[bool | float | str, ...] = ()
    fallback: tuple[Any, str] | None = None
    seconds: Callable[[float], float] | None = None

    @property
    def advice(self) -> Text:
        """Advice to set the option, for messages."""
        return Text(
            self.fix or "say {option}",
            option=self.keyword,
            true=self.set_to(True),
            false=self.set_to(False),
        )

    @property
    def remark(self) -> Text:
        """Note for files whose user did not set the option; may be empty."""
        return Text(self.unsaid, option=self.keyword)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Release:
    """A version of a framework, of which something is known.

    Attributes:
        version: "1.0" (with all that begins so, 1.0.3), "main" (what is not released); "" where all
            versions are alike.
        after: Of an unreleased version: the last release before it. Any later release is taken for
            this one.
        ran: The version was run; False: it is known by its source.
    """

    version: str = ""
    after: str = ""
    ran: bool = True

    @property
    def released(self) -> bool:
        """Whether a release with this version exists."""
        return not self.after


@dataclasses.dataclass(frozen=True, kw_only=True)
class Conventions(Release):
    """Conventions of the files of one framework; None for properties that its files leave open.

    Attributes:
        name: Name of the dialect: that of the framework.
        reads_only: It writes no files: this is how it runs those of others. No file is taken for
            its own unless that is said.
        rules: Simulation rule of each type of neuron that it writes, by NIR type.
        others: Simulation rule of types of neurons that NIR does not have, and that are registered
            from outside; None: it never writes one.
        evidence: Criteria that recognise its files.
        time_unit: Unit of the time constants; "from dt": steps where dt is 1 in the file's unit, else
            seconds.
        build_options: Options with which this library itself builds graphs in this dialect.
        dt: The step that it always writes with, in seconds.
        reset: Its default reset; "zero" puts V to v_reset, "subtract" takes v_threshold off.
        reset_delay: True: a spike acts on the membrane one step later.
        resets_at_start: A neuron that is above threshold when a step begins is reset then, whatever
            reset_delay is.
        threshold: Spike where V > v_threshold, or already where they are equal.
        spikes_per_step: "one" or "several".
        spikes_from: "before": the spike of a step is that of the membrane before the step's update,
            so that each layer takes a step.
        initial: Membrane at the start; "v_leak" of neurons without one is v_reset. Currents start at 0.
        constant_input: Effect of a bias: "current" (a constant current) or "step" (added like a
            spike in every step).
        recurrent_delay: Steps that a recurrent spike takes.
        importer: Version of its importer, where these are the rules by which that importer runs
            files, and nothing else says what they mean; "" where its own layers do.
        loops_by_importer: It writes no recurrent networks: what loops do is what its importer makes
            of them, which leaves what comes a step later out of the first step, biases included.
        runs_loops: Order in which its importer runs nodes of a loop without a neuron, in which a step
            passes where a node runs before its source: "depth first" from the Input, or "in turn",
            see `jaxsnn.nir.model.loops`; None: it runs no such loops, or nobody knows.
        channels_last: Columns of the Affine after a Flatten are in height, width, channel order.
        meanings: What the framework does not take as it wrote it, as it takes it, each with what to
            say of it: nodes (`Node.read_as`), and edges as pairs (written, meant). Called with a graph;
            they raise DialectError for one that the framework cannot run.
        refine: What only this framework does to a neuron: called with the rule that all else makes of it
            (`jaxsnn.nir.frameworks.source_rule.NeuronRule`) and the dialect; returns the rule that holds.
        options: Options that only this framework has and its files leave open.
    """

    name: str
    reads_only: bool = False
    rules: Mapping[str, Rule]
    others: Rule | None = None
    evidence: Evidence = dataclasses.field(default_factory=Evidence)
    time_unit: TimeUnit | Literal["from dt"] | None = None
    build_options: Mapping[str, Any] = dataclasses.field(default_factory=nothing)
    dt: float | None = None
    reset: Reset | None = None
    reset_delay: bool | None = None
    resets_at_start: bool = False
    threshold: Literal[">", ">="] = ">"
    spikes_per_step: Literal["one", "several"] = "one"
    spikes_from: Literal["before", "after"] = "after"
    initial: Initial = "zero"
    constant_input: Literal["current", "step"] = "step"
    recurrent_delay: int = 1
    importer: str = ""
    loops_by_importer: bool = False
    runs_loops: Literal["depth first", "in turn"] | None = None
    channels_last: bool = False
    # They take a Graph, which holds a Dialect and therefore cannot be named here.
    meanings: tuple[Callable[[Any], Iterator[tuple[Node | tuple[Edge, Edge], Change]]], ...] = ()
    # A NeuronRule and the dialect; the record is made of those here and therefore cannot be named.
    refine: Callable[[Any, Dialect], Any] | None = None
    options: tuple[FrameworkOption, ...] = ()

    @property
    def unit_option(self) -> FrameworkOption | None:
        """Option that specifies the file's unit of time, if there is one."""
        return next((option for option in self.options if option.seconds is not None), None)

    def rule(self, kind: str) -> Rule | None:
        """Return the simulation rule for a type of neuron; None for types that the framework never
        writes.
        """
        return self.rules.get(kind, None if kind in _BUILT_IN else self.others)


def rules(**by_type: Rule) -> Mapping[str, Rule]:
    """Return rules by NIR type as a read-only mapping."""
    return MappingProxyType(by_type)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Estimate:
    """The dt, in the file's unit of time, that one formula finds in a file.

    Attributes:
        dt: Median over all neurons; None where nothing can be said.
        agrees: All neurons give the same dt.
        proven: More than a coincidence, see the module.
        node: The node with the neuron that is farthest from the median.
        pair: Its numbers, for messages: "tau = 0.01 and r = 0.9".
        farthest: Its dt.
    """

    dt: float | None = None
    agrees: bool = False
    proven: bool = False
    node: str = ""
    pair: str = ""
    farthest: float = np.nan


#: How `Dialect.why` says that the unit of time is unknown.
NO_UNIT = Text("The unit of time is not in the file: say {time_unit}.", time_unit=TIME_UNIT.keyword)


@dataclasses.dataclass(frozen=True, kw_only=True)
class NodeDialect:
    """The fields of a dialect that hold for one node; None is unknown."""

    name: str | None
    reset: Reset | None
    reset_delay: bool | None
    norm_input: bool | None
    spike_kernel: Kernel | None
    initial: Initial | None
    readout: bool
    own: Mapping[str, Any] = dataclasses.field(default_factory=nothing)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Dialect:
    """Decisions about the dialect of one graph. None is unknown; `why` states the reasons.

    Attributes:
        name: A key of `DIALECTS`, or None while undecided.
        version: Version of the framework that wrote the file, if it was specified: "main".
        dt: Length of a step of the source, seconds.
        dt_export: Norse only: the dt that its exporter was given; time constants in the file are
            true ones times this.
        time_unit: Unit of the file's time constants.
        spike_kernel: "delta", or "box" of width dt; None also where nodes differ, see `nodes`.
        reset: "zero" (V becomes v_reset), "subtract" (V loses v_threshold) or "none".
        reset_delay: True: the reset acts one step later.
        norm_input: Sinabs only: the input is scaled by 1 - exp(-1/tau).
        initial: Membrane at the start.
        decided_by: Origin of the name.
        why: Decisions and their reasons, with the numbers.
        nodes: Fields that differ for a node, by name; "readout" marks a spiking node that is a
            leaky readout.
        choices: While undecided: the dialects that the numbers allow.
        own: Own options of the framework, by name; dt_export and norm_input are fields.
        conventions: Those of the framework; None while undecided.

    Raises:
        UsageError: The conventions are missing, or those of another framework.
    """

    name: str | None = None
    version: str | None = None
    dt: float | None = None
    dt_export: float | None = None
    time_unit: TimeUnit | None = None
    spike_kernel: Kernel | None = None
    reset: Reset | None = None
    reset_delay: bool | None = None
    norm_input: bool | None = None
    initial: Initial | None = None
    decided_by: Literal["argument", "metadata", "inference", "undecided"] = "undecided"
    why: str = ""
    nodes: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=nothing)
    choices: tuple[str, ...] = ()
    own: Mapping[str, Any] = dataclasses.field(default_factory=nothing)
    conventions: Conventions | None = dataclasses.field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.name != (None if self.conventions is None else self.conventions.name):
            raise UsageError(
                Text(
                    "the dialect '{dialect}' lacks the conventions of its framework",
                    dialect=self.name,
                ),
                fix=f'make it with jaxsnn.nir.dialect_of("{self.name}")',
            )

    @property
    def fix(self) -> str:
        """Advice while the name is undecided; "" once it is decided."""
        if self.name is not None:
            return ""
        choices = f", one of {', '.join(self.choices)}" if self.choices else ""
        return Text("say {dialect}{choices}", dialect=DIALECT.keyword, choices=choices)

    @property
    def unit_fix(self) -> str:
        """Advice while the unit of time is unknown, and the other decisions."""
        rest = Text.joined("", (self.why,))
        for sentence in (NO_UNIT + " ", " " + NO_UNIT, NO_UNIT):
            rest = rest.without(sentence)
        advice = Text("say {time_unit}", time_unit=TIME_UNIT.keyword)
        return advice + Text(" ({rest})", rest=rest) if rest else advice

    @property
    def undecided(self) -> str:
        """Phrase for messages: the dialect of the file, with the reason why it is unknown."""
        why = Text.joined("", (self.why,)).without_end(" .")
        return (
            Text("the dialect of the file ({why})", why=why) if why else "the dialect of the file"
        )

    @property
    def seconds(self) -> float | None:
        """Number of seconds in one unit of the file's time constants (for Norse including
        dt_export); None if unknown.
        """
        conventions = self.conventions
        unit_option = None if conventions is None else conventions.unit_option
        if unit_option is not None and unit_option.seconds is not None:
            value = self.option(unit_option.name)
            return None if value is None else unit_option.seconds(value)
        return self.dt if self.time_unit == "step" else UNIT_SECONDS.get(self.time_unit or "")

    def at(self, node: str) -> NodeDialect:
        """Return the fields of one node: its own value if it has one, else the common one.

        >>> dialect = Dialect(reset="zero", nodes={"3": {"readout": True, "reset": "none"}})
        >>> dialect.at("1").reset, dialect.at("3").reset
        ('zero', 'none')
        """
        node_fields = self.nodes.get(node, {})
        common = {
            field.name: node_fields.get(field.name, getattr(self, field.name))
            for field in dataclasses.fields(NodeDialect)
            if field.name not in ("name", "readout", "own")
        }
        framework_fields = {
            name: value for name, value in node_fields.items() if name not in (*common, "readout")
        }
        return NodeDialect(
            name=self.name,
            readout=node_fields.get("readout", False),
            own={**self.own, **framework_fields},
            **common,
        )

    def option(self, field: str, node: str | None = None) -> Any:
        """Return the value of a field or framework option; None if it is unknown.

        Args:
            field: Name of the field; common fields are allowed for nodes, too.
            node: Name of the node; None for the common value.
        """
        records = (self,) if node is None else (self.at(node), self)
        for record in records:
            if hasattr(record, field):
                return getattr(record, field)
            if field in record.own:
                return record.own[field]
        return None

    def as_dict(self) -> dict[str, Any]:
        """Return the dialect as a dict for JSON, in the wording of the command line."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        del fields["conventions"]
        return fields | {
            "why": for_command_line(self.why),
            "fix": for_command_line(self.fix),
            "nodes": {name: dict(node_options) for name, node_options in self.nodes.items()},
            "choices": list(self.choices),
            "own": dict(self.own),
        }
