"""`jaxsnn emulate`: a mapping on the emulated chip, with what the deployed scripts write."""

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
from jaxsnn.options import CHIP_SEED, CHIPS, INPUT, QUANTIZE_OPTIONS, T_END
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
        spikes: population -> spikes that were recorded, all samples together.
        lost: place -> number of lost spikes.
        saturated: readout -> fraction of its voltages outside of the CADC's range.
        late: largest delay of the host, seconds of the network.
        runs: of the mapping.
        samples: size of the batch.
        output: path of the file that was written.
        traffic: by run, the load of each bus and link.
        seconds_per_sample: on the chip, in all runs, rest between samples included.
        joules_per_sample: of the chips alone.
        chips: number of chips: one, or with `--chips several` one for each run.
        latency: output population -> seconds of the chip from a sample's begin to the first spike,
            the median over samples; None where none fires. Where one chip does several runs, from
            the begin in its own run.
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
            f"lost: {lost or 'none'}; the host was late by {format_time(self.late)} at most"
        )
        lines += [
            f"{name}: {share:.0%} of its voltages are beyond the CADC's range, and cut off there"
            for name, share in self.saturated.items()
            if share
        ]
        for number, run_traffic in enumerate(self.traffic):
            name = run_traffic.busiest
            lines.append(
                f"run {number}: busiest is {name} with {run_traffic.peak[name]} of {run_traffic.limit} events in a "
                f"microsecond; {run_traffic.replayed:.1f} spikes a sample are replayed"
            )
        lines.append(
            f"{format_time(self.seconds_per_sample)} of the chip and {self.joules_per_sample:.2g} J a"
            " sample"
        )
        # a run of the same chip begins when those before it have ended
        late = " in its run, which others come before" if self.runs > self.chips else ""
        for name, seconds in self.latency.items():
            if seconds is not None:
                lines.append(f"{name} answers {format_time(seconds)} after a sample's begin{late}")
        return "\n".join([*lines, self.output])


_TRIAL = Option(
    name="trial",
    help="which draw of its noise (default 0)",
    metavar="N",
    default=0,
    convert=int,
)
_SPREAD = Option(
    name="spread",
    help="recorded (default): as unkind as the chip of published recordings; calibrated: milder",
    metavar="KIND",
)
_IDEAL = Option(name="ideal", help="a chip that deviates by rounding alone", is_switch=True)


def add(commands: Any) -> None:
    """Add the parser."""
    sent = INPUT.but(required=True, help="NAME.time, NAME.index of each input")
    parser = add_command(
        commands,
        "emulate",
        run,
        "run a mapping on an emulated chip",
        sent,
        *output_options("OUT.npz", "what the chip records", required=True),
        T_END,
        CHIP_SEED,
        _TRIAL,
        _SPREAD,
        CHIPS,
        _IDEAL,
        *QUANTIZE_OPTIONS,
    )
    add_file(parser)
    parser.add_argument("mapping", metavar="M.json", help="a mapping of FILE, made by map")


def run(arguments: argparse.Namespace) -> int:
    """Run the command; exit code 0."""
    import jax.numpy as jnp

    from jaxsnn.bss2.emulate import emulate, emulator_notes
    from jaxsnn.bss2.mapping_files import read_mapping, scales_of
    from jaxsnn.bss2.search.quantize import quantize
    from jaxsnn.event.solution_notes import late_notes
    from jaxsnn.network.inputs import late_events
    from jaxsnn.network.lowering.lower import lower
    from jaxsnn.output import refuse_unwritable, write_arrays
    from jaxsnn.simulation.network_arrays import sent_to_chip

    chip = _chip(arguments)
    output = refuse_unwritable(arguments.output, arguments.force)
    graph = read_graph(arguments)
    mapping = read_mapping(arguments.mapping)
    if chip.several and len(mapping.runs) == 1:
        add_notes(
            arguments,
            [Text("{chips} has no effect: the mapping has one run", chips=CHIPS.set_to("several"))],
        )
    quantized = quantize(graph, quantization_of(arguments, scales_of(mapping, graph)))
    sent_inputs, _ = sent_to_chip(arguments.input, lower(graph), graph.dialect.dt)
    t_end = time_of(arguments.t_end) or sent_inputs.t_end
    if t_end is None:
        raise UsageError("the end of a sample is unknown", fix=Text("pass {t_end}", t_end=T_END))
    done = emulate(
        quantized,
        mapping,
        sent_inputs.events,
        t_end,
        chip=chip,
        trial=arguments.trial,
        say=lambda line: add_notes(arguments, [line]),
    )
    arrays = {}
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
            fix = Text("remove one of {ideal} and {option}", ideal=_IDEAL, option=option)
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
        # as they were sent: a row for each sample, channels as whole numbers
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
