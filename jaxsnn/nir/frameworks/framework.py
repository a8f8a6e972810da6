"""The records of which the knowledge of a framework is made: `Framework` and its parts.

A framework writes NIR files (its conventions, by version), reads them (its importers, by version),
and may have layers that `from_torch` takes. Whoever adds one writes one file with one `Framework`,
and registers it: `jaxsnn.nir.frameworks.registry.register_framework`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from jaxsnn.nir.frameworks.decays import EXACT_MEMBRANE, Decay
from jaxsnn.nir.nodes import NEURONS, TYPES, nothing

if TYPE_CHECKING:
    from jaxsnn.errors import Problem
    from jaxsnn.nir.convert.draft import Draft
    from jaxsnn.nir.convert.neuron_writing import Setting, Written
    from jaxsnn.nir.convert.step import Step
    from jaxsnn.nir.dialects import Dialect
    from jaxsnn.nir.evidence import Estimate
    from jaxsnn.nir.graph import Change, Edge, Graph
    from jaxsnn.nir.nodes import Node
    from jaxsnn.nir.torch_leaves import Call, Exported, Setter

TimeUnit = Literal["s", "ms", "step"]
Kernel = Literal["delta", "box"]
Reset = Literal["zero", "subtract", "none"]
Initial = Literal["zero", "v_leak", "v_reset"]
Arrival = Literal["fixed", "jump", "scaled jump"]

#: Seconds in one unit of a file's time; a step lasts dt.
UNIT_SECONDS: Mapping[str, float] = MappingProxyType({"s": 1.0, "ms": 1e-3})

_NIR_NEURONS = tuple(cls.__name__ for cls in NEURONS)


# What it writes


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rule:
    """How one framework simulates one type of neuron.

    Attributes:
        arrival: "fixed": a spike of weight w is a current w of area dt, so r and w_in count.
            "jump": the current (of a neuron without synaptic current: the membrane) jumps by w,
            whatever r and w_in say. "scaled jump": NIR's equations for a spike of area tau_syn
            (LIF and LI: tau; IF and I: one unit of time), so that the current jumps by w_in w, and
            the membrane of a neuron without one by r w.
        kernel: The continuous reading of a spike. The current of CubaLIF jumps in the frameworks
            too: delta. LIF and IF driven by deltas can only cross the threshold when a spike
            arrives: box of width dt.
        membrane_decay, synapse_decay: The factor k (a) of one step, as the framework computes it,
            see `jaxsnn.nir.frameworks.decays`; None where there is no current, or where "exact"
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
        recurrent_resets_first: The same for a neuron that feeds itself; None: no difference.
        recurrent_reset_delay: What reset_delay is for a neuron that feeds itself, whatever was said
            (snnTorch 1.0.0 computes the immediate reset of its RSynaptic and drops it); None: what
            was said.
        initial: Where V starts, if not where the conventions say.
        resistance: "file" or "tau/dt": r as the file has it, or what the framework does in spite of
            it.
        ones: Parameters that it always writes as 1.
        equal: Pairs of parameters that it always writes alike.
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
    recurrent_resets_first: tuple[Reset, ...] | None = None
    recurrent_reset_delay: bool | None = None
    initial: Initial | None = None
    resistance: Literal["file", "tau/dt"] = "file"
    ones: tuple[str, ...] = ()
    equal: tuple[tuple[str, str], ...] = ()
    option: str = ""
    without: Rule | None = None

    @property
    def leaks_to_zero(self) -> bool:
        """Whether V decays to 0, whatever v_leak is."""
        return self.membrane in ("leak", "average")


@dataclasses.dataclass(frozen=True, kw_only=True)
class StepLength:
    """How a framework ties its dt to the numbers that it writes.

    Attributes:
        text: The formula, for messages: "tau/r".
        of: (time constants, gains) -> dt, element by element: tau or tau_mem and r.
        synapses: It holds for tau_syn and w_in too.
        gain: (time constants, dt, array module) -> gains, the inverse, by which the gains follow
            time constants that are trained; the array module is NumPy or jax.numpy. None: they
            cannot be trained.
        tau: (gains, dt) -> time constants, where gains have fewer digits than these.
        above_dt: Time constants that are no longer than dt make no sense.
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
    """How to recognise files of a framework by their numbers.

    Attributes:
        dt_from: How dt follows from the numbers.
        r_of_one_is_silent: r = 1 says nothing about dt, because it also writes files in which the
            input decays.
        r_is_rate: r of IF is 1/dt.
        silent: Types of neurons whose numbers say nothing about dt.
        proves: One dt for all neurons, more than a coincidence, proves that it wrote the file.
        confirms: What must hold of the neurons besides.
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
class OwnOption:
    """Something that the files of one framework leave open, and no other framework has.

    Attributes:
        name: Keyword of `jaxsnn.nir.read`; the command line writes "-" for "_".
        kind: "time": seconds, or text with a unit. "bool": true or false. "number": a number, or
            "none". "choice": one of `choices`. All but times may differ by node.
        help: For the help of the command line: "Norse: the dt that its exporter was given".
        missing: What a message names where it is needed: "the dt that Norse's exporter was given".
        fix: What to say then; "" for "say NAME=".
        unsaid: A sentence for `Dialect.why` while nobody has said it.
        choices: The values of a "choice".
        tries: What `jaxsnn verify` tries where a recording does not verify, likely ones.
    """

    name: str
    kind: Literal["time", "bool", "number", "choice"]
    help: str
    missing: str = ""
    fix: str = ""
    unsaid: str = ""
    choices: tuple[str, ...] = ()
    tries: tuple[bool | float | str, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Conventions:
    """What one framework means by the files that it writes; None where its files leave it open.

    Attributes:
        name: Name of the dialect: that of the framework.
        version: Of the framework: "1.0" (with all that begins so, 1.0.3), "main" (what is not
            released); "" where all files of it mean the same.
        after: Of an unreleased version: the last release before it. Any later release is read as
            this one.
        ran: What is said of it was run; False: it is known by its source.
        reads_only: It writes no files: this is how it runs those of others. No file is taken for
            its own unless that is said.
        rules: How it simulates each type of neuron that it writes, by NIR type.
        others: How it simulates types of neurons that NIR does not have, and that are registered
            from outside; None: it never writes one.
        evidence: How its files are recognised.
        time_unit: Unit of the time constants.
        time_unit_from_dt: A dt of 1 in the file's unit means that it counts time in steps; any
            other, that it writes seconds.
        build_options: Options with which this library itself builds graphs in this dialect.
        seconds: Seconds in one unit of the file's time where an own option tells them.
        seconds_option: Name of that option.
        dt: The step that it always writes with, in seconds.
        area: A spike of weight 1 that is a current lasts "dt", or the file's unit of time, "unit"
            (the literal equations).
        reset: Its default reset; "zero" puts V to v_reset, "subtract" takes v_threshold off.
        reset_delay: True: a spike acts on the membrane one step later.
        resets_at_start: A neuron that is above threshold when a step begins is reset then, whatever
            reset_delay is.
        detaches_resets: Its gradients leave out the resets that act when a step begins.
        threshold: Spike where V > v_threshold, or already where they are equal.
        spikes_per_step: "one" or "several".
        spikes_option: Name of the own option, "multi" or "single", that says otherwise; "" for
            none.
        floor_option: Name of the own option, a number, below which V never is at the end of a step;
            "" for none.
        spikes_from: "before": the spike of a step is that of the membrane before the step's update,
            so that each layer takes a step.
        initial: Membrane at the start. Currents start at 0.
        constant_input: What a bias does: "current" (a constant current) or "step" (added like a
            spike in every step).
        recurrent_delay: Steps that a recurrent spike takes.
        runs_loops: How its importer orders the nodes of a loop without a neuron, in which a step
            passes where a node runs before its source: "depth first" from the Input, or "in turn",
            see `jaxsnn.nir.loops`; None: it runs no such loops, or nobody knows.
        channels_last: Columns of the Affine after a Flatten are in height, width, channel order.
        repair: Edges as the framework means them, and what was repaired: called with a graph.
        meanings: Nodes whose numbers the framework does not take as it wrote them, as it takes them
            (`Node.read_as`), each with what to say of it: called with a graph. They raise
            DialectError for a graph that the framework cannot run.
        options: What its files leave open and only it has.
        defaults: Own options that need not be said: name -> (value, a sentence that says why). The
            value may be a function of the graph, which returns None where the option must be said.
    """

    name: str
    version: str = ""
    after: str = ""
    ran: bool = True
    reads_only: bool = False
    rules: Mapping[str, Rule]
    others: Rule | None = None
    evidence: Evidence = dataclasses.field(default_factory=Evidence)
    time_unit: TimeUnit | None = None
    time_unit_from_dt: bool = False
    build_options: Mapping[str, Any] = dataclasses.field(default_factory=nothing)
    seconds: Callable[[Dialect], float | None] | None = None
    seconds_option: str = ""
    dt: float | None = None
    area: Literal["dt", "unit"] = "dt"
    reset: Reset | None = None
    reset_delay: bool | None = None
    resets_at_start: bool = False
    detaches_resets: bool = True
    threshold: Literal[">", ">="] = ">"
    spikes_per_step: Literal["one", "several"] = "one"
    spikes_option: str = ""
    floor_option: str = ""
    spikes_from: Literal["before", "after"] = "after"
    initial: Initial = "zero"
    constant_input: Literal["current", "step"] = "step"
    recurrent_delay: int = 1
    runs_loops: Literal["depth first", "in turn"] | None = None
    channels_last: bool = False
    repair: Callable[[Graph], tuple[tuple[Edge, ...], tuple[Change, ...]]] | None = None
    meanings: tuple[Callable[[Graph], Iterator[tuple[Node, Change]]], ...] = ()
    options: tuple[OwnOption, ...] = ()
    defaults: Mapping[str, tuple[Any, str]] = dataclasses.field(default_factory=nothing)

    def rule(self, kind: str) -> Rule | None:
        """How it simulates a type of neuron; None if it never writes one."""
        return self.rules.get(kind, None if kind in _NIR_NEURONS else self.others)


# What it reads


@dataclasses.dataclass(frozen=True, kw_only=True)
class Importer:
    """One version of a framework's own importer of NIR files.

    With `write` and `load`, `jaxsnn.nir.convert` writes for it; without, it is known by its rules
    alone, and a file can only be checked.

    Attributes:
        version: "1.0" (with all that begins so, 1.0.3), or "main": what is not released.
        after: Of an unreleased version: the last release before it. Any later release is read as
            this one.
        ran: What is said of it was run; False: it is known by its source.
        nodes: Types that it takes, Input and Output included; None: all but `unread`.
        unread: Types that it cannot read.
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
        composes: Resets of `jaxsnn.nir.convert.step` that several of its nodes can do together, because
            it runs loops through many.
        by_name: It runs nodes in the order of their names.
        does: Steps that its neurons do as they are, however high their membranes reach.
        continuous: It solves the equations: `write` takes a `jaxsnn.nir.convert.continuous.Flow`.
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
    unread: tuple[str, ...] = ()
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
        known = TYPES if self.nodes is None else self.nodes
        return kind in known and kind not in self.unread


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
    in_time: Callable[[Any], bool] | None = None
    rewind: str = ""
    membranes: tuple[str, ...] = ()
    leaf_options: Mapping[str, Any] = dataclasses.field(default_factory=nothing)
    surrogate: str = ""
    note: str = ""

    @property
    def options(self) -> tuple[OwnOption, ...]:
        """The own options of all versions, each once."""
        found = {option.name: option for version in self.dialects for option in version.options}
        return tuple(found.values())

    @property
    def writable(self) -> bool:
        """Whether a graph can be converted for it."""
        return any(importer.write is not None for importer in self.importers)


def rules(**by_type: Rule) -> Mapping[str, Rule]:
    """Rules by NIR type, read-only."""
    return MappingProxyType(by_type)
