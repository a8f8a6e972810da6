"""How well a graph answers on labelled data, without training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import jax.numpy as jnp
import numpy as np

from jaxsnn.errors import Problem, SimulationError, UsageError
from jaxsnn.network.bad_numbers import bad_number
from jaxsnn.network.lowering.lower import lower
from jaxsnn.network.network import Network
from jaxsnn.network.promotion import usual_promotion
from jaxsnn.network.results import Result
from jaxsnn.nir.model.graph import Graph
from jaxsnn.simulation.retry import with_enough_room
from jaxsnn.simulation.solution import Engine, Solution
from jaxsnn.train.data.batches import Batch, encoded
from jaxsnn.train.data.datasets import Data
from jaxsnn.train.data.encoders import Encoder
from jaxsnn.train.data.named_encoders import named_encoder
from jaxsnn.train.data.splitting import as_data
from jaxsnn.train.loop.batch_engines import run_batch
from jaxsnn.train.loop.defaults import make_engine, make_loss
from jaxsnn.train.loop.epoch import refuse_no_classes
from jaxsnn.train.loop.in_the_loop import device_errors
from jaxsnn.train.losses.losses import Loss
from jaxsnn.train.options import OPTIONS

_BATCH = 500


@dataclass(frozen=True, kw_only=True)
class Measured:
    """How a graph answers.

    Attributes:
        accuracy: fraction of the samples that it answers with their label.
        spikes: population -> spikes of all its neurons in a sample, the mean.
    """

    accuracy: float
    spikes: dict[str, float]

    @property
    def spikes_per_sample(self) -> float:
        """Of all populations."""
        return sum(self.spikes.values())


@usual_promotion
def evaluate(
    graph: Graph,
    data: Data | tuple[Any, Any],
    *,
    loss: Loss | str = "ttfs",
    encoder: Encoder | str | None = None,
    bias: bool = False,
    t_end: float | None = None,
    engine: Engine | str | None = None,
) -> float:
    """Fraction of samples that a graph answers with their label, every neuron with its full
    dynamics.

    Args:
        data: samples and labels, or (x, y).
        loss: says how an answer is read.
        encoder: as in `jaxsnn.train.fitting`; the default has a bias channel with `bias`.
        t_end, engine: as in `jaxsnn.train.fitting`; the budget of the event engine grows as needed.

    Raises:
        UsageError: data that do not fit the network.
        SimulationError: the data cannot be simulated.
    """
    for name, value in (("loss", loss), ("encoder", encoder), ("t_end", t_end)):
        if value is not None and (check := OPTIONS[name].check) is not None:
            check(name, value)
    network = lower(graph)
    chosen = make_loss(loss, network, t_end) if isinstance(loss, str) else loss
    runner, encode = make_engine(engine, network, chosen), cast(Any, encoder)
    data = as_data(data)
    events = hasattr(data.x, "time")
    if isinstance(encoder, str) and events:
        raise UsageError(
            f"encoder is {encoder!r}, and the data are events or currents already",
            fix="leave it out",
        )
    signals = runner.takes_rasters and np.ndim(data.x) > 2
    if isinstance(encoder, str) or (encoder is None and not events and not signals):
        encode = named_encoder(data, chosen.tau, encoder, bias=bias)[0]
    return measure(graph, data, loss=chosen, encoder=encode, t_end=t_end, engine=runner).accuracy


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
    return Measured(accuracy=correct / len(data), spikes=spikes)


def _refuse_all_late(batch: Batch, t_end: float) -> None:
    """Refuse events that all come after the end, as where times are in milliseconds."""
    times = getattr(batch.inputs, "time", np.zeros(1))
    if np.isfinite(times).any() and not (np.asarray(times) < t_end).any():
        raise UsageError(
            f"all events come at or after t_end = {t_end:g} s, the first at {np.min(times):g} s",
            fix="give times in seconds, or a later t_end",
        )


def _problem(engine: Engine, network: Network, solution: Solution) -> Problem:
    """Why a run has no result: the parameter that spoilt it, where there is one."""
    problem = solution.problem
    assert problem is not None
    if int(solution.result) != Result.NOT_FINITE:
        return problem
    return bad_number(network, finite=engine.exact) or problem
