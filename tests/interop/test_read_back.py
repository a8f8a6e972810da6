"""Files that are written for an importer, read back in the dialect of that importer: what we
simulate is what the importer makes of them.
"""

import functools

import nir
import numpy as np
import pytest

from jaxsnn import EventDriven, Events, TimeStepped, check, lower, simulate
from jaxsnn.errors import DialectError, JaxsnnError, LoweringError
from jaxsnn.nir import parse, read
from tests.helpers.refusals import assert_refused
from tests.interop.drawn import drawn, spikes_into
from tests.interop.players import import_and_play, run_in_steps, stepped

pytestmark = pytest.mark.interop
DT = 1e-3


def read_back(source, seed, target, folder):
    """(ours, the importer's) of one network; None where it does not convert."""
    graph = drawn(source, seed)
    x, path = spikes_into(graph, seed), folder / "made.nir"
    try:
        conversion, imported = import_and_play(graph, target, x, path)
    except JaxsnnError:
        return None
    again = read(path)  # the metadata specify how the importer runs it
    assert again.dialect.name is None or again.dialect.nodes == conversion.graph.dialect.nodes
    if again.dialect.name is None:
        again = again.with_dialect(conversion.graph.dialect)
    return run_in_steps(again, x), imported


def assert_same(pair):
    ours, theirs = pair
    assert np.any(theirs)
    if np.array_equal(theirs, np.rint(theirs)):
        np.testing.assert_array_equal(ours, theirs)
    else:  # membranes of a readout
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-6 * np.abs(theirs).max())


# Cases: reset to zero with a readout; subtraction of 1 (snnTorch); of all multiples (Rockpool).
@pytest.mark.parametrize(("source", "seed"), [("norse", 3), ("snntorch", 1), ("rockpool", 0)])
def test_norse(source, seed, tmp_path):
    assert_same(read_back(source, seed, "norse", tmp_path))


def test_a_neuron_that_feeds_itself_resets_as_the_importer_has_it(tmp_path):
    """snnTorch's own files mean a later reset by a recurrent CubaLIF; what its importer makes of a
    loop resets at once.
    """
    assert_same(read_back("spikingjelly", 14, "snntorch", tmp_path))


@pytest.mark.slow
@pytest.mark.parametrize("target", ["norse", "snntorch", "spikingjelly"])
@pytest.mark.parametrize("source", ["norse", "snntorch", "rockpool", "spikingjelly"])
def test_every_file_is_read_back(source, target, tmp_path):
    pairs = [read_back(source, seed, target, tmp_path) for seed in range(20)]
    active = [pair for pair in pairs if pair is not None and np.any(pair[1])]
    assert active
    for pair in active:
        assert_same(pair)


def cuba(size=3, **changes):
    ones = np.ones(size)
    values = {"tau_mem": 4e-3 * ones, "tau_syn": 3e-3 * ones, "r": 2.5 * ones, "w_in": 1.5 * ones}
    values |= {"v_leak": 0.2 * ones, "v_threshold": ones}
    return nir.CubaLIF(**(values | changes))


def lif(size=3, **changes):
    ones = np.ones(size)
    values = {"tau": 4e-3 * ones, "r": 7 * ones, "v_leak": 0.1 * ones, "v_threshold": ones}
    return nir.LIF(**(values | {"v_reset": -0.5 * ones} | changes))


NORSE = {"dialect": "norse==importer", "dt": DT}


def network(neuron):
    """One population of three neurons."""
    nodes = {"i": nir.Input(np.array([3])), "n": neuron, "o": nir.Output(np.array([3]))}
    return nir.NIRGraph(nodes, [("i", "n"), ("n", "o")], type_check=False)


@pytest.mark.parametrize("neuron", [cuba(), lif(), nir.IF(np.ones(3), np.full(3, 2.0))])
def test_what_norse_makes_of_files_of_others(neuron):
    """It uses r and w_in of CubaLIF, starts its current at v_leak, and ignores r and v_reset."""
    import norse.torch

    x = np.random.default_rng(1).poisson(1.0, size=(60, 2, 3)).astype(np.float32)
    theirs = stepped(norse.torch.from_nir(network(neuron), dt=DT), x)
    graph = parse(network(neuron), **NORSE)
    assert 0.05 < theirs.mean() < 0.95
    ours = simulate(lower(graph), x, engine=TimeStepped()).output()
    np.testing.assert_array_equal(np.asarray(ours), theirs)
    if isinstance(neuron, nir.LIF):
        assert any("r = 7 is read as 1" in change.what for change in graph.repairs)


def test_a_reset_method_does_not_reach_every_type():
    net, message = network(lif()), r"'n' .LIF. resets to zero in Norse's importer"
    assert_refused(lambda: parse(net, reset="subtract", **NORSE), DialectError, message)
    assert parse(net, reset={"n": "zero"}, **NORSE)


def test_the_event_engine_refuses_a_current_that_rests_elsewhere():
    graph = parse(network(cuba()), **NORSE)
    assert not check(graph, "event").ok
    silence = Events(time=np.full((1, 1), np.inf), index=np.full((1, 1), 3))
    run = functools.partial(simulate, lower(graph), silence, t_end=1e-2, engine=EventDriven())
    assert_refused(run, LoweringError, r"'n' .CubaLIF.: its synaptic current starts and rests at")
