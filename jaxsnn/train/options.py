"""`TrainOptions`: the choices of a training run, one record for `fit`, `jaxsnn train`, its
configuration file and the table in docs/cli.md.

An option is one field. Its metadata, a `TrainOption`, declares the flag, the conversion from text, the
help text, the supported engines and the range of values. The record can be read without loading JAX
or NumPy.
"""
# ruff: noqa: RUF009 - `option` makes a field, as `dataclasses.field` does

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from jaxsnn.console import to_terminal
from jaxsnn.errors import UsageError, suggestion
from jaxsnn.keywords import suggests_keywords
from jaxsnn.options import (
    CHIP_SEED,
    DATA,
    DATA_FOLDER,
    ENCODER,
    ENGINE,
    EPOCHS,
    LEARNING_RATE,
    NOISE,
    OPTIMISER,
    PLOT,
    SEED,
    SURROGATE,
    T_END,
    TRAINABLE,
    WEIGHT_DECAY,
)
from jaxsnn.summary import summarised
from jaxsnn.train.option_values import (
    at_least,
    between,
    by_name,
    called,
    duration,
    factors,
    fraction,
    functions_of_one_argument,
    integer,
    mapping,
    name_list,
    number,
    one_of,
    positive,
    seed_check,
    several,
    switch,
    table,
    text,
)
from jaxsnn.wording import Option, Text

if TYPE_CHECKING:
    import optax

    from jaxsnn.grid.surrogate import Surrogate
    from jaxsnn.nir.initializers import Seed
    from jaxsnn.simulation.solution import Engine
    from jaxsnn.train.data.augment import Augment
    from jaxsnn.train.data.datasets import Data, Splits
    from jaxsnn.train.data.encoders import Encoder
    from jaxsnn.train.loop.constraints import Constraint
    from jaxsnn.train.loop.optimisers import Schedule
    from jaxsnn.train.losses.losses import Loss
    from jaxsnn.train.losses.regularizers import Regulariser, WeightBumping

#: Engines by name.
ENGINES = ("event", "grid", "loop")
#: Encoders by name.
ENCODERS = ("latency", "latency-reversed", "current", "rate", "delta", "population", "levels")
#: Reactions to a failed run: go back to the best epoch and continue with smaller steps, or stop.
ON_FAILURE = ("back", "stop")


@dataclass(frozen=True, kw_only=True)
class TrainOption(Option):
    """Description of an option of training, without its type.

    Attributes:
        more: further sentences, for the documentation only.
        python: values that only Python accepts, for the documentation.
        convert: conversion from text, or from a TOML value; None: the option has no flag.
        metavar: name of the value in the help text; "" for a switch, which has no value.
        table: whether a configuration file may specify the option as a table.
        engines: kinds of engines that support the option (`engine_kind`); empty: all.
        check: function of the option and a value that is not None; raises `UsageError` if the value
            is invalid.
        recorded: whether the result of a run depends on the option, so that the record of the run and
            its checkpoints contain it.
        compiled: whether the compiled code of a training step depends on the option.
        command_only: whether only the command supports the option, and `fit` refuses it.
    """

    more: str = ""
    python: str = ""
    table: bool = False
    engines: tuple[str, ...] = ()
    check: Callable[[Option, Any], None] | None = None
    recorded: bool = True
    compiled: bool = False
    command_only: bool = False
    command: str = "train"

    @property
    def has_flag(self) -> bool:
        """Return whether the option has a flag on the command line."""
        return self.convert is not None and self.convert is not mapping


def option(default: Any, help_text: str, shared: Option | None = None, **details: Any) -> Any:
    """Return a field of `TrainOptions`; the name of the field becomes that of the option.

    Args:
        shared: declaration to extend, if other commands also take the option.
    """
    if shared is not None:
        shared_details = {
            "flag": shared.flag,
            "other_flags": shared.other_flags,
            "metavar": shared.metavar,
            "file": shared.file,
        }
        details = shared_details | details
    train_option = TrainOption(help=help_text, default=default, **details)
    return field(default=default, metadata={"option": train_option})


#: Maximum number of epochs of a run.
MOST_EPOCHS = 10**6
#: Maximum number of processes or devices.
_MOST_SHARES = 2**16
# Kinds of engines with a solution in continuous time, and kinds that support several devices.
_IN_TIME, _SHARED = ("event", "loop", "device"), ("event", "grid", "device")


@suggests_keywords
@summarised
@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """Options of a training run, all with a default: `fit(graph, data, options=...)`.

    >>> quick = TrainOptions(epochs=5, learning_rate=0.05)
    >>> quick.epochs, quick.batch_size, quick.loss
    (5, 64, None)
    """

    data: Splits | Data | tuple[Any, Any] | str | None = option(
        None,
        "`yinyang`, `digits`, `japanese-vowels`, `mnist`, `fashion-mnist`, `FORMAT:PATH`, or an .npz file",
        more="FORMAT is `wav`, `shd`, `ssc`, `nmnist`, `dvsgesture` or `events`."
        " The .npz file, or a folder of .npy files, contains x_train, y_train, x_test and y_test."
        " `wav:FOLDER` contains files WORD_SPEAKER_NUMBER.wav; numbers 0 to 4 are for the test."
        " `events:PATH` is an .npz file of `save_events`, or a folder of recordings in train/LABEL and test/LABEL."
        " `digits` (8x8) needs scikit-learn,"
        " `japanese-vowels` the data of aeon, `mnist` and `fashion-mnist` a folder of idx or PNG"
        " files. The arrays are"
        " values from 0 to 1, (samples, channels), and labels; or (samples, time, ...) with"
        " any values, for the time-stepped engine. Instead of `x_...` the file may contain `time_...` and `index_...`,"
        " (samples, events), in seconds, `inf` for unused events. Without `x_validation` and"
        " `y_validation`, a fifth of the training samples is held out. Errors: samples without"
        " labels, labels without samples, an incomplete validation part, NaN, and labels without an"
        " output",
        python="also `Splits`, `Data`, or (x, y)",
        convert=text,
        recorded=False,
        shared=DATA,
    )
    data_folder: str | None = option(
        None,
        "folder with the files of `mnist`, `fashion-mnist` or `japanese-vowels`",
        more="`mnist` and `fashion-mnist`: idx files, plain or gzipped, or PNG files with 8 bits per pixel"
        " in folders train/LABEL and test/LABEL. Default: Debian's Fashion-MNIST, and the"
        " JapaneseVowels of an installed aeon",
        convert=text,
        recorded=False,
        shared=DATA_FOLDER,
    )
    copies: int = option(
        1,
        "`digits`, `japanese-vowels`: number of copies of each training sample, all but one distorted",
        convert=integer,
        metavar="N",
        check=at_least(1),
        recorded=False,
    )
    side: int | None = option(
        None,
        "`mnist`, `fashion-mnist`: resize the images to N x N pixels",
        more="Each pixel is the mean of the area that it covers",
        convert=integer,
        metavar="N",
        check=at_least(1),
        recorded=False,
    )
    stream: int | None = option(
        None,
        "number of samples to encode at once, for data that do not fit in memory; by default all",
        more="The result does not change. Arrays stay on disk if the data are a folder of .npy files, and recordings of"
        " events always; of these, as many as fit into 128 MiB are loaded at once by default",
        convert=integer,
        metavar="N",
        check=at_least(1),
        recorded=False,
    )
    loss: Loss | str | None = option(
        None,
        "`ttfs`, `mse`, `max`, `mean`, `count`, `integral`, `exp-sum`, or a registered loss; by default"
        " chosen for the readout",
        more="`ttfs`: cross-entropy of first spike times; `mse`: their shift-invariant squared error;"
        " `count`: cross-entropy of spike counts. For a leaky readout `max`: cross-entropy of largest"
        " voltages, `mean`: of means over time, `integral`: of integrals. For both `exp-sum`:"
        " cross-entropy of exponentially weighted sums. A loss that is selected by its name measures times"
        " in units of tau_syn of the output population."
        " Default: `max` for a readout, `mean` for values; for spiking neurons `count` if their"
        " framework or the engine is time-stepped, else `ttfs`",
        python="also a loss object",
        convert=text,
        metavar="NAME",
        check=called(str, needs=("population", "tau", "t_max", "predict")),
    )
    loss_options: Mapping[str, Any] | None = option(
        None,
        "fields of the loss by name; `population` is the node that the loss reads, by default the last output",
        convert=mapping,
        table=True,
        recorded=False,
        check=table,
    )
    encoder: Encoder | str | None = option(
        None,
        "encoder of values: `latency`, `current`, `rate`, ...; by default that of the task, or `latency`",
        more="`latency`: one spike per value within 2 tau_syn, the largest values first;"
        " `latency-reversed`: the smallest values first; `current`: a constant current; `rate`: a"
        " Poisson spike train; `population`: a spike of the channel with the nearest centre. For"
        " signals (samples, time, channels) `delta`: a spike for each step up or down; `levels`: one"
        " channel per level, which spikes when the signal crosses it. Not needed if the data are events"
        " or currents, or arrays (samples, time, *shape) for the time-stepped engine",
        python="also an encoder object, such as `Latency(...)`",
        convert=text,
        check=called(str, accepted=ENCODERS),
        shared=ENCODER,
    )
    encoder_options: Mapping[str, Any] | None = option(
        None,
        "fields of the encoder by name",
        convert=mapping,
        table=True,
        recorded=False,
        check=table,
    )
    t_end: float | None = option(
        None,
        "end of a sample, such as 40ms; by default after all events of the data",
        more="Default: 6.5 tau_syn of the output population; with later events a multiple of tau_syn, at"
        " least 4.5 tau_syn after the last event. The number of events that an explicit end leaves out"
        " is reported",
        python="in seconds",
        convert=duration,
        check=positive,
        shared=T_END,
    )
    epochs: int = option(
        50,
        "passes over the training samples",
        convert=integer,
        check=at_least(1, most=MOST_EPOCHS),
        shared=EPOCHS,
    )
    batch_size: int = option(
        64, "samples per training step", convert=integer, metavar="N", check=at_least(1)
    )
    learning_rate: float = option(
        0.01,
        "step size of a weight in units of its PSP amplitude",
        more="The PSP amplitude is the effect of a spike through the weight, relative to v_threshold -"
        " v_reset, so that 0.01 means the same in every dialect",
        python="with an optax optimiser it applies to weight bumping only",
        convert=number,
        metavar="R",
        other_flags=LEARNING_RATE.other_flags,
        check=positive,
    )
    schedule: str | Schedule = option(
        "cosine",
        "schedule of the learning rate: `cosine`, `constant`, `linear`, `exponential` or `warm-up`",
        more="`warm-up` rises during the first twentieth of the run, then falls like `cosine`",
        python="also an optax schedule, whose rates are used unchanged",
        convert=text,
        metavar="NAME",
    )
    optimiser: str | optax.GradientTransformation = option(
        "adam",
        "`adam`, `adamw`, `adamax`, `nadam`, `lion`, `rmsprop`, `momentum` or `sgd`",
        python="also an optax optimiser with its learning rate, whose updates are added, in units of"
        " PSP amplitudes",
        convert=text,
        shared=OPTIMISER,
    )
    weight_decay: float | None = option(
        None,
        "fraction of each weight to subtract per step, times the learning rate; by default 0.01 with"
        " `adamw`, else 0",
        convert=number,
        shared=WEIGHT_DECAY,
        check=fraction,
    )
    trainable: tuple[str, ...] | Mapping[str, Constraint | Mapping[str, Any]] = option(
        ("weight", "bias"),
        "parameters to train, separated by commas: weight, bias, tau_mem, NODE.delay, ...",
        more="Also `tau_syn`, `tau`, `v_threshold`, `v_leak`, `delay`; `NODE.NAME` is a parameter of"
        ' one node. In a table, a constraint per parameter: parameter = {kind = "free", "positive"'
        ' or "bounded", low, high, shared, rate}. Delays without a constraint stay between 0 and 1'
        " tau_syn",
        convert=name_list,
        table=True,
        shared=TRAINABLE,
    )
    synaptic_delays: Mapping[str, Any] | None = option(
        None,
        "initial synaptic delays in seconds, by Linear or Affine node",
        more="A node has one number, with which the delay of each of its synapses starts; an array"
        " (outputs, inputs) of one number for each synapse; or an array (inputs,) of one delay for"
        " all synapses of an input. Delays are trained if"
        " `trainable` contains `delay`; the trained graph has them as separate nodes",
        convert=mapping,
        table=True,
        recorded=False,
        check=table,
    )
    seed: Seed = option(
        0,
        "random seed of the data split, the order of samples, and dropout: from 0 to 4294967295",
        python="also a key of `jax.random`",
        convert=integer,
        check=seed_check,
        shared=SEED,
    )
    engine: Engine | str | None = option(
        None,
        "`event`: exact gradients; `grid`: time-stepped, surrogate gradients; `loop`: on an emulated chip",
        more="`event` runs in continuous time. The default is `grid` for arrays (samples, time, ...)"
        " and for networks that the event engine does not support, else `event`; a note gives the"
        " reason. With `loop` an emulated"
        " BrainScaleS-2 chip runs each batch. Gradients are exact at the recorded spikes"
        " (docs/guide_chip.md), and only weights are trained",
        python="also an engine object",
        convert=text,
        metavar="NAME",
        check=one_of(ENGINES),
        shared=ENGINE,
    )
    engine_options: Mapping[str, Any] | None = option(
        None,
        "fields of the engine by name, for the engines `event` and `loop`",
        more="`event` accepts all fields of `EventDriven`, `loop` only `max_spikes`, `min_slope` and"
        " `first_spike_only`",
        convert=mapping,
        table=True,
        engines=("event", "loop"),
        recorded=False,
        check=table,
    )
    calibrate: float | None = option(
        None,
        "scale the initial weights so that this fraction of the neurons of each layer fires",
        more="Layer by layer, with one factor for all weights that feed it; readouts are unchanged",
        convert=number,
        metavar="F",
        check=between,
    )
    surrogate: Surrogate | str | None = option(
        None,
        "`grid`: surrogate derivative: `fast-sigmoid`, `atan`, `sigmoid`, `straight-through`",
        more="`NAME:NUMBER` specifies the slope. Default: that of the framework, snnTorch"
        " `atan:2`, Norse `fast-sigmoid:1`, Spyx `fast-sigmoid:25`, SpikingJelly"
        " `sigmoid:4`; for other files `fast-sigmoid:25`",
        python="also a surrogate object, such as `ArcTan(alpha=3.0)`",
        convert=text,
        engines=("grid",),
        recorded=False,
        shared=SURROGATE,
    )
    chip_seed: int | None = option(
        None,
        "`loop`: seed of the emulated chip; 0 by default",
        more="The seed determines the deviations of its circuits, and its noise",
        convert=integer,
        engines=("loop",),
        recorded=False,
        shared=CHIP_SEED,
    )
    headroom: float | Mapping[str, float] | None = option(
        None,
        "`loop`: factor by which weights may grow; NODE:H,... by population; 2 by default",
        more="Weights that grow by a larger factor exceed 63 LSB and saturate. In a table: population = factor",
        convert=factors,
        metavar="H",
        table=True,
        engines=("loop",),
        recorded=False,
    )
    runs: int | None = option(
        None,
        "`loop`: largest number of runs of the chip per batch; 1 by default",
        more="Spikes between runs are recorded and replayed",
        convert=integer,
        metavar="N",
        engines=("loop",),
        recorded=False,
    )
    weight_bumping: WeightBumping | Mapping[str, Any] | None = option(
        None,
        "remedy for silent neurons: `label`, `hidden`, `hidden_fraction` of `WeightBumping`",
        more="Off by default on the time-stepped engine",
        convert=mapping,
        table=True,
    )
    clip: float | None = option(
        None,
        "largest norm of a gradient; larger gradients are scaled down to it",
        convert=number,
        metavar="NORM",
        check=positive,
        compiled=True,
    )
    regularisers: tuple[Regulariser, ...] = option(
        (),
        "additional terms of the loss, such as `SpikeRate` and `PeakMargin`",
        engines=_IN_TIME,
        compiled=True,
        check=several,
    )
    skip_step_accuracy: bool = option(
        False,
        "do not evaluate the test samples in the time steps of the source framework",
        more="By default that is done once at the end, if the network comes from a time-stepped framework"
        " and is trained on another engine",
        convert=switch,
        recorded=False,
    )
    neurobench: bool = option(
        False,
        "compute the metrics of NeuroBench of the trained network on the test samples",
        more="They are footprint, sparsities and synaptic operations; this takes one more run of the test"
        " samples after training. In continuous time two of them need a time step: that of the file, or"
        " the option `dt` with which it is read",
        convert=switch,
        recorded=False,
    )
    augment: Augment | Mapping[str, Any] | None = option(
        None,
        "random changes of each training sample: `shift`, `rotation`, `scale`, `mirror`, `dropout` and others",
        more="Changes are sampled anew in each epoch. Images: `shift` in pixels, `rotation` in degrees,"
        " `scale` as a fraction, `distortion` in pixels, `mirror` as a probability."
        " Spikes: `jitter` as a time, `dropout` as a probability. `stretch` multiplies all times of a"
        " sample by a factor between e^-`stretch` and e^`stretch`. `channel-shift` = [largest shift"
        " in groups, channels per group, number of channels] shifts groups of channels. `shape`: shape of"
        " the images, if the data do not specify it",
        python="also `Warp`, `Stretch`, `Jitter`, `Dropout`, a `Compose` of them, or a function of (key, sample)",
        convert=mapping,
        table=True,
        compiled=True,
        check=called(Mapping),
    )
    dropout: float = option(
        0.0,
        "probability with which each input spike is left out during training",
        more="At least 0 and below 1",
        convert=number,
        metavar="P",
        recorded=False,
    )
    noise: Mapping[str, float] | tuple[tuple[str, float], ...] | None = option(
        None,
        "noise of parameters during training, sampled for each batch: weight:S,v_threshold:S",
        more="S is the standard deviation as a fraction; for a threshold, of its distance from the leak."
        " input_gain:S is one factor for each neuron and sign, driver_gain:S one for each presynaptic"
        " neuron. The trained network then tolerates deviations of chips that it was not trained on",
        convert=by_name,
        shared=NOISE,
        table=True,
        engines=("event", "grid"),
        compiled=True,
    )
    ema_decay: float = option(
        0.0,
        "decay per step of an exponential moving average of the parameters, such as 0.995",
        more="The averaged parameters are evaluated and returned; 0: no average",
        convert=number,
        metavar="A",
        check=fraction,
        compiled=True,
    )
    patience: int | None = option(
        None,
        "stop after N epochs without a better validation result",
        convert=integer,
        metavar="N",
        check=at_least(1),
    )
    on_failure: str = option(
        "back",
        "reaction to a failure: go `back` to the best epoch, with smaller steps, or `stop`",
        more="A run fails if a number is not finite, a gradient explodes or no output neuron fires any"
        " more. It returns to the best epoch at most three times, each time with a third of the step size",
        convert=text,
        metavar="WHAT",
        check=one_of(ON_FAILURE),
    )
    checkpoint: Any = option(
        None, "folder for checkpoints, which are written after each epoch", recorded=False
    )
    resume: bool = option(
        False,
        "continue from the checkpoint, if there is one",
        more="The result is, bit for bit, that of an uninterrupted run. With more `epochs` the run is"
        " extended, if its schedule is `constant` or an optax schedule. Learning rates of other"
        " schedules depend on the number of epochs, so that such runs are not extended",
        convert=switch,
        recorded=False,
    )
    overwrite: bool = option(
        False,
        "replace an existing checkpoint, after the first evaluation (default: refuse to start)",
        recorded=False,
    )
    devices: int | None = option(
        None,
        "number of devices that share the samples of each batch",
        more="Default: one device; with several processes all of their devices",
        convert=integer,
        metavar="N",
        engines=_SHARED,
        check=at_least(1, _MOST_SHARES),
        recorded=False,
    )
    coordinator: str | None = option(
        None,
        "address of process 0, if several processes train together",
        more="Pass the same options on each host, except for the number of the process",
        convert=text,
        metavar="HOST:PORT",
        recorded=False,
    )
    processes: int = option(
        1,
        "number of processes that train together",
        convert=integer,
        metavar="N",
        engines=_SHARED,
        check=at_least(1, _MOST_SHARES),
        recorded=False,
    )
    process: int = option(
        0, "number of this process, from 0", convert=integer, metavar="I", recorded=False
    )
    progress: Callable[[str], None] | None = option(
        to_terminal,
        "function of one line per epoch; by default lines are shown in terminals and notebooks; None:"
        " no lines",
        recorded=False,
        check=called(),
    )
    callbacks: tuple[Callable[[Any], bool | None], ...] = option(
        (),
        "functions that are called after each epoch, with an `EpochReport`, and may stop the run",
        more="The first call is before training, for epoch 0. A function that returns True stops the run,"
        " which then returns its best epoch. If one raises an error, `TrainingStopped` has the best epoch."
        " A resumed run reports only the epochs that it trains. Not with several processes",
        recorded=False,
        check=functions_of_one_argument,
    )
    plot: str | None = option(
        None,
        "file for a plot of the learning curve: .png, .svg or .pdf",
        convert=text,
        recorded=False,
        command_only=True,
        shared=PLOT,
    )

    def compiled_only(self) -> TrainOptions:
        """Return the options with those on which the compiled code of a step does not depend at their
        defaults. Runs with equal results can share the code.
        """
        compiled = {
            name: getattr(self, name)
            for name, train_option in OPTIONS.items()
            if train_option.compiled
        }
        return replace(TrainOptions(), **compiled)


#: Name of the field -> declaration of the option, in the order of the record.
OPTIONS: Mapping[str, TrainOption] = MappingProxyType(
    {
        attribute.name: replace(
            attribute.metadata["option"],
            name=attribute.name,
            is_switch=not attribute.metadata["option"].metavar,
        )
        for attribute in fields(TrainOptions)
    }
)


#: Short name in Python -> the option; they are the further flags on the command line.
SHORT_NAMES: Mapping[str, str] = MappingProxyType({"lr": "learning_rate"})


def _documented(record: type[TrainOptions]) -> str:
    """Return the docstring, with a line for each attribute."""
    lines = []
    for attribute in fields(record):
        train_option = attribute.metadata["option"]
        in_python = f"In Python {train_option.python}" if train_option.python else ""
        sentences = ". ".join(
            part for part in (train_option.help_text, train_option.more, in_python) if part
        )
        paragraph = textwrap.fill(
            f"{attribute.name}: {sentences}.",
            100,
            initial_indent=" " * 8,
            subsequent_indent=" " * 12,
            break_on_hyphens=False,
        )
        lines.append(paragraph)
    return f"{record.__doc__}\n    Attributes:\n" + "\n".join(lines) + "\n"


TrainOptions.__doc__ = _documented(TrainOptions)


def options_with(
    options: TrainOptions | None = None, changes: Mapping[str, Any] | None = None
) -> TrainOptions:
    """Return options with some fields replaced.

    Args:
        options: None: the defaults.
        changes: fields by name. Lists become tuples.

    Raises:
        UsageError: a name that does not exist.
    """
    if options is not None and not isinstance(options, TrainOptions):
        raise UsageError(
            Text("options is {options}, not a TrainOptions", options=repr(options)),
            fix="pass TrainOptions(...), or single options by name",
        )
    changed_fields: dict[str, Any] = {}
    for keyword, value in (changes or {}).items():
        name = SHORT_NAMES.get(keyword, keyword)
        if name not in OPTIONS:
            raise UsageError(
                Text("there is no option '{option}'", option=name), fix=suggestion(name, OPTIONS)
            )
        if name in changed_fields:
            raise UsageError(
                Text("{option} is specified twice", option=OPTIONS[name].title),
                fix=Text("pass only {option}", option=OPTIONS[name].keyword),
            )
        changed_fields[name] = tuple(value) if isinstance(value, list) else value
    return replace(options or TrainOptions(), **changed_fields)


def engine_kind(engine: Any) -> str:
    """Return the name of an engine, or its kind: "event", "grid", "loop", or "device" for an
    `InTheLoop` with a device of the user.

    Raises:
        UsageError: the object is not an engine.
    """
    if engine is None or isinstance(engine, str):
        return engine or "event"
    if isinstance(engine, type) or not hasattr(engine, "run") or not hasattr(engine, "kind"):
        raise UsageError(
            Text("{engine} is not an engine", engine=repr(engine)),
            fix="pass EventDriven(...), TimeStepped(...) or InTheLoop(...)",
        )
    return engine.kind


def check_options(options: TrainOptions) -> None:
    """Refuse options that are invalid for any network and any data.

    Raises:
        UsageError: a number out of its range, a name that does not exist, an option for another
            engine, or an invalid process number.
    """
    kind = engine_kind(options.engine)
    # The default engine depends on the network and the data, and is checked when it is decided.
    kinds = {"event", "grid"} if options.engine is None else {kind}
    for name, train_option in OPTIONS.items():
        value = getattr(options, name)
        if value is not None and train_option.check is not None:
            train_option.check(train_option, value)
    for name, train_option in OPTIONS.items():
        value, default = getattr(options, name), getattr(TrainOptions, name)
        if (
            train_option.engines
            and not kinds & {*train_option.engines}
            and value not in (None, default)
        ):
            engines = [engine for engine in train_option.engines if engine in ENGINES]
            is_short = isinstance(value, int | float | str)
            message = Text(
                "{setting} requires {engines}, and the engine is {kind}",
                setting=train_option.set_to(value) if is_short else train_option,
                engines=OPTIONS["engine"].set_to(*engines),
                kind=kind,
            )
            raise UsageError(message, fix=Text("leave out {setting}", setting=train_option.title))
    _refuse_processes(options)


def _refuse_processes(options: TrainOptions) -> None:
    """Refuse an invalid process number, and several processes without a way to find each other."""
    processes, process = options.processes, options.process
    if processes > 1 and options.callbacks:
        raise UsageError(
            Text(
                "{callbacks} are not supported with {processes} processes, each of which would call them",
                callbacks=OPTIONS["callbacks"],
                processes=processes,
            ),
            fix=Text("leave out {callbacks}", callbacks=OPTIONS["callbacks"].title),
        )
    if not 0 <= process < processes:
        message = Text(
            "{option} is {process}, and the number of processes is {processes}",
            option=OPTIONS["process"],
            process=process,
            processes=processes,
        )
        fix = Text(
            "number the processes from 0 to {processes}, or pass {option}",
            processes=processes - 1,
            option=OPTIONS["processes"].set_to("N"),
        )
        raise UsageError(message, fix=fix)
    if processes > 1 and options.coordinator is None:
        fix = Text(
            "pass {coordinator}, the address of process 0",
            coordinator=OPTIONS["coordinator"].set_to("HOST:PORT"),
        )
        raise UsageError(
            Text(
                "{processes} processes need an address to connect to each other",
                processes=processes,
            ),
            fix=fix,
        )


# -- the command line, its configuration file and its documentation


def flag_of(name: str) -> str:
    """Return the name of an option on the command line, without "--".

    >>> flag_of("learning_rate"), flag_of("trainable")
    ('learning-rate', 'train')
    """
    return OPTIONS[name].long_flag.removeprefix("--")


def names_in_files() -> dict[str, str]:
    """Map each name in a configuration file, with "-", to its option."""
    options_by_name = {}
    for name, train_option in OPTIONS.items():
        if train_option.convert is not None:
            further = [flag.removeprefix("--") for flag in train_option.other_flags]
            for spelling in (name.replace("_", "-"), flag_of(name), *further):
                options_by_name[spelling] = name
    return options_by_name


def help_of(name: str) -> str:
    """Return the help text, with the default unless it is None, False or 0."""
    default = getattr(TrainOptions, name)
    silent = default is None or (isinstance(default, bool | float) and not default)
    shown = ",".join(default) if isinstance(default, tuple) else default
    return OPTIONS[name].help_text + ("" if silent else f" (default {shown})")


def options_table() -> str:
    """Return the options of `jaxsnn train` as a table of Markdown, for docs/cli.md; names in square
    brackets are tables of the configuration file.
    """
    rows = ["| option | effect |", "|---|---|"]
    for name, train_option in OPTIONS.items():
        if train_option.convert is None:
            continue
        flag = flag_of(name)
        flags = (f"--{flag}", *train_option.other_flags)
        spelled = [f"`{spelling}`" for spelling in flags] if train_option.has_flag else []
        if train_option.table:
            spelled.append(f"`[{name.replace('_', '-')}]`")
        description = (
            f"{help_of(name)}. {train_option.more}" if train_option.more else help_of(name)
        )
        rows.append(f"| {', '.join(spelled)} | {description} |")
    return "\n".join(rows)
