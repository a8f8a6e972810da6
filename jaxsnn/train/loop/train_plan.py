"""Plan of a training run, decided and checked before anything is computed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np

from jaxsnn.errors import Note, UsageError, listing
from jaxsnn.event.event_options import EventOptions
from jaxsnn.grid.surrogate import as_surrogate, surrogate_of
from jaxsnn.grid.timing import step_length
from jaxsnn.network.inputs import other_step_notes
from jaxsnn.network.network import Network
from jaxsnn.options import ENGINE, SURROGATE, T_END, TRAINABLE
from jaxsnn.simulation.solution import Engine
from jaxsnn.train.data.augment import Dropout, augmentation_of, refuse_other_channels
from jaxsnn.train.data.datasets import Splits
from jaxsnn.train.data.encoders import Encoder
from jaxsnn.train.data.named_encoders import make_encoder
from jaxsnn.train.loop.constraints import as_constraints
from jaxsnn.train.loop.defaults import (
    are_signals,
    default_end,
    default_loss,
    feeds_others,
    make_engine,
    make_loss,
    output_node,
    output_note,
    reference_tau,
    refuse_second_encoder,
    refuse_unfit,
    sends_spikes,
    time_constant,
)
from jaxsnn.train.loop.history import for_json, of_record, of_seed, type_name
from jaxsnn.train.loop.in_the_loop import InTheLoop, TracedDevice
from jaxsnn.train.losses.losses import Loss, name_of
from jaxsnn.train.losses.regularizers import SpikeBudget, WeightBumping, noise_of, weight_bumping_of
from jaxsnn.train.option_values import replace_fields
from jaxsnn.train.options import OPTIONS, TrainOptions, engine_kind
from jaxsnn.units import format_time
from jaxsnn.wording import Text


@dataclass(frozen=True, kw_only=True)
class TrainPlan:
    """Resolved options of a training run.

    Attributes:
        options: options with defaults resolved: loss, encoder if needed, engine, whose budget may grow
            during training, `t_end`, `weight_bumping`, `augment`, and constraints.
        notes: notes on these choices for the user.
    """

    options: TrainOptions
    notes: tuple[str, ...] = ()

    @property
    def loss(self) -> Loss:
        """Loss that training minimises."""
        return cast(Loss, self.options.loss)

    @property
    def encoder(self) -> Encoder | None:
        """Encoder of values as events; None where the data need none."""
        return cast("Encoder | None", self.options.encoder)

    @property
    def engine(self) -> Engine:
        """Engine that runs a batch."""
        return cast(Engine, self.options.engine)

    @property
    def t_end(self) -> float:
        """End of each sample in seconds."""
        return cast(float, self.options.t_end)

    @property
    def weight_bumping(self) -> WeightBumping:
        """Weight bumping, the remedy for silent neurons."""
        return cast(WeightBumping, self.options.weight_bumping)

    def as_dict(self) -> dict[str, Any]:
        """Return the settings that a run depends on, for JSON; times in seconds.

        The keys are the options that are recorded.
        """
        shown = {
            "loss": {"name": name_of(self.loss), **of_record(self.loss)},
            "engine": {"name": type(self.engine).__name__, **self.engine.as_dict()},
            "weight_bumping": of_record(self.weight_bumping),
            "seed": of_seed(self.options.seed),
            "schedule": _in_brackets(self.options.schedule),
            "optimiser": _in_brackets(self.options.optimiser),
        }
        return {
            name: shown[name] if name in shown else for_json(getattr(self.options, name))
            for name, option in OPTIONS.items()
            if option.recorded
        }


def _in_brackets(choice: Any) -> str:
    """Return a name, or the name of an object in angle brackets."""
    return choice if isinstance(choice, str) else f"<{type_name(choice)}>"


def make_plan(network: Network, options: TrainOptions) -> TrainPlan:
    """Resolve default options, and check those that depend on the network.

    Args:
        network: network to train.
        options: options checked by `jaxsnn.train.options.check_options`, with `Splits` as data.

    Raises:
        UsageError: options that do not match the network.
    """
    data = cast(Splits, options.data)
    loss = loss_of(network, options)
    in_steps = _in_steps(options)
    refuse_unfit(network, loss.population, loss.reads, name_of(loss), in_steps=in_steps)
    fires, declared = sends_spikes(network, loss.population), getattr(loss, "fires", None)
    if loss.reads == "either" and declared is not None and declared != fires:
        raise UsageError(
            Text(
                "loss {loss} has fires={declared}, and '{population}' {behaviour}",
                loss=name_of(loss),
                declared=declared,
                population=loss.population,
                behaviour="is spiking" if fires else "is not spiking",
            ),
            fix=f"pass fires={fires}",
            node=loss.population,
        )
    engine = make_engine(options.engine, network, loss)
    if options.surrogate is not None:
        engine = replace(cast(Any, engine), surrogate=as_surrogate(options.surrogate))
    engine = with_fields(engine, options.engine_options)
    engine.check(network)
    trainable = as_constraints(options.trainable)
    _refuse_untaken(engine, network, trainable)
    only = getattr(engine, "first_spike_only", False)
    stops = only if isinstance(only, bool) else loss.population in only
    if stops and loss.reads != "first spikes" and fires:
        raise UsageError(
            Text(
                "loss {loss} reads all spikes of '{population}', and first_spike_only stops "
                "its neurons after their first spike",
                loss=name_of(loss),
                population=loss.population,
            ),
            fix=f"remove '{loss.population}' from first_spike_only (with on_chip, also pass the loss)",
            node=loss.population,
        )
    notes = [
        *loss_notes(network, options),
        *_time_constant_notes(network, options),
        *_engine_notes(engine, loss, network),
    ]
    if len(network.inputs) == 1:
        notes += other_step_notes(network, data.train.x)
    encoder, is_encoded = options.encoder, hasattr(data.train.x, "time")
    refuse_second_encoder(encoder, data.train)
    has_steps = are_signals(network, data.train.x)
    signals = engine.takes_rasters and data.encoder is None and has_steps
    if isinstance(encoder, str) or (encoder is None and not is_encoded and not signals):
        name = cast("str | None", encoder)
        encoder, note = make_encoder(data, loss.tau, name, options.encoder_options)
        notes.append(note)
    regularisers = tuple(options.regularisers)
    notes += _count_notes(regularisers, engine, network)
    augment = _augment(options)
    refuse_other_channels(augment, encoder, sum(network.inputs.values()))
    nothing = WeightBumping(label=0.0, hidden=0.0)
    usual = WeightBumping() if engine.exact else nothing
    complete = replace(
        options,
        loss=loss,
        encoder=encoder,
        engine=engine,
        t_end=_end(options, loss, engine, network, rasters=encoder is None),
        trainable=trainable,
        weight_bumping=weight_bumping_of(options.weight_bumping, usual),
        regularisers=regularisers,
        augment=augment,
        noise=noise_of(options.noise) or None,
    )
    plan = TrainPlan(options=complete, notes=(*notes, *plan_notes(network, engine)))
    _refuse_not_finite(plan.as_dict())
    return plan


def _end(
    options: TrainOptions, loss: Loss, engine: Engine, network: Network, *, rasters: bool
) -> float:
    """Return the end of a sample; for time-stepped signals, the end of their last step.

    Args:
        rasters: whether the data are time-stepped signals, which no encoder converts to events.

    Raises:
        UsageError: the option specifies another end, or the loss counts silent neurons as firing
            before the end.
    """
    x: Any = cast(Splits, options.data).train.x
    end = loss.t_max if options.t_end is None else options.t_end
    if rasters and not hasattr(x, "time"):
        step = step_length(network, getattr(engine, "dt", None))
        last = end if step is None else np.shape(x)[1] * step
        if options.t_end is not None and not np.isclose(last, end, rtol=2.0**-20, atol=0):
            raise UsageError(
                Text(
                    "{t_end} is {end:g} s, and the {x} time steps of the signals end at {last:g} s",
                    t_end=T_END,
                    end=end,
                    x=np.shape(x)[1],
                    last=last,
                ),
                fix="leave it out, or use signals of that length",
            )
        return float(last)
    if loss.reads == "first spikes" and loss.t_max < end * (1 - 2.0**-20):
        raise UsageError(
            Text(
                "loss {loss} counts a silent neuron as firing at t_max = {t_max:g} s, and samples end at "
                "{t_end:g} s, so that a spike after t_max would be worse than no spike",
                loss=name_of(loss),
                t_max=loss.t_max,
                t_end=end,
            ),
            fix=Text("use the same value for t_max and {t_end}", t_end=T_END),
        )
    return end


def loss_of(network: Network, options: TrainOptions) -> Loss:
    """Return the loss of a name, or the specified loss, with the fields of `loss_options`."""
    loss, loss_options = options.loss, options.loss_options
    if loss is not None and not isinstance(loss, str):
        return replace_fields(loss, loss_options, "loss_options") if loss_options else loss
    population, in_steps = node_of_loss(network, options), _in_steps(options)
    named_loss = make_loss(
        loss or default_loss(network, population, in_steps=in_steps),
        network,
        options.t_end,
        population=population,
        options=loss_options,
        in_steps=in_steps,
        rasters=are_rasters(network, options),
    )
    if options.t_end is not None or {"t_max", "t-max"} & set(loss_options or {}):
        return named_loss
    return replace(cast(Any, named_loss), t_max=_default_end(network, population, options))


def loss_notes(network: Network, options: TrainOptions) -> list[str]:
    """Return notes on a default output and a default loss that follow from the network."""
    notes: list[str] = []
    by_name = options.loss is None or isinstance(options.loss, str)
    if by_name and "population" not in (options.loss_options or {}):
        note = output_note(network, len(cast(Splits, options.data).train.classes))
        notes += [] if note is None else [note]
    if options.loss is not None:
        return notes
    loss_node = node_of_loss(network, options)
    name = default_loss(network, loss_node, in_steps=_in_steps(options))
    if name == "ttfs":
        return notes
    if name == "max":
        why = "is a readout"
    elif name == "mean":
        why = "outputs values, not spikes"
    elif loss_node in network.populations and network.populations[loss_node].steps_through_time:
        why = "is spiking, and its framework counts spikes in time steps"
    else:
        why = "is spiking, and spike times have no gradient in time steps"
    text = Text(
        "the loss is {name}, because '{population}' {why} (pass {loss} for another loss)",
        name=name,
        population=loss_node,
        why=why,
        loss=OPTIONS["loss"].keyword,
    )
    return [*notes, Note(text, code="default-loss")]


def _time_constant_notes(network: Network, options: TrainOptions) -> list[str]:
    """Report that time steps replace the time constant of the output population as a unit."""
    if options.loss is not None and not isinstance(options.loss, str):
        return []
    population = node_of_loss(network, options)
    if time_constant(network, population) is not None:
        return []
    tau = reference_tau(network, population, in_steps=are_rasters(network, options))
    text = Text(
        "population '{population}' has no time constant: the loss, a default encoder and a default "
        "end of the samples use {tau} instead (pass a loss object with a tau, and {t_end})",
        population=population,
        tau=format_time(tau),
        t_end=OPTIONS["t_end"].keyword,
    )
    return [Note(text, code="replaced-time-constant")]


def node_of_loss(network: Network, options: TrainOptions) -> str:
    """Return the node that the loss reads."""
    if options.loss is not None and not isinstance(options.loss, str):
        return options.loss.population
    population = (options.loss_options or {}).get("population")
    if population is not None:
        return str(population)
    return output_node(network, len(cast(Splits, options.data).train.classes))


def _in_steps(options: TrainOptions) -> bool:
    return engine_kind(options.engine) == "grid"


def are_rasters(network: Network, options: TrainOptions) -> bool:
    """Return whether the data are arrays in time steps that are simulated without an encoder."""
    data = cast(Splits, options.data)
    is_encoded = options.encoder is not None or data.encoder is not None
    return _in_steps(options) and not is_encoded and are_signals(network, data.train.x)


def _default_end(network: Network, population: str, options: TrainOptions) -> float:
    """Return the default end of a sample, which leaves out no event of the data."""
    rasters, encoder = are_rasters(network, options), options.encoder
    data = cast(Splits, options.data)
    tau = reference_tau(network, population, in_steps=rasters)
    events = hasattr(data.train.x, "time")
    if not events and not rasters and not callable(encoder):
        encoder = make_encoder(data, tau, encoder, options.encoder_options)[0]
    parts = (data.train, data.validation, data.test)
    return default_end(
        parts, tau, None if events or isinstance(encoder, str) else encoder, data.span
    )


def with_fields(engine: Engine, engine_options: Mapping[str, Any] | None) -> Engine:
    """Return an engine with some of its fields replaced, hashable."""
    return replace_fields(engine, engine_options or {}, "engine_options").hashable()


def _augment(options: TrainOptions) -> Any:
    """Return the augmentation of the training samples; `dropout` is short for `Dropout`."""
    if isinstance(options.augment, Mapping):
        shape = np.shape(cast(Any, options.data).train.x)[1:]
        if options.dropout and "dropout" in options.augment:
            raise UsageError(
                Text(
                    "{option} is {dropout:g}, and that of augment is {in_augment!r}",
                    option=OPTIONS["dropout"],
                    dropout=options.dropout,
                    in_augment=options.augment["dropout"],
                ),
                fix="specify dropout once",
            )
        return augmentation_of({"dropout": options.dropout} | dict(options.augment), shape)
    if not options.dropout:
        return options.augment
    if options.augment is not None:
        raise UsageError(
            Text(
                "{option} is {dropout:g}, and augment is also specified",
                option=OPTIONS["dropout"],
                dropout=options.dropout,
            ),
            fix="include Dropout in augment, or leave one of them out",
        )
    return Dropout(probability=options.dropout)


def _surrogate_note(engine: Engine, network: Network) -> str:
    """Return a note on the surrogate of the gradients, and on where that choice comes from."""
    chosen = as_surrogate(getattr(engine, "surrogate", None))
    if chosen is not None:
        return Text("surrogate gradients: {surrogate}", surrogate=chosen)
    default_calls = {
        surrogate_of(population): population.surrogate
        for population in network.populations.values()
        if population.fires
    }
    surrogate_names = listing(default_calls)
    if all(
        str(surrogate).partition("(")[0] == call.partition("(")[0]
        for surrogate, call in default_calls.items()
    ):
        return Text(
            "surrogate gradients: {surrogates}, the default of the source framework (pass {surrogate} for "
            "another surrogate)",
            surrogates=surrogate_names,
            surrogate=SURROGATE.keyword,
        )
    call = next(iter(default_calls.values()))
    if not call:
        return Text(
            "surrogate gradients: {surrogates} (pass {surrogate} for another surrogate)",
            surrogates=surrogate_names,
            surrogate=SURROGATE.keyword,
        )
    return Text(
        "surrogate gradients: {surrogate}, because the default of the source framework "
        "({default}) is not available",
        surrogate=surrogate_names,
        default=call,
    )


def _engine_notes(engine: Engine, loss: Loss, network: Network) -> list[str]:
    """Return notes on an engine's gradients where they are not exact; refuse losses without a
    gradient on it.
    """
    if not engine.exact:
        if loss.reads == "first spikes":
            raise UsageError(
                Text(
                    "loss {loss} reads spike times, which have no gradient on the time-stepped engine",
                    loss=name_of(loss),
                ),
                fix=Text(
                    "pass {loss}, or {engine}",
                    loss=OPTIONS["loss"].set_to("count", "max", "mean", "integral", "exp-sum"),
                    engine=ENGINE.set_to("event"),
                ),
            )
        return [_surrogate_note(engine, network)]
    if loss.reads == "spikes":
        return [
            "spike counts have no exact gradient: it is approximated by that of a small jump of the"
            " membrane potential at each spike"
        ]
    return []


def _count_notes(regularisers: Iterable[Any], engine: Engine, network: Network) -> list[str]:
    """Return a note on the populations that stop before a spike budget could count all their
    spikes.
    """
    if not isinstance(engine, EventOptions):
        return []
    populations = network.populations.items()
    stops = [
        f"'{name}'" for name, population in populations if population.fires and engine.stops(name)
    ]
    if not stops or not any(isinstance(term, SpikeBudget) for term in regularisers):
        return []
    return [
        Text(
            "SpikeBudget counts at most one spike of each neuron of {populations}, because these neurons "
            "stop after their first spike during training (pass EventDriven(first_spike_only=()) to "
            "let them continue)",
            populations=listing(stops),
        )
    ]


def _refuse_untaken(engine: Engine, network: Network, trainable: Iterable[str]) -> None:
    """Refuse to train parameters that a device in the loop does not support."""
    if not isinstance(engine, InTheLoop):
        return
    if not isinstance(engine.device, TracedDevice):
        return
    takes = engine.device.trainable
    there = {name for parameters in network.parameters.values() for name in parameters}
    for name in trainable:
        kind = name.rpartition(".")[2]
        if kind not in takes and kind in there:
            raise UsageError(
                Text(
                    "'{parameter}' cannot be trained, because the device in the loop supports only "
                    "{supported}",
                    parameter=name,
                    supported=", ".join(takes),
                ),
                fix=Text("pass {trainable}", trainable=TRAINABLE.set_to(",".join(takes))),
            )


def _refuse_not_finite(settings: Any, location: str = "") -> None:
    """Refuse settings, of any option, that are NaN or infinite: a run cannot use them, nor can JSON
    record them.
    """
    if isinstance(settings, float) and not np.isfinite(settings):
        raise UsageError(
            Text("{option} is {value:g}", option=location, value=settings),
            fix="pass a finite number",
        )
    if isinstance(settings, Mapping):
        for name, value in settings.items():
            _refuse_not_finite(value, f"{location}.{name}" if location else str(name))


def plan_notes(network: Network, engine: Engine) -> list[str]:
    """Return notes on networks that train badly on the event engine, and on settings that the
    exported file does not contain.
    """
    if not isinstance(engine, EventOptions):
        return []
    notes = []
    for name, population in network.populations.items():
        membrane_only = population.fires and population.kind in ("LIF", "IF")
        if membrane_only and population.spike_kernel == "delta" and engine.jump_width is None:
            notes.append(
                Text(
                    "population '{population}' ({kind}) fires at the arrival of a spike, whatever the exact "
                    "weights, so that their gradient is zero: use EventDriven(jump_width=...) or "
                    "CubaLIF neurons",
                    population=name,
                    kind=population.kind,
                )
            )
        elif membrane_only:
            notes.append(
                Text(
                    "population '{population}' ({kind}) mostly fires during the pulse of an input spike, so "
                    "that its spike times hardly depend on the weights, and exact gradients contain "
                    "little information: CubaLIF neurons train better",
                    population=name,
                    kind=population.kind,
                )
            )
        if population.fires and engine.stops(name) and feeds_others(network, name):
            notes.append(
                Text(
                    "population '{population}' stops after its first spike during training. A NIR "
                    "file cannot express that, so that it fires again in other simulators",
                    population=name,
                )
            )
    return notes
