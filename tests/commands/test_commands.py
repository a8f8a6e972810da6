"""The commands on what a file means: check, draw, convert, verify, fidelity, and run on the grid."""

import json

import nir
import numpy as np
import pytest

from jaxsnn.nir import build, read, write
from jaxsnn.nir.io.recorded_data import event_data, graph_data, gridded_data, write_data
from jaxsnn.simulation.fidelity import compared, fidelity
from jaxsnn.simulation.recordings import to_events
from tests.helpers.command_line import assert_cli_refused, call, run_cli, run_cli_json
from tests.helpers.zoo import FACTS, options_of


@pytest.fixture
def case(zoo, recordings, tmp_path):
    """`case(name)`: a file of the zoo, what it does not say as options, and its recording as a
    file.
    """

    def load(name):
        x, y = recordings[name]
        np.savez(tmp_path / f"{name}.npz", x=x, y=y)
        options = []
        for key, value in {"dialect": FACTS[name]["framework"], **options_of(name)}.items():
            for item in value if isinstance(value, list) else [value]:
                options += [f"--{key.replace('_', '-')}", str(item)]
        return zoo[name], options, tmp_path / f"{name}.npz"

    return load


@pytest.fixture
def verify(case, capsys, tmp_path):
    """`verify(name)`: stdout and stderr of `jaxsnn verify` on a file of the zoo and its recording, or
    another file or recording, or with `change` of the recorded arrays.
    """

    def run(name, *more, options=None, code=0, change=None, file=None, recording=None):
        zoo_file, zoo_options, zoo_recording = case(name)
        if change is not None:
            recording = tmp_path / "changed.npz"
            np.savez(recording, **change(dict(np.load(zoo_recording))))
        options = zoo_options if options is None else options.split()
        argv = [file or zoo_file, "--recording", recording or zoo_recording, *options, *more]
        return run_cli(capsys, "verify", *argv, code=code)

    return run


# draw, check


@pytest.mark.parametrize("ending", ["svg", "dot", "mmd"])
def test_draw(ending, zoo, tmp_path, capsys):
    file, picture = zoo["snntorch_c_rleaky_all"], tmp_path / f"g.{ending}"
    code, out, _ = call(capsys, "draw", file, "-o", picture, "--json")
    graph = read(file)
    expected = {
        "schema": 1,
        "output": str(picture),
        "nodes": len(graph.nodes),
        "edges": len(graph.edges),
        "notes": [],
    }
    assert (code, json.loads(out)) == (0, expected)
    code, _, err = call(capsys, "draw", file, "-o", picture)
    assert (code, err.count("exists")) == (2, 1)
    run_cli(capsys, "draw", file, "-o", picture, "--force", "-q")


def test_check_says_all_and_exits_1(zoo, capsys):
    content, _ = run_cli_json(
        capsys, "check", zoo["snntorch_v_leaky_zero"], "--for", "grid", code=1
    )
    assert (content["schema"], content["ok"]) == (1, False)
    # One message lists all missing options of a node, with their possible values.
    fix = (
        "pass --reset (zero, subtract or none), "
        "and pass --reset-delay (true: the reset takes effect one time step after the spike; false: in the same step)"
    )
    assert {(problem["node"], problem["fix"]) for problem in content["problems"]} >= {
        ("1", fix),
        ("3", fix),
    }
    options = ["--reset", "zero", "--reset-delay", "true"]
    code, out, _ = call(capsys, "check", zoo["snntorch_v_leaky_zero"], "--for", "grid", *options)
    assert (code, out) == (0, "grid: fine (errors: 0, warnings: 0)\n")
    code, out, err = call(capsys, "check", zoo["snntorch_v_leaky_zero"], "--for", "nothing")
    assert (code, out, err.count("\n")) == (2, "", 1)


def test_commands_on_files_load_no_jax(run_python, zoo, tmp_path):
    file = str(zoo["snntorch_v_leaky_zero_nodelay"])
    code = f"""
import sys
from jaxsnn.commands.cli import main
from jaxsnn.compatibility.checks import purposes
options = ["--dialect", "snntorch", "--reset", "zero", "--reset-delay", "false"]
assert main(["info", {file!r}]) == 0
for purpose in purposes():
    assert main(["check", {file!r}, "--for", purpose, *options]) in (0, 1)
assert main(["draw", {file!r}, "-o", {str(tmp_path / "g.svg")!r}]) == 0
assert main(["convert", {file!r}, {str(tmp_path / "n.nir")!r}, "--from", *options[1:], "--to", "norse"]) == 0
print([name for name in ("jax", "optax", "torch") if name in sys.modules])
"""
    assert run_python(code).stdout.splitlines()[-1] == "[]"


# convert


def test_convert(zoo, tmp_path, capsys):
    file, out = zoo["snntorch_v_leaky_zero_nodelay"], tmp_path / "norse.nir"
    options = ["--from", "snntorch", "--reset", "zero", "--reset-delay", "false"]
    content, _ = run_cli_json(capsys, "convert", file, out, "--to", "norse", *options)
    assert {"schema", "load_with", "changes", "losses"} <= set(content)
    assert str(out) in content["load_with"]
    assert content["losses"] == []
    assert {change["node"] for change in content["changes"]} == {"1", "3"}
    written = nir.read(out)
    assert np.all(written.nodes["1"].r == 1)
    # Files are overwritten only with --force.
    code, _, err = call(capsys, "convert", file, out, "--to", "norse", *options)
    assert (code, err.count("exists")) == (2, 1)
    text, _ = run_cli(capsys, "convert", file, out, "--to", "norse", *options, "--force")
    assert "from_nir" in text
    assert "    y, state = net(frame, state)" in text.splitlines()[-2]


def test_the_passes_of_a_target_are_shown(capsys):
    code, text, _ = call(capsys, "convert", "--show-passes", "--to", "norse", "--json")
    shown = json.loads(text)
    assert (code, shown["written_for"].partition(" ")[0]) == (0, "Norse")
    (readouts,) = [entry for entry in shown["passes"] if entry["name"] == "replace_readouts"]
    assert readouts["description"].startswith(
        "Replace populations that output their membrane potentials"
    )
    assert readouts["requires"] == ["the time step of every population is resolved"]
    assert "no population outputs its membrane potential" in readouts["ensures"]
    text, _ = run_cli(capsys, "convert", "--show-passes", "--to", "norse")
    for entry in shown["passes"]:
        assert f" {entry['name']}\n   {entry['description']}\n" in text
    assert "   ensures: no population outputs its membrane potential\n" in text


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("a.nir --show-passes --to norse", "--show-passes cannot be combined with FILE"),
        ("a.nir --to norse", "the following arguments are required: OUT"),
        ("--to norse", "the following arguments are required: FILE, OUT"),
        ("--show-passes --to norse --to-dt 1ms", "--to-dt has no effect with --show-passes"),
    ],
)
def test_showing_passes_takes_no_file_and_converting_takes_two(line, message, capsys):
    assert_cli_refused(capsys, "convert", *line.split(), code=2, says=message)


def test_the_flag_that_shows_passes_may_be_cut_short(capsys):
    run_cli(capsys, "convert", "--show-pass", "--to", "norse")


@pytest.mark.parametrize("command", [("info",), ("check", "--for", "event")])
def test_an_empty_value_does_not_stand_for_the_file(command, capsys):
    message = "the following arguments are required: FILE"
    assert_cli_refused(capsys, *command, "--dt", "", code=2, says=message)


def test_what_cannot_be_converted_is_refused_and_nothing_written(zoo, tmp_path, capsys):
    files = zoo["snntorch_v_leaky_zero"], tmp_path / "out.nir"
    argv = ["convert", *files, "--from", "snntorch", "--to", "spyx"]
    argv += ["--reset", "zero", "--reset-delay", "true"]
    assert_cli_refused(capsys, *argv, code=1, says="node '1'")
    assert not files[1].exists()
    content, err = run_cli_json(capsys, *argv, "--approximate")
    assert content["losses"]
    assert "lost: " in err


@pytest.mark.parametrize(
    ("target", "code", "message"),
    [("nose", 2, "did you mean 'norse'"), ("norse", 1, "pass --reset ")],
)
def test_a_conversion_names_what_is_missing(target, code, message, zoo, tmp_path, capsys):
    argv = ["convert", zoo["snntorch_v_leaky_zero"], tmp_path / "no.nir", "--from", "snntorch"]
    assert_cli_refused(capsys, *argv, "--to", target, code=code, says=message)


# verify

SOME = (
    "norse_v_li",
    "rockpool_v_lifneuron",
    "sinabs_v_lif_nonorm",
    "snntorch_v_conv_zero",
    "spikingjelly_v_lif_vreset",
    "spyx_v_rlif",
)


@pytest.mark.parametrize("name", SOME)
def test_verify(name, verify):
    content = json.loads(verify(name, "--json")[0])
    assert content["schema"] == 1
    assert content["ok"] is True
    assert content["first_difference"] is None
    assert content["identical"] == content["trains"]
    assert content["identical_active"] == content["active"]
    if name == "norse_v_li":
        assert content["trains"] == 0
        assert content["identical_fraction"] is None
        assert content["identical_active_fraction"] is None
        assert content["relative_rmse"] < 1e-4
    else:
        assert content["identical_fraction"] == 1
        assert content["relative_rmse"] is None
        assert content["spikes_expected"] == content["spikes_got"] > 0


SUBTRACTING, SNNTORCH = "snntorch_v_leaky_sub", "--dialect snntorch"


def test_verify_with_another_reset_fails_and_says_where(verify):
    wrong = {"options": f"{SNNTORCH} --reset zero --reset-delay true", "code": 1}
    content = json.loads(verify(SUBTRACTING, "--json", **wrong)[0])
    assert content["ok"] is False
    keys = {"node", "neuron", "batch", "step", "expected", "got"}
    assert set(content["first_difference"]) == keys
    assert content["identical"] < content["trains"]
    assert content["fits"] == ["--reset subtract and --reset-delay true"]
    out, _ = verify(SUBTRACTING, **wrong)
    assert "first difference: node 'output'" in out
    assert (
        out.splitlines()[-1] == "the recording agrees with --reset subtract and --reset-delay true"
    )


@pytest.mark.parametrize(
    ("name", "options", "last_line"),
    [
        (SUBTRACTING, {"options": f"{SNNTORCH} --reset subtract --reset 3:zero --reset-delay true"},
         "the recording agrees with --reset subtract and --reset-delay true"),
        ("spikingjelly_v_lif_vreset", {"change": lambda arrays: arrays | {"y": 1 - arrays["y"]}},
         "it agrees with no other reset or reset delay of all nodes or of a single node"),
        ("sinabs_v_lif_nonorm",
         {"options": "--dialect sinabs --dt 1 --time-unit step --norm-input true"},
         "--norm-input false"),
    ],
)  # fmt: skip
def test_verify_tries_other_resets_and_scales(name, options, last_line, verify):
    assert last_line in verify(name, **options, code=1)[0].splitlines()[-1]


def test_verify_names_the_resets_with_which_a_recording_verifies(verify):
    _, err = verify(SUBTRACTING, options=SNNTORCH, code=1)
    assert "pass --reset subtract and --reset-delay true, with which the recording agrees" in err


def test_verify_says_that_a_recording_does_not_tell_resets_apart(verify):
    """Up to the first spike all resets are one."""

    def until_the_first_spike(arrays):
        first = int(np.flatnonzero(arrays["y"].any(axis=(1, 2)))[0])
        return {name: array[: first + 1] for name, array in arrays.items()}

    _, err = verify(SUBTRACTING, options=SNNTORCH, change=until_the_first_spike, code=1)
    for reset in ("zero", "subtract"):
        assert f"--reset {reset} and --reset-delay true" in err
    assert "record an input for which neurons fire more often" in err


def test_verify_says_that_silence_verifies_whatever_is_silent(zoo, verify, tmp_path):
    graph = nir.read(zoo[SUBTRACTING])
    for node in graph.nodes.values():
        if hasattr(node, "v_threshold"):
            node.v_threshold = np.full_like(node.v_threshold, 1e9)
    nir.write(tmp_path / "silent.nir", graph)
    silent = {
        "file": tmp_path / "silent.nir",
        "change": lambda arrays: arrays | {"y": 0 * arrays["y"]},
    }
    _, err = verify(SUBTRACTING, options=SNNTORCH, **silent, code=1)
    assert "pass --reset" in err
    assert "agrees" not in err
    out, err = verify(SUBTRACTING, "--json", **silent)
    assert json.loads(out)["active"] == 0
    for text in (err, " ".join(json.loads(out)["notes"])):
        assert "the recorded output is 0 throughout" in text


@pytest.mark.parametrize("kind", [complex, str])
def test_verify_refuses_outputs_that_are_no_real_numbers(kind, verify):
    """Imaginary parts were dropped, text was read as numbers."""
    change = {"change": lambda arrays: arrays | {"y": arrays["y"].astype(kind)}}
    assert "output 'output': y has dtype" in verify(SUBTRACTING, **change, code=2)[1]


def nir_data(x, y, dt, *, events):
    """A recording (time, batch, ...) as NIR data: of the input, of the population that feeds the
    output, and more.
    """
    inward, outward = (gridded_data(array, dt, spikes=True) for array in (x, y))
    if events:
        inward, outward = (
            event_data(to_events(data), size=data.n_neurons, t_max=len(x) * dt)
            for data in (inward, outward)
        )
    membranes = gridded_data(np.zeros(y.shape), dt)
    return graph_data(
        {
            "input": {"spikes": inward},
            "3": {"spikes": outward, "voltages": membranes},
            "1": {"voltages": membranes},
        }
    )


@pytest.mark.parametrize("events", [False, True])
def test_verify_reads_nir_data(events, recordings, tmp_path, verify):
    name, path = "snntorch_v_leaky_zero", tmp_path / "r.nir"
    x, y = recordings[name]
    write_data(path, nir_data(x, y, 1e-4, events=events))
    out, err = verify(name, "--json", recording=path)
    assert json.loads(out)["spikes_expected"] == y.sum()
    assert "recordings of 1 are ignored" in err
    changed = y.copy()
    changed[7, 3, 1] = 1 - changed[7, 3, 1]
    write_data(path, nir_data(x, changed, 1e-4, events=events), force=True)
    out, _ = verify(name, "--json", recording=path, code=1)
    first = json.loads(out)["first_difference"]
    expected = {"step": 7, "batch": 3, "neuron": 1, "expected": changed[7, 3, 1]}
    assert first | expected == first


LEAKY = "snntorch_v_leaky_zero"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x, y: {"x": x}, "no output to compare with"),
        (lambda x, y: {"y": y}, "neither array 'x' nor"),
        (lambda x, y: {"x": x, "y": y[:-1]}, "the recording has shape"),
        (lambda x, y: {"x": x[..., :4], "y": y}, "pass an array of shape (time, batch, 5)"),
        (lambda x, y: {"x": x, "y": np.where(y > 0, np.nan, y)}, "record finite values"),
        (lambda x, y: {"time": np.zeros((1, 1)), "index": np.zeros((1, 1), int), "y": y},
         "has events for input 'input'; verification requires time steps: record an array"),
    ],
)  # fmt: skip
def test_verify_says_what_it_cannot_use(change, message, verify):
    out, err = verify(LEAKY, change=lambda arrays: change(**arrays), code=2)
    assert (out, err.count("\n")) == ("", 1)
    assert message in err


def test_verify_does_not_move_events_between_the_steps(recordings, tmp_path, verify):
    late = nir_data(*recordings[LEAKY], 1e-4, events=True)
    late.nodes["input"].observables["spikes"].time += 3e-5
    late.nodes["input"].observables["spikes"].t_max += 1e-4
    write_data(tmp_path / "late.nir", late)
    _, err = verify(LEAKY, recording=tmp_path / "late.nir", code=2)
    assert err.count("\n") == 1
    assert "are not at a multiple of 0.0001 s" in err


def test_verify_needs_a_recording(zoo, tmp_path, verify):
    for path, message in (
        (tmp_path / "nothing.npz", "no such file"),
        (zoo[LEAKY], "has no NIRGraphData (its __type__ is None)"),
    ):
        assert message in verify(LEAKY, recording=path, code=2)[1]


@pytest.fixture
def two_outputs(tmp_path):
    """A file with the outputs "output" and "output2", and options to read it."""
    layers = {"input": build.input(2)}
    for end in ("", "2"):
        layers |= {f"fc{end}": build.linear(weight=np.eye(2)), f"li{end}": build.li(tau=5e-3)}
        layers[f"output{end}"] = build.output(2)
    ways = [("input", f"fc{end}", f"li{end}", f"output{end}") for end in ("", "2")]
    write(tmp_path / "two.nir", build.network(layers, ways))
    return tmp_path / "two.nir"


@pytest.mark.parametrize(
    ("add", "leave_out", "message"),
    [
        ([], ["output2.y"], "has no recording of output output2: save each as 'NODE.y'"),
        (["ouptut2.y"], ["output2.y"],
         "array 'ouptut2.y': the network has no output 'ouptut2': did you mean"),
        (["y"], [], "array 'y' is ambiguous: the network has 2 outputs: name it 'NODE.y'"),
        (["input.x"], [], "input 'input' is specified twice, as 'input.x' and as 'x': remove one of them"),
        (["inptu.x"], [], "array 'inptu.x': the network has no input 'inptu': did you mean 'input'?"),
        (["input.index"], [], "input 'input' is specified twice, as 'input.index' and as 'x': remove one of them"),
    ],
)  # fmt: skip
def test_verify_passes_over_no_array(add, leave_out, message, two_outputs, tmp_path, capsys):
    array_names = {"x", "output.y", "output2.y", *add} - {*leave_out}
    np.savez(tmp_path / "r.npz", **dict.fromkeys(array_names, np.zeros((3, 1, 2))))
    argv = ["verify", two_outputs, "--recording", tmp_path / "r.npz", "--dt", "1ms"]
    assert_cli_refused(capsys, *argv, code=2, says=message)


def test_an_output_is_given_once(verify):
    twice = {"change": lambda arrays: arrays | {"output.y": arrays["y"]}}
    message = "output 'output' is specified twice, as 'output.y' and as 'y': remove one of them"
    assert message in verify("norse_v_li", **twice, code=2)[1]


# run on the grid


@pytest.mark.parametrize("name", ["spikingjelly_v_conv", "sinabs_v_lif", "norse_v_li"])
def test_run_on_the_grid_gives_what_was_recorded(name, case, recordings, tmp_path, capsys):
    file, options, recording = case(name)
    rest = ["--input", recording, "-o", tmp_path / "out.npz", "--engine", "grid", *options]
    content, _ = run_cli_json(capsys, "run", file, *rest)
    y = recordings[name][1]
    with np.load(tmp_path / "out.npz") as arrays:
        (got,) = arrays.values()
        np.testing.assert_allclose(got, y, rtol=1e-4, atol=1e-6)
    assert (content["schema"], content["result"]) == (1, "success")
    assert content["samples"] == y.shape[1]
    assert content["steps"] == len(y)
    firing = content["spikes"]
    if name != "norse_v_li":
        last = list(firing)[-1]
        assert firing[last] == y.sum()
        assert content["spikes_needed"][last] == y.sum(axis=0).max()
    assert content["events_needed"] == max(content["spikes_needed"].values())
    run_cli(capsys, "run", file, *rest, code=2)


def test_run_on_the_grid_says_which_events_it_moved(case, tmp_path, capsys):
    file, options, _ = case("snntorch_v_leaky_zero")
    np.savez(tmp_path / "x.npz", time=np.array([[1e-4, 2.4e-4, 9e-3]]), index=np.array([[0, 1, 2]]))
    rest = ["--input", tmp_path / "x.npz", "-o", tmp_path / "out.npz", "--engine", "grid", *options]
    code, _, err = call(capsys, "run", file, *rest)
    assert (code, err.count("--t-end")) == (0, 1)  # a note states the assumed end
    rest = [*rest, "--force"]
    out, err = run_cli(capsys, "run", file, *rest, "--t-end", "5ms", "--json")
    assert "events between time steps that are moved to the nearest step: 1" in err
    assert "events after the last time step that are ignored: 1" in err
    assert len(json.loads(out)["notes"]) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--engine grid --max-spikes 3", "--max-spikes applies only to the event engine"),
        ("--engine gird", "did you mean 'grid'"),
    ],
)
def test_options_of_one_engine_are_no_options_of_the_other(
    options, message, case, tmp_path, capsys
):
    file, dialect_options, recording = case("snntorch_v_leaky_zero")
    paths = ["--input", recording, "-o", tmp_path / "out.npz"]
    argv = ["run", file, *paths, *dialect_options, *options.split()]
    assert_cli_refused(capsys, *argv, code=2, says=message)
    assert not (tmp_path / "out.npz").exists()


# fidelity


@pytest.mark.slow
def test_fidelity_is_what_both_engines_say(case, recordings, tmp_path, capsys):
    name = "snntorch_v_leaky_zero"
    file, options, _ = case(name)
    np.savez(tmp_path / "x.npz", x=recordings[name][0][:40, :2])
    out, _ = run_cli(capsys, "fidelity", file, "--input", tmp_path / "x.npz", *options, "--json")
    populations = json.loads(out)["populations"]
    counts = {}
    for engine in ("grid", "event"):
        rest = [
            "--input",
            tmp_path / "x.npz",
            "-o",
            tmp_path / f"{engine}.npz",
            "--engine",
            engine,
            *options,
        ]
        out, _ = run_cli(capsys, "run", file, *rest, "--json")
        counts[engine] = json.loads(out)["spikes"]
    for node, population in populations.items():
        assert (population["grid"], population["event"]) == (
            counts["grid"][node],
            counts["event"][node],
        )
        assert population["rate_ratio"] == population["event"] / population["grid"]
        assert 0 < population["count_cosine"] <= 1 + 1e-12
    with np.load(tmp_path / "grid.npz") as steps, np.load(tmp_path / "event.npz") as events:
        time, index = events["output.time"], events["output.index"]
        raster = np.zeros((40, 2, 3))
        for sample in range(2):
            used = np.isfinite(time[sample])
            np.add.at(
                raster,
                (np.floor(time[sample, used] / 1e-4).astype(int), sample, index[sample, used]),
                1,
            )
        assert populations["3"]["multi_spike_steps"] == (raster > 1).sum() > 0
        pair = raster.sum(axis=0).ravel(), steps["output.y"].sum(axis=0).ravel()
    cosine = pair[0] @ pair[1] / np.linalg.norm(pair[0]) / np.linalg.norm(pair[1])
    assert populations["3"]["count_cosine"] == pytest.approx(cosine)
    out, _ = run_cli(capsys, "fidelity", file, "--input", tmp_path / "x.npz", *options)
    assert "cosine similarity of spike counts" in out


def test_three_spikes_in_a_step_are_one_crowded_step():
    time = np.full((1, 2, 5), np.inf)
    time[0, 0] = [1.1, 1.2, 1.9, 3.0, 3.5]
    time[0, 1, :2] = [0.9, 1.0]
    comparison = compared(time, np.array([[2, 1]]), 1.0)
    assert (comparison.grid, comparison.event, comparison.multi_spike_steps) == (3, 7, 2)
    assert comparison.rate_ratio == pytest.approx(7 / 3)
    assert comparison.count_cosine == pytest.approx((5 * 2 + 2) / np.sqrt(29) / np.sqrt(5))


@pytest.mark.parametrize(("counts", "grid", "ratio"), [(0.0, 0, None), (1.0, 6, 0.0)])
def test_silent_populations_have_no_ratio(counts, grid, ratio):
    comparison = compared(np.full((2, 3, 4), np.inf), np.full((2, 3), counts), 1.0)
    assert (comparison.grid, comparison.event) == (grid, 0)
    assert (comparison.rate_ratio, comparison.count_cosine) == (ratio, None)


def test_fidelity_needs_inputs_by_steps(case, tmp_path, capsys):
    file, options, _ = case("snntorch_v_leaky_zero")
    np.savez(tmp_path / "x.npz", time=np.zeros((1, 1)), index=np.zeros((1, 1), int))
    code, _, err = call(capsys, "fidelity", file, "--input", tmp_path / "x.npz", *options)
    assert (code, err.count("the inputs are events, but the two engines")) == (2, 1)


def test_run_says_by_how_much_a_recurrent_spike_is_late(recordings, case, tmp_path, capsys):
    file, options, _ = case("snntorch_v_rleaky_zero")
    np.savez(tmp_path / "x.npz", x=recordings["snntorch_v_rleaky_zero"][0][:10, :1])
    out, _ = run_cli(
        capsys,
        "run",
        file,
        "--input",
        tmp_path / "x.npz",
        "-o",
        tmp_path / "y.npz",
        "--json",
        *options,
    )
    assert any(
        "its recurrent spikes, to itself" in note and "0.0001 s later" in note
        for note in json.loads(out)["notes"]
    )


@pytest.mark.parametrize(
    "name",
    ["spyx_v_rlif", pytest.param("snntorch_v_conv_sub", marks=pytest.mark.slow)],
    ids=["recurrent", "conv"],
)
def test_fidelity_of_recurrent_and_convolutional_networks(name, recordings, zoo):
    graph = read(zoo[name], dialect=FACTS[name]["framework"], **options_of(name))
    comparison = fidelity(graph, {"x": recordings[name][0][:60, :2]})
    assert set(comparison.populations) == {
        neuron for neuron in graph.neurons if graph.nodes[neuron].type not in ("LI", "I")
    }
    for population in comparison.populations.values():
        assert population.grid > 20
        assert population.count_cosine > 0.9
