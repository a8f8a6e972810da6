"""`jaxsnn emulate`: runs a mapping on an emulated chip; it reads and writes the same files as the
deployed scripts.
"""

from __future__ import annotations

import argparse
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxsnn.commands.arguments import (
    add_command,
    add_file,
    add_notes,
    output_options,
    print_outcome,
    quantization_of,
    read_graph,
    time_of,
)
from jaxsnn.errors import UsageError, suggestion
from jaxsnn.options import CHIP_SEED, CHIPS, INPUT, OPTIONS_OF_MAPPING, T_END
from jaxsnn.units import format_time
from jaxsnn.wording import Option, Text

if TYPE_CHECKING:
    from jaxsnn.bss2.emulate import EmulatedChip
    from jaxsnn.bss2.emulate.emulation import Emulation
    from jaxsnn.bss2.mapping import Mapping
    from jaxsnn.bss2.search.quantize import Quantized
    from jaxsnn.bss2.traffic import Traffic


@dataclass(frozen=True, kw_only=True)
class EmulateOutcome:
    """Outcome of `jaxsnn emulate`.

    Attributes:
        spikes: Number of recorded spikes in all samples, by population.
        lost: Number of lost spikes, by location.
        saturated: Fraction of the membrane potentials outside the range of the CADC, by readout.
        late: Largest delay of the host, seconds of the network.
        runs: Number of runs of the mapping.
        samples: Size of the batch.
        output: Path of the written file.
        traffic: Load of each bus and link, by run.
        seconds_per_sample: Chip time of a sample in all runs, including the pauses between samples.
        joules_per_sample: Energy of the chips alone.
        chips: Number of chips: one, or with `--chips several` one per run.
        latency: Time from the start of a sample to the first spike, by output population, seconds
            of the chip, median over the samples; None if no neuron fires. If one chip executes
            several runs, the time counts from the start of the population's own run.
    """

    spikes: dict[str, int]
    lost: dict[str, int]
    saturated: dict[str, float]
    late: float
    runs: int
    samples: int
    output: str
    traffic: tuple[Traffic, ...]
    seconds_per_sample: float
    joules_per_sample: float
    chips: int
    latency: dict[str, float | None]

    def as_dict(self) -> dict[str, Any]:
        """Return a JSON-compatible dict."""
        return {"schema": 1, **vars(self)} | {
            "traffic": [run_traffic.as_dict() for run_traffic in self.traffic]
        }

    def as_text(self) -> str:
        """Return human-readable text."""
        placement = (
            f"on {self.chips} chips in one pass" if self.chips > 1 else f"in {self.runs} runs"
        )
        lines = [f"{self.samples} samples {placement if self.runs > 1 else 'in 1 run'}"]
        lines += [f"{name}: {count} spikes" for name, count in self.spikes.items()]
        lost = ", ".join(
            f"{count} {cause.replace('_', ' ')}" for cause, count in self.lost.items() if count
        )
        lines.append(
            f"lost events: {lost or 'none'}; largest delay of the host: {format_time(self.late)}"
        )
        lines += [
            f"{name}: {share:.0%} of the membrane potentials are clipped to the range of the CADC"
            for name, share in self.saturated.items()
            if share
        ]
        for number, run_traffic in enumerate(self.traffic):
            name = run_traffic.busiest
            lines.append(
                f"run {number}: the busiest part is {name}, with up to {run_traffic.peak[name]} of "
                f"{run_traffic.limit} possible events per microsecond; {run_traffic.replayed:.1f} "
                "spikes per sample are replayed"
            )
        lines.append(
            f"{format_time(self.seconds_per_sample)} of chip time and {self.joules_per_sample:.2g} J per"
            " sample"
        )
        # Each run on the same chip starts when the previous run has ended.
        late = ", counted from the start of its own run" if self.runs > self.chips else ""
        for name, seconds in self.latency.items():
            if seconds is not None:
                lines.append(
                    f"{name}: first spike {format_time(seconds)} after the start of a sample{late}"
                )
        return "\n".join([*lines, self.output])


_TRIAL = Option(
    name="trial",
    help="random seed of the trial's noise (default 0)",
    metavar="N",
    default=0,
    convert=int,
)
_SPREAD = Option(
    name="spread",
    help="deviations of the chip: recorded (default), as large as in published recordings, or "
    "calibrated, which are smaller",
    metavar="KIND",
)
_IDEAL = Option(
    name="ideal",
    help="emulate an ideal chip, which differs from the network only by rounding",
    is_switch=True,
)


def add(commands: Any) -> None:
    """Add the parser."""
    sent = INPUT.but(required=True, help="input events: NAME.time and NAME.index for each input")
    parser = add_command(
        commands,
        "emulate",
        run,
        "run a mapping on an emulated chip",
        sent,
        *output_options(
            "OUT.npz",
            "file for the spikes and membrane potentials that the chip records",
            required=True,
        ),
        T_END,
        CHIP_SEED,
        _TRIAL,
        _SPREAD,
        CHIPS,
        _IDEAL,
        *OPTIONS_OF_MAPPING,
    )
    add_file(parser)
    parser.add_argument("mapping", metavar="M.json", help="mapping of FILE, written by jaxsnn map")


def run(arguments: argparse.Namespace) -> int:
    """Run the command; exit code 0."""
    import jax.numpy as jnp

    from jaxsnn.bss2.emulate import emulate, emulator_notes
    from jaxsnn.bss2.mapping import digest
    from jaxsnn.bss2.mapping_files import quantize_as_mapped, read_mapping
    from jaxsnn.event.solution_notes import late_notes
    from jaxsnn.network.inputs import late_events
    from jaxsnn.network.lowering.lower import lower
    from jaxsnn.output import refuse_unwritable, write_arrays
    from jaxsnn.simulation.network_arrays import assumed_end, sent_to_chip
    from jaxsnn.train.loop.recorded_chip import identification

    chip = _chip(arguments)
    output = refuse_unwritable(arguments.output, arguments.force)
    graph = read_graph(arguments)
    mapping = read_mapping(arguments.mapping)
    if chip.several and len(mapping.runs) == 1:
        add_notes(
            arguments,
            [Text("{chips} has no effect: the mapping has one run", chips=CHIPS.set_to("several"))],
        )
    quantized = quantize_as_mapped(graph, mapping, **quantization_of(arguments))
    network = lower(graph)
    sent_inputs, _ = sent_to_chip(arguments.input, network, graph.dialect.dt)
    t_end = time_of(arguments.t_end) or sent_inputs.t_end
    if t_end is None:
        t_end, note = assumed_end(network, sent_inputs.events)
        add_notes(arguments, [note])
    done = emulate(
        quantized,
        mapping,
        sent_inputs.events,
        t_end,
        chip=chip,
        trial=arguments.trial,
        say=lambda line: add_notes(arguments, [line]),
    )
    sent = {name: (events.time, events.index) for name, events in sent_inputs.events.items()}
    arrays = identification(sent, digest(mapping), t_end, quantized.refractory)
    for name, spikes in done.spikes.items():
        arrays |= _events(name, spikes)
    for name, voltages in done.voltages.items():
        sampled = voltages.transpose(1, 0, 2)
        arrays |= {f"{name}.membrane": sampled, f"{name}.sample_time": done.sample_times}
    outcome = _outcome(mapping, quantized, sent_inputs.events, done, t_end, chip.several, output)
    write_arrays(output, arrays, arguments.force)
    end = jnp.asarray(t_end)
    late = {name: int(late_events(events, end)) for name, events in sent_inputs.events.items()}
    add_notes(arguments, quantized.notes)
    add_notes(arguments, emulator_notes(quantized, mapping, chip))
    add_notes(arguments, late_notes(late, t_end))
    add_notes(arguments, sent_inputs.notes)
    print_outcome(arguments, outcome)
    return 0


def _chip(arguments: argparse.Namespace) -> EmulatedChip:
    """Return the emulated chip that the options describe.

    Raises:
        UsageError: an unknown spread, or options that an ideal chip does not have.
    """
    from jaxsnn.bss2.emulate import SPREADS, EmulatedChip

    for option in (_SPREAD, CHIP_SEED, _TRIAL):
        if arguments.ideal and getattr(arguments, option.name):
            fix = Text("remove {ideal} or {option}", ideal=_IDEAL, option=option)
            message = "an ideal chip has no " + ("spread" if option is _SPREAD else "noise")
            raise UsageError(message, fix=fix)
    spread = arguments.spread or "recorded"
    if spread not in SPREADS:
        raise UsageError(
            Text("there is no spread '{spread}'", spread=spread), fix=suggestion(spread, SPREADS)
        )
    return EmulatedChip(
        seed=arguments.chip_seed,
        ideal=arguments.ideal,
        spread=SPREADS[spread],
        several=arguments.chips == "several",
    )


def _outcome(
    mapping: Mapping,
    quantized: Quantized,
    sent: dict[str, Any],
    done: Emulation,
    t_end: float,
    several: bool,
    output: Path,
) -> EmulateOutcome:
    """Return the recorded and lost spikes, and the load of buses and links, the time and the energy
    of a sample.

    Args:
        sent: input -> its events.
        several: whether each run has a chip of its own.
    """
    import numpy as np

    from jaxsnn.bss2.emulate.emulation import bias_times
    from jaxsnn.bss2.traffic import POWER, answered, seconds_per_sample, traffic
    from jaxsnn.network.inputs import checked_events
    from jaxsnn.train.loop.recorded_chip import by_neuron

    populations = quantized.populations.values()
    slowest = max(
        float(np.max([population.tau_mem, population.tau_syn])) for population in populations
    )
    chips = done.runs if several else 1
    seconds = seconds_per_sample(done.runs // chips, t_end, quantized.speedup, slowest)
    sizes = {part.name: part.size for part in mapping.populations}
    times: dict[str, Any] = dict(done.spikes)
    feeds = {
        quantized.netlist.populations[sender].name
        for sender in np.unique(quantized.netlist.owner[quantized.netlist.pre]).tolist()
    }
    answers = [
        (name, answered(spike_times, quantized.speedup))
        for name, spike_times in times.items()
        if name not in feeds
    ]
    for name, events in sent.items():
        # Inputs in the form in which they were sent: a row for each sample, channels as integers.
        rows = checked_events(name, events, sizes[name], np.float32)
        times[name] = by_neuron(np.asarray(rows.time), np.asarray(rows.index), sizes[name])
    samples = len(next(iter(times.values())))
    if quantized.bias_source is not None:
        regular = bias_times(quantized, t_end)
        times[quantized.bias_source] = np.broadcast_to(regular, (samples, 1, len(regular)))
    return EmulateOutcome(
        spikes={name: int(np.isfinite(recorded).sum()) for name, recorded in done.spikes.items()},
        lost={name: int(count) for name, count in done.lost.items()},
        saturated=dict(done.saturated),
        late=done.late,
        runs=done.runs,
        samples=samples,
        output=os.fspath(output),
        traffic=traffic(mapping, times, t_end, quantized.speedup),
        seconds_per_sample=seconds,
        joules_per_sample=POWER * chips * seconds,
        chips=chips,
        latency={name: None if np.isnan(latency) else latency for name, latency in answers},
    )


def _events(name: str, spikes: Any) -> dict[str, Any]:
    """Return spikes (samples, neurons, spikes) as sorted events, padded with inf and the size."""
    import numpy as np

    samples, neurons, slots = spikes.shape
    time = spikes.reshape(samples, -1)
    index = np.broadcast_to(np.repeat(np.arange(neurons), slots), time.shape)
    order = np.argsort(time, axis=1, kind="stable")
    most = int(np.isfinite(time).sum(axis=1).max(initial=0))
    time, index = (np.take_along_axis(array, order, axis=1)[:, :most] for array in (time, index))
    return {
        f"{name}.time": time,
        f"{name}.index": np.where(np.isfinite(time), index, neurons),
    }
