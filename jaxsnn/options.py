"""Declarations of the options that several commands take or that advice refers to.

The command line, its configuration file, shell completion, the reference page of options and the
wording of advice come from these declarations. Options of a single command are declared in its file,
those of training in `jaxsnn.train.options`, those of one framework in the framework's file.
"""

from __future__ import annotations

from jaxsnn.wording import Option

#: Part of the help of options that may differ from node to node.
PER_NODE = "may be repeated as NODE:VALUE"


# Conventions that a NIR file does not specify: keyword arguments of `jaxsnn.read`

_READ = ("jaxsnn.read",)

DIALECT = Option(
    name="dialect",
    help="framework that wrote the file, NAME or NAME==VERSION; auto (default) infers it from "
    "the parameters",
    metavar="NAME",
    functions=_READ,
)
DT = Option(name="dt", help="length of a time step, such as 100us", metavar="TIME", functions=_READ)
TIME_UNIT = Option(
    name="time_unit",
    help="unit of the time constants in the file: s, ms or step",
    metavar="UNIT",
    values=("s", "ms", "step"),
    functions=_READ,
)
RESET = Option(
    name="reset",
    help=f"effect of a spike: zero (V is set to v_reset), subtract (V decreases by v_threshold) or none; {PER_NODE}",
    metavar="KIND",
    repeated=True,
    values=("zero", "subtract", "none"),
    functions=_READ,
)
RESET_DELAY = Option(
    name="reset_delay",
    help=f"true if the reset takes effect one time step after the spike, else false; {PER_NODE}",
    metavar="BOOL",
    repeated=True,
    values=("true", "false"),
    functions=_READ,
)
SPIKE_KERNEL = Option(
    name="spike_kernel",
    help=f"shape of a spike: delta, or box (a rectangular pulse of one time step); {PER_NODE}",
    metavar="KIND",
    repeated=True,
    values=("delta", "box"),
    functions=_READ,
)
INITIAL = Option(
    name="initial",
    help=f"initial membrane potential: zero, v_leak or v_reset; {PER_NODE}",
    metavar="KIND",
    repeated=True,
    values=("zero", "v_leak", "v_reset"),
    functions=_READ,
)
MIN_V_MEM = Option(
    name="min_v_mem",
    help="Sinabs: lower bound of the membrane potential at the end of each time step, or none",
    functions=_READ,
)
READOUT = Option(
    name="readout",
    help="neuron that spikes in the file, but whose membrane potential was trained or "
    "recorded as the output; pass its reset, too, if it resets; may be repeated",
    metavar="NODE",
    repeated=True,
    functions=_READ,
)
#: Options of `jaxsnn.read` that files of any framework may need. Options of single frameworks are
#: inserted after DT.
FILE_OPTIONS = (
    DIALECT,
    DT,
    TIME_UNIT,
    RESET,
    RESET_DELAY,
    SPIKE_KERNEL,
    INITIAL,
    READOUT,
)

# Options of every command

JSON = Option(name="json", help="print one JSON object", is_switch=True)
QUIET = Option(
    name="quiet", help="print no progress and no notes", other_flags=("-q",), is_switch=True
)
VERBOSE = Option(
    name="verbose",
    help="print more details, such as why a dialect was chosen",
    other_flags=("-v",),
    is_switch=True,
)
DEBUG = Option(name="debug", help="show the traceback of an error", is_switch=True)
READ_TIMEOUT = Option(
    name="read_timeout",
    help="time limit for reading a file (default 60s)",
    metavar="TIME",
    default="60s",
    functions=("jaxsnn.nir.limit_reading",),
)
MAX_BYTES = Option(
    name="max_bytes",
    help="maximum size of the decoded arrays of a file, in bytes (default 2147483648, or "
    "JAXSNN_MAX_BYTES)",
    metavar="N",
    convert=int,
    functions=("jaxsnn.nir.limit_reading",),
)

# Output files

OUTPUT = Option(name="output", other_flags=("-o",), file="file")
FORCE = Option(
    name="force",
    help="overwrite existing files",
    is_switch=True,
    functions=("jaxsnn.nir.write",),
)
REPORT = Option(
    name="report",
    help="write a report as one HTML file, including the pictures",
    metavar="R.html",
    file="file",
)
NEUROBENCH = Option(
    name="neurobench",
    help="compute the metrics of NeuroBench: footprint, sparsities and synaptic operations",
    is_switch=True,
)
PLOT = Option(name="plot", metavar="PICTURE", file="file")

# Simulation


def _number_or_auto(text: str) -> int | str:
    try:
        return text if text == "auto" else int(text)
    except ValueError:
        raise ValueError(f"'{text}' is neither an integer nor auto") from None


ENGINE = Option(
    name="engine",
    help="event (default): event-driven, exact in continuous time; grid: time-stepped, like "
    "the framework that wrote the file",
    default="event",
    python_values={"event": "EventDriven()", "grid": "TimeStepped()"},
    command="run",
    functions=("jaxsnn.simulate", "jaxsnn.train.fit"),
)
T_END = Option(
    name="t_end",
    help="duration of a sample, such as 40ms",
    metavar="TIME",
    command="run",
    functions=("jaxsnn.simulate",),
)
MAX_SPIKES = Option(
    name="max_spikes",
    help="maximum number of spikes per neuron and sample; the run fails if a neuron fires "
    'more often (default "auto": as many as needed, up to 16384)',
    metavar="N",
    default="auto",
    convert=_number_or_auto,
    command="run",
    functions=("jaxsnn.EventDriven",),
)
SURROGATE = Option(
    name="surrogate", metavar="NAME", command="train", functions=("jaxsnn.train.fit",)
)
VALUES = Option(
    name="values",
    help="meaning of the values in x: spikes, current (constant within a time step), graded "
    "(spikes of that size), or auto (default): spikes if all values are non-negative "
    "integers, else current",
    metavar="KIND",
    default="auto",
    command="run",
)
INPUT = Option(name="input", metavar="X.npz", file="file")
RECORDING = Option(name="recording", metavar="R.npz", file="file")

# Options of data and training that several commands, or layers below `train`, use

DATA = Option(name="data", metavar="D", file="file", functions=("jaxsnn.train.fit",))
DATA_FOLDER = Option(
    name="data_folder", metavar="DIR", file="folder", functions=("jaxsnn.train.fit",)
)
ENCODER = Option(name="encoder", metavar="NAME", command="train", functions=("jaxsnn.train.fit",))
NOISE = Option(name="noise", metavar="NAME:S", command="train", functions=("jaxsnn.train.fit",))
SEED = Option(name="seed", metavar="N", default=0, convert=int)
EPOCHS = Option(name="epochs", metavar="N", default=50, convert=int)
OPTIMISER = Option(
    name="optimiser", metavar="NAME", command="train", functions=("jaxsnn.train.fit",)
)
WEIGHT_DECAY = Option(
    name="weight_decay", metavar="D", command="train", functions=("jaxsnn.train.fit",)
)
LEARNING_RATE = Option(name="learning_rate", other_flags=("--lr",))
TRAINABLE = Option(
    name="trainable",
    flag="train",
    other_flags=("--trainable",),
    metavar="NAMES",
    command="train",
    functions=("jaxsnn.train.fit",),
)
CHIP_SEED = Option(
    name="chip_seed",
    help="random seed of the emulated chip (default 0)",
    metavar="N",
    default=0,
    convert=int,
)
MAX_RUNS = Option(
    name="max_runs",
    help="maximum number of runs on the chip (default: as few as the search reaches)",
    flag="runs",
    other_flags=("--max-runs",),
    metavar="N",
    convert=int,
    functions=("jaxsnn.bss2.search.portfolio.place_and_route",),
)

# Conversion

TO = Option(name="to", metavar="NAME", required=True, command="convert")
INPUT_RANGE = Option(
    name="input_range",
    help="range of the values of an input channel in a time step (default 0:1, spikes)",
    metavar="LOW:HIGH",
    default="0:1",
    command="convert",
    functions=("jaxsnn.convert",),
)
APPROXIMATE = Option(
    name="approximate",
    help="approximate what cannot be converted exactly, and report the losses",
    is_switch=True,
    command="convert",
    functions=("jaxsnn.convert",),
)

# The chip

SIGNS = Option(
    name="signs",
    help="signs of the weights: fixed (default), or free, so that training on the chip can "
    "change them",
    default="fixed",
    command="map",
    functions=("jaxsnn.bss2.search.portfolio.place_and_route",),
)
TIME_LIMIT = Option(
    name="time_limit",
    help="time of the search (default 60s): all of it is used unless a mapping is found, the network is "
    "proven impossible, or no strategy is left",
    metavar="TIME",
    default="60s",
    command="map",
    functions=("jaxsnn.bss2.search.portfolio.place_and_route",),
)
CHIPS = Option(
    name="chips",
    help="one (default), or several: one chip per run, all in one pass; hosts pass spikes on "
    "between chips",
    default="one",
    choices=("one", "several"),
    command="emulate",
)
SCALE = Option(
    name="scale",
    help="choice of the scale of integer weights: balanced (default), max, percentile or "
    "least-error",
    command="map",
)
PERCENTILE = Option(
    name="percentile",
    help="percentile of the magnitudes of weights, for the scale percentile (default 99)",
    metavar="P",
    convert=float,
    command="map",
)
SYNAPSES_PER_WEIGHT = Option(
    name="synapses_per_weight",
    help="maximum number of synapses whose sum represents one weight (default 1)",
    metavar="N",
    convert=int,
    command="map",
)
SPEEDUP = Option(
    name="speedup",
    help="speedup of the chip relative to the time in the file (default 1000, or the nearest "
    "possible value)",
    metavar="F",
    convert=float,
    command="map",
)
SLOPE = Option(
    name="slope",
    help="measured change of dV/dt on the chip per LSB of a weight, in CADC LSB per us; or a "
    "table of such measurements",
    metavar="S|T.json",
    file="file",
    command="map",
)
BIAS = Option(
    name="bias",
    help="treatment of biases: refuse (default), leak, which shifts the leak potential of each neuron, "
    "or source, which replaces them by regular spikes",
    command="map",
)
BIAS_PERIOD = Option(
    name="bias_period",
    help="interval, in chip time, of the spikes that replace biases (default 1us)",
    metavar="TIME",
    command="map",
)
V_LEAK = Option(
    name="v_leak",
    help="leak potential of neurons without biases, in CADC LSB (default 80)",
    metavar="LSB",
    convert=int,
    command="map",
)
V_THRESHOLD = Option(
    name="v_threshold",
    help="potential of the threshold that is highest above its leak, in CADC LSB (default 150)",
    metavar="LSB",
    convert=int,
    command="map",
)
REFRACTORY_TIME = Option(
    name="refractory_time",
    help="refractory period of the neurons, in chip time (default 1us)",
    metavar="TIME",
    command="map",
)
#: Fields of `jaxsnn.bss2.search.quantize.QuantizeOptions`.
QUANTIZE_OPTIONS = (
    SCALE,
    PERCENTILE,
    SYNAPSES_PER_WEIGHT,
    SPEEDUP,
    SLOPE,
    BIAS,
    BIAS_PERIOD,
    V_LEAK,
    V_THRESHOLD,
    REFRACTORY_TIME,
    APPROXIMATE.but(help="let neurons that subtract v_threshold at a reset reset to v_reset"),
)
#: The same for commands that run a mapping, which stores the values with which it was created.
OPTIONS_OF_MAPPING = tuple(
    option.but(help="as for jaxsnn map; default: the value in M.json, and others are refused")
    for option in QUANTIZE_OPTIONS
)
