"""The exceptions of this library.

An error message is one line: what is wrong, where (the NIR node's name), the two numbers, what to do about it.
Each class knows the exit code of the command line: 1 when the input has problems, 2 when the usage or a tool failed.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass


class JaxsnnError(Exception):
    """Base class of everything that this library raises on purpose."""

    exit_code: int = 1


class FileError(JaxsnnError):
    """A file that cannot be read as NIR, or cannot be written."""

    exit_code = 2


class UsageError(JaxsnnError):
    """An argument or option that makes no sense."""

    exit_code = 2


class GraphError(JaxsnnError):
    """A graph that is broken: an edge, a shape or a number."""


class UnsupportedNodeError(GraphError):
    """A node type that this library does not know."""


class DialectError(JaxsnnError):
    """Something that a NIR file does not say is needed, or was said and contradicts the file."""


class LoweringError(JaxsnnError):
    """A graph that is sound but that an engine cannot run."""


class ConversionError(JaxsnnError):
    """A graph that another simulator's importer cannot express."""


class MappingError(JaxsnnError):
    """A network that a neuromorphic chip cannot run as it is, or a netlist or mapping that is none."""


class SimulationError(JaxsnnError):
    """A simulation that ended without a result."""


@dataclass(frozen=True, kw_only=True)
class Limit:
    """One reason why an engine cannot run a network: the node, a code for scripts, what, and what to do about it."""

    node: str
    code: str
    message: str
    fix: str

    def __str__(self) -> str:
        return f"{self.message}: {self.fix}"


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
    near = difflib.get_close_matches(name, known, n=1)
    return (f"did you mean '{near[0]}'? " if near else "") + f"There are {listing(known)}"


#: JAX makes a random key of 32 bits of a seed: larger ones would draw what a smaller one draws, or overflow.
LARGEST_SEED = 2**32 - 1


def refuse_seed(seed: int, what: str = "seed") -> None:
    """Refuse what makes no random key.

    Raises:
        UsageError: a seed that is negative, or larger than 32 bits.
    """
    if not 0 <= seed <= LARGEST_SEED:
        raise UsageError(f"{what} is {seed}: give a whole number from 0 to {LARGEST_SEED}")
