"""Routers: what each maps and where it stops, on given placements."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest

from jaxsnn.bss2.check import check
from jaxsnn.bss2.chip import HICANN_X, NOTHING_DEAD, Dead
from jaxsnn.bss2.mapping import Run
from jaxsnn.bss2.search.bins import BOTTOM, EVERYWHERE, TOP, _best
from jaxsnn.bss2.search.feasibility import least_circuits
from jaxsnn.bss2.search.place import PLACERS
from jaxsnn.bss2.search.route import ROUTERS, Effort, Unrouted, group_counts, reserved_labels
from jaxsnn.bss2.search.task import task_of, usable_parts
from tests.bss2.recipes import dense_net, mapping_of, recurrent_net, thinned


def task_for(net, signs="free", dead=NOTHING_DEAD):
    return task_of(net, usable_parts(HICANN_X, dead), signs, np.flatnonzero(~net.external))


def route(net, router, placer, *, signs="free", dead=NOTHING_DEAD, counts=None, repairs=0):
    """What a router makes of a net whose neurons have as few circuits as they need."""
    task, neurons = task_for(net, signs, dead), np.flatnonzero(~net.external)
    if counts is None:
        counts = least_circuits(net, task.parts, signs)[neurons]
    rng = np.random.default_rng(0)
    placement = PLACERS[placer](task, np.broadcast_to(counts, len(neurons)).copy(), rng)
    assert placement is not None
    return ROUTERS[router](task, placement, rng, Effort(repairs=repairs))


def violations(net, run, signs, dead=NOTHING_DEAD):
    return check(dataclasses.replace(mapping_of(net, run, signs=signs), dead=dead), net)


def assert_routed(run, net, signs="free", dead=NOTHING_DEAD):
    assert isinstance(run, Run)
    assert violations(net, run, signs, dead) == ()


NETS = {
    "5-120-3": lambda: dense_net(5, 120, 3),
    "100-20-10": lambda: dense_net(100, 20, 10),
    "recurrent": lambda: recurrent_net(10, 40),
    "sums of synapses": lambda: recurrent_net(3, 12, largest=200),
}


@pytest.mark.parametrize("signs", ["fixed", "free"])
@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize("placer", ["spread", "by-connectivity", "annealed"])
@pytest.mark.parametrize("router", ROUTERS)
def test_every_router_is_right_after_every_placer(router, placer, net, signs):
    net = NETS[net]()
    assert_routed(route(net, router, placer, signs=signs), net, signs)


@pytest.mark.parametrize("signs", ["fixed", "free"])
@pytest.mark.parametrize("router", ROUTERS)
def test_every_router_keeps_off_dead_parts(router, signs):
    net = dense_net(60, 20, 10)
    dead = Dead(circuits=((0, 0), (1, 7)), drivers=((0, 5), (1, 9)), rows=((0, 0), (1, 201)))
    assert_routed(route(net, router, "spread", signs=signs, dead=dead), net, signs, dead)


def test_label_only_maps_128_inputs_and_128_hidden_neurons_on_single_circuits():
    net = dense_net(128, 128, 10)
    assert_routed(route(net, "label-only", "spread", counts=1), net)
    assert isinstance(route(dense_net(129, 20, 10), "label-only", "spread", counts=1), Unrouted)


def test_labels_alone_are_too_few_where_masks_make_groups():
    net = dense_net(600, 20, 10)
    alone, mixed = (route(net, router, "spread", counts=8) for router in ("label-only", "mixed"))
    assert isinstance(alone, Unrouted)
    assert "synapses or labels without room: 108" in alone.why  # 620 sources, 8 buses of 64 labels
    assert_routed(mixed, net)
    assert mixed.method == "mixed, 2 groups"


@pytest.mark.parametrize(
    ("prices", "avoid", "chosen"),
    [
        ({TOP: ([1, 1], [2, 1]), BOTTOM: ([1, 1], [1, 2])}, None, (5, TOP)),  # the first of equals
        ({TOP: ([1, 0], [0, 2]), BOTTOM: ([0, 1], [1, 0])}, None, (3, BOTTOM)),
        ({BOTTOM: ([0, 0], [1, 2]), EVERYWHERE: ([0, 0], [0, 0])}, None, (3, BOTTOM)),
        ({BOTTOM: ([1, 1], [1, 2]), EVERYWHERE: ([0, 1], [9, 0])}, None, (3, EVERYWHERE)),
        ({EVERYWHERE: ([0, 1], [0, 0])}, 3, (5, EVERYWHERE)),
    ],
)
def test_a_source_goes_where_least_overflows(prices, avoid, chosen):
    class Loads:
        def price(self, demand, bins, mode):
            return map(np.array, prices[mode])

    demand = SimpleNamespace(bins=np.array([3, 5]), modes=tuple(prices))
    assert _best(Loads(), demand, avoid) == chosen


@pytest.mark.parametrize(
    ("net", "labels"), [(recurrent_net(10, 40), 0), (dense_net(5, 40, 10), 2)], ids=["all", "some"]
)
def test_labels_are_kept_for_neurons_that_nothing_listens_to(net, labels):
    """Each of 8 event outputs has one or two of them, and two event outputs reach a bin."""
    task = task_for(net)
    counts = least_circuits(net, task.parts, "free")[~net.external]
    placement = PLACERS["spread"](task, counts, np.random.default_rng(0))
    assert reserved_labels(task, placement, groups=4).tolist() == [labels] * 16
    assert not reserved_labels(
        task, placement, groups=2
    ).any()  # a bit of the address distinguishes them


@pytest.mark.parametrize(("neurons", "share", "counts"), [(150, 0.48, 1), (250, 0.72, 2)])
def test_repairs_make_room_for_what_does_not_fit_at_first(neurons, share, counts):
    """Recurrent nets near the limit, on placements that fit only after sources were moved."""
    full = recurrent_net(64, neurons, seed=3)
    net = thinned(full, np.random.default_rng(1).random(len(full.pre)) < share)
    before, after = (
        route(net, "mixed", "spread", signs="free", counts=counts, repairs=repairs)
        for repairs in (0, 400)
    )
    assert isinstance(before, Unrouted)
    assert before.overflow > 0
    assert_routed(after, net)


@pytest.mark.parametrize(
    ("inputs", "counts"), [(2, (1, 2, 4)), (1100, (1, 2, 4, 8)), (6000, (1, 2, 4, 8, 16, 32))]
)
def test_more_groups_are_for_sources_that_are_too_many_for_labels(inputs, counts):
    assert group_counts(task_for(dense_net(inputs, 3), "fixed")) == counts


@pytest.mark.parametrize("signs", ["fixed", "free"])
def test_thousands_of_sources_and_a_hidden_layer(signs):
    """More sources than 4 groups of a bus have labels for, and neurons that reach only some of the
    groups.
    """
    net = dense_net(3000, 4, 3)
    assert_routed(route(net, "mixed", "spread", signs=signs, counts=40), net, signs)
