"""Training on an emulated BrainScaleS-2 chip: the engine for a graph, and the graph and its mapping
afterwards.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxsnn.bss2.emulate import ChipInTheLoop, EmulatedChip
from jaxsnn.bss2.mapping import to_json
from jaxsnn.bss2.netlist import LARGEST
from jaxsnn.errors import MappingError
from jaxsnn.event.event_options import Event
from jaxsnn.network.lowering.lower import lower
from jaxsnn.network.network import Network
from jaxsnn.nir.graph import Graph
from jaxsnn.train.data.datasets import Splits
from jaxsnn.train.loop.defaults import make_loss
from jaxsnn.train.loop.evaluation import evaluate
from jaxsnn.train.loop.in_the_loop import InTheLoop
from jaxsnn.train.loop.train_plan import default_encoder, make_engine
from jaxsnn.train.losses.losses import Loss

#: By which factor weights may grow in training before they saturate, where nobody says another.
HEADROOM = 2.0


def on_chip(
    graph: Graph,
    loss: Loss | str = "ttfs",
    *,
    chip: EmulatedChip | None = None,
    headroom: float | Mapping[str, float] = HEADROOM,
    max_runs: int | None = None,
    seed: int = 0,
) -> InTheLoop:
    """An engine that plays a graph on an emulated chip, with the exact gradients of `InTheLoop`:
    pass it to `fit`.

    The graph is placed, routed and checked with free signs, its weights are scaled to the chip's
    range (`jaxsnn.bss2.emulate.ChipInTheLoop`). Other options are those of the event engine that
    `fit` takes by default.

    Args:
        graph: what will be trained, with its first weights.
        loss: as in `fit`; a population that only a first-spike loss reads stops after its first
            spike.
        chip: default `EmulatedChip()`.
        headroom: by which factor weights may grow before they saturate; one for all, or by
            population.
        max_runs: of the chip for a batch; None: as many as it takes.
        seed: of the mapping.

    Raises:
        MappingError: the chip cannot run the graph, or not in so many runs; or a population is a
            readout.
        UsageError: a loss or a headroom that makes no sense.

    >>> from jaxsnn.nir import build
    >>> from jaxsnn.nir.initializers import normal
    >>> neurons = build.cubalif(tau_mem="20ms", tau_syn="10ms")
    >>> graph = build.sequential(build.input(5), build.linear(3, weight=normal(1.0, 0.6)), neurons, seed=0)
    >>> engine = on_chip(graph, chip=EmulatedChip(seed=7))
    >>> engine.device.chip.seed, engine.first_spike_only, len(engine.device.mapping.runs)
    (7, ('2',), 1)
    """
    network = lower(graph)
    _refuse_unplayed(graph, network)
    chosen = make_loss(loss, network) if isinstance(loss, str) else loss
    event = make_engine("event", network, chosen)
    assert isinstance(event, Event)
    return InTheLoop(
        device=ChipInTheLoop(graph, chip=chip, headroom=headroom, seed=seed, max_runs=max_runs),
        max_spikes=event.max_spikes,
        first_spike_only=event.first_spike_only,
        min_slope=event.min_slope,
    )


def _refuse_unplayed(graph: Graph, network: Network) -> None:
    """Refuse what the chip could run, but not while it is trained."""
    for name, population in network.populations.items():
        if not population.fires:
            raise MappingError(
                f"population '{name}' ({population.kind}) is a readout: in the loop the chip gives spikes and no "
                "voltages: let neurons that fire answer, or take another engine"
            )
    for name, node in graph.nodes.items():
        if biased := int(np.count_nonzero(node.parameters.get("bias", 0.0))):
            raise MappingError(
                f"node '{name}' ({node.type}) has {biased} biases other than 0, and the chip has none in the loop: "
                "let an input channel that spikes in every sample stand in for them, or take another engine"
            )


def device_of(engine: Any) -> ChipInTheLoop:
    """The emulated chip of an engine made by `on_chip`."""
    assert isinstance(engine, InTheLoop)
    assert isinstance(engine.device, ChipInTheLoop)
    return engine.device


def mapped(engine: InTheLoop, trained: Graph) -> tuple[str, tuple[str, ...]]:
    """The mapping in which a graph was trained, with its weights, as JSON, and what the chip does
    otherwise.
    """
    quantized, mapping = device_of(engine).with_weights(trained)
    notes = [
        f"{note.node}{': ' * bool(note.node)}{note.what} ({note.why})" for note in quantized.notes
    ]
    for name, report in quantized.nodes.items():
        if report.saturated and report.scale is not None:
            notes.append(
                f"{report.saturated} of {report.connections} trained weights of '{name}' are too large for a synapse "
                f"and act as {LARGEST} LSB, {LARGEST / report.scale:.3g} in the file's unit: allow more with --headroom"
            )
    return to_json(mapping), tuple(notes)


@dataclass(frozen=True, kw_only=True)
class OnChip:
    """What training on an emulated chip came to, beside the record of the run.

    Attributes:
        seed: of the chip.
        mapping: path of the mapping that was written.
        off_chip_accuracy: fraction of the test samples that the trained weights answer on the event
            engine.
    """

    seed: int
    mapping: str
    off_chip_accuracy: float

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "chip_seed": self.seed,
            "off_chip_accuracy": self.off_chip_accuracy,
            "mapping": self.mapping,
        }


def off_chip_accuracy(graph: Graph, data: Splits, loss: Loss, t_end: float | None) -> float:
    """Fraction of the test samples that a graph answers on the event engine, encoded as `fit` does
    it by default.
    """
    encoder = None if hasattr(data.test.x, "time") else default_encoder(data, loss.tau)[0]
    return evaluate(graph, data.test, loss=loss, encoder=encoder, t_end=t_end)
