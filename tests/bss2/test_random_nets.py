"""Random nets of many kinds: a mapping that the checker accepts, or impossible with the resource,
or given up.
"""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from jaxsnn.bss2.check import check
from jaxsnn.bss2.chip import HICANN_X, SMALL, Dead
from jaxsnn.bss2.mapping import from_json, to_json
from jaxsnn.bss2.netlist import NetPopulation, netlist
from jaxsnn.bss2.search.portfolio import place_and_route
from tests.oracles import mapping_walker

SIGNS = st.sampled_from(["fixed", "free"])


def draw_weights(draw, random, size):
    """Of both signs, some beyond 63 where that was drawn."""
    largest = draw(st.sampled_from([63, 63, 63, 130]))
    share = draw(st.sampled_from([0.0, 0.3, 0.5]))
    return random.integers(1, largest + 1, size) * np.where(random.random(size) < share, -1, 1)


def net_of(draw, random, sizes, connected):
    """A net of populations, the first one of inputs; `connected` is (sources, targets) of bool."""
    populations = [
        NetPopulation(name=f"p{number}", size=size, external=number == 0)
        for number, size in enumerate(sizes)
    ]
    connected[:, : sizes[0]] = False
    pre, post = np.nonzero(connected)
    return netlist(populations, pre, post, draw_weights(draw, random, pre.size))


@st.composite
def layered(draw, most=110):
    """Dense or sparse layers, with connections that skip one."""
    sizes = draw(st.lists(st.integers(1, most), min_size=2, max_size=4))
    density = draw(st.sampled_from([0.05, 0.3, 0.7, 1.0]))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    offsets = np.cumsum([0, *sizes])
    connected = np.zeros((offsets[-1], offsets[-1]), bool)
    for layer in range(1, len(sizes)):
        first = offsets[max(0, layer - 2)] if draw(st.booleans()) else offsets[layer - 1]
        shape = (offsets[layer] - first, sizes[layer])
        connected[first : offsets[layer], offsets[layer] : offsets[layer + 1]] = (
            random.random(shape) < density
        )
    return net_of(draw, random, sizes, connected)


@st.composite
def recurrent(draw, most=100):
    """Inputs, neurons that feed each other and themselves, and outputs."""
    sizes = [draw(st.integers(1, most)), draw(st.integers(1, most)), draw(st.integers(1, 8))]
    density = draw(st.sampled_from([0.05, 0.3, 1.0]))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    connected = random.random((sum(sizes), sum(sizes))) < density
    connected[: sizes[0], sum(sizes[:2]) :] = False
    connected[sum(sizes[:2]) :] = False
    return net_of(draw, random, sizes, connected)


@st.composite
def convolutional(draw):
    """A convolution, a pool, and a dense layer: many sources, few of them for each neuron."""
    side, channels, kernel = (
        draw(st.integers(5, 9)),
        draw(st.integers(1, 3)),
        draw(st.integers(2, 3)),
    )
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    inner = side - kernel + 1
    sizes = [side * side, channels * inner * inner, draw(st.integers(1, 10))]
    connected = np.zeros((sum(sizes), sum(sizes)), bool)
    for channel, row, column in np.ndindex(channels, inner, inner):
        target = sizes[0] + (channel * inner + row) * inner + column
        for i, j in np.ndindex(kernel, kernel):
            connected[(row + i) * side + column + j, target] = True
    connected[sizes[0] : sizes[0] + sizes[1], sizes[0] + sizes[1] :] = True
    return net_of(draw, random, sizes, connected)


@st.composite
def dead_parts(draw):
    """Some dead parts of the full chip, often none."""
    if draw(st.booleans()):
        return Dead()
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    count = draw(st.sampled_from([1, 5, 40]))

    def some(size):
        return tuple(
            sorted({(int(random.integers(2)), int(random.integers(size))) for _ in range(count)})
        )

    return Dead(
        circuits=some(HICANN_X.columns), drivers=some(HICANN_X.drivers), rows=some(HICANN_X.rows)
    )


def judge(net, signs, dead, seed, chip=HICANN_X, time_limit=2.0):
    """One of three answers, each with its proof or its reason."""
    outcome = place_and_route(
        net, chip=chip, signs=signs, dead=dead, seed=seed, time_limit=time_limit
    )
    assert outcome.stop_reason in ("fits", "impossible", "gave up")
    if outcome.stop_reason == "fits":
        assert check(outcome.mapping, net) == ()
        again = from_json(to_json(outcome.mapping))
        assert check(again, net) == ()
    else:
        assert outcome.mapping is None
        assert outcome.why
        assert "\n" not in outcome.why
    if outcome.stop_reason == "impossible":
        certificate = outcome.certificate
        assert certificate is not None
        assert certificate.needed > certificate.available
    return outcome


@pytest.mark.parametrize(
    ("nets", "examples"), [(layered(), 30), (recurrent(), 20), (convolutional(), 15)]
)
def test_random_nets(nets, examples):
    @settings(max_examples=examples)
    @given(nets, SIGNS, dead_parts(), st.integers(0, 9))
    def judged(net, signs, dead, seed):
        judge(net, signs, dead, seed)

    judged()


@settings(max_examples=80)
@given(st.one_of(layered(most=6), recurrent(most=6)), SIGNS, st.integers(0, 9))
def test_the_small_chip_and_a_few_loops(net, signs, seed):
    assume(net.size < 20)
    outcome = judge(net, signs, Dead(), seed, chip=SMALL)
    if outcome.mapping is not None:
        assert mapping_walker.is_right(outcome.mapping, net)


@pytest.mark.slow
@settings(max_examples=300)
@given(st.one_of(layered(), recurrent(), convolutional()), SIGNS, dead_parts(), st.integers(0, 9))
def test_300_nets(net, signs, dead, seed):
    judge(net, signs, dead, seed)


@pytest.mark.slow
@settings(max_examples=60)
@given(st.one_of(layered(most=300), recurrent(most=250)), SIGNS, dead_parts(), st.integers(0, 9))
def test_large_nets(net, signs, dead, seed):
    judge(net, signs, dead, seed, time_limit=10.0)
