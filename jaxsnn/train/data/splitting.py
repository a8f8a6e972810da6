"""Samples and labels in three parts: for training, for the choice of the epoch, for the test."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from jaxsnn.errors import UsageError
from jaxsnn.network.spikes import refuse_masked
from jaxsnn.nir.initializers import Seed, seed_words
from jaxsnn.train.data.datasets import (
    MOST_CLASSES,
    Data,
    Splits,
    check_data,
    refuse_labels,
    stratified,
    taken,
)

#: Fraction of all samples for the test, and of the rest for validation, where nobody says another.
TEST, VALIDATION = 0.2, 0.2


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
    """Samples and labels, split at random into parts for training, validation and test.

    Each part has its fraction of each class. With the defaults it is 64 % of the samples for
    training, 16 % for validation and 20 % for the test.

    Args:
        x: (samples, ...) values from 0 to 1 for an encoder, on the time-stepped engine also
            (samples, time, ...) signals; or Events or GradedEvents (samples, events), times in
            seconds; or Currents (samples, pieces).
        y: (samples,) whole numbers from 0, the classes.
        test: fraction of all samples.
        validation: fraction of the samples that are left.
        seed: chooses the samples of each part: a whole number or a `jax.random` key.
        classes: their names; None: the numbers.
        name: what messages call the data.

    Raises:
        UsageError: labels that are no classes, arrays of different lengths, NaN, or too few
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
                f"{name} has {len(data)} samples of {len(data.classes)} classes, which leaves none"
                f" for the part '{part}'",
                fix="give more samples, or Splits with parts of your own",
            )
    train, held, tested = (taken(data, parts[part]) for part in ("train", "validation", "test"))
    return Splits(name=name, train=train, validation=held, test=tested)


def labelled(x: Any, y: Any, *, classes: Sequence[str] | None = None, name: str = "data") -> Data:
    """Samples and labels as `Data`, checked; arguments as in `splits_of_arrays`."""
    for array in (x, y, *(getattr(x, key, None) for key in ("time", "index", "value"))):
        refuse_masked(array, name)
    labels = np.asarray(y)
    refuse_labels(labels, name)
    if not hasattr(x, "time"):
        x = np.asarray(x)
        if x.dtype.kind not in "biuf" or x.ndim < 2:
            raise UsageError(
                f"{name}: samples are {x.dtype} of shape {x.shape}",
                fix="give numbers, (samples, ...), Events (samples, events), or Currents",
            )
        if missing := int(np.isnan(x).sum()):
            raise UsageError(
                f"{name}: samples have {missing} NaN among their {x.size} values",
                fix="fill them in; signals that an encoder shall end at NaN are given as Splits",
            )
    highest = int(labels.max(initial=0))
    if highest >= MOST_CLASSES:
        raise UsageError(
            f"{name}: a label is {highest}, labels run from 0 to {MOST_CLASSES - 1}",
            fix="number the classes from 0",
        )
    named = tuple(map(str, range(highest + 1))) if classes is None else tuple(classes)
    data = Data(x=x, y=labels.astype(np.int32), classes=named)
    check_data(data, name)
    return data


def as_data(data: Any) -> Data:
    """What `evaluate` was given as data: `Data`, or (x, y).

    Raises:
        UsageError: something else; it says how to make data of it.
    """
    if isinstance(data, Data):
        return data
    if isinstance(data, tuple | list) and len(data) == 2:
        return labelled(*data)
    raise UsageError(f"data are {_described(data)}", fix=_way(data))


def as_splits(data: Any, seed: Seed = 0) -> tuple[Splits, tuple[str, ...]]:
    """What `fit` was given as data, in three parts, and notes on what was decided.

    Args:
        data: `Splits`; `Data` or (x, y), which are split as `splits_of_arrays` does by default.
        seed: chooses the samples of each part.

    Raises:
        UsageError: something else; it says how to make data of it.
    """
    if isinstance(data, Splits):
        return data, ()
    if isinstance(data, Data):
        splits = splits_of_arrays(data.x, data.y, seed=seed, classes=data.classes)
        parts = {name: getattr(splits, name) for name in ("train", "validation", "test")}
        kept = {"channels": data.channels, "first": data.first}
        splits = replace(splits, **{name: replace(part, **kept) for name, part in parts.items()})
    elif isinstance(data, tuple | list) and len(data) == 2:
        splits = splits_of_arrays(*data, seed=seed)
    else:
        raise UsageError(f"data are {_described(data)}", fix=_way(data))
    counts = [len(part) for part in (splits.train, splits.validation, splits.test)]
    note = (
        f"of {sum(counts)} samples, chosen by the seed, {counts[0]} are for training, {counts[1]}"
        f" for validation and {counts[2]} for the test"
    )
    return splits, (note,)


def _described(data: Any) -> str:
    kind = type(data).__name__
    if isinstance(data, tuple | list):
        return f"a {kind} of {len(data)} elements"
    shape = getattr(data, "shape", None)
    return f"{kind} of shape {tuple(shape)}" if shape is not None else f"of the type {kind}"


def _way(data: Any) -> str:
    """How to make data of something else."""
    if hasattr(data, "time") or hasattr(data, "shape"):
        return "add the labels: (x, y)"
    if isinstance(data, dict):
        return "pass (data['x'], data['y']), or whatever its keys are"
    if isinstance(data, tuple | list) and len(data) in (4, 6):
        return (
            "make Splits(name=..., train=Data(x=..., y=..., classes=...), validation=..., test=...)"
        )
    if hasattr(data, "__iter__") or hasattr(data, "__getitem__"):
        return (
            "pass (x, y) of arrays: x = numpy.stack([x for x, y in data]), y = [y for x, y in data]"
        )
    return "pass (x, y): samples (samples, ...) or Events, and labels (samples,)"
