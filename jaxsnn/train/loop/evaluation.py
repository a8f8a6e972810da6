"""How well a graph answers on labelled data, without training."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np

from jaxsnn.errors import Problem, SimulationError, UsageError, warn_of
from jaxsnn.grid.time_stepped import TimeStepped
from jaxsnn.grid.timing import step_length
from jaxsnn.network.bad_numbers import bad_number
from jaxsnn.network.inputs import other_step_notes
from jaxsnn.network.lowering.lower import lower
from jaxsnn.network.network import Network
from jaxsnn.network.promotion import usual_promotion
from jaxsnn.network.results import Result
from jaxsnn.nir.model.graph import Graph
from jaxsnn.options import DT, T_END
from jaxsnn.simulation.retry import with_enough_room
from jaxsnn.simulation.solution import Engine, Solution
from jaxsnn.train.data.batches import Batch, encoded, late_notes
from jaxsnn.train.data.datasets import Data
from jaxsnn.train.data.encoders import Encoder
from jaxsnn.train.data.named_encoders import named_encoder
from jaxsnn.train.data.splitting import as_data
from jaxsnn.train.loop.batch_engines import run_batch
from jaxsnn.train.loop.defaults import (
    default_end,
    default_loss,
    make_engine,
    make_loss,
    read_population,
)
from jaxsnn.train.loop.epoch import refuse_no_classes
from jaxsnn.train.loop.in_the_loop import device_errors
from jaxsnn.train.losses.losses import Loss
from jaxsnn.train.options import OPTIONS, engine_kind
from jaxsnn.wording import Text

_BATCH = 500


@dataclass(frozen=True, kw_only=True)
class Measured:
    """How a graph answers.

    Attributes:
        accuracy: fraction of the samples that it answers with their label.
        spikes: population -> spikes of all its neurons in a sample, the mean.
        notes: what was left out of the data, a sentence each.
    """

    accuracy: float
    spikes: dict[str, float]
    notes: tuple[str, ...] = ()

    @property
    def spikes_per_sample(self) -> float:
        """Of all populations."""
        return sum(self.spikes.values())


@dataclass(frozen=True, kw_only=True)
class StepAccuracy:
    """How trained weights answer in the time steps of their framework.

    Attributes:
        accuracy: fraction of the samples that are answered with their label, read by the loss.
        by_count: of a first-spike loss, the same with the neuron that fires most often as the answer;
            else None.
    """

    accuracy: float
    by_count: float | None = None


#: Numbers of all nodes and steps that are in memory at once in an evaluation in time steps.
_NUMBERS = 2**25
_STEP_BATCH = 256


def accuracy_in_steps(
    graph: Graph,
    parts: Callable[[int], Iterable[tuple[Batch, np.ndarray]]],
    samples: int,
    *,
    loss: Loss,
    t_end: float,
) -> StepAccuracy:
    """Evaluate samples in the time steps of the framework that wrote a graph.

    Args:
        parts: makes batches of a size, with which of their samples are no filling.
        samples: how many there are.
        t_end: seconds, end of a sample.

    Raises:
        JaxsnnError: the time-stepped engine cannot run the graph, or the run has no result.
    """
    network = lower(graph)
    engine = TimeStepped()
    step = step_length(network, None)
    if step is None:
        raise UsageError("the length of a step is unknown", fix=Text("say {dt}", dt=DT.keyword))
    engine.check(network)
    numbers = max(round(t_end / step), 1) * sum(wire.size for wire in network.wires)
    size = max(min(_NUMBERS // numbers, _STEP_BATCH, samples), 1)
    correct = most_often = 0
    for batch, used in parts(size):
        inputs = jax.tree.map(jnp.asarray, batch.inputs)
        answers, counts, result = _answers_in_steps(engine, loss, t_end, network, inputs)
        if int(result) != Result.SUCCESS:
            solution = run_batch(engine.prepared(), network, inputs, t_end)
            raise SimulationError.of(_problem(engine, network, solution))
        labels = np.asarray(batch.labels)
        correct += int(np.sum((np.asarray(answers) == labels) & used))
        if counts is not None:
            numbers = np.asarray(counts)
            active = np.where(numbers.max(axis=1) > 0, numbers.argmax(axis=1), -1)
            most_often += int(np.sum((active == labels) & used))
    by_count = most_often / samples if loss.reads == "first spikes" else None
    return StepAccuracy(accuracy=correct / samples, by_count=by_count)


@partial(jax.jit, static_argnums=(0, 1, 2))
def _answers_in_steps(
    engine: TimeStepped, loss: Loss, t_end: float, network: Network, inputs: Any
) -> tuple[Any, Any, Any]:
    """What a loss reads of a batch, (batch,); of first-spike losses the spike counts, (batch, neurons);
    and the result. Compiled as one program.
    """
    solution = run_batch(engine.prepared(), network, inputs, t_end)
    counts = solution.count(loss.population) if loss.reads == "first spikes" else None
    return loss.predict(solution), counts, solution.result


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
    """Fraction of samples that a graph answers with their label, every neuron with its full
    dynamics.

    Args:
        data: samples and labels, or (x, y).
        loss: says how an answer is read; by default as in `fit`.
        encoder: as in `jaxsnn.train.fitting`; the default has a bias channel with `bias`.
        t_end, engine: as in `jaxsnn.train.fitting`; the budget of the event engine grows as needed.
            Events that an explicit end leaves out are counted in an `ApproximationWarning`.

    Raises:
        UsageError: data that do not fit the network.
        SimulationError: the data cannot be simulated.
    """
    for name, value in (("loss", loss), ("encoder", encoder), ("t_end", t_end)):
        if value is not None and (check := OPTIONS[name].check) is not None:
            check(OPTIONS[name], value)
    network = lower(graph)
    data, encode = as_data(data), cast(Any, encoder)
    if loss is None:
        in_steps = engine_kind(engine) == "grid"
        loss = default_loss(network, read_population(network), in_steps=in_steps)
    chosen = make_loss(loss, network, t_end) if isinstance(loss, str) else loss
    runner = make_engine(engine, network, chosen)
    events = hasattr(data.x, "time")
    if isinstance(encoder, str) and events:
        raise UsageError(
            Text(
                "{option} is {encoder!r}, and the data are events or currents already",
                option=OPTIONS["encoder"],
                encoder=encoder,
            ),
            fix="leave it out",
        )
    signals = runner.takes_rasters and np.ndim(data.x) > 2
    if isinstance(encoder, str) or (encoder is None and not events and not signals):
        encode = named_encoder(data, chosen.tau, encoder, bias=bias)[0]
    if t_end is None and isinstance(loss, str) and not (signals and encode is None):
        end = default_end([data], chosen.tau, None if events else encode)
        chosen = replace(cast(Any, chosen), t_max=end)
    measured = measure(graph, data, loss=chosen, encoder=encode, t_end=t_end, engine=runner)
    warn_of(measured.notes)
    return measured.accuracy


def measure(
    graph: Graph,
    data: Data,
    *,
    loss: Loss,
    encoder: Encoder | None,
    engine: Engine,
    t_end: float | None = None,
    advice: str | None = None,
) -> Measured:
    """How a graph answers samples, and how many spikes that takes; arguments and errors as of
    `evaluate`.

    Args:
        advice: as of `with_enough_room`.
    """
    network = lower(graph)
    end: float = loss.t_max if t_end is None else t_end
    engine.check(network)
    runner = engine.prepared()
    batch = encoded(
        data, network, population=loss.population, encoder=encoder, engine=runner, what="data"
    )
    _refuse_all_late(batch, end)
    correct, spikes = 0, dict[str, float]()
    for begin in range(0, len(data), _BATCH):
        part = batch.take(jnp.arange(begin, min(begin + _BATCH, len(data))))

        def attempt(engine: Engine, inputs: Any = part.inputs) -> Solution:
            return run_batch(engine, network, inputs, end)

        with device_errors():
            runner, solution = with_enough_room(runner, attempt, advice=advice)
        if solution.problem is not None:
            raise SimulationError.of(_problem(runner, network, solution))
        answers = np.asarray(refuse_no_classes(loss, loss.predict(solution), part.labels))
        correct += int(np.sum(answers == np.asarray(part.labels)))
        for name, count in solution.counts.items():
            spikes[name] = spikes.get(name, 0.0) + float(np.sum(count)) / len(data)
    notes = (*late_notes({"data": batch}, end), *other_step_notes(network, data.x))
    return Measured(accuracy=correct / len(data), spikes=spikes, notes=notes)


def _refuse_all_late(batch: Batch, t_end: float) -> None:
    """Refuse events that all come after the end, as where times are in milliseconds."""
    times = getattr(batch.inputs, "time", np.zeros(1))
    if np.isfinite(times).any() and not (np.asarray(times) < t_end).any():
        raise UsageError(
            Text(
                "all events come at or after {option} s, the first at {times:g} s",
                option=T_END.equal_to(f"{t_end:g}"),
                times=np.min(times),
            ),
            fix=Text("give times in seconds, or a later {t_end}", t_end=T_END),
        )


def _problem(engine: Engine, network: Network, solution: Solution) -> Problem:
    """Why a run has no result: the parameter that spoilt it, where there is one."""
    problem = solution.problem
    assert problem is not None
    if int(solution.result) != Result.NOT_FINITE:
        return problem
    return bad_number(network, finite=engine.exact) or problem
