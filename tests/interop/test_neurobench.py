"""NeuroBench metrics of networks of snnTorch, against those that the package itself computed.

`tests/interop/neurobench_figures.py` records them.
"""

import json

import numpy as np
import pytest
import torch

from jaxsnn import TimeStepped, from_torch, neurobench, simulate
from jaxsnn.train import evaluate_neurobench
from tests.interop.neurobench_figures import CASES, PATH

pytestmark = pytest.mark.interop
RECORDED = json.loads(PATH.read_text())["cases"]


def converted(case):
    return from_torch(case.module, torch.tensor(case.x[0, :1]))


def check(metrics, name):
    expected = RECORDED[name]
    operations = expected["SynapticOperations"]
    assert metrics.effective_macs == operations["Effective_MACs"]
    assert metrics.effective_acs == operations["Effective_ACs"]
    assert metrics.dense == operations["Dense"]
    assert round(metrics.connection_sparsity, 4) == expected["ConnectionSparsity"]
    assert metrics.activation_sparsity == pytest.approx(expected["ActivationSparsity"], rel=1e-12)
    # A Synaptic has 24 bytes of buffers there, and a CubaLIF 7 numbers of 4 bytes here; a Leaky 20
    # bytes both there and here.
    more = 4 if name == "synaptic" else 0
    assert metrics.footprint == expected["Footprint"] + more


def test_all_cases_are_recorded():
    assert CASES.keys() == RECORDED.keys()


@pytest.mark.parametrize("name", CASES)
def test_metrics_are_those_of_the_package(name):
    case = CASES[name]()
    graph = converted(case)
    solution = simulate(graph, case.x, engine=TimeStepped(record=True))
    metrics = neurobench(graph, solution, case.x)
    check(metrics, name)
    assert (metrics.samples, metrics.steps) == (8, 25)


def test_an_evaluation_has_them_with_the_accuracy_of_the_package():
    case = CASES["dense"]()
    data = np.moveaxis(case.x, 0, 1), case.y
    metrics = evaluate_neurobench(converted(case), data, loss="count", engine="grid")
    check(metrics, "dense")
    assert metrics.accuracy == RECORDED["dense"]["ClassificationAccuracy"]
