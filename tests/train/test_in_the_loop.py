"""Training on the spikes of something else, with exact gradients at the times that it recorded."""

import dataclasses
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxsnn
from jaxsnn.errors import LoweringError, UsageError
from jaxsnn.event.event_driven import EventDriven
from jaxsnn.network.lowering.lower import lower
from jaxsnn.network.spikes import Events
from jaxsnn.nir import build
from jaxsnn.simulation.simulate import simulate
from jaxsnn.train import InTheLoop, evaluate, fit
from tests.helpers.refusals import assert_refused
from tests.helpers.small_task import DATA, small_net

T_END, CHANNELS, REFRACTORY = 0.065, 5, 2e-3
EXACT = EventDriven(max_spikes=8)


@dataclass(frozen=True, kw_only=True)
class Simulated:
    """A device that is the event engine itself, its spikes late by some seconds; in NumPy, as a
    chip would be.
    """

    late: float = 0.0
    forget: str = ""
    refractory: float = 0.0

    def forward(self, network, inputs):
        engine = dataclasses.replace(EXACT, refractory=self.refractory)
        with jax.ensure_compile_time_eval():
            solution = simulate(network, inputs, T_END, engine=engine, throw=False)
        return {
            name: np.asarray(spikes.time) + self.late
            for name, spikes in solution.spikes.items()
            if name != self.forget
        }


def run(device, t_end=T_END, **options):
    """Simulate the small network in the loop with a device."""
    engine = InTheLoop(device=device, **options)
    return simulate(lower(small_net()), batch(), t_end, engine=engine, throw=False)


def batch(samples=6):
    times = np.random.default_rng(0).uniform(0.0, 0.02, (samples, CHANNELS))
    index = jnp.broadcast_to(jnp.arange(CHANNELS), times.shape)
    return Events(time=jnp.asarray(times), index=index)


@pytest.mark.slow
@pytest.mark.parametrize("refractory", [0.0, REFRACTORY])
def test_at_its_own_spikes_the_gradient_is_that_of_the_event_engine(refractory, x64):
    weights = jnp.asarray(np.random.default_rng(1).normal(size=(6, 3)))

    def total(network, engine):
        # the second spike depends on the refractory period
        times = simulate(network, batch(), T_END, engine=engine).spikes["4"].time[..., :2]
        return jnp.sum(jnp.where(jnp.isfinite(times), times * weights[..., None], 0.0))

    ours, exact = (
        jax.grad(total)(lower(small_net()), engine).parameters
        for engine in (
            InTheLoop(device=Simulated(refractory=refractory), max_spikes=8, refractory=refractory),
            dataclasses.replace(EXACT, refractory=refractory),
        )
    )
    for node, parameters in exact.items():
        for name, value in parameters.items():
            scale = max(float(jnp.max(abs(value))), 1e-12)
            np.testing.assert_allclose(
                ours[node][name], value, atol=1e-9 * scale, err_msg=f"{node}.{name}"
            )


def test_what_a_device_records_is_what_the_loss_sees():
    late = run(Simulated(late=1e-3))
    exact = simulate(lower(small_net()), batch(), T_END, engine=EXACT)
    np.testing.assert_allclose(late.first_spike("4"), exact.first_spike("4") + 1e-3, rtol=1e-6)
    assert int(late.result) == 0


@pytest.mark.slow
def test_a_network_learns_on_a_device():
    engine = InTheLoop(device=Simulated(late=3e-4), max_spikes=8, min_slope=0.04)
    options = {"epochs": 4, "learning_rate": 0.05, "progress": None}
    trained = fit(small_net(), DATA, engine=engine, **options)
    assert trained.settings["engine"]["name"] == "InTheLoop"
    assert trained.history[-1].train_loss < 0.6 * trained.history[0].train_loss


def test_a_budget_that_the_device_exceeds_is_seen():
    solution = run(Simulated(), max_spikes=1)
    assert solution.shortages()["max_spikes"]["2"] > 1
    assert solution.problem


@dataclass(frozen=True, kw_only=True)
class Altered:
    """A device that changes the times of a population of `Simulated`."""

    change: Callable

    def forward(self, network, inputs):
        times = Simulated().forward(network, inputs)
        return times | {"2": self.change(np.sort(times["2"].copy(), axis=2))}


def first_is(value):
    def change(times):
        times[0, 0, 0] = value
        return times

    return change


def lose(times):
    raise RuntimeError("the chip is lost")


@pytest.mark.parametrize(
    ("device", "message"),
    [
        (Simulated(forget="2"), "no spikes of population '2'"),
        (Altered(change=lambda times: times[..., ::-1]), "which is below the previous time"),
        (Altered(change=first_is(-1e-3)), "time -0.001 at sample 0, neuron 0, spike 0"),
        (Altered(change=first_is(np.nan)), "time nan at sample 0, neuron 0, spike 0"),
        (Altered(change=lambda times: times > 0), "times of type bool"),
        (Altered(change=lambda times: times[:-1]), "times of shape"),
    ],
)
def test_times_that_are_none_are_refused_by_their_place(device, message):
    assert_refused(lambda: run(device), UsageError, message)


LOST = InTheLoop(device=Altered(change=lose), min_slope=0.04)


@pytest.mark.parametrize(
    "call",
    [
        lambda: simulate(lower(small_net()), batch(), T_END, engine=LOST),
        lambda: fit(small_net(), DATA, engine=LOST, epochs=1, progress=None),
        lambda: evaluate(small_net(), DATA.test, engine=LOST, bias=True),
    ],
    ids=["simulate", "fit", "evaluate"],
)
def test_what_a_device_raises_is_what_comes_out(call):
    with pytest.raises(RuntimeError, match=r"^the chip is lost$"):
        call()


class Together:
    """A device that raises its text once another one is there."""

    def __init__(self, text, there):
        self.text, self.there = text, there

    def forward(self, network, inputs):
        self.there.wait(60)
        raise ValueError(self.text)


def test_threads_get_the_errors_of_their_own_devices():
    there = threading.Barrier(2)

    def raised(text):
        with pytest.raises(ValueError, match=f"^{text}$"):
            run(Together(text, there))

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(raised, ["chip 1", "chip 2"])) == [None, None]


def test_what_a_device_fires_after_the_end_does_not_count():
    exact = simulate(lower(small_net()), batch(), T_END, engine=EXACT)
    end = float(np.median(exact.first_spike("4")))
    early = run(Simulated(), t_end=end)
    expected = np.asarray(exact.spikes["4"].time) < end
    np.testing.assert_array_equal(np.isfinite(early.first_spike("4")), expected[..., 0])
    np.testing.assert_array_equal(early.counts["4"], expected.sum(axis=2))


def test_a_device_is_recorded_by_its_fields():
    def recorded(**fields):
        return InTheLoop(device=Simulated(**fields)).as_dict()["device"]

    assert recorded() == {"name": "Simulated", "late": 0.0, "forget": "", "refractory": 0.0}
    assert recorded(late=1e-3) != recorded()
    assert recorded(late=float("inf"))["late"] == "inf"  # JSON has no infinity


def test_what_comes_after_the_end_takes_no_room():
    late = run(Simulated(late=T_END), max_spikes=1)
    assert not any(np.any(count) for count in late.counts.values())
    assert not late.problem


def with_delays():
    weight = small_net().nodes["1"].weight
    return jaxsnn.with_synaptic_delays(
        lower(small_net()), "1", 0.001 * np.arange(weight.size).reshape(weight.shape)
    )


def with_delta_spikes():
    layers = build.linear(3, weight=np.ones((3, CHANNELS))), build.lif(tau=0.02)
    settings = {"dialect": "nir", "time_unit": "s", "spike_kernel": "delta"}
    return lower(build.sequential(build.input(CHANNELS), *layers, **settings))


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (with_delays, "synapses with individual delays; in-the-loop simulation"),
        (with_delta_spikes, "CubaLIF neurons, which in-the-loop simulation supports"),
    ],
    ids=["delays", "neurons that an arrival moves"],
)
def test_networks_that_have_no_gradient_in_the_loop_are_refused(network, message):
    engine = InTheLoop(device=Simulated())
    assert_refused(lambda: engine.run(network(), batch(), T_END), LoweringError, message)
