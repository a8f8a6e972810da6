"""The event engine: a whole network, exact in continuous time.

Populations that feed back into each other run together, all others one after the other.
"""

import jax.numpy as jnp

from jaxsnn.errors import refuse
from jaxsnn.event.event_options import Event as Event
from jaxsnn.event.event_record import Budget as Budget
from jaxsnn.event.event_record import EventRecord as EventRecord
from jaxsnn.event.event_record import Levels as Levels
from jaxsnn.event.event_record import empty_record
from jaxsnn.event.limits import event_limits
from jaxsnn.event.populations import FeedForwardPart, RecurrentPart
from jaxsnn.event.projections.arrivals import Train
from jaxsnn.event.projections.driven_signals import arriving as arriving_signals
from jaxsnn.event.projections.sources import Sources
from jaxsnn.event.threshold_node import ThresholdPart
from jaxsnn.network.cycles import Cycle, groups
from jaxsnn.network.network import Network
from jaxsnn.network.spikes import Events


def run(
    network: Network, inputs: dict[str, Events], t_end, sample_times, engine: Event
) -> EventRecord:
    """Simulate a batch.

    Args:
        inputs: input name -> Events (batch, events).
        t_end: seconds.
        sample_times: (samples,) seconds, where readouts are sampled.

    Raises:
        LoweringError: the network has something that the engine does not run, or that nobody said.
    """
    refuse(event_limits(network.wires, network.populations, engine.threshold))
    arriving = arriving_signals(network)
    trains = {name: Train(events.time, events.index) for name, events in inputs.items()}
    gathered = frozenset(
        source
        for signal in arriving.values()
        for source, operator in signal.paths
        if operator.source is not None and source not in network.inputs
    )
    thresholds = frozenset(wire.name for wire in network.wires if wire.kind == "Threshold")
    sources = Sources(
        network=network,
        engine=engine,
        arriving=arriving,
        trains=trains,
        gathered=gathered,
        levels=thresholds if engine.threshold == "level" else frozenset(),
    )
    record = empty_record()
    end = jnp.asarray(t_end, network.dtype)
    for part in groups(network.wires):
        if isinstance(part, Cycle):
            RecurrentPart(sources, part.order).run(record, end)
        elif part.kind == "neuron":
            FeedForwardPart(sources, part.name).run(record, end, sample_times)
        elif part.kind == "Threshold":
            ThresholdPart(sources, part.name).run(record, end)
    return record


def event_approximations(network: Network, engine: Event) -> tuple[str, ...]:
    """What is played otherwise than NIR means it; a sentence each."""
    found = [
        f"node '{wire.name}' (Threshold) fires once where its input comes to the threshold from below, by NIR's "
        "documentation it is 1 for as long as that is above"
        for wire in network.wires
        if wire.kind == "Threshold" and engine.threshold == "event"
    ]
    for name in (
        name for part in groups(network.wires) if isinstance(part, Cycle) for name in part.order
    ):
        population = network.populations[name]
        if population.recurrent_delay and population.dt:
            late = population.recurrent_delay * population.dt
            found.append(
                f"node '{name}': what it sends back, to itself or a population before it, arrives {late:g} s later, as "
                "in the framework that wrote the file"
            )
    return tuple(found)
