"""`jaxsnn compare`: compares the recording of a chip with a simulation of the network."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from jaxsnn.commands.arguments import (
    add_command,
    add_file,
    add_notes,
    print_outcome,
    read_graph,
    time_of,
)
from jaxsnn.errors import Note, UsageError, listing
from jaxsnn.options import INPUT, MAX_SPIKES, T_END
from jaxsnn.units import format_time
from jaxsnn.wording import Option, Text


@dataclass(frozen=True, kw_only=True)
class CompareOutcome:
    """Outcome of `jaxsnn compare`.

    Attributes:
        populations: population -> residuals of its spikes.
        accuracy, expected_accuracy: accuracy by the first spikes of the last population, recorded
            and simulated; None if the inputs have no labels.
        notes: notes on populations and outputs that were not compared, a sentence each.
        mapping: fingerprint of the recorded mapping; None if unknown.
        mapping_checked: whether it is that of the specified mapping.
        refractory: refractory period of the chip and of the simulation, seconds of the network; None
            if unknown, and the simulation has none.
    """

    populations: dict[str, Any]
    accuracy: float | None
    expected_accuracy: float | None
    notes: tuple[str, ...] = ()
    mapping: str | None = None
    mapping_checked: bool = False
    refractory: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return a JSON-compatible dict."""
        return {
            "schema": 1,
            "populations": {
                name: population_residuals.as_dict()
                for name, population_residuals in self.populations.items()
            },
            "accuracy": self.accuracy,
            "expected_accuracy": self.expected_accuracy,
            "mapping": self.mapping,
            "mapping_checked": self.mapping_checked,
            "refractory": self.refractory,
            "notes": list(self.notes),
        }

    def as_text(self) -> str:
        """Return human-readable text."""
        lines = [
            f"{name}: {population_residuals.as_text()}"
            for name, population_residuals in self.populations.items()
        ]
        if self.accuracy is not None:
            lines.append(
                f"accuracy of first spikes: {self.accuracy:.2%} recorded, "
                f"{self.expected_accuracy:.2%} simulated"
            )
        if self.refractory is not None:
            lines.append(f"simulated with a refractory period of {format_time(self.refractory)}")
        if self.mapping is not None:
            checked = "" if self.mapping_checked else ", not checked (pass --mapping M.json)"
            lines.append(f"recorded with mapping {self.mapping}{checked}")
        return "\n".join(lines)


_MAPPING = Option(
    name="mapping",
    help="mapping that was deployed or emulated; recordings of other mappings are refused",
    metavar="M.json",
    file="file",
)


def add(commands: Any) -> None:
    """Add the parser."""
    text = "compare the spikes that a chip recorded with a simulation"
    sent = INPUT.but(
        required=True,
        help="input events that were sent to the chip, with label (samples,) if known",
    )
    parser = add_command(commands, "compare", run, text, sent, T_END, MAX_SPIKES, _MAPPING)
    add_file(parser)
    parser.add_argument(
        "recording", metavar="OUT.npz", help="spikes that a chip, or an emulated chip, recorded"
    )


def run(arguments: argparse.Namespace) -> int:
    """Run the command; exit code 0."""
    import jax.numpy as jnp

    from jaxsnn.bss2.mapping import digest
    from jaxsnn.bss2.mapping_files import read_mapping
    from jaxsnn.event.solution_notes import late_notes
    from jaxsnn.network.inputs import late_events
    from jaxsnn.network.lowering.lower import lower
    from jaxsnn.simulation.network_arrays import assumed_end, sent_to_chip
    from jaxsnn.train.loop.recorded_chip import read_recording

    graph = read_graph(arguments)
    network = lower(graph)
    sent_inputs, labels = sent_to_chip(arguments.input, network, graph.dialect.dt)
    sent = {name: (events.time, events.index) for name, events in sent_inputs.events.items()}
    mapping, refractory = None, None
    if arguments.mapping is not None:
        expected = read_mapping(arguments.mapping)
        mapping = digest(expected)
        if expected.quantization is not None:
            refractory = expected.quantization.refractory
    recorded = read_recording(
        arguments.recording, sent, network, mapping=mapping, refractory=refractory
    )
    t_end = time_of(arguments.t_end) or recorded.t_end or sent_inputs.t_end
    if t_end is None:
        t_end, note = assumed_end(network, sent_inputs.events)
        add_notes(arguments, [note])
    elif recorded.t_end is not None and t_end > recorded.t_end:
        text = Text(
            "the recording ends at {end}, and only spikes until then are compared",
            end=format_time(recorded.t_end),
        )
        add_notes(arguments, [Note(text, kind="truncated")])
        t_end = recorded.t_end
    late = {
        name: int(late_events(events, jnp.asarray(t_end)))
        for name, events in sent_inputs.events.items()
    }
    outcome = compared(network, recorded, t_end, labels, arguments.max_spikes)
    outcome = replace(outcome, mapping_checked=mapping is not None and mapping == recorded.mapping)
    add_notes(arguments, (*sent_inputs.notes, *late_notes(late, t_end), *outcome.notes))
    print_outcome(arguments, outcome)
    return 0


def compared(
    network: Any,
    recorded: Any,
    t_end: float,
    labels: Any = None,
    max_spikes: int | Literal["auto"] = "auto",
) -> CompareOutcome:
    """Compare a recording of a chip with an event-driven simulation.

    Args:
        recorded: a `jaxsnn.train.loop.recorded_chip.RecordedChip`.
        labels: (samples,) class of each sample, None if unknown.
        max_spikes: as in `EventDriven`, for the simulation.

    Raises:
        UsageError: no population fires, or one has no time constant; labels that do not fit; recorded
            times in another unit.
    """
    import numpy as np

    from jaxsnn.event.event_driven import EventDriven
    from jaxsnn.network.spikes import Events
    from jaxsnn.simulation.simulate import simulate
    from jaxsnn.simulation.verification import (
        first_spike_accuracy,
        refuse_other_unit,
        residuals,
    )
    from jaxsnn.train.loop.recorded_chip import by_neuron

    inputs = {
        name: Events(time=spike_arrays[0], index=spike_arrays[1])
        for name, spike_arrays in recorded.inputs.items()
    }
    if not recorded.times:
        message = "the network has no spiking neurons; only spikes are compared"
        raise UsageError(
            message, fix="compare the membrane potentials in OUT.npz with a program of your own"
        )
    engine = EventDriven(
        max_spikes=max_spikes,
        max_events="auto",
        max_arrivals="auto",
        refractory=recorded.refractory or 0.0,
    )
    solution = simulate(network, inputs, t_end, engine=engine)
    # Spikes at or after t_end are not simulated.
    recordings = {
        name: np.where(times < t_end, times, np.inf) for name, times in recorded.times.items()
    }
    expected, taus = {}, {}
    for name in recordings:
        events = solution.events(name)
        size = network.populations[name].size
        expected[name] = by_neuron(np.asarray(events.time), np.asarray(events.index), size)
        # The chip represents delta spikes by its shortest current.
        parameters = network.parameters[name]
        key = next((key for key in ("tau_syn", "tau", "tau_mem") if key in parameters), None)
        if key is None:
            message = Text(
                "population '{node}' has no time constant; residuals are in units of it", node=name
            )
            raise UsageError(message, fix="compare a network that the chip can run", node=name)
        taus[name] = float(np.mean(np.asarray(parameters[key])))
    refuse_other_unit(expected, recorded.times, taus)
    residuals_by_population = {
        name: residuals(expected[name], times, taus[name]) for name, times in recordings.items()
    }
    # If several populations are outputs, it is unknown to which of them the labels belong.
    answer = {
        name
        for populations in network.outputs.values()
        for name in populations
        if network.populations[name].fires
    }
    notes = (
        *recorded.notes,
        *recorded.late_notes(t_end),
        *_left_out(network, answer, labels, set(recordings)),
        *(() if recorded.refractory is not None else _unknown_refractory(expected)),
    )
    if labels is None or len(answer) != 1 or not answer <= set(recordings):
        return CompareOutcome(
            populations=residuals_by_population,
            accuracy=None,
            expected_accuracy=None,
            notes=notes,
            mapping=recorded.mapping,
            refractory=recorded.refractory,
        )
    (name,) = answer
    return CompareOutcome(
        populations=residuals_by_population,
        notes=notes,
        mapping=recorded.mapping,
        refractory=recorded.refractory,
        accuracy=first_spike_accuracy(recordings[name], np.asarray(labels)),
        expected_accuracy=first_spike_accuracy(expected[name], np.asarray(labels)),
    )


def _unknown_refractory(expected: Mapping[str, Any]) -> Iterator[str]:
    """Yield a note on a simulation without the refractory period of the chip, if neurons spike
    repeatedly.

    Args:
        expected: population -> simulated spike times (samples, neurons, spikes).
    """
    import numpy as np

    with np.errstate(invalid="ignore"):  # inf - inf in unused slots
        intervals = np.concatenate([np.diff(times).ravel() for times in expected.values()])
    intervals = intervals[np.isfinite(intervals)]
    if intervals.size:
        text = Text(
            "the refractory period of the chip is unknown, and the simulation has none; the shortest "
            "interval between simulated spikes of a neuron is {shortest}",
            shortest=format_time(float(intervals.min())),
        )
        yield Note(text, kind="assumed")


def _left_out(network: Any, answer: set[str], labels: Any, recorded: set[str]) -> Iterator[str]:
    """Yield a note on each kind of data that is not compared.

    Args:
        answer: the spiking populations that feed the Outputs.
        recorded: the recorded populations.
    """
    readouts = [name for name, population in network.populations.items() if not population.fires]
    if readouts:
        yield Text(
            "only spikes are compared, not the membrane potentials of {populations}",
            populations=listing(readouts),
        )
    if labels is not None and len(answer) == 1 and not answer <= recorded:
        yield Text(
            "the labels are not used, as the spikes of the output population '{population}' were not "
            "recorded",
            population=next(iter(answer)),
        )
    elif labels is not None and len(answer) != 1:
        feeding = (
            Text(
                "spiking populations that feed the outputs: {count} ({populations})",
                count=len(answer),
                populations=listing(sorted(answer)),
            )
            if answer
            else "no spiking population feeds the outputs"
        )
        yield Text(
            "the labels are not used, as the accuracy of first spikes requires exactly one "
            "spiking output population; {feeding}",
            feeding=feeding,
        )
