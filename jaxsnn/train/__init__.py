"""Training: data, encoders, losses, constraints and `fit`.

The public names are resolved on first use, so that `jaxsnn.train.options` can be read without
loading JAX.
"""

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaxsnn.train.data.augment import ChannelShift as ChannelShift
    from jaxsnn.train.data.augment import Compose as Compose
    from jaxsnn.train.data.augment import Dropout as Dropout
    from jaxsnn.train.data.augment import Jitter as Jitter
    from jaxsnn.train.data.augment import Stretch as Stretch
    from jaxsnn.train.data.augment import Warp as Warp
    from jaxsnn.train.data.datasets import Data as Data
    from jaxsnn.train.data.datasets import Splits as Splits
    from jaxsnn.train.data.datasets import splits_of_arrays as splits_of_arrays
    from jaxsnn.train.data.datasets import yinyang as yinyang
    from jaxsnn.train.data.datasets import yinyang_splits as yinyang_splits
    from jaxsnn.train.data.encoders import Current as Current
    from jaxsnn.train.data.encoders import Delta as Delta
    from jaxsnn.train.data.encoders import Encoder as Encoder
    from jaxsnn.train.data.encoders import Latency as Latency
    from jaxsnn.train.data.encoders import LevelCrossing as LevelCrossing
    from jaxsnn.train.data.encoders import PopulationCode as PopulationCode
    from jaxsnn.train.data.encoders import Rate as Rate
    from jaxsnn.train.data.event_sets import data_of_recordings as data_of_recordings
    from jaxsnn.train.data.event_sets import events_of_arrays as events_of_arrays
    from jaxsnn.train.data.event_sets import save_events as save_events
    from jaxsnn.train.data.images import digits_splits as digits_splits
    from jaxsnn.train.data.images import fashion_mnist_splits as fashion_mnist_splits
    from jaxsnn.train.data.images import mnist_splits as mnist_splits
    from jaxsnn.train.data.labelled_files import data_of_nir as data_of_nir
    from jaxsnn.train.data.utterances import japanese_vowels_splits as japanese_vowels_splits
    from jaxsnn.train.fitting import TrainingStopped as TrainingStopped
    from jaxsnn.train.fitting import fit as fit
    from jaxsnn.train.loop.callbacks import EpochReport as EpochReport
    from jaxsnn.train.loop.chip_training import on_chip as on_chip
    from jaxsnn.train.loop.constraints import TRAINABLE as TRAINABLE
    from jaxsnn.train.loop.constraints import Bounded as Bounded
    from jaxsnn.train.loop.constraints import Constraint as Constraint
    from jaxsnn.train.loop.constraints import Free as Free
    from jaxsnn.train.loop.constraints import Positive as Positive
    from jaxsnn.train.loop.constraints import unconstrain as unconstrain
    from jaxsnn.train.loop.evaluation import calibrated as calibrated
    from jaxsnn.train.loop.evaluation import evaluate as evaluate
    from jaxsnn.train.loop.evaluation import evaluate_neurobench as evaluate_neurobench
    from jaxsnn.train.loop.history import EpochRecord as EpochRecord
    from jaxsnn.train.loop.history import Fit as Fit
    from jaxsnn.train.loop.in_the_loop import Device as Device
    from jaxsnn.train.loop.in_the_loop import InTheLoop as InTheLoop
    from jaxsnn.train.loop.optimisers import OPTIMISERS as OPTIMISERS
    from jaxsnn.train.loop.optimisers import SCHEDULES as SCHEDULES
    from jaxsnn.train.loop.parallel import join_processes as join_processes
    from jaxsnn.train.losses.losses import LOSSES as LOSSES
    from jaxsnn.train.losses.losses import ExponentialSum as ExponentialSum
    from jaxsnn.train.losses.losses import FirstSpike as FirstSpike
    from jaxsnn.train.losses.losses import Integral as Integral
    from jaxsnn.train.losses.losses import Loss as Loss
    from jaxsnn.train.losses.losses import MaxOverTime as MaxOverTime
    from jaxsnn.train.losses.losses import MeanOverTime as MeanOverTime
    from jaxsnn.train.losses.losses import Reading as Reading
    from jaxsnn.train.losses.losses import SpikeCount as SpikeCount
    from jaxsnn.train.losses.losses import SpikeTimes as SpikeTimes
    from jaxsnn.train.losses.losses import accuracy as accuracy
    from jaxsnn.train.losses.losses import register_loss as register_loss
    from jaxsnn.train.losses.regularizers import PeakMargin as PeakMargin
    from jaxsnn.train.losses.regularizers import Regulariser as Regulariser
    from jaxsnn.train.losses.regularizers import SpikeBudget as SpikeBudget
    from jaxsnn.train.losses.regularizers import SpikeRate as SpikeRate
    from jaxsnn.train.losses.regularizers import WeightBumping as WeightBumping
    from jaxsnn.train.options import TrainOptions as TrainOptions
    from jaxsnn.train.tuning import tune as tune

_MODULES = {
    "data.augment": (
        "ChannelShift",
        "Compose",
        "Dropout",
        "Jitter",
        "Stretch",
        "Warp",
    ),
    "data.datasets": (
        "Data",
        "Splits",
        "splits_of_arrays",
        "yinyang",
        "yinyang_splits",
    ),
    "data.encoders": (
        "Current",
        "Delta",
        "Encoder",
        "Latency",
        "LevelCrossing",
        "PopulationCode",
        "Rate",
    ),
    "data.event_sets": (
        "data_of_recordings",
        "events_of_arrays",
        "save_events",
    ),
    "data.images": (
        "digits_splits",
        "fashion_mnist_splits",
        "mnist_splits",
    ),
    "data.labelled_files": ("data_of_nir",),
    "data.utterances": ("japanese_vowels_splits",),
    "fitting": (
        "TrainingStopped",
        "fit",
    ),
    "loop.callbacks": ("EpochReport",),
    "loop.chip_training": ("on_chip",),
    "loop.constraints": (
        "TRAINABLE",
        "Bounded",
        "Constraint",
        "Free",
        "Positive",
        "unconstrain",
    ),
    "loop.evaluation": (
        "calibrated",
        "evaluate",
        "evaluate_neurobench",
    ),
    "loop.history": (
        "EpochRecord",
        "Fit",
    ),
    "loop.in_the_loop": (
        "Device",
        "InTheLoop",
    ),
    "loop.optimisers": (
        "OPTIMISERS",
        "SCHEDULES",
    ),
    "loop.parallel": ("join_processes",),
    "losses.losses": (
        "LOSSES",
        "ExponentialSum",
        "FirstSpike",
        "Integral",
        "Loss",
        "MaxOverTime",
        "MeanOverTime",
        "Reading",
        "SpikeCount",
        "SpikeTimes",
        "accuracy",
        "register_loss",
    ),
    "losses.regularizers": (
        "PeakMargin",
        "Regulariser",
        "SpikeBudget",
        "SpikeRate",
        "WeightBumping",
    ),
    "options": ("TrainOptions",),
    "tuning": ("tune",),
}
_HOME = {name: f"jaxsnn.train.{module}" for module, exports in _MODULES.items() for name in exports}

__all__ = [*sorted(_HOME)]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'jaxsnn.train' has no attribute {name!r}")
    value = getattr(import_module(_HOME[name]), name)
    setattr(sys.modules[__name__], name, value)
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
