"""Devices and processes that share the samples out: the result of one device, up to the order of
sums.
"""

import json
import os
import socket
import subprocess
import sys

import numpy as np
import pytest

from jaxsnn.errors import UsageError
from jaxsnn.train.loop.parallel import make_mesh

RUN = """
import json, sys
from jaxsnn.train import Dropout, fit, join_processes, yinyang_splits
from tests.helpers.small_task import small_net
devices, processes, process, port = (int(text) for text in sys.argv[1:5])
if processes > 1:
    join_processes(f"127.0.0.1:{port}", processes, process)
trained = fit(
    small_net(), yinyang_splits(0, (512, 128, 128)), epochs=3, learning_rate=0.02, progress=None,
    augment=Dropout(probability=0.05), devices=devices or None,
)
weights = [trained.graph.nodes[name].weight.tolist() for name in ("1", "3")]
losses = [record.train_loss for record in trained.history]
print(json.dumps({"weights": weights, "losses": losses, "batch": trained.history[-1].max_spikes}))
"""


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    return {
        **os.environ,
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path_factory.mktemp("cache")),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PLATFORMS": "cpu",
    }


def started(environment, *numbers, **flags):
    return subprocess.Popen(
        [sys.executable, "-c", RUN, *map(str, numbers)],
        env=environment | flags,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def result_of(process):
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    return json.loads(out.splitlines()[-1])


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def assert_alike(one, other):
    """Training amplifies rounding; after 24 steps the runs are still together."""
    np.testing.assert_allclose(one["losses"], other["losses"], rtol=1e-3)
    for ours, theirs in zip(one["weights"], other["weights"], strict=True):
        np.testing.assert_allclose(ours, theirs, atol=2e-3)


@pytest.fixture(scope="module")
def alone(environment):
    return result_of(started(environment, 1, 1, 0, 0))


def test_eight_devices_give_the_result_of_one(environment, alone):
    flags = "--xla_force_host_platform_device_count=8"
    assert_alike(result_of(started(environment, 8, 1, 0, 0, XLA_FLAGS=flags)), alone)


@pytest.mark.slow
def test_two_processes_give_the_result_of_one(environment, alone):
    port = free_port()
    both = [started(environment, 0, 2, number, port) for number in (0, 1)]
    first, second = (result_of(process) for process in both)
    assert first == second
    assert_alike(first, alone)


def test_more_devices_than_there_are_are_refused():
    with pytest.raises(UsageError, match=r"devices is 64: JAX sees \d+.*device_count=64"):
        make_mesh(64)


@pytest.mark.slow
def test_a_lost_process_ends_the_run_with_one_line_and_a_usable_checkpoint(environment, tmp_path):
    """The second process is killed while both train; the first says so, and the run is resumed by
    one alone.
    """
    from jaxsnn.nir import write
    from tests.helpers.small_task import small_net

    write(tmp_path / "net.nir", small_net())
    port, out = free_port(), tmp_path / "out.nir"
    command = [
        sys.executable,
        "-m",
        "jaxsnn.commands.cli",
        "train",
        str(tmp_path / "net.nir"),
        "--data",
        "yinyang",
        "-o",
        str(out),
    ]
    command += [
        "--epochs",
        "1000",
        "--coordinator",
        f"127.0.0.1:{port}",
        "--processes",
        "2",
        "-q",
    ]
    both = [
        subprocess.Popen(
            [*command, "--process", str(n)], env=environment, stderr=subprocess.PIPE, text=True
        )
        for n in (0, 1)
    ]
    history = tmp_path / "out.checkpoint" / "history.jsonl"
    while not history.exists() or len(history.read_text().splitlines()) < 3:
        assert both[0].poll() is None, both[0].stderr.read()
    both[1].kill()
    _, err = both[0].communicate(timeout=120)
    both[1].communicate()
    assert both[0].returncode == 1
    line = next(line for line in err.splitlines() if line.startswith("jaxsnn: error:"))
    assert "process 0 lost another one" in line
    assert "out.checkpoint holds the last whole epoch" in line
    assert (tmp_path / "out.checkpoint" / "last.npz").exists()
