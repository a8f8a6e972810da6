"""Training in the loop: a device fires the spikes, and the exact gradient is computed at the
recorded spikes.

The forward pass is not simulated: a chip, or an emulated chip, records which neuron fired when. The
backward pass is the adjoint of the event engine at these times, with the slopes that follow from the
equations of the network (Pehle et al., arXiv:2302.07141). Deviations of the device from the
equations have an effect only through the recorded times.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jaxsnn.errors import UsageError
from jaxsnn.event.event_driven import check_options
from jaxsnn.event.event_options import EventOptions, PerPopulation
from jaxsnn.event.event_solution import EventSolution, conclude
from jaxsnn.event.replay import replay
from jaxsnn.keywords import suggests_keywords
from jaxsnn.network.array_types import Array, Float, Int
from jaxsnn.network.inputs import checked_inputs, plain_events
from jaxsnn.network.network import Network
from jaxsnn.network.spikes import Events
from jaxsnn.train.loop.history import as_recorded
from jaxsnn.wording import Text


class Device(Protocol):
    """Spiking device in the training loop; hashable, because compiled code depends on it. It may have
    an attribute `refractory`: the refractory period of its neurons, seconds of the network.
    """

    def forward(self, network: Network, inputs: dict[str, Any]) -> dict[str, np.ndarray]:
        """Return the spike times of each spiking population, by its NIR name.

        Args:
            network: network with the parameters of this step, NumPy arrays.
            inputs: Input node -> Events (batch, events), NumPy arrays.

        Returns:
            Population -> (batch, neurons, spikes) seconds, rising along the last axis, inf where
            unused. Any number of spikes; those at or after the end of the sample do not count, and
            those beyond `max_spikes` end the step with a result code for an exhausted
            budget.
        """
        ...


@runtime_checkable
class TracedDevice(Protocol):
    """Device that JAX can trace, such as an emulator: no callback leaves the compiled step.

    Attributes:
        trainable: NIR names of the parameters that the device reads from the network; others are
            fixed in the device.
    """

    trainable: tuple[str, ...]

    def forward_traced(
        self, network: Network, inputs: dict[str, Events], t_end: Any, options: EventOptions
    ) -> dict[str, tuple[jax.Array, jax.Array]]:
        """Return the spikes of each spiking population.

        Args:
            network: network with the parameters of this step.
            inputs: Input node -> Events (batch, events).
            t_end: end of the sample in seconds.
            options: spike budgets, and the populations that stop after their first spike.

        Returns:
            Population -> ascending spike times in seconds, (batch, neurons, spikes), inf in unused
            slots, with the number of slots of the engine; and the number of spikes of each neuron,
            (batch, neurons), including lost spikes, but without those at or after the end.
        """
        ...

    def as_dict(self) -> dict[str, Any]:
        """Return a description of the device for JSON."""
        ...


@runtime_checkable
class NumberedDevice(TracedDevice, Protocol):
    """Device that can be traced with other numbers, such as another chip of the same kind: equal
    devices differ only in these, and share compiled code that takes them as arguments.

    Attributes:
        numbers: tree of arrays.
    """

    numbers: Any

    def with_numbers(self, numbers: Any) -> TracedDevice:
        """Return a copy of the device with other numbers, which may be traced arrays."""
        ...


@runtime_checkable
class BoundDevice(Protocol):
    """Device that was made for one network. It reads only some parameters of the networks that are
    passed to it, and therefore must refuse other networks.
    """

    def refuse_other(self, network: Network) -> None:
        """Raise UsageError for a network, without traced parameters, that the device was not made
        for.
        """
        ...


#: Exceptions of devices by number; the text of JAX's own error, which replaces each, contains the
#: number.
_RAISED: dict[int, Exception] = {}
_NUMBERS = itertools.count()
_NUMBERED = "error {} of a device"
#: Maximum number of exceptions that are kept, since those of runs outside of `device_errors` are
#: never removed.
_KEPT = 64


@contextmanager
def device_errors() -> Iterator[None]:
    """Raise the exceptions that a device raises inside compiled code unchanged."""
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        # Several threads may train at once, so an error is identified by its number.
        for number in re.findall(_NUMBERED.format(r"(\d+)"), str(error)):
            if (raised := _RAISED.pop(int(number), None)) is not None:
                raise raised from None
        raise


@suggests_keywords
@dataclass(frozen=True, kw_only=True)
class InTheLoop:
    """Engine that trains on the spikes of a device, with exact gradients at their times.

    Attributes:
        device: `Device` or `TracedDevice` that fires the spikes.
        max_spikes, first_spike_only, min_slope: as in `jaxsnn.EventDriven`. With `first_spike_only`,
            all spikes of a neuron of a `Device` after its first one are ignored.
        refractory: Refractory period of the device, seconds of the network, as in
            `jaxsnn.EventDriven`; the gradient accounts for it. None: that of the attribute
            `refractory` of the device, 0 if it has none.
    """

    device: Device | TracedDevice
    max_spikes: PerPopulation = 16
    first_spike_only: bool | tuple[str, ...] = False
    min_slope: float = 2**-20
    refractory: PerPopulation | None = None

    #: Name of the engine in configuration files and on the command line.
    kind: ClassVar[str] = "device"
    #: Whether gradients are exact, not those of a surrogate.
    exact: ClassVar[bool] = True
    #: Whether inputs may also be arrays (time, batch, *shape).
    takes_rasters: ClassVar[bool] = False

    def run(
        self, network: Network, inputs: Any, t_end: float | None, sample_times: Any = None
    ) -> EventSolution:
        """Return the device's spikes as a solution that is differentiable like that of the event
        engine.

        Args:
            inputs, t_end: as in `jaxsnn.simulate`.
            sample_times: must be None or empty, because voltages are not recorded.

        Raises:
            UsageError: the device returns no spikes of a population, or invalid arrays, or was made for
                another network.
        """
        if sample_times is not None and np.size(sample_times):
            raise UsageError("voltages cannot be sampled in the loop", fix="leave sample_times out")
        trains = plain_events(checked_inputs(network, inputs), "a device in the loop")
        end = jnp.asarray(t_end, network.dtype)
        self.check(network)
        if isinstance(self.device, TracedDevice):
            return _compiled(self.hashable(), network, trains, end)
        with device_errors():
            return jax.block_until_ready(_simulate(self.hashable(), network, trains, end))

    def check(self, network: Network) -> None:
        """Raise UsageError for options that are invalid for the network, for a refractory period
        other than that of the device, or for a device that was made for another network; traced
        parameters are not checked.
        """
        check_options(network, self.event)
        actual, chosen = getattr(self.device, "refractory", None), self.refractory
        if (
            isinstance(actual, float)
            and isinstance(chosen, float | int)
            and not np.isclose(actual, chosen, rtol=2**-20, atol=0)
        ):
            raise UsageError(
                Text(
                    "refractory is {value:g} s, and that of the device is {actual:g} s",
                    value=chosen,
                    actual=actual,
                ),
                fix="leave refractory out",
            )
        leaves = jax.tree.leaves(network.parameters)
        if isinstance(self.device, BoundDevice) and not any(isinstance(x, Tracer) for x in leaves):
            self.device.refuse_other(network)

    @property
    def numbers(self) -> Any:
        """Numbers of the device, see `NumberedDevice`; () where it has none."""
        return self.device.numbers if isinstance(self.device, NumberedDevice) else ()

    def with_numbers(self, numbers: Any) -> InTheLoop:
        """Return the engine with a device that has other numbers."""
        if not isinstance(self.device, NumberedDevice):
            return self
        return replace(self, device=self.device.with_numbers(numbers))

    @property
    def grows(self) -> bool:
        """Return whether the budget is "auto"."""
        return self.event.grows

    def is_auto(self, option: str, population: str) -> bool:
        """Return whether the budget of a population is "auto"."""
        return self.event.is_auto(option, population)

    @property
    def event(self) -> EventOptions:
        """Options of the engine as options of the event engine."""
        return EventOptions(
            max_spikes=self.max_spikes,
            first_spike_only=self.first_spike_only,
            min_slope=self.min_slope,
            refractory=self._used_refractory,
        ).hashable()

    @property
    def _used_refractory(self) -> PerPopulation:
        """Refractory period of the device, seconds of the network."""
        if self.refractory is not None:
            return self.refractory
        return getattr(self.device, "refractory", None) or 0.0

    def with_room(self, needed: Mapping[str, Mapping[str, int]]) -> InTheLoop:
        """Return the engine with a larger budget."""
        return replace(self, max_spikes=self.event.with_room(needed).max_spikes)

    def hashable(self) -> InTheLoop:
        """Return the engine with options that can be hashed."""
        event = self.event
        field_names = ("max_spikes", "first_spike_only", "min_slope", "refractory")
        return replace(self, **{name: getattr(event, name) for name in field_names})

    prepared = hashable  # the form that compiled training needs

    def slots(self, population: str) -> int:
        """Return the number of spikes recorded of each neuron of a population."""
        event = self.event
        return 1 if event.stops(population) else event.of("max_spikes", population)

    def as_dict(self) -> dict[str, Any]:
        """Return the engine as a dict for JSON."""
        only, device, refractory = self.first_spike_only, self.device, self._used_refractory
        device_record = (
            device.as_dict() if isinstance(device, TracedDevice) else as_recorded(device)
        )
        return {
            "device": device_record,
            "max_spikes": dict(self.max_spikes)
            if isinstance(self.max_spikes, tuple)
            else self.max_spikes,
            "first_spike_only": only if isinstance(only, bool) else list(only),
            "min_slope": self.min_slope,
            "refractory": dict(refractory) if isinstance(refractory, tuple) else refractory,
        }


def _simulate(
    engine: InTheLoop, network: Network, trains: dict[str, Events], t_end: jax.Array
) -> EventSolution:
    frozen = jax.lax.stop_gradient((network.parameters, trains))
    lost: dict[str, jax.Array] = {}
    if isinstance(engine.device, TracedDevice):
        parameters, inputs = frozen
        frozen_network = Network(
            parameters=parameters, wires=network.wires, populations=network.populations
        )
        sent = engine.device.forward_traced(frozen_network, inputs, t_end, engine.event)
        fired = jax.lax.stop_gradient(
            {name: _before(t_end, *train) for name, train in sent.items()}
        )
        recorded = {name: (time, _kept(time, count)) for name, (time, count) in fired.items()}
        lost = {
            name: jnp.sum(fired[name][1] - counted, axis=1)
            for name, (_, counted) in recorded.items()
        }
    else:
        batch = next(iter(trains.values())).time.shape[0]
        firing = {
            name: population.size
            for name, population in network.populations.items()
            if population.fires
        }
        shapes = {
            name: (
                jax.ShapeDtypeStruct((batch, size, engine.slots(name)), network.dtype),
                jax.ShapeDtypeStruct((batch, size), jnp.int32),
            )
            for name, size in firing.items()
        }
        callback = partial(_recorded, engine, network)
        recorded = jax.pure_callback(callback, shapes, *frozen, t_end)
    sampled = jnp.zeros(0, t_end.dtype)
    record = replay(network, trains, t_end, sampled, engine.event, recorded)
    solution = conclude(network, trains, t_end, sampled, record, engine.event)
    return replace(solution, lost=lost)


# The numbers of a device are arguments of compiled code, not part of it.
jax.tree_util.register_pytree_node(
    InTheLoop,
    lambda engine: ((engine.numbers,), engine),
    lambda engine, numbers: engine.with_numbers(*numbers),
)
_compiled = jax.jit(_simulate)


def _kept(
    time: Float[Array, "batch neurons spikes"], count: Int[Array, "batch neurons"]
) -> Int[Array, "batch neurons"]:
    """Return the number of recorded spikes of each neuron; where the budget overflowed, the number
    of fired spikes.
    """
    return jnp.where(
        count > time.shape[2], count, jnp.sum(jnp.isfinite(time), axis=2, dtype=count.dtype)
    )


def _before(
    t_end: jax.Array, time: Float[Array, "batch neurons spikes"], count: Int[Array, "batch neurons"]
) -> tuple[jax.Array, jax.Array]:
    """Remove the spikes at or after the end, which a device with a latency may return; spikes
    without a slot are later than those that have one.
    """
    late = time >= t_end
    cut = jnp.sum(late & jnp.isfinite(time), axis=2, dtype=count.dtype)
    before = jnp.minimum(count, time.shape[2]) - cut
    return jnp.where(late, jnp.inf, time), jnp.where(cut > 0, before, count)


def _recorded(
    engine: InTheLoop, network: Network, parameters: Any, trains: Any, t_end: Any
) -> dict[str, Any]:
    """Return the device's spikes, and store an exception that the device raises under a number."""
    try:
        return _asked(engine, network, parameters, trains, float(t_end))
    except Exception as error:
        number = next(_NUMBERS)
        _RAISED[number] = error
        _RAISED.pop(number - _KEPT, None)
        raise RuntimeError(
            Text("{format}: {reason}", format=_NUMBERED.format(number), reason=str(error))
        ) from error


def _asked(
    engine: InTheLoop, network: Network, parameters: Any, trains: Any, t_end: float
) -> dict[str, Any]:
    """Run the device, and return its times before the end, cut or padded to the budget, with their
    counts.
    """
    as_numpy = partial(jax.tree.map, np.asarray)
    filled = Network(
        parameters=as_numpy(parameters), wires=network.wires, populations=network.populations
    )
    inputs = {
        name: replace(events, time=np.asarray(events.time), index=np.asarray(events.index))
        for name, events in trains.items()
    }
    device: Any = engine.device
    times = device.forward(filled, inputs)
    batch = len(next(iter(inputs.values())).time)
    result = {}
    for name, population in network.populations.items():
        if not population.fires:
            continue
        if name not in times:
            raise UsageError(
                Text("the device returns no spikes of population '{population}'", population=name),
                fix="return its spike times",
                node=name,
            )
        population_times = _checked_times(name, np.asarray(times[name]), (batch, population.size))
        population_times = np.where(population_times < t_end, population_times, np.inf)
        population_times = population_times.astype(network.dtype)
        room = engine.slots(name)
        slots = np.full((*population_times.shape[:2], room), np.inf, population_times.dtype)
        copied = min(population_times.shape[2], room)
        slots[..., :copied] = population_times[..., :copied]
        fired = np.isfinite(slots if engine.event.stops(name) else population_times)
        result[name] = (slots, fired.sum(axis=2).astype(np.int32))
    return result


def _checked_times(name: str, times: np.ndarray, lead: tuple[int, int]) -> np.ndarray:
    """Validate and return the times of a population from a device, (batch, neurons, spikes)."""
    if times.ndim != 3 or times.shape[:2] != lead:
        raise UsageError(
            Text(
                "population '{population}': the device returns times of shape {shape}",
                population=name,
                shape=times.shape,
            ),
            fix=f"return times of shape ({lead[0]}, {lead[1]}, spikes)",
            node=name,
        )
    if times.dtype.kind not in "fiu":
        raise UsageError(
            Text(
                "population '{population}': the device returns times of type {dtype}",
                population=name,
                dtype=times.dtype,
            ),
            fix="return seconds as numbers, with inf in unused slots",
            node=name,
        )
    falls = np.zeros(times.shape, bool)
    falls[..., 1:] = times[..., 1:] < times[..., :-1]
    for wrong, reason in (
        (~(times >= 0), "which must be at least 0 s, or inf"),
        (falls, "which is below the previous time, and times must not decrease"),
    ):
        if wrong.any():
            place = np.argwhere(wrong)[0]
            raise UsageError(
                Text(
                    "population '{population}': the device returns the time {time:g} at sample "
                    "{sample}, neuron {neuron}, spike {spike}, {reason}",
                    population=name,
                    time=times[tuple(place)],
                    sample=place[0],
                    neuron=place[1],
                    spike=place[2],
                    reason=reason,
                ),
                fix="return sorted times along the last axis, with inf in unused slots",
                node=name,
            )
    return times
