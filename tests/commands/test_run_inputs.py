"""What `run` and `simulate` must not pass over: late events, doubled or odd inputs, their own input
as output.
"""

import json

import jax.numpy as jnp
import numpy as np
import pytest

import jaxsnn
from jaxsnn.commands.cli import main
from jaxsnn.commands.run_command import run_file
from jaxsnn.errors import SimulationError, UsageError
from jaxsnn.nir import build
from tests.helpers.command_line import DEMO_NET, TOLD, call, run_cli
from tests.helpers.refusals import assert_refused

TIME, INDEX = np.array([[1e-3, 2e-3, 9e-3]]), np.array([[4, 0, 1]])


@pytest.fixture
def run(tmp_path, capsys):
    """Runs `jaxsnn run` on arrays: exit code, stderr, whether there is an output."""

    def run(*options, **arrays):
        np.savez(tmp_path / "in.npz", **arrays)
        files = ["--input", tmp_path / "in.npz", "-o", tmp_path / "out.npz"]
        code, _, err = call(capsys, "run", DEMO_NET, *TOLD, *files, *options)
        return code, err, (tmp_path / "out.npz").exists()

    return run


def test_events_after_the_end_are_counted(run):
    code, err, _ = run("--t-end", "5ms", time=TIME, index=INDEX)
    assert code == 0
    assert "1 events at or after --t-end 5 ms were left out" in err


@pytest.mark.parametrize("engine", ["event", "grid"])
def test_an_input_given_twice_is_refused(run, engine):
    code, err, written = run("--engine", engine, x=np.zeros((3, 1, 5)), time=TIME, index=INDEX)
    assert code == 2
    assert "given twice" in err
    assert not written


@pytest.mark.parametrize("engine", ["event", "grid"])
def test_events_without_an_axis_of_samples_are_one_sample(engine, tmp_path, capsys):
    graph = build.sequential(
        build.input(1), build.linear(1, weight=np.ones((1, 1))), build.li(tau="10ms"), dt="1ms"
    )
    jaxsnn.write(tmp_path / "net.nir", graph)
    np.savez(tmp_path / "in.npz", time=np.linspace(1e-3, 7e-3, 7), index=np.zeros(7, int))
    files = [str(tmp_path / name) for name in ("net.nir", "in.npz", "out.npz")]
    options = ["--dt", "1ms", "--t-end", "10ms", "--engine", engine, "--json"]
    code = main(["run", files[0], "--input", files[1], "-o", files[2], *options])
    out, err = capsys.readouterr()
    assert code == 0, err
    assert json.loads(out)["samples"] == 1


def test_a_command_does_not_write_over_what_it_reads(tmp_path, capsys):
    np.savez(tmp_path / "in.npz", time=TIME, index=INDEX)
    before = (tmp_path / "in.npz").read_bytes()
    path = str(tmp_path / "in.npz")
    assert (
        main(
            ["run", str(DEMO_NET), *TOLD, "--input", path, "-o", path, "--force", "--t-end", "5ms"]
        )
        == 2
    )
    assert "choose another name" in capsys.readouterr().err
    assert (tmp_path / "in.npz").read_bytes() == before


def small_network():
    layers = build.linear(1, weight=np.ones((1, 1))), build.cubalif(tau_mem="10ms", tau_syn="5ms")
    return jaxsnn.lower(build.sequential(build.input(1), *layers))


def test_channels_are_whole_numbers():
    assert_refused(
        lambda: jaxsnn.simulate(
            small_network(), jaxsnn.Events(time=jnp.array([1e-3]), index=jnp.array([0.5])), 0.1
        ),
        UsageError,
        r"channel 0\.5",
    )


def test_time_constants_are_positive():
    network = small_network()
    parameters = {
        **network.parameters,
        "2": {**network.parameters["2"], "tau_mem": jnp.array([-0.01])},
    }
    assert_refused(
        lambda: jaxsnn.simulate(
            network.with_parameters(parameters),
            jaxsnn.Events(time=jnp.array([1e-3]), index=jnp.array([0])),
            0.1,
        ),
        SimulationError,
        r"'2': tau_mem\[0\] is -0.01 and must be above 0",
    )


def test_a_readout_is_sampled_up_to_the_end_only(tmp_path):
    graph = build.sequential(
        build.input(1), build.linear(2, weight=np.ones((2, 1))), build.li(2, tau=0.01), dt=1e-3
    )
    np.savez(tmp_path / "in.npz", x=np.ones((10, 1, 1)))
    run_file(graph, tmp_path / "in.npz", tmp_path / "out.npz", t_end=4e-3)
    with np.load(tmp_path / "out.npz") as arrays:
        (name,) = (name for name in arrays if name.endswith("sample_time"))
        np.testing.assert_allclose(arrays[name], [0, 1e-3, 2e-3, 3e-3, 4e-3], atol=1e-9)


def test_text_is_no_time(run):
    code, err, written = run("--t-end", "5ms", time=TIME.astype(str), index=INDEX)
    assert (code, written) == (2, False)
    assert "time holds <U" in err
    assert "save numbers" in err


def test_numbers_of_spikes_for_which_there_is_no_room_are_refused(run):
    x = np.zeros((3, 1, 5))
    x[1, 0, 2] = 2.0**40
    code, err, written = run(x=x)
    assert (code, written) == (2, False)
    assert "stand for 1.09951e+12 spikes in one sample" in err
    assert "--values current or --values graded" in err


@pytest.mark.parametrize("engine", ["event", "grid"])
@pytest.mark.parametrize("values", ["current", "graded"])
def test_events_are_not_taken_for_values(run, engine, values):
    options = ["--values", values, "--t-end", "5ms", "--engine", engine, "--reset-delay", "true"]
    code, err, written = run(*options, time=TIME, index=INDEX)
    assert (code, written) == (2, False)
    assert f"--values {values} has no effect: input 'input' holds events, and no steps" in err
    assert run(*options[2:], "--values", "spikes", time=TIME, index=INDEX)[0] == 0


def test_membranes_are_sampled_up_to_an_end_behind_the_steps(tmp_path):
    graph = build.sequential(
        build.input(1), build.linear(1, weight=np.ones((1, 1))), build.li(tau="10ms"), dt="1ms"
    )
    x = np.ones((7, 1, 1))
    np.savez(tmp_path / "short.npz", x=x)
    np.savez(tmp_path / "long.npz", x=np.pad(x, ((0, 5), (0, 0), (0, 0))))
    for name, end in (("short", 12e-3), ("long", None), ("early", 4.5e-3)):
        source = tmp_path / f"{name.replace('early', 'short')}.npz"
        run_file(graph, source, tmp_path / f"{name}.out.npz", t_end=end)
    short, long, early = (
        dict(np.load(tmp_path / f"{name}.out.npz")) for name in ("short", "long", "early")
    )
    assert np.array_equal(short["output.sample_time"], long["output.sample_time"])
    assert np.allclose(short["output.y"], long["output.y"], atol=1e-7)
    assert np.array_equal(early["output.sample_time"], long["output.sample_time"][:5])


def test_arrays_that_nobody_reads_are_noted(run):
    for engine in ("event", "grid"):
        given = {"x": np.zeros((3, 1, 5)), "labels": np.zeros(1), "label": np.zeros(1)}
        code, err, _ = run("--engine", engine, "--force", "--reset-delay", "true", **given)
        assert code == 0, err
        assert "note: arrays that are not read: labels\n" in err


def test_json_has_the_notes_that_stderr_has_in_the_same_words(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    layers = build.linear(2, weight=np.ones((2, 1))), build.cubalif(tau_mem="20ms", tau_syn="10ms")
    jaxsnn.write("net.nir", build.sequential(build.input(1), *layers))
    np.savez("x.npz", x=np.full((5, 1, 1), 0.5), labels=np.zeros(1))
    np.savez("late.npz", time=[[1e-3, 9e-3]], index=[[0, 0]], label=[0])
    run_cli(capsys, "map", "net.nir", "-o", "m.json", "-q")
    late, end = ("--input", "late.npz", "--t-end", "5ms"), ("-o", "o.npz", "--force")
    lines = {
        ("run", "net.nir", "--input", "x.npz", "--dt", "1ms", *end): "with --values graded it is",
        ("plot", "net.nir", *late, "-o", "p.svg"): "1 events at or after --t-end 5 ms",
        ("emulate", "net.nir", "m.json", *late, *end): "1 events at or after --t-end 5 ms",
        ("compare", "net.nir", "o.npz", *late): "1 events at or after --t-end 5 ms",
    }
    for words, said in lines.items():
        out, err = run_cli(capsys, *words, "--json")
        notes = json.loads(out)["notes"]
        assert [f"jaxsnn: note: {note}" for note in notes] == err.splitlines()
        assert any(said in note for note in notes), notes
