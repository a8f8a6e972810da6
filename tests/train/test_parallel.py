"""Devices and processes that share the samples out: the result of one device, up to the order of
sums.
"""

import json
import os
import re
import socket
import subprocess
import sys
from contextlib import nullcontext

import jax
import numpy as np
import pytest

from jaxsnn.commands import train_command
from jaxsnn.errors import UsageError
from jaxsnn.nir import write
from jaxsnn.train import fitting
from jaxsnn.train.loop.parallel import make_mesh
from tests.helpers.command_line import DEMO_NET, TOLD, call
from tests.helpers.refusals import assert_refused
from tests.helpers.small_task import small_net

FLAGS = os.environ.get("XLA_FLAGS", "")
TRAIN = ["train", DEMO_NET, *TOLD, "--data", "yinyang", "-o"]
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

#: The same on two devices, with checks: one exchange in each compiled program, programs launched
#: one at a time, identical parameters on both. The number of devices is not set by an XLA flag.
WATCHED = (
    """
import json, re
import jax, numpy as np
from jaxsnn.train.loop import epoch, passes, training_run
seen, launched, late, spread = {}, [], [], []
class Watched:
    def __init__(self, name, program):
        self.optimised = watched(name, program.optimised)
def watched(name, function):
    def call(*arguments):
        if name not in seen:
            text = function.lower(*arguments).compile().as_text()
            exchanges = re.findall(r" (?:all|reduce|collective)-[a-z-]+\\(", text)
            seen[name] = [exchange.strip(" (") for exchange in exchanges]
        late.extend(not array.is_ready() for array in launched)
        found = function(*arguments)
        launched[:] = jax.tree.leaves(found)
        return found
    return call
def merged(summaries):
    leaves = jax.tree.leaves(summaries)
    spread.extend(len(leaf.devices()) if isinstance(leaf, jax.Array) else 1 for leaf in leaves)
    return epoch.merged(summaries)
passes.run_epoch = Watched("run_epoch", epoch.run_epoch)
passes.run_evaluation = Watched("run_evaluation", epoch.run_evaluation)
passes.merged = merged
passes._EVALUATION_BATCH = 8
states = []
whole = training_run.TrainingRun.result
def result(self):
    states.append(self.state)
    return whole(self)
training_run.TrainingRun.result = result
"""
    + RUN
    + """
same = [
    len({np.asarray(shard.data).tobytes() for shard in leaf.addressable_shards})
    for leaf in jax.tree.leaves(states[0].raw)
]
shards = [len(leaf.addressable_shards) for leaf in jax.tree.leaves(states[0].raw)]
print(json.dumps({
    "weights": weights, "losses": losses, "exchanges": seen, "late": sum(late),
    "launches": len(late), "spread": spread, "same": same, "shards": shards,
}))
"""
)

#: Sums and maxima of arrays of all kinds over three devices, exchanged as bits.
EXCHANGED = """
import jax, jax.numpy as jnp, numpy as np
jax.config.update("jax_num_cpu_devices", 3)
jax.config.update("jax_enable_x64", True)
from jaxsnn.train.loop.parallel import make_mesh, over_devices, shared_out
mesh = make_mesh(3)
values = np.arange(1.0, 13.0).reshape(6, 2) * np.pi
def both(part):
    kinds = ("float64", "float32", "float16", "int64", "int32", "int8", "uint32")
    sums = {kind: jnp.sum(part, axis=0).astype(kind) for kind in kinds}
    peaks = {"scalar": jnp.max(part), "low": jnp.max(-part).astype("int32"), "any": part[0, 0] > 20,
             "nan": jnp.where(part[0, 0] > 20, jnp.nan, 0.0), "none": jnp.zeros((0,))}
    return over_devices(sums, peaks, mesh)
sums, peaks = jax.jit(shared_out(both, mesh, 1))(values)
parts = [np.sum(values[2 * n : 2 * n + 2], axis=0) for n in range(3)]
for kind, found in sums.items():
    expected = sum((part.astype(kind) for part in parts), np.zeros(2, kind))
    assert found.dtype == kind and np.array_equal(found, expected), (kind, found, expected)
assert peaks["scalar"] == values.max() and peaks["low"] == int(-values.min()), peaks
assert bool(peaks["any"]) and peaks["any"].dtype == bool and np.isnan(peaks["nan"]), peaks
assert peaks["none"].shape == (0,), peaks
print("fine")
"""


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    return {
        **os.environ,
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path_factory.mktemp("cache")),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PLATFORMS": "cpu",
    }


def started(environment, *numbers, code=RUN, **flags):
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, numbers)],
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


def assert_alike(first, second):
    """Training amplifies rounding; after 24 steps the runs are still together."""
    np.testing.assert_allclose(first["losses"], second["losses"], rtol=1e-3)
    for ours, theirs in zip(first["weights"], second["weights"], strict=True):
        np.testing.assert_allclose(ours, theirs, atol=2e-3)


@pytest.fixture(scope="module")
def alone(environment):
    return result_of(started(environment, 1, 1, 0, 0))


@pytest.mark.slow
def test_eight_devices_give_the_result_of_one(environment, alone):
    flags = "--xla_force_host_platform_device_count=8"
    assert_alike(result_of(started(environment, 8, 1, 0, 0, XLA_FLAGS=flags)), alone)


def test_sums_and_maxima_of_all_kinds_of_numbers_travel_as_bits(run_python):
    assert run_python(EXCHANGED, JAX_PLATFORMS="cpu").stdout.strip() == "fine"


@pytest.fixture(scope="module")
def watched(environment):
    return result_of(started(environment, 2, 1, 0, 0, code=WATCHED))


def test_two_devices_that_fit_makes_give_the_result_of_one(watched, alone):
    assert_alike(watched, alone)


def test_a_step_has_one_exchange(watched):
    """At each the devices wait for each other."""
    assert watched["exchanges"] == {"run_epoch": ["all-gather"], "run_evaluation": []}


def test_parameters_are_the_same_bits_on_both_devices(watched):
    assert set(watched["shards"]) == {2}
    assert set(watched["same"]) == {1}


def test_programs_on_several_devices_are_launched_one_at_a_time(watched):
    """With more than 32 on their way the launches take the threads that running programs need."""
    assert watched["launches"] > 1000
    assert watched["late"] == 0
    assert set(watched["spread"]) == {1}


def test_the_command_makes_the_devices_that_it_needs(environment, tmp_path):
    write(tmp_path / "net.nir", small_net())
    line = "train net.nir --data yinyang -o out.nir --epochs 1 --batch-size 501 --devices 2"
    done = subprocess.run(
        [sys.executable, "-m", "jaxsnn.commands.cli", *line.split()],
        env=environment | {"PYTHONPATH": os.getcwd()},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert "the batch size is 500, not 501, so that 2 devices share a batch evenly" in done.stderr


LATE = """
import jax
from jaxsnn.errors import UsageError
from jaxsnn.train import fit
from tests.helpers.small_task import DATA, small_net
assert len(jax.devices()) == 1
try:
    fit(small_net(), DATA, epochs=1, progress=None, devices=2)
except UsageError as error:
    print(error)
"""


def test_where_jax_has_started_the_error_says_what_to_set(run_python):
    message = run_python(LATE, JAX_PLATFORMS="cpu").stdout
    assert "devices is 2, and the number of devices that JAX sees is 1" in message
    flag = "XLA_FLAGS=--xla_force_host_platform_device_count=2"
    assert f"set {flag} before jax is imported" in message


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("XLA_FLAGS", f"{FLAGS} --xla_force_host_platform_device_count=3"),
        ("JAX_NUM_CPU_DEVICES", "3"),
    ],
)
def test_a_number_of_devices_that_the_user_has_set_is_kept(run_python, variable, value):
    code = """
import jax
from jaxsnn.train import TrainOptions
from jaxsnn.train.loop.parallel import make_devices
make_devices(TrainOptions(devices=2))
print(len(jax.devices()))
"""
    environment = {variable: value, "JAX_PLATFORMS": "cpu"}
    assert run_python(code, **environment).stdout.strip() == "3"


@pytest.mark.slow
def test_two_processes_give_the_result_of_one(environment, alone):
    port = free_port()
    both = [started(environment, 0, 2, number, port) for number in (0, 1)]
    first, second = (result_of(process) for process in both)
    assert first == second
    assert_alike(first, alone)


def test_more_devices_than_there_are_are_refused():
    assert_refused(
        lambda: make_mesh(64),
        UsageError,
        r"devices is 64, and the number of devices that JAX sees is \d+.*device_count=64",
    )


def test_a_trace_of_xla_becomes_one_line(run_python, capfd):
    code = """
import os, sys
from jaxsnn.train.loop.parallel import aborting_in_one_line
with aborting_in_one_line("jaxsnn: error: lost"):
    print("before", file=sys.stderr)
    os.write(2, b"E1127 05:33:35.557633 21271 coordination_service_agent.cc:289] Polled an error\\n")
    if sys.argv[1:] == []:
        os.write(2, b"F1127 client.h:80] the JAX distributed service detected fatal errors.\\n")
        os.write(2, b"*** Check failure stack trace: ***\\n    @ 0x7fb779240634\\n")
        os.abort()
"""
    ended = subprocess.run(
        [sys.executable, "-c", code], stderr=subprocess.PIPE, text=True, timeout=120, check=False
    )
    assert ended.stderr == "before\njaxsnn: error: lost\n"
    fine = run_python(code.replace("sys.argv[1:] == []", "False"))
    assert fine.stderr == "before\n"


@pytest.mark.slow
@pytest.mark.parametrize("killed", [0, 1])
def test_a_lost_process_ends_the_run_with_one_line_and_a_usable_checkpoint(
    killed, environment, tmp_path
):
    """The second process is killed while both train; the first says so, and the run is resumed by
    one alone.
    """
    write(tmp_path / "net.nir", small_net())
    checkpoint = tmp_path / "out.checkpoint"
    command = [sys.executable, "-m", "jaxsnn.commands.cli", "train", str(tmp_path / "net.nir")]
    command += ["--data", "yinyang", "-o", str(tmp_path / "out.nir"), "--epochs", "1000", "-q"]
    command += ["--coordinator", f"127.0.0.1:{free_port()}", "--processes", "2", "--process"]
    both = [
        subprocess.Popen([*command, n], env=environment, stderr=subprocess.PIPE, text=True)
        for n in "01"
    ]
    history = checkpoint / "history.jsonl"
    while not history.exists() or len(history.read_text().splitlines()) < 3:
        assert both[0].poll() is None, both[0].stderr.read()
    survivor = 1 - killed
    both[killed].kill()
    _, err = both[survivor].communicate(timeout=120)
    both[killed].communicate()
    assert both[survivor].returncode != 0
    (line,) = err.splitlines()
    assert re.match(
        f"jaxsnn: error: process {survivor} lost (another process|the coordinator)", line
    )
    assert str(checkpoint) in line
    assert "--resume" in line
    assert (checkpoint / "last.npz").exists()


@pytest.mark.parametrize("others", [[], ["--processes", "2", "--coordinator", "a:1"]])
def test_what_fails_in_jax_is_a_lost_process_only_where_there_are_others(
    others, tmp_path, monkeypatch, capsys
):
    def prepared(graph, options):
        return fitting.Prepared(graph=graph, options=options, notes=())

    def fails(prepared):
        raise jax.errors.JaxRuntimeError("out of memory")

    monkeypatch.setattr(fitting, "prepare", prepared)
    monkeypatch.setattr(fitting, "fit_prepared", fails)
    monkeypatch.setattr(train_command, "_aborts", lambda options, files: nullcontext())
    monkeypatch.setattr(os, "_exit", sys.exit)
    try:
        code, _, err = call(capsys, *TRAIN, tmp_path / "t.nir", *others)
    except SystemExit as stopped:
        code, err = stopped.code, capsys.readouterr().err
    assert code != 0
    assert "out of memory" in err
    assert ("process 0 lost another process" in err) is bool(others)


def test_a_process_that_does_not_report_prints_nothing_and_is_no_failure(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(train_command, "train_file", lambda graph, files, options: None)
    assert call(capsys, *TRAIN, tmp_path / "t.nir") == (0, "", "")
