"""What a chip recorded comes back: as a Solution, compared with the simulation, as a device."""

import json
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsnn.bss2.chip import Dead
from jaxsnn.bss2.emulate import emulate
from jaxsnn.bss2.mapping import digest
from jaxsnn.bss2.mapping_files import read_mapping
from jaxsnn.bss2.search.portfolio import place_and_route
from jaxsnn.bss2.search.quantize import quantize
from jaxsnn.bss2.traffic import Traffic
from jaxsnn.commands.cli import main
from jaxsnn.commands.compare_command import compared
from jaxsnn.commands.emulate_command import EmulateOutcome
from jaxsnn.errors import MappingError, UsageError
from jaxsnn.event.event_driven import EventDriven
from jaxsnn.network.lowering.lower import lower
from jaxsnn.network.spikes import Events
from jaxsnn.nir import build, read, write
from jaxsnn.simulation.simulate import simulate
from jaxsnn.simulation.verification import first_spike_accuracy, residuals
from jaxsnn.train.loop.in_the_loop import InTheLoop
from jaxsnn.train.loop.recorded_chip import (
    RecordedChip,
    by_neuron,
    identification,
    read_recording,
)
from tests.helpers.command_line import call, refused
from tests.helpers.refusals import assert_refused

NEURONS = {"tau_mem": 12.8e-3, "tau_syn": 6.4e-3}
T_END = 40e-3


def graph():
    random = np.random.default_rng(3)
    return build.sequential(
        build.input(5),
        build.linear(weight=random.normal(1.0, 1, (8, 5))),
        build.cubalif(**NEURONS),
        build.linear(weight=random.normal(1.0, 1, (3, 8))),
        build.cubalif(**NEURONS),
    )


def recorded_times(solution, network):
    """What a recording of a solution's spikes would be, by population."""
    return {
        name: by_neuron(
            np.asarray(solution.events(name).time),
            np.asarray(solution.events(name).index),
            network.populations[name].size,
        )
        for name in network.populations
    }


@pytest.fixture(scope="module")
def simulated():
    """(network, inputs, the network's own spikes as a recording)."""
    network = lower(graph())
    time = np.random.default_rng(0).uniform(0, 15e-3, (3, 5)).astype(network.dtype)
    index = np.tile(np.arange(5), (3, 1))
    engine = EventDriven(max_spikes="auto")
    done = simulate(network, Events(time=time, index=index), T_END, engine=engine)
    times = recorded_times(done, network)
    assert all(np.isfinite(spikes).any() for spikes in times.values())
    return network, RecordedChip(times=times, inputs={"input": (time, index)})


def test_what_was_sent_several_times_has_each_of_its_recordings(simulated):
    network, recorded = simulated
    sent = {"input": tuple(np.tile(array[:1], (3, 1)) for array in recorded.inputs["input"])}
    first = np.full((3, 3, 1), np.inf)
    first[range(3), range(3), 0] = [5e-3, 6e-3, 7e-3]
    again = RecordedChip(times={"2": np.full((3, 8, 1), np.inf), "4": first}, inputs=sent)
    complete, early = (again.solution(network, end) for end in (T_END, 6.5e-3))
    np.testing.assert_allclose(complete.first_spike("4"), first[..., 0])
    np.testing.assert_array_equal(early.counts["4"], np.diag([1, 1, 0]))  # as in `compare`
    late = "population '4': 1 recorded spikes at or after t_end = 6.5 ms were left out"
    for notes in (early.notes, compared(network, again, 6.5e-3).notes):
        assert [note for note in notes if late in note]
    assert not [note for note in complete.notes if "left out" in note]


@pytest.mark.slow
def test_a_recording_is_a_solution_with_gradients_at_its_spikes(simulated):
    """What the network itself fired gives back its own spikes and its own gradients."""
    network, recorded = simulated
    time, index = recorded.inputs["input"]
    inputs, engine = Events(time=time, index=index), EventDriven(max_spikes=16)

    def total(parameters, run):
        first = run(network.with_parameters(parameters)).first_spike("4")
        return jnp.sum(jnp.where(jnp.isfinite(first), first, 0.0))

    (value, gradient), (expected, expected_gradient) = (
        jax.value_and_grad(total)(network.parameters, run)
        for run in (
            lambda changed: recorded.solution(changed, T_END),
            lambda changed: simulate(changed, inputs, T_END, engine=engine),
        )
    )
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    for name in ("1", "3"):
        np.testing.assert_allclose(
            gradient[name]["weight"], expected_gradient[name]["weight"], rtol=2e-3, atol=1e-8
        )
    assert np.any(gradient["1"]["weight"])


def test_samples_come_back_in_any_order_and_unknown_ones_are_refused(simulated):
    network, recorded = simulated
    time, index = recorded.inputs["input"]
    order = [2, 0]
    shuffled = {"input": Events(time=time[order][:, ::-1], index=index[order][:, ::-1])}
    recalled = recorded.forward(network, shuffled)
    np.testing.assert_array_equal(recalled["2"], recorded.times["2"][order])
    unknown = {"input": Events(time=np.stack([time[0], time[1] + 1e-3]), index=index[:2])}
    message = "the inputs of sample 1 are not among those of the 3"
    assert_refused(lambda: recorded.forward(network, unknown), UsageError, message)


def test_residuals_count_what_is_missing_and_how_late_the_rest_is():
    inf = np.inf
    expected = np.array([[[1.0, 3.0], [2.0, inf], [4.0, inf]]])
    recorded = np.array([[[1.1, inf], [2.2, 2.5], [4.3, inf]]])
    report = residuals(expected, recorded, tau=0.2)
    assert (report.expected, report.recorded, report.missing, report.extra) == (4, 4, 1, 1)
    assert report.mean == pytest.approx(1.0)
    assert report.deviation == pytest.approx(np.std([0.5, 1, 1.5]))
    assert report.sigma == pytest.approx(0.5 * 1.4826)
    silent = residuals(expected, np.full((1, 3, 0), inf), tau=0.1)
    assert (silent.missing, silent.mean) == (4, None)
    assert "4 missing" in silent.as_text()


def test_the_first_spike_answers_and_silence_does_not():
    times = np.array([[[2.0], [1.0]], [[1.0], [np.inf]], [[np.inf], [np.inf]]])
    assert first_spike_accuracy(times, np.array([1, 0, 0])) == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (
            [1, 0, 3],
            "labels range from 0 to 3, but there are 2 output neurons: number the classes from 0 to 1",
        ),
        ([-1, 0, 0], "labels range from -1 to 0"),
        (
            [[1], [0], [0]],
            r"label has dtype int64 and shape \(3, 1\), and the recording has 3 samples",
        ),
        (
            [1, 0],
            r"shape \(2,\), and the recording has 3 samples: save one integer label for each",
        ),
        ([0.5, 0.0, 1.0], "label has dtype float64"),
    ],
)
def test_labels_of_something_else_are_refused(labels, message):
    """They would count as answers that are wrong."""
    silent = np.full((3, 2, 1), np.inf)
    assert_refused(lambda: first_spike_accuracy(silent, np.array(labels)), UsageError, message)


def test_the_population_that_feeds_the_output_answers_whatever_its_place():
    """Not the last one in order, which here watches the others."""
    nodes = {
        "in": build.input(2),
        "w": build.linear(weight=np.diag([9.0, 9.0])),
        "answer": build.cubalif(2, **NEURONS),
        "back": build.linear(weight=[[9.0, 9.0]]),
        "watch": build.cubalif(1, **NEURONS),
        "out": build.output(2),
    }
    chains = [("in", "w", "answer", "out"), ("answer", "back", "watch")]
    network = lower(build.network(nodes, chains))
    sent = {"in": (np.array([[0.0, 1e-3], [0.0, 1e-3]]), np.array([[0, 1], [1, 0]]))}
    first = np.array([[[1e-3], [2e-3]], [[2e-3], [1e-3]]])
    recorded = RecordedChip(times={"answer": first, "watch": np.full((2, 1, 1), 3e-3)}, inputs=sent)
    comparison = compared(network, recorded, T_END, np.array([0, 1]))
    assert (comparison.accuracy, comparison.expected_accuracy) == (1.0, 1.0)


@pytest.mark.slow
def test_a_data_set_goes_to_the_chip_and_comes_back(tmp_path, capsys):
    def command(*arguments, code=0):
        assert main([*map(str, arguments), "-q", "--json"]) == code
        captured = capsys.readouterr()
        return captured.err if code else json.loads(captured.out or "{}")

    net, mapping, sent, got = (tmp_path / name for name in ("n.nir", "m.json", "x.npz", "y.npz"))
    write(net, graph())
    samples = "chip", "inputs", net, "--data", "yinyang"
    assert command(*samples, "--samples", 20, "-o", sent)["events"] == 100
    arrays = np.load(sent)
    assert arrays["input.time"].shape == (20, 5)
    assert set(arrays["label"]) <= {0, 1, 2}
    command("map", net, "-o", mapping)
    ends = ["--input", sent, "--t-end", "40ms"]
    done = command("emulate", net, mapping, *ends, "-o", got, "--chip-seed", 3)
    assert (done["runs"], done["samples"], sum(done["lost"].values())) == (1, 20, 0)
    comparison = command("compare", net, got, *ends)
    assert comparison["populations"]["2"]["recorded"] == done["spikes"]["2"]
    assert 0.005 < comparison["populations"]["2"]["sigma"] < 0.3
    assert 0 <= comparison["accuracy"] <= 1
    assert command("compare", net, got, "--input", sent) == comparison


@pytest.fixture
def emulated(tmp_path, capsys):
    """`emulated(graph, arrays, *flags, both=flags)`: what `emulate` prints of events on a mapped graph,
    and what it records; `both` are flags of `map`, too.
    """

    def run(graph, arrays, *flags, both=()):
        net, mapping, sent, got = (
            tmp_path / name for name in ("n.nir", "m.json", "x.npz", "y.npz")
        )
        write(net, graph)
        np.savez(sent, **arrays)
        assert call(capsys, "map", net, "-o", mapping, *both, "-q")[0] == 0
        ends = ["--input", sent, "--t-end", "20ms", "-o", got]
        code, out, err = call(capsys, "emulate", net, mapping, *ends, *both, *flags)
        assert code == 0, err
        with np.load(got) as recorded:
            return out, err, dict(recorded)

    return run


ONE_EVENT = {"input.time": [[1e-3]], "input.index": [[0]]}
LATE = {"input.time": [[1e-3, 20e-3, 21e-3]], "input.index": [[0, 1, 2]]}


@pytest.mark.parametrize(
    ("arrays", "flags", "text", "is_noted"),
    [
        (LATE, (), "input 'input': events at or after --t-end 20 ms that are ignored: 2", True),
        (ONE_EVENT, ("--chips", "several"), "--chips several has no effect", True),
        (ONE_EVENT, ("--chips", "one"), "has no effect", False),
    ],
)
def test_what_an_emulation_leaves_out_is_noted(arrays, flags, text, is_noted, emulated):
    assert (text in emulated(graph(), arrays, *flags)[1]) == is_noted


def test_the_channel_that_replaces_biases_counts_as_traffic(emulated):
    biased = build.affine(weight=np.eye(2), bias=[0.2, 0.1])
    net = build.sequential(build.input(2), biased, build.cubalif(**NEURONS))
    flags = ("--ideal", "--json", "-q")
    (run,) = json.loads(emulated(net, ONE_EVENT, *flags, both=("--bias", "source"))[0])["traffic"]
    # One input spike, and one spike of the bias channel in each of 20 microseconds of chip time.
    assert run["events"]["all from the host"] == 1 + 20
    assert run["peak"]["all from the host"] == 2


def test_membranes_of_the_emulated_chip_come_with_their_times(emulated):
    """The scripts for the chip sample twice as often."""
    layers = build.linear(weight=np.full((2, 2), 2.0)), build.cubalif(**NEURONS)
    last = build.linear(weight=np.ones((1, 2))), build.cubali(**NEURONS)
    net = build.sequential(build.input(2), *layers, *last)
    arrays = emulated(net, ONE_EVENT, "--ideal", "-q")[2]
    assert arrays["4.membrane"].shape == (10, 1, 1)
    assert arrays["4.sample_time"] == pytest.approx(np.arange(10) * 2e-3)


@pytest.mark.parametrize(
    ("time", "index"), [([[1e-3, 2e-3]], [[0.0, 1.0]]), ([1e-3, 2e-3], [0, 1])]
)
def test_the_emulated_chip_takes_the_events_that_run_takes(time, index, emulated):
    """Channels as floats, and one sample without an axis of its own."""
    arrays = {"time": time, "index": index}
    outcome = json.loads(emulated(graph(), arrays, "--ideal", "--json", "-q")[0])
    assert (outcome["samples"], outcome["traffic"][0]["events"]["all from the host"]) == (1, 2)


# -- recordings


def padded(size, count=3):
    """A spike of neuron 0 in each sample, and an unused slot of a population of a size."""
    return {
        "time": np.tile([1e-3, np.inf], (count, 1)),
        "index": np.tile([0, size], (count, 1)),
    }


def recording(path, name="2", samples=3, **changes):
    """A recording of silence in both populations, but for changes of one."""
    arrays = {}
    for population in ("2", "4"):
        arrays[f"{population}.time"] = np.full((samples, 1), np.inf)
        arrays[f"{population}.index"] = np.zeros((samples, 1), int)
    np.savez(path, **arrays | {f"{name}.{key}": array for key, array in changes.items()})
    return path


ZEROS = np.zeros((3, 1))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"samples": 2}, r"shape \(2, 1\), .* samples sent is 3"),
        *((padded(size), f"padded with {size}") for size in (7, 11)),
        ({"time": ZEROS + np.nan}, r"'2\.time' .* nan at sample 0, slot 0"),
        ({"time": ZEROS - 1e-3}, r"'2\.time' .* -0\.001"),
        ({"time": ZEROS + 1e-3, "index": ZEROS.astype(int) + 8}, r"'2\.index' .* 8 .* from 0 to 7"),
        ({"time": ZEROS + 1e-3, "index": ZEROS.astype(int) - 1}, r"'2\.index' .* -1"),
        ({"time": ZEROS.astype(complex)}, r"'2\.time' .* complex128, and must be real numbers"),
        ({"time": ZEROS.astype(str)}, r"'2\.time' .* <U32, and must be real numbers"),
    ],
)
def test_recordings_of_something_else_are_refused(changes, message, tmp_path, simulated):
    """One of fewer neurons names none that this one lacks: its padding tells it."""
    network, recorded = simulated
    path = recording(tmp_path / "y.npz", **changes)
    assert_refused(lambda: read_recording(path, recorded.inputs, network), UsageError, message)


@pytest.mark.parametrize(("name", "padding"), [("2", 8), ("2", 0), ("4", 3)])
def test_recordings_are_padded_with_the_size_or_with_0(name, padding, tmp_path, simulated):
    network, recorded = simulated
    path = recording(tmp_path / "y.npz", name, **padded(padding))
    assert set(read_recording(path, recorded.inputs, network).times) == {"2", "4"}


# -- data sets for the chip


@pytest.fixture
def encoding(tmp_path):
    """`encoding(graph)`: the command that encodes three samples for a network; and their file."""

    def words(graph):
        net, sent = tmp_path / "n.nir", tmp_path / "x.npz"
        write(net, graph)
        return ["chip", "inputs", net, "--data", "yinyang", "--samples", 3, "-o", sent], sent

    return words


def test_samples_are_encoded_for_the_chip(encoding, capsys):
    words, sent = encoding(graph())
    code, out, _ = call(capsys, *words)
    assert (code, "3 samples" in out, "15 events" in out) == (0, True, True)
    shapes = {name: array.shape for name, array in np.load(sent).items()}
    assert shapes == {"input.time": (3, 5), "input.index": (3, 5), "label": (3,)}
    assert "'tst': did you mean 'test'" in refused(capsys, *words, "--part", "tst", "--force")[1]


def test_of_several_outputs_one_is_named_for_the_chip(encoding, capsys):
    """`--loss`, which was advised, is no option of the command."""
    nodes = {"in": build.input(5), "w": build.linear(weight=np.ones((3, 5)))}
    nodes |= {name: build.cubalif(3, **NEURONS) for name in ("a", "b")}
    nodes |= {f"out {name}": build.output(3) for name in ("a", "b")}
    chains = [("in", "w", "a", "out a"), ("w", "b", "out b")]
    words, sent = encoding(build.network(nodes, chains))
    assert "--population NODE" in refused(capsys, *words)[1]
    assert "'c': Available: a, b" in refused(capsys, *words, "--population", "c")[1]
    assert call(capsys, *words, "--population", "b")[0] == 0
    assert np.load(sent)["in.time"].shape == (3, 5)


def test_what_was_simulated_compares_as_equal(tmp_path, capsys, simulated):
    _, recorded = simulated
    net, sent, got = (tmp_path / name for name in ("n.nir", "x.npz", "y.npz"))
    write(net, graph())
    time, index = recorded.inputs["input"]
    labels = np.argmin(recorded.times["4"].min(axis=2), axis=1)
    np.savez(sent, **{"input.time": time, "input.index": index, "label": labels})
    arrays = {}
    for name, times in recorded.times.items():
        neuron = np.broadcast_to(np.arange(times.shape[1])[:, None], times.shape)
        arrays[f"{name}.time"] = times.reshape(len(times), -1)
        arrays[f"{name}.index"] = neuron.reshape(len(times), -1)
    np.savez(got, **arrays)
    words = ["compare", net, got, "--input", sent, "--t-end", "40ms"]
    code, out, _ = call(capsys, *words)
    assert code == 0
    *populations, last = out.splitlines()
    assert [line.partition(":")[0] for line in populations] == ["2", "4"]
    assert all("0 missing" in line for line in populations)
    rate = f"{np.isfinite(recorded.times['4']).any(axis=(1, 2)).mean():.2%}"
    assert last == f"accuracy of first spikes: {rate} recorded, {rate} simulated"


def test_recurrent_networks_are_compared_whatever_they_fire():
    """The default of the engine has room for 16 spikes a neuron in a cycle."""
    nodes = {
        "in": build.input(1),
        "w": build.linear(weight=[[30.0], [30.0]]),
        "hidden": build.cubalif(2, **NEURONS),
        "back": build.linear(weight=[[0.5, 1.0], [1.0, 0.5]]),
        "out": build.output(2),
    }
    chains = [("in", "w", "hidden", "out"), ("hidden", "back", "hidden")]
    silent = RecordedChip(times={"hidden": np.full((1, 2, 1), np.inf)}, inputs={"in": ONE_INPUT})
    network = lower(build.network(nodes, chains))
    residual = compared(network, silent, T_END).populations["hidden"]
    assert residual.missing == residual.expected > 2 * 16


ONE_INPUT = np.array([[1e-3]]), np.array([[0]])


def test_what_is_not_compared_is_noted():
    first, second = (build.linear(weight=np.ones(shape)) for shape in ((3, 2), (2, 3)))
    hidden, readout = build.cubalif(**NEURONS), build.cubali(**NEURONS)
    network = lower(build.sequential(build.input(2), first, hidden, second, readout))
    sent = {"input": ONE_INPUT}
    silent = RecordedChip(times={"2": np.full((1, 3, 1), np.inf)}, inputs=sent)
    assert compared(network, silent, T_END, np.array([1])).notes == (
        "only spikes are compared, not the membrane potentials of 4",
        "the labels are not used, as the accuracy of first spikes requires exactly one spiking "
        "output population; no spiking population feeds the outputs",
    )
    alone = lower(build.sequential(build.input(2), first, readout))
    nothing = RecordedChip(times={}, inputs=sent)
    assert_refused(lambda: compared(alone, nothing, T_END), UsageError, "no spiking neurons")


def test_an_emulation_says_what_was_lost_and_what_it_takes():
    traffic = Traffic(
        events={"bus 0": 1.5, "bus 1": 4.0}, peak={"bus 0": 1, "bus 1": 7}, limit=9, replayed=2.0
    )
    outcome = EmulateOutcome(
        spikes={"2": 12},
        lost={"buses": 0, "recording": 3},
        late=1e-3,
        runs=2,
        samples=5,
        output="out.npz",
        traffic=(traffic,),
        seconds_per_sample=1e-4,
        joules_per_sample=5e-5,
        chips=1,
        latency={"2": 2e-5, "4": None},
        saturated={"6": 0.25, "8": 0.0},
    )
    assert outcome.as_text().splitlines() == [
        "5 samples in 2 runs",
        "2: 12 spikes",
        "lost events: 3 recording; largest delay of the host: 1 ms",
        "6: 25% of the membrane potentials are clipped to the range of the CADC",
        "run 0: the busiest part is bus 1, with up to 7 of 9 possible events per "
        "microsecond; 2.0 spikes per sample are replayed",
        "100 us of chip time and 5e-05 J per sample",
        "2: first spike 20 us after the start of a sample, counted from the start of its own run",
        "out.npz",
    ]
    assert outcome.as_dict()["traffic"][0]["limit"] == 9


def test_lif_neurons_are_compared_too():
    layers = build.linear(weight=np.full((3, 2), 2.0)), build.lif(tau=20e-3)
    network = lower(build.sequential(build.input(2), *layers))
    sent = np.array([[1e-3, 2e-3]]), np.array([[0, 1]])
    spikes = Events(time=sent[0], index=sent[1])
    times = recorded_times(simulate(network, spikes, T_END), network)
    recorded = RecordedChip(times=times, inputs={"input": sent})
    residual = compared(network, recorded, T_END).populations["2"]
    assert (residual.missing, residual.extra, residual.tau) == (0, 0, pytest.approx(20e-3))


# ---- identification of recordings


def arrays_of(times):
    """The arrays of a recording, by population."""
    arrays = {}
    for name, trains in times.items():
        neuron = np.broadcast_to(np.arange(trains.shape[1])[:, None], trains.shape)
        arrays[f"{name}.time"] = trains.reshape(len(trains), -1)
        arrays[f"{name}.index"] = neuron.reshape(len(trains), -1)
    return arrays


def test_recordings_of_the_output_population_alone_are_compared(tmp_path, simulated):
    network, recorded = simulated
    path = tmp_path / "y.npz"
    np.savez(path, **arrays_of({"4": recorded.times["4"]}))
    alone = read_recording(path, recorded.inputs, network)
    labels = np.argmin(recorded.times["4"].min(axis=2), axis=1)
    comparison = compared(network, alone, T_END, labels)
    assert list(comparison.populations) == ["4"]
    assert comparison.populations["4"].missing == comparison.populations["4"].extra == 0
    assert comparison.accuracy == comparison.expected_accuracy > 0
    assert "populations that were not recorded: 2" in comparison.notes
    problem = assert_refused(lambda: alone.solution(network, T_END), UsageError)
    assert problem.node == "2"


def test_labels_of_an_output_that_was_not_recorded_are_not_used(tmp_path, simulated):
    network, recorded = simulated
    np.savez(tmp_path / "y.npz", **arrays_of({"2": recorded.times["2"]}))
    hidden = read_recording(tmp_path / "y.npz", recorded.inputs, network)
    comparison = compared(network, hidden, T_END, np.zeros(3, int))
    assert comparison.accuracy is None
    assert any("output population '4' were not recorded" in note for note in comparison.notes)


@pytest.fixture
def identified(tmp_path, simulated):
    """`identified(**changes)`: reads the recording of a simulation with the fingerprints of what was sent."""
    network, recorded = simulated

    def read(inputs=None, mapping=None, refractory_of_mapping=None, **changes):
        arrays = arrays_of(recorded.times) | identification(recorded.inputs, "0123", T_END, 1e-3)
        np.savez(tmp_path / "y.npz", **arrays | changes)
        return read_recording(
            tmp_path / "y.npz",
            inputs or recorded.inputs,
            network,
            mapping=mapping,
            refractory=refractory_of_mapping,
        )

    return read


def test_a_recording_identifies_its_inputs_and_its_mapping(identified, simulated):
    _, recorded = simulated
    time, index = recorded.inputs["input"]
    read = identified(mapping="0123")
    assert (read.t_end, read.mapping, read.notes) == (T_END, "0123", ())
    assert read.refractory == 1e-3
    # neither the order of events nor their precision and padding count
    shuffled = np.concatenate([time[:, ::-1], np.full((3, 1), np.inf)], axis=1).astype(float)
    channels = np.concatenate([index[:, ::-1], np.full((3, 1), 5)], axis=1)
    assert identified({"input": (shuffled, channels)}).notes == ()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda time: time[[0, 2, 1]], "the inputs of sample 1 were recorded as sample 2"),
        (lambda time: time + 1e-3, "the inputs of sample 0 are not those of the recording"),
        (lambda time: time[:2], "has 3 samples, and the number of samples sent is 2"),
    ],
)
def test_other_inputs_and_swapped_samples_are_refused(change, message, identified, simulated):
    time, index = simulated[1].inputs["input"]
    changed = change(time)
    inputs = {"input": (changed, index[: len(changed)])}
    assert_refused(lambda: identified(inputs), UsageError, message)


def test_the_recording_of_another_mapping_is_refused(identified):
    assert_refused(lambda: identified(mapping="4567"), UsageError, "with mapping 0123, not 4567")


@pytest.mark.parametrize("end", [-1.0, np.nan, "soon", [1.0, 2.0]])
def test_a_recorded_end_that_is_none_is_refused(end, identified):
    assert_refused(lambda: identified(t_end=np.array(end)), UsageError, "'t_end' of")


def test_another_refractory_period_than_that_of_the_mapping_is_refused(identified):
    assert identified(refractory_of_mapping=1e-3).refractory == 1e-3
    call = lambda: identified(refractory_of_mapping=2e-3)  # noqa: E731
    problem = assert_refused(call, UsageError, "refractory period of 1 ms of the network, not 2 ms")
    assert (problem.facts["actual"], problem.facts["expected"]) == (1e-3, 2e-3)


def test_recordings_that_identify_nothing_are_read_with_notes(tmp_path, simulated):
    network, recorded = simulated
    path = recording(tmp_path / "y.npz")
    read = read_recording(path, recorded.inputs, network, mapping="0123")
    assert [note.kind for note in read.notes] == ["assumed", "assumed"]


@pytest.mark.parametrize("factor", [1e-3, 1e-6, 2e-3, 1e3])
@pytest.mark.parametrize("loss", [0.0, 0.3])
def test_times_in_another_unit_are_refused(factor, loss, simulated):
    """Seconds of the chip, also with another speedup, and milliseconds."""
    network, recorded = simulated
    random = np.random.default_rng(0)
    times = {
        name: np.sort(np.where(random.random(trains.shape) < loss, np.inf, trains), axis=2)
        for name, trains in recorded.times.items()
    }
    late = {name: trains + 5e-4 for name, trains in times.items()}
    compared(network, replace(recorded, times=late), T_END)
    scaled = {name: factor * trains for name, trains in late.items()}
    problem = assert_refused(
        lambda: compared(network, replace(recorded, times=scaled), T_END), UsageError
    )
    assert problem.facts["factor"] == pytest.approx(1 / factor, rel=0.3)


def test_early_spikes_are_not_taken_for_another_unit(simulated):
    network, recorded = simulated
    random = np.random.default_rng(0)
    times = {
        name: np.sort(random.uniform(1e-4, 1e-3, trains.shape), axis=2)
        for name, trains in recorded.times.items()
    }
    assert compared(network, replace(recorded, times=times), T_END).populations["2"].extra > 0


def test_emulate_and_compare_work_without_an_end(tmp_path, capsys):
    """As in README.md."""
    net, mapping, sent, got = (tmp_path / name for name in ("n.nir", "m.json", "x.npz", "y.npz"))
    write(net, graph())
    time = np.random.default_rng(0).uniform(0, 15e-3, (3, 5))
    np.savez(sent, **{"input.time": time, "input.index": np.tile(np.arange(5), (3, 1))})
    assert call(capsys, "map", net, "-o", mapping, "-q")[0] == 0
    code, _, err = call(capsys, "emulate", net, mapping, "--input", sent, "-o", got)
    assert code == 0
    end = time.max() + 10 * NEURONS["tau_mem"]
    with np.load(got) as arrays:
        assert arrays["t_end"] == pytest.approx(end, rel=1e-6)
    assert "--t-end" in err
    words = "compare", net, got, "--input", sent, "--json"
    code, out, err = call(capsys, *words, "--mapping", mapping)
    assert (code, "--t-end" in err) == (0, False)
    comparison = json.loads(out[out.index("{") :])
    assert comparison["mapping_checked"]
    assert comparison["mapping"] == digest(read_mapping(mapping))
    free = tmp_path / "free.json"
    assert call(capsys, "map", net, "-o", free, "--seed", 1, "--signs", "free", "-q")[0] == 0
    assert "was recorded with mapping" in refused(capsys, *words[:-1], "--mapping", free)[1]
    code, _, err = call(capsys, *words, "--t-end", "1s")
    assert (code, "the recording ends at" in err) == (0, True)


def test_an_emulation_accepts_the_outcome_of_the_search():
    quantized = quantize(graph())
    outcome = place_and_route(quantized.netlist)
    events = Events(time=np.full((1, 1), 1e-3), index=np.zeros((1, 1), int))
    first, second = (
        emulate(quantized, argument, events, 20e-3) for argument in (outcome, outcome.mapping)
    )
    np.testing.assert_array_equal(first.spikes["2"], second.spikes["2"])
    failed = place_and_route(quantized.netlist, dead=Dead(circuits=tuple(np.ndindex(2, 256))))
    assert_refused(lambda: emulate(quantized, failed, events, 20e-3), MappingError, "no mapping")


@pytest.fixture
def fast(tmp_path, capsys):
    """A network that would fire faster than its refractory period on the chip allows, its mapping, its
    inputs and a recording of an ideal chip, as files.
    """
    paths = tuple(tmp_path / name for name in ("n.nir", "m.json", "x.npz", "y.npz"))
    net, mapping, sent, got = paths
    neurons = build.cubalif(tau_mem=10e-3, tau_syn=5e-3)
    write(net, build.sequential(build.input(1), build.linear(weight=[[40.0], [25.0]]), neurons))
    np.savez(sent, **{"input.time": [[1e-3, 6e-3]], "input.index": [[0, 0]]})
    options = "--refractory-time", "1.5us", "-q"
    assert call(capsys, "map", net, "-o", mapping, *options)[0] == 0
    emulation = "emulate", net, mapping, "--input", sent, "--t-end", "30ms", "--ideal", "-o", got
    assert call(capsys, *emulation)[0] == 0
    return paths


def test_compare_simulates_with_the_refractory_period_of_the_chip(fast, capsys):
    net, mapping, sent, got = fast
    network = lower(read(net))
    with np.load(got) as arrays:
        recorded = dict(arrays)
    assert recorded["refractory"] == pytest.approx(1.5e-3)
    trains = by_neuron(recorded["2.time"], recorded["2.index"], 2)
    intervals = np.concatenate([np.diff(train[np.isfinite(train)]) for train in trains[0]])
    assert 1.5e-3 <= intervals.min() < 1.8e-3
    inputs = Events(time=np.array([[1e-3, 6e-3]]), index=np.zeros((1, 2), int))
    free = simulate(network, inputs, 30e-3, engine=EventDriven(max_spikes="auto"))
    assert int(np.asarray(free.counts["2"]).sum()) > 2 * np.isfinite(trains).sum()
    words = "compare", net, got, "--input", sent, "--json"

    def comparison(*options):
        code, out, err = call(capsys, *words, *options)
        assert code == 0, err
        content = json.loads(out[out.index("{") :])
        residuals_of = content["populations"]["2"]
        return content, residuals_of["missing"], residuals_of["extra"]

    content, missing, extra = comparison()
    assert (content["refractory"], missing, extra) == (pytest.approx(1.5e-3), 0, 0)
    assert abs(content["populations"]["2"]["mean"]) < 0.02
    # files of earlier versions do not contain it: that of the mapping is used, or none
    del recorded["refractory"]
    np.savez(got, **recorded)
    content, missing, extra = comparison("--mapping", mapping)
    assert (content["refractory"], missing, extra) == (pytest.approx(1.5e-3), 0, 0)
    content, missing, _ = comparison()
    assert (content["refractory"], missing > 0) == (None, True)
    assert any("refractory period of the chip is unknown" in note for note in content["notes"])


def test_a_recording_in_the_loop_has_the_refractory_period_of_the_chip(fast):
    net, _, _, got = fast
    network = lower(read(net))
    inputs = {"input": (np.array([[1e-3, 6e-3]]), np.zeros((1, 2), int))}
    recording_of_chip = read_recording(got, inputs, network)
    engine = InTheLoop(device=recording_of_chip)
    assert engine.event.refractory == pytest.approx(1.5e-3)
    assert engine.as_dict()["refractory"] == pytest.approx(1.5e-3)
    assert InTheLoop(device=replace(recording_of_chip, refractory=None)).event.refractory == 0.0
    shorter = InTheLoop(device=recording_of_chip, refractory=1e-3)
    problem = assert_refused(lambda: shorter.check(network), UsageError, "refractory is 0.001 s")
    assert problem.facts["actual"] == pytest.approx(1.5e-3)

    def gradient(**options):
        def total(parameters):
            solution = recording_of_chip.solution(
                network.with_parameters(parameters), 30e-3, max_spikes=64, **options
            )
            times = solution.spikes["2"].time
            return jnp.sum(jnp.where(jnp.isfinite(times), times, 0.0))

        return jax.grad(total)(network.parameters)["1"]["weight"]

    np.testing.assert_array_equal(gradient(), gradient(refractory=1.5e-3))
