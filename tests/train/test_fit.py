"""Training: it learns, it is deterministic, it stops where it must, and it never trains on lost
spikes.
"""

import dataclasses
import json
import re
import sys
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsnn.errors import SimulationError, UsageError
from jaxsnn.event.event_driven import EventDriven
from jaxsnn.grid.time_stepped import TimeStepped
from jaxsnn.network.lowering.lower import lower
from jaxsnn.network.network import Network
from jaxsnn.network.spikes import Events
from jaxsnn.network.structure import Wire
from jaxsnn.nir import build
from jaxsnn.nir.initializers import constant, normal
from jaxsnn.simulation.simulate import simulate
from jaxsnn.train import (
    Bounded,
    Dropout,
    FirstSpike,
    Jitter,
    Latency,
    SpikeBudget,
    SpikeRate,
    TrainingStopped,
    TrainOptions,
    WeightBumping,
    evaluate,
    fit,
    fitting,
    yinyang_splits,
)
from jaxsnn.train.loop.defaults import make_loss, refuse_unfit
from jaxsnn.train.loop.history import EpochRecord, ending_notes
from jaxsnn.train.loop.train_plan import make_plan, plan_notes
from tests.helpers.refusals import assert_refused
from tests.helpers.small_task import DATA, QUICK, small_net


@pytest.fixture(scope="module")
def trained():
    return fit(small_net(), DATA, **QUICK)


def test_training_learns(trained):
    before, best = trained.history[0], trained.history[trained.best_epoch]
    assert before.validation_accuracy < 0.5
    assert best.validation_accuracy > 0.7
    assert trained.history[-1].train_loss < 0.5 * before.train_loss
    assert [record.epoch for record in trained.history] == list(range(13))
    assert len(trained.seconds) == 13
    assert trained.settings["loss"]["name"] == "ttfs"
    assert trained.settings["t_end"] == pytest.approx(0.065)
    assert "from 0 s to 20 ms" in trained.notes[0]
    assert "because they do not fill a batch: 36 of 292" in trained.notes[1]


def test_the_graph_is_that_of_the_best_epoch(trained):
    """Played by itself, with the full dynamics of all neurons, it has the accuracies that were
    reported.
    """
    best = max(
        trained.history, key=lambda record: (record.validation_accuracy, -record.validation_loss)
    )
    assert trained.best_epoch == best.epoch
    network = lower(trained.graph)
    loss, engine = make_loss("ttfs", network), EventDriven(max_spikes="auto")
    encode = Latency(t_min=0.0, t_max=2 * loss.tau, bias=True, first="small")
    for data, reported in (
        (DATA.test, trained.test_accuracy),
        (DATA.validation, best.validation_accuracy),
    ):
        answers = loss.predict(simulate(network, encode(data.x), loss.t_max, engine=engine))
        assert np.mean(np.asarray(answers) == data.y) == pytest.approx(reported)


def test_only_weights_change(trained):
    before = small_net()
    for name, node in before.nodes.items():
        for key, value in node.parameters.items():
            same = np.array_equal(value, trained.graph.nodes[name].parameters[key])
            assert same == (key != "weight"), (name, key)


def weights_of(graph):
    return [np.asarray(graph.nodes[name].weight) for name in ("1", "3")]


def test_two_runs_are_equal(trained):
    again = fit(small_net(), DATA, **QUICK)
    assert json.dumps(again.as_dict()) == json.dumps(trained.as_dict())
    for first, second in zip(weights_of(trained.graph), weights_of(again.graph), strict=True):
        assert np.array_equal(first, second)


RUN = """
import hashlib, json, sys, tempfile
from tests.helpers.small_task import DATA, small_net
from jaxsnn.nir import write
from jaxsnn.train import fit
trained = fit(small_net(), DATA, epochs=2, progress=None)
with tempfile.TemporaryDirectory() as folder:
    write(folder + "/out.nir", trained.graph)
    print(hashlib.sha256(open(folder + "/out.nir", "rb").read()).hexdigest())
print(json.dumps(trained.as_dict()))
"""


@pytest.mark.slow
def test_the_hash_seed_changes_nothing(run_python, tmp_path):
    """The second run finds the compiled code of the first, unless it asks for other code."""
    cache = {
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    outputs = [run_python(RUN, PYTHONHASHSEED=seed, **cache).stdout for seed in ("0", "1")]
    assert outputs[0] == outputs[1]
    assert len(outputs[0]) > 1000


@pytest.mark.usefixtures("auto_is_native")  # XLA's rounding depends on array sizes
def test_an_epoch_that_exhausts_the_budget_is_repeated_and_loses_nothing(monkeypatch):
    """Hidden neurons whose weights are always bumped soon fire twice: one spike is too few, four are
    always enough.
    """
    monkeypatch.setattr(
        sys.modules["jaxsnn.train.loop.passes"], "room_for_training", lambda needed: needed
    )
    net, lines = small_net(first=(1.0, 0.2)), []
    bumping = WeightBumping(hidden=1.0, hidden_fraction=1.1)
    settings = QUICK | {"epochs": 3, "weight_bumping": bumping}
    engine = EventDriven(max_spikes=1, first_spike_only=("4",), min_slope=0.04)
    narrow = fit(net, DATA, **settings | {"progress": lines.append}, engine=engine)
    assert any(re.search("epoch 1: .* repeating with a budget of 2", line) for line in lines)
    assert [record.max_spikes for record in narrow.history] == [1, 2, 2, 2]
    narrow, wide = (
        [dataclasses.replace(record, max_spikes=0) for record in run.history]
        for run in (narrow, fit(net, DATA, **settings))
    )
    assert narrow == wide


@pytest.mark.parametrize(
    ("budget", "room"), [("auto", 16), ({"4": 4}, 16), ({"2": "auto"}, 16), (7, 7)]
)
def test_the_budget_is_recorded_however_it_is_said(budget, room):
    """Populations that a mapping leaves out have the default, as with "auto"."""
    engine = EventDriven(max_spikes=budget)
    trained = fit(small_net(), DATA, **(QUICK | {"epochs": 1}), engine=engine)
    assert [record.max_spikes for record in trained.history] == [room, room]


def test_a_neuron_that_fires_without_end_is_refused(monkeypatch):
    monkeypatch.setattr(sys.modules["jaxsnn.train.loop.passes"], "_LARGEST_BUDGET", 3)
    engine = EventDriven(max_spikes=2, first_spike_only=("4",))
    assert_refused(
        lambda: fit(small_net(first=(6.0, 0.1)), DATA, **QUICK, engine=engine),
        SimulationError,
        r"a neuron of '2' fires \d+ spikes, and the budget is 2 .*; the limit is 3",
        node="2",
        code="budget",
    )


def test_weights_of_silent_outputs_are_bumped_until_they_fire():
    before, *_, after = fit(small_net(second=(0.02, 0.01)), DATA, **QUICK).history
    assert before.undecided == 1.0
    assert after.undecided < 0.1
    assert after.validation_accuracy > 0.4


def test_outputs_that_stay_silent_stop_the_run():
    off = WeightBumping(label=0.0, hidden=0.0)
    with pytest.raises(
        TrainingStopped, match=r"no neuron of '4' fires .*such epochs: 12\)"
    ) as stopped:
        fit(small_net(second=(0.02, 0.01)), DATA, **QUICK, weight_bumping=off)
    assert (
        stopped.value.fix
        == "use larger input weights, for example with calibrate=0.5, or lower the learning rate from 0.05"
    )
    assert len(stopped.value.fit.history) == 13
    assert stopped.value.fit.best_epoch == 0


def test_weights_of_silent_hidden_neurons_are_bumped_until_they_fire():
    quiet = small_net(first=(0.35, 0.05), second=(1.0, 0.3))
    before, *_, after = fit(quiet, DATA, **QUICK, weight_bumping={"hidden": 1.0}).history
    assert before.silent["2"] == 1.0
    assert after.silent["2"] < 0.8


def fallible(epochs, *rates, **options):
    """Train with a learning rate for each epoch of 73 steps, the last for all others."""

    def schedule(step):
        return rates[min(int(step) // 73, len(rates) - 1)]

    settings = QUICK | {"batch_size": 4, "epochs": epochs, "schedule": schedule} | options
    return fit(small_net(), DATA, **settings)


def test_a_run_that_collapses_goes_back_to_its_best_epoch():
    """It has collapsed after 200 steps of hardly any right answers: three epochs of 73 here."""
    trained = fallible(7, 0.02, 0.02, 20.0)
    (note,) = (note for note in trained.notes if "collapsed" in note)
    assert re.search(
        r"at epoch 5 \(number of such epochs: 3\): training goes back to epoch 2, with steps multiplied by 0\.33",
        note,
    )
    assert [record.factor for record in trained.history] == [1.0] * 6 + [pytest.approx(1 / 3)] * 2


def test_a_run_that_learned_nothing_notes_it():
    """Too few steps for a failure: six in three epochs."""
    nothing = fit(small_net(), DATA, **QUICK | {"epochs": 3, "schedule": lambda step: 20.0})
    assert nothing.best_epoch == 0
    (note,) = (note for note in nothing.notes if "better validation result than" in note)
    assert note.endswith("than the initial weights, which are returned")


@pytest.mark.parametrize(
    ("accuracies", "undecided", "words"),
    [
        ((0.3, 0.2, 0.1), (0.0, 0.5, 1.0), ["in the last epoch no neuron of '4' fired in any"]),
        ((0.3, 0.9, 0.1, 0.1), (0.0, 0.0, 1.0, 1.0), ["in the last 2 epochs no neuron of '4'"]),
        ((0.3, 0.9, 0.5, 0.5), (0.0,) * 4, ["below 60% of the best: the best is 90.0%, the last"]),
        ((0.3, 0.9, 0.1, 0.8), (0.0,) * 4, []),
        ((0.3,), (1.0,), []),
    ],
)
def test_how_a_run_ended_is_noted(accuracies, undecided, words):
    history = [
        EpochRecord(
            **dict.fromkeys(("train_loss", "train_accuracy", "validation_loss", "clipped"), 0.0),
            **{"epoch": epoch, "validation_accuracy": right, "undecided": none},
            **{"silent": {}, "spikes": {}, "max_spikes": 0},
        )
        for epoch, (right, none) in enumerate(zip(accuracies, undecided, strict=True))
    ]
    best = max(history, key=lambda record: record.validation_accuracy)
    notes = ending_notes(history, best, "4", collapsed=0.6)
    notes = [note for note in notes if "better validation result than" not in note]
    assert len(notes) == len(words)
    assert all(text in note for text, note in zip(words, notes, strict=True))


def test_with_an_average_it_goes_back_to_the_average_that_validated_best():
    """With steps of zero from there on, what is trained is what was restored."""
    trained = fallible(6, 0.02, 0.02, 20.0, 20.0, 20.0, 0.0, ema_decay=0.99)
    (note,) = (note for note in trained.notes if "collapsed" in note)
    assert "goes back to epoch 2" in note
    best, last = trained.history[2], trained.history[6]
    accuracy = evaluate(trained.graph, DATA.train, bias=True)
    assert last.train_accuracy == pytest.approx(accuracy, abs=1e-6)
    assert last.validation_accuracy == best.validation_accuracy


@pytest.mark.parametrize("on_failure", ["stop", pytest.param("back", marks=pytest.mark.slow)])
def test_not_a_number_stops_the_run_and_keeps_the_best(on_failure):
    with pytest.raises(TrainingStopped, match=r"lower the learning rate from 1e\+38") as stopped:
        fit(small_net(), DATA, **{**QUICK, "learning_rate": 1e38, "on_failure": on_failure})
    trained = stopped.value.fit
    first, best = trained.history[0], trained.history[trained.best_epoch]
    assert np.isfinite(trained.graph.nodes["1"].weight).all()
    assert best.validation_accuracy >= first.validation_accuracy


def test_first_spikes_only_in_a_hidden_population_are_a_loss_that_is_reported():
    notes = plan_notes(lower(small_net()), EventDriven(first_spike_only=True))
    assert any("population '2' stops after its first spike" in note for note in notes)
    assert not any("population '4' stops after its first spike" in note for note in notes)


@pytest.mark.slow
def test_the_learning_rate_means_the_same_in_every_dialect():
    """The same network with its gain in r, w_in and dt, as snnTorch writes it, and small weights:
    the same training.
    """
    large = small_net()
    dt, tau_mem, tau_syn = 1e-4, 20e-3, 10e-3
    neurons = build.cubalif(tau_mem=tau_mem, tau_syn=tau_syn, r=tau_mem / dt, w_in=tau_syn / dt)
    layers = [build.linear(weight=weight * dt / tau_mem) for weight in weights_of(large)]
    small = build.sequential(
        build.input(5), layers[0], neurons, layers[1], neurons, dialect="snntorch", reset="zero"
    )
    settings = QUICK | {"epochs": 2, "loss": "ttfs"}
    ours, theirs = (fit(graph, DATA, **settings) for graph in (large, small))
    for first, second in zip(ours.history, theirs.history, strict=True):
        assert second.train_loss == pytest.approx(first.train_loss, rel=0.02)
    for before, after, scaled in zip(
        *(weights_of(graph) for graph in (large, ours.graph, theirs.graph)), strict=True
    ):
        gap = np.abs(scaled * tau_mem / dt - after).max()
        assert gap < 0.1 * np.abs(after - before).max()


def test_the_notes_say_when_batches_are_smaller_than_asked_for():
    notes = fit(small_net(), DATA, epochs=1, batch_size=1000, progress=None).notes
    assert "the batch size is 292, not 1000, because there are no more samples" in notes


def test_the_notes_say_whose_spikes_a_budget_does_not_see():
    budget = TrainOptions(data=DATA, regularisers=(SpikeBudget(most=5.0),))
    network = lower(small_net())
    (note,) = [note for note in make_plan(network, budget).notes if "SpikeBudget" in note]
    (output,) = [name for name in network.populations if f"'{name}'" in note]
    assert make_plan(network, budget).engine.stops(output)
    all_spikes = dataclasses.replace(budget, engine_options={"first_spike_only": ()})
    assert not any("SpikeBudget" in note for note in make_plan(network, all_spikes).notes)


def test_one_line_of_progress_for_each_epoch_on_a_terminal(capsys, monkeypatch):
    fit(small_net(), DATA, epochs=2)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    fit(small_net(), DATA, epochs=2)
    out, err = capsys.readouterr()
    assert out == ""
    words = [line.split()[:2] for line in err.splitlines() if line.startswith("epoch")]
    assert words == [["epoch", f"{epoch}/2"] for epoch in range(3)]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"trainable": ("r",)}, "'r' cannot be trained: Available: weight"),
        ({"trainable": ("4.weight",)}, "no parameter 4.weight"),
        ({"trainable": ("bias",)}, "no parameter bias"),
        ({"epochs": 0}, "epochs is 0: pass at least 1"),
        ({"epochs": 1.5}, "epochs is 1.5, of type float: pass an integer of at least 1"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"learning_rate": "0.1"}, "learning_rate is '0.1': pass a positive, finite number"),
        ({"t_end": "40ms"}, "t_end is '40ms': pass a positive"),
        ({"ema_decay": "most"}, "ema_decay is 'most': pass a number of at least 0 and below 1"),
        ({"seed": -1}, "seed is -1: pass an integer from 0 to 4294967295"),
        ({"seed": 2**32}, "seed is 4294967296: pass an integer"),
        ({"learning_rate": -1.0}, "learning_rate is -1"),
        ({"t_end": float("nan")}, "t_end is nan"),
        ({"loss": "mze"}, "there is no loss 'mze': did you mean 'mse'"),
        ({"loss": "max"}, "population '4' is spiking, and loss max reads the voltage of a readout"),
        ({"optimiser": "adm"}, "there is no optimiser 'adm': did you mean 'adam'"),
        ({"schedule": "cosin"}, "there is no schedule 'cosin'"),
        ({"ema_decay": 1.0}, "ema_decay is 1: pass a number of at least 0 and below 1"),
        ({"ema_decay": float("nan")}, "ema_decay is nan"),
        ({"clip": float("inf")}, "clip is inf: pass a positive, finite number"),
        ({"weight_bumping": WeightBumping(label=-1.0)}, "bumping.label is -1: pass at least 0"),
        ({"weight_bumping": {"label": None}}, "bumping.label is None: pass at least 0"),
        ({"weight_bumping": WeightBumping(hidden=float("nan"))}, "weight_bumping.hidden is nan"),
        (
            {"weight_bumping": WeightBumping(hidden=float("inf"))},
            "weight_bumping.hidden is inf: pass a finite number",
        ),
        (
            {"trainable": {"weight": Bounded(low=-10.0, high=float("inf"))}},
            "trainable.weight.high is inf: pass a finite number",
        ),
        ({"on_failure": "hope"}, "on_failure is 'hope'"),
        (
            {"engine": "grid", "loss": "ttfs"},
            "loss ttfs reads spike times, which have no gradient on the time-stepped engine",
        ),
        (
            {"loss": "count", "engine": EventDriven(first_spike_only=("4",))},
            "loss count reads all spikes of '4', and first_spike_only stops its neurons after their first spike",
        ),
        (
            {"engine_options": {"max_spikes": [4]}},
            r"max_spikes is \[4\] for '2': pass an integer of at least 1",
        ),
        (
            {"engine_options": {"min_slope": [1.0]}},
            r"min_slope is \[1\.0\]: pass a value of at least 0",
        ),
        ({"engine": EventDriven(first_spike_only=1)}, "first_spike_only is 1: pass True, False"),
        (
            {"engine": EventDriven(first_spike_only=np.True_), "loss": "count"},
            "loss count reads all spikes of '4', and first_spike_only stops its neurons",
        ),
        (
            {"engine": TimeStepped(detach_reset="no"), "loss": "count"},
            "detach_reset is 'no': pass True, False or None",
        ),
        ({"progress": "yes"}, "progress is 'yes': pass a callable object"),
        ({"augment": 3}, "augment is 3: pass a callable object"),
        (
            {"augment": lambda key, sample: None},
            "augment returns NoneType, and the sample is Events: return a",
        ),
        ({"encoder": 3}, "encoder is 3: pass a callable object"),
        (
            {"regularisers": SpikeRate()},
            r"regularisers is SpikeRate\(.*: pass a tuple of objects or functions",
        ),
        (
            {"regularisers": (SpikeRate,)},
            r"regularisers is \(<class .*: pass a tuple of objects or functions",
        ),
        (
            {"loss": 3},
            "loss is 3: pass a callable object with the attributes population, tau, t_max, predict",
        ),
        ({"loss": FirstSpike}, r"loss is the class FirstSpike: pass an instance, FirstSpike\("),
        ({"trainable": {"weight": Bounded}}, "trainable.weight is <class .*: pass a constraint"),
        ({"trainable": {"weight": "free"}}, "trainable.weight is 'free': pass a constraint"),
        ({"trainable": ()}, "trainable is empty: nodes with parameters: 1, 2, 3, 4"),
        ({"weight_bumping": 0.5}, r"weight_bumping is 0\.5: pass WeightBumping"),
        ({"loss_options": [1]}, r"loss_options is \(1,\): pass a mapping from names to values"),
        ({"engine_options": {1: 1}}, "engine_options is {1: 1}: pass a mapping from names"),
        (
            {"options": {"epochs": 1}},
            "options is {'epochs': 1}, not a TrainOptions: pass TrainOptions",
        ),
        ({"devices": 99}, "devices is 99, and the number of devices that JAX sees"),
        ({"encoder": Latency(t_min=0.0, t_max=0.02)}, "has 4 channels, and input 'input' has 5"),
    ],
)
def test_settings_that_make_no_sense_are_refused(changes, message):
    assert_refused(lambda: fit(small_net(), DATA, **changes), UsageError, message)


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        *(
            (make, rf"the probability of dropout is {number:g}: .* below 1")
            for number in (-0.1, 1.0, 2.0, NAN, INF)
            for make in (
                partial(Dropout, probability=number),
                partial(fit, small_net(), DATA, dropout=number),
            )
        ),
        *(
            (partial(Jitter, deviation=number), f"the standard deviation of jitter is {number:g} s")
            for number in (-0.1, NAN, INF)
        ),
    ],
)
def test_noise_of_inputs_without_a_sense_is_refused(make, message):
    assert_refused(make, UsageError, message)
    assert Dropout(probability=0.0).probability == 0.0


EVALUATION = [
    ({"loss": FirstSpike}, "loss is the class FirstSpike"),
    ({"engine": EventDriven}, "is not an engine"),
    ({"engine": 3}, "3 is not an engine: pass EventDriven"),
    ({"engine": EventDriven(max_spikes=[4])}, r"max_spikes is \[4\] for '2'"),
    ({"t_end": "40ms"}, "t_end is '40ms': pass a positive"),
    ({"encoder": 3}, "encoder is 3: pass a callable object"),
    ({"engine": "loop"}, "the device of the engine in the loop is not specified"),
    (
        {"data": None},
        r"data must be Data or \(x, y\), not an object of type NoneType: pass \(x, y\)",
    ),
    (
        {"data": (DATA.test.x, DATA.test.y, DATA.test.y)},
        r"data must be Data or \(x, y\), not a tuple of 3 elements",
    ),
    ({"data": DATA.test.x}, r"of shape .*: pass the labels, too: \(x, y\)"),
]


@pytest.mark.parametrize(("changes", "message"), EVALUATION, ids=lambda case: str(case)[:40])
def test_what_evaluates_nothing_is_refused(changes, message):
    options = {"data": DATA.test} | changes
    assert_refused(lambda: evaluate(small_net(), **options), UsageError, message)


def without_neurons_at_the_end():
    nodes = {"in": build.input(5), "n": build.cubalif(5, tau_mem="20ms", tau_syn="10ms")}
    nodes |= {"w": build.linear(3), "out": build.output(3)}
    return build.network(nodes, [("in", "n", "w", "out")], seed=0)


def one_layer(size, neurons):
    return build.sequential(
        build.input(5), build.linear(size, weight=constant(1.0)), neurons, seed=0
    )


CUBA = {"tau_mem": 0.02, "tau_syn": 0.01}


@pytest.mark.parametrize(
    ("graph", "options", "message", "fix", "node"),
    [
        (
            one_layer(2, build.cubalif(**CUBA)),
            {},
            "3 classes, and population '2' has 2 neurons",
            "",
            None,
        ),
        (
            without_neurons_at_the_end(),
            {},
            r"'w' \(Linear\) is not a population of neurons",
            "available: n",
            None,
        ),
        (
            one_layer(3, build.cubali(**CUBA)),
            {"loss": "ttfs"},
            "'2' is not a spiking population",
            'pass loss="max", "mean", "integral" or "exp-sum"',
            "2",
        ),
    ],
)
def test_networks_that_a_loss_cannot_read_are_refused(graph, options, message, fix, node):
    assert_refused(lambda: fit(graph, DATA, **options), UsageError, message, fix=fix, node=node)


def test_a_threshold_is_not_read():
    lowered = lower(small_net())
    wire = Wire(name="threshold", kind="Threshold", sources=("4",), shape=(3,))
    network = Network(
        parameters=lowered.parameters,
        wires=[*lowered.wires, wire],
        populations=lowered.populations,
    )
    assert_refused(
        lambda: refuse_unfit(network, "threshold", "spikes", "count"),
        UsageError,
        r"'threshold' \(Threshold\) is not a population of neurons",
    )


@pytest.mark.parametrize(("trainable", "of_each"), [("weight", False), ("tau_mem", True)])
def test_a_readout_is_integrated_once_for_all_neurons_with_the_same_time_constants(
    trainable, of_each
):
    """Unless these are trained: what an arrival leaves is then computed for each neuron."""
    hidden, out = (make(tau_mem=0.02, tau_syn=0.01) for make in (build.cubalif, build.cubali))
    weights = [build.linear(size, weight=normal(1.0, 0.5)) for size in (7, 4)]
    graph = build.sequential(build.input(5), weights[0], hidden, weights[1], out, seed=0)
    options = TrainOptions(trainable=(trainable,), loss="exp-sum")
    network = fitting._network(graph, options)
    loss = make_loss("exp-sum", network)
    engine = EventDriven(max_spikes=1, first_spike_only=("2",))
    events = Events(time=jnp.full((3, 6), 0.01), index=jnp.zeros((3, 6), jnp.int32))

    def objective(weight, network):
        moved = network.with_parameters(network.parameters | {"3": {"weight": weight}})
        return jnp.sum(loss(engine.run(moved, events, 0.05, ()), jnp.zeros(3, jnp.int32)))

    def gradient(network):
        return jax.grad(objective)(network.parameters["3"]["weight"], network)

    program = str(jax.make_jaxpr(gradient)(network))
    assert ("f32[3,7,4]" in program) == of_each


def test_bias_is_trained_in_units_of_the_lift():
    """One neuron for each class, driven by its bias alone: the first step moves V at rest by the
    learning rate.
    """
    graph = build.sequential(
        build.input(5),
        build.affine(3, weight=constant(0.0), bias=normal(4.0, 0.1)),
        build.cubalif(tau_mem=0.02, tau_syn=0.01, r=2.0),
        seed=0,
    )
    data = yinyang_splits(0, (64, 16, 16))
    result = fit(graph, data, epochs=1, learning_rate=0.01, trainable=("bias",), progress=None)
    assert result.best_epoch == 1  # all samples get one answer, but the loss decreases
    moved = np.abs(result.graph.nodes["1"].bias - graph.nodes["1"].bias)
    assert moved == pytest.approx(np.full(3, 0.01 / 2.0), rel=0.02)
