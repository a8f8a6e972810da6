"""`Option`, the declaration of an option, and `Text`, a sentence that refers to options.

A message never spells an option. It refers to the object that declares it, and each surface renders
the reference: `dt=0.001` in Python, `--dt 0.001` on the command line.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from string import Formatter
from typing import Any, Literal, Self


@dataclass(frozen=True, kw_only=True)
class Option:
    """Declaration of an option, for Python, the command line, configuration files, shell completion
    and the documentation.

    Attributes:
        name: Keyword argument in Python.
        help: Description in one sentence without a full stop; a function if the description depends
            on frameworks that are loaded on demand.
        flag: Name on the command line without "--"; "": `name` with "-" for "_".
        other_flags: Further spellings, such as "-o" or "--from".
        metavar: Name of the value in the help; "": the name in capitals.
        default: Default value on the command line.
        convert: Conversion from text to the value; raises `ValueError` or `UsageError` for invalid
            text.
        values: Allowed values, if there are few; the function that takes the option refuses others.
        choices: Allowed values on the command line, whose parser refuses others.
        python_values: Value on the command line -> value in Python, if they differ.
        is_switch: Whether the flag takes no value and means True.
        repeated: Whether the option may be passed several times.
        required: Whether the option is required on the command line.
        file: Shell completion of the value: names of files or of folders.
        command: Command that advice names if the running command does not take the option.
        functions: Public functions that take the option.

    >>> reset = Option(name="reset", help="what a spike does to the membrane")
    >>> advice = Text("pass {reset}", reset=reset.set_to("zero"))
    >>> print(advice, "|", for_command_line(advice))
    pass reset="zero" | pass --reset zero
    """

    name: str = ""
    help: str | Callable[[], str] = ""
    flag: str = ""
    other_flags: tuple[str, ...] = ()
    metavar: str = ""
    default: Any = None
    convert: Callable[[Any], Any] | None = None
    values: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()
    python_values: Mapping[str, str] | None = None
    is_switch: bool = False
    repeated: bool = False
    required: bool = False
    file: Literal["", "file", "folder"] = ""
    command: str = ""
    functions: tuple[str, ...] = ()

    @property
    def long_flag(self) -> str:
        """Flag of the option on the command line.

        >>> Option(name="max_spikes").long_flag, Option(name="trainable", flag="train").long_flag
        ('--max-spikes', '--train')
        """
        return f"--{self.flag or self.name.replace('_', '-')}"

    @property
    def help_text(self) -> str:
        """Description of the option, in one sentence."""
        return self.help if isinstance(self.help, str) else self.help()

    def set_to(self, value: Any, *alternatives: Any, node: str = "") -> Reference:
        """Return the setting of a value for a text: `reset="zero"`, or `--reset zero`.

        Args:
            alternatives: Further values, any of which is suitable.
            node: The node for which the value is set.

        >>> bias = Option(name="bias")
        >>> print(bias.set_to("source"), bias.set_to("none", node="lif"))
        bias="source" bias={"lif": "none"}
        >>> for_command_line(Text("pass {bias}", bias=bias.set_to("a", "b", "c")))
        'pass --bias a, b or c'
        """
        values = (value, *alternatives)
        python = _alternatives([self._in_python(item) for item in values])
        words = [str(item).lower() if isinstance(item, bool) else _shown(item) for item in values]
        shell = _alternatives(words)
        if node:
            python, shell = f'{{"{node}": {python}}}', f"{node}:{shell}"
        is_plain = self.is_switch and value is True
        flag = self.long_flag if is_plain else f"{self.long_flag} {shell}"
        return self._reference(f"{self.name}={python}", flag)

    def equal_to(self, value: str) -> Reference:
        """Return the statement that the option has a value: `t_end = 40 ms`, or `--t-end 40 ms`."""
        return self._reference(f"{self.name} = {value}", f"{self.long_flag} {value}")

    @property
    def keyword(self) -> Reference:
        """Request to pass the option, for a text: `dt=`, or `--dt`."""
        return self._reference(f"{self.name}=", self.long_flag)

    @property
    def title(self) -> Reference:
        """Name of the option, for a text: `dt`, or `--dt`."""
        return self._reference(self.name, self.long_flag)

    def but(self, **changes: Any) -> Self:
        """Return the option adapted to one command: with another help text, default or kind of
        value.
        """
        return replace(self, **changes)

    def _in_python(self, value: Any) -> str:
        if self.python_values and value in self.python_values:
            return self.python_values[value]
        return f'"{value}"' if isinstance(value, str) else _shown(value)

    def _reference(self, python: str, command_line: str) -> Reference:
        return Reference(
            python=python, command_line=command_line, flag=self.long_flag, command=self.command
        )


def _shown(value: Any) -> str:
    """Return a value for a text; numbers with a fraction have six digits."""
    is_fraction = hasattr(value, "__float__") and not hasattr(value, "__index__")
    return f"{value:g}" if is_fraction and not isinstance(value, str) else str(value)


def _alternatives(words: list[str]) -> str:
    *first, last = words
    return f"{', '.join(first)} or {last}" if first else last


@dataclass(frozen=True)
class Reference:
    """Mention of an option in a text, in the words of each surface.

    Attributes:
        python: Spelling in Python.
        command_line: Spelling on the command line.
        flag: Flag of the option.
        command: Command to name if the running command does not take the option.
    """

    python: str
    command_line: str
    flag: str
    command: str

    def __str__(self) -> str:
        return self.python

    def in_command(self, takes: Callable[[str], bool] | None) -> str:
        """Return the mention for a command.

        Args:
            takes: Whether the running command has a flag; None: no command runs.
        """
        is_elsewhere = takes is not None and self.command and not takes(self.flag)
        return f"jaxsnn {self.command} {self.command_line}" if is_elsewhere else self.command_line


class Shown(str):
    """Value as messages show it, such as "10 ms" for 0.01; a text's facts hold the value itself.

    Attributes:
        value: Value that the text shows.
        name: Name of the fact in a text; "" elsewhere.
    """

    value: Any
    name: str

    def __new__(cls, text: str, value: Any = None, name: str = "") -> Self:
        """Create a text from a value."""
        shown = super().__new__(cls, text)
        shown.value, shown.name = value, name
        return shown


#: Parts of a text; facts are `Shown`.
Part = str | Reference
#: First of Unicode's characters for private use.
_PRIVATE_AREA = 0xE000


class Text(str):
    """Sentence that may refer to options; as a `str` it is in the words of Python.

    Args:
        template: Template as for `str.format`, with fields by name.
        values: Values of the fields: options, references, other texts, numbers.

    Attributes:
        parts: Plain text, facts and references, in order.
        facts: The numbers and names among `values`, by name.

    >>> dt = Option(name="dt")
    >>> text = Text("{steps} steps are too many: raise {dt}", steps=12, dt=dt)
    >>> print(text, "|", for_command_line(text), "|", dict(text.facts))
    12 steps are too many: raise dt | 12 steps are too many: raise --dt | {'steps': 12}
    """

    parts: tuple[Part, ...]
    facts: Mapping[str, Any]

    def __new__(cls, template: str, /, **values: Any) -> Self:
        """Create a text from a template."""
        parts: list[Part] = []
        facts: dict[str, Any] = {}
        for literal, field, spec, conversion in Formatter().parse(template):
            parts.append(literal)
            if field is None:
                continue
            value = values[field]
            if isinstance(value, Option | Reference | Text):
                parts += parts_of(value)
                facts |= value.facts if isinstance(value, Text) else {}
            else:
                words = format(repr(value) if conversion == "r" else value, spec or "")
                words = words.replace("\n", "\\n")  # of file names: a message is one line
                facts[field] = value.value if isinstance(value, Shown) else value
                parts.append(Shown(words, facts[field], field))
        return cls._of_parts(parts, facts)

    @classmethod
    def _of_parts(cls, parts: Iterable[Part], facts: Mapping[str, Any]) -> Self:
        merged: list[Part] = []
        for part in parts:
            if type(part) is str and merged and type(merged[-1]) is str:
                merged[-1] += part
            elif part:
                merged.append(part)
        text = super().__new__(cls, "".join(map(str, merged)))
        text.parts, text.facts = tuple(merged), facts
        return text

    @classmethod
    def joined(cls, separator: str, texts: Iterable[Part]) -> Text:
        """Return texts in a row, as `separator.join(texts)`, with their references and facts."""
        parts: list[Part] = []
        facts: dict[str, Any] = {}
        for text in texts:
            parts += ([separator] if parts else []) + list(parts_of(text))
            facts |= facts_of(text)
        return Text._of_parts(parts, facts)

    def __add__(self, text: str) -> Text:
        return Text._of_parts((*self.parts, *parts_of(text)), {**self.facts, **facts_of(text)})

    def __radd__(self, text: str) -> Text:
        return Text._of_parts((text, *self.parts), self.facts)

    def without_end(self, characters: str) -> Text:
        """Return the text without some characters at its end, as `rstrip` does."""
        *first, last = self.parts or ("",)
        return Text._of_parts(
            (*first, last.rstrip(characters) if isinstance(last, str) else last), self.facts
        )

    def without(self, piece: str) -> Text:
        """Remove all occurrences of another text; references must be equal, too."""
        # Encode each reference as one private-use character, so that plain strings can be compared.
        symbols: dict[Reference, str] = {}

        def encode(text: str) -> str:
            return "".join(
                part
                if isinstance(part, str)
                else symbols.setdefault(part, chr(_PRIVATE_AREA + len(symbols)))
                for part in parts_of(text)
            )

        encoded = encode(self).replace(encode(piece), "")
        references = {symbol: reference for reference, symbol in symbols.items()}
        return Text._of_parts((references.get(symbol, symbol) for symbol in encoded), self.facts)

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: Any) -> Self:
        return self

    def __reduce__(self) -> Any:
        return _restored, (type(self), self.parts, vars(self))


def _restored(cls: type[Text], parts: tuple[Part, ...], attributes: Mapping[str, Any]) -> Text:
    text = cls._of_parts(parts, {})
    vars(text).update(attributes)
    return text


def parts_of(value: Option | Reference | str) -> tuple[Part, ...]:
    """Return plain text and references of a text, of any string, or of an option."""
    if isinstance(value, Text):
        return value.parts
    return (value.title if isinstance(value, Option) else value,)


def facts_of(text: Part) -> Mapping[str, Any]:
    """Return the numbers and names of a text; an empty mapping for a plain string."""
    return text.facts if isinstance(text, Text) else {}


#: Function that returns whether the running command has a flag.
_takes: ContextVar[Callable[[str], bool] | None] = ContextVar("takes", default=None)


@contextmanager
def advice_for(takes: Callable[[str], bool]) -> Iterator[None]:
    """Render texts for a command that takes some flags, while the context lasts.

    >>> engine = Option(name="engine", python_values={"grid": "TimeStepped()"}, command="run")
    >>> advice = Text("simulate with {engine}", engine=engine.set_to("grid"))
    >>> with advice_for({"--dt"}.__contains__):
    ...     print(advice, "|", for_command_line(advice))
    simulate with engine=TimeStepped() | simulate with jaxsnn run --engine grid
    """
    token = _takes.set(takes)
    try:
        yield
    finally:
        _takes.reset(token)


def for_command_line(text: str) -> str:
    """Return a text in the words of the running command; other strings are returned unchanged."""
    if not isinstance(text, Text):
        return text
    takes = _takes.get()
    parts = (part if isinstance(part, str) else part.in_command(takes) for part in text.parts)
    return "".join(parts)


def text_to_json(text: str) -> list[Any]:
    """Return a text as plain values, for a process that sends it to another."""
    return [part if isinstance(part, str) else list(vars(part).values()) for part in parts_of(text)]


def text_of_json(content: Iterable[Any]) -> Text:
    """Return the text from the result of `text_to_json`."""
    parts = (part if isinstance(part, str) else Reference(*map(str, part)) for part in content)
    return Text._of_parts(parts, {})
