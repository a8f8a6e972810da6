"""Passes over the data of a training run: epochs of training steps, and evaluations of a split."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, ParamSpec, TypeVar

import jax
import numpy as np

from jaxsnn.network.network import Network
from jaxsnn.simulation.retry import FIRE_LESS, with_enough_room
from jaxsnn.simulation.solution import Engine
from jaxsnn.train.data.batches import (
    Batch,
    Streamed,
    evaluation_parts,
    ordered_batches,
    pieces,
    shuffled_batches,
)
from jaxsnn.train.loop.constraints import Parameters
from jaxsnn.train.loop.epoch import (
    Pace,
    Setup,
    Summary,
    TrainingProgram,
    TrainState,
    key_of,
    merged,
    run_epoch,
    run_evaluation,
)
from jaxsnn.train.loop.parallel import on_first, on_host
from jaxsnn.train.losses.regularizers import WeightBumping

Arguments = ParamSpec("Arguments")
Returned = TypeVar("Returned")

_EVALUATION_BATCH = 256
_LARGEST_BUDGET = 1024
#: Number of input channels and neurons, times samples and epochs, below which a run is short: quick
#: compilation then saves more time than it costs.
_SHORT = 2**27


class Passes:
    """Passes over the splits of one run.

    A pass in which neurons fire more often than the engine has room for is repeated with a larger
    budget, which later passes keep: training makes neurons fire more often.

    Args:
        splits: samples by the name of the split, on the devices.
        scales: step size of each trained number.
        batch_size: samples of a training step.
        epochs: number of epochs of the run.
        say: function of a line of progress.

    Attributes:
        setup: static settings of the programs, with the largest budget needed so far.
    """

    def __init__(
        self,
        setup: Setup,
        network: Network,
        splits: Mapping[str, Batch | Streamed],
        scales: Any,
        *,
        batch_size: int,
        epochs: int,
        say: Callable[[str], None],
    ):
        self.setup, self.network, self.splits, self.scales = setup, network, splits, scales
        self.batch_size, self.say = batch_size, say
        self.channels = sum(network.inputs.values())
        in_memory = [batch for batch in splits.values() if isinstance(batch, Batch)]
        self.slots = max((batch.slots for batch in in_memory), default=0)
        self.short = self.is_short(epochs)
        self.quick: dict[Any, bool] = {}

    def is_short(self, epochs: int) -> bool:
        """Return whether a run with a number of epochs is too short to optimise its programs."""
        sizes = [population.size for population in self.network.populations.values()]
        samples = len(self.splits["train"].labels)
        short = epochs * samples * (self.channels + sum(sizes)) < _SHORT
        return short and self.setup.mesh is None and jax.default_backend() == "cpu"

    def train(
        self,
        state: TrainState,
        rates: np.ndarray,
        factor: float,
        seed: Sequence[int],
        weight_bumping: WeightBumping,
    ) -> tuple[TrainState, Summary]:
        """Run the training steps of an epoch.

        Args:
            rates: learning rate of each step, (batches,).
            factor: factor of all step sizes.
            seed: the seed of the run and the number of the epoch.
        """
        train = self.splits["train"]
        order = shuffled_batches(len(train.labels), self.batch_size, list(seed))
        pace = Pace(
            rates=np.asarray(rates, self.network.dtype),
            factor=np.asarray(factor, self.network.dtype),
            key=key_of(tuple(seed)),
            first=np.int32(0),
        )

        def attempt(setup: Setup) -> tuple[TrainState, Summary]:
            trained, summaries = state, []
            fixed = setup, self.network, self.scales, weight_bumping
            for samples, places, first in pieces(train, order):
                piece_pace = pace._replace(
                    rates=pace.rates[first : first + len(places)], first=np.int32(first)
                )
                arguments = *fixed, trained, samples, places, piece_pace
                trained, summary = self._compiled(run_epoch, *arguments)(*arguments)
                summaries.append(on_host(summary, setup.mesh))
            return trained, merged(summaries)

        return self._with_enough_room(attempt, f"epoch {seed[-1]}")

    def evaluate(self, data: Batch | Streamed, best: Parameters, *, loud: bool = False) -> Summary:
        """Evaluate a split with some raw parameters, without training.

        Args:
            loud: whether to apply the parameter noise of training, if there is any. Each batch, of the
                size of a training batch, has a separate noise sample, which is the same in each epoch.
        """
        in_memory = data if isinstance(data, Batch) else None
        placed = self.network, best, in_memory
        (network, raw, samples), mesh = on_first(placed, self.setup.mesh)
        loud = loud and self.setup.options.noise is not None
        size = min(self.batch_size, _EVALUATION_BATCH) if loud else _EVALUATION_BATCH
        size = size if mesh is None else -(-size // mesh.size) * mesh.size
        split = data if samples is None else samples

        def attempt(setup: Setup) -> tuple[None, Summary]:
            here = replace(setup, mesh=mesh)
            # Wait for each launch, even on one device: the next epoch uses all devices.
            summaries = []
            for number, part in enumerate(self._parts(split, size)):
                key = jax.random.key(number) if loud else None
                arguments = here, network, raw, *part, key
                summary = self._compiled(run_evaluation, *arguments)(*arguments)
                summaries.append(on_host(summary, setup.mesh))
            return None, merged(summaries)

        return self._with_enough_room(attempt, "the evaluation")[1]

    def parts_on_first(
        self, split: Batch | Streamed, size: int
    ) -> Iterator[tuple[Batch, np.ndarray]]:
        """Return batches of a size, on the first device, with the mask of the samples that are not
        padding.
        """
        if isinstance(split, Batch):
            split = on_first(split, self.setup.mesh)[0]
        return self._parts(split, size)

    def _parts(self, split: Batch | Streamed, size: int) -> Iterator[tuple[Batch, np.ndarray]]:
        order = zip(*ordered_batches(len(split.labels), size), strict=True)
        return evaluation_parts(split, order, self.slots, self.channels)

    def _compiled(
        self,
        program: TrainingProgram[Arguments, Returned],
        *arguments: Arguments.args,
        **named: Arguments.kwargs,
    ) -> Callable[Arguments, Returned]:
        """Return a program, compiled quickly where the run is short and native kernels do the work:
        decided once for the run.
        """
        if program not in self.quick:
            self.quick[program] = self.short and program.has_kernels(*arguments, **named)
        return program.quick if self.quick[program] else program.optimised

    def _with_enough_room(
        self, attempt: Callable[[Setup], tuple[Returned, Summary]], phase: str
    ) -> tuple[Returned, Summary]:
        """Repeat an attempt with larger budgets until they suffice, and return its result.

        Args:
            phase: name of the pass, for progress lines.
        """
        outcome: list[Any] = []

        def run(engine: Engine) -> Summary:
            returned, summary = attempt(replace(self.setup, engine=engine))
            outcome[:] = [returned]
            return summary

        engine, summary = with_enough_room(
            self.setup.engine,
            run,
            limit=_LARGEST_BUDGET,
            advice=FIRE_LESS,
            grown=room_for_training,
            say=lambda line: self.say(f"{phase}: {line}"),
        )
        self.setup = replace(self.setup, engine=engine)
        return outcome[0], summary


def room_for_training(needed: int) -> int:
    """Return a budget that leaves room for training to make neurons fire more often."""
    return max(needed + 2, needed * 3 // 2)
