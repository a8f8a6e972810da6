"""One pass over the data, compiled as a whole: a scan over shuffled minibatches; and the evaluation of a batch."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from jaxsnn.event.engine import Event
from jaxsnn.event.events import Events
from jaxsnn.network import Network
from jaxsnn.simulate import Result, Solution, simulate
from jaxsnn.train.losses import FirstSpike
from jaxsnn.train.silence import Feeding, Push, pushed

Parameters = dict[str, dict[str, jax.Array]]

_ADAM = optax.scale_by_adam()


class Batch(NamedTuple):
    """Samples in the form that is scanned: events (samples, events) and labels (samples,)."""

    events: Events
    labels: jax.Array

    def take(self, index: jax.Array) -> Batch:
        """The samples of an index array."""
        return jax.tree.map(lambda array: array[index], self)


class Summary(NamedTuple):
    """What a pass over samples saw; sums, divided by `samples` outside.

    Attributes:
        loss, correct: sums over samples.
        undecided: samples in which no neuron of the population that is read fired.
        silent: population -> sum over samples of the fraction of its neurons that did not fire.
        spikes: population -> sum over samples of spikes per neuron.
        needed: population -> largest number of spikes of a neuron.
        clipped: recorded spikes so close to tangency that their gradient was clipped.
        recorded: spikes of all neurons, as far as they were recorded.
        result: the worst `jaxsnn.simulate.Result`.
        samples: how many.
    """

    loss: jax.Array
    correct: jax.Array
    undecided: jax.Array
    silent: dict[str, jax.Array]
    spikes: dict[str, jax.Array]
    needed: dict[str, jax.Array]
    clipped: jax.Array
    recorded: jax.Array
    result: jax.Array
    samples: jax.Array


def summarise(solution: Solution, loss: FirstSpike, labels: jax.Array, used: jax.Array) -> Summary:
    """Summary of one batch; `used` (batch,) is False for samples that only fill it up."""
    values, predictions = loss(solution, labels), loss.predict(solution)

    def total(per_sample):
        return jnp.sum(jnp.where(used, per_sample, 0))

    counts = {name: spikes.count for name, spikes in solution.spikes.items()}
    return Summary(
        loss=total(values),
        correct=total(predictions == labels),
        undecided=total(predictions < 0),
        silent={name: total(jnp.mean(count == 0, axis=1)) for name, count in counts.items()},
        spikes={name: total(jnp.mean(count, axis=1)) for name, count in counts.items()},
        needed=solution.spikes_needed,
        clipped=sum(solution.clipped_slopes.values(), jnp.zeros(())),
        recorded=sum((jnp.sum(jnp.isfinite(own.time)) for own in solution.spikes.values()), jnp.zeros(())),
        result=jnp.where(jnp.all(jnp.isfinite(values)), solution.result, jnp.int32(Result.NOT_FINITE)),
        samples=jnp.sum(used),
    )


def joined(summaries: Summary) -> Summary:
    """One summary of many, stacked along the first axis."""
    total = jax.tree.map(lambda array: jnp.sum(array, axis=0), summaries)
    return total._replace(
        needed=jax.tree.map(jnp.max, summaries.needed),
        # the codes rise with how much is lost: NOT_FINITE is the highest
        result=jnp.max(summaries.result),
    )


@dataclass(frozen=True, kw_only=True)
class Setup:
    """What a pass over samples is compiled for: static, and equal where runs can share the compiled code.

    Attributes:
        loss: gives a number for each sample and a prediction.
        engine: options of the event engine.
        t_end: seconds, end of each sample.
        feeding: population -> nodes whose weights feed it, with signs (see `jaxsnn.train.silence`).
    """

    loss: FirstSpike
    engine: Event
    t_end: float
    feeding: Feeding

    def simulate(self, network: Network, events: Events) -> Solution:
        """One batch; nothing is raised, the result is looked at later."""
        return simulate(network, events, self.t_end, engine=self.engine, throw=False)


class State(NamedTuple):
    """What training changes: the parameters, and Adam's averages."""

    trained: Parameters
    adam: optax.OptState


def begin(trained: Parameters) -> State:
    """The state before the first step."""
    return State(trained=trained, adam=_ADAM.init(trained))


@partial(jax.jit, static_argnums=0)
def run_epoch(
    setup: Setup,
    network: Network,
    scales: Parameters,
    push: Push,
    state: State,
    data: Batch,
    order: jax.Array,
    rates: jax.Array,
) -> tuple[State, Summary]:
    """One step of the optimiser for each minibatch.

    Args:
        scales: what a step of 1 is in the file's numbers (see `jaxsnn.train.scaling`).
        push: remedy for silent neurons.
        order: (batches, batch) numbers of samples.
        rates: (batches,) learning rates.
    """

    def step(state, inputs):
        index, rate = inputs
        return _step(setup, network, scales, push, state, data.take(index), rate)

    state, summaries = lax.scan(step, state, (order, rates))
    return state, joined(summaries)


def _step(setup, network, scales, push, state, batch, rate):
    def objective(trained):
        solution = setup.simulate(with_trained(network, trained), batch.events)
        return jnp.mean(setup.loss(solution, batch.labels)), solution

    gradient, solution = jax.grad(objective, has_aux=True)(state.trained)
    gradient = jax.tree.map(jnp.multiply, gradient, scales)
    wanted = push.wanted(solution, batch.labels, setup.loss.population)
    descent, adam = _ADAM.update(gradient, state.adam)
    directions = pushed(cast(Parameters, descent), wanted, setup.feeding)
    trained = jax.tree.map(lambda value, way, scale: value - rate * way * scale, state.trained, directions, scales)
    summary = summarise(solution, setup.loss, batch.labels, jnp.ones_like(batch.labels, bool))
    return State(trained=trained, adam=adam), summary


@partial(jax.jit, static_argnums=0)
def run_evaluation(setup: Setup, network: Network, batch: Batch, used: jax.Array) -> Summary:
    """One batch without training; `used` (batch,) is False for samples that only fill it up."""
    return summarise(setup.simulate(network, batch.events), setup.loss, batch.labels, used)


def with_trained(network: Network, trained: Parameters) -> Network:
    """The network with its trained parameters replaced."""
    return network.with_parameters({node: {**own, **trained.get(node, {})} for node, own in network.parameters.items()})


def shuffled_batches(samples: int, batch_size: int, seed: Any) -> np.ndarray:
    """A shuffled order of samples, (batches, batch_size); those that fill no batch are left out this time."""
    order = np.random.default_rng(seed).permutation(samples).astype(np.int32)
    batches = samples // batch_size
    return order[: batches * batch_size].reshape(batches, batch_size)


def ordered_batches(samples: int, batch_size: int) -> tuple[np.ndarray, np.ndarray]:
    """All samples in order, (batches, batch_size), the last batch filled up with sample 0; and which are no filling."""
    batches = -(-samples // batch_size)
    order = np.arange(batches * batch_size, dtype=np.int32).reshape(batches, batch_size)
    used = order < samples
    return np.where(used, order, 0), used


def cosine_rates(learning_rate: float, epochs: int, batches: int) -> np.ndarray:
    """Learning rates (epochs, batches) that fall from `learning_rate` to 0 along a cosine."""
    phase = np.arange(epochs * batches) / (epochs * batches)
    return (0.5 * learning_rate * (1 + np.cos(np.pi * phase))).reshape(epochs, batches)
