"""Every command that writes, with its output on a read-only file system.

    unshare -m [-r] python -m tests.faults.read_only FOLDER

needs a mount namespace of its own, and prints a line of JSON for each command: its name, exit code and
error, and whether it had begun its work. Permissions would not do: root ignores them.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from unittest import mock

from jaxsnn.bss2 import mapping_files
from jaxsnn.bss2.search import portfolio
from jaxsnn.conformance import suite
from jaxsnn.event.event_driven import EventDriven
from jaxsnn.grid.time_stepped import TimeStepped
from jaxsnn.train.loop.training_run import TrainingRun
from tests.faults import injected

_RASTER = ("plot", "net.nir", "-o", "OUT.png", "--kind", "raster", "--input", "x.npz")
_TRAINED = ("train", "train.nir", "--data", "data.npz", "--epochs", "1", "--batch-size", "16")
COMMANDS = {
    **{name: subject.argv for name, subject in injected.SUBJECTS.items()},
    "draw as .png": ("draw", "net.nir", "-o", "OUT.png"),
    "plot of a simulation": (*_RASTER, "--t-end", "20ms"),
    "run --plot": (
        *("run", "net.nir", "--input", "x.npz", "-o", "free.npz", "--t-end", "20ms"),
        *("--plot", "OUT.png"),
    ),
    "train --plot": (*_TRAINED, "-o", "free.nir", "--plot", "OUT.png"),
    "train on an emulated chip": (*_TRAINED, "-o", "OUT.nir", "--engine", "loop"),
    "train with a read-only folder of checkpoints": (*_TRAINED, "-o", "half.nir", "--resume"),
    "conformance --failures": (
        *("conformance", "tests.conformance.faulty:CONFORMING", "--failures", "OUT"),
        *("--only", "export/LIF/per neuron/one layer"),
    ),
    "deploy into a folder that is to be made": (
        *("deploy", "net.nir", "made.json", "-o", "OUT/in/here"),
    ),
}
#: Functions that do the work of commands: simulate, train, test a framework, or place and route.
WORK = (
    (EventDriven, "run"),
    (TimeStepped, "run"),
    (TrainingRun, "_epochs"),
    (suite, "run"),
    (portfolio, "place_and_route"),
    (mapping_files, "quantize_as_mapped"),
)


def _mounted(folder, read_only=True):
    """Make a folder a file system of its own that takes no new files."""
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "none", str(folder)], check=True)
    if read_only:
        _close(folder)


def _close(folder):
    """Make a mounted file system read-only."""
    subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)


def outcome_if_closed(folder, name, argv):
    """Exit code, error and notes of a command whose output folder becomes read-only when it calls a
    function of `os`, after a link and before a replacement; and the files that remain.
    """
    _mounted(folder, read_only=False)
    function = getattr(os, name)

    def call(*arguments, **options):
        _close(folder) if name == "replace" else None
        function(*arguments, **options)
        _close(folder) if name == "link" else None

    with mock.patch.object(os, name, call):
        code, error, notes = injected._outcome(argv)
    return {"code": code, "error": error, "notes": notes, "files": sorted(os.listdir(folder))}


def outcome_of(argv):
    """Exit code and error of a command, and the work that it began."""
    began = []

    def spy(owner, name):
        original = getattr(owner, name)

        def call(*arguments, **options):
            began.append(name)
            return original(*arguments, **options)

        return mock.patch.object(owner, name, call)

    patches = [spy(owner, name) for owner, name in WORK]
    for patch in patches:
        patch.start()
    try:
        code, error = injected._quiet(argv)
    finally:
        for patch in patches:
            patch.stop()
    return {"code": code, "error": error, "began": began}


def say(line):
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


def main():
    folder = Path(sys.argv[1])
    os.chdir(folder)
    injected._prepare(folder)
    _mounted(folder / "read-only")
    _mounted(folder / "half.checkpoint")
    for name, argv in COMMANDS.items():
        there = [
            f"read-only/{argument}" if argument.startswith("OUT") else argument for argument in argv
        ]
        say({"name": name, **outcome_of(there)})
    argv = ["run", "net.nir", "--input", "x.npz", "-o", "written.npz", "--t-end", "20ms"]
    say({"name": "run that may write", **outcome_of(argv)})
    for name in ("link", "replace"):
        options = [] if name == "link" else ["--force"]
        argv = ["draw", "net.nir", "-o", f"closed-{name}/OUT.svg", *options]
        outcome = outcome_if_closed(folder / f"closed-{name}", name, argv)
        say({"name": f"closed at {name}", **outcome})


if __name__ == "__main__":
    main()
