"""Callbacks of `fit` see every epoch once, may stop the run, and cannot lose the best epoch."""

from dataclasses import asdict, replace

import numpy as np
import optax
import pytest

import jaxsnn
from jaxsnn.errors import UsageError
from jaxsnn.train import EpochReport, TrainingStopped, TrainOptions, evaluate, fit, tune
from jaxsnn.train.options import check_options
from tests.helpers.refusals import assert_refused
from tests.helpers.small_task import DATA, QUICK, small_net

FOUR = {**QUICK, "epochs": 4}


def weights(graph):
    return [graph.nodes[name].value("weight") for name in ("1", "3")]


def assert_same_weights(first, second):
    for one_weight, other_weight in zip(weights(first), weights(second), strict=True):
        np.testing.assert_array_equal(one_weight, other_weight)


@pytest.fixture(scope="module")
def plain():
    """The run without callbacks."""
    return fit(small_net(), DATA, **FOUR)


@pytest.fixture(scope="module")
def observed():
    """The same run, and the reports of its epochs."""
    reports = []
    return fit(small_net(), DATA, **FOUR, callbacks=[reports.append]), reports


def test_every_epoch_is_reported_once_and_the_run_stays_the_same(plain, observed):
    trained, reports = observed
    assert trained.as_dict() == plain.as_dict()
    assert_same_weights(trained.graph, plain.graph)
    assert all(type(report) is EpochReport for report in reports)
    assert [report.epoch for report in reports] == [0, 1, 2, 3, 4]
    assert tuple(report.record for report in reports) == trained.history
    assert tuple(report.seconds for report in reports) == trained.seconds
    assert {report.epochs for report in reports} == {4}
    assert reports[-1].best_epoch == trained.best_epoch
    best = [report.epoch for report in reports if report.is_best]
    assert best[0] == 0
    assert best[-1] == trained.best_epoch
    assert len(repr(reports[0]).splitlines()) <= 11


def test_a_report_has_the_weights_that_were_evaluated(observed):
    trained, reports = observed
    assert_same_weights(reports[0].graph(), small_net())
    assert_same_weights(reports[trained.best_epoch].graph(), trained.graph)
    assert not np.array_equal(weights(reports[1].graph())[0], weights(reports[2].graph())[0])
    accuracy = evaluate(reports[2].graph(), DATA.validation, loss="ttfs", bias=True)
    assert accuracy == pytest.approx(reports[2].record.validation_accuracy)


def test_the_weights_of_a_report_are_the_average_if_there_is_one():
    reports = []
    trained = fit(small_net(), DATA, **FOUR, ema_decay=0.9, callbacks=(reports.append,))
    assert_same_weights(reports[trained.best_epoch].graph(), trained.graph)


def test_the_learning_rate_is_that_of_the_last_step(observed):
    _, reports = observed
    batches = len(DATA.train) // 64
    last_steps = (np.arange(1, 5) * batches - 1) / (4 * batches)
    expected = QUICK["learning_rate"] * 0.5 * (1 + np.cos(np.pi * last_steps))
    assert reports[0].learning_rate is None
    rates = [report.learning_rate for report in reports[1:]]
    np.testing.assert_allclose(rates, expected, rtol=1e-6)


def test_an_optax_optimiser_has_a_rate_that_is_not_reported():
    reports = []
    options = {**QUICK, "epochs": 1, "optimiser": optax.adam(1e-3)}
    fit(small_net(), DATA, **options, callbacks=(reports.append,))
    assert [report.learning_rate for report in reports] == [None, None]
    assert "learning_rate" not in reports[1].as_dict()


def test_a_report_as_a_dictionary_has_plain_numbers(observed):
    _, reports = observed
    numbers = reports[3].as_dict()
    assert {type(number) for number in numbers.values()} == {float}
    record = asdict(reports[3].record)
    assert numbers["validation_accuracy"] == record["validation_accuracy"]
    assert numbers["spikes/2"] == record["spikes"]["2"]
    assert numbers["silent/4"] == record["silent"]["4"]
    assert numbers["learning_rate"] == reports[3].learning_rate
    assert "learning_rate" not in reports[0].as_dict()


@pytest.mark.parametrize("last", [0, 2])
def test_true_stops_the_run_after_all_callbacks_were_called(last, plain):
    reports = []

    def stop(report):
        return report.epoch == last

    def stop_too(report):
        return np.bool_(report.epoch == last)

    trained = fit(small_net(), DATA, **FOUR, callbacks=(stop, stop_too, reports.append))
    assert trained.history == plain.history[: last + 1]
    assert len(reports) == last + 1
    (note,) = [note for note in trained.notes if "'stop'" in note and "'stop_too'" in note]
    assert f"epoch {last}," in note


class Broken(Exception):
    """Error of a user's callback."""


def test_the_best_epoch_survives_the_error_of_a_callback(plain):
    def fail(report):
        if report.epoch == 3:
            raise Broken("disk full")

    with pytest.raises(TrainingStopped) as stopped:
        fit(small_net(), DATA, **FOUR, callbacks=(fail,))
    assert isinstance(stopped.value.__cause__, Broken)
    assert stopped.value.problem.code == "callback"
    assert {"fail", 3} <= set(stopped.value.problem.facts.values())
    reached = stopped.value.fit
    assert reached.history == plain.history[:4]
    assert_same_weights(reached.graph, fit_until(3).graph)


def fit_until(epoch):
    return fit(small_net(), DATA, **FOUR, callbacks=(lambda report: report.epoch == epoch,))


@pytest.mark.parametrize("returned", [1, "stop", ()])
def test_other_results_than_none_or_a_boolean_are_refused_at_once(returned):
    reports = []

    def answer(report):
        reports.append(report)
        return returned

    with pytest.raises(TrainingStopped) as stopped:
        fit(small_net(), DATA, **FOUR, callbacks=(answer,))
    assert stopped.value.problem.code == "callback"
    assert [report.epoch for report in reports] == [0]


def no_argument():
    return None


def two_arguments(report, network):
    return None


class OneArgument:
    def __call__(self, report):
        return None


@pytest.mark.parametrize(
    "callbacks", [print, (3,), (OneArgument,), (no_argument,), (two_arguments,), "print", (None,)]
)
def test_what_is_no_callback_is_refused_before_training(callbacks):
    assert_refused(
        lambda: fit(small_net(), DATA, **FOUR, callbacks=callbacks), UsageError, code="usage"
    )


def test_functions_objects_and_optional_arguments_are_callbacks():
    def optional(report, folder="."):
        return None

    check_options(TrainOptions(callbacks=(OneArgument(), optional, [].append, print)))


def test_several_processes_refuse_callbacks():
    options = TrainOptions(callbacks=(print,), processes=2, coordinator="localhost:1")
    assert_refused(lambda: check_options(options), UsageError, "callbacks")
    check_options(replace(options, callbacks=()))


def test_a_resumed_run_reports_only_new_epochs(tmp_path, plain):
    first, second = [], []

    def stop(report):
        first.append(report.epoch)
        return report.epoch == 2

    folder = tmp_path / "run"
    fit(small_net(), DATA, **FOUR, checkpoint=folder, callbacks=(stop,))
    # Callbacks are no setting of the run: others may watch the rest.
    resumed = fit(
        small_net(),
        DATA,
        **FOUR,
        checkpoint=folder,
        resume=True,
        callbacks=(lambda report: second.append(report.epoch),),
    )
    assert (first, second) == ([0, 1, 2], [3, 4])
    assert resumed.history == plain.history
    assert_same_weights(resumed.graph, plain.graph)


def test_the_epoch_of_a_failing_callback_is_in_the_checkpoint(tmp_path, plain):
    def fail(report):
        if report.epoch == 2:
            raise Broken

    folder = tmp_path / "run"
    with pytest.raises(TrainingStopped):
        fit(small_net(), DATA, **FOUR, checkpoint=folder, callbacks=(fail,))
    epochs = []
    resumed = fit(
        small_net(),
        DATA,
        **FOUR,
        checkpoint=folder,
        resume=True,
        callbacks=(lambda report: epochs.append(report.epoch),),
    )
    assert epochs == [3, 4]
    assert resumed.history == plain.history


def test_patience_stops_with_callbacks():
    epochs = []
    options = {**QUICK, "epochs": 20, "learning_rate": 1e-9, "patience": 2}
    trained = fit(
        small_net(), DATA, **options, callbacks=(lambda report: epochs.append(report.epoch),)
    )
    assert epochs == [record.epoch for record in trained.history]
    assert len(epochs) < 21


def test_tuning_keeps_its_results_if_a_callback_fails():
    starts = []

    def fail(report):
        starts.extend([report] if report.epoch == 0 else [])
        if len(starts) == 2 and report.epoch == 1:
            raise Broken

    net = small_net()
    net = net.with_dialect(replace(net.dialect, dt=1e-3))
    options = TrainOptions(data=DATA, epochs=2, progress=None, callbacks=(fail,))
    with pytest.raises(TrainingStopped) as stopped:
        tune(net, options, budgets=(80, 60, 40))
    assert isinstance(stopped.value.__cause__, Broken)
    tuned = stopped.value.tuned
    assert [step.budget for step in tuned.steps] == [None, None, 80, 60]
    assert_same_weights(tuned.steps[2].graph, starts[1].graph())
    assert_same_weights(tuned.steps[3].graph, stopped.value.fit.graph)
    assert tuned.chosen in tuned.steps[2:]


def test_a_report_saves_a_network_that_is_read_again(observed, tmp_path):
    _, reports = observed
    jaxsnn.write(tmp_path / "epoch.nir", reports[2].graph())
    assert_same_weights(jaxsnn.read(tmp_path / "epoch.nir"), reports[2].graph())
