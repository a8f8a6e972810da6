"""Networks drawn at random, each built and run in its framework: the file of its own exporter, read
here and stepped here, fires what the framework fires.

There is no list of exceptions: what an exporter cannot write, or writes in another meaning than the
framework has, is not drawn, and `tests.interop.drawn_live` says so where it is left out.
"""

import contextlib
import io
import warnings

import numpy as np
import pytest

from tests.interop.drawn_live import LIVE, graph_of, inputs_of
from tests.interop.players import needs_spyx, run_in_steps

pytestmark = pytest.mark.interop

#: Number of networks of each framework, and number of networks of each test.
EACH, CHUNK = 150, 15
#: Number of networks in the quick tests.
FEW = 4


def differs(y, got):
    """Other spikes, or other membranes where a readout gives them."""
    if y.shape != got.shape:
        return f"shape {got.shape} for {y.shape}"
    if np.array_equal(y, np.round(y)):
        different = y != got
    else:
        different = ~np.isclose(y, got, rtol=1e-4, atol=1e-5)
    return f"{different.any(axis=0).sum()} of {different[0].size} trains" if different.any() else ""


def measured(framework, seed, path):
    """(what differs, share of spikes) of a network.

    A membrane that comes within the rounding of float32 of its threshold may fire in one and not in
    the other, as their sums have other orders: what is read wrongly differs with other inputs, too.
    Where sums are exact, there is no second try.
    """
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        live = LIVE[framework](seed)
        graph = graph_of(live, path)
    for offset in (0,) if live.coarse else (0, 1000, 2000):  # even offsets keep the kind of numbers
        x = inputs_of(live, seed + offset)
        y = live.play(x)
        difference = differs(y, run_in_steps(graph, x))
        if not difference:
            break
    return difference, float(np.mean(y != 0))


def check(framework, seeds, path):
    if framework == "spyx":
        needs_spyx()
    wrong, active = {}, 0
    for seed in seeds:
        difference, share = measured(framework, seed, path)
        active += share > 0.01
        if difference:
            wrong[seed] = difference
    assert not wrong
    assert active >= 0.7 * len(seeds)  # silent networks prove little


@pytest.mark.slow
@pytest.mark.parametrize("first", range(FEW, EACH, CHUNK))
@pytest.mark.parametrize("framework", LIVE)
def test_a_drawn_network_fires_as_in_its_framework(framework, first, tmp_path):
    check(framework, range(first, min(first + CHUNK, EACH)), tmp_path / "drawn.nir")


@pytest.mark.parametrize("framework", LIVE)
def test_a_few_drawn_networks_fire_as_in_their_framework(framework, tmp_path):
    check(framework, range(FEW), tmp_path / "drawn.nir")
