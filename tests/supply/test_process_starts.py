"""SECURITY.md lists every place that starts a program or a process, or loads native code."""

import pytest

from tests.supply.process_starts import listed, starts, starts_by_file


def test_security_lists_all_that_is_started():
    assert listed() == starts_by_file()
    assert listed()


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import subprocess\nsubprocess.run([])", "subprocess.run"),
        ("import subprocess as s\ns.Popen([])", "subprocess.Popen"),
        ("from subprocess import check_output as c\nc([])", "subprocess.check_output"),
        ("import os\nos.fork()", "os.fork"),
        ("import os\nos.execvpe('a', [], {})", "os.execvpe"),
        ("import os\nos.system('a')", "os.system"),
        ("import os\nos.posix_spawn('a', [], {})", "os.posix_spawn"),
        ("from os import fork\nfork()", "os.fork"),
        ("import ctypes\nctypes.CDLL('a')", "ctypes.CDLL"),
        ("import ctypes\nctypes.cdll.LoadLibrary('a')", "ctypes.cdll"),
        ("import asyncio\nasyncio.create_subprocess_exec('a')", "asyncio.create_subprocess_exec"),
        (
            "import concurrent.futures\nconcurrent.futures.ProcessPoolExecutor()",
            "concurrent.futures.ProcessPoolExecutor",
        ),
        (
            "from concurrent import futures\nfutures.ProcessPoolExecutor()",
            "concurrent.futures.ProcessPoolExecutor",
        ),
        (
            "from concurrent.futures import ProcessPoolExecutor as P\nP()",
            "concurrent.futures.ProcessPoolExecutor",
        ),
        ("from multiprocessing import Pool\nPool()", "multiprocessing.Pool"),
        ("import webbrowser\nwebbrowser.open('a')", "webbrowser.open"),
        ("from importlib import import_module\nimport_module('subprocess')", "subprocess.by name"),
    ],
)
def test_a_start_is_noticed(source, expected):
    assert set(starts(source)) == {expected}


@pytest.mark.parametrize(
    "source",
    [
        "import os\nos.path.join('a')\nos.getcwd()",
        "import subprocess\ntry:\n    pass\nexcept subprocess.SubprocessError:\n    pass",
        "import ctypes\nctypes.c_int64(3)",
        "def fork(): pass\nfork()",
    ],
)
def test_what_starts_nothing_is_not_listed(source):
    assert set(starts(source)) == set()
