"""The mapper on nets around the limit of the chip: runs, proofs, and the same bytes for the same
seed.
"""

import numpy as np
import pytest

from jaxsnn.bss2.check import check
from jaxsnn.bss2.chip import HICANN_X, NOTHING_DEAD, ChipError, Dead
from jaxsnn.bss2.mapping import to_json
from jaxsnn.bss2.netlist import NetPopulation, netlist
from jaxsnn.bss2.search.feasibility import least_runs
from jaxsnn.bss2.search.portfolio import (
    Portfolio,
    _levels,
    _RunSearch,
    _Search,
    place_and_route,
    units,
)
from jaxsnn.bss2.search.task import task_of, usable_parts
from jaxsnn.errors import UsageError
from tests.bss2.recipes import dense_net, recurrent_net

DEAD_ROWS = Dead(rows=tuple((number % 2, (number * 37) % 256) for number in range(16)))


def assert_right(found, net, runs):
    assert found.stop_reason == "fits", found.why
    assert check(found.mapping, net) == ()
    assert len(found.mapping.runs) == runs


def test_the_full_chip_with_free_signs():
    net = dense_net(256, 246, 10)
    found = place_and_route(net, signs="free", max_runs=1)
    assert_right(found, net, 1)
    assert sum(len(neuron.circuits) for neuron in found.mapping.runs[0].neurons) == 512


def test_the_full_chip_with_fixed_signs_and_dead_rows():
    net = dense_net(256, 246, 10)
    found = place_and_route(net, dead=DEAD_ROWS, max_runs=1)
    assert_right(found, net, 1)


def test_free_signs_on_the_full_chip_tolerate_no_dead_row():
    found = place_and_route(dense_net(256, 246, 10), signs="free", dead=DEAD_ROWS, max_runs=1)
    assert found.stop_reason == "impossible"
    assert (found.certificate.needed, found.certificate.available) == (256, 170)


@pytest.mark.parametrize(
    ("signs", "runs", "resource"),
    [("free", 4, (256, 216)), ("fixed", 3, (1034, 1024))],
    ids=["free", "fixed"],
)
def test_784_256_10_in_several_runs(signs, runs, resource):
    net = dense_net(784, 256, 10)
    assert_right(place_and_route(net, signs=signs, time_limit=600), net, runs)
    fewer = place_and_route(net, signs=signs, max_runs=runs - 1)
    assert fewer.stop_reason == "impossible"
    assert (fewer.certificate.needed, fewer.certificate.available) == resource
    assert fewer.problem.fix == f"allow max_runs={runs} or more"
    assert fewer.problem.as_text().endswith(f"allow --runs {runs} or more")


@pytest.mark.parametrize(
    ("least", "levels"),
    [
        ([20, 7, 1], [[20, 8, 2], [26, 10, 2], [30, 12, 2], [40, 14, 2], [23, 9, 2]]),
        ([200, 40, 16], [[250, 50, 20], [300, 60, 24], [400, 80, 32], [230, 46, 19]]),
        ([200, 200, 111], [[200, 200, 112]]),
        ([170, 170, 170], [[171, 171, 170]]),  # what is left goes to the largest fan-in
        ([173, 169, 169], [[173, 170, 169]]),  # for each circuit
        ([171, 171, 170], []),
    ],
)
def test_neurons_get_more_circuits_while_the_chip_has_room(least, levels):
    task = task_of(
        dense_net(5, 2, 1), usable_parts(HICANN_X, NOTHING_DEAD), "free", np.arange(5, 8)
    )
    assert [counts.tolist() for counts in _levels(task, np.array(least))] == [least, *levels]


def sparse_net(inputs, hidden, outputs, share, seed=0):
    full = dense_net(inputs, hidden, outputs, seed=seed)
    kept = np.random.default_rng(seed).random(len(full.pre)) < share
    return netlist(full.populations, full.pre[kept], full.post[kept], full.weight[kept])


LARGE = {
    "700-300-10": lambda: dense_net(700, 300, 10),
    "512-400-20": lambda: dense_net(512, 400, 20),
    "sparse 1024-300-10": lambda: sparse_net(1024, 300, 10, 0.1),
}


@pytest.mark.parametrize("name", LARGE)
def test_larger_nets_in_as_few_runs_as_counting_allows_or_one_more(name):
    net = LARGE[name]()
    fewest, _ = least_runs(net, usable_parts(HICANN_X, Dead()), "free")
    found = place_and_route(net, signs="free")
    assert_right(found, net, len(found.mapping.runs))
    assert fewest <= len(found.mapping.runs) <= fewest + 1


@pytest.mark.slow
@pytest.mark.parametrize("name", LARGE)
def test_larger_nets_with_fixed_signs(name):
    net = LARGE[name]()
    fewest, _ = least_runs(net, usable_parts(HICANN_X, Dead()), "fixed")
    found = place_and_route(net, time_limit=120.0)
    assert_right(found, net, len(found.mapping.runs))
    assert fewest <= len(found.mapping.runs) <= fewest + 1


def all_to_all(inputs, neurons):
    random = np.random.default_rng(0)
    pre, post = (
        one.ravel()
        for one in np.meshgrid(np.arange(inputs + neurons), np.arange(inputs, inputs + neurons))
    )
    weight = random.integers(1, 64, pre.size) * random.choice([-1, 1], pre.size)
    populations = [NetPopulation(name="in", size=inputs, external=True)] if inputs else []
    return netlist(
        [*populations, NetPopulation(name="all", size=neurons, external=False)], pre, post, weight
    )


@pytest.mark.parametrize(
    ("inputs", "neurons"), [(0, 256), (16, 240), (64, 192), (128, 170), (384, 128)]
)
def test_the_largest_nets_of_neurons_that_all_feed_each_other(inputs, neurons):
    net = all_to_all(inputs, neurons)
    assert_right(place_and_route(net, signs="free"), net, 1)
    more = place_and_route(all_to_all(inputs, neurons + 1), signs="free")
    assert more.stop_reason == "impossible"
    assert "a recurrent part cannot be split over runs" in more.why


def fed_by(sources, weight):
    populations = [
        NetPopulation(name="in", size=sources, external=True),
        NetPopulation(name="n", size=1, external=False),
    ]
    pre, post = np.arange(sources), np.full(sources, sources)
    return netlist(populations, pre, post, np.full(sources, weight))


@pytest.mark.parametrize(
    ("sources", "weight", "resource", "numbers"),
    [
        (10_000, 7 * 63, "synapse rows", (70_000, 65_536)),
        (16_385, 1, "labels", (16_385, 16_384)),
        (70_000, 1, "labels", (70_000, 16_384)),
    ],
)
def test_a_fan_in_beyond_the_chip_is_impossible(sources, weight, resource, numbers):
    found = place_and_route(fed_by(sources, weight), time_limit=1e-9)
    assert (found.stop_reason, found.tried) == ("impossible", 0)
    assert (found.certificate.resource, found.certificate.where) == (resource, "'n'[0]")
    assert (found.certificate.needed, found.certificate.available) == numbers
    facts = found.problem.facts
    assert (facts["neuron"], facts["excess"]) == ("'n'[0]", numbers[0] - numbers[1])


def test_as_many_sources_as_there_are_labels_are_mapped():
    net = fed_by(16_384, 1)
    assert_right(place_and_route(net), net, 1)


def test_the_same_seed_gives_the_same_bytes():
    net = sparse_net(200, 100, 10, 0.4)
    first, again, other = (to_json(place_and_route(net, seed=seed).mapping) for seed in (3, 3, 4))
    assert first == again != other


def test_a_cycle_over_populations_stays_in_one_run():
    """a -> b -> a, with neurons of another population between them in the order."""
    populations = [
        NetPopulation(name="in", size=600, external=True),
        NetPopulation(name="a", size=40, external=False),
        NetPopulation(name="b", size=40, external=False),
        NetPopulation(name="c", size=60, external=False),
    ]
    a, b, c = np.arange(600, 640), np.arange(640, 680), np.arange(680, 740)
    pairs = [(one, other) for one, other in zip(a, b, strict=True)] + [
        (b[k], a[(k + 1) % 40]) for k in range(40)
    ]
    pairs += [(b[k % 40], c[k]) for k in range(60)] + [(i, n) for i in range(600) for n in (*a, *c)]
    pre, post = np.array(pairs).T
    net = netlist(populations, pre, post, np.ones(len(pre), int))
    assert [len(unit) for unit in units(net)] == [80] + [1] * 60
    found = place_and_route(net)
    assert check(found.mapping, net) == ()
    assert (
        len(
            {
                number
                for number, run in enumerate(found.mapping.runs)
                for one in run.neurons
                if one.population < 3
            }
        )
        == 1
    )


def test_when_time_is_up_it_says_so():
    """2 circuits have as many rows as there are inputs, so that all neurons would need the same
    signs.
    """
    net = dense_net(512, 400, 20)
    found = place_and_route(net, max_runs=2, time_limit=0.01)
    assert found.stop_reason == "gave up"
    assert "within 0.01 s" in found.problem.message
    assert found.problem.facts["time_limit"] == 0.01
    assert found.problem.facts["attempts"] == found.tried
    assert found.problem.code == "gave-up"
    assert found.problem.fix == "allow time_limit=0.02, or max_runs=3"
    assert found.problem.as_text().endswith("allow --time-limit 0.02, or --runs 3")


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"signs": "any"}, UsageError, "no signs 'any'"),
        ({"max_runs": 0}, UsageError, "max_runs is 0: allow at least 1"),
        ({"seed": -1}, UsageError, "seed is -1: give a whole number from 0 to 2147483647"),
        ({"time_limit": 0.0}, UsageError, "time_limit is 0 s: give a positive number"),
        (
            {"portfolio": Portfolio(placers=["spred"])},
            UsageError,
            "no placer 'spred': did you mean",
        ),
        ({"portfolio": Portfolio(routers=["any"])}, UsageError, "no router 'any'"),
        ({"portfolio": Portfolio(routers=[])}, UsageError, "no router is named"),
        ({"portfolio": Portfolio(placers=())}, UsageError, "no placer is named"),
        ({"dead": Dead(rows=((2, 0),))}, ChipError, r"dead row \(2, 0\)"),
    ],
)
def test_options_that_make_no_sense(options, error, message):
    with pytest.raises(error, match=message):
        place_and_route(recurrent_net(2, 2), **options)


def finding_nothing(net, *signs):
    """Searches of which the first ends at once, having found nothing."""
    parts = usable_parts(HICANN_X, NOTHING_DEAD)
    searches = [_RunSearch(net, parts, kind, 0, Portfolio()) for kind in signs]
    searches[0].find_runs = lambda runs, repairs: None
    return searches


def test_more_time_is_offered_only_where_there_was_too_little():
    found = _Search(finding_nothing(dense_net(40, 12, 5), "free"), 1, 60.0).outcome()
    assert found.stop_reason == "gave up"
    assert "found in 1 run (" in found.problem.message
    assert found.problem.fix == "try another seed=1, or max_runs=2"
    assert found.problem.as_text().endswith("try another --seed 1, or --runs 2")


def test_what_fits_with_free_signs_fits_with_fixed_ones():
    """A mapping that leaves room for both signs is one of fixed signs: no row has another one."""
    net = dense_net(40, 12, 5)
    outcome = _Search(finding_nothing(net, "fixed", "free"), None, 60.0).outcome()
    assert outcome.mapping.signs == "fixed"
    assert check(outcome.mapping, net) == ()
    alone = _Search(finding_nothing(net, "fixed"), None, 60.0).outcome()
    assert alone.stop_reason == "gave up"
