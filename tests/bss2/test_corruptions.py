"""Every way to spoil a right mapping is convicted, with several seeds each."""

import numpy as np
import pytest

from jaxsnn.bss2.check import check
from jaxsnn.bss2.mapping import to_json
from tests.bss2.corruptions import CORRUPTIONS
from tests.bss2.recipes import dense_net, layer_by_layer_mapping, one_run_mapping, recurrent_net

SEEDS = 5


def bases():
    """Right mappings of several kinds, with their nets."""
    dense, layers = dense_net(20, 12, 5), dense_net(40, 8, 6, seed=1)
    loop, sums = recurrent_net(9, 20), recurrent_net(4, 7, largest=150)
    yield one_run_mapping(dense), dense
    yield layer_by_layer_mapping(layers, groups=2), layers
    yield one_run_mapping(loop, groups=2, signs="fixed"), loop
    yield one_run_mapping(sums), sums


@pytest.fixture(scope="module")
def right():
    found = list(bases())
    assert all(check(*one) == () for one in found)
    return found


def test_there_are_enough():
    assert len(CORRUPTIONS) >= 60


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_corruptions_are_convicted(kind, right):
    convicted = 0
    for number, (mapping, net) in enumerate(right):
        before = to_json(mapping)
        for seed in range(SEEDS):
            random = np.random.default_rng([seed, number])
            spoiled = next(filter(None, (CORRUPTIONS[kind](mapping, net, random) for _ in range(20))), None)
            if spoiled is None:
                continue
            found = check(*spoiled)
            assert found, (number, seed)
            assert all("\n" not in str(one) and one.message for one in found)
            convicted += 1
        assert to_json(mapping) == before
    assert convicted >= SEEDS
