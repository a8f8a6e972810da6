"""The commands on what a file means: check, draw, convert, verify, fidelity, and run on the grid."""

import json
from functools import partial

import nir
import numpy as np
import pytest

from jaxsnn.nir import build, read, write
from jaxsnn.nir.io.recorded_data import event_data, graph_data, gridded_data, write_data
from jaxsnn.simulation.fidelity import compared, fidelity
from jaxsnn.simulation.recordings import to_events
from tests.helpers import command_line
from tests.helpers.zoo import FACTS, options_of


@pytest.fixture
def call(capsys):
    """`call(*argv)`: exit code, stdout and stderr of a command."""
    return partial(command_line.call, capsys)


@pytest.fixture
def case(zoo, recordings, tmp_path):
    """`case(name)`: a file of the zoo, what it does not say as options, and its recording as a
    file.
    """

    def load(name):
        x, y = recordings[name]
        np.savez(tmp_path / f"{name}.npz", x=x, y=y)
        said = {"dialect": FACTS[name]["framework"], **options_of(name)}
        options = []
        for key, value in said.items():
            for one in value if isinstance(value, list) else [value]:
                options += [f"--{key.replace('_', '-')}", str(one)]
        return zoo[name], options, tmp_path / f"{name}.npz"

    return load


# draw, check


@pytest.mark.parametrize("ending", ["svg", "dot", "mmd"])
def test_draw(ending, zoo, tmp_path, call):
    file, picture = zoo["snntorch_c_rleaky_all"], tmp_path / f"g.{ending}"
    code, out, _ = call("draw", file, "-o", picture, "--json")
    graph = read(file)
    expected = {
        "schema": 1,
        "output": str(picture),
        "nodes": len(graph.nodes),
        "edges": len(graph.edges),
        "notes": [],
    }
    assert (code, json.loads(out)) == (0, expected)
    code, _, err = call("draw", file, "-o", picture)
    assert (code, err.count("exists")) == (2, 1)
    assert call("draw", file, "-o", picture, "--force", "-q")[0] == 0


def test_check_says_all_and_exits_1(zoo, call):
    code, out, _ = call("check", zoo["snntorch_v_leaky_zero"], "--for", "grid", "--json")
    content = json.loads(out)
    assert code == 1
    assert (content["schema"], content["ok"]) == (1, False)
    # all that is missing at a node at once, with what there is to say
    said = (
        "say --reset (zero, subtract or none), and say --reset-delay (true: a step late, or false)"
    )
    assert {(problem["node"], problem["fix"]) for problem in content["problems"]} >= {
        ("1", said),
        ("3", said),
    }
    told = ["--reset", "zero", "--reset-delay", "true"]
    code, out, _ = call("check", zoo["snntorch_v_leaky_zero"], "--for", "grid", *told)
    assert (code, out) == (0, "grid: fine (0 errors, 0 warnings)\n")
    code, out, err = call("check", zoo["snntorch_v_leaky_zero"], "--for", "nothing")
    assert (code, out, err.count("\n")) == (2, "", 1)


def test_draw_and_check_and_convert_load_no_jax(run_python, zoo, tmp_path):
    file = str(zoo["snntorch_v_leaky_zero_nodelay"])
    code = f"""
import sys
from jaxsnn.commands.cli import main
told = ["--reset", "zero", "--reset-delay", "false"]
assert main(["check", {file!r}, "--for", "event", "--dialect", "snntorch", *told]) == 0
assert main(["draw", {file!r}, "-o", {str(tmp_path / "g.svg")!r}]) == 0
assert main(["convert", {file!r}, {str(tmp_path / "n.nir")!r}, "--from", "snntorch", "--to", "norse", *told]) == 0
print([name for name in ("jax", "optax", "torch") if name in sys.modules])
"""
    assert run_python(code).stdout.splitlines()[-1] == "[]"


# convert


def test_convert(zoo, tmp_path, call):
    file, out = zoo["snntorch_v_leaky_zero_nodelay"], tmp_path / "norse.nir"
    told = ["--from", "snntorch", "--reset", "zero", "--reset-delay", "false"]
    code, text, _ = call("convert", file, out, "--to", "norse", *told, "--json")
    content = json.loads(text)
    assert code == 0
    assert {"schema", "load_with", "changes", "losses"} <= set(content)
    assert str(out) in content["load_with"]
    assert content["losses"] == []
    assert {change["node"] for change in content["changes"]} == {"1", "3"}
    written = nir.read(out)
    assert np.all(written.nodes["1"].r == 1)
    # never overwritten, unless it is said
    code, _, err = call("convert", file, out, "--to", "norse", *told)
    assert (code, err.count("exists")) == (2, 1)
    code, text, _ = call("convert", file, out, "--to", "norse", *told, "--force")
    assert code == 0
    assert "from_nir" in text
    assert "    y, state = net(frame, state)" in text.splitlines()[-2]


def test_the_passes_of_a_target_are_shown(call):
    code, text, _ = call("convert", "--show-passes", "--to", "norse", "--json")
    shown = json.loads(text)
    assert (code, shown["written_for"].partition(" ")[0]) == (0, "Norse")
    (readouts,) = [entry for entry in shown["passes"] if entry["name"] == "replace_readouts"]
    assert readouts["description"].startswith("Write populations that give their membranes as")
    assert readouts["requires"] == ["every population has a resolved step"]
    assert "no population gives its membrane" in readouts["ensures"]
    code, text, _ = call("convert", "--show-passes", "--to", "norse")
    assert code == 0
    for entry in shown["passes"]:
        assert f" {entry['name']}\n   {entry['description']}\n" in text
    assert "   ensures: no population gives its membrane\n" in text


def test_showing_passes_takes_no_file_and_converting_takes_two(call):
    code, _, err = call("convert", "a.nir", "--show-passes", "--to", "norse")
    assert (code, "--show-passes takes no FILE" in err) == (2, True)
    code, _, err = call("convert", "a.nir", "--to", "norse")
    assert (code, "the following arguments are required: OUT" in err) == (2, True)
    code, _, err = call("convert", "--to", "norse")
    assert (code, "the following arguments are required: FILE, OUT" in err) == (2, True)
    code, _, err = call("convert", "--show-passes", "--to", "norse", "--to-dt", "1ms")
    assert (code, "--to-dt has no effect with --show-passes" in err) == (2, True)
    assert call("convert", "--show-pass", "--to", "norse")[0] == 0


@pytest.mark.parametrize("command", [("info",), ("check", "--for", "event")])
def test_an_empty_value_does_not_stand_for_the_file(command, call):
    code, _, err = call(*command, "--dt", "")
    assert (code, "the following arguments are required: FILE" in err) == (2, True)


def test_what_cannot_be_converted_is_refused_and_nothing_written(zoo, tmp_path, call):
    file, out = zoo["snntorch_v_leaky_zero"], tmp_path / "out.nir"
    told = [
        "--from",
        "snntorch",
        "--to",
        "spyx",
        "--reset",
        "zero",
        "--reset-delay",
        "true",
    ]
    code, text, err = call("convert", file, out, *told)
    assert (code, text) == (1, "")
    assert err.count("jaxsnn: error: ") == 1
    assert "node '1'" in err
    assert not out.exists()
    code, text, err = call("convert", file, out, *told, "--approximate", "--json")
    assert code == 0
    assert json.loads(text)["losses"]
    assert "lost: " in err
    code, _, err = call("convert", file, tmp_path / "no.nir", "--from", "snntorch", "--to", "nose")
    assert (code, err.count("did you mean 'norse'")) == (2, 1)
    code, _, err = call("convert", file, tmp_path / "no.nir", "--from", "snntorch", "--to", "norse")
    assert (code, err.count("say --reset ")) == (1, 1)


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
def test_verify(name, case, call):
    file, options, recording = case(name)
    code, out, err = call("verify", file, "--recording", recording, *options, "--json")
    content = json.loads(out)
    assert code == 0, err
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


def test_verify_with_another_reset_fails_and_says_where(case, call):
    file, options, recording = case("snntorch_v_leaky_sub")
    wrong = [{"subtract": "zero"}.get(part, part) for part in options]
    code, out, _ = call("verify", file, "--recording", recording, *wrong, "--json")
    content = json.loads(out)
    assert code == 1
    assert content["ok"] is False
    assert set(content["first_difference"]) == {
        "node",
        "neuron",
        "batch",
        "step",
        "expected",
        "got",
    }
    assert content["identical"] < content["trains"]
    code, out, _ = call("verify", file, "--recording", recording, *wrong)
    assert code == 1
    assert "first difference: node 'output'" in out
    assert out.splitlines()[-1] == "it verifies with --reset subtract and --reset-delay true"
    assert content["fits"] == ["--reset subtract and --reset-delay true"]
    code, _, err = call("verify", file, "--recording", recording, "--dialect", "snntorch")
    assert code == 1
    assert "set --reset subtract and --reset-delay true, with which the recording verifies" in err


def test_verify_says_that_a_recording_does_not_tell_resets_apart(case, call):
    """Up to the first spike all resets are one."""
    file, _, recording = case("snntorch_v_leaky_sub")
    arrays = dict(np.load(recording))
    first = int(np.flatnonzero(arrays["y"].any(axis=(1, 2)))[0])
    np.savez(recording, **{name: own[: first + 1] for name, own in arrays.items()})
    code, _, err = call("verify", file, "--recording", recording, "--dialect", "snntorch")
    assert code == 1
    for reset in ("zero", "subtract"):
        assert f"--reset {reset} and --reset-delay true" in err
    assert "record neurons that fire more often, which distinguishes them" in err


def test_verify_says_that_silence_verifies_whatever_is_silent(case, call, tmp_path):
    file, _, recording = case("snntorch_v_leaky_sub")
    arrays = dict(np.load(recording))
    np.savez(recording, x=arrays["x"], y=0 * arrays["y"])
    graph = nir.read(file)
    for node in graph.nodes.values():
        if hasattr(node, "v_threshold"):
            node.v_threshold = np.full_like(node.v_threshold, 1e9)
    file = tmp_path / "silent.nir"
    nir.write(file, graph)
    code, _, err = call("verify", file, "--recording", recording, "--dialect", "snntorch")
    assert code == 1
    assert "say --reset" in err
    assert "verifies" not in err
    options = "--dialect", "snntorch", "--reset", "subtract", "--reset-delay", "true"
    code, out, err = call("verify", file, "--recording", recording, *options, "--json")
    assert (code, json.loads(out)["active"]) == (0, 0)
    assert "nothing came out in the recording" in err
    assert "nothing came out in the recording" in " ".join(json.loads(out)["notes"])


@pytest.mark.parametrize("kind", [complex, str])
def test_verify_refuses_outputs_that_are_no_real_numbers(kind, case, call):
    """Imaginary parts were dropped, text was read as numbers."""
    file, options, recording = case("snntorch_v_leaky_sub")
    arrays = dict(np.load(recording))
    np.savez(recording, x=arrays["x"], y=arrays["y"].astype(kind))
    code, _, err = call("verify", file, "--recording", recording, *options)
    assert code == 2
    assert "output 'output': y holds" in err


def test_verify_names_the_reset_of_one_node(case, call):
    file, options, recording = case("snntorch_v_leaky_sub")
    wrong = [*options, "--reset", "3:zero"]
    code, out, _ = call("verify", file, "--recording", recording, *wrong)
    assert code == 1
    assert "it verifies with --reset subtract and --reset-delay true" in out


def test_verify_with_another_recording_says_that_no_reset_fits(case, call, tmp_path):
    file, options, recording = case("spikingjelly_v_lif_vreset")
    arrays = dict(np.load(recording))
    arrays["y"] = 1 - arrays["y"]
    np.savez(tmp_path / "other.npz", **arrays)
    code, out, _ = call("verify", file, "--recording", tmp_path / "other.npz", *options)
    assert code == 1
    assert (
        out.splitlines()[-1]
        == "nor with another reset or delay that was tried, of all nodes or of one"
    )


def test_verify_finds_the_scale_of_the_input(case, call):
    file, options, recording = case("sinabs_v_lif_nonorm")
    wrong = [{"False": "true"}.get(part, part) for part in options]
    code, out, _ = call("verify", file, "--recording", recording, *wrong)
    assert code == 1
    assert "--norm-input false" in out.splitlines()[-1]


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
def test_verify_reads_nir_data(events, case, recordings, tmp_path, call):
    name = "snntorch_v_leaky_zero"
    file, options, _ = case(name)
    x, y = recordings[name]
    write_data(tmp_path / "r.nir", nir_data(x, y, 1e-4, events=events))
    code, out, err = call("verify", file, "--recording", tmp_path / "r.nir", *options, "--json")
    assert code == 0, err
    assert json.loads(out)["spikes_expected"] == y.sum()
    assert "recordings of 1 are not used" in err
    changed = y.copy()
    changed[7, 3, 1] = 1 - changed[7, 3, 1]
    write_data(tmp_path / "changed.nir", nir_data(x, changed, 1e-4, events=events))
    code, out, _ = call("verify", file, "--recording", tmp_path / "changed.nir", *options, "--json")
    assert code == 1
    first = json.loads(out)["first_difference"]
    assert (first["step"], first["batch"], first["neuron"], first["expected"]) == (
        7,
        3,
        1,
        changed[7, 3, 1],
    )


def test_verify_says_what_it_cannot_use(case, recordings, tmp_path, call):
    name = "snntorch_v_leaky_zero"
    file, options, _ = case(name)
    x, y = recordings[name]
    bad = tmp_path / "bad.npz"

    def refused(code, message, **arrays):
        np.savez(bad, **arrays)
        found, out, err = call("verify", file, "--recording", bad, *options)
        assert (found, out, err.count("\n")) == (code, "", 1)
        assert message in err

    refused(2, "no output to compare with", x=x)
    refused(2, "no array 'x'", y=y)
    refused(2, "the recording has shape", x=x, y=y[:-1])
    refused(2, "give it the shape (time, batch, 5)", x=x[..., :4], y=y)
    refused(2, "record finite numbers", x=x, y=np.where(y > 0, np.nan, y))
    refused(2, "has events", time=np.zeros((1, 1)), index=np.zeros((1, 1), int), y=y)
    # events between the steps are not moved in silence
    late = nir_data(x, y, 1e-4, events=True)
    late.nodes["input"].observables["spikes"].time += 3e-5
    late.nodes["input"].observables["spikes"].t_max += 1e-4
    write_data(tmp_path / "late.nir", late)
    code, _, err = call("verify", file, "--recording", tmp_path / "late.nir", *options)
    assert (code, err.count("\n")) == (2, 1)
    assert "are not at a multiple of 0.0001 s" in err
    code, _, err = call("verify", file, "--recording", tmp_path / "nothing.npz", *options)
    assert (code, err.count("no such file")) == (2, 1)
    code, _, err = call("verify", file, "--recording", file, *options)
    assert (code, err.count("has no NIRGraphData")) == (2, 1)


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
    ("changes", "message"),
    [
        ({"output2.y": None}, "has no recording of output output2: save each as 'NODE.y'"),
        (
            {"output2.y": None, "ouptut2.y": 0},
            "array 'ouptut2.y': the network has no output 'ouptut2': did you mean",
        ),
        ({"y": 0}, "array 'y': the network has 2 outputs: name it 'NODE.y'"),
        ({"input.x": 0}, "input 'input' is specified twice, as 'input.x' and as 'x': keep one"),
        (
            {"inptu.x": 0},
            "array 'inptu.x': the network has no input 'inptu': did you mean 'input'?",
        ),
        (
            {"input.index": 0},
            "input 'input' is specified twice, as 'input.index' and as 'x': keep one",
        ),
    ],
)
def test_verify_passes_over_no_array(changes, message, two_outputs, tmp_path, call):
    whole = {
        "x": np.zeros((3, 1, 2)),
        "output.y": np.zeros((3, 1, 2)),
        "output2.y": np.zeros((3, 1, 2)),
    }
    whole |= {
        name: None if value is None else np.zeros((3, 1, 2)) for name, value in changes.items()
    }
    np.savez(
        tmp_path / "r.npz", **{name: array for name, array in whole.items() if array is not None}
    )
    code, out, err = call("verify", two_outputs, "--recording", tmp_path / "r.npz", "--dt", "1ms")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert message in err


def test_an_output_is_given_once(case, tmp_path, call):
    file, options, recording = case("norse_v_li")
    with np.load(recording) as arrays:
        np.savez(tmp_path / "r.npz", **arrays, **{"output.y": arrays["y"]})
    code, _, err = call("verify", file, "--recording", tmp_path / "r.npz", *options)
    assert (
        code,
        err.count("output 'output' is specified twice, as 'output.y' and as 'y': keep one"),
    ) == (2, 1)


# run on the grid


@pytest.mark.parametrize("name", ["spikingjelly_v_conv", "sinabs_v_lif", "norse_v_li"])
def test_run_on_the_grid_gives_what_was_recorded(name, case, recordings, tmp_path, call):
    file, options, recording = case(name)
    rest = ["--input", recording, "-o", tmp_path / "out.npz", "--engine", "grid", *options]
    code, out, err = call("run", file, *rest, "--json")
    content = json.loads(out)
    assert code == 0, err
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
    assert call("run", file, *rest)[0] == 2  # it exists


def test_run_on_the_grid_says_which_events_it_moved(case, tmp_path, call):
    file, options, _ = case("snntorch_v_leaky_zero")
    np.savez(tmp_path / "x.npz", time=np.array([[1e-4, 2.4e-4, 9e-3]]), index=np.array([[0, 1, 2]]))
    rest = ["--input", tmp_path / "x.npz", "-o", tmp_path / "out.npz", "--engine", "grid", *options]
    code, _, err = call("run", file, *rest)
    assert (code, err.count("--t-end")) == (2, 1)
    code, out, err = call("run", file, *rest, "--t-end", "5ms", "--json")
    assert code == 0
    assert "1 events lay between steps" in err
    assert "1 events lie behind the last step" in err
    assert len(json.loads(out)["notes"]) == 2


def test_options_of_one_engine_are_no_options_of_the_other(case, tmp_path, call):
    file, options, recording = case("snntorch_v_leaky_zero")
    rest = ["--input", recording, "-o", tmp_path / "out.npz", *options]
    code, _, err = call("run", file, *rest, "--engine", "grid", "--max-spikes", "3")
    assert (code, err.count("--max-spikes is for the event engine")) == (2, 1)
    code, _, err = call("run", file, *rest, "--engine", "gird")
    assert (code, err.count("did you mean 'grid'")) == (2, 1)
    assert not (tmp_path / "out.npz").exists()


# fidelity


@pytest.mark.slow
def test_fidelity_is_what_both_engines_say(case, recordings, tmp_path, call):
    name = "snntorch_v_leaky_zero"
    file, options, _ = case(name)
    np.savez(tmp_path / "x.npz", x=recordings[name][0][:40, :2])
    code, out, err = call("fidelity", file, "--input", tmp_path / "x.npz", *options, "--json")
    assert code == 0, err
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
        code, out, err = call("run", file, *rest, "--json")
        assert code == 0, err
        counts[engine] = json.loads(out)["spikes"]
    for node, found in populations.items():
        assert (found["grid"], found["event"]) == (counts["grid"][node], counts["event"][node])
        assert found["rate_ratio"] == found["event"] / found["grid"]
        assert 0 < found["count_cosine"] <= 1 + 1e-12
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
    code, out, _ = call("fidelity", file, "--input", tmp_path / "x.npz", *options)
    assert code == 0
    assert "cosine similarity of the counts" in out


def test_three_spikes_in_a_step_are_one_crowded_step():
    time = np.full((1, 2, 5), np.inf)
    time[0, 0] = [1.1, 1.2, 1.9, 3.0, 3.5]
    time[0, 1, :2] = [0.9, 1.0]
    found = compared(time, np.array([[2, 1]]), 1.0)
    assert (found.grid, found.event, found.multi_spike_steps) == (3, 7, 2)
    assert found.rate_ratio == pytest.approx(7 / 3)
    assert found.count_cosine == pytest.approx((5 * 2 + 2) / np.sqrt(29) / np.sqrt(5))


def test_silent_populations_have_no_ratio():
    silence = np.full((2, 3, 4), np.inf)
    found = compared(silence, np.zeros((2, 3)), 1.0)
    assert (found.grid, found.event, found.rate_ratio, found.count_cosine) == (0, 0, None, None)
    found = compared(silence, np.ones((2, 3)), 1.0)
    assert (found.grid, found.event, found.rate_ratio, found.count_cosine) == (6, 0, 0.0, None)


def test_fidelity_needs_inputs_by_steps(case, tmp_path, call):
    file, options, _ = case("snntorch_v_leaky_zero")
    np.savez(tmp_path / "x.npz", time=np.zeros((1, 1)), index=np.zeros((1, 1), int))
    code, _, err = call("fidelity", file, "--input", tmp_path / "x.npz", *options)
    assert (code, err.count("inputs by steps")) == (2, 1)


def test_run_says_by_how_much_a_recurrent_spike_is_late(recordings, case, tmp_path, call):
    file, options, _ = case("snntorch_v_rleaky_zero")
    np.savez(tmp_path / "x.npz", x=recordings["snntorch_v_rleaky_zero"][0][:10, :1])
    code, out, _ = call(
        "run", file, "--input", tmp_path / "x.npz", "-o", tmp_path / "y.npz", "--json", *options
    )
    assert code == 0
    assert any(
        "what it sends back" in note and "0.0001 s later" in note
        for note in json.loads(out)["notes"]
    )


@pytest.mark.parametrize(
    "name",
    ["spyx_v_rlif", pytest.param("snntorch_v_conv_sub", marks=pytest.mark.slow)],
    ids=["recurrent", "conv"],
)
def test_fidelity_of_recurrent_and_convolutional_networks(name, recordings, zoo):
    graph = read(zoo[name], dialect=FACTS[name]["framework"], **options_of(name))
    found = fidelity(graph, {"x": recordings[name][0][:60, :2]})
    assert set(found.populations) == {
        each for each in graph.neurons if graph.nodes[each].type not in ("LI", "I")
    }
    for population in found.populations.values():
        assert population.grid > 20
        assert population.count_cosine > 0.9
