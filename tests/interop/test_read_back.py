"""Files that are written for an importer, read back in the dialect of that importer: what we
simulate is what the importer makes of them.
"""

import nir
import numpy as np
import pytest

from jaxsnn import EventDriven, Events, TimeStepped, check, lower, simulate
from jaxsnn.errors import DialectError, JaxsnnError, LoweringError
from jaxsnn.nir import parse, read, write
from jaxsnn.nir.convert.pipeline import convert
from tests.helpers.random_spikes import random_raster
from tests.interop.drawn import drawn
from tests.interop.players import play, stepped

pytestmark = pytest.mark.interop
DT = 1e-3


def read_back(source, seed, target, folder):
    """(ours, the importer's) of one network; None where it does not convert."""
    graph = drawn(source, seed)
    (name,) = graph.inputs
    x = random_raster(seed, (40, 4, *graph.nodes[name].value("shape")), 0.35).astype(np.float32)
    path = folder / "made.nir"
    try:
        made = convert(graph, to=target, path=str(path))
    except JaxsnnError:
        return None
    write(path, made.graph, force=True)
    again = read(path)  # its metadata say how the importer runs it
    assert again.dialect.name is None or again.dialect.nodes == made.graph.dialect.nodes
    if again.dialect.name is None:
        again = again.with_dialect(made.graph.dialect)
    ours = simulate(lower(again, dtype=np.float32), x, engine=TimeStepped()).output()
    return np.asarray(ours), play(made.load_with, target, x)


def assert_same(pair):
    ours, theirs = pair
    assert np.any(theirs)
    if np.array_equal(theirs, np.rint(theirs)):
        np.testing.assert_array_equal(ours, theirs)
    else:  # membranes of a readout
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-6 * np.abs(theirs).max())


# A reset to zero with a readout, one that takes 1 off (snnTorch), and one that takes all (Rockpool).
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
    found = [read_back(source, seed, target, tmp_path) for seed in range(20)]
    pairs = [pair for pair in found if pair is not None and np.any(pair[1])]
    assert pairs
    for pair in pairs:
        assert_same(pair)


def cuba(size=3, **other):
    one = np.ones(size)
    values = {"tau_mem": 4e-3 * one, "tau_syn": 3e-3 * one, "r": 2.5 * one, "w_in": 1.5 * one}
    values |= {"v_leak": 0.2 * one, "v_threshold": one}
    return nir.CubaLIF(**(values | other))


def lif(size=3, **other):
    one = np.ones(size)
    values = {"tau": 4e-3 * one, "r": 7 * one, "v_leak": 0.1 * one, "v_threshold": one}
    return nir.LIF(**(values | {"v_reset": -0.5 * one} | other))


def ours(nodes, edges, x):
    graph = parse(nir.NIRGraph(nodes, edges, type_check=False), dialect="norse==importer", dt=DT)
    return graph, np.asarray(simulate(lower(graph), x, engine=TimeStepped()).output())


@pytest.mark.parametrize("neuron", [cuba(), lif(), nir.IF(np.ones(3), np.full(3, 2.0))])
def test_what_norse_makes_of_files_of_others(neuron):
    """It uses r and w_in of CubaLIF, starts its current at v_leak, and ignores r and v_reset."""
    import norse.torch

    nodes = {"i": nir.Input(np.array([3])), "n": neuron, "o": nir.Output(np.array([3]))}
    edges = [("i", "n"), ("n", "o")]
    x = np.random.default_rng(1).poisson(1.0, size=(60, 2, 3)).astype(np.float32)
    net = norse.torch.from_nir(nir.NIRGraph(nodes, edges, type_check=False), dt=DT)
    theirs = stepped(net, x)
    graph, y = ours(nodes, edges, x)
    assert 0.05 < theirs.mean() < 0.95
    np.testing.assert_array_equal(y, theirs)
    if isinstance(neuron, nir.LIF):
        assert any("r = 7 is read as 1" in change.what for change in graph.repairs)


def test_a_reset_method_does_not_reach_every_type():
    nodes = {"i": nir.Input(np.array([3])), "n": lif(), "o": nir.Output(np.array([3]))}
    net = nir.NIRGraph(nodes, [("i", "n"), ("n", "o")], type_check=False)
    said = {"dialect": "norse==importer", "dt": DT}
    with pytest.raises(DialectError, match=r"'n' .LIF. resets to zero in Norse's importer"):
        parse(net, reset="subtract", **said)
    assert parse(net, reset={"n": "zero"}, **said)


def test_the_event_engine_refuses_a_current_that_rests_elsewhere():
    nodes = {"i": nir.Input(np.array([3])), "n": cuba(), "o": nir.Output(np.array([3]))}
    graph, _ = ours(nodes, [("i", "n"), ("n", "o")], np.zeros((2, 1, 3), np.float32))
    assert not check(graph, "event").ok
    nothing = Events(time=np.full((1, 1), np.inf), index=np.full((1, 1), 3))
    with pytest.raises(LoweringError, match=r"'n' .CubaLIF.: its current starts and rests at"):
        simulate(lower(graph), nothing, t_end=1e-2, engine=EventDriven())
