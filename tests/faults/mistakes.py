"""Do the fast tests detect mistakes that a person would make? Each is a change of the package that was
chosen by reading the code: a unit that is dropped, a sign, a condition that is inverted.

    python -m tests.faults.mistakes [--packages check ...] [--report FILE] [--lines FILE] [--write PAGE]

`tests/data/mistakes` has the changes of each package: a file, a text that occurs in it once, and the text
that replaces it. The tests are collected once, in a copy of the package. For each change a child process
runs the tests that execute a changed line, the quickest first, until one fails; the copy also has the
change, for tests that start programs. Changes of the kernels are compiled into one library, in which an
environment variable selects one of them.
"""

import argparse
import collections
import contextlib
import dataclasses
import difflib
import gc
import importlib
import json
import os
import pkgutil
import resource
import signal
import sys
import tempfile
import threading
import time
import tomllib
import types
from pathlib import Path

from tests.faults.mutants import ROOT, copied
from tests.interop.page import with_part

FOLDER = ROOT / "tests" / "data" / "mistakes"
#: Package -> the test files that are nearest to it.
TESTS = {
    "convert": ("tests/nir/test_*.py",),
    "check": tuple(
        f"tests/bss2/test_{name}.py" for name in ("check", "corruptions", "oracle", "traffic")
    ),
    "train": ("tests/train/test_*.py",),
    "commands": (
        "tests/commands/test_*.py",
        "tests/bss2/test_map_command.py",
        "tests/bss2/test_emulate.py",
        "tests/train/test_loop_command.py",
    ),
    "kernels": ("tests/event/test_*.py",),
}
#: Environment variable with the number of the mistake of the kernels that the library has.
SELECTED = "JAXSNN_MISTAKE"
_SOURCES = "jaxsnn/event/native/source"
#: Function of the kernels that says whether a mistake is selected.
_SELECTOR = f"""
#include <cstdlib>
inline bool has_mistake(int number) {{
  static const char* const selected = std::getenv("{SELECTED}");
  static const int active = selected ? std::atoi(selected) : -1;
  return active == number;
}}
"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mistake:
    """A change of one file of the package.

    Attributes:
        package: Name of the table that has it.
        number: Its position in that table.
        file: Path of the file in the repository.
        old, new: Text that occurs once in the file, and the text that replaces it; if `old` has a part
            in «», only this part.
        wrong: One sentence on what is wrong then.
        tests: Beginnings of the names of the tests that detect it; with `--named`, only these run.
    """

    package: str
    number: int
    file: str
    old: str
    new: str
    wrong: str
    tests: tuple[str, ...] = ()

    @property
    def is_native(self):
        """Whether the file is C++."""
        return self.file.startswith(_SOURCES)

    @property
    def parts(self):
        """The text before the part that is replaced, this part, and the text after it."""
        if "«" not in self.old:
            return "", self.old, ""
        before, _, rest = self.old.partition("«")
        replaced, _, after = rest.partition("»")
        return before, replaced, after

    def applied(self, text):
        """Return the text of the file with the mistake."""
        before, replaced, after = self.parts
        return text.replace(before + replaced + after, before + self.new + after)

    def selectable(self, text):
        """Return the text of a kernel in which `SELECTED` decides whether it has the mistake."""
        before, replaced, after = self.parts
        condition = f"has_mistake({self.number})"
        if replaced.endswith(";"):
            change = f"if ({condition}) {{ {self.new} }} else {{ {replaced} }}"
        else:
            change = f"({condition} ? ({self.new}) : ({replaced}))"
        return text.replace(before + replaced + after, before + change + after)

    def changed_lines(self, text):
        """Return the numbers of the lines of the file that differ, and of those next to an insertion."""
        before, after = text.splitlines(), self.applied(text).splitlines()
        matcher = difflib.SequenceMatcher(None, before, after, autojunk=False)
        return {
            line + 1
            for kind, start, end, *_ in matcher.get_opcodes()
            if kind != "equal"
            for line in range(start if end > start else start - 1, max(end, start + 1))
        }


def mistakes_of(package):
    """Return the mistakes of a package."""
    entries = tomllib.loads((FOLDER / f"{package}.toml").read_text())["mistake"]
    return [
        Mistake(package=package, number=n, **entry | {"tests": tuple(entry.get("tests", ()))})
        for n, entry in enumerate(entries)
    ]


# Changes of modules that are loaded


def _codes(code):
    """Yield a code object and those inside it, in their order."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _codes(constant)


def _by_name(code):
    """Return the code of the functions of a module by their names, in their order."""
    codes = collections.defaultdict(list)
    for inside in [*_codes(code)][1:]:
        codes[inside.co_qualname].append(inside)
    return codes


def change_functions(path, before, after):
    """Change the functions of a loaded module to those of another text of it.

    Raises:
        RuntimeError: The change is outside of the functions of the module.
    """
    old_codes, new_codes = (
        _by_name(compile(text, str(path), "exec", dont_inherit=True)) for text in (before, after)
    )
    replacement = {
        (old.co_qualname, old.co_firstlineno): new
        for name, codes in old_codes.items()
        # A function inside another may come or go, of which the outer one then differs.
        if len(codes) == len(new_codes.get(name, ()))
        for old, new in zip(codes, new_codes[name], strict=True)
        if old != new
    }
    changed = 0
    for function in gc.get_objects():
        if not isinstance(function, types.FunctionType):
            continue
        code = function.__code__
        key = code.co_qualname, code.co_firstlineno
        if code.co_filename == str(path) and key in replacement:
            function.__code__ = replacement[key]
            changed += 1
    if not changed:
        raise RuntimeError(f"{path}: no loaded function has the change")


# Tests in children


@dataclasses.dataclass
class Timing:
    """Seconds of computing of a test, and the lines of the package that it executes, by file."""

    seconds: float
    lines: dict[str, list[int]]


class Detection:
    """A plug-in of pytest that runs the tests of each mistake instead of all tests.

    Args:
        folder: The copy of the package.
        mistakes: The mistakes of one package.
        lines: File with the lines that tests execute, which is extended; tests in it do not run again.
        longest: Largest number of seconds of computing of the tests of a mistake.
        done: Called with a mistake and the test that detects it; "" if none does.
    """

    def __init__(self, folder, mistakes, lines, longest, done):
        self.folder, self.mistakes, self.lines = folder, mistakes, lines
        self.longest, self.done = longest, done

    def pytest_runtestloop(self, session):
        """Run the tests in child processes."""
        if session.testsfailed:
            raise SystemExit("tests cannot be collected")
        items = {item.nodeid: item for item in session.items}
        timings = self._timings(items)
        for mistake in self.mistakes:
            self.done(mistake, self._detected(mistake, items, timings))
        return True

    def _timings(self, items):
        """Run each test without a mistake, and return its time and the lines that it executes."""
        with contextlib.suppress(FileNotFoundError):
            timings = {}
            for line in self.lines.read_text().splitlines():
                test, seconds, executed = json.loads(line)
                timings[test] = Timing(seconds, executed)
            items = {test: item for test, item in items.items() if test not in timings}
        folder, prefix = str(self.folder), len(str(self.folder)) + 1

        def trace():
            with self.lines.open("a") as out:
                for item, following in _pairs([*items.values()]):
                    executed = collections.defaultdict(set)

                    def in_line(frame, event, argument, executed=executed):
                        if event == "line":
                            executed[frame.f_code.co_filename[prefix:]].add(frame.f_lineno)
                        return in_line

                    def in_call(frame, event, argument):
                        name = frame.f_code.co_filename
                        watched = name.startswith(folder) and name[prefix:].startswith("jaxsnn/")
                        return in_line(frame, "line", None) if watched else None

                    start = sum(os.times()[:4])
                    threading.settrace(in_call)
                    sys.settrace(in_call)
                    try:
                        failed = _failed(item, following)
                    finally:
                        sys.settrace(None)
                        threading.settrace(None)
                    if failed:
                        sys.stderr.write(f"{item.nodeid} fails without a mistake\n")
                        continue
                    seconds = sum(os.times()[:4]) - start
                    lines = {file: sorted(numbers) for file, numbers in executed.items()}
                    out.write(json.dumps([item.nodeid, seconds, lines]) + "\n")
                    out.flush()
            return 0

        if items:
            _in_child(trace, seconds=7200)
        rows = map(json.loads, self.lines.read_text().splitlines())
        return {test: Timing(seconds, executed) for test, seconds, executed in rows}

    def _chosen(self, mistake, items, timings):
        """Return the tests of a mistake, the nearest first, and their seconds."""
        changed_lines = mistake.changed_lines((ROOT / mistake.file).read_text())
        is_kernel = mistake.package == "kernels"
        tests = [
            test
            for test, timing in timings.items()
            if test in items
            and (is_kernel or changed_lines & {*timing.lines.get(mistake.file, ())})
        ]
        # First the tests that execute what few others do, near the change, such as its error message.
        near = {line for change in changed_lines for line in range(change - 3, change + 9)}
        counts = collections.Counter(
            line
            for timing in timings.values()
            for line in near.intersection(timing.lines.get(mistake.file, ()))
        )

        def rank(test):
            executed = near.intersection(timings[test].lines.get(mistake.file, ()))
            return min((counts[line] for line in executed), default=0), timings[test].seconds

        tests.sort(key=rank)
        chosen, total = [], 0.0
        for test in tests:
            total += timings[test].seconds
            if total <= self.longest:
                chosen.append(items[test])
        return chosen, total

    def _detected(self, mistake, items, timings):
        """Return the test that detects a mistake; "" if none does."""
        chosen, total = self._chosen(mistake, items, timings)
        result = self.folder / "detected.txt"
        result.write_text("")

        def run():
            _make(self.folder, mistake)
            for item, following in _pairs(chosen):
                result.write_text(item.nodeid)
                if _failed(item, following):
                    return 1
            result.write_text("")
            return 0

        with _made(self.folder, mistake):
            code = _in_child(run, seconds=30 + 5 * min(total, self.longest))
        return "" if code == 0 else result.read_text() or f"the tests end with {code}"


def _pairs(items):
    return zip(items, [*items[1:], None], strict=True)


def _failed(item, following):
    """Run a test; return whether it fails."""
    from _pytest.runner import runtestprotocol

    reports = runtestprotocol(item, log=False, nextitem=following)
    return any(report.failed for report in reports)


def _in_child(call, *, seconds):
    """Return the exit code of a child that calls a function, for so many seconds of computing; signals
    have negative codes.
    """
    child = os.fork()
    if child == 0:
        code = 70
        try:
            os.setpgrp()
            resource.setrlimit(resource.RLIMIT_CPU, (int(seconds), int(seconds) + 5))
            code = call()
        except BaseException as error:
            sys.stderr.write(f"{type(error).__name__}: {error}\n")
        finally:
            os._exit(code)
    start = time.monotonic()
    while time.monotonic() - start < 100 * seconds:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.05)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return -signal.SIGKILL


@contextlib.contextmanager
def _made(folder, mistake):
    """Have a mistake in the copy of the package while the context lasts."""
    path, text = folder / mistake.file, (ROOT / mistake.file).read_text()
    if not mistake.is_native:
        path.write_text(mistake.applied(text))
    try:
        yield
    finally:
        if not mistake.is_native:
            path.write_text(text)


def _make(folder, mistake):
    """Have a mistake in this process, in the modules that are loaded."""
    if mistake.is_native:
        os.environ[SELECTED] = str(mistake.number)
        return
    path, text = folder / mistake.file, (ROOT / mistake.file).read_text()
    gc.unfreeze()
    with contextlib.suppress(RuntimeError):  # a module that is loaded later has the mistake
        change_functions(path, text, mistake.applied(text))


class _Named:
    """A plug-in of pytest that runs the tests of which the names begin in some way, and writes down
    which of them fail.
    """

    def __init__(self, beginnings, result):
        self.beginnings, self.result = tuple(beginnings), result

    def pytest_collection_modifyitems(self, items):
        """Leave out other tests."""
        items[:] = [item for item in items if item.nodeid.startswith(self.beginnings)]

    def pytest_runtest_logreport(self, report):
        """Write down a test that fails."""
        if report.failed:
            with self.result.open("a") as out:
                out.write(report.nodeid + "\n")


def _failing(folder, beginnings, *, first, mistake=None):
    """Return the tests that fail of those of which the names begin in some way.

    Args:
        first: Whether to stop at the first one.
        mistake: The mistake that the child has; None for none.
    """
    result = folder / "failed.txt"
    result.write_text("")

    def run():
        if mistake is not None:
            _make(folder, mistake)
        pytest = importlib.import_module("pytest")
        options = ["-q", "-p", "no:cacheprovider", "-m", "not slow", *["-x"] * first]
        files = sorted({test.partition("::")[0] for test in beginnings})
        return int(pytest.main([*options, *files], plugins=[_Named(beginnings, result)]))

    code = _in_child(run, seconds=600)
    failed = result.read_text().split("\n")[:-1]
    if code not in (0, 1) and not failed and mistake is None:
        raise SystemExit(f"{list(beginnings)}: pytest ends with {code}")
    return failed or ([] if code == 0 else [f"the tests end with {code}"])


def _detect_named(folder, mistakes, done, *, verify):
    """Run the tests that the table names, each mistake in a child of its own.

    Args:
        verify: Whether to run these tests without a mistake first, and leave out those that fail.
    """
    for module in ("pytest", "hypothesis", "jax", "optax", "h5py", "networkx"):
        importlib.import_module(module)
    for module in pkgutil.walk_packages([str(folder / "jaxsnn")], "jaxsnn."):
        if not module.name.endswith("__main__"):
            with contextlib.suppress(ImportError):
                importlib.import_module(module.name)
    beginnings = sorted({test for mistake in mistakes for test in mistake.tests})
    broken = _failing(folder, beginnings, first=False) if verify else []
    sys.stderr.write("".join(f"{test} fails without a mistake\n" for test in broken))
    for mistake in mistakes:
        tests = [
            test for test in mistake.tests if not any(name.startswith(test) for name in broken)
        ]
        failed = []
        if tests:
            with _made(folder, mistake):
                failed = _failing(folder, tests, first=True, mistake=mistake)
        done(mistake, failed[0] if failed else "")


# All mistakes


def _detect(package, numbers, report, arguments):
    """Run the tests of the mistakes of a package, in a process that has loaded nothing of it."""
    mistakes = [
        mistake for mistake in mistakes_of(package) if not numbers or mistake.number in numbers
    ]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        copied(folder)
        if package == "kernels":
            _select_mistakes(folder)
            os.environ["JAXSNN_CACHE_DIR"] = str(arguments.cache or folder / "cache")
        os.environ["PYTHONPATH"] = str(folder)
        os.chdir(folder)
        sys.path[:] = [str(folder), *(path for path in sys.path if path and path != str(ROOT))]
        for module in [name for name in sys.modules if name.split(".")[0] in ("jaxsnn", "tests")]:
            del sys.modules[module]

        def done(mistake, test):
            sys.stdout.write(
                f"{time.strftime('%H:%M:%S')} {package} {mistake.number}: {test or 'SURVIVED'}\n"
            )
            sys.stdout.flush()
            results = json.loads(report.read_text()) if report.exists() else {}
            results.setdefault(package, {})[mistake.wrong] = test
            report.write_text(json.dumps(results, indent=1))

        if arguments.named:
            return _detect_named(folder, mistakes, done, verify=not arguments.passing)
        lines = arguments.lines.with_suffix(f".{package}.jsonl").absolute()
        plugin = Detection(folder, mistakes, lines, arguments.longest, done)
        files = [
            str(path.relative_to(folder))
            for pattern in arguments.tests or TESTS[package]
            for path in sorted(folder.glob(pattern))
        ]
        options = ["-q", "-p", "no:cacheprovider", "-m", "not slow", "--capture=sys"]
        importlib.import_module("pytest").main([*options, *files], plugins=[plugin])


def _select_mistakes(folder):
    """Write all mistakes into the kernels of a copy; `SELECTED` decides which is there."""
    support = folder / _SOURCES / "support.h"
    mistakes = [mistake for mistake in mistakes_of("kernels") if mistake.is_native]
    for mistake in mistakes:
        path = folder / mistake.file
        path.write_text(mistake.selectable(path.read_text()))
    for path in {folder / mistake.file for mistake in mistakes} - {support}:
        path.write_text(f'#include "support.h"\n{path.read_text()}')
    text = support.read_text()
    support.write_text(text.replace("namespace native {", f"{_SELECTOR}\nnamespace native {{", 1))


def table(results):
    """Return the table of the documentation, by package."""
    rows = ["| package | mistakes | run | detected | of those run |", "|---|---|---|---|---|"]
    totals = [0, 0, 0]
    for package in TESTS:
        sentences = [mistake.wrong for mistake in mistakes_of(package)]
        outcomes = results.get(package, {})
        detected = [bool(outcomes[text]) for text in sentences if text in outcomes]
        counts = len(sentences), len(detected), sum(detected)
        rows.append(_row(f"`{package}`", *counts))
        totals = [total + count for total, count in zip(totals, counts, strict=True)]
    return [*rows, _row("all", *totals)]


def _row(name, listed, run, detected):
    share = f"{detected / run:.0%}" if run else ""
    return f"| {name} | {listed} | {run} | {detected} | {share} |"


def main(argv=None):
    """Run the tests of mistakes, or write the table of their results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--packages", nargs="*", default=list(TESTS), choices=list(TESTS))
    parser.add_argument("--numbers", nargs="*", type=int, help="only these mistakes")
    parser.add_argument("--tests", nargs="*", help="only these test files")
    parser.add_argument("--named", action="store_true", help="only the tests that the table names")
    parser.add_argument("--passing", action="store_true", help="named tests are known to pass")
    parser.add_argument("--longest", type=float, default=60.0, help="seconds of tests for each")
    parser.add_argument("--report", type=Path, default=Path("mistakes.json"))
    parser.add_argument("--lines", type=Path, default=Path("lines"), help="files that are kept")
    parser.add_argument("--cache", type=Path, help="folder of the kernels with all mistakes")
    parser.add_argument("--write", type=Path, help="page whose table is replaced; runs no tests")
    arguments = parser.parse_args(argv)
    if arguments.write is not None:
        page = arguments.write.read_text()
        results = json.loads(arguments.report.read_text())
        arguments.write.write_text(with_part(page, "mistakes", table(results)))
        return 0
    os.environ.update(JAX_PLATFORMS="cpu")
    report = arguments.report.absolute()
    for package in arguments.packages:
        child = os.fork()
        if child == 0:
            _detect(package, arguments.numbers, report, arguments)
            sys.stdout.flush()
            os._exit(0)
        os.waitpid(child, 0)
    return 0


if __name__ == "__main__":
    sys.exit(main())
