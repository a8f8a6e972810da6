"""Files that are broken at random, read, checked, drawn, lowered, converted, mapped, written and read
again: each journey ends, or is refused in one line.

    python -m tests.fuzz.file_journeys --files 2000 [--kind nir] [--first 0] [--seconds 600]

Kinds are NIR files, and those of `other_files`: mappings, configurations, checkpoints, arrays.

What is neither is printed with the number of its file and makes the exit code 1. Files whose bytes
were changed are read by a process of their own, as the command line reads them.
"""

import argparse
import collections
import json
import os
import sys
import tempfile
import time
import traceback
import warnings
from pathlib import Path

import numpy as np

from jaxsnn.bss2.search.portfolio import place_and_route
from jaxsnn.bss2.search.quantize import quantize
from jaxsnn.compatibility.checks import check, check_file, purposes
from jaxsnn.errors import FileError, JaxsnnError
from jaxsnn.nir import describe, limit_reading, parse
from jaxsnn.nir.convert.pipeline import convert
from jaxsnn.nir.frameworks.registry import frameworks, writable
from jaxsnn.nir.graphs.export import nir_bytes
from jaxsnn.nir.io.files import _image, load
from jaxsnn.nir.io.reading import read_nir
from jaxsnn.nir.model.description import as_text
from jaxsnn.plot.graph_drawing import dot, mermaid, svg
from tests.fuzz.mutated_files import image_of_number, templates
from tests.fuzz.other_files import KINDS
from tests.helpers.zoo import unpacked

#: Maximum computing time of a journey in seconds, and maximum bytes of its arrays.
_LONGEST, _LARGEST = 20.0, 2**24


def _options(rng):
    """What is said of a file, mostly nothing."""
    options = {"dialect": str(rng.choice(["auto"] * 24 + ["nir"] * 8 + list(frameworks())))}
    if rng.integers(2):
        options |= {
            "dt": "1ms",
            "reset": str(rng.choice(["zero", "subtract"])),
            "reset_delay": bool(rng.integers(2)),
        }
    return options


def journey(path, rng):
    """The stages that one file reaches; what is refused raises a JaxsnnError."""
    yield "read"
    document, options = read_nir(path), _options(rng)
    purpose = str(rng.choice(purposes()))
    yield "check"
    check_file(path, purpose, **options) if rng.integers(4) == 0 else None
    yield "parse"
    graph = parse(document, **options)
    yield "describe"
    as_text(graph)
    json.dumps(describe(graph), allow_nan=False)
    yield "draw"
    [svg, dot, mermaid][int(rng.integers(3))](graph)
    yield "check for"
    check(graph, purpose)
    yield "write"
    path.write_bytes(nir_bytes(path, graph))
    load(path)
    yield from _further(path, graph, rng)


def _further(path, graph, rng):
    """The stages that refuse much: each is one way, so that all are taken."""
    stage_number = int(rng.integers(8))
    if stage_number == 0:
        from jaxsnn.network.lowering.lower import lower

        yield "lower"
        lower(graph)
    elif stage_number == 1:
        yield "quantize"
        netlist = quantize(graph).netlist
        yield "map"
        place_and_route(netlist, time_limit=0.2, max_runs=2)
    else:
        yield "convert"
        converted = convert(
            graph, to=str(rng.choice(writable())), approximate=bool(rng.integers(2))
        )
        yield "write converted"
        path.write_bytes(nir_bytes(path, converted.graph))
        yield "read again"
        parse(load(path))


class NirFiles:
    """NIR files; those whose bytes were changed are read by a process of their own."""

    def __init__(self, folder):
        self.documents = templates(unpacked(folder).values())
        self.images = [_image(document) for document in self.documents]

    def file(self, number):
        """The bytes of a file, and the seconds that reading it may take."""
        data, by_bytes = image_of_number(number, self.documents, self.images)
        return data, 1.0 if by_bytes else None

    def journey(self, path, rng):
        """The stages that it reaches."""
        return journey(path, rng)


class OtherFiles:
    """Files of another kind."""

    def __init__(self, kind, folder):
        self.made = KINDS[kind](folder)

    def file(self, number):
        """As of `NirFiles`."""
        return self.made.image(np.random.default_rng(number)), None

    def journey(self, path, rng):
        """The stages that it reaches."""
        return self.made.journey(path, rng)


def outcome(number, files, path):
    """How the journey of one file ended: "refused", "arrived", "contained" or "unexpected", where,
    and what there is to say.
    """
    data, read_timeout = files.file(number)
    path.write_bytes(data)
    rng, stage = np.random.default_rng([number, 1]), "read"
    start = sum(os.times()[:4])
    try:
        with (
            limit_reading(max_bytes=_LARGEST, read_timeout=read_timeout),
            warnings.catch_warnings(),
            np.errstate(all="ignore"),
        ):
            warnings.simplefilter("ignore")
            for stage in files.journey(path, rng):  # noqa: B007
                pass
        ending = "arrived", stage, ""
    except JaxsnnError as error:
        text = str(error)
        wrong = "\n" in text or "please report" in text or not text.strip()
        ending = ("unexpected" if wrong else "refused"), stage, text
        if isinstance(error, FileError) and ("crashed" in text or "not read within" in text):
            ending = "contained", stage, text
    except Exception as error:
        ending = "unexpected", stage, f"{type(error).__name__}: {error} ({_place(error)})"
    took = sum(os.times()[:4]) - start
    if took > _LONGEST:
        ending = "unexpected", stage, f"took {took:.1f} s"
    return ending


def _place(error):
    """Where in our files it was raised."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if "jaxsnn" in frame.filename] or frames
    return f"{Path(ours[-1].filename).name}:{ours[-1].lineno} in {ours[-1].name}"


def main(argv=None):
    """Journeys of many files, counted."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=2000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=float("inf"))
    parser.add_argument("--kind", choices=("nir", *KINDS), default="nir")
    arguments = parser.parse_args(argv)
    counts, findings = collections.Counter(), {}
    start = time.monotonic()
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as name:
        folder = Path(name)
        kind = arguments.kind
        files = NirFiles(folder) if kind == "nir" else OtherFiles(kind, folder)
        path = folder / ("mutated.npz" if kind in ("checkpoint", "arrays") else "mutated")
        for number in range(arguments.first, arguments.first + arguments.files):
            if time.monotonic() - start > arguments.seconds:
                break
            ended, stage, text = outcome(number, files, path)
            counts[f"{ended} at {stage}"] += 1
            counts["files"] += 1
            if ended == "unexpected":
                findings.setdefault(text.rpartition("(")[2] or text, (number, stage, text))
    lines = [f"file {number}, {stage}: {text}" for number, stage, text in findings.values()]
    lines += [f"{ended}: {count}" for ended, count in sorted(counts.items())]
    sys.stdout.write("\n".join(lines) + "\n")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
