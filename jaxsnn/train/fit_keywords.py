"""Keyword arguments of `fit`, for type checkers; `TrainOptions` describes them."""

from __future__ import annotations

from typing import Any, TypedDict


class FitKeywords(TypedDict, total=False):
    """Fields of `TrainOptions` except `data`, and their short names."""

    data_folder: Any
    copies: Any
    side: Any
    stream: Any
    loss: Any
    loss_options: Any
    encoder: Any
    encoder_options: Any
    t_end: Any
    epochs: Any
    batch_size: Any
    learning_rate: Any
    schedule: Any
    optimiser: Any
    weight_decay: Any
    trainable: Any
    synaptic_delays: Any
    seed: Any
    engine: Any
    engine_options: Any
    calibrate: Any
    surrogate: Any
    chip_seed: Any
    headroom: Any
    runs: Any
    weight_bumping: Any
    clip: Any
    regularisers: Any
    skip_step_accuracy: Any
    neurobench: Any
    augment: Any
    dropout: Any
    noise: Any
    ema_decay: Any
    patience: Any
    on_failure: Any
    checkpoint: Any
    resume: Any
    overwrite: Any
    devices: Any
    coordinator: Any
    processes: Any
    process: Any
    progress: Any
    callbacks: Any
    plot: Any
    lr: Any
