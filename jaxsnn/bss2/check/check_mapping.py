"""Verifies a mapping: sends the events of every source through the chip and compares the responding
synapses with the netlist.

The check uses only the chip, the mapping and the netlist. It is independent of the search, so that
it finds errors of placers and routers.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np

from jaxsnn.bss2.check.legality import (
    Members,
    array_violations,
    dead_violations,
    event_violations,
    existing,
    members,
    neuron_violations,
    on_chip,
    order_violations,
    setting_violations,
    synapse_violations,
)
from jaxsnn.bss2.check.propagate import ChipEvents, events_of, passed, responses
from jaxsnn.bss2.chip import HEMISPHERES, Chip
from jaxsnn.bss2.mapping import SIGNS, Mapping, Run
from jaxsnn.bss2.netlist import Netlist
from jaxsnn.bss2.quantization import shown_option
from jaxsnn.errors import MappingError, Problem, refuse_type
from jaxsnn.keywords import suggests_keywords
from jaxsnn.wording import Text

_MAP_AGAIN = "map the network again"
_OTHER_OPTIONS = f"{_MAP_AGAIN}, or pass the quantisation options with which it was made"


@suggests_keywords
def check_mapping(mapping: Mapping, net: Netlist) -> tuple[Problem, ...]:
    """Return all violations of a mapping; none if it is correct.

    The `node` of each `Problem` is the location: the run, and the neuron, circuit, synapse or
    crossbar node.

    A mapping is correct if

    - every neuron of the netlist is placed once, on circuits that exist and work;
    - spikes that a run replays were recorded by an earlier run;
    - recurrently connected neurons are in the same run;
    - a spike of each source makes exactly the synapses of the netlist respond, with their signs and
      weights;
    - with free signs, the synapse in the driver's other row is unused.

    >>> import numpy as np
    >>> from jaxsnn.bss2.chip import NOTHING_DEAD, SMALL
    >>> from jaxsnn.bss2.mapping import Mapping
    >>> from jaxsnn.bss2.netlist import netlist
    >>> net = netlist([], [], [], [])
    >>> fields = {"signs": "fixed", "seed": 0, "fingerprint": "", "populations": (), "runs": ()}
    >>> empty = Mapping(chip=SMALL, dead=NOTHING_DEAD, **fields)
    >>> check_mapping(empty, net)[0].code
    'other-net'

    Raises:
        UsageError: An argument has another type.
    """
    for argument, expected in ((mapping, Mapping), (net, Netlist)):
        refuse_type(
            argument,
            expected,
            fix="pass jaxsnn.place_and_route(net).mapping, and its netlist, "
            "jaxsnn.quantize(graph).netlist",
        )
    violations = list(_net_violations(mapping, net))
    violations += dead_violations(mapping.chip, mapping.dead)
    if any(violation.code in ("other-populations", "no-such-part") for violation in violations):
        return tuple(violations)
    runs = tuple(members(net, run) for run in mapping.runs)
    violations += order_violations(mapping, net, runs)
    for number, (run, inside) in enumerate(zip(mapping.runs, runs, strict=True)):
        violations += _run_violations(mapping, net, run, inside, f"run {number}")
    return tuple(violations)


def located(violation: Problem) -> str:
    """Return a violation as text, the location first."""
    return f"{violation.node}: {violation.as_text()}"


def refuse_undrawable(mapping: Mapping) -> None:
    """Refuse a mapping with parts that do not exist on the chip, for any netlist.

    Raises:
        MappingError: The mapping is damaged; the message has the location and the reason.
    """
    violations = list(dead_violations(mapping.chip, mapping.dead))
    for number, run in enumerate(mapping.runs):
        location = f"run {number}"
        broken = list(array_violations(mapping.chip, run, location))
        violations += broken
        if broken:
            continue
        neuron_names = {
            place: f"entry {place}" for place in range(max(len(run.neurons), len(run.sources)))
        }
        violations += neuron_violations(mapping, run, neuron_names, location)
        violations += setting_violations(mapping.chip, run, location)
        everywhere = np.ones((HEMISPHERES, mapping.chip.columns), bool)
        violations += synapse_violations(mapping, run, everywhere, location)
        for member in (*run.neurons, *run.sources):
            if not 0 <= member.population < len(mapping.populations):
                message = Text(
                    "population {population} does not exist; the mapping has {populations} populations",
                    population=member.population,
                    populations=len(mapping.populations),
                )
                violations.append(Problem(code="no-such-part", node=location, message=message))
    if violations:
        raise MappingError(
            Text(
                "the mapping is damaged in {location}: {reason}",
                location=violations[0].node,
                reason=violations[0].message,
            ),
            fix=_MAP_AGAIN,
            node=violations[0].node,
            code=violations[0].code,
        )


def refuse_wrong(mapping: Mapping, net: Netlist) -> None:
    """Refuse a mapping with violations.

    Raises:
        MappingError: The mapping has violations; the message has their number and the first one.
    """
    violations = check_mapping(mapping, net)
    if not violations:
        return
    first, count = violations[0], len(violations)
    many = Text("{count} violations, the first", count=count) if count > 1 else "one violation"
    raise MappingError(
        Text(
            "the mapping has {violations} in {location}: {reason}",
            violations=many,
            location=first.node,
            reason=first.message,
        ),
        fix=first.fix or _MAP_AGAIN,
        node=first.node,
        code=first.code,
    )


def _net_violations(mapping: Mapping, net: Netlist) -> Iterator[Problem]:
    if mapping.signs not in SIGNS:
        message = Text("signs are '{signs}', not 'fixed' or 'free'", signs=mapping.signs)
        yield Problem(code="bad-signs", node="mapping", message=message)
    ours, theirs = (
        [(part.name, part.size, part.external) for part in parts]
        for parts in (mapping.populations, net.populations)
    )
    if ours != theirs:
        message = Text(
            "its populations are {actual}; the netlist has {expected}", actual=ours, expected=theirs
        )
        yield Problem(code="other-populations", node="mapping", message=message, fix=_MAP_AGAIN)
    scales, population_names = (
        mapping.specified_scales,
        [part.name for part in net.populations if not part.external],
    )
    if scales is not None:
        for name in population_names:
            if name not in scales:
                message = Text(
                    "it has scales for {count} populations, but none for '{population}'",
                    count=len(scales),
                    population=name,
                )
                yield Problem(code="bad-scales", node="mapping", message=message, fix=_MAP_AGAIN)
        for name in scales:
            if name not in population_names:
                message = Text(
                    "it has a scale for '{population}', which is not a population of the netlist",
                    population=name,
                )
                yield Problem(code="bad-scales", node="mapping", message=message, fix=_MAP_AGAIN)
    stored, fix = mapping.quantization, _OTHER_OPTIONS
    if mapping.fingerprint != (fingerprint := net.fingerprint(mapping.scales, stored)):
        message = Text(
            "it was made for the netlist {actual}, not for {expected}",
            actual=mapping.fingerprint[:12],
            expected=fingerprint[:12],
        )
        if stored is not None:
            message += ", or its options of quantisation were changed"
        elif scales is not None:
            message += ", or its scales were changed"
        yield Problem(code="other-net", node="mapping", message=message, fix=fix)
    if stored is not None and net.quantization is not None:
        for option, actual, expected in stored.differences(net.quantization):
            message = Text(
                "it was made with {option} {actual}, and the network was quantised with {expected}",
                option=option,
                actual=shown_option(option, actual),
                expected=shown_option(option, expected),
            )
            yield Problem(code="other-quantization", node="mapping", message=message, fix=fix)


def _run_violations(
    mapping: Mapping, net: Netlist, run: Run, inside: Members, location: str
) -> Iterator[Problem]:
    broken = list(array_violations(mapping.chip, run, location))
    if broken:
        yield from broken
        return
    neuron_names = {
        number: net.neuron(index)
        for number, index in enumerate(inside.neurons.tolist())
        if index >= 0
    }
    source_names = {
        number: net.neuron(index)
        for number, index in enumerate(inside.sources.tolist())
        if index >= 0
    }
    for listed, names_by_position in ((run.neurons, neuron_names), (run.sources, source_names)):
        for number in range(len(listed)):
            names_by_position.setdefault(
                number, f"entry {number}"
            )  # not in the net; `order_violations` reports it
    yield from neuron_violations(mapping, run, neuron_names, location)
    yield from event_violations(mapping, run, source_names, location)
    yield from setting_violations(mapping.chip, run, location)
    place = np.full((HEMISPHERES, mapping.chip.columns), -1)
    for number, neuron in enumerate(run.neurons):
        for circuit in neuron.circuits:
            if on_chip(mapping.chip, circuit):
                place[circuit] = number
    yield from synapse_violations(mapping, run, place >= 0, location)
    events = events_of(mapping.chip, run, inside.neurons, inside.sources)
    reached = passed(events, run.crossbar)
    yield from _recording_violations(mapping.chip, net, events, reached, location)
    yield from _response_violations(
        mapping.chip, net, run, inside, place, events, reached, location
    )


def _recording_violations(
    chip: Chip,
    net: Netlist,
    events: ChipEvents,
    reached: tuple[np.ndarray, np.ndarray],
    location: str,
) -> Iterator[Problem]:
    """Yield neurons whose spikes the host does not receive, or cannot distinguish from others."""
    number, output = reached
    to_host = output >= chip.link_output(0)
    number, output = number[to_host], output[to_host]
    missing = np.setdiff1d(np.flatnonzero(events.recorded), number)
    for event in missing.tolist():
        address = events.address[event]
        message = Text(
            "its spikes are to be recorded, but no crossbar node passes events with address "
            "{address} to the host",
            address=address,
        )
        yield Problem(
            code="not-recorded",
            node=f"{location}: {net.neuron(events.sender[event])}",
            message=message,
        )
    label = output << chip.event_bits | events.address[number]
    for event in number[events.recorded[number]].tolist():
        alike = number[(label == label[number == event][0]) & (number != event)]
        for twin in alike[:1].tolist():
            message = Text(
                "the host cannot distinguish its spikes from those of {neuron}: they have the same "
                "address on the same link",
                neuron=net.neuron(events.sender[twin]),
            )
            yield Problem(
                code="same-record",
                node=f"{location}: {net.neuron(events.sender[event])}",
                message=message,
            )


def _response_violations(
    chip: Chip,
    net: Netlist,
    run: Run,
    inside: Members,
    place: np.ndarray,
    events: ChipEvents,
    reached: tuple[np.ndarray, np.ndarray],
    location: str,
) -> Iterator[Problem]:
    """Yield synapses and weights whose responses differ from those of the net."""
    senders = np.unique(
        np.concatenate([inside.neurons[inside.neurons >= 0], inside.sources[inside.sources >= 0]])
    )
    synapses = run.synapses[existing(chip, run)]
    actual = responses(
        chip,
        events,
        reached,
        dataclasses.replace(run, synapses=synapses),
        np.searchsorted(senders, events.sender),
        place,
        (len(senders), len(run.neurons)),
    )
    for hemisphere, row, column, label in synapses[actual.idle, :4].tolist():
        message = Text(
            "no event reaches it: its row is disabled, or no event that its driver accepts has "
            "the label {label}",
            label=label,
        )
        here = f"{location}: synapse ({hemisphere}, {row}, {column})"
        yield Problem(code="idle-synapse", node=here, message=message)
    expected = _connection_weights(net, senders, inside.neurons)
    differs = np.any(
        actual.sums != np.stack([np.maximum(expected, 0), np.maximum(-expected, 0)]), axis=0
    )
    for sender, neuron in np.argwhere(differs & (inside.neurons >= 0)).tolist():
        excited, inhibited = actual.sums[:, sender, neuron].tolist()
        yield _difference(
            int(expected[sender, neuron]),
            excited,
            inhibited,
            f"{location}: {net.neuron(senders[sender])} to {net.neuron(inside.neurons[neuron])}",
        )


def _connection_weights(net: Netlist, senders: np.ndarray, neurons: np.ndarray) -> np.ndarray:
    """Return the net's weights, (senders, neurons)."""
    weights = np.zeros((len(senders), len(neurons)), np.int64)
    column = np.full(net.size + 1, -1)
    column[neurons] = np.arange(len(neurons))
    row = np.full(net.size, -1)
    row[senders] = np.arange(len(senders))
    inside = (column[net.post] >= 0) & (row[net.pre] >= 0)
    weights[row[net.pre[inside]], column[net.post[inside]]] = net.weight[inside]
    return weights


def _difference(weight: int, excited: int, inhibited: int, location: str) -> Problem:
    got = Text(
        "on the chip, it excites with weight {excitation} and inhibits with weight {inhibition}",
        excitation=excited,
        inhibition=inhibited,
    )
    if weight == 0:
        return Problem(
            code="unwanted",
            node=location,
            message=Text("the netlist has no such connection; {actual}", actual=got),
        )
    if excited == inhibited == 0:
        return Problem(
            code="missing",
            node=location,
            message=Text(
                "the netlist has weight {weight}; on the chip, no synapse responds", weight=weight
            ),
        )
    with_its_sign, against_its_sign = (excited, inhibited) if weight > 0 else (inhibited, excited)
    code = (
        "wrong-sign" if with_its_sign == 0 and against_its_sign == abs(weight) else "wrong-weight"
    )
    return Problem(
        code=code,
        node=location,
        message=Text("the netlist has weight {weight}; {actual}", weight=weight, actual=got),
    )
