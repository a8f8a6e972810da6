"""Inputs with values, from files, through commands, in both engines."""

from functools import partial

import nir
import numpy as np
import pytest

import jaxsnn
from jaxsnn.errors import UsageError
from jaxsnn.network.inputs import refuse_other_axes
from jaxsnn.network.spikes import Events
from jaxsnn.network.valued_inputs import Currents, GradedEvents
from jaxsnn.nir import build
from jaxsnn.nir.io.recorded_data import event_data, graph_data, gridded_data, write_data
from jaxsnn.simulation.network_arrays import network_inputs
from tests.helpers.command_line import run_cli, run_cli_json
from tests.helpers.refusals import assert_refused
from tests.oracles import nir_paper_lif

DT, STEPS = 1e-4, 60
TOLD = ("--dialect", "snntorch", "--reset", "zero", "--reset-delay", "false")


RESET = {"reset": "zero", "reset_delay": False}


def network_of_snntorch(**options):
    """Leaky neurons as snnTorch writes them: tau = dt / (1 - beta), r = tau / dt."""
    tau = 2e-3
    rng = np.random.default_rng(0)
    neurons = build.lif(tau=tau, r=tau / DT, v_threshold=1.0)
    first, second = rng.uniform(0, 0.08, (6, 3)), rng.uniform(0, 0.5, (2, 6))
    layers = build.linear(weight=first), neurons, build.linear(weight=second), neurons
    return build.sequential(build.input(3), *layers, dialect="snntorch", **options)


@pytest.fixture
def net(tmp_path):
    jaxsnn.write(tmp_path / "net.nir", network_of_snntorch())
    return tmp_path / "net.nir"


@pytest.fixture
def run(net, tmp_path, capsys):
    """Runs `jaxsnn run` on arrays, or a file: what it wrote, and stderr."""

    def run(*options, code=0, file=None, **arrays):
        np.savez(tmp_path / "in.npz", **arrays)
        files = ["--input", file or tmp_path / "in.npz", "-o", tmp_path / "out.npz", "--force"]
        _, err = run_cli(capsys, "run", net, *TOLD, *files, *options, code=code)
        return dict(np.load(tmp_path / "out.npz")) if code == 0 else None, err

    return run


IMAGE = np.array([[0.9, 0.25, 0.5], [0.1, 0.75, 1.0]])
IMAGES = np.tile(IMAGE, (STEPS, 1, 1))


def test_static_images_are_currents(run):
    """As snnTorch's tutorials feed them: the same image in each step."""
    written, err = run(x=IMAGES)
    assert "used as a current that is constant during each time step; pass --values graded" in err
    engine, currents = jaxsnn.EventDriven(max_spikes=64), Currents.constant(IMAGE)
    solution = jaxsnn.simulate(network_of_snntorch(**RESET), currents, STEPS * DT, engine=engine)
    expected, times = np.asarray(solution.events("4").time), written["output.time"]
    np.testing.assert_allclose(times, expected[:, : times.shape[1]], atol=1e-8)
    assert np.isfinite(expected).sum() > 5


@pytest.mark.parametrize(
    ("kind", "code", "message"),
    [
        ("spikes", 2, "--values current or --values graded"),
        ("curent", 2, "did you mean"),
        ("current", 0, None),
        ("graded", 0, None),
    ],
)
def test_values_are_what_the_user_says(kind, code, message, run):
    _, err = run("--values", kind, code=code, x=IMAGES)
    if code:
        assert message in err
    else:
        assert "held for each step" not in err


def test_boxes_of_graded_spikes_next_to_each_other_are_the_current(run):
    held, graded = (run("--values", kind, x=IMAGES)[0] for kind in ("current", "graded"))
    np.testing.assert_allclose(held["output.time"], graded["output.time"], atol=2e-7)


def test_fidelity_of_static_images(net, tmp_path, capsys):
    np.savez(tmp_path / "in.npz", x=IMAGES)
    content, _ = run_cli_json(capsys, "fidelity", net, *TOLD, "--input", tmp_path / "in.npz")
    for population in content["populations"].values():
        assert population["grid"] >= 8
        assert population["count_cosine"] > 0.95
        assert 0.8 < population["rate_ratio"] < 1.25


def test_events_with_values_from_an_npz_file_and_from_nir_data_are_the_same(run, tmp_path):
    time, index = np.array([[1e-4, 5e-4, 9e-4, 20e-4]]), np.array([[0, 2, 1, 2]])
    value = np.array([[9.0, 14.5, 7.0, 11.0]])
    npz, _ = run("--t-end", "5ms", time=time, index=index, value=value)
    data = event_data(Events(time=time, index=index), 3, 5e-3, values=value)
    write_data(tmp_path / "in.nir", graph_data({"input": {"spikes": data}}))
    from_nir, _ = run(file=tmp_path / "in.nir")
    np.testing.assert_array_equal(npz["output.time"], from_nir["output.time"])
    assert np.isfinite(npz["output.time"]).any()


@pytest.mark.parametrize("engine", ["event", "grid"])
def test_currents_from_an_npz_file_and_from_nir_data_are_the_same(engine, run, tmp_path):
    data = gridded_data(IMAGES, DT)
    write_data(tmp_path / "steps.nir", graph_data({"input": {"current": data}}))
    npz, _ = run("--engine", engine, x=IMAGES)
    from_nir, _ = run("--engine", engine, file=tmp_path / "steps.nir")
    assert npz.keys() == from_nir.keys()
    assert all(np.array_equal(npz[key], from_nir[key]) for key in npz)


def test_nir_data_of_another_step_are_refused(run, tmp_path):
    data = nir.TimeGriddedData(np.ones((1, 4, 3)), 2e-3)
    write_data(tmp_path / "in.nir", graph_data({"input": {"x": data}}))
    _, err = run(code=2, file=tmp_path / "in.nir")
    assert "time steps of 0.002 s, but the network has 0.0001 s" in err


def test_rasters_are_spikes_and_fractions_are_not():
    network, ones = jaxsnn.lower(network_of_snntorch(**RESET)), np.ones((5, 2, 3))

    def inputs(x, *kind):
        return network_inputs({"x": x}, network, DT, *kind)

    assert isinstance(inputs(ones).events["input"], Events)
    half = inputs(ones / 2)
    assert isinstance(half.events["input"], Currents)
    assert half.t_end == 5 * DT
    graded = inputs(ones / 2, "graded").events["input"]
    assert isinstance(graded, GradedEvents)
    assert (graded.value == 0.5).all()
    assert_refused(lambda: inputs(ones, "level"), UsageError, "values is 'level'")


@pytest.mark.parametrize("of_values", [False, True])
def test_the_literal_dialect_finds_nirs_own_lif_reference(tmp_path, capsys, of_values):
    """A spike is a current of 1 for one step, as NIR's own reference takes it; or a current."""
    lif = {name: nir_paper_lif.LIF[name] for name in ("tau", "r", "v_leak", "v_threshold")}
    graph = build.sequential(build.input(1), build.linear(weight=[[1.0]]), build.lif(1, **lif))
    jaxsnn.write(tmp_path / "lif.nir", graph)
    x = np.zeros((nir_paper_lif.STEPS, 1, 1))
    x[nir_paper_lif.INPUT_STEPS] = 1
    np.savez(tmp_path / "x.npz", x=x)
    options = ["--dialect", "nir", "--time-unit", "s", "--spike-area", "100us"]
    options += ["--values", "current"] if of_values else []
    files = ["--input", tmp_path / "x.npz", "-o", tmp_path / "out.npz"]
    run_cli(capsys, "run", tmp_path / "lif.nir", *options, *files)
    steps = np.load(tmp_path / "out.npz")["output.time"][0] / nir_paper_lif.STEP
    np.testing.assert_allclose(steps, [460.84, 510.90, 710.92, 760.91], atol=5e-3)


@pytest.mark.usefixtures("x64")
def test_in_time_steps_a_current_of_nir_itself_is_no_spike():
    """NIR's own equations in steps are those of continuous time: the voltage is the same."""
    graph = build.sequential(
        build.input(2), build.linear(weight=[[0.5, -1.0]]), build.li(tau="10ms"), dt="1ms"
    )
    x = np.random.default_rng(0).normal(size=(20, 1, 2))
    currents = Currents.held(x, 1e-3)
    events = jaxsnn.simulate(graph, currents, 20e-3, sample_times=np.arange(20) * 1e-3)
    steps = jaxsnn.simulate(graph, currents, 20e-3, engine=jaxsnn.TimeStepped(dt=1e-3))
    np.testing.assert_allclose(
        np.asarray(events.voltages["2"][0, :, 0]), np.asarray(steps.y["output"][:, 0, 0]), atol=1e-8
    )


def test_pieces_between_the_steps_are_counted():
    graph = build.sequential(build.input(1), build.li(tau="10ms"), dt="1ms")
    currents = Currents(
        time=np.array([[0.0, 2.4e-3, 30e-3]]), value=np.array([[[1.0], [2.0], [3.0]]])
    )
    solution = jaxsnn.simulate(graph, currents, 10e-3, engine=jaxsnn.TimeStepped(dt=1e-3))
    assert int(solution.rounded["input"]) == 1
    assert int(solution.late["input"]) == 1


def colours_last():
    """A network that takes images (colour, row, column), and images (row, column, colour)."""
    kernel = {"weight": np.ones((1, 3, 2, 2)), "bias": [0.0], "groups": 1}
    steps = {"stride": [1, 1], "padding": [0, 0], "dilation": [1, 1]}
    graph = build.sequential(
        build.input((3, 4, 4)),
        build.node("Conv2d", **kernel, **steps),
        build.lif(tau=0.01),
        build.node("Flatten", start_dim=0, end_dim=-1),
        build.linear(2),
        build.lif(tau=0.01),
        seed=0,
        dt=1e-3,
    )
    return graph, np.random.default_rng(0).random((10, 4, 4, 3))


@pytest.mark.parametrize("encoder", ["latency", "current", "rate"])
def test_images_whose_colours_come_last_are_refused_in_training(encoder):
    """Joined into one axis they would be other channels, of the same number."""
    graph, images = colours_last()
    assert_refused(
        lambda: jaxsnn.fit(
            graph, (images, np.arange(10) % 2), epochs=1, encoder=encoder, progress=None
        ),
        UsageError,
        r"has shape \(3, 4, 4\) per sample, but its values have shape \(4, 4, 3\)",
    )


def test_images_whose_colours_come_last_are_refused_where_they_run():
    graph, images = colours_last()
    network = jaxsnn.lower(graph)
    x = (images[None] > 0.5).astype(float)
    assert_refused(
        lambda: network_inputs({"x": x}, network, 1e-3),
        UsageError,
        r"input 'input' has shape .* per sample, but .*: reorder the axes",
    )
    for axes in (np.moveaxis(x, -1, 2), np.moveaxis(x, -1, 2).reshape(1, 10, -1)):
        assert network_inputs({"x": axes}, network, 1e-3).events
    for currents in (
        Currents(time=np.zeros((10, 1)), value=images[:, None]),
        Currents.constant(images),
        Currents.held(images[None], 0.01),
    ):
        for engine in (jaxsnn.EventDriven(), jaxsnn.TimeStepped()):
            assert_refused(
                partial(jaxsnn.simulate, network, currents, 0.01, engine=engine),
                UsageError,
                r"reorder the axes \(numpy.moveaxis\), or flatten them",
            )


@pytest.mark.parametrize(
    ("axes", "shape"),
    [((28, 28), (1, 28, 28)), ((784,), (1, 28, 28)), ((2, 3), (2, 1, 3)), ((), ())],
)
def test_axes_that_are_joined_or_of_length_one_are_no_matter(axes, shape):
    refuse_other_axes("input", axes, shape)
    refuse_other_axes("input", shape, axes)
