"""Random changes of the training inputs, sampled anew in each epoch: from the run's seed, the epoch,
the step and the sample. Images are events with one channel for each pixel, row by row.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp

from jaxsnn.errors import UsageError, suggestion
from jaxsnn.keywords import suggests_keywords, with_underscores
from jaxsnn.network.array_types import Array, Bool, Float, Int
from jaxsnn.network.valued_inputs import Currents
from jaxsnn.options import ENCODER
from jaxsnn.train.data.encoders import Delta, LevelCrossing, PopulationCode
from jaxsnn.train.option_values import accept_former_fields, current_names, duration, number
from jaxsnn.wording import Text

#: A function from a random key and a sample, Events (events,) or an array (time, *shape), to a
#: changed sample of the same shape; traced by JAX, and hashable.
Augment = Callable[[jax.Array, Any], Any]


@suggests_keywords
@dataclass(frozen=True, kw_only=True)
class Dropout:
    """Random removal of input spikes with a probability.

    Attributes:
        probability: at least 0 and below 1.

    Raises:
        UsageError: another probability.
    """

    probability: float

    def __post_init__(self) -> None:
        if not 0 <= self.probability < 1:
            raise UsageError(
                Text("the probability of dropout is {probability:g}", probability=self.probability),
                fix="pass a number of at least 0 and below 1",
            )

    def __call__(self, key: jax.Array, inputs: Any) -> Any:
        """Apply dropout to one sample: Events or GradedEvents (events,), an array (time, *shape),
        or Currents, which lose entire channels.
        """
        if isinstance(inputs, Currents):
            gone = jax.random.bernoulli(key, self.probability, inputs.value.shape[-1:])
            return replace(inputs, value=jnp.where(gone, 0.0, inputs.value))
        if hasattr(inputs, "time"):
            gone = jax.random.bernoulli(key, self.probability, inputs.time.shape)
            return replace(inputs, time=jnp.where(gone, jnp.inf, inputs.time))
        return jnp.where(jax.random.bernoulli(key, self.probability, inputs.shape), 0, inputs)


@suggests_keywords
@dataclass(frozen=True, kw_only=True)
class Jitter:
    """Random shift of each input spike by a normal deviate; none before time 0.

    Attributes:
        deviation: standard deviation in seconds.

    Raises:
        UsageError: a deviation that is negative or not finite.
    """

    deviation: float

    def __post_init__(self) -> None:
        if not 0 <= self.deviation < math.inf:
            raise UsageError(
                Text(
                    "the standard deviation of jitter is {deviation:g} s", deviation=self.deviation
                ),
                fix="pass a finite number of at least 0",
            )

    def __call__(self, key: jax.Array, inputs: Any) -> Any:
        """Shift each event of one sample in time, Events or GradedEvents (events,)."""
        refuse_values(inputs, "jitter")
        moved = inputs.time + self.deviation * jax.random.normal(
            key, inputs.time.shape, inputs.time.dtype
        )
        return replace(inputs, time=jnp.maximum(moved, 0.0))


@suggests_keywords
@dataclass(frozen=True, kw_only=True)
class Stretch:
    """Random stretching of each sample: all its times are multiplied by one factor between
    e^-extent and e^extent, whose logarithm is sampled uniformly.

    Attributes:
        extent: largest absolute logarithm of the factor; 0.2 means factors from 0.82 to 1.22.

    Raises:
        UsageError: an extent that is negative or not finite.
    """

    extent: float

    def __post_init__(self) -> None:
        if not 0 <= self.extent < math.inf:
            fix = "pass a finite number of at least 0"
            raise UsageError(Text("stretch is {extent:g}", extent=self.extent), fix=fix)

    def __call__(self, key: jax.Array, inputs: Any) -> Any:
        """Scale the event times of one sample, Events or GradedEvents (events,), by a random
        factor.
        """
        refuse_values(inputs, "stretch")
        drawn = jax.random.uniform(key, (), inputs.time.dtype, -1, 1)
        return replace(inputs, time=inputs.time * jnp.exp(self.extent * drawn))


@suggests_keywords
@dataclass(frozen=True, kw_only=True)
class ChannelShift:
    """Random shift of each sample by an integer number of groups of channels: by a band, where the
    channels of each band of a sound are adjacent. Events that leave the channels are lost; channels
    after them, such as a bias, do not change.

    Attributes:
        most: largest shift in groups, up or down; all shifts are equally likely.
        group: number of channels of a group.
        channels: number of channels that are shifted.

    Raises:
        UsageError: a negative number, or a number of channels that is not a multiple of `group`.
    """

    most: int
    group: int
    channels: int

    def __post_init__(self) -> None:
        if self.most < 0 or self.group < 1 or self.channels < 1 or self.channels % self.group:
            raise UsageError(
                Text(
                    "channel_shift shifts {channels} channels by up to {most} groups of {group} channels",
                    channels=self.channels,
                    most=self.most,
                    group=self.group,
                ),
                fix="pass integers, and a number of channels that is a multiple of the group size",
            )

    def __call__(self, key: jax.Array, inputs: Any) -> Any:
        """Shift the channels of one sample, Events or GradedEvents (events,)."""
        refuse_values(inputs, "channel_shift")
        groups = jax.random.randint(key, (), -self.most, self.most + 1)
        index = inputs.index + self.group * groups
        inside = (index >= 0) & (index < self.channels)
        moves = inputs.index < self.channels
        return replace(
            inputs,
            time=jnp.where(moves & ~inside, jnp.inf, inputs.time),
            index=jnp.where(moves & inside, index, inputs.index).astype(jnp.int32),
        )


def refuse_values(inputs: Any, change: str) -> None:
    """Refuse inputs that are not events, for an augmentation that requires these.

    Raises:
        UsageError: the inputs are arrays or currents.
    """
    if isinstance(inputs, Currents) or not hasattr(inputs, "time"):
        raise UsageError(
            Text("{change} requires events, and the inputs are arrays or currents", change=change),
            fix="leave it out",
        )


#: Changes of `Warp`.
_WARPS = ("shift", "rotation", "scale", "distortion", "mirror")
#: Current names of `_WARPS` by those of earlier versions.
_FORMER_WARPS = {"turn": "rotation", "bend": "distortion"}
#: Number of points along each axis at which displacements of `Warp` are sampled.
_POINTS = 4


@suggests_keywords
@accept_former_fields(**_FORMER_WARPS)
@dataclass(frozen=True, kw_only=True)
class Warp:
    """Random mirroring, shift, rotation, scaling and distortion of each image: its events move to the
    nearest pixels.

    Those that leave the image are lost. Of images as currents each pixel takes the value of the nearest
    pixel at its warped position, 0 outside of the image. Channels after those of the pixels, such as a
    bias, do not change.
    All changes except `distortion` and `mirror` are sampled uniformly between minus and plus the attribute.

    Attributes:
        shape: shape of the images, (rows, columns) or (planes, rows, columns).
        shift: largest shift along each axis, in pixels.
        rotation: largest angle of rotation in degrees.
        scale: largest change of size as a fraction, sampled for each axis.
        distortion: standard deviation, in pixels, of a smooth field of displacements: normal deviates
            at 4 x 4 points, interpolated linearly.
        mirror: probability from 0 to 1 that left and right are exchanged.

    Raises:
        UsageError: a shape that is not that of an image, a number that is negative or not finite, or a
            probability above 1.

    Source: the elastic distortions of Simard, Steinkraus and Platt, ICDAR 2003, are such a field.
    """

    shape: tuple[int, ...]
    shift: float = 0.0
    rotation: float = 0.0
    scale: float = 0.0
    distortion: float = 0.0
    mirror: float = 0.0

    def __post_init__(self) -> None:
        if len(self.shape) not in (2, 3) or min(self.shape, default=0) < 1:
            raise UsageError(
                Text("the shape of the images is {shape}", shape=self.shape),
                fix="pass (rows, columns) or (planes, rows, columns)",
            )
        for name in _WARPS:
            value = getattr(self, name)
            if not 0 <= value < math.inf:
                fix = "pass a finite number of at least 0"
                raise UsageError(
                    Text("{parameter} is {value:g}", parameter=name, value=value), fix=fix
                )
        if self.mirror > 1:
            fix = "pass a probability from 0 to 1"
            raise UsageError(Text("mirror is {mirror:g}", mirror=self.mirror), fix=fix)

    def __call__(self, key: jax.Array, inputs: Any) -> Any:
        """Warp the pixels of one sample, Events or GradedEvents (events,), or Currents (pieces,
        channels).
        """
        if isinstance(inputs, Currents):
            return replace(inputs, value=self._resampled(key, inputs.value))
        if not hasattr(inputs, "time"):
            message = "Warp requires events or currents, and the inputs are arrays"
            raise UsageError(message, fix="leave it out")
        rows, columns = self.shape[-2:]
        pixels = rows * columns
        plane, pixel = inputs.index // pixels, inputs.index % pixels
        place = jnp.stack([pixel // columns, pixel % columns], axis=-1)
        moved, inside = self._target(key, place.astype(inputs.time.dtype))
        is_pixel = inputs.index < math.prod(self.shape)
        index = plane * pixels + moved[..., 0] * columns + moved[..., 1]
        return replace(
            inputs,
            time=jnp.where(is_pixel & ~inside, jnp.inf, inputs.time),
            index=jnp.where(is_pixel & inside, index, inputs.index).astype(jnp.int32),
        )

    def _resampled(
        self, key: jax.Array, value: Float[Array, "pieces ..."]
    ) -> Float[Array, "pieces ..."]:
        """Return currents whose pixels have the values at the warped positions, 0 outside of the
        image. Every pixel is read rather than moved, since moved pixels would leave gaps.
        """
        rows, columns = self.shape[-2:]
        number_of_pixels = math.prod(self.shape)
        flat = value.reshape(len(value), -1)
        images = flat[:, :number_of_pixels].reshape(len(value), -1, rows, columns)
        place = jnp.stack(jnp.indices((rows, columns)), axis=-1).reshape(-1, 2)
        source, inside = self._target(key, place.astype(value.dtype))
        source = jnp.where(inside[:, None], source, 0)
        warped = jnp.where(inside, images[..., source[:, 0], source[:, 1]], 0.0)
        others = flat[:, number_of_pixels:]
        return jnp.concatenate([warped.reshape(len(value), -1), others], axis=1).reshape(
            value.shape
        )

    def _target(
        self, key: jax.Array, place: Float[Array, "places 2"]
    ) -> tuple[Int[Array, "places 2"], Bool[Array, "places"]]:
        """Return the nearest pixels of warped positions, and which of them are in the image."""
        moved = jnp.rint(self._moved(key, place)).astype(jnp.int32)
        inside = jnp.all((moved >= 0) & (moved < jnp.array(self.shape[-2:])), axis=-1)
        return moved, inside

    def _moved(self, key: jax.Array, place: Float[Array, "events 2"]) -> Float[Array, "events 2"]:
        """Return the new positions of pixels."""
        rotation_key, scale_key, shift_key, distortion_key = jax.random.split(key, 4)
        size = jnp.asarray(self.shape[-2:], place.dtype)
        middle = (size - 1) / 2

        def drawn(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
            return jax.random.uniform(key, shape, place.dtype, -1, 1)

        angle = jnp.deg2rad(self.rotation) * drawn(rotation_key, ())
        rotation_matrix = jnp.array(
            [[jnp.cos(angle), -jnp.sin(angle)], [jnp.sin(angle), jnp.cos(angle)]], place.dtype
        )
        larger = 1 + self.scale * drawn(scale_key, (2,))
        if self.mirror:
            swapped = jax.random.bernoulli(jax.random.fold_in(key, len(_WARPS)), self.mirror)
            place = jnp.where(swapped, place.at[:, 1].set(size[1] - 1 - place[:, 1]), place)
        moved = ((place - middle) @ rotation_matrix.T) * larger + middle
        moved += self.shift * drawn(shift_key, (2,))
        if self.distortion:
            shape = (_POINTS, _POINTS, 2)
            field = self.distortion * jax.random.normal(distortion_key, shape, place.dtype)
            moved += _between(field, place / jnp.maximum(size - 1, 1) * (_POINTS - 1))
        return moved


def _between(
    field: Float[Array, "rows columns 2"], place: Float[Array, "events 2"]
) -> Float[Array, "events 2"]:
    """Interpolate a field linearly in both directions between its grid points."""
    corner: Int[Array, "events 2"] = jnp.clip(jnp.floor(place), 0, _POINTS - 2).astype(jnp.int32)
    row, column = corner[:, 0], corner[:, 1]
    down, right = jnp.split(place - corner, 2, axis=1)
    upper = field[row, column] * (1 - right) + field[row, column + 1] * right
    lower = field[row + 1, column] * (1 - right) + field[row + 1, column + 1] * right
    return upper * (1 - down) + lower * down


@suggests_keywords
@dataclass(frozen=True, kw_only=True)
class Compose:
    """Sequence of augmentations, each with separate random numbers.

    Attributes:
        steps: functions of (key, sample), as `fit(..., augment=...)` takes them.
    """

    steps: tuple[Any, ...]

    def __call__(self, key: jax.Array, inputs: Any) -> Any:
        """Apply all augmentations to one sample."""
        for number_of_step, step in enumerate(self.steps):
            inputs = step(jax.random.fold_in(key, number_of_step), inputs)
        return inputs


def refuse_other_channels(augment: Any, encoder: Any, channels: int) -> None:
    """Refuse augmentations for other channels than the input has: they would move events to pixels
    and bands that do not exist.

    Args:
        augment: argument of `fit(..., augment=...)`; of a `Compose` each step is checked.
        encoder: encoder of the data; None: the data are events.
        channels: number of channels of the input.

    Raises:
        UsageError: images or bands with more channels than the input, or several channels for each
            pixel.
    """
    for step in augment.steps if isinstance(augment, Compose) else (augment,):
        if isinstance(step, Warp) and isinstance(encoder, Delta | LevelCrossing | PopulationCode):
            kind = type(encoder).__name__
            raise UsageError(
                Text(
                    "augment changes images with one channel per pixel, and the encoder {kind} has several "
                    "channels per value",
                    kind=kind,
                ),
                fix=Text(
                    "leave the changes of images out, or pass {encoder}",
                    encoder=ENCODER.set_to("latency"),
                ),
            )
        field = {Warp: "shape", ChannelShift: "channels"}.get(type(step))
        if field is None:
            continue
        value = getattr(step, field)
        if (size := math.prod(value) if field == "shape" else value) > channels:
            raise UsageError(
                Text(
                    "augment changes {expected} channels ({parameter} is {value}), and the input has "
                    "{actual}",
                    expected=size,
                    parameter=field,
                    value=value,
                    actual=channels,
                ),
                fix=f"pass the {field} of the samples",
            )


#: Parameters of a `ChannelShift` in the order of a table.
_MOVES = ("most", "group", "channels")
#: Keys of a table of changes.
CHANGES = (*_WARPS, "channel-shift", "stretch", "jitter", "dropout", "shape")


def augmentation_of(table: Mapping[str, Any], shape: tuple[int, ...]) -> Compose:
    """Return the augmentations of a table: `shift`, `rotation`, `scale`, `distortion` and `mirror`
    as in `Warp`, `channel-shift`, the three numbers of `ChannelShift`, `stretch`, then `jitter`, a
    time, and `dropout`, a probability. Former names are accepted with a warning.

    Args:
        shape: shape of a sample, (rows, columns) or (planes, rows, columns), unless the table has a
            shape.

    Raises:
        UsageError: a name that does not exist or occurs twice, or a value that is invalid.
    """
    table = {
        name.replace("_", "-"): value for name, value in with_underscores(table, "augment").items()
    }
    table = current_names(table, _FORMER_WARPS, "augment")
    for name in table:
        if name not in CHANGES:
            raise UsageError(
                Text("augment has no change '{name}'", name=name), fix=suggestion(name, CHANGES)
            )
    try:
        shape = tuple(int(size) for size in table.get("shape", shape))
        warps = {name: number(table[name]) for name in _WARPS if name in table}
        moves = table.get("channel-shift", [])
        if not isinstance(moves, list | tuple) or not all(type(move) is int for move in moves):
            raise ValueError("pass a list of integers")
        stretch = number(table.get("stretch", 0.0))
        jitter = duration(table["jitter"]) if "jitter" in table else 0.0
        dropout = number(table["dropout"]) if "dropout" in table else 0.0
    except (TypeError, ValueError) as error:
        raise UsageError(Text("augment is {table}", table=table), fix=str(error)) from error
    if len(moves) not in (0, 3):
        fix = "pass the largest shift in groups, the channels of a group, and all channels"
        raise UsageError(Text("channel_shift is {moves}", moves=list(moves)), fix=fix)
    steps = [
        *([Warp(shape=shape, **warps)] if warps else []),
        *([ChannelShift(**dict(zip(_MOVES, moves, strict=True)))] if moves else []),
        *([Stretch(extent=stretch)] if stretch else []),
        *([Jitter(deviation=jitter)] if jitter else []),
        *([Dropout(probability=dropout)] if dropout else []),
    ]
    return Compose(steps=tuple(steps))
