"""Plots of objects that users pass by mistake, and of emulated chips."""

import numpy as np
import pytest

import jaxsnn
from jaxsnn import plot
from jaxsnn.errors import UsageError
from jaxsnn.nir import build


@pytest.fixture(scope="module")
def mapped():
    """A quantised network with two neurons, and the outcome of its mapping."""
    weight = np.array([[1.0, 0.0], [0.0, 1.0]])
    neurons = build.cubalif(tau_mem="10ms", tau_syn="5ms", v_threshold=0.1)
    graph = build.sequential(build.input(2), build.linear(weight=weight), neurons)
    quantized = jaxsnn.quantize(graph)
    return quantized, jaxsnn.place_and_route(quantized.netlist)


def test_rasters_of_emulated_chips_show_the_recorded_spikes(mapped):
    quantized, outcome = mapped
    inputs = jaxsnn.Events(time=np.array([[0.001, 0.004]]), index=np.array([[0, 1]]))
    chip = jaxsnn.EmulatedChip(ideal=True)
    emulation = jaxsnn.emulate(quantized, outcome, inputs, t_end=0.05, chip=chip)
    events = emulation.events("2")
    counts = emulation.count("2")
    assert counts.shape == (1, 2)
    assert np.isfinite(events.time).sum() == counts.sum() > 1
    assert (np.diff(events.time[np.isfinite(events.time)]) >= 0).all()
    for neuron in (0, 1):
        recorded = emulation.spikes["2"][0, neuron]
        np.testing.assert_array_equal(
            events.time[0][(events.index[0] == neuron) & np.isfinite(events.time[0])],
            recorded[np.isfinite(recorded)],
        )
    assert f"{counts.sum()} of '2'" in plot.raster(emulation).alt
    assert "'2' up to" in plot.histogram(emulation).alt


def test_floorplans_take_the_outcome_of_a_search(mapped):
    _, outcome = mapped
    assert plot.floorplan(outcome).render("svg") == plot.floorplan(outcome.mapping).render("svg")


@pytest.mark.parametrize("draw", [plot.raster, plot.histogram, plot.floorplan])
def test_a_graph_is_refused_with_advice(draw):
    graph = build.sequential(build.input(2), build.lif(tau="10ms"))
    with pytest.raises(UsageError) as error:
        draw(graph)
    assert "Graph" in str(error.value)
    assert error.value.problem.fix


def test_synaptic_delays_of_a_graph_are_refused_with_advice():
    graph = build.sequential(build.input(2), build.linear(2), build.lif(tau="10ms"), seed=0)
    with pytest.raises(UsageError) as error:
        jaxsnn.with_synaptic_delays(graph, "1", 0.001)
    assert "lower" in error.value.problem.fix
