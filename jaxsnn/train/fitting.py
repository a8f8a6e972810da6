"""`fit`: train a Graph, get a trained Graph."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import optax

from jaxsnn.network.lowering.lower import lower
from jaxsnn.network.network import with_synaptic_delays
from jaxsnn.nir.graph import Graph
from jaxsnn.train.data.datasets import Splits
from jaxsnn.train.loop.batch_engines import Engine
from jaxsnn.train.loop.constraints import Constraint
from jaxsnn.train.loop.epoch import Augment
from jaxsnn.train.loop.history import Fit
from jaxsnn.train.loop.optimisers import Schedule
from jaxsnn.train.loop.train_plan import Encoder, make_plan
from jaxsnn.train.loop.training_run import TrainingRun, TrainingStopped
from jaxsnn.train.losses.losses import Loss
from jaxsnn.train.losses.regularizers import Regulariser
from jaxsnn.train.losses.silence import Push

__all__ = ["TrainingStopped", "fit", "to_stderr"]


def to_stderr(line: str) -> None:
    """Print a line of progress."""
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


def to_terminal(line: str) -> None:
    """Print a line of progress, where somebody looks."""
    if sys.stderr.isatty():
        to_stderr(line)


def fit(
    graph: Graph,
    data: Splits,
    *,
    loss: Loss | str = "ttfs",
    encoder: Encoder | None = None,
    t_end: float | None = None,
    epochs: int = 50,
    batch_size: int = 64,
    learning_rate: float = 0.01,
    schedule: str | Schedule = "cosine",
    optimiser: str | optax.GradientTransformation = "adam",
    seed: int = 0,
    engine: Engine | str | None = None,
    trainable: tuple[str, ...] | Mapping[str, Constraint] = ("weight", "bias"),
    synaptic_delays: Mapping[str, Any] | None = None,
    push: Push | None = None,
    clip: float | None = None,
    regularisers: tuple[Regulariser, ...] = (),
    augment: Augment | None = None,
    averaging: float = 0.0,
    patience: int | None = None,
    on_failure: str = "back",
    checkpoint: str | os.PathLike[str] | None = None,
    resume: bool = False,
    overwrite: bool = False,
    devices: int | None = None,
    progress: Callable[[str], None] | None = to_terminal,
) -> Fit:
    """Train a graph, and return it with the parameters of the epoch that validates best.

    On the event engine gradients are exact. Hidden neurons play their full dynamics, so that the
    trained graph means the same to every simulator; a population that only a first-spike loss
    reads, and that feeds nothing else, stops after its first spike to save time. The same arguments
    give the same result, bit for bit, also where a run was killed and resumed.

    Args:
        graph: read with a dialect, or built.
        data: `jaxsnn.train.yinyang_splits()`, or your own `Splits`.
        loss: a name in `jaxsnn.train.LOSSES`, or a loss; the name stands for times in units of the
            tau_syn of the population that feeds the Output.
        encoder: makes Events of values; default `Latency` over 2 tau_syn. Not needed where the data
            are Events, or on the grid arrays (samples, time, *shape).
        t_end: seconds, end of a sample; default 6.5 tau_syn.
        epochs, batch_size, seed: of the run; the seed shuffles, and draws what `augment` does.
        learning_rate: step of a weight in units of its kick (`jaxsnn.train.loop.scaling`): the same
            in every dialect.
        schedule: name in `jaxsnn.train.SCHEDULES`, or an optax schedule, whose rates are taken as
            they are.
        optimiser: name in `jaxsnn.train.OPTIMISERS`, or an optax optimiser with a learning rate of
            its own, whose updates are added, in the same units; `learning_rate` and `schedule` are
            then those of pushes alone.
        engine: `Event(...)`, `Grid(...)`, `InTheLoop(...)`, or a name; default `Event(max_spikes=4,
            min_slope=0.04)`. The budget grows where neurons fire more often.
        trainable: NIR names of the parameters that are trained, or names with constraints (`Free`,
            `Positive`, `Bounded`). "NODE.NAME" is that of one node. Delays without a constraint
            stay between 0 and 1 tau_syn.
        synaptic_delays: Linear or Affine node -> delays to begin with, seconds: one for all its
            synapses or one for each, (outputs, inputs). They are trained where `trainable` names
            "delay"; in the trained graph they are nodes of their own.
        push: remedy for silent neurons; on the grid there is none by default.
        clip: largest norm of a gradient; longer ones are shortened to it.
        regularisers: terms of the loss, such as `SpikeRate` and `PeakMargin`.
        augment: changes each training sample: `Dropout`, `Jitter`, or a function of (key, sample).
        averaging: decay of a running average of the parameters, per step; it is evaluated and kept.
            0: none.
        patience: stop after so many epochs without a better validation; None: never.
        on_failure: "back": where a run fails (not-a-number, exploding gradients, all outputs
            silent) go back to the best epoch with steps of a third, up to three times; "stop": stop
            at once.
        checkpoint: folder for checkpoints (`jaxsnn.train.loop.checkpoint`), written after each
            epoch.
        resume: go on from the checkpoint there, if there is one.
        overwrite: replace a checkpoint there that is not resumed, after the first evaluation; else
            it is an error.
        devices: over how many devices the samples of a batch are shared out; None: one, or all of
            several processes.
        progress: takes one line for each epoch; by default to stderr if that is a terminal. None is
            quiet.

    Raises:
        UsageError: arguments or data that do not fit the network, or a checkpoint of other ones.
        TrainingStopped: a run that failed; its `fit` holds the best epoch so far.
        SimulationError: neurons that fire more often than any budget, or another process that is
            gone.

    >>> from jaxsnn.nir import build
    >>> from jaxsnn.nir.initializers import normal
    >>> from jaxsnn.train import yinyang_splits
    >>> hidden, output = (build.cubalif(tau_mem="20ms", tau_syn="10ms") for _ in range(2))
    >>> first, second = build.linear(20, weight=normal(1.0, 0.6)), build.linear(3, weight=normal(0.3, 0.3))
    >>> graph = build.sequential(build.input(5), first, hidden, second, output, seed=0)
    >>> trained = fit(graph, yinyang_splits(sizes=(256, 128, 128)), epochs=10, learning_rate=0.05, progress=None)
    >>> trained.test_accuracy > 0.5
    True
    """
    names = trainable if isinstance(trainable, Mapping) else tuple(trainable)
    frees = any(name.rpartition(".")[2].startswith("tau") for name in names)
    network = lower(graph, free_time_constants=frees)
    for node, delay in (synaptic_delays or {}).items():
        weight = network.parameters.get(node, {}).get("weight", 0.0)
        network = with_synaptic_delays(
            network, node, np.broadcast_to(np.asarray(delay, float), np.shape(weight))
        )
    settings: dict[str, Any] = {
        "epochs": epochs,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "schedule": schedule,
        "optimiser": optimiser,
        "seed": seed,
        "trainable": names,
        "clip": clip,
        "regularisers": tuple(regularisers),
        "augment": augment,
        "averaging": averaging,
        "patience": patience,
        "on_failure": on_failure,
        "devices": devices,
    }
    plan = make_plan(
        network, data, loss=loss, encoder=encoder, t_end=t_end, engine=engine, push=push, **settings
    )
    run = TrainingRun(graph, network, plan, data, progress or (lambda line: None))
    return run.all(checkpoint, resume=resume, overwrite=overwrite)
