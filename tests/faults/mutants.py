"""Do the tests notice? Operators, comparisons and numbers of the package are changed, one at a time, in a
copy of it, and the tests of that room run until one fails.

    python -m tests.faults.mutants [--each 25] [--seed 0] [--rooms checkpoint ...] [--report FILE]

What no test notices is printed with its line: a gap in the tests, or a change that changes nothing.
"""

import argparse
import ast
import copy
import dataclasses
import importlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
#: Seconds after which tests count as failed: some changes make loops that do not end.
_LONGEST = 300.0
_QUICKLY = "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false"
_MARKS = "not slow and not interop"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Room:
    """Files of the package, and the tests that answer for them, the fastest first.

    Attributes:
        exact: last digits count, so that XLA has to optimise what it compiles.
    """

    files: tuple[str, ...]
    tests: tuple[str, ...]
    exact: bool = False


_CROSSING, _GRADIENTS = (
    "tests/event/test_crossing.py::test_",
    "tests/event/test_gradients.py::test_",
)
#: Spikes against oracles and gradients against differences: one test of each kind, for all take hours.
_EXACT = (
    f"{_CROSSING}flow_and_its_derivatives_are_those_of_the_matrix_exponential",
    f"{_CROSSING}crossings_are_found_and_hit",
    f"{_GRADIENTS}gradients_agree_with_central_differences[newton]",
    f"{_GRADIENTS}slopes_near_tangency_are_clipped_and_counted",
    "tests/event/test_recurrent.py::test_gradients_agree_with_central_differences",
)
ROOMS = {
    "frameworks": Room(
        files=("jaxsnn/nir/frameworks/*.py",),
        tests=(
            *(f"tests/nir/test_{name}.py" for name in ("dialects", "frameworks", "conventions")),
            *(f"tests/nir/test_{name}.py" for name in ("meanings", "dialects_by_source")),
            *(f"tests/nir/test_{name}.py" for name in ("convert", "convert_snn_mlir", "zoo")),
            *(f"tests/grid/test_{name}.py" for name in ("rules", "frameworks", "recordings")),
        ),
    ),
    "dynamics": Room(
        files=("jaxsnn/event/dynamics/*.py",),
        tests=("tests/event/test_stress.py", *_EXACT[:2]),
        exact=True,
    ),
    "adjoint": Room(files=("jaxsnn/event/adjoint/*.py",), tests=_EXACT[2:], exact=True),
    "check": Room(
        files=("jaxsnn/bss2/check/*.py",),
        tests=tuple(
            f"tests/bss2/test_{name}.py" for name in ("check", "corruptions", "traffic", "oracle")
        ),
    ),
    "checkpoint": Room(
        files=("jaxsnn/train/loop/checkpoint.py", "jaxsnn/train/loop/checkpoint_files.py"),
        tests=("tests/train/test_checkpoint.py", "tests/fuzz/test_file_journeys.py"),
    ),
}

_OTHER: dict[type, type] = {
    **{ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt},
    **{ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.Is: ast.IsNot, ast.IsNot: ast.Is},
    **{ast.In: ast.NotIn, ast.NotIn: ast.In, ast.And: ast.Or, ast.Or: ast.And},
    **{ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult},
    **{ast.FloorDiv: ast.Mult, ast.Mod: ast.Mult, ast.UAdd: ast.USub, ast.USub: ast.UAdd},
}


def _has_other(node):
    """Whether there is another of its kind to put in its place."""
    if isinstance(node, ast.Compare):
        return type(node.ops[0]) in _OTHER
    if isinstance(node, ast.Constant):
        return isinstance(node.value, int | float)
    if isinstance(node, ast.BinOp | ast.UnaryOp | ast.BoolOp):
        return type(node.op) in _OTHER or isinstance(node.op, ast.Not)
    return False


def _changeable(tree):
    """The nodes that can be changed, none of them in annotations, decorators or texts."""
    found = []

    def look(node):
        if isinstance(node, ast.JoinedStr | ast.AnnAssign | ast.ImportFrom | ast.Import):
            if isinstance(node, ast.AnnAssign) and node.value is not None:
                look(node.value)
            return
        if _has_other(node):
            found.append(node)
        for name, value in ast.iter_fields(node):
            if name in ("annotation", "returns", "decorator_list", "type_params"):
                continue
            for one in value if isinstance(value, list) else [value]:
                if isinstance(one, ast.AST):
                    look(one)

    look(tree)
    return found


def mutated(text, number):
    """The text of a module with one change, and what it is: the line, before and after."""
    tree = ast.parse(text)
    node = _changeable(tree)[number]
    before = ast.unparse(copy.deepcopy(node))
    if isinstance(node, ast.Compare):
        node.ops[0] = _OTHER[type(node.ops[0])]()
    elif isinstance(node, ast.Constant):
        node.value = not node.value if isinstance(node.value, bool) else node.value + 1
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        node.op = ast.Not()
        node.operand = ast.UnaryOp(op=ast.Not(), operand=node.operand)
    else:
        node.op = _OTHER[type(node.op)]()
    after = ast.unparse(node)
    return ast.unparse(tree), f"line {node.lineno}: {before} -> {after}"


def sample(room, each, seed):
    """Changes of a room, chosen by the seed: the file, its text and the number of the node."""
    texts = {
        str(path.relative_to(ROOT)): path.read_text()
        for pattern in ROOMS[room].files
        for path in sorted(ROOT.glob(pattern))
    }
    places = [
        (file, text, number)
        for file, text in texts.items()
        for number in range(len(_changeable(ast.parse(text))))
    ]
    return random.Random(f"{room} {seed}").sample(places, min(each, len(places)))


def _copied(folder):
    """What tests need of the repository, in a folder."""
    for name in ("jaxsnn", "tests", "docs", "examples", "benchmarks"):
        ignored = shutil.ignore_patterns("_build", "generated", "results")
        shutil.copytree(ROOT / name, folder / name, ignore=ignored)
    for path in ROOT.iterdir():
        if path.is_file():
            shutil.copy2(path, folder / path.name)


def _tests_fail(folder, room):
    """Whether a child that runs tests in a folder finds one that fails; it has loaded libraries
    that are the same for all.
    """
    child = os.fork()
    if child == 0:
        os.setsid()
        os.chdir(folder)
        sys.path[:] = [str(folder), *(path for path in sys.path if path not in ("", str(ROOT)))]
        os.environ.update(PYTHONPATH=str(folder), XLA_FLAGS="" if room.exact else _QUICKLY)
        for name in [name for name in sys.modules if name.partition(".")[0] in ("tests", "jaxsnn")]:
            del sys.modules[name]
        sys.dont_write_bytecode = True
        silence = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(silence, stream)
        code = 1
        try:
            pytest = importlib.import_module("pytest")
            there = [test for test in room.tests if (folder / test.partition("::")[0]).exists()]
            code = pytest.main(["-x", "-q", "-p", "no:cacheprovider", "-m", _MARKS, *there])
        finally:
            os._exit(int(code))
    start = time.monotonic()
    while time.monotonic() - start < _LONGEST:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return status != 0
        time.sleep(0.05)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return True


def main(argv=None):
    """Rates by room, and what survived."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--each", type=int, default=25)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=float("inf"))
    parser.add_argument("--rooms", nargs="*", default=list(ROOMS))
    parser.add_argument("--report", type=Path)
    arguments = parser.parse_args(argv)
    os.environ.update(JAX_PLATFORMS="cpu")
    for name in ("pytest", "hypothesis", "numpy", "jax", "optax", "networkx", "h5py", "nir"):
        importlib.import_module(name)
    found, start = {}, time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        _copied(folder)
        for room in arguments.rooms:
            if _tests_fail(folder, ROOMS[room]):
                raise SystemExit(f"the tests of {room} fail without any change")
            counts = found[room] = {"changed": 0, "noticed": 0, "survived": []}
            for file, original, number in sample(room, arguments.each, arguments.seed):
                if time.monotonic() - start > arguments.seconds:
                    break
                text, what = mutated(original, number)
                (folder / file).write_text(text)
                counts["changed"] += 1
                if _tests_fail(folder, ROOMS[room]):
                    counts["noticed"] += 1
                else:
                    counts["survived"].append(f"{file}, {what}")
                    sys.stdout.write(f"{room}: survived: {file}, {what}\n")
                (folder / file).write_text(original)
                if arguments.report is not None:
                    arguments.report.write_text(json.dumps(found, indent=1))
            sys.stdout.write(f"{room}: {counts['noticed']} of {counts['changed']} noticed\n")
            sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
