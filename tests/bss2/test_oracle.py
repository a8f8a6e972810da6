"""On the small chip, against an oracle that tries everything: the mapper finds no mapping where there
is none, proves nothing impossible that is possible, and finds most of those that there are.
"""

import numpy as np
import pytest

from jaxsnn.bss2.check import check
from jaxsnn.bss2.chip import SMALL, Dead
from jaxsnn.bss2.netlist import NetPopulation, netlist
from jaxsnn.bss2.search.portfolio import place_and_route
from tests.oracles import exhaustive_mapper, mapping_walker


def small_net(seed):
    """2 to 4 neurons, 3 to 6 inputs, some in two layers or recurrent; all weights differ."""
    random = np.random.default_rng(seed)
    inputs, neurons = int(random.integers(3, 7)), int(random.integers(2, 5))
    density = random.uniform(0.3, 0.9)
    kind = random.choice(["one layer", "one layer", "two layers", "recurrent"])
    size = inputs + neurons
    connected = np.zeros((size, size), bool)
    connected[:inputs, inputs:] = random.random((inputs, neurons)) < density
    if kind == "recurrent":
        connected[inputs:, inputs:] = random.random((neurons, neurons)) < 0.3
    if kind == "two layers":
        last = inputs + neurons - 1
        connected[:inputs, last] = False
        connected[inputs:last, last] = random.random(neurons - 1) < 0.8
    pre, post = np.nonzero(connected)
    weight = random.permutation(np.arange(1, 64))[: len(pre)] * random.choice([-1, 1], len(pre))
    parts = [("in", inputs, True), ("neurons", neurons, False)]
    populations = [
        NetPopulation(name=name, size=size, external=external) for name, size, external in parts
    ]
    return netlist(populations, pre, post, weight)


def judge(seeds, signs, dead=()):
    """How many nets are possible, and how many of these are mapped."""
    possible = mapped = 0
    for seed in seeds:
        net = small_net(seed)
        fits = exhaustive_mapper.fits(net, signs, dead)
        outcome = place_and_route(
            net,
            chip=SMALL,
            dead=Dead(circuits=dead),
            signs=signs,
            seed=seed,
            max_runs=1,
            time_limit=0.5,
        )
        possible += fits
        if outcome.mapping is not None:
            mapped += 1
            assert fits
            assert check(outcome.mapping, net) == ()
            assert mapping_walker.is_right(outcome.mapping, net)
        elif outcome.stop_reason == "impossible":
            assert not fits
    return possible, mapped


@pytest.mark.parametrize(
    ("seeds", "signs", "dead", "possible", "least"),
    [
        (range(8, 30), "fixed", (), 15, 9),
        (range(8, 30), "free", (), 6, 6),
        (range(10), "fixed", ((0, 1),), 5, 3),
        pytest.param(range(1000, 1150), "fixed", (), 102, 75, marks=pytest.mark.slow),
        pytest.param(range(1000, 1150), "free", (), 72, 65, marks=pytest.mark.slow),
    ],
)
def test_tiny_nets_against_trying_everything(seeds, signs, dead, possible, least):
    counts = judge(seeds, signs, dead)
    assert counts[0] == possible
    assert least <= counts[1] <= possible
