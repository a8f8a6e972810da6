"""NeuroBench metrics of trained, evaluated and tuned networks."""

import json
from dataclasses import replace

import numpy as np
import pytest

import jaxsnn
from jaxsnn import EventDriven, Events, TimeStepped
from jaxsnn.nir import build, write
from jaxsnn.train import TrainOptions, evaluate, evaluate_neurobench, fit, splits_of_arrays
from jaxsnn.train.loop.evaluation import with_all_output_spikes
from jaxsnn.train.loop.train_plan import make_plan
from jaxsnn.train.tuning import Tuned, _measured
from tests.helpers.command_line import run_cli_json
from tests.helpers.small_task import DATA, small_net
from tests.helpers.static_digits import FILE, STEPS, static_digits

ONCE = {"epochs": 1, "progress": None}


def test_fit_measures_the_trained_graph_on_the_test_samples():
    plain = fit(small_net(), DATA, **ONCE)
    trained = fit(small_net(), DATA, **ONCE, neurobench=True)
    assert plain.neurobench is None
    assert plain.as_dict()["neurobench"] is None
    assert trained.as_dict() | {"neurobench": None, "notes": []} == plain.as_dict() | {"notes": []}
    metrics = evaluate_neurobench(trained.graph, DATA.test, bias=True)
    assert metrics == trained.neurobench
    assert (
        metrics.accuracy == trained.test_accuracy == evaluate(trained.graph, DATA.test, bias=True)
    )
    assert (metrics.samples, metrics.dense) == (len(DATA.test), None)
    assert set(metrics.notes) <= set(trained.notes)
    assert trained.as_dict()["neurobench"] == metrics.as_dict()
    # each input spike reaches 20 neurons, each of their spikes 3
    assert metrics.effective_acs > 5 * 20


def test_operations_of_several_batches_are_means_over_all_samples():
    """One event per sample, from 0 to 3 of 4 channels with different fan-out; more than a batch."""
    weight = np.array([[9.0, 9.0, 9.0, 0.0], [0.0, 9.0, 9.0, 0.0], [0.0, 0.0, 9.0, 0.0]])
    neurons = build.cubalif(tau_mem="20ms", tau_syn="10ms")
    graph = build.sequential(build.input(4), build.linear(weight=weight), neurons)
    channel = np.arange(1002) % 4
    events = Events(time=np.full((1002, 1), 1e-3), index=channel[:, None])
    metrics = evaluate_neurobench(graph, (events, channel % 3), dt=1e-3, t_end=20e-3)
    fan_out = np.array([1, 2, 3, 0])
    assert metrics.effective_acs == pytest.approx(fan_out[channel].mean(), rel=1e-12)
    assert (metrics.samples, metrics.steps, metrics.dense) == (1002, 20, 20 * 12)
    assert metrics.connection_sparsity == 0.5


def test_output_neurons_continue_after_their_first_spike():
    network = jaxsnn.lower(small_net())
    for stopping in (True, ("2", "4")):
        engine, notes = with_all_output_spikes(EventDriven(first_spike_only=stopping), network, "4")
        assert (engine.first_spike_only, len(notes)) == (("2",), 1)
    engine, notes = with_all_output_spikes(EventDriven(first_spike_only=("4",)), network, "4")
    assert (engine.first_spike_only, notes) == ((), ())
    for unchanged in (EventDriven(), TimeStepped()):
        assert with_all_output_spikes(unchanged, network, "4") == (unchanged, ())


def test_operations_of_output_spikes_after_the_first_are_counted():
    """An output neuron that inhibits another: each of its spikes is an operation."""
    nodes = {
        "input": build.input(1),
        "in": build.linear(weight=[[40.0], [0.0]]),
        "neurons": build.cubalif(tau_mem="20ms", tau_syn="10ms"),
        "back": build.linear(weight=[[0.0, 0.0], [-1.0, 0.0]]),
        "output": build.output(),
    }
    edges = ["input in", "in neurons", "neurons back", "back neurons", "neurons output"]
    graph = build.network(nodes, [tuple(edge.split()) for edge in edges])
    events = Events(time=np.full((2, 1), 1e-3), index=np.zeros((2, 1), int))
    solution = jaxsnn.simulate(graph, events, 20e-3)
    count = int(np.isfinite(np.asarray(solution.spikes["neurons"].time)[0]).sum())
    assert count > 2
    for stopping in (True, ("neurons",)):
        metrics = evaluate_neurobench(
            graph,
            (events, np.zeros(2, int)),
            dt=1e-3,
            t_end=20e-3,
            loss="ttfs",
            engine=EventDriven(first_spike_only=stopping, max_spikes=20),
        )
        assert metrics.effective_acs == 1 + count


def test_operations_that_are_not_counted_are_reported():
    engine = EventDriven(first_spike_only=True)
    metrics = evaluate_neurobench(small_net(), DATA.test, bias=True, engine=engine)
    trained = fit(small_net(), DATA, **ONCE, neurobench=True, engine=engine)
    notes = [note for note in metrics.notes if "first_spike_only" in note]
    assert len(notes) == 1
    assert set(notes) <= set(trained.neurobench.notes) & set(trained.notes)


def test_tuning_counts_the_operations_of_each_network():
    images, labels, _ = static_digits()
    data = splits_of_arrays(images, labels)
    options = TrainOptions(data=data, encoder="current", t_end=STEPS * 1e-4, loss="count")
    graph = jaxsnn.read(FILE, dialect="snntorch", reset="zero", reset_delay=True)
    plan = make_plan(jaxsnn.lower(graph), options)
    step = _measured(graph, plan, "in time steps", engine=TimeStepped())
    metrics = step.test.neurobench
    assert step.validation.neurobench is None
    assert (metrics.accuracy, metrics.samples) == (step.test.accuracy, len(data.test))
    assert (metrics.steps, metrics.dense) == (STEPS, STEPS * (64 * 24 + 24 * 10))
    images = data.test.x.reshape(len(data.test), 64)
    spikes = next(iter(step.test.spikes.values()))  # of the hidden neurons
    assert metrics.effective_acs == pytest.approx(10 * spikes, rel=1e-6)
    assert metrics.effective_macs == 24 * STEPS * np.count_nonzero(images) / len(images)
    assert step.as_dict()["neurobench"] == metrics.as_dict()
    tuned = Tuned(steps=(step, replace(step, name="tuned")), chosen=step, notes=())
    assert f"{metrics.operations:.1f}" in tuned.as_text().splitlines()[1]


def test_the_commands_report_them(tmp_path, capsys):
    write(tmp_path / "net.nir", small_net())
    x, y = np.pad(DATA.test.x, ((0, 0), (0, 1))), DATA.test.y
    np.savez(tmp_path / "task.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    command = ["train", tmp_path / "net.nir", "--data", tmp_path / "task.npz", "--epochs", "1"]
    output = ["-o", tmp_path / "out.nir", "--report", tmp_path / "r.html", "--dt", "1ms"]
    content, _ = run_cli_json(capsys, *command, *output)
    history = json.loads((tmp_path / "out.history.json").read_text())
    metrics = content["neurobench"]
    assert metrics == history["neurobench"]
    assert metrics["accuracy"] == content["test_accuracy"]
    assert metrics["synaptic_operations"]["dense"] == metrics["steps"] * (5 * 20 + 20 * 3)
    assert "<h3>NeuroBench</h3>" in (tmp_path / "r.html").read_text()
