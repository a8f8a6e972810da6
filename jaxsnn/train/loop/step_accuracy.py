"""Accuracy of a trained graph in the time steps of the framework that wrote it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxsnn.errors import JaxsnnError, Note, SimulationError, UsageError, first_line
from jaxsnn.grid.time_stepped import TimeStepped
from jaxsnn.grid.timing import step_length
from jaxsnn.network.lowering.lower import lower
from jaxsnn.network.network import Network
from jaxsnn.network.results import Result
from jaxsnn.nir.model.graph import Graph
from jaxsnn.options import DT, ENGINE
from jaxsnn.train.data.batches import Batch
from jaxsnn.train.loop.epoch import run_batch
from jaxsnn.train.loop.evaluation import problem_of_run
from jaxsnn.train.losses.losses import Loss
from jaxsnn.wording import Text

#: Maximum number of values of all nodes and steps in memory at once in an evaluation in time steps.
_NUMBERS = 2**25
_STEP_BATCH = 256
#: Minimum difference of accuracies that a note reports, with a tolerance for rounding.
_ONE_POINT = 0.01 * (1 + 1e-9)


def compare_in_steps(
    trained: Graph,
    parts: Callable[[int], Iterable[tuple[Batch, np.ndarray]]],
    samples: int,
    *,
    loss: Loss,
    t_end: float,
    test_accuracy: float,
) -> tuple[float | None, list[str]]:
    """Evaluate test samples in the time steps of the framework that wrote a graph, and compare.

    Args:
        trained: graph with the weights of the best epoch.
        parts, samples, t_end: as in `accuracy_in_steps`.
        test_accuracy: accuracy of the engine that trained.

    Returns:
        The accuracy in these steps, None where the time-stepped engine fails; and notes on
        accuracies that differ.
    """
    framework = trained.dialect.name
    try:
        accuracy_of_loss, accuracy_of_counts = accuracy_in_steps(
            trained, parts, samples, loss=loss, t_end=t_end
        )
    except (JaxsnnError, jax.errors.JaxRuntimeError, MemoryError) as error:
        text = Text(
            "the accuracy in the time steps of {framework} could not be computed: {reason}",
            framework=framework,
            reason=first_line(error),
        )
        return None, [Note(text, kind="approximated", code="accuracy-in-steps")]
    notes: list[str] = []
    readings = {"": accuracy_of_loss, ", classified by spike counts": accuracy_of_counts}
    for reading, accuracy in readings.items():
        if accuracy is not None and abs(accuracy - test_accuracy) > _ONE_POINT:
            text = Text(
                "the test accuracy in the time steps of {framework} is {accuracy:.1%}{reading}; on the "
                "engine of training it is {test_accuracy:.1%}. To use the network in {framework}, train "
                "with {engine}, or with a loss that reads the same quantity",
                framework=framework,
                accuracy=accuracy,
                reading=Text(reading),
                test_accuracy=test_accuracy,
                engine=ENGINE.set_to("grid"),
            )
            notes.append(Note(text, kind="approximated", code="accuracy-in-steps"))
    return accuracy_of_loss, notes


def accuracy_in_steps(
    graph: Graph,
    parts: Callable[[int], Iterable[tuple[Batch, np.ndarray]]],
    samples: int,
    *,
    loss: Loss,
    t_end: float,
) -> tuple[float, float | None]:
    """Evaluate samples in the time steps of the framework that wrote a graph.

    Returns:
        The accuracy by the prediction of the loss; and for a first-spike loss also the accuracy with the
        neuron that fires most often as the prediction, else None.

    Args:
        parts: function that returns batches of a size, with the masks of samples that are not padding.
        samples: number of samples.
        t_end: end of a sample in seconds.

    Raises:
        JaxsnnError: the time-stepped engine cannot run the graph, or the run has no result.
    """
    network = lower(graph)
    engine = TimeStepped()
    step = step_length(network, None)
    if step is None:
        raise UsageError("the time step is not specified", fix=Text("pass {dt}", dt=DT.keyword))
    engine.check(network)
    numbers = max(round(t_end / step), 1) * sum(wire.size for wire in network.wires)
    size = max(min(_NUMBERS // numbers, _STEP_BATCH, samples), 1)
    correct = most_often = 0
    for batch, used in parts(size):
        inputs = jax.tree.map(jnp.asarray, batch.inputs)
        answers, counts, result = _answers_in_steps(engine, loss, t_end, network, inputs)
        if int(result) != Result.SUCCESS:
            solution = run_batch(engine.prepared(), network, inputs, t_end)
            raise SimulationError.of(problem_of_run(engine, network, solution))
        labels = np.asarray(batch.labels)
        correct += int(np.sum((np.asarray(answers) == labels) & used))
        if counts is not None:
            numbers = np.asarray(counts)
            active = np.where(numbers.max(axis=1) > 0, numbers.argmax(axis=1), -1)
            most_often += int(np.sum((active == labels) & used))
    by_count = most_often / samples if loss.reads == "first spikes" else None
    return correct / samples, by_count


@partial(jax.jit, static_argnums=(0, 1, 2))
def _answers_in_steps(
    engine: TimeStepped, loss: Loss, t_end: float, network: Network, inputs: Any
) -> tuple[Any, Any, Any]:
    """Return the predictions of a batch, (batch,); for first-spike losses also the spike counts,
    (batch, neurons), else None; and the result code. Compiled as one program.
    """
    solution = run_batch(engine.prepared(), network, inputs, t_end)
    counts = solution.count(loss.population) if loss.reads == "first spikes" else None
    return loss.predict(solution), counts, solution.result
