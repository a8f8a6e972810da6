"""The event engine: a whole network, exact in continuous time.

Populations that feed back into each other run together, all others one after the other.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jaxsnn.capabilities import unsupported
from jaxsnn.errors import Note, UsageError, as_number, refuse, shown, suggestion
from jaxsnn.event.capabilities import EVENT, OUTPUTS
from jaxsnn.event.event_options import BACKENDS, BUDGETS, EventOptions, by_population
from jaxsnn.event.event_record import EventRecord, empty_record
from jaxsnn.event.event_solution import (
    EventSolution,
    conclude,
    is_end,
    nan_without_end,
    samples_axis,
)
from jaxsnn.event.native.native_weights import with_transposed_weights
from jaxsnn.event.populations import FeedForwardPart, RecurrentPart
from jaxsnn.event.projections.arrivals import Train
from jaxsnn.event.projections.sources import Sources
from jaxsnn.event.solution_notes import continuous_time_notes, time_constant_notes
from jaxsnn.keywords import suggests_keywords
from jaxsnn.network.array_types import Array, Float
from jaxsnn.network.cycles import Cycle, groups
from jaxsnn.network.delay_notes import long_delay_notes
from jaxsnn.network.features import StaticNetwork
from jaxsnn.network.inputs import checked_inputs, other_step_notes
from jaxsnn.network.meshes import by_compiler
from jaxsnn.network.network import Network, check_precision, in_one_type
from jaxsnn.network.on_processor import as_array_of, module_for, on_processor
from jaxsnn.network.signals import signals
from jaxsnn.network.slots import in_buckets
from jaxsnn.network.valued_inputs import Currents, GradedEvents, Input, as_lasting
from jaxsnn.options import MAX_SPIKES, T_END
from jaxsnn.wording import Text

_DEFAULT_SAMPLES = 101
#: Largest budget: 16 times as many spikes are counted, in int32.
MOST_ROOM = 2**26


@suggests_keywords
@dataclass(frozen=True, kw_only=True)
class EventDriven(EventOptions):
    """Exact event-driven simulation in continuous time, with exact gradients with respect to the
    network's parameters and the input times.

    A number that can differ between populations may be a mapping from their names; missing
    populations have the default.

    Attributes:
        max_spikes: number of recorded spikes of each neuron. If a neuron fires more often, the run
            ends with a result code and the required number; spikes are never dropped silently.
            "auto", for this and the two budgets below: `simulate` repeats the run with larger
            budgets until all suffice; this needs concrete results and does not work inside
            `jax.jit`.
        max_events: number of spikes of a population in one sample that postsynaptic populations
            receive. Default: all recorded spikes; before a convolution or a pool at most 4096 or 2
            for each neuron, whichever is more. If exhausted, the run ends in the same way.
        max_arrivals: number of arrivals at one position of a population after a convolution or a
            pool. Default: 4 times the mean that the budgets of its sources allow, plus 32. If
            exhausted, the run ends in the same way. The native backend needs no such lists, and no
            budget for them.
        first_spike_only: True, or the names of populations: neurons stop after their first spike.
            For a population that feeds no other this only omits the later spikes. For others it
            changes the behaviour of the network, and NIR cannot express it: other simulators of the
            exported file do not follow it.
        refractory: seconds for which V stays at v_reset after a spike, at 0 where resets subtract
            v_threshold. NIR cannot express this either.
        min_slope: smallest slope of V at a spike that a gradient is divided by, as a fraction of
            (v_threshold - v_reset) / tau_mem. Near a tangential crossing exact gradients grow
            without bound; `clipped_slopes` of the solution counts the affected spikes.
        jump_width: a LIF or IF neuron under delta spikes fires when an arrival moves V across the
            threshold; the exact gradient of that time with respect to weights and parameters is
            zero. With a width (seconds) gradients treat the jump as a ramp of that length that ends
            at the threshold: a surrogate. `degenerate_spikes` of the solution counts those spikes.
        forward_mode: support `jax.jvp` and `jax.jacfwd` instead of `jax.grad`.
        backend: "native", kernels in C++, which refuses unsupported populations; "xla", which
            supports all; "auto", native for each population that it supports.
        threads: number of threads of the native backend; None: one for each processor. Results do
            not depend on it.
    """

    #: Name in configuration files and on the command line.
    kind: ClassVar[str] = "event"
    #: Whether gradients are exact, not those of a surrogate.
    exact: ClassVar[bool] = True
    #: Whether inputs may also be arrays (time, batch, *shape).
    takes_rasters: ClassVar[bool] = False

    def run(
        self,
        network: Network,
        inputs: Any,
        t_end: float | None,
        sample_times: Any = None,
    ) -> EventSolution:
        """Simulate a batch. An unsuccessful run raises no error: check `result`.

        Args:
            inputs, t_end, sample_times: see `jaxsnn.simulate`.

        Raises:
            UsageError: inputs or options that do not fit the network.
            LoweringError: the engine does not support the network, or some information is missing.
        """
        # Refuse invalid arguments before anything is compiled.
        check_precision(network)
        network = in_one_type(network)
        self.check(network)
        trains = checked_inputs(network, inputs)
        end = _checked_end(t_end, network.dtype)
        times = _checked_samples(sample_times, t_end, end)
        if on_processor(network, trains, end, times):
            # Nothing is differentiated: additional unused slots only cost memory.
            lasting = {
                name: as_lasting(train, end) if isinstance(train, Currents) else train
                for name, train in trains.items()
            }
            trains = in_buckets(lasting, network.inputs)
        network, facts = network.with_known_facts()
        solution = self.simulated(facts, network, trains, end, times)
        if isinstance(end, Tracer):
            solution = nan_without_end(solution)
        unused: list[str] = [
            Note(
                problem.message + ": this Output is not computed; the solution contains the "
                "spikes and voltages of all populations",
                kind="dropped",
                code="output-not-computed",
            )
            for problem in unsupported(StaticNetwork.of(network), OUTPUTS)
        ]
        if sample_times is not None and np.size(sample_times) and not solution.voltages:
            unused.append("sample_times have no effect: no readout is sampled")
        more = (
            *continuous_time_notes(network),
            *time_constant_notes(network, t_end),
            *long_delay_notes(network, t_end),
            *other_step_notes(network, inputs),
        )
        return replace(
            solution,
            approximations=(*solution.approximations, *more),
            unused=tuple(unused),
        )

    def check(self, network: Network) -> None:
        """Refuse options that are invalid for a network.

        Raises:
            UsageError: an option is invalid; the message names it.
        """
        check_options(network, self)

    def simulated(self, facts: frozenset[str], *arguments: Any) -> EventSolution:
        """Run the program that is compiled for a network, inputs, t_end and sample times, all of
        them checked.
        """
        return compiled_run(self.hashable(), facts, *arguments)

    def prepared(self) -> Self:
        """Return the engine in the hashable form that compiled training takes."""
        return self.hashable()


def run_and_conclude(
    options: EventOptions,
    facts: frozenset[str],
    network: Network,
    trains: dict[str, Input],
    t_end: Float[Array, ""],
    sample_times: Float[Array, "samples"],
) -> EventSolution:
    """Perform a checked run and return its solution; a function to be compiled.

    Args:
        options, facts: static; see `simulate_events`.
        trains: input name -> Events or GradedEvents (batch, events), or Currents (batch, pieces).
        t_end, sample_times: seconds.
    """

    def simulated(
        network: Network, trains: dict[str, Input], t_end: Any, sample_times: Any
    ) -> EventSolution:
        record = simulate_events(network, trains, t_end, sample_times, options, facts)
        return conclude(network, trains, t_end, sample_times, record, options)

    arguments = network, trains, t_end, sample_times
    samples = next(iter(trains.values())).time
    return by_compiler(simulated, *arguments, samples=samples, axis_of=samples_axis)


#: Compiled function, cached by network structure, engine and shape of the inputs.
compiled_run = jax.jit(run_and_conclude, static_argnums=(0, 1))


def simulate_events(
    network: Network,
    inputs: Mapping[str, Input],
    t_end: Float[Array, ""],
    sample_times: Float[Array, "samples"],
    options: EventOptions,
    facts: frozenset[str] | None = None,
) -> EventRecord:
    """Simulate a batch; `jaxsnn.simulate` without its checks.

    Args:
        inputs: input name -> Events or GradedEvents (batch, events), or Currents (batch, pieces).
        t_end: seconds.
        sample_times: seconds, where readouts are sampled.
        facts: populations whose static facts hold for their numbers (`Network.with_known_facts`);
            None: check those that are not traced.

    Raises:
        LoweringError: the engine does not support the network, or some information is missing.
    """
    if facts is None:
        network, facts = network.with_known_facts()
    static = StaticNetwork.of(network, currents=currents_of(inputs))
    refuse(unsupported(static, EVENT))
    samples = next(iter(inputs.values())).time.shape[0]
    transposed = with_transposed_weights(network, samples, options)
    sources = replace(
        sources_of(transposed, inputs, options, facts), network_parameters=network.parameters
    )
    record = empty_record()
    end = jnp.asarray(t_end, network.dtype)
    # Strongly connected components, sources first, so that the trains of all sources exist.
    for part in groups(network.wires):
        if isinstance(part, Cycle):
            RecurrentPart(sources, part.order).run(record, end)
        elif part.kind == "neuron":
            FeedForwardPart(sources, part.name).run(record, end, sample_times)
    return record


def sources_of(
    network: Network,
    inputs: Mapping[str, Input],
    options: EventOptions,
    facts: frozenset[str],
) -> Sources:
    """Return the data shared by all parts of a network, before any of them has run."""
    arriving = signals(network)
    # An operator with `source` is a convolution or a pool; events of inputs are never cut off.
    gathered = frozenset(
        source
        for signal in arriving.values()
        for source, operator in signal.paths
        if operator.source is not None and source not in network.inputs
    )
    return Sources(
        network=network,
        engine=options,
        arriving=arriving,
        trains={name: _train(events) for name, events in inputs.items()},
        currents={name: events for name, events in inputs.items() if isinstance(events, Currents)},
        gathered=gathered,
        with_static_facts=facts,
    )


def currents_of(inputs: Mapping[str, Input]) -> tuple[str, ...]:
    """Return the names of the inputs that are currents."""
    return tuple(name for name, events in inputs.items() if isinstance(events, Currents))


def _train(events: Input) -> Train:
    """Return the events of an input; for currents, which are not events, only their times."""
    if isinstance(events, Currents):
        return Train(events.time, jnp.zeros(events.time.shape[1], jnp.int32))
    value = events.value if isinstance(events, GradedEvents) else None
    return Train(events.time, events.index, value=value)


# ---- checks before anything runs


def _checked_end(t_end: Any, dtype: Any) -> Float[Array, ""]:
    if t_end is None:
        raise UsageError(
            Text("{t_end} is missing", t_end=T_END),
            fix="pass the end time of the simulation in seconds",
        )
    if isinstance(t_end, Tracer):
        if t_end.shape:
            fix = "pass one time, or use jax.vmap for several"
            raise UsageError(
                Text("{t_end} has shape {shape}", t_end=T_END, shape=t_end.shape), fix=fix
            )
        if t_end.dtype == bool:
            raise UsageError(
                Text("{t_end} is a boolean", t_end=T_END), fix="pass a time in seconds"
            )
    else:
        seconds = as_number(t_end)
        with np.errstate(over="ignore", under="ignore"):
            end = np.asarray(seconds, dtype)
        if not is_end(end):
            rounded = 0 < seconds < np.inf
            as_what = (
                Text(
                    ", which is {rounded_end:g} s in {dtype}",
                    rounded_end=float(end),
                    dtype=np.dtype(dtype),
                )
                if rounded
                else Text("")
            )
            fix = "pass a positive, finite time in seconds"
            raise UsageError(
                Text(
                    "{option} is {t_end} s{as_what}",
                    option=T_END,
                    t_end=shown(t_end),
                    as_what=as_what,
                ),
                fix=fix,
            )
    return as_array_of(t_end, dtype)


def _checked_samples(times: Any, t_end: Any, end: Float[Array, ""]) -> Float[Array, "samples"]:
    """Return the sample times, by default evenly spaced from 0 to the end; refuse times outside the
    simulation.
    """
    # Traced times cannot be compared with the end here.
    if times is None:
        kind = module_for(end)
        return kind.linspace(0.0, 1.0, _DEFAULT_SAMPLES, dtype=end.dtype) * end
    if np.ndim(times) != 1:
        shape = np.shape(times)
        raise UsageError(
            Text(
                "sample_times has {axes} axes, shape {shape}, and must be one-dimensional",
                axes=len(shape),
                shape=shape,
            ),
            fix="pass an array of shape (samples,)",
        )
    if not any(isinstance(value, Tracer) for value in (times, t_end)):
        _refuse_samples(np.asarray(times, end.dtype), np.asarray(t_end, end.dtype))
    return as_array_of(times, end.dtype)


def _refuse_samples(times: np.ndarray, t_end: np.ndarray) -> None:
    # negated, so that NaN is outside
    outside = times[~((times >= 0) & (times <= t_end))]
    if outside.size:
        raise UsageError(
            Text(
                "sample_times outside the simulation: {count} of {size}, the first at {time:g} s",
                count=outside.size,
                size=times.size,
                time=outside[0],
            ),
            fix=Text("pass times from 0 to {option} ({t_end:g} s)", option=T_END, t_end=t_end),
        )


def check_options(network: Network, options: EventOptions) -> None:
    """Refuse options of the event engine that are invalid for a network.

    Raises:
        UsageError: an option is invalid; the message names it.
    """
    options = options.hashable()
    if options.backend not in BACKENDS:
        raise UsageError(
            Text("backend is {backend!r}", backend=options.backend),
            fix=suggestion(str(options.backend), BACKENDS),
        )
    if options.threads is not None and not _is_sound("threads", options.threads):
        fix = _integer_fix(options.threads)
        raise UsageError(Text("threads is {threads}", threads=shown(options.threads)), fix=fix)
    if not isinstance(options.forward_mode, bool):
        fix = "pass True or False"
        raise UsageError(
            Text("forward_mode is {forward_mode}", forward_mode=shown(options.forward_mode)),
            fix=fix,
        )
    for option in ("min_slope", "jump_width"):
        # "not >=" instead of "<", so that NaN is refused
        if (value := getattr(options, option)) is not None and not as_number(value) >= 0:
            raise UsageError(
                Text("{parameter} is {value}", parameter=option, value=shown(value)),
                fix="pass a value of at least 0",
            )
    for option in (*BUDGETS, "refractory"):
        named = by_population(option, getattr(options, option))
        # an option for a population that does not exist would have no effect
        refuse_strangers(option, named, network.populations, "a population")
        for name in network.populations:
            value = options.of(option, name)
            if value is not None and not _is_sound(option, value):
                fix = (
                    "pass a value of at least 0" if option == "refractory" else _integer_fix(value)
                )
                message = Text(
                    "{option} is {value} for '{name}'",
                    option=MAX_SPIKES if option == MAX_SPIKES.name else option,
                    value=shown(value),
                    name=name,
                )
                raise UsageError(message, fix=fix, node=name)
    # Readouts have no first spike.
    only = options.first_spike_only
    firing = [name for name, population in network.populations.items() if population.fires]
    are_names = isinstance(only, tuple) and all(isinstance(name, str) for name in only)
    if not isinstance(only, bool) and not are_names:
        fix = "pass True, False, or a tuple of population names"
        raise UsageError(Text("first_spike_only is {only}", only=shown(only)), fix=fix)
    named = only if isinstance(only, tuple) else ()
    refuse_strangers("first_spike_only", named, firing, "a spiking population")


def _is_sound(option: str, value: Any) -> bool:
    """Return whether a value is valid as a refractory time, or as an integer such as a budget."""
    if isinstance(value, bool):  # a bool is an int in Python
        return False
    number = as_number(value)
    if option == "refractory":
        return number >= 0
    return 1 <= number <= MOST_ROOM and number.is_integer()


def _integer_fix(number: Any) -> str:
    """Return the fix for an invalid integer."""
    too_many = MOST_ROOM < as_number(number) < np.inf
    return f"pass at most {MOST_ROOM}" if too_many else "pass an integer of at least 1"


def refuse_strangers(
    option: str, named: Iterable[str], allowed: Collection[str], description: str
) -> None:
    """Refuse names in an option that do not exist in a network.

    Args:
        allowed: the valid names.
        description: their kind, in one or two words.

    Raises:
        UsageError: a name does not exist; the message contains it, and a similar valid name.
    """
    for name in named:
        if name not in allowed:
            raise UsageError(
                Text(
                    "{parameter} contains {name!r}, which is not {description}",
                    parameter=option,
                    name=name,
                    description=description,
                ),
                fix=suggestion(name, allowed),
                node=name,
            )
