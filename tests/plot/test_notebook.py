"""What a notebook shows of graphs, runs, mappings and training, and its progress."""

import sys

import jax
import numpy as np
import pytest

import jaxsnn
from jaxsnn.console import to_terminal
from jaxsnn.nir import build
from tests.plot.test_pictures import history


@pytest.fixture(scope="module")
def graph():
    linear = build.linear(weight=np.array([[3.0, 1.0], [2.0, 2.5]]))
    return build.sequential(build.input(2), linear, build.cubalif(tau_mem="10ms", tau_syn="5ms"))


@pytest.fixture(scope="module")
def solution(graph):
    events = jaxsnn.Events(time=np.array([[0.0, 1e-3]]), index=np.array([[0, 1]]))
    return jaxsnn.simulate(graph, events, t_end=20e-3)


def test_a_graph_is_its_picture_and_a_row_for_each_node(graph):
    shown = graph._repr_html_()
    assert shown.count("<svg") == 1
    assert shown.count("<tr>") == 1 + len(graph.nodes)
    assert "<td>1</td><td>Linear</td><td>weight (2, 2)</td>" in shown


def test_a_solution_is_its_raster(graph, solution):
    shown = solution._repr_html_()
    assert "data:image/png;base64," in shown
    assert "EventSolution(SUCCESS" in shown
    traced = []

    def look(weight):
        network = jaxsnn.lower(graph)
        network = network.with_parameters({**network.parameters, "1": {"weight": weight}})
        traced_solution = jaxsnn.simulate(network, solution.events("2"), t_end=5e-3)
        traced.append(traced_solution._repr_html_())
        return traced_solution.first_spike("2")

    jax.eval_shape(look, np.eye(2, dtype=np.float32))
    assert traced[-1] is None


def test_a_mapping_is_its_floorplan(graph):
    mapping = jaxsnn.place_and_route(jaxsnn.quantize(graph).netlist).mapping
    assert mapping._repr_html_().count("<svg") == 1


def test_a_training_run_is_its_curve(graph):
    from jaxsnn.train.loop.history import EpochRecord, Fit

    content = history("ttfs")
    others = {"undecided": 0.0, "silent": {}, "spikes": {}, "clipped": 0.0, "max_spikes": 1}
    run = Fit(
        graph=graph,
        history=tuple(EpochRecord(**record, **others) for record in content["epochs"]),
        best_epoch=1,
        test_accuracy=0.75,
        settings=content["settings"],
        notes=("one <note>",),
        seconds=(0.0,) * 3,
    )
    shown = run._repr_html_()
    assert "data:image/png;base64," in shown
    assert "test accuracy 75.00%, best epoch 1\none &lt;note&gt;" in shown


def test_without_matplotlib_the_text_is_shown(solution, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert solution._repr_html_() is None


def test_progress_goes_into_the_cell_of_a_notebook(capsys, monkeypatch):
    to_terminal("epoch 1\x1b[2J")
    assert capsys.readouterr() == ("", "")
    monkeypatch.setitem(sys.modules, "ipykernel", sys)
    to_terminal("epoch 1\x1b[2J")
    assert capsys.readouterr() == ("epoch 1\\u001b[2J\n", "")
