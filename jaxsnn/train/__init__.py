"""Training: data, encoders, losses, constraints and `fit`."""

from jaxsnn.train.data.augment import Dropout, Jitter
from jaxsnn.train.data.datasets import Data, Splits, yinyang, yinyang_splits
from jaxsnn.train.data.digits import digits_splits
from jaxsnn.train.data.encoders import Delta, Latency, PopulationCode, Rate
from jaxsnn.train.data.external_events import data_of_nir, events_of_arrays
from jaxsnn.train.data.vowels import japanese_vowels_splits
from jaxsnn.train.fitting import TrainingStopped, fit
from jaxsnn.train.loop.calibration import calibrated
from jaxsnn.train.loop.chip_training import on_chip
from jaxsnn.train.loop.constraints import TRAINABLE, Bounded, Free, Positive
from jaxsnn.train.loop.evaluation import evaluate
from jaxsnn.train.loop.history import EpochRecord, Fit
from jaxsnn.train.loop.in_the_loop import Device, InTheLoop
from jaxsnn.train.loop.optimisers import OPTIMISERS, SCHEDULES
from jaxsnn.train.loop.parallel import join_processes
from jaxsnn.train.losses.losses import (
    LOSSES,
    ExponentialSum,
    FirstSpike,
    Integral,
    MaxOverTime,
    SpikeCount,
    SpikeTimes,
    accuracy,
)
from jaxsnn.train.losses.regularizers import PeakMargin, SpikeRate
from jaxsnn.train.losses.silence import Push

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
    "PopulationCode",
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
