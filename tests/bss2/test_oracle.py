"""On the small chip the mapper is right every time: it finds a mapping where there is one, and no
other time.
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
    wanted = np.zeros((size, size), bool)
    wanted[:inputs, inputs:] = random.random((inputs, neurons)) < density
    if kind == "recurrent":
        wanted[inputs:, inputs:] = random.random((neurons, neurons)) < 0.3
    if kind == "two layers":
        last = inputs + neurons - 1
        wanted[:inputs, last] = False
        wanted[inputs:last, last] = random.random(neurons - 1) < 0.8
    pre, post = np.nonzero(wanted)
    weight = random.permutation(np.arange(1, 64))[: len(pre)] * random.choice([-1, 1], len(pre))
    parts = [("in", inputs, True), ("neurons", neurons, False)]
    populations = [
        NetPopulation(name=name, size=size, external=external) for name, size, external in parts
    ]
    return netlist(populations, pre, post, weight)


def judge(seed, signs, dead=()):
    """Whether the net fits, having made sure that mapper and oracle agree."""
    net = small_net(seed)
    possible = exhaustive_mapper.fits(net, signs, dead)
    outcome = place_and_route(
        net, chip=SMALL, dead=Dead(circuits=dead), signs=signs, seed=seed, max_runs=1, time_limit=60
    )
    assert outcome.stop_reason == ("fits" if possible else "impossible"), (seed, signs, outcome.why)
    if outcome.mapping is not None:
        assert check(outcome.mapping, net) == ()
        assert mapping_walker.is_right(outcome.mapping, net)
    elif outcome.certificate is not None:
        assert outcome.why
    return possible


@pytest.mark.parametrize("signs", ["fixed", "free"])
def test_the_mapper_agrees_with_trying_everything(signs):
    answers = [judge(seed, signs) for seed in range(8, 30)]
    assert {True, False} == set(answers)


def test_with_dead_circuits():
    answers = [judge(seed, "fixed", dead=((0, 1),)) for seed in range(10)]
    assert {True, False} == set(answers)


@pytest.mark.slow
@pytest.mark.parametrize("signs", ["fixed", "free"])
def test_150_nets(signs):
    assert 20 < sum(judge(1000 + seed, signs) for seed in range(150)) < 140
