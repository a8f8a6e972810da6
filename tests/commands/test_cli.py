"""The command line: results and errors as documented, nothing overwritten, everything documented."""

import argparse
import inspect
import itertools
import json
import re
import runpy
from pathlib import Path

import h5py
import jax
import numpy as np
import pytest

import jaxsnn
from jaxsnn import commands as command_package
from jaxsnn.commands import cli, doctor_command
from jaxsnn.commands.cli import COMMANDS, build_parser, command_module
from jaxsnn.nir import write
from tests.helpers.command_line import (
    DEMO_NET,
    TOLD,
    assert_cli_refused,
    call,
    finished,
    refused,
    run_cli,
    run_cli_json,
)
from tests.helpers.random_spikes import random_raster
from tests.helpers.small_task import small_net


@pytest.fixture
def net(tmp_path):
    """A small file of our own: 5-12-3."""
    write(tmp_path / "net.nir", small_net(12, second=(0.4, 0.3)))
    return tmp_path / "net.nir"


# Bad files: each must end in one line and exit 1 or 2, and write nothing.


def missing(path):
    path.unlink()


def no_hdf5(path):
    path.write_text("weights: 1, 2, 3\n" * 20)


def no_nir(path):
    with h5py.File(path, "w") as file:
        file["something"] = 1


def truncated(path):
    path.write_bytes(path.read_bytes()[:-2000])


def unknown_type(path):
    with h5py.File(path, "r+") as file:
        del file["node/nodes/2/type"]
        file["node/nodes/2/type"] = "Hodgkin"


def dangling_edge(path):
    with h5py.File(path, "r+") as file:
        edges = [tuple(map(bytes.decode, edge)) for edge in file["node/edges"][()]]
        del file["node/edges"]
        file["node/edges"] = [*edges, ("2", "nowhere")]


def set_parameter(path, name, value):
    with h5py.File(path, "r+") as file:
        del file[f"node/nodes/{name}"]
        file[f"node/nodes/{name}"] = value


def weight_not_a_number(path):
    weight = np.ones((12, 5))
    weight[3, 2] = np.nan
    set_parameter(path, "1/weight", weight)


def tau_not_positive(path):
    set_parameter(path, "2/tau_mem", np.full(12, 0.0))


def shapes_that_do_not_match(path):
    set_parameter(path, "3/weight", np.ones((3, 13)))


BAD = {
    missing: (2, "no such file"),
    no_hdf5: (2, "not an HDF5 file"),
    no_nir: (2, "not NIR"),
    truncated: (2, "damaged or truncated"),
    unknown_type: (1, "'2' has the type Hodgkin"),
    dangling_edge: (1, "'nowhere'"),
    weight_not_a_number: (1, "'1' (Linear)"),
    tau_not_positive: (1, "'2' (CubaLIF)"),
    shapes_that_do_not_match: (1, "'3'"),
}


@pytest.mark.parametrize("command", ["info", "run", "train"])
@pytest.mark.parametrize("spoil", BAD, ids=lambda spoil: spoil.__name__)
def test_bad_files_end_in_one_line_and_write_nothing(spoil, command, net, tmp_path, capsys):
    spoil(net)
    np.savez(tmp_path / "x.npz", time=np.zeros((1, 1)), index=np.zeros((1, 1), int))
    options = {
        "info": ["--json"],
        "run": ["--input", tmp_path / "x.npz", "-o", tmp_path / "out.npz", "--t-end", "10ms"],
        "train": ["--data", "yinyang", "-o", tmp_path / "out.nir"],
    }
    before = sorted(path.name for path in tmp_path.iterdir())
    code, message = refused(capsys, command, net, *options[command])
    expected_code, part = BAD[spoil]
    assert code == expected_code
    assert part in message
    assert sorted(path.name for path in tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("existing", "line", "message"),
    [
        ("out.nir", "train net.nir --data yinyang -o out.nir",
         "out.nir exists: choose another name or pass --force"),
        ("out.nir", "train nothing.nir --data yinyang -o out.nir", "exists"),  # before anything is read
        ("out.history.json", "train net.nir --data yinyang -o out.nir", "out.history.json exists"),
        ("out.npz", "run net.nir --input x.npz -o out.npz", "exists"),
        ("report.json", "demo -o .", "report.json exists"),
    ],
)  # fmt: skip
def test_output_that_exists_is_never_overwritten(
    existing, line, message, net, tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / existing).write_text("precious")
    assert_cli_refused(capsys, *line.split(), says=message)
    assert {path.name for path in tmp_path.iterdir()} == {"net.nir", existing}
    assert (tmp_path / existing).read_text() == "precious"


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["inform", "x.nir"], "invalid choice: 'inform'"),
        (["info"], "required: FILE"),
        (["check", DEMO_NET], "required: --purpose/--for"),
        (["info", DEMO_NET, "--dialect", "snntorhc"], "did you mean 'snntorch'?"),
        (["info", DEMO_NET, "--dialect", "snntorch", "--dt", "1 parsec"], "unit 'parsec'"),
        (
            ["train", DEMO_NET, *TOLD, "--data", "digit", "-o", "x.nir"],
            "'digit' is neither a task nor an .npz file: did you mean 'digits'?",
        ),
        (
            ["train", DEMO_NET, *TOLD, "-o", "x.nir"],
            "the training data are missing: pass --data",
        ),
        (
            ["train", DEMO_NET, *TOLD, "--data", "yinyang", "-o", "x.nir", "--loss", "mze"],
            "did you mean 'mse'",
        ),
        (
            ["train", DEMO_NET, *TOLD, "--data", "yinyang", "-o", "x.nir", "--engine", "lop"],
            "did you mean 'loop'",
        ),
        (
            ["train", DEMO_NET, *TOLD, "--data", "yinyang", "-o", "x.nir", "--epochs", "two"],
            "--epochs is 'two'",
        ),
        (
            ["train", DEMO_NET, *TOLD, "--data", "yinyang", "-o", "x.nir", "--config", "no.toml"],
            "no.toml: no such file",
        ),
        (
            ["train", DEMO_NET, *TOLD, "--data", "yinyang", "-o", "x.nir", "--epochs", "0"],
            "--epochs is 0",
        ),
        *(
            (
                ["train", DEMO_NET, *TOLD, "--data", "yinyang", "-o", "x.nir", "--seed", seed],
                f"--seed is {seed}: pass an integer from 0 to 4294967295",
            )
            for seed in ("-1", "4294967296", str(2**70))
        ),
        *(
            (
                ["train", DEMO_NET, *TOLD, "--data", "yinyang", "-o", "x.nir", *options.split()],
                message,
            )
            for options, message in {
                "--dropout nan": "the probability of dropout is nan: pass a number of at least 0 and below 1",
                "--dropout 2": "the probability of dropout is 2",
                "--dropout -1": "the probability of dropout is -1",
                "--processes 0": "processes is 0: pass at least 1",
                "--process 3": "number the processes from 0 to 0, or pass --processes",
                "--processes 2 --process -1": "process is -1, and the number of processes is 2: ",
            }.items()
        ),
        (["demo", "--seed", "-1"], "seed is -1: pass an integer from 0 to 4294967295"),
        (
            ["train", DEMO_NET, *TOLD, "--data", "yinyang", "-o", "no/folder/x.nir"],
            "folder no/folder does not exist",
        ),
        (
            ["run", DEMO_NET, *TOLD, "--input", "nothing.npz", "-o", "y.npz"],
            "nothing.npz: no such file",
        ),
    ],
)
def test_usage_errors_are_one_line_and_exit_2(argv, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert_cli_refused(capsys, *argv, code=2, says=message)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", ["run", "train"])
def test_what_the_file_does_not_say_is_asked_for_by_option(command, tmp_path, capsys):
    np.savez(tmp_path / "x.npz", time=np.zeros((1, 1)), index=np.zeros((1, 1), int))
    rest = {
        "run": ["--input", tmp_path / "x.npz", "-o", tmp_path / "y.npz", "--t-end", "10ms"],
        "train": ["--data", "yinyang", "-o", tmp_path / "y.nir"],
    }[command]
    assert_cli_refused(
        capsys, command, DEMO_NET, "--dialect", "snntorch", *rest, code=1, says="--reset"
    )


def test_an_option_that_contradicts_the_file_is_refused_with_both_numbers(capsys):
    line = assert_cli_refused(
        capsys, "info", DEMO_NET, "--dialect", "snntorch", "--dt", "1ms", code=1, says="1 ms"
    )
    assert "100 us" in line


def test_debug_shows_the_traceback(capsys):
    code, out, err = call(capsys, "info", "nothing.nir", "--debug")
    assert (code, out) == (2, "")
    assert "Traceback" in err
    assert err.splitlines()[-1].startswith("jaxsnn: error: ")


def test_a_bug_is_one_line_too(capsys, monkeypatch):
    def fail(*_, **__):
        raise IndexError("list index out of range")

    monkeypatch.setattr("jaxsnn.nir.read", fail)
    assert_cli_refused(capsys, "info", DEMO_NET, says="unexpected IndexError")


# Commands that succeed.


def test_info(capsys):
    code, out, err = call(capsys, "info", DEMO_NET, *TOLD, "--json")
    content = json.loads(out)
    assert (code, err) == (0, "")
    assert content["schema"] == 1
    assert content["dialect"]["dt"] == 1e-4
    out, _ = run_cli(capsys, "info", DEMO_NET)
    assert "CubaLIF" in out


def test_the_command_line_loads_nothing_heavy_before_a_command_needs_it(run_python):
    code = """
import sys
from jaxsnn.commands.cli import build_parser
build_parser()
print([name for name in ("numpy", "h5py", "networkx", "nir", "jax") if name in sys.modules])
"""
    assert run_python(code).stdout == "[]\n"


def test_a_command_reads_no_file_of_another_and_no_types_of_arrays(run_python):
    code = f"""
import sys
from jaxsnn.commands.cli import main
assert main(["run", {str(DEMO_NET)!r}, "--demo-input"]) == 2
import jaxsnn.event.event_driven, jaxsnn.grid.time_stepped, jaxsnn.train.fitting
print([name for name in sys.modules if name.endswith("_command") or name == "jaxtyping"])
"""
    assert run_python(code).stdout.splitlines()[-1] == "['jaxsnn.commands.run_command']"


@pytest.mark.parametrize(("arguments", "alone"), [("", True), ("sys.argv[1:]", False)])
def test_only_a_process_of_its_own_puts_off_collecting_garbage(run_python, arguments, alone):
    code = f"""
        import gc, sys
        from jaxsnn.commands.cli import main
        sys.argv[1:] = ["info", {str(DEMO_NET)!r}]
        before = gc.get_threshold(), gc.get_freeze_count()
        assert main({arguments}) == 0
        print((gc.get_threshold(), gc.get_freeze_count()) != before)
    """
    assert run_python(inspect.cleandoc(code)).stdout.splitlines()[-1] == str(alone)


def test_run_on_events(net, tmp_path, capsys):
    generator = np.random.default_rng(0)
    np.savez(
        tmp_path / "x.npz",
        time=generator.uniform(0, 0.02, (4, 10)),
        index=generator.integers(0, 5, (4, 10)),
    )
    rest = ["--input", tmp_path / "x.npz", "-o", tmp_path / "y.npz", "--t-end", "60ms", "--json"]
    code, out, err = call(capsys, "run", net, *rest)
    content = json.loads(out)
    assert (code, err) == (0, "")
    assert content["schema"] == 1
    assert content["result"] == "success"
    with np.load(tmp_path / "y.npz") as arrays:
        time, index = arrays["output.time"], arrays["output.index"]
    assert np.isfinite(time).sum() == content["spikes"]["4"] > 0
    assert (np.diff(np.where(np.isfinite(time), time, 1.0), axis=1) >= 0).all()
    assert set(np.unique(index[np.isinf(time)])) <= {3}
    assert content["events_needed"] == max(content["spikes_needed"].values())
    # Without the end of a sample, a later one than that of the last event is assumed, with a note.
    code, out, err = call(capsys, "run", net, *rest[:4], "--force", "--json")
    assumed = json.loads(out)
    assert (code, assumed["t_end"] > 0.02) == (0, True)
    assert any("--t-end" in note for note in assumed["notes"])
    # An explicit budget is not increased.
    line = assert_cli_refused(capsys, "run", net, *rest[:6], "--force", "--max-spikes", "1", code=1)
    assert re.search(
        r"fires \d+ spikes, and the budget is 1 for each neuron: pass --max-spikes \d+ or more",
        line,
    )


def test_run_on_steps_is_run_on_events_at_their_times(net, tmp_path, capsys):
    """A raster, whose dt is told; several spikes in a step count."""
    raster = random_raster(1, (12, 3, 5), 0.15)
    raster[5, 0, 1] = 2
    np.savez(tmp_path / "x.npz", x=raster)
    times, indices = np.full((3, 60), np.inf), np.full((3, 60), 5)
    for sample in range(3):
        steps, channels = np.nonzero(raster[:, sample])
        count = raster[steps, sample, channels].astype(int)
        times[sample, : count.sum()] = np.repeat(steps * 2e-3, count)
        indices[sample, : count.sum()] = np.repeat(channels, count)
    np.savez(tmp_path / "events.npz", time=times, index=indices)
    for name, end in (("x", ["--dt", "2ms"]), ("events", ["--t-end", "24ms"])):
        rest = ["--input", tmp_path / f"{name}.npz", "-o", tmp_path / f"out_{name}.npz"]
        run_cli(capsys, "run", net, *rest, *end)
    with (
        np.load(tmp_path / "out_x.npz") as stepped_run,
        np.load(tmp_path / "out_events.npz") as event_run,
    ):
        assert sorted(stepped_run) == sorted(event_run)
        assert np.isfinite(stepped_run["output.time"]).any()
        for name in stepped_run:
            assert np.array_equal(stepped_run[name], event_run[name])


def test_run_refuses_inputs_that_do_not_fit(net, tmp_path, capsys):
    cases = {
        "x has 4 channels, but the network has 5": {"x": np.zeros((3, 2, 4))},
        "(time, batch, channels)": {"x": np.zeros((3, 5))},
        "only integers of at least 0": {"x": np.full((3, 2, 5), 0.5)},
        "Available: auto, spikes, current, graded": {"x": np.zeros((3, 2, 5))},
        "neither array 'x' nor": {"y": np.zeros(3)},
        "pass --dt": {"x": np.zeros((3, 2, 5))},
    }
    for message, arrays in cases.items():
        np.savez(tmp_path / "x.npz", **arrays)
        dt = [] if message == "pass --dt" else ["--dt", "1ms"]
        rest = ["--input", tmp_path / "x.npz", "-o", tmp_path / "y.npz", *dt]
        rest += ["--values", "spikes" if "integers" in message else "auto"]
        rest[-1] = "all" if "Available:" in message else rest[-1]
        assert_cli_refused(capsys, "run", net, *rest, says=message)
        assert not (tmp_path / "y.npz").exists()


@pytest.fixture
def task(tmp_path):
    generator = np.random.default_rng(0)
    x = generator.random((120, 5))
    y = np.argmax(x[:, :3], axis=1)
    np.savez(tmp_path / "task.npz", x_train=x[:80], y_train=y[:80], x_test=x[80:], y_test=y[80:])
    return tmp_path / "task.npz"


def test_train(net, task, tmp_path, capsys):
    out, options = tmp_path / "out.nir", ["--batch-size", "32"]
    argv = ["train", net, "-o", out, "--data", task, "--epochs", "2", *options]
    content, err = run_cli_json(capsys, *argv, "-v")
    assert content["schema"] == 1
    assert 0 <= content["test_accuracy"] <= 1
    checkpoint = {path.name for path in Path(content["checkpoint"]).iterdir()}
    assert checkpoint == {"before.npz", "best.npz", "history.jsonl", "last.npz"}
    epochs = [line.split()[1] for line in err.splitlines() if line.startswith("epoch")]
    assert epochs == ["0/2", "1/2", "2/2"]
    assert "held out for validation" in err
    history = json.loads(Path(content["history"]).read_text())
    assert [record["epoch"] for record in history["epochs"]] == [0, 1, 2]
    assert history["test_accuracy"] == content["test_accuracy"]
    assert "seconds" not in json.dumps(history)
    run_cli(capsys, "info", out)
    # Resuming gives the same bytes; without --resume, the existing checkpoint is refused.
    first = out.read_bytes()
    out.unlink()
    (tmp_path / "out.history.json").unlink()
    assert_cli_refused(capsys, *argv, "-q", says="last.npz exists: pass --resume to continue")
    run_cli(capsys, *argv, "-q", "--resume")
    assert out.read_bytes() == first
    # Quiet, repeated, forced, with the options in a file: the same bytes.
    config = f'data = "{task}"\nepochs = 2\nbatch_size = 7\n[weight-bumping]\nlabel = 1.0\n'
    (tmp_path / "run.toml").write_text(config)
    argv = ["train", net, "-o", out, "--config", tmp_path / "run.toml", *options, "-q", "--force"]
    text, err = run_cli(capsys, *argv)
    assert err == ""
    assert "test accuracy" in text
    assert out.read_bytes() == first


def test_values_outside_0_to_1_are_refused(net, task, tmp_path, capsys):
    arrays = {**np.load(task), "x_test": np.full((2, 5), 7.0), "y_test": np.zeros(2, int)}
    np.savez(task, **arrays)
    argv = ["train", net, "--data", task, "-o", tmp_path / "out.nir"]
    assert_cli_refused(capsys, *argv, says="has the value 7")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epochs = ", "is not TOML"),
        ("epoch = 3", "there is no option 'epoch': did you mean 'epochs'"),
        ("epochs = 2.5", "epochs is 2.5: pass an integer"),
        ("weight-bumping = 3", "weight-bumping is 3: write a table, [weight-bumping]"),
        (
            'data = "yinyang"\n[weight-bumping]\nlable = 1.0',
            "weight_bumping has no field 'lable': did you mean 'label'",
        ),
        (
            'data = "yinyang"\n[trainable]\nweight = {kind = "fre"}',
            "unknown kind 'fre': did you mean 'free'",
        ),
        (
            'data = "yinyang"\n[trainable]\nweight = {low = 0.0}',
            "trainable.weight: Free has no argument 'low': Available: shared, rate",
        ),
        ('data = "yinyang"\n[weight-bumping]\nhidden = nan', "weight_bumping.hidden is nan"),
        (
            'data = "yinyang"\n[loss-options]\ntemperature = nan',
            "temperature is nan: pass a number above 0",
        ),
        ('data = "yinyang"\ncopies = 3', "--copies has no effect on yinyang"),
    ],
)
def test_configurations_that_make_no_sense_are_refused(text, message, net, tmp_path, capsys):
    (tmp_path / "run.toml").write_text(text)
    assert_cli_refused(
        capsys,
        "train",
        net,
        "-o",
        tmp_path / "out.nir",
        "--config",
        tmp_path / "run.toml",
        code=2,
        says=message,
    )


READ, TWICE = "is read by the command", "choose different names"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("map net.nir -o new.json --svg net.nir", f"net.nir {READ}, and --svg would overwrite it"),
        ("map net.nir --verify map.json --svg map.json", f"map.json {READ}, and --svg"),
        (
            "map net.nir -o new.json --svg new.json",
            f"new.json is written by -o and by --svg: {TWICE}",
        ),
        ("map net.nir -o new.json --svg dep/../new.json", TWICE),
        ("map link.nir -o new.json --svg net.nir", READ),
        (
            "deploy net.nir dep/network.json -o dep",
            f"dep/network.json {READ}, and network.json in the folder of -o",
        ),
        ("deploy dep/common.py map.json -o dep", f"dep/common.py {READ}"),
        ("convert net.nir ./net.nir --to norse", READ),
        ("draw link.nir -o net.nir", READ),
        ("run net.nir --input task.npz -o task.npz", READ),
        ("train net.nir --config run.toml -o run.toml", f"run.toml {READ}, and -o"),
        ("train net.nir --config run.toml -o task.npz", f"task.npz {READ}, and -o"),
        (
            "train net.nir --config run.toml -o out.nir --plot task.npz",
            f"task.npz {READ}, and --plot",
        ),
        (
            "train q.history.json --data task.npz -o q.nir",
            f"q.history.json {READ}, and the history of -o",
        ),
        (
            "train q.mapping.json --data task.npz -o q.nir --engine loop",
            f"q.mapping.json {READ}, and the mapping of -o",
        ),
        ("train net.nir --data q.checkpoint/best.npz -o q.nir", f"q.checkpoint/best.npz {READ}"),
        (
            "train net.nir --data japanese-vowels --data-folder dep -o dep/JapaneseVowels_TEST.ts",
            READ,
        ),
        (
            "train net.nir --data task.npz -o q.nir --plot q.nir",
            f"q.nir is written by -o and by --plot: {TWICE}",
        ),
        (
            "train net.nir --data task.npz -o new.nir --plot new.history.json",
            "by the history of -o and by --plot",
        ),
        ("train net.nir --data task.npz -o new.checkpoint", "by -o and by the checkpoint of -o"),
        ("train net.nir --data arrays -o arrays/x_train.npy", f"arrays/x_train.npy {READ}, and -o"),
        (
            "train net.nir --data mnist --data-folder dep -o dep/train-images-idx3-ubyte",
            f"dep/train-images-idx3-ubyte {READ}, and -o",
        ),
        ("tune net.nir --config run.toml -o task.npz", f"task.npz {READ}, and -o"),
        ("chip inputs net.nir --data task.npz -o task.npz", f"task.npz {READ}, and -o"),
        ("chip inputs net.nir --data arrays -o arrays/x_test.npy", f"arrays/x_test.npy {READ}"),
        ("map net.nir -o slopes.json --slope slopes.json", f"slopes.json {READ}, and -o"),
        (
            "emulate net.nir map.json --input task.npz -o slopes.json --slope slopes.json",
            f"slopes.json {READ}, and -o",
        ),
        (
            "deploy net.nir map.json --slope dep/network.json -o dep",
            f"dep/network.json {READ}, and network.json in the folder of -o",
        ),
    ],
)
def test_not_even_force_writes_over_what_is_read_or_written(
    line, message, net, task, tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    for folder in ("dep", "q.checkpoint", "arrays"):
        Path(folder).mkdir()
    Path("run.toml").write_text('data = "task.npz"\nepochs = 1\n')
    run_cli(capsys, "map", net, "-o", "map.json")
    copies = {
        net: ("q.history.json", "q.mapping.json", "dep/common.py"),
        task: (
            "q.checkpoint/best.npz",
            "dep/JapaneseVowels_TEST.ts",
            "dep/train-images-idx3-ubyte",
            "arrays/x_train.npy",
            "arrays/x_test.npy",
            "slopes.json",
        ),
        Path("map.json"): ("dep/network.json",),
    }
    for source, copy_names in copies.items():
        for name in copy_names:
            Path(name).write_bytes(source.read_bytes())
    Path("link.nir").symlink_to("net.nir")

    def there():
        return {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}

    before = there()
    assert_cli_refused(capsys, *line.split(), "--force", code=2, says=message)
    assert there() == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("-o yinyang --epochs 0", "epochs is 0"),  # the name of a task is not an input file
        ("-o o.nir --lr 0", "error: --learning-rate is 0: pass a positive"),
        ("-o o.nir --noise weight:a", "--noise is 'weight:a': pass NAME:NUMBER pairs"),
    ],
)
def test_options_of_a_training_are_refused_at_once(
    options, message, net, tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    assert_cli_refused(capsys, "train", net, "--data", "yinyang", *options.split(), says=message)


def test_a_label_that_no_output_has_is_refused_at_once(net, task, tmp_path, capsys):
    arrays = dict(np.load(task))
    arrays["y_train"][3] = 10**7
    np.savez(task, **arrays)
    assert_cli_refused(
        capsys,
        "train",
        net,
        "--data",
        task,
        "-o",
        tmp_path / "out.nir",
        code=2,
        says="y_train has the label 10000000, and with 3 outputs labels range from 0 to 2",
    )


def test_a_run_that_stops_writes_its_best_epoch_and_exits_1(net, task, tmp_path, capsys):
    argv = ["train", net, "--data", task, "-o", tmp_path / "out.nir", "--epochs", "2", "-q"]
    argv += ["--batch-size", "32", "--lr", "1e38"]
    message = "lower the learning rate from 1e+38"
    line = assert_cli_refused(capsys, *argv, code=1, says=message)
    assert f") was written to {tmp_path / 'out.nir'}" in line
    assert (tmp_path / "out.nir").exists()
    assert (tmp_path / "out.history.json").exists()


@pytest.mark.parametrize("word", ["--inptu", "--inptu=x.npz"])
def test_a_misspelt_flag_is_named_where_the_right_one_is_missing(capsys, word):
    assert_cli_refused(
        capsys,
        "run",
        DEMO_NET,
        word,
        "-o",
        "o.npz",
        code=2,
        says="run has no option '--inptu': did you mean '--input'?",
    )


def test_doctor(capsys):
    content, _ = run_cli_json(capsys, "doctor")
    assert {"schema", "versions", "devices", "extras"} <= set(content)
    assert content["versions"]["jaxsnn-nir"] == jaxsnn.__version__
    run_cli(capsys, "doctor")


def test_doctor_names_the_packages_that_are_missing(monkeypatch):
    monkeypatch.setitem(doctor_command._EXTRAS, "plot", ("matplotlib", "not-there", "nor-this"))
    report = doctor_command.diagnose()
    assert report.missing["plot"] == ("not-there", "nor-this")
    assert "missing: pip install not-there nor-this; for pictures" in report.as_text()


@pytest.mark.parametrize("error", [AssertionError(), RuntimeError("unknown backend: 'cuda'")])
def test_a_device_that_is_not_there_is_no_bug(error, capsys, monkeypatch):
    """JAX ends in an AssertionError without words where there is no GPU."""

    def fail(*_, **__):
        raise error

    monkeypatch.setenv("JAX_PLATFORMS", "cuda")
    monkeypatch.setattr(jax, "devices", fail)
    code, out, _ = call(capsys, "doctor", "--json")
    (device,) = json.loads(out)["devices"]
    assert (code, device.startswith("none: JAX_PLATFORMS is 'cuda'")) == (0, True)
    monkeypatch.setattr("jaxsnn.nir.read", fail)
    line = assert_cli_refused(
        capsys,
        "info",
        DEMO_NET,
        code=2,
        says="JAX_PLATFORMS is 'cuda', which JAX cannot use on this machine",
    )
    assert "unset it, or install JAX for this device" in line


def test_with_json_an_error_is_an_object_too(capsys, tmp_path):
    out, err = run_cli(capsys, "info", tmp_path / "nothing.nir", "--json", code=2)
    message = f"{tmp_path / 'nothing.nir'}: no such file"
    facts = {"path": str(tmp_path / "nothing.nir")}
    error = {"message": message, "facts": facts, "fix": "", "node": "", "code": "file"}
    assert json.loads(out) == {"schema": 1, "ok": False, "error": error}
    assert err == f"jaxsnn: error: {message}\n"
    out = call(capsys, "info", "--json", "--what")[1]
    assert json.loads(out)["error"]["code"] == "usage"


def test_errors_do_not_go_to_stdout_where_stderr_is_closed(run_python):
    code = "import os, sys; os.close(2); sys.stderr = None\n"
    code += "from jaxsnn.commands.cli import main\nprint(main(['info', 'nothing.nir']))"
    assert run_python(code).stdout == "2\n"


def test_as_a_program():
    """The exit code reaches the shell, and nothing but the line is printed, in no colour."""
    ended = finished("info", "nothing.nir", code=2)
    assert ended.stdout == ""
    assert ended.stderr == "jaxsnn: error: nothing.nir: no such file\n"


# All features are documented.


def subparser(command=None):
    """The parser of all commands, or of a single one, and those of its commands by name, complete."""
    parser = build_parser(command)
    (choices,) = (
        action.choices
        for action in parser._actions
        if isinstance(action, argparse._SubParsersAction)
    )
    for name in choices if command is None else [command]:
        choices[name].complete()
    return parser, choices


def commands():
    return subparser()[1]


def test_each_command_is_one_file():
    assert tuple(commands()) == COMMANDS
    assert all(commands()[name].get_default("run") is command_module(name).run for name in COMMANDS)


#: Command with an option that nothing else names.
GREETING = """
from jaxsnn.commands.arguments import add_command
from jaxsnn.console import print_arriving
from jaxsnn.wording import Option

TIMES = Option(name="times", help="how often", metavar="N", default=1, convert=int)


def add(commands):
    add_command(commands, "greet", run, "greet everybody", TIMES)


def run(arguments):
    print_arriving("hello " * arguments.times)
    return 0
"""


def test_a_new_command_is_one_file(tmp_path, monkeypatch, capsys):
    (tmp_path / "greet_command.py").write_text(GREETING)
    monkeypatch.setattr(command_package, "__path__", [*command_package.__path__, str(tmp_path)])
    monkeypatch.setattr(cli, "COMMANDS", cli.command_names())
    assert call(capsys, "greet", "--times", "2")[1] == "hello hello \n"
    assert "greet" in call(capsys, "completion", "fish")[1]
    assert "--times" in call(capsys, "completion", "bash")[1]
    assert refused(capsys, "greet", "--tims", "2")[1].startswith(
        "jaxsnn: error: jaxsnn greet has no option '--tims': did you mean '--times'?"
    )


NEGATIVE = {None: "-1000:1000 -1e-3 -.5ms -x:zero -inf:inf -1", int: "-3", float: "-2e-3 -.5 -4"}


@pytest.mark.parametrize("command", COMMANDS)
def test_values_may_begin_with_a_minus_sign(command):
    """`--option VALUE` and `--option=VALUE` are the same, for every option and in any place."""
    parser, choices = subparser(command)
    actions = choices[command]._actions
    for action in actions:
        if not action.option_strings or action.nargs is not None or action.choices:
            continue
        if action.type not in NEGATIVE:  # the type itself refuses negative numbers
            continue
        required = [
            word
            for another in actions
            if another.required and another is not action
            for word in (*another.option_strings[-1:], (another.choices or ["word"])[0])
        ]
        values = NEGATIVE[action.type].split()
        for flag, value in itertools.product(action.option_strings, values):
            joined = [f"{flag}={value}" if flag.startswith("--") else flag + value]
            orders = [*required, *joined], [*required, flag, value], [flag, value, *required, "-q"]
            parsed = [vars(parser.parse_args([command, *argv])) for argv in orders]
            first, second, third = (options[action.dest] for options in parsed)
            assert first == second == third
            assert [options["quiet"] for options in parsed] == [False, False, True]


@pytest.mark.parametrize(
    "argv",
    [
        ["--input-range", "-q", "--to", "norse"],
        ["--input-range", "--to", "norse"],
        ["--to", "norse", "--input-range"],
        ["--to", "norse", "--input-range", "--", "-1:1"],
    ],
)
def test_an_option_is_no_value_of_the_option_before(argv, capsys, tmp_path):
    assert_cli_refused(
        capsys,
        "convert",
        DEMO_NET,
        tmp_path / "out.nir",
        *argv,
        code=2,
        says="--input-range: expected one argument",
    )


@pytest.mark.parametrize("form", [["--input-range", "-1000:1000"], ["--input-range=-1000:1000"]])
def test_an_input_range_below_zero_counts(form, capsys, tmp_path):
    argv = [DEMO_NET, *TOLD[:2], "--reset-delay", "false", tmp_path / "out.nir", "--to", "norse"]
    argv += [*form, "--reset", "subtract"]
    out, err = run_cli(capsys, "convert", *argv)
    assert "-1000 to 1000" in out + err


@pytest.mark.parametrize("text", ["5:-5", "nan:1", "1:nan", "-5", "-5:x", ":"])
def test_what_is_no_range_of_inputs_is_refused(text, capsys, tmp_path):
    argv = [DEMO_NET, *TOLD, tmp_path / "out.nir", "--to", "norse", "--input-range", text]
    assert_cli_refused(capsys, "convert", *argv, code=2, says="--input-range")
    assert not (tmp_path / "out.nir").exists()


def test_every_command_and_option_is_documented():
    page = (Path(__file__).parents[2] / "docs" / "cli.md").read_text()
    shared, *sections = page.split("\n## `jaxsnn ")
    by_command = {section.split("`")[0].split()[0]: section for section in sections}
    for name, parser in commands().items():
        assert name in by_command, f"docs/cli.md has no section on the command {name}"
        for action in parser._actions:
            for option in action.option_strings:
                documented = f"`{option}`" in by_command[name] or f"`{option}`" in shared
                assert documented, f"docs/cli.md does not say what {option} of {name} does"
    assert set(by_command) == set(commands()), "docs/cli.md describes a command that does not exist"


def test_every_option_has_a_help_text():
    for name, parser in commands().items():
        for action in parser._actions:
            assert action.help, (name, action.dest)


def test_every_public_name_has_a_docstring():
    for name in jaxsnn.__all__:
        value = getattr(jaxsnn, name)
        if inspect.isclass(value) or inspect.isroutine(value):
            assert inspect.getdoc(value), name
            assert not inspect.getdoc(value).startswith(f"{name}("), (
                f"{name} has only the docstring of a dataclass"
            )


def test_the_package_runs_as_the_command(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["jaxsnn", "--version"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_module("jaxsnn", run_name="__main__")
    assert ended.value.code == 0
    assert jaxsnn.__version__ in capsys.readouterr().out
