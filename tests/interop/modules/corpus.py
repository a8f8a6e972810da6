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
        fit: options of `fit` beside the defaults.
    """

    name: str
    make: Callable[[], nn.Module]
    shape: tuple[int, ...]
    gain: float = 1.0
    one_step: bool = False
    extensions: tuple[str, ...] = ()
    refused: Mapping[str, str] = field(default_factory=dict)
    fit: Mapping[str, Any] = field(default_factory=dict)

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

#: What only time steps train: types that NIR does not have, maxima of spikes, and readouts that reset.
GRID = {"engine": "grid"}
#: Weights of 0 and 1 in front of a transposed convolution are no numbers of the module.
DECODER = ("encode.weight", "encode.bias", "decode.weight", "decode.bias")
COPIED = dict.fromkeys(TARGETS, r"'lif1_membrane' outputs its membrane potential and resets")
RESETS = dict.fromkeys(TARGETS, r"'lif2' outputs its membrane potential and resets \(subtract\)")

S, N, J = snntorch_nets, norse_nets, spikingjelly_nets


def _entry(make: type[nn.Module], shape: tuple[int, ...], **facts: Any) -> Entry:
    module = inspect.getmodule(make)
    assert module is not None
    framework = module.__name__.rpartition(".")[2].removesuffix("_nets")
    return Entry(name=f"{framework}-{make.__name__}", make=make, shape=shape, **facts)


def _trainable(*layers: str) -> dict[str, Any]:
    """Return the option of `fit` that trains the weights and biases of layers alone."""
    return {"trainable": tuple(f"{name}.{key}" for name in layers for key in ("weight", "bias"))}


CORPUS = (
    _entry(S.StaticImage, STATIC),
    _entry(S.TimeFirst, SEQUENCE),
    _entry(S.BatchFirst, BATCH_FIRST),
    _entry(S.TimeLast, TIME_LAST),
    _entry(S.Iterated, SEQUENCE),
    _entry(S.Unbound, SEQUENCE, refused=RESETS, fit=GRID),
    _entry(S.Permuted, BATCH_FIRST),
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
    _entry(S.StemAndHead, STATIC, extensions=("ReLU",), fit=GRID),
    _entry(S.ConvolutionalMaxPool, (BATCH, 1, 8, 8), extensions=("MaxPool2d",), fit=GRID),
    _entry(S.SequentialMaxPool, IMAGES, extensions=("MaxPool2d",), fit=GRID),
    _entry(S.Recurrent, SEQUENCE, gain=0.6),
    _entry(S.AlphaNeurons, SEQUENCE, gain=1.5, extensions=("Alpha",), fit=GRID),
    _entry(S.Normalised, SEQUENCE, extensions=("LayerNorm", "ReLU"), fit=GRID),
    _entry(S.Decoder, IMAGES, gain=1.5, fit={"trainable": DECODER}),
    _entry(S.WithParameter, SEQUENCE),
    _entry(S.Subclassed, SEQUENCE),
    _entry(S.Residual, SEQUENCE),
    _entry(S.Predicted, SEQUENCE),
    _entry(S.ResetEachCall, STATIC, gain=3.0, one_step=True),
    _entry(S.ResetReadout, STATIC, gain=3.0, one_step=True),
    _entry(S.ResetInLoop, SEQUENCE),
    _entry(S.Windows, (BATCH, 4, INPUTS, 3)),
    _entry(S.FlatAlready, SEQUENCE),
    _entry(S.Signals, (BATCH, 1, 8), extensions=("MaxPool1d",), fit=GRID),
    _entry(
        S.Reconstruction,
        STATIC_IMAGE,
        gain=1.5,
        extensions=("Reshape",),
        fit=GRID | _trainable("encoder.0", "encoder.3", "widen.0", "decoder.2", "decoder.5"),
    ),
    _entry(
        S.SkipConnections,
        IMAGES,
        gain=1.5,
        fit=GRID | _trainable("down.0", "bottom.0", "last.0"),
    ),
    _entry(S.MembranesOnward, SEQUENCE, refused=COPIED, fit=GRID),
    _entry(
        S.BothRecorded,
        SEQUENCE,
        refused=COPIED,
        fit=GRID | {"loss_options": {"population": "lif2"}},
    ),
    _entry(S.NeverReset, SEQUENCE, gain=1.5, fit=GRID),
    _entry(S.TwoParts, SEQUENCE, fit=_trainable("left", "right", "fc")),
    _entry(S.StemInLoop, SEQUENCE, gain=2.0),
    _entry(S.Differences, BATCH_FIRST, gain=1.5),
    _entry(N.VoltageDecoder, SEQUENCE),
    _entry(N.BoxCells, SEQUENCE),
    _entry(N.SequentialLoop, SEQUENCE),
    _entry(N.Lifted, SEQUENCE),
    _entry(N.LiftedThenLoop, SEQUENCE),
    _entry(N.Encoded, STATIC),
    _entry(N.RecurrentCell, BATCH_FIRST, gain=0.4),
    _entry(N.Refractory, SEQUENCE, extensions=("LIFRefrac",), fit=GRID),
    _entry(N.ConvolutionalStates, IMAGES, fit=GRID),
    _entry(N.IntegrateAndFire, STATIC, one_step=True),
    _entry(J.CountedSpikes, STATIC),
    _entry(J.StackedSpikes, SEQUENCE),
    _entry(J.MultiStep, STATIC_IMAGE, fit=GRID),
    _entry(J.Containers, SEQUENCE),
    _entry(J.Mixed, SEQUENCE),
    _entry(J.MultiStepFunction, SEQUENCE),
    _entry(J.SharedStem, STATIC_IMAGE),
    _entry(J.Converted, SEQUENCE),
    _entry(J.Blocks, SEQUENCE),
    _entry(J.OneStepNet, STATIC, one_step=True),
)
