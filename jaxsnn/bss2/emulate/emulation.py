"""`emulate`: a mapped network on an emulated chip, events in, recorded spikes out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxsnn.bss2.check import refuse_wrong
from jaxsnn.bss2.chip import HICANN_X
from jaxsnn.bss2.emulate.connections import LOWEST_THRESHOLD, Program, prepared, wired
from jaxsnn.bss2.emulate.emulated_chip import EmulatedChip, pattern_of, refuse_bad
from jaxsnn.bss2.emulate.run_program import Recorded, execute
from jaxsnn.bss2.mapping import Mapping as ChipMapping
from jaxsnn.bss2.netlist import Netlist
from jaxsnn.bss2.search.portfolio import Outcome
from jaxsnn.bss2.search.quantize import Quantized
from jaxsnn.errors import (
    MappingError,
    UsageError,
    listing,
    refuse_seed,
    suggestion,
)
from jaxsnn.event.event_options import EventOptions
from jaxsnn.event.event_record import Budget, Budgets
from jaxsnn.keywords import suggests_keywords
from jaxsnn.network.inputs import checked_events, plain_events, refuse_different_batches
from jaxsnn.network.results import Result
from jaxsnn.network.spikes import Events
from jaxsnn.options import T_END
from jaxsnn.simulation.retry import FIRE_LESS, with_enough_room
from jaxsnn.summary import summarised
from jaxsnn.units import format_time, parse_time, refuse_no_time
from jaxsnn.wording import Text

#: Interval between two samples of a readout's voltage by the CADC, seconds of the chip.
CADC_PERIOD = parse_time("2us")
#: Largest value of the CADC, whose values are integers.
CADC_MOST = 255
#: Initial capacity for the spikes of each neuron.
_SPIKES = 8


@summarised
@dataclass(frozen=True, kw_only=True, eq=False)
class Emulation:
    """Recordings of the host. Times are in seconds of the file, which are seconds of the chip times
    `speedup`.

    Attributes:
        spikes: Recorded spikes by population, (batch, neurons, spikes) seconds, ascending, inf in
            unused slots.
        fired: Number of spikes before losses, by population, (batch, neurons).
        voltages: Membrane potentials by readout, (batch, samples, neurons) CADC LSB.
        saturated: Fraction of the membrane potentials outside the range of the CADC, by readout.
        sample_times: Sample times of the membrane potentials, (samples,) seconds.
        lost: Number of lost spikes by location: at the "outputs" of the neurons, at the "links" to
            the host, in "recording"; "unrecorded" for neurons that the mapping does not record,
            "after_end" if they reach the host at or after the end of the sample. "late_inputs"
            counts input events that the host sends only at or after the end.
        late: Largest delay of an event from the host, which sends one event per clock cycle;
            seconds.
        runs: Number of runs.
        speedup: Speed of the chip relative to the file.
    """

    spikes: Mapping[str, np.ndarray]
    fired: Mapping[str, np.ndarray]
    voltages: Mapping[str, np.ndarray]
    saturated: Mapping[str, float]
    sample_times: np.ndarray
    lost: Mapping[str, int]
    late: float
    runs: int
    speedup: float

    def count(self, name: str) -> np.ndarray:
        """Return the number of recorded spikes of each neuron of a population, (batch, neurons).

        Raises:
            UsageError: There is no such spiking population.
        """
        return np.isfinite(self._spikes_of(name)).sum(-1)

    def events(self, name: str) -> Events:
        """Return the recorded spikes of a population in the order of time, (batch, events).

        Raises:
            UsageError: There is no such spiking population.
        """
        spikes = self._spikes_of(name)
        batch, neurons, slots = spikes.shape
        time = spikes.reshape(batch, neurons * slots)
        order = np.argsort(time, axis=1, kind="stable")
        return Events(time=np.take_along_axis(time, order, 1), index=order // max(slots, 1))

    def _spikes_of(self, name: str) -> np.ndarray:
        if name not in self.spikes:
            raise UsageError(
                Text("'{node}' is not a spiking population", node=name),
                fix=suggestion(name, self.spikes),
            )
        return self.spikes[name]

    def first_spike(self, name: str) -> np.ndarray:
        """Return the first recorded spike of each neuron of a population, (batch, neurons) seconds;
        inf where there is none.

        Raises:
            UsageError: There is no such spiking population.
        """
        return self._spikes_of(name)[..., 0]


class Emulator:
    """Emulator of a mapped network, for many runs. It is compiled once, also for other chips with
    the same mapping.

    The dynamics are simulated exactly, event by event, with integer weights and potentials in LSB.
    Neurons deviate according to `EmulatedChip.spread`. Links send one event per clock cycle, and
    queues are finite. If a mapping has several runs, spikes of a run are recorded and replayed in
    later ones. Approximations: a neuron of several circuits has the time constants of its head
    circuit; spikes wait in the queue of an event output only for spikes of their own population; spikes
    between recurrently connected neurons are not queued; readouts are sampled without noise.

    Args:
        quantized: The quantised network.
        mapping: Mapping of that network, or the result of `place_and_route`; None for an ideal chip
            of unlimited size that holds all neurons at once.
        chip: The chip; default `EmulatedChip()`.

    Raises:
        MappingError: The mapping is invalid, or the network has no spiking neurons or only weights
            of 0.
        UsageError: The chip is not ideal and there is no mapping, or a parameter of the chip is
            invalid.
    """

    def __init__(
        self,
        quantized: Quantized,
        mapping: ChipMapping | Outcome | None,
        *,
        chip: EmulatedChip | None = None,
    ):
        if isinstance(mapping, Outcome):
            mapping = mapping.required_mapping
        if not (isinstance(quantized, Quantized) and isinstance(mapping, ChipMapping | None)):
            kinds = Text(
                "{network} and {mapping}",
                network=type(quantized).__name__,
                mapping=type(mapping).__name__,
            )
            raise UsageError(
                Text(
                    "the arguments are of types {actual}, not a quantised network and its mapping",
                    actual=kinds,
                ),
                fix="pass the results of jaxsnn.quantize and jaxsnn.place_and_route",
            )
        self.quantized = quantized
        self.program = program_of(quantized, quantized.netlist, mapping, chip or EmulatedChip())
        self._weights = {
            pair: jnp.asarray(block, float) for pair, block in blocks(quantized.netlist).items()
        }
        firing = [name for name, population in quantized.populations.items() if population.fires]
        self._options = EventOptions(max_spikes=dict.fromkeys(firing, _SPIKES)).hashable()

    def run(
        self,
        inputs: Any,
        t_end: float,
        *,
        trial: int = 0,
        say: Callable[[str], None] | None = None,
    ) -> Emulation:
        """Execute all runs of the mapping, for a batch.

        Args:
            inputs: `Events` (batch, events), seconds of the file, or a mapping from Input nodes to
                such events. The channel that replaces biases is added.
            t_end: Duration of a sample, seconds of the file.
            trial: Random seed of the noise; the same chip and trial give the same spikes.
            say: Called with a line of text each time the runs are repeated with room for more
                spikes, which requires a new compilation.

        Raises:
            UsageError: The inputs do not fit, the trial is not a valid seed, or the sample exceeds
                the range of the chip's time counter.
        """
        refuse_seed(trial, "trial")
        trains = _checked(self.quantized, inputs, t_end)
        sample_times = np.arange(0.0, t_end, CADC_PERIOD * self.program.speedup)
        key = jax.random.fold_in(jax.random.key(self.program.chip.seed), trial)

        def attempt(options: EventOptions) -> _Attempt:
            recorded = _execute(
                self.program, self._weights, trains, t_end, sample_times, key, options
            )
            budgets = {
                name: Budget(needed=jnp.max(count, initial=0), room=options.of("max_spikes", name))
                for name, count in recorded.count.items()
            }
            is_short = any(int(budget.needed) > budget.room for budget in budgets.values())
            return _Attempt(
                recorded=recorded,
                result=Result.BUDGET_EXHAUSTED if is_short else Result.SUCCESS,
                budgets={"max_spikes": budgets},
                spikes={
                    name: _Fired(time=recorded.time[name], count=count)
                    for name, count in recorded.count.items()
                },
                t_end=t_end,
            )

        self._options, done = with_enough_room(self._options, attempt, advice=FIRE_LESS, say=say)
        return _concluded(self.program, done.recorded, sample_times, t_end)


_execute = jax.jit(execute, static_argnames="options")


class _Attempt(NamedTuple):
    """Run with some budgets, in the form that `with_enough_room` expects."""

    recorded: Recorded
    result: Result
    budgets: Budgets
    spikes: dict[str, _Fired]
    t_end: float


class _Fired(NamedTuple):
    """Spikes of a population: (batch, neurons, spikes) seconds, and (batch, neurons)."""

    time: jax.Array
    count: jax.Array


@suggests_keywords
def emulate(
    quantized: Quantized,
    mapping: ChipMapping | Outcome | None,
    inputs: Any,
    t_end: float,
    *,
    chip: EmulatedChip | None = None,
    trial: int = 0,
    say: Callable[[str], None] | None = None,
) -> Emulation:
    """Run a mapped network on an emulated chip once; see `Emulator` for the emulated effects and
    the arguments.

    >>> from jaxsnn.bss2.search.portfolio import place_and_route
    >>> from jaxsnn.bss2.search.quantize import quantize
    >>> from jaxsnn.nir import build
    >>> neurons = build.cubalif(tau_mem="10ms", tau_syn="5ms")
    >>> weight = np.array([[9.0], [6.0]])
    >>> graph = build.sequential(build.input(1), build.linear(weight=weight), neurons)
    >>> quantized = quantize(graph)
    >>> mapping = place_and_route(quantized.netlist).mapping
    >>> events = Events(time=jnp.zeros((1, 1)), index=jnp.zeros((1, 1), int))
    >>> done = emulate(quantized, mapping, events, t_end=30e-3, chip=EmulatedChip(ideal=True))
    >>> print(done.first_spike("2").round(4))
    [[0.0014 0.0024]]
    """
    return Emulator(quantized, mapping, chip=chip).run(inputs, t_end, trial=trial, say=say)


def program_of(
    quantized: Quantized, net: Netlist, mapping: ChipMapping | None, chip: EmulatedChip
) -> Program:
    """Return the program of a mapping.

    Args:
        net: Netlist of the mapping.

    Raises:
        MappingError: The mapping is invalid, or no neuron can spike.
        UsageError: The chip is not ideal and there is no mapping, or a parameter of the chip is
            invalid.
    """
    refuse_bad(chip)
    if mapping is None and not chip.ideal:
        raise UsageError(
            "no mapping is specified, so that neurons have no circuits whose deviations could be "
            "emulated",
            fix="pass a mapping, or EmulatedChip(ideal=True)",
        )
    if quantized.slope is None:
        firing = any(population.fires for population in quantized.populations.values())
        reason = "all weights of spiking neurons are 0" if firing else "no neuron spikes"
        raise MappingError(
            reason + ", so the strength of an LSB of a weight is undefined",
            fix="use weights other than 0" if firing else "add a spiking population",
        )
    if mapping is not None:
        refuse_wrong(mapping, net)
    slope = quantized.slope / parse_time("1us")
    return prepared(wired(quantized, net, mapping, chip, slope))


def blocks(net: Netlist) -> dict[tuple[str, str], np.ndarray]:
    """Return the weights of each pair of populations in LSB, (neurons of the source, neurons of the
    target).
    """
    population_names, begins = [part.name for part in net.populations], net.offsets
    weight_blocks: dict[tuple[str, str], np.ndarray] = {}
    pairs = np.unique(np.stack([net.owner[net.pre], net.owner[net.post]], axis=1), axis=0)
    for source, target in pairs.tolist():
        is_of_pair = (net.owner[net.pre] == source) & (net.owner[net.post] == target)
        block = np.zeros((net.populations[source].size, net.populations[target].size))
        block[net.pre[is_of_pair] - begins[source], net.post[is_of_pair] - begins[target]] = (
            net.weight[is_of_pair]
        )
        weight_blocks[population_names[source], population_names[target]] = block
    return weight_blocks


def bias_times(quantized: Quantized, t_end: float) -> np.ndarray:
    """Return the times at which the channel that replaces biases spikes in each sample, (spikes,)
    seconds of the file; none where there is no such channel.
    """
    if quantized.bias_source is None:
        return np.zeros(0)
    return np.arange(0.0, t_end, quantized.bias_period * quantized.speedup)


def _checked(quantized: Quantized, inputs: Any, t_end: float) -> dict[str, Events]:
    """Return the checked inputs by name, including those of the bias channel."""
    refuse_no_time(t_end, T_END)
    longest = HICANN_X.clock_period * 2**HICANN_X.timer_bits
    if t_end > longest * quantized.speedup:
        raise UsageError(
            Text(
                "{option} is {value}, which is {chip_time} on the chip; its time counter ends at "
                "{maximum}",
                option=T_END,
                value=format_time(t_end),
                chip_time=format_time(t_end / quantized.speedup),
                maximum=format_time(longest),
            ),
            fix="pass a shorter time",
        )
    sizes = {
        part.name: part.size
        for part in quantized.netlist.populations
        if part.external and part.name != quantized.bias_source
    }
    inputs_by_name: dict[str, Any] = (
        dict(inputs) if isinstance(inputs, Mapping) else dict.fromkeys(list(sizes)[:1], inputs)
    )
    if sorted(inputs_by_name) != sorted(sizes):
        raise UsageError(
            Text(
                "inputs are specified for {actual}; the network has the inputs {expected}",
                actual=", ".join(inputs_by_name),
                expected=", ".join(sizes),
            ),
            fix="pass events for each input",
        )
    trains = {}
    inputs_by_name = plain_events(inputs_by_name, "the chip")
    for name, size in sizes.items():
        events = checked_events(name, inputs_by_name[name], size, jnp.result_type(float))
        # a slot at least, as the queues need one
        room = ((0, 0), (0, int(events.time.shape[1] == 0)))
        time = np.pad(events.time, room, constant_values=np.inf)
        index = np.where(np.isfinite(time), np.pad(events.index, room), size)
        trains[name] = Events(time=jnp.asarray(time), index=jnp.asarray(index))
    refuse_different_batches({name: len(events.time) for name, events in trains.items()})
    if quantized.bias_source is not None:
        times = bias_times(quantized, t_end)
        times = np.broadcast_to(times, (len(next(iter(trains.values())).time), len(times)))
        trains[quantized.bias_source] = Events(
            time=jnp.asarray(times, float), index=jnp.zeros(times.shape, jnp.int32)
        )
    return trains


def _concluded(
    program: Program, recorded: Recorded, sample_times: np.ndarray, t_end: float
) -> Emulation:
    chip = program.chip
    limit = chip.recorded_events or program.layout.recorded_events
    # what is late by the chip's own latency may come after the end
    arrival_times = {name: np.asarray(time) for name, time in recorded.time.items()}
    spikes = {name: np.where(time < t_end, time, np.inf) for name, time in arrival_times.items()}
    late = sum(int(np.sum(np.isfinite(time) & (time >= t_end))) for time in arrival_times.values())
    forgotten = 0 if chip.ideal else sum(_forget(spikes, wiring, limit) for wiring in program.runs)
    voltages = {name: np.asarray(values) for name, values in recorded.voltages.items()}
    saturated = dict.fromkeys(voltages, 0.0)
    if not chip.ideal:
        converted = {name: np.rint(values) for name, values in voltages.items()}
        voltages = {name: np.clip(values, 0, CADC_MOST) for name, values in converted.items()}
        saturated = {
            name: float(np.mean(values != voltages[name])) for name, values in converted.items()
        }
    return Emulation(
        spikes=spikes,
        fired={name: np.asarray(count) for name, count in recorded.count.items()},
        voltages=voltages,
        saturated=saturated,
        sample_times=sample_times,
        lost={
            **{name: int(lost) for name, lost in recorded.lost.items()},
            "recording": forgotten,
            "after_end": late,
        },
        late=float(recorded.late),
        runs=len(program.runs),
        speedup=program.speedup,
    )


def _forget(spikes: dict[str, np.ndarray], wiring: Any, limit: int) -> int:
    """Drop the spikes, sample by sample in order of time, that exceed the memory that records one
    run, and return their number.
    """
    inside = [
        (neuron_group.name, neuron_group.index)
        for neuron_group in wiring.neurons
        if neuron_group.fires
    ]
    if sum(int(np.isfinite(spikes[name][:, index]).sum()) for name, index in inside) <= limit:
        return 0
    times = np.concatenate(
        [spikes[name][:, index].reshape(len(spikes[name]), -1) for name, index in inside], axis=1
    )
    order = np.argsort(times, axis=1, kind="stable")
    rank = np.empty_like(order)
    np.put_along_axis(rank, order, np.arange(times.shape[1])[None], axis=1)
    counts = np.isfinite(times).sum(axis=1)
    beyond = np.isfinite(times) & (rank + (np.cumsum(counts) - counts)[:, None] >= limit)
    times[beyond] = np.inf
    begin = 0
    for name, index in inside:
        shape = spikes[name][:, index].shape
        width = shape[1] * shape[2]
        spikes[name][:, index] = times[:, begin : begin + width].reshape(shape)
        begin += width
    return int(beyond.sum())


def _raised_thresholds(quantized: Quantized, mapping: ChipMapping, chip: EmulatedChip) -> int:
    """Return the number of neurons whose fixed pattern puts the threshold too close to the reset."""
    raised = 0
    for number, run in enumerate(mapping.runs):
        pattern = pattern_of(mapping.chip, chip.of_run(number))
        for neuron in run.neurons:
            population = quantized.populations[mapping.populations[neuron.population].name]
            circuit = neuron.circuits[neuron.head]
            threshold = population.v_threshold[neuron.index] + pattern.v_threshold[circuit]
            reset = population.v_reset[neuron.index] + pattern.v_reset[circuit]
            raised += bool(population.fires and threshold < reset + LOWEST_THRESHOLD)
    return raised


def emulator_notes(quantized: Quantized, mapping: ChipMapping, chip: EmulatedChip) -> Iterator[str]:
    """Yield a note on each approximation in the emulation of a mapping; none for an ideal chip.

    Args:
        mapping: Mapping of the network, without violations.
    """
    if chip.ideal:
        return
    net = quantized.netlist
    joined = sum(len(neuron.circuits) > 1 for run in mapping.runs for neuron in run.neurons)
    if joined:
        yield (
            Text(
                "neurons with several circuits: {count}; the emulated chip uses the time constants "
                "and potentials of the circuit that fires",
                count=joined,
            )
        )
    shared = set()
    for run in mapping.runs:
        behind: dict[int, set[str]] = {}
        for neuron in run.neurons:
            name = mapping.populations[neuron.population].name
            if quantized.populations[name].fires:
                output = mapping.chip.output_of(neuron.circuits[neuron.head][1])
                behind.setdefault(output, set()).add(name)
        shared.update(
            *(population_names for population_names in behind.values() if len(population_names) > 1)
        )
    if shared:
        yield (
            Text(
                "populations {populations} share event outputs; on the emulated chip, their spikes "
                "queue only behind spikes of the same population",
                populations=listing(sorted(shared)),
            )
        )
    if raised := _raised_thresholds(quantized, mapping, chip):
        yield (
            Text(
                "neurons whose threshold deviates to below {distance:g} LSB above their reset: "
                "{count}; the emulated chip uses {distance:g} LSB, and on a chip they may fire "
                "without input",
                distance=LOWEST_THRESHOLD,
                count=raised,
            )
        )
    components = net.recurrent_components()
    loops = np.unique([net.owner[index] for component in components for index in component])
    if looped := [net.populations[number].name for number in loops.astype(int)]:
        yield (
            Text(
                "spikes between recurrently connected neurons ({populations}) have no queue and no "
                "jitter on the emulated chip",
                populations=listing(looped),
            )
        )
    readouts = [name for name, population in quantized.populations.items() if not population.fires]
    if readouts:
        yield Text(
            "membrane potentials of {populations} are sampled without noise on the emulated chip",
            populations=listing(readouts),
        )
