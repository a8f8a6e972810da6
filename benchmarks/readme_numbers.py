"""The numbers of README.md: the speed from docs/performance.md, the frameworks that files are converted for from the
register, and what the two commands print.

    python benchmarks/readme_numbers.py --write                      # speed and frameworks
    make demo | tee demo.txt; python benchmarks/readme_numbers.py --demo demo.txt --write
    make test | tee test.txt; python benchmarks/readme_numbers.py --tests test.txt --write

`tests/house/test_readme.py` compares.
"""

import argparse
import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
README, PERFORMANCE = ROOT / "README.md", ROOT / "docs" / "performance.md"
OURS, PEER = "jaxsnn-nir", "jaxsnn 0.3.0 eventprop"
SIZES = (120, 500)
ROWS = {
    "forward": "forward",
    "weights": "forward + backward, weights",
    "all": "forward + backward, all parameters",
}
#: What is shown of the demo: the line of each step, and lines that begin so.
SHOWN = (
    *(
        "not specified",
        "user options",
        "accuracy before training",
        "lif1: at each",
        "test accuracy",
    ),
    "exactly the ",
)
#: Words of a line that is shown wherever it begins with a number.
COMPARED = "at the same times as before the export"


def medians(page: str, size: int) -> dict[str, dict[str, float]]:
    """Library -> row -> milliseconds, of the feed-forward network of a size."""
    table = page.split(f"\n**5-{size}-3**")[1].split("\n\n**")[0]
    found = {}
    for name in (OURS, PEER):
        cells = re.search(rf"^\| {re.escape(name)}[^|]*\|(.*)$", table, re.M)
        assert cells is not None, f"docs/performance.md has no row {name} for 5-{size}-3"
        values = [cell.split("(")[0].strip() for cell in cells[1].split("|")]
        pairs = zip(ROWS, values, strict=False)
        found[name] = {row: float(value) for row, value in pairs if value}
    return found


def work_table(page: str) -> str:
    """README's table of work of real size: the columns that hold the native backend and the peers' 100
    steps, milliseconds by the clock.
    """
    begin = page.index("| Forward + backward, ms")
    lines = page[begin : page.index("\n\n", begin)].splitlines()
    rows = [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in lines]
    chosen = [
        number
        for number, title in enumerate(rows[0])
        if title == "native" or title.endswith(", 100 steps")
    ]
    titles = [rows[0][number].replace("native", "this library") for number in chosen]
    shown = [
        "| forward + backward, weights, ms: network (batch) | " + " | ".join(titles) + " |",
        "|---|" + "--:|" * len(chosen),
    ]
    for row in rows[2:]:
        times = (re.sub(r" \(.*\)", "", row[number]) for number in chosen)
        shown.append(f"| {row[0]} | {' | '.join(times)} |")
    return "\n".join(shown)


def speed_table(page: str) -> str:
    """README's table of a small network beside the package of the same name."""
    lines = [
        "| N | | this library, ms | jaxsnn 0.3.0, ms | ratio |",
        "|---|---|---|---|---|",
    ]
    for size in SIZES:
        ours, peer = medians(page, size).values()
        for row, label in ROWS.items():
            other = peer.get(row, peer["weights"])
            said = f"{other:.3g}" + ("" if row in peer else " (weights only)")
            lines.append(
                f"| {size} | {label} | {ours[row]:.2g} | {said} | {other / ours[row]:.0f} |"
            )
    return "\n".join(lines)


def converted_for() -> str:
    """The frameworks that a file is rewritten for."""
    from jaxsnn.nir.frameworks.registry import frameworks

    titles = [one.title for one in frameworks().values() if any(i.write for i in one.importers)]
    return ", ".join(titles)


def feature_row() -> str:
    """The row of the table of features on them."""
    return f"| rewrites a file for another framework | {converted_for()} | no | no | no | no |"


def demo_lines(printed: str) -> Iterator[str]:
    """What README shows of the demo, from its first step on; dots stand for what is left out."""
    left_out, begun = False, False
    for line in printed.splitlines():
        text = line.strip()
        if re.match(r"\d+ +\w", line) or text.startswith(SHOWN) or COMPARED in text:
            if left_out:
                yield "..."
            left_out, begun = False, True
            yield line
        else:
            left_out = begun
    if left_out:
        yield "..."


def with_parts(readme: str, parts: dict[str, str]) -> str:
    """README with other text between its marks."""
    for name, text in parts.items():
        begin, end = f"<!-- begin {name} -->\n", f"\n<!-- end {name} -->"
        before, _, rest = readme.partition(begin)
        _, mark, after = rest.partition(end)
        assert mark, f"README.md has no marks for {name}"
        readme = before + begin + text + end + after
    return readme


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--demo", type=Path, help="what make demo printed")
    parser.add_argument("--tests", type=Path, help="what make test printed")
    parser.add_argument("--write", action="store_true", help="change README.md")
    arguments = parser.parse_args()
    page = PERFORMANCE.read_text()
    parts = {"work": work_table(page), "speed": speed_table(page)}
    if arguments.demo:
        shown = "\n".join(demo_lines(arguments.demo.read_text()))
        parts["demo"] = f"```console\n$ make demo\n{shown}\n```"
    if arguments.tests:
        last = re.findall(r"^\d+ passed.*?(?= in )", arguments.tests.read_text(), re.M)[-1]
        parts["tests"] = f"```console\n$ make test\n...\n{last}\n```"
    readme = with_parts(README.read_text(), parts)
    readme = re.sub(r"^\| rewrites a file .*$", feature_row(), readme, flags=re.M)
    if arguments.write:
        README.write_text(readme)
    else:
        sys.stdout.write("\n\n".join([*parts.values(), feature_row(), ""]))


if __name__ == "__main__":
    main()
