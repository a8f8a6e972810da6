"""Pages of the site that are generated from the code: reference, commands, options, nodes,
frameworks, passes, messages, and the gallery of examples. They are written to `generated/`, which is
not committed.
"""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import shutil
from pathlib import Path

from example_runs import EXAMPLES, EXTRAS, PICTURES, cells_of, example_names
from reference_pages import plain, reference_page, topic_pages


def write_all(folder: Path) -> None:
    """Write all generated pages to `generated/` in the folder of the site."""
    generated = folder / "generated"
    shutil.rmtree(generated, ignore_errors=True)
    (generated / "gallery").mkdir(parents=True)
    (generated / "reference").mkdir()
    pages = {
        "reference": reference_page(),
        "commands": commands_page(),
        "options": options_page(),
        "nodes": nodes_page(),
        "frameworks": frameworks_page(),
        "passes": passes_page(),
        "capabilities": capabilities_page(),
        "messages": messages_page(),
        "examples": gallery_page(generated / "gallery"),
    }
    for name, text in pages.items():
        (generated / f"{name}.md").write_text(text)
    for name, text in topic_pages().items():
        (generated / "reference" / f"{name}.md").write_text(text)


# ---- pages


def parsers() -> dict[str, argparse.ArgumentParser]:
    """Return the complete parser of each command; subcommands are named `chip inputs`."""
    from jaxsnn.commands.cli import build_parser

    leaves = {}

    def walk(parser: argparse.ArgumentParser, name: str) -> None:
        parser.complete() if hasattr(parser, "complete") else None
        subcommands = [
            action for action in parser._actions if isinstance(action, argparse._SubParsersAction)
        ]
        if not subcommands:
            leaves[name] = parser
        for action in subcommands:
            for choice, child in action.choices.items():
                walk(child, f"{name} {choice}".strip())

    walk(build_parser(), "")
    return leaves


def commands_page() -> str:
    """Return a page with every command and every option."""
    parts = [
        "# Commands and options\n",
        "The output of `--help` for every command. Files, exit codes and JSON: [](../cli.md).\n",
    ]
    for name, parser in parsers().items():
        parts.append(f"## jaxsnn {name}\n")
        parts.append(plain(parser.description or "") + "\n")
        parts += ["| option | meaning |", "|---|---|"]
        for action in parser._actions:
            if action.help == argparse.SUPPRESS:
                continue
            flags = ", ".join(f"`{flag}`" for flag in action.option_strings)
            shown = flags or f"`{action.metavar or action.dest}`"
            parts.append(f"| {shown} | {plain((action.help or '').replace('%%', '%'))} |")
        parts.append("")
    return "\n".join(parts)


def options_page() -> str:
    """Return a page with every option, its name in Python, and the commands that take it."""
    from jaxsnn.commands.arguments import OPTION
    from jaxsnn.train.options import OPTIONS, TrainOptions

    options, commands_of_flag = {}, {}
    for command, parser in parsers().items():
        for action in parser._actions:
            option = getattr(action, OPTION, None)
            if option is not None and action.help != argparse.SUPPRESS:
                options.setdefault(option.long_flag, option)
                commands_of_flag.setdefault(option.long_flag, []).append(command.split()[0])
    parts = [
        "# Options\n",
        "## Options of commands\n",
        "| command line | Python | commands | meaning |",
        "|---|---|---|---|",
    ]
    for flag, option in sorted(options.items()):
        is_common = len(commands_of_flag[flag]) >= len(parsers()) - 3
        commands = "all" if is_common else ", ".join(f"`{name}`" for name in commands_of_flag[flag])
        parts.append(f"| `{flag}` | `{option.name}` | {commands} | {plain(option.help_text)} |")
    parts += [
        "\n## Options of training\n",
        "Fields of {py:obj}`jaxsnn.train.TrainOptions`, and arguments of {py:obj}`jaxsnn.fit`.\n",
        "| option | default | meaning |",
        "|---|---|---|",
    ]
    defaults = {field.name: field.default for field in dataclasses.fields(TrainOptions)}
    for name in OPTIONS:
        default = defaults.get(name)
        shown = getattr(default, "__name__", default)
        parts.append(f"| `{name}` | `{shown}` | {plain(OPTIONS[name].help_text)} |")
    return "\n".join(parts) + "\n"


def nodes_page() -> str:
    """Return a table of all types of nodes."""
    from jaxsnn.nir.model.nodes import class_of, node_types

    rows = ["| node | description | parameters | state | spikes |", "|---|---|---|---|---|"]
    for kind in node_types():
        node_class = class_of(kind)
        traits = node_class.traits
        text = (traits.doc or inspect.getdoc(node_class) or "").split("\n\n")[0].replace("\n", " ")
        parameters = ", ".join(f"`{parameter.name}`" for parameter in traits.parameters)
        state, fires = ("yes" if flag else "no" for flag in (traits.state, traits.fires))
        rows.append(f"| `{kind}` | {plain(text)} | {parameters} | {state} | {fires} |")
    head = (
        "# Node types\n\nAll types of nodes that are read, written bit for bit, simulated and drawn. "
        "`jaxsnn matrix` prints which engine, chip and importer supports which of them, and "
        "`jaxsnn matrix FILE` the same for the nodes of a file. To add a type: "
        "[](../guide_neuron.md).\n\n"
    )
    return head + "\n".join(rows) + "\n"


def frameworks_page() -> str:
    """Return the table of frameworks of `docs/interop.md`."""
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
        "each pass requires before it, what it ensures after it, and that every edge connects two nodes.\n",
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
    """Return a page of common mistakes, the message for each, and the codes of messages."""
    from likely_mistakes import MISTAKES, PREAMBLE, message_of

    from jaxsnn.problem_codes import CODES

    parts = [
        "# Messages\n",
        "Common mistakes with the message for each, and the codes of all messages. A message gives "
        "the node, the numbers and what to do. The messages below are generated when the site is "
        "built.\n",
        "## Common mistakes\n",
        "The examples start with\n",
        f"```python\n{PREAMBLE}```\n",
    ]
    for mistake in MISTAKES:
        parts.append(f"### {mistake.title}\n")
        language = "console" if mistake.code.startswith("$ ") else "python"
        parts.append(f"```{language}\n{mistake.code}\n```\n")
        parts.append(f"```text\n{message_of(mistake)}\n```\n")
    parts += [
        "## Codes\n",
        "Each problem and each note has a code that does not change between releases: "
        "`error.problem.code` in Python, `code` in JSON. `facts` has the names and numbers of the "
        "message.\n",
        "| code | meaning |",
        "|---|---|",
        *(f"| `{code}` | {plain(meaning)} |" for code, meaning in CODES.items()),
        "",
    ]
    return "\n".join(parts)


# ---- the gallery


def gallery_page(folder: Path) -> str:
    """Write a page for each example, with its pictures, and return the page that lists them.

    The pictures are those that `example_runs.py` made in runs of full size.
    """
    lines = [
        "# Examples\n",
        "Each example is a script with cells in `examples/`. The pictures are from complete runs; to "
        "shorten a run, change the constants at the top of the script.\n",
    ]
    for name in example_names():
        cells = cells_of((EXAMPLES / f"{name}.py").read_text())
        blocks = [text if kind == "markdown" else f"```python\n{text}\n```" for kind, text in cells]
        pictures = [path.name for path in pictures_of(name)]
        images = [f"![Picture of {name}](../../pictures/{picture})" for picture in pictures]
        notebook = f", {notebook_link(name, '../../..')}" if name in EXTRAS else ""
        script = f"\nThe script: `examples/{name}.py`{notebook}.\n"
        (folder / f"{name}.md").write_text("\n\n".join([*blocks, *images, script]))
        thumbnail = f"[![Picture of {name}](../pictures/{pictures[0]})](gallery/{name}.md)<br>"
        lines.append(f"- {thumbnail}[](gallery/{name}.md)")
    lines += [
        "\n## Notebooks\n",
        "These examples are also notebooks with their outputs. Open one in Jupyter, or in Colab with "
        "*File, Upload notebook*. The first cell installs the package by its name on PyPI; before its "
        "first release there, install a wheel or a clone instead.\n",
        "| notebook | extras |",
        "|---|---|",
        *(f"| {notebook_link(name, '../..')} | `{extras}` |" for name, extras in EXTRAS.items()),
    ]
    entries = "\n".join(f"gallery/{name}" for name in example_names())
    return "\n".join([*lines, "", "```{toctree}", ":hidden:", "", entries, "```", ""])


def pictures_of(name: str) -> list[Path]:
    """Return the pictures of an example; no example's name begins with that of another."""
    return [path for path in sorted(PICTURES.glob(f"{name}*")) if path.suffix in (".png", ".svg")]


def notebook_link(name: str, root: str) -> str:
    """Return a link that downloads the notebook of an example; `root` leads to the repository."""
    return f"{{download}}`{name}.ipynb <{root}/examples/notebooks/{name}.ipynb>`"
