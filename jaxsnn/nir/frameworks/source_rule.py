"""`NeuronRule`, the update rule of one node's neurons. `jaxsnn.nir.dialects.resolve` derives it
from parameters and dialect, and a framework may refine it (`Conventions.refine`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Literal

from jaxsnn.errors import DialectError, JaxsnnError, Problem
from jaxsnn.nir.model.decays import Decay
from jaxsnn.nir.model.dialect import Initial, Kernel, Reset, StepLength
from jaxsnn.nir.model.node import Node
from jaxsnn.wording import Text


@dataclasses.dataclass(frozen=True, kw_only=True)
class SpikeArea:
    """Effect of a spike of weight w on a neuron.

    Attributes:
        kind: "fixed": a current w of area `seconds`, the same for every neuron; r and w_in scale
            it. "jump": the synaptic current (LIF, LI, IF, I: the membrane) jumps by w; r and w_in
            do not scale it. "scaled jump": the synaptic current jumps by w_in w, the membrane of
            LIF and LI by r w; the area is that neuron's tau_syn or tau.
        seconds: Area of a spike of weight 1 in seconds; None for both kinds of jumps.
        kernel: Continuous reading: "delta", "box" of width dt, or None if unknown.
    """

    kind: Literal["fixed", "jump", "scaled jump"]
    seconds: float | None
    kernel: Kernel | None


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class NeuronRule:
    """Dynamics of the neurons of one node in the source framework.

    None means unknown, and `problems` then has an entry of the same name. For fields without a
    description see the fields of the same name of `jaxsnn.nir.model.dialect.Rule` and `Conventions`;
    fields with a default are set by some frameworks only.

    Attributes:
        node: The neuron, with parameters in the units of the file.
        dialect: Name of the dialect, for messages.
        is_recurrent: Whether the neuron feeds itself, directly or through other nodes.
        seconds: Seconds in one unit of the file's time.
        dt: Length of a time step in seconds.
        unit_dt: Length of a time step in units of the file's time; 1 if the file counts steps.
        counts_steps: Whether time is counted in steps of unknown length.
        spike: Effect of a spike on the equations.
        spike_kernel: Shape of a spike in the equations.
        constant_input: Effect of a bias: a constant "current", or added like a spike in every
            "step".
        readout: Whether the output is the membrane potential instead of spikes.
        resetting: Whether it is a readout that resets when a neuron of its type would fire.
        initial: Initial membrane potential; currents start at 0.
        reset: Effect of a spike; "none" for a readout that never resets.
        reset_size: Amount of a subtracting reset in time steps: "v_threshold", "1", or "floor", the
            integer below the membrane potential; for "rounded-floor" a membrane potential within
            rounding below an integer counts as this integer.
        reset_delay: Whether a spike acts on the membrane potential one time step later.
        resets_first: Whether a reset at the beginning of a time step acts before the membrane
            potential decays.
        resistance: "file": r as in the file. "tau/dt": the value that the framework uses instead.
        detaches_resets: Whether gradients of the framework ignore resets at the beginning of a time
            step.
        floor: Lower bound of the membrane potential at the end of a time step; None: no bound, or
            unknown.
        surrogate: Default surrogate gradient of the framework, in words.
        step_length: Relation between gains and time constants by the time step of the framework;
            None: no relation.
        tied_gains: Time step by (time constant, gain), the names of parameters whose gain follows a
            trained time constant; in seconds, or in units of the file if these are unknown.
        assumed: Assumptions for values that neither the file nor the user specifies, one sentence
            each.
        remarks: Specified values that are not applied, one sentence each.
        problems: Problems by field, in the order in which engines report them; they are raised when
            the field is needed. Further keys: "type" (the framework has no such neuron, so nothing
            else is known), "own_option" (an option of this framework), "spike_area" (as `spike`,
            and features that only time steps support), "tau", "tau_mem", "tau_syn" (infinite
            values), "r" (1 for some neurons only), "v_reset" and "v_start" (levels not below
            v_threshold), "resetting" and "no_reset" (outputs that no neuron of NIR has).
    """

    node: Node
    dialect: str
    is_recurrent: bool
    seconds: float | None
    dt: float | None
    unit_dt: float | None
    counts_steps: bool
    spike: SpikeArea | None
    spike_kernel: Kernel | None
    constant_input: Literal["current", "step"]
    membrane: Literal["exact", "leak", "average", "euler", "relax", "relax, add"]
    membrane_decay: Decay
    synapse: Literal["exact", "add last", "add first", "decay last", "filter"]
    synapse_decay: Decay | None
    threshold: Literal[">", ">="]
    spikes_per_step: Literal["one", "several"]
    spikes_from: Literal["before", "after"]
    recurrent_delay: int
    readout: bool
    resetting: bool
    initial: Initial | None
    reset: Reset | None
    reset_delay: bool | None
    resets_at_start: bool
    resets_first: bool
    leaks_to_zero: bool
    surrogate: str
    step_length: StepLength | None
    tied_gains: Mapping[tuple[str, str], float]
    problems: Mapping[str, Problem]
    resistance: Literal["file", "tau/dt"] = "file"
    reset_size: Literal["v_threshold", "1", "floor", "rounded-floor"] = "v_threshold"
    detaches_resets: bool = True
    floor: float | None = None
    assumed: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()

    @property
    def is_continuous(self) -> bool:
        """Whether the source solves the equations, so that a time step is an approximation.

        Raises:
            DialectError: The framework has no such neuron.
        """
        self.require("type")
        return self.membrane == "exact"

    @property
    def resets(self) -> bool:
        """Whether a membrane at threshold is reset."""
        return self.reset != "none" and (not self.readout or self.resetting)

    @property
    def known_spike(self) -> SpikeArea:
        """Effect of a spike on the equations.

        Raises:
            DialectError: The dialect does not specify it.
        """
        if self.spike is None:
            self.require("spike_area")
        assert self.spike is not None
        return self.spike

    def require(self, *fields: str, error: type[JaxsnnError] = DialectError) -> None:
        """Raise the problem of the first field that has a problem.

        Args:
            fields: Keys of `problems`, in order.
            error: Exception to raise.

        Raises:
            JaxsnnError: At least one of the fields has a problem.
        """
        for field in fields:
            if field in self.problems:
                raise error.of(self.problems[field])


def bad_parameter(node: Node, text: str, fix: str) -> Problem:
    """Return the problem of a parameter that an engine or an importer does not support."""
    return Problem(
        node=node.name,
        code="bad-parameter",
        message=Text("node '{node}' ({type}): ", node=node.name, type=node.type) + text,
        fix=fix,
    )
