"""The time-stepped engine: simulates a network as the framework that wrote it does, step by step.

Where no cycle ties the nodes together, it goes node by node: a matrix product or convolution for
all steps at once, then one loop over time for the neurons alone. A cycle is one loop over time for
all of its nodes.
"""

from dataclasses import dataclass, field

import jax

from jaxsnn.grid.linear import delayed
from jaxsnn.grid.neuron import StepInput
from jaxsnn.grid.over_time import OverTime, play_cycle, play_population
from jaxsnn.grid.parts import Parts, take_apart, total
from jaxsnn.grid.surrogate import FastSigmoid, Surrogate
from jaxsnn.network.cycles import Cycle, groups
from jaxsnn.network.network import Network
from jaxsnn.network.structure import Wire

_SURROGATE = FastSigmoid()


@dataclass(frozen=True, kw_only=True)
class Grid:
    """Simulation in steps of equal length.

    Attributes:
        dt: length of a step, seconds. None: that of the framework that wrote the file. It may be
            given where the file does not say it; a network is not simulated with another step than
            its own.
        surrogate: what stands in for the derivative of a spike: `FastSigmoid`, `ArcTan`, `Sigmoid`,
            `StraightThrough`.
        detach_reset: whether gradients leave out what a reset does. None: as the framework does by
            default. snnTorch leaves out those that act at the beginning of a step; Norse,
            SpikingJelly and Spyx leave out none.
        record: names of the populations whose spikes and membranes are kept at every step; True:
            all.
    """

    dt: float | None = None
    surrogate: Surrogate = _SURROGATE
    detach_reset: bool | None = None
    record: bool | tuple[str, ...] = ()

    def records(self, name: str) -> bool:
        """Whether a population is recorded."""
        return self.record if isinstance(self.record, bool) else name in self.record


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class GridRecord:
    """What a run leaves, by NIR node name; arrays (time, batch, *shape).

    Attributes:
        y: Output node -> what arrives there.
        spikes: recorded population that fires -> spikes.
        voltages: recorded population -> membranes at the end of each step, after a reset.
        finite: population -> whether its membranes were finite at the end, scalar bool.
    """

    y: dict[str, jax.Array] = field(default_factory=dict)
    spikes: dict[str, jax.Array] = field(default_factory=dict)
    voltages: dict[str, jax.Array] = field(default_factory=dict)
    finite: dict[str, jax.Array] = field(default_factory=dict)


def run(network: Network, inputs: dict[str, jax.Array], engine: Grid) -> GridRecord:
    """Simulate a batch.

    Args:
        inputs: Input node -> (time, batch, *shape), in the network's dtype.

    Raises:
        LoweringError: something is needed and unknown, or a node is not supported.
        UsageError: `engine.dt` contradicts the network.
    """
    parts = take_apart(
        network, dt=engine.dt, surrogate=engine.surrogate, detach_reset=engine.detach_reset
    )
    recorded = tuple(name for name in parts.neurons if engine.records(name))
    over_time = OverTime(lead=next(iter(inputs.values())).shape[:2], recorded=recorded)
    record = GridRecord()
    signals: dict[str, StepInput] = {}
    for group in groups(network.wires):
        if isinstance(group, Cycle):
            played = play_cycle(parts, group, signals, over_time)
        elif group.kind == "neuron":
            played = play_population(parts, group, signals, over_time)
        else:
            signals[group.name] = _through(parts, group, signals, inputs)
            continue
        signals |= played.signals
        record.voltages.update(played.voltages)
        record.finite.update(played.finite)
    for wire in network.wires:
        if wire.kind == "output":
            record.y[wire.name] = signals[wire.name].only
    for name in recorded:
        if parts.neurons[name].population.fires:
            record.spikes[name] = signals[name].only
    return record


def _through(
    parts: Parts, wire: Wire, signals: dict[str, StepInput], inputs: dict[str, jax.Array]
) -> StepInput:
    """A signal over all steps after a node that is no neuron."""
    if wire.kind == "input":
        return parts.emitted(inputs[wire.name], spikes=True)
    entering = total([signals[source] for source in wire.sources])
    if wire.kind == "output":
        return entering
    if wire.kind == "Delay":
        return jax.tree.map(lambda x: delayed(parts.delays[wire.name], x), entering)
    return parts.through(wire, entering)
