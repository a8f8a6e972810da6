"""NIR in time steps: a small NumPy simulator whose conventions are explicit.

NIR defines neurons by differential equations. A framework that runs them in time steps has to decide
what NIR leaves open; a `Convention` is one such set of decisions. The reference runs a graph under any
convention. It contains no rule of any framework.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields

import numpy as np

from jaxsnn.errors import LoweringError
from jaxsnn.nir.model.graph import Graph
from jaxsnn.nir.model.node import Node, Surroundings
from jaxsnn.nir.model.passes import shapes
from jaxsnn.wording import Text

#: Relative distance of a membrane potential from its threshold below which rounding in float32 may
#: decide whether the neuron fires.
ROUNDING = 1e-5

#: Values of each field of `Convention` with their meanings. The first value is the literal reading.
MEANINGS: Mapping[str, Mapping[str, str]] = {
    "decay": {
        "euler": "a step multiplies a decaying state by 1 - dt/tau",
        "exact": "a step multiplies a decaying state by exp(-dt/tau)",
    },
    "spike": {
        "current": "a spike is a current of height 1 that lasts for one step",
        "jump": "a spike of weight w changes the state that it drives by r w, or by w_in w",
    },
    "reset": {
        "value": "a spike sets V to v_reset",
        "subtract": "a spike decreases V by v_threshold - v_reset",
        "multiples": "as many spikes in a step as v_threshold is contained in V; each decreases V by it",
    },
    "reset_time": {
        "at once": "in the step of the spike",
        "before decay": "at the start of the next step",
        "after input": "in the next step, after its decay and its input",
        "unless above": "in the step of the spike, unless V was above v_threshold before the step",
    },
    "output": {
        "at once": "a neuron sends its spike in the step in which V exceeds v_threshold",
        "next step": "a neuron sends its spike one step later",
    },
    "current": {
        "new": "V is driven by the synaptic current that contains the input of the step",
        "old": "V is driven by the synaptic current before the input of the step",
    },
    "start": {
        "zero": "V starts at 0",
        "v_leak": "V starts at v_leak",
        "v_reset": "V starts at v_reset",
    },
}


@dataclass(frozen=True, kw_only=True)
class Convention:
    """Decisions that NIR leaves to whoever runs a file in time steps; `MEANINGS` explains the values."""

    decay: str = "euler"
    spike: str = "current"
    reset: str = "value"
    reset_time: str = "at once"
    output: str = "at once"
    current: str = "new"
    start: str = "zero"

    @property
    def differences(self) -> dict[str, str]:
        """Fields that differ from the literal reading."""
        literal = Convention()
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: text for name, text in values.items() if text != getattr(literal, name)}

    def __str__(self) -> str:
        """Return the differences from the literal reading as text."""
        pairs = (f"{name.replace('_', ' ')}: {text}" for name, text in self.differences.items())
        return ", ".join(pairs) or "literal"


def conventions(graph: Graph) -> Iterator[Convention]:
    """Yield the conventions that can make a difference for a graph, those closest to the literal
    reading first.
    """
    relevant = {"decay", "spike"} if graph.neurons else set()
    for name in graph.neurons:
        node = graph.nodes[name]
        if node.traits.fires:
            relevant |= {"reset", "reset_time", "output"}
        if node.traits.current_based:
            relevant.add("current")
        if any(np.any(_value(node, key, 0.0)) for key in ("v_leak", "v_reset")):
            relevant.add("start")
    values = [
        tuple(MEANINGS[name]) if name in relevant else (next(iter(MEANINGS[name])),)
        for name in MEANINGS
    ]
    candidates = [
        Convention(**dict(zip(MEANINGS, choice, strict=True)))
        for choice in itertools.product(*values)
    ]
    # Both resets are the same where an "unless above" reset sets V to v_reset, and a neuron that sends
    # several spikes in a step has counted them then.
    candidates = [
        convention
        for convention in candidates
        if (convention.reset, convention.reset_time) != ("value", "unless above")
        and (convention.reset != "multiples" or convention.reset_time == "at once")
    ]
    yield from sorted(candidates, key=lambda convention: len(convention.differences))


@dataclass(frozen=True, kw_only=True, eq=False)
class ReferenceRun:
    """Outcome of the reference.

    Attributes:
        output: output of the graph, (time, batch, *shape).
        decided: (time, batch): False from the first step of a sample in which rounding in float32 may
            decide whether a neuron fires.
        spiking: whether the output consists of spikes.
    """

    output: np.ndarray
    decided: np.ndarray
    spiking: bool


def run_reference(graph: Graph, x: np.ndarray, dt: float, convention: Convention) -> ReferenceRun:
    """Run a graph with one Input and one Output in time steps, in float64.

    Args:
        graph: graph with time constants in the unit of dt.
        x: inputs, (time, batch, *shape).
        dt: length of a time step.
        convention: decisions that NIR leaves open.

    Raises:
        LoweringError: a node that the reference does not have, or an unknown shape.
    """
    layouts = shapes(graph)
    steps = {
        name: _step_of(graph, name, layouts[name], dt, convention, x.shape[1])
        for name in graph.order()
    }
    sources = {name: graph.predecessors(name) for name in steps}
    # Nodes whose output rounding may decide.
    deciding = {
        name: step
        for name, step in steps.items()
        if isinstance(step, _Threshold) or (isinstance(step, _Neuron) and step.fires)
    }
    # Neurons that send their spikes one step later: all others run with these spikes first.
    delayed = {
        name: step
        for name, step in deciding.items()
        if isinstance(step, _Neuron) and convention.output == "next step"
    }
    order = sorted(steps, key=lambda name: name in delayed)
    signals = {name: np.zeros((x.shape[1], *step.outward)) for name, step in steps.items()}
    (entry,), (exit_,) = graph.inputs, graph.outputs
    outputs, decided, is_decided = [], [], np.ones(x.shape[1], bool)
    for frame in x.astype(float):
        signals |= {name: neuron.sent for name, neuron in delayed.items()}
        for name in order:
            total = np.zeros((x.shape[1], *steps[name].inward))
            for source in sources[name]:
                total = total + signals[source]
            result = steps[name].advance(frame if name == entry else total)
            if name not in delayed:
                signals[name] = result
        for step in deciding.values():
            is_decided = is_decided & step.is_clear
        outputs.append(signals[exit_])
        decided.append(is_decided)
    ends = list(sources[exit_])
    while any(type(steps[name]) is _Step for name in ends):  # ports of subgraphs
        ends = [
            source
            for name in ends
            for source in (sources[name] if type(steps[name]) is _Step else (name,))
        ]
    spiking = all(name in deciding for name in ends)
    return ReferenceRun(output=np.stack(outputs), decided=np.stack(decided), spiking=spiking)


class _Step:
    """One node without a state: it passes its input on."""

    def __init__(self, inward: tuple[int, ...], outward: tuple[int, ...], batch: int) -> None:
        self.inward, self.outward, self.batch = inward, outward, batch

    def advance(self, x: np.ndarray) -> np.ndarray:
        """Return the output of the step for its input (batch, *inward)."""
        return x


class _Linear(_Step):
    """A linear node: a matrix (outputs, inputs) and a bias."""

    def __init__(self, node: Node, graph: Graph, *layout: object) -> None:
        super().__init__(*layout)  # pyright: ignore[reportArgumentType]
        traits = node.traits
        parameters = {
            name: np.asarray(value)
            for name, value in node.parameters.items()
            if not isinstance(value, str)
        }
        around = Surroundings(
            inward=self.inward, outward=self.outward, dialect=graph.dialect, parameters=parameters
        )
        detail = None if traits.detail is None else traits.detail(node, around)
        assert traits.entries is not None
        source, target, value = traits.entries(parameters, detail, self.inward)
        self.matrix = np.zeros((math.prod(self.outward), math.prod(self.inward)))
        np.add.at(self.matrix, (target, source), np.broadcast_to(value, np.shape(source)))
        bias = np.zeros(()) if traits.bias is None else np.asarray(node.value(traits.bias), float)
        # The bias of a convolution has one number for each channel.
        self.bias = (
            bias.reshape(bias.shape + (1,) * (len(self.outward) - bias.ndim)) if bias.ndim else bias
        )

    def advance(self, x: np.ndarray) -> np.ndarray:
        """Return the product with the matrix, and the bias."""
        y = x.reshape(self.batch, -1) @ self.matrix.T
        return y.reshape(self.batch, *self.outward) + self.bias


class _Delay(_Step):
    """A Delay, rounded to time steps."""

    def __init__(self, steps: np.ndarray, *layout: object) -> None:
        super().__init__(*layout)  # pyright: ignore[reportArgumentType]
        self.steps = np.broadcast_to(steps, self.inward)
        self.past = np.zeros((int(self.steps.max(initial=0)) + 1, self.batch, *self.inward))

    def advance(self, x: np.ndarray) -> np.ndarray:
        """Return the inputs from `steps` time steps ago."""
        self.past = np.concatenate([x[None], self.past[:-1]])
        index = np.broadcast_to(self.steps, (1, self.batch, *self.inward))
        return np.take_along_axis(self.past, index, axis=0)[0]


class _Threshold(_Step):
    """A Threshold: 1 where its input exceeds it."""

    def __init__(self, threshold: np.ndarray, *layout: object) -> None:
        super().__init__(*layout)  # pyright: ignore[reportArgumentType]
        self.threshold = threshold
        self.is_clear = np.ones(self.batch, bool)

    def advance(self, x: np.ndarray) -> np.ndarray:
        """Return 1 or 0."""
        self.is_clear = _is_clear(x, self.threshold)
        return (x > self.threshold).astype(float)


class _Neuron(_Step):
    """A population: LIF, IF, CubaLIF, and without spikes LI, I, CubaLI."""

    def __init__(self, node: Node, dt: float, convention: Convention, *layout: object) -> None:
        super().__init__(*layout)  # pyright: ignore[reportArgumentType]
        self.convention = convention
        self.fires, self.has_current = node.traits.fires, node.traits.current_based
        tau = _value(node, "tau_mem" if self.has_current else "tau", np.inf)
        self.leak, self.reset = _value(node, "v_leak", 0.0), _value(node, "v_reset", 0.0)
        self.threshold = _value(node, "v_threshold", np.inf)
        gain = _value(node, "r", 1.0)
        if "tau" not in node.names and not self.has_current:  # IF and I: V' = R S
            self.share, self.gain = np.zeros(()), dt * gain
        else:
            self.share = _share(dt, tau, convention)
            self.gain = self.share * gain
        if not self.has_current and convention.spike == "jump":
            self.gain = gain
        if self.has_current:
            self.current_share = _share(dt, _value(node, "tau_syn", np.inf), convention)
            w_in = _value(node, "w_in", 1.0)
            self.current_gain = w_in if convention.spike == "jump" else self.current_share * w_in
        start = {"zero": np.zeros(()), "v_leak": self.leak, "v_reset": self.reset}[convention.start]
        self.v = np.array(np.broadcast_to(start, (self.batch, *self.inward)), float)
        self.current = np.zeros_like(self.v)
        self.fired = np.zeros(self.v.shape, bool)
        self.sent = np.zeros(self.v.shape)
        self.is_clear = np.ones(self.batch, bool)

    def advance(self, x: np.ndarray) -> np.ndarray:
        """Return spikes, or the membrane potential of a population without spikes."""
        convention, v, fired_before = self.convention, self.v, self.fired
        if self.fires and convention.reset_time == "before decay":
            v = self._reset(v, fired_before)
        old_current = self.current
        if self.has_current:
            self.current = old_current + self.current_gain * x - self.current_share * old_current
            x = self.current if convention.current == "new" else old_current
        v = v + self.share * (self.leak - v) + self.gain * x
        if not self.fires:
            self.v = v
            return v
        if convention.reset_time == "after input":
            v = self._reset(v, fired_before)
        above = self.v > self.threshold
        if convention.reset_time == "unless above":
            # The neuron is tested after the subtraction that it was spared in the step before.
            v = self._reset(v, above)
        self.fired = v > self.threshold
        self.is_clear = _is_clear(v, self.threshold)
        self.sent = self.fired.astype(float)
        if convention.reset == "multiples":
            height = self.threshold - self.reset
            self.sent = np.floor(np.maximum(v - self.reset, 0) / height)
            self.is_clear &= _is_clear(v - self.reset, height * (self.sent + 1))
            self.is_clear &= _is_clear(v - self.reset, height * np.maximum(self.sent, 1))
            self.v = v - self.sent * height
            return self.sent
        if convention.reset_time == "at once":
            v = self._reset(v, self.fired)
        elif convention.reset_time == "unless above":
            height = self.threshold - self.reset
            v = v - (self.fired.astype(float) - above) * height
        self.v = v
        return self.sent

    def _reset(self, v: np.ndarray, fired: np.ndarray) -> np.ndarray:
        if self.convention.reset == "value":
            return np.where(fired, self.reset, v)
        return v - fired * (self.threshold - self.reset)


def _is_clear(v: np.ndarray, threshold: np.ndarray) -> np.ndarray:
    """Return for each sample whether rounding in float32 cannot move V across the threshold."""
    distance = np.abs(v - threshold) / np.maximum(np.abs(threshold), ROUNDING)
    return np.asarray((distance > ROUNDING).reshape(len(v), -1).all(axis=1))


def _value(node: Node, name: str, default: float) -> np.ndarray:
    """Return a parameter; the default if the type or the file does not have it."""
    value = node.parameters.get(name)
    return np.asarray(default if value is None else value, float)


def _share(dt: float, tau: np.ndarray, convention: Convention) -> np.ndarray:
    """Return the fraction by which a state decays in a time step."""
    with np.errstate(divide="ignore", over="ignore"):
        return dt / tau if convention.decay == "euler" else -np.expm1(-dt / tau)


def _step_of(
    graph: Graph,
    name: str,
    inward_and_outward: tuple[tuple[int, ...] | None, tuple[int, ...] | None],
    dt: float,
    convention: Convention,
    batch: int,
) -> _Step:
    """Return the state of a node before the first time step."""
    node = graph.nodes[name]
    inward, outward = inward_and_outward
    if inward is None or outward is None:
        raise LoweringError(
            Text("the shape of node '{node}' is unknown", node=name),
            fix="specify the shape of the Input",
            node=name,
        )
    layout = inward, outward, batch
    if node.traits.state:
        return _Neuron(node, dt, convention, *layout)
    if node.traits.delays:
        steps = np.rint(np.asarray(node.value("delay"), float) / dt).astype(int)
        return _Delay(steps, *layout)
    if node.traits.entries is not None:
        return _Linear(node, graph, *layout)
    if node.type == "Threshold":
        return _Threshold(np.asarray(node.value("threshold"), float), *layout)
    if node.traits.port:
        return _Step(*layout)
    raise LoweringError(
        Text("the reference cannot run node '{node}' ({type})", node=name, type=node.type),
        fix="remove the node",
        node=name,
    )
