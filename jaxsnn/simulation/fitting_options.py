"""Which resets and delays make a file replay a recording: what nobody has said, tried."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice, product
from typing import Any

import numpy as np

from jaxsnn.errors import JaxsnnError
from jaxsnn.grid.time_stepped import TimeStepped
from jaxsnn.network.lowering.lower import lower
from jaxsnn.nir.frameworks.registry import file_options
from jaxsnn.nir.model.dialect import Dialect, FrameworkOption
from jaxsnn.nir.model.graph import Graph
from jaxsnn.simulation.simulate import simulate
from jaxsnn.simulation.verification import compare
from jaxsnn.wording import Text

#: Most runs that are spent.
MOST = 32


@dataclass(frozen=True, kw_only=True)
class FittingOptions:
    """Options of `jaxsnn.read` with which a file replays a recording.

    Attributes:
        options: By name; for single nodes "NODE:VALUE".
    """

    options: Mapping[str, Any]

    @property
    def text(self) -> Text:
        """The options for a message.

        >>> print(FittingOptions(options={"reset": "zero", "reset_delay": False}))
        reset="zero" and reset_delay=False
        """
        known = file_options()
        settings = ((known[name], value) for name, value in self.options.items())
        texts = (Text("{option}", option=option.set_to(value)) for option, value in settings)
        return Text.joined(" and ", texts)

    def __str__(self) -> str:
        return str(self.text)


def fitting_options(
    graph: Graph, x: Any, y: Any, *, most: int = MOST
) -> tuple[FittingOptions, ...]:
    """The options that a file does not say, tried: those with which the source's input gives the
    source's output.

    Resets, their delays where the framework has both, and what its own options may be (`FrameworkOption.tries`) are
    tried for all nodes; then resets, delays and what is true or false for one node at a time.

    Args:
        graph: Read with its dialect, whatever was said of resets.
        x, y: As of `jaxsnn.verify`.
        most: Runs that are spent.

    Returns:
        What fits, the fewest words first; empty where nothing that was tried does.
    """
    found = []
    for reading, dialect in islice(_candidates(graph), most):
        try:
            network = lower(graph.with_dialect(dialect), dtype=np.float32)
            fits = compare(simulate(network, x, engine=TimeStepped()), y).ok
        except JaxsnnError:  # this framework has no such option, or it contradicts the file
            continue
        if fits:
            found.append(reading)
    return tuple(sorted(found, key=lambda reading: len(str(reading))))


def _candidates(graph: Graph) -> Iterator[tuple[FittingOptions, Dialect]]:
    """Readings, and the dialects that they make."""
    conventions = graph.dialect.conventions
    if conventions is None:
        return
    # What a framework does by itself need not be tried otherwise.
    delays = (False, True) if conventions.reset_delay is None else (conventions.reset_delay,)
    own = [option for option in conventions.options if option.tries]
    for way in _ways(delays, own):
        said = _worth_saying(way, graph.dialect)
        yield FittingOptions(options=said), _said(graph.dialect, said)
    ways = list(_ways(delays, [option for option in own if option.kind == "bool"]))
    firing = [name for name in graph.neurons if _resets(graph, name)]
    for name, way in product(firing if len(firing) > 1 else (), ways):
        said = {option: f"{name}:{_text(value)}" for option, value in way.items()}
        nodes = {**graph.dialect.nodes, name: {**graph.dialect.nodes.get(name, {}), **way}}
        yield FittingOptions(options=said), replace(graph.dialect, nodes=nodes)


def _ways(delays: tuple[bool, ...], own: list[FrameworkOption]) -> Iterator[dict[str, Any]]:
    """Values of the options, in all combinations."""
    choices: dict[str, tuple[Any, ...]] = {"reset": ("zero", "subtract"), "reset_delay": delays}
    choices |= {option.name: option.tries for option in own}
    for values in product(*choices.values()):
        yield dict(zip(choices, values, strict=True))


def _worth_saying(way: Mapping[str, Any], dialect: Dialect) -> dict[str, Any]:
    """Without what a framework does by itself, where nobody has said anything else of it."""
    conventions = dialect.conventions
    if conventions is None:
        return dict(way)
    usual: dict[str, Any] = {one.name: one.tries[0] for one in conventions.options if one.tries}
    usual["reset_delay"] = conventions.reset_delay
    unsaid = {one.name for one in conventions.options if one.kind != "bool"}
    unsaid |= {"reset_delay"} if conventions.reset_delay is not None else set()

    def holds(name: str, value: Any) -> bool:
        if any(name in own for own in dialect.nodes.values()):
            return False
        now = dialect.own.get(name, getattr(dialect, name, None))
        return value == (usual[name] if now is None else now)

    return {
        name: value for name, value in way.items() if name not in unsaid or not holds(name, value)
    }


def _said(dialect: Dialect, way: Mapping[str, Any]) -> Dialect:
    """A dialect with options for all nodes, but for readouts, which do not reset."""
    nodes = {
        name: {key: value for key, value in own.items() if own.get("readout") or key not in way}
        for name, own in dialect.nodes.items()
    }
    known = {field.name for field in dataclasses.fields(Dialect)}
    fields = {key: value for key, value in way.items() if key in known}
    rest = {key: value for key, value in way.items() if key not in known}
    return replace(dialect, nodes=nodes, own={**dialect.own, **rest}, **fields)


def _resets(graph: Graph, name: str) -> bool:
    return graph.nodes[name].traits.fires and not graph.dialect.at(name).readout


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
