"""One pass over the data, compiled as a whole: a scan over shuffled minibatches, and the evaluation of a split."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

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
from jaxsnn.train.silence import Push

Parameters = dict[str, dict[str, jax.Array]]


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
class Trainer:
    """The compiled parts of a training run; everything in it is static.

    Attributes:
        loss: gives a number for each sample and a prediction.
        engine: options of the event engine.
        optimizer: works on steps in kicks (see `jaxsnn.train.scaling`).
        t_end: seconds, end of each sample.
        push: remedy for silent neurons.
        feeding: population -> nodes whose weights feed it, and signs, as tuples.
    """

    loss: FirstSpike
    engine: Event
    optimizer: optax.GradientTransformation
    t_end: float
    push: Push
    feeding: Any

    def simulate(self, network: Network, events: Events) -> Solution:
        """One batch; nothing is raised, the result is looked at later."""
        return simulate(network, events, self.t_end, engine=self.engine, throw=False)

    def epoch(self) -> Callable[..., Any]:
        """(network, trained, scales, state, data, order (batches, batch)) -> trained, state, Summary, compiled."""

        @jax.jit
        def run(network, trained, scales, state, data, order):
            def step(carry, index):
                trained, state = carry
                batch = data.take(index)
                trained, state, summary = self._step(network, trained, scales, state, batch)
                return (trained, state), summary

            (trained, state), summaries = lax.scan(step, (trained, state), order)
            return trained, state, joined(summaries)

        return run

    def _step(self, network, trained, scales, state, batch):
        """One step of the optimiser on one batch."""

        def objective(trained):
            solution = self.simulate(with_trained(network, trained), batch.events)
            return jnp.mean(self.loss(solution, batch.labels)), solution

        gradient, solution = jax.grad(objective, has_aux=True)(trained)
        gradient = jax.tree.map(jnp.multiply, gradient, scales)
        gradient = self._pushed(gradient, solution, batch.labels)
        updates, state = self.optimizer.update(gradient, state)
        updates = jax.tree.map(jnp.multiply, updates, scales)
        trained = jax.tree.map(jnp.add, trained, updates)
        return trained, state, summarise(solution, self.loss, batch.labels, jnp.ones_like(batch.labels, bool))

    def _pushed(self, gradient, solution, labels):
        """The gradient with silent neurons' input weights pushed up."""
        gradient = {node: dict(own) for node, own in gradient.items()}
        for population, push in self.push.wanted(solution, labels, self.loss.population).items():
            for node, sign in self.feeding[population]:
                if "weight" in gradient.get(node, {}):
                    gradient[node]["weight"] -= (push * sign)[:, None]
        return gradient

    def evaluation(self) -> Callable[..., Summary]:
        """(network, batch, used (batch,)) -> Summary, compiled; the same for every split."""

        @jax.jit
        def run(network, batch, used):
            return summarise(self.simulate(network, batch.events), self.loss, batch.labels, used)

        return run


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
