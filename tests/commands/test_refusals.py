"""What users pass by mistake is refused in one line that says what is wrong."""

import json
import re
import warnings
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxsnn
from jaxsnn.commands.run_command import run_file
from jaxsnn.errors import FileError, LoweringError, UsageError
from jaxsnn.files.array_files import load_arrays
from jaxsnn.nir import build, write
from jaxsnn.simulation.recordings import inputs_of
from jaxsnn.train.data.labelled_files import load_splits
from tests.helpers.command_line import (
    DEMO_NET,
    TOLD,
    assert_cli_refused,
    call,
    refused,
    run_cli,
    run_cli_json,
)
from tests.helpers.refusals import assert_refused
from tests.helpers.small_task import small_net


def graph_of(neurons, dialect, **options):
    return build.sequential(
        build.input(2), build.linear(3), neurons, seed=0, dialect=dialect, **options
    )


@pytest.fixture
def cuba():
    return graph_of(build.cubalif(tau_mem=10e-3, tau_syn=5e-3), "jaxsnn")


@pytest.fixture
def leaky():
    """snnTorch ties tau and r: r = tau/dt, dt = 0.1 ms."""
    neurons = build.lif(tau=np.array([1e-3, 2e-3, 4e-3]), r=np.array([10.0, 20.0, 40.0]))
    return graph_of(neurons, "snntorch", reset="zero", reset_delay=False)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: {name: p[name] for name in p if name != "1"}, "the parameters lack node '1'"),
        (lambda p: {**p, "hidden": {}}, "the network has no node 'hidden'"),
        (
            lambda p: {**p, "2": {"tau_mem": p["2"]["tau_mem"]}},
            "node '2': the parameters lack 'tau_syn'",
        ),
        (
            lambda p: {**p, "2": {**p["2"], "tau_sin": jnp.ones(3)}},
            "has no parameter 'tau_sin': did you mean 'tau_syn'",
        ),
        (
            lambda p: {**p, "1": {"weight": jnp.ones((2, 3))}},
            r"weight has shape \(2, 3\): use shape \(3, 2\)",
        ),
    ],
)
def test_parameters_that_do_not_fit_the_network(cuba, change, message):
    network = jaxsnn.lower(cuba)
    parameters = change(dict(network.parameters))
    assert_refused(lambda: network.with_parameters(parameters), UsageError, message)


def test_traced_parameters_that_fit(cuba):
    network = jaxsnn.lower(cuba)
    same = jax.jit(lambda p: network.with_parameters(p).parameters)(network.parameters)
    assert jax.tree.structure(same) == jax.tree.structure(network.parameters)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.full((3, 1, 2), np.nan), r"x has nan at \(0, 0, 0\)"),
        (np.zeros((0, 1, 2)), r"x is empty, its shape is \(0, 1, 2\)"),
        (np.zeros((4, 0, 2)), r"x is empty, its shape is \(4, 0, 2\)"),
        (np.full((3, 1, 2), "spike"), "x has dtype <U5: save numbers"),
    ],
)
def test_inputs_that_cannot_be_played(cuba, x, message):
    network = jaxsnn.lower(cuba)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_refused(lambda: inputs_of({"x": x}, network), UsageError, message)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("text.npz", "is not an .npz file of arrays: save named arrays with numpy.savez"),
        ("one.npz", "contains a single array without a name: save named arrays with numpy.savez"),
        ("objects.npz", "array 'x' contains Python objects: save numbers"),
    ],
)
def test_files_that_are_no_arrays(name, message, tmp_path):
    path = tmp_path / name
    if name == "text.npz":
        path.write_text("x = 1\n")
    elif name == "one.npz":
        with open(path, "wb") as file:
            np.save(file, np.ones(3))
    else:
        np.savez(path, x=np.array([{}, []], dtype=object))
    with pytest.raises(FileError, match=message) as caught:
        load_arrays(path)
    assert "pickle" not in str(caught.value)


def with_numbers(network, factor, *changed_names):
    """The network with some numbers of its neurons multiplied."""
    numbers = network.parameters["2"]
    changed = {name: factor * value for name, value in numbers.items() if name in changed_names}
    return network.with_parameters({**network.parameters, "2": {**numbers, **changed}})


@pytest.mark.parametrize("name", ["tau", "r"])
def test_one_of_two_tied_numbers_is_not_written_alone(leaky, name):
    """snnTorch's importer plays r; a tau that went another way would tell everybody else something
    else.
    """
    changed = with_numbers(jaxsnn.lower(leaky), 1.5, name)
    message = r"node '2' has tau = .* and r = .*: change both parameters so that tau/r stays"
    assert_refused(lambda: jaxsnn.update_graph(leaky, changed), LoweringError, message)


@pytest.mark.parametrize("factor", [1.2, 0.5])
def test_numbers_that_told_of_no_step_do_not_begin_to_tell_of_another(factor):
    """SpikingJelly's importer takes r = 1 and r = tau/dt, and nothing else."""
    graph = graph_of(build.lif(tau=2.2e-4, r=1.0), "spikingjelly", reset="zero", dt=1e-4)
    network = jaxsnn.lower(graph)
    changed = with_numbers(network, factor, "r")
    message = r"node '2' has tau = 0\.00022 and r = .*, but the file has a time step of 0\.0001"
    assert_refused(lambda: jaxsnn.update_graph(graph, changed), LoweringError, message)
    assert jaxsnn.update_graph(graph, network).nodes["2"].value("r") is not None


def test_tied_numbers_that_changed_alike_are_written(leaky):
    changed = with_numbers(jaxsnn.lower(leaky), 1.5, "tau", "r")
    trained = jaxsnn.update_graph(leaky, changed)
    np.testing.assert_allclose(trained.nodes["2"].value("r"), [15.0, 30.0, 60.0])
    tau = jaxsnn.lower(trained).parameters["2"]["tau"]
    np.testing.assert_allclose(tau, changed.parameters["2"]["tau"])


@pytest.mark.parametrize("delay", [True, False])
def test_an_option_without_effect_is_noted(delay, tmp_path):
    neurons = build.cubalif(tau_mem=1e-3, tau_syn=5e-4, r=10.0, w_in=5.0)
    graph = graph_of(neurons, "snntorch", reset="zero", reset_delay=delay)
    np.savez(tmp_path / "x.npz", x=np.ones((5, 1, 2)))
    notes = run_file(graph, tmp_path / "x.npz", tmp_path / "y.npz").notes
    codes = ("continuous-time", "several-spikes-per-step")
    rest = [note for note in notes if getattr(note, "code", "") not in codes]
    assert ["reset_delay has no effect for 2" in note for note in rest] == [True] * delay


# Invalid numbers and names, and options without effect


RUN = "run net.nir --input x.npz -o out.npz"
TRAIN = "train net.nir --data task.npz -o out.nir --epochs 1"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            f"{RUN} --t-end 1s --max-spikes 99999999999999999999",
            r"--max-spikes is 1e\+20 .* pass at most 67108864",
        ),
        (f"{RUN} --t-end 1e300", r"--t-end is 1e\+300 s, which is inf s in float32"),
        (f"{RUN} --t-end 1e-300", "--t-end is 1e-300 s, which is 0 s in float32"),
        (
            f"{RUN} --reset 2:zero --reset 2:subtract",
            "error: --reset of node '2' is specified twice, as 'zero' and",
        ),
        (f"{RUN} --t-end 5ms --reset=zero --reset=none", "--reset is specified twice"),
        (f"{RUN} --t-end 5ms --reset 9:zero", "error: --reset refers to node '9'"),
        (f"run net.nir --input x.npz -o {'a' * 300}", "cannot be written .File name too long"),
        (f"info {'a' * 300}", "cannot be read .File name too long"),
        (f"{TRAIN} --devices 99999999999999999999", "devices is 9+: pass at most 65536"),
        (f"{TRAIN} --processes 99999999999999999999", "processes is 9+: pass at most 65536"),
        (f"{TRAIN} --plot p.gif", "'p.gif': the ending '.gif' is not a supported picture format"),
        (f"{TRAIN} --noise weight", "--noise is 'weight': pass NAME:NUMBER pairs"),
        (f"{TRAIN} --noise 0.1", "--noise is '0.1': pass NAME:NUMBER pairs"),
        ("map net.nir -o m.json --svg m.png", "a floorplan is an .svg file, not 'm.png'"),
        ("map net.nir -o m.json --percentile 50", "--percentile 50 has no effect without --scale"),
        ("map net.nir -o m.json --synapses-per-weight 99999999999999999999", "at most 520"),
        ("map net.nir -o m.json --slope table.json", "unknown key 'slop': did you mean 'slope'"),
        (
            "emulate net.nir m.json --input x.npz -o out.npz --ideal --spread calibrated",
            "an ideal chip has no spread",
        ),
        (
            "chip inputs net.nir --data task.npz -o out.npz --samples 0",
            "--samples is 0: pass an integer of at least",
        ),
        (
            "chip inputs net.nir --data task.npz -o out.npz --samples=-3",
            "--samples is -3: pass an integer of at",
        ),
        (f"{TRAIN} --calibrate 2", "--calibrate is 2: pass a number between 0 and 1"),
        (f"{TRAIN} --copies 3", "--copies has no effect on task.npz: leave it out"),
        (
            f"{TRAIN} --trainabel w",
            "train has no option '--trainabel': did you mean '--trainable'?",
        ),
        ("train net.nir --data yinyang --data-folder d -o o.nir", "--data-folder has no effect on"),
        (f"{TRAIN} --loss max", "pass --loss ttfs, mse, count or exp-sum, or --readout 4"),
        (
            "tune net.nir --data task.npz -o out.nir",
            "the time step of the source framework is not specified: pass --dt",
        ),
    ],
)
def test_what_a_number_a_name_or_an_option_cannot_be(line, message, task, capsys):
    before = {path.name for path in task.parent.iterdir()}
    _, error = refused(capsys, *line.split())
    assert re.search(message, error), error
    assert {path.name for path in task.parent.iterdir()} == before


@pytest.fixture
def task(tmp_path, monkeypatch):
    """Data, in the working directory with a file, its inputs and a mapping's name that is only named."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    write(tmp_path / "net.nir", small_net(12, second=(0.4, 0.3)))
    arrays = {"x_train": rng.uniform(size=(20, 5)), "y_train": np.arange(20) % 3}
    arrays |= {"x_test": rng.uniform(size=(6, 5)), "y_test": np.arange(6) % 3}
    np.savez(tmp_path / "task.npz", **arrays, x_valid=arrays["x_test"])
    np.savez(tmp_path / "x.npz", **{"input.time": [[0.001, 0.002]], "input.index": [[0, 1]]})
    (tmp_path / "table.json").write_text('[{"slop": 1.0}]')
    return tmp_path / "task.npz"


def test_a_limit_of_reading_beyond_what_the_system_counts_is_none(task, capsys):
    net = task.parent / "net.nir"
    for option in ("--max-bytes=99999999999999999999999", "--read-timeout=1e300"):
        code, out, err = call(capsys, "info", net, option)
        assert (code, err) == (0, ""), err
        assert "Linear" in out


def test_arrays_that_nobody_reads_are_named(task):
    _, notes = load_splits(str(task))
    assert f"{task} contains arrays that are not used: x_valid" in notes


def test_a_file_of_a_folder_that_is_no_array_is_named(task):
    folder = task.parent / "arrays"
    folder.mkdir()
    (folder / "x_train.npy").write_bytes(b"no array")
    message = r"arrays/x_train\.npy is not an array of numbers"
    assert_refused(lambda: load_splits(str(folder)), FileError, message)


def test_more_devices_than_samples_are_refused(task, capsys):
    assert_cli_refused(capsys, *TRAIN.split(), "--devices", "99", code=2, says="devices is 99")


def test_a_weight_beyond_single_precision_is_said_with_its_number(cuba):
    node = cuba.nodes["1"]
    weight = np.array(node.weight)
    weight[0, 0] = 1e60
    changed = cuba.with_nodes([node.replace(weight=weight)])
    message = r"'1': values of weight that overflow float32 \(maximum 3\.4e\+38\): 1 of 6, the first is 1e\+60"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_refused(lambda: jaxsnn.lower(changed), LoweringError, message)


def test_a_way_out_does_not_lead_to_where_one_is():
    neurons = build.cubalif(tau_mem=np.array([10e-3, np.inf, 10e-3]), tau_syn=5e-3)
    network = jaxsnn.lower(graph_of(neurons, "jaxsnn"))
    x = np.zeros((4, 1, 2))
    with pytest.raises(LoweringError) as caught:
        jaxsnn.simulate(network, x, engine=jaxsnn.TimeStepped(dt=1e-3))
    assert str(caught.value).endswith(": use a finite time constant")


def test_the_slope_of_a_mapping_is_a_number_of_json(tmp_path, capsys):
    options = "--dialect", "snntorch", "--reset", "zero"
    content, _ = run_cli_json(capsys, "map", DEMO_NET, "-o", tmp_path / "m.json", *options)
    assert content["fits"]


def test_a_chip_without_synapses_is_silent(task, capsys):
    _, err = run_cli(capsys, "map", "net.nir", "-o", "m.json", "--slope", "1000")
    assert "all 60 weights round to 0, so that no spike reaches it" in err
    options = "--input", "x.npz", "--slope", "1000", "-o", "out.npz", "--t-end", "20ms", "--json"
    out, _ = run_cli(capsys, "emulate", "net.nir", "m.json", *options)
    assert set(json.loads(out)["spikes"].values()) == {0}


def test_a_recording_is_compared_until_the_end_alone(task, capsys):
    np.savez("x.npz", **{"input.time": [[0.001, 0.002, 0.03]], "input.index": [[0, 1, 2]]})
    late = {"2.time": [[0.01, 0.03]], "2.index": [[0, 1]], "4.time": [[np.inf]], "4.index": [[0]]}
    np.savez("recorded.npz", **late)
    options = "--input", "x.npz", "--t-end", "20ms"
    out, err = run_cli(capsys, "compare", "net.nir", "recorded.npz", *options)
    assert "1 recorded" in out
    assert "events at or after --t-end 20 ms that are ignored: 1" in err


def test_check_takes_the_numbers_that_lower_takes(cuba, x64):
    node = cuba.nodes["1"]
    changed = cuba.with_nodes([node.replace(weight=1e60 * np.array(node.weight))])
    assert not jaxsnn.check(changed, "event").problems
    assert jaxsnn.lower(changed).dtype == np.float64


def test_a_threshold_that_nothing_reaches_is_no_number_to_refuse():
    network = jaxsnn.lower(graph_of(build.lif(tau=1e-3, r=10.0, v_threshold=1e300), "jaxsnn"))
    x = np.ones((4, 1, 2))
    steps = jaxsnn.simulate(network, x, engine=jaxsnn.TimeStepped(dt=1e-4))
    assert not np.asarray(steps.output()).any()


def test_a_membrane_that_leaves_does_not_go_into_the_loop_of_its_spikes():
    nodes = {
        "input": build.input(2),
        "w": build.linear(weight=np.ones((3, 2))),
        "n": build.lif(3, tau=1e-3, r=10.0),
        "back": build.linear(weight=np.eye(3)),
        "output": build.output(),
    }
    edges = [("input", "w", "n", "output"), ("n", "back", "n")]
    options = {"dialect": "snntorch", "readout": ("n",), "reset_delay": {"n": True}}
    graph, x = build.network(nodes, edges, **options), np.ones((4, 1, 2))
    message = r"'n' \(LIF\) is declared as a readout, but its spikes drive"
    run = partial(jaxsnn.simulate, graph, x, engine=jaxsnn.TimeStepped())
    assert_refused(run, LoweringError, message)


@pytest.mark.parametrize(
    ("flag", "value"),
    [("signs", "free"), ("seed", "3"), ("runs", "2"), ("time-limit", "5s"), ("placer", "spread")],
)
def test_a_mapping_is_checked_without_a_search(flag, value, tmp_path, capsys):
    assert_cli_refused(
        capsys,
        "map",
        DEMO_NET,
        *TOLD,
        "--verify",
        tmp_path / "m.json",
        f"--{flag}",
        value,
        code=2,
        says=f"--{flag} has no effect with --verify, which checks a mapping and does not search for one: "
        f"remove --{flag}",
    )


@pytest.mark.parametrize("flag", ["--chip-seed", "--trial"])
def test_an_ideal_chip_draws_nothing(flag, tmp_path, capsys):
    argv = ["emulate", DEMO_NET, tmp_path / "m.json", "--input", tmp_path / "x.npz"]
    assert_cli_refused(
        capsys,
        *argv,
        "-o",
        tmp_path / "y.npz",
        "--ideal",
        flag,
        "3",
        code=2,
        says=f"an ideal chip has no noise: remove --ideal or {flag}",
    )


@pytest.mark.parametrize("command", ["run", "plot", "compare", "fidelity"])
def test_what_advice_names_is_an_option_of_the_command(command, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    neuron = build.lif(tau=1e-3, r=10.0, v_threshold=0.5)
    options = {"dialect": "snntorch", "reset": "zero", "reset_delay": False}
    weight = np.ones((1, 1))
    write(
        "net.nir", build.sequential(build.input(1), build.linear(weight=weight), neuron, **options)
    )
    np.savez("x.npz", x=np.ones((5, 1, 1)))
    np.savez("recorded.npz", **{"2.time": [[1e-4]], "2.index": [[0]]})
    files = {"compare": ["recorded.npz"], "run": ["-o", "o.npz"], "plot": ["-o", "p.svg"]}
    options = "--dialect", "snntorch", "--reset", "zero", "--reset-delay", "false"
    words = (
        command,
        "net.nir",
        *files.get(command, []),
        *options,
        "--input",
        "x.npz",
        "--max-spikes",
    )
    line = assert_cli_refused(capsys, *words, "2", code=1, says="a neuron of '2' fires 9 spikes")
    assert "pass --max-spikes 9 or more, or --max-spikes auto" in line
    run_cli(capsys, *words, "9")


def test_standard_output_is_no_file_to_write(task, capsys):
    argv = "run", "net.nir", "--input", "x.npz", "--t-end", "5ms", "-o"
    assert_cli_refused(
        capsys, *argv, "-", says="-o is '-', but files cannot be written to standard output"
    )
    assert not (task.parent / "-").exists()
    run_cli(capsys, *argv, "./-")
    assert (task.parent / "-").exists()


@pytest.mark.parametrize("option", ["--dt=1ms", "--dialect=norse", "--reset=2:none"])
@pytest.mark.parametrize("command", ["matrix", "train --config run.toml -o o.nir"])
def test_what_is_said_of_a_file_needs_one(option, command, task, capsys):
    layers = 'layers = [{ type = "Linear", size = 3 }, { type = "CubaLIF" }]'
    (task.parent / "run.toml").write_text(f'data = "task.npz"\n[network]\ninput = 5\n{layers}\n')
    message = f"{option.partition('=')[0]} has no effect without FILE"
    assert_cli_refused(capsys, *command.split(), option, code=2, says=message)


def test_an_end_that_leaves_no_room_for_membranes_is_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    layers = build.linear(weight=np.ones((1, 1))), build.li(tau="10ms")
    write("net.nir", build.sequential(build.input(1), *layers, dt="1ms"))
    np.savez("x.npz", x=np.ones((3, 1, 1)))
    argv = "run", "net.nir", "--input", "x.npz", "-o", "y.npz", "--dt", "1ms", "--t-end"
    line = assert_cli_refused(
        capsys, *argv, "1e200", says="--t-end is 1e+200 s: membrane potentials"
    )
    assert " at 1e+203 time steps of 0.001 s " in line
    run_cli(capsys, *argv, "9ms")


def test_of_several_outputs_the_configuration_names_the_one_that_answers(task, capsys):
    net = jaxsnn.read("net.nir")
    nodes = {name: build.linear(weight=np.array(net.nodes[name].value("weight"))) for name in "13"}
    nodes |= dict.fromkeys("24", build.cubalif(tau_mem="20ms", tau_syn="10ms"))
    nodes |= {"in": build.input(5), "hidden": build.output(12), "answer": build.output(3)}
    write("two.nir", build.network(nodes, [("in", "1", "2", "hidden"), ("2", "3", "4", "answer")]))
    for name, population in (("wrong", '["4"]'), ("right", '"4"')):
        (task.parent / f"{name}.toml").write_text(f"[loss-options]\npopulation = {population}\n")
    options = "--data", "task.npz", "--epochs", "1", "--calibrate", "0.5"
    two = "train", "two.nir", "-o", "out.nir", *options
    assert "the loss reads '4', the last output" in call(capsys, *two)[2]
    by_default = jaxsnn.read("out.nir").nodes["3"].value("weight")
    two = (*two, "--force")
    assert_cli_refused(capsys, *two, "--config", "wrong.toml", says="is not a population")
    run_cli(capsys, *two, "--config", "right.toml")
    run_cli(capsys, "train", "net.nir", "-o", "alone.nir", *options)
    for name in ("out", "alone"):
        assert np.array_equal(jaxsnn.read(f"{name}.nir").nodes["3"].value("weight"), by_default)


@pytest.mark.parametrize(
    ("line", "facts"),
    [
        ("map net.nir -o m.json --svg m.png", {"path": "m.png"}),
        ("plot net.nir -o p.png --kind pie", {"kind": "pie"}),
        (f"{RUN} --engine slow", {"engine": "slow"}),
        (f"{TRAIN} --noise 0.1", {"option": "--noise", "value": "0.1"}),
        ("plot net.nir -o p.png --kind graph --sample 1", {"kind": "graph"}),
    ],
)
def test_json_of_a_refusal_has_its_facts(line, facts, task, monkeypatch, capsys):
    monkeypatch.chdir(task.parent)
    _, out, _ = call(capsys, *line.split(), "--json")
    assert json.loads(out)["error"]["facts"] == facts
