"""`TrainOptions`: the choices of a training run, one record for `fit`, `jaxsnn train`, its
configuration file and the table in docs/cli.md.

An option is one field. Its metadata, a `TrainOption`, says all else that is known of it: the flag, what
makes a value of text, the help text, the engines that it is for, the range of its values. JAX is
not needed to read the record, nor is NumPy.
"""
# ruff: noqa: RUF009 - `option` makes a field, as `dataclasses.field` does

from __future__ import annotations

import sys
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from jaxsnn.errors import UsageError, printable, suggestion
from jaxsnn.options import (
    CHIP_SEED,
    DATA,
    DATA_FOLDER,
    ENCODER,
    ENGINE,
    EPOCHS,
    NOISE,
    OPTIMISER,
    PLOT,
    SEED,
    SURROGATE,
    T_END,
    TRAINABLE,
    WEIGHT_DECAY,
)
from jaxsnn.train.option_values import (
    at_least,
    between,
    by_name,
    called,
    duration,
    factors,
    fraction,
    mapping,
    names,
    number,
    one_of,
    positive,
    seed_check,
    several,
    switch,
    table,
    text,
    whole,
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
#: What to do where a run fails: go back to the best epoch and go on with smaller steps, or stop.
ON_FAILURE = ("back", "stop")


@dataclass(frozen=True, kw_only=True)
class TrainOption(Option):
    """Description of an option of training, without its type.

    Attributes:
        more: further sentences, for the documentation alone.
        python: what else there is to say in Python.
        convert: makes a value of text, or of what TOML has; None: the command line has no flag for
            it.
        metavar: what the help text calls its value; "" for a switch, which takes none.
        table: whether a configuration file may say it as a table.
        engines: kinds of engines that it is for (`engine_kind`); empty: all.
        check: takes the option and a value that is not None, and raises `UsageError`.
        recorded: whether it decides what a run does, so that the record of the run and its
            checkpoints have it. Others say where data come from, who computes and what is printed.
        compiled: whether the compiled code of a training step depends on it.
        command_only: for the command, refused by `fit`.
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
        shared: the declaration that this one adds to, where other commands take the option, too.
    """
    if shared is not None:
        details = {"flag": shared.flag, "metavar": shared.metavar, "file": shared.file} | details
    train_option = TrainOption(help=help_text, default=default, **details)
    return field(default=default, metadata={"option": train_option})


def to_stderr(line: str) -> None:
    """Print a line of progress."""
    sys.stderr.write(printable(line) + "\n")
    sys.stderr.flush()


def to_terminal(line: str) -> None:
    """Print a line of progress to a terminal or into a notebook's cell, else do nothing."""
    if "ipykernel" in sys.modules:
        sys.stdout.write(printable(line) + "\n")
        sys.stdout.flush()
    elif sys.stderr.isatty():
        to_stderr(line)


#: Epochs of a run at most.
MOST_EPOCHS = 10**6
#: Processes or devices at most.
_MOST_SHARES = 2**16
# Kinds of engines that leave a solution in continuous time, and that take several devices.
_IN_TIME, _SHARED = ("event", "loop", "device"), ("event", "grid", "device")


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """Options of a training run, all with a default: `fit(graph, data, options=...)`.

    >>> quick = TrainOptions(epochs=5, learning_rate=0.05)
    >>> quick.epochs, quick.batch_size, quick.loss
    (5, 64, None)
    """

    data: Splits | Data | tuple[Any, Any] | str | None = option(
        None,
        "`yinyang`, `digits`, `japanese-vowels`, `mnist`, `fashion-mnist`, `wav:FOLDER`, or an .npz",
        more="The .npz, or a folder of .npy, has x_train, y_train, x_test, y_test. `wav:FOLDER` has"
        " WORD_SPEAKER_NUMBER.wav, 0 to 4 for the test. `digits` (8x8) needs scikit-learn,"
        " `japanese-vowels` the data of aeon, `mnist` and `fashion-mnist` a folder of idx or PNG"
        " files. The arrays are"
        " values from 0 to 1, (samples, channels), and labels; or (samples, time, ...) of any value,"
        " for the time-stepped engine. Instead of `x_...` there may be `time_...` and `index_...`,"
        " (samples, events), in seconds, `inf` where there is no event. Without `x_validation` and"
        " `y_validation`, a fifth of the training samples is held out. Refused: samples without"
        " labels or labels without samples, half a validation part, NaN, labels that no output"
        " has",
        python="also `Splits`, `Data`, or (x, y)",
        convert=text,
        recorded=False,
        shared=DATA,
    )
    data_folder: str | None = option(
        None,
        "where the files of `mnist`, `fashion-mnist` or `japanese-vowels` are",
        more="Of `mnist` and `fashion-mnist` idx files, plain or gzipped, or PNG files, 8 bits a pixel,"
        " in folders train/LABEL and test/LABEL. By default Debian's Fashion-MNIST, and the vowels of"
        " an installed aeon",
        convert=text,
        recorded=False,
        shared=DATA_FOLDER,
    )
    copies: int = option(
        1,
        "`digits`, `japanese-vowels`: of each training sample, all but one distorted",
        convert=whole,
        metavar="N",
        check=at_least(1),
        recorded=False,
    )
    side: int | None = option(
        None,
        "`mnist`, `fashion-mnist`: make the images N x N pixels",
        more="Each is the mean of the area that it covers",
        convert=whole,
        metavar="N",
        check=at_least(1),
        recorded=False,
    )
    stream: int | None = option(
        None,
        "encode so many samples at once, for data that do not fit in memory; by default all",
        more="The result is the same. Arrays stay on the disk where data are a folder of .npy files",
        convert=whole,
        metavar="N",
        check=at_least(1),
        recorded=False,
    )
    loss: Loss | str | None = option(
        None,
        "`ttfs`, `mse`, `max`, `count`, `integral`, `exp-sum`, or one that is registered; by default"
        " what the output is read by",
        more="`ttfs`: cross-entropy of first spike times; `mse`: their shift-invariant squared"
        " error; `count`: cross-entropy of spike counts; of a leaky readout `max`: of largest"
        " voltages, `integral`: of integrals; `exp-sum`: of exponentially weighted sums, of"
        " either. A name stands for times in units of the tau_syn of the population that feeds the"
        " Output. By default `max` of a readout; of neurons that fire `count` where their framework or"
        " the engine steps through time, else `ttfs`",
        python="also a loss",
        convert=text,
        metavar="NAME",
        check=called(str, needs=("population", "tau", "t_max", "predict")),
    )
    loss_options: Mapping[str, Any] | None = option(
        None,
        "fields of the loss by name; `population` is the one that answers, where several feed outputs",
        convert=mapping,
        table=True,
        recorded=False,
        check=table,
    )
    encoder: Encoder | str | None = option(
        None,
        "what values become: `latency`, `current`, `rate`, ...; by default the task's own, or `latency`",
        more="`latency`: one spike each within 2 tau_syn, the largest first, as the field has it;"
        " `latency-reversed`: the smallest first; `current`: a current of that size, all the time;"
        " `rate`: a Poisson train; `population`: the channel whose centre is nearest spikes; of"
        " signals (samples, time, channels) `delta`: a spike for each step up or down, `levels`: a"
        " channel for each level that is crossed. The table has fields of the encoder."
        " Not needed where the data are events or currents, or arrays (samples, time, *shape) for"
        " the time-stepped engine",
        python="also an encoder, such as `Latency(...)`",
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
        "end of a sample, such as 40ms; by default no event of the data is left out",
        more="That is 6.5 tau_syn of the population that answers; where events come later, whole tau_syn,"
        " at least 4.5 of them after the last event. What an explicit end leaves out is counted",
        python="in seconds",
        convert=duration,
        check=positive,
        shared=T_END,
    )
    epochs: int = option(
        50,
        "passes over the training samples",
        convert=whole,
        check=at_least(1, most=MOST_EPOCHS),
        shared=EPOCHS,
    )
    batch_size: int = option(64, "samples of a step", convert=whole, metavar="N", check=at_least(1))
    learning_rate: float = option(
        0.01,
        "step of a weight in units of its kick",
        more="The kick is what a spike through the weight does, over v_threshold - v_reset: 0.01"
        " means the same in every dialect",
        python="with an optimiser of one's own it is that of weight bumping alone",
        convert=number,
        metavar="R",
        flag="lr",
        check=positive,
    )
    schedule: str | Schedule = option(
        "cosine",
        "of the learning rate: `cosine`, `constant`, `linear`, `exponential` or `warm-up`",
        more="`warm-up` rises in the first twentieth of the run, then falls like `cosine`",
        python="also an optax schedule, whose rates are taken as they are",
        convert=text,
        metavar="NAME",
    )
    optimiser: str | optax.GradientTransformation = option(
        "adam",
        "`adam`, `adamw`, `adamax`, `nadam`, `lion`, `rmsprop`, `momentum` or `sgd`",
        python="also an optax optimiser with a learning rate of its own, whose updates are added,"
        " in units of kicks",
        convert=text,
        shared=OPTIMISER,
    )
    weight_decay: float | None = option(
        None,
        "take this fraction of each weight off in a step, times the learning rate; `adamw` takes"
        " 0.01, others 0",
        convert=number,
        shared=WEIGHT_DECAY,
        check=fraction,
    )
    trainable: tuple[str, ...] | Mapping[str, Constraint | Mapping[str, Any]] = option(
        ("weight", "bias"),
        "parameters, with commas: weight, bias, tau_mem, NODE.delay, ...",
        more="Also `tau_syn`, `tau`, `v_threshold`, `v_leak`, `delay`; `NODE.NAME` is that of one"
        ' node. The table has a constraint for each: parameter = {kind = "free", "positive" or'
        ' "bounded", low, high, shared, rate}. Delays without one stay between 0 and 1 tau_syn',
        convert=names,
        table=True,
        shared=TRAINABLE,
    )
    synaptic_delays: Mapping[str, Any] | None = option(
        None,
        "Linear or Affine node -> delays of its synapses to begin with, seconds",
        more="One for all of them, which training moves apart, one for each, (outputs, inputs), or"
        " one for each source, (inputs,). They are trained where `trainable` names `delay`; in the"
        " trained graph they are nodes of their own",
        convert=mapping,
        table=True,
        recorded=False,
        check=table,
    )
    seed: Seed = option(
        0,
        "draws the data or their parts, the order of samples, and dropout: from 0 to 4294967295",
        python="also a `jax.random` key",
        convert=whole,
        check=seed_check,
        shared=SEED,
    )
    engine: Engine | str | None = option(
        None,
        "`event`: exact gradients; `grid`: in steps, with a surrogate; `loop`: on an emulated chip;"
        " by default `event` or `grid`",
        more="By default `grid` trains with arrays (samples, time, ...), and networks that the event"
        " engine does not support; a note gives the reason. `event` is in continuous time. With `loop` an emulated"
        " BrainScaleS-2 chip runs each batch, gradients are exact at the spikes that it recorded"
        " (docs/guide_chip.md); weights alone are trained",
        python="also an engine",
        convert=text,
        metavar="NAME",
        check=one_of(ENGINES),
        shared=ENGINE,
    )
    engine_options: Mapping[str, Any] | None = option(
        None,
        "`event`, `loop`: fields of the engine by name",
        more="`max_spikes`, `min_slope`, `first_spike_only`, ... of `EventDriven`; in the loop these three",
        convert=mapping,
        table=True,
        engines=("event", "loop"),
        recorded=False,
        check=table,
    )
    calibrate: float | None = option(
        None,
        "begin with weights that let this fraction of the neurons of each layer fire",
        more="Layer by layer, by a factor for all weights that feed it; a readout stays",
        convert=number,
        metavar="F",
        check=between,
    )
    surrogate: Surrogate | str | None = option(
        None,
        "`grid`: derivative of a spike: `fast-sigmoid`, `atan`, `sigmoid`, `straight-through`",
        more="`NAME:NUMBER` has another slope. By default the framework's own: snnTorch"
        " `atan:2`, Norse `fast-sigmoid:1`, Spyx `fast-sigmoid:25`, SpikingJelly"
        " `sigmoid:4`; of other files `fast-sigmoid:25`",
        python="also a surrogate, such as `ArcTan(alpha=3.0)`",
        convert=text,
        engines=("grid",),
        recorded=False,
        shared=SURROGATE,
    )
    chip_seed: int | None = option(
        None,
        "`loop`: which emulated chip; 0 by default",
        more="The seed draws what its parts do otherwise, and its noise",
        convert=whole,
        engines=("loop",),
        recorded=False,
        shared=CHIP_SEED,
    )
    headroom: float | Mapping[str, float] | None = option(
        None,
        "`loop`: weights may grow by this factor; NODE:H,... by population; 2 by default",
        more="Beyond it 63 LSB is not enough. The table has population = factor",
        convert=factors,
        metavar="H",
        table=True,
        engines=("loop",),
        recorded=False,
    )
    runs: int | None = option(
        None,
        "`loop`: at most so many runs of the chip for a batch; 1 by default",
        more="Spikes between them are recorded and replayed",
        convert=whole,
        metavar="N",
        engines=("loop",),
        recorded=False,
    )
    weight_bumping: WeightBumping | Mapping[str, Any] | None = option(
        None,
        "remedy for silent neurons: `label`, `hidden`, `hidden_fraction` of `WeightBumping`",
        more="On the time-stepped engine there is none by default",
        convert=mapping,
        table=True,
    )
    clip: float | None = option(
        None,
        "shorten gradients with a larger norm to this one",
        convert=number,
        metavar="NORM",
        check=positive,
        compiled=True,
    )
    regularisers: tuple[Regulariser, ...] = option(
        (),
        "terms of the loss, such as `SpikeRate` and `PeakMargin`",
        engines=_IN_TIME,
        compiled=True,
        check=several,
    )
    skip_step_accuracy: bool = option(
        False,
        "do not evaluate the test samples in the time steps of the source as well",
        more="Otherwise that is done once at the end, where the network comes from a framework that steps"
        " through time and is trained on another engine",
        convert=switch,
        recorded=False,
    )
    augment: Augment | Mapping[str, Any] | None = option(
        None,
        "changes each training sample: `shift`, `turn`, `scale`, `mirror`, `dropout` and others",
        more="Images are shifted by up to so many pixels, turned by degrees, scaled by a fraction,"
        " bent by pixels and mirrored with a probability, spikes moved by a time (`jitter`) and left out"
        " with a probability; all times of a sample are multiplied by a factor between e^-`stretch` and"
        " e^`stretch`, its channels move by `channel-shift` = [most groups, channels of a group, all"
        " channels]; drawn anew in each epoch. `shape`: of the images, where the data do not specify it",
        python="also `Warp`, `Stretch`, `Jitter`, `Dropout`, a `Compose` of them, or a function of (key, sample)",
        convert=mapping,
        table=True,
        compiled=True,
        check=called(Mapping),
    )
    dropout: float = option(
        0.0,
        "leave out each input spike with this probability while training",
        more="From 0 to 1, 1 excluded",
        convert=number,
        metavar="P",
        recorded=False,
    )
    noise: Mapping[str, float] | tuple[tuple[str, float], ...] | None = option(
        None,
        "noise of parameters while training, drawn for each batch: weight:S,v_threshold:S",
        more="S is the standard deviation as a fraction, of a threshold's distance from the leak;"
        " input_gain:S one factor for each neuron and sign, driver_gain:S one for each sender;"
        " what is trained then stands deviations of a chip that it never saw",
        convert=by_name,
        shared=NOISE,
        table=True,
        engines=("event", "grid"),
        compiled=True,
    )
    ema_decay: float = option(
        0.0,
        "decay per step of an exponential moving average of the parameters, such as 0.995",
        more="The average is evaluated and kept; 0: none",
        convert=number,
        metavar="A",
        check=fraction,
        compiled=True,
    )
    patience: int | None = option(
        None,
        "stop after N epochs without a better validation",
        convert=whole,
        metavar="N",
        check=at_least(1),
    )
    on_failure: str = option(
        "back",
        "`back`: to the best epoch, with smaller steps; `stop`",
        more="A run fails where a number is not finite, a gradient explodes or no output fires any"
        " more; it goes back up to three times, each time with steps of a third",
        convert=text,
        metavar="WHAT",
        check=one_of(ON_FAILURE),
    )
    checkpoint: Any = option(
        None, "folder for checkpoints, written after each epoch", recorded=False
    )
    resume: bool = option(
        False,
        "go on from the checkpoint, if there is one",
        more="The result is that of a run that was never ended, bit for bit. With more `epochs` the"
        " run is extended, if its schedule is `constant` or an optax schedule: the learning rates of"
        " others depend on the number of epochs, and they are refused",
        convert=switch,
        recorded=False,
    )
    overwrite: bool = option(
        False,
        "replace a checkpoint that is not resumed, after the first evaluation; else it is an error",
        recorded=False,
    )
    devices: int | None = option(
        None,
        "share the samples of each batch out over N devices",
        more="By default one, or all of several processes",
        convert=whole,
        metavar="N",
        engines=_SHARED,
        check=at_least(1, _MOST_SHARES),
        recorded=False,
    )
    coordinator: str | None = option(
        None,
        "address of process 0, where several processes train together",
        more="On each host the same options, and the number of its own process",
        convert=text,
        metavar="HOST:PORT",
        recorded=False,
    )
    processes: int = option(
        1,
        "how many processes train together",
        convert=whole,
        metavar="N",
        engines=_SHARED,
        check=at_least(1, _MOST_SHARES),
        recorded=False,
    )
    process: int = option(
        0, "number of this process, from 0", convert=whole, metavar="I", recorded=False
    )
    progress: Callable[[str], None] | None = option(
        to_terminal,
        "takes one line for each epoch; by default shown in a terminal and a notebook; None is quiet",
        recorded=False,
        check=called(),
    )
    plot: str | None = option(
        None,
        "draw the learning curve: .png, .svg or .pdf",
        convert=text,
        recorded=False,
        command_only=True,
        shared=PLOT,
    )

    def compiled_only(self) -> TrainOptions:
        """Return the options that the compiled code of a step depends on, all others at their
        default: equal where runs can share the code.
        """
        compiled = {
            name: getattr(self, name)
            for name, train_option in OPTIONS.items()
            if train_option.compiled
        }
        return replace(TrainOptions(), **compiled)


#: Name of the field -> what is known of the option, in the order of the record.
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


def _documented(record: type[TrainOptions]) -> str:
    """Return the docstring, with a line for each attribute."""
    lines = []
    for attribute in fields(record):
        train_option = attribute.metadata["option"]
        in_python = f"in Python {train_option.python}" if train_option.python else ""
        sentences = ". ".join(
            part for part in (train_option.help_text, train_option.more, in_python) if part
        )
        line = f"{attribute.name}: {sentences}."
        lines.append(textwrap.fill(line, 100, initial_indent=" " * 8, subsequent_indent=" " * 12))
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
            Text("options are {options}", options=repr(options)),
            fix="give TrainOptions(...), or single options",
        )
    fields_given: dict[str, Any] = {}
    for name, value in (changes or {}).items():
        if name not in OPTIONS:
            raise UsageError(
                Text("there is no option '{option}'", option=name), fix=suggestion(name, OPTIONS)
            )
        fields_given[name] = tuple(value) if isinstance(value, list) else value
    return replace(options or TrainOptions(), **fields_given)


def engine_kind(engine: Any) -> str:
    """Return the name of an engine, or its kind: "event", "grid", "loop", or "device" for an
    `InTheLoop` with a device of the user.

    Raises:
        UsageError: it is not an engine.
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
            engine, or a process that is none of them.
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
                "{setting} is for {engines}, the engine is {kind}",
                setting=train_option.set_to(value) if is_short else train_option,
                engines=OPTIONS["engine"].set_to(*engines),
                kind=kind,
            )
            raise UsageError(message, fix=Text("leave out {setting}", setting=train_option.title))
    _refuse_processes(options)


def _refuse_processes(options: TrainOptions) -> None:
    """Refuse an invalid process number, and several processes without a way to find each other."""
    processes, process = options.processes, options.process
    if not 0 <= process < processes:
        message = Text(
            "{option} is {process} of {processes}",
            option=OPTIONS["process"],
            process=process,
            processes=processes,
        )
        fix = Text(
            "number them from 0 to {processes}, or set {option}",
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
                "{processes} processes need an address at which they find each other",
                processes=processes,
            ),
            fix=fix,
        )


# -- the command line, its configuration file and its documentation


def flag_of(name: str) -> str:
    """Return the name of an option on the command line, without "--".

    >>> flag_of("learning_rate"), flag_of("batch_size")
    ('lr', 'batch-size')
    """
    return OPTIONS[name].long_flag.removeprefix("--")


def names_in_files() -> dict[str, str]:
    """Map each name in a configuration file, with "-", to its option."""
    options_by_name = {}
    for name, train_option in OPTIONS.items():
        if train_option.convert is not None:
            options_by_name |= {name.replace("_", "-"): name, flag_of(name): name}
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
    rows = ["| option | does |", "|---|---|"]
    for name, train_option in OPTIONS.items():
        if train_option.convert is None:
            continue
        flag = flag_of(name)
        spelled = [f"`--{flag}`"] if train_option.has_flag else []
        if train_option.table:
            spelled.append(f"`[{name.replace('_', '-')}]`")
        description = (
            f"{help_of(name)}. {train_option.more}" if train_option.more else help_of(name)
        )
        rows.append(f"| {', '.join(spelled)} | {description} |")
    return "\n".join(rows)
