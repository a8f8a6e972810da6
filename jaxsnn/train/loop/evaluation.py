"""Evaluation of a graph on labelled data without training: its accuracy, and the weight factors
with which a fraction of the neurons fires.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, cast

import jax.numpy as jnp
import numpy as np

from jaxsnn.errors import Note, Problem, SimulationError, UsageError, listing, warn_of
from jaxsnn.event.event_driven import EventDriven
from jaxsnn.event.event_solution import EventSolution, time_constants
from jaxsnn.event.solution_notes import is_very_long, time_constant_notes
from jaxsnn.keywords import suggests_keywords
from jaxsnn.network.bad_numbers import bad_number
from jaxsnn.network.delay_notes import long_delay_notes
from jaxsnn.network.inputs import other_step_notes, shape_of_input
from jaxsnn.network.lowering.lower import lower, update_graph
from jaxsnn.network.network import Network
from jaxsnn.network.promotion import usual_promotion
from jaxsnn.network.results import Result
from jaxsnn.nir.model.graph import Graph
from jaxsnn.options import T_END
from jaxsnn.simulation.neurobench import NeuroBench, OperationCounter
from jaxsnn.simulation.retry import FIRE_LESS, with_enough_room
from jaxsnn.simulation.solution import Engine, Solution
from jaxsnn.train.data.batches import (
    Batch,
    brief_event_notes,
    encoded,
    first_pieces,
    late_notes,
    late_sample_notes,
    split_of,
)
from jaxsnn.train.data.datasets import Data, Splits, as_data, as_splits, select_samples
from jaxsnn.train.data.encoders import Encoder
from jaxsnn.train.data.named_encoders import make_encoder, named_encoder
from jaxsnn.train.loop.defaults import (
    are_signals,
    default_end,
    default_engine,
    default_loss,
    make_engine,
    make_loss,
    output_node,
    reference_tau,
    refuse_second_encoder,
)
from jaxsnn.train.loop.epoch import refuse_no_classes, run_batch
from jaxsnn.train.loop.in_the_loop import device_errors
from jaxsnn.train.losses.losses import Loss
from jaxsnn.train.losses.regularizers import feeding_weights
from jaxsnn.train.options import OPTIONS, engine_kind
from jaxsnn.units import format_time, refuse_no_time
from jaxsnn.wording import Text

_BATCH = 500


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Accuracy and spike counts of a graph on some samples.

    Attributes:
        accuracy: fraction of the samples that are classified correctly.
        spikes: population -> mean number of spikes of all its neurons per sample.
        notes: notes on events that were left out, one sentence each.
        neurobench: metrics of NeuroBench; None if they were not requested.
    """

    accuracy: float
    spikes: dict[str, float]
    notes: tuple[str, ...] = ()
    neurobench: NeuroBench | None = None

    @property
    def spikes_per_sample(self) -> float:
        """Mean number of spikes of all populations in a sample."""
        return sum(self.spikes.values())


@suggests_keywords
@usual_promotion
def evaluate(
    graph: Graph,
    data: Data | tuple[Any, Any],
    *,
    loss: Loss | str | None = None,
    encoder: Encoder | str | None = None,
    bias: bool = False,
    t_end: float | None = None,
    engine: Engine | str | None = None,
) -> float:
    """Return the fraction of samples that a graph classifies correctly, with the full dynamics of
    every neuron. `evaluate_neurobench` also counts synaptic operations.

    Args:
        data: samples and labels, or (x, y).
        loss: loss whose prediction is used; by default as in `fit`.
        encoder: as in `fit`.
        bias: whether the default encoder adds a bias channel.
        t_end, engine: as in `fit`; the budget of the event engine grows as needed. The number of
            events that an explicit end leaves out is issued as an `ApproximationWarning`.

    Raises:
        UsageError: data that do not match the network.
        SimulationError: the simulation of the data failed.
    """
    options = _evaluation_options(
        graph, as_data(data), loss=loss, encoder=encoder, bias=bias, t_end=t_end, engine=engine
    )
    measured = measure(graph, **options)
    warn_of(measured.notes)
    return measured.accuracy


@suggests_keywords
@usual_promotion
def evaluate_neurobench(
    graph: Graph,
    data: Data | tuple[Any, Any],
    *,
    loss: Loss | str | None = None,
    encoder: Encoder | str | None = None,
    bias: bool = False,
    t_end: float | None = None,
    engine: Engine | str | None = None,
    dt: float | None = None,
) -> NeuroBench:
    """Return the metrics of NeuroBench of a graph on labelled data: accuracy, footprint, connection
    and activation sparsity, synaptic operations.

    The metrics are those of `jaxsnn.neurobench`, over all samples; arguments and errors of the
    evaluation are those of `evaluate`. Output neurons that `fit` stops after their first spike
    continue to fire, as in the trained file.

    Args:
        data: samples and labels, or (x, y).
        loss, encoder, bias, t_end, engine: as in `evaluate`.
        dt: length of a time step in seconds, for the event engine; default: that of the framework
            that wrote the file.

    Source: Yik et al., Nature Communications 16:1545, 2025 (arXiv:2304.04640).
    """
    options = _evaluation_options(
        graph, as_data(data), loss=loss, encoder=encoder, bias=bias, t_end=t_end, engine=engine
    )
    counter = OperationCounter.of(graph, dt)
    options["engine"], notes = with_all_output_spikes(
        options["engine"], counter.network, options["loss"].population
    )
    measured = measure(graph, **options, counter=counter)
    assert measured.neurobench is not None
    warn_of(measured.notes)
    return replace(measured.neurobench, notes=(*measured.neurobench.notes, *notes))


def with_all_output_spikes(
    engine: Engine, network: Network, population: str
) -> tuple[Engine, tuple[str, ...]]:
    """Return an event engine in which the neurons of the output population continue after their first
    spike, and a note on other populations that stop; any other engine unchanged.
    """
    if not isinstance(engine, EventDriven) or engine.first_spike_only is False:
        return engine, ()
    stopping = tuple(
        name
        for name, part in network.populations.items()
        if part.fires and name != population and engine.stops(name)
    )
    engine = replace(engine, first_spike_only=stopping)
    if not stopping:
        return engine, ()
    note = Text(
        "neurons of {nodes} stop after their first spike (first_spike_only): operations of later "
        "spikes are not counted",
        nodes=listing(f"'{name}'" for name in stopping),
    )
    return engine, (note,)


def _evaluation_options(
    graph: Graph,
    data: Data,
    *,
    loss: Loss | str | None,
    encoder: Encoder | str | None,
    bias: bool,
    t_end: float | None,
    engine: Engine | str | None,
) -> dict[str, Any]:
    """Return the arguments of `measure`, with defaults in place of what is None."""
    for name, value in (("loss", loss), ("encoder", encoder), ("t_end", t_end)):
        if value is not None and (check := OPTIONS[name].check) is not None:
            check(OPTIONS[name], value)
    network = lower(graph)
    encode = cast(Any, encoder)
    if loss is None or isinstance(loss, str):
        loss_node = output_node(network, len(data.classes))
    else:
        loss_node = loss.population
    if engine is None:
        engine, _ = default_engine(network, data.x, encoder, loss_node=loss_node)
    in_steps = engine_kind(engine) == "grid"
    if loss is None:
        loss = default_loss(network, loss_node, in_steps=in_steps)
    events = hasattr(data.x, "time")
    signals = in_steps and are_signals(network, data.x)
    rasters = signals and encoder is None
    if isinstance(loss, str):
        chosen = make_loss(
            loss, network, t_end, population=loss_node, in_steps=in_steps, rasters=rasters
        )
    else:
        chosen = loss
    runner = make_engine(engine, network, chosen)
    refuse_second_encoder(encoder, data)
    if isinstance(encoder, str) or (encoder is None and not events and not signals):
        encode = named_encoder(data, chosen.tau, encoder, bias=bias)[0]
    if t_end is None and isinstance(loss, str) and not (signals and encode is None):
        end = default_end([data], chosen.tau, None if events else encode)
        chosen = replace(cast(Any, chosen), t_max=end)
    return {"data": data, "loss": chosen, "encoder": encode, "t_end": t_end, "engine": runner}


def measure(
    graph: Graph,
    data: Data,
    *,
    loss: Loss,
    encoder: Encoder | None,
    engine: Engine,
    t_end: float | None = None,
    advice: str | None = None,
    counter: OperationCounter | None = None,
) -> Measured:
    """Return the accuracy of a graph on samples, and its spike counts; arguments and errors as in
    `evaluate`.

    Args:
        advice: as in `with_enough_room`.
        counter: counter of the metrics of NeuroBench, for the network of the graph.
    """
    network = lower(graph)
    end: float = loss.t_max if t_end is None else t_end
    engine.check(network)
    runner = engine.prepared()
    encode = partial(
        encoded,
        network=network,
        population=loss.population,
        encoder=encoder,
        engine=runner,
        data_name="data",
    )
    samples = split_of(data, encode, None, sum(network.inputs.values()))
    first = first_pieces({"data": samples})
    times = getattr(next(iter(first.values())).inputs, "time", np.zeros(1))
    if np.isfinite(times).any() and not (np.asarray(times) < end).any():  # in milliseconds?
        raise UsageError(
            Text(
                "all events are at or after {option} s, the first at {time:g} s",
                option=T_END.equal_to(f"{end:g}"),
                time=np.min(times),
            ),
            fix=Text("pass times in seconds, or a later {t_end}", t_end=T_END),
        )
    indices = (
        np.arange(begin, min(begin + _BATCH, len(data))) for begin in range(0, len(data), _BATCH)
    )
    parts = (
        samples.take(jnp.asarray(index)) if isinstance(samples, Batch) else samples.take(index)
        for index in indices
    )
    measured = measure_batches(
        network,
        parts,
        len(data),
        loss=loss,
        engine=runner,
        t_end=end,
        advice=advice,
        counter=counter,
    )
    notes = (
        *late_sample_notes({"data": samples}, end),
        *other_step_notes(network, data.x),
        *time_notes(network, first, end),
        *_silent_notes(loss.population, measured.spikes),
    )
    return replace(measured, notes=notes)


def time_notes(network: Network, pieces: Mapping[str, Batch], t_end: float) -> Iterator[str]:
    """Yield notes on events, time constants and delays that do not match the duration of a sample, as
    if times were in milliseconds.

    Args:
        pieces: name of a split -> its first samples.
        t_end: duration of a sample, seconds.
    """
    yield from late_notes(pieces, t_end)
    if is_very_long(t_end, _shortest_tau(network)):
        yield Note(duration_text(network, t_end), kind="assumed", code="times-in-seconds")
    yield from brief_event_notes(network, pieces)
    yield from time_constant_notes(network, t_end)
    yield from long_delay_notes(network, t_end)


def duration_text(network: Network, t_end: float) -> Text:
    """Return the duration of a sample and its ratio to the shortest time constant."""
    return Text(
        "samples last {t_end}, {ratio:.0f} times the shortest time constant (times are in seconds)",
        t_end=format_time(t_end),
        ratio=t_end / _shortest_tau(network),
    )


def _shortest_tau(network: Network) -> float:
    """Return the shortest time constant, seconds; inf if there is none. NumPy compiles nothing."""
    return min((float(np.asarray(tau).min()) for tau in time_constants(network)), default=np.inf)


def _silent_notes(population: str, spikes: Mapping[str, float]) -> list[str]:
    """Return a note if the output neurons fire in no sample, so that nothing is classified."""
    if spikes.get(population) != 0:
        return []
    text = Text(
        "population '{population}' fires in no sample, so that none is classified",
        population=population,
    )
    return [Note(text, kind="approximated", code="silent-outputs")]


def measure_batches(
    network: Network,
    parts: Iterable[Batch],
    samples: int,
    *,
    loss: Loss,
    engine: Engine,
    t_end: float,
    advice: str | None = None,
    counter: OperationCounter | None = None,
) -> Measured:
    """Return the accuracy of a network on encoded samples, and its spike counts, without notes.

    Args:
        parts: batches of samples.
        samples: number of all samples.
        engine: engine that is `prepared`.
        t_end: end of a sample in seconds.
        advice, counter: as in `measure`.

    Raises:
        SimulationError: the simulation of the data failed.
    """
    correct, spikes = 0, dict[str, float]()
    for part in parts:

        def attempt(engine: Engine, inputs: Any = part.inputs) -> Solution:
            return run_batch(engine, network, inputs, t_end)

        with device_errors():
            engine, solution = with_enough_room(engine, attempt, advice=advice)
        if solution.problem is not None:
            raise SimulationError.of(problem_of_run(engine, network, solution))
        answers = np.asarray(refuse_no_classes(loss, loss.predict(solution), part.labels))
        correct += int(np.sum(answers == np.asarray(part.labels)))
        for name, count in solution.counts.items():
            spikes[name] = spikes.get(name, 0.0) + float(np.sum(count)) / samples
        if counter is not None:
            inputs = part.inputs
            is_raster = not hasattr(inputs, "time")
            counter.add(solution, jnp.moveaxis(inputs, 1, 0) if is_raster else inputs)
    accuracy = correct / samples
    metrics = None if counter is None else counter.metrics(accuracy)
    return Measured(accuracy=accuracy, spikes=spikes, neurobench=metrics)


def problem_of_run(engine: Engine, network: Network, solution: Solution) -> Problem:
    """Return the reason why a run has no result: the invalid parameter, if there is one."""
    problem = solution.problem
    assert problem is not None
    if int(solution.result) != Result.NOT_FINITE:
        return problem
    return bad_number(network, finite=engine.exact) or problem


_SAMPLES, _STEPS, _CLOSE = 128, 24, 0.01


@suggests_keywords
@usual_promotion
def calibrated(
    graph: Graph,
    data: Splits | Data | tuple[Any, Any],
    *,
    fraction: float = 0.8,
    encoder: Encoder | str | None = None,
    encoder_options: Mapping[str, Any] | None = None,
    t_end: float | None = None,
    engine: EventDriven | None = None,
    population: str | None = None,
) -> Graph:
    """Return the graph with the weights into each population scaled so that a fraction of its
    neurons fires.

    The populations are calibrated in order from the input, by bisection of one factor for all weights
    that feed each, on the first 128 training samples. The fraction is that of pairs of a neuron and a sample
    with at least one spike.

    Args:
        data: as in `fit`; values or events, not arrays in time steps.
        fraction: fraction of the neurons that fire, between 0 and 1.
        encoder, encoder_options, t_end: as in `fit`.
        engine: event engine, whose neurons that stop after their first spike do so here, too; its
            `max_spikes` grows as needed.
        population: output population, whose time constant is the unit of encoded times; default:
            the one that feeds the Output.

    Raises:
        UsageError: an invalid fraction or engine, or data that do not match the network.
        SimulationError: no factor lets this fraction of the neurons fire.
    """
    if not 0 < fraction < 1:
        raise UsageError(
            Text("fraction is {fraction:g}", fraction=fraction), fix="pass a number between 0 and 1"
        )
    if t_end is not None:
        refuse_no_time(t_end, T_END)
    data, _ = as_splits(data)
    network = lower(graph)
    engine = EventDriven(first_spike_only=()) if engine is None else engine
    if not isinstance(engine, EventDriven):
        raise UsageError(
            Text(
                "the engine is {engine}, and calibration requires the event engine",
                engine=repr(engine),
            ),
            fix="pass EventDriven(...), or leave the engine out",
        )
    engine.check(network)
    x = data.train.x
    is_array = encoder is None and data.encoder is None and not hasattr(x, "time")
    # Images to be encoded have other axes than (samples, time, *shape of the input).
    shapes = [shape_of_input(network, name) for name in network.inputs]
    if is_array and shapes == [np.shape(x)[2:]]:
        raise UsageError(
            Text(
                "{data} has arrays in time steps of shape {shape}, and calibration runs the event engine, "
                "which requires events",
                data=data.name,
                shape=np.shape(x),
            ),
            fix="pass events, such as Events.of_steps(x, dt) for spikes in time steps, or leave calibrate out",
        )
    narrow = replace(engine, max_spikes=1)  # start with room for one spike per neuron
    population = output_node(network) if population is None else population
    tau = reference_tau(network, population)
    if isinstance(encoder, str) or (encoder is None and not hasattr(data.train.x, "time")):
        encoder = make_encoder(data, tau, encoder, encoder_options)[0]
    end = t_end
    if end is None:
        end = default_end((data.train, data.validation, data.test), tau, encoder, data.span)
    first = select_samples(data.train, np.arange(min(_SAMPLES, len(data.train))))
    batch = encoded(
        first,
        network,
        population=population,
        encoder=encoder,
        engine=EventDriven(),
        data_name=f"{data.name}, train",
    )
    warn_of(time_notes(network, {"data": batch}, end))

    def firing(changed: Network, name: str) -> float:
        """Return the fraction of pairs of a neuron and a sample with at least one spike."""

        def attempt(engine: EventDriven) -> EventSolution:
            return run_batch(engine, changed, batch.inputs, end)

        _, solution = with_enough_room(narrow, attempt, advice=FIRE_LESS, grown=_power_of_two)
        return float(np.mean(np.asarray(solution.counts[name]) > 0))

    for name, nodes in feeding_weights(network):
        feeding = [node for node, _ in nodes]
        if network.populations[name].fires and feeding:
            network = _scaled_until(network, feeding, partial(firing, name=name), fraction, name)
    return update_graph(graph, network)


def _power_of_two(needed: int) -> int:
    """Return a power of two of at least twice the needed budget: few distinct budgets, each with a
    program of its own, serve all steps.
    """
    return 1 << (2 * needed - 1).bit_length()


def _scaled_until(
    network: Network,
    nodes: list[str],
    firing: Callable[[Network], float],
    fraction: float,
    name: str,
) -> Network:
    """Bisect the logarithm of a factor on weights until a fraction of the neurons fires: more
    weight makes more neurons fire, where weights are mostly positive.
    """
    low, high = -7.0, 7.0
    best = None
    for _ in range(_STEPS):
        middle = (low + high) / 2
        changed = _scaled(network, nodes, 2.0**middle)
        now = firing(changed)
        if best is None or abs(now - fraction) < abs(best[0] - fraction):
            best = (now, changed)
        if abs(now - fraction) < _CLOSE:
            break
        low, high = (middle, high) if now < fraction else (low, middle)
    assert best is not None
    if abs(best[0] - fraction) > 0.1:
        raise SimulationError(
            Text(
                "population '{population}': no factor of its input weights lets "
                "{expected:.0%} of its neurons fire; the nearest fraction is {actual:.0%}",
                population=name,
                expected=fraction,
                actual=best[0],
            ),
            fix="use other initial weights, most of them positive",
            node=name,
        )
    return best[1]


def _scaled(network: Network, nodes: list[str], factor: float) -> Network:
    parameters = dict(network.parameters)
    for node in nodes:
        parameters[node] = {**parameters[node], "weight": factor * parameters[node]["weight"]}
    return network.with_parameters(parameters)
