"""`verify`: what it counts, and where it says that the first difference lies."""

import json

import numpy as np
import pytest

from jaxsnn import TimeStepped, lower, simulate, verify
from jaxsnn.errors import DialectError, JaxsnnError, UsageError
from jaxsnn.nir import build, read
from jaxsnn.simulation.verification import fitting_options

KEYS = {
    "ok",
    "trains",
    "active",
    "identical",
    "identical_active",
    "identical_fraction",
    "identical_active_fraction",
    "relative_rmse",
    "spikes_expected",
    "spikes_got",
    "first_difference",
}


@pytest.fixture
def spiking(recorded):
    return recorded("norse_v_lifbox")


@pytest.fixture
def membranes(recorded):
    return recorded("norse_v_li")


def test_all_is_well(spiking):
    found = verify(*spiking).as_dict()
    assert set(found) == KEYS
    assert json.loads(json.dumps(found)) == found
    assert found["ok"]
    assert found["identical_fraction"] == found["identical_active_fraction"] == 1
    assert found["relative_rmse"] is None
    assert found["first_difference"] is None


def test_one_spike_too_few(spiking):
    graph, x, y = spiking
    step, batch, neuron = (int(place) for place in np.argwhere(y)[40])
    y = y.copy()
    y[step, batch, neuron] = 0
    found = verify(graph, x, y)
    assert not found.ok
    assert (found.trains - found.identical, found.active - found.identical_active) == (1, 1)
    assert found.spikes_got == found.spikes_expected + 1
    assert found.as_dict()["first_difference"] == {
        "node": "output",
        "neuron": neuron,
        "batch": batch,
        "step": step,
        "expected": 0.0,
        "got": 1.0,
    }


def test_the_first_difference_is_the_first_in_time(spiking):
    graph, x, y = spiking
    y = y.copy()
    y[50, 0, 0], y[20, 7, 2], y[20, 9, 0] = 1 - y[50, 0, 0], 1 - y[20, 7, 2], 1 - y[20, 9, 0]
    first = verify(graph, x, y).first_difference
    assert first is not None
    assert (first.step, first.batch, first.neuron) == (20, 7, 2)
    assert first.expected == 1 - first.got


def test_silence_has_no_active_trains(spiking):
    graph, x, _ = spiking
    found = verify(graph, np.zeros_like(x), np.zeros((200, 20, 3)))
    assert found.active == 0
    assert found.identical_active_fraction is None


@pytest.mark.parametrize(("error", "ok"), [(5e-5, True), (2e-4, False)])
def test_membranes_may_be_off_by_a_ten_thousandth(membranes, error, ok):
    graph, x, y = membranes
    found = verify(graph, x, y * (1 + error))
    assert found.relative_rmse == pytest.approx(error, rel=1e-2)
    assert found.ok is ok
    assert (found.first_difference is None) is ok
    assert found.trains == found.spikes_expected == found.spikes_got == 0
    assert found.identical_fraction is None


def test_a_recording_of_nothing_but_zeros(membranes):
    graph, x, y = membranes
    found = verify(graph, x, np.zeros_like(y))
    assert found.relative_rmse == float("inf")
    assert not found.ok


def test_outputs_by_name(spiking):
    graph, x, y = spiking
    assert verify(graph, {"input": x}, {"output": y}).ok
    assert verify(lower(graph), x, y).ok
    with pytest.raises(UsageError, match=r"no output 'out'.*did you mean 'output'"):
        verify(graph, x, {"out": y})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda y: y[:100],
            r"output 'output': the recording has shape \(100, 20, 3\), the simulation \(200, 20, 3\)",
        ),
        (
            lambda y: np.where(y > 0, np.nan, y),
            r"has nan at \(\d+, \d+, \d+\): record finite numbers",
        ),
    ],
)
def test_recordings_that_do_not_fit(spiking, change, message):
    graph, x, y = spiking
    with pytest.raises(UsageError, match=message):
        verify(graph, x, change(y))


def test_an_undecided_file_is_refused(zoo, recordings):
    with pytest.raises(DialectError, match="say dialect="):
        verify(read(zoo["norse_v_lifbox"]), *recordings["norse_v_lifbox"])
    with pytest.raises(JaxsnnError, match="say dt_export="):
        verify(read(zoo["norse_v_lifbox"], dialect="norse"), *recordings["norse_v_lifbox"])


@pytest.mark.parametrize(
    ("own", "words"),
    [
        ({"min_v_mem": -1.0}, 'reset="subtract" and norm_input=False and min_v_mem=-1'),
        ({"spike_fn": "single"}, 'reset="subtract" and norm_input=False and spike_fn="single"'),
    ],
)
def test_what_sinabs_does_not_write_is_tried(own, words):
    """The bound that its own constructor sets, and one spike in a step."""
    random = np.random.default_rng(1)
    x = (random.random((60, 2, 4)) < 0.5).astype(np.float32)

    def graph(**said):
        layers = build.linear(weight=random_weights), build.lif(tau=5.0)
        return build.sequential(build.input(4), *layers, dialect="sinabs", **said)

    random_weights = random.normal(-0.2, 1.5, (6, 4))
    wanted = lower(graph(reset="subtract", norm_input=False, **own))
    y = simulate(wanted, x, engine=TimeStepped()).output()
    plain = graph(reset="subtract", norm_input=False)
    assert not verify(plain, x, y).ok
    assert [str(found) for found in fitting_options(plain, x, y)] == [words]


def test_a_small_membrane_counts_beside_a_large_one():
    graph = build.sequential(
        build.input(1),
        build.linear(weight=[[3e4], [1.0]]),
        build.li(tau=10e-3, r=1.0),
        dialect="norse",
        dt="1ms",
        dt_export="1ms",
    )
    x = (np.random.default_rng(0).random((50, 2, 1)) < 0.3).astype(np.float32)
    y = np.array(simulate(graph, x, engine=TimeStepped()).output())
    assert verify(graph, x, y).ok
    y[..., 1] *= -1
    found = verify(graph, x, y)
    assert not found.ok
    assert found.first_difference.neuron == 1
    with pytest.raises(UsageError, match="no output is given to compare with"):
        verify(graph, x, {})
