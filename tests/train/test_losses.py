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


def test_closed_form(x64):
    """Two neurons: L = log(1 + e^((t0 - t1) / (tau sharpness))) + late term, for label 0."""
    t0, t1, sharpness, weight, late = 0.004, 0.0045, 0.2, 0.01, 1.5
    value = loss(sharpness=sharpness, late_weight=weight, late_tau=late)(
        solution([[t0, t1]]), jnp.array([0])
    )
    expected = math.log1p(math.exp((t0 - t1) / (TAU * sharpness))) + weight * math.expm1(
        t0 / TAU / late
    )
    assert np.allclose(value, [expected], rtol=1e-12)


def test_equal_times_cost_the_logarithm_of_the_number_of_classes(x64):
    value = loss(late_weight=0.0)(solution(jnp.full((2, 3), 0.01)), jnp.array([0, 2]))
    assert np.allclose(value, math.log(3), rtol=1e-12)


def test_a_smoothed_label_is_shared_among_all_classes(x64):
    """Of three neurons, label 1: 0.7 + 0.1 of the label, 0.1 of each other."""
    times, scores = np.array([0.004, 0.0045, 0.005]), np.array([0.5, -1.0, 2.0])
    target = np.array([0.1, 0.8, 0.1])

    def entropy(scores):
        return -np.sum(target * (scores - np.log(np.sum(np.exp(scores)))))

    first = loss(sharpness=0.2, late_weight=0.0, smoothing=0.3)(solution([times]), jnp.array([1]))
    assert np.allclose(first, [entropy(-times / TAU / 0.2)], rtol=1e-12)

    class Scored(CrossEntropy):
        def scores(self, reading):
            return reading

    class Smoothed(Scored):
        smoothing = 0.3

    given = jnp.array([scores]), jnp.array([1])
    assert np.allclose(Smoothed()(*given), [entropy(scores)], rtol=1e-12)
    target = np.array([0.0, 1.0, 0.0])
    assert np.allclose(Scored()(*given), [entropy(scores)], rtol=1e-12)


def test_a_silent_neuron_counts_at_t_max(x64):
    labels = jnp.array([1])
    silent = loss()(solution([[0.004, jnp.inf]]), labels)
    late = loss()(solution([[0.004, T_MAX]]), labels)
    assert np.isfinite(silent).all()
    assert np.allclose(silent, late, rtol=1e-12)


def test_gradient_by_finite_differences(x64):
    labels = jnp.array([0, 2, 1])
    times = jnp.asarray(np.random.default_rng(0).uniform(0.004, 0.006, (3, 3)))

    def value(times):
        return jnp.mean(loss(sharpness=0.1)(solution(times), labels))

    gradient = jax.grad(value)(times)
    step = 1e-9
    for place in np.ndindex(3, 3):
        difference = (value(times.at[place].add(step)) - value(times.at[place].add(-step))) / (
            2 * step
        )
        assert gradient[place] == pytest.approx(float(difference), rel=1e-5, abs=1e-4)


def test_a_silent_neuron_has_no_gradient_and_breaks_no_other(x64):
    def value(times):
        return jnp.sum(loss()(solution(times), jnp.array([1])))

    gradient = jax.grad(value)(jnp.array([[0.004, jnp.inf, 0.0041]]))
    assert np.isfinite(gradient).all()
    assert gradient[0, 1] == 0


def test_the_first_to_fire_is_the_answer_and_none_is_no_answer():
    times = [[3.0, 1.0, 2.0], [jnp.inf, jnp.inf, jnp.inf], [jnp.inf, 5.0, 5.0]]
    predictions = loss().predict(solution(times))
    assert isinstance(predictions, jax.Array)
    assert predictions.tolist() == [1, -1, 1]
    assert float(accuracy(predictions, jnp.array([1, 0, 2]))) == pytest.approx(1 / 3)


def test_who_fires_most_often_is_the_answer_and_none_is_no_answer():
    counts = jnp.array([[1, 3, 2], [0, 0, 0], [0, 2, 2]])
    most = SpikeCount(population="out", tau=TAU, t_max=T_MAX)
    assert most.predict(SimpleNamespace(count=lambda name: counts)).tolist() == [1, -1, 1]


@pytest.mark.parametrize(("fires", "answers"), [(True, [1, -1, 1]), (False, [1, 0, 1])])
def test_the_largest_sum_is_the_answer_and_of_silent_neurons_none_is(fires, answers):
    """A readout at rest has voltages, all alike."""
    sums = jnp.array([[0.1, 0.3, 0.2], [0.0, 0.0, 0.0], [0.0, 0.2, 0.2]])
    reading = SimpleNamespace(spike_sum=lambda *given: sums, integral=lambda *given: sums)
    summed = ExponentialSum(population="out", tau=TAU, t_max=T_MAX, fires=fires)
    assert summed.predict(reading).tolist() == answers


def test_the_unit_of_time_is_the_one_that_is_given(x64):
    """The same times in units of tau give the same loss."""
    labels = jnp.array([0])
    seconds = loss()(solution([[0.004, 0.0041]]), labels)
    other = FirstSpike(population="out", tau=1.0, t_max=T_MAX / TAU)(
        solution([[0.8, 0.82]]), labels
    )
    assert np.allclose(seconds, other, rtol=1e-9)


def test_losses_are_known_by_name():
    assert list(LOSSES) == ["ttfs", "mse", "max", "count", "integral", "exp-sum"]
    assert LOSSES["ttfs"] is FirstSpike


def test_the_squared_error_does_not_know_a_common_shift(x64):
    mse = SpikeTimes(population="out", tau=TAU, t_max=T_MAX, separation=0.4)
    times, labels = jnp.asarray([[0.004, 0.0052, 0.007]]), jnp.array([0])
    assert np.allclose(
        mse(solution(times), labels), mse(solution(times + 0.003), labels), rtol=1e-9
    )
    apart = jnp.asarray([[0.004, 0.004 + 0.4 * TAU, 0.004 + 0.4 * TAU]])
    assert np.allclose(mse(solution(apart), labels), 0.0, atol=1e-12)
    residuals = np.array([0.004, 0.0052, 0.007]) / TAU - [0.0, 0.4, 0.4]
    assert np.allclose(mse(solution(times), labels), residuals.var(), rtol=1e-12)


# Every loss through a whole network, its gradients against central differences.

INPUTS, HIDDEN, CLASSES, T_END = 4, 5, 3, 6.0


def whole_network(readout, seed):
    """An input, spiking neurons, and an answer of the kind that the loss reads."""
    rng = np.random.default_rng(seed)
    wires = [Wire(name="input", kind="input", sources=(), shape=(INPUTS,))]
    parameters, populations = {}, {}
    for name, source, size, fan_in, is_readout in (
        ("hidden", "input", HIDDEN, INPUTS, False),
        ("out", "hidden", CLASSES, HIDDEN, readout),
    ):
        own = {
            "tau_mem": 2.0,
            "tau_syn": 1.0,
            "r": 1.0,
            "w_in": 1.0,
            "v_leak": 0.0,
            "v_threshold": 1.0,
            "v_reset": 0.0,
        }
        parameters[name] = {key: jnp.full(size, value) for key, value in own.items()}
        parameters[f"to {name}"] = {"weight": jnp.asarray(rng.normal(2.0, 1.0, (size, fan_in)))}
        wires.append(Wire(name=f"to {name}", kind="Linear", sources=(source,), shape=(size,)))
        wires.append(Wire(name=name, kind="neuron", sources=(f"to {name}",), shape=(size,)))
        populations[name] = Population(
            name=name,
            kind="CubaLI" if is_readout else "CubaLIF",
            size=size,
            tau_shape=TauShape.DOUBLE,
        )
        if is_readout:
            del parameters[name]["v_threshold"], parameters[name]["v_reset"]
    net = Network(parameters=parameters, wires=wires, populations=populations)
    times = jnp.asarray(rng.uniform(0.0, 2.0, (3, INPUTS)))
    return net, times


TIMES = {"population": "out", "tau": 1.0, "t_max": T_END}
EXACT = {
    False: (
        FirstSpike(**TIMES, sharpness=0.2),
        SpikeTimes(**TIMES),
        ExponentialSum(**TIMES, fires=True),
    ),
    True: (MaxOverTime(**TIMES, gain=3.0), Integral(**TIMES), ExponentialSum(**TIMES, gain=5.0)),
}


def weighted_and_counts(variables, weights, losses):
    net, times = variables
    events = Events(time=times, index=jnp.broadcast_to(jnp.arange(INPUTS), times.shape))
    played = simulate(
        net, events, T_END, engine=EventDriven(max_spikes=12), sample_times=jnp.ones(1), throw=False
    )
    reading, labels = played, jnp.array([0, 2, 1])
    values = [
        weight * jnp.sum(loss(reading, labels))
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
    for weights in np.eye(3):
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
    net, times = whole_network(False, seed=4)
    events = Events(time=times, index=jnp.broadcast_to(jnp.arange(INPUTS), times.shape))
    played = simulate(net, events, T_END, sample_times=jnp.ones(1))

    def count(time):
        spikes = {**played.spikes, "out": replace(played.spikes["out"], time=time)}
        return jnp.sum(replace(played, spikes=spikes).count("out"))

    time, slope = played.spikes["out"].time, played.spikes["out"].slope
    value, gradient = jax.value_and_grad(count)(time)
    assert value == played.spikes["out"].count.sum() > 0
    np.testing.assert_allclose(gradient, jnp.where(jnp.isfinite(time), -slope, 0.0), rtol=1e-12)
    loss = SpikeCount(population="out", tau=1.0, t_max=T_END)
    assert loss.predict(played).shape == (3,)


def test_regularisers_count_and_reach_silent_neurons(x64):
    net, times = whole_network(False, seed=4)
    quiet = net.with_parameters(
        {**net.parameters, "to out": {"weight": 0.02 * net.parameters["to out"]["weight"]}}
    )
    events = Events(time=times, index=jnp.broadcast_to(jnp.arange(INPUTS), times.shape))
    played = simulate(net, events, T_END, sample_times=jnp.ones(1))
    counts = [np.asarray(spikes.count) for spikes in played.spikes.values()]
    expected = 0.5 * 0.1 * sum(np.mean((count - 3.0) ** 2, axis=1) for count in counts)
    np.testing.assert_allclose(
        SpikeRate(target=3.0, strength=0.1)(net, played), expected, rtol=1e-6
    )
    one = simulate(quiet, events, T_END, sample_times=jnp.ones(1))
    silent = {name: np.asarray(spikes.count) == 0 for name, spikes in one.spikes.items()}
    assert silent["out"].all()
    assert not silent["hidden"].any()
    lacks = {name: np.where(silent[name], 1 - np.asarray(one.maximum(name)), 0) for name in silent}
    expected = 0.1 * sum(np.mean(own, axis=1) for own in lacks.values())
    np.testing.assert_allclose(PeakMargin(strength=0.1)(quiet, one), expected, rtol=1e-6)
    for term in (PeakMargin(populations=("to out",)), SpikeRate(populations=("to out",))):
        with pytest.raises(UsageError, match="'to out' is not a spiking population"):
            term(quiet, one)

    @jax.jit
    def penalty(weight):
        changed = quiet.with_parameters({**quiet.parameters, "to out": {"weight": weight}})
        silent = simulate(changed, events, T_END, sample_times=jnp.ones(1), throw=False)
        return jnp.sum(PeakMargin(strength=1.0, populations=("out",))(changed, silent))

    weight = quiet.parameters["to out"]["weight"]
    gradient, step = jax.jit(jax.grad(penalty))(weight), 1e-6
    assert float(penalty(weight)) > 0
    difference = (penalty(weight.at[0, 1].add(step)) - penalty(weight.at[0, 1].add(-step))) / (
        2 * step
    )
    assert gradient[0, 1] == pytest.approx(float(difference), rel=1e-6)
    assert (
        float(jnp.max(gradient)) <= 0
    )  # larger weights bring all silent neurons nearer to their threshold


@pytest.mark.parametrize(
    ("field", "value", "wanted"),
    [
        ("sharpness", -0.1, "above 0"),
        ("sharpness", 0.0, "above 0"),
        ("t_max", np.nan, "above 0"),
        ("late_weight", -1.0, "of at least 0"),
        ("smoothing", 1.0, "from 0 to below 1"),
    ],
)
def test_numbers_that_make_no_sense_are_refused(field, value, wanted):
    with pytest.raises(UsageError, match=f"loss FirstSpike: {field} is .*give a number {wanted}"):
        replace(loss(), **{field: value})


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
        found = super().predict(reading)
        return {"loss": found, "column": found[:, None], "fraction": found + 0.4}[self.wrong]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("loss", r"Shaped returns the shape \(\d+, 1\) for \d+ samples"),
        ("column", r"Shaped.predict returns int32 of the shape \(\d+, 1\) for"),
        ("fraction", r"Shaped.predict returns float32 of the shape \(\d+,\)"),
    ],
)
def test_a_loss_gives_a_number_and_a_class_for_each_sample(wrong, message):
    loss = Shaped(population="4", tau=10e-3, t_max=50e-3, wrong=wrong)
    with pytest.raises(UsageError, match=message):
        fit(small_net(), DATA, **QUICK, loss=loss, batch_size=64)


def test_a_regulariser_gives_a_number_for_each_sample_or_one():
    @dataclass(frozen=True)
    class Column:
        def __call__(self, network, solution):
            return solution.count("2")[:, :1]

    with pytest.raises(UsageError, match=r"Column returns the shape \(64, 1\)"):
        fit(small_net(), DATA, **QUICK, regularisers=(Column(),), batch_size=64)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SpikeBudget(most=-5.0), "SpikeBudget: most is -5: give a number above 0"),
        (lambda: SpikeBudget(most=0.0), "most is 0"),
        (
            lambda: SpikeRate(strength=-1.0),
            "SpikeRate: strength is -1: give a number of at least 0",
        ),
        (lambda: SpikeRate(populations="24"), "populations is '24'"),
        (lambda: PeakMargin(strength=float("nan")), "strength is nan"),
    ],
)
def test_regularisers_that_make_no_sense_are_refused(make, message):
    with pytest.raises(UsageError, match=message):
        make()


def test_a_silent_neuron_is_no_better_than_a_late_one():
    """Where samples last longer than t_max, one that fires later would count as worse."""
    with pytest.raises(
        UsageError, match=r"as if it fired at t_max = 0.01 s, and samples end at 0.2"
    ):
        fit(small_net(), DATA, **QUICK, loss_options={"t_max": 0.01}, t_end=0.2)


@pytest.mark.parametrize("fires", [True, False])
def test_a_loss_is_told_the_kind_of_its_population(fires):
    loss = ExponentialSum(population="4", tau=10e-3, t_max=50e-3, fires=fires)
    if fires:
        fit(small_net(), DATA, **{**QUICK, "epochs": 1}, loss=loss)
    else:
        with pytest.raises(UsageError, match="fires=False, and '4' fires: set fires=True"):
            fit(small_net(), DATA, **QUICK, loss=loss)


#: The numbers that a training has which says nothing of them.
DEFAULTS = {
    FirstSpike: {"sharpness": 0.01, "late_weight": 3e-3, "late_tau": 2.0, "smoothing": 0.0},
    SpikeTimes: {"separation": 0.5},
    MaxOverTime: {"gain": 1.0, "smoothing": 0.0},
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
    given = {each.name: each.default for each in fields(kind) if each.default is not MISSING}
    assert given == DEFAULTS[kind]


def test_a_remedy_against_silence_may_be_switched_off():
    off = {"label": 0.0, "hidden": 0.0}
    assert weight_bumping_of(off, WeightBumping()) == WeightBumping(**off)
