"""Counts conversions: every file of the zoo, with every reset that it may have, and nets drawn at
random, against every target, each loaded by the target's own importer and run there.

    python -m tests.interop.counting [--to NAME] [--only TEXT] [--drawn N] [--out F] [--write PAGE]

A row is one network and target. "same": the importer gives the source's spikes, or its membranes
to 1e-4. "refused": `convert` says why it cannot. "wrong": something else comes out. "unloadable":
the importer, or what it made, fails. The source's own output is the recording where there is one,
else that of the time-stepped engine, which the zoo's tests hold to the recordings.
"""

from __future__ import annotations

import argparse
import collections
import dataclasses
import functools
import importlib.metadata
import json
import sys
import tempfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from jaxsnn import TimeStepped, lower, simulate
from jaxsnn.errors import ConversionError, JaxsnnError
from jaxsnn.nir import Graph, read, write
from jaxsnn.nir.convert.pipeline import convert
from jaxsnn.nir.frameworks.registry import framework_of
from jaxsnn.nir.model.passes import shapes
from tests.helpers.zoo import FACTS, MORE, options_of, recordings, unpacked, unpacked_more
from tests.interop.drawn import drawn_nets
from tests.interop.page import with_part
from tests.interop.players import compare, play

TARGETS = ("snntorch", "norse", "spikingjelly", "spyx")
STEPS, BATCH = 60, 6
#: Possible resets in files of each framework, for files that specify none.
_RESETS: dict[str, tuple[dict[str, Any], ...]] = {
    "snntorch": tuple(
        {"reset": reset, "reset_delay": delay}
        for reset in ("subtract", "zero")
        for delay in (True, False)
    ),
    "norse": ({"reset": "zero"},),
    "sinabs": ({"norm_input": True},),
}


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Source:
    """A network, what goes in, and what must come out (None: to be simulated)."""

    name: str
    load: Callable[[], Graph]
    recorded: tuple[np.ndarray, np.ndarray] | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """One conversion."""

    source: str
    target: str
    verdict: str
    why: str = ""
    active: int = 0
    trains: int = 0


def zoo_sources(folder: Path) -> Iterator[Source]:
    """The files of the zoo with all that they may mean."""
    files, zoo_recordings = unpacked(folder), recordings()
    for name, path in files.items():
        facts = FACTS[name]
        options = options_of(name) | {"dialect": facts["framework"]}
        if name in zoo_recordings and facts.get("reproducible", True):
            yield Source(name=name, load=_reader(path, options), recorded=zoo_recordings[name])
            continue
        if "time_unit" not in options and facts["framework"] == "spyx" and "dt" not in options:
            options["time_unit"] = "step"
        for more in _RESETS.get(facts["framework"], ({},)):
            assumptions = {key: value for key, value in more.items() if key not in options}
            label = " ".join(f"{key}={value}" for key, value in assumptions.items())
            yield Source(name=f"{name} {label}".strip(), load=_reader(path, options | assumptions))


def more_sources(folder: Path) -> Iterator[Source]:
    """Files that were read wrongly once, with their recordings."""
    paths, more_recordings = unpacked_more(folder)
    for name, facts in MORE.items():
        load = _reader(paths[name], facts["options"])
        yield Source(name=f"more/{name}", load=load, recorded=more_recordings[name])


def _reader(path: Path, options: dict[str, Any]) -> Callable[[], Graph]:
    return lambda: read(path, **options)


def spikes_for(graph: Graph, seed: int) -> np.ndarray:
    """Random input spikes of a graph with one Input."""
    (name,) = graph.inputs
    shape = shapes(graph)[name][1]
    if shape is None:
        raise ConversionError(f"the size of node '{name}' is unknown", node=name)
    rng = np.random.default_rng(seed)
    return (rng.random((STEPS, BATCH, *shape)) < 0.3).astype(np.float32)


def measured(source: Source, target: str, path: Path) -> Row:
    """One row."""
    try:
        graph = source.load()
        inputs = (0.0, 1.0) if source.recorded is None else _range(source.recorded[0])
        conversion = convert(graph, to=target, path=str(path), input_range=inputs)
    except JaxsnnError as error:
        return Row(source=source.name, target=target, verdict="refused", why=error.problem.message)
    x, y = _data(source)
    write(path, conversion.graph, force=True)
    try:
        got = play(conversion.load_with, target, x)
    except Exception as error:
        why = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        return Row(source=source.name, target=target, verdict="unloadable", why=why)
    return _compared(source.name, target, y, got, next(iter(conversion.shift.values()), 0))


@functools.lru_cache(maxsize=1)
def _data(source: Source) -> tuple[np.ndarray, np.ndarray]:
    """What goes into a network, and what must come out."""
    if source.recorded is not None:
        return source.recorded[0].astype(np.float32), source.recorded[1]
    graph = source.load()
    x = spikes_for(graph, zlib.crc32(source.name.encode()))
    solution = simulate(lower(graph, dtype=np.float32), x, engine=TimeStepped())
    return x, np.asarray(solution.output())


def _range(x: np.ndarray) -> tuple[float, float]:
    """What an input channel carries: at least 0 to 1."""
    return min(0.0, float(x.min())), max(1.0, float(x.max()))


def _compared(name: str, target: str, y: np.ndarray, got: np.ndarray, shift: int) -> Row:
    y, got = y.reshape(*y.shape[:2], -1), got.reshape(*got.shape[:2], -1)
    if y.shape != got.shape:
        why = f"shape {got.shape[2:]} for {y.shape[2:]}"
        return Row(source=name, target=target, verdict="wrong", why=why)
    if not np.array_equal(y, np.round(y)):
        late = got[shift:] if shift >= 0 else got
        early = y if shift >= 0 else y[-shift:]
        steps = len(y) - abs(shift)
        error = np.sqrt(np.mean((late[:steps] - early[:steps]) ** 2) / np.mean(early[:steps] ** 2))
        verdict = "same" if error <= 1e-4 else "wrong"
        return Row(source=name, target=target, verdict=verdict, why=f"relative RMSE {error:.2g}")
    identical, trains, active = compare(y, got, shift)
    verdict = "same" if identical >= 0.99 * trains else "wrong"
    why = f"{identical} of {trains} trains, {active} active"
    return Row(source=name, target=target, verdict=verdict, why=why, active=active, trains=trains)


def main() -> None:
    """The table on stdout, each row as a line of JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--to", action="append", choices=TARGETS)
    parser.add_argument("--only", default="")
    parser.add_argument("--drawn", type=int, default=32, help="nets of each kind")
    parser.add_argument("--out", type=Path, help="each row as a line of JSON")
    parser.add_argument("--write", type=Path, help="a page with a place for the table")
    arguments = parser.parse_args()
    import torch

    torch.set_num_threads(1)
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sources = [*zoo_sources(folder)]
        (folder / "more").mkdir()
        sources += [*more_sources(folder / "more")]
        sources += [
            Source(name=name, load=lambda graph=graph: graph)
            for name, graph in drawn_nets(arguments.drawn)
        ]
        for source in sources:
            if arguments.only not in source.name:
                continue
            for target in arguments.to or TARGETS:
                rows.append(measured(source, target, folder / "converted.nir"))
                if arguments.out:
                    with arguments.out.open("a") as file:
                        file.write(f"{json.dumps(dataclasses.asdict(rows[-1]))}\n")
    sys.stdout.write(f"{summary(rows)}\n")
    if arguments.write:
        page = arguments.write.read_text()
        arguments.write.write_text(with_part(page, "counted", table(rows)))


def table(rows: list[Row]) -> list[str]:
    """Markdown: counts by target, and refusals by reason and target."""
    sources = dict.fromkeys(row.source for row in rows)
    groups = collections.Counter(name.partition("/")[0] for name in sources if "/" in name)
    drawn, more = groups["drawn"], groups["more"]
    lines = [
        f"{len(sources) - drawn - more} files with their resets, {more} files with recordings, "
        f"{drawn} random networks.",
        "",
        f"| of {len(sources)} to | same | refused | other spikes | does not load |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    targets = tuple(dict.fromkeys(row.target for row in rows))
    for target in targets:
        counted = collections.Counter(row.verdict for row in rows if row.target == target)
        numbers = (str(counted[key]) for key in ("same", "refused", "wrong", "unloadable"))
        name = f"{framework_of(target).title} {importlib.metadata.version(target)}"
        lines.append(f"| {name} | {' | '.join(numbers)} |")
    whys: dict[str, collections.Counter[str]] = {}
    for row in rows:
        if row.verdict == "refused":
            whys.setdefault(reason(row), collections.Counter())[row.target] += 1
    titles = [framework_of(target).title for target in targets]
    lines += [
        "",
        f"| refused because | {' | '.join(titles)} |",
        "| --- |" + " ---: |" * len(targets),
    ]
    for why, counted in sorted(whys.items(), key=lambda item: -item[1].total()):
        lines.append(f"| {why} | {' | '.join(str(counted[target] or '') for target in targets)} |")
    return lines


#: Common reasons of refusals, by a part of their text.
_SEVERAL = "several spikes in a step, for which there are no equivalent neurons"
_READOUT = "a readout, which the importer does not have"
_REASONS = (
    ("resets to a value, and", "resets to a value, and the importer subtracts"),
    ("may fire several spikes", _SEVERAL),
    ("can be written as", _SEVERAL),
    (
        "may stay above v_threshold",
        "subtracts at once, and a membrane may stay above its threshold",
    ),
    ("leaky readout", _READOUT),
    ("(LI)", _READOUT),
    (
        "outputs its membrane potential and resets",
        "the membrane potential of neurons that reset is an output",
    ),
    ("whatever the input", "a loop of current-based neurons that reset to zero a step later"),
    ("does not rest at v_reset", "another initial state than in the importer"),
    ("starts", "another initial state than in the importer"),
    ("subtracts v_threshold", "current and reset act in another order"),
    ("continuous time", "continuous time, which time steps approximate"),
    ("different factors", "weights shared by neurons with different thresholds"),
    (" sums '", "one Output has inputs of different sizes"),
    ("has the lower bound", "a lower bound of the membrane"),
    ("cannot subtract v_threshold", "subtracts one step later, with a decay of 0 per step"),
    ("importer does not support", "a node that the importer does not support"),
)


def reason(row: Row) -> str:
    """Why a conversion is refused, without names and numbers."""
    explanations = (text for part, text in _REASONS if part in row.why)
    return next(explanations, None) or _general(row.why)


def summary(rows: list[Row]) -> str:
    """Counts by target, then what is wrong, then refusals by reason."""
    lines = []
    for target in dict.fromkeys(row.target for row in rows):
        counted = collections.Counter(row.verdict for row in rows if row.target == target)
        parts = ", ".join(f"{counted[verdict]} {verdict}" for verdict in counted)
        lines.append(f"{target}: {parts}")
    for row in rows:
        if row.verdict in ("wrong", "unloadable"):
            lines.append(f"{row.verdict}: {row.source} -> {row.target}: {row.why}")
    for target in dict.fromkeys(row.target for row in rows):
        whys = collections.Counter(
            _general(row.why) for row in rows if row.target == target and row.verdict == "refused"
        )
        lines += [f"{target}: refused {count}: {why}" for why, count in whys.most_common()]
    return "\n".join(lines)


def _general(why: str) -> str:
    """A reason without names and numbers."""
    import re

    return re.sub(r"'[^']*'", "'...'", re.sub(r"-?\d[\d.e+-]*", "#", why))[:150]


if __name__ == "__main__":
    main()
