"""The emulated chip: ideal, it fires what the quantised network fires; else it deviates as it says,
and no more.
"""

import dataclasses
import itertools
import math
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxsnn.bss2.chip import HICANN_X, SMALL
from jaxsnn.bss2.deploy import deploy
from jaxsnn.bss2.emulate import CALIBRATED, EmulatedChip, Emulator, Spread, emulate, emulator_notes
from jaxsnn.bss2.emulate.connections import wired
from jaxsnn.bss2.emulate.emulated_chip import pattern_of
from jaxsnn.bss2.emulate.transport import jittered, queued, serialised
from jaxsnn.bss2.search.portfolio import place_and_route
from jaxsnn.bss2.search.quantize import QuantizeOptions, quantize
from jaxsnn.errors import MappingError, UsageError
from jaxsnn.event.event_driven import EventDriven
from jaxsnn.network.lowering.lower import lower
from jaxsnn.network.spikes import Events
from jaxsnn.nir import build
from jaxsnn.nir.initializers import normal
from jaxsnn.simulation.simulate import simulate
from jaxsnn.units import format_time
from tests.helpers.refusals import assert_refused
from tests.oracles import event_queues

T_END, CLOCK = 60e-3, 8e-6  # seconds of the file: the chip is 1000 times as fast
IDEAL = EmulatedChip(ideal=True)
STILL = Spread(**dict.fromkeys(vars(Spread()), 0.0))
#: Chip with so few circuits that two small layers need two runs.
FOUR_CIRCUITS = dataclasses.replace(SMALL, drivers_per_bus=4, label_bits=3, row_select_bits=2)


def neurons(**changes):
    return build.cubalif(**{"tau_mem": "20ms", "tau_syn": "10ms", **changes})


def layered(*sizes, seed=0, mean=1.0, deviation=2.0):
    nodes = [build.input(sizes[0])]
    for before, size in itertools.pairwise(sizes):
        weight = normal(mean * 4 / before, deviation * 2 / before**0.5)
        nodes += [build.linear(size, weight=weight), neurons()]
    return build.sequential(*nodes, seed=seed)


def still(**changes):
    """A chip that deviates in nothing but what is said."""
    return EmulatedChip(spread=dataclasses.replace(STILL, **changes))


def events(channels, samples=4, seed=0, spikes=1):
    time = np.random.default_rng(seed).uniform(0.0, 20e-3, (samples, channels * spikes))
    index = jnp.broadcast_to(jnp.arange(channels * spikes) % channels, time.shape)
    return Events(time=jnp.asarray(time), index=index)


def at_once(time, samples=2, spikes=1):
    """Events of the first channel at one time."""
    return Events(time=jnp.full((samples, spikes), time), index=jnp.zeros((samples, spikes), int))


def mapped(graph, **options):
    quantized = quantize(graph)
    outcome = place_and_route(quantized.netlist, **options)
    assert outcome.mapping is not None, outcome.why
    return quantized, outcome.mapping


@pytest.fixture(scope="module")
def two_layers():
    return mapped(layered(4, 6, 2))


def assert_alike(first, second):
    """Fail unless two emulations fire the same spikes, to a cycle of the clock."""
    for name, times in first.spikes.items():
        np.testing.assert_array_equal(first.fired[name], second.fired[name], err_msg=name)
        slots = min(times.shape[2], second.spikes[name].shape[2])
        np.testing.assert_allclose(
            times[..., :slots],
            second.spikes[name][..., :slots],
            rtol=0,
            atol=CLOCK,
            err_msg=name,
        )
    assert all(count.sum() >= 2 for count in first.fired.values())


def assert_runs_fire_what_one_run_fires(quantized, mapping, inputs):
    emulations = [emulate(quantized, net, inputs, T_END, chip=IDEAL) for net in (None, mapping)]
    assert [emulation.runs for emulation in emulations] == [1, len(mapping.runs)]
    assert_alike(*emulations)


# -- ideal chip: the quantised network itself


def test_an_ideal_chip_fires_what_the_event_engine_fires_with_whole_weights():
    """Against the engine on the file's own network, its weights replaced by whole numbers over
    their scale.
    """
    graph = layered(6, 5, 3)
    quantized, mapping = mapped(graph)
    changed = []
    for node, name in (("1", "2"), ("3", "4")):
        scale, chip = quantized.nodes[name].scale, quantized.populations[name]
        rounded_weights = np.rint(graph.nodes[node].weight * scale) / scale
        height = (chip.v_threshold - chip.v_leak) / chip.lsb_per_volt
        changed += [graph.nodes[node].replace(weight=rounded_weights)]
        changed += [graph.nodes[name].replace(v_threshold=height)]
    refractory = quantized.populations["2"].refractory_time * quantized.speedup
    engine = EventDriven(max_spikes=16, refractory=refractory)
    expected = simulate(lower(graph.with_nodes(changed)), events(6), T_END, engine=engine)
    emulated = emulate(quantized, mapping, events(6), T_END, chip=IDEAL)
    for name, times in emulated.spikes.items():
        spikes = expected.spikes[name]
        slots = min(spikes.time.shape[2], times.shape[2])
        np.testing.assert_allclose(times[..., :slots], spikes.time[..., :slots], rtol=1e-4)
        np.testing.assert_array_equal(emulated.fired[name], spikes.count)
    assert emulated.fired["2"].sum() > 10


def test_runs_in_a_chain_fire_what_one_run_of_the_net_fires():
    quantized, mapping = mapped(layered(4, 4, 2, seed=6, deviation=1.0), chip=FOUR_CIRCUITS)
    assert len(mapping.runs) > 1
    assert any(source.from_run is not None for run in mapping.runs for source in run.sources)
    assert_runs_fire_what_one_run_fires(quantized, mapping, events(4))


@pytest.mark.slow
def test_neurons_of_several_circuits_and_those_that_feed_each_other():
    inputs, size = 300, 6
    rng = np.random.default_rng(0)
    nodes = {
        "in": build.input(inputs),
        "to": build.linear(weight=rng.normal(0.03, 0.15, (size, inputs))),
        "back": build.linear(weight=rng.normal(0.0, 0.3, (size, size))),
        "hidden": neurons(),
        "out": build.output(),
    }
    chains = [("in", "to", "hidden", "out"), ("hidden", "back", "hidden")]
    quantized, mapping = mapped(build.network(nodes, chains))
    assert max(len(neuron.circuits) for neuron in mapping.runs[0].neurons) > 1
    assert_runs_fire_what_one_run_fires(quantized, mapping, events(inputs, samples=2))


# -- deviations


def test_the_fixed_pattern_belongs_to_the_chip_and_is_as_wide_as_it_says():
    first, again, second = (
        vars(pattern_of(HICANN_X, EmulatedChip(seed=seed, spread=CALIBRATED))) for seed in (3, 3, 4)
    )
    for name in first.keys() - {"joined_capacitance"}:
        value, width = first[name], getattr(CALIBRATED, name)
        np.testing.assert_array_equal(value, again[name])
        assert (value != second[name]).any()
        assert value.std() == pytest.approx(width, rel=0.15)
        centre = 0.0 if name.startswith("v_") else 1.0
        assert value.mean() == pytest.approx(centre, abs=0.2 * width)


def wired_run(quantized, mapping, chip, run=0):
    """Neurons and projections of a run as a chip has them."""
    return wired(quantized, quantized.netlist, mapping, chip, 1.0).runs[run]


@pytest.mark.parametrize(
    "spread",
    ["v_threshold", "tau_mem", "tau_syn", "input_gain", "driver_gain", "v_leak", "v_reset"],
)
def test_each_spread_reaches_the_neurons_that_it_is_of(spread, two_layers):
    before = wired_run(*two_layers, still())
    after = wired_run(*two_layers, still(**{spread: getattr(Spread(), spread)}))
    for name in ("tau_mem", "tau_syn", "v_leak", "v_threshold", "v_reset"):
        same = all(
            (getattr(a, name) == getattr(b, name)).all()
            for a, b in zip(before.neurons, after.neurons, strict=True)
        )
        assert same == (name != spread), name
    for first, second in zip(before.projections, after.projections, strict=True):
        connected, excite, inhibit = first.excite > 0, second.excite, second.inhibit
        assert (first.excite[connected] == 1.0).all()
        assert (excite[connected] != 1.0).all() == spread.endswith("gain")
        if spread == "input_gain":  # one factor for each neuron and sign
            lowest = np.where(connected, excite, np.inf).min(axis=0)
            np.testing.assert_allclose(excite.max(axis=0), lowest)
            assert (excite != inhibit)[connected].all()
        if spread == "driver_gain":
            np.testing.assert_array_equal(excite, inhibit)


def test_jitter_is_as_wide_as_it_says():
    times = jnp.full((2000, 2, 2), 5e-3).at[:, 1, 1].set(jnp.inf)
    noisy = np.asarray(jittered(times, np.array([1e-4, 2e-4]), jax.random.key(0)))
    assert np.isinf(noisy[:, 1, 1]).all()
    widths = noisy[:, 0].std(), noisy[:, 1, 0].std()
    assert widths == pytest.approx((1e-4, 2e-4), rel=0.05)
    assert noisy[:, 0].mean() == pytest.approx(5e-3, rel=1e-2)


SLOTS = 24
QUEUED = {
    lanes: jax.jit(lambda time, queue, lanes=lanes: queued(time, LANE % lanes, 1.0, queue))
    for lanes in (1, 3)
}
SERIALISED = jax.jit(lambda time: serialised(time, 1.0))
LANE = np.arange(SLOTS)


TIMES = st.lists(st.integers(0, 100).map(lambda eighths: eighths / 8), min_size=1, max_size=SLOTS)


@given(TIMES, st.sampled_from([1, 3]), st.integers(0, 4))
@settings(max_examples=100, deadline=None)
def test_events_travel_as_through_a_queue_written_as_a_loop(times, lanes, queue):
    padded = np.array([*times, *[np.inf] * (SLOTS - len(times))], np.float32)
    passed = QUEUED[lanes](padded[None, :, None], queue)
    served = event_queues.served(padded, lanes, queue)
    np.testing.assert_array_equal(np.asarray(passed.time)[0, :, 0], served)
    assert int(passed.lost) == len(times) - np.isfinite(served).sum()
    sent = np.asarray(SERIALISED(padded[None]))[0, : len(times)]
    assert len(set(sent)) == len(times)
    assert (sent >= padded[: len(times)]).all()
    assert sent.max() < np.ceil(max(times)) + len(times)


def test_a_chip_that_deviates_is_repeatable_by_seed_and_trial(two_layers):
    chip = Emulator(*two_layers, chip=EmulatedChip(seed=2))
    runs = [chip.run(events(4, samples=8), T_END, trial=trial) for trial in (0, 0, 1)]
    first, again, second = (run.spikes["2"] for run in runs)
    np.testing.assert_array_equal(first, again)
    assert (first[..., 0] != second[..., 0]).any()
    cycles = first[np.isfinite(first)] / CLOCK
    np.testing.assert_allclose(cycles, np.rint(cycles), atol=1e-2)
    ways = ("outputs", "links", "unrecorded", "recording", "after_end", "late_inputs")
    assert runs[0].lost == dict.fromkeys(ways, 0)
    assert 0 < runs[0].late < 10 * CLOCK


def test_what_the_emulated_chip_approximates_in_a_mapping_is_noted():
    """Each sentence where it applies, and no other."""
    nodes = {
        "in": build.input(300),
        "first": build.linear(weight=np.full((4, 300), 0.1)),
        "hidden": neurons(),
        "back": build.linear(weight=np.eye(4)[::-1]),
        "second": build.linear(weight=np.full((2, 4), 0.1)),
        "readout": readout(),
        "out": build.output(),
    }
    chains = [("in", "first", "hidden", "second", "readout", "out"), ("hidden", "back", "hidden")]
    loop = mapped(build.network(nodes, chains))
    joined, *notes = emulator_notes(*loop, EmulatedChip())
    assert [note.split(" on the emulated")[0] for note in notes] == [
        "spikes between recurrently connected neurons (hidden) have no queue and no jitter",
        "membrane potentials of readout are sampled without noise",
    ]
    assert joined.startswith("neurons with several circuits: 4")
    (shared,) = emulator_notes(*mapped(layered(4, 60, 40)), EmulatedChip())
    assert shared.startswith("populations 2, 4 share event outputs")
    assert list(emulator_notes(*loop, IDEAL)) == []


def test_seeds_of_chips_side_by_side_follow_each_other():
    assert EmulatedChip(seed=3, several=True).of_run(2).seed == 5
    assert EmulatedChip(seed=3).of_run(2).seed == 3


@pytest.mark.slow
def test_a_full_queue_loses_spikes_and_a_full_memory_too():
    graph = build.sequential(build.input(1), build.linear(weight=np.full((60, 1), 9.0)), neurons())
    crowded = mapped(graph)
    queued, small = (
        emulate(*crowded, at_once(0.0), T_END, chip=chip)
        for chip in (EmulatedChip(spread=STILL, queue=1), EmulatedChip(recorded_events=70))
    )
    assert queued.lost["outputs"] > 0
    for emulated in (queued, small):
        recorded = np.isfinite(emulated.spikes["2"]).sum()
        assert emulated.fired["2"].sum() - recorded == sum(emulated.lost.values())
    assert recorded == 70
    assert small.lost["recording"] > 0


@pytest.mark.slow
def test_readouts_are_sampled_in_whole_numbers_and_biases_come_as_events():
    graph = build.sequential(
        build.input(3),
        build.affine(weight=np.full((4, 3), 2.0), bias=np.full(4, 0.2)),
        neurons(),
        build.linear(weight=np.full((2, 4), 1.0)),
        readout(),
    )
    quantized = quantize(graph, QuantizeOptions(bias="source"))
    biased = emulate(quantized, place_and_route(quantized.netlist).mapping, events(3), T_END)
    voltage = biased.voltages["4"]
    assert voltage.shape == (4, len(biased.sample_times), 2)
    assert (voltage == np.rint(voltage)).all()
    assert voltage.max() > voltage[:, 0].max()
    plain = in_one_run(graph.with_nodes([graph.nodes["1"].replace(bias=np.zeros(4))]), events(3))
    assert biased.fired["2"].sum() > plain.fired["2"].sum()


# -- refusals


def two_inputs():
    nodes = {name: build.input(2) for name in "ab"}
    nodes |= {"w" + name: build.linear(weight=np.ones((2, 2))) for name in "ab"}
    nodes |= {"n": neurons(), "out": build.output(2)}
    return build.network(nodes, [("a", "wa", "n", "out"), ("b", "wb", "n")])


def readout():
    return build.cubali(tau_mem="20ms", tau_syn="10ms")


def readout_alone():
    return build.sequential(build.input(2), build.linear(weight=np.ones((2, 2))), readout())


def silent():
    graph = layered(2, 3, 2)
    weighted = [graph.nodes[name] for name in ("1", "3")]
    return graph.with_nodes([node.replace(weight=0.0 * node.weight) for node in weighted])


def in_one_run(graph, inputs):
    return emulate(quantize(graph), None, inputs, T_END, chip=IDEAL)


#: Call with a quantised network and its mapping, and a pattern of its refusal.
REFUSED = {
    "no mapping": (lambda q, m: emulate(q, None, events(4), T_END), "no mapping is specified"),
    "no quantised network": (
        lambda q, m: emulate(m, q, events(4), T_END),
        "of types Mapping and Quantized",
    ),
    "other channels": (lambda q, m: emulate(q, m, events(5), T_END), r"4 channels .* channel 4"),
    "half a channel": (
        lambda q, m: emulate(
            q, m, dataclasses.replace(events(4), index=events(4).index + 0.5), T_END
        ),
        "channel 0.5",
    ),
    "times alone": (lambda q, m: emulate(q, m, events(4).time, T_END), "input 'input' has type "),
    "another input": (
        lambda q, m: in_one_run(two_inputs(), {"a": events(2)}),
        "for a; the network has the inputs a, b",
    ),
    "two sizes of batches": (
        lambda q, m: in_one_run(two_inputs(), {"a": events(2), "b": events(2, samples=2)}),
        "{'a': 4, 'b': 2}",
    ),
    **{
        f"t_end = {t_end}": (lambda q, m, t_end=t_end: emulate(q, m, events(4), t_end), says)
        for t_end, says in (
            (0.0, "t_end is 0"),
            ("20ms", "t_end is '20ms'"),
            (math.inf, "t_end is inf"),
            (34400.0, r"34\.4 s on the chip; .* 34\.3597 s"),  # limit of a 32-bit counter of 8 ns
        )
    },
    **{
        f"trial = {trial}": (
            lambda q, m, trial=trial: Emulator(q, m).run(events(4), T_END, trial=trial),
            f"trial is {trial}",
        )
        for trial in (-1, 2**32)
    },
    **{
        says: (lambda q, m, chip=chip: emulate(q, m, events(4), T_END, chip=chip), says)
        for chip, says in (
            (EmulatedChip(spread=Spread(jitter=-1.0)), "spread of jitter is -1"),
            (EmulatedChip(spread=Spread(latency=-1.0)), "spread of latency is -1"),
            (EmulatedChip(spread=Spread(v_threshold=-1.0)), "spread of v_threshold is -1"),
            (EmulatedChip(spread=Spread(v_noise=math.inf)), "spread of v_noise is inf"),
            (
                EmulatedChip(spread=Spread(v_threshold_offset=math.nan)),
                "spread of v_threshold_offset is nan",
            ),
            (EmulatedChip(spread="calibrated"), "spread is 'calibrated'"),
            (EmulatedChip(seed=1.5), "seed is 1.5"),
            (EmulatedChip(queue=float("nan")), "queue is nan"),
            (EmulatedChip(recorded_events=2.5), "recorded_events is 2.5"),
        )
    },
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_makes_no_sense_is_refused(case, two_layers):
    call, says = REFUSED[case]
    assert_refused(lambda: call(*two_layers), UsageError, says)


def with_run(mapping, **changes):
    """A mapping of one run with changes of it."""
    (run,) = mapping.runs
    return dataclasses.replace(mapping, runs=(dataclasses.replace(run, **changes),))


@pytest.mark.parametrize(
    ("call", "says", "code"),
    [
        (lambda q, m: in_one_run(silent(), events(2)), "all weights", None),
        (lambda q, m: in_one_run(readout_alone(), events(2)), "no neuron spikes", None),
        (
            lambda q, m: emulate(q, with_run(m, synapses=m.runs[0].synapses[1:]), events(4), T_END),
            "",
            "missing",
        ),
    ],
)
def test_what_cannot_run_is_refused(call, says, code, two_layers):
    assert_refused(lambda: call(*two_layers), MappingError, says, code=code)


# -- deviations as in recordings of a chip


def test_thresholds_may_lie_off_on_the_whole():
    offset, ideal, usual = (
        pattern_of(HICANN_X, chip).v_threshold
        for chip in (still(v_threshold_offset=-2.5), IDEAL, EmulatedChip())
    )
    assert [np.unique(offset).tolist(), np.unique(ideal).tolist()] == [[-2.5], [0.0]]
    assert np.mean(usual) == pytest.approx(0.0, abs=0.5)
    assert np.std(usual) == pytest.approx(Spread().v_threshold, rel=0.15)
    # the public bound: at most 5 % are farther than 8 LSB from the median
    assert np.mean(np.abs(usual - np.median(usual)) > 8) <= 0.05


@pytest.mark.parametrize("v_threshold", [90, 150])
def test_thresholds_deviate_by_the_same_lsb_at_any_distance_from_the_leak(v_threshold):
    quantized = quantize(layered(4, 6), v_threshold=v_threshold)
    mapping = place_and_route(quantized.netlist).mapping
    (group,) = wired_run(quantized, mapping, still(v_threshold=3.0)).neurons
    rows = [neuron.circuits[neuron.head] for neuron in mapping.runs[0].neurons]
    pattern = pattern_of(HICANN_X, still(v_threshold=3.0)).v_threshold
    expected = v_threshold + np.array([pattern[circuit] for circuit in rows])
    np.testing.assert_allclose(group.v_threshold, np.maximum(expected, 81.0))
    assert np.ptp(group.v_threshold) > 1


def test_thresholds_below_the_reset_are_raised_and_counted():
    """Thresholds are 3 LSB above the reset, and deviate by up to 9 LSB."""
    graph = layered(4, 30)
    quantized = quantize(graph, v_threshold=83)
    mapping = place_and_route(quantized.netlist).mapping
    chip = still(v_threshold=3.0)
    (group,) = wired_run(quantized, mapping, chip).neurons
    lowest = int(np.sum(group.v_threshold == group.v_reset + 1.0))
    assert group.v_threshold.min() == 81.0
    assert 0 < lowest < 30
    (note,) = (
        note
        for note in emulator_notes(quantized, mapping, chip)
        if "count" in note.facts and "distance" in note.facts
    )
    assert note.facts == {"distance": 1.0, "count": lowest}
    assert not any("distance" in note.facts for note in emulator_notes(quantized, mapping, still()))


@pytest.mark.parametrize(
    ("refractory_time", "longest"), [(240e-9, 0.95e-3), (1e-6, 1.8e-3), (20e-6, 26e-3)]
)
def test_a_neuron_fires_again_after_its_refractory_period(refractory_time, longest):
    """Under a strong current spikes are a refractory period apart, and a bit: V rises from reset,
    more slowly after a long period, in which the current decays.
    """
    graph = build.sequential(build.input(1), build.linear(weight=[[9.0]]), neurons(v_threshold=0.2))
    quantized = quantize(graph, refractory_time=refractory_time)
    mapping = place_and_route(quantized.netlist).mapping
    spikes = emulate(quantized, mapping, at_once(0.0, samples=1), T_END, chip=IDEAL).spikes["2"]
    intervals = np.diff(spikes[0, 0][np.isfinite(spikes[0, 0])])
    assert refractory_time * quantized.speedup < intervals.min() < longest


def test_a_network_with_another_refractory_period_is_not_that_of_the_mapping(two_layers):
    _, mapping = two_layers
    changed = quantize(layered(4, 6, 2), refractory_time=2e-6)
    for call in (
        lambda: emulate(changed, mapping, events(4), T_END, chip=IDEAL),
        lambda: deploy(mapping, changed, "nowhere"),
    ):
        problem = assert_refused(
            call, MappingError, "made with refractory_time 1 us, and .* with 2 us"
        )
        assert problem.code == "other-quantization"


def differences(first, second, population):
    """How much later first spikes of a population are in a second emulation than in a first."""
    before, after = first.first_spike(population), second.first_spike(population)
    both = np.isfinite(before) & np.isfinite(after)
    return after[both] - before[both]


@pytest.mark.slow
def test_spikes_are_late_and_the_membranes_noise_moves_flat_ones_further(two_layers):
    """First spikes of a layer that the host alone feeds: 150 ns of the chip later, and by noise of
    1 % of the threshold over the slope: those of the same time shift differ.
    """
    plain, late, noisy = (
        emulate(*two_layers, events(4), T_END, chip=chip)
        for chip in (still(), still(latency=150e-9), still(v_noise=0.5))
    )
    delays = differences(plain, late, "2")
    assert len(delays) > 5
    np.testing.assert_allclose(delays, 150e-6, atol=2 * CLOCK)
    moved = differences(plain, noisy, "2")
    assert np.std(moved) > 2 * CLOCK
    assert np.max(np.abs(moved)) <= 0.5 * 10e-3 + CLOCK


def test_what_the_mapping_does_not_record_is_lost(two_layers):
    """A hidden neuron need not be recorded; its spikes act, and the host does not see them."""
    quantized, mapping = two_layers
    hidden = [part.name for part in mapping.populations].index("2")
    neurons = tuple(
        dataclasses.replace(neuron, recorded=(neuron.population, neuron.index) != (hidden, 0))
        for neuron in mapping.runs[0].neurons
    )
    seen, unseen = (
        emulate(quantized, variant, events(4), T_END, chip=IDEAL)
        for variant in (mapping, with_run(mapping, neurons=neurons))
    )
    assert np.isinf(unseen.spikes["2"][:, 0]).all()
    assert unseen.lost["unrecorded"] == np.isfinite(seen.spikes["2"][:, 0]).sum() > 0
    np.testing.assert_array_equal(unseen.spikes["4"], seen.spikes["4"])


def test_circuits_that_are_joined_make_the_membrane_slower_and_weights_weaker():
    """600 inputs take several circuits: each beyond the first adds a tenth to the capacitance."""
    weight = np.random.default_rng(0).normal(0.05, 0.05, (3, 600))
    graph = build.sequential(build.input(600), build.linear(weight=weight), neurons())
    quantized, mapping = mapped(graph)
    heavy = still(joined_capacitance=0.1)
    (population,) = wired_run(quantized, mapping, heavy).neurons
    joined = {neuron.index: len(neuron.circuits) for neuron in mapping.runs[0].neurons}
    expected = 1 + 0.1 * (np.array([joined[index] for index in population.index.tolist()]) - 1)
    assert expected.min() > 1
    np.testing.assert_allclose(population.capacitance, expected)
    np.testing.assert_allclose(population.tau_mem, quantized.populations["2"].tau_mem * expected)
    light, slow = (
        emulate(quantized, mapping, events(600, samples=2), T_END, chip=chip)
        for chip in (still(), heavy)
    )
    delays = differences(light, slow, "2")
    assert len(delays) > 0
    assert (delays > 0).all()


def test_chips_side_by_side_are_different_ones_and_pass_spikes_on_later():
    """Two chips in one pass against one chip in two runs: the second chip has a pattern of its own,
    and what arrives there comes a microsecond later.
    """
    quantized, mapping = mapped(layered(4, 4, 2, seed=6, deviation=1.0), chip=FOUR_CIRCUITS)
    alone, beside = (
        emulate(quantized, mapping, events(4), T_END, chip=chip)
        for chip in (still(), dataclasses.replace(still(), several=True))
    )
    np.testing.assert_array_equal(alone.first_spike("2"), beside.first_spike("2"))
    delays = differences(alone, beside, "4")
    assert delays.size > 2
    np.testing.assert_allclose(delays, 1e-6 * quantized.speedup, atol=3 * CLOCK)
    second, sixth = (
        wired_run(quantized, mapping, chip, run=1).neurons
        for chip in (EmulatedChip(seed=5, several=True), EmulatedChip(seed=6))
    )
    for ours, theirs in zip(second, sixth, strict=True):
        np.testing.assert_array_equal(ours.tau_mem, theirs.tau_mem)


def test_the_page_has_the_defaults():
    page = (Path(__file__).parents[2] / "docs" / "bss2.md").read_text()
    spread = Spread()
    for row, value in (
        ("threshold, fixed pattern | ", f"{spread.v_threshold:g} LSB"),
        ("noise of the membrane, each spike | ", f"{spread.v_noise:g} LSB"),
        ("latency | ", format_time(spread.latency)),
        ("tau_mem, tau_syn | ", f"{spread.tau_mem:.0%}"),
        ("strength of inputs | ", f"{spread.input_gain:.1%}"),
        ("leak, reset | ", f"{spread.v_leak:g} LSB"),
    ):
        assert f"| {row}{value}".replace("%", " %") in page
    assert (spread.v_threshold_trial, spread.v_threshold_offset, spread.jitter) == (0.0, 0.0, 0.0)
    assert (spread.tau_syn, spread.driver_gain) == (spread.tau_mem, spread.input_gain)
    assert f"adds {spread.joined_capacitance:.0%}".replace("%", " %") in page


def assert_nothing_is_recorded(emulated):
    assert all(not np.isfinite(times).any() for times in emulated.spikes.values())


def test_no_events_are_no_spikes(two_layers):
    assert_nothing_is_recorded(emulate(*two_layers, at_once(0.0, spikes=0), T_END))


def test_nothing_is_recorded_after_the_end(two_layers):
    """A chip is late by its latency: what fires just before the end comes after it."""
    spikes = emulate(*two_layers, events(4), T_END).spikes
    first = min(float(times.min()) for times in spikes.values())
    end = first - 0.1 * Spread().latency * two_layers[0].speedup
    early = emulate(*two_layers, events(4), end)
    assert sum(int(count.sum()) for count in early.fired.values())
    assert_nothing_is_recorded(early)


def test_inputs_that_the_host_sends_after_the_end_are_counted(two_layers):
    """100 events at time 0 go out one in a cycle, and 61 of them before the end."""
    inputs = Events(time=jnp.zeros((2, 100)), index=jnp.broadcast_to(jnp.arange(100) % 4, (2, 100)))
    done = emulate(*two_layers, inputs, 60.5 * CLOCK)
    assert done.lost["late_inputs"] == 2 * 39
    assert done.late == pytest.approx(99 * CLOCK)
    assert emulate(*two_layers, inputs, 100.5 * CLOCK).lost["late_inputs"] == 0


def test_readouts_beyond_the_cadc_are_counted():
    fast = {"tau_mem": "10ms", "tau_syn": "5ms"}
    layers = build.linear(weight=np.full((2, 1), 9.0)), build.cubalif(**fast)
    last = build.linear(weight=np.array([[60.0, 60.0], [0.1, 0.1]])), build.cubali(**fast)
    network = mapped(build.sequential(build.input(1), *layers, *last))
    usual, ideal = (
        emulate(*network, events(1, spikes=20), T_END, chip=chip)
        for chip in (EmulatedChip(), IDEAL)
    )
    (name,) = usual.voltages
    assert usual.saturated[name] == np.mean(usual.voltages[name] == 255) > 0
    assert ideal.saturated == {name: 0.0}


def test_that_runs_are_repeated_with_more_room_is_said():
    graph = build.sequential(build.input(1), build.linear(weight=[[9.0]]), neurons(v_threshold=0.2))
    lines, inputs = [], at_once(1e-3, samples=1)
    done = emulate(*mapped(graph), inputs, T_END, chip=IDEAL, say=lines.append)
    assert int(np.isfinite(done.spikes["2"]).sum()) > 8
    facts, fired = lines[0].facts, int(done.fired["2"].max())
    assert facts == {"population": "2", "count": fired, "limit": 8, "room": facts["room"]}
    assert facts["room"] >= fired


@pytest.mark.parametrize(
    ("chip", "facts"),
    [
        (EmulatedChip(spread=Spread(jitter=-1.0)), {"parameter": "jitter", "value": -1.0}),
        (EmulatedChip(queue=0), {"parameter": "queue", "value": 0}),
    ],
)
def test_a_refused_chip_has_its_values_as_facts(chip, facts, two_layers):
    call = lambda: emulate(*two_layers, events(4), T_END, chip=chip)  # noqa: E731
    assert assert_refused(call, UsageError).facts == facts
