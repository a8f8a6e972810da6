"""Exceptions of this library, and `Problem`, the record that each of them carries.

A problem states what is wrong and where (the NIR node's name, the two numbers), and separately what
to do about it. Both refer to options as objects (`jaxsnn.wording.Text`), so that Python reads
`dt=0.001` and the command line `--dt 0.001`.
"""

from __future__ import annotations

import difflib
import math
import operator
import os
import re
import sys
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, ClassVar, Literal, Self

from jaxsnn.wording import Option, Shown, Text, facts_of, for_command_line, parts_of

Severity = Literal["error", "warning", "note"]
#: Kinds of notes; all but "information" are also issued as a warning.
NoteKind = Literal["dropped", "truncated", "approximated", "assumed", "information"]


@dataclass(frozen=True, kw_only=True)
class Problem:
    """Problem of a graph, a network, a mapping or a conversion.

    Attributes:
        node: NIR name of the node, or the place on a chip; "" if it concerns no single node.
        code: kind of problem, for scripts, a key of `jaxsnn.problem_codes.CODES`.
        message: the problem in one line without a full stop.
        fix: advice in one line; "" if there is none.
        severity: an "error" prevents the operation; a "warning" may affect results; a "note"
            informs.
        facts: numbers and names of the problem, in addition to those in `message`.

    >>> from jaxsnn.options import DT
    >>> fix = Text("pass {dt}", dt=DT.set_to(1e-4))
    >>> problem = Problem(code="not-said", message="the time step is unknown", fix=fix)
    >>> print(problem)
    the time step is unknown: pass dt=0.0001
    >>> print(for_command_line(problem.text))
    the time step is unknown: pass --dt 0.0001
    """

    node: str = ""
    code: str = ""
    message: str
    fix: str = ""
    severity: Severity = "error"
    facts: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}), compare=False)

    def __post_init__(self) -> None:
        if inherited := facts_of(self.message):
            object.__setattr__(self, "facts", MappingProxyType({**inherited, **self.facts}))

    @property
    def text(self) -> str:
        """Message with its fix, if there is one."""
        if not self.fix:
            return self.message
        return Text.joined(": ", (self.message, self.fix))

    def __str__(self) -> str:
        return str(self.text)

    def as_dict(self) -> dict[str, Any]:
        """Return a JSON-compatible dict, in the words of the command line."""
        return {
            "node": self.node,
            "code": self.code,
            "severity": self.severity,
            "message": for_command_line(self.message),
            "facts": {name: _plain(value) for name, value in self.facts.items()},
            "fix": for_command_line(self.fix),
        }

    def as_text(self) -> str:
        """Return human-readable text for the command line."""
        return for_command_line(self.text)

    def __reduce__(self) -> Any:
        fields = (self.node, self.code, self.message, self.fix, self.severity, dict(self.facts))
        return _restored_problem, fields


def _restored_problem(
    node: str, code: str, message: str, fix: str, severity: Severity, facts: dict[str, Any]
) -> Problem:
    return Problem(node=node, code=code, message=message, fix=fix, severity=severity, facts=facts)


def _plain(value: Any) -> str | int | float | bool | None:
    """Return a fact as a JSON value: finite NumPy numbers become Python's, other values text."""
    if hasattr(value, "item") and getattr(value, "ndim", None) == 0:
        value = value.item()
    is_plain = isinstance(value, str | int) or value is None
    is_plain |= isinstance(value, float) and math.isfinite(value)
    return value if is_plain and not isinstance(value, Text) else str(value)


class JaxsnnError(Exception):
    """Base class of all errors that this library raises on purpose.

    Args:
        message: the problem, its place, and the conflicting numbers, in one line.
        fix: advice; a `jaxsnn.wording.Text` if it names an option.
        node: NIR name of the node with the problem.
        code: kind of problem, for scripts; by default `default_code`.
        facts: numbers and names of the problem, in addition to those in `message`.

    Attributes:
        problem: the arguments as a record.
        others: further problems, of which the message states only the number.
        exit_code: exit code of the command line: 1 for problems of the input, 2 for invalid usage
            or a file or tool that failed.
    """

    exit_code: ClassVar[int] = 1
    default_code: ClassVar[str] = "error"

    def __init__(
        self,
        message: str,
        *,
        fix: str = "",
        node: str = "",
        code: str = "",
        facts: Mapping[str, Any] | None = None,
    ) -> None:
        self.problem = Problem(
            node=node,
            code=code or self.default_code,
            message=message,
            fix=fix,
            facts=facts or {},
        )
        self.others: tuple[Problem, ...] = ()
        super().__init__(str(self.problem))

    @classmethod
    def of(cls, problems: Problem | Sequence[Problem]) -> Self:
        """Return the exception for the first of some problems, with the number of others."""
        first, *others = (problems,) if isinstance(problems, Problem) else problems
        more = (
            f" (and {len(others)} more problem{'s' if len(others) > 1 else ''})" if others else ""
        )
        message, fix = (
            (first.message, first.fix + more) if first.fix else (first.message + more, "")
        )
        error = cls(message, fix=fix, node=first.node, code=first.code, facts=first.facts)
        error.others = tuple(others)
        return error

    @property
    def fix(self) -> str:
        """Advice on how to solve the problem."""
        return self.problem.fix

    @property
    def node(self) -> str:
        """NIR name of the node with the problem; "" if there is none."""
        return self.problem.node

    def __reduce__(self) -> Any:
        # Exceptions are pickled with `args`, which are not arguments of this constructor.
        return _restored_error, (type(self), self.problem)


def _restored_error(cls: type[JaxsnnError], problem: Problem) -> JaxsnnError:
    return cls.of(problem)


class FileError(JaxsnnError):
    """Error for a file that cannot be read as NIR, or cannot be written."""

    exit_code = 2
    default_code = "file"


class UsageError(JaxsnnError):
    """Error for an invalid argument or option."""

    exit_code = 2
    default_code = "usage"


class GraphError(JaxsnnError):
    """Error for a broken graph: an edge, a shape or a number."""

    default_code = "broken"


class UnsupportedNodeError(GraphError):
    """Error for a node type that this library does not know."""

    default_code = "unknown-type"


class DialectError(JaxsnnError):
    """Error for information that is needed but not in the NIR file, or that contradicts the
    file.
    """

    default_code = "not-said"


class LoweringError(JaxsnnError):
    """Error for a valid graph that an engine cannot run."""

    default_code = "cannot-lower"


class ConversionError(JaxsnnError):
    """Error for a graph that another simulator's importer cannot express."""

    default_code = "cannot-convert"


class MappingError(JaxsnnError):
    """Error for a network that a chip cannot run as it is, or for an invalid netlist or mapping."""

    default_code = "cannot-map"


class SimulationError(JaxsnnError):
    """Error for a simulation that ended without a result."""

    default_code = "failed"


class ApproximationWarning(UserWarning):
    """Warning about data or results that were dropped, truncated, approximated or assumed.

    `warnings.filterwarnings("ignore", category=jaxsnn.ApproximationWarning)` silences it.
    """


class EnvironmentWarning(UserWarning):
    """Warning about files beside the results: a temporary file that cannot be removed, or a cache
    that is not used. The results are complete.
    """


class Note(Text):
    """Sentence for the user with its kind; a plain `str` among notes is information.

    Args:
        text: the sentence; a `Text` if it names an option.

    Attributes:
        kind: kind of the note.
        code: code of the note, for scripts: "late-events", "continuous-time", ...

    >>> note = Note("input 'in': 2 events were left out", kind="dropped", code="late-events")
    >>> print(note, note.kind)
    input 'in': 2 events were left out dropped
    """

    kind: NoteKind
    code: str

    def __new__(cls, text: str, kind: NoteKind = "information", code: str = "") -> Self:
        """Create a note from its text."""
        note = cls._of_parts(parts_of(text), facts_of(text))
        note.kind, note.code = kind, code
        return note


def concerns_data(note: str) -> bool:
    """Return whether a note says that data or results were dropped, truncated, approximated or
    assumed.
    """
    return isinstance(note, Note) and note.kind != "information"


#: Folder of this package: if the package itself calls a public function, that issues no warning.
#: Frames of the files in `_BETWEEN` may lie between a public function and its caller.
_PACKAGE = os.path.dirname(os.path.abspath(__file__)) + os.sep
_BETWEEN = (
    *("contextlib.py", "functools.py"),
    *(f"network{os.sep}promotion.py", f"jaxsnn{os.sep}keywords.py"),
)


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
    # For `warnings.warn`, level 1 is this function and level 2 the public function.
    frame, level = sys._getframe(1).f_back, 3
    while frame is not None and frame.f_code.co_filename.endswith(_BETWEEN):
        frame, level = frame.f_back, level + 1
    if frame is None or frame.f_code.co_filename.startswith(_PACKAGE):
        return
    warnings.warn("\n".join(serious), ApproximationWarning, stacklevel=level)


def warn_of_environment(message: str) -> None:
    """Issue an `EnvironmentWarning` at the line of the user that called the package; commands print
    it as a note.

    During the handling of an exception, nothing is raised even if warnings are errors: the exception
    is the message that matters.
    """
    handled = sys.exc_info()[1]
    frame, level = sys._getframe(1), 2
    while frame is not None:
        file = frame.f_code.co_filename
        if not (file.startswith(_PACKAGE) or file.endswith(_BETWEEN)):
            break
        frame, level = frame.f_back, level + 1
    try:
        warnings.warn(str(message), EnvironmentWarning, stacklevel=level)
    except EnvironmentWarning:
        if handled is None:
            raise


def refuse(problems: Iterable[Problem], error: type[JaxsnnError] = LoweringError) -> None:
    """Raise an error for the first problem, if there is one."""
    first = next(iter(problems), None)
    if first is not None:
        raise error.of(first)


def refuse_type(value: object, expected: type, fix: str) -> None:
    """Refuse an argument that is not an object of a class.

    Raises:
        UsageError: The value has another type.
    """
    if not isinstance(value, expected):
        raise UsageError(
            Text(
                "expected an object of type {expected}, not {actual}",
                expected=expected.__name__,
                actual=type(value).__name__,
            ),
            fix=fix,
        )


def listing(entries: Iterable[object], limit: int = 12) -> str:
    """Return names for a message, joined by commas; a long list ends with the number of other names.

    >>> listing(["a", "b", "c"], limit=2)
    'a, b and 1 more'
    """
    texts = [str(name) for name in entries]
    if len(texts) <= limit:
        return ", ".join(texts) if texts else "none"
    return f"{', '.join(texts[:limit])} and {len(texts) - limit} more"


def suggestion(name: str, candidates: Iterable[str]) -> str:
    """Return a list of the existing names, with the nearest one first if one is near.

    >>> suggestion("hiden", ["hidden", "output"])
    "did you mean 'hidden'? Available: hidden, output"
    """
    existing = list(candidates)
    near = difflib.get_close_matches(str(name), existing, n=1)
    return (f"did you mean '{near[0]}'? " if near else "") + f"Available: {listing(existing)}"


def first_line(error: BaseException) -> str:
    """Return the message of a library's error in one line; the error's name if it has none.

    >>> first_line(EOFError())
    'EOFError'
    """
    text = str(error).strip()
    if isinstance(error, KeyError):  # str() of a KeyError is its key, in quotes
        text = text.strip("'\"").strip()
    return text.splitlines()[0].strip() if text else type(error).__name__


#: Control characters of terminals, characters that change the direction of text, and code points
#: that are no characters: C0, DEL and C1 except tabs and line ends, direction marks, surrogates.
_STEERING = re.compile(
    "[\\x00-\\x08\\x0b-\\x1f\\x7f-\\x9f\\u061c\\u200e\\u200f\\u2028-\\u202e\\u2066-\\u2069\\ud800-\\udfff]"
)


def printable(text: str) -> str:
    """Return text that is safe to print or draw: terminal control characters are escaped.

    >>> printable("a\\x1b[2Jb")
    'a\\\\u001b[2Jb'
    """
    return _STEERING.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def as_number(value: object) -> float:
    """Return one number as a float, for checks that refuse NaN; NaN for any other value, such as
    text or a boolean, also one of NumPy or JAX.

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
    except OverflowError:  # an integer too large for a float
        return math.inf


def as_integer(value: object) -> int | None:
    """Return an integer, also NumPy's, as an `int`; None for any other value, such as 2.0.

    >>> as_integer(3), as_integer(3.0), as_integer("3")
    (3, None, None)
    """
    try:
        return operator.index(value)  # pyright: ignore[reportArgumentType]
    except TypeError:  # also an array with `__index__`, such as a random key
        return None


def shown(value: object) -> Shown:
    """Return a value for a message: a number in six digits, all else as Python writes it.

    >>> shown(0.5), shown("10ms"), shown(True)
    ('0.5', "'10ms'", 'True')
    """
    number = as_number(value)
    is_number = not math.isnan(number) or isinstance(value, float)
    return Shown(f"{number:g}" if is_number else repr(value), value)


#: Maximum seed: JAX makes a random key of 32 bits of a seed, so that larger seeds would repeat the
#: random numbers of smaller ones.
LARGEST_SEED = 2**32 - 1


def refuse_seed(seed: int, option: Option | str = "seed") -> None:
    """Refuse a value that is not a valid random seed.

    Raises:
        UsageError: a seed that is not an integer, is negative, or is larger than 32 bits.
    """
    number = as_integer(seed)
    if number is None or not 0 <= number <= LARGEST_SEED:
        fix = f"pass an integer from 0 to {LARGEST_SEED}"
        message = Text("{option} is {value!r}", option=option, value=seed)
        raise UsageError(message, fix=fix)
