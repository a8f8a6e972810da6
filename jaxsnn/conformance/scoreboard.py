"""The scoreboard of the site: what frameworks and versions do with each primitive.

`python -m jaxsnn.conformance.scoreboard docs RESULT.json ...` stores results of `jaxsnn conformance
--json` in `docs/conformance/`, without what the page does not show, and writes `docs/scoreboard.md`.
"""

from __future__ import annotations

import collections
import json
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxsnn.conformance.cells import ROLES
from jaxsnn.conformance.comparison import VERDICTS
from jaxsnn.conformance.reproduction import draw_trains
from jaxsnn.files.opening import read_text
from jaxsnn.output import write_atomically

_INTRODUCTION = """# Scoreboard

This page is generated from runs of [the conformance suite](conformance.md). Every number counts
networks that were executed.

- **pass**: a convention explains every spike.
- **wrong**: none does, or the file is invalid.
- **crash**: an error that the framework does not raise on purpose, or no result.
- **refused**: an error that it raises on purpose. Nothing is silently wrong.

"Wrong" and "crash" are faults. The smallest network that shows each fault is below the tables.
Networks for which a framework has no layers are not counted for primitives.
"""


def stored_result(result: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the scoreboard needs of a result of `jaxsnn conformance --json`."""
    counts: dict[str, dict[str, collections.Counter[str]]] = {}
    for cell in result["cells"]:
        primitive = cell["node"].partition(" with ")[0]
        roles = counts.setdefault(primitive, {})
        roles.setdefault(cell["role"], collections.Counter())[cell["verdict"]] += 1
    return {
        "framework": result["framework"],
        "version": result["version"],
        "counts": result["counts"],
        "primitives": counts,
        "failures": [
            {name: value for name, value in failure.items() if name != "folder"}
            for failure in result["failures"]
        ],
    }


def scoreboard(results: Sequence[Mapping[str, Any]]) -> str:
    """Return the page in Markdown.

    Args:
        results: what `stored_result` returns, one for each framework and version.
    """
    lines = [_INTRODUCTION]
    lines += _table(
        ["framework", "version", *VERDICTS, "faults"],
        (
            [
                _link(result, result["framework"]),
                result["version"],
                *(result["counts"][verdict] for verdict in VERDICTS),
                len(result["failures"]),
            ]
            for result in results
        ),
    )
    primitives = sorted({name for result in results for name in result["primitives"]})
    for role in ROLES:
        lines += [f"## {role.capitalize()}", ""]
        headings = [_link(result, _name(result)) for result in results]
        rows = (
            [
                primitive,
                *(_entry(result["primitives"].get(primitive, {}), role) for result in results),
            ]
            for primitive in primitives
        )
        lines += _table(["primitive", *headings], rows)
    for result in results:
        lines += [f"## {_name(result)}", ""]
        lines += [line for failure in result["failures"] for line in _failure(failure)]
        if not result["failures"]:
            lines += ["No faults.", ""]
    return "\n".join(lines).rstrip() + "\n"


def _name(result: Mapping[str, Any]) -> str:
    return f"{result['framework']} {result['version']}"


def _link(result: Mapping[str, Any], text: str) -> str:
    """Return a link to the faults of a result."""
    anchor = re.sub(r"[^\w -]", "", _name(result).lower()).replace(" ", "-")
    return f"[{text}](#{anchor})"


def _table(headings: Sequence[str], rows: Iterable[Sequence[Any]]) -> list[str]:
    """Return a table in Markdown, and an empty line."""
    lines = [headings, ["---"] * len(headings), *rows]
    return [*(f"| {' | '.join(map(str, line))} |" for line in lines), ""]


def _entry(roles: Mapping[str, Mapping[str, int]], role: str) -> str:
    """Return the verdicts of one primitive, faults in bold."""
    counts = roles.get(role, {})
    parts = []
    for verdict in ("pass", "wrong", "crash", "refused"):
        if counts.get(verdict):
            text = f"{counts[verdict]} {verdict}"
            parts.append(f"**{text}**" if verdict in ("wrong", "crash") else text)
    return ", ".join(parts) or "-"


def _failure(failure: Mapping[str, Any]) -> list[str]:
    """Return a failure: what is wrong, the smallest network, and its spike trains."""
    cells = failure["cells"]
    lines = [f"**{failure['verdict']}**: `{failure['title'].replace('`', '')}`", ""]
    others = f" and {len(cells) - 1} more" if len(cells) > 1 else ""
    lines += [f"Cell `{cells[0]}`{others}.", ""]
    if failure["verdict"] == "wrong":
        lines += [f"The reason: {failure['reason']}.", ""]
    if failure["expected"] is not None:
        lines.append("```text")
        for name in ("input", "expected", "actual"):
            lines += [f"{name}:", draw_trains(np.array(failure[name]))]
        lines += ["```", ""]
    return lines


def read_results(folder: Path) -> list[dict[str, Any]]:
    """Return the stored results, sorted by framework and version."""
    results = [json.loads(read_text(path, "result")) for path in folder.glob("*.json")]
    return sorted(results, key=lambda result: (result["framework"], _version_key(result)))


def _version_key(result: Mapping[str, Any]) -> list[int]:
    return [int(part) for part in result["version"].split(".") if part.isdecimal()]


def main(arguments: Sequence[str]) -> None:
    """Store results and write the page.

    Args:
        arguments: the folder of the documentation, and files of results.
    """
    docs = Path(arguments[0])
    (docs / "conformance").mkdir(exist_ok=True)
    for name in arguments[1:]:
        result = stored_result(json.loads(read_text(name, "result")))
        path = docs / "conformance" / f"{result['framework']}-{result['version']}.json"
        write_atomically(path, json.dumps(result, separators=(",", ":")) + "\n", force=True)
    page = scoreboard(read_results(docs / "conformance"))
    write_atomically(docs / "scoreboard.md", page, force=True)


if __name__ == "__main__":
    main(sys.argv[1:])
