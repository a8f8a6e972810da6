"""Every picture is drawn by one call, says what it shows, and uses colours that stay apart."""

import re
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest

import jaxsnn
from jaxsnn import plot
from jaxsnn.errors import FileError, UsageError
from jaxsnn.nir import build
from jaxsnn.plot.picture import BLACK, CYCLE, GREEN, format_of, time_unit
from jaxsnn.plot.spike_plots import SpikeTrain, input_trains, trains_of
from jaxsnn.plot.voltage_plots import traces_of
from jaxsnn.train import Current, Delta, Latency
from tests.helpers.refusals import assert_refused

STARTS = {"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}


@pytest.fixture(scope="module")
def graph():
    """A small network that fires, with a dialect."""
    return build.sequential(
        build.input(2),
        build.linear(weight=np.array([[3.0, 1.0], [2.0, 2.5], [1.0, 3.0]])),
        build.cubalif(tau_mem="10ms", tau_syn="5ms"),
    )


@pytest.fixture(scope="module")
def events():
    time = np.array([[0.0, 1e-3, 4e-3, np.inf], [2e-3, 3e-3, 5e-3, 9e-3]])
    return jaxsnn.Events(time=time, index=np.array([[0, 1, 0, 2], [1, 1, 0, 0]]))


@pytest.fixture(scope="module")
def ran(graph, events):
    network = jaxsnn.lower(graph)
    return network, jaxsnn.simulate(network, events, t_end=30e-3)


def texts_of(picture):
    """The texts of a picture: matplotlib draws them as paths and leaves each as a comment."""
    return set(re.findall(r"<!-- (.*?) -->", picture.render("svg").decode()))


def test_a_picture_is_written_in_each_format_and_never_over_another(tmp_path, ran):
    picture = plot.raster(ran[1])
    for kind, start in STARTS.items():
        path = tmp_path / f"p.{kind}"
        assert picture.save(path) is picture
        assert path.read_bytes().startswith(start)
        assert path.read_bytes() == picture.render(kind)
        assert_refused(lambda path=path: picture.save(path), FileError, "exists")
    assert_refused(
        lambda: picture.save(tmp_path / "p.bmp"), UsageError, r"ending '.bmp'.*\.png, \.svg, \.pdf"
    )
    assert "<img alt=" in picture._repr_html_()
    assert repr(picture) == f"Picture({picture.alt})"


def test_a_raster_has_the_spikes_that_there_are(ran, events):
    _, solution = ran
    trains = trains_of(solution, 1, events)
    assert list(trains) == ["input", "2"]
    assert trains["input"].time.tolist() == [2e-3, 3e-3, 5e-3, 9e-3]
    assert (trains["input"].size, trains["input"].rows) == (2, "channels")
    assert trains["2"].size == 3
    assert len(trains["2"].time) == int(np.asarray(solution.count("2"))[1].sum()) > 0
    assert {"time, ms", "sample 0", "sample 1"} <= texts_of(
        plot.raster(solution, inputs=events, samples=(0, 1))
    )
    assert_refused(
        lambda: plot.raster(solution, samples=(7,)),
        UsageError,
        "sample 7 does not exist; the number of samples is 2: pass an index from 0 to 1",
    )


def test_only_what_goes_in_is_green(ran, events):
    green = GREEN.lower().encode()
    assert green in plot.raster(ran[1], inputs=events).render("svg")
    assert green not in plot.raster(ran[1]).render("svg")


def test_an_unused_slot_is_no_channel(events):
    assert input_trains({"in": events}, 0, None)["in"].size == 2
    raster = np.zeros((4, 2, 3))
    raster[2, 1, 0] = 1
    train = input_trains({"in": raster}, 1, 1e-3)["in"]
    assert (train.time.tolist(), train.index.tolist(), train.size) == ([2e-3], [0], 3)
    assert_refused(
        lambda: input_trains({"in": jaxsnn.Currents.held(np.ones((3, 1, 2)), 1e-3)}, 0, 1e-3),
        UsageError,
        r"input 'in' cannot be drawn as spikes: pass jaxsnn\.Events",
    )


def test_a_histogram_counts_every_spike(ran):
    drawn = plot.histogram(ran[1], bins=10, t_end=20e-3)
    assert "time, ms (bins of 2 ms)" in texts_of(drawn)
    empty = {"a": plot.SpikeTrain(time=np.empty(0), index=np.empty(0, int), size=3)}
    assert plot.histogram([empty]).render("png").startswith(STARTS["png"])


def test_voltages_in_continuous_time_meet_the_threshold_at_each_spike(ran, graph, events):
    network, solution = ran
    traces = traces_of(solution, "2", network, events, sample=1, points=300)
    assert len(traces) == 3
    for number, trace in enumerate(traces):
        times = np.asarray(solution.spikes["2"].time)[1, number]
        assert trace.spikes.tolist() == times[np.isfinite(times)].tolist()
        at = [trace.v[np.searchsorted(trace.time, when) - 1] for when in trace.spikes]
        np.testing.assert_allclose(at, trace.threshold, atol=2e-3)
        assert trace.v.max() < trace.threshold + 2e-3
    for simulated in (network, graph):
        assert {"time, ms", "v_threshold", "spike"} <= texts_of(
            plot.voltage(solution, "2", network=simulated, inputs=events, points=40)
        )
    assert_refused(
        lambda: plot.voltage(solution, "2"),
        UsageError,
        r"'2' in continuous time.*pass network= and inputs=",
    )


def test_voltages_of_a_time_stepped_run_are_those_that_were_recorded(zoo_net, zoo_x):
    solution = jaxsnn.simulate(zoo_net, zoo_x, engine=jaxsnn.TimeStepped(record=True))
    name = next(iter(solution.voltages))
    (trace, *_) = traces_of(solution, name, zoo_net, None, sample=1, points=5)
    recorded = np.asarray(solution.voltages[name])
    np.testing.assert_array_equal(trace.v, recorded.reshape(*recorded.shape[:2], -1)[:, 1, 0])
    assert_refused(
        lambda: plot.voltage(solution, "nobody"),
        UsageError,
        "the membrane potential of population 'nobody'",
    )
    assert_refused(
        lambda: plot.voltage(solution, name, neurons=(99,)),
        UsageError,
        f"population '{name}' has . neurons",
    )


@pytest.fixture(scope="module")
def zoo_net():
    layers = build.input(2), build.affine(3), build.lif(tau=1e-3, r=10.0)
    options = {"dialect": "snntorch", "reset": "subtract", "reset_delay": True}
    return jaxsnn.lower(build.sequential(*layers, seed=0, **options), dtype=np.float32)


@pytest.fixture(scope="module")
def zoo_x():
    return np.random.default_rng(0).integers(0, 2, (50, 4, 2)).astype(np.float32)


def test_the_first_difference_is_drawn_where_it_is(zoo_net, zoo_x):
    solution = jaxsnn.simulate(zoo_net, zoo_x, engine=jaxsnn.TimeStepped())
    wrong = np.array(solution.output())
    wrong[20, 1, 2] = 1 - wrong[20, 1, 2]
    outcome = jaxsnn.verify(zoo_net, zoo_x, wrong)
    texts = texts_of(plot.first_difference(outcome, solution, wrong))
    assert any("neuron 2, sample 1, step 20" in text for text in texts)
    same = jaxsnn.verify(zoo_net, zoo_x, solution.output())
    draw = partial(plot.first_difference, same, solution, wrong)
    assert_refused(draw, UsageError, "does not differ")


def test_fidelity_shows_both_counts_and_the_cosine():
    from jaxsnn.simulation.fidelity import Fidelity, PopulationFidelity

    counts = {"grid": 7, "event": 9, "count_cosine": 0.98765, "rate_ratio": 9 / 7}
    population = PopulationFidelity(**counts, multi_spike_steps=0)
    picture = plot.fidelity(Fidelity(populations={"lif": population}))
    assert {
        "cosine 0.9877",
        "continuous time",
        "time-stepped, as in the source framework",
    } <= texts_of(picture)
    silent = Fidelity(populations={})
    assert_refused(lambda: plot.fidelity(silent), UsageError, "no spiking populations")


def history(loss):
    record = {"train_loss": 1.0, "validation_loss": 0.9, "train_accuracy": 0.5}
    epochs = [record | {"epoch": number, "validation_accuracy": 0.6} for number in range(3)]
    settings = {"loss": {"name": loss}}
    return {"epochs": epochs, "best_epoch": 1, "test_accuracy": 0.75, "settings": settings}


def test_a_learning_curve_names_its_loss():
    assert {"loss: first-spike cross-entropy", "error rate (%)", "epoch"} <= texts_of(
        plot.learning_curve(history("ttfs"))
    )
    assert "loss: mine" in texts_of(plot.learning_curve(history("mine")))


def test_an_axis_of_less_than_a_factor_of_ten_has_numbers():
    run = history("ttfs")
    for record, rate in zip(run["epochs"], (0.31, 0.33, 0.35), strict=True):
        record |= {"train_accuracy": rate, "validation_accuracy": rate + 0.02}
    texts = texts_of(plot.learning_curve(run | {"test_accuracy": 0.33}))
    between = [text for text in texts if re.fullmatch(r"\d+", text) and 62 <= int(text) <= 70]
    assert len(between) >= 2


def test_every_loss_has_its_words():
    from jaxsnn.plot.training_plots import LOSSES
    from jaxsnn.train.losses.losses import LOSSES as KNOWN

    assert set(LOSSES) == set(KNOWN)


def test_weights_are_drawn_for_every_node_that_has_some(graph):
    assert {"1: 6 weights", "before", "after", "weight (unit of the file)"} <= texts_of(
        plot.weights(graph, graph)
    )
    assert "before" not in texts_of(plot.weights(graph))


def test_weights_of_another_graph_stand_behind_none(graph):
    """`--before` of another file had no effect, and nobody said so."""
    weight, neurons = build.linear(weight=np.ones((2, 3))), build.li(tau="10ms")
    nodes = {"in": build.input(3), "other": weight, "n": neurons, "out": build.output(2)}
    second_graph = build.network(nodes, [("in", "other", "n", "out")])
    assert_refused(
        lambda: plot.weights(graph, second_graph),
        UsageError,
        "in common: other before training, 1 after",
    )


def test_alternative_texts_tell_names_from_numbers(graph):
    """Nodes are often called 1, 2 and so on."""
    train = SpikeTrain(time=np.array([1e-3, 2e-3]), index=np.array([0, 1]), size=2)
    picture = plot.histogram([{"2": train}], t_end=4e-3, bins=4)
    assert picture.alt == "spike-time histogram of 1 sample: '2' up to 500 Hz"
    name, weight = next(
        (name, node.value("weight"))
        for name, node in graph.nodes.items()
        if "weight" in node.parameters
    )
    drawn = plot.weights(graph)
    assert f"{weight.size} of '{name}', {weight.min():.3g} to {weight.max():.3g}" in drawn.alt
    assert f'role="img" aria-label="{plot.graph(graph).alt}"' in plot.graph(graph).as_html()


def test_a_raster_counts_the_spikes_that_it_shows():
    train = SpikeTrain(time=np.array([1e-3, 2e-3, 3e-3]), index=np.array([0, 1, 0]), size=2)
    assert plot.raster([{"a": train}]).alt == "raster of 1 sample, spikes: 3 of 'a'"
    assert plot.raster([{"a": train}], t_end=2e-3).alt == "raster of 1 sample, spikes: 2 of 'a'"


def test_a_graph_and_a_floorplan_are_pictures(graph):
    assert plot.graph(graph).render("png").startswith(STARTS["png"])
    shown = plot.graph(graph).as_html()
    assert shown.count("<svg") == 1
    assert re.search(r'overflow-x:auto"><svg style="min-width:\d{3}px" ', shown)
    mapping = jaxsnn.place_and_route(jaxsnn.quantize(graph).netlist).mapping
    assert plot.floorplan(mapping).render("svg").startswith(b"<svg")
    assert plot.floorplan(mapping).render("png").startswith(STARTS["png"])


def test_colours_are_hex_and_far_apart_for_the_colour_blind():
    """Also as people without red or green cones see them (Viénot, Brettel and Mollon, 1999)."""
    protan = np.array([[0.11238, 0.88762, 0], [0.11238, 0.88762, 0], [0.00401, -0.00401, 1]])
    deutan = np.array([[0.29275, 0.70725, 0], [0.29275, 0.70725, 0], [-0.02234, 0.02234, 1]])
    for matrix in (np.eye(3), protan, deutan):
        shades = [matrix @ linear(colour) for colour in CYCLE if colour != BLACK]
        for number, shade in enumerate(shades):
            for earlier in shades[:number]:
                assert np.abs(shade - earlier).max() > 0.03


def linear(colour):
    """Linear red, green and blue of a hex colour."""
    assert re.fullmatch("#[0-9A-F]{6}", colour)
    values = np.array([int(colour[place : place + 2], 16) for place in (1, 3, 5)]) / 255
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


@pytest.mark.parametrize(("t_end", "unit"), [(30.0, "s"), (0.04, "ms"), (40e-6, "µs"), (0.0, "µs")])
def test_the_axis_of_time_has_the_unit_that_suits(t_end, unit):
    assert time_unit(t_end)[0] == unit


def test_no_colour_is_written_as_hsl():
    from pathlib import Path

    package = Path(jaxsnn.__file__).parent
    assert [path for path in package.rglob("*.py") if "hsl(" in path.read_text()] == []


def test_encodings_show_what_goes_in():
    values = np.array([0.0, 0.5, 1.0])
    latency = Latency(t_min=0.0, t_max=10e-3, least=0.1)
    signal = np.array([[0.0], [1.0]])
    rows = {
        "latency": (values, latency),
        "current": (values, Current()),
        "delta": (signal, Delta(step=0.25, frame=1e-3)),
    }
    picture = plot.encodings(rows, title="three encoders")
    assert {"three encoders", "time, ms", *rows} <= texts_of(picture)
    assert "latency 2 spikes" in picture.alt
    assert "current 1 currents of 3 channels" in picture.alt
    assert "delta 4 spikes" in picture.alt
    assert_refused(lambda: plot.encodings({}), UsageError, "no encoders are specified")
    assert_refused(
        lambda: plot.encodings({"latency": (values + 0.5, latency)}), UsageError, r"value 1\.5|1\.5"
    )


def test_a_refused_picture_has_its_facts():
    problem = assert_refused(lambda: format_of("p.gif"), UsageError)
    assert problem.facts == {"path": "p.gif", "ending": ".gif"}
    solution = SimpleNamespace(
        spikes={"n": None}, count=lambda name: np.zeros((2, 3)), events=lambda name: None
    )
    problem = assert_refused(lambda: trains_of(solution, 5), UsageError)
    assert problem.facts == {"sample": 5, "samples": 2}
