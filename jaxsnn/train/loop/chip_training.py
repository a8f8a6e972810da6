"""Training on an emulated BrainScaleS-2 chip: the engine for a graph, and the graph and its mapping
afterwards.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from jaxsnn.bss2.emulate import ChipInTheLoop, EmulatedChip, emulator_notes
from jaxsnn.bss2.mapping import to_json
from jaxsnn.bss2.netlist import LARGEST
from jaxsnn.bss2.search.quantize import QuantizeOptions
from jaxsnn.errors import MappingError, Note, UsageError
from jaxsnn.event.event_driven import EventDriven
from jaxsnn.keywords import suggests_keywords
from jaxsnn.network.lowering.lower import lower
from jaxsnn.network.network import Network
from jaxsnn.nir.initializers import Seed, generator_of, seed_words
from jaxsnn.nir.model.graph import Graph
from jaxsnn.options import ENGINE, T_END
from jaxsnn.train.data.batches import Batch
from jaxsnn.train.data.named_encoders import make_encoder
from jaxsnn.train.loop.defaults import default_loss, make_engine, make_loss, output_node
from jaxsnn.train.loop.evaluation import evaluate
from jaxsnn.train.loop.in_the_loop import InTheLoop
from jaxsnn.train.loop.train_plan import loss_of, node_of_loss, with_fields
from jaxsnn.train.losses.losses import Loss
from jaxsnn.train.options import TrainOptions
from jaxsnn.units import format_time
from jaxsnn.wording import Text

#: Default factor by which weights may grow during training before they saturate.
HEADROOM = 2.0
#: Default temperature of a first-spike loss on a chip, the deviation of a chip's spike times in tau_syn.
#: With 0.15, wrong outputs move later until they are silent, and training may collapse (docs/results.md).
TEMPERATURE = 0.1


def __getattr__(name: str) -> Any:
    if name == "SHARPNESS":
        message = "SHARPNESS is deprecated: use TEMPERATURE instead"
        warnings.warn(message, DeprecationWarning, stacklevel=2)
        return TEMPERATURE
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


@suggests_keywords
def on_chip(
    graph: Graph,
    loss: Loss | str | None = None,
    *,
    chip: EmulatedChip | Sequence[EmulatedChip] | None = None,
    headroom: float | Mapping[str, float] = HEADROOM,
    max_runs: int | None = None,
    seed: Seed = 0,
) -> InTheLoop:
    """Return an engine that runs a graph on an emulated chip, with the exact gradients of
    `InTheLoop`: pass it to `fit`.

    The graph is placed, routed and checked with free signs, its weights are scaled to the chip's
    range (`jaxsnn.bss2.emulate.ChipInTheLoop`). Biases shift the leak potentials and are not trained:
    pass `trainable=("weight",)` to `fit`. Other options are those of the event engine that
    `fit` takes by default.

    Args:
        graph: graph to train, with its initial weights.
        loss: as in `fit`, with the same default; a population that only a first-spike loss reads
            stops after its first spike.
        chip: emulated chip, by default `EmulatedChip()`; or several chips that differ by their
            seeds, one of which runs each batch, so that the weights suit other chips as well.
        headroom: factor by which weights may grow before they saturate; one for all populations,
            or by population.
        max_runs: largest number of runs of the chip per batch; None: no limit.
        seed: random seed of the mapping, an integer or a `jax.random` key.

    Raises:
        MappingError: the chip cannot run the graph, or not in `max_runs` runs; or a population is a
            readout.
        UsageError: an invalid loss or headroom.

    >>> from jaxsnn.nir import build
    >>> from jaxsnn.nir.initializers import normal
    >>> neurons = build.cubalif(tau_mem="20ms", tau_syn="10ms")
    >>> weights = build.linear(3, weight=normal(1.0, 0.6))
    >>> graph = build.sequential(build.input(5), weights, neurons, seed=0)
    >>> engine = on_chip(graph, chip=EmulatedChip(seed=7))
    >>> engine.device.chip.seed, engine.first_spike_only, len(engine.device.mapping.runs)
    (7, ('2',), 1)
    """
    network = lower(graph)
    _refuse_untrainable(network)
    loss = loss or default_loss(network, output_node(network), in_steps=False)
    chosen = make_loss(loss, network) if isinstance(loss, str) else loss
    event = make_engine("event", network, chosen)
    assert isinstance(event, EventDriven)
    biased = any(np.any(node.parameters.get("bias", 0.0)) for node in graph.nodes.values())
    device = ChipInTheLoop(
        graph,
        chip=chip,
        options=QuantizeOptions(bias="leak" if biased else "refuse"),
        headroom=headroom,
        seed=one_number(seed),
        max_runs=max_runs,
    )
    return InTheLoop(
        device=device,
        max_spikes=event.max_spikes,
        first_spike_only=event.first_spike_only,
        min_slope=event.min_slope,
        refractory=device.refractory,
    )


def on_emulated_chip(graph: Graph, options: TrainOptions) -> TrainOptions:
    """Return the options with the engine "loop" replaced by an engine object, and the loss by a
    loss object.

    Args:
        graph: graph to train, with its initial weights.
        options: options with `Splits` as data. The result has no `chip_seed`, `headroom`, `runs`,
            `loss_options` and `engine_options`. A first-spike loss by name has the temperature
            `TEMPERATURE` unless `loss_options` specify another.

    Raises:
        MappingError: the chip cannot run the graph.
        UsageError: a loss or a headroom that is invalid, or a device in `engine_options`.
    """
    network = lower(graph)
    loss_options, name = dict(options.loss_options or {}), options.loss
    if name is None:
        name = default_loss(network, node_of_loss(network, options), in_steps=False)
    if name == "ttfs":
        former = "sharpness" in loss_options  # name of `temperature` in earlier versions
        loss_options = ({} if former else {"temperature": TEMPERATURE}) | loss_options
    loss = loss_of(network, replace(options, loss_options=loss_options))
    if "device" in (options.engine_options or {}):
        raise UsageError(
            Text(
                "engine_options contains a device, and {engine} has one",
                engine=ENGINE.set_to("loop"),
            ),
            fix="remove it, or pass an InTheLoop object as the engine",
        )
    engine = on_chip(
        graph,
        loss,
        chip=EmulatedChip(seed=one_number(options.chip_seed or 0)),
        headroom=HEADROOM if options.headroom is None else options.headroom,
        max_runs=1 if options.runs is None else options.runs,
    )
    consumed = ("chip_seed", "headroom", "runs", "loss_options", "engine_options")
    chosen = with_fields(engine, options.engine_options)
    return replace(options, loss=loss, engine=chosen, **dict.fromkeys(consumed))


def one_number(seed: Seed) -> int:
    """Return a seed as an integer: itself, or one drawn from a key."""
    if isinstance(seed, int):
        return seed
    words = seed_words(seed)
    return words[0] if len(words) == 1 else int(generator_of(seed).integers(2**31))


def _refuse_untrainable(network: Network) -> None:
    """Refuse networks that the chip can run, but not train."""
    for name, population in network.populations.items():
        if not population.fires:
            raise MappingError(
                Text(
                    "population '{population}' ({kind}) is a readout, and a chip in the loop "
                    "returns only spikes, not voltages",
                    population=name,
                    kind=population.kind,
                ),
                fix=Text(
                    "use a spiking output population, or pass {engine}",
                    engine=ENGINE.set_to("event"),
                ),
                node=name,
            )


def device_of(engine: Any) -> ChipInTheLoop:
    """Return the emulated chip of an engine made by `on_chip`."""
    assert isinstance(engine, InTheLoop)
    assert isinstance(engine.device, ChipInTheLoop)
    return engine.device


def mapped(engine: InTheLoop, trained: Graph) -> tuple[str, tuple[str, ...]]:
    """Return the mapping in which a graph was trained, with its weights, as JSON, and the
    approximations of the chip.
    """
    device = device_of(engine)
    quantized, mapping = device.with_weights(trained)
    notes = [
        f"{note.node}{': ' * bool(note.node)}" + note.what + " (" + note.why + ")"
        for note in quantized.notes
    ]
    return to_json(mapping), (*notes, *emulator_notes(quantized, mapping, device.chip))


def saturated_notes(engine: Any, trained: Graph) -> Iterator[str]:
    """Yield notes on weights, trained on an emulated chip, that exceed its synapses' range."""
    if not (isinstance(engine, InTheLoop) and isinstance(engine.device, ChipInTheLoop)):
        return
    for name, report in engine.device.with_weights(trained)[0].nodes.items():
        if report.saturated and report.scale is not None:
            yield Note(
                Text(
                    "trained weights of '{node}' that exceed the largest weight of a synapse: {count} of "
                    "{size}. They act as {maximum} LSB, which is {limit:.3g} in the unit of the file: "
                    "train with a larger headroom",
                    count=report.saturated,
                    size=report.connections,
                    node=name,
                    maximum=LARGEST,
                    limit=LARGEST / report.scale,
                ),
                kind="truncated",
                code="saturated-weights",
            )


def late_input_notes(
    engine: Any, network: Network, splits: Mapping[str, Batch], t_end: float
) -> Iterator[str]:
    """Yield a sentence for each part of the data whose events the host of an emulated chip sends
    too late to count.

    Args:
        splits: samples by the name of the part.
        t_end: end of a sample in seconds.
    """
    if not (isinstance(engine, InTheLoop) and isinstance(engine.device, ChipInTheLoop)):
        return
    (name,) = network.inputs
    sources = [source for run in engine.device.mapping.runs for source in run.sources]
    # How late the host replays spikes depends on what the chip fires, so these are not counted.
    replays = any(source.from_run is not None for source in sources)
    least = "at least " if replays else ""
    more = " (replayed spikes are not counted)" if replays else ""
    for part, batch in splits.items():
        if late := engine.device.late_inputs({name: batch.inputs}, t_end):
            yield Note(
                Text(
                    "{part}: {least}{late} events reach the chip at or after {option} and are left out, "
                    "because the host sends one event per clock cycle{more}",
                    part=part,
                    least=least,
                    late=late,
                    option=T_END.equal_to(format_time(t_end)),
                    more=more,
                ),
                kind="dropped",
                code="late-events",
            )


@dataclass(frozen=True, kw_only=True)
class OnChip:
    """Results of training on an emulated chip that the record of the run does not have.

    Attributes:
        seed: seed of the chip.
        mapping: path of the mapping file.
        off_chip_accuracy: accuracy of the trained weights on the test samples on the event engine,
            with the refractory period of the chip.
    """

    seed: int
    mapping: str
    off_chip_accuracy: float

    def as_dict(self) -> dict[str, Any]:
        """Return the results as a dict for JSON."""
        return {
            "chip_seed": self.seed,
            "off_chip_accuracy": self.off_chip_accuracy,
            "mapping": self.mapping,
        }


def off_chip_accuracy(graph: Graph, options: TrainOptions) -> float:
    """Return the accuracy of a graph on the test samples on the event engine, encoded as in training
    and with the refractory period of the chip.

    Args:
        options: options of the run, with `Splits` as data, a loss, and a chip in the loop as engine.
    """
    settings: Any = options
    data, loss, encoder = settings.data, settings.loss, settings.encoder
    if not hasattr(data.test.x, "time") and (encoder is None or isinstance(encoder, str)):
        encoder = make_encoder(data, loss.tau, encoder, settings.encoder_options)[0]
    event: Any = make_engine("event", lower(graph), loss)
    engine = replace(event, refractory=settings.engine.event.refractory)
    return evaluate(
        graph, data.test, loss=loss, encoder=encoder, t_end=options.t_end, engine=engine
    )
