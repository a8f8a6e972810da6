"""The pages of the site that follow from the code: reference, commands, options, nodes, frameworks,
passes, capabilities, messages, and the gallery of examples. They are written into `generated/`, which is not committed.
"""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import os
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
#: Modules whose public names are the reference, with what they are for.
REFERENCE = {
    "jaxsnn": "Graphs, simulation, the chip",
    "jaxsnn.train": "Training",
    "jaxsnn.plot": "Pictures",
    "jaxsnn.nir.build": "Graphs made in Python",
    "jaxsnn.nir.initializers": "Weights to begin with",
}
#: What is compiled runs a few times only.
QUICKLY = "--xla_backend_optimization_level=0"
#: What an example needs besides the package.
NEEDS = {"snntorch_to_event": ("torch", "snntorch")}


def write_all(folder: Path) -> None:
    """All generated pages, into `generated/` of the site's folder."""
    made = folder / "generated"
    shutil.rmtree(made, ignore_errors=True)
    (made / "gallery").mkdir(parents=True)
    pages = {
        "reference": reference_page(),
        "commands": commands_page(),
        "options": options_page(),
        "nodes": nodes_page(),
        "frameworks": frameworks_page(),
        "passes": passes_page(),
        "capabilities": capabilities_page(),
        "messages": messages_page(),
        "examples": gallery_page(made / "gallery"),
    }
    for name, text in pages.items():
        (made / f"{name}.md").write_text(text)


# ---- text


def plain(text: str) -> str:
    """Text of a docstring as Markdown: what stands in backquotes stays code, all else is text."""
    parts = re.split(r"(`[^`]+`)", text)
    return "".join(
        part if number % 2 else re.sub(r"([*_<>\[\]|$\\])", r"\\\1", part)
        for number, part in enumerate(parts)
    )


def described(record: Any, deep: bool = True) -> str:
    """The docstring of a public name as Markdown: prose, lists of arguments, examples."""
    text = inspect.cleandoc(record.__doc__ or "")
    lines, out, example = text.splitlines(), [], False
    for line in lines:
        stripped = line.strip()
        if stripped.startswith(">>>") and not example:
            out.append("\n```pycon")
            example = True
        elif example and not stripped:
            out.append("```\n")
            example = False
        if example:
            out.append(line)
        elif re.fullmatch(r"(Args|Raises|Returns|Attributes|Source):?", stripped):
            out.append(f"\n**{stripped.rstrip(':')}**\n")
        elif found := re.match(r"    (\*{0,2}[\w, .*]+?): (.*)", line):
            out.append(f"- `{found[1]}`: {plain(found[2])}")
        elif line.startswith("        "):
            out.append(f"  {plain(stripped)}")
        else:
            out.append(plain(stripped))
    out += ["```"] if example else []
    return "\n".join(out)


def signature_of(name: str, record: Any) -> str:
    """How a name is called, a line for each argument where there are many."""
    try:
        found = str(inspect.signature(record)).replace("'", "")
    except (TypeError, ValueError):
        return name
    text = f"{name}{re.sub(r' -> .*', '', found)}"
    return text if len(text) < 90 else text.replace(", ", ",\n    ")


def public_names(module: Any) -> list[str]:
    """What a module offers."""
    listed = getattr(module, "__all__", None)
    if listed is not None:
        return [name for name in listed if name != "__version__"]
    own = vars(module).items()
    return [
        name
        for name, value in own
        if not name.startswith("_") and getattr(value, "__module__", "") == module.__name__
    ]


# ---- pages


def reference_page() -> str:
    """Every public name with its signature and its docstring."""
    from importlib import import_module

    parts = ["# Reference\n", "Axis orders are the same everywhere: [](../axes.md).\n"]
    for name, title in REFERENCE.items():
        module = import_module(name)
        parts.append(f"## {title}: `{name}`\n")
        for public in sorted(public_names(module), key=str.lower):
            value = getattr(module, public)
            parts.append(f"### {name}.{public}\n")
            if callable(value):
                parts.append(f"```python\n{signature_of(public, value)}\n```\n")
                parts.append(described(value) + "\n")
                parts += methods_of(value)
            else:
                parts.append(f"`{type(value).__name__}`: {plain(str(value)[:300])}\n")
    return "\n".join(parts)


def methods_of(record: Any) -> list[str]:
    """The public methods and properties of a class, a line each."""
    if not inspect.isclass(record):
        return []
    found = []
    for name, value in vars(record).items():
        own = value.fget if isinstance(value, property) else getattr(value, "__func__", value)
        if not name.startswith("_") and inspect.isfunction(own) and own.__doc__:
            first = inspect.cleandoc(own.__doc__).split("\n\n")[0].replace("\n", " ")
            found.append(f"- `{name}`: {plain(first)}")
    return [*found, ""]


def parsers() -> dict[str, argparse.ArgumentParser]:
    """Command -> its parser, with all options; those of commands of a command, too."""
    from jaxsnn.commands.cli import build_parser

    found = {}

    def walk(parser: argparse.ArgumentParser, name: str) -> None:
        parser.complete() if hasattr(parser, "complete") else None
        actions = [one for one in parser._actions if isinstance(one, argparse._SubParsersAction)]
        if not actions:
            found[name] = parser
        for action in actions:
            for choice, child in action.choices.items():
                walk(child, f"{name} {choice}".strip())

    walk(build_parser(), "")
    return found


def commands_page() -> str:
    """Every command with every option."""
    parts = [
        "# Commands and options\n",
        "As `--help` gives them; JSON keys are in [](../cli.md).\n",
    ]
    for name, parser in parsers().items():
        parts.append(f"## jaxsnn {name}\n")
        parts.append(plain(parser.description or "") + "\n")
        parts += ["| option | does |", "|---|---|"]
        for action in parser._actions:
            flags = ", ".join(f"`{flag}`" for flag in action.option_strings)
            shown = flags or f"`{action.metavar or action.dest}`"
            parts.append(f"| {shown} | {plain((action.help or '').replace('%%', '%'))} |")
        parts.append("")
    return "\n".join(parts)


def options_page() -> str:
    """Every option: its spellings, the commands that take it, and the options of training."""
    from jaxsnn.commands.arguments import OPTION
    from jaxsnn.train.options import OPTIONS, TrainOptions, help_of

    options, takers = {}, {}
    for command, parser in parsers().items():
        for action in parser._actions:
            option = getattr(action, OPTION, None)
            if option is not None and action.help != argparse.SUPPRESS:
                options.setdefault(option.long_flag, option)
                takers.setdefault(option.long_flag, []).append(command.split()[0])
    parts = [
        "# Options\n",
        "Every option is declared once; the command line, configuration files, shell completion and"
        " the advice in messages come from the declarations.\n",
        "| command line | Python | commands | does |",
        "|---|---|---|---|",
    ]
    for flag, option in sorted(options.items()):
        is_common = len(takers[flag]) >= len(parsers()) - 3
        commands = "all" if is_common else ", ".join(f"`{name}`" for name in takers[flag])
        parts.append(f"| `{flag}` | `{option.name}` | {commands} | {plain(option.help_text)} |")
    parts += [
        "\n## Options of training\n",
        "Fields of `jaxsnn.train.TrainOptions`, and arguments of `fit`.\n",
        "| option | default | does |",
        "|---|---|---|",
    ]
    defaults = {field.name: field.default for field in dataclasses.fields(TrainOptions)}
    for name in OPTIONS:
        default = defaults.get(name)
        shown = getattr(default, "__name__", default)
        parts.append(f"| `{name}` | `{shown}` | {plain(help_of(name))} |")
    return "\n".join(parts) + "\n"


def nodes_page() -> str:
    """What is known of each type of node."""
    from jaxsnn.nir.model.nodes import class_of, node_types

    rows = ["| node | is | parameters | state | fires |", "|---|---|---|---|---|"]
    for kind in node_types():
        made = class_of(kind)
        traits = made.traits
        said = (traits.doc or inspect.getdoc(made) or "").split("\n\n")[0].replace("\n", " ")
        names = ", ".join(f"`{one.name}`" for one in traits.parameters)
        state, fires = ("yes" if flag else "no" for flag in (traits.state, traits.fires))
        rows.append(f"| `{kind}` | {plain(said)} | {names} | {state} | {fires} |")
    head = (
        "# Nodes\n\nEvery type of node that is read and written bit for bit, lowered, and drawn. "
        "What each engine, the chip and each importer make of the nodes of a file: "
        "`jaxsnn matrix FILE`.\n\n"
    )
    return head + "\n".join(rows) + "\n"


def frameworks_page() -> str:
    """The frameworks, as `docs/interop.md` has them."""
    from jaxsnn.nir.frameworks.tables import frameworks_table

    return f"# Frameworks and versions\n\n{frameworks_table()}\n"


def passes_page() -> str:
    """Return the passes of a conversion, with their conditions and the targets that need them."""
    from jaxsnn.nir.convert.passes import ConversionRequest
    from jaxsnn.nir.convert.pipeline import PASSES
    from jaxsnn.nir.convert.target import target_of
    from jaxsnn.nir.frameworks.registry import writable

    requests = {name: ConversionRequest(target=target_of(name)) for name in writable()}
    parts = [
        "# Passes of a conversion\n",
        "`jaxsnn convert` runs these passes in this order, each where the target's importer needs it; "
        "`jaxsnn convert --show-passes --to NAME` prints those of one target. "
        "With `JAXSNN_CHECK_PASSES=1` in the environment, as in the tests, a conversion checks what "
        "each pass requires before it, what it ensures after it, and that every edge joins two nodes.\n",
    ]
    for number, conversion_pass in enumerate(PASSES, 1):
        targets = [name for name, request in requests.items() if conversion_pass.when(request)]
        needed = "every target" if len(targets) == len(requests) else ", ".join(targets)
        parts.append(f"## {number}. {conversion_pass.name}\n")
        parts.append(f"{plain(conversion_pass.description)}\n")
        parts += [
            f"- requires: {plain(condition.statement)}" for condition in conversion_pass.requires
        ]
        parts += [
            f"- ensures: {plain(condition.statement)}" for condition in conversion_pass.ensures
        ]
        parts.append(
            f"- for: {needed or 'graphs whose convolutions must be written as matrices'}\n"
        )
    return "\n".join(parts)


def capabilities_page() -> str:
    """Return what engines, kernels, the chip and importers do not support."""
    from jaxsnn.compatibility.tables import (
        TABLES,
        features_table,
        importers_table,
        limits_table,
    )

    parts = [
        "# Capabilities\n",
        "What an engine, the chip or an importer does not support is a table in the code, with which"
        " `jaxsnn check`, `jaxsnn matrix` and the engines compare a network. This page is made of these"
        " tables. For one file, `jaxsnn matrix FILE` prints a verdict for each node.\n",
        "## Features\n",
        "`no`: such a network is refused. `approximate`: it runs, with a warning. `slower`: XLA simulates"
        " it, because the native kernels do not. An empty cell: there is no limit.\n",
        features_table(),
    ]
    for simulator, tables in TABLES.items():
        title = tables[0].title
        parts += [f"\n## {title[0].upper()}{title[1:]}\n", limits_table(simulator)]
    parts += [
        "\n## Importers\n",
        "Of the newest release that is known of each. Whether a graph can be rewritten for an importer,"
        " `jaxsnn convert` decides; see [](passes.md).\n",
        importers_table(),
    ]
    return "\n".join(parts) + "\n"


def messages_page() -> str:
    """Likely mistakes, the exact text that answers each, and the codes of problems."""
    from likely_mistakes import MISTAKES, answered

    from jaxsnn.problem_codes import CODES

    parts = [
        "# Messages\n",
        "Likely mistakes, and what is answered. Each text is what the library says, made anew "
        "whenever this page is.\n",
    ]
    for mistake in MISTAKES:
        parts.append(f"## {mistake.title}\n")
        kind = "console" if mistake.code.startswith("$ ") else "python"
        parts.append(f"```{kind}\n{mistake.code}\n```\n")
        parts.append(f"```text\n{answered(mistake)}\n```\n")
    parts += [
        "## Codes\n",
        "Each problem and each note has a code, which does not change: `error.problem.code` in Python,"
        " `code` in JSON. `facts` has the numbers and names of a message by name.\n",
        "| code | means |",
        "|---|---|",
        *(f"| `{code}` | {plain(meaning)} |" for code, meaning in CODES.items()),
        "",
    ]
    return "\n".join(parts)


# ---- the gallery


def cells_of(source: str) -> list[tuple[str, str]]:
    """The cells of an example: "markdown" or "python", and their text."""
    found = []
    for part in re.split(r"^# %%", source, flags=re.M)[1:]:
        head, _, body = part.partition("\n")
        if "[markdown]" in head:
            text = "\n".join(line.removeprefix("#").removeprefix(" ") for line in body.splitlines())
            found.append(("markdown", text.strip()))
        elif body.strip():
            found.append(("python", body.strip()))
    return found


def gallery_page(folder: Path) -> str:
    """A page for each example, with the picture that it drew, and the page that lists them."""
    names = sorted(path.stem for path in EXAMPLES.glob("*.py") if path.stem != "export_snntorch")
    wanted = os.environ.get("JAXSNN_DOCS_EXAMPLES", "run") == "run"
    with ThreadPoolExecutor(max_workers=2) as pool:
        runs = [pool.submit(run_example, name, folder) for name in names if wanted]
    drawn = dict(zip(names, (run.result() for run in runs), strict=False))
    lines = ["# Examples\n", "Each is a script with cells; `--smoke` runs it in seconds.\n"]
    for name in names:
        cells = cells_of((EXAMPLES / f"{name}.py").read_text())
        said = [text if kind == "markdown" else f"```python\n{text}\n```" for kind, text in cells]
        pictures = drawn.get(name, ())
        shown = [f"![{name}: what it draws]({path.name})" for path in pictures]
        script = f"\nThe script: `examples/{name}.py`.\n"
        (folder / f"{name}.md").write_text("\n\n".join([*said, *shown, script]))
        first = [
            f"[![{name}: what it draws](gallery/{path.name})](gallery/{name}.md)<br>"
            for path in pictures[:1]
        ]
        lines.append(f"- {''.join(first)}[](gallery/{name}.md)")
    listed = "\n".join(f"gallery/{name}" for name in names)
    return "\n".join([*lines, "", "```{toctree}", ":hidden:", "", listed, "```", ""])


def run_example(name: str, folder: Path) -> list[Path]:
    """The pictures that an example draws with --smoke; none where what it needs is not installed."""
    from importlib.util import find_spec

    if any(find_spec(module) is None for module in NEEDS.get(name, ())):
        return []
    paths = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, EXAMPLES / f"{name}.py", "--smoke"],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": paths, "XLA_FLAGS": QUICKLY},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise RuntimeError(f"examples/{name}.py failed:\n{done.stderr}")
    return [path for path in sorted(folder.glob(f"{name}*.*g")) if path.suffix in (".png", ".svg")]
