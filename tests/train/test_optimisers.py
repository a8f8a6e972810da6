"""Optimisers by name, and weight decay."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxsnn.errors import UsageError
from jaxsnn.nir import build
from jaxsnn.nir.initializers import normal
from jaxsnn.train import WeightBumping, fit
from jaxsnn.train.loop.optimisers import learning_rates, optimiser_of
from tests.helpers.refusals import assert_refused
from tests.helpers.small_task import DATA, QUICK, small_net

RAW = {"1": {"weight": jnp.array([2.0, -4.0]), "bias": jnp.array([8.0])}}
ZERO = {"1": {"weight": jnp.zeros(2), "bias": jnp.zeros(1)}}


def step(optimiser):
    """The direction, which is descended, where the gradient is zero."""
    return optimiser.update(ZERO, optimiser.init(RAW), RAW)[0]["1"]


@pytest.mark.parametrize(
    ("name", "decay", "expected"),
    [("adamw", None, 0.01), ("adamw", 0.1, 0.1), ("sgd", 0.1, 0.1), ("adam", None, 0.0)],
)
def test_weights_decay_and_biases_do_not(name, decay, expected):
    update = step(optimiser_of(name, decay))
    assert np.allclose(update["weight"], expected * RAW["1"]["weight"])
    assert np.array_equal(update["bias"], [0.0])


def test_runs_share_an_optimiser():
    assert optimiser_of("adamw", 0.1) is optimiser_of("adamw", 0.1)


def test_decay_makes_weights_of_a_run_smaller():
    def size(decay):
        trained = fit(small_net(), DATA, **QUICK | {"epochs": 2}, weight_decay=decay)
        return np.linalg.norm(trained.graph.nodes["1"].parameters["weight"])

    assert size(0.9) < size(None)


OPTIMISERS = [
    *(
        (
            {"optimiser": optimiser},
            r"which has no methods init and update: pass a name, or an optax",
        )
        for optimiser in (optax.adam, 0.1, optax.GradientTransformation)
    ),
    (
        {"optimiser": optax.adam(0.1), "weight_decay": 0.1},
        r"weight_decay is 0\.1, and the optimiser is an object",
    ),
    *(
        (
            {"optimiser": optimiser},
            r"the optimiser needs more than a gradient and parameters: .* 'value'.*: pass an optimiser",
        )
        for optimiser in (optax.lbfgs(), optax.polyak_sgd())
    ),
    (
        {"optimiser": optax.lookahead(optax.sgd(0.1), 5, 0.5)},
        "the optimiser fails with AttributeError on a gradient .* 'fast'.*: pass an optimiser",
    ),
    # It needs only gradients, although JAX's error is also a TypeError.
    (
        {
            "optimiser": optax.GradientTransformation(
                lambda raw: jax.tree.map(lambda leaf: np.abs(np.asarray(leaf)).max(), raw),
                lambda step, memory, raw: (step, memory),
            )
        },
        r"fails with TracerArray.* on a gradient .*: compute with",
    ),
    ({"epochs": 2.0}, "epochs is 2, of type float: pass an integer"),
    # Invalid numbers are refused before any rounding.
    *(
        ({"engine_options": options}, message)
        for options, message in (
            ({"max_spikes": 48.5}, "max_spikes is 48.5 for '2': pass an integer of at least 1"),
            (
                {"max_spikes": {"2": 48.7}},
                "max_spikes is 48.7 for '2': pass an integer of at least 1",
            ),
            ({"max_spikes": np.inf}, "max_spikes is inf for '2': pass an integer of at least 1"),
            ({"max_spikes": True}, "max_spikes is True for '2': pass an integer of at least 1"),
            ({"threads": 1.5}, "threads is 1.5: pass an integer of at least 1"),
        )
    ),
]


@pytest.mark.parametrize(("options", "message"), OPTIMISERS)
def test_what_is_no_optimiser_and_no_number_of_things_is_refused(options, message):
    assert_refused(lambda: fit(small_net(), DATA, **QUICK | options), UsageError, message)


@pytest.mark.parametrize(
    ("schedule", "message"),
    [
        (
            lambda step: 0.01 - step / 100,
            "schedule returns -0.01 at step 2: return a finite learning",
        ),
        (lambda step: float("nan"), "schedule returns nan at step 0: return"),
        (lambda step: "fast", "schedule returns 'fast' at step 0: return"),
    ],
)
def test_a_schedule_without_rates_is_refused(schedule, message):
    assert_refused(lambda: learning_rates(schedule, 0.01, 2, 3), UsageError, message)


def test_strict_rules_of_promotion_change_nothing():
    expected = fit(small_net(), DATA, **QUICK).history
    with jax.numpy_rank_promotion("raise"), jax.numpy_dtype_promotion("strict"):
        assert fit(small_net(), DATA, **QUICK).history == expected


def test_an_optimiser_begins_with_what_it_will_be_given():
    moved = []

    def update(gradient, began, now):
        apart = jax.tree.map(lambda old, new: jnp.abs(new - old).max(), began, now)
        jax.debug.callback(moved.append, optax.tree.max(apart))
        return jax.tree.map(jnp.zeros_like, gradient), began

    stays = optax.GradientTransformation(lambda parameters: parameters, update)
    nothing = WeightBumping(label=0.0, hidden=0.0)
    neurons = build.cubalif(tau_mem="20ms", tau_syn="10ms", r=0.25)  # kicks are 1/4 of the weights
    graph = build.sequential(build.input(5), build.linear(3, weight=normal(6, 2)), neurons, seed=0)
    fit(graph, DATA, **QUICK | {"epochs": 1}, optimiser=stays, weight_bumping=nothing)
    jax.effects_barrier()
    assert moved
    assert max(moved) == 0


@pytest.mark.parametrize(
    ("optimiser", "epochs", "noted"),
    [
        (optax.contrib.schedule_free_sgd(0.01), 3, True),
        (optax.chain(optax.clip(1.0), optax.contrib.schedule_free_sgd(0.01)), 3, True),
        (optax.sgd(0.05), 1, False),
    ],
)
def test_an_optimiser_with_other_parameters_to_evaluate_is_noted(optimiser, epochs, noted):
    notes = fit(small_net(), DATA, **QUICK | {"epochs": epochs}, optimiser=optimiser).notes
    assert any("schedule_free_eval_params" in note for note in notes) == noted
    assert any("schedule" in note for note in notes) == noted
