"""The options that several commands take, or that advice names, each declared once.

The command line, its configuration file, shell completion, the reference page of options and the
wording of advice come from these declarations. Options of a single command are declared in its file,
those of training in `jaxsnn.train.options`, those of one framework in the framework's file.
"""

from __future__ import annotations

from jaxsnn.wording import Option

#: How an option that may differ from node to node is set, for its help.
PER_NODE = "may be repeated as NODE:VALUE"


# What a NIR file does not say: keyword arguments of `jaxsnn.read`

_READ = ("jaxsnn.read",)

DIALECT = Option(
    name="dialect",
    help="who wrote the file: auto (default: from the numbers, or refused) or a framework, "
    "NAME==VERSION where versions differ",
    metavar="NAME",
    functions=_READ,
)
DT = Option(name="dt", help="length of a time step, such as 100us", metavar="TIME", functions=_READ)
TIME_UNIT = Option(
    name="time_unit",
    help="unit of the file's time constants: s, ms or step",
    metavar="UNIT",
    values=("s", "ms", "step"),
    functions=_READ,
)
RESET = Option(
    name="reset",
    help=f"zero (V becomes v_reset), subtract (V loses v_threshold) or none; {PER_NODE}",
    metavar="KIND",
    repeated=True,
    values=("zero", "subtract", "none"),
    functions=_READ,
)
RESET_DELAY = Option(
    name="reset_delay",
    help=f"true: a spike resets one step later; {PER_NODE}",
    metavar="BOOL",
    repeated=True,
    values=("true", "false"),
    functions=_READ,
)
SPIKE_KERNEL = Option(
    name="spike_kernel",
    help=f"a spike is a delta, or a box that lasts one step; {PER_NODE}",
    metavar="KIND",
    repeated=True,
    values=("delta", "box"),
    functions=_READ,
)
INITIAL = Option(
    name="initial",
    help=f"where V starts: zero, v_leak or v_reset; {PER_NODE}",
    metavar="KIND",
    repeated=True,
    values=("zero", "v_leak", "v_reset"),
    functions=_READ,
)
MIN_V_MEM = Option(
    name="min_v_mem",
    help="Sinabs: V is raised to this at the end of each step, or none",
    functions=_READ,
)
READOUT = Option(
    name="readout",
    help="a neuron that spikes in the file but was trained as a leaky readout, or whose membrane was"
    " recorded: then say its reset, too; may be repeated",
    metavar="NODE",
    repeated=True,
    functions=_READ,
)
#: Options of `jaxsnn.read` that files of every framework may need; those of single frameworks come
#: after DT.
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

# What every command takes

JSON = Option(name="json", help="print one JSON object", is_switch=True)
QUIET = Option(name="quiet", help="no progress, no notes", other_flags=("-q",), is_switch=True)
VERBOSE = Option(
    name="verbose", help="say more about what was decided", other_flags=("-v",), is_switch=True
)
DEBUG = Option(name="debug", help="show the traceback of an error", is_switch=True)
READ_TIMEOUT = Option(
    name="read_timeout",
    help="give up reading a file after this time (default 60s)",
    metavar="TIME",
    default="60s",
    functions=("jaxsnn.nir.limit_reading",),
)
MAX_BYTES = Option(
    name="max_bytes",
    help="most bytes of the arrays of a file, decoded (default 2147483648, or JAXSNN_MAX_BYTES)",
    metavar="N",
    convert=int,
    functions=("jaxsnn.nir.limit_reading",),
)

# Files that are written

OUTPUT = Option(name="output", other_flags=("-o",), file="file")
FORCE = Option(
    name="force",
    help="overwrite files that exist",
    is_switch=True,
    functions=("jaxsnn.nir.write",),
)
REPORT = Option(
    name="report",
    help="write what was done as one HTML page, pictures inside",
    metavar="R.html",
    file="file",
)
PLOT = Option(name="plot", metavar="PICTURE", file="file")

# Simulation


def _number_or_auto(text: str) -> int | str:
    try:
        return text if text == "auto" else int(text)
    except ValueError:
        raise ValueError(f"'{text}' is not a whole number, nor auto") from None


ENGINE = Option(
    name="engine",
    help="event: exact, in continuous time (default); grid: in steps, as the framework that wrote the file",
    default="event",
    python_values={"event": "EventDriven()", "grid": "TimeStepped()"},
    command="run",
    functions=("jaxsnn.simulate", "jaxsnn.train.fit"),
)
T_END = Option(
    name="t_end",
    help="end of a sample, such as 40ms",
    metavar="TIME",
    command="run",
    functions=("jaxsnn.simulate",),
)
MAX_SPIKES = Option(
    name="max_spikes",
    help='fail where a neuron fires more often (default "auto": all are recorded, up to 16384)',
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
    help="what x holds: spikes, a current that is held for each step, graded (a spike of that "
    "size in each step), or auto (default): spikes where all are whole numbers from 0, else a current",
    metavar="KIND",
    default="auto",
    command="run",
)
INPUT = Option(name="input", metavar="X.npz", file="file")
RECORDING = Option(name="recording", metavar="R.npz", file="file")

# Data and training, as far as several commands or the layers below `train` name them

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
TRAINABLE = Option(
    name="trainable",
    flag="train",
    metavar="NAMES",
    command="train",
    functions=("jaxsnn.train.fit",),
)
CHIP_SEED = Option(
    name="chip_seed", help="which chip (default 0)", metavar="N", default=0, convert=int
)
MAX_RUNS = Option(
    name="max_runs",
    help="at most so many runs (default: as few as can be found)",
    flag="runs",
    metavar="N",
    convert=int,
    functions=("jaxsnn.bss2.search.portfolio.place_and_route",),
)

# Conversion

TO = Option(name="to", metavar="NAME", required=True, command="convert")
INPUT_RANGE = Option(
    name="input_range",
    help="what an input channel carries in a step; default: 0:1, spikes",
    metavar="LOW:HIGH",
    default="0:1",
    command="convert",
    functions=("jaxsnn.convert",),
)
APPROXIMATE = Option(
    name="approximate",
    help="do the nearest thing, and say what that loses",
    is_switch=True,
    command="convert",
    functions=("jaxsnn.convert",),
)

# The chip

SIGNS = Option(
    name="signs",
    help="fixed: as they are (default); free: training may flip them",
    default="fixed",
    command="map",
    functions=("jaxsnn.bss2.search.portfolio.place_and_route",),
)
TIME_LIMIT = Option(
    name="time_limit",
    help="start no attempt later (default 60s)",
    metavar="TIME",
    default="60s",
    command="map",
    functions=("jaxsnn.bss2.search.portfolio.place_and_route",),
)
CHIPS = Option(
    name="chips",
    help="several: one for each run, all in one pass, spikes passed on by hosts",
    default="one",
    choices=("one", "several"),
    command="emulate",
)
SCALE = Option(
    name="scale",
    help="max (default), percentile or least-error: of whole weights; not needed where M.json has its scales",
    command="map",
)
PERCENTILE = Option(
    name="percentile",
    help="which percentile, for the scale percentile (default 99)",
    metavar="P",
    convert=float,
    command="map",
)
SYNAPSES_PER_WEIGHT = Option(
    name="synapses_per_weight",
    help="at most so many synapses add up to one weight (default 1)",
    metavar="N",
    default=1,
    convert=int,
    command="map",
)
SPEEDUP = Option(
    name="speedup",
    help="speed-up of the chip over the file's time (default 1000, or the nearest)",
    metavar="F",
    convert=float,
    command="map",
)
SLOPE = Option(
    name="slope",
    help="CADC LSB per us by which one LSB of a weight changes dV/dt on the chip, or a table",
    metavar="S|T.json",
    file="file",
    command="map",
)
BIAS = Option(
    name="bias",
    help="refuse (default); source: regular spikes stand in for biases",
    default="refuse",
    command="map",
)
BIAS_PERIOD = Option(
    name="bias_period",
    help="chip time between the spikes that stand in for biases (default 1us)",
    metavar="TIME",
    command="map",
)
#: Fields of `jaxsnn.bss2.QuantizeOptions`; the mapping is checked and deployed with the values that
#: it was made with.
QUANTIZE_OPTIONS = (
    SCALE,
    PERCENTILE,
    SYNAPSES_PER_WEIGHT,
    SPEEDUP,
    SLOPE,
    BIAS,
    BIAS_PERIOD,
    APPROXIMATE.but(help="let neurons that subtract v_threshold at a reset reset to v_reset"),
)
