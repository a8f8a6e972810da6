"""What `run` and `simulate` must not pass over: late events, doubled or odd inputs, their own input
as output.
"""

from functools import partial

import jax.numpy as jnp
import numpy as np
import pytest

import jaxsnn
from jaxsnn.commands.run_command import run_file
from jaxsnn.errors import SimulationError, UsageError
from jaxsnn.nir import build, write
from tests.helpers.command_line import DEMO_NET, TOLD, assert_cli_refused, run_cli, run_cli_json
from tests.helpers.refusals import assert_refused
from tests.helpers.small_task import small_net

TIME, INDEX = np.array([[1e-3, 2e-3, 9e-3]]), np.array([[4, 0, 1]])


@pytest.fixture
def run(tmp_path, capsys):
    """Runs `jaxsnn run` on arrays: stderr of a run that must end with a code, and writes or does not."""

    def run(*options, code=0, **arrays):
        np.savez(tmp_path / "in.npz", **arrays)
        files = ["--input", tmp_path / "in.npz", "-o", tmp_path / "out.npz"]
        _, err = run_cli(capsys, "run", DEMO_NET, *TOLD, *files, *options, code=code)
        assert (tmp_path / "out.npz").exists() == (code == 0)
        return err

    return run


def test_events_after_the_end_are_counted(run):
    err = run("--t-end", "5ms", time=TIME, index=INDEX)
    assert "events at or after --t-end 5 ms that are ignored: 1" in err


def many_spikes():
    x = np.zeros((3, 1, 5))
    x[1, 0, 2] = 2.0**40
    return x


EVENTS = {"time": TIME, "index": INDEX}
#: Options and arrays of a run, and words of its refusal.
REFUSED = {
    "text is no time": (
        ["--t-end", "5ms"], {"time": TIME.astype(str), "index": INDEX},
        ("time has dtype <U", "save numbers"),
    ),
    "no room for so many spikes": (
        [], {"x": many_spikes()},
        ("amount to 1.09951e+12 spikes in one sample", "--values current or --values graded"),
    ),
    **{
        f"an input given twice, {engine}": (
            ["--engine", engine], {"x": np.zeros((3, 1, 5)), **EVENTS},
            ("input 'input' is specified twice, as 'x' and as",),
        )
        for engine in ("event", "grid")
    },
    **{
        f"events as {values} values, {engine}": (
            ["--t-end", "5ms", "--engine", engine, "--reset-delay", "true", "--values", values], EVENTS,
            (f"--values {values} has no effect: input 'input' consists of events and is not time-stepped",),
        )
        for engine in ("event", "grid")
        for values in ("current", "graded")
    },
}  # fmt: skip


@pytest.mark.parametrize(("options", "arrays", "words"), REFUSED.values(), ids=REFUSED)
def test_inputs_that_a_run_must_not_pass_over_are_refused(run, options, arrays, words):
    err = run(*options, code=2, **arrays)
    assert [word for word in words if word not in err] == []


@pytest.mark.parametrize("engine", ["event", "grid"])
def test_events_may_be_called_spikes(run, engine):
    options = ["--t-end", "5ms", "--engine", engine, "--reset-delay", "true", "--values", "spikes"]
    run(*options, **EVENTS)


def readout():
    layers = build.linear(1, weight=np.ones((1, 1))), build.li(tau="10ms")
    return build.sequential(build.input(1), *layers, dt="1ms")


@pytest.mark.parametrize("engine", ["event", "grid"])
def test_events_without_an_axis_of_samples_are_one_sample(engine, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    jaxsnn.write("net.nir", readout())
    np.savez("in.npz", time=np.linspace(1e-3, 7e-3, 7), index=np.zeros(7, int))
    line = f"run net.nir --input in.npz -o out.npz --dt 1ms --t-end 10ms --engine {engine}"
    content, _ = run_cli_json(capsys, *line.split())
    assert content["samples"] == 1


def test_a_command_does_not_write_over_what_it_reads(tmp_path, capsys):
    path = tmp_path / "in.npz"
    np.savez(path, **EVENTS)
    before = path.read_bytes()
    argv = ["run", DEMO_NET, *TOLD, "--input", path, "-o", path, "--force", "--t-end", "5ms"]
    assert_cli_refused(capsys, *argv, code=2, says="choose another name")
    assert path.read_bytes() == before


def small_network():
    layers = build.linear(1, weight=np.ones((1, 1))), build.cubalif(tau_mem="10ms", tau_syn="5ms")
    return jaxsnn.lower(build.sequential(build.input(1), *layers))


def test_channels_are_whole_numbers():
    events = jaxsnn.Events(time=jnp.array([1e-3]), index=jnp.array([0.5]))
    run = partial(jaxsnn.simulate, small_network(), events, 0.1)
    assert_refused(run, UsageError, r"channel 0\.5")


def test_time_constants_are_positive():
    network = small_network()
    neurons = {**network.parameters["2"], "tau_mem": jnp.array([-0.01])}
    network = network.with_parameters({**network.parameters, "2": neurons})
    events = jaxsnn.Events(time=jnp.array([1e-3]), index=jnp.array([0]))
    message = r"'2': tau_mem\[0\] is -0.01 and must be above 0"
    assert_refused(partial(jaxsnn.simulate, network, events, 0.1), SimulationError, message)


def test_a_readout_is_sampled_up_to_the_end_only(tmp_path):
    graph = build.sequential(
        build.input(1), build.linear(2, weight=np.ones((2, 1))), build.li(2, tau=0.01), dt=1e-3
    )
    np.savez(tmp_path / "in.npz", x=np.ones((10, 1, 1)))
    run_file(graph, tmp_path / "in.npz", tmp_path / "out.npz", t_end=4e-3)
    with np.load(tmp_path / "out.npz") as arrays:
        (name,) = (name for name in arrays if name.endswith("sample_time"))
        np.testing.assert_allclose(arrays[name], [0, 1e-3, 2e-3, 3e-3, 4e-3], atol=1e-9)


def test_membranes_are_sampled_up_to_an_end_behind_the_steps(tmp_path):
    x = np.ones((7, 1, 1))
    np.savez(tmp_path / "short.npz", x=x)
    np.savez(tmp_path / "long.npz", x=np.pad(x, ((0, 5), (0, 0), (0, 0))))

    def sampled(name, t_end):
        run_file(readout(), tmp_path / f"{name}.npz", tmp_path / "out.npz", t_end=t_end, force=True)
        return dict(np.load(tmp_path / "out.npz"))

    short, long, early = sampled("short", 12e-3), sampled("long", None), sampled("short", 4.5e-3)
    assert np.array_equal(short["output.sample_time"], long["output.sample_time"])
    assert np.allclose(short["output.y"], long["output.y"], atol=1e-7)
    assert np.array_equal(early["output.sample_time"], long["output.sample_time"][:5])


@pytest.mark.parametrize("engine", ["event", "grid"])
def test_arrays_that_nobody_reads_are_noted(run, engine):
    arrays = {"x": np.zeros((3, 1, 5)), "labels": np.zeros(1), "label": np.zeros(1)}
    err = run("--engine", engine, "--reset-delay", "true", **arrays)
    assert "note: arrays with unknown names are ignored: labels\n" in err


def test_json_has_the_notes_that_stderr_has_in_the_same_words(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    layers = build.linear(2, weight=np.ones((2, 1))), build.cubalif(tau_mem="20ms", tau_syn="10ms")
    jaxsnn.write("net.nir", build.sequential(build.input(1), *layers))
    np.savez("x.npz", x=np.full((5, 1, 1), 0.5), labels=np.zeros(1))
    np.savez("late.npz", time=[[1e-3, 9e-3]], index=[[0, 0]], label=[0])
    run_cli(capsys, "map", "net.nir", "-o", "m.json", "-q")
    late, end = ("--input", "late.npz", "--t-end", "5ms"), ("-o", "o.npz", "--force")
    late_events = "events at or after --t-end 5 ms that are ignored: 1 "
    lines = {
        ("run", "net.nir", "--input", "x.npz", "--dt", "1ms", *end): "pass --values graded to use",
        ("plot", "net.nir", *late, "-o", "p.svg"): late_events,
        ("emulate", "net.nir", "m.json", *late, *end): late_events,
        ("compare", "net.nir", "o.npz", *late): late_events,
    }
    for words, text in lines.items():
        content, err = run_cli_json(capsys, *words)
        notes = content["notes"]
        assert [f"jaxsnn: note: {note}" for note in notes] == err.splitlines()
        assert any(text in note for note in notes), notes


def test_the_metrics_of_neurobench_are_in_the_output_and_in_the_report(tmp_path, capsys):
    write(tmp_path / "net.nir", small_net())
    np.savez(tmp_path / "x.npz", time=[[0.0, 2e-3, 9e-3]], index=[[0, 1, 4]])
    command = ["run", tmp_path / "net.nir", "--input", tmp_path / "x.npz", "--t-end", "40ms"]
    command += ["-o", tmp_path / "y.npz", "--force"]
    without, _ = run_cli_json(capsys, *command)
    assert without["neurobench"] is None
    unknown, _ = run_cli_json(capsys, *command, "--neurobench")
    assert unknown["neurobench"]["synaptic_operations"]["dense"] is None
    assert any("--dt" in note for note in unknown["notes"])
    page = tmp_path / "run.html"
    content, err = run_cli_json(capsys, *command, "--dt", "1ms", "--report", page)
    assert f"report: {page}" in err
    metrics, hidden = content["neurobench"], content["spikes"]["2"]
    assert metrics["synaptic_operations"] == {
        "effective_acs": 3 * 20 + 3 * hidden,
        "effective_macs": 0,
        "dense": 40 * (5 * 20 + 20 * 3),
    }
    text = page.read_text()
    assert f">{3 * 20 + 3 * hidden}<" in text
    assert text.count("<figure>") == 2
