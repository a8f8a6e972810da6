"""`jaxsnn tune`: accuracy against spikes, before and after."""

import json
import re
from dataclasses import replace

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
from tests.helpers.static_digits import FILE, STEPS, static_digits

T_END = STEPS * 1e-4


@pytest.fixture(scope="module")
def digits():
    return static_digits()


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
    code, said, err = call(
        capsys, "tune", FILE, *SAID, "--data", task, *RUN, *few, "-o", out, "--json"
    )
    assert code == 0, err
    found = json.loads(said)
    source = found["source"]
    assert source["accuracy"] == np.mean(spikes.sum(axis=0).argmax(axis=1) == labels)
    last = list(source["spikes"])[-1]
    assert source["spikes"][last] == pytest.approx(spikes.sum() / len(labels))
    assert source["spikes_per_sample"] == pytest.approx(sum(source["spikes"].values()))
    budgets = [step["budget"] for step in found["tuned"]]
    assert budgets == [200, 120]
    counts = [found["continuous"], *found["tuned"]]
    counts = [step["spikes_per_sample"] for step in counts]
    assert counts[0] > counts[1] > counts[2]
    assert found["chosen"] in [step["name"] for step in found["tuned"]]
    assert (
        jaxsnn.read(out).nodes.keys()
        == jaxsnn.read(FILE, dialect="snntorch", reset="zero").nodes.keys()
    )


@pytest.mark.slow
def test_without_a_budget_it_is_tuned_once(digits):
    images, labels, _ = digits
    graph = jaxsnn.read(FILE, dialect="snntorch", reset="zero", reset_delay=True)
    options = TrainOptions(
        data=splits_of_arrays(images, labels),
        loss="count",
        encoder="current",
        t_end=T_END,
        epochs=1,
        progress=None,
    )
    tuned = tune(graph, options)
    assert [step.name for step in tuned.steps] == [
        "as the source simulates it",
        "in continuous time",
        "tuned",
    ]
    assert tuned.chosen is tuned.steps[-1]
    assert "chosen: tuned" in tuned.as_text()


@pytest.mark.parametrize(
    ("said", "message"),
    [
        (("--spikes-per-sample", "0"), "a budget is 0 spikes"),
        (("--spikes-per-sample", "many"), "--spikes-per-sample is 'many'.*numbers, with commas"),
        (("--spikes-per-sample", ","), "--spikes-per-sample is ','.*numbers, with commas"),
        (("--engine", "grid"), "--engine is 'grid'.*continuous time"),
        (("--resume",), "--resume is True.*from the beginning"),
        (
            ("--calibrate", "0.5"),
            "calibrate.* is 0.5: leave it out: tuning begins with the network",
        ),
        (("--config", "net.toml"), "net.toml has a network, and .* is given, too"),
    ],
)
def test_what_makes_no_sense_is_refused(said, message, task, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.toml").write_text("[network]\ninput = 3\n")
    _, error = refused(
        capsys, "tune", FILE, *SAID, "--data", task, *RUN, *said, "-o", tmp_path / "o.nir"
    )
    assert re.search(message, error)


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"engine": "grid"}, "the engine is grid"),
        ({"engine": jaxsnn.TimeStepped()}, "the engine is grid"),
        ({"checkpoint": "folder"}, "checkpoint is folder"),
        ({"synaptic_delays": {"0": 1e-3}}, "synaptic_delays"),
    ],
)
def test_what_is_not_tuning_is_refused_before_anything_is_run(said, message, digits):
    graph = jaxsnn.read(FILE, dialect="snntorch", reset="zero", reset_delay=True)
    with pytest.raises(UsageError, match=message):
        tune(graph, TrainOptions(data=digits[:2], loss="count", **said))


def test_spikes_after_those_that_a_loss_reads_count_too(digits, monkeypatch):
    """As the tuned file fires them: the loss of first spikes reads one of each output."""
    images, labels, _ = digits
    graph = jaxsnn.read(FILE, dialect="snntorch", reset="zero", reset_delay=True)
    data = splits_of_arrays(images, labels)
    options = TrainOptions(data=data, loss="ttfs", encoder="current", t_end=T_END)
    plan = make_plan(jaxsnn.lower(graph), options)
    assert plan.engine.stops("3")
    engines, nothing = [], Measured(accuracy=0.0, spikes={})

    def seen(graph, data, *, engine, **how):
        engines.append(engine)
        return nothing

    monkeypatch.setattr("jaxsnn.train.tuning.measure", seen)
    _measured(graph, plan, "in continuous time")
    assert [engine.stops("3") for engine in engines] == [False, False]
    # and so they are trained, unless somebody says otherwise
    monkeypatch.setattr("jaxsnn.train.tuning._trained", _Seen.of)
    for said, stops in (({}, False), ({"engine_options": {"first-spike-only": True}}, True)):
        with pytest.raises(_Seen) as found:
            tune(graph, replace(options, **said))
        chosen = make_plan(jaxsnn.lower(graph), found.value.args[0])
        assert chosen.engine.stops("3") == stops


class _Seen(Exception):
    @classmethod
    def of(cls, graph, options, name):
        raise cls(options)


def test_a_source_without_steps_is_refused():
    from tests.helpers.small_task import DATA, small_net

    with pytest.raises(UsageError, match="no time steps"):
        tune(small_net(), TrainOptions(data=DATA))


def test_of_a_run_that_fails_the_best_epoch_counts():
    from tests.helpers.small_task import DATA, small_net

    options = TrainOptions(data=DATA, epochs=3, learning_rate=1e38, progress=None)
    found = _trained(small_net(), options, "tuned, 200 spikes a sample")
    assert found.best_epoch == 0
    start = "'tuned, 200 spikes a sample' is epoch 0, the best before the run failed: "
    assert found.notes[-1].startswith(start)
    assert "lower the learning rate from 1e+38" in found.notes[-1]


def test_tuning_does_not_advise_what_it_refuses():
    """`calibrate` is for training alone."""
    from tests.helpers.small_task import DATA, small_net

    net = small_net()
    silent = {
        name: net.nodes[name].replace(v_threshold=1e6 + 0 * np.array(node.value("v_threshold")))
        for name, node in net.nodes.items()
        if "v_threshold" in node.parameters
    }
    options = TrainOptions(data=DATA, epochs=2, progress=None)
    note = _trained(net.with_nodes(list(silent.values())), options, "tuned").notes[-1]
    assert "enlarge its input weights, or lower the learning rate" in note


def test_tuning_does_not_advise_budgets_that_it_lacks(tmp_path, capsys):
    """It has no `--max-spikes`."""
    path = tmp_path / "fast.nir"
    affine = build.affine(weight=np.full((2, 3), 3e3), bias=np.full(2, 3e4))
    neurons = build.cubalif(tau_mem="100us", tau_syn="500us")
    write(path, build.sequential(build.input(3), affine, neurons))
    x, y = np.full((10, 3), 0.5), np.arange(10) % 2
    np.savez(tmp_path / "task.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    given = ("--data", tmp_path / "task.npz", "--dt", "100us", "-o", tmp_path / "o.nir")
    _, line = refused(capsys, "tune", path, *given)
    assert "fires at least" in line
    assert "end samples earlier" in line
    assert "max-spikes" not in line


class Counted:
    """A solution of two populations: 3 and 5, 1 and 0 spikes in two samples."""

    spikes = ("a", "b")

    def count(self, name):
        return {"a": jnp.array([[1.0, 2.0], [1.0, 0.0]]), "b": jnp.array([[5.0], [0.0]])}[name]


def test_the_help_lists_what_tuning_takes(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["tune", "--help"])
    said = capsys.readouterr().out
    assert "--epochs" in said
    assert not re.search(r"--(engine|plot|calibrate|resume)\b", said)


def test_a_budget_counts_all_spikes_of_a_sample_and_costs_nothing_below(monkeypatch):
    monkeypatch.setattr(
        "jaxsnn.train.losses.regularizers.firing", lambda _, solution: solution.spikes
    )
    values = SpikeBudget(most=4.0, strength=3.0)(None, Counted())
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
