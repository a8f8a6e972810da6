"""The emulated chip as a device: weights go into places routed once, and what was trained is what
it runs.
"""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsnn.bss2.check import check
from jaxsnn.bss2.chip import Dead
from jaxsnn.bss2.emulate import ChipInTheLoop, EmulatedChip, Emulator, Spread
from jaxsnn.bss2.emulate.loop import _rounded_weights, with_weights
from jaxsnn.bss2.netlist import netlist
from jaxsnn.bss2.search.portfolio import place_and_route
from jaxsnn.bss2.search.quantize import QuantizeOptions, quantize
from jaxsnn.errors import MappingError, UsageError
from jaxsnn.event.event_driven import EventDriven
from jaxsnn.network.lowering.lower import lower
from jaxsnn.network.spikes import Events
from jaxsnn.nir import build
from jaxsnn.simulation.simulate import simulate
from jaxsnn.train import Data, InTheLoop, Splits, TrainingStopped, fit, on_chip
from jaxsnn.train.data.batches import Batch
from jaxsnn.train.loop.chip_training import late_input_notes
from jaxsnn.train.loop.epoch import Setup
from tests.bss2.test_emulate import CLOCK, STILL, T_END, at_once, events, layered, neurons
from tests.helpers.programs import compiled
from tests.helpers.refusals import assert_refused
from tests.helpers.small_task import DATA, small_net

# No noise from run to run: the device and the emulator draw it from different keys.
QUIET = Spread(jitter=0.0, v_threshold_trial=0.0, v_noise=0.0)
NET = layered(4, 6, 2)
LATE = " reach the chip"


@pytest.fixture(scope="module")
def device():
    return ChipInTheLoop(NET, chip=EmulatedChip(seed=1, spread=QUIET))


def changed(graph, seed=1):
    """The graph with other weights, also of other signs, some of them zero or far too large."""
    rng, factors = np.random.default_rng(seed), [-1.0, 0.0, 0.5, 1.0, 1.0, 8.0]
    return graph.with_nodes(
        [
            node.replace(weight=node.weight * rng.choice(factors, node.weight.shape))
            for node in (graph.nodes["1"], graph.nodes["3"])
        ]
    )


def test_weights_change_in_the_places_that_were_routed(device):
    quantized, mapping = device.with_weights(changed(layered(4, 6, 2)))
    assert check(mapping, quantized.netlist) == ()
    assert np.abs(quantized.netlist.weight).max() == 63
    assert len(quantized.netlist.weight) < len(device.routed.weight)
    before, after = device.mapping.runs[0], mapping.runs[0]
    assert (before.neurons, before.sources) == (after.neurons, after.sources)
    # The same drivers and columns; the row of the driver may differ.
    places, filled = (
        {(row // 2, column) for _, row, column, *_ in run.synapses.tolist()}
        for run in (before, after)
    )
    assert filled <= places
    # The calibration of the chip stays the same.
    assert quantized.slope == pytest.approx(device.quantized.slope)
    for name, population in quantized.populations.items():
        expected = device.quantized.populations[name].v_threshold
        np.testing.assert_array_equal(population.v_threshold, expected)


def test_halves_of_an_lsb_are_rounded_as_in_the_mapping(device):
    # In float32 a weight times its scale may be slightly less than in float64.
    graph, factors = layered(4, 6, 2), device.numbers[1]
    halves = (np.arange(24).reshape(6, 4) + 0.5) / float(np.ravel(factors["2"])[0])
    graph = graph.with_nodes([graph.nodes["1"].replace(weight=halves.astype(np.float32))])
    (entry,) = lower(graph).inputs
    integer_weights = _rounded_weights(lower(graph), factors)[entry, "2"]
    np.testing.assert_array_equal(np.sort(np.ravel(integer_weights)), np.arange(24) + 1)
    mapped = device.with_weights(graph)[0].netlist.weight
    assert set(np.arange(24) + 1) <= set(np.abs(mapped))


@pytest.mark.parametrize(
    ("graph", "options", "equal"),
    [
        (NET, {}, True),
        (NET, {"chip": EmulatedChip(seed=2, spread=QUIET)}, True),
        (NET, {"headroom": {"2": 2.0, "4": 2.5}}, True),
        (NET, {"seed": 1}, True),  # other circuits, the same outputs
        (NET, {"chip": EmulatedChip(seed=1)}, False),
        (NET, {"chip": EmulatedChip(ideal=True)}, False),
        (layered(4, 5, 2), {}, False),
    ],
)
def test_equal_devices_share_compiled_code(graph, options, equal, device):
    second = ChipInTheLoop(graph, **{"chip": EmulatedChip(seed=1, spread=QUIET), **options})
    assert (second == device) == equal
    if not options and equal:
        assert hash(second) == hash(device)


def test_gradients_account_for_the_refractory_period_of_the_chip():
    engine = on_chip(NET, chip=EmulatedChip(seed=1, spread=QUIET))
    assert engine.refractory == pytest.approx(1e-3)
    assert engine.event.of("refractory", "2") == pytest.approx(1e-3)
    assert engine.as_dict()["refractory"] == engine.refractory


def test_a_training_step_takes_the_numbers_of_its_chip():
    """Of two chips the setups look the same to compiled code, and each finds its own numbers in it."""
    fields = dict.fromkeys(field.name for field in dataclasses.fields(Setup))

    def setup(engine):
        return Setup(**{**fields, "engine": engine})

    chips = [EmulatedChip(seed=seed, spread=QUIET) for seed in (1, 2)]
    (first, tree), (second, second_tree) = (
        jax.tree.flatten(setup(InTheLoop(device=ChipInTheLoop(NET, chip=chip)))) for chip in chips
    )
    assert tree == second_tree
    assert any(
        (np.asarray(ours) != np.asarray(theirs)).any()
        for ours, theirs in zip(first[:-1], second[:-1], strict=True)
    )
    numbers = jax.tree.leaves(jax.tree.unflatten(tree, second).engine.device.numbers)
    assert all(ours is theirs for ours, theirs in zip(numbers, second, strict=True))
    plain = setup(EventDriven())
    assert jax.tree.leaves(plain) == []
    assert jax.tree.unflatten(jax.tree.structure(plain), []).engine is plain.engine


@pytest.mark.slow
def test_chips_share_compiled_code_and_fire_what_is_theirs(device):
    """Another chip, and that with other scales: one compilation, three answers."""
    chip, network, inputs = EmulatedChip(seed=2, spread=QUIET), lower(NET), events(4, seed=1)
    second_device, scaled = (ChipInTheLoop(NET, chip=chip, headroom=room) for room in (2.0, 4.0))
    with compiled() as programs:
        times, *others = (
            InTheLoop(device=chip_in_loop, max_spikes=8)
            .run(network, inputs, T_END)
            .spikes["2"]
            .time
            for chip_in_loop in (second_device, device, scaled)
        )
    assert programs.count("jit(_simulate)") == 1
    assert all((np.asarray(times) != np.asarray(spikes)).any() for spikes in others)
    options = EventDriven(max_spikes=8).hashable()
    alone = jax.jit(
        lambda: second_device.forward_traced(network, {"input": inputs}, T_END, options)
    )()
    np.testing.assert_allclose(times, alone["2"][0], rtol=1e-5)


@pytest.mark.slow
def test_of_several_chips_one_runs_a_batch():
    """Which one is drawn from the weights and inputs; each of them fires as it does by itself."""
    chips = [EmulatedChip(seed=seed, spread=QUIET) for seed in (2, 5)]
    several, *alone = (ChipInTheLoop(NET, chip=chip) for chip in (chips, *chips))
    ran = []
    for seed in range(6):
        times, *expected = (
            InTheLoop(device=device, max_spikes=8)
            .run(lower(NET), events(4, seed=seed), T_END)
            .spikes["2"]
            .time
            for device in (several, *alone)
        )
        close = [np.allclose(times, spikes, rtol=1e-5) for spikes in expected]
        assert sum(close) == 1
        ran.append(close.index(True))
    assert set(ran) == {0, 1}
    assert several != alone[0]
    assert several.as_dict()["chip_seeds"] == [2, 5]


def test_the_device_fires_what_the_refilled_mapping_fires(device):
    graph = changed(NET)
    network, engine = lower(graph), EventDriven(max_spikes=24).hashable()
    # With seed 0, a spike is so close to a clock edge that the two round differently.
    inputs = {"input": events(4, seed=1)}
    fired = jax.jit(lambda net: device.forward_traced(net, inputs, T_END, engine))(network)
    emulated = Emulator(*device.with_weights(graph), chip=device.chip).run(inputs["input"], T_END)
    for name, (times, count) in fired.items():
        spikes = emulated.spikes[name]
        np.testing.assert_array_equal(emulated.fired[name], count)
        slots = min(times.shape[2], spikes.shape[2])
        np.testing.assert_allclose(times[..., :slots], spikes[..., :slots], rtol=1e-5)
    assert emulated.fired["2"].sum() > 20


@pytest.mark.slow
def test_noise_is_that_of_the_weights_and_inputs():
    graph = build.sequential(build.input(3), build.linear(weight=np.full((2, 3), 3.0)), neurons())
    device, engine = ChipInTheLoop(graph), EventDriven(max_spikes=8).hashable()
    network = lower(graph)
    fire = jax.jit(
        lambda inputs: device.forward_traced(network, {"input": inputs}, T_END, engine)["2"][0]
    )
    first, again, second = (fire(events(3, seed=seed)) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert (np.asarray(first) != np.asarray(second)).any()


@pytest.mark.slow
def test_a_network_learns_on_an_emulated_chip():
    device = ChipInTheLoop(small_net(), chip=EmulatedChip(seed=2))
    engine = InTheLoop(device=device, max_spikes=8, first_spike_only=("4",), min_slope=0.04)
    trained = fit(small_net(), DATA, engine=engine, epochs=4, learning_rate=0.05, progress=None)
    assert trained.settings["engine"]["device"]["chip"]["seed"] == 2
    assert trained.history[-1].train_loss < 0.6 * trained.history[0].train_loss


@pytest.mark.slow
def test_an_ideal_chip_gives_the_gradient_of_the_event_engine_nearly():
    """Weights have 6 bits and thresholds are integer LSB: everything else is exact. In the network of this
    seed no membrane grazes its threshold, where small deviations of weights change the gradient.
    """
    net = small_net(seed=2)
    device = ChipInTheLoop(net, chip=EmulatedChip(ideal=True), headroom=1.0)
    options = {"max_spikes": 8, "refractory": device.refractory}

    def total(network, engine):
        inputs = events(5, samples=6)
        times = simulate(network, inputs, T_END, engine=engine).first_spike("4")
        return jnp.sum(jnp.where(jnp.isfinite(times), times, 0.0))

    ours, exact = (
        jax.grad(total)(lower(net), engine).parameters
        for engine in (InTheLoop(device=device, **options), EventDriven(**options))
    )
    for node in ("1", "3"):
        first, second = (np.asarray(side[node]["weight"]).ravel() for side in (ours, exact))
        assert first @ second / np.linalg.norm(first) / np.linalg.norm(second) > 0.95


# -- refusals


def fitted(device, graph, data=DATA, **options):
    return fit(graph, data, engine=InTheLoop(device=device), progress=None, **options)


def run(device, graph):
    return simulate(graph, events(4), T_END, engine=InTheLoop(device=device))


def slower(graph):
    """The graph with twice the tau_mem, which is not what the chip was made for."""
    return graph.with_nodes([graph.nodes["2"].replace(tau_mem=2 * graph.nodes["2"].tau_mem)])


BIASED = build.sequential(
    build.input(2), build.affine(3, weight=np.ones((3, 2)), bias=0.1), neurons()
)
REFUSED = {
    "other parameters": (
        lambda device: fitted(device, NET, trainable=("weight", "tau_mem")),
        "'tau_mem' cannot be trained",
    ),
    "biases": (
        lambda _: ChipInTheLoop(BIASED, options=QuantizeOptions(bias="source")),
        "one synapse per weight, and no channel that replaces biases",
    ),
    "chips of two kinds": (
        lambda _: ChipInTheLoop(NET, chip=[EmulatedChip(), EmulatedChip(ideal=True)]),
        "2 chips .* differ only in their seeds",
    ),
    "no headroom": (
        lambda _: ChipInTheLoop(NET, headroom={"2": 1.0, "4": 0.0}),
        "headroom of population '4' is 0",
    ),
    "a headroom of nobody": (
        lambda _: ChipInTheLoop(NET, headroom={"lif": 1.0}),
        "headroom .* 'lif', which is not a population",
    ),
    "other neurons": (
        lambda device: run(device, slower(NET)),
        r"node '2': tau_mem of neuron 0 is 0\.04; .* 0\.02",
    ),
    "other neurons in training": (
        lambda device: fitted(device, slower(NET), epochs=1),
        "node '2': tau_mem",
    ),
    "more neurons": (
        lambda device: run(device, layered(4, 6, 3)),
        r"'2': 6, '4': 3\} neurons; .* \{'2': 6, '4': 2\}",
    ),
    "calibrated weights": (
        lambda _: fitted(ChipInTheLoop(small_net()), small_net(), calibrate=0.8, epochs=1),
        r"calibrate is 0\.8",
    ),
    "a scale of nobody": (
        lambda _: quantize(layered(3, 2), QuantizeOptions(scale={"x": 1.0, "2": 1.0})),
        "scale .* 'x', which is not a population",
    ),
    "a scale that is missing": (
        lambda _: quantize(layered(3, 2), QuantizeOptions(scale={})),
        "the scale of population '2' is not specified",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_the_device_does_not_take_is_refused(case, device):
    call, message = REFUSED[case]
    assert_refused(lambda: call(device), UsageError, message)


def test_other_weights_are_what_the_device_is_for(device):
    run(device, changed(NET))


def test_a_mapping_that_cannot_take_the_weights_is_refused(device):
    net, routed = quantize(NET).netlist, device.routed
    fixed = place_and_route(net).mapping
    larger = netlist(net.populations, net.pre, net.post, net.weight.astype(int) * 3)
    less = dataclasses.replace(routed, pre=routed.pre[1:], post=routed.post[1:])
    for arguments, message in (
        ((fixed, net, net), "signs are 'fixed'"),
        ((device.mapping, routed, larger), "the largest weight of one synapse is 63"),
        ((device.mapping, less, routed), "connections that were not routed: 1, .* from 'input'"),
    ):
        assert_refused(partial(with_weights, *arguments), MappingError, message)


def test_other_places_on_the_chip_are_another_device():
    dead = Dead(circuits=tuple((0, place) for place in range(20)))
    first, again, second = (
        InTheLoop(device=ChipInTheLoop(NET, **options)).as_dict()
        for options in ({}, {}, {"dead": dead})
    )
    assert first == again != second


def test_scales_that_are_given_are_taken():
    graph = layered(3, 2)
    largest = float(np.abs(graph.nodes["1"].weight).max())
    exact, large = (
        quantize(graph, QuantizeOptions(scale={"2": lsb / largest})) for lsb in (40.0, 100.0)
    )
    assert np.abs(exact.netlist.weight).max() == 40
    assert exact.nodes["2"].scale == 40.0 / largest
    assert large.nodes["2"].saturated > 0


def crowded(queue):
    """60 neurons that fire at once, and an engine that has a quiet chip run them."""
    graph = build.sequential(build.input(1), build.linear(weight=np.full((60, 1), 9.0)), neurons())
    return graph, on_chip(graph, chip=EmulatedChip(queue=queue, spread=STILL))


@pytest.mark.parametrize(("queue", "recorded"), [(1, 24), (64, 120)])
def test_spikes_that_are_lost_on_their_way_are_noted_and_do_not_count(queue, recorded):
    graph, engine = crowded(queue)
    solution = engine.run(lower(graph), at_once(0.0), T_END)
    assert int(solution.counts["2"].sum()) == int(solution.spikes_recorded) == recorded
    assert solution.lost["2"].tolist() == 2 * [60 - recorded // 2]
    facts = [note.facts for note in solution.notes if note.code == "lost-spikes"]
    assert facts == [{"population": "2", "count": 120 - recorded}] * (recorded < 120)


@pytest.mark.parametrize(("queue", "cycles", "late", "lost"), [(1, 2.5, 3, 192), (64, 8.5, 0, 0)])
def test_training_notes_spikes_that_were_lost_and_inputs_after_the_end(queue, cycles, late, lost):
    """Of 5 events at once, 2.5 cycles of the clock before the end, two go out before it."""
    graph, engine = crowded(queue)
    times = jnp.full((4, 6), T_END - cycles * CLOCK).at[:, 0].set(0.0)  # all neurons fire
    x = Events(time=times, index=jnp.zeros((4, 6), int))
    split = Data(x=x, y=np.arange(4) % 2, classes=("0", "1"))
    data = Splits(train=split, validation=split, test=split, name="alike")
    options = {"epochs": 1, "learning_rate": 1e-9, "progress": None, "t_end": T_END}
    notes = fit(graph, data, engine=engine, **options).notes
    after_end = [
        note.partition(" reach the chip at or after t_end")[0] for note in notes if LATE in note
    ]
    expected = [f"{part}: {4 * late} events" for part in ("train", "validation", "test")]
    assert after_end == expected * bool(late)
    facts = [note.facts for note in notes if getattr(note, "code", "") == "lost-spikes"]
    assert facts == [{"count": lost, "samples": 4}] * bool(lost)


def test_training_that_stops_notes_inputs_that_the_host_sends_after_the_end():
    """All events come so late that no neuron fires."""
    graph, engine = crowded(64)
    data = at_once(T_END - 2.5 * CLOCK, samples=20, spikes=5), np.arange(20) % 2
    with pytest.raises(TrainingStopped, match="no neuron of '2' fires") as stopped:
        fit(graph, data, engine=engine, epochs=1, t_end=T_END, progress=None)
    assert any("train: " in note and LATE in note for note in stopped.value.fit.notes)


def test_of_several_runs_the_events_that_the_host_sends_too_late_are_at_least_so_many():
    """It replays the spikes of 480 neurons into a second run, and is late with them, too."""
    weights = [build.linear(weight=np.full(shape, 0.5)) for shape in ((480, 1), (60, 480))]
    graph = build.sequential(build.input(1), weights[0], neurons(), weights[1], neurons())
    engine = on_chip(graph, chip=EmulatedChip(spread=QUIET))
    runs = engine.device.mapping.runs
    sent = sum(any(source.from_run is None for source in run.sources) for run in runs)
    assert len(runs) > 1
    x = at_once(T_END - 2.5 * CLOCK, samples=1, spikes=5)
    batch = Batch(inputs=x, labels=jnp.zeros(1, int))
    (note,) = late_input_notes(engine, lower(graph), {"test": batch}, T_END)
    assert note.startswith(f"test: at least {3 * sent} events{LATE} at or after")
    assert note.endswith("(replayed spikes are not counted)")
