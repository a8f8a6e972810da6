"""Nets that fit into one run by construction and use most rows of the chip: the search finds a
mapping.
"""

import numpy as np
import pytest

from jaxsnn.bss2.check import check
from jaxsnn.bss2.mapping import Mapping
from jaxsnn.bss2.search.balance import balanced, balanced_groups
from jaxsnn.bss2.search.bins import bins_of
from jaxsnn.bss2.search.feasibility import least_circuits
from jaxsnn.bss2.search.portfolio import Portfolio, _mapping, _RunSearch, place_and_route
from jaxsnn.bss2.search.route import Effort, Unrouted, realise
from jaxsnn.bss2.search.task import task_of
from tests.bss2.planted_nets import planted_net
from tests.bss2.recipes import recurrent_net, thinned

#: Small enough to be found in a second or two.
QUICK = {
    "recurrent": {"neurons": 200, "fan_in": 104, "even": True, "groups": 1},
    "recurrent, with inputs": {"neurons": 300, "inputs": 60, "fan_in": 208, "even": True},
    "feed-forward": {"inputs": 400, "neurons": 450, "recurrent": False},
}


def mapping_of(planted, run) -> Mapping:
    search = _RunSearch(planted.net, planted.task.parts, "fixed", 0, Portfolio())
    return _mapping(search, [run])


@pytest.mark.parametrize("options", [{}, *QUICK.values()], ids=["large", *QUICK])
def test_planted_nets_fit_into_one_run(options):
    planted = planted_net(0, **options)
    task = planted.task
    assert set(task.fan_in) == {options.get("fan_in", 208)}
    bins = bins_of(task.parts, "fixed", planted.groups)
    run = realise(task, planted.placement, bins, planted.assignment)
    assert run is not None
    assert check(mapping_of(planted, run), planted.net) == ()


@pytest.mark.parametrize("options", QUICK.values(), ids=QUICK)
def test_planted_nets_are_mapped_into_one_run(options):
    net = planted_net(1, **options).net
    outcome = place_and_route(net, time_limit=300.0)
    assert outcome.stop_reason == "fits", outcome.why
    assert len(outcome.mapping.runs) == 1
    assert check(outcome.mapping, net) == ()


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(20))
def test_large_recurrent_planted_nets_are_mapped_into_one_run(seed):
    """400 neurons, a fan-in of 208 from each other, in random rows."""
    net = planted_net(seed).net
    outcome = place_and_route(net, time_limit=600.0)
    assert outcome.stop_reason == "fits", outcome.why
    assert len(outcome.mapping.runs) == 1
    assert outcome.mapping.runs[0].method.startswith("balanced")
    assert check(outcome.mapping, net) == ()


def test_groups_that_have_enough_labels():
    """400 sources need more than the 256 labels of 4 bins; neurons address at most 4 groups."""
    assert balanced_groups(planted_net(0).task) == (2, 4)
    assert balanced_groups(planted_net(0, neurons=200, groups=1, fan_in=96).task) == (1, 2, 4)


def test_a_net_that_is_too_dense_reports_its_overflow():
    """450 neurons with random connections and a fan-in of about 225."""
    full = recurrent_net(1, 450)
    net = thinned(full, np.random.default_rng(0).random(len(full.pre)) < 0.5)
    neurons = np.flatnonzero(~net.external)
    task = task_of(net, planted_net(0).task.parts, "fixed", neurons)
    least = least_circuits(net, task.parts, "fixed")[neurons]
    result = balanced(task, least, 2, 20, np.random.default_rng(0), Effort())
    assert isinstance(result, Unrouted)
    assert result.overflow is not None
    assert result.overflow > 0
