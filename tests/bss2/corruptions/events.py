"""Events from the host."""

import dataclasses

import numpy as np

from jaxsnn.bss2.mapping import Source
from tests.bss2.corruptions.common import CORRUPTIONS, corruption, feeds, pick, some_run, with_run


def on_source(change):
    """Changes one source of a run; `change(source, mapping, run, random)` gives its events, or the
    source.
    """

    def corrupt(mapping, net, random):
        number, run = some_run(mapping, random)
        feeding = [
            place for place, one in enumerate(run.sources) if one.events and feeds(net, one, run)
        ]
        place = pick(random, feeding)
        if place is None:
            return None
        sources = list(run.sources)
        changed = change(sources[place], mapping, run, random)
        if changed is None:
            return None
        sources[place : place + 1] = [changed] if isinstance(changed, Source) else list(changed)
        return with_run(mapping, number, sources=tuple(sources)), net

    CORRUPTIONS[change.__name__] = corrupt
    return change


def with_first_event(source, event):
    return dataclasses.replace(source, events=(event, *source.events[1:]))


@on_source
def event_label_bit(source, mapping, run, random):
    return with_first_event(
        source, source.events[0] ^ 1 << int(random.integers(mapping.chip.label_bits))
    )


@on_source
def event_link(source, mapping, run, random):
    chip = mapping.chip
    return with_first_event(
        source, source.events[0] ^ int(random.integers(1, chip.buses)) << chip.event_bits
    )


@on_source
def event_row_select_of_no_driver(source, mapping, run, random):
    chip = mapping.chip
    bits = int(np.bitwise_or.reduce(run.compare_masks, axis=None))
    if not bits:
        return None
    return with_first_event(source, source.events[0] ^ (bits & -bits) << chip.label_bits)


@on_source
def event_to_no_hemisphere(source, mapping, run, random):
    event = source.events[0]
    changed = event | 3 << (mapping.chip.event_bits - 2)
    return None if changed == event else with_first_event(source, changed)


@on_source
def event_beyond_the_links(source, mapping, run, random):
    return with_first_event(
        source, source.events[0] + (mapping.chip.buses << mapping.chip.event_bits)
    )


@on_source
def event_not_sent(source, mapping, run, random):
    return dataclasses.replace(source, events=source.events[1:])


@on_source
def event_sent_twice(source, mapping, run, random):
    return dataclasses.replace(source, events=(*source.events, source.events[0]))


@on_source
def event_of_another_source_too(source, mapping, run, random):
    others = [one for one in run.sources if one != source and one.events]
    other = pick(random, others)
    return (
        None
        if other is None
        else dataclasses.replace(source, events=(*source.events, other.events[0]))
    )


@on_source
def source_removed(source, mapping, run, random):
    return ()


@on_source
def source_listed_twice(source, mapping, run, random):
    return (source, source)


@on_source
def source_that_the_net_has_not(source, mapping, run, random):
    return dataclasses.replace(source, index=10**6)


@on_source
def source_recorded_in_its_own_run(source, mapping, run, random):
    number = next(place for place, one in enumerate(mapping.runs) if one is run)
    return dataclasses.replace(source, from_run=number)


@on_source
def source_with_another_origin(source, mapping, run, random):
    return dataclasses.replace(source, from_run=0 if source.from_run is None else None)


@corruption
def events_of_two_sources_swapped(mapping, net, random):
    number, run = some_run(mapping, random)
    feeding = [
        place for place, one in enumerate(run.sources) if one.events and feeds(net, one, run)
    ]
    if len(feeding) < 2:
        return None
    first, second = (int(place) for place in random.choice(feeding, 2, replace=False))
    sources = list(run.sources)
    sources[first], sources[second] = (
        dataclasses.replace(sources[first], events=sources[second].events),
        dataclasses.replace(sources[second], events=sources[first].events),
    )
    return with_run(mapping, number, sources=tuple(sources)), net
