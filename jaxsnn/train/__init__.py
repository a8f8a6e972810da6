"""Training: data, encoders, losses, constraints and `fit`."""

from jaxsnn.train.augment import Dropout, Jitter
from jaxsnn.train.calibration import calibrated
from jaxsnn.train.constraints import TRAINABLE, Bounded, Free, Positive
from jaxsnn.train.datasets import Data, Splits, yinyang, yinyang_splits
from jaxsnn.train.digits import digits_splits
from jaxsnn.train.encoding import Delta, Latency, Population, Rate
from jaxsnn.train.evaluate import evaluate
from jaxsnn.train.fit import TrainingStopped, fit
from jaxsnn.train.history import EpochRecord, Fit
from jaxsnn.train.in_the_loop import Device, InTheLoop
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
from jaxsnn.train.on_chip import on_chip
from jaxsnn.train.optimisers import OPTIMISERS, SCHEDULES
from jaxsnn.train.parallel import join_processes
from jaxsnn.train.regularize import PeakMargin, SpikeRate
from jaxsnn.train.silence import Push
from jaxsnn.train.sources import data_of_nir, events_of_arrays
from jaxsnn.train.vowels import japanese_vowels_splits

__all__ = [
    "LOSSES",
    "OPTIMISERS",
    "SCHEDULES",
    "TRAINABLE",
    "Bounded",
    "Data",
    "Delta",
    "Device",
    "Dropout",
    "EpochRecord",
    "ExponentialSum",
    "FirstSpike",
    "Fit",
    "Free",
    "InTheLoop",
    "Integral",
    "Jitter",
    "Latency",
    "MaxOverTime",
    "PeakMargin",
    "Population",
    "Positive",
    "Push",
    "Rate",
    "SpikeCount",
    "SpikeRate",
    "SpikeTimes",
    "Splits",
    "TrainingStopped",
    "accuracy",
    "calibrated",
    "data_of_nir",
    "digits_splits",
    "evaluate",
    "events_of_arrays",
    "fit",
    "japanese_vowels_splits",
    "join_processes",
    "on_chip",
    "yinyang",
    "yinyang_splits",
]
