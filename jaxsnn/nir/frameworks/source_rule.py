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

    None is unknown, and then `problems` has an entry of the same name. Fields without a description have
    that of the same field of `jaxsnn.nir.model.dialect.Rule` or `Conventions`; fields with a default are
    those that only some frameworks set.

    Attributes:
        node: The neuron, with its numbers in the units of the file.
        dialect: Name of the dialect, for messages.
        is_recurrent: The neuron feeds itself, directly or through other nodes.
        seconds: Seconds in one unit of the file's time.
        dt: Length of a step in seconds.
        unit_dt: The same in units of the file's time; 1 where the file counts steps.
        counts_steps: Time is counted in steps, and nothing says how long one is.
        spike: Effect of a spike on the equations.
        spike_kernel: Its shape in the equations.
        constant_input: A bias is a constant "current", or added like a spike in every "step".
        readout: Its output is its membrane, not spikes.
        resetting: It is a readout that resets where a neuron of its type would fire.
        initial: Initial membrane; currents start at 0.
        reset: Effect of a spike: "none" of a readout that never resets.
        reset_size: Amount of a subtracting reset in time steps: "v_threshold", "1", or "floor",
            the integer below the membrane; "rounded-floor" counts a membrane within rounding below an
            integer as at it.
        reset_delay: A spike acts on the membrane one step later.
        resets_first: A reset that acts when a step begins acts before the membrane decays.
        resistance: "file": r as the file has it. "tau/dt": what the framework does in spite of it.
        detaches_resets: The framework's gradients leave out the resets that act when a step begins.
        floor: The membrane is raised to this at the end of a step; None: never, or unknown.
        surrogate: The derivative of a spike that its framework takes by default, in words.
        step_length: How the framework ties gains to time constants by its step; None: it does not.
        tied_gains: Names (time constant, gain) of the gains that so follow time constants which are
            trained -> the step, in seconds (in units of the file where these are unknown).
        assumed: Assumptions where neither the file nor the user declares a value, a sentence each.
        remarks: Declared values that are not followed, a sentence each.
        problems: What stands in the way of whoever needs a field of the rule, by its name, in the order in
            which engines name them. Beside fields: "type" (the framework has no such neuron, so that
            nothing else is known), "own_option" (an option of this framework alone), "spike_area" (as
            `spike`, and what only time steps can do), "tau", "tau_mem", "tau_syn" (infinite ones), "r" (1 at
            some neurons only), "v_reset" and "v_start" (levels not below v_threshold), "resetting" and
            "no_reset" (outputs that no neuron of NIR gives).
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
        """Refuse to go on where something stands in the way of some fields.

        Args:
            fields: Keys of `problems`.
            error: Exception to raise.

        Raises:
            JaxsnnError: The problem of the first of these fields that has one.
        """
        for field in fields:
            if field in self.problems:
                raise error.of(self.problems[field])


def bad_parameter(node: Node, text: str, fix: str) -> Problem:
    """Return the problem of a number that an engine or an importer cannot use."""
    return Problem(
        node=node.name,
        code="bad-parameter",
        message=Text("node '{node}' ({type}): ", node=node.name, type=node.type) + text,
        fix=fix,
    )
