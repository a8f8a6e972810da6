"""Steps of an epoch in closed form: instead of a network, the loss is half the squared distance of a weight
from the label, so that the gradient of a batch is the distance from the mean of its labels.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxsnn import lower
from jaxsnn.nir import build
from jaxsnn.train import TrainOptions, WeightBumping
from jaxsnn.train.data.batches import Batch
from jaxsnn.train.loop.constraints import Free
from jaxsnn.train.loop.epoch import Pace, Setup, begin, key_of, run_epoch, run_evaluation
from jaxsnn.train.loop.optimisers import optimiser_of

WEIGHT, SCALE, RATE = np.array([[2.0], [-1.0]]), np.array([[0.5], [2.0]]), 0.75
NETWORK = lower(build.sequential(
    build.input(1), build.linear(weight=WEIGHT), build.cubalif(tau_mem=2e-2, tau_syn=1e-2)
))  # fmt: skip
RATES = np.array([0.1, 0.3, 0.2], np.float32)
#: Batches of two samples, with one label each, and the classes that the loss predicts.
LABELS = np.array([0, 1, 1, 1, 2, 0], np.int32)
CLASSES = np.array([0, -1, 0, 1, 2, 1], np.int32)
ORDER = np.array([[0, 1], [2, 3], [4, 5]], np.int32)


class Answer(NamedTuple):
    """What the loss reads."""

    weight: Any
    predicted: Any
    drawn: Any
    counts: Any
    spikes_recorded: Any
    result: Any
    budgets: Any

    @property
    def clipped_slopes(self):
        return {}


@dataclass(frozen=True)
class Engine:
    """An engine that returns the weight, and the prediction that the input contains."""

    exact: bool = True

    def run(self, network, inputs, t_end):
        samples = inputs.shape[1]
        return Answer(
            weight=network.parameters["1"]["weight"],
            predicted=inputs[0, :, 0].astype(jnp.int32),
            drawn=inputs[0, :, 1],
            counts={"2": jnp.zeros((samples, 2), jnp.int32)},
            spikes_recorded=jnp.int32(0),
            result=jnp.int32(0),
            budgets={},
        )


@dataclass(frozen=True)
class Distance:
    """Half the squared distance from the label, and the weight times what an augmentation draws."""

    population: str = "2"

    def __call__(self, reading, labels):
        distance = reading.weight[:, 0] - labels[:, None]
        return 0.5 * jnp.sum(distance**2, axis=1) + reading.weight[0, 0] * reading.drawn

    def predict(self, reading):
        return reading.predicted


def setup_of(optimiser: Any = "sgd", **options):
    complete = not isinstance(optimiser, str)
    return Setup(
        loss=Distance(),
        engine=Engine(),  # pyright: ignore[reportArgumentType]
        t_end=1.0,
        trained=(("1", (("weight", Free(rate=RATE)),)),),
        feeding=(),
        channels=(),
        optimiser=optimiser if complete else optimiser_of(optimiser),
        options=TrainOptions(**options).compiled_only(),
        complete=complete,
    )


def batch_of(classes=CLASSES, labels=LABELS):
    inputs = np.stack([classes, np.zeros(len(classes))], axis=1).astype(np.float32)
    return Batch(inputs=jnp.asarray(inputs[:, None]), labels=jnp.asarray(labels))


def trained(setup, *, factor=1.0, batches=3, weight=WEIGHT):
    scales = {"1": {"weight": jnp.asarray(SCALE, jnp.float32)}}
    state = begin(setup, {"1": {"weight": jnp.asarray(weight, jnp.float32)}}, scales)
    pace = Pace(rates=RATES[:batches], factor=np.float32(factor), key=key_of(7), first=np.int32(0))
    nothing = WeightBumping(label=0.0, hidden=0.0)
    arguments = setup, NETWORK, scales, nothing, state, batch_of(), ORDER[:batches], pace
    return run_epoch.optimised(*arguments)


@pytest.mark.parametrize("factor", [1.0, 0.25])
@pytest.mark.parametrize("clip", [None, 0.4])
@pytest.mark.parametrize("complete", [False, True])
def test_the_steps_of_an_epoch_are_those_of_gradient_descent(complete, clip, factor):
    """w <- w - factor rate scale (learning rate) g, for the gradient g of the mean in units of scale."""
    optimiser = optax.sgd(0.05) if complete else "sgd"
    state, summary = trained(setup_of(optimiser, ema_decay=0.9, clip=clip), factor=factor)
    w = average = WEIGHT
    norms, total = [], 0.0
    for rate, index in zip(RATES, ORDER, strict=True):
        labels = LABELS[index]
        total += 0.5 * np.sum((w - labels) ** 2)
        gradient = (w - labels.mean()) * SCALE
        norms.append(np.linalg.norm(gradient))
        if clip is not None and norms[-1] > clip:
            gradient = gradient * clip / norms[-1]
        step = 0.05 * gradient if complete else rate * gradient
        w = w - factor * RATE * SCALE * step
        average = 0.9 * average + 0.1 * w
    np.testing.assert_allclose(state.raw["1"]["weight"], w, rtol=1e-5)
    assert state.average is not None
    np.testing.assert_allclose(state.average["1"]["weight"], average, rtol=1e-5)
    np.testing.assert_allclose(summary.gradient, max(norms), rtol=1e-5)
    np.testing.assert_allclose(summary.loss, total, rtol=1e-5)
    counts = int(summary.correct), int(summary.undecided), int(summary.samples)
    assert counts == (int(np.sum(CLASSES == LABELS)), 1, 6)


def test_samples_that_fill_a_batch_do_not_count():
    used = np.arange(6) < 4
    raw = {"1": {"weight": jnp.asarray(WEIGHT, jnp.float32)}}
    summary = run_evaluation.optimised(setup_of(), NETWORK, raw, batch_of(), jnp.asarray(used))
    counts = [int(number) for number in (summary.correct, summary.undecided, summary.samples)]
    assert counts == [int(np.sum((CLASSES == LABELS)[used])), 1, 4]
    expected = 0.5 * np.sum((WEIGHT - LABELS[used]) ** 2)
    np.testing.assert_allclose(summary.loss, expected, rtol=1e-5)


def draw(key, sample):
    """Replace the second channel by a random number."""
    return sample.at[:, 1].set(jax.random.uniform(key, (len(sample),)))


def test_each_sample_of_each_batch_is_augmented_with_numbers_of_its_own():
    losses = [float(trained(setup_of(augment=draw), batches=n)[1].loss) for n in (1, 2)]
    plain = [float(trained(setup_of(), batches=n)[1].loss) for n in (1, 2)]
    first = (losses[0] - plain[0]) / WEIGHT[0, 0]  # the sum of two numbers from 0 to 1
    assert 0 < first < 2
    moved, _ = trained(setup_of(augment=draw), batches=2)
    still, _ = trained(setup_of(), batches=2)
    # The mean of the numbers of a batch is the gradient of the first weight.
    steps = RATE * SCALE[0, 0] ** 2 * RATES[:2]
    difference = float(still.raw["1"]["weight"][0, 0] - moved.raw["1"]["weight"][0, 0])
    second = (difference - steps[0] * (1 - steps[1]) * first / 2) / steps[1]
    assert 0 < second < 1
    assert abs(second - first / 2) > 1e-3
