"""Do the tests notice? Operators, comparisons and numbers of the package are changed, one at a time, in a
copy of it, and the tests of that room that run the changed function run until one fails.

    python -m tests.faults.mutants [--each 25] [--seed 0] [--rooms checkpoint ...] [--report FILE]

What no test notices is printed with its line: a gap in the tests, or a change that changes nothing, which
`tests.faults.same_as_before` lists.
"""

import argparse
import ast
import dataclasses
import hashlib
import importlib
import itertools
import json
import os
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path

from tests.faults.changes import changeable, mutant
from tests.faults.running_tests import Ran, run
from tests.faults.same_as_before import SAME

ROOT = Path(__file__).parents[2]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Room:
    """Files of the package, and the tests that answer for them.

    Attributes:
        exact: Tests of which last digits count, so that XLA has to optimise what it compiles: they
            run after the others.
        first: Tests that run first where their module enters what was changed: what an earlier test
            of it compiled they run without entering it.
    """

    files: tuple[str, ...]
    tests: tuple[str, ...]
    exact: tuple[str, ...] = ()
    first: tuple[str, ...] = ()


def _tests(folder, *subjects):
    return tuple(f"tests/{folder}/test_{name}.py" for name in subjects)


_GRADIENTS = "tests/event/test_gradients.py::test_"
_ASSIGNING = "tests/event/test_assigning_resets.py::test_"
ROOMS = {
    "frameworks": Room(
        files=("jaxsnn/nir/frameworks/*.py",),
        tests=(
            *_tests("nir", "dialects", "frameworks", "meanings", "graph", "zoo"),
            *_tests("nir", "custom_framework", "framework_numbers", "importer_graphs"),
            *_tests("nir", "framework_layers", "framework_records", "framework_register"),
            *_tests("nir", "framework_remarks", "framework_spyx", "framework_writers"),
            *_tests("house", "framework_docs"),
            *_tests("nir", "dialects_by_source", "convert", "convert_bursting", "convert_chains"),
            *_tests("nir", "convert_continuous", "convert_refusals", "convert_rewrites"),
            *_tests("nir", "convert_snn_mlir"),
            *_tests("grid", "rules", "frameworks", "recordings", "more_recordings"),
            *_tests("interop", "torch_bridge", "load_into", "module_layers", "module_messages"),
        ),
    ),
    "dynamics": Room(
        files=("jaxsnn/event/dynamics/*.py",),
        tests=(
            *_tests("event", "model_rules", "model_numbers", "bracketed_root", "decaying_modes"),
            *_tests(
                "event", "crossing", "rectangular_pulses", "stress", "recurrent", "custom_neuron"
            ),
        ),
        exact=_tests("event", "crossing_solvers"),
    ),
    "adjoint": Room(
        files=("jaxsnn/event/adjoint/*.py",),
        tests=(
            *_tests("event", "next_spikes", "clipped_slopes", "adjoint_sums"),
            *_tests("event", "costates", "spikes_back"),
            *_tests("event", "gradient_paths", "rectangular_pulses", "recurrent"),
            f"{_ASSIGNING}jumps_are_counted_and_have_no_gradient_but_their_arrivals",
            f"{_ASSIGNING}a_jump_width_is_the_gradient_of_a_ramp",
            f"{_ASSIGNING}forward_mode_agrees_with_reverse_mode",
        ),
        first=(
            "tests/event/test_recurrent.py::test_gradients_agree_with_central_differences"
            "[double uniform]",
        ),
        exact=(
            f"{_GRADIENTS}slopes_near_tangency_are_clipped_and_counted",
            f"{_GRADIENTS}the_gradient_of_first_spikes_is_that_of_the_first_of_all",
            f"{_GRADIENTS}gradients_agree_with_central_differences[newton]",
        ),
    ),
    "check": Room(
        files=("jaxsnn/bss2/check/*.py",),
        tests=_tests("bss2", "check", "traffic", "corruptions", "oracle"),
    ),
    "convert": Room(
        files=("jaxsnn/nir/convert/*.py",),
        tests=(
            *_tests("nir", "convert", "convert_bursting", "convert_chains", "convert_continuous"),
            *_tests("nir", "convert_names", "convert_refusals", "convert_rewrites", "passes"),
            *_tests("nir", "convert_snn_mlir"),
        ),
    ),
    "emulate": Room(
        files=("jaxsnn/bss2/emulate/*.py",),
        tests=_tests("bss2", "emulate", "in_the_loop", "traffic", "chip_recordings"),
    ),
    "modules": Room(
        files=("jaxsnn/nir/torch/*.py", "jaxsnn/nir/frameworks/torch_layers.py"),
        tests=(
            *_tests("interop", "module_joins", "module_layers", "module_messages"),
            *_tests("interop", "module_neurons", "torch_bridge", "load_into"),
        ),
    ),
    "network": Room(
        files=("jaxsnn/network/*.py", "jaxsnn/network/lowering/*.py"),
        tests=(
            *_tests("network", "cycles", "lower", "repr", "stepped_loops"),
            *_tests("event", "events", "permutations", "projections", "reductions"),
            *_tests("event", "shared_delays", "sorting", "spikes"),
            *_tests("grid", "nodes", "rules"),
        ),
    ),
    "inference": Room(
        files=(
            "jaxsnn/nir/dialects/inference.py",
            "jaxsnn/nir/frameworks/evidence.py",
            "jaxsnn/nir/graphs/parse.py",
        ),
        tests=(
            *_tests("nir", "parse", "dialects", "meanings", "units", "custom_node"),
            *_tests("nir", "refused_values", "problems", "checks", "dialects_by_source", "export"),
        ),
    ),
    "search": Room(
        files=("jaxsnn/bss2/search/*.py",),
        tests=_tests("bss2", "quantize", "netlist", "place", "route", "unroll", "portfolio"),
    ),
    "losses": Room(
        files=("jaxsnn/train/losses/*.py",),
        tests=_tests(
            "train", "losses", "custom_loss", "functionals", "scaling", "tuning", "constraints"
        ),
    ),
    "data": Room(
        files=("jaxsnn/train/data/*.py",),
        tests=(
            *_tests("train", "encoding", "datasets", "images", "image_events", "on_disk"),
            *_tests("train", "refused_data", "sources", "speech", "digits", "grid"),
        ),
    ),
    "grid": Room(
        files=("jaxsnn/grid/*.py",),
        tests=(
            *_tests("grid", "rules", "nodes", "exact", "recordings", "surrogate", "simulate"),
            *_tests("event", "custom_neuron"),
        ),
    ),
    "forward": Room(
        files=("jaxsnn/event/forward/*.py", "jaxsnn/event/projections/*.py"),
        tests=(
            *_tests("event", "rectangular_pulses", "recurrent", "projections", "shared_delays"),
            *_tests("event", "ties", "many_arrivals", "reductions", "events", "networks"),
            *_tests("train", "functionals"),
        ),
    ),
    "loop": Room(
        files=("jaxsnn/train/*.py", "jaxsnn/train/loop/*.py"),
        tests=(
            *_tests("train", "options", "constraints", "optimisers", "scaling", "calibration"),
            *_tests("train", "parameter_noise", "fit", "tuning"),
        ),
    ),
    "commands": Room(
        files=("jaxsnn/commands/*.py",),
        tests=(
            *_tests("commands", "commands", "check", "refusals", "run_inputs", "plot_command"),
            *_tests("commands", "cli"),
        ),
    ),
    "checkpoint": Room(
        files=("jaxsnn/train/loop/checkpoint.py",),
        tests=(*_tests("train", "checkpoint"), *_tests("fuzz", "file_journeys")),
    ),
}


def sample(room, size, seed):
    """Changes of a room, chosen by the seed among all there are: file, its text, number of the node."""
    places = [
        (str(path.relative_to(ROOT)), text, number)
        for pattern in ROOMS[room].files
        for path in sorted(ROOT.glob(pattern))
        for text in [path.read_text()]
        for number in range(len(changeable(ast.parse(text))))
    ]
    return random.Random(f"{room} {seed}").sample(places, min(size, len(places)))


def copied(folder):
    """What tests need of the repository, in a folder."""
    for name in ("jaxsnn", "tests", "docs", "examples", "benchmarks"):
        ignored = shutil.ignore_patterns("_build", "generated", "results", "__pycache__")
        shutil.copytree(ROOT / name, folder / name, ignore=ignored)
    for path in ROOT.iterdir():
        if path.is_file():
            shutil.copy2(path, folder / path.name)


def _ran(folder, room, earlier_runs):
    """The tests of a room, each with its seconds and the functions that it enters: (file, name);
    `earlier_runs` has those of test files that are the same as before.
    """
    files = [
        str(path.relative_to(folder)) for pattern in room.files for path in folder.glob(pattern)
    ]
    package_files = {str(folder / file): file for file in files}
    report, ran = folder / "ran.json", {}
    for test in (*room.tests, *room.exact):
        content = (folder / _module(test)).read_bytes()
        key = f"{test} {hashlib.sha256(content).hexdigest()} {room.files[0]}"
        if key not in earlier_runs:
            if failed := run(
                folder, [test], exact=test in room.exact, plugins=[Ran(package_files, report)]
            ):
                raise SystemExit(f"{test} without any change: {failed}")
            earlier_runs[key] = json.loads(report.read_text())
        ran |= {
            name: record | {"entered": {tuple(place) for place in record["entered"]}}
            for name, record in earlier_runs[key].items()
        }
    return ran


def _answering(room, ran, file, function):
    """The tests that enter a function, or all of them, those first that enter any of its file; by
    module, the quickest module and the quickest test of it first.
    """
    if function:
        entering = {name: ran[name] for name in ran if (file, function) in ran[name]["entered"]}
        modules = {_module(name) for name in entering}
        first = [name for name in room.first if _module(name) in modules]
        return first + [name for name in _ordered(entering) if name not in first]
    near = {
        name: record
        for name, record in ran.items()
        if any(file == at for at, _ in record["entered"])
    }
    return _ordered(near) + _ordered({name: ran[name] for name in ran if name not in near})


def _module(test):
    return test.partition("::")[0]


def _ordered(tests):
    modules = {}
    for name in sorted(tests, key=lambda name: tests[name]["seconds"]):
        modules.setdefault(_module(name), []).append(name)
    spent = {
        module: sum(tests[name]["seconds"] for name in members)
        for module, members in modules.items()
    }
    return [name for module in sorted(modules, key=spent.get) for name in modules[module]]


def _within(tests, ran, most):
    """The first of some tests, as far as they take so many seconds together."""
    ends = itertools.accumulate(ran[name]["seconds"] for name in tests)
    return [name for name, end in zip(tests, ends, strict=True) if end <= most]


def _outcome(folder, room, ran, file, changed, most):
    """How the tests noticed a change, "" where they did not."""
    answering, notice = _within(_answering(room, ran, file, changed.function), ran, most), ""
    original = (folder / file).read_text()
    (folder / file).write_text(changed.text)
    try:
        for exact in (False, True):
            tests = [name for name in answering if name.startswith(room.exact) is exact]
            seconds = 30.0 + 4 * sum(ran[name]["seconds"] for name in tests)
            if tests and not notice:
                notice = run(folder, tests, exact=exact, seconds=seconds, longest=20 * seconds)
        return notice
    finally:
        (folder / file).write_text(original)


def _counted(name, folder, arguments, until):
    """The counts of a room, and what was not noticed."""
    room, earlier_runs = ROOMS[name], {}
    if arguments.ran is not None and arguments.ran.exists():
        earlier_runs = json.loads(arguments.ran.read_text())
    ran = _ran(folder, room, earlier_runs)
    if arguments.ran is not None:
        arguments.ran.write_text(json.dumps(earlier_runs))
    counts = {"changed": 0, "noticed": {}, "same": [], "survived": []}
    yield counts
    for file, original, number in sample(name, arguments.each, arguments.seed):
        if time.monotonic() > until:
            return
        changed = mutant(original, number)
        description = f"{file}:{changed.line} {changed.within}: {changed.change}"
        notice = _outcome(folder, room, ran, file, changed, arguments.most)
        counts["changed"] += 1
        sys.stderr.write(f"{time.strftime('%H:%M:%S')} {notice or 'not noticed'}: {description}\n")
        if notice:
            counts["noticed"][notice] = counts["noticed"].get(notice, 0) + 1
        elif (changed.source, changed.change) in SAME.get(file, {}):
            counts["same"].append(description)
        else:
            counts["survived"].append(description)
            sys.stdout.write(f"{name}: survived: {description}\n")
            sys.stdout.flush()
        yield counts


def main(argv=None):
    """Rates by room, and what survived."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--each", type=int, default=25)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=float("inf"))
    parser.add_argument("--most", type=float, default=60.0, help="seconds of tests for each change")
    parser.add_argument("--rooms", nargs="*", default=list(ROOMS))
    parser.add_argument("--report", type=Path)
    parser.add_argument(
        "--ran", type=Path, help="keeps which functions tests enter, for the next time"
    )
    arguments = parser.parse_args(argv)
    os.environ.update(JAX_PLATFORMS="cpu")
    for name in ("pytest", "hypothesis", "numpy", "jax", "optax", "networkx", "h5py", "nir"):
        importlib.import_module(name)
    counts_by_room, until = {}, time.monotonic() + arguments.seconds
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        copied(folder)
        for room in arguments.rooms:
            for counts in _counted(room, folder, arguments, until):
                counts_by_room[room] = counts
                if arguments.report is not None:
                    arguments.report.write_text(json.dumps(counts_by_room, indent=1))
            counts = counts_by_room[room]
            noticed = sum(counts["noticed"].values())
            sys.stdout.write(
                f"{room}: {noticed} of {counts['changed'] - len(counts['same'])} noticed"
                f" {counts['noticed']}, {len(counts['same'])} change nothing\n"
            )
            sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
