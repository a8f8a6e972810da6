"""Noise of parameters while training: as wide as it says, and not in what is trained."""

import jax
import numpy as np
import pytest

from jaxsnn.errors import UsageError
from jaxsnn.network.lowering.lower import lower
from jaxsnn.nir import build
from jaxsnn.train import fit
from jaxsnn.train.losses.regularizers import noise_notes, noise_of, noisy
from tests.helpers.refusals import assert_refused
from tests.helpers.small_task import DATA, small_net


def test_noise_is_as_wide_as_it_says_and_drawn_for_each_number():
    neurons = build.cubalif(tau_mem="20ms", tau_syn="10ms", v_threshold=1.5, v_leak=0.5)
    network = lower(
        build.sequential(
            build.input(50), build.linear(weight=np.full((400, 50), 2.0)), neurons, seed=0
        )
    )
    networks = [
        noisy(network, noise_of({"v_threshold": 0.05, "weight": 0.1}), jax.random.key(seed))
        for seed in (0, 1)
    ]
    weight, threshold = (
        networks[0].parameters["1"]["weight"],
        networks[0].parameters["2"]["v_threshold"],
    )
    assert np.mean(weight) == pytest.approx(2.0, abs=0.01)
    assert np.std(weight) == pytest.approx(0.2, rel=0.05)
    assert threshold.shape == (400,)
    assert np.mean(threshold) == pytest.approx(1.5, abs=0.01)
    assert np.std(threshold) == pytest.approx(0.05, rel=0.15)  # of 1, the distance from the leak
    assert np.all(networks[1].parameters["1"]["weight"] != weight)
    np.testing.assert_array_equal(
        networks[0].parameters["2"]["v_leak"], network.parameters["2"]["v_leak"]
    )


def test_gains_are_of_all_weights_of_a_sign_and_of_all_that_a_source_sends():
    weights = np.where(np.arange(600) % 3 == 0, -2.0, 1.0) * np.ones((400, 1))
    neurons = build.cubalif(tau_mem="20ms", tau_syn="10ms")
    network = lower(
        build.sequential(build.input(600), build.linear(weight=weights), neurons, seed=0)
    )

    def factors(name: str) -> np.ndarray:
        disturbed = noisy(network, noise_of({name: 0.1}), jax.random.key(0))
        return np.asarray(disturbed.parameters["1"]["weight"]) / weights

    by_target, by_source = factors("input_gain"), factors("driver_gain")
    inhibit, excite = by_target[:, 0], by_target[:, 1]
    np.testing.assert_allclose(by_target[:, ::3], inhibit[:, None] * np.ones(200), rtol=1e-6)
    np.testing.assert_allclose(by_target[:, 1::3], excite[:, None] * np.ones(200), rtol=1e-6)
    assert np.std(inhibit) == pytest.approx(0.1, rel=0.15)
    assert np.std(excite) == pytest.approx(0.1, rel=0.15)
    assert abs(np.corrcoef(inhibit, excite)[0, 1]) < 0.2
    np.testing.assert_allclose(by_source, by_source[:1] * np.ones((400, 1)), rtol=1e-6)
    assert np.std(by_source[0]) == pytest.approx(0.1, rel=0.15)


def test_training_with_noise_is_another_run_and_records_it():
    plain, loud = (
        fit(small_net(), DATA, epochs=1, progress=None, noise=noise)
        for noise in (None, {"weight": 0.3})
    )
    assert (plain.settings["noise"], loud.settings["noise"]) == (None, [["weight", 0.3]])
    assert (plain.graph.nodes["1"].weight != loud.graph.nodes["1"].weight).any()


def test_validation_meets_noise_the_same_in_each_epoch_and_the_test_none():
    still = {
        "epochs": 1,
        "progress": None,
        "learning_rate": 1e-12,
        "weight_bumping": {"label": 0.0, "hidden": 0.0},
    }
    quiet, loud = (
        fit(small_net(), DATA, **still, noise=noise) for noise in (None, {"weight": 0.3})
    )
    first, second = loud.history
    assert first.train_loss == quiet.history[0].train_loss
    assert abs(first.validation_loss - quiet.history[0].validation_loss) > 1e-3
    assert second.validation_loss == pytest.approx(first.validation_loss, rel=1e-5)
    assert loud.test_accuracy == quiet.test_accuracy
    remark = "validation also has parameter noise"
    assert [any(remark in note for note in run.notes) for run in (quiet, loud)] == [False, True]


def test_weights_that_have_no_gain_are_named():
    plain = {"stride": 1, "padding": 0, "dilation": 1, "groups": 1, "bias": np.zeros(2)}
    graph = build.sequential(
        build.input((1, 4, 4)),
        build.node("Conv2d", weight=np.ones((2, 1, 3, 3)), input_shape=(4, 4), **plain),
        build.cubalif(tau_mem="20ms", tau_syn="10ms"),
    )
    notes = noise_notes(lower(graph), (("weight", 0.1), ("input_gain", 0.1)))
    assert any("the weights of '1' are not a matrix" in note for note in notes)
    assert len(noise_notes(lower(graph), (("weight", 0.1),))) == 1


@pytest.mark.parametrize(
    ("noise", "options", "message"),
    [
        ({"tau_mem": 0.1}, {}, "noise of 'tau_mem' is not supported"),
        ({"weight": -0.1}, {}, "the noise of weight is -0.1"),
        ({"weight": "a"}, {}, "the noise of weight is 'a': pass a finite number"),
        ("weight", {}, "noise is 'weight': pass parameters and numbers, such as weight:0.1"),
        (0.1, {}, "noise is 0.1: pass parameters and numbers"),
        ({"weight": 0.1}, {"engine": "loop"}, r"noise requires engine="),
    ],
)
def test_noise_of_what_takes_none_is_refused(noise, options, message):
    settings = {"epochs": 1, "progress": None, "noise": noise} | options
    assert_refused(lambda: fit(small_net(), DATA, **settings), UsageError, message)
