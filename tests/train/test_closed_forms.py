"""Small parts of training against their formulas, without a simulation."""

from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsnn import Events, lower
from jaxsnn.errors import UsageError
from jaxsnn.network.results import Result
from jaxsnn.nir import build
from jaxsnn.train import TrainOptions, WeightBumping, tuning, yinyang_splits
from jaxsnn.train.data.augment import Dropout
from jaxsnn.train.data.batches import Batch, late_notes, shuffled_batches
from jaxsnn.train.data.datasets import Data
from jaxsnn.train.data.encoders import Delta, Latency, PopulationCode
from jaxsnn.train.loop import evaluation, step_accuracy
from jaxsnn.train.loop.constraints import Positive, _check_start, _means
from jaxsnn.train.loop.defaults import make_engine
from jaxsnn.train.loop.epoch import Summary
from jaxsnn.train.loop.history import epoch_record, merit
from jaxsnn.train.loop.optimisers import learning_rates, optimiser_of
from jaxsnn.train.loop.training_run import TrainingRun
from jaxsnn.train.losses.losses import ExponentialSum, FirstSpike, SpikeTimes
from jaxsnn.train.losses.regularizers import PeakMargin, SpikeBudget
from jaxsnn.train.option_values import fraction
from tests.helpers.refusals import assert_refused

PHASES = np.arange(40) / 40


def cosine(phase):
    return 0.5 + 0.5 * np.cos(np.pi * phase)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("constant", 1 + 0 * PHASES),
        ("linear", 1 - PHASES),
        ("cosine", cosine(PHASES)),
        ("exponential", 0.5 ** (6 * PHASES)),
        (
            "warm-up",
            np.where(PHASES < 0.05, PHASES / 0.05, cosine((PHASES - 0.05) / 0.95)),
        ),
    ],
)
def test_a_schedule_goes_through_its_phases_once(name, expected):
    rates = learning_rates(name, 0.2, 8, 5)
    np.testing.assert_allclose(rates, 0.2 * expected.reshape(8, 5))


def test_only_weights_decay():
    raw = {"1": dict.fromkeys(("weight", "bias", "delay", "tau_mem"), jnp.array([2.0]))}
    optimiser = optimiser_of("sgd", 0.1)
    steps, _ = optimiser.update(jax.tree.map(jnp.zeros_like, raw), optimiser.init(raw), raw)
    assert {name for name, step in steps["1"].items() if float(step[0])} == {"weight"}


@pytest.mark.parametrize(("value", "refused"), [(0.0, True), (-1e-3, True), (1e-9, False)])
def test_a_positive_parameter_starts_above_its_bound(value, refused):
    def check():
        return _check_start("n", "tau_mem", np.array([1e-2, value]), Positive(), {})

    if refused:
        assert_refused(check, UsageError, "outside its limits", node="n")
    else:
        assert check() == []


def test_a_shared_threshold_stays_above_all_resets():
    parameters = {"v_reset": jnp.array([-1.0, 0.5, 0.0])}
    constraint = Positive(low="v_reset", shared=True)
    lowest = constraint.to_value(jnp.array(-40.0), _means(parameters, constraint))
    np.testing.assert_allclose(lowest, 0.5)


def summary_of(**changes):
    fields = dict.fromkeys(Summary._fields, 0) | {"silent": {}, "spikes": {}, "budgets": {}}
    return Summary(**fields | {"samples": 5} | changes)


def test_an_epoch_is_recorded_per_sample_and_clipped_slopes_per_spike():
    record = epoch_record(
        3,
        summary_of(loss=10.0, correct=4, clipped=3, recorded=30, gradient=2.5),
        summary_of(loss=5.0, correct=1, undecided=2, silent={"a": 1.5}, spikes={"a": 20.0}),
        max_spikes=8,
        factor=0.5,
    )
    assert (record.train_loss, record.train_accuracy) == (2.0, 0.8)
    assert (record.validation_loss, record.validation_accuracy) == (1.0, 0.2)
    assert (record.undecided, record.silent, record.spikes) == (0.4, {"a": 0.3}, {"a": 4.0})
    assert (record.clipped, record.gradient, record.factor) == (0.1, 2.5, 0.5)
    worse = summary_of(loss=6.0, correct=1)
    worse_record = epoch_record(4, worse, worse, max_spikes=8, factor=1.0)
    assert merit(record) > merit(worse_record)


def network(*feedback):
    neurons = build.cubalif(tau_mem=2e-2, tau_syn=1e-2)
    nodes = {"in": build.input(2), "w": build.linear(3), "out": neurons, "end": build.output()}
    nodes |= {name: build.linear(3) for name in feedback}
    chains = [("in", "w", "out", "end"), *(("out", name, "out") for name in feedback)]
    return lower(build.network(nodes, chains, seed=0))


@pytest.mark.parametrize(("feedback", "stops"), [((), ("out",)), (("back",), ())])
def test_outputs_stop_after_a_first_spike_that_nothing_else_hears(feedback, stops):
    loss = FirstSpike(population="out", tau=1e-2, t_max=6e-2)
    engine: Any = make_engine(None, network(*feedback), loss)
    assert engine.first_spike_only == stops


def reading(**methods):
    return SimpleNamespace(
        **{name: lambda *_, value=value: jnp.asarray(value) for name, value in methods.items()}
    )


def test_scores_of_weighted_integrals_and_sums():
    options: dict[str, Any] = {
        "population": "o",
        "tau": 0.01,
        "t_max": 0.1,
        "gain": 3.0,
        "decay": 2.0,
    }
    integral: Any = reading(integral=[[0.02, 0.04]])
    spikes: Any = reading(spike_sum=[[0.5, 0.0]])
    scores = ExponentialSum(**options).scores(integral)
    np.testing.assert_allclose(scores, 3.0 / 0.02 * np.array([[0.02, 0.04]]), rtol=1e-6)
    scores = ExponentialSum(fires=True, **options).scores(spikes)
    np.testing.assert_allclose(scores, [[1.5, 0.0]])


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_losses_of_first_spikes_are_their_formulas(smoothing):
    times, labels, tau, t_max = np.array([[0.01, 0.03, np.inf]]), jnp.array([1]), 0.01, 0.06
    played: Any = reading(first_spike=times)
    s = np.array([1.0, 3.0, 6.0])
    loss = FirstSpike(
        population="o", tau=tau, t_max=t_max, temperature=0.5, late_weight=0.2, late_tau=1.5,
        smoothing=smoothing,
    )  # fmt: skip
    log_softmax = -s / 0.5 - np.log(np.sum(np.exp(-s / 0.5)))
    entropy = -(1 - smoothing) * log_softmax[1] - smoothing * log_softmax.mean()
    expected = entropy + 0.2 * (np.exp(3.0 / 1.5) - 1)
    np.testing.assert_allclose(loss(played, labels), [expected], rtol=1e-5)
    squared = SpikeTimes(population="o", tau=tau, t_max=t_max, separation=0.5)
    np.testing.assert_allclose(squared(played, labels), [np.var(s - [0.5, 0, 0.5])], rtol=1e-5)


def test_a_label_that_is_never_heard_is_raised_as_if_all_labels_were_as_frequent():
    bumping = WeightBumping(label=2.0, hidden=0.3, hidden_fraction=0.1)
    fractions = {"out": jnp.array([0.2, 0.05, 0.0, 0.6]), "hidden": jnp.array([0.09, 0.11])}
    increase = bumping.wanted(fractions, "out")
    np.testing.assert_allclose(increase["out"], [1.6, 0.4, 0.0, 2.0], rtol=1e-6)
    np.testing.assert_allclose(increase["hidden"], [0.3, 0.0], rtol=1e-6)


def test_dropout_removes_its_fraction_of_events():
    events = Events(time=jnp.linspace(0, 1, 4000), index=jnp.zeros(4000, jnp.int32))
    rest = Dropout(probability=0.2)(jax.random.key(0), events)
    assert 0.77 < float(jnp.isfinite(rest.time).mean()) < 0.83


def test_samples_of_an_epoch_are_shuffled_and_none_comes_twice():
    batches = shuffled_batches(103, 10, 0)
    assert batches.shape == (10, 10)
    assert len(np.unique(batches)) == 100
    assert np.mean(np.diff(batches.ravel()) > 0) < 0.7
    assert not np.array_equal(batches, shuffled_batches(103, 10, 1))


def test_encoded_times_and_channels():
    """Large values come first; frames of a code and channels of a rise and a fall."""
    np.testing.assert_allclose(
        Latency(t_min=0.01, t_max=0.03)(np.array([[1.0, 0.25]])).time, [[0.01, 0.025]]
    )
    code = PopulationCode(centres=(0.0, 1.0), frame=0.01)(np.array([[[0.25], [0.9]]]))
    np.testing.assert_allclose(code.time, [[0.0025, 0.011]], rtol=1e-6)
    steps = Delta(step=1.0, frame=0.01)(np.array([[[0.0], [1.0], [0.0]]]))
    assert np.asarray(steps.index).tolist() == [[0, 1]]


@pytest.mark.parametrize(
    ("value", "refused"), [(0.0, False), (0.999, False), (1.0, True), (-0.1, True)]
)
def test_a_fraction_is_below_1(value, refused):
    if refused:
        assert_refused(lambda: fraction("dropout", value), UsageError, "below 1")
    else:
        fraction("dropout", value)


def test_a_smaller_budget_starts_from_the_network_of_the_next_larger_one(monkeypatch):
    ran = []

    def trained(graph, options, name):
        (budget,) = (term.most for term in options.regularisers)
        ran.append((budget, graph))
        return SimpleNamespace(graph=f"graph of {budget:g}", notes=()), None

    def measured(graph, plan, name, engine=None):
        metrics = SimpleNamespace(notes=(f"metrics {name.split()[0]}",))
        point = SimpleNamespace(accuracy=0.5, spikes_per_sample=1.0, spikes={}, neurobench=metrics)
        return tuning.TuningPoint(name=name, test=point, validation=point, graph=graph)  # pyright: ignore

    monkeypatch.setattr(tuning, "_trained", trained)
    monkeypatch.setattr(tuning, "_measured", measured)
    neurons = build.lif(tau=1e-2, r=10.0)
    layers = build.linear(4), neurons, build.linear(3), neurons
    options = {"dialect": "snntorch", "dt": 1e-3, "reset": "zero", "reset_delay": False}
    graph = build.sequential(build.input(5), *layers, seed=0, **options)
    data = yinyang_splits(sizes=(8, 8, 8))
    done = tuning.tune(graph, TrainOptions(data=data, loss="count", epochs=1), [10.0, 40.0, 20.0])
    assert [note for note in done.notes if note.startswith("metrics")] == [
        "metrics in",
        "metrics tuned,",
    ]
    assert ran == [(40.0, graph), (20.0, "graph of 40"), (10.0, "graph of 20")]


@pytest.mark.parametrize(
    ("patience", "trained"), [(3, [1, 2, 3]), (1, [1]), (None, [1, 2, 3, 4, 5])]
)
def test_patience_counts_the_epochs_after_the_best(patience, trained):
    ran = []

    def train_epoch(epoch):
        ran.append(epoch)
        run.history.append(epoch)

    run: Any = SimpleNamespace(
        history=[0], options=SimpleNamespace(epochs=5, patience=patience), notes=[],
        best=(SimpleNamespace(epoch=0), None), result=list, _train_epoch=train_epoch,
        _callbacks_stop=lambda report: False,
    )  # fmt: skip
    TrainingRun._epochs(run)
    assert ran == trained


def test_the_first_of_equal_epochs_is_the_best():
    setup = SimpleNamespace(engine=object(), complete=True)
    run: Any = SimpleNamespace(
        passes=SimpleNamespace(setup=setup), network=SimpleNamespace(populations={}), factor=1.0,
        history=[], seconds=[], best=None, state="weights", _merit=merit,
        options=SimpleNamespace(epochs=9), say=lambda line: None,
    )  # fmt: skip
    best = []
    for epoch, (loss, correct) in enumerate([(5.0, 3), (5.0, 3), (4.0, 3), (9.0, 4), (1.0, 3)]):
        summary = summary_of(loss=loss, correct=correct)
        TrainingRun._record(run, epoch, summary, summary, 0.1)
        best.append(run.best[0].epoch)
    assert best == [0, 0, 2, 3, 3]


def test_spikes_of_all_batches_of_an_evaluation_are_counted(monkeypatch):
    counts, labels = np.arange(10).reshape(5, 2), np.array([0, 1, 0, 1, 1])
    classes = np.array([0, 1, 1, 1, 0])
    batch = Batch(
        inputs=jnp.asarray(np.column_stack([counts, classes])), labels=jnp.asarray(labels)
    )
    for name, value in {
        "lower": lambda graph: SimpleNamespace(inputs={"a": 2}),
        "encoded": lambda *_, **__: batch,
        "run_batch": lambda engine, network, inputs, end: SimpleNamespace(
            problem=None, counts={"a": inputs[:, :2]}, classes=inputs[:, 2]
        ),
        "with_enough_room": lambda runner, attempt, advice: (runner, attempt(runner)),
        "other_step_notes": lambda *_: (),
        "time_notes": lambda *_: (),
        "_BATCH": 2,
    }.items():
        monkeypatch.setattr(evaluation, name, value)
    engine = SimpleNamespace(check=lambda network: None)
    engine.prepared = lambda: engine
    loss = SimpleNamespace(t_max=1.0, population="a", predict=lambda solution: solution.classes)
    data: Any = Data(x=counts, y=labels, classes=("0", "1"))
    everything: Any = {"loss": loss, "encoder": None, "engine": engine}
    measured = evaluation.measure(None, data, **everything)  # pyright: ignore[reportArgumentType]
    assert measured.accuracy == np.mean(labels == classes)
    assert measured.spikes == {"a": pytest.approx(counts.sum() / 5)}


@pytest.mark.parametrize("fraction", [0.2, 0.5, 0.9])
def test_a_factor_on_weights_is_found_by_bisection(fraction):
    """A fraction of weight / 8 fires."""

    def network_of(parameters):
        return SimpleNamespace(parameters=parameters, with_parameters=network_of)

    def firing(network):
        return min(network.parameters["w"]["weight"] / 8, 1.0)

    start = network_of({"w": {"weight": 1.0}, "v": {"weight": 3.0}})
    scaled: Any = evaluation._scaled_until(start, ["w"], firing, fraction, "a")  # pyright: ignore
    assert firing(scaled) == pytest.approx(fraction, abs=0.02)
    assert scaled.parameters["v"] == {"weight": 3.0}


def test_a_budget_counts_the_spikes_of_all_neurons():
    """20 spikes of each of 10 neurons are twice the budget, of which a twentieth is tolerated."""
    run: Any = SimpleNamespace(
        network=SimpleNamespace(populations={"a": SimpleNamespace(size=10)}),
        options=SimpleNamespace(regularisers=(SpikeBudget(most=100.0),)),
    )
    validation = summary_of(loss=5.0, correct=1, spikes={"a": 100.0})
    record = epoch_record(1, validation, validation, max_spikes=8, factor=1.0)
    assert TrainingRun._merit(run, record) == (pytest.approx(-0.95), 0.2, -1.0)


def test_samples_that_fill_a_batch_do_not_count_in_time_steps(monkeypatch):
    answers, counts = np.array([0, 1, 0, 0]), np.array([[2, 0], [0, 1], [0, 3], [1, 0]])
    batch = Batch(inputs=np.zeros((4, 1)), labels=jnp.array([0, 1, 1, 0]))
    network = SimpleNamespace(wires=[SimpleNamespace(size=1)])
    for name, value in {
        "lower": lambda graph: network,
        "step_length": lambda *_: 1e-3,
        "TimeStepped": lambda: SimpleNamespace(check=lambda network: None),
        "_answers_in_steps": lambda *_: (answers, counts, Result.SUCCESS),
    }.items():
        monkeypatch.setattr(step_accuracy, name, value)
    loss: Any = SimpleNamespace(reads="first spikes")
    graph: Any = None
    parts = [(batch, np.array([True, True, True, False]))]
    measured = step_accuracy.accuracy_in_steps(graph, lambda size: parts, 3, loss=loss, t_end=0.01)
    assert measured == (pytest.approx(2 / 3), 1.0)


def test_the_margin_of_a_silent_neuron_is_in_units_of_its_height():
    heights = jnp.array([0.5, 2.0, 4.0])
    network: Any = SimpleNamespace(
        populations={"a": None}, parameters={"a": {"v_threshold": jnp.array([1.0, 1.0, 3.0])}}
    )
    solution: Any = SimpleNamespace(
        spikes={"a": SimpleNamespace(count=jnp.array([[0, 0, 2]]))}, heights={"a": heights},
        maximum=lambda name: jnp.array([[0.8, 0.4, 3.0]]),
    )  # fmt: skip
    penalty = PeakMargin(strength=0.3)(network, solution)
    np.testing.assert_allclose(penalty, [0.3 * np.mean([0.2 / 0.5, 0.6 / 2.0, 0.0])], rtol=1e-6)


def test_events_at_the_end_of_a_sample_are_reported_as_late():
    time = jnp.array([[0.01, 0.02, 0.03, jnp.inf]])
    batch = Batch(
        inputs=Events(time=time, index=jnp.zeros(time.shape, jnp.int32)), labels=jnp.zeros(1)
    )
    late: Any = late_notes
    counts = [
        [note.facts["late"] for note in late({"train": batch}, end)]
        for end in (0.01, 0.02, 0.025, 0.04)
    ]
    assert counts == [[3], [2], [1], []]
