"""Reproductions: for each failure a NIR file, a script that shows it without this package, and an issue."""

from __future__ import annotations

import ast
import contextlib
import importlib.metadata
import inspect
import os
import platform
import re
import subprocess
import sys
import textwrap
import types
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxsnn.conformance.adapter import Adapter, NotApplicableError
from jaxsnn.conformance.comparison import Answer, file_bytes, sort_edges
from jaxsnn.conformance.networks import NetworkSpec
from jaxsnn.conformance.reference import conventions, run_reference
from jaxsnn.conformance.suite import CellOutcome, ConformanceReport, Failure
from jaxsnn.errors import FileError, UsageError
from jaxsnn.nir.graphs.parse import parse
from jaxsnn.output import write_folder
from jaxsnn.wording import Text

#: What NIR says of each primitive.
MEANING: Mapping[str, str] = {
    "Affine": "y = weight x + bias",
    "AvgPool2d": "the mean over windows of kernel_size, every stride; padding adds zeros",
    "Conv1d": "y = weight * x + bias, with stride, padding, dilation and groups",
    "Conv2d": "y = weight * x + bias, with stride, padding, dilation and groups",
    "CubaLI": "tau_syn dI/dt = -I + w_in S; tau_mem dv/dt = v_leak - v + r I",
    "CubaLIF": (
        "tau_syn dI/dt = -I + w_in S; tau_mem dv/dt = v_leak - v + r I; "
        "where v > v_threshold, a spike, and v = v_reset"
    ),
    "Delay": "y(t) = x(t - delay)",
    "Flatten": "the axes from start_dim to end_dim become one; there is no axis of samples",
    "IF": "dv/dt = r I; where v > v_threshold, a spike, and v = v_reset",
    "LI": "tau dv/dt = v_leak - v + r I",
    "LIF": "tau dv/dt = v_leak - v + r I; where v > v_threshold, a spike, and v = v_reset",
    "Linear": "y = weight x",
    "Scale": "y = scale x",
    "SumPool2d": "the sum over windows of kernel_size, every stride; padding adds zeros",
    "Threshold": "y = 1 where x > threshold, else 0",
}
#: Packages whose versions an issue names, beside that of the framework.
_PACKAGES = ("nir", "nirtorch", "torch", "jax", "numpy")
#: Modules of this package whose functions adapters call, and which a script therefore contains.
_SHARED = (
    "jaxsnn.conformance.torch_modules",
    NotApplicableError.__module__,
    sort_edges.__module__,
)
#: Longest duration of a script; one that takes longer does not return, as the framework.
_SCRIPT_SECONDS = 60
#: Largest number of entries of an array that a script lists.
_MAX_LISTED = 400


def write_failures(
    report: ConformanceReport, adapter: Adapter, folder: str | os.PathLike[str], force: bool = False
) -> list[Path]:
    """Write a folder for each failure of a report, and return the folders.

    Args:
        report: outcome of `jaxsnn.conformance.run`.
        adapter: access to the framework.
        folder: the folder that contains the new ones.
        force: whether existing files are replaced.

    Raises:
        FileError: the folder is not empty and `force` is not set, or cannot be written.
        UsageError: the adapter has no source file.
    """
    refuse_full_folder(folder, force)
    folders = []
    for failure in report.failures:
        folders.append(Path(folder) / folder_name(failure))
        write_folder(folders[-1], reproduction(adapter, report, failure), force)
    return folders


def shows_fault(folder: Path) -> bool:
    """Run the script in the folder of a failure, and return whether it shows the fault."""
    command = [sys.executable, "reproduce.py"]
    with contextlib.suppress(subprocess.TimeoutExpired):
        completed = subprocess.run(
            command, cwd=folder, capture_output=True, timeout=_SCRIPT_SECONDS, check=False
        )
        return completed.returncode == 1
    return True


def refuse_full_folder(folder: str | os.PathLike[str], force: bool) -> None:
    """Refuse a folder that contains something.

    Raises:
        FileError: the folder is not empty and `force` is not set, or is a file.
    """
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise FileError(
            Text("{path} exists and is not a folder", path=folder), fix="choose another name"
        )
    if not force and folder.is_dir() and any(folder.iterdir()):
        raise FileError(
            Text("the folder {path} is not empty", path=folder),
            fix="choose another folder, or add --force to replace files in it",
        )


def folder_name(failure: Failure) -> str:
    """Return the name of the folder of a failure."""
    return re.sub(r"[^A-Za-z0-9_.]+", "-", failure.cells[0].rpartition("/")[0])


def reproduction(
    adapter: Adapter, report: ConformanceReport, failure: Failure
) -> dict[str, str | bytes]:
    """Return the files of a failure by name: `reproduce.py`, `issue.md` and, if there is a NIR file,
    `network.nir`.
    """
    files: dict[str, str | bytes] = {}
    outcome = failure.smallest
    file = file_bytes(outcome.answer.file)
    if file is not None:
        files["network.nir"] = file
    files["reproduce.py"] = _script(adapter, report, outcome, has_file=file is not None)
    files["issue.md"] = _issue(report, failure, str(files["reproduce.py"]), file is not None)
    return files


def title_of(outcome: CellOutcome) -> str:
    """Return the title of an issue."""
    answer = outcome.answer
    kinds = [
        f"recurrent {layer.type}" if layer.recurrent is not None else layer.type
        for layer in outcome.network.layers
    ]
    subject = f"NIR {answer.stage} of {', '.join(kinds)}"
    if answer.diagnosis is not None and answer.diagnosis.ignored:
        parameters = " and ".join(answer.diagnosis.ignored)
        if answer.stage == "import":
            return f"NIR import of {kinds[-1]} ignores {parameters}"
        return f"{subject} writes a wrong {parameters}"
    if answer.diagnosis is not None:
        return f"{subject}: time constants are multiplied by {answer.diagnosis.time_factor:g}"
    return f"{subject}: {answer.reason.removeprefix(f'{answer.stage}: ')}"


def draw_trains(y: np.ndarray) -> str:
    """Return outputs (time, batch, *shape) as text: a line for each sample and neuron, "|" for a spike and
    "." for a step without one; numbers, if they are no spikes.
    """
    is_spikes = np.isin(y, (0, 1)).all()
    lines = []
    for sample in range(y.shape[1]):
        for neuron, train in enumerate(y[:, sample].reshape(len(y), -1).T):
            values = ["|" if value else "." for value in train]
            text = "".join(values) if is_spikes else " ".join(f"{value:.4g}" for value in train)
            lines.append(f"sample {sample}, neuron {neuron}: {text}")
    return "\n".join(lines)


def trains_of(outcome: CellOutcome) -> str:
    """Return input, expected and actual outputs as text; "" without outputs."""
    answer = outcome.answer
    if answer.expected is None or answer.actual is None:
        return ""
    trains = {"input": outcome.x, "expected": answer.expected, "actual": answer.actual}
    return "\n".join(f"{name}:\n{draw_trains(np.asarray(y))}" for name, y in trains.items())


def parameters_of(graph: Any, prefix: str = "") -> dict[str, np.ndarray]:
    """Return the arrays of all nodes of a nir.NIRGraph by names such as "0.weight"."""
    arrays = {}
    for name, node in graph.nodes.items():
        for key, value in vars(node).items():
            if key == "nodes":
                arrays |= parameters_of(node, f"{prefix}{name}.")
            elif isinstance(value, np.ndarray):
                arrays[f"{prefix}{name}.{key}"] = value
    return arrays


def _script(
    adapter: Adapter, report: ConformanceReport, outcome: CellOutcome, *, has_file: bool
) -> str:
    """Return the script."""
    answer = outcome.answer
    has_outputs = answer.expected is not None and answer.actual is not None
    methods = ["import_graph", "run"] if answer.stage == "import" else ["build", "run", "export"]
    bundle = Bundle(adapter)
    for name in methods:
        bundle.add(getattr(adapter, name))
    if has_outputs:
        bundle.add(draw_trains)
    body = ["try:"]
    if answer.stage == "import":
        body.append('    graph = nir.read(Path(__file__).with_name("network.nir"))')
        if _has_branches(answer.file):
            bundle.add(sort_edges)
            is_reverse = answer.file.edges != sorted(answer.file.edges)
            body.append(f"    sort_edges(graph, reverse={is_reverse})  # the order has no meaning")
        body += ["    module = import_graph(graph)", "    actual = run(module, x)"]
    else:
        bundle.add(parameters_of)
        body += [
            "    module = build(network)",
            "    actual = run(module, x)",
            "    graph = export(module, network)",
            '    path = Path(tempfile.mkdtemp()) / "exported.nir"',
            "    nir.write(path, graph)",
            "    exported = parameters_of(nir.read(path))",
        ]
        bundle.imports |= {"import tempfile", "from types import SimpleNamespace"}
    body += [
        "except Exception:",
        "    traceback.print_exc()",
        '    print("The fault shows: an error")',
        "    sys.exit(1)",
        "",
    ]
    if has_outputs:
        body += ['print("expected:", draw_trains(accepted[0]), sep="\\n")'] if has_outputs else []
        body += ['print("actual:", draw_trains(np.asarray(actual)), sep="\\n")']
    if answer.stage == "import" and has_outputs:
        body += [
            "is_right = any(",
            "    np.shape(actual) == y.shape and np.allclose(actual, y, rtol=1e-3, atol=1e-5)",
            "    for y in accepted",
            ")",
        ]
    elif answer.stage != "import" and answer.verdict == "wrong" and has_file:
        body += [
            'wrong = parameters_of(nir.read(Path(__file__).with_name("network.nir")))',
            "is_right = exported.keys() != wrong.keys() or any(",
            "    not np.array_equal(exported[name], wrong[name]) for name in wrong",
            ")",
        ]
    else:
        body += ["is_right = True"]
    body += [
        'print("The fault does not show" if is_right else "The fault shows")',
        "sys.exit(0 if is_right else 1)",
    ]
    inputs = ["# Input: (time, batch, *shape).", f"x = {_literal(outcome.x)}"]
    if answer.stage != "import":
        inputs += ["# Numbers per time step: a decay is the fraction of v that a step keeps."]
        inputs += [f"network = {_network_literal(outcome.network)}"]
    if has_outputs:
        inputs += [
            "# Outputs that the file has, the expected ones first. NIR does not say how time is"
        ]
        inputs += ["# divided into steps; the others follow from other choices.", "accepted = ["]
        inputs += [f"    {_literal(y)}," for y in _accepted(adapter, outcome)]
        inputs += ["]"]
    imports = bundle.imports | {"import sys", "import traceback", "from pathlib import Path"}
    imports |= {"import nir", "import numpy as np"}
    head = f'"""{title_of(outcome)}\n\nNeeds {report.framework} {report.version} and nir. '
    head += 'Exit code 1: the fault shows; 0: it does not.\n"""\n'
    header = "\n".join([head, *sorted(imports)])
    parts = [header, "\n".join(inputs), *bundle.definitions, "\n".join(body)]
    return "\n\n\n".join(parts) + "\n"


def _has_branches(graph: Any) -> bool:
    """Return whether an importer may depend on the order of the edges of a nir.NIRGraph."""
    sources = [source for source, _ in graph.edges]
    nested = [node for node in graph.nodes.values() if hasattr(node, "edges")]
    return len(sources) != len({*sources}) or any(map(_has_branches, nested))


def _accepted(adapter: Adapter, outcome: CellOutcome) -> Iterator[np.ndarray]:
    """Yield the different outputs that conventions give the file, the expected ones first."""
    answer = outcome.answer
    assert answer.expected is not None
    outputs = [answer.expected]
    yield answer.expected
    graph = parse(answer.file, dialect="nir", time_unit="s")
    for convention in conventions(graph):
        y = run_reference(graph, outcome.x, adapter.dt, convention).output
        if not any(np.array_equal(y, other) for other in outputs):
            outputs.append(y)
            yield y


class Bundle(ast.NodeTransformer):
    """Source of functions that run without this package, without annotations.

    Attributes:
        imports: import statements.
        definitions: source of the functions and of what they use, the used ones first.
    """

    def __init__(self, adapter: Adapter) -> None:
        self.adapter = adapter
        self.imports: set[str] = set()
        self.definitions: list[str] = []
        self._names: set[str] = set()

    def add(self, value: Any) -> None:
        """Add a function, a class or a method of the adapter, and what it uses.

        Raises:
            UsageError: its source is in no file.
        """
        function = getattr(value, "__func__", value)
        if function.__name__ in self._names:
            return
        self._names.add(function.__name__)
        try:
            tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
        except (OSError, TypeError) as error:
            raise UsageError(
                Text("the source of '{name}' is not in a file", name=function.__name__),
                fix="write the adapter to a file: the scripts contain parts of it",
            ) from error
        if inspect.isfunction(function):
            for name in sorted(_global_names(function.__code__) & function.__globals__.keys()):
                self._add_global(name, function.__globals__[name])
        self.definitions.append(ast.unparse(ast.fix_missing_locations(self.visit(tree))))

    def _add_global(self, name: str, value: Any) -> None:
        modules = (type(self.adapter).__module__, *_SHARED, __name__)
        is_definition = inspect.isfunction(value) or inspect.isclass(value)
        if inspect.ismodule(value):
            self.imports.add(f"import {value.__name__} as {name}")
        elif is_definition and value.__module__ in modules:
            self.add(value)
        elif is_definition:
            self.imports.add(f"from {value.__module__} import {value.__name__} as {name}")
        elif name not in self._names:
            self._names.add(name)
            self.definitions.append(f"{name} = {value!r}")

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        """Remove `self`, the annotations and all but the first line of the docstring."""
        arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
        for argument in arguments:
            argument.annotation = None
        node.args.args = [argument for argument in node.args.args if argument.arg != "self"]
        node.returns = None
        docstring = ast.get_docstring(node)
        if docstring is not None:
            node.body[0] = ast.Expr(ast.Constant(docstring.splitlines()[0]))
        return self.generic_visit(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        """Remove the annotation of a variable."""
        assert node.value is not None
        return ast.Assign(targets=[node.target], value=self.visit(node.value))

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        """Replace an attribute of the adapter by the name of a function, or by its value."""
        if not (isinstance(node.value, ast.Name) and node.value.id == "self"):
            return self.generic_visit(node)
        value = getattr(self.adapter, node.attr)
        if not callable(value):
            return ast.Constant(value)
        self.add(value)
        return ast.Name(node.attr)


def _global_names(code: types.CodeType) -> set[str]:
    """Return the names that a function looks up outside itself."""
    nested = [_global_names(constant) for constant in code.co_consts if inspect.iscode(constant)]
    return {*code.co_names}.union(*nested)


def _literal(value: Any) -> str:
    """Return an array as Python source."""
    array = np.asarray(value)
    kind = "int" if array.dtype.kind in "iu" else "np.float32"
    if array.size > 1 and (array == array.flat[0]).all():
        return f"np.full({array.shape}, {_number(array.flat[0])}, {kind})"
    if array.size > _MAX_LISTED and np.isin(array, (0, 1)).all():
        places = np.flatnonzero(array).tolist()
        return f"np.isin(np.arange({array.size}), {places}).reshape({array.shape}).astype({kind})"
    return f"np.array({_nested(array.tolist())}, {kind})"


def _nested(value: Any) -> str:
    return f"[{', '.join(map(_nested, value))}]" if isinstance(value, list) else _number(value)


def _number(value: float) -> str:
    """Return the shortest text of a number in single precision."""
    if float(value).is_integer():
        return str(int(value))
    return str(np.float32(value))


def _network_literal(network: NetworkSpec) -> str:
    """Return a network as Python source."""
    lines = ["SimpleNamespace(", f"    shape={network.shape},", "    layers=("]
    for layer in network.layers:
        recurrent = "None" if layer.recurrent is None else _literal(layer.recurrent)
        lines += [
            "        SimpleNamespace(",
            f"            type={layer.type!r},",
            f"            shape={layer.shape},",
            f"            is_neuron={layer.is_neuron},",
            f"            reset={layer.reset!r},",
            f"            recurrent={recurrent},",
            "            parameters={",
            *(f"                {key!r}: {_literal(x)}," for key, x in layer.parameters.items()),
            "            },",
            "        ),",
        ]
    return "\n".join([*lines, "    ),", f"    skips={network.skips},", ")"])


def _issue(report: ConformanceReport, failure: Failure, script: str, has_file: bool) -> str:
    """Return the text of an issue in Markdown."""
    outcome = failure.smallest
    answer = outcome.answer
    lines = [f"# {title_of(outcome)}", ""]
    lines += [f"{report.framework} {report.version}, NIR {answer.stage}: {answer.reason}.", ""]
    if trains := trains_of(outcome):
        lines += ["```text", trains, "```", ""]
    lines += ["## What NIR says", ""]
    kinds = dict.fromkeys(layer.type for layer in outcome.network.layers)
    lines += [f"- {kind}: {MEANING[kind]}" for kind in kinds if kind in MEANING]
    lines += [""]
    if has_file:
        origin = "read" if answer.stage == "import" else "written by the exporter"
        lines += [f"The file `network.nir` ({origin}):", "", *_parameter_lines(answer), ""]
    lines += ["## Versions", "", f"- Python {platform.python_version()}"]
    lines += [f"- {name} {version}" for name, version in _versions(report).items()]
    lines += ["", "## Script", ""]
    lines += [f"`reproduce.py`{', beside `network.nir`' if has_file else ''}:", ""]
    lines += ["```python", script.rstrip(), "```", "", "## Cells of the conformance suite", ""]
    lines += [f"- `{cell}`" for cell in failure.cells]
    return "\n".join(lines) + "\n"


def _parameter_lines(answer: Answer) -> list[str]:
    return [
        f"- `{name}` = {_nested(array.tolist())}"
        for name, array in parameters_of(answer.file).items()
        if array.size <= _MAX_LISTED // 10 and not name.startswith(("input.", "output."))
    ]


def _versions(report: ConformanceReport) -> dict[str, str]:
    versions = {report.framework: report.version}
    for name in _PACKAGES:
        try:
            versions.setdefault(name, importlib.metadata.version(name))
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions
