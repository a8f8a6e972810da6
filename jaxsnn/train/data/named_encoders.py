"""Encoders by name; their times are in units of the time constant of the output population."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from types import MappingProxyType
from typing import Any

from jaxsnn.keywords import with_underscores
from jaxsnn.train.data.datasets import Data, Splits
from jaxsnn.train.data.encoders import (
    Current,
    Delta,
    Encoder,
    Latency,
    LevelCrossing,
    PopulationCode,
    Rate,
)
from jaxsnn.train.option_values import duration, one_of, replace_fields
from jaxsnn.train.options import ENCODERS
from jaxsnn.units import format_time
from jaxsnn.wording import Text

#: Default time of the last input, in tau_syn.
INPUT_SPAN = 2.0
#: Spikes per tau_syn of the value 1, and the duration of a rate in tau_syn.
_HIGHEST, _RATE_SPAN = 1.0, 6.0
#: Length of a frame of a signal in tau_syn.
_FRAME = 0.25
#: Step of `Delta`, centres of `PopulationCode` and levels of `LevelCrossing`, for values of 0 to 1.
_STEP, _CENTRES, _LEVELS = 0.1, (0.0, 0.25, 0.5, 0.75, 1.0), (0.2, 0.4, 0.6, 0.8)
#: Fields that are times, and may be written with a unit.
_TIMES = ("t_min", "t_max", "duration", "frame", "clock")

#: Name -> function that makes the encoder from a time constant (seconds), whether a bias channel is
#: added, and the values that spike first.
MAKERS: Mapping[str, Callable[[float, bool, Any], Encoder]] = MappingProxyType(
    {
        "latency": lambda tau, bias, _: _latency(tau, bias, "large"),
        "latency-reversed": lambda tau, bias, _: _latency(tau, bias, "small"),
        "current": lambda tau, bias, _: Current(bias=bias),
        "rate": lambda tau, *_: Rate(highest=_HIGHEST / tau, duration=_RATE_SPAN * tau),
        "delta": lambda tau, *_: Delta(step=_STEP, frame=_FRAME * tau),
        "population": lambda tau, *_: PopulationCode(centres=_CENTRES, frame=INPUT_SPAN * tau),
        "levels": lambda tau, *_: LevelCrossing(levels=_LEVELS, frame=_FRAME * tau),
    }
)


def _latency(tau: float, bias: bool, first: Any) -> Latency:
    return Latency(t_min=0.0, t_max=INPUT_SPAN * tau, bias=bias, first=first)


def make_encoder(
    data: Splits,
    tau: float,
    name: str | None = None,
    options: Mapping[str, Any] | None = None,
) -> tuple[Encoder, str]:
    """Return the encoder of a name, or that of the task, and a note that describes it; arguments as
    in `named_encoder`.
    """
    if name is None and data.encoder is not None:
        encoder: Any = with_options(data.encoder(tau), options)
        return encoder, Text(
            "values are encoded by the encoder of the task, {encoder}", encoder=encoder
        )
    return named_encoder(data.train, tau, name, bias=data.bias, options=options)


def named_encoder(
    data: Data,
    tau: float,
    name: str | None = None,
    *,
    bias: bool = False,
    options: Mapping[str, Any] | None = None,
) -> tuple[Encoder, str]:
    """Return the encoder of a name, and a note that describes it.

    Args:
        tau: unit of the times of the encoder, in seconds.
        name: one of `ENCODERS`; None: `latency`, in the order of the data.
        bias: whether latency and current encoders add a bias channel.
        options: fields of the encoder to replace; times in seconds, or as text with a unit.

    Raises:
        UsageError: an unknown encoder, or an unknown field of it.
    """
    one_of(ENCODERS)("encoder", name)
    preset = (
        _latency(tau, bias, data.first) if name is None else MAKERS[name](tau, bias, data.first)
    )
    encoder: Any = with_options(preset, options)
    return encoder, _describe(encoder)


def with_options(encoder: Any, options: Mapping[str, Any] | None) -> Any:
    """Return an encoder with some of its fields replaced."""
    if not options:
        return encoder

    def moment(value: Any) -> float:  # which may be 0
        return 0.0 if value == 0 else duration(value)

    values = with_underscores(options, "encoder_options")
    for name, value in values.items():
        is_time = name in _TIMES
        if isinstance(value, list | tuple):
            values[name] = tuple(map(moment, value)) if is_time else tuple(value)
        elif is_time:
            values[name] = moment(value)
    return replace_fields(encoder, values, "encoder_options")


def _describe(encoder: Any) -> str:
    """Return a sentence that describes an encoder."""
    if isinstance(encoder, Current):
        last = Text(
            "; an additional last channel has the value 1, as a bias" if encoder.bias else ""
        )
        return Text("each value is encoded as a constant current{last}", last=last)
    if isinstance(encoder, Latency):
        last = (
            Text(
                "; an additional last channel spikes at {time}, as a bias",
                time=format_time(encoder.t_min),
            )
            if encoder.bias
            else Text("")
        )
        span = Text(
            "from {start} to {end}",
            start=format_time(encoder.t_min),
            end=format_time(encoder.t_max),
        )
        if encoder.clock:
            last += Text(
                "; further channels that spike at fixed times: {channels}",
                channels=len(encoder.clock),
            )
        dark = (
            Text("")
            if encoder.least is None
            else Text(", values up to {minimum:g} without a spike", minimum=encoder.least)
        )
        return Text(
            "values from 0 to 1 are encoded as one spike each, {span}, {first} values "
            "first{dark}{last}",
            span=span,
            first=encoder.first,
            dark=dark,
            last=last,
        )
    shown = ", ".join(f"{field.name} {getattr(encoder, field.name)}" for field in fields(encoder))
    return Text(
        "values are encoded by {encoder} ({settings}), times in seconds",
        encoder=type(encoder).__name__,
        settings=shown,
    )
