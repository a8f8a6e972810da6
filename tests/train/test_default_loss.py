"""The loss where nobody names one, and the accuracy in the time steps of the source."""

import json

import numpy as np
import pytest

from jaxsnn import ApproximationWarning, Events, Note, TimeStepped, lower, simulate, write
from jaxsnn.commands.cli import main
from jaxsnn.nir import build
from jaxsnn.nir.initializers import normal
from jaxsnn.train import FirstSpike, fit, splits_of_arrays
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


QUICK = {"epochs": 1, "progress": None, "batch_size": 16}


@pytest.mark.parametrize(
    ("make", "options", "loss", "reported"),
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
def test_the_loss_follows_the_readout(make, options, loss, reported):
    found = fit(make(), data(), skip_step_accuracy=True, **options, **QUICK)
    assert found.settings["loss"]["name"] == loss
    assert any(note.startswith(f"the loss is {loss}: '4'") for note in found.notes) is reported


def by_hand(graph, test, t_end, read):
    """Accuracy on the test samples, in steps."""
    steps = round(t_end / DT)
    x = np.zeros((steps, len(test), 5), np.float32)
    for sample, (times, index) in enumerate(
        zip(np.asarray(test.x.time), np.asarray(test.x.index), strict=True)
    ):
        used = np.isfinite(times)
        np.add.at(x, (np.rint(times[used] / DT).astype(int), sample, index[used]), 1)
    run = simulate(lower(graph), x, engine=TimeStepped(record=True))
    return float(np.mean(read(run) == np.asarray(test.y)))


def most(values):
    return np.where(values.max(axis=1) > 0, values.argmax(axis=1), -1)


@pytest.mark.parametrize(
    ("readout", "loss", "read"),
    [
        (False, "count", lambda run: most(np.asarray(run.spikes["4"]).sum(axis=0))),
        (True, "max", lambda run: np.asarray(run.output()).max(axis=0).argmax(axis=1)),
    ],
)
def test_the_accuracy_in_steps_is_that_of_the_trained_graph(readout, loss, read):
    splits = data()
    found = fit(snntorch_net(readout), splits, loss=loss, **QUICK)
    wanted = by_hand(found.graph, splits.test, found.settings["t_end"], read)
    assert found.accuracy_in_steps == pytest.approx(wanted)
    assert found.as_dict()["accuracy_in_steps"] == found.accuracy_in_steps


def about_steps(found):
    return [
        note for note in found.notes if isinstance(note, Note) and note.code == "accuracy-in-steps"
    ]


def test_a_difference_of_more_than_a_point_is_warned_of():
    """First spikes of one step are a tie in steps, and none in continuous time."""
    splits = data()
    with pytest.warns(ApproximationWarning):
        found = fit(snntorch_net(), splits, loss="ttfs", **QUICK)
    assert abs(found.accuracy_in_steps - found.test_accuracy) > 0.01
    assert len(about_steps(found)) >= 1
    counted = by_hand(
        found.graph,
        splits.test,
        found.settings["t_end"],
        lambda run: most(np.asarray(run.spikes["4"]).sum(axis=0)),
    )
    assert abs(counted - found.test_accuracy) > 0.01
    assert f"{counted:.1%} of the test samples, read by spike counts" in about_steps(found)[1]


def test_it_is_left_out_where_there_is_nothing_to_compare():
    assert fit(small_net(), data(), **QUICK).accuracy_in_steps is None
    skipped = fit(snntorch_net(), data(), skip_step_accuracy=True, **QUICK)
    assert skipped.accuracy_in_steps is None
    assert about_steps(skipped) == []
    in_steps = fit(snntorch_net(), data(), engine=TimeStepped(), **QUICK)
    assert in_steps.accuracy_in_steps == in_steps.test_accuracy


def test_skipping_changes_nothing_else():
    with_steps, without = (
        fit(snntorch_net(), data(), skip_step_accuracy=skip, **QUICK) for skip in (False, True)
    )
    assert with_steps.history == without.history
    assert with_steps.test_accuracy == without.test_accuracy


def test_a_network_that_steps_cannot_run_is_trained_all_the_same():
    """Trained delays are no multiples of a step."""
    found = fit(snntorch_net(), data(), synaptic_delays={"3": 1.3e-3}, **QUICK)
    assert found.accuracy_in_steps is None
    (note,) = about_steps(found)
    assert "is unknown" in note
    assert note.kind == "approximated"


def test_samples_on_the_disk_are_evaluated_in_pieces():
    whole, streamed = (fit(snntorch_net(), data(), stream=stream, **QUICK) for stream in (None, 8))
    assert whole.accuracy_in_steps == streamed.accuracy_in_steps


def test_inputs_of_other_steps_are_noted():
    x = np.ones((20, 12, 5))
    found = fit(
        snntorch_net(),
        (Events.of_steps(x, dt=DT / 2), np.arange(12) % 3),
        skip_step_accuracy=True,
        **QUICK,
    )
    assert [note.code for note in found.notes if isinstance(note, Note)] == ["step-length"]


def test_the_command_reports_it(tmp_path, capsys):
    file, given, out = tmp_path / "a.nir", tmp_path / "d.npz", tmp_path / "b.nir"
    write(file, snntorch_net())
    splits = data()
    arrays = {}
    for part in ("train", "test"):
        own = getattr(splits, part)
        arrays |= {f"time_{part}": own.x.time, f"index_{part}": own.x.index, f"y_{part}": own.y}
    np.savez(given, **arrays)
    words = [
        "train",
        str(file),
        "--data",
        str(given),
        "-o",
        str(out),
        "--epochs",
        "1",
        "--loss",
        "ttfs",
    ]
    report = tmp_path / "r.html"
    assert main([*words, "--json", "--report", str(report)]) == 0
    printed, err = capsys.readouterr()
    content = json.loads(printed)
    assert 0 <= content["accuracy_in_steps"] <= 1
    assert "Warning" not in err
    assert (
        f"in the time steps of the source {content['accuracy_in_steps']:.2%}" in report.read_text()
    )
    assert main([*words, "--force"]) == 0
    assert f"in time steps  {content['accuracy_in_steps']:.2%}" in capsys.readouterr().out
    assert main([*words, "--force", "--skip-step-accuracy", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["accuracy_in_steps"] is None


@pytest.mark.parametrize(("tau", "noted"), [("20", 1), ('"20ms"', 0)])
def test_time_constants_of_a_configuration_are_noted_too(tmp_path, capsys, tau, noted):
    config = tmp_path / "run.toml"
    config.write_text(
        'data = "yinyang"\nepochs = 1\nbatch-size = 2500\n[network]\ninput = 5\n'
        f'tau-mem = {tau}\ntau-syn = "10ms"\nlayers = [{{ neurons = 3, weight = [1.0, 0.5] }}]\n'
    )
    main(["train", "--config", str(config), "-o", str(tmp_path / "a.nir")])
    assert capsys.readouterr().err.count("read as seconds") == noted
