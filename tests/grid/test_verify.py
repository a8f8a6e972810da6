"""`verify`: what it counts, and where it says that the first difference lies."""

import json

import numpy as np
import pytest

from jaxsnn import TimeStepped, lower, simulate, verify
from jaxsnn.errors import DialectError, JaxsnnError, UsageError
from jaxsnn.nir import build, read
from jaxsnn.simulation.verification import fitting_options
from tests.helpers.refusals import assert_refused

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
    report = verify(*spiking).as_dict()
    assert set(report) == KEYS
    assert json.loads(json.dumps(report)) == report
    assert report["ok"]
    assert report["identical_fraction"] == report["identical_active_fraction"] == 1
    assert report["relative_rmse"] is report["first_difference"] is None


def test_one_spike_too_few(spiking):
    graph, x, y = spiking
    step, batch, neuron = (int(place) for place in np.argwhere(y)[40])
    y = y.copy()
    y[step, batch, neuron] = 0
    report = verify(graph, x, y)
    assert not report.ok
    assert (report.trains - report.identical, report.active - report.identical_active) == (1, 1)
    assert report.spikes_got == report.spikes_expected + 1
    place = {"node": "output", "neuron": neuron, "batch": batch, "step": step}
    assert report.as_dict()["first_difference"] == place | {"expected": 0.0, "got": 1.0}


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
    report = verify(graph, np.zeros_like(x), np.zeros((200, 20, 3)))
    assert (report.active, report.identical_active_fraction) == (0, None)


@pytest.mark.parametrize(("error", "ok"), [(5e-5, True), (2e-4, False)])
def test_membranes_may_be_off_by_a_ten_thousandth(membranes, error, ok):
    graph, x, y = membranes
    report = verify(graph, x, y * (1 + error))
    assert report.relative_rmse == pytest.approx(error, rel=1e-2)
    assert report.ok is (report.first_difference is None) is ok
    assert report.trains == report.spikes_expected == report.spikes_got == 0
    assert report.identical_fraction is None


def test_a_recording_of_nothing_but_zeros(membranes):
    graph, x, y = membranes
    report = verify(graph, x, np.zeros_like(y))
    assert (report.relative_rmse, report.ok) == (float("inf"), False)


def test_outputs_by_name(spiking):
    graph, x, y = spiking
    assert verify(graph, {"input": x}, {"output": y}).ok
    assert verify(lower(graph), x, y).ok


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda y: y[:100],
            r"output 'output': the recording has shape \(100, 20, 3\), but the simulation has shape \(200, 20, 3\)",
        ),
        (
            lambda y: np.where(y > 0, np.nan, y),
            r"has nan at \(\d+, \d+, \d+\): record finite values",
        ),
        (lambda y: {"out": y}, r"no output 'out'.*did you mean 'output'"),
        (lambda y: {}, "the recording contains no outputs"),
    ],
)
def test_recordings_that_do_not_fit(spiking, change, message):
    graph, x, y = spiking
    assert_refused(lambda: verify(graph, x, change(y)), UsageError, message)


@pytest.mark.parametrize(
    ("options", "error", "fix"),
    [({}, DialectError, "pass dialect="), ({"dialect": "norse"}, JaxsnnError, "pass dt_export=")],
)
def test_an_undecided_file_is_refused(options, error, fix, zoo, recordings):
    graph, recording = read(zoo["norse_v_lifbox"], **options), recordings["norse_v_lifbox"]
    assert_refused(lambda: verify(graph, *recording), error, fix=fix)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"min_v_mem": -1.0}, 'reset="subtract" and norm_input=False and min_v_mem=-1'),
        ({"spike_fn": "single"}, 'reset="subtract" and norm_input=False and spike_fn="single"'),
    ],
)
def test_what_sinabs_does_not_write_is_tried(options, words):
    """The bound that its own constructor sets, and one spike in a step."""
    rng = np.random.default_rng(1)
    x = (rng.random((60, 2, 4)) < 0.5).astype(np.float32)
    layers = build.linear(weight=rng.normal(-0.2, 1.5, (6, 4))), build.lif(tau=5.0)
    sinabs = {"dialect": "sinabs", "reset": "subtract", "norm_input": False}
    plain = build.sequential(build.input(4), *layers, **sinabs)
    exact = build.sequential(build.input(4), *layers, **sinabs, **options)
    y = simulate(lower(exact), x, engine=TimeStepped()).output()
    assert not verify(plain, x, y).ok
    assert [str(fit) for fit in fitting_options(plain, x, y)] == [words]


def test_a_small_membrane_counts_beside_a_large_one():
    layers = build.linear(weight=[[3e4], [1.0]]), build.li(tau=10e-3, r=1.0)
    options = {"dialect": "norse", "dt": "1ms", "dt_export": "1ms"}
    graph = build.sequential(build.input(1), *layers, **options)
    x = (np.random.default_rng(0).random((50, 2, 1)) < 0.3).astype(np.float32)
    y = np.array(simulate(graph, x, engine=TimeStepped()).output())
    assert verify(graph, x, y).ok
    y[..., 1] *= -1
    report = verify(graph, x, y)
    assert not report.ok
    assert report.first_difference.neuron == 1
