"""What a NIR file does not say: dt, unit of time, how a spike enters, reset, initial state.

Each framework writes one format with its own meaning. `DIALECTS` holds those meanings as data, one
frozen record for each framework; a `Dialect` is what was decided for one graph.
`jaxsnn.nir.inference.resolve` decides.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Literal

from jaxsnn.errors import in_flags
from jaxsnn.nir.nodes import nothing

TimeUnit = Literal["s", "ms", "step"]
Kernel = Literal["delta", "box"]
Reset = Literal["zero", "subtract", "none"]
Initial = Literal["zero", "v_leak", "v_reset"]

#: The values that an option may take.
CHOICES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "time_unit": ("s", "ms", "step"),
        "reset": ("zero", "subtract", "none"),
        "reset_delay": ("true", "false"),
        "norm_input": ("true", "false"),
        "spike_kernel": ("delta", "box"),
        "initial": ("zero", "v_leak", "v_reset"),
    }
)
#: The options that may differ from node to node.
PER_NODE = ("reset", "reset_delay", "norm_input", "spike_kernel", "initial", "readout")

#: Seconds in one unit of a file's time; a step lasts dt.
UNIT_SECONDS: Mapping[str, float] = MappingProxyType({"s": 1.0, "ms": 1e-3})


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rule:
    """How one framework simulates one type of neuron.

    Attributes:
        arrival: "fixed": a spike of weight w is a current w of area dt, so r and w_in count.
            "jump": the current (of a neuron without synaptic current: the membrane) jumps by w,
            whatever r and w_in say. "norm_input": fixed if the option norm_input is true, else
            jump.
        kernel: The continuous reading of a spike. The current of CubaLIF jumps in the frameworks
            too: delta. LIF and IF driven by deltas can only cross the threshold when a spike
            arrives: box of width dt.
        membrane_decay, synapse_decay: The factor k (a) of one step, as the framework computes it.
        membrane: What one step does to V under the step's input X (of CubaLIF: its current I).
            "exact": the flow of the ODE over dt. "leak": V = k V + X. "average": V = k V + (1 - k)
            X. "euler": V = V + dt/tau (v_leak - V + X). "relax": V = V + (X - (V - v_reset)) dt/tau
            where r = 1, and V = V - (V - v_reset)/r + X elsewhere.
        synapse: What one step does to the current I. "exact": as above. "add last": I = a I + X.
            "add first": I = a (I + X). "decay last": I = I + X drives V, then I = a I.
        resets_first: The kinds of reset that, acting one step late, act before V decays and X is
            added; else after.
        recurrent_resets_first: The same for a neuron that feeds itself; None: no difference.
        recurrent_reset_delay: What reset_delay is for a neuron that feeds itself, whatever was said
            (snnTorch 1.0.0 computes the immediate reset of its RSynaptic and drops it); None: what
            was said.
        resistance: "file" or "tau/dt": r as the file has it, or what the framework does in spite of
            it.
        ones: Parameters that it always writes as 1.
    """

    arrival: Literal["fixed", "jump", "norm_input"] = "fixed"
    kernel: Kernel = "delta"
    membrane_decay: str = "exp(-dt/tau_mem)"
    synapse_decay: str = ""
    membrane: Literal["exact", "leak", "average", "euler", "relax"] = "exact"
    synapse: Literal["exact", "add last", "add first", "decay last"] = "exact"
    resets_first: tuple[Reset, ...] = ()
    recurrent_resets_first: tuple[Reset, ...] | None = None
    recurrent_reset_delay: bool | None = None
    resistance: Literal["file", "tau/dt"] = "file"
    ones: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Conventions:
    """What one framework means by the files that it writes; None where its files leave it open.

    Attributes:
        name: Name of the dialect.
        rules: How it simulates each type of neuron that it writes, by NIR type.
        others: How it simulates types that are registered from outside; None: it never writes them.
        time_unit: Unit of the time constants.
        dt: The step that it always writes with, in seconds.
        dt_from: How dt follows from the numbers of the file: "tau/r", "tau W(1/r)" (W: Lambert's)
            or "tau (1-r)".
        r_of_one_is_silent: r = 1 says nothing about dt, because it also writes files in which the
            input decays.
        r_is_rate: r of IF is 1/dt.
        reset: Its default reset; "zero" puts V to v_reset, "subtract" takes v_threshold off.
        reset_delay: True: a spike acts on the membrane one step later.
        resets_at_start: A neuron that is above threshold when a step begins is reset then, whatever
            reset_delay is.
        threshold: Spike where V > v_threshold, or already where they are equal.
        spikes_per_step: "one" or "several".
        spikes_from: "before": the spike of a step is that of the membrane before the step's update.
        initial: Membrane at the start. Currents start at 0.
        norm_input: Its default by NIR type; nothing in the file says it.
        constant_input: What a bias does: "current" (a constant current) or "step" (added like a
            spike in every step).
        recurrent_delay: Steps that a recurrent spike takes.
        rewires: Its recurrent subgraphs are written input -> w_rec and mean input -> neuron.
        channels_last: Columns of the Affine after a Flatten are in height, width, channel order.
    """

    name: str
    rules: Mapping[str, Rule]
    others: Rule | None = None
    time_unit: TimeUnit | None = None
    dt: float | None = None
    dt_from: Literal["tau/r", "tau W(1/r)", "tau (1-r)"] | None = None
    r_of_one_is_silent: bool = False
    r_is_rate: bool = False
    reset: Reset | None = None
    reset_delay: bool | None = None
    resets_at_start: bool = False
    threshold: Literal[">", ">="] = ">"
    spikes_per_step: Literal["one", "several"] = "one"
    spikes_from: Literal["before", "after"] = "after"
    initial: Initial = "zero"
    norm_input: Mapping[str, bool] = dataclasses.field(default_factory=nothing)
    constant_input: Literal["current", "step"] = "step"
    recurrent_delay: int = 1
    rewires: bool = False
    channels_last: bool = False

    def rule(self, kind: str) -> Rule | None:
        """How it simulates a type of neuron; None: it never writes it."""
        return self.rules.get(kind, self.others)


def _rules(**rules: Rule) -> Mapping[str, Rule]:
    return MappingProxyType(rules)


_LITERAL = _rules(
    CubaLIF=Rule(),
    CubaLI=Rule(),
    LIF=Rule(),
    LI=Rule(),
    IF=Rule(membrane_decay="1"),
    I=Rule(membrane_decay="1"),
)
_EVENT_BASED = _rules(
    CubaLIF=Rule(arrival="jump", synapse_decay="exp(-dt/tau_syn)"),
    CubaLI=Rule(arrival="jump", synapse_decay="exp(-dt/tau_syn)"),
    LIF=Rule(arrival="jump"),
    LI=Rule(arrival="jump"),
    IF=Rule(arrival="jump", membrane_decay="1"),
    I=Rule(arrival="jump", membrane_decay="1"),
)

#: The conventions of each dialect by name. Measured on the files and spikes of the frameworks
#: themselves.
DIALECTS: Mapping[str, Conventions] = MappingProxyType(
    {
        "nir": Conventions(
            name="nir",
            rules=_LITERAL,
            others=Rule(),
            reset="zero",
            reset_delay=False,
            constant_input="current",
            recurrent_delay=0,
        ),
        "snntorch": Conventions(
            name="snntorch",
            rules=_rules(
                LIF=Rule(
                    kernel="box",
                    membrane_decay="1-1/r",
                    membrane="leak",
                    resets_first=("zero",),
                    recurrent_resets_first=(),
                ),
                CubaLIF=Rule(
                    membrane_decay="1-1/r",
                    synapse_decay="1-1/w_in",
                    membrane="leak",
                    synapse="add last",
                    recurrent_reset_delay=True,
                ),
            ),
            time_unit="s",
            dt=1e-4,
            dt_from="tau/r",
            resets_at_start=True,
        ),
        "norse": Conventions(
            name="norse",
            rules=_rules(
                LIF=Rule(
                    kernel="box", membrane_decay="1-dt/tau_mem", membrane="euler", ones=("r",)
                ),
                LI=Rule(kernel="box", membrane_decay="1-dt/tau_mem", membrane="euler", ones=("r",)),
                CubaLIF=Rule(
                    arrival="jump",
                    membrane_decay="1-dt/tau_mem",
                    synapse_decay="1-dt/tau_syn",
                    membrane="euler",
                    synapse="decay last",
                    ones=("r", "w_in"),
                ),
                IF=Rule(arrival="jump", membrane_decay="1", membrane="leak", ones=("r",)),
            ),
            time_unit="s",
            reset="zero",
            reset_delay=False,
            initial="v_leak",
        ),
        "sinabs": Conventions(
            name="sinabs",
            rules=_rules(
                LIF=Rule(arrival="norm_input", kernel="box", membrane="average", ones=("r",)),
                LI=Rule(arrival="norm_input", kernel="box", membrane="average", ones=("r",)),
                IF=Rule(membrane_decay="1", membrane="leak", ones=("r",)),
            ),
            time_unit="step",
            reset="subtract",
            reset_delay=False,
            threshold=">=",
            spikes_per_step="several",
            norm_input=MappingProxyType({"LIF": True, "LI": False}),
        ),
        "rockpool": Conventions(
            name="rockpool",
            rules=_rules(
                LIF=Rule(arrival="jump", kernel="box", membrane="leak"),
                LI=Rule(arrival="jump", kernel="box", membrane="leak"),
                CubaLIF=Rule(
                    arrival="jump",
                    synapse_decay="exp(-dt/tau_syn)",
                    membrane="leak",
                    synapse="add first",
                    ones=("w_in",),
                ),
            ),
            time_unit="s",
            dt_from="tau W(1/r)",
            reset="subtract",
            reset_delay=False,
            threshold=">=",
            spikes_per_step="several",
        ),
        "spyx": Conventions(
            name="spyx",
            rules=_rules(
                LIF=Rule(
                    arrival="jump",
                    kernel="box",
                    membrane_decay="r",
                    membrane="leak",
                    resistance="tau/dt",
                ),
                CubaLIF=Rule(
                    arrival="jump",
                    membrane_decay="r",
                    synapse_decay="1-dt/tau_syn",
                    membrane="leak",
                    synapse="add last",
                    resets_first=("subtract",),
                    resistance="tau/dt",
                    ones=("w_in",),
                ),
                IF=Rule(arrival="jump", membrane_decay="1", membrane="leak", ones=("r",)),
            ),
            dt_from="tau (1-r)",
            reset="subtract",
            reset_delay=True,
            resets_at_start=True,
            spikes_from="before",
            recurrent_delay=0,
            rewires=True,
            channels_last=True,
        ),
        "spikingjelly": Conventions(
            name="spikingjelly",
            rules=_rules(
                LIF=Rule(kernel="box", membrane_decay="1-dt/tau_mem", membrane="relax"),
                IF=Rule(kernel="box", membrane_decay="1", membrane="leak"),
                CubaLIF=Rule(
                    membrane_decay="1-1/r",
                    synapse_decay="1-1/w_in",
                    membrane="leak",
                    synapse="add last",
                ),
            ),
            time_unit="s",
            dt_from="tau/r",
            r_of_one_is_silent=True,
            r_is_rate=True,
            reset="zero",
            reset_delay=False,
            threshold=">=",
            initial="v_reset",
        ),
        # This library's own files and those of the Electronic Vision(s) group differ in the unit
        # only: seconds here, milliseconds there. Without this library's tag in the metadata the
        # unit must be told.
        "jaxsnn": Conventions(
            name="jaxsnn",
            rules=_EVENT_BASED,
            others=Rule(arrival="jump"),
            reset="zero",
            reset_delay=False,
            constant_input="current",
            recurrent_delay=0,
        ),
        "hxtorch": Conventions(
            name="hxtorch",
            rules=_rules(
                CubaLIF=Rule(arrival="jump", synapse_decay="exp(-dt/tau_syn)", ones=("r", "w_in")),
                CubaLI=Rule(arrival="jump", synapse_decay="exp(-dt/tau_syn)", ones=("r", "w_in")),
            ),
            reset="zero",
            reset_delay=False,
            constant_input="current",
            recurrent_delay=0,
        ),
    }
)


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


@dataclasses.dataclass(frozen=True, kw_only=True)
class Dialect:
    """What was decided about one graph. None is unknown; `why` says so.

    Attributes:
        name: A key of `DIALECTS`, or None while undecided.
        dt: Length of a step of the source, seconds.
        dt_export: Norse only: the dt that its exporter was given; time constants in the file are
            true ones times this.
        time_unit: Unit of the file's time constants.
        spike_kernel: "delta", or "box" of width dt; None also where nodes differ, see `nodes`.
        reset: "zero" (V becomes v_reset), "subtract" (V loses v_threshold) or "none".
        reset_delay: True: the reset acts one step later.
        norm_input: Sinabs only: the input is scaled by 1 - exp(-1/tau).
        initial: Membrane at the start.
        decided_by: Where the name comes from.
        why: What was decided and why, with the numbers.
        nodes: Fields that differ for a node, by name; "readout" marks a spiking node that is a
            leaky readout.
        choices: While undecided: the dialects that the numbers allow.
    """

    name: str | None = None
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

    @property
    def conventions(self) -> Conventions | None:
        """The conventions of the framework; None while undecided."""
        return None if self.name is None else DIALECTS[self.name]

    @property
    def fix(self) -> str:
        """What to say while the name is undecided; "" once it is decided."""
        if self.name is not None:
            return ""
        choices = f", one of {', '.join(self.choices)}" if self.choices else ""
        return f"say dialect={choices}"

    @property
    def undecided(self) -> str:
        """Words for messages: the dialect of the file, and in brackets why nobody knows it."""
        why = self.why.rstrip(" .")
        return f"the dialect of the file ({why})" if why else "the dialect of the file"

    @property
    def seconds(self) -> float | None:
        """Seconds in one unit of the file's time constants (Norse: its dt_export included); None if
        unknown.
        """
        if self.name == "norse":
            return None if self.dt_export is None else 1 / self.dt_export
        return self.dt if self.time_unit == "step" else UNIT_SECONDS.get(self.time_unit or "")

    def at(self, node: str) -> NodeDialect:
        """The fields for one node: what was said for it, else what holds for all.

        >>> dialect = Dialect(name="snntorch", reset="zero", nodes={"3": {"readout": True, "reset": "none"}})
        >>> dialect.at("1").reset, dialect.at("3").reset
        ('zero', 'none')
        """
        own = self.nodes.get(node, {})
        return NodeDialect(
            name=self.name,
            readout=own.get("readout", False),
            **{
                field: own.get(field, getattr(self, field))
                for field in PER_NODE
                if field != "readout"
            },
        )

    def as_dict(self) -> dict[str, Any]:
        """For JSON, in the words of the command line."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return fields | {
            "why": in_flags(self.why),
            "fix": in_flags(self.fix),
            "nodes": {name: dict(own) for name, own in self.nodes.items()},
            "choices": list(self.choices),
        }
