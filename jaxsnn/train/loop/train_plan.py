"""What a training run will do, decided and checked before anything is computed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, is_dataclass
from typing import Any

import numpy as np
import optax

from jaxsnn.errors import UsageError, refuse_seed, suggestion
from jaxsnn.event.event_options import Event
from jaxsnn.event.threshold_feeds import leveled
from jaxsnn.grid.time_stepped import Grid
from jaxsnn.network.network import Network
from jaxsnn.network.spikes import Events
from jaxsnn.train.data.datasets import Splits
from jaxsnn.train.data.encoders import Latency
from jaxsnn.train.loop.batch_engines import BUDGETS, Engine
from jaxsnn.train.loop.constraints import Constraint
from jaxsnn.train.loop.defaults import INPUT_SPAN, make_loss, refuse_unfit
from jaxsnn.train.loop.epoch import Augment
from jaxsnn.train.loop.in_the_loop import InTheLoop, TracedDevice
from jaxsnn.train.loop.optimisers import SCHEDULES, Schedule
from jaxsnn.train.losses.losses import Loss, name_of
from jaxsnn.train.losses.readings import refuse_unreadable
from jaxsnn.train.losses.regularizers import Regulariser
from jaxsnn.train.losses.silence import Push
from jaxsnn.units import format_time

#: Smallest slope dV/dt that a gradient is divided by, in (v_threshold - v_reset) / tau_mem.
MIN_SLOPE = 0.04
# Spikes recorded of each neuron to begin with; where that is too few, the population's budget
# grows.
_FIRST_BUDGET = 4

Encoder = Callable[[Any], Events]

#: What to do where a run fails: go back to the best epoch and go on with smaller steps, or stop.
ON_FAILURE = ("back", "stop")


@dataclass(frozen=True, kw_only=True)
class TrainPlan:
    """The choices of a training run.

    Attributes:
        loss, encoder, engine: what was given, or the defaults. The engine's budget may grow while
            training.
        t_end: seconds, end of each sample.
        others: as given to `jaxsnn.train.fitting`.
        notes: what a user should know about these choices.
    """

    loss: Loss
    encoder: Encoder | None
    engine: Engine
    t_end: float
    epochs: int
    batch_size: int
    learning_rate: float
    schedule: str | Schedule
    optimiser: str | optax.GradientTransformation
    seed: int
    trainable: tuple[str, ...] | Mapping[str, Constraint]
    push: Push
    clip: float | None
    regularisers: tuple[Regulariser, ...]
    augment: Augment | None
    averaging: float
    patience: int | None
    on_failure: str
    devices: int | None
    notes: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """For JSON; times in seconds."""
        engine = _engine_as_dict(self.engine)
        trainable = self.trainable
        return {
            "loss": {"name": name_of(self.loss), **_fields(self.loss)},
            "encoder": _as_dict(self.encoder),
            "engine": {"name": type(self.engine).__name__, **engine},
            "t_end": self.t_end,
            "epochs": self.epochs,
            "batch_size": self.batch_size,
            "learning_rate": self.learning_rate,
            "schedule": _shown(self.schedule),
            "optimiser": _shown(self.optimiser),
            "seed": self.seed,
            "trainable": {name: _as_dict(constraint) for name, constraint in trainable.items()}
            if isinstance(trainable, Mapping)
            else list(trainable),
            "push": asdict(self.push),
            "clip": self.clip,
            "regularisers": [_as_dict(regulariser) for regulariser in self.regularisers],
            "augment": _as_dict(self.augment),
            "averaging": self.averaging,
            "patience": self.patience,
            "on_failure": self.on_failure,
        }


def _engine_as_dict(engine: Engine) -> dict[str, Any]:
    if isinstance(engine, InTheLoop):
        return engine.as_dict()
    found = asdict(engine)
    budgets = {
        name: dict(getattr(engine, name)) for name in BUDGETS if isinstance(found.get(name), tuple)
    }
    only = found.get("first_spike_only", False)
    return found | budgets | ({} if isinstance(only, bool) else {"first_spike_only": list(only)})


def _shown(choice: Any) -> str:
    """A name, or the name of what an object is."""
    return (
        choice
        if isinstance(choice, str)
        else f"<{getattr(choice, '__name__', type(choice).__name__)}>"
    )


def _fields(record: Any) -> dict[str, Any]:
    return asdict(record) if is_dataclass(record) and not isinstance(record, type) else {}


def _as_dict(record: Any) -> dict[str, Any] | None:
    if record is None:
        return None
    return {"name": getattr(record, "__name__", type(record).__name__), **_fields(record)}


def make_plan(
    network: Network,
    data: Splits,
    *,
    loss: Loss | str,
    encoder: Encoder | None,
    t_end: float | None,
    engine: Engine | str | None,
    push: Push | None,
    **settings: Any,
) -> TrainPlan:
    """Fill in what was not given, and check it; see `jaxsnn.train.fitting` for the arguments."""
    if isinstance(loss, str):
        loss = make_loss(loss, network, t_end, span=data.span)
    refuse_unfit(network, loss.population, loss.reads, name_of(loss))
    end: float = loss.t_max if t_end is None else t_end
    engine = make_engine(engine, network, loss)
    on_grid = isinstance(engine, Grid)
    _refuse_untaken(engine, network, settings["trainable"])
    _refuse_stopped(engine, network, loss)
    notes = _engine_notes(engine, network, loss)
    if (
        encoder is None
        and not hasattr(data.train.x, "time")
        and not (on_grid and data.encoder is None and np.ndim(data.train.x) > 2)
    ):
        encoder, note = default_encoder(data, loss.tau)
        notes.append(note)
    if push is None:
        push = Push(label=0.0, hidden=0.0) if on_grid else Push()
    notes += plan_notes(network, engine)
    plan = TrainPlan(
        loss=loss,
        encoder=encoder,
        engine=engine,
        t_end=end,
        push=push,
        notes=tuple(notes),
        **settings,
    )
    _check_numbers(plan)
    _refuse_not_finite(plan.as_dict())
    return plan


def default_encoder(data: Splits, tau: float) -> tuple[Encoder, str]:
    """The encoder where nobody gives one, and a note that says which; `tau` in seconds."""
    if data.encoder is not None:
        encoder = data.encoder(tau)
        return encoder, f"the task's own encoder is used: {encoder}"
    encoder = Latency(t_min=0.0, t_max=INPUT_SPAN * tau, bias=data.bias)
    bias = ", and a last channel spikes at 0 s" if data.bias else ""
    return (
        encoder,
        f"values from 0 to 1 are encoded as one spike each, from 0 s to {format_time(encoder.t_max)}{bias}",
    )


def _refuse_stopped(engine: Engine, network: Network, loss: Loss) -> None:
    """Refuse a loss that reads spikes which the engine leaves out."""
    only, population = getattr(engine, "first_spike_only", False), loss.population
    stops = only if isinstance(only, bool) else population in only
    if stops and loss.reads != "first spikes" and network.populations[population].fires:
        raise UsageError(
            f"loss {name_of(loss)} reads all spikes of '{population}', and first_spike_only stops its neurons after "
            f"one: leave '{population}' out of first_spike_only (say the loss to on_chip too)"
        )


def make_engine(engine: Engine | str | None, network: Network, loss: Loss) -> Engine:
    """The engine of a name, or the default: a population that only a first-spike loss reads stops
    after it fires.
    """
    if engine is None or engine == "event":
        alone = loss.reads == "first spikes" and not _feeds_others(network, loss.population)
        stops = (loss.population,) if alone else ()
        budgets = {
            name: _FIRST_BUDGET
            for name, population in network.populations.items()
            if population.fires
        }
        return Event(max_spikes=budgets, first_spike_only=stops, min_slope=MIN_SLOPE).hashable()
    if engine == "grid":
        return Grid()
    if isinstance(engine, str):
        hint = (
            ": the loop needs a device: pass InTheLoop(device=...), or on_chip(graph)"
            if engine == "loop"
            else ""
        )
        raise UsageError(
            f"there is no engine '{engine}' by name{hint}: {suggestion(engine, ('event', 'grid'))}"
        )
    return engine


def _engine_notes(engine: Engine, network: Network, loss: Loss) -> list[str]:
    """What an engine's gradients are, where they are not exact; refuses losses that have none on
    it.
    """
    if isinstance(engine, Grid):
        if loss.reads == "first spikes":
            raise UsageError(
                f"loss {name_of(loss)} reads spike times, which have no gradient on the grid: take count, max, "
                "integral or exp-sum, or the event engine"
            )
        refuse_unreadable(network, loss.population)
        return [
            f"gradients are those of the surrogate {type(engine.surrogate).__name__}, as in the framework"
        ]
    if loss.reads == "spikes":
        return [
            "a number of spikes has no exact gradient: each spike passes on what a kick of its voltage would do"
        ]
    return []


def _refuse_untaken(engine: Engine, network: Network, trainable: Iterable[str]) -> None:
    """Refuse to train what a device in the loop would not take."""
    if not (isinstance(engine, InTheLoop) and isinstance(engine.device, TracedDevice)):
        return
    takes = engine.device.trainable
    there = {name for own in network.parameters.values() for name in own}
    for name in trainable:
        kind = name.rpartition(".")[2]
        if kind not in takes and kind in there:
            raise UsageError(
                f"'{name}' is to be trained, the device in the loop takes {', '.join(takes)} only: leave it out "
                "(--train)"
            )


def _feeds_others(network: Network, population: str) -> bool:
    return any(population in wire.sources and wire.kind != "output" for wire in network.wires)


def _check_numbers(plan: TrainPlan) -> None:
    for name, least in (("epochs", 1), ("batch_size", 1), ("patience", 1)):
        value = getattr(plan, name)
        if value is not None and value < least:
            raise UsageError(f"{name} is {value}: it must be at least {least}")
    refuse_seed(plan.seed)
    for name in ("learning_rate", "t_end", "clip"):
        value = getattr(plan, name)
        if value is not None and not (np.isfinite(value) and value > 0):
            raise UsageError(f"{name} is {value:g}: it must be positive and finite")
    for name, value in vars(plan.push).items():
        if not value >= 0:
            raise UsageError(f"push.{name} is {value:g}: it must be at least 0")
    if not 0 <= plan.averaging < 1:
        raise UsageError(f"averaging is {plan.averaging:g}: it must be from 0 to 1, 1 excluded")
    if plan.on_failure not in ON_FAILURE:
        raise UsageError(
            f"on_failure is '{plan.on_failure}': {suggestion(plan.on_failure, ON_FAILURE)}"
        )
    if plan.regularisers and isinstance(plan.engine, Grid):
        raise UsageError(
            "regularisers look at a solution of the event engine: leave them out on the grid"
        )
    if isinstance(plan.schedule, str) and plan.schedule not in SCHEDULES:
        raise UsageError(
            f"there is no schedule '{plan.schedule}': {suggestion(plan.schedule, SCHEDULES)}"
        )


def _refuse_not_finite(settings: Any, where: str = "") -> None:
    """Whatever option it is: no number of a run is NaN or infinite, and JSON, in which it is
    recorded, has neither.
    """
    if isinstance(settings, float) and not np.isfinite(settings):
        raise UsageError(f"{where} is {settings:g}: give a finite number")
    if isinstance(settings, Mapping):
        for name, value in settings.items():
            _refuse_not_finite(value, f"{where}.{name}" if where else str(name))


def plan_notes(network: Network, engine: Engine) -> list[str]:
    """What trains badly on the event engine, and what the exported file will not say."""
    if not isinstance(engine, Event):
        return []
    notes = []
    under_levels = leveled(network.wires) if engine.threshold == "level" else ()
    for name, population in network.populations.items():
        by_jumps = name not in under_levels and population.chain is None
        membrane_only = population.fires and population.kind in ("LIF", "IF") and by_jumps
        if membrane_only and population.spike_kernel == "delta" and engine.jump_width is None:
            notes.append(
                f"population '{name}' ({population.kind}) fires when an arriving spike moves V across the threshold, "
                "whatever the exact weights: their gradient is zero, take Event(jump_width=...) or CubaLIF neurons"
            )
        elif membrane_only:
            notes.append(
                f"population '{name}' ({population.kind}) mostly fires while an input spike lasts, so its spike times "
                "hardly depend on the weights, and exact gradients say little: CubaLIF neurons train better"
            )
        if population.fires and engine.stops(name) and _feeds_others(network, name):
            notes.append(
                f"LOST: population '{name}' stops after its first spike while it is trained; a NIR file cannot say "
                "that, so whoever plays the file will let it fire again"
            )
    return notes
