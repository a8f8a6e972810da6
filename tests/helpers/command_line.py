"""Commands as users call them: in this process, or in one of their own."""

import json
import os
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

from jaxsnn.commands.cli import main

ROOT = Path(__file__).parents[2]
#: Network of the demo, and the options that its file does not contain.
DEMO_NET = Path(str(files("jaxsnn"))) / "commands" / "demo" / "snntorch_yinyang.nir"
TOLD = ["--dialect", "snntorch", "--reset", "zero"]


def call(capsys, *argv):
    """Exit code, stdout and stderr of a command."""
    code = main([str(part) for part in argv])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def run_cli(capsys, *argv, code=0):
    """stdout and stderr of a command that must end with an exit code."""
    exit_code, out, err = call(capsys, *argv)
    assert exit_code == code, err
    return out, err


def run_cli_json(capsys, *argv, code=0):
    """What a command that must end with an exit code prints as JSON, and stderr."""
    out, err = run_cli(capsys, *argv, "--json", code=code)
    return json.loads(out), err


def assert_cli_refused(capsys, *argv, code=None, says=""):
    """The one line of an expected error, with its exit code and some of its words."""
    exit_code, line = refused(capsys, *argv)
    assert code in (None, exit_code), line
    assert says in line, line
    return line


def refused(capsys, *argv):
    """The exit code and the one line of an expected error."""
    code, out, err = call(capsys, *argv)
    assert code in (1, 2), err
    assert "--json" in argv or out == ""
    assert err.startswith("jaxsnn: error: ")
    assert err.count("\n") == 1, err
    return code, err


def finished(*argv, code=0, site=None, folder=None):
    """A command in a process of its own, which must end with a code.

    Args:
        site: a folder of installed packages that it sees besides.
        folder: where it runs.
    """
    paths = [str(path) for path in (site, ROOT) if path is not None]
    done = subprocess.run(
        [sys.executable, "-m", "jaxsnn.commands.cli", *map(str, argv)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == code, done.stderr
    return done
