"""Training on the spikes of something else, with exact gradients at the times that it recorded."""

import threading
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
from tests.helpers.small_task import DATA, small_net

T_END, CHANNELS = 0.065, 5


@dataclass(frozen=True, kw_only=True)
class Simulated:
    """A device that is the event engine itself, its spikes late by some seconds; in NumPy, as a
    chip would be.
    """

    late: float = 0.0
    forget: str = ""

    def forward(self, network, inputs):
        with jax.ensure_compile_time_eval():
            solution = simulate(
                network, inputs, T_END, engine=EventDriven(max_spikes=8), throw=False
            )
        return {
            name: np.asarray(spikes.time) + self.late
            for name, spikes in solution.spikes.items()
            if name != self.forget
        }


def batch(samples=6):
    times = np.random.default_rng(0).uniform(0.0, 0.02, (samples, CHANNELS))
    return Events(
        time=jnp.asarray(times), index=jnp.broadcast_to(jnp.arange(CHANNELS), times.shape)
    )


@pytest.mark.slow
def test_at_its_own_spikes_the_gradient_is_that_of_the_event_engine(x64):
    network, events = lower(small_net()), batch()
    weights = jnp.asarray(np.random.default_rng(1).normal(size=(6, 3)))

    def total(network, run):
        times = run(network).first_spike("4")
        return jnp.sum(jnp.where(jnp.isfinite(times), times * weights, 0.0))

    engine = InTheLoop(device=Simulated(), max_spikes=8)
    ours = jax.grad(total)(network, lambda net: engine.run(net, events, T_END))
    exact = jax.grad(total)(
        network, lambda net: simulate(net, events, T_END, engine=EventDriven(max_spikes=8))
    )
    for node, own in exact.parameters.items():
        for name, value in own.items():
            scale = max(float(jnp.max(abs(value))), 1e-12)
            np.testing.assert_allclose(
                ours.parameters[node][name], value, atol=1e-9 * scale, err_msg=f"{node}.{name}"
            )


def test_what_a_device_records_is_what_the_loss_sees():
    late = InTheLoop(device=Simulated(late=1e-3)).run(lower(small_net()), batch(), T_END)
    there = simulate(lower(small_net()), batch(), T_END, engine=EventDriven(max_spikes=8))
    np.testing.assert_allclose(late.first_spike("4"), there.first_spike("4") + 1e-3, rtol=1e-6)
    assert int(late.result) == 0


@pytest.mark.slow
def test_a_network_learns_on_a_device():
    trained = fit(
        small_net(),
        DATA,
        engine=InTheLoop(device=Simulated(late=3e-4), max_spikes=8, min_slope=0.04),
        epochs=4,
        learning_rate=0.05,
        progress=None,
    )
    assert trained.settings["engine"]["name"] == "InTheLoop"
    assert trained.history[-1].train_loss < 0.6 * trained.history[0].train_loss


def test_a_budget_that_the_device_exceeds_is_seen():
    solution = InTheLoop(device=Simulated(), max_spikes=1).run(lower(small_net()), batch(), T_END)
    assert solution.shortages()["max_spikes"]["2"] > 1


@pytest.mark.parametrize(
    ("device", "message"),
    [(Simulated(forget="2"), "returns no spikes of population '2'")],
)
def test_a_device_that_gives_too_little_is_refused(device, message):
    with pytest.raises((UsageError, jax.errors.JaxRuntimeError), match=message):
        jax.block_until_ready(InTheLoop(device=device).run(lower(small_net()), batch(), T_END))


@dataclass(frozen=True, kw_only=True)
class Altered:
    """A device that changes the times of `Simulated`, or raises."""

    how: str

    def forward(self, network, inputs):
        times = Simulated().forward(network, inputs)
        first = np.sort(times["2"].copy(), axis=2)
        if self.how == "lost":
            raise RuntimeError("the chip is lost")
        if self.how == "reversed":
            first = first[..., ::-1]
        elif self.how == "negative":
            first[0, 0, 0] = -1e-3
        elif self.how == "nan":
            first[0, 0, 0] = np.nan
        elif self.how == "bool":
            first = first > 0
        elif self.how == "short":
            first = first[:-1]
        return times | {"2": first}


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("reversed", "behind a later time, and they must rise"),
        ("negative", "returns the time -0.001 at sample 0, neuron 0, spike 0"),
        ("nan", "returns the time nan at sample 0, neuron 0, spike 0"),
        ("bool", "times of type bool"),
        ("short", "times of shape"),
    ],
)
def test_times_that_are_none_are_refused_by_their_place(how, message):
    engine = InTheLoop(device=Altered(how=how))
    with pytest.raises(UsageError, match=f"population '2': the device.*{message}"):
        simulate(lower(small_net()), batch(), T_END, engine=engine)


def test_what_a_device_raises_is_what_comes_out():
    engine = InTheLoop(device=Altered(how="lost"), min_slope=0.04)
    with pytest.raises(RuntimeError, match=r"^the chip is lost$"):
        simulate(lower(small_net()), batch(), T_END, engine=engine)
    with pytest.raises(RuntimeError, match=r"^the chip is lost$"):
        fit(small_net(), DATA, engine=engine, epochs=1, progress=None)
    with pytest.raises(RuntimeError, match=r"^the chip is lost$"):
        evaluate(small_net(), DATA.test, engine=engine, bias=True)


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
        engine = InTheLoop(device=Together(text, there))
        with pytest.raises(ValueError, match="chip") as caught:
            simulate(lower(small_net()), batch(), T_END, engine=engine)
        return str(caught.value)

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(raised, ["chip 1", "chip 2"])) == ["chip 1", "chip 2"]


def test_what_a_device_fires_after_the_end_does_not_count():
    network, events = lower(small_net()), batch()
    there = simulate(network, events, T_END, engine=EventDriven(max_spikes=8))
    end = float(np.median(there.first_spike("4")))
    early = simulate(network, events, end, engine=InTheLoop(device=Simulated()))
    expected = np.asarray(there.spikes["4"].time) < end
    np.testing.assert_array_equal(np.isfinite(early.first_spike("4")), expected[..., 0])
    np.testing.assert_array_equal(early.counts["4"], expected.sum(axis=2))


def test_a_device_is_recorded_by_its_fields():
    def recorded(**fields):
        return InTheLoop(device=Simulated(**fields)).as_dict()["device"]

    assert recorded() == {"name": "Simulated", "late": 0.0, "forget": ""}
    assert recorded(late=1e-3) != recorded()
    assert recorded(late=float("inf"))["late"] == "inf"  # JSON has none


def test_what_comes_after_the_end_takes_no_room():
    engine = InTheLoop(device=Simulated(late=T_END), max_spikes=1)
    solution = simulate(lower(small_net()), batch(), T_END, engine=engine)
    assert not any(np.any(count) for count in solution.counts.values())
    early = InTheLoop(device=Simulated(), max_spikes=1)
    assert simulate(lower(small_net()), batch(), T_END, engine=early, throw=False).problem


def test_synapses_with_delays_of_their_own_are_refused_by_their_name():
    network = lower(small_net())
    node = next(name for name, own in network.parameters.items() if "weight" in own)
    delays = 0.001 * np.arange(network.parameters[node]["weight"].size)
    delays = delays.reshape(network.parameters[node]["weight"].shape)
    delayed = jaxsnn.with_synaptic_delays(network, node, delays)
    with pytest.raises(LoweringError, match="synapses with individual delays, and only dense"):
        InTheLoop(device=Simulated()).run(delayed, batch(), T_END)


def test_neurons_that_an_arrival_moves_are_refused():
    graph = build.sequential(
        build.input(CHANNELS),
        build.linear(3, weight=np.ones((3, CHANNELS))),
        build.lif(tau=0.02),
        dialect="nir",
        time_unit="s",
        spike_kernel="delta",
    )
    with pytest.raises(LoweringError, match="CubaLIF neurons, which train in the loop"):
        InTheLoop(device=Simulated()).run(lower(graph), batch(), T_END)
