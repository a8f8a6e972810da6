"""The baseline of the mapping benchmark, benchmarks/vendor_mapper.py: right, and as limited as the
vendor's own mapper.
"""

import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxsnn.bss2.chip import HICANN_X
from jaxsnn.bss2.mapping import Run
from jaxsnn.bss2.search.place import PLACERS
from jaxsnn.bss2.search.route import ROUTERS, Unrouted
from tests.bss2 import test_place, test_route
from tests.bss2.recipes import dense_net


@pytest.fixture(autouse=True, scope="module")
def vendor_mapper():
    """Both are registered for the time of these tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
        patch.setattr(PLACERS, "_registered", {})
        patch.setattr(ROUTERS, "_registered", {})
        import vendor_mapper

        vendor_mapper.register()
        yield vendor_mapper
        sys.modules.pop("vendor_mapper")


@pytest.mark.parametrize("signs", ["fixed", "free"])
@pytest.mark.parametrize("net", test_route.NETS)
@pytest.mark.parametrize(
    ("router", "placer"), [("greedy", "spread"), ("greedy", "vendor"), ("mixed", "vendor")]
)
def test_the_vendor_mapping_is_right(router, placer, net, signs):
    test_route.test_every_router_is_right_after_every_placer(router, placer, net, signs)


@pytest.mark.parametrize("signs", ["fixed", "free"])
def test_the_vendor_mapper_keeps_off_dead_parts(signs):
    test_route.test_every_router_keeps_off_dead_parts("greedy", signs)
    counts = [3, 1, 12] * 12
    dead = test_place.some_dead(0, 20)
    test_place.assert_legal(test_place.place("vendor", counts, dead), counts, dead)


@pytest.mark.parametrize(
    ("inputs", "hidden", "fits"),
    [(8, 120, True), (9, 120, False), (100, 28, True), (100, 29, False), (64, 64, True)],
)
def test_single_circuits_up_to_128_sources(inputs, hidden, fits):
    run = test_route.route(dense_net(inputs, hidden, 3), "greedy", "vendor")
    assert isinstance(run, Run) is fits


def test_the_vendor_mapper_fails_on_the_full_chip():
    result = test_route.route(dense_net(256, 246, 10), "greedy", "vendor")
    assert isinstance(result, Unrouted)
    assert "123 sources" in result.why


@settings(max_examples=200)
@given(selects=st.lists(st.integers(0, 31), min_size=1, max_size=5, unique=True))
def test_masks_isolate_exactly_where_some_mask_does(vendor_mapper, selects):
    allowed = vendor_mapper.usable(tuple(selects), HICANN_X)
    for place, select in enumerate(selects):
        others = [other_select for other_select in selects if other_select != select]
        for index in range(32):
            masks = [
                mask
                for mask in range(32)
                if select & mask == index & mask
                and all(other_select & mask != select & mask for other_select in others)
            ]
            assert allowed[place, index] == bool(masks)
            if masks:
                chosen_mask = vendor_mapper.mask_of(tuple(selects), place, index, HICANN_X)
                assert chosen_mask == np.min(masks)
