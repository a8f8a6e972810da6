"""Chains A -> B -> A of networks drawn at random: what converts there and back fires the spikes of
the source in the importer of A.
"""

import numpy as np
import pytest

from jaxsnn.errors import JaxsnnError
from jaxsnn.nir.convert.pipeline import convert
from tests.interop.drawn import drawn, spikes_into
from tests.interop.players import compare, import_and_play, needs_spyx, run_in_steps, shift_of

pytestmark = [pytest.mark.interop, pytest.mark.slow]

FRAMEWORKS = ("snntorch", "norse", "spikingjelly", "spyx")
#: Seeds for every pair, and seeds of snnTorch's networks that Spyx can run.
SEEDS = range(12)
MORE = {("snntorch", "spyx"): (35, 40, 59, 60, 61, 66)}
#: Pairs without any round trip: Spyx subtracts, and the other framework resets to a value.
NONE = {("norse", "spyx"), ("spikingjelly", "spyx")}


def there_and_back(source, target, seed, folder):
    """(identical, trains, active) of a network, or the refusal of one of the conversions."""
    graph = drawn(source, seed)
    x = spikes_into(graph, seed)
    try:
        there = convert(graph, to=target, path=str(folder / "there.nir"))
        back, got = import_and_play(there.graph, source, x, folder / "back.nir")
    except JaxsnnError as error:
        return str(error)
    y = run_in_steps(graph, x)
    shifts = [shift_of(conversion) for conversion in (there, back)]
    steps = len(y) - abs(shifts[0])  # steps shifted out on the way there are missing
    y, got = y[:steps], got[:steps]
    if not np.array_equal(y, np.rint(y)):  # membranes of a readout
        got = np.where(np.abs(got - y) < 1e-5 * np.abs(y).max(), y, got)
    return compare(y, got, sum(shifts))


@pytest.mark.parametrize("target", FRAMEWORKS)
@pytest.mark.parametrize("source", FRAMEWORKS)
def test_there_and_back_it_fires_the_same(source, target, tmp_path):
    if "spyx" in (source, target):
        needs_spyx()
    seeds = (*SEEDS, *MORE.get((source, target), ()))
    outcomes = [there_and_back(source, target, seed, tmp_path) for seed in seeds]
    numbers = [outcome for outcome in outcomes if not isinstance(outcome, str)]
    assert all(identical == trains for identical, trains, _ in numbers)
    assert numbers or (source, target) in NONE, outcomes
    assert not numbers or sum(active for *_, active in numbers) > 0
