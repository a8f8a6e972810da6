"""The corpus: networks as people write them, the input of each, and what has to be true of it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from tests.interop.modules import norse_nets, snntorch_nets, spikingjelly_nets
from tests.interop.modules.snntorch_nets import INPUTS, STEPS

TARGETS = ("snntorch", "norse", "spikingjelly")
BATCH = 2
IMAGE = (1, 6, 6)


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A network of the corpus.

    Attributes:
        name: framework and class.
        make: makes the module; weights are drawn afterwards.
        shape: shape of the sample.
        gain: factor of the drawn weights.
        one_step: it processes one step per call, and the sample is one step.
        extensions: types that NIR does not have among its nodes: no converter takes the graph.
        refused: targets that cannot express it, and a part of the reason.
        loss: the default loss of `fit`: "count" for spikes, "max" for membranes, "mean" for values.
        fixed_weights: its graph has weights that are not weights of a layer, such as those of torch.cat.
    """

    name: str
    make: Callable[[], nn.Module]
    shape: tuple[int, ...]
    gain: float = 1.0
    one_step: bool = False
    extensions: tuple[str, ...] = ()
    refused: Mapping[str, str] = field(default_factory=dict)
    loss: str = "count"
    fixed_weights: bool = False

    @property
    def module(self) -> nn.Module:
        """The module in evaluation mode, with drawn weights, the same in each call."""
        torch.manual_seed(0)
        module = self.make().eval()
        generator = torch.Generator().manual_seed(1)
        for name, parameter in module.named_parameters():
            if "weight" in name and parameter.ndim > 1:
                size = 2 * self.gain / parameter[0].numel() ** 0.5
                nn.init.uniform_(parameter, -0.6 * size, size, generator=generator)
        return module

    @property
    def sample(self) -> torch.Tensor:
        """Numbers from 0 to 1, the same in each call."""
        return torch.rand(self.shape, generator=torch.Generator().manual_seed(2))


#: Shapes of samples, by the axes of time and batch.
STATIC = (BATCH, INPUTS)
SEQUENCE = (STEPS, BATCH, INPUTS)
BATCH_FIRST = (BATCH, STEPS, INPUTS)
TIME_LAST = (BATCH, INPUTS, STEPS)
IMAGES = (STEPS, BATCH, *IMAGE)
STATIC_IMAGE = (BATCH, *IMAGE)

COPIED = dict.fromkeys(TARGETS, r"'lif1_membrane' outputs its membrane potential and resets")
RESETS = dict.fromkeys(TARGETS, r"'lif2' outputs its membrane potential and resets \(subtract\)")
ONE_OUTPUT = dict.fromkeys(TARGETS, "its importer supports one Output node, and the graph has 2")

S, N, J = snntorch_nets, norse_nets, spikingjelly_nets


def _entry(make: type[nn.Module], shape: tuple[int, ...], **facts: Any) -> Entry:
    module = inspect.getmodule(make)
    assert module is not None
    framework = module.__name__.rpartition(".")[2].removesuffix("_nets")
    return Entry(name=f"{framework}-{make.__name__}", make=make, shape=shape, **facts)


CORPUS = (
    _entry(S.StaticImage, STATIC),
    _entry(S.TimeFirst, SEQUENCE),
    _entry(S.BatchFirst, BATCH_FIRST),
    _entry(S.TimeLast, TIME_LAST),
    _entry(S.Iterated, SEQUENCE),
    _entry(S.Unbound, SEQUENCE, refused=RESETS, loss="max"),
    _entry(S.Permuted, BATCH_FIRST, loss="max"),
    _entry(S.Transposed, BATCH_FIRST),
    _entry(S.Split, SEQUENCE),
    _entry(S.Chunked, BATCH_FIRST),
    _entry(S.StepsAsArgument, STATIC),
    _entry(S.Expanded, STATIC),
    _entry(S.Repeated, STATIC),
    _entry(S.HiddenStates, SEQUENCE),
    _entry(S.ManySynaptic, SEQUENCE),
    _entry(S.LayerList, SEQUENCE),
    _entry(S.StateDictionary, SEQUENCE),
    _entry(S.OneStep, STATIC, one_step=True),
    _entry(S.NamedStates, SEQUENCE),
    _entry(S.StarredStates, SEQUENCE),
    _entry(S.StatesOnSelf, SEQUENCE),
    _entry(S.Filled, SEQUENCE),
    _entry(S.LatencyCoded, STATIC),
    _entry(S.StemAndHead, STATIC, extensions=("ReLU",)),
    _entry(S.ConvolutionalMaxPool, (BATCH, 1, 8, 8), extensions=("MaxPool2d",)),
    _entry(S.SequentialMaxPool, IMAGES, extensions=("MaxPool2d",)),
    _entry(S.Recurrent, SEQUENCE, gain=0.6, loss="max"),
    _entry(S.AlphaNeurons, SEQUENCE, gain=1.5, extensions=("Alpha",)),
    _entry(S.Normalised, SEQUENCE, extensions=("LayerNorm", "ReLU")),
    _entry(S.Decoder, IMAGES, gain=1.5, fixed_weights=True),
    _entry(S.WithParameter, SEQUENCE),
    _entry(S.Subclassed, SEQUENCE),
    _entry(S.Residual, SEQUENCE, loss="max"),
    _entry(S.Predicted, SEQUENCE),
    _entry(S.LinearHead, SEQUENCE, loss="mean"),
    _entry(S.RectifiedHead, SEQUENCE, extensions=("ReLU",), loss="mean"),
    _entry(S.AllSpikes, SEQUENCE, refused=ONE_OUTPUT),
    _entry(S.SpikesAndScores, SEQUENCE, loss="mean"),
    _entry(S.SpikesAndMembranes, SEQUENCE, refused=RESETS, loss="max"),
    _entry(S.TwoBranches, SEQUENCE),
    _entry(S.ResetEachCall, STATIC, gain=3.0, one_step=True),
    _entry(S.ResetReadout, STATIC, gain=3.0, one_step=True, loss="max"),
    _entry(S.ResetInLoop, SEQUENCE),
    _entry(S.Windows, (BATCH, 4, INPUTS, 3)),
    _entry(S.FlatAlready, SEQUENCE),
    _entry(S.Signals, (BATCH, 1, 8), extensions=("MaxPool1d",)),
    _entry(
        S.Reconstruction,
        STATIC_IMAGE,
        gain=1.5,
        extensions=("Reshape",),
        loss="max",
        fixed_weights=True,
    ),
    _entry(S.SkipConnections, IMAGES, gain=1.5, fixed_weights=True),
    _entry(S.MembranesOnward, SEQUENCE, refused=COPIED),
    _entry(S.BothRecorded, SEQUENCE, refused=COPIED),
    _entry(S.NeverReset, SEQUENCE, gain=1.5),
    _entry(S.TwoParts, SEQUENCE, fixed_weights=True),
    _entry(S.StemInLoop, SEQUENCE, gain=2.0),
    _entry(S.Differences, BATCH_FIRST, gain=1.5),
    _entry(S.ScoresOfOneStep, STATIC, one_step=True, gain=1.5),
    _entry(N.VoltageDecoder, SEQUENCE, loss="max"),
    _entry(N.BoxCells, SEQUENCE),
    _entry(N.SequentialLoop, SEQUENCE, loss="max"),
    _entry(N.Lifted, SEQUENCE, loss="max"),
    _entry(N.LiftedThenLoop, SEQUENCE),
    _entry(N.LiftedSequential, SEQUENCE, loss="max"),
    _entry(N.Encoded, STATIC),
    _entry(N.RecurrentCell, BATCH_FIRST, gain=0.4, loss="max"),
    _entry(N.Refractory, SEQUENCE, extensions=("LIFRefrac",)),
    _entry(N.ConvolutionalStates, IMAGES),
    _entry(N.TwoTimeSteps, SEQUENCE, loss="max"),
    _entry(N.LoopingBlocks, SEQUENCE, loss="mean"),
    _entry(N.SharedCell, SEQUENCE),
    _entry(N.IntegrateAndFire, STATIC, one_step=True),
    _entry(J.CountedSpikes, STATIC),
    _entry(J.StackedSpikes, SEQUENCE),
    _entry(J.MultiStep, STATIC_IMAGE),
    _entry(J.TwoSteps, STATIC_IMAGE, gain=1.5),
    _entry(J.ResidualSteps, SEQUENCE, gain=1.5, fixed_weights=True),
    _entry(J.Containers, SEQUENCE),
    _entry(J.Mixed, SEQUENCE),
    _entry(J.MultiStepFunction, SEQUENCE),
    _entry(J.SharedStem, STATIC_IMAGE),
    _entry(J.Converted, SEQUENCE),
    _entry(J.Blocks, SEQUENCE),
    _entry(J.OneStepNet, STATIC, one_step=True),
    _entry(J.RatesIntoHead, BATCH_FIRST),
    _entry(J.RepeatedFeatures, STATIC),
    _entry(J.ActivatedStem, SEQUENCE),
    _entry(J.LargestMembranes, SEQUENCE, loss="max"),
)
