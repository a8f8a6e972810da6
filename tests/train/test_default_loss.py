"""The loss where nobody names one, and the accuracy in the time steps of the source."""

import json

import numpy as np
import pytest

from jaxsnn import ApproximationWarning, Events, Note, TimeStepped, lower, simulate, write
from jaxsnn.nir import build
from jaxsnn.nir.initializers import normal
from jaxsnn.train import FirstSpike, fit, splits_of_arrays
from jaxsnn.train.loop.defaults import reference_tau
from tests.helpers.command_line import call
from tests.helpers.small_task import small_net

DT = 1e-3
SNNTORCH = {"dialect": "snntorch", "reset": "subtract", "reset_delay": True, "dt": DT}


def snntorch_net(readout=False, **more):
    """5-12-3, Leaky, beta 0.8."""
    neurons = build.lif(tau=DT / 0.2, r=1 / 0.2)
    first, second = (build.linear(size, weight=normal(0.3, 0.5)) for size in (12, 3))
    options = SNNTORCH | ({"readout": ["4"]} if readout else {}) | more
    return build.sequential(build.input(5), first, neurons, second, neurons, seed=1, **options)


def data(samples=80):
    rng = np.random.default_rng(0)
    y = np.arange(samples) % 3
    rate = 0.15 + 0.5 * (np.arange(5) % 3 == y[:, None])
    return splits_of_arrays(Events.of_steps(rng.random((20, samples, 5)) < rate, dt=DT), y)


def train(graph, samples=None, **options):
    """Train for one epoch."""
    settings = {"epochs": 1, "progress": None, "batch_size": 16} | options
    return fit(graph, data() if samples is None else samples, **settings)


@pytest.mark.parametrize(
    ("make", "options", "loss", "noted"),
    [
        (small_net, {}, "ttfs", False),
        (lambda: small_net().with_dialect(small_net().dialect), {"loss": "count"}, "count", False),
        (snntorch_net, {}, "count", True),
        (snntorch_net, {"engine": "grid"}, "count", True),
        (snntorch_net, {"loss": "ttfs"}, "ttfs", False),
        (snntorch_net, {"loss": FirstSpike(population="4", tau=5e-3, t_max=0.05)}, "ttfs", False),
        (lambda: snntorch_net(readout=True), {}, "max", True),
        (lambda: snntorch_net(readout=True), {"loss": "integral"}, "integral", False),
    ],
)
def test_the_loss_follows_the_readout(make, options, loss, noted):
    trained = train(make(), skip_step_accuracy=True, **options)
    assert trained.settings["loss"]["name"] == loss
    assert (
        any(note.startswith(f"the loss is {loss}, because '4'") for note in trained.notes) is noted
    )


def by_hand(trained, test, read):
    """Accuracy of a trained graph on the test samples, in steps."""
    x = np.zeros((round(trained.settings["t_end"] / DT), len(test), 5), np.float32)
    for sample, (times, index) in enumerate(
        zip(*map(np.asarray, (test.x.time, test.x.index)), strict=True)
    ):
        used = np.isfinite(times)
        np.add.at(x, (np.rint(times[used] / DT).astype(int), sample, index[used]), 1)
    run = simulate(lower(trained.graph), x, engine=TimeStepped(record=True))
    return float(np.mean(read(run) == np.asarray(test.y)))


def most_spikes(run):
    counts = np.asarray(run.spikes["4"]).sum(axis=0)
    return np.where(counts.max(axis=1) > 0, counts.argmax(axis=1), -1)


@pytest.mark.parametrize(
    ("readout", "loss", "read"),
    [
        (False, "count", most_spikes),
        (True, "max", lambda run: np.asarray(run.output()).max(axis=0).argmax(axis=1)),
    ],
)
def test_the_accuracy_in_steps_is_that_of_the_trained_graph(readout, loss, read):
    splits = data()
    trained = train(snntorch_net(readout), splits, loss=loss)
    assert trained.accuracy_in_steps == pytest.approx(by_hand(trained, splits.test, read))
    assert trained.as_dict()["accuracy_in_steps"] == trained.accuracy_in_steps


def notes_of(trained, code="accuracy-in-steps"):
    return [note for note in trained.notes if isinstance(note, Note) and note.code == code]


def test_a_difference_of_more_than_a_point_is_warned_of():
    """First spikes of one step are a tie in steps, and none in continuous time."""
    splits = data()
    with pytest.warns(ApproximationWarning):
        trained = train(snntorch_net(), splits, loss="ttfs")
    counted = by_hand(trained, splits.test, most_spikes)
    for accuracy in (trained.accuracy_in_steps, counted):
        assert abs(accuracy - trained.test_accuracy) > 0.01
    _, note = notes_of(trained)
    assert f"is {counted:.1%}, classified by spike counts" in note


def test_the_stepped_accuracy_is_left_out_where_nothing_compares():
    assert train(small_net()).accuracy_in_steps is None
    in_steps = train(snntorch_net(), engine=TimeStepped())
    assert in_steps.accuracy_in_steps == in_steps.test_accuracy


def test_skipping_changes_nothing_else():
    compared, skipped = (train(snntorch_net(), skip_step_accuracy=skip) for skip in (False, True))
    assert skipped.accuracy_in_steps is None
    assert notes_of(skipped) == []
    assert compared.history == skipped.history
    assert compared.test_accuracy == skipped.test_accuracy


def test_a_network_that_steps_cannot_run_is_trained_all_the_same():
    """Trained delays are no multiples of a step."""
    trained = train(snntorch_net(), synaptic_delays={"3": 1.3e-3})
    assert trained.accuracy_in_steps is None
    (note,) = notes_of(trained)
    assert "could not be computed" in note
    assert note.kind == "approximated"


def test_samples_on_the_disk_are_evaluated_in_pieces():
    at_once, streamed = (train(snntorch_net(), stream=stream) for stream in (None, 8))
    assert at_once.accuracy_in_steps == streamed.accuracy_in_steps


def test_inputs_of_other_steps_are_noted():
    events = Events.of_steps(np.ones((20, 12, 5)), dt=DT / 2)
    trained = train(snntorch_net(), (events, np.arange(12) % 3), skip_step_accuracy=True)
    assert [note.code for note in trained.notes if isinstance(note, Note)] == [
        "default-loss",
        "step-length",
    ]


def test_the_command_reports_it(tmp_path, capsys):
    file, samples, report = (tmp_path / name for name in ("a.nir", "d.npz", "r.html"))
    write(file, snntorch_net())
    splits, arrays = data(), {}
    for name, part in (("train", splits.train), ("test", splits.test)):
        arrays |= {f"time_{name}": part.x.time, f"index_{name}": part.x.index, f"y_{name}": part.y}
    np.savez(samples, **arrays)
    argv = ["train", file, "--data", samples, "-o", tmp_path / "b.nir", "--epochs", "1"]
    argv += ["--loss", "ttfs"]
    code, out, err = call(capsys, *argv, "--json", "--report", report)
    assert code == 0
    accuracy = json.loads(out)["accuracy_in_steps"]
    assert 0 <= accuracy <= 1
    assert "Warning" not in err
    figure = f"<dt>time-stepped as in the source framework</dt><dd>{accuracy:.2%}</dd>"
    assert figure in report.read_text()
    code, out, _ = call(capsys, *argv, "--force")
    assert (code, f"time-stepped   {accuracy:.2%}" in out) == (0, True)
    code, out, _ = call(capsys, *argv, "--force", "--skip-step-accuracy", "--json")
    assert (code, json.loads(out)["accuracy_in_steps"]) == (0, None)


@pytest.mark.parametrize(("tau", "noted"), [("20", 1), ('"20ms"', 0)])
def test_time_constants_of_a_configuration_are_noted_too(tmp_path, capsys, tau, noted):
    (tmp_path / "run.toml").write_text(
        'data = "yinyang"\nepochs = 1\nbatch-size = 2500\n[network]\ninput = 5\n'
        f'tau-mem = {tau}\ntau-syn = "10ms"\nlayers = [{{ neurons = 3, weight = [1.0, 0.5] }}]\n'
    )
    argv = "train", "--config", tmp_path / "run.toml", "-o", tmp_path / "a.nir"
    assert call(capsys, *argv)[2].count("read as seconds") == noted


def test_neurons_without_a_time_constant_count_ten_steps():
    neurons = build.integrate_and_fire(r=1 / DT)
    layers = (build.input(5), build.linear(3), neurons)
    graph = build.sequential(*layers, seed=0, dialect="spikingjelly", reset="zero", dt=DT)
    assert reference_tau(lower(graph), "2") == pytest.approx(10 * DT)
    assert train(graph).settings["loss"]["tau"] == pytest.approx(10 * DT)
