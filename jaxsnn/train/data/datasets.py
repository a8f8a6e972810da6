"""Labelled data in three parts: for training, for the choice of the epoch, for the test; and the
Yin-Yang task.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import jax
import numpy as np

from jaxsnn.errors import UsageError, as_number, shown
from jaxsnn.keywords import suggests_keywords
from jaxsnn.network.spikes import refuse_masked
from jaxsnn.nir.initializers import Seed, generator_of, seed_words
from jaxsnn.simulation.stored_events import StoredColumn, StoredEvents
from jaxsnn.summary import summarised
from jaxsnn.wording import Text

#: Maximum number of classes, if the number of outputs of the network is unknown.
MOST_CLASSES = 65536

#: Numbers of samples for training, validation and test.
YINYANG_SIZES = (5000, 1000, 1000)

_BIG, _SMALL = 0.5, 0.1  # radius of the disc, radius of a dot


@suggests_keywords
@summarised
@dataclass(frozen=True, kw_only=True)
class Data:
    """Labelled samples.

    Attributes:
        x: (samples, ...) values from 0 to 1 for an encoder; or `jaxsnn.Events` or `GradedEvents`
            with arrays (samples, events), times in seconds, or `jaxsnn.Currents`; or, for the
            time-stepped engine, signals (samples, time, ...).
        y: (samples,) int32, index of the class.
        classes: names of the classes; by default the numbers from 0 to the largest label.
        first: values that `Latency` encodes as the earliest spikes, if no encoder is specified.
        channels: number of channels of events; None: unknown.
        shape: axes of the channels of events, such as (p, y, x) of a camera; None: unknown.
    """

    x: Any
    y: np.ndarray
    classes: tuple[str, ...] = ()
    first: Literal["large", "small"] = "large"
    channels: int | None = None
    shape: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if not self.classes:
            labels = np.asarray(self.y)
            refuse_labels(labels, "Data")
            object.__setattr__(self, "classes", numbered_classes(labels, "Data"))

    def __len__(self) -> int:
        return len(self.y)


@suggests_keywords
@summarised
@dataclass(frozen=True, kw_only=True)
class Splits:
    """Data of a training run: `train` for learning, `validation` for the choice of the epoch,
    `test` for one final evaluation.

    Attributes:
        name: name in messages.
        bias: whether an encoder adds a last input channel that spikes at the start of every sample.
        encoder: function that returns the default encoder for a time constant in seconds.
        span: default length of a sample in units of that time constant.

    `jaxsnn.train.splits_of_arrays(x, y)` creates them from arrays.
    """

    name: str
    train: Data
    validation: Data
    test: Data
    bias: bool = False
    encoder: Callable[[float], Callable[[Any], Any]] | None = None
    span: float | None = None


@dataclass(frozen=True, eq=False)
class Rows:
    """Selected rows of an array that stays on the disk until they are read.

    Attributes:
        array: memory-mapped array, or a column of events in files.
        index: indices of the rows.
    """

    array: np.memmap | StoredColumn
    index: np.ndarray

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the selected rows, like that of an array."""
        return (len(self.index), *self.array.shape[1:])

    @property
    def ndim(self) -> int:
        """Number of axes, like that of an array."""
        return self.array.ndim

    @property
    def dtype(self) -> np.dtype:
        """Type of the entries, like that of an array."""
        return self.array.dtype

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, index: Any) -> np.ndarray:
        """Read rows into memory."""
        return np.asarray(self.array[self.index[index]])

    @property
    def stored(self) -> StoredEvents | None:
        """Events in files, of which this is a column; None for a memory-mapped array."""
        return self.array.events if isinstance(self.array, StoredColumn) else None

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self[:], dtype)


def select_samples(data: Data, index: np.ndarray) -> Data:
    """Return some of the samples. Arrays on disk become `Rows`, which are read when the samples are
    encoded.
    """

    def rows(array: Any) -> Any:
        if isinstance(array, np.memmap):
            return Rows(array, index)
        return Rows(array.array, array.index[index]) if isinstance(array, Rows) else array[index]

    # Events and currents are records of arrays with a leading sample axis.
    return replace(data, x=jax.tree.map(rows, data.x), y=data.y[index])


def stratified(labels: np.ndarray, fraction: float, seed: Seed) -> tuple[np.ndarray, np.ndarray]:
    """Return the numbers of samples in two parts: a fraction of each class, and the rest; each in
    rising order. The seed is an integer, several, or a `jax.random` key.

    Raises:
        UsageError: the fraction is not between 0 and 1.

    >>> part, rest = stratified(np.array([0, 0, 0, 0, 1, 1, 1, 1]), 0.25, seed=0)
    >>> len(part), len(rest)
    (2, 6)
    """
    if not 0 <= as_number(fraction) <= 1:
        raise UsageError(
            Text("the fraction of samples for a part is {fraction}", fraction=shown(fraction)),
            fix="pass a fraction from 0 to 1",
        )
    generator = generator_of(seed)
    chosen = [np.zeros(0, int)]
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        chosen.append(generator.permutation(members)[: round(fraction * len(members))])
    part = np.sort(np.concatenate(chosen))
    return part, np.setdiff1d(np.arange(len(labels)), part)


@suggests_keywords
def yinyang(n: int, seed: Seed) -> Data:
    """Sample points of the Yin-Yang figure: x, y, 1 - x, 1 - y as values from 0 to 1, and their
    region.

    The figure is a disc of radius 0.5 around (0.5, 0.5) with two dots of radius 0.1 on its
    horizontal axis; each region (yin, yang, dots) gets a third of the points, uniform within the
    region.

    Args:
        n: number of points.
        seed: random seed: an integer, several, or a `jax.random` key.

    Returns:
        `Data` with x of shape (n, 4).

    Source: Kriener, Göltz, Petrovici, "The Yin-Yang dataset", NICE 2022.

    >>> data = yinyang(6, seed=0)
    >>> data.x.shape, sorted(data.y.tolist())
    ((6, 4), [0, 0, 1, 1, 2, 2])
    """
    generator = generator_of(seed)
    y = generator.permutation(np.arange(n) % 3).astype(np.int32)
    points = np.empty((n, 2))
    open_places = [list(np.flatnonzero(y == label)) for label in range(3)]
    while any(open_places):
        candidates = generator.uniform(0.0, 2 * _BIG, (max(n, 64), 2))
        regions = yinyang_region(candidates)
        for label, places in enumerate(open_places):
            accepted = candidates[regions == label][: len(places)]
            points[places[: len(accepted)]] = accepted
            del places[: len(accepted)]
    x = np.concatenate([points, 1 - points], axis=1)
    return Data(x=x, y=y, classes=("yin", "yang", "dot"), first="small")


def yinyang_region(points: np.ndarray) -> np.ndarray:
    """Return the region of each point (..., 2): 0 yin, 1 yang, 2 a dot, -1 outside the disc.

    Yin is the upper half, less a half disc on the right, plus a half disc on the left; each dot
    lies in the middle of a half disc. Yang is the rest.
    """
    x, y = points[..., 0], points[..., 1]
    right_distance = np.hypot(x - 1.5 * _BIG, y - _BIG)
    left_distance = np.hypot(x - 0.5 * _BIG, y - _BIG)
    yin = (left_distance <= 0.5 * _BIG) | ((y > _BIG) & (right_distance > 0.5 * _BIG))
    region = np.where(
        (right_distance <= _SMALL) | (left_distance <= _SMALL), 2, np.where(yin, 0, 1)
    )
    return np.where(np.hypot(x - _BIG, y - _BIG) <= _BIG, region, -1)


@suggests_keywords
def yinyang_splits(seed: Seed = 0, sizes: Sequence[int] = YINYANG_SIZES) -> Splits:
    """Return the Yin-Yang task with the sizes of the paper; training, validation and test come from
    different seeds.
    """
    if len(sizes) != 3:
        raise UsageError(
            Text("sizes has {count} entries, and must have 3", count=len(sizes)),
            fix="pass the numbers of samples for training, validation and test",
        )
    train, validation, test = (
        yinyang(n, [*seed_words(seed), part]) for part, n in enumerate(sizes)
    )
    return Splits(name="yinyang", train=train, validation=validation, test=test, bias=True)


def refuse_labels(y: Any, name: str) -> None:
    """Refuse labels that are not integers (samples,); integers may be stored as floats or booleans.

    Raises:
        UsageError: labels of another type or shape.
    """
    labels = np.asarray(y)
    broken = labels.reshape(-1)[:0]  # also of a single number
    if labels.dtype.kind == "f":  # negated, so that NaN is invalid
        broken = labels[~(np.isfinite(labels) & (labels == np.rint(labels)))]
    if labels.ndim != 1 or labels.dtype.kind not in "iubf" or broken.size:
        such = Text(", such as {value:g}", value=broken[0]) if broken.size else Text("")
        raise UsageError(
            Text(
                "{data}: the labels are {dtype} of shape {shape}{such}",
                data=name,
                dtype=labels.dtype,
                shape=labels.shape,
                such=such,
            ),
            fix="pass integers from 0, (samples,); for one-hot rows y.argmax(axis=1)",
        )


def check_data(data: Data, name: str) -> None:
    """Refuse invalid data.

    Raises:
        UsageError: there are no samples, samples and labels have different lengths, events have no
            sample axis, or labels are not integers or out of range.
    """
    if hasattr(data.x, "time") and np.ndim(data.x.time) != 2:
        raise UsageError(
            Text(
                "{data}: the times of the events have shape {shape}",
                data=name,
                shape=np.shape(data.x.time),
            ),
            fix="pass times of shape (samples, events)",
        )
    refuse_labels(data.y, name)
    samples = len(data.x.time) if hasattr(data.x, "time") else len(data.x)
    if samples != len(data.y):
        raise UsageError(
            Text(
                "{data}: the number of samples is {samples}, that of labels {count}",
                data=name,
                samples=samples,
                count=len(data.y),
            ),
            fix="pass one label per sample",
        )
    if samples == 0:
        raise UsageError(Text("{data} has no samples", data=name), fix="pass at least one sample")
    labels = np.asarray(data.y)
    bad = (labels < 0) | (labels >= len(data.classes))
    if bad.any():
        n = int(bad.argmax())
        raise UsageError(
            Text(
                "{data}: the label of sample {sample} is {label}, and labels range from 0 to {maximum}",
                data=name,
                sample=n,
                label=labels[n],
                maximum=len(data.classes) - 1,
            ),
            fix="number the classes from 0, or pass the names of all classes",
        )


#: Default fraction of all samples for the test, and of the rest for validation.
TEST, VALIDATION = 0.2, 0.2


@suggests_keywords
def splits_of_arrays(
    x: Any,
    y: Any,
    *,
    test: float = TEST,
    validation: float = VALIDATION,
    seed: Seed = 0,
    classes: Sequence[str] | None = None,
    name: str = "data",
) -> Splits:
    """Split samples and labels at random into parts for training, validation and test.

    Each part has its fraction of each class. With the defaults it is 64 % of the samples for
    training, 16 % for validation and 20 % for the test.

    Args:
        x: (samples, ...) values from 0 to 1 for an encoder, on the time-stepped engine also
            (samples, time, ...) signals; or Events or GradedEvents (samples, events), times in
            seconds; or Currents (samples, pieces).
        y: (samples,) integers from 0, the classes.
        test: fraction of all samples.
        validation: fraction of the other samples.
        seed: random seed of the split: an integer or a `jax.random` key.
        classes: names of the classes; None: their indices.
        name: name of the data in messages.

    Raises:
        UsageError: labels that are not classes, arrays of different lengths, NaN, or too few
            samples.

    >>> splits = splits_of_arrays(np.zeros((100, 4)), np.arange(100) % 2)
    >>> len(splits.train), len(splits.validation), len(splits.test)
    (64, 16, 20)
    """
    data = labelled(x, y, classes=classes, name=name)
    words = seed_words(seed)
    for_test, rest = stratified(data.y, test, [*words, 0])
    for_validation, for_training = stratified(data.y[rest], validation, [*words, 1])
    parts = {"test": for_test, "validation": rest[for_validation], "train": rest[for_training]}
    for part, index in parts.items():
        if len(index) == 0:
            raise UsageError(
                Text(
                    "{data} has {samples} samples of {classes} classes, too few for the part '{part}'",
                    data=name,
                    samples=len(data),
                    classes=len(data.classes),
                    part=part,
                ),
                fix="pass more samples, or Splits with explicit parts",
            )
    train, held, tested = (
        select_samples(data, parts[part]) for part in ("train", "validation", "test")
    )
    return Splits(name=name, train=train, validation=held, test=tested)


def held_out(data: Data, name: str, seed: Seed) -> tuple[Data, Data, str]:
    """Return training samples and a fifth of the samples for validation, chosen at random, and a note.

    Args:
        name: name of the data in messages.
        seed: random seed: an integer or a `jax.random` key.

    Raises:
        UsageError: there are too few samples.
    """
    held = max(int(len(data) * VALIDATION), 1)
    if held >= len(data):
        raise UsageError(
            Text(
                "{data} has too few training samples to hold one out for validation: {count}",
                data=name,
                count=len(data),
            ),
            fix="add training samples, or validation samples",
        )
    order = generator_of([*seed_words(seed), len(data)]).permutation(len(data))
    validation, training = select_samples(data, order[:held]), select_samples(data, order[held:])
    note = Text(
        "training samples held out for validation: {count} of {samples}, chosen at random",
        count=held,
        samples=len(data),
    )
    return training, validation, note


def labelled(x: Any, y: Any, *, classes: Sequence[str] | None = None, name: str = "data") -> Data:
    """Return samples and labels as `Data`, checked; arguments as in `splits_of_arrays`."""
    for array in (x, y, *(getattr(x, key, None) for key in ("time", "index", "value"))):
        refuse_masked(array, name)
    labels = np.asarray(y)
    refuse_labels(labels, name)
    if not hasattr(x, "time"):
        x = np.asarray(x)
        if x.dtype.kind not in "biuf" or x.ndim < 2:
            raise UsageError(
                Text(
                    "{data}: the samples are {dtype} of shape {shape}",
                    data=name,
                    dtype=x.dtype,
                    shape=x.shape,
                ),
                fix="pass numbers (samples, ...), Events (samples, events), or Currents",
            )
        if missing := int(np.isnan(x).sum()):
            raise UsageError(
                Text(
                    "{data} contains {count} NaN among {size} values",
                    data=name,
                    count=missing,
                    size=x.size,
                ),
                fix="replace NaN by numbers; if NaN marks the end of a signal, pass Splits",
            )
    numbered = numbered_classes(labels, name)
    data = Data(
        x=x,
        y=labels.astype(np.int32),
        classes=numbered if classes is None else tuple(classes),
    )
    check_data(data, name)
    return data


def numbered_classes(labels: np.ndarray, name: str) -> tuple[str, ...]:
    """Return the numbers from 0 to the largest label, as names of the classes.

    Raises:
        UsageError: the largest label is too large.
    """
    highest = int(labels.max(initial=0))
    if highest >= MOST_CLASSES:
        raise UsageError(
            Text(
                "{data}: the largest label is {value}, and labels range from 0 to {maximum}",
                data=name,
                value=highest,
                maximum=MOST_CLASSES - 1,
            ),
            fix="number the classes from 0",
        )
    return tuple(map(str, range(highest + 1)))


def as_data(data: Any) -> Data:
    """Return the data argument of `evaluate` as `Data`: `Data` itself, or (x, y).

    Raises:
        UsageError: any other object.
    """
    if isinstance(data, Data):
        return data
    if isinstance(data, tuple | list) and len(data) == 2:
        return labelled(*data)
    raise UsageError(
        Text("data must be Data or (x, y), not {description}", description=_described(data)),
        fix=_advice(data),
    )


def as_splits(data: Any, seed: Seed = 0) -> tuple[Splits, tuple[str, ...]]:
    """Return the data argument of `fit` in three parts, and notes on default choices.

    Args:
        data: `Splits`; or `Data` or (x, y), which are split like the default of `splits_of_arrays`.
        seed: random seed of the split.

    Raises:
        UsageError: any other object.
    """
    if isinstance(data, Splits):
        return data, ()
    if isinstance(data, Data):
        splits = splits_of_arrays(data.x, data.y, seed=seed, classes=data.classes)
        parts = {name: getattr(splits, name) for name in ("train", "validation", "test")}
        metadata = {"channels": data.channels, "first": data.first, "shape": data.shape}
        splits = replace(
            splits, **{name: replace(part, **metadata) for name, part in parts.items()}
        )
    elif isinstance(data, tuple | list) and len(data) == 2:
        splits = splits_of_arrays(*data, seed=seed)
    else:
        raise UsageError(
            Text(
                "data must be Splits, Data or (x, y), not {description}",
                description=_described(data),
            ),
            fix=_advice(data),
        )
    counts = [len(part) for part in (splits.train, splits.validation, splits.test)]
    note = Text(
        "the {count} samples are split at random: {train} for training, {validation} for validation and "
        "{test} for the test",
        count=sum(counts),
        train=counts[0],
        validation=counts[1],
        test=counts[2],
    )
    return splits, (note,)


def _described(data: Any) -> str:
    kind = type(data).__name__
    if isinstance(data, tuple | list):
        return Text("a {kind} of {count} elements", kind=kind, count=len(data))
    shape = getattr(data, "shape", None)
    return (
        Text("{kind} of shape {shape}", kind=kind, shape=tuple(shape))
        if shape is not None
        else Text("an object of type {kind}", kind=kind)
    )


def _advice(data: Any) -> str:
    """Return advice on how to make data of another object."""
    if isinstance(data, str):
        return "pass Data, such as yinyang_splits().test; only fit and jaxsnn train take names and files"
    if isinstance(data, Splits):
        return "pass one of its parts, such as data.test"
    if hasattr(data, "time") or hasattr(data, "shape"):
        return "pass the labels, too: (x, y)"
    if isinstance(data, dict):
        return "pass a tuple, such as (data['x'], data['y'])"
    if isinstance(data, tuple | list) and len(data) in (4, 6):
        return (
            "pass Splits(name=..., train=Data(x=..., y=..., classes=...), validation=..., test=...)"
        )
    if hasattr(data, "__iter__") or hasattr(data, "__getitem__"):
        return "pass arrays (x, y), such as x = numpy.stack([x for x, y in data]), y = [y for x, y in data]"
    return "pass (x, y): arrays (samples, ...) or Events, and labels (samples,)"
