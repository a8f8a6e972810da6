"""A network placed and routed on the chip: a record, and its JSON (docs/mapping.md)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from collections.abc import Mapping as Mapped
from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxsnn.bss2.chip import CHIPS, HEMISPHERES, ROW_MODES, Chip, Circuit, Dead, crossbar_nodes
from jaxsnn.bss2.json_entries import MAP_AGAIN, Entry, integers
from jaxsnn.bss2.quantization import FIELDS, Quantization, read_quantization
from jaxsnn.errors import MappingError, listing, suggestion
from jaxsnn.files.structured_text import parse_json, reason_of
from jaxsnn.summary import summarised
from jaxsnn.wording import Text

SCHEMA = 1
SIGNS = ("fixed", "free")


@dataclass(frozen=True, kw_only=True)
class PlacedPopulation:
    """Population of the net: its name, its size, and whether it is external."""

    name: str
    size: int
    external: bool


@dataclass(frozen=True, kw_only=True)
class PlacedNeuron:
    """Neuron on the chip.

    Attributes:
        population: Position in `Mapping.populations`.
        index: Index of the neuron in the population.
        circuits: (row, column) of its circuits, in order.
        head: Position in `circuits` of the circuit that leaks, fires and sends the events.
        address: Local part of the address of its events, which belongs to the head circuit.
        recorded: Whether its spikes are sent to the host.
    """

    population: int
    index: int
    circuits: tuple[Circuit, ...]
    head: int
    address: int
    recorded: bool


@dataclass(frozen=True, kw_only=True)
class Source:
    """Neuron or input channel whose spikes the host sends to the chip.

    Attributes:
        population: Position in `Mapping.populations`.
        index: Index of the neuron or input channel in the population.
        from_run: Earlier run that recorded its spikes; None for an external population.
        events: Addresses of the events that the host sends for one spike, including the number of
            the link.
    """

    population: int
    index: int
    from_run: int | None
    events: tuple[int, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class Run:
    """Placed and routed part of a network that is on the chip at one time.

    Attributes:
        method: Placer and router that created the run.
        neurons: Neurons on the chip, by population and index.
        sources: Neurons and input channels whose spikes the host sends, by population and index.
        compare_masks: (hemispheres, drivers), int32: bits of the row select that a driver compares
            with its index.
        row_modes: (hemispheres, rows), int8: DISABLED, EXCITATORY, INHIBITORY or BOTH.
        synapses: (synapses, 5), int32: hemisphere, row, column, label, weight (>= 1), in ascending
            order. All other synapses have weight 0.
        crossbar: (nodes, 4), int32: input, output, mask, target of every node that exists, in the
            order of `chip.crossbar_nodes`: an event passes where address & mask == target.
    """

    method: str
    neurons: tuple[PlacedNeuron, ...]
    sources: tuple[Source, ...]
    compare_masks: np.ndarray
    row_modes: np.ndarray
    synapses: np.ndarray
    crossbar: np.ndarray

    @property
    def summary(self) -> str:
        """Number of neurons, circuits and sources on the chip, as text."""
        circuits = sum(len(neuron.circuits) for neuron in self.neurons)
        replayed = sum(source.from_run is not None for source in self.sources)
        return (
            f"{len(self.neurons)} neurons on {circuits} circuits, {len(self.sources) - replayed} "
            f"inputs, {replayed} replayed ({self.method})"
        )


@summarised
@dataclass(frozen=True, kw_only=True, eq=False)
class Mapping:
    """Mapping of a net to a chip, run by run.

    Attributes:
        chip: The chip.
        dead: Parts of the chip that are not used.
        signs: "fixed": each weight has one synapse, in a row of its sign. "free": the synapse in
            the same column of the driver's other row, which has the opposite sign, is reserved for
            it, too, so that training can change the sign.
        seed: Random seed of the search.
        fingerprint: Hash of the netlist, and of the options of quantisation.
        populations: Populations of the netlist, in its order.
        runs: Runs in the order of execution.
        quantization: Options with which the netlist was quantised; None if it was not quantised from
            a graph, and in mappings of earlier versions.
        scales: LSB of a weight of 1 by population, in mappings of earlier versions whose netlist
            was quantised with specified scales, instead of `quantization.scale`; else None.
    """

    chip: Chip
    dead: Dead
    signs: str
    seed: int
    fingerprint: str
    populations: tuple[PlacedPopulation, ...]
    runs: tuple[Run, ...]
    quantization: Quantization | None = None
    scales: Mapped[str, float] | None = None

    @property
    def specified_scales(self) -> Mapped[str, float] | None:
        """LSB of a weight of 1 by population, if the netlist was quantised with specified scales."""
        scale = None if self.quantization is None else self.quantization.scale
        return scale if isinstance(scale, Mapped) else self.scales

    def _repr_html_(self) -> str | None:
        """Return the floorplan as HTML, for a notebook."""
        from jaxsnn.notebook import html_of

        return html_of(self)


def to_json(mapping: Mapping) -> str:
    """Return the mapping as JSON: the same bytes for the same mapping."""
    content = {
        "schema": SCHEMA,
        "chip": mapping.chip.name,
        "dead": {
            "circuits": [list(part) for part in mapping.dead.circuits],
            "drivers": [list(part) for part in mapping.dead.drivers],
            "rows": [list(part) for part in mapping.dead.rows],
        },
        "signs": mapping.signs,
        "seed": mapping.seed,
        "fingerprint": mapping.fingerprint,
        **({} if mapping.scales is None else {"scales": dict(mapping.scales)}),
        **(
            {} if mapping.quantization is None else {"quantization": mapping.quantization.as_dict()}
        ),
        "populations": [
            {"name": population.name, "size": population.size, "external": population.external}
            for population in mapping.populations
        ],
        "runs": [_run_content(run) for run in mapping.runs],
    }
    return json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":")) + "\n"


def digest(mapping: Mapping) -> str:
    """Return a hash of the whole mapping, 16 hexadecimal digits: network, placement and routing."""
    return hashlib.sha256(to_json(mapping).encode()).hexdigest()[:16]


def _run_content(run: Run) -> dict[str, Any]:
    return {
        "method": run.method,
        "neurons": [
            {
                "population": neuron.population,
                "index": neuron.index,
                "circuits": [list(circuit) for circuit in neuron.circuits],
                "head": neuron.head,
                "address": neuron.address,
                "recorded": neuron.recorded,
            }
            for neuron in run.neurons
        ],
        "sources": [
            {
                "population": source.population,
                "index": source.index,
                "from_run": source.from_run,
                "events": list(source.events),
            }
            for source in run.sources
        ],
        "compare_masks": run.compare_masks.tolist(),
        "row_modes": [[ROW_MODES[mode] for mode in modes] for modes in run.row_modes.tolist()],
        "synapses": _synapse_rows(run.synapses),
        "crossbar": run.crossbar.tolist(),
    }


def _synapse_rows(synapses: np.ndarray) -> list[dict[str, Any]]:
    """Return the synapses row by row, as lists of equal length."""
    if not len(synapses):
        return []
    changes = np.flatnonzero(np.any(np.diff(synapses[:, :2], axis=0), axis=1)) + 1
    return [
        {
            "hemisphere": int(part[0, 0]),
            "row": int(part[0, 1]),
            "columns": part[:, 2].tolist(),
            "labels": part[:, 3].tolist(),
            "weights": part[:, 4].tolist(),
        }
        for part in np.split(synapses, changes)
    ]


#: Keys of the objects of a mapping.
_KEYS = (
    "schema",
    "chip",
    "dead",
    "signs",
    "seed",
    "fingerprint",
    "scales",
    "quantization",
    "populations",
    "runs",
)
_RUN_KEYS = (
    "method",
    "neurons",
    "sources",
    "compare_masks",
    "row_modes",
    "synapses",
    "crossbar",
)
_NEURON_KEYS = ("population", "index", "circuits", "head", "address", "recorded")
_SOURCE_KEYS = ("population", "index", "from_run", "events")
_ROW_KEYS = ("hemisphere", "row", "columns", "labels", "weights")


def from_json(text: str, chips: Mapped[str, Chip] = CHIPS, *, location: str = "mapping") -> Mapping:
    """Return the mapping of a JSON text.

    Only the form is checked here: types, keys, also unknown and repeated ones, and lengths of
    lists. `jaxsnn.bss2.check` verifies the content.

    Args:
        text: JSON of a mapping.
        chips: Chips by name.
        location: Name of the text in error messages, such as its file.

    Raises:
        MappingError: The text is not JSON, has another schema or an unknown chip, or an entry is
            missing, malformed or unknown.
    """
    try:
        content = parse_json(text)
    except ValueError as error:
        raise MappingError(
            Text("{location} is not JSON ({error})", location=location, error=reason_of(error)),
            fix="write a mapping with jaxsnn map",
        ) from None
    if (schema := Entry(content, location).integer("schema")) != SCHEMA:
        raise MappingError(
            Text(
                "{location} has schema {actual}; this version of jaxsnn reads schema {expected}",
                location=location,
                actual=schema,
                expected=SCHEMA,
            ),
            fix=MAP_AGAIN,
        )
    document = Entry(content, location, keys=_KEYS)
    name = document.text("chip")
    if name not in chips:
        raise MappingError(
            Text("{location} is for the unknown chip '{chip}'", location=location, chip=name),
            fix=suggestion(name, chips),
        )
    signs = document.text("signs")
    if signs not in SIGNS:
        raise MappingError(
            Text(
                "{location}: 'signs' is '{signs}', not one of {supported}",
                location=location,
                signs=signs,
                supported=listing(SIGNS),
            ),
            fix=MAP_AGAIN,
        )
    chip, dead = chips[name], document.entry("dead", ("circuits", "drivers", "rows"))
    return Mapping(
        chip=chip,
        dead=Dead(
            circuits=dead.pairs("circuits"), drivers=dead.pairs("drivers"), rows=dead.pairs("rows")
        ),
        signs=signs,
        seed=document.integer("seed"),
        fingerprint=document.text("fingerprint"),
        populations=tuple(
            PlacedPopulation(
                name=entry.text("name"), size=entry.integer("size"), external=entry.flag("external")
            )
            for entry in document.entries("populations", ("name", "size", "external"))
        ),
        runs=tuple(_run(entry, chip) for entry in document.entries("runs", _RUN_KEYS)),
        quantization=read_quantization(document.entry("quantization", FIELDS))
        if "quantization" in document.content
        else None,
        scales=document.entry("scales").positive_numbers()
        if "scales" in document.content
        else None,
    )


def _run(entry: Entry, chip: Chip) -> Run:
    nodes = len(crossbar_nodes(chip))
    modes = entry.value("row_modes")
    for row in modes if isinstance(modes, list) else ():
        for mode in row if isinstance(row, list) else ():
            if mode not in ROW_MODES:
                raise MappingError(
                    Text(
                        "{location}: row mode {mode!r} is not one of {supported}",
                        location=entry.location,
                        mode=mode,
                        supported=listing(ROW_MODES),
                    ),
                    fix=MAP_AGAIN,
                )
    if isinstance(modes, list) and all(isinstance(row, list) for row in modes):
        modes = [[ROW_MODES.index(mode) for mode in row] for row in modes]
    return Run(
        method=entry.text("method"),
        neurons=tuple(
            PlacedNeuron(
                population=neuron.integer("population"),
                index=neuron.integer("index"),
                circuits=neuron.pairs("circuits"),
                head=neuron.integer("head"),
                address=neuron.integer("address"),
                recorded=neuron.flag("recorded"),
            )
            for neuron in entry.entries("neurons", _NEURON_KEYS)
        ),
        sources=tuple(
            Source(
                population=source.integer("population"),
                index=source.integer("index"),
                from_run=None if source.value("from_run") is None else source.integer("from_run"),
                events=tuple(int(event) for event in source.array("events", None)),
            )
            for source in entry.entries("sources", _SOURCE_KEYS)
        ),
        compare_masks=entry.array("compare_masks", (HEMISPHERES, chip.drivers)).astype(np.int32),
        row_modes=integers(modes, (HEMISPHERES, chip.rows), entry.location, "row_modes").astype(
            np.int8
        ),
        synapses=_synapses(entry.entries("synapses", _ROW_KEYS)),
        crossbar=entry.array("crossbar", (nodes, 4)).astype(np.int32),
    )


def _synapses(entries: Iterable[Entry]) -> np.ndarray:
    parts = []
    for entry in entries:
        columns = entry.array("columns", None)
        shape = columns.shape
        parts.append(
            np.stack(
                [
                    np.full(shape, entry.integer("hemisphere")),
                    np.full(shape, entry.integer("row")),
                    columns,
                    entry.array("labels", shape),
                    entry.array("weights", shape),
                ],
                axis=1,
            )
        )
    return np.concatenate(parts).astype(np.int32) if parts else np.zeros((0, 5), np.int32)
