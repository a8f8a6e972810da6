"""Losses: closed forms, predictions, and gradients through whole networks."""

import math
from dataclasses import MISSING, dataclass, fields, replace
from functools import partial
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsnn.errors import UsageError
from jaxsnn.event.event_driven import EventDriven
from jaxsnn.event.event_solution import EventSolution
from jaxsnn.event.forward.layer import LayerSpikes
from jaxsnn.network.network import Network
from jaxsnn.network.results import Result
from jaxsnn.network.spikes import Events
from jaxsnn.network.structure import Population, TauShape, Wire
from jaxsnn.simulation.simulate import simulate
from jaxsnn.train import (
    LOSSES,
    ExponentialSum,
    FirstSpike,
    Integral,
    MaxOverTime,
    MeanOverTime,
    PeakMargin,
    SpikeBudget,
    SpikeCount,
    SpikeRate,
    SpikeTimes,
    WeightBumping,
    accuracy,
    fit,
)
from jaxsnn.train.losses.losses import CrossEntropy
from jaxsnn.train.losses.regularizers import weight_bumping_of
from tests.event.differences import ENOUGH, relative_errors
from tests.helpers.refusals import assert_refused
from tests.helpers.small_task import DATA, QUICK, small_net

TAU, T_MAX = 0.005, 0.03


def solution(times):
    """A solution whose population 'out' fires at the given times (batch, neurons), and once more
    later.
    """
    times = jnp.asarray(times)
    spikes = LayerSpikes(
        time=jnp.stack([times, times + 0.001], axis=-1),
        slope=jnp.ones((*times.shape, 2)),
        count=2 * jnp.isfinite(times).astype(jnp.int32),
    )
    return EventSolution(
        spikes={"out": spikes},
        voltages={},
        sample_times=jnp.zeros(1),
        result=jnp.int32(Result.SUCCESS),
        clipped_slopes={},
        degenerate_spikes={},
        late={},
        approximations=(),
        heights={},
        budgets={},
        t_end=jnp.asarray(T_MAX),
        drives={},
        feeding=(),
    )


def loss(**changes):
    return FirstSpike(population="out", tau=TAU, t_max=T_MAX, **changes)


LABEL, LATE = math.log1p(math.exp(-0.5)), 0.01 * math.expm1(0.8 / 1.5)


@pytest.mark.parametrize(
    ("changes", "times", "labels", "expected"),
    [
        # Two neurons: L = log(1 + e^((t0 - t1) / (tau temperature))) + late term, for label 0.
        (
            {"temperature": 0.2, "late_weight": 0.01, "late_tau": 1.5},
            [[0.004, 0.0045]],
            [0],
            LABEL + LATE,
        ),
        ({"late_weight": 0.0}, np.full((2, 3), 0.01), [0, 2], math.log(3)),
    ],
    ids=["closed form", "equal times cost the logarithm of the number of classes"],
)
def test_first_spikes_cost(changes, times, labels, expected, x64):
    value = loss(**changes)(solution(times), jnp.array(labels))
    assert np.allclose(value, expected, rtol=1e-12)


def test_a_smoothed_label_is_shared_among_all_classes(x64):
    """Of three neurons, label 1: 0.7 + 0.1 of the label, 0.1 of each other."""
    times, scores = np.array([0.004, 0.0045, 0.005]), np.array([0.5, -1.0, 2.0])

    def entropy(scores, target):
        return -np.sum(target * (scores - np.log(np.sum(np.exp(scores)))))

    class Scored(CrossEntropy):
        def scores(self, reading):
            return reading

    class Smoothed(Scored):
        smoothing = 0.3

    smooth = np.array([0.1, 0.8, 0.1])
    first = loss(temperature=0.2, late_weight=0.0, smoothing=0.3)
    for function, reading, expected in (
        (first, solution([times]), entropy(-times / TAU / 0.2, smooth)),
        (Smoothed(), jnp.array([scores]), entropy(scores, smooth)),
        (Scored(), jnp.array([scores]), entropy(scores, np.array([0.0, 1.0, 0.0]))),
    ):
        assert np.allclose(function(reading, jnp.array([1])), [expected], rtol=1e-12)


def test_a_silent_neuron_counts_at_t_max(x64):
    silent, late = (loss()(solution([[0.004, time]]), jnp.array([1])) for time in (jnp.inf, T_MAX))
    assert np.isfinite(silent).all()
    assert np.allclose(silent, late, rtol=1e-12)


def test_gradient_by_finite_differences(x64):
    labels, step = jnp.array([0, 2, 1]), 1e-9
    times = jnp.asarray(np.random.default_rng(0).uniform(0.004, 0.006, (3, 3)))

    def value(times):
        return jnp.mean(loss(temperature=0.1)(solution(times), labels))

    gradient = jax.grad(value)(times)
    for place in np.ndindex(3, 3):
        above, below = (value(times.at[place].add(move)) for move in (step, -step))
        difference = float(above - below) / (2 * step)
        assert gradient[place] == pytest.approx(difference, rel=1e-5, abs=1e-4)


def test_a_silent_neuron_has_no_gradient_and_breaks_no_other(x64):
    def value(times):
        return jnp.sum(loss()(solution(times), jnp.array([1])))

    gradient = jax.grad(value)(jnp.array([[0.004, jnp.inf, 0.0041]]))
    assert np.isfinite(gradient).all()
    assert gradient[0, 1] == 0


SCALES = {"population": "out", "tau": TAU, "t_max": T_MAX}
FIRST = [[3.0, 1.0, 2.0], [jnp.inf, jnp.inf, jnp.inf], [jnp.inf, 5.0, 5.0]]
COUNTS = jnp.array([[1, 3, 2], [0, 0, 0], [0, 2, 2]])


def reading(values):
    return SimpleNamespace(
        count=lambda name: values,
        spike_sum=lambda *arguments: values,
        integral=lambda *arguments: values,
        mean=lambda name: values,
    )


@pytest.mark.parametrize(
    ("function", "played", "answers"),
    [
        (FirstSpike(**SCALES), lambda: solution(FIRST), [1, -1, 1]),
        (SpikeCount(**SCALES), lambda: reading(COUNTS), [1, -1, 1]),
        (ExponentialSum(**SCALES, fires=True), lambda: reading(0.1 * COUNTS), [1, -1, 1]),
        # A readout at rest has voltages, all equal.
        (ExponentialSum(**SCALES, fires=False), lambda: reading(0.1 * COUNTS), [1, 0, 1]),
        (MeanOverTime(**SCALES), lambda: reading(0.1 * COUNTS), [1, 0, 1]),
    ],
    ids=["first to fire", "most spikes", "largest sum", "largest integral", "largest mean"],
)
def test_the_largest_is_the_answer_and_of_silent_neurons_none_is(function, played, answers):
    predictions = function.predict(played())
    assert isinstance(predictions, jax.Array)
    assert predictions.tolist() == answers


def test_no_answer_is_a_wrong_one():
    answers = jnp.array([1, -1, 1])
    assert float(accuracy(answers, jnp.array([1, 0, 2]))) == pytest.approx(1 / 3)


def test_the_unit_of_time_is_the_one_that_is_given(x64):
    """The same times in units of tau give the same loss."""
    in_tau = FirstSpike(population="out", tau=1.0, t_max=T_MAX / TAU)
    seconds, units = (
        function(solution([times]), jnp.array([0]))
        for function, times in ((loss(), [0.004, 0.0041]), (in_tau, [0.8, 0.82]))
    )
    assert np.allclose(seconds, units, rtol=1e-9)


def test_losses_are_known_by_name():
    assert list(LOSSES) == ["ttfs", "mse", "max", "mean", "count", "integral", "exp-sum"]
    assert LOSSES["ttfs"] is FirstSpike


def test_the_loss_of_means_is_their_cross_entropy(x64):
    means = jnp.array([[0.5, -1.0, 2.0]])
    scores = 3 * np.asarray(means[0])
    expected = np.log(np.exp(scores).sum()) - scores[1]
    mean_loss = MeanOverTime(**SCALES, gain=3.0)
    value, slopes = jax.value_and_grad(lambda means: mean_loss(reading(means), jnp.array([1]))[0])(
        means
    )
    assert value == pytest.approx(expected, rel=1e-12)
    softmax = np.exp(scores) / np.exp(scores).sum()
    np.testing.assert_allclose(slopes[0], 3 * (softmax - [0, 1, 0]), rtol=1e-12)


def test_the_squared_error_does_not_know_a_common_shift(x64):
    mse, times = SpikeTimes(**SCALES, separation=0.4), np.array([0.004, 0.0052, 0.007])
    apart = np.array([0.004, 0.004 + 0.4 * TAU, 0.004 + 0.4 * TAU])
    value, shifted, none = (
        mse(solution([spikes]), jnp.array([0])) for spikes in (times, times + 0.003, apart)
    )
    assert np.allclose(value, shifted, rtol=1e-9)
    assert np.allclose(none, 0.0, atol=1e-12)
    assert np.allclose(value, (times / TAU - [0.0, 0.4, 0.4]).var(), rtol=1e-12)


# Every loss for a whole network, with gradients compared to central differences.

INPUTS, HIDDEN, CLASSES, T_END = 4, 5, 3, 6.0


NEURON = {"tau_mem": 2.0, "tau_syn": 1.0, "r": 1.0, "w_in": 1.0, "v_leak": 0.0}
SPIKING = NEURON | {"v_threshold": 1.0, "v_reset": 0.0}


def whole_network(readout, seed):
    """An input, spiking neurons, and an answer of the kind that the loss reads."""
    rng = np.random.default_rng(seed)
    wires = [Wire(name="input", kind="input", sources=(), shape=(INPUTS,))]
    parameters, populations = {}, {}
    for name, source, size, fan_in, kind in (
        ("hidden", "input", HIDDEN, INPUTS, "CubaLIF"),
        ("out", "hidden", CLASSES, HIDDEN, "CubaLI" if readout else "CubaLIF"),
    ):
        values = SPIKING if kind == "CubaLIF" else NEURON
        parameters[name] = {key: jnp.full(size, value) for key, value in values.items()}
        parameters[f"to {name}"] = {"weight": jnp.asarray(rng.normal(2.0, 1.0, (size, fan_in)))}
        wires.append(Wire(name=f"to {name}", kind="Linear", sources=(source,), shape=(size,)))
        wires.append(Wire(name=name, kind="neuron", sources=(f"to {name}",), shape=(size,)))
        populations[name] = Population(name=name, kind=kind, size=size, tau_shape=TauShape.DOUBLE)
    network = Network(parameters=parameters, wires=wires, populations=populations)
    return network, jnp.asarray(rng.uniform(0.0, 2.0, (3, INPUTS)))


def play(network, times, **options):
    """Every input channel once, from the start to T_END."""
    events = Events(time=times, index=jnp.broadcast_to(jnp.arange(INPUTS), times.shape))
    return simulate(network, events, T_END, sample_times=jnp.ones(1), **options)


TIMES = {"population": "out", "tau": 1.0, "t_max": T_END}
EXACT = {
    False: (
        FirstSpike(**TIMES, temperature=0.2),
        SpikeTimes(**TIMES),
        ExponentialSum(**TIMES, fires=True),
    ),
    True: (
        MaxOverTime(**TIMES, gain=3.0),
        MeanOverTime(**TIMES, gain=2.0),
        Integral(**TIMES),
        ExponentialSum(**TIMES, gain=5.0),
    ),
}


def weighted_and_counts(variables, weights, losses):
    played = play(*variables, engine=EventDriven(max_spikes=12), throw=False)
    values = [
        weight * jnp.sum(loss(played, jnp.array([0, 2, 1])))
        for weight, loss in zip(weights, losses, strict=True)
    ]
    return sum(values), [spikes.count for spikes in played.spikes.values()]


@pytest.mark.parametrize(
    "readout", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["spikes", "readout"]
)
def test_gradients_through_a_network_are_exact(readout, x64):
    """Each loss by itself; one compilation for the losses of each kind of answer."""
    function = partial(weighted_and_counts, losses=EXACT[readout])
    net, times = whole_network(readout, seed=4)
    gradient_of = jax.jit(jax.grad(function, has_aux=True))
    for weights in np.eye(len(EXACT[readout])):
        gradient, counts = gradient_of((net, times), weights)
        assert sum(int(count.sum()) for count in counts) > 10
        error = relative_errors(
            gradient, function, (net.with_free_time_constants(), times), weights
        )
        assert np.isfinite(error).mean() > 0.9
        assert np.nanmax(error) < ENOUGH


def test_a_count_passes_on_what_a_kick_at_each_spike_would_do(x64):
    """The surrogate as it is defined: -dV/dt / (v_threshold - v_reset) for each spike time, and no
    other.
    """
    played = play(*whole_network(False, seed=4))
    output = played.spikes["out"]

    def count(time):
        spikes = {**played.spikes, "out": replace(output, time=time)}
        return jnp.sum(replace(played, spikes=spikes).count("out"))

    value, gradient = jax.value_and_grad(count)(output.time)
    assert value == output.count.sum() > 0
    expected = jnp.where(jnp.isfinite(output.time), -output.slope, 0.0)
    np.testing.assert_allclose(gradient, expected, rtol=1e-12)
    loss = SpikeCount(population="out", tau=1.0, t_max=T_END)
    assert loss.predict(played).shape == (3,)


def test_regularisers_count_and_reach_silent_neurons(x64):
    net, times = whole_network(False, seed=4)
    played = play(net, times)
    counts = [np.asarray(spikes.count) for spikes in played.spikes.values()]
    expected = 0.5 * 0.1 * sum(np.mean((count - 3.0) ** 2, axis=1) for count in counts)
    np.testing.assert_allclose(
        SpikeRate(target=3.0, strength=0.1)(net, played), expected, rtol=1e-6
    )
    weight = 0.02 * net.parameters["to out"]["weight"]

    def quiet(weight):
        return net.with_parameters({**net.parameters, "to out": {"weight": weight}})

    played = play(quiet(weight), times)
    silent = {name: np.asarray(spikes.count) == 0 for name, spikes in played.spikes.items()}
    assert silent["out"].all()
    assert not silent["hidden"].any()
    lacks = (np.where(silent[name], 1 - np.asarray(played.maximum(name)), 0) for name in silent)
    expected = 0.1 * sum(np.mean(lack, axis=1) for lack in lacks)
    np.testing.assert_allclose(PeakMargin(strength=0.1)(quiet(weight), played), expected, rtol=1e-6)
    for term in (PeakMargin(populations=("to out",)), SpikeRate(populations=("to out",))):
        assert_refused(partial(term, quiet(weight), played), UsageError, node="to out")

    @jax.jit
    def penalty(weight):
        solution = play(quiet(weight), times, throw=False)
        margin = PeakMargin(strength=1.0, populations=("out",))
        return jnp.sum(margin(quiet(weight), solution))

    gradient, step = jax.jit(jax.grad(penalty))(weight), 1e-6
    assert float(penalty(weight)) > 0
    above, below = (penalty(weight.at[0, 1].add(move)) for move in (step, -step))
    assert gradient[0, 1] == pytest.approx(float(above - below) / (2 * step), rel=1e-6)
    # Larger weights bring all silent neurons closer to their threshold.
    assert float(jnp.max(gradient)) <= 0


@pytest.mark.parametrize(
    ("field", "value", "limits"),
    [
        ("temperature", -0.1, "above 0"),
        ("temperature", 0.0, "above 0"),
        ("t_max", np.nan, "above 0"),
        ("late_weight", -1.0, "of at least 0"),
        ("smoothing", 1.0, "of at least 0 and below 1"),
    ],
)
def test_numbers_that_make_no_sense_are_refused(field, value, limits):
    assert_refused(
        lambda: replace(loss(), **{field: value}),
        UsageError,
        f"loss FirstSpike: {field} is .*pass a number {limits}",
    )


@dataclass(frozen=True, kw_only=True)
class Shaped(FirstSpike):
    """A loss that gives what it should not: a column, or fractions of a class."""

    wrong: str

    def __call__(self, reading, labels):
        """A column of numbers."""
        values = super().__call__(reading, labels)
        return values[:, None] if self.wrong == "loss" else values

    def predict(self, reading):
        """Fractions, or a column."""
        classes = super().predict(reading)
        wrong = {"loss": classes, "column": classes[:, None], "fraction": classes + 0.4}
        return wrong[self.wrong]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("loss", r"Shaped returns an array of shape \(\d+, 1\), and the number of samples is \d+"),
        ("column", r"Shaped.predict returns int32 of shape \(\d+, 1\), and"),
        ("fraction", r"Shaped.predict returns float32 of shape \(\d+,\)"),
    ],
)
def test_a_loss_gives_a_number_and_a_class_for_each_sample(wrong, message):
    loss = Shaped(population="4", tau=10e-3, t_max=50e-3, wrong=wrong)
    options = QUICK | {"loss": loss, "batch_size": 64}
    assert_refused(lambda: fit(small_net(), DATA, **options), UsageError, message)


def test_a_regulariser_gives_a_number_for_each_sample_or_one():
    @dataclass(frozen=True)
    class Column:
        def __call__(self, network, solution):
            return solution.count("2")[:, :1]

    assert_refused(
        lambda: fit(small_net(), DATA, **QUICK, regularisers=(Column(),), batch_size=64),
        UsageError,
        r"Column returns an array of shape \(64, 1\), and the number of samples is 64",
    )


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SpikeBudget(most=-5.0), "SpikeBudget: most is -5: pass a number above 0"),
        (lambda: SpikeBudget(most=0.0), "most is 0"),
        (
            lambda: SpikeRate(strength=-1.0),
            "SpikeRate: strength is -1: pass a number of at least 0",
        ),
        (lambda: SpikeRate(populations="24"), "populations is '24'"),
        (lambda: PeakMargin(strength=float("nan")), "strength is nan"),
    ],
)
def test_regularisers_that_make_no_sense_are_refused(make, message):
    assert_refused(lambda: make(), UsageError, message)


def test_a_silent_neuron_is_no_better_than_a_late_one():
    """Where samples last longer than t_max, one that fires later would count as worse."""
    assert_refused(
        lambda: fit(small_net(), DATA, **QUICK, loss_options={"t_max": 0.01}, t_end=0.2),
        UsageError,
        r"as firing at t_max = 0.01 s, and samples end at 0.2",
    )


def test_a_loss_is_told_the_kind_of_its_population():
    loss = ExponentialSum(population="4", tau=10e-3, t_max=50e-3, fires=True)
    fit(small_net(), DATA, **QUICK | {"epochs": 1}, loss=loss)
    unaware = replace(loss, fires=False)
    message = "fires=False, and '4' is spiking"
    assert_refused(
        lambda: fit(small_net(), DATA, **QUICK, loss=unaware), UsageError, message, fix="fires=True"
    )


#: Defaults of losses in training.
DEFAULTS = {
    FirstSpike: {"temperature": 0.01, "late_weight": 3e-3, "late_tau": 2.0, "smoothing": 0.0},
    SpikeTimes: {"separation": 0.5},
    MaxOverTime: {"gain": 1.0, "smoothing": 0.0},
    MeanOverTime: {"gain": 1.0, "smoothing": 0.0},
    SpikeCount: {"gain": 1.0, "smoothing": 0.0},
    Integral: {"gain": 1.0, "smoothing": 0.0},
    ExponentialSum: {"gain": 1.0, "decay": 4.0, "fires": False, "smoothing": 0.0},
    SpikeRate: {"target": 14.0, "strength": 0.01, "populations": ()},
    SpikeBudget: {"strength": 1.0},
    PeakMargin: {"strength": 0.01, "populations": ()},
    WeightBumping: {"label": 1.0, "hidden": 0.3, "hidden_fraction": 0.02},
}


@pytest.mark.parametrize("kind", DEFAULTS, ids=lambda kind: kind.__name__)
def test_numbers_that_are_not_given_stay_what_they_were(kind):
    defaults = {field.name: field.default for field in fields(kind)}
    assert {k: v for k, v in defaults.items() if v is not MISSING} == DEFAULTS[kind]


def test_a_remedy_against_silence_may_be_switched_off():
    off = {"label": 0.0, "hidden": 0.0}
    assert weight_bumping_of(off, WeightBumping()) == WeightBumping(**off)
