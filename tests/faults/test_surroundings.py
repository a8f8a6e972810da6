"""What surrounds a command is broken: its output, its folder, its configuration, its partners. Each is
one line.
"""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from jaxsnn.commands.cli import main
from jaxsnn.errors import UsageError
from jaxsnn.nir import build, write
from jaxsnn.train.loop import parallel
from tests.helpers.command_line import ROOT, assert_cli_refused
from tests.helpers.refusals import assert_refused


def small(path):
    net = [build.input(2), build.linear(weight=[[1.0, 0.5]]), build.lif(1, tau="10ms")]
    write(path, build.sequential(*net))
    return path


def called(*argv, **options):
    environment = os.environ | {"PYTHONPATH": str(ROOT)} | options.pop("env", {})
    command = [sys.executable, "-m", "jaxsnn.commands.cli", *map(str, argv)]
    return subprocess.run(
        command, env=environment, stderr=subprocess.PIPE, timeout=120, check=False, **options
    )


@pytest.mark.parametrize("flags", [(), ("--json",)])
def test_a_full_disk_for_the_output_is_said(flags, tmp_path):
    path = small(tmp_path / "a.nir")
    with open("/dev/full", "w") as full:
        done = called("info", path, *flags, stdout=full)
    assert done.returncode == 2
    assert done.stderr == (
        b"jaxsnn: error: the output cannot be written (No space left on device): free some space, or"
        b" redirect the output to another place\n"
    )


@pytest.mark.parametrize("arguments", [("--help",), ("--version",), ("run", "--help")])
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_full_disk_for_help_is_said(arguments, unbuffered):
    with open("/dev/full", "w") as full:
        done = called(*arguments, stdout=full, env={"PYTHONUNBUFFERED": unbuffered})
    assert done.returncode == 2
    assert b"the output cannot be written (No space left on device)" in done.stderr
    assert done.stderr.count(b"\n") == 1


def test_a_terminal_without_the_characters_gets_their_numbers(tmp_path):
    nodes = {"in": build.input(1), "näme神": build.linear(weight=[[1.0]]), "out": build.output(1)}
    write(tmp_path / "a.nir", build.network(nodes, [("in", "näme神", "out")]))
    done = called(
        "info", tmp_path / "a.nir", stdout=subprocess.PIPE, env={"PYTHONIOENCODING": "ascii"}
    )
    assert done.returncode == 0, done.stderr
    assert b"n\\xe4me\\u795e" in done.stdout


def test_a_folder_that_is_gone_is_said(tmp_path, capsys, monkeypatch):
    path = small(tmp_path / "a.nir")
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    line = assert_cli_refused(capsys, "draw", path, "-o", "g.svg")
    assert (
        line == "jaxsnn: error: the current folder no longer exists: change to an existing folder\n"
    )
    assert_cli_refused(capsys, "info", "a.nir", says="a.nir: no such file")


def test_too_little_memory_is_said(tmp_path, capsys, monkeypatch):
    from jaxsnn.commands import info_command

    def fail(*_, **__):
        raise MemoryError

    monkeypatch.setattr(info_command, "read_graph", fail)
    line = assert_cli_refused(capsys, "info", small(tmp_path / "a.nir"))
    assert (
        line
        == "jaxsnn: error: not enough memory: reduce the batch, the number of samples or the network\n"
    )


def test_sigterm_ends_a_command_as_ctrl_c_does(tmp_path, capsys, monkeypatch):
    from jaxsnn.commands import info_command

    before = signal.getsignal(signal.SIGTERM)

    def wait(*_, **__):
        threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGTERM)).start()
        time.sleep(30)

    monkeypatch.setattr(info_command, "read_graph", wait)
    assert main(["info", str(small(tmp_path / "a.nir"))]) == 2
    assert capsys.readouterr().err == "jaxsnn: error: interrupted\n"
    assert signal.getsignal(signal.SIGTERM) is before


TOML = [
    *('epochs = "a"', "epochs = [1]", "epochs = {a = 1}", "epochs = 1e9", "epochs = 1000000000"),
    *(
        "epochs = true",
        "epochs = 1979-05-27",
        "epochs = nan",
        "[epochs]\nx = 1",
        "[[epochs]]\nx = 1",
    ),
    *("learning_rate = [0.1]", "learning_rate = inf", "data = 5", "data = {a = 1}", "engine = []"),
    *("loss = [1]", "schedule = [[1]]", "schedule = {a = {b = 1}}", 'noise = {weight = "a"}'),
    *("optimiser = {}", "seed = 1.5", "devices = 0", 'coordinator = "localhost"\nprocesses = 2'),
    *("trainable = 1", "headroom = 1", 'headroom = {a = "b"}', 'resume = "yes"', "t_end = []"),
    *("t_end = 1979-05-27T07:32:00Z", "a.b.c.d = 1", '"epochs " = 1', "epochs = 1\nepochs = 2"),
    *("\0", "x = " + "[" * 5000, "on_failure = 3", "encoder = {a = 1}", "clip = []", "plot = 1"),
]


@pytest.mark.parametrize("text", TOML, ids=range(len(TOML)))
def test_a_configuration_of_wrong_types_is_refused_in_one_line(text, tmp_path, capsys):
    (tmp_path / "run.toml").write_text(text)
    net = small(tmp_path / "a.nir")
    argv = ["train", net, "--config", tmp_path / "run.toml", "-o", tmp_path / "out.nir"]
    line = assert_cli_refused(capsys, *argv, "--data", "nothing.npz")
    assert "unexpected" not in line


@pytest.mark.parametrize(
    "address",
    ["localhost", "", ":1", "localhost:", "localhost:x", "localhost:99999", "localhost:0"],
)
def test_a_coordinator_needs_a_host_and_a_port(address):
    assert_refused(
        lambda: parallel.join_processes(address, 2, 0), UsageError, r"coordinator is .*HOST:PORT"
    )


@pytest.mark.parametrize(
    ("address", "bound"),
    [
        ("127.0.0.1:4321", "127.0.0.1:4321"),
        ("[::1]:4321", "[::1]:4321"),
        ("localhost:4321", "localhost:4321"),
        ("10.0.0.1:4321", None),
        ("node7:4321", None),
    ],
)
def test_who_is_named_by_the_loopback_listens_there_alone(address, bound, monkeypatch):
    import jax

    named_arguments = {}
    monkeypatch.setattr(jax.config, "update", lambda *_: None)
    monkeypatch.setattr(
        jax.distributed, "initialize", lambda *positional, **named: named_arguments.update(named)
    )
    parallel.join_processes(address, 2, 0)
    assert named_arguments.get("coordinator_bind_address") == bound
