"""The netlist that is placed on the chip: neurons, and synapses with integer weights."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import SupportsInt

import numpy as np

from jaxsnn.bss2.quantization import Quantization
from jaxsnn.errors import MappingError
from jaxsnn.summary import summarised
from jaxsnn.wording import Text

#: Maximum weight of one synapse of the chip; larger weights need several synapses.
LARGEST = 63


@dataclasses.dataclass(frozen=True, kw_only=True)
class NetPopulation:
    """Population of neurons or input channels of a net.

    Attributes:
        name: The NIR node's name.
        size: Number of neurons, or of input channels.
        external: Whether its spikes come from the host; it then needs no circuits.
        output: Whether its spikes are an output of the network.
    """

    name: str
    size: int
    external: bool
    output: bool = False


@summarised
@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Netlist:
    """Populations and the synapses between their neurons. Create it with `netlist`, which sorts and
    checks.

    A neuron has a global index: the offset of its population plus its own index.

    Attributes:
        populations: Populations, sources before targets unless they are recurrently connected.
        pre, post: (synapses,) int32, global indices of source and target; sorted by (post, pre),
            without duplicates.
        weight: (synapses,) int16, signed, never zero; magnitudes above `LARGEST` take several
            synapses of the chip.
        quantization: Options with which a graph was quantised; None for other netlists.
    """

    populations: tuple[NetPopulation, ...]
    pre: np.ndarray
    post: np.ndarray
    weight: np.ndarray
    quantization: Quantization | None = None

    @functools.cached_property
    def offsets(self) -> np.ndarray:
        """First global index of each population, and the number of all neurons, (populations + 1,)
        int64.
        """
        return np.concatenate(
            [[0], np.cumsum([part.size for part in self.populations], dtype=np.int64)]
        )

    @property
    def size(self) -> int:
        """Number of neurons and input channels."""
        return int(self.offsets[-1])

    @functools.cached_property
    def owner(self) -> np.ndarray:
        """Number of the population of each global index, (size,) int32."""
        return np.repeat(
            np.arange(len(self.populations), dtype=np.int32),
            [part.size for part in self.populations],
        )

    @functools.cached_property
    def external(self) -> np.ndarray:
        """Mask of the global indices that are input channels, (size,) bool."""
        return np.array([part.external for part in self.populations], bool)[self.owner]

    def neuron(self, index: SupportsInt) -> str:
        """Return the name of a global index for messages.

        >>> net = netlist([NetPopulation(name="in", size=2, external=True)], [], [], [])
        >>> net.neuron(1)
        "'in'[1]"
        """
        number = int(self.owner[int(index)])
        return f"'{self.populations[number].name}'[{int(index) - int(self.offsets[number])}]"

    def fan_in(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the numbers of excitatory and of inhibitory synapses of each neuron on the chip, both
        (size,) int64.
        """
        parts = synapses_of(self.weight)
        excites = self.weight > 0
        return tuple(
            np.bincount(self.post[sign], weights=parts[sign], minlength=self.size).astype(np.int64)
            for sign in (excites, ~excites)
        )  # pyright: ignore[reportReturnType]

    @functools.cached_property
    def outputs(self) -> np.ndarray:
        """Mask of the neurons whose spikes the host needs, because their population is an output,
        or feeds nothing, (size,) bool.
        """
        feeds = np.isin(np.arange(len(self.populations)), self.owner[self.pre])
        is_output = np.array([part.output for part in self.populations], bool) | ~feeds
        return is_output[self.owner] & ~self.external

    def fan_out(self) -> np.ndarray:
        """Return the number of targets of each neuron or input channel, (size,) int64."""
        return np.bincount(self.pre, minlength=self.size).astype(np.int64)

    def recurrent_components(self) -> tuple[np.ndarray, ...]:
        """Return the recurrently connected components, as sorted global indices, ordered by their
        first index.

        A neuron with a connection to itself is a component, too. All neurons of a component must be
        on the chip in the same run.
        """
        import networkx

        inside = np.isin(self.owner, self._looped())
        is_inside = inside[self.pre] & inside[self.post]
        graph = networkx.DiGraph()
        graph.add_edges_from(
            zip(self.pre[is_inside].tolist(), self.post[is_inside].tolist(), strict=True)
        )
        components = [
            np.sort(np.fromiter(part, np.int64))
            for part in networkx.strongly_connected_components(graph)
            if len(part) > 1 or graph.has_edge(*(2 * tuple(part)))
        ]
        return tuple(sorted(components, key=lambda part: int(part[0])))

    def _looped(self) -> list[int]:
        """Return the populations, by number, that feed themselves, directly or indirectly."""
        import networkx

        pairs = np.unique(
            np.stack([self.owner[self.pre], self.owner[self.post]], axis=1), axis=0
        ).tolist()
        graph = networkx.DiGraph(pairs)
        loops = {source for source, target in pairs if source == target}
        parts = networkx.strongly_connected_components(graph)
        return sorted(number for part in parts if len(part) > 1 or part <= loops for number in part)

    def fingerprint(
        self,
        scales: Mapping[str, float] | None = None,
        quantization: Quantization | None = None,
    ) -> str:
        """Return the SHA-256 of the populations and synapses, as hexadecimal digits, by which a
        mapping identifies its net.

        Args:
            scales, quantization: Those of the mapping, if it has any; they become part of the hash.
        """
        head = repr([(part.name, part.size, bool(part.external)) for part in self.populations])
        digest = hashlib.sha256(head.encode())
        for values, kind in ((self.pre, "<i4"), (self.post, "<i4"), (self.weight, "<i2")):
            digest.update(np.ascontiguousarray(values, kind).tobytes())
        if scales is not None:
            digest.update(repr(sorted(scales.items())).encode())
        if quantization is not None:
            digest.update(json.dumps(quantization.as_dict(), sort_keys=True).encode())
        return digest.hexdigest()


def synapses_of(weight: np.ndarray) -> np.ndarray:
    """Return the number of synapses of the chip that each weight takes, one row each.

    >>> synapses_of(np.array([63, -64, 130])).tolist()
    [1, 2, 3]
    """
    return -(-np.abs(np.asarray(weight, np.int64)) // LARGEST)


def netlist(
    populations: Iterable[NetPopulation],
    pre: object,
    post: object,
    weight: object,
    quantization: Quantization | None = None,
) -> Netlist:
    """Return a netlist of synapses in any order; synapses of weight 0 are left out.

    Raises:
        MappingError: A name or a pair of neurons comes twice, an index is out of range, an input
            channel is a target, or a weight does not fit into 16 bit.
    """
    parts = tuple(populations)
    population_names = [part.name for part in parts]
    for name in population_names:
        if population_names.count(name) > 1:
            raise MappingError(
                Text(
                    "there are {count} populations named '{population}'",
                    count=population_names.count(name),
                    population=name,
                ),
                fix="use different names",
                node=name,
            )
    sources, targets, weights = (
        np.asarray(values, np.int64).reshape(-1) for values in (pre, post, weight)
    )
    if not sources.size == targets.size == weights.size:
        raise MappingError(
            Text(
                "pre has {sources} entries, post has {targets} and weight has {weights}",
                sources=sources.size,
                targets=targets.size,
                weights=weights.size,
            ),
            fix="pass arrays of equal lengths, with one entry per synapse",
        )
    order = np.lexsort((sources, targets))
    order = order[weights[order] != 0]
    sources, targets, weights = sources[order], targets[order], weights[order]
    _refuse_bad(parts, sources, targets, weights)
    arrays = [sources.astype(np.int32), targets.astype(np.int32), weights.astype(np.int16)]
    for array in arrays:
        array.setflags(write=False)
    return Netlist(
        populations=parts,
        pre=arrays[0],
        post=arrays[1],
        weight=arrays[2],
        quantization=quantization,
    )


def _refuse_bad(
    parts: tuple[NetPopulation, ...], pre: np.ndarray, post: np.ndarray, weight: np.ndarray
) -> None:
    ends = np.cumsum([part.size for part in parts], dtype=np.int64)
    size = int(ends[-1]) if parts else 0
    for end_name, values in (("source", pre), ("target", post)):
        if values.size and not (values.min() >= 0 and values.max() < size):
            worst = int(values.max() if values.max() >= size else values.min())
            raise MappingError(
                Text(
                    "a synapse has the {end} {index}; the netlist has {size} neurons",
                    end=end_name,
                    index=worst,
                    size=size,
                ),
                fix="count neurons from 0",
            )
    external = np.array([part.external for part in parts], bool)
    wrong = external[np.searchsorted(ends, post, side="right")] if post.size else np.zeros(0, bool)
    if wrong.any():
        name = parts[int(np.searchsorted(ends, post[wrong.argmax()], side="right"))].name
        raise MappingError(
            Text(
                "population '{population}' is an input, but the target of {synapses} synapses",
                population=name,
                synapses=int(wrong.sum()),
            ),
            fix="remove the synapses onto inputs",
            node=name,
        )
    same = (np.diff(pre) == 0) & (np.diff(post) == 0)
    if same.any():
        place = int(same.argmax())
        raise MappingError(
            Text(
                "synapses that are listed twice: {count}, the first from {source} to {target}",
                count=int(same.sum()),
                source=int(pre[place]),
                target=int(post[place]),
            ),
            fix="list each pair of neurons once, with the sum of the weights",
        )
    largest = np.iinfo(np.int16).max
    if weight.size and np.abs(weight).max() > largest:
        raise MappingError(
            Text(
                "a weight is {value}; the largest magnitude is {limit}",
                value=np.abs(weight).max(),
                limit=largest,
            ),
            fix="pass a smaller scale",
        )
