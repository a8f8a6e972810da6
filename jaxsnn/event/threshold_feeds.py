"""NIR's Threshold in a network: which readout feeds it, and what then carries levels, spikes and
voltages.

Nothing here loads JAX.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass

from jaxsnn.errors import UsageError, listing, suggestion
from jaxsnn.network.structure import Population, Wire, carriers
from jaxsnn.options import THRESHOLD
from jaxsnn.wording import Text

#: How the event engine can simulate a Threshold: as NIR's documentation has it, or as an event at
#: each upward crossing.
READINGS = ("level", "event")


@dataclass(frozen=True, kw_only=True)
class Feed:
    """What feeds a Threshold.

    Attributes:
        readout: the neurons whose voltage it looks at; None where there are no such neurons.
        through: the Scale and Flatten nodes on the way, in the order of the signal.
        obstacle: what feeds it instead, in words.
        pooled: that is the sum of a window: the largest of spikes (MaxPool2d).
    """

    readout: str | None = None
    through: tuple[Wire, ...] = ()
    obstacle: str = ""
    pooled: bool = False


def feed_of(threshold: Wire, wires: Mapping[str, Wire]) -> Feed:
    """Look back from a Threshold to the neurons before it, through Scale and Flatten nodes alone.

    Args:
        wires: all nodes by name.
    """
    # Found from the Threshold backwards; `Feed.through` is in the order of the signal.
    through: list[Wire] = []
    here = threshold
    while True:
        if len(here.sources) != 1:
            where = "" if here is threshold else f" at '{here.name}'"
            return Feed(obstacle=f"adds up what {listing(here.sources)} send{where}")
        source = wires[here.sources[0]]
        if source.kind == "neuron":
            return Feed(readout=source.name, through=tuple(through[::-1]))
        if source.kind == "input":
            return Feed(obstacle=f"receives the input '{source.name}'")
        # A node that was passed before closes a cycle, which has no beginning.
        if source.kind not in ("Scale", "Flatten") or source in through:
            return Feed(
                obstacle=f"receives what '{source.name}' ({source.kind}) sends",
                pooled=source.kind == "SumPool2d",
            )
        through.append(source)
        here = source


def feeds(wires: Iterable[Wire]) -> dict[str, Feed]:
    """Threshold -> what feeds it."""
    by_name = {wire.name: wire for wire in wires}
    return {
        wire.name: feed_of(wire, by_name) for wire in by_name.values() if wire.kind == "Threshold"
    }


def leveled(wires: Iterable[Wire]) -> set[str]:
    """Names of the neurons that what Thresholds send arrives at."""
    wires = tuple(wires)
    return reached(wires, [wire.name for wire in wires if wire.kind == "Threshold"])


def reached(wires: Iterable[Wire], origins: Iterable[str]) -> set[str]:
    """Names of the neurons that what some nodes send arrives at, directly or through linear
    nodes.
    """
    wires = tuple(wires)
    levels = carriers(wires, origins)
    # A level passes linear nodes and ends at neurons.
    return {
        wire.name for wire in wires if wire.kind == "neuron" and not levels.isdisjoint(wire.sources)
    }


def mixed(
    wires: Iterable[Wire], populations: Mapping[str, Population], lasting: Collection[str]
) -> Iterator[tuple[str, str, str]]:
    """Neurons at which levels arrive and spikes too: their name, a node that brings a level, and
    one that brings spikes.

    Args:
        lasting: the Thresholds and inputs that are levels.
    """
    wires = tuple(wires)
    levels = carriers(wires, lasting)
    firing = [name for name, population in populations.items() if population.fires]
    inputs = [wire.name for wire in wires if wire.kind == "input" and wire.name not in lasting]
    spikes = carriers(wires, [*firing, *inputs])
    # One linear node can carry both: then it stands for both sources.
    for wire in wires:
        both = not levels.isdisjoint(wire.sources) and not spikes.isdisjoint(wire.sources)
        if wire.kind == "neuron" and both:
            level = next(source for source in wire.sources if source in levels)
            yield wire.name, level, next(source for source in wire.sources if source in spikes)


def check_reading(reading: object) -> None:
    """Refuse what is not a way to simulate a Threshold.

    Raises:
        UsageError: it is not one of `READINGS`.
    """
    if reading not in READINGS:
        raise UsageError(
            Text(
                "{threshold} is {reading!r}, which is not a way to simulate a Threshold",
                threshold=THRESHOLD,
                reading=reading,
            ),
            fix=suggestion(str(reading), READINGS),
        )
