"""Training: data, encoders, losses, constraints and `fit`."""

from jaxsnn.train.augment import Dropout, Jitter
from jaxsnn.train.constraints import TRAINABLE, Bounded, Free, Positive
from jaxsnn.train.datasets import Data, Splits, yinyang, yinyang_splits
from jaxsnn.train.encoding import Latency
from jaxsnn.train.fit import TrainingStopped, fit
from jaxsnn.train.history import EpochRecord, Fit
from jaxsnn.train.losses import (
    LOSSES,
    ExponentialSum,
    FirstSpike,
    Integral,
    MaxOverTime,
    SpikeCount,
    SpikeTimes,
    accuracy,
)
from jaxsnn.train.optimisers import OPTIMISERS, SCHEDULES
from jaxsnn.train.parallel import join_processes
from jaxsnn.train.regularize import PeakMargin, SpikeRate
from jaxsnn.train.silence import Push

__all__ = [
    "LOSSES",
    "OPTIMISERS",
    "SCHEDULES",
    "TRAINABLE",
    "Bounded",
    "Data",
    "Dropout",
    "EpochRecord",
    "ExponentialSum",
    "FirstSpike",
    "Fit",
    "Free",
    "Integral",
    "Jitter",
    "Latency",
    "MaxOverTime",
    "PeakMargin",
    "Positive",
    "Push",
    "SpikeCount",
    "SpikeRate",
    "SpikeTimes",
    "Splits",
    "TrainingStopped",
    "accuracy",
    "fit",
    "join_processes",
    "yinyang",
    "yinyang_splits",
]
