"""`jaxsnn tune`: accuracy against spikes, before and after."""

import json
import re
from dataclasses import replace
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest

import jaxsnn
from jaxsnn.commands.cli import main
from jaxsnn.errors import UsageError
from jaxsnn.nir import build, write
from jaxsnn.train import EpochRecord, SpikeBudget, TrainOptions, splits_of_arrays, tune
from jaxsnn.train.loop.evaluation import Measured
from jaxsnn.train.loop.history import merit
from jaxsnn.train.loop.train_plan import make_plan
from jaxsnn.train.tuning import TuningPoint, _chosen, _measured, _trained
from tests.helpers.command_line import call, refused
from tests.helpers.refusals import assert_refused
from tests.helpers.small_task import DATA, small_net
from tests.helpers.static_digits import FILE, STEPS, static_digits

T_END = STEPS * 1e-4


def options_of(digits, **options):
    data = splits_of_arrays(*digits[:2])
    return TrainOptions(data=data, encoder="current", t_end=T_END, **options)


@pytest.fixture(scope="module")
def digits():
    return static_digits()


def source():
    return jaxsnn.read(FILE, dialect="snntorch", reset="zero", reset_delay=True)


@pytest.fixture
def task(digits, tmp_path):
    images, labels, _ = digits
    np.savez(tmp_path / "task.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
    return tmp_path / "task.npz"


SAID = ("--dialect", "snntorch", "--reset", "zero", "--reset-delay", "true")
RUN = ("--loss", "count", "--encoder", "current", "--t-end", "2.5ms", "--lr", "0.01")


@pytest.mark.slow
def test_the_command_finds_fewer_spikes(task, digits, tmp_path, capsys):
    _, labels, spikes = digits
    out = tmp_path / "out.nir"
    few = ("--epochs", "2", "--batch-size", "16", "--spikes-per-sample", "120,200")
    argv = "tune", FILE, *SAID, "--data", task, *RUN, *few, "-o", out, "--json"
    code, printed, err = call(capsys, *argv)
    assert code == 0, err
    tuning = json.loads(printed)
    before, tuned = tuning["source"], tuning["tuned"]
    assert before["accuracy"] == np.mean(spikes.sum(axis=0).argmax(axis=1) == labels)
    last = list(before["spikes"])[-1]
    assert before["spikes"][last] == pytest.approx(spikes.sum() / len(labels))
    assert before["spikes_per_sample"] == pytest.approx(sum(before["spikes"].values()))
    assert [step["budget"] for step in tuned] == [200, 120]
    counts = [step["spikes_per_sample"] for step in (tuning["continuous"], *tuned)]
    assert counts[0] > counts[1] > counts[2]
    assert tuning["chosen"] in [step["name"] for step in tuned]
    assert jaxsnn.read(out).nodes.keys() == source().nodes.keys()


@pytest.mark.slow
def test_callbacks_see_the_run_of_each_budget(digits):
    epochs = []
    callbacks = (lambda report: epochs.append(report.epoch),)
    options = options_of(digits, loss="count", epochs=1, progress=None, callbacks=callbacks)
    tune(source(), options, budgets=(200, 120))
    assert epochs == [0, 1, 0, 1]


@pytest.mark.slow
def test_without_a_budget_it_is_tuned_once(digits):
    options = options_of(digits, loss="count", epochs=1, progress=None)
    tuned = tune(source(), options)
    assert [step.name for step in tuned.steps] == [
        "in time steps of the source framework",
        "in continuous time",
        "tuned",
    ]
    assert tuned.chosen is tuned.steps[-1]
    assert "chosen: tuned" in tuned.as_text()


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (("--spikes-per-sample", "0"), "a budget is 0 spikes"),
        (
            ("--spikes-per-sample", "many"),
            "--spikes-per-sample is 'many'.*numbers separated by commas",
        ),
        (("--spikes-per-sample", ","), "--spikes-per-sample is ','.*numbers separated by commas"),
        (("--engine", "grid"), "--engine is 'grid'.*continuous time"),
        (("--resume",), "--resume is True.*from the beginning"),
        (
            ("--calibrate", "0.5"),
            "calibrate.* is 0.5, and tuning does not support it: leave it out",
        ),
        (
            ("--config", "net.toml"),
            r"network is specified twice, in net\.toml and in .*\.nir: omit the NIR file, or "
            r"remove the \[network\] table",
        ),
    ],
)
def test_what_makes_no_sense_is_refused(argv, message, task, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.toml").write_text("[network]\ninput = 3\n")
    _, error = refused(capsys, "tune", FILE, *SAID, "--data", task, *RUN, *argv, "-o", "o.nir")
    assert re.search(message, error)


@pytest.mark.parametrize(
    ("graph", "options", "message"),
    [
        (source, {"engine": "grid"}, "the engine is grid"),
        (source, {"engine": jaxsnn.TimeStepped()}, "the engine is grid"),
        (source, {"checkpoint": "folder"}, "checkpoint is folder"),
        (source, {"synaptic_delays": {"0": 1e-3}}, "synaptic_delays"),
        (small_net, {"data": DATA}, "the time step of the source framework is not specified"),
    ],
)
def test_what_is_not_tuning_is_refused_before_anything_is_run(graph, options, message, digits):
    settings = TrainOptions(**{"data": digits[:2], "loss": "count"} | options)
    assert_refused(lambda: tune(graph(), settings), UsageError, message)


def test_spikes_after_those_that_a_loss_reads_count_too(digits, monkeypatch):
    """As the tuned file fires them: the loss of first spikes reads one of each output."""
    graph, options = source(), options_of(digits, loss="ttfs")
    plan = make_plan(jaxsnn.lower(graph), options)
    assert plan.engine.stops("3")
    engines = []

    def record(graph, data, *, engine, **options):
        engines.append(engine)
        return Measured(accuracy=0.0, spikes={})

    monkeypatch.setattr("jaxsnn.train.tuning.measure", record)
    _measured(graph, plan, "in continuous time")
    assert [engine.stops("3") for engine in engines] == [False, False]
    # Training also uses these settings, unless the options specify others.
    monkeypatch.setattr("jaxsnn.train.tuning._trained", _Seen.of)
    for changes, stops in (({}, False), ({"engine_options": {"first-spike-only": True}}, True)):
        with pytest.raises(_Seen) as seen:
            tune(graph, replace(options, **changes))
        chosen = make_plan(jaxsnn.lower(graph), seen.value.args[0])
        assert chosen.engine.stops("3") == stops


class _Seen(Exception):
    @classmethod
    def of(cls, graph, options, name):
        raise cls(options)


def test_of_a_run_that_fails_the_best_epoch_counts():
    options = TrainOptions(data=DATA, epochs=3, learning_rate=1e38, progress=None)
    point, stopped = _trained(small_net(), options, "tuned, 200 spikes per sample")
    assert stopped is None
    assert point.best_epoch == 0
    start = "'tuned, 200 spikes per sample' is epoch 0, the best epoch of a run that failed: "
    assert point.notes[-1].startswith(start)
    assert "lower the learning rate from 1e+38" in point.notes[-1]


def test_tuning_does_not_advise_what_it_refuses():
    """`calibrate` is for training alone."""
    net = small_net()
    silent = [net.nodes[name].replace(v_threshold=1e6) for name in ("2", "4")]
    options = TrainOptions(data=DATA, epochs=2, progress=None)
    note = _trained(net.with_nodes(silent), options, "tuned")[0].notes[-1]
    assert "use larger input weights, or lower the learning rate" in note


def test_tuning_does_not_advise_budgets_that_it_lacks(tmp_path, capsys):
    """It has no `--max-spikes`."""
    path, data = tmp_path / "fast.nir", tmp_path / "task.npz"
    affine = build.affine(weight=np.full((2, 3), 3e3), bias=np.full(2, 3e4))
    neurons = build.cubalif(tau_mem="100us", tau_syn="500us")
    write(path, build.sequential(build.input(3), affine, neurons))
    x, y = np.full((10, 3), 0.5), np.arange(10) % 2
    np.savez(data, x_train=x, y_train=y, x_test=x, y_test=y)
    argv = "tune", path, "--data", data, "--dt", "100us", "-o", tmp_path / "o.nir"
    line = refused(capsys, *argv)[1]
    assert "fires at least" in line
    assert "pass an earlier" in line
    assert "max-spikes" not in line


def test_the_help_lists_what_tuning_takes(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["tune", "--help"])
    text = capsys.readouterr().out
    assert "--epochs" in text
    assert not re.search(r"--(engine|plot|calibrate|resume)\b", text)


def test_a_budget_counts_all_spikes_of_a_sample_and_costs_nothing_below(monkeypatch):
    """Of two populations, which fire 3 and 5 spikes in the first sample, 1 and 0 in the second."""
    counts = {"a": jnp.array([[1.0, 2.0], [1.0, 0.0]]), "b": jnp.array([[5.0], [0.0]])}
    solution = SimpleNamespace(spikes=("a", "b"), count=counts.get)
    monkeypatch.setattr(
        "jaxsnn.train.losses.regularizers.firing", lambda _, solution: solution.spikes
    )
    values = SpikeBudget(most=4.0, strength=3.0)(None, solution)
    assert np.allclose(values, [0.5 * 3.0 * (8 / 4 - 1) ** 2, 0.0])


def test_the_best_epoch_keeps_to_the_budget_before_all_else():
    budget = SpikeBudget(most=100.0)
    assert budget.excess(104.0) == 0.0
    assert budget.excess(205.0) == pytest.approx(1.0)
    record = EpochRecord(
        epoch=0,
        train_loss=0.0,
        train_accuracy=0.0,
        validation_loss=0.5,
        validation_accuracy=0.9,
        undecided=0.0,
        silent={},
        spikes={},
        clipped=0.0,
        max_spikes=1,
    )
    worse = replace(record, validation_accuracy=0.8)
    assert merit(worse, 0.0) > merit(record, 0.1)
    assert merit(record, 0.1) > merit(worse, 0.1)


def test_of_the_tuned_ones_the_cheapest_that_is_good_enough_is_chosen():
    def step(name, accuracy, spikes):
        measured = Measured(accuracy=accuracy, spikes={"a": spikes, "b": 1.0})
        return TuningPoint(name=name, test=measured, validation=measured, graph=None)

    steps = [step("many", 0.97, 300.0), step("some", 0.95, 150.0), step("few", 0.9, 50.0)]
    assert _chosen(steps, 0.95).name == "some"
    assert _chosen(steps, 0.99).name == "many"
