"""What a training run will do, decided and checked before anything is computed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, is_dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxsnn.errors import UsageError, listing, suggestion
from jaxsnn.event.engine import Event
from jaxsnn.event.events import Events
from jaxsnn.network import Network
from jaxsnn.simulate import checked_inputs
from jaxsnn.train.datasets import Data, Splits, check_data
from jaxsnn.train.encoding import Latency
from jaxsnn.train.epoch import Batch
from jaxsnn.train.losses import LOSSES, FirstSpike
from jaxsnn.units import format_time

#: Without other instructions inputs arrive within 2 tau_syn of the start, and a sample lasts 6.5 tau_syn.
INPUT_SPAN, SAMPLE_SPAN = 2.0, 6.5
#: Smallest slope dV/dt that a gradient is divided by, in (v_threshold - v_reset) / tau_mem.
MIN_SLOPE = 0.04

Encoder = Callable[[Any], Events]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The choices of a training run.

    Attributes:
        loss, encoder, engine: what was given, or the defaults. The engine's budget may grow while training.
        t_end: seconds, end of each sample.
        epochs, batch_size, learning_rate, seed, trainable: as given.
        notes: what a user should know about these choices.
    """

    loss: FirstSpike
    encoder: Encoder | None
    engine: Event
    t_end: float
    epochs: int
    batch_size: int
    learning_rate: float
    seed: int
    trainable: tuple[str, ...]
    notes: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """For JSON; times in seconds."""
        engine = asdict(self.engine)
        only = engine["first_spike_only"]
        return {
            "loss": {"name": _name_of(self.loss), **asdict(self.loss)},
            "encoder": _as_dict(self.encoder),
            "engine": {**engine, "first_spike_only": only if isinstance(only, bool) else list(only)},
            "t_end": self.t_end,
            "epochs": self.epochs,
            "batch_size": self.batch_size,
            "learning_rate": self.learning_rate,
            "seed": self.seed,
            "trainable": list(self.trainable),
        }


def _name_of(loss: FirstSpike) -> str:
    return next((name for name, kind in LOSSES.items() if type(loss) is kind), type(loss).__name__)


def _as_dict(encoder: Encoder | None) -> dict[str, Any] | None:
    if encoder is None:
        return None
    name = getattr(encoder, "__name__", type(encoder).__name__)
    values = asdict(encoder) if is_dataclass(encoder) and not isinstance(encoder, type) else {}
    return {"name": name, **values}


def read_population(network: Network) -> str:
    """The population whose spikes are the network's answer: the only one that feeds the only Output.

    Raises:
        UsageError: there are several, or it does not fire.
    """
    sources = [source for feeding in network.outputs.values() for source in feeding]
    if len(sources) != 1:
        raise UsageError(
            f"{len(sources)} nodes ({listing(sources)}) feed the outputs of the network: training reads one, name its "
            "population in the loss"
        )
    return sources[0]


def make_loss(name: str, network: Network, t_end: float | None = None) -> FirstSpike:
    """A loss of `LOSSES` for a network: times in units of tau_syn of the population that is read.

    Args:
        t_end: seconds, end of a sample, when silent neurons count as firing; default 6.5 tau_syn.

    Raises:
        UsageError: there is no such loss.
    """
    if name not in LOSSES:
        raise UsageError(f"there is no loss '{name}' so far: {suggestion(name, LOSSES)}")
    population = read_population(network)
    tau = reference_tau(network, population)
    return LOSSES[name](population=population, tau=tau, t_max=SAMPLE_SPAN * tau if t_end is None else t_end)


def reference_tau(network: Network, population: str) -> float:
    """Median tau_syn of a population, of LIF neurons its median tau, seconds.

    Raises:
        UsageError: there is no such population, it does not fire, or has no time constant.
    """
    if population not in network.populations or not network.populations[population].fires:
        firing = [name for name, own in network.populations.items() if own.fires]
        raise UsageError(f"'{population}' is no population that fires: {suggestion(population, firing)}")
    parameters = network.parameters[population]
    name = next((name for name in ("tau_syn", "tau") if name in parameters), None)
    if name is None:
        raise UsageError(f"population '{population}' has no time constant: give a loss with its tau, and t_end")
    # through text, so that float32 does not leave 6.399999838322401 ms of 6.4 ms
    return float(f"{np.median(np.asarray(parameters[name])):.6g}")


def make_plan(
    network: Network,
    data: Splits,
    *,
    loss: FirstSpike | str,
    encoder: Encoder | None,
    t_end: float | None,
    engine: Event | None,
    **settings: Any,
) -> Plan:
    """Fill in what was not given, and check it; see `jaxsnn.train.fit` for the arguments."""
    if isinstance(loss, str):
        loss = make_loss(loss, network, t_end)
    t_end = loss.t_max if t_end is None else t_end
    notes = []
    values = not hasattr(data.train.x, "time")
    if encoder is None and values:
        encoder = Latency(t_min=0.0, t_max=INPUT_SPAN * loss.tau, bias=data.bias)
        notes.append(
            f"values from 0 to 1 are encoded as one spike each, from 0 s to {format_time(encoder.t_max)}"
            + (", and a last channel spikes at 0 s" if data.bias else "")
        )
    if engine is None:
        stops = (loss.population,) if loss.reads_first_spike and not _feeds_others(network, loss.population) else ()
        engine = Event(max_spikes=4, first_spike_only=stops, min_slope=MIN_SLOPE)
    plan = Plan(loss=loss, encoder=encoder, engine=engine, t_end=t_end, notes=tuple(notes), **settings)
    _check_numbers(plan)
    return _with_notes(plan, network)


def _feeds_others(network: Network, population: str) -> bool:
    return any(population in wire.sources and wire.kind != "output" for wire in network.wires)


def _check_numbers(plan: Plan) -> None:
    for name, least in (("epochs", 1), ("batch_size", 1), ("seed", 0)):
        if getattr(plan, name) < least:
            raise UsageError(f"{name} is {getattr(plan, name)}: it must be at least {least}")
    for name in ("learning_rate", "t_end"):
        value = getattr(plan, name)
        if not (np.isfinite(value) and value > 0):
            raise UsageError(f"{name} is {value:g}: it must be positive and finite")


def _with_notes(plan: Plan, network: Network) -> Plan:
    """The plan, with notes on what trains badly, and on what the exported file will not say."""
    notes = list(plan.notes)
    for name, population in network.populations.items():
        if population.fires and population.kind in ("LIF", "IF"):
            notes.append(
                f"population '{name}' ({population.kind}) mostly fires while an input spike lasts, so its spike times "
                "hardly depend on the weights, and exact gradients say little: CubaLIF neurons train better"
            )
        if population.fires and plan.engine.stops(name) and _feeds_others(network, name):
            notes.append(
                f"LOST: population '{name}' stops after its first spike while it is trained; a NIR file cannot say "
                "that, so whoever plays the file will let it fire again"
            )
    return Plan(**{**vars(plan), "notes": tuple(notes)})


def encoded(plan: Plan, data: Data, network: Network, what: str) -> Batch:
    """A split as arrays for the network, checked.

    Raises:
        UsageError: labels, channels or times that do not fit the network; the message begins with `what`.
    """
    check_data(data, what)
    if len(network.inputs) != 1:
        raise UsageError(
            f"the network has {len(network.inputs)} inputs ({listing(network.inputs)}): training takes one"
        )
    (name, channels), events = next(iter(network.inputs.items())), data.x
    neurons = network.populations[plan.loss.population].size
    if len(data.classes) > neurons:
        raise UsageError(
            f"{what} has {len(data.classes)} classes, population '{plan.loss.population}' has {neurons} neurons: "
            "the loss needs one for each class"
        )
    if not hasattr(events, "time"):
        if plan.encoder is None:
            raise UsageError(f"{what} holds values, not events: give an encoder")
        events = plan.encoder(events)
        if isinstance(plan.encoder, Latency) and events.time.shape[1] != channels:
            bias = " (the bias channel included)" if plan.encoder.bias else ""
            raise UsageError(
                f"{what} gives {events.time.shape[1]} channels{bias}, input '{name}' has {channels}: "
                "they must be the same"
            )
    train = checked_inputs(network, events)[name]
    return Batch(events=jax.tree.map(jnp.asarray, train), labels=jnp.asarray(data.y, jnp.int32))
