"""What can be wrong: the exceptions of this library, and `Problem`, the one record that they carry.

A problem says what is wrong and where (the NIR node's name, the two numbers), and separately what
to do about it. Advice is written in the words of Python, `dt=1e-4`; the command line translates it
to `--dt 1e-4` (`in_flags`).
"""

from __future__ import annotations

import difflib
import math
import operator
import os
import re
import sys
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self

Severity = Literal["error", "warning", "note"]
#: What a note is about: the kinds other than "information" are also issued as a warning.
NoteKind = Literal["dropped", "truncated", "approximated", "assumed", "information"]


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One thing that is wrong with a graph, a network, a mapping or a conversion.

    Attributes:
        node: NIR name of the node, or the place on a chip; "" for the whole.
        code: what kind of problem, for scripts: "not-said", "shape-mismatch", ...
        message: what is wrong, in one line without a full stop.
        fix: what to do about it, in one line; "" if there is nothing to do.
        severity: an "error" stands in the way; a "warning" may matter or not; a "note" informs.

    >>> print(Problem(code="not-said", message="the length of a step is unknown", fix="pass dt=1e-4"))
    the length of a step is unknown: pass dt=1e-4
    """

    node: str = ""
    code: str = ""
    message: str
    fix: str = ""
    severity: Severity = "error"

    def __str__(self) -> str:
        return f"{self.message}: {self.fix}" if self.fix else self.message

    def as_dict(self) -> dict[str, str]:
        """For JSON, in the words of the command line."""
        return {
            "node": self.node,
            "code": self.code,
            "severity": self.severity,
            "message": in_flags(self.message),
            "fix": in_flags(self.fix),
        }

    def as_text(self) -> str:
        """For people at the command line."""
        return in_flags(str(self))


class JaxsnnError(Exception):
    """Base class of everything that this library raises on purpose.

    Args:
        message: what is wrong, where, and the two numbers, in one line.
        fix: what to do about it, in the words of Python: "pass dt=1e-4".
        node: NIR name of the node that it is about.
        code: what kind of problem, for scripts; by default the one of the class.

    Attributes:
        problem: the same as a record.
        others: problems beside it that are counted only.
        exit_code: of the command line: 1 if the input has problems, 2 if the usage or a tool
            failed.
    """

    exit_code: ClassVar[int] = 1
    default_code: ClassVar[str] = "error"

    def __init__(self, message: str, *, fix: str = "", node: str = "", code: str = "") -> None:
        code = code or self.default_code
        self.problem = Problem(node=node, code=code, message=message, fix=fix)
        self.others: tuple[Problem, ...] = ()
        super().__init__(str(self.problem))

    @classmethod
    def of(cls, problems: Problem | Sequence[Problem]) -> Self:
        """The exception for the first of some problems, which says how many more there are."""
        found = (problems,) if isinstance(problems, Problem) else tuple(problems)
        first, others = found[0], len(found) - 1
        more = f" (and {others} more problem{'s' if others > 1 else ''})" if others else ""
        message, fix = (
            (first.message, first.fix + more) if first.fix else (first.message + more, "")
        )
        error = cls(message, fix=fix, node=first.node, code=first.code)
        error.others = found[1:]
        return error

    @property
    def fix(self) -> str:
        """What to do about it."""
        return self.problem.fix

    @property
    def node(self) -> str:
        """NIR name of the node that it is about; "" if about none."""
        return self.problem.node

    def __reduce__(self) -> Any:
        # Exceptions are pickled with their arguments alone, which are not those of the constructor.
        problem = self.problem
        return _rebuilt, (type(self), problem.message, problem.fix, problem.node, problem.code)


def _rebuilt(cls: type[JaxsnnError], message: str, fix: str, node: str, code: str) -> JaxsnnError:
    return cls(message, fix=fix, node=node, code=code)


class FileError(JaxsnnError):
    """A file that cannot be read as NIR, or cannot be written."""

    exit_code = 2
    default_code = "file"


class UsageError(JaxsnnError):
    """An argument or option that makes no sense."""

    exit_code = 2
    default_code = "usage"


class GraphError(JaxsnnError):
    """A graph that is broken: an edge, a shape or a number."""

    default_code = "broken"


class UnsupportedNodeError(GraphError):
    """A node type that this library does not know."""

    default_code = "unknown-type"


class DialectError(JaxsnnError):
    """Something that a NIR file does not say is needed, or was said and contradicts the file."""

    default_code = "not-said"


class LoweringError(JaxsnnError):
    """A graph that is sound but that an engine cannot run."""

    default_code = "cannot-lower"


class ConversionError(JaxsnnError):
    """A graph that another simulator's importer cannot express."""

    default_code = "cannot-convert"


class MappingError(JaxsnnError):
    """A network that a chip cannot run as it is, or a netlist or mapping that is none."""

    default_code = "cannot-map"


class SimulationError(JaxsnnError):
    """A simulation that ended without a result."""

    default_code = "failed"


class ApproximationWarning(UserWarning):
    """Warning about data or results that were dropped, truncated, approximated or assumed.

    `warnings.filterwarnings("ignore", category=jaxsnn.ApproximationWarning)` silences it.
    """


class Note(str):
    """A sentence for the user with its kind; a plain `str` among notes is information.

    Attributes:
        kind: what the note is about.
        code: what it says, for scripts: "late-events", "continuous-time", ...

    >>> note = Note("input 'in': 2 events were left out", kind="dropped", code="late-events")
    >>> print(note, note.kind)
    input 'in': 2 events were left out dropped
    """

    kind: NoteKind
    code: str

    def __new__(cls, text: str, kind: NoteKind = "information", code: str = "") -> Self:
        """Make the note of its text."""
        note = super().__new__(cls, text)
        note.kind, note.code = kind, code
        return note


def concerns_data(note: str) -> bool:
    """Return whether a note says that data or results were dropped, truncated, approximated or
    assumed.
    """
    return isinstance(note, Note) and note.kind != "information"


#: Frames of these files stand between a public function and the line that calls it.
_PACKAGE = os.path.dirname(os.path.abspath(__file__)) + os.sep
_BETWEEN = ("contextlib.py", "functools.py", f"network{os.sep}promotion.py")


def warn_of(notes: Iterable[str]) -> None:
    """Issue the notes that concern data as one `ApproximationWarning`, at the line of the user that
    called the public function.

    Call it in a public function, with the notes of what that function returns. Where the package
    itself calls the public function nothing is issued: the outer function returns the notes that
    matter, and issues those.
    """
    serious = [str(note) for note in dict.fromkeys(notes) if concerns_data(note)]
    if not serious:
        return
    # level 1 of `warnings.warn` is this function, level 2 the public one
    frame, level = sys._getframe(1).f_back, 3
    while frame is not None and frame.f_code.co_filename.endswith(_BETWEEN):
        frame, level = frame.f_back, level + 1
    if frame is None or frame.f_code.co_filename.startswith(_PACKAGE):
        return
    warnings.warn("\n".join(serious), ApproximationWarning, stacklevel=level)


def refuse(problems: Iterable[Problem], error: type[JaxsnnError] = LoweringError) -> None:
    """Raise an error for the first problem, if there is one."""
    first = next(iter(problems), None)
    if first is not None:
        raise error.of(first)


#: Keyword arguments that the command line spells otherwise than `--name value`.
_FLAGS = {
    "engine=EventDriven()": "--engine event",
    "engine=TimeStepped()": "--engine grid",
}
#: Commands that have --engine: elsewhere advice on it names the first of them.
WITH_ENGINE = ("run", "train")
#: Options of quantisation, and the commands that have them: the others' advice names the first.
_QUANTISATION = ("bias", "bias_period", "percentile", "slope", "speedup", "synapses_per_weight")
WITH_QUANTISATION = ("map", "deploy", "emulate")
_command: ContextVar[str] = ContextVar("command", default="")
#: Options whose name in Python is another one.
_SPELLED = {
    "folder": "--data-folder",
    "learning_rate": "--lr",
    "max_runs": "--runs",
    "placers": "--placer",
    "routers": "--router",
    "trainable": "--train",
}
#: Keyword arguments that are options of the command line; others stay as they are in advice.
# fmt: off
OPTIONS = frozenset((
    "approximate", "batch_size", "bias", "bias_period", "chip_seed", "chips", "clip", "config", "coordinator", "copies",
    "data", "data_folder", "devices", "dialect", "dropout", "dt", "dt_export", "encoder", "engine",
    "epochs", "force", "headroom", "initial", "input_range", "loss", "lr", "max_bytes", "max_spikes", "min_v_mem",
    "norm_input", "on_failure", "optimiser", "patience", "percentile", "plot", "process", "processes",
    "read_timeout", "readout", "reset", "reset_delay", "reset_size", "resume", "runs", "scale", "scale_spikes",
    "schedule", "seed", "signs", "slope",
    "speedup", "spike_area", "spike_fn", "spike_kernel", "spikes_per_sample", "svg", "synapses_per_weight", "t_end",
    "time_limit", "time_unit", "to", "to_dt", "train", "trial", "values", "verify",
))
# fmt: on
#: Options of the command line that others bring: frameworks from outside, the record of training.
_ADDED: set[str] = set()
_SWITCHES = ("approximate", "force", "resume")
_VALUE = r"""\{[^{}]*\}|\[[^\[\]]*\]|"[^"]*"(?:(?:, | or )"[^"]*")*|'[^']*'|[\w.+-]*(?:\(\))?"""
_KEYWORD = re.compile(rf"(?<![\w-])([a-z_]+)=({_VALUE})")
#: The beginning of a message on an option: its value, what it names, or that it has no effect.
_TOLD = re.compile(
    r"([a-z_]+) (?=is (?:['\"]|-?(?:\d|inf\b|nan\b)|True\b|for the )|names '"
    r"|(?:of [^:]* )?(?:has no effect|is said twice)\b)"
)
#: The end of a sample in running text, alone or as `t_end = 40 ms`.
_END = re.compile(r"(?<![\w.-])t_end\b(?: =(?= \d)|(?! ?=| is))")
#: The end of a text within the brackets of a call.
_CALLED = re.compile(r"\w\([^()]*$")


def in_flags(text: str) -> str:
    """Text that speaks of keyword arguments, in the words of the command line.

    >>> in_flags("pass dt=1e-4, or spike_kernel={'lif': 'box'} and force=True")
    'pass --dt 1e-4, or --spike-kernel lif:box and --force'

    An option at the beginning that is said to have a value, or no effect, is one of these, too.

    >>> in_flags("learning_rate is 0: give a positive, finite number")
    '--lr is 0: give a positive, finite number'

    Of several values none keeps its quotes.

    >>> in_flags('take loss="ttfs", "mse" or "count", or another')
    'take --loss ttfs, mse or count, or another'

    The end of a sample loses its equals sign.

    >>> in_flags("2 events at or after t_end = 40 ms were left out")
    '2 events at or after --t-end 40 ms were left out'

    What stands in a call stays as it is.

    >>> in_flags("the encoder is Latency(t_min=0.0, bias=True)")
    'the encoder is Latency(t_min=0.0, bias=True)'
    """
    told = _TOLD.match(text)
    if told and (told[1] in OPTIONS | _ADDED or told[1] in _SPELLED):
        text = flag_name(told[1]) + text[told.end(1) :]
    return _END.sub(flag_name("t_end"), _KEYWORD.sub(_as_flag, text))


@contextmanager
def advice_for(command: str) -> Iterator[None]:
    """While a command runs, advice is in its own flags.

    >>> with advice_for("train"):
    ...     print(in_flags("simulate with engine=TimeStepped(), or end earlier with t_end"))
    simulate with --engine grid, or end earlier with --t-end
    >>> in_flags("simulate with engine=TimeStepped()")
    'simulate with jaxsnn run --engine grid'

    What another command has is named with it.

    >>> with advice_for("check"):
    ...     print(in_flags('replace them by regular spikes, bias="source"'))
    replace them by regular spikes, jaxsnn map --bias source
    """
    before = _command.set(command)
    try:
        yield
    finally:
        _command.reset(before)


def flag_name(name: str) -> str:
    """The flag of a keyword argument.

    >>> flag_name("max_spikes"), flag_name("learning_rate")
    ('--max-spikes', '--lr')
    """
    return _SPELLED.get(name, f"--{name.replace('_', '-')}")


def add_option(name: str) -> None:
    """Make a keyword argument known as an option of the command line: of `jaxsnn.nir.read`, as a
    framework from outside has it, or of training.
    """
    _ADDED.add(name)


def _as_flag(found: re.Match[str]) -> str:
    name, value = found.groups()
    if _CALLED.search(found.string[: found.start()]):
        return found.group()
    if (flag := _FLAGS.get(found.group())) is not None:
        return flag if _command.get() in WITH_ENGINE else f"jaxsnn {WITH_ENGINE[0]} {flag}"
    if name not in OPTIONS | _ADDED and name not in _SPELLED:
        return found.group()
    flag = flag_name(name)
    if name in _QUANTISATION and _command.get() not in ("", *WITH_QUANTISATION):
        flag = f"jaxsnn {WITH_QUANTISATION[0]} {flag}"
    if value in ("True", "False"):
        return flag if name in _SWITCHES else f"{flag} {value.lower()}"
    end = "." if value.endswith(".") else ""  # of the sentence
    plain = value.removesuffix(".").strip("{}[]").replace("'", "").replace('"', "")
    return f"{flag} {plain.replace(': ', ':')}".rstrip() + end


def listing(names: Iterable[object], limit: int = 12) -> str:
    """Names for a message, joined by commas; a long list is cut and the number left out is said.

    >>> listing(["a", "b", "c"], limit=2)
    'a, b and 1 more'
    """
    texts = [str(name) for name in names]
    if len(texts) <= limit:
        return ", ".join(texts) if texts else "none"
    return f"{', '.join(texts[:limit])} and {len(texts) - limit} more"


def suggestion(name: str, names: Iterable[str]) -> str:
    """The names that exist, the nearest one first if one is near.

    >>> suggestion("hiden", ["hidden", "output"])
    "did you mean 'hidden'? There are hidden, output"
    """
    known = list(names)
    near = difflib.get_close_matches(str(name), known, n=1)
    return (f"did you mean '{near[0]}'? " if near else "") + f"There are {listing(known)}"


def first_line(error: BaseException) -> str:
    """What an error of a library says, in one line; its name where it says nothing.

    >>> first_line(EOFError())
    'EOFError'
    """
    text = str(error).strip()
    if isinstance(error, KeyError):  # whose text is that of its key, in quotes
        text = text.strip("'\"").strip()
    return text.splitlines()[0].strip() if text else type(error).__name__


#: What steers a terminal, or the direction of text, or is no character: C0, DEL and C1 but tabs and
#: ends of lines, marks of direction, surrogates.
_STEERING = re.compile(
    "[\\x00-\\x08\\x0b-\\x1f\\x7f-\\x9f\\u061c\\u200e\\u200f\\u2028-\\u202e\\u2066-\\u2069\\ud800-\\udfff]"
)


def printable(text: str) -> str:
    """Text as it may be printed or drawn: what would steer a terminal stands as its number.

    >>> printable("a\\x1b[2Jb")
    'a\\\\u001b[2Jb'
    """
    return _STEERING.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def as_number(value: object) -> float:
    """Return the float of one number, for checks that refuse NaN: of anything else, such as text or
    a truth value, also one of NumPy or JAX, it is NaN.

    >>> as_number(3), as_number("3"), as_number([3, 4]), as_number(True)
    (3.0, nan, nan, nan)
    """
    kind = getattr(getattr(value, "dtype", None), "kind", None)
    if isinstance(value, str | bytes | bool) or kind == "b":
        return math.nan
    try:
        return float(value)  # pyright: ignore[reportArgumentType]
    except (TypeError, ValueError):
        return math.nan
    except OverflowError:  # a whole number with more digits than a float has room for
        return math.inf


def as_whole(value: object) -> int | None:
    """A whole number that is counted as one, also NumPy's; None of anything else, such as 2.0.

    >>> as_whole(3), as_whole(3.0), as_whole("3")
    (3, None, None)
    """
    try:
        return operator.index(value)  # pyright: ignore[reportArgumentType]
    except TypeError:  # or an array that has `__index__` and is no whole number, such as a key
        return None


def shown(value: object) -> str:
    """A number for a message; what is none as Python writes it.

    >>> shown(0.5), shown("10ms"), shown(True)
    ('0.5', "'10ms'", 'True')
    """
    number = as_number(value)
    is_number = not math.isnan(number) or isinstance(value, float)
    return f"{number:g}" if is_number else repr(value)


#: JAX makes a random key of 32 bits of a seed: larger ones would draw what a smaller one draws.
LARGEST_SEED = 2**32 - 1


def refuse_seed(seed: int, what: str = "seed") -> None:
    """Refuse what makes no random key.

    Raises:
        UsageError: a seed that is no whole number, negative, or larger than 32 bits.
    """
    number = as_whole(seed)
    if number is None or not 0 <= number <= LARGEST_SEED:
        fix = f"give a whole number from 0 to {LARGEST_SEED}"
        raise UsageError(f"{what} is {seed!r}", fix=fix)
