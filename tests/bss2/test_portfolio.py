"""The mapper on nets around the limit of the chip: runs, proofs, and the same bytes for the same
seed.
"""

import time

import numpy as np
import pytest

from jaxsnn.bss2.check import check
from jaxsnn.bss2.chip import HICANN_X, NOTHING_DEAD, ChipError, Dead
from jaxsnn.bss2.mapping import to_json
from jaxsnn.bss2.netlist import netlist
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
from tests.bss2.recipes import dense_net, population_list, recurrent_net, signed, thinned
from tests.helpers.refusals import assert_refused

DEAD_ROWS = Dead(rows=tuple((number % 2, (number * 37) % 256) for number in range(16)))


def assert_right(outcome, net, runs):
    assert outcome.stop_reason == "fits", outcome.why
    assert check(outcome.mapping, net) == ()
    assert len(outcome.mapping.runs) == runs


FULL = dense_net(256, 246, 10)


@pytest.mark.parametrize("options", [{"signs": "free"}, {"dead": DEAD_ROWS}], ids=str)
def test_the_full_chip(options):
    """With free signs, or with fixed ones and dead rows."""
    outcome = place_and_route(FULL, max_runs=1, **options)
    assert_right(outcome, FULL, 1)
    assert sum(len(neuron.circuits) for neuron in outcome.mapping.runs[0].neurons) == 512


def assert_impossible(outcome, needed, available):
    assert outcome.stop_reason == "impossible"
    assert (outcome.certificate.needed, outcome.certificate.available) == (needed, available)


def test_free_signs_on_the_full_chip_tolerate_no_dead_row():
    outcome = place_and_route(FULL, signs="free", dead=DEAD_ROWS, max_runs=1)
    assert_impossible(outcome, 256, 170)


@pytest.mark.parametrize(
    ("signs", "runs", "resource"),
    [("free", 4, (256, 216)), ("fixed", 3, (1034, 1024))],
    ids=["free", "fixed"],
)
def test_784_256_10_in_several_runs(signs, runs, resource):
    net = dense_net(784, 256, 10)
    assert_right(place_and_route(net, signs=signs, time_limit=600), net, runs)
    fewer = place_and_route(net, signs=signs, max_runs=runs - 1)
    assert_impossible(fewer, *resource)
    assert fewer.problem.fix == f"pass max_runs={runs} or more"
    assert fewer.problem.as_text().endswith(f"pass --runs {runs} or more")


@pytest.mark.parametrize(
    ("least", "levels"),
    [
        ([20, 7, 1], [[20, 8, 2], [26, 10, 2], [30, 12, 2], [40, 14, 2], [23, 9, 2]]),
        ([200, 40, 16], [[250, 50, 20], [300, 60, 24], [400, 80, 32], [230, 46, 19]]),
        ([200, 200, 111], [[200, 200, 112]]),
        ([170, 170, 170], [[171, 171, 170]]),  # the rest goes to the largest fan-in
        ([173, 169, 169], [[173, 170, 169]]),  # relative to the neuron's circuits
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
    return thinned(full, np.random.default_rng(seed).random(len(full.pre)) < share)


LARGE = {
    "700-300-10": lambda: dense_net(700, 300, 10),
    "512-400-20": lambda: dense_net(512, 400, 20),
    "sparse 1024-300-10": lambda: sparse_net(1024, 300, 10, 0.1),
}


@pytest.mark.parametrize(
    ("signs", "limit"),
    [("free", {}), pytest.param("fixed", {"time_limit": 120.0}, marks=pytest.mark.slow)],
)
@pytest.mark.parametrize("name", LARGE)
def test_larger_nets_in_as_few_runs_as_counting_allows_or_one_more(name, signs, limit):
    net = LARGE[name]()
    fewest, _ = least_runs(net, usable_parts(HICANN_X, Dead()), signs)
    outcome = place_and_route(net, signs=signs, **limit)
    assert_right(outcome, net, len(outcome.mapping.runs))
    assert fewest <= len(outcome.mapping.runs) <= fewest + 1


def all_to_all(inputs, neurons):
    """Inputs to all neurons, and all neurons to all, themselves included."""
    senders, targets = np.arange(inputs + neurons), np.arange(inputs, inputs + neurons)
    pre, post = (index.ravel() for index in np.meshgrid(senders, targets))
    weight = signed(np.random.default_rng(0), pre.size)
    parts = population_list(("in", inputs), ("all", neurons))
    return netlist(parts[not inputs :], pre, post, weight)


@pytest.mark.parametrize(
    ("inputs", "neurons"), [(0, 256), (16, 240), (64, 192), (128, 170), (384, 128)]
)
def test_the_largest_nets_of_neurons_that_all_feed_each_other(inputs, neurons):
    net = all_to_all(inputs, neurons)
    assert_right(place_and_route(net, signs="free"), net, 1)
    more = place_and_route(all_to_all(inputs, neurons + 1), signs="free")
    assert more.stop_reason == "impossible"
    assert "must be in the same run" in more.why


def fed_by(sources, weight):
    parts = population_list(("in", sources), ("n", 1))
    pre, post = np.arange(sources), np.full(sources, sources)
    return netlist(parts, pre, post, np.full(sources, weight))


@pytest.mark.parametrize(
    ("sources", "weight", "resource", "numbers"),
    [
        (10_000, 7 * 63, "synapse rows", (70_000, 65_536)),
        (16_385, 1, "labels", (16_385, 16_384)),
        (70_000, 1, "labels", (70_000, 16_384)),
    ],
)
def test_a_fan_in_beyond_the_chip_is_impossible(sources, weight, resource, numbers):
    outcome = place_and_route(fed_by(sources, weight), time_limit=1e-9)
    assert_impossible(outcome, *numbers)
    assert outcome.tried == 0
    assert (outcome.certificate.resource, outcome.certificate.where) == (resource, "'n'[0]")


def test_as_many_sources_as_there_are_labels_are_mapped():
    net = fed_by(16_384, 1)
    assert_right(place_and_route(net), net, 1)


def test_the_same_seed_gives_the_same_bytes():
    net = sparse_net(200, 100, 10, 0.4)
    first, again, second = (to_json(place_and_route(net, seed=seed).mapping) for seed in (3, 3, 4))
    assert first == again != second


def test_a_cycle_over_populations_stays_in_one_run():
    """a -> b -> a, with neurons of another population between them in the order."""
    parts = population_list(("in", 600), ("a", 40), ("b", 40), ("c", 60))
    a, b, c = np.arange(600, 640), np.arange(640, 680), np.arange(680, 740)
    inputs = [index.ravel() for index in np.meshgrid(np.arange(600), np.concatenate([a, c]))]
    pre = np.concatenate([a, b, b[np.arange(60) % 40], inputs[0]])
    post = np.concatenate([b, np.roll(a, -1), c, inputs[1]])
    net = netlist(parts, pre, post, np.ones(len(pre), int))
    assert [len(unit) for unit in units(net)] == [80] + [1] * 60
    mapping = place_and_route(net).mapping
    assert check(mapping, net) == ()
    placed = [{neuron.population for neuron in run.neurons} for run in mapping.runs]
    assert sum(bool(here & {1, 2}) for here in placed) == 1


def test_when_time_is_up_it_says_so():
    """2 circuits have as many rows as there are inputs, so that all neurons would need the same
    signs.
    """
    net = dense_net(512, 400, 20)
    outcome = place_and_route(net, max_runs=2, time_limit=0.01)
    assert outcome.stop_reason == "gave up"
    assert "within 0.01 s" in outcome.problem.message
    assert outcome.problem.code == "gave-up"
    assert outcome.problem.fix == "pass time_limit=0.02, or max_runs=3"
    assert outcome.problem.as_text().endswith("pass --time-limit 0.02, or --runs 3")


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"signs": "any"}, UsageError, "signs 'any' are not supported"),
        ({"max_runs": 0}, UsageError, "max_runs is 0: pass an integer of at least 1"),
        ({"seed": -1}, UsageError, "seed is -1: pass an integer from 0 to 2147483647"),
        ({"time_limit": 0.0}, UsageError, "time_limit is 0 s: pass a positive number"),
        (
            {"portfolio": Portfolio(placers=["spred"])},
            UsageError,
            "no placer 'spred': did you mean",
        ),
        ({"portfolio": Portfolio(routers=["any"])}, UsageError, "no router 'any'"),
        ({"portfolio": Portfolio(routers=[])}, UsageError, "no router is specified"),
        ({"portfolio": Portfolio(placers=())}, UsageError, "no placer is specified"),
        ({"dead": Dead(rows=((2, 0),))}, ChipError, r"dead row \(2, 0\)"),
    ],
)
def test_options_that_make_no_sense(options, error, message):
    assert_refused(lambda: place_and_route(recurrent_net(2, 2), **options), error, message)


def outcome_of(net, *signs, runs=None):
    """Of searches of which the first ends at once, having found nothing."""
    parts = usable_parts(HICANN_X, NOTHING_DEAD)
    searches = [_RunSearch(net, parts, kind, 0, Portfolio()) for kind in signs]
    searches[0].find_runs = lambda runs, repairs: None
    return _Search(searches, runs, 60.0).outcome()


def test_more_time_is_offered_only_where_there_was_too_little():
    outcome = outcome_of(dense_net(40, 12, 5), "free", runs=1)
    assert outcome.stop_reason == "gave up"
    assert outcome.attempts == ()
    assert outcome.problem.fix == "pass seed=1 for another search, or max_runs=2"
    assert outcome.problem.as_text().endswith("pass --seed 1 for another search, or --runs 2")


def half_connected(neurons):
    """Random connections; beyond 400 neurons, no run has rows for both signs on every bus."""
    full = recurrent_net(1, neurons)
    return thinned(full, np.random.default_rng(0).random(len(full.pre)) < 0.5)


def test_the_granted_time_is_used_and_attempts_are_reported():
    """Recurrently connected neurons can only be in one run."""
    net = half_connected(450)
    start = time.monotonic()
    outcome = place_and_route(net, time_limit=6.0)
    assert time.monotonic() - start > 6.0
    assert outcome.stop_reason == "gave up"
    assert outcome.problem.fix == "pass time_limit=12"  # more runs do not help
    assert {attempts.runs for attempts in outcome.attempts} == {1}
    assert sum(attempts.count for attempts in outcome.attempts) == outcome.tried
    balanced = [entry for entry in outcome.attempts if entry.strategy.startswith("balanced")]
    assert balanced
    assert all(entry.overflow > 0 for entry in balanced)
    closest = min(entry.overflow for entry in outcome.attempts if entry.overflow is not None)
    assert f"closest: {closest} synapses" in outcome.why
    assert len(outcome.notes) == len(outcome.attempts)
    assert all((entry.seed, entry.successes) == (0, 0) for entry in outcome.attempts)
    total = sum(entry.seconds for entry in outcome.attempts)
    assert 0 < total < time.monotonic() - start


def test_a_chosen_portfolio_ends_after_its_rounds():
    net = half_connected(450)
    outcome = place_and_route(net, portfolio=Portfolio(placers=["spread"]), time_limit=60.0)
    assert outcome.stop_reason == "gave up"
    assert "no strategy is left" in outcome.why
    assert {entry.strategy for entry in outcome.attempts} == {"spread, mixed"}


def test_what_fits_with_free_signs_fits_with_fixed_ones():
    """A mapping that leaves room for both signs is one of fixed signs: no row has another one."""
    net = dense_net(40, 12, 5)
    mapping = outcome_of(net, "fixed", "free").mapping
    assert mapping.signs == "fixed"
    assert check(mapping, net) == ()
    assert outcome_of(net, "fixed").stop_reason == "gave up"
