"""What commands pass on and compute between reading options and printing: with stand-ins for the
simulation, the search and the training run.
"""

import argparse
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from jaxsnn import Events, lower, simulate
from jaxsnn.bss2 import traffic
from jaxsnn.commands import (
    compare_command,
    convert_command,
    map_command,
    plot_command,
    train_command,
    tune_command,
    verify_command,
)
from jaxsnn.commands.arguments import limits_of, quantization_of
from jaxsnn.commands.cli import build_parser
from jaxsnn.commands.emulate_command import EmulateOutcome, _chip, _events, _outcome
from jaxsnn.commands.fidelity_command import fidelity_report
from jaxsnn.commands.plot_command import _kind_of, _sample_of, saved_trains
from jaxsnn.commands.remarks import similar_lines
from jaxsnn.commands.run_command import run_file, run_in_steps
from jaxsnn.errors import Problem, UsageError
from jaxsnn.nir import build, write
from jaxsnn.train import TrainingStopped
from jaxsnn.wording import Text
from tests.helpers.command_line import DEMO_NET, TOLD, run_cli, run_cli_json
from tests.helpers.refusals import assert_refused
from tests.helpers.small_task import small_net


def parsed(command, *words):
    return build_parser(command).parse_args([command, *map(str, words)])


LEAKY = build.lif(tau=1e-3, r=10.0)
STEPPED: dict[str, Any] = {"dialect": "snntorch", "dt": 1e-4, "reset": "zero", "reset_delay": False}


@pytest.fixture
def stepped(tmp_path):
    """A file of two neurons, and inputs of 12 steps for which neuron 0 fires more often."""
    weight = np.array([[1.5, 0.0], [0.0, 0.4]])
    graph = build.sequential(build.input(2), build.linear(weight=weight), LEAKY, **STEPPED)
    write(tmp_path / "n.nir", graph)
    np.savez(tmp_path / "x.npz", x=np.ones((12, 3, 2), np.float32))
    return graph, tmp_path


def test_a_stepped_run_counts_spikes_per_neuron_and_ends_with_its_last_step(stepped):
    graph, folder = stepped
    outcome = run_in_steps(graph, folder / "x.npz", folder / "y.npz")
    y = np.load(folder / "y.npz")["output.y"]
    assert (outcome.steps, outcome.samples) == (12, 3)
    assert outcome.t_end == pytest.approx(12e-4)
    assert outcome.spikes["2"] == round(float(y.sum()))
    per_neuron = y.sum(axis=0)
    assert outcome.spikes_needed["2"] == round(float(per_neuron.max())) == 12
    assert per_neuron.min() < 12


@pytest.mark.parametrize(("t_end", "expected"), [(2e-3, 2e-3), (None, 12e-4)])
def test_a_run_ends_at_the_requested_time_or_with_the_last_step(stepped, t_end, expected):
    graph, folder = stepped
    outcome = run_file(graph, folder / "x.npz", folder / "y.npz", t_end=t_end)
    assert outcome.t_end == pytest.approx(expected)


# -- compare


@pytest.mark.parametrize(
    ("option", "recorded_end", "sent_end", "compared_until", "cut"),
    [
        (None, 0.02, 0.05, 0.02, False),
        ("10ms", 0.02, 0.05, 0.01, False),
        ("30ms", 0.02, 0.05, 0.02, True),
        (None, None, 0.05, 0.05, False),
        ("10ms", None, 0.05, 0.01, False),
    ],
)
def test_a_recording_is_compared_until_the_requested_end(
    monkeypatch, capsys, tmp_path, option, recorded_end, sent_end, compared_until, cut
):
    write(tmp_path / "n.nir", small_net(4))
    ends = []

    def compared(network, recorded, t_end, labels, max_spikes):
        ends.append(t_end)
        return compare_command.CompareOutcome(populations={}, accuracy=None, expected_accuracy=None)

    sent = SimpleNamespace(events={}, t_end=sent_end, notes=())
    recorded = SimpleNamespace(t_end=recorded_end, mapping=None)
    monkeypatch.setattr(compare_command, "compared", compared)
    monkeypatch.setattr("jaxsnn.simulation.network_arrays.sent_to_chip", lambda *_: (sent, None))
    monkeypatch.setattr("jaxsnn.train.loop.recorded_chip.read_recording", lambda *_, **__: recorded)
    words = ["--t-end", option] if option else []
    command = ["compare", tmp_path / "n.nir", "r.npz", "--input", "x.npz", *words]
    content, _ = run_cli_json(capsys, *command)
    assert ends == [pytest.approx(compared_until)]
    assert any("the recording ends at" in note for note in content["notes"]) is cut
    assert content["mapping_checked"] is False


@pytest.mark.parametrize(
    ("recorded_with", "checked"), [("same", True), ("other", False), (None, False)]
)
def test_a_mapping_is_checked_if_the_recording_names_it(
    monkeypatch, capsys, tmp_path, recorded_with, checked
):
    write(tmp_path / "n.nir", small_net(4))
    outcome = compare_command.CompareOutcome(populations={}, accuracy=None, expected_accuracy=None)
    sent = SimpleNamespace(events={}, t_end=0.05, notes=())
    recorded = SimpleNamespace(t_end=None, mapping=recorded_with)
    for name, value in {
        "jaxsnn.commands.compare_command.compared": lambda *_: outcome,
        "jaxsnn.simulation.network_arrays.sent_to_chip": lambda *_: (sent, None),
        "jaxsnn.train.loop.recorded_chip.read_recording": lambda *_, **__: recorded,
        "jaxsnn.bss2.mapping_files.read_mapping": lambda path: SimpleNamespace(quantization=None),
        "jaxsnn.bss2.mapping.digest": lambda mapping: "same",
    }.items():
        monkeypatch.setattr(name, value)
    words = ["compare", tmp_path / "n.nir", "r.npz", "--input", "x.npz", "--mapping", "m.json"]
    content, _ = run_cli_json(capsys, *words)
    assert content["mapping_checked"] is checked


def test_residuals_are_in_synaptic_time_constants_and_end_with_the_run():
    """One neuron that fires once; the recording has its spike late by tau_syn / 10, and one after the end."""
    neurons = build.cubalif(tau_mem=2e-2, tau_syn=1e-2, v_threshold=0.1)
    layers = build.linear(weight=np.array([[1.0]])), neurons
    network = lower(build.sequential(build.input(1), *layers, dialect="jaxsnn"))
    sent = {"input": (np.array([[1e-3]]), np.array([[0]]))}
    recorded = SimpleNamespace(
        inputs=sent, times={"2": np.full((1, 1, 2), np.inf)}, notes=(), mapping=None,
        refractory=0.0,
        late_notes=lambda t_end: (),
    )  # fmt: skip
    time, index = sent["input"]
    spikes = simulate(network, Events(time=time, index=index), 5e-3)
    spike = float(spikes.first_spike("2")[0, 0])
    count = int(spikes.spikes["2"].count.sum())
    recorded.times["2"][0, 0] = [spike + 1e-3, 6e-3]
    residuals = compare_command.compared(network, recorded, 5e-3).populations["2"]
    assert (residuals.expected, residuals.recorded) == (count, 1)
    assert residuals.mean == pytest.approx(0.1, abs=1e-4)


# -- convert and verify


@pytest.fixture
def conversion(monkeypatch):
    """The arguments of the conversions of the command."""
    calls = []

    def convert(graph, **options):
        calls.append(options)
        return SimpleNamespace(
            graph=graph, load_with="", run_with="", written_for="", changes=(), notes=("n",),
            losses=("a is b",), shift={},
        )  # fmt: skip

    monkeypatch.setattr("jaxsnn.nir.convert.pipeline.convert", convert)
    return calls


@pytest.mark.parametrize("approximate", [False, True])
def test_convert_passes_on_what_it_is_told_and_reports_losses(
    conversion, stepped, capsys, approximate
):
    _, folder = stepped
    words = ["convert", folder / "n.nir", folder / "out.nir", *TOLD, "--reset-delay", "false"]
    words += ["--to", "norse", "--to-dt", "2ms", "--input-range", "-1:3"]
    _, err = run_cli(capsys, *words, *["--approximate"] * approximate)
    (options,) = conversion
    assert options["approximate"] is approximate
    assert (options["to"], options["dt"]) == ("norse", pytest.approx(2e-3))
    assert options["input_range"] == (-1.0, 3.0)
    assert "lost: a is b" in err
    assert convert_command._range("0:1") == (0.0, 1.0)


@pytest.mark.parametrize("recorded", [{"a", "b"}, {"a"}, {"b"}])
def test_a_verification_needs_each_output(recorded):
    recording: Any = SimpleNamespace(x={}, y=dict.fromkeys(recorded, np.ones(1)))

    def refuse():
        verify_command._refuse_incomplete("r.npz", recording, ("a", "b"))

    if recorded == {"a", "b"}:
        refuse()
    else:
        assert_refused(refuse, UsageError, "no recording of output")


# -- pictures


def test_saved_spikes_are_those_of_each_sample_and_neuron(tmp_path):
    time = np.array([[0.1, 0.2, np.inf], [0.3, np.inf, np.inf]])
    index = np.array([[0, 2, 3], [1, 3, 3]])
    path = tmp_path / "y.npz"
    np.savez(path, **{"2.time": time, "2.index": index})
    trains = [sample["2"] for sample in saved_trains(str(path))]
    for train, times in zip(trains, time, strict=True):
        np.testing.assert_allclose(np.sort(train.time), times[np.isfinite(times)])
        assert train.size == 3  # unused slots have the number of neurons
    full = tmp_path / "full.npz"
    np.savez(full, **{"2.time": time[:1, :2], "2.index": index[:1, :2]})
    assert saved_trains(str(full))[0]["2"].size == 3


def test_the_kind_of_a_picture_follows_from_its_file(tmp_path):
    history, mapping = tmp_path / "h.json", tmp_path / "m.json"
    history.write_text(json.dumps({"epochs": []}))
    mapping.write_text(json.dumps({"runs": []}))
    kinds = [
        _kind_of(argparse.Namespace(file=str(file), recording=recording, input=sent))
        for file, recording, sent in (
            (history, None, None),
            (mapping, None, None),
            ("y.npz", None, None),
            ("n.nir", "r.npz", None),
            ("n.nir", None, "x.npz"),
            ("n.nir", None, None),
        )
    ]
    assert kinds == ["curve", "floorplan", "raster", "difference", "raster", "graph"]


@pytest.mark.parametrize(("sample", "refused"), [(None, False), (2, False), (3, True), (-1, True)])
def test_only_samples_that_exist_are_drawn(sample, refused):
    arguments = argparse.Namespace(sample=sample)
    if refused:
        assert_refused(lambda: _sample_of(arguments, 3), UsageError, "number of samples is 3")
    else:
        assert _sample_of(arguments, 3) == (sample or 0)


def test_a_picture_ends_at_the_requested_time(monkeypatch):
    ends = []
    events = {"input": SimpleNamespace(time=np.zeros((2, 1)))}
    inputs = SimpleNamespace(t_end=0.02, notes=(), events=events, sampled=lambda *_: None)

    def simulate(network, inputs, t_end, **_):
        ends.append(t_end)
        return SimpleNamespace(notes=())

    graph = SimpleNamespace(dialect=SimpleNamespace(dt=None))
    monkeypatch.setattr(plot_command, "read_graph", lambda arguments: graph)
    monkeypatch.setattr("jaxsnn.network.lowering.lower.lower", lambda graph: None)
    monkeypatch.setattr("jaxsnn.simulation.network_arrays.load_inputs", lambda *_: inputs)
    monkeypatch.setattr("jaxsnn.simulation.simulate.simulate", simulate)
    for t_end in ("5ms", None):
        arguments = argparse.Namespace(
            input="x.npz", t_end=t_end, max_spikes="auto", quiet=True, sample=1
        )
        plot_command._simulated(arguments, "spikes")
    assert ends == [pytest.approx(5e-3), 0.02]


# -- training


def test_flags_override_the_configuration(tmp_path):
    config = tmp_path / "run.toml"
    config.write_text('data = "yinyang"\nepochs = 7\nlearning-rate = 0.5\nseed = 3\n')
    words = ["n.nir", "-o", "out.nir", "--config", config, "--epochs", 2, "--seed", 9]
    options = train_command.options_of(parsed("train", *words))
    assert (options.epochs, options.seed, options.learning_rate) == (2, 9, 0.5)


@pytest.mark.parametrize(
    ("verbose", "quiet", "shown"),
    [(True, False, True), (True, True, False), (False, False, False), (False, True, False)],
)
def test_progress_is_shown_if_it_is_asked_for_and_the_command_is_not_quiet(verbose, quiet, shown):
    arguments = argparse.Namespace(verbose=verbose, quiet=quiet)
    assert (train_command.progress_of(arguments) is not None) is shown


def fit_of(best, accuracies=(0.25, 0.75, 0.5)):
    history = [
        SimpleNamespace(epoch=number, validation_accuracy=accuracy)
        for number, accuracy in enumerate(accuracies)
    ]
    return SimpleNamespace(
        history=history,
        best_epoch=best,
        test_accuracy=0.6,
        accuracy_in_steps=None,
        notes=(),
        neurobench=None,
    )


@pytest.mark.parametrize("force", [False, True])
def test_a_run_that_stops_writes_its_best_epoch_and_overwrites_checkpoints_by_force(
    monkeypatch, force
):
    reached: Any = fit_of(1)
    seen, written = [], []

    def prepare(graph, options):
        seen.append(options)
        return SimpleNamespace(options=options)

    def stop(prepared):
        raise TrainingStopped("it stops", reached)

    monkeypatch.setattr("jaxsnn.train.fitting.prepare", prepare)
    monkeypatch.setattr("jaxsnn.train.fitting.fit_prepared", stop)
    monkeypatch.setattr(train_command, "_write", lambda files, fit, _: written.append(fit) or ())
    files = train_command.TrainFiles(trained=Path("out.nir"), force=force)
    options = train_command.options_of(
        parsed("train", "n.nir", "-o", "out.nir", "--data", "yinyang")
    )
    with pytest.raises(TrainingStopped) as stopped:
        train_command.train_file(small_net(4), files, options)
    facts = stopped.value.problem.facts
    assert (facts["epoch"], facts["validation_accuracy"]) == (1, 0.75)
    assert written == [reached]
    assert seen[0].overwrite is force


def test_the_best_epoch_is_shown_and_not_the_last():
    fit: Any = fit_of(1)
    paths = dict.fromkeys(("output", "history", "checkpoint"), "f")
    outcome = train_command.TrainOutcome(fit=fit, test_samples=10, notes=(), **paths)
    (line,) = (line for line in outcome.as_text().splitlines() if "best epoch" in line)
    assert line.split()[2:] == ["1", "of", "2,", "validation", "75.00%"]


def test_the_chosen_network_of_a_tuning_is_written(monkeypatch, capsys, tmp_path):
    graphs = {name: small_net(4, seed=n) for n, name in enumerate(("first", "chosen", "last"))}
    steps = [SimpleNamespace(graph=graph) for graph in graphs.values()]
    outcome = SimpleNamespace(
        steps=steps, chosen=steps[1], notes=(), as_dict=dict, as_text=lambda: "done"
    )
    monkeypatch.setattr("jaxsnn.train.tuning.tune", lambda *_: outcome)
    write(tmp_path / "n.nir", graphs["first"])
    out = tmp_path / "out.nir"
    run_cli(capsys, "tune", tmp_path / "n.nir", "-o", out, "--data", "yinyang")
    from jaxsnn.nir import read

    weight = read(out).nodes["1"].value("weight")
    np.testing.assert_allclose(weight, graphs["chosen"].nodes["1"].value("weight"))
    assert tune_command._numbers("10, 20") == (10.0, 20.0)


# -- the chip


def test_events_of_the_chip_are_sorted_with_their_neurons():
    spikes = np.array([[[0.3, np.inf], [0.1, 0.4], [0.2, np.inf]]])
    arrays = _events("a", spikes)
    np.testing.assert_allclose(arrays["a.time"], [[0.1, 0.2, 0.3, 0.4]])
    assert arrays["a.index"].tolist() == [[1, 2, 0, 1]]
    unused = _events("a", np.array([[[0.3], [0.1]], [[np.inf], [0.2]]]))
    assert unused["a.index"].tolist() == [[1, 0], [1, 2]]


@pytest.mark.parametrize(
    ("changes", "refused"),
    [({}, False), ({"ideal": True}, False), ({"spread": "calibrated"}, False), ({"trial": 2}, False)]
    + [({"ideal": True} | option, True) for option in ({"spread": "recorded"}, {"trial": 1}, {"chip_seed": 1})],
)  # fmt: skip
def test_only_a_chip_that_is_not_ideal_has_deviations(changes, refused):
    usual = {"ideal": False, "spread": None, "trial": 0, "chip_seed": 0, "chips": None}
    arguments = argparse.Namespace(**usual | changes)
    if refused:
        assert_refused(lambda: _chip(arguments), UsageError, "an ideal chip has no")
    else:
        assert _chip(arguments).ideal is changes.get("ideal", False)


@pytest.mark.parametrize(("chips", "runs", "waits"), [(1, 3, True), (3, 3, False), (1, 1, False)])
def test_the_first_spike_counts_from_the_own_run_on_one_chip(chips, runs, waits):
    outcome = EmulateOutcome(
        spikes={"a": 3}, lost={}, saturated={}, late=0.0, runs=runs, samples=1, output="o",
        traffic=(), seconds_per_sample=1e-3, joules_per_sample=1e-3, chips=chips,
        latency={"a": 1e-5},
    )  # fmt: skip
    assert ("from the start of its own run" in outcome.as_text()) is waits


@pytest.mark.parametrize("several", [False, True])
def test_the_load_of_one_chip_or_of_one_for_each_run(monkeypatch, several):
    monkeypatch.setattr(traffic, "traffic", lambda *_: ())
    times = np.full((2, 3, 1), np.inf)
    times[:, 0] = [[2e-3], [4e-3]]
    parts = [SimpleNamespace(name=name, size=3) for name in ("hidden", "output")]
    population = SimpleNamespace(tau_mem=np.full(3, 2e-2), tau_syn=np.full(3, 1e-2))
    netlist = SimpleNamespace(
        populations=parts, owner=np.repeat([0, 1], 3), pre=np.array([0, 1, 2])
    )
    quantized: Any = SimpleNamespace(
        populations={part.name: population for part in parts}, netlist=netlist, speedup=1000.0,
        bias_source=None,
    )  # fmt: skip
    done: Any = SimpleNamespace(
        runs=4, spikes={"hidden": times, "output": times}, lost={}, saturated={}, late=0.0
    )
    mapping: Any = SimpleNamespace(populations=parts)
    outcome = _outcome(mapping, quantized, {}, done, 0.05, several, Path("o.npz"))
    chips, in_turn = (4, 1) if several else (1, 4)
    seconds = traffic.seconds_per_sample(in_turn, 0.05, 1000.0, 2e-2)
    assert (outcome.chips, outcome.runs, outcome.samples) == (chips, 4, 2)
    assert outcome.seconds_per_sample == pytest.approx(seconds)
    assert outcome.joules_per_sample == pytest.approx(traffic.POWER * chips * seconds)
    assert outcome.spikes == {"hidden": 2, "output": 2}
    assert outcome.latency == {"output": pytest.approx(3e-6)}  # the median of 2 and 4 ms


@pytest.fixture
def search(monkeypatch):
    """The arguments of the search, and the violations that the check returns."""
    state = SimpleNamespace(calls=[], violations=(), result=None)

    def place_and_route(netlist, **options):
        state.calls.append(options)
        mapping = SimpleNamespace(runs=[])
        return SimpleNamespace(
            mapping=mapping, stop_reason="fits", certificate=None, problem=None, attempts=()
        )

    monkeypatch.setattr("jaxsnn.bss2.search.portfolio.place_and_route", place_and_route)
    monkeypatch.setattr(
        "jaxsnn.bss2.search.quantize.quantize", lambda *_: SimpleNamespace(netlist=None)
    )
    monkeypatch.setattr("jaxsnn.bss2.check.check", lambda *_: state.violations)
    monkeypatch.setattr("jaxsnn.bss2.mapping.to_json", lambda mapping: "{}")
    return state


@pytest.mark.parametrize("violations", [(), (Problem(code="x", node="run 0", message="wrong"),)])
def test_only_a_mapping_without_violations_is_written_and_a_success(search, tmp_path, violations):
    search.violations = violations
    outcome = map_command.place_and_route_file(small_net(4), tmp_path / "m.json", max_runs=3)
    assert search.calls == [{"max_runs": 3}]
    assert (tmp_path / "m.json").exists() is not bool(violations)
    assert outcome.ok is not bool(violations)
    assert bool(outcome.files) is not bool(violations)


def test_map_passes_on_the_largest_number_of_runs(monkeypatch, tmp_path):
    class Reached(Exception):
        pass

    def place(graph, output, **options):
        assert (options["max_runs"], options["seed"]) == (4, 5)
        raise Reached

    write(tmp_path / "n.nir", small_net(4))
    monkeypatch.setattr(map_command, "place_and_route_file", place)
    words = [tmp_path / "n.nir", "-o", tmp_path / "m.json", "--runs", 4, "--seed", 5]
    with pytest.raises(Reached):
        map_command.run(parsed("map", *words))
    both = parsed("map", tmp_path / "n.nir", "-o", "m.json", "--verify", "m.json")
    for arguments in (both, parsed("map", tmp_path / "n.nir")):
        assert_refused(
            lambda arguments=arguments: map_command.run(arguments), UsageError, "needs either"
        )


def test_data_for_the_chip_are_the_first_samples_of_a_seed(tmp_path, capsys):
    write(tmp_path / "n.nir", small_net(4))
    files = {}
    for name, words in {
        "few": ["--samples", 3],
        "more": ["--samples", 6],
        "other": ["--samples", 3, "--seed", 1],
    }.items():
        files[name] = tmp_path / f"{name}.npz"
        run_cli(
            capsys,
            "chip",
            "inputs",
            tmp_path / "n.nir",
            "--data",
            "yinyang",
            "-o",
            files[name],
            *words,
        )
    few, more, of_another_seed = (np.load(path) for path in files.values())
    np.testing.assert_array_equal(few["input.time"], more["input.time"][:3])
    np.testing.assert_array_equal(few["label"], more["label"][:3])
    assert not np.array_equal(few["input.time"], of_another_seed["input.time"])


# -- options of all commands, and remarks


def test_limits_of_reading_are_those_of_the_options(monkeypatch):
    seen = {}
    monkeypatch.setattr(
        "jaxsnn.files.read_limits.limit_reading", lambda **limits: seen.update(limits)
    )
    limits_of(argparse.Namespace(read_timeout="3s", max_bytes=1234))
    assert seen == {"max_bytes": 1234, "read_timeout": 3.0}


@pytest.mark.parametrize("scale", ["max", None])
def test_only_options_of_quantisation_that_are_set_are_passed_on(scale):
    """The stored options of a mapping would be compared with defaults otherwise."""
    option_names = (
        *("synapses_per_weight", "speedup", "bias", "approximate", "v_leak", "v_threshold"),
        *("percentile", "bias_period", "refractory_time", "slope"),
    )
    arguments = argparse.Namespace(**dict.fromkeys(option_names), scale=scale)
    assert quantization_of(arguments) == ({} if scale is None else {"scale": scale})


def test_merged_ranges_go_from_the_lowest_to_the_highest_number():
    remarks = [
        Text("a from {low:g} to {high:g}", low=float(n), high=10.0 * n) for n in range(1, 30)
    ]
    lines = similar_lines(remarks, kind="notes")
    assert "a from 1 to 290" in lines[0]


def test_the_page_of_a_comparison_names_the_least_similar_population():
    population = {"event": 12, "grid": 14, "rate_ratio": 12 / 14, "multi_spike_steps": 2}
    populations = {
        name: SimpleNamespace(**population, count_cosine=cosine)
        for name, cosine in (("near", 0.99), ("far", 0.5), ("middle", 0.7))
    }
    from jaxsnn.nir import read

    arguments = argparse.Namespace(input="x.npz", file=str(DEMO_NET), argv=["fidelity"])
    graph = read(DEMO_NET, dialect="snntorch", reset="zero")
    page = fidelity_report(arguments, graph, SimpleNamespace(populations=populations, notes=()))  # pyright: ignore
    assert "0.5000 (population &#x27;far&#x27;)" in page or "0.5000 (population 'far')" in page


@pytest.mark.parametrize(
    ("verdicts", "code"),
    [({"event": "exact", "grid": "exact"}, 0), ({"event": "unsupported", "grid": "exact"}, 1)],
)
def test_one_unsupported_purpose_is_enough(monkeypatch, capsys, tmp_path, verdicts, code):
    table = SimpleNamespace(overall=verdicts.__getitem__, as_dict=dict, as_text=lambda: "")
    monkeypatch.setattr("jaxsnn.compatibility.matrix.matrix", lambda *_: table)
    write(tmp_path / "n.nir", small_net(4))
    run_cli(capsys, "matrix", tmp_path / "n.nir", "--for", "event", "--for", "grid", code=code)
