"""Static structure of a lowered network, without numbers: nodes as wires, neurons as populations.

Nothing here loads JAX, so that a network can be checked before anything runs.
"""

from __future__ import annotations

import enum
import math
import pkgutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from jaxsnn.errors import LoweringError, Problem
from jaxsnn.wording import Text

if TYPE_CHECKING:
    from jaxsnn.network.array_types import Array, Bool, Float

#: Connections one by one: source and target channels (entries,), and values (entries,).
Entries = tuple[np.ndarray, np.ndarray, Any]


class TauShape(enum.Enum):
    """Relation between tau_mem and tau_syn that holds for a whole population and is known before
    tracing.
    """

    DOUBLE = "tau_mem = 2 tau_syn"
    HALF = "tau_mem = tau_syn / 2"
    EQUAL = "tau_mem = tau_syn"
    APART = "tau_mem and tau_syn differ by more than a tenth"
    ANY = "any tau_mem, tau_syn"


# Where the two constants are closer than this fraction, the difference of their exponentials loses
# digits.
APART_FRACTION = 0.1

_RATIOS = {TauShape.DOUBLE: 2.0, TauShape.HALF: 0.5, TauShape.EQUAL: 1.0}


def tau_shape_holds(
    shape: TauShape,
    tau_mem: Float[Array | np.ndarray, "*neurons"],
    tau_syn: Float[Array | np.ndarray, "*neurons"],
) -> Bool[Any, "*neurons"]:
    """Return whether time constants satisfy a relation, element by element, exact up to
    rounding.
    """
    if shape is TauShape.ANY:
        return (tau_mem == tau_mem) | True  # True, also for NaN
    if shape is TauShape.APART:
        larger = (tau_mem + tau_syn + abs(tau_mem - tau_syn)) / 2  # of the two constants
        return abs(tau_mem - tau_syn) > APART_FRACTION * larger
    return abs(tau_mem - _RATIOS[shape] * tau_syn) <= 8 * np.finfo(tau_mem.dtype).eps * tau_mem


def find_tau_shape(
    tau_mem: Float[Array | np.ndarray, "*neurons"], tau_syn: Float[Array | np.ndarray, "*neurons"]
) -> TauShape:
    """Return the most specific relation that all of a population's time constants satisfy."""
    return next(shape for shape in TauShape if tau_shape_holds(shape, tau_mem, tau_syn).all())


@dataclass(frozen=True, kw_only=True)
class LinearOperator:
    """Static description of a linear node: its output is a linear function of its input, and a
    bias.

    Attributes:
        apply: (parameters, detail, x) -> y, without the bias; x is (samples, *inward), y (samples,
            *outward). A function, or its location, "module:name". None: the output is the delayed
            input (a Delay).
        entries: (parameters, detail, inward) -> `Entries`: the same map, one connection at a time,
            or None.
        bias: name of the parameter that is added to the output, or None.
    """

    apply: Callable[..., Any] | str | None = None
    entries: Callable[..., Entries] | None = None
    bias: str | None = None


_HOME = "jaxsnn.network.linear_nodes"
_PRODUCT, _CONVOLUTION = f"{_HOME}:matrix_product", f"{_HOME}:convolved"
#: Operators of NIR's own kinds, for wires that are made by hand; `jaxsnn.lower` takes them from the
#: traits.
OPERATORS = MappingProxyType(
    {
        "Linear": LinearOperator(apply=_PRODUCT),
        "Affine": LinearOperator(apply=_PRODUCT, bias="bias"),
        "Scale": LinearOperator(apply=f"{_HOME}:scaled"),
        "Flatten": LinearOperator(apply=f"{_HOME}:flattened"),
        "Conv1d": LinearOperator(apply=_CONVOLUTION, bias="bias"),
        "Conv2d": LinearOperator(apply=_CONVOLUTION, bias="bias"),
        "SumPool2d": LinearOperator(apply=f"{_HOME}:summed"),
        "AvgPool2d": LinearOperator(apply=f"{_HOME}:averaged"),
        "Delay": LinearOperator(),
    }
)


@dataclass(frozen=True, kw_only=True)
class Wire:
    """Static description of one node of the lowered graph.

    Attributes:
        name: the NIR node's name.
        kind: "input", "output", "neuron", or the NIR type of a node without a state ("Linear",
            "Conv2d", ...).
        sources: names of the nodes whose signals add up at its input.
        shape: shape of its output, without batch and time.
        detail: static data of the node beyond its parameters, hashable. For a convolution or pool
            its window (kernel, stride, dilation, padding, groups), for a Flatten the order in which
            it joins the axes (None: in their own order), for a Delay its delays in seconds, one or
            one for each channel, for a Linear that copies channels into a Delay (more outputs than
            inputs, a single 1 in each row) the channel of each output: the event engine treats it
            as wiring that is not trained, and refuses other weights.
        operator: the linear operator of the node; None: that of NIR's own kind of this name, if
            there is one.
        function: the function of a node without state that is not linear, with the arguments of
            `LinearOperator.apply`; None: it has none.
        late: sources whose output arrives one time step late, initially zero: the nodes of a cycle
            run in the order of the network's wires, and these sources run after this node.
        shapes: pairs of a parameter of the node and its shape; other parameters may have any shape.
        remarks: properties of this node that the framework of the file ignores or treats
            differently, a sentence each, for the notes of a run.
    """

    name: str
    kind: str
    sources: tuple[str, ...]
    shape: tuple[int, ...]
    detail: Any = None
    operator: LinearOperator | None = None
    function: Callable[..., Any] | str | None = None
    late: tuple[str, ...] = ()
    shapes: tuple[tuple[str, tuple[int, ...]], ...] = ()
    remarks: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """Number of channels of the output."""
        return math.prod(self.shape)

    @property
    def linear(self) -> LinearOperator | None:
        """Linear operator of the node, if its output is a linear function of its input plus a
        constant; else None.
        """
        return OPERATORS.get(self.kind) if self.operator is None else self.operator

    @property
    def biased(self) -> bool:
        """Whether the node has a bias."""
        return self.linear is not None and self.linear.bias is not None

    def bias(self, parameters: Mapping[str, Any]) -> Any:
        """Return the node's bias, (channels,) or an array that is repeated over them; None if it
        has none.
        """
        name = None if self.linear is None else self.linear.bias
        return None if name is None else parameters.get(name)

    def apply(self, parameters: Mapping[str, Any], x: Any) -> Any:
        """Apply a node without state to x (samples, *inward); a linear one without its bias.

        Raises:
            LoweringError: the node has no function, or delays its input.
        """
        function = self.function if self.linear is None else self.linear.apply
        if function is None:
            raise LoweringError(
                Text(
                    "node '{node}' ({type}) has no linear operator",
                    node=self.name,
                    type=self.kind,
                ),
                fix="use linear nodes",
                node=self.name,
            )
        resolved = pkgutil.resolve_name(function) if isinstance(function, str) else function
        return resolved(parameters, self.detail, x)


#: Types of NIR that never fire. A type from another package that never fires is lowered to a
#: readout.
_SILENT = ("CubaLI", "LI", "I")


@dataclass(frozen=True, kw_only=True)
class TiedGain:
    """Gain that a framework ties to a time constant by its time step.

    Attributes:
        tau, gain: names of the two parameters.
        step: the formula, a `jaxsnn.nir.model.dialect.StepLength`.
        dt: length of a step, in the unit of the time constant.
    """

    tau: str
    gain: str
    step: Any
    dt: float


@dataclass(frozen=True, kw_only=True)
class Population:
    """Static description of a population of neurons.

    Attributes:
        name: the NIR node's name.
        kind: the type of its node: "CubaLIF", "CubaLI", "LIF", "LI", "IF", "I" or a registered one.
        size: number of neurons.
        readout: it never fires, whatever its type.
        resetting: a readout that resets where a neuron of its type would fire: its output is the
            membrane after the reset.
        tau_shape: the relation of tau_mem and tau_syn of all neurons.
        uniform: all neurons have the same time constants.
        taus_last: both hold wherever the population is used, also where its time constants are
            traced (`Network.with_lasting_time_constants`).
        spike_area: area of an arriving spike of weight 1, seconds; None where the state jumps by
            the weight, whatever the time constants.
        scales_jumps: where the state jumps by the weight, w_in (LIF and LI: r) scales the jump.
        spike_kernel: "delta", or "box", a rectangular pulse of width `dt`.
        dt: the step of the framework that wrote the file, seconds.
        bias: a bias is a constant "current", or added like a spike once in every "step" of length
            dt.
        resistance: "file": r of the file; "tau/dt": the resistance that the framework uses instead.
        initial: initial value of V: "zero", "v_leak" or "v_reset".
        reset: effect of a spike on V: "zero" (to v_reset) or "subtract" (to V - v_threshold, which
            is 0).
        reset_size: size of a reset that subtracts, in time steps: "v_threshold", "1", or "floor",
            the largest integer below V, if that is positive, whether it fires or not;
            "rounded-floor" counts a V within rounding below an integer as equal to it.
        membrane: update of V in a time step with the step's input X (a current-based neuron's: its
            current I). "exact": the flow of the ODE over dt. "leak": V = k V + X. "average": V = k
            V + (1 - k) X. "euler": V = V + dt/tau (v_leak - V + X). "relax": V = V + (X - (V -
            v_reset)) dt/tau. "relax, add": V = V - (V - v_reset)/r + X.
        synapse: update of I in a time step: "exact", "add last" (I = a I + X), "add first" (I = a
            (I + X)), "decay last" (I = I + X drives V, then I = a I), or "filter" (I = I + (1 - a)
            (v_leak - I + w_in X), starting at v_leak, and r I drives V).
        membrane_decay, synapse_decay: the formulas of k and a, each a
            `jaxsnn.nir.model.decays.Decay`; None for "exact", or if there is no current.
        threshold: it fires where V ">" or ">=" v_threshold, in time steps and where an arrival
            moves V in continuous time; for a threshold crossing by V's own flow there is no
            difference.
        spikes_per_step: "one", or "several": the number of multiples of v_threshold in V.
        floor: V is raised to this at the end of each time step, if it is below; None: never.
        spikes_from: a step's spike depends on the membrane "before" or "after" its update.
        reset_delay: whether a spike resets the membrane one step later, in time steps.
        resets_at_start: a V above threshold at the beginning of a step is reset then, whatever
            `reset_delay` is.
        detaches_resets: gradients leave out the resets that act when a step begins.
        resets_first: a reset that acts one step late acts before V decays and X is added; else
            after.
        recurrent_delay: delay of a recurrent spike in steps.
        counts_steps: time constants are in steps, because the length of a step is unknown.
        surrogate: the default surrogate derivative of its framework, such as "ArcTan(alpha=2)", or
            in words.
        obstacles: pairs of a field or parameter and the problem of an engine that needs it (the
            file does not specify it, or its value is invalid in continuous time).
        remarks: specified options that are not followed, a sentence each.
        assumed: unspecified properties that are assumed, a sentence each.
        ties: gains that follow its time constants in training.
        leaks_to_zero: its framework has no v_leak.
    """

    name: str
    kind: str
    size: int
    readout: bool = False
    resetting: bool = False
    tau_shape: TauShape = TauShape.ANY
    uniform: bool = False
    taus_last: bool = False
    spike_area: float | None = None
    scales_jumps: bool = False
    spike_kernel: str = "delta"
    dt: float | None = None
    bias: Literal["current", "step"] = "current"
    resistance: Literal["file", "tau/dt"] = "file"
    initial: Literal["zero", "v_leak", "v_reset"] = "zero"
    reset: Literal["zero", "subtract", "none"] = "zero"
    reset_size: Literal["v_threshold", "1", "floor", "rounded-floor"] = "v_threshold"
    membrane: Literal["exact", "leak", "average", "euler", "relax", "relax, add"] = "exact"
    synapse: Literal["exact", "add last", "add first", "decay last", "filter"] = "exact"
    membrane_decay: Any = None
    synapse_decay: Any = None
    threshold: Literal[">", ">="] = ">"
    spikes_per_step: Literal["one", "several"] = "one"
    floor: float | None = None
    spikes_from: Literal["before", "after"] = "after"
    reset_delay: bool = False
    resets_at_start: bool = False
    detaches_resets: bool = True
    resets_first: bool = False
    recurrent_delay: int = 0
    counts_steps: bool = False
    surrogate: str = ""
    obstacles: tuple[tuple[str, Problem], ...] = ()
    remarks: tuple[str, ...] = ()
    assumed: tuple[str, ...] = ()
    ties: tuple[TiedGain, ...] = ()
    leaks_to_zero: bool = False

    @property
    def fires(self) -> bool:
        """Whether the population emits spikes; a readout does not."""
        return not self.readout and self.kind not in _SILENT

    @property
    def steps_through_time(self) -> bool:
        """Whether the source framework is time-stepped, so that continuous time is an
        approximation.
        """
        return self.membrane != "exact"

    @property
    def resets(self) -> bool:
        """Whether the membrane is reset at the threshold."""
        return self.fires or self.resetting

    def jump(self, parameters: Mapping[str, Any]) -> Any:
        """Return the jump of I (without a synaptic current: of V) at an arriving delta of weight 1.

        Args:
            parameters: NIR's names -> one number for each neuron, arrays of NumPy or JAX.

        Returns:
            (neurons,), or 1.0 for all.
        """
        if self.spike_area is None:
            return input_gain(parameters) if self.scales_jumps else 1.0
        return input_gain(parameters) * self.spike_area / input_tau(parameters)

    def require(self, *fields: str) -> None:
        """Refuse a population that has an obstacle in any of these fields.

        Raises:
            LoweringError: the first obstacle.
        """
        for field, problem in self.obstacles:
            if field in fields:
                raise LoweringError.of(problem)


def with_known_taus(
    population: Population, taus: Mapping[str, Float[Array | np.ndarray, "*neurons"]]
) -> Population:
    """Return the population with the `tau_shape` and `uniform` that its time constants have.

    Args:
        taus: its time constants by NIR name.
    """
    flat = {key: np.asarray(value).reshape(-1) for key, value in taus.items()}
    uniform = all(bool((tau == tau[0]).all()) for tau in flat.values())
    if not {"tau_mem", "tau_syn"} <= flat.keys():
        return replace(population, uniform=uniform)
    tau_shape = find_tau_shape(flat["tau_mem"], flat["tau_syn"])
    return replace(population, tau_shape=tau_shape, uniform=uniform)


def with_unknown_taus(population: Population) -> Population:
    """Return the population without assumptions on its time constants."""
    return replace(population, tau_shape=TauShape.ANY, uniform=False, taus_last=False)


def input_gain(parameters: Mapping[str, Any]) -> Any:
    """Return the gain of an input in the equations: w_in, or r."""
    return parameters["w_in"] if "tau_syn" in parameters else parameters["r"]


def input_tau(parameters: Mapping[str, Any]) -> Any:
    """Return the time constant of the equation that an input enters: tau_syn, tau, or 1 for IF and
    I.
    """
    return parameters["tau_syn"] if "tau_syn" in parameters else parameters.get("tau", 1.0)


def carriers(wires: Iterable[Wire], starts: Iterable[str]) -> set[str]:
    """Return the names of some nodes, and of the linear nodes that their signals reach."""
    return _spread(_linear_targets(wires), starts)


def _linear_targets(wires: Iterable[Wire]) -> dict[str, list[str]]:
    """Return the linear nodes that each node feeds."""
    targets: dict[str, list[str]] = {}
    for wire in wires:
        for source in wire.sources if wire.linear else ():
            targets.setdefault(source, []).append(wire.name)
    return targets


def _spread(targets: Mapping[str, list[str]], starts: Iterable[str]) -> set[str]:
    reached = set(starts)
    waiting = list(reached)
    while waiting:
        for name in targets.get(waiting.pop(), ()):
            if name not in reached:
                reached.add(name)
                waiting.append(name)
    return reached


def carried(wires: Iterable[Wire], origins: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Return for each node the origins whose signals enter it, directly or through linear nodes; in
    the order of `origins`.
    """
    wires = tuple(wires)
    targets = _linear_targets(wires)
    carrying: dict[str, list[str]] = {}  # node -> origins whose signals reach it
    order = {}
    for name in origins:
        order[name] = len(order)
        for node in _spread(targets, [name]):
            carrying.setdefault(node, []).append(name)
    entering = (
        {name for source in wire.sources for name in carrying.get(source, ())} for wire in wires
    )
    return {
        wire.name: tuple(sorted(carried_origins, key=order.__getitem__))
        for wire, carried_origins in zip(wires, entering, strict=True)
    }
