"""`jaxsnn run` on recordings of events, and the end of a sample that nothing specifies."""

import numpy as np
import pytest

from jaxsnn.commands.run_command import run_file, run_in_steps
from jaxsnn.errors import UsageError
from jaxsnn.nir import build
from jaxsnn.nir.initializers import normal
from jaxsnn.train import save_events
from tests.helpers.event_files import aedat2_bytes, bin_bytes, write_heidelberg

#: Event on a camera of 34 x 34 pixels: t in microseconds, x, y, p.
EVENTS = [(1000, 1, 2, 1), (2000, 3, 4, 0)]


def net(shape):
    neurons = build.cubalif(tau_mem="20ms", tau_syn="10ms")
    size = int(np.prod(shape))
    flatten = [build.node("Flatten", start_dim=0, end_dim=-1)] * (len(shape) > 1)
    weight = np.full((3, size), 9.0)
    return build.sequential(build.input(shape), *flatten, build.linear(weight=weight), neurons)


def shape_and_file(kind, folder):
    if kind == "bin":
        (folder / "a.bin").write_bytes(bin_bytes(EVENTS))
        return (2, 34, 34), folder / "a.bin", 2e-3
    if kind == "aedat":
        (folder / "a.aedat").write_bytes(aedat2_bytes(EVENTS))
        return (2, 128, 128), folder / "a.aedat", 1e-3
    if kind == "spike trains":
        write_heidelberg(folder / "a.h5", [[0.25], [0.5, 0.125]], [[1], [2, 3]], None)
        return (700,), folder / "a.h5", 0.5
    array = np.array(EVENTS, [("t", "i8"), ("x", "i2"), ("y", "i2"), ("p", "i1")])
    save_events(folder / "a.npz", [array, array[:1]], sensor_size=(34, 34, 2), time_unit="1us")
    return (2, 34, 34), folder / "a.npz", 2e-3


@pytest.mark.parametrize("kind", ["bin", "aedat", "spike trains", "npz"])
def test_recordings_are_simulated(kind, tmp_path):
    shape, path, last = shape_and_file(kind, tmp_path)
    outcome = run_file(net(shape), path, tmp_path / "out.npz")
    assert outcome.samples == (2 if kind in ("spike trains", "npz") else 1)
    assert sum(outcome.spikes.values()) > 0
    # 10 of the longest time constants after the last event
    assert outcome.t_end == pytest.approx(last + 0.2, rel=1e-5)
    assert "assumed-end" in [getattr(note, "code", "") for note in outcome.notes]


def test_an_explicit_end_needs_no_note(tmp_path):
    shape, path, _ = shape_and_file("npz", tmp_path)
    outcome = run_file(net(shape), path, tmp_path / "out.npz", t_end=0.05)
    assert outcome.t_end == 0.05
    assert "assumed-end" not in [getattr(note, "code", "") for note in outcome.notes]


@pytest.mark.parametrize("run", [run_file, run_in_steps])
def test_recordings_of_another_sensor_are_refused(run, tmp_path):
    _, path, _ = shape_and_file("npz", tmp_path)
    graph = build.sequential(
        build.input((34, 34, 2)),
        build.node("Flatten", start_dim=0, end_dim=-1),
        build.linear(3, weight=normal(1.0, 0.1)),
        build.lif(3, tau="10ms", r=10.0),
        dialect="snntorch",
        reset="zero",
        reset_delay=False,
        dt="1ms",
        seed=0,
    )
    with pytest.raises(UsageError):
        run(graph, path, tmp_path / "out.npz")


def steps_net():
    return build.sequential(
        build.input(3),
        build.linear(weight=np.full((2, 3), 2.0)),
        build.lif(2, tau="10ms", r=10.0),
        dialect="snntorch",
        reset="zero",
        reset_delay=False,
        dt="1ms",
    )


def test_test_samples_of_training_data_have_the_samples_first(tmp_path):
    x = (np.random.default_rng(0).random((4, 6, 3)) < 0.4).astype(float)  # samples, time, channels
    np.savez(tmp_path / "task.npz", x_train=x, y_train=np.zeros(4), x_test=x, y_test=np.zeros(4))
    np.savez(tmp_path / "x.npz", x=np.moveaxis(x, 0, 1))
    outputs = []
    for name in ("task", "x"):
        outcome = run_in_steps(steps_net(), tmp_path / f"{name}.npz", tmp_path / f"{name}_out.npz")
        codes = [getattr(note, "code", "") for note in outcome.notes]
        assert ("test-samples" in codes) == (name == "task")
        assert (outcome.samples, outcome.steps) == (4, 6)
        with np.load(tmp_path / f"{name}_out.npz") as arrays:
            outputs.append(arrays["output.y"])
    np.testing.assert_array_equal(*outputs)
    assert outputs[0].any()


@pytest.mark.parametrize(
    "arrays",
    [
        {"x": np.zeros((4, 6, 3)), "label": np.zeros(4, int)},
        {"x_test": np.zeros((4, 3)), "y_test": np.zeros(4, int)},
    ],
)
def test_axes_in_another_order_are_refused(arrays, tmp_path):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(UsageError):
        run_in_steps(steps_net(), tmp_path / "a.npz", tmp_path / "out.npz")


def test_the_assumed_end_is_a_multiple_of_the_time_step(tmp_path):
    np.savez(tmp_path / "x.npz", time=[[0.0, 5.3e-3]], index=[[0, 1]])
    outcome = run_in_steps(steps_net(), tmp_path / "x.npz", tmp_path / "out.npz")
    assert outcome.steps == 106  # 5.3 ms and 10 time constants of 10 ms, rounded up
    assert outcome.t_end == pytest.approx(0.106)


def test_a_network_without_time_constants_needs_an_end(tmp_path):
    np.savez(tmp_path / "x.npz", time=[[0.0, 5e-3]], index=[[0, 1]])
    layers = [build.linear(weight=np.ones((2, 3))), build.integrate_and_fire(2, r=1.0)]
    graph = build.sequential(build.input(3), *layers)
    with pytest.raises(UsageError):
        run_file(graph, tmp_path / "x.npz", tmp_path / "out.npz")
