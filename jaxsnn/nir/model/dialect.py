"""Records of what NIR files leave open: the conventions of each framework, and the `Dialect` of one
graph.

A framework writes files with conventions of its own: how a spike enters a neuron, what a reset does, in
which unit time constants are. `Conventions` describes them for one version of a framework, with one
`Rule` per type of neuron. A `Dialect` contains the conventions that were chosen for one graph.
"""

from __future__ import annotations

import dataclasses
import warnings
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
from jaxsnn.summary import summarised
from jaxsnn.wording import Option, Text, for_command_line

TimeUnit = Literal["s", "ms", "step"]
Kernel = Literal["delta", "box"]
Reset = Literal["zero", "subtract", "none"]
Initial = Literal["zero", "v_leak", "v_reset"]
Arrival = Literal["fixed", "unit", "jump", "scaled jump"]

#: Seconds per unit of time of a file; dt seconds for files in time steps.
UNIT_SECONDS: Mapping[str, float] = MappingProxyType({"s": 1.0, "ms": 1e-3})

#: Types of neurons that a framework has only if it has a rule for them.
_BUILT_IN = (*(cls.__name__ for cls in NEURONS), *EXTENSIONS)


# Conventions of files


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rule:
    """Simulation rule of one framework for one type of neuron.

    Attributes:
        arrival: Effect of a spike of weight w. "fixed": a current w of area dt, which r and w_in
            scale. "unit": the same with area 1 in the file's unit of time (the literal equations).
            "jump": the current (for a neuron without synaptic current: the membrane potential)
            increases by w, whatever r and w_in are. "scaled jump": NIR's equations for a spike of
            area tau_syn (LIF and LI: tau; IF and I: one unit of time), so that the current
            increases by w_in w, and the membrane potential of a neuron without current by r w.
        kernel: Shape of a spike in continuous time. "delta" for CubaLIF, whose current jumps in the
            frameworks, too. "box", of width dt, for LIF and IF: with deltas they could cross the
            threshold only when a spike arrives.
        membrane_decay, synapse_decay: Decay factor k (a) of one time step, as the framework
            computes it, see `jaxsnn.nir.model.decays`; None if there is no current, or for "exact".
        membrane: What one step does to V under the step's input X (of CubaLIF: its current I).
            "exact": the flow of the ODE over dt. "leak": V = k V + X. "average": V = k V + (1 - k)
            X. "euler": V = V + dt/tau (v_leak - V + X). "relax": V = V + (X - (V - v_reset)) dt/tau
            where r = 1, and V = V - (V - v_reset)/r + X elsewhere.
        synapse: What one step does to the current I. "exact": as above. "add last": I = a I + X.
            "add first": I = a (I + X). "decay last": I = I + X drives V, then I = a I. "filter":
            I = I + dt/tau_syn (v_leak - I + w_in X), from v_leak on, and r I drives V.
        resets_first: Kinds of reset that, if they act one step late, act before V decays and X is
            added; other resets act after that.
        ones: Parameters that the framework always writes as 1.
        option: Name of a boolean option of the framework on which the rule depends; "" for none.
            The rule applies if the option is true.
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
        of: Function of time constants and gains (tau or tau_mem, and r) that returns dt, element by
            element.
        synapses: Whether the relation also holds for tau_syn and w_in.
        gain: Inverse function: (time constants, dt, array module) -> gains, which follow trained
            time constants; the array module is NumPy or jax.numpy. None: the time constants cannot
            be trained.
        tau: Function (gains, dt) -> time constants, for gains with fewer digits than time
            constants.
        above_dt: Whether time constants must be longer than dt.
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
        r_of_one_is_silent: Whether r = 1 contains no information on dt, because it is also written
            for files in which the input decays.
        r_is_rate: Whether r of IF is 1/dt.
        silent: Neuron types whose parameters contain no information on dt.
        proves: Whether equal dt for all neurons, beyond coincidence, proves that the framework
            wrote the file.
        confirms: Further condition on the neurons.
        recognises: Function of the nodes by name that returns a sentence on how the file was
            recognised, or "". For frameworks that are recognised by other properties than dt.
        refutes: Function of the nodes by name and the estimated dt that returns (node, sentence) if
            the framework cannot have written the file, or None. Called after the checks of types,
            parameters of 1 and dt.
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
        kind: Kind of value: "time": seconds, or text with a unit. "bool": true or false. "number":
            a number, or "none". "choice": one of `choices`. All except times may differ by node.
        missing: Description for messages about a missing value: "the dt that was passed to Norse's
            exporter".
        fix: Advice, a template in which {option} is the option, and {true} and {false} are its
            settings; "" for "pass {option}".
        missing_reason: Sentence for `Dialect.why` if the option is not specified, a template like `fix`.
        tries: Values that `jaxsnn verify` tries if a recording differs.
        fallback: Default value and a sentence with the reason; None: the option must be specified.
            The value may be a function of the graph, which may return None.
        seconds: Function of the value that returns the seconds per unit of the file's time, if the
            option determines them.
    """

    kind: Literal["time", "bool", "number", "choice"]
    missing: str = ""
    fix: str = ""
    missing_reason: str = ""
    tries: tuple[bool | float | str, ...] = ()
    fallback: tuple[Any, str] | None = None
    seconds: Callable[[float], float] | None = None

    @property
    def advice(self) -> Text:
        """Advice to set the option, for messages."""
        return Text(
            self.fix or "pass {option}",
            option=self.keyword,
            true=self.set_to(True),
            false=self.set_to(False),
        )

    @property
    def remark(self) -> Text:
        """Note for files whose user did not set the option; may be empty."""
        return Text(self.missing_reason, option=self.keyword)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Release:
    """Properties of one version of a framework.

    Attributes:
        version: Version such as "1.0" (includes 1.0.3), or "main" (unreleased); "" if all versions
            are equal.
        after: Last release before an unreleased version. Later releases are treated like this
            version.
        ran: Whether the version was tested by running it; False: it is based on source code.
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
        name: Name of the dialect, which is that of the framework.
        reads_only: Whether the framework writes no files, so that the conventions describe how it
            runs files of others. The dialect is used only if it is specified.
        rules: Simulation rule of each neuron type that the framework writes, by NIR type.
        others: Simulation rule of registered neuron types outside of NIR; None: the framework never
            writes them.
        evidence: Criteria that recognise files of the framework.
        time_unit: Unit of the time constants; "from dt": steps where dt is 1 in the file's unit, else
            seconds.
        build_options: Options with which this library builds graphs in this dialect.
        dt: Time step of all files in seconds; None if it varies.
        reset: Default reset; "zero" sets V to v_reset, "subtract" subtracts v_threshold.
        reset_delay: Whether a spike acts on the membrane potential one time step later.
        resets_at_start: Whether a neuron that is above threshold at the beginning of a time step is
            reset then, whatever reset_delay is.
        threshold: Comparison for a spike: V > v_threshold, or V >= v_threshold.
        spikes_per_step: Spikes per neuron and time step: "one" or "several".
        spikes_from: "before": spikes of a time step depend on the membrane potential before the
            update, so that each layer delays spikes by one time step.
        initial: Initial membrane potential; for neurons without v_leak, "v_leak" means v_reset.
            Currents start at 0.
        constant_input: Effect of a bias: "current" (a constant current) or "step" (added like a
            spike in every step).
        recurrent_delay: Delay of recurrent spikes in time steps.
        importer: Version of the importer whose rules these are, if the meaning of files is defined
            only by that importer; "" if layers of the framework define it.
        loops_by_importer: Whether the importer alone defines the meaning of loops, because the
            framework writes no recurrent networks. It omits delayed inputs in the first time step,
            biases included.
        runs_loops: Order in which the importer runs nodes of a loop without a neuron; an edge is
            delayed by one time step if its target runs before its source: "depth first" from the
            Input, or "in turn", see `jaxsnn.nir.model.loops`; None: such loops are not supported,
            or the order is unknown.
        channels_last: Whether columns of the Affine after a Flatten are in height, width, channel
            order.
        meanings: Functions of a graph that yield nodes (`Node.read_as`) and edges (pairs: written,
            meant) that the framework interprets differently from its own files, each with a remark;
            they raise DialectError for graphs that the framework cannot run.
        refine: Function of the rule so far (`jaxsnn.nir.frameworks.source_rule.NeuronRule`) and the
            dialect that returns the final rule of this framework.
        options: Options of this framework that its files do not specify.
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
    # The argument is a Graph; its module imports this one, so the type cannot be named here.
    meanings: tuple[Callable[[Any], Iterator[tuple[Node | tuple[Edge, Edge], Change]]], ...] = ()
    # Takes and returns a NeuronRule, whose module imports this one.
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
        dt: Median over all neurons; None if the parameters contain no information.
        agrees: Whether dt is equal for all neurons.
        proven: Whether this exceeds coincidence, see the module.
        node: Node with the neuron that is farthest from the median.
        pair: Parameters of that neuron, for messages: "tau = 0.01 and r = 0.9".
        farthest: dt of that neuron.
    """

    dt: float | None = None
    agrees: bool = False
    proven: bool = False
    node: str = ""
    pair: str = ""
    farthest: float = np.nan

    def equals(self, other: Estimate) -> bool:
        """Return whether both have the same values; NaN equals NaN, unlike in `==`."""
        pairs = zip(dataclasses.astuple(self), dataclasses.astuple(other), strict=True)
        return all(mine == others or (mine != mine and others != others) for mine, others in pairs)


#: Reason, in `Dialect.why`, for an unknown unit of time.
NO_UNIT = Text(
    "The unit of time is not in the file: pass {time_unit}.", time_unit=TIME_UNIT.keyword
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class NodeDialect:
    """Fields of a dialect that apply to one node; None if unknown."""

    name: str | None
    reset: Reset | None
    reset_delay: bool | None
    norm_input: bool | None
    spike_kernel: Kernel | None
    initial: Initial | None
    readout: bool
    framework_options: Mapping[str, Any] = dataclasses.field(default_factory=nothing)


@summarised
@dataclasses.dataclass(frozen=True, kw_only=True)
class Dialect:
    """Decisions about the dialect of one graph. None is unknown; `why` states the reasons.

    Attributes:
        name: A key of `DIALECTS`, or None while undecided.
        version: Version of the framework that wrote the file, if it was specified: "main".
        dt: Length of a time step of the source framework in seconds.
        dt_export: Norse only: the dt that was passed to its exporter; time constants in the file
            are multiplied by it.
        time_unit: Unit of the file's time constants.
        spike_kernel: "delta", or "box" of width dt; None also where nodes differ, see `nodes`.
        reset: "zero" (V becomes v_reset), "subtract" (V loses v_threshold) or "none".
        reset_delay: Whether the reset acts one time step later.
        norm_input: Sinabs only: whether the input is scaled by 1 - exp(-1/tau).
        initial: Initial membrane potential.
        decided_by: Origin of the name.
        why: Decisions and their reasons.
        nodes: Fields that differ for a node, by name; "readout" marks a spiking node that is a
            leaky readout.
        choices: While undecided: the dialects that the parameters allow.
        framework_options: Options of the framework by name; dt_export and norm_input are fields.
        conventions: Conventions of the framework; None while undecided.

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
    framework_options: Mapping[str, Any] = dataclasses.field(default_factory=nothing)
    conventions: Conventions | None = dataclasses.field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.name != (None if self.conventions is None else self.conventions.name):
            raise UsageError(
                Text(
                    "the dialect '{dialect}' lacks the conventions of its framework",
                    dialect=self.name,
                ),
                fix=f'create it with jaxsnn.nir.dialect_of("{self.name}")',
            )

    @property
    def own(self) -> Mapping[str, Any]:
        """Deprecated name of `framework_options`."""
        message = "Dialect.own is deprecated: use Dialect.framework_options instead"
        warnings.warn(message, DeprecationWarning, stacklevel=2)
        return self.framework_options

    @property
    def fix(self) -> str:
        """Advice on how to decide the dialect; "" once it is decided."""
        if self.name is not None:
            return ""
        choices = f", one of {', '.join(self.choices)}" if self.choices else ""
        return Text("pass {dialect}{choices}", dialect=DIALECT.keyword, choices=choices)

    @property
    def unit_fix(self) -> str:
        """Advice for an unknown unit of time, followed by the other decisions in brackets."""
        rest = Text.joined("", (self.why,))
        for sentence in (NO_UNIT + " ", " " + NO_UNIT, NO_UNIT):
            rest = rest.without(sentence)
        advice = Text("pass {time_unit}", time_unit=TIME_UNIT.keyword)
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
            if field.name not in ("name", "readout", "framework_options")
        }
        framework_fields = {
            name: value for name, value in node_fields.items() if name not in (*common, "readout")
        }
        return NodeDialect(
            name=self.name,
            readout=node_fields.get("readout", False),
            framework_options={**self.framework_options, **framework_fields},
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
            if field in record.framework_options:
                return record.framework_options[field]
        return None

    def as_dict(self) -> dict[str, Any]:
        """Return the dialect as a dict for JSON, in the wording of the command line."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        del fields["conventions"]
        fields["own"] = dict(fields.pop("framework_options"))  # the key of earlier versions
        return fields | {
            "why": for_command_line(self.why),
            "fix": for_command_line(self.fix),
            "nodes": {name: dict(node_options) for name, node_options in self.nodes.items()},
            "choices": list(self.choices),
        }
