"""Data that do not fit in memory: arrays on the disk, encoded a piece at a time."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from jaxsnn.errors import UsageError
from jaxsnn.network.on_processor import to_jax
from jaxsnn.network.slots import bucket, with_slots
from jaxsnn.network.valued_inputs import Currents
from jaxsnn.train.data.batches import Batch
from jaxsnn.train.data.datasets import Data, taken
from jaxsnn.train.options import OPTIONS
from jaxsnn.wording import Text

#: Samples whose spikes are compared in two orders.
_LOOKED_AT = 8


@dataclass(frozen=True, kw_only=True)
class Streamed:
    """A split whose samples are encoded when they are needed, in the form of a `Batch`.

    Attributes:
        data: its samples, whose arrays may lie on the disk (`jaxsnn.train.data.datasets.Rows`).
        encode: makes the form that is scanned of some of them.
        at_once: as many samples are in memory together, or one batch.
        channels: of the input, what unused slots of events have as an index.
    """

    data: Data
    encode: Callable[[Data], Batch]
    at_once: int
    channels: int

    @property
    def labels(self) -> np.ndarray:
        """(samples,) int32."""
        return self.data.y

    def take(self, index: np.ndarray) -> Batch:
        """The samples of an index array, encoded."""
        batch = self.encode(taken(self.data, np.asarray(index)))
        return batch._replace(inputs=self._padded(batch.inputs))

    def refuse_dependent(self) -> None:
        """Refuse an encoder that makes something else of a sample among others, such as one that
        draws the spikes of all samples in a row: which these are changes from epoch to epoch.
        """
        index = np.arange(min(_LOOKED_AT, len(self.data)))
        found, turned = self.take(index), self.take(index[::-1])
        pairs = zip(jax.tree.leaves(found), jax.tree.leaves(turned), strict=True)
        if any(not np.array_equal(one, np.asarray(other)[::-1]) for one, other in pairs):
            raise UsageError(
                Text(
                    "the encoder makes other spikes of a sample where others stand beside it, and "
                    "{stream} encodes samples in changing company",
                    stream=OPTIONS["stream"].set_to(self.at_once),
                ),
                fix="leave stream out, or take an encoder that takes each sample by itself",
            )

    def _padded(self, inputs: Any) -> Any:
        """Events in a power of two slots: each number of slots is compiled for itself."""
        if isinstance(inputs, Currents) or not hasattr(inputs, "time"):
            return inputs
        return to_jax(with_slots(inputs, bucket(inputs.time.shape[1]), self.channels))

    def digest(self) -> str:
        """A hash of all samples and labels, read piece by piece."""
        found = hashlib.sha256(np.ascontiguousarray(self.data.y).tobytes())
        for leaf in jax.tree.leaves(self.data.x):
            for first in range(0, len(self.data), self.at_once):
                part = np.asarray(leaf[np.arange(first, min(first + self.at_once, len(self.data)))])
                found.update(part.tobytes())
        return found.hexdigest()


def pieces(split: Batch | Streamed, order: np.ndarray) -> Iterator[tuple[Batch, np.ndarray, int]]:
    """The batches of an epoch in pieces: samples, their order (batches, batch_size) in these, and
    the number of the first batch. One piece, if the split is in memory.

    Args:
        order: (batches, batch_size) numbers of samples.
    """
    if isinstance(split, Batch):
        yield split, order, 0
        return
    batches = max(split.at_once // order.shape[1], 1)
    for first in range(0, len(order), batches):
        part = order[first : first + batches]
        places = np.arange(part.size, dtype=np.int32).reshape(part.shape)
        yield split.take(part.reshape(-1)), places, first


def evaluation_parts(
    split: Batch | Streamed,
    parts: Iterable[tuple[np.ndarray, np.ndarray]],
    slots: int,
    channels: int,
) -> Iterator[tuple[Batch, np.ndarray]]:
    """The samples of each batch, and which are no filling.

    Args:
        parts: numbers of samples (batch,), and which are no filling (batch,).
        slots: events have so many at least, so that all splits share what is compiled.
        channels: of the input.
    """
    for order, used in parts:
        batch = split.take_here(order) if isinstance(split, Batch) else split.take(order)
        if batch.slots:
            batch = batch._replace(inputs=with_slots(batch.inputs, slots, channels))
        yield batch, used


def split_of(
    data: Data, encode: Callable[[Data], Batch], at_once: int | None, channels: int
) -> Batch | Streamed:
    """A split in memory, encoded; or, with a number of samples that are in memory at once and are
    fewer than it has, one that is streamed.

    Raises:
        UsageError: an encoder that cannot be streamed.
    """
    if at_once is None or at_once >= len(data):
        return encode(data)
    split = Streamed(data=data, encode=encode, at_once=at_once, channels=channels)
    split.refuse_dependent()
    return split


def first_pieces(splits: Mapping[str, Batch | Streamed]) -> dict[str, Batch]:
    """What is looked at of splits before a run: all of those in memory, of others what is in memory
    at once first, and says so.
    """
    found = {}
    for name, split in splits.items():
        if isinstance(split, Batch):
            found[name] = split
        else:
            number = min(split.at_once, len(split.data))
            found[f"{name}, its first {number} samples"] = split.take(np.arange(number))
    return found


def identities(splits: Mapping[str, Batch | Streamed]) -> dict[str, Any]:
    """What the fingerprint of a run has of its splits."""
    return {
        name: split
        if isinstance(split, Batch)
        else np.frombuffer(split.digest().encode(), np.uint8)
        for name, split in splits.items()
    }
