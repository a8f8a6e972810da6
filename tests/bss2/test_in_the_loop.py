"""The emulated chip as a device: weights go into places routed once, and what was trained is what
it runs.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsnn.bss2.check import check
from jaxsnn.bss2.chip import Dead
from jaxsnn.bss2.emulate import ChipInTheLoop, EmulatedChip, Emulator, Spread
from jaxsnn.bss2.emulate.loop import _whole, with_weights
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
from tests.bss2.test_emulate import CLOCK, T_END, events, layered, neurons
from tests.helpers.programs import compiled
from tests.helpers.refusals import assert_refused
from tests.helpers.small_task import DATA, small_net

# no noise of a run: the device and the emulator draw theirs from different keys
QUIET = Spread(jitter=0.0, threshold_trial=0.0, membrane_noise=0.0)


@pytest.fixture(scope="module")
def device():
    return ChipInTheLoop(layered(4, 6, 2), chip=EmulatedChip(seed=1, spread=QUIET))


def changed(graph, seed=1):
    """The graph with other weights, also of other signs, some of them zero or far too large."""
    rng = np.random.default_rng(seed)
    nodes = []
    for name in ("1", "3"):
        weight = graph.nodes[name].weight * rng.choice(
            [-1.0, 0.0, 0.5, 1.0, 1.0, 8.0], graph.nodes[name].weight.shape
        )
        nodes.append(graph.nodes[name].replace(weight=weight))
    return graph.with_nodes(nodes)


def test_weights_change_in_the_places_that_were_routed(device):
    quantized, mapping = device.with_weights(changed(layered(4, 6, 2)))
    assert check(mapping, quantized.netlist) == ()
    assert np.abs(quantized.netlist.weight).max() == 63
    assert len(quantized.netlist.weight) < len(device.routed.weight)
    before, after = device.mapping.runs[0], mapping.runs[0]
    assert before.neurons == after.neurons
    assert before.sources == after.sources
    # the same drivers and columns, in either of the driver's rows
    places = {
        tuple(place)
        for place in np.stack([before.synapses[:, 1] // 2, before.synapses[:, 2]], axis=1).tolist()
    }
    assert places.issuperset(
        zip((after.synapses[:, 1] // 2).tolist(), after.synapses[:, 2].tolist(), strict=True)
    )


def test_halves_of_an_lsb_are_rounded_as_in_the_mapping(device):
    # In float32 a weight times its scale may be a hair below what float64 has.
    graph, factors = layered(4, 6, 2), device.numbers[1]
    halves = (np.arange(24).reshape(6, 4) + 0.5) / float(np.ravel(factors["2"])[0])
    graph = graph.with_nodes([graph.nodes["1"].replace(weight=halves.astype(np.float32))])
    (entry,) = lower(graph).inputs
    whole = _whole(lower(graph), factors)[entry, "2"]
    np.testing.assert_array_equal(np.sort(np.ravel(whole)), np.arange(24) + 1)
    mapped = device.with_weights(graph)[0].netlist.weight
    assert set(np.arange(24) + 1) <= set(np.abs(mapped))


def test_equal_devices_share_compiled_code():
    graph, chip = layered(4, 6, 2), EmulatedChip(seed=1, spread=QUIET)
    first, again = (ChipInTheLoop(graph, chip=chip) for _ in range(2))
    assert (first, hash(first)) == (again, hash(again))
    alike = (
        {"chip": EmulatedChip(seed=2, spread=QUIET)},
        {"headroom": {"2": 2.0, "4": 2.5}},
        {"seed": 1},  # other circuits, the same outputs
    )
    assert all(first == ChipInTheLoop(graph, **{"chip": chip, **other}) for other in alike)
    others = ({"chip": EmulatedChip(seed=1)}, {"chip": EmulatedChip(ideal=True)})
    assert all(first != ChipInTheLoop(graph, **{"chip": chip, **other}) for other in others)
    assert first != ChipInTheLoop(layered(4, 5, 2), chip=chip)


def test_a_training_step_takes_the_numbers_of_its_chip():
    """Of two chips the setups look the same to compiled code, and each finds its own numbers in it."""
    graph, known = (
        layered(4, 6, 2),
        dict.fromkeys(field.name for field in dataclasses.fields(Setup)),
    )
    chips = [EmulatedChip(seed=seed, spread=QUIET) for seed in (1, 2)]
    engines = [InTheLoop(device=ChipInTheLoop(graph, chip=chip)) for chip in chips]
    (first, tree), (second, other) = (
        jax.tree.flatten(Setup(**{**known, "engine": engine})) for engine in engines
    )
    assert tree == other
    assert any(
        (np.asarray(ours) != np.asarray(own)).any()
        for ours, own in zip(first[:-1], second[:-1], strict=True)
    )
    found = jax.tree.leaves(jax.tree.unflatten(tree, second).engine.device.numbers)
    assert all(ours is own for ours, own in zip(found, second, strict=True))
    plain = Setup(**{**known, "engine": EventDriven()})
    assert jax.tree.leaves(plain) == []
    assert jax.tree.unflatten(jax.tree.structure(plain), []).engine is plain.engine


@pytest.mark.slow
def test_chips_share_compiled_code_and_fire_what_is_theirs(device):
    """Another chip, and that with other scales: one compilation, three answers."""
    graph, chip = layered(4, 6, 2), EmulatedChip(seed=2, spread=QUIET)
    network, given = lower(graph), events(4, seed=1)
    other, scaled = (ChipInTheLoop(graph, chip=chip, headroom=room) for room in (2.0, 4.0))
    with compiled() as names:
        times, *others = (
            InTheLoop(device=one, max_spikes=8).run(network, given, T_END).spikes["2"].time
            for one in (other, device, scaled)
        )
    assert names.count("jit(_simulate)") == 1
    assert all((np.asarray(times) != np.asarray(own)).any() for own in others)
    options = EventDriven(max_spikes=8).hashable()
    alone = jax.jit(lambda: other.forward_traced(network, {"input": given}, T_END, options))()
    np.testing.assert_allclose(times, alone["2"][0], rtol=1e-5)


@pytest.mark.slow
def test_of_several_chips_one_runs_a_batch():
    """Which one is drawn from the weights and inputs; each of them fires as it does by itself."""
    graph, chips = layered(4, 6, 2), [EmulatedChip(seed=seed, spread=QUIET) for seed in (2, 5)]
    network, several = lower(graph), ChipInTheLoop(graph, chip=chips)
    alone = [ChipInTheLoop(graph, chip=chip) for chip in chips]
    ran = []
    for seed in range(6):
        times, *own = (
            InTheLoop(device=one, max_spikes=8).run(network, events(4, seed=seed), T_END)
            for one in (several, *alone)
        )
        close = [
            np.allclose(times.spikes["2"].time, one.spikes["2"].time, rtol=1e-5) for one in own
        ]
        assert sum(close) == 1
        ran.append(close.index(True))
    assert set(ran) == {0, 1}
    assert several != alone[0]
    assert several.as_dict()["chip_seeds"] == [2, 5]


def test_calibration_stays_while_weights_change(device):
    quantized, _ = device.with_weights(changed(layered(4, 6, 2)))
    assert quantized.slope == pytest.approx(device.quantized.slope)
    for name, own in quantized.populations.items():
        np.testing.assert_array_equal(
            own.v_threshold, device.quantized.populations[name].v_threshold
        )


def test_the_device_fires_what_the_refilled_mapping_fires(device):
    graph = changed(layered(4, 6, 2))
    network = lower(graph)
    engine = EventDriven(max_spikes=24).hashable()
    (entry,) = network.inputs
    given = events(
        4, seed=1
    )  # with seed 0 a spike is within rounding of a clock edge, and the two round differently
    fired = jax.jit(lambda net, given: device.forward_traced(net, {entry: given}, T_END, engine))(
        network, given
    )
    quantized, mapping = device.with_weights(graph)
    found = Emulator(quantized, mapping, chip=device.chip).run(given, T_END)
    for name, (times, count) in fired.items():
        np.testing.assert_array_equal(found.fired[name], count)
        slots = min(times.shape[2], found.spikes[name].shape[2])
        np.testing.assert_allclose(times[..., :slots], found.spikes[name][..., :slots], rtol=1e-5)
    assert found.fired["2"].sum() > 20


@pytest.mark.slow
def test_noise_is_that_of_the_weights_and_inputs():
    device = ChipInTheLoop(
        build.sequential(build.input(3), build.linear(weight=np.full((2, 3), 3.0)), neurons())
    )
    network, engine = lower(layered(3, 2)), EventDriven(max_spikes=8).hashable()
    network = network.with_parameters(
        {**network.parameters, "1": {"weight": jnp.full((2, 3), 3.0)}}
    )
    fire = jax.jit(
        lambda given: device.forward_traced(network, {"input": given}, T_END, engine)["2"][0]
    )
    first, again, other = fire(events(3)), fire(events(3)), fire(events(3, seed=1))
    np.testing.assert_array_equal(first, again)
    assert (np.asarray(first) != np.asarray(other)).any()


@pytest.mark.slow
def test_a_network_learns_on_an_emulated_chip():
    device = ChipInTheLoop(small_net(), chip=EmulatedChip(seed=2))
    engine = InTheLoop(device=device, max_spikes=8, first_spike_only=("4",), min_slope=0.04)
    trained = fit(small_net(), DATA, engine=engine, epochs=4, learning_rate=0.05, progress=None)
    assert trained.settings["engine"]["device"]["chip"]["seed"] == 2
    assert trained.history[-1].train_loss < 0.6 * trained.history[0].train_loss


@pytest.mark.slow
def test_an_ideal_chip_gives_the_gradient_of_the_event_engine_nearly():
    """Weights have 6 bit, thresholds are whole LSB, neurons are refractory: everything else is
    exact.
    """
    graph = small_net()
    network, given = lower(graph), events(5, samples=6)
    device = ChipInTheLoop(graph, chip=EmulatedChip(ideal=True), headroom=1.0)

    def total(network, run):
        times = run(network).first_spike("4")
        return jnp.sum(jnp.where(jnp.isfinite(times), times, 0.0))

    loop = InTheLoop(device=device, max_spikes=8)
    ours = jax.grad(total)(network, lambda net: loop.run(net, given, T_END)).parameters
    exact = jax.grad(total)(
        network, lambda net: simulate(net, given, T_END, engine=EventDriven(max_spikes=8))
    ).parameters
    for node in ("1", "3"):
        first, second = (np.asarray(side[node]["weight"]).ravel() for side in (ours, exact))
        assert first @ second / np.linalg.norm(first) / np.linalg.norm(second) > 0.95


# -- what is refused


def fitted(device, graph, data=DATA, **options):
    return fit(graph, data, engine=InTheLoop(device=device), progress=None, **options)


def slower(graph):
    """The graph with twice the tau_mem, which is not what the chip was made for."""
    return graph.with_nodes([graph.nodes["2"].replace(tau_mem=2 * graph.nodes["2"].tau_mem)])


BIASED = build.sequential(
    build.input(2), build.affine(3, weight=np.ones((3, 2)), bias=0.1), neurons()
)
NET = layered(4, 6, 2)
REFUSED = {
    "other parameters": (
        lambda device: fitted(device, NET, trainable=("weight", "tau_mem")),
        "'tau_mem' cannot be trained",
    ),
    "biases": (
        lambda _: ChipInTheLoop(BIASED, options=QuantizeOptions(bias="source")),
        "biases have none",
    ),
    "chips of two kinds": (
        lambda _: ChipInTheLoop(NET, chip=[EmulatedChip(), EmulatedChip(ideal=True)]),
        "2 chips .* more than their seeds",
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
        lambda device: simulate(slower(NET), events(4), T_END, engine=InTheLoop(device=device)),
        r"node '2': tau_mem of neuron 0 is .*, the chip's mapping is for",
    ),
    "other neurons in training": (
        lambda device: fitted(device, slower(NET), epochs=1),
        "node '2': tau_mem",
    ),
    "more neurons": (
        lambda device: simulate(
            layered(4, 6, 3), events(4), T_END, engine=InTheLoop(device=device)
        ),
        r"6.*neurons, the chip's mapping has .*6, '4': 2",
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
    call, says = REFUSED[case]
    assert_refused(lambda: call(device), UsageError, says)


def test_other_weights_are_what_the_device_is_for(device):
    simulate(changed(NET), events(4), T_END, engine=InTheLoop(device=device))


def test_a_mapping_that_cannot_take_the_weights_is_refused(device):
    net, routed = quantize(NET).netlist, device.routed
    fixed = place_and_route(net).mapping
    larger = netlist(net.populations, net.pre, net.post, net.weight.astype(int) * 3)
    less = dataclasses.replace(routed, pre=routed.pre[1:], post=routed.post[1:])
    for arguments, says, facts in (
        ((fixed, net, net), "signs are 'fixed'", {"signs": "fixed"}),
        ((device.mapping, routed, larger), "one synapse carries 63", {"maximum": 63}),
        ((device.mapping, less, routed), "1 connections .* from 'input'", {"count": 1}),
    ):
        problem = assert_refused(lambda these=arguments: with_weights(*these), MappingError, says)
        assert facts.items() <= problem.facts.items()


def test_other_places_on_the_chip_are_another_device():
    graph = layered(4, 6, 2)
    one, same = (InTheLoop(device=ChipInTheLoop(graph)).as_dict() for _ in range(2))
    dead = Dead(circuits=tuple((0, place) for place in range(20)))
    other = InTheLoop(device=ChipInTheLoop(graph, dead=dead)).as_dict()
    assert one == same != other


def test_scales_that_are_given_are_taken():
    graph = layered(3, 2)
    largest = float(np.abs(graph.nodes["1"].weight).max())
    done = quantize(graph, QuantizeOptions(scale={"2": 40.0 / largest}))
    assert np.abs(done.netlist.weight).max() == 40
    assert done.nodes["2"].scale == 40.0 / largest
    assert quantize(graph, QuantizeOptions(scale={"2": 100.0 / largest})).nodes["2"].saturated > 0


def crowded(queue):
    """60 neurons that fire at once, and an engine that has a quiet chip run them."""
    graph = build.sequential(build.input(1), build.linear(weight=np.full((60, 1), 9.0)), neurons())
    still = Spread(**dict.fromkeys(Spread.__dataclass_fields__, 0.0))
    return graph, on_chip(graph, chip=EmulatedChip(queue=queue, spread=still))


@pytest.mark.parametrize(("queue", "recorded"), [(1, 24), (64, 120)])
def test_spikes_that_are_lost_on_their_way_are_told_and_do_not_count(queue, recorded):
    graph, engine = crowded(queue)
    given = Events(time=jnp.zeros((2, 1)), index=jnp.zeros((2, 1), int))
    found = engine.run(lower(graph), given, T_END)
    assert int(found.counts["2"].sum()) == int(found.spikes_recorded) == recorded
    assert found.lost["2"].tolist() == 2 * [60 - recorded // 2]
    told = f"population '2': {120 - recorded} spikes were not recorded"
    assert any(told in note for note in found.notes) == (recorded < 120)


@pytest.mark.parametrize(("queue", "cycles", "late", "lost"), [(1, 2.5, 3, 192), (64, 8.5, 0, 0)])
def test_training_tells_spikes_that_were_lost_and_inputs_after_the_end(queue, cycles, late, lost):
    """Of 5 events at once, 2.5 cycles of the clock before the end, two go out before it."""
    graph, engine = crowded(queue)
    times = jnp.full((4, 6), T_END - cycles * CLOCK).at[:, 0].set(0.0)  # which all neurons answer
    x = Events(time=times, index=jnp.zeros((4, 6), int))
    split = Data(x=x, y=np.arange(4) % 2, classes=("0", "1"))
    data = Splits(train=split, validation=split, test=split, name="alike")
    options = {"epochs": 1, "learning_rate": 1e-9, "progress": None, "t_end": T_END}
    notes = fit(graph, data, engine=engine, **options).notes
    messages = [note for note in notes if "reach the chip at or after t_end" in note]
    expected = [f"{part}: {4 * late} events" for part in ("train", "validation", "test")]
    assert [note[: note.index(" reach")] for note in messages] == expected * bool(late)
    messages = [note for note in notes if "spikes of the 4 test samples were not recorded" in note]
    assert [int(note.split()[0]) for note in messages] == [lost] * bool(lost)


def test_training_that_stops_tells_inputs_that_the_host_sends_after_the_end():
    """All events come so late that no neuron fires."""
    graph, engine = crowded(64)
    x = Events(time=jnp.full((20, 5), T_END - 2.5 * CLOCK), index=jnp.zeros((20, 5), int))
    with pytest.raises(TrainingStopped, match="no neuron of '2' fires") as stopped:
        fit(graph, (x, np.arange(20) % 2), engine=engine, epochs=1, t_end=T_END, progress=None)
    assert any("train: " in note and " reach the chip " in note for note in stopped.value.fit.notes)


def test_of_several_runs_the_events_that_the_host_sends_too_late_are_at_least_so_many():
    """It replays the spikes of 480 neurons into a second run, and is late with them, too."""
    layers = [build.linear(weight=np.full((480, 1), 0.5)), neurons()]
    layers += [build.linear(weight=np.full((60, 480), 0.5)), neurons()]
    graph = build.sequential(build.input(1), *layers)
    engine, network = on_chip(graph, chip=EmulatedChip(spread=QUIET)), lower(graph)
    runs = engine.device.mapping.runs
    sent = sum(any(one.from_run is None for one in run.sources) for run in runs)
    assert len(runs) > 1
    x = Events(time=jnp.full((1, 5), T_END - 2.5 * CLOCK), index=jnp.zeros((1, 5), int))
    batch = Batch(inputs=x, labels=jnp.zeros(1, int))
    (note,) = late_input_notes(engine, network, {"test": batch}, T_END)
    assert note.startswith(f"test: at least {3 * sent} events reach the chip at or after")
    assert note.endswith("and those of spikes that it replays are not counted")
