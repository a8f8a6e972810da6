"""One verb, `simulate`, and one record of what came out, `Solution`."""

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jaxsnn.errors import SimulationError, UsageError, suggestion
from jaxsnn.event.engine import Event, run
from jaxsnn.event.events import Events, flatten_spikes
from jaxsnn.event.feedforward import LayerSpikes
from jaxsnn.network import Network

_DEFAULT_SAMPLES = 101


class Result(enum.IntEnum):
    """How a run ended."""

    SUCCESS = 0
    BUDGET_EXHAUSTED = 1
    TIME_CONSTANTS_CHANGED = 2
    NOT_FINITE = 3
    INVALID_INPUT = 4


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class Solution:
    """What a run left. A pytree; everything is by NIR node name.

    Attributes:
        spikes: population -> `LayerSpikes` with `time` and `slope` (batch, neurons, spikes), `count` (batch, neurons).
        voltages: readout -> membrane voltage (batch, samples, neurons).
        sample_times: (samples,) seconds, where the readouts were sampled.
        result: how the run ended, a `Result` as int32 scalar.
        clipped_slopes: population -> number of spikes so close to tangency that a gradient is clipped.
        spikes_needed: population -> largest number of spikes of one of its neurons; where that exceeds the budget, it
            is a lower bound for the populations behind.
        max_spikes: the budget, spikes recorded of each neuron.
        outputs: Output node -> names of the populations that feed it.
    """

    spikes: dict[str, LayerSpikes]
    voltages: dict[str, jax.Array]
    sample_times: jax.Array
    result: jax.Array
    clipped_slopes: dict[str, jax.Array]
    spikes_needed: dict[str, jax.Array]
    shapes_hold: dict[str, jax.Array]
    max_spikes: int = field(metadata={"static": True})
    outputs: tuple[tuple[str, tuple[str, ...]], ...] = field(metadata={"static": True})

    def events(self, name: str) -> Events:
        """Spikes of a population, sorted by time: (batch, neurons * spikes), padded with inf and the size.

        Spikes at exactly equal times come in the order of their neurons.
        """
        return flatten_spikes(self._of(name).time)

    def first_spike(self, name: str) -> jax.Array:
        """First spike time of each neuron, (batch, neurons) seconds; inf where it is silent."""
        return self._of(name).time[..., 0]

    def _of(self, name):
        if name not in self.spikes:
            raise UsageError(f"'{name}' is no population that fires: {suggestion(name, self.spikes)}")
        return self.spikes[name]

    @property
    def message(self) -> str:
        """The result in words, with the numbers and what to do (outside jit only)."""
        match Result(int(self.result)):
            case Result.SUCCESS:
                return "success"
            case Result.BUDGET_EXHAUSTED:
                needed = {name: int(count) for name, count in self.spikes_needed.items()}
                name = next(name for name, count in needed.items() if count > self.max_spikes)
                return (
                    f"spike budget exhausted: a neuron of '{name}' fires {needed[name]} times, {self.max_spikes} "
                    f"spikes of each are recorded: raise max_spikes from {self.max_spikes} to at least "
                    f"{max(needed.values())}"
                )
            case Result.TIME_CONSTANTS_CHANGED:
                name = next(name for name, holds in self.shapes_hold.items() if not holds)
                return (
                    f"the time constants of '{name}' are no longer those that the network was lowered for: change "
                    "parameters with network.with_parameters(...), or lower with free_time_constants=True"
                )
            case Result.INVALID_INPUT:
                return "an event lies before time 0 or names a channel that the input lacks, or t_end is not after 0"
        return "a parameter, a spike time or a voltage is NaN or infinite: look for NaN in parameters and inputs"


def simulate(
    network: Network,
    inputs: Any,
    t_end: float,
    *,
    engine: Event | None = None,
    sample_times: Any = None,
    throw: bool = True,
) -> Solution:
    """Simulate a network exactly, event by event; differentiable in its parameters and the input times.

    Args:
        network: made by `jaxsnn.lower`.
        inputs: `Events` with arrays (events,) or (batch, events), in any order; for several inputs a mapping from the
            Input node's name. Times are in seconds, from 0 on.
        t_end: end of the simulation, seconds.
        engine: options of the event engine.
        sample_times: (samples,) seconds at which readouts (CubaLI) are sampled; default 101 over [0, t_end].
        throw: raise where the run did not succeed. Inside `jax.jit` nothing can be raised: look at `Solution.result`.

    Raises:
        UsageError: inputs that do not fit the network.
        SimulationError: the run ended with a `Result` other than SUCCESS.
    """
    engine = engine or Event()
    check_engine(network, engine)
    trains = checked_inputs(network, inputs)
    if not isinstance(t_end, Tracer) and not 0 < t_end < np.inf:
        raise UsageError(f"t_end is {t_end:g} s: the simulation must end at a finite time after 0")
    end = jnp.asarray(t_end, network.dtype)
    if sample_times is None:
        sample_times = jnp.linspace(0.0, 1.0, _DEFAULT_SAMPLES, dtype=network.dtype) * end
    solution = _simulate(engine, network, trains, end, jnp.asarray(sample_times, network.dtype))
    if throw and not isinstance(solution.result, Tracer) and int(solution.result) != Result.SUCCESS:
        raise SimulationError(solution.message)
    return solution


@partial(jax.jit, static_argnums=0)
def _simulate(engine, network, trains, t_end, sample_times):
    record = run(network, trains, t_end, sample_times, engine)
    needed = {name: jnp.max(spikes.count) for name, spikes in record.spikes.items()}
    exhausted = any_of([count > engine.max_spikes for count in needed.values()])
    stale = any_of([~holds for holds in record.shapes_hold.values()])
    broken = any_of(
        [jnp.any(jnp.isnan(spikes.time)) for spikes in record.spikes.values()]
        + [jnp.any(jnp.isnan(events.time)) for events in trains.values()]
        + [~jnp.all(jnp.isfinite(array)) for array in jax.tree.leaves((record.voltages, network.parameters))]
    )
    invalid = any_of([_out_of_range(trains[name], size) for name, size in network.inputs.items()])
    conditions = [
        (invalid | ~((t_end > 0) & jnp.isfinite(t_end)), Result.INVALID_INPUT),
        (stale, Result.TIME_CONSTANTS_CHANGED),
        (broken, Result.NOT_FINITE),
        (exhausted, Result.BUDGET_EXHAUSTED),
    ]
    result = jnp.select([c for c, _ in conditions], [jnp.int32(r) for _, r in conditions], jnp.int32(0))
    return Solution(
        spikes=record.spikes,
        voltages=record.voltages,
        sample_times=sample_times,
        result=result,
        clipped_slopes=record.clipped,
        spikes_needed=needed,
        shapes_hold=record.shapes_hold,
        max_spikes=engine.max_spikes,
        outputs=tuple(network.outputs.items()),
    )


def any_of(conditions):
    """Whether any of some scalar bool arrays is true."""
    return jnp.any(jnp.stack(conditions)) if conditions else jnp.asarray(False)


def _out_of_range(events, size):
    """Whether some event has no place in the simulation: what `checked_inputs` cannot see inside `jax.jit`."""
    used = jnp.isfinite(events.time)
    return jnp.any((events.time < 0) | used & ((events.index < 0) | (events.index >= size)))


def check_engine(network, engine):
    """Refuse options of the event engine that make no sense for a network.

    Raises:
        UsageError: says which.
    """
    if engine.max_spikes < 1:
        raise UsageError(f"max_spikes is {engine.max_spikes}: record at least 1 spike of each neuron")
    firing = [name for name, population in network.populations.items() if population.fires]
    for name in () if isinstance(engine.first_spike_only, bool) else engine.first_spike_only:
        if name not in firing:
            raise UsageError(f"first_spike_only names '{name}', no population that fires: {suggestion(name, firing)}")


def checked_inputs(network, inputs):
    """Checked inputs: name -> Events (batch, events) in the network's dtype."""
    sizes = network.inputs
    if not isinstance(inputs, Mapping):
        if len(sizes) != 1:
            raise UsageError(
                f"the network has {len(sizes)} inputs ({', '.join(sizes)}): pass a mapping from their names"
            )
        inputs = {next(iter(sizes)): inputs}
    for name in inputs:
        if name not in sizes:
            raise UsageError(f"the network has no input '{name}': {suggestion(name, sizes)}")
    for name in sizes:
        if name not in inputs:
            raise UsageError(f"no events for input '{name}': pass Events for {', '.join(sizes)}")
    trains = {name: _train(name, inputs[name], size, network.dtype) for name, size in sizes.items()}
    batches = {name: events.time.shape[0] for name, events in trains.items()}
    if len(set(batches.values())) > 1:
        raise UsageError(f"the inputs have different batch sizes {batches}: use one size for all")
    return trains


def _train(name, events, size, dtype):
    if not (hasattr(events, "time") and hasattr(events, "index")):
        raise UsageError(f"input '{name}' is a {type(events).__name__}: pass jaxsnn.Events(time=..., index=...)")
    if jnp.shape(events.time) != jnp.shape(events.index) or jnp.ndim(events.time) not in (1, 2):
        raise UsageError(
            f"input '{name}': time has shape {jnp.shape(events.time)} and index {jnp.shape(events.index)}: both must "
            "be (events,) or (batch, events)"
        )
    if 0 in jnp.shape(events.time)[:-1]:
        raise UsageError(f"input '{name}' has no samples (time has shape {jnp.shape(events.time)}): pass at least one")
    if not isinstance(events.time, Tracer):
        time = np.asarray(events.time)
        if np.isnan(time).any() or (time < 0).any():
            worst = time[np.isnan(time) | (time < 0)].flat[0]
            raise UsageError(f"input '{name}' has an event at time {worst:g} s: times must be >= 0 (inf: no event)")
        if not isinstance(events.index, Tracer):
            index = np.asarray(events.index)
            used = index[np.isfinite(time)]
            if used.size and (used.min() < 0 or used.max() >= size):
                worst = used.min() if used.min() < 0 else used.max()
                raise UsageError(
                    f"input '{name}' has {size} channels (0 to {size - 1}), an event names channel {worst}"
                )
    time = jnp.asarray(events.time, dtype)
    return Events(time=jnp.atleast_2d(time), index=jnp.atleast_2d(jnp.asarray(events.index, jnp.int32)))
