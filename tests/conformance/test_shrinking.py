"""Reduced networks are small, and fail for the reason of the original."""

import numpy as np

from jaxsnn.conformance import run
from jaxsnn.conformance.checking import check_network
from jaxsnn.conformance.shrinking import MAX_RUNS
from tests.conformance.faulty import Simulator, with_parameters


def failures(adapter, **options):
    return run(adapter, **options).failures


def test_a_framework_without_faults_has_no_failures():
    assert failures(Simulator(), only="import/LIF/r = 0.7") == ()


def test_an_ignored_parameter():
    adapter = Simulator(read=lambda graph: with_parameters(graph, "LIF", r=np.ones_like))
    (failure,) = failures(adapter, only="import/LIF/r = ")
    assert failure.cells == ("import/LIF/r = 0.7/one layer/tau = 10 dt",)
    smallest = failure.smallest
    assert smallest.answer.diagnosis.ignored == ("r",)
    assert smallest.x.shape[1] == 1
    assert smallest.x.shape[2] < 4
    assert len(smallest.x) <= 8
    assert [layer.shape for layer in smallest.network.layers] in ([(1,)], [(1,), (1,)])
    again = check_network(adapter, "import", smallest.network, smallest.x)
    assert again.verdict == "wrong"
    np.testing.assert_array_equal(again.actual, smallest.answer.actual)
    assert not np.array_equal(smallest.answer.expected, smallest.answer.actual)


def test_numbers_become_round():
    adapter = Simulator(read=lambda graph: with_parameters(graph, "LIF", v_reset=np.zeros_like))
    (failure,) = failures(adapter, only="import/LIF/v_reset")
    for layer in failure.smallest.network.layers:
        for value in layer.parameters.values():
            np.testing.assert_allclose(
                np.asarray(value) * 20, np.rint(np.asarray(value) * 20), atol=1e-5
            )


def test_a_crash_keeps_what_causes_it():
    def read(graph):
        if graph.nodes["1"].value("tau").size > 2:
            raise IndexError("three neurons")
        return graph

    (failure,) = failures(Simulator(read=read), only="import/LIF/uniform/two layers")
    assert [layer.shape for layer in failure.smallest.network.layers] == [(3,), (3,)]
    assert failure.smallest.network.shape == (1,)
    assert failure.smallest.answer.verdict == "crash"


def test_cells_with_the_same_cause_are_one_failure():
    adapter = Simulator(read=lambda graph: graph.nothing)
    (failure,) = failures(adapter, only="import/LIF/")
    assert len(failure.cells) > 5


def test_the_number_of_runs_is_bounded(monkeypatch):
    calls = []

    class Counting(Simulator):
        def import_graph(self, graph):
            calls.append(graph)
            return super().import_graph(graph)

    adapter = Counting(read=lambda graph: with_parameters(graph, "CubaLIF", w_in=np.ones_like))
    (failure,) = failures(adapter, only="import/CubaLIF/uniform/two layers")
    assert failure.smallest.answer.diagnosis.ignored == ("w_in",)
    assert 2 < len(calls) <= 2 * (MAX_RUNS + 5)
