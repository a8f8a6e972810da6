"""Real runs of the examples, for the pictures and the notebooks of the site.

    python docs/example_runs.py                          # all examples, some minutes
    python docs/example_runs.py train_yinyang EPOCHS=5   # one, with another value of a constant

Pictures are written to docs/pictures/, notebooks with their outputs to examples/notebooks/. Both are
committed, so that the site builds without running the examples.
"""

from __future__ import annotations

import ast
import io
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import chdir, redirect_stdout
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
NOTEBOOKS = EXAMPLES / "notebooks"
PICTURES = ROOT / "docs" / "pictures"
#: Examples that are also notebooks -> the extras that they need.
EXTRAS = {
    "train_yinyang": "plot",
    "snntorch_to_event": "interop,plot",
    "norse_round_trip": "plot",
    "map_to_brainscales2": "plot",
}

#: A cell: "markdown" or "python", and its text.
Cell = tuple[str, str]


def example_names() -> list[str]:
    """Return the names of the examples, without the script that exported the network of the demo."""
    return sorted(path.stem for path in EXAMPLES.glob("*.py") if path.stem != "export_snntorch")


def cells_of(source: str) -> list[Cell]:
    """Return the cells of an example: "markdown" or "python", and their text."""
    cells = []
    for part in re.split(r"^# %%", source, flags=re.M)[1:]:
        head, _, body = part.partition("\n")
        if "[markdown]" in head:
            text = "\n".join(line.removeprefix("#").removeprefix(" ") for line in body.splitlines())
            cells.append(("markdown", text.strip()))
        elif body.strip():
            cells.append(("python", body.strip()))
    return cells


def with_constants(source: str, constants: Mapping[str, Any]) -> str:
    """Return the source of an example with other values of its constants.

    Raises:
        ValueError: the example does not set one of them exactly once.
    """
    for name, value in constants.items():
        source, count = re.subn(rf"^{name} = .*$", f"{name} = {value!r}", source, flags=re.M)
        if count != 1:
            raise ValueError(f"the example sets {name} {count} times")
    return source


def run_cells(cells: Sequence[Cell]) -> Iterator[list[dict[str, Any]]]:
    """Run the Python cells one after the other, as a notebook does.

    Yields:
        For each cell its outputs in the notebook format; none for cells of text.
    """
    namespace: dict[str, Any] = {"__name__": "__main__"}
    for number, (kind, text) in enumerate(cells, 1):
        if kind != "python":
            yield []
            continue
        tree = ast.parse(text, f"cell {number}")
        last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
        shown = None
        with redirect_stdout(io.StringIO()) as printed:
            exec(compile(tree, f"cell {number}", "exec"), namespace)
            if isinstance(last, ast.Expr):
                expression = ast.Expression(last.value)
                shown = eval(compile(expression, f"cell {number}", "eval"), namespace)
        sys.stdout.write(printed.getvalue())
        yield _outputs(printed.getvalue(), shown)


def _outputs(printed: str, shown: Any) -> list[dict[str, Any]]:
    """Return the outputs of a cell: what it prints, and the value of its last line."""
    outputs: list[dict[str, Any]] = []
    if printed:
        lines = printed.splitlines(keepends=True)
        outputs.append({"output_type": "stream", "name": "stdout", "text": lines})
    if shown is not None:
        formats = {"text/plain": repr(shown).splitlines(keepends=True)}
        html = shown._repr_html_() if hasattr(shown, "_repr_html_") else None
        if html is not None:
            formats["text/html"] = html.splitlines(keepends=True)
        outputs.append({"output_type": "display_data", "data": formats, "metadata": {}})
    return outputs


def notebook_of(name: str, cells: Sequence[Cell], outputs: Sequence[list[Any]]) -> dict[str, Any]:
    """Return a notebook (format 4.5) that first installs the package, then has the cells."""
    install = ("python", f'%pip install -q "jaxsnn-nir[{EXTRAS[name]}]"')
    entries = []
    for number, ((kind, text), cell_outputs) in enumerate(
        zip([install, *cells], [[], *outputs], strict=True)
    ):
        entry = {"id": f"cell-{number}", "metadata": {}, "source": text.splitlines(keepends=True)}
        if kind == "python":
            entry |= {"cell_type": "code", "execution_count": None, "outputs": cell_outputs}
        else:
            entry |= {"cell_type": "markdown"}
        entries.append(entry)
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    metadata = {"kernelspec": kernel, "language_info": {"name": "python"}}
    return {"cells": entries, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}


def run_example(name: str, constants: Mapping[str, Any]) -> None:
    """Run an example in an empty folder; write its pictures, and its notebook if it has one."""
    source = with_constants((EXAMPLES / f"{name}.py").read_text(), constants)
    cells = cells_of(source)
    with tempfile.TemporaryDirectory() as folder, chdir(folder):
        outputs = list(run_cells(cells))
        for path in sorted(Path(folder).glob(f"{name}*.*g")):
            (PICTURES / path.name).write_bytes(path.read_bytes())
    if name in EXTRAS:
        NOTEBOOKS.mkdir(exist_ok=True)
        text = json.dumps(notebook_of(name, cells, outputs), indent=1) + "\n"
        (NOTEBOOKS / f"{name}.ipynb").write_text(text)


def main(words: Sequence[str]) -> None:
    """Run one example in this process, or several, by default all, each in a process of its own."""
    constants = dict(word.split("=", 1) for word in words if "=" in word)
    selected = [word for word in words if "=" not in word]
    if len(selected) == 1:
        values = {name: ast.literal_eval(value) for name, value in constants.items()}
        run_example(selected[0], values)
        return
    if constants:
        sys.exit("constants can be set for one example only: name it")
    for name in selected or example_names():
        print(f"== {name}", flush=True)
        # JAX chooses its devices once in a process, and some examples register extensions
        paths = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
        environment = os.environ | {"PYTHONPATH": paths}
        subprocess.run([sys.executable, __file__, name], env=environment, check=True)


if __name__ == "__main__":
    main(sys.argv[1:])
