"""A reader that closes its pipe, such as `| head`, changes no exit code and no file."""

import os
import subprocess
import sys

import pytest

from jaxsnn.commands.cli import main
from jaxsnn.nir import build, read, write
from tests.helpers.command_line import DEMO_NET, ROOT, TOLD

#: Arguments of a command, and its exit code. "NET" is a network that fits a chip.
COMMANDS = [
    (("check", DEMO_NET, "--for", "grid"), 1),
    (("check", DEMO_NET, "--for", "grid", "--json"), 1),
    (("check", DEMO_NET, *TOLD, "--reset-delay", "true", "--for", "grid"), 0),
    (("info", DEMO_NET), 0),
    (("info", "missing.nir"), 2),
    (("info", "missing.nir", "--json"), 2),
    (("info", "missing.nir", "--debug"), 2),
    (("info", "--no-such-option"), 2),
    (("info", "--help"), 0),
    (("--version",), 0),
    (("matrix", "NET", "--for", "grid"), 1),
    (("map", "NET", "-o", "m.json"), 0),
    (("completion", "bash"), 0),
    (("doctor",), 0),
]


@pytest.fixture
def closed_pipe():
    """Writable end of a pipe without a reader."""
    reader, writer = os.pipe()
    os.close(reader)
    yield writer
    os.close(writer)


@pytest.fixture
def net(tmp_path, monkeypatch):
    """Folder with a network that fits a chip, in which the command runs."""
    layers = [
        build.input(2),
        build.linear(weight=[[1.0, 0.5]]),
        build.cubalif(1, tau_mem="10ms", tau_syn="5ms"),
    ]
    write(tmp_path / "NET", build.sequential(*layers))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "NET"


@pytest.mark.parametrize("closed", [("stdout",), ("stderr",), ("stdout", "stderr")])
@pytest.mark.parametrize(
    ("argv", "code"), COMMANDS, ids=[f"{argv[0]}-{n}" for n, (argv, _) in enumerate(COMMANDS)]
)
def test_a_closed_pipe_changes_no_exit_code(argv, code, closed, net, closed_pipe, monkeypatch):
    streams = []
    for name in closed:
        stream = open(os.dup(closed_pipe), "w", encoding="utf-8")  # noqa: SIM115
        monkeypatch.setattr(sys, name, stream)
        streams.append(stream)
    assert _exit_code(argv) == code
    for stream in streams:
        stream.close()  # does not raise: nothing is left to write


def _exit_code(argv):
    try:
        return main([str(part) for part in argv])
    except SystemExit as ended:  # --help and --version
        return ended.code or 0


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("stream", ["stdout", "stderr"])
@pytest.mark.parametrize(
    ("argv", "code"), [COMMANDS[0], COMMANDS[4], COMMANDS[8]], ids=["check", "missing", "help"]
)
def test_a_program_in_a_closed_pipe_keeps_its_exit_code(
    argv, code, stream, unbuffered, closed_pipe, tmp_path
):
    open_stream = "stderr" if stream == "stdout" else "stdout"
    done = subprocess.run(
        [sys.executable, "-m", "jaxsnn.commands.cli", *map(str, argv)],
        env=os.environ | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": unbuffered},
        cwd=tmp_path,
        timeout=120,
        check=False,
        **{stream: closed_pipe, open_stream: subprocess.PIPE},
    )
    assert done.returncode == code
    assert b"BrokenPipe" not in (done.stderr or b"")


def test_a_file_is_written_although_nobody_reads_the_output(net, closed_pipe, tmp_path):
    done = subprocess.run(
        [
            *(sys.executable, "-m", "jaxsnn.commands.cli", "convert", "NET", "out.nir"),
            *("--to", "norse", "--to-dt", "1ms", "--approximate"),
        ],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
        timeout=120,
        check=False,
        stdout=closed_pipe,
        stderr=closed_pipe,
    )
    assert done.returncode == 0
    assert len(read(tmp_path / "out.nir", dt=1e-3).nodes) == 4
