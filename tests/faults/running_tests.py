"""Tests in a child that has loaded the libraries already: which functions each runs, and whether all
of them pass.
"""

import importlib
import json
import os
import resource
import signal
import sys
import threading
import time

_QUICKLY = "--xla_backend_optimization_level=0"
_MARKS = "not slow or mutants"
#: Address space of a child in bytes: some changes create arrays for which no machine has room.
_MOST_BYTES = 8 << 30
#: Exit codes of pytest if a test fails, or if a module or its imports cannot be loaded.
_NOTICED = {1: "a test failed", 2: "it did not load", 3: "pytest broke", 4: "it did not load"}


class Ran:
    """A plug-in of pytest that writes down which functions of some files each test enters, and its
    seconds of computing.
    """

    def __init__(self, files, report):
        self.files, self.report, self.tests = files, report, {}

    def pytest_runtest_protocol(self, item, nextitem):
        """Around a test with its fixtures."""
        entered, files = set(), self.files

        def look(frame, event, arg):
            code = frame.f_code
            if code.co_filename in files:
                entered.add((files[code.co_filename], code.co_qualname))

        start = sum(os.times()[:4])
        threading.settrace(look)
        sys.settrace(look)
        try:
            importlib.import_module("_pytest.runner").pytest_runtest_protocol(item, nextitem)
        finally:
            sys.settrace(None)
            threading.settrace(None)
        seconds = sum(os.times()[:4]) - start
        self.tests[item.nodeid] = {"seconds": seconds, "entered": sorted(entered)}
        return True

    def pytest_sessionfinish(self):
        """Everything into a file."""
        self.report.write_text(json.dumps(self.tests))


def _become(folder, exact, seconds):
    """Make this child one that imports from a folder, says nothing and ends after so many seconds of
    computing.
    """
    os.setsid()
    os.chdir(folder)
    root = os.getcwd()
    others = [path for path in sys.path if path and not os.path.isdir(f"{path}/jaxsnn/nir")]
    sys.path[:] = [root, *others]
    os.environ.update(PYTHONPATH=root, XLA_FLAGS="" if exact else _QUICKLY)
    for name in [name for name in sys.modules if name.partition(".")[0] in ("tests", "jaxsnn")]:
        del sys.modules[name]
    sys.dont_write_bytecode = True
    resource.setrlimit(resource.RLIMIT_CPU, (int(seconds), int(seconds) + 5))
    resource.setrlimit(resource.RLIMIT_AS, (_MOST_BYTES, _MOST_BYTES))
    silence = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(silence, stream)


def run(folder, tests, *, exact=False, seconds=3600.0, longest=3600.0, plugins=()):
    """What a child says that runs tests until one fails: "" where all pass, else how it ended.

    Args:
        folder: The copy that is imported and whose tests run.
        tests: Names of tests or files, in their order.
        exact: XLA optimises what it compiles.
        seconds: Of computing, after which the child ends: some changes make loops that do not. Its
            memory has a limit, too.
        longest: Seconds by the clock, likewise.
        plugins: Of pytest.

    Raises:
        RuntimeError: no test ran, or the system ended the child.
    """
    child = os.fork()
    if child == 0:
        code = 70
        try:
            _become(folder, exact, seconds)
            pytest = importlib.import_module("pytest")
            options = ["-x", "-q", "-p", "no:cacheprovider", "-m", _MARKS]
            code = pytest.main([*options, *tests], plugins=list(plugins))
        finally:
            os._exit(int(code))
    start = time.monotonic()
    while time.monotonic() - start < longest:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return _said(status)
        time.sleep(0.02)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return "it did not end"


def _said(status):
    if os.WIFSIGNALED(status):
        by = os.WTERMSIG(status)
        if by == signal.SIGKILL:
            raise RuntimeError("the system ended the tests, perhaps for their memory")
        return "it did not end" if by == signal.SIGXCPU else f"it ended by signal {by}"
    code = os.WEXITSTATUS(status)
    if code and code not in _NOTICED:
        raise RuntimeError(f"pytest ended with {code}")
    return _NOTICED.get(code, "")
