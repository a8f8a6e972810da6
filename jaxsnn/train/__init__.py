"""Training: data, encoders, losses and `fit`."""

from jaxsnn.train.datasets import Data, Splits, yinyang, yinyang_splits
from jaxsnn.train.encoding import Latency
from jaxsnn.train.fit import TrainingStopped, fit
from jaxsnn.train.history import EpochRecord, Fit
from jaxsnn.train.losses import LOSSES, FirstSpike, accuracy
from jaxsnn.train.silence import Push

__all__ = [
    "LOSSES",
    "Data",
    "EpochRecord",
    "FirstSpike",
    "Fit",
    "Latency",
    "Push",
    "Splits",
    "TrainingStopped",
    "accuracy",
    "fit",
    "yinyang",
    "yinyang_splits",
]
