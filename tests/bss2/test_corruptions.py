"""Every way to spoil a right mapping is found, with several seeds each."""

import numpy as np
import pytest

from jaxsnn.bss2.check import check
from jaxsnn.bss2.mapping import to_json
from jaxsnn.bss2.search.portfolio import place_and_route
from tests.bss2.corruptions import CORRUPTIONS
from tests.bss2.recipes import dense_net, layer_by_layer_mapping, one_run_mapping, recurrent_net

#: Two seeds run in the quick tests, four more in the slow ones.
SEEDS = [range(2), pytest.param(range(2, 6), marks=pytest.mark.slow)]
#: Problem code that the check must report for a corruption, possibly among others.
SAID = {
    "label_beyond_the_last": "no-such-synapse",
    "weight_one_off": "wrong-weight",
    "weight_beyond_the_largest": "bad-weight",
    "synapse_twice": "synapse-twice",
    "synapse_on_a_circuit_of_no_neuron": "no-neuron",
    "synapse_that_nothing_reaches": "idle-synapse",
    "table_of_another_shape": "bad-shape",
    "mask_that_rejects": "idle-synapse",
    "mask_negative": "bad-mask",
    "row_disabled": "idle-synapse",
    "row_of_both_signs": "wrong-weight",
    "mode_that_does_not_exist": "bad-mode",
    "node_of_the_host_closed": "missing",
    "filter_beyond_the_bits": "bad-filter",
    "nodes_swapped": "bad-node",
    "recorded_neurons_closed_to_the_host": "not-recorded",
    "event_beyond_the_links": "bad-event",
    "event_sent_twice": "wrong-weight",
    "event_of_another_source_too": "same-event",
    "source_removed": "no-source",
    "source_listed_twice": "source-twice",
    "source_that_the_net_has_not": "unknown-source",
    "source_recorded_in_its_own_run": "bad-origin",
    "address_of_another_neuron": "same-address",
    "address_beyond_the_last": "bad-address",
    "head_that_it_has_not": "bad-head",
    "no_circuits": "no-circuit",
    "circuit_of_another_neuron": "overlap",
    "circuit_beyond_the_chip": "no-such-circuit",
    "circuit_far_away": "not-connected",
    "circuits_over_the_border": "over-border",
    "neuron_removed": "not-placed",
    "neuron_placed_twice": "placed-twice",
    "neuron_that_the_net_has_not": "unknown-neuron",
    "replayed_neuron_not_recorded": "bad-origin",
    "dead_circuit": "dead-circuit",
    "dead_row": "dead-row",
    "dead_driver": "dead-row",
    "dead_part_that_does_not_exist": "no-such-part",
    "runs_swapped": "bad-origin",
    "recurrent_part_torn_apart": "torn-apart",
    "signs_said_to_be_free": "sign-not-free",
    "signs_of_no_kind": "bad-signs",
    "net_with_another_sign": "wrong-sign",
    "net_with_one_connection_less": "unwanted",
    "net_with_a_population_of_another_name": "other-populations",
    "fingerprint_of_another_net": "other-net",
    "quantization_of_another_mapping": "other-net",
    "scales_of_another_mapping": "other-net",
    "run_without_neurons": "empty-run",
    "output_not_recorded": "not-recorded",
    "scales_that_lack_a_population": "bad-scales",
    "scale_of_a_population_that_the_net_has_not": "bad-scales",
}


def bases():
    """Right mappings of several kinds, with their nets."""
    dense, layers = dense_net(20, 12, 5), dense_net(40, 8, 6, seed=1)
    loop, sums = recurrent_net(9, 20), recurrent_net(4, 7, largest=150)
    yield one_run_mapping(dense), dense
    yield layer_by_layer_mapping(layers, groups=2), layers
    yield one_run_mapping(loop, groups=2, signs="fixed"), loop
    yield one_run_mapping(sums), sums
    wide = dense_net(300, 6, 4)
    yield place_and_route(wide, signs="free").mapping, wide


@pytest.fixture(scope="module")
def right():
    right_mappings = list(bases())
    assert all(check(*pair) == () for pair in right_mappings)
    return [(mapping, net, to_json(mapping)) for mapping, net in right_mappings]


def test_sixty_corruptions_are_tried():
    assert len(CORRUPTIONS) >= 60
    assert set(SAID) <= set(CORRUPTIONS)


@pytest.mark.parametrize("seeds", SEEDS)
@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_corruptions_are_found(kind, seeds, right):
    caught = 0
    for number, (mapping, net, before) in enumerate(right):
        for seed in seeds:
            random = np.random.default_rng([seed, number])
            spoiled = next(
                filter(None, (CORRUPTIONS[kind](mapping, net, random) for _ in range(20))), None
            )
            if spoiled is None:
                continue
            violations = check(*spoiled)
            assert violations, (number, seed)
            assert SAID.get(kind, violations[0].code) in [
                violation.code for violation in violations
            ]
            assert all("\n" not in str(violation) and violation.message for violation in violations)
            caught += 1
        assert to_json(mapping) == before
    assert caught >= len(seeds)
